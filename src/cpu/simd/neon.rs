//! The vector type of AArch64: [`F32x8`], a pair of NEON registers.
//!
//! A tile of the matrix product is 6 rows by 2 vectors as on AVX2: 24 of the 32 registers hold sums, 4 a row of B.
//! `fmax` and `fmin` treat NaN and zeros otherwise than [`Vector::max`] asks, so those compare and select.
//!
//! SAFETY of this file: NEON is in the baseline of AArch64, and the intrinsics need nothing else (loads and stores state
//! their own condition).

use super::{Bits, Vector};
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Eight lanes in two registers: lanes 0 to 3 and 4 to 7.
#[derive(Clone, Copy)]
pub struct F32x8(float32x4_t, float32x4_t);
/// The integer lanes of [`F32x8`].
#[derive(Clone, Copy)]
pub struct I32x8(int32x4_t, int32x4_t);
/// A lane is all ones where true.
#[derive(Clone, Copy)]
pub struct Mask(uint32x4_t, uint32x4_t);

/// An intrinsic on both halves of its operands.
macro_rules! both {
    ($type:ident: $intrinsic:ident($($x:expr),*)) => {
        // SAFETY: see the head of this file.
        unsafe { $type($intrinsic($($x.0),*), $intrinsic($($x.1),*)) }
    };
}

macro_rules! operators {
    ($($trait:ident $method:ident $intrinsic:ident),*) => {
        $(impl $trait for F32x8 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, b: Self) -> Self {
                both!(F32x8: $intrinsic(self, b))
            }
        })*
    };
}
operators!(Add add vaddq_f32, Sub sub vsubq_f32, Mul mul vmulq_f32, Div div vdivq_f32);

impl Neg for F32x8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        both!(F32x8: vnegq_f32(self))
    }
}

/// The first `n` numbers of the four at `p`, 0 in the other lanes.
///
/// # Safety
/// `n` floats must be readable, four where it is more.
#[inline(always)]
unsafe fn load_first(p: *const f32, n: usize) -> float32x4_t {
    // SAFETY: no arm reads more than `n` floats.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        match n {
            0 => zero,
            1 => vld1q_lane_f32::<0>(p, zero),
            2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
            3 => vld1q_lane_f32::<2>(p.add(2), vcombine_f32(vld1_f32(p), vdup_n_f32(0.0))),
            _ => vld1q_f32(p),
        }
    }
}

/// Writes the first `n` of four lanes to `p`.
///
/// # Safety
/// `n` floats must be writable, four where it is more.
#[inline(always)]
unsafe fn store_first(x: float32x4_t, p: *mut f32, n: usize) {
    // SAFETY: no arm writes more than `n` floats.
    unsafe {
        match n {
            0 => {}
            1 => vst1q_lane_f32::<0>(p, x),
            2 => vst1_f32(p, vget_low_f32(x)),
            3 => {
                vst1_f32(p, vget_low_f32(x));
                vst1q_lane_f32::<2>(p.add(2), x);
            }
            _ => vst1q_f32(p, x),
        }
    }
}

/// Transposes a 4 × 4 matrix of rows.
#[inline(always)]
fn transpose_4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: see the head of this file.
    unsafe {
        let pairs = |a, b| (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)));
        let ((even, odd), (even2, odd2)) = (pairs(a, b), pairs(c, d));
        [
            vreinterpretq_f32_f64(vtrn1q_f64(even, even2)),
            vreinterpretq_f32_f64(vtrn1q_f64(odd, odd2)),
            vreinterpretq_f32_f64(vtrn2q_f64(even, even2)),
            vreinterpretq_f32_f64(vtrn2q_f64(odd, odd2)),
        ]
    }
}

impl Vector for F32x8 {
    const W: usize = 8;
    type Bits = I32x8;
    type Mask = Mask;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see the head of this file.
        unsafe { F32x8(vdupq_n_f32(x), vdupq_n_f32(x)) }
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> Self {
        // SAFETY: the caller promises eight readable floats.
        unsafe { F32x8(vld1q_f32(p), vld1q_f32(p.add(4))) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32) {
        // SAFETY: the caller promises eight writable floats.
        unsafe {
            vst1q_f32(p, self.0);
            vst1q_f32(p.add(4), self.1);
        }
    }
    #[inline(always)]
    fn load_partial(x: &[f32]) -> Self {
        let n = x.len();
        assert!(n <= 8);
        // SAFETY: the halves lie in `x`.
        unsafe { F32x8(load_first(x.as_ptr(), n), load_first(x.as_ptr().add(n.min(4)), n.saturating_sub(4))) }
    }
    #[inline(always)]
    fn store_partial(self, x: &mut [f32]) {
        let n = x.len();
        assert!(n <= 8);
        // SAFETY: the halves lie in `x`.
        unsafe {
            store_first(self.0, x.as_mut_ptr(), n);
            store_first(self.1, x.as_mut_ptr().add(n.min(4)), n.saturating_sub(4));
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        both!(F32x8: vfmaq_f32(c, self, b))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        both!(F32x8: vsqrtq_f32(self))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        both!(F32x8: vabsq_f32(self))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.select(self.gt(b), b)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.select(b.gt(self), b)
    }
    #[inline(always)]
    fn gt(self, b: Self) -> Mask {
        both!(Mask: vcgtq_f32(self, b))
    }
    #[inline(always)]
    fn all(mask: Mask) -> bool {
        // SAFETY: see the head of this file.
        unsafe { vminvq_u32(vandq_u32(mask.0, mask.1)) != 0 }
    }
    #[inline(always)]
    fn is_nan(self) -> Mask {
        let same = both!(Mask: vceqq_f32(self, self));
        both!(Mask: vmvnq_u32(same))
    }
    #[inline(always)]
    fn select(self, mask: Mask, other: Self) -> Self {
        both!(F32x8: vbslq_f32(mask, self, other))
    }
    #[inline(always)]
    fn bits(self) -> I32x8 {
        both!(I32x8: vreinterpretq_s32_f32(self))
    }
    #[inline(always)]
    fn from_bits(bits: I32x8) -> Self {
        both!(F32x8: vreinterpretq_f32_s32(bits))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller promises eight readable bytes.
        let x = unsafe { vmovl_s8(vld1_s8(p)) };
        // SAFETY: see the head of this file.
        let int = unsafe { I32x8(vmovl_s16(vget_low_s16(x)), vmovl_s16(vget_high_s16(x))) };
        both!(F32x8: vcvtq_f32_s32(int))
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        // The four 4 × 4 blocks, of which two change places.
        let r = *rows;
        let low = |i: usize| transpose_4([r[i].0, r[i + 1].0, r[i + 2].0, r[i + 3].0]);
        let high = |i: usize| transpose_4([r[i].1, r[i + 1].1, r[i + 2].1, r[i + 3].1]);
        let (a, b, c, d) = (low(0), high(0), low(4), high(4));
        for i in 0..4 {
            rows[i] = F32x8(a[i], c[i]);
            rows[i + 4] = F32x8(b[i], d[i]);
        }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, row: usize) -> [Self; 4] {
        let mut x = [Self::splat(0.0).0; 8];
        for (i, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller promises 4 floats at each row.
            *x = unsafe { vld1q_f32(p.add(i * row)) };
        }
        let low = transpose_4([x[0], x[1], x[2], x[3]]);
        let high = transpose_4([x[4], x[5], x[6], x[7]]);
        [F32x8(low[0], high[0]), F32x8(low[1], high[1]), F32x8(low[2], high[2]), F32x8(low[3], high[3])]
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch touches nothing, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the array holds sixteen floats.
        unsafe { self.store_ptr(out.as_mut_ptr()) };
        out
    }
}

impl Bits for I32x8 {
    #[inline(always)]
    fn splat(x: i32) -> Self {
        // SAFETY: see the head of this file.
        unsafe { I32x8(vdupq_n_s32(x), vdupq_n_s32(x)) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        both!(I32x8: vaddq_s32(self, b))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        both!(I32x8: vsubq_s32(self, b))
    }
    #[inline(always)]
    fn and(self, b: Self) -> Self {
        both!(I32x8: vandq_s32(self, b))
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        both!(I32x8: vorrq_s32(self, b))
    }
    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        both!(I32x8: vshlq_s32(self, Self::splat(N as i32)))
    }
    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        // A shift left by less than nothing: arithmetic, towards −∞.
        both!(I32x8: vshlq_s32(self, Self::splat(-(N as i32))))
    }
}
