//! A variational autoencoder of pictures x (B, H, W, C): fully connected, or convolutional.
//!
//! ```text
//! h = relu(fc(down(x)) )                mu, logvar = the halves of stats(h)        q(z|x) = N(mu, exp(logvar)), (B, L)
//! x' = up(relu(out(relu(fc(z)))))                                                  p(x|z), see Likelihood
//! loss = 1/B Σ −log p(x|z) + β KL(q(z|x), N(0, 1)),   z drawn from q(z|x)          with free bits, see ops/kl.rs
//!
//! down  for each of `channels`: relu(conv, 4 × 4, stride 2, padding 1)    up   the same back, transposed; the last without relu
//! ```
//! Without `channels` that is the VAE of PyTorch's examples: 784-400-(20, 20)-400-784. With 32, 64 and a hidden layer of 256,
//! pictures of 28 × 28 go by 14 × 14 × 32 and 7 × 7 × 64 to 256, to 20 and back.
//!
//! With `classes`, `E[label]` is added to `fc` in both halves before its relu, which is what one-hot labels beside x and beside
//! z do (Sohn, Lee, Yan 2015, "Learning structured output representation using deep conditional generative models").
//!
//! Sources: Kingma, Welling 2013 (arXiv 1312.6114); Higgins et al. 2017 for β; Burda et al. 2015 (arXiv 1509.00519) for
//! [`Vae::iwae`].

use super::fields::{self, Wrong};
use crate::error::Result;
use crate::nn::{Builder, Conv, Embedding, Linear, Start};
use crate::ops::activation::Activation;
use crate::ops::conv::Window;
use crate::ops::loss::LossKind;
use crate::params::{Decl, Stored};
use crate::rng::Purpose;
use crate::tape::Var;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The parts and sizes of a [`Vae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Height, width and channels of pictures.
    pub shape: [usize; 3],
    /// Channels of the convolutions, the first nearest to the picture; each halves height and width. None: no convolutions.
    pub channels: Vec<usize>,
    /// The width of the hidden layer.
    pub hidden: usize,
    /// L: latent variables.
    pub latent: usize,
    /// What the decoder says of a pixel.
    pub likelihood: Likelihood,
    /// The number of classes, where pictures have labels.
    pub classes: Option<usize>,
}

/// What a decoder says of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Likelihood {
    /// The logit of its brightness, from 0 to 1, taken as a probability.
    Bernoulli,
    /// Its mean; the deviation is this, the same for all. One that is learnt as well grows without bound where pixels are
    /// always black.
    Gaussian(f64),
}

impl Likelihood {
    /// Whether there is such a one.
    pub(super) fn check(self) -> Result<(), Wrong> {
        let holds = match self {
            Likelihood::Bernoulli => true,
            Likelihood::Gaussian(std) => (1e-3..=1e3).contains(&std),
        };
        fields::require(holds, "likelihood", "\"bernoulli\", or a deviation of 0.001 to 1000")
    }

    /// Each pixel's mean: with Bernoulli from 0 to 1, with Gaussian about so.
    pub(super) fn picture(self, decoded: Var<'_>) -> Var<'_> {
        match self {
            Likelihood::Bernoulli => decoded.sigmoid(),
            Likelihood::Gaussian(_) => decoded,
        }
    }

    /// −log p(x|decoded) of each picture (B), but for the constant.
    pub(super) fn nll<'t>(self, decoded: Var<'t>, x: Var<'t>) -> Var<'t> {
        match self {
            Likelihood::Bernoulli => decoded.loss(LossKind::Bce, x),
            Likelihood::Gaussian(std) => decoded.loss(LossKind::Square, x).scale((0.5 / (std * std)) as f32),
        }
    }

    /// What −log p without its constant lacks for a picture of so many values: n (log σ + ½ log 2π) for a Gaussian, else 0.
    pub fn constant(self, shape: [usize; 3]) -> f64 {
        match self {
            Likelihood::Bernoulli => 0.0,
            Likelihood::Gaussian(std) => {
                let values = shape.iter().product::<usize>() as f64;
                values * (libm::log(std) + 0.5 * libm::log(std::f64::consts::TAU))
            }
        }
    }
}

impl VaeConfig {
    /// The VAE of PyTorch's examples for pictures of this shape: one hidden layer of 400, 20 latent variables.
    pub fn mlp(shape: [usize; 3]) -> VaeConfig {
        let likelihood = Likelihood::Bernoulli;
        VaeConfig { shape, channels: Vec::new(), hidden: 400, latent: 20, likelihood, classes: None }
    }

    /// A convolutional one: 32 and 64 channels, a hidden layer of 256, 20 latent variables.
    pub fn conv(shape: [usize; 3]) -> VaeConfig {
        VaeConfig { channels: vec![32, 64], hidden: 256, ..VaeConfig::mlp(shape) }
    }

    /// Whether there is such a model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        fields::shape(self.shape)?;
        fields::halving("channels", &self.channels, self.shape)?;
        fields::count("hidden", self.hidden)?;
        fields::count("latent", self.latent)?;
        self.likelihood.check()?;
        fields::classes(self.classes)
    }

    /// As `config.json`.
    pub fn to_json(&self) -> Value {
        fields::to_json("vae", self)
    }

    /// Reads what [`to_json`](VaeConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(json: &Value, path: &Path) -> Result<VaeConfig> {
        fields::from_json("vae", json, path, VaeConfig::check)
    }

    /// Floating-point operations of a training step for one picture: three passes, the first layer's input without a gradient.
    pub fn flops(&self) -> f64 {
        let [h, w, c] = self.shape;
        let flat: usize = self.grid().iter().product();
        let widths: Vec<usize> = [c].into_iter().chain(self.channels.iter().copied()).collect();
        let conv = |(i, pair): (usize, &[usize])| ((h * w) >> (2 * i + 2) << 4) * pair[0] * pair[1];
        let convs: Vec<usize> = widths.windows(2).enumerate().map(conv).collect();
        let layers = 2 * convs.iter().sum::<usize>() + 2 * flat * self.hidden + 3 * self.hidden * self.latent;
        let first = convs.first().copied().unwrap_or(flat * self.hidden);
        2.0 * (3 * layers - first) as f64
    }

    /// Height, width and channels where convolutions end.
    fn grid(&self) -> [usize; 3] {
        let [h, w, c] = self.shape;
        let halves = self.channels.len();
        [h >> halves, w >> halves, self.channels.last().copied().unwrap_or(c)]
    }
}

/// A hidden layer, `relu(x·Wᵀ + b + E[label])`, without E where there are no labels.
struct Hidden {
    linear: Linear,
    labels: Option<Embedding>,
}

impl Hidden {
    fn new(p: &mut Builder, half: &str, [inner, out]: [usize; 2], classes: Option<usize>) -> Hidden {
        let linear = Linear::new(p, &format!("{half}.fc"), [inner, out], true, Start::Uniform);
        // The deviation of the weights beside it.
        let std = 1.0 / (3.0 * inner as f32).sqrt();
        Hidden { linear, labels: classes.map(|n| Embedding::new(p, &format!("{half}.labels"), [n, out], std)) }
    }

    fn apply<'t>(&self, x: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        match (self.labels, labels) {
            (None, None) => self.linear.apply_with(x, Some(Activation::Relu)),
            (Some(table), Some(labels)) => (self.linear.apply(x) + table.rows(labels)).relu(),
            (table, _) => panic!("labels are {}", if table.is_some() { "missing" } else { "given to a model without" }),
        }
    }
}

/// The layers of the model; the values of its parameters are in a [`Params`](crate::params::Params).
pub struct Vae {
    config: VaeConfig,
    down: Vec<Conv>,
    encoder: Hidden,
    stats: Linear,
    decoder: Hidden,
    out: Linear,
    up: Vec<Conv>,
}

/// A loss and its parts, each a scalar in nats a picture, averaged over the batch, but for the last.
#[derive(Clone, Copy)]
pub struct Elbo<'t> {
    /// What is minimised: `reconstruction + β·kl`. With β = 1 and no free bits, −ELBO.
    pub loss: Var<'t>,
    /// −log p(x|z), without [what is the same for all pictures](Vae::constant).
    pub reconstruction: Var<'t>,
    /// The divergence of q(z|x) from N(0, 1), each dimension at least the free bits.
    pub kl: Var<'t>,
    /// The divergence of each dimension (L).
    pub kl_dims: Var<'t>,
}

/// A convolution for each of `channels`, 4 × 4 and stride 2, which halves pictures of `c` channels; or the way back, transposed.
pub(super) fn ladder(p: &mut Builder, name: &str, c: usize, channels: &[usize], up: bool) -> Vec<Conv> {
    let mut widths: Vec<usize> = [c].into_iter().chain(channels.iter().copied()).collect();
    let window = if up { Window::transposed(2, 1, 0) } else { Window::conv(2, 1) };
    if up {
        widths.reverse();
    }
    let conv =
        |(i, w): (usize, &[usize])| Conv::new(p, &format!("{name}.{i}"), window, [w[0], w[1]], 4, true, Start::Uniform);
    widths.windows(2).enumerate().map(conv).collect()
}

/// Files hold mean and log of the variance as two layers.
fn store(mut decl: Decl) -> Decl {
    if decl.name.starts_with("enc.stats.") {
        decl.stored = Stored::Parts(["mu", "logvar"].map(|part| decl.name.replace("stats", part)).to_vec());
    }
    decl
}

impl Vae {
    /// The model, and the parameters that it needs. The configuration [holds](VaeConfig::check).
    pub fn new(config: VaeConfig) -> (Vae, Vec<Decl>) {
        let VaeConfig { shape, hidden, latent, classes, .. } = config;
        let mut builder = Builder::default();
        let p = &mut builder;
        let down = ladder(p, "enc", shape[2], &config.channels, false);
        let flat = config.grid().iter().product();
        let encoder = Hidden::new(p, "enc", [flat, hidden], classes);
        let stats = Linear::packed(p, "enc.stats", hidden, &[latent, latent], true, Start::Uniform);
        let decoder = Hidden::new(p, "dec", [latent, hidden], classes);
        let out = Linear::new(p, "dec.out", [hidden, flat], true, Start::Uniform);
        let up = ladder(p, "dec", shape[2], &config.channels, true);
        let decls = builder.finish().into_iter().map(store).collect();
        (Vae { config, down, encoder, stats, decoder, out, up }, decls)
    }

    /// The shape of the model.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// x (B, H, W, C) from 0 to 1, and labels (B) where the model has classes, to mean and log of the variance of z, (B, L)
    /// each.
    pub fn encode<'t>(&self, x: Var<'t>, labels: Option<Var<'t>>) -> [Var<'t>; 2] {
        let x = x.cast(x.tape().activations());
        let x = self.down.iter().fold(x, |x, conv| conv.apply(x, Some(Activation::Relu)));
        self.stats.apply(self.encoder.apply(x.flatten(), labels)).halves()
    }

    /// z (B, L), and labels (B), to what is said of the pixels (B, H, W, C): logits or means.
    pub fn decode<'t>(&self, z: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        let relu = Some(Activation::Relu);
        let [h, w, c] = self.config.grid();
        let x = self.decoder.apply(z, labels);
        let x = self.out.apply_with(x, relu.filter(|_| !self.up.is_empty())).reshape([z.shape()[0], h, w, c]);
        let last = self.up.len().wrapping_sub(1);
        self.up.iter().enumerate().fold(x, |x, (i, conv)| conv.apply(x, relu.filter(|_| i != last)))
    }

    /// The picture that [`decode`](Vae::decode) speaks of, each pixel's mean: with Bernoulli from 0 to 1, with Gaussian about so.
    pub fn picture<'t>(&self, decoded: Var<'t>) -> Var<'t> {
        self.config.likelihood.picture(decoded)
    }

    /// What `reconstruction` lacks to be −log p(x|z).
    pub fn constant(&self) -> f64 {
        self.config.likelihood.constant(self.config.shape)
    }

    /// The loss of pictures x (B, H, W, C), labels (B): z is drawn by the pass's next stream, the divergence counts `beta`
    /// (a scalar) times, and each of its dimensions `free` nats at least. β is a value on the tape because it changes from step
    /// to step where it is warmed up, and a step that a GPU recorded is given new values, not new numbers.
    pub fn loss<'t>(&self, x: Var<'t>, labels: Option<Var<'t>>, beta: Var<'t>, free: f32) -> Elbo<'t> {
        let x = x.cast(x.tape().activations());
        let [mu, logvar] = self.encode(x, labels);
        let z = mu.sample(logvar, x.tape().stream(Purpose::Latent));
        let reconstruction = self.config.likelihood.nll(self.decode(z, labels), x).mean();
        let (kl, kl_dims) = mu.gaussian_kl(logvar, free);
        Elbo { loss: reconstruction + kl * beta, reconstruction, kl, kl_dims }
    }

    /// A lower bound on log p(x) for each picture of x (B, H, W, C), tighter than the ELBO and the tighter the larger `k`:
    /// `log 1/k Σ p(x|z) p(z) / q(z|x)` over `k` draws of z. Nothing is recorded.
    pub fn iwae(&self, x: Var<'_>, labels: Option<Var<'_>>, k: usize) -> Vec<f64> {
        let (tape, latent) = (x.tape(), self.config.latent);
        let read = |v: Var| v.cast(DType::F32).value().read::<f32>().into_owned();
        tape.no_grad(|| {
            let x = x.cast(tape.activations());
            let [mu, logvar] = tape.scope(|| self.encode(x, labels));
            let (means, logvars) = (read(mu), read(logvar));
            // Of each picture: the largest logarithm so far, and the sum of all weights over that.
            let mut sums = vec![(f64::NEG_INFINITY, 0.0); x.shape()[0]];
            for _ in 0..k {
                let [z, nll] = tape.scope(|| {
                    let z = mu.sample(logvar, tape.stream(Purpose::Latent));
                    [z, self.config.likelihood.nll(self.decode(z, labels), x)]
                });
                let (z, nll) = (read(z), read(nll));
                for (b, (max, sum)) in sums.iter_mut().enumerate() {
                    // log p(z) − log q(z|x); log 2π cancels.
                    let dimension = |i: usize| {
                        let [z, mu, v] = [z[i], means[i], logvars[i]].map(f64::from);
                        0.5 * ((z - mu).powi(2) * libm::exp(-v) + v - z * z)
                    };
                    let prior: f64 = (b * latent..(b + 1) * latent).map(dimension).sum();
                    let weight = prior - f64::from(nll[b]);
                    let top = max.max(weight);
                    *sum = *sum * libm::exp(*max - top) + libm::exp(weight - top);
                    *max = top;
                }
            }
            sums.iter().map(|(max, sum)| max + libm::log(sum / k as f64) - self.constant()).collect()
        })
    }
}
