//! What to change for a run to fit: the cheapest changes of settings, each tried on a dry device.
//!
//! Cheap is what leaves the result as it is: the same batch in smaller parts, then blocks that are run again. What follows makes
//! something else of the model, in the order that its [`Architecture`] names.

use crate::train::recipe::{Architecture, RecipeOf, Section};
use std::fmt;
use std::path::Path;

/// How many changes are named.
const MOST: usize = 3;

/// Settings of one kind, each making a run smaller than the one before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// What such a change costs, in words.
    pub costs: &'static str,
    /// Settings `key=value`, from the mildest on.
    pub steps: Vec<Vec<String>>,
}

impl Family {
    /// Values of one key, from the mildest on.
    pub fn of<T: fmt::Display>(costs: &'static str, key: &str, values: impl IntoIterator<Item = T>) -> Family {
        Family { costs, steps: values.into_iter().map(|value| vec![format!("{key}={value}")]).collect() }
    }
}

/// A change with which a run fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// Settings `key=value`: the one that matters, then those that go with it.
    pub set: Vec<String>,
    /// What it costs, in words.
    pub costs: &'static str,
}

impl Remedy {
    /// The key of its first setting.
    pub fn key(&self) -> &str {
        self.set[0].split_once('=').map_or("", |(key, _)| key)
    }
}

/// `train.batch=4 with train.accumulate=2 fits (the same result)`.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.set[0])?;
        if self.set.len() > 1 {
            write!(f, " with {}", self.set[1..].join(" and "))?;
        }
        write!(f, " fits ({})", self.costs)
    }
}

/// Smaller numbers than `n`: three quarters and half of it, of its half, and so on, in multiples of `unit`.
pub fn below(n: usize, unit: usize) -> Vec<usize> {
    let halves = std::iter::successors(Some(n), |n| Some(n / 2)).take_while(|n| *n > 0);
    let mut all: Vec<usize> = halves.flat_map(|n| [n * 3 / 4, n / 2]).map(|m| m / unit * unit).collect();
    all.retain(|m| *m > 0 && *m < n);
    all.dedup();
    all
}

/// The changes that keep what a step computes, each for itself, and all of them at their strongest.
fn same<M: Architecture, D, S>(recipe: &RecipeOf<M, D, S>) -> (Vec<Family>, Vec<String>) {
    let train = &recipe.train;
    let batch = train.batch;
    let parts = |b: usize| {
        let accumulate = train.accumulate.saturating_mul(batch / b).min(1_000_000);
        vec![format!("train.batch={b}"), format!("train.accumulate={accumulate}")]
    };
    let (mut all, mut strongest) = (Vec::new(), Vec::new());
    if M::ACCUMULATES && batch > 1 {
        let divisors = (1..batch).rev().filter(|b| batch.is_multiple_of(*b));
        all.push(Family { costs: "the same result", steps: divisors.map(parts).collect() });
        strongest = parts(1);
    } else if batch > 1 {
        all.push(Family::of("steps see fewer pictures", "train.batch", below(batch, 1)));
    }
    if train.recompute == Some(false) {
        let again = vec!["train.recompute=true".to_owned()];
        all.push(Family { costs: "the same result, about a third slower", steps: vec![again.clone()] });
        strongest.extend(again);
    }
    (all, strongest)
}

/// The cheapest changes, three at most, with which `fits` says that the run of `recipe` fits.
pub fn cheapest<M: Architecture, D: Section, S: Section>(
    recipe: &RecipeOf<M, D, S>,
    fits: &dyn Fn(&RecipeOf<M, D, S>) -> bool,
) -> Vec<Remedy> {
    let text = recipe.to_toml();
    let works =
        |set: &[String]| RecipeOf::from_toml(&text, Path::new("recipe"), set).is_ok_and(|changed| fits(&changed));
    let mildest = |family: &Family, beside: &[String]| {
        let all = |step: &Vec<String>| [&step[..], beside].concat();
        let first = family.steps.partition_point(|step| !works(&all(step)));
        family.steps.get(first).map(|step| Remedy { set: all(step), costs: family.costs })
    };
    let (same, strongest) = same(recipe);
    let smaller = recipe.model.smaller(&recipe.train);
    let mut found: Vec<Remedy> =
        same.iter().chain(&smaller).filter_map(|family| mildest(family, &[])).take(MOST).collect();
    if !found.is_empty() || strongest.is_empty() {
        return found;
    }
    // None by itself: together with what costs nothing.
    let parts = same.first().filter(|_| M::ACCUMULATES && recipe.train.recompute == Some(false) && same.len() == 2);
    if let Some(parts) = parts {
        found.extend(mildest(parts, &["train.recompute=true".to_owned()]));
    }
    for family in &smaller {
        if found.len() < MOST {
            found.extend(mildest(family, &strongest));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_numbers_fall_and_end() {
        assert_eq!(below(128, 4), [96, 64, 48, 32, 24, 16, 12, 8, 4]);
        assert_eq!(below(2, 1), [1]);
        assert!(below(1, 1).is_empty() && below(7, 8).is_empty());
    }

    #[test]
    fn a_remedy_reads_as_a_sentence() {
        let remedy = Remedy { set: ["a.b=1", "a.c=2", "a.d=3"].map(str::to_owned).to_vec(), costs: "nothing" };
        assert_eq!((remedy.key(), &*remedy.to_string()), ("a.b", "a.b=1 with a.c=2 and a.d=3 fits (nothing)"));
    }
}
