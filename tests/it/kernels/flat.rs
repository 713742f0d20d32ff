//! Kernels that do the same with each element.

use super::*;
use kiln::device::kernels::{adamw, cast, clip, flat, partial_sums};

/// Lengths, and whether accesses are vectors.
const LENGTHS: [(usize, bool); 4] = [(1, true), (8, true), (1003, true), (1003, false)];

#[test]
fn arithmetic_is_that_of_f64_rounded() {
    type F = fn(f64, f64) -> f64;
    let binary: [(&str, F); 3] = [("add_fwd", |a, b| a + b), ("sub_fwd", |a, b| a - b), ("mul_fwd", |a, b| a * b)];
    for (t, (len, aligned)) in TYPES.into_iter().flat_map(|t| LENGTHS.map(|l| (t, l))) {
        let bench = Bench::new();
        let plan = |entry| flat("elementwise.ptx", entry, t, len, aligned);
        let (a, b, old) = (normal(1, len, 1.0), normal(2, len, 1.0), normal(3, len, 1.0));
        let (ra, rb, ro) = (round(t, &a), round(t, &b), round(t, &old));
        let (pa, pb) = (bench.put_as(t, &a), bench.put_as(t, &b));
        for add in [0u32, 1] {
            let check = |what: &str, y: Ptr, f: &dyn Fn(usize) -> f64| {
                let want: Vec<f64> = (0..len).map(|i| f(i) + f64::from(add) * ro[i]).collect();
                close(&format!("{what} {t:?} {len}"), &bench.get_as(t, y, len), &want, bound(t));
            };
            for (entry, f) in binary {
                let y = bench.result(t, &old, add);
                bench.run(&plan(entry), &[pa.into(), pb.into(), y.into(), n(len), add.into()]);
                check(entry, y, &|i| f(ra[i], rb[i]));
            }
            let y = bench.result(t, &old, add);
            bench.run(&plan("scale_fwd"), &[pa.into(), y.into(), n(len), (-1.7f32).into(), add.into()]);
            check("scale", y, &|i| -1.7 * ra[i]);
        }
        let (y, s) = (bench.put_as(t, &old), bench.put(&[0.5f32]));
        bench.run(&plan("add_scaled"), &[pa.into(), y.into(), n(len), 3.0f32.into(), s.into()]);
        let want: Vec<f64> = ra.iter().zip(&ro).map(|(a, o)| 1.5 * a + o).collect();
        close("add_scaled", &bench.get_as(t, y, len), &want, bound(t));
        let y = bench.room_for(t, len);
        bench.run(&plan("fill"), &[y.into(), n(len), 3.0f32.into()]);
        close("fill", &bench.get_as(t, y, len), &vec![3.0; len], 0.0);
    }
}

#[test]
fn few_blocks_go_over_many_elements() {
    let (bench, len) = (Bench::new(), 5003);
    let x = normal(1, len, 1.0);
    let (px, y) = (bench.put(&x), bench.room(4 * len));
    let plan = with_grid(flat("elementwise.ptx", "scale_fwd", Float::F32, len, true), 2);
    bench.run(&plan, &[px.into(), y.into(), n(len), 2.0f32.into(), 0u32.into()]);
    assert!(bench.get::<f32>(y, len).iter().zip(&x).all(|(y, x)| *y == 2.0 * x));
}

const ACTIVATIONS: [[&str; 3]; 6] = [
    ["gelu_tanh", "gelu_tanh_fwd", "gelu_tanh_bwd"],
    ["gelu_erf", "gelu_erf_fwd", "gelu_erf_bwd"],
    ["silu", "silu_fwd", "silu_bwd"],
    ["relu", "relu_fwd", "relu_bwd"],
    ["tanh", "tanh_fwd", "tanh_bwd"],
    ["sigmoid", "sigmoid_fwd", "sigmoid_bwd"],
];

/// An activation in f64.
pub fn exact(f: &str, x: f64) -> f64 {
    match f {
        "gelu_tanh" => 0.5 * x * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)))),
        "gelu_erf" => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        "silu" => x / (1.0 + libm::exp(-x)),
        "relu" => x.max(0.0),
        "tanh" => libm::tanh(x),
        "sigmoid" => 1.0 / (1.0 + libm::exp(-x)),
        _ => x,
    }
}

#[test]
fn activations_and_their_slopes_are_exact_to_their_type() {
    let len = 1003;
    for ([f, forward, backward], t) in ACTIVATIONS.into_iter().flat_map(|f| TYPES.map(|t| (f, t))) {
        let bench = Bench::new();
        let mut x = normal(1, len, 3.0);
        x[..5].copy_from_slice(&[90.0, -90.0, -0.01, -70.3, -47.7]);
        let dy = normal(2, len, 1.0);
        let (rx, rdy) = (round(t, &x), round(t, &dy));
        let (px, pdy, y) = (bench.put_as(t, &x), bench.put_as(t, &dy), bench.room_for(t, len));
        bench.run(&flat("activation.ptx", forward, t, len, true), &[px.into(), y.into(), n(len)]);
        let got = bench.get_as(t, y, len);
        // In f32, where exp alone makes the error, it is small beside the smallest results too.
        let (relative, least) = match (t, f) {
            (Float::F32, "silu" | "sigmoid" | "tanh") => (6e-7, 1e-37),
            _ => (1.1 * bound(t), 1e-7),
        };
        for (x, y) in rx.iter().zip(&got) {
            let want = exact(f, *x);
            assert!((y - want).abs() <= relative * want.abs() + least, "{f}({x}) in {t:?}: {y}, not {want}");
        }
        let of_result = f == "tanh" || f == "sigmoid";
        let slope = |i: usize| match f {
            "tanh" => 1.0 - got[i] * got[i],
            "sigmoid" => got[i] * (1.0 - got[i]),
            "relu" => f64::from(u8::from(rx[i] > 0.0)),
            _ => (exact(f, rx[i] + 1e-5) - exact(f, rx[i] - 1e-5)) / 2e-5,
        };
        for add in [0u32, 1] {
            let dx = bench.result(t, &x, add);
            let v = if of_result { y } else { px };
            let args = [v.into(), pdy.into(), dx.into(), n(len), add.into()];
            bench.run(&flat("activation.ptx", backward, t, len, true), &args);
            let want: Vec<f64> = (0..len).map(|i| slope(i) * rdy[i] + f64::from(add) * rx[i]).collect();
            close(&format!("slope of {f} in {t:?}"), &bench.get_as(t, dx, len), &want, bound(t));
        }
    }
}

#[test]
fn activations_pass_nan_on() {
    for [f, forward, _] in ACTIVATIONS {
        let bench = Bench::new();
        let (x, y) = (bench.put(&[f32::NAN]), bench.room(4));
        bench.run(&flat("activation.ptx", forward, Float::F32, 1, true), &[x.into(), y.into(), n(1)]);
        let y = bench.get::<f32>(y, 1)[0];
        // As on the CPU, where relu is max(x, 0).
        assert!(if f == "relu" { y == 0.0 } else { y.is_nan() }, "{f}(NaN) = {y}");
    }
}

#[test]
fn swiglu_and_its_gradients() {
    let len = 1003;
    for t in TYPES {
        let bench = Bench::new();
        let (g, u, dy) = (normal(1, len, 2.0), normal(2, len, 1.0), normal(3, len, 1.0));
        let (rg, ru, rdy) = (round(t, &g), round(t, &u), round(t, &dy));
        let (pg, pu, pdy, y) = (bench.put_as(t, &g), bench.put_as(t, &u), bench.put_as(t, &dy), bench.room_for(t, len));
        bench.run(&flat("swiglu.ptx", "swiglu_fwd", t, len, true), &[pg.into(), pu.into(), y.into(), n(len)]);
        let silu = |i: usize| exact("silu", rg[i]);
        let want: Vec<f64> = (0..len).map(|i| silu(i) * ru[i]).collect();
        close("y", &bench.get_as(t, y, len), &want, bound(t));
        let slope = |i: usize| {
            let s = exact("sigmoid", rg[i]);
            s * (1.0 + rg[i] * (1.0 - s))
        };
        for (add, wanted) in [(0, [true, true]), (1, [true, true]), (0, [true, false]), (1, [false, true])] {
            let out = |wanted: bool, old| if wanted { bench.result(t, old, add) } else { Ptr(0) };
            let (dg, du) = (out(wanted[0], &g), out(wanted[1], &u));
            let args = [pg.into(), pu.into(), pdy.into(), dg.0.into(), du.0.into(), n(len), add.into()];
            bench.run(&flat("swiglu.ptx", "swiglu_bwd", t, len, true), &args);
            let old = f64::from(add);
            if wanted[0] {
                let want: Vec<f64> = (0..len).map(|i| rdy[i] * ru[i] * slope(i) + old * rg[i]).collect();
                close("dgate", &bench.get_as(t, dg, len), &want, bound(t));
            }
            if wanted[1] {
                let want: Vec<f64> = (0..len).map(|i| rdy[i] * silu(i) + old * ru[i]).collect();
                close("dup", &bench.get_as(t, du, len), &want, bound(t));
            }
        }
    }
}

#[test]
fn casts_round_to_nearest_even() {
    for (from, to) in TYPES.into_iter().flat_map(|from| TYPES.map(|to| (from, to))) {
        for (len, aligned) in [(5, true), (1003, true), (1003, false)] {
            let bench = Bench::new();
            let (x, old) = (normal(1, len, 100.0), normal(2, len, 1.0));
            let (rx, ro) = (round(from, &x), round(to, &old));
            let px = bench.put_as(from, &x);
            for add in [0u32, 1] {
                let y = bench.result(to, &old, add);
                bench.run(&cast(from, to, len, aligned), &[px.into(), y.into(), n(len), add.into()]);
                let sum = |i: usize| rx[i] as f32 + if add == 1 { ro[i] as f32 } else { 0.0 };
                let want: Vec<f32> = (0..len).map(sum).collect();
                close("cast", &bench.get_as(to, y, len), &round(to, &want), 0.0);
            }
        }
    }
}

#[test]
fn dropout_draws_the_mask_of_the_stream() {
    for (t, len, aligned) in
        [(Float::F32, 1003, true), (Float::Bf16, 1003, true), (Float::F32, 103, false), (Float::F16, 7, true)]
    {
        let bench = Bench::new();
        let x = normal(1, len, 1.0);
        let rx = round(t, &x);
        let (seed, step, micro, tensor, p) = (0x1234_5678_9abcu64, 0x3_0000_0007u64, 3u32, 5u32, 0.1f32);
        let stream = Stream::new(seed, Purpose::Dropout, tensor, step << 16 | u64::from(micro));
        let scale = 1.0 / (1.0 - p);
        let (px, state) = (bench.put_as(t, &x), bench.put(&[seed, step]));
        for add in [0u32, 1] {
            let y = bench.result(t, &x, add);
            let mut args = vec![px.into(), y.into(), state.into(), n(len)];
            args.extend([(Purpose::Dropout as u32) << 24 | tensor, micro].map(Arg::U32));
            args.extend([Arg::F32(p * 16_777_216.0), Arg::F32(scale), Arg::U32(add)]);
            bench.run(&flat("dropout.ptx", "dropout_fwd", t, len, aligned), &args);
            let kept = |i: usize| if stream.uniform(i as u64) >= p { rx[i] * f64::from(scale) } else { 0.0 };
            let want: Vec<f64> = (0..len).map(|i| f64::from(add) * rx[i] + kept(i)).collect();
            close("dropout", &bench.get_as(t, y, len), &want, bound(t));
        }
    }
}

#[test]
fn adamw_updates_clips_and_skips() {
    let cases = [(Float::F32, 5, true, 1u32), (Float::Bf16, 3001, true, 0), (Float::F32, 1003, false, 1)];
    for (t, len, aligned, decays) in cases {
        let bench = Bench::new();
        let (w, g, m) = (normal(1, len, 1.0), normal(2, len, 1.0), normal(3, len, 0.1));
        let v: Vec<f32> = normal(4, len, 0.1).iter().map(|x| x * x).collect();
        let rg = round(t, &g);
        let (pw, pg, pm, pv, shadow) =
            (bench.put(&w), bench.put_as(t, &g), bench.put(&m), bench.put(&v), bench.room(2 * len));
        let (step, rms, keep) = (0.01f32, 1.3f32, 0.999f32);
        let mut state = [0u32; 16];
        for (at, x) in [(7, step), (8, rms), (9, keep), (10, 1.0)] {
            state[at] = x.to_bits();
        }
        let state = bench.put(&state);
        let squares = partial_sums("square_partial", t, len, aligned);
        let parts = squares.grid.blocks[0];
        let partial = bench.room(8 * parts as usize);
        let measure = || {
            bench.run(&squares, &[pg.into(), partial.into(), n(len)]);
            bench.run(&clip(), &[partial.into(), state.into(), parts.into(), 1.0f32.into()]);
        };
        measure();
        let norm = rg.iter().map(|x| x * x).sum::<f64>().sqrt();
        let factor = (1.0 / (norm + 1e-6)).min(1.0);
        let got: Vec<f32> = bench.get(state, 16);
        close("clip and norm", &[f64::from(got[4]), f64::from(got[6])], &[factor, norm], 1e-6);
        assert_eq!(got[5].to_bits(), 0, "nothing to skip");
        let update = |shadow: u64| {
            let mut args = vec![pw.into(), pg.into(), pm.into(), pv.into(), shadow.into(), state.into(), n(len)];
            args.extend([0.9f32, 0.1, 0.95, 0.05, 1e-8].map(Arg::F32));
            args.push(decays.into());
            bench.run(&adamw(t, Float::Bf16, len, aligned), &args);
        };
        update(shadow.0);
        let (mut want_w, mut want_m, mut want_v) = (vec![], vec![], vec![]);
        for i in 0..len {
            let g = rg[i] * factor;
            let m = f64::from(0.9f32) * f64::from(m[i]) + f64::from(0.1f32) * g;
            let v = f64::from(0.95f32) * f64::from(v[i]) + f64::from(0.05f32) * g * g;
            let keep = if decays == 1 { f64::from(keep) } else { 1.0 };
            want_w.push(f64::from(w[i]) * keep - f64::from(step) * m / (f64::from(rms) * v.sqrt() + 1e-8));
            want_m.push(m);
            want_v.push(v);
        }
        let now: Vec<f32> = bench.get(pw, len);
        close("w", &round(Float::F32, &now), &want_w, 1e-6);
        close("m", &bench.get_as(Float::F32, pm, len), &want_m, 1e-6);
        close("v", &bench.get_as(Float::F32, pv, len), &want_v, 1e-6);
        close("shadow", &bench.get_as(Float::Bf16, shadow, len), &round(Float::Bf16, &now), 0.0);
        // A loss that is not finite, then a gradient that is not.
        bench.sim.upload(Ptr(state.0 + 40), &f32::INFINITY.to_le_bytes()).unwrap();
        update(0);
        assert_eq!(bench.get::<f32>(pw, len), now, "a step whose loss is infinite changes nothing");
        bench.sim.upload(Ptr(state.0 + 40), &1.0f32.to_le_bytes()).unwrap();
        bench.sim.upload(pg, &[0xff; 4][..t.bytes()]).unwrap();
        measure();
        assert_eq!(bench.get::<u32>(state, 16)[5], 1);
        update(0);
        assert_eq!(bench.get::<f32>(pw, len), now, "a gradient that is not a number changes nothing");
    }
}
