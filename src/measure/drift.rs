//! How far two distributions over the same bins are apart, from counts.

/// The Jensen-Shannon divergence ½ KL(p‖m) + ½ KL(q‖m), m = (p + q)/2, in nats: 0 to ln 2 (Lin 1991, eq. 4.1). No count at all is far from
/// nothing: 0.
///
/// # Panics
/// If there are not as many bins.
pub fn jensen_shannon(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len(), "the same bins");
    let [n, m] = [a, b].map(total);
    if n == 0.0 || m == 0.0 {
        return 0.0;
    }
    let of = |p: f64, middle: f64| if p > 0.0 { p * (p / middle).ln() } else { 0.0 };
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| {
            let (p, q) = (f64::from(a) / n, f64::from(b) / m);
            of(p, 0.5 * (p + q)) + of(q, 0.5 * (p + q))
        })
        .sum();
    0.5 * sum
}

/// The population stability index Σ (p − q) ln(p/q), the sum of both KL divergences (Jeffreys 1946); half a count is added to each bin, so that
/// an empty one does not make it infinite. By a rule of thumb of credit scoring 0.1 is little and 0.25 is much, which holds for ten bins and
/// thousands of cases; with many bins and few cases chance alone gives more.
///
/// # Panics
/// If there are not as many bins.
pub fn psi(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len(), "the same bins");
    let [n, m] = [a, b].map(|counts| total(counts) + 0.5 * counts.len() as f64);
    let of = |(&a, &b): (&u32, &u32)| {
        let (p, q) = ((f64::from(a) + 0.5) / n, (f64::from(b) + 0.5) / m);
        (p - q) * (p / q).ln()
    };
    a.iter().zip(b).map(of).sum()
}

fn total(counts: &[u32]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::LN_2;

    #[test]
    fn equal_shares_are_no_distance_and_disjoint_ones_the_greatest() {
        assert_eq!(jensen_shannon(&[1, 2, 3], &[2, 4, 6]), 0.0);
        assert!((jensen_shannon(&[5, 0], &[0, 7]) - LN_2).abs() < 1e-15);
        assert_eq!(jensen_shannon(&[0, 0], &[0, 7]), 0.0);
        assert_eq!(psi(&[4, 4], &[4, 4]), 0.0);
        let (a, b) = ([10, 20, 70], [30, 30, 40]);
        // numpy, by the definition.
        assert!((jensen_shannon(&a, &b) - 0.051_912_259_238).abs() < 1e-11, "{}", jensen_shannon(&a, &b));
        assert_eq!(jensen_shannon(&a, &b), jensen_shannon(&b, &a));
        assert_eq!(psi(&a, &b), psi(&b, &a));
        // (p - q) ln(p/q) with (10.5, 20.5, 70.5)/101.5 and (30.5, 30.5, 40.5)/101.5
        let by_hand = [(10.5, 30.5), (20.5, 30.5), (70.5, 40.5f64)].map(|(p, q)| (p - q) / 101.5 * (p / q).ln());
        assert!((psi(&a, &b) - by_hand.iter().sum::<f64>()).abs() < 1e-12);
    }
}
