//! What nearest neighbours tell: whether samples look like data, whether all of the data is there, whether samples are copies.
//!
//! A set's manifold is the union of balls around its points, each as wide as the distance to the k-th nearest other point.
//! Precision: the share of samples in the data's manifold; recall: that of data in the samples' (Kynkäänniemi et al. 2019).
//! Density: in how many of the data's balls a sample lies, over k; coverage: the share of data whose ball holds a sample (Naeem
//! et al. 2020), which a few points far away do not mislead.

use rayon::prelude::*;
use serde::Serialize;

use super::{Features, distance2};
use crate::error::{Error, Result};

/// How two sets lie in one another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Manifold {
    /// The share of samples that look like data.
    pub precision: f64,
    /// The share of data that look like samples.
    pub recall: f64,
    /// How densely the data lies around samples; near 1 for samples of the data's distribution, and not bounded by it.
    pub density: f64,
    /// The share of data that has a sample near it.
    pub coverage: f64,
}

impl Manifold {
    /// Compares `samples` with `data` by the `k`-th nearest neighbours; 3 in the first paper, 5 in the second. Work and time grow
    /// with the product of the two numbers of pictures: some thousands of each are enough.
    ///
    /// # Errors
    /// A set has no more than `k` pictures.
    pub fn of(data: &Features, samples: &Features, k: usize) -> Result<Manifold> {
        assert!(k > 0, "a neighbour at least");
        data.fits(samples, k + 1)?;
        let (data_balls, sample_balls) = (radii2(data, k), radii2(samples, k));
        // Of each sample: in how many balls of data. Of each picture of the data: whether its ball holds a sample, and whether it
        // lies in a ball of a sample.
        let inside: Vec<usize> = (0..samples.len())
            .into_par_iter()
            .map(|j| {
                let x = samples.row(j);
                data.rows().zip(&data_balls).filter(|(row, ball)| distance2(row, x) <= **ball).count()
            })
            .collect();
        let of_data: Vec<(bool, bool)> = (0..data.len())
            .into_par_iter()
            .map(|i| {
                let (x, mut holds, mut lies) = (data.row(i), false, false);
                for (row, ball) in samples.rows().zip(&sample_balls) {
                    let distance = distance2(x, row);
                    holds |= distance <= data_balls[i];
                    lies |= distance <= *ball;
                }
                (holds, lies)
            })
            .collect();
        let share = |count: usize, of: usize| count as f64 / of as f64;
        Ok(Manifold {
            precision: share(inside.iter().filter(|&&n| n > 0).count(), samples.len()),
            recall: share(of_data.iter().filter(|(_, lies)| *lies).count(), data.len()),
            density: share(inside.iter().sum(), k * samples.len()),
            coverage: share(of_data.iter().filter(|(holds, _)| *holds).count(), data.len()),
        })
    }
}

/// The squared distance of each row to its `k`-th nearest other one.
fn radii2(features: &Features, k: usize) -> Vec<f64> {
    let radius = |i: usize| {
        let others = (0..features.len()).filter(|&j| j != i);
        let mut distances: Vec<f64> = others.map(|j| distance2(features.row(i), features.row(j))).collect();
        *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
    };
    (0..features.len()).into_par_iter().map(radius).collect()
}

/// The picture of a set that is nearest to another one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its index.
    pub index: usize,
    /// How far away it is.
    pub distance: f64,
}

/// For each row of `of` the nearest row of `among`, the first of those that are equally near.
///
/// # Panics
/// If the numbers of features differ.
pub fn nearest(of: &Features, among: &Features) -> Vec<Neighbour> {
    assert_eq!(of.dims(), among.dims(), "features of one network");
    let find = |i: usize| {
        let mut best = Neighbour { index: 0, distance: f64::INFINITY };
        for (index, row) in among.rows().enumerate() {
            let distance = distance2(of.row(i), row);
            if distance < best.distance {
                best = Neighbour { index, distance };
            }
        }
        Neighbour { distance: best.distance.sqrt(), ..best }
    };
    (0..of.len()).into_par_iter().map(find).collect()
}

/// Whether samples are nearer to training pictures than pictures are that were not trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copies {
    /// The distance that 1 % of the held-out pictures have to their nearest training picture, or less.
    pub limit: f64,
    /// The share of samples that are within it: about 0.01 where nothing is copied.
    pub share: f64,
    /// The median distance of samples to training pictures over that of held-out pictures: far below 1 where much is copied.
    pub median_ratio: f64,
    /// The samples within the limit, the nearest first: their indices, and what they are near to.
    pub found: Vec<(usize, Neighbour)>,
}

impl Copies {
    /// Compares by the features that were given.
    ///
    /// # Errors
    /// There are fewer than 100 held-out pictures, of which none is 1 %.
    pub fn of(train: &Features, held_out: &Features, samples: &Features) -> Result<Copies> {
        if held_out.len() < 100 {
            let problem = format!("{} held-out pictures are too few to tell copies by", held_out.len());
            return Err(Error::failed(problem, "hold out 100 or more"));
        }
        let sorted = |neighbours: &[Neighbour]| {
            let mut distances: Vec<f64> = neighbours.iter().map(|n| n.distance).collect();
            distances.sort_by(f64::total_cmp);
            distances
        };
        let near = nearest(samples, train);
        let (others, own) = (sorted(&nearest(held_out, train)), sorted(&near));
        let limit = others[others.len() / 100 - 1];
        let mut found: Vec<_> = near.iter().copied().enumerate().filter(|(_, n)| n.distance <= limit).collect();
        found.sort_by(|(_, a), (_, b)| a.distance.total_cmp(&b.distance));
        // Held-out pictures that are all copies have a median of 0, and samples then no less.
        let (ours, usual) = (own[own.len() / 2], others[others.len() / 2]);
        let median_ratio = if ours == usual { 1.0 } else { ours / usual };
        Ok(Copies { limit, share: found.len() as f64 / samples.len() as f64, median_ratio, found })
    }
}

/// The mean distance of two rows of a set: its diversity, to be held against that of the data.
///
/// # Errors
/// There is one row only.
pub fn mean_distance(features: &Features) -> Result<f64> {
    features.fits(features, 2)?;
    let n = features.len();
    let row = |i: usize| -> f64 { (0..i).map(|j| distance2(features.row(i), features.row(j)).sqrt()).sum() };
    let rows: Vec<f64> = (1..n).into_par_iter().map(row).collect();
    Ok(rows.iter().sum::<f64>() / (n as f64 * (n - 1) as f64 / 2.0))
}
