//! The one place where the generator decides: every random choice is a draw from an explicit distribution.

use crate::rng::Rng;
use std::sync::LazyLock;

/// Where choices come from.
enum Source {
    /// Random numbers.
    Draw(Rng),
    /// A path through the tree of all choices: (rank among the possible options, how many there are). Beyond its end
    /// the first option is taken and the path grows, so that all paths can be walked in order.
    Walk { path: Vec<(u32, u32)>, at: usize },
}

/// Makes choices and adds up −ln of their probabilities.
pub(super) struct Chooser {
    source: Source,
    nats: f64,
    /// Nothing is recorded any more: the walk has left the text that it follows.
    stopped: bool,
}

/// The largest total weight of one choice.
const MAX_TOTAL: u32 = 1 << 10;

/// ln of 0, 1, 2, …: weights are small integers, so that probabilities are exact and the sum is the same everywhere.
static LN: LazyLock<Vec<f64>> = LazyLock::new(|| (0..=MAX_TOTAL).map(|n| libm::log(f64::from(n))).collect());

impl Chooser {
    pub fn new() -> Chooser {
        Chooser { source: Source::Walk { path: Vec::new(), at: 0 }, nats: 0.0, stopped: false }
    }

    /// Takes choices from `rng`, from now on.
    pub fn draw(&mut self, rng: Rng) {
        (self.source, self.nats, self.stopped) = (Source::Draw(rng), 0.0, false);
    }

    /// Starts a walk over all paths; false once there is no further path. The first call after [`draw`](Self::draw) or
    /// `new` starts a new walk.
    pub fn walk(&mut self) -> bool {
        (self.nats, self.stopped) = (0.0, false);
        match &mut self.source {
            Source::Walk { path, at } if *at > 0 => {
                *at = 0;
                while let Some((rank, count)) = path.pop() {
                    if rank + 1 < count {
                        path.push((rank + 1, count));
                        return true;
                    }
                }
                false
            }
            source => {
                *source = Source::Walk { path: Vec::new(), at: 0 };
                true
            }
        }
    }

    /// Whether the next choice would be new to the walk, so that what was written so far should be compared.
    pub fn at_frontier(&self) -> bool {
        matches!(&self.source, Source::Walk { path, at } if *at >= path.len())
    }

    /// Gives up this path.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// −ln of the probability of all choices since the start.
    pub fn nats(&self) -> f64 {
        self.nats
    }

    /// Chooses `i` in `0..n`, all alike.
    pub fn even(&mut self, n: usize) -> usize {
        self.pick(n, n as u32, |_| 1)
    }

    /// Chooses one of `list`, all alike.
    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.even(list.len())]
    }

    /// Chooses `i` in `0..n` with probability `weight(i) / total`, where `total`, the sum of all weights, is above 0.
    #[inline]
    pub fn pick(&mut self, n: usize, total: u32, weight: impl Fn(usize) -> u32) -> usize {
        if cfg!(any(test, debug_assertions)) {
            assert_eq!((0..n).map(&weight).sum::<u32>(), total, "a distribution must sum to one");
        }
        let i = match &mut self.source {
            Source::Draw(rng) => {
                let mut left = rng.below(total);
                (0..n).find(|&i| {
                    let w = weight(i);
                    let found = left < w;
                    left = left.wrapping_sub(if found { 0 } else { w });
                    found
                })
            }
            Source::Walk { path, at } => {
                let rank = if self.stopped {
                    0
                } else {
                    if *at == path.len() {
                        path.push((0, (0..n).filter(|&i| weight(i) > 0).count() as u32));
                    }
                    *at += 1;
                    path[*at - 1].0
                };
                (0..n).filter(|&i| weight(i) > 0).nth(rank as usize)
            }
        };
        let i = i.expect("the total is above zero");
        self.nats += LN[total as usize] - LN[weight(i) as usize];
        i
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    /// A three-step tree: the last choice exists only on some paths.
    fn tree(c: &mut Chooser) -> Vec<usize> {
        let weights = [2, 0, 3, 1];
        let mut taken = vec![c.pick(4, 6, |i| weights[i]), c.pick(2, 2, |_| 1)];
        if taken[0] == 2 {
            taken.push(c.pick(3, 7, |i| [1, 2, 4][i]));
        }
        taken
    }

    #[test]
    fn a_walk_meets_every_path_once_and_the_probabilities_sum_to_one() {
        let mut c = Chooser::new();
        let (mut seen, mut sum) = (std::collections::HashSet::new(), 0.0);
        while c.walk() {
            assert!(seen.insert(tree(&mut c)));
            sum += (-c.nats()).exp();
        }
        assert_eq!(seen.len(), 2 + 2 + 2 * 3);
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn draws_follow_the_probabilities_that_they_report() {
        let mut c = Chooser::new();
        let mut counts = std::collections::HashMap::<Vec<usize>, (f64, f64)>::new();
        let n = 20_000;
        for step in 0..n {
            c.draw(Rng::new(1, Purpose::Test, 0, step));
            let path = tree(&mut c);
            let entry = counts.entry(path).or_default();
            *entry = (entry.0 + 1.0, (-c.nats()).exp());
        }
        for (path, (count, p)) in counts {
            let (mean, sd) = (p * n as f64, (p * (1.0 - p) * n as f64).sqrt());
            assert!((count - mean).abs() < 5.0 * sd, "{path:?}: {count} of {n}, expected {mean}");
        }
    }
}
