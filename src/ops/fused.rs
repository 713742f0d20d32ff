//! An activation at the end of a product, or none: what linear layers and convolutions have in common beside the product.
//!
//! y = f(z). The product writes y, and z too where f′ is computed from it and not from y; y can then be made again from z.

use super::activation::Activation;
use crate::device::Device;
use crate::tape::{Need, Reads, Var};
use crate::tensor::{Out, Tensor, Tensors};

/// What is applied last.
#[derive(Clone, Copy)]
pub(super) struct Fused(pub Option<Activation>);

impl Fused {
    /// The activation, where its derivative is computed from z and not from y.
    fn of_input(self) -> Option<Activation> {
        self.0.filter(|f| !f.slope_of_result())
    }

    /// Room for z, where a backward pass will read it.
    pub fn room(self, y: &Out, need: &[Need]) -> Option<Out> {
        (self.of_input().is_some() && Need::any(need)).then(|| Out::new(y.device(), y.spec()))
    }

    /// The gradient of z, dy · f′; `saved` begins with z, where there was room.
    pub fn pull_back(self, y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>]) -> Tensor {
        let dy = dy[0].as_ref().expect("one result");
        let Some(f) = self.0 else { return dy.clone() };
        let (mut dz, v) = (Out::new(dy.device(), dy.spec()), saved.first().unwrap_or(&y[0]));
        match dy.device() {
            Device::Cpu(host) => f.pull_back(&host.cpu, 0.0, dz.f32_mut(), v.f32(), dy.f32()),
            Device::Gpu(gpu) => f.launch_back(gpu, 0.0, &dz, v, dy),
        }
        dz.freeze()
    }

    /// What is read and can be made again, by an operation that reads its inputs `x`.
    pub fn reads(self, x: u8) -> Reads {
        let again = u8::from(self.of_input().is_some());
        Reads { x, y: u8::from(self.0.is_some()) - again, again }
    }

    /// y again.
    pub fn again(self, saved: &[Tensor], y: &mut Out) {
        let (f, z) = (self.0.expect("without one nothing is offered"), &saved[0]);
        match z.device() {
            Device::Cpu(host) => f.apply(&host.cpu, z.f32(), y.f32_mut()),
            Device::Gpu(gpu) => f.launch(gpu, z, y),
        }
    }

    /// What a forward pass saves.
    pub fn saved(z: Option<Out>) -> Tensors {
        z.into_iter().map(Out::freeze).collect()
    }

    /// The tangent of the first input, where no other moves.
    pub fn of_first<'t>(dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        if dx[1..].iter().all(Option::is_none) { dx[0] } else { None }
    }

    /// The tangent of y, f′ · dz. `z` makes z again on the tape; f may bend, so that f′ changes with it.
    pub fn tangent<'t>(self, y: Var<'t>, dz: Var<'t>, z: impl FnOnce() -> Var<'t>) -> Var<'t> {
        match self.0 {
            None => dz,
            Some(f) if f.slope_of_result() => dz.times_slope(f, y),
            Some(f) => dz.times_slope(f, z()),
        }
    }
}
