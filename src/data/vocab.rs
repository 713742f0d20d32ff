//! Making tokenizers: bytes, the characters of a text, and byte-pair encoding learnt from documents.

use std::path::Path;

use ahash::{AHashMap, HashMap};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Hf};

use super::detok::byte_to_char;
use super::source::{Document, no_text};
use super::tokenizer::train::{LONGEST, Learnt, train};
use super::tokenizer::words::Pattern;
use super::tokenizer::{END_OF_TEXT, MAX_VOCAB, Pieces, Tokenizer, split_chars};
use crate::error::{Error, Result};

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex})
}

/// Text is read, then its words are counted on all threads, in batches of about this many bytes.
const BATCH: usize = 8 << 20;

/// Words, at most [`LONGEST`] bytes of each, and how often they occur.
pub(super) type Words = HashMap<Box<[u8]>, u64>;

/// The words of all documents by `pattern`. Calls `progress` with the bytes of text read so far.
pub(super) fn counted(
    documents: impl Iterator<Item = Result<Document>>,
    pattern: Pattern,
    progress: &dyn Fn(u64),
) -> Result<Words> {
    let (mut texts, mut read, mut bytes) = (0u64, 0, 0);
    let (mut batch, mut words) = (Vec::new(), Words::default());
    for document in documents {
        let document = document?;
        texts += 1;
        read += document.text.len() as u64;
        bytes += document.text.len();
        progress(read);
        batch.push(document);
        if bytes >= BATCH {
            words = count(&batch, words, pattern);
            batch.clear();
            bytes = 0;
        }
    }
    if texts == 0 {
        return Err(no_text());
    }
    Ok(count(&batch, words, pattern))
}

/// Words in an order that hangs on them alone.
pub(super) fn sorted(words: &Words) -> Vec<(&[u8], u64)> {
    let mut sorted: Vec<(&[u8], u64)> = words.iter().map(|(word, &count)| (&word[..], count)).collect();
    sorted.par_sort_unstable();
    sorted
}

/// The spelling of a token's bytes in a file of byte-level tokens.
pub(super) fn spelled(token: &[u8]) -> String {
    token.iter().map(|&byte| byte_to_char(byte)).collect()
}

/// Adds the words of texts to `words`, on all threads.
fn count(texts: &[Document], words: Words, pattern: Pattern) -> Words {
    let pieces: Vec<&str> = texts.iter().flat_map(|text| Pieces { rest: &text.text, at_space: true }).collect();
    let counted = pieces.par_iter().fold(Words::default, |mut words, piece| {
        pattern.words(piece, |start, end| {
            for word in piece.as_bytes()[start..end].chunks(LONGEST) {
                match words.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(words.insert(word.into(), 1)),
                }
            }
        });
        words
    });
    let sum = |a: Words, b: Words| {
        let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
        small.into_iter().for_each(|(word, count)| *large.entry(word).or_default() += count);
        large
    };
    sum(words, counted.reduce(Words::default, sum))
}

impl Tokenizer {
    /// 256 tokens: the bytes, each with its own value as id. Encodes anything.
    pub fn bytes() -> Tokenizer {
        let vocab: serde_json::Map<_, _> = (0..=255u8).map(|b| (byte_to_char(b).to_string(), Value::from(b))).collect();
        let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []});
        Tokenizer::from_parts(byte_level(false), byte_level(false), model)
    }

    /// One token for each distinct character of `text`, in order of code points, as nanoGPT's character data sets.
    pub fn chars(text: impl IntoIterator<Item = char>) -> Tokenizer {
        let mut seen = vec![false; char::MAX as usize + 1];
        text.into_iter().for_each(|c| seen[c as usize] = true);
        let chars = ('\0'..=char::MAX).filter(|&c| seen[c as usize]);
        let vocab: serde_json::Map<_, _> =
            chars.enumerate().map(|(id, c)| (c.to_string(), Value::from(id as u32))).collect();
        // The unknown token is named because the format wants a name, and is absent so that an unknown character is
        // an error instead of a silent loss.
        let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"});
        Tokenizer::from_parts(split_chars(), json!({"type": "Fuse"}), model)
    }

    fn from_parts(pre_tokenizer: Value, decoder: Value, model: Value) -> Tokenizer {
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
            "model": model});
        let text = serde_json::to_string_pretty(&file).expect("a JSON value is printable") + "\n";
        Tokenizer::from_json(text, Path::new("tokenizer.json")).expect("a tokenizer made here loads")
    }

    /// Trains byte-level BPE on `documents` to at most `vocab` ids: 256 bytes, merges, and [`END_OF_TEXT`] last. Small
    /// texts run out of pairs that occur twice and give fewer. The same documents give the same tokenizer on any
    /// number of threads. Calls `progress` with the bytes of text read so far.
    pub fn train_bpe(
        documents: impl Iterator<Item = Result<Document>> + Send,
        vocab: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Tokenizer> {
        if vocab < 257 || vocab > MAX_VOCAB as usize {
            return Err(Error::usage(
                format!("--vocab: a byte-level BPE vocabulary of {vocab} ids is not possible"),
                format!("choose from 257 (256 bytes and {END_OF_TEXT}) to {MAX_VOCAB}; 8192 suits small models"),
            ));
        }
        let words = counted(documents, Pattern::Gpt2, progress)?;
        let Learnt { tokens, merges } = train(&sorted(&words), vocab - 1);
        let spelled: Vec<String> = tokens.iter().map(|token| spelled(token)).collect();
        let merges = merges.iter().map(|pair| (spelled[pair[0] as usize].clone(), spelled[pair[1] as usize].clone()));
        let merges = merges.collect();
        let vocab: AHashMap<String, u32> = spelled.into_iter().zip(0..).collect();
        let failure = |e| Error::failed(format!("writing down the tokenizer: {e}"), "use other text, or --kind byte");
        let mut hf = Hf::new(BPE::builder().vocab_and_merges(vocab, merges).build().map_err(failure)?);
        let split = ByteLevel::new(false, false, true);
        hf.with_pre_tokenizer(Some(split)).with_post_processor(Some(split)).with_decoder(Some(split));
        hf.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
        Tokenizer::from_json(hf.to_string(true).map_err(failure)?, Path::new("tokenizer.json"))
    }

    /// [`Tokenizer::chars`] of all documents. Calls `progress` with the bytes of text read so far.
    pub fn chars_of(
        documents: impl Iterator<Item = Result<Document>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Tokenizer> {
        let mut seen = vec![false; char::MAX as usize + 1];
        let mut read = 0;
        for document in documents {
            let text = document?.text;
            text.chars().for_each(|c| seen[c as usize] = true);
            read += text.len() as u64;
            progress(read);
        }
        if read == 0 {
            return Err(no_text());
        }
        Ok(Tokenizer::chars(('\0'..=char::MAX).filter(|&c| seen[c as usize])))
    }

    /// How many bytes of text a token stands for, on average over the first `limit` bytes of `documents`.
    pub fn bytes_per_token(&self, documents: impl Iterator<Item = Result<Document>>, limit: usize) -> Result<f64> {
        let (mut bytes, mut ids) = (0, Vec::new());
        for document in documents {
            for piece in self.pieces(&document?.text) {
                if bytes >= limit {
                    return Ok(bytes as f64 / ids.len().max(1) as f64);
                }
                self.encode_into(piece, &mut ids)?;
                bytes += piece.len();
            }
        }
        Ok(bytes as f64 / ids.len().max(1) as f64)
    }
}
