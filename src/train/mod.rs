//! The training loop and what surrounds it: recipes, schedules, run directories, checkpoints, the loss curve.

pub mod checkpoint;
pub mod event;
pub mod hf;
pub mod metrics;
pub mod plot;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod signal;
pub mod tensors;

pub use event::{Event, Summary, Watch};
pub use recipe::Recipe;
pub use run::RunDir;
