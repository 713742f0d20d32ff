//! The inner kernel and the order in which it walks over C.

// Indices that run over several arrays, and constant ranges that unroll, say it best.
#![allow(clippy::needless_range_loop)]

use super::Finish;
use super::pack::Panels;
use crate::cpu::{Simd, Tiles, Vector};
use crate::simd_fn;

/// Depth of the slices of A and B that are in cache together.
const KC: usize = 512;
/// Side of the piece of C that one iteration of the parallel loop computes, at most: in panels of A and of B.
const PIECE: (usize, usize) = (12, 8);

/// MR and NR: rows and columns of a tile, whose sums stay in registers. The panels' widths.
pub(super) fn size(simd: Simd) -> (usize, usize) {
    match simd {
        Simd::Scalar(_) => (6, 16),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2(_) => (6, 16),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512(_) => (14, 32),
    }
}

/// A packed block of A times a packed block of B, cut into pieces.
pub(super) struct Block<'a> {
    pub a: &'a [f32],
    pub a_panels: Panels,
    pub b: &'a [f32],
    pub b_panels: Panels,
    /// Floats between the starts of B's panels.
    pub b_pitch: usize,
    pub k: usize,
    pub c: Tiles<'a>,
    pub c_stride: usize,
    /// Where the block's C starts.
    pub row: usize,
    pub col: usize,
    /// Whether the chains start from C, else from 0.
    pub add: bool,
    pub finish: Option<&'a Finish<'a>>,
    /// Pieces along the rows and along the columns.
    pub cut: (usize, usize),
}

impl Block<'_> {
    /// Cuts C into pieces that fit the cache, and into enough of them to keep all threads busy to the end.
    pub fn cut_for(&mut self, threads: usize) {
        let (rows, cols) = (self.a_panels.count, self.b_panels.count);
        let enough = if threads == 1 { 1 } else { 6 * threads };
        let mut cut = (rows.div_ceil(PIECE.0), cols.div_ceil(PIECE.1));
        while cut.0 * cut.1 < enough && (cut.0 < rows || cut.1 < cols) {
            // Halve the longer side.
            if cut.1 >= cols || cut.0 < rows && rows * cut.1 > cols * cut.0 {
                cut.0 = rows.min(2 * cut.0);
            } else {
                cut.1 = cols.min(2 * cut.1);
            }
        }
        self.cut = cut;
    }
}

/// What exists of register `v` of a row of `cols` floats.
///
/// # Safety
/// `row` points to `cols` floats that nobody else uses.
#[inline(always)]
unsafe fn part<'a, V: Vector>(row: *mut f32, v: usize, cols: usize) -> &'a mut [f32] {
    let start = (v * V::W).min(cols);
    // SAFETY: the range ends at `cols`.
    unsafe { std::slice::from_raw_parts_mut(row.add(start), V::W.min(cols - start)) }
}

/// One tile: `MR` rows and `NV` registers of columns, of which `cols` exist; C += or = A·B over depth `k`.
///
/// # Safety
/// `a` points to `k` rows of `a_width` floats, `b` to `k` rows of `NV · W`, `c` to `MR` rows of `cols` floats, `stride`
/// apart, that nobody else uses.
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(
    k: usize,
    mut a: *const f32,
    a_width: usize,
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    cols: usize,
    add: bool,
) {
    let mut sum = [[V::splat(0.0); NV]; MR];
    let full = cols == NV * V::W;
    // SAFETY: as promised by the caller; the parts of a row lie inside `cols`.
    unsafe {
        if add {
            for i in 0..MR {
                for v in 0..NV {
                    sum[i][v] = if full {
                        V::load_ptr(c.add(i * stride + v * V::W))
                    } else {
                        V::load_partial(part::<V>(c.add(i * stride), v, cols))
                    };
                }
            }
        }
        for _ in 0..k {
            let mut x = [V::splat(0.0); NV];
            for v in 0..NV {
                x[v] = V::load_ptr(b.add(v * V::W));
            }
            for i in 0..MR {
                let y = V::splat(*a.add(i));
                for v in 0..NV {
                    sum[i][v] = y.fma(x[v], sum[i][v]);
                }
            }
            a = a.add(a_width);
            b = b.add(NV * V::W);
        }
        for i in 0..MR {
            for v in 0..NV {
                if full {
                    sum[i][v].store_ptr(c.add(i * stride + v * V::W));
                } else {
                    sum[i][v].store_partial(part::<V>(c.add(i * stride), v, cols));
                }
            }
        }
    }
}

#[inline(always)]
fn multiply_body<V: Vector>(block: &Block<'_>, piece: usize) {
    if V::W == 16 {
        piece_of::<V, 14, 2>(block, piece);
    } else {
        piece_of::<V, 6, 2>(block, piece);
    }
}
simd_fn! {
    /// Computes one piece of C and finishes its rows.
    pub(super) fn multiply(block: &Block<'_>, piece: usize) = multiply_body
}

#[inline(always)]
fn piece_of<V: Vector, const MR: usize, const NV: usize>(block: &Block<'_>, piece: usize) {
    let (i, j) = (piece / block.cut.1, piece % block.cut.1);
    let rows = i * block.a_panels.count / block.cut.0..(i + 1) * block.a_panels.count / block.cut.0;
    let cols = j * block.b_panels.count / block.cut.1..(j + 1) * block.b_panels.count / block.cut.1;
    assert!(block.a_panels.width == MR && block.b_panels.width == NV * V::W);
    assert!(block.a.len() >= block.a_panels.len(block.k));
    assert!(block.b.len() >= (block.b_panels.count - 1) * block.b_pitch + block.k * NV * V::W);
    let slices = block.k.div_ceil(KC).max(1);
    for slice in 0..slices {
        let (k0, k1) = (slice * block.k / slices, (slice + 1) * block.k / slices);
        for j in cols.clone() {
            let lanes = block.b_panels.range(j);
            let b = block.b[j * block.b_pitch + k0 * NV * V::W..].as_ptr();
            for i in rows.clone() {
                let tall = block.a_panels.range(i);
                let a = block.a[(i * block.k + k0) * MR..].as_ptr();
                let c = block.c.ptr((block.row + tall.start) * block.c_stride + block.col + lanes.start);
                let add = block.add || slice > 0;
                macro_rules! by_height {
                    ($($h:literal)*) => {
                        match tall.len() {
                            // SAFETY: the panels are as long as asserted above; this piece alone uses these elements of C.
                            $($h if $h <= MR => unsafe {
                                tile::<V, $h, NV>(k1 - k0, a, MR, b, c, block.c_stride, lanes.len(), add)
                            })*
                            _ => unreachable!(),
                        }
                    };
                }
                by_height!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
            }
        }
    }
    if let Some(finish) = block.finish {
        let first = block.b_panels.range(cols.start).start;
        let len = block.b_panels.range(cols.end - 1).end - first;
        for row in block.a_panels.range(rows.start).start..block.a_panels.range(rows.end - 1).end {
            let (row, col) = (block.row + row, block.col + first);
            // SAFETY: this piece alone uses these elements of C, and the kernel is done with them.
            let piece = unsafe { std::slice::from_raw_parts_mut(block.c.ptr(row * block.c_stride + col), len) };
            finish(row, col, piece);
        }
    }
}
