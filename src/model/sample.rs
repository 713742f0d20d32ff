//! Writing text, token by token.

use super::{Cache, Gpt};
use crate::cpu::math;
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Spec, Tensor};
use std::time::Instant;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// How many tokens at most.
    pub tokens: usize,
    /// Divides the logits; 0: the likeliest token always.
    pub temperature: f32,
    /// Among this many of the likeliest tokens; 0: among all.
    pub top_k: usize,
    /// Among the likeliest tokens that have this probability together (nucleus sampling); 1: among all.
    pub top_p: f32,
    /// The same seed and prompt give the same text.
    pub seed: u64,
}

/// Where the tokens that count begin, of `n` tokens, for a model of `context`: they are the last `context` at most. When that
/// many have been read, the next one is read after the last half of them only, so that the keys and values of all need not be
/// computed anew for each token (their positions move); a function of `n` alone, wherever the prompt ended.
fn window_start(n: usize, context: usize) -> usize {
    let step = context + 1 - context.div_ceil(2);
    n.saturating_sub(context).div_ceil(step) * step
}

/// How fast a text was written: the time that the caller took for each token is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Tokens of the prompt that counted.
    pub prompt: usize,
    /// Seconds to the first new token.
    pub first_seconds: f64,
    /// New tokens after the first.
    pub more: usize,
    /// Their seconds.
    pub more_seconds: f64,
}

impl Pace {
    /// Tokens of the prompt, and new tokens after the first, per second.
    pub fn rates(&self) -> (f64, f64) {
        let rate = |n: usize, seconds: f64| if n == 0 { 0.0 } else { n as f64 / seconds };
        (rate(self.prompt, self.first_seconds), rate(self.more, self.more_seconds))
    }
}

impl std::ops::AddAssign for Pace {
    fn add_assign(&mut self, other: Pace) {
        self.prompt += other.prompt;
        self.first_seconds += other.first_seconds;
        self.more += other.more;
        self.more_seconds += other.more_seconds;
    }
}

/// Continues `ids` (at least one) until `options.tokens` tokens, one of the tokens `stop`, or until `each` returns false; it is
/// called with every new token but those of `stop`. Beyond the model's context only the last tokens count: at least half of the
/// context.
pub fn generate(
    gpt: &Gpt,
    params: &Params,
    tape: &mut Tape,
    mut ids: Vec<u32>,
    stop: &[u32],
    options: &SampleOptions,
    each: &mut dyn FnMut(u32) -> bool,
) -> Pace {
    assert!(!ids.is_empty(), "there is nothing to continue");
    ids.reserve(options.tokens);
    let stream = Stream::new(options.seed, Purpose::Sample, 0, 0);
    let room = gpt.config().context.min(ids.len() + options.tokens);
    let mut cache = Cache::with_room(tape.device(), gpt.config(), 1, room);
    let mut chooser = Chooser::default();
    let mut start = 0;
    let mut pace = Pace::default();
    for i in 0..options.tokens {
        let clock = Instant::now();
        let first = window_start(ids.len(), gpt.config().context);
        if first != start {
            cache.truncate(0);
            start = first;
        }
        tape.begin(params, Pass::default());
        let new = ids[start + cache.len()..].iter().map(|&id| id as i32);
        let mut x = Out::new(tape.device(), Spec { shape: [1, new.len()].into(), dtype: DType::I32 });
        x.as_mut_slice::<i32>().iter_mut().zip(new).for_each(|(x, id)| *x = id);
        let logits = gpt.next_logits(tape, x.freeze(), &mut cache);
        let next = chooser.choose(&logits, options, stream.uniform(i as u64));
        let seconds = clock.elapsed().as_secs_f64();
        pace += match i {
            0 => Pace { prompt: cache.len(), first_seconds: seconds, ..Pace::default() },
            _ => Pace { more: 1, more_seconds: seconds, ..Pace::default() },
        };
        if stop.contains(&next) || !each(next) {
            break;
        }
        ids.push(next);
    }
    tape.reset();
    pace
}

/// Chooses tokens. Keeps its buffers, so that the next choice allocates nothing.
#[derive(Default)]
pub struct Chooser {
    /// The candidates: the first of them sorted, likeliest first.
    order: Vec<u32>,
    /// (logit − max) / temperature of each token.
    scaled: Vec<f32>,
    /// Its exponential.
    weights: Vec<f32>,
}

impl Chooser {
    /// The token that `uniform`, from [0, 1), selects from softmax(`logits` / temperature) after the top-k and top-p cuts,
    /// the likeliest tokens first, equal ones in the order of their ids. NaN counts as −∞.
    pub fn choose(&mut self, logits: &Tensor, options: &SampleOptions, uniform: f32) -> u32 {
        let (simd, logits) = (logits.cpu().simd, logits.f32());
        let Chooser { order, scaled, weights } = self;
        let key = |id: u32| if logits[id as usize].is_nan() { f32::NEG_INFINITY } else { logits[id as usize] };
        let best = (1..logits.len() as u32).fold(0, |best, id| if key(id) > key(best) { id } else { best });
        if options.temperature == 0.0 || !key(best).is_finite() {
            return best;
        }
        let likelier = |a: &u32, b: &u32| key(*b).total_cmp(&key(*a)).then(a.cmp(b));
        order.clear();
        order.extend(0..logits.len() as u32);
        if options.top_k > 0 && options.top_k < order.len() {
            order.select_nth_unstable_by(options.top_k - 1, likelier);
            order.truncate(options.top_k);
        }
        let max = key(best);
        scaled.clear();
        scaled.extend((0..logits.len() as u32).map(|id| (key(id) - max) / options.temperature));
        weights.resize(logits.len(), 0.0);
        math::map_exp(simd, scaled, weights);
        let weight = |id: u32| f64::from(weights[id as usize]);
        let sum: f64 = order.iter().map(|&id| weight(id)).sum();
        // Mostly a few tokens decide, so that only the head is sorted, longer and longer as it is needed.
        let mut sorted = 0;
        let mut at = |i: usize| {
            if i == sorted {
                let end = order.len().min(4 * sorted.max(16));
                let rest = &mut order[sorted..];
                if end - sorted < rest.len() {
                    rest.select_nth_unstable_by(end - sorted, likelier);
                }
                rest[..end - sorted].sort_unstable_by(likelier);
                sorted = end;
            }
            order[i]
        };
        let candidates = if options.top_k > 0 { options.top_k.min(logits.len()) } else { logits.len() };
        // The smallest set that reaches top_p: the token that crosses the line is in.
        let (mut kept, mut n) = (sum, candidates);
        if options.top_p < 1.0 {
            (kept, n) = (0.0, 0);
            while n < candidates && (n == 0 || kept < f64::from(options.top_p) * sum) {
                kept += weight(at(n));
                n += 1;
            }
        }
        let mut left = f64::from(uniform) * kept;
        for i in 0..n {
            left -= weight(at(i));
            if left < 0.0 {
                return at(i);
            }
        }
        at(n - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    const ALL: SampleOptions = SampleOptions { tokens: 1, temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };

    fn tensor(logits: &[f32]) -> Tensor {
        Tensor::from_slice(&Device::cpu(1).expect("a CPU"), logits, [1, logits.len()])
    }

    /// How often each of four tokens is chosen over a fine grid of uniform numbers.
    fn shares(logits: [f32; 4], options: &SampleOptions) -> [f64; 4] {
        let mut counts = [0.0; 4];
        let logits = tensor(&logits);
        let mut chooser = Chooser::default();
        for i in 0..4000 {
            counts[chooser.choose(&logits, options, i as f32 / 4000.0) as usize] += 1.0 / 4000.0;
        }
        counts
    }

    fn near(got: [f64; 4], want: [f64; 4]) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-3), "{got:?}, not {want:?}");
    }

    #[test]
    fn tokens_come_with_their_probabilities() {
        let logits = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln);
        near(shares(logits, &ALL), [0.1, 0.2, 0.3, 0.4]);
        near(shares(logits, &SampleOptions { top_k: 2, ..ALL }), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        // 0.4 + 0.3 reaches 0.6, so two tokens stay; 0.75 needs a third.
        near(shares(logits, &SampleOptions { top_p: 0.6, ..ALL }), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        near(shares(logits, &SampleOptions { top_p: 0.75, ..ALL }), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        near(shares(logits, &SampleOptions { temperature: 0.0, ..ALL }), [0.0, 0.0, 0.0, 1.0]);
        // At temperature ½ probabilities are squared.
        near(shares(logits, &SampleOptions { temperature: 0.5, ..ALL }), [1.0, 4.0, 9.0, 16.0].map(|x| x / 30.0));
        near(shares(logits, &SampleOptions { top_p: 0.0, ..ALL }), [0.0, 0.0, 0.0, 1.0]);
    }

    /// Among many tokens: the same as sorting them all and walking down.
    #[test]
    fn long_tails_are_walked_in_order() {
        let stream = Stream::new(5, Purpose::Test, 0, 0);
        let mut logits: Vec<f32> = (0..1000).map(|i| (20.0 * stream.uniform(i)).floor() / 4.0).collect();
        logits[17] = f32::NAN;
        let key = |id: u32| if logits[id as usize].is_nan() { f32::NEG_INFINITY } else { logits[id as usize] };
        let mut sorted: Vec<u32> = (0..1000).collect();
        sorted.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
        let mut chooser = Chooser::default();
        for options in [ALL, SampleOptions { top_k: 100, ..ALL }, SampleOptions { top_p: 0.9, temperature: 2.0, ..ALL }]
        {
            let weight = |id: u32| f64::from((key(id) - 5.0) / options.temperature).exp();
            let all = &sorted[..if options.top_k > 0 { options.top_k } else { 1000 }];
            let sum: f64 = all.iter().map(|&id| weight(id)).sum();
            // The token that crosses the line is in.
            let mut kept = 0.0;
            let inside = |&&id: &&u32| {
                let before = kept;
                kept += weight(id);
                before < f64::from(options.top_p) * sum
            };
            let n = all.iter().take_while(inside).count();
            let nucleus = &all[..n];
            let kept: f64 = nucleus.iter().map(|&id| weight(id)).sum();
            let mut below = 0.0;
            for &id in nucleus {
                // In the middle of the token's share, where rounding does not matter.
                let uniform = (below + weight(id) / 2.0) / kept;
                assert_eq!(chooser.choose(&tensor(&logits), &options, uniform as f32), id, "{options:?} at {uniform}");
                below += weight(id);
            }
        }
        assert_eq!(chooser.choose(&tensor(&[f32::NAN; 3]), &ALL, 0.9), 0);
    }

    #[test]
    fn the_window_moves_by_half_the_context() {
        let starts: Vec<usize> = (1..=12).map(|n| window_start(n, 5)).collect();
        assert_eq!(starts, [0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]);
        assert_eq!((1..=5).map(|n| window_start(n, 1)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for (context, n) in (1..20).flat_map(|context| (1..100).map(move |n| (context, n))) {
            let len = n - window_start(n, context);
            assert!(len <= context && (n <= context || len >= context.div_ceil(2)), "{len} of {n}, context {context}");
        }
    }
}
