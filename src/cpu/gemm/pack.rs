//! Packing: an operand, whatever its strides, becomes panels that the inner kernel reads from front to end. What a row of
//! a panel holds is its [`Form`]; below, W rows are what a register holds of one lane.

// Indices that run over several arrays, and constant ranges that unroll, say it best.
#![allow(clippy::needless_range_loop)]

use super::Mat;
#[cfg(target_arch = "x86_64")]
use super::form::native::{Native, avx512bf16};
use super::form::{Form, Layout, Pairing, Pairs, Plain, Rounded, Single};
use crate::cpu::q4::Q4;
use crate::cpu::q8::{self, Q8};
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::F32x16;
use crate::cpu::{Bits, Simd, Vector};
use crate::simd_fn;
use arrayvec::ArrayVec;
use half::bf16;
use std::marker::PhantomData;
use std::ops::Range;

/// How lanes (rows of A, columns of B) are divided into panels. A panel is `rows × width` numbers of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    lanes: usize,
    /// Lanes that a panel has room for.
    pub width: usize,
    /// The number of panels.
    pub count: usize,
    /// Whether all panels have nearly equally many lanes, else all but the last are full.
    even: bool,
}

impl Panels {
    /// Full panels, and a last one padded with zeros.
    pub fn of_width(lanes: usize, width: usize) -> Self {
        Panels { lanes, width, count: lanes.div_ceil(width), even: false }
    }

    /// Panels of nearly equal numbers of lanes, so that none has too few for the kernel to be fast.
    pub fn up_to(lanes: usize, width: usize) -> Self {
        Panels { even: true, ..Panels::of_width(lanes, width) }
    }

    /// The lanes of panel `i`.
    #[inline(always)]
    pub fn range(&self, i: usize) -> Range<usize> {
        if self.even {
            i * self.lanes / self.count..(i + 1) * self.lanes / self.count
        } else {
            i * self.width..self.lanes.min((i + 1) * self.width)
        }
    }

    /// Numbers in all panels of so many rows.
    pub fn len(&self, rows: usize) -> usize {
        self.count * self.width * rows
    }
}

/// The elements of an operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// Blocks of [`q8::BLOCK`] lanes, in each of which the lanes of one k are neighbours.
    Q8(Q8<'a>),
    /// Lanes and steps as the matrix has them.
    Q4(Q4<'a>),
}

impl Data<'_> {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
            Data::Q8(data) => data.q.len(),
            Data::Q4(data) => data.len(),
        }
    }
}

/// An operand as the packer sees it: element k of lane i is `data[i * lane + k * step]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, D = Data<'a>> {
    data: D,
    lane: usize,
    step: usize,
    owner: PhantomData<&'a ()>,
}

impl<'a> Source<'a> {
    /// A's rows as lanes.
    pub fn rows(a: Mat<'a>) -> Self {
        Source { data: a.data, lane: a.row_stride, step: a.col_stride, owner: PhantomData }
    }

    /// B's columns as lanes.
    pub fn columns(b: Mat<'a>) -> Self {
        Source::rows(b.t())
    }

    /// From lane `lane` and element `k` on.
    pub fn at(self, lane: usize, k: usize) -> Self {
        let data = match self.data {
            Data::F32(data) => Data::F32(self.with(data).at(lane, k).data),
            Data::Bf16(data) => Data::Bf16(self.with(data).at(lane, k).data),
            Data::Q8(data) => Data::Q8(Q8 { q: &data.q[data.at(lane, k).min(data.q.len())..], ..data }),
            Data::Q4(data) => Data::Q4(data.at(lane, k)),
        };
        Source { data, ..self }
    }

    /// The same lanes over elements of a known type.
    #[inline(always)]
    fn with<T>(&self, data: &'a [T]) -> Source<'a, &'a [T]> {
        Source { data, lane: self.lane, step: self.step, owner: PhantomData }
    }
}

impl<'a, T> Source<'a, &'a [T]> {
    #[inline(always)]
    fn at(self, lane: usize, k: usize) -> Self {
        let start = lane * self.lane + k * self.step;
        Source { data: &self.data[start.min(self.data.len())..], ..self }
    }
}

/// A type that elements are stored in, as f32.
pub(in crate::cpu) trait Stored: Copy {
    fn widen(self) -> f32;
    /// The first `V::W` elements of `x`.
    #[inline(always)]
    fn load<V: Vector>(x: &[Self]) -> V {
        Self::load_partial(&x[..V::W])
    }
    /// All elements of `x`, at most `V::W`; the rest 0.
    #[inline(always)]
    fn load_partial<V: Vector>(x: &[Self]) -> V {
        let mut wide = [0.0; 16];
        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
        V::load(&wide)
    }
    /// As many elements of `x` as a register holds, or all; the rest 0.
    #[inline(always)]
    fn load_some<V: Vector>(x: &[Self]) -> V {
        if x.len() >= V::W { Self::load(x) } else { Self::load_partial(x) }
    }
    /// As many elements of `x` as two registers hold, or all, in bf16, two neighbours in a lane; the rest 0.
    #[inline(always)]
    fn pairs<V: Vector, P: Pairing<V>>(x: &[Self]) -> V {
        let (low, high) = x.split_at(x.len().min(V::W));
        P::neighbours(Self::load_some(low), Self::load_some(high))
    }
    /// The first 8 elements of each of `V::W` lanes that start `lane` elements apart from `x` on: register k holds element k.
    ///
    /// # Safety
    /// There are these elements; `lane` is even where they have 16 bits.
    unsafe fn columns<V: Vector>(x: *const Self, lane: usize) -> [V; 8];
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn load<V: Vector>(x: &[f32]) -> V {
        V::load(x)
    }
    #[inline(always)]
    fn load_partial<V: Vector>(x: &[f32]) -> V {
        V::load_partial(x)
    }
    #[inline(always)]
    unsafe fn columns<V: Vector>(x: *const f32, lane: usize) -> [V; 8] {
        // SAFETY: as the caller promises.
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (V::columns(x, lane), V::columns(x.add(4), lane)) };
        [a, b, c, d, e, f, g, h]
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn pairs<V: Vector, P: Pairing<V>>(x: &[bf16]) -> V {
        let n = x.len().min(2 * V::W);
        let mut pairs = [0f32; 16];
        bytemuck::cast_slice_mut(&mut pairs)[..n].copy_from_slice(&x[..n]);
        V::load(&pairs)
    }
    #[inline(always)]
    unsafe fn columns<V: Vector>(x: *const bf16, lane: usize) -> [V; 8] {
        // Two neighbours move together as one number of 32 bits: the first is its lower half.
        // SAFETY: as the caller promises; registers are loaded at any alignment.
        let pairs = unsafe { V::columns(x.cast(), lane / 2) };
        let mut columns = [V::splat(0.0); 8];
        for i in 0..4 {
            columns[2 * i] = V::from_bits(pairs[i].bits().shl::<16>());
            columns[2 * i + 1] = V::from_bits(pairs[i].bits().and(V::Bits::splat(!0xffff)));
        }
        columns
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn load<V: Vector>(x: &[i8]) -> V {
        assert!(x.len() >= V::W);
        // SAFETY: the slice holds at least `W` bytes.
        unsafe { V::load_i8(x.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn columns<V: Vector>(_: *const i8, _: usize) -> [V; 8] {
        unreachable!("lanes of a matrix in 8 bits are neighbours")
    }
}

/// Packs the panels from `first` on, as many as `out` holds, `depth` elements deep.
pub(super) fn pack(
    simd: Simd,
    form: Form,
    source: &Source<'_>,
    panels: &Panels,
    depth: usize,
    first: usize,
    out: &mut [f32],
) {
    let rows = form.rows(depth);
    match (form, simd) {
        (Form::Single, _) => single(simd, source, panels, depth, rows, first, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: such a level exists only where its instructions do.
        (_, Simd::Avx512(level)) if level.present() => unsafe { native(source, panels, depth, rows, first, out) },
        _ => bf16_panels(simd, source, panels, depth, rows, first, out),
    }
}

macro_rules! bodies {
    ($($body:ident $layout:ty;)*) => {$(
        #[inline(always)]
        fn $body<V: Vector>(s: &Source<'_>, panels: &Panels, depth: usize, rows: usize, first: usize, out: &mut [f32]) {
            pack_form::<V, $layout>(s, panels, depth, rows, first, out);
        }
    )*};
}
bodies! {
    single_body Single;
    rounded_body Rounded;
    pairs_body Pairs<Plain>;
}
simd_fn! {
    fn single(s: &Source<'_>, panels: &Panels, depth: usize, rows: usize, first: usize, out: &mut [f32]) = single_body
}
// The form of each level without instructions of its own: see `Form::of`.
simd_fn! {
    fn bf16_panels(s: &Source<'_>, panels: &Panels, depth: usize, rows: usize, first: usize, out: &mut [f32])
        = rounded_body, scalar pairs_body
}
#[cfg(target_arch = "x86_64")]
avx512bf16! {
    fn native(s: &Source<'_>, panels: &Panels, depth: usize, rows: usize, first: usize, out: &mut [f32]) {
        pack_form::<F32x16, Pairs<Native>>(s, panels, depth, rows, first, out);
    }
}

#[inline(always)]
fn pack_form<V: Vector, L: Layout<V>>(
    source: &Source<'_>,
    panels: &Panels,
    depth: usize,
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    match source.data {
        Data::F32(data) => pack_stored::<V, L, f32>(source.with(data), panels, depth, rows, first, out),
        Data::Bf16(data) => pack_stored::<V, L, bf16>(source.with(data), panels, depth, rows, first, out),
        Data::Q8(data) => {
            for (i, panel) in out.chunks_exact_mut(rows * panels.width).enumerate() {
                // A panel's lanes belong to one block.
                let lanes = panels.range(first + i);
                let q = &data.q[data.at(lanes.start, 0)..];
                let block = Source { data: q, lane: 1, step: q8::BLOCK, owner: PhantomData };
                copy::<V, L, i8>(block, std::slice::from_ref(&(0..lanes.len())), depth, panels.width, panel);
            }
        }
        Data::Q4(data) => {
            for (i, panel) in out.chunks_exact_mut(rows * panels.width).enumerate() {
                let lanes = panels.range(first + i);
                across::<V, L>(
                    depth,
                    panels.width,
                    panel,
                    #[inline(always)]
                    |k, first| data.load::<V>(lanes.start + first, k),
                );
            }
        }
    }
}

#[inline(always)]
fn pack_stored<V: Vector, L: Layout<V>, T: Stored>(
    source: Source<'_, &[T]>,
    panels: &Panels,
    depth: usize,
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let size = rows * panels.width;
    if source.lane == 1 && source.step != 1 {
        let mut first = first;
        for group in out.chunks_mut((GROUP * size).max(1)) {
            let n = group.len() / size;
            let lanes: ArrayVec<_, GROUP> = (first..first + n).map(|i| panels.range(i)).collect();
            copy::<V, L, T>(source, &lanes, depth, panels.width, group);
            first += n;
        }
        return;
    }
    for (i, panel) in out.chunks_exact_mut(size.max(1)).enumerate() {
        let lanes = panels.range(first + i);
        let source = source.at(lanes.start, 0);
        if source.step == 1 {
            transpose::<V, L, T>(source, lanes.len(), depth, panels.width, panel);
        } else {
            gather::<V, L, T>(source, lanes.len(), depth, panels.width, panel);
        }
    }
}

/// Each lane is contiguous: blocks of W rows and W lanes are transposed in registers.
#[inline(always)]
fn transpose<V: Vector, L: Layout<V>, T: Stored>(
    source: Source<'_, &[T]>,
    lanes: usize,
    depth: usize,
    width: usize,
    out: &mut [f32],
) {
    let rows = out.len() / width;
    for first in (0..width).step_by(V::W) {
        // Lanes that do not exist repeat the last one: nobody looks at them.
        let mut starts = [0; 16];
        for (i, start) in starts.iter_mut().enumerate() {
            *start = (first + i).min(lanes.max(1) - 1) * source.lane;
        }
        for row in (0..rows).step_by(V::W) {
            let k = row * L::SPAN;
            let count = (V::W * L::SPAN).min(depth - k);
            let mut block = [V::splat(0.0); 16];
            // The next panel's lanes are asked for, of which each may lie in a page of its own.
            if k % (64 / size_of::<T>()) == 0 {
                for i in 0..V::W {
                    V::prefetch(source.data.as_ptr().wrapping_add(starts[i] + lanes * source.lane + k).cast());
                }
            }
            if count == V::W * L::SPAN {
                for i in 0..V::W {
                    block[i] = L::along(&source.data[starts[i] + k..][..V::W * L::SPAN]);
                }
            } else {
                for i in 0..V::W {
                    block[i] = L::along(&source.data[starts[i] + k..][..count]);
                }
            }
            V::transpose(&mut block);
            let out = &mut out[row * width + first..];
            if out.len() >= (V::W - 1) * width + V::W {
                for i in 0..V::W {
                    block[i ^ L::FLIP].store(&mut out[i * width..]);
                }
            } else {
                for i in 0..V::W.min(rows - row) {
                    write(block[i ^ L::FLIP], &mut out[i * width..], width - first);
                }
            }
        }
    }
}

/// Panels that a row of the source is dealt out to at a time.
const GROUP: usize = 8;
/// Rows of the source that are asked for in advance.
const AHEAD: usize = 8;

/// Neighbouring lanes are contiguous: row by row they are dealt out to the panels `lanes`, so that each cache line of the
/// source is read once. What lies beyond the last lane may be anything: nobody looks at it.
#[inline(always)]
fn copy<V: Vector, L: Layout<V>, T: Stored>(
    source: Source<'_, &[T]>,
    lanes: &[Range<usize>],
    depth: usize,
    width: usize,
    out: &mut [f32],
) {
    let (size, line) = (out.len() / lanes.len(), 64 / size_of::<T>());
    let last = lanes[lanes.len() - 1].start;
    for row in 0..size / width {
        // A row is often in a page of its own, where the hardware does not look ahead.
        let ahead = source.data.as_ptr().wrapping_add((row + AHEAD) * L::SPAN * source.step);
        for lane in (lanes[0].start..lanes[lanes.len() - 1].end).step_by(line) {
            V::prefetch(ahead.wrapping_add(lane).cast());
        }
        // Whole registers of all panels, which may reach over their ends.
        let (end, over) = ((row * L::SPAN / L::GROUP + 1) * L::GROUP, width.next_multiple_of(V::W));
        if end <= depth && (end - 1) * source.step + last + over <= source.data.len() && row * width + over <= size {
            for i in 0..lanes.len() {
                for first in (0..width).step_by(V::W) {
                    let v = L::across(
                        row,
                        #[inline(always)]
                        |k| {
                            let start = k * source.step + lanes[i].start + first;
                            // SAFETY: the last row that is looked at has them in the last panel.
                            T::load(unsafe { source.data.get_unchecked(start..start + V::W) })
                        },
                    );
                    // SAFETY: the register ends inside of the panel.
                    unsafe { v.store_ptr(out.as_mut_ptr().add(i * size + row * width + first)) };
                }
            }
            continue;
        }
        for (panel, lanes) in out.chunks_exact_mut(size).zip(lanes) {
            for first in (0..width).step_by(V::W) {
                let v = L::across(
                    row,
                    #[inline(always)]
                    |k| {
                        let start = k * source.step + lanes.start + first;
                        match source.data.get(start..start + V::W) {
                            Some(x) if k < depth => T::load(x),
                            None if k < depth => T::load_partial(&source.data[start.min(source.data.len())..]),
                            _ => V::splat(0.0),
                        }
                    },
                );
                write(v, &mut panel[row * width + first..], width - first);
            }
        }
    }
}

/// Any strides.
#[inline(always)]
fn gather<V: Vector, L: Layout<V>, T: Stored>(
    source: Source<'_, &[T]>,
    lanes: usize,
    depth: usize,
    width: usize,
    out: &mut [f32],
) {
    across::<V, L>(
        depth,
        width,
        out,
        #[inline(always)]
        |k, first| {
            let mut x = [0.0; 16];
            for i in first..lanes.min(first + V::W) {
                x[i - first] = source.data[i * source.lane + k * source.step].widen();
            }
            V::load(&x)
        },
    );
}

/// Fills `out` row by row; `at(k, first)` gives element k of the lanes from `first` on.
#[inline(always)]
fn across<V: Vector, L: Layout<V>>(depth: usize, width: usize, out: &mut [f32], at: impl Fn(usize, usize) -> V) {
    for row in 0..out.len() / width {
        let mut first = 0;
        while first < width {
            let v = L::across(
                row,
                #[inline(always)]
                |k| if k < depth { at(k, first) } else { V::splat(0.0) },
            );
            write(v, &mut out[row * width + first..], width - first);
            first += V::W;
        }
    }
}

/// Writes a row of a panel, of which `left` numbers are left. Where that is less than a register the surplus goes over the
/// start of the panel's next row, which is written afterwards; only at the end of `out` must it be held back.
#[inline(always)]
fn write<V: Vector>(v: V, out: &mut [f32], left: usize) {
    if out.len() >= V::W {
        v.store(out);
    } else {
        v.store_partial(&mut out[..left.min(V::W)]);
    }
}
