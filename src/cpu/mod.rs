//! The CPU: instruction sets, threads, memory, and the kernels that are written once for all of them.

pub mod attention;
pub mod conv;
pub mod convert;
pub mod elementwise;
pub mod gemm;
pub mod limits;
pub mod linear;
pub mod math;
pub mod memory;
pub mod picture_norm;
pub mod q4;
pub mod q8;
pub mod reduce;
#[cfg(feature = "peers")]
pub mod rivals;
pub mod simd;
pub mod threads;

pub use memory::Scratch;
pub use simd::{Bits, Lanes, Simd, Vector};
pub use threads::{Parts, Threads, Tiles, chunks};

use crate::error::Result;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything a kernel needs to know of the processor: the instruction set, the threads and where to find scratch memory.
pub struct Cpu {
    /// The instruction set that kernels run on.
    pub simd: Simd,
    /// The threads that share their loops.
    pub threads: Threads,
    /// Buffers for packed panels and partial sums.
    pub scratch: Scratch,
    flops: AtomicU64,
}

impl Cpu {
    /// A CPU with `threads` threads (0: as many as this process may use) at the level of [`Simd::detect`].
    ///
    /// # Errors
    /// `KILN_SIMD` names a level that this processor lacks.
    pub fn new(threads: usize) -> Result<Cpu> {
        Ok(Cpu::with(Simd::detect()?, threads))
    }

    /// A CPU at a given level, with `threads` threads (0: as many as this process may use).
    pub fn with(simd: Simd, threads: usize) -> Cpu {
        let threads = if threads == 0 { available_threads() } else { threads };
        Cpu { simd, threads: Threads::new(threads), scratch: Scratch::default(), flops: AtomicU64::new(0) }
    }

    /// A CPU like `other` that computes nothing: kernels return at once, and scratch memory, up to `limit` bytes, is only
    /// counted.
    pub fn dry(other: &Cpu, limit: usize) -> Cpu {
        Cpu {
            simd: other.simd,
            threads: Threads::idle(other.threads.count()),
            scratch: Scratch::new(memory::Memory::dry(limit)),
            flops: AtomicU64::new(0),
        }
    }

    /// Counts floating-point operations of matrix products; see [`flops`](Cpu::flops).
    pub fn count_flops(&self, flops: u64) {
        self.flops.fetch_add(flops, Ordering::Relaxed);
    }

    /// Floating-point operations of all matrix products so far (a multiplication and an addition count 2): skipped work
    /// can be seen to be skipped.
    pub fn flops(&self) -> u64 {
        self.flops.load(Ordering::Relaxed)
    }
}

/// The threads that this process may use: its affinity and cgroup respected.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
