//! Global memory: one range of addresses, allocations in it, and what is known of every byte.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The address of the first byte of global memory.
pub const BASE: u64 = 0x7000_0000_0000;
/// The first generic address of shared memory.
pub const SHARED_WINDOW: u64 = 0x6000_0000_0000;
/// Allocations begin at multiples of this, as CUDA's do.
const ALIGN: usize = 256;

/// Bytes that the threads of a launch share as those of a GPU do: what a race leaves in them is one of the values written.
/// The system gives pages when they are touched.
pub struct Arena {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the arena is plain memory; who uses it from several threads does so by raw pointers, whose uses say why they
// may.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` bytes of zeros.
    pub fn new(len: usize) -> Arena {
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty.
        let data = unsafe { alloc_zeroed(layout) };
        Arena { data: NonNull::new(data).unwrap_or_else(|| handle_alloc_error(layout)), len }
    }

    fn layout(len: usize) -> Layout {
        // No more than what the system's allocator aligns to anyhow: then it maps zeros, where it else would write them.
        Layout::from_size_align(len.max(1), 16).expect("a size that fits memory")
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of byte `at`; of `size` bytes from there on the caller has seen that they lie inside.
    #[inline(always)]
    pub fn ptr(&self, at: usize, size: usize) -> *mut u8 {
        debug_assert!(at + size <= self.len);
        // SAFETY: the range lies inside of the allocation.
        unsafe { self.data.as_ptr().add(at) }
    }

    /// The bytes `at..at + size`, for whoever owns the arena alone.
    pub fn slice(&mut self, at: usize, size: usize) -> &mut [u8] {
        assert!(at.checked_add(size).is_some_and(|end| end <= self.len));
        // SAFETY: the range is inside, and `&mut self` keeps others out.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(at), size) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.data.as_ptr(), Self::layout(self.len)) }
    }
}

/// Global memory.
pub struct Memory {
    /// The bytes.
    pub bytes: Arena,
    /// For every byte 1 if it was written since it was allocated; with checks on only.
    pub known: Arena,
    /// Allocations by address: where they begin, and where they end.
    allocations: Vec<(u64, u64)>,
}

impl Memory {
    /// Memory of `capacity` bytes.
    pub fn new(capacity: usize, check: bool) -> Memory {
        let known = Arena::new(if check { capacity } else { 0 });
        Memory { bytes: Arena::new(capacity), known, allocations: Vec::new() }
    }

    /// The first free place for `bytes` bytes.
    pub fn alloc(&mut self, bytes: usize) -> Option<u64> {
        // Between two allocations lie some bytes that belong to none.
        let needed = bytes.max(1).checked_add(1)?.checked_next_multiple_of(ALIGN)? as u64;
        let mut start = BASE + ALIGN as u64;
        let mut place = self.allocations.len();
        for (i, (from, to)) in self.allocations.iter().enumerate() {
            if start + needed <= *from {
                place = i;
                break;
            }
            start = (to + 1).next_multiple_of(ALIGN as u64);
        }
        if start + needed > BASE + self.bytes.len() as u64 {
            return None;
        }
        self.allocations.insert(place, (start, start + bytes.max(1) as u64));
        if !self.known.is_empty() {
            self.known.slice((start - BASE) as usize, bytes.max(1)).fill(0);
        }
        Some(start)
    }

    /// Gives an allocation back. False if there is none at `address`.
    pub fn free(&mut self, address: u64) -> bool {
        let found = self.allocations.binary_search_by_key(&address, |(start, _)| *start);
        found.map(|i| self.allocations.remove(i)).is_ok()
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.allocations.iter().map(|(start, end)| end - start).sum()
    }

    /// Bytes up to the end of the last allocation.
    pub fn extent(&self) -> usize {
        self.allocations.last().map_or(0, |(_, end)| (end - BASE) as usize)
    }

    /// The allocation that `address` lies in.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.allocations.partition_point(|(start, _)| *start <= address);
        self.allocations[..after].last().copied().filter(|(_, end)| address < *end)
    }

    /// The allocation that lies nearest before `address`.
    pub fn before(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.allocations.partition_point(|(start, _)| *start <= address);
        self.allocations[..after].last().copied()
    }

    /// Where `bytes` bytes at `address` lie in the arena, if one allocation holds them all.
    pub fn range(&self, address: u64, bytes: usize) -> Option<usize> {
        let (_, end) = self.allocation(address)?;
        (bytes as u64 <= end - address).then_some((address - BASE) as usize)
    }

    /// Notes that the host wrote bytes.
    pub fn wrote(&mut self, at: usize, bytes: usize) {
        if !self.known.is_empty() {
            self.known.slice(at, bytes).fill(1);
        }
    }
}

/// Which blocks of a launch touched what: a cell for each grain of memory, `writer << 32 | reader`.
pub struct Touched {
    cells: Arena,
    /// The grain is 2 to this power.
    shift: u32,
}

/// Many blocks.
const MANY: u32 = 0x7fff_ffff;
/// Set in a writer that wrote atomically.
const ATOMIC: u32 = 0x8000_0000;

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Read.
    Read,
    /// Written.
    Write,
    /// Both, atomically.
    Atomic,
}

impl Touched {
    /// Nothing was touched of `bytes` bytes.
    pub fn new(bytes: usize, grain: usize) -> Touched {
        Touched { cells: Arena::new(bytes.div_ceil(grain) * 8), shift: grain.ilog2() }
    }

    fn cell(&self, i: usize) -> &AtomicU64 {
        // SAFETY: a cell of the arena, at a multiple of 8 of its aligned beginning, used as an atomic only.
        unsafe { AtomicU64::from_ptr(self.cells.ptr(i * 8, 8).cast()) }
    }

    /// Notes that block `block` touches bytes; returns another block that touched them before, if one of the two wrote
    /// and not both did atomically. Of many others the last is not known: then it is `None` inside.
    #[inline]
    pub fn touch(&self, at: usize, bytes: usize, block: u32, touch: Touch) -> Result<(), Option<u32>> {
        for i in at >> self.shift..((at + bytes - 1) >> self.shift) + 1 {
            let cell = self.cell(i);
            let mut old = cell.load(Relaxed);
            loop {
                let new = after(old, block + 1, touch)?;
                if new == old {
                    break;
                }
                match cell.compare_exchange_weak(old, new, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(now) => old = now,
                }
            }
        }
        Ok(())
    }
}

/// A cell after block `me` touched it.
#[inline]
fn after(cell: u64, me: u32, touch: Touch) -> Result<u64, Option<u32>> {
    let (writer, reader) = ((cell >> 32) as u32, cell as u32);
    let who = |block: u32| (block & MANY != MANY).then(|| (block & MANY) - 1);
    let (other_writer, other_reader) = (writer != 0 && writer & MANY != me, reader != 0 && reader != me);
    let with = |writer: u32, reader: u32| Ok(u64::from(writer) << 32 | u64::from(reader));
    match touch {
        Touch::Read if other_writer => Err(who(writer)),
        Touch::Read => with(writer, if other_reader { MANY } else { me }),
        Touch::Write if other_writer => Err(who(writer)),
        Touch::Write if other_reader => Err(who(reader)),
        Touch::Write => with(me, reader),
        Touch::Atomic if other_writer && writer & ATOMIC == 0 => Err(who(writer)),
        Touch::Atomic if other_reader => Err(who(reader)),
        Touch::Atomic if writer == 0 => with(me | ATOMIC, reader),
        Touch::Atomic if other_writer => with(MANY | ATOMIC, reader),
        Touch::Atomic => with(writer, reader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_do_not_touch_and_are_reused() {
        let mut memory = Memory::new(1 << 16, true);
        let a = memory.alloc(100).unwrap();
        let b = memory.alloc(256).unwrap();
        let c = memory.alloc(1).unwrap();
        assert!(b >= a + 101 && c >= b + 257);
        assert_eq!(memory.allocation(a + 99), Some((a, a + 100)));
        assert_eq!(memory.allocation(a + 100), None);
        assert_eq!(memory.range(b, 257), None);
        assert!(memory.free(b) && !memory.free(b));
        assert_eq!(memory.alloc(200), Some(b));
        assert_eq!(memory.alloc(1 << 16), None);
        assert_eq!(memory.used(), 301);
        assert_eq!(memory.extent() as u64, c + 1 - BASE);
    }

    #[test]
    fn blocks_race_where_one_writes_and_not_all_are_atomic() {
        use Touch::*;
        for (first, second, race) in [
            (Read, Read, false),
            (Read, Write, true),
            (Write, Read, true),
            (Write, Write, true),
            (Atomic, Atomic, false),
            (Atomic, Read, true),
            (Read, Atomic, true),
            (Write, Atomic, true),
            (Atomic, Write, true),
        ] {
            let touched = Touched::new(64, 4);
            assert_eq!(touched.touch(8, 8, 3, first), Ok(()));
            assert_eq!(touched.touch(8, 4, 3, second), Ok(()), "one block alone");
            let touched = Touched::new(64, 4);
            assert_eq!(touched.touch(8, 8, 3, first), Ok(()));
            let result = touched.touch(12, 4, 5, second);
            assert_eq!(result, if race { Err(Some(3)) } else { Ok(()) }, "{first:?} {second:?}");
            assert_eq!(touched.touch(16, 4, 5, Write), Ok(()), "next to it");
        }
    }
}
