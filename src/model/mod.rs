//! Models: configuration, parameters, loss, generation.

pub mod cache;
pub mod config;
pub mod fields;
pub mod gpt;
mod hf;
pub mod sample;
pub mod vae;

pub use cache::Cache;
pub use config::{GptConfig, Mlp, Positions, Size};
pub use fields::Wrong;
pub use gpt::Gpt;
pub use vae::{Elbo, Likelihood, Vae, VaeConfig};
