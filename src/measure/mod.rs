//! What numbers say of models: mathematics alone, no network.
//!
//! Of language models: how sure a figure is and whether two models differ ([`sign_test`], [`bootstrap`], [`pass_at`]), whether a model knows how sure it
//! may be ([`reliability`], [`brier`], [`temperature`]), how well a number tells two groups apart ([`auc`]), how much texts repeat ([`distinct`],
//! [`repeated`]), what people's [`judgements`] say, how words lie to one another ([`weat`]), and how
//! far texts have drifted ([`jensen_shannon`], [`psi`]). Of training: what privacy it spends ([`privacy`]).
//!
//! Of pictures: how much two sets are alike, from numbers that a network made of them.
//!
//! A set is N rows of D [`Features`], such as the last hidden layer of a classifier. The formulas are those of the Fréchet
//! Inception distance, the kernel Inception distance and the Inception score; but these names stand for one network, trained on
//! ImageNet, and its 2048 features. Numbers from other features cannot be compared with published ones, nor with each other
//! where the features differ, and so nothing here bears these names.
//!
//! - [`frechet_distance`], [`kernel_distance`]: the distance of two distributions.
//! - [`Manifold`]: precision, recall, density, coverage by nearest neighbours.
//! - [`classifier_score`], [`Classes`]: what a classifier says of samples.
//! - [`nearest`], [`Copies`], [`mean_distance`]: copies of training pictures, and diversity.
//!
//! All sums are in f64, in an order that no number of threads changes.

mod calibration;
mod classes;
mod diversity;
mod drift;
mod eigen;
mod frechet;
pub mod judgements;
mod kernel;
mod neighbours;
mod paired;
pub mod privacy;
mod separation;
mod weat;

pub use calibration::{Bin, brier, calibration_error, probabilities, reliability, temperature};
pub use classes::{Classes, Spread, classifier_score};
pub use diversity::{distinct, repeated};
pub use drift::{jensen_shannon, psi};
pub use eigen::{eigenvalues, eigenvectors};
pub use frechet::{Gaussian, frechet_distance};
pub use judgements::sign_test;
pub use kernel::{Blocks, kernel_distance};
pub use neighbours::{Copies, Manifold, Neighbour, mean_distance, nearest};
pub use paired::{bootstrap, interval, mean_and_error, pass_at, percentile};
pub use separation::{auc, found_at};
pub use weat::{Weat, weat};

use crate::error::{Error, Result};

/// N rows of D finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    dims: usize,
    /// (N, D).
    values: Vec<f64>,
}

impl Features {
    /// Rows of `dims` numbers, f32 or f64.
    ///
    /// # Errors
    /// A number is not finite, or there is no row.
    ///
    /// # Panics
    /// If the values are no whole rows.
    pub fn new<F: Copy + Into<f64>>(values: &[F], dims: usize) -> Result<Features> {
        assert!(dims > 0 && values.len().is_multiple_of(dims), "rows of {dims}");
        let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        if values.is_empty() {
            return Err(Error::failed("there is no picture to be judged", "make some first"));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let problem = format!("feature {} of picture {} is {}", at % dims, at / dims, values[at]);
            return Err(Error::failed(problem, "the model has diverged: judge an earlier checkpoint"));
        }
        Ok(Features { dims, values })
    }

    /// N.
    #[expect(clippy::len_without_is_empty, reason = "there is a row at least")]
    pub fn len(&self) -> usize {
        self.values.len() / self.dims
    }

    /// D.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.dims..][..self.dims]
    }

    /// The rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.dims)
    }

    /// Fails where the other set has other features, or one of them fewer rows than are needed.
    fn fits(&self, other: &Features, least: usize) -> Result<()> {
        assert_eq!(self.dims, other.dims, "features of one network");
        let count = self.len().min(other.len());
        if count >= least {
            return Ok(());
        }
        Err(Error::failed(format!("{count} pictures are too few: this needs {least}"), "make more samples"))
    }
}

/// Σ f(aᵢ, bᵢ) in eight lanes, folded by halves.
#[inline(always)]
fn sum(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a8.zip(b8) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((lane, &a), &b)| *lane += f(a, b));
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest
}

/// a·b.
#[inline]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum(a, b, |a, b| a * b)
}

/// |a − b|²: 0 for equal rows, and the same for (b, a).
#[inline]
fn distance2(a: &[f64], b: &[f64]) -> f64 {
    sum(a, b, |a, b| (a - b) * (a - b))
}

/// Mean and standard deviation (n − 1 below) of some numbers.
pub fn mean_and_std(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, (squares / (x.len().max(2) - 1) as f64).sqrt())
}
