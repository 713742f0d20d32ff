//! The base model of a recipe and its examples, in rows.

use super::section::{TuneData, TuneModel, TuneRecipe};
use crate::data::Tokenizer;
use crate::data::chat::ChatTemplate;
use crate::data::examples::{Examples, RowMut, Rows};
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::train::sampler;
use crate::train::task::Progress;
use std::path::{Path, PathBuf};

/// The longest rows where a recipe does not say.
const CONTEXT: usize = 1024;

/// The day on which templates that write the day are rendered: that of Llama 3.1's own examples.
const DAY: &str = "2024-07-26";

/// A tokenizer with the template that `name` means, and that template: `auto` is the tokenizer's own, else the usual one of its tokens.
///
/// # Errors
/// There is none of that name, or it is no template.
pub fn templated(own: Tokenizer, name: &str) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    let spells = |token: &str| own.id(token).is_some();
    let named = match name {
        "auto" if own.chat_template().is_some() => None,
        "auto" if spells("<|im_start|>") && spells("<|im_end|>") => Some("chatml"),
        "auto" => Some("plain"),
        name => Some(name),
    };
    let tokenizer = match named {
        Some(name) => own.with_chat_template(&ChatTemplate::source(Path::new(name))?),
        None => own,
    };
    let template = ChatTemplate::of(&tokenizer)?.map(|template| template.dated(DAY)).transpose()?;
    Ok((tokenizer, template))
}

/// A base model, and how it reads and how much.
pub struct Base {
    /// The model.
    pub model: Pretrained,
    /// Its tokenizer, with the template.
    pub tokenizer: Tokenizer,
    /// What makes conversations text.
    pub template: Option<ChatTemplate>,
    /// T.
    pub context: usize,
}

/// Opens the base model of `recipe`.
///
/// # Errors
/// It cannot be used; rows are longer than its context.
pub fn open(recipe: &TuneRecipe) -> Result<Base> {
    let TuneModel { base: Some(path), .. } = &recipe.model else { unreachable!("checked with the recipe") };
    let model = sampler::model(path)?.0;
    let (tokenizer, template) = templated(model.need_tokenizer()?.clone(), &recipe.data.template)?;
    let most = model.config.context;
    let context = match recipe.train.context {
        0 => most.min(CONTEXT),
        context if context > most => {
            let problem = format!("rows of {context} tokens, but the model's context is {most}");
            return Err(Error::config("train.context", problem, format!("give {most} or less")));
        }
        context => context,
    };
    Ok(Base { model, tokenizer, template, context })
}

/// A base model and examples for it.
pub struct Prepared {
    /// The base model.
    pub base: Pretrained,
    /// Its tokenizer, with the template.
    pub tokenizer: Tokenizer,
    /// What was found in the data.
    pub examples: Examples,
    /// General text, in windows.
    pub replay: Option<Examples>,
    /// T.
    pub context: usize,
}

/// Opens the base model of `recipe` and reads the examples.
///
/// # Errors
/// One of them cannot be used.
pub fn read(recipe: &TuneRecipe, progress: &mut Progress) -> Result<Prepared> {
    let Base { model: base, tokenizer, template, context } = open(recipe)?;
    let paths = recipe.data.path.as_deref().unwrap_or_default();
    let mut told = |done, all| progress("reading examples", done, all);
    let examples = Examples::read(paths, &tokenizer, template.as_ref(), context + 1, &mut told)?;
    let general = |paths: &Vec<PathBuf>| Examples::read(paths, &tokenizer, None, context + 1, &mut told);
    let replay = recipe.data.replay.as_ref().map(general).transpose()?;
    Ok(Prepared { base, tokenizer, examples, replay, context })
}

/// What is learnt in a run, row by row: examples, and among them general text.
pub struct Lessons {
    /// Rows of examples.
    pub examples: Rows,
    replay: Option<Rows>,
    /// The share of all rows that is general text.
    share: f64,
    seed: u64,
}

impl Lessons {
    /// The row that is visited as number `index`. In each epoch every row of its kind comes once, in an order of its own; general
    /// text has epochs of its own.
    fn at(&self, index: u64) -> (&Rows, usize) {
        let replayed = |rows: u64| (rows as f64 * self.share) as u64;
        let (rows, own) = match &self.replay {
            Some(replay) if replayed(index + 1) > replayed(index) => (replay, replayed(index)),
            Some(_) => (&self.examples, index - replayed(index)),
            None => (&self.examples, index),
        };
        (rows, rows.at(own, self.seed))
    }

    /// The tokens of row number `index` that are trained on.
    pub fn targets(&self, index: u64) -> usize {
        let (rows, row) = self.at(index);
        rows.targets(row)
    }

    /// Fills `to` with row number `index`; see [`Rows::fill`].
    pub fn fill(&self, index: u64, weight: f32, to: RowMut) {
        let (rows, row) = self.at(index);
        rows.fill(row, weight, to);
    }

    /// Rows in which every example is seen once.
    pub fn epoch(&self) -> f64 {
        self.examples.len() as f64 / if self.replay.is_some() { 1.0 - self.share } else { 1.0 }
    }

    /// Rows of general text.
    pub fn replayed(&self) -> usize {
        self.replay.as_ref().map_or(0, Rows::len)
    }
}

/// Rows to learn from and rows that are held out, of examples and of general text.
pub(super) struct Parts {
    pub lessons: Lessons,
    pub val: Rows,
    pub general: Option<Rows>,
}

/// The rows of a run.
pub(super) fn rows(recipe: &TuneRecipe, examples: Examples, replay: Option<Examples>, context: usize) -> Result<Parts> {
    let TuneData { packing, val_fraction, seed, replay_share: share, .. } = recipe.data;
    let apart = |examples: Examples, what: &str| {
        let all = examples.all.len();
        let [train, mut val] = examples.split(val_fraction, seed);
        if train.is_empty() || val.is_empty() {
            let problem = format!("of {all} {what} {} would be held out", val.len());
            let hint = "give more of them, or another data.val_fraction or data.seed";
            return Err(Error::config("data.val_fraction", problem, hint));
        }
        // What is held out needs no order; rows of like lengths are read together.
        val.sort_by_key(|example| (example.ids.len(), example.key));
        Ok([train, val].map(|examples| Rows::new(examples, context, !packing)))
    };
    let [examples, val] = apart(examples, "examples")?;
    let [replay, general] =
        replay.map(|texts| apart(texts, "texts")).transpose()?.map_or([None, None], |rows| rows.map(Some));
    Ok(Parts { lessons: Lessons { examples, replay, share, seed: recipe.train.seed }, val, general })
}
