//! The weights of a model in files that are mapped into memory, read tensor by tensor.

use super::SCORE_TENSOR;
use super::block::Format;
use super::peft::Adapter;
use super::tensors::transpose;
use crate::data::map::Map;
use crate::error::{Error, Result};
use crate::model::hf::is_table;
use crate::nn::lora::is_adapter;
use crate::params::{Decl, Image, Params};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// Where a tensor lies, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Which of the files.
    pub map: usize,
    /// Its bytes there.
    pub bytes: Range<usize>,
    /// How its numbers lie there.
    pub format: Format,
    /// Whether a matrix (r, c) lies as (c, r).
    pub transposed: bool,
    /// Not 0: its rows are so many heads, in each of which llama.cpp interleaves both halves (see [`row`]).
    pub heads: usize,
}

/// The tensors of a model, each found in a file with the right shape: reading meets no other surprise than a file that changes.
pub struct Weights {
    maps: Vec<Map>,
    /// By the names of [`Image`]s.
    places: HashMap<String, Place>,
    /// What is merged into them, in order.
    adapters: Vec<Adapter>,
    more: Option<More>,
}

/// Tokens that the files know nothing of.
struct More {
    /// Rows of the files' tables.
    rows: usize,
    /// The first new token.
    first: usize,
    /// For each new token the rows of which its own is the mean.
    pieces: Vec<Vec<u32>>,
}

/// The row of a file that row `i` of memory is, among heads of `dim` rows. RoPE turns row j of a head with row j + dim/2 in
/// memory, with its neighbour in llama.cpp's files: there 2·j and 2·j + 1 are turned.
pub fn row(i: usize, dim: usize) -> usize {
    let (head, j) = (i / dim, i % dim);
    head * dim + 2 * (j % (dim / 2)) + j / (dim / 2)
}

impl Weights {
    /// Tensors by their names.
    pub fn new(maps: Vec<Map>, places: HashMap<String, Place>) -> Weights {
        Weights { maps, places, adapters: Vec::new(), more: None }
    }

    /// Merges an adapter into whatever is read from now on, after those before.
    pub fn adapt(&mut self, adapter: Adapter) {
        self.adapters.push(adapter);
    }

    /// Gives tables, which have `rows` rows in the files, a row for each token from number `first` on: the mean of the rows of its pieces.
    pub(super) fn extend(&mut self, rows: usize, first: usize, pieces: Vec<Vec<u32>>) {
        self.more = Some(More { rows, first, pieces });
    }

    /// The file that tensor `name` is in.
    pub fn path(&self, name: &str) -> &Path {
        self.maps[self.places[name].map].path()
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The plain format that holds all values (or those of matrices and tables): F32 where they differ.
    pub fn plain(&self, matrices: bool) -> Format {
        let counts = |(name, _): &(&String, &Place)| !matrices || matrix(name);
        let mut plain = self.places.iter().filter(counts).map(|(_, place)| place.format.plain());
        let first = if self.adapters.is_empty() && self.more.is_none() {
            plain.next().unwrap_or(Format::F32)
        } else {
            Format::F32
        };
        if plain.all(|other| other == first) { first } else { Format::F32 }
    }

    /// Reads a tensor into `to`, as memory holds it.
    ///
    /// # Errors
    /// A value is not finite, or the file is no longer what it was when it was opened.
    pub fn read(&self, image: &Image, to: &mut [f32]) -> Result<()> {
        let place = &self.places[&image.name];
        let map = &self.maps[place.map];
        let bytes = &map[place.bytes.clone()];
        let (rows, columns) = image.shape.as_matrix();
        let more = self.more.as_ref().filter(|_| is_table(&image.name));
        let (to, new) = to.split_at_mut(more.map_or(to.len(), |more| more.rows.min(rows) * columns));
        if place.transposed {
            let mut lying = vec![0.0; to.len()];
            decode(place.format, bytes, &mut lying, rows, |i| i);
            to.copy_from_slice(&transpose(&lying, &[columns, rows]));
        } else if place.heads > 0 {
            let (columns, dim) = if image.shape.len() == 1 { (1, to.len()) } else { (columns, rows) };
            decode(place.format, bytes, to, columns, |i| row(i, dim / place.heads));
        } else {
            decode(place.format, bytes, to, columns, |i| i);
        }
        map.check()?;
        self.adapters.iter().for_each(|adapter| adapter.merge(image, to));
        let bad = to.iter().copied().find(|x| !x.is_finite());
        if let Some(More { rows, first, pieces }) = more {
            for (token, pieces) in (*first..).zip(pieces) {
                let mut mean = vec![0.0; columns];
                for &piece in pieces {
                    let row = &to[piece as usize * columns..][..columns];
                    mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / pieces.len() as f32);
                }
                let own = match token.checked_sub(*rows) {
                    Some(token) => &mut new[token * columns..],
                    None => &mut to[token * columns..],
                };
                own[..columns].copy_from_slice(&mean);
            }
        }
        match bad {
            None => Ok(()),
            Some(bad) => {
                let hint =
                    "the model is of no use: take an older checkpoint, or get the file again from where it was made";
                Err(Error::format(map.path(), &image.name, "finite numbers", bad, hint))
            }
        }
    }

    /// Reads all of `params` but those of an adapter in training and a [score](SCORE_TENSOR).
    pub fn load(&self, params: &mut Params) -> Result<()> {
        let mut values = Vec::new();
        for id in params.ids() {
            if is_adapter(params.name(id)) || params.name(id) == SCORE_TENSOR {
                continue;
            }
            values.resize(params.weight(id).numel(), 0.0);
            for image in params.images(id) {
                self.read(image, &mut values[image.range()])?;
            }
            params.set_weight(id, &values);
        }
        Ok(())
    }
}

/// Whether a tensor is a matrix or a table, by its name.
fn matrix(name: &str) -> bool {
    name.ends_with(".weight") && !["norm", "ln_"].iter().any(|part| name.contains(part))
}

/// Rows of `columns` numbers; row i is `row(i)` of the file.
fn decode(format: Format, bytes: &[u8], to: &mut [f32], columns: usize, row: impl Fn(usize) -> usize + Sync) {
    let size = format.bytes(columns).expect("rows are whole blocks");
    to.par_chunks_mut(columns).enumerate().for_each(|(i, to)| format.decode(&bytes[row(i) * size..][..size], to));
}

/// The tensors of files that a model of these declarations has.
pub fn images(decls: &[Decl]) -> impl Iterator<Item = Image> + '_ {
    decls.iter().flat_map(Decl::images)
}
