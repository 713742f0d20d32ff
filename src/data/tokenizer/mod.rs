//! Text to tokens and back.
//!
//! Every tokenizer is a standard Hugging Face `tokenizer.json`, whatever its kind:
//!
//! | kind | vocabulary | `<\|endoftext\|>` |
//! |------|------------|---------------------|
//! | byte | 256, id = byte | none |
//! | char | the distinct characters, sorted (nanoGPT's order; 65 for Shakespeare) | none |
//! | bpe  | 256 bytes, then merges in order of training | the last id, as in GPT-2 |
//!
//! Byte-level BPE is encoded by our own encoder where the file's pattern of words is a common one (`words.rs`), all else by
//! the `tokenizers` crate, with the same ids. [`Tokenizer::load`] knows `gpt2` by name.
//!
//! Text is always encoded as text: a special token spelled out in a document gives the tokens of its letters, so data
//! cannot forge a document boundary. [`Tokenizer::encode_with_special`] is for prompts, where it is wanted.

mod bpe;
mod extend;
mod gpt2;
mod load;
pub(super) mod train;
pub(crate) mod words;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer as Hf;

use super::atomic::write_atomic;
use super::detok::TokenBytes;
use crate::disk::Os;
use crate::error::{Error, Result};
use bpe::Bpe;

pub use extend::Extended;
pub(super) use load::split_chars;

/// The name of the file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// The token that ends a document, in a BPE vocabulary trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Text is encoded in pieces of about this many bytes, so that one long document keeps every core busy.
pub(super) const PIECE: usize = 1 << 16;

/// No vocabulary has more ids than this; a file that claims more is damaged.
pub const MAX_VOCAB: u32 = 1 << 24;

/// In a table of ids: no token.
const NONE: u32 = u32::MAX;

/// What a tokenizer's tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bytes: any text in 256 ids.
    Byte,
    /// Characters seen in the training text.
    Char,
    /// Byte-level byte-pair encoding, as GPT-2.
    Bpe,
    /// Anything else that a `tokenizer.json` can describe.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Byte => "byte",
            Kind::Char => "char",
            Kind::Bpe => "bpe",
            Kind::Other => "other",
        })
    }
}

/// How text becomes ids.
#[derive(Clone)]
enum Encode {
    /// The id of each byte.
    Bytes(Box<[u32; 256]>),
    /// The id of each character, indexed by code point; [`NONE`] where there is none.
    Chars(Vec<u32>),
    /// Our own byte-pair encoder.
    Bpe(Arc<Bpe>),
    /// The `tokenizers` crate.
    Crate,
}

/// Text that a tokenizer has no token for.
pub(crate) struct Unencodable {
    /// Byte offset in the text that was given.
    pub at: usize,
    /// What is there.
    pub found: String,
}

/// A tokenizer: text to ids and ids to text.
#[derive(Clone)]
pub struct Tokenizer {
    /// The `tokenizer.json`, byte for byte as loaded: saving loses nothing that another program put there.
    json: String,
    /// The file that it was read from, or what stands for one.
    path: PathBuf,
    hf: Hf,
    kind: Kind,
    encode: Encode,
    bytes: Option<TokenBytes>,
    vocab: u32,
    eot: Option<u32>,
    /// What is put before a text by its file's word.
    start: Option<u32>,
    /// What a model says when it is done.
    ends: Vec<u32>,
    /// Special tokens, by id.
    special: Vec<(String, u32)>,
    /// Names and texts of the files that lie beside the `tokenizer.json` and belong to it.
    beside: Vec<(&'static str, String)>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.kind, self.vocab)
    }
}

impl Tokenizer {
    /// The `tokenizer.json`.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Its files, names and texts: `tokenizer.json`, and those that lay beside it (settings, chat template).
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let beside = self.beside.iter().map(|(name, text)| (*name, text.as_str()));
        [(TOKENIZER_FILE, self.json.as_str())].into_iter().chain(beside)
    }

    /// Saves the `tokenizer.json` as `path`, and what lay beside it there in its folder; each atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        for (name, text) in &self.beside {
            write_atomic(&Os, &path.with_file_name(name), text.as_bytes())?;
        }
        write_atomic(&Os, path, self.json.as_bytes())
    }

    /// What the tokens are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One more than the largest id: the number of rows of an embedding.
    pub fn vocab_size(&self) -> usize {
        self.vocab as usize
    }

    /// The id that ends a document, if there is one.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// The id that the tokenizer's file puts before each text, where it does so.
    pub fn puts_first(&self) -> Option<u32> {
        self.start
    }

    /// The id that a text starts with for a model: the one that its file puts before each, else the one that ends a document.
    pub fn start(&self) -> Option<u32> {
        self.start.or(self.eot)
    }

    /// The ids by which a model says that it is done: the one that ends a document, and the one that ends its turn in a chat.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The id of a token by its spelling, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.hf.token_to_id(token)
    }

    /// The spelling of an id in the file, where it has one.
    pub(crate) fn spelling(&self, id: u32) -> Option<String> {
        self.hf.id_to_token(id)
    }

    /// The text of the `n` longest tokens that are not special; empty where tokens have no bytes of their own.
    pub fn longest(&self, n: usize) -> Vec<String> {
        let plain = |id: &u32| self.special.iter().all(|(_, special)| special != id);
        let mut ids: Vec<u32> = (0..self.vocab).filter(plain).collect();
        ids.sort_by_key(|&id| std::cmp::Reverse(self.token_bytes(id).map_or(0, <[u8]>::len)));
        ids.iter().take(n).filter(|_| self.bytes.is_some()).map(|&id| self.decode(&[id])).collect()
    }

    /// Special tokens and their ids, by id.
    pub fn special(&self) -> &[(String, u32)] {
        &self.special
    }

    /// SHA-256 of the `tokenizer.json` in hexadecimal, as `sha256sum` prints it: data and checkpoints record it.
    pub fn hash(&self) -> String {
        Sha256::digest(&self.json).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The ids of `text`, special tokens spelled out in it being text. Fails where the vocabulary lacks a character.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], appending to `ids`.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for piece in self.pieces(text) {
            // A piece is a slice of the text, so its place in it is the distance of their starts.
            let start = piece.as_ptr() as usize - text.as_ptr() as usize;
            self.encode_piece(piece, ids).map_err(|e| {
                let character = text[..start + e.at].chars().count() + 1;
                Error::usage(format!("character {character} of the text: {}", e.found), self.unencodable_hint())
            })?;
        }
        Ok(())
    }

    /// The ids of many texts, in their order, on all threads.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The ids of a prompt, in which special tokens spelled out, as `<|endoftext|>`, stand for themselves.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        let (mut ids, mut rest) = (Vec::new(), text);
        // The leftmost special token, the longest of those that start there.
        let next = |rest: &str| {
            let found = self.special.iter().filter_map(|(t, id)| rest.find(t.as_str()).map(|at| (at, t.len(), *id)));
            found.min_by_key(|&(at, len, _)| (at, std::cmp::Reverse(len)))
        };
        while let Some((at, len, id)) = next(rest) {
            self.encode_into(&rest[..at], &mut ids)?;
            ids.push(id);
            rest = &rest[at + len..];
        }
        self.encode_into(rest, &mut ids)?;
        Ok(ids)
    }

    /// `text` cut into pieces whose ids, joined, are the ids of the whole.
    pub(crate) fn pieces<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let whole = matches!(self.encode, Encode::Crate);
        let first = if whole && !text.is_empty() { Some(text) } else { None };
        let at_space = matches!(self.encode, Encode::Bpe(_));
        first.into_iter().chain(Pieces { rest: if whole { "" } else { text }, at_space })
    }

    /// Appends the ids of one of [`Tokenizer::pieces`].
    pub(crate) fn encode_piece(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), Unencodable> {
        match &self.encode {
            Encode::Bytes(table) => ids.extend(text.bytes().map(|b| table[usize::from(b)])),
            Encode::Chars(table) => {
                ids.reserve(text.len());
                for (at, c) in text.char_indices() {
                    match table.get(c as usize) {
                        Some(&id) if id != NONE => ids.push(id),
                        _ => {
                            let found = format!("{c:?} (U+{:04X}), which the vocabulary lacks", c as u32);
                            return Err(Unencodable { at, found });
                        }
                    }
                }
            }
            Encode::Bpe(bpe) => bpe.encode(text, ids),
            Encode::Crate => match self.hf.encode_fast(text, false) {
                Ok(encoding) => ids.extend_from_slice(encoding.get_ids()),
                Err(e) => return Err(Unencodable { at: 0, found: format!("text that cannot be encoded: {e}") }),
            },
        }
        Ok(())
    }

    /// What to do about [`Unencodable`] text.
    pub(crate) fn unencodable_hint(&self) -> &'static str {
        match self.kind {
            Kind::Char => {
                "make the tokenizer from all of the text, or use --kind bpe or byte, which know every character"
            }
            _ => "check that the tokenizer fits this text",
        }
    }

    /// The text of `ids`, special tokens spelled out. Bytes that are no UTF-8, and ids outside the vocabulary, become
    /// U+FFFD. For tokens as they come, use [`Decoder`](super::detok::Decoder).
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.bytes {
            Some(table) => {
                let bytes: Vec<u8> = ids.iter().flat_map(|&id| table.get(id)).copied().collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            None => self.hf.decode(ids, false).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string()),
        }
    }

    /// The bytes that a token adds to a text, or the nearest to it where that depends on its neighbours; none for an id that
    /// is no token.
    pub fn bytes_of(&self, id: u32) -> Vec<u8> {
        if let Some(bytes) = self.token_bytes(id) {
            return if id < self.vocab { bytes.to_vec() } else { Vec::new() };
        }
        let token = self.hf.id_to_token(id).unwrap_or_default();
        // SentencePiece's blank, and its bytes.
        let byte = token.strip_prefix("<0x").and_then(|hex| hex.strip_suffix('>'));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => vec![byte],
            None => token.replace('\u{2581}', " ").into_bytes(),
        }
    }

    /// The bytes of a token, for tokenizers whose tokens are bytes whatever surrounds them.
    pub(crate) fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.as_ref().map(|table| table.get(id))
    }
}

/// Cuts a text into pieces of about [`PIECE`] bytes: anywhere between characters, or (`at_space`) only where a visible
/// character is followed by white space other than a line break. Every [pattern](words::Pattern) has a boundary there: of the
/// words that start with a visible character none goes on into white space, but for line breaks.
pub(super) struct Pieces<'a> {
    pub rest: &'a str,
    pub at_space: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest;
        let mut cut = PIECE.min(text.len());
        while !text.is_char_boundary(cut) {
            cut += 1;
        }
        if self.at_space && cut < text.len() {
            let mut visible = false;
            let found = text[cut..].char_indices().find(|&(_, c)| {
                let space = c.is_whitespace();
                let before = std::mem::replace(&mut visible, !space);
                before && space && !matches!(c, '\r' | '\n')
            });
            cut = found.map_or(text.len(), |(at, _)| cut + at);
        }
        let (piece, rest) = text.split_at(cut);
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}
