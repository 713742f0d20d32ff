//! How a norm of pictures changes as x moves along a: the tangent of [`picture_norm`](super::picture_norm).
//!
//! ```text
//! t = (a − mean(a) − n·mean(a·n)) / sqrt(var + eps)           y = t·g·f′(n·g + b)
//! ```
//! with means over what shares mean and variance, and without them where these were given. Inputs: x, g, b, a, and where they
//! are given the mean and variance (C). Result: y.
//!
//! Backward, with p = dy·f′·g, q = mean(a·n), P = mean(p·n) and S = mean(p·t); t = J·a with a symmetric J, so
//! `da = u = J·p`, that is the norm's own backward; `dg = Σ dy·f′·t`, nothing for b, and
//!
//! ```text
//! dx = −(q·u + P·t + S·n) / sqrt(var + eps)                   0 where mean and var were given
//! ```

use super::norm_parts::{Steps, total};
use super::picture_norm::{PictureNorm, Statistics, inputs};
use super::{Case, Input};
use crate::cpu::picture_norm::Sizes;
use crate::cpu::{chunks, elementwise};
use crate::device::{Device, Gpu};
use crate::launch::{flag, flat};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// The tangent of this norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormTangent(pub PictureNorm);

impl NormTangent {
    fn given(&self) -> bool {
        self.0.statistics == Statistics::Given
    }
}

/// The products of the elements of two values.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Out::new(a.device(), a.spec());
    match a.device() {
        Device::Cpu(host) => {
            let (cpu, a, b) = (&host.cpu, a.f32(), b.f32());
            cpu.threads.each(chunks(y.f32_mut(), elementwise::CHUNK), |i, y| {
                let range = i * elementwise::CHUNK..i * elementwise::CHUNK + y.len();
                y.iter_mut().zip(a[range.clone()].iter().zip(&b[range])).for_each(|(y, (a, b))| *y = a * b);
            });
        }
        Device::Gpu(gpu) => flat(gpu, "elementwise.ptx", "mul_fwd", &[a, b, &y], &[flag(false)]),
    }
    y.freeze()
}

impl Op for NormTangent {
    fn name(&self) -> &'static str {
        "norm_tangent"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x.len(), if self.given() { 6 } else { 4 }, "norm_tangent: the number of inputs");
        assert_eq!(x[0], x[3], "norm_tangent: x and the direction differ");
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let with: Tensors = x.iter().enumerate().filter(|(i, _)| *i != 3).map(|(_, x)| x.clone()).collect();
        let steps = Steps::new(self.0, &with, &mut []);
        let plain = steps.plain();
        let means = plain.means(&plain.sums(&x[3]));
        let mut t = Out::new(x[0].device(), x[0].spec());
        plain.back(&x[3], &means, 0.0, &mut t);
        let t = t.freeze();
        steps.gain(&t, &mut y[0]);
        Tensors::from_iter([steps.stats().clone(), means, t])
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        let (steps, of_a, t) = (Steps::with(self.0, x, Some(saved[0].clone())), &saved[1], &saved[2]);
        let of_p = steps.means(&steps.sums(dy));
        let with_t = steps.sums(&product(dy, t));
        if dx.wants(1) {
            let mut dg = dx.out(1);
            let beta = dg.beta;
            total(&with_t[0], beta, &mut dg);
        }
        if dx.wants(0) && !self.given() {
            let mut u = Out::new(dy.device(), dy.spec());
            steps.back(dy, &of_p, 0.0, &mut u);
            let u = u.freeze();
            {
                let mut dx = dx.out(0);
                let beta = dx.beta;
                steps.second([t, &u], [of_a, &of_p, &steps.means(&with_t)], beta, &mut dx);
            }
            if dx.wants(3) {
                dx.give(3, u);
            }
        } else if dx.wants(3) {
            let mut da = dx.out(3);
            let beta = da.beta;
            steps.back(dy, &of_p, beta, &mut da);
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

    fn reads(&self) -> Reads {
        Reads { x: 0b111, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let Sizes { segments, rows, c, width } = self.0.sizes(&x[0].shape);
        let (values, a, mut y) = (&x[0].data, &x[3].data, x[0].clone());
        for (segment, first) in (0..segments).flat_map(|s| (0..c).step_by(width).map(move |first| (s, first))) {
            let at = move |row: usize, j: usize| (segment * rows + row) * c + j;
            let elements = || (0..rows).flat_map(move |row| (first..first + width).map(move |j| at(row, j)));
            let mean = |f: &dyn Fn(usize) -> f64| elements().map(f).sum::<f64>() / (rows * width) as f64;
            let (center, var) = match self.given() {
                true => (x[4].data[first], x[5].data[first]),
                false => {
                    let center = mean(&|i| values[i]);
                    (center, mean(&|i| (values[i] - center).powi(2)))
                }
            };
            let root = (var + f64::from(self.0.eps)).sqrt();
            let n = |i: usize| (values[i] - center) / root;
            let [of_a, of_an] = if self.given() { [0.0; 2] } else { [mean(&|i| a[i]), mean(&|i| a[i] * n(i))] };
            for i in elements() {
                let (g, s) = (x[1].data[i % c], n(i) * x[1].data[i % c] + x[2].data[i % c]);
                let slope = if s > 0.0 { 1.0 } else { f64::from(self.0.slope) };
                y.data[i] = (a[i] - of_a - n(i) * of_an) / root * g * slope;
            }
        }
        vec![y]
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let all = [(Statistics::Batch(0.1), "batch"), (Statistics::Given, "given"), (Statistics::Groups(2), "groups")];
    for (statistics, name) in all {
        let with = |shape: &[usize]| {
            let mut inputs = inputs(shape, statistics);
            if statistics != Statistics::Given {
                inputs.truncate(3);
            }
            inputs.insert(3, Input::normal(inputs[0].spec.shape));
            inputs
        };
        for slope in [1.0, 0.2] {
            let op = NormTangent(PictureNorm { statistics, eps: 1e-5, slope });
            cases.push(Case::check(format!("{name} slope={slope} 2x3x3x6"), op, with(&[2, 3, 3, 6])));
        }
        let op = NormTangent(PictureNorm { statistics, eps: 1e-5, slope: 0.2 });
        cases.push(Case::check(format!("{name} 3x5x8x20, several blocks"), op, with(&[3, 5, 8, 20])));
        cases.push(Case::bench(format!("{name} 128x14x14x64"), op, with(&[128, 14, 14, 64])));
    }
    cases
}
