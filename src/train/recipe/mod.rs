//! Recipes: everything that decides a run, in TOML.
//!
//! The file `data/recipes/village.toml` is the default and names every key. Another recipe is laid over it key by key,
//! then each `--set key=value` ([`Schema`] does that); what results is checked as a whole and written to the run directory.

mod model;
mod optim;

pub use model::{Activation, Model, ModelKind, RopeScaling};
pub use optim::{Optim, OptimKind};

use super::schedule::Schedule;
use crate::cpu::gemm::Precision;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{Error, Result};
use crate::settings::{Schema, positive, range, require};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The default recipe, as TOML with comments.
pub const VILLAGE: &str = include_str!("../../../data/recipes/village.toml");

/// Recipes are written by hand.
const MAX_FILE: u64 = 1 << 20;

/// The most steps of a run.
pub const MAX_STEPS: u64 = 1_000_000_000;

/// How a recipe is read, with the keys that the default leaves out because they have none.
const SCHEMA: Schema = Schema {
    default: VILLAGE,
    optional: &[
        "model.hidden",
        "model.bias",
        "model.tied",
        "model.activation",
        "model.kv_heads",
        "model.rope_theta",
        "model.rope_scaling",
        "data.path",
        "optim.muon_lr",
        "eval.max_batches",
    ],
    file: "data/recipes/village.toml",
    example: "train.steps=100",
};

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where the run is stored.
    pub run: Run,
    /// What is trained.
    pub model: Model,
    /// What it is trained on.
    pub data: Data,
    /// For how long, and in what portions.
    pub train: Train,
    /// How weights follow gradients.
    pub optim: Optim,
    /// What is done when steps go wrong.
    pub guard: Guard,
    /// How it is judged.
    pub eval: Eval,
    /// What it writes on the way.
    pub sample: Sample,
}

/// `[run]`: the run directory is `dir/name`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The name, one part of a path.
    pub name: String,
    /// The folder of runs.
    pub dir: PathBuf,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Files, folders, shards or data sets; absent: the built-in world.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub path: Option<Vec<PathBuf>>,
    /// How text becomes tokens.
    pub tokenizer: TokenizerChoice,
    /// Token ids of a BPE tokenizer that is trained on the data.
    pub vocab: usize,
    /// Bytes of the built-in corpus.
    pub bytes: u64,
    /// Seed of the built-in corpus and of the split.
    pub seed: u64,
    /// Share of the text that is held out.
    pub val_fraction: f64,
    /// What is held out.
    pub split: SplitRule,
    /// The field of `.jsonl` files that holds the text.
    pub text_field: String,
}

/// `data.tokenizer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TokenizerChoice {
    /// Byte-level byte-pair encoding, trained on the data.
    Bpe,
    /// The characters of the data.
    Char,
    /// Bytes.
    Byte,
    /// A `tokenizer.json`.
    File(PathBuf),
}

impl From<String> for TokenizerChoice {
    fn from(name: String) -> TokenizerChoice {
        match name.as_str() {
            "bpe" => TokenizerChoice::Bpe,
            "char" => TokenizerChoice::Char,
            "byte" => TokenizerChoice::Byte,
            _ => TokenizerChoice::File(name.into()),
        }
    }
}

impl From<TokenizerChoice> for String {
    fn from(choice: TokenizerChoice) -> String {
        match choice {
            TokenizerChoice::Bpe => "bpe".into(),
            TokenizerChoice::Char => "char".into(),
            TokenizerChoice::Byte => "byte".into(),
            TokenizerChoice::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// `data.split`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitRule {
    /// Whole documents.
    Document,
    /// The end of the text.
    Tail,
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Updates of the weights.
    pub steps: u64,
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Tokens in a sequence.
    pub context: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Whether blocks keep their inputs only and are run again in the backward pass; see [`Tape`](crate::tape).
    pub recompute: bool,
    /// Seed of initial weights, batch order and dropout.
    pub seed: u64,
    /// What linear layers and attention round the operands of their products to; weights, and all else, are f32.
    pub precision: Precision,
    /// Steps between evaluations; 0: at the end only.
    pub eval_every: u64,
    /// Steps between checkpoints; 0: at the end only.
    pub checkpoint_every: u64,
    /// Steps between samples; 0: none.
    pub sample_every: u64,
    /// Checkpoints that are kept: this many last ones, and the best one.
    pub keep: usize,
}

/// `[guard]`: see [`guard`](super::guard), where the words are defined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Bad steps in a row after which the run goes back.
    pub max_bad_steps: u64,
    /// Losses that say what is normal.
    pub spike_window: usize,
    /// A loss is high that is this many robust deviations above their median.
    pub spike_deviations: f64,
    /// High losses in a row after which the run goes back; 0: it never does for that.
    pub spike_steps: u64,
    /// How often the run goes back without getting past the step that made it, before it ends.
    pub max_rewinds: u64,
}

/// `[eval]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// At most this many batches; absent: the whole validation part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batches: Option<usize>,
}

/// `[sample]`: what the model writes while it trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What it goes on from; empty: the start of a document.
    pub prompt: String,
    /// How many tokens at most.
    pub tokens: usize,
    /// Divides the logits; 0: the likeliest token always.
    pub temperature: f32,
    /// Among this many of the likeliest tokens; 0: among all.
    pub top_k: usize,
    /// Among the likeliest tokens that have this probability together; 1: among all.
    pub top_p: f32,
}

impl Default for Recipe {
    /// The built-in village.
    fn default() -> Recipe {
        toml::from_str(VILLAGE).expect("the embedded recipe is complete; a test loads it")
    }
}

impl Recipe {
    /// The recipe in `file` over the default one, then `overrides` (each `key=value`, the value in TOML or plain text),
    /// checked.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML; an unknown key, with the nearest known one; a value of the wrong type
    /// or outside its range.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Recipe> {
        let text = match file {
            Some(path) => disk::text(&Os, path, MAX_FILE)?,
            None => String::new(),
        };
        Recipe::from_toml(&text, file.unwrap_or(Path::new("recipe")), overrides)
    }

    /// As [`load`](Recipe::load), from the text of a recipe; `file` names it in messages.
    pub fn from_toml(text: &str, file: &Path, overrides: &[String]) -> Result<Recipe> {
        let recipe = SCHEMA.parse::<Recipe>(text, file, overrides)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Writes all keys to `path`, atomically; [`load`](Recipe::load) gives the same recipe again.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        write_atomic(disk, path, self.to_toml().as_bytes())
    }

    /// All keys, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every value of a recipe has a form in TOML")
    }

    /// The learning rate's course.
    pub fn schedule(&self) -> Schedule {
        let Optim { schedule: shape, lr, min_lr, warmup, decay_steps, .. } = self.optim;
        Schedule { shape, lr, min_lr, steps: self.train.steps, warmup, decay_steps }
    }

    /// Tokens in one step.
    pub fn tokens_per_step(&self) -> u64 {
        self.train.batch as u64 * self.train.context as u64 * self.train.accumulate as u64
    }

    /// Checks every value's range, and the values that must fit one another.
    pub fn validate(&self) -> Result<()> {
        let Recipe { run, model, data, train, optim, guard, eval, sample } = self;
        let name = &run.name;
        require(
            !name.is_empty()
                && name.len() <= 200
                && !name.starts_with('.')
                && !name.contains(['/', '\\'])
                && !name.contains(char::is_control),
            "run.name",
            name,
            "one part of a path, of at most 200 bytes, not starting with a dot; the folder above it is run.dir",
        )?;
        model.validate()?;
        if data.tokenizer == TokenizerChoice::Bpe {
            range("data.vocab", data.vocab, 257..=1_000_000)?;
        }
        if data.path.is_none() {
            range("data.bytes", data.bytes, 10_000..=100_000_000_000)?;
        }
        if data.path.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("data.path", "the list is empty", "name files, or leave the key out"));
        }
        let all = [&run.dir].into_iter().chain(data.path.iter().flatten());
        if let Some(path) = all.into_iter().find(|path| path.to_str().is_none()) {
            let problem = format!("{} is not UTF-8, so no recipe can name it", path.display());
            return Err(Error::config("data.path", problem, "rename the file, or give a link to it"));
        }
        require(
            data.val_fraction > 0.0 && data.val_fraction < 1.0,
            "data.val_fraction",
            data.val_fraction,
            "between 0 and 1, as 0.05",
        )?;
        range("train.steps", train.steps, 1..=MAX_STEPS)?;
        range("train.batch", train.batch, 1..=1_000_000)?;
        range("train.context", train.context, 1..=1_000_000)?;
        range("train.accumulate", train.accumulate, 1..=1_000_000)?;
        range("train.keep", train.keep, 1..=1_000_000)?;
        optim.validate()?;
        range("guard.max_bad_steps", guard.max_bad_steps, 1..=1_000_000)?;
        range("guard.spike_window", guard.spike_window, 8..=10_000)?;
        positive("guard.spike_deviations", guard.spike_deviations)?;
        range("guard.spike_steps", guard.spike_steps, 0..=1_000_000)?;
        range("guard.max_rewinds", guard.max_rewinds, 0..=1_000_000)?;
        if let Some(batches) = eval.max_batches {
            range("eval.max_batches", batches, 1..=usize::MAX)?;
        }
        range("sample.tokens", sample.tokens, 0..=1_000_000)?;
        let temperature = sample.temperature;
        let fine = temperature.is_finite() && temperature >= 0.0;
        require(fine, "sample.temperature", temperature, "a finite number, 0 or more")?;
        require(sample.top_p > 0.0 && sample.top_p <= 1.0, "sample.top_p", sample.top_p, "above 0, at most 1")
    }
}

/// One path, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    struct Paths;
    impl<'de> Visitor<'de> for Paths {
        type Value = Vec<PathBuf>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a path or a list of paths")
        }
        fn visit_str<E>(self, path: &str) -> Result<Vec<PathBuf>, E> {
            Ok(vec![path.into()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, paths: A) -> Result<Vec<PathBuf>, A::Error> {
            Deserialize::deserialize(SeqAccessDeserializer::new(paths))
        }
    }
    from.deserialize_any(Paths).map(Some)
}

#[cfg(test)]
mod tests;
