//! How fast a whole training step is: forward, backward and update on random tokens. And how fast a model writes:
//! [`decode`].

pub mod decode;

use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::model::{Gpt, GptConfig, Size};
use crate::optim::Optimizer;
use crate::params::Params;
use crate::rng::{Purpose, Rng};
use crate::tape::{Pass, Tape};
use crate::tensor::Tensor;
use std::time::Instant;

/// A model and a batch of a known size, under the name that the peers in benches/peers use.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCase {
    /// The name.
    pub name: &'static str,
    /// The model.
    pub config: GptConfig,
    /// B: sequences.
    pub batch: usize,
    /// T: tokens in a sequence.
    pub context: usize,
}

impl StepCase {
    /// `nano`, `tiny` and `gpt2` (124M parameters).
    pub fn all() -> [StepCase; 3] {
        let case = |name, [vocab, layers, heads, d]: [usize; 4], [batch, context, positions]: [usize; 3], bias| {
            let size = Size { vocab, context: positions, layers, heads, d };
            StepCase { name, config: GptConfig { bias, ..GptConfig::gpt2(size) }, batch, context }
        };
        [
            case("nano", [8192, 4, 4, 256], [16, 256, 256], true),
            case("tiny", [65, 6, 6, 384], [12, 256, 256], false),
            case("gpt2", [50304, 12, 12, 768], [4, 256, 1024], true),
        ]
    }
}

/// A model ready to be stepped again and again.
pub struct StepBench {
    case: StepCase,
    gpt: Gpt,
    params: Params,
    tape: Tape,
    rng: Rng,
    precision: Precision,
    steps: u64,
}

impl StepBench {
    /// The model of `case` on `device`, with fresh weights; `precision` as in [`Pass`], `recompute` as in
    /// [`Tape::recompute`].
    pub fn new(case: StepCase, precision: Precision, recompute: bool, device: &Device) -> StepBench {
        let (gpt, decls) = Gpt::new(case.config.clone());
        let mut params = Params::new(device, &decls, 1);
        Optimizer::default().prepare(&mut params);
        let rng = Rng::new(1, Purpose::Test, 0, 0);
        let mut tape = Tape::new(device);
        tape.recompute(recompute);
        StepBench { case, gpt, params, tape, rng, precision, steps: 0 }
    }

    /// One step on a new random batch: its seconds, the making of the batch left out, and its loss.
    pub fn step(&mut self) -> (f64, f32) {
        let device = self.params.device().clone();
        let StepCase { config, batch, context, .. } = &self.case;
        let mut ids = || {
            let ids: Vec<i32> = (0..batch * context).map(|_| self.rng.below(config.vocab as u32) as i32).collect();
            Tensor::from_slice(&device, &ids, [*batch, *context])
        };
        let (x, y) = (ids(), ids());
        let start = Instant::now();
        let pass = Pass { step: self.steps, training: true, precision: self.precision, ..Pass::default() };
        self.tape.begin(&self.params, pass);
        let loss = self.gpt.loss(self.tape.constant(x), self.tape.constant(y), None, None);
        let value = loss.value().item();
        loss.backward(&mut self.params, true);
        self.tape.reset();
        self.steps += 1;
        let norm = self.params.grad_norm();
        Optimizer::default().step(&mut self.params, self.steps, 3e-4, norm);
        (start.elapsed().as_secs_f64(), value)
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.case.batch * self.case.context
    }

    /// Floating-point operations of a step; see [`GptConfig::flops_per_token`].
    pub fn flops(&self) -> f64 {
        self.case.config.flops_per_token(self.case.context) * self.tokens() as f64
    }
}
