//! `mma.sync`: D = A · B + C on fragments, D and C 16 × 8 in f32, A 16 × k, B k × 8.
//!
//! With g = lane / 4 and q = lane mod 4 a lane holds, of C and D: (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1). Of
//! halves, two a register: A's rows g and g + 8 at columns 2q, 2q + 1 and, for k = 16, the same 8 columns on; B's column g
//! at rows 2q, 2q + 1 and 8 on. Of tf32, one a register: A's rows g and g + 8 at column q and, for k = 8, 4 columns on; B's
//! column g at row q and 4 on.
//!
//! Each element is one chain of fused multiply-adds over k that begins with C. In which order and with how many bits a
//! tensor core sums is not specified; the difference is of the order of the last place of an f32.

use super::Outcome;
use crate::cpu::Vector;
use crate::device::ptx::Type;
use crate::device::ptx::code::Mma;
use crate::device::sim::block::Block;
use crate::device::sim::decode::Ins;
use crate::device::sim::fault::{Kind, Trouble};
use crate::device::sim::warp::Warp;
use crate::simd_fn;
use half::f16;

#[inline(never)]
pub fn mma(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, mma: Mma) -> Outcome {
    if m != !0 {
        let hint = "all 32 lanes of a warp must come to it together: move it out of the branch";
        let message = "mma.sync is reached by a part of the warp";
        return Err(Trouble::new(Kind::Divergence, (!m).trailing_zeros(), message, hint));
    }
    let per = if mma.ty == Type::Tf32 { 1 } else { 2 };
    // Registers of A: two rows by k columns in steps of four lanes.
    let of_a = 2 * usize::from(mma.k) / (4 * per);
    let places = &b.launch.program.pool[ins.imm as usize..][..8 + of_a + of_a / 2];
    let fragment = |i: usize| w.get::<u32>(places[i]);
    let (mut left, mut right, mut sum) = ([[0.0; 16]; 16], [[0.0; 8]; 16], [[0.0; 8]; 16]);
    for i in 0..of_a {
        let (row, column) = (i % 2 * 8, i / 2 * 4 * per);
        for (lane, bits) in fragment(4 + i).iter().enumerate() {
            for (j, x) in elements(*bits, mma.ty).into_iter().take(per).enumerate() {
                left[row + lane / 4][column + lane % 4 * per + j] = x;
            }
        }
    }
    for i in 0..of_a / 2 {
        for (lane, bits) in fragment(4 + of_a + i).iter().enumerate() {
            for (j, x) in elements(*bits, mma.ty).into_iter().take(per).enumerate() {
                right[i * 4 * per + lane % 4 * per + j][lane / 4] = x;
            }
        }
    }
    for i in 0..4 {
        for (lane, bits) in fragment(4 + of_a + of_a / 2 + i).iter().enumerate() {
            sum[i / 2 * 8 + lane / 4][lane % 4 * 2 + i % 2] = f32::from_bits(*bits);
        }
    }
    product(b.launch.simd, &left, &right, &mut sum, usize::from(mma.k));
    for i in 0..4 {
        let d: [u32; 32] = std::array::from_fn(|lane| sum[i / 2 * 8 + lane / 4][lane % 4 * 2 + i % 2].to_bits());
        w.set(places[i], !0, &d);
    }
    Ok(())
}

/// The numbers in a register.
#[inline(always)]
fn elements(bits: u32, ty: Type) -> [f32; 2] {
    match ty {
        Type::Bf16 => [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)],
        Type::F16 => [f16::from_bits(bits as u16).to_f32(), f16::from_bits((bits >> 16) as u16).to_f32()],
        // The bits that a tf32 does not have are not looked at.
        _ => [f32::from_bits(bits & 0xffff_e000), 0.0],
    }
}

simd_fn! {
    /// `sum += left · right`, a row of 8 at a time.
    fn product(left: &[[f32; 16]; 16], right: &[[f32; 8]; 16], sum: &mut [[f32; 8]; 16], k: usize) = product_body
}

// The vector type stands for the instruction set that this is compiled for; the loops do without it.
#[allow(clippy::extra_unused_type_parameters)]
#[inline(always)]
fn product_body<V: Vector>(left: &[[f32; 16]; 16], right: &[[f32; 8]; 16], sum: &mut [[f32; 8]; 16], k: usize) {
    for (left, sum) in left.iter().zip(sum) {
        let mut row = *sum;
        for (x, right) in left.iter().zip(right).take(k) {
            for j in 0..8 {
                row[j] = x.mul_add(right[j], row[j]);
            }
        }
        *sum = row;
    }
}
