//! A value in another float type: f32, bf16 or f16, rounded to nearest, ties to even. Shapes are free.
//!
//! The gradient of a value has the value's type, so backward casts `dy` back to the type of x.

use super::{Case, Fill, Input};
use crate::cpu::chunks;
use crate::cpu::convert::ConvertTo;
use crate::cpu::elementwise::CHUNK;
use crate::device::Gpu;
use crate::launch::add_cast;
use crate::tape::{Array64, Dx, Need, Op, Specs, Var};
use crate::tensor::{DType, Element, Out, Spec, Tensor, Tensors};
use half::{bf16, f16};

/// Casts to this dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast(pub DType);

/// `y = beta y + x` between any two of the float types, with `beta` 0 (overwrite) or 1 (add in f32, then round).
fn convert(beta: f32, x: &Tensor, y: &mut Out) {
    fn from<A: Element + ConvertTo<f32> + ConvertTo<bf16> + ConvertTo<f16>>(beta: f32, x: &Tensor, y: &mut Out) {
        match y.dtype() {
            DType::Bf16 => run::<A, bf16>(beta, x, y),
            DType::F16 => run::<A, f16>(beta, x, y),
            _ => run::<A, f32>(beta, x, y),
        }
    }
    fn run<A: Element + ConvertTo<B>, B: Element>(beta: f32, x: &Tensor, y: &mut Out) {
        let (cpu, x) = (x.cpu(), x.as_slice::<A>());
        cpu.threads.each(chunks(y.as_mut_slice::<B>(), CHUNK), |i, y| {
            A::convert(cpu.simd, beta, &x[i * CHUNK..][..y.len()], y);
        });
    }
    match x.dtype() {
        DType::Bf16 => from::<bf16>(beta, x, y),
        DType::F16 => from::<f16>(beta, x, y),
        _ => from::<f32>(beta, x, y),
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let float = |dtype| matches!(dtype, DType::F32 | DType::Bf16 | DType::F16);
        assert!(float(x[0].dtype) && float(self.0), "cast: {} to {}", x[0].dtype.name(), self.0.name());
        Specs::from_iter([Spec { dtype: self.0, ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        convert(0.0, &x[0], &mut y[0]);
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let mut dx = dx.out(0);
        let beta = dx.beta;
        convert(beta, dy[0].as_ref().expect("one result"), &mut dx);
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        add_cast(gpu, 0.0, &y[0], &x[0]);
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
        add_cast(gpu, dx.beta, &dx, dy[0].as_ref().expect("one result"));
    }

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = dx[0]?;
        Some(dx.tape().apply(*self, &[dx]))
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        // Inputs are f32 values, so the first rounding is none. (`from_f64` looks at the upper half of its bits only.)
        let round = |x: f64| match self.0 {
            DType::Bf16 => bf16::from_f32(x as f32).to_f64(),
            DType::F16 => f16::from_f32(x as f32).to_f64(),
            _ => x,
        };
        vec![Array64::from_fn(x[0].shape, |i| round(x[0].data[i]))]
    }
}

impl<'t> Var<'t> {
    /// This value as f32, bf16 or f16; itself where it is that already.
    pub fn cast(self, dtype: DType) -> Var<'t> {
        if self.value().dtype() == dtype { self } else { self.tape().apply(Cast(dtype), &[self]) }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let types = [DType::F32, DType::Bf16, DType::F16];
    for (from, to) in types.into_iter().flat_map(|from| types.map(|to| (from, to))) {
        // Rounding has no derivative: the gradient is checked below.
        let input = |n: usize| {
            let spec = Spec { shape: [3, n].into(), dtype: from };
            Input { spec, fill: Fill::Normal(0.0, 100.0), ..Input::normal(spec.shape).fixed() }
        };
        let name = format!("{} to {}", from.name(), to.name());
        cases.push(Case::check(format!("{name} 3x7"), Cast(to), [input(7)]));
        cases.push(Case::check(format!("{name} odd, several tasks"), Cast(to), [input(10_001)]));
        if from != to && (from == DType::F32 || to == DType::F32) {
            cases.push(Case::bench(format!("{name} 3x4194304"), Cast(to), [input(1 << 22)]));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;

    #[test]
    fn gradients_are_cast_back_and_added() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let mut params = Params::new(&device, &[], 0);
        let x = tape.variable(Tensor::from_slice(&device, &[1.0f32, 1.001], [2]));
        let half = x.cast(DType::Bf16);
        assert_eq!(half.value().as_slice::<bf16>(), [bf16::ONE, bf16::ONE]);
        let y = half.cast(DType::F32) + half.cast(DType::F32) + x;
        // 3.0625 needs 6 bits of mantissa, 1.001 more than bf16 has.
        let dy = Tensor::from_slice(&device, &[3.0625f32, 1.001], [2]);
        y.backward_from(&[dy], &mut params, true);
        assert_eq!(x.grad().expect("a gradient").f32(), [3.0 * 3.0625, 1.001 + 2.0]);
    }
}
