//! All that a training step hangs on beside its data: the model, the batch, the optimizer.

use super::recipe::Recipe;
use super::schedule::Schedule;
use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::device::kernels::{self, Float};
use crate::error::{Error, Result};
use crate::model::GptConfig;
use crate::optim::Optimizer;

/// What a [`Trainer`](super::Trainer) is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The model.
    pub config: GptConfig,
    /// B: sequences of a micro-batch.
    pub batch: usize,
    /// T: tokens in a sequence.
    pub context: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Whether blocks run again in the backward pass, as in [`Tape::recompute`](crate::tape::Tape::recompute).
    pub recompute: bool,
    /// What linear layers and attention multiply, as in [`Pass`](crate::tape::Pass).
    pub precision: Precision,
    /// Of the weights at the start and of dropout.
    pub seed: u64,
    /// What updates the weights.
    pub optim: Optimizer,
    /// Its learning rate.
    pub schedule: Schedule,
}

impl Setup {
    /// That of a recipe, over a vocabulary of `vocab` ids.
    pub fn of(recipe: &Recipe, vocab: usize) -> Setup {
        let train = &recipe.train;
        Setup {
            config: recipe.model.config(vocab, train.context),
            batch: train.batch,
            context: train.context,
            accumulate: train.accumulate,
            recompute: train.recompute,
            precision: train.precision,
            seed: train.seed,
            optim: recipe.optim.optimizer(),
            schedule: recipe.schedule(),
        }
    }

    /// Whether a device can do it.
    ///
    /// # Errors
    /// It asks a GPU for Muon, for heads that attention has no kernels for, or in bf16 for rows that are no multiples of 16
    /// bytes.
    pub fn supported(&self, device: &Device) -> Result<()> {
        let Device::Gpu(_) = device else { return Ok(()) };
        if self.optim.muon.is_some() {
            let hint = "set it to \"adamw\", or train on the CPU (--device cpu)";
            return Err(Error::config("optim.kind", "Muon has no kernels for a GPU", hint));
        }
        let half = self.precision == Precision::Bf16;
        let GptConfig { d, heads, hidden, .. } = self.config;
        let name = self.precision.name();
        if !kernels::attends(if half { Float::Bf16 } else { Float::F32 }, d / heads) {
            let problem = format!("a GPU has no kernel for heads of {} channels in {name}", d / heads);
            return Err(Error::config("model.heads", problem, kernels::HEADS));
        }
        if half && !(d % 8 == 0 && hidden % 8 == 0) {
            let problem =
                format!("widths of {d} and {hidden}: rows of a GPU's products in bf16 are multiples of 8 elements");
            return Err(Error::config("model.d", problem, "take multiples of 8, or train.precision = \"f32\""));
        }
        Ok(())
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.batch * self.context * self.accumulate
    }
}
