//! Texts and paragraphs that were there before, by 128 bits of SHA-256: two different texts would have to be looked for on
//! purpose to share them. The hashes are sorted on disk, so memory does not grow with their number.

use super::layout::Layout;
use super::sort::{Merge, Record, Sorter, with_first};
use super::spool::Bits;
use crate::error::Result;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// 128 bits of the SHA-256 of a text.
pub fn hash(text: &str) -> [u64; 2] {
    let digest = Sha256::digest(text.as_bytes());
    let half = |at: usize| u64::from_be_bytes(digest[at..at + 8].try_into().expect("eight bytes"));
    [half(0), half(8)]
}

/// Where a paragraph is: its document and its number in [`Layout::blocks`].
pub fn place(document: u32, block: usize) -> u64 {
    u64::from(document) << 32 | block as u64
}

/// The paragraphs of a text that count, each with its hash.
pub fn paragraphs<'a>(
    text: &'a str,
    layout: &'a Layout,
    min_bytes: usize,
) -> impl Iterator<Item = (usize, [u64; 2])> + 'a {
    let long = layout.blocks().iter().enumerate().filter(move |(_, range)| range.len() >= min_bytes);
    long.map(|(i, range)| (i, hash(&text[range.clone()])))
}

/// Finds documents whose text came before, among [hash, document] in `runs`: writes [document, the first one] to `out`,
/// and puts them into `removed`.
pub fn documents(runs: &[PathBuf], removed: &mut Bits, folder: &Path, memory: usize, out: &Path) -> Result<()> {
    let mut found = Sorter::<2>::new(folder, "exact", memory / 2);
    with_first(Merge::<3>::new(runs, memory / 2)?, 2, |first, record| {
        if record[2] != first[2] {
            removed.insert(record[2] as u32);
            found.push([record[2], first[2]])?;
        }
        Ok(())
    })?;
    found.finish(out)
}

/// Finds paragraphs that came before in a document that stays, among [hash, place] in `runs`: writes [place, the first
/// place] to `out`.
pub fn blocks(runs: &[PathBuf], removed: &Bits, folder: &Path, memory: usize, out: &Path) -> Result<()> {
    let mut found = Sorter::<2>::new(folder, "blocks", memory / 2);
    let stays = |record: &Result<Record<3>>| record.as_ref().map_or(true, |r| !removed.has((r[2] >> 32) as u32));
    with_first(Merge::<3>::new(runs, memory / 2)?.filter(stays), 2, |first, record| match record[2] != first[2] {
        true => found.push([record[2], first[2]]),
        false => Ok(()),
    })?;
    found.finish(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::clean::sort::write_run;

    fn read(path: &Path) -> Vec<Record<2>> {
        Merge::<2>::new(&[path.to_owned()], 1 << 16).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_first_of_equal_texts_stays_wherever_the_runs_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let texts = ["a", "b", "a", "c", "b", "a"];
        let runs: Vec<PathBuf> = (0..3).map(|i| dir.path().join(format!("{i}.run"))).collect();
        for (i, run) in runs.iter().enumerate() {
            let record = |j: usize| [hash(texts[j])[0], hash(texts[j])[1], j as u64];
            write_run(run, &mut [record(2 * i), record(2 * i + 1)]).unwrap();
        }
        let (out, mut removed) = (dir.path().join("out"), Bits::new(6));
        documents(&runs, &mut removed, dir.path(), 4096, &out).unwrap();
        assert_eq!(read(&out), [[2, 0], [4, 1], [5, 0]]);
        assert_eq!((0..6).filter(|&i| removed.has(i)).collect::<Vec<_>>(), [2, 4, 5]);
    }

    #[test]
    fn a_paragraph_stays_where_it_first_is_in_a_document_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("0.run");
        let record = |text: &str, document: u32, block: usize| [hash(text)[0], hash(text)[1], place(document, block)];
        let mut records =
            [record("x", 0, 0), record("x", 1, 2), record("x", 3, 0), record("y", 1, 0), record("x", 1, 5)];
        write_run(&run, &mut records).unwrap();
        let (out, mut removed) = (dir.path().join("out"), Bits::new(4));
        removed.insert(0);
        blocks(&[run], &removed, dir.path(), 4096, &out).unwrap();
        assert_eq!(read(&out), [[place(1, 5), place(1, 2)], [place(3, 0), place(1, 2)]]);
    }

    #[test]
    fn only_long_paragraphs_count() {
        let text = "short\n\na paragraph that is long enough\n\nshort";
        let layout = Layout::of(text);
        let found: Vec<usize> = paragraphs(text, &layout, 20).map(|(i, _)| i).collect();
        assert_eq!(found, [1]);
    }
}
