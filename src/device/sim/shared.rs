//! A block's shared memory, and with checks on what is known of every grain of it: who wrote it and who read it, when.
//!
//! Time counts barriers: those of the block and those of warps. Two threads of different warps are in order if the block's
//! last barrier lies between what they do, two of one warp if a `bar.warp.sync` does, too. Barriers that only some warps
//! take part in count as the block's, so that no race is seen where there is none.

use super::fault::{Kind, Trouble};
use super::memory::{Arena, Touch};
use super::warp::Warp;

/// What is known of a grain.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// When it was last written, and by which thread.
    wrote: u32,
    writer: u16,
    /// Whether that was an atomic operation.
    atomic: bool,
    /// Whether an asynchronous copy into it is under way.
    coming: bool,
    /// When it was last read, and by which lane of which warp.
    read: u32,
    warp: u8,
    lane: u8,
}

/// Several warps, or several lanes of a warp.
const MANY: u8 = 0xff;
/// Several threads, that wrote atomically.
const SEVERAL: u16 = 0xffff;

/// Shared memory.
pub struct Shared {
    /// Its bytes.
    pub bytes: Arena,
    cells: Vec<Cell>,
    /// The grain is 2 to this power.
    shift: u32,
    /// Now.
    pub time: u32,
    /// When the block began.
    began: u32,
    /// When all its threads last met.
    pub met: u32,
}

impl Shared {
    /// `size` bytes, watched in grains where `grain` is given.
    pub fn new(size: usize, grain: Option<usize>) -> Shared {
        let cells = grain.map_or(0, |grain| size.div_ceil(grain));
        // At time 0 nothing has happened.
        let cells = vec![Cell::default(); cells];
        Shared { bytes: Arena::new(size), cells, shift: grain.unwrap_or(4).ilog2(), time: 0, began: 0, met: 0 }
    }

    /// Begins a block: what was written is forgotten.
    pub fn start(&mut self) {
        self.time += 1;
        (self.began, self.met) = (self.time, self.time);
    }

    /// Lets all threads of the block meet.
    pub fn meet(&mut self) {
        self.time += 1;
        self.met = self.time;
    }

    /// The grains of `size` bytes at `address`.
    #[inline(always)]
    fn grains(&self, address: u64, size: usize) -> std::ops::Range<usize> {
        let first = address as usize;
        first >> self.shift..((first + size - 1) >> self.shift) + 1
    }

    /// Checks that a thread may touch `size` bytes at `address`, and notes that it does.
    pub fn touch(
        &mut self,
        warp: &Warp,
        lane: u32,
        address: u64,
        size: usize,
        touch: Touch,
    ) -> Result<(), Box<Trouble>> {
        for i in self.grains(address, size) {
            if !self.touch_quietly(i, warp, lane, touch) {
                self.touch_cell(i, warp, lane, touch).map_err(|trouble| trouble.at(address))?;
            }
        }
        Ok(())
    }

    /// The usual cases of [`touch_cell`](Self::touch_cell): all that others did was over when the block last met.
    #[inline(always)]
    fn touch_quietly(&mut self, i: usize, warp: &Warp, lane: u32, touch: Touch) -> bool {
        let (met, time) = (self.met, self.time);
        let cell = &mut self.cells[i];
        let (mine, me) = (warp.index as u8, (warp.index * 32 + lane) as u16);
        if cell.coming || (cell.wrote >= met && cell.writer != me) {
            return false;
        }
        let own = cell.warp == mine && cell.lane == lane as u8;
        match touch {
            Touch::Read if cell.wrote >= self.began => {
                if cell.read < met {
                    (cell.warp, cell.lane) = (mine, lane as u8);
                } else if cell.warp != mine {
                    (cell.warp, cell.lane) = (MANY, MANY);
                } else if cell.read < warp.synced {
                    return false;
                } else if !own {
                    cell.lane = MANY;
                }
                cell.read = time;
                true
            }
            Touch::Write if cell.read < met || own => {
                (cell.wrote, cell.writer, cell.atomic) = (time, me, false);
                true
            }
            _ => false,
        }
    }

    /// Checks one grain, and notes that it is touched.
    #[inline(never)]
    fn touch_cell(&mut self, i: usize, warp: &Warp, lane: u32, touch: Touch) -> Result<(), Box<Trouble>> {
        let (began, met, time) = (self.began, self.met, self.time);
        let cell = &mut self.cells[i];
        let me = (warp.index * 32 + lane) as u16;
        let mine = warp.index as u8;
        let fresh = cell.wrote >= began;
        if fresh && cell.coming {
            return Err(coming(lane, cell.writer));
        }
        // Since when what a thread of the given warp did is not known to be over.
        let since = |other: u8| if other == mine { met.max(warp.synced) } else { met };
        let together = touch == Touch::Atomic && cell.atomic;
        if fresh && !together && cell.writer != me && cell.wrote >= since((cell.writer / 32) as u8) {
            let who = if cell.writer == SEVERAL { "several threads".into() } else { format!("thread {}", cell.writer) };
            return Err(race(lane, format!("{who} wrote"), touch));
        }
        if touch != Touch::Write && !fresh {
            let hint = "write it first, look at the address, or at a missing copy";
            return Err(Trouble::new(Kind::SharedUnwritten, lane, "reads shared memory that nothing wrote", hint));
        }
        let was_read = cell.read >= began && cell.read > 0;
        if touch != Touch::Read {
            if was_read && cell.read >= since(cell.warp) && !(cell.warp == mine && u32::from(cell.lane) == lane) {
                let who = match (cell.warp, cell.lane) {
                    (MANY, _) => "threads of several warps read".to_owned(),
                    (warp, MANY) => format!("threads of warp {warp} read"),
                    (warp, lane) => format!("thread {} read", u32::from(warp) * 32 + u32::from(lane)),
                };
                return Err(race(lane, who, touch));
            }
            let shared = fresh && together && cell.writer != me && cell.wrote >= met;
            (cell.wrote, cell.writer) = (time, if shared { SEVERAL } else { me });
            (cell.atomic, cell.coming) = (touch == Touch::Atomic, false);
        }
        if touch == Touch::Read {
            let (warp, lane) = (mine, lane as u8);
            let over = !was_read || cell.read < since(cell.warp);
            (cell.warp, cell.lane) = match (cell.warp, cell.lane) {
                _ if over => (warp, lane),
                (w, l) if w == warp => (w, if l == lane { l } else { MANY }),
                _ => (MANY, MANY),
            };
            cell.read = time;
        }
        Ok(())
    }

    /// Checks that several lanes of a warp may read `size` bytes, and notes that they do.
    pub fn read_by_many(&mut self, warp: &Warp, lane: u32, address: u64, size: usize) -> Result<(), Box<Trouble>> {
        for i in self.grains(address, size) {
            if !self.touch_quietly(i, warp, lane, Touch::Read) {
                self.touch_cell(i, warp, lane, Touch::Read).map_err(|trouble| trouble.at(address))?;
            }
            let cell = &mut self.cells[i];
            if cell.warp == warp.index as u8 {
                cell.lane = MANY;
            }
        }
        Ok(())
    }

    /// Notes that a copy into `size` bytes begins.
    pub fn expect(&mut self, warp: &Warp, lane: u32, address: u64, size: usize) -> Result<(), Box<Trouble>> {
        self.touch(warp, lane, address, size, Touch::Write)?;
        for i in self.grains(address, size) {
            self.cells[i].coming = true;
        }
        Ok(())
    }

    /// Notes that a copy is there, for the thread that waited.
    pub fn arrive(&mut self, thread: u32, address: u64, size: usize) {
        for i in self.grains(address, size) {
            let cell = &mut self.cells[i];
            (cell.wrote, cell.writer) = (self.time, thread as u16);
            (cell.atomic, cell.coming) = (false, false);
        }
    }
}

#[cold]
fn coming(lane: u32, thread: u16) -> Box<Trouble> {
    let message = format!("touches shared memory into which a cp.async of thread {thread} is still copying");
    let hint = "a cp.async.wait_group before this must cover the group of that copy, and a bar.sync must follow it";
    Trouble::new(Kind::AsyncCopy, lane, message, hint)
}

#[cold]
fn race(lane: u32, who: String, touch: Touch) -> Box<Trouble> {
    let what = match touch {
        Touch::Read => "reads",
        Touch::Write => "writes",
        Touch::Atomic => "updates",
    };
    let message = format!("{what} shared memory that {who} with no barrier between");
    let hint = "put a bar.sync between the two, or look at the addresses; in one warp bar.warp.sync is enough";
    Trouble::new(Kind::SharedRace, lane, message, hint)
}
