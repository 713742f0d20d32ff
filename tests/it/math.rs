//! The transcendental functions against f64, on a dense sample of inputs; with `KILN_SOAK` set, on all 2³².
#![allow(clippy::print_stdout)]

use kiln::cpu::{Simd, math};
use rayon::prelude::*;

type Map = fn(Simd, &[f32], &mut [f32]);
type MapGrad = fn(Simd, &[f32], &mut [f32], &mut [f32]);

const BLOCK: u64 = 1 << 13;

/// The bit patterns to try: every 997th, and all in a neighbourhood of special values; or every one.
fn blocks() -> Vec<(u64, u64)> {
    let step = if std::env::var_os("KILN_SOAK").is_some() { 1 } else { 997 };
    let mut blocks: Vec<(u64, u64)> =
        (0..(1u64 << 32).div_ceil(step * BLOCK)).map(|b| (b * BLOCK * step, step)).collect();
    let special = [
        0.0,
        f32::MIN_POSITIVE,
        1.0,
        f32::INFINITY,
        f32::MAX,
        88.722_84,
        -87.336_54,
        -103.972_08,
        0.625,
        0.9375,
        4.0,
        9.01,
        3.92,
        std::f32::consts::SQRT_2,
        std::f32::consts::FRAC_1_SQRT_2,
        std::f32::consts::LN_2,
        10.0,
        20.0,
        12.0,
        -104.0,
        89.0,
        1e-20,
        0.5,
        2.0,
    ];
    for x in special {
        for x in [x, -x] {
            blocks.push((u64::from(x.to_bits()).saturating_sub(BLOCK / 2), 1));
        }
    }
    blocks
}

/// |y − exact| in units in the last place of `exact` as f32; infinity counts as 2¹²⁸.
fn ulps(y: f32, exact: f64) -> f64 {
    if y.is_nan() || exact.is_nan() {
        return if y.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if f64::from(y) == exact {
        return 0.0;
    }
    let finite = |v: f64| if v.is_infinite() { 2f64.powi(128).copysign(v) } else { v };
    let exact = finite(exact).clamp(-(2f64.powi(128)), 2f64.powi(128));
    let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).clamp(-126, 127);
    (finite(f64::from(y)) - exact).abs() / 2f64.powi(exponent - 23)
}

/// Compares at every level; gives the largest error and where it is.
fn check(name: &str, map: Map, exact: fn(f64) -> f64) {
    let levels = Simd::available();
    let (worst, at) = blocks()
        .par_iter()
        .map_init(
            || vec![vec![0f32; BLOCK as usize]; levels.len()],
            |ys, &(start, step)| {
                let x: Vec<f32> = (0..BLOCK)
                    .map(|i| start + i * step)
                    .take_while(|&b| b < 1 << 32)
                    .map(|b| f32::from_bits(b as u32))
                    .collect();
                let mut worst = (0.0, 0.0);
                for (level, y) in levels.iter().zip(ys.iter_mut()) {
                    map(*level, &x, &mut y[..x.len()]);
                }
                for (i, &x) in x.iter().enumerate() {
                    let y = ys[0][i];
                    for (level, other) in levels.iter().zip(ys.iter()) {
                        assert!(
                            other[i].to_bits() == y.to_bits() || other[i].is_nan() && y.is_nan(),
                            "{name}({x:e}): {y:e} on scalar, {:e} on {}",
                            other[i],
                            level.name()
                        );
                    }
                    let e = exact(f64::from(x));
                    let error = ulps(y, e);
                    assert!(error <= 2.0, "{name}({x:e}) = {y:e}, not {e:e}: {error} ulp");
                    assert!(y != 0.0 || y.is_sign_negative() == e.is_sign_negative(), "{name}({x:e}) has sign {y}");
                    if error > worst.0 {
                        worst = (error, x);
                    }
                }
                worst
            },
        )
        .reduce(|| (0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
    println!("{name}: at most {worst:.3} ulp, at {at:e}, on {} levels", levels.len());
}

#[test]
fn exp_is_within_2_ulp() {
    check("exp", math::map_exp, f64::exp);
}

#[test]
fn log_is_within_2_ulp() {
    check("log", math::map_log, |x| if x == 0.0 { f64::NEG_INFINITY } else { x.ln() });
}

#[test]
fn tanh_is_within_2_ulp() {
    check("tanh", math::map_tanh, f64::tanh);
}

#[test]
fn erf_is_within_2_ulp() {
    check("erf", math::map_erf, libm::erf);
}

fn phi(x: f64) -> f64 {
    0.5 * libm::erfc(-x / 2f64.sqrt())
}

fn gelu_tanh(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    x / (1.0 + (-2.0 * u).exp())
}

/// Values from −30 to 30, and those that tend to go wrong.
fn activation_inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (-30_000..=30_000).map(|i| i as f32 * 1e-3).collect();
    x.extend([0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, f32::MAX, f32::MIN, 1e-20, -1e-20, f32::NAN]);
    x
}

/// |y − exact| ≤ relative · |exact| + absolute, and the same bits at every level.
fn check_activation(name: &str, map: Map, exact: fn(f64) -> f64, relative: f64, absolute: f64) {
    let x = activation_inputs();
    let ys = Simd::available().into_iter().map(|level| {
        let mut y = vec![0.0; x.len()];
        map(level, &x, &mut y);
        y
    });
    let mut scalar: Option<Vec<f32>> = None;
    for y in ys {
        for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
            let e = exact(f64::from(x));
            let same = scalar.as_ref().is_none_or(|s| s[i].to_bits() == y.to_bits() || y.is_nan() && s[i].is_nan());
            assert!(same, "{name}({x:e}): the levels differ");
            let close = if e.is_nan() { y.is_nan() } else { (f64::from(y) - e).abs() <= relative * e.abs() + absolute };
            assert!(close, "{name}({x:e}) = {y:e}, not {e:e}");
        }
        scalar.get_or_insert(y);
    }
}

#[test]
fn activations_are_what_they_should_be() {
    check_activation("sigmoid", math::map_sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7, 1e-38);
    check_activation("silu", math::map_silu, |x| x / (1.0 + (-x).exp()), 3e-7, 1e-36);
    check_activation("gelu_tanh", math::map_gelu_tanh, gelu_tanh, 1e-5, 1e-36);
    check_activation("gelu_erf", math::map_gelu_erf, |x| x * phi(x), 3e-7, 1e-6);
}

#[test]
fn derivatives_match_the_f64_ones() {
    fn slope(f: fn(f64) -> f64, x: f64) -> f64 {
        let h = 1e-4;
        // Fourth order; the functions are smooth.
        (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
    }
    type Case = (&'static str, MapGrad, Map, fn(f64) -> f64);
    let cases: [Case; 3] = [
        ("silu", math::map_silu_grad, math::map_silu, |x| x / (1.0 + (-x).exp())),
        ("gelu_tanh", math::map_gelu_tanh_grad, math::map_gelu_tanh, gelu_tanh),
        ("gelu_erf", math::map_gelu_erf_grad, math::map_gelu_erf, |x| x * phi(x)),
    ];
    let x = activation_inputs();
    for (name, grad, value, f) in cases {
        let mut bits: Option<Vec<u32>> = None;
        for level in Simd::available() {
            let (mut y, mut g, mut alone) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
            grad(level, &x, &mut y, &mut g);
            value(level, &x, &mut alone);
            for i in 0..x.len() {
                if x[i].is_nan() {
                    assert!(y[i].is_nan() && g[i].is_nan());
                    continue;
                }
                let e = if x[i].abs() > 1e3 { f64::from(u8::from(x[i] > 0.0)) } else { slope(f, f64::from(x[i])) };
                assert!((f64::from(g[i]) - e).abs() <= 5e-7, "{name}'({:e}) = {:e}, not {e:e}", x[i], g[i]);
                let close = (y[i] - alone[i]).abs() <= 3e-7 * alone[i].abs() + 1e-36;
                assert!(close, "{name}({:e}): {:e} with the derivative, {:e} alone", x[i], y[i], alone[i]);
            }
            let now: Vec<u32> = y.iter().chain(&g).map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect();
            assert!(*bits.get_or_insert_with(|| now.clone()) == now, "{name}: {} gives other bits", level.name());
        }
    }
}
