//! Heads copied out of their tensors into contiguous rows, straight or transposed, padded to whole registers; and back.
//!
//! In bf16 numbers are rounded on the way, and there is one more, 0, where their number along k is odd. [`Form::Pairs`]
//! packs two of them in one place: neighbours in a row, or in a column.

use super::{KEYS, Rows};
use crate::cpu::gemm::form::{Form, Layout};
use crate::cpu::{Simd, Vector};

/// Transposes rows into `columns` columns of `y` (dim, 64), at most 64; the columns of absent rows are 0. In bf16 it has all
/// its columns written; in pairs it is (dim / 2, 64).
///
/// # Safety
/// The rows must be readable and these columns of `y` writable.
pub unsafe fn transpose(simd: Simd, form: Form, x: Rows<*const f32>, y: *mut f32, columns: usize) {
    transpose_rows(simd, form, x, y, columns);
}

/// Copies rows into `y` (n, width), `width` a multiple of 16; the columns from `dim` on are 0. In pairs `y` is
/// (n / 2, width).
///
/// # Safety
/// The rows must be readable and `y` writable.
pub unsafe fn copy(simd: Simd, form: Form, x: Rows<*const f32>, y: *mut f32, width: usize) {
    copy_rows(simd, form, x, y, width);
}

/// Copies rows into `y` (n, width), as a left operand: in pairs `y` is (n, width / 2).
///
/// # Safety
/// The rows must be readable and `y` writable.
pub unsafe fn left(simd: Simd, form: Form, x: Rows<*const f32>, y: *mut f32, width: usize) {
    left_rows(simd, form, x, y, width);
}

/// Writes rows from `x` (n, width), or adds them to what is there.
///
/// # Safety
/// `x` must be readable and the rows writable.
pub unsafe fn write(simd: Simd, x: *const f32, width: usize, y: Rows<*mut f32>, add: bool) {
    write_rows(simd, x, width, y, add);
}

/// The sum over each row of `x ∘ y`, to `sums` (n).
///
/// # Safety
/// The rows must be readable and `sums` writable.
pub unsafe fn dot(simd: Simd, x: Rows<*const f32>, y: Rows<*const f32>, sums: *mut f32) {
    dot_rows(simd, x, y, sums);
}

crate::simd_fn! {
    /// Asks for all rows.
    pub fn ask_all(x: Rows<*const f32>) = ask_body
}
form_fn! { fn transpose_rows(x: Rows<*const f32>, y: *mut f32, columns: usize) = transpose_body }
form_fn! { fn copy_rows(x: Rows<*const f32>, y: *mut f32, width: usize) = copy_body }
form_fn! { fn left_rows(x: Rows<*const f32>, y: *mut f32, width: usize) = left_body }
crate::simd_fn! { fn write_rows(x: *const f32, width: usize, y: Rows<*mut f32>, add: bool) = write_body }
crate::simd_fn! { fn dot_rows(x: Rows<*const f32>, y: Rows<*const f32>, sums: *mut f32) = dot_body }

/// Rows that are asked for in advance: each is in a page of its own, where the hardware does not look ahead.
pub const AHEAD: usize = 8;

/// Asks for row r, which need not exist.
#[inline(always)]
pub fn ask<V: Vector>(x: Rows<*const f32>, r: usize) {
    let row = x.ptr.wrapping_add(r * x.stride);
    (0..x.dim).step_by(16).for_each(
        #[inline(always)]
        |d| V::prefetch(row.wrapping_add(d)),
    );
}

#[inline(always)]
fn ask_body<V: Vector>(x: Rows<*const f32>) {
    for r in 0..x.n {
        ask::<V>(x, r);
    }
}

#[inline(always)]
fn transpose_body<V: Vector, L: Layout<V>>(x: Rows<*const f32>, y: *mut f32, columns: usize) {
    if L::GROUP == 2 {
        return transpose_rounded::<V, L>(x, y);
    }
    // Whole squares by registers, the rest one by one.
    let (n, dim) = (x.n - x.n % V::W, x.dim - x.dim % V::W);
    // SAFETY: the caller of `transpose` vouches for `x.n` ≤ `columns` ≤ 64 rows of `x.dim` and for `y`.
    unsafe {
        for r in (0..n).step_by(V::W) {
            for i in 0..V::W {
                ask::<V>(x, r + AHEAD + i);
            }
            for d in (0..dim).step_by(V::W) {
                V::transpose_at(x.ptr.add(r * x.stride + d), x.stride, y.add(d * KEYS + r), KEYS);
            }
        }
        for d in 0..x.dim {
            for r in if d < dim { n } else { 0 }..x.n {
                *y.add(d * KEYS + r) = *x.ptr.add(r * x.stride + d);
            }
            for r in x.n..columns {
                *y.add(d * KEYS + r) = 0.0;
            }
        }
    }
}

#[inline(always)]
fn transpose_rounded<V: Vector, L: Layout<V>>(x: Rows<*const f32>, y: *mut f32) {
    let lines = x.dim.next_multiple_of(L::GROUP) / L::SPAN;
    for r in (0..KEYS).step_by(V::W) {
        for i in 0..V::W {
            ask::<V>(x, r + AHEAD + i);
        }
        for d in (0..lines).step_by(V::W) {
            let mut block = [V::splat(0.0); 16];
            for (i, line) in block.iter_mut().enumerate().take(V::W.min(x.n.saturating_sub(r))) {
                // SAFETY: the caller of `transpose` vouches for the rows.
                *line = unsafe { along::<V, L>(x, r + i, d * L::SPAN) };
            }
            V::transpose(&mut block);
            for (i, line) in block.iter().enumerate().take(V::W.min(lines - d)) {
                // SAFETY: and for `y`.
                unsafe { line.store_ptr(y.add((d + i) * KEYS + r)) };
            }
        }
    }
}

#[inline(always)]
fn left_body<V: Vector, L: Layout<V>>(x: Rows<*const f32>, y: *mut f32, width: usize) {
    let width = width / L::SPAN;
    for r in 0..x.n {
        ask::<V>(x, r + AHEAD);
        for d in (0..width).step_by(V::W) {
            // SAFETY: the caller of `left` vouches for the rows and for `y`.
            unsafe { store(along::<V, L>(x, r, d * L::SPAN), y.add(r * width), width, d) };
        }
    }
}

/// A register of row r from d on, by L.
#[inline(always)]
unsafe fn along<V: Vector, L: Layout<V>>(x: Rows<*const f32>, r: usize, d: usize) -> V {
    let n = x.dim.saturating_sub(d).min(L::SPAN * V::W);
    // SAFETY: the caller promises row r of `dim` readable numbers.
    L::along(unsafe { std::slice::from_raw_parts(x.ptr.wrapping_add(r * x.stride + d), n) })
}

#[inline(always)]
fn copy_body<V: Vector, L: Layout<V>>(x: Rows<*const f32>, y: *mut f32, width: usize) {
    for row in 0..x.n.next_multiple_of(L::GROUP) / L::SPAN {
        for r in row * L::SPAN..(row + 1) * L::SPAN {
            ask::<V>(x, r + AHEAD);
        }
        for d in (0..width).step_by(V::W) {
            let line = L::across(
                row ^ L::FLIP,
                // SAFETY: the caller of `copy` vouches for the rows.
                #[inline(always)]
                |r| if r < x.n { unsafe { load::<V>(x.ptr.add(r * x.stride), x.dim, d) } } else { V::splat(0.0) },
            );
            // SAFETY: and for `y`.
            unsafe { line.store_ptr(y.add(row * width + d)) };
        }
    }
}

#[inline(always)]
fn write_body<V: Vector>(x: *const f32, width: usize, y: Rows<*mut f32>, add: bool) {
    for r in 0..y.n {
        ask::<V>(y.read(), r + AHEAD);
        for d in (0..y.dim).step_by(V::W) {
            // SAFETY: the caller of `write` vouches for `x` and the rows.
            unsafe {
                let row = y.ptr.add(r * y.stride);
                let mut sum = V::load_ptr(x.add(r * width + d));
                if add {
                    sum = load::<V>(row, y.dim, d) + sum;
                }
                store(sum, row, y.dim, d);
            }
        }
    }
}

#[inline(always)]
fn dot_body<V: Vector>(x: Rows<*const f32>, y: Rows<*const f32>, sums: *mut f32) {
    for r in 0..y.n {
        ask::<V>(y, r + AHEAD);
        let mut lanes = crate::cpu::Lanes::<V>::splat(0.0);
        lanes.run(
            y.dim,
            // SAFETY: the caller of `dot` vouches for the rows.
            #[inline(always)]
            |d, _| unsafe { load::<V>(x.ptr.add(r * x.stride), x.dim, d) * load(y.ptr.add(r * y.stride), y.dim, d) },
            #[inline(always)]
            |sum, xy| sum + xy,
        );
        // SAFETY: `sums` holds a number for each row.
        unsafe { *sums.add(r) = lanes.sum() };
    }
}

/// The register of numbers d to d + W of a row of `dim`, 0 beyond its end.
#[inline(always)]
unsafe fn load<V: Vector>(row: *const f32, dim: usize, d: usize) -> V {
    // SAFETY: the caller promises `dim` readable numbers.
    unsafe {
        match dim.saturating_sub(d) {
            0 => V::splat(0.0),
            n if n < V::W => V::load_partial(std::slice::from_raw_parts(row.add(d), n)),
            _ => V::load_ptr(row.add(d)),
        }
    }
}

/// Writes the numbers d to d + W of a row of `dim`, as far as it goes.
#[inline(always)]
pub unsafe fn store<V: Vector>(x: V, row: *mut f32, dim: usize, d: usize) {
    // SAFETY: the caller promises `dim` writable numbers.
    unsafe {
        match dim.saturating_sub(d) {
            0 => {}
            n if n < V::W => x.store_partial(std::slice::from_raw_parts_mut(row.add(d), n)),
            _ => x.store_ptr(row.add(d)),
        }
    }
}
