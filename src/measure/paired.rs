//! How sure a number is, and whether two models differ that answered the same items.

use crate::rng::{Purpose, Rng};

/// The mean of `x` and its standard error √(Σ(x − mean)²/(n − 1)/n), which is 0 for one number.
pub fn mean_and_error(x: &[f64]) -> [f64; 2] {
    if x.is_empty() {
        return [f64::NAN, f64::NAN];
    }
    let (mean, std) = super::mean_and_std(x);
    [mean, std / (x.len() as f64).sqrt()]
}

/// What `stat` says of `draws` draws of n items with replacement (Efron 1979), sorted. `stat` is given the items' numbers.
pub fn bootstrap(n: usize, draws: usize, seed: u64, stat: &dyn Fn(&[usize]) -> f64) -> Vec<f64> {
    let mut chosen = vec![0; n];
    let mut all: Vec<f64> = (0..draws)
        .map(|draw| {
            let mut rng = Rng::new(seed, Purpose::Resample, 0, draw as u64);
            chosen.iter_mut().for_each(|i| *i = rng.below(n as u32) as usize);
            stat(&chosen)
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The middle 95 % of sorted numbers.
pub fn interval(sorted: &[f64]) -> [f64; 2] {
    let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
    [at(0.025), at(0.975)]
}

/// The probability that of k samples, drawn without replacement from n of which c pass, at least one passes:
/// 1 − C(n − c, k)/C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1).
///
/// # Panics
/// If k is 0 or above n, or c above n.
pub fn pass_at(n: usize, c: usize, k: usize) -> f64 {
    assert!((1..=n).contains(&k) && c <= n, "{k} of {n}, {c} of which pass");
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// The value below which a share `p` of them lies, 0 to 1: linear between the two that are nearest (Hyndman and Fan 1996, definition 7, numpy's default).
///
/// # Panics
/// There is none.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        let values = [4.0, 1.0, 3.0, 2.0];
        // numpy.percentile([4, 1, 3, 2], [0, 25, 50, 90, 100])
        let found = [0.0, 0.25, 0.5, 0.9, 1.0].map(|p| percentile(&values, p));
        for (found, expected) in found.into_iter().zip([1.0, 1.75, 2.5, 3.7, 4.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn pass_at_k_is_what_counting_all_choices_gives() {
        for (n, c) in [(1, 0), (1, 1), (6, 0), (6, 2), (7, 5), (8, 8)] {
            for k in 1..=n {
                let draws: Vec<u32> = (0u32..1 << n).filter(|set| set.count_ones() as usize == k).collect();
                let pass = draws.iter().filter(|&&set| set & ((1 << c) - 1) != 0).count();
                let want = pass as f64 / draws.len() as f64;
                assert!((pass_at(n, c, k) - want).abs() < 1e-12, "{n} {c} {k}");
            }
        }
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_errors_to_each_side() {
        let mut rng = Rng::new(1, Purpose::Test, 0, 0);
        let x: Vec<f64> = (0..400).map(|_| f64::from(rng.uniform())).collect();
        let [mean, error] = mean_and_error(&x);
        let draws = bootstrap(x.len(), 2000, 7, &|chosen| chosen.iter().map(|&i| x[i]).sum::<f64>() / 400.0);
        let [low, high] = interval(&draws);
        assert!(((high - low) / (2.0 * 1.96 * error) - 1.0).abs() < 0.1 && low < mean && mean < high);
        assert_eq!(draws, bootstrap(x.len(), 2000, 7, &|chosen| chosen.iter().map(|&i| x[i]).sum::<f64>() / 400.0));
    }
}
