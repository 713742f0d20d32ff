//! Which trial runs next, and how far: successive halving.
//!
//! A trial runs to the first rung and is compared there. One in `factor` goes on to the next, from its own checkpoint, and so on to
//! the end: many settings get a short look, few a long one.
//!
//! - [`Kind::Sync`]: a rung is decided when all on it are there (Jamieson, Talwalkar 2016, arXiv 1502.07943). What runs is a
//!   function of the settings and of losses alone.
//! - [`Kind::Async`]: a trial goes on as soon as it is among the best of those that are there (Li et al. 2020, arXiv
//!   1810.05934, algorithm 2), so no worker waits; which ones go on hangs on who was there first.
//!
//! Here are decisions alone, as functions of what is known.

use serde::{Deserialize, Serialize};

/// `halving.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every trial runs to its end.
    None,
    /// Rung by rung.
    Sync,
    /// Each as soon as it may.
    Async,
}

/// The rungs, and who goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Halving {
    /// How it is decided.
    pub kind: Kind,
    /// The steps of each rung, ascending; the last are those of a whole run.
    pub rungs: Vec<u64>,
    /// One in so many goes on.
    pub factor: usize,
}

/// A trial that runs to a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The number of the trial.
    pub trial: usize,
    /// The number of the rung.
    pub rung: usize,
}

/// What is known of a trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What it came to at each rung that it reached; infinite where it failed.
    pub values: Vec<f64>,
    /// Whether it runs now.
    pub runs: bool,
}

impl Progress {
    fn at(&self, rung: usize) -> Option<f64> {
        self.values.get(rung).copied()
    }

    /// Whether it can never go on.
    pub fn failed(&self) -> bool {
        self.values.last().is_some_and(|value| !value.is_finite())
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run this.
    Run(Job),
    /// Begin another trial.
    Begin,
    /// Wait for one that runs.
    Wait,
    /// Nothing is left.
    Done,
}

impl Halving {
    /// The rungs of runs of `steps` steps.
    pub fn new(kind: Kind, first: u64, factor: usize, steps: u64) -> Halving {
        let mut rungs = Vec::new();
        if kind != Kind::None {
            rungs.extend(
                std::iter::successors(Some(first), |rung| rung.checked_mul(factor as u64)).take_while(|&r| r < steps),
            );
        }
        rungs.push(steps);
        Halving { kind, rungs, factor }
    }

    /// The steps that a job adds.
    pub fn steps(&self, job: Job) -> u64 {
        self.rungs[job.rung] - if job.rung > 0 { self.rungs[job.rung - 1] } else { 0 }
    }

    /// The next job, where `more` trials are still to begin.
    pub fn next(&self, trials: &[Progress], more: usize) -> Next {
        match self.kind {
            Kind::None | Kind::Sync => self.rung_by_rung(trials, more),
            Kind::Async => self.as_soon_as_may(trials, more),
        }
    }

    /// Of trials that reached `rung`, those with the least values, the best first; failed ones never.
    fn ranked(trials: &[Progress], rung: usize, among: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut there: Vec<(f64, usize)> =
            among.filter_map(|i| Some((trials[i].at(rung)?, i))).filter(|(value, _)| value.is_finite()).collect();
        there.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        there.into_iter().map(|(_, i)| i).collect()
    }

    fn rung_by_rung(&self, trials: &[Progress], more: usize) -> Next {
        if let Some(trial) = trials.iter().position(|t| t.values.is_empty() && !t.runs) {
            return Next::Run(Job { trial, rung: 0 });
        }
        if more > 0 {
            return Next::Begin;
        }
        let mut on: Vec<usize> = (0..trials.len()).collect();
        for rung in 0..self.rungs.len() {
            let mut waits = false;
            for &trial in &on {
                match &trials[trial] {
                    t if t.values.len() > rung => {}
                    t if t.runs => waits = true,
                    _ => return Next::Run(Job { trial, rung }),
                }
            }
            if waits {
                return Next::Wait;
            }
            let best = Halving::ranked(trials, rung, on.iter().copied());
            on.clear();
            on.extend(best.into_iter().take((self.entrants(trials.len(), rung) / self.factor).max(1)));
        }
        Next::Done
    }

    /// How many of `trials` come to a rung.
    fn entrants(&self, trials: usize, rung: usize) -> usize {
        (0..rung).fold(trials, |n, _| (n / self.factor).max(1))
    }

    fn as_soon_as_may(&self, trials: &[Progress], more: usize) -> Next {
        for rung in (0..self.rungs.len() - 1).rev() {
            let there = trials.iter().filter(|t| t.values.len() > rung).count();
            let best = Halving::ranked(trials, rung, 0..trials.len());
            let waiting = |&&i: &&usize| trials[i].values.len() == rung + 1 && !trials[i].runs;
            if let Some(&trial) = best.iter().take(there / self.factor).find(waiting) {
                return Next::Run(Job { trial, rung: rung + 1 });
            }
        }
        if let Some(trial) = trials.iter().position(|t| t.values.is_empty() && !t.runs) {
            return Next::Run(Job { trial, rung: 0 });
        }
        if more > 0 {
            return Next::Begin;
        }
        if trials.iter().any(|t| t.runs) {
            return Next::Wait;
        }
        // With few trials the upper rungs stay empty: then the best goes all the way, so that something is whole.
        let top = trials.iter().filter(|t| !t.failed()).map(|t| t.values.len()).max().unwrap_or(0);
        match top {
            top if top > 0 && top < self.rungs.len() => {
                let best = Halving::ranked(trials, top - 1, 0..trials.len());
                Next::Run(Job { trial: best[0], rung: top })
            }
            _ => Next::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a whole search over trials whose value at every rung is their number in `values`, with so many workers; gives the jobs in
    /// the order in which they ended. The one that was taken up last ends first where `hasty`.
    fn run(halving: &Halving, values: &[f64], workers: usize, hasty: bool) -> Vec<(usize, usize)> {
        let (mut trials, mut running, mut done) = (Vec::<Progress>::new(), Vec::<Job>::new(), Vec::new());
        loop {
            let next = match running.len() < workers {
                true => halving.next(&trials, values.len() - trials.len()),
                false => Next::Wait,
            };
            match next {
                Next::Begin => trials.push(Progress::default()),
                Next::Run(job) => {
                    assert!(!trials[job.trial].runs && trials[job.trial].values.len() == job.rung, "{job:?}");
                    trials[job.trial].runs = true;
                    running.push(job);
                }
                Next::Wait => {
                    let job = running.remove(if hasty { running.len() - 1 } else { 0 });
                    let trial = &mut trials[job.trial];
                    trial.runs = false;
                    trial.values.push(values[job.trial]);
                    done.push((job.trial, job.rung));
                }
                Next::Done => {
                    assert!(running.is_empty());
                    return done;
                }
            }
        }
    }

    /// How many came to each rung.
    fn counts(done: &[(usize, usize)], rungs: usize) -> Vec<usize> {
        (0..rungs).map(|rung| done.iter().filter(|job| job.1 == rung).count()).collect()
    }

    const VALUES: [f64; 27] = [
        5.0, 3.0, 8.0, 1.5, 9.0, 4.0, 7.0, 6.5, 2.5, 3.5, 5.5, 6.0, 1.0, 8.5, 2.0, 9.5, 4.5, 7.5, 10.0, 11.0, 12.0,
        13.0, 14.0, 15.0, 16.0, 17.0, 18.0,
    ];

    #[test]
    fn rungs_grow_by_a_factor_up_to_the_whole_run() {
        let rungs = |kind, first, factor, steps| Halving::new(kind, first, factor, steps).rungs;
        assert_eq!(rungs(Kind::Sync, 100, 3, 1000), [100, 300, 900, 1000]);
        assert_eq!(rungs(Kind::Async, 100, 3, 900), [100, 300, 900]);
        assert_eq!(rungs(Kind::Sync, 100, 3, 50), [50]);
        assert_eq!(rungs(Kind::None, 100, 3, 1000), [1000]);
        let halving = Halving::new(Kind::Sync, 100, 3, 1000);
        let steps = |rung| halving.steps(Job { trial: 0, rung });
        assert_eq!([steps(0), steps(1), steps(3)], [100, 200, 100]);
    }

    #[test]
    fn rung_by_rung_a_third_goes_on_and_it_is_the_best() {
        let halving = Halving::new(Kind::Sync, 1, 3, 27);
        for (workers, hasty) in [(1, false), (4, false), (4, true)] {
            let mut done = run(&halving, &VALUES, workers, hasty);
            assert_eq!(counts(&done, 4), [27, 9, 3, 1]);
            let mut second: Vec<usize> = done.iter().filter(|job| job.1 == 2).map(|job| job.0).collect();
            second.sort_unstable();
            assert_eq!(second, [3, 12, 14]);
            assert_eq!(done.pop(), Some((12, 3)));
        }
    }

    #[test]
    fn at_once_the_best_gets_to_the_end_however_many_work() {
        let halving = Halving::new(Kind::Async, 1, 3, 27);
        for (workers, hasty) in [(1, false), (4, false), (4, true)] {
            let done = run(&halving, &VALUES, workers, hasty);
            assert!(done.contains(&(12, 3)), "{workers}, {hasty}: {done:?}");
            let counts = counts(&done, 4);
            assert!(counts[0] == 27 && (9..=14).contains(&counts[1]), "{counts:?}");
            // Nobody goes on before three are there.
            assert!(done[..3].iter().all(|job| job.1 == 0));
        }
        // Of four trials one in nine is none: the best goes on alone.
        assert_eq!(run(&halving, &VALUES[..4], 2, false).pop(), Some((3, 3)));
    }

    #[test]
    fn who_failed_never_goes_on() {
        for kind in [Kind::Sync, Kind::Async] {
            let halving = Halving::new(kind, 1, 2, 4);
            let bad = f64::INFINITY;
            let done = run(&halving, &[bad, bad, bad, 3.0, bad, bad], 1, false);
            assert!(done.contains(&(3, 2)) && done.iter().all(|job| job.1 == 0 || job.0 == 3), "{kind:?}: {done:?}");
            assert_eq!(run(&halving, &[bad; 6], 2, true).len(), 6);
        }
        assert_eq!(run(&Halving::new(Kind::None, 1, 2, 4), &[2.0, 1.0], 1, false), [(0, 0), (1, 0)]);
    }
}
