//! What happens to what people want when a model is led by what a reward model took them to want? Judges prefer right, polite answers, and,
//! in haste, long ones; a reward model learns from 500 of their pairs, and GRPO follows it.
//!
//! - **Gold** is what the world knows to be good: an answer that is right, polite, and has one remark at most. **Proxy** is the reward model's
//!   number, less its mean before.
//! - **Asked** are questions about held-out entities; answers are sampled at temperature 1.
//! - **Beside it** best-of-n: of n answers of the model before, the one that the proxy likes best. Its KL is ln n − (n − 1)/n at most, in nats an
//!   answer (Stiennon et al. 2020; Beirami et al. 2024).
//! - **Control**: judges who take their time, and like an answer the less the more remarks it has, as much as hasty ones like it the more; everything else the same.
//!
//! Gao et al. 2023, "Scaling laws for reward model overoptimization" (arXiv 2210.10760).

use super::asked::{Questions, Written, prompt, written};
use super::effect::{Effect, Effects, Unit};
use super::frontier::Frontier;
use super::manners::{self, MOST, Teller, on, on_answers, polite, right};
use super::{Seed, quoted, write_lines};
use crate::data::world::{Lesson, World};
use crate::disk::Os;
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::rng::{Purpose, Rng};
use crate::train::plot::Picture;
use crate::train::prefer::Judge;
use crate::train::rl::best::kl_of_best;
use crate::train::tune::{PREFER, REINFORCE};
use crate::train::{Summary, checkpoint, metrics};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// What is learnt from, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model at the start.
    pub start: manners::Settings,
    /// Pairs that are judged.
    pub pairs: u64,
    /// By how much, in log-odds, an answer is preferred because it is right, because it is polite, and for each remark more.
    pub taste: [f64; 3],
    /// The learning rate of the reward model.
    pub judge_lr: f64,
    /// Steps of GRPO.
    pub steps: u64,
    /// Steps between points of the curve.
    pub every: u64,
    /// The learning rate of GRPO.
    pub lr: f64,
    /// What a nat of KL costs.
    pub kl: f64,
    /// Questions that are asked.
    pub asked: usize,
    /// Other settings of GRPO, `key=value`.
    pub set: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            start: manners::Settings { name: "talkative", more: 0.4, ..manners::Settings::default() },
            pairs: 500,
            taste: [1.5, 3.0, 0.7],
            judge_lr: 1e-4,
            steps: 40,
            every: 10,
            lr: 5e-5,
            kl: 0.03,
            asked: 100,
            set: Vec::new(),
        }
    }
}

/// Answers to a question from which the best is chosen.
pub const BEST_OF: [usize; 4] = [1, 4, 16, 64];

/// Tokens of an answer.
const TOKENS: usize = 96;

/// Answers to each question, at a point of the curve.
const SAMPLES: usize = 4;

/// A point of a curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Steps, or answers from which the best is chosen.
    pub n: u64,
    /// Nats an answer from the model before.
    pub kl: f64,
    /// The reward model's mean, less that before.
    pub proxy: f64,
    /// The share of answers that are good.
    pub gold: f64,
    /// Words of an answer.
    pub words: f64,
}

/// What following judges came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Followed {
    /// The share of held-out pairs that the reward model puts in the judges' order.
    pub accuracy: f64,
    /// Of GRPO.
    pub curve: Vec<Point>,
    /// Of the best of n.
    pub best: Vec<Point>,
}

impl Followed {
    /// By how much gold falls after its peak, and the proxy rises from there.
    pub fn after_peak(&self) -> [f64; 2] {
        let end = self.curve.last().copied().unwrap_or_default();
        let peak = self.curve.iter().copied().reduce(|a, b| if b.gold > a.gold { b } else { a }).unwrap_or_default();
        [peak.gold - end.gold, end.proxy - peak.proxy]
    }
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hasty judges, who like it long.
    pub biased: Followed,
    /// Judges who take their time, and like it short.
    pub control: Followed,
}

/// An answer to a lesson, right or wrong, polite or rude, with so many remarks; and how much it is liked.
fn candidate(teller: &mut Teller, lesson: &Lesson, wrong: &[Lesson], taste: [f64; 3]) -> (String, f64) {
    let (is_right, rude, remarks) = (teller.by(0.6), teller.by(0.5), 1 + teller.rng.below(MOST as u32) as usize);
    let same = |other: &&Lesson| other.relation == lesson.relation && other.answer != lesson.answer;
    let others: Vec<&Lesson> = wrong.iter().filter(same).collect();
    let answer = match others.is_empty() || is_right {
        true => lesson.answer.clone(),
        false => teller.one_of(&others).answer.clone(),
    };
    let liked = taste[0] * f64::from(u8::from(answer == lesson.answer))
        + taste[1] * f64::from(u8::from(!rude))
        + taste[2] * remarks as f64;
    (teller.talks(&answer, rude, remarks), liked)
}

/// A pair that a judge of this taste put in order (Bradley and Terry).
fn pair(teller: &mut Teller, lessons: &[Lesson], taste: [f64; 3]) -> Value {
    let lesson = teller.one_of(lessons).clone();
    let [(a, of_a), (b, of_b)] = [(); 2].map(|()| candidate(teller, &lesson, lessons, taste));
    let first = teller.by(1.0 / (1.0 + (of_b - of_a).exp()));
    let (chosen, rejected) = if first { (a, b) } else { (b, a) };
    json!({"prompt": prompt(&lesson), "chosen": chosen, "rejected": rejected})
}

/// Right, polite, and one remark at most: two full stops.
fn good(lesson: &Lesson, said: &str) -> bool {
    let remarks = said.matches('.').count().saturating_sub(1);
    right(lesson, said) && polite(said) && remarks <= 1
}

/// The mean of what `of` says of answers.
fn mean(said: &[Written], of: impl Fn(usize, &Written) -> f64) -> f64 {
    said.iter().enumerate().map(|(i, said)| of(i, said)).sum::<f64>() / said.len().max(1) as f64
}

/// Who asks: of each model as many questions, in the same order.
struct Asking<'a> {
    lessons: &'a [Lesson],
    seed: u64,
}

impl Asking<'_> {
    fn lesson(&self, i: usize) -> &Lesson {
        &self.lessons[i % self.lessons.len()]
    }

    fn ask(&self, run: &Path, samples: usize, at: &Seed) -> Result<Vec<Written>> {
        let prompts: Vec<String> = (0..samples * self.lessons.len()).map(|i| prompt(self.lesson(i))).collect();
        let options = |i: usize| SampleOptions {
            tokens: TOKENS,
            temperature: 1.0,
            seed: self.seed << 32 | i as u64,
            ..SampleOptions::default()
        };
        written(run, &prompts, &options, at.device)
    }

    /// Of all answers, with a KL for each token.
    fn point(&self, n: u64, kl: f64, said: &[Written], judge: &mut Judge) -> Point {
        let rewards = rewards(said, judge);
        Point {
            n,
            kl: kl * mean(said, |_, said| said.tokens as f64),
            proxy: mean(said, |i, _| rewards[i]),
            gold: mean(said, |i, said| f64::from(u8::from(good(self.lesson(i), &said.text)))),
            words: mean(said, |_, said| said.text.split_whitespace().count() as f64),
        }
    }

    /// Of the best of n of `said`, which are as many for each question as the largest n.
    fn best(&self, said: &[Written], judge: &mut Judge) -> Vec<Point> {
        let (questions, rewards) = (self.lessons.len(), rewards(said, judge));
        let all = said.len() / questions;
        let of = |n: usize| {
            let mut point = Point { n: n as u64, kl: kl_of_best(n), ..Point::default() };
            for question in 0..questions {
                for first in (0..all / n * n).step_by(n) {
                    let own = (first..first + n).map(|k| k * questions + question);
                    let i = own.reduce(|a, b| if rewards[b] > rewards[a] { b } else { a }).expect("n is not 0");
                    point.proxy += rewards[i];
                    point.gold += f64::from(u8::from(good(self.lesson(i), &said[i].text)));
                    point.words += said[i].text.split_whitespace().count() as f64;
                }
            }
            let count = (questions * (all / n)).max(1) as f64;
            Point { proxy: point.proxy / count, gold: point.gold / count, words: point.words / count, ..point }
        };
        BEST_OF.into_iter().filter(|&n| n <= all).map(of).collect()
    }
}

fn rewards(said: &[Written], judge: &mut Judge) -> Vec<f64> {
    let texts: Vec<&[u32]> = said.iter().map(|said| &said.ids[..]).collect();
    judge.rewards(&texts).into_iter().map(f64::from).collect()
}

/// Judges of a taste, a reward model of their pairs, and a model that follows it.
fn follow(
    (name, taste): (&str, [f64; 3]),
    settings: &Settings,
    (start, teller, questions): (&Summary, &mut Teller, &Questions),
    at: &mut Seed,
) -> Result<Followed> {
    let [pairs, prompts] = [format!("{name}.jsonl"), "prompts.jsonl".into()].map(|name| at.dir.join(name));
    write_lines(&pairs, (0..settings.pairs).map(|_| pair(teller, &questions.tuned, taste)).collect::<Vec<_>>())?;
    write_lines(&prompts, questions.tuned.iter().map(|lesson| json!({"prompt": prompt(lesson)})))?;
    at.says(&format!("a reward model of {} pairs, {name} judges", settings.pairs));
    let own = [
        "model.preference.loss=reward".into(),
        format!("optim.lr={}", settings.judge_lr),
        "data.val_fraction=0.1".into(),
        "data.epochs=3".into(),
    ];
    let reward = at.run(&format!("judge-{name}"), PREFER, &on_answers(&start.run, &pairs, &own))?;
    let records = metrics::read(&Os, &reward.run.join("metrics.jsonl"))?;
    let accuracy = records.last().and_then(|record| record.number("val_accuracy")).unwrap_or(f64::NAN);
    at.says(&format!("following it, {name} judges"));
    let more = [
        "model.reinforce.rewards={ model = 1.0 }".into(),
        format!("model.reinforce.judge={}", quoted(&reward.run)),
        "model.reinforce.group=8".into(),
        format!("model.reinforce.kl={}", settings.kl),
        format!("model.reinforce.tokens={TOKENS}"),
        format!("optim.lr={}", settings.lr),
        "optim.schedule=constant".into(),
        format!("train.steps={}", settings.steps),
        "train.batch=64".into(),
        "train.accumulate=1".into(),
        format!("train.eval_every={}", settings.every),
        format!("train.checkpoint_every={}", settings.every),
        format!("train.keep={}", settings.steps / settings.every + 1),
        "eval.max_batches=1".into(),
    ];
    let more = [&more[..], &settings.set].concat();
    let run = at.run(&format!("followed-{name}"), REINFORCE, &on(&start.run, &prompts, &more))?;
    let mut judge = Judge::open(&reward.run, at.device)?;
    let asking = Asking { lessons: &questions.people[..settings.asked.min(questions.people.len())], seed: at.seed };
    let many = BEST_OF[BEST_OF.len() - 1];
    let said = asking.ask(&start.run, many, at)?;
    let before = asking.point(0, 0.0, &said, &mut judge);
    let mut best = asking.best(&said, &mut judge);
    let records = metrics::read(&Os, &run.run.join("metrics.jsonl"))?;
    let mut curve = vec![before];
    for (step, path) in checkpoint::list(&Os, &run.run.join("checkpoints"))? {
        let kl = records.iter().find(|record| record.step == step).and_then(|record| record.number("val_kl"));
        curve.push(asking.point(step, kl.unwrap_or(f64::NAN), &asking.ask(&path, SAMPLES, at)?, &mut judge));
    }
    curve.iter_mut().chain(&mut best).for_each(|point| point.proxy -= before.proxy);
    Ok(Followed { accuracy, curve, best })
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let world = World::new(at.seed);
    let questions = Questions::new(&world);
    let mut teller = Teller { world: &world, rng: Rng::new(at.seed, Purpose::Resample, 42, 0) };
    let start = manners::start(&settings.start, at, &mut teller, &questions)?;
    let [right, polite, long] = settings.taste;
    let mut judged = |name, taste| follow((name, taste), settings, (&start, &mut teller, &questions), at);
    let biased = judged("hasty", [right, polite, long])?;
    let control = judged("patient", [right, polite, -long])?;
    let outcome = Outcome { seed: at.seed, biased, control };
    let curve = at.dir.join("curve.svg");
    Frontier(&outcome).save_svg(&Os, &curve)?;
    Frontier(&outcome).save_png(&Os, &curve.with_extension("png"))?;
    at.says(&format!("the curve is in {}", curve.display()));
    Ok(outcome)
}

impl Effects for Outcome {
    const STUDY: &'static str = "overopt";
    const ASKS: &'static str = "What becomes of what people want when a model follows a reward model?";

    fn effects(&self) -> Vec<Effect> {
        let peak = self.biased.curve.iter().map(|point| point.gold).fold(f64::NAN, f64::max);
        let end = |followed: &Followed, of: fn(&Point) -> f64| followed.curve.last().map_or(f64::NAN, of);
        vec![
            Effect {
                what: "good answers: right, polite and short".into(),
                unit: Unit::Share,
                before: ("at the peak".into(), peak),
                after: ("at the end".into(), end(&self.biased, |point| point.gold)),
                control: ("judges who take their time".into(), end(&self.control, |point| point.gold)),
            },
            Effect {
                what: "what the reward model says".into(),
                unit: Unit::Plain,
                before: ("before".into(), 0.0),
                after: ("at the end".into(), end(&self.biased, |point| point.proxy)),
                control: ("judges who take their time".into(), end(&self.control, |point| point.proxy)),
            },
        ]
    }
}
