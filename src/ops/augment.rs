//! Differentiable augmentation: pictures (N, H, W, C) in other colours, moved and with a hole, each in its own way.
//!
//! ```text
//! colour        x + b;  m + s (x − m), m a pixel's mean;  m + k (x − m), m the picture's mean
//!               b from −½ to ½, s from 0 to 2, k from ½ to 1½
//! translation   y[i, j] = x[i + t, j + t′], 0 outside, |t| at most H/8, rounded
//! cutout        0 in a rectangle of half the height and width, whose middle lies anywhere
//! ```
//! in this order. A discriminator that sees both data and samples so cannot learn few pictures by heart, and what it says
//! still reaches the generator. All numbers of picture n are those from 8n on of the stream: b, s, k, t, t′ and the place
//! of the hole.
//!
//! But for b this is linear, `y = G·M·x`: M, which mixes colours, is symmetric; G takes pixels from elsewhere, or none.
//! Backward: `dx = M·Gᵀ·dy`.
//!
//! Source: Zhao et al. 2020 (arXiv 2006.10738).

use super::{Case, Input};
use crate::cpu::chunks;
use crate::cpu::reduce::block_sum;
use crate::device::kernels;
use crate::device::{Arg, Gpu};
use crate::launch::{at, flag, float, n};
use crate::rng::{Purpose, Stream};
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Spec, Tensor, Tensors};
use std::ops::Range;

/// What is done to pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Brightness, saturation and contrast.
    pub colour: bool,
    /// Moving them.
    pub translation: bool,
    /// A hole.
    pub cutout: bool,
}

/// Augments by `stream`. One input.
#[derive(Clone, Copy, Debug)]
pub struct Augment {
    /// What is done.
    pub policy: Policy,
    /// Where the numbers come from.
    pub stream: Stream,
    /// Whether b is added; it is no part of how results change with x.
    pub shifts: bool,
}

/// What is done to one picture.
struct Change {
    /// The shares of a pixel's own value, of its mean and of the picture's mean in it, and what is added.
    own: f32,
    pixel: f32,
    all: f32,
    shift: f32,
    /// t and t′.
    by: [isize; 2],
    /// Rows and columns of the hole.
    hole: [Range<isize>; 2],
}

/// The most that a picture of this length moves, and the length of a hole.
fn lengths(length: usize) -> (usize, usize) {
    ((length + 4) / 8, length.div_ceil(2))
}

impl Augment {
    /// What is done to picture number `picture`.
    fn change(&self, picture: usize, size: [usize; 2]) -> Change {
        let at = |i: usize| (8 * picture + i) as u64;
        let uniform = |i| self.stream.uniform(at(i));
        let below = |i, n: usize| ((u64::from(self.stream.bits(at(i))) * n as u64) >> 32) as isize;
        let mut change = Change { own: 1.0, pixel: 0.0, all: 0.0, shift: 0.0, by: [0; 2], hole: [0..0, 0..0] };
        if self.policy.colour {
            let (s, k) = (2.0 * uniform(1), uniform(2) + 0.5);
            (change.own, change.pixel, change.all) = (k * s, k * (1.0 - s), 1.0 - k);
            change.shift = if self.shifts { uniform(0) - 0.5 } else { 0.0 };
        }
        for (axis, length) in size.into_iter().enumerate() {
            let (most, hole) = lengths(length);
            if self.policy.translation {
                change.by[axis] = below(3 + axis, 2 * most + 1) - most as isize;
            }
            if self.policy.cutout {
                let start = below(5 + axis, length + 1 - hole % 2) - (hole / 2) as isize;
                change.hole[axis] = start.max(0)..(start + hole as isize).min(length as isize);
            }
        }
        change
    }

    /// `to = beta to + ` what becomes of `from`, or of its gradient where `back`.
    fn run(&self, back: bool, beta: f32, to: &mut Out, from: &Tensor) {
        let &[_, h, w, c] = &from.shape()[..] else { unreachable!("pictures") };
        let (cpu, picture, from) = (from.cpu(), h * w * c, from.f32());
        let mut between = cpu.scratch.take(from.len());
        cpu.threads.each((chunks(to.f32_mut(), picture), chunks(&mut between, picture)), |i, (to, between)| {
            let (change, from) = (self.change(i, [h, w]), &from[i * picture..][..picture]);
            let mean = |x: &[f32]| block_sum(cpu.simd, x) / picture as f32;
            if back {
                change.gather(true, [h, w, c], between, from);
                change.mix(mean(between), beta, c, to, between);
            } else {
                change.mix(mean(from), 0.0, c, between, from);
                change.gather(false, [h, w, c], to, between);
            }
        });
    }

    /// The same on a GPU. Seed and step are the stream's, written where the kernel finds them.
    fn launch(&self, gpu: &Gpu, back: bool, beta: f32, to: &Tensor, from: &Tensor) {
        let &[pictures, h, w, c] = &from.shape()[..] else { unreachable!("pictures") };
        let (pixels, device) = (pictures * h * w, from.device());
        let table = Out::new(device, Spec::f32([pictures, 12]));
        let (tensor, micro) = self.stream.place();
        let Policy { colour, translation, cutout } = self.policy;
        let mut args = vec![at(&table), gpu.state().into(), n(pictures), Arg::U32(tensor), Arg::U32(micro), n(h), n(w)];
        args.extend([colour, translation, cutout].map(flag));
        gpu.launch(kernels::augment_draw(pictures), &args);
        let (between, means) = (Out::new(device, Spec::f32(*from.shape())), Out::new(device, Spec::f32([pictures])));
        let mean = |x: &Tensor| {
            let count = h * w * c;
            let args = [at(x), at(&means), n(pictures), n(count), Arg::F32(1.0 / count as f32)];
            gpu.launch(kernels::row_sums(float(x), pictures, count), &args);
        };
        let mix = |from: &Tensor, to: &Tensor, beta: f32| {
            let pointers = [at(from), at(to), at(&table), at(&means)];
            let numbers = [n(pixels), n(c), n(h * w), flag(self.shifts && !back), flag(beta != 0.0)];
            let plan = kernels::augment("augment_mix", [float(from), float(to)], pixels);
            gpu.launch(plan, &[&pointers[..], &numbers].concat());
        };
        let gather = |from: &Tensor, to: &Tensor| {
            let args = [at(from), at(to), at(&table), n(pixels), n(c), n(h), n(w), flag(back)];
            gpu.launch(kernels::augment("augment_gather", [float(from), float(to)], pixels), &args);
        };
        if back {
            gather(from, &between);
            mean(&between);
            mix(&between, to, beta);
        } else {
            mean(from);
            mix(from, &between, 0.0);
            gather(&between, to);
        }
    }
}

impl Change {
    /// M: `to = beta to + own x + pixel mean(x) + all mean + shift`, `mean` that of the picture.
    fn mix(&self, mean: f32, beta: f32, c: usize, to: &mut [f32], from: &[f32]) {
        for (to, x) in to.chunks_exact_mut(c).zip(from.chunks_exact(c)) {
            let own_mean = x.iter().fold(0.0, |sum, x| sum + x) / c as f32;
            let rest = self.pixel * own_mean + (self.all * mean + self.shift);
            for (to, x) in to.iter_mut().zip(x) {
                let y = self.own * x + rest;
                *to = if beta == 0.0 { y } else { *to + y };
            }
        }
    }

    /// G, or its transpose where `back`: each pixel from another, or 0.
    fn gather(&self, back: bool, [h, w, c]: [usize; 3], to: &mut [f32], from: &[f32]) {
        let sign = if back { -1 } else { 1 };
        for (i, to) in to.chunks_exact_mut(c).enumerate() {
            let here = [(i / w) as isize, (i % w) as isize];
            let there = [here[0] + sign * self.by[0], here[1] + sign * self.by[1]];
            // The place in the result.
            let [row, column] = if back { there } else { here };
            let hidden = self.hole[0].contains(&row) && self.hole[1].contains(&column);
            let inside = (0..h as isize).contains(&there[0]) && (0..w as isize).contains(&there[1]);
            match inside && !hidden {
                true => to.copy_from_slice(&from[(there[0] as usize * w + there[1] as usize) * c..][..c]),
                false => to.fill(0.0),
            }
        }
    }
}

impl Op for Augment {
    fn name(&self) -> &'static str {
        "augment"
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        assert!(x[0].shape.len() == 4 && x[0].shape.numel() > 0, "augment: {:?} is no picture", x[0].shape);
        Specs::from_iter([x[0]])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.run(false, 0.0, &mut y[0], &x[0]);
        Tensors::new()
    }

    fn backward(&self, _x: &[Tensor], _y: &[Tensor], _saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let mut dx = dx.out(0);
        let beta = dx.beta;
        Augment { shifts: false, ..*self }.run(true, beta, &mut dx, dy[0].as_ref().expect("one result"));
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], _need: &mut [Need]) -> Tensors {
        self.launch(gpu, false, 0.0, &y[0], &x[0]);
        Tensors::new()
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        _x: &[Tensor],
        _y: &[Tensor],
        _saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let dx = dx.out(0);
        self.launch(gpu, true, dx.beta, &dx, dy[0].as_ref().expect("one result"));
    }

    fn jvp<'t>(&self, _x: &[Var<'t>], _y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = dx[0]?;
        Some(dx.tape().apply(Augment { shifts: false, ..*self }, &[dx]))
    }

    fn reads(&self) -> Reads {
        Reads { x: 0, y: 0, again: 0 }
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let &[_, h, w, c] = &x[0].shape[..] else { unreachable!("pictures") };
        let mut y = x[0].clone();
        for (i, y) in y.data.chunks_exact_mut(h * w * c).enumerate() {
            let u = |k: usize| f64::from(self.stream.uniform((8 * i + k) as u64));
            if self.policy.colour {
                if self.shifts {
                    y.iter_mut().for_each(|x| *x += u(0) - 0.5);
                }
                let around = |x: &mut [f64], factor: f64| {
                    let mean = x.iter().sum::<f64>() / x.len() as f64;
                    x.iter_mut().for_each(|x| *x = mean + factor * (*x - mean));
                };
                y.chunks_exact_mut(c).for_each(|pixel| around(pixel, 2.0 * u(1)));
                around(y, u(2) + 0.5);
            }
            let below = |k: usize, n: f64| (f64::from(self.stream.bits((8 * i + k) as u64)) / 4_294_967_296.0 * n).floor();
            let mut place = [0, 1].map(|_| [0.0, f64::INFINITY, 0.0]);
            for (axis, length) in [h, w].into_iter().enumerate() {
                let (most, hole) = lengths(length);
                if self.policy.translation {
                    place[axis][0] = below(3 + axis, (2 * most + 1) as f64) - most as f64;
                }
                if self.policy.cutout {
                    let start = below(5 + axis, (length + 1 - hole % 2) as f64) - (hole / 2) as f64;
                    (place[axis][1], place[axis][2]) = (start, start + hole as f64);
                }
            }
            let colours = y.to_vec();
            for (k, y) in y.iter_mut().enumerate() {
                let here = [k / c / w, k / c % w].map(|x| x as f64);
                let [row, column] = [0, 1].map(|axis| here[axis] + place[axis][0]);
                let inside = row >= 0.0 && row < h as f64 && column >= 0.0 && column < w as f64;
                let hidden = (0..2).all(|axis| here[axis] >= place[axis][1] && here[axis] < place[axis][2]);
                *y = if inside && !hidden { colours[(row as usize * w + column as usize) * c + k % c] } else { 0.0 };
            }
        }
        vec![y]
    }
}

impl<'t> Var<'t> {
    /// These pictures (N, H, W, C) augmented by `stream` (see [`Tape::stream`](crate::tape::Tape::stream)).
    pub fn augment(self, policy: Policy, stream: Stream) -> Var<'t> {
        match policy == Policy::default() {
            true => self,
            false => self.tape().apply(Augment { policy, stream, shifts: true }, &[self]),
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let stream = Stream::new(super::check::SEED, Purpose::Augment, 3, 0);
    let policy = |colour, translation, cutout| Policy { colour, translation, cutout };
    let op = |policy| Augment { policy, stream, shifts: true };
    let case = |policy: Policy, shape: [usize; 4]| {
        let names = [(policy.colour, "colour"), (policy.translation, "translation"), (policy.cutout, "cutout")];
        let names: Vec<&str> = names.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        Case::check(format!("{} of {shape:?}", names.join(", ")), op(policy), [Input::normal(shape)])
    };
    vec![
        case(policy(true, false, false), [3, 4, 5, 3]),
        case(policy(false, true, false), [5, 12, 9, 2]),
        case(policy(false, false, true), [6, 7, 8, 1]),
        case(policy(true, true, true), [4, 9, 12, 8]),
        Case { role: super::Role::Bench, ..case(policy(true, true, true), [128, 32, 32, 3]) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_move_an_eighth_either_way_and_holes_cover_a_quarter_at_most() {
        let policy = Policy { colour: true, translation: true, cutout: true };
        let op = Augment { policy, stream: Stream::new(1, Purpose::Augment, 0, 0), shifts: true };
        let changes: Vec<Change> = (0..2000).map(|i| op.change(i, [32, 28])).collect();
        for (axis, most) in [(0, 4), (1, 4)] {
            let [low, high] = [isize::min, isize::max].map(|f| changes.iter().map(|c| c.by[axis]).reduce(f));
            assert_eq!((low, high), (Some(-most), Some(most)));
        }
        let holes = || changes.iter().map(|change| change.hole.clone().map(|range| range.len()));
        assert!(holes().all(|[h, w]| (8..=16).contains(&h) && (7..=14).contains(&w)));
        // Holes start anywhere: some are whole.
        assert!(holes().any(|hole| hole == [16, 14]));
        let mean = |f: fn(&Change) -> f32| changes.iter().map(f).sum::<f32>() / changes.len() as f32;
        // Five standard errors: of b 0.032, of k 0.032.
        assert!(mean(|c| c.shift).abs() < 0.033 && mean(|c| c.all).abs() < 0.033);
    }
}
