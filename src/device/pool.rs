//! Buffers recycled by exact size: a training step repeats its sizes, so from the second step on every request finds its
//! buffer, at the same address as before, and neither the system nor the global allocator is asked.

use super::Device;
use crate::cpu::memory::{Memory, Region};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A device buffer. Lives in an [`Arc`] that is itself recycled.
pub struct Block {
    region: Region,
    /// The device while the block is in use; `None` while it waits in the pool (which the device owns).
    home: Option<Device>,
}

/// A shared reference to a [`Block`]; the last one to go gives the block back to its pool.
pub struct Handle(ManuallyDrop<Arc<Block>>);

/// The free buffers of one device.
#[derive(Default)]
pub struct Pool {
    memory: Memory,
    free: Mutex<HashMap<usize, Vec<Arc<Block>>>>,
    live: AtomicUsize,
    peak: AtomicUsize,
    misses: AtomicUsize,
}

impl Pool {
    /// A pool whose buffers are counted and must not be used, `limit` bytes of them.
    pub fn dry(limit: usize) -> Pool {
        Pool { memory: Memory::dry(limit), ..Pool::default() }
    }

    pub(super) fn take(&self, bytes: usize, home: &Device) -> Handle {
        let bytes = bytes.max(1).next_multiple_of(crate::cpu::memory::ALIGN);
        self.peak.fetch_max(self.live.fetch_add(bytes, Relaxed) + bytes, Relaxed);
        let recycled = self.lock().get_mut(&bytes).and_then(Vec::pop);
        let mut block = recycled.unwrap_or_else(|| {
            self.misses.fetch_add(1, Relaxed);
            Arc::new(Block { region: self.memory.take(bytes), home: None })
        });
        let inner = Arc::get_mut(&mut block).expect("a free block has one owner");
        inner.home = Some(home.clone());
        // In debug builds a kernel that reads what it never wrote gets NaN.
        #[cfg(debug_assertions)]
        if !self.memory.is_dry() {
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
        self.memory.mapped()
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
