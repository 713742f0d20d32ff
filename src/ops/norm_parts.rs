//! The steps that norms of pictures consist of, forward and back, on a CPU or a GPU: what
//! [`picture_norm`](super::picture_norm) and [`norm_tangent`](super::norm_tangent) are made of. Symbols are theirs.

use super::picture_norm::{PictureNorm, Statistics};
use crate::cpu::picture_norm::{
    Channels, Second, Sizes, backward_rows, block_moments, block_sums, fold_moments, gain_rows, normalise, second_rows,
    share,
};
use crate::cpu::{chunks, elementwise::CHUNK, reduce};
use crate::device::{Arg, Device, kernels};
use crate::launch::{at, fill, flag, float, maybe, n};
use crate::tensor::{Out, Spec, Tensor};

/// A norm, and what it reads.
#[derive(Clone)]
pub(super) struct Steps<'a> {
    norm: PictureNorm,
    sizes: Sizes,
    x: &'a Tensor,
    g: Tensor,
    b: Tensor,
    /// (segments, 3, C): mean, 1/sqrt(var + eps), var.
    stats: Option<Tensor>,
}

impl PictureNorm {
    pub(super) fn sizes(&self, x: &[usize]) -> Sizes {
        Sizes::new(if let Statistics::Groups(groups) = self.statistics { Some(groups) } else { None }, x)
    }
}

impl<'a> Steps<'a> {
    /// A norm of inputs x, g and b, by statistics that are there already.
    pub fn with(norm: PictureNorm, x: &'a [Tensor], stats: Option<Tensor>) -> Steps<'a> {
        let [g, b] = [&x[1], &x[2]].map(|v| if let Device::Cpu(_) = v.device() { v.widened() } else { v.clone() });
        Steps { norm, sizes: norm.sizes(x[0].shape()), x: &x[0], g, b, stats }
    }

    /// A norm of inputs x, g, b and maybe mean and variance, by statistics that are computed. Results 1 and 2 of `y`, where
    /// there are any, get the new running ones.
    pub fn new(norm: PictureNorm, x: &'a [Tensor], y: &mut [Out]) -> Steps<'a> {
        let steps = Steps::with(norm, x, None);
        let stats = Out::new(x[0].device(), Spec::f32([steps.sizes.segments, 3, steps.sizes.c]));
        let stats = if norm.statistics == Statistics::Given { steps.given(x, stats) } else { steps.taken(x, y, stats) };
        Steps { stats: Some(stats), ..steps }
    }

    /// The same without gain, bias and what follows.
    pub fn plain(&self) -> Steps<'a> {
        let mut ones = Out::new(self.x.device(), Spec::f32([self.sizes.c]));
        match self.x.device() {
            Device::Cpu(host) => host.cpu.threads.each(chunks(ones.f32_mut(), CHUNK), |_, ones| ones.fill(1.0)),
            Device::Gpu(gpu) => fill(gpu, &ones, 1.0),
        }
        Steps { norm: PictureNorm { slope: 1.0, ..self.norm }, g: ones.freeze(), ..self.clone() }
    }

    /// The statistics.
    pub fn stats(&self) -> &Tensor {
        self.stats.as_ref().expect("given, or computed first")
    }

    /// The statistics from mean and variance, inputs 3 and 4.
    fn given(&self, x: &[Tensor], mut stats: Out) -> Tensor {
        let (c, eps) = (self.sizes.c, self.norm.eps);
        match self.x.device() {
            Device::Cpu(host) => {
                let (mean, var) = (x[3].widened(), x[4].widened());
                host.cpu.threads.each(chunks(stats.f32_mut(), 3 * c), |_, stats| {
                    stats[..c].copy_from_slice(mean.f32());
                    stats[2 * c..].copy_from_slice(var.f32());
                    for j in 0..c {
                        stats[c + j] = 1.0 / (stats[2 * c + j] + eps).sqrt();
                    }
                });
            }
            Device::Gpu(gpu) => {
                gpu.launch(kernels::norm_given(c), &[at(&x[3]), at(&x[4]), at(&stats), n(c), Arg::F32(eps)]);
            }
        }
        stats.freeze()
    }

    /// How far the running statistics move, and M/(M − 1).
    fn running(&self) -> Option<(f32, f32)> {
        let Statistics::Batch(momentum) = self.norm.statistics else { return None };
        Some((momentum, self.sizes.count() / (self.sizes.count() - 1.0).max(1.0)))
    }

    /// The statistics of x, and the new running ones.
    fn taken(&self, x: &[Tensor], y: &mut [Out], mut stats: Out) -> Tensor {
        let (sizes, eps) = (self.sizes, self.norm.eps);
        let Sizes { segments, rows, c, width } = sizes;
        match self.x.device() {
            Device::Cpu(host) => {
                let (cpu, values) = (&host.cpu, self.x.f32());
                let mut moments = cpu.scratch.take(segments * sizes.blocks() * 2 * c);
                cpu.threads.each(chunks(&mut moments, 2 * c), |i, moments| {
                    block_moments(cpu.simd, &values[sizes.block(i).1], moments);
                });
                let size = sizes.blocks() * 2 * c;
                cpu.threads.each(chunks(stats.f32_mut(), 3 * c), |segment, stats| {
                    fold_moments(cpu.simd, sizes, &moments[segment * size..][..size], eps, stats);
                });
                if let (Some((momentum, unbiased)), [_, mean, var]) = (self.running(), y) {
                    for (i, new) in [mean, var].into_iter().enumerate() {
                        let (old, now, scale) = (x[3 + i].f32(), stats.f32_mut(), if i == 0 { 1.0 } else { unbiased });
                        cpu.threads.each(chunks(new.f32_mut(), c), |_, new| {
                            for j in 0..c {
                                new[j] = (1.0 - momentum) * old[j] + momentum * scale * now[2 * i * c + j];
                            }
                        });
                    }
                }
            }
            Device::Gpu(gpu) => {
                let run = kernels::run_of_rows(rows);
                let (runs, groups) = (rows.div_ceil(run), segments * (c / width));
                let moments = Out::new(self.x.device(), Spec::f32([segments, runs, 2, c]));
                let args = [at(self.x), at(&moments), n(rows), n(c), n(run)];
                gpu.launch(kernels::norm_moments(float(self.x), [segments, runs], c), &args);
                let (momentum, unbiased) = self.running().unwrap_or((0.0, 0.0));
                let new = [1, 2].map(|i| maybe(y.get(i).map(|y| &**y)));
                // Nothing old where nothing new is wanted.
                let old = [3, 4].map(|i| maybe(x.get(i).filter(|_| y.len() > 1)));
                let pointers = [at(&moments), at(&stats), old[0], old[1], new[0], new[1]];
                let numbers = [n(groups), n(rows), n(c), n(width), n(run)];
                let floats = [eps, momentum, unbiased].map(Arg::F32);
                gpu.launch(kernels::norm_fold("norm_fold", groups), &[&pointers[..], &numbers, &floats].concat());
            }
        }
        stats.freeze()
    }

    /// Gain, bias and statistics by segment, on a CPU.
    fn channels<'b>(&'b self) -> impl Fn(usize) -> Channels<'b> {
        let (slope, g, b, stats, c) = (self.norm.slope, self.g.f32(), self.b.f32(), self.stats().f32(), self.sizes.c);
        move |segment| Channels { slope, g, b, stats: &stats[3 * segment * c..][..3 * c] }
    }

    /// The first arguments of most kernels.
    fn pointers(&self) -> [Arg; 4] {
        [at(self.x), at(&self.g), at(&self.b), at(self.stats())]
    }

    /// And numbers of those that go over all elements.
    fn numbers(&self) -> [Arg; 4] {
        [n(self.x.numel()), n(self.sizes.c), n(self.sizes.rows * self.sizes.c), Arg::F32(self.norm.slope)]
    }

    /// y = f(n g + b).
    pub fn apply(&self, y: &mut Out) {
        match self.x.device() {
            Device::Cpu(host) => {
                let (cpu, sizes, channels) = (&host.cpu, self.sizes, self.channels());
                let (x, part) = (self.x.f32(), sizes.part());
                cpu.threads.each(chunks(y.f32_mut(), part), |i, y| {
                    normalise(cpu.simd, channels(sizes.segment(i)), &x[i * part..][..y.len()], y);
                });
            }
            Device::Gpu(gpu) => {
                let plan = kernels::norm_each("norm_apply", float(y), y.numel(), self.sizes.c);
                gpu.launch(plan, &[&self.pointers()[..], &[at(y)], &self.numbers()].concat());
            }
        }
    }

    /// Σ d and Σ d·n of each channel, d = dy f′, over blocks of pixels.
    pub fn sums(&self, dy: &Tensor) -> [Tensor; 2] {
        let (sizes, device) = (self.sizes, dy.device());
        let room = |blocks: usize| [(); 2].map(|()| Out::new(device, Spec::f32([sizes.segments * blocks, sizes.c])));
        let partial = match device {
            Device::Cpu(host) => {
                let (cpu, channels, c) = (&host.cpu, self.channels(), sizes.c);
                let ([mut sums, mut products], x, dy) = (room(sizes.blocks()), self.x.f32(), dy.f32());
                cpu.threads.each((chunks(sums.f32_mut(), c), chunks(products.f32_mut(), c)), |i, (sums, products)| {
                    let (segment, range) = sizes.block(i);
                    block_sums(cpu.simd, channels(segment), &x[range.clone()], &dy[range], sums, products);
                });
                [sums, products]
            }
            Device::Gpu(gpu) => {
                let run = kernels::run_of_rows(sizes.rows);
                let runs = sizes.rows.div_ceil(run);
                let [sums, products] = room(runs);
                let numbers = [n(sizes.rows), n(sizes.c), n(run), Arg::F32(self.norm.slope)];
                let args = [&self.pointers()[..], &[at(dy), at(&sums), at(&products)], &numbers].concat();
                gpu.launch(kernels::norm_sums(float(dy), [sizes.segments, runs], sizes.c), &args);
                [sums, products]
            }
        };
        partial.map(Out::freeze)
    }

    /// Means of g·d and of g·d·n over what shares statistics (segments, 2, C), from sums; 0 where statistics were given.
    pub fn means(&self, [sums, products]: &[Tensor; 2]) -> Tensor {
        let Sizes { segments, c, width, .. } = self.sizes;
        let mut means = Out::new(sums.device(), Spec::f32([segments, 2, c]));
        let given = self.norm.statistics == Statistics::Given;
        match sums.device() {
            Device::Cpu(host) => {
                let (size, g) = (sums.numel() / segments, self.g.f32());
                let (sums, products, count) = (sums.f32(), products.f32(), self.sizes.count());
                host.cpu.threads.each(chunks(means.f32_mut(), 2 * c), |segment, means| {
                    let (of_d, of_dn) = means.split_at_mut(c);
                    for (mean, partial) in [(of_d, sums), (of_dn, products)] {
                        mean.fill(0.0);
                        let rows = partial[segment * size..][..size].chunks_exact(c);
                        rows.for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x));
                        mean.iter_mut().zip(g).for_each(|(mean, g)| *mean *= if given { 0.0 } else { *g });
                        share(mean, width, count);
                    }
                });
            }
            Device::Gpu(gpu) => {
                let groups = segments * (c / width);
                let scale = if given { 0.0 } else { 1.0 / self.sizes.count() };
                let pointers = [at(sums), at(products), at(&self.g), at(&means)];
                let runs = sums.numel() / (segments * c);
                let numbers = [n(groups), n(runs), n(c), n(width), Arg::F32(scale)];
                gpu.launch(kernels::norm_fold("norm_means", groups), &[&pointers[..], &numbers].concat());
            }
        }
        means.freeze()
    }

    /// `dx = beta dx + (g·d − mean(g·d) − n·mean(g·d·n)) / sqrt(var + eps)`, with `means` of the two.
    pub fn back(&self, dy: &Tensor, means: &Tensor, beta: f32, dx: &mut Out) {
        match dy.device() {
            Device::Cpu(host) => {
                let (cpu, sizes, channels) = (&host.cpu, self.sizes, self.channels());
                let (x, dy, means, part, c) = (self.x.f32(), dy.f32(), means.f32(), sizes.part(), sizes.c);
                cpu.threads.each(chunks(dx.f32_mut(), part), |i, dx| {
                    let (segment, range) = (sizes.segment(i), i * part..i * part + dx.len());
                    let means = &means[2 * segment * c..][..2 * c];
                    backward_rows(cpu.simd, channels(segment), means, beta, dx, &x[range.clone()], &dy[range]);
                });
            }
            Device::Gpu(gpu) => {
                let plan = kernels::norm_each("norm_back", float(dx), dx.numel(), self.sizes.c);
                let more = [at(dy), at(means), at(dx)];
                let args = [&self.pointers()[..], &more, &self.numbers(), &[flag(beta != 0.0)]].concat();
                gpu.launch(plan, &args);
            }
        }
    }

    /// `y = g f′ t`.
    pub fn gain(&self, t: &Tensor, y: &mut Out) {
        match t.device() {
            Device::Cpu(host) => {
                let (cpu, sizes, channels) = (&host.cpu, self.sizes, self.channels());
                let (x, t, part) = (self.x.f32(), t.f32(), sizes.part());
                cpu.threads.each(chunks(y.f32_mut(), part), |i, y| {
                    let range = i * part..i * part + y.len();
                    gain_rows(cpu.simd, channels(sizes.segment(i)), &x[range.clone()], &t[range], y);
                });
            }
            Device::Gpu(gpu) => {
                let plan = kernels::norm_each("norm_gain", float(y), y.numel(), self.sizes.c);
                gpu.launch(plan, &[&self.pointers()[..], &[at(t), at(y)], &self.numbers()].concat());
            }
        }
    }

    /// `dx = beta dx − (q u + P t + S n) / sqrt(var + eps)`: q and P are the second of the means `of_a` and `of_p`, S the
    /// first of `of_t`.
    pub fn second(&self, [t, u]: [&Tensor; 2], means: [&Tensor; 3], beta: f32, dx: &mut Out) {
        match t.device() {
            Device::Cpu(host) => {
                let (cpu, sizes, channels) = (&host.cpu, self.sizes, self.channels());
                let (x, t, u, part, c) = (self.x.f32(), t.f32(), u.f32(), sizes.part(), sizes.c);
                cpu.threads.each(chunks(dx.f32_mut(), part), |i, dx| {
                    let (segment, range) = (sizes.segment(i), i * part..i * part + dx.len());
                    let [of_a, of_p, of_t] = means.map(|means| &means.f32()[2 * segment * c..][..2 * c]);
                    let second = Second { t: &t[range.clone()], u: &u[range.clone()], of_a, of_p, of_t };
                    second_rows(cpu.simd, channels(segment), second, beta, dx, &x[range]);
                });
            }
            Device::Gpu(gpu) => {
                let plan = kernels::norm_each("norm_second", float(dx), dx.numel(), self.sizes.c);
                let more = [at(t), at(u), at(means[0]), at(means[1]), at(means[2]), at(dx)];
                let args =
                    [&[at(self.x), at(self.stats())][..], &more, &self.numbers()[..3], &[flag(beta != 0.0)]].concat();
                gpu.launch(plan, &args);
            }
        }
    }
}

/// `y = beta y + ` the sum of `partial` over blocks: the gradient of a gain or a bias.
pub(super) fn total(partial: &Tensor, beta: f32, y: &mut Out) {
    match partial.device() {
        Device::Cpu(host) => reduce::sum_blocks(&host.cpu, beta, y.f32_mut(), partial.f32()),
        Device::Gpu(gpu) => crate::launch::sum_blocks(gpu, beta, y, partial),
    }
}
