//! The kernels that measure what a GPU does at most.

use super::*;
use crate::device::kernels;

/// Blocks, and turns of the loop.
const SIZE: [usize; 2] = [3, 5];

pub(super) fn cases(cases: &mut Vec<Case>) {
    let [blocks, turns] = SIZE;
    for (entry, what) in [("fma_peak", "multiply-adds"), ("mma_peak", "bf16 on tensor cores")] {
        let name = format!("{what}, {turns} turns of {blocks} blocks");
        cases.push(Case::new("limits.ptx", &[entry], name, move |trial| run(trial, entry)).typical(true));
    }
}

fn run(trial: &Trial<'_>, entry: &'static str) -> Result<()> {
    let [blocks, turns] = SIZE;
    let threads = 256 * blocks;
    let y = trial.room(4 * threads)?;
    trial.run(&kernels::limits(entry, blocks as u32), &[y.into(), n(turns)])?;
    let want = match entry {
        "fma_peak" => (0..8).map(|c| (0..16 * turns).fold(0.0, |x, _| x / 2.0 + f64::from(c))).sum(),
        _ => 32.0 * turns as f64 / 8.0,
    };
    trial.close_at("y", Float::F32, y, &vec![want; threads], bound(Float::F32))
}
