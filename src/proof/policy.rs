//! The losses of policies and values.

use super::*;
use crate::device::kernels::{flat, token_sums, total};

use Float::{Bf16, F16, F32};

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, len, aligned) in
        [(F32, 1, true), (F32, 1003, true), (F32, 1003, false), (Bf16, 4096, true), (F16, 77, true)]
    {
        let name = format!("{} {len}{}", t.name(), if aligned { "" } else { " unaligned" });
        let work = move |trial: &Trial<'_>| policies(trial, t, len, aligned);
        let case = Case::new("policy.ptx", &["policy_fwd", "policy_bwd"], format!("policy {name}"), work);
        cases.push(case.typical(len == 4096));
        let work = move |trial: &Trial<'_>| values(trial, t, len, aligned);
        let case = Case::new("policy.ptx", &["value_fwd", "value_bwd"], format!("value {name}"), work);
        cases.push(case.typical(len == 4096));
    }
}

/// `x` in steps that all types hold, the last number, whose weight is 0, no number.
fn steps(mut x: Vec<f32>, step: f32) -> Vec<f32> {
    x.iter_mut().for_each(|x| *x = (*x / step).round() * step);
    if let Some(last) = x.last_mut() {
        *last = f32::NAN;
    }
    x
}

/// Weights of which some are 0, the last one too.
fn weights(len: usize) -> Vec<f32> {
    (0..len).map(|i| if i + 1 == len { 0.0 } else { [0.25, 0.0, 0.5, 0.125][i % 4] }).collect()
}

/// What one of the grid's blocks leaves in each of `N` arrays, added up.
fn sums<const N: usize>(trial: &Trial<'_>, plan: Plan, inputs: &[Arg], numbers: &[Arg]) -> Result<[f64; N]> {
    let plan = with_blocks(plan, 3);
    let mut parts = [Ptr(0); N];
    for part in &mut parts {
        *part = trial.room(3 * 8)?;
    }
    let places: Vec<Arg> = parts.iter().map(|part| (*part).into()).collect();
    trial.run(&plan, &[inputs, &places, numbers].concat())?;
    let mut sums = [0.0; N];
    for (sum, part) in sums.iter_mut().zip(parts) {
        let y = trial.room(4)?;
        trial.run(&total(), &[part.into(), y.into(), n(3), n(1)])?;
        *sum = trial.get_as(F32, y, 1)?[0];
    }
    Ok(sums)
}

fn policies(trial: &Trial<'_>, t: Float, len: usize, aligned: bool) -> Result<()> {
    // Log-ratios by sixteenths, which are 0.012 off the ends of the range; d from −3 to 3 by and large.
    let logp = steps(normal(1, len, 1.0), 1.0 / 16.0);
    let beside = |tensor: u32, deviation: f32| -> Vec<f32> {
        steps(normal(tensor, len, deviation), 1.0 / 16.0).iter().zip(&logp).map(|(d, l)| l + d).collect()
    };
    let (old, reference, a, w) = (beside(2, 0.3), beside(3, 1.0), steps(normal(4, len, 1.0), 0.25), weights(len));
    let x = [&logp, &old, &reference, &a, &w].map(|x| round(t, x));
    let mut inputs = Vec::new();
    for x in [&logp, &old, &reference, &a, &w] {
        inputs.push(trial.put_as(t, x)?.into());
    }
    let (low, high, dy) = (0.8f32, 1.3f32, 0.7f32);
    for beta in [0.0f32, 0.04] {
        let numbers = [n(len), low.into(), high.into(), beta.into()];
        let got: [f64; 3] = sums(trial, token_sums("policy_fwd", t, len, aligned), &inputs, &numbers)?;
        let (mut want, mut slopes) = ([0.0; 3], vec![0.0; len]);
        for i in (0..len).filter(|&i| w[i] > 0.0) {
            let (r, d) = ((x[0][i] - x[1][i]).exp(), x[2][i] - x[0][i]);
            let (plain, clipped) = (r * x[3][i], r.clamp(low.into(), high.into()) * x[3][i]);
            let (k, out) = (d.exp_m1() - d, clipped < plain);
            want[0] += x[4][i] * (f64::from(beta) * k - plain.min(clipped));
            want[1] += x[4][i] * k;
            want[2] += if out { x[4][i] } else { 0.0 };
            slopes[i] = x[4][i] * (-if out { 0.0 } else { plain } - f64::from(beta) * d.exp_m1());
        }
        for (what, (got, want)) in ["loss", "kl", "clipped"].into_iter().zip(got.into_iter().zip(want)) {
            trial.close(what, &[got], &[want], 1e-5);
        }
        for add in [0u32, 1] {
            let there = normal(5, len, 1.0);
            let (pdy, d) = (trial.put(&[dy])?, trial.result(t, &there, add)?);
            let args = [&inputs[..], &[pdy.into(), d.into()], &numbers, &[add.into()]].concat();
            trial.run(&flat("policy.ptx", "policy_bwd", t, len, aligned), &args)?;
            let there = round(t, &there);
            let want = (0..len).map(|i| f64::from(dy) * slopes[i] + f64::from(add) * there[i]);
            trial.close_at("gradient", t, d, &want.collect::<Vec<_>>(), bound(t))?;
        }
    }
    Ok(())
}

fn values(trial: &Trial<'_>, t: Float, len: usize, aligned: bool) -> Result<()> {
    let v = steps(normal(1, len, 1.0), 0.125);
    let beside = |tensor: u32| -> Vec<f32> {
        steps(normal(tensor, len, 0.5), 0.125).iter().zip(&v).map(|(d, v)| v + d).collect()
    };
    let (old, returns, w) = (beside(2), beside(3), weights(len));
    let x = [&v, &old, &returns, &w].map(|x| round(t, x));
    let mut inputs = Vec::new();
    for x in [&v, &old, &returns, &w] {
        inputs.push(trial.put_as(t, x)?.into());
    }
    let dy = 0.7f32;
    for clip in [0.2f32, f32::INFINITY] {
        let numbers = [n(len), clip.into()];
        let got: [f64; 2] = sums(trial, token_sums("value_fwd", t, len, aligned), &inputs, &numbers)?;
        let (mut want, mut slopes) = ([0.0; 2], vec![0.0; len]);
        for i in (0..len).filter(|&i| w[i] > 0.0) {
            let c = x[0][i].clamp(x[1][i] - f64::from(clip), x[1][i] + f64::from(clip));
            let (plain, clipped) = ((x[0][i] - x[2][i]).powi(2), (c - x[2][i]).powi(2));
            want[0] += 0.5 * x[3][i] * plain.max(clipped);
            want[1] += if clipped > plain { x[3][i] } else { 0.0 };
            slopes[i] = if clipped > plain { 0.0 } else { x[3][i] * (x[0][i] - x[2][i]) };
        }
        for (what, (got, want)) in ["loss", "clipped"].into_iter().zip(got.into_iter().zip(want)) {
            trial.close(what, &[got], &[want], 1e-5);
        }
        for add in [0u32, 1] {
            let there = normal(5, len, 1.0);
            let (pdy, d) = (trial.put(&[dy])?, trial.result(t, &there, add)?);
            let args = [&inputs[..], &[pdy.into(), d.into()], &numbers, &[add.into()]].concat();
            trial.run(&flat("policy.ptx", "value_bwd", t, len, aligned), &args)?;
            let there = round(t, &there);
            let want = (0..len).map(|i| f64::from(dy) * slopes[i] + f64::from(add) * there[i]);
            trial.close_at("gradient", t, d, &want.collect::<Vec<_>>(), bound(t))?;
        }
    }
    Ok(())
}
