//! Models in files, kiln's own and other programs': read from all of them by one [`open`], and written to them.
//!
//! | where | what | read | written |
//! |-------|------|------|---------|
//! | [`hf`] | a Hugging Face directory: `config.json`, safetensors, `tokenizer.json` | yes; so are checkpoints | yes |
//! | [`gguf`] | llama.cpp's one file | yes, quantised ones too | yes |
//! | [`llmc`] | llm.c's checkpoint of a GPT-2 | yes | yes |
//! | [`peft`] | an adapter: corrections to a model that is one of these | merged into it | by runs that train one |
//!
//! Weights stay in their files, mapped into memory, until they are read one by one ([`Weights`]): into a model's parameters,
//! or into another file ([`convert()`]). What a file says is checked against its size, and names and shapes of tensors against
//! the model, before memory is taken.

pub mod block;
pub mod convert;
pub mod gguf;
pub mod header;
pub mod hf;
pub mod llmc;
pub mod peft;
pub mod tensors;
pub mod weights;

pub use block::Format;
pub use convert::convert;
pub use weights::Weights;

use crate::data::source::Document;
use crate::data::tokenizer::{Extended, Tokenizer};
use crate::device::Device;
use crate::disk::{Disk, Os};
use crate::error::{AtPath, Error, Result};
use crate::model::{Gpt, GptConfig};
use crate::params::{Hold, Params};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The tensor of a reward model that makes its stream a reward, (1, C), as `transformers` names it.
pub const SCORE_TENSOR: &str = "score.weight";

/// No model has more blocks; a file that claims more is damaged.
const MAX_LAYERS: usize = 4096;

/// A trained model in its files.
pub struct Pretrained {
    path: PathBuf,
    /// Its parts and sizes.
    pub config: GptConfig,
    tokenizer: Option<Tokenizer>,
    /// Its weights.
    pub weights: Weights,
    /// Of a reward model, what makes its stream a reward: (C).
    score: Option<Vec<f32>>,
}

impl std::fmt::Debug for Pretrained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pretrained({}, {:?})", self.path.display(), self.config)
    }
}

impl Pretrained {
    /// The model in `path`, whose weights are of the shape that `config` says.
    ///
    /// # Errors
    /// The tokenizer has more ids than the model.
    fn new(path: &Path, config: GptConfig, tokenizer: Option<Tokenizer>, weights: Weights) -> Result<Pretrained> {
        let ids = tokenizer.as_ref().map_or(0, Tokenizer::vocab_size);
        if ids > config.vocab {
            let hint = "the files of a model belong together: copy all of them";
            return Err(Error::format(
                path,
                "vocabulary",
                format!("at most the model's {} ids", config.vocab),
                ids,
                hint,
            ));
        }
        Ok(Pretrained { path: path.to_owned(), config, tokenizer, weights, score: None })
    }

    /// Of a reward model, what makes the stream after an answer its reward: (C).
    pub fn score(&self) -> Option<&[f32]> {
        self.score.as_deref()
    }

    /// Its tokenizer, if it came with one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// It came without one.
    pub fn need_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let hint = "put the model's tokenizer.json beside it";
            Error::format(&self.path, "tokenizer", "a tokenizer.json, or one in the file", "none", hint)
        })
    }

    /// The model with at most `n` more tokens, learnt from `documents`. A new row of the embedding, and of a head of its own, is the mean of the
    /// rows of the tokens that it was before. Calls `progress` with the bytes of text read so far.
    ///
    /// # Errors
    /// As of [`Tokenizer::extended`].
    pub fn extended(
        mut self,
        documents: impl Iterator<Item = Result<Document>>,
        n: usize,
        progress: &dyn Fn(u64),
    ) -> Result<Pretrained> {
        let Extended { tokenizer, first, pieces } = self.need_tokenizer()?.extended(documents, n, progress)?;
        let rows = self.config.vocab;
        self.config.vocab = rows.max(tokenizer.vocab_size());
        self.weights.extend(rows, first, pieces);
        self.tokenizer = Some(tokenizer);
        Ok(self)
    }

    /// The model with its weights in memory, held as `hold` says.
    ///
    /// # Errors
    /// A weight is not finite, or a file has changed since it was opened.
    pub fn load(&self, hold: Hold, device: &Device) -> Result<(Gpt, Params)> {
        let (gpt, decls) = Gpt::new(self.config.clone());
        let mut params = Params::frozen(device, &decls, hold);
        self.weights.load(&mut params)?;
        Ok((gpt, params))
    }
}

/// Opens a Hugging Face directory, a GGUF file or an llm.c checkpoint. Of a run or a checkpoint, see
/// [`train::sampler::model`](crate::train::sampler::model).
///
/// # Errors
/// It is none of these, is damaged, or holds a model that kiln has not.
pub fn open(path: &Path) -> Result<Pretrained> {
    if path.is_dir() {
        return hf::open(path);
    }
    let mut start = [0; 4];
    let mut file = Os.open(path, crate::disk::Open::Read).at(path)?;
    let read = file.read(&mut start).at(path)?;
    match &start[..read] {
        b"GGUF" => gguf::open(path),
        start if start == llmc::MAGIC.to_le_bytes() => llmc::open(path),
        start => {
            let hint = "give a run, a checkpoint, a Hugging Face directory, a .gguf file or an llm.c checkpoint";
            Err(Error::format(path, "start", "a model", format!("a file that starts with {start:?}"), hint))
        }
    }
}

/// Refuses a model that is far larger than the tensors of its files (of which `sizes` are the numbers of elements), before it is
/// made: what a damaged file claims must not take memory.
fn check_size(config: &GptConfig, sizes: impl Iterator<Item = usize>, path: &Path) -> Result<()> {
    let (mut tensors, mut elements) = (0, 0.0);
    sizes.for_each(|size| {
        tensors += 1;
        elements += size as f64;
    });
    // A file that merely lacks tensors is told which ones, later.
    if config.parameters() > 2.0 * elements + 1e6 || config.layers > tensors.min(MAX_LAYERS) {
        let hint = "the files of a model belong together: copy all of them";
        let expected = format!("the {:.0} weights of the model that is described", config.parameters());
        return Err(Error::format(path, "size", expected, format!("{elements:.0} in {tensors} tensors"), hint));
    }
    Ok(())
}
