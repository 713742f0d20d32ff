//! Writing with cached keys and values: the bits of the computation without a cache, the window beyond the context, no
//! allocation.

use crate::alloc::allocations;
use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::model::sample::{Chooser, Constraint, SampleOptions, logprob};
use kiln::model::sequence::{PIECE, Report, Sequence, generate, step};
use kiln::model::{Cache, Gpt, GptConfig, Part, Size};
use kiln::params::{Hold, Params};
use kiln::rng::{Purpose, Rng, Stream};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;

fn config(context: usize) -> GptConfig {
    GptConfig::gpt2(Size { vocab: 61, context, layers: 2, heads: 4, d: 48 })
}

/// Rotary positions, and two query heads for each head of keys.
fn llama(context: usize) -> GptConfig {
    GptConfig { kv_heads: 2, ..GptConfig::llama(Size { vocab: 61, context, layers: 2, heads: 4, d: 48 }) }
}

fn model(device: &Device, config: GptConfig) -> (Gpt, Params) {
    held(device, config, Hold::Train)
}

fn held(device: &Device, config: GptConfig, hold: Hold) -> (Gpt, Params) {
    let (gpt, decls) = Gpt::new(config);
    (gpt, Params::with(device, &decls, 7, |_| hold))
}

fn random_ids(n: usize) -> Vec<u32> {
    let mut rng = Rng::new(3, Purpose::Test, 0, 0);
    (0..n).map(|_| rng.below(61)).collect()
}

/// ids (B, T) as a tensor.
fn tensor(device: &Device, ids: &[u32], shape: [usize; 2]) -> Tensor {
    Tensor::from_slice(device, &ids.iter().map(|&id| id as i32).collect::<Vec<_>>(), shape)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// However a sequence is cut into pieces, whatever others are read beside it, and wherever its cache grew.
#[test]
fn cached_logits_are_those_of_the_whole_sequence_bit_for_bit() {
    let best = Simd::detect().expect("a level");
    let (len, v) = (140, 61);
    for (batch, config, hold) in [
        (1, config(150), Hold::Train),
        (3, config(150), Hold::Train),
        (1, llama(150), Hold::Train),
        (3, llama(150), Hold::Train),
        (1, config(150), Hold::FrozenBf16),
        (1, config(150), Hold::FrozenQ8),
        (2, llama(150), Hold::FrozenQ8),
        (1, config(150), Hold::FrozenQ4),
        (2, llama(150), Hold::FrozenQ4),
    ] {
        let ids = random_ids(batch * len);
        let mut want = Vec::new();
        let runs = Simd::available().into_iter().map(|level| (level, 2)).chain([(best, 1), (best, 3)]);
        for (level, threads) in runs {
            let device = Device::cpu_with(level, threads);
            let (gpt, params) = held(&device, config.clone(), hold);
            let mut tape = Tape::new(&device);
            if want.is_empty() {
                tape.begin(&params, Pass::default());
                want = bits(gpt.logits(tape.constant(tensor(&device, &ids, [batch, len]))).value().f32());
            }
            for pieces in [vec![len], vec![1; len], vec![9, 1, 1, 53, 1, 2, 8, 65], vec![63, 2, 75], vec![64, 76]] {
                let mut caches: Vec<Cache> =
                    (0..batch).map(|i| Cache::with_room(&device, gpt.config(), if i == 0 { 150 } else { 9 })).collect();
                // Each sequence begins a turn after the one before, so that they are at different places.
                for turn in 0..pieces.len() + batch - 1 {
                    let (mut parts, mut expected) = (Vec::new(), Vec::new());
                    for (i, cache) in caches.iter_mut().enumerate() {
                        let Some(&n) = turn.checked_sub(i).and_then(|turn| pieces.get(turn)) else { continue };
                        let (past, wanted) = (cache.len(), [n, 1, n.min(2), 0][(turn + i) % 4]);
                        cache.reserve(&device, past + n);
                        let end = i * len + past + n;
                        expected.extend_from_slice(&want[(end - wanted) * v..end * v]);
                        parts.push(Part { ids: &ids[end - n..end], want: wanted, cache });
                    }
                    tape.begin(&params, Pass::default());
                    let got = gpt.logits_cached(&tape, &mut parts);
                    assert_eq!(got.shape()[..], [expected.len() / v, v]);
                    assert!(bits(got.f32()) == expected, "turn {turn} of {pieces:?}, B {batch}, {}", level.name());
                }
                assert!(caches.iter().all(|cache| cache.len() == len));
            }
        }
    }
}

/// Inside the context all tokens count; beyond it those from the place on that the documentation of `generate` names, which
/// does not depend on where the prompt ended.
#[test]
fn generated_tokens_are_those_of_the_model_on_the_window() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 2);
    let (context, v) = (12, 61);
    let mut tape = Tape::new(&device);
    let options = SampleOptions { tokens: 30, top_p: 0.95, ..SampleOptions::default() };
    let stream = Stream::new(options.seed, Purpose::Sample, 0, 0);
    let models = [model(&device, config(context)), model(&device, llama(context))];
    for (prompt, (gpt, params)) in [1, 5, 12, 13, 20, 33].into_iter().flat_map(|n| models.iter().map(move |m| (n, m))) {
        let mut all = random_ids(prompt);
        let mut got = Vec::new();
        let pace = generate(gpt, params, &mut tape, all.clone(), &[], &options, &mut |id| {
            got.push(id);
            true
        });
        let mut start = 0;
        for n in 1..prompt + options.tokens {
            // A full window moves: its last half is read anew.
            if n - start > context {
                start = n - context / 2;
            }
            if n < prompt {
                continue;
            }
            let window = &all[start..];
            tape.begin(params, Pass::default());
            let logits = gpt.logits(tape.constant(tensor(&device, window, [1, window.len()]))).value();
            let last = &logits.f32()[(window.len() - 1) * v..];
            let uniform = stream.uniform((n - prompt) as u64);
            let id = Chooser::default().choose(device.host().simd, last, &options, uniform);
            assert_eq!(got[n - prompt], id, "after {n} tokens, {prompt} of them given");
            if n == prompt {
                assert_eq!((pace.prompt, pace.more), (window.len(), options.tokens - 1));
            }
            all.push(id);
        }
        assert!(start > prompt.saturating_sub(context) && got.iter().any(|id| id != &got[0]));
    }
}

#[test]
fn a_token_allocates_nothing() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 2);
    let (gpt, params) = model(&device, config(100));
    let mut tape = Tape::new(&device);
    let mut cache = Cache::new(&device, gpt.config());
    let mut chooser = Chooser::default();
    let options = SampleOptions { tokens: 1, temperature: 0.9, top_k: 50, top_p: 0.9, ..SampleOptions::default() };
    let mut next = 5;
    let mut write = |n: usize| {
        for _ in 0..n {
            tape.begin(&params, Pass::default());
            let logits = gpt.logits_cached(&tape, &mut [Part { ids: &[next], want: 1, cache: &mut cache }]);
            next = chooser.choose(device.host().simd, logits.f32(), &options, 0.5);
        }
    };
    write(3);
    let (misses, mapped) = (device.pool().misses(), device.pool().mapped_bytes());
    assert_eq!(allocations(|| write(90)), 0);
    assert_eq!((device.pool().misses(), device.pool().mapped_bytes()), (misses, mapped));
    assert_eq!(cache.len(), 93);
}

#[test]
#[should_panic(expected = "3 tokens more than 6, with room for 8")]
fn a_full_cache_is_refused_before_anything_is_computed() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 1);
    let (gpt, params) = model(&device, config(8));
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let mut cache = Cache::new(&device, gpt.config());
    for n in [6, 3] {
        gpt.logits_cached(&tape, &mut [Part { ids: &random_ids(n), want: 1, cache: &mut cache }]);
    }
}

/// Sequences of all kinds in one room, which come and go at different times, each become what they are alone.
#[test]
fn what_a_text_becomes_does_not_depend_on_its_company() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 2);
    for config in [config(700), llama(700)] {
        let (gpt, params) = model(&device, config);
        let mut tape = Tape::new(&device);
        let mut chooser = Chooser::default();
        let all = random_ids(900);
        // A long prompt is read in pieces beside the others.
        let prompts = [&all[..3], &all[5..605], &all[..1], &all[20..25], &all[3..300]];
        let options = |i: usize| SampleOptions {
            tokens: [12, 5, 30, 1, 9][i],
            temperature: [0.0, 1.0, 0.8, 1.0, 1.3][i],
            repetition_penalty: [1.0, 1.2, 1.0, 1.0, 1.5][i],
            seed: i as u64,
            ..SampleOptions::default()
        };
        let new = |i: usize| Sequence::new(&device, &gpt, prompts[i].to_vec(), options(i)).reporting(Report::default());
        let mut alone = Vec::new();
        for i in 0..5 {
            let mut sequence = new(i);
            while !sequence.is_full() {
                step(&gpt, &params, &mut tape, &mut chooser, &mut [&mut sequence], PIECE);
            }
            assert_eq!(sequence.logprobs().len(), options(i).tokens);
            alone.push((sequence.written().to_vec(), sequence.logprobs().to_vec()));
        }
        let mut sequences: Vec<(usize, Sequence)> = Vec::new();
        let mut left = 5;
        for turn in 0.. {
            if turn < 5 {
                sequences.push((turn, new(turn)));
            }
            if sequences.is_empty() {
                break;
            }
            let mut together: Vec<&mut Sequence> = sequences.iter_mut().map(|(_, sequence)| sequence).collect();
            step(&gpt, &params, &mut tape, &mut chooser, &mut together, 100);
            sequences.retain(|(i, sequence)| {
                if sequence.is_full() {
                    assert_eq!((sequence.written(), sequence.logprobs()), (&alone[*i].0[..], &alone[*i].1[..]), "{i}");
                    left -= 1;
                }
                !sequence.is_full()
            });
        }
        assert_eq!(left, 0);
    }
}

/// Log-probabilities of the prompt and of what follows it: those of the logits of the whole text.
#[test]
fn log_probabilities_are_kept_for_each_token() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 2);
    let (gpt, params) = model(&device, llama(700));
    let mut tape = Tape::new(&device);
    let mut chooser = Chooser::default();
    // Longer than a piece.
    let prompt = random_ids(600);
    for tokens in [0, 4] {
        let options = SampleOptions { tokens, ..SampleOptions::default() };
        let report = Report { top: 3, prompt: true };
        let mut sequence = Sequence::new(&device, &gpt, prompt.clone(), options).reporting(report);
        while !sequence.is_full() {
            step(&gpt, &params, &mut tape, &mut chooser, &mut [&mut sequence], PIECE);
        }
        let ids = sequence.ids().to_vec();
        assert_eq!(ids.len(), 600 + tokens);
        tape.begin(&params, Pass::default());
        let logits = gpt.logits(tape.constant(tensor(&device, &ids, [1, ids.len()]))).value();
        let want: Vec<_> = logits.f32().chunks(61).zip(&ids[1..]).map(|(row, &id)| logprob(row, id, 3)).collect();
        assert_eq!(sequence.logprobs(), want);
    }
}

/// A text that begins like one that was read goes on as if it were read whole.
#[test]
fn what_was_read_before_is_not_read_again() {
    let device = Device::cpu_with(Simd::detect().expect("a level"), 2);
    let (gpt, params) = model(&device, llama(300));
    let mut tape = Tape::new(&device);
    let mut chooser = Chooser::default();
    let options = SampleOptions { tokens: 6, ..SampleOptions::default() };
    let mut finish = |mut sequence: Sequence| {
        let before = device.host().flops();
        while !sequence.is_full() {
            step(&gpt, &params, &mut tape, &mut chooser, &mut [&mut sequence], PIECE);
        }
        let reads = device.host().flops() - before;
        (sequence.written().to_vec(), reads, sequence)
    };
    let ids = random_ids(200);
    let (_, _, first) = finish(Sequence::new(&device, &gpt, ids[..100].to_vec(), options));
    let mut past = first.into_past();
    assert_eq!(past.ids().len(), 105);
    for (from, same) in [(90, 90), (150, 100), (100, 99)] {
        // The first `from` tokens, with another one at `same`.
        let mut text = ids[..from].to_vec();
        if same < 100 && same + 1 < from {
            text[same] = 60 - text[same];
        }
        let (alone, long, _) = finish(Sequence::new(&device, &gpt, text.clone(), options));
        let (again, short, sequence) = finish(Sequence::after(&device, &gpt, past, text, options));
        assert_eq!(alone, again, "{from} tokens");
        assert!(short < long / 2, "{short} operations, of {long}");
        past = sequence.into_past();
    }
}

/// A constraint sees what came, and nothing else comes.
#[test]
fn a_constrained_text_keeps_to_it() {
    /// Counts: 0, 1, 2, ….
    struct Counting(u32);

    impl Constraint for Counting {
        fn narrow(&mut self, logits: &mut [f32]) -> bool {
            let next = self.0 as usize;
            logits.iter_mut().enumerate().filter(|(id, _)| *id != next).for_each(|(_, x)| *x = f32::NEG_INFINITY);
            self.0 < 5
        }

        fn accept(&mut self, id: u32) {
            assert_eq!(id, self.0);
            self.0 += 1;
        }
    }

    let device = Device::cpu_with(Simd::detect().expect("a level"), 1);
    let (gpt, params) = model(&device, config(50));
    let mut tape = Tape::new(&device);
    let options = SampleOptions { tokens: 9, ..SampleOptions::default() };
    let mut sequence = Sequence::new(&device, &gpt, vec![3, 4], options).constrained(Box::new(Counting(0)));
    while !sequence.is_full() {
        step(&gpt, &params, &mut tape, &mut Chooser::default(), &mut [&mut sequence], PIECE);
    }
    assert_eq!(sequence.written(), [0, 1, 2, 3, 4]);
    assert!(sequence.is_complete());
}
