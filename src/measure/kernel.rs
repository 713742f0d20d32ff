//! The kernel distance: MMD² under k(x, y) = (x·y / D + 1)³, without bias (Gretton et al. 2012; for pictures Bińkowski et al.
//! 2018).
//!
//! MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / m(m−1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m−1) − 2 Σ_{ij} k(xᵢ, yⱼ) / m². It may come out below 0.

use rayon::prelude::*;

use super::{Features, dot, mean_and_std};
use crate::error::Result;
use crate::rng::{Purpose, Rng};

/// How many parts of the sets are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Rows of a part, drawn from each set without repetition; at most as many as the smaller set has.
    pub size: usize,
    /// Parts.
    pub count: usize,
    /// What they are drawn by.
    pub seed: u64,
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks { size: 1000, count: 100, seed: 0 }
    }
}

/// The kernel distance of two sets of features: the mean over blocks, and their standard deviation. Where a block is as large
/// as both sets, one is enough, and exact.
///
/// # Errors
/// A set has less than two pictures.
///
/// # Panics
/// If there are no blocks.
pub fn kernel_distance(a: &Features, b: &Features, blocks: Blocks) -> Result<(f64, f64)> {
    a.fits(b, 2)?;
    assert!(blocks.count > 0 && blocks.size >= 2, "blocks of two or more");
    let size = blocks.size.min(a.len()).min(b.len());
    let block = |i: usize| {
        let choose = |features: &Features, side: u32| choice(features.len(), size, blocks.seed, side, i as u64);
        mmd2(a, b, &choose(a, 0), &choose(b, 1))
    };
    let count = if size == a.len() && size == b.len() { 1 } else { blocks.count };
    let all: Vec<f64> = (0..count).into_par_iter().map(block).collect();
    Ok(mean_and_std(&all))
}

/// `size` of `0..n`, each at most once: the start of a shuffle.
fn choice(n: usize, size: usize, seed: u64, side: u32, block: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    let mut rng = Rng::new(seed, Purpose::Sample, 0xFF_FFF0 + side, block);
    for i in 0..size {
        all.swap(i, i + rng.below((n - i) as u32) as usize);
    }
    all.truncate(size);
    all
}

fn mmd2(a: &Features, b: &Features, rows_a: &[usize], rows_b: &[usize]) -> f64 {
    let k = |x: &[f64], y: &[f64]| (dot(x, y) / a.dims() as f64 + 1.0).powi(3);
    let m = rows_a.len() as f64;
    let within = |features: &Features, rows: &[usize]| -> f64 {
        let row =
            |i: usize| -> f64 { rows[..i].iter().map(|&other| k(features.row(rows[i]), features.row(other))).sum() };
        2.0 * (1..rows.len()).map(row).sum::<f64>() / (m * (m - 1.0))
    };
    let across: f64 = rows_a.iter().map(|&i| rows_b.iter().map(|&j| k(a.row(i), b.row(j))).sum::<f64>()).sum();
    within(a, rows_a) + within(b, rows_b) - 2.0 * across / (m * m)
}
