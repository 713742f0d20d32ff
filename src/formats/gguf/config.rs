//! A model's parts and sizes in the metadata of a GGUF file, and llama.cpp's names of tensors.

use super::header::{Header, Value};
use crate::error::{Error, Result};
use crate::model::{GptConfig, Mlp, Positions, Size};
use crate::ops::activation::Activation;
use crate::ops::rope::RopeScaling;
use std::path::Path;

/// Kinds of models, with the names of their blocks' tensors in Hugging Face's files and in GGUF files.
pub struct Family {
    /// `general.architecture`.
    pub name: &'static str,
    /// The names outside of blocks.
    outer: &'static [(&'static str, &'static str)],
    /// How the name of a block's tensor starts, before the block's number.
    block: &'static str,
    /// The names within blocks.
    inner: &'static [(&'static str, &'static str)],
}

/// Metadata, and the factors of RoPE's frequencies where there are any.
pub type Said = (Vec<(String, Value)>, Option<Vec<f32>>);

/// Frequencies of RoPE divided by these: Llama 3.1's scaling.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
const HINT: &str = "kiln reads models of the kinds llama and gpt2 as llama.cpp writes them";

const LLAMA: Family = Family {
    name: "llama",
    outer: &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")],
    block: "model.layers.",
    inner: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ],
};

const GPT2: Family = Family {
    name: "gpt2",
    outer: &[("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
    block: "h.",
    inner: &[
        ("ln_1", "attn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("ln_2", "ffn_norm"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ],
};

impl Family {
    /// The family of a model.
    pub fn of(config: &GptConfig) -> &'static Family {
        match config.positions {
            Positions::Learned => &GPT2,
            Positions::Rope { .. } => &LLAMA,
        }
    }

    /// What GGUF files call a tensor that Hugging Face's files call `name`.
    pub fn tensor(&self, name: &str) -> Option<String> {
        let (stem, end) = name.rsplit_once('.')?;
        let find =
            |names: &[(&str, &'static str)], stem: &str| names.iter().find(|pair| pair.0 == stem).map(|pair| pair.1);
        if let Some(outer) = find(self.outer, stem) {
            return Some(format!("{outer}.{end}"));
        }
        let (i, part) = stem.strip_prefix(self.block)?.split_once('.')?;
        Some(format!("blk.{i}.{}.{end}", find(self.inner, part)?))
    }
}

/// So many heads whose rows llama.cpp interleaves in a tensor that Hugging Face calls `name`; 0: none.
pub fn heads(config: &GptConfig, name: &str) -> usize {
    match name {
        _ if name.contains(".q_proj.") => config.heads,
        _ if name.contains(".k_proj.") => config.kv_heads,
        _ => 0,
    }
}

/// The metadata of one architecture.
struct Keys<'a> {
    header: &'a Header,
    path: &'a Path,
    family: &'static str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.keys.get(&self.key(key))
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match self.get(key) {
            None => "nothing".to_owned(),
            Some(Value::Texts(_) | Value::Numbers(_)) => "a list".to_owned(),
            Some(Value::Unsigned(n)) => n.to_string(),
            Some(Value::Float(x)) => x.to_string(),
            Some(other) => format!("{other:?}"),
        };
        Error::format(self.path, self.key(key), expected, found, HINT)
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.maybe(key)?.ok_or_else(|| self.wrong(key, "a positive number"))
    }

    fn maybe(&self, key: &str) -> Result<Option<usize>> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => Some(*n),
            Some(Value::Signed(n)) => u64::try_from(*n).ok(),
            Some(_) => None,
        };
        let number = number.filter(|n| (1..1 << 32).contains(n));
        number.map(|n| Some(n as usize)).ok_or_else(|| self.wrong(key, "a positive number"))
    }

    fn positive(&self, key: &str, default: Option<f64>) -> Result<f64> {
        match self.get(key) {
            None => default,
            Some(Value::Float(x)) => Some(*x).filter(|x| x.is_finite() && *x > 0.0),
            Some(_) => None,
        }
        .ok_or_else(|| self.wrong(key, "a positive number"))
    }

    /// Rows and columns of a matrix.
    fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        match self.header.tensors.get(name).map(|info| &info.shape[..]) {
            Some(&[rows, columns]) => Ok([rows, columns]),
            found => {
                let found = found.map_or("none of that name".to_owned(), |shape| format!("shape {shape:?}"));
                Err(Error::format(self.path, name, "a matrix", found, HINT))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    fn size(&self) -> Result<Size> {
        let size = Size {
            vocab: self.matrix("token_embd.weight")?[0],
            context: self.count("context_length")?,
            layers: self.count("block_count")?,
            heads: self.count("attention.head_count")?,
            d: self.count("embedding_length")?,
        };
        if size.layers > self.header.tensors.len() {
            return Err(self.wrong("block_count", "as many blocks as there are tensors for"));
        }
        Ok(size)
    }

    fn llama(&self) -> Result<GptConfig> {
        let llama = GptConfig::llama(self.size()?);
        let (heads, d) = (llama.heads, llama.d);
        let kv_heads = self.maybe("attention.head_count_kv")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.wrong("attention.head_count_kv", &format!("a divisor of {heads} heads")));
        }
        let head_dim = self.maybe("attention.key_length")?.unwrap_or(d / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(
                self.wrong("embedding_length", &format!("an even number of channels for each of {heads} heads"))
            );
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if self.maybe(key)?.is_some_and(|n| n != head_dim) {
                return Err(self.wrong(key, &format!("the channels of a head, {head_dim}")));
            }
        }
        if self.maybe("expert_count").is_ok_and(|n| n.is_some()) {
            return Err(self.wrong("expert_count", "a model without experts"));
        }
        let bias = self.has("blk.0.attn_q.bias");
        if self.has("blk.0.ffn_up.bias") != bias {
            let found = if bias { "none in the MLP" } else { "some in the MLP only" };
            return Err(Error::format(self.path, "blk.0.ffn_up.bias", "biases everywhere or nowhere", found, HINT));
        }
        let theta = self.positive("rope.freq_base", Some(10_000.0))?;
        Ok(GptConfig {
            kv_heads,
            head_dim,
            hidden: self.count("feed_forward_length")?,
            positions: Positions::Rope { theta, scaling: self.scaling()? },
            eps: self.positive("attention.layer_norm_rms_epsilon", None)?,
            bias,
            tied: !self.has("output.weight"),
            ..llama
        })
    }

    /// The scaling that `rope.scaling.…` names. Llama 3.1's is not named: its factors are a tensor (see [`scaled`]).
    fn scaling(&self) -> Result<RopeScaling> {
        if self.has(ROPE_FACTORS) {
            let original = self.maybe("rope.scaling.original_context_length")?.unwrap_or(8192) as f64;
            let low = self.positive("rope.scaling.low_freq_factor", Some(1.0))?;
            let high = self.positive("rope.scaling.high_freq_factor", Some(4.0))?;
            if low >= high {
                return Err(self.wrong("rope.scaling.high_freq_factor", "more than low_freq_factor"));
            }
            // Other programs leave it to the tensor.
            let factor = self.positive("rope.scaling.llama3_factor", Some(1.0))?;
            return Ok(RopeScaling::Llama3 { factor, low, high, original });
        }
        match self.get("rope.scaling.type") {
            None => Ok(RopeScaling::None),
            Some(Value::Text(kind)) if kind == "none" => Ok(RopeScaling::None),
            Some(Value::Text(kind)) if kind == "linear" => {
                Ok(RopeScaling::Linear(self.positive("rope.scaling.factor", None)?))
            }
            Some(_) => Err(self.wrong("rope.scaling.type", "none or linear")),
        }
    }

    fn gpt2(&self) -> Result<GptConfig> {
        let gpt2 = GptConfig::gpt2(self.size()?);
        if !gpt2.d.is_multiple_of(gpt2.heads) {
            return Err(self.wrong("embedding_length", &format!("a multiple of {} heads", gpt2.heads)));
        }
        Ok(GptConfig {
            hidden: self.maybe("feed_forward_length")?.unwrap_or(gpt2.hidden),
            eps: self.positive("attention.layer_norm_epsilon", Some(gpt2.eps))?,
            tied: !self.has("output.weight"),
            ..gpt2
        })
    }
}

/// Parts and sizes of the model in a file.
///
/// # Errors
/// The architecture is none that kiln has, or a key is missing or has a value that it has not.
pub fn read(header: &Header, path: &Path) -> Result<GptConfig> {
    let family = match header.keys.get("general.architecture") {
        Some(Value::Text(name)) if name == "llama" => "llama",
        Some(Value::Text(name)) if name == "gpt2" => "gpt2",
        found => {
            let found = match found {
                Some(Value::Text(name)) => name,
                _ => "nothing",
            };
            return Err(Error::format(path, "general.architecture", "llama or gpt2", found, HINT));
        }
    };
    let keys = Keys { header, path, family };
    if family == "llama" { keys.llama() } else { keys.gpt2() }
}

/// With the factors of the file's frequencies, where it has any: the scaling with its own factor.
///
/// # Errors
/// They are not those of Llama 3.1's scaling.
pub fn scaled(config: GptConfig, factors: &[f32], path: &Path) -> Result<GptConfig> {
    let Positions::Rope { theta, scaling: RopeScaling::Llama3 { factor, low, high, original } } = config.positions
    else {
        return Ok(config);
    };
    // The longest waves are divided by all of it.
    let factor = factors.iter().fold(factor, |max, &x| max.max(f64::from(x)));
    let scaling = RopeScaling::Llama3 { factor, low, high, original };
    let expected = rope_factors(theta, scaling, config.head_dim);
    let near = |(a, b): (&f32, &f32)| (a / b - 1.0).abs() < 1e-4;
    if factors.len() != expected.len() || !factors.iter().zip(&expected).all(near) {
        let found = format!("other ones, up to {factor}");
        return Err(Error::format(path, ROPE_FACTORS, "the factors of Llama 3.1's scaling", found, HINT));
    }
    Ok(GptConfig { positions: Positions::Rope { theta, scaling }, ..config })
}

/// What each frequency of RoPE is divided by.
fn rope_factors(theta: f64, scaling: RopeScaling, head_dim: usize) -> Vec<f32> {
    let plain = RopeScaling::None.frequencies(theta, head_dim);
    plain.iter().zip(scaling.frequencies(theta, head_dim)).map(|(plain, scaled)| (plain / scaled) as f32).collect()
}

/// The metadata that says what [`read`] reads, and the factors of RoPE's frequencies where there are any.
///
/// # Errors
/// GGUF files cannot say it.
pub fn write(config: &GptConfig) -> Result<Said> {
    let family = Family::of(config).name;
    if family == "gpt2" && config.mlp != Mlp::Plain(Activation::GeluTanh) {
        let hint = "llama.cpp's gpt2 has no other; convert it with: --to hf";
        return Err(Error::usage("a GGUF file cannot say which activation this GPT-2 has but gelu_new", hint));
    }
    let mut keys = vec![("general.architecture".to_owned(), Value::Text(family.to_owned()))];
    let mut put = |key: &str, value: Value| keys.push((format!("{family}.{key}"), value));
    let n = |n: usize| Value::Unsigned(n as u64);
    put("vocab_size", n(config.vocab));
    put("context_length", n(config.context));
    put("block_count", n(config.layers));
    put("embedding_length", n(config.d));
    put("feed_forward_length", n(config.hidden));
    put("attention.head_count", n(config.heads));
    let Positions::Rope { theta, scaling } = config.positions else {
        put("attention.layer_norm_epsilon", Value::Float(config.eps));
        return Ok((keys, None));
    };
    put("attention.head_count_kv", n(config.kv_heads));
    put("attention.key_length", n(config.head_dim));
    put("attention.value_length", n(config.head_dim));
    put("attention.layer_norm_rms_epsilon", Value::Float(config.eps));
    put("rope.dimension_count", n(config.head_dim));
    put("rope.freq_base", Value::Float(theta));
    match scaling {
        // Up to the context it changes nothing.
        RopeScaling::None | RopeScaling::Dynamic(_) => Ok((keys, None)),
        RopeScaling::Linear(factor) => {
            put("rope.scaling.type", Value::Text("linear".into()));
            put("rope.scaling.factor", Value::Float(factor));
            Ok((keys, None))
        }
        RopeScaling::Llama3 { factor, low, high, original } => {
            // `rope.scaling.factor` would divide all waves once more.
            put("rope.scaling.llama3_factor", Value::Float(factor));
            put("rope.scaling.original_context_length", n(original as usize));
            put("rope.scaling.low_freq_factor", Value::Float(low));
            put("rope.scaling.high_freq_factor", Value::Float(high));
            Ok((keys, Some(rope_factors(theta, scaling, config.head_dim))))
        }
    }
}
