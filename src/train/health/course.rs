//! The course of a run: its losses, step by step. A run that is under way and one that is read from `metrics.jsonl` are judged
//! by the same rules; what is kept is of fixed size, so a step allocates nothing until something is found.
//!
//! | finding | rule |
//! |---|---|
//! | no warm-up, or a rate that is too high | within the first steps the loss rose above its first value |
//! | a rate that is too high | the mean of the last losses is far above the lowest mean so far |
//! | spikes | single losses far above the mean, again and again |
//! | stuck | fresh weights, and after many steps the mean is where the first loss was |
//! | overfitting | the held-out loss has risen since an evaluation, while the training loss fell |

use super::finding::{Finding, Kind, Knob, Told};
use super::recipe::Terms;
use crate::train::metrics::Record;

/// Losses in a mean.
const WINDOW: usize = 32;

/// Steps after warm-up in which a rise above the first loss says that the start was too fast.
const EARLY: u64 = 32;

/// Losses of an early rise: several, so that it is no single batch.
const SHORT: usize = 4;

/// The share of the first loss by which it may be exceeded early on. Of fresh models the first loss is near the logarithm of
/// the number of choices, and those of healthy runs of the study never rose above it by more than 1 %.
const EARLY_RISE: f64 = 0.1;

/// The same of weights that were trained before: their first loss is small, and batches differ.
const EARLY_RISE_TUNED: f64 = 0.3;

/// The share of what was gained so far that has to be lost again for a run to have gone up. Healthy runs of the study lost at most 2 %.
const LOST: f64 = 0.15;

/// Deviations of single losses that a mean may rise beside that.
const RISE_DEVIATIONS: f64 = 2.0;

/// Deviations above the mean from which on a loss is a spike: `guard.spike_deviations`.
const SPIKE_DEVIATIONS: f64 = 10.0;

/// Spikes of less than this share of the mean are none.
const SPIKE_SHARE: f64 = 0.1;

/// Spikes that are bad luck.
const SPIKES: u32 = 2;

/// Steps after warm-up from which on a loss that has not moved is stuck.
const PATIENCE: u64 = 200;

/// The share of the first loss that it has to have fallen by then. Healthy runs of the study fell by 20 % or more.
const FALL: f64 = 0.02;

/// The share of its lowest value by which a held-out loss has to have risen. Means over a whole held-out part move by
/// about 1 % from one evaluation to the next.
const OVERFIT: f64 = 0.04;

/// Where it does not rise, as with a rate that falls: the gap between the two losses, as a share of the training loss, with which training
/// alone still goes on; and what that is: its loss falls by so much from one evaluation to the next, the other by so little.
const GAP: f64 = 0.4;
const STILL_FALLS: f64 = 0.05;
const STANDS: f64 = 0.01;

/// What is known of a run's losses.
#[derive(Clone, Debug)]
pub struct Course {
    terms: Terms,
    /// What was told; absent where all is.
    told: Option<Told>,
    /// The last losses that were finite.
    ring: [f64; WINDOW],
    /// How many there were.
    seen: u64,
    first: f64,
    /// The lowest mean of a window, and its step.
    lowest: Option<(f64, u64)>,
    /// The running mean of the distances of successive losses.
    jump: f64,
    spikes: u32,
    /// Whether the last loss was one.
    up: bool,
    /// The lowest held-out loss, its step, the training loss then, and how many evaluations came after it.
    best: Option<(f64, u64, f64, u32)>,
    /// The last evaluation: its step, the held-out loss, and the training loss then.
    last: Option<(u64, f64, f64)>,
}

impl Course {
    /// Before the first step; a finding is given once, and again when it became much worse.
    pub fn new(terms: Terms) -> Course {
        Course {
            terms,
            told: Some(Told::default()),
            ring: [0.0; WINDOW],
            seen: 0,
            first: 0.0,
            lowest: None,
            jump: 0.0,
            spikes: 0,
            up: false,
            best: None,
            last: None,
        }
    }

    /// The same, whose findings are given after every step for which they hold.
    pub fn verbose(terms: Terms) -> Course {
        Course { told: None, ..Course::new(terms) }
    }

    /// Begins anew with the records of the steps that a run goes on after; what was told stays told, and so is what they show.
    pub fn restart(&mut self, records: &[Record]) {
        *self = Course { told: self.told, ..Course::new(self.terms) };
        records.iter().for_each(|record| drop(self.record(record)));
    }

    /// A finding of another source, where it is news.
    pub fn tell(&mut self, found: Finding) -> Option<Finding> {
        self.news(found.kind, found.severity).then_some(found)
    }

    /// The mean of the last losses; `None` before there is a window of them.
    pub fn mean(&self) -> Option<f64> {
        (self.seen >= WINDOW as u64).then(|| self.ring.iter().sum::<f64>() / WINDOW as f64)
    }

    /// The loss before the first update; `None` before the first step.
    pub fn first(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.first)
    }

    /// By how much of the first loss the mean has fallen, where both are known.
    pub fn fell(&self) -> Option<f64> {
        self.mean().filter(|_| self.first > 0.0).map(|mean| 1.0 - mean / self.first)
    }

    /// About the deviation of single losses: for normal numbers, the mean distance of two is 2/√π deviations.
    pub fn deviation(&self) -> f64 {
        self.jump * std::f64::consts::PI.sqrt() / 2.0
    }

    /// The mean of the last few losses.
    fn short_mean(&self) -> f64 {
        let last = |i: u64| self.ring[((self.seen - 1 - i) % WINDOW as u64) as usize];
        (0..SHORT as u64).map(last).sum::<f64>() / SHORT as f64
    }

    /// Takes in what is known of a step and of the evaluation after it; what is wrong, where that is news.
    pub fn record(&mut self, record: &Record) -> [Option<Finding>; 2] {
        let step = if record.skipped.is_some() { None } else { self.step(record.step, record.loss) };
        let before = record.more.get("val_before").copied();
        [step, record.val_loss.and_then(|loss| self.evaluated(record.step, loss, before))]
    }

    /// Takes in the loss of a step that was not skipped. Allocates nothing where nothing is found.
    pub fn step(&mut self, step: u64, loss: f32) -> Option<Finding> {
        let loss = f64::from(loss);
        if !loss.is_finite() || !self.terms.falls {
            return None;
        }
        let spike = self.mean().filter(|mean| {
            let margin = (SPIKE_DEVIATIONS * self.deviation()).max(SPIKE_SHARE * mean.abs());
            loss > mean + margin
        });
        if self.seen == 0 {
            self.first = loss;
        } else if spike.is_none() {
            let last = self.ring[((self.seen - 1) % WINDOW as u64) as usize];
            // A running mean over about a window, exact at first.
            let share = (1.0 / self.seen as f64).max(1.0 / WINDOW as f64);
            self.jump += share * ((loss - last).abs() - self.jump);
        }
        self.ring[(self.seen % WINDOW as u64) as usize] = loss;
        self.seen += 1;
        let found = self.early(step).or_else(|| self.spiked(step, loss, spike)).or_else(|| self.risen(step));
        found.or_else(|| self.stuck(step))
    }

    fn news(&mut self, kind: Kind, severity: f64) -> bool {
        self.told.as_mut().is_none_or(|told| told.is_news(kind, severity))
    }

    fn early(&mut self, step: u64) -> Option<Finding> {
        let Terms { warmup, fresh, .. } = self.terms;
        if self.seen < SHORT as u64 || step > warmup + EARLY || self.first <= 0.0 {
            return None;
        }
        let now = self.short_mean();
        let rise = now / self.first - 1.0;
        let cold = self.terms.starts_cold();
        let kind = if cold { Kind::NoWarmup } else { Kind::LrTooHigh };
        if rise <= if fresh { EARLY_RISE } else { EARLY_RISE_TUNED } || !self.news(kind, rise) {
            return None;
        }
        let evidence = [
            ("first loss", self.first),
            ("mean of the last 4", now),
            ("step", step as f64),
            ("optim.warmup", warmup as f64),
        ];
        let (what, knob) = match cold {
            true => (
                "the run begins at its full learning rate, and the loss rose above where it began",
                self.terms.warm_up(),
            ),
            false => ("the loss rose above where it began as soon as it warmed up", self.terms.lr_times(0.1)),
        };
        Some(Finding::new(kind, what, &evidence, knob).severe(rise))
    }

    fn risen(&mut self, step: u64) -> Option<Finding> {
        let mean = self.mean()?;
        match self.lowest {
            Some((lowest, at)) if mean >= lowest => {
                let gained = self.first - lowest;
                let margin = (LOST * gained.max(0.0)).max(0.02 * lowest.abs()) + RISE_DEVIATIONS * self.deviation();
                let severity = (mean - lowest) / margin.max(1e-9);
                if mean - lowest <= margin || !self.news(Kind::LrTooHigh, severity) {
                    return None;
                }
                let evidence = [
                    ("mean loss now", mean),
                    ("lowest mean", lowest),
                    ("at step", at as f64),
                    ("step", step as f64),
                    ("optim.lr", self.terms.lr),
                ];
                let what = "the loss fell and has gone up again: steps are too large";
                Some(Finding::new(Kind::LrTooHigh, what, &evidence, self.terms.lr_times(0.3)).severe(severity))
            }
            _ => {
                self.lowest = Some((mean, step));
                None
            }
        }
    }

    fn spiked(&mut self, step: u64, loss: f64, above: Option<f64>) -> Option<Finding> {
        let began = above.is_some() && !self.up;
        self.up = above.is_some();
        self.spikes += u32::from(began);
        let mean = above.filter(|_| began && self.spikes > SPIKES)?;
        if !self.news(Kind::Spikes, self.spikes.into()) {
            return None;
        }
        let evidence =
            [("spikes", self.spikes.into()), ("loss", loss), ("mean before it", mean), ("step", step as f64)];
        let what = "the loss jumps up again and again";
        let knob = match self.terms.clips {
            true => self.terms.lr_times(0.5),
            false => Knob { key: "optim.clip", value: "1.0".into() },
        };
        Some(Finding::new(Kind::Spikes, what, &evidence, knob).severe(self.spikes.into()))
    }

    fn stuck(&mut self, step: u64) -> Option<Finding> {
        if !self.terms.fresh || step < self.terms.warmup + PATIENCE {
            return None;
        }
        let mean = self.mean()?;
        if mean < self.first - FALL * self.first.abs() || !self.news(Kind::Stuck, 1.0) {
            return None;
        }
        let evidence =
            [("first loss", self.first), ("mean loss now", mean), ("step", step as f64), ("optim.lr", self.terms.lr)];
        let what = "the loss hardly moves: the learning rate is far too low, or so high that nothing is learnt";
        Some(Finding::new(Kind::Stuck, what, &evidence, self.terms.lr_times(10.0)))
    }

    /// Takes in a held-out loss, and that of the weights at the start where these were trained before.
    pub fn evaluated(&mut self, step: u64, loss: f64, before: Option<f64>) -> Option<Finding> {
        if !self.terms.falls || !loss.is_finite() {
            return None;
        }
        let train = self.mean()?;
        let (best, at, then, since) = match self.best {
            None => match before.filter(|before| before.is_finite() && *before < loss) {
                // What the weights knew at the start is an evaluation of step 0.
                Some(before) => (before, 0, self.first, 1),
                None => (loss, step, train, 0),
            },
            Some((best, ..)) if loss < best => (loss, step, train, 0),
            Some((best, at, then, since)) => (best, at, then, since + 1),
        };
        self.best = Some((best, at, then, since));
        let rise = (loss - best) / best.abs().max(1e-9);
        let rises = since > 0 && rise > OVERFIT && then - train > 0.02 * then.abs();
        let before = self.last.replace((step, loss, train));
        let stands = before.filter(|&(_, held_out, then)| {
            train > 0.0
                && loss > (1.0 + GAP) * train
                && train < (1.0 - STILL_FALLS) * then
                && loss > (1.0 - STANDS) * held_out
        });
        let (at, lowest, then) = match stands {
            _ if rises => (at, best, then),
            Some((step, held_out, then)) => (step, held_out, then),
            None => return None,
        };
        if !self.news(Kind::Overfitting, rise.max(OVERFIT)) {
            return None;
        }
        let evidence = [
            ("held-out loss", loss),
            ("training loss", train),
            ("step", step as f64),
            ("held-out loss before", lowest),
            ("training loss then", then),
            ("at step", at as f64),
        ];
        let what = "the model learns its training data by heart: the training loss falls, the held-out loss does not";
        let knob = match at {
            0 => self.terms.lr_times(0.3),
            at => Knob { key: "train.steps", value: at.to_string() },
        };
        Some(Finding::new(Kind::Overfitting, what, &evidence, knob).severe(rise.max(OVERFIT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    const TERMS: Terms = Terms { lr: 1e-3, warmup: 20, steps: 600, clips: true, falls: true, fresh: true };

    /// Kinds that are found in losses.
    fn found(terms: Terms, losses: impl Fn(u64) -> f64) -> Vec<Kind> {
        let random = Stream::new(3, Purpose::Test, 0, 0);
        let mut course = Course::new(terms);
        let noisy = |step: u64| (losses(step) * (1.0 + 0.03 * random.normal(step))) as f32;
        (1..=600).filter_map(|step| course.step(step, noisy(step)).map(|found| found.kind)).collect()
    }

    /// A run that learns.
    fn falling(step: u64) -> f64 {
        2.0 + 5.0 * (-(step as f64) / 80.0).exp()
    }

    #[test]
    fn a_loss_that_falls_and_stays_is_no_finding() {
        for terms in [TERMS, Terms { warmup: 0, ..TERMS }, Terms { fresh: false, ..TERMS }] {
            assert_eq!(found(terms, falling), []);
            assert_eq!(found(Terms { fresh: false, ..terms }, |_| 2.0), []);
            // A plateau, then on.
            assert_eq!(found(terms, |step| falling(step.min(100)) - if step > 400 { 1.0 } else { 0.0 }), []);
        }
    }

    #[test]
    fn an_early_rise_is_blamed_on_the_missing_warm_up_where_it_is_missing() {
        let early = |step: u64| if (4..20).contains(&step) { 9.0 } else { falling(step) };
        assert_eq!(found(Terms { warmup: 0, ..TERMS }, early), [Kind::NoWarmup]);
        assert_eq!(found(TERMS, early), [Kind::LrTooHigh]);
        assert_eq!(found(Terms { falls: false, ..TERMS }, early), []);
        // A single high loss is none.
        assert_eq!(found(Terms { warmup: 0, ..TERMS }, |step| if step == 6 { 7.4 } else { falling(step) }), []);
    }

    #[test]
    fn a_loss_that_goes_up_and_stays_is_told_of_once_and_again_when_much_worse() {
        assert_eq!(found(TERMS, |step| if step > 300 { 4.5 } else { falling(step) }), [Kind::LrTooHigh]);
        let twice = |step: u64| {
            if step > 450 {
                40.0
            } else if step > 300 {
                4.5
            } else {
                falling(step)
            }
        };
        assert!(found(TERMS, twice).iter().filter(|kind| **kind == Kind::LrTooHigh).count() >= 2);
    }

    #[test]
    fn spikes_are_counted() {
        let spiky = |every: u64| move |step: u64| falling(step) * if step % every == every - 1 { 3.0 } else { 1.0 };
        assert_eq!(found(TERMS, spiky(120)), [Kind::Spikes]);
        assert_eq!(found(TERMS, spiky(300)), []);
        // One long rise is one.
        assert!(
            !found(TERMS, |step| if (300..320).contains(&step) { 5.0 } else { falling(step) }).contains(&Kind::Spikes)
        );
    }

    #[test]
    fn fresh_weights_whose_loss_stays_are_stuck() {
        assert_eq!(found(TERMS, |step| 7.0 - 1e-4 * step as f64), [Kind::Stuck]);
        assert_eq!(found(TERMS, |step| 7.0 - 3e-3 * step as f64), []);
    }

    #[test]
    fn overfitting_is_a_held_out_loss_that_rises_while_the_other_falls() {
        let run = |train: fn(u64) -> f64, held_out: fn(u64) -> f64, before: Option<f64>| {
            let mut course = Course::new(Terms { fresh: false, ..TERMS });
            let mut all = Vec::new();
            for step in 1..=600 {
                assert_eq!(course.step(step, train(step) as f32), None);
                if step % 50 == 0 {
                    all.extend(course.evaluated(step, held_out(step), before));
                }
            }
            all
        };
        let all = run(falling, |step| falling(step.min(200)) + 0.003 * step.saturating_sub(200) as f64, None);
        assert_eq!((all[0].kind, &*all[0].knob.value), (Kind::Overfitting, "200"));
        assert_eq!(run(falling, |step| 1.1 * falling(step), None), []);
        // It rises along with the training loss, or stays near it.
        assert_eq!(run(|_| 3.0, |step| 3.0 + 0.002 * step as f64, None), []);
        assert_eq!(run(falling, |_| 2.5, None), []);
        // It stands far above a training loss that goes on falling.
        let all = run(|step| 4.0 * (-(step as f64) / 300.0).exp(), |step| (4.0 - 0.01 * step as f64).max(2.5), None);
        assert_eq!((all.len(), all[0].kind, &*all[0].knob.value), (1, Kind::Overfitting, "250"));
        // Worse than what it was tuned from.
        let all = run(falling, |_| 3.0, Some(2.0));
        assert_eq!((all.len(), all[0].kind, all[0].knob.key), (1, Kind::Overfitting, "optim.lr"));
        assert_eq!(run(falling, |_| 2.6, Some(4.0)), []);
    }
}
