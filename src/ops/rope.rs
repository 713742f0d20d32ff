//! Rotary position embedding: each head's pairs of channels turn by an angle that grows with the position.
//!
//! ```text
//! for i < D/2, at position p, with angle p · f_i:   y_i       = x_i · cos − x_{i+D/2} · sin
//!                                                   y_{i+D/2} = x_{i+D/2} · cos + x_i · sin
//! ```
//! The pairing (i, i + D/2) is Hugging Face's `rotate_half`. x is (B, T, …) with any number of trailing axes; in each of
//! its B·T rows the first `heads` groups of D channels turn and the rest is copied. So a packed row q‖k‖v of
//! (Hq + 2·Hkv)·D channels turns q and k in one pass with heads = Hq + Hkv, and so does (B, T, H, D) with heads = H.
//! cos and sin are (positions, D/2), made once by a model as a [`RopeTable`]; row t of x stands at position offset + t.
//!
//! Backward is the turn by the opposite angle. Sources: Su et al. 2021 (arXiv 2104.09864); the scalings as
//! `transformers` has them in `modeling_rope_utils.py`.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::simd::each;
use crate::cpu::{Cpu, Vector, chunks};
use crate::device::{Device, Gpu};
use crate::simd_fn;
use crate::device::kernels;
use crate::launch::{at, flag, float, n};
use crate::device::Arg;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};
use std::f64::consts::TAU;

/// How frequencies are stretched for contexts longer than a model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All of them divided by this factor.
    Linear(f64),
    /// Beyond the context that a model was trained on, theta grows by this factor with the length. A model's context is that
    /// one here, so nothing is stretched.
    Dynamic(f64),
    /// Llama 3.1's: long waves divided by `factor`, short ones kept, those between interpolated.
    Llama3 {
        /// What long waves are divided by.
        factor: f64,
        /// Waves longer than `original / low` are long.
        low: f64,
        /// Waves shorter than `original / high` are short.
        high: f64,
        /// The context the model was first trained on (`original_max_position_embeddings`).
        original: f64,
    },
}

impl RopeScaling {
    /// The `dim / 2` frequencies in radians a position: theta^(−2i/dim), scaled.
    pub fn frequencies(self, theta: f64, dim: usize) -> Vec<f64> {
        let scale = |f: f64| match self {
            RopeScaling::None | RopeScaling::Dynamic(_) => f,
            RopeScaling::Linear(factor) => f / factor,
            RopeScaling::Llama3 { factor, low, high, original } => {
                // Waves in the original context: at most `low` of them are a long wave, at least `high` a short one.
                let smooth = ((original * f / TAU - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - smooth) * f / factor + smooth * f
            }
        };
        (0..dim / 2).map(|i| scale(libm::pow(theta, -(2.0 * i as f64) / dim as f64))).collect()
    }
}

/// cos and sin for all positions of a model, in f32 rounded once from f64. Cloning shares them.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// (positions, D/2).
    pub cos: Tensor,
    /// (positions, D/2).
    pub sin: Tensor,
}

impl RopeTable {
    /// The table for heads of `dim` channels (even) at `positions` positions.
    pub fn new(device: &Device, dim: usize, positions: usize, theta: f64, scaling: RopeScaling) -> RopeTable {
        assert!(dim > 0 && dim.is_multiple_of(2), "rope: heads of {dim} channels have no pairs");
        let frequencies = scaling.frequencies(theta, dim);
        let table = |f: fn(f64) -> f64| {
            Tensor::from_slice(device, &tabulate(&frequencies, positions, f), [positions, dim / 2])
        };
        RopeTable { cos: table(libm::cos), sin: table(libm::sin) }
    }
}

/// f(position · frequency), (positions, frequencies).
fn tabulate(frequencies: &[f64], positions: usize, f: fn(f64) -> f64) -> Vec<f32> {
    (0..positions).flat_map(|p| frequencies.iter().map(move |freq| f(p as f64 * freq) as f32)).collect()
}

/// Inputs: x, cos, sin.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// How many heads at the start of each row turn.
    pub heads: usize,
    /// The position of the first row of each sequence.
    pub offset: usize,
}

simd_fn! {
    /// Writes (or, with `beta` 1, adds to) one row: its first `heads` heads turned, the rest copied. `sign` −1 turns back.
    fn turn_row(heads: usize, sign: f32, beta: f32, y: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32]) = turn_row_body
}

#[inline(always)]
fn turn_row_body<V: Vector>(
    heads: usize,
    sign: f32,
    beta: f32,
    y: &mut [f32],
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
) {
    let half = cos.len();
    let turned = 2 * half * heads;
    for (y, x) in y[..turned].chunks_exact_mut(2 * half).zip(x[..turned].chunks_exact(2 * half)) {
        let ((y1, y2), (x1, x2)) = (y.split_at_mut(half), x.split_at(half));
        each::<V>(half, #[inline(always)] |i, w| {
            let (c, s) = (V::at(&cos[i..], w), V::at(&sin[i..], w) * V::splat(sign));
            let (a, b) = (V::at(&x1[i..], w), V::at(&x2[i..], w));
            let (mut u, mut v) = (a.fma(c, -(b * s)), b.fma(c, a * s));
            if beta != 0.0 {
                (u, v) = (u + V::at(&y1[i..], w), v + V::at(&y2[i..], w));
            }
            u.put(&mut y1[i..], w);
            v.put(&mut y2[i..], w);
        });
    }
    accumulate::<V>(beta, &mut y[turned..], #[inline(always)] |i, w| V::at(&x[turned + i..], w));
}

impl Rope {
    /// Turns all rows of x, (B, T, …), into y.
    fn turn(&self, cpu: &Cpu, sign: f32, beta: f32, y: &mut Out, x: &Tensor, table: &[Tensor]) {
        let time = x.shape()[1];
        let (row, half) = (x.numel() / (x.shape()[0] * time).max(1), table[0].shape()[1]);
        if x.numel() == 0 {
            return;
        }
        let (x, cos, sin) = (x.f32(), table[0].f32(), table[1].f32());
        let rows = (CHUNK / row).max(1);
        cpu.threads.each(chunks(y.f32_mut(), rows * row), |i, y| {
            for (r, y) in (i * rows..).zip(y.chunks_exact_mut(row)) {
                let at = (self.offset + r % time) * half;
                let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
                turn_row(cpu.simd, self.heads, sign, beta, y, &x[r * row..][..row], cos, sin);
            }
        });
    }
}

impl Rope {
    /// [`turn`](Rope::turn) on a GPU.
    fn launch(&self, gpu: &Gpu, sign: f32, beta: f32, y: &Tensor, x: &Tensor, table: &[Tensor]) {
        let time = x.shape()[1];
        let (row, half) = (x.numel() / (x.shape()[0] * time).max(1), table[0].shape()[1]);
        let numbers = [n(row), n(self.heads), n(time), n(self.offset), Arg::F32(sign), flag(beta != 0.0)];
        let args = [[at(x), at(&table[0]), at(&table[1]), at(y)].as_slice(), &numbers].concat();
        gpu.launch(kernels::rope(float(x), x.shape()[0] * time, row, 2 * half), &args);
    }
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert!(x[0].shape.len() >= 3, "rope: x is (B, T, …), not {:?}", x[0].shape);
        assert_eq!(x[1], x[2], "rope: cos and sin differ");
        let (end, positions) = (self.offset + x[0].shape[1], x[1].shape[0]);
        assert!(end <= positions, "rope: position {end} of a table of {positions}");
        let (row, turned) = (x[0].shape[2..].iter().product::<usize>(), 2 * self.heads * x[1].shape[1]);
        assert!(turned <= row, "rope: {} heads need {turned} channels, a row has {row}", self.heads);
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.turn(x[0].cpu(), 1.0, 0.0, &mut y[0], &x[0], &x[1..]);
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        let mut dx = dx.out(0);
        let beta = dx.beta;
        self.turn(dy.cpu(), -1.0, beta, &mut dx, dy, &x[1..]);
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, 1.0, 0.0, &y[0], &x[0], &x[1..]);
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
        let dx = dx.out(0);
        self.launch(gpu, -1.0, dx.beta, &dx, dy[0].as_ref().expect("one result"), &x[1..]);
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b110, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (time, half) = (x[0].shape[1], x[1].shape[1]);
        let row: usize = x[0].shape[2..].iter().product();
        let value = |i: usize| {
            let (t, channel, x_) = (i / row % time, i % row, &x[0].data);
            if channel >= 2 * half * self.heads {
                return x_[i];
            }
            let at = (self.offset + t) * half + channel % half;
            let (cos, sin) = (x[1].data[at], x[2].data[at]);
            if channel % (2 * half) < half { x_[i] * cos - x_[i + half] * sin } else { x_[i] * cos + x_[i - half] * sin }
        };
        vec![Array64::from_fn(x[0].shape, value)]
    }
}

impl<'t> Var<'t> {
    /// This value, (B, T, …), with the first `heads` heads of each row turned by their positions, the first of which is
    /// `offset`.
    pub fn rope(self, table: &RopeTable, heads: usize, offset: usize) -> Var<'t> {
        let tape = self.tape();
        let (cos, sin) = (tape.constant(table.cos.clone()), tape.constant(table.sin.clone()));
        tape.apply(Rope { heads, offset }, &[self, cos, sin])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |x: Input, dim: usize, positions: usize| {
        let frequencies = RopeScaling::None.frequencies(10_000.0, dim);
        let table = |f| Input::values([positions, dim / 2], &tabulate(&frequencies, positions, f));
        [x, table(libm::cos), table(libm::sin)]
    };
    // Llama 3.2 1B's shape: 32 query heads, 8 key and 8 value heads of 64, packed.
    let llama = inputs(Input::normal([1, 1024, 48 * 64]), 64, 1024);
    vec![
        Case::check("2x5x3x16", Rope { heads: 3, offset: 0 }, inputs(Input::normal([2, 5, 3, 16]), 16, 5)),
        Case::check("packed 4+2+2 heads of 6", Rope { heads: 6, offset: 7 }, inputs(Input::normal([2, 3, 48]), 6, 12)),
        Case::check("several tasks", Rope { heads: 9, offset: 3 }, inputs(Input::normal([2, 130, 12 * 10]), 10, 140)),
        Case::bench("1x1024, 32+8+8 heads of 64", Rope { heads: 40, offset: 0 }, llama),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_frequencies_stay_between_kept_and_divided() {
        let base = RopeScaling::None.frequencies(500_000.0, 128);
        let llama = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let scaled = llama.frequencies(500_000.0, 128);
        assert_eq!(base[0], 1.0);
        assert_eq!(scaled[0], base[0], "short waves are kept");
        assert!((scaled[63] * 8.0 / base[63] - 1.0).abs() < 1e-12, "long waves are divided by the factor");
        assert!(scaled.iter().zip(&base).all(|(s, b)| s <= b && *s >= b / 8.0 * (1.0 - 1e-12)));
        assert_eq!(RopeScaling::Linear(4.0).frequencies(500_000.0, 128)[5], base[5] / 4.0);
    }

    /// The score of a query and a key depends on the distance of their positions alone.
    #[test]
    fn scores_depend_on_distance() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = crate::tape::Tape::new(&device);
        let table = RopeTable::new(&device, 8, 64, 10_000.0, RopeScaling::None);
        let row = |seed: f32| Tensor::from_slice(&device, &[0, 1, 2, 3, 4, 5, 6, 7].map(|i| (seed * i as f32).sin()), [1, 1, 8]);
        let score = |p: usize, q: usize| -> f32 {
            let (a, b) = (tape.constant(row(1.3)).rope(&table, 1, p), tape.constant(row(0.7)).rope(&table, 1, q));
            a.value().f32().iter().zip(b.value().f32()).map(|(a, b)| a * b).sum()
        };
        assert!((score(3, 1) - score(60, 58)).abs() < 1e-5);
        assert!((score(3, 1) - score(3, 2)).abs() > 1e-2);
    }
}
