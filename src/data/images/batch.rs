//! Pictures to batches, in an order that is a pure function of (seed, step).
//!
//! An epoch visits every picture once, in a random order; batches go on over the end of an epoch. Order, flips and shifts
//! come from the seed and the number of the picture among all that were drawn: nothing is stored, and any step can be replayed
//! without those before it.

use serde::{Deserialize, Serialize};

use super::set::{Dims, Pictures};
use crate::data::batch::Permutation;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// The numbers that a byte stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Range {
    /// 0 to 1: v / 255.
    #[default]
    Unit,
    /// −1 to 1: 2 v / 255 − 1, as generators that end in tanh want it.
    Signed,
}

impl Range {
    /// The number of a byte.
    #[inline]
    pub fn value(self, byte: u8) -> f32 {
        let unit = f32::from(byte) / 255.0;
        match self {
            Range::Unit => unit,
            Range::Signed => 2.0 * unit - 1.0,
        }
    }

    /// The byte nearest to a number; what is outside of the range, or not a number, goes to its ends.
    #[inline]
    pub fn byte(self, value: f32) -> u8 {
        let unit = match self {
            Range::Unit => value,
            Range::Signed => 0.5 * value + 0.5,
        };
        // `as` saturates.
        (255.0 * unit + 0.5) as u8
    }

    /// The bytes of many.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        values.iter().map(|&value| self.byte(value)).collect()
    }
}

/// How pictures are varied when they are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augment {
    /// Half of them are mirrored, left to right.
    pub flip: bool,
    /// They are moved by up to so many pixels, down or up and to the left or right; what comes in is black.
    pub shift: usize,
}

/// Training batches: B pictures in random order.
#[derive(Clone, Debug)]
pub struct PictureBatches {
    pictures: Pictures,
    batch: usize,
    range: Range,
    augment: Augment,
    seed: u64,
}

/// The stream of flips and shifts among those of [`Purpose::Order`]; orders have low numbers, the split the last.
const STREAM: u32 = 0xFF_FFFE;

impl PictureBatches {
    /// Batches of `batch` pictures (B).
    ///
    /// # Errors
    /// The batch is empty, or a picture would be moved out of sight.
    pub fn new(pictures: Pictures, batch: usize, range: Range, augment: Augment, seed: u64) -> Result<PictureBatches> {
        if batch == 0 {
            return Err(Error::config("train.batch", "0 is not possible", "give 1 or more"));
        }
        let side = pictures.dims().height.min(pictures.dims().width);
        if augment.shift >= side {
            let problem = format!("{} pixels move a picture of {side} out of sight", augment.shift);
            return Err(Error::config("data.shift", problem, "give 2 or 3 for small pictures"));
        }
        Ok(PictureBatches { pictures, batch, range, augment, seed })
    }

    /// The pictures.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// The index of the picture that is drawn as number `draw`, counted over all batches and epochs.
    pub fn index(&self, draw: u64) -> usize {
        let count = self.pictures.len() as u64;
        Permutation::new(count, self.seed, draw / count).get(draw % count) as usize
    }

    /// Fills `x` (B, H, W, C) with batch number `number`, from 0, and `labels` (B), which may be empty where they are not
    /// wanted. Allocates nothing.
    ///
    /// # Panics
    /// If the sizes are other ones, or labels are wanted where there are none.
    pub fn fill(&self, number: u64, x: &mut [f32], labels: &mut [i32]) {
        let dims = self.pictures.dims();
        assert_eq!(x.len(), self.batch * dims.values(), "x is (B, H, W, C)");
        assert!(labels.is_empty() || labels.len() == self.batch, "labels are (B)");
        let draws = number * self.batch as u64..;
        for (i, (draw, x)) in draws.zip(x.chunks_exact_mut(dims.values())).enumerate() {
            let index = self.index(draw);
            if let Some(label) = labels.get_mut(i) {
                *label = self.pictures.label(index).expect("the pictures have labels") as i32;
            }
            let (flip, down, right) = self.variation(draw);
            vary(self.pictures.get(index), dims, self.range, flip, down, right, x);
        }
    }

    /// Whether a picture is mirrored, and by how many pixels it is moved.
    fn variation(&self, draw: u64) -> (bool, isize, isize) {
        let Augment { flip, shift } = self.augment;
        if !flip && shift == 0 {
            return (false, 0, 0);
        }
        let bits = Stream::new(self.seed, Purpose::Order, STREAM, draw).block(0);
        // 32 random bits scaled to the range: a bias of at most (2·shift + 1) / 2^32.
        let by = |bits: u32| ((u64::from(bits) * (2 * shift as u64 + 1)) >> 32) as isize - shift as isize;
        (flip && bits[0] & 1 == 1, by(bits[1]), by(bits[2]))
    }

    /// Pictures that a batch holds: B.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Batches in which every picture is seen once; a fraction.
    pub fn per_epoch(&self) -> f64 {
        self.pictures.len() as f64 / self.batch as f64
    }
}

impl Pictures {
    /// Fills `x` (B, H, W, C) with the pictures from `first` on, in order and as they are, and `labels` (B), which may be
    /// empty; returns how many there were. What is left of `x` and `labels` behind the last picture is 0. For evaluation.
    ///
    /// # Panics
    /// If the sizes do not agree, or labels are wanted where there are none.
    pub fn fill(&self, first: usize, range: Range, x: &mut [f32], labels: &mut [i32]) -> usize {
        let (dims, batch) = (self.dims(), x.len() / self.dims().values());
        assert_eq!(x.len(), batch * dims.values(), "x is (B, H, W, C)");
        assert!(labels.is_empty() || labels.len() == batch, "labels are (B)");
        let count = batch.min(self.len().saturating_sub(first));
        for (i, x) in x.chunks_exact_mut(dims.values()).take(count).enumerate() {
            vary(self.get(first + i), dims, range, false, 0, 0, x);
            if let Some(label) = labels.get_mut(i) {
                *label = self.label(first + i).expect("the pictures have labels") as i32;
            }
        }
        x[count * dims.values()..].fill(0.0);
        labels.iter_mut().skip(count).for_each(|label| *label = 0);
        count
    }
}

/// Writes a picture as numbers, mirrored where `flip` says so and then moved.
fn vary(picture: &[u8], dims: Dims, range: Range, flip: bool, down: isize, right: isize, x: &mut [f32]) {
    if !flip && (down, right) == (0, 0) {
        x.iter_mut().zip(picture).for_each(|(x, &byte)| *x = range.value(byte));
        return;
    }
    let Dims { height, width, channels } = dims;
    let black = range.value(0);
    let within = |at: isize, size: usize| (0..size as isize).contains(&at).then_some(at as usize);
    for (row, x) in x.chunks_exact_mut(width * channels).enumerate() {
        let Some(from) = within(row as isize - down, height) else {
            x.fill(black);
            continue;
        };
        let from = &picture[from * width * channels..][..width * channels];
        for (column, x) in x.chunks_exact_mut(channels).enumerate() {
            match within(column as isize - right, width) {
                Some(at) => {
                    let at = if flip { width - 1 - at } else { at };
                    x.iter_mut().zip(&from[at * channels..]).for_each(|(x, &byte)| *x = range.value(byte));
                }
                None => x.fill(black),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(count: usize) -> Pictures {
        let dims = Dims { height: 2, width: 3, channels: 1 };
        let values = (0..6 * count).map(|i| (i % 251) as u8).collect();
        let labels = (0..count).map(|i| i as u16).collect();
        Pictures::new(dims, values, Some(labels), (0..count).map(|i| i.to_string()).collect())
    }

    fn batches(seed: u64, augment: Augment) -> PictureBatches {
        PictureBatches::new(pictures(10), 4, Range::Unit, augment, seed).unwrap()
    }

    fn labels(batches: &PictureBatches, number: u64) -> Vec<i32> {
        let (mut x, mut labels) = (vec![f32::NAN; 24], vec![-1; 4]);
        batches.fill(number, &mut x, &mut labels);
        for (x, &label) in x.chunks(6).zip(&labels) {
            let want: Vec<f32> = batches.pictures.get(label as usize).iter().map(|&v| f32::from(v) / 255.0).collect();
            assert_eq!(x, want, "the picture that belongs to label {label}");
        }
        labels
    }

    #[test]
    fn every_epoch_visits_each_picture_once_in_an_order_of_its_own() {
        let batches = batches(1, Augment::default());
        let drawn: Vec<i32> = (0..10).flat_map(|number| labels(&batches, number)).collect();
        for epoch in drawn.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(drawn[..10], drawn[10..20]);
        assert_eq!(batches.per_epoch(), 2.5);
    }

    #[test]
    fn a_batch_depends_on_the_seed_and_its_number_alone() {
        assert_eq!(labels(&batches(1, Augment::default()), 7), labels(&batches(1, Augment::default()), 7));
        assert_ne!(labels(&batches(1, Augment::default()), 7), labels(&batches(2, Augment::default()), 7));
        let (all, mut x, mut y) = (batches(3, Augment { flip: true, shift: 1 }), vec![0.0; 24], vec![1.0; 24]);
        all.fill(5, &mut x, &mut []);
        (0..9).chain([5]).for_each(|number| all.fill(number, &mut y, &mut []));
        assert_eq!(x, y);
    }

    #[test]
    fn pictures_are_mirrored_and_moved_as_often_as_they_should() {
        let dims = Dims { height: 2, width: 3, channels: 2 };
        let picture: Vec<u8> = (1..=12).collect();
        let varied = |flip, down, right| {
            let mut x = [f32::NAN; 12];
            vary(&picture, dims, Range::Signed, flip, down, right, &mut x);
            Range::Signed.bytes(&x)
        };
        assert_eq!(varied(false, 0, 0), picture);
        assert_eq!(varied(true, 0, 0), [5, 6, 3, 4, 1, 2, 11, 12, 9, 10, 7, 8]);
        assert_eq!(varied(false, 1, -1), [0, 0, 0, 0, 0, 0, 3, 4, 5, 6, 0, 0]);
        assert_eq!(varied(true, -1, 1), [0, 0, 11, 12, 9, 10, 0, 0, 0, 0, 0, 0]);
        // Nine places and two sides, evenly: chi-square of 17 degrees, below 40.8 in 99.9 %.
        let batches = PictureBatches::new(pictures(1), 1, Range::Unit, Augment { flip: true, shift: 1 }, 3).unwrap();
        let mut counts = [[0f64; 9]; 2];
        for draw in 0..9000 {
            let (flip, down, right) = batches.variation(draw);
            counts[usize::from(flip)][(3 * (down + 1) + right + 1) as usize] += 1.0;
        }
        let chi: f64 = counts.iter().flatten().map(|n| (n - 500.0).powi(2) / 500.0).sum();
        assert!(chi < 40.8, "{chi}: {counts:?}");
        assert!(PictureBatches::new(pictures(1), 1, Range::Unit, Augment { flip: false, shift: 2 }, 3).is_err());
        assert!(PictureBatches::new(pictures(1), 0, Range::Unit, Augment::default(), 3).is_err());
    }

    #[test]
    fn bytes_come_back_and_the_ends_are_exact() {
        for range in [Range::Unit, Range::Signed] {
            (0..=255).for_each(|byte| assert_eq!(range.byte(range.value(byte)), byte, "{range:?}"));
            assert_eq!((range.byte(9.0), range.byte(-9.0), range.byte(f32::NAN)), (255, 0, 0));
        }
        assert_eq!([0, 255].map(|byte| Range::Unit.value(byte)), [0.0, 1.0]);
        assert_eq!([0, 255].map(|byte| Range::Signed.value(byte)), [-1.0, 1.0]);
    }

    #[test]
    fn in_order_the_last_batch_is_as_full_as_it_is() {
        let (all, mut x, mut labels) = (pictures(5), vec![f32::NAN; 18], vec![-1; 3]);
        assert_eq!(all.fill(0, Range::Unit, &mut x, &mut labels), 3);
        assert_eq!(labels, [0, 1, 2]);
        assert_eq!(all.fill(3, Range::Unit, &mut x, &mut labels), 2);
        assert_eq!((&labels[..], &x[12..]), (&[3, 4, 0][..], &[0.0; 6][..]));
        assert_eq!(Range::Unit.bytes(&x[6..12]), all.get(4));
        assert_eq!(all.fill(5, Range::Unit, &mut x, &mut []), 0);
    }
}
