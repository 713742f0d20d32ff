//! A decoder-only transformer of the GPT-2 kind.
//!
//! ```text
//! x = E[ids] + P[0..T]                                 (B, T, C)
//! each block:  x = x + proj(attention(qkv(ln_1(x))))
//!              x = x + out(f(fc(ln_2(x))))
//! logits = ln_f(x)·Eᵀ                                  (B, T, V), the head tied to the token embedding
//! ```
//! Parameter names are Hugging Face's for GPT-2. The residual additions are fused into the norms that follow them, so a
//! block passes on its stream and what is still to be added to it.
//!
//! Sources: Radford et al. 2019 ("Language models are unsupervised multitask learners"); initialisation as there: normal
//! with deviation 0.02, and 0.02/√(2·layers) for the two projections into the stream.

use super::Cache;
use crate::error::{Error, Result};
use crate::nn::{Builder, Embedding, Linear, Norm};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::params::Decl;
use crate::rng::Purpose;
use crate::tape::{Tape, Var};
use crate::tensor::{Out, Spec, Tensor};
use serde_json::{Value, json};
use std::path::Path;

/// The shape of a [`Gpt`].
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// V: distinct tokens.
    pub vocab: usize,
    /// The longest sequence: learned positions.
    pub context: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// C: channels of the stream; a multiple of `heads`.
    pub d: usize,
    /// Whether linear layers and norms have biases.
    pub bias: bool,
    /// Between the two linear layers of a block.
    pub activation: Activation,
    /// The share of channels dropped after the embedding and after each part of a block, in training.
    pub dropout: f32,
}

impl GptConfig {
    /// Floating-point operations of one training step (forward and backward) a token: 6 for each weight of a matrix (the
    /// head included), and the causal half of attention's products.
    pub fn flops_per_token(&self, context: usize) -> f64 {
        let (c, layers) = (self.d as f64, self.layers as f64);
        let matrices = layers * 12.0 * c * c + self.vocab as f64 * c;
        6.0 * matrices + 6.0 * layers * context as f64 * c
    }

    /// The configuration as Hugging Face's `config.json` for GPT-2; what that lacks stands under `kiln`.
    pub fn to_json(&self) -> Value {
        let activation = match self.activation {
            Activation::GeluTanh => "gelu_new",
            _ => "gelu",
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
            "n_inner": 4 * self.d,
            "activation_function": activation,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
            "kiln": { "bias": self.bias },
        })
    }

    /// Reads what [`to_json`](GptConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(config: &Value, path: &Path) -> Result<GptConfig> {
        let bad = |field: &str, expected: &str, found: &Value| {
            Error::format(path, field, expected, found, "give a run or checkpoint that kiln train wrote")
        };
        let number = |field: &str| {
            let value = &config[field];
            value.as_u64().filter(|&n| n > 0).map(|n| n as usize).ok_or_else(|| bad(field, "a positive number", value))
        };
        if config["model_type"] != "gpt2" {
            return Err(bad("model_type", "\"gpt2\"", &config["model_type"]));
        }
        let activation = match config["activation_function"].as_str() {
            Some("gelu_new") => Activation::GeluTanh,
            Some("gelu") => Activation::GeluErf,
            _ => return Err(bad("activation_function", "\"gelu_new\" or \"gelu\"", &config["activation_function"])),
        };
        let config = GptConfig {
            vocab: number("vocab_size")?,
            context: number("n_positions")?,
            layers: number("n_layer")?,
            heads: number("n_head")?,
            d: number("n_embd")?,
            bias: config["kiln"]["bias"].as_bool().unwrap_or(true),
            activation,
            dropout: config["resid_pdrop"].as_f64().unwrap_or(0.0) as f32,
        };
        if !config.d.is_multiple_of(config.heads) {
            return Err(bad("n_embd", &format!("a multiple of n_head, {}", config.heads), &json!(config.d)));
        }
        Ok(config)
    }
}

/// Whether Hugging Face stores this parameter of GPT-2 as (in, out): its `Conv1D` layers, where kiln keeps (out, in).
pub fn is_transposed_in_files(name: &str) -> bool {
    [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"].iter().any(|end| name.ends_with(end))
}

/// The layers of the model; the values of its parameters are in a [`Params`](crate::params::Params).
pub struct Gpt {
    config: GptConfig,
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    last: Norm,
}

struct Block {
    ln_1: Norm,
    qkv: Linear,
    proj: Linear,
    ln_2: Norm,
    fc: Linear,
    out: Linear,
}

impl Gpt {
    /// The model, and the parameters that it needs.
    pub fn new(config: GptConfig) -> (Gpt, Vec<Decl>) {
        let GptConfig { vocab, context, layers, d, bias, .. } = config;
        let std = 0.02;
        let into_stream = std / (2.0 * layers as f32).sqrt();
        let mut p = Builder::default();
        let tokens = Embedding::new(&mut p, "wte", [vocab, d], std);
        let positions = Embedding::new(&mut p, "wpe", [context, d], std);
        let norm = |p: &mut Builder, name: &str| Norm::new(p, name, NormKind::Layer, d, bias, 1e-5);
        let block = |i: usize| Block {
            ln_1: norm(&mut p, &format!("h.{i}.ln_1")),
            qkv: Linear::new(&mut p, &format!("h.{i}.attn.c_attn"), [d, 3 * d], bias, std),
            proj: Linear::new(&mut p, &format!("h.{i}.attn.c_proj"), [d, d], bias, into_stream),
            ln_2: norm(&mut p, &format!("h.{i}.ln_2")),
            fc: Linear::new(&mut p, &format!("h.{i}.mlp.c_fc"), [d, 4 * d], bias, std),
            out: Linear::new(&mut p, &format!("h.{i}.mlp.c_proj"), [4 * d, d], bias, into_stream),
        };
        let blocks = (0..layers).map(block).collect();
        let last = norm(&mut p, "ln_f");
        (Gpt { config, tokens, positions, blocks, last }, p.finish())
    }

    /// The shape of the model.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// ids (B, T), the first of them at position `start`, to the normalised stream (B, T, C) that the head reads.
    /// `attend(i, qkv)` is the attention of block i.
    fn stream<'t>(&self, ids: Var<'t>, start: usize, mut attend: impl FnMut(usize, Var<'t>) -> Var<'t>) -> Var<'t> {
        let tape = ids.tape();
        let mut positions = self.positions.table(tape);
        if start > 0 {
            let rest = [self.config.context - start, self.config.d];
            positions = tape.constant(positions.value().view(start * self.config.d, rest));
        }
        let drop = |x: Var<'t>| match self.config.dropout {
            0.0 => x,
            p => x.dropout(p, tape.stream(Purpose::Dropout)),
        };
        let mut x = drop(ids.embedding(self.tokens.table(tape), Some(positions)));
        let mut rest = None;
        for (i, block) in self.blocks.iter().enumerate() {
            let [stream, add] = tape.scope(|| {
                let (n, x) = block.ln_1.apply(x, rest);
                let a = attend(i, block.qkv.apply(n));
                let (n, x) = block.ln_2.apply(x, Some(drop(block.proj.apply(a))));
                let m = block.fc.apply_with(n, Some(self.config.activation));
                [x, drop(block.out.apply(m))]
            });
            (x, rest) = (stream, Some(add));
        }
        self.last.apply(x, rest).0
    }

    /// [`stream`](Gpt::stream) of whole sequences, recorded.
    fn whole<'t>(&self, ids: Var<'t>) -> Var<'t> {
        self.stream(ids, 0, |_, qkv| qkv.attention(self.config.heads, self.config.heads))
    }

    /// [`stream`](Gpt::stream) of ids (B, T) that go on from what `cache` holds, and are added to it.
    fn continued<'t>(&self, tape: &'t Tape, ids: Tensor, cache: &mut Cache) -> Var<'t> {
        let (start, t) = (cache.len(), ids.shape()[1]);
        assert!(start + t <= cache.room(), "{t} tokens more than {start}, with room for {}", cache.room());
        let stream = self.stream(tape.constant(ids), start, |layer, qkv| cache.attend(layer, qkv));
        cache.advance(t);
        stream
    }

    /// The mean negative log-likelihood of `targets` (B, T) after `ids` (B, T); `weights` and `norm` as in
    /// [`LinearXent`](crate::ops::linear_xent::LinearXent).
    pub fn loss<'t>(&self, ids: Var<'t>, targets: Var<'t>, weights: Option<Var<'t>>, norm: Option<f32>) -> Var<'t> {
        self.whole(ids).linear_xent(self.tokens.table(ids.tape()), targets, weights, norm)
    }

    /// The logits (B, T, V) of the token after each position.
    pub fn logits<'t>(&self, ids: Var<'t>) -> Var<'t> {
        self.whole(ids).linear(self.tokens.table(ids.tape()), None)
    }

    /// [`logits`](Gpt::logits) of ids (B, T) that go on from what `cache` holds, and are added to it; without gradients.
    /// The same bits as those of all tokens at once.
    ///
    /// # Panics
    /// The cache is for another shape or number of sequences, or has no room for T more tokens.
    pub fn logits_cached(&self, tape: &Tape, ids: Tensor, cache: &mut Cache) -> Tensor {
        tape.no_grad(|| self.continued(tape, ids, cache).linear(self.tokens.table(tape), None).value())
    }

    /// The last row of [`logits_cached`](Gpt::logits_cached) for each sequence, (B, V): what the token after `ids` is chosen
    /// from.
    pub fn next_logits(&self, tape: &Tape, ids: Tensor, cache: &mut Cache) -> Tensor {
        let (b, t, c) = (ids.shape()[0], ids.shape()[1], self.config.d);
        tape.no_grad(|| {
            let stream = self.continued(tape, ids, cache).value();
            let mut last = Out::new(tape.device(), Spec::f32([b, c]));
            for (last, rows) in last.f32_mut().chunks_exact_mut(c).zip(stream.f32().chunks_exact(t * c)) {
                last.copy_from_slice(&rows[(t - 1) * c..]);
            }
            tape.constant(last.freeze()).linear(self.tokens.table(tape), None).value()
        })
    }
}
