//! A simulated device with what tests of it need.

use bytemuck::{NoUninit, Pod, Zeroable};
use kiln::cpu::Simd;
use kiln::device::ptx::{Module, Names, Value};
use kiln::device::sim::{Counters, Fault, Options};
use kiln::device::{Arg, Driver, Grid, Ptr, Sim};
use std::sync::Arc;

pub struct Rig {
    pub sim: Sim,
}

/// A module from its text.
pub fn module(name: &str, text: &str, params: &[(&str, Value)]) -> Arc<Module> {
    let params: Names = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    match Module::new(name, text, &params) {
        Ok(module) => Arc::new(module),
        Err(error) => panic!("{error}\n{}", error.hint().unwrap_or("")),
    }
}

impl Rig {
    pub fn new(check: bool) -> Rig {
        Rig::with(check, 1, Simd::detect().unwrap())
    }

    pub fn with(check: bool, threads: usize, simd: Simd) -> Rig {
        let options = Options { threads, simd, memory: 64 << 20, limit: 2_000, ..Options::new(check).unwrap() };
        Rig { sim: Sim::new(options) }
    }

    /// Memory that holds `data`.
    pub fn put<T: NoUninit>(&self, data: &[T]) -> Ptr {
        let bytes = bytemuck::cast_slice(data);
        let ptr = self.sim.alloc(bytes.len()).unwrap();
        self.sim.upload(ptr, bytes).unwrap();
        ptr
    }

    /// `n` numbers from memory.
    pub fn get<T: Pod + Zeroable>(&self, ptr: Ptr, n: usize) -> Vec<T> {
        let mut data = vec![T::zeroed(); n];
        self.sim.download(bytemuck::cast_slice_mut(&mut data), ptr).unwrap();
        data
    }

    /// Launches the one kernel of a module.
    pub fn try_run(&self, module: &Arc<Module>, grid: Grid, args: &[Arg]) -> kiln::Result<Counters> {
        let function = self.sim.function(module, &module.entries[0].name)?;
        self.sim.launch(&function, grid, args)?;
        Ok(self.sim.counters())
    }

    /// The same, where nothing should go wrong.
    pub fn run(&self, module: &Arc<Module>, grid: Grid, args: &[Arg]) -> Counters {
        match self.try_run(module, grid, args) {
            Ok(counters) => counters,
            Err(error) => panic!("{error}\n{}", error.hint().unwrap_or("")),
        }
    }

    /// The same, where something should.
    pub fn fault(&self, module: &Arc<Module>, grid: Grid, args: &[Arg]) -> Fault {
        let error = self.try_run(module, grid, args).expect_err("a fault");
        let fault = self.sim.fault().unwrap_or_else(|| panic!("no fault, but {error}"));
        assert_eq!(error.to_string(), fault.to_string());
        fault
    }
}

/// `n` numbers in −1..1, always the same.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
