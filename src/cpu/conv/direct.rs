//! Convolutions in f32, on patches as they lie in memory.

use super::view::View;
use super::{Sizes, Target};
use crate::cpu::gemm::Mat;
use crate::cpu::gemm::direct::{Columns, Raster, Rows, Runs, pack, panels, rows_by_panels};
use crate::cpu::{Cpu, Tiles, chunks};

/// Numbers of pictures that are worked on at a time (256 KiB): a share of the second-level cache.
const PART: usize = 64 << 10;
/// Pixels of small pictures that a gradient of weights is summed over at a time.
const PIXELS: usize = 768;
/// Runs of patches of fewer numbers are laid side by side.
const RUN: usize = 16;
/// Below this many multiply-adds, waking the other threads costs more than they save.
const SMALL: usize = 1 << 16;

impl Sizes {
    /// Threads worth waking.
    fn threads(&self, cpu: &Cpu) -> usize {
        let (m, o, k) = self.product();
        if m * o * k < SMALL { 1 } else { cpu.threads.count() }
    }

    /// Patches as they are multiplied.
    fn as_they_lie(&self) -> View {
        self.view(self.kernel[1] * self.large[2] < RUN)
    }
}

/// So many parts that all threads are busy to the end.
fn parts(threads: usize) -> usize {
    if threads == 1 { 1 } else { 6 * threads }
}

/// See [`gather`](super::gather).
pub(super) fn gather(cpu: &Cpu, sizes: &Sizes, [large, weight]: [&[f32]; 2], small: Target<'_>) {
    let ((m, o, k), (small, add, last)) = (sizes.product(), small.apart());
    assert!(small.len() == m * o && weight.len() == o * k, "{sizes:?}: results or weights of another size");
    cpu.count_flops(2 * (m * o * k) as u64);
    let (view, threads, [h, w, _]) = (sizes.as_they_lie(), sizes.threads(cpu), sizes.small);
    let mut weights = cpu.scratch.take(panels(cpu.simd, k, o));
    pack(cpu, Mat::new(weight, o, k).t(), &mut weights);
    let split = view.split(sizes.n, PART, parts(threads));
    let (room, small) = (view.room(&split), Tiles::new(small));
    cpu.scratch.reserve([(threads.min(split.parts()), room)]);
    cpu.threads.run(split.parts(), &|i| {
        let part = split.part(i);
        let mut patches = cpu.scratch.take(room);
        view.lay_part(large, &part, &mut patches);
        // The pixels of a part follow each other.
        let first = (part.pictures.start * h + part.lines.start) * w * o;
        let pixels = part.pictures.len() * part.lines.len() * w;
        let product = Rows {
            a: &patches,
            from: view.raster(part.lines.len()),
            runs: view.runs(),
            b: &weights,
            c: small,
            to: Raster { grid: [1, pixels], steps: [0, 0, o], start: first },
            shape: [pixels, o],
            add,
        };
        rows_by_panels(cpu.simd, &product);
        // SAFETY: parts are disjoint, and the product is done with this one.
        unsafe { last.pixels(first, std::slice::from_raw_parts_mut(small.ptr(first), pixels * o), false) };
    });
}

/// Along one axis: the pixels of the large picture that leave one rest by the stride, and the taps that meet them.
#[derive(Clone, Copy)]
struct Phase {
    rest: usize,
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
    fn new(sizes: &Sizes, axis: usize, rest: usize) -> Phase {
        let (stride, padding) = (sizes.stride, sizes.padding);
        let tap = (rest + padding) % stride;
        let taps = sizes.kernel[axis].saturating_sub(tap).div_ceil(stride);
        let origin = ((rest + padding - tap) / stride) as isize + 1 - taps as isize;
        Phase { rest, pixels: sizes.large[axis].saturating_sub(rest).div_ceil(stride), tap, taps, origin }
    }

    /// Of all phases along an axis: the first pixel of the small picture that one of them sees, how many pixels one needs to
    /// see all that any of them does, and the most pixels.
    fn extent(sizes: &Sizes, axis: usize) -> (isize, usize, usize) {
        let phases = || (0..sizes.stride).map(|rest| Phase::new(sizes, axis, rest)).filter(|phase| phase.taps > 0);
        let origin = phases().map(|phase| phase.origin).min().unwrap_or(0);
        let end = phases().map(|phase| phase.origin + phase.taps as isize).max().unwrap_or(0);
        (origin, (end - origin) as usize, sizes.large[axis].div_ceil(sizes.stride))
    }
}

/// See [`spread`](super::spread): by phases.
pub(super) fn spread(cpu: &Cpu, sizes: &Sizes, [small, weight]: [&[f32]; 2], large: Target<'_>) {
    let ([h, w, c], s, o) = (sizes.large, sizes.stride, sizes.small[2]);
    let (large, add, last) = large.apart();
    assert!(large.len() == sizes.n * h * w * c && weight.len() == o * sizes.product().2, "{sizes:?}: another size");
    let phases = || (0..s * s).map(|i| [Phase::new(sizes, 0, i / s), Phase::new(sizes, 1, i % s)]);
    let [rows, columns] = [0, 1].map(|axis| Phase::extent(sizes, axis));
    let view = View {
        picture: sizes.small,
        origin: [rows.0, columns.0],
        grid: [rows.2, columns.2],
        kernel: [rows.1, columns.1],
        stride: 1,
        apart: false,
    };
    let depth = |[row, column]: [Phase; 2]| row.taps * column.taps * o;
    let products: usize = phases().map(|phase| phase[0].pixels * phase[1].pixels * depth(phase)).sum();
    cpu.count_flops(2 * (sizes.n * products * c) as u64);
    // The weights of each phase, the last tap first, (taps, O, C); their panels, one phase after the other.
    let mut turned = cpu.scratch.take(weight.len());
    let mut weights = cpu.scratch.take(phases().map(|phase| panels(cpu.simd, depth(phase), c)).sum());
    let (mut turned, mut rest) = (&mut turned[..], &mut weights[..]);
    for [row, column] in phases() {
        let (own, others) = std::mem::take(&mut turned).split_at_mut(depth([row, column]) * c);
        turned = others;
        cpu.threads.each(chunks(own, (o * c).max(1)), |tap, own| {
            let ky = row.tap + s * (row.taps - 1 - tap / column.taps);
            let kx = column.tap + s * (column.taps - 1 - tap % column.taps);
            for (o, own) in own.chunks_exact_mut(c).enumerate() {
                let at = ((o * sizes.kernel[0] + ky) * sizes.kernel[1] + kx) * c;
                own.copy_from_slice(&weight[at..at + c]);
            }
        });
        let (own_panels, others) = std::mem::take(&mut rest).split_at_mut(panels(cpu.simd, depth([row, column]), c));
        rest = others;
        pack(cpu, Mat::new(own, depth([row, column]), c), own_panels);
    }
    let threads = sizes.threads(cpu);
    let split = view.split(sizes.n, PART, parts(threads));
    let (room, large) = (view.room(&split), Tiles::new(large));
    cpu.scratch.reserve([(threads.min(split.parts()), room)]);
    cpu.threads.run(split.parts(), &|i| {
        let part = split.part(i);
        let mut pictures = cpu.scratch.take(room);
        view.lay_part(small, &part, &mut pictures);
        let (raster, runs, mut packed) = (view.raster(part.lines.len()), view.runs(), 0);
        for phase in phases() {
            let [row, column] = phase;
            let b = &weights[packed..][..panels(cpu.simd, depth(phase), c)];
            packed += b.len();
            let lines = part.lines.start..part.lines.end.min(row.pixels);
            if lines.is_empty() || column.pixels == 0 {
                continue;
            }
            let grid = [lines.len(), column.pixels];
            let [down, right] = match depth(phase) {
                0 => [0, 0],
                _ => [row.origin - rows.0, column.origin - columns.0].map(|more| more as usize),
            };
            let pixel = (part.pictures.start * h + lines.start * s + row.rest) * w + column.rest;
            let product = Rows {
                a: &pictures,
                from: Raster { grid, start: down * runs.apart + right * o, ..raster },
                runs: Runs { count: row.taps, len: column.taps * o, ..runs },
                b,
                c: large,
                to: Raster { grid, steps: [h * w * c, s * w * c, s * c], start: pixel * c },
                shape: [part.pictures.len() * grid[0] * grid[1], c],
                add,
            };
            rows_by_panels(cpu.simd, &product);
        }
        // A part is whole pictures, or rows of one.
        let row = |line: usize| part.pictures.start * h + h.min(line * s);
        let first = row(part.lines.start) * w * c;
        let len = (row(part.lines.end) + (part.pictures.len() - 1) * h) * w * c - first;
        // SAFETY: parts are disjoint, and the products are done with this one.
        unsafe { last.pixels(first, std::slice::from_raw_parts_mut(large.ptr(first), len), false) };
    });
}

/// See [`weigh`](super::weigh).
pub(super) fn weigh(cpu: &Cpu, sizes: &Sizes, [small, large]: [&[f32]; 2], weight: &mut [f32], add: bool) {
    let ((m, o, k), [h, w, _]) = (sizes.product(), sizes.small);
    assert!(small.len() == m * o && weight.len() == o * k, "{sizes:?}: operands or weights of another size");
    cpu.count_flops(2 * (m * o * k) as u64);
    let view = sizes.view(!(sizes.kernel[1] * sizes.large[2]).is_multiple_of(RUN));
    // Each element of the result is one chain over all pixels: some of them at a time, whose columns threads share.
    let size = PART.min(PIXELS * view.len(h) / (h * w));
    let split = view.split(sizes.n, size, 1);
    let (len, aside, pixels) = (view.len(split.lines), view.aside(split.lines), split.pictures * split.lines * w);
    let mut patches = cpu.scratch.take(view.room(&split));
    let mut packed = cpu.scratch.take(Columns::panels(cpu.simd, pixels, o));
    let (threads, weight) = (sizes.threads(cpu), Tiles::new(weight));
    cpu.scratch.reserve([(threads.min(split.pictures), aside)]);
    for i in 0..split.parts() {
        let part = split.part(i);
        let (lines, picture) = (part.lines.len(), sizes.large.iter().product::<usize>());
        let own = &mut patches[..part.pictures.len() * view.len(lines)];
        cpu.threads.each(chunks(own, len), |n, own| {
            let mut aside = cpu.scratch.take(aside);
            let large = &large[(part.pictures.start + n) * picture..][..picture];
            view.lay(large, part.lines.clone(), own, &mut aside);
        });
        let (first, pixels) = ((part.pictures.start * h + part.lines.start) * w, part.pictures.len() * lines * w);
        let small = Mat::new(&small[first * o..][..pixels * o], pixels, o);
        let packed = &mut packed[..Columns::panels(cpu.simd, pixels, o)];
        let b = (&patches[..], view.raster(lines), view.runs());
        let product = Columns::new(cpu, small, packed, b, weight, add || i > 0, parts(threads));
        let (pieces, room) = product.pieces();
        cpu.scratch.reserve([(threads.min(pieces), room)]);
        cpu.threads.run(pieces, &|i| product.piece(cpu.simd, i, &mut cpu.scratch.take(room)));
    }
}
