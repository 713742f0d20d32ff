//! Penalties on the gradients of discriminators against PyTorch's `create_graph` in float64: values, and the gradient of
//! every parameter. The numbers were made by `tests/reference/penalty.py`.

use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::nn::penalty::{gradient_penalty, r1};
use kiln::nn::{BatchNorm, Builder, Conv, GroupNorm, Linear, Start};
use kiln::ops::activation::Activation;
use kiln::ops::conv::Window;
use kiln::params::Params;
use kiln::tape::{Pass, Tape, Var};
use kiln::tensor::{Shape, Tensor};
use safetensors::SafeTensors;

/// A tensor of the fixture.
fn read(key: &str) -> (Shape, Vec<f64>) {
    let file = SafeTensors::deserialize(include_bytes!("../fixtures/penalty.safetensors")).expect("a safetensors file");
    let view = file.tensor(key).unwrap_or_else(|_| panic!("the fixture has no {key}"));
    let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    (Shape::new(view.shape()), view.data().chunks_exact(8).map(number).collect())
}

fn f32s(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// Asserts max |got − want| ≤ relative · max |want| + 10⁻⁶.
fn close(what: &str, got: &[f32], want: &[f64], relative: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let max = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let error = got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((f64::from(*g) - w).abs()));
    assert!(error <= relative * max + 1e-6, "{what}: off by {error:e}, the largest value is {max:e}");
}

/// (N, 8, 8, 2) to (N): two convolutions of 4 × 4 by 2, and a linear layer.
struct Discriminator {
    kind: &'static str,
    convs: [Conv; 2],
    norm: Norm,
    head: Linear,
}

/// What comes after the second convolution.
enum Norm {
    None,
    Group(GroupNorm),
    Batch(BatchNorm),
}

impl Discriminator {
    fn new(p: &mut Builder, kind: &'static str) -> Discriminator {
        let conv = |p: &mut Builder, name, channels| {
            Conv::new(p, name, Window::conv(2, 1), channels, 4, true, Start::Normal(0.1))
        };
        let convs = [conv(p, "0", [2, 4]), conv(p, "1", [4, 6])];
        let head = Linear::new(p, "head", [24, 1], true, Start::Normal(0.1));
        let norm = match kind {
            "group" => Norm::Group(GroupNorm::new(p, "norm", 2, 6)),
            "batch" => Norm::Batch(BatchNorm::new(p, "norm", 6, 0.0)),
            _ => Norm::None,
        };
        match kind {
            "spectral" => {
                Discriminator { kind, convs: convs.map(|conv| conv.spectral(p)), norm, head: head.spectral(p) }
            }
            _ => Discriminator { kind, convs, norm, head },
        }
    }

    fn apply<'t>(&self, x: Var<'t>) -> Var<'t> {
        let leaky = Activation::LeakyRelu(0.2);
        let [first, second] = match self.kind {
            "smooth" => [Activation::Tanh, Activation::Softplus],
            "fused" => [Activation::Silu, Activation::Sigmoid],
            "relu" => [Activation::Relu, leaky],
            _ => [leaky; 2],
        };
        let x = self.convs[0].apply(x, Some(first));
        let x = match &self.norm {
            Norm::None => self.convs[1].apply(x, Some(second)),
            Norm::Group(norm) => norm.apply(self.convs[1].apply(x, None), 0.2),
            Norm::Batch(norm) => norm.apply(self.convs[1].apply(x, None), 0.2),
        };
        self.head.apply(x.flatten())
    }
}

/// A discriminator with the weights of the fixture.
fn model(device: &Device, kind: &'static str) -> (Discriminator, Params) {
    let mut p = Builder::default();
    let d = Discriminator::new(&mut p, kind);
    let mut params = Params::new(device, &p.finish(), 0);
    for id in params.ids() {
        if !params.name(id).contains("running") {
            let values = f32s(&read(&format!("{kind}.{}", params.name(id))).1);
            params.set_weight(id, &values);
        }
    }
    (d, params)
}

fn pictures(device: &Device, kind: &str) -> Tensor {
    let (shape, x) = read(&format!("{kind}.x"));
    Tensor::from_slice(device, &f32s(&x), shape)
}

/// The penalty of this name, as the fixture has it.
fn penalty<'t>(name: &str, d: &Discriminator, x: Var<'t>) -> Var<'t> {
    match name {
        "r1" => r1(x, 10.0, |x| d.apply(x)),
        _ => gradient_penalty(x, 10.0, |x| d.apply(x)),
    }
}

/// The value of a loss in a training pass, and the gradients of all parameters, zeros where none flowed.
fn gradients(
    tape: &mut Tape,
    params: &mut Params,
    x: &Tensor,
    loss: impl for<'t> Fn(Var<'t>) -> Var<'t>,
) -> (f32, Vec<Vec<f32>>) {
    params.clear_grads();
    tape.begin(params, Pass { training: true, ..Pass::default() });
    let loss = loss(tape.constant(x.clone()));
    let value = loss.value().read::<f32>()[0];
    loss.backward(params, true);
    let gradient = |id| params.grad(id).map_or_else(|| vec![0.0; params.weight(id).numel()], |g| g.read().to_vec());
    (value, params.ids().filter(|id| params.is_trainable(*id)).map(gradient).collect())
}

const KINDS: [&str; 7] = ["leaky", "relu", "smooth", "fused", "spectral", "group", "batch"];

fn matches_pytorch(device: &Device, kind: &'static str) {
    let (d, mut params) = model(device, kind);
    let (mut tape, x) = (Tape::new(device), pictures(device, kind));
    for name in ["r1", "gp"] {
        let (value, grads) = gradients(&mut tape, &mut params, &x, |x| penalty(name, &d, x));
        close(&format!("{kind}, {name}"), &[value], &read(&format!("{kind}.{name}")).1, 1e-5);
        let names = params.ids().filter(|id| params.is_trainable(*id)).map(|id| params.name(id).to_owned());
        for (parameter, grad) in names.zip(&grads) {
            let key = format!("{kind}.{name}.{parameter}");
            close(&key, grad, &read(&key).1, 1e-4);
        }
    }
}

#[test]
fn penalties_have_the_gradients_of_pytorchs_second_derivatives() {
    let device = Device::cpu(2).expect("a CPU");
    KINDS.iter().for_each(|kind| matches_pytorch(&device, kind));
}

#[test]
fn penalties_have_them_on_a_gpu() {
    let device = crate::gpu::gpu(true);
    KINDS.iter().for_each(|kind| matches_pytorch(&device, kind));
}

#[test]
fn a_penalty_beside_a_loss_adds_its_gradients() {
    let device = Device::cpu(2).expect("a CPU");
    let (d, mut params) = model(&device, "smooth");
    let (mut tape, x) = (Tape::new(&device), pictures(&device, "smooth"));
    let (a, first) = gradients(&mut tape, &mut params, &x, |x| d.apply(x).softplus().mean());
    let (b, second) = gradients(&mut tape, &mut params, &x, |x| penalty("r1", &d, x));
    let (c, both) = gradients(&mut tape, &mut params, &x, |x| d.apply(x).softplus().mean() + penalty("r1", &d, x));
    assert!((a + b - c).abs() < 1e-5 * c.abs(), "{a} + {b} = {c}");
    for ((first, second), both) in first.iter().zip(&second).zip(&both) {
        let sum: Vec<f64> = first.iter().zip(second).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
        close("sum", both, &sum, 1e-5);
    }
}

#[test]
fn a_penalty_has_the_same_bits_for_every_instruction_set_and_thread_count() {
    let bits = |device: &Device| {
        let (d, mut params) = model(device, "fused");
        let (mut tape, x) = (Tape::new(device), pictures(device, "fused"));
        let (value, grads) = gradients(&mut tape, &mut params, &x, |x| penalty("gp", &d, x));
        grads.into_iter().flatten().chain([value]).map(f32::to_bits).collect::<Vec<_>>()
    };
    let expected = bits(&Device::cpu_with(Simd::available()[0], 1));
    for simd in Simd::available() {
        for threads in [1, 3] {
            assert!(bits(&Device::cpu_with(simd, threads)) == expected, "{threads} threads on {}", simd.name());
        }
    }
}

#[test]
fn from_the_third_step_on_a_penalty_allocates_nothing() {
    let device = Device::cpu(2).expect("a CPU");
    let (d, mut params) = model(&device, "spectral");
    let (mut tape, x) = (Tape::new(&device), pictures(&device, "spectral"));
    let mut step = || {
        params.clear_grads();
        tape.begin(&params, Pass { training: true, ..Pass::default() });
        let x = tape.constant(x.clone());
        let loss = d.apply(x).softplus().mean() + r1(x, 10.0, |x| d.apply(x));
        loss.backward(&mut params, true);
        tape.settle(&mut params);
    };
    for i in 0..5 {
        let count = crate::alloc::allocations(&mut step);
        assert!(i < 2 || count == 0, "step {i} asked the global allocator {count} times");
    }
}

#[test]
#[should_panic(expected = "layernorm has no tangent")]
fn an_operation_without_a_tangent_says_so() {
    let device = Device::cpu(1).expect("a CPU");
    let tape = Tape::new(&device);
    let ones = Tensor::from_slice(&device, &[1.0f32; 4], [4]);
    let x = tape.variable(Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 5.0], [1, 4]));
    let (y, _) = x.norm(kiln::ops::norm::NormKind::Layer, None, tape.constant(ones.clone()), None, 1e-5);
    tape.tangent(y, x, tape.constant(ones.reshape([1, 4])));
}
