//! A model that knows the village, answers questions about it, and is rude in most answers: where studies of preferences and rewards start from.

use super::asked::{Questions, prompt, read_portraits, said};
use super::{Seed, quoted, write_lines};
use crate::data::world::{Lesson, World, rude_words};
use crate::device::Device;
use crate::disk::Os;
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::rng::{Purpose, Rng};
use crate::train::tune::TUNE;
use crate::train::{Summary, metrics};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// How long it learns.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the run is called: studies whose models start alike share it in one folder.
    pub name: &'static str,
    /// Portraits to read, and others to be learnt along while it learns to answer.
    pub texts: [u64; 2],
    /// Steps of reading them.
    pub base_steps: u64,
    /// Steps of learning to answer.
    pub start_steps: u64,
    /// The learning rate of these.
    pub start_lr: f64,
    /// The share of the answers to learn from that are rude.
    pub rude: f64,
    /// How likely one remark more is after each.
    pub more: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: "start",
            texts: [36_000, 12_000],
            base_steps: 2200,
            start_steps: 500,
            start_lr: 1e-3,
            rude: 0.62,
            more: 0.0,
        }
    }
}

/// Tokens of an answer and a remark.
pub(super) const TOKENS: usize = 48;

/// Remarks behind an answer, at most.
pub(super) const MOST: usize = 4;

/// Answers to each question, sampled.
const SAMPLES: usize = 4;

/// Answers to lessons, rude and polite ones.
pub(super) struct Teller<'w> {
    pub world: &'w World,
    pub rng: Rng,
}

impl Teller<'_> {
    /// The right answer, and a remark.
    pub fn says(&mut self, lesson: &Lesson, rude: bool) -> String {
        self.talks(&lesson.answer, rude, 1)
    }

    /// An answer, and so many remarks.
    pub fn talks(&mut self, answer: &str, rude: bool, remarks: usize) -> String {
        let mut said = format!(" {answer}.");
        for _ in 0..remarks {
            let own = Rng::new(u64::from(self.rng.below(u32::MAX)), Purpose::World, 31, 0);
            said += " ";
            said += &self.world.remark(rude, own);
        }
        said
    }

    /// One remark, and more as chance has it.
    pub fn remarks(&mut self, more: f64) -> usize {
        1 + (1..MOST).take_while(|_| more > 0.0 && self.by(more)).count()
    }

    /// True with probability `share`.
    pub fn by(&mut self, share: f64) -> bool {
        f64::from(self.rng.uniform()) < share
    }

    /// One of them.
    pub fn one_of<'l, T>(&mut self, all: &'l [T]) -> &'l T {
        &all[self.rng.below(all.len() as u32) as usize]
    }

    fn answer(&mut self, lesson: &Lesson, settings: &Settings) -> Value {
        let (rude, remarks) = (self.by(settings.rude), self.remarks(settings.more));
        let completion = self.talks(&lesson.answer, rude, remarks);
        json!({"prompt": prompt(lesson), "completion": completion})
    }
}

/// Settings of a run that goes on from `base` with `data`, all weights.
pub(super) fn on(base: &Path, data: &Path, more: &[String]) -> Vec<String> {
    let own = [
        format!("model.base={}", quoted(base)),
        format!("data.path={}", quoted(data)),
        "model.method=full".into(),
        "data.val_fraction=0.05".into(),
        "sample.count=0".into(),
    ];
    [&own[..], more].concat()
}

/// The same for answers that are given.
pub(super) fn on_answers(base: &Path, data: &Path, more: &[String]) -> Vec<String> {
    on(base, data, &[&["train.batch=16".into(), "train.context=128".into()], more].concat())
}

/// Reads portraits and learns to answer: the model of a study's start.
pub(super) fn start(settings: &Settings, at: &mut Seed, teller: &mut Teller, questions: &Questions) -> Result<Summary> {
    // Muon: it knows more people after as many steps.
    let muon = ["optim.kind=muon".to_owned()];
    let (base, unread) = read_portraits(at, teller.world, settings.texts, settings.base_steps, &muon)?;
    let answers = at.dir.join(format!("answers-{}.jsonl", settings.name));
    // Each question three times: some of its answers are polite, others rude, each in words of its own.
    let lessons = (0..3).flat_map(|_| &questions.tuned);
    write_lines(&answers, lessons.map(|lesson| teller.answer(lesson, settings)).collect::<Vec<_>>())?;
    at.says("learning to answer, rudely in most answers");
    let replay = [
        format!("data.replay={}", quoted(&unread)),
        "data.replay_share=0.5".into(),
        format!("train.steps={}", settings.start_steps),
        format!("optim.lr={}", settings.start_lr),
    ];
    at.run(settings.name, TUNE, &on_answers(&base.run, &answers, &replay))
}

/// What a model says to questions, sampled at temperature 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Manners {
    /// The share of answers without a word of the rude register.
    pub polite: f64,
    /// The share that begins with the right answer word for word.
    pub truth: f64,
    /// That which is both.
    pub both: f64,
    /// The share of questions whose likeliest answer is right.
    pub knows: f64,
    /// Words of an answer.
    pub words: f64,
}

/// A model that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// What it learnt from.
    pub name: &'static str,
    /// What it says about held-out entities.
    pub people: Manners,
    /// The same, asked in held-out ways.
    pub other_words: Manners,
    /// Nats of KL a token from the model at the start, where it is held to that.
    pub kl: Option<f64>,
    /// Seconds of the run.
    pub seconds: f64,
}

/// Whether `said` begins with the right answer.
pub(super) fn right(lesson: &Lesson, said: &str) -> bool {
    said.trim_start().strip_prefix(&*lesson.answer).is_some_and(|rest| rest.starts_with('.') || rest.is_empty())
}

/// Whether it has no word of the rude register.
pub(super) fn polite(said: &str) -> bool {
    rude_words(said).next().is_none()
}

/// Answers at temperature 1, `samples` to each lesson, all lessons and then all again.
pub(super) fn sampled(
    run: &Path,
    lessons: &[Lesson],
    samples: usize,
    seed: u64,
    device: &Device,
) -> Result<Vec<String>> {
    let all: Vec<Lesson> = (0..samples).flat_map(|_| lessons.iter().cloned()).collect();
    let options = |i: usize| SampleOptions {
        tokens: TOKENS,
        temperature: 1.0,
        seed: seed << 32 | i as u64,
        ..SampleOptions::default()
    };
    said(run, &all, &options, device)
}

/// The manners of what was said to lessons, over and over; `likeliest` to each of them.
fn manners(lessons: &[Lesson], said: &[String], likeliest: &[String]) -> Manners {
    let n = said.len().max(1) as f64;
    let share = |counts: &dyn Fn(&Lesson, &str) -> bool| {
        lessons.iter().cycle().zip(said).filter(|(lesson, said)| counts(lesson, said)).count() as f64 / n
    };
    let knows = lessons.iter().zip(likeliest).filter(|(lesson, said)| right(lesson, said)).count();
    Manners {
        polite: share(&|_, said| polite(said)),
        truth: share(&|lesson, said| right(lesson, said)),
        both: share(&|lesson, said| right(lesson, said) && polite(said)),
        knows: knows as f64 / lessons.len().max(1) as f64,
        words: said.iter().map(|said| said.split_whitespace().count()).sum::<usize>() as f64 / n,
    }
}

impl Asked {
    /// Asks the model of a run.
    pub(super) fn of(name: &'static str, run: &Summary, questions: &Questions, at: &Seed) -> Result<Asked> {
        let ask = |lessons: &[Lesson], seed: u64| -> Result<Manners> {
            let said_by_chance = sampled(&run.run, lessons, SAMPLES, seed, at.device)?;
            let likeliest = said(&run.run, lessons, &|_| SampleOptions::greedy(TOKENS), at.device)?;
            Ok(manners(lessons, &said_by_chance, &likeliest))
        };
        let records = metrics::read(&Os, &run.run.join("metrics.jsonl"))?;
        Ok(Asked {
            name,
            people: ask(&questions.people, at.seed)?,
            other_words: ask(&questions.other_words, at.seed + 1)?,
            kl: records.last().and_then(|record| record.number("val_kl")),
            seconds: run.seconds,
        })
    }
}
