//! The training loop and what surrounds it: recipes, schedules, run directories, checkpoints, the loss curve.

pub mod checkpoint;
pub mod event;
pub mod fit;
pub mod guard;
pub mod header;
pub mod histogram;
pub mod metrics;
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
pub mod tensors;
pub mod trainer;

pub use event::{Event, Summary, Watch};
pub use fit::Plan;
pub use pretrain::{plan, train};
pub use recipe::Recipe;
pub use run::RunDir;
pub use sampler::Sampler;
pub use trainer::Trainer;
