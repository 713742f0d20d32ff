//! Pictures to the size and the colours that were asked for.
//!
//! The largest square in the middle is scaled by a triangle filter, first along rows, then along columns: between pixels when
//! it grows, over 1/scale pixels on each side when it shrinks, so that nothing is left out (as Pillow's BILINEAR). Grey is
//! 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, which JPEG uses too).

use std::path::Path;

use rayon::prelude::*;

use super::decode::Picture;
use super::set::{Dims, Pictures};
use super::{Colour, LIMIT, Reading};
use crate::error::{Error, Result};

/// Makes a picture to what was asked for.
pub(super) fn one(picture: Picture, how: &Reading) -> Picture {
    let picture = match how.size {
        Some(size) if (picture.dims.width, picture.dims.height) != (size, size) => scaled(&picture, size),
        _ => picture,
    };
    match (how.colour, picture.dims.channels) {
        (Some(Colour::Rgb), 1) => {
            Picture { dims: Dims { channels: 3, ..picture.dims }, values: grey_to_rgb(&picture.values) }
        }
        (Some(Colour::Grey), 3) => {
            let grey = |pixel: &[u8]| {
                let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
                // Shares of 2^16, as Pillow has them.
                ((19_595 * r + 38_470 * g + 7_471 * b + (1 << 15)) >> 16) as u8
            };
            let values = picture.values.chunks_exact(3).map(grey).collect();
            Picture { dims: Dims { channels: 1, ..picture.dims }, values }
        }
        _ => picture,
    }
}

/// The same picture in three equal channels.
pub(super) fn grey_to_rgb(values: &[u8]) -> Vec<u8> {
    values.iter().flat_map(|&value| [value; 3]).collect()
}

/// Makes a whole set to what was asked for. `path` is where it comes from.
///
/// # Errors
/// It would not fit into memory.
pub(super) fn all(pictures: Pictures, how: &Reading, path: &Path) -> Result<Pictures> {
    let dims = pictures.dims();
    let first = one(Picture { dims, values: pictures.get(0).to_vec() }, how).dims;
    if first == dims {
        return Ok(pictures);
    }
    room(path, pictures.len(), first)?;
    let (_, values, labels, names) = pictures.into_parts();
    let each = values.par_chunks_exact(dims.values());
    let values = each.flat_map_iter(|values| one(Picture { dims, values: values.to_vec() }, how).values).collect();
    Ok(Pictures::new(first, values, labels, names))
}

/// Fails where so many pictures are more than memory is meant for.
pub(super) fn room(path: &Path, count: usize, dims: Dims) -> Result<()> {
    if count.saturating_mul(dims.values()) <= LIMIT {
        return Ok(());
    }
    Err(Error::failed(
        format!("{}: {count} pictures of {dims} are more than {} GiB", path.display(), LIMIT >> 30),
        "give a smaller --size, or fewer pictures",
    ))
}

/// The pixels that one pixel of the result is made of: the first, and their weights, which sum to 1.
fn filter(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let pixel = |i: usize| {
        let middle = (i as f64 + 0.5) * scale;
        let first = (middle - reach + 0.5).max(0.0) as usize;
        let last = ((middle + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..last).map(|j| (1.0 - (j as f64 + 0.5 - middle).abs() / reach).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.iter().map(|weight| (weight / sum) as f32).collect())
    };
    (0..to).map(pixel).collect()
}

/// The square in the middle at `size` × `size`.
fn scaled(picture: &Picture, size: usize) -> Picture {
    let Dims { height, width, channels } = picture.dims;
    let side = height.min(width);
    let (top, left) = ((height - side) / 2, (width - side) / 2);
    let filter = filter(side, size);
    // (side, size, C): rows are scaled.
    let mut rows = vec![0.0f32; side * size * channels];
    for (y, out) in rows.chunks_exact_mut(size * channels).enumerate() {
        let row = &picture.values[((top + y) * width + left) * channels..];
        for (out, (first, weights)) in out.chunks_exact_mut(channels).zip(&filter) {
            for (weight, pixel) in weights.iter().zip(row[first * channels..].chunks_exact(channels)) {
                out.iter_mut().zip(pixel).for_each(|(out, &value)| *out += weight * f32::from(value));
            }
        }
    }
    let mut values = Vec::with_capacity(size * size * channels);
    let mut line = vec![0.0f32; size * channels];
    for (first, weights) in &filter {
        line.fill(0.0);
        for (weight, row) in weights.iter().zip(rows.chunks_exact(size * channels).skip(*first)) {
            line.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
        }
        values.extend(line.iter().map(|&value| (value + 0.5) as u8));
    }
    Picture { dims: Dims { height: size, width: size, channels }, values }
}
