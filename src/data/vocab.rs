//! Making tokenizers: bytes, the characters of a text, and byte-pair encoding learnt from documents.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Hf, Trainer,
};

use super::detok::byte_to_char;
use super::source::{Document, no_text};
use super::tokenizer::{END_OF_TEXT, MAX_VOCAB, PIECE, Pieces, Tokenizer, split_chars};
use crate::error::{Error, Result};

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex})
}

/// A word in pieces of at most 1,024 characters: the trainer's time grows with the square of a word's length, and
/// nothing is learnt from a base64 blob or a page of spaces that its pieces do not show.
fn short_words(word: &str) -> Vec<String> {
    if word.len() <= 1024 {
        return vec![word.to_owned()];
    }
    let chars: Vec<char> = word.chars().collect();
    chars.chunks(1024).map(|chunk| chunk.iter().collect()).collect()
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
        let split = ByteLevel::new(false, false, true);
        let words = |text: &str| {
            let mut text = PreTokenizedString::from(text);
            split.pre_tokenize(&mut text)?;
            let words = text.get_splits(OffsetReferential::Normalized, OffsetType::None).into_iter();
            Ok(words.flat_map(|(word, ..)| short_words(word)).collect())
        };
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab - 1)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        let (mut failed, mut read) = (None, 0);
        let mut texts = 0usize;
        let pieces = documents
            .map_while(|document| document.map_err(|e| failed = Some(e)).ok())
            .inspect(|document| {
                texts += 1;
                read += document.text.len() as u64;
                progress(read);
            })
            .flat_map(|document| match document.text.len() {
                0..=PIECE => vec![document.text],
                _ => Pieces { rest: &document.text, at_space: true }.map(str::to_owned).collect(),
            });
        let failure = |e| {
            Error::failed(
                format!("training the tokenizer: {e}"),
                "use other text, or --kind byte, which learns nothing",
            )
        };
        trainer.feed(pieces, words).map_err(failure)?;
        if let Some(error) = failed {
            return Err(error);
        }
        if texts == 0 {
            return Err(no_text());
        }
        let mut model = BPE::default();
        trainer.train(&mut model).map_err(failure)?;
        let mut hf = Hf::new(model);
        hf.with_pre_tokenizer(Some(split)).with_post_processor(Some(split)).with_decoder(Some(split));
        hf.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
        let json = hf.to_string(true).map_err(failure)?;
        Tokenizer::from_json(json, Path::new("tokenizer.json"))
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
