//! Memory that is mapped once and kept: chunks from the system in huge pages, touched before they are used.
//!
//! A fresh page costs about thirty times a store, and an allocator that gives large blocks back pays it in every step.
//! So chunks are never given back before the whole is dropped, are aligned to 2 MiB, ask for huge pages and are
//! populated at once; blocks are cut from them in order and recycled by those who took them.
//!
//! A *dry* memory hands out the same blocks in the same way and touches none: its chunks are addresses without pages. What
//! a computation will need is counted by letting it take its blocks from there, with [`Threads::idle`] to run no kernel.
//!
//! Who takes blocks cannot go on without them, and is often deep inside a computation: where there is no more memory,
//! [`Memory::take`] unwinds with [`OutOfMemory`], which [`or_out_of_memory`] turns into a result.
//!
//! [`Threads::idle`]: super::Threads::idle

use memmap2::{MmapMut, MmapOptions};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// The size of a huge page on the platforms that have them.
const HUGE: usize = 2 << 20;
/// Every block starts on a multiple of this: one cache line, one AVX-512 register.
pub const ALIGN: usize = 64;

/// Cuts blocks from mapped chunks. Blocks live as long as it does.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
    /// The most bytes that a dry memory hands out.
    dry: Option<usize>,
}

/// There is no more memory, or no more of what a dry one was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were mapped already.
    pub mapped: usize,
    /// Bytes that were asked for.
    pub asked: usize,
}

/// Runs `f`; where a [`Memory`] had no more for it, says so instead.
pub fn or_out_of_memory<T>(f: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    // What `f` was working on is lost with it, so that nobody sees it half done.
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match panic.downcast::<OutOfMemory>() {
        Ok(out) => *out,
        Err(panic) => resume_unwind(panic),
    })
}

#[derive(Default)]
struct State {
    chunks: Vec<MmapMut>,
    /// The free rest of the newest chunk, as address and length.
    rest: (usize, usize),
    mapped: usize,
}

/// A block of a [`Memory`]: uninitialised for the user's purposes (zeroed pages at first, old content when recycled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The address, a multiple of [`ALIGN`].
    pub ptr: NonNull<u8>,
    /// The length in bytes.
    pub bytes: usize,
}

// SAFETY: a region is an address; who may access it is settled by whoever took it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Memory {
    /// A memory whose blocks are counted and must not be used, `limit` bytes of it.
    pub fn dry(limit: usize) -> Memory {
        Memory { dry: Some(limit), ..Memory::default() }
    }

    /// Whether blocks must not be used.
    pub fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// A new block of `bytes`, aligned to [`ALIGN`].
    ///
    /// # Panics
    /// Unwinds with [`OutOfMemory`] where the system has no more memory.
    pub fn take(&self, bytes: usize) -> Region {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rest.1 < bytes {
            let size = bytes.max((state.mapped / 4).clamp(HUGE, 32 * HUGE)).next_multiple_of(HUGE);
            let out = OutOfMemory { mapped: state.mapped, asked: bytes };
            let allowed = self.dry.is_none_or(|limit| size <= limit.saturating_sub(state.mapped));
            let mapped = if allowed { map(size, !self.is_dry()) } else { None };
            // Not a panic: nothing is wrong with the program, and the hook would print a backtrace.
            let (chunk, start) = mapped.unwrap_or_else(|| resume_unwind(Box::new(out)));
            state.chunks.push(chunk);
            state.rest = (start, size);
            state.mapped += size;
        }
        let (start, len) = state.rest;
        state.rest = (start + bytes, len - bytes);
        Region { ptr: NonNull::new(start as *mut u8).expect("a mapped address"), bytes }
    }

    /// Bytes mapped so far.
    pub fn mapped(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mapped
    }
}

/// Maps `size` bytes whose start is aligned to [`HUGE`] and, to `touch` them, has them populated with huge pages where the
/// system has them. `None`: the system has no more.
fn map(size: usize, touch: bool) -> Option<(MmapMut, usize)> {
    let mut options = MmapOptions::new();
    options.len(size.checked_add(HUGE)?);
    if !touch {
        options.no_reserve_swap();
    }
    let mut chunk = options.map_anon().ok()?;
    let start = (chunk.as_ptr() as usize).next_multiple_of(HUGE);
    let offset = start - chunk.as_ptr() as usize;
    if !touch {
        return Some((chunk, start));
    }
    #[cfg(target_os = "linux")]
    {
        use memmap2::Advice;
        // Both are requests: an old kernel refuses them, and the pages are then touched one by one below.
        let _ = chunk.advise_range(Advice::HugePage, offset, size);
        if chunk.advise_range(Advice::PopulateWrite, offset, size).is_ok() {
            return Some((chunk, start));
        }
    }
    for page in (offset..offset + size).step_by(4096) {
        chunk[page] = 0;
    }
    Some((chunk, start))
}

/// Aligned buffers of f32 that kernels borrow for packed panels and partial sums, and give back.
#[derive(Default)]
pub struct Scratch {
    memory: Memory,
    free: Mutex<Vec<Region>>,
}

/// A borrowed buffer of [`Scratch`]; its content is arbitrary.
pub struct Borrowed<'a> {
    scratch: &'a Scratch,
    region: Region,
    len: usize,
}

impl Scratch {
    /// Scratch on a memory of its own.
    pub fn new(memory: Memory) -> Scratch {
        Scratch { memory, free: Mutex::default() }
    }

    /// A buffer of `len` floats: the smallest free one that holds them, else a new one.
    pub fn take(&self, len: usize) -> Borrowed<'_> {
        let bytes = (len * 4).next_multiple_of(ALIGN);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = (0..free.len()).filter(|&i| free[i].bytes >= bytes).min_by_key(|&i| free[i].bytes);
        let region = best.map(|i| free.swap_remove(i)).unwrap_or_else(|| self.fresh(&mut free, bytes));
        Borrowed { scratch: self, region, len }
    }

    /// Makes sure that for each `(count, len)` of `wants` that many buffers of `len` floats are free at the same time: for
    /// the iterations of a parallel loop, so that how many threads happen to take part does not decide what is mapped.
    pub fn reserve<const N: usize>(&self, mut wants: [(usize, usize); N]) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        wants.sort_unstable_by_key(|&(_, len)| std::cmp::Reverse(len));
        let mut count = 0;
        for (more, len) in wants {
            // A smaller one can be had from among the larger ones, once those have theirs.
            count += more;
            let bytes = (len * 4).next_multiple_of(ALIGN);
            for _ in free.iter().filter(|region| region.bytes >= bytes).count()..count {
                let region = self.fresh(&mut free, bytes);
                free.push(region);
            }
        }
    }

    fn fresh(&self, free: &mut Vec<Region>, bytes: usize) -> Region {
        // Powers of two, so that a few sizes serve all kernels; room to give back without growing the list.
        free.reserve(64);
        self.memory.take(bytes.next_power_of_two().max(4096))
    }

    /// Bytes mapped so far.
    pub fn mapped(&self) -> usize {
        self.memory.mapped()
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.scratch.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.region);
    }
}

impl std::ops::Deref for Borrowed<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the region is mapped (zeroed at first, so initialised), aligned, at least `len` floats long, and lent
        // to nobody else.
        unsafe { std::slice::from_raw_parts(self.region.ptr.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.region.ptr.as_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_disjoint_and_writable() {
        let memory = Memory::default();
        let mut regions: Vec<Region> = [1, 64, 100, 4096, 3 << 20, 7].map(|n| memory.take(n)).into();
        for region in &regions {
            assert_eq!(region.ptr.as_ptr() as usize % ALIGN, 0);
            // SAFETY: the region is mapped and this test alone uses it.
            unsafe { region.ptr.as_ptr().write_bytes(1, region.bytes) };
        }
        regions.sort_by_key(|r| r.ptr);
        for pair in regions.windows(2) {
            assert!(pair[0].ptr.as_ptr() as usize + pair[0].bytes <= pair[1].ptr.as_ptr() as usize);
        }
        assert_eq!(memory.mapped() % HUGE, 0);
    }

    #[test]
    fn a_dry_memory_counts_as_a_real_one_until_its_limit() {
        let (real, dry) = (Memory::default(), Memory::dry(1 << 40));
        for bytes in [1, 5 << 20, 100, 3 << 20, 2 << 20] {
            assert_eq!(real.take(bytes).bytes, dry.take(bytes).bytes);
            assert_eq!(real.mapped(), dry.mapped());
        }
        let mapped = dry.mapped();
        let refused = |bytes| or_out_of_memory(|| dry.take(bytes)).unwrap_err();
        assert_eq!(refused(1 << 40), OutOfMemory { mapped, asked: 1 << 40 });
        assert_eq!(refused(usize::MAX / 2).asked, (usize::MAX / 2).next_multiple_of(ALIGN));
        // What was refused changed nothing.
        dry.take(1 << 30);
        assert_eq!(or_out_of_memory(|| 7), Ok(7));
    }

    #[test]
    fn what_is_reserved_suffices_for_all_at_once() {
        for wants in [[(2, 5000), (3, 100_000)], [(3, 100_000), (2, 5000)], [(2, 3000), (2, 3001)]] {
            let scratch = Scratch::default();
            drop(scratch.take(60_000));
            scratch.reserve(wants);
            let mapped = scratch.memory.state.lock().unwrap().rest;
            let taken: Vec<_> = wants.iter().flat_map(|&(count, len)| (0..count).map(move |_| len)).collect();
            let all: Vec<_> = taken.iter().map(|&len| scratch.take(len)).collect();
            assert_eq!(scratch.memory.state.lock().unwrap().rest, mapped, "{wants:?}");
            drop(all);
        }
    }

    #[test]
    fn scratch_is_reused() {
        let scratch = Scratch::default();
        let a = scratch.take(1000).as_ptr();
        assert_eq!(scratch.take(900).as_ptr(), a);
        let (x, y) = (scratch.take(1000), scratch.take(1000));
        assert_ne!(x.as_ptr(), y.as_ptr());
    }
}
