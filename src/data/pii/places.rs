//! Street addresses by their form, and names from a list that the user brings.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Kind, Span, begins, ends, run, run_back};
use crate::error::{Error, Result};

/// Names to look for, as they are written.
#[derive(Clone, Debug)]
pub struct Names {
    search: AhoCorasick,
}

impl Names {
    /// The names of a list, one a line; blank lines and those that start with `#` are none. A name shorter than three
    /// characters would be found everywhere, and is an error.
    pub fn new(list: &str) -> Result<Names> {
        let names: Vec<&str> =
            list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        if let Some(short) = names.iter().find(|name| name.chars().count() < 3) {
            let problem = format!("the name {short:?} in the list is shorter than three characters");
            return Err(Error::usage(problem, "give whole names, one a line"));
        }
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
        let search = search.map_err(|e| Error::usage(format!("the list of names: {e}"), "give a shorter list"))?;
        Ok(Names { search })
    }

    pub(super) fn find(&self, text: &str, spans: &mut Vec<Span>) {
        let bytes = text.as_bytes();
        let whole = |found: &aho_corasick::Match| begins(bytes, found.start()) && ends(bytes, found.end());
        let span = |found: aho_corasick::Match| Span { kind: Kind::Name, start: found.start(), end: found.end() };
        spans.extend(self.search.find_iter(text).filter(whole).map(span));
    }
}

const ENGLISH: [&str; 34] = [
    "Street",
    "St",
    "Avenue",
    "Ave",
    "Road",
    "Rd",
    "Lane",
    "Ln",
    "Drive",
    "Dr",
    "Boulevard",
    "Blvd",
    "Court",
    "Ct",
    "Place",
    "Pl",
    "Way",
    "Terrace",
    "Ter",
    "Square",
    "Sq",
    "Highway",
    "Hwy",
    "Parkway",
    "Pkwy",
    "Circle",
    "Cir",
    "Close",
    "Crescent",
    "Row",
    "Hill",
    "Gardens",
    "Mews",
    "Alley",
];

const GERMAN: [&str; 9] = ["straße", "strasse", "str.", "weg", "gasse", "platz", "allee", "damm", "ufer"];

/// The street address with the number at bytes `at` to `end`: `12 Mill Lane`, `221B Baker Street`, `Lindenstraße 7`.
pub(super) fn address(text: &str, at: usize, end: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    if end - at > 5 {
        return None;
    }
    let mut number_end = end;
    if bytes.get(end).is_some_and(u8::is_ascii_alphabetic) && ends(bytes, end + 1) {
        number_end += 1;
    }
    if !ends(bytes, number_end) {
        return None;
    }
    // Up to four words, each with a capital, the last of them a kind of street.
    let (mut word_start, mut street) = (number_end + 1, None);
    for n in 0..5 {
        if bytes.get(word_start - 1) != Some(&b' ') {
            break;
        }
        let word_end =
            run(bytes, word_start, 64, |b| b.is_ascii_alphanumeric() || b >= 0x80 || b == b'\'' || b == b'-');
        let Some(word) = text.get(word_start..word_end) else { break };
        if n > 0 && ENGLISH.contains(&word) {
            street = Some(Span { kind: Kind::Address, start: at, end: word_end });
        }
        if !word.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()) {
            break;
        }
        word_start = word_end + 1;
    }
    if street.is_some() {
        return street;
    }
    // German: the street, then the number.
    let street_end = at.checked_sub(1).filter(|&end| bytes[end] == b' ')?;
    let street = run_back(bytes, street_end, 40, |b| b.is_ascii_alphanumeric() || b >= 0x80 || b == b'-' || b == b'.');
    let word = text.get(street..street_end)?;
    let capital = word.starts_with(char::is_uppercase);
    let lower = word.to_lowercase();
    (capital && word.chars().count() > 5 && GERMAN.iter().any(|suffix| lower.ends_with(suffix))).then_some(Span {
        kind: Kind::Address,
        start: street,
        end: number_end,
    })
}
