//! The tokenizer in the metadata of a GGUF file, as a `tokenizer.json`, and the other way round.
//!
//! Two kinds are known: `gpt2`, byte-level BPE, whose `tokenizer.ggml.pre` names how text is cut into words; and `llama`,
//! SentencePiece's BPE, whose merges follow from scores. A file may carry the `tokenizer.json` itself
//! (`tokenizer.huggingface.json`), which then counts; those that kiln writes do.

use super::header::{Header, Numbers, Texts, Value};
use crate::data::Tokenizer;
use crate::data::tokenizer::words::{GPT4, Pattern};
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::path::Path;

const HF: &str = "tokenizer.huggingface.json";
/// kiln's own: the files beside the `tokenizer.json`, names to texts.
const BESIDE: &str = "tokenizer.huggingface.beside";
const TEMPLATE: &str = "tokenizer.chat_template";
/// No vocabulary is larger.
const MAX_TOKENS: usize = 1 << 20;
/// A SentencePiece vocabulary has two or three for each token.
const MAX_MERGES: usize = 8;
const HINT: &str = "convert the model's Hugging Face directory instead, which has its tokenizer.json";

/// How text is cut into words, by the names of llama.cpp.
const PATTERNS: [(&[&str], Pattern); 4] = [
    (&["gpt-2", "mpt", "olmo", "jais", "phi-2", "roberta-bpe", "exaone4"], Pattern::Gpt2),
    (&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], Pattern::EachDigit),
    (&["llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx", "falcon3", "lfm2"], Pattern::Gpt4 { digits: 3 }),
    (&["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"], Pattern::Gpt4 { digits: 1 }),
];

/// A token of the list, by its number in `tokenizer.ggml.token_type`.
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// What the metadata says of a tokenizer.
struct Vocab<'a> {
    keys: &'a HashMap<String, Value>,
    path: &'a Path,
    tokens: Vec<&'a str>,
}

impl<'a> Vocab<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(&format!("tokenizer.ggml.{key}"))
    }

    fn wrong(&self, key: &str, expected: impl ToString, found: impl ToString) -> Error {
        Error::format(self.path, format!("tokenizer.ggml.{key}"), expected, found, HINT)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        if let Some(Value::Bool(flag)) = self.get(key) { *flag } else { default }
    }

    /// A number for each token.
    fn numbers(&self, key: &str) -> Result<Option<&'a Numbers>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Numbers(numbers)) if numbers.count() == self.tokens.len() => Ok(Some(numbers)),
            Some(_) => {
                Err(self.wrong(key, format!("a number for each of {} tokens", self.tokens.len()), "something else"))
            }
        }
    }

    /// The spelling of a token that a key names by its id.
    fn token(&self, key: &str) -> Result<Option<&'a str>> {
        let id = match self.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(id)) => *id,
            Some(Value::Signed(id)) if *id < 0 => return Ok(None),
            Some(Value::Signed(id)) => *id as u64,
            // Older files say so that there is none.
            Some(_) => return Err(self.wrong(key, "an id", "something else")),
        };
        if id == u64::from(u32::MAX) {
            return Ok(None);
        }
        let token = self.tokens.get(id as usize);
        token.map(|token| Some(*token)).ok_or_else(|| self.wrong(key, format!("an id below {}", self.tokens.len()), id))
    }

    /// Tokens that text is searched for before all else.
    fn added(&self) -> Result<Vec<Json>> {
        let Some(types) = self.numbers("token_type")? else { return Ok(Vec::new()) };
        let marked = types.iter().enumerate().filter(|(_, kind)| [CONTROL, USER_DEFINED].contains(kind));
        let added = |(id, kind): (usize, f64)| {
            json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL})
        };
        // An empty one would be found everywhere.
        Ok(marked.filter(|(id, _)| !self.tokens[*id].is_empty()).map(added).collect())
    }

    fn vocab(&self) -> Result<Map<String, Json>> {
        let mut vocab = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if vocab.insert((*token).to_owned(), id.into()).is_some() {
                return Err(self.wrong("tokens", "tokens that differ", format!("{token:?} twice")));
            }
        }
        Ok(vocab)
    }

    /// The merges that the file lists.
    fn merges(&self) -> Result<Option<Vec<Json>>> {
        match self.get("merges") {
            None => Ok(None),
            Some(Value::Texts(merges)) => {
                let halves = |merge: &str| {
                    let halves = merge.split_once(' ').map(|(left, right)| json!([left, right]));
                    halves.ok_or_else(|| {
                        self.wrong("merges", "two tokens with a space between them", format!("{merge:?}"))
                    })
                };
                merges.iter().map(halves).collect::<Result<_>>().map(Some)
            }
            Some(_) => Err(self.wrong("merges", "a list of texts", "something else")),
        }
    }

    /// What puts `add_bos_token` before a text.
    fn template(&self, default: bool) -> Result<Json> {
        let Some(bos) = self.token("bos_token_id")?.filter(|_| self.flag("add_bos_token", default)) else {
            return Ok(Json::Null);
        };
        let id = self.tokens.iter().position(|token| *token == bos);
        let (first, text) =
            (json!({"SpecialToken": {"id": bos, "type_id": 0}}), json!({"Sequence": {"id": "A", "type_id": 0}}));
        let second = json!({"Sequence": {"id": "B", "type_id": 1}});
        Ok(json!({"type": "TemplateProcessing", "single": [first, text], "pair": [first, text, first, second],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}}}))
    }

    fn byte_level(&self) -> Result<Json> {
        let pre = match self.get("pre") {
            None => "gpt-2",
            Some(Value::Text(pre)) if pre == "default" => "gpt-2",
            Some(Value::Text(pre)) => pre,
            Some(_) => return Err(self.wrong("pre", "a name", "something else")),
        };
        let Some((_, pattern)) = PATTERNS.iter().find(|(names, _)| names.contains(&pre)) else {
            let known: Vec<&str> = PATTERNS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            return Err(self.wrong("pre", format!("one of {}", known.join(", ")), pre));
        };
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let sequence = |first: Json, regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(regex)]});
        let pre_tokenizer = match pattern {
            Pattern::Gpt2 => bytes(true),
            Pattern::EachDigit => sequence(json!({"type": "Digits", "individual_digits": true}), true),
            Pattern::Gpt4 { digits } => {
                let number = if *digits == 1 { r"\p{N}" } else { r"\p{N}{1,3}" };
                let regex = json!({"Regex": GPT4.join(number)});
                sequence(json!({"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": false}), false)
            }
        };
        let normalizer = if pre == "qwen2" { json!({"type": "NFC"}) } else { Json::Null };
        let merges = self.merges()?.ok_or_else(|| self.wrong("merges", "a list", "nothing"))?;
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added()?,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": self.template(false)?,
            "decoder": bytes(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": matches!(pattern, Pattern::Gpt4 { digits: 3 }), "vocab": self.vocab()?, "merges": merges}}))
    }

    /// A token may be merged from any two that spell it; those of the highest scores come first.
    fn scored_merges(&self) -> Result<Vec<Json>> {
        let scores = self.numbers("scores")?.ok_or_else(|| self.wrong("scores", "a list", "nothing"))?;
        let scores: Vec<f64> = scores.iter().collect();
        let ids: HashMap<&str, usize> = self.tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let mut own: Vec<(usize, usize)> = token
                .char_indices()
                .skip(1)
                // Tokens are short, so that all of this takes little.
                .take(64)
                .filter_map(|(at, _)| Some((*ids.get(&token[..at])?, *ids.get(&token[at..])?)))
                .collect();
            own.sort_unstable();
            merges.extend(own.into_iter().map(|pair| (id, pair)));
            if merges.len() > MAX_MERGES * self.tokens.len() {
                return Err(self.wrong("tokens", format!("at most {MAX_MERGES} ways to merge each"), "more"));
            }
        }
        merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
        Ok(merges.iter().map(|&(_, (left, right))| json!([self.tokens[left], self.tokens[right]])).collect())
    }

    fn sentencepiece(&self) -> Result<Json> {
        let merges = match self.merges()? {
            Some(merges) => merges,
            None => self.scored_merges()?,
        };
        let (space, prefix) = ("\u{2581}", self.flag("add_space_prefix", true));
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
        let normalizer = match prefix {
            true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space}, replace]}),
            false => replace,
        };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added()?,
            "normalizer": normalizer, "pre_tokenizer": null, "post_processor": self.template(true)?,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {"type": "BPE", "dropout": null, "unk_token": self.token("unknown_token_id")?,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false, "vocab": self.vocab()?, "merges": merges}}))
    }

    /// What a `tokenizer_config.json` would say.
    fn settings(&self, default_bos: bool) -> Result<Json> {
        let mut settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "add_bos_token": self.flag("add_bos_token", default_bos)});
        let names = [
            ("bos_token", "bos_token_id"),
            ("eos_token", "eos_token_id"),
            ("unk_token", "unknown_token_id"),
            ("pad_token", "padding_token_id"),
        ];
        for (name, key) in names {
            if let Some(token) = self.token(key)? {
                settings[name] = token.into();
            }
        }
        if let Some(Value::Text(template)) = self.keys.get(TEMPLATE) {
            settings["chat_template"] = template.as_str().into();
        }
        Ok(settings)
    }
}

/// The tokenizer of a file; none where it has none.
///
/// # Errors
/// It is of a kind that kiln does not know, or contradicts itself.
pub fn read(header: &Header, path: &Path) -> Result<Option<Tokenizer>> {
    if let Some(Value::Text(json)) = header.keys.get(HF) {
        let tokenizer = Tokenizer::from_json(json.clone(), path)?;
        let beside = match header.keys.get(BESIDE) {
            Some(Value::Text(text)) => serde_json::from_str(text).unwrap_or_default(),
            _ => HashMap::new(),
        };
        return Ok(Some(tokenizer.with_files(beside)));
    }
    let empty = Texts::default();
    let tokens = match header.keys.get("tokenizer.ggml.tokens") {
        Some(Value::Texts(texts)) => texts,
        _ => &empty,
    };
    let vocab = Vocab { keys: &header.keys, path, tokens: tokens.iter().collect() };
    if vocab.tokens.len() > MAX_TOKENS {
        return Err(vocab.wrong("tokens", format!("at most {MAX_TOKENS}"), vocab.tokens.len()));
    }
    let (json, bos) = match vocab.get("model") {
        None => return Ok(None),
        Some(Value::Text(kind)) if kind == "gpt2" => (vocab.byte_level()?, false),
        Some(Value::Text(kind)) if kind == "llama" => (vocab.sentencepiece()?, true),
        Some(Value::Text(kind)) if ["none", "no_vocab"].contains(&kind.as_str()) => return Ok(None),
        Some(other) => return Err(vocab.wrong("model", "gpt2 or llama", format!("{other:?}"))),
    };
    let settings = vocab.settings(bos)?;
    Ok(Some(Tokenizer::from_json(json.to_string(), path)?.with_settings(&settings)))
}

/// The metadata that says what [`read`] reads, for a model of so many ids.
pub fn write(tokenizer: &Tokenizer, vocab: usize) -> Vec<(String, Value)> {
    let mut keys = vec![(HF.to_owned(), Value::Text(tokenizer.json().to_owned()))];
    let beside: Map<String, Json> =
        tokenizer.files().skip(1).map(|(name, text)| (name.to_owned(), text.into())).collect();
    if !beside.is_empty() {
        keys.push((BESIDE.to_owned(), Value::Text(Json::from(beside).to_string())));
    }
    if let Some(template) = tokenizer.chat_template() {
        keys.push((TEMPLATE.to_owned(), Value::Text(template)));
    }
    let json: Json = serde_json::from_str(tokenizer.json()).unwrap_or_default();
    let (model, pattern) = (&json["model"], Pattern::of(&json["pre_tokenizer"]));
    let mut put = |key: &str, value: Value| keys.push((format!("tokenizer.ggml.{key}"), value));
    let byte_level = model["type"] == "BPE" && json["decoder"]["type"] == "ByteLevel";
    let Some(pattern) = pattern.filter(|_| byte_level) else {
        // What other programs could not encode with, they had better not try.
        put("model", Value::Text("none".into()));
        return keys;
    };
    let names = PATTERNS.iter().find(|(_, known)| *known == pattern).expect("all are listed").0;
    put("model", Value::Text("gpt2".into()));
    put("pre", Value::Text(names[0].into()));
    let added = json["added_tokens"].as_array().cloned().unwrap_or_default();
    let kind = |id: usize, known: bool| match added.iter().find(|token| token["id"] == id) {
        Some(token) if token["special"] == true => CONTROL as i32,
        Some(_) => USER_DEFINED as i32,
        // 1: as any other; 5: of no use.
        None => {
            if known {
                1
            } else {
                5
            }
        }
    };
    let (mut tokens, mut kinds) = (Texts::default(), Vec::new());
    for id in 0..vocab.max(tokenizer.vocab_size()) {
        let spelling = tokenizer.spelling(id as u32);
        kinds.push(kind(id, spelling.is_some()));
        tokens.push(&spelling.unwrap_or_else(|| format!("[PAD{id}]")));
    }
    put("tokens", Value::Texts(tokens));
    put("token_type", Value::Numbers(Numbers::i32(&kinds)));
    let mut merges = Texts::default();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let halves = merge.as_array().map(|two| two.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "));
        merges.push(&halves.or_else(|| merge.as_str().map(str::to_owned)).unwrap_or_default());
    }
    put("merges", Value::Texts(merges));
    let named = [
        ("bos_token_id", "bos_token"),
        ("eos_token_id", "eos_token"),
        ("unknown_token_id", "unk_token"),
        ("padding_token_id", "pad_token"),
    ];
    for (key, setting) in named {
        let token = tokenizer.setting(setting).and_then(|token| tokenizer.id(token.as_str()?));
        let token = token.or(if setting == "eos_token" { tokenizer.eot() } else { None });
        if let Some(id) = token {
            put(key, Value::Unsigned(u64::from(id)));
        }
    }
    put("add_bos_token", Value::Bool(tokenizer.start().is_some() && tokenizer.start() != tokenizer.eot()));
    put("add_space_prefix", Value::Bool(false));
    keys
}
