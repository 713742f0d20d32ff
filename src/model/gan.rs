//! A generator and a discriminator of pictures (B, H, W, C) from −1 to 1: a DCGAN, with or without classes.
//!
//! ```text
//! side = s·2^k, s 4 or 7        widths: g, 2g, … 2^(k−1)·g, the first nearest to the picture; likewise of d
//! generator        z (B, L) → s × s × 2^(k−1)·g → … → side/2 × side/2 × g → side × side × C
//!                  transposed convolutions: s × s, then 4 × 4 with stride 2 and padding 1; after each norm and relu, after
//!                  the last tanh
//! discriminator    side × side × C → side/2 × side/2 × d → … → s × s × 2^(k−1)·d → 1
//!                  convolutions: 4 × 4 with stride 2 and padding 1, then s × s; after each norm and leaky relu of 0.2, after
//!                  the first without a norm, after the last nothing
//! ```
//! Norms are BatchNorms, whose gains start around 1; no layer has a bias, and all weights start normal with deviation 0.02. A
//! discriminator may have another [`Scale`], and then has biases.
//! For 28 × 28 and g = d = 64: L → 7 × 7 × 128 → 14 × 14 × 64 → 28 × 28, and back.
//!
//! With `classes`, `E[label]` (s·s·2^(k−1)·g) is added to the generator's first layer before its norm, which is what a
//! one-hot label beside z does (Mirza, Osindero 2014, arXiv 1411.1784); E starts as wide as what z brings there. The
//! discriminator adds `E[label]·features` to its logit, the features those that its last layer reads: a projection (Miyato,
//! Koyama 2018, arXiv 1802.05637).
//!
//! Both are networks of one set of parameters, `g.…` ([`GENERATOR`]) and `d.…` ([`DISCRIMINATOR`]), so that each is trained
//! through the other: see [`Params::focus`](crate::params::Params::focus).
//!
//! Source: Radford, Metz, Chintala 2015 (arXiv 1511.06434).

use super::fields::{self, Wrong};
use crate::error::Result;
use crate::nn::{BatchNorm, Builder, Conv, Embedding, Start};
use crate::ops::activation::Activation;
use crate::ops::conv::Window;
use crate::ops::loss::LossKind;
use crate::params::Decl;
use crate::tape::Var;
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The number of the generator's parameters among networks.
pub const GENERATOR: u8 = 0;
/// And of the discriminator's.
pub const DISCRIMINATOR: u8 = 1;

/// The deviation of weights, and of BatchNorms' gains.
const STD: f32 = 0.02;
/// The slope of leaky relus below 0.
const SLOPE: f32 = 0.2;

/// The sizes of a [`Gan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GanConfig {
    /// Height, width and channels of pictures; both sides 4·2ᵏ or 7·2ᵏ, k at least 1.
    pub shape: [usize; 3],
    /// L: numbers that a picture is made of.
    pub latent: usize,
    /// Channels of the generator's last hidden layer.
    pub g: usize,
    /// Channels of the discriminator's first layer.
    pub d: usize,
    /// The number of classes, where pictures have labels.
    pub classes: Option<usize>,
    /// What keeps the discriminator's layers in scale.
    #[serde(default)]
    pub scale: Scale,
}

/// What keeps a discriminator's layers in scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// BatchNorm, but for the first layer and the last: what is said of a picture depends on its batch.
    #[default]
    Batch,
    /// Weights are divided by their spectral norm, in all layers (Miyato et al. 2018, arXiv 1802.05957).
    Spectral,
    /// Nothing: for losses with a penalty on the slope.
    None,
}

impl GanConfig {
    /// A DCGAN for pictures of this shape: 100 numbers, 64 channels.
    pub fn dcgan(shape: [usize; 3]) -> GanConfig {
        GanConfig { shape, latent: 100, g: 64, d: 64, classes: None, scale: Scale::Batch }
    }

    /// Whether there is such a model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        fields::shape(self.shape)?;
        let [height, width, _] = self.shape;
        let (side, halves) = self.grid();
        let expected = "equal sides of 4 or 7 pixels times 2, 4, 8, …: 28 or 32, for example";
        fields::require(height == width && [4, 7].contains(&side) && halves > 0, "shape", expected)?;
        fields::count("latent", self.latent)?;
        fields::count("g", self.g.saturating_mul(1 << (halves - 1)))?;
        fields::count("d", self.d.saturating_mul(1 << (halves - 1)))?;
        fields::classes(self.classes)
    }

    /// As `config.json`.
    pub fn to_json(&self) -> Value {
        fields::to_json("gan", self)
    }

    /// Reads what [`to_json`](GanConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(json: &Value, path: &Path) -> Result<GanConfig> {
        fields::from_json("gan", json, path, GanConfig::check)
    }

    /// Floating-point operations of a step for one picture: two of multiplying and adding in each of the generator's passes (one
    /// forward, two backward) and the discriminator's (two forward and twice two backward, then one and one).
    pub fn flops(&self) -> f64 {
        let (side, k) = self.grid();
        // The pixels where the i-th pair of widths meets, on its small side.
        let pixels = |i: usize| (side << (k - 1 - i)).pow(2);
        let network = |widths: &[usize], ends: usize| {
            let layers: usize = (0..k).map(|i| 16 * pixels(i) * widths[i] * widths[i + 1]).sum();
            layers + side * side * widths[k] * ends
        };
        let (g, d) = (network(&self.widths(self.g), self.latent), network(&self.widths(self.d), 1));
        2.0 * (3 * g + 8 * d) as f64
    }

    /// s, the side of the smallest pictures, and k, how often it is doubled.
    fn grid(&self) -> (usize, usize) {
        let side = self.shape[0];
        // 4 is no odd number: of its factors of 2 two stay.
        let halves = side.trailing_zeros().saturating_sub(if side.is_power_of_two() { 2 } else { 0 });
        (side >> halves, halves as usize)
    }

    /// Channels of pictures, and of hidden layers from those nearest to them.
    fn widths(&self, first: usize) -> Vec<usize> {
        [self.shape[2]].into_iter().chain((0..self.grid().1).map(|i| first << i)).collect()
    }
}

/// A convolution, and the norm after it, if there is one.
struct Layer {
    conv: Conv,
    norm: Option<BatchNorm>,
}

impl Layer {
    /// Layer `name` of so many channels: 4 × 4 and stride 2, or `side` × `side` from or to a single pixel; without a `scale`
    /// a convolution alone.
    fn new(
        p: &mut Builder,
        name: &str,
        up: bool,
        channels: [usize; 2],
        side: Option<usize>,
        scale: Option<Scale>,
    ) -> Layer {
        let (stride, padding) = if side.is_some() { (1, 0) } else { (2, 1) };
        let window = if up { Window::transposed(stride, padding, 0) } else { Window::conv(stride, padding) };
        let bias = matches!(scale, Some(Scale::Spectral | Scale::None));
        let conv = Conv::new(p, name, window, channels, side.unwrap_or(4), bias, Start::Normal(STD));
        let conv = if scale == Some(Scale::Spectral) { conv.spectral(p) } else { conv };
        let norm = scale == Some(Scale::Batch);
        Layer { conv, norm: norm.then(|| BatchNorm::new(p, &format!("{name}.norm"), channels[1], STD)) }
    }
}

/// The layers of both networks; the values of their parameters are in a [`Params`](crate::params::Params).
pub struct Gan {
    config: GanConfig,
    up: Vec<Layer>,
    up_labels: Option<Embedding>,
    down: Vec<Layer>,
    down_labels: Option<Embedding>,
}

impl Gan {
    /// The networks, and the parameters that they need. The configuration [holds](GanConfig::check).
    pub fn new(config: GanConfig) -> (Gan, Vec<Decl>) {
        let ((side, k), latent) = (config.grid(), config.latent);
        let mut builder = Builder::default();
        let p = &mut builder;
        let labels = |p: &mut Builder, name: &str, widths: &[usize], std: f32| {
            config.classes.map(|n| Embedding::new(p, name, [n, side * side * widths[k]], std))
        };
        p.net(GENERATOR);
        let widths = config.widths(config.g);
        let batch = Some(Scale::Batch);
        let first = Layer::new(p, "g.0", true, [latent, widths[k]], Some(side), batch);
        let up = |i: usize| {
            let channels = [widths[k + 1 - i], widths[k - i]];
            Layer::new(p, &format!("g.{i}"), true, channels, None, batch.filter(|_| i < k))
        };
        let rest: Vec<Layer> = (1..=k).map(up).collect();
        let up = [first].into_iter().chain(rest).collect();
        let up_labels = labels(p, "g.labels", &widths, STD * (latent as f32).sqrt());
        p.net(DISCRIMINATOR);
        let widths = config.widths(config.d);
        let scale = |inner: bool| Some(config.scale).filter(|scale| inner || *scale != Scale::Batch);
        let layer = |i: usize| Layer::new(p, &format!("d.{i}"), false, [widths[i], widths[i + 1]], None, scale(i > 0));
        let mut down: Vec<Layer> = (0..k).map(layer).collect();
        down.push(Layer::new(p, &format!("d.{k}"), false, [widths[k], 1], Some(side), scale(false)));
        let down_labels = labels(p, "d.labels", &widths, STD);
        (Gan { up, up_labels, down, down_labels, config }, builder.finish())
    }

    /// The shape of the networks.
    pub fn config(&self) -> &GanConfig {
        &self.config
    }

    /// z (B, L), numbers from N(0, 1), and labels (B) where there are classes, to pictures (B, H, W, C) from −1 to 1.
    pub fn generate<'t>(&self, z: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        let (b, latent) = (z.shape()[0], self.config.latent);
        let labels = rows(self.up_labels, labels);
        self.up.iter().enumerate().fold(z.reshape([b, 1, 1, latent]), |x, (i, layer)| {
            let Some(norm) = layer.norm else { return layer.conv.apply(x, Some(Activation::Tanh)) };
            let y = layer.conv.apply(x, None);
            let y = labels.filter(|_| i == 0).map_or(y, |rows| y + rows.reshape(y.shape()));
            norm.apply(y, 0.0)
        })
    }

    /// Pictures x (B, H, W, C), and labels (B), to logits (B): above 0 where they are taken for data.
    pub fn judge<'t>(&self, x: Var<'t>, labels: Option<Var<'t>>) -> Var<'t> {
        let (last, hidden) = self.down.split_last().expect("one layer at least");
        let x = x.cast(x.tape().activations());
        let features = hidden.iter().fold(x, |x, layer| match layer.norm {
            Some(norm) => norm.apply(layer.conv.apply(x, None), SLOPE),
            None => layer.conv.apply(x, Some(Activation::LeakyRelu(SLOPE))),
        });
        let logits = last.conv.apply(features, None).reshape([x.shape()[0]]).cast(DType::F32);
        match rows(self.down_labels, labels) {
            Some(rows) => logits + (features.flatten() * rows).sum_last(),
            None => logits,
        }
    }
}

/// What a table has for labels (B), where there are classes.
fn rows<'t>(table: Option<Embedding>, labels: Option<Var<'t>>) -> Option<Var<'t>> {
    assert_eq!(table.is_some(), labels.is_some(), "labels, and a model with classes, go together");
    Some(table?.rows(labels?))
}

/// What both networks minimise, as functions of logits r of data and f of pictures that were made:
///
/// ```text
///                  discriminator                                   generator
/// NonSaturating    E[softplus(−r)] + E[softplus(f)]                E[softplus(−f)]        Goodfellow et al. 2014
/// Hinge            E[max(1 − r, 0)] + E[max(1 + f, 0)]             −E[f]                  Lim, Ye 2017
/// LeastSquares     ½ E[(r − 1)²] + ½ E[f²]                         ½ E[(f − 1)²]          Mao et al. 2016
/// Wasserstein      E[f] − E[r]                                     −E[f]                  Arjovsky et al. 2017
/// ```
/// Wasserstein needs a bound on the discriminator's slope beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum GanLoss {
    NonSaturating,
    Hinge,
    LeastSquares,
    Wasserstein,
}

impl GanLoss {
    /// The discriminator's loss, a scalar, of logits (B) of data and of what was made. With `smoothing` (0: none) data shall be
    /// called so with probability, or value, 1 − it, where the loss is NonSaturating or LeastSquares: one-sided (Salimans et
    /// al. 2016, arXiv 1606.03498).
    pub fn d<'t>(self, real: Var<'t>, fake: Var<'t>, smoothing: f32) -> Var<'t> {
        let one = 1.0 - smoothing;
        let sum = |kind, of_real, of_fake| real.loss_to(kind, of_real).mean() + fake.loss_to(kind, of_fake).mean();
        match self {
            GanLoss::NonSaturating => sum(LossKind::Bce, one, 0.0),
            GanLoss::Hinge => sum(LossKind::Hinge, 1.0, -1.0),
            GanLoss::LeastSquares => sum(LossKind::Square, one, 0.0).scale(0.5),
            GanLoss::Wasserstein => fake.mean() - real.mean(),
        }
    }

    /// The generator's loss, a scalar, of logits (B) of what it made.
    pub fn g(self, fake: Var<'_>) -> Var<'_> {
        match self {
            GanLoss::NonSaturating => fake.loss_to(LossKind::Bce, 1.0).mean(),
            GanLoss::LeastSquares => fake.loss_to(LossKind::Square, 1.0).mean().scale(0.5),
            GanLoss::Hinge | GanLoss::Wasserstein => fake.mean().scale(-1.0),
        }
    }
}
