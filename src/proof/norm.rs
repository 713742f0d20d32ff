//! LayerNorm and RMSNorm, after an addition, with their gradients.

use super::*;
use crate::device::Grid;
use crate::device::kernels::{norm_backward, norm_forward};

use Float::{Bf16, F16, F32};

/// Larger than models have it, so that leaving it out is seen.
const EPS: f32 = 0.1;

pub(super) fn cases(cases: &mut Vec<Case>) {
    let kinds =
        [(true, true, false), (true, false, true), (true, true, true), (false, false, true), (false, false, false)];
    for (layer, bias, residual) in kinds {
        for (t, rows, c, shape) in [
            (F32, 5, 8, Some([4, 1, 1])),
            (F32, 9, 67, Some([1, 1, 3])),
            (F32, 3, 1000, Some([4, 4, 2])),
            (Bf16, 5, 776, Some([8, 1, 4])),
            (Bf16, 5, 768, None),
            (F16, 3, 4096, Some([8, 8, 2])),
            (Bf16, 5, 33, Some([1, 4, 1])),
            (Bf16, 3, 1600, None),
            (F32, 3, 100, None),
        ] {
            let norm = Norm { layer, bias, residual, t, rows, c, shape };
            let entries = [norm.entry(false), norm.entry(true)];
            let kind = if layer { "layernorm" } else { "rmsnorm" };
            let (bias, after) = (if bias { " bias" } else { "" }, if residual { " residual" } else { "" });
            let name = format!("{kind} {} {rows} x {c}{bias}{after}", t.name());
            let case = Case::new("norm.ptx", &entries, name, move |trial| norm.check(trial));
            cases.push(case.typical(residual && c == 768));
        }
    }
}

/// A norm with W warps a row and N vectors of V a thread; the planned one where `shape` is `None`.
struct Norm {
    layer: bool,
    bias: bool,
    residual: bool,
    t: Float,
    rows: usize,
    c: usize,
    shape: Option<[usize; 3]>,
}

impl Norm {
    fn entry(&self, backward: bool) -> &'static str {
        match (self.layer, backward) {
            (true, false) => "layernorm_fwd",
            (true, true) => "layernorm_bwd",
            (false, false) => "rmsnorm_fwd",
            (false, true) => "rmsnorm_bwd",
        }
    }

    fn plan(&self, backward: bool, run: usize) -> Plan {
        let entry = self.entry(backward);
        let planned = match backward {
            false => norm_forward(entry, self.t, self.rows, self.c),
            true => norm_backward(entry, self.t, self.rows, self.c, run),
        };
        let Some([v, w, n]) = self.shape else { return planned };
        let settings = [("V", v), ("W", w), ("N", n)].map(|(name, x)| (name, (x as i64).into()));
        let variant = Variant::new("norm.ptx", [("T", self.t.into())].into_iter().chain(settings));
        let rows = w.max(4) / w * if backward { run } else { 1 };
        Plan { variant, entry, grid: Grid::new(self.rows.div_ceil(rows) as u32, 32 * w.max(4) as u32) }
    }

    fn check(&self, trial: &Trial<'_>) -> Result<()> {
        let &Norm { layer, bias, residual, t, rows, c, .. } = self;
        let len = rows * c;
        let (x, r, g, b) = (normal(1, len, 2.0), normal(2, len, 2.0), normal(3, c, 1.0), normal(4, c, 1.0));
        let (px, pr, pg, pb) = (trial.put_as(t, &x)?, trial.put_as(t, &r)?, trial.put(&g)?, trial.put(&b)?);
        let (y, s, stats) = (trial.room_for(t, len)?, trial.room_for(t, len)?, trial.room(rows * 8)?);
        let forward = |x: Ptr, r, y: Ptr, s, stats| {
            let args = [x.into(), r, pg.into(), given(bias, pb), y.into(), s, stats, n(rows), n(c), EPS.into()];
            trial.run(&self.plan(false, 1), &args)
        };
        forward(px, given(residual, pr), y, given(residual, s), stats.into())?;
        let (rx, rr) = (round(t, &x), round(t, &r));
        let sum = |i: usize| rx[i] as f32 + if residual { rr[i] as f32 } else { 0.0 };
        let exact_s = round(t, &(0..len).map(sum).collect::<Vec<f32>>());
        if residual {
            trial.close("s", &trial.get_as(t, s, len)?, &exact_s, 0.0);
        }
        // Per row: (s − mean) rstd, and rstd.
        let mut normalised = exact_s.clone();
        let mut scales = vec![];
        for row in normalised.chunks_exact_mut(c) {
            let mean = if layer { row.iter().sum::<f64>() / c as f64 } else { 0.0 };
            let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
            let rstd = 1.0 / (var + f64::from(EPS)).sqrt();
            row.iter_mut().for_each(|x| *x = (*x - mean) * rstd);
            scales.push(rstd);
        }
        let (g, b) = (round(F32, &g), round(F32, &b));
        let value = |i: usize| normalised[i] * g[i % c] + if bias { b[i % c] } else { 0.0 };
        let got = trial.get_as(t, y, len)?;
        trial.close("y", &got, &(0..len).map(value).collect::<Vec<_>>(), bound(t));
        let (again, from) = (trial.room_for(t, len)?, if residual { s } else { px });
        forward(from, NONE, again, NONE, NONE)?;
        trial.close("y again", &trial.get_as(t, again, len)?, &got, 0.0);

        let (dy, ds_in, old) = (normal(5, len, 1.0), normal(6, len, 1.0), normal(7, len, 1.0));
        let (rdy, rin, ro) = (round(t, &dy), round(t, &ds_in), round(t, &old));
        let (pdy, pin) = (trial.put_as(t, &dy)?, trial.put_as(t, &ds_in)?);
        for (run, arrives, add, frozen) in [(2usize, true, 1u32, false), (3, false, 0, false), (64, true, 0, true)] {
            let ds = trial.result(t, &old, add)?;
            let runs = rows.div_ceil(run);
            let (dg, db) = (trial.room(runs * c * 4)?, trial.room(runs * c * 4)?);
            let mut args = vec![from.into(), stats.into(), pg.into(), pdy.into(), given(arrives, pin), ds.into()];
            args.extend([given(!frozen, dg), given(bias && !frozen, db), n(rows), n(c), n(run), add.into()]);
            trial.run(&self.plan(true, run), &args)?;
            let (mut want, mut want_g, mut want_b) = (vec![], vec![0.0; runs * c], vec![0.0; runs * c]);
            for (i, rstd) in scales.iter().enumerate() {
                let at = |j: usize| i * c + j;
                let d: Vec<f64> = (0..c).map(|j| rdy[at(j)] * g[j]).collect();
                let mean = if layer { d.iter().sum::<f64>() / c as f64 } else { 0.0 };
                let mean_n = (0..c).map(|j| d[j] * normalised[at(j)]).sum::<f64>() / c as f64;
                for j in 0..c {
                    let arrived = if arrives { rin[at(j)] } else { 0.0 };
                    let ds = rstd * (d[j] - mean - normalised[at(j)] * mean_n);
                    want.push(ds + arrived + f64::from(add) * ro[at(j)]);
                    want_g[i / run * c + j] += rdy[at(j)] * normalised[at(j)];
                    want_b[i / run * c + j] += rdy[at(j)];
                }
            }
            trial.close("ds", &trial.get_as(t, ds, len)?, &want, bound(t));
            if !frozen {
                trial.close("dg", &trial.get_as(F32, dg, runs * c)?, &want_g, 1e-5);
            }
            if bias && !frozen {
                trial.close("db", &trial.get_as(F32, db, runs * c)?, &want_b, 1e-5);
            }
        }
        Ok(())
    }
}
