//! This machine's ceilings, measured: how fast it can multiply and add, and how fast it can read memory.

use super::{Cpu, Vector};
use crate::simd_fn;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Independent chains: enough to hide the latency of two multiply-adds a cycle.
const CHAINS: usize = 12;
/// Multiply-adds of a chain between two looks at the clock.
const STEPS: usize = 20_000;

#[inline(always)]
fn chains_body<V: Vector>(factor: f32, term: f32) -> f32 {
    let (factor, term) = (V::splat(factor), V::splat(term));
    let mut sums = [V::splat(1.0); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = sum.fma(factor, term);
        }
    }
    sums.into_iter().fold(0.0, |total, sum| total + sum.to_array()[0])
}
simd_fn! {
    fn chains(factor: f32, term: f32) -> f32 = chains_body
}

#[inline(always)]
fn read_body<V: Vector>(x: &[f32]) -> f32 {
    let mut sums = [V::splat(0.0); 8];
    for x in x.chunks_exact(8 * V::W) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = *sum + V::load(&x[i * V::W..]);
        }
    }
    sums.into_iter().fold(0.0, |total, sum| total + sum.to_array()[0])
}
simd_fn! {
    fn read(x: &[f32]) -> f32 = read_body
}

/// Lets every thread of `cpu` do `work` again and again for `seconds`; the largest rate of `amount` per second that all
/// together reached in a round, in billions.
fn best_rate(cpu: &Cpu, seconds: f64, amount: f64, work: impl Fn(usize) + Sync) -> f64 {
    let threads = cpu.threads.count();
    // The first round wakes the threads and the clock of the vector units.
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut best: f64 = 0.0;
    loop {
        let start = Instant::now();
        cpu.threads.run(threads, &work);
        best = best.max(threads as f64 * amount / start.elapsed().as_secs_f64());
        if Instant::now() >= end {
            return best / 1e9;
        }
    }
}

/// The f32 multiply-add peak of all threads of `cpu` together, in GFLOP/s (a multiply-add counts 2), measured for about
/// `seconds`: the best of many rounds of a millisecond, since others may use the machine too.
pub fn fma_peak(cpu: &Cpu, seconds: f64) -> f64 {
    let lanes = match cpu.simd.name() {
        "avx512" | "avx512bf16" => 16,
        _ => 8,
    };
    // As many iterations a round as last about a millisecond.
    best_rate(cpu, seconds, (4 * 2 * lanes * CHAINS * STEPS) as f64, |_| {
        for _ in 0..4 {
            black_box(chains(cpu.simd, black_box(0.999), black_box(1e-3)));
        }
    })
}

/// The memory read bandwidth of all threads of `cpu` together, in GB/s, measured for about `seconds` over a buffer of
/// `bytes` that should exceed the caches.
pub fn read_bandwidth(cpu: &Cpu, bytes: usize, seconds: f64) -> f64 {
    let threads = cpu.threads.count();
    let part = (bytes / 4 / threads).next_multiple_of(1024);
    let buffer = cpu.scratch.take(part * threads);
    best_rate(cpu, seconds, (4 * part) as f64, |i| {
        black_box(read(cpu.simd, &buffer[i * part..][..part]));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;

    #[test]
    fn ceilings_are_finite_and_positive() {
        for simd in Simd::available() {
            let cpu = Cpu::with(simd, 2);
            for rate in [fma_peak(&cpu, 0.01), read_bandwidth(&cpu, 8 << 20, 0.01)] {
                assert!(rate.is_finite() && rate > 0.01, "{}: {rate}", simd.name());
            }
        }
    }
}
