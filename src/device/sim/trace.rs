//! One thread, watched: which instructions it executes, and what its registers hold before and after.

use super::decode::{PRED, Program};
use super::warp::Warp;
use crate::device::driver::{Function, Grid};
use crate::device::ptx::{Module, Type};
use std::sync::{Arc, Mutex, PoisonError};

/// Which thread is watched.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The kernel.
    pub entry: String,
    /// The block, as one number.
    pub block: u32,
    /// The warp in the block.
    pub warp: u32,
    /// The lane in the warp.
    pub lane: u32,
    /// Steps that are kept.
    pub steps: usize,
}

/// A register and what the watched lane has there.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its name, as `%r1`.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Its bits.
    pub bits: u64,
}

/// An instruction that the watched thread came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The line of the expanded text.
    pub line: usize,
    /// The lanes that executed it.
    pub mask: u32,
    /// Whether the watched one did; else its guard excluded it.
    pub on: bool,
    /// What it read.
    pub reads: Vec<Held>,
    /// What it wrote.
    pub writes: Vec<Held>,
}

/// What a watched thread did.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The module.
    pub module: Arc<Module>,
    /// The kernel.
    pub entry: usize,
    /// The launch.
    pub grid: Grid,
    /// The first steps.
    pub steps: Vec<Step>,
    /// How many there were in all.
    pub total: u64,
}

/// A [`Probe`] in its launch.
#[derive(Debug)]
pub struct Watch {
    probe: Probe,
    /// Steps that are kept, and how many there were.
    seen: Mutex<(Vec<Step>, u64)>,
}

impl Watch {
    pub(super) fn new(probe: Probe) -> Watch {
        Watch { probe, seen: Mutex::default() }
    }

    pub(super) fn trace(self, function: &Function, grid: Grid) -> Trace {
        let (steps, total) = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        Trace { module: Arc::clone(&function.module), entry: function.entry, grid, steps, total }
    }

    /// Whether `warp` of block `block` is about to take a step of the watched thread.
    #[inline]
    pub(super) fn meets(&self, block: u32, warp: &Warp) -> bool {
        block == self.probe.block && warp.index == self.probe.warp && warp.mask >> self.probe.lane & 1 == 1
    }

    /// Notes what instruction `pc` is about to read.
    #[cold]
    pub(super) fn before(&self, program: &Program, warp: &Warp, pc: usize, mask: u32) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1 += 1;
        if seen.0.len() < self.probe.steps {
            let on = mask >> self.probe.lane & 1 == 1;
            let reads = self.held(program, warp, &program.uses[pc].reads);
            seen.0.push(Step { line: program.line(pc), mask, on, reads, writes: Vec::new() });
        }
    }

    /// Notes what it wrote.
    #[cold]
    pub(super) fn after(&self, program: &Program, warp: &Warp, pc: usize) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.1 as usize == seen.0.len()
            && let Some(step) = seen.0.last_mut().filter(|step| step.on)
        {
            step.writes = self.held(program, warp, &program.uses[pc].writes);
        }
    }

    fn held(&self, program: &Program, warp: &Warp, places: &[u16]) -> Vec<Held> {
        let (lane, registers) = (self.probe.lane as usize, &program.kernel().registers);
        let mut held: Vec<Held> = Vec::new();
        for place in places {
            let Some(name) = program.names.get(place).filter(|name| held.iter().all(|held| held.name != **name)) else {
                continue;
            };
            let ty = registers.iter().find(|register| register.name == *name).map_or(Type::B32, |register| register.ty);
            let bits = match ty.bits() {
                1 => u64::from(warp.preds[usize::from(place & !PRED)] >> lane & 1),
                64 => warp.get::<u64>(*place)[lane],
                _ => u64::from(warp.get::<u32>(*place)[lane]),
            };
            held.push(Held { name: name.clone(), ty, bits });
        }
        held
    }
}
