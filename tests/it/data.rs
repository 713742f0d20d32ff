//! Text to tokens to shards to batches.

#![allow(clippy::print_stdout)] // tests say what they skip

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::data::dataset::commonest;
use kiln::data::detok::Decoder;
use kiln::data::shard::{HEADER, Shard, ShardWriter};
use kiln::data::tokenizer::{END_OF_TEXT, Kind};
use kiln::data::*;
use kiln::error::{Error, Result};
use kiln::rng::{Purpose, Rng};
use tempfile::TempDir;

use crate::alloc::allocations;

/// Text with everything that could trip a tokenizer: words, runs of white space of many kinds, contractions, digits,
/// other scripts, emoji, control characters, unassigned code points.
fn random_text(seed: u64, words: usize) -> String {
    let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
    let spaces = [" ", " ", " ", " ", "\n", "\n\n", "  ", "\t", "\r\n", " \u{a0}", "\u{3000}", "   \n "];
    let common = [
        "the",
        "we'll",
        "Don't",
        "3",
        "2024",
        "...",
        "()",
        "ein",
        "größer",
        "火曜日",
        "🔥👩‍👩‍👧",
        "e\u{301}",
        "\0",
        "\u{7f}",
    ];
    let mut text = String::new();
    for _ in 0..words {
        text.push_str(spaces[rng.below(spaces.len() as u32) as usize]);
        if rng.below(4) > 0 {
            text.push_str(common[rng.below(common.len() as u32) as usize]);
        } else {
            text.extend((0..rng.below(6)).filter_map(|_| {
                let top = [0x80, 0x800, 0x1_0000, 0x11_0000][rng.below(4) as usize];
                char::from_u32(rng.below(top))
            }));
        }
    }
    text
}

fn document(text: &str) -> Document {
    Document { text: text.to_owned(), source: PathBuf::from("test"), line: 1, ..Document::default() }
}

fn documents(texts: &[String]) -> impl Iterator<Item = Result<Document>> + Send + use<'_> {
    texts.iter().map(|text| Ok(document(text)))
}

fn bpe(text: &str, vocab: usize) -> Tokenizer {
    Tokenizer::train_bpe(documents(&[text.to_owned()]), vocab, &|_| ()).unwrap()
}

/// What an error says, with its hint.
fn message<T>(result: Result<T>) -> String {
    let error = result.err().expect("this must fail");
    format!("{error} | {}", error.hint().expect("every error of data has a hint"))
}

fn assert_says<T>(result: Result<T>, parts: &[&str]) {
    let message = message(result);
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
}

mod batches;
mod chats;
mod clean;
mod get;
mod hostile;
mod pictures;
mod sets;
mod shards;
mod sources;
mod takedowns;
mod tokenizers;
mod world;
