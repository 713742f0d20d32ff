//! The same elements under another shape: [`Var::reshape`] shares the buffer, and the gradient's too.

use super::{Case, Input};
use crate::cpu::elementwise::add_to;
use crate::device::Gpu;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// Gives a value this shape. As an operation like others it copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape(pub Shape);

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0].shape.numel(), self.0.numel(), "reshape: {:?} to {:?}", x[0].shape, self.0);
        Specs::from_iter([Spec { shape: self.0, ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        add_to(x[0].cpu(), 0.0, y[0].f32_mut(), x[0].f32());
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        dx.give(0, dy[0].clone().expect("one result"));
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        crate::launch::add_to(gpu, 0.0, &y[0], &x[0]);
        Tensors::new()
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

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        Some(dx[0]?.reshape(self.0))
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        vec![Array64::new(self.0, x[0].data.clone())]
    }
}

impl<'t> Var<'t> {
    /// The same elements under another shape, without a copy.
    pub fn reshape(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        self.tape().alias(Reshape(shape), self, self.value().reshape(shape))
    }

    /// The elements of each example in one row: (N, …) to (N, C).
    pub fn flatten(self) -> Var<'t> {
        let shape = self.shape();
        self.reshape([shape[0], shape.numel() / shape[0]])
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::check("2x3x4 to 6x4", Reshape([6, 4].into()), [Input::normal([2, 3, 4])]),
        Case::check("20002 to 2x10001", Reshape([2, 10_001].into()), [Input::normal([20_002])]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn a_reshaped_value_is_the_same_memory_and_has_its_gradient() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let x = tape.variable(Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0], [2, 1, 2]));
        let y = x.flatten();
        assert_eq!(y.shape()[..], [2, 2]);
        assert_eq!(y.value().f32().as_ptr(), x.value().f32().as_ptr());
        (y * y + x.reshape([2, 2])).sum().backward(&mut Params::new(&device, &[], 0), true);
        let grad = x.grad().expect("a gradient");
        assert_eq!((grad.f32(), &grad.shape()[..]), (&[3.0f32, 5.0, 7.0, 9.0][..], &[2, 1, 2][..]));
    }
}
