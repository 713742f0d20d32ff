//! How a grid of patches lies in memory: where the pixels of a large picture that a small one's pixel sees begin.
//!
//! A picture with zeros around it holds every patch as kh runs of kw·C numbers, so that patches cost one copy of the picture,
//! though they overlap. Where such a run fills no registers (few channels), patches are laid side by side instead.

use crate::cpu::gemm::direct::{Raster, Runs, SLACK};
use std::ops::Range;

/// Patches of pictures (N, H, W, C).
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// H, W and C.
    pub picture: [usize; 3],
    /// Row and column where the first patch begins.
    pub origin: [isize; 2],
    /// Rows and columns of the grid of patches.
    pub grid: [usize; 2],
    /// Rows and columns of a patch.
    pub kernel: [usize; 2],
    /// Pixels from one patch to the next.
    pub stride: usize,
    /// Whether they lie side by side.
    pub apart: bool,
}

/// What one iteration of a loop works on: pictures, and lines of the grid in each; all, where it is more than one picture.
pub(super) struct Part {
    pub pictures: Range<usize>,
    pub lines: Range<usize>,
}

/// How the grids of `n` pictures are divided into [`Part`]s.
#[derive(Clone, Copy)]
pub(super) struct Split {
    n: usize,
    grid_lines: usize,
    /// Pictures of a part, and lines of each.
    pub pictures: usize,
    pub lines: usize,
}

impl Split {
    /// Into how many parts.
    pub fn parts(&self) -> usize {
        self.n.div_ceil(self.pictures) * self.grid_lines.div_ceil(self.lines)
    }

    /// Part `i`.
    pub fn part(&self, i: usize) -> Part {
        let bands = self.grid_lines.div_ceil(self.lines);
        let (first, line) = (i / bands * self.pictures, i % bands * self.lines);
        Part { pictures: first..self.n.min(first + self.pictures), lines: line..self.grid_lines.min(line + self.lines) }
    }
}

impl View {
    /// C·columns: numbers of a row of a picture with zeros around it.
    fn pitch(&self) -> usize {
        ((self.grid[1] - 1) * self.stride + self.kernel[1]) * self.picture[2]
    }

    /// Numbers of so many lines of the grid, in a picture with zeros around it.
    fn padded(&self, lines: usize) -> usize {
        ((lines - 1) * self.stride + self.kernel[0]) * self.pitch()
    }

    /// Numbers of a patch.
    fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.picture[2]
    }

    /// Numbers that so many lines of the grid of one picture take.
    pub fn len(&self, lines: usize) -> usize {
        if self.apart { lines * self.grid[1] * self.patch() } else { self.padded(lines) }
    }

    /// Numbers that are needed besides while patches are laid side by side.
    pub fn aside(&self, lines: usize) -> usize {
        if self.apart { self.padded(lines) } else { 0 }
    }

    /// Where patches begin, with so many lines of the grid in each picture.
    pub fn raster(&self, lines: usize) -> Raster {
        let [line, pixel] = match self.apart {
            true => [self.grid[1] * self.patch(), self.patch()],
            false => [self.stride * self.pitch(), self.stride * self.picture[2]],
        };
        Raster { grid: [lines, self.grid[1]], steps: [self.len(lines), line, pixel], start: 0 }
    }

    /// What a patch is.
    pub fn runs(&self) -> Runs {
        match self.apart {
            true => Runs { count: 1, len: self.patch(), apart: 0 },
            false => Runs { count: self.kernel[0], len: self.kernel[1] * self.picture[2], apart: self.pitch() },
        }
    }

    /// Divides the grids of `n` pictures into parts of about `size` numbers, at least `parts` of them where there are so
    /// many lines.
    pub fn split(&self, n: usize, size: usize, parts: usize) -> Split {
        let (grid_lines, whole) = (self.grid[0], self.len(self.grid[0]));
        let pictures = (size / whole).clamp(1, n.div_ceil(parts).max(1));
        let bands = if pictures > 1 { 1 } else { whole.div_ceil(size).max(parts.div_ceil(n.max(1))) };
        Split { n, grid_lines, pictures, lines: grid_lines.div_ceil(bands).max(1) }
    }

    /// Lays out the patches of the lines `lines` of the grid of one picture; `aside` is as long as [said](View::aside).
    pub fn lay(&self, picture: &[f32], lines: Range<usize>, out: &mut [f32], aside: &mut [f32]) {
        if !self.apart {
            return self.pad(picture, lines, out);
        }
        let ([_, columns], [kh, _], run) = (self.grid, self.kernel, self.kernel[1] * self.picture[2]);
        let (pitch, step, rows) = (self.pitch(), self.stride * self.picture[2], lines.len());
        self.pad(picture, lines, aside);
        let mut to = 0;
        for line in 0..rows {
            for column in 0..columns {
                let from = line * self.stride * pitch + column * step;
                for ky in 0..kh {
                    copy(&aside[from + ky * pitch..], &mut out[to..], run);
                    to += run;
                }
            }
        }
    }

    /// Copies the rows that those lines see, with zeros around.
    fn pad(&self, picture: &[f32], lines: Range<usize>, out: &mut [f32]) {
        let ([h, w, c], pitch) = (self.picture, self.pitch());
        let top = (lines.start * self.stride) as isize + self.origin[0];
        // Of a row, the numbers that lie inside, and where they go.
        let left = self.origin[1] * c as isize;
        let inside = left.max(0)..(left + pitch as isize).min((w * c) as isize);
        for (y, out) in (top..).zip(out.chunks_exact_mut(pitch)) {
            if !(0..h as isize).contains(&y) || inside.is_empty() {
                out.fill(0.0);
                continue;
            }
            let row = &picture[y as usize * w * c..][inside.start as usize..inside.end as usize];
            let (before, rest) = out.split_at_mut((inside.start - left) as usize);
            let (to, after) = rest.split_at_mut(row.len());
            before.fill(0.0);
            to.copy_from_slice(row);
            after.fill(0.0);
        }
    }

    /// Lays out a part of the pictures `large`, in `out` of [`room`](View::room) for it.
    pub fn lay_part(&self, large: &[f32], part: &Part, out: &mut [f32]) {
        let (lines, size) = (part.lines.len(), self.picture.iter().product::<usize>());
        let (out, aside) = out.split_at_mut(part.pictures.len() * self.len(lines));
        for (n, out) in part.pictures.clone().zip(out.chunks_exact_mut(self.len(lines))) {
            self.lay(&large[n * size..][..size], part.lines.clone(), out, &mut aside[..self.aside(lines)]);
        }
    }

    /// Numbers that a part takes.
    pub fn room(&self, split: &Split) -> usize {
        split.pictures * self.len(split.lines) + self.aside(split.lines) + SLACK
    }
}

/// Copies `len` numbers, a few: a call for each run would take longer.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32], len: usize) {
    const STEP: usize = 4;
    assert!(from.len() >= len && to.len() >= len);
    let mut i = 0;
    while i + STEP <= len {
        // SAFETY: both are at least `len` long.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().add(i), to.as_mut_ptr().add(i), STEP) };
        i += STEP;
    }
    while i < len {
        to[i] = from[i];
        i += 1;
    }
}
