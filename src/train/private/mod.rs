//! Private training (DP-SGD): a model that nearly hides whether any one example was in its data.
//!
//! A step draws each of N examples with probability q = B / N, by itself; takes the gradient gᵢ of each that was drawn, scaled down to
//! norm C; and gives the optimizer
//!
//! ```text
//! g = (Σ gᵢ · min(1, C / ‖gᵢ‖) + N(0, σ²C²)) / B
//! ```
//!
//! B is the batch that is expected, so that it tells nothing of the one that was drawn, which may be empty. So no example moves
//! the sum by more than C; what that makes of many steps, [`privacy`](crate::measure::privacy) says. What the optimizer makes of g costs nothing
//! more. The loss of an example is the mean over its targets.
//!
//! Source: Abadi et al. 2016, "Deep learning with differential privacy" (arXiv 1607.00133, algorithm 1).
//!
//! - **Who draws**: each step has a key of its own for ChaCha20, from the operating system, which is forgotten with the step: nothing that
//!   is stored tells noise or batches. With `optim.dp.reproducible` it is made from the run's seed instead, for tests.
//! - **Rounding**: the sum is kept in f64, and clipping aims a little below C, so that rounding does not move it by more. Normal numbers
//!   are half the sum of four, so that their bits do not give away the sum beneath them (Holohan, Braghin 2021, arXiv 2107.10138, against Mironov 2012).
//! - A gradient that is not finite counts as 0, and no loss is told, for what a run decides by them would tell of examples as well.

mod ahead;
mod ledger;

pub use ahead::promise;
pub use ledger::{Ledger, Part, Promise};

use super::objective::{Examples, Found as Ran, MAX_TENSORS, Objective, fill, room};
use super::recipe::Dp;
use super::trainer::{At, Parts, Trainer};
use crate::cpu::chunks;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::measure::privacy::{Mechanism, noise_for};
use crate::optim::Found;
use crate::params::{ParamId, Params};
use crate::rng::{Purpose, Rng};
use crate::tensor::{Out, Spec};
use arrayvec::ArrayVec;
use rand::rngs::OsRng;
use rand::{RngCore, SeedableRng, TryRngCore};
use rand_chacha::ChaCha20Rng;
use std::f64::consts::TAU;

/// Elements that one stream of random numbers makes the noise of.
const CHUNK: usize = 8192;

/// Clipped gradients are that much shorter than C, relatively: norms are summed in f32 in blocks, with errors below 5e-6.
const MARGIN: f64 = 1e-5;

/// What all draws of a step come from.
type Key = [u8; 32];

/// What makes the steps of a [`Trainer`] private.
pub struct Private {
    dp: Dp,
    seed: u64,
    examples: Examples,
    /// B.
    batch: f64,
    mechanism: Mechanism,
    /// The examples of the current step.
    drawn: Vec<u64>,
    /// Of each parameter that is trained, the sum of its clipped gradients: f64, two words each.
    sums: Vec<(ParamId, Out)>,
}

impl Private {
    /// For steps of about `batch` examples, so many of them, in the trained part of `params`; without `examples`, as on a dry device, one
    /// stands for all.
    ///
    /// # Errors
    /// There are fewer examples than a step is to have; no noise gives the ε that is asked for.
    pub(super) fn new(
        dp: Dp,
        seed: u64,
        (batch, steps): (u64, u64),
        examples: Option<Examples>,
        params: &Params,
    ) -> Result<Private> {
        let mechanism = match examples {
            Some(Examples { count, .. }) => mechanism(&dp, batch, count, steps)?,
            None => Mechanism { rate: 1.0, noise: 1.0 },
        };
        let sum = |id: ParamId| (id, Out::new(params.device(), Spec::f32([2 * params.weight(id).numel()])));
        Ok(Private {
            dp,
            seed,
            examples: examples.unwrap_or(Examples { count: 1, unit: "example" }),
            batch: batch as f64,
            mechanism,
            drawn: Vec::new(),
            sums: params.ids().filter(|&id| params.is_trainable(id)).map(sum).collect(),
        })
    }

    /// What a step does to each example.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What was asked for.
    pub fn settings(&self) -> &Dp {
        &self.dp
    }

    /// Whose gradients are clipped.
    pub fn examples(&self) -> Examples {
        self.examples
    }

    /// The bytes of its sums.
    pub fn bytes(&self) -> usize {
        self.sums.iter().map(|(_, sum)| sum.spec().bytes()).sum()
    }

    /// The step of a trainer, whose loss it does not tell.
    ///
    /// # Errors
    /// The data has changed since it was opened; the system has no random numbers. Weights and moments are as before.
    pub(super) fn turn<O: Objective>(
        &mut self,
        trainer: &mut Trainer<O>,
        at: At,
        lr: f64,
        parts: &mut Parts,
    ) -> Result<Found> {
        self.gradients(trainer, at, parts)?;
        let found = trainer.optim.step(&mut trainer.params, at.updates + 1, lr, &[])?;
        Ok(Found { loss: f32::NAN, ..found })
    }

    /// Leaves the private gradients of a step in the trainer's parameters.
    fn gradients<O: Objective>(&mut self, trainer: &mut Trainer<O>, at: At, parts: &mut Parts) -> Result<()> {
        let key = self.key(at.batch)?;
        self.draw(&key);
        let device = trainer.params.device().clone();
        self.sums.iter_mut().for_each(|(_, sum)| {
            device.host().threads.each(chunks(doubles(sum), CHUNK), |_, sum| sum.fill(0.0));
        });
        let one = |spec: Spec| Spec { shape: spec.shape.with_first(1), ..spec };
        let specs: ArrayVec<Spec, MAX_TENSORS> = trainer.objective.batch().into_iter().map(one).collect();
        let mut seen = Seen::default();
        for (number, &example) in self.drawn.iter().enumerate() {
            let mut x = room(&device, &specs);
            fill(&mut x, |x| trainer.objective.example(example, x))?;
            let x = x.into_iter().map(Out::freeze).collect();
            let Ran { loss, .. } = trainer.pass(0, at, (number, 1), &x);
            let norm = add(&mut self.sums, &trainer.params, self.dp.clip);
            trainer.params.clear_grads();
            if self.dp.diagnostics {
                seen.losses.push(loss.item().into());
                seen.norms.push(norm);
            }
        }
        self.release(&mut trainer.params, &key);
        if self.dp.diagnostics {
            parts.extend(seen.parts(self.dp.clip));
        }
        Ok(())
    }

    /// The key of the step with this batch.
    fn key(&self, batch: u64) -> Result<Key> {
        let mut key = Key::default();
        if self.dp.reproducible {
            Rng::new(self.seed, Purpose::Privacy, 0, batch).fill_bytes(&mut key);
        } else {
            OsRng.try_fill_bytes(&mut key).map_err(|e| {
                let hint = "private training draws its noise from there: run it where /dev/urandom or its like works";
                Error::failed(format!("the operating system has no random numbers: {e}"), hint)
            })?;
        }
        Ok(key)
    }

    /// Draws the examples of a step.
    fn draw(&mut self, key: &Key) {
        // Of all numbers of 64 bits, the share q, rounded down, is below this.
        let bound = (self.mechanism.rate * 2f64.powi(64)) as u128;
        let mut random = stream(key, 0);
        self.drawn.clear();
        self.drawn.extend((0..self.examples.count).filter(|_| u128::from(random.next_u64()) < bound));
    }

    /// Makes the gradients of a step from the sums: noise, and divided by B.
    fn release(&mut self, params: &mut Params, key: &Key) {
        let Device::Cpu(host) = params.device().clone() else { unreachable!("a GPU is refused before") };
        let (deviation, share) = (self.mechanism.noise * self.dp.clip, 1.0 / self.batch);
        for (number, (id, sum)) in self.sums.iter_mut().enumerate() {
            let (mut out, _) = params.lend_grad(*id);
            host.cpu.threads.each((chunks(out.f32_mut(), CHUNK), chunks(doubles(sum), CHUNK)), |i, (out, sum)| {
                let mut random = stream(key, 1 + ((number as u64) << 32 | i as u64));
                for (out, sum) in out.chunks_mut(2).zip(sum.chunks(2)) {
                    let noise = normals(&mut random);
                    let each = out.iter_mut().zip(sum).zip(noise);
                    each.for_each(|((out, sum), noise)| *out = (share * (sum + deviation * noise)) as f32);
                }
            });
            params.return_grad(*id, out);
            params.finish_grad(*id);
        }
    }
}

/// What a step of about `batch` of `count` examples does, so many times.
fn mechanism(dp: &Dp, batch: u64, count: u64, steps: u64) -> Result<Mechanism> {
    if batch > count {
        let problem = format!("{batch} examples a step (with train.accumulate), and there are {count} to learn from");
        return Err(Error::config("train.batch", problem, "make it smaller: in private training 1 % or less is usual"));
    }
    let (rate, delta) = (batch as f64 / count as f64, dp.delta_for(count));
    let noise = match (dp.noise, dp.epsilon) {
        (Some(noise), _) => noise,
        (None, epsilon) => {
            let epsilon = epsilon.unwrap_or(f64::INFINITY);
            noise_for(epsilon, delta, rate, steps).ok_or_else(|| {
                let problem = format!("no noise is shown to give {epsilon} at a delta of {delta:.1e} in {steps} steps");
                Error::config("optim.dp.epsilon", problem, "give more, or name the noise: optim.dp.noise")
            })?
        }
    };
    Ok(Mechanism { rate, noise })
}

/// Adds the gradients of an example, scaled down to the norm `clip`, to sums, and gives their own norm. Those that are not finite add nothing.
fn add(sums: &mut [(ParamId, Out)], params: &Params, clip: f64) -> f64 {
    let norm = params.grad_norm();
    if !norm.is_finite() {
        return norm;
    }
    let share = (clip * (1.0 - MARGIN) / norm).min(1.0);
    let threads = &params.device().host().threads;
    for (id, sum) in sums {
        let Some(grad) = params.grad(*id) else { continue };
        let grad = grad.f32();
        threads.each(chunks(doubles(sum), CHUNK), |i, sum| {
            let grad = &grad[i * CHUNK..][..sum.len()];
            sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += share * f64::from(*grad));
        });
    }
    norm
}

/// The numbers that lie in two words each.
fn doubles(out: &mut Out) -> &mut [f64] {
    bytemuck::cast_slice_mut(out.f32_mut())
}

/// Stream `number` of random numbers under a key.
fn stream(key: &Key, number: u64) -> ChaCha20Rng {
    let mut random = ChaCha20Rng::from_seed(*key);
    random.set_stream(number);
    random
}

/// Two numbers from N(0, 1): each half the sum of four, which come in pairs by the Box-Muller transform.
fn normals(random: &mut ChaCha20Rng) -> [f64; 2] {
    let mut sum = [0.0; 2];
    for _ in 0..4 {
        // 53 bits each: above 0, so that the logarithm is finite, and below 1.
        let radius = (-2.0 * libm::log(((random.next_u64() >> 11) as f64 + 1.0) * 2f64.powi(-53))).sqrt();
        let (sin, cos) = libm::sincos(TAU * (random.next_u64() >> 11) as f64 * 2f64.powi(-53));
        (sum[0], sum[1]) = (sum[0] + radius * cos, sum[1] + radius * sin);
    }
    sum.map(|sum| sum / 2.0)
}

/// What diagnostics tell of the examples of a step.
#[derive(Default)]
struct Seen {
    losses: Vec<f64>,
    norms: Vec<f64>,
}

impl Seen {
    fn parts(mut self, clip: f64) -> Parts {
        let count = self.norms.len().max(1) as f64;
        let clipped = self.norms.iter().filter(|&&norm| norm > clip).count() as f64 / count;
        self.norms.sort_by(f64::total_cmp);
        let median = self.norms.get(self.norms.len() / 2).copied().unwrap_or(f64::NAN);
        let loss = self.losses.iter().sum::<f64>() / count;
        [("not_private_loss", loss), ("not_private_clipped", clipped), ("not_private_median_norm", median)]
            .map(|(name, value)| (name, value as f32))
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests;
