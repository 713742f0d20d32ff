//! Contestants that take turns.
//!
//! Programs timed one after the other see different machines: clocks change, neighbours come and go. So they alternate,
//! A B A B, and what is compared is the two of a round. Each round stands between two short looks at how fast the machine
//! multiplies and adds; a round beside a look under [`CALM`] of the best seen is dropped (the clock fell, two threads share
//! a core, others compute), and others run in its stead.

use super::Repetition;
use crate::error::Result;

/// The share of the best peak under which a round is dropped.
pub const CALM: f64 = 0.9;
/// How many rounds may run for each that is wanted.
const PATIENCE: usize = 2;

/// One round: the seconds of each contestant's parts, and the lower peak of the looks before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// By contestant, then by part.
    pub seconds: Vec<Vec<f64>>,
    /// In GFLOP/s.
    pub peak: f64,
}

/// Rounds that count.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns {
    /// Those that count, at least one.
    pub rounds: Vec<Round>,
    /// How many were dropped.
    pub dropped: usize,
    /// False where the machine was never calm: then all rounds count.
    pub calm: bool,
}

/// Looks at how fast the machine is, and remembers the best.
pub struct Gauge<'a> {
    look: Box<dyn FnMut() -> f64 + 'a>,
    /// The best peak so far, in GFLOP/s.
    pub best: f64,
}

impl<'a> Gauge<'a> {
    /// A gauge that has seen `best` and looks by `look`.
    pub fn new(best: f64, look: impl FnMut() -> f64 + 'a) -> Gauge<'a> {
        Gauge { look: Box::new(look), best }
    }

    fn read(&mut self) -> f64 {
        let peak = (self.look)();
        self.best = self.best.max(peak);
        peak
    }

    fn is_calm(&self, round: &Round) -> bool {
        round.peak >= CALM * self.best
    }
}

/// Lets the contestants take turns until `rounds` calm rounds are done, or twice as many in all.
///
/// # Errors
/// A contestant failed.
pub fn alternate(contestants: &mut [Repetition<'_>], gauge: &mut Gauge, rounds: usize) -> Result<Turns> {
    let mut done: Vec<Round> = Vec::new();
    let mut before = gauge.read();
    while done.len() < PATIENCE * rounds && done.iter().filter(|round| gauge.is_calm(round)).count() < rounds {
        let seconds = contestants.iter_mut().map(|repeat| repeat()).collect::<Result<_>>()?;
        let after = gauge.read();
        done.push(Round { seconds, peak: before.min(after) });
        before = after;
    }
    let (calm, rough): (Vec<Round>, Vec<Round>) = done.into_iter().partition(|round| gauge.is_calm(round));
    Ok(match calm.is_empty() {
        true => Turns { rounds: rough, dropped: 0, calm: false },
        false => Turns { rounds: calm, dropped: rough.len(), calm: true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two contestants that count their laps, under these peaks (the last one stays).
    fn run(peaks: &[f64], rounds: usize) -> Turns {
        let count = |step: f64| -> Repetition<'static> {
            let mut seconds = 0.0;
            Box::new(move || {
                seconds += step;
                Ok(vec![seconds])
            })
        };
        let mut looks = 0;
        let look = || {
            looks += 1;
            peaks[(looks - 1).min(peaks.len() - 1)]
        };
        alternate(&mut [count(1.0), count(10.0)], &mut Gauge::new(50.0, look), rounds).unwrap()
    }

    fn firsts(turns: &Turns) -> Vec<[f64; 2]> {
        turns.rounds.iter().map(|round| [round.seconds[0][0], round.seconds[1][0]]).collect()
    }

    #[test]
    fn calm_rounds_all_count() {
        let turns = run(&[100.0, 95.0, 99.0, 91.0], 3);
        assert_eq!(firsts(&turns), [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]);
        assert!(turns.calm && turns.dropped == 0 && turns.rounds[0].peak == 95.0);
    }

    #[test]
    fn a_round_beside_a_low_peak_is_dropped_and_run_again() {
        // The second and third rounds share the bad look between them.
        let turns = run(&[100.0, 100.0, 80.0, 100.0], 3);
        assert_eq!(firsts(&turns), [[1.0, 10.0], [4.0, 40.0], [5.0, 50.0]]);
        assert_eq!((turns.calm, turns.dropped), (true, 2));
    }

    #[test]
    fn a_better_peak_later_drops_rounds_that_seemed_calm() {
        let turns = run(&[80.0, 80.0, 80.0, 100.0, 100.0], 2);
        assert_eq!((firsts(&turns), turns.dropped), (vec![[1.0, 10.0], [2.0, 20.0]], 0), "it ended before");
        let turns = run(&[80.0, 80.0, 100.0, 100.0], 2);
        assert_eq!((firsts(&turns), turns.dropped), (vec![[3.0, 30.0], [4.0, 40.0]], 2));
    }

    #[test]
    fn a_machine_that_is_never_calm_is_said_to_be_so() {
        let turns = run(&[40.0], 2);
        assert_eq!((turns.rounds.len(), turns.dropped, turns.calm), (4, 0, false));
    }
}
