//! Exchange between the lanes of a warp.

use super::Outcome;
use crate::device::ptx::Type;
use crate::device::ptx::code::{Redux, Shfl, Vote};
use crate::device::sim::decode::{Ins, SINK};
use crate::device::sim::fault::{Kind, Trouble};
use crate::device::sim::warp::Warp;

/// Refuses an exchange in which lanes of `members` are elsewhere, or lanes take part that `members` does not name.
fn all_here<const CHECK: bool>(w: &Warp, m: u32, members: &[u32; 32]) -> Result<u32, Box<Trouble>> {
    let lane = m.trailing_zeros();
    let mask = members[lane as usize];
    let absent = mask & w.live & !m;
    if CHECK && (absent != 0 || m & !mask != 0) {
        let message = if absent != 0 {
            format!("lane {} is named in the mask {mask:#x} and does not come here", absent.trailing_zeros())
        } else {
            format!("lane {} comes here and is not named in the mask {mask:#x}", (m & !mask).trailing_zeros())
        };
        let hint = "the mask must name the lanes that run the instruction together";
        return Err(Trouble::new(Kind::Lane, lane, message, hint));
    }
    Ok(mask)
}

/// `shfl.sync`: `c` has the clamp in its low 5 bits and the mask of segments in bits 8 to 12.
#[inline(always)]
pub fn shfl<const CHECK: bool>(w: &mut Warp, ins: &Ins, m: u32, how: Shfl) -> Outcome {
    all_here::<CHECK>(w, m, w.get(ins.o[5]))?;
    let (a, by, c) = (w.get::<u32>(ins.o[2]), w.get::<u32>(ins.o[3]), w.get::<u32>(ins.o[4]));
    let mut d = [0; 32];
    let (mut inside, mut idle) = (0u32, 0u32);
    // What sums over a warp do: no bounds, the same distance in every lane.
    if how == Shfl::Bfly && m == !0 && *c == [31; 32] && *by == [by[0]; 32] {
        let by = by[0] as usize & 31;
        for i in 0..32 {
            d[i] = a[i ^ by];
        }
        w.set(ins.o[0], m, &d);
        if ins.o[1] != SINK {
            w.set_pred(ins.o[1], m, !0);
        }
        return Ok(());
    }
    for i in 0..32u32 {
        let n = i as usize;
        let (by, clamp, segments) = (by[n] & 31, c[n] & 31, c[n] >> 8 & 31);
        let (low, high) = (i & segments, (i & segments) | (clamp & !segments));
        // Up reads below its own lane, and its clamp is the lowest lane of a segment.
        let (from, found) = match how {
            Shfl::Up => (i.wrapping_sub(by), i as i32 - by as i32 >= high as i32),
            Shfl::Down => (i + by, i + by <= high),
            Shfl::Bfly => (i ^ by, i ^ by <= high),
            Shfl::Idx => (low | (by & !segments), low | (by & !segments) <= high),
        };
        let from = if found { from & 31 } else { i };
        inside |= u32::from(found) << i;
        idle |= u32::from(m >> from & 1 == 0) << i;
        d[n] = a[from as usize];
    }
    if CHECK && idle & m != 0 {
        let lane = (idle & m).trailing_zeros();
        let message = "takes a value from a lane that does not run this instruction";
        return Err(Trouble::new(
            Kind::Lane,
            lane,
            message,
            "look at the mask, and at the guard or the branch around it",
        ));
    }
    w.set(ins.o[0], m, &d);
    if ins.o[1] != SINK {
        w.set_pred(ins.o[1], m, inside);
    }
    Ok(())
}

pub fn vote<const CHECK: bool>(w: &mut Warp, ins: &Ins, m: u32, vote: Vote) -> Outcome {
    let mask = all_here::<CHECK>(w, m, w.get(ins.o[2]))? & m;
    let flip = if ins.not { !0 } else { 0 };
    let votes = (w.preds[usize::from(ins.o[1])] ^ flip) & mask;
    let truth = |b: bool| if b { !0 } else { 0 };
    match vote {
        Vote::Ballot => w.set(ins.o[0], m, &[votes; 32]),
        Vote::All => w.set_pred(ins.o[0], m, truth(votes == mask)),
        Vote::Any => w.set_pred(ins.o[0], m, truth(votes != 0)),
        Vote::Uni => w.set_pred(ins.o[0], m, truth(votes == mask || votes == 0)),
    }
    Ok(())
}

pub fn matches<const CHECK: bool>(w: &mut Warp, ins: &Ins, m: u32, all: bool, ty: Type) -> Outcome {
    let first = if all { 2 } else { 1 };
    let mask = all_here::<CHECK>(w, m, w.get(ins.o[first + 1]))? & m;
    let a = w.get_either(ins.o[first], ty.bits() == 64);
    let equal = |i: usize| (0..32).fold(0u32, |same, j| same | u32::from(mask >> j & 1 == 1 && a[j] == a[i]) << j);
    if all {
        let same = equal(mask.trailing_zeros() as usize) == mask;
        w.set(ins.o[0], m, &[if same { mask } else { 0 }; 32]);
        if ins.o[1] != SINK {
            w.set_pred(ins.o[1], m, if same { !0 } else { 0 });
        }
    } else {
        let d: [u32; 32] = std::array::from_fn(equal);
        w.set(ins.o[0], m, &d);
    }
    Ok(())
}

pub fn redux<const CHECK: bool>(w: &mut Warp, ins: &Ins, m: u32, op: Redux, ty: Type) -> Outcome {
    let mask = all_here::<CHECK>(w, m, w.get(ins.o[2]))? & m;
    let a = w.get::<u32>(ins.o[1]);
    let lanes = (0..32).filter(|i| mask >> i & 1 == 1).map(|i| a[i]);
    let signed = ty.signed();
    let d = lanes.reduce(|x, y| match op {
        Redux::Add => x.wrapping_add(y),
        Redux::Min if signed => (x as i32).min(y as i32) as u32,
        Redux::Max if signed => (x as i32).max(y as i32) as u32,
        Redux::Min => x.min(y),
        Redux::Max => x.max(y),
        Redux::And => x & y,
        Redux::Or => x | y,
        Redux::Xor => x ^ y,
    });
    w.set(ins.o[0], m, &[d.unwrap_or(0); 32]);
    Ok(())
}
