//! A GPU as a device of tensors: a driver, a pool of its memory, the kernels that were loaded, and what went wrong.
//!
//! Operations launch kernels and go on; nothing waits. A launch that is refused, or a kernel that fails, is kept as the
//! device's failure, and later launches do nothing: who waits for results ([`Gpu::check`]) is told.

use super::ptx::{Module, Names, Value};
use super::{Arg, Driver, Grid, Pool, Ptr, driver::Function};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use arrayvec::ArrayVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A setting of a kernel's parameter, `//@ param` in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// A number.
    Int(i64),
    /// A word.
    Text(&'static str),
}

impl From<usize> for Set {
    fn from(x: usize) -> Set {
        Set::Int(x as i64)
    }
}
impl From<&'static str> for Set {
    fn from(x: &'static str) -> Set {
        Set::Text(x)
    }
}

/// A kernel: its file, its entry, and the settings with which the file is expanded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    file: &'static str,
    entry: &'static str,
    set: ArrayVec<(&'static str, Set), 8>,
}

impl Kernel {
    /// Entry `entry` of kernels/`file`.ptx.
    pub fn new(file: &'static str, entry: &'static str) -> Kernel {
        Kernel { file, entry, set: ArrayVec::new() }
    }

    /// The same with parameter `name` of the file set.
    pub fn with(mut self, name: &'static str, value: impl Into<Set>) -> Kernel {
        self.set.push((name, value.into()));
        self
    }
}

/// A GPU, real or simulated.
pub struct Gpu {
    /// What runs kernels.
    pub driver: Arc<dyn Driver>,
    /// The buffers of its tensors.
    pub pool: Pool,
    /// The host's processor, on which its work is prepared.
    pub host: Cpu,
    step: Ptr,
    state: Mutex<State>,
}

/// Bytes of the state of a step in device memory, which kernels/adamw.ptx describes.
const STEP: usize = 48;

#[derive(Default)]
struct State {
    functions: HashMap<Kernel, Function>,
    failure: Option<Error>,
}

impl Gpu {
    /// The GPU behind `driver`.
    ///
    /// # Errors
    /// It has no memory.
    pub fn new(driver: Arc<dyn Driver>, host: Cpu) -> Result<Gpu> {
        let step = driver.alloc(STEP)?;
        driver.fill(step, 0, STEP / 4)?;
        Ok(Gpu { pool: Pool::of(Arc::clone(&driver)), driver, host, step, state: Mutex::default() })
    }

    /// What changes from step to step and kernels read: seed, step, learning rate and so on; see kernels/adamw.ptx.
    pub fn state(&self) -> Ptr {
        self.step
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a kernel over `grid`, in the order of all calls; what goes wrong is told by [`check`](Gpu::check).
    pub fn launch(&self, kernel: Kernel, grid: Grid, args: &[Arg]) {
        let mut state = self.lock();
        if state.failure.is_some() {
            return;
        }
        if let Err(error) = self.try_launch(&mut state, kernel, grid, args) {
            state.failure = Some(error);
        }
    }

    fn try_launch(&self, state: &mut State, kernel: Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        if let Some(function) = state.functions.get(&kernel) {
            return self.driver.launch(function, grid, args);
        }
        let names: Names = kernel
            .set
            .iter()
            .map(|(name, set)| {
                let value = match *set {
                    Set::Int(x) => Value::Int(x),
                    Set::Text(x) => Value::Text(x.to_owned()),
                };
                ((*name).to_owned(), value)
            })
            .collect();
        let text = super::kernels::source(kernel.file);
        let module = Arc::new(Module::new(&format!("{}.ptx", kernel.file), text, &names)?);
        let function = self.driver.function(&module, kernel.entry)?;
        let function = state.functions.entry(kernel).or_insert(function);
        self.driver.launch(function, grid, args)
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
}
