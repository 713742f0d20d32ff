//! Causal multi-head self-attention over packed queries, keys and values.
//!
//! ```text
//! qkv: (B, T, (H + 2·Hkv)·D): H query heads, then Hkv key heads, then Hkv value heads, of D channels each
//! y_i = Σ_{j ≤ i} softmax_j(q_i·k_j / √D) v_j          y: (B, T, H·D)
//! ```
//! Query head h reads key and value head h·Hkv/H. The kernel streams over blocks of keys and keeps, for the backward pass,
//! only the logarithm of each row's sum of exponentials; blocks above the diagonal are never computed.
//!
//! In [`Precision::Bf16`] each product rounds both of its operands to bf16, those of the backward pass too; softmax is f32.
//!
//! Sources: Vaswani et al. 2017 (arXiv 1706.03762); Milakov, Gimelshein 2018 (arXiv 1805.02867); Dao 2023 (arXiv
//! 2307.08691); grouped queries: Ainslie et al. 2023 (arXiv 2305.13245).

use super::{Case, Input};
use crate::cpu::attention::{Attention, Layout, View, ViewMut};
use crate::cpu::gemm::Precision;
use crate::device::Gpu;
use crate::error::Error;
use crate::device::kernels::{self, Heads, Plan};
use crate::launch::{at, flag, float, n};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Input: qkv. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// What the products' operands are rounded to.
    pub precision: Precision,
}

impl SelfAttention {
    /// (B, T) and D of a packed array.
    fn sizes(&self, shape: &[usize]) -> ([usize; 2], usize) {
        ([shape[0], shape[1]], shape[2] / (self.heads + 2 * self.kv_heads))
    }

    fn attention(&self, dim: usize) -> Attention {
        Attention { precision: self.precision, ..Attention::causal(dim) }
    }

    fn views<'a>(&self, qkv: &'a Tensor) -> [View<'a>; 3] {
        let (sizes, dim) = self.sizes(qkv.shape());
        View::packed(qkv.f32(), sizes, [self.heads, self.kv_heads], dim)
    }

    /// The layout of y and its gradient.
    fn out(&self, shape: &[usize]) -> Layout {
        let ([b, t], dim) = self.sizes(shape);
        Layout::contiguous([b, t, self.heads, dim])
    }
}

impl SelfAttention {
    /// A kernel on arrays like qkv.
    fn plan(&self, qkv: &Tensor, entry: &'static str) -> Plan {
        let ([batch, time], dim) = self.sizes(qkv.shape());
        let heads = Heads { batch, time, heads: self.heads, kv_heads: self.kv_heads, dim };
        kernels::attention(entry, float(qkv), heads)
    }
}

impl Op for SelfAttention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let shape = &x[0].shape;
        assert_eq!(shape.len(), 3, "attention: qkv is {shape:?}, not (B, T, channels)");
        assert_eq!(shape[2] % (self.heads + 2 * self.kv_heads), 0, "attention: {shape:?} in {} heads", self.heads);
        Specs::from_iter([Spec { shape: shape.with_last(self.heads * self.sizes(shape).1), ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let ([b, t], dim) = self.sizes(x[0].shape());
        let mut lse = Out::new(x[0].device(), Spec::f32([b, self.heads, t]));
        let [q, k, v] = self.views(&x[0]);
        let out = ViewMut::new(y[0].f32_mut(), self.out(x[0].shape()));
        self.attention(dim).forward(x[0].cpu(), q, k, v, out, lse.f32_mut());
        if need[0].wanted() { Tensors::from_iter([lse.freeze()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        if !dx.wants(0) {
            return;
        }
        let (sizes, dim) = self.sizes(x[0].shape());
        let layout = self.out(x[0].shape());
        let (out, dout) = (View::new(y[0].f32(), layout), View::new(dy[0].as_ref().expect("one result").f32(), layout));
        let mut grad = dx.out(0);
        let add = grad.beta != 0.0;
        let grads = ViewMut::packed(grad.f32_mut(), sizes, [self.heads, self.kv_heads], dim);
        self.attention(dim).backward(x[0].cpu(), self.views(&x[0]), out, dout, saved[0].f32(), grads, add);
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let ([b, t], dim) = self.sizes(x[0].shape());
        let lse = Out::new(x[0].device(), Spec::f32([b, self.heads, t]));
        if !kernels::attends(float(&x[0]), dim) {
            let problem = format!("there is no kernel for heads of {dim} channels in {}", x[0].dtype().name());
            gpu.fail(Error::device(problem, kernels::HEADS));
        }
        let args = [at(&x[0]), at(&y[0]), at(&lse), n(t), n(self.heads), n(self.kv_heads)];
        gpu.launch(self.plan(&x[0], "attention_fwd"), &args);
        if need[0].wanted() { Tensors::from_iter([lse.freeze()]) } else { Tensors::new() }
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
        if !dx.wants(0) {
            return;
        }
        let ([b, t], _) = self.sizes(x[0].shape());
        let (dy, out) = (dy[0].as_ref().expect("one result"), dx.out(0));
        let delta = Out::new(dy.device(), Spec::f32([b, self.heads, t]));
        let args = [at(&y[0]), at(dy), at(&delta), n(b * t * self.heads), n(t), n(self.heads)];
        gpu.launch(self.plan(&x[0], "attention_delta"), &args);
        let numbers = [n(t), n(self.heads), n(self.kv_heads), flag(out.beta != 0.0)];
        let args = [[at(&x[0]), at(dy), at(&saved[0]), at(&delta), at(&out)].as_slice(), &numbers].concat();
        for entry in ["attention_bwd_q", "attention_bwd_kv"] {
            gpu.launch(self.plan(&x[0], entry), &args);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 1, y: 1, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let ([b, t], dim) = self.sizes(&x[0].shape);
        let width = (self.heads + 2 * self.kv_heads) * dim;
        let at = |b: usize, t_: usize, head: usize, d: usize| x[0].data[(b * t + t_) * width + head * dim + d];
        let group = self.heads / self.kv_heads;
        let mut y = Array64::from_fn(x[0].shape.with_last(self.heads * dim), |_| 0.0);
        for b in 0..b {
            for h in 0..self.heads {
                let (key, value) = (self.heads + h / group, self.heads + self.kv_heads + h / group);
                for i in 0..t {
                    let score = |j: usize| (0..dim).map(|d| at(b, i, h, d) * at(b, j, key, d)).sum::<f64>();
                    let scores: Vec<f64> = (0..=i).map(|j| score(j) / (dim as f64).sqrt()).collect();
                    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for d in 0..dim {
                        let weighted = |(j, s): (usize, &f64)| (s - max).exp() / sum * at(b, j, value, d);
                        y.data[((b * t + i) * self.heads + h) * dim + d] = scores.iter().enumerate().map(weighted).sum();
                    }
                }
            }
        }
        vec![y]
    }
}

impl<'t> Var<'t> {
    /// Causal self-attention of packed queries, keys and values (B, T, (heads + 2·kv_heads)·D).
    pub fn attention(self, heads: usize, kv_heads: usize) -> Var<'t> {
        let precision = self.tape().pass().precision;
        self.tape().apply(SelfAttention { heads, kv_heads, precision }, &[self])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |b, t, heads, kv_heads, dim: usize| {
        let name = format!("B{b} T{t} H{heads}/{kv_heads} D{dim}");
        let op = SelfAttention { heads, kv_heads, precision: Precision::F32 };
        (name, op, [Input::normal([b, t, (heads + 2 * kv_heads) * dim])])
    };
    let checks =
        [case(2, 3, 2, 2, 4), case(1, 1, 1, 1, 8), case(1, 67, 2, 2, 8), case(1, 9, 4, 2, 5), case(1, 66, 2, 1, 32)];
    let benches = [case(16, 256, 4, 4, 64), case(4, 256, 12, 12, 64), case(1, 1024, 12, 12, 64)];
    let mut cases: Vec<Case> = checks.into_iter().map(|(name, op, x)| Case::check(name, op, x)).collect();
    cases.extend(benches.into_iter().map(|(name, op, x)| Case::bench(name, op, x)));
    cases
}
