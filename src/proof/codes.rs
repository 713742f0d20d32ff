//! The nearest codes of rows, and a codebook's next state.

use super::*;
use crate::device::kernels::{codes_move, codes_nearest};

use Float::{Bf16, F16, F32};

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, rows, k, d) in [(F32, 150, 128, 32), (F32, 3, 5, 7), (Bf16, 37, 33, 24), (F16, 9, 70, 130)] {
        let name = format!("{} {rows} of {k} x {d}", t.name());
        let work = move |trial: &Trial<'_>| nearest(trial, t, rows, k, d);
        cases.push(Case::new("codes.ptx", &["codes_nearest"], name.clone(), work).typical(k == 128));
        let work = move |trial: &Trial<'_>| moved(trial, t, rows, k, d);
        cases.push(Case::new("codes.ptx", &["codes_move"], name, work).typical(k == 128));
    }
}

fn nearest(trial: &Trial<'_>, t: Float, rows: usize, k: usize, d: usize) -> Result<()> {
    let (x, mut codes) = (normal(1, rows * d, 1.0), normal(2, k * d, 1.0));
    // The last code is the first one again: the first wins.
    codes.copy_within(..d, (k - 1) * d);
    let (rx, rc, px, pc) = (round(t, &x), round(F32, &codes), trial.put_as(t, &x)?, trial.put(&codes)?);
    let (y, ids) = (trial.room_for(t, rows * d)?, trial.room(rows * 4)?);
    let args = [px.into(), pc.into(), y.into(), ids.into(), n(rows), n(k), n(d)];
    trial.run(&codes_nearest(t, rows), &args)?;
    let distance = |i: usize, k: usize| (0..d).map(|j| (rx[i * d + j] - rc[k * d + j]).powi(2)).sum::<f64>();
    let best = |i| (1..k).fold(0, |best, k| if distance(i, k) < distance(i, best) { k } else { best });
    let want: Vec<usize> = (0..rows).map(best).collect();
    let got: Vec<f64> = trial.get::<i32>(ids, rows)?.iter().map(|id| f64::from(*id)).collect();
    trial.same("ids", &got, &want.iter().map(|id| *id as f64).collect::<Vec<_>>());
    let rows: Vec<f32> = want.iter().flat_map(|id| codes[id * d..][..d].to_vec()).collect();
    trial.same("y", &trial.get_as(t, y, rows.len())?, &round(t, &rows));
    Ok(())
}

fn moved(trial: &Trial<'_>, t: Float, rows: usize, k: usize, d: usize) -> Result<()> {
    let (x, sums) = (normal(1, rows * d, 1.0), normal(2, k * d, 1.0));
    let counts: Vec<f32> = normal(3, k, 1.0).iter().map(|x| 1.0 + x.abs()).collect();
    let ids: Vec<i32> = (0..rows).map(|i| (i * i * 31 % k) as i32).collect();
    let (rx, px, pi) = (round(t, &x), trial.put_as(t, &x)?, trial.put(&ids)?);
    let (pn, pm) = (trial.put(&counts)?, trial.put(&sums)?);
    // Seed and step as a step's state has them; see adamw.ptx.
    let (seed, step, micro) = (77u64, 5u64, 2u32);
    let state = trial.put(&[seed, step])?;
    let stream = Stream::new(seed, Purpose::Latent, 4, step << 16 | u64::from(micro));
    let (decay, dead) = (0.75f32, 1.25f32);
    let (e, new_n, new_m) = (trial.room(k * d * 4)?, trial.room(k * 4)?, trial.room(k * d * 4)?);
    let pointers = [px, pi, pn, pm, e, new_n, new_m, state].map(Arg::from);
    let numbers = [n(rows), n(d), Arg::U32(stream.place().0), Arg::U32(micro)];
    let floats = [decay, 1.0 - decay, dead].map(Arg::F32);
    trial.run(&codes_move(t, k, d), &[&pointers[..], &numbers, &floats].concat())?;
    let (mut want_n, mut want_m) = (round(F32, &counts), round(F32, &sums));
    for code in 0..k {
        let of: Vec<usize> = (0..rows).filter(|&i| ids[i] as usize == code).collect();
        want_n[code] = f64::from(decay) * want_n[code] + f64::from(1.0 - decay) * of.len() as f64;
        let anew = want_n[code] < f64::from(dead);
        let row = ((u64::from(stream.bits(code as u64)) * rows as u64) >> 32) as usize;
        for j in 0..d {
            let sum: f64 = of.iter().map(|i| rx[i * d + j]).sum();
            let old = want_m[code * d + j];
            let kept = f64::from(decay) * old + f64::from(1.0 - decay) * sum;
            want_m[code * d + j] = if anew { rx[row * d + j] } else { kept };
        }
        want_n[code] = if anew { 1.0 } else { want_n[code] };
    }
    trial.close_at("N", F32, new_n, &want_n, 1e-6)?;
    trial.close_at("m", F32, new_m, &want_m, 1e-5)?;
    let want: Vec<f64> = (0..k * d).map(|i| want_m[i] / want_n[i / d]).collect();
    trial.close_at("e", F32, e, &want, 1e-5)
}
