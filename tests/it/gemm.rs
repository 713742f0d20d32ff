//! Matrix products and sums against naive twins: the same bits as one sequential chain per element.

use half::bf16;
use kiln::cpu::gemm::{Mat, MatMut, PackedB, Precision, Rhs, gemm};
use kiln::cpu::q4::{self, Q4};
use kiln::cpu::q8::{self, Q8};
use kiln::cpu::{Cpu, Simd};
use kiln::rng::{Purpose, Rng};
use rand::Rng as _;

/// Numbers from −1 to 1; the stream depends on `id`.
pub fn numbers(id: u32, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Purpose::Test, id, 0);
    (0..len).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// The definition: element by element, one chain over k from `c` (or 0).
fn naive(
    m: usize,
    n: usize,
    k: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    c: &[f32],
) -> Vec<f32> {
    let mut out = c.to_vec();
    for i in 0..m {
        for j in 0..n {
            let chain = |sum: f32, p: usize| a(i, p).mul_add(b(p, j), sum);
            out[i * n + j] = (0..k).fold(c[i * n + j], chain);
        }
    }
    out
}

fn naive_f64(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &[f32]) -> Vec<f64> {
    let product = |i: usize, p: usize, j: usize| f64::from(a[i * k + p]) * f64::from(b[p * n + j]);
    (0..m * n).map(|e| f64::from(c[e]) + (0..k).map(|p| product(e / n, p, e % n)).sum::<f64>()).collect()
}

/// Odd, even, one less and one more than the tiles, long and flat, empty.
pub const SHAPES: [(usize, usize, usize); 16] = [
    (3, 7, 5),
    (1, 1, 1),
    (1, 97, 64),
    (14, 32, 16),
    (15, 33, 17),
    (13, 31, 15),
    (6, 16, 8),
    (7, 17, 9),
    (29, 100, 70),
    (64, 64, 64),
    (97, 41, 130),
    (33, 260, 48),
    (5, 3, 1200),
    (4, 5, 0),
    (0, 4, 4),
    (4, 0, 4),
];

pub fn cpus() -> Vec<Cpu> {
    Simd::available().into_iter().flat_map(|simd| [1, 2, 3, 5].map(|threads| Cpu::with(simd, threads))).collect()
}

pub fn same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits(), "{what}: element {i} is {g:e}, not {w:e}");
    }
}

#[test]
fn products_are_one_chain_per_element_in_every_form() {
    let cpus = cpus();
    for (m, n, k) in SHAPES {
        let (a, b, c) = (numbers(1, m * k), numbers(2, k * n), numbers(3, m * n));
        let transpose = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
            (0..rows * cols).map(|e| x[(e % rows) * cols + e / rows]).collect()
        };
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        for add in [false, true] {
            let start = if add { c.clone() } else { vec![0.0; m * n] };
            let want = naive(m, n, k, |i, p| a[i * k + p], |p, j| b[p * n + j], &start);
            for (x, y) in want.iter().zip(naive_f64(m, n, k, &a, &b, &start)) {
                assert!((f64::from(*x) - y).abs() <= 1e-6 * (k as f64 + 1.0));
            }
            for cpu in &cpus {
                let before = cpu.flops();
                for (ta, tb, packed) in [
                    (false, false, false),
                    (true, false, false),
                    (false, true, false),
                    (true, true, false),
                    (false, false, true),
                    (true, true, true),
                ] {
                    let a = if ta { Mat::new(&at, k, m).t() } else { Mat::new(&a, m, k) };
                    let b = if tb { Mat::new(&bt, n, k).t() } else { Mat::new(&b, k, n) };
                    let mut out = if add { c.clone() } else { vec![f32::NAN; m * n] };
                    let out_mat = MatMut::new(&mut out, m, n);
                    if packed {
                        gemm(cpu, Precision::F32, a, &PackedB::new(cpu, Precision::F32, b), out_mat, add, None);
                    } else {
                        gemm(cpu, Precision::F32, a, b, out_mat, add, None);
                    }
                    let what =
                        format!("{m}x{n}x{k} {ta} {tb} {packed} {add} {} {}", cpu.simd.name(), cpu.threads.count());
                    same_bits(&out, &want, &what);
                }
                assert_eq!(cpu.flops() - before, 6 * 2 * (m * n * k) as u64);
            }
        }
    }
}

#[test]
fn strides_leave_gaps_alone_and_finish_sees_each_element_once() {
    let (m, n, k) = (45, 77, 60);
    let (a, b) = (numbers(1, 3 * m * k), numbers(2, 2 * k * (n + 3)));
    let at = |i: usize, p: usize| a[i * 3 * k + p * 2];
    let bt = |p: usize, j: usize| b[p * 2 * (n + 3) + j * 2];
    let bias = numbers(4, n);
    let mut want = naive(m, n, k, at, bt, &vec![0.0; m * n]);
    want.iter_mut().enumerate().for_each(|(e, x)| *x = (*x + bias[e % n]) * 0.5);
    for cpu in cpus() {
        let mut c = vec![7.0; m * (n + 5)];
        let a = Mat::strided(&a, m, k, 3 * k, 2);
        let b = Mat::strided(&b, k, n, 2 * (n + 3), 2);
        let finish = |row: usize, first: usize, piece: &mut [f32]| {
            assert!(row < m);
            piece.iter_mut().enumerate().for_each(|(j, x)| *x = (*x + bias[first + j]) * 0.5);
        };
        gemm(&cpu, Precision::F32, a, b, MatMut::strided(&mut c, m, n, n + 5), false, Some(&finish));
        for row in 0..m {
            let (data, gap) = c[row * (n + 5)..][..n + 5].split_at(n);
            same_bits(data, &want[row * n..][..n], cpu.simd.name());
            assert!(gap.iter().all(|&x| x == 7.0));
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (m, n, k) = (64, 200, 700);
    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
    let cpu = Cpu::with(*Simd::available().last().unwrap(), 2);
    let packed = PackedB::new(&cpu, Precision::F32, Mat::new(&b, k, n));
    let mut all = vec![0.0; m * n];
    gemm(&cpu, Precision::F32, Mat::new(&a, m, k), Mat::new(&b, k, n), MatMut::new(&mut all, m, n), false, None);
    let bt: Vec<f32> = (0..n * k).map(|e| b[e % k * n + e / k]).collect();
    for rows in [1, 2, 3, 5, 8, 9, 14, 15, 28, 29] {
        for b in [Rhs::Packed(&packed), Rhs::Mat(Mat::new(&bt, n, k).t())] {
            let mut some = vec![0.0; rows * n];
            gemm(&cpu, Precision::F32, Mat::new(&a[k..], rows, k), b, MatMut::new(&mut some, rows, n), false, None);
            same_bits(&some, &all[n..][..rows * n], &format!("{rows} rows"));
        }
    }
}

/// Every number of rows that is read as it lies, and one more; depths and columns around the registers; rows of B that
/// alias in the first cache.
#[test]
fn thin_products_are_one_chain_per_element() {
    let cpus = cpus();
    for (n, k) in [(1, 9), (7, 8), (8, 7), (16, 4), (33, 13), (97, 64), (130, 1), (300, 257), (40, 1024)] {
        for m in 1..=9 {
            let (a, b, c) = (numbers(1, m * (k + 3)), numbers(2, n * (k + 2)), numbers(3, m * n));
            let bias = numbers(4, n);
            for add in [false, true] {
                let start = if add { c.clone() } else { vec![0.0; m * n] };
                let mut want = naive(m, n, k, |i, p| a[i * (k + 3) + p], |p, j| b[j * (k + 2) + p], &start);
                want.iter_mut().enumerate().for_each(|(e, x)| *x += bias[e % n]);
                for cpu in &cpus {
                    let mut out = vec![f32::NAN; m * (n + 1)];
                    out.chunks_mut(n + 1).zip(c.chunks(n)).for_each(|(out, c)| out[..n].copy_from_slice(c));
                    let (a, b) = (Mat::strided(&a, m, k, k + 3, 1), Mat::strided(&b, n, k, k + 2, 1).t());
                    let finish = |_: usize, first: usize, piece: &mut [f32]| {
                        piece.iter_mut().zip(&bias[first..]).for_each(|(x, bias)| *x += bias);
                    };
                    gemm(cpu, Precision::F32, a, b, MatMut::strided(&mut out, m, n, n + 1), add, Some(&finish));
                    let what = format!("{m}x{n}x{k} {add} {} {}", cpu.simd.name(), cpu.threads.count());
                    for (out, want) in out.chunks(n + 1).zip(want.chunks(n)) {
                        same_bits(&out[..n], want, &what);
                        assert!(out[n].is_nan(), "{what}: wrote between the rows");
                    }
                }
            }
            // Weights in bf16 are the numbers that they widen to.
            let narrow: Vec<bf16> = b[..n * k].iter().map(|&x| bf16::from_f32(x)).collect();
            let want = naive(m, n, k, |i, p| a[i * k + p], |p, j| narrow[j * k + p].to_f32(), &vec![0.0; m * n]);
            for cpu in &cpus {
                let mut out = vec![f32::NAN; m * n];
                let (a, b) = (Mat::new(&a[..m * k], m, k), Mat::bf16(&narrow, n, k).t());
                gemm(cpu, Precision::F32, a, b, MatMut::new(&mut out, m, n), false, None);
                same_bits(&out, &want, &format!("{m}x{n}x{k} bf16 {} {}", cpu.simd.name(), cpu.threads.count()));
            }
        }
    }
}

/// Larger than the blocks of every level: the outer loops over depth, rows and columns.
#[test]
fn large_products_agree_on_all_levels() {
    for (m, n, k) in [(3, 40, 40_000), (300, 700, 1100), (2100, 65, 2050)] {
        let (a, b) = (numbers(1, m * k), numbers(2, k * n));
        let mut first: Option<Vec<f32>> = None;
        for simd in Simd::available() {
            for threads in [1, 2, 5] {
                let cpu = Cpu::with(simd, threads);
                let mut c = vec![f32::NAN; m * n];
                gemm(
                    &cpu,
                    Precision::F32,
                    Mat::new(&a, m, k),
                    Mat::new(&b, n, k).t(),
                    MatMut::new(&mut c, m, n),
                    false,
                    None,
                );
                for e in (0..m * n).step_by(m * n / 17 + 1) {
                    let (i, j) = (e / n, e % n);
                    let want = (0..k).fold(0f32, |sum, p| a[i * k + p].mul_add(b[j * k + p], sum));
                    assert_eq!(c[e].to_bits(), want.to_bits(), "{m}x{n}x{k}, {} {threads}", simd.name());
                }
                let same =
                    first.get_or_insert_with(|| c.clone()).iter().zip(&c).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{m}x{n}x{k}, {} {threads}", simd.name());
            }
        }
    }
}

#[test]
fn repeated_products_take_no_new_memory() {
    let cpu = Cpu::with(*Simd::available().last().unwrap(), 2);
    let (m, n, k) = (100, 120, 140);
    let (a, b, mut c) = (numbers(1, m * k), numbers(2, k * n), vec![0.0; m * n]);
    let mut run =
        || gemm(&cpu, Precision::F32, Mat::new(&a, m, k), Mat::new(&b, k, n), MatMut::new(&mut c, m, n), false, None);
    run();
    let mapped = cpu.scratch.mapped();
    run();
    assert_eq!(cpu.scratch.mapped(), mapped);
}

#[test]
fn operands_in_bf16_give_the_bits_of_their_values_in_f32() {
    for (m, n, k) in SHAPES {
        let narrow = |salt, len| -> Vec<bf16> { numbers(salt, len).into_iter().map(bf16::from_f32).collect() };
        let (a, b) = (narrow(1, m * k), narrow(2, k * n));
        let wide = |x: &[bf16]| -> Vec<f32> { x.iter().map(|x| x.to_f32()).collect() };
        let (a32, b32) = (wide(&a), wide(&b));
        for cpu in &cpus() {
            // As they lie, and as transposes of what lies there: every way to pack.
            for transposed in [false, true] {
                let [a, a32] = match transposed {
                    false => [Mat::bf16(&a, m, k), Mat::new(&a32, m, k)],
                    true => [Mat::bf16(&a, k, m).t(), Mat::new(&a32, k, m).t()],
                };
                let [b, b32] = match transposed {
                    false => [Mat::bf16(&b, k, n), Mat::new(&b32, k, n)],
                    true => [Mat::bf16(&b, n, k).t(), Mat::new(&b32, n, k).t()],
                };
                let run = |a: Mat, b: Mat| {
                    let mut c = vec![f32::NAN; m * n];
                    gemm(cpu, Precision::F32, a, b, MatMut::new(&mut c, m, n), false, None);
                    c
                };
                same_bits(&run(a, b), &run(a32, b32), &format!("{m}x{n}x{k} {transposed} {}", cpu.simd.name()));
            }
        }
    }
}

#[test]
fn a_right_operand_in_4_bits_gives_the_product_of_the_weights_that_it_holds() {
    for (m, n, k) in SHAPES {
        let (a, weights) = (numbers(1, m * k), numbers(2, n * k));
        for cpu in &cpus() {
            let mut memory = vec![0.0f32; q4::bytes(n, k).div_ceil(4)];
            let memory = &mut bytemuck::cast_slice_mut(&mut memory)[..q4::bytes(n, k)];
            q4::quantize(cpu, &weights, (n, k), memory);
            let q4 = Q4::new(memory, n, k);
            let mut held = vec![0.0; n * k];
            held.chunks_exact_mut(k.max(1)).enumerate().for_each(|(i, row)| q4.row(i, 0.0, row));
            let run = |b: Mat| {
                let mut c = vec![f32::NAN; m * n];
                let twice = |_: usize, _: usize, c: &mut [f32]| c.iter_mut().for_each(|x| *x *= 2.0);
                gemm(cpu, Precision::F32, Mat::new(&a, m, k), b, MatMut::new(&mut c, m, n), false, Some(&twice));
                c
            };
            let want = run(Mat::new(&held, n, k).t());
            same_bits(&run(Mat::q4(q4, n, k).t()), &want, &format!("{m}x{n}x{k} {}", cpu.simd.name()));
        }
    }
}

#[test]
fn a_right_operand_in_8_bits_gives_the_product_of_its_integers_times_the_scales() {
    for (m, n, k) in SHAPES {
        let (a, weights) = (numbers(1, m * k), numbers(2, n * k));
        for cpu in &cpus() {
            let mut memory = vec![0.0f32; q8::bytes(n, k) / 4];
            q8::quantize(cpu, &weights, (n, k), bytemuck::cast_slice_mut(&mut memory));
            let q8 = Q8::new(bytemuck::cast_slice(&memory), n, k);
            let integers: Vec<f32> = (0..n * k).map(|e| f32::from(q8.q[q8.at(e / k, e % k)])).collect();
            let mut want = vec![f32::NAN; m * n];
            let b = Mat::new(&integers, n, k).t();
            gemm(cpu, Precision::F32, Mat::new(&a, m, k), b, MatMut::new(&mut want, m, n), false, None);
            want.iter_mut().enumerate().for_each(|(e, x)| *x *= q8.scales[e % n]);
            let mut got = vec![f32::NAN; m * n];
            // What is done last sees scaled values.
            let twice = |_: usize, _: usize, c: &mut [f32]| c.iter_mut().for_each(|x| *x *= 2.0);
            let b = Mat::q8(q8, n, k).t();
            gemm(cpu, Precision::F32, Mat::new(&a, m, k), b, MatMut::new(&mut got, m, n), false, Some(&twice));
            got.iter_mut().for_each(|x| *x /= 2.0);
            same_bits(&got, &want, &format!("{m}x{n}x{k} {}", cpu.simd.name()));
        }
    }
}
