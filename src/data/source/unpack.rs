//! The bytes of a file, unpacked as they are read, with a guard against files that unpack without end.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::rc::Rc;

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Limits;
use super::kind::Packing;
use super::skip::Reason;

const BUFFER: usize = 1 << 18;

/// A stream of unpacked bytes that knows how many packed ones it took.
pub(super) struct Unpacked {
    pub bytes: Box<dyn BufRead>,
    packed: Rc<Cell<u64>>,
}

impl Unpacked {
    /// Packed bytes read so far.
    pub fn packed(&self) -> u64 {
        self.packed.get()
    }

    /// Reads `file`, which is packed so.
    pub fn new(file: File, packing: Packing, limits: &Limits) -> Unpacked {
        let packed = Rc::new(Cell::new(0));
        let file = BufReader::with_capacity(BUFFER, Counted { inner: file, count: packed.clone() });
        let guard = |inner: Box<dyn Read>| -> Box<dyn BufRead> {
            let guard = Guard { inner, packed: packed.clone(), unpacked: 0, limits: *limits };
            Box::new(BufReader::with_capacity(BUFFER, guard))
        };
        let bytes = match packing {
            Packing::None => Box::new(file),
            Packing::Gzip => guard(Box::new(flate2::bufread::MultiGzDecoder::new(file))),
            Packing::Zstd => guard(Box::new(Zstd::new(file, limits.window()))),
        };
        Unpacked { bytes, packed }
    }
}

/// Counts what is read of the file.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// Stops where far more comes out than went in.
struct Guard {
    inner: Box<dyn Read>,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    limits: Limits,
}

/// Up to here a file may be packed as well as it likes: texts of blanks are no attack.
const FREE: u64 = 16 << 20;

impl Read for Guard {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.unpacked += n as u64;
        let (packed, unpacked) = (self.packed.get(), self.unpacked);
        if unpacked > FREE.max(packed.saturating_mul(self.limits.ratio)) {
            let ratio = self.limits.ratio;
            return Err(Refused::io(format!(
                "{packed} bytes that unpack to over {unpacked}, more than {ratio} to one"
            )));
        }
        if unpacked > self.limits.unpacked {
            return Err(Refused::io(format!("more than {} unpacked bytes", self.limits.unpacked)));
        }
        Ok(n)
    }
}

/// What the guard says, so that it is told from damage.
#[derive(Debug)]
struct Refused(String);

impl Refused {
    fn io(what: String) -> io::Error {
        io::Error::other(Refused(what))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Why a stream failed.
pub(super) fn reason(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Reason::Damaged,
        ErrorKind::InvalidInput if error.raw_os_error().is_none() => Reason::Damaged,
        _ if error.get_ref().is_some_and(|inner| inner.is::<Refused>()) => Reason::Bomb,
        _ => Reason::Unreadable,
    }
}

/// All frames of a Zstandard file.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R, window: u64) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window);
        Zstd { source, decoder, in_frame: false }
    }

    /// Begins the next frame; `false` at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    return Err(Refused::io(format!("a window of {requested} bytes, more than {max}")));
                }
                Err(e) => return Err(damaged(e)),
            }
        }
        Ok(false)
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.begin()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(damaged)?;
            }
            match self.decoder.read(to)? {
                0 => {
                    let stated = self.decoder.get_checksum_from_data();
                    if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
                        return Err(io::Error::new(ErrorKind::InvalidData, "the checksum does not agree"));
                    }
                    self.in_frame = false;
                }
                n => return Ok(n),
            }
        }
    }
}

/// A stream in UTF-16 as one in UTF-8. What is no character becomes U+FFFD.
pub(super) struct Transcoded<R> {
    source: R,
    decoder: encoding_rs::Decoder,
    ended: bool,
    /// What is decoded, and how much of it was read.
    out: Vec<u8>,
    read: usize,
}

impl<R: BufRead> Transcoded<R> {
    pub fn new(source: R, encoding: &'static encoding_rs::Encoding) -> Transcoded<R> {
        let decoder = encoding.new_decoder_with_bom_removal();
        Transcoded { source, decoder, ended: false, out: Vec::new(), read: 0 }
    }
}

impl<R: BufRead> Read for Transcoded<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(to)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Transcoded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read == self.out.len() && !self.ended {
            self.out.resize(BUFFER, 0);
            let from = self.source.fill_buf()?;
            let last = from.is_empty();
            let (result, read, written, _) = self.decoder.decode_to_utf8(from, &mut self.out, last);
            self.source.consume(read);
            self.ended = last && result == encoding_rs::CoderResult::InputEmpty;
            self.out.truncate(written);
            self.read = 0;
        }
        Ok(&self.out[self.read..])
    }

    fn consume(&mut self, n: usize) {
        self.read += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_and_skippable_ones_are_skipped() {
        let frame = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let file = [&frame(b"one "), &skippable[..], &frame(b""), &frame(b"two")].concat();
        let read = |file: &[u8], window| {
            let mut text = String::new();
            Zstd::new(file, window).read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(&file, 1 << 27).unwrap(), "one two");
        for cut in [1, 3, 10, file.len() - 1] {
            let error = read(&file[..cut], 1 << 27).unwrap_err();
            assert_eq!(reason(&error), Reason::Damaged, "{cut}: {error}");
        }
        let mut flipped = frame(&b"some text, some text".repeat(100));
        let at = flipped.len() - 6;
        flipped[at] ^= 0x10;
        assert_eq!(reason(&read(&flipped, 1 << 27).unwrap_err()), Reason::Damaged);
    }

    #[test]
    fn utf_16_arrives_as_utf_8_in_any_pieces() {
        let text = "a\u{e9}\u{1f600}\n".repeat(50);
        for (mark, bytes) in [
            (&[0xff, 0xfe], text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
            (&[0xfe, 0xff], text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ] {
            let file = [mark, &bytes[..]].concat();
            let (encoding, _) = encoding_rs::Encoding::for_bom(&file).unwrap();
            for capacity in [1, 3, 4096] {
                let mut out = String::new();
                let pieces = BufReader::with_capacity(capacity, &file[..]);
                Transcoded::new(pieces, encoding).read_to_string(&mut out).unwrap();
                assert_eq!(out, text);
            }
        }
    }
}
