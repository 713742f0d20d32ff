//! Documents as files of a line of versions: lines of JSON with an `id` and a `text`, so that each can be found again and taken out.

use crate::data::atomic::AtomicFile;
use crate::data::dataset::{DatasetInfo, Part};
use crate::data::index::{Index, name};
use crate::data::shard::Shard;
use crate::data::{Sources, Tokenizer};
use crate::disk::Os;
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use serde::Serialize;
use std::path::Path;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// What it is called where it comes from: its id, or FILE:LINE.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// All documents of `path`, a file or a folder.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<Text>> {
    Sources::open(&[path], "text")?
        .documents()
        .map(|document| document.map(|document| Text { id: name(&document), text: document.text }))
        .collect()
}

/// Writes them, whole or not at all.
///
/// # Errors
/// They cannot be written.
pub fn write(path: &Path, texts: &[Text]) -> Result<()> {
    let mut file = AtomicFile::create(&Os, path)?;
    for text in texts {
        file.write((serde_json::to_string(text).expect("plain data") + "\n").as_bytes())?;
    }
    file.commit()
}

/// `most` of `texts` at most, drawn without replacement, in their order.
pub fn draw<T>(mut texts: Vec<T>, most: usize, seed: u64) -> Vec<T> {
    let mut chosen = numbers(texts.len(), most, seed).into_iter().peekable();
    let mut i = 0;
    texts.retain(|_| {
        i += 1;
        chosen.next_if_eq(&(i - 1)).is_some()
    });
    texts
}

/// `most` of the numbers below `n` at most, in order.
fn numbers(n: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    if n > most {
        let mut rng = Rng::new(seed, Purpose::Resample, 60, n as u64);
        for i in 0..most {
            all.swap(i, i + rng.below((n - i) as u32) as usize);
        }
        all.truncate(most);
        all.sort_unstable();
    }
    all
}

/// `most` documents at most of one side of the data set in `dir`, back from its tokens. What a shard's end cuts in two is left out.
///
/// # Errors
/// It cannot be read, or has no index.
pub fn of_dataset(dir: &Path, part: Part, most: usize, seed: u64) -> Result<Vec<Text>> {
    let info = DatasetInfo::load(dir)?;
    let tokenizer = info.load_tokenizer(dir)?;
    let shards = &info.part(part).shards;
    let open = |i: usize| Index::open(&dir.join(&shards[i].file), shards[i].tokens);
    let indices = (0..shards.len()).map(open).collect::<Result<Vec<_>>>()?;
    // Of each shard its documents, by their numbers there.
    let whole = |i: usize, n: usize| {
        let cut = n + 1 == indices[i].len() && indices.get(i + 1).is_some_and(|next| next.get(0).continued);
        !indices[i].get(n).continued && !cut
    };
    let places: Vec<(usize, usize)> = (0..shards.len())
        .flat_map(|i| (0..indices[i].len()).map(move |n| (i, n)))
        .filter(|&(i, n)| whole(i, n))
        .collect();
    let mut texts = Vec::new();
    let mut open: Option<(usize, Shard)> = None;
    for (i, n) in draw(places, most, seed) {
        if open.as_ref().is_none_or(|(own, _)| *own != i) {
            open = Some((i, Shard::open(dir.join(&shards[i].file), info.tokenizer.vocab)?));
        }
        let shard = &open.as_ref().expect("it was opened").1;
        let entry = indices[i].get(n);
        texts.push(Text { id: entry.name.to_owned(), text: decoded(shard, &tokenizer, &entry.tokens) });
    }
    Ok(texts)
}

/// Tokens of a shard as text, without the one that ends a document.
fn decoded(shard: &Shard, tokenizer: &Tokenizer, tokens: &std::ops::Range<usize>) -> String {
    let mut ids: Vec<u32> = tokens.clone().map(|at| shard.token(at)).collect();
    if ids.last().copied() == tokenizer.eot() {
        ids.pop();
    }
    tokenizer.decode(&ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_keeps_the_order_and_takes_each_once() {
        let all: Vec<usize> = (0..1000).collect();
        let some = draw(all.clone(), 50, 1);
        assert_eq!(some.len(), 50);
        assert!(some.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(draw(all.clone(), 2000, 1), all);
        assert_ne!(draw(all, 50, 2), some);
    }

    #[test]
    fn documents_are_written_and_read_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new.jsonl");
        let texts: Vec<Text> =
            (0..3).map(|i| Text { id: format!("d{i}"), text: format!("Line {i}.\nAnd \"more\".") }).collect();
        write(&path, &texts).expect("written");
        assert_eq!(read(&path).expect("texts"), texts);
    }
}
