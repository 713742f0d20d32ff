//! Writing text, token by token.

use super::Gpt;
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape};
use crate::tensor::Tensor;

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

/// Continues `ids` (at least one) until `options.tokens` tokens, the `stop` token, or until `each` returns false; it is
/// called with every new token but `stop`. Beyond the model's context only the last tokens count.
pub fn generate(
    gpt: &Gpt,
    params: &Params,
    tape: &mut Tape,
    mut ids: Vec<u32>,
    stop: Option<u32>,
    options: &SampleOptions,
    each: &mut dyn FnMut(u32) -> bool,
) {
    assert!(!ids.is_empty(), "there is nothing to continue");
    let stream = Stream::new(options.seed, Purpose::Sample, 0, 0);
    for i in 0..options.tokens {
        let window: Vec<i32> =
            ids[ids.len().saturating_sub(gpt.config().context)..].iter().map(|&id| id as i32).collect();
        tape.begin(params, Pass::default());
        let logits = gpt.next_logits(tape, Tensor::from_slice(tape.device(), &window, [1, window.len()]));
        let next = choose(logits.f32(), options, stream.uniform(i as u64));
        if Some(next) == stop || !each(next) {
            break;
        }
        ids.push(next);
    }
    tape.reset();
}

/// The token that `uniform`, from [0, 1), selects from softmax(logits / temperature) after the top-k and top-p cuts.
pub fn choose(logits: &[f32], options: &SampleOptions, uniform: f32) -> u32 {
    // Likeliest first; equal ones in the order of their ids. NaN sorts last.
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let key = |id: &u32| if logits[*id as usize].is_nan() { f32::NEG_INFINITY } else { logits[*id as usize] };
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
    if options.temperature == 0.0 {
        return order[0];
    }
    if options.top_k > 0 {
        order.truncate(options.top_k);
    }
    let max = f64::from(key(&order[0]));
    let weight = |id: &u32| libm::exp((f64::from(key(id)) - max) / f64::from(options.temperature));
    let weights: Vec<f64> = order.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    // The smallest set that reaches top_p: the token that crosses the line is in.
    let mut kept = 0.0;
    let mut n = 0;
    while n < weights.len() && (n == 0 || kept < f64::from(options.top_p) * sum) {
        kept += weights[n];
        n += 1;
    }
    let mut left = f64::from(uniform) * kept;
    for (id, weight) in order.iter().zip(&weights[..n]) {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    order[n - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: SampleOptions = SampleOptions { tokens: 1, temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// How often each of four tokens is chosen over a fine grid of uniform numbers.
    fn shares(logits: [f32; 4], options: &SampleOptions) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for i in 0..4000 {
            counts[choose(&logits, options, i as f32 / 4000.0) as usize] += 1.0 / 4000.0;
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
}
