//! The instructions that kiln knows: one row each, or a family that is written alike.
//!
//! A row has the words of the instruction in the notation of [`syntax`](super::syntax), its operands, and what it means.
//! Operands are separated by blanks:
//!
//! | | |
//! |---|---|
//! | `t`, `u` | of the first and the last type among the words |
//! | `w` | of twice the first type's width |
//! | `f32`, `b32`, … | of that type |
//! | `~t` | as `t`, but the register may be wider |
//! | `4b32`, `N~t` | a vector `{…}` of four; of as many as `.v2`, `.x4` or none say |
//! | `=` before one | it is written |
//! | `=p`, `p`, `=b32\|p` | a predicate written, read; a second result that may be left out |
//! | `[g]`, `[s]`, `[.]` | an address in global or shared memory, or in the space that the words name |
//! | `#`, `L` | a constant, a label |
//! | `?` behind one | it may be left out |
//!
//! The first columns are the lowest PTX version (ten times) and target that have it.

use super::code::*;
use super::syntax::Mods;
use super::types::Type;

/// An instruction, or a family of them.
pub struct Row {
    /// The lowest PTX version, times ten.
    pub version: u32,
    /// The lowest target.
    pub target: u32,
    /// Its words.
    pub syntax: &'static str,
    /// Its operands.
    pub operands: &'static str,
    /// What it does.
    pub code: fn(&Mods<'_>) -> Code,
}

const fn row(
    version: u32,
    target: u32,
    syntax: &'static str,
    operands: &'static str,
    code: fn(&Mods<'_>) -> Code,
) -> Row {
    Row { version, target, syntax, operands, code }
}

fn mode(m: &Mods<'_>) -> FloatMode {
    let round = m.find().unwrap_or(Round::Rn);
    FloatMode { round, ftz: m.has("ftz"), sat: m.has("sat"), relu: m.has("relu"), nan: m.has("NaN") }
}

fn int1(m: &Mods<'_>) -> Code {
    Code::Int1(m.get(), m.ty(0))
}
fn bfind(m: &Mods<'_>) -> Code {
    Code::Int1(if m.has("shiftamt") { Int1::Shiftamt } else { Int1::Bfind }, m.ty(0))
}
fn int2(m: &Mods<'_>) -> Code {
    Code::Int2(m.get(), m.ty(0))
}
fn float1(m: &Mods<'_>) -> Code {
    Code::Float1(m.get(), m.ty(0), mode(m))
}
fn float2(m: &Mods<'_>) -> Code {
    Code::Float2(m.get(), m.ty(0), mode(m))
}
fn fma(m: &Mods<'_>) -> Code {
    Code::Fma(m.ty(0), mode(m))
}
fn convert(m: &Mods<'_>) -> Cvt {
    let FloatMode { ftz, sat, relu, .. } = mode(m);
    Cvt { to: m.ty(0), from: m.ty(1), round: m.find().unwrap_or(Round::Rn), ftz, sat, relu }
}
fn cvt(m: &Mods<'_>) -> Code {
    Code::Cvt(convert(m))
}
fn cvt_pair(m: &Mods<'_>) -> Code {
    Code::CvtPair(convert(m))
}
fn setp(m: &Mods<'_>) -> Code {
    Code::Setp { cmp: m.get(), ty: m.ty(0), ftz: m.has("ftz"), logic: m.find() }
}
/// The space that the words name: one space has two names.
fn space(m: &Mods<'_>) -> Space {
    match m.find() {
        Some(Space::SharedCta) => Space::Shared,
        Some(space) => space,
        None => Space::Generic,
    }
}
fn access(m: &Mods<'_>) -> Access {
    let strong = ["volatile", "relaxed", "acquire", "release"].iter().any(|word| m.has(word));
    Access { space: space(m), ty: m.ty(0), n: m.count(), strong }
}
fn nop(_: &Mods<'_>) -> Code {
    Code::Nop
}

/// All of them.
pub const TABLE: &[Row] = &[
    // Moves.
    row(10, 10, "mov.{<any>|f16|bf16}", "=t t", |m| Code::Mov(m.ty(0))),
    row(10, 10, "mov.pred", "=p p", |_| Code::Mov(Type::Pred)),
    row(20, 20, "cvta{.to}.{global|shared|shared::cta}.{u32|u64}", "=t t", |m| Code::Cvta(space(m), m.has("to"))),
    row(10, 10, "selp.<any>", "=t t t p", |m| Code::Selp(m.ty(0))),
    row(10, 10, "slct{.ftz}.<any>.{s32|f32}", "=t t t u", |m| Code::Slct(m.ty(0), m.ty(1))),
    // Integers.
    row(10, 10, "{add|sub|div|rem|min|max}.<int>", "=t t t", int2),
    row(10, 10, "{and|or|xor}.<bits>", "=t t t", int2),
    row(10, 10, "shl.<bits>", "=t t u32", int2),
    row(10, 10, "shr.{<bits>|<int>}", "=t t u32", int2),
    row(10, 10, "not.<bits>", "=t t", int1),
    row(10, 10, "{neg|abs}.{s16|s32|s64}", "=t t", int1),
    row(20, 20, "brev.{b32|b64}", "=t t", int1),
    row(20, 20, "{clz|popc}.{b32|b64}", "=u32 t", int1),
    row(20, 20, "bfind{.shiftamt}.{u32|u64|s32|s64}", "=u32 t", bfind),
    row(10, 10, "mul.{lo|hi}.<int>", "=t t t", |m| Code::Mul(m.get(), m.ty(0))),
    row(10, 10, "mul.wide.{u16|s16|u32|s32}", "=w t t", |m| Code::Mul(Half::Wide, m.ty(0))),
    row(10, 10, "mad.{lo|hi}.<int>", "=t t t t", |m| Code::Mad(m.get(), m.ty(0))),
    row(10, 10, "mad.wide.{u16|s16|u32|s32}", "=w t t w", |m| Code::Mad(Half::Wide, m.ty(0))),
    row(43, 50, "lop3.b32", "=b32 b32 b32 b32 #", |_| Code::Lop3),
    row(20, 20, "prmt.b32", "=b32 b32 b32 b32", |_| Code::Prmt),
    row(31, 32, "shf.{l|r}.{clamp|wrap}.b32", "=b32 b32 b32 u32", |m| Code::Shf {
        left: m.has("l"),
        clamp: m.has("clamp"),
    }),
    row(20, 20, "bfe.{u32|s32|u64|s64}", "=t t u32 u32", |m| Code::Bfe(m.ty(0))),
    row(20, 20, "bfi.{b32|b64}", "=t t t u32 u32", |m| Code::Bfi(m.ty(0))),
    // Predicates.
    row(10, 10, "{and|or|xor}.pred", "=p p p", |m| Code::Pred2(m.get())),
    row(10, 10, "not.pred", "=p p", |_| Code::PredNot),
    row(10, 10, "setp.{eq|ne|lt|le|gt|ge|lo|ls|hi|hs}{.and|.or|.xor}.{<int>|<bits>}", "=p|p t t p?", setp),
    row(
        10,
        10,
        "setp.{eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan}{.and|.or|.xor}{.ftz}.{f32|f64|f16|bf16}",
        "=p|p t t p?",
        setp,
    ),
    // Floats.
    row(10, 10, "{add|sub|mul}{.rn|.rz|.rm|.rp}{.ftz}{.sat}.f32", "=t t t", float2),
    row(10, 13, "{add|sub|mul}{.rn}.f64", "=t t t", float2),
    row(42, 53, "{add|sub|mul}{.rn}{.ftz}{.sat}.{f16|f16x2}", "=t t t", float2),
    row(78, 90, "{add|sub|mul}{.rn}.{bf16|bf16x2}", "=t t t", float2),
    row(20, 20, "fma.{rn|rz|rm|rp}{.ftz}{.sat}.f32", "=t t t t", fma),
    row(10, 13, "fma.rn.f64", "=t t t t", fma),
    row(42, 53, "fma.rn{.ftz}{.sat}.{f16|f16x2}", "=t t t t", fma),
    row(70, 80, "fma.rn{.relu}.<half>", "=t t t t", fma),
    row(20, 20, "mad.rn{.ftz}{.sat}.{f32|f64}", "=t t t t", fma),
    row(10, 10, "{min|max}{.ftz}.{f32|f64}", "=t t t", float2),
    row(70, 80, "{min|max}{.ftz}{.NaN}.{f32|<half>}", "=t t t", float2),
    row(10, 10, "{neg|abs}{.ftz}.{f32|f64}", "=t t", float1),
    row(60, 53, "{neg|abs}{.ftz}.{f16|f16x2}", "=t t", float1),
    row(70, 80, "{neg|abs}.{bf16|bf16x2}", "=t t", float1),
    row(20, 20, "copysign.{f32|f64}", "=t t t", float2),
    row(14, 10, "div.{approx|full|rn}{.ftz}.f32", "=t t t", float2),
    row(14, 20, "div.rn.f64", "=t t t", float2),
    row(14, 10, "{rcp|sqrt}.{approx|rn}{.ftz}.f32", "=t t", float1),
    row(14, 20, "{rcp|sqrt}.rn.f64", "=t t", float1),
    row(14, 10, "rsqrt.approx{.ftz}.{f32|f64}", "=t t", float1),
    row(14, 10, "{sin|cos|ex2|lg2}.approx{.ftz}.f32", "=t t", float1),
    row(70, 75, "tanh.approx.f32", "=t t", float1),
    row(70, 75, "{tanh|ex2}.approx.{f16|f16x2}", "=t t", float1),
    row(78, 90, "tanh.approx.{bf16|bf16x2}", "=t t", float1),
    row(78, 90, "ex2.approx.ftz.{bf16|bf16x2}", "=t t", float1),
    // Conversions.
    row(10, 10, "cvt{.sat}.<anyint>.<anyint>", "=~t ~u", cvt),
    row(10, 10, "cvt.{rni|rzi|rmi|rpi}{.ftz}{.sat}.<anyint>.{f16|f32|f64}", "=~t u", cvt),
    row(10, 10, "cvt.{rn|rz|rm|rp}{.sat}.{f16|f32|f64}.<anyint>", "=t ~u", cvt),
    row(10, 10, "cvt.{rn|rz|rm|rp}{.ftz}{.sat}.{f16|f32}.f64", "=t u", cvt),
    row(10, 10, "cvt.{rn|rz|rm|rp}{.ftz}{.sat}.f16.f32", "=t u", cvt),
    row(10, 10, "cvt{.ftz}{.sat}.{f32|f64}.{f16|f32}", "=t u", cvt),
    row(10, 10, "cvt{.rni|.rzi|.rmi|.rpi}{.ftz}{.sat}.f32.f32", "=t u", cvt),
    row(10, 13, "cvt{.rni|.rzi|.rmi|.rpi}{.sat}.f64.f64", "=t u", cvt),
    row(42, 53, "cvt{.rni|.rzi|.rmi|.rpi}{.ftz}{.sat}.f16.f16", "=t u", cvt),
    row(71, 80, "cvt.f32.bf16", "=t u", cvt),
    row(78, 90, "cvt.{rni|rzi|rmi|rpi}.<anyint>.bf16", "=~t u", cvt),
    row(78, 90, "cvt.{rn|rz|rm|rp}.bf16.{<anyint>|f16|f64}", "=t ~u", cvt),
    row(70, 80, "cvt.{rn|rz}{.relu}.{f16|bf16}.f32", "=t u", cvt),
    row(70, 80, "cvt.{rn|rz}{.relu}.{f16x2|bf16x2}.f32", "=t f32 f32", cvt_pair),
    row(70, 80, "cvt.rna.tf32.f32", "=t u", cvt),
    row(78, 90, "cvt.{rn|rz}{.relu}.tf32.f32", "=t u", cvt),
    // Memory.
    row(10, 10, "ld.param.<mem>", "=~t [p]", |m| Code::Ld(access(m))),
    row(
        10,
        10,
        "ld{.weak|.volatile|.relaxed|.acquire}{.cta|.cluster|.gpu|.sys}{.global|.shared|.shared::cta}{.ca|.cg|.cs|.lu|.cv}\
         {.nc}{.L1::evict_normal|.L1::evict_first|.L1::evict_last|.L1::no_allocate}{.L2::64B|.L2::128B|.L2::256B}\
         {.v2|.v4}.<mem>",
        "=N~t [.]",
        |m| Code::Ld(access(m)),
    ),
    row(
        10,
        10,
        "st{.weak|.volatile|.relaxed|.release}{.cta|.cluster|.gpu|.sys}{.global|.shared|.shared::cta}{.wb|.cg|.cs|.wt}\
         {.L1::evict_normal|.L1::evict_first|.L1::evict_last|.L1::no_allocate}{.v2|.v4}.<mem>",
        "[.] N~t",
        |m| Code::St(access(m)),
    ),
    row(14, 10, "prefetch{.global}.{L1|L2}", "[.]", nop),
    row(
        20,
        60,
        "atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}{.global|.shared|.shared::cta}\
         .{add|min|max|and|or|xor|exch|inc|dec}{.noftz}.{u32|s32|u64|s64|b32|b64|f32|f64|f16|f16x2|bf16|bf16x2}",
        "=t [.] t",
        |m| Code::Atom(m.get(), m.ty(0), space(m)),
    ),
    row(
        20,
        60,
        "atom{.relaxed|.acquire|.release|.acq_rel}{.cta|.cluster|.gpu|.sys}{.global|.shared|.shared::cta}.cas.{b32|b64}",
        "=t [.] t t",
        |m| Code::Atom(AtomOp::Cas, m.ty(0), space(m)),
    ),
    row(
        20,
        60,
        "red{.relaxed|.release}{.cta|.cluster|.gpu|.sys}{.global|.shared|.shared::cta}\
         .{add|min|max|and|or|xor|inc|dec}{.noftz}.{u32|s32|u64|s64|b32|b64|f32|f64|f16|f16x2|bf16|bf16x2}",
        "[.] t",
        |m| Code::Red(m.get(), m.ty(0), space(m)),
    ),
    row(70, 80, "cp.async.{ca|cg}.{shared|shared::cta}.global{.L2::64B|.L2::128B|.L2::256B}", "[s] [g] # b32?", |_| {
        Code::CpAsync
    }),
    row(70, 80, "cp.async.commit_group", "", |_| Code::CpCommit),
    row(70, 80, "cp.async.wait_group", "#", |_| Code::CpWait),
    row(70, 80, "cp.async.wait_all", "", |_| Code::CpWaitAll),
    // Matrices.
    row(65, 75, "ldmatrix.sync.aligned.m8n8.{x1|x2|x4}{.trans}.{shared|shared::cta}.b16", "=Nb32 [s]", |m| {
        Code::LdMatrix { n: m.count(), trans: m.has("trans") }
    }),
    row(78, 90, "stmatrix.sync.aligned.m8n8.{x1|x2|x4}{.trans}.{shared|shared::cta}.b16", "[s] Nb32", |m| {
        Code::StMatrix { n: m.count(), trans: m.has("trans") }
    }),
    row(65, 75, "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", "=4f32 2b32 1b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::F16, k: 8 })
    }),
    row(70, 80, "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", "=4f32 2b32 1b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::Bf16, k: 8 })
    }),
    row(70, 80, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "=4f32 4b32 2b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::F16, k: 16 })
    }),
    row(70, 80, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "=4f32 4b32 2b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::Bf16, k: 16 })
    }),
    row(70, 80, "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", "=4f32 2b32 1b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::Tf32, k: 4 })
    }),
    row(70, 80, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "=4f32 4b32 2b32 4f32", |_| {
        Code::Mma(Mma { ty: Type::Tf32, k: 8 })
    }),
    // Between lanes.
    row(60, 30, "shfl.sync.{up|down|bfly|idx}.b32", "=b32|p b32 b32 b32 b32", |m| Code::Shfl(m.get())),
    row(60, 30, "vote.sync.{all|any|uni}.pred", "=p p b32", |m| Code::Vote(m.get())),
    row(60, 30, "vote.sync.ballot.b32", "=b32 p b32", |_| Code::Vote(Vote::Ballot)),
    row(62, 30, "activemask.b32", "=b32", |_| Code::Activemask),
    row(60, 70, "match.any.sync.{b32|b64}", "=b32 t b32", |m| Code::Match { all: false, ty: m.ty(0) }),
    row(60, 70, "match.all.sync.{b32|b64}", "=b32|p t b32", |m| Code::Match { all: true, ty: m.ty(0) }),
    row(70, 80, "redux.sync.{add|min|max}.{u32|s32}", "=t t b32", |m| Code::Redux(m.get(), m.ty(0))),
    row(70, 80, "redux.sync.{and|or|xor}.b32", "=t t b32", |m| Code::Redux(m.get(), m.ty(0))),
    // Control.
    row(10, 10, "bra{.uni}", "L", |_| Code::Bra),
    row(10, 10, "{ret|exit}{.uni}", "", |_| Code::Exit),
    row(10, 10, "trap", "", |_| Code::Trap),
    row(10, 10, "bar{.cta}.sync", "u32 u32?", |_| Code::Bar { wait: true }),
    row(60, 70, "barrier{.cta}.sync{.aligned}", "u32 u32?", |_| Code::Bar { wait: true }),
    row(10, 20, "bar{.cta}.arrive", "u32 u32", |_| Code::Bar { wait: false }),
    row(60, 70, "barrier{.cta}.arrive{.aligned}", "u32 u32", |_| Code::Bar { wait: false }),
    row(60, 30, "bar.warp.sync", "b32", |_| Code::BarWarp),
    row(14, 10, "membar.{cta|gl|sys}", "", |_| Code::Fence),
    row(60, 70, "fence{.sc|.acq_rel}.{cta|cluster|gpu|sys}", "", |_| Code::Fence),
    row(63, 70, "nanosleep.u32", "u32", nop),
];
