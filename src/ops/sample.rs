//! Reparameterised sampling, and noise: `y = mu + exp(logvar/2) · eps`, or `y = x + std · eps`, with eps from N(0, 1).
//!
//! Shapes are free; mu and logvar have the same. eps_i is a pure function of the stream and i ([`Stream::normal`]), the same
//! bits on the CPU and on a GPU: backward draws it again, `dmu = dy`, `dlogvar = dy · ½ exp(logvar/2) · eps`.
//!
//! Source: Kingma, Welling, "Auto-encoding variational Bayes" 2013 (arXiv 1312.6114).

use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Vector, chunks, math};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{aligned, at, flag, float, maybe, n};
use crate::rng::{Purpose, Stream};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Tape, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// Draws by `stream`. Inputs: mu, and logvar where no deviation is given.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The deviation of all elements, where it is no input.
    pub std: Option<f32>,
    /// Where eps comes from.
    pub stream: Stream,
}

/// Numbers that are drawn at a time.
const DRAWN: usize = 64;

/// eps from element `start` on, a multiple of 4.
#[inline(always)]
fn draw<V: Vector>(stream: Stream, start: usize) -> [f32; DRAWN] {
    // Each block of four random numbers makes two pairs.
    let (mut a, mut b) = ([0.0; DRAWN / 2], [0.0; DRAWN / 2]);
    for block in 0..DRAWN / 4 {
        let [a0, b0, a1, b1] = stream.block((start / 4 + block) as u32).map(f32::from_bits);
        (a[2 * block], b[2 * block], a[2 * block + 1], b[2 * block + 1]) = (a0, b0, a1, b1);
    }
    for i in (0..DRAWN / 2).step_by(V::W) {
        let (x, y): (V, V) = math::normal_pair(V::load(&a[i..]).bits(), V::load(&b[i..]).bits());
        x.store(&mut a[i..]);
        y.store(&mut b[i..]);
    }
    let mut eps = [0.0; DRAWN];
    for i in 0..DRAWN / 2 {
        (eps[2 * i], eps[2 * i + 1]) = (a[i], b[i]);
    }
    eps
}

simd_fn! {
    /// A chunk of y, whose first element is number `start`; `logvar` is empty where there is a deviation.
    fn forward_chunk(op: Sample, start: usize, y: &mut [f32], mu: &[f32], logvar: &[f32]) = forward_chunk_body
}

#[inline(always)]
fn forward_chunk_body<V: Vector>(op: Sample, start: usize, y: &mut [f32], mu: &[f32], logvar: &[f32]) {
    for (k, (y, mu)) in y.chunks_mut(DRAWN).zip(mu.chunks(DRAWN)).enumerate() {
        let eps = draw::<V>(op.stream, start + k * DRAWN);
        accumulate::<V>(0.0, y, #[inline(always)] |i, w| {
            let std = match op.std {
                Some(std) => V::splat(std),
                None => math::exp(V::at(&logvar[k * DRAWN + i..], w) * V::splat(0.5)),
            };
            std.fma(V::at(&eps[i..], w), V::at(&mu[i..], w))
        });
    }
}

simd_fn! {
    /// A chunk of the gradient of logvar.
    fn backward_chunk(op: Sample, start: usize, beta: f32, dv: &mut [f32], logvar: &[f32], dy: &[f32]) = backward_chunk_body
}

#[inline(always)]
fn backward_chunk_body<V: Vector>(op: Sample, start: usize, beta: f32, dv: &mut [f32], logvar: &[f32], dy: &[f32]) {
    for (k, dv) in dv.chunks_mut(DRAWN).enumerate() {
        let eps = draw::<V>(op.stream, start + k * DRAWN);
        accumulate::<V>(beta, dv, #[inline(always)] |i, w| {
            let half = V::splat(0.5);
            let std = math::exp(V::at(&logvar[k * DRAWN + i..], w) * half);
            V::at(&dy[k * DRAWN + i..], w) * half * std * V::at(&eps[i..], w)
        });
    }
}

impl Sample {
    /// A kernel from `x` (mu, or dy) and logvar to `y`. Seed and step are the stream's, written where the kernel finds them.
    fn launch(&self, gpu: &Gpu, entry: &'static str, [x, y]: [&Tensor; 2], logvar: Option<&Tensor>, beta: f32) {
        let (tensor, micro) = self.stream.place();
        let pointers = [at(x), maybe(logvar), at(y), gpu.state().into()];
        let numbers = [n(x.numel()), Arg::U32(tensor), Arg::U32(micro), Arg::F32(self.std.unwrap_or(0.0))];
        let all_aligned = aligned(&[x, y]) && logvar.is_none_or(|logvar| aligned(&[logvar]));
        let plan = kernels::flat("sample.ptx", entry, float(x), x.numel(), all_aligned);
        gpu.launch(plan, &[&pointers[..], &numbers, &[flag(beta != 0.0)]].concat());
    }
}

impl Op for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x.len(), 1 + usize::from(self.std.is_none()), "sample: the number of inputs");
        assert!(x.iter().all(|spec| spec.shape == x[0].shape), "sample: mean and log of the variance differ");
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (cpu, mu) = (x[0].cpu(), x[0].f32());
        let logvar = x.get(1).map_or(&[][..], Tensor::f32);
        cpu.threads.each(chunks(y[0].f32_mut(), CHUNK), |i, y| {
            let start = i * CHUNK;
            let logvar = if logvar.is_empty() { logvar } else { &logvar[start..][..y.len()] };
            forward_chunk(cpu.simd, *self, start, y, &mu[start..][..y.len()], logvar);
        });
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result");
        if x.len() > 1 && dx.wants(1) {
            let (cpu, logvar, dy) = (x[1].cpu(), x[1].f32(), dy.f32());
            let mut dv = dx.out(1);
            let beta = dv.beta;
            cpu.threads.each(chunks(dv.f32_mut(), CHUNK), |i, dv| {
                let range = i * CHUNK..i * CHUNK + dv.len();
                backward_chunk(cpu.simd, *self, range.start, beta, dv, &logvar[range.clone()], &dy[range]);
            });
        }
        if dx.wants(0) {
            dx.give(0, dy.clone());
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, "sample_fwd", [&x[0], &y[0]], x.get(1), 0.0);
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
        if x.len() > 1 && dx.wants(1) {
            let dv = dx.out(1);
            self.launch(gpu, "sample_bwd", [dy, &dv], Some(&x[1]), dv.beta);
        }
        if dx.wants(0) {
            dx.give(0, dy.clone());
        }
    }

    fn jvp<'t>(&self, x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        // Noise of a fixed deviation stays where it is.
        if x.len() == 1 { dx[0] } else { None }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b10, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let std = |i: usize| self.std.map_or_else(|| libm::exp(0.5 * x[1].data[i]), f64::from);
        vec![Array64::from_fn(x[0].shape, |i| x[0].data[i] + std(i) * self.stream.normal(i as u64))]
    }
}

impl<'t> Var<'t> {
    /// A sample of N(self, exp(logvar)) by `stream` (see [`Tape::stream`](crate::tape::Tape::stream)).
    pub fn sample(self, logvar: Var<'t>, stream: Stream) -> Var<'t> {
        self.tape().apply(Sample { std: None, stream }, &[self, logvar])
    }

    /// This value with noise of deviation `std` added; the value itself where that is 0.
    pub fn add_noise(self, std: f32, stream: Stream) -> Var<'t> {
        if std == 0.0 { self } else { self.tape().apply(Sample { std: Some(std), stream }, &[self]) }
    }
}

impl Tape {
    /// Numbers from N(0, 1), by this pass's next stream.
    pub fn normal(&self, shape: impl Into<Shape>) -> Var<'_> {
        let zeros = Out::zeros(self.device(), Spec { shape: shape.into(), dtype: self.activations() });
        self.constant(zeros.freeze()).add_noise(1.0, self.stream(Purpose::Latent))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let op = |std| Sample { std, stream: Stream::new(super::check::SEED, Purpose::Latent, 3, 0) };
    vec![
        Case::check("3x7", op(None), [Input::normal([3, 7]), Input::normal([3, 7])]),
        Case::check("3x10001, several tasks", op(None), [Input::normal([3, 10_001]), Input::normal([3, 10_001])]),
        Case::check("noise 5x8", op(Some(0.3)), [Input::normal([5, 8])]),
        Case::bench("128x256", op(None), [Input::normal([128, 256]), Input::normal([128, 256])]),
    ]
}
