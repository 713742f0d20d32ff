//! Preferences: a model that is there learns to answer as people like it, or to judge answers as they do.
//!
//! `section.rs`: what a recipe says; `loss.rs`: the losses; `duos.rs`: two answers side by side, as batches; `objective.rs`: the loss of a step;
//! `task.rs`: from a recipe to a run, which is [`pretrain`](super::pretrain)'s as of all models; `judge.rs`: what a reward model says of
//! answers.
//!
//! The base of a run is its reference too: what it says of every answer is computed once, before the first step, and kept. What is trained
//! is as in [fine-tuning](super::tune).

mod duos;
mod judge;
mod loss;
mod objective;
mod section;
mod task;

pub use judge::{Judge, SCORE, Scored, Scores};
pub(super) use judge::{add_score, start};
pub use loss::{Compared, kto_kl};
pub use objective::Answers;
pub use section::{Preference, PreferenceLoss};
pub use task::Prefer;
