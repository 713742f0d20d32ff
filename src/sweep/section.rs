//! `sweep.toml`.

use super::halving::{Halving, Kind};
use super::search::Search;
use super::space::{Space, dotted};
use crate::error::{Error, Result};
use crate::settings::{Schema, positive, range, require};
use crate::train::AnyRecipe;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::Table;

/// The default sweep, as TOML with comments: all but what is searched.
pub const SWEEP: &str = include_str!("../../data/recipes/sweep.toml");

/// How it is read.
const SCHEMA: Schema = Schema {
    default: SWEEP,
    optional: &["sweep.recipe", "budget.steps", "budget.minutes", "budget.money"],
    free: &["set", "space"],
    file: "data/recipes/sweep.toml",
    example: "sweep.trials=8",
};

/// All settings of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// What is searched how.
    pub sweep: Main,
    /// Who goes on.
    pub halving: Rungs,
    /// When it ends in any case.
    pub budget: Budget,
    /// What all trials have, over the recipe.
    pub set: Table,
    /// The [`Space`].
    pub space: Table,
}

/// `[sweep]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Main {
    /// The name, one part of a path.
    pub name: String,
    /// The folder that the sweep's directory is made in.
    pub dir: PathBuf,
    /// What every trial starts from; absent: the village.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// Which setting is tried next.
    pub search: Search,
    /// How many settings.
    pub trials: usize,
    /// Of the search.
    pub seed: u64,
    /// The number of `metrics.jsonl` that is to be low.
    pub metric: String,
    /// Processes side by side.
    pub workers: usize,
    /// Trials that keep their checkpoints in the end.
    pub keep: usize,
}

/// `[halving]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rungs {
    /// How it is decided.
    pub kind: Kind,
    /// Steps of the first rung.
    pub first: u64,
    /// One in so many goes on, to so many times the steps.
    pub factor: usize,
}

/// `[budget]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Steps of all trials together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Minutes that trials take, side by side where there are several workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// In the price's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
    /// An hour of the machine.
    pub price: f64,
}

impl Sweep {
    /// The sweep in `text`, which is in `file`, over the default, under `overrides`; checked.
    ///
    /// # Errors
    /// No TOML; an unknown key; a value of the wrong type or out of range.
    pub fn from_toml(text: &str, file: &Path, overrides: &[String]) -> Result<Sweep> {
        let sweep: Sweep = SCHEMA.parse(text, file, overrides)?;
        let Sweep { sweep: main, halving, budget, .. } = &sweep;
        let name = &main.name;
        require(
            !name.is_empty()
                && !name.starts_with('.')
                && !name.contains(['/', '\\'])
                && !name.contains(char::is_control),
            "sweep.name",
            name,
            "one part of a path, not starting with a dot; the folder above it is sweep.dir",
        )?;
        let least = usize::from(main.search != Search::Grid);
        range("sweep.trials", main.trials, least..=100_000)?;
        range("sweep.workers", main.workers, 1..=1024)?;
        range("sweep.keep", main.keep, 1..=100_000)?;
        range("halving.first", halving.first, 1..=crate::train::recipe::MAX_STEPS)?;
        range("halving.factor", halving.factor, 2..=1000)?;
        positive("budget.price", budget.price)?;
        for (key, value) in [("budget.minutes", budget.minutes), ("budget.money", budget.money)] {
            value.map_or(Ok(()), |value| positive(key, value))?;
        }
        Ok(sweep)
    }

    /// What is searched.
    ///
    /// # Errors
    /// As of [`Space::parse`].
    pub fn space(&self) -> Result<Space> {
        Space::parse(&self.space)
    }

    /// What all trials have over the recipe.
    ///
    /// # Errors
    /// A key without a section.
    pub fn overrides(&self) -> Result<Vec<String>> {
        Ok(dotted("set", &self.set)?.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
    }

    /// The recipe that every trial starts from.
    ///
    /// # Errors
    /// As of [`AnyRecipe::load`].
    pub fn base(&self) -> Result<AnyRecipe> {
        AnyRecipe::load(self.sweep.recipe.as_deref(), "", &self.overrides()?)
    }

    /// Whether all trials have a value for this key.
    pub fn sets(&self, key: &str) -> Result<bool> {
        Ok(dotted("set", &self.set)?.iter().any(|(set, _)| set == key))
    }

    /// How far trials of `base` run.
    ///
    /// # Errors
    /// The recipe does not say how many steps a run has; the space says it.
    pub fn halving(&self, base: &AnyRecipe, space: &Space) -> Result<Halving> {
        if space.axes.iter().any(|axis| axis.key == "train.steps") {
            let problem = "trials are compared after the same number of steps";
            return Err(Error::config("space.train.steps", problem, "set train.steps below [set]"));
        }
        let steps = base.train().steps;
        require(steps > 0, "train.steps", steps, "how many steps a whole trial has, below [set]")?;
        let Rungs { kind, first, factor } = self.halving;
        Ok(Halving::new(kind, first, factor, steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(text: &str) -> Result<Sweep> {
        Sweep::from_toml(text, Path::new("s.toml"), &[])
    }

    #[test]
    fn a_sweep_is_what_the_default_and_a_file_say_and_survives_being_written() {
        let text = "[sweep]\nsearch = \"tpe\"\n[set]\ntrain.steps = 90\n\"optim.warmup\" = 5\n[space]\noptim.lr = { from = 1e-4, to = 1e-2 }";
        let found = sweep(text).unwrap();
        assert_eq!((found.sweep.search, found.sweep.trials), (Search::Tpe, 16));
        assert!(
            found.sets("optim.warmup").unwrap() && found.sets("train.steps").unwrap() && !found.sets("x.y").unwrap()
        );
        assert_eq!(found.base().unwrap().train().steps, 90);
        assert_eq!(sweep(&crate::settings::to_toml(&found)).unwrap(), found);
        let set = ["sweep.workers=2".to_owned(), "budget.steps=10".into(), "space.optim.kind=[\"muon\"]".into()];
        let found = Sweep::from_toml(text, Path::new("s.toml"), &set).unwrap();
        assert_eq!((found.sweep.workers, found.budget.steps, found.space().unwrap().axes.len()), (2, Some(10), 2));
        // An override replaces a key, however the file writes it.
        let set = ["set.train.steps=70".to_owned(), "set.optim.warmup=6".into(), "space.optim.lr=[0.1]".into()];
        let found = Sweep::from_toml(text, Path::new("s.toml"), &set).unwrap();
        assert_eq!(found.overrides().unwrap(), ["optim.warmup=6", "train.steps=70"]);
        assert_eq!(found.space().unwrap().axes.len(), 1);
        let twice = sweep("[set]\ntrain.steps = 90\n\"train.steps\" = 80").unwrap().overrides();
        assert!(twice.unwrap_err().to_string().contains("set.train.steps: it is there twice"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, key) in [
            ("[sweep]\ntrial = 3", "sweep.trial"),
            ("[sweep]\ntrials = 0", "sweep.trials"),
            ("[sweep]\nworkers = 0", "sweep.workers"),
            ("[sweep]\nname = \"a/b\"", "sweep.name"),
            ("[sweep]\nsearch = \"best\"", "sweep.search"),
            ("[halving]\nfactor = 1", "halving.factor"),
            ("[budget]\nminutes = -1.0", "budget.minutes"),
            ("[spaces]\nx = 1", "spaces"),
        ] {
            match sweep(text) {
                Err(Error::Config { key: found, hint, .. }) => assert_eq!(found, key, "{hint}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(sweep("[sweep]\nsearch = \"grid\"\ntrials = 0").is_ok());
        let steps = sweep("[space]\ntrain.steps = [1, 2]").unwrap();
        assert!(steps.halving(&steps.base().unwrap(), &steps.space().unwrap()).is_err());
    }
}
