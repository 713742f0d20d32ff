//! A trained model, ready to write.

use super::checkpoint;
use super::text::start;
use crate::data::Tokenizer;
use crate::data::detok::Decoder;
use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::formats::{self, Pretrained};
use crate::model::Gpt;
use crate::model::sample::SampleOptions;
use crate::model::sequence::{Pace, generate};
use crate::params::{Hold, Params};
use crate::tape::Tape;
use std::path::Path;

/// A model with its weights and its tokenizer.
pub struct Sampler {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    tokenizer: Tokenizer,
    damaged: Vec<Error>,
}

/// The model that `path` means: a run's newest good checkpoint, a checkpoint, or what [`formats::open`] opens. Also tells what is
/// wrong with newer checkpoints of the run, which were passed over.
///
/// # Errors
/// There is none, it is damaged, or its files do not belong together.
pub fn model(path: &Path) -> Result<(Pretrained, Vec<Error>)> {
    if foreign(path) {
        return Ok((formats::open(path)?, Vec::new()));
    }
    let (dir, damaged) = checkpoint::find(&Os, path)?;
    Ok((formats::open(&dir)?, damaged))
}

/// Whether `path` is neither a run nor a checkpoint: a file, or a directory of a model that lacks what a checkpoint has.
pub fn foreign(path: &Path) -> bool {
    let has = |name: &str| path.join(name).exists();
    path.is_file()
        || (has(checkpoint::CONFIG) && !has(checkpoint::STATE) && !has(checkpoint::SUMS) && !has("recipe.toml"))
}

impl Sampler {
    /// Loads the [`model`] of `path`, its weights held as `hold` says.
    ///
    /// # Errors
    /// There is none, it is damaged, its files do not belong together, or it has no tokenizer.
    pub fn open(path: &Path, hold: Hold, device: &Device) -> Result<Sampler> {
        let (model, damaged) = model(path)?;
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
