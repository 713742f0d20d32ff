//! Losses and log-probabilities of rows of logits.

use super::*;
use crate::device::kernels::{logits, xent_sum};

use Float::{Bf16, F16, F32};

/// Type, rows, classes, and elements from one row to the next.
const LOGITS: [(Float, usize, usize, usize); 5] =
    [(F32, 3, 5, 8), (F32, 4, 2311, 2312), (Bf16, 5, 2050, 2056), (F32, 3, 67, 67), (F16, 2, 8, 8)];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, rows, c, pitch) in LOGITS {
        let name = |what: &str| format!("{what} {} {rows} x {c} of {pitch}", t.name());
        let loss = move |trial: &Trial<'_>| cross_entropy(trial, t, rows, c, pitch);
        let entries = ["xent_norm", "xent", "xent_total"];
        cases.push(Case::new("xent.ptx", &entries, name("loss"), loss).typical(c > 2000));
        let probability = move |trial: &Trial<'_>| log_probability(trial, t, rows, c, pitch);
        let entries = ["token_logprob_fwd", "token_logprob_bwd"];
        cases.push(Case::new("xent.ptx", &entries, name("log p"), probability).typical(c > 2000));
    }
}

/// The logarithm of the sum of exponentials.
fn lse(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

fn cross_entropy(trial: &Trial<'_>, t: Float, rows: usize, c: usize, pitch: usize) -> Result<()> {
    let z = normal(1, rows * pitch, 3.0);
    let rz = round(t, &z);
    let targets: Vec<i32> = (0..rows).map(|i| if i == 1 { -100 } else { (i * 7919 % c) as i32 }).collect();
    let weights: Vec<f32> = (0..rows).map(|i| [1.0, 0.5, 2.0][i % 3]).collect();
    let (pt, pw) = (trial.put(&targets)?, trial.put(&weights)?);
    for (weighted, grad) in [(false, 0u32), (false, 1), (true, 1)] {
        let (pz, norm, losses, loss) = (trial.put_as(t, &z)?, trial.room(4)?, trial.room(rows * 4)?, trial.room(4)?);
        let w: Arg = if weighted { pw.into() } else { NONE };
        trial.run(&xent_sum("xent_norm"), &[pt.into(), w, norm.into(), n(rows)])?;
        let args = [pz.into(), pt.into(), w, norm.into(), losses.into(), n(c), n(pitch), grad.into()];
        trial.run(&logits("xent", t, rows, pitch), &args)?;
        trial.run(&xent_sum("xent_total"), &[losses.into(), norm.into(), loss.into(), n(rows)])?;
        let weight = |i: usize| match () {
            () if targets[i] < 0 => 0.0,
            () if weighted => f64::from(weights[i]),
            () => 1.0,
        };
        let norm: f64 = (0..rows).map(weight).sum();
        let (mut want, got) = (0.0, trial.get_as(t, pz, rows * pitch)?);
        for i in 0..rows {
            let (row, beyond) = rz[i * pitch..(i + 1) * pitch].split_at(c);
            let (got, got_beyond) = got[i * pitch..(i + 1) * pitch].split_at(c);
            let log_z = lse(row);
            if targets[i] >= 0 {
                want += weight(i) * (log_z - row[targets[i] as usize]);
            }
            let hit = |j: usize| f64::from(u8::from(j as i32 == targets[i]));
            let slope = |j: usize| weight(i) / norm * ((row[j] - log_z).exp() - hit(j));
            let dz: Vec<f64> = (0..c).map(|j| if grad == 1 { slope(j) } else { row[j] }).collect();
            trial.close("dz", got, &dz, bound(t));
            trial.close("what lies between rows", got_beyond, beyond, 0.0);
        }
        trial.close("loss", &trial.get_as(F32, loss, 1)?, &[want / norm], 1e-5);
    }
    Ok(())
}

fn log_probability(trial: &Trial<'_>, t: Float, rows: usize, c: usize, pitch: usize) -> Result<()> {
    let mut z = normal(1, rows * pitch, 3.0);
    z[1] = f32::NEG_INFINITY;
    let rz = round(t, &z);
    let ids: Vec<i32> = (0..rows).map(|i| (i * 7919 % c) as i32).collect();
    let (pz, pi) = (trial.put_as(t, &z)?, trial.put(&ids)?);
    let (logp, entropy, log_z) = (trial.room(rows * 4)?, trial.room(rows * 4)?, trial.room(rows * 4)?);
    let args = [pz.into(), pi.into(), logp.into(), entropy.into(), log_z.into(), n(c), n(pitch)];
    trial.run(&logits("token_logprob_fwd", t, rows, pitch), &args)?;
    let row = |i: usize| &rz[i * pitch..][..c];
    let want_z: Vec<f64> = (0..rows).map(|i| lse(row(i))).collect();
    let want_p: Vec<f64> = (0..rows).map(|i| row(i)[ids[i] as usize] - want_z[i]).collect();
    let term = |x: f64| if x.is_finite() { -x.exp() * x } else { 0.0 };
    let want_h: Vec<f64> = (0..rows).map(|i| row(i).iter().map(|x| term(x - want_z[i])).sum()).collect();
    trial.close("log p", &trial.get_as(F32, logp, rows)?, &want_p, 1e-5);
    trial.close("entropy", &trial.get_as(F32, entropy, rows)?, &want_h, 1e-5);
    trial.close("log of the sum", &trial.get_as(F32, log_z, rows)?, &want_z, 1e-5);
    let (dp, dh, old) = (normal(5, rows, 1.0), normal(6, rows, 1.0), normal(7, rows * pitch, 1.0));
    let (pdp, pdh, ro) = (trial.put(&dp)?, trial.put(&dh)?, round(t, &old));
    for (add, of_p, of_h) in [(0u32, true, true), (1, true, false), (0, false, true)] {
        let dz = trial.put_as(t, &old)?;
        let mut args = vec![pz.into(), pi.into(), entropy.into(), log_z.into(), given(of_p, pdp), given(of_h, pdh)];
        args.extend([dz.into(), n(c), n(pitch), add.into()]);
        trial.run(&logits("token_logprob_bwd", t, rows, pitch), &args)?;
        let got = trial.get_as(t, dz, rows * pitch)?;
        for i in 0..rows {
            let slope = |j: usize| {
                let log_p = row(i)[j] - want_z[i];
                let hit = f64::from(u8::from(j as i32 == ids[i]));
                let first = if of_p { f64::from(dp[i]) * (hit - log_p.exp()) } else { 0.0 };
                let entropy = if log_p.is_finite() { log_p.exp() * (log_p + want_h[i]) } else { 0.0 };
                let second = if of_h { f64::from(dh[i]) * entropy } else { 0.0 };
                first - second + f64::from(add) * ro[i * pitch + j]
            };
            trial.close("dz", &got[i * pitch..][..c], &(0..c).map(slope).collect::<Vec<_>>(), bound(t).max(2e-5));
        }
    }
    Ok(())
}
