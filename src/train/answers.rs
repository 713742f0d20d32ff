//! What a model in training says.

use super::objective::Objective;
use super::trainer::Trainer;
use crate::device::Device;
use crate::model::Gpt;
use crate::model::sample::SampleOptions;
use crate::model::sequence::{answers, counted};
use crate::params::{Hold, Params};
use crate::tape::Tape;

/// An objective whose model writes.
pub trait Speaks: Objective {
    /// The model.
    fn gpt(&self) -> &Gpt;
}

impl<O: Speaks> Trainer<O> {
    /// Lets the model answer many prompts until one of `stop`, and tells `done` how many are over; see [`answers`]. A model on a GPU answers on
    /// the host, with a copy of its weights.
    pub fn answers(
        &mut self,
        prompts: &[&[u32]],
        stop: &[u32],
        options: &dyn Fn(usize) -> SampleOptions,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Vec<Vec<u32>> {
        let gpt = self.objective.gpt();
        let host = match self.params.device() {
            Device::Cpu(_) => {
                let mut see = counted(done);
                return answers(gpt, &self.params, &mut self.tape, prompts, stop, options, &mut see);
            }
            gpu @ Device::Gpu(_) => gpu.on_host(),
        };
        let mut params = Params::frozen(&host, self.decls(), Hold::Frozen);
        self.params.ids().for_each(|id| params.set_weight(id, &self.params.weight(id).read()));
        answers(gpt, &params, &mut Tape::new(&host), prompts, stop, options, &mut counted(done))
    }
}
