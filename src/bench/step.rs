//! A whole training step: forward, backward and update on random tokens.

use super::{Case, Part, Started, Unit, Work};
use crate::cpu::gemm::Precision;
use crate::error::Result;
use crate::model::{GptConfig, Mlp, Positions, Size};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::optim::Optimizer;
use crate::rng::{Purpose, Rng};
use crate::train::schedule::{Schedule, Shape};
use crate::train::setup::Setup;
use crate::train::{Lm, Recipe, Trainer, source};
use serde_json::{Value, json};
use std::time::Instant;

/// A model, a batch and an optimizer of a known size.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCase {
    /// Its name.
    pub name: String,
    /// The model.
    pub config: GptConfig,
    /// B and T.
    pub shape: [usize; 2],
    /// The rest.
    pub setup: Setup,
}

impl StepCase {
    /// `nano` (5.3M parameters), `tiny` (10.7M) and `gpt2` (124M).
    pub fn all() -> [StepCase; 3] {
        let schedule =
            Schedule { shape: Shape::Constant, lr: 3e-4, min_lr: 3e-4, steps: u64::MAX, warmup: 0, decay_steps: 0 };
        let case =
            |name: &str, [vocab, layers, heads, d]: [usize; 4], [batch, context, positions]: [usize; 3], bias| {
                let size = Size { vocab, context: positions, layers, heads, d };
                let setup = Setup {
                    accumulate: 1,
                    recompute: false,
                    precision: Precision::F32,
                    seed: 1,
                    optim: Optimizer::default(),
                    schedule,
                    dp: None,
                };
                let config = GptConfig { bias, ..GptConfig::gpt2(size) };
                StepCase { name: name.to_owned(), config, shape: [batch, context], setup }
            };
        [
            case("nano", [8192, 4, 4, 256], [16, 256, 256], true),
            case("tiny", [65, 6, 6, 384], [12, 256, 256], false),
            case("gpt2", [50304, 12, 12, 768], [4, 256, 1024], true),
        ]
    }

    /// SmolLM2-135M: a Llama of 30 blocks with three query heads for each head of keys.
    pub fn smollm2() -> StepCase {
        let size = Size { vocab: 49152, context: 8192, layers: 30, heads: 9, d: 576 };
        let config = GptConfig { kv_heads: 3, hidden: 1536, tied: true, ..GptConfig::llama(size) };
        let [.., gpt2] = StepCase::all();
        StepCase { name: "smollm2".into(), config, shape: [1, 256], ..gpt2 }
    }

    /// The step of a recipe, under the run's name; on random tokens, whatever its data.
    ///
    /// # Errors
    /// The size of its vocabulary cannot be told.
    pub fn of(recipe: &Recipe) -> Result<StepCase> {
        let Recipe { run, model, train, .. } = recipe;
        let config = model.config(source::vocab(recipe, None)?, train.context);
        Ok(StepCase { name: run.name.clone(), config, shape: [train.batch, train.context], setup: Setup::of(recipe) })
    }

    /// What a peer needs in order to build the same model: GPT-2's kind only, in one micro-batch, else null.
    pub fn spec(&self) -> Value {
        let StepCase { config, shape: [batch, context], setup: Setup { accumulate, precision, optim, .. }, .. } = self;
        let GptConfig { vocab, layers, heads, d, bias, .. } = *config;
        let gelu = match config.mlp {
            Mlp::Plain(Activation::GeluTanh) => "tanh",
            Mlp::Plain(Activation::GeluErf) => "none",
            _ => return Value::Null,
        };
        let gpt2 = config.positions == Positions::Learned && config.norm == NormKind::Layer && config.tied;
        let plain = config.hidden == 4 * d && config.kv_heads == heads && config.dropout == 0.0;
        if !(gpt2 && plain && *accumulate == 1 && optim.muon.is_none()) {
            return Value::Null;
        }
        json!({"vocab": vocab, "layers": layers, "heads": heads, "d": d, "positions": config.context, "bias": bias,
            "gelu": gelu, "batch": batch, "context": context, "precision": precision.name()})
    }

    /// The step, to be timed: the making of its batch is part of it.
    pub fn case(self) -> Case {
        let precision = self.setup.precision;
        let name = format!("{} {}", self.name, precision.name());
        let spec = self.spec();
        Case::new("step", name, spec, move |device| {
            let StepCase { config, shape, setup, .. } = self.clone();
            setup.supported(device)?;
            Lm::supported(&config, precision, device)?;
            let (vocab, tokens) = (config.vocab as u32, setup.accumulate * shape[0] * shape[1]);
            let fill = move |step, micro: usize, x: &mut [i32], y: &mut [i32]| {
                let mut rng = Rng::new(1, Purpose::Test, micro as u32, step);
                x.iter_mut().chain(y).for_each(|id| *id = rng.below(vocab) as i32);
                Ok(())
            };
            let mut trainer = Trainer::with(setup, Lm::new(config, shape, Box::new(fill)), device)?;
            let work = Work { flops: trainer.flops_per_step(), precision, ..Work::default() };
            let mut steps = 0;
            let mut step = move || {
                let start = Instant::now();
                trainer.step(steps)?;
                steps += 1;
                Ok(vec![start.elapsed().as_secs_f64()])
            };
            // A GPU's third step records itself.
            for _ in 0..3 {
                step()?;
            }
            Ok(Started { parts: vec![Part::whole(work, Unit::Tokens(tokens))], repeat: Box::new(step) })
        })
    }
}
