//! The classifier that judges pictures against PyTorch in float64: features, logits, loss, every gradient, ten steps. The
//! numbers were made by `tests/reference/classifier.py`, the weights by its formula.

use crate::gpt::{close, names, read};
use crate::gpu::gpu;
use crate::vae::{adam, floats, part};
use kiln::device::Device;
use kiln::model::{Classifier, ClassifierConfig};
use kiln::params::Params;
use kiln::tape::{Pass, Tape};
use kiln::tensor::{Shape, Tensor};
use safetensors::SafeTensors;

fn get(key: &str) -> (Shape, Vec<f64>) {
    let file =
        SafeTensors::deserialize(include_bytes!("../fixtures/classifier.safetensors")).expect("a safetensors file");
    read(&file, key)
}

/// The parameters in the order of the formula.
const NAMES: [&str; 7] =
    ["conv.0.weight", "conv.0.bias", "conv.1.weight", "conv.1.bias", "fc.weight", "fc.bias", "head.weight"];

fn model(device: &Device) -> (Classifier, Params, Tape) {
    let (classifier, decls) = Classifier::new(ClassifierConfig { shape: [18, 13, 2], classes: 3 });
    let mut params = Params::new(device, &decls, 1);
    for (id, name) in names(&params) {
        let place = NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name}")) as f64;
        let shape = params.weight(id).shape().to_vec();
        let n: usize = shape.iter().product();
        let fan = if shape.len() > 1 { n / shape[0] } else { 64 };
        let value = |i: usize| ((0.37 * (i + 1) as f64 + place).sin() / (fan as f64).sqrt()) as f32;
        params.set_weight(id, &(0..n).map(value).collect::<Vec<f32>>());
    }
    (classifier, params, Tape::new(device))
}

fn batch(device: &Device, step: usize) -> [Tensor; 2] {
    let (shape, labels) = get("labels");
    let n = shape[1];
    let labels: Vec<i32> = labels[step * n..][..n].iter().map(|&label| label as i32).collect();
    [floats(device, part(&get("x"), step)), Tensor::from_slice(device, &labels, [n])]
}

#[test]
fn features_loss_and_gradients_match_pytorch_in_float64() {
    let device = Device::cpu(2).expect("a CPU");
    let (classifier, mut params, mut tape) = model(&device);
    let [x, labels] = batch(&device, 0);
    tape.begin(&params, Pass::default());
    let features = classifier.features(tape.constant(x.clone()));
    close("features", features.value().f32(), &get("features").1, 1e-5, 1e-6);
    close("logits", classifier.logits(features).value().f32(), &get("logits").1, 1e-5, 1e-6);
    tape.begin(&params, Pass::default());
    let loss = classifier.loss(tape.constant(x), tape.constant(labels));
    close("loss", loss.value().f32(), &get("loss").1, 1e-5, 1e-6);
    loss.backward(&mut params, true);
    for (id, name) in names(&params) {
        let (shape, want) = get(&format!("grad.{name}"));
        let gradient = params.grad(id).expect("a gradient").f32().to_vec();
        let rows = params.weight(id).shape()[0];
        let columns = gradient.len() / rows;
        let sums = |gradient: &[f32]| -> Vec<f32> {
            let of_rows = gradient.chunks_exact(columns).map(|row| row.iter().sum());
            let column = |j: usize| (0..rows).map(|i| gradient[i * columns + j]).sum();
            of_rows.chain((0..columns).map(column)).collect()
        };
        let got = if gradient.len() == shape.numel() { gradient } else { sums(&gradient) };
        close(&name, &got, &want, 1e-4, 1e-6);
    }
}

/// The losses of so many steps of Adam.
fn losses(device: &Device, steps: usize) -> Vec<f32> {
    let (classifier, mut params, mut tape) = model(device);
    let optimizer = adam(0.9);
    optimizer.prepare(&mut params);
    let mut step = |i: usize| {
        let [x, labels] = batch(device, i);
        tape.begin(&params, Pass::default());
        let loss = classifier.loss(tape.constant(x), tape.constant(labels));
        let value = loss.value();
        loss.backward(&mut params, true);
        tape.settle(&mut params);
        optimizer.step(&mut params, i as u64 + 1, 1e-3, &[value]).expect("an update").loss
    };
    (0..steps).map(&mut step).collect()
}

#[test]
fn ten_steps_match_pytorch_and_three_the_simulated_gpu() {
    let host = losses(&Device::cpu(2).expect("a CPU"), 10);
    for (got, want) in host.iter().zip(get("train.losses").1) {
        assert!((f64::from(*got) - want).abs() <= 1e-4 * want, "{host:?}");
    }
    for (got, want) in losses(&gpu(true), 3).iter().zip(&host) {
        assert!((got - want).abs() <= 1e-4 * want, "{host:?}");
    }
}
