//! Personal data and secrets: found by [`crate::data::pii`], then flagged, masked, or dropped with their document.
//!
//! The ledger and the reports hold kind, place and a keyed hash of each finding, never the finding: equal hashes tell that
//! a number occurs twice without telling the number. The key is made from the whole text of the input: who can make it has
//! the findings anyway, and the same input gives the same ledger. With a key of the user's own, ledgers of several corpora
//! can be compared by those who have it.

use super::recipe::{Mode, Personal, one_of};
use super::rules::{Rule, RuleSet};
use super::tally::{Action, Event, start};
use crate::data::pii::{self, Kind, Kinds, Names, Span};
use crate::disk::{self, Os};
use crate::error::Result;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Hexadecimal digits of a hash: no two of a billion findings share it.
const DIGITS: usize = 24;
/// Bytes of a list of names.
const MAX_NAMES: u64 = 64 << 20;
/// Bytes of text that an example shows before the first finding.
const BEFORE: usize = 120;

/// The filter, ready to run.
pub struct PersonalFilter {
    kinds: Kinds,
    mode: Mode,
    key: [u8; 32],
    /// Whether the ledger is to hold the findings themselves.
    clear: bool,
    on: bool,
}

/// Checks the names of kinds.
pub fn check(kinds: &[String]) -> Result<()> {
    kinds_of(kinds).map(drop)
}

fn kinds_of(names: &[String]) -> Result<Vec<Kind>> {
    // Names of people come with their list.
    let known = || Kind::ALL.into_iter().filter(|&kind| kind != Kind::Name).map(|kind| (kind, kind.name().to_owned()));
    names.iter().map(|name| one_of("personal.kinds", name, known())).collect()
}

impl PersonalFilter {
    /// The filter of these settings; `clear` has the ledger hold the findings themselves.
    pub fn new(settings: &Personal, rules: RuleSet, key: [u8; 32], clear: bool) -> Result<PersonalFilter> {
        let mut kinds = Kinds::of(&kinds_of(&settings.kinds)?);
        if !settings.names.as_os_str().is_empty() {
            kinds = kinds.with_names(Names::new(&disk::text(&Os, &settings.names, MAX_NAMES)?)?);
        }
        Ok(PersonalFilter { kinds, mode: settings.mode, key, clear, on: rules.has(Rule::Personal) })
    }

    /// What is found in `text`, and the text with placeholders where it is to be masked.
    pub fn apply<'a>(&self, text: &'a str) -> (Cow<'a, str>, Option<Event>) {
        let spans = if self.on { pii::find(text, &self.kinds) } else { Vec::new() };
        let Some(first) = spans.first() else { return (Cow::Borrowed(text), None) };
        let bytes = spans.iter().map(|span| (span.end - span.start) as u64).sum();
        let shown = |span: &Span| {
            let found = &text[span.start..span.end];
            let mut shown = json!({"kind": span.kind.name(), "start": span.start, "end": span.end, "hash": self.hash(span.kind.name(), found)});
            if self.clear {
                shown["text"] = json!(found);
            }
            shown
        };
        let evidence = json!({"found": spans.iter().map(shown).collect::<Vec<_>>()});
        let (action, bytes) = match self.mode {
            Mode::Flag => (Action::Flagged, 0),
            Mode::Mask => (Action::Edited, bytes),
            Mode::Drop => (Action::Removed, text.len() as u64),
        };
        let from = start(text, first.start.saturating_sub(BEFORE)).len();
        let mut event = Event::new(Rule::Personal, action, evidence, bytes, &text[from..]);
        spans.iter().for_each(|span| *event.kinds.entry(span.kind.name().to_owned()).or_default() += 1);
        let text = if self.mode == Mode::Mask { Cow::Owned(masked(text, &spans)) } else { Cow::Borrowed(text) };
        (text, Some(event))
    }

    /// The hash by which equal findings are known.
    fn hash(&self, kind: &str, found: &str) -> String {
        let digest =
            Sha256::new().chain_update(self.key).chain_update(kind).chain_update([0]).chain_update(found).finalize();
        digest
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .take(DIGITS)
            .map(|n| char::from_digit(n.into(), 16).unwrap_or('0'))
            .collect()
    }
}

/// `text` with a placeholder for each span.
fn masked(text: &str, spans: &[Span]) -> String {
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for span in spans.iter().filter(|span| span.start < span.end) {
        if span.start < at {
            continue;
        }
        out.push_str(&text[at..span.start]);
        out.push_str(&format!("[{}]", span.kind.name().to_uppercase()));
        at = span.end;
    }
    out + &text[at..]
}

/// `text` with every kind of personal data masked.
pub fn masked_all(text: &str) -> String {
    masked(text, &pii::find(text, &Kinds::of(&Kind::ALL[..8])))
}

/// The start of `text`, for a report: every kind of personal data masked, and cut to about `characters`.
pub fn excerpt(text: &str, characters: usize) -> String {
    // A finding that the end of `text` cuts is not known for one, so the end is not shown.
    let all = masked_all(text);
    let shown = match text.len() > 2 * characters {
        true => start(&all, characters),
        false => &all,
    };
    let cut = shown.len() < all.len();
    let shown: String = shown.chars().take(characters).collect();
    if cut { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::clean::recipe::Recipe;

    fn filter(mode: Mode, key: u8, clear: bool) -> PersonalFilter {
        let settings = Personal { mode, ..Recipe::default().personal };
        PersonalFilter::new(&settings, RuleSet::without(&[]).unwrap(), [key; 32], clear).unwrap()
    }

    const TEXT: &str = "Write to anna@example.org, or to bo.k@mail.example.com. Or to anna@example.org again.";

    #[test]
    fn findings_are_masked_by_their_kind_and_known_by_their_hash() {
        let (text, event) = filter(Mode::Mask, 1, false).apply(TEXT);
        assert_eq!(text, "Write to [EMAIL], or to [EMAIL]. Or to [EMAIL] again.");
        let event = event.unwrap();
        assert_eq!((event.action, event.kinds["email"], event.bytes), (Action::Edited, 3, 53));
        let found = event.evidence["found"].as_array().unwrap();
        assert_eq!((found[0]["start"].as_u64(), found[0]["end"].as_u64()), (Some(9), Some(25)));
        assert!(found[0]["hash"] == found[2]["hash"] && found[0]["hash"] != found[1]["hash"]);
        assert!(!event.line("d").contains("anna"), "{}", event.line("d"));
        let (_, other) = filter(Mode::Mask, 2, false).apply(TEXT);
        assert_ne!(other.unwrap().evidence["found"][0]["hash"], found[0]["hash"]);
    }

    #[test]
    fn other_modes_leave_the_text_and_clear_text_needs_asking_for() {
        for (mode, action) in [(Mode::Flag, Action::Flagged), (Mode::Drop, Action::Removed)] {
            let (text, event) = filter(mode, 1, true).apply(TEXT);
            assert_eq!((text.as_ref(), event.as_ref().unwrap().action), (TEXT, action));
            assert_eq!(event.unwrap().evidence["found"][0]["text"], "anna@example.org");
        }
        assert!(filter(Mode::Mask, 1, true).apply("nothing here").1.is_none());
    }

    #[test]
    fn an_excerpt_shows_no_finding_nor_the_start_of_one() {
        assert_eq!(excerpt("Write to anna@example.org!", 100), "Write to [EMAIL]!");
        let long = "word ".repeat(100) + "anna@exam";
        let shown = excerpt(&long, 100);
        assert!(!shown.contains("anna") && shown.ends_with('…'), "{shown}");
    }
}
