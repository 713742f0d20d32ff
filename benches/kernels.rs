//! The cases of `kiln bench` under criterion: every operation at its real sizes, forward and backward together, and some
//! matrix products. Samples are means over at least 20 ms of calls.
//!
//! `cargo bench --bench kernels -- norm` times those whose name matches, on all threads that the process may use.

use criterion::{Criterion, criterion_group, criterion_main};
use kiln::bench::{Case, gemm, kernels};
use kiln::cpu::gemm::Precision;
use kiln::device::Device;
use std::time::Duration;

fn all(criterion: &mut Criterion) {
    let device = Device::cpu(0).expect("a CPU");
    let shapes = [[256, 384, 1536], [1024, 768, 3072], [2048; 3]];
    let products =
        [gemm::Form::Nt, gemm::Form::Nn, gemm::Form::Tn].map(|form| gemm::cases(&shapes, form, Precision::F32));
    let kernels = [kernels::ops(kernels::Narrow::Nothing), kernels::xent(), kernels::adamw()];
    for case in products.into_iter().chain(kernels).flatten() {
        time(criterion, &device, &case);
    }
}

fn time(criterion: &mut Criterion, device: &Device, case: &Case) {
    // Made ready only where it is not filtered out.
    let mut started = None;
    criterion.bench_function(&format!("{}/{}", case.bench, case.name), |bench| {
        bench.iter_custom(|n| {
            let started = started.get_or_insert_with(|| case.start(device).expect("it needs no files"));
            let seconds: f64 = (started.repeat)().expect("it cannot fail").iter().sum();
            Duration::from_secs_f64(seconds * n as f64)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = all
}
criterion_main!(benches);
