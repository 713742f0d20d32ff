//! Models: configuration, parameters, loss, generation.

pub mod cache;
pub mod classifier;
pub mod config;
pub mod fields;
pub mod gan;
pub mod gpt;
pub mod hf;
pub mod mup;
pub mod sample;
pub mod sequence;
pub mod vae;
pub mod vqvae;

pub use cache::Cache;
pub use classifier::{Classifier, ClassifierConfig};
pub use config::{GptConfig, Mlp, Positions, Size};
pub use fields::Wrong;
pub use gan::{Gan, GanConfig, GanLoss, Scale};
pub use gpt::{Gpt, Part, Site};
pub use vae::{Elbo, Likelihood, Vae, VaeConfig};
pub use vqvae::{Quantised, VqVae, VqVaeConfig};
