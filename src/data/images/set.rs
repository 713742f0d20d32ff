//! Pictures of one size in memory.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::data::source::Skips;
use crate::data::split::Split;
use crate::error::{Error, Result};

/// The size of a picture: H rows of W pixels of C values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dims {
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// C: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
}

impl Dims {
    /// Values of a picture: H·W·C.
    pub fn values(self) -> usize {
        self.height * self.width * self.channels
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} {}", self.width, self.height, if self.channels == 1 { "grey" } else { "RGB" })
    }
}

/// Pictures of one size, a byte for each value, each with a label where they have any. A copy, or a part, shares the bytes.
#[derive(Clone, Debug)]
pub struct Pictures {
    dims: Dims,
    /// (M, H, W, C) of all pictures that were read together.
    values: Arc<Vec<u8>>,
    /// M of them, below the number of names.
    labels: Option<Arc<Vec<u16>>>,
    names: Arc<Vec<String>>,
    /// Which of the M belong to this part: N of them.
    rows: Arc<Vec<u32>>,
}

impl Pictures {
    /// Pictures of `values` (N, H, W, C), with N `labels` below the number of `names`, or none.
    ///
    /// # Panics
    /// If the numbers do not agree.
    pub fn new(dims: Dims, values: Vec<u8>, labels: Option<Vec<u16>>, names: Vec<String>) -> Pictures {
        let count = values.len() / dims.values();
        assert_eq!(count * dims.values(), values.len(), "whole pictures");
        if let Some(labels) = &labels {
            assert_eq!(labels.len(), count, "a label for each picture");
            assert!(labels.iter().all(|&label| usize::from(label) < names.len()), "a name for each label");
        }
        let rows = (0..u32::try_from(count).expect("fewer than 2^32 pictures")).collect();
        Pictures {
            dims,
            values: Arc::new(values),
            labels: labels.map(Arc::new),
            names: Arc::new(names),
            rows: Arc::new(rows),
        }
    }

    /// N: how many there are.
    #[expect(clippy::len_without_is_empty, reason = "what was read has a picture at least")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The size of each.
    pub fn dims(&self) -> Dims {
        self.dims
    }

    /// Picture `index`, from 0: (H, W, C).
    pub fn get(&self, index: usize) -> &[u8] {
        let size = self.dims.values();
        &self.values[self.rows[index] as usize * size..][..size]
    }

    /// Its label, where there are labels.
    pub fn label(&self, index: usize) -> Option<usize> {
        self.labels.as_ref().map(|labels| usize::from(labels[self.rows[index] as usize]))
    }

    /// The names of labels, in their order; none where there are no labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many classes there are: 0 where there are no labels.
    pub fn classes(&self) -> usize {
        if self.labels.is_some() { self.names.len() } else { 0 }
    }

    /// The pictures whose index `keeps` says yes to, in order.
    pub fn part(&self, mut keeps: impl FnMut(usize) -> bool) -> Pictures {
        let rows = self.rows.iter().enumerate().filter(|&(index, _)| keeps(index)).map(|(_, &row)| row).collect();
        Pictures { rows: Arc::new(rows), ..self.clone() }
    }

    /// All values of this part, its labels and the names of these, to be made into something else.
    pub(super) fn into_parts(self) -> (Dims, Vec<u8>, Option<Vec<u16>>, Vec<String>) {
        let values = (0..self.len()).flat_map(|i| self.get(i)).copied().collect();
        let labels = self.labels.as_ref().map(|labels| self.rows.iter().map(|&row| labels[row as usize]).collect());
        (self.dims, values, labels, self.names.to_vec())
    }
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub struct Found {
    /// What a model learns from, or all there is.
    pub train: Pictures,
    /// What the source itself holds out, as MNIST's and CIFAR's test pictures.
    pub held_out: Option<Pictures>,
    /// Files that were passed over.
    pub skips: Skips,
}

impl Found {
    /// The training and the held-out pictures. Where the source holds none out itself, each picture is held out or not by
    /// the seed of `split` and its index ([`Split::holds_out`]); there is at least one on each side.
    ///
    /// # Errors
    /// The share is not between 0 and 1, or there is a single picture.
    pub fn split(self, split: &Split) -> Result<(Pictures, Pictures)> {
        if let Some(held_out) = self.held_out {
            return Ok((self.train, held_out));
        }
        split.check()?;
        let all = self.train;
        if all.len() < 2 {
            return Err(Error::failed("there is a single picture, and so nothing to hold out", "give more pictures"));
        }
        let mut out: Vec<bool> = (0..all.len() as u64).map(|index| split.holds_out(index)).collect();
        let held = out.iter().filter(|&&out| out).count();
        if held == 0 || held == out.len() {
            out[all.len() - 1] = held == 0;
        }
        Ok((all.part(|index| !out[index]), all.part(|index| out[index])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(count: usize) -> Pictures {
        let dims = Dims { height: 1, width: 2, channels: 1 };
        let values = (0..2 * count).map(|i| i as u8).collect();
        let labels = (0..count).map(|i| (i % 3) as u16).collect();
        Pictures::new(dims, values, Some(labels), ["a", "b", "c"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_part_has_its_own_pictures_and_labels() {
        let odd = grey(7).part(|i| i % 2 == 1);
        assert_eq!((odd.len(), odd.get(1), odd.label(1), odd.classes()), (3, &[6, 7][..], Some(0), 3));
        let (_, values, labels, _) = odd.part(|i| i == 2).into_parts();
        assert_eq!((values, labels), (vec![10, 11], Some(vec![2])));
    }

    #[test]
    fn a_split_takes_each_picture_once_and_leaves_none_of_its_sides_empty() {
        let found = |count| Found { train: grey(count), held_out: None, skips: Skips::default() };
        for (count, fraction) in [(100, 0.2), (2, 0.001), (2, 0.999), (3, 0.5)] {
            let (train, val) = found(count).split(&Split { fraction, ..Split::default() }).unwrap();
            assert!(train.len() > 0 && val.len() > 0, "{count} at {fraction}");
            let mut firsts: Vec<u8> =
                (0..train.len()).map(|i| train.get(i)[0]).chain((0..val.len()).map(|i| val.get(i)[0])).collect();
            firsts.sort_unstable();
            assert_eq!(firsts, (0..count).map(|i| 2 * i as u8).collect::<Vec<_>>());
        }
        assert!(found(1).split(&Split::default()).is_err());
        assert!(found(9).split(&Split { fraction: 1.0, ..Split::default() }).is_err());
        let own = Found { held_out: Some(grey(4)), ..found(9) };
        assert_eq!(own.split(&Split::default()).unwrap().1.len(), 4);
    }
}
