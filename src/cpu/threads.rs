//! A persistent pool of threads for loops whose iterations write to disjoint places.
//!
//! A training step is hundreds of short loops, so waking must be cheap: workers spin for some microseconds after a loop
//! before they sleep, a loop never waits for a worker that is still asleep, and nothing is allocated. Which thread runs
//! an iteration is not fixed; results do not depend on it because each output has one owner.

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// How long a worker looks for the next loop before it sleeps, and the caller for the end of its loop before it yields.
const SPINS: u32 = 4_000;

thread_local! {
    /// True while this thread runs an iteration: a loop inside a loop runs in place.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A pool of `n` threads, the calling one included.
pub struct Threads {
    n: usize,
    idle: bool,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One loop at a time; also keeps the `Thread` handles with which workers are woken.
    running: Mutex<Vec<Thread>>,
}

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// One loop as the workers see it.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    count: usize,
}

struct Shared {
    /// The current loop; written only while the gate is closed and nobody is inside.
    job: UnsafeCell<Option<Job>>,
    /// `loop number << 32 | closed << 31 | workers inside`. A worker enters by adding 1 while the loop is open.
    gate: AtomicU64,
    next: AtomicUsize,
    panicked: AtomicBool,
    asleep: AtomicUsize,
    quit: AtomicBool,
}

// SAFETY: `job` is written by the thread that holds `running`, only while the gate is closed with nobody inside, and read
// only by workers that entered the open gate; the gate's acquire and release order these. The task it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never followed outside of `Threads::run`, which outlives the loop.
unsafe impl Send for Shared {}

const CLOSED: u64 = 1 << 31;
const INSIDE_MASK: u64 = CLOSED - 1;

impl Shared {
    /// Takes iterations until none is left.
    fn work(&self, job: Job) {
        INSIDE.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Relaxed);
                if i >= job.count {
                    break;
                }
                // SAFETY: `Threads::run` keeps the task alive until every worker has left the gate.
                unsafe { (*job.task)(i) };
            }
        }));
        INSIDE.set(false);
        if result.is_err() {
            self.panicked.store(true, Relaxed);
            self.next.store(usize::MAX / 2, Relaxed);
        }
    }

    fn worker(&self) {
        let mut done = 0;
        let mut spins = 0;
        loop {
            let gate = self.gate.load(Acquire);
            if gate >> 32 != done && gate & CLOSED == 0 {
                if self.gate.compare_exchange_weak(gate, gate + 1, AcqRel, Relaxed).is_ok() {
                    // SAFETY: inside the open gate the job is not written.
                    if let Some(job) = unsafe { *self.job.get() } {
                        self.work(job);
                    }
                    done = gate >> 32;
                    self.gate.fetch_sub(1, Release);
                    spins = 0;
                }
                continue;
            }
            if self.quit.load(Relaxed) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // Announce the sleep, then look once more, so that a loop opened meanwhile is not slept through.
            self.asleep.fetch_add(1, SeqCst);
            let gate = self.gate.load(SeqCst);
            if (gate >> 32 == done || gate & CLOSED != 0) && !self.quit.load(SeqCst) {
                std::thread::park();
            }
            self.asleep.fetch_sub(1, SeqCst);
            spins = 0;
        }
    }
}

impl Threads {
    /// A pool of `n` threads (at least 1): the caller of [`run`](Threads::run) and `n - 1` workers.
    pub fn new(n: usize) -> Threads {
        let n = n.max(1);
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            gate: AtomicU64::new(CLOSED),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
        });
        let workers: Vec<_> = (1..n)
            .map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kiln-{i}"))
                    .spawn(move || shared.worker())
                    .expect("the system can start a thread")
            })
            .collect();
        let handles = workers.iter().map(|w| w.thread().clone()).collect();
        Threads { n, idle: false, shared, workers, running: Mutex::new(handles) }
    }

    /// A pool that counts as `n` threads and runs nothing: for a computation on memory that is not to be touched.
    pub fn idle(n: usize) -> Threads {
        let mut threads = Threads::new(1);
        (threads.n, threads.idle) = (n.max(1), true);
        threads
    }

    /// Whether it runs nothing.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// The number of threads.
    pub fn count(&self) -> usize {
        self.n
    }

    /// Calls `task(i)` once for each `i` in `0..count`, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// Where an iteration panics, the rest may be skipped and the panic goes on here.
    pub fn run(&self, count: usize, task: &Task<'_>) {
        if self.idle {
            return;
        }
        if self.n == 1 || count <= 1 || INSIDE.get() {
            (0..count).for_each(task);
            return;
        }
        let handles = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; the gate is closed and empty again before this function returns.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        let job = Job { task, count };
        // SAFETY: the gate is closed and nobody is inside, and `running` is held.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Relaxed);
        let number = (shared.gate.load(Relaxed) >> 32) + 1;
        shared.gate.store((number & 0xffff_ffff) << 32, SeqCst);
        if shared.asleep.load(SeqCst) > 0 {
            handles.iter().for_each(Thread::unpark);
        }
        shared.work(job);
        // Close, so that a late worker cannot enter, and wait for those inside.
        shared.gate.fetch_or(CLOSED, AcqRel);
        let mut spins = 0u32;
        while shared.gate.load(Acquire) & INSIDE_MASK != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panicked = shared.panicked.swap(false, Relaxed);
        drop(handles);
        if panicked {
            resume_unwind(Box::new("an iteration of a parallel loop panicked; its message stands above"));
        }
    }

    /// Runs `f(i, part i)` over all parts of `parts` in parallel; each part is a chunk of one slice or a tuple of chunks.
    ///
    /// ```
    /// use kiln::cpu::{Threads, chunks};
    /// let threads = Threads::new(2);
    /// let (mut a, b) = ([0; 10], [1; 10]);
    /// threads.each(chunks(&mut a, 4), |i, a| a.iter_mut().enumerate().for_each(|(j, a)| *a = b[4 * i + j] + i));
    /// assert_eq!(a, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    /// ```
    pub fn each<P: Parts>(&self, parts: P, f: impl Fn(usize, P::Part) + Sync) {
        let parts = &parts;
        // SAFETY: `run` visits each index once, so no two parts handed out overlap.
        self.run(parts.count(), &|i| f(i, unsafe { parts.part(i) }));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.quit.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its iterations, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

/// Something that falls into parts which may be handed to different threads.
///
/// # Safety
/// Parts with different indices below `count` must not overlap.
pub unsafe trait Parts: Sync {
    /// One part.
    type Part;
    /// The number of parts.
    fn count(&self) -> usize;
    /// Part `i`.
    ///
    /// # Safety
    /// Each index, below `count`, may be asked for once.
    unsafe fn part(&self, i: usize) -> Self::Part;
}

/// A mutable slice in chunks of equal size, the last one possibly shorter. See [`chunks`].
pub struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    size: usize,
    owner: std::marker::PhantomData<&'a mut [T]>,
}

/// `data` in chunks of `size`, as parts for [`Threads::each`].
pub fn chunks<T: Send>(data: &mut [T], size: usize) -> Chunks<'_, T> {
    assert!(size > 0, "chunks: the size is 0");
    Chunks { data: data.as_mut_ptr(), len: data.len(), size, owner: std::marker::PhantomData }
}

// SAFETY: the chunks are disjoint, and `T: Send` lets each go to another thread.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

// SAFETY: chunk i is elements i*size..(i+1)*size, so chunks are disjoint.
unsafe impl<'a, T: Send> Parts for Chunks<'a, T> {
    type Part = &'a mut [T];
    #[inline]
    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }
    #[inline]
    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let start = i * self.size;
        assert!(start < self.len);
        // SAFETY: the range lies inside the slice, and the caller asks for each index once.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), self.size.min(self.len - start)) }
    }
}

macro_rules! tuple_of_parts {
    ($($name:ident $index:tt),*) => {
        // SAFETY: parts of each member with different indices do not overlap.
        unsafe impl<$($name: Parts),*> Parts for ($($name,)*) {
            type Part = ($($name::Part,)*);
            #[inline]
            fn count(&self) -> usize {
                $(assert_eq!(self.0.count(), self.$index.count(), "slices of different numbers of chunks");)*
                self.0.count()
            }
            #[inline]
            unsafe fn part(&self, i: usize) -> Self::Part {
                // SAFETY: the caller asks for each index once.
                unsafe { ($(self.$index.part(i),)*) }
            }
        }
    };
}
tuple_of_parts!(A 0, B 1);
tuple_of_parts!(A 0, B 1, C 2);
tuple_of_parts!(A 0, B 1, C 2, D 3);

/// A mutable slice whose disjoint ranges are written by different iterations of one loop, where the ranges are not equal
/// chunks (tiles of a matrix).
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    data: *mut f32,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: access is by `ptr`, whose users promise disjointness.
unsafe impl Sync for Tiles<'_> {}
// SAFETY: as above.
unsafe impl Send for Tiles<'_> {}

impl<'a> Tiles<'a> {
    /// Shares `data` for the length of a loop.
    pub fn new(data: &'a mut [f32]) -> Self {
        Tiles { data: data.as_mut_ptr(), len: data.len(), owner: std::marker::PhantomData }
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.len
    }

    /// The address of element `i`; `i` may be the length. Writing through it is the user's unsafe act.
    #[inline(always)]
    pub fn ptr(&self, i: usize) -> *mut f32 {
        debug_assert!(i <= self.len);
        self.data.wrapping_add(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_iteration_runs_once() {
        for n in [1, 2, 3, 5, 8] {
            let threads = Threads::new(n);
            for count in [0, 1, 2, 7, 1000] {
                let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                threads.run(count, &|i| {
                    hits[i].fetch_add(1, Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Relaxed) == 1), "{n} threads, {count} iterations");
            }
        }
    }

    #[test]
    fn many_short_loops_and_sleeps() {
        let threads = Threads::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..2000 {
            threads.run(5, &|i| {
                total.fetch_add(i, Relaxed);
            });
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
        assert_eq!(total.into_inner(), 2000 * 10);
    }

    #[test]
    fn a_loop_inside_a_loop_runs_in_place() {
        let threads = Threads::new(2);
        let total = AtomicUsize::new(0);
        threads.run(4, &|_| {
            threads.run(4, &|j| {
                total.fetch_add(j, Relaxed);
            })
        });
        assert_eq!(total.into_inner(), 24);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let threads = Threads::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| threads.run(8, &|i| assert!(i != 3, "planted"))));
        assert!(result.is_err());
        let total = AtomicUsize::new(0);
        threads.run(8, &|i| {
            total.fetch_add(i, Relaxed);
        });
        assert_eq!(total.into_inner(), 28);
    }
}
