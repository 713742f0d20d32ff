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
//! Text is always encoded as text: a special token spelled out in a document gives the tokens of its letters, so data
//! cannot forge a document boundary. [`Tokenizer::encode_with_special`] is for prompts, where it is wanted.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::{ModelWrapper, Tokenizer as Hf};

use super::atomic::write_atomic;
use super::detok::{TokenBytes, byte_to_char};
use crate::disk::{self, Os};
use crate::error::{Error, Result};

/// The token that ends a document, in a BPE vocabulary trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Names under which other tokenizers have an end-of-document token, in order of preference.
const END_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]"];

/// Text is encoded in pieces of about this many bytes, so that one long document keeps every core busy.
pub(super) const PIECE: usize = 1 << 16;

/// No vocabulary has more ids than this; a file that claims more is damaged.
pub const MAX_VOCAB: u32 = 1 << 24;

/// Bytes of the longest `tokenizer.json` that is read; the largest in use have 40 MB.
const MAX_FILE: u64 = 1 << 28;

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
    hf: Hf,
    kind: Kind,
    encode: Encode,
    bytes: Option<TokenBytes>,
    vocab: u32,
    eot: Option<u32>,
    /// Special tokens, by id.
    special: Vec<(String, u32)>,
    /// Text may be cut between a visible character and white space without changing its tokens.
    cuts_at_space: bool,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.kind, self.vocab)
    }
}

/// The parts of a `tokenizer.json` that decide which fast paths hold.
#[derive(Deserialize)]
struct Layout {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    model: LayoutModel,
}

#[derive(Deserialize)]
struct LayoutModel {
    r#type: Option<String>,
    merges: Option<Vec<serde::de::IgnoredAny>>,
}

/// The pre-tokenizer of [`Kind::Char`]: splits text into single characters. `[\s\S]` rather than `(?s:.)`, whose flag means something else in Oniguruma,
/// the regex engine of the Python package.
pub(super) fn split_chars() -> Value {
    json!({"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": false})
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    pub fn load(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        Tokenizer::from_json(disk::text(&Os, path, MAX_FILE)?, path)
    }

    /// Reads the text of a `tokenizer.json`; `path` is named in errors.
    pub fn from_json(json: String, path: &Path) -> Result<Tokenizer> {
        let bad = |found: String| {
            let hint = "give the tokenizer.json of a model folder, or make one with: kiln data tokenizer";
            Error::format(path, "content", "a Hugging Face tokenizer.json", found, hint)
        };
        let layout: Layout = serde_json::from_str(&json).map_err(|e| bad(e.to_string()))?;
        let mut hf = Hf::from_str(&json).map_err(|e| bad(e.to_string()))?;
        // What trims or pads for one model's input, or draws at random, has no place in preparing data.
        hf.with_truncation(None).map_err(|e| bad(e.to_string()))?.with_padding(None);
        if let ModelWrapper::BPE(bpe) = hf.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            hf.with_model(bpe);
        }
        hf.set_encode_special_tokens(true);

        let tokens = hf.get_vocab(true);
        let vocab = tokens.values().max().map_or(0, |&id| id.saturating_add(1));
        if vocab == 0 || vocab > MAX_VOCAB {
            return Err(bad(format!("a vocabulary of {vocab} ids")));
        }
        let mut ids: Vec<u32> = tokens.values().copied().collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(bad(format!("two tokens with the id {}", pair[0])));
        }
        let added = hf.get_added_tokens_decoder();
        let mut special: Vec<_> =
            added.iter().filter(|(_, t)| t.special).map(|(&id, t)| (t.content.clone(), id)).collect();
        special.sort_by_key(|&(_, id)| id);
        let eot = END_NAMES.iter().find_map(|name| special.iter().find(|(t, _)| t == name)).map(|&(_, id)| id);

        let kind_of = |part: &Option<Value>| part.as_ref().and_then(|p| p["type"].as_str()).unwrap_or("").to_owned();
        let plain = layout.normalizer.is_none() && added.values().all(|t| t.special);
        let (pre, decoder) = (layout.pre_tokenizer.unwrap_or_default(), kind_of(&layout.decoder));
        let model = layout.model.r#type.as_deref().unwrap_or("");
        let gpt2_bytes = decoder == "ByteLevel" && pre["type"] == "ByteLevel" && pre["add_prefix_space"] == false;
        let one_char = |token: &str| token.chars().count() == 1;

        let byte_ids = || {
            let mut ids = Box::new([NONE; 256]);
            (0..=255)
                .for_each(|b| ids[usize::from(b)] = *tokens.get(byte_to_char(b).to_string().as_str()).unwrap_or(&NONE));
            ids.iter().all(|&id| id != NONE).then_some(ids)
        };
        let no_merges = layout.model.merges.is_some_and(|m| m.is_empty());
        let (kind, encode) = if plain
            && model == "BPE"
            && gpt2_bytes
            && no_merges
            && let Some(ids) = byte_ids()
        {
            (Kind::Byte, Encode::Bytes(ids))
        } else if plain
            && model == "WordLevel"
            && decoder == "Fuse"
            && pre == split_chars()
            && tokens.iter().all(|(t, id)| one_char(t) || special.iter().any(|(_, s)| s == id))
        {
            let mut ids = Vec::new();
            for (token, &id) in tokens.iter().filter(|(t, _)| one_char(t)) {
                let c = token.chars().next().map_or(0, |c| c as usize);
                ids.resize(ids.len().max(c + 1), NONE);
                ids[c] = id;
            }
            (Kind::Char, Encode::Chars(ids))
        } else if model == "BPE" && decoder == "ByteLevel" {
            (Kind::Bpe, Encode::Crate)
        } else {
            (Kind::Other, Encode::Crate)
        };
        let bytes = match kind {
            Kind::Char => Some(TokenBytes::new(vocab, tokens.iter().map(|(t, &id)| (id, t.clone().into_bytes())))),
            Kind::Byte | Kind::Bpe => Some(TokenBytes::byte_level(vocab, &tokens, &added)),
            Kind::Other => None,
        };
        let cuts_at_space = plain
            && model == "BPE"
            && gpt2_bytes
            && pre["use_regex"] != false
            && added.values().all(|t| !t.content.contains(char::is_whitespace));
        Ok(Tokenizer { json, hf, kind, encode, bytes, vocab, eot, special, cuts_at_space })
    }

    /// The `tokenizer.json`.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Saves the `tokenizer.json`, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(&Os, path.as_ref(), self.json.as_bytes())
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
        let whole = matches!(self.encode, Encode::Crate) && !self.cuts_at_space;
        let first = if whole && !text.is_empty() { Some(text) } else { None };
        first.into_iter().chain(Pieces { rest: if whole { "" } else { text }, at_space: self.cuts_at_space })
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

    /// The bytes of a token, for tokenizers whose tokens are bytes whatever surrounds them.
    pub(crate) fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.as_ref().map(|table| table.get(id))
    }
}

/// Cuts a text into pieces of about [`PIECE`] bytes: anywhere between characters, or (`at_space`) only where a visible
/// character is followed by white space. GPT-2's pattern always has a boundary there: its pieces are white space only,
/// or at most one space and then visible characters, and its single look-ahead looks from white space.
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
            let visible = text[cut..].find(|c: char| !c.is_whitespace()).unwrap_or(text.len() - cut);
            let space = text[cut + visible..].find(char::is_whitespace);
            cut = space.map_or(text.len(), |space| cut + visible + space);
        }
        let (piece, rest) = text.split_at(cut);
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}
