//! How fast a model writes, token by token, with random weights and a random prompt.

use super::step::StepCase;
use super::{Case, Part, Started, Unit, Work};
use crate::device::Device;
use crate::model::sample::{Chooser, SampleOptions};
use crate::model::{self, Cache, Gpt, GptConfig};
use crate::params::{Hold, Kind, Params};
use crate::rng::{Purpose, Rng};
use crate::tape::{Pass, Tape};
use serde_json::json;
use std::time::Instant;

/// Reading `prompt` tokens and writing `tokens` more with the model of `case`, its weights held as `hold` says.
///
/// # Panics
/// The context has no room for them.
pub fn case(case: StepCase, prompt: usize, tokens: usize, hold: Hold) -> Case {
    let dtype = hold.dtype(Kind::Matrix).name();
    let name = format!("{} {dtype}, prompt {prompt}", case.name);
    let mut spec = case.spec();
    if spec.is_null() {
        spec = json!({"transformers": case.config.to_json()});
    }
    spec["prompt"] = prompt.into();
    spec["tokens"] = tokens.into();
    // Peers have nothing narrower.
    spec["precision"] = if hold == Hold::FrozenBf16 { "bf16" } else { "f32" }.into();
    Case::new("decode", name, spec, move |device| {
        let mut bench = DecodeBench::new(case.config.clone(), hold, device);
        bench.run(prompt, tokens);
        let read = bench.bytes() as f64;
        // A third of a training step's, in which each product has two more for its gradients.
        let flops = |n: usize| case.config.flops_per_token(prompt) / 3.0 * n as f64;
        let first = Work { flops: flops(prompt), read, ..Work::default() };
        let rest = Work { flops: flops(tokens), read: read * tokens as f64, ..Work::default() };
        let parts = vec![
            Part::whole(rest, Unit::Tokens(tokens)),
            Part { name: "first", work: first, unit: Unit::Tokens(prompt) },
        ];
        let repeat = move || {
            let (first, rest) = bench.run(prompt, tokens);
            Ok(vec![rest, first])
        };
        Ok(Started { parts, repeat: Box::new(repeat) })
    })
}

/// A model ready to write again and again.
pub struct DecodeBench {
    gpt: Gpt,
    params: Params,
    tape: Tape,
    cache: Cache,
    chooser: Chooser,
    rng: Rng,
}

impl DecodeBench {
    /// The model of `config` on `device`, with fresh weights.
    pub fn new(config: GptConfig, hold: Hold, device: &Device) -> DecodeBench {
        let cache = Cache::new(device, &config);
        let (gpt, decls) = Gpt::new(config);
        let params = Params::with(device, &decls, 1, |_| hold);
        let rng = Rng::new(1, Purpose::Test, 0, 0);
        DecodeBench { gpt, params, tape: Tape::new(device), cache, chooser: Chooser::default(), rng }
    }

    /// Reads `prompt` random tokens and chooses the likeliest next one, then writes `tokens` more, each the likeliest again:
    /// the seconds of the first, and of the others together.
    ///
    /// # Panics
    /// The context has no room for them.
    pub fn run(&mut self, prompt: usize, tokens: usize) -> (f64, f64) {
        let vocab = self.gpt.config().vocab as u32;
        let ids: Vec<u32> = (0..prompt).map(|_| self.rng.below(vocab)).collect();
        self.cache.truncate(0);
        let start = Instant::now();
        let mut next = self.next(&ids);
        let first = start.elapsed().as_secs_f64();
        for _ in 0..tokens {
            next = self.next(&[next]);
        }
        self.tape.reset();
        (first, start.elapsed().as_secs_f64() - first)
    }

    fn next(&mut self, ids: &[u32]) -> u32 {
        self.tape.begin(&self.params, Pass::default());
        let part = model::Part { ids, want: 1, cache: &mut self.cache };
        let logits = self.gpt.logits_cached(&self.tape, &mut [part]);
        self.chooser.choose(logits.cpu().simd, logits.f32(), &SampleOptions::greedy(1), 0.0)
    }

    /// Bytes of weights that each token needs whole: those of all matrices, and of the head.
    pub fn bytes(&self) -> usize {
        let matrices = self.params.groups().iter().filter(|group| group.kind == Kind::Matrix);
        matrices.map(|group| group.weights().bytes()).sum::<usize>()
            + self.params.weight(self.gpt.head()).spec().bytes()
    }
}
