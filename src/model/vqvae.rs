//! A vector-quantised autoencoder: pictures x (B, H, W, C) to a grid of ids (B, h·w) of K codes, and back. So pictures become
//! tokens.
//!
//! ```text
//! z = out(down(x))                                  (B, h, w, D)      down, up as in vae.rs; h = H / 2^channels
//! ids = the nearest codes of z, q = those codes     see ops/quantize.rs
//! x' = up(relu(in(q)))                              p(x|q), see Likelihood
//! loss = 1/B Σ −log p(x|q) + β Σ (z − q)²           q constant in the second term: the commitment of the encoder
//! ```
//! out is 1 × 1, in 3 × 3 with padding 1. The gradient of q goes straight through to z; the codebook follows z by moving
//! averages, and codes that are not used begin anew. Codebook, counts and sums are buffers, which move in training passes.
//!
//! Source: van den Oord, Vinyals, Kavukcuoglu 2017 (arXiv 1711.00937).

use super::fields::{self, Wrong};
use super::vae::{Likelihood, ladder};
use crate::error::Result;
use crate::nn::{Builder, Conv, Start};
use crate::ops::activation::Activation;
use crate::ops::conv::Window;
use crate::ops::loss::LossKind;
use crate::ops::quantize::Move;
use crate::params::{Decl, Init, Kind, ParamId};
use crate::rng::Purpose;
use crate::tape::Var;
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The parts and sizes of a [`VqVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VqVaeConfig {
    /// Height, width and channels of pictures.
    pub shape: [usize; 3],
    /// Channels of the convolutions, the first nearest to the picture; each halves height and width. One at least.
    pub channels: Vec<usize>,
    /// K: codes.
    pub codes: usize,
    /// D: the width of a code.
    pub width: usize,
    /// β: what the commitment counts.
    pub commitment: f32,
    /// γ: what is kept of the codebook's averages in a step.
    pub decay: f32,
    /// What the decoder says of a pixel.
    pub likelihood: Likelihood,
}

impl VqVaeConfig {
    /// 128 codes of 32 numbers for each 4 × 4 pixels of pictures of this shape.
    pub fn new(shape: [usize; 3]) -> VqVaeConfig {
        let channels = vec![32, 64];
        let likelihood = Likelihood::Bernoulli;
        VqVaeConfig { shape, channels, codes: 128, width: 32, commitment: 0.25, decay: 0.99, likelihood }
    }

    /// Whether there is such a model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        fields::shape(self.shape)?;
        fields::halving("channels", &self.channels, self.shape)?;
        fields::require(!self.channels.is_empty(), "channels", "one at least")?;
        fields::count("codes", self.codes)?;
        fields::count("width", self.width)?;
        fields::require((0.0..=1e3).contains(&self.commitment), "commitment", "0 to 1000")?;
        fields::require((0.0..1.0).contains(&self.decay), "decay", "0 to 1, below 1")?;
        self.likelihood.check()
    }

    /// As `config.json`.
    pub fn to_json(&self) -> Value {
        fields::to_json("vqvae", self)
    }

    /// Reads what [`to_json`](VqVaeConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(json: &Value, path: &Path) -> Result<VqVaeConfig> {
        fields::from_json("vqvae", json, path, VqVaeConfig::check)
    }

    /// Height and width of the grid of ids.
    pub fn grid(&self) -> [usize; 2] {
        let [h, w, _] = self.shape;
        [h >> self.channels.len(), w >> self.channels.len()]
    }
}

/// The layers of the model; the values of its parameters are in a [`Params`](crate::params::Params).
pub struct VqVae {
    config: VqVaeConfig,
    down: Vec<Conv>,
    out: Conv,
    into: Conv,
    up: Vec<Conv>,
    /// Codes (K, D), their counts (K) and sums (K, D).
    buffers: [ParamId; 3],
}

/// A loss and its parts, scalars, averaged over the batch; and the ids.
#[derive(Clone, Copy)]
pub struct Quantised<'t> {
    /// What is minimised: `reconstruction + β·commitment`.
    pub loss: Var<'t>,
    /// −log p(x|q), without what is the same for all pictures ([`Likelihood::constant`]).
    pub reconstruction: Var<'t>,
    /// Σ (z − q)² of a picture.
    pub commitment: Var<'t>,
    /// The ids (B, h·w), for [`perplexity`].
    pub ids: Var<'t>,
}

impl VqVae {
    /// Uses of a code in a batch, on average, below which it begins anew.
    const DEAD: f32 = 1.0;

    /// The model, and the parameters that it needs. The configuration [holds](VqVaeConfig::check).
    pub fn new(config: VqVaeConfig) -> (VqVae, Vec<Decl>) {
        let VqVaeConfig { shape, codes, width, .. } = config;
        let mut p = Builder::default();
        let last = *config.channels.last().expect("one at least");
        let conv = |p: &mut Builder, name, sizes, kernel| {
            Conv::new(p, name, Window::conv(1, kernel / 2), sizes, kernel, true, Start::Uniform)
        };
        let down = ladder(&mut p, "enc", shape[2], &config.channels, false);
        let out = conv(&mut p, "enc.out", [last, width], 1);
        let mut buffer = |name: &str, shape: &[usize], init| {
            p.param(format!("codebook.{name}"), Shape::new(shape), Kind::Buffer, init)
        };
        let codebook = buffer("weight", &[codes, width], Init::Uniform(1.0 / codes as f32));
        let buffers = [codebook, buffer("counts", &[codes], Init::Zeros), buffer("sums", &[codes, width], Init::Zeros)];
        let into = conv(&mut p, "dec.in", [width, last], 3);
        let up = ladder(&mut p, "dec", shape[2], &config.channels, true);
        (VqVae { config, down, out, into, up, buffers }, p.finish())
    }

    /// The shape of the model.
    pub fn config(&self) -> &VqVaeConfig {
        &self.config
    }

    /// x (B, H, W, C) from 0 to 1 to z (B, h, w, D).
    fn latent<'t>(&self, x: Var<'t>) -> Var<'t> {
        let x = self.down.iter().fold(x, |x, conv| conv.apply(x, Some(Activation::Relu)));
        self.out.apply(x, None)
    }

    /// q (B, h, w, D) to what is said of the pixels.
    fn pixels<'t>(&self, q: Var<'t>) -> Var<'t> {
        let relu = Some(Activation::Relu);
        let x = self.into.apply(q, relu);
        let last = self.up.len() - 1;
        self.up.iter().enumerate().fold(x, |x, (i, conv)| conv.apply(x, relu.filter(|_| i != last)))
    }

    /// x (B, H, W, C) from 0 to 1 to ids (B, h·w), row by row.
    pub fn encode<'t>(&self, x: Var<'t>) -> Var<'t> {
        let ([h, w], tape) = (self.config.grid(), x.tape());
        let [_, ids] = self.latent(x.cast(tape.activations())).nearest(tape.buffer(self.buffers[0]));
        ids.reshape([x.shape()[0], h * w])
    }

    /// ids (B, h·w) to what is said of the pixels (B, H, W, C): logits or means.
    pub fn decode<'t>(&self, ids: Var<'t>) -> Var<'t> {
        let [h, w] = self.config.grid();
        let q = ids.embedding(ids.tape().buffer(self.buffers[0]), None, 0);
        self.pixels(q.reshape([ids.shape()[0], h, w, self.config.width]))
    }

    /// The picture that [`decode`](VqVae::decode) speaks of, each pixel's mean.
    pub fn picture<'t>(&self, decoded: Var<'t>) -> Var<'t> {
        self.config.likelihood.picture(decoded)
    }

    /// The loss of pictures x (B, H, W, C). In a training pass the codebook moves.
    pub fn loss<'t>(&self, x: Var<'t>) -> Quantised<'t> {
        let tape = x.tape();
        let x = x.cast(tape.activations());
        let z = self.latent(x);
        let [codebook, counts, sums] = self.buffers.map(|id| tape.buffer(id));
        let [q, ids] = z.nearest(codebook);
        if tape.pass().training {
            let stream = tape.stream(Purpose::Latent);
            let op = Move { decay: self.config.decay, dead: VqVae::DEAD, stream };
            let moved = z.move_codes(ids, [counts, sums], op);
            self.buffers.into_iter().zip(moved).for_each(|(id, value)| tape.update(id, value));
        }
        let reconstruction = self.config.likelihood.nll(self.pixels(q), x).mean();
        let commitment = z.loss(LossKind::Square, tape.constant(q.value())).mean();
        let ids = ids.reshape([x.shape()[0], self.config.grid().iter().product()]);
        Quantised { loss: reconstruction + commitment.scale(self.config.commitment), reconstruction, commitment, ids }
    }
}

/// How many of `codes` codes these ids use, evenly used ones counted whole: exp of the entropy of their shares.
pub fn perplexity(ids: &[i32], codes: usize) -> f64 {
    let mut counts = vec![0u32; codes];
    ids.iter().for_each(|&id| counts[id as usize] += 1);
    let shares = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / ids.len() as f64);
    libm::exp(-shares.map(|p| p * libm::log(p)).sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_counts_codes() {
        assert_eq!(perplexity(&[3, 3, 3], 4), 1.0);
        assert!((perplexity(&[0, 1, 2, 3, 0, 1, 2, 3], 9) - 4.0).abs() < 1e-12);
    }
}
