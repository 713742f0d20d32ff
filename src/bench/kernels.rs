//! The kernels beside the matrix product: rows of the operation table, forward and backward; cross-entropy over given
//! logits; AdamW with clipping.

use super::{Case, Clock, Part, Started, Unit, Work, repeated};
use crate::cpu::chunks;
use crate::cpu::gemm::Precision;
use crate::cpu::reduce::square_sum;
use crate::device::kernels::{self as plans, Float};
use crate::device::{Arg, Device};
use crate::launch::{self, at, flag, n};
use crate::model::{Gpt, GptConfig, Size};
use crate::ops::{self, Entry, Fill, Input, Role, TABLE, check, linear_xent};
use crate::optim::{self, AdamW, Optimizer};
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Spec, Tensor};
use serde_json::{Value, json};
use std::sync::Arc;

/// Operations of e^x and of one division, for those whose arithmetic counts.
const EXP: f64 = 19.0;

/// Floating-point operations for each element of the first input, forward and backward, of operations without products
/// (which [`Cpu::flops`](crate::cpu::Cpu::flops) counts): those of the formulas as `cpu::math` computes them.
fn arithmetic(op: &str) -> [f64; 2] {
    match op {
        "gelu_tanh" => [EXP + 6.0, EXP + 16.0],
        "layernorm" => [9.0, 16.0],
        _ => [0.0; 2],
    }
}

/// Every case of real size in the operation table.
pub fn ops(narrow: Narrow) -> Vec<Case> {
    table("ops", narrow, |_, _| true)
}

/// Causal attention at training sizes.
pub fn attention(narrow: Narrow) -> Vec<Case> {
    table("attention", narrow, |entry, _| entry.name == "attention")
}

/// LayerNorm after a residual addition.
pub fn layernorm(narrow: Narrow) -> Vec<Case> {
    table("layernorm", narrow, |entry, case| {
        entry.name == "norm" && case.name.starts_with("layernorm bias=true residual=true")
    })
}

/// Convolutions and transposed convolutions of a small VAE and of DCGAN on 28 x 28 pictures.
pub fn conv(narrow: Narrow) -> Vec<Case> {
    table("conv", narrow, |entry, _| entry.name == "conv")
}

/// GELU by its tanh approximation.
pub fn gelu(narrow: Narrow) -> Vec<Case> {
    table("gelu", narrow, |entry, case| entry.name == "activation" && case.name.starts_with("gelu_tanh"))
}

fn table(bench: &'static str, narrow: Narrow, wanted: impl Fn(&Entry, &ops::Case) -> bool) -> Vec<Case> {
    let mut all = Vec::new();
    for entry in TABLE {
        for (i, case) in (entry.cases)().into_iter().enumerate() {
            if case.role != Role::Bench || !wanted(entry, &case) {
                continue;
            }
            // A name that stands alone begins with that of its operation.
            let whole = bench != "ops" || case.name.starts_with(case.op.name());
            let name = if whole { case.name.clone() } else { format!("{} {}", case.op.name(), case.name) };
            let name = if narrow == Narrow::Nothing { name } else { format!("{name} bf16") };
            if let Some(case) = narrow.of(case) {
                all.push(Case::new(bench, name, spec(&case, narrow), move |device| {
                    Ok(start(entry, i, narrow, device))
                }));
            }
        }
    }
    all
}

/// What of an operation is in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// Nothing.
    Nothing,
    /// What goes into products, as on the host; operations without products have no such case.
    Products,
    /// Activations and matrices, as on a GPU.
    Arrays,
}

impl Narrow {
    /// What `precision` means on a device.
    pub fn on(precision: Precision, device: &Device) -> Narrow {
        match (precision, device) {
            (Precision::F32, _) => Narrow::Nothing,
            (Precision::Bf16, Device::Cpu(_)) => Narrow::Products,
            (Precision::Bf16, Device::Gpu(_)) => Narrow::Arrays,
        }
    }

    fn of(self, case: ops::Case) -> Option<ops::Case> {
        match self {
            Narrow::Nothing => Some(case),
            Narrow::Products => check::in_bf16_products(case),
            Narrow::Arrays => Some(check::in_bf16(case)),
        }
    }
}

/// An operation by its name, and what goes in.
fn spec(case: &ops::Case, narrow: Narrow) -> Value {
    let input = |input: &Input| {
        let below = if let Fill::Ids(n) = input.fill { json!(n) } else { Value::Null };
        // Where kiln rounds on the way into a product, others are given what is narrow already.
        let narrow = input.rounded || (narrow == Narrow::Products && input.grad);
        let dtype = if narrow { DType::Bf16 } else { input.spec.dtype };
        json!({"shape": &input.spec.shape[..], "dtype": dtype.name(), "grad": input.grad, "below": below})
    };
    let inputs: Vec<Value> = case.inputs.iter().map(input).collect();
    json!({"bench": "op", "op": case.op.name(), "case": case.name, "inputs": inputs})
}

/// Floating-point operations of the matrix products of case `i`, forward and backward, as the host counts them.
fn counted(entry: &'static Entry, i: usize, device: &Device) -> [f64; 2] {
    let (host, ops::Case { op, inputs, .. }) = (device.on_host(), (entry.cases)().swap_remove(i));
    let (mut tape, mut inputs) = (Tape::new(&host), check::Inputs::new(&inputs, &host));
    let flops = || host.host().flops() as f64;
    let before = flops();
    inputs.begin(&mut tape);
    let y = tape.apply_dyn(op, &inputs.on(&tape));
    let forward = flops();
    y.backward_from(&check::upstream(y, 0), &mut inputs.params, true);
    [forward - before, flops() - forward]
}

/// Case `i` of an operation, through the tape.
fn start(entry: &'static Entry, i: usize, narrow: Narrow, device: &Device) -> Started {
    // A tape keeps what it runs, so each run needs an operation of its own.
    let case = move || narrow.of((entry.cases)().swap_remove(i)).expect("it is in the table");
    let ops::Case { op, inputs, .. } = case();
    let specs: Vec<Spec> = inputs.iter().map(|input| input.spec).collect();
    let held = |input: &Input| if input.rounded { Spec { dtype: DType::Bf16, ..input.spec } } else { input.spec };
    let bytes = |specs: &mut dyn Iterator<Item = Spec>| specs.map(|spec| spec.bytes()).sum::<usize>() as f64;
    let [x, y] = [bytes(&mut inputs.iter().map(held)), bytes(&mut op.outputs(&specs).into_iter())];
    let dx = bytes(&mut inputs.iter().filter(|input| input.grad).map(|input| input.spec));
    let (op_name, elements) = (op.name(), specs[0].shape.numel() as f64);
    let differentiable = dx > 0.0;
    // Their backward pass hands on gradients that are there: what it takes by itself says nothing.
    let fused = matches!(op_name, "linear_xent" | "add" | "sub");
    let both = if differentiable && !fused { 2 } else { 1 };
    let counted = if differentiable { counted(entry, i, device) } else { [0.0; 2] };

    let (mut tape, mut inputs) = (Tape::new(device), check::Inputs::new(&inputs, device));
    inputs.begin(&mut tape);
    let dy: Vec<Tensor> = check::upstream(tape.apply_dyn(op, &inputs.on(&tape)), 0);
    let pass = move |clock: &mut Clock| {
        inputs.begin(&mut tape);
        let (op, x) = (case().op, inputs.on(&tape));
        let y = clock.time(0, || tape.apply_dyn(op, &x));
        if differentiable {
            clock.time(both - 1, || y.backward_from(&dy, &mut inputs.params, true));
        }
        inputs.params.clear_grads();
        Ok(())
    };
    let precision = if narrow == Narrow::Nothing { Precision::F32 } else { Precision::Bf16 };
    let part = |name, i: usize, read, written| {
        let flops = if counted[0] > 0.0 { counted[i] } else { elements * arithmetic(op_name)[i] };
        let unit = if counted[i] > 0.0 { Unit::Gflops } else { Unit::Gbytes };
        // Other arithmetic than that of products stays in f32.
        let precision = if counted[0] > 0.0 { precision } else { Precision::F32 };
        Part { name, work: Work { flops, precision, read, written }, unit }
    };
    // Backward reads the inputs and the gradients that come in, and writes those that go out.
    let parts = match (fused, both) {
        (true, _) => vec![part("", 0, x, y + dx)],
        (_, 1) => vec![part("forward", 0, x, y)],
        _ => vec![part("forward", 0, x, y), part("backward", 1, x + y, dx)],
    };
    Started { parts, repeat: repeated(device, both, pass) }
}

/// Cross-entropy over given logits, loss and gradient in one pass that writes the gradient over the logits: the row
/// kernel of [`linear_xent`].
pub fn xent() -> Vec<Case> {
    const ROWS: usize = 1024;
    const VOCAB: usize = 50_304;
    let start = |device: &Device| {
        let mut logits = vec![0.0; ROWS * VOCAB];
        Stream::new(1, Purpose::Test, 0, 0).normals(1.0, &mut logits);
        let targets = Stream::new(1, Purpose::Test, 1, 0);
        let target = move |i: usize| targets.bits(i as u64) as usize % VOCAB;
        let elements = (ROWS * VOCAB) as f64;
        // The maximum; e^x and the sum; the scale.
        let flops = (1.0 + EXP + 2.0 + 1.0) * elements;
        let work = Work { flops, read: 4.0 * elements, written: 4.0 * elements, ..Work::default() };
        let held = device.clone();
        let repeat = match device {
            Device::Cpu(_) => {
                let (mut z, mut losses) = (vec![0.0; ROWS * VOCAB], vec![0.0; ROWS]);
                repeated(device, 1, move |clock| {
                    z.copy_from_slice(&logits);
                    let rows = (chunks(&mut z, VOCAB), chunks(&mut losses, 1));
                    clock.time(0, || {
                        held.host().threads.each(rows, |i, (z, loss)| {
                            loss[0] = linear_xent::row(held.host().simd, z, target(i), 1.0 / ROWS as f32);
                        });
                    });
                    Ok(())
                })
            }
            Device::Gpu(gpu) => {
                let gpu = Arc::clone(gpu);
                let targets: Vec<i32> = (0..ROWS).map(|i| target(i) as i32).collect();
                let [logits, z] = [(); 2].map(|()| Tensor::from_slice(device, &logits, [ROWS, VOCAB]));
                let targets = Tensor::from_slice(device, &targets, [ROWS]);
                let norm = Tensor::from_slice(device, &[ROWS as f32], [1]);
                let losses = Out::new(device, Spec::f32([ROWS]));
                repeated(device, 1, move |clock| {
                    launch::flat(&gpu, "elementwise.ptx", "scale_fwd", &[&logits, &z], &[Arg::F32(1.0), flag(false)]);
                    let arrays = [at(&z), at(&targets), Arg::U64(0), at(&norm), at(&losses)];
                    let args = [&arrays[..], &[n(VOCAB), n(VOCAB), flag(true)]].concat();
                    clock.time(0, || gpu.launch(plans::logits("xent", Float::F32, ROWS, VOCAB), &args));
                    Ok(())
                })
            }
        };
        Ok(Started { parts: vec![Part::whole(work, Unit::Gbytes)], repeat })
    };
    let spec = json!({"bench": "xent", "rows": ROWS, "vocab": VOCAB});
    vec![Case::new("xent", format!("{ROWS}x{VOCAB}, forward and backward"), spec, start)]
}

/// One update of all parameters of GPT-2 (124M): the norm of their gradients, then AdamW with these clipped. In
/// training the norm costs no pass of its own.
pub fn adamw() -> Vec<Case> {
    let size = Size { vocab: 50_304, context: 1024, layers: 12, heads: 12, d: 768 };
    let start = move |device: &Device| {
        let held = device.clone();
        let (gpt, decls) = Gpt::new(GptConfig::gpt2(size));
        let mut params = Params::new(device, &decls, 1);
        params.add_moments(|_| &AdamW::MOMENTS);
        // A backward pass over a few tokens fills the gradients.
        let mut tape = Tape::new(device);
        tape.begin(&params, Pass { training: true, ..Pass::default() });
        let ids = || tape.constant(Tensor::from_slice(device, &[1, 2, 3, 4], [1, 4]));
        gpt.loss(ids(), ids(), None, None).backward(&mut params, true);
        drop(tape);
        let n = params.numel() as f64;
        // Read: gradients twice, weights and two moments; the norm 2, the update 14 operations.
        let work = Work { flops: 16.0 * n, read: 5.0 * 4.0 * n, written: 3.0 * 4.0 * n, ..Work::default() };
        let (optim, mut t, loss) = (Optimizer::default(), 0, Tensor::from_slice(device, &[1.0f32], [1]));
        let repeat = repeated(device, 1, move |clock| {
            t += 1;
            match &held {
                Device::Cpu(_) => clock.time(0, || {
                    let square = |id| params.grad(id).map_or(0.0, |g| square_sum(held.host(), g.f32()));
                    let norm = params.ids().map(square).sum::<f64>().sqrt();
                    let clip = (1.0 / (norm + 1e-6)).min(1.0);
                    let groups = params.groups_mut().iter_mut();
                    groups.for_each(|group| optim.adamw.update(held.host(), group, t, 1e-4, clip));
                }),
                Device::Gpu(gpu) => {
                    gpu.set_rates(optim.adamw.rates(t, 1e-4, true));
                    let losses = std::slice::from_ref(&loss);
                    clock.time(0, || optim::gpu::launch(&optim, gpu, &params, losses));
                }
            }
            Ok(())
        });
        Ok(Started { parts: vec![Part::whole(work, Unit::Gbytes)], repeat })
    };
    let shape = json!({"layers": size.layers, "d": size.d, "vocab": size.vocab, "context": size.context});
    vec![Case::new("adamw", "124M parameters, clipped".to_owned(), json!({"bench": "adamw", "gpt2": shape}), start)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_kernels_are_in_the_operation_table() {
        let names = |cases: Vec<Case>| cases.into_iter().map(|case| case.name).collect::<Vec<_>>();
        assert_eq!(
            names(attention(Narrow::Nothing)),
            ["B16 T256 H4/4 D64", "B4 T256 H12/12 D64", "B1 T1024 H12/12 D64"],
            "attention's cases of real size"
        );
        assert_eq!(names(layernorm(Narrow::Nothing)), ["layernorm bias=true residual=true 4096x768"]);
        assert_eq!(names(gelu(Narrow::Nothing)), ["gelu_tanh 4096x3072"]);
    }

    #[test]
    fn all_operations_are_timed_under_names_that_differ() {
        let cases = ops(Narrow::Nothing);
        let benches = TABLE.iter().flat_map(|e| (e.cases)()).filter(|case| case.role == Role::Bench).count();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((cases.len(), names.len()), (benches, benches));
    }

    #[test]
    fn attention_counts_its_products() {
        let device = Device::cpu(1).unwrap();
        let started = attention(Narrow::Nothing)[1].start(&device).unwrap();
        let pairs = (4 * 12 * 256 * 257 / 2) as f64;
        let flops: Vec<f64> = started.parts.iter().map(|part| part.work.flops / (pairs * 64.0)).collect();
        assert_eq!(flops, [4.0, 10.0]);
        assert!(started.parts.iter().all(|part| part.unit == Unit::Gflops));
    }
}
