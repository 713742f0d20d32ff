//! A trained model, ready to write.

use super::checkpoint;
use super::pretrain::start;
use crate::data::Tokenizer;
use crate::data::detok::Decoder;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::gpt::is_transposed_in_files;
use crate::model::sample::{SampleOptions, generate};
use crate::model::{Gpt, GptConfig};
use crate::params::Params;
use crate::tape::Tape;
use std::path::Path;

/// A model with its weights and its tokenizer.
pub struct Sampler {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    tokenizer: Tokenizer,
}

impl Sampler {
    /// Loads a checkpoint: `path` is one, or a run, whose newest good checkpoint is taken.
    ///
    /// # Errors
    /// There is no checkpoint, or it is damaged.
    pub fn open(path: &Path, device: &Device) -> Result<Sampler> {
        let dir = checkpoint::find(path)?;
        let file = dir.join(checkpoint::CONFIG);
        let config = GptConfig::from_json(&checkpoint::read_json(&file)?, &file)?;
        super::fit::check_weights(&config, &file)?;
        let file = dir.join(checkpoint::TOKENIZER);
        let tokenizer = Tokenizer::load(&file)?;
        if tokenizer.vocab_size() > config.vocab {
            let (expected, found) = (format!("at most {} token ids", config.vocab), tokenizer.vocab_size());
            let hint = "put back the tokenizer that the model was trained with";
            return Err(Error::format(file, "vocabulary", expected, found, hint));
        }
        let (gpt, decls) = Gpt::new(config);
        let mut params = Params::new(device, &decls, 0, 0);
        checkpoint::load(&dir, &mut params, &[], &is_transposed_in_files)?;
        Ok(Sampler { gpt, params, tape: Tape::new(device), tokenizer })
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
    ) -> Result<()> {
        let ids = start(&self.tokenizer, prompt)?;
        let mut decoder = Decoder::new(&self.tokenizer);
        let mut more = true;
        generate(&self.gpt, &self.params, &mut self.tape, ids, self.tokenizer.eot(), options, &mut |id| {
            let text = decoder.push(id);
            more = text.is_empty() || piece(&text);
            more
        });
        let rest = decoder.finish();
        if more && !rest.is_empty() {
            piece(&rest);
        }
        Ok(())
    }
}
