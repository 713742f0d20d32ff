//! The learning rate of each step.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate goes from its maximum, reached after warm-up, to its minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Stays at the maximum.
    Constant,
    /// A straight line.
    Linear,
    /// Half a cosine.
    Cosine,
    /// Up instead of down: from the minimum at the first step to the maximum at the last, by the same factor each step, without
    /// warm-up. For looking where training breaks.
    Rising,
    /// Warm-up, stable, decay: the maximum until the last `decay_steps`, then a straight line.
    Wsd,
}

/// A learning rate as a function of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The form of the decay.
    pub shape: Shape,
    /// The maximum.
    pub lr: f64,
    /// The rate of the last step (not with [`Shape::Constant`]).
    pub min_lr: f64,
    /// Steps of the run.
    pub steps: u64,
    /// Steps that rise linearly from near 0, as in nanoGPT: step `s` has `lr * (s + 1) / (warmup + 1)`.
    pub warmup: u64,
    /// Steps of the decay of [`Shape::Wsd`].
    pub decay_steps: u64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0. The last step, `steps - 1`, has exactly `min_lr` where there is a
    /// decay: the shape is not constant, and steps are left for it after warm-up.
    pub fn lr(&self, step: u64) -> f64 {
        let last = self.steps.saturating_sub(1);
        if self.shape == Shape::Rising {
            let done = if last == 0 { 1.0 } else { step.min(last) as f64 / last as f64 };
            return self.min_lr * libm::pow(self.lr / self.min_lr, done);
        }
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let first = match self.shape {
            Shape::Constant | Shape::Rising => return self.lr,
            Shape::Linear | Shape::Cosine => self.warmup,
            // The step before the first that is lower.
            Shape::Wsd => last.saturating_sub(self.decay_steps).max(self.warmup),
        };
        if step <= first {
            return self.lr;
        }
        if step >= last {
            return self.min_lr;
        }
        let done = (step - first) as f64 / (last - first) as f64;
        let left = match self.shape {
            Shape::Cosine => 0.5 * (1.0 + libm::cos(PI * done)),
            _ => 1.0 - done,
        };
        self.min_lr + (self.lr - self.min_lr) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: Shape) -> Schedule {
        Schedule { shape, lr: 1.0, min_lr: 0.1, steps: 15, warmup: 4, decay_steps: 5 }
    }

    #[track_caller]
    fn check(shape: Shape, expected: &[(u64, f64)]) {
        for &(step, lr) in expected {
            let got = schedule(shape).lr(step);
            assert!((got - lr).abs() < 1e-12, "{shape:?} at {step}: {got}, by hand {lr}");
        }
    }

    #[test]
    fn warm_up_rises_in_equal_parts() {
        for shape in [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Wsd] {
            check(shape, &[(0, 0.2), (1, 0.4), (2, 0.6), (3, 0.8), (4, 1.0)]);
        }
    }

    #[test]
    fn each_shape_has_the_values_computed_by_hand() {
        check(Shape::Constant, &[(5, 1.0), (14, 1.0), (1000, 1.0)]);
        // From step 4 to step 14 in ten parts of 0.09.
        check(Shape::Linear, &[(5, 0.91), (9, 0.55), (13, 0.19), (14, 0.1), (1000, 0.1)]);
        // 0.1 + 0.45 (1 + cos(pi k / 10)), cos(pi / 5) = (1 + sqrt 5) / 4.
        let golden = (1.0 + 5f64.sqrt()) / 4.0;
        check(Shape::Cosine, &[(6, 0.55 + 0.45 * golden), (9, 0.55), (12, 0.55 - 0.45 * golden), (14, 0.1), (99, 0.1)]);
        // The last five steps are lower, in parts of 0.18.
        check(Shape::Wsd, &[(8, 1.0), (9, 1.0), (10, 0.82), (11, 0.64), (13, 0.28), (14, 0.1), (15, 0.1)]);
    }

    #[test]
    fn a_rising_rate_grows_by_one_factor_from_end_to_end() {
        let schedule = Schedule { lr: 1.0, min_lr: 1e-4, steps: 5, ..schedule(Shape::Rising) };
        for (step, lr) in [(0, 1e-4), (1, 1e-3), (2, 1e-2), (4, 1.0), (9, 1.0)] {
            assert!((schedule.lr(step) / lr - 1.0).abs() < 1e-12, "{step}: {}", schedule.lr(step));
        }
        assert_eq!(Schedule { steps: 1, ..schedule }.lr(0), 1.0);
    }

    #[test]
    fn the_last_step_has_exactly_the_minimum() {
        for shape in [Shape::Linear, Shape::Cosine, Shape::Wsd] {
            let schedule = Schedule { lr: 3e-4, min_lr: 1e-5, steps: 777, ..schedule(shape) };
            assert_eq!(schedule.lr(776), 1e-5);
            assert!(schedule.lr(775) > 1e-5);
        }
    }

    #[test]
    fn degenerate_lengths_give_finite_rates_within_bounds() {
        for shape in [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Wsd] {
            for (steps, warmup, decay_steps) in [(0, 0, 0), (1, 0, 1), (1, 5, 9), (5, 5, 5), (6, 5, 9), (2, 0, 0)] {
                let schedule = Schedule { shape, lr: 1.0, min_lr: 0.1, steps, warmup, decay_steps };
                for step in 0..8 {
                    let lr = schedule.lr(step);
                    assert!((0.1..=1.0).contains(&lr), "{schedule:?} at {step}: {lr}");
                }
            }
        }
    }
}
