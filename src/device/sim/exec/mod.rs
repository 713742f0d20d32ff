//! The interpreter's loop. The families of instructions have a file each.
//!
//! It is compiled four times: with and without checks, and under AVX2 with FMA or the baseline of the platform. All four
//! give the same bits.

mod arith;
mod control;
mod convert;
mod copy;
mod float;
mod memory;
mod mma;
mod shuffle;

pub use float::min_max;

use super::block::Block;
use super::decode::{Ins, PRED, Program};
use super::fault::{Fault, Kind, Trouble};
use super::warp::{Lane, State, Warp, lanes};
use crate::device::ptx::Code;

/// What an instruction may find wrong.
type Outcome = Result<(), Box<Trouble>>;

/// Runs a warp until it waits or ends.
pub fn run(block: &mut Block<'_>, warp: &mut Warp) -> Result<(), Box<Fault>> {
    let check = block.launch.touched.is_some();
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(block: &mut Block<'_>, warp: &mut Warp, check: bool) -> Result<(), Box<Fault>> {
            if check { interpret::<true>(block, warp) } else { interpret::<false>(block, warp) }
        }
        use crate::cpu::Simd;
        if let Simd::Avx2(_) | Simd::Avx512(_) = block.launch.simd {
            // SAFETY: a level is only made where the processor has its instructions; both have AVX2 and FMA.
            return unsafe { with_avx2(block, warp, check) };
        }
    }
    if check { interpret::<true>(block, warp) } else { interpret::<false>(block, warp) }
}

#[inline(always)]
fn interpret<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp) -> Result<(), Box<Fault>> {
    let program: &Program = b.launch.program;
    let code = &program.code[..];
    loop {
        if w.pc >= w.next {
            w.regroup();
        }
        let pc = w.pc as usize;
        let ins = &code[pc];
        let m = w.mask & (w.preds[usize::from(ins.guard)] ^ ins.flip);
        let count = &mut b.counts[pc];
        count.warp += 1;
        count.lane += u64::from(if m == !0 { 32 } else { m.count_ones() });
        if CHECK {
            check_reads(b, w, pc, m)?;
        }
        let watch = if CHECK { b.launch.watch.as_ref().filter(|watch| watch.meets(b.number, w)) } else { None };
        if let Some(watch) = watch {
            watch.before(program, w, pc, m);
        }
        w.pc += 1;
        if m == 0 {
            continue;
        }
        let outcome = match ins.code {
            Code::Bra => control::bra::<CHECK>(b, w, ins, m),
            Code::Exit => {
                if w.end(m) {
                    w.state = State::Done;
                    copy::drop_all(w);
                    return Ok(());
                }
                Ok(())
            }
            Code::Bar { wait } => match control::bar::<CHECK>(b, w, ins, m, wait) {
                Ok(()) if wait => return Ok(()),
                outcome => outcome,
            },
            _ => step::<CHECK>(b, w, ins, m),
        };
        if let Err(trouble) = outcome {
            return Err(b.fault(*trouble, w, pc as u32));
        }
        if CHECK {
            program.uses[pc].writes.iter().for_each(|place| w.written(*place, m));
        }
        if let Some(watch) = watch {
            watch.after(program, w, pc);
        }
    }
}

/// An instruction that neither jumps nor waits.
#[inline(always)]
fn step<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32) -> Outcome {
    match ins.code {
        Code::Mov(ty) => arith::mov(w, ins, m, ty),
        Code::Int2(op, ty) => arith::int2(w, ins, m, op, ty),
        Code::Mul(half, ty) => arith::mul(w, ins, m, half, ty),
        Code::Mad(half, ty) => arith::mad(w, ins, m, half, ty),
        Code::Fma(ty, mode) => float::fma(w, ins, m, ty, mode),
        Code::Float2(op, ty, mode) => float::float2(w, ins, m, op, ty, mode),
        Code::Float1(op, ty, mode) => float::float1(w, ins, m, op, ty, mode),
        Code::Setp { cmp, ty, ftz, logic } => float::setp(w, ins, m, cmp, ty, ftz, logic),
        Code::Selp(ty) => arith::selp(w, ins, m, ty),
        Code::Ld(access) => return memory::ld::<CHECK>(b, w, ins, m, access),
        Code::St(access) => return memory::st::<CHECK>(b, w, ins, m, access),
        Code::Mma(mma) => return mma::mma(b, w, ins, m, mma),
        Code::LdMatrix { n, trans } => return copy::ld_matrix::<CHECK>(b, w, ins, m, n, trans),
        Code::StMatrix { n, trans } => return copy::st_matrix::<CHECK>(b, w, ins, m, n, trans),
        Code::CpAsync => return copy::cp_async::<CHECK>(b, w, ins, m),
        Code::CpCommit => copy::commit(w),
        Code::CpWait => copy::wait(b, w, ins.imm as usize),
        Code::CpWaitAll => copy::wait_all(b, w),
        Code::Shfl(how) => return shuffle::shfl::<CHECK>(w, ins, m, how),
        Code::Cvt(cvt) => convert::cvt(w, ins, m, cvt),
        Code::CvtPair(cvt) => convert::pair(w, ins, m, cvt),
        code => return rare::<CHECK>(b, w, ins, m, code),
    }
    Ok(())
}

/// What is rare enough to need no copy of its own in the loop.
#[inline(never)]
fn rare<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, code: Code) -> Outcome {
    match code {
        Code::Int1(op, ty) => arith::int1(w, ins, m, op, ty),
        Code::Lop3 => arith::lop3(w, ins, m),
        Code::Prmt => arith::prmt(w, ins, m),
        Code::Shf { left, clamp } => arith::shf(w, ins, m, left, clamp),
        Code::Bfe(ty) => arith::bfe(w, ins, m, ty),
        Code::Bfi(ty) => arith::bfi(w, ins, m, ty),
        Code::Slct(ty, by) => arith::slct(w, ins, m, ty, by),
        Code::Pack { n, bits } => arith::pack(w, ins, m, n, bits),
        Code::Unpack { n, bits } => arith::unpack(w, ins, m, n, bits),
        Code::Cvta(space, to) => arith::cvta(w, ins, m, space, to),
        Code::Pred2(logic) => arith::pred2(w, ins, m, logic),
        Code::PredNot => w.set_pred(ins.o[0], m, !w.preds[usize::from(ins.o[1])]),
        Code::Atom(op, ty, space) => return memory::atom(b, w, ins, m, op, ty, space, true),
        Code::Red(op, ty, space) => return memory::atom(b, w, ins, m, op, ty, space, false),
        Code::Vote(vote) => return shuffle::vote::<CHECK>(w, ins, m, vote),
        Code::Activemask => w.set(ins.o[0], m, &[m; 32]),
        Code::Match { all, ty } => return shuffle::matches::<CHECK>(w, ins, m, all, ty),
        Code::Redux(op, ty) => return shuffle::redux::<CHECK>(w, ins, m, op, ty),
        Code::BarWarp => return control::bar_warp(b, w, ins, m),
        Code::Trap => return Err(Trouble::new(Kind::Trap, m.trailing_zeros(), "the kernel stops itself here", "")),
        _ => {}
    }
    Ok(())
}

/// Refuses an instruction that reads a register which nothing wrote.
#[inline(always)]
fn check_reads(b: &Block<'_>, w: &Warp, pc: usize, m: u32) -> Result<(), Box<Fault>> {
    let program = b.launch.program;
    for place in &program.uses[pc].reads {
        // Which lanes take part in turn hangs on the guard: all of those that run need it.
        let mask = if *place == program.code[pc].guard | PRED { w.mask } else { m };
        let missing = w.unwritten(*place, mask);
        if missing != 0 {
            let name = program.names.get(place).map_or("a register", String::as_str);
            let message = format!("`{name}` is read before anything wrote it");
            let hint = "set it on every path that leads here, or look for a wrong name";
            let trouble = Trouble::new(Kind::Register, missing.trailing_zeros(), message, hint);
            return Err(b.fault(*trouble, w, pc as u32));
        }
    }
    Ok(())
}

/// `d = f(a)` in each lane.
#[inline(always)]
fn map1<A: Lane, R: Lane>(w: &mut Warp, ins: &Ins, m: u32, f: impl Fn(A) -> R) {
    let a = w.get::<A>(ins.o[1]);
    let mut d = [R::zeroed(); 32];
    for i in 0..32 {
        d[i] = f(a[i]);
    }
    w.set(ins.o[0], m, &d);
}

/// `d = f(a, b)` in each lane.
#[inline(always)]
fn map2<A: Lane, B: Lane, R: Lane>(w: &mut Warp, ins: &Ins, m: u32, f: impl Fn(A, B) -> R) {
    let (a, b) = (w.get::<A>(ins.o[1]), w.get::<B>(ins.o[2]));
    let mut d = [R::zeroed(); 32];
    for i in 0..32 {
        d[i] = f(a[i], b[i]);
    }
    w.set(ins.o[0], m, &d);
}

/// `d = f(a, b, c)` in each lane.
#[inline(always)]
fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(w: &mut Warp, ins: &Ins, m: u32, f: impl Fn(A, B, C) -> R) {
    let (a, b, c) = (w.get::<A>(ins.o[1]), w.get::<B>(ins.o[2]), w.get::<C>(ins.o[3]));
    let mut d = [R::zeroed(); 32];
    for i in 0..32 {
        d[i] = f(a[i], b[i], c[i]);
    }
    w.set(ins.o[0], m, &d);
}

/// Runs `f` for each lane of `m`.
#[inline(always)]
fn each_lane(m: u32, mut f: impl FnMut(usize)) {
    if m == !0 {
        (0..32).for_each(f);
        return;
    }
    let mut left = m;
    while left != 0 {
        f(left.trailing_zeros() as usize);
        left &= left - 1;
    }
}

/// The addresses that operand `i` and `offset` give, in 64 bits.
#[inline(always)]
fn addresses(w: &Warp, ins: &Ins, i: usize, offset: i32) -> [u64; 32] {
    if ins.is_wide(i) {
        let a = w.get::<u64>(ins.o[i]);
        lanes(
            #[inline(always)]
            |i| a[i].wrapping_add_signed(i64::from(offset)),
        )
    } else {
        let a = w.get::<u32>(ins.o[i]);
        lanes(
            #[inline(always)]
            |i| u64::from(a[i].wrapping_add_signed(offset)),
        )
    }
}
