//! BatchNorm and GroupNorm of pictures (N, …, C), with a leaky ReLU after them.
//!
//! ```text
//! n = (x − mean) / sqrt(var + eps)        mean, var (with 1/M) over M elements:
//!   batch    those of a channel in the whole batch                        result 1, 2: the running mean and variance
//!   given    inputs: a channel's running mean and variance, in evaluation
//!   groups   those of an example in C/G neighbouring channels
//! y = f(n·g + b)                          f(s) = s where s > 0, else slope · s; slope 1: none
//! running ← (1 − momentum) running + momentum · (mean, var M/(M − 1))     as PyTorch has it
//! ```
//! Inputs: x, g (C), b (C); batch and given: the running mean (C) and variance (C). The new running values are results like
//! any other: who keeps them is [`Tape::update`](crate::tape::Tape::update)'s affair. They have no gradients.
//!
//! Backward, with d = dy · f′(n·g + b): `db = Σ d`, `dg = Σ d·n`, `dx = (g·d − mean(g·d) − n·mean(g·d·n)) / sqrt(var + eps)`
//! with means as above, and without them where mean and var were given.
//!
//! Sums go over blocks of [`ROWS`] pixels, each in four interleaved chains, then over the blocks in order; squares are of
//! deviations (a block's from its own mean, then Chan's formula): one pass over memory. Sources: Ioffe, Szegedy 2015
//! (arXiv 1502.03167); Wu, He 2018 (arXiv 1803.08494); Chan, Golub, LeVeque 1983.

use super::{Case, Fill, Input};
use crate::cpu::elementwise::accumulate;
use crate::cpu::reduce::{ROWS, sum_blocks};
use crate::cpu::simd::each;
use crate::cpu::{Vector, chunks};
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, flag, float, maybe, n};
use crate::simd_fn;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};
use std::ops::Range;

/// Over what mean and variance are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistics {
    /// The batch, a channel each; the running ones move by this share.
    Batch(f32),
    /// None: they are inputs.
    Given,
    /// An example, so many groups of channels.
    Groups(usize),
}

/// A norm; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureNorm {
    /// Over what.
    pub statistics: Statistics,
    /// Added to the variance.
    pub eps: f32,
    /// The slope below 0 of what follows; 1: nothing follows.
    pub slope: f32,
}

/// Sizes: `segments` with statistics of their own, of `rows` pixels of `c` channels, `width` of which share them.
#[derive(Clone, Copy)]
struct Sizes {
    segments: usize,
    rows: usize,
    c: usize,
    width: usize,
}

impl Sizes {
    fn blocks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Elements that share statistics.
    fn count(&self) -> f32 {
        (self.rows * self.width) as f32
    }

    /// The segment of block i of all, and the block's elements.
    fn block(&self, i: usize) -> (usize, Range<usize>) {
        let (segment, first) = (i / self.blocks(), i % self.blocks() * ROWS);
        let start = (segment * self.rows + first) * self.c;
        (segment, start..start + ROWS.min(self.rows - first) * self.c)
    }

    /// Elements of a task that needs no block, all of one segment.
    fn part(&self) -> usize {
        if self.segments == 1 { ROWS * self.c } else { self.rows * self.c }
    }

    /// The segment of part i.
    fn segment(&self, i: usize) -> usize {
        if self.segments == 1 { 0 } else { i }
    }
}

/// Gain, bias and statistics of a segment: mean, 1/sqrt(var + eps), var.
#[derive(Clone, Copy)]
struct Channels<'a> {
    slope: f32,
    g: &'a [f32],
    b: &'a [f32],
    stats: &'a [f32],
}

impl Channels<'_> {
    /// (x − mean) rstd for channels j.., and the gain.
    #[inline(always)]
    fn normal<V: Vector>(&self, x: &[f32], j: usize, w: usize) -> (V, V) {
        let c = self.g.len();
        let n = (V::at(&x[j..], w) - V::at(&self.stats[j..c], w)) * V::at(&self.stats[c + j..2 * c], w);
        (n, V::at(&self.g[j..], w))
    }

    /// What `of` is, or slope · it where n·g + b is not above 0.
    #[inline(always)]
    fn bent<V: Vector>(&self, n: V, g: V, of: Option<V>, j: usize, w: usize) -> V {
        let s = n.fma(g, V::at(&self.b[j..], w));
        let of = of.unwrap_or(s);
        of.select(s.gt(V::splat(0.0)), of * V::splat(self.slope))
    }
}

#[inline(always)]
fn add<V: Vector, const N: usize>(sum: &mut [V; N], x: [V; N]) {
    for i in 0..N {
        sum[i] = sum[i] + x[i];
    }
}

/// Σ f(row) over rows of each of N numbers, in four chains.
#[inline(always)]
fn chains<V: Vector, const N: usize>(rows: usize, f: impl Fn(usize) -> [V; N]) -> [V; N] {
    let mut sums = [[V::splat(0.0); N]; 4];
    let mut first = 0;
    // Loops of known length, so that the sums stay in registers.
    while first + 4 <= rows {
        for (k, sum) in sums.iter_mut().enumerate() {
            add(sum, f(first + k));
        }
        first += 4;
    }
    for (k, sum) in sums.iter_mut().enumerate() {
        if first + k < rows {
            add(sum, f(first + k));
        }
    }
    let mut total = sums[0];
    for i in 0..N {
        total[i] = (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
    }
    total
}

simd_fn! {
    /// Mean and sum of squared deviations (2, C) of each channel of a block.
    fn block_moments(x: &[f32], moments: &mut [f32]) = block_moments_body
}
#[inline(always)]
fn block_moments_body<V: Vector>(x: &[f32], moments: &mut [f32]) {
    let c = moments.len() / 2;
    let rows = x.len() / c;
    let (means, squares) = moments.split_at_mut(c);
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let [sum] = chains(rows, #[inline(always)] |row| [V::at(&x[row * c + j..], w)]);
            let mean = sum / V::splat(rows as f32);
            mean.put(&mut means[j..], w);
            let [square] = chains(rows, #[inline(always)] |row| {
                let d = V::at(&x[row * c + j..], w) - mean;
                [d * d]
            });
            square.put(&mut squares[j..], w);
        },
    );
}

simd_fn! {
    /// Statistics (3, C) of a segment from the moments of its blocks.
    fn fold_moments(sizes: Sizes, moments: &[f32], eps: f32, stats: &mut [f32]) = fold_moments_body
}
#[inline(always)]
fn fold_moments_body<V: Vector>(sizes: Sizes, moments: &[f32], eps: f32, stats: &mut [f32]) {
    let Sizes { rows, c, width, .. } = sizes;
    let blocks = sizes.blocks();
    let (means, rest) = stats.split_at_mut(c);
    let (rstds, vars) = rest.split_at_mut(c);
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let [sum] = chains(blocks, #[inline(always)] |b| [V::at(&moments[2 * b * c + j..], w) * count::<V>(rows, b)]);
            sum.put(&mut means[j..], w);
        },
    );
    share(means, width, sizes.count());
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let mean = V::at(&means[j..], w);
            let [square] = chains(blocks, #[inline(always)] |b| {
                let d = V::at(&moments[2 * b * c + j..], w) - mean;
                [(d * d).fma(count::<V>(rows, b), V::at(&moments[(2 * b + 1) * c + j..], w))]
            });
            square.put(&mut vars[j..], w);
        },
    );
    share(vars, width, sizes.count());
    rstds.iter_mut().zip(&*vars).for_each(|(rstd, var)| *rstd = 1.0 / (var + eps).sqrt());
}

/// The rows of block `b`.
#[inline(always)]
fn count<V: Vector>(rows: usize, b: usize) -> V {
    V::splat(ROWS.min(rows - b * ROWS) as f32)
}

/// The sum of each `width` neighbours, divided by `count`, for each of them.
#[inline(always)]
fn share(x: &mut [f32], width: usize, count: f32) {
    for group in x.chunks_exact_mut(width) {
        let sum = group.iter().fold(0.0, |sum, x| sum + x);
        group.fill(sum / count);
    }
}

simd_fn! {
    /// Rows of y from rows of x.
    fn normalise(channels: Channels, x: &[f32], y: &mut [f32]) = normalise_body
}
#[inline(always)]
fn normalise_body<V: Vector>(channels: Channels, x: &[f32], y: &mut [f32]) {
    let c = channels.g.len();
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        each::<V>(
            c,
            #[inline(always)]
            |j, w| {
                let (n, g) = channels.normal::<V>(x, j, w);
                channels.bent(n, g, None, j, w).put(&mut y[j..], w);
            },
        );
    }
}

simd_fn! {
    /// Σ d and Σ d·n of each channel of a block.
    fn block_sums(channels: Channels, x: &[f32], dy: &[f32], sums: &mut [f32], products: &mut [f32]) = block_sums_body
}
#[inline(always)]
fn block_sums_body<V: Vector>(channels: Channels, x: &[f32], dy: &[f32], sums: &mut [f32], products: &mut [f32]) {
    let c = sums.len();
    let rows = x.len() / c;
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let [sum, product] = chains(rows, #[inline(always)] |row| {
                let (n, g) = channels.normal::<V>(&x[row * c..][..c], j, w);
                let d = channels.bent(n, g, Some(V::at(&dy[row * c + j..], w)), j, w);
                [d, d * n]
            });
            sum.put(&mut sums[j..], w);
            product.put(&mut products[j..], w);
        },
    );
}

simd_fn! {
    /// Rows of dx; `means` (2, C) are those of g·d and of g·d·n.
    fn backward_rows(channels: Channels, means: &[f32], beta: f32, dx: &mut [f32], x: &[f32], dy: &[f32]) = backward_rows_body
}
#[inline(always)]
fn backward_rows_body<V: Vector>(channels: Channels, means: &[f32], beta: f32, dx: &mut [f32], x: &[f32], dy: &[f32]) {
    let c = channels.g.len();
    for ((dx, x), dy) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c)) {
        accumulate::<V>(
            beta,
            dx,
            #[inline(always)]
            |j, w| {
                let (n, g) = channels.normal::<V>(x, j, w);
                let d = channels.bent(n, g, Some(V::at(&dy[j..], w)), j, w);
                let d = g * d - V::at(&means[j..c], w) - n * V::at(&means[c + j..], w);
                d * V::at(&channels.stats[c + j..2 * c], w)
            },
        );
    }
}

impl PictureNorm {
    fn sizes(&self, x: &Shape) -> Sizes {
        let c = x.last_dim();
        let pixels = x.numel() / c;
        match self.statistics {
            Statistics::Groups(groups) => Sizes { segments: x[0], rows: pixels / x[0], c, width: c / groups },
            _ => Sizes { segments: 1, rows: pixels, c, width: 1 },
        }
    }

    /// How far the running statistics move, and M/(M − 1).
    fn running(&self, sizes: &Sizes) -> Option<(f32, f32)> {
        let Statistics::Batch(momentum) = self.statistics else { return None };
        Some((momentum, sizes.count() / (sizes.count() - 1.0).max(1.0)))
    }

    /// The kernel that makes y.
    fn launch(&self, gpu: &Gpu, x: &[Tensor], stats: &Tensor, y: &Tensor) {
        let sizes = self.sizes(x[0].shape());
        let (count, pixels) = (x[0].numel(), sizes.rows * sizes.c);
        let pointers = [at(&x[0]), at(&x[1]), at(&x[2]), at(stats), at(y)];
        let numbers = [n(count), n(sizes.c), n(pixels), Arg::F32(self.slope)];
        let plan = kernels::norm_each("norm_apply", float(y), count, sizes.c);
        gpu.launch(plan, &[&pointers[..], &numbers].concat());
    }

    /// Writes y.
    fn apply(&self, x: &[Tensor], stats: &Tensor, y: &mut Out) {
        let (cpu, sizes) = (x[0].cpu(), self.sizes(x[0].shape()));
        let (g, b) = (x[1].widened(), x[2].widened());
        let channels = self.channels(&g, &b, stats, sizes.c);
        let (x, part) = (x[0].f32(), sizes.part());
        cpu.threads.each(chunks(y.f32_mut(), part), |i, y| {
            normalise(cpu.simd, channels(sizes.segment(i)), &x[i * part..][..y.len()], y);
        });
    }

    /// Gain, bias and statistics by segment.
    fn channels<'a>(&self, g: &'a Tensor, b: &'a Tensor, stats: &'a Tensor, c: usize) -> impl Fn(usize) -> Channels<'a> {
        let (slope, g, b, stats) = (self.slope, g.f32(), b.f32(), stats.f32());
        move |segment| Channels { slope, g, b, stats: &stats[3 * segment * c..][..3 * c] }
    }
}

impl Op for PictureNorm {
    fn name(&self) -> &'static str {
        if matches!(self.statistics, Statistics::Groups(_)) { "groupnorm" } else { "batchnorm" }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let c = x[0].shape.last_dim();
        let vectors = if matches!(self.statistics, Statistics::Groups(_)) { 2 } else { 4 };
        assert_eq!(x.len(), 1 + vectors, "{}: the number of inputs", self.name());
        assert!(x[1..].iter().all(|spec| spec.shape[..] == [c]), "{}: vectors of {c} channels", self.name());
        assert!(x[0].shape.numel() > 0, "{}: of nothing, {:?}", self.name(), x[0].shape);
        if let Statistics::Groups(groups) = self.statistics {
            assert!(groups > 0 && c.is_multiple_of(groups), "groupnorm: {groups} groups of {c} channels");
        }
        let running = if matches!(self.statistics, Statistics::Batch(_)) { 2 } else { 0 };
        [x[0]].into_iter().chain(std::iter::repeat_n(Spec::f32([c]), running)).collect()
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, sizes) = (x[0].cpu(), self.sizes(x[0].shape()));
        let c = sizes.c;
        let mut stats = Out::new(x[0].device(), Spec::f32([sizes.segments, 3, c]));
        if self.statistics == Statistics::Given {
            let (mean, var) = (x[3].widened(), x[4].widened());
            cpu.threads.each(chunks(stats.f32_mut(), 3 * c), |_, stats| {
                stats[..c].copy_from_slice(mean.f32());
                stats[2 * c..].copy_from_slice(var.f32());
                for j in 0..c {
                    stats[c + j] = 1.0 / (stats[2 * c + j] + self.eps).sqrt();
                }
            });
        } else {
            let values = x[0].f32();
            let mut moments = cpu.scratch.take(sizes.segments * sizes.blocks() * 2 * c);
            cpu.threads.each(chunks(&mut moments, 2 * c), |i, moments| {
                block_moments(cpu.simd, &values[sizes.block(i).1], moments);
            });
            let size = sizes.blocks() * 2 * c;
            cpu.threads.each(chunks(stats.f32_mut(), 3 * c), |segment, stats| {
                fold_moments(cpu.simd, sizes, &moments[segment * size..][..size], self.eps, stats);
            });
        }
        let stats = stats.freeze();
        if let (Some((momentum, unbiased)), [_, mean, var]) = (self.running(&sizes), &mut *y) {
            for (i, new) in [mean, var].into_iter().enumerate() {
                let (old, now, scale) = (x[3 + i].f32(), stats.f32(), if i == 0 { 1.0 } else { unbiased });
                cpu.threads.each(chunks(new.f32_mut(), c), |_, new| {
                    for j in 0..c {
                        new[j] = (1.0 - momentum) * old[j] + momentum * scale * now[2 * i * c + j];
                    }
                });
            }
        }
        self.apply(x, &stats, &mut y[0]);
        if Need::any(need) { Tensors::from_iter([stats]) } else { Tensors::new() }
    }

    fn backward(&self, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let Some(dy) = &dy[0] else { return };
        let (cpu, sizes) = (x[0].cpu(), self.sizes(x[0].shape()));
        let (c, blocks, segments) = (sizes.c, sizes.blocks(), sizes.segments);
        let (g, b) = (x[1].widened(), x[2].widened());
        let channels = self.channels(&g, &b, &saved[0], c);
        let (values, dy, g) = (x[0].f32(), dy.f32(), g.f32());
        let [mut sums, mut products] = [(); 2].map(|()| cpu.scratch.take(segments * blocks * c));
        cpu.threads.each((chunks(&mut sums, c), chunks(&mut products, c)), |i, (sums, products)| {
            let (segment, range) = sizes.block(i);
            block_sums(cpu.simd, channels(segment), &values[range.clone()], &dy[range], sums, products);
        });
        if dx.wants(0) {
            let mut means = cpu.scratch.take(segments * 2 * c);
            let given = self.statistics == Statistics::Given;
            cpu.threads.each(chunks(&mut means, 2 * c), |segment, means| {
                let (of_d, of_dn) = means.split_at_mut(c);
                for (mean, partial) in [(of_d, &sums), (of_dn, &products)] {
                    mean.fill(0.0);
                    let rows = partial[segment * blocks * c..][..blocks * c].chunks_exact(c);
                    rows.for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x));
                    mean.iter_mut().zip(g).for_each(|(mean, g)| *mean *= if given { 0.0 } else { *g });
                    share(mean, sizes.width, sizes.count());
                }
            });
            let (mut dx, part) = (dx.out(0), sizes.part());
            let beta = dx.beta;
            cpu.threads.each(chunks(dx.f32_mut(), part), |i, dx| {
                let (segment, range) = (sizes.segment(i), i * part..i * part + dx.len());
                let means = &means[2 * segment * c..][..2 * c];
                backward_rows(cpu.simd, channels(segment), means, beta, dx, &values[range.clone()], &dy[range]);
            });
        }
        for (i, partial) in [(1, &products), (2, &sums)] {
            if dx.wants(i) {
                let mut out = dx.out(i);
                let beta = out.beta;
                sum_blocks(cpu, beta, out.f32_mut(), partial);
            }
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let Sizes { segments, rows, c, width } = self.sizes(x[0].shape());
        let device = x[0].device();
        let stats = Out::new(device, Spec::f32([segments, 3, c]));
        if self.statistics == Statistics::Given {
            let args = [at(&x[3]), at(&x[4]), at(&stats), n(c), Arg::F32(self.eps)];
            gpu.launch(kernels::norm_given(c), &args);
        } else {
            let run = kernels::run_of_rows(rows);
            let runs = rows.div_ceil(run);
            let moments = Out::new(device, Spec::f32([segments, runs, 2, c]));
            let args = [at(&x[0]), at(&moments), n(rows), n(c), n(run)];
            gpu.launch(kernels::norm_moments(float(&x[0]), [segments, runs], c), &args);
            let (momentum, unbiased) = self.running(&self.sizes(x[0].shape())).unwrap_or((0.0, 0.0));
            let old = [3, 4].map(|i| maybe(x.get(i)));
            let new = [1, 2].map(|i| maybe(y.get(i).map(|y| &**y)));
            let pointers = [at(&moments), at(&stats), old[0], old[1], new[0], new[1]];
            let sizes = [n(segments * (c / width)), n(rows), n(c), n(width), n(run)];
            let numbers = [Arg::F32(self.eps), Arg::F32(momentum), Arg::F32(unbiased)];
            gpu.launch(kernels::norm_fold("norm_fold", segments * (c / width)), &[&pointers[..], &sizes, &numbers].concat());
        }
        let stats = stats.freeze();
        self.launch(gpu, x, &stats, &y[0]);
        if Need::any(need) { Tensors::from_iter([stats]) } else { Tensors::new() }
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        _y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let Some(dy) = &dy[0] else { return };
        let Sizes { segments, rows, c, width } = self.sizes(x[0].shape());
        let run = kernels::run_of_rows(rows);
        let runs = rows.div_ceil(run);
        let [sums, products] = [(); 2].map(|()| Out::new(dy.device(), Spec::f32([segments * runs, c])));
        let common = [at(&x[0]), at(&x[1]), at(&x[2]), at(&saved[0]), at(dy)];
        let numbers = [n(rows), n(c), n(run), Arg::F32(self.slope)];
        let args = [&common[..], &[at(&sums), at(&products)], &numbers].concat();
        gpu.launch(kernels::norm_sums(float(dy), [segments, runs], c), &args);
        if dx.wants(0) {
            let means = Out::new(dy.device(), Spec::f32([segments, 2, c]));
            let count = if self.statistics == Statistics::Given { 0.0 } else { 1.0 / (rows * width) as f32 };
            let groups = segments * (c / width);
            let pointers = [at(&sums), at(&products), at(&x[1]), at(&means)];
            let numbers = [n(groups), n(runs), n(c), n(width), Arg::F32(count)];
            gpu.launch(kernels::norm_fold("norm_means", groups), &[&pointers[..], &numbers].concat());
            let dx = dx.out(0);
            let numbers = [n(dx.numel()), n(c), n(rows * c), Arg::F32(self.slope), flag(dx.beta != 0.0)];
            let args = [&common[..], &[at(&means), at(&dx)], &numbers].concat();
            gpu.launch(kernels::norm_each("norm_back", float(&dx), dx.numel(), c), &args);
        }
        for (i, partial) in [(1, &products), (2, &sums)] {
            if dx.wants(i) {
                let out = dx.out(i);
                crate::launch::sum_blocks(gpu, out.beta, &out, partial);
            }
        }
    }

    fn reads(&self) -> Reads {
        Reads { x: 0b111, y: 0, again: 1 }
    }

    fn state(&self) -> u8 {
        0b110
    }

    fn again(&self, _i: usize, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.apply(x, &saved[0], out);
    }

    fn launch_again(&self, gpu: &Gpu, _i: usize, x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.launch(gpu, x, &saved[0], out);
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let Sizes { segments, rows, c, width } = self.sizes(&x[0].shape);
        let at = |segment: usize, row: usize, j: usize| (segment * rows + row) * c + j;
        let mut y = x[0].clone();
        let (mut means, mut vars) = (vec![0.0; c], vec![0.0; c]);
        for segment in 0..segments {
            for first in (0..c).step_by(width) {
                let elements = || (0..rows).flat_map(|row| (first..first + width).map(move |j| at(segment, row, j)));
                let count = (rows * width) as f64;
                let (mean, var) = if self.statistics == Statistics::Given {
                    (x[3].data[first], x[4].data[first])
                } else {
                    let mean = elements().map(|i| x[0].data[i]).sum::<f64>() / count;
                    (mean, elements().map(|i| (x[0].data[i] - mean).powi(2)).sum::<f64>() / count)
                };
                (means[first], vars[first]) = (mean, var * count / (count - 1.0).max(1.0));
                for i in elements() {
                    let s = (x[0].data[i] - mean) / (var + f64::from(self.eps)).sqrt() * x[1].data[i % c] + x[2].data[i % c];
                    y.data[i] = if s > 0.0 { s } else { f64::from(self.slope) * s };
                }
            }
        }
        let Statistics::Batch(momentum) = self.statistics else { return vec![y] };
        let moved = |i: usize, now: &[f64]| {
            let m = f64::from(momentum);
            Array64::from_fn([c], |j| (1.0 - m) * x[i].data[j] + m * now[j])
        };
        vec![y, moved(3, &means), moved(4, &vars)]
    }
}

impl<'t> Var<'t> {
    /// BatchNorm of this value (N, …, C) in training, with gain, bias and running statistics (C), and a leaky ReLU of `slope`
    /// (1: none): the value, and the new running mean and variance, which move by `momentum`.
    pub fn batchnorm(self, [g, b, mean, var]: [Var<'t>; 4], momentum: f32, eps: f32, slope: f32) -> [Var<'t>; 3] {
        let y = self.tape().apply(PictureNorm { statistics: Statistics::Batch(momentum), eps, slope }, &[self, g, b, mean, var]);
        [y, y.output(1), y.output(2)]
    }

    /// BatchNorm in evaluation: by the running mean and variance.
    pub fn batchnorm_given(self, [g, b, mean, var]: [Var<'t>; 4], eps: f32, slope: f32) -> Var<'t> {
        self.tape().apply(PictureNorm { statistics: Statistics::Given, eps, slope }, &[self, g, b, mean, var])
    }

    /// GroupNorm of this value (N, …, C) in `groups` of channels, with gain and bias (C) and a leaky ReLU of `slope` (1: none).
    pub fn groupnorm(self, groups: usize, g: Var<'t>, b: Var<'t>, eps: f32, slope: f32) -> Var<'t> {
        self.tape().apply(PictureNorm { statistics: Statistics::Groups(groups), eps, slope }, &[self, g, b])
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let inputs = |shape: &[usize], statistics: Statistics| {
        let c = shape[shape.len() - 1];
        let mut inputs = vec![
            Input { fill: Fill::Normal(0.5, 2.0), ..Input::normal(Shape::new(shape)) },
            Input::gain([c]),
            Input::normal([c]).param(),
        ];
        if !matches!(statistics, Statistics::Groups(_)) {
            inputs.push(Input::normal([c]).fixed());
            inputs.push(Input { fill: Fill::Uniform(0.5, 2.0), ..Input::normal([c]).fixed() });
        }
        inputs
    };
    let all = [(Statistics::Batch(0.1), "batch"), (Statistics::Given, "given"), (Statistics::Groups(2), "groups")];
    for (statistics, name) in all {
        for slope in [1.0, 0.2] {
            let op = PictureNorm { statistics, eps: 1e-5, slope };
            let name = format!("{name} slope={slope}");
            cases.push(Case::check(format!("{name} 2x3x3x6"), op, inputs(&[2, 3, 3, 6], statistics)));
            cases.push(Case::check(format!("{name} 3x9x8x20, several blocks"), op, inputs(&[3, 9, 8, 20], statistics)));
        }
        let op = PictureNorm { statistics, eps: 1e-5, slope: 0.2 };
        cases.push(Case::bench(format!("{name} 128x14x14x64"), op, inputs(&[128, 14, 14, 64], statistics)));
    }
    cases
}
