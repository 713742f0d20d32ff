//! Whole models against PyTorch in float64: logits, every gradient, ten optimizer steps. The numbers were made by
//! `gpt2.py` and `llama.py` in `tests/reference`; see its README for the keys.

use kiln::device::Device;
use kiln::model::{Gpt, GptConfig, Mlp, Positions, Site, Size};
use kiln::ops::activation::Activation;
use kiln::ops::rope::RopeScaling;
use kiln::optim::{Muon, MuonScale, Optimizer};
use kiln::params::{ParamId, Params};
use kiln::tape::{Pass, Tape};
use kiln::tensor::{Shape, Tensor};
use safetensors::{Dtype, SafeTensors};

/// A tensor of a fixture, as f64.
pub fn read(file: &SafeTensors, key: &str) -> (Shape, Vec<f64>) {
    let view = file.tensor(key).unwrap_or_else(|_| panic!("the fixture has no {key}"));
    let data = match view.dtype() {
        Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
        Dtype::I64 => {
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64).collect()
        }
        Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))).collect()
        }
        other => panic!("{key} is {other:?}"),
    };
    (Shape::new(view.shape()), data)
}

/// A parameter as the fixture has it, in kiln's layout.
pub fn read_param(file: &SafeTensors, prefix: &str, params: &Params, id: ParamId) -> Vec<f64> {
    let image = |image: &kiln::params::Image| {
        let (shape, data) = read(file, &format!("{prefix}.{}", image.name));
        if !image.transposed {
            return data;
        }
        let (rows, columns) = (shape[0], shape[1]);
        (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
    };
    params.images(id).iter().flat_map(image).collect()
}

pub fn ids(device: &Device, (shape, data): (Shape, Vec<f64>)) -> Tensor {
    let data: Vec<i32> = data.iter().map(|&x| x as i32).collect();
    Tensor::from_slice(device, &data, shape)
}

/// Asserts max |got − want| ≤ relative · max |want| + absolute.
pub fn close(what: &str, got: &[f32], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let max = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let error = got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((f64::from(*g) - w).abs()));
    assert!(error <= relative * max + absolute, "{what}: off by {error:e}, the largest value is {max:e}");
}

/// The shape of the GPT-2 of the fixtures.
fn gpt2() -> GptConfig {
    GptConfig::gpt2(Size { vocab: 37, context: 16, layers: 2, heads: 3, d: 24 })
}

/// And that of the Llama.
fn llama() -> GptConfig {
    let size = Size { vocab: 37, context: 64, layers: 2, heads: 4, d: 24 };
    GptConfig { kv_heads: 2, hidden: 40, ..GptConfig::llama(size) }
}

fn llama_tied_and_scaled() -> GptConfig {
    let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 40.0 };
    GptConfig { tied: true, positions: Positions::Rope { theta: 100.0, scaling }, ..llama() }
}

fn model(device: &Device, file: &SafeTensors, config: GptConfig) -> (Gpt, Params) {
    let (gpt, decls) = Gpt::new(config);
    let mut params = Params::new(device, &decls, 1);
    for id in params.ids() {
        let values: Vec<f32> = read_param(file, "init", &params, id).iter().map(|&x| x as f32).collect();
        params.set_weight(id, &values);
    }
    (gpt, params)
}

pub fn names(params: &Params) -> Vec<(ParamId, String)> {
    params.ids().map(|id| (id, params.name(id).to_owned())).collect()
}

/// Logits, loss and gradients at the initial weights.
fn matches_pytorch(bytes: &[u8], config: GptConfig) {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let device = Device::cpu(2).expect("a CPU");
    let (gpt, mut params) = model(&device, &file, config.clone());
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let logits = gpt.logits(tape.constant(ids(&device, read(&file, "x")))).value();
    close("logits", logits.f32(), &read(&file, "logits").1, 1e-5, 1e-6);

    tape.begin(&params, Pass::default());
    let (x, y) = (ids(&device, read(&file, "x")), ids(&device, read(&file, "y")));
    let loss = gpt.loss(tape.constant(x), tape.constant(y), None, None);
    close("loss", loss.value().f32(), &read(&file, "loss").1, 1e-6, 0.0);
    loss.backward(&mut params, true);
    for (id, name) in names(&params) {
        let grad = params.grad(id).unwrap_or_else(|| panic!("{name} has no gradient"));
        close(&name, grad.f32(), &read_param(&file, "grad", &params, id), 1e-4, 1e-6);
    }
    close("grad_norm", &[params.grad_norm() as f32], &read(&file, "grad_norm").1, 1e-5, 0.0);
    trains_as_pytorch(bytes, config, &Optimizer::default(), ["train", "final"]);
}

/// Ten steps: their losses, stored under `keys[0]`, and the weights after them, under `keys[1]`.
fn trains_as_pytorch(bytes: &[u8], config: GptConfig, optimizer: &Optimizer, keys: [&str; 2]) {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let device = Device::cpu(2).expect("a CPU");
    let (gpt, mut params) = model(&device, &file, config);
    optimizer.prepare(&mut params);
    let mut tape = Tape::new(&device);
    let losses = read(&file, &format!("{}.losses", keys[0])).1;
    let (xs, ys) = (read(&file, "train.x"), read(&file, "train.y"));
    for (step, want) in losses.iter().enumerate() {
        let batch = |(shape, data): &(Shape, Vec<f64>)| {
            let n = shape[1] * shape[2];
            ids(&device, (Shape::new(&shape[1..]), data[step * n..][..n].to_vec()))
        };
        tape.begin(&params, Pass::default());
        let loss = gpt.loss(tape.constant(batch(&xs)), tape.constant(batch(&ys)), None, None);
        close(&format!("loss of step {step}"), loss.value().f32(), &[*want], 1e-5, 0.0);
        loss.backward(&mut params, true);
        tape.reset();
        optimizer.step(&mut params, step as u64 + 1, 1e-2, &[]).expect("an update");
    }
    for (id, name) in names(&params) {
        let (mut got, mut want) = (params.weight(id).f32().to_vec(), read_param(&file, keys[1], &params, id));
        if name.ends_with("c_attn.bias") {
            // The keys' bias has no gradient but rounding noise, which Adam turns into steps (see the README).
            got.drain(24..48);
            want.drain(24..48);
        }
        close(&format!("final {name}"), &got, &want, 0.0, 1e-4);
    }
}

#[test]
fn gpt2_matches_pytorch_in_float64() {
    matches_pytorch(include_bytes!("../fixtures/gpt2.safetensors"), gpt2());
}

#[test]
fn gpt2_without_biases_and_with_the_exact_gelu_matches_pytorch_in_float64() {
    let config = GptConfig { bias: false, mlp: Mlp::Plain(Activation::GeluErf), ..gpt2() };
    matches_pytorch(include_bytes!("../fixtures/gpt2-erf-nobias.safetensors"), config);
}

const LLAMA: &[u8] = include_bytes!("../fixtures/llama.safetensors");
const LLAMA_TIED_AND_SCALED: &[u8] = include_bytes!("../fixtures/llama-tied-scaled.safetensors");

#[test]
fn llama_matches_pytorch_in_float64() {
    matches_pytorch(LLAMA, llama());
}

#[test]
fn llama_with_a_tied_head_and_scaled_rope_matches_pytorch_in_float64() {
    matches_pytorch(LLAMA_TIED_AND_SCALED, llama_tied_and_scaled());
}

/// Both scales; the learning rate of the other parameters is 1e-2.
#[test]
fn muon_trains_as_in_float64() {
    let with = |muon| Optimizer { muon: Some(muon), ..Optimizer::default() };
    trains_as_pytorch(LLAMA, llama(), &with(Muon::default()), ["muon", "muon_final"]);
    let jordans = Muon { lr_ratio: 2.0, scale: MuonScale::Original, ..Muon::default() };
    trains_as_pytorch(LLAMA_TIED_AND_SCALED, llama_tied_and_scaled(), &with(jordans), ["muon", "muon_final"]);
}

#[test]
fn two_micro_batches_give_the_gradients_of_one_batch() {
    let file = SafeTensors::deserialize(include_bytes!("../fixtures/gpt2.safetensors")).expect("a safetensors file");
    let batch = SafeTensors::deserialize(include_bytes!("../fixtures/gpt2-accumulate.safetensors")).expect("the same");
    let device = Device::cpu(2).expect("a CPU");
    let (gpt, mut params) = model(&device, &file, gpt2());
    let mut tape = Tape::new(&device);
    let ((shape, x), (_, y)) = (read(&batch, "x"), read(&batch, "y"));
    let n = 3 * shape[1];
    for micro in 0..2 {
        let part = |data: &[f64]| ids(&device, ([3, shape[1]].into(), data[micro * n..][..n].to_vec()));
        tape.begin(&params, Pass { micro: micro as u32, ..Pass::default() });
        let loss = gpt.loss(tape.constant(part(&x)), tape.constant(part(&y)), None, Some(2.0 * n as f32));
        loss.backward(&mut params, micro == 1);
    }
    for (id, name) in names(&params) {
        let grad = params.grad(id).unwrap_or_else(|| panic!("{name} has no gradient"));
        close(&name, grad.f32(), &read_param(&batch, "grad", &params, id), 1e-4, 1e-6);
    }
    close("grad_norm", &[params.grad_norm() as f32], &read(&batch, "grad_norm").1, 1e-5, 0.0);
}

#[test]
fn inference_by_scopes_gives_the_bits_of_the_recorded_pass_and_needs_less_memory() {
    let gpt2_file = include_bytes!("../fixtures/gpt2.safetensors").as_slice();
    for (bytes, config) in [(gpt2_file, gpt2()), (LLAMA, llama())] {
        let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
        let peak = |recorded: bool| {
            let device = Device::cpu(1).expect("a CPU");
            let (gpt, params) = model(&device, &file, config.clone());
            let mut tape = Tape::new(&device);
            tape.begin(&params, Pass::default());
            let x = tape.constant(ids(&device, read(&file, "x")));
            let logits = if recorded { gpt.logits(x).value() } else { tape.no_grad(|| gpt.logits(x).value()) };
            (logits.f32().to_vec(), device.pool().peak_bytes())
        };
        let ((a, full), (b, scoped)) = (peak(true), peak(false));
        assert!(a == b && scoped < full, "{scoped} bytes, {full} recorded");
    }
}

#[test]
fn a_look_shows_what_the_model_comes_to_on_the_way() {
    let gpt2_file = include_bytes!("../fixtures/gpt2.safetensors").as_slice();
    for (bytes, config) in [(gpt2_file, gpt2()), (LLAMA, llama())] {
        let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
        let device = Device::cpu(1).expect("a CPU");
        let (gpt, params) = model(&device, &file, config.clone());
        let mut tape = Tape::new(&device);
        tape.begin(&params, Pass::default());
        let x = tape.constant(ids(&device, read(&file, "x")));
        let logits = gpt.logits(x).value();
        let [b, t] = [0, 1].map(|axis| x.value().shape()[axis]);
        let mut seen = Vec::new();
        gpt.look(x, &mut |site, block, value| seen.push((site, block, value.clone())));
        let sites: Vec<(Site, usize)> = seen.iter().map(|(site, block, _)| (*site, *block)).collect();
        let block = |i| [(Site::Qkv, i), (Site::Hidden, i), (Site::Stream, i)];
        assert_eq!(sites, [&block(0)[..], &block(1), &[(Site::Logits, 2)]].concat());
        for (site, _, value) in &seen {
            let width = match site {
                Site::Qkv => (config.heads + 2 * config.kv_heads) * config.head_dim,
                Site::Hidden => config.hidden,
                Site::Stream => config.d,
                Site::Logits => config.vocab,
            };
            assert_eq!(value.shape()[..], [b, t, width]);
        }
        assert_eq!(seen[6].2.f32(), logits.f32());
        // The last norm makes of the last stream what the head reads.
        let stream = seen[5].2.f32();
        let rms = (stream.iter().map(|x| x * x).sum::<f32>() / stream.len() as f32).sqrt();
        assert!(rms.is_finite() && stream != seen[2].2.f32(), "{rms}");
    }
}
