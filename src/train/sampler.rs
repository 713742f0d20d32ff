//! A trained model, ready to write.

use super::checkpoint;
use super::text::start;
use crate::data::Tokenizer;
use crate::data::detok::Decoder;
use crate::device::Device;
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};
use crate::model::sample::{Pace, SampleOptions, generate};
use crate::model::{Gpt, GptConfig};
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

impl Sampler {
    /// Loads a checkpoint: `path` is one, or a run, whose newest good checkpoint is taken. Its weights are held as `hold`
    /// says.
    ///
    /// # Errors
    /// There is no checkpoint, it is damaged, or its files do not belong together.
    pub fn open(path: &Path, hold: Hold, device: &Device) -> Result<Sampler> {
        let (dir, damaged) = checkpoint::find(&Os, path)?;
        let (file, weights) = (dir.join(checkpoint::CONFIG), dir.join(checkpoint::MODEL));
        let config = GptConfig::from_json(&checkpoint::read_json(&Os, &file)?, &file)?;
        let hint = "the files of a checkpoint belong together: copy all of them";
        // Before memory is mapped for a model that the file does not hold.
        let (needed, there) = (4.0 * config.parameters(), weights.metadata().at(&weights)?.len());
        if needed > there as f64 {
            let expected = format!("at least {needed:.0} bytes for the model that config.json describes");
            return Err(Error::format(weights, "size", expected, format!("{there} bytes"), hint));
        }
        let file = dir.join(checkpoint::TOKENIZER);
        let tokenizer = Tokenizer::load(&file)?;
        if tokenizer.vocab_size() > config.vocab {
            let expected = format!("at most the model's {} ids", config.vocab);
            return Err(Error::format(file, "vocabulary", expected, tokenizer.vocab_size(), hint));
        }
        let (gpt, decls) = Gpt::new(config);
        let mut params = Params::frozen(device, &decls, hold);
        checkpoint::load_weights(&Os, &weights, &mut params)?;
        Ok(Sampler { gpt, params, tape: Tape::new(device), tokenizer, damaged })
    }

    /// What is wrong with newer checkpoints of the run, which were passed over.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
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
        let pace = generate(&self.gpt, &self.params, &mut self.tape, ids, self.tokenizer.eot(), options, &mut |id| {
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
