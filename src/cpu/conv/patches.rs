//! Convolutions by matrix products with patches that lie side by side, some pictures at a time: `spread` where that has fewer
//! products, and all of bf16, where patches must be rounded and packed.

use super::{Sizes, Target};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::cpu::{Cpu, chunks};

/// Numbers of patches that are made before they are used (4 MiB).
const PATCHES: usize = 1 << 20;

impl Sizes {
    /// Pictures whose patches are made at a time: an even number, so that pairs of pixels are not cut.
    fn group(&self) -> usize {
        let size = self.small[0] * self.small[1] * self.product().2;
        (PATCHES / size.max(1)).min(self.n).next_multiple_of(2).max(2)
    }

    /// Numbers of a large picture, pixels of a small one.
    fn picture(&self) -> (usize, usize) {
        (self.large.iter().product(), self.small[0] * self.small[1])
    }

    /// The patches of some large pictures, (pixels, kh·kw·C).
    fn lay(&self, cpu: &Cpu, large: &[f32], patches: &mut [f32]) {
        let (view, (picture, _), lines) = (self.view(true), self.picture(), self.small[0]);
        let aside = view.aside(lines);
        cpu.scratch.reserve([(cpu.threads.count(), aside)]);
        cpu.threads.each(chunks(patches, view.len(lines)), |n, patches| {
            let mut aside = cpu.scratch.take(aside);
            view.lay(&large[n * picture..][..picture], 0..lines, patches, &mut aside);
        });
    }
}

/// See [`gather`](super::gather).
pub(super) fn gather(cpu: &Cpu, precision: Precision, sizes: &Sizes, [large, weight]: [&[f32]; 2], small: Target<'_>) {
    let ((_, o, k), (picture, pixels), group) = (sizes.product(), sizes.picture(), sizes.group());
    let (small, add, last) = small.apart();
    let mut patches = cpu.scratch.take(group * pixels * k);
    for (i, small) in small.chunks_mut((group * pixels * o).max(1)).enumerate() {
        let rows = small.len() / o;
        let patches = &mut patches[..rows * k];
        sizes.lay(cpu, &large[i * group * picture..], patches);
        let patches = Mat::new(patches, rows, k);
        gemm(cpu, precision, patches, Mat::new(weight, o, k).t(), MatMut::new(small, rows, o), add, None);
        cpu.threads.each(chunks(small, pixels * o), |j, small| {
            // SAFETY: each picture is finished once.
            unsafe { last.pixels((i * group + j) * pixels * o, small, false) };
        });
    }
}

/// See [`spread`](super::spread).
pub(super) fn spread(cpu: &Cpu, precision: Precision, sizes: &Sizes, [small, weight]: [&[f32]; 2], large: Target<'_>) {
    let ((_, o, k), (picture, pixels), group) = (sizes.product(), sizes.picture(), sizes.group());
    let (c, (large, add, last)) = (sizes.large[2], large.apart());
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
            unsafe { last.pixels((first + j) * picture, large, true) };
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
        for ky in 0..sizes.kernel[0] {
            let y = top + ky as isize;
            if (0..h as isize).contains(&y) {
                let line = &mut large[y as usize * w * c..][start as usize..end as usize];
                add(line, &patch[ky * run + (start - left) as usize..]);
            }
        }
    }
}

/// Adds as many numbers as `y` has, often a few.
#[inline(always)]
fn add(y: &mut [f32], x: &[f32]) {
    let (x, n) = (&x[..y.len()], y.len());
    for i in (0..n - n % 4).step_by(4) {
        for j in i..i + 4 {
            y[j] += x[j];
        }
    }
    for i in n - n % 4..n {
        y[i] += x[i];
    }
}

/// See [`weigh`](super::weigh).
pub(super) fn weigh(
    cpu: &Cpu,
    precision: Precision,
    sizes: &Sizes,
    [small, large]: [&[f32]; 2],
    weight: &mut [f32],
    add: bool,
) {
    let ((_, o, k), (picture, pixels), group) = (sizes.product(), sizes.picture(), sizes.group());
    let mut patches = cpu.scratch.take(group * pixels * k);
    for (i, large) in large.chunks((group * picture).max(1)).enumerate() {
        let m = large.len() / picture * pixels;
        let patches = &mut patches[..m * k];
        sizes.lay(cpu, large, patches);
        let small = Mat::new(&small[i * group * pixels * o..][..m * o], m, o).t();
        let weight = MatMut::new(weight, o, k);
        gemm(cpu, precision, small, Mat::new(patches, m, k), weight, add || i > 0, None);
    }
}
