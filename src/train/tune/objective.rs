//! The loss of a step of fine-tuning.

use super::prepared::Lessons;
use crate::data::examples::RowMut;
use crate::error::Result;
use crate::formats::Pretrained;
use crate::model::Gpt;
use crate::params::{Decl, Hold, Kind, Params};
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Shape, Spec};
use crate::train::answers::Speaks;
use crate::train::objective::{Batch, Examples, Found, MAX_TENSORS, Objective, Turn, Values};
use arrayvec::ArrayVec;
use std::rc::Rc;

/// Examples as private training tells them apart.
pub(super) fn examples(lessons: &Lessons) -> Examples {
    Examples { count: lessons.examples.len() as u64, unit: "example, a line of the training files" }
}

/// A GPT and its examples. A micro-batch is ids, targets, weights of targets and places (B, T). Weights are shares of all
/// targets of a step, so that the sum of its micro-batches' losses is their mean.
pub struct Sft {
    /// The model.
    pub gpt: Gpt,
    /// Its weights at the start; absent where they are fresh, and on a device that computes nothing.
    pub(super) base: Option<Rc<Pretrained>>,
    /// What it learns from; as above.
    pub(super) lessons: Option<Rc<Lessons>>,
    /// B and T.
    pub(super) shape: [usize; 2],
    /// Micro-batches in a step.
    pub(super) micros: usize,
    /// Whether rows hold several examples.
    pub(super) packed: bool,
    /// How a parameter is held.
    pub(super) hold: Box<dyn Fn(&Decl) -> Hold>,
    /// Floating-point operations of a micro-batch; see [`flops`].
    pub(super) flops: f64,
}

impl Sft {
    /// The specs of a batch.
    pub(super) fn specs(&self) -> [Spec; 4] {
        let shape: Shape = self.shape.into();
        let ids = Spec { shape, dtype: DType::I32 };
        [ids, ids, Spec::f32(shape), ids]
    }

    /// Fills the rows of a batch of `count`: `row(i, to)` the i-th, or it says that there is none.
    pub(super) fn fill_rows(
        count: usize,
        x: ArrayVec<Values, MAX_TENSORS>,
        mut row: impl FnMut(usize, RowMut) -> bool,
    ) {
        let mut x = x.into_iter();
        let mut next = || x.next().expect("four tensors");
        let (ids, targets, weights, places) = (next().ids(), next().ids(), next().numbers(), next().ids());
        let t = ids.len() / count;
        let all = ids.chunks_exact_mut(t).zip(targets.chunks_exact_mut(t));
        let all = all.zip(weights.chunks_exact_mut(t).zip(places.chunks_exact_mut(t)));
        for (i, ((ids, targets), (weights, places))) in all.enumerate() {
            if !row(i, RowMut { ids: &mut *ids, targets: &mut *targets, weights: &mut *weights, places: &mut *places })
            {
                ids.fill(0);
                targets.fill(0);
                weights.fill(0.0);
                places.iter_mut().enumerate().for_each(|(place, to)| *to = place as i32);
            }
        }
    }

    /// The sum of the weighted negative log-likelihoods of a batch.
    pub(super) fn loss<'t>(&self, tape: &'t Tape, x: &Batch) -> Var<'t> {
        let [ids, targets, weights, places] = [0, 1, 2, 3].map(|i| tape.constant(x[i].clone()));
        match self.packed {
            true => self.gpt.packed_loss([ids, targets, places], weights, 1.0),
            false => self.gpt.loss(ids, targets, Some(weights), Some(1.0)),
        }
    }
}

impl Objective for Sft {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        self.specs().into_iter().collect()
    }

    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let Some(lessons) = &self.lessons else { return Ok(()) };
        let [b, _] = self.shape;
        let per_step = (b * self.micros) as u64;
        let first = batch * per_step;
        let targets: usize = (first..first + per_step).map(|row| lessons.targets(row)).sum();
        let weight = (1.0 / targets.max(1) as f64) as f32;
        Sft::fill_rows(b, x, |i, to| {
            lessons.fill(first + (micro * b + i) as u64, weight, to);
            true
        });
        Ok(())
    }

    fn examples(&self) -> Option<Examples> {
        self.lessons.as_deref().map(examples)
    }

    fn example(&self, index: u64, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let Some(lessons) = &self.lessons else { return Ok(()) };
        let (rows, row) = (&lessons.examples, index as usize);
        Sft::fill_rows(1, x, |_, to| {
            rows.fill(row, 1.0 / rows.targets(row).max(1) as f32, to);
            true
        });
        Ok(())
    }

    fn hold(&self, decl: &Decl) -> Hold {
        (self.hold)(decl)
    }

    fn prepare(&self, params: &mut Params) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        base.weights.load(params)?;
        self.gpt.start_adapters(params);
        Ok(())
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, last, .. } = turn;
        tape.begin(params, pass);
        tape.lend(params, self.gpt.head());
        let loss = self.loss(tape, x);
        let value = loss.value();
        loss.backward(params, last);
        Found::loss(value)
    }

    fn flops(&self) -> f64 {
        self.flops
    }
}

impl Speaks for Sft {
    fn gpt(&self) -> &Gpt {
        &self.gpt
    }
}

/// The operations of a pass over `tokens` tokens in rows of `context`: of a matrix that is frozen two thirds of the others'.
pub(in crate::train) fn flops(
    gpt: &Gpt,
    decls: &[Decl],
    hold: &dyn Fn(&Decl) -> Hold,
    context: usize,
    tokens: usize,
) -> f64 {
    let per_token = gpt.config().flops_per_token(context);
    let matrices = decls.iter().filter(|decl| decl.kind == Kind::Matrix || decl.name.starts_with("lm_head"));
    let saved: f64 =
        matrices.filter(|decl| hold(decl) != Hold::Train).map(|decl| 2.0 * decl.shape.numel() as f64).sum();
    (per_token - saved).max(0.0) * tokens as f64
}
