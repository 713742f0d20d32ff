//! Numbers to pictures that people look at: sheets of many side by side, and sheets one after the other.

use std::io::Read;
use std::path::Path;

use super::set::Dims;
use crate::data::atomic::write_atomic;
use crate::disk::{Disk, Open};
use crate::error::{AtPath, Error, Result};

/// How pictures are put on a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Pictures in a row.
    pub columns: usize,
    /// Pixels between pictures and around them.
    pub gap: usize,
    /// Pixels of the sheet for each of a picture, in both directions.
    pub scale: usize,
}

/// The brightness between pictures: neither black nor white.
const GROUND: u8 = 96;

/// Pixels of a sheet, at most.
const PIXELS: usize = 64 << 20;

impl Grid {
    /// Rows of `columns` pictures of `dims`, scaled so that small ones are seen well: to at least 56 pixels.
    pub fn new(columns: usize, dims: Dims) -> Grid {
        Grid { columns, gap: 2, scale: 56usize.div_ceil(dims.height.max(dims.width)).max(1) }
    }

    /// A sheet of pictures (N, H, W, C), row by row; places behind the last one are left empty.
    ///
    /// # Panics
    /// If the values are no whole pictures, or there are no columns.
    pub fn draw(&self, pictures: &[u8], dims: Dims) -> Sheet {
        let Grid { columns, gap, scale } = *self;
        let Dims { height, width, channels } = dims;
        assert!(pictures.len().is_multiple_of(dims.values()) && columns > 0 && scale > 0, "whole pictures of {dims}");
        let count = pictures.len() / dims.values();
        let (cell_w, cell_h) = (scale * width + gap, scale * height + gap);
        let mut sheet = Sheet::empty(columns * cell_w + gap, count.div_ceil(columns) * cell_h + gap, channels);
        let line = sheet.dims.width * channels;
        for (i, picture) in pictures.chunks_exact(dims.values()).enumerate() {
            let (left, top) = (i % columns * cell_w + gap, i / columns * cell_h + gap);
            for y in 0..scale * height {
                let from = &picture[y / scale * width * channels..][..width * channels];
                let to = &mut sheet.values[(top + y) * line + left * channels..][..scale * width * channels];
                for (pixel, to) in from.chunks_exact(channels).zip(to.chunks_exact_mut(scale * channels)) {
                    to.chunks_exact_mut(channels).for_each(|to| to.copy_from_slice(pixel));
                }
            }
        }
        sheet
    }

    /// Two sets of as many pictures, a row of the one above a row of the other: pictures and their reconstructions.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn pairs(&self, above: &[u8], below: &[u8], dims: Dims) -> Sheet {
        assert_eq!(above.len(), below.len(), "pairs of pictures");
        let row = self.columns * dims.values();
        let mut both = Vec::with_capacity(2 * above.len());
        for (above, below) in above.chunks(row).zip(below.chunks(row)) {
            // The last row may be short: its pictures stay above one another.
            for half in [above, below] {
                both.extend(half);
                both.extend(std::iter::repeat_n(GROUND, row - half.len()));
            }
        }
        self.draw(&both, dims)
    }
}

/// A picture to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// Its size.
    pub dims: Dims,
    /// (H, W, C).
    pub values: Vec<u8>,
}

impl Sheet {
    fn empty(width: usize, height: usize, channels: usize) -> Sheet {
        Sheet { dims: Dims { height, width, channels }, values: vec![GROUND; width * height * channels] }
    }

    /// Writes it as PNG, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        let written = self.encoder(&mut bytes).write_header().and_then(|mut png| png.write_image_data(&self.values));
        written.map_err(std::io::Error::from).at(path)?;
        write_atomic(disk, path, &bytes)
    }

    /// Reads a PNG that [`Sheet::save`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Sheet> {
        let mut bytes = Vec::new();
        let file = disk.open(path, Open::Read).at(path)?;
        file.take(256 << 20).read_to_end(&mut bytes).at(path)?;
        let picture = super::decode::picture(&bytes).map_err(|(_, what)| {
            Error::format(path, "picture", "a PNG of at most 8 bits a channel", what, "remove it")
        })?;
        Ok(Sheet { dims: picture.dims, values: picture.values })
    }

    fn encoder<'a>(&self, to: &'a mut Vec<u8>) -> png::Encoder<'static, &'a mut Vec<u8>> {
        let mut encoder = png::Encoder::new(to, self.dims.width as u32, self.dims.height as u32);
        encoder.set_color(if self.dims.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder
    }
}

/// Writes sheets of one size, one after the other, as an animated PNG that runs for ever: `millis` for each, and eight times
/// as long for the last. Where nothing animates it, the last one is shown.
///
/// # Errors
/// There are none, sizes differ, they are too large in all, or the file cannot be written.
pub fn animate(disk: &dyn Disk, path: &Path, sheets: &[Sheet], millis: u16) -> Result<()> {
    let Some(last) = sheets.last() else {
        return Err(Error::failed("there is no sheet to show one after the other", "save some while training"));
    };
    if let Some(other) = sheets.iter().find(|sheet| sheet.dims != last.dims) {
        let problem = format!("sheets of {} and {} are not shown one after the other", other.dims, last.dims);
        return Err(Error::failed(problem, "remove those of the other size"));
    }
    if sheets.len().saturating_mul(last.dims.width * last.dims.height) > PIXELS {
        let problem = format!("{} sheets of {} are too large to be animated", sheets.len(), last.dims);
        return Err(Error::failed(problem, "take fewer of them"));
    }
    let mut bytes = Vec::new();
    let mut encode = || {
        let mut encoder = last.encoder(&mut bytes);
        encoder.set_animated(sheets.len() as u32, 0)?;
        // What comes first is for those that do not animate, and no part of the animation.
        encoder.set_sep_def_img(true)?;
        encoder.set_frame_delay(millis, 1000)?;
        let mut png = encoder.write_header()?;
        png.write_image_data(&last.values)?;
        for (i, sheet) in sheets.iter().enumerate() {
            let last = i + 1 == sheets.len();
            png.set_frame_delay(if last { millis.saturating_mul(8) } else { millis }, 1000)?;
            png.write_image_data(&sheet.values)?;
        }
        png.finish()
    };
    encode().map_err(std::io::Error::from).at(path)?;
    write_atomic(disk, path, &bytes)
}
