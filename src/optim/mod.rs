//! Optimizers: how weights follow gradients, group by group.

pub mod adamw;
pub mod gpu;
pub mod muon;

pub use adamw::AdamW;
pub use muon::{Muon, MuonScale};

use crate::cpu::Cpu;
use crate::device::Device;
use crate::error::Result;
use crate::params::{Kind, ParamId, Params};
use crate::tensor::Tensor;

/// Clipping, then AdamW for all groups, or Muon for the matrices and AdamW for the rest.
///
/// ```text
/// clip = min(1, max_norm / (‖all gradients‖ + 1e-6))
/// ```
/// The gradients' norm was summed while they were written; the constant is that of PyTorch's `clip_grad_norm_`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// What updates embeddings, the head, vectors, and matrices where there is no Muon.
    pub adamw: AdamW,
    /// What updates matrices.
    pub muon: Option<Muon>,
    /// The largest norm of all gradients together; `None`: no clipping.
    pub clip: Option<f64>,
}

impl Default for Optimizer {
    fn default() -> Optimizer {
        Optimizer { adamw: AdamW::default(), muon: None, clip: Some(1.0) }
    }
}

/// What was not finite in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The loss, and no gradient.
    Loss,
    /// Gradients, this one first.
    Grad(ParamId),
}

/// What an update found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The sum of the losses.
    pub loss: f32,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// What was not finite, if anything was: then nothing changed.
    pub bad: Option<Bad>,
}

impl Optimizer {
    fn muon_for(&self, kind: Kind) -> Option<&Muon> {
        self.muon.as_ref().filter(|_| kind == Kind::Matrix)
    }

    /// Gives `params` the moments, all zero, that this optimizer keeps.
    pub fn prepare(&self, params: &mut Params) {
        params.add_moments(|kind| match self.muon_for(kind) {
            Some(_) => &Muon::MOMENTS,
            None => &AdamW::MOMENTS,
        });
    }

    /// Applies the gradients of all groups that are [being trained](Params::focus), as step `t` (from 1), and forgets them; where the loss, the sum of
    /// `losses` (one of each micro-batch), or a gradient is not finite, it only forgets them. `lr` is AdamW's learning rate.
    /// The params were [prepared](Optimizer::prepare) for this optimizer.
    ///
    /// # Errors
    /// A kernel of this step failed on the GPU.
    ///
    /// # Panics
    /// Muon is to update matrices of a GPU.
    pub fn step(&self, params: &mut Params, t: u64, lr: f64, losses: &[Tensor]) -> Result<Found> {
        let found = match params.device().clone() {
            Device::Cpu(host) => Ok(self.update(&host.cpu, params, t, lr, losses)),
            Device::Gpu(gpu) => {
                gpu.set_rates(self.adamw.rates(t, lr, true));
                gpu::launch(self, &gpu, params, losses);
                gpu::found(&gpu, params)
            }
        };
        params.clear_grads();
        found
    }

    fn update(&self, cpu: &Cpu, params: &mut Params, t: u64, lr: f64, losses: &[Tensor]) -> Found {
        let loss = losses.iter().map(|loss| f64::from(loss.item())).sum::<f64>() as f32;
        let grad_norm = params.grad_norm();
        let bad = params.first_bad_grad().map(Bad::Grad).or((!loss.is_finite()).then_some(Bad::Loss));
        if bad.is_none() {
            let clip = self.clip.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
            for group in params.trained_mut() {
                match self.muon_for(group.kind) {
                    Some(muon) => muon.update(cpu, group, lr, clip),
                    None => self.adamw.update(cpu, group, t, lr, clip),
                }
            }
        }
        Found { loss, grad_norm, bad }
    }
}
