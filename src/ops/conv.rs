//! Convolutions and transposed convolutions of pictures, with bias and activation: `y = f(conv(x, W) + b)`.
//!
//! ```text
//! conv2d             y[n, i, j, o] = Σ_{ky, kx, c} x[n, i·s + ky − p, j·s + kx − p, c] · W[o, ky, kx, c] + b[o]
//! conv_transpose2d   y[n, i·s + ky − p, j·s + kx − p, c] += x[n, i, j, o] · W[o, ky, kx, c],  + b[c]
//! ```
//! with stride s and padding p. conv2d: x (N, H, W, C), W (O, kh, kw, C), y (N, H', W', O), H' = ⌊(H + 2p − kh) / s⌋ + 1;
//! PyTorch keeps W as (O, C, kh, kw). conv_transpose2d: x (N, h, w, O), W (O, kh, kw, C) with O channels in and C out, y
//! (N, H, W, C), H = (h − 1)·s − 2p + kh + output padding; PyTorch keeps W as (O, C, kh, kw). So a weight is always that of
//! the convolution from the large picture to the small one, and three kernels do for both: see [`conv`](crate::cpu::conv).
//!
//! Backward, with dz = dy ∘ f′(z): dx of a convolution is the transposed convolution of dz with W, and the other way round;
//! dW is the same for both, db = Σ dz over pictures and pixels. The forward pass keeps z where f′ is not computed from y.
//!
//! In [`Precision::Bf16`] each product rounds both of its operands to bf16, dz too; all else is f32.
//!
//! Sources: Dumoulin, Visin 2016, "A guide to convolution arithmetic for deep learning" (arXiv 1603.07285).

use super::activation::Activation;
use super::fused::Fused;
use super::linear::finisher;
use super::{Case, Fill, Input};
use crate::cpu::conv::{Sizes, Target, gather, spread, weigh};
use crate::cpu::gemm::Precision;
use crate::cpu::linear::column_sums;
use crate::device::Gpu;
use crate::device::kernels::{self, Float};
use crate::launch::{self, aligned, at, float, maybe, n};
use crate::device::Arg;
use crate::tape::{Array64, Dx, Need, Op, Reads, Specs, Var};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;

/// Which convolution, and its steps, the same along rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Whether the convolution is transposed: a small picture to a large one.
    pub transposed: bool,
    /// Pixels of the large picture for one of the small, at least 1.
    pub stride: usize,
    /// Zeros around the large picture.
    pub padding: usize,
    /// Rows and columns more of the large picture than the small one says, below the stride; of transposed convolutions.
    pub output_padding: usize,
}

impl Window {
    /// A convolution.
    pub fn conv(stride: usize, padding: usize) -> Window {
        Window { transposed: false, stride, padding, output_padding: 0 }
    }

    /// A transposed convolution.
    pub fn transposed(stride: usize, padding: usize, output_padding: usize) -> Window {
        Window { transposed: true, stride, padding, output_padding }
    }

    /// The length of an axis of the result for one of the input, where there is any.
    pub fn result(&self, input: usize, kernel: usize) -> Option<usize> {
        let Window { stride, padding, .. } = *self;
        let padded = match self.transposed {
            true => (input.checked_sub(1)? * stride + kernel + self.output_padding).checked_sub(2 * padding)?,
            false => (input + 2 * padding).checked_sub(kernel)? / stride + 1,
        };
        (padded > 0).then_some(padded)
    }
}

/// Inputs: x, W, then b if `bias`. Result: y.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Which, and its steps.
    pub window: Window,
    /// Whether a bias is added.
    pub bias: bool,
    /// What is applied last, of [those](Activation::FUSED) that can be.
    pub activation: Option<Activation>,
    /// What the products' operands are rounded to.
    pub precision: Precision,
}

impl Conv {
    fn fused(&self) -> Fused {
        Fused(self.activation)
    }

    fn sizes(&self, x: &Shape, w: &Shape, y: &Shape) -> Sizes {
        let (large, small) = if self.window.transposed { (y, x) } else { (x, y) };
        Sizes {
            n: x[0],
            large: [large[1], large[2], large[3]],
            small: [small[1], small[2], small[3]],
            kernel: [w[1], w[2]],
            stride: self.window.stride,
            padding: self.window.padding,
        }
    }
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        if self.window.transposed { "conv_transpose2d" } else { "conv2d" }
    }

    fn outputs(&self, x: &[Spec]) -> Specs {
        let (name, window) = (self.name(), self.window);
        assert_eq!(x.len(), 2 + usize::from(self.bias), "{name}: the number of inputs");
        let (image, w) = (x[0].shape, x[1].shape);
        assert!(image.len() == 4 && w.len() == 4, "{name}: x is {image:?}, W is {w:?}");
        assert!(window.stride > 0 && (window.output_padding < window.stride.max(1)), "{name}: {window:?}");
        let [inner, channels] = if window.transposed { [w[0], w[3]] } else { [w[3], w[0]] };
        assert_eq!(image[3], inner, "{name}: x is {image:?}, W is {w:?}");
        assert!(!self.bias || x[2].shape[..] == [channels], "{name}: the bias's shape");
        let axis = |i: usize| match window.result(image[i], w[i]) {
            Some(length) => length,
            None => panic!("{name}: x {image:?}, W {w:?} and {window:?} leave no pixels"),
        };
        Specs::from_iter([Spec { shape: Shape::new(&[image[0], axis(1), axis(2), channels]), ..x[0] }])
    }

    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let (cpu, sizes) = (x[0].cpu(), self.sizes(x[0].shape(), x[1].shape(), y[0].shape()));
        let (weight, bias) = (x[1].widened(), self.bias.then(|| x[2].widened()));
        let bias = bias.as_ref().map_or(&[][..], Tensor::f32);
        let mut z = self.fused().room(&y[0], need);
        let side = z.as_mut().map_or(&mut [][..], |z| z.f32_mut());
        let last = finisher(self.activation);
        let finish = |bias: &[f32], y: &mut [f32], z: &mut [f32]| last(cpu.simd, y, bias, z);
        let finish = (self.bias || self.activation.is_some()).then_some(&finish as _);
        let product = if self.window.transposed { spread } else { gather };
        let target = Target { y: y[0].f32_mut(), add: false, bias, side, finish };
        product(cpu, self.precision, &sizes, [x[0].f32(), weight.f32()], target);
        Fused::saved(z)
    }

    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx) {
        let dz = self.fused().pull_back(y, saved, dy);
        let (cpu, sizes) = (x[0].cpu(), self.sizes(x[0].shape(), x[1].shape(), dz.shape()));
        if dx.wants(0) {
            let (mut out, weight) = (dx.out(0), x[1].widened());
            let add = out.beta != 0.0;
            let product = if self.window.transposed { gather } else { spread };
            product(cpu, self.precision, &sizes, [dz.f32(), weight.f32()], Target::plain(out.f32_mut(), add));
        }
        if dx.wants(1) {
            let mut out = dx.out(1);
            let add = out.beta != 0.0;
            let [small, large] = if self.window.transposed { [&x[0], &dz] } else { [&dz, &x[0]] };
            weigh(cpu, self.precision, &sizes, [small.f32(), large.f32()], out.f32_mut(), add);
        }
        if self.bias && dx.wants(2) {
            let mut out = dx.out(2);
            let beta = out.beta;
            column_sums(cpu, beta, out.f32_mut(), dz.f32());
        }
    }

    fn launch_forward(&self, gpu: &Gpu, x: &[Tensor], y: &mut [Out], need: &mut [Need]) -> Tensors {
        let sizes = self.sizes(x[0].shape(), x[1].shape(), y[0].shape());
        let z = self.fused().room(&y[0], need);
        let (bias, f) = (self.bias.then(|| &x[2]), self.activation.map_or("none", |f| f.name()));
        let epilogue = [maybe(bias), Arg::U64(0), maybe(z.as_deref())];
        launch_product(gpu, self.window.transposed, &sizes, [&x[0], &x[1], &y[0]], epilogue, f);
        Fused::saved(z)
    }

    fn launch_backward(
        &self,
        gpu: &Gpu,
        x: &[Tensor],
        y: &[Tensor],
        saved: &[Tensor],
        dy: &[Option<Tensor>],
        dx: &mut Dx,
    ) {
        let dz = self.fused().pull_back(y, saved, dy);
        let sizes = self.sizes(x[0].shape(), x[1].shape(), dz.shape());
        if dx.wants(0) {
            let out = dx.out(0);
            let added = if out.beta != 0.0 { at(&out) } else { Arg::U64(0) };
            let epilogue = [Arg::U64(0), added, Arg::U64(0)];
            launch_product(gpu, !self.window.transposed, &sizes, [&dz, &x[1], &out], epilogue, "none");
        }
        if dx.wants(1) {
            let out = dx.out(1);
            let [small, large] = if self.window.transposed { [&x[0], &dz] } else { [&dz, &x[0]] };
            launch_weigh(gpu, &sizes, small, large, &out, out.beta);
        }
        if self.bias && dx.wants(2) {
            let out = dx.out(2);
            launch::column_sums(gpu, out.beta, &out, &dz);
        }
    }

    fn reads(&self) -> Reads {
        self.fused().reads(0b11)
    }

    fn again(&self, _i: usize, _x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.fused().again(saved, out);
    }

    fn launch_again(&self, _gpu: &Gpu, _i: usize, _x: &[Tensor], _y: &[Tensor], saved: &[Tensor], out: &mut Out) {
        self.fused().again(saved, out);
    }

    fn jvp<'t>(&self, x: &[Var<'t>], y: Var<'t>, dx: &[Option<Var<'t>>]) -> Option<Var<'t>> {
        let dx = Fused::of_first(dx)?;
        let plain = Conv { activation: None, ..*self };
        let dz = dx.tape().apply(Conv { bias: false, ..plain }, &[dx, x[1]]);
        Some(self.fused().tangent(y, dz, || dx.tape().apply(plain, x)))
    }

    fn reference(&self, x: &[Array64]) -> Vec<Array64> {
        let specs: Vec<Spec> = x.iter().map(|x| Spec::f32(x.shape)).collect();
        let shape = self.outputs(&specs)[0].shape;
        let Sizes { n, large: [h, w, c], small: [small_h, small_w, o], kernel: [kh, kw], stride, padding } =
            self.sizes(&x[0].shape, &x[1].shape, &shape);
        let mut z = Array64::from_fn(shape, |i| if self.bias { x[2].data[i % shape[3]] } else { 0.0 });
        let pixels = small_h * small_w;
        for (n, i, j) in (0..n * pixels).map(|m| (m / pixels, m / small_w % small_h, m % small_w)) {
            for (ky, kx) in (0..kh * kw).map(|tap| (tap / kw, tap % kw)) {
                let (y, x_) = (i * stride + ky, j * stride + kx);
                if !(padding..h + padding).contains(&y) || !(padding..w + padding).contains(&x_) {
                    continue;
                }
                let large = ((n * h + y - padding) * w + x_ - padding) * c;
                let small = ((n * small_h + i) * small_w + j) * o;
                for o in 0..o {
                    let weight = &x[1].data[((o * kh + ky) * kw + kx) * c..][..c];
                    match self.window.transposed {
                        true => {
                            let x = x[0].data[small + o];
                            z.data[large..large + c].iter_mut().zip(weight).for_each(|(z, w)| *z += x * w);
                        }
                        false => {
                            let patch = x[0].data[large..large + c].iter().zip(weight);
                            z.data[small + o] += patch.map(|(x, w)| x * w).sum::<f64>();
                        }
                    }
                }
            }
        }
        if let Some(f) = self.activation {
            z.data.iter_mut().for_each(|z| *z = f.exact(*z));
        }
        vec![z]
    }
}

/// The sizes as arguments of kernels.
fn numbers(sizes: &Sizes) -> [Arg; 11] {
    let Sizes { n: pictures, large: [h, w, c], small: [small_h, small_w, o], kernel: [kh, kw], stride, padding } = *sizes;
    [pictures, h, w, c, small_h, small_w, o, kh, kw, stride, padding].map(n)
}

/// C and O, for kernels that read `tensors`.
fn channels(sizes: &Sizes, tensors: &[&Tensor]) -> [usize; 2] {
    if aligned(tensors) { [sizes.large[2], sizes.small[2]] } else { [1; 2] }
}

/// `conv_spread` or `conv_gather` of x and W to y, with the addresses of bias, of what is added, and of z.
fn launch_product(
    gpu: &Gpu,
    spread: bool,
    sizes: &Sizes,
    tensors: [&Tensor; 3],
    epilogue: [Arg; 3],
    f: &'static str,
) {
    let Sizes { n: pictures, large: [h, w, c], small: [small_h, small_w, o], stride, .. } = *sizes;
    let (entry, blocks) = match spread {
        true => {
            let largest = pictures * h.div_ceil(stride) * w.div_ceil(stride);
            ("conv_spread", [largest, c, stride * stride])
        }
        false => ("conv_gather", [pictures * small_h * small_w, o, 1]),
    };
    let plan = kernels::conv(entry, float(tensors[0]), f, channels(sizes, &tensors), blocks);
    let args: ArrayVec<Arg, 17> = tensors.map(at).into_iter().chain(epilogue).chain(numbers(sizes)).collect();
    gpu.launch(plan, &args);
}

/// The gradient of the weights: runs of pixels, then the runs in order.
fn launch_weigh(gpu: &Gpu, sizes: &Sizes, small: &Tensor, large: &Tensor, dw: &Tensor, beta: f32) {
    let (o, k) = (sizes.small[2], dw.numel() / sizes.small[2]);
    let pixels = small.numel() / o;
    let run = kernels::run_of_pixels(pixels, o, k);
    let partial = Out::new(small.device(), Spec::f32([pixels.div_ceil(run), o * k]));
    let blocks = [o, k, pixels.div_ceil(run)];
    let plan = kernels::conv("conv_weigh", float(small), "none", channels(sizes, &[small, large]), blocks);
    let first = [at(small), at(large), at(&partial), n(run)];
    let args: ArrayVec<Arg, 15> = first.into_iter().chain(numbers(sizes)).collect();
    gpu.launch(plan, &args);
    if float(dw) == Float::F32 {
        return launch::sum_blocks(gpu, beta, dw, &partial);
    }
    // Weights that are no parameters have gradients of their own type.
    let sum = Out::new(dw.device(), Spec::f32(*dw.shape()));
    launch::sum_blocks(gpu, 0.0, &sum, &partial);
    launch::add_cast(gpu, beta, dw, &sum);
}

impl<'t> Var<'t> {
    /// `f(conv(self, w) + b)`, transposed or not as `window` says; shapes as in [`conv`](self).
    pub fn conv(self, window: Window, w: Var<'t>, b: Option<Var<'t>>, activation: Option<Activation>) -> Var<'t> {
        let (fused, apart) = Activation::split(activation);
        let op = Conv { window, bias: b.is_some(), activation: fused, precision: self.tape().pass().precision };
        let y = match b {
            Some(b) => self.tape().apply(op, &[self, w, b]),
            None => self.tape().apply(op, &[self, w]),
        };
        apart.map_or(y, |f| y.activate(f))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let op = |window, bias, activation| Conv { window, bias, activation, precision: Precision::F32 };
    // x (N, H, W, channels in), kernel and channels out.
    let inputs = |op: &Conv, x: [usize; 4], [kh, kw, out]: [usize; 3]| {
        let (shape, scale) = match op.window.transposed {
            true => ([x[3], kh, kw, out], 1.0 / (x[3] * kh * kw) as f32 * (op.window.stride * op.window.stride) as f32),
            false => ([out, kh, kw, x[3]], 1.0 / (x[3] * kh * kw) as f32),
        };
        let weight = Input { fill: Fill::Normal(0.0, scale.sqrt()), ..Input::normal(shape).param() };
        let mut inputs = vec![Input::normal(x), weight];
        inputs.extend(op.bias.then(|| Input::normal([out]).param()));
        inputs
    };
    let mut cases = Vec::new();
    let conv = |stride, padding| Window::conv(stride, padding);
    let back = |stride, padding, more| Window::transposed(stride, padding, more);
    type Row = (Window, [usize; 4], [usize; 3]);
    let shapes: [Row; 18] = [
        // 4 x 4 by 2, as in DCGAN and small VAEs; from one channel and to one.
        (conv(2, 1), [2, 8, 8, 1], [4, 4, 8]),
        (conv(2, 1), [1, 6, 6, 8], [4, 4, 16]),
        (back(2, 1, 0), [1, 3, 3, 16], [4, 4, 8]),
        (back(2, 1, 0), [2, 4, 4, 8], [4, 4, 1]),
        (back(2, 1, 0), [1, 3, 4, 5], [4, 4, 20]),
        // A picture from a vector, and back.
        (back(1, 0, 0), [3, 1, 1, 6], [4, 4, 9]),
        (conv(1, 0), [3, 4, 4, 6], [4, 4, 1]),
        // 3 x 3.
        (conv(1, 1), [2, 5, 4, 3], [3, 3, 5]),
        (back(1, 1, 0), [1, 5, 4, 8], [3, 3, 17]),
        (back(2, 1, 1), [1, 3, 4, 4], [3, 3, 18]),
        (conv(2, 0), [1, 7, 8, 2], [3, 3, 3]),
        // 1 x 1; a stride beyond the kernel, whose phases are empty; wide padding; other than square.
        (conv(1, 0), [2, 3, 3, 8], [1, 1, 8]),
        (back(3, 0, 2), [1, 2, 3, 4], [2, 2, 17]),
        (conv(3, 0), [1, 8, 7, 17], [2, 2, 4]),
        (conv(2, 3), [1, 5, 6, 2], [3, 2, 3]),
        (back(2, 2, 1), [1, 5, 4, 3], [3, 5, 2]),
        (back(3, 1, 1), [1, 4, 3, 3], [5, 4, 19]),
        // Deep enough for several steps of a tile.
        (conv(1, 2), [1, 5, 4, 24], [5, 5, 8]),
    ];
    for (window, x, kernel) in shapes {
        let op = op(window, true, None);
        let Window { stride, padding, output_padding, .. } = window;
        let name = format!("{} {x:?} by {kernel:?}, s{stride} p{padding}+{output_padding}", op.name());
        cases.push(Case::check(name, op, inputs(&op, x, kernel)));
    }
    for activation in Activation::FUSED {
        let op = op(conv(2, 1), true, Some(activation));
        cases.push(Case::check(format!("conv2d {activation:?}"), op, inputs(&op, [1, 4, 4, 8], [4, 4, 8])));
        let op = Conv { window: back(2, 1, 0), bias: false, ..op };
        cases.push(Case::check(format!("conv_transpose2d {activation:?}"), op, inputs(&op, [1, 2, 2, 8], [4, 4, 8])));
        let op = Conv { bias: true, ..op };
        cases.push(Case::check(format!("conv_transpose2d {activation:?}, 1"), op, inputs(&op, [1, 2, 2, 8], [4, 4, 1])));
    }
    let half = |op: Conv| Conv { precision: Precision::Bf16, ..op };
    for (window, x, kernel) in [shapes[0], shapes[1], shapes[3], shapes[4], shapes[7], shapes[17]] {
        let op = half(op(window, true, None));
        let mut inputs = inputs(&op, x, kernel);
        inputs[..2].iter_mut().for_each(|input| input.rounded = true);
        cases.push(Case::check(format!("bf16 {} {x:?} by {kernel:?}", op.name()), op, inputs));
    }
    // The layers of a small convolutional VAE and of DCGAN on 28 x 28 pictures.
    for (window, x, kernel) in [
        (conv(2, 1), [128, 28, 28, 1], [4, 4, 32]),
        (conv(2, 1), [128, 14, 14, 32], [4, 4, 64]),
        (conv(2, 1), [128, 14, 14, 64], [4, 4, 128]),
        (back(2, 1, 0), [128, 7, 7, 64], [4, 4, 32]),
        (back(2, 1, 0), [128, 7, 7, 128], [4, 4, 64]),
        (back(2, 1, 0), [128, 14, 14, 32], [4, 4, 1]),
        (back(1, 0, 0), [128, 1, 1, 100], [7, 7, 128]),
        (conv(1, 1), [128, 14, 14, 64], [3, 3, 64]),
    ] {
        let op = op(window, true, None);
        let (Window { stride, padding, .. }, [_, h, w, c], [kh, kw, out]) = (window, x, kernel);
        let name = format!("{} {h}x{w}x{c} to {out}, {kh}x{kw} s{stride} p{padding}", op.name());
        cases.push(Case::bench(name, op, inputs(&op, x, kernel)));
    }
    cases
}
