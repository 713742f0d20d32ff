//! Kernels over tensors of a GPU: which file and settings, over which grid.
//!
//! Everything here launches and returns; see [`Gpu::launch`]. Where addresses or rows are no multiples of 16 bytes, kernels
//! take one element at a time.

use crate::device::gpu::{Gpu, Kernel};
use crate::device::{Arg, Grid};
use crate::error::Error;
use crate::tensor::{DType, Out, Spec, Tensor};

/// A count as a kernel's argument.
pub fn n(n: usize) -> Arg {
    Arg::U32(u32::try_from(n).expect("fewer than 2^32 of them"))
}

/// 1 or 0.
pub fn flag(set: bool) -> Arg {
    Arg::U32(u32::from(set))
}

/// The address of a tensor.
pub fn at(tensor: &Tensor) -> Arg {
    Arg::Ptr(tensor.ptr())
}

/// The address of a tensor, 0 where there is none.
pub fn maybe(tensor: Option<&Tensor>) -> Arg {
    tensor.map_or(Arg::U64(0), at)
}

/// Blocks of `threads` threads, one for each of `n`.
pub fn blocks(n: usize, threads: usize) -> Grid {
    Grid::new(n.max(1) as u32, threads as u32)
}

/// Elements of an access to rows of `row` elements: those of 16 bytes, or one where these do not fit.
pub fn vector(row: usize, tensors: &[&Tensor]) -> usize {
    let v = 16 / tensors[0].dtype().size();
    let fits = |tensor: &&Tensor| tensor.ptr().0.is_multiple_of(16);
    if row.is_multiple_of(v) && tensors.iter().all(fits) { v } else { 1 }
}

/// A kernel that does the same with each element of `tensors`, all of one shape; the first one's type is the file's T. The
/// addresses are its first arguments, in order, then the number of elements, then `rest`.
pub fn flat(gpu: &Gpu, file: &'static str, entry: &'static str, tensors: &[&Tensor], rest: &[Arg]) {
    let (count, v) = (tensors[0].numel(), vector(0, tensors));
    let mut args: arrayvec::ArrayVec<Arg, 12> = tensors.iter().map(|tensor| at(tensor)).collect();
    args.push(n(count));
    args.extend(rest.iter().copied());
    let kernel = Kernel::new(file, entry).with("T", tensors[0].dtype().name()).with("V", v);
    gpu.launch(kernel, blocks(count.div_ceil(v).div_ceil(256), 256), &args);
}

/// `y = beta y + x`, with `beta` 0 or 1.
pub fn add_to(gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
    assert_eq!((y.numel(), y.dtype()), (x.numel(), x.dtype()), "sums are of one type");
    flat(gpu, "elementwise", "scale_fwd", &[x, y], &[Arg::F32(1.0), flag(beta != 0.0)]);
}

/// All elements of `y` are `value`.
pub fn fill(gpu: &Gpu, y: &Tensor, value: f32) {
    let kernel = Kernel::new("elementwise", "fill").with("T", y.dtype().name()).with("V", vector(0, &[y]));
    gpu.launch(kernel, blocks(y.numel().div_ceil(256 * vector(0, &[y])), 256), &[at(y), n(y.numel()), Arg::F32(value)]);
}

/// `y[j] = beta y[j] + Σ_i x[i][j]` in f32, for x (rows, columns): runs of rows, then the runs in order.
pub fn column_sums(gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
    const RUN: usize = 64;
    let ((rows, c), run) = (x.shape().as_matrix(), RUN);
    let runs = rows.div_ceil(run);
    let partial = &Out::new(x.device(), Spec::f32([runs, c]));
    let v = vector(c, &[x]);
    let kernel = Kernel::new("reduce", "column_sums").with("T", x.dtype().name()).with("V", v);
    let grid = Grid { blocks: [c.div_ceil(128 * v) as u32, runs as u32, 1], ..Grid::new(1, 128) };
    gpu.launch(kernel, grid, &[at(x), at(partial), n(rows), n(c), n(run)]);
    sum_blocks(gpu, beta, y, partial);
}

/// `y[j] = beta y[j] + Σ_q partial[q][j]`, in the order of q; f32.
pub fn sum_blocks(gpu: &Gpu, beta: f32, y: &Tensor, partial: &Tensor) {
    let (runs, c) = partial.shape().as_matrix();
    let args = [at(partial), at(y), n(runs), n(c), flag(beta != 0.0)];
    gpu.launch(Kernel::new("reduce", "sum_blocks"), blocks(c.div_ceil(128), 128), &args);
}

/// A matrix product C = f(op(A)·op(B) + bias) + beta C; see kernels/gemm.ptx.
pub struct Product<'a> {
    /// Whether A lies as (K, M).
    pub ta: bool,
    /// Whether B lies as (N, K).
    pub tb: bool,
    /// M, N and K.
    pub size: [usize; 3],
    /// A, of B's type.
    pub a: &'a Tensor,
    /// B: f32 (each element one sequential chain over k), bf16 or f16 (on tensor cores).
    pub b: &'a Tensor,
    /// C.
    pub c: &'a Tensor,
    /// Whether C is added to.
    pub add: bool,
    /// A bias for each column, f32.
    pub bias: Option<&'a Tensor>,
    /// Where op(A)·op(B) + bias goes before f, of C's type and shape.
    pub z: Option<&'a Tensor>,
    /// The name of f.
    pub f: &'static str,
}

impl<'a> Product<'a> {
    /// C = op(A)·op(B); rows may be longer than the sizes say.
    pub fn new([ta, tb]: [bool; 2], size: [usize; 3], [a, b, c]: [&'a Tensor; 3]) -> Product<'a> {
        Product { ta, tb, size, a, b, c, add: false, bias: None, z: None, f: "none" }
    }

    /// Launches it.
    pub fn launch(&self, gpu: &Gpu) {
        let Product { ta, tb, size: [rows, columns, k], a, b, c, .. } = *self;
        let [lda, ldb, ldc] = [a, b, c].map(|tensor| tensor.shape().last_dim());
        let aligned = |tensor: &Tensor, ld: usize| {
            (ld * tensor.dtype().size()).is_multiple_of(16) && tensor.ptr().0.is_multiple_of(16)
        };
        let whole = aligned(a, lda) && aligned(b, ldb) && aligned(c, ldc);
        let set = |kernel: Kernel| {
            let kernel = kernel.with("TC", c.dtype().name()).with("TA", usize::from(ta)).with("TB", usize::from(tb));
            kernel.with("F", self.f)
        };
        // Small matrices in small tiles, so that more of them are worked on at a time.
        let small = rows.div_ceil(128) * columns.div_ceil(128) < 64;
        let (kernel, tile, grid) = match a.dtype() {
            DType::F32 => {
                let t = if small { 4 } else { 8 };
                let v = if whole { 4 } else { 1 };
                let kernel = set(Kernel::new("sgemm", "gemm")).with("TM", t).with("TN", t).with("V", v);
                (kernel, [16 * t, 16 * t], Grid::new(0, 256))
            }
            half if whole => {
                let ([wm, wn], stages) = ([2, 2], 4);
                let (mi, nj) = if small { (2, 4) } else { (4, 8) };
                let kernel = set(Kernel::new("gemm", "gemm")).with("T", half.name()).with("MI", mi).with("NJ", nj);
                let tile = [wm * mi * 16, wn * nj * 8];
                let shared = stages * (tile[0] + tile[1]) * 32 * half.size();
                (kernel, tile, Grid { shared, ..Grid::new(0, 32 * (wm * wn) as u32) })
            }
            half => {
                let problem = format!("a product in {} of rows that are no multiples of 16 bytes", half.name());
                let hint = "use widths and a vocabulary that 8 divides, or train.precision = \"f32\"";
                return gpu.fail(Error::device(format!("{problem}: {lda}, {ldb}, {ldc} elements"), hint));
            }
        };
        let tiles = rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]);
        let no = Arg::U64(0);
        let r = if self.add { at(c) } else { no };
        let args = [
            at(a),
            at(b),
            at(c),
            maybe(self.bias),
            r,
            maybe(self.z),
            n(rows),
            n(columns),
            n(k),
            n(lda),
            n(ldb),
            n(ldc),
            no,
            no,
            no,
        ];
        gpu.launch(kernel, Grid { blocks: [tiles as u32, 1, 1], ..grid }, &args);
    }
}
