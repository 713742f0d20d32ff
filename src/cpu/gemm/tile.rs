//! The inner kernel and the order in which it walks over C.

// Indices that run over several arrays, and constant ranges that unroll, say it best.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
use super::form::native::{Native, avx512bf16};
use super::form::{Form, Layout, Pairs, Plain, Single};
use super::pack::{Panels, Source, pack};
use super::{Finish, show};
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::F32x16;
use crate::cpu::{Cpu, Simd, Tiles, Vector};
use crate::{scalar_fn, simd_fn};
use std::ops::Range;

/// Rows of a panel, at most: where A and B are cut along k. Rows of pairs are twice as deep in the same bytes.
pub(super) const ROWS: usize = 768;
/// Numbers of a packed local part (384 KiB): a share of the second-level cache that leaves room for the rest.
const LOCAL: usize = 96 << 10;
/// Numbers of a shared part (6 MiB): a share of the last-level cache, where it stays while all local parts meet it.
const SHARED: usize = 3 << 19;
/// Columns are finished after this many panels of B, where A is local.
const FINISH: usize = 8;

/// MR and NR: rows and columns of a tile, whose sums stay in registers. The panels' widths.
pub(super) fn size(simd: Simd) -> (usize, usize) {
    match simd {
        Simd::Scalar(_) => (6, 16),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2(_) => (6, 16),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512(_) => (14, 32),
        #[cfg(target_arch = "aarch64")]
        Simd::Neon(_) => (6, 16),
    }
}

/// The operand that each piece packs for itself.
#[derive(Clone, Copy)]
pub(super) enum Local<'a> {
    A(Source<'a>),
    B(Source<'a>),
}

/// The operand whose panels are packed: they start `pitch` numbers apart.
pub(super) struct Shared<'a> {
    pub data: &'a [f32],
    pub pitch: usize,
}

/// C += or = a slice of A times a slice of B, to be computed in pieces.
pub(super) struct Block<'a> {
    pub local: Local<'a>,
    pub shared: Shared<'a>,
    pub a_panels: Panels,
    pub b_panels: Panels,
    pub form: Form,
    /// Elements along k.
    pub depth: usize,
    pub c: Tiles<'a>,
    pub row_stride: usize,
    /// Whether the chains start from C, else from 0.
    pub add: bool,
    pub finish: Option<&'a Finish<'a>>,
}

/// Part `i` of `0..len` cut into `parts` nearly equal ones.
pub(super) fn part_of(len: usize, parts: usize, i: usize) -> Range<usize> {
    i * len / parts..(i + 1) * len / parts
}

impl Block<'_> {
    /// Source and panels of the local operand, panels of the shared one.
    fn sides(&self) -> (&Source<'_>, &Panels, &Panels) {
        match &self.local {
            Local::A(source) => (source, &self.a_panels, &self.b_panels),
            Local::B(source) => (source, &self.b_panels, &self.a_panels),
        }
    }

    /// Rows of a panel.
    fn rows(&self) -> usize {
        self.form.rows(self.depth)
    }

    /// Numbers of the largest local part.
    pub fn local_len(&self, cut: (usize, usize)) -> usize {
        let (_, local, _) = self.sides();
        local.count.div_ceil(cut.0) * local.width * self.rows()
    }

    /// Into how many parts the local and the shared panels are cut: so many that a local part fits its cache and all
    /// threads are busy to the end.
    pub fn cut(&self, threads: usize) -> (usize, usize) {
        let (_, local, shared) = self.sides();
        let parts = |panels: &Panels, size: usize| panels.len(self.rows()).div_ceil(size).clamp(1, panels.count);
        let mut cut = (parts(local, LOCAL), parts(shared, SHARED));
        let enough = if threads == 1 { 1 } else { 6 * threads };
        while cut.0 * cut.1 < enough && (cut.0 < local.count || cut.1 < shared.count) {
            // Parts of the shared side cost a packing of the local one each, so that is cut finer first.
            if cut.1 >= shared.count || cut.0 < local.count && local.count * cut.1 * 4 > shared.count * cut.0 {
                cut.0 = local.count.min(2 * cut.0);
            } else {
                cut.1 = shared.count.min(2 * cut.1);
            }
        }
        cut
    }

    /// Computes piece `i` and finishes its rows.
    pub fn piece(&self, cpu: &Cpu, cut: (usize, usize), i: usize) {
        let (source, local, shared) = self.sides();
        let own = part_of(local.count, cut.0, i % cut.0);
        let theirs = part_of(shared.count, cut.1, i / cut.0);
        let mut packed = cpu.scratch.take(own.len() * local.width * self.rows());
        pack(cpu.simd, self.form, source, local, self.depth, own.start, &mut packed);
        // Rows of C are finished while they are in cache: after some columns, or after each panel's rows.
        let own_is_a = matches!(self.local, Local::A(_));
        let step = if own_is_a { FINISH } else { 1 };
        for first in theirs.clone().step_by(step) {
            let theirs = first..theirs.end.min(first + step);
            multiply(cpu.simd, self, &packed, own.clone(), theirs.clone());
            if let Some(finish) = self.finish {
                let (rows, cols) = if own_is_a { (own.clone(), theirs) } else { (theirs, own.clone()) };
                let lanes = |of: &Panels, i: Range<usize>| of.range(i.start).start..of.range(i.end - 1).end;
                let (rows, cols) = (lanes(&self.a_panels, rows), lanes(&self.b_panels, cols));
                // SAFETY: this piece alone uses these elements of C, and the kernel is done with them.
                unsafe { show(&self.c, self.row_stride, rows, cols, finish) };
            }
        }
    }
}

/// Steps of the inner loop between two jumps: its integer instructions compete with the multiply-adds for ports.
const UNROLL: usize = 4;

/// Where the elements of A that a tile meets in one step of its chains lie, and in the next.
pub(super) trait Left<const MR: usize>: Copy {
    /// The element of row `i`, `k` steps on.
    ///
    /// # Safety
    /// There is such an element.
    unsafe fn at(&self, i: usize, k: usize) -> f32;
    /// Goes `k` steps on.
    fn skip(&mut self, k: usize);
}

/// Rows that are neighbours, with so many numbers from one step to the next: a panel.
#[derive(Clone, Copy)]
struct Neighbours(*const f32, usize);

impl<const MR: usize> Left<MR> for Neighbours {
    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *self.0.add(k * self.1 + i) }
    }
    #[inline(always)]
    fn skip(&mut self, k: usize) {
        self.0 = self.0.wrapping_add(k * self.1);
    }
}

/// Rows that begin anywhere, in each of which the steps are neighbours.
impl<const MR: usize> Left<MR> for [*const f32; MR] {
    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { *self[i].add(k) }
    }
    #[inline(always)]
    fn skip(&mut self, k: usize) {
        for i in 0..MR {
            self[i] = self[i].wrapping_add(k);
        }
    }
}

/// Step `k` of the chains: a column of A times a row of B.
///
/// # Safety
/// `a` has `MR` elements there, and `b` points to `NV · W` floats.
#[inline(always)]
unsafe fn step<V: Vector, L: Layout<V>, A: Left<MR>, const MR: usize, const NV: usize>(
    sum: &mut [[V; NV]; MR],
    a: &A,
    k: usize,
    b: *const f32,
) {
    let mut x = [V::splat(0.0); NV];
    // SAFETY: as promised by the caller.
    unsafe {
        for v in 0..NV {
            x[v] = V::load_ptr(b.add(v * V::W));
        }
        for i in 0..MR {
            let y = V::splat(a.at(i, k));
            for v in 0..NV {
                sum[i][v] = L::multiply(y, x[v], sum[i][v]);
            }
        }
    }
}

/// What exists of register `v` of a row of `cols` floats.
///
/// # Safety
/// `row` points to `cols` floats that nobody else uses.
#[inline(always)]
pub(super) unsafe fn part<'a, V: Vector>(row: *mut f32, v: usize, cols: usize) -> &'a mut [f32] {
    let start = (v * V::W).min(cols);
    // SAFETY: the range ends at `cols`.
    unsafe { std::slice::from_raw_parts_mut(row.add(start), V::W.min(cols - start)) }
}

/// One tile: `MR` rows and `NV` registers of columns, of which `cols` exist; C += or = A·B over `runs` runs of `run` steps.
/// `start(r)` says where run r begins in A and in B, whose rows are `b_step` floats apart.
///
/// # Safety
/// A has `MR` elements and B `NV · W` floats in each step of each run; each of `c` points to a row of `cols` floats that
/// nobody else uses.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, L: Layout<V>, A: Left<MR>, const MR: usize, const NV: usize>(
    [runs, run]: [usize; 2],
    mut start: impl FnMut(usize) -> (A, *const f32),
    b_step: usize,
    c: [*mut f32; MR],
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
                    sum[i][v] =
                        if full { V::load_ptr(c[i].add(v * V::W)) } else { V::load_partial(part::<V>(c[i], v, cols)) };
                }
            }
        } else {
            // What will be written is on its way when the sums are done.
            for i in 0..MR {
                for v in 0..NV {
                    V::prefetch(c[i].wrapping_add(v * V::W));
                }
            }
        }
        for r in 0..runs {
            let (mut a, mut b) = start(r);
            let mut left = run;
            while left >= UNROLL {
                for u in 0..UNROLL {
                    step::<V, L, A, MR, NV>(&mut sum, &a, u, b.add(u * b_step));
                }
                a.skip(UNROLL);
                b = b.add(UNROLL * b_step);
                left -= UNROLL;
            }
            for u in 0..left {
                step::<V, L, A, MR, NV>(&mut sum, &a, u, b.add(u * b_step));
            }
        }
        for i in 0..MR {
            for v in 0..NV {
                if full {
                    sum[i][v].store_ptr(c[i].add(v * V::W));
                } else {
                    sum[i][v].store_partial(part::<V>(c[i], v, cols));
                }
            }
        }
    }
}

/// The local panels `own`, which are `packed`, times the shared panels `theirs`.
pub(super) fn multiply(simd: Simd, block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) {
    match block.form {
        Form::Single | Form::Rounded => single(simd, block, packed, own, theirs),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: such a level exists only where its instructions do.
        Form::Pairs if matches!(simd, Simd::Avx512(bf16) if bf16.present()) => unsafe {
            native(block, packed, own, theirs);
        },
        Form::Pairs => pairs(simd, block, packed, own, theirs),
    }
}

simd_fn! {
    fn single(block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) = single_body
}
#[inline(always)]
fn single_body<V: Vector>(block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) {
    multiply_by_level::<V, Single>(block, packed, own, theirs);
}

scalar_fn! {
    fn pairs(block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) = pairs_body
}
#[inline(always)]
fn pairs_body<V: Vector>(block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) {
    multiply_by_level::<V, Pairs<Plain>>(block, packed, own, theirs);
}

#[cfg(target_arch = "x86_64")]
avx512bf16! {
    fn native(block: &Block<'_>, packed: &[f32], own: Range<usize>, theirs: Range<usize>) {
        multiply_by_level::<F32x16, Pairs<Native>>(block, packed, own, theirs);
    }
}

#[inline(always)]
fn multiply_by_level<V: Vector, L: Layout<V>>(
    block: &Block<'_>,
    packed: &[f32],
    own: Range<usize>,
    theirs: Range<usize>,
) {
    if V::W == 16 {
        multiply_by::<V, L, 14, 2>(block, packed, own, theirs);
    } else {
        multiply_by::<V, L, 6, 2>(block, packed, own, theirs);
    }
}

#[inline(always)]
fn multiply_by<V: Vector, L: Layout<V>, const MR: usize, const NV: usize>(
    block: &Block<'_>,
    packed: &[f32],
    own: Range<usize>,
    theirs: Range<usize>,
) {
    let k = block.rows();
    let nr = NV * V::W;
    assert!(block.a_panels.width == MR && block.b_panels.width == nr);
    let own_is_a = matches!(block.local, Local::A(_));
    let (own_size, their_size) = if own_is_a { (MR * k, nr * k) } else { (nr * k, MR * k) };
    for theirs in theirs {
        let their = &block.shared.data[theirs * block.shared.pitch..][..their_size];
        for (position, own) in own.clone().enumerate() {
            let mine = &packed[position * own_size..][..own_size];
            let (a, b, i, j) = if own_is_a { (mine, their, own, theirs) } else { (their, mine, theirs, own) };
            let (rows, cols) = (block.a_panels.range(i), block.b_panels.range(j));
            let first = rows.start;
            let c = |row: usize| block.c.ptr((first + row) * block.row_stride + cols.start);
            macro_rules! by_height {
                ($($h:literal)*) => {
                    match rows.len() {
                        // SAFETY: the panels have `k` rows; this piece alone uses these elements of C.
                        $($h if $h <= MR => unsafe {
                            let start = |_| (Neighbours(a.as_ptr(), MR), b.as_ptr());
                            let c = std::array::from_fn(c);
                            tile::<V, L, Neighbours, $h, NV>([1, k], start, nr, c, cols.len(), block.add);
                        })*
                        _ => unreachable!(),
                    }
                };
            }
            by_height!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
        }
    }
}
