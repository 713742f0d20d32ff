//! Sums in a fixed order: 64 lanes within a block, blocks in sequence.

use super::{Cpu, Lanes, Simd, Vector, chunks};
use crate::simd_fn;
use std::ops::Range;

/// Elements summed by one set of lanes; the blocks' sums are added in order in f64.
const BLOCK: usize = 4096;

simd_fn! {
    /// The sum of the elements of one block, over 64 lanes.
    pub fn block_sum(x: &[f32]) -> f32 = block_sum_body
}
simd_fn! {
    /// The sum of the squares of the elements of one block, over 64 lanes.
    pub fn block_square_sum(x: &[f32]) -> f32 = block_square_sum_body
}

#[inline(always)]
fn block_sum_body<V: Vector>(x: &[f32]) -> f32 {
    fold_sum::<V>(
        x,
        #[inline(always)]
        |acc, x| acc + x,
    )
}

#[inline(always)]
fn block_square_sum_body<V: Vector>(x: &[f32]) -> f32 {
    fold_sum::<V>(
        x,
        #[inline(always)]
        |acc, x| x.fma(x, acc),
    )
}

#[inline(always)]
fn fold_sum<V: Vector>(x: &[f32], f: impl Fn(V, V) -> V) -> f32 {
    let mut lanes = Lanes::<V>::splat(0.0);
    lanes.run(
        x.len(),
        #[inline(always)]
        |i, w| V::at(&x[i..], w),
        f,
    );
    lanes.sum()
}

simd_fn! {
    /// The dot product of one block, over 64 lanes.
    fn block_dot(x: &[f32], y: &[f32]) -> f32 = block_dot_body
}

#[inline(always)]
fn block_dot_body<V: Vector>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = Lanes::<V>::splat(0.0);
    lanes.run(
        x.len(),
        #[inline(always)]
        |i, w| V::at(&x[i..], w) * V::at(&y[i..], w),
        #[inline(always)]
        |sum, xy| sum + xy,
    );
    lanes.sum()
}

/// The sum of what `block` makes of each block of `len` elements.
fn blocks(cpu: &Cpu, len: usize, block: impl Fn(Simd, Range<usize>) -> f32 + Sync) -> f64 {
    let n = len.div_ceil(BLOCK);
    if n <= 1 {
        return f64::from(block(cpu.simd, 0..len));
    }
    let mut sums = cpu.scratch.take(n);
    // A task sums 16 blocks, so that waking a thread is worth it.
    cpu.threads.each(chunks(&mut sums, 16), |i, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let start = (16 * i + j) * BLOCK;
            *sum = block(cpu.simd, start..len.min(start + BLOCK));
        }
    });
    sums.iter().map(|&s| f64::from(s)).sum()
}

/// Σ x. The same bits for every thread count and instruction set.
pub fn sum(cpu: &Cpu, x: &[f32]) -> f64 {
    blocks(cpu, x.len(), |simd, range| block_sum(simd, &x[range]))
}

/// Σ x². The same bits for every thread count and instruction set.
pub fn square_sum(cpu: &Cpu, x: &[f32]) -> f64 {
    blocks(cpu, x.len(), |simd, range| block_square_sum(simd, &x[range]))
}

/// Σ x·y. The same bits for every thread count and instruction set.
pub fn dot(cpu: &Cpu, x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    blocks(cpu, x.len(), |simd, range| block_dot(simd, &x[range.clone()], &y[range]))
}

/// Sums over blocks of rows: `y[j] = beta y[j] + Σ_b partial[b][j]`, the blocks in order. `partial` is (blocks, columns).
///
/// Kernels that go over rows in parallel leave one row of partial column sums for each block of [`ROWS`] rows here.
pub fn sum_blocks(cpu: &Cpu, beta: f32, y: &mut [f32], partial: &[f32]) {
    let columns = y.len();
    assert_eq!(partial.len() % columns, 0);
    cpu.threads.each(chunks(y, 1024), |i, y| {
        for (b, row) in partial.chunks_exact(columns).enumerate() {
            let beta = if b == 0 { beta } else { 1.0 };
            super::elementwise::add_chunk(cpu.simd, beta, y, &row[i * 1024..][..y.len()]);
        }
    });
}

/// Rows in a block of a reduction over rows: the same for every thread count and instruction set.
pub const ROWS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn sums_are_right_and_the_same_bits_everywhere() {
        for n in [0, 1, 7, 63, 64, 65, 1000, 4096, 4097, 300_001] {
            let mut x = vec![0.0; n];
            Stream::new(1, Purpose::Test, 0, 0).normals(1.0, &mut x);
            let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let first = square_sum(&Cpu::with(Simd::available()[0], 1), &x);
            assert!((first - exact).abs() <= 1e-5 * exact, "{n}: {first} {exact}");
            for simd in Simd::available() {
                for threads in [1, 2, 3] {
                    let cpu = Cpu::with(simd, threads);
                    assert_eq!(square_sum(&cpu, &x).to_bits(), first.to_bits(), "{n} {simd:?} {threads}");
                    assert!((sum(&cpu, &x) - x.iter().map(|&x| f64::from(x)).sum::<f64>()).abs() < 1e-2);
                }
            }
        }
    }
}
