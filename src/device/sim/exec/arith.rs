//! Integers, bits, moves.

use super::{map1, map2, map3};
use crate::device::ptx::Type;
use crate::device::ptx::code::{Half, Int1, Int2, Logic, Space};
use crate::device::sim::decode::Ins;
use crate::device::sim::memory::SHARED_WINDOW;
use crate::device::sim::warp::{Warp, extend};

/// The lower 16 bits as a number with a sign.
fn s16(x: u32) -> i32 {
    i32::from(x as u16 as i16)
}

/// Whether `ty` has 64 bits.
fn wide(ty: Type) -> bool {
    ty.bits() == 64
}

#[inline(always)]
pub fn mov(w: &mut Warp, ins: &Ins, m: u32, ty: Type) {
    match ty {
        Type::Pred => w.set_pred(ins.o[0], m, w.preds[usize::from(ins.o[1])]),
        _ if wide(ty) => map1(w, ins, m, |a: u64| a),
        _ => map1(w, ins, m, |a: u32| a),
    }
}

#[inline(always)]
pub fn int2(w: &mut Warp, ins: &Ins, m: u32, op: Int2, ty: Type) {
    use Int2::*;
    if ty.bits() == 16 {
        return short(w, ins, m, op, ty);
    }
    match (op, wide(ty), ty.signed()) {
        (Add, false, _) => map2(w, ins, m, u32::wrapping_add),
        (Sub, false, _) => map2(w, ins, m, u32::wrapping_sub),
        (And, false, _) => map2(w, ins, m, |a: u32, b: u32| a & b),
        (Or, false, _) => map2(w, ins, m, |a: u32, b: u32| a | b),
        (Xor, false, _) => map2(w, ins, m, |a: u32, b: u32| a ^ b),
        // A shift by more than there are bits leaves nothing.
        (Shl, false, _) => map2(w, ins, m, |a: u32, b: u32| if b < 32 { a << (b & 31) } else { 0 }),
        (Shr, false, false) => map2(w, ins, m, |a: u32, b: u32| if b < 32 { a >> (b & 31) } else { 0 }),
        (Shr, false, true) => map2(w, ins, m, |a: i32, b: u32| a >> b.min(31)),
        (Min, false, false) => map2(w, ins, m, |a: u32, b: u32| a.min(b)),
        (Max, false, false) => map2(w, ins, m, |a: u32, b: u32| a.max(b)),
        (Min, false, true) => map2(w, ins, m, |a: i32, b: i32| a.min(b)),
        (Max, false, true) => map2(w, ins, m, |a: i32, b: i32| a.max(b)),
        (Add, true, _) => map2(w, ins, m, u64::wrapping_add),
        (Sub, true, _) => map2(w, ins, m, u64::wrapping_sub),
        (Shl, true, _) => map2(w, ins, m, |a: u64, b: u32| if b < 64 { a << (b & 63) } else { 0 }),
        _ => seldom(w, ins, m, op, ty),
    }
}

#[inline(never)]
fn seldom(w: &mut Warp, ins: &Ins, m: u32, op: Int2, ty: Type) {
    use Int2::*;
    match (op, wide(ty), ty.signed()) {
        // What a GPU gives for a division by 0 the ISA does not say; all ones, and the number itself, here.
        (Div, false, false) => map2(w, ins, m, |a: u32, b: u32| a.checked_div(b).unwrap_or(!0)),
        (Rem, false, false) => map2(w, ins, m, |a: u32, b: u32| a.checked_rem(b).unwrap_or(a)),
        (Div, false, true) => map2(w, ins, m, |a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) }),
        (Rem, false, true) => map2(w, ins, m, |a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) }),
        (And, true, _) => map2(w, ins, m, |a: u64, b: u64| a & b),
        (Or, true, _) => map2(w, ins, m, |a: u64, b: u64| a | b),
        (Xor, true, _) => map2(w, ins, m, |a: u64, b: u64| a ^ b),
        (Shr, true, false) => map2(w, ins, m, |a: u64, b: u32| if b < 64 { a >> (b & 63) } else { 0 }),
        (Shr, true, true) => map2(w, ins, m, |a: i64, b: u32| a >> b.min(63)),
        (Min, true, false) => map2(w, ins, m, |a: u64, b: u64| a.min(b)),
        (Max, true, false) => map2(w, ins, m, |a: u64, b: u64| a.max(b)),
        (Min, true, true) => map2(w, ins, m, |a: i64, b: i64| a.min(b)),
        (Max, true, true) => map2(w, ins, m, |a: i64, b: i64| a.max(b)),
        (Div, true, false) => map2(w, ins, m, |a: u64, b: u64| a.checked_div(b).unwrap_or(!0)),
        (Rem, true, false) => map2(w, ins, m, |a: u64, b: u64| a.checked_rem(b).unwrap_or(a)),
        (Div, true, true) => map2(w, ins, m, |a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) }),
        (Rem, true, true) => map2(w, ins, m, |a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) }),
        _ => unreachable!("{op:?} of {ty:?} is done above"),
    }
}

/// 16-bit numbers: worked out in 32 bits, of which the lower half is kept.
#[inline(never)]
fn short(w: &mut Warp, ins: &Ins, m: u32, op: Int2, ty: Type) {
    let signed = ty.signed();
    map2(w, ins, m, |a: u32, b: u32| {
        let (x, y) = if signed { (s16(a), s16(b)) } else { ((a & 0xffff) as i32, (b & 0xffff) as i32) };
        let d = match op {
            Int2::Add => x + y,
            Int2::Sub => x - y,
            Int2::Mul => x.wrapping_mul(y),
            Int2::Div if y == 0 => -1,
            Int2::Div => x / y,
            Int2::Rem if y == 0 => x,
            Int2::Rem => x % y,
            Int2::Min => x.min(y),
            Int2::Max => x.max(y),
            Int2::And => x & y,
            Int2::Or => x | y,
            Int2::Xor => x ^ y,
            // The count of a shift is a 32-bit number.
            Int2::Shl => x << b.min(16),
            Int2::Shr => x >> b.min(16),
        };
        d as u32 & 0xffff
    });
}

/// `d = f(leading zeros of a)`, of its complement where it is negative.
fn map_bits(w: &mut Warp, ins: &Ins, m: u32, ty: Type, f: impl Fn(u32) -> u32) {
    match ty {
        Type::S64 => map1(w, ins, m, |a: i64| f((a ^ (a >> 63)).leading_zeros())),
        Type::U64 => map1(w, ins, m, |a: u64| f(a.leading_zeros())),
        Type::S32 => map1(w, ins, m, |a: i32| f((a ^ (a >> 31)).leading_zeros())),
        _ => map1(w, ins, m, |a: u32| f(a.leading_zeros())),
    }
}

pub fn int1(w: &mut Warp, ins: &Ins, m: u32, op: Int1, ty: Type) {
    match (op, ty.bits()) {
        (Int1::Not, 64) => map1(w, ins, m, |a: u64| !a),
        (Int1::Neg, 64) => map1(w, ins, m, |a: u64| a.wrapping_neg()),
        (Int1::Abs, 64) => map1(w, ins, m, |a: i64| a.wrapping_abs()),
        (Int1::Brev, 64) => map1(w, ins, m, |a: u64| a.reverse_bits()),
        (Int1::Bfind | Int1::Shiftamt, _) => map_bits(w, ins, m, ty, |zeros| match zeros {
            // The place of the highest bit that differs from the sign, or how far it is to be shifted to be the highest.
            zeros if zeros == ty.bits() => !0,
            zeros if op == Int1::Bfind => ty.bits() - 1 - zeros,
            zeros => zeros,
        }),
        (Int1::Clz, 64) => map1(w, ins, m, |a: u64| a.leading_zeros()),
        (Int1::Popc, 64) => map1(w, ins, m, |a: u64| a.count_ones()),
        (Int1::Not, 16) => map1(w, ins, m, |a: u32| !a & 0xffff),
        (Int1::Neg, 16) => map1(w, ins, m, |a: u32| a.wrapping_neg() & 0xffff),
        (Int1::Abs, 16) => map1(w, ins, m, |a: u32| s16(a).unsigned_abs()),
        (Int1::Not, _) => map1(w, ins, m, |a: u32| !a),
        (Int1::Neg, _) => map1(w, ins, m, |a: u32| a.wrapping_neg()),
        (Int1::Abs, _) => map1(w, ins, m, |a: i32| a.wrapping_abs()),
        (Int1::Brev, _) => map1(w, ins, m, |a: u32| a.reverse_bits()),
        (Int1::Clz, _) => map1(w, ins, m, |a: u32| a.leading_zeros()),
        (Int1::Popc, _) => map1(w, ins, m, |a: u32| a.count_ones()),
    }
}

#[inline(always)]
pub fn mul(w: &mut Warp, ins: &Ins, m: u32, half: Half, ty: Type) {
    match (half, ty) {
        (Half::Lo, Type::U32 | Type::S32) => map2(w, ins, m, u32::wrapping_mul),
        (Half::Wide, Type::U32) => map2(w, ins, m, |a: u32, b: u32| u64::from(a) * u64::from(b)),
        (Half::Wide, Type::S32) => map2(w, ins, m, |a: i32, b: i32| i64::from(a) * i64::from(b)),
        _ => mul_seldom(w, ins, m, half, ty),
    }
}

#[inline(never)]
fn mul_seldom(w: &mut Warp, ins: &Ins, m: u32, half: Half, ty: Type) {
    match (half, ty) {
        (Half::Wide, Type::S16) => map2(w, ins, m, |a: u32, b: u32| s16(a) * s16(b)),
        (Half::Wide, _) => map2(w, ins, m, |a: u32, b: u32| (a & 0xffff) * (b & 0xffff)),
        _ if wide(ty) => map2(w, ins, m, |a: u64, b: u64| product(half, ty, a, b) as u64),
        _ => map2(w, ins, m, |a: u32, b: u32| product(half, ty, a.into(), b.into()) as u32),
    }
}

#[inline(always)]
pub fn mad(w: &mut Warp, ins: &Ins, m: u32, half: Half, ty: Type) {
    match (half, ty) {
        (Half::Lo, Type::U32 | Type::S32) => {
            map3(w, ins, m, |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c));
        }
        (Half::Wide, Type::U32) => {
            map3(w, ins, m, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
        }
        (Half::Wide, Type::S32) => {
            map3(w, ins, m, |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
        }
        _ => mad_seldom(w, ins, m, half, ty),
    }
}

#[inline(never)]
fn mad_seldom(w: &mut Warp, ins: &Ins, m: u32, half: Half, ty: Type) {
    match (half, ty) {
        (Half::Wide, Type::S16) => map3(w, ins, m, |a: u32, b: u32, c: i32| (s16(a) * s16(b)).wrapping_add(c)),
        (Half::Wide, _) => {
            map3(w, ins, m, |a: u32, b: u32, c: u32| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c));
        }
        _ if wide(ty) => {
            map3(w, ins, m, |a: u64, b: u64, c: u64| (product(half, ty, a, b) as u64).wrapping_add(c));
        }
        _ => map3(w, ins, m, |a: u32, b: u32, c: u32| {
            let sum = (product(half, ty, a.into(), b.into()) as u32).wrapping_add(c);
            if ty.bits() == 16 { sum & 0xffff } else { sum }
        }),
    }
}

/// The lower or upper half of `a · b`.
fn product(half: Half, ty: Type, a: u64, b: u64) -> u128 {
    let bits = ty.bits();
    let wide = |x: u64| if ty.signed() { extend(x, ty) as i64 as i128 } else { i128::from(extend(x, ty)) };
    // The lower 128 bits are those of the product without signs, too.
    let product = wide(a).wrapping_mul(wide(b)) as u128;
    let half = if half == Half::Hi { product >> bits } else { product };
    half & ((1 << bits) - 1)
}

/// Any function of three bits: bit `4a + 2b + c` of the table.
pub fn lop3(w: &mut Warp, ins: &Ins, m: u32) {
    let table = ins.imm as u32;
    map3(w, ins, m, |a: u32, b: u32, c: u32| {
        let pick = |i: u32, x: u32, bit: u32| if i & bit != 0 { x } else { !x };
        (0..8).filter(|i| table >> i & 1 == 1).fold(0, |d, i| d | (pick(i, a, 4) & pick(i, b, 2) & pick(i, c, 1)))
    });
}

/// Each nibble of `c` picks one of the eight bytes of `b:a`, or with its upper bit that byte's sign, eight times.
pub fn prmt(w: &mut Warp, ins: &Ins, m: u32) {
    map3(w, ins, m, |a: u32, b: u32, c: u32| {
        let bytes = u64::from(b) << 32 | u64::from(a);
        (0..4).fold(0, |d, i| {
            let nibble = c >> (4 * i) & 0xf;
            let byte = (bytes >> (8 * (nibble & 7))) as u8;
            let byte = if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
            d | u32::from(byte) << (8 * i)
        })
    });
}

/// The upper word of `b:a` shifted left, or the lower one of it shifted right.
pub fn shf(w: &mut Warp, ins: &Ins, m: u32, left: bool, clamp: bool) {
    map3(w, ins, m, |a: u32, b: u32, c: u32| {
        let n = if clamp { c.min(32) } else { c & 31 };
        let both = u64::from(b) << 32 | u64::from(a);
        if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
    });
}

/// The field of `c` bits from bit `b` on, continued by its own or the number's last bit where it has a sign.
pub fn bfe(w: &mut Warp, ins: &Ins, m: u32, ty: Type) {
    let field = |a: u64, from: u32, len: u32| {
        let (from, len, bits) = (from & 0xff, len & 0xff, ty.bits());
        let a = i128::from(extend(a, ty) as i64);
        let a = if ty.signed() { a } else { a & ((1 << bits) - 1) };
        let len = len.min(100);
        let value = a >> from.min(100) & ((1 << len) - 1);
        let last = (from + len).saturating_sub(1).min(bits - 1);
        let fill = ty.signed() && len > 0 && a >> last & 1 == 1;
        (if fill { value | -1 << len } else { value }) as u64
    };
    if wide(ty) {
        map3(w, ins, m, field);
    } else {
        map3(w, ins, m, |a: u32, b: u32, c: u32| field(a.into(), b, c) as u32);
    }
}

/// `b` with the `d` lowest bits of `a` put in at bit `c`.
pub fn bfi(w: &mut Warp, ins: &Ins, m: u32, ty: Type) {
    let (from, len) = (*w.get::<u32>(ins.o[3]), *w.get::<u32>(ins.o[4]));
    let a = w.get_either(ins.o[1], ins.is_wide(1));
    let b = w.get_either(ins.o[2], ins.is_wide(2));
    let mut d = [0; 32];
    for i in 0..32 {
        let (from, len) = ((from[i] & 0xff).min(64), (len[i] & 0xff).min(64));
        let field = ((1u128 << len) - 1) << from;
        d[i] = ((u128::from(b[i]) & !field) | (u128::from(a[i]) << from & field)) as u64;
    }
    w.set_either(ins.o[0], wide(ty), m, &d);
}

#[inline(always)]
pub fn selp(w: &mut Warp, ins: &Ins, m: u32, ty: Type) {
    let flip = if ins.not { !0 } else { 0 };
    let p = w.preds[usize::from(ins.o[3])] ^ flip;
    if wide(ty) {
        pick::<u64>(w, ins, m, p);
    } else {
        pick::<u32>(w, ins, m, p);
    }
}

/// `a` in the lanes of `p`, else `b`.
#[inline(always)]
fn pick<T: crate::device::sim::warp::Lane>(w: &mut Warp, ins: &Ins, m: u32, p: u32) {
    let (a, b) = (w.get::<T>(ins.o[1]), w.get::<T>(ins.o[2]));
    let mut d = *b;
    for i in 0..32 {
        if p >> i & 1 == 1 {
            d[i] = a[i];
        }
    }
    w.set(ins.o[0], m, &d);
}

pub fn slct(w: &mut Warp, ins: &Ins, m: u32, ty: Type, by: Type) {
    let c = *w.get::<u32>(ins.o[3]);
    let mut p = 0;
    for (i, c) in c.iter().enumerate() {
        let positive = if by == Type::F32 { f32::from_bits(*c) >= 0.0 } else { *c as i32 >= 0 };
        p |= u32::from(positive) << i;
    }
    if wide(ty) {
        pick::<u64>(w, ins, m, p);
    } else {
        pick::<u32>(w, ins, m, p);
    }
}

/// Parts to a whole, the first one lowest.
pub fn pack(w: &mut Warp, ins: &Ins, m: u32, n: u8, bits: u8) {
    let part = u32::from(bits / n);
    let mut d = [0u64; 32];
    for k in 0..usize::from(n) {
        let a = w.get::<u32>(ins.o[1 + k]);
        for i in 0..32 {
            d[i] |= (u64::from(a[i]) & ((1 << part) - 1)) << (part * k as u32);
        }
    }
    w.set_either(ins.o[0], bits == 64, m, &d);
}

/// A whole to its parts.
pub fn unpack(w: &mut Warp, ins: &Ins, m: u32, n: u8, bits: u8) {
    let part = u32::from(bits / n);
    let a = w.get_either(ins.o[usize::from(n)], bits == 64);
    for k in 0..usize::from(n) {
        let d = a.map(|a| (a >> (part * k as u32) & ((1 << part) - 1)) as u32);
        w.set(ins.o[k], m, &d);
    }
}

/// Shared memory has a window of generic addresses; those of global memory are generic as they are.
pub fn cvta(w: &mut Warp, ins: &Ins, m: u32, space: Space, to: bool) {
    let window = if space == Space::Shared { SHARED_WINDOW } else { 0 };
    let window = if to { window.wrapping_neg() } else { window };
    let d = w.get_either(ins.o[1], ins.is_wide(1)).map(|a| a.wrapping_add(window));
    w.set_either(ins.o[0], ins.is_wide(0), m, &d);
}

pub fn pred2(w: &mut Warp, ins: &Ins, m: u32, logic: Logic) {
    let (a, b) = (w.preds[usize::from(ins.o[1])], w.preds[usize::from(ins.o[2])]);
    w.set_pred(ins.o[0], m, combine(logic, a, b));
}

/// Truth values combined, a bit a lane.
pub fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}
