//! Zstandard frames, written fast: ruzstd's encoder with a search for matches of our own, which keeps the whole frame in one
//! piece and remembers the last place of each five bytes, as level 1 of the reference encoder does.

use ruzstd::encoding::{CompressionLevel, FrameCompressor, Matcher, Sequence};

/// Bytes of a block: the most that the format allows.
const BLOCK: usize = 128 << 10;
/// How far back a match may lie, in bytes.
const WINDOW: usize = 1 << 20;
/// log2 of the slots of the table: small enough for a core's own cache.
const SLOTS: u32 = 15;
/// What is hashed, and the shortest match.
const SHORTEST: usize = 5;
/// After 2^this misses in a row the search takes larger steps.
const PATIENCE: u32 = 6;

/// `text` as one frame.
pub fn frame(text: &[u8]) -> Vec<u8> {
    let matcher =
        Recent { text: Vec::with_capacity(text.len()), block: 0, spare: Vec::new(), last: vec![0; 1 << SLOTS] };
    let mut packed = Vec::with_capacity(text.len() / 2);
    let mut encoder = FrameCompressor::new_with_matcher(matcher, CompressionLevel::Fastest);
    encoder.set_source(text);
    encoder.set_drain(&mut packed);
    encoder.compress();
    packed
}

/// The frame so far, and where each five bytes were last.
struct Recent {
    text: Vec<u8>,
    /// Where the last block starts.
    block: usize,
    spare: Vec<u8>,
    /// By hash; 0 also where there is none, which a comparison finds out.
    last: Vec<u32>,
}

impl Recent {
    /// The eight bytes at `at`, of which there are as many.
    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.text[at..at + 8].try_into().expect("eight bytes"))
    }

    fn slot(word: u64) -> usize {
        ((word << (64 - 8 * SHORTEST)).wrapping_mul(0x9E37_79B1_85EB_CA87) >> (64 - SLOTS)) as usize
    }

    /// How many bytes at `a` are also at `b` > `a`.
    fn length(&self, a: usize, b: usize) -> usize {
        let (text, mut n) = (&self.text, 0);
        while b + n + 8 <= text.len() {
            let differ = self.word(a + n) ^ self.word(b + n);
            if differ != 0 {
                return n + differ.trailing_zeros() as usize / 8;
            }
            n += 8;
        }
        n + text[b + n..].iter().zip(&text[a + n..]).take_while(|(x, y)| x == y).count()
    }
}

impl Matcher for Recent {
    fn get_next_space(&mut self) -> Vec<u8> {
        let mut space = std::mem::take(&mut self.spare);
        space.resize(BLOCK, 0);
        space
    }

    fn get_last_space(&mut self) -> &[u8] {
        &self.text[self.block..]
    }

    fn commit_space(&mut self, space: Vec<u8>) {
        self.block = self.text.len();
        self.text.extend_from_slice(&space);
        self.spare = space;
    }

    fn skip_matching(&mut self) {}

    fn start_matching(&mut self, mut sequence: impl for<'a> FnMut(Sequence<'a>)) {
        // The encoder has no table for a block in which no sequence has literals: the first one gets one at least.
        let (mut literals, mut at, first) = (self.block, self.block + 1, self.block + 1);
        let mut misses = 0usize;
        while at + 8 <= self.text.len() {
            let word = self.word(at);
            let before = std::mem::replace(&mut self.last[Recent::slot(word)], at as u32) as usize;
            let same = (word ^ self.word(before)) << (64 - 8 * SHORTEST) == 0;
            if !same || before >= at || at - before > WINDOW {
                at += 1 + (misses >> PATIENCE);
                misses += 1;
                continue;
            }
            let (mut from, mut start) = (before, at);
            while start > literals.max(first) && from > 0 && self.text[start - 1] == self.text[from - 1] {
                (start, from) = (start - 1, from - 1);
            }
            let match_len = at - start + self.length(before, at);
            sequence(Sequence::Triple { literals: &self.text[literals..start], offset: start - from, match_len });
            literals = start + match_len;
            // A place within the match, for texts that come a third time.
            if literals + 6 <= self.text.len() {
                let inner = literals - 2;
                let slot = Recent::slot(self.word(inner));
                self.last[slot] = inner as u32;
            }
            (at, misses) = (literals, 0);
        }
        if literals < self.text.len() {
            sequence(Sequence::Literals { literals: &self.text[literals..] });
        }
    }

    fn reset(&mut self, _level: CompressionLevel) {
        self.text.clear();
        self.block = 0;
        self.last.fill(0);
    }

    fn window_size(&self) -> u64 {
        WINDOW as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};
    use std::io::Read;

    fn unpack(frame: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(frame).unwrap().read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut rng = Rng::new(1, Purpose::Test, 0, 0);
        let noise: Vec<u8> = (0..300_000).map(|_| rng.below(256) as u8).collect();
        let words: Vec<u8> = (0..400_000).map(|_| b"the old mill was near a river"[rng.below(29) as usize]).collect();
        let far = [&noise[..], &words, &noise, &vec![0; 1 << 20], &noise, &words[..1000]].concat();
        for text in [&[][..], b"a", b"ababababab", &noise[..7], &noise, &words, &vec![7; 500_000], &far] {
            assert!(unpack(&frame(text)) == text, "{} bytes", text.len());
        }
        let lengths = (0..2000).map(|n| &words[n * 7..n * 8]).chain((0..40).map(|n| &far[..BLOCK - 20 + n]));
        for text in lengths {
            assert!(unpack(&frame(text)) == text, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_repeats_is_short() {
        let line =
            "{\"id\":\"a\",\"text\":\"A child went to the well by the mill.\",\"source\":\"world\",\"metadata\":{}}\n";
        let text = line.repeat(5000);
        assert!(frame(text.as_bytes()).len() < text.len() / 100);
    }
}
