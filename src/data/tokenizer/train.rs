//! Byte-level byte-pair encoding learnt from words and how often they occur.
//!
//! The pair of neighbours that occurs most often becomes a token, of several the one with the lowest ids, until the vocabulary is
//! full or no pair occurs twice. What is learnt is what the trainer of the `tokenizers` crate learns, its habits included: words in
//! which a pair arises are listed with it, and a pair that arises anew after a merge to a token that there was already is
//! listed apart, and may be merged twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ahash::HashMap;

use super::super::detok::byte_to_char;

/// Fewer occurrences make no merge.
const LEAST: i64 = 2;

/// Words are learnt from in pieces of at most so many bytes: a base64 blob or a page of spaces shows nothing that its pieces do
/// not.
pub(crate) const LONGEST: usize = 1024;

/// What was learnt.
pub(crate) struct Learnt {
    /// The bytes of each id: first the 256 single bytes in the order of their stand-ins, then what merges made.
    pub tokens: Vec<Vec<u8>>,
    /// The ids that each merge joins, in order.
    pub merges: Vec<[u32; 2]>,
}

/// Bytes in the order of their stand-ins, as GPT-2 numbers them.
pub(crate) fn alphabet() -> [u8; 256] {
    let mut bytes: [u8; 256] = std::array::from_fn(|byte| byte as u8);
    bytes.sort_unstable_by_key(|&byte| byte_to_char(byte));
    bytes
}

/// Occurrences of a pair when it was last looked at, the pair, and its list: the most frequent pair first, then the lowest.
type Due = (i64, Reverse<(u32, u32)>, u32);

/// Occurrences of pairs, and the words in which they arose since [`Pairs::queue`] was last called.
#[derive(Default)]
struct Pairs {
    counts: HashMap<(u32, u32), i64>,
    /// For each pair, which of `lists` is its own.
    fresh: HashMap<(u32, u32), u32>,
    lists: Vec<Vec<u32>>,
    heap: BinaryHeap<Due>,
}

impl Pairs {
    fn add(&mut self, pair: (u32, u32), count: i64, word: u32) {
        *self.counts.entry(pair).or_default() += count;
        if count > 0 {
            let list = *self.fresh.entry(pair).or_insert_with(|| {
                self.lists.push(Vec::new());
                self.lists.len() as u32 - 1
            });
            let list = &mut self.lists[list as usize];
            // Words come one after the other.
            if list.last() != Some(&word) {
                list.push(word);
            }
        }
    }

    fn queue(&mut self) {
        for (pair, list) in self.fresh.drain() {
            let count = self.counts[&pair];
            if count > 0 {
                self.heap.push((count, Reverse(pair), list));
            }
        }
    }

    /// The most frequent pair and the words listed with it.
    fn pop(&mut self) -> Option<((u32, u32), i64, Vec<u32>)> {
        loop {
            let (count, Reverse(pair), list) = self.heap.pop()?;
            let now = self.counts[&pair];
            if now == count {
                return Some((pair, count, std::mem::take(&mut self.lists[list as usize])));
            }
            self.heap.push((now, Reverse(pair), list));
        }
    }
}

/// Learns at most `vocab` tokens, of which the 256 bytes are the first, from words (of at most [`LONGEST`] bytes) and their counts.
pub(crate) fn train(words: &[(&[u8], u64)], vocab: usize) -> Learnt {
    let alphabet = alphabet();
    let mut id_of = [0; 256];
    (0..).zip(alphabet).for_each(|(id, byte)| id_of[usize::from(byte)] = id);
    let tokens = alphabet.iter().map(|&byte| vec![byte]).collect();
    let ids = words.iter().map(|&(word, count)| (word.iter().map(|&byte| id_of[usize::from(byte)]), count));
    learn(ids, tokens, vocab)
}

/// Learns more tokens than there are, up to `vocab` of them, from words as ids and their counts. `tokens`: the bytes of each id, none
/// where words never have it.
pub(crate) fn learn<W: ExactSizeIterator<Item = u32>>(
    words: impl Iterator<Item = (W, u64)>,
    mut tokens: Vec<Vec<u8>>,
    vocab: usize,
) -> Learnt {
    let mut known: HashMap<Vec<u8>, u32> = tokens.iter().cloned().zip(0..).collect();
    // All words, one after the other; each shrinks in its place.
    let mut symbols: Vec<u32> = Vec::new();
    let (mut places, mut counts): (Vec<(usize, usize)>, Vec<i64>) = Default::default();
    let mut pairs = Pairs::default();
    for ((word, count), index) in words.zip(0..) {
        let start = symbols.len();
        places.push((start, word.len()));
        counts.push(count as i64);
        symbols.extend(word);
        symbols[start..].windows(2).for_each(|pair| pairs.add((pair[0], pair[1]), count as i64, index));
    }
    pairs.queue();

    let mut merges = Vec::new();
    while tokens.len() < vocab
        && let Some(((left, right), count, listed)) = pairs.pop()
        && count >= LEAST
    {
        let joined = [&tokens[left as usize][..], &tokens[right as usize]].concat();
        let id = *known.entry(joined).or_insert_with_key(|joined| {
            tokens.push(joined.clone());
            tokens.len() as u32 - 1
        });
        merges.push([left, right]);
        for index in listed {
            let (start, length) = &mut places[index as usize];
            let count = counts[index as usize];
            let word = &mut symbols[*start..*start + *length];
            *length = join(word, (left, right), id, |pair, sign| pairs.add(pair, sign * count, index));
        }
        pairs.queue();
    }
    Learnt { tokens, merges }
}

/// Joins a pair throughout a word, from the left; tells `change` which pairs go (−1) and come (1), and gives the new length.
fn join(word: &mut [u32], (left, right): (u32, u32), id: u32, mut change: impl FnMut((u32, u32), i64)) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < word.len() {
        let here = word[from];
        if here == left && word.get(from + 1) == Some(&right) {
            if to > 0 {
                change((word[to - 1], left), -1);
                change((word[to - 1], id), 1);
            }
            if let Some(&next) = word.get(from + 2) {
                change((right, next), -1);
                change((id, next), 1);
            }
            word[to] = id;
            from += 2;
        } else {
            word[to] = here;
            from += 1;
        }
        to += 1;
    }
    to
}
