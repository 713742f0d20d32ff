//! Whether a model and its batches fit this machine's memory, asked before any of it is mapped.

use crate::device::probe;
use crate::error::{Error, Result};
use crate::model::GptConfig;

/// Floats that a block keeps for its backward pass, for each token and channel: inputs and outputs of its norms, queries,
/// keys and values, the attention's output, and the MLP's four-fold width twice.
const FLOATS_PER_BLOCK: f64 = 20.0;
/// The same outside of blocks, with the gradients that are passed from block to block.
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
    // Weights, gradients and two moments.
    let state = 4.0 * 4.0 * parameters(config);
    let floats = FLOATS_PER_BLOCK * config.layers as f64 + FLOATS_OUTSIDE;
    let activations = 4.0 * floats * config.d as f64 * batch as f64 * context as f64;
    if state + activations <= limit as f64 {
        return Ok(());
    }
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let (key, what, hint) = if state > activations {
        // The larger of the embedding and the blocks.
        match config.vocab as f64 > 12.0 * config.d as f64 * config.layers as f64 {
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

/// The number of parameters, as a float because the settings may be absurd.
pub fn parameters(config: &GptConfig) -> f64 {
    let [v, t, l, c] = [config.vocab, config.context, config.layers, config.d].map(|n| n as f64);
    let block = if config.bias { 12.0 * c * c + 13.0 * c } else { 12.0 * c * c + 2.0 * c };
    v * c + t * c + l * block + if config.bias { 2.0 * c } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Gpt;
    use crate::ops::activation::Activation;

    fn config(bias: bool) -> GptConfig {
        let activation = Activation::GeluTanh;
        GptConfig { vocab: 8192, context: 256, layers: 4, heads: 4, d: 256, bias, activation, dropout: 0.0 }
    }

    #[test]
    fn parameters_are_counted_as_the_model_declares_them() {
        for bias in [false, true] {
            let (_, decls) = Gpt::new(config(bias));
            let numel: usize = decls.iter().map(|decl| decl.shape.numel()).sum();
            assert_eq!(parameters(&config(bias)), numel as f64);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_key_to_lower() {
        const GIB: u64 = 1 << 30;
        check_against(&config(true), 16, 256, 2 * GIB).unwrap();
        let key = |config: &GptConfig, batch, context| match check_against(config, batch, context, 2 * GIB) {
            Err(Error::Config { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(&config(true), 1 << 20, 256), "train.batch");
        assert_eq!(key(&config(true), 1, 1 << 20), "train.context");
        assert_eq!(key(&GptConfig { d: 65_536, layers: 1024, ..config(true) }, 1, 1), "model.d");
        assert_eq!(key(&GptConfig { vocab: 1 << 24, ..config(true) }, 1, 1), "data.vocab");
    }
}
