//! Dropout: `y_i = x_i / (1 − p)` with probability 1 − p, else 0. Shapes are free.
//!
//! Whether element i is kept is a pure function of the stream and i, `uniform(i) ≥ p`: backward draws the same numbers
//! again, `dx_i = dy_i / (1 − p)` where kept, and nothing is saved.
//!
//! Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 15, 2014).

use super::{Case, Input};
use crate::cpu::elementwise::CHUNK;
use crate::cpu::{Cpu, Vector, chunks};
use crate::rng::{Purpose, Stream};
use crate::simd_fn;
use crate::device::kernels;
use crate::launch::{aligned, at, flag, float, n};
use crate::device::{Arg, Gpu};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Drops with probability `p`, by `stream`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability of 0, from 0 to below 1.
    pub p: f32,
    /// Where the mask comes from.
    pub stream: Stream,
}

/// Blocks of random bits that are made at a time.
const BLOCKS: usize = 16;

simd_fn! {
    /// `y = beta y + mask · x / (1 − p)` for the elements from `start` on, a multiple of 4.
    fn drop_chunk(op: Dropout, start: usize, beta: f32, y: &mut [f32], x: &[f32]) = drop_chunk_body
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "plain code, compiled for each level")]
fn drop_chunk_body<V: Vector>(op: Dropout, start: usize, beta: f32, y: &mut [f32], x: &[f32]) {
    let scale = 1.0 / (1.0 - op.p);
    // `uniform ≥ p` of 24 random bits, both sides times 2²⁴: exact.
    let least = op.p * 16_777_216.0;
    for (i, (y, x)) in y.chunks_mut(4 * BLOCKS).zip(x.chunks(4 * BLOCKS)).enumerate() {
        // All random bits first, then all elements: each loop alone is plain to the compiler.
        let mut bits = [[0; 4]; BLOCKS];
        for (block, bits) in (start / 4 + i * BLOCKS..).zip(&mut bits) {
            *bits = op.stream.block(block as u32);
        }
        for ((y, x), bits) in y.iter_mut().zip(x).zip(bits.as_flattened()) {
            let kept = if (bits >> 8) as f32 >= least { x * scale } else { 0.0 };
            *y = if beta == 0.0 { kept } else { *y + kept };
        }
    }
}

impl Dropout {
    fn run(&self, cpu: &Cpu, beta: f32, y: &mut [f32], x: &[f32]) {
        cpu.threads.each(chunks(y, CHUNK), |i, y| {
            drop_chunk(cpu.simd, *self, i * CHUNK, beta, y, &x[i * CHUNK..][..y.len()]);
        });
    }
}

impl Dropout {
    /// [`run`](Dropout::run) on a GPU. Seed and step are the stream's, written where the kernel finds them.
    fn launch(&self, gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
        let (tensor, micro) = self.stream.place();
        let scale = 1.0 / (1.0 - self.p);
        let args = [
            at(x),
            at(y),
            gpu.state().into(),
            n(x.numel()),
            Arg::U32(tensor),
            Arg::U32(micro),
            Arg::F32((self.p * 16_777_216.0).ceil()),
            Arg::F32(scale),
            flag(beta != 0.0),
        ];
        gpu.launch(kernels::flat("dropout.ptx", "dropout_fwd", float(x), x.numel(), aligned(&[x, y])), &args);
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert!((0.0..1.0).contains(&self.p), "dropout: p is {}, not from 0 to below 1", self.p);
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.run(x[0].cpu(), 0.0, y[0].f32_mut(), x[0].f32());
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let mut dx = dx.out(0);
        let beta = dx.beta;
        self.run(x[0].cpu(), beta, dx.f32_mut(), dy[0].as_ref().expect("one result").f32());
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, 0.0, &y[0], &x[0]);
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
        self.launch(gpu, dx.beta, &dx, dy[0].as_ref().expect("one result"));
    }

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = dx[0]?;
        Some(dx.tape().apply(*self, &[dx]))
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let scale = 1.0 / (1.0 - f64::from(self.p));
        let value = |i: usize| if self.stream.uniform(i as u64) >= self.p { x[0].data[i] * scale } else { 0.0 };
        vec![Array64::from_fn(x[0].shape, value)]
    }
}

impl<'t> Var<'t> {
    /// This value with elements dropped with probability `p` by `stream` (see [`Tape::stream`](crate::tape::Tape::stream))
    /// in a training pass; the value itself in any other, or where `p` is 0.
    pub fn dropout(self, p: f32, stream: Stream) -> Var<'t> {
        let tape = self.tape();
        if p == 0.0 || !tape.pass().training { self } else { tape.apply(Dropout { p, stream }, &[self]) }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let op = |p| Dropout { p, stream: Stream::new(super::check::SEED, Purpose::Dropout, 3, 7) };
    vec![
        Case::check("p=0.1 3x7", op(0.1), [Input::normal([3, 7])]),
        Case::check("p=0.5 odd, several tasks", op(0.5), [Input::normal([3, 10_001])]),
        Case::check("p=0", op(0.0), [Input::normal([5])]),
        Case::bench("p=0.1 4096x768", op(0.1), [Input::normal([4096, 768])]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::{Pass, Tape};

    #[test]
    fn the_share_of_zeros_is_p_and_the_mean_stays() {
        let device = Device::cpu(2).expect("a CPU");
        let mut tape = Tape::new(&device);
        let x = Tensor::from_slice(&device, &vec![1.0f32; 100_000], [100_000]);
        let params = Params::new(&device, &[], 0);
        let mut run = |step: u64, training: bool| {
            tape.begin(&params, Pass { seed: 1, step, training, ..Pass::default() });
            tape.constant(x.clone()).dropout(0.2, tape.stream(Purpose::Dropout)).value().f32().to_vec()
        };
        let y = run(0, true);
        // Five standard deviations of a binomial count are 632.
        assert!(y.iter().filter(|&&y| y == 0.0).count().abs_diff(20_000) < 632);
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.25));
        assert_eq!(y, run(0, true), "a replay draws the same mask");
        assert_ne!(y, run(1, true), "another step draws another");
        assert!(run(0, false).iter().all(|&y| y == 1.0), "nothing is dropped outside of training");
    }
}
