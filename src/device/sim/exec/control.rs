//! Jumps and barriers.

use super::Outcome;
use crate::device::sim::block::Block;
use crate::device::sim::decode::Ins;
use crate::device::sim::fault::{Kind, Trouble};
use crate::device::sim::warp::{State, Warp};

#[inline(always)]
pub fn bra<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32) -> Outcome {
    let target = ins.imm as u32;
    if CHECK && target < w.pc {
        w.jumps += 1;
        if w.jumps > b.launch.limit {
            let message = format!("the warp has jumped back {} times", b.launch.limit);
            let hint = "look at the condition that should end the loop; a longer one needs a higher limit of steps";
            return Err(Trouble::new(Kind::Steps, m.trailing_zeros(), message, hint));
        }
    }
    if m == w.mask {
        w.pc = target;
    } else {
        b.divergent += 1;
        w.split(m, target);
    }
    Ok(())
}

pub fn bar<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, wait: bool) -> Outcome {
    if m != w.live {
        let line = |pc: u32| {
            let program = b.launch.program;
            program.module.source.expanded.place(program.line(pc as usize), 1).line
        };
        let elsewhere: Vec<String> = w.elsewhere().map(|pc| format!("line {}", line(pc))).collect();
        let place = if elsewhere.is_empty() {
            "are excluded by its guard".into()
        } else {
            format!("stand at {}", elsewhere.join(", "))
        };
        let message = format!(
            "{} of the warp's {} threads come to the barrier; the others {place}",
            m.count_ones(),
            w.live.count_ones()
        );
        let hint = "all threads of a warp must reach a barrier together: move it out of the branch";
        return Err(Trouble::new(Kind::Divergence, (w.live & !m).trailing_zeros(), message, hint));
    }
    let lane = m.trailing_zeros() as usize;
    let id = w.get::<u32>(ins.o[0])[lane];
    let expected = (!ins.short).then(|| w.get::<u32>(ins.o[1])[lane]);
    if id >= 16 || expected.is_some_and(|n| n == 0 || n % 32 != 0) {
        let message = format!("barrier {id} for {} threads", expected.unwrap_or(0));
        let hint = "barriers are 0 to 15, and wait for a multiple of 32 threads";
        return Err(Trouble::new(Kind::Divergence, lane as u32, message, hint));
    }
    // Of a barrier with a count each warp is a whole one, whatever its threads do; else those that ended are not waited for.
    b.arrive(id, if expected.is_some() { 32 } else { m.count_ones() }, expected);
    if wait {
        w.state = State::Waiting(id);
    }
    Ok(())
}

/// Lanes run in lock step, so that those named are here already, or in another branch.
pub fn bar_warp(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32) -> Outcome {
    let members = w.get::<u32>(ins.o[0])[m.trailing_zeros() as usize];
    let absent = members & w.live & !m;
    if absent != 0 {
        let message = format!("lane {} is to take part in the barrier and is elsewhere", absent.trailing_zeros());
        let hint = "all lanes of the mask must come to the same bar.warp.sync";
        return Err(Trouble::new(Kind::Divergence, m.trailing_zeros(), message, hint));
    }
    b.shared.time += 1;
    w.synced = b.shared.time;
    Ok(())
}
