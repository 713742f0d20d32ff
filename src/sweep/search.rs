//! Which setting is tried next.

use super::space::{Setting, Space};
use super::tpe;
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use serde::{Deserialize, Serialize};

/// `sweep.search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// All settings of a grid, or so many of them at random.
    Grid,
    /// Each setting by itself at random (Bergstra, Bengio 2012).
    Random,
    /// The points of a Sobol sequence, scrambled (Owen 1995): as random ones, but evenly spread.
    Sobol,
    /// Near what was good so far: a tree-structured Parzen estimator (Bergstra et al. 2011).
    Tpe,
}

/// Settings that [`Search::Tpe`] chooses from the same trials, so that they need not wait for each other.
pub const TOGETHER: usize = 4;

/// How often a setting is drawn anew that was tried before.
const TRIES: usize = 100;

impl Search {
    /// The settings that do not hang on results: `trials` of them; of a grid all where that is 0, and never more than it has.
    ///
    /// # Errors
    /// As of [`Space::grid`].
    pub fn grid(space: &Space, trials: usize, seed: u64) -> Result<Vec<Setting>> {
        let mut grid = space.grid()?;
        if trials == 0 || trials >= grid.len() {
            return Ok(grid);
        }
        // The first `trials` of a shuffled order, put back into the grid's.
        let mut rng = Rng::new(seed, Purpose::Search, 0, 0);
        let mut order: Vec<usize> = (0..grid.len()).collect();
        for i in 0..trials {
            let j = i + rng.below((order.len() - i) as u32) as usize;
            order.swap(i, j);
        }
        order.truncate(trials);
        order.sort_unstable();
        let mut kept = order.into_iter().peekable();
        let mut i = 0;
        grid.retain(|_| {
            let keep = kept.next_if_eq(&i).is_some();
            i += 1;
            keep
        });
        Ok(grid)
    }

    /// Setting number `index`: a function of the seed and, for [`Search::Tpe`], of what the earlier ones came to. One that is in
    /// `taken` comes again only where chance finds no other.
    pub fn propose(
        self,
        space: &Space,
        seed: u64,
        index: usize,
        taken: &[&Setting],
        results: &[(&Setting, f64)],
    ) -> Setting {
        let mut rng = Rng::new(seed, Purpose::Search, 1 + index as u32 % (1 << 20), 0);
        let mut setting = Setting::new();
        for attempt in 0..TRIES {
            setting = match self {
                Search::Sobol => sobol(space, seed, index),
                // Where all that is near was tried, anything else is of more use.
                Search::Tpe if attempt < TRIES / 2 => tpe::propose(space, &mut rng, results),
                _ => space.at(|_| rng.uniform().into()),
            };
            if self == Search::Sobol || !taken.contains(&&setting) {
                break;
            }
        }
        setting
    }
}

/// A point of the sequence.
fn sobol(space: &Space, seed: u64, index: usize) -> Setting {
    space.at(|axis| sobol_burley::sample(index as u32, axis as u32, seed as u32).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(text: &str) -> Space {
        Space::parse(&text.parse().expect("TOML")).expect("a space")
    }

    #[test]
    fn a_part_of_a_grid_is_in_its_order_and_hangs_on_the_seed() {
        let space = space("a.x = { from = 0, to = 9 }\na.y = { from = 0, to = 9 }");
        let all = space.grid().unwrap();
        let number = |part: &[Setting]| -> Vec<usize> {
            part.iter().map(|s| all.iter().position(|one| one == s).unwrap()).collect()
        };
        let [a, b] = [1, 2].map(|seed| number(&Search::grid(&space, 30, seed).unwrap()));
        assert_eq!((a.len(), a != b), (30, true));
        assert!(a.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Search::grid(&space, 0, 1).unwrap().len(), 100);
    }

    /// The largest gap in any of 16 equal parts of an axis, and in any of 4 by 4 fields of two.
    #[test]
    fn a_sobol_sequence_fills_every_part() {
        let space = space("a.x = { from = 0.0, to = 1.0 }\na.y = { from = 0.0, to = 1.0 }");
        for seed in 1..5 {
            let points: Vec<Vec<f64>> =
                (0..16).map(|i| space.place(&Search::Sobol.propose(&space, seed, i, &[], &[]))).collect();
            let hit = |n: usize, axis: usize| {
                let mut parts = vec![0; n];
                points.iter().for_each(|p| parts[((p[axis] * n as f64) as usize).min(n - 1)] += 1);
                parts
            };
            for axis in [0, 1] {
                assert_eq!(hit(16, axis), [1; 16], "seed {seed}");
            }
            let mut fields = [0; 16];
            points.iter().for_each(|p| {
                fields[(p[0] * 4.0).min(3.0) as usize * 4 + (p[1] * 4.0).min(3.0) as usize] += 1;
            });
            assert_eq!(fields, [1; 16], "seed {seed}");
        }
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let space = space("a.x = { from = 1, to = 10 }");
        for search in [Search::Random, Search::Tpe] {
            let mut taken: Vec<Setting> = Vec::new();
            for i in 0..10 {
                let results: Vec<(&Setting, f64)> = taken.iter().map(|s| (s, 1.0)).collect();
                let next = search.propose(&space, 7, i, &taken.iter().collect::<Vec<_>>(), &results);
                assert!(!taken.contains(&next), "{search:?}: {next:?} after {taken:?}");
                taken.push(next);
            }
        }
    }
}
