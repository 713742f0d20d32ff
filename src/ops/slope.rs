//! The slope of an activation at some place, times d: `y = f′(v) · d`, element by element: how f(x) changes as x moves
//! along d.
//!
//! v is x, or f(x) for tanh and sigmoid, as in [`activation`](super::activation). Backward: `dd = dy · f′(v)`, and
//! `dv = dy · d · df′/dv`:
//!
//! ```text
//! tanh       −2y                    softplus   s r                           s = σ(x), r = 1 − s
//! sigmoid    1 − 2y                 silu       s r (2 + x (r − s))
//! gelu_erf   φ(x) (2 − x²)          gelu_tanh  s r (2u′ + x ((r − s) u′² + u″))   s = σ(u), u = 2√(2/π) (x + 0.044715 x³)
//! ```
//! and nothing for ReLUs, whose slope changes only where it jumps.

use super::activation::Activation;
use super::{Case, Input};
use crate::cpu::elementwise::{CHUNK, accumulate};
use crate::cpu::{Simd, Vector, chunks, math};
use crate::device::{Gpu, kernels};
use crate::launch::{aligned, at, flag, float, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};

/// Times the slope of this. Inputs: v and d, of one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope(pub Activation);

/// Defines kernels `dv = beta dv + dy · d · bend(v)`.
macro_rules! bends {
    ($($name:ident $body:ident = |$v:ident| $bend:expr;)*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(beta: f32, dv: &mut [f32], v: &[f32], d: &[f32], dy: &[f32]) {
            accumulate::<V>(beta, dv, #[inline(always)] |i, w| {
                let $v = V::at(&v[i..], w);
                V::at(&dy[i..], w) * V::at(&d[i..], w) * $bend
            });
        }
        simd_fn! {
            fn $name(beta: f32, dv: &mut [f32], v: &[f32], d: &[f32], dy: &[f32]) = $body
        }
    )*};
}
bends! {
    gelu_tanh gelu_tanh_body = |x| math::gelu_tanh_bend(x);
    gelu_erf gelu_erf_body = |x| math::gelu_erf_bend(x);
    silu silu_body = |x| math::silu_bend(x);
    softplus softplus_body = |x| math::sigmoid(x) * math::sigmoid(-x);
    tanh tanh_body = |y| -(y + y);
    sigmoid sigmoid_body = |y| V::splat(1.0) - (y + y);
}

type Bend = fn(Simd, f32, &mut [f32], &[f32], &[f32], &[f32]);

impl Slope {
    /// The kernels of the derivative of f′, on the CPU and on a GPU; none for straight pieces.
    fn bend(self) -> Option<(Bend, &'static str)> {
        match self.0 {
            Activation::GeluTanh => Some((gelu_tanh, "gelu_tanh_bend")),
            Activation::GeluErf => Some((gelu_erf, "gelu_erf_bend")),
            Activation::Silu => Some((silu, "silu_bend")),
            Activation::Softplus => Some((softplus, "softplus_bend")),
            Activation::Tanh => Some((tanh, "tanh_bend")),
            Activation::Sigmoid => Some((sigmoid, "sigmoid_bend")),
            Activation::Relu | Activation::LeakyRelu(_) => None,
        }
    }
}

impl Op for Slope {
    fn name(&self) -> &'static str {
        "slope"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert_eq!(x[0], x[1], "slope: the inputs differ");
        Specs::from_iter([x[1]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.0.pull_back(x[0].cpu(), 0.0, y[0].f32_mut(), x[0].f32(), x[1].f32());
        Tensors::new()
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (cpu, dy) = (x[0].cpu(), dy[0].as_ref().expect("one result").f32());
        let v = x[0].f32();
        if let Some((bend, _)) = self.bend().filter(|_| dx.wants(0)) {
            let (d, mut dv) = (x[1].f32(), dx.out(0));
            let beta = dv.beta;
            cpu.threads.each(chunks(dv.f32_mut(), CHUNK), |i, dv| {
                let range = i * CHUNK..i * CHUNK + dv.len();
                bend(cpu.simd, beta, dv, &v[range.clone()], &d[range.clone()], &dy[range]);
            });
        }
        if dx.wants(1) {
            let mut dd = dx.out(1);
            let beta = dd.beta;
            self.0.pull_back(cpu, beta, dd.f32_mut(), v, dy);
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.0.launch_back(gpu, 0.0, &y[0], &x[0], &x[1]);
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
        if let Some((_, entry)) = self.bend().filter(|_| dx.wants(0)) {
            let dv = dx.out(0);
            let plan = kernels::flat("slope.ptx", entry, float(dy), dy.numel(), aligned(&[&x[0], &x[1], dy, &dv]));
            let args = [at(&x[0]), at(&x[1]), at(dy), at(&dv), n(dy.numel()), flag(dv.beta != 0.0)];
            gpu.launch(plan, &args);
        }
        if dx.wants(1) {
            let dd = dx.out(1);
            self.0.launch_back(gpu, dd.beta, &dd, &x[0], dy);
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: if self.bend().is_some() { 0b11 } else { 0b01 }, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        vec![Array64::from_fn(x[0].shape, |i| self.0.exact_slope(x[0].data[i]) * x[1].data[i])]
    }
}

impl<'t> Var<'t> {
    /// This value times the slope of an activation f at v: x, or f(x) for tanh and sigmoid.
    pub fn times_slope(self, f: Activation, v: Var<'t>) -> Var<'t> {
        self.tape().apply(Slope(f), &[v, self])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for f in Activation::FUSED.into_iter().chain(Activation::APART) {
        // ±0.02, ±0.06, … to ±8; to ±0.98 for what is a result.
        let step = if matches!(f, Activation::Tanh | Activation::Sigmoid) { 0.00245 } else { 0.02 };
        let inputs = |n: usize| {
            let value = |i: usize| step * (1 + 2 * (i / 2 % 200)) as f32 * [1.0, -1.0][i % 2];
            let v = Input { grad: true, ..Input::values([n], &(0..n).map(value).collect::<Vec<_>>()) };
            [v, Input::normal([n])]
        };
        let op = Slope(f);
        cases.push(Case::check(format!("{} 250", f.name()), op, inputs(250)));
        cases.push(Case::check(format!("{} odd, several tasks", f.name()), op, inputs(20_003)));
        cases.push(Case::bench(format!("{} 4096x1024", f.name()), op, [Input::normal([4096, 1024]), Input::normal([4096, 1024])]));
    }
    cases
}
