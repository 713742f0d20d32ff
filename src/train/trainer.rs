//! One optimizer step: what a run repeats.

use super::objective::{Batch, Found as Ran, MAX_PARTS, MAX_TENSORS, Objective, Turn, fill, room, upload};
use super::private::Private;
use super::schedule::Schedule;
use super::setup::Setup;
use crate::cpu::gemm::Precision;
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::optim::{self, Found, Optimizer};
use crate::params::{Decl, Params};
use crate::ranks::Ranks;
use crate::tape::{Pass, Tape};
use crate::tensor::{Out, Spec, Tensor};
use arrayvec::ArrayVec;
use std::sync::Arc;

pub use crate::optim::Bad;

/// The numbers that a step reports beside its loss, with their names.
pub type Parts = ArrayVec<(&'static str, f32), { 2 * MAX_PARTS }>;

/// A model in training: weights, gradients, moments, and the data.
pub struct Trainer<O> {
    /// The model, its loss and its data.
    pub objective: O,
    /// Its weights, gradients and moments.
    pub params: Params,
    /// The record of the current pass; its nodes are reused.
    pub tape: Tape,
    decls: Vec<Decl>,
    specs: ArrayVec<Spec, MAX_TENSORS>,
    micros: usize,
    /// Of a step's micro-batches.
    losses: Vec<Tensor>,
    /// A GPU's micro-batches: a recorded step reads them where they are.
    batches: Vec<Batch>,
    /// What each of them reports, where a recorded step leaves it.
    found: Vec<ArrayVec<Tensor, MAX_PARTS>>,
    recording: Recording,
    seed: u64,
    precision: Precision,
    schedule: Schedule,
    pub(super) optim: Optimizer,
    /// What makes steps private, where they are.
    pub(super) private: Option<Private>,
    /// Who shares the micro-batches.
    ranks: Arc<Ranks>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The mean loss of the step's tokens or pictures, in nats; of several networks the sum of theirs.
    pub loss: f32,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Why the step was skipped, where it was; see [`guard`](super::guard).
    pub bad: Option<Bad>,
    /// What the objective reports beside the loss.
    pub parts: Parts,
}

/// Parameters with their first values, and the moments that the optimizer and the objective need.
fn fresh<O: Objective>(
    device: &Device,
    (objective, decls): (&O, &[Decl]),
    seed: u64,
    optim: &Optimizer,
    precision: Precision,
) -> Result<Params> {
    let mut params = Params::with(device, decls, seed, |decl| objective.hold(decl));
    optim.prepare(&mut params);
    objective.prepare(&mut params)?;
    if precision == Precision::Bf16 && matches!(device, Device::Gpu(_)) {
        params.add_shadows();
    }
    Ok(params)
}

impl<O: Objective> Trainer<O> {
    /// A model with the weights that it starts from: an objective, and the parameters that it needs.
    ///
    /// # Errors
    /// The weights cannot be read, where the objective [reads them](Objective::prepare); private training cannot keep what it is asked for.
    pub fn with(setup: Setup, (objective, decls): (O, Vec<Decl>), device: &Device) -> Result<Trainer<O>> {
        let Setup { accumulate, recompute, precision, seed, optim, schedule, dp } = setup;
        let mut tape = Tape::new(device);
        tape.recompute(recompute);
        let specs = objective.batch();
        let params = fresh(device, (&objective, &decls), seed, &optim, precision)?;
        let private = dp.map(|dp| {
            let batch = (specs[0].shape[0] * accumulate) as u64;
            Private::new(dp, seed, (batch, schedule.steps), objective.examples(), &params)
        });
        Ok(Trainer {
            specs,
            params,
            objective,
            private: private.transpose()?,
            decls,
            tape,
            micros: accumulate,
            losses: Vec::with_capacity(accumulate),
            batches: Vec::new(),
            found: Vec::new(),
            recording: Recording::After(2),
            seed,
            precision,
            schedule,
            optim,
            ranks: Arc::new(Ranks::alone()),
        })
    }

    /// The parameters that the model asked for.
    pub fn decls(&self) -> &[Decl] {
        &self.decls
    }

    /// What makes steps private, where they are.
    pub fn private(&self) -> Option<&Private> {
        self.private.as_ref()
    }

    /// Micro-batches in a step.
    pub fn micros(&self) -> usize {
        self.micros
    }

    /// From now on does its share of the micro-batches of each step, and adds gradients and losses up with the other ranks.
    ///
    /// # Errors
    /// It trains several networks in turn; GPUs do not meet.
    pub fn share(&mut self, ranks: &Arc<Ranks>) -> Result<()> {
        if ranks.size() > 1 {
            if self.objective.nets() > 1 {
                let problem = "networks that are trained in turn take whole batches: they have one process";
                return Err(Error::config("model.kind", problem, "train without mpirun"));
            }
            if let Device::Gpu(gpu) = self.params.device() {
                gpu.meet(ranks)?;
            }
            self.params.share(ranks);
        }
        self.ranks = Arc::clone(ranks);
        Ok(())
    }

    /// Who shares the micro-batches.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Gives the weights the values that they had at the start, and the moments 0.
    ///
    /// # Errors
    /// As of [`with`](Trainer::with).
    pub fn restart(&mut self) -> Result<()> {
        let device = self.params.device().clone();
        // The old ones go first: there may be no memory for two.
        self.tape.reset();
        self.params = Params::new(&device, &[], 0);
        self.recording = Recording::After(2);
        self.params = fresh(&device, (&self.objective, &self.decls), self.seed, &self.optim, self.precision)?;
        if self.ranks.size() > 1 {
            self.params.share(&self.ranks);
        }
        Ok(())
    }

    /// Does a step of a run in which none was skipped.
    ///
    /// # Errors
    /// As of [`step_with`](Trainer::step_with).
    pub fn step(&mut self, step: u64) -> Result<Step> {
        self.step_with(step.into(), None)
    }

    /// Does a step: forward and backward over its micro-batches, then one update; all of it for each network in turn. From
    /// the third step on it allocates nothing. Where the loss or a gradient is bad, weights and moments stay as they were,
    /// bit for bit: those of the networks whose turn it was or still would have been. Where training is private, what `probe` would
    /// see is not told, and so neither is the loss: it is NaN.
    ///
    /// # Errors
    /// The data has changed since it was opened; weights and moments are as before.
    pub fn step_with(&mut self, at: At, mut probe: Option<&mut Probe>) -> Result<Step> {
        let lr = self.schedule.lr(at.step);
        let mut step = Step { loss: 0.0, lr, grad_norm: 0.0, bad: None, parts: Parts::new() };
        let nets = self.objective.nets();
        for net in (0..nets).rev() {
            self.params.focus((nets > 1).then_some(net));
            let turn = match (self.private.take(), self.params.device().clone()) {
                (Some(mut private), _) => {
                    let turn = private.turn(self, at, lr, &mut step.parts);
                    self.private = Some(private);
                    turn
                }
                // A probe may ask for anything, which nothing that is recorded can; nor can turns be told apart, or ranks waited for.
                (None, Device::Gpu(gpu)) if probe.is_none() && nets == 1 && self.ranks.size() == 1 => {
                    self.recorded_step(&gpu, at, lr, &mut step.parts)
                }
                _ => self.live_turn(net, at, lr, &mut probe, &mut step.parts),
            };
            self.params.focus(None);
            let Found { loss, grad_norm, bad } = turn.inspect_err(|_| self.objective.skipped())?;
            step.loss += loss;
            step.grad_norm = step.grad_norm.hypot(grad_norm);
            step.bad = bad;
            if bad.is_some() {
                self.objective.skipped();
                return Ok(step);
            }
        }
        self.objective.stepped(&mut self.params, at.updates + 1);
        Ok(step)
    }

    /// The passes of a network and its update.
    fn live_turn(
        &mut self,
        net: u8,
        at: At,
        lr: f64,
        probe: &mut Option<&mut Probe>,
        parts: &mut Parts,
    ) -> Result<Found> {
        self.losses.clear();
        let first = parts.len();
        parts.extend(self.objective.parts(net).iter().map(|&name| (name, 0.0)));
        for micro in (self.ranks.rank()..self.micros).step_by(self.ranks.size()) {
            let x = self.batch(at, micro).inspect_err(|_| self.params.clear_grads())?;
            let Ran { mut loss, parts: found } = self.pass(net, at, (micro, self.micros), &x);
            if let Some(probe) = probe {
                probe(micro, &mut self.params, &mut loss);
            }
            self.losses.push(loss);
            self.report(first, &found, parts);
        }
        if self.ranks.size() > 1 {
            self.gather(&mut parts[first..])?;
        }
        self.optim.step(&mut self.params, at.updates + 1, lr, &self.losses)
    }

    /// Waits for the sums of gradients, losses and `parts` over all ranks.
    fn gather(&mut self, parts: &mut [(&'static str, f32)]) -> Result<()> {
        self.params.gather()?;
        let loss = self.losses.iter().map(|loss| f64::from(loss.item())).sum::<f64>() as f32;
        let mut sums: Vec<f32> = std::iter::once(loss).chain(parts.iter().map(|part| part.1)).collect();
        self.ranks.sum(&mut sums)?;
        parts.iter_mut().zip(&sums[1..]).for_each(|(part, &sum)| part.1 = sum);
        self.losses.clear();
        self.losses.push(Tensor::from_slice(self.params.device(), &sums[..1], []));
        Ok(())
    }

    /// Adds what a micro-batch found to the means over the step, from number `first` on.
    fn report(&self, first: usize, found: &[Tensor], parts: &mut Parts) {
        let share = 1.0 / self.micros as f32;
        for ((_, sum), value) in parts[first..].iter_mut().zip(found) {
            *sum += share * value.item();
        }
    }

    /// A micro-batch.
    fn batch(&mut self, at: At, micro: usize) -> Result<Batch> {
        let device = self.params.device().clone();
        let freeze = |out: ArrayVec<Out, MAX_TENSORS>| out.into_iter().map(Out::freeze).collect();
        match &device {
            Device::Cpu(_) => {
                let mut out = room(&device, &self.specs);
                fill(&mut out, |x| self.objective.fill(at.batch, micro, x))?;
                Ok(freeze(out))
            }
            Device::Gpu(gpu) => {
                let own = micro / self.ranks.size();
                if self.batches.len() == own {
                    self.batches.push(freeze(room(&device, &self.specs)));
                }
                let batch = self.batches[own].clone();
                upload(gpu, batch.iter(), |x| self.objective.fill(at.batch, micro, x))?;
                Ok(batch)
            }
        }
    }

    /// The pass that evaluates: without dropout, the same each time.
    pub fn eval_pass(&self) -> Pass {
        Pass { seed: self.seed, precision: self.precision, ..Pass::default() }
    }

    /// Forward and backward over a micro-batch: its number, and of how many gradients are shares.
    pub(super) fn pass(&mut self, net: u8, at: At, (micro, micros): (usize, usize), x: &Batch) -> Ran {
        let (seed, precision) = (self.seed, self.precision);
        let pass = Pass { seed, step: at.batch, micro: micro as u32, training: true, precision };
        let (tape, params) = (&mut self.tape, &mut self.params);
        let found =
            self.objective.turn(net, Turn { tape, params, pass, micros, last: micro + self.ranks.size() >= micros }, x);
        self.tape.settle(&mut self.params);
        found
    }

    /// A step on a GPU. What the host writes comes first, so that all the rest can be recorded, and is from the third step
    /// on.
    fn recorded_step(&mut self, gpu: &Gpu, at: At, lr: f64, parts: &mut Parts) -> Result<Found> {
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
        parts.extend(self.objective.parts(0).iter().map(|&name| (name, 0.0)));
        self.found.iter().for_each(|found| self.report(0, found, parts));
        self.params.clear_grads();
        found
    }

    /// Launches a step on a GPU.
    fn launch(&mut self, gpu: &Gpu, at: At) {
        self.losses.clear();
        self.found.clear();
        for micro in 0..self.micros {
            let Ran { loss, parts } = self.pass(0, at, (micro, self.micros), &self.batches[micro].clone());
            self.losses.push(loss);
            self.found.push(parts);
        }
        optim::gpu::launch(&self.optim, gpu, &self.params, &self.losses);
    }

    /// Floating-point operations of one step.
    pub fn flops_per_step(&self) -> f64 {
        self.micros as f64 * self.objective.flops()
    }
}
