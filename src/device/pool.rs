//! Buffers recycled by exact size: a training step repeats its sizes, so from the second step on every request finds its
//! buffer, at the same address as before, and neither the system nor the global allocator is asked.

use super::{Device, Driver};
use crate::cpu::memory::{Memory, OutOfMemory, Region};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A device buffer. Lives in an [`Arc`] that is itself recycled.
pub struct Block {
    region: Region,
    /// The device while the block is in use; `None` while it waits in the pool (which the device owns).
    home: Option<Device>,
}

/// A shared reference to a [`Block`]; the last one to go gives the block back to its pool.
pub struct Handle(ManuallyDrop<Arc<Block>>);

/// Where a pool's buffers come from.
enum Source {
    /// The host's memory, or a dry one.
    Host(Memory),
    /// A GPU's, with the bytes taken so far. Its regions hold the GPU's addresses.
    Gpu(Arc<dyn Driver>, AtomicUsize),
}

impl Source {
    fn take(&self, bytes: usize) -> Region {
        match self {
            Source::Host(memory) => memory.take(bytes),
            Source::Gpu(driver, taken) => {
                let out = OutOfMemory { mapped: taken.load(Relaxed), asked: bytes };
                let ptr = driver.alloc(bytes).unwrap_or_else(|_| std::panic::resume_unwind(Box::new(out)));
                taken.fetch_add(bytes, Relaxed);
                Region { ptr: NonNull::new(ptr.0 as *mut u8).expect("an address"), bytes }
            }
        }
    }
}

/// The free buffers of one device.
pub struct Pool {
    source: Source,
    free: Mutex<HashMap<usize, Vec<Arc<Block>>>>,
    ragged: AtomicBool,
    live: AtomicUsize,
    peak: AtomicUsize,
    misses: AtomicUsize,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::from(Source::Host(Memory::default()))
    }
}

impl Pool {
    fn from(source: Source) -> Pool {
        let [live, peak, misses] = [0; 3].map(AtomicUsize::new);
        Pool { source, free: Mutex::default(), ragged: AtomicBool::new(false), live, peak, misses }
    }

    /// A pool whose buffers are counted and must not be used, `limit` bytes of them.
    pub fn dry(limit: usize) -> Pool {
        Pool::from(Source::Host(Memory::dry(limit)))
    }

    /// A pool of a GPU's memory.
    pub fn of(driver: Arc<dyn Driver>) -> Pool {
        Pool::from(Source::Gpu(driver, AtomicUsize::new(0)))
    }

    /// From here on sizes are rounded up to powers of two: for work whose shapes are ever new, as that of a server, which
    /// would otherwise leave free buffers of every size there ever was.
    pub fn ragged(&self) {
        self.ragged.store(true, Relaxed);
    }

    pub(super) fn take(&self, bytes: usize, home: &Device) -> Handle {
        let bytes = bytes.max(1).next_multiple_of(crate::cpu::memory::ALIGN);
        let bytes = if self.ragged.load(Relaxed) { bytes.next_power_of_two() } else { bytes };
        self.peak.fetch_max(self.live.fetch_add(bytes, Relaxed) + bytes, Relaxed);
        let recycled = self.lock().get_mut(&bytes).and_then(Vec::pop);
        let mut block = recycled.unwrap_or_else(|| {
            self.misses.fetch_add(1, Relaxed);
            Arc::new(Block { region: self.source.take(bytes), home: None })
        });
        let inner = Arc::get_mut(&mut block).expect("a free block has one owner");
        inner.home = Some(home.clone());
        // In debug builds a kernel that reads what it never wrote gets NaN.
        #[cfg(debug_assertions)]
        if let Source::Host(memory) = &self.source
            && !memory.is_dry()
        {
            // SAFETY: the region is mapped and owned by this block alone.
            unsafe { inner.region.ptr.as_ptr().write_bytes(0xff, inner.region.bytes) };
        }
        Handle(ManuallyDrop::new(block))
    }

    fn put(&self, block: Arc<Block>) {
        self.live.fetch_sub(block.region.bytes, Relaxed);
        let mut free = self.lock();
        let list = free.entry(block.region.bytes).or_default();
        if list.len() == list.capacity() {
            // Doubling happens while the pool warms up, not later: a list never holds more than the blocks of its size.
            list.reserve(list.len().max(8));
        }
        list.push(block);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<Arc<Block>>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use now.
    pub fn live_bytes(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// The most bytes that were in use at one time.
    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// Bytes taken from the system.
    pub fn mapped_bytes(&self) -> usize {
        match &self.source {
            Source::Host(memory) => memory.mapped(),
            Source::Gpu(_, taken) => taken.load(Relaxed),
        }
    }

    /// Requests for which no free buffer of the size was there.
    pub fn misses(&self) -> usize {
        self.misses.load(Relaxed)
    }
}

impl Handle {
    /// The address of the buffer.
    #[inline]
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.0.region.ptr.as_ptr()
    }

    /// The length of the buffer in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.region.bytes
    }

    /// The device that holds the buffer.
    #[inline]
    pub fn device(&self) -> &Device {
        self.0.home.as_ref().expect("a block in use has a home")
    }

    /// Whether this is the only handle of the block.
    #[inline]
    pub fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_some()
    }
}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Handle {
        Handle(self.0.clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `self.0` is not used again.
        let mut block = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(inner) = Arc::get_mut(&mut block) {
            let home = inner.home.take().expect("a block in use has a home");
            home.pool().put(block);
        }
        // Two last handles dropped at the same moment both see another owner; the block is then not recycled, and its
        // memory stays with the pool until the device goes. Tensors are dropped by one thread, so this does not happen.
    }
}
