//! Each example somewhere between two: `y = a + u (b − a)`, (B, …), u from 0 to 1, one for each example, by a stream.
//!
//! u of example i is [`Stream::uniform`] of i: backward draws it again, `da = (1 − u) dy`, `db = u dy`. Where the gradient
//! penalty of WGAN-GP is taken: between data and samples.

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Vector, chunks};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, flag, float, n};
use crate::rng::{Purpose, Stream};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Blends by `stream`. Inputs: a and b, of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Blend {
    /// Where u comes from.
    pub stream: Stream,
}

simd_fn! {
    /// An example, `y = a + u (b − a)`.
    fn between(y: &mut [f32], a: &[f32], b: &[f32], u: f32) = between_body
}

#[inline(always)]
fn between_body<V: Vector>(y: &mut [f32], a: &[f32], b: &[f32], u: f32) {
    accumulate::<V>(0.0, y, #[inline(always)] |i, w| {
        let a = V::at(&a[i..], w);
        (V::at(&b[i..], w) - a).fma(V::splat(u), a)
    });
}

simd_fn! {
    /// `dx = beta dx + share dy`.
    fn part(beta: f32, dx: &mut [f32], dy: &[f32], share: f32) = part_body
}

#[inline(always)]
fn part_body<V: Vector>(beta: f32, dx: &mut [f32], dy: &[f32], share: f32) {
    accumulate::<V>(beta, dx, #[inline(always)] |i, w| V::at(&dy[i..], w) * V::splat(share));
}

impl Blend {
    /// u of each example, in memory of a GPU. Seed and step are the stream's, written where the kernel finds them.
    fn draw(&self, gpu: &Gpu, like: &Tensor) -> Tensor {
        let u = Out::new(like.device(), Spec::f32([like.shape()[0]]));
        let (tensor, micro) = self.stream.place();
        let args = [at(&u), gpu.state().into(), n(u.numel()), Arg::U32(tensor), Arg::U32(micro)];
        gpu.launch(kernels::blend_draw(u.numel()), &args);
        u.freeze()
    }
}

impl Op for Blend {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0], x[1], "blend: the inputs differ");
        assert!(x[0].shape.numel() > 0, "blend: of nothing, {:?}", x[0].shape);
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, c) = (x[0].cpu(), x[0].numel() / x[0].shape()[0]);
        let (a, b, rows) = (x[0].f32(), x[1].f32(), (CHUNK / c).max(1));
        cpu.threads.each(chunks(y[0].f32_mut(), rows * c), |i, y| {
            for (row, y) in (i * rows..).zip(y.chunks_exact_mut(c)) {
                let range = row * c..(row + 1) * c;
                between(cpu.simd, y, &a[range.clone()], &b[range], self.stream.uniform(row as u64));
            }
        });
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        let (cpu, c) = (dy.cpu(), dy.numel() / dy.shape()[0]);
        let (dy, rows) = (dy.f32(), (CHUNK / c).max(1));
        for input in 0..2 {
            if !dx.wants(input) {
                continue;
            }
            let mut dx = dx.out(input);
            let beta = dx.beta;
            cpu.threads.each(chunks(dx.f32_mut(), rows * c), |i, dx| {
                for (row, dx) in (i * rows..).zip(dx.chunks_exact_mut(c)) {
                    let u = self.stream.uniform(row as u64);
                    part(cpu.simd, beta, dx, &dy[row * c..][..c], if input == 0 { 1.0 - u } else { u });
                }
            });
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (u, count) = (self.draw(gpu, &x[0]), x[0].numel());
        let c = count / u.numel();
        let plan = kernels::by_rows("blend.ptx", "blend_fwd", float(&x[0]), count, c);
        gpu.launch(plan, &[at(&x[0]), at(&x[1]), at(&u), at(&y[0]), n(count), n(c)]);
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
        let dy = dy[0].as_ref().expect("one result");
        let (u, count) = (self.draw(gpu, dy), dy.numel());
        let c = count / u.numel();
        for input in 0..2 {
            if !dx.wants(input) {
                continue;
            }
            let dx = dx.out(input);
            let plan = kernels::by_rows("blend.ptx", "blend_bwd", float(dy), count, c);
            let args = [at(dy), at(&u), at(&dx), n(count), n(c), n(input), flag(dx.beta != 0.0)];
            gpu.launch(plan, &args);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let c = x[0].data.len() / x[0].shape[0];
        let y = |i: usize| {
            let u = f64::from(self.stream.uniform((i / c) as u64));
            (1.0 - u) * x[0].data[i] + u * x[1].data[i]
        };
        vec![Array64::from_fn(x[0].shape, y)]
    }
}

impl<'t> Var<'t> {
    /// Each example somewhere between this and that of `other`, by `stream` (see
    /// [`Tape::stream`](crate::tape::Tape::stream)).
    pub fn blend(self, other: Var<'t>, stream: Stream) -> Var<'t> {
        self.tape().apply(Blend { stream }, &[self, other])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let op = Blend { stream: Stream::new(super::check::SEED, Purpose::Augment, 3, 0) };
    vec![
        Case::check("7x3x5", op, [Input::normal([7, 3, 5]), Input::normal([7, 3, 5])]),
        Case::check("37x784, several tasks", op, [Input::normal([37, 784]), Input::normal([37, 784])]),
        Case::bench("128x3072", op, [Input::normal([128, 3072]), Input::normal([128, 3072])]),
    ]
}
