//! How far each example is from a sphere around 0: `y = (|x| − r)²`, (B, …) to (B). With r = 0 it is |x|².
//!
//! Backward: `dx = 2 dy (1 − r/|x|) x`, and 0 where x is 0. What penalties on gradients are made of.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::reduce::block_square_sum;
use crate::cpu::{Vector, chunks};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, flag, float, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// The sphere of this radius.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sphere(pub f32);

simd_fn! {
    /// `dx = beta dx + factor x`.
    fn scaled(beta: f32, dx: &mut [f32], x: &[f32], factor: f32) = scaled_body
}

#[inline(always)]
fn scaled_body<V: Vector>(beta: f32, dx: &mut [f32], x: &[f32], factor: f32) {
    accumulate::<V>(beta, dx, #[inline(always)] |i, w| V::at(&x[i..], w) * V::splat(factor));
}

impl Op for Sphere {
    fn name(&self) -> &'static str {
        "sphere"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert!(x[0].shape.numel() > 0, "sphere: of nothing, {:?}", x[0].shape);
        Specs::from_iter([Spec::f32([x[0].shape[0]])])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, c, values) = (x[0].cpu(), x[0].numel() / y[0].numel(), x[0].f32());
        let mut squares = Out::new(x[0].device(), y[0].spec());
        let rows = (CHUNK / c).max(1);
        cpu.threads.each((chunks(y[0].f32_mut(), rows), chunks(squares.f32_mut(), rows)), |i, (y, squares)| {
            for (row, (y, square)) in (i * rows..).zip(y.iter_mut().zip(squares)) {
                *square = block_square_sum(cpu.simd, &values[row * c..][..c]);
                *y = (square.sqrt() - self.0).powi(2);
            }
        });
        Tensors::from_iter([squares.freeze()])
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, squares, dy) = (x[0].cpu(), saved[0].f32(), dy[0].as_ref().expect("one result").f32());
        let (c, values) = (x[0].numel() / dy.len(), x[0].f32());
        let rows = (CHUNK / c).max(1);
        let mut dx = dx.out(0);
        let beta = dx.beta;
        cpu.threads.each(chunks(dx.f32_mut(), rows * c), |i, dx| {
            for (row, dx) in (i * rows..).zip(dx.chunks_exact_mut(c)) {
                let share = if squares[row] > 0.0 { self.0 / squares[row].sqrt() } else { 0.0 };
                scaled(cpu.simd, beta, dx, &values[row * c..][..c], 2.0 * (dy[row] * (1.0 - share)));
            }
        });
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (x, rows) = (&x[0], y[0].numel());
        let c = x.numel() / rows;
        let squares = Out::new(x.device(), y[0].spec());
        let plan = kernels::row_dots([float(x); 2], rows, c);
        gpu.launch(plan, &[at(x), at(x), at(&squares), n(rows), n(c), n(c)]);
        let plan = kernels::by_rows("sphere.ptx", "sphere_fwd", float(&squares), rows, rows);
        gpu.launch(plan, &[at(&squares), at(&y[0]), n(rows), Arg::F32(self.0)]);
        Tensors::from_iter([squares.freeze()])
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        _y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let (dy, dx) = (dy[0].as_ref().expect("one result"), dx.out(0));
        let c = dx.numel() / dy.numel();
        let plan = kernels::by_rows("sphere.ptx", "sphere_bwd", float(&dx), dx.numel(), c);
        let pointers = [at(&x[0]), at(&saved[0]), at(dy), at(&dx)];
        let numbers = [n(dx.numel()), n(c), Arg::F32(self.0), flag(dx.beta != 0.0)];
        gpu.launch(plan, &[pointers, numbers].concat());
    }

    fn reads(&self) -> Reads {
        Reads { x: 1, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let c = x[0].data.len() / x[0].shape[0];
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let y = x[0].data.chunks_exact(c).map(|row| (norm(row) - f64::from(self.0)).powi(2)).collect();
        vec![Array64::new([x[0].shape[0]], y)]
    }
}

impl<'t> Var<'t> {
    /// (|x| − radius)² of each example x of this value: (B, …) to (B).
    pub fn off_sphere(self, radius: f32) -> Var<'t> {
        self.tape().apply(Sphere(radius), &[self])
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::check("3x5x2 from 1", Sphere(1.0), [Input::normal([3, 5, 2])]),
        Case::check("37x784 from 0, several tasks", Sphere(0.0), [Input::normal([37, 784])]),
        Case::check("67x1 from 1", Sphere(1.0), [Input::normal([67, 1])]),
        Case::bench("128x3072 from 1", Sphere(1.0), [Input::normal([128, 3072])]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn the_middle_of_a_sphere_is_pulled_nowhere() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let x = tape.variable(Tensor::from_slice(&device, &[0.0f32, 0.0, 3.0, 4.0], [2, 2]));
        let y = x.off_sphere(1.0);
        assert_eq!(y.value().f32(), [1.0, 16.0]);
        y.sum().backward(&mut Params::new(&device, &[], 0), true);
        let dx = x.grad().expect("a gradient");
        assert!(dx.f32()[..2] == [0.0, 0.0] && (dx.f32()[2] - 4.8).abs() < 1e-6, "{:?}", dx.f32());
    }
}
