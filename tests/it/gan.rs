//! Generators and discriminators against PyTorch in float64: losses, every gradient, ten steps in turns, samples. The numbers
//! were made by `tests/reference/gan.py`.

use crate::gpt::{close, ids, names, read, read_param};
use crate::gpu::gpu;
use crate::vae::{adam, floats, part};
use kiln::device::Device;
use kiln::model::gan::{DISCRIMINATOR, GENERATOR};
use kiln::model::{Gan, GanConfig, GanLoss, Scale};
use kiln::optim::Optimizer;
use kiln::params::Params;
use kiln::tape::{Pass, Tape, Var};
use kiln::tensor::{Shape, Tensor};
use safetensors::SafeTensors;
use std::path::Path;

const FILE: &[u8] = include_bytes!("../fixtures/gan.safetensors");

fn file() -> SafeTensors<'static> {
    SafeTensors::deserialize(FILE).expect("a safetensors file")
}

/// A case of the fixture: its name, the networks, their loss and its smoothing.
struct Case {
    name: &'static str,
    config: GanConfig,
    loss: GanLoss,
    smoothing: f32,
}

fn cases() -> [Case; 3] {
    let config = |shape, classes| GanConfig { latent: 5, g: 3, d: 3, classes, ..GanConfig::dcgan(shape) };
    let case = |name, loss, smoothing, config| Case { name, config, loss, smoothing };
    [
        case("plain", GanLoss::NonSaturating, 0.1, config([16, 16, 1], None)),
        case("classes", GanLoss::Hinge, 0.0, config([14, 14, 2], Some(3))),
        case("spectral", GanLoss::Hinge, 0.0, GanConfig { scale: Scale::Spectral, ..config([8, 8, 1], None) }),
    ]
}

/// Networks with the initial weights of the fixture, on any device.
struct Model {
    gan: Gan,
    params: Params,
    /// One a network: a step finds the nodes of the last one.
    tapes: [Tape; 2],
    device: Device,
    case: Case,
}

/// Data, latent numbers and labels of a step.
struct Batch {
    x: Tensor,
    z: Tensor,
    labels: Option<Tensor>,
}

impl Model {
    fn new(device: &Device, case: Case) -> Model {
        let (gan, decls) = Gan::new(case.config.clone());
        let mut params = Params::new(device, &decls, 1);
        // Buffers stay as they start.
        let key = |params: &Params, id| format!("{}.init.{}", case.name, params.name(id));
        for id in params.ids().filter(|&id| file().tensor(&key(&params, id)).is_ok()).collect::<Vec<_>>() {
            let values = read(&file(), &key(&params, id)).1;
            params.set_weight(id, &values.iter().map(|&x| x as f32).collect::<Vec<_>>());
        }
        Model { gan, params, tapes: [(); 2].map(|()| Tape::new(device)), device: device.clone(), case }
    }

    fn get(&self, key: &str) -> (Shape, Vec<f64>) {
        read(&file(), &format!("{}.{key}", self.case.name))
    }

    fn batch(&self, step: u64) -> Batch {
        let of = |key| part(&self.get(key), step as usize);
        let labels = self.case.config.classes.map(|_| ids(&self.device, of("labels")));
        Batch { x: floats(&self.device, of("x")), z: floats(&self.device, of("z")), labels }
    }

    /// The loss of a network and its gradients, in a pass that trains no other.
    fn pass(&mut self, net: u8, step: u64, Batch { x, z, labels }: Batch) -> Tensor {
        self.params.focus(Some(net));
        let tape = &mut self.tapes[net as usize];
        tape.begin(&self.params, Pass { step, training: true, ..Pass::default() });
        let on = |x: Tensor| tape.constant(x);
        let labels = labels.map(on);
        let fake = || self.gan.judge(self.gan.generate(on(z), labels), labels);
        let loss = match net {
            DISCRIMINATOR => {
                let real = self.gan.judge(on(x), labels);
                self.case.loss.d(real, fake(), self.case.smoothing)
            }
            _ => self.case.loss.g(fake()),
        };
        let value = loss.value();
        loss.backward(&mut self.params, true);
        self.tapes[net as usize].settle(&mut self.params);
        value
    }

    /// A step of the discriminator and one of the generator: their losses.
    fn turns(&mut self, optimizer: &Optimizer, step: u64, batch: impl Fn() -> Batch) -> [f32; 2] {
        [DISCRIMINATOR, GENERATOR].map(|net| {
            let loss = self.pass(net, step, batch());
            optimizer.step(&mut self.params, step + 1, 1e-3, &[loss]).expect("an update").loss
        })
    }

    fn losses(&mut self, steps: u64) -> Vec<f32> {
        let optimizer = adam(0.5);
        optimizer.prepare(&mut self.params);
        let batches: Vec<Batch> = (0..steps).map(|step| self.batch(step)).collect();
        let batch = |Batch { x, z, labels }: &Batch| Batch { x: x.clone(), z: z.clone(), labels: labels.clone() };
        (0..steps).zip(&batches).flat_map(|(step, given)| self.turns(&optimizer, step, || batch(given))).collect()
    }
}

#[test]
fn losses_and_gradients_of_both_networks_match_pytorch_in_float64() {
    let device = Device::cpu(2).expect("a CPU");
    for case in cases() {
        let mut model = Model::new(&device, case);
        let name = model.case.name;
        let want = model.get("train.losses").1;
        let optimizer = adam(0.5);
        optimizer.prepare(&mut model.params);
        for (net, prefix, want) in [(DISCRIMINATOR, "d.", want[0]), (GENERATOR, "g.", want[1])] {
            let loss = model.pass(net, 0, model.batch(0));
            close(&format!("{name}: loss of {prefix}"), loss.f32(), &[want], 1e-5, 1e-6);
            let mut seen = 0;
            for (id, parameter) in names(&model.params) {
                let Some(grad) = model.params.grad(id) else { continue };
                assert!(parameter.starts_with(prefix), "{parameter} has a gradient in a step of {prefix}");
                let want = read_param(&file(), &format!("{name}.grad"), &model.params, id);
                close(&format!("{name}: {parameter}"), grad.f32(), &want, 1e-4, 1e-6);
                seen += 1;
            }
            let trained = names(&model.params).iter().filter(|(id, _)| model.params.is_trainable(*id)).count();
            assert_eq!(seen, trained, "{name}: {prefix} has parameters without a gradient");
            optimizer.step(&mut model.params, 1, 1e-3, &[loss]).expect("an update");
        }
    }
}

#[test]
fn ten_steps_in_turns_have_pytorchs_losses_statistics_and_samples() {
    let device = Device::cpu(2).expect("a CPU");
    for case in cases() {
        let mut model = Model::new(&device, case);
        let (name, want) = (model.case.name, model.get("train.losses").1);
        for (i, (got, want)) in model.losses(10).iter().zip(&want).enumerate() {
            close(&format!("{name}: loss {i}"), &[*got], &[*want], 1e-4, 1e-5);
        }
        for (id, parameter) in names(&model.params)
            .iter()
            .filter(|(_, parameter)| file().tensor(&format!("{name}.final.{parameter}")).is_ok())
        {
            let want = model.get(&format!("final.{parameter}")).1;
            close(&format!("{name}: {parameter}"), model.params.weight(*id).f32(), &want, 1e-4, 1e-5);
        }
        let Batch { z, labels, .. } = model.batch(0);
        let tape = &mut model.tapes[0];
        tape.begin(&model.params, Pass::default());
        let on = |x: Tensor| tape.constant(x);
        let samples = model.gan.generate(on(z), labels.map(on)).value();
        close(&format!("{name}: samples"), samples.f32(), &model.get("samples").1, 1e-3, 0.0);
    }
}

#[test]
fn every_loss_is_pytorchs() {
    let device = Device::cpu(1).expect("a CPU");
    let tape = Tape::new(&device);
    let logits = |key| tape.constant(floats(&device, read(&file(), key)));
    let (real, fake): (Var, Var) = (logits("losses.real"), logits("losses.fake"));
    for (key, loss) in [
        ("non_saturating", GanLoss::NonSaturating),
        ("hinge", GanLoss::Hinge),
        ("least_squares", GanLoss::LeastSquares),
        ("wasserstein", GanLoss::Wasserstein),
    ] {
        let got = [loss.d(real, fake, 0.1), loss.g(fake)].map(|loss| loss.value().item());
        close(key, &got, &read(&file(), &format!("losses.{key}")).1, 1e-6, 1e-6);
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
            assert!((got - want).abs() < 1e-4 * want.abs() + 1e-5, "{name}: {got} on the GPU, {want} on the CPU");
        }
    }
}

#[test]
fn warm_turns_allocate_nothing() {
    // One thread, so that all the work is counted here.
    let device = Device::cpu(1).expect("a CPU");
    for case in cases() {
        let (name, optimizer) = (case.name, adam(0.5));
        let mut model = Model::new(&device, case);
        optimizer.prepare(&mut model.params);
        let Batch { x, z, labels } = model.batch(0);
        let batch = || Batch { x: x.clone(), z: z.clone(), labels: labels.clone() };
        for step in 0..5 {
            let count = crate::alloc::allocations(|| _ = model.turns(&optimizer, step, batch));
            assert!(step < 3 || count == 0, "{name}: step {step} asked the global allocator {count} times");
        }
    }
}

#[test]
fn a_configuration_goes_through_json_and_a_wrong_field_is_named() {
    let path = Path::new("config.json");
    for case in cases() {
        let text = case.config.to_json().to_string();
        let json = serde_json::from_str(&text).expect("JSON");
        assert_eq!(GanConfig::from_json(&json, path).expect("a configuration"), case.config);
    }
    for (field, value) in [
        ("model_type", serde_json::json!("vae")),
        ("shape", serde_json::json!([24, 24, 1])),
        ("shape", serde_json::json!([32, 28, 1])),
        ("shape", serde_json::json!([7, 7, 1])),
        ("latent", serde_json::json!(0)),
        ("g", serde_json::json!(1u64 << 63)),
        ("d", serde_json::json!(0)),
        ("classes", serde_json::json!("ten")),
        ("scale", serde_json::json!("layer")),
    ] {
        let mut json = GanConfig::dcgan([28, 28, 1]).to_json();
        json[field] = value;
        let error = GanConfig::from_json(&json, path).expect_err("it has a wrong field");
        assert!(error.to_string().contains(field) && error.hint().is_some(), "{field}: {error}");
    }
}

#[test]
fn a_dcgan_has_the_sizes_of_the_paper() {
    let device = Device::cpu(1).expect("a CPU");
    for (shape, want) in [([28, 28, 1], 897_664), ([32, 32, 3], 1_730_560)] {
        let (gan, decls) = Gan::new(GanConfig::dcgan(shape));
        let kernels = decls.iter().filter(|decl| decl.shape.len() == 4);
        assert_eq!(kernels.map(|decl| decl.shape.numel()).sum::<usize>(), want);
        let (params, mut tape) = (Params::new(&device, &decls, 1), Tape::new(&device));
        tape.begin(&params, Pass::default());
        let x = gan.generate(tape.normal([2, 100]), None);
        assert_eq!((&x.shape()[1..], &gan.judge(x, None).shape()[..]), (&shape[..], &[2][..]));
    }
}
