//! `[optim]`: how weights follow gradients.

use super::{Dp, positive, require};
use crate::error::Result;
use crate::optim::{AdamW, Muon, MuonScale, Optimizer};
use crate::train::schedule::Shape;
use serde::{Deserialize, Serialize};

/// `[optim]`: the optimizer and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optim {
    /// What updates the matrices of blocks; all else is AdamW's.
    pub kind: OptimKind,
    /// The highest learning rate.
    pub lr: f64,
    /// The learning rate of the last step.
    pub min_lr: f64,
    /// The form of the decay.
    pub schedule: Shape,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Last steps, in which [`Shape::Wsd`] decays.
    pub decay_steps: u64,
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the gradient's running mean square.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether embeddings decay too.
    pub decay_embeddings: bool,
    /// The gradient's norm is scaled down to this; 0: not at all. Where training is private, examples are clipped instead (`dp.clip`).
    pub clip: f64,
    /// Muon's highest learning rate, which follows the schedule too; absent: `lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_lr: Option<f64>,
    /// Decay of Muon's running mean of gradients.
    pub muon_momentum: f64,
    /// How large Muon's updates are.
    pub muon_scale: MuonScale,
    /// Private training; absent: not private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dp: Option<Dp>,
}

/// `optim.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimKind {
    /// AdamW for all.
    AdamW,
    /// Muon for the matrices of blocks, AdamW for the rest.
    Muon,
}

impl Optim {
    /// The optimizer that these settings describe.
    pub fn optimizer(&self) -> Optimizer {
        let Optim { lr, beta1, beta2, eps, weight_decay, decay_embeddings, clip, .. } = *self;
        let muon = Muon {
            lr_ratio: self.muon_lr.map_or(1.0, |muon_lr| muon_lr / lr),
            momentum: self.muon_momentum,
            weight_decay,
            scale: self.muon_scale,
        };
        Optimizer {
            adamw: AdamW { beta1, beta2, eps, weight_decay, decay_embeddings },
            muon: (self.kind == OptimKind::Muon).then_some(muon),
            clip: (clip > 0.0 && self.dp.is_none()).then_some(clip),
        }
    }

    /// Checks every value's range.
    pub(super) fn validate(&self) -> Result<()> {
        positive("optim.lr", self.lr)?;
        require(
            self.min_lr >= 0.0 && self.min_lr <= self.lr,
            "optim.min_lr",
            self.min_lr,
            format!("from 0 to optim.lr, which is {}", self.lr),
        )?;
        if self.schedule == Shape::Rising {
            positive("optim.min_lr", self.min_lr)?;
        }
        for (key, decay) in
            [("optim.beta1", self.beta1), ("optim.beta2", self.beta2), ("optim.muon_momentum", self.muon_momentum)]
        {
            require((0.0..1.0).contains(&decay), key, decay, "a number from 0 to below 1")?;
        }
        // As an f32, in which updates are computed: 0 over 0 would be no number.
        let eps = self.eps as f32;
        require(eps > 0.0 && eps.is_finite(), "optim.eps", self.eps, "a number from 1e-44 to 3e38, as 1e-8")?;
        for (key, value) in [("optim.weight_decay", self.weight_decay), ("optim.clip", self.clip)] {
            require(value.is_finite() && value >= 0.0, key, value, "a finite number, 0 or more")?;
        }
        self.muon_lr.map_or(Ok(()), |lr| positive("optim.muon_lr", lr))?;
        self.dp.map_or(Ok(()), |dp| dp.validate())
    }
}
