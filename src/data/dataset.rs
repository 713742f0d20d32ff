//! A folder of shards: `dataset.json`, `tokenizer.json`, `train_000.bin`…, `val_000.bin`…, and beside each an [index](super::index)
//! of its documents.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::atomic::write_atomic;
use super::mix::Used;
use super::shard::{Shard, ShardFormat};
use super::split::Split;
pub use super::tokenizer::TOKENIZER_FILE;
use super::tokenizer::{Kind, MAX_VOCAB, Tokenizer};
use crate::disk::{self, Os};
use crate::error::{Error, Result};

/// The name of the description in a data set's folder.
pub const DATASET_FILE: &str = "dataset.json";
/// Bytes of the longest `dataset.json` that is read: about a million shards.
const MAX_FILE: u64 = 64 << 20;

/// Which side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What the model learns from.
    Train,
    /// What is held out to judge it.
    Val,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Part::Train { "train" } else { "val" })
    }
}

/// `dataset.json`: what is in the folder and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// The version of this description: 1.
    pub version: u32,
    /// The tokenizer of the shards.
    pub tokenizer: TokenizerInfo,
    /// The layout of the shards.
    pub format: ShardFormat,
    /// How held-out text was chosen.
    pub split: Split,
    /// The training part.
    pub train: PartInfo,
    /// The held-out part.
    pub val: PartInfo,
    /// What was taken of each source, for a mixture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Used>,
}

/// A tokenizer, as far as data depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerInfo {
    /// What its tokens are.
    pub kind: Kind,
    /// Ids are below this.
    pub vocab: usize,
    /// The id written after each document, if there is one.
    pub eot: Option<u32>,
    /// [`Tokenizer::hash`].
    pub sha256: String,
}

/// One side of the split in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartInfo {
    /// Documents; one that a tail split cuts counts on both sides.
    pub documents: u64,
    /// Tokens, those that end documents included.
    pub tokens: u64,
    /// Bytes of UTF-8 text: the denominator of bits per byte.
    pub bytes: u64,
    /// Shards in order.
    pub shards: Vec<ShardInfo>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// Its name in the folder.
    pub file: String,
    /// Its length.
    pub tokens: u64,
    /// The SHA-256 of its tokens, without the header; empty in data sets older than this.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

impl DatasetInfo {
    /// Reads `dataset.json` of the folder `dir`.
    pub fn load(dir: impl AsRef<Path>) -> Result<DatasetInfo> {
        let path = dir.as_ref().join(DATASET_FILE);
        let text = disk::text(&Os, &path, MAX_FILE).map_err(|e| match e {
            Error::Io { path, source, .. } => {
                Error::Io { path, source, hint: "give a folder made by: kiln data shard".to_owned() }
            }
            e => e,
        })?;
        DatasetInfo::from_json(&text, &path)
    }

    /// Reads the text of a `dataset.json`; `path` names it in messages.
    pub fn from_json(text: &str, path: &Path) -> Result<DatasetInfo> {
        let bad = |expected: &str, found: String| {
            Error::format(path, "content", expected, found, "make the data set again with: kiln data shard")
        };
        let info: DatasetInfo =
            serde_json::from_str(text).map_err(|e| bad("the description of a data set", e.to_string()))?;
        if info.version != 1 {
            return Err(bad("version 1", format!("version {}", info.version)));
        }
        let mut names = HashSet::new();
        let shards = info.train.shards.iter().chain(&info.val.shards);
        for ShardInfo { file, .. } in shards {
            if Path::new(file).file_name() != Some(file.as_ref()) {
                return Err(bad("names of files in the same folder", format!("{file:?}")));
            }
            if !names.insert(file) {
                return Err(bad("every shard once", format!("{file:?} twice")));
            }
        }
        let TokenizerInfo { vocab, eot, .. } = info.tokenizer;
        if !(1..=MAX_VOCAB as usize).contains(&vocab) {
            return Err(bad(&format!("a vocabulary of 1 to {MAX_VOCAB} ids"), format!("{vocab}")));
        }
        if let Some(eot) = eot.filter(|&id| id as usize >= vocab) {
            return Err(bad(&format!("an end of documents below {vocab}"), format!("{eot}")));
        }
        Ok(info)
    }

    /// Writes `dataset.json` into `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        write_atomic(&Os, &dir.join(DATASET_FILE), self.json().as_bytes())
    }

    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data is printable") + "\n"
    }

    /// SHA-256 of the description, which holds those of the tokenizer and of all shards: what a checkpoint says it was trained on.
    pub fn hash(&self) -> String {
        Sha256::digest(self.json()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Loads the tokenizer of the data set in `dir` and checks that it is the one that made the shards.
    pub fn load_tokenizer(&self, dir: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = dir.as_ref().join(TOKENIZER_FILE);
        let tokenizer = Tokenizer::load(&path)?;
        if tokenizer.hash() != self.tokenizer.sha256 {
            return Err(Error::format(
                &path,
                "content",
                format!("the tokenizer that made the shards (SHA-256 {})", self.tokenizer.sha256),
                format!("another one ({})", tokenizer.hash()),
                "put the old tokenizer.json back, or make the data set again with: kiln data shard",
            ));
        }
        if (tokenizer.vocab_size(), tokenizer.eot()) != (self.tokenizer.vocab, self.tokenizer.eot) {
            return Err(Error::format(
                dir.as_ref().join(DATASET_FILE),
                "tokenizer",
                format!("{} ids, as tokenizer.json has", tokenizer.vocab_size()),
                format!("{}, or another end of documents", self.tokenizer.vocab),
                "make the data set again with: kiln data shard",
            ));
        }
        Ok(tokenizer)
    }

    /// One side of the split.
    pub fn part(&self, part: Part) -> &PartInfo {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
        }
    }

    /// The same, to be changed.
    pub(super) fn part_mut(&mut self, part: Part) -> &mut PartInfo {
        match part {
            Part::Train => &mut self.train,
            Part::Val => &mut self.val,
        }
    }
}

/// The shards of one side of a split, read as a single sequence of tokens: what a reader sees does not depend on how
/// it is cut into files.
pub struct Dataset {
    shards: Vec<Shard>,
    /// Position of each shard's first token in the sequence, and the length of all.
    starts: Vec<usize>,
    vocab: usize,
    eot: Option<u32>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} tokens in {} shards)", self.len(), self.shards.len())
    }
}

impl Dataset {
    /// Opens one side of the data set in the folder `dir`, checking every shard.
    pub fn open(dir: impl AsRef<Path>, part: Part) -> Result<Dataset> {
        let dir = dir.as_ref();
        let info = DatasetInfo::load(dir)?;
        let shards = &info.part(part).shards;
        let files: Vec<PathBuf> = shards.iter().map(|shard| dir.join(&shard.file)).collect();
        let data = Dataset::from_files(&files, info.tokenizer.vocab, info.tokenizer.eot)?;
        for (shard, listed) in data.shards.iter().zip(shards) {
            if shard.len() as u64 != listed.tokens || shard.format() != info.format {
                return Err(Error::format(
                    shard.path(),
                    "content",
                    format!("{} tokens in {}'s format, as {DATASET_FILE} says", listed.tokens, info.format),
                    format!("{} in {}'s format", shard.len(), shard.format()),
                    "make the data set again with: kiln data shard",
                ));
            }
        }
        Ok(data)
    }

    /// Opens token files as one sequence, as those that llm.c and nanoGPT prepare; ids must be below `vocab`, and
    /// `eot` is the one that separates documents.
    pub fn from_files<P: AsRef<Path>>(files: &[P], vocab: usize, eot: Option<u32>) -> Result<Dataset> {
        if files.is_empty() {
            return Err(Error::failed("the data set has no shard", "give at least one .bin file"));
        }
        let shards = files.iter().map(|file| Shard::open(file, vocab)).collect::<Result<Vec<_>>>()?;
        let mut starts = vec![0];
        starts.extend(shards.iter().scan(0, |end, shard| {
            *end += shard.len();
            Some(*end)
        }));
        Ok(Dataset { shards, starts, vocab, eot })
    }

    /// The number of tokens; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.starts[self.shards.len()]
    }

    /// Every id is below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab
    }

    /// The id that ends each document, if there is one.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// Copies the tokens from position `start` on into `out`. Allocates nothing.
    ///
    /// # Errors
    /// A shard has changed since it was opened; what is in `out` is then of no use.
    ///
    /// # Panics
    /// If they reach past the end.
    pub fn read(&self, start: usize, out: &mut [i32]) -> Result<()> {
        self.copy(start, out);
        self.check([out, &[]])
    }

    /// [`Dataset::read`] without the check, which is to follow.
    pub(super) fn copy(&self, start: usize, out: &mut [i32]) {
        assert!(start + out.len() <= self.len(), "reading past the end of the data");
        let (mut at, mut out) = (start, out);
        // The last shard that starts at or before `at`.
        let mut index = self.starts.partition_point(|&s| s <= at) - 1;
        while !out.is_empty() {
            let n = out.len().min(self.starts[index + 1] - at);
            let (now, later) = out.split_at_mut(n);
            let local = at - self.starts[index];
            self.shards[index].get(local..local + n, now);
            (at, out, index) = (at + n, later, index + 1);
        }
    }

    /// Fails where a shard has changed since it was opened, so that `copied` tokens may be wrong.
    pub(super) fn check(&self, copied: [&[i32]; 2]) -> Result<()> {
        self.shards.iter().try_for_each(Shard::check)?;
        let limit = self.vocab.min(1 << 31);
        let largest = copied.map(|ids| ids.iter().fold(0, |max, &id| max.max(id as u32)) as usize);
        if largest.iter().all(|&id| id < limit) {
            return Ok(());
        }
        // A file was written anew and given back its time. Which one, and where?
        self.shards.iter().try_for_each(Shard::check_tokens)?;
        let hint = "leave the data alone while it is used";
        Err(Error::format(self.shards[0].path(), "content", format!("ids below {limit}"), "others for a while", hint))
    }

    /// Where the document that contains or follows position `from` starts: after the first end-of-document token at or
    /// after it, or at 0 for 0. `None` without such a token, or past the last document.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn next_document(&self, from: usize) -> Result<Option<usize>> {
        let Some(eot) = self.eot else { return Ok(None) };
        if from == 0 {
            return Ok(Some(0));
        }
        let Some(index) = self.starts.partition_point(|&s| s <= from).checked_sub(1) else { return Ok(None) };
        let mut local = from - self.starts[index];
        for (shard, &start) in self.shards.iter().zip(&self.starts).skip(index) {
            let end = (local..shard.len()).find(|&i| shard.token(i) == eot);
            shard.check()?;
            if let Some(end) = end {
                return Ok(Some(start + end + 1).filter(|&next| next < self.len()));
            }
            local = 0;
        }
        Ok(None)
    }

    /// How often each id occurs, up to the largest that does.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn histogram(&self) -> Result<Vec<u64>> {
        let mut counts = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        for start in (0..self.len()).step_by(buffer.len()) {
            let n = buffer.len().min(self.len() - start);
            self.read(start, &mut buffer[..n])?;
            for id in buffer[..n].iter().map(|&id| id as usize) {
                if id >= counts.len() {
                    counts.resize(id + 1, 0);
                }
                counts[id] += 1;
            }
        }
        Ok(counts)
    }

    /// The layout of the shards (of the first, should they differ).
    pub fn format(&self) -> ShardFormat {
        self.shards[0].format()
    }

    /// Up to `n` documents spread over the data, each as its position and its first tokens (at most `tokens`); pieces
    /// of the data where nothing marks documents.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn samples(&self, n: usize, tokens: usize) -> Result<Vec<(usize, Vec<u32>)>> {
        let mut starts = Vec::new();
        for at in (0..n).map(|i| i * (self.len() / n)) {
            starts.extend(if self.eot.is_some() { self.next_document(at)? } else { Some(at) });
        }
        starts.dedup();
        let sample = |start: usize| {
            let mut ids = vec![0; tokens.min(self.len() - start)];
            self.read(start, &mut ids)?;
            let ids = ids.iter().map(|&id| id as u32);
            Ok((start, ids.take_while(|&id| Some(id) != self.eot).collect()))
        };
        starts.into_iter().map(sample).collect()
    }
}

/// The `n` ids with the highest counts, and these, highest first; ids that never occur are left out.
pub fn commonest(counts: &[u64], n: usize) -> Vec<(u32, u64)> {
    let mut ids: Vec<_> = (0..).zip(counts.iter().copied()).filter(|&(_, count)| count > 0).collect();
    ids.sort_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
    ids.truncate(n);
    ids
}
