//! What a [`Gpt`](super::Gpt) is made of, and how large that is.

use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::ops::rope::RopeScaling;

/// The parts and sizes of a [`Gpt`](super::Gpt). [`gpt2`](GptConfig::gpt2) and [`llama`](GptConfig::llama) give the two
/// usual sets of parts.
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// V: distinct tokens.
    pub vocab: usize,
    /// The longest sequence.
    pub context: usize,
    /// Blocks.
    pub layers: usize,
    /// H: attention heads.
    pub heads: usize,
    /// Hkv: heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// C: channels of the stream.
    pub d: usize,
    /// D: channels of a head; mostly C / H.
    pub head_dim: usize,
    /// The width inside an MLP.
    pub hidden: usize,
    /// How the model knows where a token stands.
    pub positions: Positions,
    /// The norm before each part of a block and before the head.
    pub norm: NormKind,
    /// Added to the variance (the mean square) in norms.
    pub eps: f64,
    /// The second part of a block.
    pub mlp: Mlp,
    /// Whether linear layers (the head excepted) and LayerNorms have biases.
    pub bias: bool,
    /// Whether the head is the token embedding.
    pub tied: bool,
    /// The share of channels dropped after the embedding and after each part of a block, in training.
    pub dropout: f32,
}

/// How a model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector for each position, added to the embedding.
    Learned,
    /// Queries and keys are turned by their position.
    Rope {
        /// The base of the wavelengths.
        theta: f64,
        /// How they are stretched.
        scaling: RopeScaling,
    },
}

/// The second part of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mlp {
    /// out(f(up(x))).
    Plain(Activation),
    /// out(silu(gate(x)) · up(x)).
    SwiGlu,
}

impl Mlp {
    /// What is applied to up(x) alone.
    pub fn activation(self) -> Option<Activation> {
        match self {
            Mlp::Plain(f) => Some(f),
            Mlp::SwiGlu => None,
        }
    }
}

/// The sizes that every kind of model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// V: distinct tokens.
    pub vocab: usize,
    /// The longest sequence.
    pub context: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// C: channels of the stream.
    pub d: usize,
}

impl GptConfig {
    /// GPT-2's parts: learned positions, LayerNorm, GELU (tanh) between 4·C channels, biases, tied head.
    pub fn gpt2(Size { vocab, context, layers, heads, d }: Size) -> GptConfig {
        GptConfig {
            vocab,
            context,
            layers,
            heads,
            kv_heads: heads,
            d,
            head_dim: d.checked_div(heads).unwrap_or(0),
            hidden: 4 * d,
            positions: Positions::Learned,
            norm: NormKind::Layer,
            eps: 1e-5,
            mlp: Mlp::Plain(Activation::GeluTanh),
            bias: true,
            tied: true,
            dropout: 0.0,
        }
    }

    /// Llama's parts: RoPE, RMSNorm, SwiGLU of about 8/3·C channels (so that its three matrices are as large as the two
    /// of a plain MLP), no biases, a head of its own; as many heads of keys and values as of queries.
    pub fn llama(size: Size) -> GptConfig {
        GptConfig {
            hidden: (8 * size.d).div_ceil(3).next_multiple_of(32),
            positions: Positions::Rope { theta: 10_000.0, scaling: RopeScaling::None },
            norm: NormKind::Rms,
            mlp: Mlp::SwiGlu,
            bias: false,
            tied: false,
            ..GptConfig::gpt2(size)
        }
    }

    /// The rows of a packed q‖k‖v matrix, of each of the three.
    pub fn qkv_parts(&self) -> [usize; 3] {
        [self.heads, self.kv_heads, self.kv_heads].map(|heads| heads * self.head_dim)
    }

    /// Elements of the matrices of a block, and of the vectors beside them. Floats, because settings may be absurd.
    fn block(&self) -> (f64, f64) {
        let [c, heads, kv_heads, dim, hidden] =
            [self.d, self.heads, self.kv_heads, self.head_dim, self.hidden].map(|n| n as f64);
        let into_hidden = if self.mlp == Mlp::SwiGlu { 2.0 } else { 1.0 };
        let (q, kv) = (heads * dim, kv_heads * dim);
        let matrices = c * (q + 2.0 * kv) + q * c + (into_hidden + 1.0) * c * hidden;
        let biases = if self.bias { q + 2.0 * kv + c + into_hidden * hidden + c } else { 0.0 };
        (matrices, 2.0 * self.norm_parameters() + biases)
    }

    fn norm_parameters(&self) -> f64 {
        let bias = self.bias && self.norm == NormKind::Layer;
        self.d as f64 * if bias { 2.0 } else { 1.0 }
    }

    /// The number of parameters, as a float because the settings may be absurd.
    pub fn parameters(&self) -> f64 {
        let [v, t, l, c] = [self.vocab, self.context, self.layers, self.d].map(|n| n as f64);
        let (matrices, vectors) = self.block();
        let positions = if self.positions == Positions::Learned { t * c } else { 0.0 };
        let tables = if self.tied { v * c } else { 2.0 * v * c };
        tables + positions + l * (matrices + vectors) + self.norm_parameters()
    }

    /// Floating-point operations of one training step (forward and backward) a token: 6 for each weight of a matrix (the
    /// head included), and the causal half of attention's products.
    pub fn flops_per_token(&self, context: usize) -> f64 {
        let [layers, heads, dim] = [self.layers, self.heads, self.head_dim].map(|n| n as f64);
        let matrices = layers * self.block().0 + self.vocab as f64 * self.d as f64;
        6.0 * matrices + 6.0 * layers * context as f64 * heads * dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Gpt;

    #[test]
    fn parameters_are_counted_as_the_model_declares_them() {
        let size = Size { vocab: 8192, context: 256, layers: 4, heads: 4, d: 256 };
        let (gpt2, llama) = (GptConfig::gpt2(size), GptConfig::llama(size));
        let configs = [
            GptConfig { bias: false, ..gpt2.clone() },
            GptConfig { tied: false, hidden: 1000, ..gpt2.clone() },
            GptConfig { kv_heads: 2, ..llama.clone() },
            GptConfig { head_dim: 24, bias: true, ..llama.clone() },
            GptConfig { tied: true, bias: true, kv_heads: 1, hidden: 96, ..llama.clone() },
            gpt2,
            llama,
        ];
        for config in configs {
            let (_, decls) = Gpt::new(config.clone());
            let numel: usize = decls.iter().map(|decl| decl.shape.numel()).sum();
            assert_eq!(config.parameters(), numel as f64, "{config:?}");
        }
    }

    #[test]
    fn a_step_costs_six_operations_a_weight_and_token() {
        let size = Size { vocab: 100, context: 64, layers: 3, heads: 4, d: 32 };
        for config in [GptConfig::gpt2(size), GptConfig { kv_heads: 2, ..GptConfig::llama(size) }] {
            let (_, decls) = Gpt::new(config.clone());
            let matrix = |decl: &&crate::params::Decl| decl.kind == crate::params::Kind::Matrix;
            let weights: usize = decls.iter().filter(matrix).map(|decl| decl.shape.numel()).sum();
            assert_eq!(config.flops_per_token(0), 6.0 * (weights + 100 * 32) as f64);
        }
    }
}
