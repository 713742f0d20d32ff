//! A small classifier of pictures, whose features judge those that other models make.
//!
//! ```text
//! x (B, H, W, C) → relu(conv 3 × 3, stride 2, padding 1), until no side is above 8 → relu(fc) = features (B, 128) → head
//! ```
//! 32 channels after the first convolution, then twice as many each time, up to 128.

use super::fields::{self, Wrong};
use crate::error::Result;
use crate::nn::{Builder, Conv, Embedding, Linear, Start};
use crate::ops::activation::Activation;
use crate::ops::conv::Window;
use crate::params::Decl;
use crate::tape::Var;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The number of features.
pub const FEATURES: usize = 128;

/// The sizes of a [`Classifier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassifierConfig {
    /// Height, width and channels of pictures.
    pub shape: [usize; 3],
    /// How many classes there are.
    pub classes: usize,
}

impl ClassifierConfig {
    /// Whether there is such a model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        fields::shape(self.shape)?;
        fields::classes(Some(self.classes))
    }

    /// As `config.json`.
    pub fn to_json(&self) -> Value {
        fields::to_json("classifier", self)
    }

    /// Reads what [`to_json`](ClassifierConfig::to_json) writes.
    ///
    /// # Errors
    /// A field is missing or has a value that this model does not have; `path` names the file in the message.
    pub fn from_json(json: &Value, path: &Path) -> Result<ClassifierConfig> {
        fields::from_json("classifier", json, path, ClassifierConfig::check)
    }
}

/// The layers of the model; the values of its parameters are in a [`Params`](crate::params::Params).
pub struct Classifier {
    config: ClassifierConfig,
    convs: Vec<Conv>,
    fc: Linear,
    head: Embedding,
}

impl Classifier {
    /// The model, and the parameters that it needs. The configuration [holds](ClassifierConfig::check).
    pub fn new(config: ClassifierConfig) -> (Classifier, Vec<Decl>) {
        let p = &mut Builder::default();
        let [mut h, mut w, mut c] = config.shape;
        let mut convs = Vec::new();
        while h.max(w) > 8 {
            let (name, channels) = (format!("conv.{}", convs.len()), (32 << convs.len()).min(128));
            convs.push(Conv::new(p, &name, Window::conv(2, 1), [c, channels], 3, true, Start::Uniform));
            (h, w, c) = (h.div_ceil(2), w.div_ceil(2), channels);
        }
        let fc = Linear::new(p, "fc", [h * w * c, FEATURES], true, Start::Uniform);
        let head = Embedding::new(p, "head", [config.classes, FEATURES], 0.05);
        (Classifier { config, convs, fc, head }, std::mem::take(p).finish())
    }

    /// The sizes.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Pictures x (B, H, W, C) from 0 to 1 to their features (B, 128).
    pub fn features<'t>(&self, x: Var<'t>) -> Var<'t> {
        let relu = Some(Activation::Relu);
        let x = x.cast(x.tape().activations());
        self.fc.apply_with(self.convs.iter().fold(x, |x, conv| conv.apply(x, relu)).flatten(), relu)
    }

    /// Features (B, 128) to logits (B, classes).
    pub fn logits<'t>(&self, features: Var<'t>) -> Var<'t> {
        features.linear(self.head.table(features.tape()), None)
    }

    /// The mean negative log-likelihood of labels (B).
    pub fn loss<'t>(&self, x: Var<'t>, labels: Var<'t>) -> Var<'t> {
        self.features(x).linear_xent(self.head.table(x.tape()), labels, None, None)
    }
}
