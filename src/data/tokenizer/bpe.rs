//! Byte-level byte-pair encoding: words to ids.
//!
//! A word starts as its bytes; of all neighbours that a merge knows, those of the lowest rank are joined, the leftmost first,
//! until none is left. Text repeats its words, so the ids of short ones are remembered: a slot for each hash, the newest word
//! wins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Mutex;

use super::words::Pattern;

/// No rank, no id.
const NONE: u32 = u32::MAX;

/// Words of at most so many bytes are remembered.
const SHORT: usize = 15;

/// Slots for words, a power of two: 1 MB, about what one core has of its second cache.
const SLOTS: usize = 1 << 15;

/// Words longer than this are merged through a heap: a scan for the lowest rank grows with the square of the length.
const LONG: usize = 128;

/// An encoder.
pub(crate) struct Bpe {
    pattern: Pattern,
    /// The id of each byte.
    bytes: [u32; 256],
    merges: Merges,
    /// Words that are tokens whatever merges say, where the file says so (`ignore_merges`).
    whole: Option<HashMap<Vec<u8>, u32, ahash::RandomState>>,
    /// Caches that nobody uses at the moment.
    idle: Mutex<Vec<Cache>>,
}

/// From two neighbours to the rank of their merge and the id of both: open addressing, at most half full.
struct Merges {
    slots: Vec<Merge>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Merge {
    pair: u64,
    rank: u32,
    id: u32,
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Merges {
    /// Of triples of left, right and joined id, in order of rank. A pair that comes twice has its last rank.
    fn new(merges: &[[u32; 3]]) -> Merges {
        let size = (2 * merges.len().max(1)).next_power_of_two();
        let empty = Merge { pair: u64::MAX, rank: NONE, id: NONE };
        let mut table = Merges { slots: vec![empty; size], shift: 64 - size.trailing_zeros() };
        for (&[left, right, id], rank) in merges.iter().zip(0..) {
            let pair = pair(left, right);
            let slot = table.slot(pair);
            table.slots[slot] = Merge { pair, rank, id };
        }
        table
    }

    /// Where a pair is, or would be.
    #[inline(always)]
    fn slot(&self, pair: u64) -> usize {
        let mut slot =
            (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ pair >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> self.shift;
        while self.slots[slot as usize].pair != pair && self.slots[slot as usize].rank != NONE {
            slot = (slot + 1) & (self.slots.len() as u64 - 1);
        }
        slot as usize
    }

    /// Rank and id of a pair; [`NONE`] where no merge knows it.
    #[inline(always)]
    fn get(&self, left: u32, right: u32) -> Merge {
        self.slots[self.slot(pair(left, right))]
    }
}

/// What a thread remembers and scratches on.
struct Cache {
    slots: Vec<Slot>,
    ids: Vec<u32>,
    ranks: Vec<u32>,
}

/// A word of at most [`SHORT`] bytes and its at most four ids.
#[derive(Clone, Copy)]
struct Slot {
    /// The bytes, and the length in the highest one; 0: no word.
    word: u128,
    /// Filled up with [`NONE`].
    ids: [u32; 4],
}

impl Bpe {
    /// From the ids of the bytes and the merges, as triples of left, right and joined id in order of rank.
    pub fn new(pattern: Pattern, bytes: [u32; 256], merges: &[[u32; 3]]) -> Bpe {
        Bpe { pattern, bytes, merges: Merges::new(merges), whole: None, idle: Mutex::new(Vec::new()) }
    }

    /// With words that are tokens whatever merges say.
    pub fn with_whole(mut self, tokens: impl Iterator<Item = (Vec<u8>, u32)>) -> Bpe {
        self.whole = Some(tokens.collect());
        self
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let idle = self.idle.lock().map_or(None, |mut idle| idle.pop());
        let mut cache = idle.unwrap_or_else(|| Cache {
            slots: vec![Slot { word: 0, ids: [NONE; 4] }; SLOTS],
            ids: Vec::new(),
            ranks: Vec::new(),
        });
        out.reserve(text.len() / 3);
        let bytes = text.as_bytes();
        self.pattern.words(text, |start, end| {
            if end - start > SHORT {
                return self.word(&bytes[start..end], &mut cache, out);
            }
            let word = key(bytes, start, end);
            let slot = hash(word);
            let Slot { word: found, ids } = cache.slots[slot];
            if found == word {
                let n = ids.iter().take_while(|&&id| id != NONE).count();
                return out.extend_from_slice(&ids[..n]);
            }
            let from = out.len();
            self.word(&bytes[start..end], &mut cache, out);
            if let new @ 1..=4 = out.len() - from {
                let mut ids = [NONE; 4];
                ids[..new].copy_from_slice(&out[from..]);
                cache.slots[slot] = Slot { word, ids };
            }
        });
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(cache);
        }
    }

    /// How text becomes words.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The ids of a word's bytes, or of a part of them.
    pub fn word_ids(&self, word: &[u8]) -> Vec<u32> {
        let (mut cache, mut ids) = (Cache { slots: Vec::new(), ids: Vec::new(), ranks: Vec::new() }, Vec::new());
        self.word(word, &mut cache, &mut ids);
        ids
    }

    /// Appends the ids of a word.
    fn word(&self, word: &[u8], cache: &mut Cache, out: &mut Vec<u32>) {
        if let [byte] = *word {
            return out.push(self.bytes[usize::from(byte)]);
        }
        if let Some(&id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            return out.push(id);
        }
        let Cache { ids, ranks, .. } = cache;
        ids.clear();
        ids.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)]));
        ranks.clear();
        ranks.extend(ids.windows(2).map(|pair| self.merges.get(pair[0], pair[1]).rank));
        if word.len() > LONG {
            return self.long(ids, ranks, out);
        }
        loop {
            let (mut at, mut lowest) = (0, NONE);
            for (i, &rank) in ranks.iter().enumerate() {
                if rank < lowest {
                    (at, lowest) = (i, rank);
                }
            }
            if lowest == NONE {
                return out.extend_from_slice(ids);
            }
            let id = self.merges.get(ids[at], ids[at + 1]).id;
            ids[at] = id;
            ids.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.merges.get(ids[at - 1], id).rank;
            }
            if let Some(&right) = ids.get(at + 1) {
                ranks[at] = self.merges.get(id, right).rank;
            }
        }
    }

    /// The same for a long word, in time n·ln n. `ranks[i]` is that of the symbols at `i` and after it; both stay where their first
    /// byte is.
    fn long(&self, ids: &mut [u32], ranks: &mut Vec<u32>, out: &mut Vec<u32>) {
        let n = ids.len();
        ranks.push(NONE);
        let mut before: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let mut after: Vec<usize> = (1..=n).collect();
        let known = |(at, &rank): (usize, &u32)| (rank != NONE).then_some(Reverse((rank, at)));
        let mut heap: BinaryHeap<_> = ranks.iter().enumerate().filter_map(known).collect();
        while let Some(Reverse((rank, at))) = heap.pop() {
            if ranks[at] != rank {
                continue; // one of the two has been joined with another since
            }
            let gone = after[at];
            let id = self.merges.get(ids[at], ids[gone]).id;
            (ids[at], ids[gone], ranks[at], ranks[gone]) = (id, NONE, NONE, NONE);
            after[at] = after[gone];
            let mut renew = |left: usize, right: usize| {
                ranks[left] = self.merges.get(ids[left], ids[right]).rank;
                heap.extend(known((left, &ranks[left])));
            };
            let right = after[at];
            if right < n {
                before[right] = at;
                renew(at, right);
            }
            if before[at] < n {
                renew(before[at], at);
            }
        }
        out.extend(ids.iter().filter(|&&id| id != NONE));
    }
}

/// The bytes of a short word in a number, its length in the highest byte.
#[inline(always)]
fn key(text: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    let bytes = match text.get(start..start + 16) {
        Some(all) => u128::from_le_bytes(all.try_into().unwrap_or_default()) & ((1 << (8 * length)) - 1),
        None => {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[start..end]);
            u128::from_le_bytes(bytes)
        }
    };
    bytes | (length as u128) << 120
}

/// The slot of a short word.
#[inline(always)]
fn hash(word: u128) -> usize {
    let (low, high) = (word as u64, (word >> 64) as u64);
    let mixed = low.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ high.wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(32);
    ((mixed ^ mixed >> 32).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    /// Bytes are their own ids; merges of random symbols.
    fn random(seed: u64, merges: u32) -> (Bpe, Vec<[u32; 3]>) {
        let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
        let mut list = Vec::new();
        for id in 256..256 + merges {
            let mut symbol = || match rng.below(3) {
                0 if id > 256 => 256 + rng.below(id - 256),
                _ => u32::from(b'a') + rng.below(4),
            };
            list.push([symbol(), symbol(), id]);
        }
        let bytes = std::array::from_fn(|byte| byte as u32);
        (Bpe::new(Pattern::Gpt2, bytes, &list), list)
    }

    /// One merge after the other, over the whole word.
    fn by_definition(merges: &[[u32; 3]], word: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = word.iter().map(|&b| u32::from(b)).collect();
        loop {
            let rank = |pair: &[u32]| merges.iter().rposition(|m| m[..2] == *pair);
            let lowest = ids.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min();
            let Some((rank, at)) = lowest else { return ids };
            ids.splice(at..at + 2, [merges[rank][2]]);
        }
    }

    #[test]
    fn words_of_any_length_are_merged_by_definition() {
        for seed in 0..60 {
            let (bpe, merges) = random(seed, 30);
            let mut rng = Rng::new(seed, Purpose::Test, 1, 0);
            for length in [1, 2, 3, 7, 15, 16, 40, 128, 129, 130, 300] {
                let word: String = (0..length).map(|_| char::from(b'a' + rng.below(4) as u8)).collect();
                let expected = by_definition(&merges, word.as_bytes());
                // The second time from memory.
                for _ in 0..2 {
                    let mut ids = Vec::new();
                    bpe.encode(&word, &mut ids);
                    assert_eq!(ids, expected, "{length} bytes of seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_long_word_takes_no_square_of_its_length() {
        let (bpe, _) = random(1, 30);
        let word = "abcd".repeat(250_000);
        let start = std::time::Instant::now();
        let mut ids = Vec::new();
        bpe.encode(&word, &mut ids);
        assert!(!ids.is_empty() && start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
