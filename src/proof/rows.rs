//! Sums over rows and columns, tables of embeddings, rotations, and halves of rows.

use super::*;
use crate::device::kernels::{
    by_rows, column_sums, embedding, partial_sums, rope, row_sums, row_sums_backward, run_of_rows, sum_blocks, total,
};

use Float::{Bf16, F16, F32};

pub(super) fn cases(cases: &mut Vec<Case>) {
    for (t, rows, c) in [(F32, 5, 8), (F32, 70, 67), (Bf16, 133, 768), (F16, 9, 520)] {
        let entries = ["column_sums", "sum_blocks", "sum_fwd", "sum_bwd", "sum_partial", "square_partial", "sum_total"];
        let name = format!("{} {rows} x {c}", t.name());
        let case = Case::new("reduce.ptx", &entries, name, move |trial| sums(trial, t, rows, c));
        cases.push(case.typical(c == 768));
    }
    for (t, batch, time, heads, rest, dim, offset) in
        [(F32, 2, 5, 3, 0, 16, 0), (F32, 2, 3, 6, 2, 6, 7), (Bf16, 1, 9, 5, 1, 64, 3), (F16, 2, 3, 2, 2, 32, 0)]
    {
        let name = format!("{} {batch} x {time}, {heads} heads of {dim} and {rest} more, from {offset}", t.name());
        let work = move |trial: &Trial<'_>| turn(trial, t, [batch, time, heads, rest, dim, offset]);
        cases.push(Case::new("rope.ptx", &["rope_fwd"], name, work).typical(dim == 64));
    }
    for (t, table, batch, time, vocab, c) in
        [(F32, F32, 2, 5, 7, 8), (Bf16, F32, 2, 70, 11, 520), (F32, Bf16, 3, 9, 50, 67)]
    {
        let entries = ["embedding_fwd", "embedding_bwd", "position_bwd"];
        let name = format!("{} of {} {batch} x {time} of {vocab} x {c}", t.name(), table.name());
        let work = move |trial: &Trial<'_>| embed(trial, t, table, [batch, time, vocab, c]);
        cases.push(Case::new("embedding.ptx", &entries, name, work).typical(c == 520));
    }
    for (t, rows, c) in [(F32, 128, 20), (F32, 5, 7), (Bf16, 9, 24), (F16, 3, 5)] {
        let name = format!("{} {rows} x 2 x {c}", t.name());
        let work = move |trial: &Trial<'_>| halves(trial, t, rows, c);
        cases.push(Case::new("split.ptx", &["split_fwd", "split_bwd"], name, work).typical(c == 20));
    }
}

fn sums(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let x = normal(1, rows * c, 1.0);
    let (rx, px) = (round(t, &x), trial.put_as(t, &x)?);
    let run = run_of_rows(rows);
    let runs = rows.div_ceil(run);
    let partial = trial.room(runs * c * 4)?;
    trial.run(&column_sums(t, rows, c, run), &[px.into(), partial.into(), n(rows), n(c), n(run)])?;
    for add in [0u32, 1] {
        let old = normal(2, c, 1.0);
        let y = trial.result(F32, &old, add)?;
        trial.run(&sum_blocks(c), &[partial.into(), y.into(), n(runs), n(c), add.into()])?;
        let column = |j: usize| (0..rows).map(|i| rx[i * c + j]).sum::<f64>() + f64::from(add) * f64::from(old[j]);
        trial.close("column sums", &trial.get_as(F32, y, c)?, &(0..c).map(column).collect::<Vec<_>>(), 1e-5);
    }
    let y = trial.room(rows * 4)?;
    trial.run(&row_sums(t, rows, c), &[px.into(), y.into(), n(rows), n(c), (1.0 / c as f32).into()])?;
    let means: Vec<f64> = rx.chunks_exact(c).map(|row| row.iter().sum::<f64>() / c as f64).collect();
    trial.close("row means", &trial.get_as(F32, y, rows)?, &means, 1e-5);
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let args = [y.into(), dx.into(), n(rows * c), n(c), 0.5f32.into(), add.into()];
        trial.run(&row_sums_backward(t, rows, c), &args)?;
        let want: Vec<f64> = (0..rows * c).map(|i| 0.5 * means[i / c] + f64::from(add) * rx[i]).collect();
        trial.close("row means back", &trial.get_as(t, dx, rows * c)?, &want, bound(t));
    }
    for (entry, square) in [("sum_partial", false), ("square_partial", true)] {
        for (len, aligned, parts) in [(rows * c - 1, true, 40), (rows * c - 1, false, 1), (1, true, 1)] {
            let plan = with_blocks(partial_sums(entry, t, len, aligned), parts);
            let parts = plan.grid.blocks[0] as usize;
            let (partial, y) = (trial.room(parts * 8)?, trial.room(4)?);
            trial.run(&plan, &[px.into(), partial.into(), n(len)])?;
            trial.run(&total(), &[partial.into(), y.into(), n(parts), 7u32.into()])?;
            let want = rx[..len].iter().map(|x| if square { x * x } else { *x }).sum::<f64>() / 7.0;
            trial.close(entry, &trial.get_as(F32, y, 1)?, &[want], 1e-5);
        }
    }
    Ok(())
}

fn turn(trial: &Trial<'_>, t: Float, [batch, time, heads, rest, dim, offset]: [usize; 6]) -> Result<()> {
    let (rows, c, half) = (batch * time, (heads + rest) * dim, dim / 2);
    let x = normal(1, rows * c, 1.0);
    let rx = round(t, &x);
    let angle = |i: usize| (i / half) as f64 * 10_000f64.powf(-2.0 * (i % half) as f64 / dim as f64);
    let table = |f: fn(f64) -> f64| (0..(offset + time) * half).map(|i| f(angle(i)) as f32).collect::<Vec<_>>();
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let (pc, ps) = (trial.put(&cos)?, trial.put(&sin)?);
    for (sign, add, in_place) in [(1.0f32, 0u32, false), (-1.0, 1, false), (1.0, 0, true)] {
        let px = trial.put_as(t, &x)?;
        let y = if in_place { px } else { trial.result(t, &x, add)? };
        let mut args = vec![px.into(), pc.into(), ps.into(), y.into(), n(c), n(heads), n(time), n(offset)];
        args.extend([Arg::F32(sign), Arg::U32(add)]);
        trial.run(&rope(t, rows, c, dim), &args)?;
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
        trial.close("rope", &trial.get_as(t, y, rows * c)?, &(0..rows * c).map(value).collect::<Vec<_>>(), bound(t));
    }
    Ok(())
}

fn embed(trial: &Trial<'_>, t: Float, table: Float, [batch, time, vocab, c]: [usize; 4]) -> Result<()> {
    let (rows, start) = (batch * time, 3usize);
    let ids: Vec<i32> = (0..rows).map(|i| (i * i * 31 % vocab) as i32).collect();
    let (e, p) = (normal(1, vocab * c, 1.0), normal(2, (start + time) * c, 1.0));
    let (re, rp) = (round(table, &e), round(table, &p));
    let (pi, pe, pp) = (trial.put(&ids)?, trial.put_as(table, &e)?, trial.put_as(table, &p)?);
    for positions in [false, true] {
        let y = trial.room_for(t, rows * c)?;
        let place = if positions { pp.into() } else { NONE };
        let args = [pi.into(), pe.into(), place, y.into(), n(c), n(time), n(start)];
        trial.run(&embedding("embedding_fwd", t, table, rows, c), &args)?;
        let value = |i: usize| {
            let place = if positions { rp[(start + i / c % time) * c + i % c] } else { 0.0 };
            re[ids[i / c] as usize * c + i % c] + place
        };
        trial.close("y", &trial.get_as(t, y, rows * c)?, &(0..rows * c).map(value).collect::<Vec<_>>(), bound(t));
    }
    let dy = normal(3, rows * c, 1.0);
    let (rdy, pdy, de) = (round(t, &dy), trial.put_as(t, &dy)?, trial.put(&e)?);
    let plan = embedding("embedding_bwd", t, F32, rows, c);
    trial.run(&plan, &[pi.into(), pdy.into(), de.into(), n(rows), n(c)])?;
    let mut want = e.clone();
    (0..rows * c).for_each(|i| want[ids[i / c] as usize * c + i % c] += rdy[i] as f32);
    trial.same("dE, the sums of the CPU", &trial.get_as(F32, de, vocab * c)?, &round(F32, &want));
    for add in [0u32, 1] {
        let dp = trial.put(&p)?;
        let args = [pdy.into(), dp.into(), n(batch), n(time), n(c), n(start), add.into()];
        trial.run(&embedding("position_bwd", t, F32, time, c), &args)?;
        let mut want = round(F32, &p);
        if add == 0 {
            want[start * c..].fill(0.0);
        }
        (0..rows * c).for_each(|i| want[(start + i / c % time) * c + i % c] += rdy[i]);
        trial.close("dp", &trial.get_as(F32, dp, (start + time) * c)?, &want, 1e-5);
    }
    Ok(())
}

fn halves(trial: &Trial<'_>, t: Float, rows: usize, c: usize) -> Result<()> {
    let len = rows * c;
    let (x, dy) = (normal(1, 2 * len, 1.0), normal(2, len, 1.0));
    let (rx, rdy, px, pdy) = (round(t, &x), round(t, &dy), trial.put_as(t, &x)?, trial.put_as(t, &dy)?);
    for half in 0..2 {
        let y = trial.room_for(t, len)?;
        let plan = by_rows("split.ptx", "split_fwd", t, len, c);
        trial.run(&plan, &[px.into(), y.into(), n(len), n(c), n(half)])?;
        let want: Vec<f64> = (0..len).map(|i| rx[i + (i / c + half) * c]).collect();
        trial.same("a half", &trial.get_as(t, y, len)?, &want);
    }
    // Of the first half there is no gradient.
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        for half in 0..2 {
            let plan = by_rows("split.ptx", "split_bwd", t, len, c);
            trial.run(&plan, &[given(half == 1, pdy), dx.into(), n(len), n(c), n(half), add.into()])?;
        }
        let new = |i: usize| if i / c % 2 == 1 { rdy[i / (2 * c) * c + i % c] } else { 0.0 };
        let want: Vec<f64> = (0..2 * len).map(|i| new(i) + f64::from(add) * rx[i]).collect();
        trial.close_at("dx", t, dx, &want, bound(t))?;
    }
    Ok(())
}
