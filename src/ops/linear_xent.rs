//! The output layer and the cross-entropy loss in one: the mean negative log-likelihood of the targets under
//! softmax(x·Wᵀ), without the B·T×V logits ever standing whole.
//!
//! ```text
//! z = x·Wᵀ                                      x: (…, C), W: (V, C), z: (…, V)
//! loss = Σ_i w_i (logsumexp(z_i) − z_i[target_i]) / norm
//! ```
//! targets: (…) i32, where a negative one counts nothing; w: token weights (…), all 1 where absent; norm: given (so that
//! micro-batches can share one), else Σ w over the rows that count. Result: the loss, a scalar.
//!
//! Rows go in chunks. Where gradients are needed they are computed in the forward pass, while a chunk's logits are there:
//! `dz = w_i/norm · (softmax(z) − onehot)`, `dx = dz·W`, `dW += dzᵀ·x`; computing the logits again would cost a fourth
//! product. Where the gradient of W is [lent](crate::tape::Tape::lend), dW goes straight there.
//!
//! In [`Precision::Bf16`] each product rounds both of its operands to bf16, dz too; softmax and loss are f32.

use super::{Case, Fill, Input};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::simd::each;
use crate::cpu::{Lanes, Vector, chunks, math};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels::{self, Form};
use crate::launch::{Product, at, fill, flag, flat, float, maybe, n};
use crate::device::Arg;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Inputs: x, W, targets, then token weights if `weights`. Result: the loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinearXent {
    /// Whether token weights are given.
    pub weights: bool,
    /// What the sum is divided by; `None`: the sum of the weights that count.
    pub norm: Option<f32>,
    /// What the products' operands are rounded to.
    pub precision: Precision,
    /// Rows of logits that stand at a time; `None`: 32 MiB of them, on a GPU 512 MiB.
    pub chunk: Option<usize>,
}

/// Bytes of the logits that stand at a time; 256 to 1024 rows.
const CHUNK: usize = 32 << 20;
/// The same on a GPU, at least 1024 rows: its multiprocessors share a chunk, and have to have enough to do.
const GPU_CHUNK: usize = 512 << 20;

impl LinearXent {
    /// Rows of a chunk, of `rows` that take so many bytes each: a multiple of 64, or all.
    fn rows_at_once(&self, rows: usize, bytes: usize) -> usize {
        self.chunk.unwrap_or((CHUNK / bytes).clamp(256, 1024) / 64 * 64).min(rows)
    }

    /// The same on a GPU, where all chunks but the last are alike.
    fn rows_at_once_on_gpu(&self, rows: usize, bytes: usize) -> usize {
        let most = self.chunk.unwrap_or((GPU_CHUNK / bytes).max(1024));
        rows.div_ceil(rows.div_ceil(most)).next_multiple_of(64).min(rows)
    }
}

/// Rows of a chunk that one task turns from logits into gradients.
const TASK_ROWS: usize = 8;

simd_fn! {
    /// Turns a row of logits into `scale · (softmax − onehot)` and returns the negative log-likelihood of `target`.
    pub fn row(z: &mut [f32], target: usize, scale: f32) -> f32 = row_body
}

#[inline(always)]
fn row_body<V: Vector>(z: &mut [f32], target: usize, scale: f32) -> f32 {
    let wanted = z[target];
    let mut lanes = Lanes::<V>::splat(f32::NEG_INFINITY);
    lanes.run(
        z.len(),
        #[inline(always)]
        |i, w| V::at_or(&z[i..], w, f32::NEG_INFINITY),
        #[inline(always)]
        |max, z| max.max(z),
    );
    let max = lanes.max();
    let m = V::splat(max);
    let mut lanes = Lanes::<V>::splat(0.0);
    lanes.run(
        z.len(),
        #[inline(always)]
        |i, w| {
            let e = math::exp(V::at_or(&z[i..], w, f32::NEG_INFINITY) - m);
            e.put(&mut z[i..], w);
            e
        },
        #[inline(always)]
        |sum, e| sum + e,
    );
    let sum = lanes.sum();
    if scale != 0.0 {
        let s = V::splat(scale / sum);
        each::<V>(
            z.len(),
            #[inline(always)]
            |i, w| (V::at(&z[i..], w) * s).put(&mut z[i..], w),
        );
        z[target] -= scale;
    } else {
        z.fill(0.0);
    }
    math::log(V::splat(sum)).to_array()[0] + (max - wanted)
}

impl LinearXent {
    /// The weight of row i, 0 where its target is negative, and the norm.
    fn weighing<'a>(&self, x: &'a [Tensor]) -> (impl Fn(usize) -> f32 + Sync + 'a, f32) {
        let (targets, weights) = (x[2].i32(), if self.weights { Some(x[3].f32()) } else { None });
        let weight = move |i: usize| if targets[i] < 0 { 0.0 } else { weights.map_or(1.0, |w| w[i]) };
        let sum = || (0..targets.len()).map(|i| f64::from(weight(i))).sum::<f64>() as f32;
        let norm = self.norm.unwrap_or_else(sum);
        // A batch in which nothing counts has loss 0, not NaN.
        (weight, if norm == 0.0 { 1.0 } else { norm })
    }
}

impl Op for LinearXent {
    fn name(&self) -> &'static str {
        "linear_xent"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0].shape.last_dim(), x[1].shape[1], "linear_xent: x is {:?}, W is {:?}", x[0].shape, x[1].shape);
        assert_eq!(x[0].shape.as_matrix().0, x[2].shape.numel(), "linear_xent: the number of targets");
        Specs::from_iter([Spec::f32([1])])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, (rows, c), vocab) = (x[0].cpu(), x[0].shape().as_matrix(), x[1].shape()[0]);
        let (x_, w, targets) = (x[0].f32(), x[1].mat(vocab, c), x[2].i32());
        let (weight, norm) = self.weighing(x);
        let mut dx = need[0].wanted().then(|| Out::new(x[0].device(), x[0].spec()));
        let unscaled = dx.as_ref().map(|_| x[1].unscaled());
        let mut own = matches!(need[1], Need::Later).then(|| Out::new(x[1].device(), x[1].spec()));
        let (mut dw, add) = match &mut need[1] {
            Need::Now(dw, beta) => (Some(&mut **dw), std::mem::replace(*beta, 1.0) != 0.0),
            _ => (own.as_mut(), false),
        };
        let chunk = self.rows_at_once(rows, 4 * vocab);
        let mut logits = cpu.scratch.take(chunk * vocab);
        let mut losses = cpu.scratch.take(chunk);
        let mut loss = 0.0f64;
        for start in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - start);
            let (z, losses) = (&mut logits[..n * vocab], &mut losses[..n]);
            let x_ = Mat::new(&x_[start * c..][..n * c], n, c);
            gemm(cpu, self.precision, x_, w.t(), MatMut::new(z, n, vocab), false, None);
            cpu.threads.each((chunks(z, TASK_ROWS * vocab), chunks(losses, TASK_ROWS)), |i, (z, losses)| {
                for (r, (z, loss)) in z.chunks_exact_mut(vocab).zip(losses).enumerate() {
                    let r = start + i * TASK_ROWS + r;
                    let weight = weight(r);
                    // A target that does not count may be anything.
                    let target = if weight == 0.0 { 0 } else { targets[r] as usize };
                    *loss = row(cpu.simd, z, target, weight / norm) * weight;
                }
            });
            loss += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
            let dz = Mat::new(z, n, vocab);
            if let (Some(dx), Some(w)) = (&mut dx, &unscaled) {
                let w = w.mat(vocab, c);
                gemm(cpu, self.precision, dz, w, MatMut::new(&mut dx.f32_mut()[start * c..][..n * c], n, c), false, None);
            }
            if let Some(dw) = &mut dw {
                gemm(cpu, self.precision, dz.t(), x_, MatMut::new(dw.f32_mut(), vocab, c), add || start > 0, None);
            }
        }
        y[0].f32_mut()[0] = (loss / f64::from(norm)) as f32;
        // In the order of the inputs; backward knows which are there from what it is asked for.
        dx.into_iter().chain(own).map(Out::freeze).collect()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let scale = dy[0].as_ref().expect("one result").item();
        let wanted = [0, 1].map(|i| dx.wants(i));
        let early = saved.len() < wanted.into_iter().filter(|&wanted| wanted).count();
        assert!(scale == 1.0 || !early, "a loss whose gradients were added in its forward pass is where backward starts");
        for (i, grad) in [0, 1].into_iter().filter(|&i| wanted[i]).zip(saved) {
            if scale == 1.0 {
                dx.give(i, grad.clone());
            } else {
                let mut out = dx.out(i);
                let beta = out.beta;
                crate::cpu::elementwise::add_scaled(grad.cpu(), beta, out.f32_mut(), scale, grad.f32());
            }
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let ((rows, c), vocab) = (x[0].shape().as_matrix(), x[1].shape()[0]);
        let (device, dtype) = (x[0].device(), x[0].dtype());
        let dx = need[0].wanted().then(|| Out::new(device, x[0].spec()));
        // The gradient of W is f32, whatever W is.
        let own = matches!(need[1], Need::Later).then(|| Out::new(device, Spec::f32(*x[1].shape())));
        let (dw, added) = match &mut need[1] {
            Need::Now(dw, beta) => (Some(&***dw), std::mem::replace(*beta, 1.0) != 0.0),
            _ => (own.as_deref(), false),
        };
        // Rows of logits begin at multiples of 16 bytes.
        let pitch = vocab.next_multiple_of(16 / dtype.size());
        let chunk = self.rows_at_once_on_gpu(rows, pitch * dtype.size());
        let logits = Out::new(device, Spec { shape: [chunk, pitch].into(), dtype });
        let [losses, norm] = [rows, 1].map(|n| Out::new(device, Spec::f32([n])));
        let weights = x.get(3);
        match self.norm {
            Some(value) => fill(gpu, &norm, value),
            None => {
                let args = [at(&x[2]), maybe(weights), at(&norm), n(rows)];
                gpu.launch(kernels::xent_sum("xent_norm"), &args);
            }
        }
        for start in (0..rows).step_by(chunk) {
            let m = chunk.min(rows - start);
            let z = logits.view(0, [m, pitch]);
            let part = |tensor: &Tensor, width: usize| tensor.view(start * width, [m, width]);
            let x_ = part(&x[0].reshape([rows, c]), c);
            Product::new(Form::Nt, [m, vocab, c], [&x_, &x[1], &z]).launch(gpu);
            let of_rows = |tensor: &Tensor| tensor.reshape([rows]).view(start, [m]);
            let (targets, weights, losses) = (of_rows(&x[2]), weights.map(of_rows), of_rows(&losses));
            let grad = flag(dx.is_some() || dw.is_some());
            let args = [
                at(&z),
                at(&targets),
                maybe(weights.as_ref()),
                at(&norm),
                at(&losses),
                n(vocab),
                n(pitch),
                grad,
            ];
            gpu.launch(kernels::logits("xent", float(&z), m, pitch), &args);
            if let Some(dx) = &dx {
                Product::new(Form::Nn, [m, c, vocab], [&z, &x[1], &part(&dx.reshape([rows, c]), c)]).launch(gpu);
            }
            if let Some(dw) = dw {
                let add = added || start > 0;
                Product { add, ..Product::new(Form::Tn, [vocab, c, m], [&z, &x_, dw]) }.launch(gpu);
            }
        }
        let args = [at(&losses), at(&norm), at(&y[0]), n(rows)];
        gpu.launch(kernels::xent_sum("xent_total"), &args);
        dx.into_iter().chain(own).map(Out::freeze).collect()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        _x: &[Tensor],
        _y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let scale = dy[0].as_ref().expect("one result");
        let wanted = [0, 1].map(|i| dx.wants(i));
        for (i, grad) in [0, 1].into_iter().filter(|&i| wanted[i]).zip(saved) {
            let out = dx.out(i);
            if out.beta == 0.0 {
                fill(gpu, &out, 0.0);
            }
            flat(gpu, "elementwise.ptx", "add_scaled", &[grad, &out], &[Arg::F32(1.0), at(scale)]);
        }
    }

    fn reads(&self) -> Reads {
        // All gradients are there already.
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (rows, c) = x[0].shape.as_matrix();
        let (mut loss, mut weights) = (0.0, 0.0);
        for i in (0..rows).filter(|&i| x[2].data[i] >= 0.0) {
            let weight = if self.weights { x[3].data[i] } else { 1.0 };
            let row = &x[0].data[i * c..][..c];
            let z: Vec<f64> = x[1].rows().map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum()).collect();
            let max = z.iter().fold(f64::NEG_INFINITY, |m, z| m.max(*z));
            let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
            loss += weight * (lse - z[x[2].data[i] as usize]);
            weights += weight;
        }
        vec![Array64::new([1], vec![loss / self.norm.map_or(weights, f64::from)])]
    }
}

impl<'t> Var<'t> {
    /// The mean cross-entropy of softmax(self·wᵀ) against `targets`; `weights` and `norm` as in [`LinearXent`].
    pub fn linear_xent(self, w: Var<'t>, targets: Var<'t>, weights: Option<Var<'t>>, norm: Option<f32>) -> Var<'t> {
        let precision = self.tape().pass().precision;
        let op = LinearXent { weights: weights.is_some(), norm, precision, chunk: None };
        match weights {
            Some(weights) => self.tape().apply(op, &[self, w, targets, weights]),
            None => self.tape().apply(op, &[self, w, targets]),
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let inputs = |rows, c, v| vec![Input::normal([rows, c]), Input::weight(v, c), Input::ids([rows], v)];
    let plain = LinearXent::default();
    let half = LinearXent { precision: Precision::Bf16, ..plain };
    let rounded = |rows, c, v| vec![Input::normal([rows, c]).rounded(), Input::weight(v, c).rounded(), Input::ids([rows], v)];
    let mut weighted = inputs(6, 5, 11);
    weighted.push(Input::values([6], &[1.0, 0.0, 0.5, 2.0, 1.0, 0.0]));
    let mut ignored = inputs(4, 5, 9);
    ignored[2].fill = Fill::Values(vec![3.0, -100.0, 8.0, -1.0]);
    vec![
        Case::check("6 rows, 5 to 11", plain, inputs(6, 5, 11)),
        Case::check("token weights", LinearXent { weights: true, ..plain }, weighted),
        Case::check("negative targets do not count", plain, ignored),
        Case::check("a given norm", LinearXent { norm: Some(100.0), ..plain }, inputs(6, 5, 11)),
        Case::check("150 rows, three chunks", LinearXent { chunk: Some(64), ..plain }, inputs(150, 3, 5)),
        Case::check("1100 rows", plain, inputs(1100, 3, 5)),
        Case::check("7 rows, 24 to 37", plain, inputs(7, 24, 37)),
        Case::check("bf16, 6 rows, 5 to 11", half, rounded(6, 5, 11)).rounding(),
        Case::check("bf16, 150 rows, three chunks", LinearXent { chunk: Some(64), ..half }, rounded(150, 3, 5)).rounding(),
        Case::bench("4096 rows, 256 to 8192", plain, inputs(4096, 256, 8192)),
        Case::bench("1024 rows, 768 to 50304", plain, inputs(1024, 768, 50304)),
    ]
}
