//! The product for few rows of A and a B in 4 bits: as in `int8.rs` the weights are read once, in the order in which they
//! lie. Each is made f32 in a register, where a group's scales stay for 32 steps; the sums are the chains of `tile.rs`.

use super::{Finish, Mat, MatMut, SMALL, show};
use crate::cpu::q4::{BLOCK, COLUMN, GROUP, Q4, widen};
use crate::cpu::{Cpu, Tiles, Vector};
use crate::simd_fn;
use std::ops::Range;

/// Bytes of B that are asked for in advance.
const AHEAD: usize = 2048;
/// Weights of B that a task reads at least.
const TASK: usize = 64 << 10;

/// The operands.
struct Few<'a> {
    a: &'a [f32],
    a_row: usize,
    rows: usize,
    b: Q4<'a>,
    columns: usize,
    depth: usize,
    c: Tiles<'a>,
    c_row: usize,
}

/// C = A·B, for A of at most [`ROWS`](super::thin::ROWS) rows, contiguous along k; see [`gemm`](super::gemm).
pub(super) fn product(cpu: &Cpu, a: Mat<'_>, x: &[f32], b: Q4<'_>, c: MatMut<'_>, finish: Option<&Finish<'_>>) {
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
        if let Some(finish) = finish {
            // SAFETY: this task alone uses these columns, and the kernel is done with them.
            unsafe { show(&few.c, c_row, 0..few.rows, range, finish) };
        }
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
        macro_rules! rows {
            ($($rows:literal)*) => {
                match p.rows {
                    // A register of rows 0 … 15 has its neighbour in the other half of the same bytes.
                    $($rows => for first in (0..COLUMN).step_by(V::W) {
                        // SAFETY: A was measured above, and this task alone uses these columns of C.
                        unsafe { pair::<V, $rows>(p, block, first) };
                    },)*
                    _ => {}
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8);
    }
}

/// The columns of C from `first` and from `COLUMN + first` on of a block, a register each.
///
/// # Safety
/// A has `M` rows, and nobody else uses these columns of C.
#[inline(always)]
unsafe fn pair<V: Vector, const M: usize>(p: &Few<'_>, block: usize, first: usize) {
    let mut sum = [[V::splat(0.0); 2]; M];
    for group in 0..p.depth.div_ceil(GROUP) {
        let g = p.b.group(block, group);
        let scales = [widen::<V>(&g.scales[first..]), widen::<V>(&g.scales[COLUMN + first..])];
        let least = [widen::<V>(&g.least[first..]), widen::<V>(&g.least[COLUMN + first..])];
        for (k, column) in g.q.chunks_exact(COLUMN).enumerate() {
            V::prefetch(column.as_ptr().wrapping_add(AHEAD).cast());
            // SAFETY: `W` bytes from a multiple of `W` on are in a column.
            let q = unsafe { V::load_halves(column.as_ptr().add(first)) };
            let w = [scales[0].fma(q[0], least[0]), scales[1].fma(q[1], least[1])];
            for (m, sum) in sum.iter_mut().enumerate() {
                // SAFETY: A was measured by the caller.
                let x = V::splat(unsafe { *p.a.get_unchecked(m * p.a_row + group * GROUP + k) });
                sum[0] = x.fma(w[0], sum[0]);
                sum[1] = x.fma(w[1], sum[1]);
            }
        }
    }
    for (m, sum) in sum.into_iter().enumerate() {
        for (half, sum) in sum.into_iter().enumerate() {
            let j = block * BLOCK + half * COLUMN + first;
            let n = p.columns.saturating_sub(j).min(V::W);
            // SAFETY: this task alone uses these columns of C.
            let c = unsafe { std::slice::from_raw_parts_mut(p.c.ptr(m * p.c_row + j.min(p.columns)), n) };
            sum.put(c, n);
        }
    }
}
