//! Corpora in which both genders stand beside the same words: every document followed by its counterpart ([`swap`](super::swap)) or, for half of
//! them, replaced by it; or documents repeated and left out until both are as frequent (after Kamiran and Calders 2012, doi 10.1007/s10115-011-0463-8, with whole copies in place of
//! weights).

use super::atomic::AtomicFile;
use super::source::{Document, Sources};
use super::swap::{Swap, first_of, has_name};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The file of the result.
pub const DOCUMENTS: &str = "documents.jsonl";

/// What is done to documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// Each is followed by its counterpart.
    Swap {
        /// Only those in which one of these words stands; empty: all.
        only: Vec<String>,
        /// Those in which a name stands have no counterpart.
        spare_names: bool,
        /// Half of the counterparts, by lot, stand in the place of their documents, and the others nowhere: no text is read twice, and there is as
        /// much of it as before (Hall Maudslay et al. 2019, arXiv 1909.00871).
        instead: bool,
    },
    /// Of those in which one of these words stands, as many are of one side as of the other, and as many as there were in all.
    Reweigh(Vec<String>),
}

/// Documents of both sides beside a word.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Beside {
    /// Of the left and the right words of the pairs, as they came.
    pub before: [u64; 2],
    /// As they were written.
    pub after: [u64; 2],
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Augmented {
    /// Documents that were read.
    pub read: u64,
    /// Documents that were written.
    pub written: u64,
    /// Counterparts among them.
    pub counterparts: u64,
    /// Documents without a counterpart since a name stands in them.
    pub spared: u64,
    /// Where documents are weighed: of each word.
    pub words: BTreeMap<String, Beside>,
}

/// A line of the result.
fn line(document: &Document, id: &str, text: &str) -> Vec<u8> {
    let mut fields = Map::new();
    if !id.is_empty() {
        fields.insert("id".into(), id.into());
    }
    fields.insert("text".into(), text.into());
    for (key, value) in &document.metadata {
        fields.entry(key.clone()).or_insert_with(|| value.clone());
    }
    (Value::Object(fields).to_string() + "\n").into_bytes()
}

/// How many copies the `k`-th of `n` documents gets, so that all of them get `total`, evenly.
fn copies(k: u64, n: u64, total: u64) -> u64 {
    ((u128::from(k + 1) * u128::from(total)) / u128::from(n) - (u128::from(k) * u128::from(total)) / u128::from(n))
        as u64
}

/// Writes the documents of `sources` into `dir`, with what `way` does to them. A counterpart's id is the document's with `~` behind it.
/// `told` hears how many bytes of text were read, at times.
///
/// # Errors
/// A source cannot be read, the result not be written; `told` fails.
pub fn augment(
    sources: &Sources,
    swap: &Swap,
    way: &Way,
    dir: &Path,
    told: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Augmented> {
    disk::make_dirs(&Os, dir)?;
    let mut done = Augmented::default();
    let of = |text: &str, list: &[String]| Some((first_of(list, text)?.to_owned(), usize::from(swap.side(text)?)));
    if let Way::Reweigh(list) = way {
        for document in sources.documents() {
            if let Some((word, side)) = of(&document?.text, list) {
                done.words.entry(word).or_default().before[side] += 1;
            }
        }
    }
    let mut file = AtomicFile::create(&Os, &dir.join(DOCUMENTS))?;
    let mut seen: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    let mut bytes = 0;
    let mut lots = Rng::new(1, Purpose::Resample, 31, 0);
    for document in sources.documents() {
        let document = document?;
        let text = &document.text;
        done.read += 1;
        bytes += text.len() as u64;
        if done.read.is_multiple_of(1000) {
            told(bytes)?;
        }
        let mut times = 1;
        let mut counterpart = None;
        match way {
            Way::Swap { only, spare_names, instead } => {
                if only.is_empty() || first_of(only, text).is_some() {
                    counterpart = swap.text(text);
                }
                if *spare_names && counterpart.is_some() && has_name(text) {
                    counterpart = None;
                    done.spared += 1;
                }
                if *instead && counterpart.is_some() {
                    match lots.below(2) {
                        0 => times = 0,
                        _ => counterpart = None,
                    }
                }
            }
            Way::Reweigh(list) => {
                if let Some((word, side)) = of(text, list) {
                    let beside = done.words.entry(word.clone()).or_default();
                    let k = &mut seen.entry(word).or_default()[side];
                    let all = beside.before[0] + beside.before[1];
                    // The left side has the odd one; where one side has none, nothing can be done.
                    let total = if side == 0 { all.div_ceil(2) } else { all / 2 };
                    // A source that grows while it is read has more than were counted.
                    if beside.before[1 - side] > 0 && *k < beside.before[side] {
                        times = copies(*k, beside.before[side], total);
                    }
                    *k += 1;
                    beside.after[side] += times;
                }
            }
        }
        for _ in 0..times {
            file.write(&line(&document, &document.id, text))?;
        }
        if let Some(text) = &counterpart {
            let id = if document.id.is_empty() { String::new() } else { document.id.clone() + "~" };
            file.write(&line(&document, &id, text))?;
            done.counterparts += 1;
        }
        done.written += times + u64::from(counterpart.is_some());
    }
    file.commit()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the result.
    fn written(lines: &[&str], way: &Way) -> (Augmented, Vec<(String, String)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.jsonl");
        let all: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(i, text)| format!("{{\"text\": {text:?}, \"id\": \"{i}\", \"tag\": 7}}\n"))
            .collect();
        std::fs::write(&path, all.concat()).unwrap();
        let sources = Sources::open(&[&path], "text").unwrap();
        let done = augment(&sources, &Swap::gender(), way, dir.path(), &mut |_| Ok(())).unwrap();
        let result = Sources::open(&[dir.path().join(DOCUMENTS)], "text").unwrap();
        let all = result.documents().map(|document| document.unwrap());
        let all: Vec<_> = all.inspect(|d| assert_eq!(d.metadata["tag"], 7)).map(|d| (d.id, d.text)).collect();
        assert_eq!(all.len() as u64, done.written);
        (done, all)
    }

    #[test]
    fn documents_are_followed_by_their_counterparts() {
        let lines =
            ["A nurse lost her hat.", "It rained.", "A plumber lost his hat.", "Anna knew Tom, the nurse. He sang."];
        let (done, all) = written(&lines, &Way::Swap { only: Vec::new(), spare_names: false, instead: false });
        let texts: Vec<&str> = all.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts[..3], ["A nurse lost her hat.", "A nurse lost his hat.", "It rained."]);
        assert_eq!((&*all[1].0, texts[6], done.counterparts), ("0~", "Anna knew Tom, the nurse. She sang.", 3));
        let (done, all) = written(&lines, &Way::Swap { only: vec!["nurse".into()], spare_names: true, instead: false });
        assert_eq!((all.len(), done.counterparts, done.spared), (5, 1, 1));
    }

    #[test]
    fn half_of_the_documents_are_replaced_by_their_counterparts() {
        let lines = ["A nurse lost her hat."; 200];
        let (done, all) = written(&lines, &Way::Swap { only: Vec::new(), spare_names: false, instead: true });
        let men = all.iter().filter(|(id, text)| text.contains(" his ") && id.ends_with('~')).count();
        assert!((75..=125).contains(&men) && all.len() == 200 && done.counterparts == men as u64, "{done:?}");
    }

    #[test]
    fn both_sides_become_as_frequent_beside_each_word() {
        let mut lines = vec!["The nurse lost her hat."; 9];
        lines.extend(["A nurse lost his hat.", "A plumber lost his hat.", "A plumber lost his map.", "A nurse came."]);
        let (done, all) = written(&lines, &Way::Reweigh(vec!["nurse".into(), "plumber".into()]));
        assert_eq!(done.words["nurse"], Beside { before: [1, 9], after: [5, 5] });
        // There is no woman among the plumbers to be repeated.
        assert_eq!(done.words["plumber"], Beside { before: [2, 0], after: [2, 0] });
        let count = |text: &str| all.iter().filter(|one| one.1 == text).count();
        assert_eq!(
            [count("The nurse lost her hat."), count("A nurse lost his hat."), count("A nurse came.")],
            [5, 5, 1]
        );
        // Evenly, not the first ones.
        assert!(all.iter().any(|one| one.0 == "8") && (done.written, done.read) == (13, 13));
    }
}
