//! Convolutions: gathered, spread, and the gradient of their weights.

use super::flat::exact;
use super::*;
use crate::device::kernels::conv;

use Float::{Bf16, F32};

/// A convolution: pictures, large ones (H, W, C), small ones (h, w, O), kernel, stride and padding.
#[derive(Clone, Copy)]
struct Conv {
    t: Float,
    f: &'static str,
    large: [usize; 3],
    small: [usize; 3],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    /// Whether there are a bias, a side result and something to add.
    full: bool,
}

/// Pictures.
const N: usize = 2;
/// Pixels of a run.
const RUN: usize = 32;

pub(super) fn cases(cases: &mut Vec<Case>) {
    let mut add = |conv: Conv, typical: bool| {
        let Conv { t, f, large: [h, w, c], small: [_, _, o], kernel: [kh, kw], stride, padding, full } = conv;
        let more = if full { ", bias and sum" } else { "" };
        let name = format!("{} {h}x{w}x{c} to {o}, {kh}x{kw} s{stride} p{padding} {f}{more}", t.name());
        let entries = ["conv_gather", "conv_spread", "conv_weigh"];
        cases.push(Case::new("conv.ptx", &entries, name, move |trial| conv.check(trial)).typical(typical));
    };
    for t in [F32, Bf16] {
        let one = Conv {
            t,
            f: "none",
            large: [8, 8, 16],
            small: [4, 4, 72],
            kernel: [4, 4],
            stride: 2,
            padding: 1,
            full: false,
        };
        add(one, true);
        add(Conv { large: [8, 8, 1], small: [4, 4, 8], full: true, f: "relu", ..one }, false);
        add(
            Conv { large: [5, 4, 3], small: [5, 4, 5], kernel: [3, 3], stride: 1, full: true, f: "silu", ..one },
            false,
        );
        add(Conv { large: [6, 5, 8], small: [2, 2, 7], kernel: [2, 2], stride: 3, padding: 0, ..one }, false);
    }
}

impl Conv {
    /// All products that there are: `(small's row, large's row, tap)`, each of as many channels.
    fn products(&self) -> Vec<[usize; 3]> {
        let Conv { large: [h, w, _], small: [small_h, small_w, _], kernel: [kh, kw], stride, padding, .. } = *self;
        let mut all = Vec::new();
        for m in 0..N * small_h * small_w {
            let (n, i, j) = (m / (small_h * small_w), m / small_w % small_h, m % small_w);
            for (ky, kx) in (0..kh * kw).map(|tap| (tap / kw, tap % kw)) {
                let (y, x) = (i * stride + ky, j * stride + kx);
                if (padding..h + padding).contains(&y) && (padding..w + padding).contains(&x) {
                    all.push([m, (n * h + y - padding) * w + x - padding, ky * kw + kx]);
                }
            }
        }
        all
    }

    fn check(&self, trial: &Trial<'_>) -> Result<()> {
        let Conv { t, f, large: [h, w, c], small: [small_h, small_w, o], kernel: [kh, kw], stride, padding, full } =
            *self;
        let (many, pixels, taps) = (N * h * w, N * small_h * small_w, kh * kw);
        let [large, small, weight] =
            [(0, many * c, 1.0), (1, pixels * o, 1.0), (2, o * taps * c, 0.2)].map(|(i, len, std)| normal(i, len, std));
        let (old_small, old_large, bias) =
            (normal(3, pixels * o, 1.0), normal(4, many * c, 1.0), normal(5, o.max(c), 1.0));
        let [rl, rs, rw] = [&large, &small, &weight].map(|x| round(t, x));
        let (pl, ps, pw) = (trial.put_as(t, &large)?, trial.put_as(t, &small)?, trial.put_as(t, &weight)?);
        let pbias = trial.put(&bias)?;
        let numbers = [N, h, w, c, small_h, small_w, o, kh, kw, stride, padding].map(n);
        let products = self.products();
        let at = |o: usize, tap: usize, c_: usize| (o * taps + tap) * c + c_;

        // Gathered and spread, with the same epilogue.
        let mut sums = [vec![0.0; pixels * o], vec![0.0; many * c]];
        for &[m, pixel, tap] in &products {
            for (o_, c_) in (0..o * c).map(|i| (i / c, i % c)) {
                sums[0][m * o + o_] += rl[pixel * c + c_] * rw[at(o_, tap, c_)];
                sums[1][pixel * c + c_] += rs[m * o + o_] * rw[at(o_, tap, c_)];
            }
        }
        let largest = N * h.div_ceil(stride) * w.div_ceil(stride);
        let runs = [
            ("conv_gather", pl, &old_small, o, [pixels, o, 1]),
            ("conv_spread", ps, &old_large, c, [largest, c, stride * stride]),
        ];
        for ((entry, from, old, columns, blocks), sums) in runs.into_iter().zip(&sums) {
            let (py, pz) = (trial.result(t, old, full.into())?, trial.room_for(t, sums.len())?);
            let mut args =
                vec![from.into(), pw.into(), py.into(), given(full, pbias), given(full, py), given(full, pz)];
            args.extend(numbers);
            trial.run(&conv(entry, t, f, [c, o], blocks), &args)?;
            let bias = |i: usize| if full { f64::from(bias[i % columns]) } else { 0.0 };
            let z: Vec<f64> = sums.iter().enumerate().map(|(i, sum)| sum + bias(i)).collect();
            let added = if full { round(t, old) } else { vec![0.0; z.len()] };
            let y: Vec<f64> = z.iter().zip(&added).map(|(z, added)| exact(f, *z) + added).collect();
            trial.close_at(entry, t, py, &y, bound(t))?;
            if full {
                trial.close_at(&format!("{entry}, z"), t, pz, &z, bound(t))?;
            }
        }

        let runs = pixels.div_ceil(RUN);
        let mut want = vec![0.0; runs * o * taps * c];
        for &[m, pixel, tap] in &products {
            for (o_, c_) in (0..o * c).map(|i| (i / c, i % c)) {
                want[m / RUN * o * taps * c + at(o_, tap, c_)] += rs[m * o + o_] * rl[pixel * c + c_];
            }
        }
        let partial = trial.room_for(F32, want.len())?;
        let mut args = vec![ps.into(), pl.into(), partial.into(), n(RUN)];
        args.extend(numbers);
        trial.run(&conv("conv_weigh", t, f, [c, o], [o, taps * c, runs]), &args)?;
        trial.close_at("conv_weigh", F32, partial, &want, bound(F32))
    }
}
