//! Activations: `y = f(x)`, element by element. Shapes are free.
//!
//! ```text
//! gelu_tanh  ½x (1 + tanh(√(2/π) (x + 0.044715 x³)))      GPT-2's (Hugging Face: gelu_new)
//! gelu_erf   x Φ(x) = ½x (1 + erf(x/√2))                  the exact one (Hugging Face: gelu)
//! silu       x σ(x), also called swish
//! relu       max(x, 0), with derivative 0 at 0
//! leaky_relu x where x > 0, else slope · x, with derivative slope at 0
//! softplus   log(1 + eˣ)
//! tanh, sigmoid
//! ```
//! Backward: `dx = dy · f′(x)`, computed again from x, or from y where that is cheaper: tanh′ = 1 − y², σ′ = y (1 − y),
//! and relu's says whether y > 0.
//! Nothing is saved.
//!
//! Sources: Hendrycks, Gimpel 2016 (arXiv 1606.08415); Elfwing, Uchibe, Doya 2017 (arXiv 1702.03118).

use super::{Case, Fill, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Cpu, Simd, Vector, chunks, math};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels::{self, Plan};
use crate::launch::{aligned, at, flag, float, n};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// The GELU by its tanh approximation.
    GeluTanh,
    /// The exact GELU.
    GeluErf,
    /// x · sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// x where it is above 0, else this slope times x.
    LeakyRelu(f32),
    /// log(1 + eˣ).
    Softplus,
}

/// A slope is a number.
impl Eq for Activation {}

type Forward = fn(Simd, &[f32], &mut [f32]);
type Backward = fn(Simd, f32, &mut [f32], &[f32], &[f32]);

/// `relu(x) = max(x, 0)`; NaN becomes 0, as the contract's max has it.
#[inline(always)]
fn relu_body<V: Vector>(x: &[f32], y: &mut [f32]) {
    math::map(x, y, #[inline(always)] |x: V| x.max(V::splat(0.0)));
}
simd_fn! {
    fn relu(x: &[f32], y: &mut [f32]) = relu_body
}

#[inline(always)]
fn leaky_relu_body<V: Vector>(slope: f32, x: &[f32], y: &mut [f32]) {
    math::map(x, y, #[inline(always)] |x: V| x.select(x.gt(V::splat(0.0)), x * V::splat(slope)));
}
simd_fn! {
    fn leaky_relu(slope: f32, x: &[f32], y: &mut [f32]) = leaky_relu_body
}

#[inline(always)]
fn leaky_relu_slope_body<V: Vector>(slope: f32, beta: f32, dx: &mut [f32], x: &[f32], dy: &[f32]) {
    accumulate::<V>(beta, dx, #[inline(always)] |i, w| {
        let dy = V::at(&dy[i..], w);
        dy.select(V::at(&x[i..], w).gt(V::splat(0.0)), dy * V::splat(slope))
    });
}
simd_fn! {
    fn leaky_relu_slope(slope: f32, beta: f32, dx: &mut [f32], x: &[f32], dy: &[f32]) = leaky_relu_slope_body
}

/// Defines kernels `dx = beta dx + dy · slope(v)`, where v is x or y.
macro_rules! slopes {
    ($($name:ident $body:ident = |$v:ident| $slope:expr;)*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(beta: f32, dx: &mut [f32], v: &[f32], dy: &[f32]) {
            accumulate::<V>(beta, dx, #[inline(always)] |i, w| {
                let $v = V::at(&v[i..], w);
                V::at(&dy[i..], w) * $slope
            });
        }
        simd_fn! {
            fn $name(beta: f32, dx: &mut [f32], v: &[f32], dy: &[f32]) = $body
        }
    )*};
}
slopes! {
    gelu_tanh_slope gelu_tanh_slope_body = |x| math::gelu_tanh_grad(x).1;
    gelu_erf_slope gelu_erf_slope_body = |x| math::gelu_erf_grad(x).1;
    silu_slope silu_slope_body = |x| math::silu_grad(x).1;
    relu_slope relu_slope_body = |x| V::splat(1.0).select(x.gt(V::splat(0.0)), V::splat(0.0));
    tanh_slope tanh_slope_body = |y| V::splat(1.0) - y * y;
    sigmoid_slope sigmoid_slope_body = |y| y * (V::splat(1.0) - y);
    softplus_slope softplus_slope_body = |x| math::sigmoid(x);
}

impl Activation {
    /// Those that a linear layer or a convolution applies as it finishes a piece of its result.
    pub const FUSED: [Activation; 6] = [
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Silu,
        Activation::Relu,
        Activation::Tanh,
        Activation::Sigmoid,
    ];

    /// Those that are operations of their own.
    pub const APART: [Activation; 2] = [Activation::LeakyRelu(0.2), Activation::Softplus];

    /// What a linear layer or a convolution applies itself, and what comes as an operation after it.
    pub(super) fn split(activation: Option<Activation>) -> (Option<Activation>, Option<Activation>) {
        match activation {
            Some(Activation::LeakyRelu(_) | Activation::Softplus) => (None, activation),
            fused => (fused, None),
        }
    }

    /// The function in f64.
    pub fn exact(self, x: f64) -> f64 {
        match self {
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + libm::tanh(u))
            }
            // erfc keeps the negative tail, where 1 + erf cancels.
            Activation::GeluErf => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
            Activation::Silu => x / (1.0 + libm::exp(-x)),
            Activation::Relu => x.max(0.0),
            Activation::Tanh => libm::tanh(x),
            Activation::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Activation::LeakyRelu(slope) => if x > 0.0 { x } else { f64::from(slope) * x },
            Activation::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
        }
    }

    /// The derivative in f64 given v: x, or the result where [it comes from that](Self::slope_of_result).
    pub(super) fn exact_slope(self, v: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        match self {
            Activation::GeluTanh => {
                let c = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
                let s = sigmoid(c * (v + 0.044715 * v.powi(3)));
                s + v * s * (1.0 - s) * c * (1.0 + 3.0 * 0.044715 * v * v)
            }
            Activation::GeluErf => {
                let density = libm::exp(-0.5 * v * v) / std::f64::consts::TAU.sqrt();
                0.5 * libm::erfc(-v / std::f64::consts::SQRT_2) + v * density
            }
            Activation::Silu => sigmoid(v) * (1.0 + v * sigmoid(-v)),
            Activation::Relu => f64::from(u8::from(v > 0.0)),
            Activation::LeakyRelu(slope) => if v > 0.0 { 1.0 } else { f64::from(slope) },
            Activation::Tanh => 1.0 - v * v,
            Activation::Sigmoid => v * (1.0 - v),
            Activation::Softplus => sigmoid(v),
        }
    }

    /// The kernels of those without a number.
    fn kernels(self) -> (Forward, Backward) {
        match self {
            Activation::GeluTanh => (math::map_gelu_tanh, gelu_tanh_slope),
            Activation::GeluErf => (math::map_gelu_erf, gelu_erf_slope),
            Activation::Silu => (math::map_silu, silu_slope),
            Activation::Relu => (relu, relu_slope),
            Activation::Tanh => (math::map_tanh, tanh_slope),
            Activation::Sigmoid => (math::map_sigmoid, sigmoid_slope),
            Activation::Softplus => (math::map_softplus, softplus_slope),
            Activation::LeakyRelu(_) => unreachable!("its kernels take the slope"),
        }
    }

    fn forward(self, simd: Simd, x: &[f32], y: &mut [f32]) {
        match self {
            Activation::LeakyRelu(slope) => leaky_relu(simd, slope, x, y),
            _ => self.kernels().0(simd, x, y),
        }
    }

    fn backward(self, simd: Simd, beta: f32, dx: &mut [f32], v: &[f32], dy: &[f32]) {
        match self {
            Activation::LeakyRelu(slope) => leaky_relu_slope(simd, slope, beta, dx, v, dy),
            _ => self.kernels().1(simd, beta, dx, v, dy),
        }
    }

    /// Whether the derivative is computed from the result and not from the input.
    pub(super) fn slope_of_result(self) -> bool {
        matches!(self, Activation::Tanh | Activation::Sigmoid | Activation::Relu)
    }

    /// `y = f(x)`.
    pub(super) fn apply(self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        cpu.threads.each(chunks(y, CHUNK), |i, y| self.forward(cpu.simd, &x[i * CHUNK..][..y.len()], y));
    }

    /// `dx = beta dx + dy · f′`, from `v`, which is y where [the derivative comes from it](Self::slope_of_result), else x.
    pub(super) fn pull_back(self, cpu: &Cpu, beta: f32, dx: &mut [f32], v: &[f32], dy: &[f32]) {
        cpu.threads.each(chunks(dx, CHUNK), |i, dx| {
            let range = i * CHUNK..i * CHUNK + dx.len();
            self.backward(cpu.simd, beta, dx, &v[range.clone()], &dy[range]);
        });
    }
}

impl Activation {
    /// The names of its kernels, forward and backward.
    fn entries(self) -> [&'static str; 2] {
        match self {
            Activation::GeluTanh => ["gelu_tanh_fwd", "gelu_tanh_bwd"],
            Activation::GeluErf => ["gelu_erf_fwd", "gelu_erf_bwd"],
            Activation::Silu => ["silu_fwd", "silu_bwd"],
            Activation::Relu => ["relu_fwd", "relu_bwd"],
            Activation::Tanh => ["tanh_fwd", "tanh_bwd"],
            Activation::Sigmoid => ["sigmoid_fwd", "sigmoid_bwd"],
            Activation::LeakyRelu(_) => ["leaky_relu_fwd", "leaky_relu_bwd"],
            Activation::Softplus => ["softplus_fwd", "softplus_bwd"],
        }
    }

    /// Its kernel, forward or backward, over these tensors.
    fn plan(self, entry: usize, tensors: &[&Tensor]) -> Plan {
        let (t, n) = (float(tensors[0]), tensors[0].numel());
        let mut plan = kernels::flat("activation.ptx", self.entries()[entry], t, n, aligned(tensors));
        if let Activation::LeakyRelu(slope) = self {
            plan.variant.settings.push(("SLOPE", i64::from(slope.to_bits()).into()));
        }
        plan
    }

    /// [`apply`](Activation::apply) on a GPU.
    pub(super) fn launch(self, gpu: &Gpu, x: &Tensor, y: &Tensor) {
        gpu.launch(self.plan(0, &[x, y]), &[at(x), at(y), n(x.numel())]);
    }

    /// [`pull_back`](Activation::pull_back) on a GPU.
    pub(super) fn launch_back(self, gpu: &Gpu, beta: f32, dx: &Tensor, v: &Tensor, dy: &Tensor) {
        gpu.launch(self.plan(1, &[v, dy, dx]), &[at(v), at(dy), at(dx), n(v.numel()), flag(beta != 0.0)]);
    }
}

impl Op for Activation {
    fn name(&self) -> &'static str {
        match self {
            Activation::GeluTanh => "gelu_tanh",
            Activation::GeluErf => "gelu_erf",
            Activation::Silu => "silu",
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::LeakyRelu(_) => "leaky_relu",
            Activation::Softplus => "softplus",
        }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.apply(x[0].cpu(), x[0].f32(), y[0].f32_mut());
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dy = dy[0].as_ref().expect("one result").f32();
        let v = if self.slope_of_result() { &y[0] } else { &x[0] };
        let mut dx = dx.out(0);
        let beta = dx.beta;
        self.pull_back(v.cpu(), beta, dx.f32_mut(), v.f32(), dy);
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, &x[0], &y[0]);
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
        let v = if self.slope_of_result() { &y[0] } else { &x[0] };
        let dx = dx.out(0);
        self.launch_back(gpu, dx.beta, &dx, v, dy[0].as_ref().expect("one result"));
    }

    fn launch_again(&self, gpu: &Gpu, _i: usize, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], out: &mut Out) {
        self.launch(gpu, &x[0], out);
    }

    fn jvp<'t>(&self, x: &[Var<'t>], y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let v = if self.slope_of_result() { y } else { x[0] };
        Some(dx[0]?.times_slope(*self, v))
    }

    fn reads(&self) -> Reads {
        let of_result = u8::from(self.slope_of_result());
        Reads { x: 1 - of_result, y: of_result, again: 1 - of_result }
    }

    fn again(&self, _i: usize, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], out: &mut Out) {
        self.apply(x[0].cpu(), x[0].f32(), out.f32_mut());
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        vec![Array64::from_fn(x[0].shape, |i| self.exact(x[0].data[i]))]
    }
}

impl<'t> Var<'t> {
    /// An activation of this value.
    pub fn activate(self, activation: Activation) -> Var<'t> {
        self.tape().apply(activation, &[self])
    }

    /// The GELU by its tanh approximation, as GPT-2 has it.
    pub fn gelu_tanh(self) -> Var<'t> {
        self.activate(Activation::GeluTanh)
    }

    /// The exact GELU.
    pub fn gelu_erf(self) -> Var<'t> {
        self.activate(Activation::GeluErf)
    }

    /// x · sigmoid(x).
    pub fn silu(self) -> Var<'t> {
        self.activate(Activation::Silu)
    }

    /// max(x, 0).
    pub fn relu(self) -> Var<'t> {
        self.activate(Activation::Relu)
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Var<'t> {
        self.activate(Activation::Tanh)
    }

    /// 1 / (1 + e⁻ˣ).
    pub fn sigmoid(self) -> Var<'t> {
        self.activate(Activation::Sigmoid)
    }

    /// x where it is above 0, else `slope` times x.
    pub fn leaky_relu(self, slope: f32) -> Var<'t> {
        self.activate(Activation::LeakyRelu(slope))
    }

    /// log(1 + eˣ).
    pub fn softplus(self) -> Var<'t> {
        self.activate(Activation::Softplus)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in Activation::FUSED.into_iter().chain(Activation::APART) {
        // Away from 0, where relu has its kink; ±0.02, ±0.06, … to ±8.
        let spread = |n: usize| {
            let value = |i: usize| (0.02 + 0.04 * (i / 2 % 200) as f32) * [1.0, -1.0][i % 2];
            Input { grad: true, ..Input::values([n], &(0..n).map(value).collect::<Vec<_>>()) }
        };
        let wide = |n: usize| Input { fill: Fill::Normal(0.0, 2.0), ..Input::normal([3, n]) };
        let several = if matches!(op, Activation::Relu | Activation::LeakyRelu(_)) { spread(30_003) } else { wide(10_001) };
        cases.push(Case::check(format!("{} from -8 to 8", op.name()), op, [spread(250)]));
        cases.push(Case::check(format!("{} odd, several tasks", op.name()), op, [several]));
        cases.push(Case::bench(format!("{} 4096x3072", op.name()), op, [Input::normal([4096, 3072])]));
    }
    cases
}
