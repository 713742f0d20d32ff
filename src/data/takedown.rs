//! Taking documents out of a data set: where their tokens are, and shards without them.
//!
//! Shards that lose tokens are written anew under new names (`train_000-1.bin`), then `dataset.json` names them in place of the
//! old ones, then the old ones go: whenever the process ends, the folder holds the whole old data set or the whole new one. What
//! was taken out is kept in `takedowns.jsonl`, with the old places of its tokens, so that runs that were trained before can
//! still be asked whether they saw it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::atomic::write_atomic;
use super::dataset::{DatasetInfo, Part, PartInfo, ShardInfo};
use super::index::{Index, IndexWriter, beside};
use super::shard::{Shard, ShardWriter};
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};

/// The record of what was taken out of a data set.
pub const RECORD_FILE: &str = "takedowns.jsonl";
/// Bytes of the longest record that is read.
const MAX_RECORD: u64 = 1 << 28;
/// Tokens copied at a time.
const BLOCK: usize = 1 << 18;

/// Where tokens of a document are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The document's name.
    pub document: String,
    /// The side of the split.
    pub part: Part,
    /// The shard's name in the folder.
    pub shard: String,
    /// Which tokens of the shard.
    pub tokens: Range<usize>,
    /// Which tokens of all shards of this side, as training counts them.
    pub positions: Range<usize>,
}

/// One line of the record: what was taken out, and of which data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub time: u64,
    /// [`DatasetInfo::hash`] of the data set as it was.
    pub before: String,
    /// The same afterwards.
    pub after: String,
    /// Training tokens before.
    pub train_tokens: u64,
    /// What was taken out.
    pub places: Vec<Place>,
}

/// Where the documents called `names` are in the data set in `dir`, in order.
///
/// # Errors
/// A shard's index cannot be read.
pub fn find(dir: &Path, names: &[String]) -> Result<Vec<Place>> {
    let info = DatasetInfo::load(dir)?;
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut places = Vec::new();
    for part in [Part::Train, Part::Val] {
        let mut start = 0;
        for ShardInfo { file, tokens, .. } in &info.part(part).shards {
            let index = Index::open(&dir.join(file), *tokens)?;
            let found = index.iter().filter(|entry| names.contains(entry.name));
            places.extend(found.map(|entry| Place {
                document: entry.name.to_owned(),
                part,
                shard: file.clone(),
                positions: start + entry.tokens.start..start + entry.tokens.end,
                tokens: entry.tokens,
            }));
            start += *tokens as usize;
        }
    }
    Ok(places)
}

/// The record of `dir`, oldest first; empty where nothing was ever taken out.
///
/// # Errors
/// It cannot be read.
pub fn records(dir: &Path) -> Result<Vec<Record>> {
    let path = dir.join(RECORD_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = disk::text(&Os, &path, MAX_RECORD)?;
    let read = |(line, number): (&str, usize)| {
        let hint = "put the record back as it was: it tells what was taken out";
        let bad = |e: serde_json::Error| Error::format(&path, format!("line {number}"), "a takedown", e, hint);
        serde_json::from_str(line).map_err(bad)
    };
    text.lines().zip(1..).map(read).collect()
}

/// Takes `places`, as [`find`] gave them, out of the data set in `dir`. Gives what was recorded.
///
/// # Errors
/// Nothing would be left of a side of the split; files cannot be read or written.
pub fn take_down(dir: &Path, places: &[Place]) -> Result<Record> {
    let old = DatasetInfo::load(dir)?;
    let before = old.hash();
    let mut new = old.clone();
    let mut gone = Vec::new();
    for part in [Part::Train, Part::Val] {
        let here: Vec<&Place> = places.iter().filter(|place| place.part == part).collect();
        let left = old.part(part).tokens - here.iter().map(|place| place.tokens.len() as u64).sum::<u64>();
        if left == 0 {
            let problem = format!("{}: nothing would be left of the {part} part", dir.display());
            return Err(Error::failed(problem, "make the data set again from other text: kiln data shard"));
        }
        gone.extend(rewrite(dir, &old, new.part_mut(part), &here)?);
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (after, train_tokens) = (new.hash(), old.train.tokens);
    let record = Record { time, before, after, train_tokens, places: places.to_vec() };
    // One that was written before a process ended too early, without effect, gives way.
    let mut all = records(dir)?;
    all.retain(|other| other.before != record.before);
    all.push(record.clone());
    let lines: String = all.iter().map(|record| serde_json::to_string(record).expect("plain data") + "\n").collect();
    write_atomic(&Os, &dir.join(RECORD_FILE), lines.as_bytes())?;
    new.save(dir)?;
    for file in gone {
        let shard = dir.join(file);
        std::fs::remove_file(beside(&shard)).at(beside(&shard))?;
        std::fs::remove_file(&shard).at(&shard)?;
    }
    Ok(record)
}

/// Writes the shards of one side that lose tokens anew, and puts them into `part`. Gives the files that are not needed any more.
fn rewrite(dir: &Path, info: &DatasetInfo, part: &mut PartInfo, places: &[&Place]) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for shard in std::mem::take(&mut part.shards) {
        let out: Vec<&Range<usize>> = places.iter().filter(|p| p.shard == shard.file).map(|p| &p.tokens).collect();
        if out.is_empty() {
            part.shards.push(shard);
            continue;
        }
        let path = dir.join(&shard.file);
        let index = Index::open(&path, shard.tokens)?;
        let removed = |tokens: &Range<usize>| out.iter().any(|range| **range == *tokens);
        for entry in index.iter().filter(|entry| removed(&entry.tokens)) {
            part.bytes -= entry.bytes;
            part.tokens -= entry.tokens.len() as u64;
            part.documents -= u64::from(!entry.continued);
        }
        gone.push(shard.file.clone());
        if index.iter().all(|entry| removed(&entry.tokens)) {
            continue;
        }
        let data = Shard::open(&path, info.tokenizer.vocab)?;
        let file = renewed(&shard.file);
        let mut writer = ShardWriter::create(&dir.join(&file), info.format, info.tokenizer.vocab)?;
        let mut names = IndexWriter::default();
        let (mut block, mut ids) = (vec![0; BLOCK], Vec::new());
        for entry in index.iter().filter(|entry| !removed(&entry.tokens)) {
            names.add(entry.name, writer.tokens(), entry.continued, entry.fingerprint);
            names.count(entry.bytes);
            for from in entry.tokens.clone().step_by(BLOCK) {
                let block = &mut block[..BLOCK.min(entry.tokens.end - from)];
                data.get(from..from + block.len(), block);
                ids.clear();
                ids.extend(block.iter().map(|&id| id as u32));
                writer.push(&ids)?;
            }
        }
        data.check()?;
        let tokens = writer.tokens();
        let sha256 = writer.finish()?;
        names.finish(&dir.join(&file), tokens)?;
        part.shards.push(ShardInfo { file, tokens, sha256 });
    }
    Ok(gone)
}

/// The name of a shard that takes the place of `file`: `train_000.bin`, `train_000-1.bin`, `train_000-2.bin`.
fn renewed(file: &str) -> String {
    let (stem, extension) = file.rsplit_once('.').unwrap_or((file, "bin"));
    let next = |(stem, number): (&str, &str)| Some(format!("{stem}-{}.{extension}", number.parse::<u64>().ok()? + 1));
    stem.rsplit_once('-').and_then(next).unwrap_or_else(|| format!("{stem}-1.{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shards_name_counts_up() {
        assert_eq!(renewed("train_000.bin"), "train_000-1.bin");
        assert_eq!(renewed("train_000-9.bin"), "train_000-10.bin");
        assert_eq!(renewed("val.bin"), "val-1.bin");
    }
}
