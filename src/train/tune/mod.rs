//! Fine-tuning: a model that is there already learns to answer as examples show.
//!
//! `section.rs`: what a recipe says; `adapt.rs`: what is trained; `prepared.rs`: the base and the examples; `objective.rs`: the loss of a step; `exam.rs`: how
//! the model does; `task.rs`: from a recipe to a run, which is
//! [`pretrain`](super::pretrain)'s as of all models. The loss is the mean over the tokens of a step that are trained on, however they
//! lie in micro-batches. A model's weights are trained as they are, or stay frozen, in f32 or fewer bits, beside adapters that
//! are ([`lora`](crate::nn::lora)); a checkpoint then holds the adapter alone, as PEFT writes it.

mod adapt;
mod exam;
mod objective;
mod prepared;
mod section;
mod task;

pub(super) use adapt::{HoldOf, files_of, layout, place, supported, with_base};
pub(super) use exam::prompt;
pub use objective::Sft;
pub(super) use objective::flops;
pub use prepared::{Base, Prepared, open, read, templated};
pub use section::{Held, Method, PREFER, REINFORCE, TUNE, TuneData, TuneKind, TuneModel, TuneRecipe, TuneSample};
pub use task::Tune;
