//! What the parser reads, and what it refuses.

use kiln::device::ptx::{Module, Names, Type};
use kiln::error::Error;

/// A kernel with `body`, which begins in line 8.
fn kernel(body: &str) -> String {
    format!(
        "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 x, .param .u32 n) {{
.reg .pred %p, %q; .reg .b32 %r<9>; .reg .b64 %d<4>; .reg .f32 %f<9>;
.reg .f64 %g<2>; .reg .b16 %h<4>; .shared .align 16 .b8 tile[64];

{body}
}}
"
    )
}

fn refusal(text: &str) -> Error {
    match Module::new("k.ptx", text, &Names::new()) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

#[test]
fn declarations_are_read() {
    let text = "\
.version 7.8
.target sm_90a, debug
.address_size 64
.extern .shared .align 16 .b8 more[];
.shared .f32 some[3][4], one;
.visible .entry first(.param .u8 a, .param .u64 .ptr .global .align 16 b, .param .f32 c)
.maxntid 128, 2
.minnctapersm 1
{ .loc 1 2 3
  .reg .b32 %r<3>, %s;
  .shared .b64 own[2];
  { .reg .f32 %s; mov.f32 %s, 0f00000000; }
  mov.u32 %s, own; mov.u32 %r0, more; mov.u32 %r1, one;
  ret;
}
.entry second() .reqntid 32 { ret; }
";
    let module = Module::new("k.ptx", text, &Names::new()).unwrap();
    assert_eq!((module.version, module.target), ((7, 8), 90));
    let first = module.entry("first").unwrap();
    let params: Vec<_> = first.params.iter().map(|p| (p.name.as_str(), p.ty, p.offset)).collect();
    assert_eq!(params, [("a", Type::U8, 0), ("b", Type::U64, 8), ("c", Type::F32, 16)]);
    assert_eq!((first.max_threads, first.block), (Some([128, 2, 1]), None));
    // 48 bytes, one word, 16 bytes at a multiple of 8.
    assert_eq!((first.shared, first.dynamic_shared), (72, true));
    let second = module.entry("second").unwrap();
    assert_eq!((second.block, second.shared, second.code.len()), (Some([32, 1, 1]), 52, 2));
}

#[test]
fn what_ptxas_takes_is_taken() {
    for line in [
        "ld.param.u64 %d0, [x];",
        "@!%p bra $end; $end:",
        "ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%d0+-16];",
        "ld.global.u8 %r0, [%d0];",
        "ld.shared.v2.b32 {%r0, %r1}, [tile+8];",
        "st.volatile.shared.f32 [%r0], 0f3f800000;",
        "mov.b32 %r0, {%h0, %h1};",
        "mov.b64 {%r0, %r1}, %d0;",
        "mov.u32 %r0, %tid.x;",
        "mov.b32 %r0, %f0;",
        "mov.u64 %d0, tile;",
        "setp.lt.and.s32 %p|%q, %r0, -5, !%q;",
        "shfl.sync.bfly.b32 %r0|%p, %r1, 16, 31, -1;",
        "cvt.rn.bf16x2.f32 %r0, %f0, %f1;",
        "cvt.rzi.s32.f32 %r0, %f0;",
        "cvt.u64.u32 %d0, %r0;",
        "cp.async.ca.shared.global [%r0], [%d0], 16, %r1;",
        "atom.global.add.f32 %f0, [%d0], %f1;",
        "red.relaxed.gpu.global.max.u32 [%d0+4], %r0;",
        "fma.rn.ftz.sat.f32 %f0, %f1, %f2, %f3;",
        "mad.wide.u32 %d0, %r0, 4, %d1;",
        "lop3.b32 %r0, %r1, %r2, %r3, 0x96;",
        "bar.sync 1, 64;",
        "and.b32 %r0, %r1, 0xffffffff;",
        "sub.s32 %r0, %r1, -2147483648;",
    ] {
        Module::new("k.ptx", &kernel(line), &Names::new()).unwrap_or_else(|error| panic!("{line}\n{error}"));
    }
}

#[test]
fn mistakes_are_refused_at_their_place() {
    for (line, column, message) in [
        ("foo.b32 %r0, %r1;", 1, "unknown instruction `foo`"),
        ("add.rna.f32 %f0, %f1, %f2;", 5, "`.rna` is not supported here in `add.rna.f32`"),
        ("mad.u32 %r0, %r1, %r2, %r3;", 5, "`.u32` is not supported here in `mad.u32`"),
        ("add %r0, %r1, %r2;", 1, "`add` lacks a modifier or a type"),
        ("add.u32 %r0, %r1;", 17, "expected `,`, found `;`"),
        ("add.u32 %r0, %r1, %r2, %r3;", 22, "expected `;`, found `,`"),
        ("add.u32 %r0, %r1, %z;", 19, "`%z` is not declared"),
        ("add.u32 %r0, %r1, %d0;", 19, "`%d0` is a .b64, this operand is a .u32"),
        ("add.u32 %r0, %f1, %r1;", 14, "`%f1` is a .f32, this operand is a .u32"),
        ("mov.u32 %f0, 0;", 9, "`%f0` is a .f32, this operand is a .u32"),
        ("mov.f32 %f0, 0;", 14, "`0` is no constant of type .f32"),
        ("mov.u32 %r0, 4294967296;", 14, "`4294967296` is no constant of type .u32"),
        ("mov.u32 %r0, -2147483649;", 14, "`-2147483649` is no constant of type .u32"),
        ("mov.u32 5, %r0;", 9, "expected an operand, found `5`"),
        ("mov.u32 %r0, %clock;", 14, "`%clock` is not declared"),
        ("mov.u32 %r0, %pm.x;", 14, "unknown special register `%pm.x`"),
        ("@%r0 ret;", 2, "`%r0` is a .b32, this operand is a .pred"),
        ("bra $there;", 5, "there is no label `$there`"),
        ("$l: ret; $l: ret;", 10, "the label `$l` is set twice"),
        ("ld.param.u32 %r0, [m];", 20, "the kernel has no parameter `m`"),
        ("ld.param.u32 %r0, [x];", 20, "`x` is a .u64, not a .u32"),
        ("ld.global.f32 %f0, [%r0];", 21, "`%r0` is a .b32, this operand is a .b64"),
        ("ld.global.v4.f32 {%f0, %f1}, [%d0];", 18, "expected 4 registers in braces, found 2"),
        ("ld.global.v4.f32 %f0, [%d0];", 18, "expected `{`, found `%f0`"),
        ("ld.global.f32 %f0, %d0;", 20, "expected `[`, found `%d0`"),
        ("cp.async.cg.shared.global [%d0], [%r0], 16;", 35, "`%r0` is a .b32, this operand is a .b64"),
        ("cp.async.cg.shared.global [%r0], [%d0], %r1;", 41, "expected a constant: the assembler must know it"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%r4}, \
             {%f0, %f1, %f2, %f3};",
            97,
            "expected 2 registers in braces, found 1",
        ),
        (
            "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0, %r1, %r2, %r3}, [%r4];",
            42,
            "expected 2 registers in braces, found 4",
        ),
        ("add.rn.bf16x2 %r0, %r1, %r2;", 1, "`add.rn.bf16x2` needs PTX 7.8, the file says .version 7.0"),
        (".reg .b32 %tid;", 11, "`%tid` would hide the special register of that name"),
        (".reg .b32 %r3;", 11, "the register `%r3` is declared twice"),
        (".reg .i32 %x;", 6, "`.i32` is not a type"),
        ("mov.b32 %r0, {%h0, %h1, %h2};", 14, "`mov.b32` cannot be of 3 parts"),
        (".shared .b8 tile[3];", 13, "`tile` is declared twice"),
        (".shared .align 3 .b8 odd[4];", 16, "an alignment of 3; it is a power of 2, at most 1024"),
        (".shared .b8 all[4294967296][4294967296];", 13, "`all` is larger than the shared memory of any GPU"),
        (".reg .b32 %z<100000>;", 11, "100000 registers are more than any GPU has"),
        ("ld.global.b32 %r0, [%d0+-9223372036854775808];", 21, "the offset -9223372036854775808 does not fit 32 bits"),
        ("ld.global.b32 %r0, [16];", 21, "an address is a register or a name, and perhaps an offset"),
        (".extern .shared .b8 z[];", 1, "expected an instruction, found `.extern`"),
        ("0 ret;", 1, "expected an instruction, found `0`"),
    ] {
        let error = refusal(&kernel(line)).to_string();
        let expected = format!("k.ptx:8:{column}: {message}\n  {}", line.trim());
        assert_eq!(error, expected, "{line}");
    }
}

#[test]
fn mistakes_of_a_file_are_refused() {
    for (text, message) in [
        (".entry k() { ret; }", "k.ptx:1:1: `.version` and `.target` must stand before the first kernel"),
        (
            ".version 7.0\n.target sm_80\n.entry k() .reqntid 32 .maxntid 64 {",
            "k.ptx:3:24: `.maxntid` and `.reqntid` exclude",
        ),
        (".version x\n", "k.ptx:1:10: expected a version, as `7.8`"),
        (".version 7.0\n.target gfx90\n", "k.ptx:2:9: expected a target, as `sm_80`"),
        (".address_size 32\n", "k.ptx:1:15: addresses have 64 bits here, not 32"),
        (".global .b32 x;\n", "k.ptx:1:1: `.global` is not supported here"),
        (".version 7.0\n.target sm_80\n.entry k() {\n ret;\n", "k.ptx:4:1: the kernel has no `}`"),
        (".version 7.0\n.target sm_80\n.entry k() {}\n.entry k() {}", "k.ptx:4:1: there are two kernels called `k`"),
        (
            ".version 7.0\n.target sm_80\n.entry k(.param .u32 a, .param .u32 a) {}",
            "k.ptx:3:37: there are two parameters",
        ),
        (
            ".version 6.0\n.target sm_80\n.entry k() { cp.async.wait_all; }",
            "k.ptx:3:14: `cp.async.wait_all` needs PTX 7.0",
        ),
        (
            ".version 7.0\n.target sm_70\n.entry k() { cp.async.wait_all; }",
            "k.ptx:3:14: `cp.async.wait_all` needs sm_80",
        ),
    ] {
        let error = refusal(text);
        assert!(error.to_string().starts_with(message), "expected {message}\n   found {error}");
    }
}

#[test]
fn a_mistake_in_an_expanded_line_points_into_the_source() {
    let body = "\
//@ macro twice(x)
  //@ for i in 0..2
  add.u32 %r${i}, %r${i+1}, %${x};
  //@ end
//@ end
//@ twice(r2)
//@ twice(d1)";
    let error = refusal(&kernel(body)).to_string();
    let expected = "k.ptx:10:29: `%d1` is a .b64, this operand is a .u32 (in the macro called in line 14)\n  \
                    add.u32 %r${i}, %r${i+1}, %${x};";
    assert_eq!(error, expected);
}

#[test]
fn a_hint_says_what_is_supported() {
    let hint = |line: &str| refusal(&kernel(line)).hint().unwrap_or("").to_owned();
    assert!(hint("ex2.full.f32 %f0, %f1;").contains("{sin|cos|ex2|lg2}.approx{.ftz}.f32"));
    assert!(hint("fop.f32 %f0, %f1;").contains("fma"));
    assert!(hint("mov.f32 %f0, 1;").contains("0f3f800000"));
    assert_eq!(hint("bra $l; $k: $m:"), "labels here: $k, $m");
    assert_eq!(hint("ld.param.u32 %r0, [m];"), "it has: x, n");
}
