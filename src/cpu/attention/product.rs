//! The one matrix product behind attention: small operands that lie in the caches, parts of them masked.
//!
//! Tiles of up to 6 rows by 4 registers (2 on 8 lanes, but 8 for a single row, whose chains would else wait for their own
//! last step) are held in registers over all steps. Whatever the tile, an element
//! is one chain of fused multiply-adds over exactly its own steps in ascending order, so the tiling never shows in a result,
//! and a masked step is not a product with 0 (which would spread NaN and flip the sign of zeros): it does not take place.
//!
//! In bf16 steps go in pairs, of each the second first (`gemm/form.rs`), and a pair takes place where one of its steps does:
//! where the other is masked, A holds a 0. Rows in [`Form::Rounded`] lie in order, and are exchanged when they are read.

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

/// Rows of a tile.
const M: usize = 6;

#[inline(always)]
fn multiply_body<V: Vector, L: Layout<V>>(p: &Product) {
    debug_assert!(p.cols.is_multiple_of(16));
    let mut r = 0;
    while r < p.rows {
        let m = M.min(p.rows - r);
        let cols = columns(p.part, p.cols, r + m - 1);
        let mut c = 0;
        while c < cols {
            let n = (if V::W == 16 {
                4
            } else if m == 1 {
                8
            } else {
                2
            })
            .min((cols - c) / V::W);
            // SAFETY: the caller of `Product::multiply` vouches for the operands; rows and columns are within their sizes.
            unsafe { tile_of::<V, L>(p, r, m, c, n) };
            c += n * V::W;
        }
        r += m;
    }
}

/// The tile of `m` rows at r and `n` registers of columns at c.
#[inline(always)]
unsafe fn tile_of<V: Vector, L: Layout<V>>(p: &Product, r: usize, m: usize, c: usize, n: usize) {
    macro_rules! pick {
        ($($m:literal),*) => {
            match (m, n) {
                $(($m, 1) => tile::<V, L, $m, 1>(p, r, c),
                ($m, 2) => tile::<V, L, $m, 2>(p, r, c),
                ($m, 3) if V::W == 16 => tile::<V, L, $m, 3>(p, r, c),
                ($m, 4) if V::W == 16 => tile::<V, L, $m, 4>(p, r, c),)*
                (1, 4) => tile::<V, L, 1, 4>(p, r, c),
                (1, 6) => tile::<V, L, 1, 6>(p, r, c),
                (1, 8) => tile::<V, L, 1, 8>(p, r, c),
                _ => unreachable!(),
            }
        };
    }
    // SAFETY: as the caller promises.
    unsafe { pick!(1, 2, 3, 4, 5, 6) }
}

#[inline(always)]
unsafe fn tile<V: Vector, L: Layout<V>, const M: usize, const N: usize>(p: &Product, r0: usize, c0: usize) {
    // Along the diagonal the rows of a tile join one by one before the steps that all take, or leave one by one after them.
    // In bf16 all but `held` counts pairs of steps: `first` is that of step k, `end` lies beyond that of step k − 1.
    let held = |k: isize| k.clamp(0, p.steps as isize) as usize;
    let (first, end) = (|k| held(k) / L::GROUP, |k| held(k).div_ceil(L::GROUP));
    let (r, group) = (r0 as isize, L::GROUP as isize);
    let steps = p.steps.div_ceil(L::GROUP);
    let all = match p.part {
        Part::All | Part::Columns(_) => 0..steps,
        Part::Until(n) => 0..end(r + n + 1),
        Part::From(n) => first(r + M as isize - 1 - n)..steps,
    };
    // SAFETY: rows r0..r0 + M, columns c0..c0 + N·W and steps below `steps` lie within the operands.
    unsafe {
        let a = p.a.add(r0 * p.a_row);
        let b = p.b.add(c0);
        let c = p.c.add(r0 * p.c_row + c0);
        let mut acc = [[V::splat(0.0); N]; M];
        match p.start {
            Start::Zero => {}
            Start::Add => each::<M, N>(|i, j| acc[i][j] = V::load_ptr(c.add(i * p.c_row + j * V::W))),
            Start::Scaled(by) => each::<M, N>(|i, j| {
                acc[i][j] = V::load_ptr(c.add(i * p.c_row + j * V::W)) * V::splat(*by.add(r0 + i));
            }),
        }
        if let Part::From(n) = p.part {
            for k in first(r - n)..all.start {
                step::<V, L, M, N>(p, a, b, k, 0..(group * (k as isize + 1) + n - r) as usize, &mut acc);
            }
        }
        for k in all.clone() {
            step::<V, L, M, N>(p, a, b, k, 0..M, &mut acc);
        }
        if let Part::Until(n) = p.part {
            for k in all.end..end(r + M as isize + n) {
                step::<V, L, M, N>(p, a, b, k, (group * k as isize - n - r) as usize..M, &mut acc);
            }
        }
        each::<M, N>(|i, j| acc[i][j].store_ptr(c.add(i * p.c_row + j * V::W)));
    }
}

/// Calls `f(i, j)` for each register of a tile.
#[inline(always)]
fn each<const M: usize, const N: usize>(mut f: impl FnMut(usize, usize)) {
    for i in 0..M {
        for j in 0..N {
            f(i, j);
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
    let each = L::GROUP / L::SPAN;
    for k in k * each..(k + 1) * each {
        let k = k ^ L::FLIP;
        // SAFETY: as in `tile`.
        unsafe {
            let mut line = [V::splat(0.0); N];
            for (j, line) in line.iter_mut().enumerate() {
                *line = V::load_ptr(b.add(k * p.b_step + j * V::W));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                if rows.start <= i && i < rows.end {
                    let x = V::splat(*a.add(i * p.a_row + k * p.a_step));
                    for (acc, line) in acc.iter_mut().zip(line) {
                        *acc = L::multiply(x, line, *acc);
                    }
                }
            }
        }
    }
}
