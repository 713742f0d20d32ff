//! Terms that a user wants found, with weights. kiln brings no list of its own.
//!
//! A lexicon is a file of lines `term`, or `term`, a tab and its weight; a term is one or several words, which are
//! compared as all words are: in lower case, without what stands between them. Empty lines and those that start with `#`
//! are passed over. The score of a text is the sum of the weights of the terms in it by the number of its words.

use super::words::{HashTable, Words};
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A lexicon is held in memory.
const MAX_FILE: u64 = 64 << 20;
/// Words of the longest term.
const MAX_WORDS: usize = 16;

/// The terms of all files.
#[derive(Clone, Debug, Default)]
pub struct Lexicon {
    /// By number of words: the terms' hashes and weights. Without those of no term.
    terms: Vec<(usize, HashTable<f64>)>,
}

/// What was found in a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Bytes of the terms, in order.
    pub spans: Vec<Range<usize>>,
    /// The sum of their weights by the number of words.
    pub score: f64,
}

impl Lexicon {
    /// Reads files.
    ///
    /// # Errors
    /// One cannot be read; a weight that is no number; a term without a word or with too many.
    pub fn load(files: &[PathBuf]) -> Result<Lexicon> {
        let mut lexicon = Lexicon::default();
        for path in files {
            lexicon.add(&disk::text(&Os, path, MAX_FILE)?, path)?;
        }
        Ok(lexicon)
    }

    /// Adds the terms of a file's `text`.
    ///
    /// # Errors
    /// As of [`load`](Lexicon::load).
    pub fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |expected: &str, found: &str| {
                let hint = "a line is a term, or a term, a tab and its weight";
                Error::format(path, format!("line {number}"), expected, found, hint)
            };
            let (term, weight) = line.split_once('\t').unwrap_or((line, "1"));
            if term.trim().is_empty() || term.starts_with('#') {
                continue;
            }
            let weight: f64 = weight.trim().parse().map_err(|_| wrong("a weight", &format!("{weight:?}")))?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(wrong("a weight of 0 or more", &weight.to_string()));
            }
            let words = Words::of(term);
            let n = words.len();
            if !(1..=MAX_WORDS).contains(&n) {
                return Err(wrong(&format!("a term of 1 to {MAX_WORDS} words"), &n.to_string()));
            }
            let at = self.terms.iter().position(|(own, _)| *own >= n).unwrap_or(self.terms.len());
            if self.terms.get(at).is_none_or(|(own, _)| *own != n) {
                self.terms.insert(at, (n, HashTable::default()));
            }
            self.terms[at].1.extend(words.grams(n).map(|hash| (hash, weight)));
        }
        Ok(())
    }

    /// Whether there is no term.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms in a text with these words; where two overlap, the one that starts first, of those the longest.
    pub fn find(&self, words: &Words) -> Found {
        let mut hits: Vec<(usize, usize, f64)> = Vec::new();
        for (n, terms) in &self.terms {
            let at = |(i, hash): (usize, u64)| terms.get(&hash).map(|&weight| (i, *n, weight));
            hits.extend(words.grams(*n).enumerate().filter_map(at));
        }
        hits.sort_unstable_by_key(|&(at, n, _)| (at, std::cmp::Reverse(n)));
        let (mut found, mut next, mut sum) = (Found::default(), 0, 0.0);
        for (at, n, weight) in hits.into_iter() {
            if at >= next {
                found.spans.push(words.span(at, n));
                sum += weight;
                next = at + n;
            }
        }
        found.score = sum / words.len().max(1) as f64;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Lexicon> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rude.tsv");
        std::fs::write(&path, text).unwrap();
        Lexicon::load(&[path])
    }

    #[test]
    fn terms_are_found_as_words_with_their_weights() {
        let lexicon = load("# invented\nsnorb\t2\nold snorb\t0.5\nvlix you\n\n").unwrap();
        let text = "You Old, SNORB! Snorbs are no snorb. Vlix you, vlix.";
        let found = lexicon.find(&Words::of(text));
        let shown: Vec<&str> = found.spans.iter().map(|span| &text[span.clone()]).collect();
        assert_eq!(shown, ["Old, SNORB", "snorb", "Vlix you"]);
        assert_eq!(found.score, 3.5 / 10.0);
        assert_eq!(lexicon.find(&Words::of("nothing here")), Found::default());
        assert_eq!(lexicon.find(&Words::of("")).score, 0.0);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, says) in [
            ("a\nb\tmuch\n", "line 2: expected a weight, found \"much\""),
            ("a\t-1", "line 1: expected a weight of 0 or more"),
            ("!!\n", "a term of 1 to 16 words, found 0"),
            ("a\tNaN", "a weight of 0 or more"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(load("").unwrap().is_empty());
    }
}
