//! The optimizer: the norm of the gradients, the update, and the steps that change nothing.

use super::*;
use crate::device::kernels::{adamw, clip, partial_sums};

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, len, aligned, decays) in
        [(Float::F32, 5, true, 1u32), (Float::Bf16, 3001, true, 0), (Float::F32, 1003, false, 1)]
    {
        let decay = if decays == 1 { " with decay" } else { "" };
        let name = format!("{} {len}{decay}{}", t.name(), if aligned { "" } else { " unaligned" });
        let work = move |trial: &Trial<'_>| update(trial, t, len, aligned, decays);
        cases.push(Case::new("adamw.ptx", &["adamw", "clip"], name, work).typical(len == 3001));
    }
}

fn update(trial: &Trial<'_>, t: Float, len: usize, aligned: bool, decays: u32) -> Result<()> {
    let (w, g, m) = (normal(1, len, 1.0), normal(2, len, 1.0), normal(3, len, 0.1));
    let v: Vec<f32> = normal(4, len, 0.1).iter().map(|x| x * x).collect();
    let rg = round(t, &g);
    let (pw, pg, pm, pv) = (trial.put(&w)?, trial.put_as(t, &g)?, trial.put(&m)?, trial.put(&v)?);
    let shadow = trial.room(2 * len)?;
    let (step, rms, keep) = (0.01f32, 1.3f32, 0.999f32);
    let mut state = [0u32; 16];
    for (at, x) in [(7, step), (8, rms), (9, keep), (10, 1.0)] {
        state[at] = x.to_bits();
    }
    let state = trial.put(&state)?;
    let squares = partial_sums("square_partial", t, len, aligned);
    let parts = squares.grid.blocks[0];
    let partial = trial.room(8 * parts as usize)?;
    let measure = || {
        trial.run(&squares, &[pg.into(), partial.into(), n(len)])?;
        trial.run(&clip(), &[partial.into(), state.into(), parts.into(), 1.0f32.into()])
    };
    measure()?;
    let norm = rg.iter().map(|x| x * x).sum::<f64>().sqrt();
    let factor = (1.0 / (norm + 1e-6)).min(1.0);
    let got: Vec<f32> = trial.get(state, 16)?;
    trial.close("clip and norm", &[f64::from(got[4]), f64::from(got[6])], &[factor, norm], 1e-6);
    trial.same("nothing to skip", &[f64::from(got[5].to_bits())], &[0.0]);
    let update = |shadow: u64| {
        let mut args = vec![pw.into(), pg.into(), pm.into(), pv.into(), shadow.into(), state.into(), n(len)];
        args.extend([0.9f32, 0.1, 0.95, 0.05, 1e-8].map(Arg::F32));
        args.push(decays.into());
        trial.run(&adamw(t, Float::Bf16, len, aligned), &args)
    };
    update(shadow.0)?;
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
    let now: Vec<f32> = trial.get(pw, len)?;
    let exact = round(Float::F32, &now);
    trial.close("w", &exact, &want_w, 1e-6);
    trial.close_at("m", Float::F32, pm, &want_m, 1e-6)?;
    trial.close_at("v", Float::F32, pv, &want_v, 1e-6)?;
    trial.close_at("shadow", Float::Bf16, shadow, &round(Float::Bf16, &now), 0.0)?;
    let unchanged = |what: &str| {
        trial.same(what, &trial.get_as(Float::F32, pw, len)?, &exact);
        Ok(())
    };
    // A loss that is not finite, then a gradient that is not.
    trial.rig.driver.upload(state.offset(40), &f32::INFINITY.to_le_bytes())?;
    update(0)?;
    unchanged("w after a step whose loss is infinite")?;
    trial.rig.driver.upload(state.offset(40), &1.0f32.to_le_bytes())?;
    trial.rig.driver.upload(pg, &[0xff; 4][..t.bytes()])?;
    measure()?;
    trial.same("to be skipped", &[f64::from(trial.get::<u32>(state, 16)?[5])], &[1.0]);
    update(0)?;
    unchanged("w after a gradient that is not a number")
}
