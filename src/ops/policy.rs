//! The clipped loss of a policy and its distance from a reference, token by token, summed in one pass: what PPO and GRPO
//! minimise.
//!
//! ```text
//! r = exp(logp − old)                             how much likelier a token is than when it was written
//! g = min(r·A, clip(r, 1 − low, 1 + high)·A)      what it gains; leaving the range gains no more
//! k = exp(d) − d − 1,  d = ref − logp             an estimate of KL(policy ‖ reference), never below 0
//! loss = Σ w (beta·k − g)      kl = Σ w k      clipped = Σ w [r·A > g]
//! ```
//! logp, old (of who wrote the tokens), ref, A (advantages), w (weights): of one shape, (B, T) as a rule, f32. Results: three
//! scalars; of kl and clipped nothing flows back. A token of weight 0 (a prompt's, padding) counts for nothing, whatever else
//! it is given; what a sum is divided by is in the weights: 1 / (B·length) of GRPO, 1 / (Σ lengths) of DAPO,
//! 1 / (B·longest) of Dr. GRPO. Weights that make up for tokens of another program's sampler (importance weights) go into
//! A and not into w, so that the KL is left as it is: that is TRL's way.
//!
//! Backward, to logp alone: `dlogp = dloss · w (−[not clipped] r·A − beta (exp(d) − 1))`; nothing is saved. k and exp(d) − 1 =
//! k + d come of the series of k near 0, where digits would cancel: policies begin as their reference.
//!
//! Sources: Schulman et al. 2017 (arXiv 1707.06347), equation 7; Shao et al. 2024 (arXiv 2402.03300), equations 3 and 4; Yu et
//! al. 2025 (arXiv 2503.14476) for a range that is wider above; k3 of Schulman, http://joschu.net/blog/kl-approx.html.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::simd::each;
use crate::cpu::{Lanes, Vector, chunks, math};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{aligned, at, flag, float, n, sums};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// The loss of a policy. Inputs: logp, old, ref, advantages, weights. Results: loss, kl, clipped; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How far r may fall below 1 before a token with a negative advantage gains no more.
    pub low: f32,
    /// How far it may rise above 1 with a positive one.
    pub high: f32,
    /// What a nat of KL costs; at 0 it is still told.
    pub beta: f32,
}

impl Default for Policy {
    /// The range of PPO's paper, no KL.
    fn default() -> Policy {
        Policy { low: 0.2, high: 0.2, beta: 0.0 }
    }
}

/// Some tokens: logp, old, ref, A, w.
#[derive(Clone, Copy)]
struct Tokens<'a>([&'a [f32]; 5]);

impl<'a> Tokens<'a> {
    fn new(x: &'a [Tensor], start: usize, len: usize) -> Tokens<'a> {
        Tokens([0, 1, 2, 3, 4].map(|i| &x[i].f32()[start..start + len]))
    }

    #[inline(always)]
    fn at<V: Vector>(&self, i: usize, w: usize) -> [V; 5] {
        let x = self.0;
        [V::at(&x[0][i..], w), V::at(&x[1][i..], w), V::at(&x[2][i..], w), V::at(&x[3][i..], w), V::at(&x[4][i..], w)]
    }
}

/// exp(d) − d − 1, by its series d² (1/2! + d/3! + …) where |d| < ½.
#[inline(always)]
fn surplus<V: Vector>(d: V) -> V {
    const TERMS: [f32; 7] = [1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let mut p = V::splat(1.0 / 362_880.0);
    for term in TERMS {
        p = p.fma(d, V::splat(term));
    }
    let whole = math::exp(d) - V::splat(1.0) - d;
    (d * d * p).select(V::splat(0.5).gt(d.abs()), whole)
}

impl Policy {
    /// r·A, the same with r clipped, and d of some tokens.
    #[inline(always)]
    fn terms<V: Vector>(self, [logp, old, reference, a, _]: [V; 5]) -> [V; 3] {
        // Finite, so that an advantage of 0 stays one. In this order NaN passes.
        let r = V::splat(f32::MAX).min(math::exp(logp - old));
        let clipped = V::splat(1.0 + self.high).min(V::splat(1.0 - self.low).max(r));
        [r * a, clipped * a, reference - logp]
    }
}

simd_fn! {
    /// The sums over some tokens: loss, kl, clipped.
    fn forward_part(op: Policy, x: Tokens) -> [f32; 3] = forward_part_body
}

#[inline(always)]
fn forward_part_body<V: Vector>(op: Policy, x: Tokens) -> [f32; 3] {
    let mut lanes = [Lanes::<V>::splat(0.0); 3];
    let (zero, beta) = (V::splat(0.0), V::splat(op.beta));
    each::<V>(
        x.0[0].len(),
        #[inline(always)]
        |i, w| {
            let tokens = x.at::<V>(i, w);
            let [plain, clipped, d] = op.terms(tokens);
            let (weight, k, gain) = (tokens[4], surplus(d), plain.min(clipped));
            let counts = weight.gt(zero);
            let cost = if op.beta == 0.0 { -gain } else { beta.fma(k, -gain) };
            lanes[0].add(i, (weight * cost).select(counts, zero));
            lanes[1].add(i, (weight * k).select(counts, zero));
            lanes[2].add(i, weight.select(plain.gt(clipped), zero).select(counts, zero));
        },
    );
    [lanes[0].sum(), lanes[1].sum(), lanes[2].sum()]
}

simd_fn! {
    /// The gradient of logp, of some tokens.
    fn backward_part(op: Policy, beta: f32, dx: &mut [f32], x: Tokens, dy: f32) = backward_part_body
}

#[inline(always)]
fn backward_part_body<V: Vector>(op: Policy, beta: f32, dx: &mut [f32], x: Tokens, dy: f32) {
    let (zero, cost, dy) = (V::splat(0.0), V::splat(op.beta), V::splat(dy));
    accumulate::<V>(
        beta,
        dx,
        #[inline(always)]
        |i, w| {
            let tokens = x.at::<V>(i, w);
            let [plain, clipped, d] = op.terms(tokens);
            let mut slope = zero.select(plain.gt(clipped), plain);
            if op.beta != 0.0 {
                slope = cost.fma(surplus(d) + d, slope);
            }
            (-slope * (dy * tokens[4])).select(tokens[4].gt(zero), zero)
        },
    );
}

impl Policy {
    /// The numbers of a launch.
    fn numbers(&self, tokens: usize) -> [Arg; 4] {
        [n(tokens), Arg::F32(1.0 - self.low), Arg::F32(1.0 + self.high), Arg::F32(self.beta)]
    }
}

impl Op for Policy {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x.len(), 5, "policy: logp, old, ref, advantages, weights");
        assert!(x.iter().all(|spec| spec == &x[0]), "policy: shapes or types differ");
        assert!(x[0].shape.numel() > 0, "policy: of nothing, {:?}", x[0].shape);
        (0..3).map(|_| Spec::f32([])).collect()
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, len) = (x[0].cpu(), x[0].numel());
        let mut partial = cpu.scratch.take(3 * len.div_ceil(CHUNK));
        cpu.threads.each(chunks(&mut partial, 3), |i, sums| {
            let tokens = Tokens::new(x, i * CHUNK, CHUNK.min(len - i * CHUNK));
            sums.copy_from_slice(&forward_part(cpu.simd, *self, tokens));
        });
        let partial = &partial[..];
        for (k, y) in y.iter_mut().enumerate() {
            cpu.threads.each(chunks(y.f32_mut(), 1), |_, y| {
                y[0] = partial.iter().skip(k).step_by(3).map(|&x| f64::from(x)).sum::<f64>() as f32;
            });
        }
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let Some(dy) = &dy[0] else { return };
        if dx.wants(0) {
            let (cpu, mut dx) = (x[0].cpu(), dx.out(0));
            let (beta, dy) = (dx.beta, dy.f32());
            cpu.threads.each(chunks(dx.f32_mut(), CHUNK), |i, dx| {
                let tokens = Tokens::new(x, i * CHUNK, dx.len());
                backward_part(cpu.simd, *self, beta, dx, tokens, dy[0]);
            });
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let whole = aligned(&[&x[0], &x[1], &x[2], &x[3], &x[4]]);
        let plan = kernels::token_sums("policy_fwd", float(&x[0]), x[0].numel(), whole);
        sums(gpu, plan, &[0, 1, 2, 3, 4].map(|i| at(&x[i])), y, &self.numbers(x[0].numel()));
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        _y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let Some(dy) = &dy[0] else { return };
        if dx.wants(0) {
            let (dx, len) = (dx.out(0), x[0].numel());
            let whole = aligned(&[&x[0], &x[1], &x[2], &x[3], &x[4], &dx]);
            let pointers = [at(&x[0]), at(&x[1]), at(&x[2]), at(&x[3]), at(&x[4]), at(dy), at(&dx)];
            let args = [&pointers[..], &self.numbers(len), &[flag(dx.beta != 0.0)]].concat();
            gpu.launch(kernels::flat("policy.ptx", "policy_bwd", float(&x[0]), len, whole), &args);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: !0, y: 0, again: 0 }
    }

    fn state(&self) -> u8 {
        0b110
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let [mut loss, mut kl, mut share] = [0.0; 3];
        for (i, &w) in x[4].data.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let [logp, old, reference, a] = [0, 1, 2, 3].map(|k| x[k].data[i]);
            let r = libm::exp(logp - old);
            let clipped = r.clamp(f64::from(1.0 - self.low), f64::from(1.0 + self.high));
            let k = libm::expm1(reference - logp) - (reference - logp);
            loss += w * (f64::from(self.beta) * k - (r * a).min(clipped * a));
            kl += w * k;
            share += if clipped * a < r * a { w } else { 0.0 };
        }
        [loss, kl, share].map(|y| Array64::new([], vec![y])).into()
    }
}

impl<'t> Var<'t> {
    /// The clipped policy loss of tokens with these log-probabilities, given those of who wrote them and of the reference,
    /// advantages and weights, all of one shape; see the [module](self). Scalars: the loss, the KL from the reference (k3)
    /// and the share of clipped tokens, all weighted sums, the latter two without a gradient.
    pub fn policy_loss(
        self,
        old: Var<'t>,
        reference: Var<'t>,
        advantages: Var<'t>,
        weights: Var<'t>,
        policy: Policy,
    ) -> (Var<'t>, Var<'t>, Var<'t>) {
        let loss = self.tape().apply(policy, &[self, old, reference, advantages, weights]);
        (loss, loss.output(1), loss.output(2))
    }
}

pub(super) fn cases() -> Vec<Case> {
    // Sixteenths, exact in bf16: log r from −9/16 to 9/16 by one, at least 0.012 off the log of 0.8 and of 1.3.
    let inputs = |shape: [usize; 2]| {
        let of = |f: &dyn Fn(usize) -> f32| (0..shape[0] * shape[1]).map(f).collect::<Vec<f32>>();
        let logp = |i: usize| -((i * 5 % 47) as f32) / 16.0;
        let old = of(&|i| logp(i) - ((i * 7 % 19) as f32 - 9.0) / 16.0);
        let reference = of(&|i| logp(i) + ((i * 11 % 25) as f32 - 12.0) / [4.0, 16.0][i % 2]);
        let advantages = of(&|i| [1.5, -0.75, 0.0, -2.0, 0.5, 1.0, -1.25][i / 3 % 7]);
        let weights = of(&|i| [0.25, 0.125, 0.0, 0.5, 0.0625][i % 5]);
        let logp = Input { grad: true, ..Input::values(shape, &of(&logp)) };
        let others = [old, reference, advantages, weights].map(|x| Input::values(shape, &x));
        [logp].into_iter().chain(others).collect::<Vec<_>>()
    };
    let wide = Policy { low: 0.2, high: 0.3, beta: 0.04 };
    vec![
        Case::check("3x5", wide, inputs([3, 5])),
        Case::check("7x64, no KL", Policy { beta: 0.0, ..wide }, inputs([7, 64])),
        Case::check("9x33, a range for nothing", Policy { high: f32::INFINITY, low: 1.0, beta: 2.0 }, inputs([9, 33])),
        Case::check("130x129, two tasks", wide, inputs([130, 129])),
        Case::bench("64x1024", wide, inputs([64, 1024])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;

    /// Loss, kl, clipped and the gradient of logp.
    fn run(policy: Policy, x: [&[f32]; 5]) -> ([f32; 3], Vec<f32>) {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let tensor = |x: &[f32]| Tensor::from_slice(&device, x, [x.len()]);
        let logp = tape.variable(tensor(x[0]));
        let [old, reference, a, w] = [1, 2, 3, 4].map(|i| tape.constant(tensor(x[i])));
        let (loss, kl, clipped) = logp.policy_loss(old, reference, a, w, policy);
        let y = [loss, kl, clipped].map(|y| y.value().item());
        loss.backward(&mut Params::new(&device, &[], 0), true);
        (y, logp.grad().expect("a gradient").f32().to_vec())
    }

    #[test]
    fn no_advantage_and_no_price_of_the_kl_leave_a_policy_alone() {
        // Also where r is beyond what f32 holds, and the KL.
        let (y, grad) = run(Policy::default(), [&[-1.0, -2.0, 0.0], &[-3.0, -2.0, -95.0], &[-1.5, 95.0, 0.0], &[0.0; 3], &[0.5; 3]]);
        assert_eq!((y[0], y[2], &grad[..]), (0.0, 0.0, &[0.0; 3][..]));
        assert!(y[1] == f32::INFINITY, "{y:?}");
    }

    #[test]
    fn a_token_without_weight_counts_for_nothing_whatever_it_is() {
        let x: [&[f32]; 5] = [&[-1.0, f32::NAN], &[-1.0, 0.0], &[-1.0, f32::INFINITY], &[2.0, f32::NAN], &[0.5, 0.0]];
        let (y, grad) = run(Policy { beta: 0.1, ..Policy::default() }, x);
        assert_eq!((y, &grad[..]), ([-1.0, 0.0, 0.0], &[-1.0, 0.0][..]));
        // And one that counts cannot hide.
        let (y, grad) = run(Policy::default(), [&[f32::NAN], &[0.0], &[0.0], &[1.0], &[1.0]]);
        assert!(y[0].is_nan() && y[1].is_nan() && grad[0].is_nan());
    }

    #[test]
    fn a_small_kl_keeps_its_digits() {
        for d in [1e-4f32, -3e-3, 0.02, -0.4, 0.499, 0.501] {
            let (y, grad) = run(Policy { beta: 1.0, ..Policy::default() }, [&[-d], &[0.0], &[0.0], &[0.0], &[1.0]]);
            let (k, slope) = (libm::expm1(d.into()) - f64::from(d), -libm::expm1(d.into()));
            assert!((f64::from(y[1]) / k - 1.0).abs() < 1e-6, "{d}: {} for {k}", y[1]);
            assert!((f64::from(grad[0]) / slope - 1.0).abs() < 1e-6, "{d}: {} for {slope}", grad[0]);
        }
    }

    #[test]
    fn the_range_ends_what_a_token_gains_on_one_side_alone() {
        // r of 1.5 and 0.5, either sign of A: clipped are the first and the last.
        let (up, down) = (1.5f32.ln(), 0.5f32.ln());
        let (y, grad) = run(Policy::default(), [&[up, up, down, down], &[0.0; 4], &[0.0; 4], &[1.0, -1.0, 1.0, -1.0], &[1.0; 4]]);
        assert!((y[0] - -(1.2 - 1.5 + 0.5 - 0.8)).abs() < 1e-6 && y[2] == 2.0, "{y:?}");
        let want = [0.0, 1.5, -0.5, 0.0];
        assert!(grad.iter().zip(want).all(|(g, w): (&f32, f32)| (g - w).abs() < 1e-6), "{grad:?}");
    }
}
