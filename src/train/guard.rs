//! Judges every step by its loss: which steps are skipped, and when a run goes back.
//!
//! - A **bad** step has a loss or a gradient that is not finite, or a gradient whose sum of squares is not finite in f32,
//!   so that the optimizer's second moment could not hold it (see [`Params::first_bad_grad`]). It is skipped: weights,
//!   moments and the number of updates stay, the step and its data count as used. After `max_bad_steps` in a row the run
//!   goes back.
//! - A **high** loss is above `m + spike_deviations · max(1.4826 · MAD, 0.01)`, where m is the median of the last
//!   `spike_window` losses that were neither bad nor high, and MAD the median of their distances from m; nothing is high
//!   before there are as many. Its step counts like any other, but after `spike_steps` in a row the run goes back. The loss of a good
//!   step that is not told (NaN), as in private training, is none of them.
//! - To **go back** is to load the last checkpoint that was due by `train.checkpoint_every` with no bad or high step
//!   just before it (the initial weights where there is none yet), and to go on from there with the data that
//!   comes after the last step done. After `max_rewinds` times without a checkpoint behind that step, the run ends.
//!
//! Everything here is a function of the losses and is part of a checkpoint, so a resumed run decides what the
//! uninterrupted one would have decided. Where a run was stopped has no part in it: that is why the checkpoints made
//! then do not count.
//!
//! Sources: PaLM (arXiv 2204.02311, section 5.1): "We re-started training from a checkpoint roughly 100 steps before the
//! spike started, and skipped roughly 200–500 data batches, which cover the batches that were seen before and during the
//! spike"; the same batches did no harm to another state of the model. OPT (arXiv 2205.01068, section 2.5) went back to
//! checkpoints in the same way, with a lower learning rate. 1.4826 makes the MAD of normal numbers their deviation.
//!
//! [`Params::first_bad_grad`]: crate::params::Params::first_bad_grad

use super::recipe;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The least deviation, in nats a token: losses that hardly differ say little of what is normal.
const LEAST_DEVIATION: f64 = 0.01;

/// What is to be done after a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The step counts.
    Good,
    /// The step is skipped.
    Skip,
    /// The run goes back, for this reason.
    Rewind(String),
}

/// What the guard knows of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// How many steps' data the run has passed over by going back: the step numbered s, from 0, has batch s + `offset`.
    pub offset: u64,
    /// Steps skipped, those included that the run went back behind.
    pub skipped: u64,
    /// Every time the run went back.
    pub rewinds: Vec<Rewind>,
    /// Times it went back since it last made a checkpoint to go back to behind `furthest`.
    tries: u64,
    /// The step that made the run go back, the furthest of them.
    furthest: u64,
    /// The step of the checkpoint to go back to, 0 for the initial weights; `None` in files older than this.
    anchor: Option<u64>,
    /// Bad steps in a row.
    bad: u64,
    /// High losses in a row.
    high: u64,
    /// The last losses that were neither bad nor high, the oldest first.
    losses: Vec<f32>,
}

/// A time when a run went back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewind {
    /// Steps done then.
    pub from: u64,
    /// The step it went back to.
    pub to: u64,
    /// Why.
    pub why: String,
}

impl Guard {
    /// Before the first step.
    pub fn new() -> Guard {
        Guard { anchor: Some(0), ..Guard::default() }
    }

    /// Judges a step by its loss, and by the name of what was not finite in it.
    pub fn observe(&mut self, rule: &recipe::Guard, loss: f32, bad: Option<&str>) -> Verdict {
        if let Some(bad) = bad {
            self.skipped += 1;
            self.bad += 1;
            if self.bad < rule.max_bad_steps {
                return Verdict::Skip;
            }
            let first = if bad == LOSS { String::new() } else { format!(", the first bad gradient that of {bad}") };
            return Verdict::Rewind(format!("{} steps in a row were not finite (loss {loss}{first})", self.bad));
        }
        self.bad = 0;
        if loss.is_nan() {
            return Verdict::Good;
        }
        match self.bound(rule).filter(|&bound| f64::from(loss) > bound) {
            None => {
                self.high = 0;
                self.losses.push(loss);
                let surplus = self.losses.len().saturating_sub(rule.spike_window);
                self.losses.drain(..surplus);
                Verdict::Good
            }
            Some(bound) => {
                self.high += 1;
                if self.high < rule.spike_steps {
                    return Verdict::Good;
                }
                Verdict::Rewind(format!(
                    "the loss, now {loss:.3}, was above {bound:.3} for {} steps in a row (guard.spike_deviations)",
                    self.high
                ))
            }
        }
    }

    /// What a loss must not be above; `None` where nothing can be said yet, or shall be.
    fn bound(&self, rule: &recipe::Guard) -> Option<f64> {
        if rule.spike_steps == 0 || self.losses.len() < rule.spike_window {
            return None;
        }
        let mut x: Vec<f64> = self.losses.iter().map(|&loss| f64::from(loss)).collect();
        let center = median(&mut x);
        x.iter_mut().for_each(|x| *x = (*x - center).abs());
        Some(center + rule.spike_deviations * (1.4826 * median(&mut x)).max(LEAST_DEVIATION))
    }

    /// A checkpoint of `step` is about to be made that is due by `train.checkpoint_every`.
    pub fn mark(&mut self, step: u64) {
        if (self.bad, self.high) != (0, 0) {
            return;
        }
        self.anchor = Some(step);
        if step > self.furthest {
            self.tries = 0;
        }
    }

    /// The step of the checkpoint to go back to, 0 for the initial weights; `None` in files older than this.
    pub fn anchor(&self) -> Option<u64> {
        self.anchor
    }

    /// The run goes back from step `from` to step `to`, at which the guard was `then`.
    pub fn rewind(&mut self, from: u64, to: u64, then: Guard, why: String) {
        self.offset += from - to;
        self.rewinds.push(Rewind { from, to, why });
        self.tries += 1;
        self.furthest = self.furthest.max(from);
        // Where the checkpoint that it wanted is damaged, it went back to another one.
        self.anchor = Some(to);
        (self.bad, self.high) = (0, 0);
        self.losses = then.losses;
    }

    /// Bad steps in a row so far.
    pub fn bad_in_a_row(&self) -> u64 {
        self.bad
    }

    /// Times the run went back without getting past the step that made it.
    pub fn tries(&self) -> u64 {
        self.tries
    }

    /// The end of a run that went back as often as it may, from its step `from`, for the reason `why`; `checkpoint` is
    /// the step of its last checkpoint.
    pub fn give_up(&self, from: u64, why: &str, optim: &recipe::Optim, run: &Path, checkpoint: Option<u64>) -> Error {
        let to = self.anchor.unwrap_or(0);
        let tried = match self.tries {
            0 => "guard.max_rewinds is 0".to_owned(),
            1 => format!("going back to step {to} and on with later data did not help"),
            n => format!("going back to step {to} and on with later data did not help, {n} times"),
        };
        let lr = optim.lr;
        let resume = format!(
            "kiln train --resume {} --set optim.lr={:e}",
            run.display(),
            (lr / 10.0).min(1e-3).max(optim.min_lr)
        );
        let resume = match checkpoint {
            Some(0) => format!("; from the initial weights: {resume}"),
            Some(step) => format!("; the checkpoint of step {step} stands: {resume}"),
            None => "; then start anew, for no checkpoint was made yet".to_owned(),
        };
        let spike = if self.high > 0 { ", or raise guard.spike_deviations where such losses are normal" } else { "" };
        let hint = format!("lower optim.lr (it is {lr:e}) or lengthen optim.warmup{spike}{resume}");
        Error::failed(format!("optim.lr: the run is unstable at step {from}: {why}; {tried}"), hint)
    }
}

/// What [`Guard::observe`] and `metrics.jsonl` call a step of which only the loss is not finite.
pub const LOSS: &str = "loss";

/// The median; of an even number of elements, the upper one.
fn median(x: &mut [f64]) -> f64 {
    let middle = x.len() / 2;
    *x.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    const RULE: recipe::Guard =
        recipe::Guard { max_bad_steps: 3, spike_window: 20, spike_deviations: 10.0, spike_steps: 4, max_rewinds: 2 };

    /// Losses around 2 that differ by about 0.1.
    fn usual(i: usize) -> f32 {
        2.0 + [0.1, -0.1, 0.05, 0.0, -0.12, 0.08, -0.03][i % 7]
    }

    /// A guard that has seen a window of usual losses.
    fn settled() -> Guard {
        let mut guard = Guard::new();
        (0..RULE.spike_window).for_each(|i| assert_eq!(guard.observe(&RULE, usual(i), None), Verdict::Good));
        guard
    }

    fn goes_back(verdict: &Verdict, why: &str) -> bool {
        matches!(verdict, Verdict::Rewind(text) if text.contains(why))
    }

    #[test]
    fn bad_steps_are_skipped_until_there_are_too_many_in_a_row() {
        let mut guard = Guard::new();
        for (bad, want) in [(1, 1), (1, 2), (0, 0), (1, 1), (1, 2)] {
            let verdict = guard.observe(&RULE, f32::NAN, (bad == 1).then_some("h.0.w"));
            let want_verdict = if bad == 1 { Verdict::Skip } else { Verdict::Good };
            assert_eq!((verdict, guard.bad_in_a_row()), (want_verdict, want));
        }
        let verdict = guard.observe(&RULE, f32::NAN, Some("h.0.w"));
        assert!(goes_back(
            &verdict,
            "3 steps in a row were not finite (loss NaN, the first bad gradient that of h.0.w)"
        ));
        assert_eq!(guard.skipped, 5);
    }

    #[test]
    fn a_spike_is_several_high_losses_in_a_row_and_single_ones_are_not() {
        let mut guard = settled();
        for i in 0..100 {
            let loss = if i % 4 == 3 { usual(i) } else { 9.0 };
            assert_eq!(guard.observe(&RULE, loss, None), Verdict::Good, "three of four are high, at {i}");
        }
        // The median is 2, the deviation about 0.12: 3.1 is normal, 4 is not.
        for (loss, back) in [(3.1, false), (4.0, true)] {
            let mut guard = settled();
            let verdicts: Vec<Verdict> = (0..4).map(|_| guard.observe(&RULE, loss, None)).collect();
            assert_eq!(verdicts[..3], [Verdict::Good, Verdict::Good, Verdict::Good]);
            assert_eq!(goes_back(&verdicts[3], "was above"), back, "{loss}: {verdicts:?}");
        }
        let off = recipe::Guard { spike_steps: 0, ..RULE };
        let mut guard = settled();
        assert!((0..50).all(|_| guard.observe(&off, 1e6, None) == Verdict::Good));
    }

    #[test]
    fn nothing_is_high_before_the_window_is_full_nor_where_losses_drift() {
        let mut guard = Guard::new();
        assert!((0..19).all(|i| guard.observe(&RULE, if i < 9 { 2.0 } else { 50.0 }, None) == Verdict::Good));
        // Falling as a run does, staying, and rising by 50 % in 200 steps.
        let mut guard = Guard::new();
        for i in 0..600u32 {
            let level = 2.0 + 5.0 * (-f64::from(i) / 20.0).exp() + f64::from(i.saturating_sub(400)) / 200.0;
            let loss = level as f32 + usual(i as usize) - 2.0;
            assert_eq!(guard.observe(&RULE, loss, None), Verdict::Good, "step {i}");
        }
        // Losses that are all the same leave no deviation; the least one holds.
        let mut guard = Guard::new();
        (0..20).for_each(|_| drop(guard.observe(&RULE, 1.0, None)));
        assert!((0..9).all(|_| guard.observe(&RULE, 1.09, None) == Verdict::Good));
        assert!((0..4).any(|_| guard.observe(&RULE, 1.2, None) != Verdict::Good));
    }

    #[test]
    fn a_guard_that_was_stored_decides_as_one_that_was_not() {
        let random = Stream::new(1, Purpose::Test, 0, 0);
        let mut whole = Guard::new();
        let mut stored = Guard::new();
        let (mut backs, mut skips) = (0, 0);
        for i in 0..3000u64 {
            // Stretches of high and of bad losses among usual ones.
            let kind = random.bits(i / 3) % 8;
            let loss = usual(random.bits(i + 10_000) as usize) * if kind == 0 { 3.0 } else { 1.1 };
            let bad = (kind == 1).then_some("w");
            let verdict = whole.observe(&RULE, loss, bad);
            let text = serde_json::to_string(&stored).unwrap();
            stored = serde_json::from_str(&text).unwrap();
            assert_eq!(stored.observe(&RULE, loss, bad), verdict);
            skips += u32::from(verdict == Verdict::Skip);
            if let Verdict::Rewind(why) = verdict {
                backs += 1;
                let then = whole.clone();
                whole.rewind(i, i / 2, then.clone(), why.clone());
                stored.rewind(i, i / 2, then, why);
            } else if i % 10 == 0 {
                whole.mark(i);
                stored.mark(i);
            }
            assert_eq!(stored, whole, "after {i}");
        }
        assert!(backs > 20 && skips > 100, "{backs} {skips}");
    }

    #[test]
    fn going_back_passes_over_the_data_and_keeps_the_history() {
        let mut guard = settled();
        guard.mark(40);
        let then = guard.clone();
        // What was usual in the steps that are given up is forgotten with them.
        (0..4).for_each(|i| drop(guard.observe(&RULE, 0.5 + usual(i), None)));
        (0..3).for_each(|_| drop(guard.observe(&RULE, f32::NAN, Some("w"))));
        assert_ne!(guard.losses, then.losses);
        guard.mark(50);
        assert_eq!(guard.anchor(), Some(40), "a checkpoint within a bad stretch is not to be gone back to");
        guard.rewind(47, 40, then.clone(), "because".into());
        assert_eq!((guard.offset, guard.tries(), guard.bad_in_a_row(), guard.skipped), (7, 1, 0, 3));
        assert_eq!(guard.losses, then.losses);
        // A second time, before there is a checkpoint behind step 47.
        guard.mark(45);
        guard.rewind(46, 45, then.clone(), "again".into());
        assert_eq!((guard.offset, guard.tries()), (8, 2));
        guard.mark(50);
        assert_eq!((guard.anchor(), guard.tries(), guard.rewinds.len()), (Some(50), 0, 2));
        let rewind = Rewind { from: 47, to: 40, why: "because".into() };
        assert_eq!(guard.rewinds[0], rewind);
    }

    #[test]
    fn the_last_word_names_the_key_what_was_tried_and_what_to_do() {
        let mut guard = settled();
        let say = |guard: &Guard, stands| {
            let optim = recipe::Optim { lr: 1e6, ..recipe::Recipe::default().optim };
            let e = guard.give_up(57, "5 steps were bad", &optim, Path::new("runs/a"), stands);
            (e.to_string(), e.hint().unwrap().to_owned())
        };
        let (message, hint) = say(&guard, None);
        assert!(message.starts_with("optim.lr: the run is unstable at step 57: 5 steps were bad; guard.max_rewinds"));
        assert!(hint.contains("start anew"), "{hint}");
        guard.mark(40);
        (0..2).for_each(|_| guard.rewind(57, 40, Guard::new(), String::new()));
        let (message, hint) = say(&guard, Some(40));
        assert!(message.ends_with("going back to step 40 and on with later data did not help, 2 times"), "{message}");
        assert!(hint.contains("lower optim.lr (it is 1e6)"), "{hint}");
        assert!(hint.ends_with("step 40 stands: kiln train --resume runs/a --set optim.lr=1e-3"), "{hint}");
    }
}
