//! The base model of a recipe and its examples, in rows.

use super::section::{TuneData, TuneModel, TuneRecipe};
use crate::data::Tokenizer;
use crate::data::chat::ChatTemplate;
use crate::data::examples::{Examples, Rows};
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::train::sampler;
use crate::train::task::Progress;
use std::path::{Path, PathBuf};

/// The longest rows where a recipe does not say.
const CONTEXT: usize = 1024;

/// The day on which templates that write the day are rendered: that of Llama 3.1's own examples.
const DAY: &str = "2024-07-26";

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
    let TuneModel { base: Some(path), .. } = &recipe.model else { unreachable!("checked with the recipe") };
    let base = sampler::model(path)?.0;
    let own = base.need_tokenizer()?.clone();
    let spells = |token: &str| own.id(token).is_some();
    let named = match recipe.data.template.as_str() {
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
    let most = base.config.context;
    let context = match recipe.train.context {
        0 => most.min(CONTEXT),
        context if context > most => {
            let problem = format!("rows of {context} tokens, but the model's context is {most}");
            return Err(Error::config("train.context", problem, format!("give {most} or less")));
        }
        context => context,
    };
    let paths = recipe.data.path.as_deref().unwrap_or_default();
    let mut told = |done, all| progress("reading examples", done, all);
    let examples = Examples::read(paths, &tokenizer, template.as_ref(), context + 1, &mut told)?;
    let general = |paths: &Vec<PathBuf>| Examples::read(paths, &tokenizer, None, context + 1, &mut told);
    let replay = recipe.data.replay.as_ref().map(general).transpose()?;
    Ok(Prepared { base, tokenizer, examples, replay, context })
}

/// Rows to learn from and rows that are held out, of examples and of general text.
pub(super) struct Parts {
    pub train: Rows,
    pub val: Rows,
    pub general: Option<Rows>,
}

/// The rows of a run.
pub(super) fn rows(recipe: &TuneRecipe, examples: Examples, replay: Option<Examples>, context: usize) -> Result<Parts> {
    let TuneData { packing, val_fraction, seed, replay_share, .. } = recipe.data;
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
        Ok([train, val])
    };
    let [mut train, val] = apart(examples, "examples")?;
    let mut general = None;
    if let Some(replay) = replay {
        let [mut learnt, held_out] = apart(replay, "texts")?;
        // Any of them, the same ones each time.
        learnt.sort_by_key(|window| window.ids.iter().fold(window.key ^ seed, |hash, &id| mix(hash ^ u64::from(id))));
        let own: usize = train.iter().map(|example| example.ids.len()).sum();
        let mut left = own as f64 * replay_share / (1.0 - replay_share);
        train.extend(learnt.into_iter().take_while(|window| {
            let goes_on = left > 0.0;
            left -= window.ids.len() as f64;
            goes_on
        }));
        general = Some(Rows::new(held_out, context, !packing));
    }
    let [train, val] = [train, val].map(|examples| Rows::new(examples, context, !packing));
    Ok(Parts { train, val, general })
}

/// A step of a hash (the finaliser of splitmix64).
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
