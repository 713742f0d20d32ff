//! What is passed over where reading is lenient: counted by reason, and the first of each listed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;

/// Why a file, or a part of one, is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A kind of file that kiln does not read.
    OtherKind,
    /// A file or folder whose name starts with a dot.
    Hidden,
    /// A symbolic link that leaves the folder it lies in, or leads nowhere.
    Link,
    /// A pipe, a socket or a device.
    NotAFile,
    /// The system does not let it be read.
    Unreadable,
    /// The file is damaged, or ends too early: what follows is lost.
    Damaged,
    /// It unpacks to far more than its size promises.
    Bomb,
    /// A line or a document is longer than the limit.
    TooLong,
    /// It is no text: NULs all over.
    Binary,
    /// A line is not one JSON object.
    NotJson,
    /// A JSON object, or a table, has no text under the name that was asked for.
    NoText,
    /// Bytes that are no UTF-8, where nothing else is accepted.
    NotUtf8,
    /// A picture of 16 bits a channel.
    Deep,
    /// A picture in the colours of print: CMYK.
    Print,
    /// A picture that is not opaque.
    Transparent,
}

impl Reason {
    /// A few words for a report.
    pub fn describe(self) -> &'static str {
        match self {
            Reason::OtherKind => "another kind of file",
            Reason::Hidden => "hidden",
            Reason::Link => "a link that leaves its folder",
            Reason::NotAFile => "a pipe, a socket or a device",
            Reason::Unreadable => "the system refuses to read it",
            Reason::Damaged => "damaged, or ends too early",
            Reason::Bomb => "unpacks to far too much",
            Reason::TooLong => "longer than the limit",
            Reason::Binary => "not text",
            Reason::NotJson => "not one JSON object a line",
            Reason::NoText => "no text under that name",
            Reason::NotUtf8 => "not UTF-8",
            Reason::Deep => "16 bits a channel",
            Reason::Print => "in CMYK",
            Reason::Transparent => "not opaque",
        }
    }
}

/// One thing that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: Reason,
    /// Where in the file and what was found there; empty where the reason says all.
    pub what: String,
}

/// How many of a reason are listed, beside being counted.
const LISTED: u64 = 100;

/// All that was passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skips {
    /// How much, by reason: files, or documents of a file.
    pub counts: BTreeMap<Reason, u64>,
    /// The first hundred of each reason, in the order in which they were met.
    pub list: Vec<Skipped>,
}

impl Skips {
    /// Takes in what was passed over elsewhere.
    pub(in crate::data) fn append(&mut self, other: Skips) {
        for skipped in other.list {
            let listed = self.list.iter().filter(|own| own.reason == skipped.reason).count();
            if (listed as u64) < LISTED {
                self.list.push(skipped);
            }
        }
        other.counts.into_iter().for_each(|(reason, count)| *self.counts.entry(reason).or_default() += count);
    }

    pub(in crate::data) fn add(&mut self, skipped: Skipped) {
        let count = self.counts.entry(skipped.reason).or_default();
        *count += 1;
        if *count <= LISTED {
            self.list.push(skipped);
        }
    }

    /// How much in all.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Something that cannot be read: an error where reading is strict, counted and passed over where it is lenient.
#[derive(Debug)]
pub(super) struct Trouble {
    pub reason: Reason,
    pub error: Box<Error>,
    /// Whether nothing more can be read of the file.
    pub ends: bool,
}

impl Trouble {
    /// Trouble with the whole rest of a file.
    pub fn end(reason: Reason, error: Error) -> Trouble {
        Trouble { reason, error: Box::new(error), ends: true }
    }

    /// Trouble with one document; the next one can be read.
    pub fn one(reason: Reason, error: Error) -> Trouble {
        Trouble { reason, error: Box::new(error), ends: false }
    }

    pub fn skipped(&self, path: &Path) -> Skipped {
        let what = match &*self.error {
            Error::Format { at, found, .. } => format!("{at}: {found}"),
            Error::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Skipped { path: path.to_owned(), reason: self.reason, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_counted_and_a_hundred_of_each_reason_listed() {
        let mut skips = Skips::default();
        for n in 0..250 {
            let reason = if n % 50 == 0 { Reason::Bomb } else { Reason::NotJson };
            skips.add(Skipped { path: format!("{n}").into(), reason, what: String::new() });
        }
        assert_eq!((skips.total(), skips.counts[&Reason::Bomb], skips.list.len()), (250, 5, 105));
        assert!(skips.list.iter().any(|s| s.path == Path::new("200")), "a rare reason is listed however late it comes");
        skips.append(skips.clone());
        assert_eq!((skips.total(), skips.counts[&Reason::Bomb], skips.list.len()), (500, 10, 110));
    }
}
