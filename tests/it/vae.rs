//! Variational autoencoders against PyTorch in float64: loss and parts, every gradient, the importance-weighted bound, ten
//! optimizer steps. The numbers were made by `tests/reference/vae.py`, which draws the noise that kiln draws.

use crate::gpt::{close, ids, names, read, read_param};
use crate::gpu::gpu;
use kiln::device::Device;
use kiln::model::{Likelihood, Vae, VaeConfig};
use kiln::optim::{AdamW, Optimizer};
use kiln::params::Params;
use kiln::tape::{Pass, Tape, Var};
use kiln::tensor::{Shape, Tensor};
use safetensors::SafeTensors;
use std::path::Path;

const FILE: &[u8] = include_bytes!("../fixtures/vae.safetensors");

/// The Adam of the fixtures.
pub fn adam(beta1: f64) -> Optimizer {
    let adamw = AdamW { beta1, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decay_embeddings: false };
    Optimizer { adamw, muon: None, clip: None }
}

/// Part `i` of an array with one more axis in front.
pub fn part((shape, data): &(Shape, Vec<f64>), i: usize) -> (Shape, Vec<f64>) {
    let n = shape.numel() / shape[0];
    (Shape::new(&shape[1..]), data[i * n..(i + 1) * n].to_vec())
}

pub fn floats(device: &Device, (shape, data): (Shape, Vec<f64>)) -> Tensor {
    Tensor::from_slice(device, &data.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape)
}

/// A case of the fixture: its name, the model, β and free nats.
struct Case {
    name: &'static str,
    config: VaeConfig,
    beta: f32,
    free: f32,
}

fn cases() -> [Case; 4] {
    let config = |shape: [usize; 3], channels: &[usize], hidden: usize, std: Option<f64>, labels: bool| VaeConfig {
        channels: channels.to_vec(),
        hidden,
        latent: 3,
        likelihood: std.map_or(Likelihood::Bernoulli, Likelihood::Gaussian),
        classes: labels.then_some(4),
        ..VaeConfig::mlp(shape)
    };
    let case = |name, beta, free, config| Case { name, config, beta, free };
    [
        case("mlp", 1.0, 0.0, config([6, 8, 1], &[], 12, None, false)),
        case("mlp_labels_gaussian", 0.5, 0.1, config([6, 6, 2], &[], 10, Some(0.5), true)),
        case("conv_labels", 1.0, 0.2, config([8, 12, 1], &[3, 4], 10, None, true)),
        case("conv_gaussian", 2.0, 0.0, config([8, 8, 3], &[4, 5], 9, Some(0.25), false)),
    ]
}

/// A model with the initial weights of the fixture, on any device.
struct Model {
    vae: Vae,
    params: Params,
    tape: Tape,
    device: Device,
    case: Case,
}

impl Model {
    fn new(device: &Device, case: Case) -> Model {
        let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
        let (vae, decls) = Vae::new(case.config.clone());
        let mut params = Params::new(device, &decls, 1);
        for id in params.ids() {
            let values = read_param(&file, &format!("{}.init", case.name), &params, id);
            params.set_weight(id, &values.iter().map(|&x| x as f32).collect::<Vec<_>>());
        }
        Model { vae, params, tape: Tape::new(device), device: device.clone(), case }
    }

    fn get(&self, key: &str) -> (Shape, Vec<f64>) {
        read(&SafeTensors::deserialize(FILE).expect("a safetensors file"), &format!("{}.{key}", self.case.name))
    }

    /// Pictures and labels of a step.
    fn batch(&self, step: u64) -> (Tensor, Option<Tensor>) {
        let labels = || ids(&self.device, part(&self.get("labels"), step as usize));
        (floats(&self.device, part(&self.get("x"), step as usize)), self.case.config.classes.map(|_| labels()))
    }

    /// One step of Adam, and the loss before it.
    fn step(&mut self, optimizer: &Optimizer, step: u64, (x, labels): (Tensor, Option<Tensor>)) -> f32 {
        self.tape.begin(&self.params, Pass { seed: 9, step, training: true, ..Pass::default() });
        let on = |x: Tensor| self.tape.constant(x);
        let beta = on(Tensor::from_slice(&self.device, &[self.case.beta], []));
        let loss = self.vae.loss(on(x), labels.map(on), beta, self.case.free).loss;
        let value = loss.value();
        loss.backward(&mut self.params, true);
        self.tape.reset();
        optimizer.step(&mut self.params, step + 1, 1e-2, &[value]).expect("an update").loss
    }

    /// The losses of some steps.
    fn losses(&mut self, steps: u64) -> Vec<f32> {
        let optimizer = adam(0.9);
        optimizer.prepare(&mut self.params);
        (0..steps).map(|i| self.step(&optimizer, i, self.batch(i))).collect()
    }
}

#[test]
fn loss_and_gradients_match_pytorch_in_float64() {
    let device = Device::cpu(2).expect("a CPU");
    for case in cases() {
        let name = case.name;
        let mut model = Model::new(&device, case);
        let (x, labels) = model.batch(0);
        model.tape.begin(&model.params, Pass { seed: 9, ..Pass::default() });
        let on = |x: Tensor| model.tape.constant(x);
        let beta = on(Tensor::from_slice(&device, &[model.case.beta], []));
        let elbo = model.vae.loss(on(x), labels.map(on), beta, model.case.free);
        let parts = [elbo.loss, elbo.reconstruction, elbo.kl, elbo.kl_dims];
        for (key, value) in ["loss", "reconstruction", "kl", "kl_dims"].into_iter().zip(parts) {
            close(&format!("{name}: {key}"), value.value().f32(), &model.get(key).1, 1e-5, 1e-6);
        }
        elbo.loss.backward(&mut model.params, true);
        let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
        for (id, parameter) in names(&model.params) {
            let grad = model.params.grad(id).unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
            let want = read_param(&file, &format!("{name}.grad"), &model.params, id);
            close(&format!("{name}: {parameter}"), grad.f32(), &want, 1e-4, 1e-6);
        }
    }
}

#[test]
fn ten_steps_of_adam_have_pytorchs_losses() {
    let device = Device::cpu(2).expect("a CPU");
    for case in cases() {
        let mut model = Model::new(&device, case);
        let want = model.get("train.losses").1;
        for (i, (got, want)) in model.losses(10).iter().zip(&want).enumerate() {
            close(&format!("{}: loss of step {i}", model.case.name), &[*got], &[*want], 1e-4, 0.0);
        }
    }
}

#[test]
fn the_importance_weighted_bound_matches_pytorch_in_float64() {
    let device = Device::cpu(2).expect("a CPU");
    for case in cases() {
        let mut model = Model::new(&device, case);
        let (x, labels) = model.batch(0);
        model.tape.begin(&model.params, Pass { seed: 9, ..Pass::default() });
        let on = |x: Tensor| model.tape.constant(x);
        let bound = model.vae.iwae(on(x), labels.map(on), 4);
        let bound: Vec<f32> = bound.iter().map(|&x| x as f32).collect();
        close(model.case.name, &bound, &model.get("iwae").1, 1e-5, 0.0);
    }
}

#[test]
fn three_steps_on_a_gpu_have_the_losses_of_the_cpu() {
    let cpu = Device::cpu(2).expect("a CPU");
    for (case, again) in cases().into_iter().zip(cases()) {
        let name = case.name;
        let want = Model::new(&cpu, case).losses(3);
        let got = Model::new(&gpu(false), again).losses(3);
        for (got, want) in got.iter().zip(&want) {
            assert!((got / want - 1.0).abs() < 1e-5, "{name}: {got} on the GPU, {want} on the CPU");
        }
    }
}

#[test]
fn a_warm_step_allocates_nothing() {
    // One thread, so that all the work is counted here.
    let device = Device::cpu(1).expect("a CPU");
    for case in cases() {
        let (name, optimizer) = (case.name, adam(0.9));
        let mut model = Model::new(&device, case);
        optimizer.prepare(&mut model.params);
        for step in 0..5 {
            let batch = model.batch(0);
            let count = crate::alloc::allocations(|| _ = model.step(&optimizer, step, batch));
            assert!(step < 2 || count == 0, "{name}: step {step} asked the global allocator {count} times");
        }
    }
}

#[test]
fn pictures_are_means_and_noise_makes_them_differ() {
    let device = Device::cpu(1).expect("a CPU");
    let (vae, decls) = Vae::new(VaeConfig { classes: Some(10), ..VaeConfig::conv([28, 28, 1]) });
    let (params, mut tape) = (Params::new(&device, &decls, 1), Tape::new(&device));
    tape.begin(&params, Pass::default());
    let labels = tape.constant(Tensor::from_slice(&device, &[3i32, 3], [2]));
    let picture = |z: Var| vae.picture(vae.decode(z, Some(labels))).value();
    let a = picture(tape.normal([2, 20]));
    assert_eq!(a.shape()[..], [2, 28, 28, 1]);
    assert!(a.f32().iter().all(|x| (0.0..=1.0).contains(x)) && a.f32()[..784] != a.f32()[784..]);
    assert!(picture(tape.normal([2, 20])).f32() != a.f32(), "each call has a stream of its own");
}

#[test]
fn a_configuration_goes_through_json_and_a_wrong_field_is_named() {
    let path = Path::new("config.json");
    for case in cases() {
        let text = case.config.to_json().to_string();
        let json = serde_json::from_str(&text).expect("JSON");
        assert_eq!(VaeConfig::from_json(&json, path).expect("a configuration"), case.config);
    }
    for (field, value) in [
        ("model_type", serde_json::json!("gpt2")),
        ("shape", serde_json::json!([28, 28, 5])),
        ("shape", serde_json::json!([28, 2])),
        ("channels", serde_json::json!([32, 64, 128])),
        ("channels", serde_json::json!([0])),
        ("hidden", serde_json::json!(-1)),
        ("latent", serde_json::json!(0)),
        ("likelihood", serde_json::json!({ "gaussian": 0.0 })),
        ("likelihood", serde_json::json!("poisson")),
        ("classes", serde_json::json!(1)),
    ] {
        let mut json = VaeConfig::conv([28, 28, 1]).to_json();
        json[field] = value;
        let error = VaeConfig::from_json(&json, path).expect_err("it has a wrong field");
        let (text, hint) = (error.to_string(), error.hint());
        assert!(text.contains("config.json") && text.contains(field) && hint.is_some(), "{field}: {text}");
    }
}
