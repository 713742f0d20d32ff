//! Matrices in 8 bits: each row has a scale, `w ≈ scale · q`.
//!
//! ```text
//! scale = max |w| / 127,   q = w / scale to the nearest integer, ties to even
//! memory: blocks of 32 rows, in each the rows' q, signed bytes, column by column: q[block][col][row in block];
//!         zeros in the place of rows that do not exist; then the rows' scales, f32
//! ```
//! A row is an output channel of a linear layer, or a token's embedding. An element is at most half a scale away from the
//! weight: a 254th of the row's largest. Activations stay f32, so a product is that of the integers, exact as f32, times
//! the scale. In a product the rows of a block are neighbouring columns of the result, which are computed side by side:
//! the weights of a token are then read in the order in which they lie. (Weights by the scheme of "LLM.int8()", Dettmers et
//! al. 2022, arXiv 2208.07339.)

use super::{Cpu, Vector, chunks};
use crate::simd_fn;

/// Rows of a block.
pub const BLOCK: usize = 32;

/// Bytes of a matrix.
pub const fn bytes(rows: usize, cols: usize) -> usize {
    rows.next_multiple_of(BLOCK) * cols + rows * size_of::<f32>()
}

/// A matrix in 8 bits, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Q8<'a> {
    /// The integers.
    pub q: &'a [i8],
    /// The rows' scales.
    pub scales: &'a [f32],
    /// Columns.
    pub cols: usize,
}

impl<'a> Q8<'a> {
    /// The matrix (rows, cols) that lies in `memory`.
    ///
    /// # Panics
    /// The length is not that of [`bytes`], or the memory is not aligned to 4.
    pub fn new(memory: &'a [u8], rows: usize, cols: usize) -> Q8<'a> {
        assert_eq!(memory.len(), bytes(rows, cols), "a {rows} x {cols} matrix in 8 bits");
        let (q, scales) = memory.split_at(memory.len() - rows * size_of::<f32>());
        Q8 { q: bytemuck::cast_slice(q), scales: bytemuck::cast_slice(scales), cols }
    }

    /// Where in [`q`](Q8::q) element (row, col) is.
    #[inline(always)]
    pub fn at(&self, row: usize, col: usize) -> usize {
        row / BLOCK * BLOCK * self.cols + col * BLOCK + row % BLOCK
    }

    /// `w = beta w + row i`, with `beta` 0 or 1.
    pub fn row(&self, i: usize, beta: f32, w: &mut [f32]) {
        let q = self.q[self.at(i, 0)..].iter().step_by(BLOCK);
        for (w, q) in w.iter_mut().zip(q) {
            let value = self.scales[i] * f32::from(*q);
            *w = if beta == 0.0 { value } else { *w + value };
        }
    }
}

/// Writes the weights `w` (rows, cols), all finite, to `memory`, by all threads.
///
/// # Panics
/// A length is not that of such a matrix, or the memory is not aligned to 4.
pub fn quantize(cpu: &Cpu, w: &[f32], (rows, cols): (usize, usize), memory: &mut [u8]) {
    assert_eq!((w.len(), memory.len()), (rows * cols, bytes(rows, cols)), "a {rows} x {cols} matrix in 8 bits");
    memory.fill(0);
    if rows * cols == 0 {
        return;
    }
    let (q, scales) = memory.split_at_mut(memory.len() - rows * size_of::<f32>());
    let (q, scales): (&mut [i8], &mut [f32]) = (bytemuck::cast_slice_mut(q), bytemuck::cast_slice_mut(scales));
    cpu.threads.each((chunks(q, BLOCK * cols), chunks(scales, BLOCK)), |block, (q, scales)| {
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = narrow(cpu.simd, &w[(block * BLOCK + i) * cols..][..cols], &mut q[i..]);
        }
    });
}

simd_fn! {
    /// Rounds a row to every 32nd element of `q`, and gives its scale.
    fn narrow(w: &[f32], q: &mut [i8]) -> f32 = narrow_body
}
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "plain code, compiled for each level")]
fn narrow_body<V: Vector>(w: &[f32], q: &mut [i8]) -> f32 {
    let mut largest = 0.0;
    for w in w {
        largest = if w.abs() > largest { w.abs() } else { largest };
    }
    let scale = largest / 127.0;
    // A row of zeros, or of numbers whose scale would be 0, stays zero.
    if scale > 0.0 {
        // In f64, in which the rounding of the scale cannot carry a quotient past 127.
        let steps = 1.0 / f64::from(scale);
        for (w, q) in w.iter().zip(q.iter_mut().step_by(BLOCK)) {
            *q = (f64::from(*w) * steps).round_ties_even() as i8;
        }
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;

    /// What comes back of `w`, twice added, and the scales.
    fn twice(w: &[f32], cols: usize) -> (Vec<f32>, Vec<f32>) {
        let rows = w.len() / cols;
        let mut outcomes = Simd::available().into_iter().map(|simd| {
            let cpu = Cpu::with(simd, 2);
            let mut memory = vec![0.0f32; bytes(rows, cols) / 4];
            let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
            memory.fill(0xff);
            quantize(&cpu, w, (rows, cols), memory);
            let (q8, mut back) = (Q8::new(memory, rows, cols), vec![1.0; w.len()]);
            for beta in [0.0, 1.0] {
                back.chunks_exact_mut(cols).enumerate().for_each(|(i, row)| q8.row(i, beta, row));
            }
            (back, q8.scales.to_vec())
        });
        let first = outcomes.next().expect("the scalar level");
        assert!(outcomes.all(|other| other == first));
        first
    }

    #[test]
    fn weights_are_at_most_half_a_step_off_on_every_level() {
        let cols = 101;
        let w: Vec<f32> = (0..3 * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * (i / cols + 1) as f32 / 7.0).collect();
        let (back, scales) = twice(&w, cols);
        for (i, (w, back)) in w.iter().zip(&back).enumerate() {
            let step = scales[i / cols];
            assert!((step - (i / cols + 1) as f32 * 50.0 / 7.0 / 127.0).abs() < 1e-6);
            assert!((w - back / 2.0).abs() <= 0.5001 * step, "{w} became {back}");
        }
    }

    #[test]
    fn rows_of_zeros_and_of_the_smallest_and_largest_numbers_stay_near_them() {
        for x in [0.0, -0.0, f32::from_bits(1), -f32::MIN_POSITIVE, f32::MAX / 4.0, f32::MIN / 4.0] {
            let (back, _) = twice(&[x; 10], 5);
            let off = back.iter().map(|y| (y / 2.0 - x).abs()).fold(0.0, f32::max);
            assert!(off <= x.abs() / 250.0 + f32::MIN_POSITIVE, "{x}: {back:?}");
        }
    }
}
