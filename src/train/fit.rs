//! Whether a model and its batches fit this machine's memory, asked before any of it is mapped.

use crate::device::probe;
use crate::error::{Error, Result};
use crate::model::{GptConfig, Mlp, Positions};

/// Floats that a block keeps for its backward pass, for each token: inputs and outputs of its norms and projections,
/// queries, keys and values (once more where they are turned), the attention's output, and what is inside the MLP.
fn floats_per_block(config: &GptConfig) -> f64 {
    let [d, hidden] = [config.d, config.hidden].map(|n| n as f64);
    let qkv: f64 = config.qkv_parts().iter().map(|&n| n as f64).sum();
    let turned = if config.positions == Positions::Learned { 1.0 } else { 2.0 };
    // Value and slope; gate, up and their product.
    let inside = if config.mlp == Mlp::SwiGlu { 3.0 } else { 2.0 };
    9.0 * d + turned * qkv + inside * hidden
}
/// The same outside of blocks for each channel, with the gradients that are passed from block to block.
const FLOATS_OUTSIDE: f64 = 12.0;

/// Refuses a run that needs more memory than this process can have.
///
/// # Errors
/// The estimate is above what is available; the error names the key to lower.
pub fn check(config: &GptConfig, batch: usize, context: usize) -> Result<()> {
    let memory = probe::memory();
    match memory.available.into_iter().chain(memory.cgroup_limit).min() {
        Some(limit) => check_against(config, batch, context, limit),
        None => Ok(()),
    }
}

fn check_against(config: &GptConfig, batch: usize, context: usize, limit: u64) -> Result<()> {
    // Weights, gradients and two moments, of which Muon spares one.
    let state = 4.0 * 4.0 * config.parameters();
    let floats = floats_per_block(config) * config.layers as f64 + FLOATS_OUTSIDE * config.d as f64;
    let activations = 4.0 * floats * batch as f64 * context as f64;
    if state + activations <= limit as f64 {
        return Ok(());
    }
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let (key, what, hint) = if state > activations {
        // The larger of the embedding and the blocks.
        let tables = config.vocab as f64 * config.d as f64 * if config.tied { 1.0 } else { 2.0 };
        match 2.0 * tables > config.parameters() {
            true => ("data.vocab", "the model", "lower data.vocab or model.d"),
            false => ("model.d", "the model", "lower model.d or model.layers"),
        }
    } else if batch > 1 {
        let hint = "lower train.batch and raise train.accumulate by the same factor, or lower train.context";
        ("train.batch", "the activations of a batch", hint)
    } else {
        ("train.context", "the activations of a sequence", "lower train.context, model.d or model.layers")
    };
    let problem = format!(
        "{what} would need about {} of memory, the whole run {}; {} can be had",
        gib(state.max(activations)),
        gib(state + activations),
        gib(limit as f64)
    );
    Err(Error::config(key, problem, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Size;

    const SIZE: Size = Size { vocab: 8192, context: 256, layers: 4, heads: 4, d: 256 };

    #[test]
    fn what_does_not_fit_is_refused_with_the_key_to_lower() {
        const GIB: u64 = 1 << 30;
        let small = GptConfig::gpt2(SIZE);
        check_against(&small, 16, 256, 2 * GIB).unwrap();
        let key = |config: &GptConfig, batch, context| match check_against(config, batch, context, 2 * GIB) {
            Err(Error::Config { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        for small in [small, GptConfig::llama(SIZE)] {
            assert_eq!(key(&small, 1 << 20, 256), "train.batch");
            assert_eq!(key(&small, 1, 1 << 20), "train.context");
            let hidden = small.hidden * 256;
            assert_eq!(key(&GptConfig { d: 65_536, hidden, layers: 1024, ..small.clone() }, 1, 1), "model.d");
            assert_eq!(key(&GptConfig { vocab: 1 << 24, ..small }, 1, 1), "data.vocab");
        }
    }
}
