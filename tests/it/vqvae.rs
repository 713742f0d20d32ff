//! A vector-quantised autoencoder against PyTorch in float64: loss and parts, ids, every gradient, the codebook's next state,
//! ten steps. The numbers were made by `tests/reference/vqvae.py`, which chooses rows for dead codes as kiln does.

use crate::gpt::{close, names, read};
use crate::gpu::gpu;
use crate::vae::{adam, floats, part};
use kiln::device::Device;
use kiln::model::{VqVae, VqVaeConfig};
use kiln::optim::Optimizer;
use kiln::params::Params;
use kiln::tape::{Pass, Tape};
use kiln::tensor::{Shape, Tensor};
use safetensors::SafeTensors;
use std::path::Path;

fn get(key: &str) -> (Shape, Vec<f64>) {
    let file = SafeTensors::deserialize(include_bytes!("../fixtures/vqvae.safetensors")).expect("a safetensors file");
    read(&file, key)
}

fn config() -> VqVaeConfig {
    VqVaeConfig { channels: vec![3, 4], codes: 6, width: 5, decay: 0.75, ..VqVaeConfig::new([8, 12, 1]) }
}

/// A model with the initial weights and the codebook of the fixture, on any device.
struct Model {
    vae: VqVae,
    params: Params,
    tape: Tape,
    device: Device,
}

impl Model {
    fn new(device: &Device) -> Model {
        let (vae, decls) = VqVae::new(config());
        let mut params = Params::new(device, &decls, 1);
        for (id, name) in names(&params) {
            let values: Vec<f32> = get(&format!("init.{name}")).1.iter().map(|&x| x as f32).collect();
            params.set_weight(id, &values);
        }
        Model { vae, params, tape: Tape::new(device), device: device.clone() }
    }

    fn batch(&self, step: u64) -> Tensor {
        floats(&self.device, part(&get("x"), step as usize))
    }

    /// One step of Adam, and the loss before it.
    fn step(&mut self, optimizer: &Optimizer, step: u64, x: Tensor) -> f32 {
        self.tape.begin(&self.params, Pass { seed: 9, step, training: true, ..Pass::default() });
        let loss = self.vae.loss(self.tape.constant(x)).loss;
        let value = loss.value();
        loss.backward(&mut self.params, true);
        self.tape.settle(&mut self.params);
        optimizer.step(&mut self.params, step + 1, 1e-2, &[value]).expect("an update").loss
    }

    fn losses(&mut self, steps: u64) -> Vec<f32> {
        let optimizer = adam(0.9);
        optimizer.prepare(&mut self.params);
        (0..steps).map(|i| self.step(&optimizer, i, self.batch(i))).collect()
    }

    /// The codebook and its state, against those of the fixture.
    fn codebook_is(&self, when: &str) {
        for (id, name) in names(&self.params).iter().filter(|(_, name)| name.starts_with("codebook")) {
            close(
                &format!("{when} {name}"),
                &self.params.weight(*id).read(),
                &get(&format!("{when}.{name}")).1,
                1e-4,
                1e-6,
            );
        }
    }
}

#[test]
fn loss_gradients_and_codebook_match_pytorch_in_float64() {
    let mut model = Model::new(&Device::cpu(2).expect("a CPU"));
    let x = model.batch(0);
    model.tape.begin(&model.params, Pass { seed: 9, training: true, ..Pass::default() });
    let of = model.vae.loss(model.tape.constant(x));
    for (key, value) in [("loss", of.loss), ("reconstruction", of.reconstruction), ("commitment", of.commitment)] {
        close(key, value.value().f32(), &get(key).1, 1e-5, 1e-6);
    }
    let ids: Vec<f64> = of.ids.value().i32().iter().map(|&id| id.into()).collect();
    assert_eq!((&of.ids.shape()[..], ids), (&[3, 6][..], get("ids").1));
    of.loss.backward(&mut model.params, true);
    model.tape.settle(&mut model.params);
    for (id, name) in names(&model.params).into_iter().filter(|(id, _)| model.params.is_trainable(*id)) {
        let grad = model.params.grad(id).unwrap_or_else(|| panic!("{name} has no gradient"));
        close(&name, grad.f32(), &get(&format!("grad.{name}")).1, 1e-4, 1e-6);
    }
    model.codebook_is("next");
}

#[test]
fn ten_steps_of_adam_have_pytorchs_losses_and_codebook() {
    let mut model = Model::new(&Device::cpu(2).expect("a CPU"));
    for (i, (got, want)) in model.losses(10).iter().zip(&get("train.losses").1).enumerate() {
        close(&format!("loss of step {i}"), &[*got], &[*want], 1e-4, 0.0);
    }
    model.codebook_is("final");
}

#[test]
fn three_steps_on_a_gpu_have_the_losses_of_the_cpu() {
    let want = Model::new(&Device::cpu(2).expect("a CPU")).losses(3);
    for (got, want) in Model::new(&gpu(false)).losses(3).iter().zip(&want) {
        assert!((got / want - 1.0).abs() < 1e-5, "{got} on the GPU, {want} on the CPU");
    }
}

#[test]
fn a_warm_step_allocates_nothing() {
    // One thread, so that all the work is counted here.
    let (mut model, optimizer) = (Model::new(&Device::cpu(1).expect("a CPU")), adam(0.9));
    optimizer.prepare(&mut model.params);
    for step in 0..5 {
        let x = model.batch(0);
        let count = crate::alloc::allocations(|| _ = model.step(&optimizer, step, x));
        assert!(step < 2 || count == 0, "step {step} asked the global allocator {count} times");
    }
}

/// And what is evaluated leaves the codebook alone.
#[test]
fn ids_say_all_that_the_decoder_reads() {
    let mut model = Model::new(&Device::cpu(2).expect("a CPU"));
    let x = model.batch(0);
    let Model { vae, params, tape, .. } = &mut model;
    tape.begin(params, Pass::default());
    let x = tape.constant(x);
    let ids = vae.encode(x);
    let decoded = vae.decode(tape.constant(ids.value()));
    let nll = decoded.loss(kiln::ops::loss::LossKind::Bce, x).mean().value().item();
    let of = vae.loss(x);
    assert!((nll / of.reconstruction.value().item() - 1.0).abs() < 1e-6);
    assert_eq!(of.ids.value().i32(), ids.value().i32());
    assert!(vae.picture(decoded).value().f32().iter().all(|x| (0.0..=1.0).contains(x)));
    tape.settle(params);
    model.codebook_is("init");
}

#[test]
fn a_configuration_goes_through_json_and_a_wrong_field_is_named() {
    let path = Path::new("config.json");
    let json = serde_json::from_str(&config().to_json().to_string()).expect("JSON");
    assert_eq!(VqVaeConfig::from_json(&json, path).expect("a configuration"), config());
    for (field, value) in [
        ("model_type", serde_json::json!("vae")),
        ("channels", serde_json::json!([])),
        ("channels", serde_json::json!([1, 1, 1])),
        ("codes", serde_json::json!(0)),
        ("width", serde_json::json!(1 << 20)),
        ("commitment", serde_json::json!(-1.0)),
        ("decay", serde_json::json!(1.0)),
        ("likelihood", serde_json::json!({ "gaussian": -1.0 })),
    ] {
        let mut json = config().to_json();
        json[field] = value;
        let error = VqVaeConfig::from_json(&json, path).expect_err("it has a wrong field");
        assert!(error.to_string().contains(field) && error.hint().is_some(), "{field}: {error}");
    }
}
