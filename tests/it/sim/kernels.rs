//! Whole kernels against f64.

use super::rig::{Rig, module, numbers};
use half::{bf16, f16};
use kiln::cpu::Simd;
use kiln::device::ptx::Value;
use kiln::device::sim::{Class, Counters};
use kiln::device::{Arg, Grid};

pub const GEMM: &str = include_str!("kernels/gemm.ptx");
pub const SGEMM: &str = include_str!("kernels/sgemm.ptx");
const SOFTMAX: &str = include_str!("kernels/softmax.ptx");

/// `a · b` in f64.
pub fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
    c
}

/// The norm of the difference over the norm of `y`.
pub fn error(x: &[f32], y: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let difference: f64 = x.iter().zip(y).map(|(x, y)| square(f64::from(*x) - y)).sum();
    (difference / y.iter().map(|y| square(*y)).sum::<f64>()).sqrt()
}

/// A GEMM of halves with the given parameters, checked against f64.
pub fn gemm(rig: &Rig, half: &str, [mi, nj, stages]: [i64; 3], [m, n, k]: [usize; 3]) -> Counters {
    let params = [("TY", half.into()), ("MI", mi.into()), ("NJ", nj.into()), ("STAGES", stages.into())];
    let module = module("gemm.ptx", GEMM, &params);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let bits = |v: &[f32]| -> Vec<u16> {
        let bits = |x: &f32| if half == "f16" { f16::from_f32(*x).to_bits() } else { bf16::from_f32(*x).to_bits() };
        v.iter().map(bits).collect()
    };
    let exact = |v: &[u16]| -> Vec<f64> {
        let value = |x: &u16| if half == "f16" { f16::from_bits(*x).to_f64() } else { bf16::from_bits(*x).to_f64() };
        v.iter().map(value).collect()
    };
    let (a, b) = (bits(&a), bits(&b));
    let (pa, pb, pc) = (rig.put(&a), rig.put(&b), rig.put(&vec![f32::NAN; m * n]));
    let (bm, bn) = (32 * mi as usize, 16 * nj as usize);
    let stage = bm * 80 + 32 * (bn * 2 + 16);
    let grid =
        Grid { blocks: [(n / bn) as u32, (m / bm) as u32, 1], threads: [128, 1, 1], shared: stages as usize * stage };
    let args = [pa.into(), pb.into(), pc.into(), Arg::U32(n as u32), Arg::U32(k as u32)];
    let counters = rig.run(&module, grid, &args);
    let difference = error(&rig.get(pc, m * n), &product(&exact(&a), &exact(&b), [m, n, k]));
    assert!(difference < 2e-7, "{half} {mi} {nj} {stages}: {difference}");
    counters
}

#[test]
fn the_tensor_core_product_of_halves_is_that_of_f64() {
    for (half, sizes, shape) in [
        ("bf16", [2, 4, 3], [128, 64, 96]),
        ("f16", [2, 4, 3], [64, 128, 64]),
        ("bf16", [1, 2, 2], [64, 32, 32]),
        ("bf16", [4, 8, 4], [128, 128, 160]),
    ] {
        let counters = gemm(&Rig::new(true), half, sizes, shape);
        // An mma is 16 · 8 · 16 products.
        assert_eq!(counters.class(Class::Mma).warp as usize, shape.iter().product::<usize>() / 2048);
        // ldmatrix has no conflicts; a copy's rows of 64 bytes overlap in a quarter of the banks.
        assert!(counters.shared.steps * 3 <= counters.shared.ideal * 4, "bank conflicts: {:?}", counters.shared);
        assert_eq!(counters.global.steps, counters.global.ideal, "sectors: {:?}", counters.global);
    }
}

#[test]
fn a_launch_has_the_same_bits_on_every_level_with_any_threads_and_checks() {
    let run = |check: bool, threads: usize, simd: Simd| {
        let rig = Rig::with(check, threads, simd);
        gemm(&rig, "bf16", [1, 2, 3], [128, 64, 64]);
        let x = rig.put(&numbers(16 * 128, 3));
        let y = rig.put(&vec![0f32; 16 * 128]);
        let counters = rig.run(&module("softmax.ptx", SOFTMAX, &[]), Grid::new(4, 128), &[x.into(), y.into()]);
        (rig.get::<u32>(y, 16 * 128), counters.classes, counters.lines)
    };
    let expected = run(true, 1, Simd::detect().unwrap());
    for simd in Simd::available() {
        for (check, threads) in [(false, 1), (false, 3), (true, 2)] {
            assert_eq!(run(check, threads, simd), expected, "{check} {threads} {simd:?}");
        }
    }
}

#[test]
fn the_product_in_f32_is_that_of_f64() {
    let rig = Rig::new(true);
    let [m, n, k] = [128, 64, 80];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let (pa, pb, pc) = (rig.put(&a), rig.put(&b), rig.put(&vec![0f32; m * n]));
    let grid = Grid { blocks: [1, 2, 1], threads: [256, 1, 1], shared: 0 };
    let args = [pa.into(), pb.into(), pc.into(), Arg::U32(n as u32), Arg::U32(k as u32)];
    rig.run(&module("sgemm.ptx", SGEMM, &[]), grid, &args);
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let difference = error(&rig.get(pc, m * n), &product(&wide(&a), &wide(&b), [m, n, k]));
    assert!(difference < 2e-7, "{difference}");
}

#[test]
fn softmax_by_shuffles_is_that_of_f64() {
    for p in [1usize, 4, 7] {
        let rig = Rig::new(true);
        let x: Vec<f32> = numbers(12 * 32 * p, 5).iter().map(|x| x * 20.0).collect();
        let (px, py) = (rig.put(&x), rig.put(&vec![0f32; x.len()]));
        let module = module("softmax.ptx", SOFTMAX, &[("P", Value::Int(p as i64))]);
        rig.run(&module, Grid::new(3, 128), &[px.into(), py.into()]);
        for (x, y) in x.chunks(32 * p).zip(rig.get::<f32>(py, x.len()).chunks(32 * p)) {
            let most = x.iter().fold(f32::MIN, |a, b| a.max(*b));
            let sum: f64 = x.iter().map(|x| f64::from(x - most).exp()).sum();
            for (x, y) in x.iter().zip(y) {
                let exact = f64::from(x - most).exp() / sum;
                assert!((f64::from(*y) - exact).abs() <= 3e-6 * exact, "{y} {exact}");
            }
        }
    }
}
