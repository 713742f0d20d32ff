//! Sums whose order is fixed, whatever the threads and the level.

use super::{Cpu, Lanes, Tiles, Vector, chunks};
use crate::simd_fn;

/// Rows of a block of [`column_sums`]: the order of the sum depends on it.
const ROWS: usize = 128;
/// Columns that one task of [`column_sums`] takes: nothing depends on it.
const COLS: usize = 256;
/// Elements of a block of [`square_sum`]: the order of the sum depends on it.
const BLOCK: usize = 4096;

/// The sums of the columns of `x` (`rows` × `out.len()`, rows `stride` apart): `out[j] = Σᵢ x[i][j]`, or `+=` with
/// `accumulate`. The gradient of a bias.
///
/// A column is one chain within each block of 128 rows; the blocks' sums are added in order, and `out` to them last.
///
/// # Panics
/// A row would lie beyond `x`.
pub fn column_sums(cpu: &Cpu, x: &[f32], rows: usize, stride: usize, out: &mut [f32], accumulate: bool) {
    let cols = out.len();
    if rows == 0 || cols == 0 {
        if !accumulate {
            out.fill(0.0);
        }
        return;
    }
    assert!(x.len() >= (rows - 1) * stride + cols, "column_sums: {rows} rows of {cols} lie beyond the data");
    let (blocks, across) = (rows.div_ceil(ROWS), cols.div_ceil(COLS));
    let mut sums = cpu.scratch.take(blocks * cols);
    let parts = Tiles::new(&mut sums);
    cpu.threads.run(if rows * cols < BLOCK { 1 } else { blocks * across }, &|task| {
        // One task for all where that is little.
        let tasks = if rows * cols < BLOCK { 0..blocks * across } else { task..task + 1 };
        for task in tasks {
            let (start, first) = (task / across * ROWS, task % across * COLS);
            let (height, width) = (ROWS.min(rows - start), COLS.min(cols - first));
            let x = &x[start * stride + first..][..(height - 1) * stride + width];
            // SAFETY: each task has its own columns of its own block.
            let sum = unsafe { std::slice::from_raw_parts_mut(parts.ptr(task / across * cols + first), width) };
            add_rows(cpu.simd, x, stride, sum);
        }
    });
    let (total, rest) = sums.split_at_mut(cols);
    for block in rest.chunks_exact(cols) {
        total.iter_mut().zip(block).for_each(|(total, x)| *total += x);
    }
    match accumulate {
        true => out.iter_mut().zip(total).for_each(|(out, total)| *out += *total),
        false => out.copy_from_slice(total),
    }
}

#[inline(always)]
fn add_rows_body<V: Vector>(x: &[f32], stride: usize, sum: &mut [f32]) {
    let mut first = 0;
    // Four registers of columns at a time, so that their chains overlap.
    while first + 4 * V::W <= sum.len() {
        let mut s = [V::splat(0.0); 4];
        for row in x.chunks(stride) {
            for (i, s) in s.iter_mut().enumerate() {
                *s = *s + V::load(&row[first + i * V::W..]);
            }
        }
        for (i, s) in s.into_iter().enumerate() {
            s.store(&mut sum[first + i * V::W..]);
        }
        first += 4 * V::W;
    }
    while first < sum.len() {
        let len = V::W.min(sum.len() - first);
        let mut s = V::splat(0.0);
        for row in x.chunks(stride) {
            s = s + V::load_partial(&row[first..][..len]);
        }
        s.store_partial(&mut sum[first..][..len]);
        first += len;
    }
}
simd_fn! {
    /// `sum[j] = Σᵢ x[i][j]`, one chain a column.
    fn add_rows(x: &[f32], stride: usize, sum: &mut [f32]) = add_rows_body
}

/// Σ x², for the norm of gradients: 64 lanes over each block of 4096 elements, folded, and the blocks' sums added in order
/// in f64.
pub fn square_sum(cpu: &Cpu, x: &[f32]) -> f64 {
    /// Blocks of one task.
    const GROUP: usize = 16;
    let mut sums = cpu.scratch.take(x.len().div_ceil(BLOCK));
    cpu.threads.each(chunks(&mut sums, GROUP), |i, sums| {
        for (sum, block) in sums.iter_mut().zip(x[i * GROUP * BLOCK..].chunks(BLOCK)) {
            *sum = square_block(cpu.simd, block);
        }
    });
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

#[inline(always)]
fn square_block_body<V: Vector>(x: &[f32]) -> f32 {
    let mut lanes = Lanes::splat(0.0);
    lanes.run(
        x.len(),
        #[inline(always)]
        |i| V::load(&x[i..]),
        #[inline(always)]
        |i, n| V::load_partial(&x[i..i + n]),
        #[inline(always)]
        |sum, x| x.fma(x, sum),
    );
    lanes.sum()
}
simd_fn! {
    fn square_block(x: &[f32]) -> f32 = square_block_body
}
