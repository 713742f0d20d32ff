//! The losses of preferences, on a tape.
//!
//! ```text
//! r = β (log π(y|x) − log π_ref(y|x))                                    what the policy thinks an answer is worth
//! Sigmoid   −(1 − ε) log σ(r⁺ − r⁻) − ε log σ(r⁻ − r⁺)                   DPO: Rafailov et al. 2023, eq. 7; ε: cDPO
//! Ipo       ((r⁺ − r⁻)/β − 1/(2β))², log-probabilities as means a token  Azar et al. 2023, eq. 17
//!           of both: + a (−log π(y⁺|x)/|y⁺|)                              RPO: Pang et al. 2024, eq. 1
//! Kto       w (1 − σ(±(r − β z))), z = max(0, KL) of a batch             Ethayarajh et al. 2024, eq. 8; + where it was liked
//! Reward    −log σ(s⁺ − s⁻) + c (s⁺ + s⁻)²                               Ouyang et al. 2022, eq. 1; c: Eisenstein et al. 2023
//! ```
//! Sources: arXiv 2305.18290, 2310.12036, 2402.01306, 2203.02155, 2312.09244, 2404.19733; means and names of metrics as Hugging Face's TRL has them.

use super::section::{Preference, PreferenceLoss};
use crate::ops::loss::LossKind;
use crate::tape::Var;
use crate::tensor::Tensor;
use crate::train::objective::MAX_PARTS;
use arrayvec::ArrayVec;

/// A margin counts as one from the inverse of this on.
const STEEP: f32 = 1e6;

/// Losses (B), and the rewards (B) of better and worse answers; of KTO the answers' own and none.
#[derive(Clone, Copy)]
pub struct Compared<'t> {
    /// Of each pair, or answer.
    pub losses: Var<'t>,
    /// What the answers are worth.
    pub rewards: [Var<'t>; 2],
    /// The log-probabilities (B) of both; of rewards themselves where there are none.
    pub logps: [Var<'t>; 2],
    /// KTO's z, of rank 0.
    pub kl: Option<Var<'t>>,
}

/// KTO's KL, of rank 0: the mean of how much likelier (B) answers to other prompts became; never below 0.
pub fn kto_kl<'t>(logps: Var<'t>, refs: Var<'t>) -> Var<'t> {
    (logps - refs).mean().relu()
}

impl Preference {
    /// Of pairs: log-probabilities (B) of both answers under the policy and under the reference, and what makes those of the better ones means
    /// a token (B).
    pub fn pairs<'t>(&self, logps: [Var<'t>; 2], refs: [Var<'t>; 2], shares: Var<'t>) -> Compared<'t> {
        let [chosen, rejected] = [0, 1].map(|i| logps[i] - refs[i]);
        let margin = chosen - rejected;
        let mut losses = match self.loss {
            PreferenceLoss::Ipo => margin.loss_to(LossKind::Square, 1.0 / (2.0 * self.beta)),
            _ => margin.scale(self.beta).loss_to(LossKind::Bce, 1.0 - self.smoothing),
        };
        if self.sft > 0.0 {
            losses = losses + (logps[0] * shares).scale(-self.sft);
        }
        Compared { losses, rewards: [chosen, rejected].map(|r| r.scale(self.beta)), logps, kl: None }
    }

    /// Of pairs of rewards (B).
    pub fn scores<'t>(&self, scores: [Var<'t>; 2]) -> Compared<'t> {
        let [chosen, rejected] = scores;
        let mut losses = (chosen - rejected).loss_to(LossKind::Bce, 1.0);
        if self.centering > 0.0 {
            losses = losses + (chosen + rejected).loss_to(LossKind::Square, 0.0).scale(self.centering);
        }
        Compared { losses, rewards: scores, logps: scores, kl: None }
    }

    /// Of single answers: log-probabilities (B), 1 where one was liked and −1 where it was not (B), and the [KL](kto_kl), which is no function
    /// of the parameters.
    pub fn thumbs<'t>(&self, logps: Var<'t>, refs: Var<'t>, signs: Var<'t>, kl: Var<'t>) -> Compared<'t> {
        let b = signs.shape().numel();
        let reward = (logps - refs).scale(self.beta);
        // The KL for each: ones (B, 1) times it.
        let z = (signs * signs).reshape([b, 1]).linear(kl.reshape([1, 1]), None).reshape([b]);
        let weights = signs.relu().scale(self.desirable) + signs.scale(-1.0).relu().scale(self.undesirable);
        let surprise = (signs * (reward - z.scale(self.beta))).scale(-1.0).sigmoid();
        Compared { losses: weights * surprise, rewards: [reward; 2], logps: [logps; 2], kl: Some(kl) }
    }

    /// The names of [`parts`](Preference::parts), as TRL has them.
    pub fn names(&self) -> &'static [&'static str] {
        match self.loss {
            PreferenceLoss::Sigmoid | PreferenceLoss::Ipo => &[
                "rewards/chosen",
                "rewards/rejected",
                "rewards/accuracies",
                "rewards/margins",
                "logps/chosen",
                "logps/rejected",
            ],
            PreferenceLoss::Kto => &["rewards/chosen", "rewards/rejected", "rewards/margins", "kl"],
            PreferenceLoss::Reward => &["accuracy", "margin", "mean_reward"],
        }
    }

    /// Means over a batch, without gradients. `signs` and `shares` (B) are of KTO: the latter 1 over the number of answers of the same sign, so
    /// that what is told of a kind is 0 where a batch has none.
    pub fn parts<'t>(&self, compared: &Compared<'t>, [signs, shares]: [Var<'t>; 2]) -> ArrayVec<Tensor, MAX_PARTS> {
        let Compared { rewards: [chosen, rejected], logps, kl, .. } = *compared;
        let all = match (self.loss, kl) {
            (PreferenceLoss::Kto, Some(kl)) => {
                let mean = |signs: Var<'t>| (signs.relu() * shares * chosen).sum();
                let [good, bad] = [mean(signs), mean(signs.scale(-1.0))];
                [good, bad, good - bad, kl].into_iter().collect::<ArrayVec<Var, MAX_PARTS>>()
            }
            _ => {
                let margin = chosen - rejected;
                // min(x, 1) as 1 − max(1 − x, 0), twice a hinge: 1 where the margin is above 0, else 0.
                let right = margin.scale(STEEP).relu();
                let right = right.loss_to(LossKind::Hinge, 1.0).loss_to(LossKind::Hinge, 1.0).mean();
                let (mean, margin) = ((chosen + rejected).mean().scale(0.5), margin.mean());
                match self.loss {
                    PreferenceLoss::Reward => [right, margin, mean].into_iter().collect(),
                    _ => {
                        let [good, bad] = [chosen, rejected].map(Var::mean);
                        let [logp_good, logp_bad] = logps.map(Var::mean);
                        [good, bad, right, margin, logp_good, logp_bad].into_iter().collect()
                    }
                }
            }
        };
        all.into_iter().map(Var::value).collect()
    }
}
