//! The norm of each row of an adapted weight, learnt apart from its direction: DoRA.
//!
//! ```text
//! y_j = g_j · z_j + b_j        g_j = m_j / ‖W_j + s · (B·A)_j‖
//! ```
//! z = x·Wᵀ + s · (x·Aᵀ)·Bᵀ (…, N) is what [`lora`](super::lora) gives, with its W (N, K), A (P·r, K), B (M, r) and spans; m: (M), a
//! number for each corrected row; b: (N). Rows that are not corrected have g = 1. The norm is held fixed in the backward
//! pass, as in the paper's section 4.3: `dz = g ∘ dy`, `dm_j = Σ_rows dy_j z_j / ‖…‖`, `db = Σ_rows dy`.
//!
//! Source: Liu et al. 2024 (arXiv 2402.09353), equation 5; PEFT. On the CPU alone.

use super::lora::{MAX_SPANS, Span};
use super::{Case, Input};
use crate::cpu::elementwise::add_scaled_chunk;
use crate::cpu::linear::column_sums;
use crate::cpu::reduce::{ROWS, square_sum, sum_blocks};
use crate::cpu::simd::each;
use crate::cpu::{Vector, chunks};
use crate::simd_fn;
use crate::tape::{Array64, Dx, MAX_INPUTS, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;

/// Inputs: z, m, W, A, B, then b if `bias`. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct Dora {
    /// s.
    pub scale: f32,
    /// The corrected rows of W, in order.
    pub spans: [Span; MAX_SPANS],
    /// Whether a bias is added.
    pub bias: bool,
}

/// Rows a task.
const TASK: usize = 16;

simd_fn! {
    /// `y = g ∘ x + b`, or `y += g ∘ x` with `add`; b may be empty.
    fn scale_rows(y: &mut [f32], x: &[f32], g: &[f32], b: &[f32], add: bool) = scale_body
}
#[inline(always)]
fn scale_body<V: Vector>(y: &mut [f32], x: &[f32], g: &[f32], b: &[f32], add: bool) {
    for (y, x) in y.chunks_exact_mut(g.len()).zip(x.chunks_exact(g.len())) {
        each::<V>(
            g.len(),
            #[inline(always)]
            |i, w| {
                let v = V::at(&x[i..], w) * V::at(&g[i..], w);
                let v = if b.is_empty() { v } else { v + V::at(&b[i..], w) };
                let v = if add { V::at(&y[i..], w) + v } else { v };
                v.put(&mut y[i..], w);
            },
        );
    }
}
simd_fn! {
    /// `sums = Σ_rows x ∘ y`.
    fn dot_rows(sums: &mut [f32], x: &[f32], y: &[f32]) = dot_body
}
#[inline(always)]
fn dot_body<V: Vector>(sums: &mut [f32], x: &[f32], y: &[f32]) {
    sums.fill(0.0);
    for (x, y) in x.chunks_exact(sums.len()).zip(y.chunks_exact(sums.len())) {
        each::<V>(
            sums.len(),
            #[inline(always)]
            |i, w| V::at(&x[i..], w).fma(V::at(&y[i..], w), V::at(&sums[i..], w)).put(&mut sums[i..], w),
        );
    }
}

impl Dora {
    /// For each corrected row: its number in W, and the first row of A that corrects it.
    fn rows(&self, r: usize) -> impl Iterator<Item = (usize, usize)> {
        let spans = self.spans.into_iter().filter(|span| span.rows > 0).enumerate();
        spans.flat_map(move |(i, span)| (span.start..span.start + span.rows).map(move |row| (row, i * r)))
    }

    /// ‖W_j + s · (B·A)_j‖ of each corrected row.
    fn norms(&self, x: &[Tensor]) -> Tensor {
        let (cpu, (rows, r), k) = (x[0].cpu(), x[4].shape().as_matrix(), x[2].shape()[1]);
        let (w, a, b) = (x[2].widened(), x[3].f32(), x[4].f32());
        let w = w.f32();
        let mut norms = Out::new(x[0].device(), Spec::f32([rows]));
        let places: Vec<(usize, usize)> = self.rows(r).collect();
        cpu.threads.each(chunks(norms.f32_mut(), TASK), |i, norms| {
            let mut row = cpu.scratch.take(k);
            for (j, norm) in norms.iter_mut().enumerate() {
                let j = i * TASK + j;
                let (at, first) = places[j];
                row.copy_from_slice(&w[at * k..][..k]);
                for (l, b) in b[j * r..][..r].iter().enumerate() {
                    add_scaled_chunk(cpu.simd, 1.0, &mut row, self.scale * b, &a[(first + l) * k..][..k]);
                }
                *norm = square_sum(cpu, &row).sqrt() as f32;
            }
        });
        norms.freeze()
    }

    /// g (N).
    fn gains(&self, x: &[Tensor], norms: &Tensor) -> Tensor {
        let (n, r) = (x[2].shape()[0], x[4].shape()[1]);
        let mut gains = Out::new(x[0].device(), Spec::f32([n]));
        let (m, norms) = (x[1].f32(), norms.f32());
        // In a loop of one, which a device that computes nothing passes over.
        x[0].cpu().threads.each(chunks(gains.f32_mut(), n), |_, gains| {
            gains.fill(1.0);
            self.rows(r).enumerate().for_each(|(j, (row, _))| gains[row] = m[j] / norms[j]);
        });
        gains.freeze()
    }
}

impl Op for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let ((n, k), (rows, _)) = (x[2].shape.as_matrix(), x[4].shape.as_matrix());
        assert_eq!(x.len(), 5 + usize::from(self.bias), "dora: the number of inputs");
        assert!(x[0].shape.last_dim() == n && x[1].shape[..] == [rows] && x[3].shape[1] == k, "dora: z, m, W and A");
        assert_eq!(self.spans.iter().map(|span| span.rows).sum::<usize>(), rows, "dora: the rows of B");
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, n) = (x[0].cpu(), x[2].shape()[0]);
        let norms = self.norms(x);
        let gains = self.gains(x, &norms);
        let bias = self.bias.then(|| x[5].widened());
        let (z, g, b) = (x[0].f32(), gains.f32(), bias.as_ref().map_or(&[][..], Tensor::f32));
        cpu.threads.each(chunks(y[0].f32_mut(), TASK * n), |i, y| {
            scale_rows(cpu.simd, y, &z[i * TASK * n..][..y.len()], g, b, false);
        });
        if Need::any(need) { Tensors::from_iter([norms, gains]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, n, r) = (x[0].cpu(), x[2].shape()[0], x[4].shape()[1]);
        let (dy, g) = (dy[0].as_ref().expect("one result").f32(), saved[1].f32());
        if dx.wants(1) {
            let mut out = dx.out(1);
            let (add, z) = (out.beta != 0.0, x[0].f32());
            let mut partial = cpu.scratch.take(dy.len().div_ceil(ROWS * n) * n);
            cpu.threads.each(chunks(&mut partial, n), |i, sums| {
                let rows = i * ROWS * n..dy.len().min((i + 1) * ROWS * n);
                dot_rows(cpu.simd, sums, &dy[rows.clone()], &z[rows]);
            });
            let mut sums = cpu.scratch.take(n);
            sum_blocks(cpu, 0.0, &mut sums, &partial);
            let norms = saved[0].f32();
            cpu.threads.each(chunks(out.f32_mut(), norms.len()), |_, dm| {
                for (j, (row, _)) in self.rows(r).enumerate() {
                    dm[j] = if add { dm[j] } else { 0.0 } + sums[row] / norms[j];
                }
            });
        }
        if self.bias && dx.wants(5) {
            let mut out = dx.out(5);
            let beta = out.beta;
            column_sums(cpu, beta, out.f32_mut(), dy);
        }
        if dx.wants(0) {
            let mut out = dx.out(0);
            let add = out.beta != 0.0;
            cpu.threads.each(chunks(out.f32_mut(), TASK * n), |i, dz| {
                scale_rows(cpu.simd, dz, &dy[i * TASK * n..][..dz.len()], g, &[], add);
            });
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b00011, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let ((n, k), r) = (x[2].shape.as_matrix(), x[4].shape[1]);
        let mut gains = vec![1.0; n];
        for (j, (row, first)) in self.rows(r).enumerate() {
            let low = |c: usize| (0..r).map(|l| x[4].data[j * r + l] * x[3].data[(first + l) * k + c]).sum::<f64>();
            let square = |c: usize| (x[2].data[row * k + c] + f64::from(self.scale) * low(c)).powi(2);
            gains[row] = x[1].data[j] / (0..k).map(square).sum::<f64>().sqrt();
        }
        let bias = |j: usize| if self.bias { x[5].data[j] } else { 0.0 };
        vec![Array64::from_fn(x[0].shape, |i| gains[i % n] * x[0].data[i] + bias(i % n))]
    }
}

impl<'t> Var<'t> {
    /// This result of [`Var::lora`], without its bias, with rows of norm `m`; then the bias. `w`, `ab`, `scale` and `spans`
    /// are those of that.
    pub fn dora(
        self,
        m: Var<'t>,
        w: Var<'t>,
        [a, b]: [Var<'t>; 2],
        bias: Option<Var<'t>>,
        scale: f32,
        spans: [Span; MAX_SPANS],
    ) -> Var<'t> {
        let op = Dora { scale, spans, bias: bias.is_some() };
        // The norm is held fixed.
        let [w, a, b] = [w, a, b].map(|x| self.tape().constant(x.value()));
        let x: ArrayVec<Var, MAX_INPUTS> = [self, m, w, a, b].into_iter().chain(bias).collect();
        self.tape().apply(op, &x)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |rows: usize, k: usize, n: usize, r: usize, spans: &[(usize, usize)], bias: bool| {
        let mut all = [Span::default(); MAX_SPANS];
        all.iter_mut().zip(spans).for_each(|(to, &(start, rows))| *to = Span { start, rows });
        let m = spans.iter().map(|span| span.1).sum();
        let mut inputs = vec![Input::normal([rows, n]), Input::gain([m]), Input::weight(n, k).fixed()];
        inputs.extend([Input::weight(spans.len() * r, k).fixed(), Input::weight(m, r).fixed()]);
        inputs.extend(bias.then(|| Input::normal([n]).param()));
        let op = Dora { scale: 1.5, spans: all, bias };
        Case::check(format!("{rows} rows, {k} to {n}, rank {r} on {spans:?}, bias={bias}"), op, inputs)
    };
    vec![
        case(6, 5, 7, 2, &[(0, 7)], false),
        case(37, 8, 12, 3, &[(0, 4), (8, 4)], true),
        case(300, 19, 33, 4, &[(0, 33)], true),
    ]
}
