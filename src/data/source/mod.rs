//! Documents from a user's files, one at a time.
//!
//! `.txt` and `.md`: one file is one document, unless it contains `<|endoftext|>`, which then separates documents (and
//! with the line break after it is no part of them). `.html`: the text of the page. `.jsonl`: one object a line, its text
//! in the field `text` or another that the caller names. All of these also packed, as `.gz` or `.zst`. `.parquet`: one row
//! a document, where kiln is built with the feature `parquet`. Folders: all files of these kinds below them, sorted by
//! path; patterns: `data/**/*.txt`.
//!
//! Files are read on several threads, a piece at a time, within limits ([`Limits`]): of a document, of what a packed file
//! may unpack to, of memory. Documents come in one order, whatever the threads do. Reading is strict ([`Sources::open`]:
//! the first thing that is wrong is an error) or lenient ([`Sources::lenient`]: it is passed over and counted, [`Skips`];
//! text in other encodings than UTF-8 is decoded).

mod ahead;
mod html;
mod json;
mod kind;
#[cfg(feature = "parquet")]
mod parquet;
mod reader;
mod skip;
mod split;
mod unpack;
pub(in crate::data) mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::ahead::Documents;
pub use self::html::text as html_text;
pub use self::skip::{Reason, Skipped, Skips};
use self::walk::Walk;
use crate::error::{Error, Result};

/// A text that belongs together: an article, a story, a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Where it comes from: a file, or a name such as `world`.
    pub source: PathBuf,
    /// The line of `source` on which it starts, from 1; for texts that are no file, their number.
    pub line: u64,
    /// What it is called where it comes from: the field `id` of a line of JSON; else empty, and `source` and `line` say it.
    pub id: String,
    /// The other fields of its line of JSON.
    pub metadata: Map<String, Value>,
    /// What it was decoded from, where that was not plain UTF-8; then bytes that meant nothing are U+FFFD.
    pub encoding: Option<&'static str>,
}

/// The error for sources without a single document.
pub(crate) fn no_text() -> Error {
    let hint = format!("give files that end in {}, or a folder that contains some", kind::KINDS);
    Error::failed("the sources hold no text", hint)
}

/// What reading may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a document, and of a line of JSON.
    pub document: usize,
    /// Bytes of a packed file once unpacked.
    pub unpacked: u64,
    /// Unpacked bytes for each packed one, after the first 16 MiB.
    pub ratio: u64,
    /// Bytes of memory for all that reads, roughly: with less, fewer threads read.
    pub memory: usize,
    /// Threads that read; 0: as many as compute.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { document: 64 << 20, unpacked: 1 << 40, ratio: 200, memory: 1 << 30, threads: 0 }
    }
}

impl Limits {
    /// Threads that read: each may hold a line, its text, and a window of what is being unpacked.
    fn readers(&self) -> usize {
        let threads = if self.threads == 0 { rayon::current_num_threads() } else { self.threads };
        threads.min(self.memory / self.document.saturating_mul(4).max(1)).max(1)
    }

    /// The largest window of a Zstandard frame.
    fn window(&self) -> u64 {
        (self.memory / self.readers() / 2).clamp(8 << 20, 128 << 20) as u64
    }
}

impl Document {
    /// Whether it is from a file of JSON lines.
    pub fn is_json(&self) -> bool {
        kind::of(&self.source).is_some_and(|(format, _)| format == kind::Format::Jsonl)
    }

    /// What it is called: by its name, else by its file and line.
    pub fn place(&self) -> String {
        if self.id.is_empty() { format!("{}, line {}", self.source.display(), self.line) } else { self.id.clone() }
    }
}

/// Files of text, ready to be read as often as needed.
#[derive(Clone, Debug)]
pub struct Sources {
    walk: Arc<Walk>,
    paths: Vec<PathBuf>,
    field: String,
    limits: Limits,
    lenient: bool,
}

impl Sources {
    /// Finds the files of `paths` (files, folders, patterns), in the order given and sorted within folders. `field` names
    /// the text in `.jsonl` files and tables. What is wrong with them or in them is an error: a file of another kind, a
    /// symbolic link that leaves its folder, no file at all.
    pub fn open<P: AsRef<Path>>(paths: &[P], field: &str) -> Result<Sources> {
        // Whoever trains on one file of gigabytes knows that it is one document.
        let limits = Limits { document: usize::MAX >> 8, memory: usize::MAX, ..Limits::default() };
        Sources::find(paths, field, limits, false)
    }

    /// As [`Sources::open`], but what is wrong in folders and in files is passed over and counted. The paths themselves
    /// must be there.
    pub fn lenient<P: AsRef<Path>>(paths: &[P], field: &str, limits: Limits) -> Result<Sources> {
        Sources::find(paths, field, limits, true)
    }

    /// As [`Sources::open`], but a line of JSON comes as it is, as the text.
    pub fn objects<P: AsRef<Path>>(paths: &[P]) -> Result<Sources> {
        Sources::open(paths, json::WHOLE)
    }

    /// As [`Sources::lenient`], but a line of JSON comes as it is, as the text.
    pub fn lenient_objects<P: AsRef<Path>>(paths: &[P], limits: Limits) -> Result<Sources> {
        Sources::lenient(paths, json::WHOLE, limits)
    }

    fn find<P: AsRef<Path>>(paths: &[P], field: &str, limits: Limits, lenient: bool) -> Result<Sources> {
        let walk = Arc::new(Walk::new(paths, kind::readable, lenient)?);
        if walk.files.is_empty() {
            return Err(no_text());
        }
        let paths = walk.files.iter().map(|file| file.path.clone()).collect();
        Ok(Sources { walk, paths, field: field.to_owned(), limits, lenient })
    }

    /// The files, in reading order.
    pub fn files(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Files in folders that are passed over because kiln does not read their kind.
    pub fn skipped(&self) -> &[PathBuf] {
        &self.walk.others
    }

    /// What was passed over when the files were looked for. Reading adds to it ([`Documents::skips`]).
    pub fn skips(&self) -> &Skips {
        &self.walk.skips
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.walk.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the documents, on threads that end with the iterator. Documents without text are left out. After an error
    /// comes nothing.
    pub fn documents(&self) -> Documents {
        Documents::new(self)
    }
}
