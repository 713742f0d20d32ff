//! Floating-point arithmetic and comparisons. f32 and f64 are exactly IEEE 754; halves are rounded once from the exact
//! result; the `approx` functions are the nearest number or close to it, always within the error that the ISA allows.

use super::{map1, map2, map3};
use crate::device::ptx::Type;
use crate::device::ptx::code::{Cmp, Float1, Float2, FloatMode, Logic, Round};
use crate::device::sim::decode::{Ins, SINK};
use crate::device::sim::exec::arith::combine;
use crate::device::sim::number::{exp2, fma_to_odd, narrow, widen};
use crate::device::sim::warp::{Lane, Warp};

/// A float of its own type.
trait Float: Lane + PartialOrd {
    fn flush(self) -> Self;
    fn clamp01(self) -> Self;
    fn nan() -> Self;
    /// The bits of `a` and those of `b`, anded or ored.
    fn mix(self, b: Self, and: bool) -> Self;
}

macro_rules! float {
    ($($ty:ident $bits:literal)*) => { $(impl Float for $ty {
        #[inline(always)]
        fn flush(self) -> Self {
            if self.abs() < $ty::MIN_POSITIVE { (0.0 as $ty).copysign(self) } else { self }
        }
        #[inline(always)]
        fn clamp01(self) -> Self {
            // NaN becomes 0.
            if self > 0.0 { if self < 1.0 { self } else { 1.0 } } else { 0.0 }
        }
        #[inline(always)]
        fn nan() -> Self {
            $ty::from_bits($bits)
        }
        #[inline(always)]
        fn mix(self, b: Self, and: bool) -> Self {
            let (a, b) = (self.to_bits(), b.to_bits());
            $ty::from_bits(if and { a & b } else { a | b })
        }
    })* };
}
float!(f32 0x7fff_ffff f64 0x7fff_ffff_ffff_ffff);

/// An operand as `.ftz` wants it.
#[inline(always)]
fn flush<T: Float>(x: T, mode: FloatMode) -> T {
    if mode.ftz { x.flush() } else { x }
}

/// A result as the modifiers want it.
#[inline(always)]
fn finish<T: Float>(x: T, mode: FloatMode) -> T {
    let x = if mode.ftz { x.flush() } else { x };
    if mode.sat { x.clamp01() } else { x }
}

/// The smaller or larger number. NaN only where both are, or with `nan` where one is; −0 is less than +0.
#[inline(always)]
fn extreme<T: Float>(a: T, b: T, max: bool, nan: bool) -> T {
    #[allow(clippy::eq_op)]
    let (a_nan, b_nan) = (a != a, b != b);
    if a_nan || b_nan {
        if nan || (a_nan && b_nan) {
            return T::nan();
        }
        return if a_nan { b } else { a };
    }
    if a == b {
        return a.mix(b, max);
    }
    if (a > b) == max { a } else { b }
}

/// The smaller or larger of two f32, as `min.f32` and `max.f32` give it.
pub fn min_max(a: f32, b: f32, max: bool) -> f32 {
    extreme(a, b, max, false)
}

#[inline(always)]
pub fn float2(w: &mut Warp, ins: &Ins, m: u32, op: Float2, ty: Type, mode: FloatMode) {
    if ty != Type::F32 || mode != FloatMode::PLAIN {
        return float2_seldom(w, ins, m, op, ty, mode);
    }
    match op {
        Float2::Add => map2(w, ins, m, |a: f32, b: f32| a + b),
        Float2::Sub => map2(w, ins, m, |a: f32, b: f32| a - b),
        Float2::Mul => map2(w, ins, m, |a: f32, b: f32| a * b),
        Float2::Div => map2(w, ins, m, |a: f32, b: f32| a / b),
        Float2::Min => map2(w, ins, m, |a: f32, b: f32| extreme(a, b, false, false)),
        Float2::Max => map2(w, ins, m, |a: f32, b: f32| extreme(a, b, true, false)),
        Float2::Copysign => map2(w, ins, m, |a: f32, b: f32| b.copysign(a)),
    }
}

#[inline(never)]
fn float2_seldom(w: &mut Warp, ins: &Ins, m: u32, op: Float2, ty: Type, mode: FloatMode) {
    match ty {
        Type::F32 => map2(w, ins, m, |a: f32, b: f32| {
            let (a, b) = (flush(a, mode), flush(b, mode));
            let d = match op {
                Float2::Add if mode.round != Round::Rn => directed(a, 1.0, b, mode.round),
                Float2::Sub if mode.round != Round::Rn => directed(a, 1.0, -b, mode.round),
                // Adding −0 changes no product.
                Float2::Mul if mode.round != Round::Rn => directed(a, b, -0.0, mode.round),
                Float2::Add => a + b,
                Float2::Sub => a - b,
                Float2::Mul => a * b,
                Float2::Div => a / b,
                Float2::Min | Float2::Max => extreme(a, b, op == Float2::Max, mode.nan),
                Float2::Copysign => b.copysign(a),
            };
            finish(d, mode)
        }),
        Type::F64 => map2(w, ins, m, |a: f64, b: f64| match op {
            Float2::Add => a + b,
            Float2::Sub => a - b,
            Float2::Mul => a * b,
            Float2::Div => a / b,
            Float2::Min | Float2::Max => extreme(a, b, op == Float2::Max, mode.nan),
            Float2::Copysign => b.copysign(a),
        }),
        _ => map2(w, ins, m, |a: u32, b: u32| {
            halves(ty, mode, [a, b, 0], |[a, b, _]| match op {
                Float2::Add => fma_to_odd(a, 1.0, b),
                Float2::Sub => fma_to_odd(a, 1.0, -b),
                // Adding −0 changes no product.
                Float2::Mul => fma_to_odd(a, b, -0.0),
                Float2::Div => a / b,
                Float2::Min | Float2::Max => extreme(a, b, op == Float2::Max, mode.nan),
                Float2::Copysign => b.copysign(a),
            })
        }),
    }
}

#[inline(always)]
pub fn fma(w: &mut Warp, ins: &Ins, m: u32, ty: Type, mode: FloatMode) {
    if ty == Type::F32 && mode == FloatMode::PLAIN {
        map3(w, ins, m, |a: f32, b: f32, c: f32| a.mul_add(b, c));
    } else {
        fma_seldom(w, ins, m, ty, mode);
    }
}

#[inline(never)]
fn fma_seldom(w: &mut Warp, ins: &Ins, m: u32, ty: Type, mode: FloatMode) {
    match ty {
        Type::F32 => map3(w, ins, m, |a: f32, b: f32, c: f32| {
            let [a, b, c] = [a, b, c].map(|x| flush(x, mode));
            let d = if mode.round == Round::Rn { a.mul_add(b, c) } else { directed(a, b, c, mode.round) };
            finish(d, mode)
        }),
        Type::F64 => map3(w, ins, m, |a: f64, b: f64, c: f64| finish(a.mul_add(b, c), mode)),
        _ => map3(w, ins, m, |a: u32, b: u32, c: u32| halves(ty, mode, [a, b, c], |[a, b, c]| fma_to_odd(a, b, c))),
    }
}

/// `a · b + c`, rounded toward 0, down or up.
fn directed(a: f32, b: f32, c: f32, round: Round) -> f32 {
    let [a, b, c] = [a, b, c].map(f64::from);
    let sum = fma_to_odd(a, b, c);
    // What cancels is −0 where all is rounded down.
    let cancels = sum == 0.0 && c != 0.0 && round == Round::Rm;
    f32::from_bits(narrow(if cancels { -0.0 } else { sum }, Type::F32, round) as u32)
}

/// `f` of one half, or of both of a pair; what it gives is rounded to a half.
fn halves(ty: Type, mode: FloatMode, operands: [u32; 3], f: impl Fn([f64; 3]) -> f64) -> u32 {
    let n = ty.bits() / 16;
    // The smallest normal number of an f16; only these have `.ftz`.
    let flush = |x: f64| if mode.ftz && x.abs() < 6.103_515_625e-5 { 0f64.copysign(x) } else { x };
    (0..n).fold(0, |d, i| {
        let x = f(operands.map(|bits| flush(widen(u64::from(bits >> (16 * i) & 0xffff), ty))));
        let x = if mode.sat { x.clamp01() } else { x };
        let x = if mode.relu && x < 0.0 { 0.0 } else { x };
        d | (narrow(flush(x), ty, Round::Rn) as u32) << (16 * i)
    })
}

#[inline(always)]
pub fn float1(w: &mut Warp, ins: &Ins, m: u32, op: Float1, ty: Type, mode: FloatMode) {
    if ty != Type::F32 {
        return float1_seldom(w, ins, m, op, ty, mode);
    }
    match op {
        Float1::Ex2 if mode.ftz => map1(w, ins, m, |a: f32| exp2(a).flush()),
        Float1::Ex2 => map1(w, ins, m, exp2),
        Float1::Rcp => map1(w, ins, m, |a: f32| finish(1.0 / flush(a, mode), mode)),
        Float1::Neg => map1(w, ins, m, |a: f32| -flush(a, mode)),
        Float1::Abs => map1(w, ins, m, |a: f32| flush(a, mode).abs()),
        Float1::Sqrt => map1(w, ins, m, |a: f32| finish(flush(a, mode).sqrt(), mode)),
        Float1::Rsqrt => map1(w, ins, m, |a: f32| finish(1.0 / flush(a, mode).sqrt(), mode)),
        _ => float1_seldom(w, ins, m, op, ty, mode),
    }
}

#[inline(never)]
fn float1_seldom(w: &mut Warp, ins: &Ins, m: u32, op: Float1, ty: Type, mode: FloatMode) {
    match ty {
        // Of f64 and f32 in f64, which is then rounded.
        Type::F64 => map1(w, ins, m, |a: f64| function(op, a)),
        Type::F32 => map1(w, ins, m, |a: f32| finish(function(op, f64::from(flush(a, mode))) as f32, mode)),
        _ => map1(w, ins, m, |a: u32| match op {
            // These touch the sign alone.
            Float1::Neg => a ^ if ty.bits() == 32 { 0x8000_8000 } else { 0x8000 },
            Float1::Abs => a & if ty.bits() == 32 { 0x7fff_7fff } else { 0x7fff },
            _ => halves(ty, mode, [a, 0, 0], |[a, ..]| function(op, a)),
        }),
    }
}

fn function(op: Float1, x: f64) -> f64 {
    match op {
        Float1::Neg => -x,
        Float1::Abs => x.abs(),
        Float1::Sqrt => x.sqrt(),
        Float1::Rcp => 1.0 / x,
        Float1::Rsqrt => 1.0 / x.sqrt(),
        Float1::Ex2 => x.exp2(),
        Float1::Lg2 => x.log2(),
        Float1::Sin => x.sin(),
        Float1::Cos => x.cos(),
        Float1::Tanh => x.tanh(),
    }
}

/// How numbers compare, a bit a lane: less, equal, greater; none where one is NaN.
struct Order {
    less: u32,
    equal: u32,
    greater: u32,
}

#[inline(always)]
fn order<A: Lane, T: PartialOrd>(w: &Warp, ins: &Ins, f: impl Fn(A) -> T) -> Order {
    let (a, b) = (w.get::<A>(ins.o[2]), w.get::<A>(ins.o[3]));
    let mut order = Order { less: 0, equal: 0, greater: 0 };
    for i in 0..32 {
        order.less |= u32::from(f(a[i]) < f(b[i])) << i;
    }
    for i in 0..32 {
        order.equal |= u32::from(f(a[i]) == f(b[i])) << i;
    }
    for i in 0..32 {
        order.greater |= u32::from(f(a[i]) > f(b[i])) << i;
    }
    order
}

#[inline(always)]
pub fn setp(w: &mut Warp, ins: &Ins, m: u32, cmp: Cmp, ty: Type, ftz: bool, logic: Option<Logic>) {
    let order = match ty {
        Type::F32 if ftz => order(w, ins, |a: f32| a.flush()),
        Type::F32 => order(w, ins, |a: f32| a),
        Type::S32 if !matches!(cmp, Cmp::Lo | Cmp::Ls | Cmp::Hi | Cmp::Hs) => order(w, ins, |a: i32| a),
        Type::U32 | Type::B32 | Type::S32 => order(w, ins, |a: u32| a),
        _ => order_seldom(w, ins, ty),
    };
    let Order { less, equal, greater } = order;
    let number = less | equal | greater;
    let result = match cmp {
        Cmp::Eq => equal,
        Cmp::Ne => less | greater,
        Cmp::Lt | Cmp::Lo => less,
        Cmp::Le | Cmp::Ls => less | equal,
        Cmp::Gt | Cmp::Hi => greater,
        Cmp::Ge | Cmp::Hs => greater | equal,
        Cmp::Equ => equal | !number,
        Cmp::Neu => !equal,
        Cmp::Ltu => less | !number,
        Cmp::Leu => !greater,
        Cmp::Gtu => greater | !number,
        Cmp::Geu => !less,
        Cmp::Num => number,
        Cmp::Nan => !number,
    };
    let flip = if ins.not { !0 } else { 0 };
    let with = |result: u32, w: &Warp| match logic {
        Some(logic) => combine(logic, result, w.preds[usize::from(ins.o[4])] ^ flip),
        None => result,
    };
    let (first, second) = (with(result, w), with(!result, w));
    w.set_pred(ins.o[0], m, first);
    if ins.o[1] != SINK {
        w.set_pred(ins.o[1], m, second);
    }
}

#[inline(never)]
fn order_seldom(w: &Warp, ins: &Ins, ty: Type) -> Order {
    match ty {
        Type::U64 | Type::B64 => order(w, ins, |a: u64| a),
        Type::S64 => order(w, ins, |a: i64| a),
        Type::F64 => order(w, ins, |a: f64| a),
        Type::S16 => order(w, ins, |a: u32| a as u16 as i16),
        Type::F16 | Type::Bf16 => order(w, ins, |a: u32| widen(u64::from(a), ty)),
        _ => order(w, ins, |a: u32| a as u16),
    }
}
