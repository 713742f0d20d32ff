//! What a GPU can do at most, measured by kernels that do nothing else (kernels/limits.ptx) and by a copy.

use super::Ceilings;
use crate::device::{Arg, Device, Gpu, kernels};
use crate::error::Result;
use crate::launch::{at, flag, flat, n};
use crate::tensor::{Out, Spec};
use std::time::Instant;

/// Blocks of 256 threads: eight on each of more multiprocessors than a GPU has today.
const BLOCKS: u32 = 2048;
/// Bytes that are copied: more than caches hold.
const BYTES: usize = 128 << 20;
/// Seconds of launches that are waited for at once.
const LAP: f64 = 0.004;

/// What a launch of `entry` with `turns` turns computes.
fn flops(entry: &str, turns: u32) -> f64 {
    let threads = f64::from(BLOCKS) * 256.0;
    // 128 multiply-adds a thread; 8 products of 16 x 8 x 16 a warp.
    f64::from(turns) * if entry == "fma_peak" { threads * 256.0 } else { threads / 32.0 * 8.0 * 4096.0 }
}

/// The least seconds of a launch, over laps that take about `seconds` together.
fn least(gpu: &Gpu, seconds: f64, mut launch: impl FnMut()) -> Result<f64> {
    let mut lap = |count: usize| {
        gpu.mark(0);
        (0..count).for_each(|_| launch());
        gpu.mark(1);
        gpu.check()?;
        gpu.driver.between(0, 1).map(|seconds| seconds / count as f64)
    };
    // The first one loads the kernel.
    lap(1)?;
    let (start, mut best) = (Instant::now(), lap(1)?);
    let count = (LAP / best.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    while start.elapsed().as_secs_f64() < seconds {
        best = best.min(lap(count)?);
    }
    Ok(best)
}

/// GFLOP/s of `entry`, in about `seconds`.
fn rate(device: &Device, gpu: &Gpu, entry: &'static str, seconds: f64) -> Result<f64> {
    let y = Out::new(device, Spec::f32([256 * BLOCKS as usize]));
    let launch = |turns| gpu.launch(kernels::limits(entry, BLOCKS), &[at(&y), n(turns as usize)]);
    // A look lasts some hundred microseconds on a GPU.
    let turns = if gpu.driver.counted().is_some() { 1 } else { 64 };
    Ok(flops(entry, turns) / least(gpu, seconds, || launch(turns))? / 1e9)
}

/// The rate of f32 multiply-adds now, in GFLOP/s, looked at for about `seconds`.
///
/// # Errors
/// The device failed.
pub fn fma_rate(device: &Device, gpu: &Gpu, seconds: f64) -> Result<f64> {
    rate(device, gpu, "fma_peak", seconds)
}

/// Measures a GPU's ceilings in about `seconds`.
///
/// # Errors
/// The device failed, or has no 256 MiB of memory left.
pub fn ceilings(device: &Device, gpu: &Gpu, seconds: f64) -> Result<Ceilings> {
    let [x, y] = [(); 2].map(|()| Out::new(device, Spec::f32([BYTES / 4])));
    gpu.fill(x.ptr(), 0, BYTES / 4);
    let copy = || flat(gpu, "elementwise.ptx", "scale_fwd", &[&x, &y], &[Arg::F32(1.0), flag(false)]);
    let copy = 2.0 * BYTES as f64 / least(gpu, seconds / 3.0, copy)? / 1e9;
    let [fma, bf16] = ["fma_peak", "mma_peak"].map(|entry| rate(device, gpu, entry, seconds / 3.0));
    Ok(Ceilings { fma: fma?, bf16: Some(bf16?), read: copy, copy, triad: copy })
}
