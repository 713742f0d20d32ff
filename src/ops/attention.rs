//! Causal multi-head self-attention over packed queries, keys and values.
//!
//! ```text
//! qkv: (B, T, (H + 2·Hkv)·D): H query heads, then Hkv key heads, then Hkv value heads, of D channels each
//! y_i = Σ_{j ≤ i} softmax_j(q_i·k_j / √D) v_j          y: (B, T, H·D)
//! ```
//! Query head h reads key and value head h·Hkv/H. The kernel streams over blocks of keys and keeps, for the backward pass,
//! only the logarithm of each row's sum of exponentials; blocks above the diagonal are never computed.
//!
//! Where rows hold several documents, `places` (B, T) i32 says where in its document each token stands: a 0 begins one, and
//! so does every row. The sum then runs over the keys of i's own document: each is computed as if it stood alone, bit for bit.
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
use crate::tensor::{DType, Out, Spec, Tensor, Tensors};

/// Inputs: qkv, then places if `packed`. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Whether rows hold several documents.
    pub packed: bool,
    /// What the products' operands are rounded to.
    pub precision: Precision,
}

/// Why a GPU refuses rows of several documents.
pub const PACKED: &str = "a GPU has no kernel for attention within documents";

/// Sequences (B, T) of a batch that attention treats as one: those of tokens `start..start + b·t` of all the B·T.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    start: usize,
    sizes: [usize; 2],
}

/// The pieces of a batch, in order.
struct Pieces<'a> {
    /// Where the next one starts.
    start: usize,
    /// B and T.
    sizes: [usize; 2],
    cut: Cut<'a>,
}

/// What a batch is cut into.
enum Cut<'a> {
    Whole,
    Rows,
    /// By the places of its tokens.
    Documents(&'a [i32]),
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let ([b, t], start) = (self.sizes, self.start);
        if start >= b * t {
            return None;
        }
        let sizes = match self.cut {
            Cut::Whole => [b, t],
            Cut::Rows => [1, t],
            Cut::Documents(places) => {
                let rest = &places[start + 1..(start / t + 1) * t];
                [1, 1 + rest.iter().take_while(|&&place| place != 0).count()]
            }
        };
        self.start += sizes[0] * sizes[1];
        Some(Piece { start, sizes })
    }
}

impl SelfAttention {
    /// What each call of the kernel computes.
    fn pieces<'a>(&self, x: &'a [Tensor]) -> Pieces<'a> {
        let (sizes, _) = self.sizes(x[0].shape());
        let cut = match x.get(1) {
            None => Cut::Whole,
            // What the places are nobody knows here; whole rows take the most memory.
            Some(places) if places.device().is_dry() => Cut::Rows,
            Some(places) => Cut::Documents(places.i32()),
        };
        Pieces { start: 0, sizes, cut }
    }

    /// (B, T) and D of a packed array.
    fn sizes(&self, shape: &[usize]) -> ([usize; 2], usize) {
        ([shape[0], shape[1]], shape[2] / (self.heads + 2 * self.kv_heads))
    }

    fn attention(&self, dim: usize) -> Attention {
        Attention { precision: self.precision, ..Attention::causal(dim) }
    }

    /// Of qkv or its gradient: how long a token's row is, and its heads.
    fn rows(&self, dim: usize) -> (usize, [usize; 2]) {
        ((self.heads + 2 * self.kv_heads) * dim, [self.heads, self.kv_heads])
    }

    /// The queries, keys and values of a piece.
    fn views<'a>(&self, qkv: &'a Tensor, piece: Piece, dim: usize) -> [View<'a>; 3] {
        let (row, heads) = self.rows(dim);
        View::packed(&qkv.f32()[piece.start * row..], piece.sizes, heads, dim)
    }

    /// The layout of a piece of y and of its gradient, from its first element on.
    fn out(&self, [b, t]: [usize; 2], dim: usize) -> Layout {
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
        // The rows of a piece lie together: (H, T) of each of its sequences.
        let mut lse = Out::new(x[0].device(), Spec::f32([b, self.heads, t]));
        for piece in self.pieces(x) {
            let [q, k, v] = self.views(&x[0], piece, dim);
            let (first, [b, t]) = (piece.start * self.heads, piece.sizes);
            let out = ViewMut::new(&mut y[0].f32_mut()[first * dim..], self.out([b, t], dim));
            let lse = &mut lse.f32_mut()[first..][..b * self.heads * t];
            self.attention(dim).forward(x[0].cpu(), q, k, v, out, lse);
        }
        if need[0].wanted() { Tensors::from_iter([lse.freeze()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        if !dx.wants(0) {
            return;
        }
        let (_, dim) = self.sizes(x[0].shape());
        let (row, heads) = self.rows(dim);
        let mut grad = dx.out(0);
        let add = grad.beta != 0.0;
        for piece in self.pieces(x) {
            let (first, [b, t]) = (piece.start * self.heads, piece.sizes);
            let layout = self.out([b, t], dim);
            let [out, dout] = [&y[0], dy[0].as_ref().expect("one result")]
                .map(|y| View::new(&y.f32()[first * dim..], layout));
            let lse = &saved[0].f32()[first..][..b * self.heads * t];
            let grads = ViewMut::packed(&mut grad.f32_mut()[piece.start * row..], [b, t], heads, dim);
            self.attention(dim).backward(x[0].cpu(), self.views(&x[0], piece, dim), out, dout, lse, grads, add);
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let ([b, t], dim) = self.sizes(x[0].shape());
        let lse = Out::new(x[0].device(), Spec::f32([b, self.heads, t]));
        if self.packed {
            gpu.fail(Error::device(PACKED, "give each example a row of its own: data.packing = false"));
        }
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
        Reads { x: 0b11, y: 1, again: 0 }
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
                    let first = if self.packed { i - (x[1].data[b * t + i] as usize).min(i) } else { 0 };
                    let score = |j: usize| (0..dim).map(|d| at(b, i, h, d) * at(b, j, key, d)).sum::<f64>();
                    let scores: Vec<f64> = (first..=i).map(|j| score(j) / (dim as f64).sqrt()).collect();
                    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
                    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for d in 0..dim {
                        let weighted = |(j, s): (usize, &f64)| (s - max).exp() / sum * at(b, first + j, value, d);
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
        self.tape().apply(SelfAttention { heads, kv_heads, packed: false, precision }, &[self])
    }

    /// The same within documents, in which the tokens have these places (B, T).
    pub fn attention_within(self, places: Var<'t>, heads: usize, kv_heads: usize) -> Var<'t> {
        let precision = self.tape().pass().precision;
        self.tape().apply(SelfAttention { heads, kv_heads, packed: true, precision }, &[self, places])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |b, t, heads, kv_heads, dim: usize| {
        let name = format!("B{b} T{t} H{heads}/{kv_heads} D{dim}");
        let op = SelfAttention { heads, kv_heads, packed: false, precision: Precision::F32 };
        (name, op, [Input::normal([b, t, (heads + 2 * kv_heads) * dim])])
    };
    let checks =
        [case(2, 3, 2, 2, 4), case(1, 1, 1, 1, 8), case(1, 67, 2, 2, 8), case(1, 9, 4, 2, 5), case(1, 66, 2, 1, 32)];
    // Documents of one token, of a whole row, and longer than a block of keys.
    let places = |lengths: &[usize]| lengths.iter().flat_map(|&n| 0..n).map(|place| place as f32).collect::<Vec<_>>();
    let packed = |b: usize, t: usize, lengths: &[usize]| {
        let (name, op, [qkv]) = case(b, t, 2, 1, 8);
        let places = Input { spec: Spec { shape: [b, t].into(), dtype: DType::I32 }, ..Input::values([b, t], &places(lengths)) };
        (format!("{name}, documents of {lengths:?}"), SelfAttention { packed: true, ..op }, [qkv, places])
    };
    let within = [packed(2, 7, &[3, 1, 3, 7]), packed(1, 140, &[5, 70, 64, 1])];
    let benches = [case(16, 256, 4, 4, 64), case(4, 256, 12, 12, 64), case(1, 1024, 12, 12, 64)];
    let mut cases: Vec<Case> = checks.into_iter().map(|(name, op, x)| Case::check(name, op, x)).collect();
    cases.extend(within.into_iter().map(|(name, op, x)| Case::check(name, op, x)));
    cases.extend(benches.into_iter().map(|(name, op, x)| Case::bench(name, op, x)));
    cases
}
