//! Pieces of linear layers: a product with a second result beside the first, and column sums.

use super::gemm::{Mat, MatMut, Precision, Rhs, gemm};
use super::reduce::{ROWS, sum_blocks};
use super::{Cpu, Tiles, Vector, chunks};
use crate::cpu::simd::each;
use crate::simd_fn;

/// What turns a finished piece of a row into its final value: `(first column, piece, piece of the side result)`.
pub type Finish<'a> = dyn Fn(usize, &mut [f32], &mut [f32]) + Sync + 'a;

/// c = a·b (row-major, without gaps), each piece of a row then finished while it is in cache; `side` is a second array of
/// c's shape that `finish` may write, or empty.
pub fn product<'b>(
    cpu: &Cpu,
    precision: Precision,
    a: Mat,
    b: impl Into<Rhs<'b>>,
    c: &mut [f32],
    side: &mut [f32],
    finish: Option<&Finish>,
) {
    let columns = c.len() / a.rows().max(1);
    assert!(side.is_empty() || side.len() == c.len());
    let has_side = !side.is_empty();
    let side = Tiles::new(side);
    let c = MatMut::new(c, a.rows(), columns);
    let Some(finish) = finish else { return gemm(cpu, precision, a, b, c, false, None) };
    gemm(
        cpu,
        precision,
        a,
        b,
        c,
        false,
        Some(&|row, first, piece: &mut [f32]| {
            let (start, len) = if has_side { (row * columns + first, piece.len()) } else { (0, 0) };
            // SAFETY: the product hands out each piece of c once, and `side` has c's shape, so that these ranges are
            // inside it and disjoint.
            let side = unsafe { std::slice::from_raw_parts_mut(side.ptr(start), len) };
            finish(first, piece, side);
        }),
    );
}

simd_fn! {
    /// Σ over the rows of `x` (rows, columns), each column one chain in the order of the rows.
    fn sum_rows(x: &[f32], sums: &mut [f32]) = sum_rows_body
}
#[inline(always)]
fn sum_rows_body<V: Vector>(x: &[f32], sums: &mut [f32]) {
    // So many registers of sums that an addition does not wait for the one before.
    const WIDE: usize = 4;
    let (columns, wide) = (sums.len(), WIDE * V::W);
    for j in (0..columns - columns % wide).step_by(wide) {
        let mut sum = [V::splat(0.0); WIDE];
        for row in x.chunks_exact(columns) {
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum = *sum + V::load(&row[j + i * V::W..]);
            }
        }
        for (i, sum) in sum.iter().enumerate() {
            sum.store(&mut sums[j + i * V::W..]);
        }
    }
    let first = columns - columns % wide;
    each::<V>(
        columns - first,
        #[inline(always)]
        |j, w| {
            let mut sum = V::splat(0.0);
            for row in x.chunks_exact(columns) {
                sum = sum + V::at(&row[first + j..], w);
            }
            sum.put(&mut sums[first + j..], w);
        },
    );
}

/// `y[j] = beta y[j] + Σ_i x[i][j]` for x (rows, columns): blocks of rows, then the blocks in order.
pub fn column_sums(cpu: &Cpu, beta: f32, y: &mut [f32], x: &[f32]) {
    let columns = y.len();
    let blocks = x.len().div_ceil(ROWS * columns);
    let mut partial = cpu.scratch.take(blocks * columns);
    cpu.threads.each(chunks(&mut partial, columns), |i, sums| {
        let start = i * ROWS * columns;
        sum_rows(cpu.simd, &x[start..x.len().min(start + ROWS * columns)], sums);
    });
    sum_blocks(cpu, beta, y, &partial);
}
