//! `[model]`: which model is trained.

use super::{Architecture, Section, TEXT, Train, range, require};
use crate::error::{Error, Result};
use crate::model::{GptConfig, Mlp, Positions, Size};
use crate::ops;
use crate::ops::rope;
use crate::settings::Schema;
use crate::train::fit::Family;
use crate::train::fit::remedy::below;
use serde::{Deserialize, Serialize};

/// The default of `model.base_d`.
const BASE_D: usize = 64;

/// `[model]`. Absent keys are as the kind has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The architecture.
    pub kind: ModelKind,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads in a block; divides `d`.
    pub heads: usize,
    /// Width of the residual stream.
    pub d: usize,
    /// Probability with which an activation is dropped in training.
    pub dropout: f32,
    /// Whether learning rate and initial values are those of a model of width `base_d`, scaled to this one's
    /// ([`mup`](crate::model::mup)).
    pub mup: bool,
    /// The width at which nothing is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_d: Option<usize>,
    /// Width inside the MLP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// Whether linear layers and LayerNorms have biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<bool>,
    /// Whether the head is the token embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// The nonlinearity of GPT-2's MLP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Llama's heads of keys and values; divides `heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// The base of RoPE's wavelengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// How RoPE's wavelengths are stretched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
}

/// `model.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// LayerNorm before each part, learned positions, GELU, head tied to the token embedding.
    Gpt2,
    /// RMSNorm before each part, RoPE, SwiGLU, grouped heads of keys and values, no biases, a head of its own.
    Llama,
}

/// `model.activation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by erf.
    Gelu,
}

/// `model.rope_scaling`, with the names of Hugging Face's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
#[serde(expecting = "a table, as { rope_type = \"linear\", factor = 2.0 }")]
pub enum RopeScaling {
    /// All wavelengths times a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: long waves times the factor, short ones kept.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Waves longer than the original context divided by this are long.
        low_freq_factor: f64,
        /// Waves shorter than the original context divided by this are short.
        high_freq_factor: f64,
        /// The original context.
        original_max_position_embeddings: u64,
    },
}

impl Model {
    /// The width of the model for which learning rate and initial values are as they are written, where this one has its own.
    pub fn base(&self) -> Option<usize> {
        self.mup.then_some(self.base_d.unwrap_or(BASE_D))
    }

    /// The model over `vocab` tokens, with sequences of at most `context`.
    pub fn config(&self, vocab: usize, context: usize) -> GptConfig {
        let Model { layers, heads, d, .. } = *self;
        let size = Size { vocab, context, layers, heads, d };
        let base = match self.kind {
            ModelKind::Gpt2 => GptConfig::gpt2(size),
            ModelKind::Llama => GptConfig::llama(size),
        };
        let positions = match base.positions {
            Positions::Rope { theta, scaling } => Positions::Rope {
                theta: self.rope_theta.unwrap_or(theta),
                scaling: self.rope_scaling.map_or(scaling, RopeScaling::into),
            },
            learned => learned,
        };
        GptConfig {
            kv_heads: self.kv_heads.unwrap_or(base.kv_heads),
            hidden: self.hidden.unwrap_or(base.hidden),
            bias: self.bias.unwrap_or(base.bias),
            tied: self.tied.unwrap_or(base.tied),
            mlp: self.activation.map_or(base.mlp, |f| Mlp::Plain(f.into())),
            dropout: self.dropout,
            positions,
            ..base
        }
    }
}

impl Section for Model {
    /// Also that each key belongs to the kind.
    fn check(&self, _: &Train) -> Result<()> {
        range("model.layers", self.layers, 1..=1024)?;
        range("model.heads", self.heads, 1..=1024)?;
        range("model.d", self.d, 1..=65_536)?;
        let (d, heads) = (self.d, self.heads);
        let llama = self.kind == ModelKind::Llama;
        // RoPE turns pairs of channels.
        let unit = if llama { 2 * heads } else { heads };
        if !d.is_multiple_of(unit) {
            let down = (d / unit).max(1) * unit;
            let what = if llama { " with an even number of channels each" } else { "" };
            let problem = format!("a width of {d} cannot be divided among {heads} heads{what}");
            return Err(Error::config("model.d", problem, format!("try model.d = {down} or {}", down + unit)));
        }
        require((0.0..1.0).contains(&self.dropout), "model.dropout", self.dropout, "a number from 0 to below 1")?;
        if let Some(base) = self.base_d {
            range("model.base_d", base, 1..=65_536)?;
            if !self.mup {
                let problem = "nothing is scaled from another width without model.mup";
                return Err(Error::config("model.base_d", problem, "add model.mup = true, or leave it out"));
            }
        }
        if let Some(hidden) = self.hidden {
            range("model.hidden", hidden, 1..=1_048_576)?;
        }
        let foreign = |key: &str, there: bool, problem: &str| match there {
            true => Err(Error::config(key, problem, "leave it out, or choose another model.kind")),
            false => Ok(()),
        };
        let positions = "gpt2 learns its positions and has no RoPE";
        foreign("model.activation", llama && self.activation.is_some(), "llama's MLP is SwiGLU")?;
        foreign("model.kv_heads", !llama && self.kv_heads.is_some(), "gpt2 has keys and values for each head")?;
        foreign("model.rope_theta", !llama && self.rope_theta.is_some(), positions)?;
        foreign("model.rope_scaling", !llama && self.rope_scaling.is_some(), positions)?;
        if let Some(kv_heads) = self.kv_heads {
            let expected = format!("a divisor of model.heads, which is {heads}");
            require(kv_heads > 0 && heads.is_multiple_of(kv_heads), "model.kv_heads", kv_heads, expected)?;
        }
        if let Some(theta) = self.rope_theta {
            require(theta.is_finite() && theta > 1.0, "model.rope_theta", theta, "a finite number above 1")?;
        }
        self.rope_scaling.map_or(Ok(()), RopeScaling::validate)
    }

    fn fixed(&self, train: &Train) -> Vec<(&'static str, String)> {
        let config = self.config(0, train.context);
        let (theta, scaling) = match config.positions {
            Positions::Rope { theta, scaling } => (theta.to_string(), format!("{scaling:?}")),
            Positions::Learned => Default::default(),
        };
        vec![
            ("model.kind", format!("{:?}", self.kind)),
            ("model.layers", config.layers.to_string()),
            ("model.heads", config.heads.to_string()),
            ("model.kv_heads", config.kv_heads.to_string()),
            ("model.d", config.d.to_string()),
            ("model.hidden", config.hidden.to_string()),
            ("model.bias", config.bias.to_string()),
            ("model.tied", config.tied.to_string()),
            ("model.activation", format!("{:?}", config.mlp)),
            ("model.rope_theta", theta),
            ("model.rope_scaling", scaling),
            ("model.mup", format!("{:?}", self.base())),
            ("train.context", train.context.to_string()),
        ]
    }
}

impl Architecture for Model {
    const SCHEMA: Schema = TEXT;

    fn smaller(&self, train: &Train) -> Vec<Family> {
        let unit = if self.kind == ModelKind::Llama { 2 * self.heads } else { self.heads };
        let halves = std::iter::successors(Some(train.context / 2), |n| Some(n / 2)).take_while(|n| *n >= 16);
        vec![
            Family::of("the model sees less of what came before", "train.context", halves),
            Family::of("a shallower model", "model.layers", (1..self.layers).rev()),
            Family::of("a narrower model", "model.d", below(self.d, unit)),
        ]
    }
}

impl RopeScaling {
    fn validate(self) -> Result<()> {
        let check = |key: &str, value: f64, holds: bool, expected: &str| {
            require(value.is_finite() && holds, &format!("model.rope_scaling.{key}"), value, expected)
        };
        let factor = |factor: f64| check("factor", factor, factor >= 1.0, "a finite number, 1 or more");
        match self {
            RopeScaling::Linear { factor: f } => factor(f),
            RopeScaling::Llama3 {
                factor: f,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                factor(f)?;
                check("low_freq_factor", low, low > 0.0, "a finite number above 0")?;
                check("high_freq_factor", high, high > low, "a finite number above low_freq_factor")?;
                range("model.rope_scaling.original_max_position_embeddings", original, 1..=1_000_000_000)
            }
        }
    }
}

impl From<RopeScaling> for rope::RopeScaling {
    fn from(scaling: RopeScaling) -> rope::RopeScaling {
        match scaling {
            RopeScaling::Linear { factor } => rope::RopeScaling::Linear(factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => rope::RopeScaling::Llama3 { factor, low, high, original: original as f64 },
        }
    }
}

impl From<Activation> for ops::activation::Activation {
    fn from(activation: Activation) -> ops::activation::Activation {
        match activation {
            Activation::Gelu => ops::activation::Activation::GeluErf,
            Activation::GeluTanh => ops::activation::Activation::GeluTanh,
        }
    }
}
