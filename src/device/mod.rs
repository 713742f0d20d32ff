//! Where tensors live and who computes on them.

pub mod cuda;
pub mod driver;
pub mod kernels;
pub mod pool;
pub mod probe;
pub mod ptx;
pub mod ptxas;
pub mod sim;

pub use driver::{Arg, Driver, Grid, Ptr};
pub use pool::{Block, Handle, Pool};
pub use sim::Sim;

use crate::cpu::{Cpu, Simd};
use crate::error::Result;
use std::sync::Arc;

/// A device: its processor and its pool of buffers. Cloning is cheap and means the same device.
#[derive(Clone)]
pub enum Device {
    /// The host's processor.
    Cpu(Arc<Host>),
}

/// The host as a device: a [`Cpu`] and the pool from which its tensors come.
pub struct Host {
    /// Instruction set, threads and scratch memory.
    pub cpu: Cpu,
    /// The buffers of this device's tensors.
    pub pool: Pool,
}

impl Device {
    /// The host with `threads` threads (0: as many as this process may use), at the best instruction set or the one
    /// that `KILN_SIMD` names.
    ///
    /// # Errors
    /// `KILN_SIMD` names a level that this processor lacks.
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::host(Cpu::new(threads)?))
    }

    /// The host at a given instruction set with `threads` threads.
    pub fn cpu_with(simd: Simd, threads: usize) -> Device {
        Device::host(Cpu::with(simd, threads))
    }

    fn host(cpu: Cpu) -> Device {
        Device::Cpu(Arc::new(Host { cpu, pool: Pool::default() }))
    }

    /// A device like this one that computes nothing and whose memory, `limit` bytes for tensors and as many for scratch, is
    /// counted and not used: whatever runs on it tells, in a moment, the bytes that it will need on this one. Values read
    /// from it are arbitrary. More than `limit` unwinds with [`OutOfMemory`](crate::cpu::memory::OutOfMemory).
    pub fn dry(&self, limit: usize) -> Device {
        match self {
            Device::Cpu(host) => {
                Device::Cpu(Arc::new(Host { cpu: Cpu::dry(&host.cpu, limit), pool: Pool::dry(limit) }))
            }
        }
    }

    /// Bytes taken from the system so far: for tensors, and for scratch.
    pub fn mapped_bytes(&self) -> [usize; 2] {
        match self {
            Device::Cpu(host) => [host.pool.mapped_bytes(), host.cpu.scratch.mapped()],
        }
    }

    /// The pool of this device's buffers.
    pub fn pool(&self) -> &Pool {
        match self {
            Device::Cpu(host) => &host.pool,
        }
    }

    /// `cpu`; the name that `--device` takes.
    pub fn name(&self) -> &'static str {
        match self {
            Device::Cpu(_) => "cpu",
        }
    }

    /// A buffer of `bytes`, recycled if one of this size is free. Its content is arbitrary.
    pub fn alloc(&self, bytes: usize) -> Handle {
        self.pool().take(bytes, self)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        match (self, other) {
            (Device::Cpu(a), Device::Cpu(b)) => Arc::ptr_eq(a, b),
        }
    }
}
