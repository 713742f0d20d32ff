//! Every operation, forward and backward, on the cases of real size in its table, through the tape. Bytes are those of the
//! arguments: inputs and results; in the backward pass inputs, gradients that come in and gradients that go out.
//!
//! `cargo bench --bench ops -- norm` times those whose name matches, on all threads that the process may use.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use kiln::device::Device;
use kiln::ops::{Case, Entry, Role, TABLE, check};
use kiln::params::Params;
use kiln::tape::{Op, Tape};
use kiln::tensor::{Spec, Tensor};
use std::cell::LazyCell;
use std::time::{Duration, Instant};

fn ops(criterion: &mut Criterion) {
    let device = Device::cpu(0).expect("a CPU");
    for entry in TABLE {
        let mut group = criterion.benchmark_group(entry.name);
        for (i, case) in (entry.cases)().iter().enumerate().filter(|(_, case)| case.role == Role::Bench) {
            time(&mut group, &device, case, || operation(entry, i));
        }
    }
}

/// The operation of case `i`. A tape keeps what it runs, so each run needs its own.
fn operation(entry: &Entry, i: usize) -> Box<dyn Op> {
    (entry.cases)().swap_remove(i).op
}

fn time(group: &mut BenchmarkGroup<WallTime>, device: &Device, case: &Case, op: impl Fn() -> Box<dyn Op>) {
    // Made only for a case that is not filtered out.
    let values = LazyCell::new(|| check::values(&case.inputs, device));
    let dy = LazyCell::new(|| {
        let tape = Tape::new(device);
        check::upstream(tape.apply_dyn(op(), &check::leaves(&tape, &case.inputs, &values)))
    });
    let mut tape = Tape::new(device);
    let mut params = Params::new(device, &[], 0);
    // One pass: how long it took forward, and backward if that is asked for.
    let mut pass = |dy: Option<&[Tensor]>| {
        tape.reset();
        let x = check::leaves(&tape, &case.inputs, &values);
        let op = op();
        let start = Instant::now();
        let y = tape.apply_dyn(op, &x);
        let forward = start.elapsed();
        let start = Instant::now();
        if let Some(dy) = dy {
            y.backward_from(dy, &mut params, true);
        }
        [forward, start.elapsed()]
    };
    let inputs: Vec<Spec> = case.inputs.iter().map(|input| input.spec).collect();
    let outputs = case.op.outputs(&inputs);
    let bytes = |spec: &Spec| (spec.shape.numel() * spec.dtype.size()) as u64;
    let [x, y] = [inputs.iter().map(bytes).sum::<u64>(), outputs.iter().map(bytes).sum()];
    group.throughput(Throughput::Bytes(x + y));
    group.bench_function(format!("forward/{}", case.name), |bench| {
        bench.iter_custom(|n| (0..n).map(|_| pass(None)[0]).sum());
    });
    let dx: u64 = case.inputs.iter().filter(|input| input.grad).map(|input| bytes(&input.spec)).sum();
    if dx > 0 {
        group.throughput(Throughput::Bytes(x + y + dx));
        group.bench_function(format!("backward/{}", case.name), |bench| {
            bench.iter_custom(|n| (0..n).map(|_| pass(Some(&dy))[1]).sum());
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = ops
}
criterion_main!(benches);
