//! A tree-structured Parzen estimator over all axes together.
//!
//! ```text
//! good = the best γ of the results, bad = the rest
//! l(x) = mean over good of K(x, x_i),  g(x) the same over bad, each with a uniform density as one point more
//! next = argmax l(x) / g(x) over candidates drawn from l
//! K    = Π over axes: of a line, a normal of deviation h around x_i, cut to [0, 1]; of choices, a share more for x_i's
//! ```
//! Sources: Bergstra et al. 2011 ("Algorithms for hyper-parameter optimization"); Falkner et al. 2018 (arXiv 1807.01774) for
//! one kernel over all axes; Watanabe 2023 (arXiv 2304.11127) for what its constants do.

use super::space::{Setting, Space};
use crate::rng::Rng;
use rand::RngCore;

/// The share of results that count as good.
const GAMMA: f64 = 0.2;

/// Settings at random before there is anything to go by.
const START: usize = 8;

/// Candidates for one setting.
const CANDIDATES: usize = 48;

/// A density over places, as many kernels.
struct Density<'a> {
    /// Places in [0, 1] by axis.
    points: Vec<Vec<f64>>,
    space: &'a Space,
    /// The deviation along a line.
    width: f64,
    /// The probability that a choice is another than the kernel's.
    other: f64,
}

fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The distribution function of the standard normal.
fn phi(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

impl<'a> Density<'a> {
    fn new(space: &'a Space, points: Vec<Vec<f64>>) -> Density<'a> {
        // Scott's rule for a cube, whose uniform density has a deviation of √(1/12).
        let n = points.len().max(1) as f64;
        let width = (libm::pow(n, -1.0 / (space.axes.len() as f64 + 4.0)) / 12f64.sqrt()).max(0.02);
        Density { other: 1.0 / (n + 1.0).min(8.0), points, space, width }
    }

    /// The density of one kernel along an axis.
    fn along(&self, axis: usize, x: f64, center: f64) -> f64 {
        match self.space.axes[axis].domain.choices() {
            0 => {
                let z = (x - center) / self.width;
                let mass = phi((1.0 - center) / self.width) - phi(-center / self.width);
                libm::exp(-0.5 * z * z) / (self.width * (2.0 * std::f64::consts::PI).sqrt() * mass)
            }
            1 => 1.0,
            // Densities over [0, 1], of which each choice has an equal part.
            n if (x - center).abs() < 0.5 / n as f64 => n as f64 * (1.0 - self.other),
            n => n as f64 * self.other / (n - 1) as f64,
        }
    }

    fn at(&self, x: &[f64]) -> f64 {
        let kernel =
            |center: &Vec<f64>| (0..x.len()).map(|axis| self.along(axis, x[axis], center[axis])).product::<f64>();
        (1.0 + self.points.iter().map(kernel).sum::<f64>()) / (self.points.len() + 1) as f64
    }

    /// A place from one of the kernels, or from the uniform density.
    fn draw(&self, rng: &mut Rng) -> Vec<f64> {
        let center = self.points.get(rng.below(self.points.len() as u32 + 1) as usize);
        let mut along = |axis: usize| {
            let Some(center) = center.map(|center| center[axis]) else { return uniform(rng) };
            match self.space.axes[axis].domain.choices() {
                // Cut to [0, 1] by drawing again; at least a half lies within.
                0 => loop {
                    let radius = (-2.0 * libm::log(1.0 - uniform(rng))).sqrt();
                    let x = center + self.width * radius * libm::cos(std::f64::consts::TAU * uniform(rng));
                    if (0.0..=1.0).contains(&x) {
                        break x;
                    }
                },
                n if n > 1 && uniform(rng) < self.other => {
                    let own = (center * n as f64) as usize;
                    let other = rng.below(n as u32 - 1) as usize;
                    ((other + usize::from(other >= own)) as f64 + 0.5) / n as f64
                }
                _ => center,
            }
        };
        (0..self.space.axes.len()).map(&mut along).collect()
    }
}

/// The next setting after `results`, of which less is better and what is not finite is worst.
pub fn propose(space: &Space, rng: &mut Rng, results: &[(&Setting, f64)]) -> Setting {
    if results.len() < START {
        return space.at(|_| uniform(rng));
    }
    let mut order: Vec<&(&Setting, f64)> = results.iter().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let good = ((GAMMA * order.len() as f64).ceil() as usize).max(2);
    let places = |part: &[&(&Setting, f64)]| part.iter().map(|(setting, _)| space.place(setting)).collect();
    let [l, g] = [places(&order[..good]), places(&order[good..])].map(|points| Density::new(space, points));
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for _ in 0..CANDIDATES {
        let x = l.draw(rng);
        let ratio = l.at(&x) / g.at(&x);
        if ratio > best.0 {
            best = (ratio, x);
        }
    }
    space.at(|axis| best.1[axis])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn space() -> Space {
        let text =
            "a.x = { from = 0.0, to = 1.0 }\na.y = { from = 1e-4, to = 1.0, log = true }\na.z = [\"p\", \"q\", \"r\"]";
        Space::parse(&text.parse().expect("TOML")).expect("a space")
    }

    /// Least, 0, at x = 0.3, y = 0.01, z = "q".
    fn loss(space: &Space, setting: &Setting) -> f64 {
        let place = space.place(setting);
        (place[0] - 0.3).powi(2) + (place[1] - 0.5).powi(2) + if setting[2].as_str() == Some("q") { 0.0 } else { 0.2 }
    }

    fn best(seed: u64, mut next: impl FnMut(&Space, &mut Rng, &[(&Setting, f64)]) -> Setting) -> f64 {
        let (space, mut tried) = (space(), Vec::<(Setting, f64)>::new());
        for i in 0..60 {
            let results: Vec<(&Setting, f64)> = tried.iter().map(|(s, l)| (s, *l)).collect();
            let setting = next(&space, &mut Rng::new(seed, Purpose::Test, i, 0), &results);
            let loss = loss(&space, &setting);
            tried.push((setting, loss));
        }
        tried.iter().map(|t| t.1).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn what_it_finds_is_better_than_what_chance_finds() {
        let mean =
            |f: fn(&Space, &mut Rng, &[(&Setting, f64)]) -> Setting| (0..20).map(|s| best(s, f)).sum::<f64>() / 20.0;
        let tpe = mean(propose);
        let random = mean(|space, rng, _| space.at(|_| uniform(rng)));
        assert!(tpe < 0.5 * random, "{tpe} against {random}");
    }

    #[test]
    fn a_density_has_a_mass_of_one() {
        let space = space();
        let density = Density::new(&space, vec![vec![0.1, 0.9, 0.5], vec![0.4, 0.0, 1.0 / 6.0]]);
        let n = 40;
        let mut sum = 0.0;
        for i in 0..n {
            for j in 0..n {
                for k in 0..3 {
                    let x = [(i as f64 + 0.5) / n as f64, (j as f64 + 0.5) / n as f64, (k as f64 + 0.5) / 3.0];
                    sum += density.at(&x) / (n * n * 3) as f64;
                }
            }
        }
        assert!((sum - 1.0).abs() < 1e-2, "{sum}");
    }

    #[test]
    fn results_that_are_not_finite_are_worst() {
        let space = space();
        let settings: Vec<Setting> =
            (0..20).map(|i| space.at(|axis| if axis == 0 { i as f64 / 19.0 } else { 0.5 })).collect();
        // Only to the right of 0.5 did anything come out.
        let value = |i: usize| if i < 10 { f64::INFINITY } else { 1.0 + (i % 3) as f64 };
        let results: Vec<(&Setting, f64)> = settings.iter().enumerate().map(|(i, s)| (s, value(i))).collect();
        let right = (0..50).filter(|&i| {
            let next = propose(&space, &mut Rng::new(i, Purpose::Test, 0, 0), &results);
            space.place(&next)[0] > 0.5
        });
        assert!(right.count() >= 45);
    }
}
