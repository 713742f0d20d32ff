//! Convolutions as layers, and what they compute and what not.

use kiln::cpu::conv::{self, Sizes, Target};
use kiln::cpu::gemm::Precision;
use kiln::cpu::{Cpu, Simd};
use kiln::device::Device;
use kiln::nn::{Builder, Conv, Start};
use kiln::ops::activation::Activation;
use kiln::ops::conv::Window;
use kiln::params::{Hold, Params};
use kiln::tape::Tape;
use kiln::tensor::Tensor;

/// Halves a picture twice and brings it back, as autoencoders do.
fn layers(p: &mut Builder, start: Start) -> [Conv; 4] {
    let (down, up) = (Window::conv(2, 1), Window::transposed(2, 1, 0));
    [
        Conv::new(p, "down.0", down, [1, 4], 4, true, start),
        Conv::new(p, "down.1", down, [4, 16], 4, true, start),
        Conv::new(p, "up.0", up, [16, 4], 4, true, start),
        Conv::new(p, "up.1", up, [4, 1], 4, true, start),
    ]
}

#[test]
fn layers_bring_a_picture_back_to_its_size_and_learn() {
    let device = Device::cpu(2).expect("a CPU");
    let mut builder = Builder::default();
    let layers = layers(&mut builder, Start::Uniform);
    let mut params = Params::new(&device, &builder.finish(), 3);
    let mut tape = Tape::new(&device);
    tape.begin(&params, Default::default());
    let picture: Vec<f32> = (0..2 * 28 * 28).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = tape.constant(Tensor::from_slice(&device, &picture, [2, 28, 28, 1]));
    let mut shapes = Vec::new();
    let y = layers.iter().fold(x, |x, layer| {
        let y = layer.apply(x, Some(Activation::Silu));
        shapes.push(y.shape()[1..].to_vec());
        y
    });
    assert_eq!(shapes, [[14, 14, 4], [7, 7, 16], [14, 14, 4], [28, 28, 1]]);
    y.sum().backward(&mut params, true);
    for id in params.ids() {
        assert!(params.grad(id).expect("a gradient").f32().iter().any(|g| *g != 0.0));
    }
}

#[test]
fn layers_start_as_pytorchs_or_dcgans() {
    let device = Device::cpu(1).expect("a CPU");
    let start = |start: Start| {
        let mut builder = Builder::default();
        layers(&mut builder, start);
        let params = Params::new(&device, &builder.finish(), 3);
        let values = |name: &str| params.weight(params.find(name).expect("a parameter")).f32().to_vec();
        [values("down.1.weight"), values("down.1.bias"), values("up.0.weight")]
    };
    // 4 x 4 pixels of 4 channels, on the side of the large picture, each way.
    let bound = 1.0 / 64f32.sqrt();
    for values in start(Start::Uniform) {
        let most = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!((0.8 * bound..=bound).contains(&most), "{most} of {bound}");
        assert!(values.iter().any(|x| *x < 0.0) && values.iter().any(|x| *x > 0.0));
    }
    let [weight, bias, _] = start(Start::Normal(0.02));
    let deviation = (weight.iter().map(|x| x * x).sum::<f32>() / weight.len() as f32).sqrt();
    assert!((0.018..0.022).contains(&deviation) && bias.iter().all(|x| *x == 0.0), "{deviation}");
}

/// Multiplications and additions of x (2, 7, 7, 64) to (2, 14, 14, 32) and back, as the products count them.
#[test]
fn no_product_with_an_inserted_zero_is_done_and_none_that_nobody_wants() {
    let device = Device::cpu(2).expect("a CPU");
    let count = |frozen: bool| {
        let mut builder = Builder::default();
        let up = Conv::new(&mut builder, "up", Window::transposed(2, 1, 0), [64, 32], 4, true, Start::Uniform);
        let hold = if frozen { Hold::Frozen } else { Hold::Train };
        let mut params = Params::with(&device, &builder.finish(), 3, |_| hold);
        let mut tape = Tape::new(&device);
        tape.begin(&params, Default::default());
        let x = tape.variable(Tensor::from_slice(&device, &[0.5f32; 2 * 49 * 64], [2, 7, 7, 64]));
        let flops = || device.host().flops();
        let before = flops();
        let y = up.apply(x, None);
        let forward = flops() - before;
        y.sum().backward(&mut params, true);
        [forward, flops() - before - forward]
    };
    let products = 2 * (2 * 49) * 64 * 16 * 32;
    assert_eq!(count(false), [products, 2 * products]);
    assert_eq!(count(true), [products, products]);
}

#[test]
fn windows_say_how_large_results_are() {
    assert_eq!(Window::conv(2, 1).result(28, 4), Some(14));
    assert_eq!(Window::conv(3, 0).result(8, 2), Some(3));
    assert_eq!(Window::conv(1, 0).result(3, 4), None);
    assert_eq!(Window::transposed(2, 1, 1).result(3, 3), Some(6));
    assert_eq!(Window::transposed(1, 0, 0).result(1, 7), Some(7));
    assert_eq!(Window::transposed(1, 2, 0).result(1, 4), None);
}

/// N, (H, W, C), (O, kh, kw), stride and padding.
type Row = (usize, [usize; 3], [usize; 3], [usize; 2]);
/// So large that pictures are worked on in several parts.
const LARGE: [Row; 5] = [
    (9, [20, 20, 16], [8, 4, 4], [2, 1]),
    (41, [20, 20, 1], [7, 4, 4], [2, 1]),
    (1, [72, 60, 20], [3, 3, 3], [1, 1]),
    (1, [140, 75, 3], [5, 5, 4], [3, 2]),
    (1, [48, 48, 12], [17, 2, 3], [1, 0]),
];

/// The chain of multiply-adds of each element, over what `terms` names: result, factor, factor.
fn chains(len: usize, start: f32, terms: impl Iterator<Item = (usize, f32, f32)>) -> Vec<f32> {
    let mut y = vec![start; len];
    terms.for_each(|(i, a, b)| y[i] = a.mul_add(b, y[i]));
    y
}

#[test]
fn convolutions_of_many_and_of_large_pictures_are_chains_in_the_order_of_their_weights_and_pixels() {
    for (n, large, [o, kh, kw], [stride, padding]) in LARGE {
        let [h, w, c] = large;
        let side = |length: usize, kernel: usize| (length + 2 * padding - kernel) / stride + 1;
        let (sh, sw, k) = (side(h, kh), side(w, kw), kh * kw * c);
        let sizes = Sizes { n, large, small: [sh, sw, o], kernel: [kh, kw], stride, padding };
        let numbers =
            |seed: usize, len: usize| (0..len).map(|i| ((i + 7) as f32 * (seed as f32 + 0.61)).sin()).collect();
        let x: Vec<f32> = numbers(1, n * h * w * c);
        let (weight, dy): (Vec<f32>, Vec<f32>) = (numbers(2, o * k), numbers(3, n * sh * sw * o));
        // Element (ky, kx, c) of the patch that pixel m of the small pictures sees; 0 outside.
        let patch = |m: usize, l: usize| {
            let (y, x_) = (m / sw % sh * stride + l / (kw * c), m % sw * stride + l / c % kw);
            let inside = (padding..h + padding).contains(&y) && (padding..w + padding).contains(&x_);
            if inside { x[((m / (sh * sw) * h + y - padding) * w + x_ - padding) * c + l % c] } else { 0.0 }
        };
        let small = (0..n * sh * sw).flat_map(|m| (0..k).flat_map(move |l| (0..o).map(move |o| (m, l, o))));
        let gathered =
            chains(dy.len(), 0.0, small.clone().map(|(m, l, i)| (m * o + i, patch(m, l), weight[i * k + l])));
        let weighed = [0.0, 1.0]
            .map(|start| chains(o * k, start, small.clone().map(|(m, l, i)| (i * k + l, dy[m * o + i], patch(m, l)))));
        let mut spread_first = Vec::new();
        for simd in Simd::available() {
            for threads in [1, 2] {
                let (cpu, about) = (Cpu::with(simd, threads), format!("{sizes:?} {} {threads}", simd.name()));
                let mut y = vec![f32::NAN; dy.len()];
                conv::gather(&cpu, Precision::F32, &sizes, [&x, &weight], Target::plain(&mut y, false));
                assert!(y == gathered, "gather {about}");
                for (weighed, add) in weighed.iter().zip([false, true]) {
                    let mut dw = vec![if add { 1.0 } else { f32::NAN }; o * k];
                    conv::weigh(&cpu, Precision::F32, &sizes, [&dy, &x], &mut dw, add);
                    assert!(dw == *weighed, "weigh {about}, {add}");
                }
                let mut dx = vec![f32::NAN; x.len()];
                conv::spread(&cpu, Precision::F32, &sizes, [&dy, &weight], Target::plain(&mut dx, false));
                if spread_first.is_empty() {
                    let sum = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
                    // What is spread has the same product with x as the gradient with what x is gathered to.
                    let (one, other) = (sum(&dx, &x), sum(&dy, &gathered));
                    assert!((one - other).abs() < 1e-3 * sum(&dy, &dy).sqrt(), "spread {about}: {one} {other}");
                    spread_first = dx.clone();
                }
                assert!(dx == spread_first, "spread {about}");
            }
        }
    }
}
