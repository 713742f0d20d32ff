//! A linear layer with its bias and activation: `y = f(x·Wᵀ + b)`.
//!
//! x: (…, K); W: (N, K), as PyTorch keeps it; b: (N); y: (…, N). W and b may be bf16, W in 8 or 4 bits too, without gradients then. Bias and activation are applied to each piece of the
//! product while it is in cache. The forward pass keeps z = x·Wᵀ + b, from which the backward pass computes f′(z) and, for
//! the layer that reads it, y again.
//!
//! In [`Precision::Bf16`] each product rounds both of its operands to bf16, dz too; all else is f32.
//!
//! Backward, with dz = dy ∘ f′(z): `dx = dz·W`, `dW = dzᵀ·x`, `db = Σ_rows dz`.

use super::activation::Activation;
use super::fused::Fused;
use super::{Case, Input};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::linear::{column_sums, product};
use crate::cpu::simd::each;
use crate::cpu::{Simd, Vector, math};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels::Form;
use crate::launch::Product;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Inputs: x, W, then b if `bias`. Result: y.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear {
    /// Whether a bias is added.
    pub bias: bool,
    /// What is applied last.
    pub activation: Option<Activation>,
    /// What the products' operands are rounded to.
    pub precision: Precision,
}

/// `y = f(y + b)` in place, and `z = y + b`, for rows of y as long as b; `b` and `z` may be empty.
#[inline(always)]
fn finish<V: Vector>(y: &mut [f32], b: &[f32], z: &mut [f32], f: impl Fn(V) -> V) {
    let row = if b.is_empty() { y.len() } else { b.len() };
    for start in (0..y.len()).step_by(row.max(1)) {
        let y = &mut y[start..][..row];
        each::<V>(
            row,
            #[inline(always)]
            |i, w| {
                let v = V::at(&y[i..], w);
                let v = if b.is_empty() { v } else { v + V::at(&b[i..], w) };
                if !z.is_empty() {
                    v.put(&mut z[start + i..], w);
                }
                f(v).put(&mut y[i..], w);
            },
        );
    }
}

macro_rules! finishers {
    ($($name:ident $body:ident = |$z:ident| $f:expr;)*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(y: &mut [f32], b: &[f32], z: &mut [f32]) {
            finish::<V>(y, b, z, #[inline(always)] |$z| $f);
        }
        simd_fn! {
            fn $name(y: &mut [f32], b: &[f32], z: &mut [f32]) = $body
        }
    )*};
}
finishers! {
    plain plain_body = |z| z;
    gelu_tanh gelu_tanh_body = |z| math::gelu_tanh(z);
    gelu_erf gelu_erf_body = |z| math::gelu_erf(z);
    silu silu_body = |z| math::silu(z);
    relu relu_body = |z| z.max(V::splat(0.0));
    tanh tanh_body = |z| math::tanh(z);
    sigmoid sigmoid_body = |z| math::sigmoid(z);
}

/// What adds the bias to a piece of a product, keeps the sum in a side result, and applies the activation.
pub(super) fn finisher(activation: Option<Activation>) -> fn(Simd, &mut [f32], &[f32], &mut [f32]) {
    match activation {
        None => plain,
        Some(Activation::GeluTanh) => gelu_tanh,
        Some(Activation::GeluErf) => gelu_erf,
        Some(Activation::Silu) => silu,
        Some(Activation::Relu) => relu,
        Some(Activation::Tanh) => tanh,
        Some(Activation::Sigmoid) => sigmoid,
        Some(other) => panic!("{} is no part of a product", other.name()),
    }
}

impl Linear {
    fn fused(&self) -> Fused {
        Fused(self.activation)
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (n, k) = x[1].shape.as_matrix();
        assert_eq!(x[0].shape.last_dim(), k, "linear: x is {:?}, W is {:?}", x[0].shape, x[1].shape);
        assert_eq!(x.len(), 2 + usize::from(self.bias), "linear: the number of inputs");
        assert!(!self.bias || x[2].shape[..] == [n], "linear: the bias's shape");
        Specs::from_iter([Spec { shape: x[0].shape.with_last(n), ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, (m, k), n) = (x[0].cpu(), x[0].shape().as_matrix(), x[1].shape()[0]);
        let bias = self.bias.then(|| x[2].widened());
        let bias = bias.as_ref().map_or(&[][..], Tensor::f32);
        let mut z = self.fused().room(&y[0], need);
        let side = z.as_mut().map_or(&mut [][..], |z| z.f32_mut());
        let (a, b) = (Mat::new(x[0].f32(), m, k), x[1].mat(n, k).t());
        let last = finisher(self.activation);
        let apply = |first: usize, y: &mut [f32], z: &mut [f32]| {
            let bias = if bias.is_empty() { bias } else { &bias[first..][..y.len()] };
            last(cpu.simd, y, bias, z);
        };
        let trivial = !self.bias && self.activation.is_none();
        product(cpu, self.precision, a, b, y[0].f32_mut(), side, (!trivial).then_some(&apply));
        Fused::saved(z)
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, (m, k), n) = (x[0].cpu(), x[0].shape().as_matrix(), x[1].shape()[0]);
        let dz = self.fused().pull_back(y, saved, dy);
        let dz_ = Mat::new(dz.f32(), m, n);
        if dx.wants(0) {
            let mut out = dx.out(0);
            let (add, w) = (out.beta != 0.0, x[1].unscaled());
            gemm(cpu, self.precision, dz_, w.mat(n, k), MatMut::new(out.f32_mut(), m, k), add, None);
        }
        if dx.wants(1) {
            let mut out = dx.out(1);
            let add = out.beta != 0.0;
            let x = Mat::new(x[0].f32(), m, k);
            gemm(cpu, self.precision, dz_.t(), x, MatMut::new(out.f32_mut(), n, k), add, None);
        }
        if self.bias && dx.wants(2) {
            let mut out = dx.out(2);
            let beta = out.beta;
            column_sums(cpu, beta, out.f32_mut(), dz.f32());
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let ((m, k), c) = (x[0].shape().as_matrix(), x[1].shape()[0]);
        let z = self.fused().room(&y[0], need);
        let product = Product {
            bias: self.bias.then(|| &x[2]),
            z: z.as_deref(),
            f: self.activation.map_or("none", |f| f.name()),
            ..Product::new(Form::Nt, [m, c, k], [&x[0], &x[1], &y[0]])
        };
        product.launch(gpu);
        Fused::saved(z)
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let ((m, k), c) = (x[0].shape().as_matrix(), x[1].shape()[0]);
        let dz = self.fused().pull_back(y, saved, dy);
        if dx.wants(0) {
            let out = dx.out(0);
            let add = out.beta != 0.0;
            Product { add, ..Product::new(Form::Nn, [m, k, c], [&dz, &x[1], &out]) }.launch(gpu);
        }
        if dx.wants(1) {
            let out = dx.out(1);
            let add = out.beta != 0.0;
            Product { add, ..Product::new(Form::Tn, [c, k, m], [&dz, &x[0], &out]) }.launch(gpu);
        }
        if self.bias && dx.wants(2) {
            let out = dx.out(2);
            crate::launch::column_sums(gpu, out.beta, &out, &dz);
        }
    }

    fn reads(&self) -> Reads {
        self.fused().reads(0b111)
    }

    fn again(&self, _i: usize, _x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.fused().again(saved, out);
    }

    fn launch_again(&self, _gpu: &Gpu, _i: usize, _x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.fused().again(saved, out);
    }

    fn jvp<'t>(&self, x: &[Var<'t>], y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = Fused::of_first(dx)?;
        let plain = Linear { activation: None, ..*self };
        let dz = dx.tape().apply(Linear { bias: false, ..plain }, &[dx, x[1]]);
        Some(self.fused().tangent(y, dz, || dx.tape().apply(plain, x)))
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (n, k) = x[1].shape.as_matrix();
        let y = Array64::from_fn(x[0].shape.with_last(n), |i| {
            let (row, j) = (i / n, i % n);
            let dot: f64 = (0..k).map(|l| x[0].data[row * k + l] * x[1].data[j * k + l]).sum();
            let z = dot + if self.bias { x[2].data[j] } else { 0.0 };
            self.activation.map_or(z, |f| f.exact(z))
        });
        vec![y]
    }
}

impl<'t> Var<'t> {
    /// `self·wᵀ + b`; `w` is (out, in).
    pub fn linear(self, w: Var<'t>, b: Option<Var<'t>>) -> Var<'t> {
        self.linear_with(w, b, None)
    }

    /// `f(self·wᵀ + b)`; `w` is (out, in).
    pub fn linear_with(self, w: Var<'t>, b: Option<Var<'t>>, activation: Option<Activation>) -> Var<'t> {
        let (fused, apart) = Activation::split(activation);
        let op = Linear { bias: b.is_some(), activation: fused, precision: self.tape().pass().precision };
        let y = match b {
            Some(b) => self.tape().apply(op, &[self, w, b]),
            None => self.tape().apply(op, &[self, w]),
        };
        apart.map_or(y, |f| y.activate(f))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let inputs = |b: &[usize], k: usize, n: usize, bias: bool| {
        let shape: Vec<usize> = b.iter().copied().chain([k]).collect();
        let mut inputs = vec![Input::normal(crate::tensor::Shape::new(&shape)), Input::weight(n, k)];
        inputs.extend(bias.then(|| Input::normal([n]).param()));
        inputs
    };
    let activations = [None].into_iter().chain(Activation::FUSED.map(Some));
    for activation in activations.clone() {
        for bias in [false, true] {
            // ReLU's reference has a kink at 0: z stays clear of it with these seeds only if small cases are used.
            let op = Linear { bias, activation, ..Linear::default() };
            cases.push(Case::check(format!("{activation:?} bias={bias} 2x3, 5 to 7"), op, inputs(&[2, 3], 5, 7, bias)));
        }
    }
    // Rows of multiples of 16 bytes, in bf16 too, as tensor cores take them.
    for activation in activations.clone() {
        let op = Linear { bias: activation.is_some(), activation, ..Linear::default() };
        cases.push(Case::check(format!("{activation:?} 19 rows, 24 to 40"), op, inputs(&[19], 24, 40, op.bias)));
    }
    let biased = Linear { bias: true, ..Linear::default() };
    let op = Linear { activation: Some(Activation::GeluTanh), ..biased };
    cases.push(Case::check("gelu, 130 rows, 67 to 129", op, inputs(&[130], 67, 129, true)));
    cases.push(Case::check("one row", biased, inputs(&[1], 300, 33, true)));
    let rounded = |mut inputs: Vec<Input>| {
        inputs[..2].iter_mut().for_each(|input| input.rounded = true);
        inputs
    };
    let half = Linear { precision: Precision::Bf16, ..biased };
    for (name, b, k, n) in [("2x3, 5 to 7", &[2, 3][..], 5, 7), ("130 rows, 67 to 129", &[130], 67, 129)] {
        cases.push(Case::check(format!("bf16, {name}"), half, rounded(inputs(b, k, n, true))));
    }
    cases.push(Case::check("bf16, one row", half, rounded(inputs(&[1], 300, 33, true))));
    let op = Linear { activation: Some(Activation::GeluTanh), ..half };
    cases.push(Case::check("bf16, gelu, 20 rows, 33 to 65", op, rounded(inputs(&[20], 33, 65, true))).rounding());
    cases.push(Case::check("bf16, 512 rows in runs on a GPU, 24 to 40", half, rounded(inputs(&[512], 24, 40, true))).rounding());
    cases.push(Case::bench("gelu 4096, 256 to 1024", op, inputs(&[4096], 256, 1024, true)));
    cases.push(Case::bench("4096, 1024 to 256", biased, inputs(&[4096], 1024, 256, true)));
    cases
}
