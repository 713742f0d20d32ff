//! Patches of pictures as a matrix that exists only while it is packed, and the rows of a picture's pixels as rows of C:
//! a convolution as a matrix product (implicit GEMM).
//!
//! Row m of the matrix is the patch of pixel m = (n, i, j) of a grid: the kh × kw pixels of picture n from
//! (i·stride + origin, j·stride + origin) on, each with its C channels. What lies outside of the picture is 0. In NHWC a row
//! of kw pixels is one run of kw·C numbers, so that a patch is copied in kh pieces, clipped at the border.
//!
//! Source: Chetlur et al. 2014, "cuDNN: Efficient primitives for deep learning" (arXiv 1410.0759), section 3.

// Indices that run over several arrays say it best.
#![allow(clippy::needless_range_loop)]

use super::form::Layout;
use super::pack::{GROUP, Panels, Source, transpose, write};
use crate::cpu::Vector;

/// Patches of pictures; see the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Patches<'a> {
    /// Pictures (N, H, W, C).
    pub data: &'a [f32],
    /// H, W and C.
    pub picture: [usize; 3],
    /// Rows and columns of the grid of patches.
    pub grid: [usize; 2],
    /// Rows and columns of a patch.
    pub kernel: [usize; 2],
    /// Pixels from one patch to the next.
    pub stride: usize,
    /// Row and column where the first patch begins.
    pub origin: [isize; 2],
}

impl Patches<'_> {
    /// The number of patches, and of elements of each.
    pub fn shape(&self) -> (usize, usize) {
        let [h, w, c] = self.picture;
        let pictures = self.data.len() / (h * w * c).max(1);
        (pictures * self.grid[0] * self.grid[1], self.kernel[0] * self.kernel[1] * c)
    }

    /// Elements `from..from + out.len()` of patch `m`.
    #[inline(always)]
    fn fill(&self, m: usize, from: usize, out: &mut [f32]) {
        let ([h, w, c], [rows, cols]) = (self.picture, self.grid);
        let (line, j) = (m / cols, m % cols);
        let (n, i) = (line / rows, line % rows);
        let top = (i * self.stride) as isize + self.origin[0];
        // A row of the picture has w·C numbers, a row of the patch kw·C, of which the first is number `left`.
        let (width, run) = (w * c, self.kernel[1] * c);
        let left = ((j * self.stride) as isize + self.origin[1]) * c as isize;
        let (mut y, mut skip, mut done) = (top + (from / run) as isize, from % run, 0);
        while done < out.len() {
            let piece = &mut out[done..];
            let len = piece.len().min(run - skip);
            let piece = &mut piece[..len];
            let start = left + skip as isize;
            let inside = (0..h as isize).contains(&y);
            if inside && start >= 0 && start as usize + len <= width {
                let at = (n * h + y as usize) * width + start as usize;
                piece.copy_from_slice(&self.data[at..at + len]);
            } else {
                piece.fill(0.0);
                let first = start.max(0);
                let last = (start + len as isize).min(width as isize);
                if inside && first < last {
                    let at = (n * h + y as usize) * width + first as usize;
                    let len = (last - first) as usize;
                    piece[(first - start) as usize..][..len].copy_from_slice(&self.data[at..at + len]);
                }
            }
            (y, skip, done) = (y + 1, 0, done + len);
        }
    }
}

/// Rows of C that are the pixels of a grid: row (n, i, j) begins at `start + n·steps[0] + i·steps[1] + j·steps[2]`.
#[derive(Clone, Copy, Debug)]
pub struct Raster {
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    /// Numbers from a picture, a row and a column to the next.
    pub steps: [usize; 3],
    /// Where the first row of C begins.
    pub start: usize,
}

impl Raster {
    /// Where row `m` of C begins.
    #[inline(always)]
    pub fn offset(&self, m: usize) -> usize {
        let [rows, cols] = self.grid;
        let (line, j) = (m / cols, m % cols);
        let (n, i) = (line / rows, line % rows);
        self.start + n * self.steps[0] + i * self.steps[1] + j * self.steps[2]
    }

    /// Whether rows of `columns` numbers lie apart, and `m` of them in `len` numbers.
    pub(super) fn fits(&self, m: usize, columns: usize, len: usize) -> bool {
        let ([rows, cols], [picture, row, column]) = (self.grid, self.steps);
        let line = cols.saturating_sub(1) * column + columns;
        let apart = column >= columns && row >= line && picture >= rows.saturating_sub(1) * row + line;
        apart && (m == 0 || self.offset(m - 1) + columns <= len)
    }
}

/// Elements of patches that are turned at a time.
const PIECE: usize = 256;

/// Packs panels whose lanes are patches, from patch `patch` and element `element` of each on.
#[inline(always)]
pub(super) fn pack_patches<V: Vector, L: Layout<V>>(
    patches: &Patches<'_>,
    [patch, element]: [usize; 2],
    panels: &Panels,
    depth: usize,
    rows: usize,
    first: usize,
    out: &mut [f32],
) {
    let mut staged = [0.0; 16 * PIECE];
    for (i, panel) in out.chunks_exact_mut((rows * panels.width).max(1)).enumerate() {
        let lanes = panels.range(first + i);
        for k in (0..depth).step_by(PIECE) {
            let count = PIECE.min(depth - k);
            for (lane, staged) in lanes.clone().zip(staged.chunks_exact_mut(PIECE)) {
                patches.fill(patch + lane, element + k, &mut staged[..count]);
            }
            let (start, end) = (k / L::SPAN, if k + count == depth { rows } else { (k + count) / L::SPAN });
            let panel = &mut panel[start * panels.width..end * panels.width];
            transpose::<V, L, f32>(Source::lines(&staged, PIECE), lanes.len(), count, panels.width, panel);
        }
    }
}

/// The most columns of a panel.
const WIDTH: usize = 32;

/// Packs panels whose lanes are the elements of patches, along the patches.
#[inline(always)]
pub(super) fn pack_elements<V: Vector, L: Layout<V>>(
    patches: &Patches<'_>,
    [patch, element]: [usize; 2],
    panels: &Panels,
    depth: usize,
    rows: usize,
    mut first: usize,
    out: &mut [f32],
) {
    // Registers read over the last lane.
    let mut staged = [[0.0; (GROUP + 1) * WIDTH]; 2];
    let size = rows * panels.width;
    for group in out.chunks_mut((GROUP * size).max(1)) {
        let count = group.len() / size;
        let lanes = panels.range(first).start..panels.range(first + count - 1).end;
        for row in 0..rows {
            let k = row * L::SPAN;
            if k.is_multiple_of(L::GROUP) {
                for (k, staged) in (k..depth.min(k + L::GROUP)).zip(&mut staged) {
                    patches.fill(patch + k, element + lanes.start, &mut staged[..lanes.len()]);
                }
            }
            for (i, panel) in group.chunks_exact_mut(size).enumerate() {
                for lane in (0..panels.width).step_by(V::W) {
                    let v = L::across(
                        row,
                        #[inline(always)]
                        |k| match k < depth {
                            true => V::load(&staged[k % L::GROUP][i * panels.width + lane..]),
                            false => V::splat(0.0),
                        },
                    );
                    write(v, &mut panel[row * panels.width + lane..], panels.width - lane);
                }
            }
        }
        first += count;
    }
}
