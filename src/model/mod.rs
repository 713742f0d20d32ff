//! Models: configuration, parameters, loss, generation.

pub mod cache;
pub mod config;
pub mod gpt;
mod hf;
pub mod sample;

pub use cache::Cache;
pub use config::{GptConfig, Mlp, Positions, Size};
pub use gpt::Gpt;
