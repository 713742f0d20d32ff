//! A `tokenizer.json`, read: what its tokens are, and by which of our encoders it can be encoded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::{AddedToken, ModelWrapper, Tokenizer as Hf};

use super::super::detok::{TokenBytes, byte_to_char};
use super::bpe::Bpe;
use super::words::Pattern;
use super::{END_OF_TEXT, Encode, Kind, MAX_VOCAB, NONE, TOKENIZER_FILE, Tokenizer, gpt2};
use crate::disk::{self, Os};
use crate::error::{Error, Result};

/// Names under which other tokenizers have an end-of-document token, in order of preference.
const END_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]"];

/// Bytes of the longest `tokenizer.json` that is read; the largest in use have 40 MB.
const MAX_FILE: u64 = 1 << 28;

/// What else a model's folder may have of its tokenizer.
const BESIDE: [&str; 3] = [SETTINGS, TEMPLATE, "special_tokens_map.json"];
const SETTINGS: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The parts of a `tokenizer.json` that decide which fast paths hold.
#[derive(Deserialize)]
struct Layout {
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Value,
    decoder: Option<Value>,
    model: LayoutModel,
}

#[derive(Deserialize)]
struct LayoutModel {
    r#type: Option<String>,
    merges: Option<Vec<LayoutMerge>>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    ignore_merges: Option<bool>,
}

/// Both halves of a merge, or in older files both with a space between them.
#[derive(Deserialize)]
#[serde(untagged)]
enum LayoutMerge {
    Two(String, String),
    One(String),
}

impl LayoutMerge {
    fn halves(&self) -> Option<(&str, &str)> {
        match self {
            LayoutMerge::Two(left, right) => Some((left, right)),
            LayoutMerge::One(both) => both.split_once(' '),
        }
    }
}

/// The pre-tokenizer of [`Kind::Char`]: splits text into single characters. `[\s\S]` rather than `(?s:.)`, whose flag means something else in Oniguruma,
/// the regex engine of the Python package.
pub fn split_chars() -> Value {
    json!({"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": false})
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, with what lies beside it. `gpt2`, where no file is called so, is GPT-2's, which is carried along.
    pub fn load(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        if path.as_os_str() == "gpt2" && !path.exists() {
            return Ok(Tokenizer::gpt2());
        }
        let tokenizer = Tokenizer::from_json(disk::text(&Os, path, MAX_FILE)?, path)?;
        let mut beside = Vec::new();
        if path.file_name().is_some_and(|name| name == TOKENIZER_FILE) {
            for name in BESIDE {
                let file = path.with_file_name(name);
                if file.is_file() {
                    beside.push((name, disk::text(&Os, &file, MAX_FILE)?));
                }
            }
        }
        Ok(tokenizer.with(beside))
    }

    /// The same with files that lie beside the `tokenizer.json`: names and texts.
    pub(super) fn with(mut self, beside: Vec<(&'static str, String)>) -> Tokenizer {
        self.beside = beside;
        let named = |key: &str| {
            let name = self.setting(key)?.as_str()?.to_owned();
            self.special.iter().find(|(token, _)| *token == name).map(|&(_, id)| id)
        };
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        self.eot = self.eot.or(eos);
        self.ends = [self.eot, eos].into_iter().flatten().collect();
        self.ends.dedup();
        // What the file puts before a text of no tokens, unless that is what it puts behind.
        let added = self.hf.encode_fast("", true).ok().and_then(|text| text.get_ids().first().copied());
        let added = added.filter(|id| self.special.iter().any(|(_, special)| special == id) && !self.ends.contains(id));
        self.start = added.or_else(|| bos.filter(|_| self.setting("add_bos_token") == Some(Value::Bool(true))));
        self
    }

    /// The same with files that lie beside the `tokenizer.json`, by their names; those that kiln does not know are left out.
    pub(crate) fn with_files(self, mut files: HashMap<String, String>) -> Tokenizer {
        let known = BESIDE.into_iter().filter_map(|name| Some((name, files.remove(name)?))).collect();
        self.with(known)
    }

    /// The same with this template for messages, and no other.
    pub fn with_chat_template(self, template: &str) -> Tokenizer {
        let mut beside = self.beside.clone();
        beside.retain(|(name, _)| *name != TEMPLATE);
        beside.push((TEMPLATE, template.to_owned()));
        self.with(beside)
    }

    /// The same with these settings in a `tokenizer_config.json`.
    pub(crate) fn with_settings(self, settings: &Value) -> Tokenizer {
        let text = serde_json::to_string_pretty(settings).expect("plain data") + "\n";
        self.with(vec![(SETTINGS, text)])
    }

    /// GPT-2's: 50,257 ids.
    pub fn gpt2() -> Tokenizer {
        Tokenizer::from_json(gpt2::json(), Path::new("gpt2")).expect("the vocabulary that is carried along loads")
    }

    /// A setting of `tokenizer_config.json`; of a token its text.
    pub(crate) fn setting(&self, key: &str) -> Option<Value> {
        let (_, text) = self.beside.iter().find(|(name, _)| *name == SETTINGS)?;
        let mut settings: Value = serde_json::from_str(text).ok()?;
        let value = settings.get_mut(key)?.take();
        Some(if value["content"].is_string() { value["content"].clone() } else { value })
    }

    /// The Jinja template by which messages become a prompt, where the tokenizer came with one; of several that are named, the
    /// one called `default`.
    pub fn chat_template(&self) -> Option<String> {
        self.chat_templates().into_iter().find(|(name, _)| name == "default").map(|(_, text)| text)
    }

    /// All Jinja templates for messages by their names; one alone is called `default`.
    pub(crate) fn chat_templates(&self) -> Vec<(String, String)> {
        if let Some((_, text)) = self.beside.iter().find(|(name, _)| *name == TEMPLATE) {
            return vec![("default".into(), text.clone())];
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match self.setting("chat_template") {
            Some(Value::String(text)) => vec![("default".into(), text)],
            Some(Value::Array(all)) => {
                all.iter().filter_map(|one| Some((text(&one["name"])?, text(&one["template"])?))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The file that [`Tokenizer::chat_template`] is in, and where in it.
    pub(crate) fn chat_template_place(&self) -> (PathBuf, &'static str) {
        let beside = |name: &str| self.beside.iter().any(|(file, _)| *file == name);
        if beside(TEMPLATE) {
            (self.path.with_file_name(TEMPLATE), "")
        } else if self.path.file_name().is_some_and(|name| name == TOKENIZER_FILE) {
            (self.path.with_file_name(SETTINGS), "chat_template")
        } else {
            (self.path.clone(), "tokenizer.chat_template")
        }
    }

    /// Tokens that the settings give a name, as `bos_token`, with their spellings.
    pub(crate) fn named_tokens(&self) -> Vec<(String, String)> {
        let file = |name: &str| {
            let text = self.beside.iter().find(|(file, _)| *file == name).map(|(_, text)| text);
            text.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default()
        };
        let settings = file(SETTINGS);
        // Files of today say all in the settings; in older ones the map counts.
        let older =
            if settings["added_tokens_decoder"].is_object() { Value::Null } else { file("special_tokens_map.json") };
        let mut tokens: Vec<(String, String)> = Vec::new();
        for (from, any) in [(&settings, false), (&settings["extra_special_tokens"], true), (&older, false)] {
            for (name, value) in from.as_object().into_iter().flatten() {
                let token = value.as_str().or(value["content"].as_str());
                if let Some(token) = token.filter(|_| any || name.ends_with("_token")) {
                    tokens.retain(|(known, _)| known != name);
                    tokens.push((name.clone(), token.to_owned()));
                }
            }
        }
        tokens
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

        let (kind, encode) = layout.encoder(&hf.get_vocab(false), added.values(), &special);
        let bytes = match kind {
            Kind::Char => Some(TokenBytes::new(vocab, tokens.iter().map(|(t, &id)| (id, t.clone().into_bytes())))),
            Kind::Byte | Kind::Bpe => Some(TokenBytes::byte_level(vocab, &tokens, &added)),
            Kind::Other => None,
        };
        let tokenizer = Tokenizer {
            json,
            path: path.to_owned(),
            hf,
            kind,
            encode,
            bytes,
            vocab,
            eot,
            start: None,
            ends: Vec::new(),
            special,
            beside: Vec::new(),
        };
        Ok(tokenizer.with(Vec::new()))
    }
}

impl Layout {
    /// What the tokens are, and the fastest encoder that gives the ids of the crate. `tokens` is the model's own vocabulary.
    fn encoder<'a>(
        self,
        tokens: &HashMap<String, u32>,
        mut added: impl Iterator<Item = &'a AddedToken>,
        special: &[(String, u32)],
    ) -> (Kind, Encode) {
        let decoder = self.decoder.as_ref().and_then(|decoder| decoder["type"].as_str()).unwrap_or("");
        let plain = self.normalizer.is_none() && added.all(|t| t.special);
        let (model, pre) = (&self.model, &self.pre_tokenizer);
        match model.r#type.as_deref().unwrap_or("") {
            "BPE" if decoder == "ByteLevel" => {
                let bytes = plain.then(|| byte_ids(tokens)).flatten();
                let no_merges = model.merges.as_ref().is_some_and(Vec::is_empty);
                match bytes {
                    Some(ids) if no_merges && pre["type"] == "ByteLevel" && pre["add_prefix_space"] == false => {
                        (Kind::Byte, Encode::Bytes(Box::new(ids)))
                    }
                    Some(ids) => match self.bpe(ids, tokens) {
                        Some(bpe) => (Kind::Bpe, Encode::Bpe(Arc::new(bpe))),
                        None => (Kind::Bpe, Encode::Crate),
                    },
                    None => (Kind::Bpe, Encode::Crate),
                }
            }
            "WordLevel" if plain && decoder == "Fuse" && *pre == split_chars() => match char_ids(tokens, special) {
                Some(ids) => (Kind::Char, Encode::Chars(ids)),
                None => (Kind::Other, Encode::Crate),
            },
            _ => (Kind::Other, Encode::Crate),
        }
    }

    /// Our own encoder, where it does all that the file asks for.
    fn bpe(&self, bytes: [u32; 256], tokens: &HashMap<String, u32>) -> Option<Bpe> {
        let pattern = Pattern::of(&self.pre_tokenizer)?;
        let model = &self.model;
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return None;
        }
        let merge = |merge: &LayoutMerge| {
            let (left, right) = merge.halves()?;
            let both = [left, right].concat();
            Some([*tokens.get(left)?, *tokens.get(right)?, *tokens.get(&both)?])
        };
        let merges = model.merges.as_ref()?.iter().map(merge).collect::<Option<Vec<_>>>()?;
        let bpe = Bpe::new(pattern, bytes, &merges);
        if model.ignore_merges != Some(true) {
            return Some(bpe);
        }
        let of: HashMap<char, u8> = (0..=255).map(|byte| (byte_to_char(byte), byte)).collect();
        let spelled = |(token, &id): (&String, &u32)| {
            Some((token.chars().map(|c| of.get(&c).copied()).collect::<Option<Vec<u8>>>()?, id))
        };
        Some(bpe.with_whole(tokens.iter().filter_map(spelled)))
    }
}

/// The id of each byte, where every byte has one.
fn byte_ids(tokens: &HashMap<String, u32>) -> Option<[u32; 256]> {
    let mut ids = [NONE; 256];
    for byte in 0..=255 {
        ids[usize::from(byte)] = *tokens.get(byte_to_char(byte).to_string().as_str())?;
    }
    Some(ids)
}

/// The id of each character, indexed by code point, where all tokens that are not special are single characters.
fn char_ids(tokens: &HashMap<String, u32>, special: &[(String, u32)]) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    for (token, &id) in tokens {
        let mut chars = token.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => {
                let at = c as usize;
                ids.resize(ids.len().max(at + 1), NONE);
                ids[at] = id;
            }
            _ if special.iter().any(|&(_, special)| special == id) => {}
            _ => return None,
        }
    }
    Some(ids)
}
