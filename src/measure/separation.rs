//! How well a number tells two groups apart.

/// The probability that a number of `high` is above one of `low`, equal ones counted half: the area under the ROC curve (Hanley and McNeil
/// 1982). 0.5 where it tells nothing.
pub fn auc(high: &[f64], low: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = high.iter().map(|&x| (x, true)).chain(low.iter().map(|&x| (x, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0.0;
    let mut sum = 0.0;
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let ups = equal.iter().filter(|x| x.1).count() as f64;
        let downs = equal.len() as f64 - ups;
        sum += ups * (below + 0.5 * downs);
        below += downs;
    }
    sum / (high.len() as f64 * low.len() as f64)
}

/// The share of `high` that a threshold finds which at most the share `wrong` of `low` is above (true positives at a false-positive rate:
/// Carlini et al. 2022, arXiv 2112.03570).
pub fn found_at(high: &[f64], low: &[f64], wrong: f64) -> f64 {
    let mut low = low.to_vec();
    low.sort_by(|a, b| b.total_cmp(a));
    let may = (low.len() as f64 * wrong).floor() as usize;
    let found = high.iter().filter(|x| low.get(may).is_none_or(|threshold| *x > threshold)).count();
    found as f64 / high.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted() {
        assert_eq!(auc(&[2.0, 3.0], &[1.0, 0.0]), 1.0);
        assert_eq!(auc(&[0.0, 1.0], &[2.0, 3.0]), 0.0);
        assert_eq!(auc(&[1.0, 1.0], &[1.0, 1.0]), 0.5);
        // Of 3 · 2 pairs: 3 > 2, 3 > 1, 2 = 2, 2 > 1.
        assert_eq!(auc(&[3.0, 2.0, 0.0], &[2.0, 1.0]), 3.5 / 6.0);
    }

    #[test]
    fn few_of_the_others_may_be_above() {
        let low: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(found_at(&[98.5, 99.5, 50.0, 98.0], &low, 0.01), 0.5);
        assert_eq!(found_at(&[98.5, 99.5, 50.0, 98.0], &low, 0.0), 0.25);
    }
}
