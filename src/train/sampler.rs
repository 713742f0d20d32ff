//! A trained model, ready to write.

use super::text::start;
use super::{checkpoint, served};
use crate::data::Tokenizer;
use crate::data::detok::Decoder;
use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::formats::{self, Pretrained, peft};
use crate::model::Gpt;
use crate::model::sample::SampleOptions;
use crate::model::sequence::{Pace, generate};
use crate::params::{Hold, Params};
use crate::tape::Tape;
use std::path::{Path, PathBuf};

/// A model with its weights and its tokenizer.
pub struct Sampler {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    tokenizer: Tokenizer,
    damaged: Vec<Error>,
}

/// Adapters of adapters of …: more than this many are a circle.
const MAX_ADAPTERS: usize = 64;

/// The model that `path` means: a run's newest good checkpoint, a checkpoint, the version in service of a [line](served), or what [`formats::open`] opens; of an adapter,
/// what it makes of its base, which may be any of these. Also tells what is wrong with newer checkpoints of the run, which were
/// passed over.
///
/// # Errors
/// There is none, it is damaged, or its files do not belong together.
pub fn model(path: &Path) -> Result<(Pretrained, Vec<Error>)> {
    adapted(path, &[])
}

/// The same with more adapters, in order.
///
/// # Errors
/// As of [`model`]; one of them is no adapter, or belongs to another base.
pub fn adapted(path: &Path, adapters: &[PathBuf]) -> Result<(Pretrained, Vec<Error>)> {
    let mut found = based(path, 0)?;
    for path in adapters {
        let (dir, damaged) = place(path)?;
        if !peft::is_at(&dir) {
            let hint = "give a directory with an adapter_config.json, as kiln tune and PEFT write it";
            return Err(Error::usage(format!("{} is no adapter", path.display()), hint));
        }
        found = (peft::open(&dir, found.0)?, found.1.into_iter().chain(damaged).collect());
    }
    Ok(found)
}

fn based(path: &Path, depth: usize) -> Result<(Pretrained, Vec<Error>)> {
    let (dir, mut damaged) = place(path)?;
    if !peft::is_at(&dir) {
        return Ok((formats::open(&dir)?, damaged));
    }
    if depth == MAX_ADAPTERS {
        let hint = "name another model in base_model_name_or_path";
        return Err(Error::format(dir.join(peft::CONFIG), "base_model_name_or_path", "a base", "a circle", hint));
    }
    let (base, more) = based(&peft::base(&dir)?, depth + 1)?;
    damaged.extend(more);
    Ok((peft::open(&dir, base)?, damaged))
}

/// Where the files of the model `path` are, as the checkpoint of a run, and what is wrong with newer ones.
///
/// # Errors
/// There is none.
pub fn place(path: &Path) -> Result<(PathBuf, Vec<Error>)> {
    if let Some(version) = served::current(path)? {
        return place(&version);
    }
    if foreign(path) { Ok((path.to_owned(), Vec::new())) } else { checkpoint::find(&Os, path) }
}

/// Whether `path`, or the version that is in service there, is neither a run nor a checkpoint: a file, or a directory of a model that lacks what a checkpoint has.
pub fn foreign(path: &Path) -> bool {
    if let Ok(Some(version)) = served::current(path) {
        return foreign(&version);
    }
    let has = |name: &str| path.join(name).exists();
    path.is_file()
        || ((has(checkpoint::CONFIG) || peft::is_at(path))
            && !has(checkpoint::STATE)
            && !has(checkpoint::SUMS)
            && !has("recipe.toml"))
}

impl Sampler {
    /// Loads the model of `path`, changed by `adapters` in order ([`adapted`]), its weights held as `hold` says.
    ///
    /// # Errors
    /// As of [`adapted`]; it has no tokenizer.
    pub fn open(path: &Path, adapters: &[PathBuf], hold: Hold, device: &Device) -> Result<Sampler> {
        let (model, damaged) = adapted(path, adapters)?;
        let tokenizer = model.need_tokenizer()?.clone();
        let (gpt, params) = model.load(hold, device)?;
        Ok(Sampler { gpt, params, tape: Tape::new(device), tokenizer, damaged })
    }

    /// The model, its weights and its tokenizer.
    pub fn into_parts(self) -> (Gpt, Params, Tokenizer) {
        (self.gpt, self.params, self.tokenizer)
    }

    /// What is wrong with newer checkpoints of the run, which were passed over.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// The model.
    pub fn gpt(&self) -> &Gpt {
        &self.gpt
    }

    /// The model's weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Writes on from `prompt`, calling `piece` with whole characters as they come; false stops it.
    ///
    /// # Errors
    /// The tokenizer has no token for a character of the prompt.
    pub fn generate(
        &mut self,
        prompt: &str,
        options: &SampleOptions,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Pace> {
        let ids = start(&self.tokenizer, prompt)?;
        let mut decoder = Decoder::new(&self.tokenizer);
        let mut more = true;
        let pace = generate(&self.gpt, &self.params, &mut self.tape, ids, self.tokenizer.ends(), options, &mut |id| {
            let text = decoder.push(id);
            more = text.is_empty() || piece(&text);
            more
        });
        let rest = decoder.finish();
        if more && !rest.is_empty() {
            piece(&rest);
        }
        Ok(pace)
    }
}
