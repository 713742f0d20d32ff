//! Where tensors live and who computes on them.

pub mod cuda;
pub mod driver;
pub mod gpu;
pub mod kernels;
mod nccl;
pub mod pool;
pub mod probe;
pub mod ptx;
pub mod ptxas;
pub mod sim;

pub use driver::{Arg, Driver, Dry, Grid, Ptr};
pub use gpu::Gpu;
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
    /// A GPU, or a simulated one.
    Gpu(Arc<Gpu>),
}

/// The host as a device: a [`Cpu`] and the pool from which its tensors come.
pub struct Host {
    /// Instruction set, threads and scratch memory.
    pub cpu: Cpu,
    /// The buffers of this device's tensors.
    pub pool: Pool,
}

impl Host {
    fn new(cpu: Cpu) -> Arc<Host> {
        Arc::new(Host { cpu, pool: Pool::default() })
    }
}

impl Device {
    /// The host with `threads` threads (0: as many as this process may use), at the best instruction set or the one
    /// that `KILN_SIMD` names.
    ///
    /// # Errors
    /// `KILN_SIMD` names a level that this processor lacks.
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::on(Cpu::new(threads)?))
    }

    /// The host at a given instruction set with `threads` threads.
    pub fn cpu_with(simd: Simd, threads: usize) -> Device {
        Device::on(Cpu::with(simd, threads))
    }

    fn on(cpu: Cpu) -> Device {
        Device::Cpu(Host::new(cpu))
    }

    /// The GPU behind `driver`, with `host` for what is prepared there.
    ///
    /// # Errors
    /// It has no memory.
    pub fn gpu(driver: Arc<dyn Driver>, host: Cpu) -> Result<Device> {
        Ok(Device::Gpu(Arc::new(Gpu::new(driver, Host::new(host))?)))
    }

    /// A device like this one that computes nothing and whose memory, `limit` bytes for tensors and as many for scratch, is
    /// counted and not used: whatever runs on it tells, in a moment, the bytes that it will need on this one. Values read
    /// from it are arbitrary (0 on a GPU). More than `limit` unwinds with [`OutOfMemory`](crate::cpu::memory::OutOfMemory).
    pub fn dry(&self, limit: usize) -> Device {
        let host = || Arc::new(Host { cpu: Cpu::dry(self.host(), limit), pool: Pool::dry(limit) });
        match self {
            Device::Cpu(_) => Device::Cpu(host()),
            Device::Gpu(_) => {
                let limit = limit.saturating_add(4096);
                let gpu = Gpu::new(Arc::new(Dry::new(limit)), host()).expect("there is room for a step's state");
                Device::Gpu(Arc::new(gpu))
            }
        }
    }

    /// Whether it is one of [`dry`](Device::dry)'s.
    pub fn is_dry(&self) -> bool {
        self.host().threads.is_idle()
    }

    /// The host: this device itself, or the one on which a GPU's work is prepared.
    pub fn on_host(&self) -> Device {
        match self {
            Device::Cpu(_) => self.clone(),
            Device::Gpu(gpu) => Device::Cpu(Arc::clone(&gpu.host)),
        }
    }

    /// Bytes of a GPU's memory; `None` for the host.
    pub fn gpu_memory(&self) -> Option<usize> {
        match self {
            Device::Cpu(_) => None,
            Device::Gpu(gpu) => Some(gpu.driver.memory()),
        }
    }

    /// The host's processor: this device itself, or where a GPU's work is prepared.
    pub fn host(&self) -> &Cpu {
        match self {
            Device::Cpu(host) => &host.cpu,
            Device::Gpu(gpu) => &gpu.host.cpu,
        }
    }

    /// Bytes taken from the system so far: for tensors, and for scratch.
    pub fn mapped_bytes(&self) -> [usize; 2] {
        [self.pool().mapped_bytes(), self.host().scratch.mapped()]
    }

    /// The pool of this device's buffers.
    pub fn pool(&self) -> &Pool {
        match self {
            Device::Cpu(host) => &host.pool,
            Device::Gpu(gpu) => &gpu.pool,
        }
    }

    /// `cpu` or `gpu`.
    pub fn name(&self) -> &'static str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Gpu(_) => "gpu",
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
            (Device::Gpu(a), Device::Gpu(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
