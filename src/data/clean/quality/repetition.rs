//! Gopher's filters of repetition (Rae et al. 2021, table A1), with the definitions of datatrove, which FineWeb used:
//! a share of characters is bytes of what is repeated, without its first occurrence, by bytes of the text.

use super::{Analysis, Reason, above, share};
use crate::data::clean::recipe;
use crate::data::clean::rules::{Rule, RuleSet};
use crate::data::clean::words::{Words, mix};
use serde_json::json;
use std::ops::Range;

/// A hash table of hashes with open addressing, for as many as are in a document.
struct Table {
    /// Hash, how often it came, when it came first (from 1; 0: nothing is here).
    slots: Vec<(u64, u32, u32)>,
    mask: usize,
}

impl Table {
    fn new(most: usize) -> Table {
        let size = (2 * most).next_power_of_two().max(16);
        Table { slots: vec![(0, 0, 0); size], mask: size - 1 }
    }

    fn clear(&mut self) {
        self.slots.fill((0, 0, 0));
    }

    /// Counts `hash`, the `index`th; gives how often it came and when first, from 0.
    #[inline]
    fn add(&mut self, hash: u64, index: usize) -> (u32, u32) {
        let mut at = hash as usize & self.mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.2 == 0 {
                *slot = (hash, 1, index as u32 + 1);
            } else if slot.0 == hash {
                slot.1 += 1;
            } else {
                at = (at + 1) & self.mask;
                continue;
            }
            return (slot.1, slot.2 - 1);
        }
    }
}

/// How many of the pieces came before, and their bytes.
pub(super) fn repeated(text: &str, pieces: &[Range<usize>]) -> (usize, usize) {
    let mut table = Table::new(pieces.len());
    let hash = |piece: &str| {
        let words = piece.as_bytes().chunks(8);
        words.fold(piece.len() as u64, |hash, word| {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            mix(hash ^ u64::from_le_bytes(bytes))
        })
    };
    let (mut count, mut bytes) = (0, 0);
    for (i, range) in pieces.iter().enumerate() {
        if table.add(hash(&text[range.clone()]), i).0 > 1 {
            count += 1;
            bytes += range.len();
        }
    }
    (count, bytes)
}

/// Bytes of all occurrences of the commonest run of `n` words; 0 where none comes twice.
fn top(words: &Words, n: usize, table: &mut Table) -> usize {
    table.clear();
    let mut best = (1, u32::MAX);
    for (i, hash) in words.grams(n).enumerate() {
        let (count, first) = table.add(hash, i);
        // The commonest; among equals the one that came first.
        if count > best.0 || (count == best.0 && first < best.1) {
            best = (count, first);
        }
    }
    if best.0 < 2 { 0 } else { best.0 as usize * words.span(best.1 as usize, n).len() }
}

/// Bytes of runs of `n` words that came before; a run that did is passed over whole.
fn duplicate(words: &Words, n: usize, table: &mut Table) -> usize {
    table.clear();
    let (mut next, mut bytes) = (0, 0);
    for (i, hash) in words.grams(n).enumerate() {
        if i < next {
            continue;
        }
        if table.add(hash, i).0 > 1 {
            bytes += words.span(i, n).len();
            next = i + n;
        }
    }
    bytes
}

/// The first rule that fails.
pub fn judge(text: &Analysis, limits: &recipe::Repetition, rules: RuleSet) -> Option<Reason> {
    let size = text.text.len();
    let parts = [
        (
            &text.layout.lines,
            [
                (Rule::DuplicateLines, limits.max_duplicate_lines),
                (Rule::DuplicateLineCharacters, limits.max_duplicate_line_characters),
            ],
        ),
        (
            &text.layout.paragraphs,
            [
                (Rule::DuplicateParagraphs, limits.max_duplicate_paragraphs),
                (Rule::DuplicateParagraphCharacters, limits.max_duplicate_paragraph_characters),
            ],
        ),
    ];
    for (pieces, [(by_count, most), (by_characters, most_characters)]) in parts {
        if pieces.len() < 2 || !rules.any(&[by_count, by_characters]) {
            continue;
        }
        let (count, bytes) = repeated(text.text, pieces);
        let found = above(rules, by_count, share(count, pieces.len()), most)
            .or_else(|| above(rules, by_characters, share(bytes, size), most_characters));
        if found.is_some() {
            return found;
        }
    }
    let mut table = Table::new(text.words.len());
    let found = |rule: Rule, n: usize, bytes: usize, most: f64| {
        let (_, mut evidence) = above(rules, rule, share(bytes, size), most)?;
        evidence["words"] = json!(n);
        Some((rule, evidence))
    };
    // Where no run of n words comes twice, no longer one does.
    if rules.has(Rule::TopGrams) {
        for (n, &most) in (2..).zip(&limits.max_top_grams) {
            let bytes = top(text.words, n, &mut table);
            if bytes == 0 {
                return None;
            }
            let reason = found(Rule::TopGrams, n, bytes, most);
            if reason.is_some() {
                return reason;
            }
        }
    }
    if rules.has(Rule::DuplicateGrams) {
        for (n, &most) in (5..).zip(&limits.max_duplicate_grams) {
            let bytes = duplicate(text.words, n, &mut table);
            if bytes == 0 {
                return None;
            }
            let reason = found(Rule::DuplicateGrams, n, bytes, most);
            if reason.is_some() {
                return reason;
            }
        }
    }
    None
}
