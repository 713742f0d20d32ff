//! One optimizer step, and the loss over the validation part: what a run repeats.

use super::recipe::Recipe;
use super::schedule::Schedule;
use crate::data::{Batches, Dataset, EvalBatches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::optim::Optimizer;
use crate::params::Params;
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Shape, Spec};
use std::sync::Arc;

/// A model in training: weights, gradients, moments, and the data.
pub struct Trainer {
    /// The model.
    pub gpt: Gpt,
    /// Its weights, gradients and moments.
    pub params: Params,
    /// The record of the current pass; its nodes are reused.
    pub tape: Tape,
    batches: Batches,
    shape: Shape,
    micros: usize,
    seed: u64,
    schedule: Schedule,
    optim: Optimizer,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The mean loss of the step's tokens, in nats.
    pub loss: f32,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradient before clipping.
    pub grad_norm: f64,
}

impl Trainer {
    /// A model with fresh weights for `recipe` over a vocabulary of `vocab` ids, to be trained on `data`.
    ///
    /// # Errors
    /// The data is shorter than a window; model and batch do not fit in memory.
    pub fn new(recipe: &Recipe, vocab: usize, data: Arc<Dataset>, device: &Device) -> Result<Trainer> {
        let Recipe { model, train, optim, .. } = recipe;
        let config = model.config(vocab, train.context);
        let batches = Batches::new(data, train.batch, train.context, train.accumulate, train.seed)?;
        super::fit::check(&config, train.batch, train.context)?;
        let (gpt, decls) = Gpt::new(config);
        let mut params = Params::new(device, &decls, train.seed);
        let optim = optim.optimizer();
        optim.prepare(&mut params);
        let mut tape = Tape::new(device);
        tape.recompute(train.recompute);
        Ok(Trainer {
            gpt,
            params,
            tape,
            batches,
            shape: [train.batch, train.context].into(),
            micros: train.accumulate,
            seed: train.seed,
            schedule: recipe.schedule(),
            optim,
        })
    }

    /// Does step `step` (from 0): forward and backward over its micro-batches, then one update. From the third step on it
    /// allocates nothing.
    ///
    /// # Errors
    /// The loss or a gradient is not finite; the weights are as before the step.
    pub fn step(&mut self, step: u64) -> Result<Step> {
        let device = self.params.device().clone();
        let ids = Spec { shape: self.shape, dtype: DType::I32 };
        let norm = (self.micros * self.shape.numel()) as f32;
        let mut loss = 0.0f64;
        for micro in 0..self.micros {
            let (mut x, mut y) = (Out::new(&device, ids), Out::new(&device, ids));
            self.batches.fill(step, micro, x.as_mut_slice(), y.as_mut_slice());
            let pass = Pass { seed: self.seed, step, micro: micro as u32, training: true };
            self.tape.begin(&self.params, pass);
            let (x, y) = (self.tape.constant(x.freeze()), self.tape.constant(y.freeze()));
            let mean = self.gpt.loss(x, y, None, Some(norm));
            loss += f64::from(mean.value().item());
            mean.backward(&mut self.params, micro + 1 == self.micros);
        }
        self.tape.reset();
        let grad_norm = self.params.grad_norm();
        if !(loss.is_finite() && grad_norm.is_finite()) {
            let first = self.params.first_bad_grad().unwrap_or("none; the loss itself is not finite");
            return Err(Error::config(
                "optim.lr",
                format!("step {} is not finite: loss {loss}, first bad gradient: {first}", step + 1),
                "lower the learning rate or lengthen optim.warmup, and resume from the last checkpoint with kiln train \
                 --resume RUN",
            ));
        }
        let lr = self.schedule.lr(step);
        self.optim.step(&mut self.params, step + 1, lr, grad_norm);
        Ok(Step { loss: loss as f32, lr, grad_norm })
    }

    /// The sum of the negative log-likelihoods of all targets of `data`, in nats, and how many targets these are; at most
    /// `max_batches` batches. `progress(done, total)` counts batches; `None` where it returned false.
    pub fn evaluate(
        &mut self,
        data: &EvalBatches,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Option<(f64, usize)> {
        let device = self.params.device().clone();
        let spec = |dtype| Spec { shape: self.shape, dtype };
        let total = data.len().min(max_batches.unwrap_or(usize::MAX));
        let (mut nats, mut targets, mut whole) = (0.0, 0, true);
        for index in 0..total {
            let mut x = Out::new(&device, spec(DType::I32));
            let mut y = Out::new(&device, spec(DType::I32));
            let mut weights = Out::new(&device, spec(DType::F32));
            targets += data.fill(index, x.as_mut_slice(), y.as_mut_slice(), weights.f32_mut());
            self.tape.begin(&self.params, Pass { seed: self.seed, ..Pass::default() });
            let tape = &self.tape;
            let [x, y, weights] = [x, y, weights].map(|out| tape.constant(out.freeze()));
            let sum = tape.no_grad(|| self.gpt.loss(x, y, Some(weights), Some(1.0)));
            nats += f64::from(sum.value().item());
            whole = progress(index + 1, total);
            if !whole {
                break;
            }
        }
        self.tape.reset();
        whole.then_some((nats, targets))
    }

    /// Floating-point operations of one step.
    pub fn flops_per_step(&self) -> f64 {
        let tokens = self.micros * self.shape.numel();
        self.gpt.config().flops_per_token(self.shape[1]) * tokens as f64
    }
}
