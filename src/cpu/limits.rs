//! This machine's ceilings, measured: how fast it can multiply and add, in f32 and by bf16 dot products, and how fast it
//! can read and write memory.

use super::{Cpu, Tiles, Vector};
use crate::simd_fn;
use std::hint::black_box;
use std::time::Instant;

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

/// What all threads together did in rounds of `amount` each, in billions a second.
struct Rates {
    /// The best round.
    best: f64,
    /// All rounds but the first, which wakes the threads and the clock of the vector units.
    mean: f64,
}

/// Lets every thread of `cpu` do `work(thread, round)` again and again for `seconds`.
fn rates(cpu: &Cpu, seconds: f64, amount: f64, work: impl Fn(usize, usize) + Sync) -> Rates {
    let threads = cpu.threads.count();
    let total = threads as f64 * amount / 1e9;
    cpu.threads.run(threads, &|i| work(i, 0));
    let (begin, mut best, mut round) = (Instant::now(), 0.0f64, 0);
    loop {
        round += 1;
        let start = Instant::now();
        cpu.threads.run(threads, &|i| work(i, round));
        best = best.max(total / start.elapsed().as_secs_f64());
        let all = begin.elapsed().as_secs_f64();
        if all >= seconds {
            return Rates { best, mean: round as f64 * total / all };
        }
    }
}

/// The f32 multiply-add peak of all threads of `cpu` together, in GFLOP/s (a multiply-add counts 2), measured for about
/// `seconds`: the best of many rounds of a millisecond, since others may use the machine too.
pub fn fma_peak(cpu: &Cpu, seconds: f64) -> f64 {
    fma(cpu, seconds).best
}

/// As [`fma_peak`], but the mean over the time: what others on this machine leave of the peak.
pub fn fma_rate(cpu: &Cpu, seconds: f64) -> f64 {
    fma(cpu, seconds).mean
}

fn fma(cpu: &Cpu, seconds: f64) -> Rates {
    let lanes = match cpu.simd.name() {
        "avx512" | "avx512bf16" => 16,
        _ => 8,
    };
    // As many iterations a round as last about a millisecond.
    rates(cpu, seconds, (4 * 2 * lanes * CHAINS * STEPS) as f64, |_, _| {
        for _ in 0..4 {
            black_box(chains(cpu.simd, black_box(0.999), black_box(1e-3)));
        }
    })
}

/// The peak of products of pairs of bf16 that are summed in f32, in GFLOP/s (a pair counts 4), as [`fma_peak`]; `None` where
/// the processor has no instruction for them or kiln's level does not use it.
pub fn bf16_peak(cpu: &Cpu, seconds: f64) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if cpu.simd.name() == "avx512bf16" {
        return Some(
            rates(cpu, seconds, (4 * 4 * 16 * CHAINS * STEPS) as f64, |_, _| {
                for _ in 0..4 {
                    // SAFETY: the processor has AVX-512 F and BF16.
                    black_box(unsafe { x86::bf16_chains(black_box(1e-3)) });
                }
            })
            .best,
        );
    }
    let _ = (cpu, seconds);
    None
}

/// Elements of an array that a thread goes through in a round: some milliseconds at most, so that others seldom interrupt.
const SLICE: usize = 1 << 20;

/// Slices of SLICE elements, one after the other, in parts of equal size for all threads and arrays out of about `bytes`: how
/// many slices a part has.
fn slices(bytes: usize, parts: usize) -> usize {
    (bytes / 4 / parts / SLICE).max(1)
}

/// The memory read bandwidth of all threads of `cpu` together, in GB/s, measured for about `seconds` over a buffer of
/// `bytes` that should exceed the caches.
pub fn read_bandwidth(cpu: &Cpu, bytes: usize, seconds: f64) -> f64 {
    let threads = cpu.threads.count();
    let slices = slices(bytes, threads);
    let buffer = cpu.scratch.take(slices * threads * SLICE);
    rates(cpu, seconds, (4 * SLICE) as f64, |i, round| {
        black_box(read(cpu.simd, &buffer[(i * slices + round % slices) * SLICE..][..SLICE]));
    })
    .best
}

/// How fast memory can be copied (`y = a`) and combined (`y = a + b/2`, the triad) by all threads of `cpu` together, in GB/s
/// of what is read and written, measured for about `seconds` each over arrays of `bytes` together. Stores go past the
/// caches where the level can do that, so that no line is read in order to be overwritten.
pub fn copy_and_triad(cpu: &Cpu, bytes: usize, seconds: f64) -> [f64; 2] {
    let threads = cpu.threads.count();
    let slices = slices(bytes, 3 * threads);
    let mut buffer = cpu.scratch.take(3 * slices * threads * SLICE);
    let (y, sources) = buffer.split_at_mut(slices * threads * SLICE);
    let y = Tiles::new(y);
    [1, 2].map(|arrays| {
        rates(cpu, seconds, (4 * (arrays + 1) * SLICE) as f64, |i, round| {
            let at = i * slices + round % slices;
            // SAFETY: the slices of different threads are disjoint, and inside of the array.
            let y = unsafe { std::slice::from_raw_parts_mut(y.ptr(at * SLICE), SLICE) };
            let [a, b] = [2 * at, 2 * at + 1].map(|at| &sources[at * SLICE..][..SLICE]);
            stream(cpu, y, a, (arrays == 2).then_some(b));
            black_box(&y[0]);
        })
        .best
    })
}

/// y = a, or y = a + b/2.
fn stream(cpu: &Cpu, y: &mut [f32], a: &[f32], b: Option<&[f32]>) {
    #[cfg(target_arch = "x86_64")]
    if matches!(cpu.simd.name(), "avx2" | "avx512") {
        // SAFETY: both levels include AVX and FMA.
        return unsafe { x86::stream(y, a, b) };
    }
    let _ = cpu;
    match b {
        None => y.copy_from_slice(a),
        Some(b) => y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a + 0.5 * b),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, STEPS};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16_chains(value: f32) -> f32 {
        let x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(value), _mm512_set1_ps(value));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        sums.into_iter().fold(0.0, |total, sum| total + _mm512_reduce_add_ps(sum))
    }

    #[target_feature(enable = "avx,fma")]
    pub fn stream(y: &mut [f32], a: &[f32], b: Option<&[f32]>) {
        assert!(a.len() >= y.len() && b.is_none_or(|b| b.len() >= y.len()), "sources are as long as the result");
        assert!(
            y.as_ptr().align_offset(32) == 0 && y.len().is_multiple_of(8),
            "the result consists of whole registers"
        );
        let half = _mm256_set1_ps(0.5);
        for i in (0..y.len()).step_by(8) {
            // SAFETY: i + 8 elements are inside all three arrays, and y is aligned.
            unsafe {
                let mut value = _mm256_loadu_ps(a.as_ptr().add(i));
                if let Some(b) = b {
                    value = _mm256_fmadd_ps(_mm256_loadu_ps(b.as_ptr().add(i)), half, value);
                }
                _mm256_stream_ps(y.as_mut_ptr().add(i), value);
            }
        }
        _mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Simd;

    #[test]
    fn ceilings_are_finite_and_positive() {
        for simd in Simd::available() {
            let cpu = Cpu::with(simd, 2);
            let [copy, triad] = copy_and_triad(&cpu, 8 << 20, 0.01);
            let bf16 = bf16_peak(&cpu, 0.01).unwrap_or(1.0);
            for rate in [fma_peak(&cpu, 0.01), bf16, read_bandwidth(&cpu, 8 << 20, 0.01), copy, triad] {
                assert!(rate.is_finite() && rate > 0.01, "{}: {rate}", simd.name());
            }
        }
    }
    #[test]
    fn the_triad_is_a_sum() {
        for simd in Simd::available() {
            let cpu = Cpu::with(simd, 1);
            let mut buffers = [0, 1, 2].map(|_| cpu.scratch.take(1024));
            let [y, a, b] = &mut buffers;
            a.iter_mut().zip(b.iter_mut()).enumerate().for_each(|(i, (a, b))| (*a, *b) = (i as f32, 4.0));
            stream(&cpu, y, a, None);
            assert_eq!(y[..], a[..]);
            stream(&cpu, y, a, Some(b));
            assert!((0..1024).all(|i| y[i] == i as f32 + 2.0), "{}", simd.name());
        }
    }
}
