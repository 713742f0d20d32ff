//! Checks a case: the forward pass against the f64 reference, and each gradient against central differences of that
//! reference (not of the f32 code, whose rounding would drown them).
//!
//! Bounds: max |y − y64| ≤ 1e-5 · max |y64| + 1e-6 for results, max |g − g64| ≤ bound · max |g64| + 1e-6 for gradients, with
//! the case's bound, 1e-4 where it names none; all coordinates up to 256, else 64 sampled ones and 8 random directions.
//! Inputs that an operation rounds to bf16 are rounded for the reference too, and only for it.
//!
//! [`in_bf16`] is the same for a GPU that computes in bf16: activations and parameters that are no vectors are held in it,
//! the gradients of parameters in f32. The bounds are then those of numbers with 8 bits.

use super::attention::SelfAttention;
use super::conv::Conv;
use super::embedding::Embedding;
use super::linear::Linear;
use super::linear_xent::LinearXent;
use super::{Case, Input};
use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::params::{Decl, Hold, Init, Kind, ParamId, Params};
use crate::rng::{Purpose, Rng};
use crate::tape::{Array64, Pass, Tape, Var};
use crate::tensor::{DType, Spec, Tensor};
use half::{bf16, f16};
use std::any::Any;

/// The seed of the pass in which a case runs, and so of random numbers in cases.
pub const SEED: u64 = 5;

/// The same case in bf16, for a GPU.
pub fn in_bf16(case: Case) -> Case {
    let Case { mut op, mut inputs, .. } = case;
    if let Some(embedding) = (&mut *op as &mut dyn Any).downcast_mut::<Embedding>() {
        embedding.dtype = DType::Bf16;
    }
    // What has a gradient, and what goes with it.
    let activations: Vec<Spec> = inputs.iter().filter(|input| input.grad && !input.param).map(|x| x.spec).collect();
    for input in &mut inputs {
        match input.param {
            // Held in f32 too, and computed with in bf16.
            true => input.rounded = input.spec.shape.len() > 1,
            false if input.spec.dtype == DType::F32 && activations.contains(&input.spec) => {
                input.spec.dtype = DType::Bf16
            }
            false => {}
        }
    }
    Case { op, inputs, bounds: [1.0 / 128.0, 1.0 / 64.0], ..case }
}

/// The same case with products in bf16 on the host; `None` where the operation has none.
pub fn in_bf16_products(mut case: Case) -> Option<Case> {
    let op = &mut *case.op as &mut dyn Any;
    let precision = match () {
        () if op.is::<Linear>() => op.downcast_mut().map(|op: &mut Linear| &mut op.precision),
        () if op.is::<Conv>() => op.downcast_mut().map(|op: &mut Conv| &mut op.precision),
        () if op.is::<LinearXent>() => op.downcast_mut().map(|op: &mut LinearXent| &mut op.precision),
        () => op.downcast_mut().map(|op: &mut SelfAttention| &mut op.precision),
    };
    *precision? = Precision::Bf16;
    Some(case.rounding())
}

/// The names of parameters by how they are held.
const TRAINED: &str = "trained";
const FROZEN_BF16: &str = "bf16";

/// A case's inputs on a device: some are parameters, the others tensors of their own.
pub struct Inputs {
    /// The parameters; their gradients go here.
    pub params: Params,
    /// Which inputs are parameters.
    pub ids: Vec<Option<ParamId>>,
    inputs: Vec<Input>,
    values: Vec<Tensor>,
}

impl Inputs {
    /// Puts them there.
    pub fn new(inputs: &[Input], device: &Device) -> Inputs {
        let half = inputs.iter().any(|input| input.spec.dtype == DType::Bf16 && input.grad);
        let decl = |input: &Input| {
            let kind = if input.spec.shape.len() > 1 { Kind::Matrix } else { Kind::Vector };
            let name = match input.grad {
                true => TRAINED,
                false if half && kind == Kind::Matrix => FROZEN_BF16,
                false => "",
            };
            Decl::new(name, input.spec.shape, kind, Init::Zeros)
        };
        let decls: Vec<Decl> = inputs.iter().filter(|input| input.param).map(decl).collect();
        let mut next = (0..).map(ParamId);
        let ids: Vec<Option<ParamId>> =
            inputs.iter().map(|input| next.by_ref().take(usize::from(input.param)).next()).collect();
        let mut params = Params::with(device, &decls, 0, |decl| match &*decl.name {
            TRAINED => Hold::Train,
            FROZEN_BF16 => Hold::FrozenBf16,
            _ => Hold::Frozen,
        });
        for (i, (input, id)) in (0..).zip(inputs.iter().zip(&ids)) {
            if let Some(id) = *id {
                params.set_weight(id, &input.data(i));
            }
        }
        if half {
            params.add_shadows();
        }
        Inputs { params, ids, values: values(inputs, device), inputs: inputs.to_vec() }
    }

    /// Begins a pass.
    pub fn begin(&self, tape: &mut Tape) {
        tape.begin(&self.params, Pass { seed: SEED, ..Pass::default() });
    }

    /// The inputs on a tape on which a pass has begun.
    pub fn on<'t>(&self, tape: &'t Tape) -> Vec<Var<'t>> {
        let leaves = leaves(tape, &self.inputs, &self.values).into_iter().zip(&self.ids);
        leaves.map(|(leaf, id)| id.map_or(leaf, |id| tape.param(id))).collect()
    }
}

/// The results and gradients of a case on a device, as f32: results first, then the gradients of the inputs that have one.
pub fn run(case: Case, device: &Device) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let (mut tape, mut inputs) = (Tape::new(device), Inputs::new(&case.inputs, device));
    inputs.begin(&mut tape);
    let x = inputs.on(&tape);
    let state = case.op.state();
    let y0 = tape.apply_dyn(case.op, &x);
    let results = (0..y0.outputs()).map(|i| to_f32(&y0.output(i).value())).collect();
    if case.inputs.iter().any(|input| input.grad) {
        y0.backward_from(&upstream(y0, state), &mut inputs.params, true);
    }
    let gradient = |((x, id), input): ((&Var, &Option<ParamId>), &Input)| {
        let grad = || id.map_or_else(|| x.grad(), |id| inputs.params.grad(id));
        input.grad.then(|| grad().map_or_else(|| vec![0.0; x.shape().numel()], |g| to_f32(&g)))
    };
    (results, x.iter().zip(&inputs.ids).zip(&case.inputs).filter_map(gradient).collect())
}

/// The values of a case's inputs on a device.
pub fn values(inputs: &[Input], device: &Device) -> Vec<Tensor> {
    let value = |(i, input): (u32, &Input)| {
        let (data, shape) = (input.data(i), input.spec.shape);
        match input.spec.dtype {
            DType::F32 => Tensor::from_slice(device, &data, shape),
            DType::I32 => Tensor::from_slice(device, &convert(&data, |x| x as i32), shape),
            DType::Bf16 => Tensor::from_slice(device, &convert(&data, bf16::from_f32), shape),
            DType::F16 => Tensor::from_slice(device, &convert(&data, f16::from_f32), shape),
            DType::U8 => Tensor::from_slice(device, &convert(&data, |x| x as u8), shape),
            DType::Q8 | DType::Q4 => unreachable!("only parameters are held in 8 bits"),
        }
    };
    (0..).zip(inputs).map(value).collect()
}

fn convert<T>(data: &[f32], f: impl Fn(f32) -> T) -> Vec<T> {
    data.iter().map(|&x| f(x)).collect()
}

/// Puts the values of a case's inputs on a tape.
pub fn leaves<'t>(tape: &'t Tape, inputs: &[Input], values: &[Tensor]) -> Vec<Var<'t>> {
    let leaf = |(input, value): (&Input, &Tensor)| match input.grad {
        true => tape.variable(value.clone()),
        false => tape.constant(value.clone()),
    };
    inputs.iter().zip(values).map(leaf).collect()
}

/// The gradients of all results of the operation that made `y`: those of the scalar that a case is differentiated
/// through. `state`: see [`Op::state`](crate::tape::Op::state).
pub fn upstream(y: Var, state: u8) -> Vec<Tensor> {
    let gradient = |i| {
        let (y, device) = (y.output(i).value(), y.tape().device());
        let weights = weights(i, y.numel(), state);
        match y.dtype() {
            DType::Bf16 => Tensor::from_slice(device, &convert(&weights, bf16::from_f32), *y.shape()),
            _ => Tensor::from_slice(device, &weights, *y.shape()),
        }
    };
    (0..y.outputs()).map(gradient).collect()
}

fn to_f32(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F32 => tensor.read().into_owned(),
        DType::I32 => tensor.read::<i32>().iter().map(|&x| x as f32).collect(),
        DType::Bf16 => tensor.read::<bf16>().iter().map(|x| x.to_f32()).collect(),
        DType::F16 => tensor.read::<f16>().iter().map(|x| x.to_f32()).collect(),
        DType::U8 => tensor.read::<u8>().iter().map(|&x| f32::from(x)).collect(),
        DType::Q8 | DType::Q4 => to_f32(&tensor.widened()),
    }
}

/// The weights r of result `i` in the scalar that a case is differentiated through, Σ r·y: numbers of bf16, which an
/// operation that rounds them leaves as they are. 0 for what is state.
fn weights(i: usize, n: usize, state: u8) -> Vec<f32> {
    if state >> i & 1 != 0 {
        return vec![0.0; n];
    }
    let mut rng = Rng::new(1, Purpose::Test, 100 + i as u32, 0);
    (0..n).map(|_| bf16::from_f32(2.0 * rng.uniform() - 1.0).to_f32()).collect()
}

/// Checks one case on a device.
///
/// # Errors
/// What differs from the reference, by how much, and where.
pub fn check(case: Case, device: &Device) -> Result<(), String> {
    let inputs: Vec<Array64> = (0..)
        .zip(&case.inputs)
        .map(|(i, input)| {
            let data = input.data(i).into_iter().map(|x| match input.spec.dtype {
                DType::F32 if input.rounded => bf16::from_f32(x).to_f64(),
                DType::Bf16 => bf16::from_f32(x).to_f64(),
                DType::F16 => f16::from_f32(x).to_f64(),
                _ => f64::from(x),
            });
            Array64::new(input.spec.shape, data.collect())
        })
        .collect();
    let expected = case.op.reference(&inputs);
    let grads: Vec<usize> = (0..case.inputs.len()).filter(|&i| case.inputs[i].grad).collect();
    // The scalar Σ r·y by the reference.
    let weights: Vec<Vec<f32>> =
        expected.iter().enumerate().map(|(i, y)| weights(i, y.data.len(), case.op.state())).collect();
    let op = &case.op;
    let scalar = |x: &[Array64]| -> f64 {
        let dot = |(y, r): (&Array64, &Vec<f32>)| y.data.iter().zip(r).map(|(y, r)| y * f64::from(*r)).sum::<f64>();
        op.reference(x).iter().zip(&weights).map(dot).sum()
    };
    const H: f64 = 1e-5;
    // The derivative of the scalar when input i moves along `direction`.
    let derivative = |i: usize, direction: &dyn Fn(usize) -> f64| -> f64 {
        let moved = |h: f64| {
            let mut x = inputs.clone();
            x[i].data.iter_mut().enumerate().for_each(|(j, x)| *x += h * direction(j));
            scalar(&x)
        };
        (moved(H) - moved(-H)) / (2.0 * H)
    };
    type Probe = (String, Box<dyn Fn(usize) -> f64>);
    let mut differences: Vec<Vec<(Probe, f64)>> = Vec::new();
    for &i in &grads {
        let n = inputs[i].data.len();
        let mut rng = Rng::new(2, Purpose::Test, i as u32, 0);
        let mut probes: Vec<Probe> = Vec::new();
        let coordinates: Vec<usize> =
            if n <= 256 { (0..n).collect() } else { (0..64).map(|_| rng.below(n as u32) as usize).collect() };
        for c in coordinates {
            probes.push((format!("element {c}"), Box::new(move |j| f64::from(u8::from(j == c)))));
        }
        if n > 256 {
            for d in 0..8u32 {
                let signs = crate::rng::Stream::new(3, Purpose::Test, 8 * i as u32 + d, 0);
                let scale = 1.0 / (n as f64).sqrt();
                let direction = move |j: usize| if signs.bits(j as u64) & 1 == 0 { scale } else { -scale };
                probes.push((format!("direction {d}"), Box::new(direction)));
            }
        }
        differences.push(
            probes
                .into_iter()
                .map(|probe| {
                    let d = derivative(i, probe.1.as_ref());
                    (probe, d)
                })
                .collect(),
        );
    }
    let (name, bounds) = (case.name.clone(), case.bounds);
    let (values, gradients) = run(case, device);
    if let Device::Gpu(gpu) = device {
        gpu.check().map_err(|error| format!("{name}: {error}"))?;
    }
    for (i, (got, expected)) in values.iter().zip(&expected).enumerate() {
        let max = expected.data.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (j, (&got, &want)) in got.iter().zip(&expected.data).enumerate() {
            let error = (f64::from(got) - want).abs();
            if (error.is_nan() || error > bounds[0] * max + 1e-6) && f64::from(got) != want {
                return Err(format!("{name}: result {i}, element {j}: {got}, the reference says {want}"));
            }
        }
        if got.len() != expected.data.len() {
            return Err(format!("{name}: result {i} has {} elements, not {}", got.len(), expected.data.len()));
        }
    }
    for ((&i, got), differences) in grads.iter().zip(&gradients).zip(&differences) {
        let max = differences.iter().fold(0.0f64, |m, (_, d)| m.max(d.abs()));
        for ((what, direction), want) in differences {
            let got: f64 = got.iter().enumerate().map(|(j, &g)| f64::from(g) * direction(j)).sum();
            let error = (got - want).abs();
            if error.is_nan() || error > bounds[1] * max + 1e-6 {
                return Err(format!("{name}: gradient of input {i}, {what}: {got}, the reference says {want}"));
            }
        }
    }
    Ok(())
}
