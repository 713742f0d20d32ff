//! Sum or mean, over all elements (result: a scalar of rank 0) or over the last axis ((…, C) to (…)).
//!
//! The order of each sum is fixed: 64 lanes, and over all elements blocks of 4096 that are added in f64. Backward spreads
//! dy over what was summed; for a mean over n elements, dy / n.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::reduce::{ROWS, block_sum, sum};
use crate::cpu::{Vector, chunks};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels;
use crate::launch::{aligned, at, flag, float, n};
use crate::device::Arg;
use crate::tape::{Array64, Dx, Need, Op, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// Over which elements a reduction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All.
    All,
    /// Those of the last axis.
    LastAxis,
}

/// A sum or a mean.
#[derive(Clone, Copy, Debug)]
pub struct Reduce {
    /// Over which elements.
    pub over: Over,
    /// Whether the sum is divided by their number.
    pub mean: bool,
}

simd_fn! {
    /// `y = beta y + value`, all elements the same.
    fn spread(beta: f32, y: &mut [f32], value: f32) = spread_body
}

#[inline(always)]
fn spread_body<V: Vector>(beta: f32, y: &mut [f32], value: f32) {
    accumulate::<V>(beta, y, #[inline(always)] |_, _| V::splat(value));
}

impl Reduce {
    /// How many elements one result is made of, and what their sum is divided by.
    fn counts(&self, x: &Shape) -> (usize, usize) {
        let n = if self.over == Over::All { x.numel() } else { x.last_dim() };
        (n, if self.mean { n } else { 1 })
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        if self.mean { "mean" } else { "sum" }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert!(x[0].shape.numel() > 0, "{}: of nothing, {:?}", self.name(), x[0].shape);
        let axes = if self.over == Over::All { &[] } else { &x[0].shape[..x[0].shape.len() - 1] };
        Specs::from_iter([Spec::f32(Shape::new(axes))])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, (n, divisor)) = (x[0].cpu(), self.counts(x[0].shape()));
        let (x, y) = (x[0].f32(), y[0].f32_mut());
        match self.over {
            Over::All => y[0] = (sum(cpu, x) / divisor as f64) as f32,
            Over::LastAxis => cpu.threads.each(chunks(y, ROWS), |i, y| {
                for (y, x) in y.iter_mut().zip(x[i * ROWS * n..].chunks_exact(n)) {
                    *y = block_sum(cpu.simd, x) / divisor as f32;
                }
            }),
        }
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, (n, divisor)) = (x[0].cpu(), self.counts(x[0].shape()));
        let dy = dy[0].as_ref().expect("one result").f32();
        let mut dx = dx.out(0);
        let (beta, divisor) = (dx.beta, divisor as f32);
        match self.over {
            Over::All => cpu.threads.each(chunks(dx.f32_mut(), CHUNK), |_, dx| {
                spread(cpu.simd, beta, dx, dy[0] / divisor);
            }),
            Over::LastAxis => cpu.threads.each(chunks(dx.f32_mut(), ROWS * n), |i, dx| {
                for (dx, dy) in dx.chunks_exact_mut(n).zip(&dy[i * ROWS..]) {
                    spread(cpu.simd, beta, dx, dy / divisor);
                }
            }),
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (x, y, (count, divisor)) = (&x[0], &y[0], self.counts(x[0].shape()));
        match self.over {
            Over::All => {
                let plan = kernels::partial_sums("sum_partial", float(x), x.numel(), aligned(&[x]));
                let parts = plan.grid.blocks[0] as usize;
                // f64.
                let partial = Out::new(x.device(), Spec::f32([2 * parts]));
                gpu.launch(plan, &[at(x), at(&partial), n(x.numel())]);
                gpu.launch(kernels::total(), &[at(&partial), at(y), n(parts), n(divisor)]);
            }
            Over::LastAxis => {
                let rows = y.numel();
                let args = [at(x), at(y), n(rows), n(count), Arg::F32(1.0 / divisor as f32)];
                gpu.launch(kernels::row_sums(float(x), rows, count), &args);
            }
        }
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
        let (count, divisor) = self.counts(x[0].shape());
        let (dy, dx) = (dy[0].as_ref().expect("one result"), dx.out(0));
        let scale = Arg::F32(1.0 / divisor as f32);
        let args = [at(dy), at(&dx), n(dx.numel()), n(count), scale, flag(dx.beta != 0.0)];
        gpu.launch(kernels::row_sums_backward(float(&dx), dx.numel() / count, count), &args);
    }

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = dx[0]?;
        Some(dx.tape().apply(*self, &[dx]))
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (n, divisor) = self.counts(&x[0].shape);
        let y: Vec<f64> = x[0].data.chunks_exact(n).map(|x| x.iter().sum::<f64>() / divisor as f64).collect();
        let axes = if self.over == Over::All { &[] } else { &x[0].shape[..x[0].shape.len() - 1] };
        vec![Array64::new(Shape::new(axes), y)]
    }
}

impl<'t> Var<'t> {
    fn reduce(self, over: Over, mean: bool) -> Var<'t> {
        self.tape().apply(Reduce { over, mean }, &[self])
    }

    /// The sum of all elements, a scalar.
    pub fn sum(self) -> Var<'t> {
        self.reduce(Over::All, false)
    }

    /// The mean of all elements, a scalar.
    pub fn mean(self) -> Var<'t> {
        self.reduce(Over::All, true)
    }

    /// The sum over the last axis: (…, C) to (…).
    pub fn sum_last(self) -> Var<'t> {
        self.reduce(Over::LastAxis, false)
    }

    /// The mean over the last axis: (…, C) to (…).
    pub fn mean_last(self) -> Var<'t> {
        self.reduce(Over::LastAxis, true)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (over, mean) in [Over::All, Over::LastAxis].into_iter().flat_map(|over| [(over, false), (over, true)]) {
        let op = Reduce { over, mean };
        let name = format!("{} {over:?}", op.name());
        cases.push(Case::check(format!("{name} 2x3x5"), op, [Input::normal([2, 3, 5])]));
        // Off zero, so that the bound on a sum of 33,000 terms is one on its rounding and not on its cancellation.
        cases.push(Case::check(format!("{name} 33x1001, several tasks"), op, [Input::gain([33, 1001])]));
        cases.push(Case::check(format!("{name} 130x3, three blocks"), op, [Input::normal([130, 3])]));
        cases.push(Case::bench(format!("{name} 4096x768"), op, [Input::normal([4096, 768])]));
    }
    cases
}
