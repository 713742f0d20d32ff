//! What a private training has spent: an account of the Gaussian mechanism over random subsets, in Rényi divergences.
//!
//! A step draws each record with probability q, sums what they give, at most 1 in norm each, and adds N(0, σ²) to every element.
//! With or without one record its results have a Rényi divergence of order α of at most ln A_α / (α − 1), where
//!
//! ```text
//! A_α = E_{z ~ N(0, σ²)} [(1 − q + q·exp((2z − 1) / 2σ²))^α]
//! ```
//!
//! (Mironov, Talwar, Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", arXiv 1908.10530, theorem 4 and
//! section 3.3). Divergences of steps add up. Of their sum ρ(α)
//!
//! ```text
//! ε = min over α of  ρ(α) + ln((α − 1)/α) − (ln δ + ln α) / (α − 1)
//! ```
//!
//! makes (ε, δ)-differential privacy (Balle, Barthe, Gaboardi, Hsu, Sato 2020, arXiv 1905.09982, theorem 21). The orders are those that
//! Opacus takes by default, so that its numbers and these are the same.

use libm::{erfc, exp, log, log1p};
use std::f64::consts::{PI, SQRT_2};

/// A step: each record takes part with probability `rate` (q), and the noise has `noise` (σ) times the largest norm of what a record
/// gives as its deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mechanism {
    /// q, from 0 to 1.
    pub rate: f64,
    /// σ, 0 or more.
    pub noise: f64,
}

/// The orders α at which divergences are kept: 1.1 to 10.9 by tenths, 12 to 63 by ones.
fn orders() -> impl Iterator<Item = f64> {
    (1..100).map(|tenths| 1.0 + f64::from(tenths) / 10.0).chain((12..64).map(f64::from))
}

impl Mechanism {
    /// The Rényi divergence of order `alpha`, above 1, with or without one record; infinite where there is no noise.
    pub fn divergence(&self, alpha: f64) -> f64 {
        let Mechanism { rate: q, noise: sigma } = *self;
        if q == 0.0 {
            return 0.0;
        }
        if sigma == 0.0 {
            return f64::INFINITY;
        }
        if q >= 1.0 {
            return alpha / (2.0 * sigma * sigma);
        }
        let log_a = if alpha.fract() == 0.0 { whole(q, sigma, alpha) } else { fractional(q, sigma, alpha) };
        (log_a / (alpha - 1.0)).max(0.0)
    }
}

/// ln A_α of a whole α, by the binomial theorem: Σₖ C(α, k) (1 − q)^(α − k) q^k exp((k² − k) / 2σ²).
fn whole(q: f64, sigma: f64, alpha: f64) -> f64 {
    let (mut sum, mut binomial) = (f64::NEG_INFINITY, 0.0);
    for k in 0..=alpha as u32 {
        let k = f64::from(k);
        sum = add(sum, binomial + (alpha - k) * log1p(-q) + k * log(q) + (k * k - k) / (2.0 * sigma * sigma));
        binomial += log((alpha - k) / (k + 1.0));
    }
    sum
}

/// ln A_α of any α: left and right of z₀, where both parts of the density are the same, the smaller one is expanded in powers.
fn fractional(q: f64, sigma: f64, alpha: f64) -> f64 {
    let z0 = sigma * sigma * log(1.0 / q - 1.0) + 0.5;
    let (left, right) = (log1p(-q), log(q));
    // Sums of what is added and of what is taken away, from where C(α, k) is below 0.
    let (mut plus, mut minus) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (mut binomial, mut positive) = (0.0, true);
    for k in 0.. {
        let k = f64::from(k);
        let rest = alpha - k;
        let part = |of_left: f64, of_right: f64, beyond: f64| {
            let moved = (of_right * of_right - of_right) / (2.0 * sigma * sigma);
            of_left * left + of_right * right + moved + log_erfc(beyond / (SQRT_2 * sigma)) - log(2.0)
        };
        let term = binomial + add(part(rest, k, k - z0), part(k, rest, z0 - rest));
        let sum = if positive { &mut plus } else { &mut minus };
        *sum = add(*sum, term);
        // From there on signs alternate and terms fall: what is left out is below 1e-13, and A is at least 1.
        if k > alpha && term < -30.0 {
            break;
        }
        positive ^= rest < 0.0;
        binomial += log((rest / (k + 1.0)).abs());
    }
    // ln(eᵖ − eᵐ).
    plus + log1p(-exp(minus - plus))
}

/// ln(eᵃ + eᵇ).
fn add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + log1p(exp(low - high)) }
}

/// ln erfc(x), where erfc itself is too small for an f64 by its asymptotic series, whose fifth term is below 1e-9 there.
fn log_erfc(x: f64) -> f64 {
    if x < 20.0 {
        return log(erfc(x));
    }
    let y = 1.0 / (2.0 * x * x);
    -x * x - log(x * PI.sqrt()) + log1p(-y * (1.0 - 3.0 * y * (1.0 - 5.0 * y * (1.0 - 7.0 * y))))
}

/// The divergences of all steps so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// ρ, order by order.
    sums: Vec<f64>,
}

impl Default for Spent {
    fn default() -> Spent {
        Spent { sums: orders().map(|_| 0.0).collect() }
    }
}

impl Spent {
    /// Adds `steps` steps.
    pub fn add(&mut self, mechanism: &Mechanism, steps: u64) {
        if steps > 0 {
            let sums = self.sums.iter_mut().zip(orders());
            sums.for_each(|(sum, alpha)| *sum += steps as f64 * mechanism.divergence(alpha));
        }
    }

    /// The ε of (ε, δ)-differential privacy for this `delta` (δ, between 0 and 1); infinite where some step had no noise.
    pub fn epsilon(&self, delta: f64) -> f64 {
        if self.sums.iter().all(|&sum| sum == 0.0) {
            return 0.0;
        }
        let epsilon =
            |(sum, alpha): (&f64, f64)| sum + log((alpha - 1.0) / alpha) - (log(delta) + log(alpha)) / (alpha - 1.0);
        self.sums.iter().zip(orders()).map(epsilon).fold(f64::INFINITY, f64::min).max(0.0)
    }
}

/// The ε of `steps` steps for this `delta`.
pub fn epsilon(mechanism: &Mechanism, steps: u64, delta: f64) -> f64 {
    let mut spent = Spent::default();
    spent.add(mechanism, steps);
    spent.epsilon(delta)
}

/// The least noise σ, to about six digits, with which `steps` steps of sampling rate `rate` have at most this `epsilon` for `delta`; `None`
/// where even a noise of a million has more, since orders end at 63.
pub fn noise_for(target: f64, delta: f64, rate: f64, steps: u64) -> Option<f64> {
    let fits = |noise: f64| epsilon(&Mechanism { rate, noise }, steps, delta) <= target;
    let (mut low, mut high) = (1e-3, 1.0);
    while !fits(high) {
        (low, high) = (high, 2.0 * high);
        if high > 1e6 {
            return None;
        }
    }
    while high / low > 1.0 + 1e-6 {
        let middle = (low * high).sqrt();
        if fits(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A_α by the trapezoidal rule over its definition, which for such an integrand is exact to rounding.
    fn integral(q: f64, sigma: f64, alpha: f64) -> f64 {
        let (steps, reach) = (20_000, 40.0 * sigma + alpha);
        let width = 2.0 * reach / f64::from(steps);
        let value = |i: u32| {
            let z = -reach + f64::from(i) * width;
            let log_ratio = add(log1p(-q), log(q) + (2.0 * z - 1.0) / (2.0 * sigma * sigma));
            exp(alpha * log_ratio - z * z / (2.0 * sigma * sigma))
        };
        (0..=steps).map(value).sum::<f64>() * width / (sigma * (2.0 * PI).sqrt())
    }

    #[test]
    fn divergences_are_those_of_the_definition() {
        for (q, sigma) in [(0.01, 1.0), (0.04, 1.5), (0.3, 0.8), (0.5, 3.0), (0.9, 0.7), (0.001, 0.6)] {
            for alpha in [1.1, 1.5, 2.0, 2.5, 3.0, 7.3, 10.9, 16.0] {
                let (found, expected) = (
                    Mechanism { rate: q, noise: sigma }.divergence(alpha),
                    log(integral(q, sigma, alpha)) / (alpha - 1.0),
                );
                let off = (found - expected).abs();
                assert!(off <= 1e-7 * expected + 1e-11, "q {q}, σ {sigma}, α {alpha}: {found} and {expected}");
            }
        }
    }

    /// The value that Opacus' own tests hold its accountant to (`opacus/tests/accountants_test.py`).
    #[test]
    fn the_published_value_comes_out() {
        let found = epsilon(&Mechanism { rate: 0.04, noise: 1.5 }, 2250, 1e-5);
        assert!((found / 7.329_111_17 - 1.0).abs() < 1e-6, "{found}");
    }

    #[test]
    fn where_all_take_part_it_is_the_plain_gaussian_mechanism() {
        // ρ(α) = α T / 2σ², whose best order is found here among ten thousand.
        for (noise, steps, delta) in [(4.0, 10, 1e-5), (20.0, 100, 1e-6), (2.0, 1, 1e-4)] {
            let found = epsilon(&Mechanism { rate: 1.0, noise }, steps, delta);
            let at = |alpha: f64| {
                alpha * steps as f64 / (2.0 * noise * noise) + log((alpha - 1.0) / alpha)
                    - (log(delta) + log(alpha)) / (alpha - 1.0)
            };
            let best = (1..10_000).map(|i| at(1.0 + f64::from(i) / 160.0)).fold(f64::INFINITY, f64::min);
            assert!(found >= best - 1e-12 && found < 1.002 * best, "{found} {best}");
        }
        let near = Mechanism { rate: 1.0 - 1e-9, noise: 2.0 }.divergence(5.0);
        assert!((near - 5.0 / 8.0).abs() < 1e-6, "{near}");
    }

    #[test]
    fn more_noise_costs_less_and_more_steps_and_larger_samples_more() {
        let of = |rate, noise, steps| epsilon(&Mechanism { rate, noise }, steps, 1e-5);
        for pair in [0.3, 0.5, 0.7, 1.0, 1.5, 3.0, 8.0].windows(2) {
            assert!(of(0.02, pair[0], 500) > of(0.02, pair[1], 500), "σ {pair:?}");
        }
        for pair in [1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 1.0].windows(2) {
            assert!(of(pair[0], 1.1, 500) < of(pair[1], 1.1, 500), "q {pair:?}");
        }
        for pair in [1, 10, 100, 1000, 100_000].windows(2) {
            assert!(of(0.02, 1.1, pair[0]) < of(0.02, 1.1, pair[1]), "steps {pair:?}");
        }
        assert_eq!((of(0.0, 1.0, 100), of(0.5, 1.0, 0), of(0.5, 0.0, 1)), (0.0, 0.0, f64::INFINITY));
        assert!(of(0.02, 0.05, 10).is_finite() && of(1e-7, 0.2, 10).is_finite() && of(0.999, 50.0, 1).is_finite());
    }

    #[test]
    fn noise_is_the_least_that_a_target_allows() {
        for (target, rate, steps) in [(8.0, 0.01, 3000), (1.0, 0.04, 500), (0.5, 1.0, 20), (50.0, 0.2, 100)] {
            let noise = noise_for(target, 1e-5, rate, steps).expect("there is one");
            let of = |noise| epsilon(&Mechanism { rate, noise }, steps, 1e-5);
            assert!(of(noise) <= target && of(0.9999 * noise) > target, "{target}: σ {noise} gives {}", of(noise));
        }
        assert_eq!(noise_for(0.01, 1e-5, 0.01, 100), None);
    }

    #[test]
    fn accounts_of_different_steps_add_up() {
        let [a, b] = [(0.01, 1.0), (0.05, 2.0)].map(|(rate, noise)| Mechanism { rate, noise });
        let mut spent = Spent::default();
        spent.add(&a, 100);
        spent.add(&b, 50);
        let both = spent.epsilon(1e-5);
        assert!(both > epsilon(&a, 100, 1e-5).max(epsilon(&b, 50, 1e-5)));
        assert!(both < epsilon(&a, 100, 1e-5) + epsilon(&b, 50, 1e-5));
        let mut twice = Spent::default();
        (0..2).for_each(|_| twice.add(&a, 50));
        assert!((twice.epsilon(1e-5) / epsilon(&a, 100, 1e-5) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_series_meets_the_function() {
        assert!((log_erfc(20.0) / log(erfc(19.999_999_999)) - 1.0).abs() < 1e-9);
        // ln erfc(30) by 40 digits.
        assert!((log_erfc(30.0) + 903.974_117_110_643_9).abs() < 1e-9, "{}", log_erfc(30.0));
        assert_eq!(log_erfc(-30.0), log(2.0));
    }
}
