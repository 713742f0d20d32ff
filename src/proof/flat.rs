//! Kernels that do the same with each element.

use super::*;
use crate::device::kernels::{cast, flat};

/// Lengths, and whether accesses are vectors.
const LENGTHS: [(usize, bool); 5] = [(1, true), (8, true), (1003, true), (1003, false), (4096, true)];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, (len, aligned)) in TYPES.into_iter().flat_map(|t| LENGTHS.map(|l| (t, l))) {
        let entries = ["add_fwd", "sub_fwd", "mul_fwd", "scale_fwd", "add_scaled", "fill"];
        let name = format!("{} {len}{}", t.name(), if aligned { "" } else { " unaligned" });
        let case = Case::new("elementwise.ptx", &entries, name, move |trial| arithmetic(trial, t, len, aligned));
        cases.push(case.typical(len == 4096));
    }
    let few = |trial: &Trial<'_>| {
        let x = normal(1, 5003, 1.0);
        let (px, y) = (trial.put(&x)?, trial.room(4 * x.len())?);
        let plan = with_blocks(flat("elementwise.ptx", "scale_fwd", Float::F32, x.len(), true), 2);
        trial.run(&plan, &[px.into(), y.into(), n(x.len()), 2.0f32.into(), 0u32.into()])?;
        let want: Vec<f64> = x.iter().map(|x| 2.0 * f64::from(*x)).collect();
        trial.same("2 x", &trial.get_as(Float::F32, y, x.len())?, &want);
        Ok(())
    };
    cases.push(Case::new("elementwise.ptx", &["scale_fwd"], "f32 5003 by two blocks".into(), few));
    for ([f, forward, backward], t) in ACTIVATIONS.into_iter().flat_map(|f| TYPES.map(|t| (f, t))) {
        let name = format!("{f} {}", t.name());
        let work = move |trial: &Trial<'_>| activation(trial, t, [f, forward, backward]);
        cases.push(Case::new("activation.ptx", &[forward, backward], name, work).typical(true));
    }
    for [f, forward, _] in ACTIVATIONS {
        let work = move |trial: &Trial<'_>| {
            let (x, y) = (trial.put(&[f32::NAN])?, trial.room(4)?);
            trial.run(&flat("activation.ptx", forward, Float::F32, 1, true), &[x.into(), y.into(), n(1)])?;
            let got = trial.get::<f32>(y, 1)?[0];
            // As on the CPU, where relu is max(x, 0).
            let passes = if f == "relu" { got == 0.0 } else { got.is_nan() };
            trial.same("whether NaN stays", &[f64::from(u8::from(passes))], &[1.0]);
            Ok(())
        };
        cases.push(Case::new("activation.ptx", &[forward], format!("{f} NaN"), work));
    }
    for t in TYPES {
        let name = format!("{} 1003", t.name());
        let work = move |trial: &Trial<'_>| swiglu(trial, t);
        cases.push(Case::new("swiglu.ptx", &["swiglu_fwd", "swiglu_bwd"], name, work).typical(true));
    }
    for (from, to) in TYPES.into_iter().flat_map(|from| TYPES.map(|to| (from, to))) {
        for (len, aligned) in [(5, true), (1003, true), (1003, false)] {
            let name = format!("{} to {} {len}{}", from.name(), to.name(), if aligned { "" } else { " unaligned" });
            let work = move |trial: &Trial<'_>| casts(trial, from, to, len, aligned);
            cases.push(Case::new("cast.ptx", &["cast_fwd"], name, work).typical(from != to && aligned && len > 5));
        }
    }
    for (t, len, aligned) in
        [(Float::F32, 1003, true), (Float::Bf16, 1003, true), (Float::F32, 103, false), (Float::F16, 7, true)]
    {
        let name = format!("{} {len}{}", t.name(), if aligned { "" } else { " unaligned" });
        let work = move |trial: &Trial<'_>| dropout(trial, t, len, aligned);
        cases.push(Case::new("dropout.ptx", &["dropout_fwd"], name.clone(), work).typical(aligned && len > 7));
        let work = move |trial: &Trial<'_>| sample(trial, t, len, aligned);
        let entries = ["sample_fwd", "sample_bwd"];
        cases.push(Case::new("sample.ptx", &entries, name, work).typical(aligned && len > 7));
    }
}

fn arithmetic(trial: &Trial<'_>, t: Float, len: usize, aligned: bool) -> Result<()> {
    type F = fn(f64, f64) -> f64;
    let binary: [(&str, F); 3] = [("add_fwd", |a, b| a + b), ("sub_fwd", |a, b| a - b), ("mul_fwd", |a, b| a * b)];
    let plan = |entry| flat("elementwise.ptx", entry, t, len, aligned);
    let (a, b, old) = (normal(1, len, 1.0), normal(2, len, 1.0), normal(3, len, 1.0));
    let (ra, rb, ro) = (round(t, &a), round(t, &b), round(t, &old));
    let (pa, pb) = (trial.put_as(t, &a)?, trial.put_as(t, &b)?);
    for add in [0u32, 1] {
        let check = |what: &str, y: Ptr, f: &dyn Fn(usize) -> f64| {
            let want: Vec<f64> = (0..len).map(|i| f(i) + f64::from(add) * ro[i]).collect();
            trial.close_at(what, t, y, &want, bound(t))
        };
        for (entry, f) in binary {
            let y = trial.result(t, &old, add)?;
            trial.run(&plan(entry), &[pa.into(), pb.into(), y.into(), n(len), add.into()])?;
            check(entry, y, &|i| f(ra[i], rb[i]))?;
        }
        let y = trial.result(t, &old, add)?;
        trial.run(&plan("scale_fwd"), &[pa.into(), y.into(), n(len), (-1.7f32).into(), add.into()])?;
        check("scale", y, &|i| -1.7 * ra[i])?;
    }
    let (y, s) = (trial.put_as(t, &old)?, trial.put(&[0.5f32])?);
    trial.run(&plan("add_scaled"), &[pa.into(), y.into(), n(len), 3.0f32.into(), s.into()])?;
    let want: Vec<f64> = ra.iter().zip(&ro).map(|(a, o)| 1.5 * a + o).collect();
    trial.close_at("add_scaled", t, y, &want, bound(t))?;
    let y = trial.room_for(t, len)?;
    trial.run(&plan("fill"), &[y.into(), n(len), 3.0f32.into()])?;
    trial.close_at("fill", t, y, &vec![3.0; len], 0.0)
}

const ACTIVATIONS: [[&str; 3]; 8] = [
    ["gelu_tanh", "gelu_tanh_fwd", "gelu_tanh_bwd"],
    ["gelu_erf", "gelu_erf_fwd", "gelu_erf_bwd"],
    ["silu", "silu_fwd", "silu_bwd"],
    ["relu", "relu_fwd", "relu_bwd"],
    ["tanh", "tanh_fwd", "tanh_bwd"],
    ["sigmoid", "sigmoid_fwd", "sigmoid_bwd"],
    ["leaky_relu", "leaky_relu_fwd", "leaky_relu_bwd"],
    ["softplus", "softplus_fwd", "softplus_bwd"],
];

/// An activation in f64.
pub(super) fn exact(f: &str, x: f64) -> f64 {
    match f {
        "gelu_tanh" => 0.5 * x * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)))),
        "gelu_erf" => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        "silu" => x / (1.0 + libm::exp(-x)),
        "relu" => x.max(0.0),
        "tanh" => libm::tanh(x),
        "sigmoid" => 1.0 / (1.0 + libm::exp(-x)),
        "leaky_relu" => {
            if x > 0.0 {
                x
            } else {
                f64::from(0.2f32) * x
            }
        }
        "softplus" => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
        _ => x,
    }
}

fn activation(trial: &Trial<'_>, t: Float, [f, forward, backward]: [&'static str; 3]) -> Result<()> {
    let len = 1003;
    let mut x = normal(1, len, 3.0);
    x[..5].copy_from_slice(&[90.0, -90.0, -0.01, -70.3, -47.7]);
    let dy = normal(2, len, 1.0);
    let (rx, rdy) = (round(t, &x), round(t, &dy));
    let (px, pdy, y) = (trial.put_as(t, &x)?, trial.put_as(t, &dy)?, trial.room_for(t, len)?);
    trial.run(&flat("activation.ptx", forward, t, len, true), &[px.into(), y.into(), n(len)])?;
    let got = trial.get_as(t, y, len)?;
    // In f32, where exp alone makes the error, it is small beside the smallest results too.
    let (relative, least) = match (t, f) {
        (Float::F32, "silu" | "sigmoid" | "tanh") => (6e-7, 1e-37),
        _ => (1.1 * bound(t), 1e-7),
    };
    let want: Vec<f64> = rx.iter().map(|x| exact(f, *x)).collect();
    trial.compare("y", &got, &want, |want| relative * want.abs() + least);
    let of_result = f == "tanh" || f == "sigmoid";
    let slope = |i: usize| match f {
        "tanh" => 1.0 - got[i] * got[i],
        "sigmoid" => got[i] * (1.0 - got[i]),
        "relu" => f64::from(u8::from(rx[i] > 0.0)),
        "leaky_relu" => {
            if rx[i] > 0.0 {
                1.0
            } else {
                f64::from(0.2f32)
            }
        }
        _ => (exact(f, rx[i] + 1e-5) - exact(f, rx[i] - 1e-5)) / 2e-5,
    };
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let v = if of_result { y } else { px };
        let args = [v.into(), pdy.into(), dx.into(), n(len), add.into()];
        trial.run(&flat("activation.ptx", backward, t, len, true), &args)?;
        let want: Vec<f64> = (0..len).map(|i| slope(i) * rdy[i] + f64::from(add) * rx[i]).collect();
        trial.close_at("dx", t, dx, &want, bound(t))?;
    }
    Ok(())
}

fn swiglu(trial: &Trial<'_>, t: Float) -> Result<()> {
    let len = 1003;
    let (g, u, dy) = (normal(1, len, 2.0), normal(2, len, 1.0), normal(3, len, 1.0));
    let (rg, ru, rdy) = (round(t, &g), round(t, &u), round(t, &dy));
    let (pg, pu, pdy) = (trial.put_as(t, &g)?, trial.put_as(t, &u)?, trial.put_as(t, &dy)?);
    let y = trial.room_for(t, len)?;
    trial.run(&flat("swiglu.ptx", "swiglu_fwd", t, len, true), &[pg.into(), pu.into(), y.into(), n(len)])?;
    let silu = |i: usize| exact("silu", rg[i]);
    let want: Vec<f64> = (0..len).map(|i| silu(i) * ru[i]).collect();
    trial.close_at("y", t, y, &want, bound(t))?;
    let slope = |i: usize| {
        let s = exact("sigmoid", rg[i]);
        s * (1.0 + rg[i] * (1.0 - s))
    };
    for (add, wanted) in [(0, [true, true]), (1, [true, true]), (0, [true, false]), (1, [false, true])] {
        let out = |wanted: bool, old| if wanted { trial.result(t, old, add) } else { Ok(Ptr(0)) };
        let (dg, du) = (out(wanted[0], &g)?, out(wanted[1], &u)?);
        let args = [pg.into(), pu.into(), pdy.into(), dg.0.into(), du.0.into(), n(len), add.into()];
        trial.run(&flat("swiglu.ptx", "swiglu_bwd", t, len, true), &args)?;
        let old = f64::from(add);
        if wanted[0] {
            let want: Vec<f64> = (0..len).map(|i| rdy[i] * ru[i] * slope(i) + old * rg[i]).collect();
            trial.close_at("dgate", t, dg, &want, bound(t))?;
        }
        if wanted[1] {
            let want: Vec<f64> = (0..len).map(|i| rdy[i] * silu(i) + old * ru[i]).collect();
            trial.close_at("dup", t, du, &want, bound(t))?;
        }
    }
    Ok(())
}

fn casts(trial: &Trial<'_>, from: Float, to: Float, len: usize, aligned: bool) -> Result<()> {
    let (x, old) = (normal(1, len, 100.0), normal(2, len, 1.0));
    let (rx, ro) = (round(from, &x), round(to, &old));
    let px = trial.put_as(from, &x)?;
    for add in [0u32, 1] {
        let y = trial.result(to, &old, add)?;
        trial.run(&cast(from, to, len, aligned), &[px.into(), y.into(), n(len), add.into()])?;
        let sum = |i: usize| rx[i] as f32 + if add == 1 { ro[i] as f32 } else { 0.0 };
        let want: Vec<f32> = (0..len).map(sum).collect();
        trial.close_at("y", to, y, &round(to, &want), 0.0)?;
    }
    Ok(())
}

fn dropout(trial: &Trial<'_>, t: Float, len: usize, aligned: bool) -> Result<()> {
    let x = normal(1, len, 1.0);
    let rx = round(t, &x);
    let (seed, step, micro, tensor, p) = (0x1234_5678_9abcu64, 0x3_0000_0007u64, 3u32, 5u32, 0.1f32);
    let stream = Stream::new(seed, Purpose::Dropout, tensor, step << 16 | u64::from(micro));
    let scale = 1.0 / (1.0 - p);
    let (px, state) = (trial.put_as(t, &x)?, trial.put(&[seed, step])?);
    for add in [0u32, 1] {
        let y = trial.result(t, &x, add)?;
        let mut args = vec![px.into(), y.into(), state.into(), n(len)];
        args.extend([(Purpose::Dropout as u32) << 24 | tensor, micro].map(Arg::U32));
        args.extend([Arg::F32(p * 16_777_216.0), Arg::F32(scale), Arg::U32(add)]);
        trial.run(&flat("dropout.ptx", "dropout_fwd", t, len, aligned), &args)?;
        let kept = |i: usize| if stream.uniform(i as u64) >= p { rx[i] * f64::from(scale) } else { 0.0 };
        let want: Vec<f64> = (0..len).map(|i| f64::from(add) * rx[i] + kept(i)).collect();
        trial.close_at("y", t, y, &want, bound(t))?;
    }
    Ok(())
}

fn sample(trial: &Trial<'_>, t: Float, len: usize, aligned: bool) -> Result<()> {
    let (x, v) = (normal(1, len, 1.0), normal(2, len, 1.0));
    let (rx, rv) = (round(t, &x), round(t, &v));
    let (seed, step, micro, tensor, std) = (0x1234_5678_9abcu64, 0x3_0000_0007u64, 3u32, 5u32, 0.3f32);
    let stream = Stream::new(seed, Purpose::Latent, tensor, step << 16 | u64::from(micro));
    let eps: Vec<f64> = (0..len).map(|i| stream.normal(i as u64)).collect();
    let (px, pv, state) = (trial.put_as(t, &x)?, trial.put_as(t, &v)?, trial.put(&[seed, step])?);
    let run = |entry, v: Arg, y: Ptr, add: u32| {
        let mut args = vec![px.into(), v, y.into(), state.into(), n(len)];
        args.extend([(Purpose::Latent as u32) << 24 | tensor, micro].map(Arg::U32));
        args.extend([Arg::F32(std), Arg::U32(add)]);
        trial.run(&flat("sample.ptx", entry, t, len, aligned), &args)
    };
    for varies in [true, false] {
        let y = trial.room_for(t, len)?;
        run("sample_fwd", given(varies, pv), y, 0)?;
        let deviation = |i: usize| if varies { libm::exp(0.5 * rv[i]) } else { f64::from(std) };
        let want: Vec<f64> = (0..len).map(|i| rx[i] + deviation(i) * eps[i]).collect();
        trial.close_at("y", t, y, &want, bound(t))?;
    }
    for add in [0u32, 1] {
        let y = trial.result(t, &v, add)?;
        run("sample_bwd", pv.into(), y, add)?;
        let slope = |i: usize| rx[i] * 0.5 * libm::exp(0.5 * rv[i]) * eps[i] + f64::from(add) * rv[i];
        trial.close_at("dlogvar", t, y, &(0..len).map(slope).collect::<Vec<_>>(), bound(t))?;
    }
    Ok(())
}
