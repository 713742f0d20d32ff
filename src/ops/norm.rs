//! LayerNorm and RMSNorm over the last axis, with the residual addition before it.
//!
//! ```text
//! s = x + r                                  where there is a residual r; else s = x
//! LayerNorm:  y = (s − mean) / sqrt(var + eps) · g + b      mean, var over the C channels (var with 1/C)
//! RMSNorm:    y = s / sqrt(mean(s²) + eps) · g
//! ```
//! x, r: (…, C); g, b: (C). Results: y, and s where there is a residual (the stream that goes on past the block).
//!
//! Backward, per row, with n = (s − mean)·rstd and d = dy·g:
//! `ds += rstd · (d − mean(d) − n·mean(d·n))`, without mean(d) for RMSNorm; `dg = Σ_rows dy·n`, `db = Σ_rows dy`.
//! One pass over the rows computes all of it, and x and r share the one gradient.
//!
//! Sources: Ba, Kiros, Hinton 2016 (arXiv 1607.06450); Zhang, Sennrich 2019 (arXiv 1910.07467).

use super::{Case, Input};
use crate::cpu::elementwise::map2_into;
use crate::cpu::reduce::{ROWS, sum_blocks};
use crate::cpu::simd::each;
use crate::cpu::{Lanes, Vector, chunks};
use crate::simd_fn;
use crate::device::Gpu;
use crate::device::kernels;
use crate::launch::{at, flag, float, maybe, n};
use crate::device::Arg;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};

/// What is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance.
    Layer,
    /// The root of the mean square.
    Rms,
}

/// Inputs: x, then r if `residual`, then g, then b if `bias`. Results: y, then s if `residual`.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// LayerNorm or RMSNorm.
    pub kind: NormKind,
    /// Whether a bias is added (LayerNorm only).
    pub bias: bool,
    /// Whether a residual is added first.
    pub residual: bool,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// The places of r, g and b among the inputs; b's is past the end where there is none.
    fn places(&self) -> (usize, usize, usize) {
        let r = usize::from(self.residual);
        (r, r + 1, r + 2)
    }
}

/// The inputs of a block of rows.
struct Rows<'a> {
    norm: Norm,
    /// x before the residual in the forward pass, s in the backward pass.
    x: &'a [f32],
    r: &'a [f32],
    g: &'a [f32],
    b: &'a [f32],
}

simd_fn! {
    /// Writes rows of y, of s where there is a residual, and (mean, rstd) of each row.
    fn forward_rows(rows: Rows, y: &mut [f32], s: &mut [f32], stats: &mut [f32]) = forward_rows_body
}

#[inline(always)]
fn forward_rows_body<V: Vector>(rows: Rows, y: &mut [f32], s: &mut [f32], stats: &mut [f32]) {
    let Rows { norm, x, r, g, b } = rows;
    let channels = g.len();
    for (row, (y, stats)) in y.chunks_exact_mut(channels).zip(stats.chunks_exact_mut(2)).enumerate() {
        let x = &x[row * channels..][..channels];
        let s = if norm.residual {
            let (r, s) = (&r[row * channels..][..channels], &mut s[row * channels..][..channels]);
            map2_into::<V>(s, x, r, #[inline(always)] |x, r| x + r);
            &*s
        } else {
            x
        };
        let mean = match norm.kind {
            NormKind::Layer => total::<V>(channels, #[inline(always)] |i, w| V::at(&s[i..], w)) / channels as f32,
            NormKind::Rms => 0.0,
        };
        let m = V::splat(mean);
        let var = total::<V>(
            channels,
            #[inline(always)]
            |i, w| {
                // The lanes past the end hold the mean, so that their deviation is 0.
                let d = V::at_or(&s[i..], w, mean) - m;
                d * d
            },
        ) / channels as f32;
        stats.copy_from_slice(&[mean, 1.0 / (var + norm.eps).sqrt()]);
        normalise::<V>(norm.bias, s, stats, g, b, y);
    }
}

/// A row of y from a row of s and its (mean, rstd).
#[inline(always)]
fn normalise<V: Vector>(bias: bool, s: &[f32], stats: &[f32], g: &[f32], b: &[f32], y: &mut [f32]) {
    let (m, k) = (V::splat(stats[0]), V::splat(stats[1]));
    each::<V>(
        y.len(),
        #[inline(always)]
        |i, w| {
            let n = (V::at(&s[i..], w) - m) * k;
            let g = V::at(&g[i..], w);
            let value = if bias { n.fma(g, V::at(&b[i..], w)) } else { n * g };
            value.put(&mut y[i..], w);
        },
    );
}

simd_fn! {
    /// Writes rows of y from rows of s, as `x`, and their (mean, rstd).
    fn again_rows(rows: Rows, y: &mut [f32], stats: &[f32]) = again_rows_body
}

#[inline(always)]
fn again_rows_body<V: Vector>(rows: Rows, y: &mut [f32], stats: &[f32]) {
    let Rows { norm, x, g, b, .. } = rows;
    let c = g.len();
    for ((y, s), stats) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(stats.chunks_exact(2)) {
        normalise::<V>(norm.bias, s, stats, g, b, y);
    }
}

simd_fn! {
    /// Writes (or, with `beta` 1, adds to) rows of ds, and one row each of partial dg and db. `ds_in` is the gradient that
    /// arrives at s itself; it may be empty.
    fn backward_rows(
        rows: Rows, stats: &[f32], dy: &[f32], ds_in: &[f32], beta: f32, ds: &mut [f32], dg: &mut [f32], db: &mut [f32]
    ) = backward_rows_body
}

#[inline(always)]
fn backward_rows_body<V: Vector>(
    rows: Rows,
    stats: &[f32],
    dy: &[f32],
    ds_in: &[f32],
    beta: f32,
    ds: &mut [f32],
    dg: &mut [f32],
    db: &mut [f32],
) {
    let Rows { norm, x, g, .. } = rows;
    let channels = g.len();
    dg.fill(0.0);
    db.fill(0.0);
    for (row, (ds, stats)) in ds.chunks_exact_mut(channels).zip(stats.chunks_exact(2)).enumerate() {
        let (s, dy) = (&x[row * channels..][..channels], &dy[row * channels..][..channels]);
        let (m, k) = (V::splat(stats[0]), V::splat(stats[1]));
        // One pass for mean(d), mean(d·n), dg and db; one for ds, with the row in the first-level cache.
        let (mut sum_d, mut sum_dn) = (Lanes::<V>::splat(0.0), Lanes::<V>::splat(0.0));
        sum_d.run(channels, #[inline(always)] |i, w| V::at(&dy[i..], w) * V::at(&g[i..], w), #[inline(always)] |a, d| a + d);
        sum_dn.run(
            channels,
            #[inline(always)]
            |i, w| {
                let n = (V::at(&s[i..], w) - m) * k;
                let dy = V::at(&dy[i..], w);
                dy.fma(n, V::at(&dg[i..], w)).put(&mut dg[i..], w);
                (dy + V::at(&db[i..], w)).put(&mut db[i..], w);
                dy * V::at(&g[i..], w) * n
            },
            #[inline(always)]
            |a, d| a + d,
        );
        let mean_d = match norm.kind {
            NormKind::Layer => V::splat(sum_d.sum() / channels as f32),
            NormKind::Rms => V::splat(0.0),
        };
        let mean_dn = V::splat(sum_dn.sum() / channels as f32);
        each::<V>(channels, #[inline(always)] |i, w| {
            let n = (V::at(&s[i..], w) - m) * k;
            let d = V::at(&dy[i..], w) * V::at(&g[i..], w);
            let mut value = (d - mean_d - n * mean_dn) * k;
            if !ds_in.is_empty() {
                value = value + V::at(&ds_in[row * channels + i..], w);
            }
            if beta != 0.0 {
                value = value + V::at(&ds[i..], w);
            }
            value.put(&mut ds[i..], w);
        });
    }
}

/// Σ at(i, w) over a row, in 64 lanes.
#[inline(always)]
fn total<V: Vector>(n: usize, at: impl FnMut(usize, usize) -> V) -> f32 {
    let mut lanes = Lanes::<V>::splat(0.0);
    lanes.run(n, at, #[inline(always)] |acc, x| acc + x);
    lanes.sum()
}

impl Norm {
    /// The names of its kernels, forward and backward.
    fn entries(&self) -> [&'static str; 2] {
        match self.kind {
            NormKind::Layer => ["layernorm_fwd", "layernorm_bwd"],
            NormKind::Rms => ["rmsnorm_fwd", "rmsnorm_bwd"],
        }
    }

    /// The forward kernel from x to y; r, s and the rows' (mean, rstd) may be absent. `inputs` hold g and b.
    fn launch(&self, gpu: &Gpu, [x, y]: [&Tensor; 2], [r, s, stats]: [Option<&Tensor>; 3], inputs: &[Tensor]) {
        let (_, g, b) = self.places();
        let (rows, c) = x.shape().as_matrix();
        let bias = maybe(self.bias.then(|| &inputs[b]));
        let pointers = [at(x), maybe(r), at(&inputs[g]), bias, at(y), maybe(s), maybe(stats)];
        let args = [pointers.as_slice(), &[n(rows), n(c), Arg::F32(self.eps)]].concat();
        gpu.launch(kernels::norm_forward(self.entries()[0], float(x), rows, c), &args);
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        match self.kind {
            NormKind::Layer => "layernorm",
            NormKind::Rms => "rmsnorm",
        }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (r, g, b) = self.places();
        assert_eq!(x.len(), b + usize::from(self.bias), "norm: the number of inputs");
        assert!(x[r].shape == x[0].shape || !self.residual, "norm: x is {:?}, r is {:?}", x[0].shape, x[r].shape);
        assert_eq!(x[g].shape[..], [x[0].shape.last_dim()], "norm: the gain's shape");
        std::iter::repeat_n(x[0], 1 + r).collect()
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (r, g, b) = self.places();
        let (cpu, (rows, channels)) = (x[0].cpu(), x[0].shape().as_matrix());
        let mut stats = Out::new(x[0].device(), Spec::f32([rows, 2]));
        let gain = x[g].widened();
        let bias = self.bias.then(|| x[b].widened());
        let (x_, g_) = (x[0].f32(), gain.f32());
        let r_ = if self.residual { x[r].f32() } else { &[] };
        let b_ = bias.as_ref().map_or(&[][..], Tensor::f32);
        let size = ROWS * channels;
        let block = |i: usize, n: usize| Rows {
            norm: *self,
            x: &x_[i * size..][..n],
            r: if self.residual { &r_[i * size..][..n] } else { &[] },
            g: g_,
            b: b_,
        };
        let stats_ = chunks(stats.f32_mut(), 2 * ROWS);
        match y {
            [y] => cpu.threads.each((chunks(y.f32_mut(), size), stats_), |i, (y, stats)| {
                forward_rows(cpu.simd, block(i, y.len()), y, &mut [], stats);
            }),
            [y, s] => {
                let parts = (chunks(y.f32_mut(), size), chunks(s.f32_mut(), size), stats_);
                cpu.threads.each(parts, |i, (y, s, stats)| forward_rows(cpu.simd, block(i, y.len()), y, s, stats));
            }
            _ => unreachable!("norm has one result or two"),
        }
        if Need::any(need) { Tensors::from_iter([stats.freeze()]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let (r, g, b) = self.places();
        let s = if self.residual { &y[1] } else { &x[0] };
        let ds_in = dy.get(1).and_then(Option::as_ref);
        let Some(dy) = &dy[0] else {
            // Only the stream was used, not its normalised value.
            let ds_in = ds_in.expect("backward is called with a gradient");
            for i in 0..=r {
                if dx.wants(i) {
                    dx.give(i, ds_in.clone());
                }
            }
            return;
        };
        let (cpu, (rows, channels)) = (s.cpu(), s.shape().as_matrix());
        let gain = x[g].widened();
        let (s_, stats, dy_, g_) = (s.f32(), saved[0].f32(), dy.f32(), gain.f32());
        let ds_in = ds_in.map_or(&[][..], |ds| ds.f32());
        let blocks = rows.div_ceil(ROWS);
        let (mut dg, mut db) = (cpu.scratch.take(blocks * channels), cpu.scratch.take(blocks * channels));
        let size = ROWS * channels;
        let run = |beta: f32, ds: &mut [f32], dg: &mut [f32], db: &mut [f32]| {
            cpu.threads.each((chunks(ds, size), chunks(dg, channels), chunks(db, channels)), |i, (ds, dg, db)| {
                let rows = i * size..i * size + ds.len();
                let stats = &stats[2 * ROWS * i..][..2 * ds.len() / channels];
                let ds_in = if ds_in.is_empty() { ds_in } else { &ds_in[rows.clone()] };
                let inputs = Rows { norm: *self, x: &s_[rows.clone()], r: &[], g: g_, b: &[] };
                backward_rows(cpu.simd, inputs, stats, &dy_[rows], ds_in, beta, ds, dg, db);
            });
        };
        if !self.residual && dx.wants(0) {
            let mut ds = dx.out(0);
            let beta = ds.beta;
            run(beta, ds.f32_mut(), &mut dg, &mut db);
        } else {
            let mut ds = Out::new(s.device(), s.spec());
            run(0.0, ds.f32_mut(), &mut dg, &mut db);
            let ds = ds.freeze();
            for i in 0..=r {
                if self.residual && dx.wants(i) {
                    dx.give(i, ds.clone());
                }
            }
        }
        for (i, partial) in [(g, &dg), (b, &db)].into_iter().take(1 + usize::from(self.bias)) {
            if dx.wants(i) {
                let mut out = dx.out(i);
                let beta = out.beta;
                sum_blocks(cpu, beta, out.f32_mut(), partial);
            }
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (rows, _) = x[0].shape().as_matrix();
        let stats = Out::new(x[0].device(), Spec::f32([rows, 2]));
        let r = self.residual.then(|| &x[1]);
        let s = y.get(1).map(|s| &**s);
        self.launch(gpu, [&x[0], &y[0]], [r, s, Some(&stats)], x);
        if Need::any(need) { Tensors::from_iter([stats.freeze()]) } else { Tensors::new() }
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let (r, g, b) = self.places();
        let s = if self.residual { &y[1] } else { &x[0] };
        let ds_in = dy.get(1).and_then(Option::as_ref);
        let Some(dy) = &dy[0] else {
            // Only the stream was used, not its normalised value.
            let ds_in = ds_in.expect("backward is called with a gradient");
            for i in 0..=r {
                if dx.wants(i) {
                    dx.give(i, ds_in.clone());
                }
            }
            return;
        };
        let (rows, c) = s.shape().as_matrix();
        let per_run = kernels::run_of_rows(rows);
        let runs = rows.div_ceil(per_run);
        let [dg, db] = [0, 1].map(|_| Out::new(s.device(), Spec::f32([runs, c])));
        let run = |ds: &Tensor, add: bool| {
            let pointers = [at(s), at(&saved[0]), at(&x[g]), at(dy), maybe(ds_in), at(ds), at(&dg), at(&db)];
            let args = [pointers.as_slice(), &[n(rows), n(c), n(per_run), flag(add)]].concat();
            gpu.launch(kernels::norm_backward(self.entries()[1], float(s), rows, c, per_run), &args);
        };
        if !self.residual && dx.wants(0) {
            let ds = dx.out(0);
            run(&ds, ds.beta != 0.0);
        } else {
            let ds = Out::new(s.device(), s.spec());
            run(&ds, false);
            let ds = ds.freeze();
            for i in 0..=r {
                if self.residual && dx.wants(i) {
                    dx.give(i, ds.clone());
                }
            }
        }
        for (i, partial) in [(g, &dg), (b, &db)].into_iter().take(1 + usize::from(self.bias)) {
            if dx.wants(i) {
                let out = dx.out(i);
                crate::launch::sum_blocks(gpu, out.beta, &out, partial);
            }
        }
    }

    fn launch_again(&self, gpu: &Gpu, _i: usize, x: &[Tensor], y: &[Tensor], _saved: &[Tensor], out: &mut Out) {
        let s = if self.residual { &y[1] } else { &x[0] };
        self.launch(gpu, [s, out], [None; 3], x);
    }

    fn reads(&self) -> Reads {
        let (_, g, b) = self.places();
        let vectors = 1 << g | u8::from(self.bias) << b;
        match self.residual {
            true => Reads { x: vectors, y: 0b10, again: 1 },
            false => Reads { x: vectors | 1, y: 0, again: 1 },
        }
    }

    fn again(&self, _i: usize, x: &[Tensor], y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        let (_, g, b) = self.places();
        let s = if self.residual { &y[1] } else { &x[0] };
        let (cpu, channels) = (s.cpu(), s.shape().last_dim());
        let gain = x[g].widened();
        let bias = self.bias.then(|| x[b].widened());
        let (s, stats, g, b) = (s.f32(), saved[0].f32(), gain.f32(), bias.as_ref().map_or(&[][..], Tensor::f32));
        let size = ROWS * channels;
        cpu.threads.each(chunks(out.f32_mut(), size), |i, y| {
            let rows = Rows { norm: *self, x: &s[i * size..][..y.len()], r: &[], g, b };
            again_rows(cpu.simd, rows, y, &stats[2 * ROWS * i..][..2 * y.len() / channels]);
        });
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let (r, g, b) = self.places();
        let channels = x[g].data.len();
        let s = Array64::from_fn(x[0].shape, |i| x[0].data[i] + if self.residual { x[r].data[i] } else { 0.0 });
        let mut y = s.clone();
        for row in y.data.chunks_exact_mut(channels) {
            let mean = if self.kind == NormKind::Layer { row.iter().sum::<f64>() / channels as f64 } else { 0.0 };
            let var = row.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / channels as f64;
            for (j, s) in row.iter_mut().enumerate() {
                let bias = if self.bias { x[b].data[j] } else { 0.0 };
                *s = (*s - mean) / (var + f64::from(self.eps)).sqrt() * x[g].data[j] + bias;
            }
        }
        if self.residual { vec![y, s] } else { vec![y] }
    }
}

impl<'t> Var<'t> {
    /// LayerNorm of this value over its last axis, with gain `g` and perhaps a bias `b`, both (C).
    pub fn layernorm(self, g: Var<'t>, b: Option<Var<'t>>) -> Var<'t> {
        self.norm(NormKind::Layer, None, g, b, 1e-5).0
    }

    /// Adds the residual `r` (if any), then normalises: returns the normalised value and the sum, the stream that goes on.
    pub fn norm(self, kind: NormKind, r: Option<Var<'t>>, g: Var<'t>, b: Option<Var<'t>>, eps: f32) -> (Var<'t>, Var<'t>) {
        let op = Norm { kind, bias: b.is_some(), residual: r.is_some(), eps };
        let inputs: arrayvec::ArrayVec<Var, 4> = [Some(self), r, Some(g), b].into_iter().flatten().collect();
        let y = self.tape().apply(op, &inputs);
        (y, if r.is_some() { y.output(1) } else { self })
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, bias) in [(NormKind::Layer, true), (NormKind::Layer, false), (NormKind::Rms, false)] {
        for residual in [false, true] {
            let op = Norm { kind, bias, residual, eps: 1e-5 };
            let inputs = |shape: &[usize]| {
                let wide = || Input { fill: super::Fill::Normal(0.5, 2.0), ..Input::normal(Shape::new(shape)) };
                let channels = shape[shape.len() - 1];
                let mut inputs = vec![wide()];
                inputs.extend(residual.then(wide));
                inputs.push(Input::gain([channels]));
                inputs.extend(bias.then(|| Input::normal([channels]).param()));
                inputs
            };
            let name = format!("{} bias={bias} residual={residual}", op.name());
            cases.push(Case::check(format!("{name} 2x3x8"), op, inputs(&[2, 3, 8])));
            cases.push(Case::check(format!("{name} 130x67, three blocks"), op, inputs(&[130, 67])));
            cases.push(Case::bench(format!("{name} 4096x768"), op, inputs(&[4096, 768])));
        }
    }
    cases
}
