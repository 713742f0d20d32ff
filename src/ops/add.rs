//! `y = a + b`, of equal shapes.
//!
//! The gradient of both inputs is `dy` itself: no copy.

use super::{Case, Input};
use crate::cpu::{Vector, chunks, elementwise::CHUNK, elementwise::map2_into};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Op, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Elementwise sum.
#[derive(Clone, Copy, Debug)]
pub struct Add;

simd_fn! {
    fn add(y: &mut [f32], a: &[f32], b: &[f32]) = add_body
}
#[inline(always)]
fn add_body<V: Vector>(y: &mut [f32], a: &[f32], b: &[f32]) {
    map2_into::<V>(y, a, b, #[inline(always)] |a, b| a + b);
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0], x[1], "add: the inputs differ");
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &[bool]) -> Tensors {
        let (cpu, a, b) = (x[0].cpu(), x[0].f32(), x[1].f32());
        cpu.threads.each(chunks(y[0].f32_mut(), CHUNK), |i, y| {
            let range = i * CHUNK..i * CHUNK + y.len();
            add(cpu.simd, y, &a[range.clone()], &b[range]);
        });
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        for i in 0..2 {
            if dx.wants(i) {
                dx.give(i, dy.clone());
            }
        }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        vec![Array64::from_fn(x[0].shape, |i| x[0].data[i] + x[1].data[i])]
    }
}

impl<'t> std::ops::Add for Var<'t> {
    type Output = Var<'t>;
    fn add(self, other: Var<'t>) -> Var<'t> {
        self.tape().apply(Add, &[self, other])
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::check("2x3", Add, [Input::normal([2, 3]), Input::normal([2, 3])]),
        Case::check("odd, several tasks", Add, [Input::normal([3, 10_001]), Input::normal([3, 10_001])]),
        Case::check("one gradient", Add, [Input::normal([7]).fixed(), Input::normal([7])]),
        Case::bench("4096x1024", Add, [Input::normal([4096, 1024]), Input::normal([4096, 1024])]),
    ]
}
