//! Single instructions against scalar definitions, written here a second time from the manual.

use super::rig::{Rig, module};
use half::{bf16, f16};
use kiln::cpu::Simd;
use kiln::device::Grid;
use std::cmp::Ordering;

/// Runs `body` in 32 lanes with %a0, %a1, %a2 loaded from `operands` (32-bit words, or 64-bit ones where `wide`), and returns
/// what is in %d, or in %e where `wide_out`.
pub struct Lanes {
    pub wide: bool,
    pub wide_out: bool,
}

impl Lanes {
    pub fn run(&self, body: &str, operands: [&[u64]; 3]) -> Vec<u64> {
        let n = operands[0].len();
        assert_eq!(n % 32, 0);
        let ty = if self.wide { "b64" } else { "b32" };
        let size = if self.wide { 8 } else { 4 };
        let (out, bytes) = if self.wide_out { ("st.global.b64 [%y], %e;", 8) } else { ("st.global.b32 [%y], %d;", 4) };
        let text = format!(
            "\
.version 7.8
.target sm_90
.address_size 64
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 y) {{
.reg .{ty} %a<3>; .reg .b32 %d, %r<4>, %i, %t, %lane; .reg .b64 %e, %p<3>, %y; .reg .pred %q, %s; .reg .b16 %h<4>;
.reg .f32 %f<4>; .reg .f64 %g<4>;
mov.u32 %t, %tid.x; mov.u32 %i, %ctaid.x; mad.lo.u32 %i, %i, 32, %t; mov.u32 %lane, %laneid;
ld.param.u64 %p0, [a]; ld.param.u64 %p1, [b]; ld.param.u64 %p2, [c]; ld.param.u64 %y, [y];
mad.wide.u32 %p0, %i, {size}, %p0; mad.wide.u32 %p1, %i, {size}, %p1; mad.wide.u32 %p2, %i, {size}, %p2;
ld.global.{ty} %a0, [%p0]; ld.global.{ty} %a1, [%p1]; ld.global.{ty} %a2, [%p2];
mad.wide.u32 %y, %i, {bytes}, %y;
{body}
{out}
ret;
}}
"
        );
        let module = module("k.ptx", &text, &[]);
        let mut results = Vec::new();
        for simd in Simd::available() {
            let rig = Rig::with(true, 1, simd);
            let pointers = operands.map(|values| {
                if self.wide { rig.put(values) } else { rig.put(&values.iter().map(|v| *v as u32).collect::<Vec<_>>()) }
            });
            let y = rig.put(&vec![0u64; n]);
            let [a, b, c] = pointers;
            rig.run(&module, Grid::new(n as u32 / 32, 32), &[a.into(), b.into(), c.into(), y.into()]);
            let result: Vec<u64> =
                if self.wide_out { rig.get(y, n) } else { rig.get::<u32>(y, n).into_iter().map(u64::from).collect() };
            results.push(result);
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{body}: levels differ");
        results.remove(0)
    }
}

pub const NARROW: Lanes = Lanes { wide: false, wide_out: false };
const WIDEN: Lanes = Lanes { wide: false, wide_out: true };
const WIDE: Lanes = Lanes { wide: true, wide_out: true };
const SHORTEN: Lanes = Lanes { wide: true, wide_out: false };

/// Numbers of `bits` bits: the ends of the range, and what lies between, mixed differently for each `seed`.
fn mixed(bits: u32, seed: u64) -> Vec<u64> {
    let mask = u64::MAX >> (64 - bits);
    let special = [0, 1, 2, 31, 32, 33, 63, 64, mask, mask - 1, mask / 2, mask / 2 + 1, 0x5555_5555_5555_5555 & mask];
    let mut state = seed + 1;
    (0..256usize)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = state >> 20 ^ state << 31;
            let few = i.wrapping_mul(7 + 2 * seed as usize) / 3;
            if i % 3 == 0 { random & mask } else { special[few % special.len()] }
        })
        .collect()
}

/// Checks `body` against `f` of the three operands.
fn check(lanes: &Lanes, bits: u32, body: &str, f: impl Fn(u64, u64, u64) -> u64) {
    let (a, b, c) = (mixed(bits, 1), mixed(bits, 2), mixed(bits, 3));
    let found = lanes.run(body, [&a, &b, &c]);
    for i in 0..a.len() {
        let expected = f(a[i], b[i], c[i]);
        assert_eq!(
            found[i], expected,
            "{body} of {:#x}, {:#x}, {:#x}: {:#x} for {expected:#x}",
            a[i], b[i], c[i], found[i]
        );
    }
}

#[test]
fn integers_of_32_bits() {
    let u = |x: u64| x as u32;
    let s = |x: u64| x as u32 as i32;
    let w = |x: i32| u64::from(x as u32);
    let check = |body: &str, f: &dyn Fn(u64, u64, u64) -> u64| check(&NARROW, 32, body, f);
    check("add.u32 %d, %a0, %a1;", &|a, b, _| u(a).wrapping_add(u(b)).into());
    check("sub.s32 %d, %a0, %a1;", &|a, b, _| u(a).wrapping_sub(u(b)).into());
    check("mul.lo.u32 %d, %a0, %a1;", &|a, b, _| (a * b) & 0xffff_ffff);
    check("mul.hi.u32 %d, %a0, %a1;", &|a, b, _| (a * b) >> 32);
    check("mul.hi.s32 %d, %a0, %a1;", &|a, b, _| ((i64::from(s(a)) * i64::from(s(b))) >> 32) as u64 & 0xffff_ffff);
    check("mad.lo.s32 %d, %a0, %a1, %a2;", &|a, b, c| (a * b).wrapping_add(c) & 0xffff_ffff);
    check("mad.hi.u32 %d, %a0, %a1, %a2;", &|a, b, c| (((a * b) >> 32) + c) & 0xffff_ffff);
    check("and.b32 %d, %a0, %a1;", &|a, b, _| a & b);
    check("or.b32 %d, %a0, %a1;", &|a, b, _| a | b);
    check("xor.b32 %d, %a0, %a1;", &|a, b, _| a ^ b);
    check("not.b32 %d, %a0;", &|a, _, _| u(!a).into());
    check("neg.s32 %d, %a0;", &|a, _, _| w(s(a).wrapping_neg()));
    check("abs.s32 %d, %a0;", &|a, _, _| w(s(a).wrapping_abs()));
    check("shl.b32 %d, %a0, %a1;", &|a, b, _| if b > 31 { 0 } else { u(a << b).into() });
    check("shr.u32 %d, %a0, %a1;", &|a, b, _| if b > 31 { 0 } else { a >> b });
    check("shr.s32 %d, %a0, %a1;", &|a, b, _| w(if b > 31 { s(a) >> 31 } else { s(a) >> b }));
    check("min.u32 %d, %a0, %a1;", &|a, b, _| a.min(b));
    check("max.u32 %d, %a0, %a1;", &|a, b, _| a.max(b));
    check("min.s32 %d, %a0, %a1;", &|a, b, _| w(s(a).min(s(b))));
    check("max.s32 %d, %a0, %a1;", &|a, b, _| w(s(a).max(s(b))));
    check("or.b32 %d, %a1, 1; div.u32 %d, %a0, %d;", &|a, b, _| a / (b | 1));
    check("or.b32 %d, %a1, 1; rem.u32 %d, %a0, %d;", &|a, b, _| a % (b | 1));
    check("or.b32 %d, %a1, 1; div.s32 %d, %a0, %d;", &|a, b, _| w(s(a).wrapping_div(s(b | 1))));
    check("or.b32 %d, %a1, 1; rem.s32 %d, %a0, %d;", &|a, b, _| w(s(a).wrapping_rem(s(b | 1))));
    check("brev.b32 %d, %a0;", &|a, _, _| (0..32).fold(0, |r, i| r | (a >> i & 1) << (31 - i)));
    check("clz.b32 %d, %a0;", &|a, _, _| (0..32).rev().take_while(|i| a >> i & 1 == 0).count() as u64);
    let highest = |a: u64| (0..32).rev().find(|i| a >> i & 1 == 1).map_or(0xffff_ffff, |i| i as u64);
    check("bfind.u32 %d, %a0;", &|a, _, _| highest(a));
    check("bfind.shiftamt.u32 %d, %a0;", &|a, _, _| if a == 0 { 0xffff_ffff } else { 31 - highest(a) });
    check("bfind.s32 %d, %a0;", &|a, _, _| highest(if a >> 31 == 1 { !a & 0xffff_ffff } else { a }));
    check("popc.b32 %d, %a0;", &|a, _, _| (0..32).map(|i| a >> i & 1).sum());
    for table in [0x96u64, 0xe8, 0x1b, 0xca] {
        check(&format!("lop3.b32 %d, %a0, %a1, %a2, {table};"), &|a, b, c| {
            (0..32).fold(0, |d, i| d | (table >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i)
        });
    }
    check("prmt.b32 %d, %a0, %a1, %a2;", &|a, b, c| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].map(|x| [x[0], x[1], x[2], x[3]]).concat();
        (0..4).fold(0, |d, i| {
            let pick = (c >> (4 * i)) as usize;
            let byte = bytes[pick & 7];
            let byte = if pick & 8 == 0 {
                byte
            } else if byte > 127 {
                255
            } else {
                0
            };
            d | u64::from(byte) << (8 * i)
        })
    });
    check("shf.l.wrap.b32 %d, %a0, %a1, %a2;", &|a, b, c| ((b << 32 | a) << (c & 31)) >> 32);
    check("shf.r.wrap.b32 %d, %a0, %a1, %a2;", &|a, b, c| ((b << 32 | a) >> (c & 31)) & 0xffff_ffff);
    check("shf.l.clamp.b32 %d, %a0, %a1, %a2;", &|a, b, c| ((b << 32 | a) << c.min(32)) >> 32);
    check("shf.r.clamp.b32 %d, %a0, %a1, %a2;", &|a, b, c| ((b << 32 | a) >> c.min(32)) & 0xffff_ffff);
    check("bfe.u32 %d, %a0, %a1, %a2;", &|a, b, c| {
        let (from, len) = (b & 255, c & 255);
        (0..len.min(32)).filter(|i| from + i < 32).fold(0, |d, i| d | (a >> (from + i) & 1) << i)
    });
    check("bfe.s32 %d, %a0, %a1, %a2;", &|a, b, c| {
        let (from, len) = (b & 255, c & 255);
        let sign = if len == 0 { 0 } else { a >> (from + len - 1).min(31) & 1 };
        (0..32).fold(0, |d, i| d | (if i < len && from + i <= 31 { a >> (from + i) & 1 } else { sign }) << i)
    });
    check("bfi.b32 %d, %a0, %a1, %a2, 9;", &|a, b, c| {
        let from = c & 255;
        (0..32).fold(0, |d, i| d | (if i >= from && i < from + 9 { a >> (i - from) & 1 } else { b >> i & 1 }) << i)
    });
}

#[test]
fn integers_of_other_widths() {
    let s = |x: u64| x as i64;
    check(&WIDE, 64, "add.u64 %e, %a0, %a1;", |a, b, _| a.wrapping_add(b));
    check(&WIDE, 64, "sub.s64 %e, %a0, %a1;", |a, b, _| a.wrapping_sub(b));
    check(&WIDE, 64, "mul.lo.u64 %e, %a0, %a1;", |a, b, _| a.wrapping_mul(b));
    check(&WIDE, 64, "mul.hi.u64 %e, %a0, %a1;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check(&WIDE, 64, "mul.hi.s64 %e, %a0, %a1;", |a, b, _| ((i128::from(s(a)) * i128::from(s(b))) >> 64) as u64);
    check(&WIDE, 64, "min.s64 %e, %a0, %a1;", |a, b, _| s(a).min(s(b)) as u64);
    check(&WIDE, 64, "max.u64 %e, %a0, %a1;", |a, b, _| a.max(b));
    check(&WIDE, 64, "xor.b64 %e, %a0, %a1;", |a, b, _| a ^ b);
    check(&WIDE, 64, "not.b64 %e, %a0;", |a, _, _| !a);
    check(&SHORTEN, 64, "clz.b64 %d, %a0;", |a, _, _| a.leading_zeros().into());
    check(&SHORTEN, 64, "bfind.u64 %d, %a0;", |a, _, _| if a == 0 { 0xffff_ffff } else { a.ilog2().into() });
    check(&SHORTEN, 64, "popc.b64 %d, %a0;", |a, _, _| a.count_ones().into());
    check(&WIDE, 64, "cvt.u32.u64 %r0, %a1; shl.b64 %e, %a0, %r0;", |a, b, _| {
        let n = b & 0xffff_ffff;
        if n > 63 { 0 } else { a << n }
    });
    check(&WIDE, 64, "cvt.u32.u64 %r0, %a1; shr.s64 %e, %a0, %r0;", |a, b, _| {
        (s(a) >> (b & 0xffff_ffff).min(63)) as u64
    });
    check(&WIDEN, 32, "mul.wide.u32 %e, %a0, %a1;", |a, b, _| a * b);
    check(&WIDEN, 32, "mul.wide.s32 %e, %a0, %a1;", |a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check(&WIDEN, 32, "cvt.u64.u32 %e, %a2; mad.wide.u32 %e, %a0, %a1, %e;", |a, b, c| (a * b).wrapping_add(c));
    let pair = "mov.b32 {%h0, %h1}, %a0; mov.b32 {%h2, %h3}, %a1;";
    let low = |x: u64| x & 0xffff;
    let short = |x: u64| i32::from(x as u16 as i16);
    for (op, f) in [
        ("add.u16", &(|a, b| low(a + b)) as &dyn Fn(u64, u64) -> u64),
        ("sub.u16", &|a, b| low(a.wrapping_sub(b))),
        ("mul.lo.u16", &|a, b| low(low(a) * low(b))),
        ("min.s16", &|a, b| low(short(a).min(short(b)) as u64)),
        ("max.u16", &|a, b| low(a).max(low(b))),
        ("mul.hi.s16", &|a, b| low(((short(a) * short(b)) >> 16) as u64)),
    ] {
        check(&NARROW, 32, &format!("{pair} {op} %h0, %h0, %h2; mov.b32 %d, {{%h0, %h1}};"), |a, b, _| {
            f(a, b) | a >> 16 << 16
        });
    }
    check(&NARROW, 32, &format!("{pair} mul.wide.s16 %d, %h1, %h2;"), |a, b, _| {
        u64::from((short(a >> 16) * short(b)) as u32)
    });
    check(&WIDEN, 32, "mov.b64 %e, {%a1, %a0};", |a, b, _| a << 32 | b);
}

#[test]
fn comparisons_and_choices() {
    let s = |x: u64| x as u32 as i32;
    let f = |x: u64| f32::from_bits(x as u32);
    let read = "selp.b32 %d, 1, 0, %q;";
    for (cmp, holds) in [
        ("eq", &(|o: Option<Ordering>| o.is_some_and(Ordering::is_eq)) as &dyn Fn(Option<Ordering>) -> bool),
        ("ne", &|o| o.is_some_and(Ordering::is_ne)),
        ("lt", &|o| o.is_some_and(Ordering::is_lt)),
        ("le", &|o| o.is_some_and(Ordering::is_le)),
        ("gt", &|o| o.is_some_and(Ordering::is_gt)),
        ("ge", &|o| o.is_some_and(Ordering::is_ge)),
    ] {
        let run = |ty: &str| format!("setp.{cmp}.{ty} %q, %a0, %a1; {read}");
        check(&NARROW, 32, &run("u32"), |a, b, _| holds(Some(a.cmp(&b))).into());
        check(&NARROW, 32, &run("s32"), |a, b, _| holds(Some(s(a).cmp(&s(b)))).into());
        check(&NARROW, 32, &run("f32"), |a, b, _| holds(f(a).partial_cmp(&f(b))).into());
        check(&SHORTEN, 64, &run("s64"), |a, b, _| holds(Some((a as i64).cmp(&(b as i64)))).into());
        let unordered = format!("setp.{cmp}u.f32 %q, %a0, %a1; {read}");
        check(&NARROW, 32, &unordered, |a, b, _| {
            let order = f(a).partial_cmp(&f(b));
            (order.is_none() || holds(order)).into()
        });
    }
    check(&NARROW, 32, &format!("setp.lo.u32 %q, %a0, %a1; {read}"), |a, b, _| (a < b).into());
    check(&NARROW, 32, &format!("setp.nan.f32 %q, %a0, %a1; {read}"), |a, b, _| {
        (f(a).is_nan() || f(b).is_nan()).into()
    });
    check(
        &NARROW,
        32,
        "setp.lt.u32 %s, %a1, %a2; setp.lt.and.u32 %q|%s, %a0, %a1, !%s; selp.b32 %d, 2, 0, %q; @%s add.u32 %d, %d, 1;",
        |a, b, c| {
            let other = b >= c;
            2 * u64::from(a < b && other) + u64::from(a >= b && other)
        },
    );
    check(&NARROW, 32, "slct.b32.s32 %d, %a0, %a1, %a2;", |a, b, c| if s(c) >= 0 { a } else { b });
    check(&WIDE, 64, "setp.lt.u64 %q, %a0, %a1; selp.b64 %e, %a1, %a2, %q;", |a, b, c| if a < b { b } else { c });
}

#[test]
fn floats_are_exact() {
    let f = |x: u64| f32::from_bits(x as u32);
    // All NaN count as one: which the ISA gives it does not say.
    let bits = |x: f32| if x.is_nan() { 0x7fff_ffff } else { u64::from(x.to_bits()) };
    let flush = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x };
    let nan = "setp.nan.f32 %q, %d, %d; @%q mov.b32 %d, 0x7fffffff;";
    let check = |body: &str, g: &dyn Fn(f32, f32, f32) -> f32| {
        check(&NARROW, 32, &format!("{body} {nan}"), |a, b, c| bits(g(f(a), f(b), f(c))));
    };
    check("add.rn.f32 %d, %a0, %a1;", &|a, b, _| a + b);
    check("sub.f32 %d, %a0, %a1;", &|a, b, _| a - b);
    check("mul.f32 %d, %a0, %a1;", &|a, b, _| a * b);
    check("div.rn.f32 %d, %a0, %a1;", &|a, b, _| a / b);
    check("fma.rn.f32 %d, %a0, %a1, %a2;", &|a, b, c| a.mul_add(b, c));
    // By definition: the neighbour of the nearest f32 where that lies on the wrong side of the exact sum, which in f64 is
    // not always exact itself.
    let down = |a: f32, b: f32, c: f32| {
        let (product, c64) = (f64::from(a) * f64::from(b), f64::from(c));
        let sum = product + c64;
        let back = sum - product;
        let lost = (product - (sum - back)) + (c64 - back);
        let near = sum as f32;
        if !sum.is_finite() {
            return sum as f32;
        }
        let above = f64::from(near) > sum || (f64::from(near) == sum && lost < 0.0);
        match near {
            // What cancels is −0, unless both were +0.
            0.0 if sum == 0.0 && lost == 0.0 && c != 0.0 => -0.0,
            _ if above => near.next_down(),
            _ => near,
        }
    };
    check("fma.rm.f32 %d, %a0, %a1, %a2;", &down);
    check("fma.rp.f32 %d, %a0, %a1, %a2;", &|a, b, c| -down(-a, b, -c));
    check("add.rm.f32 %d, %a0, %a1;", &|a, b, _| down(a, 1.0, b));
    check("sqrt.rn.f32 %d, %a0;", &|a, _, _| a.sqrt());
    check("rcp.rn.f32 %d, %a0;", &|a, _, _| 1.0 / a);
    check("neg.f32 %d, %a0;", &|a, _, _| -a);
    check("abs.f32 %d, %a0;", &|a, _, _| a.abs());
    check("copysign.f32 %d, %a0, %a1;", &|a, b, _| b.copysign(a));
    check("add.ftz.f32 %d, %a0, %a1;", &|a, b, _| flush(flush(a) + flush(b)));
    check("mul.rn.ftz.f32 %d, %a0, %a1;", &|a, b, _| flush(flush(a) * flush(b)));
    check("fma.rn.ftz.f32 %d, %a0, %a1, %a2;", &|a, b, c| flush(flush(a).mul_add(flush(b), flush(c))));
    check("add.sat.f32 %d, %a0, %a1;", &|a, b, _| if (a + b).is_nan() { 0.0 } else { (a + b).clamp(0.0, 1.0) + 0.0 });
    let extreme = |a: f32, b: f32, max: bool| match (a.is_nan(), b.is_nan()) {
        (true, true) => f32::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if a == b => {
            if a.is_sign_negative() == max {
                b
            } else {
                a
            }
        }
        _ => {
            if (a > b) == max {
                a
            } else {
                b
            }
        }
    };
    check("min.f32 %d, %a0, %a1;", &|a, b, _| extreme(a, b, false));
    check("max.f32 %d, %a0, %a1;", &|a, b, _| extreme(a, b, true));
    check("max.NaN.f32 %d, %a0, %a1;", &|a, b, _| {
        if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, true) }
    });
    let (plus, minus) = (vec![0u64; 32], vec![0x8000_0000u64; 32]);
    for (a, b) in [(&plus, &minus), (&minus, &plus)] {
        assert_eq!(NARROW.run("min.f32 %d, %a0, %a1;", [a, b, a])[0], 0x8000_0000);
        assert_eq!(NARROW.run("max.f32 %d, %a0, %a1;", [a, b, a])[0], 0);
    }
    let wide = |body: &str, g: &dyn Fn(f64, f64, f64) -> f64| {
        let d = |x: u64| f64::from_bits(x);
        super::instructions::check(
            &WIDE,
            64,
            &format!("{body} setp.nan.f64 %q, %e, %e; @%q mov.b64 %e, 1;"),
            |a, b, c| {
                let x = g(d(a), d(b), d(c));
                if x.is_nan() { 1 } else { x.to_bits() }
            },
        );
    };
    wide("add.f64 %e, %a0, %a1;", &|a, b, _| a + b);
    wide("mul.rn.f64 %e, %a0, %a1;", &|a, b, _| a * b);
    wide("fma.rn.f64 %e, %a0, %a1, %a2;", &|a, b, c| a.mul_add(b, c));
    wide("div.rn.f64 %e, %a0, %a1;", &|a, b, _| a / b);
    wide("sqrt.rn.f64 %e, %a0;", &|a, _, _| a.sqrt());
}

/// Whether the bits are one of the two halves between which `exact` lies and not the farther one: the nearest, by a search.
fn nearest(bits: u16, exact: f64, value: impl Fn(u16) -> f64) -> bool {
    let distance = |bits: u16| (value(bits) - exact).abs();
    let mine = distance(bits);
    let neighbours = [bits.wrapping_add(1), bits.wrapping_sub(1)].map(|n| (n, distance(n)));
    neighbours.iter().all(|(_, d)| d.is_nan() || mine < *d || (mine == *d && bits & 1 == 0))
}

#[test]
fn pairs_of_halves_are_rounded_once() {
    // Each result must be the nearest half to the exact one: products have 22 bits or fewer, and sums are compared in f64
    // where these operands are not far apart.
    for (ty, value) in [
        ("bf16x2", &(|x: u16| bf16::from_bits(x).to_f64()) as &dyn Fn(u16) -> f64),
        ("f16x2", &|x: u16| f16::from_bits(x).to_f64()),
    ] {
        // Numbers from 1/16 to 16.
        let (one, step) = if ty == "f16x2" { (0x2c00u64, 0x2000) } else { (0x3d80, 0x400) };
        let make = |seed: u64| -> Vec<u64> {
            mixed(32, seed)
                .iter()
                .map(|x| (one + x % step) | (one + (x >> 16) % step) << 16 | (x >> 8 & 1) << 15 | (x >> 9 & 1) << 31)
                .collect()
        };
        let (a, b, c) = (make(1), make(2), make(3));
        for (body, f) in [
            ("add.rn", &(|a: f64, b: f64, _: f64| a + b) as &dyn Fn(f64, f64, f64) -> f64),
            ("sub.rn", &|a, b, _| a - b),
            ("mul.rn", &|a, b, _| a * b),
            ("fma.rn", &|a, b, c| a * b + c),
            ("max", &|a, b, _| a.max(b)),
        ] {
            let third = if body == "fma.rn" { ", %a2" } else { "" };
            let found = NARROW.run(&format!("{body}.{ty} %d, %a0, %a1{third};"), [&a, &b, &c]);
            for i in 0..a.len() {
                for half in [0, 16] {
                    let part = |x: u64| value((x >> half) as u16);
                    let exact = f(part(a[i]), part(b[i]), part(c[i]));
                    let bits = (found[i] >> half) as u16;
                    assert!(exact == 0.0 || nearest(bits, exact, value), "{body}.{ty}: {bits:#x} for {exact}");
                }
            }
        }
    }
}

#[test]
fn what_lies_far_below_decides_a_tie() {
    // 1.0078125 * 1.5 lies half way between two bf16; 2^-100 less rounds down, where rounding to f64 first would not.
    let pair = |x: u64| vec![x << 16 | x; 32];
    let found = NARROW.run("fma.rn.bf16x2 %d, %a0, %a1, %a2;", [&pair(0x3f81), &pair(0x3fc0), &pair(0x8d80)]);
    assert_eq!(found[0], 0x3fc1_3fc1);
    let found = NARROW.run("fma.rn.bf16x2 %d, %a0, %a1, %a2;", [&pair(0x3f81), &pair(0x3fc0), &pair(0x0d80)]);
    assert_eq!(found[0], 0x3fc2_3fc2);
}

#[test]
fn approximations_stay_within_the_documented_errors() {
    let numbers: Vec<f32> =
        (0..4096).map(|i| (i as f32 - 2048.0) / 64.0).chain((0..4096).map(|i| (i as f32 + 0.5) * 1e-3)).collect();
    let bits: Vec<u64> = numbers.iter().map(|x| u64::from(x.to_bits())).collect();
    let ulps = |x: f64| x * 2f64.powi(-23);
    for (op, f, bound) in [
        (
            "ex2.approx.f32",
            &(|x: f64| x.exp2()) as &dyn Fn(f64) -> f64,
            &(|y: f64, _: f64| ulps(2.0) * y) as &dyn Fn(f64, f64) -> f64,
        ),
        ("ex2.approx.ftz.f32", &|x| x.exp2(), &|y, _| ulps(2.0) * y),
        ("lg2.approx.f32", &|x| x.log2(), &|y, x| {
            if (0.5..2.0).contains(&x) { 2f64.powi(-22) } else { 2f64.powi(-22) * y.abs() }
        }),
        ("rcp.approx.ftz.f32", &|x| 1.0 / x, &|y, _| ulps(1.0) * y.abs()),
        ("rsqrt.approx.f32", &|x| 1.0 / x.sqrt(), &|y, _| 2f64.powf(-22.9) * y),
        ("sqrt.approx.f32", &|x| x.sqrt(), &|y, _| 2f64.powi(-23) * y),
        ("sin.approx.f32", &|x| x.sin(), &|_, _| 2f64.powf(-20.5)),
        ("cos.approx.f32", &|x| x.cos(), &|_, _| 2f64.powf(-20.5)),
        ("tanh.approx.f32", &|x| x.tanh(), &|y, _| 2f64.powi(-11) * y.abs()),
    ] {
        let found = NARROW.run(&format!("{op} %d, %a0;"), [&bits, &bits, &bits]);
        for (x, found) in numbers.iter().zip(found) {
            let (x, found) = (f64::from(*x), f64::from(f32::from_bits(found as u32)));
            let exact = f(x);
            if exact.is_nan() {
                assert!(found.is_nan(), "{op} of {x}: {found}");
            } else if exact.is_finite() {
                assert!((found - exact).abs() <= bound(exact, x), "{op} of {x}: {found} for {exact}");
            } else {
                assert_eq!(found, exact, "{op} of {x}");
            }
        }
    }
    let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -140.0, -150.0, 128.0, -126.5, 0.0];
    let bits: Vec<u64> = (0..32).map(|i| u64::from(ends[i % 8].to_bits())).collect();
    let found = NARROW.run("ex2.approx.f32 %d, %a0;", [&bits, &bits, &bits]);
    let found: Vec<f32> = found.iter().map(|x| f32::from_bits(*x as u32)).collect();
    assert!(found[0].is_nan());
    assert_eq!(found[1..8], [f32::INFINITY, 0.0, 2f32.powi(-140), 0.0, f32::INFINITY, 2f32.powf(-126.5), 1.0]);
}
