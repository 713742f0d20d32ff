//! Convolutions as layers, and what they compute and what not.

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
