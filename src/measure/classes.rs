//! What a classifier says of samples: how sure it is, and how many classes it sees.
//!
//! The score is exp of the mean over x of KL(p(y|x) ‖ p(y)): 1 where samples say nothing, the number of classes where each is
//! clear and all are as frequent (Salimans et al. 2016, with ImageNet's classes there).

use serde::Serialize;

use super::{Features, mean_and_std};
use crate::error::{Error, Result};

/// The classifier's score from probabilities (N, classes): the mean over `splits` parts of the samples, and their standard
/// deviation.
///
/// # Errors
/// There are fewer samples than parts, or a row is no distribution (to 1e-3).
pub fn classifier_score(probabilities: &Features, splits: usize) -> Result<(f64, f64)> {
    assert!(splits > 0, "a part at least");
    probabilities.fits(probabilities, splits)?;
    distributions(probabilities)?;
    let (n, classes) = (probabilities.len(), probabilities.dims());
    let part = |split: usize| {
        let rows = split * n / splits..(split + 1) * n / splits;
        let count = rows.len() as f64;
        let mut marginal = vec![0.0; classes];
        for i in rows.clone() {
            marginal.iter_mut().zip(probabilities.row(i)).for_each(|(sum, p)| *sum += p / count);
        }
        let divergence = |p: f64, q: f64| if p > 0.0 { p * (libm::log(p) - libm::log(q)) } else { 0.0 };
        let row =
            |i: usize| -> f64 { probabilities.row(i).iter().zip(&marginal).map(|(&p, &q)| divergence(p, q)).sum() };
        libm::exp(rows.map(row).sum::<f64>() / count)
    };
    Ok(mean_and_std(&(0..splits).map(part).collect::<Vec<_>>()))
}

fn distributions(probabilities: &Features) -> Result<()> {
    let bad = |row: &[f64]| {
        row.iter().any(|p| !(0.0..=1.0 + 1e-3).contains(p)) || (row.iter().sum::<f64>() - 1.0).abs() > 1e-3
    };
    match probabilities.rows().position(bad) {
        None => Ok(()),
        Some(at) => Err(Error::failed(
            format!("the classes of picture {at} have the probabilities {:?}", probabilities.row(at)),
            "give what softmax makes of logits",
        )),
    }
}

/// How many samples were seen as each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// By class.
    pub counts: Vec<usize>,
}

/// How samples are spread over classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many classes have at least the least share.
    pub covered: usize,
    /// Those that do not.
    pub missing: Vec<usize>,
    /// The smallest share of a class.
    pub least: f64,
    /// exp of the entropy: how many classes there are in effect.
    pub effective: f64,
    /// KL of the samples' classes from those of the data, in nats; where they are known.
    pub divergence: Option<f64>,
}

impl Classes {
    /// Counts the likeliest class of each row of probabilities or logits (N, classes); the first of those that are equal.
    pub fn of(rows: &Features) -> Classes {
        let mut counts = vec![0; rows.dims()];
        for row in rows.rows() {
            let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
            counts[best] += 1;
        }
        Classes { counts }
    }

    /// Their spread; a class is covered from a share of `least` on. `data` are the classes of what was trained on.
    ///
    /// # Panics
    /// If nothing was counted, or the data has other classes.
    pub fn spread(&self, least: f64, data: Option<&Classes>) -> Spread {
        let shares = |counts: &[usize]| -> Vec<f64> {
            let all: usize = counts.iter().sum();
            assert!(all > 0, "nothing was counted");
            counts.iter().map(|&count| count as f64 / all as f64).collect()
        };
        let own = shares(&self.counts);
        let plogp = |p: f64, q: f64| if p > 0.0 { p * (libm::log(p) - libm::log(q)) } else { 0.0 };
        let divergence = data.map(|data| {
            assert_eq!(data.counts.len(), own.len(), "the same classes");
            own.iter().zip(shares(&data.counts)).map(|(&p, q)| plogp(p, q)).sum()
        });
        let missing: Vec<usize> = (0..own.len()).filter(|&class| own[class] < least || own[class] == 0.0).collect();
        Spread {
            covered: own.len() - missing.len(),
            missing,
            least: own.iter().copied().fold(1.0, f64::min),
            effective: libm::exp(own.iter().map(|&p| -plogp(p, 1.0)).sum::<f64>()),
            divergence,
        }
    }
}
