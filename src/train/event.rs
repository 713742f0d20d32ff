//! What a training run tells whoever watches it: a command line, a test, later a page.

use super::fit::Plan;
use super::private::Promise;
use super::trainer::At;
use crate::cpu::gemm::Precision;
use crate::params::Params;
use crate::tensor::Tensor;
use std::path::{Path, PathBuf};

/// Someone who watches a run.
pub trait Watch {
    /// Called by the training loop, between steps; what it does delays the run.
    fn event(&mut self, event: &Event);

    /// Whether [`backward`](Watch::backward) is to be called.
    fn looks_into_steps(&self) -> bool {
        false
    }

    /// Called after the backward pass of each micro-batch with the gradients so far and its share of the step's loss: for
    /// those who look into a step, and for tests that spoil one. Never where training is private.
    fn backward(&mut self, _at: At, _micro: usize, _params: &mut Params, _loss: &mut Tensor) {}

    /// Asked once: the step after which the run pauses. It is then evaluated and saved, and goes on from there to the same
    /// bits when it is resumed: its recipe, and with it the schedule, stays that of the whole run.
    fn until(&self) -> Option<u64> {
        None
    }

    /// Asked after each step: the number of a signal that asks the run to save and stop.
    fn stop(&self) -> Option<i32> {
        None
    }
}

/// Watches nothing.
impl Watch for () {
    fn event(&mut self, _: &Event) {}
}

/// Something that happened in a run. Losses are in nats a token or a picture.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Work before the first step; it repeats as `done` grows.
    Prepare {
        /// The work, as "reading text".
        what: &'a str,
        /// How much of it is done.
        done: u64,
        /// How much there is; 0 where nobody knows.
        total: u64,
    },
    /// What memory the run will take; it is about to be taken.
    Memory {
        /// The bytes, by what they are for.
        plan: &'a Plan,
    },
    /// The model and the data stand; the first step comes next.
    Start {
        /// The run directory.
        run: &'a Path,
        /// Elements of all parameters.
        parameters: usize,
        /// Those of them that are trained.
        trained: usize,
        /// Steps of the whole run.
        steps: u64,
        /// The first step that this process does: 0, or where a resumed run goes on.
        first_step: u64,
        /// How much of what it is trained on, as `(8192, "token ids")`.
        data: &'a [(u64, &'static str)],
        /// What linear layers compute in.
        precision: Precision,
    },
    /// Training is private; this comes after [`Start`](Event::Start).
    Private {
        /// What will be promised after the last step.
        promise: &'a Promise,
    },
    /// A step is done.
    Step {
        /// Steps done so far.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// The loss on the step's batch; NaN where training is private, which does not tell it.
        loss: f32,
        /// The learning rate of the step.
        lr: f64,
        /// The norm of the gradient before clipping.
        grad_norm: f64,
        /// The parts of the loss, or what else the model reports, by name.
        parts: &'a [(&'static str, f32)],
        /// Tokens, or pictures, a second in this step.
        rate: f64,
        /// Which of them, as `tokens`.
        unit: &'static str,
        /// Floating-point operations a second over this machine's measured peak; `None` where that is not known.
        share_of_peak: Option<f64>,
    },
    /// The step that was told of last was skipped: weights and moments are as before it.
    Skipped {
        /// Steps done so far, this one included.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The first parameter whose gradient was not finite, or `loss` where none was.
        first: &'a str,
        /// Skipped steps in a row.
        in_a_row: u64,
    },
    /// The run goes back to an earlier step, and passes over the data that it used since.
    Rewind {
        /// Steps done so far.
        from: u64,
        /// Steps done at the checkpoint that it goes on from; 0: the initial weights.
        to: u64,
        /// Why.
        why: &'a str,
        /// How often it went back without getting past the step that made it, this time included.
        tries: u64,
        /// How often it may.
        max_tries: u64,
    },
    /// The validation part was evaluated.
    Eval {
        /// Steps done so far.
        step: u64,
        /// What was found: `validation loss`, or what a model without one is judged by.
        judged: &'static str,
        /// The mean loss over the validation part; of a model without one, a distance.
        val_loss: f64,
        /// More, by name.
        parts: &'a [(&'static str, f64)],
        /// The loss in bits a byte of text, which compares across tokenizers; of text alone.
        bits_per_byte: Option<f64>,
        /// The entropy of the generator of the built-in world in bits a byte: no model does better.
        floor: Option<f64>,
    },
    /// The model wrote something.
    Sample {
        /// Steps done so far.
        step: u64,
        /// What it wrote, unescaped.
        text: &'a str,
    },
    /// The model made pictures.
    Pictures {
        /// Steps done so far.
        step: u64,
        /// The file that shows them.
        path: &'a Path,
    },
    /// Something is not as it should be, but the run goes on.
    Warning {
        /// What it is, and what the run does about it.
        text: &'a str,
    },
    /// A checkpoint stands.
    Checkpoint {
        /// Steps done so far.
        step: u64,
        /// Its directory.
        path: &'a Path,
    },
    /// A signal ended the run; the checkpoint of `step` stands.
    Stopped {
        /// The signal's number.
        signal: i32,
        /// Steps done so far.
        step: u64,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The run directory.
    pub run: PathBuf,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Those of them that were trained.
    pub trained: usize,
    /// Steps done, those of earlier processes included.
    pub steps: u64,
    /// Steps of the whole run: more, where it paused or was stopped.
    pub of_steps: u64,
    /// The loss of the last step that was not skipped; NaN where training is private.
    pub loss: f32,
    /// What an evaluation's main number is, as `validation loss`.
    pub judged: &'static str,
    /// The last validation loss; of a model without one, a distance.
    pub val_loss: Option<f64>,
    /// The last validation loss in bits a byte.
    pub bits_per_byte: Option<f64>,
    /// Seconds that this process took, from reading data to the last file.
    pub seconds: f64,
    /// Steps that were skipped, in all.
    pub skipped: u64,
    /// How often the run went back to a checkpoint.
    pub rewinds: u64,
    /// The command to run next, before and after the run's directory.
    pub next: [&'static str; 2],
    /// The signal that ended the run early.
    pub stopped: Option<i32>,
    /// What memory it took.
    pub memory: Plan,
    /// What was promised to whom, where training is private.
    pub privacy: Option<Promise>,
}
