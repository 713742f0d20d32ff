//! Whether a model fits into memory, asked before anything is allocated.

use super::recipe::Recipe;
use crate::device::probe;
use crate::error::{Error, Result};
use crate::model::GptConfig;

/// Bytes of weights, gradients and two moments in f32.
fn training_state(config: &GptConfig) -> f64 {
    4.0 * weights(config)
}

/// Bytes of the weights in f32.
fn weights(config: &GptConfig) -> f64 {
    let (c, layers) = (config.d as f64, config.layers as f64);
    4.0 * (layers * 12.0 * c * c + (config.vocab + config.context) as f64 * c)
}

/// Bytes that a micro-batch's activations take at the least: what a block keeps for the backward pass is 18 numbers for
/// each token and channel.
fn activations(config: &GptConfig, tokens: f64) -> f64 {
    4.0 * 18.0 * config.layers as f64 * config.d as f64 * tokens
}

/// Bytes that this process may use: the machine's memory or the cgroup's limit.
fn limit() -> Option<f64> {
    let memory = probe::memory();
    [memory.total, memory.cgroup_limit].into_iter().flatten().min().map(|bytes| bytes as f64)
}

fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / (1u64 << 30) as f64)
}

/// Refuses a run that needs more memory than there is. The estimate is a lower bound, so what it refuses cannot run.
///
/// # Errors
/// Names the key to lower and by how much memory the run is too large.
pub fn check_training(recipe: &Recipe, config: &GptConfig) -> Result<()> {
    let tokens = recipe.train.batch as f64 * recipe.train.context as f64;
    let (state, activations) = (training_state(config), activations(config, tokens));
    let Some(limit) = limit().filter(|limit| state + activations > *limit) else { return Ok(()) };
    let (key, hint) = if state > limit {
        ("model.d", "lower model.d or model.layers".to_owned())
    } else {
        let fits = (limit - state) / activations * recipe.train.batch as f64;
        let advice =
            if fits >= 1.0 { format!("train.batch = {fits:.0} would fit") } else { "lower train.context".into() };
        ("train.batch", format!("{advice}; train.accumulate makes up for a smaller batch"))
    };
    let problem = format!(
        "the run needs at least {} ({} for weights, gradients and moments, {} for activations); there are {}",
        gib(state + activations),
        gib(state),
        gib(activations),
        gib(limit)
    );
    Err(Error::config(key, problem, hint))
}

/// Refuses a model whose weights alone are larger than memory, as a damaged `config.json` may ask for.
///
/// # Errors
/// Says how large they would be.
pub fn check_weights(config: &GptConfig, file: &std::path::Path) -> Result<()> {
    let bytes = weights(config);
    match limit() {
        Some(limit) if bytes > limit => {
            let found = format!("sizes that make {} of weights", gib(bytes));
            let hint = "give a checkpoint that kiln train wrote; this one is damaged, or made for a larger machine";
            Err(Error::format(file, "sizes", format!("a model that fits into {}", gib(limit)), found, hint))
        }
        _ => Ok(()),
    }
}
