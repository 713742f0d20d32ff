//! Matrices in 4 bits: each row has a scale and a least value for 32 columns, `w ≈ scale · q + least`.
//!
//! ```text
//! least = min w, scale = (max w − min w) / 15, both rounded to f16;  q = (w − least) / scale to the nearest of 0 … 15
//! memory: blocks of 32 rows; in each, groups of 32 columns (the last one shorter):
//!         the rows' scales, the rows' least values (f16), then column by column 16 bytes: row i in the low half of byte i,
//!         row 16 + i in its high half; zeros in the place of rows that do not exist
//! ```
//! Five bits a weight in all. A row is an output channel of a linear layer. Activations stay f32; a weight is made f32 in one
//! rounding, `fma(scale, q, least)`, and then multiplied as any other, so that a product is that of the f32 matrix that these
//! weights are, bit for bit. (The scheme of llama.cpp's Q4_1 in another order: what
//! was in Q4_1 loses nothing. Numbers beyond ±65,504, which no trained model has, are cut.)

use super::{Cpu, Vector, chunks};
use crate::simd_fn;
use half::f16;

/// Rows of a block.
pub const BLOCK: usize = 32;
/// Columns of a group.
pub const GROUP: usize = 32;
/// Bytes of a column of a block.
pub const COLUMN: usize = BLOCK / 2;
/// Bytes of a group's scales and least values.
const HEAD: usize = 2 * BLOCK * size_of::<f16>();

/// Bytes of a block of so many columns.
const fn block_bytes(cols: usize) -> usize {
    cols.div_ceil(GROUP) * HEAD + cols * COLUMN
}

/// Bytes of a matrix.
pub const fn bytes(rows: usize, cols: usize) -> usize {
    rows.div_ceil(BLOCK) * block_bytes(cols)
}

/// A matrix in 4 bits, for reading, or the part of it from a row and a column on.
#[derive(Clone, Copy, Debug)]
pub struct Q4<'a> {
    memory: &'a [u8],
    /// Columns of the whole matrix.
    cols: usize,
    /// Where the part begins.
    first: (usize, usize),
}

/// A group of a block.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    /// The scales of 32 rows.
    pub scales: &'a [f16],
    /// Their least values.
    pub least: &'a [f16],
    /// The columns, [`COLUMN`] bytes each.
    pub q: &'a [u8],
}

impl<'a> Q4<'a> {
    /// The matrix (rows, cols) that lies in `memory`.
    ///
    /// # Panics
    /// The length is not that of [`bytes`], or the memory is not aligned to 2.
    pub fn new(memory: &'a [u8], rows: usize, cols: usize) -> Q4<'a> {
        assert_eq!(memory.len(), bytes(rows, cols), "a {rows} x {cols} matrix in 4 bits");
        Q4 { memory, cols, first: (0, 0) }
    }

    /// Columns of the whole matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Numbers in it, those of rows included that do not exist.
    pub(super) fn len(&self) -> usize {
        self.memory.len() / block_bytes(self.cols).max(1) * BLOCK * self.cols
    }

    /// The part from row `row` and column `col` on.
    pub(super) fn at(self, row: usize, col: usize) -> Q4<'a> {
        Q4 { first: (self.first.0 + row, self.first.1 + col), ..self }
    }

    /// Group `group` of the whole matrix' block `block`.
    #[inline(always)]
    pub fn group(&self, block: usize, group: usize) -> Group<'a> {
        let start = block * block_bytes(self.cols) + group * (HEAD + GROUP * COLUMN);
        let columns = GROUP.min(self.cols - group * GROUP);
        let (head, q) = self.memory[start..][..HEAD + columns * COLUMN].split_at(HEAD);
        let (scales, least) = bytemuck::cast_slice(head).split_at(BLOCK);
        Group { scales, least, q }
    }

    /// The weights of the rows from `lane` on in column `k`, of one block: as many as a register holds. Those beyond the block
    /// are 0.
    #[inline(always)]
    pub(super) fn load<V: Vector>(&self, lane: usize, k: usize) -> V {
        let (lane, k) = (self.first.0 + lane, self.first.1 + k);
        let (block, lane) = (lane / BLOCK, lane % BLOCK);
        let Group { scales, least, q } = self.group(block, k / GROUP);
        let column = &q[k % GROUP * COLUMN..][..COLUMN];
        if lane.is_multiple_of(V::W) {
            // SAFETY: `W` bytes from a multiple of `W` on, below 16, are in a column.
            let halves = unsafe { V::load_halves(column.as_ptr().add(lane % COLUMN)) };
            return widen::<V>(&scales[lane..]).fma(halves[lane / COLUMN], widen::<V>(&least[lane..]));
        }
        let [mut s, mut l, mut w] = [[0.0; 16]; 3];
        for i in 0..V::W.min(BLOCK - lane) {
            let row = lane + i;
            (s[i], l[i]) = (to_f32(scales[row]), to_f32(least[row]));
            w[i] = f32::from(column[row % COLUMN] >> (row / COLUMN * 4) & 15);
        }
        V::load(&s).fma(V::load(&w), V::load(&l))
    }

    /// `w = beta w + row i`, with `beta` 0 or 1.
    pub fn row(&self, i: usize, beta: f32, w: &mut [f32]) {
        for (g, w) in w.chunks_mut(GROUP).enumerate() {
            let Group { scales, least, q } = self.group(i / BLOCK, g);
            let (lane, scale, least) = (i % BLOCK, to_f32(scales[i % BLOCK]), to_f32(least[i % BLOCK]));
            for (w, column) in w.iter_mut().zip(q.chunks_exact(COLUMN)) {
                let q = f32::from(column[lane % COLUMN] >> (lane / COLUMN * 4) & 15);
                let value = scale.mul_add(q, least);
                *w = if beta == 0.0 { value } else { *w + value };
            }
        }
    }
}

/// A finite number as f32, by operations that compilers do many at a time: its exponent's bias grows by 112.
#[inline(always)]
fn to_f32(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

/// The first `V::W` numbers of `x`.
#[inline(always)]
pub(super) fn widen<V: Vector>(x: &[f16]) -> V {
    let mut wide = [0.0; 16];
    wide.iter_mut().zip(&x[..V::W]).for_each(|(wide, x)| *wide = to_f32(*x));
    V::load(&wide)
}

/// The nearest number, or the largest.
fn from_f32(x: f32) -> f16 {
    let max = f16::MAX.to_f32();
    f16::from_f32(x.clamp(-max, max))
}

/// Writes the weights `w` (rows, cols), all finite, to `memory`, by all threads.
///
/// # Panics
/// A length is not that of such a matrix, or the memory is not aligned to 2.
pub fn quantize(cpu: &Cpu, w: &[f32], (rows, cols): (usize, usize), memory: &mut [u8]) {
    assert_eq!((w.len(), memory.len()), (rows * cols, bytes(rows, cols)), "a {rows} x {cols} matrix in 4 bits");
    memory.fill(0);
    if rows * cols == 0 {
        return;
    }
    cpu.threads.each(chunks(memory, block_bytes(cols)), |block, memory| {
        for row in block * BLOCK..rows.min((block + 1) * BLOCK) {
            narrow(cpu.simd, &w[row * cols..][..cols], row % BLOCK, memory);
        }
    });
}

simd_fn! {
    /// Rounds a row to its place in a block.
    fn narrow(w: &[f32], lane: usize, block: &mut [u8]) = narrow_body
}
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "plain code, compiled for each level")]
fn narrow_body<V: Vector>(w: &[f32], lane: usize, block: &mut [u8]) {
    for (w, group) in w.chunks(GROUP).zip(block.chunks_mut(HEAD + GROUP * COLUMN)) {
        let (head, q) = group.split_at_mut(HEAD);
        let (mut low, mut high) = (w[0], w[0]);
        for &w in w {
            low = if w < low { w } else { low };
            high = if w > high { w } else { high };
        }
        let (least, scale) = (from_f32(low), from_f32(high / 15.0 - low / 15.0));
        let head: &mut [f16] = bytemuck::cast_slice_mut(head);
        (head[lane], head[BLOCK + lane]) = (scale, least);
        // In f64, in which neither the difference nor the quotient overflows.
        let (least, scale) = (f64::from(to_f32(least)), f64::from(to_f32(scale)));
        if scale > 0.0 {
            for (w, column) in w.iter().zip(q.chunks_exact_mut(COLUMN)) {
                let q = ((f64::from(*w) - least) / scale).round_ties_even().clamp(0.0, 15.0) as u8;
                column[lane % COLUMN] |= q << (lane / COLUMN * 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;

    /// What comes back of `w`, twice added.
    fn twice(w: &[f32], cols: usize) -> Vec<f32> {
        let rows = w.len() / cols;
        let mut outcomes = Simd::available().into_iter().map(|simd| {
            let cpu = Cpu::with(simd, 2);
            let mut memory = vec![0.0f32; bytes(rows, cols).div_ceil(4)];
            let memory: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut memory)[..bytes(rows, cols)];
            memory.fill(0xff);
            quantize(&cpu, w, (rows, cols), memory);
            let (q4, mut back) = (Q4::new(memory, rows, cols), vec![1.0; w.len()]);
            for beta in [0.0, 1.0] {
                back.chunks_exact_mut(cols).enumerate().for_each(|(i, row)| q4.row(i, beta, row));
            }
            back
        });
        let first = outcomes.next().expect("the scalar level");
        assert!(outcomes.all(|other| other == first));
        first
    }

    #[test]
    fn weights_are_little_more_than_half_a_step_off_on_every_level() {
        for (rows, cols) in [(35, 101), (32, 64), (1, 7), (70, 33)] {
            let w: Vec<f32> =
                (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 30.0) * (i / cols + 1) as f32 / 7.0).collect();
            let back = twice(&w, cols);
            for (i, (w, back)) in w.iter().zip(&back).enumerate() {
                // 100 / 15 of the row's unit; f16 takes a 2048th of the least value and of 15 scales.
                let unit = (i / cols + 1) as f32 / 7.0;
                let allowed = unit * (100.0 / 15.0 / 2.0 + 100.0 / 2048.0 + 70.0 / 2048.0);
                assert!((w - back / 2.0).abs() <= allowed, "{i}: {w} became {}", back / 2.0);
            }
        }
    }

    #[test]
    fn halves_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            assert!(!x.is_finite() || to_f32(x).to_bits() == x.to_f32().to_bits(), "{x}");
        }
    }

    #[test]
    fn what_was_in_q4_1_loses_nothing() {
        // Each group has its least and its largest code.
        let w: Vec<f32> = (0..64).map(|i| f16::from_f32(0.0123).to_f32() * (i * 7 % 16) as f32 - 0.0625).collect();
        assert!(twice(&w, 64).iter().zip(&w).all(|(y, x)| (y / 2.0 - x).abs() <= 1e-9), "{w:?}");
    }

    #[test]
    fn rows_of_one_number_stay_near_it() {
        for x in [0.0, -0.0, 1e-7, 65504.0, -65504.0, -3.25, 0.1] {
            let back = twice(&[x; 40], 40);
            assert!(back.iter().all(|y| (y / 2.0 - x).abs() <= x.abs() / 2048.0 + 3e-8), "{x}: {back:?}");
        }
    }
}
