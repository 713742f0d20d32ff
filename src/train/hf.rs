//! `config.json`, as Hugging Face's `transformers` writes and reads it, with what it has no place for under `kiln`.

use super::checkpoint::read_json;
use super::recipe::{Activation, Model, ModelKind};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// A model's architecture with the sizes that the recipe keeps elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture.
    pub model: Model,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// The token that ends a document.
    pub eot: Option<u32>,
}

impl Config {
    /// The content of `config.json`.
    pub fn to_json(&self) -> Value {
        let Config { model, context, vocab, eot } = self;
        let ModelKind::Gpt2 = model.kind;
        json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_layer": model.layers,
            "n_head": model.heads,
            "n_embd": model.d,
            "n_inner": null,
            "n_positions": context,
            "vocab_size": vocab,
            "activation_function": match model.activation {
                Activation::GeluTanh => "gelu_new",
                Activation::Gelu => "gelu",
            },
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": true,
            "resid_pdrop": model.dropout,
            "embd_pdrop": model.dropout,
            "attn_pdrop": model.dropout,
            "bos_token_id": eot,
            "eos_token_id": eot,
            "torch_dtype": "float32",
            "kiln": { "bias": model.bias },
        })
    }

    /// Reads a `config.json`, whoever wrote it.
    ///
    /// # Errors
    /// The file cannot be read, names another kind of model, or lacks a size.
    pub fn load(path: &Path) -> Result<Config> {
        let json: Value = read_json(path)?;
        let wrong = |key: &str, expected: &str| {
            let found = json.get(key).map_or("nothing".to_owned(), Value::to_string);
            Error::format(path, key, expected, found, "kiln loads models of GPT-2's kind")
        };
        let size = |key| {
            let size = json[key].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..1 << 32).contains(n));
            size.ok_or_else(|| wrong(key, "a whole number above 0"))
        };
        if json["model_type"] != "gpt2" {
            return Err(wrong("model_type", "\"gpt2\""));
        }
        let activation = match json["activation_function"].as_str() {
            Some("gelu_new" | "gelu_pytorch_tanh") | None => Activation::GeluTanh,
            Some("gelu") => Activation::Gelu,
            _ => return Err(wrong("activation_function", "\"gelu_new\" or \"gelu\"")),
        };
        if json["tie_word_embeddings"] == false {
            return Err(wrong("tie_word_embeddings", "true"));
        }
        if !json["n_inner"].is_null() && json["n_inner"].as_u64() != Some(4 * size("n_embd")? as u64) {
            return Err(wrong("n_inner", "four times n_embd"));
        }
        if json["layer_norm_epsilon"].as_f64().is_some_and(|eps| eps != 1e-5) {
            return Err(wrong("layer_norm_epsilon", "1e-5"));
        }
        let model = Model {
            kind: ModelKind::Gpt2,
            layers: size("n_layer")?,
            heads: size("n_head")?,
            d: size("n_embd")?,
            bias: json["kiln"]["bias"] != false,
            activation,
            dropout: json["resid_pdrop"].as_f64().unwrap_or(0.0) as f32,
        };
        if !model.d.is_multiple_of(model.heads) {
            return Err(wrong("n_embd", &format!("a multiple of n_head, {}", model.heads)));
        }
        let eot = json["eos_token_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(Config { model, context: size("n_positions")?, vocab: size("vocab_size")?, eot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    fn config() -> Config {
        Config { model: Recipe::default().model, context: 128, vocab: 1024, eot: Some(1023) }
    }

    fn load(json: &Value) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        Config::load(&dir.path().join("config.json"))
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut odd = config();
        odd.model.bias = false;
        odd.model.activation = Activation::Gelu;
        odd.model.dropout = 0.1;
        odd.eot = None;
        for config in [config(), odd] {
            assert_eq!(load(&config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn a_model_of_another_kind_is_refused() {
        for (key, value) in [
            ("model_type", json!("llama")),
            ("n_layer", json!(-1)),
            ("n_embd", json!(130)),
            ("n_positions", Value::Null),
            ("vocab_size", json!(1u64 << 60)),
            ("activation_function", json!("relu")),
            ("tie_word_embeddings", json!(false)),
            ("n_inner", json!(100)),
            ("layer_norm_epsilon", json!(1e-6)),
        ] {
            let mut json = config().to_json();
            json[key] = value;
            let message = load(&json).expect_err(key).to_string();
            assert!(message.contains(&format!("config.json: {key}: expected")), "{message}");
        }
    }
}
