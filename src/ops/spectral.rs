//! Weights divided by their spectral norm, the largest singular value, as power iteration finds it.
//!
//! ```text
//! M      (O, K): W (O, …) as a matrix; W (…, O) transposed where `last` says that results are along the last axis
//! v  = Mᵀu / |Mᵀu|,   u′ = Mv / |Mv|,   σ = u′·Mv
//! y  = W / σ
//! ```
//! Inputs: W and u (O), which is where the last pass came to. Results: y and u′; who keeps u′ is
//! [`Tape::update`](crate::tape::Tape::update)'s affair. One iteration a pass is enough, as weights change little.
//!
//! Backward, with u′ and v held fixed: `dM = (dy − (Σ dy·y) u′vᵀ) / σ`; nothing for u.
//!
//! Source: Miyato et al. 2018 (arXiv 1802.05957). PyTorch's `spectral_norm` keeps v too, and does not iterate in evaluation.

use super::{Case, Fill, Input};
use crate::cpu::elementwise::{CHUNK, accumulate, add_scaled};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::reduce::{dot, square_sum};
use crate::cpu::{Cpu, Vector, chunks};
use crate::device::{Arg, Gpu, kernels};
use crate::launch::{at, flag, float, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// What a norm is at least, so that nothing is divided by 0.
const EPS: f32 = 1e-12;

/// Divides weights by their spectral norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spectral {
    /// Whether the results' channels are along the last axis of W and not along the first.
    pub last: bool,
}

simd_fn! {
    /// A row of the gradient, `dw = beta dw + dy scale − a b`.
    fn back_row(beta: f32, dw: &mut [f32], dy: &[f32], scale: f32, a: f32, b: &[f32]) = back_row_body
}

#[inline(always)]
fn back_row_body<V: Vector>(beta: f32, dw: &mut [f32], dy: &[f32], scale: f32, a: f32, b: &[f32]) {
    let (scale, a) = (V::splat(scale), V::splat(-a));
    accumulate::<V>(beta, dw, #[inline(always)] |j, w| {
        V::at(&b[j..], w).fma(a, V::at(&dy[j..], w) * scale)
    });
}

/// Divides a vector by its length; returns what u·t is of the t given and the u that is left.
fn unit(cpu: &Cpu, t: &mut [f32]) -> f32 {
    let square = square_sum(cpu, t) as f32;
    let length = square.sqrt().max(EPS);
    t.iter_mut().for_each(|t| *t /= length);
    square / length
}

impl Spectral {
    /// W as a matrix that lies as W does: rows and columns.
    fn matrix(&self, w: &Shape) -> (usize, usize) {
        if self.last { w.as_matrix() } else { (w[0], w.numel() / w[0]) }
    }

    /// M·x, or Mᵀ·x where `transposed`.
    fn multiply(&self, cpu: &Cpu, w: &Tensor, transposed: bool, x: &[f32], y: &mut [f32]) {
        let (rows, cols) = self.matrix(w.shape());
        let m = Mat::new(w.f32(), rows, cols);
        let m = if transposed == self.last { m.t() } else { m };
        let (k, n) = (x.len(), y.len());
        gemm(cpu, Precision::F32, Mat::new(x, 1, k), m, MatMut::new(y, 1, n), false, None);
    }

    fn launch_multiply(&self, gpu: &Gpu, w: &Tensor, transposed: bool, x: &Tensor, y: &Tensor) {
        let ((rows, cols), types) = (self.matrix(w.shape()), [float(w), float(x)]);
        let pointers = [at(w), at(x), at(y)];
        match transposed == self.last {
            true => {
                let args = [&pointers[..], &[n(rows), n(cols), n(0)]].concat();
                gpu.launch(kernels::row_dots(types, rows, cols), &args);
            }
            false => {
                let args = [&pointers[..], &[n(rows), n(cols)]].concat();
                gpu.launch(kernels::column_dots(types, cols), &args);
            }
        }
    }

    /// The vectors along the rows and along the columns of the matrix as W lies.
    fn sides<'a>(&self, u: &'a Tensor, v: &'a Tensor) -> [&'a Tensor; 2] {
        if self.last { [v, u] } else { [u, v] }
    }
}

impl Op for Spectral {
    fn name(&self) -> &'static str {
        "spectral"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let channels = if self.last { x[0].shape.last_dim() } else { x[0].shape[0] };
        assert!(x[0].shape.numel() > 0 && x[1].shape[..] == [channels], "spectral: u {:?} of {:?}", x[1], x[0]);
        Specs::from_iter([x[0], x[1]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, w, device) = (x[0].cpu(), &x[0], x[0].device());
        let [y, u] = y else { unreachable!("two results") };
        let mut v = Out::new(device, Spec::f32([w.numel() / u.numel()]));
        self.multiply(cpu, w, true, x[1].f32(), v.f32_mut());
        unit(cpu, v.f32_mut());
        self.multiply(cpu, w, false, v.f32(), u.f32_mut());
        let sigma = unit(cpu, u.f32_mut());
        add_scaled(cpu, 0.0, y.f32_mut(), 1.0 / sigma, w.f32());
        Tensors::from_iter([v.freeze(), Tensor::from_slice(device, &[sigma], [1])])
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let Some(dy) = dy[0].as_ref().filter(|_| dx.wants(0)) else { return };
        let (cpu, sigma, (_, cols)) = (x[0].cpu(), saved[1].f32()[0], self.matrix(x[0].shape()));
        let [a, b] = self.sides(&y[1], &saved[0]).map(Tensor::f32);
        let share = (dot(cpu, dy.f32(), x[0].f32()) / f64::from(sigma).powi(2)) as f32;
        let (mut dw, dy, rows) = (dx.out(0), dy.f32(), (CHUNK / cols).max(1));
        let beta = dw.beta;
        cpu.threads.each(chunks(dw.f32_mut(), rows * cols), |i, dw| {
            let lines = dw.chunks_exact_mut(cols).zip(dy[i * rows * cols..].chunks_exact(cols));
            for ((dw, dy), a) in lines.zip(&a[i * rows..]) {
                back_row(cpu.simd, beta, dw, dy, 1.0 / sigma, share * a, b);
            }
        });
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (w, device) = (&x[0], x[0].device());
        let vector = |like: usize| Out::new(device, Spec::f32([like]));
        let (channels, inner) = (y[1].numel(), w.numel() / y[1].numel());
        let (long, v, short, sigma) = (vector(inner), vector(inner), vector(channels), vector(1));
        let unit = |t: &Tensor, y: &Tensor, sigma: Arg| {
            gpu.launch(kernels::spectral_unit(), &[at(t), at(y), sigma, n(t.numel()), Arg::F32(EPS)]);
        };
        self.launch_multiply(gpu, w, true, &x[1], &long);
        unit(&long, &v, Arg::U64(0));
        self.launch_multiply(gpu, w, false, &v, &short);
        unit(&short, &y[1], at(&sigma));
        let plan = kernels::spectral("spectral_fwd", float(w), w.numel(), w.numel());
        gpu.launch(plan, &[at(w), at(&sigma), at(&y[0]), n(w.numel())]);
        Tensors::from_iter([v.freeze(), sigma.freeze()])
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
        let Some(dy) = dy[0].as_ref().filter(|_| dx.wants(0)) else { return };
        let (rows, cols) = self.matrix(x[0].shape());
        let [each, sum] = [rows, 1].map(|n| Out::new(dy.device(), Spec::f32([n])));
        let args = [at(dy), at(&x[0]), at(&each), n(rows), n(cols), n(cols)];
        gpu.launch(kernels::row_dots([float(dy), float(&x[0])], rows, cols), &args);
        let args = [at(&each), at(&sum), n(1), n(rows), Arg::F32(1.0)];
        gpu.launch(kernels::row_sums(float(&each), 1, rows), &args);
        let (dw, [a, b]) = (dx.out(0), self.sides(&y[1], &saved[0]));
        // Σ dy·W is σ Σ dy·y.
        let args = [at(dy), at(a), at(b), at(&sum), at(&saved[1]), at(&dw)];
        let numbers = [n(dw.numel()), n(cols), flag(dw.beta != 0.0)];
        gpu.launch(kernels::spectral("spectral_bwd", float(dy), dw.numel(), cols), &[&args[..], &numbers].concat());
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b01, y: 0b10, again: 0 }
    }

    fn state(&self) -> u8 {
        0b10
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let ((rows, cols), w) = (self.matrix(&x[0].shape), &x[0].data);
        let (o, k) = if self.last { (cols, rows) } else { (rows, cols) };
        let m = |i: usize, j: usize| if self.last { w[j * cols + i] } else { w[i * cols + j] };
        let unit = |t: Vec<f64>| -> Vec<f64> {
            let length = t.iter().map(|t| t * t).sum::<f64>().sqrt().max(f64::from(EPS));
            t.iter().map(|t| t / length).collect()
        };
        let v = unit((0..k).map(|j| (0..o).map(|i| m(i, j) * x[1].data[i]).sum()).collect());
        let t: Vec<f64> = (0..o).map(|i| (0..k).map(|j| m(i, j) * v[j]).sum()).collect();
        let u = unit(t.clone());
        let sigma: f64 = u.iter().zip(&t).map(|(u, t)| u * t).sum();
        vec![Array64::from_fn(x[0].shape, |i| w[i] / sigma), Array64::new(x[1].shape, u)]
    }
}

impl<'t> Var<'t> {
    /// These weights divided by their spectral norm, and what u is next; see [`spectral`](self).
    pub fn spectral(self, u: Var<'t>, last: bool) -> [Var<'t>; 2] {
        let y = self.tape().apply(Spectral { last }, &[self, u]);
        [y, y.output(1)]
    }
}

pub(super) fn cases() -> Vec<Case> {
    // u has come to its end, where σ is the norm and holding u and v fixed is exact.
    let inputs = |shape: &[usize], last: bool| {
        let shape = Shape::new(shape);
        let w = Input { fill: Fill::Normal(0.0, 0.2), ..Input::normal(shape).param() };
        let w = Input { fill: Fill::Values(w.data(0)), ..w };
        let data: Vec<f64> = w.data(0).into_iter().map(f64::from).collect();
        let mut u = vec![1.0; if last { shape.last_dim() } else { shape[0] }];
        for _ in 0..300 {
            let x = [Array64::new(shape, data.clone()), Array64::new([u.len()], u)];
            u = Spectral { last }.reference(&x).swap_remove(1).data;
        }
        let u: Vec<f32> = u.into_iter().map(|u| u as f32).collect();
        [w, Input::values([u.len()], &u)]
    };
    let mut cases = Vec::new();
    for (shape, last) in [(&[3, 5][..], false), (&[8, 4, 4, 2], false), (&[4, 3, 3, 8], true), (&[1, 24], false)] {
        cases.push(Case::check(format!("{shape:?}, last={last}"), Spectral { last }, inputs(shape, last)));
    }
    cases.push(Case::check("several tasks", Spectral { last: false }, inputs(&[40, 700], false)));
    let (w, u) = (Input::weight(128, 1024), Input::normal([128]).fixed());
    cases.push(Case::bench("128x1024", Spectral { last: false }, [w, u]));
    cases
}
