//! What rules did: lines of the ledger, counts, and a few samples.

use super::rules::{RULES, Rule};
use super::words::{Words, mix};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Samples kept for each rule. They are those with the least hash of rule and document: a fair choice that depends neither
/// on the order of documents nor on threads.
const SAMPLES: usize = 5;
/// Bytes of text that a sample takes along.
const EXCERPT: usize = 800;

/// What a rule did with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is gone.
    Removed,
    /// A part of it was changed or is gone.
    Edited,
    /// It is as it was.
    Flagged,
}

/// One finding: a line of the ledger to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The rule.
    pub rule: Rule,
    /// What it did.
    pub action: Action,
    /// Why: numbers and names, never text of the document, which may be personal.
    pub evidence: Value,
    /// Bytes of text that are gone.
    pub bytes: u64,
    /// How often each kind of thing was found, where a rule knows kinds.
    pub kinds: BTreeMap<String, u64>,
    /// The start of the text that is gone, or of what the finding is about; masked before it is shown.
    pub excerpt: String,
    /// The same of the document that it is compared with.
    pub other: String,
}

impl Event {
    /// A finding about `text`.
    pub fn new(rule: Rule, action: Action, evidence: Value, bytes: u64, text: &str) -> Event {
        let excerpt = start(text.trim_start(), EXCERPT).to_owned();
        Event { rule, action, evidence, bytes, kinds: BTreeMap::new(), excerpt, other: String::new() }
    }

    /// The removal of a document.
    pub fn removed(rule: Rule, evidence: Value, text: &str) -> Event {
        Event::new(rule, Action::Removed, evidence, text.len() as u64, text)
    }

    /// Its line of the ledger, about the document of this name.
    pub fn line(&self, document: &str) -> String {
        let rule = self.rule.name();
        json!({"document": document, "rule": rule, "action": self.action, "evidence": self.evidence}).to_string() + "\n"
    }
}

/// `text` up to `bytes` bytes, cut between characters.
pub fn start(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What one rule did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Documents that it removed.
    pub removed: u64,
    /// Documents that it changed.
    pub edited: u64,
    /// Documents that it only marked.
    pub flagged: u64,
    /// Bytes of text that are gone by it.
    pub bytes: u64,
    /// How often each kind of thing was found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u64>,
    /// Some documents.
    pub samples: Vec<Sample>,
}

/// A document as an example of what a rule does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    key: u64,
    /// Its name.
    pub document: String,
    /// What was done.
    pub action: Action,
    /// Why.
    pub evidence: Value,
    /// The start of its text.
    pub excerpt: String,
    /// The start of the text of the document that it is compared with; may be empty.
    pub other: String,
}

/// Documents and bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Documents.
    pub documents: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Size {
    /// Counts one more document.
    pub fn add(&mut self, bytes: usize) {
        self.documents += 1;
        self.bytes += bytes as u64;
    }

    fn merge(&mut self, other: Size) {
        self.documents += other.documents;
        self.bytes += other.bytes;
    }
}

/// Groups that are told apart; documents of more go to "others".
const GROUPS: usize = 500;

/// What went in, what all rules did, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// What was read.
    pub read: Size,
    /// What was written.
    pub written: Size,
    /// Both by group.
    pub groups: BTreeMap<String, [Size; 2]>,
    /// By rule, in the order of [`RULES`].
    pub rules: Vec<Count>,
}

impl Default for Tally {
    fn default() -> Tally {
        let rules = vec![Count::default(); RULES.len()];
        Tally { read: Size::default(), written: Size::default(), groups: BTreeMap::new(), rules }
    }
}

impl Tally {
    /// Counts an event about the document of this name.
    pub fn add(&mut self, document: &str, event: Event) {
        let count = &mut self.rules[event.rule as usize];
        match event.action {
            Action::Removed => count.removed += 1,
            Action::Edited => count.edited += 1,
            Action::Flagged => count.flagged += 1,
        }
        count.bytes += event.bytes;
        for (kind, n) in event.kinds {
            *count.kinds.entry(kind).or_default() += n;
        }
        let key = Words::of(document).hashes().iter().fold(event.rule as u64, |key, &word| mix(key ^ word));
        if count.samples.len() < SAMPLES || count.samples.last().is_some_and(|last| key < last.key) {
            let Event { action, evidence, excerpt, other, .. } = event;
            count.keep(Sample { key, document: document.to_owned(), action, evidence, excerpt, other });
        }
    }

    /// Counts a document of a group that was read (`side` 0) or written (1).
    pub fn group(&mut self, name: &str, side: usize, bytes: usize) {
        let known = self.groups.len() < GROUPS || self.groups.contains_key(name);
        let name = if known { name } else { "others" };
        match self.groups.get_mut(name) {
            Some(sizes) => sizes[side].add(bytes),
            None => self.groups.entry(name.to_owned()).or_default()[side].add(bytes),
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: Tally) {
        self.read.merge(other.read);
        self.written.merge(other.written);
        for (name, [read, written]) in other.groups {
            let known = self.groups.len() < GROUPS || self.groups.contains_key(&name);
            let sizes = self.groups.entry(if known { name } else { "others".to_owned() }).or_default();
            sizes[0].merge(read);
            sizes[1].merge(written);
        }
        for (count, other) in self.rules.iter_mut().zip(other.rules) {
            count.removed += other.removed;
            count.edited += other.edited;
            count.flagged += other.flagged;
            count.bytes += other.bytes;
            for (kind, n) in other.kinds {
                *count.kinds.entry(kind).or_default() += n;
            }
            other.samples.into_iter().for_each(|sample| count.keep(sample));
        }
    }
}

impl Count {
    /// Whether it did anything.
    pub fn is_idle(&self) -> bool {
        self.removed + self.edited + self.flagged == 0
    }

    fn keep(&mut self, sample: Sample) {
        let order = |sample: &Sample| (sample.key, sample.document.clone());
        let at = self.samples.partition_point(|other| order(other) <= order(&sample));
        self.samples.insert(at, sample);
        self.samples.truncate(SAMPLES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(i: usize) -> Event {
        Event::removed(Rule::Sentences, json!({"sentences": i}), &"é".repeat(1000))
    }

    #[test]
    fn counts_and_samples_do_not_depend_on_how_documents_are_cut_into_parts() {
        let mut whole = Tally::default();
        (0..100).for_each(|i| whole.add(&format!("doc-{i}"), event(i)));
        let mut parts = Tally::default();
        for part in [60..100, 0..7, 7..60] {
            let mut tally = Tally::default();
            part.for_each(|i| tally.add(&format!("doc-{i}"), event(i)));
            parts.merge(tally);
        }
        assert_eq!(whole, parts);
        let count = &whole.rules[Rule::Sentences as usize];
        assert_eq!((count.removed, count.bytes, count.samples.len()), (100, 200_000, SAMPLES));
        assert_eq!(count.samples[0].excerpt.len(), EXCERPT);
        let read: Tally = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(read, whole);
    }

    #[test]
    fn a_line_of_the_ledger_is_an_object() {
        let line = event(2).line("a \"name\"");
        assert_eq!(
            line,
            "{\"document\":\"a \\\"name\\\"\",\"rule\":\"c4.sentences\",\"action\":\"removed\",\"evidence\":{\"sentences\":2}}\n"
        );
    }
}
