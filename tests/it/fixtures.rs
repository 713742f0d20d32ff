//! Single operations against PyTorch's float64 numbers in `tests/fixtures/{ops,layers}.safetensors`: the f64 reference of each op
//! against its results, and results and gradients on the tape against its own. Key names: `tests/reference/README.md`.

use kiln::cpu::gemm::Precision;
use kiln::device::Device;
use kiln::ops::activation::Activation;
use kiln::ops::attention::SelfAttention;
use kiln::ops::augment::{Augment, Policy};
use kiln::ops::conv::{Conv, Window};
use kiln::ops::elementwise::Elementwise;
use kiln::ops::embedding::Embedding;
use kiln::ops::kl::GaussianKl;
use kiln::ops::linear::Linear;
use kiln::ops::linear_xent::LinearXent;
use kiln::ops::loss::{Loss, LossKind};
use kiln::ops::norm::{Norm, NormKind};
use kiln::ops::picture_norm::{PictureNorm, Statistics};
use kiln::ops::resample::Resample;
use kiln::ops::rope::{Rope, RopeScaling, RopeTable};
use kiln::ops::spectral::Spectral;
use kiln::ops::swiglu::Swiglu;
use kiln::ops::token_logprob::TokenLogprob;
use kiln::optim::{AdamW, Optimizer};
use kiln::params::{Decl, Init, Kind, ParamId, Params};
use kiln::rng::{Purpose, Stream};
use kiln::tape::{Array64, Op, Tape, Var};
use kiln::tensor::{DType, Shape, Tensor};
use safetensors::{Dtype, SafeTensors};

/// One case of the fixture.
struct Fixture {
    case: &'static str,
}

impl Fixture {
    /// The tensor `CASE.role`, if there is one.
    fn get(&self, role: &str) -> Option<Array64> {
        static FILES: [&[u8]; 2] =
            [include_bytes!("../fixtures/ops.safetensors"), include_bytes!("../fixtures/layers.safetensors")];
        let name = format!("{}.{role}", self.case);
        let find = |bytes: &'static &[u8]| {
            let file = SafeTensors::deserialize(bytes).expect("the fixture is a safetensors file");
            file.tensor(&name).ok()
        };
        let view = FILES.iter().find_map(find)?;
        let number = |bytes: &[u8]| -> f64 {
            let bytes: [u8; 8] = bytes.try_into().expect("eight bytes");
            match view.dtype() {
                Dtype::F64 => f64::from_le_bytes(bytes),
                Dtype::I64 => i64::from_le_bytes(bytes) as f64,
                other => panic!("{}.{role} is {other:?}", self.case),
            }
        };
        let data = view.data().chunks_exact(8).map(number).collect();
        Some(Array64::new(Shape::new(view.shape()), data))
    }

    /// The tensor `CASE.role`.
    fn array(&self, role: &str) -> Array64 {
        self.get(role).unwrap_or_else(|| panic!("the fixture has no {}.{role}", self.case))
    }
}

/// An input of an operation.
struct Given {
    name: &'static str,
    value: Array64,
    /// Integers on the tape.
    ids: bool,
    /// What its gradient should be.
    grad: Option<Array64>,
}

/// A result of an operation: what it should be, and the gradient of the loss with respect to it (none: 0).
struct Expected {
    name: &'static str,
    value: Array64,
    grad: Option<Array64>,
}

/// Checks `op` on a case of the fixture, given the names of its inputs and results in the operation's order.
fn check_fixture(case: &'static str, op: impl Op, inputs: &[&'static str], results: &[&'static str]) {
    let fixture = Fixture { case };
    let input = |&name: &&'static str| Given {
        name,
        value: fixture.array(name),
        ids: matches!(name, "ids" | "targets"),
        grad: fixture.get(&format!("d{name}")),
    };
    let result =
        |&name: &&'static str| Expected { name, value: fixture.array(name), grad: fixture.get(&format!("d{name}")) };
    check(case, op, inputs.iter().map(input).collect(), results.iter().map(result).collect());
}

/// Checks `op` on any numbers: its reference to 1e-9 of the largest value, its results and gradients on the tape to the
/// bounds of the sweep. For cases whose layout is not the operation's.
fn check(case: &str, op: impl Op, inputs: Vec<Given>, results: Vec<Expected>) {
    let arrays: Vec<Array64> = inputs.iter().map(|input| input.value.clone()).collect();
    let reference = op.reference(&arrays);
    assert_eq!(reference.len(), results.len(), "{case}: the number of results");
    for (got, want) in reference.iter().zip(&results) {
        assert_close(&format!("{case}: reference of {}", want.name), &got.data, &want.value.data, 1e-9, 0.0);
    }
    let (values, gradients) = run(op, &inputs, &results);
    for (got, want) in values.iter().zip(&results) {
        assert_close(&format!("{case}: {}", want.name), got, &want.value.data, 1e-5, 1e-6);
    }
    let wanted = |input: &Given| input.grad.is_some();
    for (input, got) in inputs.iter().zip(gradients).filter(|(input, _)| wanted(input)) {
        let want = &input.grad.as_ref().expect("a gradient").data;
        assert_close(&format!("{case}: gradient of {}", input.name), &got, want, 1e-4, 1e-6);
    }
}

/// max |got − want| ≤ relative · max |want| + absolute.
fn assert_close(what: &str, got: &[f64], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{what}: the number of elements");
    let bound = relative * want.iter().fold(0.0f64, |max, w| max.max(w.abs())) + absolute;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // NaN must fail.
        assert!((got - want).abs() <= bound, "{what}, element {i}: {got}, PyTorch has {want} (bound {bound:e})");
    }
}

/// The results of `op` on the tape and the gradients of all its inputs, zeros where none flowed.
fn run(op: impl Op, inputs: &[Given], results: &[Expected]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let device = Device::cpu(2).expect("a CPU");
    let f32s = |x: &Array64| x.data.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let f64s = |x: Tensor| x.f32().iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let tape = Tape::new(&device);
    let mut params = Params::new(&device, &[], 0);
    let leaf = |input: &Given| {
        let (data, shape) = (f32s(&input.value), input.value.shape);
        if input.ids {
            tape.constant(Tensor::from_slice(&device, &data.iter().map(|&x| x as i32).collect::<Vec<_>>(), shape))
        } else if input.grad.is_some() {
            tape.variable(Tensor::from_slice(&device, &data, shape))
        } else {
            tape.constant(Tensor::from_slice(&device, &data, shape))
        }
    };
    let x: Vec<Var> = inputs.iter().map(leaf).collect();
    let y = tape.apply(op, &x);
    // Before the backward pass lets go of them.
    let values = (0..results.len()).map(|i| f64s(y.output(i).value())).collect();
    let upstream = |(i, result): (usize, &Expected)| {
        let shape = y.output(i).shape();
        let dy = result.grad.as_ref().map_or_else(|| vec![0.0; shape.numel()], &f32s);
        Tensor::from_slice(&device, &dy, shape)
    };
    let dy: Vec<Tensor> = results.iter().enumerate().map(upstream).collect();
    y.backward_from(&dy, &mut params, true);
    let gradient = |x: &Var| x.grad().map_or_else(|| vec![0.0; x.shape().numel()], f64s);
    (values, x.iter().map(gradient).collect())
}

#[test]
fn activations() {
    check_fixture("gelu_tanh", Activation::GeluTanh, &["x"], &["y"]);
    check_fixture("gelu_erf", Activation::GeluErf, &["x"], &["y"]);
    check_fixture("swiglu", Swiglu, &["gate", "up"], &["y"]);
    check_fixture("leaky_relu", Activation::LeakyRelu(0.2), &["x"], &["y"]);
    check_fixture("softplus", Activation::Softplus, &["x"], &["y"]);
}

#[test]
fn losses() {
    let loss = |kind| Loss { kind, target: None, mean: false };
    check_fixture("bce", loss(LossKind::Bce), &["x", "t"], &["y"]);
    check_fixture("square", loss(LossKind::Square), &["x", "t"], &["y"]);
    check_fixture("absolute", loss(LossKind::Absolute), &["x", "t"], &["y"]);
    check_fixture("gaussian", loss(LossKind::Gaussian), &["x", "t", "v"], &["y"]);
    check_fixture("hinge", Loss { kind: LossKind::Hinge, target: Some(1.0), mean: true }, &["x"], &["y"]);
    check_fixture("gaussian_kl", GaussianKl { free: 0.0 }, &["mu", "v"], &["loss", "kl"]);
    check_fixture("gaussian_kl_free", GaussianKl { free: 0.5 }, &["mu", "v"], &["loss", "kl"]);
}

#[test]
fn norms_of_pictures() {
    let norm = |statistics, slope| PictureNorm { statistics, eps: 1e-5, slope };
    let inputs = ["x", "g", "b", "mean", "var"];
    check_fixture("batchnorm", norm(Statistics::Batch(0.1), 1.0), &inputs, &["y", "new_mean", "new_var"]);
    check_fixture("batchnorm_given", norm(Statistics::Given, 0.2), &inputs, &["y"]);
    check_fixture("groupnorm", norm(Statistics::Groups(2), 0.2), &inputs[..3], &["y"]);
}

#[test]
fn weights_divided_by_their_spectral_norm() {
    check_fixture("spectral", Spectral { last: false }, &["w", "u"], &["y", "new_u"]);
    check_fixture("spectral_last", Spectral { last: true }, &["w", "u"], &["y", "new_u"]);
}

#[test]
fn augmented_pictures() {
    let policy = Policy { colour: true, translation: true, cutout: true };
    let op = Augment { policy, stream: Stream::new(5, Purpose::Augment, 3, 0), shifts: true };
    check_fixture("augment", op, &["x"], &["y"]);
}

#[test]
fn pictures_in_another_size() {
    check_fixture("pool", Resample::Pool([3, 2], [2, 1]), &["x"], &["y"]);
    check_fixture("nearest", Resample::Nearest(2), &["x"], &["y"]);
    check_fixture("bilinear_2", Resample::Bilinear(2), &["x"], &["y"]);
    check_fixture("bilinear_3", Resample::Bilinear(3), &["x"], &["y"]);
}

#[test]
fn linear() {
    let cases = [
        ("linear", "linear_bias", None),
        ("linear_gelu_tanh", "linear_bias_gelu_tanh", Some(Activation::GeluTanh)),
        ("linear_gelu_erf", "linear_bias_gelu_erf", Some(Activation::GeluErf)),
        ("linear_relu", "linear_bias_relu", Some(Activation::Relu)),
    ];
    for (without, with, activation) in cases {
        check_fixture(without, Linear { bias: false, activation, ..Linear::default() }, &["x", "w"], &["y"]);
        check_fixture(with, Linear { bias: true, activation, ..Linear::default() }, &["x", "w", "b"], &["y"]);
    }
}

#[test]
fn convolutions() {
    for (case, window) in [
        ("conv2d", Window::conv(2, 1)),
        ("conv2d_one", Window::conv(1, 1)),
        ("conv_transpose2d", Window::transposed(2, 1, 0)),
        ("conv_transpose2d_few", Window::transposed(2, 1, 1)),
    ] {
        check_fixture(
            case,
            Conv { window, bias: true, activation: None, precision: Precision::F32 },
            &["x", "w", "b"],
            &["y"],
        );
    }
}

/// The fixture has q, k and v apart; a packed row is their concatenation.
#[test]
fn attention() {
    for case in ["attention", "attention_grouped", "attention_long"] {
        let fixture = Fixture { case };
        let packed = |roles: [&str; 3]| {
            let parts = roles.map(|role| fixture.array(role));
            let widths = [0, 1, 2].map(|i| parts[i].shape[2] * parts[i].shape[3]);
            let (b, t) = (parts[0].shape[0], parts[0].shape[1]);
            let part = |row: usize, i: usize| &parts[i].data[row * widths[i]..][..widths[i]];
            let data = (0..b * t).flat_map(|row| (0..3).flat_map(move |i| part(row, i))).copied().collect();
            Array64::new([b, t, widths.iter().sum()], data)
        };
        let (heads, kv_heads) = (fixture.array("q").shape[2], fixture.array("k").shape[2]);
        let (value, grad) = (packed(["q", "k", "v"]), Some(packed(["dq", "dk", "dv"])));
        let qkv = Given { name: "qkv", value, ids: false, grad };
        let y = Expected { name: "y", value: fixture.array("y"), grad: Some(fixture.array("dy")) };
        check(case, SelfAttention { heads, kv_heads, packed: false, precision: Precision::F32 }, vec![qkv], vec![y]);
    }
}

#[test]
fn embedding() {
    check_fixture("embedding", Embedding { positions: Some(0), dtype: DType::F32 }, &["ids", "tok", "pos"], &["y"]);
}

#[test]
fn linear_xent() {
    let op = |weights| LinearXent { weights, ..LinearXent::default() };
    check_fixture("linear_xent", op(true), &["x", "w", "targets", "weights"], &["loss"]);
    check_fixture("linear_xent_uniform", op(true), &["x", "w", "targets", "weights"], &["loss"]);
    check_fixture("linear_xent_uniform", op(false), &["x", "w", "targets"], &["loss"]);
}

#[test]
fn norms() {
    let layer = |bias, residual| Norm { kind: NormKind::Layer, bias, residual, eps: 1e-5 };
    check_fixture("layernorm", layer(true, false), &["x", "w", "b"], &["y"]);
    check_fixture("layernorm_nobias", layer(false, false), &["x", "w"], &["y"]);
    check_fixture("layernorm_residual", layer(true, true), &["x", "r", "w", "b"], &["y", "s"]);
    let rms = |residual| Norm { kind: NormKind::Rms, bias: false, residual, eps: 1e-6 };
    check_fixture("rmsnorm", rms(false), &["x", "w"], &["y"]);
    check_fixture("rmsnorm_residual", rms(true), &["x", "r", "w"], &["y", "s"]);
}

/// The sum inside `layernorm_residual`: s = x + r, whose gradient arrives at both.
#[test]
fn add() {
    let fixture = Fixture { case: "layernorm_residual" };
    let ds = fixture.array("ds");
    let input = |name| Given { name, value: fixture.array(name), ids: false, grad: Some(ds.clone()) };
    let result = Expected { name: "s", value: fixture.array("s"), grad: Some(ds.clone()) };
    check("add", Elementwise::Add, vec![input("x"), input("r")], vec![result]);
}

#[test]
fn rope() {
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
    let cases = [("rope", RopeScaling::None), ("rope_offset", RopeScaling::None), ("rope_llama3", llama3)];
    for (case, scaling) in cases {
        let fixture = Fixture { case };
        let (x, positions) = (fixture.array("x"), fixture.array("positions").data);
        let (dim, offset) = (x.shape[3], positions[0] as usize);
        let frequencies = scaling.frequencies(10_000.0, dim);
        assert_close(&format!("{case}: frequencies"), &frequencies, &fixture.array("inv_freq").data, 1e-12, 0.0);
        let rows = offset + positions.len();
        let angles = |f: fn(f64) -> f64| {
            Array64::from_fn([rows, dim / 2], |i| f((i / (dim / 2)) as f64 * frequencies[i % (dim / 2)]))
        };
        let (cos, sin) = (angles(f64::cos), angles(f64::sin));
        let table = RopeTable::new(&Device::cpu(1).expect("a CPU"), dim, rows, 10_000.0, scaling);
        for (table, exact) in [(&table.cos, &cos), (&table.sin, &sin)] {
            assert_eq!(table.shape(), &exact.shape);
            // One rounding to f32.
            assert!(
                table.f32().iter().zip(&exact.data).all(|(t, e)| (f64::from(*t) - e).abs() <= 6e-8 * e.abs() + 1e-12)
            );
        }
        let constant = |name, value| Given { name, value, ids: false, grad: None };
        let inputs = vec![
            Given { name: "x", value: x.clone(), ids: false, grad: Some(fixture.array("dx")) },
            constant("cos", cos),
            constant("sin", sin),
        ];
        let result = Expected { name: "y", value: fixture.array("y"), grad: Some(fixture.array("dy")) };
        check(case, Rope { heads: x.shape[2], offset }, inputs, vec![result]);
    }
}

/// The fixture has the head in it, logits = x·wᵀ: the gradient of the logits is taken through it here, in f64.
#[test]
fn token_logprob() {
    let fixture = Fixture { case: "token_logprob" };
    let (x, w) = (fixture.array("x"), fixture.array("w"));
    let (rows, channels, vocab) = (x.shape[0], x.shape[1], w.shape[0]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let logits = Array64::from_fn([rows, vocab], |i| {
        let (r, v) = (i / vocab, i % vocab);
        dot(&x.data[r * channels..][..channels], &w.data[v * channels..][..channels])
    });
    // The empty array asks for the gradient; there is none to compare it with before the head.
    let inputs = vec![
        Given { name: "logits", value: logits, ids: false, grad: Some(Array64::from_fn([0], |_| 0.0)) },
        Given { name: "targets", value: fixture.array("targets"), ids: true, grad: None },
    ];
    let results: Vec<Expected> = ["logp", "entropy"]
        .map(|name| Expected { name, value: fixture.array(name), grad: fixture.get(&format!("d{name}")) })
        .into();
    let arrays: Vec<Array64> = inputs.iter().map(|input| input.value.clone()).collect();
    for (got, want) in TokenLogprob.reference(&arrays).iter().zip(&results) {
        assert_close(want.name, &got.data, &want.value.data, 1e-9, 0.0);
    }
    let dlogits = &run(TokenLogprob, &inputs, &results).1[0];
    let dx =
        |i: usize| (0..vocab).map(|v| dlogits[i / channels * vocab + v] * w.data[v * channels + i % channels]).sum();
    let dw =
        |i: usize| (0..rows).map(|r| dlogits[r * vocab + i / channels] * x.data[r * channels + i % channels]).sum();
    let (dx, dw) = (Array64::from_fn(x.shape, dx), Array64::from_fn(w.shape, dw));
    assert_close("dx", &dx.data, &fixture.array("dx").data, 1e-4, 1e-6);
    assert_close("dw", &dw.data, &fixture.array("dw").data, 1e-4, 1e-6);
}

/// Five updates of one vector. The gradient comes from a loss that has it: Σ g·w.
#[test]
fn adamw() {
    let fixture = Fixture { case: "adamw" };
    let f32s = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let f64s = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (w0, grads, w) = (fixture.array("w0"), fixture.array("grads"), fixture.array("w"));
    let device = Device::cpu(2).expect("a CPU");
    // A matrix by its kind, so that it decays.
    let decl = Decl::new("w", w0.shape, Kind::Matrix, Init::Zeros);
    let optimizer = Optimizer { adamw: AdamW { beta2: 0.99, ..AdamW::default() }, muon: None, clip: None };
    let mut params = Params::new(&device, &[decl], 0);
    optimizer.prepare(&mut params);
    let id = ParamId(0);
    params.set_weight(id, &f32s(&w0.data));
    let mut tape = Tape::new(&device);
    for ((t, g), want) in (1..).zip(grads.rows()).zip(w.rows()) {
        tape.begin(&params, Default::default());
        let g = tape.constant(Tensor::from_slice(&device, &f32s(g), w0.shape));
        (tape.param(id) * g).sum().backward(&mut params, true);
        tape.reset();
        optimizer.step(&mut params, t, 1e-2, &[]).expect("an update");
        assert_close(&format!("adamw: w after update {t}"), &f64s(params.weight(id).f32()), want, 1e-6, 0.0);
    }
    for (k, name) in ["m", "v"].into_iter().enumerate() {
        let moment = params.groups()[0].moment(k, 0).expect("a moment");
        // 1 − β₂ is taken in f32: 1e-6 off.
        assert_close(&format!("adamw: {name}"), &f64s(moment.f32()), &fixture.array(name).data, 2e-6, 0.0);
    }
}
