//! Which tokens of a shard are which document: `train_000.idx` beside `train_000.bin`.
//!
//! Little-endian, to be read as a map of memory: a header of 40 bytes, a record of 40 bytes for each document in order, then
//! their names, one after the other.
//!
//! | header | | record | |
//! |---|---|---|---|
//! | 0 | `kiln.idx` | 0 | u64: position of its first token in the shard |
//! | 8 | u32: version, 1; u32: 0 | 8 | u64: bytes of its text whose tokens are here |
//! | 16 | u64: documents | 16 | u64: where its name ends among the names; the highest bit: it began in the shard before |
//! | 24 | u64: bytes of names | 24 | 16 bytes: the first of the SHA-256 of its text |
//! | 32 | u64: tokens of the shard | | |
//!
//! A document that does not fit in a shard stands in the index of the next one too. Its tokens end where the next one's begin.

use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::atomic::write_atomic;
use super::map::Map;
use super::source::Document;
use crate::disk::Os;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"kiln.idx";
const VERSION: u32 = 1;
const HEADER: usize = 40;
const RECORD: usize = 40;
const CONTINUED: u64 = 1 << 63;

/// The index of a shard.
pub fn beside(shard: &Path) -> PathBuf {
    shard.with_extension("idx")
}

/// How ledgers and indices call a document: its id, or where it comes from.
pub fn name(document: &Document) -> String {
    match &document.id[..] {
        "" => format!("{}:{}", document.source.display(), document.line),
        id => id.to_owned(),
    }
}

/// What tells a text from others.
pub type Fingerprint = [u8; 16];

/// The first bytes of the SHA-256 of a text.
pub fn fingerprint(text: &str) -> Fingerprint {
    let digest = Sha256::digest(text);
    std::array::from_fn(|i| digest[i])
}

/// A document, or the part of it that is in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its [`name`].
    pub name: &'a str,
    /// Its tokens' positions in the shard, with that of the one that ends it.
    pub tokens: Range<usize>,
    /// Bytes of its text whose tokens are here.
    pub bytes: u64,
    /// Whether it began in the shard before.
    pub continued: bool,
    /// The [`fingerprint`] of its text: of all of it on this side of the split.
    pub fingerprint: Fingerprint,
}

/// An index being made.
#[derive(Default)]
pub struct IndexWriter {
    records: Vec<[u64; 3]>,
    fingerprints: Vec<Fingerprint>,
    names: Vec<u8>,
}

impl IndexWriter {
    /// Adds a document, whose first token here is at `start`.
    pub fn add(&mut self, name: &str, start: u64, continued: bool, fingerprint: Fingerprint) {
        self.names.extend_from_slice(name.as_bytes());
        let end = self.names.len() as u64 | if continued { CONTINUED } else { 0 };
        self.records.push([start, 0, end]);
        self.fingerprints.push(fingerprint);
    }

    /// Counts bytes of text to the last document.
    pub fn count(&mut self, bytes: u64) {
        if let Some(record) = self.records.last_mut() {
            record[1] += bytes;
        }
    }

    /// Writes it beside `shard`, which has so many tokens.
    pub fn finish(self, shard: &Path, tokens: u64) -> Result<()> {
        let mut file = Vec::with_capacity(HEADER + self.records.len() * RECORD + self.names.len());
        file.extend(MAGIC);
        file.extend(u64::from(VERSION).to_le_bytes());
        for field in [self.records.len() as u64, self.names.len() as u64, tokens] {
            file.extend(field.to_le_bytes());
        }
        for (record, fingerprint) in self.records.iter().zip(&self.fingerprints) {
            record.iter().for_each(|field| file.extend(field.to_le_bytes()));
            file.extend(fingerprint);
        }
        file.extend(&self.names);
        write_atomic(&Os, &beside(shard), &file)
    }
}

/// An index in memory, checked.
pub struct Index {
    map: Map,
    documents: usize,
    tokens: u64,
}

impl Index {
    /// Opens the index of `shard`, which has so many tokens.
    ///
    /// # Errors
    /// There is none, as for shards that other programs made, or it is damaged, or of another shard.
    pub fn open(shard: &Path, tokens: u64) -> Result<Index> {
        let path = beside(shard);
        let remake = "make the data set again with: kiln data shard";
        let map = Map::open(&path).map_err(|e| match e {
            Error::Io { path, source, .. } => {
                let hint = format!("shards of other programs and older ones do not tell their documents: {remake}");
                Error::Io { path, source, hint }
            }
            e => e,
        })?;
        let index = Index { documents: 0, tokens, map };
        let bad = |at: &str, expected: String, found: String| Err(Error::format(&path, at, expected, found, remake));
        if index.map.len() < HEADER || index.map[..8] != *MAGIC || index.field(8) != u64::from(VERSION) {
            return bad(
                "bytes 0 to 15",
                "an index of documents, version 1".to_owned(),
                format!("{} bytes of something else", index.map.len()),
            );
        }
        let [documents, names, held] = [16, 24, 32].map(|at| index.field(at));
        let size =
            documents.checked_mul(RECORD as u64).and_then(|size| size.checked_add(HEADER as u64)?.checked_add(names));
        if size != Some(index.map.len() as u64) || documents == 0 {
            return bad(
                "bytes 16 to 31",
                "the documents and names that the file holds".to_owned(),
                format!("{documents} and {names} bytes"),
            );
        }
        if held != tokens {
            return bad("bytes 32 to 39", format!("the {tokens} tokens of the shard"), held.to_string());
        }
        let index = Index { documents: documents as usize, ..index };
        let (mut start, mut end) = (0, 0);
        for i in 0..index.documents {
            let [next, _, name] = index.record(i);
            let name = name & !CONTINUED;
            let ordered = if i == 0 { next == 0 } else { next > start };
            if !ordered || next >= tokens || name < end || name > names || index.text(end, name).is_err() {
                let at = format!("record {i}");
                return bad(
                    &at,
                    "documents in order, within the shard, with names of UTF-8".to_owned(),
                    format!("token {next}, name to {name}"),
                );
            }
            (start, end) = (next, name);
        }
        index.map.check()?;
        Ok(index)
    }

    fn field(&self, at: usize) -> u64 {
        self.map.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn record(&self, i: usize) -> [u64; 3] {
        [0, 8, 16].map(|at| self.field(HEADER + i * RECORD + at))
    }

    fn text(&self, from: u64, to: u64) -> std::result::Result<&str, std::str::Utf8Error> {
        let names = HEADER + self.documents * RECORD;
        std::str::from_utf8(self.map.get(names + from as usize..names + to as usize).unwrap_or_default())
    }

    /// Documents; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a shard is never empty")]
    pub fn len(&self) -> usize {
        self.documents
    }

    /// The document at `i`, below [`Index::len`].
    pub fn get(&self, i: usize) -> Entry<'_> {
        let [start, bytes, end] = self.record(i);
        let from = if i == 0 { 0 } else { self.record(i - 1)[2] & !CONTINUED };
        let next = if i + 1 < self.documents { self.record(i + 1)[0] } else { self.tokens };
        let at = HEADER + i * RECORD + 24;
        Entry {
            name: self.text(from, end & !CONTINUED).unwrap_or_default(),
            tokens: start as usize..next as usize,
            bytes,
            continued: end & CONTINUED != 0,
            fingerprint: self.map.get(at..at + 16).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        }
    }

    /// All documents, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.documents).map(|i| self.get(i))
    }
}
