//! A single step of training, every number of it: a GPT so small that all fits on a few screens, run by the layers, the tape and the optimizer that train
//! any other.

use crate::device::Device;
use crate::error::Result;
use crate::model::Gpt;
use crate::model::config::{GptConfig, Size};
use crate::optim::Optimizer;
use crate::params::{Kind, ParamId, Params};
use crate::tape::{Pass, Tape};
use crate::tensor::Tensor;
use serde::Serialize;

/// The text, whose letters are the tokens.
pub const TEXT: &str = "hello";

/// The learning rate.
pub const LR: f64 = 0.05;

/// By how much weights are larger at the start than those of a real GPT: what happens is then seen in the first digits.
const LARGER: f32 = 20.0;

/// Half the distance between the two points of the difference quotient.
const NUDGE: f32 = 1e-2;

/// What happens in each operation, in order.
pub const HAPPENS: [&str; 9] = [
    "each letter's row of E, and its place's row of P: x, the stream",
    "each row of the stream with mean 0 and variance 1, times a gain",
    "queries, keys and values of each place: n Wᵀ",
    "each place looks back: softmax(q·k / √D) says how much of each value it takes",
    "what it took, into the stream's coordinates",
    "added to the stream (the second result), and normalised again",
    "eight features of each place, through GELU",
    "back into the stream's coordinates",
    "added, and normalised for the last time",
];

/// A table of numbers, the last axis along its rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The lengths of its axes.
    pub shape: Vec<usize>,
    /// Its numbers, row after row.
    pub data: Vec<f32>,
}

impl Table {
    fn of(tensor: &Tensor) -> Table {
        Table { shape: tensor.shape().to_vec(), data: tensor.f32().to_vec() }
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks(self.shape.last().copied().unwrap_or(1).max(1))
    }
}

/// An operation of the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// Its name.
    pub op: &'static str,
    /// What it reads: parameters by name, results by the number of their operation.
    pub reads: Vec<String>,
    /// What it makes.
    pub makes: Vec<Table>,
    /// How the loss changes with what it makes.
    pub grads: Vec<Option<Table>>,
}

/// A parameter in the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weights {
    /// Its name.
    pub name: String,
    /// Before.
    pub before: Table,
    /// How the loss changes with it.
    pub grad: Table,
    /// After.
    pub after: Table,
}

/// A weight of which the gradient was found in two ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Whose.
    pub name: String,
    /// Which of its numbers.
    pub index: usize,
    /// By the tape.
    pub tape: f32,
    /// (L(w + h) − L(w − h)) / 2h.
    pub difference: f32,
}

/// All of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The tokens.
    pub vocab: Vec<char>,
    /// What is read.
    pub ids: Vec<i32>,
    /// What comes next.
    pub targets: Vec<i32>,
    /// Forward, in order.
    pub operations: Vec<Operation>,
    /// How likely each token is next, (T, V), before.
    pub before: Table,
    /// And after.
    pub after: Table,
    /// The loss before and after.
    pub loss: [f32; 2],
    /// The norm of all gradients together.
    pub grad_norm: f64,
    /// The parameters.
    pub weights: Vec<Weights>,
    /// The largest gradient, checked.
    pub checked: Checked,
}

/// A model, and what it reads.
struct Tiny {
    gpt: Gpt,
    params: Params,
    ids: Tensor,
    targets: Tensor,
}

impl Tiny {
    /// The loss of the weights of now.
    fn loss(&self) -> f32 {
        let mut tape = Tape::new(self.params.device());
        tape.begin(&self.params, Pass::default());
        tape.no_grad(|| self.gpt.loss(tape.constant(self.ids.clone()), tape.constant(self.targets.clone()), None, None))
            .value()
            .item()
    }

    /// How likely each token is next.
    fn likely(&self) -> Table {
        let mut tape = Tape::new(self.params.device());
        tape.begin(&self.params, Pass::default());
        let logits = tape.no_grad(|| self.gpt.logits(tape.constant(self.ids.clone()))).value();
        let mut table = Table::of(&logits);
        let width = logits.shape().last_dim();
        table.data.chunks_mut(width).for_each(|row| {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            row.iter_mut().for_each(|z| *z = (*z - most).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|p| *p /= sum);
        });
        table
    }

    fn set(&mut self, id: ParamId, change: impl FnOnce(&mut [f32])) {
        let mut values = self.params.weight(id).f32().to_vec();
        change(&mut values);
        self.params.set_weight(id, &values);
    }

    /// The gradient of one weight by a difference quotient.
    fn quotient(&mut self, id: ParamId, index: usize) -> f32 {
        let value = self.params.weight(id).f32()[index];
        let [up, down] = [NUDGE, -NUDGE].map(|h| {
            self.set(id, |w| w[index] = value + h);
            self.loss()
        });
        self.set(id, |w| w[index] = value);
        (up - down) / (2.0 * NUDGE)
    }
}

/// Trains a GPT of one block, four channels and one head by one step.
///
/// # Errors
/// None on a CPU.
pub fn step(device: &Device, seed: u64) -> Result<Step> {
    let mut vocab: Vec<char> = TEXT.chars().collect();
    vocab.sort_unstable();
    vocab.dedup();
    let id = |c: char| vocab.iter().position(|&v| v == c).expect("a letter of the text") as i32;
    let all: Vec<i32> = TEXT.chars().map(id).collect();
    let (ids, targets) = (all[..all.len() - 1].to_vec(), all[1..].to_vec());
    let size = Size { vocab: vocab.len(), context: ids.len(), layers: 1, heads: 1, d: 4 };
    let (gpt, decls) = Gpt::new(GptConfig { bias: false, hidden: 8, ..GptConfig::gpt2(size) });
    let mut params = Params::new(device, &decls, seed);
    let optimizer = Optimizer::default();
    optimizer.prepare(&mut params);
    let row = |ids: &[i32]| Tensor::from_slice(device, ids, [1, ids.len()]);
    let (read, next) = (row(&ids), row(&targets));
    let mut tiny = Tiny { gpt, params, ids: read.clone(), targets: next.clone() };
    for (id, decl) in tiny.params.ids().zip(&decls) {
        if decl.kind != Kind::Vector {
            tiny.set(id, |w| w.iter_mut().for_each(|w| *w *= LARGER));
        }
    }
    let before = tiny.likely();
    let params: Vec<ParamId> = tiny.params.ids().collect();
    let weights = |tiny: &Tiny| -> Vec<Table> { params.iter().map(|&id| Table::of(&tiny.params.weight(id))).collect() };
    let old = weights(&tiny);

    let mut tape = Tape::new(device);
    tape.begin(&tiny.params, Pass { seed, training: true, ..Pass::default() });
    tape.trace();
    let loss = tiny.gpt.loss(tape.constant(read), tape.constant(next), None, None);
    let (loss, value) = (loss, loss.value());
    loss.backward(&mut tiny.params, true);
    let traced = tape.traced();
    // It holds the weights, which the update is about to change.
    tape.reset();
    let grads: Vec<Table> =
        params.iter().map(|&id| Table::of(&tiny.params.grad(id).expect("every weight is used"))).collect();

    let named = |(node, out): (u32, u8)| -> Option<String> {
        if let Some(&id) = params.get(node as usize) {
            return Some(tiny.params.name(id).to_owned());
        }
        let number = 1 + traced.iter().position(|traced| traced.node == node)?;
        Some(if out == 0 { number.to_string() } else { format!("{number} (second result)") })
    };
    let operations = traced.iter().map(|traced| Operation {
        op: traced.op,
        reads: traced.x.iter().filter_map(|&x| named(x)).collect(),
        makes: traced.y.iter().map(Table::of).collect(),
        grads: traced.dy.iter().map(|dy| dy.as_ref().map(Table::of)).collect(),
    });
    let operations = operations.collect();
    let largest =
        |table: &Table| (0..table.data.len()).max_by(|&a, &b| table.data[a].abs().total_cmp(&table.data[b].abs()));
    let tops = grads.iter().zip(&params).filter_map(|(table, &id)| largest(table).map(|i| (id, i, table.data[i])));
    let (id, index, slope) = tops.max_by(|a, b| a.2.abs().total_cmp(&b.2.abs())).expect("there are weights");
    let difference = tiny.quotient(id, index);
    let checked = Checked { name: tiny.params.name(id).to_owned(), index, tape: slope, difference };

    let found = optimizer.step(&mut tiny.params, 1, LR, std::slice::from_ref(&value))?;
    let weights = params.iter().zip(old).zip(grads).zip(weights(&tiny));
    let weights = weights
        .map(|(((&id, before), grad), after)| Weights { name: tiny.params.name(id).to_owned(), before, grad, after })
        .collect();
    Ok(Step {
        loss: [value.item(), tiny.loss()],
        before,
        after: tiny.likely(),
        vocab,
        ids,
        targets,
        operations,
        grad_norm: found.grad_norm,
        weights,
        checked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_shows_every_operation_and_lowers_the_loss() {
        let step = step(&Device::cpu(1).unwrap(), 1).unwrap();
        let ops: Vec<&str> = step.operations.iter().map(|operation| operation.op).collect();
        assert_eq!(ops.len(), HAPPENS.len() + 1, "{ops:?}");
        assert_eq!((ops[0], ops[3], ops[9]), ("embedding", "attention", "linear_xent"));
        assert!(step.loss[1] < step.loss[0], "{:?}", step.loss);
        let Checked { tape, difference, .. } = step.checked;
        assert!((tape - difference).abs() < 0.01 * tape.abs(), "{tape} and {difference}");
        // All that is made has a gradient, but for the last block's stream, which nothing reads.
        let open = step.operations.iter().flat_map(|operation| &operation.grads).filter(|grad| grad.is_none()).count();
        assert_eq!(open, 1);
        // What the loss is: the mean of −ln of how likely the letters that came were.
        let nats = step.before.rows().zip(&step.targets).map(|(row, &target)| -row[target as usize].ln()).sum::<f32>();
        assert!((nats / step.targets.len() as f32 - step.loss[0]).abs() < 1e-5);
    }
}
