//! The product for few rows of A and a B in 8 bits: as in `thin.rs` what counts is to read the weights once, here in the
//! order in which they lie.
//!
//! A block of B holds [`BLOCK`] columns, k by k. Its sums are the chains of `tile.rs`, over the integers; the scales come
//! last, in [`gemm`](super::gemm).

use super::{Finish, Mat, MatMut, SMALL, show};
use crate::cpu::q8::{BLOCK, Q8};
use crate::cpu::{Cpu, Tiles, Vector};
use crate::simd_fn;
use std::ops::Range;

/// Bytes of B that are asked for in advance: the hardware's own look ahead leaves the first load of each line waiting.
const AHEAD: usize = 3072;
/// Bytes of B that a task reads at least.
const TASK: usize = 64 << 10;

/// The operands.
struct Few<'a> {
    a: &'a [f32],
    a_row: usize,
    rows: usize,
    b: Q8<'a>,
    columns: usize,
    depth: usize,
    c: Tiles<'a>,
    c_row: usize,
}

/// C = A·B, for A of at most [`ROWS`](super::thin::ROWS) rows, contiguous along k; see [`gemm`](super::gemm).
pub(super) fn product(cpu: &Cpu, a: Mat<'_>, x: &[f32], b: Q8<'_>, c: MatMut<'_>, finish: &Finish<'_>) {
    let (columns, depth, c_row) = (c.cols, a.cols, c.row_stride);
    let few = Few { a: x, a_row: a.row_stride, rows: a.rows, b, columns, depth, c: Tiles::new(c.data), c_row };
    let blocks = columns.div_ceil(BLOCK);
    if blocks == 0 {
        return;
    }
    let threads = if a.rows * columns * depth < SMALL { 1 } else { cpu.threads.count() };
    let tasks = (columns * depth / TASK).clamp(1, if threads == 1 { 1 } else { 8 * threads }).min(blocks);
    cpu.threads.run(tasks, &|task| {
        let own = task * blocks / tasks..(task + 1) * blocks / tasks;
        multiply(cpu.simd, &few, own.clone());
        let range = own.start * BLOCK..columns.min(own.end * BLOCK);
        // SAFETY: this task alone uses these columns, and the kernel is done with them.
        unsafe { show(&few.c, c_row, 0..few.rows, range, finish) };
    });
}

simd_fn! {
    /// The columns of C in some blocks.
    fn multiply(p: &Few<'_>, blocks: Range<usize>) = multiply_body
}

#[inline(always)]
fn multiply_body<V: Vector>(p: &Few<'_>, blocks: Range<usize>) {
    assert!(p.rows == 0 || (p.rows - 1) * p.a_row + p.depth <= p.a.len());
    for block in blocks {
        let columns = BLOCK.min(p.columns - block * BLOCK);
        let b = &p.b.q[p.b.at(block * BLOCK, 0)..][..p.depth * BLOCK];
        // As many chains as hide the latency of a multiply-add, and no more sums than registers.
        macro_rules! rows {
            ($($rows:literal by $registers:literal)*) => {
                match p.rows {
                    $($rows => for first in (0..columns).step_by($registers * V::W) {
                        let mut sum = [[V::splat(0.0); $registers]; $rows];
                        for (k, b) in b.chunks_exact(BLOCK).enumerate() {
                            V::prefetch(b.as_ptr().wrapping_add(AHEAD).cast());
                            for v in 0..$registers {
                                // SAFETY: the registers of a block end with it, and A was measured above.
                                let column = unsafe { V::load_i8(b.as_ptr().add(first + v * V::W)) };
                                for m in 0..$rows {
                                    // SAFETY: as above.
                                    let x = V::splat(unsafe { *p.a.get_unchecked(m * p.a_row + k) });
                                    sum[m][v] = x.fma(column, sum[m][v]);
                                }
                            }
                        }
                        for m in 0..$rows {
                            for v in 0..$registers {
                                let j = first + v * V::W;
                                let n = columns.saturating_sub(j).min(V::W);
                                // SAFETY: this task alone uses these columns of C.
                                let c = unsafe {
                                    let start = p.c.ptr(m * p.c_row + block * BLOCK + j.min(columns));
                                    std::slice::from_raw_parts_mut(start, n)
                                };
                                sum[m][v].put(c, n);
                            }
                        }
                    },)*
                    _ => {}
                }
            };
        }
        if V::W == 16 {
            rows!(1 by 2  2 by 2  3 by 2  4 by 2  5 by 2  6 by 2  7 by 2  8 by 2);
        } else {
            rows!(1 by 4  2 by 4  3 by 2  4 by 2  5 by 2  6 by 2  7 by 1  8 by 1);
        }
    }
}
