//! Kernels give the same bits on every processor: digests of what x86-64 and AArch64 give, at every level. A change that is
//! meant to alter results puts the new digests here. (`contract.rs` does the same for training.)

use kiln::cpu::convert::ConvertTo;
use kiln::cpu::gemm::{Mat, MatMut, Precision, gemm};
use kiln::cpu::{Cpu, Simd, math};
use kiln::rng::{Purpose, Rng};

/// FNV-1a of bit patterns.
fn fnv(bits: impl IntoIterator<Item = u32>) -> u64 {
    bits.into_iter()
        .flat_map(u32::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The digest of `x`. All NaN count as one: processors give a new one different signs.
fn digest(x: &[f32]) -> u64 {
    fnv(x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }))
}

/// Compares digests, and shows all of those that were found where one differs.
fn check(simd: Simd, found: &[(&str, u64)], expected: &[(&str, u64)]) {
    let lines = || found.iter().map(|(name, digest)| format!("(\"{name}\", {digest:#018x}),\n")).collect::<String>();
    assert!(found == expected, "results have other bits on {}: they are\n{}", simd.name(), lines());
}

/// Of the functions over slices and the conversions.
const FUNCTIONS: [(&str, u64); 10] = [
    ("exp", 0xe0d5_e8f3_bd7e_74e5),
    ("log", 0x94a1_0222_837f_9101),
    ("tanh", 0x2e18_7630_ecaf_614e),
    ("erf", 0xde88_0be9_69ed_ebda),
    ("sigmoid", 0x2df5_7f10_d4f1_0e7d),
    ("silu", 0x3a2d_d097_9f4f_e084),
    ("gelu_tanh", 0x7c36_2146_94db_6c27),
    ("gelu_erf", 0x4d52_8f1b_6af2_3c80),
    ("bf16", 0xbce1_a0b1_3a80_6909),
    ("f16", 0x910e_c77e_b268_743a),
];

fn numbers(which: u32, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Purpose::Test, which, 0);
    (0..n).map(|_| 2.0 * rng.uniform() - 1.0).collect()
}

#[test]
fn functions_and_conversions_give_the_bits_of_every_processor() {
    // Bit patterns all over f32, and a partial register at the end.
    let x: Vec<f32> = (0..u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    for simd in Simd::available() {
        let map = |f: fn(Simd, &[f32], &mut [f32])| {
            let mut y = vec![0.0; x.len()];
            f(simd, &x, &mut y);
            digest(&y)
        };
        fn narrow<T: Copy>(simd: Simd, x: &[f32], zero: T, back: fn(T) -> f32) -> u64
        where
            f32: ConvertTo<T>,
        {
            let mut y = vec![zero; x.len()];
            f32::convert(simd, 0.0, x, &mut y);
            digest(&y.into_iter().map(back).collect::<Vec<_>>())
        }
        check(
            simd,
            &[
                ("exp", map(math::map_exp)),
                ("log", map(math::map_log)),
                ("tanh", map(math::map_tanh)),
                ("erf", map(math::map_erf)),
                ("sigmoid", map(math::map_sigmoid)),
                ("silu", map(math::map_silu)),
                ("gelu_tanh", map(math::map_gelu_tanh)),
                ("gelu_erf", map(math::map_gelu_erf)),
                ("bf16", narrow(simd, &x, half::bf16::ZERO, half::bf16::to_f32)),
                ("f16", narrow(simd, &x, half::f16::ZERO, half::f16::to_f32)),
            ],
            &FUNCTIONS,
        );
    }
}

#[test]
fn a_matrix_product_gives_the_bits_of_every_processor() {
    let (m, n, k) = (45, 77, 900);
    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
    for simd in Simd::available() {
        let mut c = vec![0.0; m * n];
        gemm(
            &Cpu::with(simd, 2),
            Precision::F32,
            Mat::new(&a, m, k),
            Mat::new(&b, k, n),
            MatMut::new(&mut c, m, n),
            false,
            None,
        );
        check(simd, &[("gemm", digest(&c))], &[("gemm", 0x25c7_1133_cea6_b698)]);
    }
}
