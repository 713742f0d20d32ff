//! Thirty-two threads in lock step: their registers, which of them run, and where the others wait.

use super::decode::{ALWAYS, Fill, PRED, Program};
use crate::device::ptx::{Special, Type};
use bytemuck::{Pod, Zeroable};
use std::collections::VecDeque;

/// A slot: 32 lanes of 32 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Lanes(pub [u32; 32]);

/// What a warp is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To run.
    Ready,
    /// To wait at a barrier of this number.
    Waiting(u32),
    /// Nothing more.
    Done,
}

/// Bytes on their way from global to shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// The thread that asked for them.
    pub thread: u32,
    /// Where to.
    pub to: u32,
    /// Where from.
    pub from: u64,
    /// How many are written.
    pub size: u32,
    /// How many are read; the rest is 0.
    pub read: u32,
}

/// A warp.
#[derive(Debug)]
pub struct Warp {
    /// Its number in the block.
    pub index: u32,
    regs: Vec<Lanes>,
    /// Its predicates, a bit a lane.
    pub preds: Vec<u32>,
    /// Which lanes of each slot were written; with checks on only.
    known: Vec<u32>,
    known_preds: Vec<u32>,
    /// The next instruction of the lanes of `mask`.
    pub pc: u32,
    /// The lanes that run.
    pub mask: u32,
    /// The lanes that have not ended.
    pub live: u32,
    /// Lanes that wait at an instruction further on, and the lowest of these.
    pending: Vec<(u32, u32)>,
    /// The lowest instruction in `pending`.
    pub next: u32,
    /// What comes next.
    pub state: State,
    /// Groups of asynchronous copies under way, oldest first.
    pub copies: VecDeque<Vec<Copy>>,
    /// The group that is being filled.
    pub open: Vec<Copy>,
    /// The time of the last barrier among its lanes; see [`Shared`](super::shared::Shared).
    pub synced: u32,
    /// Jumps backwards so far.
    pub jumps: u64,
}

/// A type of which a register holds 32.
pub trait Lane: Pod {
    /// The lanes of slot `s`.
    fn lanes(warp: &Warp, s: u16) -> &[Self; 32];
    /// The same, to be written.
    fn lanes_mut(warp: &mut Warp, s: u16) -> &mut [Self; 32];
}

macro_rules! lane {
    ($($narrow:ty)*; $($double:ty)*) => {
        $(impl Lane for $narrow {
            #[inline(always)]
            fn lanes(warp: &Warp, s: u16) -> &[Self; 32] {
                bytemuck::cast_ref(&warp.regs[usize::from(s)].0)
            }
            #[inline(always)]
            fn lanes_mut(warp: &mut Warp, s: u16) -> &mut [Self; 32] {
                bytemuck::cast_mut(&mut warp.regs[usize::from(s)].0)
            }
        })*
        $(impl Lane for $double {
            #[inline(always)]
            fn lanes(warp: &Warp, s: u16) -> &[Self; 32] {
                let s = usize::from(s);
                let slots: &[Lanes; 2] = (&warp.regs[s..s + 2]).try_into().expect("two slots");
                bytemuck::cast_ref(slots)
            }
            #[inline(always)]
            fn lanes_mut(warp: &mut Warp, s: u16) -> &mut [Self; 32] {
                let s = usize::from(s);
                let slots: &mut [Lanes; 2] = (&mut warp.regs[s..s + 2]).try_into().expect("two slots");
                bytemuck::cast_mut(slots)
            }
        })*
    };
}
lane!(u32 i32 f32; u64 i64 f64);

/// `f` of each lane. (`array::map` is not inlined by force, and then not compiled with the level's instructions.)
#[inline(always)]
pub fn lanes<T: Lane>(f: impl Fn(usize) -> T) -> [T; 32] {
    let mut d = [T::zeroed(); 32];
    for (i, d) in d.iter_mut().enumerate() {
        *d = f(i);
    }
    d
}

impl Warp {
    /// Warp `index` of a block that runs `program`.
    pub fn new(program: &Program, index: u32, check: bool) -> Warp {
        let known = |n: usize| if check { vec![0; n] } else { Vec::new() };
        Warp {
            index,
            regs: vec![Lanes([0; 32]); program.slots],
            preds: vec![0; program.preds],
            known: known(program.slots),
            known_preds: known(program.preds),
            pc: 0,
            mask: 0,
            live: 0,
            pending: Vec::new(),
            next: u32::MAX,
            state: State::Ready,
            copies: VecDeque::new(),
            open: Vec::new(),
            synced: 0,
            jumps: 0,
        }
    }

    /// Puts the warp at the start of block `block`.
    pub fn start(&mut self, program: &Program, launch: &Shape, block: [u32; 3], params: &[u8], fresh: bool) {
        let threads = launch.threads();
        let lanes = (threads - self.index * 32).min(32);
        self.live = if lanes == 32 { !0 } else { (1 << lanes) - 1 };
        (self.mask, self.pc, self.next, self.state, self.jumps, self.synced) =
            (self.live, 0, u32::MAX, State::Ready, 0, 0);
        self.pending.clear();
        self.copies.clear();
        self.open.clear();
        self.known.fill(0);
        self.known_preds.fill(0);
        self.preds[usize::from(ALWAYS)] = !0;
        for &(slot, fill) in &program.fills {
            match fill {
                // Constants and parameters stay from block to block.
                Fill::Word(word) if fresh => u32::lanes_mut(self, slot).fill(word),
                Fill::Wide(word) if fresh => u64::lanes_mut(self, slot).fill(word),
                Fill::Param(offset, ty, wide) if fresh => {
                    let mut bytes = [0; 8];
                    bytes[..ty.bytes()].copy_from_slice(&params[offset..offset + ty.bytes()]);
                    let value = extend(u64::from_le_bytes(bytes), ty);
                    if wide {
                        u64::lanes_mut(self, slot).fill(value);
                    } else {
                        u32::lanes_mut(self, slot).fill(value as u32);
                    }
                }
                Fill::Special(special) => {
                    let index = self.index;
                    let lanes = u32::lanes_mut(self, slot);
                    for (lane, value) in lanes.iter_mut().enumerate() {
                        *value = launch.special(special, block, index, lane as u32);
                    }
                }
                _ => {}
            }
        }
    }

    /// The lanes of slot `s`.
    #[inline(always)]
    pub fn get<T: Lane>(&self, s: u16) -> &[T; 32] {
        T::lanes(self, s)
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub fn set<T: Lane>(&mut self, s: u16, mask: u32, values: &[T; 32]) {
        let lanes = T::lanes_mut(self, s);
        if mask == !0 {
            *lanes = *values;
        } else {
            for i in 0..32 {
                lanes[i] = if mask >> i & 1 == 1 { values[i] } else { lanes[i] };
            }
        }
    }

    /// Writes the lanes of `mask` of a register that has 64 bits where `wide`, else the lower 32.
    #[inline(always)]
    pub fn set_either(&mut self, s: u16, wide: bool, mask: u32, values: &[u64; 32]) {
        if wide {
            self.set(s, mask, values);
        } else {
            self.set(s, mask, &lanes(|i| values[i] as u32));
        }
    }

    /// The lanes of a register that has 64 bits where `wide`, else 32.
    #[inline(always)]
    pub fn get_either(&self, s: u16, wide: bool) -> [u64; 32] {
        if wide {
            *self.get(s)
        } else {
            let narrow = self.get::<u32>(s);
            lanes(|i| u64::from(narrow[i]))
        }
    }

    /// Sets the bits of `mask` in a predicate.
    #[inline(always)]
    pub fn set_pred(&mut self, p: u16, mask: u32, values: u32) {
        let pred = &mut self.preds[usize::from(p)];
        *pred = (*pred & !mask) | (values & mask);
    }

    /// The lanes of `mask` in which what `place` names was never written.
    #[inline]
    pub fn unwritten(&self, place: u16, mask: u32) -> u32 {
        let known = if place & PRED == 0 {
            self.known[usize::from(place)]
        } else {
            self.known_preds[usize::from(place & !PRED)]
        };
        mask & !known
    }

    /// Notes that the lanes of `mask` were written.
    #[inline]
    pub fn written(&mut self, place: u16, mask: u32) {
        if place & PRED == 0 {
            self.known[usize::from(place)] |= mask;
        } else {
            self.known_preds[usize::from(place & !PRED)] |= mask;
        }
    }

    /// Lets the lanes that stand at the lowest instruction run, with all others that stand there.
    #[cold]
    #[inline(never)]
    pub fn regroup(&mut self) {
        if self.mask != 0 {
            self.pending.push((self.pc, self.mask));
        }
        let Some(lowest) = self.pending.iter().map(|(pc, _)| *pc).min() else { return };
        (self.pc, self.mask) = (lowest, 0);
        self.pending.retain(|(pc, lanes)| {
            if *pc == lowest {
                self.mask |= lanes;
            }
            *pc != lowest
        });
        self.next = self.pending.iter().map(|(pc, _)| *pc).min().unwrap_or(u32::MAX);
    }

    /// Sends the lanes of `taken`, some of those that run, to instruction `target`; the others go on.
    pub fn split(&mut self, taken: u32, target: u32) {
        self.mask &= !taken;
        self.pending.push((target, taken));
        self.next = self.next.min(target);
        if self.mask == 0 || target <= self.pc {
            self.regroup();
        }
    }

    /// Ends the lanes of `lanes`. Returns whether none is left.
    pub fn end(&mut self, lanes: u32) -> bool {
        self.live &= !lanes;
        self.mask &= !lanes;
        if self.mask == 0 {
            self.regroup();
        }
        self.mask == 0
    }

    /// Where the lanes stand that do not run.
    pub fn elsewhere(&self) -> impl Iterator<Item = u32> {
        self.pending.iter().map(|(pc, _)| *pc)
    }
}

/// `bits` of type `ty` as a 64-bit number.
pub fn extend(bits: u64, ty: Type) -> u64 {
    let unused = 64 - ty.bits();
    if ty.signed() { ((bits << unused) as i64 >> unused) as u64 } else { bits << unused >> unused }
}

/// The sizes of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory: those of the kernel, and those that the launch adds.
    pub shared: [usize; 2],
}

impl Shape {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Thread `thread` of a block by its three numbers.
    pub fn thread(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [thread % x, thread / x % y, thread / x / y]
    }

    fn special(&self, special: Special, block: [u32; 3], warp: u32, lane: u32) -> u32 {
        use Special::*;
        let thread = self.thread(warp * 32 + lane);
        let below = (1u32 << lane) - 1;
        match special {
            TidX => thread[0],
            TidY => thread[1],
            TidZ => thread[2],
            NtidX => self.block[0],
            NtidY => self.block[1],
            NtidZ => self.block[2],
            CtaidX => block[0],
            CtaidY => block[1],
            CtaidZ => block[2],
            NctaidX => self.grid[0],
            NctaidY => self.grid[1],
            NctaidZ => self.grid[2],
            LaneId => lane,
            WarpId => warp,
            NwarpId => self.threads().div_ceil(32),
            MaskEq => 1 << lane,
            MaskLt => below,
            MaskLe => below | 1 << lane,
            MaskGt => !(below | 1 << lane),
            MaskGe => !below,
            DynamicShared => self.shared[1] as u32,
            TotalShared => (self.shared[0] + self.shared[1]) as u32,
        }
    }
}
