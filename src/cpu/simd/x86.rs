//! The vector types of x86-64: [`F32x8`] on AVX2 and FMA, [`F32x16`] on AVX-512.
//!
//! SAFETY of this file: the intrinsics need their instruction set and nothing else (loads and stores state their own
//! condition). Values of these types are only made inside bodies that [`simd_fn!`](crate::simd_fn) instantiates for a
//! level that was found on this processor.

use super::{Bits, Vector};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Eight lanes: AVX2 with FMA.
#[derive(Clone, Copy)]
pub struct F32x8(__m256);
/// The integer lanes of [`F32x8`].
#[derive(Clone, Copy)]
pub struct I32x8(__m256i);
/// Sixteen lanes: AVX-512.
#[derive(Clone, Copy)]
pub struct F32x16(pub(in crate::cpu) __m512);
/// The integer lanes of [`F32x16`].
#[derive(Clone, Copy)]
pub struct I32x16(__m512i);

macro_rules! operators {
    ($type:ident, $($trait:ident $method:ident $intrinsic:ident),*) => {
        $(impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $method(self, b: Self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $intrinsic(self.0, b.0) })
            }
        })*
    };
}
operators!(F32x8, Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);
operators!(F32x16, Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);

impl Neg for F32x8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}
impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
    }
}

/// The mask of the first `n` of 8 lanes, for `maskload` and `maskstore`.
#[inline(always)]
fn first_of_8(n: usize) -> __m256i {
    // SAFETY: see the head of this file.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn first_of_16(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Vector for F32x8 {
    const W: usize = 8;
    type Bits = I32x8;
    type Mask = __m256;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> Self {
        // SAFETY: the caller promises eight readable floats.
        F32x8(unsafe { _mm256_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32) {
        // SAFETY: the caller promises eight writable floats.
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn load_partial(x: &[f32]) -> Self {
        assert!(x.len() <= 8);
        // SAFETY: only the first `x.len()` lanes are read.
        F32x8(unsafe { _mm256_maskload_ps(x.as_ptr(), first_of_8(x.len())) })
    }
    #[inline(always)]
    fn store_partial(self, x: &mut [f32]) {
        assert!(x.len() <= 8);
        // SAFETY: only the first `x.len()` lanes are written.
        unsafe { _mm256_maskstore_ps(x.as_mut_ptr(), first_of_8(x.len()), self.0) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn gt(self, b: Self) -> __m256 {
        // SAFETY: see the head of this file.
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn all(mask: __m256) -> bool {
        // SAFETY: see the head of this file.
        unsafe { _mm256_movemask_ps(mask) == 0xff }
    }
    #[inline(always)]
    fn is_nan(self) -> __m256 {
        // SAFETY: see the head of this file.
        unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0) }
    }
    #[inline(always)]
    fn select(self, mask: __m256, other: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_blendv_ps(other.0, self.0, mask) })
    }
    #[inline(always)]
    fn bits(self) -> I32x8 {
        // SAFETY: see the head of this file.
        I32x8(unsafe { _mm256_castps_si256(self.0) })
    }
    #[inline(always)]
    fn from_bits(bits: I32x8) -> Self {
        // SAFETY: see the head of this file.
        F32x8(unsafe { _mm256_castsi256_ps(bits.0) })
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller promises eight readable bytes.
        F32x8(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_halves(p: *const u8) -> [Self; 2] {
        // SAFETY: the caller promises eight readable bytes.
        unsafe {
            let (x, mask) = (_mm_loadl_epi64(p.cast()), _mm_set1_epi8(15));
            let (low, high) = (_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16::<4>(x), mask));
            // No closure: what these instructions need would not reach into it.
            let low = F32x8(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)));
            [low, F32x8(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high)))]
        }
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        // Each step doubles the side of the blocks that stand transposed: 2, 4, 8.
        let r = *rows;
        // SAFETY: see the head of this file.
        unsafe {
            for half in 0..2 {
                let [a, b, c, d] = [r[4 * half].0, r[4 * half + 1].0, r[4 * half + 2].0, r[4 * half + 3].0];
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                rows[4 * half].0 = _mm256_shuffle_ps::<0x44>(low, low2);
                rows[4 * half + 1].0 = _mm256_shuffle_ps::<0xee>(low, low2);
                rows[4 * half + 2].0 = _mm256_shuffle_ps::<0x44>(high, high2);
                rows[4 * half + 3].0 = _mm256_shuffle_ps::<0xee>(high, high2);
            }
            for i in 0..4 {
                let (top, bottom) = (rows[i].0, rows[i + 4].0);
                rows[i].0 = _mm256_permute2f128_ps::<0x20>(top, bottom);
                rows[i + 4].0 = _mm256_permute2f128_ps::<0x31>(top, bottom);
            }
        }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, row: usize) -> [Self; 4] {
        // SAFETY: the caller promises 4 floats at each row.
        unsafe {
            // Rows i and i + 4 share a register, so that all that is left are 4 × 4 blocks inside its 128-bit parts.
            let mut x = [_mm256_setzero_ps(); 4];
            for (i, x) in x.iter_mut().enumerate() {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(p.add(i * row)));
                *x = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(p.add((i + 4) * row)));
            }
            let [a, b, c, d] = x;
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            [
                F32x8(_mm256_shuffle_ps::<0x44>(low, low2)),
                F32x8(_mm256_shuffle_ps::<0xee>(low, low2)),
                F32x8(_mm256_shuffle_ps::<0x44>(high, high2)),
                F32x8(_mm256_shuffle_ps::<0xee>(high, high2)),
            ]
        }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch touches nothing; SSE is in the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the array holds sixteen floats.
        unsafe { self.store_ptr(out.as_mut_ptr()) };
        out
    }
}

impl Vector for F32x16 {
    const W: usize = 16;
    type Bits = I32x16;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load_ptr(p: *const f32) -> Self {
        // SAFETY: the caller promises sixteen readable floats.
        F32x16(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32) {
        // SAFETY: the caller promises sixteen writable floats.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    fn load_partial(x: &[f32]) -> Self {
        assert!(x.len() <= 16);
        // SAFETY: only the first `x.len()` lanes are read.
        F32x16(unsafe { _mm512_maskz_loadu_ps(first_of_16(x.len()), x.as_ptr()) })
    }
    #[inline(always)]
    fn store_partial(self, x: &mut [f32]) {
        assert!(x.len() <= 16);
        // SAFETY: only the first `x.len()` lanes are written.
        unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), first_of_16(x.len()), self.0) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn gt(self, b: Self) -> __mmask16 {
        // SAFETY: see the head of this file.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, b.0) }
    }
    #[inline(always)]
    fn all(mask: __mmask16) -> bool {
        mask == 0xffff
    }
    #[inline(always)]
    fn is_nan(self) -> __mmask16 {
        // SAFETY: see the head of this file.
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0) }
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, other: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_mask_blend_ps(mask, other.0, self.0) })
    }
    #[inline(always)]
    fn bits(self) -> I32x16 {
        // SAFETY: see the head of this file.
        I32x16(unsafe { _mm512_castps_si512(self.0) })
    }
    #[inline(always)]
    fn from_bits(bits: I32x16) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_castsi512_ps(bits.0) })
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller promises sixteen readable bytes.
        F32x16(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_halves(p: *const u8) -> [Self; 2] {
        // SAFETY: the caller promises sixteen readable bytes.
        unsafe {
            let (x, mask) = (_mm_loadu_si128(p.cast()), _mm_set1_epi8(15));
            let (low, high) = (_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16::<4>(x), mask));
            let low = F32x16(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(low)));
            [low, F32x16(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(high)))]
        }
    }
    #[inline(always)]
    fn ldexp(self, n: Self) -> Self {
        // SAFETY: see the head of this file.
        F32x16(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn ldexp_normal(self, n: Self) -> Self {
        self.ldexp(n)
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        // SAFETY: see the head of this file.
        unsafe {
            // 4 × 4 blocks inside the 128-bit parts.
            for q in [0, 4, 8, 12] {
                let [a, b, c, d] = [rows[q].0, rows[q + 1].0, rows[q + 2].0, rows[q + 3].0];
                let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (low2, high2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                rows[q].0 = _mm512_shuffle_ps::<0x44>(low, low2);
                rows[q + 1].0 = _mm512_shuffle_ps::<0xee>(low, low2);
                rows[q + 2].0 = _mm512_shuffle_ps::<0x44>(high, high2);
                rows[q + 3].0 = _mm512_shuffle_ps::<0xee>(high, high2);
            }
            // Then the 4 × 4 matrix of these parts.
            for i in 0..4 {
                let [a, b, c, d] = [rows[i].0, rows[i + 4].0, rows[i + 8].0, rows[i + 12].0];
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                rows[i].0 = _mm512_shuffle_f32x4::<0x88>(even, even2);
                rows[i + 4].0 = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                rows[i + 8].0 = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                rows[i + 12].0 = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
            }
        }
    }
    #[inline(always)]
    unsafe fn columns(p: *const f32, row: usize) -> [Self; 4] {
        // SAFETY: the caller promises 4 floats at each row.
        unsafe {
            // Rows i, i + 4, i + 8 and i + 12 share a register, so that all that is left are 4 × 4 blocks inside its 128-bit parts.
            let mut x = [_mm512_setzero_ps(); 4];
            for (i, x) in x.iter_mut().enumerate() {
                *x = _mm512_castps128_ps512(_mm_loadu_ps(p.add(i * row)));
                *x = _mm512_insertf32x4::<1>(*x, _mm_loadu_ps(p.add((i + 4) * row)));
                *x = _mm512_insertf32x4::<2>(*x, _mm_loadu_ps(p.add((i + 8) * row)));
                *x = _mm512_insertf32x4::<3>(*x, _mm_loadu_ps(p.add((i + 12) * row)));
            }
            let [a, b, c, d] = x;
            let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (low2, high2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            [
                F32x16(_mm512_shuffle_ps::<0x44>(low, low2)),
                F32x16(_mm512_shuffle_ps::<0xee>(low, low2)),
                F32x16(_mm512_shuffle_ps::<0x44>(high, high2)),
                F32x16(_mm512_shuffle_ps::<0xee>(high, high2)),
            ]
        }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch touches nothing; SSE is in the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the array holds sixteen floats.
        unsafe { self.store_ptr(out.as_mut_ptr()) };
        out
    }
}

macro_rules! integer_lanes {
    ($type:ident, $splat:ident, $add:ident, $sub:ident, $and:ident, $or:ident, $shl:expr, $shr:expr) => {
        impl Bits for $type {
            #[inline(always)]
            fn splat(x: i32) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $splat(x) })
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $add(self.0, b.0) })
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $sub(self.0, b.0) })
            }
            #[inline(always)]
            fn and(self, b: Self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $and(self.0, b.0) })
            }
            #[inline(always)]
            fn or(self, b: Self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $or(self.0, b.0) })
            }
            #[inline(always)]
            fn shl<const N: u32>(self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $shl(self.0, N) })
            }
            #[inline(always)]
            fn shr<const N: u32>(self) -> Self {
                // SAFETY: see the head of this file.
                $type(unsafe { $shr(self.0, N) })
            }
        }
    };
}
integer_lanes!(
    I32x8,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_sub_epi32,
    _mm256_and_si256,
    _mm256_or_si256,
    |a, n: u32| _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32)),
    |a, n: u32| _mm256_sra_epi32(a, _mm_cvtsi32_si128(n as i32))
);
integer_lanes!(
    I32x16,
    _mm512_set1_epi32,
    _mm512_add_epi32,
    _mm512_sub_epi32,
    _mm512_and_si512,
    _mm512_or_si512,
    |a, n: u32| _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)),
    |a, n: u32| _mm512_sra_epi32(a, _mm_cvtsi32_si128(n as i32))
);
