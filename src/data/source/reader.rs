//! The documents of one file, whatever its format.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::kind::{self, Format};
use super::skip::{Reason, Trouble};
use super::split::{Piece, Splitter};
use super::unpack::{self, Transcoded, Unpacked};
use super::walk::{self, Entry};
use super::{Document, Limits, html, json};
use crate::data::repair;
use crate::data::tokenizer::END_OF_TEXT;
use crate::error::Error;

/// How a file is read.
#[derive(Clone, Debug)]
pub(super) struct How {
    /// The field of the text in JSON and tables.
    pub field: String,
    pub limits: Limits,
    /// Whether other encodings than UTF-8 are decoded, and binary files told.
    pub lenient: bool,
}

/// Reads a file to its end, or until `give` wants no more. `give` gets each document or what is wrong, and the bytes of
/// the file read so far.
pub(super) fn read(entry: &Entry, how: &How, give: &mut dyn FnMut(Result<Document, Trouble>, u64) -> bool) {
    let failed = |e| Trouble::end(unpack::reason(&e), Error::io(&entry.path, e));
    let file = match walk::open(entry) {
        Ok(file) => file,
        Err(e) => {
            give(Err(failed(e)), 0);
            return;
        }
    };
    let Some((format, packing)) = kind::of(&entry.path) else { return };
    if format == Format::Parquet {
        #[cfg(feature = "parquet")]
        super::parquet::read(file, entry, how, give);
        return;
    }
    let mut unpacked = Unpacked::new(file, packing, &how.limits);
    let mut reader = match Reader::new(&entry.path, format, &mut unpacked, how) {
        Ok(reader) => reader,
        Err(trouble) => {
            give(Err(trouble), 0);
            return;
        }
    };
    loop {
        let found = match reader.next(&mut *unpacked.bytes) {
            Ok(None) => return,
            Ok(Some(document)) => Ok(document),
            Err(trouble) => Err(trouble),
        };
        let ends = matches!(&found, Err(trouble) if trouble.ends);
        if !give(found, unpacked.packed()) || ends {
            return;
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    format: Format,
    how: &'a How,
    pieces: Splitter,
    buffer: Vec<u8>,
    /// What the whole stream was decoded from.
    encoding: Option<&'static str>,
}

/// Whole pages are one document: a delimiter that no page holds.
const NEVER: &[u8] = b"\xff\x00\xff\x00 end";

/// As much of a file as is looked at to see whether it is text.
const LOOK: usize = 8192;

impl<'a> Reader<'a> {
    /// Looks at the start of a stream, and takes a UTF-16 one to UTF-8.
    fn new(path: &'a Path, format: Format, stream: &mut Unpacked, how: &'a How) -> Result<Reader<'a>, Trouble> {
        let delimiter = match format {
            Format::Jsonl => b"\n",
            Format::Html => NEVER,
            Format::Text | Format::Parquet => END_OF_TEXT.as_bytes(),
        };
        let pieces = Splitter::new(delimiter, how.limits.document);
        let mut reader = Reader { path, format, how, pieces, buffer: Vec::new(), encoding: None };
        if !how.lenient {
            return Ok(reader);
        }
        // A file may begin with a mark of UTF-16, or be no text at all; of JSON, each line tells for itself.
        let start = stream.bytes.fill_buf().map_err(|e| reader.failed(e))?;
        let start = &start[..start.len().min(LOOK)];
        match encoding_rs::Encoding::for_bom(start) {
            Some((encoding, _)) if encoding != encoding_rs::UTF_8 => {
                reader.encoding = Some(encoding.name());
                let inner = std::mem::replace(&mut stream.bytes, Box::new(std::io::empty()));
                stream.bytes = Box::new(Transcoded::new(inner, encoding));
            }
            _ => {}
        }
        let start = stream.bytes.fill_buf().map_err(|e| reader.failed(e))?;
        let start = &start[..start.len().min(LOOK)];
        let nuls = memchr::memchr_iter(0, start).count();
        if 100 * nuls > start.len() && format != Format::Jsonl {
            let found = format!("{nuls} NULs in the first {} bytes", start.len());
            let error = Error::format(path, "byte 0", "text", found, "leave it out, or convert it to UTF-8 text");
            return Err(Trouble::end(Reason::Binary, error));
        }
        Ok(reader)
    }

    fn failed(&self, e: std::io::Error) -> Trouble {
        let (reason, at) = (unpack::reason(&e), format!("byte {} of the text", self.pieces.offset));
        let hint = match reason {
            Reason::Damaged => "the file is damaged, or was not copied whole: get it again",
            Reason::Bomb => "unpack it yourself if you trust it",
            _ => return Trouble::end(reason, Error::io(self.path, e)),
        };
        Trouble::end(reason, Error::format(self.path, at, "a whole packed file", e, hint))
    }

    /// The next document that has text; `None` at the end of the file.
    fn next(&mut self, source: &mut dyn BufRead) -> Result<Option<Document>, Trouble> {
        loop {
            match self.piece(source)? {
                Some(document) if document.text.is_empty() => {}
                found => return Ok(found),
            }
        }
    }

    /// The next document, possibly empty; `None` at the end of the file.
    fn piece(&mut self, source: &mut dyn BufRead) -> Result<Option<Document>, Trouble> {
        let (offset, mut line) = (self.pieces.offset, self.pieces.line);
        match self.pieces.next(source, &mut self.buffer) {
            Ok(Piece::Whole) => {}
            Ok(Piece::End) => return Ok(None),
            Ok(Piece::TooLong) => {
                let what = if self.format == Format::Jsonl { "line" } else { "document" };
                let found = format!("a {what} of {} bytes", self.pieces.offset - offset);
                let expected = format!("at most {}", self.how.limits.document);
                let hint = "cut it into documents, or raise the limit on a document";
                let error = Error::format(self.path, format!("line {line}"), expected, found, hint);
                return Err(Trouble::one(Reason::TooLong, error));
            }
            Err(e) => return Err(self.failed(e)),
        }
        if self.format == Format::Jsonl && self.buffer.trim_ascii().is_empty() {
            return Ok(Some(Document::default()));
        }
        let (mut text, mut encoding) = self.text(offset)?;
        if offset == 0 && text.starts_with('\u{FEFF}') {
            text.drain(..'\u{FEFF}'.len_utf8()); // a byte-order mark tells the encoding; it is no text
        }
        encoding = encoding.or(self.encoding);
        let source = PathBuf::from(self.path);
        match self.format {
            Format::Jsonl => {
                let json::Fields { text, id, metadata } = json::fields(&text, &self.how.field, self.path, line)?;
                Ok(Some(Document { text, source, line, id, metadata, encoding }))
            }
            Format::Html => {
                Ok(Some(Document { text: html::text(&text), source, line, encoding, ..Document::default() }))
            }
            Format::Text | Format::Parquet => {
                if text.ends_with(END_OF_TEXT) {
                    text.truncate(text.len() - END_OF_TEXT.len());
                }
                if offset > 0 {
                    let after_marker = if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) };
                    text.drain(..after_marker);
                    line += u64::from(after_marker > 0);
                }
                Ok(Some(Document { text, source, line, encoding, ..Document::default() }))
            }
        }
    }

    /// The buffer, which starts at byte `offset`, as text, and what it was decoded from.
    fn text(&mut self, offset: u64) -> Result<(String, Option<&'static str>), Trouble> {
        let error = match String::from_utf8(std::mem::take(&mut self.buffer)) {
            Ok(text) => return Ok((text, None)),
            Err(error) => error,
        };
        if self.how.lenient {
            let stated = if self.format == Format::Html { charset(error.as_bytes()) } else { None };
            let decoded = repair::decode(error.as_bytes(), stated.as_deref());
            return Ok((decoded.text.into_owned(), decoded.encoding));
        }
        let at = error.utf8_error().valid_up_to();
        let bad = error.as_bytes()[at];
        let hint = "convert the file to UTF-8, for example with: iconv -f LATIN1 -t UTF-8";
        let (at, found) = (format!("byte {}", offset + at as u64), format!("the byte 0x{bad:02x}"));
        Err(Trouble::one(Reason::NotUtf8, Error::format(self.path, at, "UTF-8 text", found, hint)))
    }
}

/// The encoding that a page names in its first kilobyte: `<meta charset="…">`, or in `http-equiv`.
fn charset(page: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&page[..page.len().min(1024)]).to_ascii_lowercase();
    let (_, after) = head.split_once("charset=")?;
    let name = after.trim_start_matches(['"', '\'', ' ']);
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(name.len());
    Some(name[..end].to_owned())
}
