//! Conversions, and how fragments, matrices and shuffles lie in lanes: by the formulas of the manual, written once more.

use super::instructions::NARROW;
use super::rig::{Rig, module, numbers};
use half::{bf16, f16};
use kiln::device::Grid;

/// Every float of 16 bits, as pairs of neighbours.
fn all_halves() -> Vec<u64> {
    (0..0x1_0000).collect()
}

#[test]
fn all_halves_widen_exactly_and_narrow_back() {
    let all = all_halves();
    let run = |body: &str| NARROW.run(body, [&all, &all, &all]);
    let canonical = |x: u64, nan: bool| if nan { 0x7fff } else { x };
    let wide = run("mov.b32 {%h0, %h1}, %a0; cvt.f32.bf16 %d, %h0;");
    for (x, wide) in all.iter().zip(&wide) {
        assert_eq!(*wide, x << 16);
    }
    for (round, ty) in [("rn", "bf16"), ("rz", "bf16"), ("rn", "f16"), ("rz", "f16")] {
        let back = run(&format!(
            "mov.b32 {{%h0, %h1}}, %a0; cvt.f32.{ty} %f0, %h0; cvt.{round}.{ty}.f32 %h0, %f0; mov.b32 %d, {{%h0, %h1}};"
        ));
        for (x, back) in all.iter().zip(&back) {
            let nan =
                if ty == "f16" { f16::from_bits(*x as u16).is_nan() } else { bf16::from_bits(*x as u16).is_nan() };
            assert_eq!(*back & 0xffff, canonical(*x, nan), "{round}.{ty} {x:#x}");
        }
    }
}

#[test]
fn f32_narrow_to_halves_by_their_roundings() {
    // Around every bf16: itself, a little more, half way, a little more than that, almost the next.
    let offsets = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    for offset in offsets {
        let a: Vec<u64> = all_halves().iter().map(|x| x << 16 | offset).collect();
        let nearest = NARROW.run("cvt.rn.bf16x2.f32 %d, %a0, 0f3f800000;", [&a, &a, &a]);
        let zero = NARROW.run("cvt.rz.bf16x2.f32 %d, 0f3f800000, %a0;", [&a, &a, &a]);
        let positive = NARROW.run("cvt.rn.relu.bf16x2.f32 %d, %a0, %a0;", [&a, &a, &a]);
        for (i, bits) in a.iter().enumerate() {
            let (kept, rest) = (bits >> 16, bits & 0xffff);
            let nan = f32::from_bits(*bits as u32).is_nan();
            let up = u64::from(rest > 0x8000 || (rest == 0x8000 && kept & 1 == 1));
            let expected = if nan { 0x7fff } else { kept + up };
            assert_eq!(nearest[i], expected << 16 | 0x3f80, "{bits:#x}");
            assert_eq!(zero[i], if nan { 0x7fff } else { kept } | 0x3f80 << 16, "{bits:#x}");
            let expected = if !nan && expected > 0x8000 { 0 } else { expected };
            assert_eq!(positive[i] & 0x7fff, expected & 0x7fff, "{bits:#x}");
        }
    }
}

#[test]
fn other_conversions_round_as_they_say() {
    let x =
        [0.0f32, 0.5, -0.5, 1.5, 2.5, -2.5, 3.49, -3.51, 255.6, -1.0, 3e9, -3e9, 5e9, 1e20, f32::NAN, f32::INFINITY];
    let bits: Vec<u64> = (0..32).map(|i| u64::from(x[i % 16].to_bits())).collect();
    let run = |body: &str| NARROW.run(body, [&bits, &bits, &bits])[..16].to_vec();
    let s = |v: [i64; 16]| v.map(|v| u64::from(v as i32 as u32)).to_vec();
    const MIN: i64 = i32::MIN as i64;
    const MAX: i64 = i32::MAX as i64;
    let tail = [MAX, MIN, MAX, MAX, 0, MAX];
    let with = |head: [i64; 10]| s(std::array::from_fn(|i| if i < 10 { head[i] } else { tail[i - 10] }));
    assert_eq!(run("cvt.rni.s32.f32 %d, %a0;"), with([0, 0, 0, 2, 2, -2, 3, -4, 256, -1]));
    assert_eq!(run("cvt.rzi.s32.f32 %d, %a0;"), with([0, 0, 0, 1, 2, -2, 3, -3, 255, -1]));
    assert_eq!(run("cvt.rmi.s32.f32 %d, %a0;"), with([0, 0, -1, 1, 2, -3, 3, -4, 255, -1]));
    assert_eq!(run("cvt.rpi.s32.f32 %d, %a0;"), with([0, 1, 0, 2, 3, -2, 4, -3, 256, -1]));
    let unsigned = run("cvt.rzi.u32.f32 %d, %a0;");
    assert_eq!(unsigned, [0, 0, 0, 1, 2, 0, 3, 0, 255, 0, 3_000_000_000, 0, 0xffff_ffff, 0xffff_ffff, 0, 0xffff_ffff]);
    assert_eq!(run("cvt.rzi.u8.f32 %d, %a0;")[8..12], [255, 0, 255, 0]);
    let float = |v: Vec<u64>| v.iter().map(|v| f32::from_bits(*v as u32)).collect::<Vec<_>>();
    assert_eq!(float(run("cvt.rni.f32.f32 %d, %a0;"))[..9], [0.0, 0.0, -0.0, 2.0, 2.0, -2.0, 3.0, -4.0, 256.0]);
    assert_eq!(float(run("cvt.sat.f32.f32 %d, %a0;"))[1..5], [0.5, 0.0, 1.0, 1.0]);
    // Integers: cut, extended, clamped.
    let ints: Vec<u64> = (0..32).map(|i| [0u64, 1, 127, 128, 255, 256, 0x7fff_ffff, 0xffff_ff80][i % 8]).collect();
    let run = |body: &str| NARROW.run(body, [&ints, &ints, &ints])[..8].to_vec();
    assert_eq!(run("cvt.s32.s8 %d, %a0;"), [0, 1, 127, 0xffff_ff80, 0xffff_ffff, 0, 0xffff_ffff, 0xffff_ff80]);
    assert_eq!(run("cvt.u32.u8 %d, %a0;"), [0, 1, 127, 128, 255, 0, 255, 128]);
    assert_eq!(run("cvt.sat.s8.s32 %d, %a0;"), [0, 1, 127, 127, 127, 127, 127, 0xffff_ff80]);
    assert_eq!(run("cvt.sat.u8.s32 %d, %a0;"), [0, 1, 127, 128, 255, 255, 255, 0]);
    // To f32, where 24 bits are not enough: up, down and to even.
    let ints: Vec<u64> = (0..32).map(|i| [0x0100_0001u64, 0x0100_0003, 0xffff_ffff, 0x8000_0000][i % 4]).collect();
    let run = |body: &str| NARROW.run(body, [&ints, &ints, &ints])[..4].to_vec();
    let bits = |v: [f32; 4]| v.map(|v| u64::from(v.to_bits())).to_vec();
    assert_eq!(run("cvt.rn.f32.u32 %d, %a0;"), bits([16777216.0, 16777220.0, 4294967296.0, 2147483648.0]));
    assert_eq!(run("cvt.rz.f32.u32 %d, %a0;"), bits([16777216.0, 16777218.0, 4294967040.0, 2147483648.0]));
    assert_eq!(run("cvt.rp.f32.u32 %d, %a0;"), bits([16777218.0, 16777220.0, 4294967296.0, 2147483648.0]));
    assert_eq!(run("cvt.rn.f32.s32 %d, %a0;"), bits([16777216.0, 16777220.0, -1.0, -2147483648.0]));
    // tf32 keeps 10 bits of the mantissa; a tie goes away from 0.
    let x: Vec<u64> = (0..32).map(|i| [0x3f80_0fffu64, 0x3f80_1000, 0x3f80_3000, 0xbf80_1000][i % 4]).collect();
    let run = |body: &str| NARROW.run(body, [&x, &x, &x])[..4].to_vec();
    assert_eq!(run("cvt.rna.tf32.f32 %d, %a0;"), [0x3f80_0000, 0x3f80_2000, 0x3f80_4000, 0xbf80_2000]);
    assert_eq!(run("cvt.rn.tf32.f32 %d, %a0;"), [0x3f80_0000, 0x3f80_0000, 0x3f80_4000, 0xbf80_0000]);
}

#[test]
fn f64_go_to_f32_and_back() {
    let x: [f64; 6] = [1.0 + 2f64.powi(-24), 1.0 + 3.0 * 2f64.powi(-24), -1e-50, 1e300, 0.1, -3.5];
    let bits: Vec<u64> = (0..32).map(|i| x[i % 6].to_bits()).collect();
    let lanes = super::instructions::Lanes { wide: true, wide_out: false };
    let found = lanes.run("cvt.rn.f32.f64 %d, %a0;", [&bits, &bits, &bits]);
    for (x, found) in x.iter().zip(&found) {
        assert_eq!(*found as u32, (*x as f32).to_bits(), "{x}");
    }
    let up = lanes.run("cvt.rp.f32.f64 %d, %a0;", [&bits, &bits, &bits]);
    assert!(x.iter().zip(&up).all(|(x, up)| f64::from(f32::from_bits(*up as u32)) >= *x));
    let zero = lanes.run("cvt.rz.f32.f64 %d, %a0;", [&bits, &bits, &bits]);
    assert_eq!(zero[3] as u32, f32::MAX.to_bits());
}

#[test]
fn shuffles_read_the_lanes_that_the_manual_says() {
    let lanes: Vec<u64> = (0..32).collect();
    for mode in ["up", "down", "bfly", "idx"] {
        for by in [0i32, 1, 3, 16, 31] {
            // The whole warp, and segments of 8.
            for segment in [32, 8] {
                let clamp = if mode == "up" { 0 } else { 31 };
                let c = (32 - segment) << 8 | clamp;
                let body = format!("shfl.sync.{mode}.b32 %d|%q, %a0, {by}, {c}, -1; @%q add.u32 %d, %d, 100;");
                let found = NARROW.run(&body, [&lanes, &lanes, &lanes]);
                for lane in 0..32 {
                    let first = lane / segment * segment;
                    let from = match mode {
                        "up" => lane - by,
                        "down" => lane + by,
                        "bfly" => lane ^ by,
                        _ => first + by % segment,
                    };
                    let within = from >= first && from < first + segment;
                    // A lower partner in another segment can be read by bfly.
                    let within = within || (mode == "bfly" && from < first);
                    let expected = if within { from + 100 } else { lane };
                    assert_eq!(found[lane as usize] as i32, expected, "{mode} {by} {segment} lane {lane}");
                }
            }
        }
    }
}

#[test]
fn votes_matches_and_reductions_see_all_lanes() {
    let a: Vec<u64> = (0..32).map(|i| i % 3).collect();
    let run = |body: &str| NARROW.run(body, [&a, &a, &a]);
    let mask = |f: &dyn Fn(u64) -> bool| (0..32).fold(0u64, |m, i| m | u64::from(f(a[i])) << i);
    let zero = mask(&|x| x == 0);
    assert_eq!(run("setp.eq.u32 %q, %a0, 0; vote.sync.ballot.b32 %d, %q, -1;"), [zero; 32]);
    assert_eq!(run("setp.eq.u32 %q, %a0, 0; vote.sync.ballot.b32 %d, !%q, -1;"), [zero ^ 0xffff_ffff; 32]);
    assert_eq!(run("setp.lt.u32 %q, %a0, 3; vote.sync.all.pred %s, %q, -1; selp.b32 %d, 1, 0, %s;"), [1; 32]);
    assert_eq!(run("setp.gt.u32 %q, %a0, 2; vote.sync.any.pred %s, %q, -1; selp.b32 %d, 1, 0, %s;"), [0; 32]);
    assert_eq!(run("match.any.sync.b32 %d, %a0, -1;"), a.iter().map(|x| mask(&|y| y == *x)).collect::<Vec<_>>());
    assert_eq!(run("match.all.sync.b32 %d|%q, %a0, -1; @!%q add.u32 %d, %d, 7;"), [7; 32]);
    assert_eq!(run("redux.sync.add.u32 %d, %a0, -1;"), [31; 32]);
    assert_eq!(run("redux.sync.max.s32 %d, %a0, -1;"), [2; 32]);
    assert_eq!(run("redux.sync.xor.b32 %d, %a0, -1;"), [a.iter().fold(0, |x, y| x ^ y); 32]);
    assert_eq!(run("setp.lt.u32 %q, %lane, 5; mov.u32 %d, 9; @%q activemask.b32 %d;")[4..6], [31, 9]);
    assert_eq!(run("mov.u32 %d, %lanemask_lt;")[5], 31);
}

/// Lanes that go different ways come together again, each having done its own.
#[test]
fn lanes_part_and_meet() {
    let a: Vec<u64> = (0..64).collect();
    let body = "
mov.u32 %d, 0; mov.u32 %r0, 0;
$loop: setp.ge.u32 %q, %r0, %a0; @%q bra $out;
add.u32 %d, %d, %r0; add.u32 %r0, %r0, 1;
and.b32 %r1, %r0, 1; setp.eq.u32 %s, %r1, 0; @%s bra $even; add.u32 %d, %d, 100; bra.uni $loop;
$even: add.u32 %d, %d, 1000; bra $loop;
$out: activemask.b32 %r2; popc.b32 %r2, %r2; mad.lo.u32 %d, %r2, 1000000, %d;";
    let found = NARROW.run(body, [&a, &a, &a]);
    for (n, found) in a.iter().zip(found) {
        let sum: u64 = (0..*n).map(|i| i + if i % 2 == 0 { 100 } else { 1000 }).sum();
        assert_eq!(found, sum + 32_000_000, "{n}");
    }
}

/// Some lanes wait at the nearer of two labels while others are sent to the farther one: those that go on meet the first.
#[test]
fn lanes_that_wait_are_met_on_the_way() {
    let a: Vec<u64> = (0..32).collect();
    let body = "
setp.lt.u32 %q, %lane, 8; setp.lt.u32 %s, %lane, 16; mov.u32 %d, 0;
@%q bra $near; @%s bra $far; mov.u32 %r0, 1;
$near: activemask.b32 %d;
$far: activemask.b32 %r1; popc.b32 %r1, %r1; add.u32 %d, %d, %r1;";
    let found = NARROW.run(body, [&a, &a, &a]);
    for (lane, found) in found.into_iter().enumerate() {
        assert_eq!(found, if (8..16).contains(&lane) { 32 } else { 0xffff_00ff + 32 }, "lane {lane}");
    }
}

#[test]
fn matrices_are_spread_over_lanes_row_by_row_or_column_by_column() {
    // Matrix k, row r, column c holds 64 k + 8 r + c; its rows lie backwards, 48 bytes apart.
    let kernel = |load: &str, n: usize| {
        let registers: Vec<String> = (0..n).map(|i| format!("%v{i}")).collect();
        let out: String = (0..n).map(|i| format!("st.global.u32 [%y+{}], %v{i};\n", i * 128)).collect();
        format!(
            "\
.version 7.8
.target sm_90
.visible .entry k(.param .u64 y) {{
.reg .b32 %t, %at, %x, %v<4>, %i, %e<2>; .reg .b64 %y; .reg .pred %p; .shared .align 16 .b8 m[1536];
mov.u32 %t, %tid.x; mov.u32 %x, m; mul.lo.u32 %at, %t, 48; sub.u32 %at, 1488, %at; add.u32 %at, %at, %x;
mov.u32 %i, 0;
$fill: mad.lo.u32 %x, %i, 2, %at; mad.lo.u32 %e0, %t, 8, %i; st.shared.u16 [%x], %e0;
add.u32 %i, %i, 1; setp.lt.u32 %p, %i, 8; @%p bra $fill;
bar.sync 0;
{load} {{{}}}, [%at];
ld.param.u64 %y, [y]; mad.wide.u32 %y, %t, 4, %y;
{out}
ret; }}
",
            registers.join(", ")
        )
    };
    for n in [1usize, 2, 4] {
        for trans in [false, true] {
            let name = if trans { ".trans" } else { "" };
            let load = format!("ldmatrix.sync.aligned.m8n8.x{n}{name}.shared.b16");
            let rig = Rig::new(true);
            let y = rig.put(&vec![0u32; 128]);
            rig.run(&module("k.ptx", &kernel(&load, n), &[]), Grid::new(1, 32), &[y.into()]);
            let found: Vec<u32> = rig.get(y, 128);
            for k in 0..n {
                for lane in 0..32 {
                    let (r, c) = (lane / 4, lane % 4 * 2);
                    let element = |r: usize, c: usize| (64 * k + 8 * r + c) as u32;
                    let (low, high) =
                        if trans { (element(c, r), element(c + 1, r)) } else { (element(r, c), element(r, c + 1)) };
                    assert_eq!(found[32 * k + lane], low | high << 16, "x{n}{name}, matrix {k}, lane {lane}");
                }
            }
        }
    }
}

#[test]
fn a_stored_matrix_is_loaded_again() {
    for trans in ["", ".trans"] {
        let text = format!(
            "\
.version 7.8
.target sm_90
.visible .entry k(.param .u64 y) {{
.reg .b32 %t, %at, %v<4>; .reg .b64 %y; .shared .align 16 .b8 m[512];
mov.u32 %t, %tid.x; mov.u32 %at, m; mad.lo.u32 %at, %t, 16, %at;
mad.lo.u32 %v0, %t, 7, 3; mad.lo.u32 %v1, %t, 11, 5; mad.lo.u32 %v2, %t, 13, 9; mad.lo.u32 %v3, %t, 65537, 9;
stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%at], {{%v0, %v1, %v2, %v3}};
bar.warp.sync -1;
ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%v3, %v2, %v1, %v0}}, [%at];
ld.param.u64 %y, [y]; mad.wide.u32 %y, %t, 16, %y; st.global.v4.u32 [%y], {{%v0, %v1, %v2, %v3}};
ret; }}
"
        );
        let rig = Rig::new(true);
        let y = rig.put(&[0u32; 128]);
        rig.run(&module("k.ptx", &text, &[]), Grid::new(1, 32), &[y.into()]);
        for (t, found) in rig.get::<[u32; 4]>(y, 32).into_iter().enumerate() {
            let t = t as u32;
            assert_eq!(found, [t * 65537 + 9, t * 13 + 9, t * 11 + 5, t * 7 + 3]);
        }
    }
}

/// Products of fragments that are put together lane by lane, as the manual's formulas place the elements.
#[test]
fn fragments_lie_where_the_manual_says() {
    for (ty, k) in [("f16", 8usize), ("f16", 16), ("bf16", 8), ("bf16", 16), ("tf32", 4), ("tf32", 8)] {
        let per = if ty == "tf32" { 1 } else { 2 };
        let (of_a, of_b) = (k / (2 * per), k / (4 * per));
        let list = |name: &str, n: usize| (0..n).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ");
        let load = |name: &str, n: usize| -> String {
            (0..n).map(|i| format!("ld.global.b32 %{name}{i}, [%p{name}+{}];\n", i * 128)).collect()
        };
        let text = format!(
            "\
.version 7.0
.target sm_80
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) {{
.reg .b32 %t, %a<4>, %b<2>; .reg .f32 %c<4>, %d<4>; .reg .b64 %pa, %pb, %pc;
mov.u32 %t, %tid.x; ld.param.u64 %pa, [a]; ld.param.u64 %pb, [b]; ld.param.u64 %pc, [c];
mad.wide.u32 %pa, %t, 4, %pa; mad.wide.u32 %pb, %t, 4, %pb; mad.wide.u32 %pc, %t, 4, %pc;
{}{}{}
mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};
st.global.f32 [%pc], %d0; st.global.f32 [%pc+128], %d1; st.global.f32 [%pc+256], %d2; st.global.f32 [%pc+384], %d3;
ret; }}
",
            load("a", of_a),
            load("b", of_b),
            load("c", 4),
            list("d", 4),
            list("a", of_a),
            list("b", of_b),
            list("c", 4),
        );
        // Numbers that all three types hold.
        let small = |n: usize, seed| numbers(n, seed).iter().map(|x| (x * 64.0).round() / 32.0).collect::<Vec<f32>>();
        let (a, b, c) = (small(16 * k, 1), small(k * 8, 2), small(128, 3));
        let bits = |x: f32| match ty {
            "f16" => u32::from(f16::from_f32(x).to_bits()),
            "bf16" => u32::from(bf16::from_f32(x).to_bits()),
            // What lies below a tf32 must not count.
            _ => x.to_bits() | 0x1abc,
        };
        let mut fa = vec![0u32; 32 * of_a];
        let mut fb = vec![0u32; 32 * of_b];
        let mut fc = vec![0f32; 128];
        for lane in 0..32 {
            let (group, thread) = (lane >> 2, lane % 4);
            for i in 0..of_a * per {
                // The manual: row groupID for a0, a1 and a4, a5 of halves, groupID + 8 for the others; of tf32 for a0, a2.
                let row = if i / per % 2 == 0 { group } else { group + 8 };
                let column = if per == 2 {
                    thread * 2 + i % 2 + if i >= 4 { 8 } else { 0 }
                } else {
                    thread + if i >= 2 { 4 } else { 0 }
                };
                fa[32 * (i / per) + lane] |= bits(a[row * k + column]) << (16 * (i % per));
            }
            for i in 0..of_b * per {
                let row = if per == 2 { thread * 2 + i % 2 + if i >= 2 { 8 } else { 0 } } else { thread + 4 * i };
                fb[32 * (i / per) + lane] |= bits(b[row * 8 + group]) << (16 * (i % per));
            }
            for i in 0..4 {
                let row = if i < 2 { group } else { group + 8 };
                fc[32 * i + lane] = c[row * 8 + thread * 2 + i % 2];
            }
        }
        let rig = Rig::new(true);
        let (pa, pb, pc) = (rig.put(&fa), rig.put(&fb), rig.put(&fc));
        let counters = rig.run(&module("k.ptx", &text, &[]), Grid::new(1, 32), &[pa.into(), pb.into(), pc.into()]);
        assert_eq!(counters.class(kiln::device::sim::Class::Mma).warp, 1);
        let found: Vec<f32> = rig.get(pc, 128);
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
            // These sums are exact in f32.
            let exact = (0..k).fold(c[row * 8 + column], |s, l| s + a[row * k + l] * b[l * 8 + column]);
            assert_eq!(found[32 * i + lane], exact, "{ty} k{k}, row {row}, column {column}");
        }
    }
}

#[test]
fn atomics_add_up_over_blocks_and_return_what_was_there() {
    let text = "\
.version 7.8
.target sm_90
.visible .entry k(.param .u64 x, .param .u64 y) {
.reg .b32 %t, %b, %i, %v, %w; .reg .b64 %x, %y, %z; .reg .f32 %f; .shared .b32 count; .reg .pred %p;
mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mad.lo.u32 %i, %b, 64, %t;
ld.param.u64 %x, [x]; ld.param.u64 %y, [y];
atom.global.add.u32 %v, [%x], 1; mad.wide.u32 %z, %v, 4, %y; red.global.add.u32 [%z], 1;
mov.f32 %f, 0f3f000000; red.global.add.f32 [%x+4], %f;
red.global.max.s32 [%x+8], %i; red.global.min.u32 [%x+12], %i; atom.global.or.b32 %w, [%x+16], %i;
atom.global.inc.u32 %w, [%x+20], 99; atom.global.exch.b32 %w, [%x+24], 7; atom.global.cas.b32 %w, [%x+28], 0, 5;
mov.b32 %w, 0x3f803f80; red.global.add.noftz.bf16x2 [%x+32], %w;
cvt.u64.u32 %z, %i; red.global.add.u64 [%x+40], %z;
setp.eq.u32 %p, %t, 0; @%p st.shared.u32 [count], 0; bar.sync 0; red.shared.add.u32 [count], 2; bar.sync 0;
@%p ld.shared.u32 %w, [count]; @%p red.global.add.u32 [%x+48], %w;
ret; }
";
    let rig = Rig::with(true, 2, kiln::cpu::Simd::detect().unwrap());
    let (x, y) = (rig.put(&[0u32, 0, 0, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0]), rig.put(&[0u32; 256]));
    rig.run(&module("k.ptx", text, &[]), Grid::new(4, 64), &[x.into(), y.into()]);
    // 256 threads; bf16 stops counting in ones at 256.
    let found: Vec<u32> = rig.get(x, 13);
    let expected = [256, 128f32.to_bits(), 255, 0, 255, 56, 7, 5, 0x4380_4380, 0, 255 * 128, 0, 4 * 128];
    assert_eq!(found, expected);
    assert_eq!(rig.get::<u32>(y, 256), [1; 256]);
}

#[test]
fn copies_land_when_they_are_waited_for_and_fill_up_with_zeros() {
    let text = "\
.version 7.0
.target sm_80
.visible .entry k(.param .u64 x, .param .u64 y) {
.reg .b32 %t, %s, %n, %v; .reg .b64 %x, %y; .shared .align 16 .b8 m[1024];
mov.u32 %t, %tid.x; ld.param.u64 %x, [x]; ld.param.u64 %y, [y];
mov.u32 %s, m; mad.lo.u32 %s, %t, 16, %s; mad.wide.u32 %x, %t, 16, %x;
st.shared.u32 [%s+512], -1; st.shared.u32 [%s+516], -1; st.shared.u32 [%s+520], -1; st.shared.u32 [%s+524], -1;
cp.async.cg.shared.global [%s], [%x], 16; cp.async.commit_group;
and.b32 %n, %t, 15;
cp.async.ca.shared.global [%s+512], [%x], 8, %n; cp.async.ca.shared.global [%s+520], [%x+8], 4; 
cp.async.ca.shared.global [%s+524], [%x+12], 4, 0; cp.async.commit_group;
cp.async.wait_group 1; ld.shared.u32 %v, [%s+4]; mad.wide.u32 %y, %t, 32, %y; st.global.u32 [%y], %v;
cp.async.wait_all; ld.shared.u32 %v, [%s+512]; st.global.u32 [%y+4], %v; ld.shared.u32 %v, [%s+516]; st.global.u32 [%y+8], %v;
ld.shared.u32 %v, [%s+520]; st.global.u32 [%y+12], %v; ld.shared.u32 %v, [%s+524]; st.global.u32 [%y+16], %v;
ret; }
";
    let rig = Rig::new(true);
    let x: Vec<u32> = (0..128).map(|i| 0x1111_1111 * (i % 15 + 1)).collect();
    let (px, py) = (rig.put(&x), rig.put(&[0u32; 256]));
    rig.run(&module("k.ptx", text, &[]), Grid::new(1, 32), &[px.into(), py.into()]);
    for (t, found) in rig.get::<[u32; 8]>(py, 32).into_iter().enumerate() {
        let kept = |word: u32, bytes: usize| if bytes >= 4 { word } else { word & ((1u32 << (8 * bytes)) - 1) };
        let n = (t % 16).min(8);
        let x = &x[4 * t..4 * t + 4];
        let expected = [x[1], kept(x[0], n), kept(x[1], n.saturating_sub(4)), x[2], 0];
        assert_eq!(found[..5], expected, "thread {t}");
    }
}
