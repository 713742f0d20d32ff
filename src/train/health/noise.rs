//! The gradient noise scale: the batch from which on a step's gradient is more signal than noise.
//!
//! ```text
//! |G|² ≈ (B |G_B|² − b |G_b|²) / (B − b),   tr Σ ≈ (|G_b|² − |G_B|²) / (1/b − 1/B),   B_simple = tr Σ / |G|²
//! ```
//! from the gradients of M small batches of b rows and their mean, over B = M·b rows, all at the same weights. Both estimates are
//! unbiased, their quotient is not; with few rows |G|² may come out at or below 0, which says that B rows are not enough to
//! see the signal.
//!
//! Source: McCandlish et al. 2018 (arXiv 1812.06162), appendix A.1.

use super::finding::{Finding, Kind, Knob};
use crate::error::Result;
use crate::params::{ParamId, Params};
use crate::train::objective::Objective;
use crate::train::trainer::{At, Trainer};

/// The noise scale over the rows of a step from which on these are too few: by then less than 1 % of the square of a step's
/// gradient is signal.
pub const FAR: f64 = 100.0;

/// Tokens of a step up to which it costs next to nothing to have more of them. The noise scale grows without bound as the loss falls, so
/// that at the end of a healthy run, too, it is far above any batch that a small machine can afford: there nothing is wrong.
const FEW: usize = 512;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// b: rows of a small batch.
    pub small: f64,
    /// B: rows of all of them.
    pub big: f64,
    /// The square of the gradient's norm without noise.
    pub signal: f64,
    /// The trace of the covariance of the gradient of one row.
    pub noise: f64,
}

impl Noise {
    /// From the squares of the norms of the gradients of M batches of `rows` rows, and of their mean.
    pub fn of(rows: usize, squares: &[f64], mean_square: f64) -> Noise {
        let (small, big) = (rows as f64, (rows * squares.len()) as f64);
        let of_small = squares.iter().sum::<f64>() / squares.len() as f64;
        Noise {
            small,
            big,
            signal: (big * mean_square - small * of_small) / (big - small),
            noise: (of_small - mean_square) / (1.0 / small - 1.0 / big),
        }
    }

    /// B_simple in rows, and whether it is only known to be at least so large: no more than the B rows can show.
    pub fn scale(&self) -> (f64, bool) {
        let scale = self.noise / self.signal;
        match self.signal > 0.0 && scale <= self.big {
            true => (scale.max(0.0), false),
            false => (self.big, true),
        }
    }

    /// What is wrong where a step has so many rows of `tokens` tokens each.
    pub fn judge(&self, rows: usize, tokens: usize) -> Option<Finding> {
        let (scale, at_least) = self.scale();
        let far = scale / rows as f64;
        let known = self.noise > 0.0 && self.signal.is_finite();
        if far < FAR || !known || rows * tokens > FEW {
            return None;
        }
        let name = if at_least { "noise scale in rows, at least" } else { "noise scale in rows" };
        let evidence = [(name, scale), ("rows of a step", rows as f64)];
        let what = "a step's gradient is nearly all noise: its batch is far too small";
        let value = (scale / 10.0).max(8.0).round().to_string();
        Some(Finding::new(Kind::SmallBatch, what, &evidence, Knob { key: "train.accumulate", value }).severe(far / FAR))
    }
}

/// The most floating-point operations of a measurement: some seconds' worth.
const BUDGET: f64 = 1e12;

/// Rows that are looked at where that costs little.
const ROWS: usize = 256;

/// How many micro-batches of `rows` rows to look at: `flops` is what one of them costs, 0 where nobody counted.
pub fn micros(rows: usize, flops: f64) -> usize {
    let wanted = ROWS.div_ceil(rows.max(1)).clamp(8, ROWS);
    if flops > 0.0 { wanted.min((BUDGET / flops) as usize).max(4) } else { wanted.min(32) }
}

/// Measures by a step of a trainer that does `micros` micro-batches of `rows` rows in a step: its weights are of no use then.
///
/// # Errors
/// The data has changed since it was opened.
pub fn measure<O: Objective>(trainer: &mut Trainer<O>, at: At, rows: usize, micros: usize) -> Result<Noise> {
    let ids: Vec<ParamId> = trainer.params.ids().filter(|&id| trainer.params.is_trainable(id)).collect();
    let mut sums: Vec<Vec<f32>> = ids.iter().map(|&id| vec![0.0; trainer.params.weight(id).numel()]).collect();
    let mut squares = Vec::with_capacity(micros);
    let mut mean_square = 0.0;
    let mut probe = |_: usize, params: &mut Params, _: &mut crate::tensor::Tensor| {
        // Gradients add up, each its share of the mean: what is new is that of the last batch.
        let mut square = 0.0;
        mean_square = 0.0;
        for (&id, sum) in ids.iter().zip(&mut sums) {
            let Some(grad) = params.grad(id) else { continue };
            for (&now, before) in grad.read::<f32>().iter().zip(sum) {
                square += f64::from(now - *before).powi(2);
                mean_square += f64::from(now).powi(2);
                *before = now;
            }
        }
        squares.push(square * (micros * micros) as f64);
    };
    trainer.step_with(at, Some(&mut probe))?;
    Ok(Noise::of(rows, &squares, mean_square))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// The noise scale of 64 batches of `rows` rows, whose gradients are (1, 0, …) and noise in 1,000 channels that has this trace
    /// for a row.
    fn measured(rows: usize, trace: f64) -> Noise {
        let random = Stream::new(5, Purpose::Test, 0, 0);
        let (n, m) = (1000, 64);
        let deviation = (trace / n as f64 / rows as f64).sqrt();
        let mut mean = vec![0.0; n];
        let squares: Vec<f64> = (0..m)
            .map(|batch| {
                let one = |i: usize| f64::from(i == 0) + deviation * random.normal((batch * n + i) as u64);
                let g: Vec<f64> = (0..n).map(one).collect();
                mean.iter_mut().zip(&g).for_each(|(mean, g)| *mean += g / m as f64);
                g.iter().map(|g| g * g).sum()
            })
            .collect();
        Noise::of(rows, &squares, mean.iter().map(|g| g * g).sum())
    }

    #[test]
    fn the_estimate_is_that_of_made_up_gradients() {
        for (rows, trace) in [(1, 20.0), (4, 20.0), (4, 100.0)] {
            let (scale, at_least) = measured(rows, trace).scale();
            assert!(!at_least && (scale / trace - 1.0).abs() < 0.25, "{scale} of {trace}");
        }
        // More than the rows can show.
        assert_eq!(measured(1, 1e5).scale(), (64.0, true));
        // No noise at all.
        assert_eq!(measured(4, 0.0).scale().0, 0.0);
    }

    #[test]
    fn a_batch_is_too_small_where_the_scale_is_far_above_it() {
        let noise = Noise { small: 1.0, big: 256.0, signal: 1.0, noise: 200.0 };
        let found = noise.judge(1, 32).expect("far above");
        assert_eq!((found.kind, &*found.knob.value), (Kind::SmallBatch, "20"));
        assert_eq!((noise.judge(16, 32), noise.judge(1, 1024)), (None, None));
        assert_eq!(Noise { signal: -1.0, ..noise }.judge(1, 32).expect("at least 256").evidence[0].value, 256.0);
        assert_eq!(Noise { noise: -1.0, ..noise }.judge(1, 32), None);
    }

    #[test]
    fn what_is_looked_at_fits_the_budget() {
        assert_eq!([micros(1, 1e8), micros(16, 1e8), micros(16, 1e11), micros(16, 1e15)], [256, 16, 10, 4]);
    }
}
