//! What a recipe says of preferences.

use crate::error::{Error, Result};
use crate::settings::require;
use crate::train::recipe::Train;
use serde::{Deserialize, Serialize};

/// `[model.preference]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Which loss.
    pub loss: PreferenceLoss,
    /// β: how much a change of an answer's log-probability is worth.
    pub beta: f32,
    /// Of [`Sigmoid`](PreferenceLoss::Sigmoid): the share of pairs that are taken to be the wrong way round.
    pub smoothing: f32,
    /// Of [`Sigmoid`](PreferenceLoss::Sigmoid) and [`Ipo`](PreferenceLoss::Ipo): what fine-tuning on the better answers weighs beside it.
    pub sft: f32,
    /// Of [`Kto`](PreferenceLoss::Kto): what an answer that was liked weighs.
    pub desirable: f32,
    /// Of it: what one that was not liked weighs.
    pub undesirable: f32,
    /// Of [`Reward`](PreferenceLoss::Reward): what the square of the sum of both rewards weighs.
    pub centering: f32,
}

/// `model.preference.loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLoss {
    /// DPO's.
    Sigmoid,
    /// IPO's.
    Ipo,
    /// KTO's, of single answers.
    Kto,
    /// Bradley's and Terry's, of a reward model.
    Reward,
}

impl Preference {
    /// Checks every value's range, and that they fit `train`.
    pub(in crate::train) fn check(&self, train: &Train) -> Result<()> {
        let Preference { loss, beta, smoothing, sft, desirable, undesirable, centering } = *self;
        let above = |x: f32| x.is_finite() && x > 0.0;
        require(above(beta), "model.preference.beta", beta, "a finite number above 0, as 0.1")?;
        require((0.0..0.5).contains(&smoothing), "model.preference.smoothing", smoothing, "from 0 to below 0.5")?;
        let fine = |x: f32| x.is_finite() && x >= 0.0;
        require(fine(sft), "model.preference.sft", sft, "a finite number, 0 or more")?;
        require(above(desirable), "model.preference.desirable", desirable, "a finite number above 0")?;
        require(above(undesirable), "model.preference.undesirable", undesirable, "a finite number above 0")?;
        require(fine(centering), "model.preference.centering", centering, "a finite number, 0 or more")?;
        if loss == PreferenceLoss::Kto && train.batch < 2 {
            let problem = "KTO compares an answer with that to another prompt of its batch";
            return Err(Error::config("train.batch", problem, "take 2 or more; 8 and more are less noisy"));
        }
        Ok(())
    }
}
