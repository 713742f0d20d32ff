//! Reinforcement learning of texts: what lies between rewards and the losses of [`ops::policy`](crate::ops::policy) and
//! [`ops::value`](crate::ops::value), and runs that learn by it.
//!
//! - [`advantage`]: from rewards to advantages, by groups (GRPO) or by a critic (PPO), and what surrounds them: rewards a token,
//!   whitening, the price of the KL, importance weights. Functions of slices, without a model.
//! - `stage.rs`: an environment's tasks as prompts; [`act`]: a model that acts there, turn by turn.
//! - `section.rs`: what a recipe says; [`reward`]: what an answer is worth; `rollout.rs`: answers as rows, and their files;
//!   `make.rs`: from prompts to answers that can be learnt from; `objective.rs`: the loss of a step on them; `task.rs`: from a recipe to a
//!   run, which is [`pretrain`](super::pretrain)'s as of all models.
//!
//! Before a step, the model answers prompts, and what it answered is what the next `updates` steps learn from. What is trained is as in
//! [fine-tuning](super::tune), and the base of a run is its reference.

pub mod act;
pub mod advantage;
pub mod best;
mod make;
mod objective;
mod player;
pub mod reward;
mod rollout;
pub mod section;
mod stage;
mod task;

pub use objective::Reinforced;
pub use player::{Manner, Player};
pub use rollout::{Rollouts, Rows};
pub use section::{Agency, Method, Reinforcement};
pub use task::Reinforce;
pub(in crate::train) use task::{LEAST_ENTROPY, MOST};
