//! Documents that share text with what a model is to be judged by: a run of 13 words is taken for more than chance (Brown
//! et al. 2020, appendix C). An evaluation text of fewer words, but at least 8, counts as a whole; shorter ones are passed
//! over, for they occur everywhere.

use super::words::{HashTable, Words};
use crate::data::Sources;
use crate::data::index::name;
use crate::error::Result;
use std::collections::hash_map::Entry;
use std::path::PathBuf;

/// The fewest words that tell a text.
const LEAST: usize = 8;

/// The runs of words of evaluation texts.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// By number of words: hash of the run, number of the first text that has it.
    grams: Vec<(usize, HashTable<u32>)>,
    names: Vec<String>,
    /// Texts that were too short to be looked for.
    pub too_short: u64,
}

/// Where a document meets an evaluation text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap<'a> {
    /// The text.
    pub text: &'a str,
    /// The first word of the document that they share.
    pub word: usize,
    /// How many words in a row.
    pub words: usize,
    /// How many runs of the document are in any evaluation text.
    pub runs: usize,
}

impl Evaluation {
    /// Reads evaluation texts; `gram` words count as seen.
    pub fn load(files: &[PathBuf], field: &str, gram: usize) -> Result<Evaluation> {
        let mut evaluation = Evaluation::default();
        if files.is_empty() {
            return Ok(evaluation);
        }
        let mut grams: Vec<HashTable<u32>> = vec![HashTable::default(); gram + 1];
        let mut words = Words::default();
        for document in Sources::open(files, field)?.documents() {
            let document = document?;
            words.read(&document.text);
            let n = gram.min(words.len());
            if n < LEAST.min(gram) {
                evaluation.too_short += 1;
                continue;
            }
            let number = evaluation.names.len() as u32;
            evaluation.names.push(name(&document));
            for hash in words.grams(n) {
                if let Entry::Vacant(vacant) = grams[n].entry(hash) {
                    vacant.insert(number);
                }
            }
        }
        evaluation.grams = grams.into_iter().enumerate().filter(|(_, grams)| !grams.is_empty()).collect();
        Ok(evaluation)
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.grams.is_empty()
    }

    /// Where a text with these words meets an evaluation text first.
    pub fn find(&self, words: &Words) -> Option<Overlap<'_>> {
        let mut best: Option<Overlap> = None;
        for (n, grams) in self.grams.iter().rev() {
            let mut hits = words.grams(*n).enumerate().filter_map(|(i, hash)| Some((i, grams.get(&hash)?)));
            let Some((word, &number)) = hits.next() else { continue };
            let runs = 1 + hits.count();
            match &mut best {
                Some(best) => best.runs += runs,
                None => best = Some(Overlap { text: &self.names[number as usize], word, words: *n, runs }),
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_run_of_words_is_found_and_a_shorter_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.jsonl");
        let long = "what does the miller of the village give to the boy who brings him grain in autumn";
        let short = "the owl sleeps in the tower of the old church";
        let lines = [("q1", long), ("q2", short), ("q3", "the owl sleeps")]
            .map(|(id, text)| serde_json::json!({"id": id, "text": text}).to_string());
        std::fs::write(&path, lines.join("\n")).unwrap();
        let evaluation = Evaluation::load(&[path], "text", 13).unwrap();
        assert_eq!((evaluation.too_short, evaluation.names.len()), (1, 2));
        let find = |text: &str| evaluation.find(&Words::of(text));
        let words: Vec<&str> = long.split(' ').collect();
        let with = |n: usize| format!("so Anna asked: {}; nobody knew", words[2..2 + n].join(", "));
        assert_eq!(find(&with(13)), Some(Overlap { text: "q1", word: 3, words: 13, runs: 1 }));
        assert_eq!(find(&with(14)).unwrap().runs, 2);
        assert_eq!(find(&with(12)), None);
        assert_eq!(find(&format!("Look! {}", short.to_uppercase())).unwrap().text, "q2");
        assert_eq!(find("the owl sleeps in the tower of the new church"), None);
        assert!(Evaluation::load(&[], "text", 13).unwrap().is_empty());
    }
}
