//! `[optim.dp]`: private training, which hides whether any one example was in the data.

use super::{positive, require};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[optim.dp]`: how gradients are made private; see [`private`](crate::train::private).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dp {
    /// C: the gradient of an example is scaled down to this norm.
    #[serde(default = "unit")]
    pub clip: f64,
    /// σ: the sum of the gradients of a step gets noise of deviation σ·C. Absent: as `epsilon` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// The ε of all steps together, from which the noise follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// δ; absent: 1 / N^1.1 of N examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Whether noise and batches come from `train.seed`: for tests, without any privacy.
    #[serde(default)]
    pub reproducible: bool,
    /// Whether losses and norms of the examples are told, which are not private.
    #[serde(default)]
    pub diagnostics: bool,
}

fn unit() -> f64 {
    1.0
}

impl Dp {
    /// δ for N examples.
    pub fn delta_for(&self, examples: u64) -> f64 {
        self.delta.unwrap_or_else(|| (examples.max(2) as f64).powf(-1.1))
    }

    /// Checks every value's range.
    pub(super) fn validate(&self) -> Result<()> {
        // Squares of smaller and larger numbers leave the range of an f32.
        let clip = self.clip;
        require((1e-9..=1e9).contains(&clip), "optim.dp.clip", clip, "a norm from 1e-9 to 1e9, as 1.0")?;
        match (self.noise, self.epsilon) {
            (None, None) => {
                let hint = "set optim.dp.epsilon, as 8, or optim.dp.noise, as 1.0";
                return Err(Error::config("optim.dp.epsilon", "neither it nor optim.dp.noise is given", hint));
            }
            (Some(_), Some(_)) => {
                let problem = "the noise follows from it, and optim.dp.noise is given as well";
                return Err(Error::config("optim.dp.epsilon", problem, "leave one of them out"));
            }
            (Some(noise), None) => {
                require((0.0..=1e6).contains(&noise), "optim.dp.noise", noise, "0 (no privacy) to 1e6, as 1.0")?;
            }
            (None, Some(epsilon)) => positive("optim.dp.epsilon", epsilon)?,
        }
        let delta = self.delta.unwrap_or(0.5);
        require(delta > 0.0 && delta < 1.0, "optim.dp.delta", delta, "between 0 and 1, below 1 / examples, as 1e-5")
    }
}
