//! Memory that is mapped once and kept: chunks from the system in huge pages, touched before they are used.
//!
//! A fresh page costs about thirty times a store, and an allocator that gives large blocks back pays it in every step.
//! So chunks are never given back before the whole is dropped, are aligned to 2 MiB, ask for huge pages and are
//! populated at once; blocks are cut from them in order and recycled by those who took them.

use memmap2::{MmapMut, MmapOptions};
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
    /// A new block of `bytes`, aligned to [`ALIGN`].
    ///
    /// # Panics
    /// The system has no more memory.
    pub fn take(&self, bytes: usize) -> Region {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rest.1 < bytes {
            let size = bytes.max((state.mapped / 4).clamp(HUGE, 32 * HUGE)).next_multiple_of(HUGE);
            let (chunk, start) = map(size);
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

/// Maps `size` bytes whose start is aligned to [`HUGE`], with huge pages where the system has them, and touches them.
fn map(size: usize) -> (MmapMut, usize) {
    let mut chunk = match MmapOptions::new().len(size + HUGE).map_anon() {
        Ok(chunk) => chunk,
        Err(error) => panic!("out of memory: mapping {} MiB failed: {error}", size >> 20),
    };
    let start = (chunk.as_ptr() as usize).next_multiple_of(HUGE);
    let offset = start - chunk.as_ptr() as usize;
    #[cfg(target_os = "linux")]
    {
        use memmap2::Advice;
        // Both are requests: an old kernel refuses them, and the pages are then touched one by one below.
        let _ = chunk.advise_range(Advice::HugePage, offset, size);
        if chunk.advise_range(Advice::PopulateWrite, offset, size).is_ok() {
            return (chunk, start);
        }
    }
    for page in (offset..offset + size).step_by(4096) {
        chunk[page] = 0;
    }
    (chunk, start)
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
    /// A buffer of `len` floats: the smallest free one that holds them, else a new one.
    pub fn take(&self, len: usize) -> Borrowed<'_> {
        let bytes = (len * 4).next_multiple_of(ALIGN);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = (0..free.len()).filter(|&i| free[i].bytes >= bytes).min_by_key(|&i| free[i].bytes);
        let region = best.map(|i| free.swap_remove(i)).unwrap_or_else(|| self.fresh(&mut free, bytes));
        Borrowed { scratch: self, region, len }
    }

    /// Makes sure that `count` buffers of `len` floats are free: for iterations of a parallel loop that take one each, so
    /// that how many threads happen to take part does not decide when memory is mapped.
    pub fn reserve(&self, count: usize, len: usize) {
        let bytes = (len * 4).next_multiple_of(ALIGN);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in free.iter().filter(|region| region.bytes >= bytes).count()..count {
            let region = self.fresh(&mut free, bytes);
            free.push(region);
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
    fn scratch_is_reused() {
        let scratch = Scratch::default();
        let a = scratch.take(1000).as_ptr();
        assert_eq!(scratch.take(900).as_ptr(), a);
        let (x, y) = (scratch.take(1000), scratch.take(1000));
        assert_ne!(x.as_ptr(), y.as_ptr());
    }
}
