//! Attention, forward and backward.

use super::*;
use crate::device::kernels::{Heads, attention};

use Float::{Bf16, F16, F32};

const ENTRIES: [&str; 4] = ["attention_fwd", "attention_delta", "attention_bwd_q", "attention_bwd_kv"];

pub(super) fn cases(cases: &mut Vec<Case>) {
    let mut add = |t: Float, [batch, time, heads, kv_heads, dim]: [usize; 5], typical| {
        let sizes = Heads { batch, time, heads, kv_heads, dim };
        let name = format!("{} {batch} x {time}, {heads}/{kv_heads} heads of {dim}", t.name());
        let file = if t == F32 { "sattention.ptx" } else { "attention.ptx" };
        cases.push(Case::new(file, &ENTRIES, name, move |trial| check(trial, t, sizes)).typical(typical));
    };
    for t in [Bf16, F16] {
        for sizes in [[1, 1, 1, 1, 32], [2, 67, 4, 2, 32], [1, 130, 2, 1, 64], [1, 90, 2, 2, 128]] {
            add(t, sizes, false);
        }
    }
    for sizes in [
        [2, 3, 2, 2, 4],
        [1, 67, 2, 2, 8],
        [1, 9, 4, 2, 5],
        [1, 130, 2, 1, 64],
        [1, 40, 2, 2, 33],
        [1, 80, 2, 1, 128],
        [1, 33, 1, 1, 100],
    ] {
        add(F32, sizes, false);
    }
    for (t, dim) in [(Bf16, 64), (Bf16, 32), (Bf16, 128), (F32, 64), (F32, 32), (F32, 128)] {
        add(t, [1, 128, 1, 1, dim], true);
    }
}

/// y, lse, and the gradient of qkv given that of y.
fn exact(qkv: &[f64], dy: &[f64], heads: Heads) -> [Vec<f64>; 3] {
    let Heads { batch, time, heads, kv_heads, dim } = heads;
    let width = (heads + 2 * kv_heads) * dim;
    let (mut y, mut lse) = (vec![0.0; batch * time * heads * dim], vec![0.0; batch * heads * time]);
    let mut dqkv = vec![0.0; qkv.len()];
    let scale = 1.0 / (dim as f64).sqrt();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for (b, h) in (0..batch * heads).map(|i| (i / heads, i % heads)) {
        let (k, v) = (heads + h * kv_heads / heads, heads + kv_heads + h * kv_heads / heads);
        let at = |i: usize, head: usize| {
            let start = (b * time + i) * width + head * dim;
            start..start + dim
        };
        for i in 0..time {
            let scores: Vec<f64> = (0..=i).map(|j| scale * dot(&qkv[at(i, h)], &qkv[at(j, k)])).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_z = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
            lse[(b * heads + h) * time + i] = log_z;
            let row = ((b * time + i) * heads + h) * dim;
            let p: Vec<f64> = scores.iter().map(|s| (s - log_z).exp()).collect();
            for (j, c) in (0..=i).flat_map(|j| (0..dim).map(move |c| (j, c))) {
                y[row + c] += p[j] * qkv[at(j, v).start + c];
            }
            let g = &dy[row..row + dim];
            let delta = dot(&y[row..row + dim], g);
            for j in 0..=i {
                let ds = scale * p[j] * (dot(g, &qkv[at(j, v)]) - delta);
                for c in 0..dim {
                    dqkv[at(i, h).start + c] += ds * qkv[at(j, k).start + c];
                    dqkv[at(j, k).start + c] += ds * qkv[at(i, h).start + c];
                    dqkv[at(j, v).start + c] += p[j] * g[c];
                }
            }
        }
    }
    [y, lse, dqkv]
}

fn check(trial: &Trial<'_>, t: Float, sizes: Heads) -> Result<()> {
    let Heads { batch, time, heads, kv_heads, dim } = sizes;
    let (len, rows) = (batch * time * (heads + 2 * kv_heads) * dim, batch * time * heads);
    let (qkv, dy, old) = (normal(1, len, 1.0), normal(2, rows * dim, 1.0), normal(3, len, 1.0));
    let [want_y, want_lse, want_d] = exact(&round(t, &qkv), &round(t, &dy), sizes);
    let (pq, y, lse) = (trial.put_as(t, &qkv)?, trial.room_for(t, rows * dim)?, trial.room(rows * 4)?);
    let numbers = [n(time), n(heads), n(kv_heads)];
    let args = [&[pq.into(), y.into(), lse.into()][..], &numbers].concat();
    trial.run(&attention("attention_fwd", t, sizes), &args)?;
    // Two roundings on the way to y, three to the gradients.
    let bounds = if t == F32 { [1e-5, 1e-5, 2e-5] } else { [2.0 * bound(t), 1e-4, 3.0 * bound(t)] };
    trial.close("y", &trial.get_as(t, y, rows * dim)?, &want_y, bounds[0]);
    trial.close("lse", &trial.get_as(F32, lse, rows)?, &want_lse, bounds[1]);
    let (pdy, delta, ro) = (trial.put_as(t, &dy)?, trial.room(rows * 4)?, round(t, &old));
    let args = [y.into(), pdy.into(), delta.into(), n(rows), n(time), n(heads)];
    trial.run(&attention("attention_delta", t, sizes), &args)?;
    for add in [0u32, 1] {
        let dqkv = trial.result(t, &old, add)?;
        let arrays: [Arg; 5] = [pq.into(), pdy.into(), lse.into(), delta.into(), dqkv.into()];
        let args = [&arrays[..], &numbers, &[add.into()]].concat();
        for entry in ["attention_bwd_q", "attention_bwd_kv"] {
            trial.run(&attention(entry, t, sizes), &args)?;
        }
        let want: Vec<f64> = want_d.iter().zip(&ro).map(|(d, o)| d + f64::from(add) * o).collect();
        trial.close("dqkv", &trial.get_as(t, dqkv, len)?, &want, bounds[2]);
    }
    Ok(())
}
