//! Recipes: everything that decides a run, in TOML.
//!
//! The file `data/recipes/village.toml` is the default and names every key. Another recipe is laid over it key by key,
//! then each `--set key=value`; what results is checked as a whole and written to the run directory.

use super::schedule::{Schedule, Shape};
use crate::error::{AtPath, Error, Result};
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The default recipe, as TOML with comments.
pub const VILLAGE: &str = include_str!("../../data/recipes/village.toml");

/// The keys that the default recipe leaves out, because they have no default.
const OPTIONAL: [&str; 2] = ["data.path", "eval.max_batches"];

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

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The architecture.
    pub kind: ModelKind,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads in a block; divides `d`.
    pub heads: usize,
    /// Width of the residual stream.
    pub d: usize,
    /// Whether linear layers and norms have biases.
    pub bias: bool,
    /// The nonlinearity of the MLP.
    pub activation: Activation,
    /// Probability with which an activation is dropped in training.
    pub dropout: f32,
}

/// `model.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// LayerNorm before each part, learned positions, GELU, head tied to the token embedding.
    Gpt2,
}

/// `model.activation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by erf.
    Gelu,
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
    /// Seed of initial weights, batch order and dropout.
    pub seed: u64,
    /// The dtype of activations and weights.
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

/// `train.precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
}

/// `[optim]`: AdamW and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optim {
    /// The highest learning rate.
    pub lr: f64,
    /// The learning rate of the last step.
    pub min_lr: f64,
    /// The form of the decay.
    pub schedule: Shape,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Last steps, in which [`Shape::Wsd`] decays.
    pub decay_steps: u64,
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the gradient's running mean square.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether embeddings decay too.
    pub decay_embeddings: bool,
    /// The gradient's norm is scaled down to this; 0: not at all.
    pub clip: f64,
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
            Some(path) => std::fs::read_to_string(path).at(path)?,
            None => String::new(),
        };
        let recipe = parse(&text, file.unwrap_or(Path::new("recipe")), overrides)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Writes all keys to `path`; [`load`](Recipe::load) gives the same recipe again.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_toml()).at(path)
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
        let Recipe { run, model, data, train, optim, eval, sample } = self;
        let name = &run.name;
        require(
            !name.is_empty()
                && !name.starts_with('.')
                && !name.contains(['/', '\\'])
                && !name.contains(char::is_control),
            "run.name",
            name,
            "one part of a path, not starting with a dot; the folder above it is run.dir",
        )?;
        range("model.layers", model.layers, 1..=1024)?;
        range("model.heads", model.heads, 1..=1024)?;
        range("model.d", model.d, 1..=65_536)?;
        if !model.d.is_multiple_of(model.heads) {
            let down = (model.d / model.heads).max(1) * model.heads;
            let problem = format!("a width of {} cannot be divided among {} heads", model.d, model.heads);
            return Err(Error::config("model.d", problem, format!("try model.d = {down} or {}", down + model.heads)));
        }
        require((0.0..1.0).contains(&model.dropout), "model.dropout", model.dropout, "a number from 0 to below 1")?;
        if data.tokenizer == TokenizerChoice::Bpe {
            range("data.vocab", data.vocab, 257..=1_000_000)?;
        }
        if data.path.is_none() {
            range("data.bytes", data.bytes, 10_000..=100_000_000_000)?;
        }
        if data.path.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("data.path", "the list is empty", "name files, or leave the key out"));
        }
        require(
            data.val_fraction > 0.0 && data.val_fraction < 1.0,
            "data.val_fraction",
            data.val_fraction,
            "between 0 and 1, as 0.05",
        )?;
        range("train.steps", train.steps, 1..=1_000_000_000)?;
        range("train.batch", train.batch, 1..=1_000_000)?;
        range("train.context", train.context, 1..=1_000_000)?;
        range("train.accumulate", train.accumulate, 1..=1_000_000)?;
        range("train.keep", train.keep, 1..=1_000_000)?;
        if train.precision == Precision::Bf16 {
            let hint = "set train.precision = \"f32\"";
            return Err(Error::config("train.precision", "training in bf16 is not there yet", hint));
        }
        positive("optim.lr", optim.lr)?;
        require(
            optim.min_lr >= 0.0 && optim.min_lr <= optim.lr,
            "optim.min_lr",
            optim.min_lr,
            format!("from 0 to optim.lr, which is {}", optim.lr),
        )?;
        require((0.0..1.0).contains(&optim.beta1), "optim.beta1", optim.beta1, "a number from 0 to below 1")?;
        require((0.0..1.0).contains(&optim.beta2), "optim.beta2", optim.beta2, "a number from 0 to below 1")?;
        positive("optim.eps", optim.eps)?;
        let at_least_0 = "a finite number, 0 or more";
        let fine = |x: f64| x.is_finite() && x >= 0.0;
        require(fine(optim.weight_decay), "optim.weight_decay", optim.weight_decay, at_least_0)?;
        require(fine(optim.clip), "optim.clip", optim.clip, at_least_0)?;
        if let Some(batches) = eval.max_batches {
            range("eval.max_batches", batches, 1..=usize::MAX)?;
        }
        require(fine(sample.temperature.into()), "sample.temperature", sample.temperature, at_least_0)?;
        require(sample.top_p > 0.0 && sample.top_p <= 1.0, "sample.top_p", sample.top_p, "above 0, at most 1")
    }
}

fn require(holds: bool, key: &str, value: impl fmt::Display, expected: impl fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(key, format!("{value} is out of range"), format!("give {expected}"))) }
}

fn range<T: PartialOrd + fmt::Display>(key: &str, value: T, range: std::ops::RangeInclusive<T>) -> Result<()> {
    require(range.contains(&value), key, &value, format_args!("{} to {}", range.start(), range.end()))
}

fn positive(key: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value > 0.0, key, value, "a finite number above 0")
}

/// The default recipe under `text` under `overrides`; `file` is the name of `text` in messages.
fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Recipe> {
    let mut all: Table = VILLAGE.parse().expect("the embedded recipe is TOML");
    let own: Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |span| line_at(text, span.start));
        Error::format(file, format!("line {line}"), "TOML", e.message(), "text is quoted, as name = \"my-run\"")
    })?;
    let from_file =
        |key: &str| line_of(text, key).map_or(String::new(), |n| format!(" ({}, line {n})", file.display()));
    for (section, value) in own {
        let Some(known) = all.get_mut(&section).and_then(Value::as_table_mut) else {
            return Err(unknown(&section, &from_file(&section)));
        };
        let Value::Table(values) = value else {
            let problem = format!("expected a section, found {}{}", value.type_str(), from_file(&section));
            return Err(Error::config(&section, problem, format!("start it with a line [{section}]")));
        };
        for (key, value) in values {
            let path = format!("{section}.{key}");
            if !keys().contains(&path) {
                return Err(unknown(&path, &from_file(&path)));
            }
            known.insert(key, value);
        }
    }
    let mut set = Vec::new();
    for text in overrides {
        let Some((path, value)) = text.split_once('=') else {
            return Err(Error::usage(format!("--set {text} has no value"), "write --set train.steps=100"));
        };
        let (path, value) = (path.trim(), value.trim());
        if !keys().iter().any(|key| key == path) {
            return Err(unknown(path, " (--set)"));
        }
        let (section, key) = path.split_once('.').expect("every known key has a section");
        let known = all.get_mut(section).and_then(Value::as_table_mut).expect("every section is in the default recipe");
        let plain = Value::String(value.to_owned());
        let value = match value.parse::<Value>() {
            // A name such as 2025 need not be quoted.
            Ok(value) if value.is_str() || !known.get(key).is_some_and(Value::is_str) => value,
            _ => plain,
        };
        known.insert(key.to_owned(), value);
        set.push(path);
    }
    serde_path_to_error::deserialize(Value::Table(all)).map_err(|e| {
        let path = e.path().to_string();
        let place = if set.contains(&path.as_str()) { " (--set)".into() } else { from_file(&path) };
        let (problem, mut hint) = wrong_value(e.inner().message());
        if hint.is_empty()
            && let Some(default) = default(&path)
        {
            hint = format!("the default is {path} = {default}");
        }
        Error::config(path, problem + &place, hint)
    })
}

/// The value of a key in the default recipe.
fn default(key: &str) -> Option<Value> {
    let table: Table = VILLAGE.parse().expect("the embedded recipe is TOML");
    let (section, key) = key.split_once('.')?;
    table.get(section)?.get(key).cloned()
}

/// What serde says of a value, in words for people; and a hint.
fn wrong_value(message: &str) -> (String, String) {
    let message = message.trim();
    if message.starts_with("unknown variant") {
        // unknown variant `cosin`, expected one of `linear`, `cosine`
        let mut quoted = message.split('`').skip(1).step_by(2);
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let hint = match nearest(found, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => String::new(),
        };
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        return (format!("expected {}, found \"{found}\"", known.join(" or ")), hint);
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return (message.to_owned(), String::new());
    };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ").replace('`', "");
    let expected = match expected {
        "u64" | "usize" | "u32" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        other => other,
    };
    (format!("expected {expected}, found {found}"), String::new())
}

fn unknown(key: &str, place: &str) -> Error {
    let keys = keys();
    let sections = keys.iter().map(|k| k.split_once('.').expect("dotted").0);
    let near = match key.contains('.') {
        true => nearest(key, keys.iter().map(String::as_str)),
        // A section, or a key without one.
        false => keys.iter().map(String::as_str).find(|k| k.ends_with(&format!(".{key}"))).or(nearest(key, sections)),
    };
    let hint = match near {
        Some(near) => format!("did you mean {near}?"),
        None => "data/recipes/village.toml names every key".to_owned(),
    };
    Error::config(key, format!("no such key{place}"), hint)
}

/// The one of `known` that `found` was probably meant to be. For a dotted key the last part counts most, so that a key
/// in the wrong section is found.
fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |key: &str| {
        let leaves = strsim::normalized_damerau_levenshtein(&leaf(found), &leaf(key));
        leaves + 0.3 * strsim::normalized_damerau_levenshtein(found, key)
    };
    known.map(|key| (score(key), key)).filter(|&(s, _)| s > 0.65).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// Every key, as `train.steps`.
fn keys() -> Vec<String> {
    let table: Table = VILLAGE.parse().expect("the embedded recipe is TOML");
    let named = table.iter().flat_map(|(section, values)| {
        values.as_table().into_iter().flat_map(move |t| t.keys().map(move |key| format!("{section}.{key}")))
    });
    named.chain(OPTIONAL.map(String::from)).collect()
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// The line on which `text` sets `path`.
fn line_of(text: &str, path: &str) -> Option<usize> {
    use toml::de::{DeTable, DeValue};
    let root = DeTable::parse(text).ok()?;
    let (section, key) = path.split_once('.').unwrap_or((path, ""));
    let (name, value) = root.get_ref().iter().find(|(name, _)| name.get_ref() == section)?;
    let name = match value.get_ref() {
        DeValue::Table(table) if !key.is_empty() => table.keys().find(|name| name.get_ref() == key)?,
        _ => name,
    };
    Some(line_at(text, name.span().start))
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
mod tests {
    use super::*;

    fn load(text: &str, overrides: &[&str]) -> Result<Recipe> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let recipe = parse(text, Path::new("my.toml"), &overrides)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The message and the hint of the error of loading.
    #[track_caller]
    fn error(text: &str, overrides: &[&str]) -> (String, String) {
        let e = load(text, overrides).expect_err("this recipe is wrong");
        (e.to_string(), e.hint().unwrap_or_default().to_owned())
    }

    fn full() -> Recipe {
        let mut recipe = Recipe::default();
        recipe.data.path = Some(vec!["a.txt".into(), "b".into()]);
        recipe.eval.max_batches = Some(7);
        recipe
    }

    #[test]
    fn the_default_is_valid_and_names_every_key_but_the_optional_ones() {
        assert_eq!(load("", &[]).unwrap(), Recipe::default());
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        let table: Table = full().to_toml().parse().unwrap();
        let all = table.iter().flat_map(|(s, t)| t.as_table().unwrap().keys().map(move |k| format!("{s}.{k}")));
        assert_eq!(sorted(all.collect()), sorted(keys()));
    }

    #[test]
    fn a_saved_recipe_reads_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        let awkward = load("", &["optim.lr=0.1", "optim.eps=1e-30", "model.dropout=0.1", "data.tokenizer=t.json"]);
        for recipe in [Recipe::default(), full(), awkward.unwrap()] {
            recipe.save(&path).unwrap();
            assert_eq!(Recipe::load(Some(&path), &[]).unwrap(), recipe);
        }
    }

    #[test]
    fn the_shakespeare_recipe_reads() {
        let text = include_str!("../../data/recipes/shakespeare-char-cpu.toml");
        let recipe = load(text, &[]).unwrap();
        assert_eq!((recipe.train.steps, recipe.optim.beta2, recipe.model.bias), (2000, 0.99, false));
        assert_eq!((recipe.data.tokenizer, recipe.data.split), (TokenizerChoice::Char, SplitRule::Tail));
    }

    #[test]
    fn overrides_win_over_the_file_which_wins_over_the_default() {
        let text = "[train]\nsteps = 7\nbatch = 3\n";
        let recipe =
            load(text, &["train.steps=9", "run.name=2025", "data.path=a b.txt", "optim.schedule=wsd"]).unwrap();
        assert_eq!((recipe.train.steps, recipe.train.batch, recipe.train.context), (9, 3, 128));
        assert_eq!((recipe.run.name.as_str(), recipe.optim.schedule), ("2025", Shape::Wsd));
        assert_eq!(recipe.data.path, Some(vec!["a b.txt".into()]));
        let recipe = load("", &["data.path=[\"a\", \"b\"]", "train.steps = 4", "optim.lr=1"]).unwrap();
        assert_eq!((recipe.data.path.unwrap().len(), recipe.train.steps, recipe.optim.lr), (2, 4, 1.0));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let (message, hint) = error("[train]\nbatch = 3\nstepz = 7\n", &[]);
        assert_eq!(message, "train.stepz: no such key (my.toml, line 3)");
        assert_eq!(hint, "did you mean train.steps?");
        for (key, near) in [
            ("train.lr", "optim.lr"),
            ("steps", "train.steps"),
            ("trian.steps", "train.steps"),
            ("optim.weight-decay", "optim.weight_decay"),
            ("data.paths", "data.path"),
            ("model.n_layers", "model.layers"),
        ] {
            let (message, hint) = error("", &[&format!("{key}=1")]);
            assert_eq!(message, format!("{key}: no such key (--set)"));
            assert_eq!(hint, format!("did you mean {near}?"), "{key}");
        }
        assert_eq!(error("[trian]\nsteps = 7\n", &[]).1, "did you mean train?");
        assert_eq!(error("steps = 7\n", &[]).0, "steps: no such key (my.toml, line 1)");
    }

    #[test]
    fn a_wrong_type_names_what_was_expected_and_where() {
        let cases = [
            ("[train]\nsteps = \"many\"", "train.steps: expected a whole number, 0 or more, found string \"many\""),
            ("[train]\nsteps = 1.5", "train.steps: expected a whole number, 0 or more, found floating point 1.5"),
            ("[train]\nsteps = -5", "train.steps: expected a whole number, 0 or more, found integer -5"),
            ("[optim]\nlr = true", "optim.lr: expected a number, found boolean true"),
            ("[model]\nbias = 1", "model.bias: expected true or false, found integer 1"),
            ("[data]\npath = 1", "data.path: expected a path or a list of paths, found integer 1"),
            ("[run]\nname = 5", "run.name: expected a string, found integer 5"),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text, &[]).0, format!("{expected} (my.toml, line 2)"));
        }
        let (message, hint) = error("", &["optim.schedule=cosin"]);
        let known = "\"constant\" or \"linear\" or \"cosine\" or \"wsd\"";
        assert_eq!(message, format!("optim.schedule: expected {known}, found \"cosin\" (--set)"));
        assert_eq!(hint, "did you mean \"cosine\"?");
        assert!(error("train = 5", &[]).0.starts_with("train: expected a section, found integer (my.toml, line 1)"));
    }

    #[test]
    fn what_is_no_toml_is_named_by_line() {
        let (message, _) = error("[train]\nsteps = 5\nname = my run\n", &[]);
        assert!(message.starts_with("my.toml: line 3: expected TOML, found "), "{message}");
        assert!(error("[train]\nsteps = 5\nsteps = 6\n", &[]).0.contains("line 3"));
        assert_eq!(load("", &["train.steps"]).unwrap_err().exit_code(), 2);
        assert!(Recipe::load(Some(Path::new("no/such.toml")), &[]).unwrap_err().to_string().contains("no/such.toml"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let wrong = [
            "run.name=",
            "run.name=a/b",
            "run.name=..",
            "model.layers=0",
            "model.heads=0",
            "model.heads=3",
            "model.d=0",
            "model.dropout=1.0",
            "model.dropout=nan",
            "data.vocab=256",
            "data.bytes=1",
            "data.val_fraction=0.0",
            "data.val_fraction=1.0",
            "data.path=[]",
            "train.steps=0",
            "train.batch=0",
            "train.context=0",
            "train.accumulate=0",
            "train.keep=0",
            "train.precision=bf16",
            "train.batch=9000000000000000000",
            "optim.lr=0.0",
            "optim.lr=inf",
            "optim.lr=nan",
            "optim.min_lr=1.0",
            "optim.beta1=1.0",
            "optim.beta2=-0.1",
            "optim.eps=0.0",
            "optim.weight_decay=-1.0",
            "optim.clip=nan",
            "eval.max_batches=0",
            "sample.temperature=-1.0",
            "sample.top_p=0.0",
        ];
        for set in wrong {
            let e = load("", &[set]).expect_err(set);
            let key = if set == "model.heads=3" { "model.d" } else { set.split_once('=').unwrap().0 };
            assert!(e.to_string().starts_with(&format!("{key}: ")), "{set}: {e}");
            assert!(e.hint().is_some(), "{set}: {e}");
        }
        assert_eq!(error("", &["model.heads=3"]).1, "try model.d = 126 or 129");
    }
}
