//! Kernels of norms of pictures: statistics of channels, and what is computed with them.
//!
//! n = (x − mean) / sqrt(var + eps), s = n·g + b, y = s where s > 0, else slope · s; d = dy · (1 or slope). Sums go over blocks
//! of [`ROWS`] pixels, each in four interleaved chains, then over the blocks in order; squares are of deviations (a block's
//! from its own mean, then Chan's formula): one pass over memory.

use super::Vector;
use super::elementwise::accumulate;
use super::reduce::ROWS;
use super::simd::each;
use crate::simd_fn;
use std::ops::Range;

/// Sizes: `segments` with statistics of their own, of `rows` pixels of `c` channels, `width` of which share them.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Those with statistics of their own.
    pub segments: usize,
    /// Pixels of a segment.
    pub rows: usize,
    /// Channels.
    pub c: usize,
    /// Neighbouring channels that share statistics.
    pub width: usize,
}

impl Sizes {
    /// Those of pictures (N, …, C): by example in so many groups of channels, else by channel.
    pub fn new(groups: Option<usize>, shape: &[usize]) -> Sizes {
        let c = shape[shape.len() - 1];
        let pixels = shape.iter().product::<usize>() / c;
        match groups {
            Some(groups) => Sizes { segments: shape[0], rows: pixels / shape[0], c, width: c / groups },
            None => Sizes { segments: 1, rows: pixels, c, width: 1 },
        }
    }

    /// Blocks of a segment.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Elements that share statistics.
    pub fn count(&self) -> f32 {
        (self.rows * self.width) as f32
    }

    /// The segment of block i of all, and the block's elements.
    pub fn block(&self, i: usize) -> (usize, Range<usize>) {
        let (segment, first) = (i / self.blocks(), i % self.blocks() * ROWS);
        let start = (segment * self.rows + first) * self.c;
        (segment, start..start + ROWS.min(self.rows - first) * self.c)
    }

    /// Elements of a task that needs no block, all of one segment.
    pub fn part(&self) -> usize {
        if self.segments == 1 { ROWS * self.c } else { self.rows * self.c }
    }

    /// The segment of part i.
    pub fn segment(&self, i: usize) -> usize {
        if self.segments == 1 { 0 } else { i }
    }
}

/// Gain, bias and statistics of a segment: mean, 1/sqrt(var + eps), var.
#[derive(Clone, Copy)]
pub struct Channels<'a> {
    /// The slope below 0 of what follows; 1: nothing follows.
    pub slope: f32,
    /// Gains (C).
    pub g: &'a [f32],
    /// Biases (C).
    pub b: &'a [f32],
    /// Statistics (3, C).
    pub stats: &'a [f32],
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
    pub fn block_moments(x: &[f32], moments: &mut [f32]) = block_moments_body
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
            let [sum] = chains(
                rows,
                #[inline(always)]
                |row| [V::at(&x[row * c + j..], w)],
            );
            let mean = sum / V::splat(rows as f32);
            mean.put(&mut means[j..], w);
            let [square] = chains(
                rows,
                #[inline(always)]
                |row| {
                    let d = V::at(&x[row * c + j..], w) - mean;
                    [d * d]
                },
            );
            square.put(&mut squares[j..], w);
        },
    );
}

simd_fn! {
    /// Statistics (3, C) of a segment from the moments of its blocks.
    pub fn fold_moments(sizes: Sizes, moments: &[f32], eps: f32, stats: &mut [f32]) = fold_moments_body
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
            let [sum] = chains(
                blocks,
                #[inline(always)]
                |b| [V::at(&moments[2 * b * c + j..], w) * count::<V>(rows, b)],
            );
            sum.put(&mut means[j..], w);
        },
    );
    share(means, width, sizes.count());
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let mean = V::at(&means[j..], w);
            let [square] = chains(
                blocks,
                #[inline(always)]
                |b| {
                    let d = V::at(&moments[2 * b * c + j..], w) - mean;
                    [(d * d).fma(count::<V>(rows, b), V::at(&moments[(2 * b + 1) * c + j..], w))]
                },
            );
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
pub fn share(x: &mut [f32], width: usize, count: f32) {
    for group in x.chunks_exact_mut(width) {
        let sum = group.iter().fold(0.0, |sum, x| sum + x);
        group.fill(sum / count);
    }
}

simd_fn! {
    /// Rows of y from rows of x.
    pub fn normalise(channels: Channels, x: &[f32], y: &mut [f32]) = normalise_body
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
    pub fn block_sums(channels: Channels, x: &[f32], dy: &[f32], sums: &mut [f32], products: &mut [f32]) = block_sums_body
}
#[inline(always)]
fn block_sums_body<V: Vector>(channels: Channels, x: &[f32], dy: &[f32], sums: &mut [f32], products: &mut [f32]) {
    let c = sums.len();
    let rows = x.len() / c;
    each::<V>(
        c,
        #[inline(always)]
        |j, w| {
            let [sum, product] = chains(
                rows,
                #[inline(always)]
                |row| {
                    let (n, g) = channels.normal::<V>(&x[row * c..][..c], j, w);
                    let d = channels.bent(n, g, Some(V::at(&dy[row * c + j..], w)), j, w);
                    [d, d * n]
                },
            );
            sum.put(&mut sums[j..], w);
            product.put(&mut products[j..], w);
        },
    );
}

simd_fn! {
    /// Rows of dx; `means` (2, C) are those of g·d and of g·d·n.
    pub fn backward_rows(channels: Channels, means: &[f32], beta: f32, dx: &mut [f32], x: &[f32], dy: &[f32]) = backward_rows_body
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

simd_fn! {
    /// Rows of y = t g f′(n g + b).
    pub fn gain_rows(channels: Channels, x: &[f32], t: &[f32], y: &mut [f32]) = gain_rows_body
}
#[inline(always)]
fn gain_rows_body<V: Vector>(channels: Channels, x: &[f32], t: &[f32], y: &mut [f32]) {
    let c = channels.g.len();
    for ((x, t), y) in x.chunks_exact(c).zip(t.chunks_exact(c)).zip(y.chunks_exact_mut(c)) {
        each::<V>(
            c,
            #[inline(always)]
            |j, w| {
                let (n, g) = channels.normal::<V>(x, j, w);
                channels.bent(n, g, Some(V::at(&t[j..], w) * g), j, w).put(&mut y[j..], w);
            },
        );
    }
}

/// What rows of a second derivative are made of: rows t and u, and means (2, C), of which q = `of_a[1]`, P = `of_p[1]` and
/// S = `of_t[0]`.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Second<'a> {
    pub t: &'a [f32],
    pub u: &'a [f32],
    pub of_a: &'a [f32],
    pub of_p: &'a [f32],
    pub of_t: &'a [f32],
}

simd_fn! {
    /// Rows of `dx = beta dx − rstd (q u + P t + S n)`.
    pub fn second_rows(channels: Channels, second: Second, beta: f32, dx: &mut [f32], x: &[f32]) = second_rows_body
}
#[inline(always)]
fn second_rows_body<V: Vector>(channels: Channels, second: Second, beta: f32, dx: &mut [f32], x: &[f32]) {
    let c = channels.g.len();
    let Second { t, u, of_a, of_p, of_t } = second;
    let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(t.chunks_exact(c).zip(u.chunks_exact(c)));
    for ((dx, x), (t, u)) in rows {
        accumulate::<V>(
            beta,
            dx,
            #[inline(always)]
            |j, w| {
                let (n, _) = channels.normal::<V>(x, j, w);
                let (q, p, s) = (V::at(&of_a[c + j..], w), V::at(&of_p[c + j..], w), V::at(&of_t[j..c], w));
                let sum = n.fma(s, q * V::at(&u[j..], w) + p * V::at(&t[j..], w));
                -(sum * V::at(&channels.stats[c + j..2 * c], w))
            },
        );
    }
}
