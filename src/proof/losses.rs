//! Losses of rows, and the divergence of normal distributions.

use super::*;
use crate::device::kernels::{by_rows, column_sums, kl_total, loss, loss_backward, run_of_rows, sum_blocks};

use Float::{Bf16, F16, F32};

const LOSSES: [[&str; 3]; 5] = [
    ["bce", "bce_fwd", "bce_bwd"],
    ["square", "square_fwd", "square_bwd"],
    ["absolute", "absolute_fwd", "absolute_bwd"],
    ["hinge", "hinge_fwd", "hinge_bwd"],
    ["gaussian", "gaussian_fwd", "gaussian_bwd"],
];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for [f, forward, backward] in LOSSES {
        for (t, rows, c) in [(F32, 7, 784), (F32, 5, 1), (Bf16, 3, 520), (F16, 9, 33)] {
            let name = format!("{f} {} {rows} x {c}", t.name());
            let work = move |trial: &Trial<'_>| of_rows(trial, t, [f, forward, backward], rows, c);
            cases.push(Case::new("loss.ptx", &[forward, backward], name, work).typical(c == 784));
        }
    }
    for (t, rows, c) in [(F32, 70, 20), (F32, 5, 7), (Bf16, 9, 64)] {
        let name = format!("{} {rows} x {c}", t.name());
        let work = move |trial: &Trial<'_>| divergence(trial, t, rows, c);
        cases.push(Case::new("kl.ptx", &["kl_fwd", "kl_total", "kl_bwd"], name, work).typical(c == 20));
    }
}

/// f and its derivatives with respect to x, t and v.
fn exact(f: &str, x: f64, t: f64, v: f64) -> (f64, [f64; 3]) {
    let d = x - t;
    match f {
        "bce" => (x.max(0.0) - t * x + (-x.abs()).exp().ln_1p(), [1.0 / (1.0 + (-x).exp()) - t, -x, 0.0]),
        "square" => (d * d, [2.0 * d, -2.0 * d, 0.0]),
        "absolute" if d == 0.0 => (0.0, [0.0; 3]),
        "absolute" => (d.abs(), [d.signum(), -d.signum(), 0.0]),
        "hinge" if t * x < 1.0 => (1.0 - t * x, [-t, -x, 0.0]),
        "hinge" => (0.0, [0.0; 3]),
        _ => {
            let w = (-v).exp();
            (0.5 * (std::f64::consts::TAU.ln() + v + d * d * w), [d * w, -d * w, 0.5 * (1.0 - d * d * w)])
        }
    }
}

fn of_rows(
    trial: &Trial<'_>,
    ty: Float,
    [f, forward, backward]: [&'static str; 3],
    rows: usize,
    c: usize,
) -> Result<()> {
    let len = rows * c;
    let (x, t, v, dy) = (normal(1, len, 3.0), normal(2, len, 1.0), normal(3, len, 1.0), normal(4, rows, 1.0));
    let (rx, rt, rv) = (round(ty, &x), round(ty, &t), round(ty, &v));
    let (px, pt, pv, pdy) = (trial.put_as(ty, &x)?, trial.put_as(ty, &t)?, trial.put_as(ty, &v)?, trial.put(&dy)?);
    let (target, scale) = (1.0f32, 0.5f32);
    for given_t in [true, false] {
        let varies = f == "gaussian";
        let at = |i: usize| {
            exact(f, rx[i], if given_t { rt[i] } else { f64::from(target) }, if varies { rv[i] } else { 0.0 })
        };
        let y = trial.room(rows * 4)?;
        let inputs = [px.into(), given(given_t, pt), given(varies, pv)];
        let numbers = [n(rows), n(c), target.into(), scale.into()];
        trial.run(&loss(forward, ty, rows, c), &[&inputs[..], &[y.into()], &numbers].concat())?;
        let sum = |row: usize| f64::from(scale) * (0..c).map(|j| at(row * c + j).0).sum::<f64>();
        trial.close("y", &trial.get_as(F32, y, rows)?, &(0..rows).map(sum).collect::<Vec<_>>(), 1e-5);
        let wanted = 1 + usize::from(given_t) + usize::from(varies && given_t);
        for (input, add) in (0..wanted).flat_map(|input| [(input, 0u32), (input, 1)]) {
            let d = trial.result(ty, &x, add)?;
            let numbers = [n(len), n(c), target.into(), scale.into(), n(input), add.into()];
            let args = [&inputs[..], &[pdy.into(), d.into()], &numbers].concat();
            trial.run(&loss_backward(backward, ty, len, c), &args)?;
            let slope = |i: usize| f64::from(scale * dy[i / c]) * at(i).1[input] + f64::from(add) * rx[i];
            trial.close_at("gradient", ty, d, &(0..len).map(slope).collect::<Vec<_>>(), bound(ty))?;
        }
    }
    Ok(())
}

fn divergence(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let len = rows * c;
    let (mu, v) = (normal(1, len, 1.0), normal(2, len, 0.7));
    let (rm, rv) = (round(t, &mu), round(t, &v));
    let (pm, pv, each) = (trial.put_as(t, &mu)?, trial.put_as(t, &v)?, trial.room(len * 4)?);
    trial.run(&by_rows("kl.ptx", "kl_fwd", t, len, c), &[pm.into(), pv.into(), each.into(), n(len)])?;
    let want: Vec<f64> = (0..len).map(|i| 0.5 * (rm[i] * rm[i] + rv[i].exp() - 1.0 - rv[i])).collect();
    trial.close_at("each", F32, each, &want, 1e-5)?;
    let run = run_of_rows(rows);
    let (partial, kl, loss) = (trial.room(rows.div_ceil(run) * c * 4)?, trial.room(c * 4)?, trial.room(4)?);
    trial.run(&column_sums(F32, rows, c, run), &[each.into(), partial.into(), n(rows), n(c), n(run)])?;
    trial.run(&sum_blocks(c), &[partial.into(), kl.into(), n(rows.div_ceil(run)), n(c), 0u32.into()])?;
    let (scale, free) = (1.0 / rows as f32, 0.5f32);
    trial.run(&kl_total(), &[kl.into(), loss.into(), n(c), scale.into(), free.into()])?;
    let means: Vec<f64> = (0..c).map(|j| (0..rows).map(|i| want[i * c + j]).sum::<f64>() / rows as f64).collect();
    trial.close_at("kl", F32, kl, &means, 1e-5)?;
    let total = means.iter().map(|kl| kl.max(f64::from(free))).sum();
    trial.close_at("loss", F32, loss, &[total], 1e-5)?;
    let (dloss, dkl) = (0.7f32, normal(3, c, 1.0));
    let (pl, pk) = (trial.put(&[dloss])?, trial.put(&dkl)?);
    for (input, add, of_loss, of_kl) in [(0usize, 0u32, true, true), (1, 1, true, false), (1, 0, false, true)] {
        let (x, rx, px) = if input == 0 { (&mu, &rm, pm) } else { (&v, &rv, pv) };
        let d = trial.result(t, x, add)?;
        let mut args = vec![px.into(), kl.into(), given(of_loss, pl), given(of_kl, pk), d.into(), n(len), n(c)];
        args.extend([free.into(), scale.into(), n(input), add.into()]);
        trial.run(&by_rows("kl.ptx", "kl_bwd", t, len, c), &args)?;
        let slope = |i: usize| {
            let j = i % c;
            let g = if of_loss && means[j] > f64::from(free) { f64::from(dloss) } else { 0.0 };
            let g = (g + if of_kl { f64::from(dkl[j]) } else { 0.0 }) / rows as f64;
            g * if input == 0 { rx[i] } else { 0.5 * (rx[i].exp() - 1.0) } + f64::from(add) * rx[i]
        };
        trial.close_at("gradient", t, d, &(0..len).map(slope).collect::<Vec<_>>(), bound(t))?;
    }
    Ok(())
}
