//! Products in f32 of operands that lie in memory as runs of numbers: what convolutions consist of, since a patch of a
//! picture is a few runs of it, and patches side by side overlap. Nothing is packed that is read as it lies; an element of C
//! is the same chain as in [`gemm`](super::gemm).

// Indices that run over several arrays say it best.
#![allow(clippy::needless_range_loop)]

use super::form::Single;
use super::pack::{Panels, Source};
use super::tile::{self, Block, Local, Shared, part_of, tile};
use super::{Form, Mat, SMALL};
use crate::cpu::{Cpu, Simd, Tiles, Vector};
use crate::simd_fn;
use std::ops::Range;

/// Numbers that may be read, and not used, beyond the last run of B.
pub const SLACK: usize = 32;

/// Runs of numbers: so many, so long, and so far from one's start to the next one's.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    pub count: usize,
    pub len: usize,
    pub apart: usize,
}

impl Runs {
    /// All numbers.
    pub fn total(&self) -> usize {
        self.count * self.len
    }

    /// Numbers from the first to the last.
    fn reach(&self) -> usize {
        if self.total() == 0 { 0 } else { (self.count - 1) * self.apart + self.len }
    }
}

/// Pixels of pictures: pixel (n, i, j) begins at `start + n·steps[0] + i·steps[1] + j·steps[2]`.
#[derive(Clone, Copy, Debug)]
pub struct Raster {
    /// Rows and columns of a picture.
    pub grid: [usize; 2],
    /// Numbers from a picture, a row and a column to the next.
    pub steps: [usize; 3],
    /// Where the first pixel begins.
    pub start: usize,
}

impl Raster {
    /// Numbers up to the end of the last of `pixels`, of so many numbers each.
    fn end(&self, pixels: usize, numbers: usize) -> usize {
        let Some(last) = pixels.checked_sub(1) else { return 0 };
        let (line, j) = (last / self.grid[1], last % self.grid[1]);
        let (n, i) = (line / self.grid[0], line % self.grid[0]);
        // Rows and columns reach their ends in earlier pictures.
        let [i, j] = [if n > 0 { self.grid[0] - 1 } else { i }, if line > 0 { self.grid[1] - 1 } else { j }];
        self.start + n * self.steps[0] + i * self.steps[1] + j * self.steps[2] + numbers
    }

    /// Where the pixels begin, one after the other.
    #[inline(always)]
    fn walk(&self) -> Walk {
        Walk { raster: *self, i: 0, j: 0, at: self.start }
    }
}

/// A walk over a [`Raster`].
struct Walk {
    raster: Raster,
    i: usize,
    j: usize,
    at: usize,
}

impl Walk {
    #[inline(always)]
    fn next(&mut self) -> usize {
        let (here, Raster { grid, steps, .. }) = (self.at, self.raster);
        (self.j, self.at) = (self.j + 1, here.wrapping_add(steps[2]));
        if self.j == grid[1] {
            (self.j, self.i) = (0, self.i + 1);
            self.at = self.at.wrapping_add(steps[1]).wrapping_sub(grid[1].wrapping_mul(steps[2]));
            if self.i == grid[0] {
                self.i = 0;
                self.at = self.at.wrapping_add(steps[0]).wrapping_sub(grid[0].wrapping_mul(steps[1]));
            }
        }
        here
    }
}

/// Numbers of the panels of a B of `k` rows and `n` columns.
pub fn panels(simd: Simd, k: usize, n: usize) -> usize {
    Panels::of_width(n, tile::size(simd).1).len(k)
}

/// Packs B into panels for [`rows_by_panels`].
pub fn pack(cpu: &Cpu, b: Mat<'_>, out: &mut [f32]) {
    let panels = Panels::of_width(b.cols, tile::size(cpu.simd).1);
    let threads = if b.rows * b.cols < SMALL { 1 } else { cpu.threads.count() };
    super::pack(cpu, Form::Single, Source::columns(b), panels, b.rows, out, threads);
}

/// C = A·B, or C += A·B with `add`, where row m of A is the runs of numbers from a pixel on, and row m of C a pixel.
pub struct Rows<'a> {
    /// What has A's rows.
    pub a: &'a [f32],
    /// Where these begin.
    pub from: Raster,
    /// And what each is.
    pub runs: Runs,
    /// B, [packed](pack).
    pub b: &'a [f32],
    /// What has C's rows.
    pub c: Tiles<'a>,
    /// Where these begin.
    pub to: Raster,
    /// Rows and columns of C.
    pub shape: [usize; 2],
    /// Whether the chains start from C, else from 0.
    pub add: bool,
}

simd_fn! {
    /// Computes the product.
    ///
    /// # Safety
    /// Nobody else uses these elements of C, and they exist.
    pub fn rows_by_panels(p: &Rows<'_>) = rows_by_panels_body
}
#[inline(always)]
fn rows_by_panels_body<V: Vector>(p: &Rows<'_>) {
    if V::W == 16 { rows_by::<V, 14, 2>(p) } else { rows_by::<V, 6, 2>(p) }
}

#[inline(always)]
fn rows_by<V: Vector, const MR: usize, const NV: usize>(p: &Rows<'_>) {
    let (Runs { count, len, apart }, [m, n], nr) = (p.runs, p.shape, NV * V::W);
    let (rows, columns) = (Panels::up_to(m, MR), Panels::of_width(n, nr));
    assert!(p.from.end(m, p.runs.reach()) <= p.a.len() && columns.len(p.runs.total()) <= p.b.len());
    assert!(p.to.end(m, n) <= p.c.count());
    for j in 0..columns.count {
        let (cols, b) = (columns.range(j), p.b[j * nr * p.runs.total()..].as_ptr());
        let (mut from, mut to) = (p.from.walk(), p.to.walk());
        for i in 0..rows.count {
            macro_rules! by_height {
                ($($h:literal)*) => {
                    match rows.range(i).len() {
                        $($h if $h <= MR => {
                            let (mut a, mut c) = ([p.a.as_ptr(); $h], [p.c.ptr(cols.start); $h]);
                            for row in 0..$h {
                                a[row] = a[row].wrapping_add(from.next());
                                c[row] = c[row].wrapping_add(to.next());
                            }
                            let start = |run: usize| {
                                let mut a = a;
                                for row in 0..$h {
                                    a[row] = a[row].wrapping_add(run * apart);
                                }
                                (a, b.wrapping_add(run * len * nr))
                            };
                            // SAFETY: the operands are as long as was asserted; who calls owns these elements of C.
                            unsafe { tile::<V, Single, [*const f32; $h], $h, NV>([count, len], start, nr, c, cols.len(), p.add) };
                        })*
                        _ => unreachable!(),
                    }
                };
            }
            by_height!(14 13 12 11 10 9 8 7 6 5 4 3 2 1);
        }
    }
}

/// C = Aᵀ·B, or C += Aᵀ·B with `add`, where A is (pixels, O) and row m of B the runs of numbers from a pixel on, side by
/// side. B is packed by whoever multiplies it: [`Columns::piece`].
pub struct Columns<'a> {
    block: Block<'a>,
    b: &'a [f32],
    from: Raster,
    runs: Runs,
    /// Into how many pieces C is cut along columns and rows.
    cut: [usize; 2],
}

/// Panels of B in a piece.
const PANELS: usize = 4;

impl<'a> Columns<'a> {
    /// Numbers of the panels of A at a level.
    pub fn panels(simd: Simd, pixels: usize, o: usize) -> usize {
        Panels::up_to(o, tile::size(simd).0).len(pixels)
    }

    /// Packs A, `a`, into `packed` of [as many numbers](Columns::panels). B is the [`Runs`] that begin where `from` says;
    /// each is a multiple of 16 numbers, or they are one; [`SLACK`] more numbers can be read. C is (O, numbers of all runs), and falls into
    /// at least as many pieces as are asked for, where it has so many tiles.
    pub fn new(
        cpu: &Cpu,
        a: Mat<'_>,
        packed: &'a mut [f32],
        (b, from, runs): (&'a [f32], Raster, Runs),
        c: Tiles<'a>,
        add: bool,
        pieces: usize,
    ) -> Columns<'a> {
        let (pixels, o, k, (mr, nr)) = (a.rows, a.cols, runs.total(), tile::size(cpu.simd));
        assert!(o * k <= c.count() && from.end(pixels, runs.reach()) + SLACK <= b.len());
        assert!(runs.count == 1 || runs.len.is_multiple_of(LANES) && nr <= SLACK);
        let (a_panels, b_panels) = (Panels::up_to(o, mr), Panels::of_width(k, nr));
        let threads = if o * pixels < SMALL { 1 } else { cpu.threads.count() };
        super::pack(cpu, Form::Single, Source::rows(a.t()), a_panels, pixels, packed, threads);
        let shared = Shared { data: packed, pitch: pixels * mr };
        let local = Local::B(Source::columns(Mat::new(&[], 0, 0)));
        let form = Form::Single;
        let block =
            Block { local, shared, a_panels, b_panels, form, depth: pixels, c, row_stride: k, add, finish: None };
        let columns = b_panels.count.div_ceil(PANELS);
        let cut = [columns, pieces.div_ceil(columns).clamp(1, a_panels.count)];
        Columns { block, b, from, runs, cut }
    }

    /// The number of pieces, and how many numbers each needs for its panels.
    pub fn pieces(&self) -> (usize, usize) {
        (self.cut[0] * self.cut[1], PANELS * self.block.b_panels.width * self.block.depth)
    }

    /// Computes piece `i`.
    pub fn piece(&self, simd: Simd, i: usize, packed: &mut [f32]) {
        let (panels, column) = (&self.block.b_panels, i % self.cut[0]);
        let own = column * PANELS..panels.count.min((column + 1) * PANELS);
        let theirs = part_of(self.block.a_panels.count, self.cut[1], i / self.cut[0]);
        let lanes = own.start * panels.width..own.end * panels.width;
        pack_runs(simd, self, lanes, packed);
        tile::multiply(simd, &self.block, packed, own, theirs);
    }
}

/// Numbers of a run that are neighbours in a panel.
const LANES: usize = 16;

simd_fn! {
    /// Packs these columns of B.
    fn pack_runs(p: &Columns<'_>, lanes: Range<usize>, packed: &mut [f32]) = pack_runs_body
}
#[inline(always)]
fn pack_runs_body<V: Vector>(p: &Columns<'_>, lanes: Range<usize>, packed: &mut [f32]) {
    let (width, pixels) = (p.block.b_panels.width, p.block.depth);
    assert!(packed.len() >= lanes.len() * pixels);
    for lane in lanes.clone().step_by(LANES) {
        // What lies beyond the last run may be anything: nobody looks at it.
        let lane_in = lane.min(p.runs.total() - 1);
        let first = lane_in / p.runs.len * p.runs.apart + lane_in % p.runs.len;
        let (panel, within) = ((lane - lanes.start) / width, (lane - lanes.start) % width);
        let (mut walk, mut to) = (p.from.walk(), packed[panel * width * pixels + within..].as_mut_ptr());
        for _ in 0..pixels {
            let from = p.b.as_ptr().wrapping_add(first + walk.next());
            for v in 0..LANES / V::W {
                // SAFETY: a pixel's runs end at least `SLACK` numbers before the end of B, and the panels hold `pixels` rows.
                unsafe { V::load_ptr(from.add(v * V::W)).store_ptr(to.add(v * V::W)) };
            }
            to = to.wrapping_add(width);
        }
    }
}
