//! SwiGLU's product: `y = silu(gate) · up`, silu(x) = x σ(x), of equal shapes (…, H).
//!
//! The two inputs are the results of two linear layers (Hugging Face's `gate_proj` and `up_proj`). Backward, in one pass
//! that computes σ(gate) once: `dgate = dy · up · silu′(gate)`, `dup = dy · silu(gate)`. Nothing is saved.
//!
//! Source: Shazeer 2020 (arXiv 2002.05202).

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, map2_into};
use crate::cpu::simd::each;
use crate::cpu::{Vector, chunks, math};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels;
use crate::launch::{aligned, at, fill, flag, flat, float, maybe, n};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Inputs: gate, up.
#[derive(Clone, Copy, Debug)]
pub struct Swiglu;

simd_fn! {
    fn forward_chunk(y: &mut [f32], gate: &[f32], up: &[f32]) = forward_chunk_body
}

#[inline(always)]
fn forward_chunk_body<V: Vector>(y: &mut [f32], gate: &[f32], up: &[f32]) {
    map2_into::<V>(y, gate, up, #[inline(always)] |gate, up| math::silu(gate) * up);
}

simd_fn! {
    /// Writes (or, where its beta is 1, adds to) both gradients; `beta` is that of dgate and that of dup.
    fn backward_chunk(beta: [f32; 2], dgate: &mut [f32], dup: &mut [f32], gate: &[f32], up: &[f32], dy: &[f32])
        = backward_chunk_body
}

#[inline(always)]
fn backward_chunk_body<V: Vector>(
    beta: [f32; 2],
    dgate: &mut [f32],
    dup: &mut [f32],
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
) {
    each::<V>(dy.len(), #[inline(always)] |i, w| {
        let (silu, slope) = math::silu_grad(V::at(&gate[i..], w));
        let dy = V::at(&dy[i..], w);
        let (mut dg, mut du) = (dy * V::at(&up[i..], w) * slope, dy * silu);
        if beta[0] != 0.0 {
            dg = dg + V::at(&dgate[i..], w);
        }
        if beta[1] != 0.0 {
            du = du + V::at(&dup[i..], w);
        }
        dg.put(&mut dgate[i..], w);
        du.put(&mut dup[i..], w);
    });
}

impl Op for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0], x[1], "swiglu: gate and up differ");
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, gate, up) = (x[0].cpu(), x[0].f32(), x[1].f32());
        cpu.threads.each(chunks(y[0].f32_mut(), CHUNK), |i, y| {
            let range = i * CHUNK..i * CHUNK + y.len();
            forward_chunk(cpu.simd, y, &gate[range.clone()], &up[range]);
        });
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result").f32();
        let (cpu, gate, up) = (x[0].cpu(), x[0].f32(), x[1].f32());
        let run = |beta: [f32; 2], dgate: &mut [f32], dup: &mut [f32]| {
            cpu.threads.each((chunks(dgate, CHUNK), chunks(dup, CHUNK)), |i, (dgate, dup)| {
                let range = i * CHUNK..i * CHUNK + dgate.len();
                backward_chunk(cpu.simd, beta, dgate, dup, &gate[range.clone()], &up[range.clone()], &dy[range]);
            });
        };
        let [mut dgate, mut dup] = [0, 1].map(|i| dx.wants(i).then(|| dx.out(i)));
        let beta = [&dgate, &dup].map(|d| d.as_ref().map_or(0.0, |d| d.beta));
        match (&mut dgate, &mut dup) {
            (Some(dgate), Some(dup)) => run(beta, dgate.f32_mut(), dup.f32_mut()),
            // A frozen half (LoRA on one of the two layers) falls off as scratch.
            (Some(dgate), None) => run(beta, dgate.f32_mut(), &mut cpu.scratch.take(dy.len())),
            (None, Some(dup)) => run(beta, &mut cpu.scratch.take(dy.len()), dup.f32_mut()),
            (None, None) => {}
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        flat(gpu, "swiglu.ptx", "swiglu_fwd", &[&x[0], &x[1], &y[0]], &[]);
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
        let grads = [0, 1].map(|i| dx.wants(i).then(|| dx.out(i)));
        // Both are new, or both are there already, but where the same value is read elsewhere.
        let beta = grads.iter().flatten().map(|grad| grad.beta).fold(0.0, f32::max);
        for grad in grads.iter().flatten().filter(|grad| grad.beta != beta) {
            fill(gpu, grad, 0.0);
        }
        let [dgate, dup] = [0, 1].map(|i| maybe(grads[i].as_ref().map(|grad| &***grad)));
        let plan = kernels::flat("swiglu.ptx", "swiglu_bwd", float(dy), dy.numel(), aligned(&[&x[0], &x[1], dy]));
        gpu.launch(plan, &[at(&x[0]), at(&x[1]), at(dy), dgate, dup, n(dy.numel()), flag(beta != 0.0)]);
    }

    fn launch_again(&self, gpu: &Gpu, _i: usize, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], out: &mut Out) {
        flat(gpu, "swiglu.ptx", "swiglu_fwd", &[&x[0], &x[1], out], &[]);
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b11, y: 0, again: 1 }
    }

    fn again(&self, _i: usize, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], out: &mut Out) {
        self.forward(x, std::slice::from_mut(out), &mut []);
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        vec![Array64::from_fn(x[0].shape, |i| x[0].data[i] / (1.0 + libm::exp(-x[0].data[i])) * x[1].data[i])]
    }
}

impl<'t> Var<'t> {
    /// silu(this value) · `up`.
    pub fn swiglu(self, up: Var<'t>) -> Var<'t> {
        self.tape().apply(Swiglu, &[self, up])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |shape: [usize; 2]| [Input::normal(shape), Input::normal(shape)];
    vec![
        Case::check("2x7", Swiglu, inputs([2, 7])),
        Case::check("odd, several tasks", Swiglu, inputs([3, 10_001])),
        Case::check("gate only", Swiglu, [Input::normal([37]), Input::normal([37]).fixed()]),
        Case::check("up only", Swiglu, [Input::normal([37]).fixed(), Input::normal([37])]),
        Case::bench("4096x2048", Swiglu, inputs([4096, 2048])),
    ]
}
