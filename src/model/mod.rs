//! Models: configuration, parameters, loss, generation.

pub mod cache;
pub mod gpt;
pub mod sample;

pub use cache::Cache;
pub use gpt::{Gpt, GptConfig};
