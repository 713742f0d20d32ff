//! Losses that are a function of each element, summed (or averaged) for each example: (B, …) to (B).
//!
//! ```text
//! Bce        softplus(x) − t·x = −t log σ(x) − (1 − t) log(1 − σ(x))       x a logit, t from 0 to 1
//! Square     (x − t)²
//! Absolute   |x − t|                                                        slope 0 at x = t
//! Hinge      max(1 − t·x, 0)                                               t is 1 or −1
//! Gaussian   ½ (log 2π + v + (x − t)² e⁻ᵛ) = −log N(t; x, eᵛ)              x the mean, v the log of the variance
//! ```
//! Inputs: x, then t, then v (Gaussian), all of one shape; t may instead be one number for all elements, as a discriminator
//! has it: Bce of 1 and of 0 is the non-saturating loss softplus(∓x), Square LSGAN's, Hinge of ±1 the hinge.
//!
//! Backward: `dx = dy[example] · f′` for each input that has a gradient. Nothing is saved. Each example is summed in 64
//! lanes.
//!
//! Sources: Goodfellow et al. 2014 (arXiv 1406.2661); Mao et al. 2016 (arXiv 1611.04076); Lim, Ye 2017 (arXiv 1705.02894);
//! Kingma, Welling 2013 (arXiv 1312.6114).

use super::{Case, Fill, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Lanes, Vector, chunks, math};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, flag, float, maybe, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// ½ log 2π.
const HALF_LOG_TAU: f32 = 0.918_938_5;

/// A function of an element; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LossKind {
    Bce,
    Square,
    Absolute,
    Hinge,
    Gaussian,
}

/// A loss for each example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Of which function.
    pub kind: LossKind,
    /// The target of all elements, where it is no input.
    pub target: Option<f32>,
    /// Whether the sum is divided by the number of an example's elements.
    pub mean: bool,
}

/// The inputs of some examples.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    loss: Loss,
    x: &'a [f32],
    /// Empty where the target is a number.
    t: &'a [f32],
    /// Empty but for a Gaussian.
    v: &'a [f32],
}

impl<'a> Inputs<'a> {
    fn new(loss: Loss, x: &'a [Tensor]) -> Inputs<'a> {
        let get = |i: usize| x.get(i).map_or(&[][..], Tensor::f32);
        Inputs { loss, x: get(0), t: get(1), v: get(2) }
    }

    fn part(&self, start: usize, len: usize) -> Inputs<'a> {
        let of = |x: &'a [f32]| if x.is_empty() { x } else { &x[start..start + len] };
        Inputs { x: of(self.x), t: of(self.t), v: of(self.v), ..*self }
    }

    /// x, t and v of the elements from i on.
    #[inline(always)]
    fn at<V: Vector>(&self, i: usize, w: usize) -> [V; 3] {
        let t = if self.t.is_empty() { V::splat(self.loss.target.unwrap_or(0.0)) } else { V::at(&self.t[i..], w) };
        let v = if self.v.is_empty() { V::splat(0.0) } else { V::at(&self.v[i..], w) };
        [V::at(&self.x[i..], w), t, v]
    }
}

impl LossKind {
    #[inline(always)]
    fn value<V: Vector>(self, [x, t, v]: [V; 3]) -> V {
        let (zero, d) = (V::splat(0.0), x - t);
        match self {
            LossKind::Bce => (-t).fma(x, x.max(zero)) + math::log1p_unit(math::exp(-x.abs())),
            LossKind::Square => d * d,
            LossKind::Absolute => d.abs(),
            LossKind::Hinge => (-t).fma(x, V::splat(1.0)).max(zero),
            LossKind::Gaussian => (d * d).fma(math::exp(-v), v).fma(V::splat(0.5), V::splat(HALF_LOG_TAU)),
        }
    }

    /// The derivative with respect to input `i`.
    #[inline(always)]
    fn slope<V: Vector>(self, i: usize, [x, t, v]: [V; 3]) -> V {
        let (zero, one, d) = (V::splat(0.0), V::splat(1.0), x - t);
        let slope = match self {
            LossKind::Bce if i == 1 => x,
            LossKind::Bce => math::sigmoid(x) - t,
            LossKind::Square => d + d,
            LossKind::Absolute => one.copysign(d).select(d.abs().gt(zero), zero),
            LossKind::Hinge => (if i == 1 { x } else { -t }).select((-t).fma(x, one).gt(zero), zero),
            LossKind::Gaussian if i == 2 => (-d * d).fma(math::exp(-v), one) * V::splat(0.5),
            LossKind::Gaussian => d * math::exp(-v),
        };
        if i == 1 { -slope } else { slope }
    }

    fn exact(self, x: f64, t: f64, v: f64) -> f64 {
        match self {
            LossKind::Bce => x.max(0.0) - t * x + libm::log1p(libm::exp(-x.abs())),
            LossKind::Square => (x - t).powi(2),
            LossKind::Absolute => (x - t).abs(),
            LossKind::Hinge => (1.0 - t * x).max(0.0),
            LossKind::Gaussian => 0.5 * (std::f64::consts::TAU.ln() + v + (x - t).powi(2) * libm::exp(-v)),
        }
    }
}

simd_fn! {
    /// A sum for each example of `n` elements, times `scale`.
    fn forward_rows(inputs: Inputs, n: usize, scale: f32, y: &mut [f32]) = forward_rows_body
}

#[inline(always)]
fn forward_rows_body<V: Vector>(inputs: Inputs, n: usize, scale: f32, y: &mut [f32]) {
    for (row, y) in y.iter_mut().enumerate() {
        let mut lanes = Lanes::<V>::splat(0.0);
        lanes.run(
            n,
            #[inline(always)]
            |i, w| {
                let value = inputs.loss.kind.value(inputs.at::<V>(row * n + i, w));
                if w == V::W {
                    return value;
                }
                // The function of nothing need not be 0.
                let mut some = [0.0; 16];
                value.put(&mut some, w);
                V::load(&some)
            },
            #[inline(always)]
            |sum, x| sum + x,
        );
        *y = lanes.sum() * scale;
    }
}

simd_fn! {
    /// The gradient of input `i`, as many examples as `dy` has elements.
    fn backward_rows(inputs: Inputs, i: usize, n: usize, beta: f32, dx: &mut [f32], dy: &[f32], scale: f32) = backward_rows_body
}

#[inline(always)]
fn backward_rows_body<V: Vector>(inputs: Inputs, i: usize, n: usize, beta: f32, dx: &mut [f32], dy: &[f32], scale: f32) {
    for (row, (dx, dy)) in dx.chunks_exact_mut(n).zip(dy).enumerate() {
        let dy = V::splat(dy * scale);
        accumulate::<V>(beta, dx, #[inline(always)] |j, w| dy * inputs.loss.kind.slope(i, inputs.at::<V>(row * n + j, w)));
    }
}

impl Loss {
    /// Elements of an example, and what their sum is multiplied by.
    fn size(&self, x: &Shape) -> (usize, f32) {
        let n = x.numel() / x[0];
        (n, if self.mean { 1.0 / n as f32 } else { 1.0 })
    }

    fn inputs(&self) -> usize {
        1 + usize::from(self.target.is_none()) + usize::from(self.kind == LossKind::Gaussian)
    }

    /// Its kernels, forward and backward.
    fn entries(&self) -> [&'static str; 2] {
        match self.kind {
            LossKind::Bce => ["bce_fwd", "bce_bwd"],
            LossKind::Square => ["square_fwd", "square_bwd"],
            LossKind::Absolute => ["absolute_fwd", "absolute_bwd"],
            LossKind::Hinge => ["hinge_fwd", "hinge_bwd"],
            LossKind::Gaussian => ["gaussian_fwd", "gaussian_bwd"],
        }
    }
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        match self.kind {
            LossKind::Bce => "bce",
            LossKind::Square => "square",
            LossKind::Absolute => "absolute",
            LossKind::Hinge => "hinge",
            LossKind::Gaussian => "gaussian",
        }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x.len(), self.inputs(), "{}: the number of inputs", self.name());
        assert!(self.kind != LossKind::Gaussian || self.target.is_none(), "gaussian: the target is an input");
        assert!(x.iter().all(|spec| spec.shape == x[0].shape), "{}: the shapes differ", self.name());
        assert!(x[0].shape.numel() > 0, "{}: of nothing, {:?}", self.name(), x[0].shape);
        Specs::from_iter([Spec::f32([x[0].shape[0]])])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, (n, scale), inputs) = (x[0].cpu(), self.size(x[0].shape()), Inputs::new(*self, x));
        let rows = (CHUNK / n).max(1);
        cpu.threads.each(chunks(y[0].f32_mut(), rows), |i, y| {
            forward_rows(cpu.simd, inputs.part(i * rows * n, y.len() * n), n, scale, y);
        });
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, (n, scale), inputs) = (x[0].cpu(), self.size(x[0].shape()), Inputs::new(*self, x));
        let dy = dy[0].as_ref().expect("one result").f32();
        let rows = (CHUNK / n).max(1);
        for input in 0..x.len() {
            if !dx.wants(input) {
                continue;
            }
            let mut dx = dx.out(input);
            let beta = dx.beta;
            cpu.threads.each(chunks(dx.f32_mut(), rows * n), |i, dx| {
                let dy = &dy[i * rows..][..dx.len() / n];
                backward_rows(cpu.simd, inputs.part(i * rows * n, dx.len()), input, n, beta, dx, dy, scale);
            });
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (n_, scale) = self.size(x[0].shape());
        let rows = y[0].numel();
        let pointers = [at(&x[0]), maybe(x.get(1)), maybe(x.get(2)), at(&y[0])];
        let numbers = [n(rows), n(n_), Arg::F32(self.target.unwrap_or(0.0)), Arg::F32(scale)];
        gpu.launch(kernels::loss(self.entries()[0], float(&x[0]), rows, n_), &[pointers, numbers].concat());
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
        let (n_, scale) = self.size(x[0].shape());
        for input in 0..x.len() {
            if !dx.wants(input) {
                continue;
            }
            let (dy, dx) = (dy[0].as_ref().expect("one result"), dx.out(input));
            let pointers = [at(&x[0]), maybe(x.get(1)), maybe(x.get(2)), at(dy), at(&dx)];
            let numbers = [n(dx.numel()), n(n_), Arg::F32(self.target.unwrap_or(0.0)), Arg::F32(scale)];
            let plan = kernels::loss_backward(self.entries()[1], float(&x[0]), dx.numel(), n_);
            let last = [n(input), flag(dx.beta != 0.0)];
            gpu.launch(plan, &[pointers.as_slice(), &numbers, &last].concat());
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: !0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let n = x[0].data.len() / x[0].shape[0];
        let value = |i: usize| {
            let t = self.target.map_or_else(|| x[1].data[i], f64::from);
            self.kind.exact(x[0].data[i], t, x.get(2).map_or(0.0, |v| v.data[i]))
        };
        let sum = |row: usize| (row * n..(row + 1) * n).map(value).sum::<f64>() / if self.mean { n as f64 } else { 1.0 };
        vec![Array64::from_fn([x[0].shape[0]], sum)]
    }
}

impl<'t> Var<'t> {
    /// A loss of this value (B, …) against targets of the same shape, summed for each example: (B).
    pub fn loss(self, kind: LossKind, target: Var<'t>) -> Var<'t> {
        self.tape().apply(Loss { kind, target: None, mean: false }, &[self, target])
    }

    /// The same, averaged for each example.
    pub fn mean_loss(self, kind: LossKind, target: Var<'t>) -> Var<'t> {
        self.tape().apply(Loss { kind, target: None, mean: true }, &[self, target])
    }

    /// A loss of this value (B, …) against one target for all elements, averaged for each example: (B). What
    /// discriminators and generators minimise, averaged over the batch:
    ///
    /// ```text
    ///                   discriminator, of data and of samples                  generator
    /// non-saturating    Bce of 1 (smoothed: 0.9)     Bce of 0                  Bce of 1
    /// least squares     Square of 1                  Square of 0               Square of 1
    /// hinge             Hinge of 1                   Hinge of −1               −mean
    /// ```
    pub fn loss_to(self, kind: LossKind, target: f32) -> Var<'t> {
        self.tape().apply(Loss { kind, target: Some(target), mean: true }, &[self])
    }

    /// −log N(x; self, exp(logvar)), summed for each example; all (B, …).
    pub fn gaussian_nll(self, logvar: Var<'t>, x: Var<'t>) -> Var<'t> {
        let loss = Loss { kind: LossKind::Gaussian, target: None, mean: false };
        self.tape().apply(loss, &[self, x, logvar])
    }
}

pub(super) fn cases() -> Vec<Case> {
    use LossKind::{Absolute, Bce, Gaussian, Hinge, Square};
    let mut cases = Vec::new();
    // Off kinks: |x − t| and |1 − t·x| are 0.04 at least.
    let grid = |shape: Shape| {
        let value = |i: usize| (0.02 + 0.04 * (i * 7 % 90) as f32) * [1.0, -1.0][i % 2];
        Input { grad: true, ..Input::values(shape, &(0..shape.numel()).map(value).collect::<Vec<_>>()) }
    };
    for (kind, mean) in [(Bce, false), (Square, true), (Absolute, false), (Hinge, true), (Gaussian, false)] {
        let name = Loss { kind, target: None, mean }.name();
        let inputs = |shape: &[usize], grad: bool| {
            let shape = Shape::new(shape);
            let t: Vec<f32> = (0..shape.numel()).map(|i| [1.0, -1.0][i / 2 % 2]).collect();
            let t = match kind {
                Bce => Input { fill: Fill::Uniform(0.0, 1.0), ..Input::normal(shape) },
                Hinge => Input { grad: true, ..Input::values(shape, &t) },
                Absolute => Input { grad: true, ..Input::values(shape, &vec![0.0; shape.numel()]) },
                _ => Input::normal(shape),
            };
            let t = Input { grad, ..t };
            let mut inputs = vec![grid(shape), t];
            inputs.extend((kind == Gaussian).then(|| Input::normal(shape)));
            inputs
        };
        let op = Loss { kind, target: None, mean };
        cases.push(Case::check(format!("{name} 3x5x2"), op, inputs(&[3, 5, 2], true)));
        cases.push(Case::check(format!("{name} 37x784, fixed targets"), op, inputs(&[37, 784], false)));
        cases.push(Case::bench(format!("{name} 128x784"), op, inputs(&[128, 784], false)));
        if kind != Gaussian {
            let op = Loss { target: Some(if kind == Absolute { 0.0 } else { 1.0 }), ..op };
            cases.push(Case::check(format!("{name} to a number, 67x1"), op, [grid([67, 1].into())]));
            cases.push(Case::check(format!("{name} to a number, 3x70"), op, [grid([3, 70].into())]));
        }
    }
    cases
}
