//! Whether text is the village's language, and how far a story could go so.

use super::check::Reader;
use super::grammar::{Alternative, Op};
use super::teller::Teller;
use super::{Split, World};
use std::ops::Range;

impl World {
    /// The whole sentences of `text`, each with whether the village has it: whether some template gives it, with words of the right kinds in its places,
    /// whoever they mean and whether or not it is true. Two sentences that one template gives count as two.
    pub fn sentences(&self, text: &str) -> Vec<(Range<usize>, bool)> {
        let reader = Reader::strict(self, text);
        let all = sentences(text);
        let mut found = Vec::with_capacity(all.len());
        while let Some(first) = all.get(found.len()) {
            // Some templates begin as shorter ones do: the longest counts.
            let ends = self.templates().filter_map(|alternative| Some(reader.start(alternative, first.start)?.0));
            let covered = ends.filter_map(|end| (found.len()..all.len()).find(|&i| all[i].end == end)).max();
            let covered = covered.filter(|&last| capitals(text, &all[found.len()..=last]));
            match covered {
                Some(last) => found.extend(all[found.len()..=last].iter().map(|span| (span.clone(), true))),
                None => found.push((first.clone(), false)),
            }
        }
        found
    }

    /// How many bytes of `text` some story begins with: so far it is right in every fact, and in who is where and has what.
    pub fn could_tell(&self, text: &str) -> usize {
        Teller::new(self).reach(Split::Train, text)
    }

    /// All templates of whole sentences.
    fn templates(&self) -> impl Iterator<Item = &Alternative> {
        let named = self.grammar.rules.iter().filter(|rule| !rule.roles.is_empty());
        named.flat_map(|rule| &rule.list).filter(|alternative| self.ends_sentence(alternative))
    }

    fn ends_sentence(&self, alternative: &Alternative) -> bool {
        match self.grammar.ops(alternative).last() {
            Some(&Op::Text { start, end, .. }) => self.grammar.literal(start, end).ends_with(['.', '!', '?', '"']),
            Some(&Op::Call { rule, .. }) => {
                self.grammar.rules[rule as usize].list.iter().any(|own| self.ends_sentence(own))
            }
            _ => false,
        }
    }
}

/// The whole sentences of a text: what ends in `.`, `!` or `?`, with a quotation mark behind it or not, before a blank and no small letter.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let (mut all, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(['.', '!', '?']) {
        let end = at + 1 + usize::from(text[at + 1..].starts_with('"'));
        let after = &text[end..];
        let next = after.trim_start();
        let over = next.is_empty() || after.len() > next.len() && !next.starts_with(char::is_lowercase);
        if over && end > start {
            all.push(start..end);
            start = text.len() - next.len();
        }
    }
    all
}

/// Whether sentences begin with a capital.
fn capitals(text: &str, spans: &[Range<usize>]) -> bool {
    spans.iter().all(|span| text[span.clone()].trim_start_matches('"').starts_with(char::is_uppercase))
}
