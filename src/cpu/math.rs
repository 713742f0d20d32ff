//! Transcendental functions and activations over the vector trait: kiln's own, so that every level gives the same bits.
//!
//! exp, log, tanh and erf are within 2 ulp of the exact value on all f32 inputs, subnormal ones and results included, keep
//! the sign of zero and pass NaN on; `tests/soak.sh` tries all 2³² inputs. Only exactly rounded operations are used. The
//! polynomials are made by `tests/reference/minimax.py`.

use super::{Bits, Vector};
use std::f32::consts::{LOG2_E, SQRT_2};

/// ln 2 in 15 bits, so that its product with an exponent is exact, and the rest.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// exp(r) = 1 + r + r² p(r) for |r| ≤ ln 2 / 2.
const EXP: [f32; 5] = [0.49999994, 0.16666521, 0.041668274, 0.008368684, 0.001382008];
/// log(1 + f) = f − f²/2 + f³ p(f) for 1 + f from √½ to √2.
const LOG: [f32; 8] = [0.3333333, -0.2500082, 0.20001242, -0.16623409, 0.1420158, -0.1315961, 0.12762217, -0.07636439];
/// tanh(a) = a + a³ p(a²) for a ≤ [`TANH_EDGE`].
const TANH: [f32; 5] = [-0.3333328, 0.13331406, -0.053736515, 0.020628167, -0.005692296];
const TANH_EDGE: f32 = 0.625;
/// erf(a) = a + a p(a²) for a ≤ [`ERF_EDGE`].
const ERF_SMALL: [f32; 7] =
    [0.12837917, -0.3761263, 0.11283626, -0.026855737, 0.005192438, -0.00080503843, 8.000279e-5];
/// erf(a) = 1 − exp(p(a)) for a from [`ERF_EDGE`] to 4, where erf has long been 1 in f32.
const ERF_LARGE: [f32; 7] =
    [-0.00022350367, -1.1275613, -0.6373736, -0.10376453, 0.022146784, -0.0030232058, 0.00019390571];
const ERF_EDGE: f32 = 0.9375;
/// artanh(s) = s + s³ p(s²) for s from 0 to 1/3.
const ARTANH: [f32; 7] = [1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0];

/// c₀ + c₁x + c₂x² + …
#[inline(always)]
fn poly<V: Vector, const N: usize>(x: V, c: [f32; N]) -> V {
    let mut sum = V::splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = sum.fma(x, V::splat(c[i]));
    }
    sum
}

/// `x` held between `low` and `high`; NaN stays.
#[inline(always)]
fn clamp<V: Vector>(x: V, low: f32, high: f32) -> V {
    V::splat(low).max(V::splat(high).min(x))
}

/// x = n ln 2 + r and exp(x) = exp(r) · 2ⁿ: exp(r) and n. For |x| < 2²² (and NaN). Each operation waits for the one before it,
/// so those of several registers are interleaved.
#[inline(always)]
fn exp_parts<V: Vector, const N: usize>(x: [V; N]) -> ([V; N], [V; N]) {
    // Adding 1.5 · 2²³ rounds to an integer.
    let magic = V::splat(12_582_912.0);
    let (mut n, mut r, mut p) = (x, x, [V::splat(EXP[EXP.len() - 1]); N]);
    for n in &mut n {
        *n = n.fma(V::splat(LOG2_E), magic) - magic;
    }
    for i in 0..N {
        r[i] = (-n[i]).fma(V::splat(LN2_HIGH), r[i]);
    }
    for i in 0..N {
        r[i] = (-n[i]).fma(V::splat(LN2_LOW), r[i]);
    }
    for c in EXP[..EXP.len() - 1].iter().rev() {
        for i in 0..N {
            p[i] = p[i].fma(r[i], V::splat(*c));
        }
    }
    for i in 0..N {
        p[i] = p[i].fma(r[i] * r[i], r[i]) + V::splat(1.0);
    }
    (p, n)
}

/// [`exp`] for x from −87 to 88 (and NaN).
#[inline(always)]
fn exp_normal<V: Vector, const N: usize>(x: [V; N]) -> [V; N] {
    let (mut p, n) = exp_parts(x);
    for i in 0..N {
        p[i] = p[i].ldexp_normal(n[i]);
    }
    p
}

/// eˣ; overflows to ∞, underflows through the subnormal numbers to 0.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let [y] = exp_each([x]);
    y
}

/// [`exp`] of several registers, which is faster than one by one, and fastest where all numbers are from −87 to 87.
#[inline(always)]
pub fn exp_each<V: Vector, const N: usize>(x: [V; N]) -> [V; N] {
    let mut largest = V::splat(0.0);
    for x in x {
        // Passes over NaN.
        largest = x.abs().max(largest);
    }
    if V::all(V::splat(87.0).gt(largest)) {
        return exp_normal(x);
    }
    let mut held = x;
    for x in &mut held {
        *x = clamp(*x, -104.0, 89.0);
    }
    let (mut p, n) = exp_parts(held);
    for i in 0..N {
        // A product that underflows costs a hundred times one with 0, and −∞ is common: masked scores.
        p[i] = V::splat(0.0).select(V::splat(-104.0).gt(x[i]), p[i]).ldexp(n[i]);
    }
    p
}

/// The natural logarithm; log(±0) = −∞, NaN below.
#[inline(always)]
pub fn log<V: Vector>(x: V) -> V {
    let tiny = V::splat(f32::MIN_POSITIVE).gt(x);
    let normal = (x * V::splat(8_388_608.0)).select(tiny, x);
    let bias = V::splat(-23.0).select(tiny, V::splat(0.0));
    // normal = 2ᵉ (1 + f) with 1 + f from √½ to √2.
    let offset = V::splat(std::f32::consts::FRAC_1_SQRT_2).bits();
    let e = normal.bits().sub(offset).shr::<23>();
    let f = V::from_bits(normal.bits().sub(e.shl::<23>())) - V::splat(1.0);
    let magic = V::splat(12_582_912.0);
    let e = (V::from_bits(magic.bits().add(e)) - magic) + bias;
    let ff = f * f;
    // The small terms first: f + (e·ln2_low − f²/2 + f³ p), then e·ln2_high.
    let small = (poly(f, LOG) * f).fma(ff, e * V::splat(LN2_LOW));
    let small = ff.fma(V::splat(-0.5), small);
    let y = e.fma(V::splat(LN2_HIGH), f + small);
    let y = y.select(V::splat(f32::INFINITY).gt(x), x);
    y.select(x.gt(V::splat(0.0)), log_of_none(x))
}

/// log(x) where `x > 0` is false: −∞ for ±0, NaN for the rest.
#[inline(always)]
fn log_of_none<V: Vector>(x: V) -> V {
    let nan = V::splat(f32::NAN);
    nan.select(x.is_nan(), nan.select(x.abs().gt(V::splat(0.0)), V::splat(f32::NEG_INFINITY)))
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<V: Vector>(x: V) -> V {
    let (a, one) = (x.abs(), V::splat(1.0));
    let z = a * a;
    let small = poly(z, TANH).fma(a * z, a);
    let [e] = exp_normal([V::splat(20.0).min(a + a)]);
    let large = one - V::splat(2.0) / (e + one);
    large.select(a.gt(V::splat(TANH_EDGE)), small).copysign(x)
}

/// The error function 2/√π ∫₀ˣ exp(−t²) dt.
#[inline(always)]
pub fn erf<V: Vector>(x: V) -> V {
    let a = V::splat(4.0).min(x.abs());
    let small = poly(a * a, ERF_SMALL).fma(a, a);
    let [e] = exp_normal([poly(a, ERF_LARGE)]);
    let large = V::splat(1.0) - e;
    large.select(a.gt(V::splat(ERF_EDGE)), small).copysign(x)
}

/// sigmoid(x) and 1 − sigmoid(x), each with small relative error, given e = e⁻ˣ.
#[inline(always)]
fn sigmoid_pair<V: Vector>(e: V) -> (V, V) {
    let one = V::splat(1.0);
    let s = one / (one + e);
    // ∞ · 0 is NaN, and `min` makes it 1.
    (s, (e * s).min(one))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    V::splat(1.0) / (V::splat(1.0) + exp(-x))
}

/// log(1 + e) = 2 artanh(s), s = e / (2 + e), for e from 0 to 1: s + s³/3 + s⁵/5 + …, s at most 1/3.
#[inline(always)]
pub fn log1p_unit<V: Vector>(e: V) -> V {
    let s = e / (e + V::splat(2.0));
    let (z, twice) = (s * s, s + s);
    (poly(z, ARTANH) * z).fma(twice, twice)
}

/// log(1 + eˣ), which is max(x, 0) + log(1 + e^−|x|); its derivative is [`sigmoid`].
#[inline(always)]
pub fn softplus<V: Vector>(x: V) -> V {
    x.max(V::splat(0.0)) + log1p_unit(exp(-x.abs()))
}

/// x · sigmoid(x), also called swish.
#[inline(always)]
pub fn silu<V: Vector>(x: V) -> V {
    x / (V::splat(1.0) + exp(-x))
}

/// [`silu`] and its derivative s (1 + x (1 − s)), s = sigmoid(x).
#[inline(always)]
pub fn silu_grad<V: Vector>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    let (s, rest) = sigmoid_pair(exp(-x));
    (x * s, x.fma(rest, one) * s)
}

/// The second derivative of [`silu`]: s r (2 + x (r − s)), r = 1 − s.
#[inline(always)]
pub fn silu_bend<V: Vector>(x: V) -> V {
    let (s, rest) = sigmoid_pair(exp(-x));
    x.fma(rest - s, V::splat(2.0)) * s * rest
}

/// √(2/π) and √(2/π) · 0.044715, both doubled: the GELU's inner polynomial as the argument of a sigmoid.
const GELU_1: f32 = 1.595_769;
const GELU_3: f32 = 0.071_354_816;
/// Beyond ±12 the GELU is x or 0 in f32, and its derivative 1 or 0.
const GELU_EDGE: f32 = 12.0;

/// ½x (1 + tanh(√(2/π) (x + 0.044715 x³))), computed as x · sigmoid of twice the argument, which keeps the negative tail.
#[inline(always)]
pub fn gelu_tanh<V: Vector>(x: V) -> V {
    let c = clamp(x, -GELU_EDGE, GELU_EDGE);
    let u = (c * c).fma(V::splat(-GELU_3), V::splat(-GELU_1)) * c;
    x / (V::splat(1.0) + exp(u))
}

/// [`gelu_tanh`] and its derivative s + x s (1 − s) u′, s = sigmoid(u), u = 2√(2/π) (x + 0.044715 x³).
#[inline(always)]
pub fn gelu_tanh_grad<V: Vector>(x: V) -> (V, V) {
    let c = clamp(x, -GELU_EDGE, GELU_EDGE);
    let cc = c * c;
    let u = cc.fma(V::splat(-GELU_3), V::splat(-GELU_1)) * c;
    let (s, rest) = sigmoid_pair(exp(u));
    let du = cc.fma(V::splat(3.0 * GELU_3), V::splat(GELU_1));
    (x * s, (c * s * rest).fma(du, s))
}

/// The second derivative of [`gelu_tanh`]: s r (2u′ + x ((r − s) u′² + u″)), r = 1 − s.
#[inline(always)]
pub fn gelu_tanh_bend<V: Vector>(x: V) -> V {
    let c = clamp(x, -GELU_EDGE, GELU_EDGE);
    let cc = c * c;
    let u = cc.fma(V::splat(-GELU_3), V::splat(-GELU_1)) * c;
    let (s, rest) = sigmoid_pair(exp(u));
    let du = cc.fma(V::splat(3.0 * GELU_3), V::splat(GELU_1));
    let inner = ((rest - s) * du).fma(du, c * V::splat(6.0 * GELU_3));
    inner.fma(c, du + du) * s * rest
}

/// x Φ(x) = ½x (1 + erf(x/√2)).
#[inline(always)]
pub fn gelu_erf<V: Vector>(x: V) -> V {
    let half = x * V::splat(0.5);
    erf(x * V::splat(0.5 * SQRT_2)).fma(half, half)
}

/// [`gelu_erf`] and its derivative Φ(x) + x φ(x), φ the normal density.
#[inline(always)]
pub fn gelu_erf_grad<V: Vector>(x: V) -> (V, V) {
    let half = V::splat(0.5);
    let cdf = erf(x * V::splat(0.5 * SQRT_2)).fma(half, half);
    let c = clamp(x, -GELU_EDGE, GELU_EDGE);
    let density = exp(c * c * V::splat(-0.5)) * V::splat(0.398_942_3);
    (x * cdf, c.fma(density, cdf))
}

/// The second derivative of [`gelu_erf`]: φ(x) (2 − x²).
#[inline(always)]
pub fn gelu_erf_bend<V: Vector>(x: V) -> V {
    let c = clamp(x, -GELU_EDGE, GELU_EDGE);
    let density = exp(c * c * V::splat(-0.5)) * V::splat(0.398_942_3);
    density * (V::splat(2.0) - c * c)
}

/// sin(a) = a + a³ p(a²) and cos(a) = 1 + a² p(a²) for |a| ≤ π/4.
const SIN: [f32; 4] = [-1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0];
const COS: [f32; 4] = [-0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0];

/// Two numbers from N(0, 1) from two random ones, by the Box-Muller transform: [`Stream::normal`](crate::rng::Stream::normal)
/// says which. Every operation is exactly rounded, so that kernels for a GPU draw the same bits.
#[inline(always)]
pub fn normal_pair<V: Vector>(a: V::Bits, b: V::Bits) -> (V, V) {
    let splat = V::Bits::splat;
    let u = V::splat(2.0) - one_to_two::<V>(a.shr::<9>());
    // u = 2ᵉ (1 + f) with 1 + f from √½ to √2; log(1 + f) = 2 artanh(s).
    let e = u.bits().sub(splat(0x3f35_04f3)).shr::<23>();
    let f = V::from_bits(u.bits().sub(e.shl::<23>())) - V::splat(1.0);
    let magic = V::splat(12_582_912.0);
    let e = V::from_bits(magic.bits().add(e)) - magic;
    let s = f / (f + V::splat(2.0));
    let (z, twice) = (s * s, s + s);
    let log = e.fma(V::splat(std::f32::consts::LN_2), (poly(z, ARTANH) * z).fma(twice, twice));
    let radius = (log * V::splat(-2.0)).sqrt();
    let g = (one_to_two::<V>(b.shr::<7>()) - V::splat(1.5)) * V::splat(std::f32::consts::FRAC_PI_2);
    let z = g * g;
    let (sin, cos) = ((poly(z, SIN) * z).fma(g, g), poly(z, COS).fma(z, V::splat(1.0)));
    // The quadrant swaps sine and cosine, and turns their signs.
    let odd = V::from_bits(b.and(splat(0x4000_0000)).or(splat(0x3f00_0000))).gt(V::splat(1.0));
    let (x, y) = (sin.select(odd, cos) * radius, cos.select(odd, sin) * radius);
    (x * sign::<V>(b.add(splat(0x4000_0000))), y * sign::<V>(b))
}

/// 1 to 2 by the lowest 23 bits.
#[inline(always)]
fn one_to_two<V: Vector>(x: V::Bits) -> V {
    V::from_bits(x.and(V::Bits::splat(0x7f_ffff)).or(V::splat(1.0).bits()))
}

/// −1 where the highest bit is set, else 1.
#[inline(always)]
fn sign<V: Vector>(x: V::Bits) -> V {
    V::from_bits(x.and(V::Bits::splat(i32::MIN)).or(V::splat(1.0).bits()))
}

/// y = f(x), element by element.
///
/// # Panics
/// The lengths differ.
#[inline(always)]
pub fn map<V: Vector>(x: &[f32], y: &mut [f32], f: impl Fn(V) -> V) {
    assert_eq!(x.len(), y.len());
    let (mut xs, mut ys) = (x.chunks_exact(V::W), y.chunks_exact_mut(V::W));
    for (x, y) in (&mut xs).zip(&mut ys) {
        f(V::load(x)).store(y);
    }
    if !xs.remainder().is_empty() {
        f(V::load_partial(xs.remainder())).store_partial(ys.into_remainder());
    }
}

/// y = f(x) and g = f′(x), element by element, where f gives both.
///
/// # Panics
/// The lengths differ.
#[inline(always)]
pub fn map_grad<V: Vector>(x: &[f32], y: &mut [f32], g: &mut [f32], f: impl Fn(V) -> (V, V)) {
    assert!(x.len() == y.len() && x.len() == g.len());
    let mut i = 0;
    while i + V::W <= x.len() {
        let (value, slope) = f(V::load(&x[i..]));
        value.store(&mut y[i..]);
        slope.store(&mut g[i..]);
        i += V::W;
    }
    if i < x.len() {
        let (value, slope) = f(V::load_partial(&x[i..]));
        value.store_partial(&mut y[i..]);
        slope.store_partial(&mut g[i..]);
    }
}

macro_rules! over_slices {
    ($($name:ident $body:ident = $f:ident),*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(x: &[f32], y: &mut [f32]) {
            // A closure, since the shim that calls a named function is not inlined by force.
            map(x, y, #[inline(always)] |x: V| $f(x));
        }
        crate::simd_fn! {
            #[doc = concat!("y = ", stringify!($f), "(x), element by element; see [`", stringify!($f), "`].")]
            pub fn $name(x: &[f32], y: &mut [f32]) = $body
        }
    )*};
}
over_slices!(
    map_exp exp_body = exp,
    map_log log_body = log,
    map_tanh tanh_body = tanh,
    map_erf erf_body = erf,
    map_sigmoid sigmoid_body = sigmoid,
    map_silu silu_body = silu,
    map_softplus softplus_body = softplus,
    map_gelu_tanh gelu_tanh_body = gelu_tanh,
    map_gelu_erf gelu_erf_body = gelu_erf
);

macro_rules! over_slices_grad {
    ($($name:ident $body:ident = $f:ident),*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(x: &[f32], y: &mut [f32], g: &mut [f32]) {
            map_grad(x, y, g, #[inline(always)] |x: V| $f(x));
        }
        crate::simd_fn! {
            #[doc = concat!("The value in y and the derivative in g, element by element; see [`", stringify!($f), "`].")]
            pub fn $name(x: &[f32], y: &mut [f32], g: &mut [f32]) = $body
        }
    )*};
}
over_slices_grad!(
    map_silu_grad silu_grad_body = silu_grad,
    map_gelu_tanh_grad gelu_tanh_grad_body = gelu_tanh_grad,
    map_gelu_erf_grad gelu_erf_grad_body = gelu_erf_grad
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;

    crate::simd_fn! { fn exp_of_64(x: &[f32; 64], y: &mut [f32; 64]) = exp_of_64_body }
    #[inline(always)]
    fn exp_of_64_body<V: Vector>(x: &[f32; 64], y: &mut [f32; 64]) {
        for i in (0..64).step_by(4 * V::W) {
            let at = [i, i + V::W, i + 2 * V::W, i + 3 * V::W];
            let values =
                exp_each([V::load(&x[at[0]..]), V::load(&x[at[1]..]), V::load(&x[at[2]..]), V::load(&x[at[3]..])]);
            for (value, at) in values.iter().zip(at) {
                value.store(&mut y[at..]);
            }
        }
    }

    #[test]
    fn the_exponential_of_a_number_does_not_depend_on_its_neighbours() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let special = [inf, -inf, nan, 88.5, 89.5, 86.9, 87.1, -86.9, -87.1, -87.4, -95.0, -103.9, -104.1, 1e30, -1e30];
        for simd in Simd::available() {
            for shift in 0..64 {
                // Each pair of special values meets in a lane, and each is alone among usual ones.
                for stride in 1..=special.len() {
                    let at = |i: usize| i + shift < 64 && i.is_multiple_of(stride);
                    let x =
                        std::array::from_fn(|i| if at(i) { special[(i + shift) % special.len()] } else { i as f32 });
                    let (mut y, mut alone) = ([0.0; 64], [0.0; 64]);
                    exp_of_64(simd, &x, &mut y);
                    for i in 0..64 {
                        exp_of_64(simd, &[x[i]; 64], &mut alone);
                        let same = y[i].to_bits() == alone[0].to_bits() || y[i].is_nan() && alone[0].is_nan();
                        assert!(same, "exp({}) is {} beside {x:?}: {}", x[i], y[i], simd.name());
                    }
                }
            }
        }
    }
}
