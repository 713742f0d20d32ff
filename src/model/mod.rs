//! Models: configuration, parameters, loss, generation.

pub mod gpt;
pub mod sample;

pub use gpt::{Gpt, GptConfig};
