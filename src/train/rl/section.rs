//! What a recipe says of learning from rewards.

use super::reward;
use crate::agent;
use crate::error::{Error, Result};
use crate::ops::policy::Policy;
use crate::settings::{range, require};
use crate::train::recipe::Train;
use crate::train::rl::advantage::Scale;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[model.reinforce]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reinforcement {
    /// What an answer is compared with.
    pub method: Method,
    /// Answers to a prompt.
    pub group: usize,
    /// Steps on the same answers.
    pub updates: u64,
    /// How much less likely a token may become and gain by it.
    pub clip_low: f32,
    /// How much likelier.
    pub clip_high: f32,
    /// What a nat of KL from the model at the start costs; where it is absent, 0 of [`Grpo`](Method::Grpo) and 0.05 of [`Ppo`](Method::Ppo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Of [`Ppo`](Method::Ppo): the KL of an answer, in nats, that its price is led towards; 0: the price stays.
    pub target_kl: f64,
    /// Of [`Grpo`](Method::Grpo): what rewards are divided by.
    pub scale: Scaling,
    /// What a token weighs.
    pub loss: Weighing,
    /// Divides the logits, in writing and in learning.
    pub temperature: f32,
    /// Tokens of an answer at most.
    pub tokens: usize,
    /// Whether nothing is learnt of answers that did not end.
    pub mask_truncated: bool,
    /// The most by which a token counts that who wrote it thought less likely than who learns, where they compute differently.
    pub importance_cap: f64,
    /// Of [`Ppo`](Method::Ppo): what a reward is worth a token later.
    pub gamma: f64,
    /// Of it: how far advantages look ahead.
    pub lambda: f64,
    /// Of it: how far a value may move and gain by it.
    pub value_clip: f32,
    /// Of it: what the loss of values weighs.
    pub value_coef: f32,
    /// Of it: whether advantages have mean 0 and deviation 1.
    pub whiten: bool,
    /// Of the reward `truth`: the seed of the village.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub village: Option<u64>,
    /// Of the reward `format`: the regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Of the reward `model`: the reward model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<PathBuf>,
    /// Where the model acts, in place of answering prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agency>,
    /// What answers are worth: names of [rewards](super::reward) and their weights.
    pub rewards: BTreeMap<String, f64>,
}

/// `[model.reinforce.agent]`: tasks over several turns, of which a trajectory is what an answer is elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agency {
    /// The environment: a name, or a file.
    pub environment: String,
    /// The seed of its tasks.
    pub seed: u64,
    /// Tasks to learn from.
    pub tasks: u64,
    /// Tasks to be judged by, of the environment's part to validate.
    pub held_out: u64,
    /// Messages of a trajectory at most.
    pub turns: usize,
    /// What a call that breaks a constraint does.
    pub hold: agent::Hold,
    /// Whether the model is told of its tools.
    pub tools: bool,
    /// For this share of the steps tasks are those that the planner does soonest, more and more of them, from a tenth of all on.
    pub curriculum: f64,
}

/// With a curriculum, the share of all tasks that the first step has.
const FIRST: f64 = 0.1;

impl Agency {
    /// How many of `n` tasks, those that are soonest done before others, there are after the share `done` of all steps.
    pub fn open(&self, n: usize, done: f64) -> usize {
        let share = if self.curriculum > 0.0 { FIRST + (1.0 - FIRST) * done / self.curriculum } else { 1.0 };
        ((share * n as f64) as usize).clamp(1, n)
    }
}

impl Default for Agency {
    fn default() -> Agency {
        let turns = agent::Limits::default().turns;
        let (environment, hold) = ("village".into(), agent::Hold::Log);
        Agency { environment, seed: 1, tasks: 2000, held_out: 64, turns, hold, tools: false, curriculum: 0.0 }
    }
}

/// `model.reinforce.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// With the other answers to its prompt.
    Grpo,
    /// With what a critic expected, token by token.
    Ppo,
}

/// `model.reinforce.scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// The deviation of the group.
    Group,
    /// That of all answers of a step.
    Batch,
    /// Nothing: Dr. GRPO.
    None,
}

impl From<Scaling> for Scale {
    fn from(scaling: Scaling) -> Scale {
        match scaling {
            Scaling::Group => Scale::Group,
            Scaling::Batch => Scale::Batch,
            Scaling::None => Scale::Nothing,
        }
    }
}

/// `model.reinforce.loss`: B answers of L tokens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighing {
    /// 1 / (B L): answers are alike, tokens of longer ones weigh less.
    Grpo,
    /// 1 / Σ L: tokens are alike.
    Dapo,
    /// 1 / (B `tokens`): the same, whatever the lengths.
    Dr,
}

impl Reinforcement {
    /// What a nat of KL costs.
    pub fn kl(&self) -> f64 {
        let own = if self.method == Method::Ppo { 0.05 } else { 0.0 };
        self.kl.unwrap_or(own)
    }

    /// Whether what the model at the start says is needed.
    pub fn refers(&self) -> bool {
        self.kl() > 0.0
    }

    /// Prompts for so many answers.
    pub fn prompts(&self, answers: usize) -> usize {
        answers / self.group
    }

    /// The loss of the policy: PPO's KL is in the rewards.
    pub fn policy(&self) -> Policy {
        let beta = if self.method == Method::Grpo { self.kl() as f32 } else { 0.0 };
        Policy { low: self.clip_low, high: self.clip_high, beta }
    }

    /// Checks every value's range, and that they fit `train`.
    pub(in crate::train) fn check(&self, train: &Train) -> Result<()> {
        let key = |name: &str| format!("model.reinforce.{name}");
        let from = |least: usize, name: &str, x: usize| range(&key(name), x, least..=1_000_000);
        from(1, "group", self.group)?;
        from(1, "updates", self.updates as usize)?;
        from(1, "tokens", self.tokens)?;
        if self.method == Method::Grpo && self.group < 2 {
            let hint = "take 2 or more; 8 and more are less noisy";
            return Err(Error::config(key("group"), "GRPO compares the answers to a prompt", hint));
        }
        let answers = train.batch * train.accumulate;
        if !answers.is_multiple_of(self.group) {
            let problem = format!("the {answers} answers of a step are not made of groups of {}", self.group);
            let hint = "take a divisor of train.batch · train.accumulate";
            return Err(Error::config(key("group"), problem, hint));
        }
        let finite = |name: &str, x: f64, least: f64| {
            require(x.is_finite() && x >= least, &key(name), x, format!("a finite number, {least} or more"))
        };
        let share = |name: &str, x: f64| require((0.0..=1.0).contains(&x), &key(name), x, "from 0 to 1");
        share("clip_low", self.clip_low.into())?;
        share("gamma", self.gamma)?;
        share("lambda", self.lambda)?;
        finite("clip_high", self.clip_high.into(), 0.0)?;
        finite("kl", self.kl(), 0.0)?;
        finite("target_kl", self.target_kl, 0.0)?;
        finite("importance_cap", self.importance_cap, 1.0)?;
        finite("value_coef", self.value_coef.into(), 0.0)?;
        let above =
            |name: &str, x: f32| require(x.is_finite() && x > 0.0, &key(name), x, "a finite number above 0, as 0.2");
        above("value_clip", self.value_clip)?;
        above("temperature", self.temperature)?;
        if self.target_kl > 0.0 && (self.method != Method::Ppo || self.kl() == 0.0) {
            let hint = "set it to 0, or take kiln align ppo with model.reinforce.kl above 0";
            return Err(Error::config(key("target_kl"), "there is no price of the KL to lead", hint));
        }
        if let Some(agent) = &self.agent {
            let from = |name: &str, x: u64| range(&key(&format!("agent.{name}")), x as usize, 1..=1_000_000);
            from("tasks", agent.tasks)?;
            from("held_out", agent.held_out)?;
            from("turns", agent.turns as u64)?;
            share("agent.curriculum", agent.curriculum)?;
            if self.method == Method::Ppo {
                let hint = "take kiln agent train, which compares trajectories (GRPO)";
                return Err(Error::config(key("method"), "agents learn without a critic", hint));
            }
        }
        reward::check(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curriculum_opens_all_tasks_bit_by_bit() {
        let of = |curriculum: f64| {
            let agency = Agency { curriculum, ..Agency::default() };
            [0.0, 0.25, 0.5, 1.0].map(|done| agency.open(1000, done))
        };
        assert_eq!(of(0.0), [1000; 4]);
        assert_eq!(of(0.5), [100, 550, 1000, 1000]);
        assert_eq!(of(1.0), [100, 325, 550, 1000]);
        assert_eq!(Agency { curriculum: 1.0, ..Agency::default() }.open(3, 0.0), 1);
    }
}
