//! What a launch did, counted.

use crate::device::ptx::Code;
use crate::device::ptx::code::Space;
use std::ops::AddAssign;

/// Classes of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Arithmetic on floats.
    Float,
    /// Arithmetic on integers, moves, comparisons.
    Int,
    /// Conversions.
    Convert,
    /// Products of matrix fragments.
    Mma,
    /// Loads and stores of global memory, and asynchronous copies.
    Global,
    /// Loads and stores of shared memory, with those of fragments.
    Shared,
    /// Atomic operations.
    Atomic,
    /// Exchange between lanes.
    Lane,
    /// Jumps and ends.
    Branch,
    /// Barriers, waits and fences.
    Barrier,
}

impl Class {
    /// All classes with their names.
    pub const ALL: [(Class, &'static str); 10] = [
        (Class::Float, "float"),
        (Class::Int, "int"),
        (Class::Convert, "convert"),
        (Class::Mma, "mma"),
        (Class::Global, "global"),
        (Class::Shared, "shared"),
        (Class::Atomic, "atomic"),
        (Class::Lane, "lane"),
        (Class::Branch, "branch"),
        (Class::Barrier, "barrier"),
    ];

    /// The class of an instruction.
    pub fn of(code: Code) -> Class {
        match code {
            Code::Float1(..) | Code::Float2(..) | Code::Fma(..) => Class::Float,
            Code::Cvt(_) | Code::CvtPair(_) => Class::Convert,
            Code::Mma(_) => Class::Mma,
            Code::Ld(access) | Code::St(access) if access.space == Space::Shared => Class::Shared,
            Code::Ld(_) | Code::St(_) | Code::CpAsync => Class::Global,
            Code::LdMatrix { .. } | Code::StMatrix { .. } => Class::Shared,
            Code::Atom(..) | Code::Red(..) => Class::Atomic,
            Code::Shfl(_) | Code::Vote(_) | Code::Match { .. } | Code::Redux(..) | Code::Activemask => Class::Lane,
            Code::Bra | Code::Exit | Code::Trap => Class::Branch,
            Code::Bar { .. } | Code::BarWarp | Code::Fence => Class::Barrier,
            Code::CpCommit | Code::CpWait | Code::CpWaitAll => Class::Barrier,
            _ => Class::Int,
        }
    }
}

/// Instructions executed: by warps, and by their lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// By warps.
    pub warp: u64,
    /// By lanes.
    pub lane: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.warp += other.warp;
        self.lane += other.lane;
    }
}

/// What a launch did. The figures of memory are counted with checks on only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions by class, in the order of [`Class::ALL`].
    pub classes: [Count; Class::ALL.len()],
    /// Instructions by line of the expanded text, in the order in which the lines stand.
    pub lines: Vec<(usize, Count)>,
    /// Jumps that some lanes took and others did not.
    pub divergent: u64,
    /// Accesses to shared memory, by warps.
    pub shared: Traffic,
    /// Accesses to global memory, by warps: its steps are sectors of 32 bytes.
    pub global: Traffic,
    /// The same by instruction: the line of the expanded text, and what was accessed from there.
    pub sites: Vec<(usize, Site)>,
}

/// What one instruction accessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Shared memory.
    pub shared: Traffic,
    /// Global memory.
    pub global: Traffic,
    /// Words that each bank of shared memory gave or took.
    pub banks: [u64; 32],
}

impl AddAssign<&Site> for Site {
    fn add_assign(&mut self, other: &Site) {
        self.shared += other.shared;
        self.global += other.global;
        self.banks.iter_mut().zip(&other.banks).for_each(|(bank, other)| *bank += other);
    }
}

impl Site {
    /// Counts an access to shared memory of `size` bytes by each lane of `mask`: 32 banks of 4 bytes give a word each in
    /// a cycle, to all who ask for it. Wide accesses go in halves and quarters of a warp.
    pub fn touch_shared(&mut self, address: &[u64; 32], mask: u32, size: usize) {
        self.shared.requests += 1;
        self.shared.bytes += u64::from(mask.count_ones()) * size as u64;
        let (words, lanes) = match size {
            16 => (4, 8),
            8 => (2, 16),
            _ => (1, 32),
        };
        for phase in 0..32 / lanes {
            let here = (phase * lanes..(phase + 1) * lanes).filter(|lane| mask >> lane & 1 == 1);
            let words = here.flat_map(|lane| (0..words).map(move |i| address[lane] / 4 + i));
            // The word that each bank gives: 1 more than its number, so that 0 is none.
            let mut given = [0u64; 32];
            let (mut some, mut conflict) = (false, false);
            for word in words.clone() {
                let bank = &mut given[word as usize % 32];
                conflict |= *bank != 0 && *bank != word + 1;
                *bank = word + 1;
                some = true;
            }
            let counts = if conflict { loads(words.collect()) } else { given.map(|word| u64::from(word != 0)) };
            self.banks.iter_mut().zip(&counts).for_each(|(bank, count)| *bank += count);
            self.shared.ideal += u64::from(some);
            self.shared.steps += if conflict { counts.into_iter().max().unwrap_or(0) } else { u64::from(some) };
        }
    }

    /// Counts an access to global memory of `size` bytes by each lane of `mask`.
    pub fn touch_global(&mut self, address: &[u64; 32], mask: u32, size: usize) {
        self.global.sectors(address, mask, size);
    }
}

/// Accesses of one kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions of warps.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// What they took: cycles of the banks, or sectors.
    pub steps: u64,
    /// What they would have taken at best.
    pub ideal: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.steps += other.steps;
        self.ideal += other.ideal;
    }
}

/// How many different words each bank must give.
#[cold]
fn loads(mut words: Vec<u64>) -> [u64; 32] {
    words.sort_unstable();
    words.dedup();
    let mut counts = [0; 32];
    words.iter().for_each(|word| counts[*word as usize % 32] += 1);
    counts
}

impl Counters {
    /// Instructions of a class.
    pub fn class(&self, class: Class) -> Count {
        self.classes[class as usize]
    }

    /// All instructions.
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.classes.iter().for_each(|count| total += *count);
        total
    }
}

impl Traffic {
    fn sectors(&mut self, address: &[u64; 32], mask: u32, size: usize) {
        self.requests += 1;
        self.bytes += u64::from(mask.count_ones()) * size as u64;
        let mut starts = [0u64; 32];
        let mut n = 0;
        let mut sorted = true;
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
            sorted &= n == 0 || starts[n - 1] <= address[lane];
            starts[n] = address[lane];
            n += 1;
        }
        if !sorted {
            starts[..n].sort_unstable();
        }
        let (mut sectors, mut bytes) = (0, 0);
        let (mut next_sector, mut next_byte) = (0, 0);
        for start in &starts[..n] {
            let end = start + size as u64;
            let first = (start / 32).max(next_sector);
            let last = (end - 1) / 32;
            sectors += (last + 1).saturating_sub(first);
            next_sector = next_sector.max(last + 1);
            bytes += end.saturating_sub((*start).max(next_byte));
            next_byte = next_byte.max(end);
        }
        self.steps += sectors;
        self.ideal += bytes.div_ceil(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(size: usize, address: impl Fn(u64) -> u64) -> Site {
        let mut site = Site::default();
        site.touch_shared(&std::array::from_fn(|i| address(i as u64)), !0, size);
        site
    }

    fn banks(size: usize, address: impl Fn(u64) -> u64) -> (u64, u64) {
        let Site { shared, .. } = site(size, address);
        (shared.steps, shared.ideal)
    }

    fn sectors(size: usize, address: impl Fn(u64) -> u64) -> (u64, u64) {
        let mut traffic = Traffic::default();
        traffic.sectors(&std::array::from_fn(|i| address(i as u64)), !0, size);
        (traffic.steps, traffic.ideal)
    }

    #[test]
    fn banks_conflict_where_words_of_one_bank_differ() {
        assert_eq!(banks(4, |i| i * 4), (1, 1));
        assert_eq!(banks(4, |_| 64), (1, 1));
        assert_eq!(banks(4, |i| i * 8), (2, 1));
        assert_eq!(banks(4, |i| i * 128), (32, 1));
        assert_eq!(banks(4, |i| i * 132), (1, 1));
        assert_eq!(banks(16, |i| i * 16), (4, 4));
        assert_eq!(banks(16, |i| i * 64), (16, 4));
        assert_eq!(banks(2, |i| i * 2), (1, 1));
        let two = |bank: usize| if bank.is_multiple_of(2) { 2 } else { 0 };
        assert_eq!(site(4, |i| i * 8).banks, std::array::from_fn(two));
        assert_eq!(site(4, |_| 64).banks, std::array::from_fn(|bank| u64::from(bank == 16)));
    }

    #[test]
    fn sectors_are_counted_once() {
        assert_eq!(sectors(4, |i| i * 4), (4, 4));
        assert_eq!(sectors(4, |i| (31 - i) * 4 + 4), (5, 4));
        assert_eq!(sectors(4, |_| 8), (1, 1));
        assert_eq!(sectors(4, |i| i * 32), (32, 4));
        assert_eq!(sectors(16, |i| i * 16), (16, 16));
    }
}
