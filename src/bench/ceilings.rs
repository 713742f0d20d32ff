//! What this machine can do at most, and which of it binds a piece of work.

use super::Work;
use crate::cpu::gemm::Precision;
use crate::cpu::{Cpu, limits};
use serde_json::{Value, json};

/// Measured ceilings of all threads together; rates as in [`limits`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// f32 multiply-adds, GFLOP/s.
    pub fma: f64,
    /// bf16 dot products, GFLOP/s, where the processor has them.
    pub bf16: Option<f64>,
    /// Reading memory, GB/s.
    pub read: f64,
    /// Copying memory, GB/s read and written.
    pub copy: f64,
    /// Two arrays read and one written, GB/s.
    pub triad: f64,
}

/// The ceiling that binds some work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// What it is: `fma`, `bf16`, `read`, `stream`.
    pub name: &'static str,
    /// Seconds that the work takes at least.
    pub seconds: f64,
}

/// Bytes that are gone through: more than caches hold, and the same slices for each measurement.
const BYTES: usize = 192 << 20;

impl Ceilings {
    /// Measures them, in about `seconds`.
    pub fn measure(cpu: &Cpu, seconds: f64) -> Ceilings {
        let part = seconds / 5.0;
        let [copy, triad] = limits::copy_and_triad(cpu, BYTES, part);
        let read = limits::read_bandwidth(cpu, BYTES, part);
        Ceilings { fma: limits::fma_peak(cpu, part), bf16: limits::bf16_peak(cpu, part), read, copy, triad }
    }

    /// What bounds traffic, in GB/s: reading where nothing is written, else the fastest stream.
    pub fn memory(&self, work: &Work) -> f64 {
        if work.written == 0.0 { self.read } else { self.read.max(self.copy).max(self.triad) }
    }

    /// The ceiling that lets `work` take longest. Work whose data lie in a cache can be faster than memory's.
    pub fn bound(&self, work: &Work) -> Bound {
        let (name, peak) = match (work.precision, self.bf16) {
            (Precision::Bf16, Some(peak)) => ("bf16", peak),
            _ => ("fma", self.fma),
        };
        let compute = Bound { name, seconds: work.flops / peak / 1e9 };
        let name = if work.written == 0.0 { "read" } else { "stream" };
        let memory = Bound { name, seconds: work.bytes() / self.memory(work) / 1e9 };
        if compute.seconds >= memory.seconds { compute } else { memory }
    }

    /// All of them, for a program.
    pub fn json(&self, threads: usize) -> Value {
        json!({"bench": "ceilings", "threads": threads, "fma_gflops": self.fma, "bf16_gflops": self.bf16,
            "read_gb_per_s": self.read, "copy_gb_per_s": self.copy, "triad_gb_per_s": self.triad})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_arithmetic_and_traffic_binds() {
        let ceilings = Ceilings { fma: 100.0, bf16: None, read: 20.0, copy: 15.0, triad: 30.0 };
        let bound = |flops, read, written| ceilings.bound(&Work { flops, read, written, ..Work::default() });
        assert_eq!(bound(1e11, 1e9, 1e9), Bound { name: "fma", seconds: 1.0 });
        assert_eq!(bound(1e9, 2e10, 0.0), Bound { name: "read", seconds: 1.0 });
        assert_eq!(bound(1e9, 2e10, 1e10), Bound { name: "stream", seconds: 1.0 });
        let narrow = Work { flops: 1e11, precision: Precision::Bf16, ..Work::default() };
        assert_eq!(ceilings.bound(&narrow), Bound { name: "fma", seconds: 1.0 });
        let ceilings = Ceilings { bf16: Some(200.0), ..ceilings };
        assert_eq!(ceilings.bound(&narrow), Bound { name: "bf16", seconds: 0.5 });
    }
}
