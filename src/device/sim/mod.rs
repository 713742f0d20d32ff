//! A simulated CUDA device: it runs the PTX that a GPU would, instruction by instruction, on the CPU.
//!
//! A kernel is decoded once ([`decode`]); the blocks of a launch are spread over threads ([`block`]), and in each the warps
//! of 32 lanes take turns ([`exec`]): all lanes of a warp that stand at the lowest instruction execute it together, the
//! others wait until they meet. With checks on, every access is watched ([`shared`], [`memory`]) and the first thing
//! that is wrong ends the launch with a [`Fault`].
//!
//! What is not simulated: time, caches, and the order of memory between blocks, which is always the order of execution.

pub mod block;
pub mod counters;
pub mod decode;
pub mod exec;
pub mod fault;
pub mod memory;
pub mod number;
pub mod shared;
pub mod trace;
pub mod warp;

pub use counters::{Class, Count, Counters, Site, Traffic};
pub use fault::{Fault, Kind};
pub use trace::{Probe, Trace};

use super::driver::{Arg, Driver, Function, Grid, Ptr, alone, check_grid, find, parameters};
use super::ptx::Module;
use crate::cpu::{Simd, Threads};
use crate::error::{Error, Result};
use crate::ranks::Engine;
use crate::ranks::local::{Local, Meeting};
use block::{Block, Launch};
use decode::Program;
use memory::{Memory, Touched};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use trace::Watch;
use warp::Shape;

/// What a simulated device is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether every access is checked. Slower by a factor of about three.
    pub check: bool,
    /// Bytes of global memory; the host's are used as they are touched.
    pub memory: usize,
    /// Bytes of shared memory that a block can have: those of an sm_80 by default.
    pub shared: usize,
    /// Host threads; 0 for as many as this process may use.
    pub threads: usize,
    /// The most jumps backwards that a warp may make, with checks on: a loop that does not end becomes a fault.
    pub limit: u64,
    /// The instruction set of the interpreter.
    pub simd: Simd,
}

impl Options {
    /// A device with or without checks: 1 GiB of memory, all host threads, the best instruction set.
    ///
    /// # Errors
    /// `KILN_SIMD` names a level that this processor lacks.
    pub fn new(check: bool) -> Result<Options> {
        let simd = Simd::detect()?;
        Ok(Options { check, memory: 1 << 30, shared: 163 << 10, threads: 0, limit: 1 << 24, simd })
    }
}

/// A simulated device.
pub struct Sim {
    options: Options,
    threads: Threads,
    state: Mutex<State>,
    /// The simulated devices that it adds up with.
    others: Mutex<Option<Local>>,
}

/// Where simulated devices of this process meet.
static MEETINGS: Mutex<Vec<Meeting>> = Mutex::new(Vec::new());

struct State {
    memory: Memory,
    programs: Vec<Arc<Program>>,
    /// What the last launch did.
    counters: Counters,
    /// What went wrong in the last launch.
    fault: Option<Box<Fault>>,
    /// What is being recorded.
    recording: Option<Vec<Recorded>>,
    recordings: Vec<Arc<[Recorded]>>,
    marks: Vec<Instant>,
    /// A thread to be watched, until its kernel is launched.
    probe: Option<Probe>,
    /// What was seen of it.
    trace: Option<Trace>,
}

/// A call in a recording.
enum Recorded {
    Launch(Function, Grid, Vec<Arg>),
    Fill(Ptr, u32, usize),
}

impl Sim {
    /// A device.
    pub fn new(options: Options) -> Sim {
        let threads = if options.threads == 0 { crate::cpu::available_threads() } else { options.threads };
        let state = State {
            memory: Memory::new(options.memory, options.check),
            programs: Vec::new(),
            counters: Counters::default(),
            fault: None,
            recording: None,
            recordings: Vec::new(),
            marks: Vec::new(),
            probe: None,
            trace: None,
        };
        Sim { threads: Threads::new(threads), state: Mutex::new(state), others: Mutex::new(None), options }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last launch did.
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// What went wrong in the last launch, if its kernel did.
    pub fn fault(&self) -> Option<Fault> {
        self.lock().fault.as_deref().cloned()
    }

    /// Watches a thread in the next launch of its kernel; see [`traced`](Sim::traced). With checks on only.
    pub fn watch(&self, probe: Probe) {
        self.lock().probe = Some(probe);
    }

    /// What the watched thread did, when its kernel was launched.
    pub fn traced(&self) -> Option<Trace> {
        self.lock().trace.take()
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.lock().memory.used()
    }

    /// Runs all blocks of a launch.
    fn run(&self, launch: &Launch<'_>) -> Result<Counters, Box<Fault>> {
        let blocks: u32 = launch.shape.grid.iter().product();
        let (next, stop) = (AtomicU32::new(0), AtomicU32::new(u32::MAX));
        let length = launch.program.code.len();
        let sites: Vec<Option<Box<Site>>> = Vec::new();
        let total = Mutex::new((Counters::default(), vec![Count::default(); length], sites));
        let fault: Mutex<Option<(u32, Box<Fault>)>> = Mutex::new(None);
        self.threads.run(self.threads.count().min(blocks as usize), &|_| {
            let mut block = Block::new(launch);
            let mut warps = block.warps();
            let mut fresh = true;
            loop {
                let number = next.fetch_add(1, Relaxed);
                // Blocks before one that failed go on: of several faults the one of the first block is told.
                if number >= blocks || number > stop.load(Relaxed) {
                    break;
                }
                if let Err(found) = block.run(number, &mut warps, fresh) {
                    stop.fetch_min(number, Relaxed);
                    let mut first = fault.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(other, _)| number < *other) {
                        *first = Some((number, found));
                    }
                    break;
                }
                fresh = false;
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.0.divergent += block.divergent;
            total.1.iter_mut().zip(&block.counts).for_each(|(total, count)| *total += *count);
            if total.2.is_empty() {
                total.2 = block.sites;
            } else {
                for (total, site) in total.2.iter_mut().zip(block.sites) {
                    match (total, site) {
                        (Some(total), Some(site)) => **total += &*site,
                        (total @ None, site) => *total = site,
                        _ => {}
                    }
                }
            }
        });
        if let Some((_, fault)) = fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault);
        }
        let (mut counters, counts, sites) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (pc, count) in counts.iter().enumerate() {
            counters.classes[launch.program.class(pc) as usize] += *count;
            let line = launch.program.line(pc);
            match counters.lines.last_mut().filter(|(last, _)| *last == line) {
                Some((_, total)) => *total += *count,
                None => counters.lines.push((line, *count)),
            }
        }
        for (pc, site) in sites.into_iter().enumerate().filter_map(|(pc, site)| Some((pc, site?))) {
            counters.shared += site.shared;
            counters.global += site.global;
            counters.sites.push((launch.program.line(pc), *site));
        }
        Ok(counters)
    }
}

/// The place of `bytes` bytes at `ptr` in the arena.
fn range(memory: &Memory, ptr: Ptr, bytes: usize, what: &str) -> Result<usize> {
    memory.range(ptr.0, bytes).ok_or_else(|| {
        let problem = format!("{what} {bytes} bytes at {:#x}: they do not lie in one allocation", ptr.0);
        Error::device(problem, "look at the size, and at whether the memory was freed")
    })
}

impl Driver for Sim {
    fn describe(&self) -> String {
        let checks = if self.options.check { "with checks" } else { "without checks" };
        let (threads, simd) = (self.threads.count(), self.options.simd.name());
        format!("simulated GPU {checks}, {threads} threads, {simd}")
    }

    fn memory(&self) -> usize {
        self.options.memory
    }

    fn alloc(&self, bytes: usize) -> Result<Ptr> {
        let mut state = self.lock();
        let used = state.memory.used();
        state.memory.alloc(bytes).map(Ptr).ok_or_else(|| {
            let problem = format!("{bytes} bytes do not fit: {used} of {} are in use", self.options.memory);
            Error::device(problem, "give the simulated device more memory, or use a smaller batch")
        })
    }

    fn free(&self, ptr: Ptr) -> Result<()> {
        if self.lock().memory.free(ptr.0) {
            return Ok(());
        }
        let problem = format!("free of {:#x}, where no allocation begins", ptr.0);
        Err(Error::device(problem, "free what alloc gave, once"))
    }

    fn meeting(&self, size: usize) -> Result<Vec<u8>> {
        let mut all = MEETINGS.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Meeting::of(size));
        Ok((all.len() as u64 - 1).to_le_bytes().to_vec())
    }

    fn join(&self, meeting: &[u8], rank: usize, _: usize) -> Result<()> {
        let number = meeting.try_into().map(u64::from_le_bytes).ok();
        let all = MEETINGS.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = number.and_then(|number| all.get(number as usize)).ok_or_else(|| alone(&self.describe()))?;
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(meeting.join(rank));
        Ok(())
    }

    fn all_reduce(&self, at: Ptr, len: usize) -> Result<()> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let joined = others.as_mut().ok_or_else(|| alone(&self.describe()))?;
        let mut values = vec![0.0f32; len];
        self.download(bytemuck::cast_slice_mut(&mut values), at)?;
        joined.sum(&mut values)?;
        self.upload(at, bytemuck::cast_slice(&values))
    }

    fn upload(&self, to: Ptr, from: &[u8]) -> Result<()> {
        let memory = &mut self.lock().memory;
        let at = range(memory, to, from.len(), "upload of")?;
        memory.bytes.slice(at, from.len()).copy_from_slice(from);
        memory.wrote(at, from.len());
        Ok(())
    }

    fn download(&self, to: &mut [u8], from: Ptr) -> Result<()> {
        let memory = &mut self.lock().memory;
        let at = range(memory, from, to.len(), "download of")?;
        to.copy_from_slice(memory.bytes.slice(at, to.len()));
        Ok(())
    }

    fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
        let State { memory, recording, .. } = &mut *self.lock();
        let at = range(memory, to, 4 * words, "fill of")?;
        if let Some(recording) = recording {
            recording.push(Recorded::Fill(to, word, words));
            return Ok(());
        }
        memory
            .bytes
            .slice(at, 4 * words)
            .chunks_exact_mut(4)
            .for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
        memory.wrote(at, 4 * words);
        Ok(())
    }

    fn function(&self, module: &Arc<Module>, name: &str) -> Result<Function> {
        let entry = find(module, name)?;
        let mut state = self.lock();
        let known = state.programs.iter().position(|p| Arc::ptr_eq(&p.module, module) && p.entry == entry);
        let id = known.unwrap_or(state.programs.len());
        if id == state.programs.len() {
            state.programs.push(Arc::new(decode::decode(module, entry)?));
        }
        Ok(Function { module: Arc::clone(module), entry, id })
    }

    fn launch(&self, function: &Function, grid: Grid, args: &[Arg]) -> Result<()> {
        let kernel = function.kernel();
        let params = parameters(&function.module, kernel, args)?;
        check_grid(&function.module, kernel, grid, self.options.shared)?;
        if grid.blocks.iter().map(|n| u64::from(*n)).product::<u64>() >= 1 << 30 {
            let problem =
                format!("{}: kernel {}: a grid of {:?} blocks", function.module.source.name, kernel.name, grid.blocks);
            return Err(Error::device(problem, "the simulated device runs less than 2³⁰ blocks"));
        }
        let state = &mut *self.lock();
        if let Some(recording) = &mut state.recording {
            recording.push(Recorded::Launch(function.clone(), grid, args.to_vec()));
            return Ok(());
        }
        for (arg, param) in args.iter().zip(&kernel.params) {
            if let Arg::Ptr(ptr) = arg
                && self.options.check
                && state.memory.allocation(ptr.0).is_none()
            {
                let name = format!("{}: kernel {}", function.module.source.name, kernel.name);
                let problem = format!("{name}: {} is {:#x}, an address in no allocation", param.name, ptr.0);
                let hint = "look at whether the memory was freed, and at the order of the arguments";
                return Err(Error::device(problem, hint));
            }
        }
        let program = Arc::clone(&state.programs[function.id]);
        let bytes = state.memory.extent();
        let launch = Launch {
            program: &program,
            shape: Shape {
                grid: grid.blocks,
                block: grid.threads,
                shared: [kernel.shared.next_multiple_of(16), grid.shared],
            },
            params: &params,
            memory: &state.memory,
            touched: self.options.check.then(|| Touched::new(bytes, program.grain[1])),
            limit: self.options.limit,
            watch: state.probe.take_if(|probe| self.options.check && probe.entry == kernel.name).map(Watch::new),
            simd: self.options.simd,
        };
        let ran = self.run(&launch);
        if let Some(watch) = launch.watch {
            state.trace = Some(watch.trace(function, grid));
        }
        match ran {
            Ok(counters) => {
                (state.counters, state.fault) = (counters, None);
                Ok(())
            }
            Err(fault) => {
                state.fault = Some(fault.clone());
                Err(fault.into())
            }
        }
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn record(&self) -> Result<()> {
        self.lock().recording = Some(Vec::new());
        Ok(())
    }

    fn recorded(&self) -> Result<usize> {
        let state = &mut *self.lock();
        state.recordings.extend(state.recording.take().map(Arc::from));
        Ok(state.recordings.len() - 1)
    }

    fn replay(&self, recording: usize) -> Result<()> {
        let recording = Arc::clone(&self.lock().recordings[recording]);
        recording.iter().try_for_each(|call| match call {
            Recorded::Launch(function, grid, args) => self.launch(function, *grid, args),
            Recorded::Fill(to, word, words) => self.fill(*to, *word, *words),
        })
    }

    fn mark(&self, number: usize) -> Result<()> {
        let (marks, now) = (&mut self.lock().marks, Instant::now());
        marks.resize(marks.len().max(number + 1), now);
        marks[number] = now;
        Ok(())
    }

    fn between(&self, first: usize, second: usize) -> Result<f64> {
        let marks = &self.lock().marks;
        Ok((marks[second] - marks[first]).as_secs_f64())
    }

    fn counted(&self) -> Option<Counters> {
        Some(self.counters())
    }
}
