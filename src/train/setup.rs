//! What a training step hangs on beside its objective: how many micro-batches, how exact, which optimizer.

use super::recipe::{Dp, RecipeOf};
use super::schedule::Schedule;
use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optim::Optimizer;

/// What a [`Trainer`](super::Trainer) is made from, beside its objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
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
    /// How gradients are made private, where they are.
    pub dp: Option<Dp>,
}

impl Setup {
    /// That of a recipe.
    pub fn of<M, D, S>(recipe: &RecipeOf<M, D, S>) -> Setup {
        let train = &recipe.train;
        Setup {
            accumulate: train.accumulate,
            recompute: train.recompute == Some(true),
            precision: train.precision,
            seed: train.seed,
            optim: recipe.optim.optimizer(),
            schedule: recipe.schedule(),
            dp: recipe.optim.dp,
        }
    }

    /// Whether a device can do it.
    ///
    /// # Errors
    /// It asks a GPU for Muon, or for private training.
    pub fn supported(&self, device: &Device) -> Result<()> {
        match device {
            Device::Gpu(_) if self.optim.muon.is_some() => {
                let hint = "set it to \"adamw\", or train on the CPU (--device cpu)";
                Err(Error::config("optim.kind", "Muon has no kernels for a GPU", hint))
            }
            Device::Gpu(_) if self.dp.is_some() => {
                let problem = "private training clips and adds up gradients on the CPU";
                Err(Error::config("optim.dp", problem, "train with --device cpu"))
            }
            _ => Ok(()),
        }
    }
}
