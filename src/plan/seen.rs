//! What data is there: its kind and its amount, from a look that costs little.

use crate::data::dataset::DATASET_FILE;
use crate::data::images::{self, Dims, Reading};
use crate::data::{DatasetInfo, Sources};
use crate::error::Result;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Data to train on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Text.
    Text {
        /// Bytes of its files.
        bytes: u64,
        /// How many files.
        files: usize,
    },
    /// Tokens that `kiln data shard` made.
    Tokens {
        /// To train on.
        tokens: u64,
        /// Token ids.
        vocab: usize,
    },
    /// Conversations, questions and answers, or instructions: lines of JSON.
    Chats {
        /// Bytes of their files.
        bytes: u64,
        /// How many files.
        files: usize,
        /// The fields of the first line, which say what it is.
        fields: Vec<String>,
    },
    /// Pictures.
    Pictures {
        /// To train on and held out.
        count: usize,
        /// The size of each; where they differ, that to which they are scaled.
        dims: Dims,
        /// How many classes; 0: they have no labels.
        classes: usize,
        /// The side to which they must be scaled, where they differ.
        scaled: Option<usize>,
    },
}

/// Fields of a line of JSON that say that somebody is asked something; see [`examples`](crate::data::examples).
const ASKED: [&str; 5] = ["messages", "prompt", "question", "instruction", "conversations"];

/// The side to which pictures of different sizes are scaled.
const SIDE: usize = 32;

impl Seen {
    /// What is at `path`.
    ///
    /// # Errors
    /// Nothing that kiln reads is there.
    pub fn at(path: &Path) -> Result<Seen> {
        if images::are_at(path) {
            let whole = |how: &Reading, scaled| -> Result<Seen> {
                let found = images::open(path, how)?;
                let count = found.train.len() + found.held_out.as_ref().map_or(0, |held_out| held_out.len());
                Ok(Seen::Pictures { count, dims: found.train.dims(), classes: found.train.classes(), scaled })
            };
            let as_they_are = whole(&Reading::default(), None);
            return as_they_are.or_else(|_| whole(&Reading { size: Some(SIDE), colour: None }, Some(SIDE)));
        }
        if path.join(DATASET_FILE).is_file() {
            let info = DatasetInfo::load(path)?;
            return Ok(Seen::Tokens { tokens: info.train.tokens, vocab: info.tokenizer.vocab });
        }
        let sources = Sources::objects(&[path])?;
        let (bytes, files) = (sources.bytes(), sources.files().len());
        let first = sources.documents().next().transpose()?;
        let line: Option<Value> =
            first.filter(|document| document.is_json()).and_then(|d| serde_json::from_str(&d.text).ok());
        let fields: Vec<String> = match line {
            Some(Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => Vec::new(),
        };
        Ok(match fields.iter().any(|field| ASKED.contains(&&**field)) {
            true => Seen::Chats { bytes, files, fields },
            false => Seen::Text { bytes, files },
        })
    }

    /// Token ids that suit the amount of text, for a tokenizer that is yet to be made: a few that are seen often for little text.
    pub fn vocab(&self) -> usize {
        match *self {
            Seen::Tokens { vocab, .. } => vocab,
            Seen::Text { bytes, .. } | Seen::Chats { bytes, .. } => {
                let most = [(2e6, 512), (3e7, 1024), (2e8, 4096), (2e9, 16_384)];
                most.iter().find(|(most, _)| (bytes as f64) < *most).map_or(32_768, |(_, vocab)| *vocab)
            }
            Seen::Pictures { .. } => 0,
        }
    }

    /// Tokens, about: a byte-pair token of a vocabulary of V stands for some 1 + ½·log₂(V/256) bytes of English.
    pub fn tokens(&self) -> f64 {
        match *self {
            Seen::Tokens { tokens, .. } => tokens as f64,
            Seen::Text { bytes, .. } | Seen::Chats { bytes, .. } => {
                bytes as f64 / (1.0 + 0.5 * (self.vocab() as f64 / 256.0).log2())
            }
            Seen::Pictures { .. } => 0.0,
        }
    }

    /// What there is, in words.
    pub fn words(&self) -> String {
        let short = super::scaling::short;
        match self {
            Seen::Text { bytes, files } => {
                format!("text: {}B in {files} files, about {} tokens", short(*bytes as f64), short(self.tokens()))
            }
            Seen::Tokens { tokens, vocab } => format!("{} tokens of {vocab} ids", short(*tokens as f64)),
            Seen::Chats { bytes, files, fields } => {
                format!("examples ({}): {}B in {files} files", fields.join(", "), short(*bytes as f64))
            }
            Seen::Pictures { count, dims, classes, .. } => {
                let labels = if *classes > 0 { format!("in {classes} classes") } else { "without labels".to_owned() };
                format!("{count} pictures of {dims}, {labels}")
            }
        }
    }
}
