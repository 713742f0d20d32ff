//! Texts that are written token by token, one or many side by side.
//!
//! A [`Sequence`] is a text and what its model keeps of it. [`step`] moves several on at once: those of which something is
//! still to be read by a piece of it, the others by a token. The weights, which are what a token's time goes into, are then
//! read once for all of them; and sequences may come and go between steps ("continuous batching": Yu et al. 2022, Orca).
//! What a text becomes does not depend on its company, not by a bit.

use super::sample::{Chooser, Constraint, Logprob, SampleOptions, logprob};
use super::{Cache, Gpt, Part};
use crate::cpu::Simd;
use crate::device::Device;
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tape::{Pass, Tape};
use arrayvec::ArrayVec;
use std::time::Instant;

/// How many sequences a step may have.
pub const LANES: usize = 64;
/// Tokens of a text that are read in one step at most: a long one is read in pieces, which bounds the memory that it needs.
pub const PIECE: usize = 512;

/// Where the tokens that count begin, of `n` tokens, for a model of `context`: they are the last `context` at most. When that
/// many have been read, the next one is read after the last half of them only, so that the keys and values of all need not be
/// computed anew for each token (their positions move); a function of `n` alone, wherever the prompt ended.
fn window_start(n: usize, context: usize) -> usize {
    let step = context + 1 - context.div_ceil(2);
    n.saturating_sub(context).div_ceil(step) * step
}

/// Which log-probabilities a sequence keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Of how many of the likeliest tokens, beside the one that came.
    pub top: usize,
    /// Those of the prompt as well: of each of its tokens but the first.
    pub prompt: bool,
}

/// A text that is being written.
pub struct Sequence {
    ids: Vec<u32>,
    prompt: usize,
    /// Where the tokens that count begin.
    start: usize,
    cache: Cache,
    options: SampleOptions,
    stream: Stream,
    constraint: Option<Box<dyn Constraint>>,
    report: Option<Report>,
    logprobs: Vec<Logprob>,
    /// Whether the constraint lets nothing follow.
    complete: bool,
    /// What was chosen in the last step.
    fresh: Option<u32>,
    /// Of the tokens that are being read, how many of the last ones need logits.
    want: usize,
}

impl Sequence {
    /// A text that starts with `ids`, at least one, and is to be written as `options` say.
    pub fn new(device: &Device, gpt: &Gpt, ids: Vec<u32>, options: SampleOptions) -> Sequence {
        let room = Sequence::room(gpt, &ids, &options);
        Sequence::start(gpt, ids, options, Cache::with_room(device, gpt.config(), room))
    }

    /// The same, where `past` is a text that was read before: what both begin with is not read again.
    pub fn after(device: &Device, gpt: &Gpt, past: Past, ids: Vec<u32>, options: SampleOptions) -> Sequence {
        let Past { ids: old, mut cache } = past;
        // The last token is read in any case: what follows it is what is wanted.
        let common = old.iter().zip(&ids[..ids.len() - 1]).take_while(|(a, b)| a == b).count();
        cache.truncate(if window_start(ids.len(), gpt.config().context) == 0 { common } else { 0 });
        cache.reserve(device, Sequence::room(gpt, &ids, &options));
        Sequence::start(gpt, ids, options, cache)
    }

    /// Tokens that a sequence needs room for at most.
    pub fn room(gpt: &Gpt, ids: &[u32], options: &SampleOptions) -> usize {
        gpt.config().context.min(ids.len().saturating_add(options.tokens))
    }

    fn start(gpt: &Gpt, mut ids: Vec<u32>, options: SampleOptions, cache: Cache) -> Sequence {
        assert!(!ids.is_empty(), "there is nothing to continue");
        ids.reserve(options.tokens.min(gpt.config().context));
        Sequence {
            start: window_start(ids.len(), gpt.config().context),
            prompt: ids.len(),
            ids,
            cache,
            options,
            stream: Stream::new(options.seed, Purpose::Sample, 0, 0),
            constraint: None,
            report: None,
            logprobs: Vec::new(),
            complete: false,
            fresh: None,
            want: 0,
        }
    }

    /// Only what `constraint` allows is written.
    #[must_use]
    pub fn constrained(mut self, constraint: Box<dyn Constraint>) -> Sequence {
        self.constraint = Some(constraint);
        self
    }

    /// Keeps log-probabilities.
    #[must_use]
    pub fn reporting(mut self, report: Report) -> Sequence {
        self.report = Some(report);
        self
    }

    /// All tokens: the prompt's, and those that were written.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The tokens that were written.
    pub fn written(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    /// The token that the last step wrote; none while the prompt is being read.
    pub fn fresh(&self) -> Option<u32> {
        self.fresh
    }

    /// Whether the constraint lets nothing follow.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether nothing is to follow: everything has been read, and as many tokens written as the options or a constraint
    /// allow.
    pub fn is_full(&self) -> bool {
        self.complete
            || self.written().len() >= self.options.tokens
                && (self.options.tokens > 0 || self.due(usize::MAX).is_empty())
    }

    /// Log-probabilities of the tokens that were written, after those of the prompt from its second token on where these are
    /// wanted.
    pub fn logprobs(&self) -> &[Logprob] {
        &self.logprobs
    }

    /// How many of the tokens have been read.
    pub fn read(&self) -> usize {
        self.start + self.cache.len()
    }

    /// Tokens that its memory has room for.
    pub fn room_taken(&self) -> usize {
        self.cache.room()
    }

    /// Reads everything anew: all of the prompt's log-probabilities are wanted.
    pub fn forget(&mut self) {
        self.cache.truncate(0);
    }

    /// What was read, for another text that begins like this one.
    pub fn into_past(mut self) -> Past {
        // A text of which the beginning no longer counts is none to go on from.
        let read = if self.start == 0 { self.cache.len() } else { 0 };
        self.ids.truncate(read);
        self.cache.truncate(read);
        Past { ids: self.ids, cache: self.cache }
    }

    /// The next tokens to read, at most `limit`.
    fn due(&self, limit: usize) -> &[u32] {
        let due = &self.ids[self.start + self.cache.len()..];
        &due[..due.len().min(limit)]
    }

    /// The next tokens to read, at most `limit`, with what they need.
    fn part(&mut self, context: usize, limit: usize) -> Part<'_> {
        let start = window_start(self.ids.len(), context);
        if start != self.start {
            self.cache.truncate(0);
            self.start = start;
        }
        let from = self.start + self.cache.len();
        let n = self.due(limit).len();
        let last = from + n == self.ids.len();
        self.want = match self.report {
            Some(Report { prompt: true, .. }) if from < self.prompt => n,
            _ => usize::from(last && self.options.tokens > 0),
        };
        Part { ids: &self.ids[from..from + n], want: self.want, cache: &mut self.cache }
    }

    /// Takes the logits (want, V) of the part that was read.
    fn see(&mut self, simd: Simd, logits: &[f32], chooser: &mut Chooser) {
        self.fresh = None;
        let read = self.start + self.cache.len();
        if self.want == 0 {
            return;
        }
        let rows = logits.chunks_exact(logits.len() / self.want);
        for (next, row) in (read + 1 - self.want..).zip(rows) {
            let id = if next < self.ids.len() {
                self.ids[next]
            } else if self.options.tokens > 0 {
                let uniform = self.stream.uniform((self.ids.len() - self.prompt) as u64);
                let constraint = self.constraint.as_deref_mut();
                let Some(id) = chooser.next(simd, row, &self.ids, &self.options, constraint, uniform) else {
                    self.complete = true;
                    continue;
                };
                if let Some(constraint) = &mut self.constraint {
                    constraint.accept(id);
                }
                self.fresh = Some(id);
                self.ids.push(id);
                id
            } else {
                continue;
            };
            if let Some(report) = self.report {
                self.logprobs.push(logprob(row, id, report.top));
            }
        }
    }
}

/// What a model has read: tokens, and what it keeps of them.
pub struct Past {
    ids: Vec<u32>,
    cache: Cache,
}

impl Past {
    /// The tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens it has room for.
    pub fn room(&self) -> usize {
        self.cache.room()
    }
}

/// Moves each of `sequences` (at most [`LANES`], none full) on: by a token, or by a part of what it has still to read. All
/// together read `piece` tokens or one each, whichever is more; the first ones come first.
pub fn step(
    gpt: &Gpt,
    params: &Params,
    tape: &mut Tape,
    chooser: &mut Chooser,
    sequences: &mut [&mut Sequence],
    piece: usize,
) {
    tape.begin(params, Pass::default());
    let simd = tape.device().host().simd;
    let mut room = piece.max(sequences.len());
    let mut behind = sequences.len();
    let mut parts = ArrayVec::<Part, LANES>::new();
    for sequence in &mut *sequences {
        behind -= 1;
        // Each one behind has a token at least.
        let part = sequence.part(gpt.config().context, room - behind);
        room -= part.ids.len();
        parts.push(part);
    }
    let logits = gpt.logits_cached(tape, &mut parts);
    drop(parts);
    let mut rest = logits.f32();
    for sequence in sequences {
        let own;
        (own, rest) = rest.split_at(sequence.want * gpt.config().vocab);
        sequence.see(simd, own, chooser);
    }
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
    ids: Vec<u32>,
    stop: &[u32],
    options: &SampleOptions,
    each: &mut dyn FnMut(u32) -> bool,
) -> Pace {
    let mut sequence = Sequence::new(tape.device(), gpt, ids, *options);
    let mut chooser = Chooser::default();
    let mut pace = Pace::default();
    for i in 0..options.tokens {
        let clock = Instant::now();
        let next = loop {
            step(gpt, params, tape, &mut chooser, &mut [&mut sequence], PIECE);
            if let Some(id) = sequence.fresh() {
                break id;
            }
        };
        let seconds = clock.elapsed().as_secs_f64();
        pace += match i {
            0 => Pace { prompt: sequence.cache.len(), first_seconds: seconds, ..Pace::default() },
            _ => Pace { more: 1, more_seconds: seconds, ..Pace::default() },
        };
        if stop.contains(&next) || !each(next) {
            break;
        }
    }
    tape.reset();
    pace
}

/// What becomes of texts that are being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// They go on.
    More,
    /// This one is done.
    Enough,
    /// All end.
    End,
}

/// What `prompts` are continued with, each as by [`generate`] with its own options: written side by side, as many as there are lanes.
/// `see(i, id, over)` is told of each new token of text `i`, of none where it is one of `stop`, and whether it is the last.
pub fn answers(
    gpt: &Gpt,
    params: &Params,
    tape: &mut Tape,
    prompts: &[&[u32]],
    stop: &[u32],
    options: &dyn Fn(usize) -> SampleOptions,
    see: &mut dyn FnMut(usize, Option<u32>, bool) -> Wish,
) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new(); prompts.len()];
    let mut chooser = Chooser::default();
    let (mut next, mut goes_on) = (0, true);
    let mut writing: Vec<(usize, Sequence)> = Vec::new();
    while goes_on && (next < prompts.len() || !writing.is_empty()) {
        while writing.len() < LANES && next < prompts.len() {
            writing.push((next, Sequence::new(tape.device(), gpt, prompts[next].to_vec(), options(next))));
            next += 1;
        }
        let mut lanes: ArrayVec<&mut Sequence, LANES> = writing.iter_mut().map(|(_, sequence)| sequence).collect();
        step(gpt, params, tape, &mut chooser, &mut lanes, PIECE);
        drop(lanes);
        writing.retain(|(i, sequence)| {
            let Some(id) = sequence.fresh() else { return true };
            let ends = stop.contains(&id);
            let over = ends || sequence.is_full();
            let wish = see(*i, (!ends).then_some(id), over);
            goes_on &= wish != Wish::End;
            if over || wish == Wish::Enough {
                let text = sequence.written();
                all[*i] = text[..text.len() - usize::from(ends)].to_vec();
            }
            !over && wish != Wish::Enough
        });
    }
    tape.reset();
    all
}

/// For [`answers`]: `done(n)` is told, with each token, how many texts are over; false from it ends the work.
pub fn counted(done: &mut dyn FnMut(usize) -> bool) -> impl FnMut(usize, Option<u32>, bool) -> Wish {
    let mut n = 0;
    move |_, _, over| {
        n += usize::from(over);
        if done(n) { Wish::More } else { Wish::End }
    }
}

/// The same for [`answers`] that keep the one of `ends` that ended them, and so are given no `stop`.
pub fn ending<'a>(
    ends: &'a [u32],
    done: &'a mut dyn FnMut(usize) -> bool,
) -> impl FnMut(usize, Option<u32>, bool) -> Wish + 'a {
    let mut over = 0;
    move |_, id, full| {
        let ended = id.is_some_and(|id| ends.contains(&id));
        over += usize::from(ended || full);
        match (done(over), ended) {
            (false, _) => Wish::End,
            (true, true) => Wish::Enough,
            (true, false) => Wish::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
