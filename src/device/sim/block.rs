//! One block: its warps take turns, each runs until it waits or ends.

use super::counters::{Count, Site};
use super::decode::Program;
use super::exec;
use super::fault::{Fault, Kind, Trouble};
use super::memory::{Memory, Touched};
use super::shared::Shared;
use super::trace::Watch;
use super::warp::{Shape, State, Warp};
use crate::cpu::Simd;

/// A launch, as its blocks see it.
pub struct Launch<'a> {
    /// What runs.
    pub program: &'a Program,
    /// The sizes.
    pub shape: Shape,
    /// The parameters, as they lie in the parameter space.
    pub params: &'a [u8],
    /// Global memory.
    pub memory: &'a Memory,
    /// Which blocks touched what of it; with checks on only.
    pub touched: Option<Touched>,
    /// The most jumps backwards that a warp may make, with checks on.
    pub limit: u64,
    /// A thread whose steps are noted, with checks on.
    pub watch: Option<Watch>,
    /// The instruction set.
    pub simd: Simd,
}

/// What one host thread needs to run blocks, one after the other.
pub struct Block<'a> {
    /// The launch.
    pub launch: &'a Launch<'a>,
    /// Which block runs.
    pub index: [u32; 3],
    /// The same as one number.
    pub number: u32,
    /// Its shared memory.
    pub shared: Shared,
    /// Threads that have come to each barrier, and how many it waits for.
    barriers: [(u32, Option<u32>); 16],
    /// Instructions executed, by their number.
    pub counts: Vec<Count>,
    /// Jumps that lanes disagreed on.
    pub divergent: u64,
    /// What each instruction accessed, with checks on.
    pub sites: Vec<Option<Box<Site>>>,
    /// The allocation that was touched last.
    pub allocation: (u64, u64),
}

impl<'a> Block<'a> {
    /// Room for the blocks of a launch.
    pub fn new(launch: &'a Launch<'a>) -> Block<'a> {
        let grain = launch.touched.as_ref().map(|_| launch.program.grain[0]);
        Block {
            launch,
            index: [0; 3],
            number: 0,
            shared: Shared::new(launch.shape.shared.iter().sum(), grain),
            barriers: [(0, None); 16],
            counts: vec![Count::default(); launch.program.code.len()],
            divergent: 0,
            sites: vec![None; if grain.is_some() { launch.program.code.len() } else { 0 }],
            allocation: (0, 0),
        }
    }

    /// What the instruction accessed that `warp` executes.
    pub fn site(&mut self, warp: &Warp) -> &mut Site {
        self.sites[warp.pc as usize - 1].get_or_insert_default()
    }

    /// The warps of a block.
    pub fn warps(&self) -> Vec<Warp> {
        let check = self.launch.touched.is_some();
        (0..self.launch.shape.threads().div_ceil(32)).map(|i| Warp::new(self.launch.program, i, check)).collect()
    }

    /// Runs block `number` on `warps`, which are `fresh` if no block ran on them before.
    pub fn run(&mut self, number: u32, warps: &mut [Warp], fresh: bool) -> Result<(), Box<Fault>> {
        let [x, y, _] = self.launch.shape.grid;
        (self.number, self.index) = (number, [number % x, number / x % y, number / x / y]);
        self.barriers = [(0, None); 16];
        self.shared.start();
        for warp in &mut *warps {
            warp.start(self.launch.program, &self.launch.shape, self.index, self.launch.params, fresh);
        }
        loop {
            let mut ran = false;
            for warp in &mut *warps {
                if warp.state == State::Ready {
                    ran = true;
                    exec::run(self, warp)?;
                }
            }
            if self.release(warps) {
                continue;
            }
            if warps.iter().all(|warp| warp.state == State::Done) {
                return Ok(());
            }
            if !ran {
                return Err(self.deadlock(warps));
            }
        }
    }

    /// Notes that `threads` threads come to barrier `id`, which waits for `expected` or for all.
    pub fn arrive(&mut self, id: u32, threads: u32, expected: Option<u32>) {
        let barrier = &mut self.barriers[id as usize % 16];
        barrier.0 += threads;
        barrier.1 = expected;
    }

    /// Lets go on who waits at a barrier that all have come to.
    fn release(&mut self, warps: &mut [Warp]) -> bool {
        let live: u32 = warps.iter().map(|warp| warp.live.count_ones()).sum();
        let mut released = false;
        for (id, barrier) in self.barriers.iter_mut().enumerate() {
            let waits = |warp: &Warp| warp.state == State::Waiting(id as u32);
            let expected = barrier.1.unwrap_or(live);
            if barrier.0 == 0 || barrier.0 < expected || !warps.iter().any(waits) {
                continue;
            }
            barrier.0 -= expected.min(barrier.0);
            for warp in warps.iter_mut().filter(|warp| waits(warp)) {
                warp.state = State::Ready;
            }
            self.shared.meet();
            released = true;
        }
        released
    }

    fn deadlock(&self, warps: &[Warp]) -> Box<Fault> {
        let program = self.launch.program;
        let line = |pc: u32| program.module.source.expanded.place(program.line(pc as usize), 1).line;
        let waiting: Vec<&Warp> = warps.iter().filter(|warp| warp.state != State::Done).collect();
        let warp = waiting[0];
        let State::Waiting(id) = warp.state else { unreachable!("what is ready would have run") };
        let places: Vec<String> =
            waiting.iter().map(|warp| format!("warp {} in line {}", warp.index, line(warp.pc - 1))).collect();
        let (came, expected) = self.barriers[id as usize % 16];
        let live: u32 = warps.iter().map(|warp| warp.live.count_ones()).sum();
        let message = format!(
            "waits at barrier {id} for ever: {came} of {} threads have come ({})",
            expected.unwrap_or(live),
            places.join(", "),
        );
        let hint = "all threads of the block, or as many as bar.sync says, must come to the same barrier";
        self.fault(*Trouble::new(Kind::Deadlock, 0, message, hint), warp, warp.pc - 1)
    }

    /// Completes what went wrong in instruction `pc` of a warp.
    #[cold]
    pub fn fault(&self, trouble: Trouble, warp: &Warp, pc: u32) -> Box<Fault> {
        let program = self.launch.program;
        let thread = self.launch.shape.thread(warp.index * 32 + trouble.lane);
        let line = program.line(pc as usize);
        Box::new(Fault::new(trouble, &program.module.source, &program.kernel().name, line, self.index, thread))
    }
}
