//! Writing with cached keys and values: the bits of the computation without a cache, the window beyond the context, no
//! allocation.

use crate::alloc::allocations;
use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::model::sample::{Chooser, SampleOptions, generate};
use kiln::model::{Cache, Gpt, GptConfig, Size};
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

fn random_ids(n: usize) -> Vec<i32> {
    let mut rng = Rng::new(3, Purpose::Test, 0, 0);
    (0..n).map(|_| rng.below(61) as i32).collect()
}

/// The tokens `from..to` of sequences of `len`.
fn part(device: &Device, ids: &[i32], len: usize, from: usize, to: usize) -> Tensor {
    let rows: Vec<i32> = ids.chunks(len).flat_map(|row| row[from..to].to_vec()).collect();
    Tensor::from_slice(device, &rows, [ids.len() / len, to - from])
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn cached_logits_are_those_of_the_whole_sequence_bit_for_bit() {
    let best = Simd::detect().expect("a level");
    let (len, v) = (140, 61);
    for (batch, config, hold) in [
        (1, config(150), Hold::Train),
        (3, config(150), Hold::Train),
        (1, llama(150), Hold::Train),
        (2, llama(150), Hold::Train),
        (1, config(150), Hold::FrozenBf16),
        (1, config(150), Hold::FrozenQ8),
        (2, llama(150), Hold::FrozenQ8),
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
                want = bits(gpt.logits(tape.constant(part(&device, &ids, len, 0, len))).value().f32());
            }
            let mut cache = Cache::new(&device, gpt.config(), batch);
            for pieces in [vec![len], vec![1; len], vec![9, 1, 1, 53, 1, 2, 8, 65], vec![63, 2, 75], vec![64, 76]] {
                let mut past = 0;
                for n in pieces {
                    let what = format!("{n} after {past}, B {batch}, {} on {threads}", level.name());
                    let want: Vec<&[u32]> = want.chunks(len * v).map(|rows| &rows[past * v..(past + n) * v]).collect();
                    tape.begin(&params, Pass::default());
                    let got = gpt.logits_cached(&tape, part(&device, &ids, len, past, past + n), &mut cache);
                    assert_eq!(got.shape()[..], [batch, n, v]);
                    assert!(bits(got.f32()) == want.concat(), "{what}");
                    // The same again, but for the last position only.
                    cache.truncate(past);
                    tape.begin(&params, Pass::default());
                    let got = gpt.next_logits(&tape, part(&device, &ids, len, past, past + n), &mut cache);
                    let last: Vec<&[u32]> = want.iter().map(|rows| &rows[(n - 1) * v..]).collect();
                    assert!(bits(got.f32()) == last.concat(), "the last of {what}");
                    past += n;
                    assert_eq!(cache.len(), past);
                }
                assert_eq!(past, len);
                cache.truncate(0);
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
    let options = SampleOptions { tokens: 30, temperature: 1.0, top_k: 0, top_p: 0.95, seed: 1 };
    let stream = Stream::new(options.seed, Purpose::Sample, 0, 0);
    let models = [model(&device, config(context)), model(&device, llama(context))];
    for (prompt, (gpt, params)) in [1, 5, 12, 13, 20, 33].into_iter().flat_map(|n| models.iter().map(move |m| (n, m))) {
        let mut all: Vec<u32> = random_ids(prompt).iter().map(|&id| id as u32).collect();
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
            let window: Vec<i32> = all[start..].iter().map(|&id| id as i32).collect();
            tape.begin(params, Pass::default());
            let logits = gpt.logits(tape.constant(Tensor::from_slice(&device, &window, [1, window.len()]))).value();
            let last = Tensor::from_slice(&device, &logits.f32()[(window.len() - 1) * v..], [1, v]);
            let id = Chooser::default().choose(&last, &options, stream.uniform((n - prompt) as u64));
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
    let mut cache = Cache::new(&device, gpt.config(), 1);
    let mut chooser = Chooser::default();
    let options = SampleOptions { tokens: 1, temperature: 0.9, top_k: 50, top_p: 0.9, seed: 1 };
    let mut next = 5;
    let mut write = |n: usize| {
        for _ in 0..n {
            tape.begin(&params, Pass::default());
            let logits = gpt.next_logits(&tape, Tensor::from_slice(&device, &[next], [1, 1]), &mut cache);
            next = chooser.choose(&logits, &options, 0.5) as i32;
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
    let mut cache = Cache::new(&device, gpt.config(), 1);
    for n in [6, 3] {
        gpt.next_logits(&tape, part(&device, &random_ids(n), n, 0, n), &mut cache);
    }
}
