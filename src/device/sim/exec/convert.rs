//! `cvt`: from one number format to another.

use super::map2;
use crate::device::ptx::Type;
use crate::device::ptx::code::{Cvt, Round};
use crate::device::sim::decode::Ins;
use crate::device::sim::number::{Format, integral, narrow, to_integer, widen};
use crate::device::sim::warp::{Warp, extend, lanes};
use half::{bf16, f16};

pub fn cvt(w: &mut Warp, ins: &Ins, m: u32, cvt: Cvt) {
    let wide = ins.is_wide(0);
    let a = w.get_either(ins.o[1], ins.is_wide(1));
    // The common ones, without a detour.
    let d = match (cvt.to, cvt.from) {
        (Type::F32, Type::F16) if !cvt.sat => lanes(|i| u64::from(f16::from_bits(a[i] as u16).to_f32().to_bits())),
        (Type::F32, Type::Bf16) => lanes(|i| a[i] << 16 & 0xffff_ffff),
        (Type::F32, Type::S32) if cvt.round == Round::Rn => lanes(|i| u64::from((a[i] as i32 as f32).to_bits())),
        (Type::F32, Type::U32) if cvt.round == Round::Rn => lanes(|i| u64::from((a[i] as u32 as f32).to_bits())),
        (Type::U64, Type::U32) => a,
        _ => lanes(|i| one(a[i], cvt, wide)),
    };
    w.set_either(ins.o[0], wide, m, &d);
}

/// Two f32 into a pair of halves, the first into the upper one.
pub fn pair(w: &mut Warp, ins: &Ins, m: u32, cvt: Cvt) {
    let half = if cvt.to == Type::F16x2 { Type::F16 } else { Type::Bf16 };
    if cvt.to == Type::Bf16x2 && cvt.round == Round::Rn && !cvt.relu {
        return map2(w, ins, m, |a: f32, b: f32| nearest_bf16(a) << 16 | nearest_bf16(b));
    }
    let to = Cvt { to: half, from: Type::F32, ..cvt };
    map2(w, ins, m, |a: u32, b: u32| (one(a.into(), to, false) << 16 | one(b.into(), to, false)) as u32);
}

/// The bits of the nearest bf16; NaN is 0x7fff.
#[inline(always)]
fn nearest_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits << 1 > 0xff00_0000 { u32::from(bf16::NAN.to_bits() | 0x3f) } else { rounded }
}

/// One conversion, by the definitions. `wide`: the result's register has 64 bits, which an integer fills.
pub fn one(a: u64, cvt: Cvt, wide: bool) -> u64 {
    let Cvt { to, from, round, ftz, sat, relu } = cvt;
    let unsaturated = match (from.float(), to.float()) {
        (false, false) => {
            let value = extend(a, from);
            let value = if sat { clamp(value, from, to) } else { value };
            extend(value, to)
        }
        (false, true) => {
            let negative = from.signed() && (extend(a, from) as i64) < 0;
            let size = if negative { (extend(a, from) as i64).unsigned_abs() } else { extend(a, from) };
            Format::of(to).round(negative, size, 0, round)
        }
        (true, false) => {
            let x = flushed(widen(a, from), ftz && from == Type::F32);
            extend(to_integer(x, from, to, round), to)
        }
        (true, true) => {
            let x = flushed(widen(a, from), ftz && from == Type::F32);
            let to_whole = matches!(round, Round::Rni | Round::Rzi | Round::Rmi | Round::Rpi);
            let x = if to_whole { integral(x, round) } else { x };
            let x = if sat && (x.is_nan() || x < 0.0) { 0.0 } else { x };
            let x = if sat && x > 1.0 { 1.0 } else { x };
            let x = if relu && x < 0.0 { 0.0 } else { x };
            let bits = narrow(x, to, round);
            if ftz && to == Type::F32 && bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
        }
    };
    // A result that fills no more than its own type, or with its sign the whole register.
    if to.float() || wide {
        unsaturated
    } else if to.signed() || to.bits() == 32 {
        unsaturated & 0xffff_ffff
    } else {
        extend(unsaturated, to)
    }
}

fn flushed(x: f64, ftz: bool) -> f64 {
    if ftz && x.abs() < f64::from(f32::MIN_POSITIVE) { 0f64.copysign(x) } else { x }
}

/// The number of type `from`, extended to 64 bits, that lies nearest in the range of `to`.
fn clamp(value: u64, from: Type, to: Type) -> u64 {
    let value = if from.signed() { i128::from(value as i64) } else { i128::from(value) };
    let (low, high) = if to.signed() {
        (-(1i128 << (to.bits() - 1)), (1i128 << (to.bits() - 1)) - 1)
    } else {
        (0, (1i128 << to.bits()) - 1)
    };
    value.clamp(low, high) as u64
}
