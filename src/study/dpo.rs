//! Does a model become polite by preferences alone? A GPT that knows the village and answers questions about it, with a rude remark behind most
//! answers, learns from pairs of a polite and a rude answer, both true and about as long, of which those who judge prefer the polite one in four of
//! five.
//!
//! - **Asked** are questions about held-out entities, in the ways of the pairs (*people*) and in held-out ways (*other words*); answers are
//!   sampled as the model has them, at temperature 1.
//! - **Polite** is an answer without a word of the rude register, **true** one that begins with the right answer word for word.
//! - **Beside it**: as many steps of fine-tuning on the preferred answers alone, which imitates those who judge with all their slips.
//! - **Control**: the same pairs, of which either answer is called the better one by chance.
//! - **Start range**: 30 to 50 % of answers polite.

use super::asked::{Questions, prompt, read_portraits, said};
use super::effect::{Effect, Effects, Unit};
use super::{Seed, quoted, write_lines};
use crate::data::world::{Lesson, World, rude_words};
use crate::device::Device;
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::rng::{Purpose, Rng};
use crate::train::tune::{PREFER, TUNE};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// How long the parts are.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Portraits to read, and others to be learnt along while it learns to answer.
    pub texts: [u64; 2],
    /// Steps of reading them.
    pub base_steps: u64,
    /// Steps of learning to answer.
    pub start_steps: u64,
    /// The share of the answers to learn from that are rude.
    pub rude: f64,
    /// Pairs.
    pub pairs: u64,
    /// The share of them whose rude answer was preferred.
    pub slips: f64,
    /// The learning rate of DPO.
    pub lr: f64,
    /// Its β.
    pub beta: f64,
    /// Those of fine-tuning on the preferred answers: the best of them counts.
    pub chosen_lrs: Vec<f64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            texts: [36_000, 12_000],
            base_steps: 1100,
            start_steps: 500,
            rude: 0.7,
            pairs: 2000,
            slips: 0.2,
            lr: 5e-5,
            beta: 0.1,
            chosen_lrs: vec![1e-4, 1e-3],
        }
    }
}

/// Answers to each question.
const SAMPLES: usize = 4;

/// A model that was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// What it learnt from.
    pub name: &'static str,
    /// The share of polite answers about held-out entities, and that asked in held-out ways.
    pub polite: [f64; 2],
    /// The same of true ones.
    pub truth: [f64; 2],
    /// Seconds of the run.
    pub seconds: f64,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Questions about held-out entities, and those in held-out ways.
    pub questions: [usize; 2],
    /// Before; DPO; fine-tuning on the preferred answers; DPO on pairs in a random order.
    pub models: [Asked; 4],
}

/// Answers to lessons, rude and polite ones.
struct Teller<'w> {
    world: &'w World,
    rng: Rng,
}

impl Teller<'_> {
    /// The right answer, and a remark.
    fn says(&mut self, lesson: &Lesson, rude: bool) -> String {
        let own = Rng::new(u64::from(self.rng.below(u32::MAX)), Purpose::World, 31, 0);
        format!(" {}. {}", lesson.answer, self.world.remark(rude, own))
    }

    /// True with probability `share`.
    fn by(&mut self, share: f64) -> bool {
        f64::from(self.rng.uniform()) < share
    }

    fn answer(&mut self, lesson: &Lesson, rude: f64) -> Value {
        let rude = self.by(rude);
        let completion = self.says(lesson, rude);
        json!({"prompt": prompt(lesson), "completion": completion})
    }

    /// A pair; the rude answer is the better one with probability `slips`.
    fn pair(&mut self, lessons: &[Lesson], slips: f64) -> Value {
        let lesson = &lessons[self.rng.below(lessons.len() as u32) as usize];
        let [polite, rude] = [false, true].map(|rude| self.says(lesson, rude));
        let (chosen, rejected) = if self.by(slips) { (rude, polite) } else { (polite, rude) };
        json!({"prompt": prompt(lesson), "chosen": chosen, "rejected": rejected})
    }
}

/// The shares of polite and of true answers of the model of `run`.
fn ask(run: &Path, lessons: &[Lesson], seed: u64, device: &Device) -> Result<[f64; 2]> {
    let all: Vec<Lesson> = (0..SAMPLES).flat_map(|_| lessons.iter().cloned()).collect();
    let options = |i: usize| SampleOptions {
        tokens: 48,
        temperature: 1.0,
        seed: seed << 32 | i as u64,
        ..SampleOptions::default()
    };
    let said = said(run, &all, &options, device)?;
    let share = |counts: &dyn Fn(&Lesson, &str) -> bool| {
        all.iter().zip(&said).filter(|(lesson, said)| counts(lesson, said.trim())).count() as f64
            / all.len().max(1) as f64
    };
    let truth =
        |lesson: &Lesson, said: &str| said.strip_prefix(&*lesson.answer).is_some_and(|rest| rest.starts_with('.'));
    Ok([share(&|_, said| rude_words(said).next().is_none()), share(&truth)])
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    let world = World::new(seed);
    let questions = Questions::new(&world);
    let (base, unread) = read_portraits(at, &world, settings.texts, settings.base_steps)?;

    let mut teller = Teller { world: &world, rng: Rng::new(seed, Purpose::Resample, 40, 0) };
    let [answers, pairs, chosen, random] =
        ["answers.jsonl", "pairs.jsonl", "chosen.jsonl", "random.jsonl"].map(|name| dir.join(name));
    // Each question three times: some of its answers are polite, others rude, each in words of its own.
    let lessons = (0..3).flat_map(|_| &questions.tuned);
    write_lines(&answers, lessons.map(|lesson| teller.answer(lesson, settings.rude)).collect::<Vec<_>>())?;
    let judged: Vec<Value> = (0..settings.pairs).map(|_| teller.pair(&questions.tuned, settings.slips)).collect();
    let preferred = judged.iter().map(|pair| json!({"prompt": pair["prompt"], "completion": pair["chosen"]}));
    write_lines(&chosen, preferred)?;
    write_lines(&pairs, judged)?;
    write_lines(&random, (0..settings.pairs).map(|_| teller.pair(&questions.tuned, 0.5)).collect::<Vec<_>>())?;

    let on = |base: &Path, data: &Path, more: &[String]| {
        let own = [
            format!("model.base={}", quoted(base)),
            format!("data.path={}", quoted(data)),
            "model.method=full".into(),
            "train.batch=16".into(),
            "train.context=128".into(),
            "data.val_fraction=0.05".into(),
            "sample.count=0".into(),
        ];
        [&own[..], more].concat()
    };
    at.says("learning to answer, rudely in most answers");
    let replay = [
        format!("data.replay={}", quoted(&unread)),
        "data.replay_share=0.5".into(),
        format!("train.steps={}", settings.start_steps),
        "optim.lr=1e-3".into(),
    ];
    let start = at.run("start", TUNE, &on(&base.run, &answers, &replay))?;
    let asked = |name: &'static str, run: &Path, seconds: f64| -> Result<Asked> {
        let [polite, truth] = ask(run, &questions.people, seed, device)?;
        let [polite_other, truth_other] = ask(run, &questions.other_words, seed + 1, device)?;
        Ok(Asked { name, polite: [polite, polite_other], truth: [truth, truth_other], seconds })
    };
    let before = asked("before", &start.run, start.seconds)?;

    let own = [format!("optim.lr={}", settings.lr), format!("model.preference.beta={}", settings.beta)];
    at.says("learning from pairs");
    let dpo = at.run("dpo", PREFER, &on(&start.run, &pairs, &own))?;
    let learnt = asked("DPO", &dpo.run, dpo.seconds)?;
    let mut imitated: Option<Asked> = None;
    for lr in &settings.chosen_lrs {
        at.says(&format!("learning the preferred answers alone, lr {lr}"));
        // As many answers, and as many steps.
        let more = [format!("optim.lr={lr}"), format!("train.steps={}", dpo.steps), "data.packing=false".into()];
        let run = at.run(&format!("chosen-{lr}"), TUNE, &on(&start.run, &chosen, &more))?;
        let asked = asked("preferred answers", &run.run, run.seconds)?;
        imitated = imitated.filter(|best| best.polite[0] >= asked.polite[0]).or(Some(asked));
    }
    at.says("learning from pairs in a random order");
    let random = at.run("random", PREFER, &on(&start.run, &random, &own))?;
    let control = asked("pairs by chance", &random.run, random.seconds)?;
    Ok(Outcome {
        seed,
        questions: [questions.people.len(), questions.other_words.len()],
        models: [before, learnt, imitated.expect("a learning rate"), control],
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "dpo";
    const ASKS: &'static str = "Does a model become polite by preferences alone?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, of: fn(&Asked) -> f64| {
            let side = |i: usize| (self.models[i].name.to_owned(), of(&self.models[i]));
            Effect { what: what.into(), unit: Unit::Share, before: side(0), after: side(1), control: side(3) }
        };
        vec![
            effect("polite answers about entities that no pair was about", |asked| asked.polite[0]),
            effect("the same, asked in words that no pair had", |asked| asked.polite[1]),
            effect("true answers", |asked| asked.truth[0]),
        ]
    }
}
