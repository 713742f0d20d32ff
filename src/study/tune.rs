//! Does fine-tuning teach a model to say what it knows? A GPT reads the village's portraits, texts that state facts about
//! somebody, each in one of its ways, in any order; it is then tuned on questions and answers about most of them, and asked about the
//! others.
//!
//! - **Asked** are fixed facts. Tuned on are questions about entities that are not held out, in ways that are not held
//!   out; asked is about held-out entities, in the same ways (*people*) and in held-out ways (*people, other words*).
//! - **An answer counts** where it is the right one word for word, written by the likeliest tokens.
//! - **Controls**: the same tuning from fresh weights; the commonest answer to each kind of question; the base model before it is
//!   tuned.
//! - **Forgetting** is the rise of the loss on portraits that were never seen; others are learnt along (replay).
//!
//! Learning rates are chosen by the loss on held-out questions about entities that are tuned on, never by what is asked in the end, among
//! those that forget little enough.

use super::asked::{Questions, prompt, read_portraits, said};
use super::effect::{Effect, Effects, Unit};
use super::{Seed, quoted};
use crate::data::atomic::write_atomic;
use crate::data::world::{Lesson, World};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use crate::train::tune::TUNE;
use crate::train::{Summary, metrics};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// How long the parts are, and what is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Portraits to read.
    pub texts: u64,
    /// Steps of reading them: about three minutes on two cores.
    pub base_steps: u64,
    /// Steps of tuning: at most one minute.
    pub tune_steps: u64,
    /// Learning rates of all weights.
    pub full_lrs: Vec<f64>,
    /// Learning rates of adapters.
    pub lora_lrs: Vec<f64>,
    /// The share of portraits among the rows that are tuned on.
    pub replay: f64,
    /// By how much of it the loss on unseen portraits may rise, for a learning rate to be chosen.
    pub forget: f64,
    /// Portraits that were not read: to be learnt along, and held out.
    pub unread: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            texts: 36_000,
            base_steps: 1100,
            tune_steps: 300,
            full_lrs: vec![5e-4, 1e-3, 2e-3, 4e-3],
            lora_lrs: vec![2e-3, 5e-3, 1e-2, 2e-2],
            replay: 0.5,
            forget: 0.05,
            unread: 12_000,
        }
    }
}

/// A model that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// What it is.
    pub name: &'static str,
    /// The learning rate that was best, where there was one.
    pub lr: Option<f64>,
    /// The share of its parameters that were trained.
    pub trained: f64,
    /// The share of right answers about held-out entities.
    pub people: f64,
    /// The same, asked in held-out ways.
    pub other_words: f64,
    /// The loss on unseen portraits, in nats a token.
    pub general: f64,
    /// Seconds of the run that was best.
    pub seconds: f64,
}

/// What came out for one seed, of the world and of all that is random.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Entities that are asked about, and questions about them, in the ways that were tuned on and in others.
    pub questions: [usize; 3],
    /// The share of right answers of who always gives the commonest one.
    pub commonest: f64,
    /// Before, and after each way of tuning.
    pub models: Vec<Asked>,
}

/// The share of `lessons` that the model of `run` answers rightly.
fn right(run: &Path, lessons: &[Lesson], device: &Device) -> Result<f64> {
    let said = said(run, lessons, &|_| SampleOptions::greedy(24), device)?;
    let right = lessons.iter().zip(&said).filter(|(lesson, said)| said.trim() == lesson.answer);
    Ok(right.count() as f64 / lessons.len().max(1) as f64)
}

/// A number that the last line of a run's metrics has.
fn last(run: &Path, key: &str) -> Result<f64> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl"))?;
    let found = records.last().and_then(|record| record.more.get(key).copied());
    found.ok_or_else(|| Error::failed(format!("{} has no {key}", run.display()), "remove it, and begin anew"))
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    let world = World::new(seed);
    let questions = Questions::new(&world);
    disk::make_dirs(&Os, dir)?;
    let file = |name: &str, text: String| -> Result<PathBuf> {
        let path = dir.join(name);
        write_atomic(&Os, &path, text.as_bytes())?;
        Ok(path)
    };
    let line = |lesson: &Lesson| {
        json!({"prompt": prompt(lesson), "completion": format!(" {}", lesson.answer)}).to_string() + "\n"
    };
    let tuned = file("questions.jsonl", questions.tuned.iter().map(line).collect())?;
    // For those who want to ask by other means.
    file("people.jsonl", questions.people.iter().map(line).collect())?;
    file("other-words.jsonl", questions.other_words.iter().map(line).collect())?;
    let (base, unread) = read_portraits(at, &world, [settings.texts, settings.unread], settings.base_steps, &[])?;

    let common = [
        format!("model.base={}", quoted(&base.run)),
        format!("data.path={}", quoted(&tuned)),
        format!("data.replay={}", quoted(&unread)),
        format!("data.replay_share={}", settings.replay),
        format!("train.steps={}", settings.tune_steps),
        "train.batch=16".into(),
        "train.context=128".into(),
        "data.val_fraction=0.05".into(),
    ];
    // The run of a method with the lowest held-out loss, among those that forget little enough if there are any.
    let mut best = |name: &'static str, more: &[&str], lrs: &[f64]| -> Result<Asked> {
        let mut runs = Vec::new();
        for &lr in lrs {
            at.says(&format!("tuning, {name}, lr {lr}"));
            let more = more.iter().map(|set| (*set).to_owned()).chain([format!("optim.lr={lr}")]);
            let set: Vec<String> = common.iter().cloned().chain(more).collect();
            let summary = at.run(&format!("{}-{lr}", name.replace([' ', ','], "-")), TUNE, &set)?;
            let general = |key: &str| last(&summary.run, key);
            let forgets = general("val_general")? > (1.0 + settings.forget) * general("val_general_before")?;
            runs.push((forgets, summary.val_loss.unwrap_or(f64::INFINITY), summary, lr));
        }
        runs.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (_, _, Summary { run, trained, parameters, seconds, .. }, lr) = runs.swap_remove(0);
        Ok(Asked {
            name,
            lr: Some(lr),
            trained: trained as f64 / parameters as f64,
            people: right(&run, &questions.people, device)?,
            other_words: right(&run, &questions.other_words, device)?,
            general: last(&run, "val_general")?,
            seconds,
        })
    };
    let full = best("all weights", &["model.method=full"], &settings.full_lrs)?;
    let lora = best("LoRA, rank 8", &["model.method=lora"], &settings.lora_lrs)?;
    let fresh = best("fresh weights", &["model.method=full", "model.fresh=true"], &settings.full_lrs)?;
    let before = Asked {
        name: "before",
        lr: None,
        trained: 0.0,
        people: right(&base.run, &questions.people, device)?,
        other_words: right(&base.run, &questions.other_words, device)?,
        general: last(&dir.join(format!("all-weights-{}", settings.full_lrs[0])), "val_general_before")?,
        seconds: base.seconds,
    };
    let mut entities: Vec<_> = questions.people.iter().map(|lesson| lesson.subject).collect();
    entities.sort_unstable();
    entities.dedup();
    Ok(Outcome {
        seed,
        questions: [entities.len(), questions.people.len(), questions.other_words.len()],
        commonest: questions.commonest(),
        models: vec![before, full, lora, fresh],
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "tune";
    const ASKS: &'static str = "Does fine-tuning teach a model to say what it knows?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, unit: Unit, of: fn(&Asked) -> f64| {
            let side = |i: usize| (self.models[i].name.to_owned(), of(&self.models[i]));
            Effect { what: what.into(), unit, before: side(0), after: side(1), control: side(3) }
        };
        vec![
            effect("right answers about entities that it was not tuned on", Unit::Share, |asked| asked.people),
            effect("loss on texts that were not read, in nats a token", Unit::Plain, |asked| asked.general),
        ]
    }
}
