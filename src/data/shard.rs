//! Token files: written as a stream, read as a memory map, checked when opened.
//!
//! llm.c's format is a header of 256 little-endian i32 (magic, version, number of tokens, zeros) and then the tokens:
//! magic 20240520, version 1: u16; magic 20240801, version 7: u32. nanoGPT's is u16 tokens and nothing else.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::atomic::AtomicFile;
use super::map::Map;
use crate::disk::Os;
use crate::error::{Error, Result};

/// Bytes of llm.c's header.
pub const HEADER: usize = 1024;
const MAGIC_U16: (i32, i32) = (20240520, 1);
const MAGIC_U32: (i32, i32) = (20240801, 7);

/// The layout of a token file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardFormat {
    /// llm.c's: a header that tells what follows, u16 for vocabularies up to 65,536 ids, else u32.
    #[default]
    Llmc,
    /// nanoGPT's: bare u16.
    Nanogpt,
}

impl std::fmt::Display for ShardFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(if *self == ShardFormat::Llmc { "llm.c" } else { "nanoGPT" })
    }
}

/// Bytes of a token for a vocabulary.
fn width(vocab: usize) -> usize {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

/// A token file being written. It appears under its name only when finished.
pub struct ShardWriter {
    file: AtomicFile<'static>,
    format: ShardFormat,
    width: usize,
    tokens: u64,
    bytes: Vec<u8>,
    sha256: Sha256,
}

impl ShardWriter {
    /// Starts the file `path` for ids below `vocab`.
    pub fn create(path: &Path, format: ShardFormat, vocab: usize) -> Result<ShardWriter> {
        let width = width(vocab);
        if format == ShardFormat::Nanogpt && width != 2 {
            return Err(Error::usage(
                format!("nanoGPT's format holds ids below 65,536; the vocabulary has {vocab}"),
                "use --format llmc, or a smaller vocabulary",
            ));
        }
        let mut file = AtomicFile::create(&Os, path)?;
        if format == ShardFormat::Llmc {
            file.write(&[0; HEADER])?;
        }
        Ok(ShardWriter { file, format, width, tokens: 0, bytes: Vec::new(), sha256: Sha256::new() })
    }

    /// Appends tokens, which must be below the vocabulary's size.
    pub fn push(&mut self, tokens: &[u32]) -> Result<()> {
        self.bytes.clear();
        match self.width {
            2 => self.bytes.extend(tokens.iter().flat_map(|&t| (t as u16).to_le_bytes())),
            _ => self.bytes.extend(tokens.iter().flat_map(|&t| t.to_le_bytes())),
        }
        self.tokens += tokens.len() as u64;
        self.sha256.update(&self.bytes);
        self.file.write(&self.bytes)
    }

    /// How many tokens have been written.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Completes the header, puts the file on disk and gives it its name. Returns the SHA-256 of its tokens, without the header, in
    /// hexadecimal.
    pub fn finish(mut self) -> Result<String> {
        if self.format == ShardFormat::Llmc {
            let (magic, version) = if self.width == 2 { MAGIC_U16 } else { MAGIC_U32 };
            let mut header = Vec::with_capacity(12);
            for field in [magic, version, self.tokens as i32] {
                header.extend(field.to_le_bytes());
            }
            self.file.rewrite_start(&header)?;
        }
        self.file.commit()?;
        Ok(self.sha256.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// A token file in memory, its header and every token checked.
pub struct Shard {
    map: Map,
    format: ShardFormat,
    /// Where tokens start, in bytes.
    start: usize,
    /// Bytes of a token: 2 or 4.
    width: usize,
    len: usize,
    /// Every id is below this.
    vocab: usize,
}

impl Shard {
    /// Maps the file and checks magic, version, length and that every token is below `vocab` (at most 2^31). A file
    /// without llm.c's magic number is taken for nanoGPT's.
    pub fn open(path: impl AsRef<Path>, vocab: usize) -> Result<Shard> {
        let path = path.as_ref();
        let map = Map::open(path)?;
        let bad =
            |at: &str, expected: String, found: String, hint: &str| Error::format(path, at, expected, found, hint);
        let remake = "the file is damaged or incomplete: make the data set again with kiln data shard (a run's own: \
                      remove its folder data, then resume)";
        if map.len() < 2 {
            return Err(bad("size", "a file of tokens".to_owned(), format!("{} bytes", map.len()), remake));
        }
        let field = |i: usize| map.get(4 * i..4 * i + 4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let known = [(MAGIC_U16, 2), (MAGIC_U32, 4)].into_iter().find(|&((magic, _), _)| field(0) == Some(magic));
        let (format, start, width, len) = match known {
            None if map.len() % 2 != 0 => {
                return Err(bad(
                    "bytes 0 to 3",
                    format!(
                        "{} or {} (llm.c's magic numbers), or an even size (nanoGPT's bare u16)",
                        MAGIC_U16.0, MAGIC_U32.0
                    ),
                    format!("{} in a file of {} bytes", field(0).unwrap_or(0), map.len()),
                    "give a .bin file of tokens; make one with: kiln data shard",
                ));
            }
            None => (ShardFormat::Nanogpt, 0, 2, map.len() / 2),
            Some(((_, version), width)) => {
                let found = field(1).unwrap_or(0);
                if found != version {
                    return Err(bad(
                        "bytes 4 to 7 (version)",
                        version.to_string(),
                        found.to_string(),
                        "kiln reads version 1 of llm.c's u16 files and version 7 of its u32 files",
                    ));
                }
                let len = field(2).unwrap_or(0);
                let size = usize::try_from(len).ok().map(|len| HEADER + len * width);
                if size != Some(map.len()) || len == 0 {
                    return Err(bad(
                        "bytes 8 to 11 (number of tokens)",
                        format!(
                            "the {} tokens that {} bytes hold",
                            (map.len() as i64 - HEADER as i64) / width as i64,
                            map.len()
                        ),
                        len.to_string(),
                        remake,
                    ));
                }
                (ShardFormat::Llmc, HEADER, width, len as usize)
            }
        };
        let shard = Shard { map, format, start, width, len, vocab: vocab.min(1 << 31) };
        let checked = shard.check_tokens();
        shard.map.check().and(checked).map(|()| shard)
    }

    /// Fails at the first token that is not below the vocabulary's size.
    pub(super) fn check_tokens(&self) -> Result<()> {
        if self.width == 2 && self.vocab > usize::from(u16::MAX) {
            return Ok(());
        }
        const BLOCK: usize = 1 << 20;
        // Whole blocks first, so that the scan is one vector loop; the exact place only where one fails.
        let bad_block = (0..self.len.div_ceil(BLOCK)).into_par_iter().find_first(|block| {
            let range = block * BLOCK..((block + 1) * BLOCK).min(self.len);
            let mut largest = 0;
            self.each(range, |token| largest = largest.max(token));
            largest as usize >= self.vocab
        });
        let first_bad = |block| (block * BLOCK..self.len).find(|&i| self.token(i) as usize >= self.vocab);
        let Some(at) = bad_block.and_then(first_bad) else { return Ok(()) };
        Err(Error::format(
            self.path(),
            format!("byte {} (token {at})", self.start + at * self.width),
            format!("an id below {}", self.vocab),
            self.token(at),
            "the file was made with another tokenizer, or is no file of tokens: name the tokenizer that made it",
        ))
    }

    /// Calls `f` with each token of a range.
    fn each(&self, range: Range<usize>, mut f: impl FnMut(u32)) {
        let bytes = &self.map[self.start + range.start * self.width..self.start + range.end * self.width];
        match self.width {
            2 => bytes.chunks_exact(2).for_each(|b| f(u32::from(u16::from_le_bytes([b[0], b[1]])))),
            _ => bytes.chunks_exact(4).for_each(|b| f(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        }
    }

    /// The number of tokens; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a shard is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The token at `index`, below [`Shard::len`]; arbitrary where [`Shard::check`] fails afterwards.
    pub fn token(&self, index: usize) -> u32 {
        let mut token = 0;
        self.each(index..index + 1, |t| token = t);
        token
    }

    /// Copies the tokens of `range` into `out`, of the same length; they are arbitrary where [`Shard::check`] fails
    /// afterwards.
    pub fn get(&self, range: Range<usize>, out: &mut [i32]) {
        assert_eq!(range.len(), out.len(), "the buffer must be as long as the range");
        let mut out = out.iter_mut();
        self.each(range, |token| {
            if let Some(slot) = out.next() {
                *slot = token as i32;
            }
        });
    }

    /// Fails where the file has changed since it was opened. Allocates nothing unless it fails.
    pub fn check(&self) -> Result<()> {
        self.map.check()
    }

    /// The layout.
    pub fn format(&self) -> ShardFormat {
        self.format
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.map.path()
    }
}
