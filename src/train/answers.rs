//! What a model in training says.

use super::event::{Event, Watch};
use super::objective::Objective;
use super::run::RunDir;
use super::trainer::Trainer;
use crate::data::atomic::write_atomic;
use crate::device::Device;
use crate::disk;
use crate::error::Result;
use crate::model::Gpt;
use crate::model::sample::SampleOptions;
use crate::model::sequence::{answers, counted, ending};
use crate::params::{Hold, Params};
use crate::tape::Tape;

/// An objective whose model writes.
pub trait Speaks: Objective {
    /// The model.
    fn gpt(&self) -> &Gpt;
}

impl<O: Speaks> Trainer<O> {
    /// Lets `work` have the model on the host: one on a GPU as a copy of its weights.
    pub(super) fn on_host<R>(&mut self, work: impl FnOnce(&Gpt, &Params, &mut Tape) -> R) -> R {
        let gpt = self.objective.gpt();
        let host = match self.params.device() {
            Device::Cpu(_) => return work(gpt, &self.params, &mut self.tape),
            gpu @ Device::Gpu(_) => gpu.on_host(),
        };
        let mut params = Params::frozen(&host, self.decls(), Hold::Frozen);
        self.params.ids().for_each(|id| params.set_weight(id, &self.params.weight(id).read()));
        work(gpt, &params, &mut Tape::new(&host))
    }

    /// Lets the model answer many prompts until one of `stop`, and tells `done` how many are over; see [`answers`]. A model on a GPU answers on
    /// the host, with a copy of its weights.
    pub fn answers(
        &mut self,
        prompts: &[&[u32]],
        stop: &[u32],
        options: &dyn Fn(usize) -> SampleOptions,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Vec<Vec<u32>> {
        self.on_host(|gpt, params, tape| answers(gpt, params, tape, prompts, stop, options, &mut counted(done)))
    }

    /// The same, each answer with the one of `ends` that ended it.
    pub fn ended_answers(
        &mut self,
        prompts: &[&[u32]],
        ends: &[u32],
        options: &dyn Fn(usize) -> SampleOptions,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Vec<Vec<u32>> {
        self.on_host(|gpt, params, tape| answers(gpt, params, tape, prompts, &[], options, &mut ending(ends, done)))
    }
}

/// Shows what a model wrote after `step` steps, and puts it into the run's `samples/`.
///
/// # Errors
/// It cannot be written.
pub(super) fn show(text: &str, step: u64, run: &RunDir, watch: &mut dyn Watch) -> Result<()> {
    disk::make_dirs(run.disk(), &run.samples())?;
    write_atomic(run.disk(), &run.sample(step, "txt"), text.as_bytes())?;
    watch.event(&Event::Sample { step, text });
    Ok(())
}
