//! One optimizer step, and the loss over the validation part: what a run repeats.

use super::recipe::Recipe;
use super::schedule::Schedule;
use super::setup::Setup;
use crate::cpu::gemm::Precision;
use crate::data::{Batches, Dataset, EvalBatches};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::model::Gpt;
use crate::model::sample::{SampleOptions, generate};
use crate::optim::{self, Found, Optimizer};
use crate::params::{Decl, Hold, Params};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Element, Out, Shape, Spec, Tensor};
use std::sync::Arc;

pub use crate::optim::Bad;

/// Fills inputs and targets of a micro-batch: `(step, micro-batch, inputs, targets)`.
pub type Fill = Box<dyn Fn(u64, usize, &mut [i32], &mut [i32]) -> Result<()>>;

/// A model in training: weights, gradients, moments, and the data.
pub struct Trainer {
    /// The model.
    pub gpt: Gpt,
    /// Its weights, gradients and moments.
    pub params: Params,
    /// The record of the current pass; its nodes are reused.
    pub tape: Tape,
    decls: Vec<Decl>,
    fill: Fill,
    shape: Shape,
    micros: usize,
    /// Of a step's micro-batches.
    losses: Vec<Tensor>,
    /// A GPU's inputs and targets of each micro-batch: a recorded step reads them where they are.
    ids: Vec<[Tensor; 2]>,
    recording: Recording,
    seed: u64,
    precision: Precision,
    schedule: Schedule,
    optim: Optimizer,
}

/// A GPU's step as one call.
#[derive(Clone, Copy, Debug)]
enum Recording {
    /// It is made after so many steps, when everything is loaded and allocated.
    After(u32),
    /// Its number.
    Made(usize),
}

/// Which step it is, from 0. The three are equal until a step is skipped or a run goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its number: gives the learning rate.
    pub step: u64,
    /// The number of its batch: gives the data and the dropout masks.
    pub batch: u64,
    /// Updates done before: gives the optimizer's bias correction.
    pub updates: u64,
}

impl From<u64> for At {
    fn from(step: u64) -> At {
        At { step, batch: step, updates: step }
    }
}

/// Called after the backward pass of each micro-batch, with its number, the gradients so far and its share of the loss.
pub type Probe<'a> = dyn FnMut(usize, &mut Params, &mut Tensor) + 'a;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The mean loss of the step's tokens, in nats.
    pub loss: f32,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Why the step was skipped, where it was; see [`guard`](super::guard).
    pub bad: Option<Bad>,
}

/// Parameters with their first values, and the moments that the optimizer needs.
fn fresh(device: &Device, decls: &[Decl], seed: u64, optim: &Optimizer, precision: Precision) -> Params {
    let mut params = Params::new(device, decls, seed);
    optim.prepare(&mut params);
    if precision == Precision::Bf16 && matches!(device, Device::Gpu(_)) {
        params.add_shadows();
    }
    params
}

/// Lets `write` fill buffers, wherever they are.
fn fill<T: Element, const N: usize>(out: &mut [Out; N], write: impl FnOnce([&mut [T]; N]) -> Result<()>) -> Result<()> {
    match out[0].device().clone() {
        Device::Cpu(_) => write(out.each_mut().map(|out| out.as_mut_slice())),
        Device::Gpu(gpu) => upload(&gpu, out.each_ref().map(|out| &**out), write),
    }
}

/// Lets `write` fill tensors of a GPU, by way of the host.
fn upload<T: Element, const N: usize>(
    gpu: &Gpu,
    to: [&Tensor; N],
    write: impl FnOnce([&mut [T]; N]) -> Result<()>,
) -> Result<()> {
    let mut host = to.map(|to| vec![T::zeroed(); to.numel()]);
    write(host.each_mut().map(|x| &mut x[..]))?;
    to.iter().zip(&host).for_each(|(to, x)| gpu.upload(to.ptr(), bytemuck::cast_slice(x)));
    Ok(())
}

/// Forward and backward over one micro-batch, `ids` (B, T) and their targets: adds to the gradients, and returns the sum of
/// the losses over `norm`. `last`: see [`Var::backward`](crate::tape::Var::backward).
fn micro_batch(
    gpt: &Gpt,
    tape: &mut Tape,
    params: &mut Params,
    pass: Pass,
    ids: [Tensor; 2],
    norm: f32,
    last: bool,
) -> Tensor {
    tape.begin(params, pass);
    tape.lend(params, gpt.head());
    let [x, y] = ids.map(|ids| tape.constant(ids));
    let loss = gpt.loss(x, y, None, Some(norm));
    let value = loss.value();
    loss.backward(params, last);
    value
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
        Ok(Trainer::with(Setup::of(recipe, vocab), Box::new(fill), device))
    }

    /// A trainer without data, for a [dry](Device::dry) device.
    pub fn dry(recipe: &Recipe, vocab: usize, device: &Device) -> Trainer {
        Trainer::with(Setup::of(recipe, vocab), Box::new(|_, _, _, _| Ok(())), device)
    }

    /// A model with fresh weights, whose batches `fill` makes.
    pub fn with(setup: Setup, fill: Fill, device: &Device) -> Trainer {
        let Setup { config, batch, context, accumulate, recompute, precision, seed, optim, schedule } = setup;
        let (gpt, decls) = Gpt::new(config);
        let mut tape = Tape::new(device);
        tape.recompute(recompute);
        Trainer {
            gpt,
            params: fresh(device, &decls, seed, &optim, precision),
            decls,
            tape,
            fill,
            shape: [batch, context].into(),
            micros: accumulate,
            losses: Vec::with_capacity(accumulate),
            ids: Vec::new(),
            recording: Recording::After(2),
            seed,
            precision,
            schedule,
            optim,
        }
    }

    /// Gives the weights the values that they had at the start, and the moments 0.
    pub fn restart(&mut self) {
        let device = self.params.device().clone();
        // The old ones go first: there may be no memory for two.
        self.tape.reset();
        self.params = Params::new(&device, &[], 0);
        self.recording = Recording::After(2);
        self.params = fresh(&device, &self.decls, self.seed, &self.optim, self.precision);
    }

    /// Does a step of a run in which none was skipped.
    ///
    /// # Errors
    /// As of [`step_with`](Trainer::step_with).
    pub fn step(&mut self, step: u64) -> Result<Step> {
        self.step_with(step.into(), None)
    }

    /// Does a step: forward and backward over its micro-batches, then one update. From the third step on it allocates
    /// nothing. Where the loss or a gradient is bad, weights and moments stay as they were, bit for bit.
    ///
    /// # Errors
    /// A shard has changed since it was opened; weights and moments are as before.
    pub fn step_with(&mut self, at: At, mut probe: Option<&mut Probe>) -> Result<Step> {
        let (t, lr) = (at.updates + 1, self.schedule.lr(at.step));
        let found = match self.params.device().clone() {
            // A probe may ask for anything, which nothing that is recorded can.
            Device::Gpu(gpu) if probe.is_none() => self.recorded_step(&gpu, at, lr)?,
            _ => {
                self.losses.clear();
                for micro in 0..self.micros {
                    let ids = self.batch(at, micro).inspect_err(|_| self.params.clear_grads())?;
                    let mut loss = self.pass(at, micro, ids);
                    if let Some(probe) = &mut probe {
                        probe(micro, &mut self.params, &mut loss);
                    }
                    self.losses.push(loss);
                }
                self.tape.reset();
                self.optim.step(&mut self.params, t, lr, &self.losses)?
            }
        };
        let Found { loss, grad_norm, bad } = found;
        Ok(Step { loss, lr, grad_norm, bad })
    }

    /// Inputs and targets of a micro-batch.
    fn batch(&mut self, at: At, micro: usize) -> Result<[Tensor; 2]> {
        let device = self.params.device().clone();
        let new = || [(); 2].map(|()| Out::new(&device, Spec { shape: self.shape, dtype: DType::I32 }));
        match &device {
            Device::Cpu(_) => {
                let mut ids = new();
                fill(&mut ids, |[x, y]| (self.fill)(at.batch, micro, x, y))?;
                Ok(ids.map(Out::freeze))
            }
            Device::Gpu(gpu) => {
                if self.ids.len() == micro {
                    self.ids.push(new().map(Out::freeze));
                }
                let ids = self.ids[micro].clone();
                upload(gpu, ids.each_ref(), |[x, y]| (self.fill)(at.batch, micro, x, y))?;
                Ok(ids)
            }
        }
    }

    /// Forward and backward over a micro-batch.
    fn pass(&mut self, at: At, micro: usize, ids: [Tensor; 2]) -> Tensor {
        let norm = (self.micros * self.shape.numel()) as f32;
        let (seed, precision) = (self.seed, self.precision);
        let pass = Pass { seed, step: at.batch, micro: micro as u32, training: true, precision };
        micro_batch(&self.gpt, &mut self.tape, &mut self.params, pass, ids, norm, micro + 1 == self.micros)
    }

    /// A step on a GPU. What the host writes comes first, so that all the rest can be recorded, and is from the third step
    /// on.
    fn recorded_step(&mut self, gpu: &Gpu, at: At, lr: f64) -> Result<Found> {
        for micro in 0..self.micros {
            self.batch(at, micro)?;
        }
        gpu.begin(self.seed, at.batch);
        gpu.set_rates(self.optim.adamw.rates(at.updates + 1, lr, true));
        match self.recording {
            Recording::After(0) => {
                let made = gpu.record(|| self.launch(gpu, at))?;
                self.recording = Recording::Made(made);
                gpu.replay(made);
            }
            Recording::After(steps) => {
                self.launch(gpu, at);
                self.recording = Recording::After(steps - 1);
            }
            Recording::Made(made) => gpu.replay(made),
        }
        let found = optim::gpu::found(gpu, &mut self.params);
        self.params.clear_grads();
        found
    }

    /// Launches a step on a GPU.
    fn launch(&mut self, gpu: &Gpu, at: At) {
        self.losses.clear();
        for micro in 0..self.micros {
            let loss = self.pass(at, micro, self.ids[micro].clone());
            self.losses.push(loss);
        }
        self.tape.reset();
        optim::gpu::launch(&self.optim, gpu, &self.params, &self.losses);
    }

    /// The sum of the negative log-likelihoods of all targets of `data`, in nats, and how many targets these are; at most
    /// `max_batches` batches. `progress(done, total)` counts batches; `None` where it returned false.
    ///
    /// # Errors
    /// A shard has changed since it was opened.
    pub fn evaluate(
        &mut self,
        data: &EvalBatches,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<(f64, usize)>> {
        let total = data.len().min(max_batches.unwrap_or(usize::MAX));
        let (mut nats, mut targets, mut whole) = (0.0, 0, true);
        for index in 0..total {
            nats += self.eval_batch(|x, y, weights| {
                targets += data.fill(index, x, y, weights)?;
                Ok(())
            })?;
            whole = progress(index + 1, total);
            if !whole {
                break;
            }
        }
        self.tape.reset();
        Ok(whole.then_some((nats, targets)))
    }

    /// The sum of the negative log-likelihoods of the batch that `batch` puts into inputs, targets and weights, in nats.
    ///
    /// # Errors
    /// Those of `batch`.
    pub fn eval_batch(&mut self, batch: impl FnOnce(&mut [i32], &mut [i32], &mut [f32]) -> Result<()>) -> Result<f64> {
        let device = self.params.device().clone();
        let new = |dtype| Out::new(&device, Spec { shape: self.shape, dtype });
        let (mut ids, mut weights) = ([new(DType::I32), new(DType::I32)], [new(DType::F32)]);
        fill(&mut ids, |[x, y]| fill(&mut weights, |[weights]| batch(x, y, weights)))?;
        self.tape.begin(&self.params, Pass { seed: self.seed, precision: self.precision, ..Pass::default() });
        let tape = &self.tape;
        let ([x, y], [weights]) = (ids, weights);
        let [x, y, weights] = [x, y, weights].map(|out| tape.constant(out.freeze()));
        Ok(f64::from(tape.no_grad(|| self.gpt.loss(x, y, Some(weights), Some(1.0))).value().item()))
    }

    /// Lets the model write; see [`generate`]. A model on a GPU writes on the host, with a copy of its weights.
    pub fn generate(
        &mut self,
        prompt: Vec<u32>,
        eot: Option<u32>,
        options: &SampleOptions,
        on_token: &mut dyn FnMut(u32) -> bool,
    ) {
        let host = match self.params.device() {
            Device::Cpu(_) => {
                generate(&self.gpt, &self.params, &mut self.tape, prompt, eot, options, on_token);
                return;
            }
            gpu @ Device::Gpu(_) => gpu.on_host(),
        };
        let mut params = Params::frozen(&host, &self.decls, Hold::Frozen);
        self.params.ids().for_each(|id| params.set_weight(id, &self.params.weight(id).read()));
        generate(&self.gpt, &params, &mut Tape::new(&host), prompt, eot, options, on_token);
    }

    /// Floating-point operations of one step.
    pub fn flops_per_step(&self) -> f64 {
        let tokens = self.micros * self.shape.numel();
        self.gpt.config().flops_per_token(self.shape[1]) * tokens as f64
    }
}
