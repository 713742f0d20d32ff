//! Models: configuration, parameters, loss, generation.

pub mod gpt;

pub use gpt::{Gpt, GptConfig};
