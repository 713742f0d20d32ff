//! Choosing the next token from the logits that a model gives.

use crate::cpu::{Simd, math};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// How many tokens at most.
    pub tokens: usize,
    /// Divides the logits; 0: the likeliest token always.
    pub temperature: f32,
    /// Among this many of the likeliest tokens; 0: among all.
    pub top_k: usize,
    /// Among the likeliest tokens that have this probability together (nucleus sampling, arXiv 1904.09751); 1: among all.
    pub top_p: f32,
    /// Among tokens that have at least this share of the likeliest one's probability (arXiv 2407.01082); 0: among all.
    pub min_p: f32,
    /// Divides the logits above 0 of tokens that are in the text already, and multiplies those below (CTRL, arXiv 1909.05858);
    /// 1: leaves them as they are.
    pub repetition_penalty: f32,
    /// The same seed and prompt give the same text.
    pub seed: u64,
}

impl SampleOptions {
    /// The likeliest token always.
    pub fn greedy(tokens: usize) -> SampleOptions {
        SampleOptions { tokens, temperature: 0.0, ..SampleOptions::default() }
    }
}

/// The model's own distribution, without an end.
impl Default for SampleOptions {
    fn default() -> SampleOptions {
        SampleOptions {
            tokens: usize::MAX,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 1,
        }
    }
}

/// What a text has to look like: which tokens may come next.
pub trait Constraint: Send {
    /// Sets the logits of tokens that may not come next to −∞; false: the text is complete, and nothing may come.
    fn narrow(&mut self, logits: &mut [f32]) -> bool;

    /// Takes the token that came.
    fn accept(&mut self, id: u32);
}

/// The natural logarithm of the probability that a row of logits gives a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The token.
    pub id: u32,
    /// Its log-probability, at temperature 1 and before any cut.
    pub logprob: f32,
    /// The likeliest tokens in its place with theirs, likeliest first.
    pub top: Vec<(u32, f32)>,
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
    /// The logits after what changes them.
    changed: Vec<f32>,
    /// Whether each token is in the text.
    seen: Vec<bool>,
}

impl Chooser {
    /// The token that comes after `text`: [`choose`](Chooser::choose) from what the penalty and the constraint leave of the
    /// logits. None, where the constraint says so.
    pub fn next(
        &mut self,
        simd: Simd,
        logits: &[f32],
        text: &[u32],
        options: &SampleOptions,
        constraint: Option<&mut (dyn Constraint + 'static)>,
        uniform: f32,
    ) -> Option<u32> {
        if options.repetition_penalty == 1.0 && constraint.is_none() {
            return Some(self.choose(simd, logits, options, uniform));
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        if options.repetition_penalty != 1.0 {
            self.seen.clear();
            self.seen.resize(logits.len(), false);
            for &id in text {
                let (seen, logit) = (&mut self.seen[id as usize], &mut changed[id as usize]);
                if !std::mem::replace(seen, true) {
                    let p = options.repetition_penalty;
                    *logit = if *logit > 0.0 { *logit / p } else { *logit * p };
                }
            }
        }
        let goes_on = constraint.is_none_or(|constraint| constraint.narrow(&mut changed));
        let id = goes_on.then(|| self.choose(simd, &changed, options, uniform));
        self.changed = changed;
        id
    }

    /// The token that `uniform`, from [0, 1), selects from softmax(`logits` / temperature) after the cuts of top-k, top-p and
    /// min-p, the likeliest tokens first, equal ones in the order of their ids. NaN counts as −∞.
    pub fn choose(&mut self, simd: Simd, logits: &[f32], options: &SampleOptions, uniform: f32) -> u32 {
        let Chooser { order, scaled, weights, .. } = self;
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
        if options.top_p < 1.0 || options.min_p > 0.0 {
            // The likeliest token's weight is 1.
            let wanted = if options.top_p < 1.0 { f64::from(options.top_p) * sum } else { f64::INFINITY };
            (kept, n) = (0.0, 0);
            while n < candidates && (n == 0 || (kept < wanted && weight(at(n)) >= f64::from(options.min_p))) {
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

/// The log-probabilities that `logits` give token `id` and the `top` likeliest ones.
pub fn logprob(logits: &[f32], id: u32, top: usize) -> Logprob {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log = f64::from(max) + sum.ln();
    let of = |id: u32| (f64::from(logits[id as usize]) - log) as f32;
    let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut order: Vec<u32> = if top > 0 { (0..logits.len() as u32).collect() } else { Vec::new() };
    if top > 0 && top < order.len() {
        order.select_nth_unstable_by(top - 1, likelier);
        order.truncate(top);
    }
    order.sort_unstable_by(likelier);
    Logprob { id, logprob: of(id), top: order.into_iter().map(|id| (id, of(id))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn all() -> SampleOptions {
        SampleOptions::default()
    }

    fn choose(chooser: &mut Chooser, logits: &[f32], options: &SampleOptions, uniform: f32) -> u32 {
        chooser.choose(Simd::detect().expect("a level"), logits, options, uniform)
    }

    /// How often each of four tokens is chosen over a fine grid of uniform numbers.
    fn shares(logits: [f32; 4], options: &SampleOptions) -> [f64; 4] {
        let mut counts = [0.0; 4];
        let mut chooser = Chooser::default();
        for i in 0..4000 {
            counts[choose(&mut chooser, &logits, options, i as f32 / 4000.0) as usize] += 1.0 / 4000.0;
        }
        counts
    }

    fn near(got: [f64; 4], want: [f64; 4]) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-3), "{got:?}, not {want:?}");
    }

    #[test]
    fn tokens_come_with_their_probabilities() {
        let logits = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln);
        near(shares(logits, &all()), [0.1, 0.2, 0.3, 0.4]);
        near(shares(logits, &SampleOptions { top_k: 2, ..all() }), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        // 0.4 + 0.3 reaches 0.6, so two tokens stay; 0.75 needs a third.
        near(shares(logits, &SampleOptions { top_p: 0.6, ..all() }), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        near(shares(logits, &SampleOptions { top_p: 0.75, ..all() }), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        near(shares(logits, &SampleOptions { temperature: 0.0, ..all() }), [0.0, 0.0, 0.0, 1.0]);
        // At temperature ½ probabilities are squared.
        near(shares(logits, &SampleOptions { temperature: 0.5, ..all() }), [1.0, 4.0, 9.0, 16.0].map(|x| x / 30.0));
        near(shares(logits, &SampleOptions { top_p: 0.0, ..all() }), [0.0, 0.0, 0.0, 1.0]);
        // 0.2 is half of 0.4, and 0.1 a quarter.
        near(shares(logits, &SampleOptions { min_p: 0.49, ..all() }), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        near(shares(logits, &SampleOptions { min_p: 1.0, ..all() }), [0.0, 0.0, 0.0, 1.0]);
        // At temperature ½ it is a quarter and a sixteenth.
        let sharp = SampleOptions { min_p: 0.3, temperature: 0.5, ..all() };
        near(shares(logits, &sharp), [0.0, 0.0, 9.0, 16.0].map(|x| x / 25.0));
        let both = SampleOptions { min_p: 0.3, top_p: 0.6, ..all() };
        near(shares(logits, &both), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
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
        for options in
            [all(), SampleOptions { top_k: 100, ..all() }, SampleOptions { top_p: 0.9, temperature: 2.0, ..all() }]
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
                assert_eq!(choose(&mut chooser, &logits, &options, uniform as f32), id, "{options:?} at {uniform}");
                below += weight(id);
            }
        }
        assert_eq!(choose(&mut chooser, &[f32::NAN; 3], &all(), 0.9), 0);
    }

    #[test]
    fn what_was_said_is_said_less() {
        let simd = Simd::detect().expect("a level");
        let options = SampleOptions { repetition_penalty: 2.0, ..SampleOptions::greedy(1) };
        let mut chooser = Chooser::default();
        let mut next =
            |logits: &[f32], text: &[u32]| chooser.next(simd, logits, text, &options, None, 0.0).expect("a token");
        assert_eq!(next(&[3.0, 2.0, 1.0], &[]), 0);
        // 3 becomes 1½, however often it was said.
        assert_eq!(next(&[3.0, 2.0, 1.0], &[0, 0, 0]), 1);
        assert_eq!(next(&[3.0, 2.0, 1.0], &[0, 1]), 0);
        // −1 becomes −2.
        assert_eq!(next(&[-1.0, -1.5, -4.0], &[0]), 1);
    }

    /// Says a text, and nothing else.
    struct Only(&'static [u32], usize);

    impl Constraint for Only {
        fn narrow(&mut self, logits: &mut [f32]) -> bool {
            let Some(&allowed) = self.0.get(self.1) else { return false };
            logits
                .iter_mut()
                .enumerate()
                .filter(|(id, _)| *id != allowed as usize)
                .for_each(|(_, x)| *x = f32::NEG_INFINITY);
            true
        }

        fn accept(&mut self, id: u32) {
            assert_eq!(id, self.0[self.1]);
            self.1 += 1;
        }
    }

    #[test]
    fn what_may_not_come_does_not() {
        let simd = Simd::detect().expect("a level");
        let (mut chooser, mut only) = (Chooser::default(), Only(&[2, 0, 1], 0));
        for want in [2, 0, 1] {
            for options in [all(), SampleOptions::greedy(1)] {
                let got = chooser.next(simd, &[9.0, 0.0, -9.0], &[], &options, Some(&mut only), 0.99);
                assert_eq!(got, Some(want));
            }
            only.accept(want);
        }
        assert_eq!(chooser.next(simd, &[9.0, 0.0, -9.0], &[], &all(), Some(&mut only), 0.99), None);
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [0.1f32, 0.2, 0.3, 0.4].map(|p| p.ln() + 7.0);
        let got = logprob(&logits, 1, 2);
        assert!((got.logprob - 0.2f32.ln()).abs() < 1e-6, "{got:?}");
        assert_eq!(got.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 2]);
        assert!((got.top[0].1 - 0.4f32.ln()).abs() < 1e-6 && (got.top[1].1 - 0.3f32.ln()).abs() < 1e-6, "{got:?}");
        assert_eq!(logprob(&logits, 0, 9).top.len(), 4);
        assert!(logprob(&logits, 0, 0).top.is_empty());
    }
}
