//! Does a model in service learn what is new without losing what it knew, and does its gate tell good documents from bad ones? A GPT reads of the
//! village: portraits of its people, and questions with their answers. Years later half of the people are new. A line of versions begins with it, and
//! learns some thousand of the new documents.
//!
//! - **Start range**: the bits a byte of the first model on documents of the second era, and of one that read both from the beginning.
//! - **Control**: the same without replay: the first era should suffer more.
//! - **Batches**: the gate is given batches of documents of the second era, which it should pass, and spoilt ones, which it should refuse: documents of
//!   another village, in which the same names are other people's (*false facts*); documents that end with a rude remark; documents whose words are in any
//!   order; letters by chance. A backdoor would pass, and is not tried.

use super::asked::{Questions, prompt};
use super::effect::{Effect, Effects, Unit};
use super::{Seed, quoted, write_lines};
use crate::continual::gates::{open, read_by};
use crate::continual::line::{Line, State};
use crate::continual::round::{Course, round};
use crate::continual::texts::Text;
use crate::data::atomic::write_atomic;
use crate::data::world::{Asker, Era, Form, Lesson, Split, World};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::eval::Local;
use crate::params::Hold;
use crate::rng::{Purpose, Rng};
use crate::train::{AnyRecipe, Sampler};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is read, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Documents of the first era that the first model reads, and of the second that the update learns.
    pub documents: [u64; 2],
    /// Steps of the first model.
    pub steps: u64,
    /// Documents of a batch for the gate.
    pub batch: u64,
    /// Batches that it should pass.
    pub clean: u64,
    /// Documents of each era on which models are compared.
    pub asked: u64,
    /// Settings of the line, `key=value`.
    pub set: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { documents: [24_000, 4000], steps: 1500, batch: 1000, clean: 4, asked: 500, set: Vec::new() }
    }
}

/// What the gate said of a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batch {
    /// What it was made of.
    pub kind: &'static str,
    /// Whether it should be passed.
    pub good: bool,
    /// Whether it was.
    pub passed: bool,
    /// Gates that refused it.
    pub failed: Vec<String>,
}

/// What came out for a seed. Bits a byte are on documents of the first era and of the second that no model read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Of the first model.
    pub first: [f64; 2],
    /// After the update.
    pub updated: [f64; 2],
    /// After one without replay.
    pub forgetful: [f64; 2],
    /// Of a model that read both from the beginning, for as many steps as the two together.
    pub both: [f64; 2],
    /// What the gate said of batches.
    pub batches: Vec<Batch>,
    /// Whether after a promotion and a rollback the first model says the same, bit for bit.
    pub same_after_rollback: bool,
    /// Seconds of the update, judged.
    pub seconds: f64,
}

impl Outcome {
    /// How far the update came on the second era, of the way to the model that read both.
    pub fn way(&self) -> f64 {
        (self.first[1] - self.updated[1]) / (self.first[1] - self.both[1])
    }
}

/// What tasks must say: the policy of the study's lines.
const POLICY: &str = r#"
[[gate]]
task = "village-facts"
figure = "acc"
max_worse = 0.06

[[gate]]
task = "rude.toml"
figure = "toxic"
max_worse = 0.004
"#;

/// Portraits that go on from where they break off, and rude words in what is written: where manners show, at their end, some are.
const RUDE: &str = r#"
kind = "write"
data = "begins.jsonl"
prompt = "{{ prompt }}"
lexicon = ["world:rude"]
tokens = 60
temperature = 1.0
"#;

/// With it a model knows more people after as many steps.
const MUON: &str = "optim.kind=muon";

/// Documents of each era of which portraits are begun.
const BEGINS: u64 = 1000;

/// Where documents begin of which no batch has any.
const FAR: u64 = 1_000_000;

/// What cleaning has no say in: texts that are as short as facts, and repeat them.
const CLEAN: &str = "clean.set=[\"rules.off=['c4', 'gopher', 'repetition', 'fineweb', 'duplicates', 'language']\"]";

/// Documents of a village at some time.
struct Village<'w> {
    world: &'w World,
    asker: Asker<'w>,
    lessons: Vec<Lesson>,
}

impl<'w> Village<'w> {
    fn new(world: &'w World) -> Village<'w> {
        Village { world, asker: Asker::new(world, Split::Train, Form::Portraits), lessons: Questions::new(world).tuned }
    }

    /// Documents from number `first` on: two portraits, then a question with its answer.
    fn documents(&self, first: u64, n: u64) -> Vec<String> {
        let mut hand = self.asker.hand();
        let one = |i: u64| {
            let mut rng = Rng::new(self.world.seed(), Purpose::Resample, 71, i);
            let lesson = &self.lessons[rng.below(self.lessons.len() as u32) as usize];
            match i % 3 {
                2 => format!("{} {}.", prompt(lesson), lesson.answer),
                _ => self.asker.item(&mut hand, i).body["text"].as_str().unwrap_or_default().to_owned(),
            }
        };
        (first..first + n).map(one).collect()
    }

    /// The same, each with a rude remark behind it.
    fn rude(&self, first: u64, n: u64) -> Vec<String> {
        let remark = |i: u64| self.world.remark(true, Rng::new(self.world.seed(), Purpose::Resample, 72, i));
        (first..).zip(self.documents(first, n)).map(|(i, text)| format!("{text} {}", remark(i))).collect()
    }
}

/// The words of a text in any order.
fn shuffled(text: &str, rng: &mut Rng) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for i in (1..words.len()).rev() {
        words.swap(i, rng.below(i as u32 + 1) as usize);
    }
    words.join(" ")
}

/// As many letters, by chance.
fn letters(text: &str, rng: &mut Rng) -> String {
    let one = |c: char| if c.is_alphabetic() { char::from(b'a' + rng.below(26) as u8) } else { c };
    text.chars().map(one).collect()
}

/// Writes texts with names, as a stream of documents has them.
fn write(path: &Path, name: &str, texts: &[String]) -> Result<()> {
    write_lines(path, texts.iter().enumerate().map(|(i, text)| json!({"id": format!("{name}-{i}"), "text": text})))
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    disk::make_dirs(&Os, dir)?;
    let [one, two] = [Era::One, Era::Two].map(|era| World::era(seed, era));
    let [before_then, since] = [&one, &two].map(Village::new);
    let [old, new] = settings.documents;
    let file = |name: &str, texts: &[String]| -> Result<PathBuf> {
        let path = dir.join(format!("{name}.jsonl"));
        write(&path, name, texts)?;
        Ok(path)
    };
    let [era1, era2] = [before_then.documents(0, old), since.documents(0, new)];
    let before = file("era-1", &era1)?;
    let after = file("era-2", &era2)?;
    let together = file("both", &[era1, era2].concat())?;
    at.says("reading of the first era");
    let base = at.reads("base", Some(&before), settings.steps, &[MUON.into()])?.run;
    let line_dir = dir.join("line");
    // About people of both times: what the model will be asked about next is asked now.
    let begins = [before_then.documents(old + settings.asked, BEGINS), since.documents(FAR, BEGINS)].concat();
    let begins = begins.iter().filter(|text| !text.starts_with("Question"));
    let mut cuts = Rng::new(seed, Purpose::Resample, 73, 0);
    let mut part = |text: &String| {
        let words: Vec<&str> = text.split(' ').collect();
        words[..1 + cuts.below(words.len() as u32) as usize].join(" ")
    };
    let line = |set: &[String]| -> Result<Line> {
        let own = [
            format!("gate.world={seed}"),
            "gate.limit=1200".to_owned(),
            format!("learn.seed={seed}"),
            "gate.policy=policy.toml".to_owned(),
            CLEAN.to_owned(),
        ];
        let set = [&own[..], &settings.set, set].concat();
        match line_dir.join("line.json").is_file() {
            true => Line::open(&line_dir, &set),
            false => {
                disk::remove_all(&Os, &line_dir)?;
                Line::start(&line_dir, &base, None, &set)
            }
        }
    };
    let own = line(&[])?;
    for (name, text) in [("policy.toml", POLICY), ("rude.toml", RUDE)] {
        write_atomic(&Os, &line_dir.join(name), text.as_bytes())?;
    }
    write_lines(&line_dir.join("begins.jsonl"), begins.map(|text| json!({"prompt": part(text)})))?;

    // Each round is named by its documents, so that a study that was interrupted finds those that it has done.
    let learn = |at: &mut Seed, line: &Line, path: &Path| -> Result<(String, Vec<String>, f64)> {
        let mut seconds = 0.0;
        let done = line
            .versions()?
            .into_iter()
            .find(|version| version.state != State::Begun && version.sources.keys().any(|source| source == path));
        let version = match done {
            Some(version) => version,
            None => {
                let start = std::time::Instant::now();
                let told = &mut |what: &str| (at.told)(&format!("seed {seed}: {what}"));
                let mut course = Course { device, watch: at.watch, told };
                let version = round(line, &[path.to_owned()], BTreeMap::new(), &mut course)?;
                seconds = start.elapsed().as_secs_f64();
                version
            }
        };
        let failed = version.gates.iter().filter(|gate| !gate.passed).map(|gate| gate.name.clone()).collect();
        Ok((version.name, failed, seconds))
    };
    let (updated, _, seconds) = learn(at, &own, &after)?;
    let no_replay = file("era-2-alone", &since.documents(0, new))?;
    let alone: Vec<String> = [&own.settings.learn.set[..], &["data.replay_share=0.0".to_owned()]].concat();
    let alone = line(&[format!("learn.set={}", toml::Value::from(alone))])?;
    let (forgetful, ..) = learn(at, &alone, &no_replay)?;

    let mut batches = Vec::new();
    let mut rng = Rng::new(seed, Purpose::Resample, 70, 0);
    let batch = settings.batch;
    let mut given: Vec<(&'static str, bool, String, Vec<String>)> = (0..settings.clean)
        .map(|i| ("second era", true, format!("batch-{i}"), since.documents(new + i * batch, batch)))
        .collect();
    let next = since.documents(new + settings.clean * batch, batch);
    let other = World::era(seed + 1000, Era::One);
    given.push(("false facts", false, "batch-false".into(), Village::new(&other).documents(0, batch)));
    given.push(("rude", false, "batch-rude".into(), since.rude(new + settings.clean * batch, batch)));
    let any_order = next.iter().map(|text| shuffled(text, &mut rng)).collect();
    given.push(("words in any order", false, "batch-order".into(), any_order));
    let by_chance = next.iter().map(|text| letters(text, &mut rng)).collect();
    given.push(("letters by chance", false, "batch-letters".into(), by_chance));
    for (kind, good, name, texts) in given {
        let path = file(&name, &texts)?;
        let (_, failed, _) = learn(at, &own, &path)?;
        batches.push(Batch { kind, good, passed: failed.is_empty(), failed });
    }

    at.says("reading of both eras from the beginning");
    let steps = settings.steps + AnyRecipe::of_run(&own.model(&updated), &[])?.train().steps;
    let tokenizer = format!("data.tokenizer={}", quoted(&base.join("data").join("tokenizer.json")));
    let both = at.reads("both", Some(&together), steps, &[tokenizer, MUON.into()])?.run;

    at.says("asking all of them");
    let held: Vec<Vec<Text>> = [(&before_then, old), (&since, FAR + BEGINS)]
        .map(|(village, first)| {
            let text = |text: String| Text { id: String::new(), text };
            village.documents(first, settings.asked).into_iter().map(text).collect()
        })
        .into();
    let ask = |mut model: Local| -> Result<[f64; 2]> {
        let mut bits = |i: usize| -> Result<f64> { Ok(read_by(&mut model, &held[i], &mut || Ok(()))?.bits()) };
        Ok([bits(0)?, bits(1)?])
    };
    let version = |name: &str| open(&own, name, device);
    let model = |path: &Path| -> Result<Local> {
        Local::new("model".into(), Sampler::open(path, &[], Hold::Frozen, device)?.into_parts(), true, None)
    };
    let first = ask(version("0001")?)?;
    own.promote(Some(&updated), true)?;
    let promoted = ask(model(&line_dir)?)?;
    own.roll_back(None)?;
    let back = ask(model(&line_dir)?)?;
    let updated = ask(version(&updated)?)?;
    Ok(Outcome {
        seed,
        first,
        updated,
        forgetful: ask(version(&forgetful)?)?,
        both: ask(model(&both)?)?,
        batches,
        same_after_rollback: back == first && promoted == updated,
        seconds,
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "update";
    const ASKS: &'static str = "Does a model in service learn what is new, and keep what it knew?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, i: usize| Effect {
            what: format!("bits a byte of documents of the {what} era"),
            unit: Unit::Plain,
            before: ("first model".into(), self.first[i]),
            after: ("updated".into(), self.updated[i]),
            control: ("without replay".into(), self.forgetful[i]),
        };
        vec![effect("second", 1), effect("first", 0)]
    }
}
