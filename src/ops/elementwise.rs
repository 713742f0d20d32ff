//! `a + b`, `a − b`, `a · b` (elementwise, of equal shapes) and `c · a` with a constant c.
//!
//! Backward: the gradient of a sum is `dy` itself for both sides, no copy; of a difference `dy` and `−dy`; of a product
//! `dy · b` and `dy · a`; of a scaled value `c · dy`.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Cpu, Simd, Vector, chunks};
use crate::simd_fn;
use crate::launch::{flag, flat};
use crate::device::{Arg, Gpu};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// An elementwise operation on two inputs, or on one where it is [`Scale`](Elementwise::Scale).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
    /// This constant times a.
    Scale(f32),
}

simd_fn! {
    fn sum(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) = sum_body
}
simd_fn! {
    fn difference(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) = difference_body
}
simd_fn! {
    fn product(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) = product_body
}
simd_fn! {
    fn scaled(beta: f32, y: &mut [f32], a: &[f32], c: f32) = scaled_body
}

#[inline(always)]
fn sum_body<V: Vector>(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) {
    accumulate::<V>(beta, y, #[inline(always)] |i, w| V::at(&a[i..], w) + V::at(&b[i..], w));
}

#[inline(always)]
fn difference_body<V: Vector>(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) {
    accumulate::<V>(beta, y, #[inline(always)] |i, w| V::at(&a[i..], w) - V::at(&b[i..], w));
}

#[inline(always)]
fn product_body<V: Vector>(beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) {
    accumulate::<V>(beta, y, #[inline(always)] |i, w| V::at(&a[i..], w) * V::at(&b[i..], w));
}

#[inline(always)]
fn scaled_body<V: Vector>(beta: f32, y: &mut [f32], a: &[f32], c: f32) {
    accumulate::<V>(beta, y, #[inline(always)] |i, w| V::at(&a[i..], w) * V::splat(c));
}

/// `y = beta y + f(a, b)` over all threads.
fn both(cpu: &Cpu, f: fn(Simd, f32, &mut [f32], &[f32], &[f32]), beta: f32, y: &mut [f32], a: &[f32], b: &[f32]) {
    cpu.threads.each(chunks(y, CHUNK), |i, y| {
        let range = i * CHUNK..i * CHUNK + y.len();
        f(cpu.simd, beta, y, &a[range.clone()], &b[range]);
    });
}

/// `y = beta y + c a` over all threads.
fn scale(cpu: &Cpu, beta: f32, y: &mut [f32], a: &[f32], c: f32) {
    cpu.threads.each(chunks(y, CHUNK), |i, y| scaled(cpu.simd, beta, y, &a[i * CHUNK..][..y.len()], c));
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        match self {
            Elementwise::Add => "add",
            Elementwise::Sub => "sub",
            Elementwise::Mul => "mul",
            Elementwise::Scale(_) => "scale",
        }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        match self {
            Elementwise::Scale(_) => assert_eq!(x.len(), 1, "scale: one input"),
            _ => assert_eq!(x[0], x[1], "{}: the inputs differ", self.name()),
        }
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, y, a) = (x[0].cpu(), y[0].f32_mut(), x[0].f32());
        match *self {
            Elementwise::Add => both(cpu, sum, 0.0, y, a, x[1].f32()),
            Elementwise::Sub => both(cpu, difference, 0.0, y, a, x[1].f32()),
            Elementwise::Mul => both(cpu, product, 0.0, y, a, x[1].f32()),
            Elementwise::Scale(c) => scale(cpu, 0.0, y, a, c),
        }
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        let cpu = dy.cpu();
        for i in 0..x.len() {
            if !dx.wants(i) {
                continue;
            }
            match *self {
                Elementwise::Add => dx.give(i, dy.clone()),
                Elementwise::Sub if i == 0 => dx.give(i, dy.clone()),
                Elementwise::Sub | Elementwise::Scale(_) => {
                    let c = if let Elementwise::Scale(c) = *self { c } else { -1.0 };
                    let mut da = dx.out(i);
                    let beta = da.beta;
                    scale(cpu, beta, da.f32_mut(), dy.f32(), c);
                }
                Elementwise::Mul => {
                    let mut da = dx.out(i);
                    let beta = da.beta;
                    both(cpu, product, beta, da.f32_mut(), dy.f32(), x[1 - i].f32());
                }
            }
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        match *self {
            Elementwise::Add => flat(gpu, "elementwise.ptx", "add_fwd", &[&x[0], &x[1], &y[0]], &[flag(false)]),
            Elementwise::Sub => flat(gpu, "elementwise.ptx", "sub_fwd", &[&x[0], &x[1], &y[0]], &[flag(false)]),
            Elementwise::Mul => flat(gpu, "elementwise.ptx", "mul_fwd", &[&x[0], &x[1], &y[0]], &[flag(false)]),
            Elementwise::Scale(c) => {
                flat(gpu, "elementwise.ptx", "scale_fwd", &[&x[0], &y[0]], &[Arg::F32(c), flag(false)]);
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
        let dy = dy[0].as_ref().expect("one result");
        for i in (0..x.len()).filter(|&i| dx.wants(i)).collect::<arrayvec::ArrayVec<usize, 2>>() {
            match *self {
                Elementwise::Add => dx.give(i, dy.clone()),
                Elementwise::Sub if i == 0 => dx.give(i, dy.clone()),
                Elementwise::Sub | Elementwise::Scale(_) => {
                    let c = if let Elementwise::Scale(c) = *self { c } else { -1.0 };
                    let da = dx.out(i);
                    flat(gpu, "elementwise.ptx", "scale_fwd", &[dy, &da], &[Arg::F32(c), flag(da.beta != 0.0)]);
                }
                Elementwise::Mul => {
                    let da = dx.out(i);
                    flat(gpu, "elementwise.ptx", "mul_fwd", &[dy, &x[1 - i], &da], &[flag(da.beta != 0.0)]);
                }
            }
        }
    }

    fn jvp<'t>(&self, x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        match (*self, dx) {
            (Elementwise::Scale(c), &[dx]) => dx.map(|dx| dx.scale(c)),
            (Elementwise::Add, &[da, db]) => da.zip(db).map(|(da, db)| da + db).or(da).or(db),
            (Elementwise::Sub, &[Some(da), Some(db)]) => Some(da - db),
            (Elementwise::Sub, &[da, db]) => da.or(db.map(|db| db.scale(-1.0))),
            (Elementwise::Mul, &[Some(da), Some(db)]) => Some(da * x[1] + x[0] * db),
            (Elementwise::Mul, &[da, db]) => da.map(|da| da * x[1]).or(db.map(|db| x[0] * db)),
            _ => None,
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: if matches!(self, Elementwise::Mul) { 0b11 } else { 0 }, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let y = |i: usize| match *self {
            Elementwise::Add => x[0].data[i] + x[1].data[i],
            Elementwise::Sub => x[0].data[i] - x[1].data[i],
            Elementwise::Mul => x[0].data[i] * x[1].data[i],
            Elementwise::Scale(c) => f64::from(c) * x[0].data[i],
        };
        vec![Array64::from_fn(x[0].shape, y)]
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident),*) => {$(
        impl<'t> std::ops::$trait for Var<'t> {
            type Output = Var<'t>;
            fn $method(self, other: Var<'t>) -> Var<'t> {
                self.tape().apply(Elementwise::$trait, &[self, other])
            }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul);

impl<'t> Var<'t> {
    /// `c` times this value.
    pub fn scale(self, c: f32) -> Var<'t> {
        self.tape().apply(Elementwise::Scale(c), &[self])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in [Elementwise::Add, Elementwise::Sub, Elementwise::Mul, Elementwise::Scale(-1.7)] {
        let count = if matches!(op, Elementwise::Scale(_)) { 1 } else { 2 };
        let inputs = |shape: [usize; 2]| vec![Input::normal(shape); count];
        let name = op.name();
        cases.push(Case::check(format!("{name} 2x3"), op, inputs([2, 3])));
        cases.push(Case::check(format!("{name} odd, several tasks"), op, inputs([3, 10_001])));
        if count == 2 {
            for fixed in 0..2 {
                let mut inputs = inputs([1, 7]);
                inputs[fixed].grad = false;
                cases.push(Case::check(format!("{name} without the gradient of input {fixed}"), op, inputs));
            }
        }
        cases.push(Case::bench(format!("{name} 4096x1024"), op, inputs([4096, 1024])));
    }
    cases
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    /// A value that meets several operations, and one operation twice, gets the sum of all its gradients.
    #[test]
    fn gradients_of_a_value_used_often_add_up() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        let mut params = Params::new(&device, &[], 0);
        let x = tape.variable(Tensor::from_slice(&device, &[3.0f32, -2.0], [2]));
        let y = x * x - x.scale(5.0) + (x - x * x * x); // x² − 5x + x − x³
        y.backward_from(&[Tensor::from_slice(&device, &[1.0f32, 10.0], [2])], &mut params, true);
        assert_eq!(x.grad().expect("a gradient").f32(), [6.0 - 4.0 - 27.0, 10.0 * (-4.0 - 4.0 - 12.0)]);
    }
}
