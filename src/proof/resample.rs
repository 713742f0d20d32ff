//! Pooling and upsampling of pictures, and the way back.

use super::*;
use crate::device::kernels::by_rows;

use Float::{Bf16, F16, F32};

const ENTRIES: [[&str; 2]; 3] =
    [["pool_fwd", "pool_bwd"], ["nearest_fwd", "nearest_bwd"], ["bilinear_fwd", "bilinear_bwd"]];

pub(super) fn cases(cases: &mut Vec<Case>) {
    // Which, type, height, width, channels, window and stride of both axes.
    for (f, t, [h, w, c], sizes) in [
        (0, F32, [6, 8, 12], [2, 2, 2, 2]),
        (0, Bf16, [9, 7, 16], [3, 2, 2, 1]),
        (0, F16, [5, 9, 3], [2, 3, 3, 3]),
        (1, F32, [3, 4, 8], [2; 4]),
        (1, Bf16, [2, 3, 5], [3; 4]),
        (2, F32, [4, 3, 8], [2; 4]),
        (2, Bf16, [2, 5, 24], [3; 4]),
    ] {
        let name = format!("{} {} 2 x {h} x {w} x {c} by {sizes:?}", ENTRIES[f][0], t.name());
        let work = move |trial: &Trial<'_>| resample(trial, f, t, [h, w, c], sizes);
        cases.push(Case::new("resample.ptx", &ENTRIES[f], name, work).typical(t == F32));
    }
}

/// The weight of element i of n in element o.
fn weight(f: usize, [o, i]: [usize; 2], [k, s]: [usize; 2], n: usize) -> f64 {
    match f {
        0 => f64::from(u8::from((o * s..o * s + k).contains(&i))) / k as f64,
        1 => f64::from(u8::from(o / k == i)),
        _ => {
            let place = ((o as f64 + 0.5) / k as f64 - 0.5).clamp(0.0, (n - 1) as f64);
            (1.0 - (place - i as f64).abs()).max(0.0)
        }
    }
}

fn resample(trial: &Trial<'_>, f: usize, t: Float, [h, w, c]: [usize; 3], sizes: [usize; 4]) -> Result<()> {
    let [kh, sh, kw, sw] = sizes;
    let length = |x: usize, k: usize, s: usize| if f == 0 { (x - k) / s + 1 } else { x * k };
    let (oh, ow) = (length(h, kh, sh), length(w, kw, sw));
    let (len, out) = (2 * h * w * c, 2 * oh * ow * c);
    let (x, dy) = (normal(1, len, 1.0), normal(2, out, 1.0));
    let (rx, rdy) = (round(t, &x), round(t, &dy));
    let (px, pdy, y) = (trial.put_as(t, &x)?, trial.put_as(t, &dy)?, trial.room_for(t, out)?);
    let lengths = |[th, tw, fh, fw]: [usize; 4]| [th, tw, fh, fw, kh, sh, kw, sw].map(n);
    let numbers = lengths([oh, ow, h, w]);
    let args = [&[px.into(), y.into(), n(out), n(c)][..], &numbers, &[0u32.into()]].concat();
    trial.run(&by_rows("resample.ptx", ENTRIES[f][0], t, out, c), &args)?;
    let (mut want, mut want_dx) = (vec![0.0; out], vec![0.0; len]);
    for (i, r, q, o, p) in (0..2 * h * w * oh * ow).map(|z| {
        let (p, o, q) = (z % ow, z / ow % oh, z / ow / oh % w);
        (z / ow / oh / w / h, z / ow / oh / w % h, q, o, p)
    }) {
        let weight = weight(f, [o, r], [kh, sh], h) * weight(f, [p, q], [kw, sw], w);
        for j in 0..c {
            let (at, to) = (((i * h + r) * w + q) * c + j, ((i * oh + o) * ow + p) * c + j);
            want[to] += weight * rx[at];
            want_dx[at] += weight * rdy[to];
        }
    }
    trial.close_at("y", t, y, &want, bound(t))?;
    for add in [0u32, 1] {
        let dx = trial.result(t, &x, add)?;
        let args = [&[pdy.into(), dx.into(), n(len), n(c)][..], &lengths([h, w, oh, ow]), &[add.into()]].concat();
        trial.run(&by_rows("resample.ptx", ENTRIES[f][1], t, len, c), &args)?;
        let want: Vec<f64> = want_dx.iter().zip(&rx).map(|(dx, x)| dx + f64::from(add) * x).collect();
        trial.close_at("dx", t, dx, &want, bound(t))?;
    }
    Ok(())
}
