//! Curves as they are shown: smoothed, and with no more points than can be seen.

/// A point: a step, and what was measured there.
pub type Dot = (f64, f64);

/// The exponential moving average of `points`, where each value weighs `1 - weight` and all before it `weight`; divided by the sum of the
/// weights so far, so that the start is not drawn towards 0 (Adam's bias correction: Kingma and Ba 2015, section 3). A weight of 0 changes
/// nothing.
pub fn smoothed(points: &[Dot], weight: f64) -> Vec<Dot> {
    let (mut mean, mut left) = (0.0, 1.0);
    let next = |&(x, y): &Dot| {
        mean = weight * mean + (1.0 - weight) * y;
        left *= weight;
        (x, mean / (1.0 - left))
    };
    points.iter().map(next).collect()
}

/// About `most` of the points: the ends, and of each stretch between them the lowest and the highest, so that no peak is lost.
pub fn thinned(points: Vec<Dot>, most: usize) -> Vec<Dot> {
    let [first, between @ .., last] = &points[..] else { return points };
    if points.len() <= most.max(4) {
        return points;
    }
    let stretch = between.len().div_ceil((most / 2).saturating_sub(1).max(1));
    let ends = |dots: &[Dot]| -> Vec<Dot> {
        let by = |a: &&Dot, b: &&Dot| a.1.total_cmp(&b.1);
        let (Some(&low), Some(&high)) = (dots.iter().min_by(by), dots.iter().max_by(by)) else { return Vec::new() };
        match low.0.total_cmp(&high.0) {
            std::cmp::Ordering::Equal => vec![low],
            std::cmp::Ordering::Less => vec![low, high],
            std::cmp::Ordering::Greater => vec![high, low],
        }
    };
    [*first].into_iter().chain(between.chunks(stretch).flat_map(ends)).chain([*last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_and_a_step_is_followed_by_the_weight() {
        let flat: Vec<Dot> = (0..50).map(|i| (i as f64, 3.0)).collect();
        assert!(smoothed(&flat, 0.9).iter().all(|&(_, y)| (y - 3.0).abs() < 1e-12));
        let rise = [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)];
        assert_eq!(smoothed(&rise, 0.0), rise);
        // (1/4 · 1 + 1/2 · 2) / (3/4), then (1/8 · 1 + 1/4 · 2 + 1/2 · 4) / (7/8).
        let smooth = smoothed(&rise, 0.5);
        assert!((smooth[1].1 - 5.0 / 3.0).abs() < 1e-12 && (smooth[2].1 - 3.0).abs() < 1e-12, "{smooth:?}");
    }

    #[test]
    fn fewer_points_keep_every_peak_and_the_order() {
        let mut points: Vec<Dot> = (0..10_000).map(|i| (i as f64, 2.0)).collect();
        (points[4_321].1, points[7_000].1) = (50.0, -3.0);
        let thin = thinned(points.clone(), 200);
        assert!(thin.len() <= 200, "{}", thin.len());
        assert_eq!((thin[0].0, thin[thin.len() - 1].0), (0.0, 9_999.0));
        assert!(thin.contains(&(4_321.0, 50.0)) && thin.contains(&(7_000.0, -3.0)));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(points[..10].to_vec(), 200), points[..10]);
    }
}
