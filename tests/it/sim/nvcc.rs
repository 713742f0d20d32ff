//! Kernels that NVIDIA's compiler made from CUDA C, on the simulated device: an outside check of the interpreter. See
//! tests/reference/nvcc.py.

use super::kernels::{error, product};
use super::rig::{Rig, module, numbers};
use half::bf16;
use kiln::device::{Arg, Driver, Grid};

const TEXT: &str = include_str!("nvcc/kernels.ptx");

/// Runs one of the kernels, with all checks.
#[track_caller]
fn run(rig: &Rig, name: &str, grid: Grid, args: &[Arg]) {
    let module = module("kernels.ptx", TEXT, &[]);
    let ran = rig.sim.function(&module, name).and_then(|function| rig.sim.launch(&function, grid, args));
    if let Err(error) = ran {
        panic!("{name}: {error}\n{}", error.hint().unwrap_or(""));
    }
}

fn n(n: usize) -> Arg {
    Arg::I32(n as i32)
}

fn halves(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|x| bf16::from_f32(*x)).collect()
}

#[test]
fn saxpy() {
    let rig = Rig::new(true);
    let (x, y) = (numbers(1000, 1), numbers(1000, 2));
    let (px, py) = (rig.put(&x), rig.put(&y));
    run(&rig, "saxpy", Grid::new(3, 128), &[Arg::F32(0.7), px.into(), py.into(), n(1000)]);
    let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 0.7f32.mul_add(*x, *y)).collect();
    assert_eq!(rig.get::<f32>(py, 1000), want);
}

#[test]
fn softmax() {
    let rig = Rig::new(true);
    let (rows, len) = (3, 333);
    let x: Vec<f32> = numbers(rows * len, 3).iter().map(|x| 20.0 * x).collect();
    let (px, py) = (rig.put(&x), rig.sim.alloc(4 * rows * len).unwrap());
    run(&rig, "softmax", Grid::new(rows as u32, 128), &[px.into(), py.into(), n(len)]);
    for (x, y) in x.chunks(len).zip(rig.get::<f32>(py, rows * len).chunks(len)) {
        let most = x.iter().fold(f32::MIN, |a, b| a.max(*b));
        let sum: f64 = x.iter().map(|x| f64::from(x - most).exp()).sum();
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(x - most).exp() / sum;
            assert!((f64::from(*y) - exact).abs() <= 1e-6 * exact, "{y}, not {exact}");
        }
    }
}

#[test]
fn layernorm() {
    let rig = Rig::new(true);
    let (rows, len) = (7, 100);
    let (x, g) = (halves(&numbers(rows * len, 4)), numbers(len, 5));
    let (px, pg, py) = (rig.put(&x), rig.put(&g), rig.sim.alloc(2 * rows * len).unwrap());
    let grid = Grid { threads: [32, 4, 1], ..Grid::new(2, 1) };
    run(&rig, "layernorm", grid, &[px.into(), pg.into(), py.into(), n(rows), n(len)]);
    for (x, y) in x.chunks(len).zip(rig.get::<bf16>(py, rows * len).chunks(len)) {
        let mean = x.iter().map(|x| x.to_f64()).sum::<f64>() / len as f64;
        let var = x.iter().map(|x| (x.to_f64() - mean).powi(2)).sum::<f64>() / len as f64;
        for ((x, g), y) in x.iter().zip(&g).zip(y) {
            let exact = (x.to_f64() - mean) / (var + 1e-5).sqrt() * f64::from(*g);
            assert!((y.to_f64() - exact).abs() <= 4e-3 * exact.abs() + 1e-6, "{y}, not {exact}");
        }
    }
}

#[test]
fn histogram() {
    let rig = Rig::new(true);
    let x: Vec<u8> = numbers(1000, 6).iter().map(|x| (x.abs() * 255.0) as u8).collect();
    let (px, counts, odd) = (rig.put(&x), rig.put(&[0u32; 64]), rig.put(&[0u64; 1]));
    run(&rig, "histogram", Grid::new(2, 96), &[px.into(), counts.into(), odd.into(), n(x.len())]);
    let mut want = [0u32; 64];
    x.iter().for_each(|x| want[usize::from(x & 63)] += 1);
    assert_eq!(rig.get::<u32>(counts, 64), want);
    assert_eq!(rig.get::<u64>(odd, 1), [x.iter().filter(|x| *x & 1 == 1).count() as u64]);
}

#[test]
fn gemm_on_tensor_cores() {
    let rig = Rig::new(true);
    let [m, cols, k] = [64, 96, 80];
    let (a, b) = (halves(&numbers(m * k, 7)), halves(&numbers(k * cols, 8)));
    let (pa, pb, pc) = (rig.put(&a), rig.put(&b), rig.sim.alloc(4 * m * cols).unwrap());
    let grid = Grid { blocks: [cols as u32 / 32, m as u32 / 32, 1], threads: [64, 1, 1], shared: 0 };
    run(&rig, "gemm", grid, &[pa.into(), pb.into(), pc.into(), n(cols), n(k)]);
    let wide = |x: &[bf16]| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let difference = error(&rig.get(pc, m * cols), &product(&wide(&a), &wide(&b), [m, cols, k]));
    assert!(difference < 2e-7, "{difference}");
}
