//! Tokens to batches, in an order that is a pure function of (seed, step).
//!
//! An epoch cuts the data into windows of T tokens from a random offset below T on, and visits them in a random
//! order, each exactly once. Offset and order come from the seed and the epoch's number alone: nothing is stored, no
//! table is shuffled, and any step can be replayed without those before it.

use std::sync::Arc;

use super::dataset::Dataset;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Rounds of the Feistel network; four make a pseudo-random permutation (Luby and Rackoff 1988), two more mix the very
/// small ones.
const ROUNDS: u32 = 6;

/// A random permutation of `0..n` that is computed, not stored: a Feistel network over the least even number of bits
/// that holds `n`, walked along its cycle until it lands below `n` (fewer than four steps on average).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    half: u32,
    seed: u64,
    epoch: u64,
}

impl Permutation {
    /// The permutation of `0..n` for this seed and epoch; `n` from 1 to 2^62.
    pub fn new(n: u64, seed: u64, epoch: u64) -> Permutation {
        assert!((1..=1 << 62).contains(&n), "a permutation of {n} items");
        let bits = u64::BITS - (n - 1).leading_zeros();
        Permutation { n, half: bits.div_ceil(2).max(1), seed, epoch }
    }

    /// The image of `index`, below `n`.
    pub fn get(&self, index: u64) -> u64 {
        debug_assert!(index < self.n);
        let mut x = self.network(index);
        while x >= self.n {
            x = self.network(x);
        }
        x
    }

    fn network(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) = (x >> self.half, x & mask);
        for round in 1..=ROUNDS {
            let f = Stream::new(self.seed, Purpose::Order, round, self.epoch).bits(right);
            (left, right) = (right, left ^ (u64::from(f) & mask));
        }
        left << self.half | right
    }
}

/// Which windows of a sequence are visited, in which order.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    tokens: u64,
    context: u64,
    windows: u64,
    seed: u64,
}

impl Order {
    /// The order of windows of `context` inputs, and the target after them, in a sequence of `tokens` tokens. Needs at
    /// least `context + 1` of them.
    pub fn new(tokens: usize, context: usize, seed: u64) -> Order {
        assert!(context >= 1 && tokens > context, "{tokens} tokens hold no window of {context}");
        let (tokens, context) = (tokens as u64, context as u64);
        // As many as fit behind the largest offset, so that every epoch has the same number and the number of a
        // window gives its epoch by division.
        let windows = ((tokens - context) / context).max(1);
        Order { tokens, context, windows, seed }
    }

    /// Windows in an epoch.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Where the windows of an epoch start: below T, and such that the last target exists.
    pub fn offset(&self, epoch: u64) -> u64 {
        let choices = self.context.min(self.tokens - self.windows * self.context);
        // 32 random bits scaled to the range: a bias of at most T / 2^32.
        (u64::from(Stream::new(self.seed, Purpose::Order, 0, epoch).bits(0)) * choices) >> 32
    }

    /// The position of the first token of the window visited as number `index`, counted over all epochs.
    pub fn start(&self, index: u64) -> usize {
        let (epoch, place) = (index / self.windows, index % self.windows);
        let window = Permutation::new(self.windows, self.seed, epoch).get(place);
        (self.offset(epoch) + window * self.context) as usize
    }
}

/// Training batches: B rows of T inputs, and targets shifted by one.
#[derive(Clone, Debug)]
pub struct Batches {
    data: Arc<Dataset>,
    order: Order,
    batch: usize,
    context: usize,
    micro: usize,
}

impl Batches {
    /// Batches of `batch` rows (B) of `context` tokens (T), `micro` of them in each step (gradient accumulation; 1
    /// without). Fails if the data is shorter than T + 1 tokens.
    pub fn new(data: Arc<Dataset>, batch: usize, context: usize, micro: usize, seed: u64) -> Result<Batches> {
        for (key, value) in [("train.batch", batch), ("train.context", context), ("train.accumulate", micro)] {
            if value == 0 {
                return Err(Error::config(key, "0 is not possible", "give 1 or more"));
            }
        }
        if data.len() <= context {
            return Err(Error::config(
                "train.context",
                format!(
                    "a window of {context} tokens and its target need {} tokens; the training data has {}",
                    context + 1,
                    data.len()
                ),
                format!("give more text, or a context of at most {}", data.len().saturating_sub(1)),
            ));
        }
        let order = Order::new(data.len(), context, seed);
        Ok(Batches { data, order, batch, context, micro })
    }

    /// Fills inputs `x` and targets `y`, both (B, T), with micro-batch number `micro` of step `step`, both from 0.
    /// `y[b][t]` is the token after `x[b][t]`, and every id is below the vocabulary's size. Allocates nothing.
    ///
    /// # Errors
    /// A shard has changed since it was opened.
    pub fn fill(&self, step: u64, micro: usize, x: &mut [i32], y: &mut [i32]) -> Result<()> {
        assert!(micro < self.micro, "micro-batch {micro} of {}", self.micro);
        assert_eq!((x.len(), y.len()), (self.batch * self.context, self.batch * self.context), "x and y are (B, T)");
        let first = (step * self.micro as u64 + micro as u64) * self.batch as u64;
        let rows = x.chunks_exact_mut(self.context).zip(y.chunks_exact_mut(self.context));
        for (index, (x, y)) in (first..).zip(rows) {
            copy_window(&self.data, self.order.start(index), x, y);
        }
        self.data.check([x, y])
    }

    /// Tokens consumed by one step.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.context * self.micro
    }

    /// Steps in which every window is seen once; a fraction.
    pub fn steps_per_epoch(&self) -> f64 {
        self.order.windows() as f64 / (self.batch * self.micro) as f64
    }
}

/// Evaluation batches: the whole data in order, every token but the first a target exactly once.
#[derive(Clone, Debug)]
pub struct EvalBatches {
    data: Arc<Dataset>,
    batch: usize,
    context: usize,
}

impl EvalBatches {
    /// Batches of `batch` rows (B) of `context` tokens (T). Fails if there is not one target.
    pub fn new(data: Arc<Dataset>, batch: usize, context: usize) -> Result<EvalBatches> {
        assert!(batch > 0 && context > 0, "an empty batch");
        if data.len() < 2 {
            let problem = "the held-out data has a single token, and so nothing to predict";
            return Err(Error::config("data.val_fraction", problem, "hold out more text"));
        }
        Ok(EvalBatches { data, batch, context })
    }

    /// How many targets there are: one less than tokens.
    pub fn targets(&self) -> usize {
        self.data.len() - 1
    }

    /// How many batches cover them.
    #[expect(clippy::len_without_is_empty, reason = "there is always a batch")]
    pub fn len(&self) -> usize {
        self.targets().div_ceil(self.batch * self.context)
    }

    /// Fills inputs `x`, targets `y` and `weights`, each (B, T), with batch number `index` and returns how many targets
    /// are in it. Behind the end of the data tokens and weights are 0; elsewhere weights are 1. The loss over the whole
    /// data is the sum of weighted losses over all batches divided by [`EvalBatches::targets`].
    ///
    /// # Errors
    /// A shard has changed since it was opened.
    pub fn fill(&self, index: usize, x: &mut [i32], y: &mut [i32], weights: &mut [f32]) -> Result<usize> {
        let size = self.batch * self.context;
        assert_eq!((x.len(), y.len(), weights.len()), (size, size, size), "x, y and weights are (B, T)");
        let start = index * size;
        assert!(start < self.targets(), "batch {index} of {}", self.len());
        // Windows lie end to end, so a batch is one run of tokens.
        let valid = size.min(self.targets() - start);
        copy_window(&self.data, start, &mut x[..valid], &mut y[..valid]);
        self.data.check([&x[..valid], &y[..valid]])?;
        x[valid..].fill(0);
        y[valid..].fill(0);
        weights[..valid].fill(1.0);
        weights[valid..].fill(0.0);
        Ok(valid)
    }
}

/// Rows that share no token: each T + 1 tokens, the first at the start of the data.
#[derive(Clone, Debug)]
pub struct Apart {
    data: Arc<Dataset>,
    context: usize,
}

impl Apart {
    /// Rows of `context` inputs (T) and the target after them.
    pub fn new(data: Arc<Dataset>, context: usize) -> Apart {
        assert!(context > 0, "an empty row");
        Apart { data, context }
    }

    /// How many whole ones there are.
    #[expect(clippy::len_without_is_empty, reason = "a run whose data has no window is refused before")]
    pub fn len(&self) -> usize {
        self.data.len() / (self.context + 1)
    }

    /// Fills inputs `x` and targets `y`, T each, with row number `row`.
    ///
    /// # Errors
    /// A shard has changed since it was opened.
    pub fn fill(&self, row: usize, x: &mut [i32], y: &mut [i32]) -> Result<()> {
        assert!(row < self.len(), "row {row} of {}", self.len());
        copy_window(&self.data, row * (self.context + 1), x, y);
        self.data.check([x, y])
    }
}

/// Copies `x` from `start` on and `y` one token later; both of the same length, at least 1. To be followed by a check.
fn copy_window(data: &Dataset, start: usize, x: &mut [i32], y: &mut [i32]) {
    data.copy(start, x);
    let n = y.len();
    y[..n - 1].copy_from_slice(&x[1..]);
    data.copy(start + n, &mut y[n - 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_visit_everything_once() {
        for n in (1..=130).chain([255, 256, 257, 1000, 4095, 4097]) {
            for epoch in [0, 1, 77] {
                let p = Permutation::new(n, 5, epoch);
                let mut seen = vec![false; n as usize];
                (0..n).for_each(|i| assert!(!std::mem::replace(&mut seen[p.get(i) as usize], true), "{n}: {i} twice"));
            }
        }
    }

    #[test]
    fn permutations_are_even_handed() {
        // Where item 0 of 6 goes, over 6,000 epochs: a chi-square of 5 degrees of freedom, below 20.5 in 99.9 %.
        let mut counts = [0f64; 6];
        (0..6000).for_each(|epoch| counts[Permutation::new(6, 1, epoch).get(0) as usize] += 1.0);
        let chi: f64 = counts.iter().map(|c| (c - 1000.0) * (c - 1000.0) / 1000.0).sum();
        assert!(chi < 20.5, "{counts:?}");
        // Neighbours do not stay neighbours.
        let p = Permutation::new(10_000, 1, 0);
        let close = (1..10_000).filter(|&i| p.get(i).abs_diff(p.get(i - 1)) == 1).count();
        assert!(close < 12, "{close} pairs stay adjacent; chance gives 2");
    }

    #[test]
    fn windows_lie_in_the_data_and_do_not_overlap() {
        for context in [1, 2, 3, 8, 64] {
            for tokens in (context + 1..context + 40).chain([10 * context, 10 * context + 1, 1000]) {
                let order = Order::new(tokens, context, 9);
                let n = order.windows();
                for epoch in 0..4 {
                    let mut starts: Vec<_> = (epoch * n..(epoch + 1) * n).map(|i| order.start(i)).collect();
                    starts.sort_unstable();
                    assert_eq!(starts[0] as u64, order.offset(epoch));
                    assert!(starts[0] < context);
                    assert!(starts.windows(2).all(|w| w[1] - w[0] == context), "{tokens} {context}: {starts:?}");
                    let last = starts[starts.len() - 1];
                    assert!(last + context < tokens, "{tokens} {context}: the target of {last} is outside");
                    // Less than two windows of text are out of reach in one epoch.
                    assert!(tokens - starts.len() * context <= 2 * context);
                }
            }
        }
    }

    #[test]
    fn offsets_take_every_value() {
        let order = Order::new(100, 8, 3);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|e| order.offset(e)).collect();
        assert_eq!(seen.len(), 8, "{seen:?}");
    }
}
