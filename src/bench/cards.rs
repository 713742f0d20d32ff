//! What published figures of GPUs say of a launch that the simulated device counted.
//!
//! Each part of a card takes its own time for what it has to do; the longest of these binds:
//!
//! ```text
//! issue   warp instructions / (4 a cycle of each multiprocessor)      f32, tensor   operations / peak
//! shared  cycles of the banks / (1 a cycle of each multiprocessor)    global        32 sectors / bandwidth
//! ```
//! The work is taken to fill the card evenly, and every sector to come from memory: a kernel is faster than `global` says
//! where caches serve it, and slower where latency, occupancy or the tail of a grid count.

use crate::device::ptx::{Code, Entry, Type};
use crate::device::sim::{Count, Counters};

/// A GPU's published figures: dense, without sparsity.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// As `--card` takes it.
    pub name: &'static str,
    /// Multiprocessors.
    pub sms: f64,
    /// GHz of the boost clock, that which the tensor figures go by.
    pub clock: f64,
    /// TFLOP/s in f32.
    pub f32: f64,
    /// TFLOP/s of tensor cores in tf32.
    pub tf32: f64,
    /// TFLOP/s of tensor cores in bf16 and f16, summed in f32.
    pub bf16: f64,
    /// GB/s of memory.
    pub memory: f64,
    /// GiB of memory.
    pub capacity: f64,
    /// Watts of the whole board at most.
    pub watts: f64,
    /// Where the figures are from.
    pub source: &'static str,
}

macro_rules! card {
    ($name:literal, $sms:literal, $clock:literal, $f32:literal, $tf32:literal, $bf16:literal, $memory:literal,
     $capacity:literal, $watts:literal, $source:literal) => {
        Card {
            name: $name,
            sms: $sms,
            clock: $clock,
            f32: $f32,
            tf32: $tf32,
            bf16: $bf16,
            memory: $memory,
            capacity: $capacity,
            watts: $watts,
            source: $source,
        }
    };
}

/// The cards that are known.
pub const CARDS: [Card; 5] = [
    card!("a100", 108.0, 1.41, 19.5, 156.0, 312.0, 2039.0, 80.0, 400.0, "NVIDIA A100 datasheet (SXM, 80 GB)"),
    card!("h100", 132.0, 1.83, 66.9, 494.7, 989.4, 3350.0, 80.0, 700.0, "NVIDIA H100 architecture whitepaper (SXM5)"),
    card!("h200", 132.0, 1.83, 66.9, 494.7, 989.4, 4800.0, 141.0, 700.0, "NVIDIA H200 datasheet (SXM)"),
    card!("rtx3090", 82.0, 1.695, 35.6, 35.6, 71.0, 936.0, 24.0, 350.0, "NVIDIA GA102 architecture whitepaper"),
    card!("rtx4090", 128.0, 2.52, 82.6, 82.6, 165.2, 1008.0, 24.0, 450.0, "NVIDIA Ada architecture whitepaper"),
];

/// Floating-point operations of a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flops {
    /// By the lanes of warps.
    pub f32: f64,
    /// By tensor cores in tf32.
    pub tf32: f64,
    /// By tensor cores in halves.
    pub bf16: f64,
}

impl Flops {
    /// Those of a kernel's launch: an instruction on floats counts 1 a lane, a multiply-add 2.
    pub fn of(entry: &Entry, counters: &Counters) -> Flops {
        let mut flops = Flops::default();
        for (line, count) in &counters.lines {
            let at = entry.code.partition_point(|inst| inst.line < *line);
            let here = entry.code[at..].iter().take_while(|inst| inst.line == *line);
            let several = here.clone().count().max(1) as f64;
            here.for_each(|inst| flops.add(inst.code, *count, several));
        }
        flops
    }

    fn add(&mut self, code: Code, count: Count, several: f64) {
        let (warp, lane) = (count.warp as f64 / several, count.lane as f64 / several);
        let wide = |ty: Type| if matches!(ty, Type::F16x2 | Type::Bf16x2) { 2.0 } else { 1.0 };
        match code {
            Code::Fma(ty, _) => self.f32 += 2.0 * wide(ty) * lane,
            Code::Float1(_, ty, _) | Code::Float2(_, ty, _) => self.f32 += wide(ty) * lane,
            Code::Mma(mma) if mma.ty == Type::Tf32 => self.tf32 += 256.0 * f64::from(mma.k) * warp,
            Code::Mma(mma) => self.bf16 += 256.0 * f64::from(mma.k) * warp,
            _ => {}
        }
    }

    /// All of them.
    pub fn total(&self) -> f64 {
        self.f32 + self.tf32 + self.bf16
    }
}

impl Card {
    /// The seconds that each part takes, by name; the longest binds.
    pub fn parts(&self, flops: &Flops, counters: &Counters) -> [(&'static str, f64); 5] {
        let cycle = 1e-9 / (self.clock * self.sms);
        [
            ("issue", counters.total().warp as f64 / 4.0 * cycle),
            ("f32", flops.f32 / self.f32 * 1e-12),
            ("tensor", (flops.tf32 / self.tf32 + flops.bf16 / self.bf16) * 1e-12),
            ("shared", counters.shared.steps as f64 * cycle),
            ("global", 32.0 * counters.global.steps as f64 / self.memory * 1e-9),
        ]
    }

    /// Operations a byte at which arithmetic and memory take equally long, for the unit that most of `flops` are of.
    pub fn ridge(&self, flops: &Flops) -> f64 {
        let peak = match () {
            () if flops.bf16 > flops.total() / 2.0 => self.bf16,
            () if flops.tf32 > flops.total() / 2.0 => self.tf32,
            () => self.f32,
        };
        1e3 * peak / self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::Traffic;

    #[test]
    fn each_part_of_a_card_takes_its_time() {
        let mut counters = Counters::default();
        counters.classes[0] = Count { warp: 4_000_000, lane: 0 };
        counters.shared = Traffic { steps: 2_000_000, ..Traffic::default() };
        counters.global = Traffic { steps: 1_000_000, ..Traffic::default() };
        let flops = Flops { f32: 2e9, tf32: 1e9, bf16: 4e9 };
        let card = card!("x", 10.0, 1.0, 2.0, 1.0, 4.0, 32.0, 1.0, 1.0, "");
        let parts = card.parts(&flops, &counters).map(|(name, seconds)| (name, (1e6 * seconds).round()));
        assert_eq!(
            parts,
            [("issue", 100.0), ("f32", 1000.0), ("tensor", 2000.0), ("shared", 200.0), ("global", 1000.0)]
        );
        assert_eq!(card.ridge(&flops), 125.0);
    }
}
