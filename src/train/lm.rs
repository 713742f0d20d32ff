//! Language models: the loss of the next token.

use super::objective::{self, Batch, Examples, Found, MAX_TENSORS, Objective, Turn, Values, room};
use super::recipe::Recipe;
use super::setup::Setup;
use super::trainer::Trainer;
use crate::cpu::gemm::Precision;
use crate::data::{Apart, Batches, Dataset, EvalBatches};
use crate::device::kernels::Float;
use crate::device::{Device, kernels};
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use crate::model::sequence::generate;
use crate::model::{Gpt, GptConfig, mup};
use crate::params::{Decl, Hold, Params};
use crate::tape::Tape;
use crate::tensor::{DType, Out, Shape, Spec};
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Fills inputs and targets of a micro-batch: `(step, micro-batch, inputs, targets)`.
pub type Fill = Box<dyn Fn(u64, usize, &mut [i32], &mut [i32]) -> Result<()>>;

/// Rows as private training tells them apart.
pub(super) fn examples(rows: &Apart) -> Examples {
    Examples { count: rows.len() as u64, unit: "row of train.context + 1 tokens" }
}

/// A GPT and its text. A micro-batch is ids (B, T) and their targets (B, T).
pub struct Lm {
    /// The model.
    pub gpt: Gpt,
    fill: Fill,
    /// The rows of private training.
    apart: Option<Apart>,
    shape: Shape,
}

impl Lm {
    /// A model that learns from sequences (B, T), which `fill` makes, and the parameters that it needs.
    pub fn new(config: GptConfig, shape: [usize; 2], fill: Fill) -> (Lm, Vec<Decl>) {
        let (gpt, decls) = Gpt::new(config);
        (Lm { gpt, fill, apart: None, shape: shape.into() }, decls)
    }

    /// Whether a device can train it.
    ///
    /// # Errors
    /// It asks a GPU for heads that attention has no kernels for, or in bf16 for rows that are no multiples of 16 bytes.
    pub fn supported(config: &GptConfig, precision: Precision, device: &Device) -> Result<()> {
        let Device::Gpu(_) = device else { return Ok(()) };
        let half = precision == Precision::Bf16;
        let GptConfig { d, head_dim, hidden, .. } = *config;
        if !kernels::attends(if half { Float::Bf16 } else { Float::F32 }, head_dim) {
            let problem = format!("a GPU has no kernel for heads of {head_dim} channels in {}", precision.name());
            return Err(Error::config("model.heads", problem, kernels::HEADS));
        }
        if half && !(d % 8 == 0 && hidden % 8 == 0) {
            let problem =
                format!("widths of {d} and {hidden}: rows of a GPU's products in bf16 are multiples of 8 elements");
            return Err(Error::config("model.d", problem, "take multiples of 8, or train.precision = \"f32\""));
        }
        Ok(())
    }

    fn ids(&self) -> Spec {
        Spec { shape: self.shape, dtype: DType::I32 }
    }
}

impl Objective for Lm {
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS> {
        [self.ids(); 2].into_iter().collect()
    }

    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let mut x = x.into_iter().map(Values::ids);
        let [x, y] = [(); 2].map(|()| x.next().expect("ids and targets"));
        (self.fill)(batch, micro, x, y)
    }

    fn examples(&self) -> Option<Examples> {
        self.apart.as_ref().map(examples)
    }

    fn example(&self, index: u64, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let mut x = x.into_iter().map(Values::ids);
        let [x, y] = [(); 2].map(|()| x.next().expect("ids and targets"));
        self.apart.as_ref().map_or(Ok(()), |rows| rows.fill(index as usize, x, y))
    }

    fn turn(&mut self, _: u8, turn: Turn, x: &Batch) -> Found {
        let Turn { tape, params, pass, micros, last } = turn;
        tape.begin(params, pass);
        tape.lend(params, self.gpt.head());
        let targets = micros * x[1].numel();
        let [x, y] = [0, 1].map(|i| tape.constant(x[i].clone()));
        let loss = self.gpt.loss(x, y, None, Some(targets as f32));
        let value = loss.value();
        loss.backward(params, last);
        Found::loss(value)
    }

    fn flops(&self) -> f64 {
        self.gpt.config().flops_per_token(self.shape[1]) * self.shape.numel() as f64
    }
}

impl Trainer<Lm> {
    /// A model with fresh weights for `recipe` over a vocabulary of `vocab` ids, to be trained on `data`.
    ///
    /// # Errors
    /// The data is shorter than a window.
    pub fn new(recipe: &Recipe, vocab: usize, data: Arc<Dataset>, device: &Device) -> Result<Trainer<Lm>> {
        let train = &recipe.train;
        let batches = Batches::new(data.clone(), train.batch, train.context, train.accumulate, train.seed)?;
        let fill = move |step, micro, x: &mut [i32], y: &mut [i32]| batches.fill(step, micro, x, y);
        let apart = recipe.optim.dp.map(|_| Apart::new(data, train.context));
        Trainer::on(recipe, vocab, (Box::new(fill), apart), device)
    }

    /// A trainer without data, for a [dry](Device::dry) device.
    pub fn dry(recipe: &Recipe, vocab: usize, device: &Device) -> Trainer<Lm> {
        Trainer::on(recipe, vocab, (Box::new(|_, _, _, _| Ok(())), None), device).expect("no weights to read")
    }

    fn on(recipe: &Recipe, vocab: usize, (fill, apart): (Fill, Option<Apart>), device: &Device) -> Result<Trainer<Lm>> {
        let train = &recipe.train;
        let config = recipe.model.config(vocab, train.context);
        let (lm, mut decls) = Lm::new(config.clone(), [train.batch, train.context], fill);
        if let Some(base) = recipe.model.base() {
            mup::scale(&config, &mut decls, base);
        }
        Trainer::with(Setup::of(recipe), (Lm { apart, ..lm }, decls), device)
    }

    /// The sum of the negative log-likelihoods of all targets of `data`, in nats, and how many targets these are; at most
    /// `max_batches` batches. `progress(done, total)` counts batches; `None` where it returned false.
    ///
    /// # Errors
    /// A shard has changed since it was opened.
    pub fn evaluate(
        &mut self,
        data: &EvalBatches,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<(f64, usize)>> {
        let total = data.len().min(max_batches.unwrap_or(usize::MAX));
        let (mut nats, mut targets, mut whole) = (0.0, 0, true);
        for index in 0..total {
            nats += self.eval_batch(|x, y, weights| {
                targets += data.fill(index, x, y, weights)?;
                Ok(())
            })?;
            whole = progress(index + 1, total);
            if !whole {
                break;
            }
        }
        self.tape.reset();
        Ok(whole.then_some((nats, targets)))
    }

    /// The sum of the negative log-likelihoods of the batch that `batch` puts into inputs, targets and weights, in nats.
    ///
    /// # Errors
    /// Those of `batch`.
    pub fn eval_batch(&mut self, batch: impl FnOnce(&mut [i32], &mut [i32], &mut [f32]) -> Result<()>) -> Result<f64> {
        let device = self.params.device().clone();
        let ids = self.objective.ids();
        let mut out = room(&device, &[ids, ids, Spec::f32(ids.shape)]);
        objective::fill(&mut out, |x| {
            let mut x = x.into_iter();
            let mut next = || x.next().expect("three tensors");
            let (ids, targets, weights) = (next().ids(), next().ids(), next().numbers());
            batch(ids, targets, weights)
        })?;
        self.tape.begin(&self.params, self.eval_pass());
        let tape = &self.tape;
        let vars: ArrayVec<_, MAX_TENSORS> = out.into_iter().map(|out| tape.constant(Out::freeze(out))).collect();
        let loss = || self.objective.gpt.loss(vars[0], vars[1], Some(vars[2]), Some(1.0)).value();
        Ok(f64::from(tape.no_grad(loss).item()))
    }

    /// Lets the model write; see [`generate`]. A model on a GPU writes on the host, with a copy of its weights.
    pub fn generate(
        &mut self,
        prompt: Vec<u32>,
        stop: &[u32],
        options: &SampleOptions,
        on_token: &mut dyn FnMut(u32) -> bool,
    ) {
        let gpt = &self.objective.gpt;
        let host = match self.params.device() {
            Device::Cpu(_) => {
                generate(gpt, &self.params, &mut self.tape, prompt, stop, options, on_token);
                return;
            }
            gpu @ Device::Gpu(_) => gpu.on_host(),
        };
        let mut params = Params::frozen(&host, self.decls(), Hold::Frozen);
        self.params.ids().for_each(|id| params.set_weight(id, &self.params.weight(id).read()));
        generate(gpt, &params, &mut Tape::new(&host), prompt, stop, options, on_token);
    }
}
