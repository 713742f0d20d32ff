//! The matrix product C = A·B, or C += A·B, in f32 or bf16; A and B may be stored in bf16, whose values are exact in f32
//! and are widened while they are packed. So are the integers of a B in 8 bits, whose scales the columns of C are multiplied
//! with.
//!
//! Each element of C is one sequential chain of fused multiply-adds over k, from 0 or from its old value. Tile sizes,
//! blocks, threads and instruction sets change who computes an element and when, never the chain: results are the same
//! bits for all of them, and a row's bits do not depend on the other rows.
//!
//! In [`Precision::Bf16`] both operands are rounded to bf16 while they are packed, and the chain runs over pairs of k, of
//! each the second element first, as AVX-512's `vdpbf16ps` does it (`form.rs`). What holds then: results are the same bits
//! for any tiles and threads and, where no sum on the way is smaller than 2⁻¹²⁶ and not 0, on all levels.
//!
//! Both operands are packed into panels (`pack.rs`) so that the inner kernel (`tile.rs`) reads them in order: A into
//! panels of up to MR rows, B into panels of NR columns, each k-major. Transposes are strides, resolved while packing. Where
//! A has few rows, B is read as it lies instead (`thin.rs`), in f32; so are pictures (`direct.rs`).

pub(in crate::cpu) mod direct;
pub(super) mod form;
mod int4;
mod int8;
mod pack;
mod thin;
mod tile;

use super::elementwise::map2;
use super::q4::Q4;
use super::q8::Q8;
use super::{Cpu, Simd, Tiles, Vector, chunks};
use crate::simd_fn;
use form::Form;
use half::bf16;
use pack::{Data, Panels, Source};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tile::{Block, Local, Shared};

/// What operands are rounded to before they are multiplied; sums are in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nothing.
    #[default]
    F32,
    /// bf16, to nearest even; see the [module](self).
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// A matrix that is read: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: Data<'a>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix without gaps.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols, 1)
    }

    /// A row-major matrix in bf16 without gaps.
    pub fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> Self {
        Mat::of(Data::Bf16(data), rows, cols, cols, 1)
    }

    /// A matrix in 8 bits. As the right operand of a product it must be transposed, so that a scale belongs to a column of
    /// the result.
    pub fn q8(data: Q8<'a>, rows: usize, cols: usize) -> Self {
        Mat { data: Data::Q8(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A matrix in 4 bits, to be transposed for a product.
    pub fn q4(data: Q4<'a>, rows: usize, cols: usize) -> Self {
        Mat { data: Data::Q4(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A matrix with any strides.
    ///
    /// # Panics
    /// An element would lie beyond `data`.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        Mat::of(Data::F32(data), rows, cols, row_stride, col_stride)
    }

    fn of(data: Data<'a>, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        let end = if rows * cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 };
        assert!(end <= data.len(), "a {rows} x {cols} matrix needs {end} elements, not {}", data.len());
        Mat { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose: a view, no element moves.
    pub fn t(self) -> Self {
        Mat {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// A matrix that is written; the elements of a row are neighbours.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A matrix without gaps.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        MatMut::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows start `row_stride` apart; what lies between them is not touched.
    ///
    /// # Panics
    /// Rows would overlap, or an element lie beyond `data`.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let end = if rows * cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(end <= data.len(), "a {rows} x {cols} matrix needs {end} elements, not {}", data.len());
        assert!(row_stride >= cols || rows <= 1, "rows of {cols} elements overlap at a stride of {row_stride}");
        MatMut { data, rows, cols, row_stride }
    }
}

/// B packed once, for many products: weights. Made for one [`Simd`] level and [`Precision`].
pub struct PackedB {
    lines: Vec<Line>,
    k: usize,
    n: usize,
    simd: Simd,
    precision: Precision,
}

/// Keeps panels aligned to registers.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl PackedB {
    /// Packs `b` (k × n).
    pub fn new(cpu: &Cpu, precision: Precision, b: Mat<'_>) -> Self {
        let mut packed = PackedB { lines: Vec::new(), k: 0, n: 0, simd: cpu.simd, precision };
        packed.repack(cpu, b);
        packed
    }

    /// Packs `b` anew; allocates only where it is larger than what was packed before.
    pub fn repack(&mut self, cpu: &Cpu, b: Mat<'_>) {
        assert!(!matches!(b.data, Data::Q8(_) | Data::Q4(_)), "panels hold no scales");
        (self.k, self.n, self.simd) = (b.rows, b.cols, cpu.simd);
        let panels = Panels::of_width(b.cols, tile::size(cpu.simd).1);
        let form = Form::of(cpu.simd, self.precision);
        let len = panels.len(form.rows(b.rows));
        self.lines.resize(len.div_ceil(16), Line([0.0; 16]));
        let out = &mut bytemuck::cast_slice_mut(&mut self.lines)[..len];
        let threads = if b.rows * b.cols < SMALL { 1 } else { cpu.threads.count() };
        pack(cpu, form, Source::columns(b), panels, b.rows, out, threads);
    }

    /// Rows (the inner dimension) and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }
}

/// The right operand of [`gemm`]: a matrix, or one packed before. Results are the same bits.
#[derive(Clone, Copy)]
pub enum Rhs<'a> {
    /// Packed within the product.
    Mat(Mat<'a>),
    /// Packed before.
    Packed(&'a PackedB),
}

impl<'a> From<Mat<'a>> for Rhs<'a> {
    fn from(b: Mat<'a>) -> Self {
        Rhs::Mat(b)
    }
}

impl<'a> From<&'a PackedB> for Rhs<'a> {
    fn from(b: &'a PackedB) -> Self {
        Rhs::Packed(b)
    }
}

/// What is done with a finished piece of a row of C while it is in cache: `finish(row, first column, piece)`. Every element
/// of C is in exactly one piece; pieces come in any order, from any thread. Element-wise work gives results that do not
/// depend on how the row was cut.
pub type Finish<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Shows `finish` the elements of C in these rows and columns.
///
/// # Safety
/// They exist, and nobody else uses them.
unsafe fn show(c: &Tiles<'_>, row_stride: usize, rows: Range<usize>, columns: Range<usize>, finish: &Finish<'_>) {
    for row in rows {
        // SAFETY: as the caller promises.
        let piece = unsafe { std::slice::from_raw_parts_mut(c.ptr(row * row_stride + columns.start), columns.len()) };
        finish(row, columns.start, piece);
    }
}

/// Below this many multiply-adds, waking the other threads costs more than they save.
const SMALL: usize = 1 << 16;

/// C = A·B, or C += A·B with `accumulate`, in `precision`; A is (M, K), B is (K, N), C is (M, N). `finish`, where given,
/// then sees each row of C in pieces.
///
/// # Panics
/// The shapes do not fit, or `b` was packed for another level or precision.
pub fn gemm<'b>(
    cpu: &Cpu,
    precision: Precision,
    a: Mat<'_>,
    b: impl Into<Rhs<'b>>,
    c: MatMut<'_>,
    accumulate: bool,
    finish: Option<&Finish<'_>>,
) {
    let b = b.into();
    assert!(!matches!(a.data, Data::Q8(_) | Data::Q4(_)), "a matrix of few bits is a right operand");
    let few =
        matches!(a.data, Data::F32(_)) && precision == Precision::F32 && a.rows <= thin::ROWS && a.col_stride == 1;
    if let (Rhs::Mat(Mat { data: Data::Q4(q4), row_stride: 1, .. }), Data::F32(x), true, false) =
        (b, a.data, few, accumulate)
    {
        assert_eq!((a.rows, a.cols), (c.rows, q4.cols()), "the shapes of a product in 4 bits");
        cpu.count_flops(2 * (c.rows * c.cols * a.cols) as u64);
        return int4::product(cpu, a, x, q4, c, finish);
    }
    let Rhs::Mat(Mat { data: Data::Q8(q8), row_stride, .. }) = b else {
        return product(cpu, precision, a, b, c, accumulate, finish);
    };
    assert!(row_stride == 1 && !accumulate, "a matrix in 8 bits is multiplied transposed, and its product not added");
    let scaled = |row: usize, first: usize, c: &mut [f32]| {
        multiply(cpu.simd, c, &q8.scales[first..][..c.len()]);
        if let Some(finish) = finish {
            finish(row, first, c);
        }
    };
    match a.data {
        Data::F32(x) if few => {
            assert_eq!((a.rows, a.cols), (c.rows, q8.cols), "the shapes of a product in 8 bits");
            cpu.count_flops(2 * (c.rows * c.cols * a.cols) as u64);
            int8::product(cpu, a, x, q8, c, &scaled);
        }
        _ => product(cpu, precision, a, b, c, false, Some(&scaled)),
    }
}

simd_fn! {
    /// `x = x ∘ y`.
    fn multiply(x: &mut [f32], y: &[f32]) = multiply_body
}
#[inline(always)]
fn multiply_body<V: Vector>(x: &mut [f32], y: &[f32]) {
    map2::<V>(
        x,
        y,
        #[inline(always)]
        |x, y| x * y,
    );
}

/// K is cut into slices. In each, one operand (the smaller, or the one packed before) is packed whole, by all threads; the
/// other is packed part by part by whoever multiplies the part, so that it is read from memory once and then stays in the
/// second-level cache.
fn product(
    cpu: &Cpu,
    precision: Precision,
    a: Mat<'_>,
    b: Rhs<'_>,
    c: MatMut<'_>,
    accumulate: bool,
    finish: Option<&Finish<'_>>,
) {
    let (m, n, k) = (c.rows, c.cols, a.cols);
    let b_shape = match b {
        Rhs::Mat(b) => (b.rows, b.cols),
        Rhs::Packed(b) => b.shape(),
    };
    assert!(a.rows == m && b_shape == (k, n), "({}, {k}) x {b_shape:?} does not give ({m}, {n})", a.rows);
    if m == 0 || n == 0 {
        return;
    }
    cpu.count_flops(2 * (m * n * k) as u64);
    if let Rhs::Mat(b) = b
        && precision == Precision::F32
        && thin::fits(&a, &b)
    {
        return thin::product(cpu, a, b, c, accumulate, finish);
    }
    let (mr, nr) = tile::size(cpu.simd);
    let (a_panels, b_panels) = (Panels::up_to(m, mr), Panels::of_width(n, nr));
    let threads = if m * n * k < SMALL { 1 } else { cpu.threads.count() };
    let c_tiles = Tiles::new(c.data);
    let form = Form::of(cpu.simd, precision);
    let slices = k.div_ceil(tile::ROWS * form.span()).max(1);
    // Between two pairs.
    let bound = |slice: usize| if slice == slices { k } else { (slice * k / slices) & !1 };
    for slice in 0..slices {
        let (start, end) = (bound(slice), bound(slice + 1));
        let depth = end - start;
        let a_source = Source::rows(a).at(0, start);
        let mut packed = None;
        let (local, shared) = match b {
            Rhs::Packed(b) => {
                assert!(b.simd == cpu.simd, "B was packed for {}, not {}", b.simd.name(), cpu.simd.name());
                assert!(b.precision == precision, "B was packed in {:?}, not {precision:?}", b.precision);
                let panels: &[f32] = bytemuck::cast_slice(&b.lines);
                (Local::A(a_source), Shared { data: &panels[start / form.span() * nr..], pitch: form.rows(k) * nr })
            }
            Rhs::Mat(b) => {
                let b_source = Source::columns(b).at(0, start);
                let (local, source, panels) = if m > n {
                    (Local::A(a_source), b_source, b_panels)
                } else {
                    (Local::B(b_source), a_source, a_panels)
                };
                let rows = form.rows(depth);
                let packed = packed.insert(cpu.scratch.take(panels.len(rows)));
                pack(cpu, form, source, panels, depth, packed, threads);
                (local, Shared { data: packed, pitch: rows * panels.width })
            }
        };
        let block = Block {
            local,
            shared,
            a_panels,
            b_panels,
            form,
            depth,
            c: c_tiles,
            row_stride: c.row_stride,
            add: accumulate || slice > 0,
            finish: finish.filter(|_| end == k),
        };
        let cut = block.cut(threads);
        cpu.scratch.reserve([(threads.min(cut.0 * cut.1), block.local_len(cut))]);
        cpu.threads.run(cut.0 * cut.1, &|i| block.piece(cpu, cut, i));
    }
}

/// Packs an operand, `depth` deep, a few panels an iteration: neighbours share cache lines of the source.
fn pack(cpu: &Cpu, form: Form, source: Source<'_>, panels: Panels, depth: usize, out: &mut [f32], threads: usize) {
    let group = if threads == 1 { panels.count } else { panels.count.div_ceil(6 * threads).min(8) };
    let parts = chunks(out, (group * panels.width * form.rows(depth)).max(1));
    cpu.threads.each(parts, |i, out| pack::pack(cpu.simd, form, &source, &panels, depth, i * group, out));
}
