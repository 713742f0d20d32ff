//! Convolutions of pictures, by three products between a large picture and a small one.
//!
//! ```text
//! gather     small[n, i, j, o] = Σ_{ky, kx, c} large[n, i·s + ky − p, j·s + kx − p, c] · w[o, ky, kx, c]
//! spread     large[n, y, x, c] = Σ small[n, i, j, o] · w[o, ky, kx, c]    over all i·s + ky − p = y, j·s + kx − p = x, o
//! weigh      dw[o, ky, kx, c]  = Σ_{n, i, j} small[n, i, j, o] · large[n, i·s + ky − p, j·s + kx − p, c]
//! ```
//! large: (N, H, W, C), 0 outside; small: (N, h, w, O); w: (O, kh, kw, C); s the stride, p the padding. A convolution
//! gathers, and its input's gradient is spread; a transposed convolution spreads, and its input's gradient is gathered. The
//! gradient of both weights is weighed.
//!
//! `gather` and `weigh` are matrix products with the patches of the large picture ([`Patches`]), which are packed straight
//! into panels. `spread` is done in one of two ways, whichever has fewer products, by shapes alone:
//!
//! - by phases: pixels of the large picture whose row and column leave the same rests by s are met by the same taps, every
//!   s-th. So each of the s² phases is a convolution of stride 1 of the small picture with its share of the weights, and no
//!   product with an inserted zero is done;
//! - by patches: small·w, (N·h·w, O) by (O, kh·kw·C), and the patches are added to where they belong, picture by picture:
//!   where C is small, or most of the phases' taps would lie outside.
//!
//! Each element of `gather` and `weigh` is one chain over k, and of `spread` by phases; by patches it is the sum, in the order
//! of the small picture's pixels, of a chain over O each.

use super::gemm::patches::{Patches, Raster};
use super::gemm::{Mat, MatMut, Precision, gemm};
use super::{Cpu, Tiles, chunks};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pictures.
    pub n: usize,
    /// H, W and C of the large pictures.
    pub large: [usize; 3],
    /// h, w and O of the small ones.
    pub small: [usize; 3],
    /// kh and kw.
    pub kernel: [usize; 2],
    /// Rows and columns of the large picture for one of the small.
    pub stride: usize,
    /// Rows and columns of zeros around the large picture.
    pub padding: usize,
}

/// What is done with a piece of a result while it is in cache: `finish(bias, piece, piece of the side result)`. The bias has
/// as many elements as the piece, or none where there is none or it has been added.
pub type Finish<'a> = dyn Fn(&[f32], &mut [f32], &mut [f32]) + Sync + 'a;

/// Where a result goes.
pub struct Target<'a> {
    /// The result.
    pub y: &'a mut [f32],
    /// Whether it is added to what is there; bias and `finish` are for results that are not.
    pub add: bool,
    /// A bias for each channel, or empty.
    pub bias: &'a [f32],
    /// An array as large as the result that `finish` may write, or empty.
    pub side: &'a mut [f32],
    /// What turns sums into results; without it there is no bias.
    pub finish: Option<&'a Finish<'a>>,
}

impl<'a> Target<'a> {
    /// A result that products alone make.
    pub fn plain(y: &'a mut [f32], add: bool) -> Target<'a> {
        Target { y, add, bias: &[], side: &mut [], finish: None }
    }

    fn apart(self) -> (&'a mut [f32], bool, Last<'a>) {
        assert!(self.side.is_empty() || self.side.len() == self.y.len(), "a side result of another size");
        let has_side = !self.side.is_empty();
        (self.y, self.add, Last { bias: self.bias, side: Tiles::new(self.side), has_side, finish: self.finish })
    }
}

/// What is done last.
struct Last<'a> {
    bias: &'a [f32],
    side: Tiles<'a>,
    has_side: bool,
    finish: Option<&'a Finish<'a>>,
}

impl Last<'_> {
    /// Finishes a piece that begins at element `at` and, unless the bias has been added, at channel `first`.
    ///
    /// # Safety
    /// Each element of the result is in one piece.
    unsafe fn piece(&self, at: usize, first: Option<usize>, piece: &mut [f32]) {
        let Some(finish) = self.finish else { return };
        let bias = match first {
            Some(first) if !self.bias.is_empty() => &self.bias[first..][..piece.len()],
            _ => &[],
        };
        let (start, len) = if self.has_side { (at, piece.len()) } else { (0, 0) };
        // SAFETY: the side result is as large as the result, of which the caller passes each element once.
        let side = unsafe { std::slice::from_raw_parts_mut(self.side.ptr(start), len) };
        finish(bias, piece, side);
    }
}

/// Along one axis: the pixels of the large picture that leave one rest by the stride, and the taps that meet them.
#[derive(Clone, Copy)]
struct Phase {
    /// Such pixels.
    pixels: usize,
    /// The first tap; the others follow a stride apart.
    tap: usize,
    /// Their number.
    taps: usize,
    /// The pixel of the small picture that the last tap brings to the first pixel.
    origin: isize,
}

impl Phase {
    fn new(rest: usize, pixels: usize, kernel: usize, stride: usize, padding: usize) -> Phase {
        let tap = (rest + padding) % stride;
        let taps = kernel.saturating_sub(tap).div_ceil(stride);
        let origin = ((rest + padding - tap) / stride) as isize + 1 - taps as isize;
        Phase { pixels: pixels.saturating_sub(rest).div_ceil(stride), tap, taps, origin }
    }
}

impl Sizes {
    /// Pixels of all small pictures, O, and kh·kw·C.
    fn product(&self) -> (usize, usize, usize) {
        let [h, w, o] = self.small;
        (self.n * h * w, o, self.kernel[0] * self.kernel[1] * self.large[2])
    }

    /// The patches of the large pictures that the pixels of the small ones see.
    fn patches<'a>(&self, large: &'a [f32]) -> Mat<'a> {
        Mat::patches(Patches {
            data: large,
            picture: self.large,
            grid: [self.small[0], self.small[1]],
            kernel: self.kernel,
            stride: self.stride,
            origin: [-(self.padding as isize); 2],
        })
    }

    /// Whether [`spread`] goes by patches.
    fn by_patches(&self) -> bool {
        // Columns are computed 16 at a time.
        let ([h, w, c], [small_h, small_w, _], taps) = (self.large, self.small, self.kernel[0] * self.kernel[1]);
        let phases = h * w * taps * c.next_multiple_of(16);
        let patches = small_h * small_w * self.stride * self.stride * (taps * c).next_multiple_of(16);
        2 * phases > 3 * patches
    }

    /// Row and column of a phase.
    fn phase(&self, i: usize) -> [Phase; 2] {
        let rests = [i / self.stride, i % self.stride];
        [0, 1].map(|axis| Phase::new(rests[axis], self.large[axis], self.kernel[axis], self.stride, self.padding))
    }
}

/// The small pictures from the large ones.
pub fn gather(cpu: &Cpu, precision: Precision, sizes: &Sizes, [large, weight]: [&[f32]; 2], small: Target<'_>) {
    let ((m, o, k), (small, add, last)) = (sizes.product(), small.apart());
    let pixel = |row: usize, first: usize, piece: &mut [f32]| {
        // SAFETY: the product hands out each element once.
        unsafe { last.piece(row * o + first, Some(first), piece) };
    };
    let finish = last.finish.is_some().then_some(&pixel as _);
    let (patches, weight) = (sizes.patches(large), Mat::new(weight, o, k).t());
    gemm(cpu, precision, patches, weight, MatMut::new(small, m, o), add, finish);
}

/// The large pictures from the small ones.
pub fn spread(cpu: &Cpu, precision: Precision, sizes: &Sizes, [small, weight]: [&[f32]; 2], large: Target<'_>) {
    if sizes.by_patches() {
        return spread_patches(cpu, precision, sizes, [small, weight], large);
    }
    let (large, add, last) = large.apart();
    let ([h, w, c], [small_h, small_w, o], s) = (sizes.large, sizes.small, sizes.stride);
    let mut turned = cpu.scratch.take(weight.len());
    for i in 0..s * s {
        let [row, column] = sizes.phase(i);
        // The weights of the phase, the last tap first: (taps, O, C).
        let turned = &mut turned[..row.taps * column.taps * o * c];
        cpu.threads.each(chunks(turned, (o * c).max(1)), |tap, turned| {
            let ky = row.tap + s * (row.taps - 1 - tap / column.taps);
            let kx = column.tap + s * (column.taps - 1 - tap % column.taps);
            for (o, turned) in turned.chunks_exact_mut(c).enumerate() {
                let at = ((o * sizes.kernel[0] + ky) * sizes.kernel[1] + kx) * c;
                turned.copy_from_slice(&weight[at..at + c]);
            }
        });
        let patches = Mat::patches(Patches {
            data: small,
            picture: [small_h, small_w, o],
            grid: [row.pixels, column.pixels],
            kernel: [row.taps, column.taps],
            stride: 1,
            origin: [row.origin, column.origin],
        });
        let start = ((i / s) * w + i % s) * c;
        let raster = Raster { grid: [row.pixels, column.pixels], steps: [h * w * c, s * w * c, s * c], start };
        let pixel = |row: usize, first: usize, piece: &mut [f32]| {
            // SAFETY: the product hands out each element once, and each pixel is of one phase.
            unsafe { last.piece(raster.offset(row) + first, Some(first), piece) };
        };
        let finish = last.finish.is_some().then_some(&pixel as _);
        let pixels = MatMut::pixels(large, sizes.n * row.pixels * column.pixels, c, raster);
        let weight = Mat::new(turned, row.taps * column.taps * o, c);
        gemm(cpu, precision, patches, weight, pixels, add, finish);
    }
}

/// Numbers of patches that are computed before they are added to where they belong (4 MiB).
const PATCHES: usize = 1 << 20;

/// [`spread`] by patches.
fn spread_patches(cpu: &Cpu, precision: Precision, sizes: &Sizes, [small, weight]: [&[f32]; 2], large: Target<'_>) {
    let ([h, w, c], [small_h, small_w, o]) = (sizes.large, sizes.small);
    let ((_, _, k), (large, add, last)) = (sizes.product(), large.apart());
    let (pixels, picture) = (small_h * small_w, h * w * c);
    let group = (PATCHES / (pixels * k).max(1)).clamp(1, sizes.n.max(1));
    let mut patches = cpu.scratch.take(group * pixels * k);
    for (i, large) in large.chunks_mut((group * picture).max(1)).enumerate() {
        let first = i * group;
        let m = large.len() / picture * pixels;
        let small = Mat::new(&small[first * pixels * o..][..m * o], m, o);
        gemm(cpu, precision, small, Mat::new(weight, o, k), MatMut::new(&mut patches[..m * k], m, k), false, None);
        let patches = &patches;
        cpu.threads.each(chunks(large, picture), |j, large| {
            if !add {
                match last.bias {
                    [] => large.fill(0.0),
                    bias => large.chunks_exact_mut(c).for_each(|pixel| pixel.copy_from_slice(bias)),
                }
            }
            add_patches(sizes, &patches[j * pixels * k..][..pixels * k], large);
            // SAFETY: each picture is finished once.
            unsafe { last.piece((first + j) * picture, None, large) };
        });
    }
}

/// Adds the patches of a picture to where they belong.
fn add_patches(sizes: &Sizes, patches: &[f32], large: &mut [f32]) {
    let ([h, w, c], run) = (sizes.large, sizes.kernel[1] * sizes.large[2]);
    for (pixel, patch) in patches.chunks_exact(sizes.kernel[0] * run).enumerate() {
        let corner = [pixel / sizes.small[1], pixel % sizes.small[1]];
        let [top, left] = corner.map(|i| (i * sizes.stride) as isize - sizes.padding as isize);
        // A row of the picture has w·C numbers.
        let left = left * c as isize;
        let (start, end) = (left.max(0), (left + run as isize).min((w * c) as isize));
        if start >= end {
            continue;
        }
        for (y, row) in (top..).zip(patch.chunks_exact(run)) {
            if (0..h as isize).contains(&y) {
                let line = &mut large[y as usize * w * c..][start as usize..end as usize];
                let row = &row[(start - left) as usize..][..line.len()];
                line.iter_mut().zip(row).for_each(|(x, y)| *x += y);
            }
        }
    }
}

/// The gradient of the weights, added to what is there where `add` is true.
pub fn weigh(
    cpu: &Cpu,
    precision: Precision,
    sizes: &Sizes,
    [small, large]: [&[f32]; 2],
    weight: &mut [f32],
    add: bool,
) {
    let (m, o, k) = sizes.product();
    let small = Mat::new(small, m, o).t();
    gemm(cpu, precision, small, sizes.patches(large), MatMut::new(weight, o, k), add, None);
}
