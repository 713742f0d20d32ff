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
//! In f32 (`direct.rs`) patches of a picture are multiplied as they lie in memory, a few pictures at a time that stay in
//! cache: an inner kernel whose operand need not be packed costs a copy of the picture (`view.rs`) and not one of each of its
//! overlapping patches. In bf16 (`rounded.rs`) they are laid side by side, to be rounded and packed.
//!
//! `spread` is done in one of two ways, in f32 whichever has fewer products, by shapes alone:
//!
//! - by phases: pixels of the large picture whose row and column leave the same rests by s are met by the same taps, every
//!   s-th. So each of the s² phases is a convolution of stride 1 of the small picture with its share of the weights, and no
//!   product with an inserted zero is done;
//! - by patches: small·w, (N·h·w, O) by (O, kh·kw·C), and the patches are added to where they belong, picture by picture:
//!   where C is small, or most of the phases' taps would lie outside.
//!
//! Each element of `gather` and `weigh` is one chain over k, and of `spread` by phases; by patches it is the sum, in the order
//! of the small picture's pixels, of a chain over O each.

mod direct;
mod patches;
mod view;

use super::gemm::Precision;
use super::{Cpu, Tiles};
use view::View;

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

impl Sizes {
    /// Pixels of all small pictures, O, and kh·kw·C.
    fn product(&self) -> (usize, usize, usize) {
        let [h, w, o] = self.small;
        (self.n * h * w, o, self.kernel[0] * self.kernel[1] * self.large[2])
    }

    /// The patches of the large pictures that the pixels of the small ones see.
    fn view(&self, apart: bool) -> View {
        View {
            picture: self.large,
            origin: [-(self.padding as isize); 2],
            grid: [self.small[0], self.small[1]],
            kernel: self.kernel,
            stride: self.stride,
            apart,
        }
    }

    /// Whether [`spread`] goes by patches in f32.
    fn by_patches(&self) -> bool {
        // Columns are computed 16 at a time.
        let ([h, w, c], [small_h, small_w, _], taps) = (self.large, self.small, self.kernel[0] * self.kernel[1]);
        let phases = h * w * taps * c.next_multiple_of(16);
        let patches = small_h * small_w * self.stride * self.stride * (taps * c).next_multiple_of(16);
        2 * phases > 3 * patches
    }
}

/// What is done with a piece of a result while it is in cache: `finish(bias, piece, piece of the side result)`. The bias is
/// that of each of the piece's pixels, or empty where there is none or it has been added.
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
    /// Finishes whole pixels, which begin at element `at`; the bias may have been added.
    ///
    /// # Safety
    /// Each element of the result is in one piece.
    unsafe fn pixels(&self, at: usize, pixels: &mut [f32], biased: bool) {
        let Some(finish) = self.finish else { return };
        let (start, len) = if self.has_side { (at, pixels.len()) } else { (0, 0) };
        // SAFETY: the side result is as large as the result, of which the caller passes each element once.
        let side = unsafe { std::slice::from_raw_parts_mut(self.side.ptr(start), len) };
        finish(if biased { &[] } else { self.bias }, pixels, side);
    }
}

/// The small pictures from the large ones.
pub fn gather(cpu: &Cpu, precision: Precision, sizes: &Sizes, operands: [&[f32]; 2], small: Target<'_>) {
    match precision {
        Precision::F32 => direct::gather(cpu, sizes, operands, small),
        Precision::Bf16 => patches::gather(cpu, precision, sizes, operands, small),
    }
}

/// The large pictures from the small ones.
pub fn spread(cpu: &Cpu, precision: Precision, sizes: &Sizes, operands: [&[f32]; 2], large: Target<'_>) {
    match precision {
        Precision::F32 if !sizes.by_patches() => direct::spread(cpu, sizes, operands, large),
        _ => patches::spread(cpu, precision, sizes, operands, large),
    }
}

/// The gradient of the weights from `[small, large]`, added to what is there where `add` is true.
pub fn weigh(cpu: &Cpu, precision: Precision, sizes: &Sizes, operands: [&[f32]; 2], weight: &mut [f32], add: bool) {
    match precision {
        Precision::F32 => direct::weigh(cpu, sizes, operands, weight, add),
        Precision::Bf16 => patches::weigh(cpu, precision, sizes, operands, weight, add),
    }
}
