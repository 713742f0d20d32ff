//! The words of a text, hashed once for everything that looks at words.
//!
//! A word is a maximal run of alphanumeric characters, lower-cased. Its hash is 64 bits; the hash of n words in a row is
//! the polynomial Σ wᵢ·Mⁿ⁻¹⁻ⁱ mod 2⁶⁴, mixed, which costs one multiplication for any n from the sums over prefixes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// The base of the polynomials: odd, without structure.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;
const FNV: [u64; 2] = [0xCBF2_9CE4_8422_2325, 0x0000_0100_0000_01B3];

/// MurmurHash3's last step: every bit of the result depends on every bit of `x`.
#[inline(always)]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x = (x ^ (x >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^ (x >> 33)
}

/// Hashes nothing more: for tables whose keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHash(u64);

impl Hasher for ByHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Something for each of some hashes.
pub type HashTable<T> = HashMap<u64, T, BuildHasherDefault<ByHash>>;

/// The words of one text; a buffer that is filled again for the next text.
#[derive(Clone, Debug, Default)]
pub struct Words {
    spans: Vec<Range<u32>>,
    hashes: Vec<u64>,
    /// `prefix[i]`: the polynomial of the first i words.
    prefix: Vec<u64>,
}

impl Words {
    /// The words of `text`.
    pub fn of(text: &str) -> Words {
        let mut words = Words::default();
        words.read(text);
        words
    }

    /// Takes the words of `text` instead of those that are there.
    pub fn read(&mut self, text: &str) {
        self.spans.clear();
        self.hashes.clear();
        let bytes = text.as_bytes();
        let (mut at, mut start, mut hash) = (0, usize::MAX, FNV[0]);
        let add = |hash: &mut u64, byte: u8| *hash = (*hash ^ u64::from(byte)).wrapping_mul(FNV[1]);
        let mut end = |start: &mut usize, at: usize, hash: &mut u64| {
            if *start != usize::MAX {
                self.spans.push(*start as u32..at as u32);
                self.hashes.push(mix(*hash));
                (*start, *hash) = (usize::MAX, FNV[0]);
            }
        };
        while at < bytes.len() {
            let byte = bytes[at];
            if byte.is_ascii_alphanumeric() {
                start = start.min(at);
                add(&mut hash, byte.to_ascii_lowercase());
                at += 1;
            } else if byte.is_ascii() {
                end(&mut start, at, &mut hash);
                at += 1;
            } else {
                let c = text[at..].chars().next().expect("within the text");
                if c.is_alphanumeric() {
                    start = start.min(at);
                    let mut buffer = [0; 4];
                    for c in c.to_lowercase() {
                        c.encode_utf8(&mut buffer).bytes().for_each(|byte| add(&mut hash, byte));
                    }
                } else {
                    end(&mut start, at, &mut hash);
                }
                at += c.len_utf8();
            }
        }
        end(&mut start, at, &mut hash);
        self.prefix.clear();
        self.prefix.push(0);
        let mut sum = 0u64;
        self.prefix.extend(self.hashes.iter().map(|&hash| {
            sum = sum.wrapping_mul(BASE).wrapping_add(hash);
            sum
        }));
    }

    /// How many words there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The hash of each word.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The bytes of `n` words from number `first` on, with what stands between them.
    pub fn span(&self, first: usize, n: usize) -> Range<usize> {
        self.spans[first].start as usize..self.spans[first + n - 1].end as usize
    }

    /// The hash of each run of `n` words, in order.
    pub fn grams(&self, n: usize) -> impl ExactSizeIterator<Item = u64> + '_ {
        let power = (0..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
        let ends = self.prefix.get(n..).unwrap_or(&[]);
        ends.iter().zip(&self.prefix).map(move |(&end, &start)| mix(end.wrapping_sub(start.wrapping_mul(power))))
    }

    /// What a text is compared by: its distinct runs of `n` words, sorted; of a shorter text, all its words as one run.
    pub fn shingles(&self, n: usize, into: &mut Vec<u64>) {
        into.clear();
        into.extend(self.grams(n.min(self.len()).max(1)));
        into.sort_unstable();
        into.dedup();
    }
}

/// |A ∩ B| / |A ∪ B| of two sorted sets; 0 where both are empty.
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        both += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let text = "Don't STOP—Größe 3½, e\u{301}t\u{e9}; 火曜日!";
        let words = Words::of(text);
        let shown: Vec<&str> = (0..words.len()).map(|i| &text[words.span(i, 1)]).collect();
        assert_eq!(shown, ["Don", "t", "STOP", "Größe", "3½", "e", "t\u{e9}", "火曜日"]);
        assert_eq!(words.hashes()[..4], *Words::of("DON t stop GRÖßE").hashes());
        assert_eq!(Words::of(" .,\n").len() + Words::of("").len(), 0);
    }

    #[test]
    fn a_run_of_words_has_the_same_hash_wherever_it_stands() {
        let a = Words::of("one two three four five six");
        let b = Words::of("zero, two three FOUR five. nine");
        let (x, y): (Vec<u64>, Vec<u64>) = (a.grams(4).collect(), b.grams(4).collect());
        assert_eq!((x.len(), x[1]), (3, y[1]));
        assert!(x[0] != y[0] && x[2] != y[2]);
        assert_ne!(Words::of("a b").grams(2).next(), Words::of("b a").grams(2).next());
        assert_eq!(a.grams(7).len() + Words::of("").grams(1).len(), 0);
    }

    #[test]
    fn jaccard_counts_distinct_runs() {
        let set = |text: &str| {
            let mut set = Vec::new();
            Words::of(text).shingles(2, &mut set);
            set
        };
        // {ab, bc, cd} and {bc, cd, de}
        assert_eq!(jaccard(&set("a b c d"), &set("b c d e")), 0.5);
        assert_eq!(jaccard(&set("a b a b a"), &set("b a b")), 1.0);
        assert_eq!((jaccard(&set("a"), &set("a")), jaccard(&set(""), &set(""))), (1.0, 0.0));
    }
}
