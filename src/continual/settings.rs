//! What `LINE/update.toml` says: `data/recipes/update.toml` names and explains every key.

use super::drift;
use crate::data::clean;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::settings::{Schema, range, require};
use crate::train::AnyRecipe;
use crate::train::tune::TUNE;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The default settings, as TOML with comments.
pub const UPDATE: &str = include_str!("../../data/recipes/update.toml");

const SCHEMA: Schema = Schema {
    default: UPDATE,
    optional: &[],
    free: &[],
    file: "data/recipes/update.toml",
    example: "gate.max_worse=0.05",
};

/// Settings are written by hand.
const MAX_FILE: u64 = 1 << 20;

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub watch: Watched,
    pub clean: Cleaned,
    pub learn: Learn,
    pub gate: Gated,
}

/// `[watch]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Watched {
    pub windows: Vec<usize>,
    pub every: usize,
    pub false_alarms: f64,
    pub horizon: usize,
    pub bins: usize,
    pub loss: bool,
    pub least: usize,
    pub poll: u64,
}

/// `[clean]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Cleaned {
    pub set: Vec<String>,
}

/// `[learn]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Learn {
    pub set: Vec<String>,
    pub held: f64,
    pub replay: usize,
    pub seed: u64,
}

/// `[gate]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Gated {
    pub kept: f64,
    pub better: bool,
    pub max_worse: f64,
    pub max_surprise: f64,
    pub max_members: f64,
    pub documents: usize,
    pub policy: PathBuf,
    pub limit: usize,
    pub world: u64,
}

impl Settings {
    /// Those of the file `path` over the default, under `overrides`; the default where there is no such file.
    ///
    /// # Errors
    /// It cannot be read; a key is unknown, or a value of the wrong type or out of its range.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Settings> {
        let text = if path.is_file() { disk::text(&Os, path, MAX_FILE)? } else { String::new() };
        let settings: Settings = SCHEMA.parse(&text, path, overrides)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        let Settings { watch, clean, learn, gate } = self;
        for &window in &watch.windows {
            range("watch.windows", window, 10..=1_000_000)?;
        }
        range("watch.every", watch.every, 1..=1_000_000)?;
        range("watch.bins", watch.bins, 2..=1_000_000)?;
        range("watch.least", watch.least, 20..=100_000_000)?;
        range("watch.poll", watch.poll as usize, 1..=86_400)?;
        require(learn.held > 0.0 && learn.held <= 0.5, "learn.held", learn.held, "above 0, and 0.5 at most")?;
        require((0.0..=1.0).contains(&gate.kept), "gate.kept", gate.kept, "0 to 1")?;
        let bounds = [
            ("gate.max_worse", gate.max_worse),
            ("gate.max_surprise", gate.max_surprise),
            ("gate.max_members", gate.max_members),
        ];
        for (key, value) in bounds {
            require(value.is_finite() && value >= 0.0, key, value, "a finite number, 0 or more")?;
        }
        range("gate.documents", gate.documents, 20..=1_000_000)?;
        range("gate.limit", gate.limit, 1..=1_000_000)?;
        // What these say is found out now, not at night.
        clean::Recipe::load(None, &clean.set)?;
        AnyRecipe::load(
            None,
            TUNE,
            &[&learn.set[..], &["model.base='.'".to_owned(), "data.path='.'".to_owned()]].concat(),
        )?;
        Ok(())
    }

    /// How a detector looks.
    pub(super) fn drift(&self) -> drift::Settings {
        let Watched { windows, every, false_alarms, horizon, bins, .. } = self.watch.clone();
        drift::Settings {
            windows,
            every,
            false_alarms,
            horizon,
            bins,
            seed: self.learn.seed,
            ..drift::Settings::default()
        }
    }
}
