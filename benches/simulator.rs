//! Speed of the simulated CUDA device on one thread, in lane-instructions a second (criterion's "elements"): a chain of
//! instructions, a product and a softmax, without and with checks.
//!
//! `cargo bench --bench simulator -- plain` times those whose name matches.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln::device::ptx::{Module, Names};
use kiln::device::sim::Options;
use kiln::device::{Arg, Driver, Grid, Sim};
use std::sync::Arc;

/// Numbers that stay small however long a chain multiplies and adds them.
const TINY: f32 = 1e-3;

/// A kernel with its grid; it has `arrays` arrays of `len` floats and then `sizes` for arguments.
struct Kernel {
    name: &'static str,
    text: &'static str,
    grid: Grid,
    arrays: usize,
    len: usize,
    sizes: &'static [u32],
}

const KERNELS: [Kernel; 3] = [
    Kernel {
        name: "turns",
        text: include_str!("../tests/it/sim/kernels/loop.ptx"),
        grid: Grid { blocks: [32, 1, 1], threads: [256, 1, 1], shared: 0 },
        arrays: 1,
        len: 32 * 256,
        sizes: &[200],
    },
    Kernel {
        name: "sgemm",
        text: include_str!("../tests/it/sim/kernels/sgemm.ptx"),
        grid: Grid { blocks: [4, 4, 1], threads: [256, 1, 1], shared: 0 },
        arrays: 3,
        len: 256 * 256,
        sizes: &[256, 256],
    },
    Kernel {
        name: "softmax",
        text: include_str!("../tests/it/sim/kernels/softmax.ptx"),
        grid: Grid { blocks: [256, 1, 1], threads: [256, 1, 1], shared: 0 },
        arrays: 2,
        len: 2048 * 128,
        sizes: &[],
    },
];

fn all(criterion: &mut Criterion) {
    for (mode, check) in [("plain", false), ("checked", true)] {
        let mut group = criterion.benchmark_group(mode);
        for kernel in &KERNELS {
            let sim = Sim::new(Options { threads: 1, ..Options::new(check).expect("a level of this processor") });
            let module = Module::new(kernel.name, kernel.text, &Names::new()).expect("a kernel without mistakes");
            let function = sim.function(&Arc::new(module), kernel.name).expect("the file's only kernel");
            let numbers = vec![TINY; kernel.len];
            let mut args: Vec<Arg> = (0..kernel.arrays)
                .map(|_| {
                    let ptr = sim.alloc(kernel.len * 4).expect("a few megabytes");
                    sim.upload(ptr, bytemuck::cast_slice(&numbers)).expect("it was allocated for them");
                    ptr.into()
                })
                .collect();
            args.extend(kernel.sizes.iter().map(|n| Arg::U32(*n)));
            let run = || sim.launch(&function, kernel.grid, &args).expect("no mistake in the kernel");
            run();
            let lanes = sim.counters().classes.iter().map(|count| count.lane).sum();
            group.throughput(Throughput::Elements(lanes));
            group.bench_function(kernel.name, |bench| bench.iter(run));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
