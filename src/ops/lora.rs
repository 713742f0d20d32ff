//! A linear layer whose weights are frozen, with a low-rank correction that learns: LoRA.
//!
//! ```text
//! y = x·Wᵀ + b + s · (x'·Aᵀ)·Bᵀ         x' = x, or x with channels dropped
//! ```
//! x, x': (…, K); W: (N, K), in any type that weights are frozen in; b: (N); A: (P·r, K); B: (M, r); y: (…, N). W may be several matrices, one below
//! the other, as packed queries, keys and values are; P of these spans have a correction of their own. Those of span p are
//! r rows of A and, behind those of the spans before, as many rows of B as the span has. s is the scale, alpha/r.
//!
//! Backward, with h = s · x'·Aᵀ (…, P·r) kept, and dh = s · dy·B: `dx = dy·W`, `dx' = dh·A`, `dA = dhᵀ·x'`, `dB = dyᵀ·h`;
//! each span by itself. W and b have no gradients: so the product for dW, a third of the work, is saved.
//!
//! Source: Hu et al. 2021 (arXiv 2106.09685), equation 3; names and scale as PEFT has them.

use super::{Case, Input};
use crate::cpu::elementwise::add_chunk;
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::linear::product;
use crate::cpu::simd::each;
use crate::cpu::{Simd, Vector};
use crate::device::Gpu;
use crate::device::kernels::Form;
use crate::launch::{Product, flat, flag};
use crate::device::Arg;
use crate::simd_fn;
use crate::tape::{Array64, Dx, MAX_INPUTS, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;

/// The most spans of a layer: queries, keys and values.
pub const MAX_SPANS: usize = 3;

/// Rows of W that have a correction of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub start: usize,
    /// How many; none where there is no such span.
    pub rows: usize,
}

/// Inputs: x, x', W, A, B, then b if `bias`. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    /// s.
    pub scale: f32,
    /// The corrected rows of W, in order.
    pub spans: [Span; MAX_SPANS],
    /// Whether a bias is added.
    pub bias: bool,
    /// What the products' operands are rounded to.
    pub precision: Precision,
}

simd_fn! {
    fn scale_row(y: &mut [f32], by: f32) = scale_body
}
#[inline(always)]
fn scale_body<V: Vector>(y: &mut [f32], by: f32) {
    let by = V::splat(by);
    each::<V>(
        y.len(),
        #[inline(always)]
        |i, w| (V::at(&y[i..], w) * by).put(&mut y[i..], w),
    );
}

/// A span with the first of its rows of A and of B.
#[derive(Clone, Copy)]
struct Part {
    /// Rows of W, and so columns of y.
    span: Span,
    /// The first row of A, and so column of h.
    a: usize,
    /// The first row of B.
    b: usize,
}

/// The sizes of a call: rows of x, K, N, r.
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
    r: usize,
    /// P·r.
    width: usize,
}

impl Lora {
    fn sizes(&self, x: &[Tensor]) -> Sizes {
        let ((m, k), n, width) = (x[0].shape().as_matrix(), x[2].shape()[0], x[3].shape()[0]);
        Sizes { m, k, n, r: x[4].shape()[1], width }
    }

    fn parts(&self, r: usize) -> impl Iterator<Item = Part> {
        let mut b = 0;
        self.spans.into_iter().filter(|span| span.rows > 0).enumerate().map(move |(i, span)| {
            b += span.rows;
            Part { span, a: i * r, b: b - span.rows }
        })
    }

    /// What multiplies pieces of a row by s.
    fn scaling(&self, simd: Simd) -> impl Fn(usize, &mut [f32], &mut [f32]) + Sync {
        let scale = self.scale;
        move |_, y: &mut [f32], _: &mut [f32]| scale_row(simd, y, scale)
    }

    /// s · dy·B (…, P·r).
    fn pull_back(&self, x: &[Tensor], dy: &Tensor) -> Tensor {
        let (cpu, Sizes { m, n, r, width, .. }) = (x[0].cpu(), self.sizes(x));
        let mut dh = Out::new(x[0].device(), Spec::f32([m, width]));
        let b = x[4].f32();
        let scaling = self.scaling(cpu.simd);
        let finish = |_: usize, first: usize, piece: &mut [f32]| scaling(first, piece, &mut []);
        for part in self.parts(r) {
            let dy = Mat::strided(&dy.f32()[part.span.start..], m, part.span.rows, n, 1);
            let b = Mat::new(&b[part.b * r..][..part.span.rows * r], part.span.rows, r);
            let to = MatMut::strided(&mut dh.f32_mut()[part.a..], m, r, width);
            gemm(cpu, self.precision, dy, b, to, false, Some(&finish));
        }
        dh.freeze()
    }

    fn scale_on(&self, gpu: &Gpu, y: &Tensor) {
        flat(gpu, "elementwise.ptx", "scale_fwd", &[y, y], &[Arg::F32(self.scale), flag(false)]);
    }
}

/// The elements of `x` from `start` on.
fn from(x: &Tensor, start: usize) -> Tensor {
    x.view(start, [x.numel() - start])
}

impl Op for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (n, k) = x[2].shape.as_matrix();
        let ((width, inner), (rows, r)) = (x[3].shape.as_matrix(), x[4].shape.as_matrix());
        let spans: ArrayVec<Span, MAX_SPANS> = self.spans.into_iter().filter(|span| span.rows > 0).collect();
        assert_eq!(x.len(), 5 + usize::from(self.bias), "lora: the number of inputs");
        assert!(x[0].shape == x[1].shape && x[0].shape.last_dim() == k && inner == k, "lora: x, W and A");
        assert_eq!((spans.len() * r, spans.iter().map(|span| span.rows).sum()), (width, rows), "lora: A and B");
        assert!(spans.iter().all(|span| span.start + span.rows <= n), "lora: spans of {n} rows");
        assert!(!self.bias || x[5].shape[..] == [n], "lora: the bias's shape");
        Specs::from_iter([Spec { shape: x[0].shape.with_last(n), ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, Sizes { m, k, n, r, width }) = (x[0].cpu(), self.sizes(x));
        let mut h = Out::new(x[0].device(), Spec::f32([m, width]));
        let (dropped, a) = (Mat::new(x[1].f32(), m, k), Mat::new(x[3].f32(), width, k));
        product(cpu, self.precision, dropped, a.t(), h.f32_mut(), &mut [], Some(&self.scaling(cpu.simd)));
        let bias = self.bias.then(|| x[5].widened());
        let (given, w) = (Mat::new(x[0].f32(), m, k), x[2].mat(n, k).t());
        let add = bias.as_ref().map(|bias| {
            let bias = bias.f32();
            move |first: usize, y: &mut [f32], _: &mut [f32]| add_chunk(cpu.simd, 1.0, y, &bias[first..][..y.len()])
        });
        let add = add.as_ref().map(|add| add as &crate::cpu::linear::Finish);
        product(cpu, self.precision, given, w, y[0].f32_mut(), &mut [], add);
        for part in self.parts(r) {
            let h = Mat::strided(&h.f32()[part.a..], m, r, width, 1);
            let b = Mat::new(&x[4].f32()[part.b * r..][..part.span.rows * r], part.span.rows, r);
            let to = MatMut::strided(&mut y[0].f32_mut()[part.span.start..], m, part.span.rows, n);
            gemm(cpu, self.precision, h, b.t(), to, true, None);
        }
        if Need::any(need) { Tensors::from_iter([h.freeze()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, Sizes { m, k, n, r, width }) = (x[0].cpu(), self.sizes(x));
        let dy = dy[0].as_ref().expect("one result");
        assert!(!(dx.wants(2) || self.bias && dx.wants(5)), "lora: W and b are frozen");
        if dx.wants(0) {
            let mut out = dx.out(0);
            let (add, w) = (out.beta != 0.0, x[2].unscaled());
            let to = MatMut::new(out.f32_mut(), m, k);
            gemm(cpu, self.precision, Mat::new(dy.f32(), m, n), w.mat(n, k), to, add, None);
        }
        if dx.wants(4) {
            let mut out = dx.out(4);
            let add = out.beta != 0.0;
            for part in self.parts(r) {
                let dy = Mat::strided(&dy.f32()[part.span.start..], m, part.span.rows, n, 1);
                let h = Mat::strided(&saved[0].f32()[part.a..], m, r, width, 1);
                let db = &mut out.f32_mut()[part.b * r..][..part.span.rows * r];
                gemm(cpu, self.precision, dy.t(), h, MatMut::new(db, part.span.rows, r), add, None);
            }
        }
        if !dx.wants(1) && !dx.wants(3) {
            return;
        }
        let dh = self.pull_back(x, dy);
        let dh = Mat::new(dh.f32(), m, width);
        if dx.wants(3) {
            let mut out = dx.out(3);
            let (add, x) = (out.beta != 0.0, Mat::new(x[1].f32(), m, k));
            gemm(cpu, self.precision, dh.t(), x, MatMut::new(out.f32_mut(), width, k), add, None);
        }
        if dx.wants(1) {
            let mut out = dx.out(1);
            let (add, a) = (out.beta != 0.0, Mat::new(x[3].f32(), width, k));
            gemm(cpu, self.precision, dh, a, MatMut::new(out.f32_mut(), m, k), add, None);
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let Sizes { m, k, n, r, width } = self.sizes(x);
        let h = Out::new(x[0].device(), Spec { shape: [m, width].into(), ..x[0].spec() });
        Product::new(Form::Nt, [m, width, k], [&x[1], &x[3], &h]).launch(gpu);
        self.scale_on(gpu, &h);
        let bias = self.bias.then(|| &x[5]);
        Product { bias, ..Product::new(Form::Nt, [m, n, k], [&x[0], &x[2], &y[0]]) }.launch(gpu);
        for part in self.parts(r) {
            let [h, b, to] = [(&*h, part.a), (&x[4], part.b * r), (&y[0], part.span.start)].map(|(x, at)| from(x, at));
            let product = Product::new(Form::Nt, [m, part.span.rows, r], [&h, &b, &to]);
            Product { add: true, pitch: [width, r, n], ..product }.launch(gpu);
        }
        if Need::any(need) { Tensors::from_iter([h.freeze()]) } else { Tensors::new() }
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        _y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let Sizes { m, k, n, r, width } = self.sizes(x);
        let dy = dy[0].as_ref().expect("one result");
        assert!(!(dx.wants(2) || self.bias && dx.wants(5)), "lora: W and b are frozen");
        if dx.wants(0) {
            let out = dx.out(0);
            Product { add: out.beta != 0.0, ..Product::new(Form::Nn, [m, k, n], [dy, &x[2], &out]) }.launch(gpu);
        }
        if dx.wants(4) {
            let out = dx.out(4);
            for part in self.parts(r) {
                let [dy, h, to] =
                    [(dy, part.span.start), (&saved[0], part.a), (&*out, part.b * r)].map(|(x, at)| from(x, at));
                let product = Product::new(Form::Tn, [part.span.rows, r, m], [&dy, &h, &to]);
                Product { add: out.beta != 0.0, pitch: [n, width, r], ..product }.launch(gpu);
            }
        }
        if !dx.wants(1) && !dx.wants(3) {
            return;
        }
        let dh = Out::new(dy.device(), Spec { shape: [m, width].into(), ..dy.spec() });
        for part in self.parts(r) {
            let [dy, b, to] = [(dy, part.span.start), (&x[4], part.b * r), (&*dh, part.a)].map(|(x, at)| from(x, at));
            let product = Product::new(Form::Nn, [m, r, part.span.rows], [&dy, &b, &to]);
            Product { pitch: [n, r, width], ..product }.launch(gpu);
        }
        self.scale_on(gpu, &dh);
        if dx.wants(3) {
            let out = dx.out(3);
            Product { add: out.beta != 0.0, ..Product::new(Form::Tn, [width, k, m], [&dh, &x[1], &out]) }.launch(gpu);
        }
        if dx.wants(1) {
            let out = dx.out(1);
            Product { add: out.beta != 0.0, ..Product::new(Form::Nn, [m, k, width], [&dh, &x[3], &out]) }.launch(gpu);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b11110, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let ((n, k), r) = (x[2].shape.as_matrix(), x[4].shape[1]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let y = Array64::from_fn(x[0].shape.with_last(n), |i| {
            let (row, j) = (i / n, i % n);
            let [given, dropped] = [&x[0], &x[1]].map(|x| &x.data[row * k..][..k]);
            let part = self.parts(r).find(|part| (part.span.start..part.span.start + part.span.rows).contains(&j));
            let low = part.map_or(0.0, |part| {
                let b = &x[4].data[(part.b + j - part.span.start) * r..][..r];
                let h = (0..r).map(|l| dot(dropped, &x[3].data[(part.a + l) * k..][..k]));
                h.zip(b).map(|(h, b)| h * b).sum()
            });
            dot(given, &x[2].data[j * k..][..k]) + f64::from(self.scale) * low + if self.bias { x[5].data[j] } else { 0.0 }
        });
        vec![y]
    }
}

impl<'t> Var<'t> {
    /// `self·wᵀ + bias + scale · (dropped·aᵀ)·bᵀ`, the last part for `spans` of the rows of w.
    pub fn lora(
        self,
        dropped: Var<'t>,
        w: Var<'t>,
        [a, b]: [Var<'t>; 2],
        bias: Option<Var<'t>>,
        scale: f32,
        spans: [Span; MAX_SPANS],
    ) -> Var<'t> {
        let op = Lora { scale, spans, bias: bias.is_some(), precision: self.tape().pass().precision };
        let x: ArrayVec<Var, MAX_INPUTS> = [self, dropped, w, a, b].into_iter().chain(bias).collect();
        self.tape().apply(op, &x)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |m: usize, k: usize, n: usize, r: usize, spans: &[(usize, usize)], bias: bool| {
        let mut all = [Span::default(); MAX_SPANS];
        all.iter_mut().zip(spans).for_each(|(to, &(start, rows))| *to = Span { start, rows });
        let rows = spans.iter().map(|span| span.1).sum();
        let x = Input::normal([m, k]);
        let mut inputs = vec![x.clone(), x, Input::weight(n, k).fixed()];
        inputs.extend([Input::weight(spans.len() * r, k), Input::weight(rows, r)]);
        inputs.extend(bias.then(|| Input::normal([n]).param().fixed()));
        let op = Lora { scale: 1.5, spans: all, bias, precision: Precision::F32 };
        (format!("{m} rows, {k} to {n}, rank {r} on {spans:?}, bias={bias}"), op, inputs)
    };
    let checks = [
        case(6, 5, 7, 2, &[(0, 7)], false),
        case(6, 5, 7, 2, &[(0, 7)], true),
        case(5, 8, 12, 3, &[(0, 4), (8, 4)], true),
        // Rows of multiples of 16 bytes, in bf16 too.
        case(19, 24, 40, 8, &[(0, 16), (16, 8), (24, 16)], true),
        case(130, 67, 129, 4, &[(0, 129)], false),
    ];
    let mut cases: Vec<Case> = checks.into_iter().map(|(name, op, x)| Case::check(name, op, x)).collect();
    let (name, op, mut x) = case(6, 9, 10, 3, &[(0, 4), (4, 6)], true);
    x[..5].iter_mut().for_each(|input| input.rounded = true);
    // Between its two products h is rounded to 8 bits, which the reference does not do.
    let half = Case::check(format!("bf16, {name}"), Lora { precision: Precision::Bf16, ..op }, x);
    cases.push(Case { bounds: [1.0 / 256.0; 2], ..half });
    let (name, op, x) = case(4096, 576, 960, 8, &[(0, 576), (576, 192), (768, 192)], false);
    cases.push(Case::bench(name, op, x));
    cases
}
