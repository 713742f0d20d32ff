//! Packing: an operand, whatever its strides, becomes panels that the inner kernel reads from front to end.

// Indices that run over several arrays, and constant ranges that unroll, say it best.
#![allow(clippy::needless_range_loop)]

use super::Mat;
use crate::cpu::q8::{self, Q8};
use crate::cpu::{Bits, Vector};
use crate::simd_fn;
use half::bf16;
use std::marker::PhantomData;
use std::ops::Range;

/// How lanes (rows of A, columns of B) are divided into panels. A panel of depth k is `k × width` floats, k-major.
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

    /// Floats of all panels at depth `k`.
    pub fn len(&self, k: usize) -> usize {
        self.count * self.width * k
    }
}

/// The elements of an operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// Blocks of [`q8::BLOCK`] lanes, in each of which the lanes of one k are neighbours.
    Q8(Q8<'a>),
}

impl Data<'_> {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
            Data::Q8(data) => data.q.len(),
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
pub(super) trait Stored: Copy {
    fn widen(self) -> f32;
    /// The first `V::W` elements of `x`.
    fn load<V: Vector>(x: &[Self]) -> V;
    /// All elements of `x`, fewer than `V::W`; the rest 0.
    fn load_partial<V: Vector>(x: &[Self]) -> V;
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
    fn load<V: Vector>(x: &[bf16]) -> V {
        let mut wide = [0.0; 16];
        wide[..V::W].iter_mut().zip(&x[..V::W]).for_each(|(wide, x)| *wide = x.widen());
        V::load(&wide)
    }
    #[inline(always)]
    fn load_partial<V: Vector>(x: &[bf16]) -> V {
        let mut wide = [0.0; 16];
        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
        V::load(&wide)
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
    fn load_partial<V: Vector>(x: &[i8]) -> V {
        let mut wide = [0.0; 16];
        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
        V::load(&wide)
    }
    #[inline(always)]
    unsafe fn columns<V: Vector>(_: *const i8, _: usize) -> [V; 8] {
        unreachable!("lanes of a matrix in 8 bits are neighbours")
    }
}

/// Depth that is packed of one panel before the next, so that the source's cache lines and pages stay near.
const DEPTH: usize = 64;

#[inline(always)]
fn pack_body<V: Vector>(source: &Source<'_>, panels: &Panels, depth: usize, first: usize, out: &mut [f32]) {
    match source.data {
        Data::F32(data) => pack_stored::<V, f32>(source.with(data), panels, depth, first, out),
        Data::Bf16(data) => pack_stored::<V, bf16>(source.with(data), panels, depth, first, out),
        Data::Q8(data) => {
            for (i, panel) in out.chunks_exact_mut(depth * panels.width).enumerate() {
                // A panel's lanes belong to one block.
                let lanes = panels.range(first + i);
                let block =
                    Source { data: &data.q[data.at(lanes.start, 0)..], lane: 1, step: q8::BLOCK, owner: PhantomData };
                copy::<V, i8>(block, lanes.len(), panels.width, panel);
            }
        }
    }
}
simd_fn! {
    /// Packs the panels from `first` on, as many as `out` holds, `depth` deep.
    pub(super) fn pack(source: &Source<'_>, panels: &Panels, depth: usize, first: usize, out: &mut [f32]) = pack_body
}

#[inline(always)]
fn pack_stored<V: Vector, T: Stored>(
    source: Source<'_, &[T]>,
    panels: &Panels,
    depth: usize,
    first: usize,
    out: &mut [f32],
) {
    let size = depth * panels.width;
    let mut k = 0;
    while k < depth {
        let end = depth.min(k + DEPTH);
        for (i, panel) in out.chunks_exact_mut(size).enumerate() {
            let lanes = panels.range(first + i);
            let part = &mut panel[k * panels.width..end * panels.width];
            let source = source.at(lanes.start, k);
            if source.step == 1 {
                transpose::<V, T>(source, lanes.len(), end - k, panels.width, part);
            } else if source.lane == 1 {
                copy::<V, T>(source, lanes.len(), panels.width, part);
            } else {
                gather(source, lanes.len(), panels.width, part);
            }
        }
        k = end;
    }
}

/// Each lane is contiguous: W × W blocks are transposed in registers.
#[inline(always)]
fn transpose<V: Vector, T: Stored>(
    source: Source<'_, &[T]>,
    lanes: usize,
    depth: usize,
    width: usize,
    out: &mut [f32],
) {
    let mut first = 0;
    while first < width {
        let here = lanes.saturating_sub(first).min(V::W);
        let mut k = 0;
        while k < depth {
            let n = V::W.min(depth - k);
            let mut block = [V::splat(0.0); 16];
            for i in 0..V::W {
                if i < here {
                    let x = &source.data[(first + i) * source.lane + k..];
                    block[i] = if n == V::W { T::load(x) } else { T::load_partial(&x[..n]) };
                }
            }
            V::transpose(&mut block);
            for i in 0..V::W {
                if i < n {
                    write(block[i], &mut out[(k + i) * width + first..], width - first);
                }
            }
            k += V::W;
        }
        first += V::W;
    }
}

/// Neighbouring lanes are contiguous: rows are copied.
#[inline(always)]
fn copy<V: Vector, T: Stored>(source: Source<'_, &[T]>, lanes: usize, width: usize, out: &mut [f32]) {
    for (k, row) in (0..).step_by(width).enumerate().take(out.len() / width) {
        let x = &source.data[k * source.step..][..lanes];
        let mut first = 0;
        while first < width {
            let v = match lanes.saturating_sub(first) {
                0 => V::splat(0.0),
                n if n < V::W => T::load_partial(&x[first..]),
                _ => T::load(&x[first..]),
            };
            write(v, &mut out[row + first..], width - first);
            first += V::W;
        }
    }
}

/// Writes a row of a panel, of which `left` floats are left. Where that is less than a register the surplus goes over the
/// start of the panel's next row, which is written afterwards; only at the end of `out` must it be held back.
#[inline(always)]
fn write<V: Vector>(v: V, out: &mut [f32], left: usize) {
    if out.len() >= V::W {
        v.store(out);
    } else {
        v.store_partial(&mut out[..left.min(V::W)]);
    }
}

/// Any strides.
fn gather<T: Stored>(source: Source<'_, &[T]>, lanes: usize, width: usize, out: &mut [f32]) {
    for (k, row) in out.chunks_exact_mut(width).enumerate() {
        for (i, x) in row.iter_mut().enumerate() {
            *x = if i < lanes { source.data[i * source.lane + k * source.step].widen() } else { 0.0 };
        }
    }
}
