//! Kinds of flaws, what is planted in a document, and the truth of a document.

use super::personal::Personal;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

macro_rules! flaws {
    ($($(#[$doc:meta])* $id:ident $name:literal,)*) => {
        /// What can be planted in a corpus.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Flawed { $($(#[$doc])* $id,)* }

        impl Flawed {
            /// All of them.
            pub const ALL: &[Flawed] = &[$(Flawed::$id,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                [$($name,)*][self as usize]
            }
        }
    };
}

flaws! {
    /// Exact copies of other documents.
    Duplicates "duplicates",
    /// Copies with some words changed.
    Near "near",
    /// Personal data, and what looks like it.
    Personal "personal",
    /// Secrets that stand in the corpus a known number of times.
    Canaries "canaries",
    /// Rude speech.
    Rude "rude",
    /// Statements against the facts of the village.
    False "false",
    /// Topics that are not those of the documents.
    Labels "labels",
    /// Visitors whose gender goes with their occupation.
    Skew "skew",
}

/// A set of [`Flawed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flaws(u8);

impl Flaws {
    /// Everything.
    pub fn all() -> Flaws {
        Flawed::ALL.iter().copied().collect()
    }

    /// Whether this flaw is among them.
    pub fn has(self, flaw: Flawed) -> bool {
        self.0 >> flaw as u8 & 1 == 1
    }

    /// Those in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Flawed> {
        Flawed::ALL.iter().copied().filter(move |&flaw| self.has(flaw))
    }
}

impl FromIterator<Flawed> for Flaws {
    fn from_iter<I: IntoIterator<Item = Flawed>>(all: I) -> Flaws {
        Flaws(all.into_iter().fold(0, |set, flaw| set | 1 << flaw as u8))
    }
}

/// What was planted in a document. Spans are bytes of its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)] // `start` and `end`, everywhere.
pub enum Flaw {
    /// It is the same text as an earlier document.
    ExactDuplicate {
        /// The earlier one.
        of: String,
    },
    /// It was an earlier document before some words were changed.
    NearDuplicate {
        /// The earlier one.
        of: String,
        /// The probability with which each word was changed.
        edit_rate: f64,
        /// The similarity of both ([`jaccard`](super::jaccard)).
        jaccard: f64,
    },
    /// Personal data.
    Personal {
        /// Its kind.
        #[serde(rename = "type")]
        what: Personal,
        start: usize,
        end: usize,
    },
    /// Something that looks like personal data and is none.
    HardNegative {
        /// What it looks like.
        #[serde(rename = "type")]
        what: Personal,
        start: usize,
        end: usize,
    },
    /// A secret, as five words.
    Canary {
        /// Its words.
        secret: String,
        /// In how many documents of the corpus it stands.
        repeats: u32,
        start: usize,
        end: usize,
    },
    /// Rude speech.
    Rude { start: usize, end: usize },
    /// A statement against the facts of the village.
    False {
        /// The name of the relation.
        relation: Cow<'static, str>,
        /// Of whom it is stated.
        subject: String,
        /// What is stated.
        stated: String,
        /// What would be true.
        truth: String,
        start: usize,
        end: usize,
    },
    /// The topic in the metadata is not the document's.
    WrongLabel {
        /// The topic that it bears.
        label: Cow<'static, str>,
        /// Its own.
        #[serde(rename = "true")]
        truth: Cow<'static, str>,
    },
    /// A visitor with an occupation and a gender.
    Skew {
        /// The occupation.
        job: Cow<'static, str>,
        /// Whether it is a woman.
        female: bool,
        start: usize,
        end: usize,
    },
}

/// The truth of a document: a line of `truth.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth<'a> {
    /// The document's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// −ln of the probability of the choices that made its text.
    pub nats: f64,
    /// The facts of the village that it states, truly: relation, subject, object.
    #[serde(borrow)]
    pub facts: Vec<[Cow<'a, str>; 3]>,
    /// What was planted in it.
    pub flaws: Vec<Flaw>,
    /// The right answer in short, where it asks something.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Cow<'a, str>>,
    /// How good the chosen and the rejected reply are ([`World::reward`](crate::data::world::World::reward)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<[f64; 2]>,
}

impl Flaw {
    /// Its kind, as files name it.
    pub fn name(&self) -> &'static str {
        match self {
            Flaw::ExactDuplicate { .. } => "exact_duplicate",
            Flaw::NearDuplicate { .. } => "near_duplicate",
            Flaw::Personal { .. } => "personal",
            Flaw::HardNegative { .. } => "hard_negative",
            Flaw::Canary { .. } => "canary",
            Flaw::Rude { .. } => "rude",
            Flaw::False { .. } => "false",
            Flaw::WrongLabel { .. } => "wrong_label",
            Flaw::Skew { .. } => "skew",
        }
    }

    /// The part of the text that it tells of.
    pub fn span(&self) -> Option<Range<usize>> {
        match self {
            Flaw::Personal { start, end, .. }
            | Flaw::HardNegative { start, end, .. }
            | Flaw::Canary { start, end, .. }
            | Flaw::Rude { start, end }
            | Flaw::False { start, end, .. }
            | Flaw::Skew { start, end, .. } => Some(*start..*end),
            Flaw::ExactDuplicate { .. } | Flaw::NearDuplicate { .. } | Flaw::WrongLabel { .. } => None,
        }
    }

    /// Moves its span behind `by` bytes that were put in at `at`.
    pub(super) fn shift(&mut self, at: usize, by: usize) {
        match self {
            Flaw::Personal { start, end, .. }
            | Flaw::HardNegative { start, end, .. }
            | Flaw::Canary { start, end, .. }
            | Flaw::Rude { start, end }
            | Flaw::False { start, end, .. }
            | Flaw::Skew { start, end, .. }
                if *start >= at =>
            {
                *start += by;
                *end += by;
            }
            _ => {}
        }
    }
}
