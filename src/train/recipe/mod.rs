//! Recipes: everything that decides a run, in TOML.
//!
//! What is trained decides which keys there are: [`RecipeOf`] has the sections that all runs share, and three that differ.
//! A default names every key: for text `data/recipes/village.toml`. Another recipe is laid over it key by key, then each
//! `--set key=value` ([`Schema`] does that); what results is checked as a whole and written to the run directory.

mod dp;
mod model;
mod optim;

pub use dp::Dp;
pub use model::{Activation, Model, ModelKind, RopeScaling};
pub use optim::{Optim, OptimKind};

use super::fit::Family;
use super::schedule::Schedule;
use crate::cpu::gemm::Precision;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{Error, Result};
use crate::settings::{self, Schema, positive, range, require};
use serde::de::{DeserializeOwned, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The default recipe, as TOML with comments.
pub const VILLAGE: &str = include_str!("../../../data/recipes/village.toml");

/// Recipes are written by hand.
pub const MAX_FILE: u64 = 1 << 20;

/// The most steps of a run.
pub const MAX_STEPS: u64 = 1_000_000_000;

/// How a recipe for text is read, with the keys that the default leaves out because they have none.
const TEXT: Schema = Schema {
    default: VILLAGE,
    optional: &[
        "model.hidden",
        "model.base_d",
        "model.bias",
        "model.tied",
        "model.activation",
        "model.kv_heads",
        "model.rope_theta",
        "model.rope_scaling",
        "data.path",
        "optim.muon_lr",
        "optim.dp",
        "eval.max_batches",
    ],
    free: &[],
    file: "data/recipes/village.toml",
    example: "train.steps=100",
};

/// All settings of a run: of models M, on data D, which write samples S.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeOf<M, D, S> {
    /// Where the run is stored.
    pub run: Run,
    /// What is trained.
    pub model: M,
    /// What it is trained on.
    pub data: D,
    /// For how long, and in what portions.
    pub train: Train,
    /// How weights follow gradients.
    pub optim: Optim,
    /// What is done when steps go wrong.
    pub guard: Guard,
    /// How it is judged.
    pub eval: Eval,
    /// What it writes on the way.
    pub sample: S,
}

/// A recipe for text.
pub type Recipe = RecipeOf<Model, Data, Sample>;

/// A section of a recipe that is not the same for all models.
pub trait Section: Clone + Serialize + DeserializeOwned {
    /// Checks every value's range, and that they fit one another and `train`.
    ///
    /// # Errors
    /// One of them does not; the error names its key.
    fn check(&self, train: &Train) -> Result<()>;

    /// The keys that a run which goes on keeps, with their values: its weights and its data hang on them.
    fn fixed(&self, train: &Train) -> Vec<(&'static str, String)>;

    /// Refuses a section that names nothing to learn from, where that is needed.
    ///
    /// # Errors
    /// It names nothing; the error has the key.
    fn given(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses what private training (`[optim.dp]`) cannot account for.
    ///
    /// # Errors
    /// There is such a thing; the error names its key.
    fn private(&self) -> Result<()> {
        Ok(())
    }
}

/// `[model]`, which says how the rest is read.
pub trait Architecture: Section {
    /// The keys of its recipes.
    const SCHEMA: Schema;
    /// The least `train.steps`: 0 where something else says how long a run is.
    const LEAST_STEPS: u64 = 1;
    /// Whether a batch may be cut into micro-batches.
    const ACCUMULATES: bool = true;

    /// [`SCHEMA`](Architecture::SCHEMA), or that of recipes of this `model.kind`, where it has a default of its own.
    fn schema(kind: Option<&str>) -> Schema {
        let _ = kind;
        Self::SCHEMA
    }

    /// Whether it learns from the data of the recipe.
    fn reads(&self) -> bool {
        true
    }

    /// What makes a run smaller and its model another one, the cheapest first; `train` may be meant as well.
    fn smaller(&self, train: &Train) -> Vec<Family>;
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
    /// Sequences, or pictures, in a micro-batch.
    pub batch: usize,
    /// Tokens in a sequence; of text alone.
    #[serde(default, skip_serializing_if = "is_none")]
    pub context: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Whether blocks keep their inputs only and are run again in the backward pass; see [`Tape`](crate::tape). Of text
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute: Option<bool>,
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

/// `model.kind` of a recipe with overrides; `None` where nothing says it, as in what is no TOML.
pub(super) fn kind(text: &str, overrides: &[String]) -> Option<String> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let own = table.get("model").and_then(|model| model.get("kind")?.as_str()).map(str::to_owned);
    let set = overrides.iter().rev().find_map(|set| {
        let (key, value) = set.split_once('=')?;
        (key.trim() == "model.kind").then(|| value.trim().trim_matches('"').to_owned())
    });
    set.or(own)
}

impl Default for Recipe {
    /// The built-in village.
    fn default() -> Recipe {
        TEXT.parse("", Path::new("recipe"), &[]).expect("the embedded recipe is complete; a test loads it")
    }
}

impl<M: Architecture, D: Section, S: Section> RecipeOf<M, D, S> {
    /// The recipe in `file` over the default one, then `overrides` (each `key=value`, the value in TOML or plain text),
    /// checked.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML; an unknown key, with the nearest known one; a value of the wrong type
    /// or outside its range.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self> {
        let text = match file {
            Some(path) => disk::text(&Os, path, MAX_FILE)?,
            None => String::new(),
        };
        Self::from_toml(&text, file.unwrap_or(Path::new("recipe")), overrides)
    }

    /// As [`load`](RecipeOf::load), from the text of a recipe; `file` names it in messages.
    pub fn from_toml(text: &str, file: &Path, overrides: &[String]) -> Result<Self> {
        let schema = M::schema(kind(text, overrides).as_deref());
        let recipe = schema.parse::<Self>(text, file, overrides)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe of an existing run, with overrides that it can go on with.
    ///
    /// # Errors
    /// There is no run; as of [`load`](RecipeOf::load); weights or data hang on what is overridden.
    pub fn of_run(run: &Path, overrides: &[String]) -> Result<Self> {
        let path = run.join("recipe.toml");
        if !path.is_file() {
            let source =
                std::io::Error::new(std::io::ErrorKind::NotFound, "no run is here (it would have a recipe.toml)");
            let hint = "give the directory that an earlier run printed, as runs/village".to_owned();
            return Err(Error::Io { path: run.to_owned(), source, hint });
        }
        let recipe = Self::load(Some(&path), overrides)?;
        if !overrides.is_empty() {
            recipe.continues(&Self::load(Some(&path), &[])?)?;
        }
        Ok(recipe)
    }

    /// Writes all keys to `path`, atomically; [`load`](RecipeOf::load) gives the same recipe again.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        write_atomic(disk, path, self.to_toml().as_bytes())
    }

    /// All keys, as TOML.
    pub fn to_toml(&self) -> String {
        settings::to_toml(self)
    }

    /// Checks every value's range, and the values that must fit one another.
    pub fn validate(&self) -> Result<()> {
        let RecipeOf { run, model, data, train, optim, guard, eval, sample } = self;
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
        model.check(train)?;
        utf8(&run.dir)?;
        if model.reads() {
            data.given()?;
        }
        data.check(train)?;
        range("train.steps", train.steps, M::LEAST_STEPS..=MAX_STEPS)?;
        range("train.batch", train.batch, 1..=1_000_000)?;
        range("train.accumulate", train.accumulate, 1..=1_000_000)?;
        range("train.keep", train.keep, 1..=1_000_000)?;
        optim.validate()?;
        if optim.dp.is_some() {
            data.private()?;
        }
        range("guard.max_bad_steps", guard.max_bad_steps, 1..=1_000_000)?;
        range("guard.spike_window", guard.spike_window, 8..=10_000)?;
        positive("guard.spike_deviations", guard.spike_deviations)?;
        range("guard.spike_steps", guard.spike_steps, 0..=1_000_000)?;
        range("guard.max_rewinds", guard.max_rewinds, 0..=1_000_000)?;
        if let Some(batches) = eval.max_batches {
            range("eval.max_batches", batches, 1..=usize::MAX)?;
        }
        sample.check(train)
    }
}

impl<M: Section, D: Section, S: Section> RecipeOf<M, D, S> {
    /// Refuses changes to what the weights and the data of a run hang on; `was` is the run's own recipe.
    pub(super) fn continues(&self, was: &Self) -> Result<()> {
        let fixed = |r: &Self| {
            let own = [("run.name", r.run.name.clone()), ("run.dir", r.run.dir.display().to_string())];
            let dp = r.optim.dp.map_or("absence".to_owned(), |dp| serde_json::to_string(&dp).expect("plain data"));
            let mut optim = vec![("optim.kind", format!("{:?}", r.optim.kind)), ("optim.dp", dp)];
            // The noise was chosen for so many steps.
            let chosen = r.optim.dp.is_some_and(|dp| dp.epsilon.is_some());
            optim.extend(chosen.then(|| ("train.steps", r.train.steps.to_string())));
            let sections = [r.model.fixed(&r.train), r.data.fixed(&r.train), r.sample.fixed(&r.train)];
            own.into_iter().chain(sections.into_iter().flatten()).chain(optim).collect::<Vec<_>>()
        };
        for ((key, was), (_, is)) in fixed(was).into_iter().zip(fixed(self)) {
            if was != is {
                let problem = match key {
                    "optim.dp" | "train.steps" => format!("a private run that goes on keeps its {was}, not {is}"),
                    _ => format!("a run that goes on keeps its {was}; {is} is another model, optimizer or data"),
                };
                return Err(Error::config(key, problem, "leave it out, or start a new run without --resume"));
            }
        }
        Ok(())
    }
}

impl<M, D, S> RecipeOf<M, D, S> {
    /// The learning rate's course.
    pub fn schedule(&self) -> Schedule {
        let Optim { schedule: shape, lr, min_lr, warmup, decay_steps, .. } = self.optim;
        Schedule { shape, lr, min_lr, steps: self.train.steps, warmup, decay_steps }
    }

    /// Tokens, or pictures, in one step.
    pub fn per_step(&self) -> u64 {
        self.train.per_step()
    }
}

impl Train {
    /// Tokens, or pictures, in one step.
    pub fn per_step(&self) -> u64 {
        self.batch as u64 * self.context.max(1) as u64 * self.accumulate as u64
    }
}

impl Section for Data {
    fn check(&self, train: &Train) -> Result<()> {
        if self.tokenizer == TokenizerChoice::Bpe {
            range("data.vocab", self.vocab, 257..=1_000_000)?;
        }
        if self.path.is_none() {
            range("data.bytes", self.bytes, 10_000..=100_000_000_000)?;
        }
        paths(&self.path)?;
        let share = self.val_fraction;
        require(share > 0.0 && share < 1.0, "data.val_fraction", share, "between 0 and 1, as 0.05")?;
        range("train.context", train.context, 1..=1_000_000)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("data.tokenizer", self.tokenizer.clone().into()),
            ("data.vocab", self.vocab.to_string()),
            ("data.bytes", self.bytes.to_string()),
            ("data.seed", self.seed.to_string()),
            ("data.val_fraction", self.val_fraction.to_string()),
            ("data.split", format!("{:?}", self.split)),
        ]
    }
}

impl Section for Sample {
    fn check(&self, _: &Train) -> Result<()> {
        range("sample.tokens", self.tokens, 0..=1_000_000)?;
        let temperature = self.temperature;
        let fine = temperature.is_finite() && temperature >= 0.0;
        require(fine, "sample.temperature", temperature, "a finite number, 0 or more")?;
        require(self.top_p > 0.0 && self.top_p <= 1.0, "sample.top_p", self.top_p, "above 0, at most 1")
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Checks `data.path`.
pub(in crate::train) fn paths(path: &Option<Vec<PathBuf>>) -> Result<()> {
    if path.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::config("data.path", "the list is empty", "name files, or leave the key out"));
    }
    path.iter().flatten().try_for_each(|path| utf8(path))
}

fn utf8(path: &Path) -> Result<()> {
    if path.to_str().is_some() {
        return Ok(());
    }
    let problem = format!("{} is not UTF-8, so no recipe can name it", path.display());
    Err(Error::config("data.path", problem, "rename the file, or give a link to it"))
}

fn is_none(n: &usize) -> bool {
    *n == 0
}

/// One path, or a list of them.
pub(in crate::train) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
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
