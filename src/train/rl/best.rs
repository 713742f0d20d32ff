//! Best-of-n: of n answers the one that a reward model likes best. It trains nothing, and costs n answers.

use crate::data::Tokenizer;
use crate::data::examples::{Prompt, Prompts};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use crate::model::sequence::{answers, ending};
use crate::params::Hold;
use crate::rng::{Purpose, Stream};
use crate::tape::Tape;
use crate::train::Sampler;
use crate::train::prefer::Judge;
use crate::train::tune::templated;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Who answers, who judges, and what is asked.
#[derive(Clone, Debug)]
pub struct BestOf {
    /// A run, a checkpoint or a model.
    pub model: PathBuf,
    /// What `kiln align reward` made, with the same tokens.
    pub judge: PathBuf,
    /// Files of [prompts](Prompts).
    pub data: Vec<PathBuf>,
    /// How conversations become text.
    pub template: String,
    /// Answers to each prompt.
    pub n: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Tokens of an answer at most.
    pub tokens: usize,
    /// Of what is drawn.
    pub seed: u64,
}

/// The answers to a prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// What was asked.
    pub prompt: String,
    /// The answer with the highest reward, as it follows the prompt.
    pub completion: String,
    /// Its reward.
    pub reward: f32,
    /// Those of all answers.
    pub rewards: Vec<f32>,
}

/// What a best of n may be away from the model at most, ln n − (n − 1)/n, in nats an answer (Stiennon et al. 2020, arXiv 2009.01325; a bound:
/// Beirami et al. 2024, arXiv 2401.01879).
#[must_use]
pub fn kl_of_best(n: usize) -> f64 {
    let n = n.max(1) as f64;
    n.ln() - (n - 1.0) / n
}

fn tokens_of(path: &Path) -> Error {
    let hint = "train one from a model with the same tokenizer: kiln align reward";
    Error::usage(format!("the reward model {} has other tokens than the model", path.display()), hint)
}

impl BestOf {
    /// Answers all prompts. `done` is told how many answers are over; nothing comes back where it said false.
    ///
    /// # Errors
    /// A model or a file cannot be read; the two have other tokens.
    pub fn choose(&self, device: &Device, done: &mut dyn FnMut(usize, usize) -> bool) -> Result<Option<Vec<Chosen>>> {
        let (gpt, params, tokenizer) = Sampler::open(&self.model, &[], Hold::Frozen, device)?.into_parts();
        let (tokenizer, template) = templated(tokenizer, &self.template)?;
        let mut judge = Judge::open(&self.judge, device)?;
        if judge.tokenizer().hash() != tokenizer.hash() {
            return Err(tokens_of(&self.judge));
        }
        let context = gpt.config().context;
        let prompts =
            Prompts::read(&self.data, &tokenizer, template.as_ref(), context.saturating_sub(1), &mut |_, _| {})?;
        let asked: Vec<&[u32]> =
            prompts.all.iter().flat_map(|prompt| std::iter::repeat_n(&prompt.ids[..], self.n)).collect();
        let options = |i: usize| {
            let stream = Stream::new(self.seed, Purpose::Sample, (i % self.n) as u32 & 0xff_ffff, (i / self.n) as u64);
            SampleOptions {
                tokens: self.tokens.min(context + 1 - asked[i].len()),
                temperature: self.temperature,
                seed: u64::from(stream.bits(0)) << 32 | u64::from(stream.bits(1)),
                ..SampleOptions::default()
            }
        };
        let (all, mut whole) = (asked.len(), true);
        let mut told = |over: usize| {
            whole = done(over, all);
            whole
        };
        let mut tape = Tape::new(device);
        let said = answers(&gpt, &params, &mut tape, &asked, &[], &options, &mut ending(tokenizer.ends(), &mut told));
        if !whole {
            return Ok(None);
        }
        let texts: Vec<Vec<u32>> = asked.iter().zip(&said).map(|(asked, said)| [asked, &said[..]].concat()).collect();
        let rewards = judge.rewards(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Ok(Some(
            prompts
                .all
                .iter()
                .enumerate()
                .map(|(i, prompt)| self.one(i, prompt, &said, &rewards, &tokenizer))
                .collect(),
        ))
    }

    fn one(&self, i: usize, prompt: &Prompt, said: &[Vec<u32>], rewards: &[f32], tokenizer: &Tokenizer) -> Chosen {
        let own = i * self.n..(i + 1) * self.n;
        let best = own.clone().reduce(|a, b| if rewards[b] > rewards[a] { b } else { a }).expect("n is not 0");
        let ended = said[best].last().is_some_and(|last| tokenizer.ends().contains(last));
        let text = &said[best][..said[best].len() - usize::from(ended)];
        Chosen {
            prompt: prompt.text.clone(),
            completion: tokenizer.decode(text),
            reward: rewards[best],
            rewards: rewards[own].to_vec(),
        }
    }
}
