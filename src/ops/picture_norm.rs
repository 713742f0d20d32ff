//! BatchNorm and GroupNorm of pictures (N, …, C), with a leaky ReLU after them.
//!
//! ```text
//! n = (x − mean) / sqrt(var + eps)        mean, var (with 1/M) over M elements:
//!   batch    those of a channel in the whole batch                        result 1, 2: the running mean and variance
//!   given    inputs: a channel's running mean and variance, in evaluation
//!   groups   those of an example in C/G neighbouring channels
//! y = f(n·g + b)                          f(s) = s where s > 0, else slope · s; slope 1: none
//! running ← (1 − momentum) running + momentum · (mean, var M/(M − 1))     as PyTorch has it
//! ```
//! Inputs: x, g (C), b (C); batch and given: the running mean (C) and variance (C). The new running values are results like
//! any other: who keeps them is [`Tape::update`](crate::tape::Tape::update)'s affair. They have no gradients.
//!
//! Backward, with d = dy · f′(n·g + b): `db = Σ d`, `dg = Σ d·n`, `dx = (g·d − mean(g·d) − n·mean(g·d·n)) / sqrt(var + eps)`
//! with means as above, and without them where mean and var were given.
//!
//! Sources: Ioffe, Szegedy 2015 (arXiv 1502.03167); Wu, He 2018 (arXiv 1803.08494); Chan, Golub, LeVeque 1983.

use super::fused::Fused;
use super::norm_parts::{Steps, total};
use super::norm_tangent::NormTangent;
use super::{Case, Fill, Input};
use crate::cpu::picture_norm::Sizes;
use crate::device::Gpu;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;

/// Over what mean and variance are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistics {
    /// The batch, a channel each; the running ones move by this share.
    Batch(f32),
    /// None: they are inputs.
    Given,
    /// An example, so many groups of channels.
    Groups(usize),
}

/// A norm; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureNorm {
    /// Over what.
    pub statistics: Statistics,
    /// Added to the variance.
    pub eps: f32,
    /// The slope below 0 of what follows; 1: nothing follows.
    pub slope: f32,
}

impl Op for PictureNorm {
    fn name(&self) -> &'static str {
        if matches!(self.statistics, Statistics::Groups(_)) { "groupnorm" } else { "batchnorm" }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let c = x[0].shape.last_dim();
        let vectors = if matches!(self.statistics, Statistics::Groups(_)) { 2 } else { 4 };
        assert_eq!(x.len(), 1 + vectors, "{}: the number of inputs", self.name());
        assert!(x[1..].iter().all(|spec| spec.shape[..] == [c]), "{}: vectors of {c} channels", self.name());
        assert!(x[0].shape.numel() > 0, "{}: of nothing, {:?}", self.name(), x[0].shape);
        if let Statistics::Groups(groups) = self.statistics {
            assert!(groups > 0 && c.is_multiple_of(groups), "groupnorm: {groups} groups of {c} channels");
        }
        let running = if matches!(self.statistics, Statistics::Batch(_)) { 2 } else { 0 };
        [x[0]].into_iter().chain(std::iter::repeat_n(Spec::f32([c]), running)).collect()
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let steps = Steps::new(*self, x, y);
        steps.apply(&mut y[0]);
        if Need::any(need) { Tensors::from_iter([steps.stats().clone()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let Some(dy) = &dy[0] else { return };
        let steps = Steps::with(*self, x, Some(saved[0].clone()));
        let sums = steps.sums(dy);
        if dx.wants(0) {
            let mut dx = dx.out(0);
            let beta = dx.beta;
            steps.back(dy, &steps.means(&sums), beta, &mut dx);
        }
        for (i, partial) in [(1, &sums[1]), (2, &sums[0])] {
            if dx.wants(i) {
                let mut out = dx.out(i);
                let beta = out.beta;
                total(partial, beta, &mut out);
            }
        }
    }

    fn launch_forward(&self, _gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        self.forward(x, y, need)
    }

    fn launch_backward(
        &self,
        _gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        self.backward(x, y, saved, dy, dx);
    }

    fn jvp<'t>(&self, x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = Fused::of_first(dx)?;
        let given: ArrayVec<Var, 2> = x[3..].iter().copied().filter(|_| self.statistics == Statistics::Given).collect();
        let inputs: ArrayVec<Var, 6> = [x[0], x[1], x[2], dx].into_iter().chain(given).collect();
        Some(dx.tape().apply(NormTangent(*self), &inputs))
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b111, y: 0, again: 1 }
    }

    fn state(&self) -> u8 {
        0b110
    }

    fn again(&self, _i: usize, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        Steps::with(*self, x, Some(saved[0].clone())).apply(out);
    }

    fn launch_again(&self, _gpu: &Gpu, i: usize, x: &[Tensor], y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.again(i, x, y, saved, out);
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let Sizes { segments, rows, c, width } = self.sizes(&x[0].shape);
        let at = |segment: usize, row: usize, j: usize| (segment * rows + row) * c + j;
        let mut y = x[0].clone();
        let (mut means, mut vars) = (vec![0.0; c], vec![0.0; c]);
        for segment in 0..segments {
            for first in (0..c).step_by(width) {
                let elements = || (0..rows).flat_map(|row| (first..first + width).map(move |j| at(segment, row, j)));
                let count = (rows * width) as f64;
                let (mean, var) = if self.statistics == Statistics::Given {
                    (x[3].data[first], x[4].data[first])
                } else {
                    let mean = elements().map(|i| x[0].data[i]).sum::<f64>() / count;
                    (mean, elements().map(|i| (x[0].data[i] - mean).powi(2)).sum::<f64>() / count)
                };
                (means[first], vars[first]) = (mean, var * count / (count - 1.0).max(1.0));
                for i in elements() {
                    let s = (x[0].data[i] - mean) / (var + f64::from(self.eps)).sqrt() * x[1].data[i % c] + x[2].data[i % c];
                    y.data[i] = if s > 0.0 { s } else { f64::from(self.slope) * s };
                }
            }
        }
        let Statistics::Batch(momentum) = self.statistics else { return vec![y] };
        let moved = |i: usize, now: &[f64]| {
            let m = f64::from(momentum);
            Array64::from_fn([c], |j| (1.0 - m) * x[i].data[j] + m * now[j])
        };
        vec![y, moved(3, &means), moved(4, &vars)]
    }
}

impl<'t> Var<'t> {
    /// BatchNorm of this value (N, …, C) in training, with gain, bias and running statistics (C), and a leaky ReLU of `slope`
    /// (1: none): the value, and the new running mean and variance, which move by `momentum`.
    pub fn batchnorm(self, [g, b, mean, var]: [Var<'t>; 4], momentum: f32, eps: f32, slope: f32) -> [Var<'t>; 3] {
        let y = self.tape().apply(PictureNorm { statistics: Statistics::Batch(momentum), eps, slope }, &[self, g, b, mean, var]);
        [y, y.output(1), y.output(2)]
    }

    /// BatchNorm in evaluation: by the running mean and variance.
    pub fn batchnorm_given(self, [g, b, mean, var]: [Var<'t>; 4], eps: f32, slope: f32) -> Var<'t> {
        self.tape().apply(PictureNorm { statistics: Statistics::Given, eps, slope }, &[self, g, b, mean, var])
    }

    /// GroupNorm of this value (N, …, C) in `groups` of channels, with gain and bias (C) and a leaky ReLU of `slope` (1: none).
    pub fn groupnorm(self, groups: usize, g: Var<'t>, b: Var<'t>, eps: f32, slope: f32) -> Var<'t> {
        self.tape().apply(PictureNorm { statistics: Statistics::Groups(groups), eps, slope }, &[self, g, b])
    }
}

/// The inputs of a norm.
pub(super) fn inputs(shape: &[usize], statistics: Statistics) -> Vec<Input> {
    let c = shape[shape.len() - 1];
    let mut inputs = vec![
        Input { fill: Fill::Normal(0.5, 2.0), ..Input::normal(Shape::new(shape)) },
        Input::gain([c]),
        Input::normal([c]).param(),
    ];
    if !matches!(statistics, Statistics::Groups(_)) {
        inputs.push(Input::normal([c]).fixed());
        inputs.push(Input { fill: Fill::Uniform(0.5, 2.0), ..Input::normal([c]).fixed() });
    }
    inputs
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let all = [(Statistics::Batch(0.1), "batch"), (Statistics::Given, "given"), (Statistics::Groups(2), "groups")];
    for (statistics, name) in all {
        for slope in [1.0, 0.2] {
            let op = PictureNorm { statistics, eps: 1e-5, slope };
            let name = format!("{name} slope={slope}");
            cases.push(Case::check(format!("{name} 2x3x3x6"), op, inputs(&[2, 3, 3, 6], statistics)));
            cases.push(Case::check(format!("{name} 3x9x8x20, several blocks"), op, inputs(&[3, 9, 8, 20], statistics)));
        }
        let op = PictureNorm { statistics, eps: 1e-5, slope: 0.2 };
        cases.push(Case::bench(format!("{name} 128x14x14x64"), op, inputs(&[128, 14, 14, 64], statistics)));
    }
    cases
}
