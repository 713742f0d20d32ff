//! Pictures as text, and back: a VQ-VAE's codes as characters, so that a language model learns to draw.
//!
//! A picture is a line of JSON whose text has a character for each cell of its grid, row by row: code k is the character
//! U+4E00 + k (the block of CJK ideographs has room for 20,992). With a tokenizer of characters a code is a token. A line break
//! ends each, from which a model goes on with the first cell of the next; without it samples would begin anywhere.

use super::vqvae::{decode, encode};
use crate::data::atomic::write_atomic;
use crate::data::images::{Dims, Grid, Pictures, Reading, Shapes, Sheet, open};
use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::model::{VqVae, VqVaeConfig};
use crate::params::{Hold, Params};
use crate::tape::{Pass, Tape};
use crate::train::checkpoint;
use serde_json::{Value, json};
use std::path::Path;

const FIRST: u32 = 0x4E00;

/// A trained VQ-VAE.
pub struct Coder {
    vqvae: VqVae,
    params: Params,
    tape: Tape,
}

impl Coder {
    /// Loads a checkpoint: `path` is one, or a run, whose newest good checkpoint is taken.
    ///
    /// # Errors
    /// There is no checkpoint of a VQ-VAE, or it is damaged.
    pub fn open(path: &Path, device: &Device) -> Result<Coder> {
        let (dir, _) = checkpoint::find(&Os, path)?;
        let file = dir.join(checkpoint::CONFIG);
        let json: Value = checkpoint::read_json(&Os, &file)?;
        let (vqvae, decls) = VqVae::new(VqVaeConfig::from_json(&json, &file)?);
        let mut params = Params::frozen(device, &decls, Hold::Frozen);
        checkpoint::load_weights(&Os, &dir.join(checkpoint::MODEL), &mut params)?;
        Ok(Coder { vqvae, params, tape: Tape::new(device) })
    }

    /// Characters of a picture's text.
    pub fn cells(&self) -> usize {
        self.vqvae.config().grid().iter().product()
    }

    fn dims(&self) -> Dims {
        let [height, width, channels] = self.vqvae.config().shape;
        Dims { height, width, channels }
    }

    /// Writes the pictures at `from`, or so many of the built-in world, as lines of JSON to `to`; gives their number.
    ///
    /// # Errors
    /// They cannot be read, or are no pictures of the size that the model knows; `to` cannot be written.
    pub fn write(&mut self, from: Option<&Path>, count: usize, to: &Path) -> Result<usize> {
        let dims = self.dims();
        let found = match from {
            Some(path) => open(path, &Reading::default())?,
            None => Shapes::new(1, dims.height)?.found(count)?,
        };
        let mut lines = String::new();
        let mut all = 0;
        for pictures in [Some(found.train), found.held_out].into_iter().flatten() {
            if pictures.dims() != dims {
                let problem = format!("the model knows pictures of {dims}, and these are {}", pictures.dims());
                return Err(Error::usage(problem, "give what it was trained on, or pictures of that size"));
            }
            self.lines(&pictures, &mut lines);
            all += pictures.len();
        }
        write_atomic(&Os, to, lines.as_bytes())?;
        Ok(all)
    }

    fn lines(&mut self, pictures: &Pictures, lines: &mut String) {
        let cells = self.cells();
        let bytes: Vec<u8> = (0..pictures.len()).flat_map(|i| pictures.get(i)).copied().collect();
        let ids = encode(&self.vqvae, &self.params, &mut self.tape, Pass::default(), &bytes);
        for ids in ids.chunks(cells) {
            let text: String = ids.iter().filter_map(|&id| char::from_u32(FIRST + id as u32)).collect();
            *lines += &format!("{}\n", json!({ "text": text + "\n" }));
        }
    }

    /// The sheet of pictures that texts spell, `columns` in a row. A text that ends early ends in code 0, and characters that
    /// are no codes are passed over.
    pub fn sheet(&mut self, texts: &[String], columns: usize) -> Sheet {
        let (cells, codes) = (self.cells(), self.vqvae.config().codes as u32);
        let ids = |text: &String| {
            let known = text.chars().filter_map(|c| (c as u32).checked_sub(FIRST).filter(|id| *id < codes));
            known.map(|id| id as i32).chain(std::iter::repeat(0)).take(cells).collect::<Vec<i32>>()
        };
        let all: Vec<i32> = texts.iter().flat_map(ids).collect();
        let Coder { vqvae, params, tape } = self;
        let pictures = decode(vqvae, params, tape, Pass::default(), &all);
        let dims = self.dims();
        Grid::new(columns, dims).draw(&pictures, dims)
    }
}
