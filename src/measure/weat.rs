//! The word embedding association test (Caliskan, Bryson, Narayanan 2017, arXiv 1608.07187): whether words of one list lie nearer to one of
//! two groups of words than those of another list do.
//!
//! s(w, A, B) = mean over a in A of cos(w, a) − mean over b in B of cos(w, b).
//!
//! The effect size is d = (mean over X of s − mean over Y of s) / (standard deviation of s over X and Y, n − 1 below); it lies in [−2, 2] for
//! lists of equal length, but for that n − 1. The p-value is one-sided: the share of all ways to part X ∪ Y into lists of these lengths whose
//! sum of s over the first is at least that of X.

use super::{dot, mean_and_std};
use crate::rng::{Purpose, Rng};

/// Ways to part the words up to which all of them are tried.
const EXACT: u64 = 200_000;

/// Ways that are drawn where there are more.
const DRAWS: usize = 100_000;

/// What the test says.
#[derive(Clone, Debug, PartialEq)]
pub struct Weat {
    /// s of each word of X, then of each of Y.
    pub associations: Vec<f64>,
    /// d; NaN where all words are associated alike.
    pub effect: f64,
    /// The share of parts that are associated as strongly; by a draw, with the lists as they are counted as one.
    pub p: f64,
    /// Whether all ways were tried.
    pub exact: bool,
}

/// cos of the angle of two vectors; 0 where one of them is 0.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let norm = (dot(a, a) * dot(b, b)).sqrt();
    if norm > 0.0 { dot(a, b) / norm } else { 0.0 }
}

/// C(n, k), or u64::MAX where it is more.
fn choose(n: u64, k: u64) -> u64 {
    (1..=k.min(n - k)).try_fold(1u64, |c, i| c.checked_mul(n + 1 - i).map(|c| c / i)).unwrap_or(u64::MAX)
}

/// The test of the lists X and Y against the groups A and B, as vectors of one length. Ways are drawn by `seed` where there are more than 200,000.
///
/// # Panics
/// If a list is empty, or a vector is of another length.
pub fn weat(x: &[Vec<f64>], y: &[Vec<f64>], [a, b]: [&[Vec<f64>]; 2], seed: u64) -> Weat {
    assert!([x, y, a, b].iter().all(|list| !list.is_empty()), "no list may be empty");
    let near = |w: &[f64], list: &[Vec<f64>]| list.iter().map(|v| cosine(w, v)).sum::<f64>() / list.len() as f64;
    let s: Vec<f64> = x.iter().chain(y).map(|w| near(w, a) - near(w, b)).collect();
    let (n, k) = (s.len(), x.len());
    let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
    let effect = (mean(&s[..k]) - mean(&s[k..])) / mean_and_std(&s).1;
    // Sums of the same numbers in another order may differ in the last bits.
    let own = s[..k].iter().sum::<f64>() - 1e-12 * s.iter().map(|s| s.abs()).sum::<f64>();
    let exact = choose(n as u64, k as u64) <= EXACT;
    let p = if exact {
        let (mut ways, mut above) = (0u64, 0u64);
        let mut chosen: Vec<usize> = (0..k).collect();
        loop {
            ways += 1;
            above += u64::from(chosen.iter().map(|&i| s[i]).sum::<f64>() >= own);
            // The next set in lexicographic order.
            let Some(i) = (0..k).rev().find(|&i| chosen[i] < n - k + i) else { break };
            chosen[i] += 1;
            for j in i + 1..k {
                chosen[j] = chosen[j - 1] + 1;
            }
        }
        above as f64 / ways as f64
    } else {
        let mut order: Vec<usize> = (0..n).collect();
        let mut rng = Rng::new(seed, Purpose::Resample, 30, 0);
        let mut above = 1;
        for _ in 0..DRAWS {
            for i in 0..k {
                order.swap(i, i + rng.below((n - i) as u32) as usize);
            }
            above += usize::from(order[..k].iter().map(|&i| s[i]).sum::<f64>() >= own);
        }
        above as f64 / (DRAWS + 1) as f64
    };
    Weat { associations: s, effect, p, exact }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_circle(degrees: &[f64]) -> Vec<Vec<f64>> {
        degrees.iter().map(|d| vec![d.to_radians().cos(), d.to_radians().sin()]).collect()
    }

    #[test]
    fn four_words_in_a_plane_are_as_computed_by_hand() {
        let (a, b) = (on_circle(&[0.0]), on_circle(&[90.0]));
        // s is cos − sin: 1 and √(3/4) − 1/2 of X, −1 and 1/2 − √(3/4) of Y.
        let (x, y) = (on_circle(&[0.0, 30.0]), on_circle(&[90.0, 60.0]));
        let found = weat(&x, &y, [&a, &b], 1);
        let t = 0.75f64.sqrt() - 0.5;
        for (got, want) in found.associations.iter().zip([1.0, t, -1.0, -t]) {
            assert!((got - want).abs() < 1e-12, "{found:?}");
        }
        // The means are ±(1 + t)/2, the squares sum up to 2 + 2t², over 3.
        let want = (1.0 + t) / ((2.0 + 2.0 * t * t) / 3.0).sqrt();
        assert!((found.effect - want).abs() < 1e-12, "{found:?}");
        // Of six pairs this is the one with the greatest sum; the other way round all are at least as great.
        assert!(found.exact && (found.p - 1.0 / 6.0).abs() < 1e-12);
        let back = weat(&y, &x, [&a, &b], 1);
        assert!((back.effect + want).abs() < 1e-12 && back.p == 1.0);
        // Lengths of vectors say nothing.
        let long: Vec<Vec<f64>> = x.iter().map(|w| w.iter().map(|w| 7.0 * w).collect()).collect();
        assert!((weat(&long, &y, [&a, &b], 1).effect - want).abs() < 1e-12);
    }

    /// The numbers of `tests/reference/weat.py`.
    #[test]
    fn numpy_says_the_same() {
        let component = |i: usize, k: usize| ((i * i + 3 * k + 1) as f64).sin();
        let words: Vec<Vec<f64>> = (0..14).map(|i| (0..5).map(|k| component(i, k)).collect()).collect();
        let found = weat(&words[..5], &words[5..9], [&words[9..12], &words[12..]], 1);
        assert!((found.effect - 0.636983640474113).abs() < 1e-12 && found.exact, "{found:?}");
        assert!((found.p - 24.0 / 126.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn drawn_ways_agree_with_all_ways() {
        let mut rng = Rng::new(3, Purpose::Test, 0, 0);
        let mut words = |n: usize, shift: f64| -> Vec<Vec<f64>> {
            (0..n).map(|_| vec![f64::from(rng.uniform()) + shift, f64::from(rng.uniform()), 0.3]).collect()
        };
        let (a, b) = (words(4, 1.0), words(5, -1.0));
        // 10 of 22 can be chosen in 646,646 ways.
        let (x, y) = (words(10, 0.05), words(12, 0.0));
        let drawn = weat(&x, &y, [&a, &b], 5);
        assert!(!drawn.exact && drawn == weat(&x, &y, [&a, &b], 5));
        let own: f64 = drawn.associations[..10].iter().sum();
        // Count all ways here, by their bits.
        let (mut ways, mut above) = (0u32, 0u32);
        for set in 0u32..1 << 22 {
            if set.count_ones() == 10 {
                ways += 1;
                let sum: f64 = (0..22).filter(|i| set >> i & 1 == 1).map(|i| drawn.associations[i]).sum();
                above += u32::from(sum >= own - 1e-12);
            }
        }
        let p = f64::from(above) / f64::from(ways);
        let error = (p * (1.0 - p) / DRAWS as f64).sqrt();
        assert!((drawn.p - p).abs() < 5.0 * error && (0.01..0.99).contains(&p), "{} {p}", drawn.p);
    }
}
