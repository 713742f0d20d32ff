//! The number formats of PTX, by their definitions: every conversion rounds an exact value once.

use crate::device::ptx::Type;
use crate::device::ptx::code::Round;
use half::{bf16, f16};

/// A binary format with a sign bit, an exponent and a mantissa, as in IEEE 754.
#[derive(Clone, Copy)]
pub struct Format {
    exponent: u32,
    mantissa: u32,
}

/// Sign, 5 bits of exponent, 10 of mantissa.
pub const F16: Format = Format { exponent: 5, mantissa: 10 };
/// The upper half of an f32.
pub const BF16: Format = Format { exponent: 8, mantissa: 7 };
/// An f32 with 10 bits of mantissa; held in the upper 19 bits of a word.
pub const TF32: Format = Format { exponent: 8, mantissa: 10 };
/// Single precision.
pub const F32: Format = Format { exponent: 8, mantissa: 23 };
/// Double precision.
pub const F64: Format = Format { exponent: 11, mantissa: 52 };

impl Format {
    /// The format of a type that is one float.
    pub fn of(ty: Type) -> Format {
        match ty {
            Type::F16 | Type::F16x2 => F16,
            Type::Bf16 | Type::Bf16x2 => BF16,
            Type::Tf32 => TF32,
            Type::F64 => F64,
            _ => F32,
        }
    }

    fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    fn sign(self, negative: bool) -> u64 {
        u64::from(negative) << (self.exponent + self.mantissa)
    }

    /// The bits of NaN as conversions give it: all ones but for the sign.
    fn nan(self) -> u64 {
        self.sign(true) - 1
    }

    /// The bits of ±`m` · 2^`e`, rounded.
    pub fn round(self, negative: bool, m: u64, e: i32, mode: Round) -> u64 {
        let sign = self.sign(negative);
        if m == 0 {
            return sign;
        }
        let bias = (1 << (self.exponent - 1)) - 1;
        let lowest = 1 - bias - self.mantissa as i32;
        // The last place of the result, as a power of 2.
        let top = 63 - m.leading_zeros() as i32 + e;
        let place = (top - self.mantissa as i32).max(lowest);
        let shift = place - e;
        let kept = if shift <= 0 {
            m << -shift
        } else {
            // In 128 bits, so that all of m can be shifted out.
            let (m, shift) = (u128::from(m), shift.min(100));
            let (kept, rest, half) = ((m >> shift) as u64, m & ((1 << shift) - 1), 1u128 << (shift - 1));
            let up = match mode {
                Round::Rz | Round::Rzi => false,
                Round::Rm | Round::Rmi => negative && rest > 0,
                Round::Rp | Round::Rpi => !negative && rest > 0,
                Round::Rna => rest >= half,
                Round::Rn | Round::Rni => rest > half || (rest == half && kept & 1 == 1),
            };
            kept + u64::from(up)
        };
        // A mantissa with its leading 1 counts as one step of the exponent; a carry makes it two.
        let bits = (((place - lowest) as u64) << self.mantissa) + kept;
        if bits < self.infinity() {
            return sign | bits;
        }
        let away = match mode {
            Round::Rz | Round::Rzi => false,
            Round::Rm | Round::Rmi => negative,
            Round::Rp | Round::Rpi => !negative,
            _ => true,
        };
        sign | (self.infinity() - u64::from(!away))
    }

    /// The bits of `x`, rounded.
    pub fn narrow(self, x: f64, mode: Round) -> u64 {
        if x.is_nan() {
            return self.nan();
        }
        let negative = x.is_sign_negative();
        if x.is_infinite() {
            return self.sign(negative) | self.infinity();
        }
        let bits = x.to_bits();
        let (exponent, mantissa) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
        let (m, e) = if exponent == 0 { (mantissa, -1074) } else { (mantissa | 1 << 52, exponent - 1075) };
        self.round(negative, m, e, mode)
    }
}

/// The value of a float of type `ty`, exactly.
pub fn widen(bits: u64, ty: Type) -> f64 {
    match ty {
        Type::F16 | Type::F16x2 => f64::from(f16::from_bits(bits as u16)),
        Type::Bf16 | Type::Bf16x2 => f64::from(bf16::from_bits(bits as u16)),
        Type::F64 => f64::from_bits(bits),
        _ => f64::from(f32::from_bits(bits as u32)),
    }
}

/// The bits of `x` as a float of type `ty`, in the place where a register holds them.
pub fn narrow(x: f64, ty: Type, mode: Round) -> u64 {
    let bits = Format::of(ty).narrow(x, mode);
    // The unused bits of a tf32 are the low ones of its f32.
    if ty == Type::Tf32 { bits << 13 } else { bits }
}

/// `a · b + c` for halves, such that rounding it once more to a half is right: the product is exact, and a sum that is not
/// is rounded to odd.
pub fn fma_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let p = a * b;
    let s = p + c;
    // What the sum lost (Knuth's two-sum).
    let back = s - p;
    let lost = (p - (s - back)) + (c - back);
    if lost == 0.0 || !s.is_finite() || s.to_bits() & 1 == 1 {
        return s;
    }
    let outward = (lost > 0.0) == (s > 0.0);
    f64::from_bits(if outward { s.to_bits() + 1 } else { s.to_bits() - 1 })
}

/// `x` rounded to an integer.
pub fn integral(x: f64, mode: Round) -> f64 {
    match mode {
        Round::Rzi | Round::Rz => x.trunc(),
        Round::Rmi | Round::Rm => x.floor(),
        Round::Rpi | Round::Rp => x.ceil(),
        _ => x.round_ties_even(),
    }
}

/// The integer of type `to` nearest to `x` in the given direction, at most its largest and at least its smallest.
pub fn to_integer(x: f64, from: Type, to: Type, mode: Round) -> u64 {
    if x.is_nan() {
        return if from == Type::F64 || to.bits() == 64 { 1 << (to.bits() - 1) } else { 0 };
    }
    let x = integral(x, mode);
    let bits = to.bits();
    // `as` clamps.
    if to.signed() {
        let limit = i64::MAX >> (64 - bits);
        (x as i64).clamp(-limit - 1, limit) as u64
    } else {
        (x as u64).min(u64::MAX >> (64 - bits))
    }
}

/// 2^x with a relative error below 2⁻²², the same bits on every instruction set. Results below 2⁻¹²⁶ are subnormal.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    // Out of these bounds the result is 0 or infinity anyhow.
    let y = if x > 130.0 { 130.0 } else { x };
    let y = if y < -160.0 { -160.0 } else { y };
    // Adding 1.5 · 2²³ leaves the nearest integer in the low bits.
    let magic = 12_582_912.0f32;
    let shifted = y + magic;
    let n = shifted.to_bits().wrapping_sub(magic.to_bits()) as i32;
    let f = y - (shifted - magic);
    // Taylor's series of 2^f, |f| ≤ ½; the first term left out is 5e-9.
    let p = 1.525_273_4e-5;
    let p = p * f + 1.540_353e-4;
    let p = p * f + 1.333_355_8e-3;
    let p = p * f + 9.618_129e-3;
    let p = p * f + 5.550_411e-2;
    let p = p * f + 2.402_265e-1;
    let p = p * f + std::f32::consts::LN_2;
    let p = p * f + 1.0;
    // 2ⁿ in two factors, since it need not be a normal number itself.
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let result = p * scale(half) * scale(n - half);
    if x.is_nan() { x } else { result }
}
