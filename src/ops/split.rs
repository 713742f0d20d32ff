//! The two halves of the last axis: x (…, 2C) to (…, C) and (…, C), as an encoder has mean and log of the variance from one
//! linear layer. Backward: the halves' gradients side by side.

use super::{Case, Input};
use crate::cpu::chunks;
use crate::cpu::elementwise::add_chunk;
use crate::cpu::reduce::ROWS;
use crate::device::{Gpu, kernels};
use crate::launch::{at, flag, float, maybe, n};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Cuts the last axis in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split;

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let c = x[0].shape.last_dim();
        assert!(c > 0 && c.is_multiple_of(2), "split: {:?} has no halves", x[0].shape);
        let half = Spec { shape: x[0].shape.with_last(c / 2), ..x[0] };
        Specs::from_iter([half, half])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, c, x) = (x[0].cpu(), y[0].shape().last_dim(), x[0].f32());
        let [a, b] = y else { unreachable!("two results") };
        cpu.threads.each((chunks(a.f32_mut(), ROWS * c), chunks(b.f32_mut(), ROWS * c)), |i, (a, b)| {
            let halves = a.chunks_exact_mut(c).zip(b.chunks_exact_mut(c));
            for ((a, b), x) in halves.zip(x[2 * i * ROWS * c..].chunks_exact(2 * c)) {
                a.copy_from_slice(&x[..c]);
                b.copy_from_slice(&x[c..]);
            }
        });
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, c) = (y[0].cpu(), y[0].shape().last_dim());
        let mut dx = dx.out(0);
        let beta = dx.beta;
        let halves = [&dy[0], &dy[1]].map(|dy| dy.as_ref().map(Tensor::f32));
        cpu.threads.each(chunks(dx.f32_mut(), 2 * ROWS * c), |i, dx| {
            for (row, dx) in dx.chunks_exact_mut(2 * c).enumerate() {
                for (dx, dy) in dx.chunks_exact_mut(c).zip(halves) {
                    match dy {
                        Some(dy) => add_chunk(cpu.simd, beta, dx, &dy[(i * ROWS + row) * c..][..c]),
                        None if beta == 0.0 => dx.fill(0.0),
                        None => {}
                    }
                }
            }
        });
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (count, c) = (y[0].numel(), y[0].shape().last_dim());
        for (half, y) in y.iter().enumerate() {
            let plan = kernels::by_rows("split.ptx", "split_fwd", float(&x[0]), count, c);
            gpu.launch(plan, &[at(&x[0]), at(y), n(count), n(c), n(half)]);
        }
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        _x: &[Tensor],
        y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let (count, c) = (y[0].numel(), y[0].shape().last_dim());
        let dx = dx.out(0);
        for (half, dy) in dy.iter().enumerate() {
            let plan = kernels::by_rows("split.ptx", "split_bwd", float(&dx), count, c);
            let args = [maybe(dy.as_ref()), at(&dx), n(count), n(c), n(half), flag(dx.beta != 0.0)];
            gpu.launch(plan, &args);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let c = x[0].shape.last_dim() / 2;
        let half = |h: usize| Array64::from_fn(x[0].shape.with_last(c), |i| x[0].data[i + (i / c + h) * c]);
        vec![half(0), half(1)]
    }
}

impl<'t> Var<'t> {
    /// The two halves of the last axis: (…, 2C) to (…, C) each.
    pub fn halves(self) -> [Var<'t>; 2] {
        let first = self.tape().apply(Split, &[self]);
        [first, first.output(1)]
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::check("2x3, halves of 5", Split, [Input::normal([2, 3, 10])]),
        Case::check("150 rows, halves of 20", Split, [Input::normal([150, 40])]),
        Case::bench("128 rows, halves of 20", Split, [Input::normal([128, 40])]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn a_half_that_nothing_reads_has_no_gradient() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let x = tape.variable(Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], [2, 2]));
        let [_, b] = x.halves();
        b.scale(3.0).sum().backward(&mut Params::new(&device, &[], 0), true);
        assert_eq!(x.grad().expect("a gradient").f32(), [0.0, 3.0, 0.0, 3.0]);
    }
}
