//! The training loop and what surrounds it: recipes, schedules, run directories, checkpoints, the loss curve.

pub mod any;
pub mod checkpoint;
pub mod event;
pub mod fit;
pub mod guard;
pub mod histogram;
pub mod lm;
pub mod metrics;
pub mod objective;
pub mod pictures;
pub mod plot;
pub mod pretrain;
pub mod recipe;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod seen;
pub mod setup;
pub mod signal;
pub mod source;
pub mod task;
pub mod text;
pub mod trainer;

pub use crate::formats::{header, tensors};
pub use any::AnyRecipe;
pub use event::{Event, Summary, Watch};
pub use fit::Plan;
pub use lm::Lm;
pub use objective::Objective;
pub use pretrain::{plan, run, train};
pub use recipe::Recipe;
pub use run::RunDir;
pub use sampler::Sampler;
pub use task::Task;
pub use text::Text;
pub use trainer::Trainer;
