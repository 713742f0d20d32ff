//! The data: what is there twice, whether what is held out is like the rest, how much of the examples is trained on.
//!
//! kiln draws windows, pictures and rows in an order of its own, so the order of a file does no harm to training. What it does
//! harm is a held-out part that is the end of a sorted text (`drift`).

use super::finding::{Finding, Kind, Knob, Number};
use crate::data::examples::Found;
use crate::data::{Dataset, DatasetInfo, Rule};
use crate::error::Result;
use ahash::AHashSet;
use std::collections::VecDeque;
use std::hash::Hash;

/// The share of data that may be there more than once. Of 50-token windows of web corpora up to a fifth is (RealNews: 19 %; Lee et al.
/// 2022, arXiv 2107.06499, table 2), and training on them still works.
const DUPLICATED: f64 = 0.4;

/// Tokens of a window that counts as repeated: as in Lee et al., and no fewer bytes than those usually have.
const LENGTH: usize = 50;
const BYTES: f64 = 200.0;

/// Tokens that are read to look for repeated windows.
const MOST: usize = 8 << 20;

/// One window in so many is looked at, chosen by its content, so that equal ones are chosen alike.
const ONE_IN: u64 = 8;

/// The divergence in nats from which on a held-out part is another text (of ln 2 at most), and by how many times it has to be
/// above what chance gives. Parts of one corpus have a few thousandths; two languages or formats a tenth or more.
const DRIFT: f64 = 0.08;
const ABOVE_CHANCE: f64 = 4.0;

/// Tokens that are counted of each part.
const COUNTED: usize = 1 << 20;

/// Tokens in a row, when a part of a corpus is counted here and there: as many as a document has.
const BLOCK: usize = 256;

/// The share of tokens trained on, below and above which a mask is suspect.
const MASK: [f64; 2] = [0.02, 0.98];

/// The share of examples that may be refused.
const REFUSED: f64 = 0.5;

/// Looks for windows of tokens that were there before, by a rolling hash.
#[derive(Debug)]
pub struct Repeats {
    window: VecDeque<u64>,
    length: usize,
    hash: u64,
    /// The weight of the token that leaves the window.
    power: u64,
    seen: AHashSet<u64>,
    looked: u64,
    repeated: u64,
}

/// An odd multiplier: 2⁶⁴ over the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Repeats {
    /// Over windows of `length` tokens.
    pub fn new(length: usize) -> Repeats {
        let power = (0..length).fold(1u64, |power, _| power.wrapping_mul(FACTOR));
        let window = VecDeque::with_capacity(length + 1);
        Repeats { window, length, hash: 0, power, seen: AHashSet::new(), looked: 0, repeated: 0 }
    }

    /// Goes on with a token.
    pub fn push(&mut self, token: u32) {
        let token = u64::from(token) + 1;
        self.hash = self.hash.wrapping_mul(FACTOR).wrapping_add(token);
        self.window.push_back(token);
        if self.window.len() > self.length {
            let old = self.window.pop_front().expect("a full window");
            self.hash = self.hash.wrapping_sub(old.wrapping_mul(self.power));
        }
        // The high bits, mixed: the low ones hang on the last tokens alone.
        let mixed = (self.hash ^ (self.hash >> 29)).wrapping_mul(FACTOR);
        if self.window.len() == self.length && (mixed >> 40).is_multiple_of(ONE_IN) {
            self.looked += 1;
            self.repeated += u64::from(!self.seen.insert(self.hash));
        }
    }

    /// The share of windows that were there before.
    pub fn share(&self) -> f64 {
        self.repeated as f64 / self.looked.max(1) as f64
    }
}

/// The share of windows of a data set that are there before in it.
///
/// # Errors
/// A shard has changed since it was opened.
fn repeated(data: &Dataset, bytes_per_token: f64) -> Result<f64> {
    let length = LENGTH.max((BYTES / bytes_per_token.max(0.1)) as usize).min(data.len());
    let mut repeats = Repeats::new(length);
    let mut buffer = vec![0; 1 << 16];
    let end = data.len().min(MOST);
    for start in (0..end).step_by(buffer.len()) {
        let part = &mut buffer[..(1 << 16).min(end - start)];
        data.read(start, part)?;
        part.iter().for_each(|&token| repeats.push(token as u32));
    }
    Ok(repeats.share())
}

/// The share of things that were there before among them.
pub fn repeated_things<T: Hash + Eq>(things: impl Iterator<Item = T>) -> f64 {
    let mut seen = AHashSet::new();
    let (mut all, mut repeated) = (0u64, 0u64);
    for thing in things {
        all += 1;
        repeated += u64::from(!seen.insert(thing));
    }
    repeated as f64 / all.max(1) as f64
}

/// What is wrong where this share of `what` is there more than once.
pub fn judge_repeated(share: f64, what: &str, knob: Knob) -> Option<Finding> {
    let says = format!("many {what} of the training data are there more than once, so that it is less than it seems");
    (share > DUPLICATED).then(|| {
        Finding::new(Kind::DuplicatedData, says, &[("share that was there before", share)], knob).severe(share)
    })
}

/// What to do about duplicated text.
fn clean() -> Knob {
    Knob { key: "data.path", value: "<what kiln data clean makes of it>".into() }
}

/// The Jensen-Shannon divergence of two histograms, in nats: 0 where they are alike, ln 2 where they have nothing in common.
fn divergence(a: &[u64], b: &[u64]) -> f64 {
    let totals = [a, b].map(|x| x.iter().sum::<u64>().max(1) as f64);
    let at = |x: &[u64], i: usize, total: f64| x.get(i).map_or(0.0, |&count| count as f64 / total);
    let part = |p: f64, m: f64| if p > 0.0 { 0.5 * p * (p / m).ln() } else { 0.0 };
    (0..a.len().max(b.len()))
        .map(|i| {
            let (p, q) = (at(a, i, totals[0]), at(b, i, totals[1]));
            let m = 0.5 * (p + q);
            part(p, m) + part(q, m)
        })
        .sum()
}

/// How often tokens occur in about `tokens` tokens of blocks all over the data; `shift` chooses others.
fn sampled(data: &Dataset, tokens: usize, shift: f64) -> Result<Vec<u64>> {
    let mut counts = vec![0; data.vocab_size()];
    let blocks = (tokens / BLOCK).max(1);
    let mut buffer = [0; BLOCK];
    for block in 0..blocks {
        let part = &mut buffer[..BLOCK.min(data.len())];
        let room = data.len() - part.len();
        data.read(((block as f64 + shift) / blocks as f64 * room as f64) as usize, part)?;
        part.iter().for_each(|&token| counts[token as usize] += 1);
    }
    Ok(counts)
}

/// How far apart what is held out and what is trained on are, and how far chance would have them.
///
/// # Errors
/// A shard has changed since it was opened.
fn drift(train: &Dataset, val: &Dataset) -> Result<[f64; 2]> {
    let held_out = val.len().min(COUNTED);
    let all = sampled(train, train.len().min(COUNTED), 0.0)?;
    let apart = divergence(&all, &sampled(val, held_out, 0.0)?);
    let mut chance: f64 = 0.0;
    for shift in [0.31, 0.57, 0.83] {
        chance = chance.max(divergence(&all, &sampled(train, held_out, shift)?));
    }
    Ok([apart, chance])
}

/// What is wrong where they are so far apart.
fn judge_drift([apart, chance]: [f64; 2], info: &DatasetInfo) -> Option<Finding> {
    if info.split.rule != Rule::Tail || apart <= DRIFT || apart <= ABOVE_CHANCE * chance {
        return None;
    }
    let what = "the data is in an order: its end, which is held out, is another text than what is trained on";
    let evidence = [("divergence of tokens, in nats", apart), ("by chance", chance)];
    let knob = Knob { key: "data.split", value: "\"document\"".into() };
    Some(Finding::new(Kind::DataOrder, what, &evidence, knob).severe(apart / DRIFT))
}

/// Looks at the tokens of a run: what was measured, and what is wrong.
///
/// # Errors
/// A shard has changed since it was opened.
pub fn look(info: &DatasetInfo, train: &Dataset, val: &Dataset) -> Result<(Vec<Number>, Vec<Finding>)> {
    let repeated = repeated(train, info.train.bytes as f64 / info.train.tokens.max(1) as f64)?;
    let drift = drift(train, val)?;
    let numbers =
        [("share of windows that were there before", repeated), ("divergence of what is held out, in nats", drift[0])];
    let found = [judge_repeated(repeated, "windows", clean()), judge_drift(drift, info)];
    let number = |(name, value)| Number { name, value };
    Ok((numbers.map(number).into(), found.into_iter().flatten().collect()))
}

/// The entropy in nats of a token by itself, in a data set: what a model comes to that learns how often each occurs.
///
/// # Errors
/// A shard has changed since it was opened.
pub fn unigram(data: &Dataset) -> Result<f64> {
    let counts = sampled(data, data.len().min(COUNTED), 0.0)?;
    let total = counts.iter().sum::<u64>() as f64;
    let part = |&count: &u64| if count > 0 { -(count as f64 / total) * (count as f64 / total).ln() } else { 0.0 };
    Ok(counts.iter().map(part).sum())
}

/// The share of the examples' tokens that are trained on: the first of each never is.
pub fn mask(found: &Found) -> f64 {
    found.trained as f64 / found.tokens.saturating_sub(found.examples).max(1) as f64
}

/// What is wrong with what is trained on of examples.
pub fn judge_mask(found: &Found) -> Option<Finding> {
    let all = found.examples + found.refused;
    let refused = found.refused as f64 / all.max(1) as f64;
    let share = mask(found);
    let knob = |value: &str| Knob { key: "data.path", value: format!("<{value}; see kiln tune --show-mask 3>") };
    let numbers = [("share of tokens trained on", share), ("examples", found.examples as f64)];
    let bad = |what: &str, evidence: &[(&'static str, f64)], value| {
        Some(Finding::new(Kind::BadMask, what, evidence, knob(value)))
    };
    if refused > REFUSED {
        let evidence = [("refused", found.refused as f64), ("of", all as f64)];
        return bad(
            "most examples are refused: nothing in them would be trained on, or everything",
            &evidence,
            "examples with a prompt and an answer",
        );
    }
    if share < MASK[0] {
        return bad(
            "next to nothing of the examples is trained on, so that a step hardly has a gradient",
            &numbers,
            "longer answers or shorter prompts",
        );
    }
    if share > MASK[1] && found.texts == 0 {
        return bad(
            "all of the examples is trained on: they have no prompt that is only read",
            &numbers,
            "examples with prompts, or such texts as {\"text\": …}",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// Tokens below 50.
    fn text(seed: u64, n: u64) -> Vec<u32> {
        let random = Stream::new(seed, Purpose::Test, 0, 0);
        (0..n).map(|i| random.bits(i) % 50).collect()
    }

    fn share(parts: &[Vec<u32>]) -> f64 {
        let mut repeats = Repeats::new(50);
        parts.iter().flatten().for_each(|&token| repeats.push(token));
        repeats.share()
    }

    #[test]
    fn repeated_windows_are_found_wherever_they_are() {
        assert_eq!(share(&[text(1, 20_000)]), 0.0);
        // The same text again, at no multiple of anything.
        let again = share(&[text(1, 20_000), text(2, 777), text(1, 20_000)]);
        assert!((again - 0.49).abs() < 0.03, "{again}");
        let fifty_lines: Vec<Vec<u32>> = (0..100).map(|_| text(3, 1000)).collect();
        assert!(share(&fifty_lines) > 0.97);
        // One token again and again is one window.
        assert!(share(&[vec![7; 1000]]) > 0.97 || share(&[vec![7; 1000]]) == 0.0);
        assert_eq!(repeated_things([1, 2, 1, 1].into_iter()), 0.5);
        let judged = |share| judge_repeated(share, "windows", clean()).map(|found| found.kind);
        assert_eq!([judged(0.2), judged(0.9)], [None, Some(Kind::DuplicatedData)]);
    }

    #[test]
    fn divergence_is_what_it_is_by_hand() {
        assert_eq!(divergence(&[1, 2, 3], &[10, 20, 30]), 0.0);
        assert!((divergence(&[1, 0], &[0, 5]) - std::f64::consts::LN_2).abs() < 1e-12);
        // p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4).
        let want = 0.5 * (4.0f64 / 3.0).ln() + 0.5 * (0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2f64.ln());
        assert!((divergence(&[4], &[3, 3]) - want).abs() < 1e-12);
    }

    #[test]
    fn masks_of_nothing_or_all_are_named_and_texts_are_meant_so() {
        let found = |examples: usize, tokens, trained| Found { examples, tokens, trained, ..Found::default() };
        let kind = |found: &Found| judge_mask(found).map(|found| found.what[..12].to_owned());
        assert_eq!(kind(&found(100, 5000, 1500)), None);
        assert_eq!(kind(&found(100, 20_000, 100)).as_deref(), Some("next to noth"));
        let all = found(100, 5000, 4900);
        assert_eq!(kind(&all).as_deref(), Some("all of the e"));
        assert_eq!(kind(&Found { texts: 100, ..all }), None);
        assert_eq!(kind(&Found { refused: 300, ..found(100, 5000, 1500) }).as_deref(), Some("most example"));
    }
}
