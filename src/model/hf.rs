//! Hugging Face's names for the two families of models: `config.json`, and the tensors of `model.safetensors`.
//!
//! Learned positions make a model a GPT-2, rotary ones a Llama. GPT-2's linear layers are stored as (in, out), where kiln
//! has (out, in); Llama's queries, keys and values, one matrix in memory, are three tensors in files.

use super::config::{GptConfig, Mlp, Positions, Size};
use crate::error::{Error, Result};
use crate::ops::activation::Activation;
use crate::ops::rope::RopeScaling;
use crate::params::{Decl, Stored};
use serde_json::{Value, json};
use std::path::Path;

/// No model has a longer context; a file that claims more is damaged.
pub const MAX_CONTEXT: usize = 1 << 24;

/// What a family calls its layers; those of block `i` are `BLOCK.i.NAME`.
pub(super) struct Names {
    pub tokens: &'static str,
    pub positions: &'static str,
    pub block: &'static str,
    pub norm_1: &'static str,
    pub qkv: &'static str,
    pub proj: &'static str,
    pub norm_2: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub out: &'static str,
    pub last: &'static str,
    pub head: &'static str,
}

/// Whether a tensor of a file has a row for each token: the embedding, or a head of its own.
pub fn is_table(name: &str) -> bool {
    [GPT2.tokens, LLAMA.tokens, GPT2.head].iter().any(|table| name.strip_suffix(".weight") == Some(table))
}

const GPT2: Names = Names {
    tokens: "wte",
    positions: "wpe",
    block: "h",
    norm_1: "ln_1",
    qkv: "attn.c_attn",
    proj: "attn.c_proj",
    norm_2: "ln_2",
    gate: "mlp.c_gate",
    up: "mlp.c_fc",
    out: "mlp.c_proj",
    last: "ln_f",
    head: "lm_head",
};

const LLAMA: Names = Names {
    tokens: "model.embed_tokens",
    positions: "model.embed_positions",
    block: "model.layers",
    norm_1: "input_layernorm",
    // No tensor of a file bears this name: see `store`.
    qkv: "self_attn.qkv_proj",
    proj: "self_attn.o_proj",
    norm_2: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    out: "mlp.down_proj",
    last: "model.norm",
    head: "lm_head",
};

impl Names {
    pub fn of(config: &GptConfig) -> &'static Names {
        match config.positions {
            Positions::Learned => &GPT2,
            Positions::Rope { .. } => &LLAMA,
        }
    }
}

/// Says how files hold a parameter, which its name tells.
pub(super) fn store(mut decl: Decl) -> Decl {
    let conv1d = [".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".c_gate.weight"];
    if conv1d.iter().any(|end| decl.name.ends_with(end)) {
        decl.stored = Stored::Transposed;
    } else if decl.name.contains(".qkv_proj.") {
        let part = |part| decl.name.replace(".qkv_proj.", part);
        decl.stored = Stored::Parts([".q_proj.", ".k_proj.", ".v_proj."].map(part).to_vec());
    }
    decl
}

impl GptConfig {
    /// The configuration as Hugging Face's `config.json`; what that lacks stands under `kiln`.
    pub fn to_json(&self) -> Value {
        match self.positions {
            Positions::Learned => self.to_gpt2(),
            Positions::Rope { theta, scaling } => self.to_llama(theta, scaling),
        }
    }

    fn to_gpt2(&self) -> Value {
        let activation = match self.mlp {
            Mlp::Plain(Activation::GeluErf) => "gelu",
            Mlp::Plain(Activation::Relu) => "relu",
            _ => "gelu_new",
        };
        json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": self.vocab,
            "n_positions": self.context,
            "n_ctx": self.context,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_embd": self.d,
            "n_inner": self.hidden,
            "activation_function": activation,
            "layer_norm_epsilon": self.eps,
            "initializer_range": 0.02,
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "kiln": { "bias": self.bias },
        })
    }

    fn to_llama(&self, theta: f64, scaling: RopeScaling) -> Value {
        let scaling = match scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear(factor) => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Dynamic(factor) => json!({ "rope_type": "dynamic", "factor": factor }),
            RopeScaling::Llama3 { factor, low, high, original } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original as u64,
            }),
        };
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_size": self.d,
            "head_dim": self.head_dim,
            "intermediate_size": self.hidden,
            "hidden_act": "silu",
            "rms_norm_eps": self.eps,
            "rope_theta": theta,
            "rope_scaling": scaling,
            "attention_bias": self.bias,
            "mlp_bias": self.bias,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "kiln": { "dropout": self.dropout },
        })
    }

    /// Reads what [`to_json`](GptConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(config: &Value, path: &Path) -> Result<GptConfig> {
        let fields = Fields { config, path };
        match config["model_type"].as_str() {
            Some("gpt2") => fields.gpt2(),
            Some("llama") => fields.llama(),
            _ => Err(fields.bad("model_type", "\"gpt2\" or \"llama\"")),
        }
    }
}

/// An object of a `config.json`, whose fields are read with errors that name them.
struct Fields<'a> {
    config: &'a Value,
    path: &'a Path,
}

impl Fields<'_> {
    fn bad(&self, field: &str, expected: &str) -> Error {
        let hint = "kiln has models of the kinds gpt2 and llama";
        Error::format(self.path, field, expected, &self.config[field], hint)
    }

    fn count(&self, field: &str) -> Result<usize> {
        // Below 2³², so that sizes derived from it do not overflow.
        let value = self.config[field].as_u64().filter(|n| (1..1 << 32).contains(n)).map(|n| n as usize);
        value.ok_or_else(|| self.bad(field, "a positive number"))
    }

    fn positive(&self, field: &str) -> Result<f64> {
        let value = self.config[field].as_f64().filter(|x| x.is_finite() && *x > 0.0);
        value.ok_or_else(|| self.bad(field, "a positive number"))
    }

    /// The value of a field that may be absent or null, or else `default`.
    fn or<T>(&self, field: &str, default: T, get: impl Fn(&Self) -> Result<T>) -> Result<T> {
        if self.config[field].is_null() { Ok(default) } else { get(self) }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        self.or(field, default, |f| f.config[field].as_bool().ok_or_else(|| f.bad(field, "true or false")))
    }

    fn share(&self, value: &Value) -> f32 {
        value.as_f64().filter(|p| (0.0..1.0).contains(p)).unwrap_or(0.0) as f32
    }

    /// The sizes under a family's names, checked against each other.
    fn size(&self, [context, layers, heads, d]: [&str; 4]) -> Result<Size> {
        let size = Size {
            vocab: self.count("vocab_size")?,
            context: self.count(context)?,
            layers: self.count(layers)?,
            heads: self.count(heads)?,
            d: self.count(d)?,
        };
        if size.context > MAX_CONTEXT {
            return Err(self.bad(context, &format!("at most {MAX_CONTEXT}")));
        }
        if !size.d.is_multiple_of(size.heads) {
            return Err(self.bad(d, &format!("a multiple of {heads}, {}", size.heads)));
        }
        Ok(size)
    }

    /// Requires of a flag or number, where it is there, the value that this model has.
    fn only(&self, field: &str, value: Value) -> Result<()> {
        let found = &self.config[field];
        let same = found.is_null() || *found == value || found.as_f64().is_some_and(|x| Some(x) == value.as_f64());
        if same { Ok(()) } else { Err(self.bad(field, &value.to_string())) }
    }

    fn gpt2(&self) -> Result<GptConfig> {
        let activation = match self.config["activation_function"].as_str() {
            None if self.config["activation_function"].is_null() => Activation::GeluTanh,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("gelu") => Activation::GeluErf,
            Some("relu") => Activation::Relu,
            _ => return Err(self.bad("activation_function", "\"gelu_new\", \"gelu\" or \"relu\"")),
        };
        self.only("scale_attn_weights", json!(true))?;
        self.only("scale_attn_by_inverse_layer_idx", json!(false))?;
        self.only("add_cross_attention", json!(false))?;
        let gpt2 = GptConfig::gpt2(self.size(["n_positions", "n_layer", "n_head", "n_embd"])?);
        Ok(GptConfig {
            hidden: self.or("n_inner", gpt2.hidden, |f| f.count("n_inner"))?,
            eps: self.or("layer_norm_epsilon", gpt2.eps, |f| f.positive("layer_norm_epsilon"))?,
            mlp: Mlp::Plain(activation),
            bias: self.config["kiln"]["bias"].as_bool().unwrap_or(true),
            tied: self.flag("tie_word_embeddings", true)?,
            dropout: self.share(&self.config["resid_pdrop"]),
            ..gpt2
        })
    }

    fn llama(&self) -> Result<GptConfig> {
        let names = ["max_position_embeddings", "num_hidden_layers", "num_attention_heads", "hidden_size"];
        let llama = GptConfig::llama(self.size(names)?);
        self.only("hidden_act", json!("silu"))?;
        self.only("partial_rotary_factor", json!(1.0))?;
        let heads = llama.heads;
        let kv_heads = self.or("num_key_value_heads", heads, |f| f.count("num_key_value_heads"))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.bad("num_key_value_heads", &format!("a divisor of num_attention_heads, {heads}")));
        }
        let head_dim = self.or("head_dim", llama.head_dim, |f| f.count("head_dim"))?;
        if !head_dim.is_multiple_of(2) {
            let field = if self.config["head_dim"].is_null() { "hidden_size" } else { "head_dim" };
            return Err(self.bad(field, "an even number of channels a head"));
        }
        let bias = self.flag("attention_bias", false)?;
        if self.flag("mlp_bias", false)? != bias {
            return Err(self.bad("mlp_bias", "the same as attention_bias"));
        }
        Ok(GptConfig {
            kv_heads,
            head_dim,
            hidden: self.count("intermediate_size")?,
            positions: self.rope()?,
            eps: self.or("rms_norm_eps", 1e-6, |f| f.positive("rms_norm_eps"))?,
            bias,
            tied: self.flag("tie_word_embeddings", false)?,
            dropout: self.share(&self.config["kiln"]["dropout"]),
            ..llama
        })
    }

    /// `rope_theta` and `rope_scaling`; `transformers` 5 writes both into `rope_parameters`.
    fn rope(&self) -> Result<Positions> {
        let at = |field| Fields { config: &self.config[field], path: self.path };
        let (new, old) = (at("rope_parameters"), at("rope_scaling"));
        let holder = if new.config["rope_theta"].is_null() { self } else { &new };
        let theta = holder.or("rope_theta", 10_000.0, |f| f.positive("rope_theta"))?;
        let scaling = if new.config.is_null() { old } else { new };
        if scaling.config.is_null() {
            return Ok(Positions::Rope { theta, scaling: RopeScaling::None });
        }
        // Older files say `type`.
        let key = if scaling.config["rope_type"].is_null() { "type" } else { "rope_type" };
        let scaling = match scaling.config[key].as_str() {
            Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear(scaling.positive("factor")?),
            Some("dynamic") => RopeScaling::Dynamic(scaling.positive("factor")?),
            Some("llama3") => {
                let (low, high) = (scaling.positive("low_freq_factor")?, scaling.positive("high_freq_factor")?);
                if low >= high {
                    return Err(scaling.bad("high_freq_factor", &format!("more than low_freq_factor, {low}")));
                }
                let original = scaling.count("original_max_position_embeddings")? as f64;
                RopeScaling::Llama3 { factor: scaling.positive("factor")?, low, high, original }
            }
            _ => return Err(scaling.bad(key, "\"default\", \"linear\", \"dynamic\" or \"llama3\"")),
        };
        Ok(Positions::Rope { theta, scaling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &Value) -> Result<GptConfig> {
        GptConfig::from_json(config, Path::new("config.json"))
    }

    const SIZE: Size = Size { vocab: 100, context: 64, layers: 3, heads: 4, d: 32 };

    #[test]
    fn configurations_come_back_as_they_were_written() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let rope = |theta, scaling| Positions::Rope { theta, scaling };
        let (gpt2, llama) = (GptConfig::gpt2(SIZE), GptConfig::llama(SIZE));
        let configs = [
            GptConfig { mlp: Mlp::Plain(Activation::GeluErf), bias: false, tied: false, hidden: 100, ..gpt2.clone() },
            GptConfig { kv_heads: 2, tied: true, positions: rope(5e5, llama3), eps: 1e-6, ..llama.clone() },
            GptConfig { head_dim: 20, positions: rope(1e4, RopeScaling::Dynamic(4.0)), ..llama.clone() },
            GptConfig { mlp: Mlp::Plain(Activation::Relu), ..gpt2.clone() },
            GptConfig { bias: true, dropout: 0.5, positions: rope(1e4, RopeScaling::Linear(2.0)), ..llama.clone() },
            gpt2,
            llama,
        ];
        for config in configs {
            // Through text, as in a file.
            let text = config.to_json().to_string();
            assert_eq!(read(&serde_json::from_str(&text).unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn the_newer_place_of_rope_parameters_is_read() {
        let mut json = GptConfig::llama(SIZE).to_json();
        json["rope_theta"] = Value::Null;
        json["rope_parameters"] = json!({ "rope_theta": 5e5, "rope_type": "linear", "factor": 4.0 });
        let rope = Positions::Rope { theta: 5e5, scaling: RopeScaling::Linear(4.0) };
        assert_eq!(read(&json).unwrap().positions, rope);
    }

    #[test]
    fn a_field_that_the_model_does_not_have_is_named() {
        let wrong = [
            ("model_type", json!("mamba"), "\"gpt2\" or \"llama\""),
            ("num_key_value_heads", json!(3), "a divisor of num_attention_heads, 4"),
            ("head_dim", json!(7), "an even number of channels a head"),
            ("partial_rotary_factor", json!(0.5), "1.0"),
            ("hidden_size", json!(33), "a multiple of num_attention_heads, 4"),
            ("hidden_size", json!(12), "an even number of channels a head"),
            ("hidden_act", json!("gelu"), "\"silu\""),
            ("mlp_bias", json!(true), "the same as attention_bias"),
            ("intermediate_size", json!(0), "a positive number"),
            ("rms_norm_eps", json!("small"), "a positive number"),
            ("tie_word_embeddings", json!(1), "true or false"),
        ];
        for (field, value, expected) in wrong {
            let mut json = GptConfig::llama(SIZE).to_json();
            json[field] = value;
            if field == "hidden_size" {
                json["head_dim"] = Value::Null;
            }
            let message = read(&json).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: {field}: expected {expected}, found ")), "{message}");
        }
        let mut json = GptConfig::llama(SIZE).to_json();
        json["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 2.0 });
        assert!(
            read(&json)
                .unwrap_err()
                .to_string()
                .contains("rope_type: expected \"default\", \"linear\", \"dynamic\" or \"llama3\"")
        );
    }
}
