//! Questions about the village, for studies that ask them; and a model that has read what the answers are.

use super::{Seed, write_lines};
use crate::data::world::{Asker, Form, Lesson, Split, World};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::model::sequence::{answers, ending};
use crate::params::Hold;
use crate::tape::Tape;
use crate::train::text::start;
use crate::train::{Sampler, Summary};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The questions of a world, by what they are for.
pub(super) struct Questions {
    /// To tune on.
    pub tuned: Vec<Lesson>,
    /// About held-out entities.
    pub people: Vec<Lesson>,
    /// The same, in held-out words.
    pub other_words: Vec<Lesson>,
}

impl Questions {
    pub fn new(world: &World) -> Questions {
        let (mut tuned, mut people, mut other_words) = (Vec::new(), Vec::new(), Vec::new());
        for lesson in world.lessons() {
            match (lesson.held_out, lesson.paraphrase) {
                (false, false) => tuned.push(lesson),
                (true, false) => people.push(lesson),
                (true, true) => other_words.push(lesson),
                (false, true) => {}
            }
        }
        Questions { tuned, people, other_words }
    }

    /// Whoever gives the commonest answer to each kind of question is so often right.
    pub fn commonest(&self) -> f64 {
        let mut counts: HashMap<_, HashMap<&str, usize>> = HashMap::new();
        for lesson in &self.tuned {
            *counts.entry(lesson.relation.name()).or_default().entry(&lesson.answer).or_default() += 1;
        }
        let best = |lesson: &Lesson| {
            let counts = counts.get(lesson.relation.name())?;
            counts
                .iter()
                .max_by_key(|(answer, count)| (**count, std::cmp::Reverse(**answer)))
                .map(|(answer, _)| *answer)
        };
        let right = self.people.iter().filter(|lesson| best(lesson) == Some(&lesson.answer)).count();
        right as f64 / self.people.len().max(1) as f64
    }
}

/// How a lesson is asked.
pub(super) fn prompt(lesson: &Lesson) -> String {
    format!("Question: {}\nAnswer:", lesson.question)
}

/// What the model of `run` answers to `lessons`, each as its own options say.
pub(super) fn said(
    run: &Path,
    lessons: &[Lesson],
    options: &dyn Fn(usize) -> SampleOptions,
    device: &Device,
) -> Result<Vec<String>> {
    answered(run, &lessons.iter().map(prompt).collect::<Vec<_>>(), options, device)
}

/// What the model of `run`, a run or a checkpoint, answers to `prompts`, each as its own options say.
pub(super) fn answered(
    run: &Path,
    prompts: &[String],
    options: &dyn Fn(usize) -> SampleOptions,
    device: &Device,
) -> Result<Vec<String>> {
    Ok(written(run, prompts, options, device)?.into_iter().map(|written| written.text).collect())
}

/// An answer.
pub(super) struct Written {
    /// The tokens of the prompt, the answer and its end, where it came to one.
    pub ids: Vec<u32>,
    /// How many of them are the answer's.
    pub tokens: usize,
    /// The answer.
    pub text: String,
}

/// The same with their tokens.
pub(super) fn written(
    run: &Path,
    prompts: &[String],
    options: &dyn Fn(usize) -> SampleOptions,
    device: &Device,
) -> Result<Vec<Written>> {
    let sampler = Sampler::open(run, &[], Hold::Frozen, device)?;
    let (gpt, params, tokenizer) = sampler.into_parts();
    let prompts = prompts.iter().map(|prompt| start(&tokenizer, prompt)).collect::<Result<Vec<_>>>()?;
    let asked: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let mut tape = Tape::new(device);
    let mut on = |_| true;
    let said = answers(&gpt, &params, &mut tape, &asked, &[], options, &mut ending(tokenizer.ends(), &mut on));
    let whole = |(prompt, said): (&Vec<u32>, &Vec<u32>)| {
        let ended = said.last().is_some_and(|last| tokenizer.ends().contains(last));
        let text = tokenizer.decode(&said[..said.len() - usize::from(ended)]);
        Written { ids: [&prompt[..], said].concat(), tokens: said.len(), text }
    };
    Ok(prompts.iter().zip(&said).map(whole).collect())
}

/// A model that has read portraits of everybody, `texts` of them, and as many more as are asked for that it has not read.
pub(super) fn read_portraits(
    at: &mut Seed,
    world: &World,
    [texts, unread]: [u64; 2],
    steps: u64,
    more: &[String],
) -> Result<(Summary, PathBuf)> {
    let dir = at.dir;
    disk::make_dirs(&Os, dir)?;
    let asker = Asker::new(world, Split::Train, Form::Portraits);
    let mut hand = asker.hand();
    let mut file = |name: &str, numbers: std::ops::Range<u64>| -> Result<PathBuf> {
        let lines = numbers.map(|i| asker.item(&mut hand, i).body);
        let path = dir.join(name);
        write_lines(&path, lines)?;
        Ok(path)
    };
    let reading = file("reading.jsonl", 0..texts)?;
    let unread = file("unread.jsonl", texts..texts + unread)?;
    at.says("reading portraits");
    Ok((at.reads("base", Some(&reading), steps, more)?, unread))
}
