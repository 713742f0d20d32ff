//! Planted mistakes: each must be refused, with a message that points at its line.

use super::kernels::{GEMM, SGEMM, error, product};
use super::rig::{Rig, module, numbers};
use half::bf16;
use kiln::device::ptx::{Module, Names};
use kiln::device::sim::{Fault, Kind};
use kiln::device::{Arg, Driver, Grid};
use std::sync::Arc;

/// How a mistake came to light.
#[derive(Debug)]
enum Found {
    /// Nobody noticed.
    Nothing,
    /// The parser refused the text.
    Text(String),
    /// The simulator refused the run.
    Fault(Box<Fault>),
    /// The result was wrong.
    Result,
}

/// Runs a GEMM of 64 × 64 × 128 from `text`.
fn gemm(text: &str) -> Found {
    let module = match Module::new("gemm.ptx", text, &Names::new()) {
        Ok(module) => Arc::new(module),
        Err(error) => return Found::Text(error.to_string()),
    };
    let rig = Rig::new(true);
    let [m, n, k] = [64, 64, 128];
    let half = |v: Vec<f32>| v.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
    let (a, b) = (half(numbers(m * k, 1)), half(numbers(k * n, 2)));
    let (pa, pb, pc) = (rig.put(&a), rig.put(&b), rig.sim.alloc(4 * m * n).unwrap());
    let grid = Grid { blocks: [1, 1, 1], threads: [128, 1, 1], shared: 3 * (64 * 80 + 32 * 144) };
    let args = [pa.into(), pb.into(), pc.into(), Arg::U32(n as u32), Arg::U32(k as u32)];
    if let Err(error) = rig.try_run(&module, grid, &args) {
        return Found::Fault(Box::new(rig.sim.fault().unwrap_or_else(|| panic!("{error}"))));
    }
    let wide = |v: &[bf16]| v.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let exact = product(&wide(&a), &wide(&b), [m, n, k]);
    if error(&rig.get(pc, m * n), &exact) < 1e-6 { Found::Nothing } else { Found::Result }
}

/// `text` with `from`, which must be there, replaced once by `to`.
fn planted(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the kernel");
    text.replacen(from, to, 1)
}

#[test]
fn the_kernel_without_a_mistake_is_right() {
    assert!(matches!(gemm(GEMM), Found::Nothing));
}

#[test]
fn mistakes_in_the_text_are_found_by_the_parser() {
    for (from, to, message) in [
        ("@%more bra    $step", "@%more bra    $stop", "there is no label `$stop`"),
        ("[%${x}_from${i}], 16;", "[%${x}_from${i}], 12;", "cp.async copies 4, 8 or 16 bytes"),
        ("mov.u32       %filled, 0;", "mov.u32       %c0, 0;", "`%c0` is a .f32, this operand is a .u32"),
        ("{%b${j*2}, %b${j*2+1}}", "{%b${j*2}}", "expected 2 registers in braces, found 1"),
        ("[%${x}_to+${i*SKIP*row}], [%${x}_from${i}]", "[%${x}_from${i}], [%${x}_to]", "`%a_to` is a .b32"),
        ("m8n8.x4.shared", "m8n8.x2.shared", "expected 2 registers in braces, found 4"),
        ("mad.lo.u32    %a_to, %i", "mad.u32    %a_to, %i", "`.u32` is not supported here in `mad.u32`"),
        (".version 7.0", ".version 6.0", "needs PTX 7.0, the file says .version 6.0"),
        (".target sm_80", ".target sm_75", "needs sm_80, the file says .target sm_75"),
        ("[k];", "[kk];", "the kernel has no parameter `kk`"),
        ("shr.u32       %steps, %k, 5", "shr.u32       %steps, %y, 5", "`%y` is a .b64, this operand is a .u32"),
        ("shr.u32       %steps, %k, 5", "shr.u32       %steps, %kk, 5", "`%kk` is not declared"),
        ("//@ let WM = 2", "//@ let WN = 2", "unknown name `WM`"),
        ("ld.param.u64  %c, [c]", "ld.param.u32  %x, [c]", "`c` is a .u64, not a .u32"),
        ("%lane, 3;", "%lane, 0d0000000000000000;", "`0d0000000000000000` is no constant of type .b32"),
    ] {
        let text = planted(GEMM, from, to);
        match gemm(&text) {
            Found::Text(found) => {
                assert!(found.contains(message), "{to}\nexpected {message}\n   found {found}");
                // The line quoted is one of the source, and the one with its number.
                let number: usize = found.split(':').nth(1).and_then(|n| n.parse().ok()).expect("a line");
                assert!(
                    found.lines().last().unwrap().trim() == text.lines().nth(number - 1).unwrap().trim(),
                    "{found}"
                );
            }
            found => panic!("{to}: {found:?}"),
        }
    }
}

#[test]
fn mistakes_that_an_assembler_accepts_are_found_in_the_run() {
    for (from, to, kind, line) in [
        // Nothing written where it is read.
        ("    mov.u32       %filled, 0;\n", "", Kind::Register, "setp.ge.u32 %last, %filled"),
        ("    mov.f32       %c${i}, 0f00000000;\n", "", Kind::Register, "mma.sync"),
        ("[%a_at+${i*16*ROWA + kk*32}]", "[%a_at+${i*16*ROWA + kk*32 + 48}]", Kind::SharedUnwritten, "ldmatrix"),
        // Order.
        ("    bar.sync      0;\n", "", Kind::SharedRace, "ldmatrix"),
        ("    cp.async.wait_group ${STAGES-2};\n", "", Kind::AsyncCopy, "ldmatrix"),
        ("wait_group ${STAGES-2}", "wait_group ${STAGES-1}", Kind::AsyncCopy, "ldmatrix"),
        ("//@ for s in 0..STAGES-1", "//@ for s in 0..STAGES", Kind::AsyncCopy, "ldmatrix"),
        // Addresses.
        ("[%c+${j*32}]", "[%c+${j*32+4}]", Kind::Alignment, "st.global.v2"),
        ("//@ let ROWA = 32*2 + 16", "//@ let ROWA = 32*2 + 8", Kind::Alignment, "cp.async.cg"),
        ("mul.wide.u32  %down, %n, 32;", "mul.wide.u32  %down, %n, 64;", Kind::Bounds, "st.global.v2"),
        ("mul.wide.u32  %b_step, %n, 64;", "mul.wide.u32  %b_step, %n, 128;", Kind::Bounds, "cp.async.cg"),
        (
            "add.u32       %a_to_to_end, %a_to, ${RING}",
            "add.u32 %a_to_to_end, %a_to, ${RING*2}",
            Kind::Bounds,
            "cp.async",
        ),
        // Control.
        ("add.u32       %done, %done, 1;", "", Kind::Steps, "bra    $step"),
        ("    bar.sync      0;", "    @%wrap bar.sync      0;", Kind::SharedRace, "ldmatrix"),
        (
            "$step:\n",
            "$step:\n    setp.eq.u32 %wrap, %lane, 3;\n    @%wrap bra $all;\n    bar.sync 0;\n$all:\n",
            Kind::Divergence,
            "bar.sync 0;",
        ),
        ("$step:\n", "$step:\n    setp.eq.u32 %wrap, %warp, 3;\n    @!%wrap bar.sync 1;\n", Kind::Deadlock, "bar.sync"),
    ] {
        let text = planted(GEMM, from, to);
        // A loop that does not end would count far, here.
        match gemm(&text) {
            Found::Fault(fault) => {
                assert_eq!(fault.kind, kind, "{to}: {fault}");
                let quoted = text.lines().nth(fault.line - 1).unwrap();
                assert!(quoted.contains(line), "{to}: expected a line with `{line}`\n{fault}");
                let message = fault.to_string();
                assert!(
                    message.starts_with(&format!("gemm.ptx:{}: kernel gemm_bf16_64x64: ", fault.line)),
                    "{message}"
                );
                assert!(message.contains("block (0, 0, 0), thread ("), "{message}");
                assert!(!fault.hint.is_empty());
            }
            found => panic!("{from} -> {to}: {found:?}"),
        }
    }
}

#[test]
fn mistakes_of_arithmetic_are_found_in_the_result() {
    for (from, to) in [
        ("%a${i*4+1}, %a${i*4+2}, %a${i*4+3}}, {%b", "%a${i*4+2}, %a${i*4+1}, %a${i*4+3}}, {%b"),
        ("m8n8.x4.trans.shared", "m8n8.x4.shared"),
        ("ld.param.u64  %c, [c];", "ld.param.u64  %c, [a];"),
        ("shr.u32       %steps, %k, 5;", "shr.u32       %steps, %k, 6;"),
        ("mad.lo.u32    %column, %j, 2, %column;", "mad.lo.u32    %column, %j, 4, %column;"),
    ] {
        assert!(matches!(gemm(&planted(GEMM, from, to)), Found::Result | Found::Fault(_)), "{to}");
    }
}

#[test]
fn a_missing_barrier_before_a_store_is_a_race_with_the_readers() {
    let text = planted(SGEMM, "    bar.sync      0;\n", "");
    let rig = Rig::new(true);
    let x = rig.put(&numbers(64 * 64, 1));
    let grid = Grid::new(1, 256);
    let args = [x.into(), x.into(), rig.put(&vec![0f32; 64 * 64]).into(), Arg::U32(64), Arg::U32(64)];
    let fault = rig.fault(&module("sgemm.ptx", &text, &[]), grid, &args);
    assert_eq!(fault.kind, Kind::SharedRace);
    assert!(fault.text.starts_with("st.shared.f32"), "{fault}");
    assert!(fault.message.contains("writes shared memory that"), "{fault}");
}

/// A kernel of `x` and `n`, with %t the thread, %b the block, %i the thread of the grid and %a the address of word i of x.
fn small(body: &str) -> String {
    format!(
        "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry small(.param .u64 x, .param .u32 n) {{
.reg .pred %p, %q; .reg .b32 %t, %b, %i, %n, %u, %v, %w; .reg .b64 %x, %a, %c; .reg .f32 %f;
.shared .align 16 .b8 tile[512];
mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mov.u32 %u, %ntid.x; mad.lo.u32 %i, %b, %u, %t;
ld.param.u64 %x, [x]; mad.wide.u32 %a, %i, 4, %x; ld.param.u32 %n, [n];
{body}
ret;
}}
"
    )
}

/// Runs it as 2 blocks of 64 threads on 128 words.
fn small_fault(body: &str) -> (Fault, Rig) {
    let rig = Rig::new(true);
    let x = rig.put(&(0..128u32).collect::<Vec<_>>());
    let fault = rig.fault(&module("small.ptx", &small(body), &[]), Grid::new(2, 64), &[x.into(), Arg::U32(128)]);
    (fault, rig)
}

#[test]
fn each_kind_of_fault_names_its_thread_and_address() {
    for (body, kind, block, thread, message) in [
        ("ld.global.u32 %v, [%a+4];", Kind::Bounds, 1, 63, "reads 4 bytes of global memory outside of any allocation"),
        ("ld.global.u32 %v, [%a+-4];", Kind::Bounds, 0, 0, "reads 4 bytes of global memory outside"),
        ("mov.u64 %c, 16; ld.global.u32 %v, [%c];", Kind::Bounds, 0, 0, "far from any"),
        (
            "shl.b32 %u, %t, 3; add.u32 %u, %u, 16; st.shared.u32 [%u], %t;",
            Kind::Bounds,
            0,
            62,
            "writes 4 bytes outside of the block's 512",
        ),
        ("ld.global.u16 %v, [%a+1];", Kind::Alignment, 0, 0, "no multiple of 2"),
        ("ld.global.v2.u32 {%u, %v}, [%a];", Kind::Alignment, 0, 1, "no multiple of 8"),
        (
            "shl.b32 %u, %t, 2; ld.shared.u32 %v, [%u];",
            Kind::SharedUnwritten,
            0,
            0,
            "reads shared memory that nothing wrote",
        ),
        ("setp.ge.u32 %p, %t, 5; @%p mov.u32 %v, 1; add.u32 %w, %v, 1;", Kind::Register, 0, 0, "`%v` is read before"),
        ("setp.lt.u32 %p, %t, 40; @%p mov.u32 %v, 1; add.u32 %w, %v, 1;", Kind::Register, 0, 40, "`%v` is read before"),
        ("@%p ret;", Kind::Register, 0, 0, "`%p` is read before"),
        ("st.global.u32 [%x], %t;", Kind::GlobalRace, 1, 0, "writes global memory that block (0, 0, 0) touches"),
        (
            "ld.global.u32 %v, [%x]; setp.eq.u32 %p, %i, 100; @%p st.global.u32 [%x], %t;",
            Kind::GlobalRace,
            1,
            36,
            "writes global",
        ),
        ("red.global.add.u32 [%x], %t; ld.global.u32 %v, [%x];", Kind::GlobalRace, 1, 0, "block (0, 0, 0) touches"),
        ("st.shared.u32 [tile], %t;", Kind::SharedRace, 0, 1, "writes shared memory that thread 0 wrote"),
        (
            "shl.b32 %u, %t, 2; st.shared.u32 [%u], %t; xor.b32 %u, %u, 4; ld.shared.u32 %v, [%u];",
            Kind::SharedRace,
            0,
            0,
            "reads shared memory that thread 1 wrote",
        ),
        (
            "setp.eq.u32 %p, %t, 0; @%p st.shared.u32 [tile], %t; bar.warp.sync -1; ld.shared.u32 %v, [tile];",
            Kind::SharedRace,
            0,
            32,
            "thread 0 wrote",
        ),
        (
            "setp.lt.u32 %p, %t, 3; @%p bra $e; shfl.sync.idx.b32 %v, %t, 0, 31, -1; $e:",
            Kind::Lane,
            0,
            3,
            "lane 0 is named in the mask",
        ),
        (
            "setp.ge.u32 %p, %t, 3; @%p shfl.sync.idx.b32 %v, %t, 0, 31, 0xfffffff8;",
            Kind::Lane,
            0,
            3,
            "takes a value from a lane",
        ),
        ("setp.lt.u32 %p, %t, 3; @%p bra $e; bar.warp.sync -1; $e:", Kind::Divergence, 0, 3, "lane 0 is to take part"),
        ("setp.eq.u32 %p, %i, 70; @%p trap;", Kind::Trap, 1, 6, "the kernel stops itself"),
        ("bar.sync 0, 33;", Kind::Divergence, 0, 0, "barrier 0 for 33 threads"),
        ("bar.sync 0, 96;", Kind::Deadlock, 0, 0, "64 of 96 threads have come"),
    ] {
        let (fault, _) = small_fault(body);
        assert_eq!(fault.kind, kind, "{body}: {fault}");
        assert_eq!((fault.block, fault.thread), ([block, 0, 0], [thread, 0, 0]), "{body}: {fault}");
        assert!(fault.message.contains(message), "{body}: {fault}");
        assert_eq!(fault.line, 9, "{fault}");
        let address = matches!(
            kind,
            Kind::Bounds | Kind::Alignment | Kind::SharedUnwritten | Kind::SharedRace | Kind::GlobalRace
        );
        assert_eq!(fault.address.is_some(), address, "{fault}");
    }
}

#[test]
fn what_is_in_order_is_no_fault() {
    for body in [
        // A barrier of the block, and of a warp.
        "shl.b32 %u, %t, 2; st.shared.u32 [%u], %t; bar.sync 0; xor.b32 %u, %u, 252; ld.shared.u32 %v, [%u];",
        "shl.b32 %u, %t, 2; st.shared.u32 [%u], %t; bar.warp.sync -1; xor.b32 %u, %u, 124; ld.shared.u32 %v, [%u];",
        "shl.b32 %u, %t, 2; st.shared.u32 [%u], %t; ld.shared.u32 %v, [%u]; st.shared.u32 [%u], %v;",
        // Neighbours in one word.
        "shl.b32 %u, %t, 1; st.shared.u16 [%u], %t; ld.shared.u16 %v, [%u];",
        "cvt.u64.u32 %c, %i; add.u64 %c, %c, %x; st.global.u8 [%c], %t;",
        // All atomically.
        "red.global.add.u32 [%x], %t; atom.global.max.u32 %v, [%x], %t;",
        // Threads that have ended are not waited for.
        "setp.ge.u32 %p, %t, 32; @%p ret; bar.sync 0;",
        "setp.ge.u32 %p, %t, 40; @%p ret; bar.sync 0;",
        "setp.ge.u32 %p, %t, 40; @%p ret; bar.sync 3, 64;",
    ] {
        let rig = Rig::new(true);
        let x = rig.put(&(0..128u32).collect::<Vec<_>>());
        rig.run(&module("small.ptx", &small(body), &[]), Grid::new(2, 64), &[x.into(), Arg::U32(128)]);
    }
}

#[test]
fn memory_that_nothing_wrote_is_not_read() {
    let rig = Rig::new(true);
    let x = rig.sim.alloc(512).unwrap();
    let text = small("setp.ne.u32 %p, %i, 77; @%p st.global.u32 [%a], %i; ld.global.u32 %v, [%a];");
    let fault = rig.fault(&module("small.ptx", &text, &[]), Grid::new(2, 64), &[x.into(), Arg::U32(128)]);
    assert_eq!((fault.kind, fault.thread), (Kind::GlobalUnwritten, [13, 0, 0]), "{fault}");
    assert_eq!(fault.address, Some(x.0 + 4 * 77));
}

#[test]
fn arguments_and_grids_that_do_not_fit_are_refused() {
    let rig = Rig::new(true);
    let x = rig.put(&[0u32; 128]);
    let gone = rig.put(&[0u32; 4]);
    rig.sim.free(gone).unwrap();
    let plain = module("small.ptx", &small(""), &[]);
    let demands = module("small.ptx", &small("").replace("n) {", "n) .reqntid 64 {"), &[]);
    let dynamic =
        module("small.ptx", &small("").replace(".visible", ".extern .shared .align 16 .b8 more[]; .visible"), &[]);
    let grid = Grid::new(2, 64);
    let good = [x.into(), Arg::U32(128)];
    for (module, grid, args, message) in [
        (&plain, grid, &good[..1], "kernel small takes 2 arguments, 1 are given"),
        (&plain, grid, &[Arg::U32(128), x.into()][..], "argument 0 is U32(128), parameter x is a .u64"),
        (&plain, grid, &[x.into(), Arg::F32(1.0)][..], "argument 1 is F32(1.0), parameter n is a .u32"),
        (&plain, grid, &[x.into(), Arg::U64(1)][..], "argument 1 is U64(1), parameter n is a .u32"),
        (&plain, grid, &[gone.into(), Arg::U32(1)][..], "x is 0x70000000"),
        (&plain, Grid::new(2, 0), &good[..], "a block of [0, 1, 1] threads"),
        (&plain, Grid::new(2, 1025), &good[..], "a block of [1025, 1, 1] threads"),
        (&plain, Grid::new(0, 64), &good[..], "a grid of [0, 1, 1] blocks"),
        (&demands, Grid::new(2, 32), &good[..], "blocks of [32, 1, 1] threads, it demands [64, 1, 1]"),
        (&plain, Grid { shared: 170_000, ..grid }, &good[..], "170512 bytes of shared memory for a block"),
        (&dynamic, grid, &good[..], "it declares shared memory whose size the launch gives"),
    ] {
        let error = rig.try_run(module, grid, args).expect_err(message);
        assert!(error.to_string().contains(message), "expected {message}\n   found {error}");
        assert!(error.hint().is_some());
        assert!(rig.sim.fault().is_none());
    }
    assert_eq!(rig.run(&plain, grid, &good).total().lane, 8 * 128);
}

#[test]
fn without_checks_memory_is_still_safe() {
    for body in [
        "mov.u64 %c, 16; ld.global.u32 %v, [%c];",
        "mov.u32 %u, 1000000; st.shared.u32 [%u], %t;",
        "st.global.u32 [%a+-2000000000], %t;",
    ] {
        let rig = Rig::new(false);
        let x = rig.put(&[0u32; 128]);
        let fault = rig.fault(&module("small.ptx", &small(body), &[]), Grid::new(2, 64), &[x.into(), Arg::U32(128)]);
        assert_eq!(fault.kind, Kind::Bounds, "{fault}");
    }
}
