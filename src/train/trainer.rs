//! One optimizer step, and the loss over the validation part: what a run repeats.

use super::recipe::{Activation, Recipe};
use super::schedule::Schedule;
use crate::data::{Batches, Dataset, EvalBatches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Gpt, GptConfig};
use crate::ops;
use crate::optim::AdamW;
use crate::params::Params;
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Shape, Spec};
use std::sync::Arc;

/// Fills inputs and targets of a micro-batch: `(step, micro-batch, inputs, targets)`.
type Fill = Box<dyn Fn(u64, usize, &mut [i32], &mut [i32])>;

/// A model in training: weights, gradients, moments, and the data.
pub struct Trainer {
    /// The model.
    pub gpt: Gpt,
    /// Its weights, gradients and moments.
    pub params: Params,
    /// The record of the current pass; its nodes are reused.
    pub tape: Tape,
    fill: Fill,
    shape: Shape,
    micros: usize,
    seed: u64,
    schedule: Schedule,
    optim: AdamW,
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
    /// The data is shorter than a window.
    pub fn new(recipe: &Recipe, vocab: usize, data: Arc<Dataset>, device: &Device) -> Result<Trainer> {
        let train = &recipe.train;
        let batches = Batches::new(data, train.batch, train.context, train.accumulate, train.seed)?;
        let fill = move |step, micro, x: &mut [i32], y: &mut [i32]| batches.fill(step, micro, x, y);
        Ok(Trainer::with(recipe, vocab, Box::new(fill), device))
    }

    /// A trainer without data, for a [dry](Device::dry) device.
    pub fn dry(recipe: &Recipe, vocab: usize, device: &Device) -> Trainer {
        Trainer::with(recipe, vocab, Box::new(|_, _, _, _| {}), device)
    }

    fn with(recipe: &Recipe, vocab: usize, fill: Fill, device: &Device) -> Trainer {
        let Recipe { model, train, optim, .. } = recipe;
        let config = GptConfig {
            vocab,
            context: train.context,
            layers: model.layers,
            heads: model.heads,
            d: model.d,
            bias: model.bias,
            activation: match model.activation {
                Activation::Gelu => ops::activation::Activation::GeluErf,
                Activation::GeluTanh => ops::activation::Activation::GeluTanh,
            },
            dropout: model.dropout,
        };
        let (gpt, decls) = Gpt::new(config);
        let mut tape = Tape::new(device);
        tape.recompute(train.recompute);
        Trainer {
            gpt,
            params: Params::new(device, &decls, train.seed, AdamW::MOMENTS.len()),
            tape,
            fill,
            shape: [train.batch, train.context].into(),
            micros: train.accumulate,
            seed: train.seed,
            schedule: recipe.schedule(),
            optim: AdamW {
                beta1: optim.beta1,
                beta2: optim.beta2,
                eps: optim.eps,
                weight_decay: optim.weight_decay,
                decay_embeddings: optim.decay_embeddings,
                clip: (optim.clip > 0.0).then_some(optim.clip),
            },
        }
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
            (self.fill)(step, micro, x.as_mut_slice(), y.as_mut_slice());
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
        let total = data.len().min(max_batches.unwrap_or(usize::MAX));
        let (mut nats, mut targets, mut whole) = (0.0, 0, true);
        for index in 0..total {
            nats += self.eval_batch(|x, y, weights| targets += data.fill(index, x, y, weights));
            whole = progress(index + 1, total);
            if !whole {
                break;
            }
        }
        self.tape.reset();
        whole.then_some((nats, targets))
    }

    /// The sum of the negative log-likelihoods of the batch that `fill` puts into inputs, targets and weights, in nats.
    pub fn eval_batch(&mut self, fill: impl FnOnce(&mut [i32], &mut [i32], &mut [f32])) -> f64 {
        let device = self.params.device().clone();
        let new = |dtype| Out::new(&device, Spec { shape: self.shape, dtype });
        let (mut x, mut y, mut weights) = (new(DType::I32), new(DType::I32), new(DType::F32));
        fill(x.as_mut_slice(), y.as_mut_slice(), weights.f32_mut());
        self.tape.begin(&self.params, Pass { seed: self.seed, ..Pass::default() });
        let tape = &self.tape;
        let [x, y, weights] = [x, y, weights].map(|out| tape.constant(out.freeze()));
        f64::from(tape.no_grad(|| self.gpt.loss(x, y, Some(weights), Some(1.0))).value().item())
    }

    /// Floating-point operations of one step.
    pub fn flops_per_step(&self) -> f64 {
        let tokens = self.micros * self.shape.numel();
        self.gpt.config().flops_per_token(self.shape[1]) * tokens as f64
    }
}
