//! How far N(mu, exp(logvar)) is from N(0, 1), with free bits.
//!
//! ```text
//! kl_j = 1/B Σ_i ½ (mu² + exp(logvar) − 1 − logvar)        for each dimension j, averaged over the batch
//! loss = Σ_j max(free, kl_j)
//! ```
//! mu, logvar: (B, …). Results: loss, a scalar, and kl (…), in nats. A dimension below `free` costs nothing more and gets
//! no gradient of the loss, so that it is not pressed into nothing early on.
//!
//! Backward, with `g_j = (dloss · [kl_j > free] + dkl_j) / B`: `dmu = g_j mu`, `dlogvar = g_j ½ (exp(logvar) − 1)`.
//!
//! Sources: Kingma, Welling 2013 (arXiv 1312.6114), appendix B; Kingma et al. 2016 (arXiv 1606.04934) for free bits.

use super::{Case, Fill, Input};
use crate::cpu::elementwise::accumulate;
use crate::cpu::reduce::{ROWS, sum_blocks};
use crate::cpu::simd::each;
use crate::cpu::{Vector, chunks, math};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, column_sums, flag, float, maybe, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// The divergence of a batch of normal distributions from the standard one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianKl {
    /// Nats of each dimension that cost nothing; 0 for the plain divergence.
    pub free: f32,
}

simd_fn! {
    /// `sums[j] = Σ ½ (mu² + exp(v) − 1 − v)` over the rows.
    fn sum_rows(mu: &[f32], v: &[f32], sums: &mut [f32]) = sum_rows_body
}

#[inline(always)]
fn sum_rows_body<V: Vector>(mu: &[f32], v: &[f32], sums: &mut [f32]) {
    let c = sums.len();
    sums.fill(0.0);
    for (mu, v) in mu.chunks_exact(c).zip(v.chunks_exact(c)) {
        each::<V>(
            c,
            #[inline(always)]
            |j, w| {
                let (mu, v) = (V::at(&mu[j..], w), V::at(&v[j..], w));
                let kl = (mu.fma(mu, math::exp(v) - V::splat(1.0)) - v) * V::splat(0.5);
                (V::at(&sums[j..], w) + kl).put(&mut sums[j..], w);
            },
        );
    }
}

simd_fn! {
    /// Rows of the gradient of mu, or of the log of the variance, from rows of it and g.
    fn backward_rows(of_mean: bool, beta: f32, d: &mut [f32], x: &[f32], g: &[f32]) = backward_rows_body
}

#[inline(always)]
fn backward_rows_body<V: Vector>(of_mean: bool, beta: f32, d: &mut [f32], x: &[f32], g: &[f32]) {
    for (d, x) in d.chunks_exact_mut(g.len()).zip(x.chunks_exact(g.len())) {
        accumulate::<V>(beta, d, #[inline(always)] |j, w| {
            let x = V::at(&x[j..], w);
            let slope = if of_mean { x } else { (math::exp(x) - V::splat(1.0)) * V::splat(0.5) };
            V::at(&g[j..], w) * slope
        });
    }
}

impl Op for GaussianKl {
    fn name(&self) -> &'static str {
        "gaussian_kl"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0].shape, x[1].shape, "gaussian_kl: mean and log of the variance differ");
        assert!(x[0].shape.numel() > 0, "gaussian_kl: of nothing, {:?}", x[0].shape);
        Specs::from_iter([Spec::f32([]), Spec::f32(Shape::new(&x[0].shape[1..]))])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let [loss, kl] = y else { unreachable!("two results") };
        let (cpu, batch, c) = (x[0].cpu(), x[0].shape()[0], kl.numel());
        let (mu, v) = (x[0].f32(), x[1].f32());
        let mut partial = cpu.scratch.take(batch.div_ceil(ROWS) * c);
        cpu.threads.each(chunks(&mut partial, c), |i, sums| {
            let rows = i * ROWS * c..((i + 1) * ROWS * c).min(mu.len());
            sum_rows(cpu.simd, &mu[rows.clone()], &v[rows], sums);
        });
        sum_blocks(cpu, 0.0, kl.f32_mut(), &partial);
        cpu.threads.each((chunks(kl.f32_mut(), c), chunks(loss.f32_mut(), 1)), |_, (kl, loss)| {
            kl.iter_mut().for_each(|kl| *kl /= batch as f32);
            loss[0] = kl.iter().map(|kl| f64::from(kl.max(self.free))).sum::<f64>() as f32;
        });
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, batch, c) = (x[0].cpu(), x[0].shape()[0], y[1].numel());
        let kl = y[1].f32();
        let [dloss, dkl] = [&dy[0], &dy[1]].map(|dy| dy.as_ref().map_or(&[][..], Tensor::f32));
        let mut g = cpu.scratch.take(c);
        cpu.threads.each(chunks(&mut g, c), |_, g| {
            for (j, g) in g.iter_mut().enumerate() {
                let of_loss = if kl[j] > self.free { dloss.first().copied().unwrap_or(0.0) } else { 0.0 };
                *g = (of_loss + dkl.get(j).copied().unwrap_or(0.0)) / batch as f32;
            }
        });
        let g = &g[..];
        for i in 0..2 {
            if dx.wants(i) {
                let (x, mut d) = (x[i].f32(), dx.out(i));
                let beta = d.beta;
                cpu.threads.each(chunks(d.f32_mut(), ROWS * c), |b, d| {
                    backward_rows(cpu.simd, i == 0, beta, d, &x[b * ROWS * c..][..d.len()], g);
                });
            }
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        let (batch, c) = (x[0].shape()[0], y[1].numel());
        let each = Out::new(x[0].device(), Spec::f32([batch, c]));
        let plan = kernels::by_rows("kl.ptx", "kl_fwd", float(&x[0]), batch * c, c);
        gpu.launch(plan, &[at(&x[0]), at(&x[1]), at(&each), n(batch * c)]);
        column_sums(gpu, 0.0, &y[1], &each);
        let numbers = [n(c), Arg::F32(1.0 / batch as f32), Arg::F32(self.free)];
        gpu.launch(kernels::kl_total(), &[&[at(&y[1]), at(&y[0])][..], &numbers].concat());
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let (batch, c) = (x[0].shape()[0], y[1].numel());
        for (i, x) in x.iter().enumerate() {
            if dx.wants(i) {
                let d = dx.out(i);
                let pointers = [at(x), at(&y[1]), maybe(dy[0].as_ref()), maybe(dy[1].as_ref()), at(&d)];
                let numbers = [n(batch * c), n(c), Arg::F32(self.free), Arg::F32(1.0 / batch as f32), n(i)];
                let args = [&pointers[..], &numbers, &[flag(d.beta != 0.0)]].concat();
                gpu.launch(kernels::by_rows("kl.ptx", "kl_bwd", float(x), batch * c, c), &args);
            }
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b11, y: 0b10, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let batch = x[0].shape[0];
        let c = x[0].data.len() / batch;
        let term = |i: usize| 0.5 * (x[0].data[i].powi(2) + libm::exp(x[1].data[i]) - 1.0 - x[1].data[i]);
        let kl = |j: usize| (0..batch).map(|i| term(i * c + j)).sum::<f64>() / batch as f64;
        let kl = Array64::from_fn(Shape::new(&x[0].shape[1..]), kl);
        vec![Array64::new([], vec![kl.data.iter().map(|kl| kl.max(f64::from(self.free))).sum()]), kl]
    }
}

impl<'t> Var<'t> {
    /// The divergence of N(self, exp(logvar)), both (B, …), from N(0, 1): a scalar, averaged over the batch and summed over
    /// dimensions of at least `free` nats each; and the divergence of each dimension.
    pub fn gaussian_kl(self, logvar: Var<'t>, free: f32) -> (Var<'t>, Var<'t>) {
        let loss = self.tape().apply(GaussianKl { free }, &[self, logvar]);
        (loss, loss.output(1))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |shape: [usize; 2]| [Input::normal(shape), Input { fill: Fill::Normal(-0.5, 0.7), ..Input::normal(shape) }];
    vec![
        Case::check("3x5", GaussianKl { free: 0.0 }, inputs([3, 5])),
        Case::check("7x24, free bits", GaussianKl { free: 0.55 }, inputs([7, 24])),
        Case::check("150x20, three blocks", GaussianKl { free: 0.6 }, inputs([150, 20])),
        Case::bench("128x256", GaussianKl { free: 0.1 }, inputs([128, 256])),
    ]
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::params::Params;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn a_dimension_below_its_free_bits_is_left_alone() {
        let device = Device::cpu(1).expect("a CPU");
        let tape = Tape::new(&device);
        // Two examples of two dimensions; the first costs ½ 0.1², the second ½ 2².
        let mu = tape.variable(Tensor::from_slice(&device, &[0.1f32, 2.0, -0.1, 2.0], [2, 2]));
        let logvar = tape.constant(Tensor::from_slice(&device, &[0.0f32; 4], [2, 2]));
        let (loss, kl) = mu.gaussian_kl(logvar, 0.5);
        assert_eq!(loss.value().item(), 2.5);
        let kl = kl.value();
        assert!((kl.f32()[0] - 0.005).abs() < 1e-6 && kl.f32()[1] == 2.0, "{:?}", kl.f32());
        loss.backward(&mut Params::new(&device, &[], 0), true);
        assert_eq!(mu.grad().expect("a gradient").f32(), [0.0, 1.0, 0.0, 1.0]);
    }
}
