//! The kernels beside the matrix product: rows of the operation table, forward and backward; cross-entropy over given
//! logits; AdamW with clipping.

use super::{Case, Part, Started, Unit, Work, repeated, timed};
use crate::cpu::chunks;
use crate::cpu::reduce::square_sum;
use crate::device::Device;
use crate::model::{Gpt, GptConfig, Size};
use crate::ops::{self, Entry, Fill, Input, Role, TABLE, check, linear_xent};
use crate::optim::AdamW;
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Op, Pass, Tape};
use crate::tensor::{Spec, Tensor};
use serde_json::{Value, json};

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
pub fn ops() -> Vec<Case> {
    table("ops", |_, _| true)
}

/// Causal attention at training sizes.
pub fn attention() -> Vec<Case> {
    table("attention", |entry, _| entry.name == "attention")
}

/// LayerNorm after a residual addition.
pub fn layernorm() -> Vec<Case> {
    table("layernorm", |entry, case| entry.name == "norm" && case.name.starts_with("layernorm bias=true residual=true"))
}

/// GELU by its tanh approximation.
pub fn gelu() -> Vec<Case> {
    table("gelu", |entry, case| entry.name == "activation" && case.name.starts_with("gelu_tanh"))
}

fn table(bench: &'static str, wanted: impl Fn(&Entry, &ops::Case) -> bool) -> Vec<Case> {
    let mut all = Vec::new();
    for entry in TABLE {
        for (i, case) in (entry.cases)().iter().enumerate() {
            if case.role == Role::Bench && wanted(entry, case) {
                // A name that stands alone begins with that of its operation.
                let whole = bench != "ops" || case.name.starts_with(case.op.name());
                let name = if whole { case.name.clone() } else { format!("{} {}", case.op.name(), case.name) };
                all.push(Case::new(bench, name, spec(case), move |device| Ok(start(entry, i, device))));
            }
        }
    }
    all
}

/// An operation by its name, and what goes in.
fn spec(case: &ops::Case) -> Value {
    let input = |input: &Input| {
        let below = if let Fill::Ids(n) = input.fill { json!(n) } else { Value::Null };
        json!({"shape": &input.spec.shape[..], "dtype": input.spec.dtype.name(), "grad": input.grad, "below": below})
    };
    let inputs: Vec<Value> = case.inputs.iter().map(input).collect();
    json!({"bench": "op", "op": case.op.name(), "case": case.name, "inputs": inputs})
}

/// Case `i` of an operation, through the tape.
fn start(entry: &'static Entry, i: usize, device: &Device) -> Started {
    let held = device.clone();
    // A tape keeps what it runs, so each run needs an operation of its own.
    let operation = move || -> Box<dyn Op> { (entry.cases)().swap_remove(i).op };
    let ops::Case { op, inputs, .. } = (entry.cases)().swap_remove(i);
    let values = check::values(&inputs, device);
    let specs: Vec<Spec> = inputs.iter().map(|input| input.spec).collect();
    let bytes = |specs: &mut dyn Iterator<Item = Spec>| specs.map(|spec| spec.bytes()).sum::<usize>() as f64;
    let [x, y] = [bytes(&mut specs.iter().copied()), bytes(&mut op.outputs(&specs).into_iter())];
    let dx = bytes(&mut inputs.iter().filter(|input| input.grad).map(|input| input.spec));
    let op_name = op.name();

    let (mut tape, mut params) = (Tape::new(device), Params::new(device, &[], 0));
    let dy: Vec<Tensor> = check::upstream(tape.apply_dyn(op, &check::leaves(&tape, &inputs, &values)));
    let elements = specs[0].shape.numel() as f64;
    let differentiable = dx > 0.0;
    // Their backward pass hands on gradients that are there: what it takes by itself says nothing.
    let fused = matches!(op_name, "linear_xent" | "add" | "sub");
    let both = if differentiable && !fused { 2 } else { 1 };
    // Gives the floating-point operations of matrix products, forward and backward.
    let mut pass = move |seconds: &mut [f64]| {
        tape.reset();
        let x = check::leaves(&tape, &inputs, &values);
        let op = operation();
        let before = held.host().flops();
        let y = timed(&mut seconds[0], || tape.apply_dyn(op, &x));
        let forward = held.host().flops();
        if differentiable {
            timed(&mut seconds[both - 1], || y.backward_from(&dy, &mut params, true));
        }
        [forward - before, held.host().flops() - forward].map(|flops| flops as f64)
    };
    let counted = pass(&mut vec![0.0; both]);
    let part = |name, i: usize, read, written| {
        let flops = if counted[0] > 0.0 { counted[i] } else { elements * arithmetic(op_name)[i] };
        let unit = if counted[i] > 0.0 { Unit::Gflops } else { Unit::Gbytes };
        Part { name, work: Work { flops, read, written, ..Work::default() }, unit }
    };
    // Backward reads the inputs and the gradients that come in, and writes those that go out.
    let parts = match (fused, both) {
        (true, _) => vec![part("", 0, x, y + dx)],
        (_, 1) => vec![part("forward", 0, x, y)],
        _ => vec![part("forward", 0, x, y), part("backward", 1, x + y, dx)],
    };
    Started {
        parts,
        repeat: repeated(both, move |seconds| {
            pass(seconds);
            Ok(())
        }),
    }
}

/// Cross-entropy over given logits, loss and gradient in one pass that writes the gradient over the logits: the row
/// kernel of [`linear_xent`].
pub fn xent() -> Vec<Case> {
    const ROWS: usize = 1024;
    const VOCAB: usize = 50_304;
    let start = |device: &Device| {
        let held = device.clone();
        let mut logits = vec![0.0; ROWS * VOCAB];
        Stream::new(1, Purpose::Test, 0, 0).normals(1.0, &mut logits);
        let targets = Stream::new(1, Purpose::Test, 1, 0);
        let (mut z, mut losses) = (vec![0.0; ROWS * VOCAB], vec![0.0; ROWS]);
        let n = (ROWS * VOCAB) as f64;
        // The maximum; e^x and the sum; the scale.
        let work = Work { flops: (1.0 + EXP + 2.0 + 1.0) * n, read: 4.0 * n, written: 4.0 * n, ..Work::default() };
        let repeat = repeated(1, move |seconds| {
            z.copy_from_slice(&logits);
            let rows = (chunks(&mut z, VOCAB), chunks(&mut losses, 1));
            timed(&mut seconds[0], || {
                held.host().threads.each(rows, |i, (z, loss)| {
                    let target = targets.bits(i as u64) as usize % VOCAB;
                    loss[0] = linear_xent::row(held.host().simd, z, target, 1.0 / ROWS as f32);
                });
            });
            Ok(())
        });
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
        let (adamw, mut t) = (AdamW::default(), 0);
        let repeat = repeated(1, move |seconds| {
            t += 1;
            timed(&mut seconds[0], || {
                let square = |id| params.grad(id).map_or(0.0, |g| square_sum(held.host(), g.f32()));
                let norm = params.ids().map(square).sum::<f64>().sqrt();
                let clip = (1.0 / (norm + 1e-6)).min(1.0);
                params.groups_mut().iter_mut().for_each(|group| adamw.update(held.host(), group, t, 1e-4, clip));
            });
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
            names(attention()),
            ["B16 T256 H4/4 D64", "B4 T256 H12/12 D64", "B1 T1024 H12/12 D64"],
            "attention's cases of real size"
        );
        assert_eq!(names(layernorm()), ["layernorm bias=true residual=true 4096x768"]);
        assert_eq!(names(gelu()), ["gelu_tanh 4096x3072"]);
    }

    #[test]
    fn all_operations_are_timed_under_names_that_differ() {
        let cases = ops();
        let benches = TABLE.iter().flat_map(|e| (e.cases)()).filter(|case| case.role == Role::Bench).count();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((cases.len(), names.len()), (benches, benches));
    }

    #[test]
    fn attention_counts_its_products() {
        let device = Device::cpu(1).unwrap();
        let started = attention()[1].start(&device).unwrap();
        let pairs = (4 * 12 * 256 * 257 / 2) as f64;
        let flops: Vec<f64> = started.parts.iter().map(|part| part.work.flops / (pairs * 64.0)).collect();
        assert_eq!(flops, [4.0, 10.0]);
        assert!(started.parts.iter().all(|part| part.unit == Unit::Gflops));
    }
}
