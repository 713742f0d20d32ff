//! Optimizers: how weights follow gradients, group by group.

pub mod adamw;
pub mod muon;

pub use adamw::AdamW;
pub use muon::{Muon, MuonScale};

use crate::params::{Kind, Params};

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

    /// Applies the gradients of all trainable groups, as step `t` (from 1), and forgets them. `lr` is AdamW's learning
    /// rate; `norm` is [`Params::grad_norm`]. The params were [prepared](Optimizer::prepare) for this optimizer.
    pub fn step(&self, params: &mut Params, t: u64, lr: f64, norm: f64) {
        let device = params.device().clone();
        let cpu = device.host();
        let clip = self.clip.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0));
        for group in params.groups_mut() {
            match self.muon_for(group.kind) {
                Some(muon) => muon.update(cpu, group, lr, clip),
                None => self.adamw.update(cpu, group, t, lr, clip),
            }
        }
        params.clear_grads();
    }
}
