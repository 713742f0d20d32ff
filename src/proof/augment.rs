//! What is done to pictures before a discriminator sees them, and examples between two.

use super::*;
use crate::device::kernels::{augment, augment_draw, blend_draw, by_rows};

use Float::{Bf16, F16, F32};

const SEED: u64 = 0x1234_5678_9abc;
const STEP: u64 = 0x3_0000_0007;
const PLACE: [u32; 2] = [(Purpose::Augment as u32) << 24 | 5, 3];

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (types, size) in [([F32; 2], [8, 12, 3]), ([Bf16, F32], [7, 5, 1]), ([F32, F16], [9, 8, 8])] {
        let name = format!("{} to {}, 5 x {size:?}", types[0].name(), types[1].name());
        let work = move |trial: &Trial<'_>| pictures(trial, types, size);
        let entries = ["augment_draw", "augment_mix", "augment_gather"];
        cases.push(Case::new("augment.ptx", &entries, name, work).typical(types == [F32; 2]));
    }
    for (t, rows, c) in [(F32, 7, 784), (F32, 5, 1), (Bf16, 3, 520), (F16, 9, 33)] {
        let name = format!("{} {rows} x {c}", t.name());
        let work = move |trial: &Trial<'_>| between(trial, t, rows, c);
        cases.push(Case::new("blend.ptx", &["blend_draw", "blend_fwd", "blend_bwd"], name, work).typical(c == 784));
    }
}

fn stream() -> Stream {
    Stream::new(SEED, Purpose::Augment, 5, STEP << 16 | u64::from(PLACE[1]))
}

fn pictures(trial: &Trial<'_>, [t, to]: [Float; 2], [h, w, c]: [usize; 3]) -> Result<()> {
    const N: usize = 5;
    let (stream, pixels) = (stream(), N * h * w);
    let (table, state) = (trial.room(N * 48)?, trial.put(&[SEED, STEP])?);
    for on in [0u32, 1] {
        let mut args = vec![table.into(), state.into(), n(N)];
        args.extend(PLACE.map(Arg::U32));
        args.extend([n(h), n(w), on.into(), on.into(), on.into()]);
        trial.run(&augment_draw(N), &args)?;
        // own, pixel, all, shift; then whole numbers.
        let uniform = |i: usize, k: usize| f64::from(stream.uniform((8 * i + k) as u64));
        let below =
            |i: usize, k: usize, n: usize| ((u64::from(stream.bits((8 * i + k) as u64)) * n as u64) >> 32) as i64;
        let (mut shares, mut places) = (Vec::new(), Vec::new());
        for i in 0..N {
            let (s, k) = (2.0 * uniform(i, 1), uniform(i, 2) + 0.5);
            shares.push(if on == 1 {
                [k * s, k * (1.0 - s), 1.0 - k, uniform(i, 0) - 0.5]
            } else {
                [1.0, 0.0, 0.0, 0.0]
            });
            let mut place = [0i64; 6];
            for (axis, length) in [h, w].into_iter().enumerate().filter(|_| on == 1) {
                let (most, hole) = ((length + 4) / 8, length.div_ceil(2));
                place[axis] = below(i, 3 + axis, 2 * most + 1) - most as i64;
                let start = below(i, 5 + axis, length + 1 - hole % 2) - (hole / 2) as i64;
                place[2 + 2 * axis] = start.max(0);
                place[3 + 2 * axis] = (start + hole as i64).min(length as i64);
            }
            places.push(place);
        }
        // A row has 12 numbers, of which the last two are nobody's.
        for i in 0..N {
            let row = Ptr(table.0 + 48 * i as u64);
            trial.close_at("shares", F32, row, &shares[i], 1e-6)?;
            let got: Vec<f64> = trial.get::<i32>(Ptr(row.0 + 16), 6)?.into_iter().map(f64::from).collect();
            trial.same("places", &got, &places[i].map(|x| x as f64));
        }
        let (x, old, means) = (normal(1, pixels * c, 1.0), normal(2, pixels * c, 1.0), normal(3, N, 1.0));
        let (rx, ro) = (round(t, &x), round(to, &old));
        let (px, pm) = (trial.put_as(t, &x)?, trial.put(&means)?);
        for add in [0u32, 1] {
            let y = trial.result(to, &old, add)?;
            let pointers = [px, y, table, pm].map(Arg::from);
            let args = [&pointers[..], &[n(pixels), n(c), n(h * w), (1 - add).into(), add.into()]].concat();
            trial.run(&augment("augment_mix", [t, to], pixels), &args)?;
            let want = |k: usize| {
                let [own, pixel, all, shift] = shares[k / (h * w * c)];
                let mean = rx[k / c * c..][..c].iter().sum::<f64>() / c as f64;
                let rest = all * f64::from(means[k / (h * w * c)]) + if add == 0 { shift } else { 0.0 };
                own * rx[k] + pixel * mean + rest + f64::from(add) * ro[k]
            };
            trial.close_at("mix", to, y, &(0..pixels * c).map(want).collect::<Vec<_>>(), bound(to).max(bound(t)))?;
        }
        for back in [0u32, 1] {
            let y = trial.room_for(to, pixels * c)?;
            let args = [px.into(), y.into(), table.into(), n(pixels), n(c), n(h), n(w), back.into()];
            trial.run(&augment("augment_gather", [t, to], pixels), &args)?;
            let mut want = vec![0.0; pixels * c];
            for k in 0..pixels {
                let (i, row, column) = (k / (h * w), (k / w % h) as i64, (k % w) as i64);
                let [ty, tx, y0, y1, x0, x1] = places[i];
                let (r, q) = (row + ty, column + tx);
                let hidden = (y0..y1).contains(&row) && (x0..x1).contains(&column);
                if hidden || !(0..h as i64).contains(&r) || !(0..w as i64).contains(&q) {
                    continue;
                }
                let from = (i * h + r as usize) * w + q as usize;
                let [from, to] = if back == 1 { [k, from] } else { [from, k] };
                want[to * c..][..c].copy_from_slice(&rx[from * c..][..c]);
            }
            trial.close_at("gather", to, y, &want, bound(to).max(bound(t)))?;
        }
    }
    Ok(())
}

fn between(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let (len, stream) = (rows * c, stream());
    let (u, state) = (trial.room(4 * rows)?, trial.put(&[SEED, STEP])?);
    let args = [u.into(), state.into(), n(rows), PLACE[0].into(), PLACE[1].into()];
    trial.run(&blend_draw(rows), &args)?;
    let shares: Vec<f64> = (0..rows).map(|i| f64::from(stream.uniform(i as u64))).collect();
    trial.same("u", &trial.get_as(F32, u, rows)?, &shares);
    let (a, b) = (normal(1, len, 1.0), normal(2, len, 1.0));
    let (ra, rb) = (round(t, &a), round(t, &b));
    let (pa, pb, y) = (trial.put_as(t, &a)?, trial.put_as(t, &b)?, trial.room_for(t, len)?);
    let plan = |entry| by_rows("blend.ptx", entry, t, len, c);
    trial.run(&plan("blend_fwd"), &[pa.into(), pb.into(), u.into(), y.into(), n(len), n(c)])?;
    let want: Vec<f64> = (0..len).map(|i| ra[i] + shares[i / c] * (rb[i] - ra[i])).collect();
    trial.close_at("y", t, y, &want, bound(t))?;
    for (input, add) in [(0usize, 0u32), (1, 0), (0, 1), (1, 1)] {
        let d = trial.result(t, &b, add)?;
        trial.run(&plan("blend_bwd"), &[pa.into(), u.into(), d.into(), n(len), n(c), n(input), add.into()])?;
        let share = |i: usize| if input == 0 { 1.0 - shares[i / c] } else { shares[i / c] };
        let want: Vec<f64> = (0..len).map(|i| share(i) * ra[i] + f64::from(add) * rb[i]).collect();
        trial.close_at("d", t, d, &want, bound(t))?;
    }
    Ok(())
}
