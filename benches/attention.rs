//! Attention, forward and backward, at training sizes. Elements per second are floating-point operations, causal work counted
//! once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kiln::cpu::attention::{Attention, Layout, View, ViewMut};
use kiln::cpu::{Cpu, Simd};
use kiln::rng::{Purpose, Stream};

fn attention(criterion: &mut Criterion) {
    let level = Simd::detect().expect("KILN_SIMD names a level of this processor");
    for threads in [1, 2] {
        let cpu = Cpu::with(level, threads);
        let mut group = criterion.benchmark_group(format!("attention, {} threads {threads}", level.name()));
        for [b, heads, t, dim] in [[16, 4, 256, 64], [4, 12, 256, 64], [1, 12, 1024, 64]] {
            let normals = |tensor, len| {
                let mut x = vec![0.0; len];
                Stream::new(1, Purpose::Test, tensor, 0).normals(1.0, &mut x);
                x
            };
            let len = b * t * heads * dim;
            let (qkv, dout) = (normals(1, 3 * len), normals(2, len));
            let (mut out, mut lse, mut grads) = (vec![0.0; len], vec![0.0; b * t * heads], vec![0.0; 3 * len]);
            let [q, k, v] = View::packed(&qkv, [b, t], [heads; 2], dim);
            let layout = Layout::contiguous([b, t, heads, dim]);
            let attention = Attention::causal(dim);
            let pairs = b * heads * t * (t + 1) / 2;
            let name = format!("B{b} H{heads} T{t} D{dim}");
            group.throughput(Throughput::Elements((4 * pairs * dim) as u64));
            group.bench_function(BenchmarkId::new("forward", &name), |bench| {
                bench.iter(|| attention.forward(&cpu, q, k, v, ViewMut::new(&mut out, layout), &mut lse));
            });
            group.throughput(Throughput::Elements((10 * pairs * dim) as u64));
            group.bench_function(BenchmarkId::new("backward", &name), |bench| {
                bench.iter(|| {
                    let grads = ViewMut::packed(&mut grads, [b, t], [heads; 2], dim);
                    let (out, dout) = (View::new(&out, layout), View::new(&dout, layout));
                    attention.backward(&cpu, [q, k, v], out, dout, &lse, grads, false);
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = attention
}
criterion_main!(benches);
