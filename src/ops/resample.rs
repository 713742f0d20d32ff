//! Pictures (N, H, W, C) in another size: average pooling, nearest and bilinear upsampling.
//!
//! ```text
//! Pool      y[o] = mean of x[s·o .. s·o + k]                    no padding; (H − k)/s + 1 rows
//! Nearest   y[o] = x[o / k]                                     k·H rows
//! Bilinear  y[o] = (1 − λ) x[i] + λ x[i + 1], i + λ = (o + ½)/k − ½ held to 0 .. H − 1
//!                                                               PyTorch's align_corners = false
//! ```
//! and the same along W. Each is a sum of weighted inputs, `y[o] = Σ_i w(o, i) x[i]`, along both axes. Backward: `dx[i] = Σ_o
//! w(o, i) dy[o]`, by the same kernel with the sides changed. Every element is one chain over its neighbours.

use super::{Case, Input};
use crate::cpu::elementwise::accumulate;
use crate::cpu::{Cpu, Vector, chunks};
use crate::device::Gpu;
use crate::device::kernels;
use crate::launch::{at, flag, float, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};
use std::ops::Range;

/// A change of size; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The mean of windows of this height and width, so far apart.
    Pool([usize; 2], [usize; 2]),
    /// Each pixel so often along both axes.
    Nearest(usize),
    /// The same, with straight lines between pixels.
    Bilinear(usize),
}

/// One axis: large positions are those of x, small ones of y (pooling), or the other way round.
#[derive(Clone, Copy)]
struct Axis {
    op: Resample,
    /// k and s.
    k: usize,
    s: usize,
    /// The lengths of x and of y.
    x: usize,
    y: usize,
    /// Whether y's gradient goes to x.
    back: bool,
}

impl Axis {
    /// Which elements go into element `to`.
    #[inline(always)]
    fn range(&self, to: usize) -> Range<usize> {
        let Axis { k, s, x, y, .. } = *self;
        match (self.op, self.back) {
            (Resample::Pool(..), false) => to * s..to * s + k,
            (Resample::Pool(..), true) => (to + s).saturating_sub(k) / s..(to / s + 1).min(y),
            (Resample::Nearest(_), false) => to / k..to / k + 1,
            (Resample::Nearest(_), true) => to * k..to * k + k,
            (Resample::Bilinear(_), false) => {
                let first = self.place(to) as usize;
                first..(first + 2).min(x)
            }
            (Resample::Bilinear(_), true) => (2 * to * k).saturating_sub(k) / 2..((2 * to + 3) * k).div_ceil(2).min(y),
        }
    }

    /// Where element o of y lies among those of x.
    #[inline(always)]
    fn place(&self, o: usize) -> f32 {
        ((o as f32 + 0.5) / self.k as f32 - 0.5).max(0.0).min((self.x - 1) as f32)
    }

    /// The weight of `from` in `to`.
    #[inline(always)]
    fn weight(&self, to: usize, from: usize) -> f32 {
        let (o, i) = if self.back { (from, to) } else { (to, from) };
        match self.op {
            Resample::Pool(..) => 1.0 / self.k as f32,
            Resample::Nearest(_) => 1.0,
            Resample::Bilinear(_) => (1.0 - (self.place(o) - i as f32).abs()).max(0.0),
        }
    }
}

simd_fn! {
    /// Row `row` of a picture, `y` of `width` pixels, from the whole picture `x`, whose rows have `pitch` pixels.
    fn gather(axes: [Axis; 2], row: usize, width: usize, pitch: usize, beta: f32, y: &mut [f32], x: &[f32]) = gather_body
}

#[inline(always)]
fn gather_body<V: Vector>(axes: [Axis; 2], row: usize, width: usize, pitch: usize, beta: f32, y: &mut [f32], x: &[f32]) {
    let c = y.len() / width;
    for (column, y) in y.chunks_exact_mut(c).enumerate() {
        let (rows, columns) = (axes[0].range(row), axes[1].range(column));
        accumulate::<V>(
            beta,
            y,
            #[inline(always)]
            |j, w| {
                let mut sum = V::splat(0.0);
                for r in rows.clone() {
                    for q in columns.clone() {
                        let weight = axes[0].weight(row, r) * axes[1].weight(column, q);
                        sum = V::at(&x[(r * pitch + q) * c + j..], w).fma(V::splat(weight), sum);
                    }
                }
                sum
            },
        );
    }
}

impl Resample {
    /// Kernel and stride of each axis; the factor is its own stride.
    fn sizes(self) -> [[usize; 2]; 2] {
        match self {
            Resample::Pool([kh, kw], [sh, sw]) => [[kh, sh], [kw, sw]],
            Resample::Nearest(k) | Resample::Bilinear(k) => [[k, k]; 2],
        }
    }

    fn axes(self, x: &[usize], y: &[usize], back: bool) -> [Axis; 2] {
        let sizes = self.sizes();
        [0, 1].map(|i| Axis { op: self, k: sizes[i][0], s: sizes[i][1], x: x[1 + i], y: y[1 + i], back })
    }

    /// `to = beta to + ` what `from` gives, forward or back.
    fn run(cpu: &Cpu, axes: [Axis; 2], beta: f32, to: &mut Out, from: &Tensor) {
        let (to_shape, from_shape) = (*to.shape(), *from.shape());
        let (height, width, c) = (to_shape[1], to_shape[2], to_shape[3]);
        let picture = from.numel() / from_shape[0];
        let from = from.f32();
        cpu.threads.each(chunks(to.f32_mut(), width * c), |i, row| {
            let from = &from[i / height * picture..][..picture];
            gather(cpu.simd, axes, i % height, width, from_shape[2], beta, row, from);
        });
    }

    fn launch(self, gpu: &Gpu, back: bool, beta: f32, to: &Tensor, from: &Tensor) {
        let entries = match self {
            Resample::Pool(..) => ["pool_fwd", "pool_bwd"],
            Resample::Nearest(_) => ["nearest_fwd", "nearest_bwd"],
            Resample::Bilinear(_) => ["bilinear_fwd", "bilinear_bwd"],
        };
        let (count, c) = (to.numel(), to.shape()[3]);
        let lengths = [to.shape()[1], to.shape()[2], from.shape()[1], from.shape()[2]].map(n);
        let sizes = self.sizes().as_flattened().iter().map(|k| n(*k)).collect::<arrayvec::ArrayVec<_, 4>>();
        let args = [&[at(from), at(to), n(count), n(c)][..], &lengths, &sizes, &[flag(beta != 0.0)]].concat();
        gpu.launch(kernels::by_rows("resample.ptx", entries[usize::from(back)], float(to), count, c), &args);
    }
}

impl Op for Resample {
    fn name(&self) -> &'static str {
        match self {
            Resample::Pool(..) => "pool",
            Resample::Nearest(_) => "nearest",
            Resample::Bilinear(_) => "bilinear",
        }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let &[batch, height, width, c] = &x[0].shape[..] else { panic!("{}: {:?} is no picture", self.name(), x[0].shape) };
        assert!(x[0].shape.numel() > 0 && self.sizes().as_flattened().iter().all(|&k| k > 0), "{self:?}: of nothing");
        let length = |x: usize, [k, s]: [usize; 2]| match self {
            Resample::Pool(..) => {
                assert!(k <= x, "{self:?}: a window of {k} in {x}");
                (x - k) / s + 1
            }
            _ => x * k,
        };
        let [rows, columns] = self.sizes();
        let shape = [batch, length(height, rows), length(width, columns), c];
        Specs::from_iter([Spec { shape: shape.into(), ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let axes = self.axes(x[0].shape(), y[0].shape(), false);
        Resample::run(x[0].cpu(), axes, 0.0, &mut y[0], &x[0]);
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let axes = self.axes(x[0].shape(), y[0].shape(), true);
        let (dy, mut dx) = (dy[0].as_ref().expect("one result"), dx.out(0));
        let beta = dx.beta;
        Resample::run(dy.cpu(), axes, beta, &mut dx, dy);
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, false, 0.0, &y[0], &x[0]);
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        _x: &[Tensor],
        _y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let dx = dx.out(0);
        self.launch(gpu, true, dx.beta, &dx, dy[0].as_ref().expect("one result"));
    }

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = dx[0]?;
        Some(dx.tape().apply(*self, &[dx]))
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let spec = self.outputs(&[Spec::f32(x[0].shape)])[0];
        let ([_, height, width, c], shape) = (std::array::from_fn(|i| x[0].shape[i]), spec.shape);
        let at = |i: usize, r: usize, q: usize, j: usize| x[0].data[((i * height + r) * width + q) * c + j];
        let y = |flat: usize| {
            let (j, q, r) = (flat % c, flat / c % shape[2], flat / c / shape[2] % shape[1]);
            let i = flat / c / shape[2] / shape[1];
            match *self {
                Resample::Pool([kh, kw], [sh, sw]) => {
                    let window = (0..kh).flat_map(|a| (0..kw).map(move |b| (a, b)));
                    window.map(|(a, b)| at(i, r * sh + a, q * sw + b, j)).sum::<f64>() / (kh * kw) as f64
                }
                Resample::Nearest(k) => at(i, r / k, q / k, j),
                Resample::Bilinear(k) => {
                    let place = |o: usize, length: usize| {
                        let x = ((o as f64 + 0.5) / k as f64 - 0.5).max(0.0);
                        let first = x as usize;
                        (first, (first + 1).min(length - 1), x - first as f64)
                    };
                    let ((r0, r1, a), (q0, q1, b)) = (place(r, height), place(q, width));
                    let row = |r: usize| (1.0 - b) * at(i, r, q0, j) + b * at(i, r, q1, j);
                    (1.0 - a) * row(r0) + a * row(r1)
                }
            }
        };
        vec![Array64::from_fn(shape, y)]
    }
}

impl<'t> Var<'t> {
    /// Means of windows of `kernel` (height, width) of these pictures (N, H, W, C), `stride` apart.
    pub fn average_pool(self, kernel: [usize; 2], stride: [usize; 2]) -> Var<'t> {
        self.tape().apply(Resample::Pool(kernel, stride), &[self])
    }

    /// The mean of each channel of each picture: (N, H, W, C) to (N, 1, 1, C).
    pub fn global_average(self) -> Var<'t> {
        let shape = self.shape();
        self.average_pool([shape[1], shape[2]], [1, 1])
    }

    /// Each pixel `k` times along both axes: (N, H, W, C) to (N, kH, kW, C).
    pub fn upsample_nearest(self, k: usize) -> Var<'t> {
        self.tape().apply(Resample::Nearest(k), &[self])
    }

    /// The same with straight lines between pixels, as PyTorch's `interpolate` without aligned corners.
    pub fn upsample_bilinear(self, k: usize) -> Var<'t> {
        self.tape().apply(Resample::Bilinear(k), &[self])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let pool = |kernel, stride| Resample::Pool(kernel, stride);
    let check = |op: Resample, shape: [usize; 4]| Case::check(format!("{op:?} of {shape:?}"), op, [Input::normal(shape)]);
    let bench = |op: Resample, shape: [usize; 4]| Case::bench(format!("{op:?} of {shape:?}"), op, [Input::normal(shape)]);
    vec![
        check(pool([2, 2], [2, 2]), [2, 4, 6, 3]),
        check(pool([3, 2], [2, 1]), [1, 8, 5, 8]),
        check(pool([2, 3], [3, 4]), [2, 9, 12, 20]),
        check(pool([5, 7], [1, 1]), [3, 5, 7, 9]),
        check(Resample::Nearest(2), [2, 3, 4, 5]),
        check(Resample::Nearest(3), [1, 5, 2, 24]),
        check(Resample::Bilinear(2), [2, 4, 3, 8]),
        check(Resample::Bilinear(3), [1, 2, 5, 7]),
        check(Resample::Bilinear(4), [2, 1, 6, 12]),
        bench(pool([2, 2], [2, 2]), [128, 28, 28, 32]),
        bench(Resample::Nearest(2), [128, 14, 14, 64]),
        bench(Resample::Bilinear(2), [128, 14, 14, 64]),
    ]
}
