//! Reinforcement learning of texts: what lies between rewards and the losses of [`ops::policy`](crate::ops::policy) and
//! [`ops::value`](crate::ops::value).
//!
//! - [`advantage`]: from rewards to advantages, by groups (GRPO) or by a critic (PPO), and what surrounds them: rewards a token,
//!   whitening, the price of the KL, importance weights. Functions of slices, without a model.

pub mod advantage;
