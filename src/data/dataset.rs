//! A folder of shards: `dataset.json`, `tokenizer.json`, `train_000.bin`…, `val_000.bin`….

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::write_atomic;
use super::shard::{Shard, ShardFormat};
use super::split::Split;
use super::tokenizer::{Kind, Tokenizer};
use crate::disk::Os;
use crate::error::{Error, Result};

/// The name of the description in a data set's folder.
pub const DATASET_FILE: &str = "dataset.json";
/// The name of the tokenizer beside it.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Which side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl DatasetInfo {
    /// Reads `dataset.json` of the folder `dir`.
    pub fn load(dir: impl AsRef<Path>) -> Result<DatasetInfo> {
        let path = dir.as_ref().join(DATASET_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
            hint: "give a folder made by: kiln data shard".to_owned(),
        })?;
        let bad = |expected: &str, found: String| {
            Error::format(&path, "content", expected, found, "make the data set again with: kiln data shard")
        };
        let info: DatasetInfo =
            serde_json::from_str(&text).map_err(|e| bad("the description of a data set", e.to_string()))?;
        if info.version != 1 {
            return Err(bad("version 1", format!("version {}", info.version)));
        }
        let shards = info.train.shards.iter().chain(&info.val.shards);
        for ShardInfo { file, .. } in shards {
            if Path::new(file).file_name() != Some(file.as_ref()) {
                return Err(bad("names of files in the same folder", format!("{file:?}")));
            }
        }
        Ok(info)
    }

    /// Writes `dataset.json` into `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).expect("plain data is printable") + "\n";
        write_atomic(&Os, &dir.join(DATASET_FILE), json.as_bytes())
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
        Ok(tokenizer)
    }

    /// One side of the split.
    pub fn part(&self, part: Part) -> &PartInfo {
        match part {
            Part::Train => &self.train,
            Part::Val => &self.val,
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
            return Err(Error::usage("the data set has no shard", "give at least one .bin file"));
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
    /// # Panics
    /// If they reach past the end.
    pub fn read(&self, start: usize, out: &mut [i32]) {
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

    /// Where the document that contains or follows position `from` starts: after the first end-of-document token at or
    /// after it, or at 0 for 0. `None` without such a token, or past the last document.
    pub fn next_document(&self, from: usize) -> Option<usize> {
        let eot = self.eot?;
        if from == 0 {
            return Some(0);
        }
        let index = self.starts.partition_point(|&s| s <= from).checked_sub(1)?;
        let mut local = from - self.starts[index];
        for (shard, &start) in self.shards.iter().zip(&self.starts).skip(index) {
            if let Some(end) = (local..shard.len()).find(|&i| shard.token(i) == eot) {
                return Some(start + end + 1).filter(|&next| next < self.len());
            }
            local = 0;
        }
        None
    }

    /// How often each id occurs, up to the largest that does.
    pub fn histogram(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        for start in (0..self.len()).step_by(buffer.len()) {
            let n = buffer.len().min(self.len() - start);
            self.read(start, &mut buffer[..n]);
            for id in buffer[..n].iter().map(|&id| id as usize) {
                if id >= counts.len() {
                    counts.resize(id + 1, 0);
                }
                counts[id] += 1;
            }
        }
        counts
    }

    /// The layout of the shards (of the first, should they differ).
    pub fn format(&self) -> ShardFormat {
        self.shards[0].format()
    }

    /// Up to `n` documents spread over the data, each as its position and its first tokens (at most `tokens`); pieces
    /// of the data where nothing marks documents.
    pub fn samples(&self, n: usize, tokens: usize) -> Vec<(usize, Vec<u32>)> {
        let mut starts: Vec<_> = (0..n)
            .map(|i| i * (self.len() / n.max(1)))
            .filter_map(|at| if self.eot.is_some() { self.next_document(at) } else { Some(at) })
            .collect();
        starts.dedup();
        let sample = |start: usize| {
            let mut ids = vec![0; tokens.min(self.len() - start)];
            self.read(start, &mut ids);
            let ids = ids.iter().map(|&id| id as u32);
            (start, ids.take_while(|&id| Some(id) != self.eot).collect())
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
