//! Whether a model knows how sure it may be.
//!
//! A prediction comes with a confidence p in [0, 1], and is right or not. Of all that were made with p near 0.8, four of five
//! should be right.

/// Predictions whose confidences are near each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that are right.
    pub accuracy: f64,
}

/// A reliability diagram: `bins` of equal width on [0, 1], the left end of each belonging to it, as 1 does to the last.
pub fn reliability(predictions: &[(f64, bool)], bins: usize) -> Vec<Bin> {
    let mut all = vec![Bin::default(); bins];
    for &(confidence, right) in predictions {
        let bin = &mut all[((confidence * bins as f64) as usize).min(bins - 1)];
        bin.count += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(right));
    }
    for bin in all.iter_mut().filter(|bin| bin.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    all
}

/// Expected calibration error: Σ (n_b/n) |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599, equation 3).
pub fn calibration_error(bins: &[Bin]) -> f64 {
    let n: usize = bins.iter().map(|bin| bin.count).sum();
    bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs()).sum::<f64>() / n.max(1) as f64
}

/// Brier score of the chosen answers: the mean of (p − y)² with y 1 for a right answer and 0 for a wrong one, from 0 to 1 (Brier 1950, of two outcomes).
pub fn brier(predictions: &[(f64, bool)]) -> f64 {
    let square = |&(p, right): &(f64, bool)| (p - f64::from(u8::from(right))).powi(2);
    predictions.iter().map(square).sum::<f64>() / predictions.len().max(1) as f64
}

/// Softmax of `logits` · β.
pub fn probabilities(logits: &[f64], beta: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = logits.iter().map(|x| ((x - max) * beta).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

/// The temperature T for which softmax(logits / T) gives the right answers the greatest likelihood (Guo et al. 2017, section 4.2): −ln of
/// it is convex in 1/T, and where its slope is 0 is found by bisection, within 1/100 to 100. Items are logits and the index of the right one.
pub fn temperature(items: &[(&[f64], usize)]) -> f64 {
    let slope = |beta: f64| -> f64 {
        let one = |&(logits, gold): &(&[f64], usize)| {
            let p = probabilities(logits, beta);
            let mean: f64 = p.iter().zip(logits).filter(|(p, _)| **p > 0.0).map(|(p, x)| p * x).sum();
            mean - logits[gold]
        };
        items.iter().filter(|item| item.0[item.1].is_finite()).map(one).sum()
    };
    let (mut low, mut high) = (0.01f64.ln(), 100f64.ln());
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if slope(middle.exp()) < 0.0 { low = middle } else { high = middle }
    }
    (-0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What scikit-learn 1.9 and netcal 1.4 make of these (tests/reference/calibration.py): 400 predictions with confidences
    /// (7919 i mod 1000)/1000 that are right where (104729 i mod 997)/997 is below the square of it.
    #[test]
    fn brier_and_calibration_error_are_those_of_the_libraries() {
        let made: Vec<(f64, bool)> = (1..=400u64)
            .map(|i| {
                let p = (7919 * i % 1000) as f64 / 1000.0;
                (p, ((104_729 * i % 997) as f64 / 997.0) < p * p)
            })
            .collect();
        approx::assert_relative_eq!(brier(&made), BRIER, epsilon = 1e-12);
        approx::assert_relative_eq!(calibration_error(&reliability(&made, 15)), ECE, epsilon = 1e-12);
    }

    const BRIER: f64 = 0.166_923_5;
    const ECE: f64 = 0.171_43;

    #[test]
    fn who_is_always_right_and_sure_of_it_has_no_error() {
        let sure = [(1.0, true); 5];
        assert_eq!((calibration_error(&reliability(&sure, 15)), brier(&sure)), (0.0, 0.0));
        let wrong = [(1.0, false), (0.0, false)];
        assert_eq!((calibration_error(&reliability(&wrong, 15)), brier(&wrong)), (0.5, 0.5));
    }

    #[test]
    fn the_temperature_undoes_what_scaled_the_logits() {
        // Of 100 items with logits (0, x), as many are right as the logistic function of x says.
        let mut items = Vec::new();
        for x in [0.5f64, 1.0, 2.0] {
            let right = (1000.0 / (1.0 + (-x).exp())).round() as usize;
            items.extend((0..1000).map(|i| (vec![0.0, 3.0 * x], usize::from(i < right))));
        }
        let items: Vec<(&[f64], usize)> = items.iter().map(|(logits, gold)| (&logits[..], *gold)).collect();
        assert!((temperature(&items) - 3.0).abs() < 0.02, "{}", temperature(&items));
    }
}
