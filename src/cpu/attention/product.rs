//! The one matrix product behind attention: small operands that lie in the caches, parts of them masked.
//!
//! Tiles of up to 6 rows by 4 registers (2 on 8 lanes, but 8 for a single row, whose chains would else wait for their own
//! last step) are held in registers over all steps. Whatever the tile, an element
//! is one chain of fused multiply-adds over exactly its own steps in ascending order, so the tiling never shows in a result,
//! and a masked step is not a product with 0 (which would spread NaN and flip the sign of zeros): it does not take place.
//!
//! In bf16 steps go in pairs, of each the second first (`gemm/form.rs`), and a pair takes place where one of its steps does:
//! where the other is masked, A holds a 0. Rows in [`Form::Rounded`] lie in order, and are exchanged when they are read.

// Constant ranges that unroll say it best.
#![allow(clippy::needless_range_loop)]

use crate::cpu::gemm::form::{Form, Layout};
use crate::cpu::{Simd, Vector};
use std::ops::Range;

/// `C[r, c] = start + Σₖ A[r, k] B[k, c]` with addresses of A, B, C and steps between their elements: numbers, or pairs along
/// k in [`Form::Pairs`]. In bf16 there is a step more, with zeros, where `steps` is odd. Columns of B and C are contiguous and
/// padded to a multiple of 16.
pub struct Product {
    pub form: Form,
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub rows: usize,
    pub cols: usize,
    pub steps: usize,
    pub start: Start,
    pub part: Part,
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub enum Start {
    /// Zero.
    Zero,
    /// What C holds.
    Add,
    /// What C holds, row r multiplied by the number at `.0 + r`.
    Scaled(*const f32),
}

/// The part of a product that causality leaves, where query r sees key c if c ≤ r + n.
#[derive(Clone, Copy)]
pub enum Part {
    /// All of it.
    All,
    /// Columns c ≤ r + n of row r are wanted; what the others hold afterwards is not defined.
    Columns(isize),
    /// Row r sums over steps k ≤ r + n.
    Until(isize),
    /// Row r sums over steps k ≥ r − n.
    From(isize),
}

/// The columns that a tile of rows up to row `last` computes: those that it sees, up to a multiple of 16.
#[inline(always)]
pub fn columns(part: Part, cols: usize, last: usize) -> usize {
    match part {
        Part::Columns(n) => ((last as isize + n + 1).max(0) as usize).next_multiple_of(16).min(cols),
        _ => cols,
    }
}

impl Product {
    /// Computes C.
    ///
    /// # Safety
    /// The operands must be valid at all the addresses that the sizes span, C overlap neither A nor B, and nobody else write
    /// to them meanwhile.
    pub unsafe fn multiply(&self, simd: Simd) {
        multiply(simd, self.form, self);
    }
}

form_fn! {
    fn multiply(p: &Product) = multiply_body
}

/// The largest of some ascending sizes that is at most `room`.
#[inline(always)]
fn largest(sizes: &[usize], room: usize) -> usize {
    sizes.iter().copied().rfind(|&size| size <= room).unwrap_or(1)
}

#[inline(always)]
fn multiply_body<V: Vector, L: Layout<V>>(p: &Product) {
    debug_assert!(p.cols.is_multiple_of(16));
    let mut r = 0;
    while r < p.rows {
        let m = largest(&[1, 2, 3, 4, 6], p.rows - r);
        let cols = columns(p.part, p.cols, r + m - 1);
        let mut c = 0;
        while c < cols {
            let sizes: &[usize] = match (V::W, m) {
                (16, _) => &[1, 2, 4],
                (_, 1) => &[1, 2, 4, 8],
                _ => &[1, 2],
            };
            let n = largest(sizes, (cols - c) / V::W);
            let (first, last) = pieces::<V, L>(p, r, m);
            // SAFETY: the caller of `Product::multiply` vouches for the operands; rows, columns and steps are within their sizes.
            unsafe { tile_of::<V, L>(p, [r, m], [c, n], first, p.start) };
            if let Some(last) = last {
                // SAFETY: as above.
                unsafe { tile_of::<V, L>(p, [r, m], [c, n], last, Start::Add) };
            }
            c += n * V::W;
        }
        r += m;
    }
}

/// Steps of a tile, in bf16 pairs of them.
#[derive(Clone)]
struct Steps {
    /// At first those that only some rows take.
    some: Range<usize>,
    /// Then those that all take.
    all: Range<usize>,
}

/// The steps of the m rows at r: along the diagonal rows join one by one before the steps that all take, or leave one by one
/// after them. These follow by themselves.
#[inline(always)]
fn pieces<V: Vector, L: Layout<V>>(p: &Product, r: usize, m: usize) -> (Steps, Option<Steps>) {
    let held = |k: isize| k.clamp(0, p.steps as isize) as usize;
    // The group of step k, and the one behind that of step k − 1.
    let (first, end) = (|k| held(k) / L::GROUP, |k| held(k).div_ceil(L::GROUP));
    let steps = p.steps.div_ceil(L::GROUP);
    let (top, bottom) = (r as isize, (r + m - 1) as isize);
    match p.part {
        Part::All | Part::Columns(_) => (Steps { some: 0..0, all: 0..steps }, None),
        Part::From(n) => (Steps { some: first(top - n)..first(bottom - n), all: first(bottom - n)..steps }, None),
        Part::Until(n) => {
            let (common, longest) = (end(top + n + 1), end(bottom + n + 1));
            let rest = Steps { some: common..longest, all: 0..0 };
            (Steps { some: 0..0, all: 0..common }, (common < longest).then_some(rest))
        }
    }
}

/// The tile of `m` rows at r and `n` registers of columns at c, over some steps.
#[inline(always)]
unsafe fn tile_of<V: Vector, L: Layout<V>>(
    p: &Product,
    [r, m]: [usize; 2],
    [c, n]: [usize; 2],
    steps: Steps,
    start: Start,
) {
    macro_rules! pick {
        ($($m:literal),*) => {
            match (m, n) {
                $(($m, 1) => tile::<V, L, $m, 1>(p, r, c, steps, start),
                ($m, 2) => tile::<V, L, $m, 2>(p, r, c, steps, start),
                ($m, 4) if V::W == 16 => tile::<V, L, $m, 4>(p, r, c, steps, start),)*
                (1, 4) => tile::<V, L, 1, 4>(p, r, c, steps, start),
                (1, 8) if V::W == 8 => tile::<V, L, 1, 8>(p, r, c, steps, start),
                _ => unreachable!(),
            }
        };
    }
    // SAFETY: as the caller promises.
    unsafe { pick!(1, 2, 3, 4, 6) }
}

#[inline(always)]
unsafe fn tile<V: Vector, L: Layout<V>, const M: usize, const N: usize>(
    p: &Product,
    r: usize,
    c: usize,
    steps: Steps,
    start: Start,
) {
    // SAFETY: rows r..r + M, columns c..c + N·W and these steps lie within the operands.
    unsafe {
        let (a, b) = (p.a.add(r * p.a_row), p.b.add(c));
        let out = p.c.add(r * p.c_row + c);
        let mut acc = [[V::splat(0.0); N]; M];
        if !matches!(start, Start::Zero) {
            for i in 0..M {
                for j in 0..N {
                    acc[i][j] = V::load_ptr(out.add(i * p.c_row + j * V::W));
                }
            }
        }
        if let Start::Scaled(by) = start {
            for i in 0..M {
                for j in 0..N {
                    acc[i][j] = acc[i][j] * V::splat(*by.add(r + i));
                }
            }
        }
        for k in steps.some {
            let (k0, k1) = ((L::GROUP * k) as isize, (L::GROUP * (k + 1)) as isize);
            let rows = match p.part {
                Part::Until(n) => (k0 - n - r as isize).max(0) as usize..M,
                Part::From(n) => 0..(k1 + n - r as isize).max(0) as usize,
                _ => 0..M,
            };
            step::<V, L, M, N>(p, a, b, k, rows, &mut acc);
        }
        for k in steps.all {
            step::<V, L, M, N>(p, a, b, k, 0..M, &mut acc);
        }
        for i in 0..M {
            for j in 0..N {
                acc[i][j].store_ptr(out.add(i * p.c_row + j * V::W));
            }
        }
    }
}

/// One step, or pair of steps, of the sums of some rows of a tile.
#[inline(always)]
unsafe fn step<V: Vector, L: Layout<V>, const M: usize, const N: usize>(
    p: &Product,
    a: *const f32,
    b: *const f32,
    k: usize,
    rows: Range<usize>,
    acc: &mut [[V; N]; M],
) {
    // A group of steps is one row of B, or two.
    let each = L::GROUP / L::SPAN;
    for k in k * each..(k + 1) * each {
        let k = k ^ L::FLIP;
        // SAFETY: as in `tile`.
        unsafe {
            let mut line = [V::splat(0.0); N];
            for j in 0..N {
                line[j] = V::load_ptr(b.add(k * p.b_step + j * V::W));
            }
            for i in 0..M {
                if rows.start <= i && i < rows.end {
                    let x = V::splat(*a.add(i * p.a_row + k * p.a_step));
                    for j in 0..N {
                        acc[i][j] = L::multiply(x, line[j], acc[i][j]);
                    }
                }
            }
        }
    }
}
