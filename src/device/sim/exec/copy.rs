//! Asynchronous copies, and matrices between shared memory and fragments.

use super::{Outcome, addresses, each_lane};
use crate::device::sim::block::Block;
use crate::device::sim::decode::Ins;
use crate::device::sim::fault::{Kind, Trouble};
use crate::device::sim::memory::{BASE, Touch};
use crate::device::sim::warp::{Copy, Warp};

/// Asks for `cp.async [to], [from], size {, read}`: the bytes move when the group is waited for.
pub fn cp_async<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32) -> Outcome {
    let (to, from) = (addresses(w, ins, 0, ins.imm), addresses(w, ins, 1, ins.imm2));
    let size = u32::from(ins.o[2]);
    let read = if ins.short { [size; 32] } else { *w.get::<u32>(ins.o[3]) };
    let mut outcome = Ok(());
    each_lane(m, |i| {
        if outcome.is_ok() {
            let copy = Copy {
                thread: w.index * 32 + i as u32,
                to: to[i] as u32,
                from: from[i],
                size,
                read: read[i].min(size),
            };
            outcome = ask::<CHECK>(b, w, i as u32, copy, to[i]);
            w.open.push(copy);
        }
    });
    outcome?;
    if CHECK {
        b.site(w).touch_shared(&to, m, size as usize);
        let reads = (0..32).fold(0, |reads, i| reads | u32::from(read[i] > 0) << i) & m;
        if reads != 0 {
            b.site(w).touch_global(&from, reads, size as usize);
        }
    }
    Ok(())
}

fn ask<const CHECK: bool>(b: &mut Block<'_>, w: &Warp, lane: u32, copy: Copy, to: u64) -> Outcome {
    let Copy { from, size, read, .. } = copy;
    if to + u64::from(size) > b.shared.bytes.len() as u64 {
        let message =
            format!("copies {size} bytes to outside of the block's {} bytes of shared memory", b.shared.bytes.len());
        let hint = "look at the index and at the bytes of shared memory that the launch gives";
        return Err(Trouble::new(Kind::Bounds, lane, message, hint).at(to));
    }
    let end = from.wrapping_sub(BASE).saturating_add(u64::from(read));
    if read > 0 && end > b.launch.memory.bytes.len() as u64 {
        let message = format!("copies {read} bytes of global memory from outside of any allocation");
        let hint = "look at the index, or give 0 as the bytes to read";
        return Err(Trouble::new(Kind::Bounds, lane, message, hint).at(from));
    }
    let aligned = |address: u64| address.is_multiple_of(size.into());
    if !aligned(to) || !(aligned(from) || read == 0) {
        let message = format!("cp.async of {size} bytes between addresses that are no multiples of {size}");
        let at = if aligned(to) { from } else { to };
        return Err(Trouble::new(Kind::Alignment, lane, message, "look at the offset and the stride of a row").at(at));
    }
    if CHECK {
        if read > 0 {
            super::memory::global(b, lane, from, read as usize, Touch::Read, false)?;
        }
        b.shared.expect(w, lane, to, size as usize)?;
    }
    Ok(())
}

/// Ends the group of copies that is open.
pub fn commit(w: &mut Warp) {
    let group = std::mem::take(&mut w.open);
    w.copies.push_back(group);
}

/// Lets all but the `left` newest groups land.
pub fn wait(b: &mut Block<'_>, w: &mut Warp, left: usize) {
    while w.copies.len() > left {
        let mut group = w.copies.pop_front().unwrap_or_default();
        land(b, &group);
        group.clear();
        // The room of a group that has landed serves the next one.
        if w.open.capacity() == 0 {
            w.open = group;
        }
    }
}

/// Lets all copies land, also those of the open group.
pub fn wait_all(b: &mut Block<'_>, w: &mut Warp) {
    commit(w);
    wait(b, w, 0);
}

/// Forgets the copies of a warp that ends without waiting for them.
pub fn drop_all(w: &mut Warp) {
    w.copies.clear();
    w.open.clear();
}

fn land(b: &mut Block<'_>, group: &[Copy]) {
    let check = b.launch.touched.is_some();
    for copy in group {
        let (to, size, read) = (copy.to as usize, copy.size as usize, copy.read as usize);
        let target = b.shared.bytes.ptr(to, size);
        // SAFETY: both ranges were seen to lie in memory when the copy was asked for.
        unsafe {
            if read > 0 {
                let source = b.launch.memory.bytes.ptr((copy.from - BASE) as usize, read);
                source.copy_to_nonoverlapping(target, read);
            }
            target.add(read).write_bytes(0, size - read);
        }
        if check {
            b.shared.arrive(copy.thread, copy.to.into(), size);
        }
    }
}

/// The addresses of the `n · 8` rows of a matrix access, seen to lie in shared memory at multiples of 16. Lane i gives
/// row i.
fn rows<const CHECK: bool>(
    b: &mut Block<'_>,
    w: &Warp,
    ins: &Ins,
    m: u32,
    n: u8,
    operand: usize,
) -> Result<[u64; 32], Box<Trouble>> {
    if m != !0 {
        let hint = "all 32 lanes of a warp must come to it together: move it out of the branch";
        let message = "an instruction for the whole warp is reached by a part of it";
        return Err(Trouble::new(Kind::Divergence, (!m).trailing_zeros(), message, hint));
    }
    let row = addresses(w, ins, operand, ins.imm);
    let len = b.shared.bytes.len() as u64;
    for lane in 0..8 * u32::from(n) {
        let at = row[lane as usize];
        if at.saturating_add(16) > len {
            let message = format!("a row of a matrix lies outside of the block's {len} bytes of shared memory");
            let hint = "look at the index and at the bytes of shared memory that the launch gives";
            return Err(Trouble::new(Kind::Bounds, lane, message, hint).at(at));
        }
        if !at.is_multiple_of(16) {
            let message = "a row of a matrix begins at an address that is no multiple of 16";
            return Err(
                Trouble::new(Kind::Alignment, lane, message, "look at the offset and the stride of a row").at(at)
            );
        }
    }
    if CHECK {
        for matrix in 0..usize::from(n) {
            // Eight rows of 16 bytes are one pass over the banks.
            let mut eight = [0; 32];
            eight[..8].copy_from_slice(&row[8 * matrix..8 * matrix + 8]);
            b.site(w).touch_shared(&eight, 0xff, 16);
        }
    }
    Ok(row)
}

/// `ldmatrix`: lane l gets elements 2(l mod 4) and one more of row l / 4 of each matrix, or of its column.
#[inline(always)]
pub fn ld_matrix<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, n: u8, trans: bool) -> Outcome {
    let row = rows::<CHECK>(b, w, ins, m, n, usize::from(n))?;
    if CHECK {
        for lane in 0..8 * u32::from(n) {
            b.shared.read_by_many(w, lane, row[lane as usize], 16)?;
        }
    }
    for matrix in 0..usize::from(n) {
        let mut elements = [[0u16; 8]; 8];
        for (r, elements) in elements.iter_mut().enumerate() {
            let at = row[8 * matrix + r] as usize;
            // SAFETY: the 16 bytes of the row lie in shared memory.
            *elements = unsafe { b.shared.bytes.ptr(at, 16).cast::<[u16; 8]>().read_unaligned() };
        }
        let mut d = [0u32; 32];
        for (lane, d) in d.iter_mut().enumerate() {
            let (r, c) = (lane / 4, lane % 4 * 2);
            let (low, high) =
                if trans { (elements[c][r], elements[c + 1][r]) } else { (elements[r][c], elements[r][c + 1]) };
            *d = u32::from(low) | u32::from(high) << 16;
        }
        w.set(ins.o[matrix], !0, &d);
    }
    Ok(())
}

/// `stmatrix`: the same way back.
pub fn st_matrix<const CHECK: bool>(b: &mut Block<'_>, w: &mut Warp, ins: &Ins, m: u32, n: u8, trans: bool) -> Outcome {
    let row = rows::<CHECK>(b, w, ins, m, n, 0)?;
    for matrix in 0..usize::from(n) {
        let values = *w.get::<u32>(ins.o[1 + matrix]);
        let mut elements = [[0u16; 8]; 8];
        for (lane, value) in values.iter().enumerate() {
            let (r, c) = (lane / 4, lane % 4 * 2);
            for (k, half) in [*value as u16, (value >> 16) as u16].into_iter().enumerate() {
                let (r, c) = if trans { (c + k, r) } else { (r, c + k) };
                elements[r][c] = half;
            }
        }
        for (r, elements) in elements.iter().enumerate() {
            let lane = 8 * matrix + r;
            if CHECK {
                b.shared.touch(w, lane as u32, row[lane], 16, Touch::Write)?;
            }
            // SAFETY: the 16 bytes of the row lie in shared memory.
            unsafe { b.shared.bytes.ptr(row[lane] as usize, 16).cast::<[u16; 8]>().write_unaligned(*elements) };
        }
    }
    Ok(())
}
