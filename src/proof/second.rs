//! Kernels of second derivatives and spectral norms: how slopes change, products with vectors, distances from spheres.

use super::flat::exact;
use super::*;
use crate::device::kernels::{by_rows, column_dots, flat, row_dots, spectral, spectral_unit};

use Float::{Bf16, F16, F32};

const BENDS: [[&str; 2]; 6] = [
    ["gelu_tanh", "gelu_tanh_bend"],
    ["gelu_erf", "gelu_erf_bend"],
    ["silu", "silu_bend"],
    ["tanh", "tanh_bend"],
    ["sigmoid", "sigmoid_bend"],
    ["softplus", "softplus_bend"],
];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for ([f, entry], t) in BENDS.into_iter().flat_map(|f| TYPES.map(|t| (f, t))) {
        let name = format!("{f} {}", t.name());
        let work = move |trial: &Trial<'_>| bend(trial, t, f, entry);
        cases.push(Case::new("slope.ptx", &[entry], name, work).typical(t == F32));
    }
    for (types, rows, c) in [([F32; 2], 7, 260), ([Bf16; 2], 9, 40), ([Bf16, F32], 5, 33), ([F16, F32], 130, 24)] {
        let name = format!("{} with {}, {rows} x {c}", types[0].name(), types[1].name());
        let work = move |trial: &Trial<'_>| dots(trial, types, rows, c);
        cases.push(Case::new("dots.ptx", &["row_dots", "column_dots"], name, work).typical(c == 260));
    }
    for (t, rows, c) in [(F32, 7, 784), (F32, 5, 1), (Bf16, 3, 520), (F16, 9, 33)] {
        let name = format!("{} {rows} x {c}", t.name());
        let work = move |trial: &Trial<'_>| sphere(trial, t, rows, c);
        cases.push(Case::new("sphere.ptx", &["sphere_fwd", "sphere_bwd"], name, work).typical(c == 784));
    }
    for (t, rows, c) in [(F32, 40, 96), (F32, 5, 7), (Bf16, 9, 64), (F16, 3, 33)] {
        let name = format!("{} {rows} x {c}", t.name());
        let work = move |trial: &Trial<'_>| divided(trial, t, rows, c);
        let entries = ["spectral_unit", "spectral_fwd", "spectral_bwd"];
        cases.push(Case::new("spectral.ptx", &entries, name, work).typical(c == 96));
    }
}

fn bend(trial: &Trial<'_>, t: Float, f: &'static str, entry: &'static str) -> Result<()> {
    let len = 1003;
    let of_result = f == "tanh" || f == "sigmoid";
    let mut v = normal(1, len, if of_result { 0.4 } else { 3.0 });
    if !of_result {
        v[..5].copy_from_slice(&[90.0, -90.0, -0.01, -70.3, -47.7]);
    }
    let (d, dy) = (normal(2, len, 1.0), normal(3, len, 1.0));
    let (rv, rd, rdy) = (round(t, &v), round(t, &d), round(t, &dy));
    let (pv, pd, pdy) = (trial.put_as(t, &v)?, trial.put_as(t, &d)?, trial.put_as(t, &dy)?);
    let bend = |x: f64| match f {
        "tanh" => -2.0 * x,
        "sigmoid" => 1.0 - 2.0 * x,
        _ => (exact(f, x + 1e-4) - 2.0 * exact(f, x) + exact(f, x - 1e-4)) / 1e-8,
    };
    for add in [0u32, 1] {
        let dv = trial.result(t, &v, add)?;
        let args = [pv.into(), pd.into(), pdy.into(), dv.into(), n(len), add.into()];
        trial.run(&flat("slope.ptx", entry, t, len, true), &args)?;
        let want: Vec<f64> = (0..len).map(|i| bend(rv[i]) * rd[i] * rdy[i] + f64::from(add) * rv[i]).collect();
        trial.close_at("dv", t, dv, &want, bound(t))?;
    }
    Ok(())
}

fn dots(trial: &Trial<'_>, [t, tb]: [Float; 2], rows: usize, c: usize) -> Result<()> {
    let (a, b) = (normal(1, rows * c, 1.0), normal(2, rows * c, 1.0));
    let (ra, rb) = (round(t, &a), round(tb, &b));
    let (pa, pb) = (trial.put_as(t, &a)?, trial.put_as(tb, &b)?);
    for pitch in [c, 0] {
        let y = trial.room_for(F32, rows)?;
        trial.run(&row_dots([t, tb], rows, c), &[pa.into(), pb.into(), y.into(), n(rows), n(c), n(pitch)])?;
        let want = |i: usize| (0..c).map(|j| ra[i * c + j] * rb[i * pitch + j]).sum();
        trial.close_at("rows", F32, y, &(0..rows).map(want).collect::<Vec<f64>>(), 1e-5)?;
    }
    let y = trial.room_for(F32, c)?;
    trial.run(&column_dots([t, tb], c), &[pa.into(), pb.into(), y.into(), n(rows), n(c)])?;
    let want = |j: usize| (0..rows).map(|i| ra[i * c + j] * rb[i]).sum();
    trial.close_at("columns", F32, y, &(0..c).map(want).collect::<Vec<f64>>(), 1e-5)
}

fn sphere(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let (mut x, dy, r) = (normal(1, rows * c, 1.0), normal(2, rows, 1.0), 1.5f32);
    x[..c].fill(0.0);
    let rx = round(t, &x);
    let (px, pdy) = (trial.put_as(t, &x)?, trial.put(&dy)?);
    let (s, y) = (trial.room_for(F32, rows)?, trial.room_for(F32, rows)?);
    trial.run(&row_dots([t; 2], rows, c), &[px.into(), px.into(), s.into(), n(rows), n(c), n(c)])?;
    let plan = by_rows("sphere.ptx", "sphere_fwd", F32, rows, rows);
    trial.run(&plan, &[s.into(), y.into(), n(rows), r.into()])?;
    let norms: Vec<f64> = rx.chunks_exact(c).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let want: Vec<f64> = norms.iter().map(|norm| (norm - f64::from(r)).powi(2)).collect();
    trial.close_at("y", F32, y, &want, 1e-5)?;
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let args = [px.into(), s.into(), pdy.into(), dx.into(), n(rows * c), n(c), r.into(), add.into()];
        trial.run(&by_rows("sphere.ptx", "sphere_bwd", t, rows * c, c), &args)?;
        let slope = |i: usize| {
            let norm = norms[i / c];
            let share = if norm > 0.0 { 1.0 - f64::from(r) / norm } else { 1.0 };
            2.0 * f64::from(dy[i / c]) * share * rx[i] + f64::from(add) * rx[i]
        };
        trial.close_at("dx", t, dx, &(0..rows * c).map(slope).collect::<Vec<_>>(), bound(t))?;
    }
    Ok(())
}

fn divided(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let (x, a, b) = (normal(1, rows, 3.0), normal(2, rows, 1.0), normal(3, c, 1.0));
    let (px, unit, sigma) = (trial.put(&x)?, trial.room(rows * 4)?, trial.room(4)?);
    let length = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    trial.run(&spectral_unit(), &[px.into(), unit.into(), sigma.into(), n(rows), 1e-12f32.into()])?;
    let want: Vec<f64> = x.iter().map(|x| f64::from(*x) / length).collect();
    trial.close_at("unit", F32, unit, &want, 1e-5)?;
    trial.close_at("sigma", F32, sigma, &[length], 1e-6)?;
    let len = rows * c;
    let (w, dy, s) = (normal(4, len, 1.0), normal(5, len, 1.0), 1.7f32);
    let (rw, rdy) = (round(t, &w), round(t, &dy));
    let (pw, pdy, y) = (trial.put_as(t, &w)?, trial.put_as(t, &dy)?, trial.room_for(t, len)?);
    trial.run(&spectral("spectral_fwd", t, len, c), &[pw.into(), sigma.into(), y.into(), n(len)])?;
    trial.close_at("y", t, y, &rw.iter().map(|w| w / length).collect::<Vec<_>>(), bound(t))?;
    let (pa, pb, ps) = (trial.put(&a)?, trial.put(&b)?, trial.put(&[s])?);
    for add in [0u32, 1] {
        let dw = trial.result(F32, &w, add)?;
        let pointers = [pdy, pa, pb, ps, sigma, dw].map(Arg::from);
        let args = [&pointers[..], &[n(len), n(c), add.into()]].concat();
        trial.run(&spectral("spectral_bwd", t, len, c), &args)?;
        let slope = |i: usize| {
            let along = f64::from(s) / length * f64::from(a[i / c]) * f64::from(b[i % c]);
            (rdy[i] - along) / length + f64::from(add) * f64::from(w[i])
        };
        trial.close_at("dw", F32, dw, &(0..len).map(slope).collect::<Vec<_>>(), 1e-5)?;
    }
    Ok(())
}
