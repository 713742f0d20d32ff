//! A whole training step: forward, backward and update on random tokens.

use super::{Case, Part, Started, Unit, Work};
use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::error::Result;
use crate::model::{Gpt, GptConfig, Mlp, Positions, Size};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::optim::Optimizer;
use crate::params::Params;
use crate::rng::{Purpose, Rng};
use crate::tape::{Pass, Tape};
use crate::tensor::Tensor;
use crate::train::trainer::micro_batch;
use crate::train::{Recipe, source};
use serde_json::{Value, json};
use std::time::Instant;

/// A model, a batch and an optimizer of a known size.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCase {
    /// Its name.
    pub name: String,
    /// The model.
    pub config: GptConfig,
    /// B: sequences of a micro-batch.
    pub batch: usize,
    /// T: tokens in a sequence.
    pub context: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Whether blocks run again in the backward pass, as in [`Tape::recompute`].
    pub recompute: bool,
    /// What linear layers and attention multiply, as in [`Pass`].
    pub precision: Precision,
    /// What updates the weights.
    pub optim: Optimizer,
}

impl StepCase {
    /// `nano` (5.3M parameters), `tiny` (10.7M) and `gpt2` (124M).
    pub fn all() -> [StepCase; 3] {
        let case =
            |name: &str, [vocab, layers, heads, d]: [usize; 4], [batch, context, positions]: [usize; 3], bias| {
                let size = Size { vocab, context: positions, layers, heads, d };
                StepCase {
                    name: name.to_owned(),
                    config: GptConfig { bias, ..GptConfig::gpt2(size) },
                    batch,
                    context,
                    accumulate: 1,
                    recompute: false,
                    precision: Precision::F32,
                    optim: Optimizer::default(),
                }
            };
        [
            case("nano", [8192, 4, 4, 256], [16, 256, 256], true),
            case("tiny", [65, 6, 6, 384], [12, 256, 256], false),
            case("gpt2", [50304, 12, 12, 768], [4, 256, 1024], true),
        ]
    }

    /// The step of a recipe, under the run's name; on random tokens, whatever its data.
    ///
    /// # Errors
    /// The size of its vocabulary cannot be told.
    pub fn of(recipe: &Recipe) -> Result<StepCase> {
        let train = &recipe.train;
        Ok(StepCase {
            name: recipe.run.name.clone(),
            config: recipe.model.config(source::vocab(recipe, None)?, train.context),
            batch: train.batch,
            context: train.context,
            accumulate: train.accumulate,
            recompute: train.recompute,
            precision: train.precision,
            optim: recipe.optim.optimizer(),
        })
    }

    /// What a peer needs in order to build the same model: GPT-2's kind only, in one micro-batch, else null.
    pub fn spec(&self) -> Value {
        let StepCase { config, batch, context, .. } = self;
        let GptConfig { vocab, layers, heads, d, bias, .. } = *config;
        let gelu = match config.mlp {
            Mlp::Plain(Activation::GeluTanh) => "tanh",
            Mlp::Plain(Activation::GeluErf) => "none",
            _ => return Value::Null,
        };
        let gpt2 = config.positions == Positions::Learned && config.norm == NormKind::Layer && config.tied;
        let plain = config.hidden == 4 * d && config.kv_heads == heads && config.dropout == 0.0;
        if !(gpt2 && plain && self.accumulate == 1 && self.optim.muon.is_none()) {
            return Value::Null;
        }
        json!({"vocab": vocab, "layers": layers, "heads": heads, "d": d, "positions": config.context, "bias": bias,
            "gelu": gelu, "batch": batch, "context": context, "precision": self.precision.name()})
    }

    /// The step, to be timed.
    pub fn case(self) -> Case {
        let name = format!("{} {}", self.name, self.precision.name());
        let spec = self.spec();
        Case::new("step", name, spec, move |device| {
            let mut bench = StepBench::new(self.clone(), device);
            let work = Work { flops: bench.flops(), precision: self.precision, ..Work::default() };
            let parts = vec![Part::whole(work, Unit::Tokens(bench.tokens()))];
            for _ in 0..2 {
                bench.step()?;
            }
            Ok(Started { parts, repeat: Box::new(move || Ok(vec![bench.step()?.0])) })
        })
    }
}

/// A model ready to be stepped again and again.
pub struct StepBench {
    case: StepCase,
    gpt: Gpt,
    params: Params,
    tape: Tape,
    rng: Rng,
    losses: Vec<Tensor>,
    steps: u64,
}

impl StepBench {
    /// The model of `case` on `device`, with fresh weights.
    pub fn new(case: StepCase, device: &Device) -> StepBench {
        let (gpt, decls) = Gpt::new(case.config.clone());
        let mut params = Params::new(device, &decls, 1);
        case.optim.prepare(&mut params);
        let rng = Rng::new(1, Purpose::Test, 0, 0);
        let mut tape = Tape::new(device);
        tape.recompute(case.recompute);
        StepBench { case, gpt, params, tape, rng, losses: Vec::new(), steps: 0 }
    }

    /// One step on new random batches: its seconds, the making of the batches left out, and its loss.
    ///
    /// # Errors
    /// A kernel failed.
    pub fn step(&mut self) -> Result<(f64, f32)> {
        let device = self.params.device().clone();
        let StepCase { config, batch, context, accumulate, precision, optim, .. } = &self.case;
        let pass = Pass { step: self.steps, training: true, precision: *precision, ..Pass::default() };
        self.losses.clear();
        let mut seconds = 0.0;
        for micro in 0..*accumulate {
            let mut ids = || {
                let ids: Vec<i32> = (0..batch * context).map(|_| self.rng.below(config.vocab as u32) as i32).collect();
                Tensor::from_slice(&device, &ids, [*batch, *context])
            };
            let ids = [ids(), ids()];
            let start = Instant::now();
            let (norm, last) = ((batch * context * accumulate) as f32, micro + 1 == *accumulate);
            self.losses.push(micro_batch(&self.gpt, &mut self.tape, &mut self.params, pass, ids, norm, last));
            self.tape.reset();
            seconds += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        self.steps += 1;
        let found = optim.step(&mut self.params, self.steps, 3e-4, &self.losses)?;
        Ok((seconds + start.elapsed().as_secs_f64(), found.loss))
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.case.batch * self.case.context * self.case.accumulate
    }

    /// Floating-point operations of a step; see [`GptConfig::flops_per_token`].
    pub fn flops(&self) -> f64 {
        self.case.config.flops_per_token(self.case.context) * self.tokens() as f64
    }
}
