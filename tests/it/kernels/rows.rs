//! Kernels that go over rows.

use super::*;
use kiln::device::kernels::{
    column_sums, embedding, logits, norm_backward, norm_forward, partial_sums, rope, row_sums, row_sums_backward,
    run_of_rows, sum_blocks, total, xent_sum,
};

use Float::{Bf16, F16, F32};

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
    fn plan(&self, backward: bool, run: usize) -> Plan {
        let entry = match (self.layer, backward) {
            (true, false) => "layernorm_fwd",
            (true, true) => "layernorm_bwd",
            (false, false) => "rmsnorm_fwd",
            (false, true) => "rmsnorm_bwd",
        };
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

    fn check(&self) {
        let &Norm { layer, bias, residual, t, rows, c, .. } = self;
        let bench = Bench::new();
        let what = format!("layer={layer} bias={bias} residual={residual} {t:?} {rows}x{c}");
        let len = rows * c;
        let (x, r, g, b) = (normal(1, len, 2.0), normal(2, len, 2.0), normal(3, c, 1.0), normal(4, c, 1.0));
        let (px, pr, pg, pb) = (bench.put_as(t, &x), bench.put_as(t, &r), bench.put(&g), bench.put(&b));
        let (y, s, stats) = (bench.room_for(t, len), bench.room_for(t, len), bench.room(rows * 8));
        let given = |given: bool, p: Ptr| if given { p.into() } else { NONE };
        let forward = |x: Ptr, r, y: Ptr, s, stats| {
            let args = [x.into(), r, pg.into(), given(bias, pb), y.into(), s, stats, n(rows), n(c), 1e-5f32.into()];
            bench.run(&self.plan(false, 1), &args);
        };
        forward(px, given(residual, pr), y, given(residual, s), stats.into());
        let (rx, rr) = (round(t, &x), round(t, &r));
        let sum = |i: usize| rx[i] as f32 + if residual { rr[i] as f32 } else { 0.0 };
        let exact_s = round(t, &(0..len).map(sum).collect::<Vec<f32>>());
        if residual {
            close(&what, &bench.get_as(t, s, len), &exact_s, 0.0);
        }
        // Per row: (s − mean) rstd, and rstd.
        let mut normalised = exact_s.clone();
        let mut scales = vec![];
        for row in normalised.chunks_exact_mut(c) {
            let mean = if layer { row.iter().sum::<f64>() / c as f64 } else { 0.0 };
            let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
            let rstd = 1.0 / (var + 1e-5).sqrt();
            row.iter_mut().for_each(|x| *x = (*x - mean) * rstd);
            scales.push(rstd);
        }
        let (g, b) = (round(F32, &g), round(F32, &b));
        let value = |i: usize| normalised[i] * g[i % c] + if bias { b[i % c] } else { 0.0 };
        let got = bench.get_as(t, y, len);
        close(&format!("{what} y"), &got, &(0..len).map(value).collect::<Vec<_>>(), bound(t));
        let (again, from) = (bench.room_for(t, len), if residual { s } else { px });
        forward(from, NONE, again, NONE, NONE);
        close(&format!("{what} y again"), &bench.get_as(t, again, len), &got, 0.0);

        let (dy, ds_in, old) = (normal(5, len, 1.0), normal(6, len, 1.0), normal(7, len, 1.0));
        let (rdy, rin, ro) = (round(t, &dy), round(t, &ds_in), round(t, &old));
        let (pdy, pin) = (bench.put_as(t, &dy), bench.put_as(t, &ds_in));
        for (run, arrives, add, frozen) in [(2usize, true, 1u32, false), (3, false, 0, false), (64, true, 0, true)] {
            let ds = bench.result(t, &old, add);
            let runs = rows.div_ceil(run);
            let (dg, db) = (bench.room(runs * c * 4), bench.room(runs * c * 4));
            let mut args = vec![from.into(), stats.into(), pg.into(), pdy.into(), given(arrives, pin), ds.into()];
            args.extend([given(!frozen, dg), given(bias && !frozen, db), n(rows), n(c), n(run), add.into()]);
            bench.run(&self.plan(true, run), &args);
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
            close(&format!("{what} ds"), &bench.get_as(t, ds, len), &want, bound(t));
            if !frozen {
                close(&format!("{what} dg"), &bench.get_as(F32, dg, runs * c), &want_g, 1e-5);
            }
            if bias && !frozen {
                close(&format!("{what} db"), &bench.get_as(F32, db, runs * c), &want_b, 1e-5);
            }
        }
    }
}

#[test]
fn norms_and_their_gradients() {
    let kinds =
        [(true, true, false), (true, false, true), (true, true, true), (false, false, true), (false, false, false)];
    for (layer, bias, residual) in kinds {
        for (t, rows, c, shape) in [
            (F32, 5, 8, Some([4, 1, 1])),
            (F32, 9, 67, Some([1, 1, 3])),
            (F32, 3, 1000, Some([4, 4, 2])),
            (Bf16, 5, 768, Some([8, 1, 3])),
            (F16, 3, 4096, Some([8, 8, 2])),
            (Bf16, 5, 33, Some([1, 4, 1])),
            (Bf16, 3, 1600, None),
            (F32, 3, 100, None),
        ] {
            Norm { layer, bias, residual, t, rows, c, shape }.check();
        }
    }
}

#[test]
fn sums_of_columns_rows_and_all() {
    for (t, rows, c) in [(F32, 5, 8), (F32, 70, 67), (Bf16, 133, 768), (F16, 9, 520)] {
        let bench = Bench::new();
        let x = normal(1, rows * c, 1.0);
        let (rx, px) = (round(t, &x), bench.put_as(t, &x));
        let run = run_of_rows(rows);
        let runs = rows.div_ceil(run);
        let partial = bench.room(runs * c * 4);
        bench.run(&column_sums(t, rows, c, run), &[px.into(), partial.into(), n(rows), n(c), n(run)]);
        for add in [0u32, 1] {
            let old = normal(2, c, 1.0);
            let y = bench.result(F32, &old, add);
            bench.run(&sum_blocks(c), &[partial.into(), y.into(), n(runs), n(c), add.into()]);
            let column = |j: usize| (0..rows).map(|i| rx[i * c + j]).sum::<f64>() + f64::from(add) * f64::from(old[j]);
            close("column sums", &bench.get_as(F32, y, c), &(0..c).map(column).collect::<Vec<_>>(), 1e-5);
        }
        let y = bench.room(rows * 4);
        bench.run(&row_sums(t, rows, c), &[px.into(), y.into(), n(rows), n(c), (1.0 / c as f32).into()]);
        let means: Vec<f64> = rx.chunks_exact(c).map(|row| row.iter().sum::<f64>() / c as f64).collect();
        close("row means", &bench.get_as(F32, y, rows), &means, 1e-5);
        for add in [0u32, 1] {
            let dx = bench.result(t, &x, add);
            let args = [y.into(), dx.into(), n(rows * c), n(c), 0.5f32.into(), add.into()];
            bench.run(&row_sums_backward(t, rows, c), &args);
            let want: Vec<f64> = (0..rows * c).map(|i| 0.5 * means[i / c] + f64::from(add) * rx[i]).collect();
            close("row means back", &bench.get_as(t, dx, rows * c), &want, bound(t));
        }
        for (entry, square) in [("sum_partial", false), ("square_partial", true)] {
            for (len, aligned, parts) in [(rows * c - 1, true, 40), (rows * c - 1, false, 1), (1, true, 1)] {
                let plan = with_grid(partial_sums(entry, t, len, aligned), parts);
                let parts = plan.grid.blocks[0] as usize;
                let (partial, y) = (bench.room(parts * 8), bench.room(4));
                bench.run(&plan, &[px.into(), partial.into(), n(len)]);
                bench.run(&total(), &[partial.into(), y.into(), n(parts), 7u32.into()]);
                let want = rx[..len].iter().map(|x| if square { x * x } else { *x }).sum::<f64>() / 7.0;
                close(entry, &bench.get_as(F32, y, 1), &[want], 1e-5);
            }
        }
    }
}

/// The logarithm of the sum of exponentials.
fn lse(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

const LOGITS: [(Float, usize, usize, usize); 5] =
    [(F32, 3, 5, 8), (F32, 4, 2311, 2312), (Bf16, 5, 2050, 2056), (F32, 3, 67, 67), (F16, 2, 8, 8)];

#[test]
fn cross_entropy_and_its_gradient_in_place() {
    for (t, rows, c, pitch) in LOGITS {
        let bench = Bench::new();
        let z = normal(1, rows * pitch, 3.0);
        let rz = round(t, &z);
        let targets: Vec<i32> = (0..rows).map(|i| if i == 1 { -100 } else { (i * 7919 % c) as i32 }).collect();
        let weights: Vec<f32> = (0..rows).map(|i| [1.0, 0.5, 2.0][i % 3]).collect();
        let (pt, pw) = (bench.put(&targets), bench.put(&weights));
        for (weighted, grad) in [(false, 0u32), (false, 1), (true, 1)] {
            let (pz, norm, losses, loss) = (bench.put_as(t, &z), bench.room(4), bench.room(rows * 4), bench.room(4));
            let w: Arg = if weighted { pw.into() } else { NONE };
            bench.run(&xent_sum("xent_norm"), &[pt.into(), w, norm.into(), n(rows)]);
            let args = [pz.into(), pt.into(), w, norm.into(), losses.into(), n(c), n(pitch), grad.into()];
            bench.run(&logits("xent", t, rows, pitch), &args);
            bench.run(&xent_sum("xent_total"), &[losses.into(), norm.into(), loss.into(), n(rows)]);
            let weight = |i: usize| match () {
                () if targets[i] < 0 => 0.0,
                () if weighted => f64::from(weights[i]),
                () => 1.0,
            };
            let norm: f64 = (0..rows).map(weight).sum();
            let (mut want, got) = (0.0, bench.get_as(t, pz, rows * pitch));
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
                close("dz", got, &dz, bound(t));
                close("what lies between rows", got_beyond, beyond, 0.0);
            }
            close("loss", &bench.get_as(F32, loss, 1), &[want / norm], 1e-5);
        }
    }
}

#[test]
fn log_probabilities_entropies_and_their_gradients() {
    for (t, rows, c, pitch) in LOGITS {
        let bench = Bench::new();
        let mut z = normal(1, rows * pitch, 3.0);
        z[1] = f32::NEG_INFINITY;
        let rz = round(t, &z);
        let ids: Vec<i32> = (0..rows).map(|i| (i * 7919 % c) as i32).collect();
        let (pz, pi) = (bench.put_as(t, &z), bench.put(&ids));
        let [logp, entropy, log_z] = [0; 3].map(|_| bench.room(rows * 4));
        let args = [pz.into(), pi.into(), logp.into(), entropy.into(), log_z.into(), n(c), n(pitch)];
        bench.run(&logits("token_logprob_fwd", t, rows, pitch), &args);
        let row = |i: usize| &rz[i * pitch..][..c];
        let want_z: Vec<f64> = (0..rows).map(|i| lse(row(i))).collect();
        let want_p: Vec<f64> = (0..rows).map(|i| row(i)[ids[i] as usize] - want_z[i]).collect();
        let term = |x: f64| if x.is_finite() { -x.exp() * x } else { 0.0 };
        let want_h: Vec<f64> = (0..rows).map(|i| row(i).iter().map(|x| term(x - want_z[i])).sum()).collect();
        close("log p", &bench.get_as(F32, logp, rows), &want_p, 1e-5);
        close("entropy", &bench.get_as(F32, entropy, rows), &want_h, 1e-5);
        close("log of the sum", &bench.get_as(F32, log_z, rows), &want_z, 1e-5);
        let (dp, dh, old) = (normal(5, rows, 1.0), normal(6, rows, 1.0), normal(7, rows * pitch, 1.0));
        let (pdp, pdh, ro) = (bench.put(&dp), bench.put(&dh), round(t, &old));
        for (add, of_p, of_h) in [(0u32, true, true), (1, true, false), (0, false, true)] {
            let dz = bench.put_as(t, &old);
            let given = |given: bool, p: Ptr| if given { p.into() } else { NONE };
            let mut args = vec![pz.into(), pi.into(), entropy.into(), log_z.into(), given(of_p, pdp), given(of_h, pdh)];
            args.extend([dz.into(), n(c), n(pitch), add.into()]);
            bench.run(&logits("token_logprob_bwd", t, rows, pitch), &args);
            let got = bench.get_as(t, dz, rows * pitch);
            for i in 0..rows {
                let slope = |j: usize| {
                    let log_p = row(i)[j] - want_z[i];
                    let hit = f64::from(u8::from(j as i32 == ids[i]));
                    let first = if of_p { f64::from(dp[i]) * (hit - log_p.exp()) } else { 0.0 };
                    let entropy = if log_p.is_finite() { log_p.exp() * (log_p + want_h[i]) } else { 0.0 };
                    let second = if of_h { f64::from(dh[i]) * entropy } else { 0.0 };
                    first - second + f64::from(add) * ro[i * pitch + j]
                };
                close("dz", &got[i * pitch..][..c], &(0..c).map(slope).collect::<Vec<_>>(), bound(t).max(2e-5));
            }
        }
    }
}

#[test]
fn rope_turns_heads_and_copies_the_rest() {
    for (t, batch, time, heads, rest, dim, offset) in
        [(F32, 2, 5, 3, 0, 16, 0), (F32, 2, 3, 6, 2, 6, 7), (Bf16, 1, 9, 5, 1, 64, 3), (F16, 2, 3, 2, 2, 32, 0)]
    {
        let bench = Bench::new();
        let (rows, c, half) = (batch * time, (heads + rest) * dim, dim / 2);
        let x = normal(1, rows * c, 1.0);
        let rx = round(t, &x);
        let angle = |i: usize| (i / half) as f64 * 10_000f64.powf(-2.0 * (i % half) as f64 / dim as f64);
        let table = |f: fn(f64) -> f64| (0..(offset + time) * half).map(|i| f(angle(i)) as f32).collect::<Vec<_>>();
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let (pc, ps) = (bench.put(&cos), bench.put(&sin));
        for (sign, add, in_place) in [(1.0f32, 0u32, false), (-1.0, 1, false), (1.0, 0, true)] {
            let px = bench.put_as(t, &x);
            let y = if in_place { px } else { bench.result(t, &x, add) };
            let mut args = vec![px.into(), pc.into(), ps.into(), y.into(), n(c), n(heads), n(time), n(offset)];
            args.extend([Arg::F32(sign), Arg::U32(add)]);
            bench.run(&rope(t, rows, c, dim), &args);
            let value = |i: usize| {
                let (row, channel) = (i / c, i % c);
                let old = f64::from(add) * rx[i];
                if channel >= heads * dim {
                    return rx[i] + old;
                }
                let at = (offset + row % time) * half + channel % half;
                let (cos, sin) = (f64::from(cos[at]), f64::from(sign * sin[at]));
                let first = channel % dim < half;
                old + rx[i] * cos + if first { -rx[i + half] * sin } else { rx[i - half] * sin }
            };
            close("rope", &bench.get_as(t, y, rows * c), &(0..rows * c).map(value).collect::<Vec<_>>(), bound(t));
        }
    }
}

#[test]
fn embeddings_and_their_gradients_in_the_order_of_the_cpu() {
    for (t, table, batch, time, vocab, c) in
        [(F32, F32, 2, 5, 7, 8), (Bf16, F32, 2, 70, 11, 520), (F32, Bf16, 3, 9, 50, 67)]
    {
        let bench = Bench::new();
        let (rows, start) = (batch * time, 3usize);
        let ids: Vec<i32> = (0..rows).map(|i| (i * i * 31 % vocab) as i32).collect();
        let (e, p) = (normal(1, vocab * c, 1.0), normal(2, (start + time) * c, 1.0));
        let (re, rp) = (round(table, &e), round(table, &p));
        let (pi, pe, pp) = (bench.put(&ids), bench.put_as(table, &e), bench.put_as(table, &p));
        for positions in [false, true] {
            let y = bench.room_for(t, rows * c);
            let place = if positions { pp.into() } else { NONE };
            let args = [pi.into(), pe.into(), place, y.into(), n(c), n(time), n(start)];
            bench.run(&embedding("embedding_fwd", t, table, rows, c), &args);
            let value = |i: usize| {
                let place = if positions { rp[(start + i / c % time) * c + i % c] } else { 0.0 };
                re[ids[i / c] as usize * c + i % c] + place
            };
            close("y", &bench.get_as(t, y, rows * c), &(0..rows * c).map(value).collect::<Vec<_>>(), bound(t));
        }
        let dy = normal(3, rows * c, 1.0);
        let (rdy, pdy, de) = (round(t, &dy), bench.put_as(t, &dy), bench.put(&e));
        let plan = embedding("embedding_bwd", t, F32, rows, c);
        bench.run(&plan, &[pi.into(), pdy.into(), de.into(), n(rows), n(c)]);
        let mut want = e.clone();
        (0..rows * c).for_each(|i| want[ids[i / c] as usize * c + i % c] += rdy[i] as f32);
        assert_eq!(bench.get::<f32>(de, vocab * c), want, "the sums of the CPU, bit for bit");
        for add in [0u32, 1] {
            let dp = bench.put(&p);
            let args = [pdy.into(), dp.into(), n(batch), n(time), n(c), n(start), add.into()];
            bench.run(&embedding("position_bwd", t, F32, time, c), &args);
            let mut want = round(F32, &p);
            if add == 0 {
                want[start * c..].fill(0.0);
            }
            (0..rows * c).for_each(|i| want[(start + i / c % time) * c + i % c] += rdy[i]);
            close("dp", &bench.get_as(F32, dp, (start + time) * c), &want, 1e-5);
        }
    }
}
