//! Mistakes planted in the kernels that are used, one at a time: each must be refused by the parser, by the simulated device
//! with its checks, or by the comparison with f64, before it could train a model a little wrong.

use super::sim;
use kiln::proof::{Rig, cases};

/// How a mistake comes to light.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// The parser refuses the text with a message that has this.
    Text(&'static str),
    /// The simulated device refuses the run, likewise.
    Fault(&'static str),
    /// A result differs from f64.
    Result,
}
use By::{Fault, Result, Text};

/// What is wrong, in which kernel, what is replaced by what, and how that is found.
type Planted = (&'static str, &'static str, &'static str, &'static str, By);

const PLANTED: [Planted; 51] = [
    // Products on tensor cores.
    (
        "no wait for copies",
        "gemm",
        "    cp.async.wait_group ${STAGES - 2};\n",
        "",
        Fault("a cp.async of thread 0 is still copying"),
    ),
    (
        "wait for one group too few",
        "gemm",
        "cp.async.wait_group ${STAGES - 2}",
        "cp.async.wait_group ${STAGES - 1}",
        Fault("a cp.async of thread 0 is still copying"),
    ),
    (
        "rows of a tile a piece apart",
        "gemm",
        "mad.lo.u32 %to${X}, %r, ${KB}, %u;",
        "mad.lo.u32 %to${X}, %r, 16, %u;",
        Fault("a cp.async of thread 1 is still copying"),
    ),
    (
        "a wrong swizzle on the way in",
        "gemm",
        "xor.b32 %u, %u, %q;\n    shl.b32 %u, %u, 4;\n    mad.lo.u32 %to${X}, %r, ${KB}",
        "shl.b32 %u, %u, 4;\n    mad.lo.u32 %to${X}, %r, ${KB}",
        Fault("a cp.async of thread 0 is still copying"),
    ),
    (
        "a row beyond the end",
        "gemm",
        "min.u32 %s, %r, %last;",
        "mov.u32 %s, %r;",
        Fault("reads 16 bytes of global memory outside of any allocation"),
    ),
    (
        "no zeros beyond K",
        "gemm",
        "min.s32 %s, %s, 16;\n    //@ for",
        "mov.u32 %s, 16;\n    //@ for",
        Fault("reads 16 bytes of global memory outside of any allocation"),
    ),
    (
        "fragments swapped",
        "gemm",
        "{%a${a}, %a${a+1}, %a${a+2}, %a${a+3}}, [%p+${mi*16*KB}]",
        "{%a${a}, %a${a+2}, %a${a+1}, %a${a+3}}, [%p+${mi*16*KB}]",
        Result,
    ),
    ("a fragment of the other rows", "gemm", "[%p+${nj*16*KB}]", "[%p+${nj*8*KB}]", Result),
    (
        "a stage too few",
        "gemm",
        "setp.eq.u32 %in, %ws, %end;",
        "setp.gt.u32 %in, %ws, %end;",
        Fault("to outside of the block's 24576 bytes of shared memory"),
    ),
    (
        "a misspelt register",
        "gemm",
        "add.u32 %ws, %ws, ${STAGE};",
        "add.u32 %ws, %sw, ${STAGE};",
        Text("`%sw` is not declared"),
    ),
    (
        "a misspelt label",
        "gemm",
        "@%in sub.u32 %ws, %ws, ${STAGES*STAGE};",
        "@%in bra $wrap;",
        Text("there is no label `$wrap`"),
    ),
    (
        "operands of tf32 not rounded",
        "gemm",
        "cvt.rna.tf32.f32 %${X}${j}, %${X}${j};",
        "mov.b32 %${X}${j}, %${X}${j};",
        Result,
    ),
    // Products without them.
    (
        "no barrier between tiles",
        "sgemm.ptx",
        "bar.sync 0;",
        "",
        Fault("reads shared memory that thread 4 wrote with no barrier between"),
    ),
    // Attention.
    (
        "no barrier before a tile is used",
        "attention_fwd",
        "cp.async.wait_group 1;\n    bar.sync 0;\n    //@ for kk",
        "cp.async.wait_group 1;\n    //@ for kk",
        Fault("reads shared memory that thread 4 wrote with no barrier between"),
    ),
    (
        "no barrier before a buffer is filled anew",
        "attention_fwd",
        "bar.sync 0;                           // all have read this buffer",
        "// all have read this buffer",
        Fault("writes shared memory that threads of warp 0 read with no barrier between"),
    ),
    (
        "no wait for the next keys",
        "attention_fwd",
        "    cp.async.wait_group 1;\n    bar.sync 0;\n    sub.u32 %st",
        "    bar.sync 0;\n    sub.u32 %st",
        Fault("a cp.async of thread 0 is still copying"),
    ),
    (
        "the diagonal is not seen",
        "attention_fwd",
        "setp.lt.s32 %in, %row, ${i/4*8 + i % 2 - i % 4/2*8};",
        "setp.le.s32 %in, %row, ${i/4*8 + i % 2 - i % 4/2*8};",
        Result,
    ),
    ("no mask", "attention_fwd", "@%diagonal bra $seen;", "bra $seen;", Result),
    ("old sums are not rescaled", "attention_fwd", "mul.f32 %l${h}, %l${h}, %alpha${h};\n", "", Result),
    (
        "a maximum over half the lanes",
        "attention_fwd",
        "//@ for k in 0..2\n    shfl.sync.bfly",
        "//@ for k in 0..1\n    shfl.sync.bfly",
        Result,
    ),
    (
        "halves of a pair swapped",
        "attention_fwd",
        "cvt.rn.${T}x2.f32 ${a}0, ${x}${i+1}, ${x}${i};",
        "cvt.rn.${T}x2.f32 ${a}0, ${x}${i}, ${x}${i+1};",
        Result,
    ),
    (
        "an uninitialised sum",
        "attention_fwd",
        "mov.f32 %l0, 0f00000000;\n",
        "",
        Fault("`%l0` is read before anything wrote it"),
    ),
    (
        "rows beyond the end are written",
        "attention_fwd",
        "@%in bra $put${@}_${i};",
        "",
        Fault("writes 16 bytes of global memory outside of any allocation"),
    ),
    (
        "half of a warp does not take part",
        "attention_delta",
        "shfl.sync.bfly.b32 %f, %sum, ${1 << k}, 31, 0xffffffff;",
        "@%in shfl.sync.bfly.b32 %f, %sum, ${1 << k}, 31, 0xffffffff;",
        Fault("lane 0 is named in the mask 0xffffffff and does not come here"),
    ),
    (
        "one element too many",
        "attention_delta",
        "setp.ge.u32 %in, %row, %rows;\n    @%in bra $add;",
        "setp.gt.u32 %in, %row, %rows;\n    @%in bra $add;",
        Fault("reads 16 bytes of global memory outside of any allocation"),
    ),
    // Norms.
    (
        "a row too many",
        "layernorm_fwd",
        "setp.ge.u32 %out, %row, %rows;\n    @%out ret;\n    ld.param.u64 %px",
        "ld.param.u64 %px",
        Fault("reads 16 bytes of global memory outside of any allocation"),
    ),
    (
        "the mean is not subtracted",
        "layernorm_fwd",
        "div.rn.f32 %mean, %sum, %count;",
        "mov.f32 %mean, 0f00000000;",
        Result,
    ),
    ("no eps", "layernorm_fwd", "add.f32 %sum, %sum, %eps;\n", "", Result),
    (
        "bytes of another type",
        "layernorm_fwd",
        "//@ row_address(%py, SIZE)",
        "//@ row_address(%py, 4)",
        Fault("writes 16 bytes of global memory outside of any allocation"),
    ),
    (
        "nobody keeps the statistics",
        "layernorm_fwd",
        "setp.ne.u32 %out, %e, 0;              // the row's first",
        "setp.ne.u32 %out, %e, 1;              // the row's first",
        Fault("reads global memory that nothing wrote"),
    ),
    // Tables.
    (
        "two blocks add up one row",
        "embedding_bwd",
        "@%same ret;",
        "",
        Fault("touches in the same launch, one of them writing"),
    ),
    (
        "no barrier before what warps found",
        "embedding_bwd",
        "bar.sync 0;\n    ld.shared.v4.u32",
        "ld.shared.v4.u32",
        Fault("reads shared memory that nothing wrote"),
    ),
    (
        "ids beyond the end",
        "embedding_bwd",
        "@%same ld.global.u32 %other, [%at];",
        "ld.global.u32 %other, [%at];",
        Fault("reads 4 bytes of global memory outside of any allocation"),
    ),
    ("the first row only", "embedding_bwd", "@%over bra $chunk;", "", Result),
    ("the wrong position", "embedding_fwd", "add.u32 %t, %t, %start;\n", "", Result),
    // Rows.
    ("sine for cosine", "rope_fwd", "mul.f32 %f, %a${j}, %sin${j};", "mul.f32 %f, %a${j}, %cos${j};", Result),
    (
        "an address that is no multiple of 16",
        "rope_fwd",
        "mad.wide.u32 %at, %k, 4, %pcos;",
        "mad.wide.u32 %at, %k, 4, %pcos;\n    add.u64 %at, %at, 4;",
        Fault("an access of 16 bytes at an address that is no multiple of 16"),
    ),
    (
        "shared memory for global",
        "rope_fwd",
        "    bra $turn;\n$rest:",
        "    ld.shared.f32 %f, [%at];\n    bra $turn;\n$rest:",
        Fault("reads 4 bytes outside of the block's 0 bytes of shared memory"),
    ),
    (
        "an operand of another type",
        "rope_fwd",
        "rem.u32 %t, %row, %time;",
        "rem.u32 %t, %row, %sign;",
        Text("`%sign` is a .f32, this operand is a .u32"),
    ),
    (
        "a step of a warp's sum",
        "sum_fwd",
        "shfl.sync.bfly.b32 %u, %sum, ${16 >> k}",
        "shfl.sync.bfly.b32 %u, %sum, ${8 >> k}",
        Result,
    ),
    // Element by element.
    ("random numbers of another block", "dropout_fwd", "shr.u32 %q, %i, 2;", "shr.u32 %q, %i, 3;", Result),
    ("the other pair of normal numbers", "sample_fwd", "%r2, %r3)", "%r0, %r3)", Result),
    // Of pictures.
    ("squares around 0", "norm_fold", "sub.f32 %d, %x, %mean;", "mov.f32 %d, %x;", Result),
    ("a gradient without its mean", "norm_back", "sub.f32 %s, %s, %a${q};\n", "", Result),
    ("the first window of a pixel", "pool_bwd", "add.u32 ${lo}, ${lo}, 1;\n    selp", "selp", Result),
    ("the other half of a row", "split_fwd", "mad.lo.u32 %q, %q, %c, %i;", "mad.lo.u32 %q, %c, %half, %i;", Result),
    (
        "the last of the nearest codes",
        "codes_nearest",
        "setp.lt.u32 %first, %other",
        "setp.gt.u32 %first, %other",
        Result,
    ),
    ("no free bits", "kl_bwd", "selp.f32 %k${q}, %dloss, 0f00000000, %above;", "mov.f32 %k${q}, %dloss;", Result),
    ("the bias of the second moment", "adamw", "fma.rn.f32 %t, %t, %rms, %eps;", "add.f32 %t, %t, %eps;", Result),
    (
        "a state of another layout",
        "adamw",
        "ld.global.f32 %keep, [%pst+36];",
        "ld.global.f32 %keep, [%pst+34];",
        Fault("an access of 4 bytes at an address that is no multiple of 4"),
    ),
    ("decay in every group", "adamw", "@%no mov.f32 %keep, 0f3f800000;\n", "", Result),
];

#[test]
fn forty_mistakes_planted_in_the_kernels_are_found() {
    let all = cases();
    for (what, kernel, from, to, by) in PLANTED {
        let of: Vec<_> = all.iter().filter(|case| case.is_of(kernel)).collect();
        let file = of.first().unwrap_or_else(|| panic!("{kernel}: no such kernel")).file;
        let device = sim();
        let rig = Rig::with_texts(&device, |name, text| {
            if name != file {
                return text.to_owned();
            }
            // In the kernel of that name, or wherever it is.
            let start =
                text.find(&format!("entry {kernel}(")).filter(|start| text[*start..].contains(from)).unwrap_or(0);
            assert!(text[start..].contains(from), "{what}: `{from}` is not in {file}");
            format!("{}{}", &text[..start], text[start..].replacen(from, to, 1))
        });
        let found = of.iter().find_map(|case| match rig.run(case) {
            Err(error) => Some(Err(error.to_string())),
            Ok(outcome) => outcome.checks.iter().find(|check| !check.holds()).map(|check| Ok(format!("{check:?}"))),
        });
        match (by, found) {
            // All messages begin with the file and the line, and those of a run name the block.
            (Text(part) | Fault(part), Some(Err(said))) => {
                let line = said.strip_prefix(file).and_then(|rest| rest.strip_prefix(':')?.split(':').next());
                assert!(line.is_some_and(|line| line.parse::<u32>().is_ok()), "{what}: {said}");
                assert!(said.contains(part), "{what}: {said}");
                assert_eq!(said.contains("block ("), by == Fault(part), "{what}: {said}");
            }
            (Result, Some(Ok(_))) => {}
            (_, found) => panic!("{what}: {found:?}"),
        }
    }
}
