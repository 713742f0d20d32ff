//! Conversion between f32, bf16 and f16, to the nearest value, ties to even.
//!
//! bf16 is the upper half of an f32: sign, 8 bits of exponent, 7 of mantissa. f16 has 5 and 10, its largest value is
//! 65504, and what rounds past it becomes infinity. Subnormal numbers are exact both ways; NaN stays NaN (quiet when
//! narrowed, with the upper bits of its payload). The code is integer arithmetic without branches, which the compiler
//! turns into vector code for each level; the one float addition in it is exactly rounded.

use super::{Simd, Vector};
use crate::simd_fn;
use half::{bf16, f16};

/// A float type that f32 converts to and from.
trait Float: Copy {
    /// The same value.
    fn widen(self) -> f32;
    /// The nearest value.
    fn narrow(x: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        let bits = x.to_bits();
        // Half of the last place, less one where the kept part is even: what is just half then stays.
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        // The carry of a NaN's payload could leave infinity.
        let nan = bits >> 16 | 0x40;
        bf16::from_bits(if bits << 1 > 0xff00_0000 { nan } else { rounded } as u16)
    }
}

/// The smallest normal f16, 2⁻¹⁴, as f32 bits.
const F16_NORMAL: u32 = 113 << 23;
/// 2¹⁶: from here on an f16 is infinite, as f32 bits.
const F16_HUGE: u32 = 143 << 23;

impl Float for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        // Exponent and mantissa are in place; the bias grows from 15 to 127, that of infinity and NaN by twice as much.
        let normal = rest + (112 << 23);
        let special = rest + (224 << 23);
        // A subnormal m · 2⁻²⁴: with the exponent of 2⁻¹⁴ it reads 2⁻¹⁴ + m · 2⁻²⁴, and the difference is exact.
        let small = (f32::from_bits(rest + F16_NORMAL) - f32::from_bits(F16_NORMAL)).to_bits();
        let exponent = bits & 0x7c00;
        let value = if exponent == 0 { small } else { normal };
        f32::from_bits(sign | if exponent == 0x7c00 { special } else { value })
    }
    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        let bits = x.to_bits();
        let (sign, a) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
        let normal = a.wrapping_sub(112 << 23).wrapping_add(0xfff + (a >> 13 & 1)) >> 13;
        // The last place of ½ in f32 is that of an f16 subnormal, so the sum rounds where it must.
        let small = (f32::from_bits(a.min(F16_NORMAL)) + 0.5).to_bits() - 0.5f32.to_bits();
        let nan = a >> 13 & 0x3ff | 0x7e00;
        let value = if a < F16_NORMAL { small } else { normal };
        let special = if a > 0x7f80_0000 { nan } else { 0x7c00 };
        f16::from_bits((sign | if a >= F16_HUGE { special } else { value }) as u16)
    }
}

#[inline(always)]
fn convert_body<A: Float, B: Float>(beta: f32, x: &[A], y: &mut [B]) {
    assert_eq!(x.len(), y.len());
    if beta == 0.0 {
        for (x, y) in x.iter().zip(y) {
            *y = B::narrow(x.widen());
        }
    } else {
        for (x, y) in x.iter().zip(y) {
            *y = B::narrow(y.widen() + x.widen());
        }
    }
}

/// Slices of this type convert to slices of `B`.
pub trait ConvertTo<B>: Sized {
    /// `y = beta y + x` on one thread, with `beta` 0 (overwrite) or 1 (add in f32, then round).
    ///
    /// # Panics
    /// The lengths differ.
    fn convert(simd: Simd, beta: f32, x: &[Self], y: &mut [B]);
}

macro_rules! conversions {
    ($($a:ident to $($b:ident)*;)*) => {$($(
        impl ConvertTo<$b> for $a {
            fn convert(simd: Simd, beta: f32, x: &[$a], y: &mut [$b]) {
                #[inline(always)]
                #[expect(clippy::extra_unused_type_parameters, reason = "plain code, compiled for each level")]
                fn body<V: Vector>(beta: f32, x: &[$a], y: &mut [$b]) {
                    convert_body(beta, x, y);
                }
                simd_fn! {
                    fn kernel(beta: f32, x: &[$a], y: &mut [$b]) = body
                }
                kernel(simd, beta, x, y);
            }
        }
    )*)*};
}
conversions! {
    f32 to f32 bf16 f16;
    bf16 to f32 bf16 f16;
    f16 to f32 bf16 f16;
}
