//! The Fréchet distance of two normal distributions that are fitted to features:
//! d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½ (Dowson and Landau 1982; for pictures Heusel et al. 2017).
//!
//! Σ₁Σ₂ is not symmetric, but has the eigenvalues of M = Σ₁^½ Σ₂ Σ₁^½, which is: tr (Σ₁Σ₂)^½ = Σ √λᵢ(M). With Σ₁ = V Λ Vᵀ
//! it is enough to take Λ^½ Vᵀ Σ₂ V Λ^½. Nothing is added to a diagonal, whatever the rank.

use rayon::prelude::*;

use super::{Features, dot, eigenvalues, eigenvectors, sum};
use crate::error::Result;

/// Mean and covariance of a set of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// (D).
    pub mean: Vec<f64>,
    /// (D, D), with N − 1 below.
    pub covariance: Vec<f64>,
}

impl Gaussian {
    /// Of at least two rows; more rows than features are needed for it to mean much.
    ///
    /// # Errors
    /// There is one row only.
    pub fn of(features: &Features) -> Result<Gaussian> {
        features.fits(features, 2)?;
        let (n, dims) = (features.len(), features.dims());
        let column = |j: usize| -> Vec<f64> { features.rows().map(|row| row[j]).collect() };
        let mut columns: Vec<Vec<f64>> = (0..dims).into_par_iter().map(column).collect();
        let mean: Vec<f64> = columns.iter().map(|column| column.iter().sum::<f64>() / n as f64).collect();
        columns.par_iter_mut().zip(&mean).for_each(|(column, mean)| column.iter_mut().for_each(|x| *x -= mean));
        let mut covariance = vec![0.0; dims * dims];
        covariance.par_chunks_exact_mut(dims).enumerate().for_each(|(i, row)| {
            // The half up to the diagonal.
            let products = columns[..=i].iter().map(|column| dot(&columns[i], column) / (n - 1) as f64);
            row.iter_mut().zip(products).for_each(|(out, product)| *out = product);
        });
        for i in 0..dims {
            (i + 1..dims).for_each(|j| covariance[i * dims + j] = covariance[j * dims + i]);
        }
        Ok(Gaussian { mean, covariance })
    }

    fn trace(&self) -> f64 {
        self.covariance.iter().step_by(self.mean.len() + 1).sum()
    }

    /// d², never below 0.
    ///
    /// # Panics
    /// If the numbers of features differ.
    pub fn distance(&self, other: &Gaussian) -> f64 {
        let n = self.mean.len();
        assert_eq!(n, other.mean.len(), "features of one network");
        let (values, vectors) = eigenvectors(&self.covariance, n);
        // Rounding leaves values of a covariance a little below 0.
        let roots: Vec<f64> = values.iter().map(|value| value.max(0.0).sqrt()).collect();
        // Row i of VᵀΣ₂, then Λ^½ VᵀΣ₂V Λ^½: rows of V are vectors, and Σ₂ is symmetric.
        let mut m = vec![0.0; n * n];
        m.par_chunks_exact_mut(n).enumerate().for_each(|(i, out)| {
            let row: Vec<f64> =
                other.covariance.chunks_exact(n).map(|column| dot(&vectors[i * n..][..n], column)).collect();
            for ((out, vector), root) in out.iter_mut().zip(vectors.chunks_exact(n)).zip(&roots) {
                *out = roots[i] * dot(&row, vector) * root;
            }
        });
        let shared: f64 = eigenvalues(&m, n).iter().map(|value| value.max(0.0).sqrt()).sum();
        let means = sum(&self.mean, &other.mean, |a, b| (a - b) * (a - b));
        (means + self.trace() + other.trace() - 2.0 * shared).max(0.0)
    }
}

/// The Fréchet distance d² of two sets of features; 0 where mean and covariance are equal. It is biased: the fewer pictures,
/// the larger. Compare numbers of as many pictures.
///
/// # Errors
/// A set has less than two pictures.
pub fn frechet_distance(a: &Features, b: &Features) -> Result<f64> {
    a.fits(b, 2)?;
    Ok(Gaussian::of(a)?.distance(&Gaussian::of(b)?))
}
