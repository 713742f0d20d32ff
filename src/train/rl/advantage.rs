//! From rewards to advantages: pure functions, summed in f64.
//!
//! ```text
//! GRPO   rewards of answers ── group_advantages ──▸ an advantage for each answer, the same for all of its tokens
//! PPO    a score of an answer ── token_rewards ──▸ rewards ── gae ──▸ advantages ── whiten ──▸ an advantage for each token
//!                                                               └── returns ──▸ what the critic learns
//! ```
//! `tests/it/policy.rs` compares each with TRL's in float64.

/// What is added to a standard deviation that rewards are divided by, as in TRL.
const STD_EPS: f64 = 1e-4;
/// What is added to a variance that is whitened by, as in TRL.
const VARIANCE_EPS: f64 = 1e-8;
/// A deviation up to this is none: `torch.isclose` to 0.
const NO_STD: f64 = 1e-8;
/// The most that an [`AdaptiveKl`] lets one error count.
const MOST_ERROR: f64 = 0.2;

/// What rewards less their group's mean are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scale {
    /// The group's standard deviation: Shao et al. 2024 (arXiv 2402.03300), section 4.1.2.
    #[default]
    Group,
    /// That of all rewards.
    Batch,
    /// Nothing, so that prompts with answers almost all alike weigh no more than others: Dr. GRPO, Liu et al. 2025 (arXiv
    /// 2503.20783).
    Nothing,
}

/// Advantages of answers in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouped {
    /// An advantage for each reward.
    pub advantages: Vec<f32>,
    /// For each group whether all its rewards are alike: its advantages are 0, and nothing is learnt of it.
    pub alike: Vec<bool>,
}

impl Grouped {
    /// The share of groups whose rewards are all alike: TRL's `frac_reward_zero_std`.
    pub fn share_alike(&self) -> f64 {
        self.alike.iter().filter(|alike| **alike).count() as f64 / self.alike.len().max(1) as f64
    }
}

/// The advantages of answers with these rewards, `group` neighbours of one prompt: (r − mean) / (std + 1e-4), mean of the group,
/// std by `scale`, with Bessel's correction (n − 1) as `torch.std` has it. A group of one has no deviation.
///
/// # Panics
/// `group` is 0 or does not divide the number of rewards.
pub fn group_advantages(rewards: &[f32], group: usize, scale: Scale) -> Grouped {
    assert!(group > 0 && rewards.len().is_multiple_of(group), "{} rewards in groups of {group}", rewards.len());
    let all = moments(rewards).1.sqrt();
    let mut advantages = Vec::with_capacity(rewards.len());
    let mut alike = Vec::with_capacity(rewards.len() / group);
    for rewards in rewards.chunks_exact(group) {
        let (mean, variance) = moments(rewards);
        let std = variance.sqrt();
        alike.push(std <= NO_STD);
        let divisor = match scale {
            Scale::Group => std + STD_EPS,
            Scale::Batch => all + STD_EPS,
            Scale::Nothing => 1.0,
        };
        advantages.extend(rewards.iter().map(|&r| ((f64::from(r) - mean) / divisor) as f32));
    }
    Grouped { advantages, alike }
}

/// Mean, and variance over n − 1; 0 for less than two numbers.
fn moments<'a>(x: impl IntoIterator<Item = &'a f32> + Clone) -> (f64, f64) {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for &x in x.clone() {
        (n, sum) = (n + 1.0, sum + f64::from(x));
    }
    let mean = if n > 0.0 { sum / n } else { 0.0 };
    for &x in x {
        squares += (f64::from(x) - mean).powi(2);
    }
    (mean, if n > 1.0 { squares / (n - 1.0) } else { 0.0 })
}

/// The rewards of an answer's tokens: −`kl_coef` (logp − reference) each, and the answer's score with the last. The sum over
/// tokens is the score less `kl_coef` times an estimate (k1) of KL(policy ‖ reference): Ziegler et al. 2019 (arXiv 1909.08593),
/// equation 2. (TRL gives an answer that is shorter than its batch its score one place later, at the first padding.)
///
/// # Panics
/// The lengths differ.
pub fn token_rewards(score: f32, logp: &[f32], reference: &[f32], kl_coef: f64) -> Vec<f32> {
    assert_eq!(logp.len(), reference.len(), "log-probabilities of other tokens");
    let last = logp.len().wrapping_sub(1);
    let reward = |(i, (&logp, &reference)): (usize, (&f32, &f32))| {
        let score = if i == last { f64::from(score) } else { 0.0 };
        (score - kl_coef * (f64::from(logp) - f64::from(reference))) as f32
    };
    logp.iter().zip(reference).enumerate().map(reward).collect()
}

/// Generalised advantage estimation over one trajectory: Schulman et al. 2015 (arXiv 1506.02438), equation 16,
///
/// ```text
/// A_t = Σ_l (gamma·lambda)^l δ_{t+l}        δ_t = r_t + gamma·V_{t+1} − V_t
/// ```
/// `values` are V of the states before each reward; `after` is V of the state after the last one: 0 where the trajectory ended, the
/// critic's word where it was cut off.
///
/// # Panics
/// The lengths differ.
pub fn gae(rewards: &[f32], values: &[f32], after: f32, gamma: f64, lambda: f64) -> Vec<f32> {
    assert_eq!(rewards.len(), values.len(), "a value for each reward");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next, mut advantage) = (f64::from(after), 0.0);
    for ((slot, &reward), &value) in advantages.iter_mut().zip(rewards).zip(values).rev() {
        let value = f64::from(value);
        advantage = f64::from(reward) + gamma * next - value + gamma * lambda * advantage;
        (next, *slot) = (value, advantage as f32);
    }
    advantages
}

/// What a critic learns: advantages plus the values that they were made with (by `lambda` 1 the discounted sums of rewards).
///
/// # Panics
/// The lengths differ.
pub fn returns(advantages: &[f32], values: &[f32]) -> Vec<f32> {
    assert_eq!(advantages.len(), values.len(), "a value for each advantage");
    advantages.iter().zip(values).map(|(a, v)| a + v).collect()
}

/// Divides the numbers that `counts` says by their standard deviation, √(variance over n − 1, + 1e-8), around their mean, which
/// is taken away where `shift` is true. The others become 0. TRL's `masked_whiten` (0.29, trl/experimental/ppo/ppo_trainer.py): with
/// the shift for advantages, without for rewards. A number alone has no deviation (in TRL it is divided by 0).
///
/// # Panics
/// The lengths differ.
pub fn whiten(x: &mut [f32], counts: &[bool], shift: bool) {
    assert_eq!(x.len(), counts.len(), "whether each number counts");
    let (mean, variance) = moments(x.iter().zip(counts).filter(|(_, counts)| **counts).map(|(x, _)| x));
    let (scale, back) = (1.0 / (variance + VARIANCE_EPS).sqrt(), if shift { 0.0 } else { mean });
    for (x, &counts) in x.iter_mut().zip(counts) {
        *x = if counts { ((f64::from(*x) - mean) * scale + back) as f32 } else { 0.0 };
    }
}

/// The price of a nat of KL, which follows a target: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2, as TRL writes it
/// (`AdaptiveKLController`, 0.11).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveKl {
    /// The price now.
    pub coef: f64,
    /// The KL that is aimed at, in nats an answer.
    pub target: f64,
    /// Over so many answers the price changes by the error's share of itself.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Takes in that `answers` answers had this KL on average: the price is multiplied by 1 + error·answers/horizon, with an error
    /// of KL/target − 1, at most 0.2 either way.
    pub fn update(&mut self, kl: f64, answers: usize) {
        let error = (kl / self.target - 1.0).clamp(-MOST_ERROR, MOST_ERROR);
        self.coef *= 1.0 + error * answers as f64 / self.horizon;
    }
}

/// Weights for tokens that another program, or other weights, sampled: min(exp(current − behaviour), `cap`), each of a token.
/// Truncated importance sampling: Ionides 2008, J. Comput. Graph. Stat. 17(2); TRL's `token_truncate`. They multiply advantages,
/// see [`ops::policy`](crate::ops::policy).
///
/// # Panics
/// The lengths differ.
pub fn importance_weights(current: &[f32], behaviour: &[f32], cap: f64) -> Vec<f32> {
    assert_eq!(current.len(), behaviour.len(), "log-probabilities of other tokens");
    let weight = |(&c, &b): (&f32, &f32)| libm::exp(f64::from(c) - f64::from(b)).min(cap) as f32;
    current.iter().zip(behaviour).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_agrees_has_no_advantage_whatever_it_is_divided_by() {
        let rewards = [0.1f32, 0.1, 0.1, 1.0, 0.0, 1.0];
        for scale in [Scale::Group, Scale::Batch, Scale::Nothing] {
            let Grouped { advantages, alike } = group_advantages(&rewards, 3, scale);
            assert_eq!((&advantages[..3], &alike[..]), (&[0.0; 3][..], &[true, false][..]));
            assert!(advantages[3] > 0.0 && advantages[4] < 0.0 && advantages[3..].iter().sum::<f32>().abs() < 1e-6);
        }
        // One answer agrees with itself.
        assert_eq!(group_advantages(&[3.0], 1, Scale::Group), Grouped { advantages: vec![0.0], alike: vec![true] });
        assert_eq!(group_advantages(&rewards, 3, Scale::Group).share_alike(), 0.5);
    }

    #[test]
    fn advantages_by_deviation_do_not_see_the_scale_of_rewards() {
        let rewards = [0.3f32, 1.2, -0.4, 2.0];
        let times = |c: f32| group_advantages(&rewards.map(|r| c * r + 5.0), 4, Scale::Group).advantages;
        assert!(times(1.0).iter().zip(times(8.0)).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn lambda_goes_from_one_step_to_the_whole_sum() {
        let (rewards, values) = ([1.0f32, -2.0, 0.5], [0.25f32, 1.0, -0.5]);
        // 0: the error of one step; 1: what came, discounted, less the value; the last state is worth 4.
        assert_eq!(gae(&rewards, &values, 4.0, 0.5, 0.0), [1.0 + 0.5 - 0.25, -2.0 - 0.25 - 1.0, 0.5 + 2.0 + 0.5]);
        let whole = gae(&rewards, &values, 4.0, 0.5, 1.0);
        assert_eq!(returns(&whole, &values), [1.0 - 1.0 + 0.125 + 0.5, -2.0 + 0.25 + 1.0, 2.5]);
    }

    #[test]
    fn what_is_white_has_a_deviation_of_1_and_what_does_not_count_stays_out() {
        let counts = [true, true, false, true, true];
        let mut x = [1.0f32, 2.0, f32::NAN, 4.0, 9.0];
        let mut unshifted = x;
        whiten(&mut x, &counts, true);
        whiten(&mut unshifted, &counts, false);
        let left: Vec<f32> = x.iter().zip(counts).filter(|(_, counts)| *counts).map(|(x, _)| *x).collect();
        let (mean, variance) = moments(&left);
        assert!(mean.abs() < 1e-7 && (variance - 1.0).abs() < 1e-6 && x[2] == 0.0, "{x:?}");
        assert!(x.iter().zip(unshifted).zip(counts).all(|((a, b), counts)| !counts || (b - a - 4.0).abs() < 1e-6));
        let mut alone = [7.0f32];
        whiten(&mut alone, &[true], false);
        assert_eq!(alone, [7.0]);
    }

    #[test]
    fn the_price_of_the_kl_rises_above_its_target_and_falls_below() {
        let mut kl = AdaptiveKl { coef: 0.2, target: 6.0, horizon: 1000.0 };
        kl.update(6.0, 100);
        assert_eq!(kl.coef, 0.2);
        kl.update(60.0, 100);
        assert!((kl.coef - 0.2 * 1.02).abs() < 1e-12, "{}", kl.coef);
        kl.update(5.4, 100);
        assert!((kl.coef - 0.2 * 1.02 * 0.99).abs() < 1e-12, "{}", kl.coef);
    }

    #[test]
    fn rewards_of_tokens_sum_to_the_score_less_the_kl() {
        let rewards = token_rewards(2.0, &[-1.0, -0.5, -2.0], &[-1.5, -0.5, -1.0], 0.5);
        assert_eq!(rewards, [-0.25, 0.0, 2.5]);
        assert!(token_rewards(2.0, &[], &[], 0.5).is_empty());
    }

    #[test]
    fn importance_weights_end_at_their_cap() {
        let weights = importance_weights(&[-1.0, -1.0, 0.0], &[-1.0, -2.0, -90.0], 2.0);
        assert_eq!(weights, [1.0, 2.0, 2.0]);
    }
}
