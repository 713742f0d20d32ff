//! Near-duplicates: pairs that meet in a band of their MinHash signatures are compared, word n-gram by word n-gram, and
//! only what is alike in fact is removed.
//!
//! 1. The bands of all documents are sorted by their hash, on disk. Those that share one are candidates. Of more than
//!    [`CROWD`] documents with the same band each is paired with the first ones only, and with those before it.
//! 2. The pairs are sorted by the document that would go, then by the one that would stay. Going through them in this
//!    order, a document goes if it is alike in `threshold` of its n-grams with one that *stays*. So there are no chains:
//!    each removal names a document in the output that was compared with it.
//!
//! Which of two stays is decided by their keys, the smaller one; see [`key`].

use super::recipe::{Duplicates, Keep};
use super::sort::{Merge, Record, Sorter};
use super::spool::{Bits, Spool};
use super::words::{Words, jaccard};
use crate::error::Result;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Documents with one band from which on not all pairs of them are candidates.
const CROWD: usize = 32;
/// Pairs that are compared at once, on all threads.
const BATCH: usize = 4096;

/// What decides which of two documents stays, with the document in the lower half.
pub fn key(keep: Keep, document: u32, bytes: usize) -> u64 {
    let rank = match keep {
        Keep::First => 0,
        Keep::Longest => !(bytes.min(u32::MAX as usize) as u32),
    };
    u64::from(rank) << 32 | u64::from(document)
}

/// Writes the pairs of documents that share a band, [key of the one that would go, key of the one that would stay], from
/// [band, key] in `runs`, without documents that are removed already.
pub fn candidates(runs: &[PathBuf], removed: &Bits, folder: &Path, memory: usize, out: &Path) -> Result<()> {
    let mut pairs = Sorter::<2>::new(folder, "pairs", memory / 2);
    let mut crowd: Vec<u64> = Vec::new();
    let mut band = None;
    for record in Merge::<2>::new(runs, memory / 2)? {
        let [hash, key] = record?;
        if removed.has(key as u32) {
            continue;
        }
        if band != Some(hash) {
            band = Some(hash);
            crowd.clear();
        }
        for &other in &crowd {
            pairs.push([key, other])?;
        }
        if crowd.len() == 2 * CROWD {
            crowd.remove(CROWD);
        }
        crowd.push(key);
    }
    pairs.finish(out)
}

/// Compares the pairs in `candidates` and writes [document, the one that stays, bits of their similarity] to `out`; those
/// that go are put into `removed`. `progress` is told how many pairs were looked at.
pub fn verify(
    candidates: &Path,
    spool: &Spool,
    settings: &Duplicates,
    removed: &mut Bits,
    folder: &Path,
    memory: usize,
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut found = Sorter::<3>::new(folder, "near", memory / 4);
    let mut pairs = Merge::<2>::new(&[candidates.to_owned()], memory / 4)?.peekable();
    let mut done = 0;
    while pairs.peek().is_some() {
        let batch = pairs.by_ref().take(BATCH).collect::<Result<Vec<Record<2>>>>()?;
        done += batch.len() as u64;
        // What an earlier batch decided saves comparisons; what this one decides comes below.
        let open: Vec<Record<2>> =
            batch.into_iter().filter(|pair| pair.iter().all(|&key| !removed.has(key as u32))).collect();
        let alike = compare(&open, spool, settings.gram)?;
        for ([goes, stays], similarity) in open.into_iter().zip(alike) {
            let [goes, stays] = [goes as u32, stays as u32];
            if similarity >= settings.threshold && !removed.has(goes) && !removed.has(stays) {
                removed.insert(goes);
                found.push([goes.into(), stays.into(), similarity.to_bits()])?;
            }
        }
        progress(done);
    }
    found.finish(out)
}

/// The similarity of each pair.
fn compare(pairs: &[Record<2>], spool: &Spool, gram: usize) -> Result<Vec<f64>> {
    let shingles = |key: u64, words: &mut Words, set: &mut Vec<u64>| {
        spool.with(key as u32, |document| words.read(&document.text))?;
        words.shingles(gram, set);
        Ok(())
    };
    // A document's pairs stand together.
    let by_document: Vec<&[Record<2>]> = pairs.chunk_by(|a, b| a[0] == b[0]).collect();
    let compared: Vec<Vec<f64>> = by_document
        .par_iter()
        .map_init(
            || (Words::default(), Vec::new(), Vec::new()),
            |(words, own, other), pairs| {
                shingles(pairs[0][0], words, own)?;
                pairs.iter().map(|pair| shingles(pair[1], words, other).map(|()| jaccard(own, other))).collect()
            },
        )
        .collect::<Result<_>>()?;
    Ok(compared.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::clean::minhash::MinHash;
    use crate::data::clean::recipe::Recipe;
    use crate::data::clean::sort::write_run;
    use crate::data::clean::spool::{Stored, starts};

    /// Removals among texts: (document, the one that stays).
    fn removals(texts: &[String], keep: Keep) -> Vec<(u64, u64)> {
        let dir = tempfile::tempdir().unwrap();
        let settings = Duplicates { keep, ..Recipe::default().duplicates };
        let hashes = MinHash::new(settings.bands, settings.rows, settings.seed);
        let (mut part, mut bands) = (Vec::new(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            let stored =
                Stored { name: i.to_string().into(), source: "".into(), metadata: "{}".into(), text: text.into() };
            stored.write(&mut part);
            let (mut set, mut signature) = (Vec::new(), Vec::new());
            Words::of(text).shingles(settings.gram, &mut set);
            hashes.sign(&set, &mut signature);
            bands.extend(hashes.bands(&signature).map(|band| [band, key(keep, i as u32, text.len())]));
        }
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("part"), &part).unwrap();
        write_run(&path("bands"), &mut bands).unwrap();
        let spool = Spool::new(vec![(path("part"), starts(&path("part"), &part).unwrap())]);
        let mut removed = Bits::new(spool.len());
        candidates(&[path("bands")], &removed, dir.path(), 4096, &path("candidates")).unwrap();
        verify(&path("candidates"), &spool, &settings, &mut removed, dir.path(), 4096, &path("out"), &mut |_| {})
            .unwrap();
        let found = Merge::<3>::new(&[path("out")], 4096).unwrap().map(Result::unwrap);
        found.map(|[goes, stays, _]| (goes, stays)).collect()
    }

    /// `n` words from number `from` on, none of them twice.
    fn words(from: usize, n: usize) -> String {
        (from..from + n).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_chain_of_neighbours_is_not_taken_for_one_document() {
        // Each is alike in 0.87 with the next, and in less than 0.8 with the one after that.
        let texts: Vec<String> = (0..6).map(|i| words(i * 14, 204)).collect();
        assert_eq!(removals(&texts, Keep::First), [(1, 0), (3, 2), (5, 4)]);
    }

    #[test]
    fn the_longest_stays_where_that_is_wanted() {
        let texts = vec![words(0, 100), words(0, 110), words(500, 100), words(0, 105)];
        assert_eq!(removals(&texts, Keep::First), [(1, 0), (3, 0)]);
        assert_eq!(removals(&texts, Keep::Longest), [(0, 1), (3, 1)]);
    }

    #[test]
    fn a_crowd_of_copies_loses_all_but_one() {
        let texts: Vec<String> = (0..300).map(|i| format!("{} x{i}", words(0, 200))).collect();
        let found = removals(&texts, Keep::First);
        assert_eq!(found.len(), 299);
        assert!(found.iter().all(|&(_, stays)| stays == 0));
    }

    #[test]
    fn what_only_meets_in_a_band_stays() {
        // Alike in 0.7: more than half of such pairs are candidates.
        let texts: Vec<String> = (0..40).flat_map(|i| [words(i * 1000, 200), words(i * 1000 + 35, 200)]).collect();
        assert_eq!(removals(&texts, Keep::First), []);
    }
}
