//! BatchNorm and GroupNorm of pictures, with a leaky ReLU after them, and their gradients.

use super::*;
use crate::device::kernels::{norm_each, norm_fold, norm_given, norm_moments, norm_sums};

use Float::{Bf16, F16, F32};

/// Larger than models have it, so that leaving it out is seen.
const EPS: f32 = 0.1;
const SLOPE: f32 = 0.2;
const ENTRIES: [&str; 9] = [
    "norm_moments",
    "norm_fold",
    "norm_given",
    "norm_apply",
    "norm_sums",
    "norm_means",
    "norm_back",
    "norm_gain",
    "norm_second",
];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, segments, rows, c, width, run) in
        [(F32, 1, 70, 12, 1, 8), (F32, 1, 37, 7, 1, 64), (Bf16, 3, 20, 16, 4, 8), (F16, 2, 9, 9, 3, 4)]
    {
        let name = format!("{} {segments} x {rows} x {c}, {width} channels together", t.name());
        let work = move |trial: &Trial<'_>| norm(trial, t, [segments, rows, c, width, run]);
        cases.push(Case::new("picture_norm.ptx", &ENTRIES, name, work).typical(c == 12));
    }
}

fn norm(trial: &Trial<'_>, t: Float, [segments, rows, c, width, run]: [usize; 5]) -> Result<()> {
    let (len, pixels, runs) = (segments * rows * c, rows * c, rows.div_ceil(run));
    let (x, g, b, dy) = (normal(1, len, 2.0), normal(2, c, 1.0), normal(3, c, 1.0), normal(4, len, 1.0));
    let old: Vec<f32> = normal(5, 2 * c, 1.0).iter().map(|x| x.abs()).collect();
    let (rx, rdy) = (round(t, &x), round(t, &dy));
    let (px, pdy, pg, pb) = (trial.put_as(t, &x)?, trial.put_as(t, &dy)?, trial.put(&g)?, trial.put(&b)?);
    let (moments, stats) = (trial.room(segments * runs * 2 * c * 4)?, trial.room(segments * 3 * c * 4)?);
    let (old_mean, old_var) = (trial.put(&old[..c])?, trial.put(&old[c..])?);
    let (new_mean, new_var) = (trial.room(c * 4)?, trial.room(c * 4)?);
    trial.run(&norm_moments(t, [segments, runs], c), &[px.into(), moments.into(), n(rows), n(c), n(run)])?;
    let (groups, count, batch) = (segments * c / width, (rows * width) as f64, segments == 1);
    let (momentum, unbiased) = (0.1f32, (count / (count - 1.0)) as f32);
    let mut args = vec![moments.into(), stats.into()];
    args.extend([old_mean, old_var, new_mean, new_var].map(|ptr| given(batch, ptr)));
    args.extend([n(groups), n(rows), n(c), n(width), n(run), EPS.into(), momentum.into(), unbiased.into()]);
    trial.run(&norm_fold("norm_fold", groups), &args)?;
    // The first elements of groups, and the elements of one.
    let first = |group: usize| (group / (c / width) * pixels, group % (c / width) * width);
    let elements = |group: usize| {
        let (start, j) = first(group);
        (0..rows).flat_map(move |row| (j..j + width).map(move |j| start + row * c + j))
    };
    let mut want = vec![0.0; segments * 3 * c];
    let (mut normalised, mut rstds) = (vec![0.0; len], vec![0.0; len]);
    for group in 0..groups {
        let mean = elements(group).map(|i| rx[i]).sum::<f64>() / count;
        let var = elements(group).map(|i| (rx[i] - mean).powi(2)).sum::<f64>() / count;
        let rstd = 1.0 / (var + f64::from(EPS)).sqrt();
        let (start, j) = first(group);
        for j in j..j + width {
            for (k, value) in [mean, rstd, var].into_iter().enumerate() {
                want[(start / pixels * 3 + k) * c + j] = value;
            }
        }
        for i in elements(group) {
            (normalised[i], rstds[i]) = ((rx[i] - mean) * rstd, rstd);
        }
    }
    trial.close_at("stats", F32, stats, &want, 1e-5)?;
    if batch {
        let moved = |old: f32, now: f64| 0.9 * f64::from(old) + 0.1 * now;
        let mean: Vec<f64> = (0..c).map(|j| moved(old[j], want[j])).collect();
        let var: Vec<f64> = (0..c).map(|j| moved(old[c + j], want[2 * c + j] * count / (count - 1.0))).collect();
        trial.close_at("new mean", F32, new_mean, &mean, 1e-5)?;
        trial.close_at("new variance", F32, new_var, &var, 1e-5)?;
        let given = trial.room(3 * c * 4)?;
        trial.run(&norm_given(c), &[old_mean.into(), old_var.into(), given.into(), n(c), EPS.into()])?;
        let rstd = |j: usize| 1.0 / (f64::from(old[c + j]) + f64::from(EPS)).sqrt();
        let want: Vec<f64> = (0..c).map(rstd).collect();
        trial.close("given", &trial.get_as(F32, given, 3 * c)?[c..2 * c], &want, 1e-5);
    }
    let y = trial.room_for(t, len)?;
    let common = [px.into(), pg.into(), pb.into(), stats.into()];
    let numbers = [n(len), n(c), n(pixels), SLOPE.into()];
    trial.run(&norm_each("norm_apply", t, len, c), &[&common[..], &[y.into()], &numbers].concat())?;
    let s = |i: usize| normalised[i] * f64::from(g[i % c]) + f64::from(b[i % c]);
    let bend = |i: usize| if s(i) > 0.0 { 1.0 } else { f64::from(SLOPE) };
    trial.close_at("y", t, y, &(0..len).map(|i| s(i) * bend(i)).collect::<Vec<_>>(), bound(t))?;

    let d = |i: usize| rdy[i] * bend(i);
    let common = [&common[..], &[pdy.into()]].concat();
    let (sums, products) = (trial.room(segments * runs * c * 4)?, trial.room(segments * runs * c * 4)?);
    let numbers = [n(rows), n(c), n(run), SLOPE.into()];
    let args = [&common[..], &[sums.into(), products.into()], &numbers].concat();
    trial.run(&norm_sums(t, [segments, runs], c), &args)?;
    let (mut want, mut want_n) = (vec![0.0; segments * runs * c], vec![0.0; segments * runs * c]);
    for (i, normalised) in normalised.iter().enumerate() {
        let (segment, row, j) = (i / pixels, i % pixels / c, i % c);
        let at = (segment * runs + row / run) * c + j;
        want[at] += d(i);
        want_n[at] += d(i) * normalised;
    }
    trial.close_at("sums", F32, sums, &want, 1e-5)?;
    trial.close_at("products", F32, products, &want_n, 1e-5)?;
    let means = trial.room(segments * 2 * c * 4)?;
    let pointers = [sums.into(), products.into(), pg.into(), means.into()];
    let numbers = [n(groups), n(runs), n(c), n(width), (1.0 / count as f32).into()];
    trial.run(&norm_fold("norm_means", groups), &[&pointers[..], &numbers].concat())?;
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let numbers = [n(len), n(c), n(pixels), SLOPE.into(), add.into()];
        let args = [&common[..], &[means.into(), dx.into()], &numbers].concat();
        trial.run(&norm_each("norm_back", t, len, c), &args)?;
        let mut want = vec![0.0; len];
        for group in 0..groups {
            let gd = |i: usize| d(i) * f64::from(g[i % c]);
            let mean = elements(group).map(gd).sum::<f64>() / count;
            let mean_n = elements(group).map(|i| gd(i) * normalised[i]).sum::<f64>() / count;
            for i in elements(group) {
                want[i] = rstds[i] * (gd(i) - mean - normalised[i] * mean_n) + f64::from(add) * rx[i];
            }
        }
        trial.close_at("dx", t, dx, &want, bound(t))?;
    }
    // t and u are any numbers here, and the means those of norm_means, of which each is used where it fits.
    let (t_, u) = (normal(6, len, 1.0), normal(7, len, 1.0));
    let (rt, ru) = (round(t, &t_), round(t, &u));
    let (pt, pu, y) = (trial.put_as(t, &t_)?, trial.put_as(t, &u)?, trial.room_for(t, len)?);
    let numbers = [n(len), n(c), n(pixels), SLOPE.into()];
    let args = [&common[..4], &[pt.into(), y.into()], &numbers].concat();
    trial.run(&norm_each("norm_gain", t, len, c), &args)?;
    let want: Vec<f64> = (0..len).map(|i| rt[i] * f64::from(g[i % c]) * bend(i)).collect();
    trial.close_at("gained", t, y, &want, bound(t))?;
    let of_groups = trial.get_as(F32, means, segments * 2 * c)?;
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let pointers = [px, stats, pt, pu, means, means, means, dx].map(Arg::from);
        let args = [&pointers[..], &[n(len), n(c), n(pixels), add.into()]].concat();
        trial.run(&norm_each("norm_second", t, len, c), &args)?;
        let want = |i: usize| {
            let row = 2 * (i / pixels) * c + i % c;
            let (s, q) = (of_groups[row], of_groups[row + c]);
            f64::from(add) * rx[i] - rstds[i] * (q * ru[i] + q * rt[i] + s * normalised[i])
        };
        trial.close_at("second", t, dx, &(0..len).map(want).collect::<Vec<_>>(), bound(t))?;
    }
    Ok(())
}
