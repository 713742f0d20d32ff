//! The product for few rows of A and a transposed B: a token, or a handful, times a layer's weights (out, in).
//!
//! There is little to compute for each weight, so that what counts is to read them once, as they lie, at the rate of the
//! memory. A tile is a register of columns of B, which are rows of the weights: 8 elements of each are read and transposed
//! in registers. The sums are the same chains as those of the tiles in `tile.rs`.

use super::pack::{Data, Stored};
use super::tile::part;
use super::{Finish, Mat, MatMut, SMALL, show};
use crate::cpu::{Cpu, Tiles, Vector};
use crate::simd_fn;
use half::bf16;
use std::ops::Range;

/// Rows of A that a tile has sums for.
pub(super) const ROWS: usize = 8;
/// Bytes of B that a task reads at least.
const TASK: usize = 128 << 10;
/// Elements of a column that are read at once.
const STEPS: usize = 8;
/// Bytes of a cache line.
const LINE: usize = 64;

/// The operands; `b[j * b_row..]` is column j of B, `depth` elements that follow each other.
struct Thin<'a> {
    a: &'a [f32],
    a_row: usize,
    rows: usize,
    b: Data<'a>,
    b_row: usize,
    depth: usize,
    c: Tiles<'a>,
    c_row: usize,
    add: bool,
}

/// Whether [`product`] can compute C = A·B.
pub(super) fn fits(a: &Mat<'_>, b: &Mat<'_>) -> bool {
    let whole = matches!(a.data, Data::F32(_)) && a.col_stride == 1;
    let pairs = match b.data {
        Data::F32(_) => true,
        Data::Bf16(_) => b.col_stride.is_multiple_of(2),
        Data::Q8(_) | Data::Q4(_) => false,
    };
    a.rows <= ROWS && whole && b.row_stride == 1 && pairs
}

/// C = A·B, or C += A·B with `add`; see [`gemm`](super::gemm).
pub(super) fn product(cpu: &Cpu, a: Mat<'_>, b: Mat<'_>, c: MatMut<'_>, add: bool, finish: Option<&Finish<'_>>) {
    let Data::F32(x) = a.data else { unreachable!("`fits` said so") };
    let (rows, columns, depth) = (a.rows, b.cols, a.cols);
    let (a_row, b_row, c_row) = (a.row_stride, b.col_stride, c.row_stride);
    let thin = Thin { a: x, a_row, rows, b: b.data, b_row, depth, c: Tiles::new(c.data), c_row, add };
    // Neighbouring tasks are neighbours in memory; each starts on a whole tile of every level.
    let threads = if rows * columns * depth < SMALL { 1 } else { cpu.threads.count() };
    let largest = (4 * columns * depth / TASK).clamp(1, 8 * threads);
    let step = if threads == 1 { columns } else { columns.div_ceil(largest).next_multiple_of(16) };
    cpu.threads.run(columns.div_ceil(step), &|task| {
        let range = task * step..columns.min((task + 1) * step);
        multiply(cpu.simd, &thin, range.clone());
        if let Some(finish) = finish {
            // SAFETY: this task alone uses these columns, and the kernel is done with them.
            unsafe { show(&thin.c, c_row, 0..rows, range, finish) };
        }
    });
}

simd_fn! {
    /// The columns `columns` of C.
    fn multiply(p: &Thin<'_>, columns: Range<usize>) = multiply_body
}

#[inline(always)]
fn multiply_body<V: Vector>(p: &Thin<'_>, columns: Range<usize>) {
    match p.b {
        Data::F32(b) => multiply_stored::<V, f32>(p, b, columns),
        Data::Bf16(b) => multiply_stored::<V, bf16>(p, b, columns),
        Data::Q8(_) | Data::Q4(_) => unreachable!("`fits` said no"),
    }
}

#[inline(always)]
fn multiply_stored<V: Vector, T: Stored>(p: &Thin<'_>, b: &[T], columns: Range<usize>) {
    assert!(columns.is_empty() || p.depth == 0 || (columns.end - 1) * p.b_row + p.depth <= b.len());
    assert!(p.rows == 0 || (p.rows - 1) * p.a_row + p.depth <= p.a.len());
    for j in columns.clone().step_by(V::W) {
        let n = V::W.min(columns.end - j);
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match p.rows {
                    // SAFETY: the operands are as long as was asserted; this task alone uses these columns of C.
                    $($rows => unsafe { tile::<V, T, $rows>(p, b, j, n) },)*
                    _ => unreachable!(),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8);
    }
}

/// All `M` rows and `n` columns from `j` on, at most a register of them.
///
/// # Safety
/// The operands must hold these rows and columns, and nobody else use these elements of C.
#[inline(always)]
unsafe fn tile<V: Vector, T: Stored, const M: usize>(p: &Thin<'_>, b: &[T], j: usize, n: usize) {
    let (a, b, c) = (p.a.as_ptr(), b.as_ptr().wrapping_add(j * p.b_row), p.c.ptr(j));
    let mut sum = [V::splat(0.0); M];
    // SAFETY: as the caller promises.
    unsafe {
        if p.add {
            for (m, sum) in sum.iter_mut().enumerate() {
                *sum = V::at(part::<V>(c.add(m * p.c_row), 0, n), n);
            }
        }
        // While this tile is computed the memory of the next one is asked for, in the order in which it lies: the columns
        // of a tile are too many streams for the hardware to foresee.
        let mut ahead = b.wrapping_add(V::W * p.b_row);
        let whole = if n == V::W { p.depth - p.depth % STEPS } else { 0 };
        for k in (0..whole).step_by(STEPS) {
            let columns: [V; STEPS] = T::columns(b.add(k), p.b_row);
            for (i, column) in columns.into_iter().enumerate() {
                for (m, sum) in sum.iter_mut().enumerate() {
                    *sum = V::splat(*a.add(m * p.a_row + k + i)).fma(column, *sum);
                }
            }
            for _ in 0..V::W * STEPS * size_of::<T>() / LINE {
                V::prefetch(ahead.cast());
                ahead = ahead.wrapping_add(LINE / size_of::<T>());
            }
        }
        for k in whole..p.depth {
            let mut column = [0.0; 16];
            for (i, x) in column.iter_mut().enumerate().take(n) {
                *x = (*b.add(i * p.b_row + k)).widen();
            }
            for (m, sum) in sum.iter_mut().enumerate() {
                *sum = V::splat(*a.add(m * p.a_row + k)).fma(V::load(&column), *sum);
            }
        }
        for (m, sum) in sum.iter().enumerate() {
            sum.put(part::<V>(c.add(m * p.c_row), 0, n), n);
        }
    }
}
