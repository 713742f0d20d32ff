//! The loss of a critic's values, clipped as those of its policy are: what PPO adds to its own.
//!
//! ```text
//! c = clip(v, old − clip, old + clip)                       no further from what was said when the tokens were written
//! loss = ½ Σ w max((v − t)², (c − t)²)      clipped = Σ w [(c − t)² > (v − t)²]
//! ```
//! v (values), old (values then), t (returns), w (weights): of one shape, (B, T) as a rule, f32. Results: two scalars; of clipped
//! nothing flows back. A token of weight 0 counts for nothing, whatever else it is given; what the sum is divided by is in the
//! weights. An infinite `clip` leaves ½ Σ w (v − t)².
//!
//! Backward, to v alone: `dv = dloss · w (v − t)`, 0 where clipped; nothing is saved.
//!
//! Sources: Schulman et al. 2017 (arXiv 1707.06347), equation 9, as OpenAI's baselines clip it (ppo2/model.py); `vf_loss` of
//! TRL's PPO (0.29, trl/experimental/ppo/ppo_trainer.py).

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::simd::each;
use crate::cpu::{Lanes, Vector, chunks};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{aligned, at, flag, float, n, sums};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// The loss of values. Inputs: v, old, returns, weights. Results: loss, clipped; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// How far a value may move and gain by it.
    pub clip: f32,
}

/// Some tokens: v, old, t, w.
#[derive(Clone, Copy)]
struct Tokens<'a>([&'a [f32]; 4]);

impl<'a> Tokens<'a> {
    fn new(x: &'a [Tensor], start: usize, len: usize) -> Tokens<'a> {
        Tokens([0, 1, 2, 3].map(|i| &x[i].f32()[start..start + len]))
    }

    /// v − t, its square, that of the clipped value, and w.
    #[inline(always)]
    fn errors<V: Vector>(&self, clip: f32, i: usize, w: usize) -> [V; 4] {
        let [v, old, t, weight] = self.0;
        let (v, old, t, weight) = (V::at(&v[i..], w), V::at(&old[i..], w), V::at(&t[i..], w), V::at(&weight[i..], w));
        // In this order NaN passes.
        let c = (old + V::splat(clip)).min((old - V::splat(clip)).max(v)) - t;
        [v - t, (v - t) * (v - t), c * c, weight]
    }
}

simd_fn! {
    /// The sums over some tokens: loss, clipped.
    fn forward_part(op: Value, x: Tokens) -> [f32; 2] = forward_part_body
}

#[inline(always)]
fn forward_part_body<V: Vector>(op: Value, x: Tokens) -> [f32; 2] {
    let mut lanes = [Lanes::<V>::splat(0.0); 2];
    let (zero, half) = (V::splat(0.0), V::splat(0.5));
    each::<V>(
        x.0[0].len(),
        #[inline(always)]
        |i, w| {
            let [_, plain, clipped, weight] = x.errors::<V>(op.clip, i, w);
            let counts = weight.gt(zero);
            lanes[0].add(i, (weight * (half * plain.max(clipped))).select(counts, zero));
            lanes[1].add(i, weight.select(clipped.gt(plain), zero).select(counts, zero));
        },
    );
    [lanes[0].sum(), lanes[1].sum()]
}

simd_fn! {
    /// The gradient of v, of some tokens.
    fn backward_part(op: Value, beta: f32, dx: &mut [f32], x: Tokens, dy: f32) = backward_part_body
}

#[inline(always)]
fn backward_part_body<V: Vector>(op: Value, beta: f32, dx: &mut [f32], x: Tokens, dy: f32) {
    let (zero, dy) = (V::splat(0.0), V::splat(dy));
    accumulate::<V>(
        beta,
        dx,
        #[inline(always)]
        |i, w| {
            let [error, plain, clipped, weight] = x.errors::<V>(op.clip, i, w);
            let slope = zero.select(clipped.gt(plain), dy * weight * error);
            slope.select(weight.gt(zero), zero)
        },
    );
}

impl Op for Value {
    fn name(&self) -> &'static str {
        "value"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x.len(), 4, "value: values, old, returns, weights");
        assert!(x.iter().all(|spec| spec == &x[0]), "value: shapes or types differ");
        assert!(x[0].shape.numel() > 0, "value: of nothing, {:?}", x[0].shape);
        (0..2).map(|_| Spec::f32([])).collect()
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, len) = (x[0].cpu(), x[0].numel());
        let mut partial = cpu.scratch.take(2 * len.div_ceil(CHUNK));
        cpu.threads.each(chunks(&mut partial, 2), |i, sums| {
            let tokens = Tokens::new(x, i * CHUNK, CHUNK.min(len - i * CHUNK));
            sums.copy_from_slice(&forward_part(cpu.simd, *self, tokens));
        });
        let partial = &partial[..];
        for (k, y) in y.iter_mut().enumerate() {
            cpu.threads.each(chunks(y.f32_mut(), 1), |_, y| {
                y[0] = partial.iter().skip(k).step_by(2).map(|&x| f64::from(x)).sum::<f64>() as f32;
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
        let whole = aligned(&[&x[0], &x[1], &x[2], &x[3]]);
        let plan = kernels::token_sums("value_fwd", float(&x[0]), x[0].numel(), whole);
        sums(gpu, plan, &[0, 1, 2, 3].map(|i| at(&x[i])), y, &[n(x[0].numel()), Arg::F32(self.clip)]);
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
            let whole = aligned(&[&x[0], &x[1], &x[2], &x[3], &dx]);
            let pointers = [at(&x[0]), at(&x[1]), at(&x[2]), at(&x[3]), at(dy), at(&dx)];
            let args = [&pointers[..], &[n(len), Arg::F32(self.clip), flag(dx.beta != 0.0)]].concat();
            gpu.launch(kernels::flat("policy.ptx", "value_bwd", float(&x[0]), len, whole), &args);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: !0, y: 0, again: 0 }
    }

    fn state(&self) -> u8 {
        0b10
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let [mut loss, mut share] = [0.0; 2];
        for (i, &w) in x[3].data.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let [v, old, t] = [0, 1, 2].map(|k| x[k].data[i]);
            let c = v.clamp(old - f64::from(self.clip), old + f64::from(self.clip));
            let (plain, clipped) = ((v - t).powi(2), (c - t).powi(2));
            loss += 0.5 * w * plain.max(clipped);
            share += if clipped > plain { w } else { 0.0 };
        }
        [loss, share].map(|y| Array64::new([], vec![y])).into()
    }
}

impl<'t> Var<'t> {
    /// The clipped loss of these values, given those that were said when the tokens were written, returns and weights, all
    /// of one shape; see the [module](self). Scalars: the loss, and the share of clipped values without a gradient, both
    /// weighted sums.
    pub fn value_loss(self, old: Var<'t>, returns: Var<'t>, weights: Var<'t>, clip: f32) -> (Var<'t>, Var<'t>) {
        let loss = self.tape().apply(Value { clip }, &[self, old, returns, weights]);
        (loss, loss.output(1))
    }
}

pub(super) fn cases() -> Vec<Case> {
    // Eighths, exact in bf16. By a clip of 0.2 they are 0.05 at least off the ends of the range, and 0.025 off where both
    // errors are equal.
    let inputs = |shape: [usize; 2]| {
        let of = |f: &dyn Fn(usize) -> f32| (0..shape[0] * shape[1]).map(f).collect::<Vec<f32>>();
        let v = |i: usize| (i * 5 % 47) as f32 / 8.0 - 3.0;
        let old = of(&|i| v(i) - ((i * 7 % 13) as f32 - 6.0) / 8.0);
        let returns = of(&|i| v(i) + ((i * 11 % 17) as f32 - 8.0) / 8.0);
        let weights = of(&|i| [0.25, 0.125, 0.0, 0.5, 0.0625][i % 5]);
        let v = Input { grad: true, ..Input::values(shape, &of(&v)) };
        [v].into_iter().chain([old, returns, weights].map(|x| Input::values(shape, &x))).collect::<Vec<_>>()
    };
    let op = Value { clip: 0.2 };
    vec![
        Case::check("3x5", op, inputs([3, 5])),
        Case::check("7x64, no range", Value { clip: f32::INFINITY }, inputs([7, 64])),
        Case::check("130x129, two tasks", op, inputs([130, 129])),
        Case::bench("64x1024", op, inputs([64, 1024])),
    ]
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn a_value_gains_nothing_by_leaving_its_range() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let tensor = |x: &[f32]| Tensor::from_slice(&device, x, [x.len()]);
        // Beyond the range towards the return, away from it, within, and a token that does not count.
        let v = tape.variable(tensor(&[1.0, -1.0, 0.25, f32::NAN]));
        let [old, returns, weights] = [[0.0; 4], [2.0; 4], [1.0, 1.0, 1.0, 0.0]].map(|x| tape.constant(tensor(&x)));
        let (loss, clipped) = v.value_loss(old, returns, weights, 0.5);
        assert_eq!((loss.value().item(), clipped.value().item()), (0.5 * (2.25 + 9.0 + 3.0625), 1.0));
        loss.backward(&mut Params::new(&device, &[], 0), true);
        assert_eq!(v.grad().expect("a gradient").f32(), [0.0, -3.0, -1.75, 0.0]);
    }
}
