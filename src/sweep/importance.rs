//! How much each key matters.
//!
//! ```text
//! importance of a key ∝ ∫ (p_top(x) / p_all(x) − 1)² p_all(x) dx
//! ```
//! p_all is how its values are spread over all trials, p_top over the best of them: where the best have the same values as the
//! rest, the key does not matter. Both are histograms over equal parts of its range.
//!
//! Source: Watanabe, Bansal, Hutter 2023 ("PED-ANOVA", arXiv 2304.10255).

use super::space::{Setting, Space};

/// The share of trials that are the best.
const TOP: f64 = 0.25;

/// The importance of each axis, in all 1, by results of which less is better; `None` where there are too few, or nothing matters.
pub fn importance(space: &Space, results: &[(&Setting, f64)]) -> Option<Vec<f64>> {
    let n = results.len();
    let top = (TOP * n as f64).round() as usize;
    if top < 2 {
        return None;
    }
    let mut order: Vec<&(&Setting, f64)> = results.iter().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let places: Vec<Vec<f64>> = order.iter().map(|(setting, _)| space.place(setting)).collect();
    let parts = (n as f64).sqrt().ceil() as usize;
    let divergence = |axis: usize| -> f64 {
        let parts = match space.axes[axis].domain.choices() {
            0 => parts,
            n => n,
        };
        // Half a trial everywhere, so that no part is empty.
        let spread = |places: &[Vec<f64>]| -> Vec<f64> {
            let mut counts = vec![0.5; parts];
            places.iter().for_each(|place| counts[((place[axis] * parts as f64) as usize).min(parts - 1)] += 1.0);
            let sum: f64 = counts.iter().sum();
            counts.into_iter().map(|count| count / sum).collect()
        };
        let (best, all) = (spread(&places[..top]), spread(&places));
        best.iter().zip(&all).map(|(best, all)| (best / all - 1.0).powi(2) * all).sum()
    };
    let found: Vec<f64> = (0..space.axes.len()).map(divergence).collect();
    let sum: f64 = found.iter().sum();
    (sum > 0.0).then(|| found.into_iter().map(|part| part / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Search;

    #[test]
    fn what_decides_matters_and_what_does_nothing_does_not() {
        let text = "a.x = { from = 1e-4, to = 1.0, log = true }\na.y = { from = 0.0, to = 1.0 }\na.z = [\"p\", \"q\"]";
        let space = Space::parse(&text.parse().unwrap()).unwrap();
        for seed in 0..5 {
            let tried: Vec<Setting> = (0..64).map(|i| Search::Sobol.propose(&space, seed, i, &[], &[])).collect();
            let loss = |s: &Setting| {
                let place = space.place(s);
                4.0 * (place[0] - 0.6).powi(2) + if place[2] < 0.5 { 0.3 } else { 0.0 }
            };
            let results: Vec<(&Setting, f64)> = tried.iter().map(|s| (s, loss(s))).collect();
            let found = importance(&space, &results).unwrap();
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(found[0] > 1.5 * found[1] && found[2] > 1.5 * found[1], "seed {seed}: {found:?}");
        }
        assert_eq!(importance(&space, &[]), None);
    }
}
