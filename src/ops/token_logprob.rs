//! The log-probability of a token and the entropy of the distribution it is from, both in nats, row by row.
//!
//! ```text
//! p = softmax(logits)        logp = log p_id        entropy H = −Σ_j p_j log p_j
//! ```
//! logits: (N, V), or (…, V) with N rows; ids: i32, N of them, each below V. Results: logp and entropy, with the shape of
//! ids. A logit of −∞ is a token that cannot come: its p is 0 and so is its term p log p.
//!
//! Backward, per row: `dlogits_j = dlogp · (1[j = id] − p_j) − dH · p_j (log p_j + H)`. Saved: the log of the partition
//! sum of each row; the p_j are computed again.
//!
//! This is the form over logits that stand whole; where they come from a linear head and need not, see `linear_xent`.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Lanes, Vector, chunks, math};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels;
use crate::launch::{at, flag, float, maybe, n};
use crate::tape::{Array64, Dx, Need, Op, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Inputs: logits, ids. Results: logp, entropy.
#[derive(Clone, Copy, Debug)]
pub struct TokenLogprob;

/// p log p, which is 0 where p is, though log p is −∞ there.
#[inline(always)]
fn plogp<V: Vector>(p: V, log_p: V) -> V {
    (p * log_p).select(p.gt(V::splat(0.0)), V::splat(0.0))
}

simd_fn! {
    /// The log of Σ eˣ over a row, and the entropy of its softmax.
    fn row_stats(x: &[f32]) -> (f32, f32) = row_stats_body
}

#[inline(always)]
fn row_stats_body<V: Vector>(x: &[f32]) -> (f32, f32) {
    let mut max = Lanes::<V>::splat(f32::NEG_INFINITY);
    max.run(
        x.len(),
        #[inline(always)]
        |i, w| V::at_or(&x[i..], w, f32::NEG_INFINITY),
        #[inline(always)]
        |a, x| a.max(x),
    );
    let max = max.max();
    let mut total = Lanes::<V>::splat(0.0);
    total.run(
        x.len(),
        #[inline(always)]
        |i, w| math::exp(V::at_or(&x[i..], w, f32::NEG_INFINITY) - V::splat(max)),
        #[inline(always)]
        |a, e| a + e,
    );
    let mut log = [0.0; 16];
    math::log(V::splat(total.sum())).store(&mut log);
    let log_z = max + log[0];
    let mut entropy = Lanes::<V>::splat(0.0);
    entropy.run(
        x.len(),
        #[inline(always)]
        |i, w| {
            let log_p = V::at_or(&x[i..], w, f32::NEG_INFINITY) - V::splat(log_z);
            plogp(math::exp(log_p), log_p)
        },
        #[inline(always)]
        |a, x| a - x,
    );
    (log_z, entropy.sum())
}

simd_fn! {
    /// `dx = beta dx − p (dlogp + dentropy (log p + entropy))`: all of a row's gradient but for dlogp at the token.
    fn row_gradient(beta: f32, dx: &mut [f32], x: &[f32], log_z: f32, entropy: f32, dlogp: f32, dentropy: f32)
        = row_gradient_body
}

#[inline(always)]
fn row_gradient_body<V: Vector>(
    beta: f32,
    dx: &mut [f32],
    x: &[f32],
    log_z: f32,
    entropy: f32,
    dlogp: f32,
    dentropy: f32,
) {
    accumulate::<V>(beta, dx, #[inline(always)] |i, w| {
        let log_p = V::at(&x[i..], w) - V::splat(log_z);
        let p = math::exp(log_p);
        let first = p * V::splat(dlogp);
        let second = p.fma(V::splat(entropy), plogp(p, log_p)) * V::splat(dentropy);
        -(first + second)
    });
}

impl Op for TokenLogprob {
    fn name(&self) -> &'static str {
        "token_logprob"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let ((rows, _), ids) = (x[0].shape.as_matrix(), x[1].shape);
        assert_eq!(rows, ids.numel(), "token_logprob: logits {:?}, ids {ids:?}", x[0].shape);
        Specs::from_iter([Spec::f32(ids), Spec::f32(ids)])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, (rows, vocab)) = (x[0].cpu(), x[0].shape().as_matrix());
        let mut log_z = Out::new(x[0].device(), Spec::f32([rows]));
        let (logits, ids) = (x[0].f32(), x[1].i32());
        let [logp, entropy] = y else { unreachable!("two results") };
        let size = (CHUNK / vocab).max(1);
        let parts = (chunks(logp.f32_mut(), size), chunks(entropy.f32_mut(), size), chunks(log_z.f32_mut(), size));
        cpu.threads.each(parts, |i, (logp, entropy, log_z)| {
            for (r, ((logp, entropy), log_z)) in (i * size..).zip(logp.iter_mut().zip(entropy).zip(log_z)) {
                let row = &logits[r * vocab..][..vocab];
                (*log_z, *entropy) = row_stats(cpu.simd, row);
                *logp = row[ids[r] as usize] - *log_z;
            }
        });
        if need[0].wanted() { Tensors::from_iter([log_z.freeze()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, vocab) = (x[0].cpu(), x[0].shape().last_dim());
        let (logits, ids, entropy, log_z) = (x[0].f32(), x[1].i32(), y[1].f32(), saved[0].f32());
        let at = |dy: &Option<Tensor>, r: usize| dy.as_ref().map_or(0.0, |dy| dy.f32()[r]);
        let mut dx = dx.out(0);
        let beta = dx.beta;
        let size = (CHUNK / vocab).max(1);
        cpu.threads.each(chunks(dx.f32_mut(), size * vocab), |i, dx| {
            for (r, dx) in (i * size..).zip(dx.chunks_exact_mut(vocab)) {
                let (dlogp, dentropy) = (at(&dy[0], r), at(&dy[1], r));
                let row = &logits[r * vocab..][..vocab];
                row_gradient(cpu.simd, beta, dx, row, log_z[r], entropy[r], dlogp, dentropy);
                dx[ids[r] as usize] += dlogp;
            }
        });
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (rows, vocab) = x[0].shape().as_matrix();
        let log_z = Out::new(x[0].device(), Spec::f32([rows]));
        let args = [at(&x[0]), at(&x[1]), at(&y[0]), at(&y[1]), at(&log_z), n(vocab), n(vocab)];
        gpu.launch(kernels::logits("token_logprob_fwd", float(&x[0]), rows, vocab), &args);
        if need[0].wanted() { Tensors::from_iter([log_z.freeze()]) } else { Tensors::new() }
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let (rows, vocab) = x[0].shape().as_matrix();
        let dx = dx.out(0);
        let [dlogp, dentropy] = [0, 1].map(|i| maybe(dy[i].as_ref()));
        let numbers = [n(vocab), n(vocab), flag(dx.beta != 0.0)];
        let args = [at(&x[0]), at(&x[1]), at(&y[1]), at(&saved[0]), dlogp, dentropy, at(&dx)];
        gpu.launch(kernels::logits("token_logprob_bwd", float(&x[0]), rows, vocab), &[args.as_slice(), &numbers].concat());
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (mut logp, mut entropy) = (Vec::new(), Vec::new());
        for (row, &id) in x[0].rows().zip(&x[1].data) {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_z = max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            logp.push(row[id as usize] - log_z);
            let term = |x: &f64| if x.is_finite() { (x - log_z).exp() * (x - log_z) } else { 0.0 };
            entropy.push(-row.iter().map(term).sum::<f64>());
        }
        [logp, entropy].map(|y| Array64::new(x[1].shape, y)).into()
    }
}

impl<'t> Var<'t> {
    /// The log-probability of each of `ids` under the softmax of its row of these logits, (…, V), and the entropy of that
    /// row's softmax, both with the shape of `ids` and in nats.
    pub fn token_logprob(self, ids: Var<'t>) -> (Var<'t>, Var<'t>) {
        let y = self.tape().apply(TokenLogprob, &[self, ids]);
        (y, y.output(1))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |rows: usize, vocab: usize| {
        let logits = Input { fill: super::Fill::Normal(1.0, 2.0), ..Input::normal([rows, vocab]) };
        [logits, Input::ids([rows], vocab)]
    };
    let masked: Vec<f32> = (0..70).map(|i| if i % 3 == 1 { f32::NEG_INFINITY } else { (i as f32).sin() }).collect();
    vec![
        Case::check("5x17", TokenLogprob, inputs(5, 17)),
        Case::check("one token", TokenLogprob, inputs(3, 1)),
        Case::check("40x1003, several tasks", TokenLogprob, inputs(40, 1003)),
        Case::check(
            "with tokens that cannot come",
            TokenLogprob,
            [Input::values([2, 35], &masked), Input { fill: super::Fill::Values(vec![0.0, 34.0]), ..Input::ids([2], 35) }],
        ),
        Case::bench("512x32768", TokenLogprob, inputs(512, 32_768)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;

    #[test]
    fn a_masked_token_has_no_gradient_and_breaks_none() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let mut params = Params::new(&device, &[], 0);
        let logits = tape.variable(Tensor::from_slice(&device, &[0.5f32, f32::NEG_INFINITY, 0.5], [1, 3]));
        let (logp, entropy) = logits.token_logprob(tape.constant(Tensor::from_slice(&device, &[2i32], [1])));
        let half = std::f32::consts::LN_2;
        assert!((logp.value().item() + half).abs() < 1e-6 && (entropy.value().item() - half).abs() < 1e-6);
        (logp + entropy).backward(&mut params, true);
        let grad = logits.grad().expect("a gradient");
        let expected = [-0.5, 0.0, 0.5];
        assert!(grad.f32().iter().zip(expected).all(|(g, e): (&f32, f32)| (g - e).abs() < 1e-6), "{:?}", grad.f32());
    }
}
