//! Does a model learn from rewards alone to say what is true and to be polite about it? A GPT that knows the village, and is rude in most
//! answers, is told of each answer whether it is right *and* polite, nothing else.
//!
//! - **Asked** are questions about held-out entities, in the ways that were rewarded (*people*) and in held-out ways (*other words*); answers are
//!   sampled at temperature 1. The figure is the share of answers that are both.
//! - **Start range**: 10 to 30 % of answers.
//! - **Beside it**, for as many answers of the model at the start as GRPO writes: fine-tuning on those that were worth something (rejection
//!   sampling), and for as many as a group has, for each question, the best of them.
//! - **Control**: rewards by chance, same settings; what it gains is not of rewards.

use super::asked::{Questions, prompt};
use super::effect::{Effect, Effects, Unit};
use super::manners::{self, Asked, TOKENS, Teller, on, on_answers, polite, right, sampled};
use super::{Seed, write_lines};
use crate::data::world::{Lesson, World};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use crate::train::tune::{REINFORCE, TUNE};
use serde::Serialize;
use serde_json::{Value, json};

/// What is learnt from, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model at the start.
    pub start: manners::Settings,
    /// Steps, each on new answers.
    pub steps: u64,
    /// Answers of a step.
    pub answers: usize,
    /// Answers to a question.
    pub group: usize,
    /// The learning rate.
    pub lr: f64,
    /// What a nat of KL costs: of GRPO, of PPO.
    pub kl: [f64; 2],
    /// The learning rates of imitating answers that were worth something: the best of them counts.
    pub kept_lrs: Vec<f64>,
    /// Other settings of GRPO and PPO, `key=value`.
    pub set: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            start: manners::Settings { name: "ruder", rude: 0.75, base_steps: 4000, ..manners::Settings::default() },
            steps: 200,
            answers: 64,
            group: 8,
            lr: 1e-4,
            kl: [0.1, 0.05],
            kept_lrs: vec![1e-4, 1e-3],
            set: Vec::new(),
        }
    }
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Questions about held-out entities, and those in held-out ways.
    pub questions: [usize; 2],
    /// Answers that each learnt from.
    pub answers: u64,
    /// The share of questions about held-out entities of which one of as many answers as a group has is right and polite, before.
    pub best_of: (usize, f64),
    /// Before; GRPO; PPO; fine-tuning on the answers that were worth something; GRPO by chance.
    pub models: [Asked; 5],
}

/// What each question has to be answered with, for rewards.
fn question(lesson: &Lesson) -> Value {
    json!({"prompt": prompt(lesson), "answer": lesson.answer})
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let world = World::new(at.seed);
    let questions = Questions::new(&world);
    let mut teller = Teller { world: &world, rng: Rng::new(at.seed, Purpose::Resample, 40, 0) };
    let start = manners::start(&settings.start, at, &mut teller, &questions)?;
    let (asked, kept) = (at.dir.join("questions.jsonl"), at.dir.join("kept.jsonl"));
    write_lines(&asked, questions.tuned.iter().map(question))?;
    let before = Asked::of("before", &start, &questions, at)?;
    let best = sampled(&start.run, &questions.people, settings.group, at.seed + 2, at.device)?;
    let people = questions.people.len();
    let good = |lesson: &Lesson, said: &str| right(lesson, said) && polite(said);
    let best = (0..people).filter(|&i| (i..best.len()).step_by(people).any(|k| good(&questions.people[i], &best[k])));
    let best_of = (settings.group, best.count() as f64 / people.max(1) as f64);

    let of = |method: &str, kl: f64, reward: &str| {
        let more = [
            format!("model.reinforce.method={method}"),
            format!("model.reinforce.rewards={{ {reward} = 1.0 }}"),
            format!("model.reinforce.group={}", settings.group),
            format!("model.reinforce.kl={kl}"),
            format!("model.reinforce.tokens={TOKENS}"),
            format!("optim.lr={}", settings.lr),
            format!("train.steps={}", settings.steps),
            format!("train.batch={}", settings.answers),
            "train.accumulate=1".into(),
            "eval.max_batches=1".into(),
        ];
        on(&start.run, &asked, &[&more[..], &settings.set].concat())
    };
    let [kl, ppo_kl] = settings.kl;
    at.says("learning from rewards, GRPO");
    let grpo = at.run("grpo", REINFORCE, &of("grpo", kl, "verified"))?;
    let grpo = Asked::of("GRPO", &grpo, &questions, at)?;
    at.says("learning from rewards, PPO");
    let ppo = at.run("ppo", REINFORCE, &of("ppo", ppo_kl, "verified"))?;
    let ppo = Asked::of("PPO", &ppo, &questions, at)?;
    at.says("learning from rewards by chance");
    let random = at.run("grpo-random", REINFORCE, &of("grpo", kl, "random"))?;
    let random = Asked::of("rewards by chance", &random, &questions, at)?;

    // As many answers as GRPO wrote, all of the model at the start, to questions by chance.
    let answers = settings.steps * settings.answers as u64;
    let lessons: Vec<Lesson> = (0..answers).map(|_| teller.one_of(&questions.tuned).clone()).collect();
    at.says("imitating answers that were worth something");
    let said = sampled(&start.run, &lessons, 1, at.seed + 3, at.device)?;
    let worth = lessons.iter().zip(&said).filter(|(lesson, said)| good(lesson, said));
    write_lines(&kept, worth.map(|(lesson, said)| json!({"prompt": prompt(lesson), "completion": said})))?;
    let mut imitated: Option<Asked> = None;
    for lr in &settings.kept_lrs {
        let more = [format!("optim.lr={lr}"), "data.epochs=2".into(), "data.packing=false".into()];
        let run = at.run(&format!("kept-{lr}"), TUNE, &on_answers(&start.run, &kept, &more))?;
        let asked = Asked::of("kept answers", &run, &questions, at)?;
        imitated = imitated.filter(|best| best.people.both >= asked.people.both).or(Some(asked));
    }
    Ok(Outcome {
        seed: at.seed,
        questions: [people, questions.other_words.len()],
        answers,
        best_of,
        models: [before, grpo, ppo, imitated.expect("a learning rate"), random],
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "reinforce";
    const ASKS: &'static str = "Does a model learn from rewards alone to be right and polite?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, after: usize, of: fn(&Asked) -> f64| {
            let side = |i: usize| (self.models[i].name.to_owned(), of(&self.models[i]));
            Effect { what: what.into(), unit: Unit::Share, before: side(0), after: side(after), control: side(4) }
        };
        vec![
            effect("answers about entities that no reward was about, right and polite", 1, |asked| asked.people.both),
            effect("the same, by PPO", 2, |asked| asked.people.both),
            effect("asked in words that no reward was about", 1, |asked| asked.other_words.both),
            effect("true answers", 1, |asked| asked.people.truth),
        ]
    }
}
