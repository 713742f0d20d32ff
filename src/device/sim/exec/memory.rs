//! Loads, stores and atomic operations.

use super::{Outcome, addresses, each_lane};
use crate::device::ptx::Type;
use crate::device::ptx::code::{Access, AtomOp, Round, Space};
use crate::device::sim::block::Block;
use crate::device::sim::decode::Ins;
use crate::device::sim::fault::{Kind, Trouble};
use crate::device::sim::memory::{BASE, SHARED_WINDOW, Touch};
use crate::device::sim::number::{fma_to_odd, narrow, widen};
use crate::device::sim::warp::{Warp, extend, lanes};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where the lanes of an access begin, in bytes of the block's shared memory or of global memory.
struct Target {
    at: [u64; 32],
    shared: bool,
}

/// Finds the bytes that an access of `size` bytes a lane means, and refuses it if it must not be.
#[inline(always)]
fn target<const CHECK: bool>(
    b: &mut Block<'_>,
    w: &Warp,
    address: [u64; 32],
    m: u32,
    space: Space,
    size: usize,
    touch: Touch,
    strong: bool,
) -> Result<Target, Box<Trouble>> {
    let (mut at, mut shared) = (address, space == Space::Shared);
    if space == Space::Generic && address[m.trailing_zeros() as usize].wrapping_sub(SHARED_WINDOW) < 1 << 32 {
        (at, shared) = (lanes(|i| address[i].wrapping_sub(SHARED_WINDOW)), true);
    }
    let len = if shared { b.shared.bytes.len() } else { b.launch.memory.bytes.len() } as u64;
    if !shared {
        at = lanes(
            #[inline(always)]
            |i| address[i].wrapping_sub(BASE),
        );
    }
    let mut outside = 0u32;
    // `len` is at least 16 less than 2⁶⁴, so that the sum wraps for no address that is inside.
    let last = len.wrapping_sub(size as u64);
    if len < size as u64 {
        outside = m;
    }
    for (i, at) in at.iter().enumerate() {
        outside |= u32::from(*at > last) << i;
    }
    if outside & m != 0 {
        return Err(out_of_bounds(b, (outside & m).trailing_zeros(), address, shared, size, touch));
    }
    if CHECK {
        check(b, w, &at, &address, m, shared, size, touch, strong)?;
    }
    Ok(Target { at, shared })
}

#[cold]
fn out_of_bounds(
    b: &Block<'_>,
    lane: u32,
    address: [u64; 32],
    shared: bool,
    size: usize,
    touch: Touch,
) -> Box<Trouble> {
    let address = address[lane as usize];
    let verb = if touch == Touch::Read { "reads" } else { "writes" };
    let (message, hint) = if shared {
        let hint = "look at the index and at the bytes of shared memory that the launch gives";
        (format!("{verb} {size} bytes outside of the block's {} bytes of shared memory", b.shared.bytes.len()), hint)
    } else {
        let where_ = match b.launch.memory.before(address) {
            Some((start, end)) if address - start < 1 << 40 => {
                format!("{} bytes behind the start of one of {} bytes", address - start, end - start)
            }
            _ => "far from any".to_owned(),
        };
        let hint = "look at the index, the stride, and the guard for the last block";
        (format!("{verb} {size} bytes of global memory outside of any allocation, {where_}"), hint)
    };
    Trouble::new(Kind::Bounds, lane, message, hint).at(address)
}

/// The checks of an access that lies in memory.
#[inline(never)]
fn check(
    b: &mut Block<'_>,
    w: &Warp,
    at: &[u64; 32],
    address: &[u64; 32],
    m: u32,
    shared: bool,
    size: usize,
    touch: Touch,
    strong: bool,
) -> Outcome {
    // Whether lane i + 1 reads the bytes that lane i reads: such lanes are looked at once.
    let same = |i: usize| {
        let both = shared && touch == Touch::Read && i < 31 && m >> i & 3 == 3;
        both && at[i] == at[i + 1]
    };
    for lane in (0..32u32).filter(|lane| m >> lane & 1 == 1) {
        let i = lane as usize;
        if i > 0 && same(i - 1) {
            continue;
        }
        let repeated = same(i);
        let (at, address) = (at[i], address[i]);
        if at & (size as u64 - 1) != 0 {
            let message = format!("an access of {size} bytes at an address that is no multiple of {size}");
            let hint = "look at the offset and at the stride of a row";
            return Err(Trouble::new(Kind::Alignment, lane, message, hint).at(address));
        }
        if repeated {
            b.shared.read_by_many(w, lane, at, size)?;
        } else if shared {
            b.shared.touch(w, lane, at, size, touch)?;
        } else {
            global(b, lane, address, size, touch, strong)?;
        }
    }
    if shared {
        b.site(w).touch_shared(at, m, size)
    } else {
        b.site(w).touch_global(at, m, size)
    }
    Ok(())
}

/// The checks of global memory for one lane.
#[inline]
pub fn global(b: &mut Block<'_>, lane: u32, address: u64, size: usize, touch: Touch, strong: bool) -> Outcome {
    let memory = b.launch.memory;
    let end = address + size as u64;
    if address < b.allocation.0 || end > b.allocation.1 {
        match memory.allocation(address) {
            Some((start, last)) if end <= last => b.allocation = (start, last),
            _ => return Err(out_of_bounds(b, lane, [address; 32], false, size, touch)),
        }
    }
    let at = (address - BASE) as usize;
    // SAFETY: the bytes lie in an allocation and so in the arena. Another thread may write them meanwhile only where blocks
    // race, which is refused below or was.
    let known = unsafe { std::slice::from_raw_parts(memory.known.ptr(at, size), size) };
    if touch != Touch::Write && !all_known(known) {
        let hint = "upload or fill it first, or look at the index";
        let message = "reads global memory that nothing wrote";
        return Err(Trouble::new(Kind::GlobalUnwritten, lane, message, hint).at(address));
    }
    if let (Some(touched), false) = (&b.launch.touched, strong)
        && let Err(other) = touched.touch(at, size, b.number, touch)
    {
        let verb = if touch == Touch::Read { "reads" } else { "writes" };
        let [x, y, _] = b.launch.shape.grid;
        let who = other.map_or("other blocks touch".to_owned(), |n| {
            format!("block ({}, {}, {}) touches", n % x, n / x % y, n / x / y)
        });
        let message = format!("{verb} global memory that {who} in the same launch, one of them writing");
        let hint = "blocks run in any order: give each its own part, use atomics, or two launches";
        return Err(Trouble::new(Kind::GlobalRace, lane, message, hint).at(address));
    }
    if touch != Touch::Read {
        // SAFETY: as above.
        unsafe { memory.known.ptr(at, size).write_bytes(1, size) };
    }
    Ok(())
}

/// Whether each of up to 16 bytes is 1.
#[inline(always)]
fn all_known(known: &[u8]) -> bool {
    match known.len() {
        4 => *known == [1; 4],
        16 => *known == [1; 16],
        8 => *known == [1; 8],
        _ => !known.contains(&0),
    }
}

impl Target {
    /// The address of lane `i`'s bytes, seen to lie in memory.
    #[inline(always)]
    fn ptr(&self, b: &Block<'_>, i: usize, size: usize) -> *mut u8 {
        let at = self.at[i] as usize;
        if self.shared { b.shared.bytes.ptr(at, size) } else { b.launch.memory.bytes.ptr(at, size) }
    }

    /// Whether each lane follows the one before, so that the whole is one piece.
    #[inline(always)]
    fn consecutive(&self, size: u64) -> bool {
        let mut same = true;
        for i in 0..32 {
            same &= self.at[i] == self.at[0].wrapping_add(size * i as u64);
        }
        same
    }
}

#[inline(always)]
pub fn ld<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, access: Access) -> Outcome {
    let n = usize::from(access.n);
    let size = access.ty.bytes() * n;
    let address = addresses(w, ins, n, ins.imm);
    let target = target::<CHECK>(b, w, address, m, access.space, size, Touch::Read, access.strong)?;
    match (access.ty.bits(), ins.wide & ((1 << n) - 1)) {
        (32, 0) => match n {
            1 if m == !0 && target.consecutive(4) => {
                // SAFETY: the lanes' bytes, which follow each other, lie in memory.
                let d = unsafe { target.ptr(b, 0, 128).cast::<[u32; 32]>().read_unaligned() };
                w.set(ins.o[0], m, &d);
            }
            1 => words::<1>(b, w, ins, m, &target),
            2 => words::<2>(b, w, ins, m, &target),
            _ => words::<4>(b, w, ins, m, &target),
        },
        _ => ld_any(b, w, ins, m, access, &target),
    }
    Ok(())
}

/// `N` words a lane.
#[inline(always)]
fn words<const N: usize>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, target: &Target) {
    let mut d = [[0; 32]; N];
    each_lane(m, |i| {
        // SAFETY: the lane's bytes lie in memory. Where another block writes them meanwhile the kernel has a race, and gets
        // one value or the other.
        let words = unsafe { target.ptr(b, i, 4 * N).cast::<[u32; N]>().read_unaligned() };
        for k in 0..N {
            d[k][i] = words[k];
        }
    });
    for (place, d) in ins.o.iter().zip(&d) {
        w.set(*place, m, d);
    }
}

/// Elements of any type into registers of any width.
#[inline(never)]
fn ld_any(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, access: Access, target: &Target) {
    let (n, bytes) = (usize::from(access.n), access.ty.bytes());
    for k in 0..n {
        let mut d = [0; 32];
        each_lane(m, |i| {
            let mut value = [0u8; 8];
            // SAFETY: as in `words`.
            unsafe { target.ptr(b, i, n * bytes).add(k * bytes).copy_to_nonoverlapping(value.as_mut_ptr(), bytes) };
            d[i] = extend(u64::from_le_bytes(value), access.ty);
        });
        w.set_either(ins.o[k], ins.is_wide(k), m, &d);
    }
}

#[inline(always)]
pub fn st<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, access: Access) -> Outcome {
    let n = usize::from(access.n);
    let size = access.ty.bytes() * n;
    let address = addresses(w, ins, 0, ins.imm);
    let target = target::<CHECK>(b, w, address, m, access.space, size, Touch::Write, access.strong)?;
    if access.ty.bits() == 32 && ins.wide >> 1 == 0 {
        if n == 1 && m == !0 && target.consecutive(4) {
            // SAFETY: the lanes' bytes, which follow each other, lie in memory.
            unsafe { target.ptr(b, 0, 128).cast::<[u32; 32]>().write_unaligned(*w.get(ins.o[1])) };
            return Ok(());
        }
        for k in 0..n {
            let value = w.get::<u32>(ins.o[1 + k]);
            // SAFETY: the lane's bytes lie in memory. Where blocks write the same bytes the kernel has a race, and one of
            // the values stays.
            each_lane(m, |i| unsafe { target.ptr(b, i, size).cast::<u32>().add(k).write_unaligned(value[i]) });
        }
        return Ok(());
    }
    st_any(b, w, ins, m, access, &target);
    Ok(())
}

#[inline(never)]
fn st_any(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, access: Access, target: &Target) {
    let (n, bytes) = (usize::from(access.n), access.ty.bytes());
    for k in 0..n {
        let value = w.get_either(ins.o[1 + k], ins.is_wide(1 + k));
        each_lane(m, |i| {
            let value = value[i].to_le_bytes();
            // SAFETY: as in `st`.
            unsafe { target.ptr(b, i, n * bytes).add(k * bytes).copy_from_nonoverlapping(value.as_ptr(), bytes) };
        });
    }
}

/// An atomic operation, lane after lane.
pub fn atom(
    b: &mut Block<'_>,
    w: &mut Warp,
    ins: &Ins,
    m: u32,
    op: AtomOp,
    ty: Type,
    space: Space,
    returns: bool,
) -> Outcome {
    let first = usize::from(returns);
    let size = ty.bytes();
    let address = addresses(w, ins, first, ins.imm);
    let check = b.launch.touched.is_some();
    let target = if check {
        target::<true>(b, w, address, m, space, size, Touch::Atomic, false)?
    } else {
        target::<false>(b, w, address, m, space, size, Touch::Atomic, false)?
    };
    let misaligned = (0..32).find(|i| m >> i & 1 == 1 && target.at[*i] % size as u64 != 0);
    if let Some(lane) = misaligned {
        let message = format!("an atomic operation on {size} bytes at an address that is no multiple of {size}");
        let trouble = Trouble::new(Kind::Alignment, lane as u32, message, "look at the offset and at the stride");
        return Err(trouble.at(address[lane]));
    }
    let operand = |i: usize| w.get_either(ins.o[first + i], ins.is_wide(first + i));
    let (x, y) = (operand(1), if op == AtomOp::Cas { operand(2) } else { [0; 32] });
    let mut old = [0; 32];
    each_lane(m, |i| {
        let ptr = target.ptr(b, i, size);
        let f = |now: u64| Some(update(op, ty, now, x[i], y[i]));
        // SAFETY: the address is aligned, lies in memory, and is not written otherwise at the same time but in a race of
        // the kernel.
        old[i] = unsafe {
            match size {
                8 => AtomicU64::from_ptr(ptr.cast()).fetch_update(Relaxed, Relaxed, f).unwrap_or(0),
                4 => AtomicU32::from_ptr(ptr.cast())
                    .fetch_update(Relaxed, Relaxed, |now| f(now.into()).map(|new| new as u32))
                    .map_or(0, u64::from),
                _ => AtomicU16::from_ptr(ptr.cast())
                    .fetch_update(Relaxed, Relaxed, |now| f(now.into()).map(|new| new as u16))
                    .map_or(0, u64::from),
            }
        };
    });
    if returns {
        w.set_either(ins.o[0], ins.is_wide(0), m, &old);
    }
    Ok(())
}

/// What an atomic operation leaves where `now` was.
fn update(op: AtomOp, ty: Type, now: u64, x: u64, y: u64) -> u64 {
    let (a, b) = (extend(now, ty), extend(x, ty));
    let signed = ty.signed();
    match op {
        AtomOp::Add if ty == Type::F32 => (f32::from_bits(now as u32) + f32::from_bits(x as u32)).to_bits().into(),
        AtomOp::Add if ty == Type::F64 => (f64::from_bits(now) + f64::from_bits(x)).to_bits(),
        AtomOp::Add if ty.float() => (0..ty.bits() / 16).fold(0, |sum, i| {
            let part = |bits: u64| widen(bits >> (16 * i) & 0xffff, ty);
            sum | narrow(fma_to_odd(part(now), 1.0, part(x)), ty, Round::Rn) << (16 * i)
        }),
        AtomOp::Add => now.wrapping_add(x),
        AtomOp::Min if signed => (a as i64).min(b as i64) as u64,
        AtomOp::Max if signed => (a as i64).max(b as i64) as u64,
        AtomOp::Min => a.min(b),
        AtomOp::Max => a.max(b),
        // Up to x and back to 0; down to 0 and back to x.
        AtomOp::Inc => {
            if a >= b {
                0
            } else {
                a + 1
            }
        }
        AtomOp::Dec => {
            if a == 0 || a > b {
                b
            } else {
                a - 1
            }
        }
        AtomOp::And => now & x,
        AtomOp::Or => now | x,
        AtomOp::Xor => now ^ x,
        AtomOp::Exch => x,
        AtomOp::Cas => {
            if a == b {
                y
            } else {
                now
            }
        }
    }
}
