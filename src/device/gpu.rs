//! A GPU as a device of tensors: a driver, a pool of its memory, the kernels that were loaded, and what went wrong.
//!
//! Operations launch kernels and go on; nothing waits. A launch that is refused, or a kernel that fails, is kept as the
//! device's failure, and later launches do nothing: who waits for results ([`Gpu::check`]) is told.

use super::driver::Function;
use super::kernels::{Plan, Variant};
use super::ptx::Module;
use super::{Arg, Driver, Host, Pool, Ptr};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A GPU, real or simulated.
pub struct Gpu {
    /// What runs kernels.
    pub driver: Arc<dyn Driver>,
    /// The buffers of its tensors.
    pub pool: Pool,
    /// The host's processor, on which its work is prepared.
    pub host: Arc<Host>,
    step: Ptr,
    state: Mutex<State>,
}

/// What changes from step to step and kernels read, in device memory, so that a recorded step can be run again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct StepState {
    /// The run's seed, for dropout.
    pub seed: u64,
    /// The step, for dropout.
    pub step: u64,
    /// The factor of all gradients, the device's own.
    pub clip: f32,
    /// 1 where the sum of the gradients' squares is not finite in f32, the device's own.
    pub skip: u32,
    /// The norm of all gradients, the device's own.
    pub norm: f32,
    /// The three numbers of an update that hang on the step and on the learning rate; see kernels/adamw.ptx.
    pub rates: [f32; 3],
    /// The sum of the micro-batches' losses, the device's own.
    pub loss: f32,
    unused: u32,
}

#[derive(Default)]
struct State {
    modules: HashMap<Variant, Arc<Module>>,
    functions: HashMap<(Variant, &'static str), Function>,
    failure: Option<Error>,
    recording: bool,
}

impl Gpu {
    /// The GPU behind `driver`.
    ///
    /// # Errors
    /// It has no memory.
    pub fn new(driver: Arc<dyn Driver>, host: Arc<Host>) -> Result<Gpu> {
        let step = driver.alloc(size_of::<StepState>())?;
        driver.fill(step, 0, size_of::<StepState>() / 4)?;
        Ok(Gpu { pool: Pool::of(Arc::clone(&driver)), driver, host, step, state: Mutex::default() })
    }

    /// Where the [`StepState`] lies.
    pub fn state(&self) -> Ptr {
        self.step
    }

    /// Sets seed and step. A recording has no part in it: who replays one calls this before.
    pub fn begin(&self, seed: u64, step: u64) {
        self.set(offset_of!(StepState, seed), bytemuck::bytes_of(&[seed, step]));
    }

    fn set(&self, at: usize, bytes: &[u8]) {
        let recording = self.lock().recording;
        if !recording {
            self.upload(self.step.offset(at), bytes);
        }
    }

    /// Where the sum of the losses lies.
    pub fn loss(&self) -> Ptr {
        self.step.offset(offset_of!(StepState, loss))
    }

    /// Sets the rates; as of [`begin`](Gpu::begin), no part of a recording.
    pub fn set_rates(&self, rates: [f32; 3]) {
        self.set(offset_of!(StepState, rates), bytemuck::bytes_of(&rates));
    }

    /// Records what `f` launches, without doing it, for [`replay`](Gpu::replay). `f` ran before, so that nothing has to be
    /// loaded or allocated, and reads nothing back.
    ///
    /// # Errors
    /// It cannot be recorded, or a launch was refused.
    pub fn record(&self, f: impl FnOnce()) -> Result<usize> {
        self.driver.record()?;
        self.lock().recording = true;
        f();
        self.lock().recording = false;
        let recording = self.driver.recorded();
        self.lock().failure.take().map_or(recording, Err)
    }

    /// Does what was recorded.
    pub fn replay(&self, recording: usize) {
        if let Err(error) = self.driver.replay(recording) {
            self.fail(error);
        }
    }

    /// The state, once all that was launched is done.
    ///
    /// # Errors
    /// What went wrong first since the last call of this or of [`check`](Gpu::check).
    pub fn finish(&self) -> Result<StepState> {
        let mut state = StepState::default();
        self.download(bytemuck::bytes_of_mut(&mut state), self.step);
        self.lock().failure.take().map_or(Ok(state), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a kernel, in the order of all calls; what goes wrong is told by [`check`](Gpu::check).
    pub fn launch(&self, plan: Plan, args: &[Arg]) {
        if self.driver.is_dry() {
            return;
        }
        let state = &mut *self.lock();
        if state.failure.is_none()
            && let Err(error) = self.try_launch(state, plan, args)
        {
            state.failure = Some(error);
        }
    }

    fn try_launch(&self, state: &mut State, plan: Plan, args: &[Arg]) -> Result<()> {
        let Plan { variant, entry, grid } = plan;
        let key = (variant, entry);
        if let Some(function) = state.functions.get(&key) {
            return self.driver.launch(function, grid, args);
        }
        let module = match state.modules.get(&key.0) {
            Some(module) => Arc::clone(module),
            None => {
                let module = Arc::new(key.0.module()?);
                state.modules.insert(key.0.clone(), Arc::clone(&module));
                module
            }
        };
        let function = self.driver.function(&module, entry)?;
        self.driver.launch(state.functions.entry(key).or_insert(function), grid, args)
    }

    /// Notes that something went wrong; the first of several is kept.
    pub fn fail(&self, error: Error) {
        self.lock().failure.get_or_insert(error);
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// What went wrong first since the last call.
    pub fn check(&self) -> Result<()> {
        match self.lock().failure.take() {
            Some(error) => Err(error),
            None => self.driver.sync(),
        }
    }

    /// Has the device note when it comes by here; see [`Driver::mark`].
    pub fn mark(&self, number: usize) {
        if let Err(error) = self.driver.mark(number) {
            self.fail(error);
        }
    }

    /// Copies to the device.
    pub fn upload(&self, to: Ptr, from: &[u8]) {
        if let Err(error) = self.driver.upload(to, from) {
            self.fail(error);
        }
    }

    /// Copies from the device, when all before is done; zeros where something went wrong.
    pub fn download(&self, to: &mut [u8], from: Ptr) {
        let failed = self.lock().failure.is_some();
        if failed {
            return to.fill(0);
        }
        if let Err(error) = self.driver.download(to, from) {
            to.fill(0);
            self.fail(error);
        }
    }

    /// Sets `words` words of 32 bits.
    pub fn fill(&self, to: Ptr, word: u32, words: usize) {
        if let Err(error) = self.driver.fill(to, word, words) {
            self.fail(error);
        }
    }

    /// Joins the devices of other ranks: see [`Driver::join`].
    ///
    /// # Errors
    /// They do not meet.
    pub fn meet(&self, ranks: &Ranks) -> Result<()> {
        let meeting = if ranks.rank() == 0 { self.driver.meeting(ranks.size())? } else { Vec::new() };
        self.driver.join(&ranks.tell(&meeting)?, ranks.rank(), ranks.size())
    }

    /// Adds f32 up over all devices that [met](Gpu::meet), in place.
    pub fn all_reduce(&self, at: Ptr, len: usize) {
        if let Err(error) = self.driver.all_reduce(at, len) {
            self.fail(error);
        }
    }
}
