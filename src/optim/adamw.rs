//! AdamW: Adam with decoupled weight decay.
//!
//! ```text
//! g = clip · dL/dw
//! m = β₁ m + (1 − β₁) g,   v = β₂ v + (1 − β₂) g²
//! w = w − lr (m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε) + wd · w)
//! ```
//! Clipping, decay and update are one pass over the arena.
//!
//! Source: Loshchilov, Hutter 2017 (arXiv 1711.05101).

use crate::cpu::simd::each;
use crate::cpu::{Cpu, Vector, chunks};
use crate::params::{Group, Kind, Slices};
use crate::simd_fn;

/// The settings of AdamW; its moments are in the [`Group`], its step count is the caller's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// Decay of matrices.
    pub weight_decay: f64,
    /// Whether embeddings decay too; norms and biases never do.
    pub decay_embeddings: bool,
}

impl Default for AdamW {
    fn default() -> AdamW {
        let (beta1, beta2, eps, weight_decay) = (0.9, 0.95, 1e-8, 0.1);
        AdamW { beta1, beta2, eps, weight_decay, decay_embeddings: false }
    }
}

/// The numbers of one update, the same for all elements of a group; a group's own learning rate does not change its decay.
#[derive(Clone, Copy)]
struct Update {
    clip: f32,
    /// β₁ and 1 − β₁, the difference taken in f64.
    beta1: [f32; 2],
    beta2: [f32; 2],
    /// lr / (1 − β₁ᵗ).
    step: f32,
    /// 1 / √(1 − β₂ᵗ).
    rms: f32,
    eps: f32,
    /// 1 − lr · wd.
    keep: f32,
}

simd_fn! {
    fn update(u: Update, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) = update_body
}

#[inline(always)]
fn update_body<V: Vector>(u: Update, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let clip = V::splat(u.clip);
    let [beta1, rest1] = u.beta1.map(V::splat);
    let [beta2, rest2] = u.beta2.map(V::splat);
    let (step, rms, eps, keep) = (V::splat(u.step), V::splat(u.rms), V::splat(u.eps), V::splat(u.keep));
    each::<V>(
        w.len(),
        #[inline(always)]
        |i, n| {
            let g = V::at(&g[i..], n) * clip;
            let m_ = V::at(&m[i..], n).fma(beta1, g * rest1);
            let v_ = V::at(&v[i..], n).fma(beta2, g * g * rest2);
            let w_ = V::at(&w[i..], n) * keep - step * m_ / v_.sqrt().fma(rms, eps);
            m_.put(&mut m[i..], n);
            v_.put(&mut v[i..], n);
            w_.put(&mut w[i..], n);
        },
    );
}

/// Elements a task.
const CHUNK: usize = 32_768;

impl AdamW {
    /// The moments that a group must hold, by the names they have in checkpoints.
    pub const MOMENTS: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    /// Whether parameters of a kind decay.
    pub fn decays(&self, kind: Kind) -> bool {
        match kind {
            Kind::Matrix => true,
            Kind::Embedding => self.decay_embeddings,
            Kind::Vector | Kind::Buffer => false,
        }
    }

    /// lr / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ), and 1 − lr · wd where `decays`, else 1.
    pub fn rates(&self, t: u64, lr: f64, decays: bool) -> [f32; 3] {
        let left = |beta: f64| 1.0 - libm::pow(beta, t as f64);
        let decay = if decays { lr * self.weight_decay } else { 0.0 };
        [lr / left(self.beta1), 1.0 / left(self.beta2).sqrt(), 1.0 - decay].map(|x| x as f32)
    }

    /// Applies the gradients of a group, times `clip`, as step `t` (from 1); a frozen group stays as it is.
    pub fn update(&self, cpu: &Cpu, group: &mut Group, t: u64, lr: f64, clip: f64) {
        let [step, rms, keep] = self.rates(t, lr, self.decays(group.kind));
        let u = Update {
            clip: clip as f32,
            beta1: [self.beta1, 1.0 - self.beta1].map(|x| x as f32),
            beta2: [self.beta2, 1.0 - self.beta2].map(|x| x as f32),
            step: step * group.rate,
            rms,
            eps: self.eps as f32,
            keep,
        };
        let Some(Slices { weights, grads, moments: [m, v], .. }) = group.for_update() else { return };
        cpu.threads.each((chunks(weights, CHUNK), chunks(m, CHUNK), chunks(v, CHUNK)), |i, (w, m, v)| {
            update(cpu.simd, u, w, &grads[i * CHUNK..][..w.len()], m, v);
        });
    }
}
