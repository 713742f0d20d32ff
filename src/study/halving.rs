//! Does successive halving find what a whole grid finds? Every setting of a grid is trained to its end, on a small GPT; the same grid is
//! then searched rung by rung, and by chance with the steps that this took.
//!
//! - **Right** is a setting whose loss is within 1 % of the least that any setting of the grid comes to.
//! - **Chance** trains as many settings of the grid to their end as the steps of halving allow, no two of them equal. What a trial
//!   comes to is a function of its setting alone, so it need not be trained again: the grid's table has it.

use super::{search, stopped};
use crate::error::Result;
use crate::sweep::{Outcome as Table, Search, Setting, Sweep, Watch, Work};
use serde::Serialize;
use std::path::Path;

/// The grid: learning rates from far too low to far too high, two optimizers, four widths.
pub const GRID: &str = include_str!("../../data/recipes/grid.toml");

/// Within this share of the least loss a setting counts as right.
const NEAR: f64 = 0.01;

/// What chance came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chance {
    /// Of the draw.
    pub seed: u64,
    /// The least loss of what was drawn.
    pub best: f64,
    /// How far it is above the grid's, as a share of that.
    pub above: f64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The settings of the grid, and those of them that are right.
    pub settings: [usize; 2],
    /// The best setting of the grid, as overrides of the recipe, and its loss.
    pub best: (Vec<String>, f64),
    /// Steps that the whole grid took.
    pub grid_steps: u64,
    /// The rungs of halving.
    pub rungs: Vec<u64>,
    /// Steps that it took.
    pub steps: u64,
    /// What it found, and the loss.
    pub found: (Vec<String>, f64),
    /// How far that is above the grid's best, as a share.
    pub above: f64,
    /// Settings that chance tries with the same steps.
    pub draws: usize,
    /// What it came to, for each of five seeds.
    pub chance: Vec<Chance>,
    /// The probability that it finds none that is right.
    pub misses: f64,
}

/// Does the study in `dir`, with so many trials side by side.
///
/// # Errors
/// As of [`run`](crate::sweep::run); a signal stopped it.
pub fn study(
    dir: &Path,
    set: &[String],
    work: &Work,
    told: &mut dyn FnMut(&str),
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    let mut named = |name: &str, kind: &str| -> Result<Table> {
        let own = [format!("sweep.name={name}"), format!("halving.kind={kind}")];
        let sweep = Sweep::from_toml(GRID, Path::new("data/recipes/grid.toml"), &[set, &own].concat())?;
        let found = search(dir, sweep, work, watch)?;
        stopped(found.stopped)?;
        Ok(found)
    };
    told("the whole grid, every setting to its end");
    let grid = named("grid", "none")?;
    told("the same grid, rung by rung");
    let halved = named("halving", "sync")?;

    let space = Sweep::from_toml(GRID, Path::new("data/recipes/grid.toml"), set)?.space()?;
    let values: Vec<(&Setting, f64)> = grid
        .trials
        .iter()
        .map(|trial| (&trial.setting, *trial.progress.values.last().expect("all ran to their end")))
        .collect();
    let of = |setting: &Setting| values.iter().find(|(other, _)| *other == setting).map_or(f64::INFINITY, |(_, v)| *v);
    let best = |settings: &mut dyn Iterator<Item = &Setting>| settings.map(of).fold(f64::INFINITY, f64::min);
    let least = best(&mut values.iter().map(|(setting, _)| *setting));
    let above = |value: f64| value / least - 1.0;
    let shown = |table: &Table| {
        let (trial, value) = table.best().expect("a trial came to something");
        (space.overrides(&table.trials[trial].setting), value)
    };
    let whole = *halved.rungs.last().expect("a run has an end");
    let right = values.iter().filter(|(_, value)| above(*value) <= NEAR).count();
    let draws = (halved.steps / whole) as usize;
    let chance = (1..=5).map(|seed| {
        let best = best(&mut Search::grid(&space, draws, seed)?.iter());
        Ok(Chance { seed, best, above: above(best) })
    });
    let found = shown(&halved);
    Ok(Outcome {
        settings: [values.len(), right],
        best: shown(&grid),
        grid_steps: grid.steps,
        steps: halved.steps,
        above: above(found.1),
        found,
        rungs: halved.rungs,
        draws,
        chance: chance.collect::<Result<Vec<_>>>()?,
        misses: missed(values.len(), right, draws),
    })
}

impl Outcome {
    /// Whether a loss so far above the least counts as right.
    pub fn is_right(above: f64) -> bool {
        above <= NEAR
    }
}

/// The probability that `draws` of `all` settings, no two equal, have none of the `right` ones.
fn missed(all: usize, right: usize, draws: usize) -> f64 {
    (0..draws).map(|drawn| all.saturating_sub(right + drawn) as f64 / (all - drawn) as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_misses_as_often_as_counting_says() {
        assert_eq!(missed(10, 0, 4), 1.0);
        assert_eq!(missed(10, 7, 4), 0.0);
        // Of the 6 pairs of 4 things 3 are without a given one.
        assert!((missed(4, 1, 2) - 0.5).abs() < 1e-12);
        assert!((missed(64, 1, 10) - 54.0 / 64.0).abs() < 1e-12);
    }

    #[test]
    fn the_grid_has_64_settings_and_a_quarter_goes_on() {
        let sweep = Sweep::from_toml(GRID, Path::new("grid.toml"), &[]).unwrap();
        let space = sweep.space().unwrap();
        assert_eq!(space.grid().unwrap().len(), 64);
        let halving = sweep.halving(&sweep.base().unwrap(), &space).unwrap();
        let per_rung = [64, 16, 4]
            .iter()
            .zip(0..)
            .map(|(n, rung)| n * halving.steps(crate::sweep::halving::Job { trial: 0, rung }));
        let share = per_rung.sum::<u64>() as f64 / (64 * halving.rungs[2]) as f64;
        assert!(halving.rungs.len() == 3 && share < 0.25, "{share}");
    }
}
