//! PNG and JPEG files to bytes.
//!
//! Read are grey, coloured and palette pictures of at most 8 bits a channel. What would have to be guessed is not: 16 bits
//! (which may be depths or X-rays with a scale of their own), CMYK (which needs a profile), transparency (which needs a ground).

use std::io::Read;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::set::Dims;
use crate::data::source::Reason;
use crate::data::source::walk::{self, Entry};
use crate::error::{Error, Result};

/// Width and height of a file, at most.
const SIDE: usize = 16_384;
/// Pixels of a file, at most.
const PIXELS: usize = 64 << 20;
/// Bytes of a file, at most.
const BYTES: u64 = 256 << 20;

/// The endings that are read, for messages.
pub(super) const KINDS: &str = ".png, .jpg or .jpeg";

/// A picture as it was read.
pub(super) struct Picture {
    pub dims: Dims,
    /// (H, W, C).
    pub values: Vec<u8>,
}

/// Why a file was not read: a reason, and what was found.
pub(super) type Unread = (Reason, String);

/// Whether the name is that of a picture.
pub(super) fn readable(path: &Path) -> Result<()> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if ["png", "jpg", "jpeg"].contains(&extension.as_str()) {
        return Ok(());
    }
    Err(Error::format(path, "kind of file", KINDS, format!(".{extension}"), "convert it to one of these"))
}

/// Reads a file that was met on a walk.
pub(super) fn file(entry: &Entry) -> Result<Picture, Unread> {
    if entry.bytes > BYTES {
        return Err((Reason::TooLong, format!("{} bytes", entry.bytes)));
    }
    let mut bytes = Vec::new();
    let read = walk::open(entry).and_then(|file| file.take(BYTES).read_to_end(&mut bytes));
    read.map_err(|e| (Reason::Unreadable, e.to_string()))?;
    picture(&bytes)
}

/// Reads a PNG or a JPEG, whatever it is called.
pub(super) fn picture(bytes: &[u8]) -> Result<Picture, Unread> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        [0xFF, 0xD8, ..] => jpeg(bytes),
        [] => Err((Reason::Damaged, "an empty file".to_owned())),
        _ => Err((
            Reason::Damaged,
            format!("neither a PNG nor a JPEG: it starts with {:?}", &bytes[..bytes.len().min(4)]),
        )),
    }
}

fn damaged(what: impl ToString) -> Unread {
    (Reason::Damaged, what.to_string())
}

/// The size of a file, if it is one that is unpacked.
fn dims(width: usize, height: usize, channels: usize) -> Result<Dims, Unread> {
    if width.max(height) > SIDE || width * height > PIXELS {
        return Err((Reason::TooLong, format!("{width} x {height} pixels")));
    }
    Ok(Dims { height, width, channels })
}

fn png(bytes: &[u8]) -> Result<Picture, Unread> {
    use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
    let mut decoder = Decoder::new_with_limits(bytes, Limits { bytes: 4 * PIXELS });
    // Palettes to colours, 1, 2 and 4 bits to 8.
    decoder.set_transformations(Transformations::EXPAND);
    let info = decoder.read_header_info().map_err(damaged)?;
    if info.bit_depth == BitDepth::Sixteen {
        return Err((Reason::Deep, "16 bits a channel".to_owned()));
    }
    let (width, height) = (info.width as usize, info.height as usize);
    dims(width, height, 1)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let mut values = vec![0; reader.output_buffer_size()];
    reader.next_frame(&mut values).map_err(damaged)?;
    let (channels, alpha) = match reader.output_color_type().0 {
        ColorType::Grayscale => (1, false),
        ColorType::GrayscaleAlpha => (1, true),
        ColorType::Rgb => (3, false),
        ColorType::Rgba => (3, true),
        ColorType::Indexed => return Err(damaged("a palette picture without a palette")),
    };
    if alpha {
        if values.chunks_exact(channels + 1).any(|pixel| pixel[channels] != 255) {
            return Err((Reason::Transparent, "pixels that are not opaque".to_owned()));
        }
        values = values.chunks_exact(channels + 1).flat_map(|pixel| &pixel[..channels]).copied().collect();
    }
    Ok(Picture { dims: dims(width, height, channels)?, values })
}

fn jpeg(bytes: &[u8]) -> Result<Picture, Unread> {
    // Strict: a file that ends too early is damaged, not grey from there on.
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(SIDE).set_max_height(SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (channels, out) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (1, ColorSpace::Luma),
        Some(ColorSpace::YCbCr | ColorSpace::RGB) => (3, ColorSpace::RGB),
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => return Err((Reason::Print, "a JPEG in CMYK".to_owned())),
        other => return Err(damaged(format!("a JPEG of the colours {other:?}"))),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let info = decoder.info().ok_or_else(|| damaged("no size"))?;
    let dims = dims(info.width.into(), info.height.into(), channels)?;
    let values = decoder.decode().map_err(damaged)?;
    if values.len() != dims.values() || dims.values() == 0 {
        return Err(damaged(format!("{} values for {dims}", values.len())));
    }
    Ok(Picture { dims, values })
}
