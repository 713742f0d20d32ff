//! Personal data in text: where it is and of what kind.
//!
//! One pass looks for bytes that any kind needs (`@`, digits, colons, …); at each, the kinds that it may belong to are
//! checked exactly: formats, lengths, checksums (Luhn for cards, ISO 7064 mod 97 for IBANs), and the words before it,
//! since `order 555-123-4567` is no telephone and `version 10.2.0.1` no address. Numbers that look like personal data and
//! are none (dates, versions, ISBNs, hashes, times, coordinates, prices) are meant to stay.

mod context;
mod net;
mod numbers;
mod phone;
mod places;
mod secrets;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use places::Names;

/// What personal data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone number, international, or national where its form or the words before it say so.
    Phone,
    /// An address of IPv4 or IPv6.
    Ip,
    /// An international bank account number.
    Iban,
    /// The number of a credit card.
    Card,
    /// A social security number of the USA.
    Ssn,
    /// A key, a token, a password.
    Secret,
    /// A street and a number in it.
    Address,
    /// A name from a list.
    Name,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 9] = [
        Kind::Email,
        Kind::Phone,
        Kind::Ip,
        Kind::Iban,
        Kind::Card,
        Kind::Ssn,
        Kind::Secret,
        Kind::Address,
        Kind::Name,
    ];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::Ip => "ip",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ssn => "ssn",
            Kind::Secret => "secret",
            Kind::Address => "address",
            Kind::Name => "name",
        }
    }

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The kinds to look for.
#[derive(Clone, Debug)]
pub struct Kinds {
    set: u16,
    names: Option<Arc<Names>>,
}

impl Default for Kinds {
    /// Every kind but street addresses and names.
    fn default() -> Kinds {
        Kinds { set: 0, names: None }.with(&Kind::ALL[..7])
    }
}

impl Kinds {
    /// These kinds. [`Kind::Name`] needs [`Kinds::with_names`].
    pub fn of(kinds: &[Kind]) -> Kinds {
        Kinds { set: 0, names: None }.with(kinds)
    }

    fn with(mut self, kinds: &[Kind]) -> Kinds {
        self.set |= kinds.iter().map(|&kind| 1 << kind as u16).sum::<u16>();
        self
    }

    /// These kinds, and the names of a list.
    pub fn with_names(mut self, names: Names) -> Kinds {
        self.set |= 1 << Kind::Name as u16;
        self.names = Some(Arc::new(names));
        self
    }

    /// Whether `kind` is among them.
    pub fn has(&self, kind: Kind) -> bool {
        self.set & (1 << kind as u16) != 0
    }
}

/// Personal data in a text: bytes `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// What the pass stops at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Digit,
    At,
    Colon,
    Equals,
}

const STOPS: [Stop; 256] = {
    let mut table = [Stop::No; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        table[digit as usize] = Stop::Digit;
        digit += 1;
    }
    table[b'@' as usize] = Stop::At;
    table[b':' as usize] = Stop::Colon;
    table[b'=' as usize] = Stop::Equals;
    table
};

/// The personal data of these kinds in `text`, in order, without overlaps: of two that overlap, the longer one.
pub fn find(text: &str, kinds: &Kinds) -> Vec<Span> {
    let mut spans = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let stop = STOPS[usize::from(bytes[at])];
        match stop {
            Stop::No => at += 1,
            Stop::Digit => at = numbers::find(text, at, kinds, &mut spans),
            Stop::At => {
                if kinds.has(Kind::Email) {
                    spans.extend(net::email(text, at));
                }
                at += 1;
            }
            Stop::Colon | Stop::Equals => {
                if kinds.has(Kind::Ip) && stop == Stop::Colon {
                    spans.extend(net::ipv6(text, at));
                }
                if kinds.has(Kind::Secret) {
                    spans.extend(secrets::assigned(text, at));
                }
                at += 1;
            }
        }
    }
    secrets::marked(text, kinds, &mut spans);
    if let Some(names) = &kinds.names {
        names.find(text, &mut spans);
    }
    resolve(spans)
}

/// Where the bytes from `start` on that are `of` a kind end; at most `most` of them, so that no text is gone through again
/// and again.
fn run(bytes: &[u8], start: usize, most: usize, of: impl Fn(u8) -> bool) -> usize {
    start + bytes[start..].iter().take(most).take_while(|&&b| of(b)).count()
}

/// Where the bytes before `end` that are `of` a kind begin; at most `most` of them.
fn run_back(bytes: &[u8], end: usize, most: usize, of: impl Fn(u8) -> bool) -> usize {
    end - bytes[..end].iter().rev().take(most).take_while(|&&b| of(b)).count()
}

/// Whether a word could begin at `at`: the character before belongs to none.
fn begins(bytes: &[u8], at: usize) -> bool {
    let start = (1..=at.min(4)).map(|back| at - back).find(|&start| bytes[start] & 0xc0 != 0x80);
    !start.is_some_and(|start| is_word(&bytes[start..at]))
}

/// Whether a word could end at `at`: the character there belongs to none.
fn ends(bytes: &[u8], at: usize) -> bool {
    let Some(&first) = bytes.get(at) else { return true };
    let length = [1, 2, 3, 4][usize::from(first >= 0xc0) + usize::from(first >= 0xe0) + usize::from(first >= 0xf0)];
    !bytes.get(at..at + length).is_some_and(is_word)
}

/// Whether a character is a letter, a digit or the underscore.
fn is_word(character: &[u8]) -> bool {
    match character {
        [b] => b.is_ascii_alphanumeric() || *b == b'_',
        _ => std::str::from_utf8(character).is_ok_and(|c| c.chars().all(char::is_alphanumeric)),
    }
}

fn resolve(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.kind));
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start < last.end => {
                if span.end - span.start > last.end - last.start {
                    *last = span;
                }
            }
            _ => out.push(span),
        }
    }
    out
}

#[cfg(test)]
mod tests;
