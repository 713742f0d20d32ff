//! Models that learn from people, and act.

use super::train::base;
use super::{Measure, Pace, Shown, Stage, Way, data};
use crate::agent::{Agent, Environment, Episode, Hold, Limits, Oracle, Random, Split, Village};
use crate::data::atomic::write_atomic;
use crate::data::world::{Lesson, World};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use crate::study::asked::{Questions, prompt};
use crate::study::effect::Unit;
use crate::study::manners::{TOKENS, Teller, on, on_answers, polite, right, sampled};
use crate::study::{Seed, quoted, write_lines};
use crate::train::tune::{PREFER, REINFORCE, TUNE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The share of answers to learn from that are rude.
const RUDE: f64 = 0.62;

/// Runs `f` with somebody who gives answers; of each stage others.
fn teller<R>(at: &Seed, stage: u32, f: impl FnOnce(&mut Teller, &Questions) -> R) -> R {
    let world = World::new(at.seed);
    let questions = Questions::new(&world);
    f(&mut Teller { world: &world, rng: Rng::new(at.seed, Purpose::Resample, 80 + stage, 0) }, &questions)
}

/// What a run answers to questions about held-out people.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Manners {
    /// The share of answers that are right.
    right: f64,
    /// The share of those without a rude word.
    polite: f64,
}

/// How many are asked.
const ASKED: usize = 160;

/// Asks a run, once: a file beside the runs keeps it.
fn manners(run: &Path, at: &Seed) -> Result<Manners> {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    let kept = at.dir.join(format!("manners-{name}.json"));
    if let Some(known) = disk::read(&Os, &kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(known);
    }
    let mut people = Questions::new(&World::new(at.seed)).people;
    people.truncate(ASKED);
    let said = sampled(run, &people, 1, at.seed, at.device)?;
    let share = |counts: &dyn Fn(&Lesson, &str) -> bool| {
        people.iter().zip(&said).filter(|(lesson, said)| counts(lesson, said)).count() as f64 / said.len().max(1) as f64
    };
    let found = Manners { right: share(&right), polite: share(&|_, said| polite(said)) };
    write_atomic(&Os, &kept, &serde_json::to_vec(&found).expect("plain data"))?;
    Ok(found)
}

/// A question and an answer of the model.
fn shows(run: &Path, at: &Seed) -> Result<String> {
    let questions = Questions::new(&World::new(at.seed));
    let one = &questions.people[..1];
    let said = sampled(run, one, 1, at.seed + 7, at.device)?;
    Ok(format!("{}{}", prompt(&one[0]), said[0]))
}

/// The run that answers questions.
fn answers(at: &Seed) -> PathBuf {
    at.dir.join("answers")
}

pub(super) const TUNING: Stage = Stage {
    name: "tune",
    does: "Shows the GPT questions with their answers, and trains it on the answers alone. It knew the village before; what it learns is that a question \
           is followed by an answer (and, from these teachers, a rude remark in six of ten).",
    source: "src/train/tune/mod.rs",
    chapter: "docs/tuning.md",
    needs: &["pretrain"],
    makes: &["answers", "manners-answers.json"],
    budget: [15, 45],
    run: tune,
};

fn tune(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let path = at.dir.join("answers.jsonl");
    let lines: Vec<Value> = teller(at, 0, |teller, questions| {
        let lessons = (0..3).flat_map(|_| &questions.tuned);
        let line = |lesson: &Lesson| {
            let rude = teller.by(RUDE);
            json!({"prompt": prompt(lesson), "completion": teller.says(lesson, rude)})
        };
        lessons.map(line).collect()
    });
    write_lines(&path, lines)?;
    let set = [
        format!("data.replay={}", quoted(&data::portraits(at))),
        "data.replay_share=0.25".into(),
        format!("train.steps={}", pace.of(150, 400)),
        "optim.lr=1e-3".into(),
    ];
    let before = manners(&base(at), at)?;
    let run = at.run("answers", TUNE, &on_answers(&base(at), &path, &set))?.run;
    let after = manners(&run, at)?;
    Ok(Shown {
        measures: vec![Measure::new(
            "right answers to questions about people that no example was about",
            Unit::Share,
            Way::Up,
            ("GPT", before.right),
            ("fine-tuned", after.right),
        )],
        notes: vec![format!("{:.0} % of its answers are polite", 100.0 * after.polite)],
        sample: Some(shows(&run, at)?),
        next: vec![format!("kiln chat {}", run.display()), "kiln study tune".into()],
        ..Shown::default()
    })
}

pub(super) const REWARD: Stage = Stage {
    name: "reward",
    does: "Takes pairs of answers of which people preferred one, and trains a model that gives the preferred one the higher number (Bradley and Terry). \
           It stands for the people where there are too many answers to ask them about.",
    source: "src/train/prefer/loss.rs",
    chapter: "docs/align.md",
    needs: &["tune"],
    makes: &["judge"],
    budget: [6, 15],
    run: reward,
};

/// Pairs of answers: the polite one is preferred.
fn pairs(at: &Seed) -> Result<PathBuf> {
    let path = at.dir.join("pairs.jsonl");
    let lines: Vec<Value> = teller(at, 1, |teller, questions| {
        let pair = |_| {
            let lesson = teller.one_of(&questions.tuned);
            let [polite, rude] = [false, true].map(|rude| teller.says(lesson, rude));
            json!({"prompt": prompt(lesson), "chosen": polite, "rejected": rude})
        };
        (0..800).map(pair).collect()
    });
    write_lines(&path, lines)?;
    Ok(path)
}

fn reward(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let path = pairs(at)?;
    let set = [
        "model.preference.loss=reward".to_owned(),
        "model.preference.centering=0.01".into(),
        "optim.lr=2e-4".into(),
        "data.val_fraction=0.1".into(),
        format!("train.steps={}", pace.of(25, 60)),
    ];
    let run = at.run("judge", PREFER, &on_answers(&answers(at), &path, &set))?.run;
    let accuracy = last(&run, "val_accuracy")?;
    Ok(Shown {
        measures: vec![Measure::new(
            "held-out pairs in which the preferred answer gets more",
            Unit::Share,
            Way::Up,
            ("by chance", 0.5),
            ("reward model", accuracy),
        )],
        next: vec![format!(
            "kiln align best {} --judge {} --data {}",
            answers(at).display(),
            run.display(),
            at.dir.join("answers.jsonl").display()
        )],
        ..Shown::default()
    })
}

/// The last value of a number in a run's metrics.
fn last(run: &Path, number: &str) -> Result<f64> {
    let records = crate::train::metrics::read(&crate::disk::Os, &run.join("metrics.jsonl"))?;
    Ok(records.iter().rev().find_map(|record| record.number(number)).unwrap_or(f64::NAN))
}

pub(super) const DPO: Stage = Stage {
    name: "dpo",
    does: "Learns from the same pairs without a reward model: preferred answers become likelier than rejected ones, measured against the model it \
           started from. Which of two answers people like better is easier to get than what they would have written.",
    source: "src/train/prefer/loss.rs",
    chapter: "docs/align.md",
    needs: &["tune"],
    makes: &["dpo", "manners-dpo.json"],
    budget: [9, 30],
    run: dpo,
};

fn dpo(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let path = pairs(at)?;
    let set = [
        "optim.lr=2e-4".to_owned(),
        "model.preference.beta=0.2".into(),
        "model.preference.sft=0.2".into(),
        format!("train.steps={}", pace.of(30, 90)),
    ];
    let before = manners(&answers(at), at)?;
    let run = at.run("dpo", PREFER, &on_answers(&answers(at), &path, &set))?.run;
    let after = manners(&run, at)?;
    Ok(Shown {
        measures: vec![Measure::new(
            "polite answers about people that no pair was about",
            Unit::Share,
            Way::Up,
            ("fine-tuned", before.polite),
            ("DPO", after.polite),
        )],
        notes: vec![format!(
            "right answers {:.0} to {:.0} %: manners, not knowledge",
            100.0 * before.right,
            100.0 * after.right
        )],
        sample: Some(shows(&run, at)?),
        next: vec!["kiln study dpo".into(), format!("kiln chat {}", run.display())],
        ..Shown::default()
    })
}

pub(super) const GRPO: Stage = Stage {
    name: "grpo",
    does: "Lets the model answer each question eight times, checks the answers against the village's truth, and makes those likelier that were worth more \
           than their neighbours. Nobody shows it a good answer: it finds them.",
    source: "src/train/rl/advantage.rs",
    chapter: "docs/reinforce.md",
    needs: &["tune"],
    makes: &["grpo", "manners-grpo.json"],
    budget: [14, 60],
    run: grpo,
};

fn grpo(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let path = at.dir.join("questions.jsonl");
    let questions = Questions::new(&World::new(at.seed));
    write_lines(
        &path,
        questions.tuned.iter().map(|lesson| json!({"prompt": prompt(lesson), "answer": lesson.answer})),
    )?;
    let set = [
        "model.reinforce.rewards={ begins = 0.5, polite = 0.5 }".to_owned(),
        "model.reinforce.kl=0.1".into(),
        format!("model.reinforce.tokens={TOKENS}"),
        "optim.lr=1e-4".into(),
        format!("train.steps={}", pace.of(25, 100)),
        "train.batch=64".into(),
        "train.accumulate=1".into(),
        "eval.max_batches=1".into(),
    ];
    let worth = |manners: Manners| (manners.right + manners.polite) / 2.0;
    let before = manners(&answers(at), at)?;
    let run = at.run("grpo", REINFORCE, &on(&answers(at), &path, &set))?.run;
    let after = manners(&run, at)?;
    Ok(Shown {
        measures: vec![Measure::new(
            "the mean reward, half for what is right and half for what is polite, about people that no reward was about",
            Unit::Plain,
            Way::Up,
            ("fine-tuned", worth(before)),
            ("GRPO", worth(after)),
        )],
        notes: vec![format!(
            "right answers {:.0} to {:.0} %, polite ones {:.0} to {:.0} %",
            100.0 * before.right,
            100.0 * after.right,
            100.0 * before.polite,
            100.0 * after.polite
        )],
        sample: Some(shows(&run, at)?),
        next: vec!["kiln study reinforce".into(), "kiln study sums".into()],
        ..Shown::default()
    })
}

pub(super) const AGENT: Stage = Stage {
    name: "agent",
    does: "Sets errands in the village that take several calls of tools, with constraints: a place not to enter, coins not to spend, owners to ask first. \
           What an agent may not do is checked outside of it, where no model has a say.",
    source: "src/agent/episode.rs",
    chapter: "docs/agents.md",
    needs: &[],
    makes: &[],
    budget: [1, 2],
    run: agent,
};

fn agent(at: &mut Seed, _: Pace) -> Result<Shown> {
    let village = Village::new(at.seed);
    let play = |agent: &mut dyn Agent, hold: Hold| -> (f64, f64) {
        let n = 200;
        let traces = (0..n).map(|task| {
            let limits = Limits::default();
            let mut episode = Episode::begin(village.fresh(), task, Split::Test, "tour", hold, limits);
            while !episode.over() {
                let said = agent.act(&episode);
                episode.act(&said);
            }
            episode.end().0
        });
        let (done, broken) = traces.fold((0, 0), |(done, broken), trace| {
            (done + u64::from(trace.success), broken + u64::from(trace.breaches > 0))
        });
        (done as f64 / n as f64, broken as f64 / n as f64)
    };
    let [free, masked] = [Hold::Log, Hold::Mask].map(|hold| play(&mut Random::new(at.seed), hold));
    let planner = play(&mut Oracle, Hold::Log);
    Ok(Shown {
        measures: vec![
            Measure::new(
                "errands in which a constraint was broken",
                Unit::Share,
                Way::Down,
                ("by chance", free.1),
                ("by chance, masked", masked.1),
            ),
            Measure::new("errands that were done", Unit::Share, Way::Up, ("by chance", free.0), ("planner", planner.0)),
        ],
        next: vec![
            "kiln agent run --agent oracle --save traces.jsonl; kiln agent replay traces.jsonl".into(),
            "kiln study agents".into(),
        ],
        ..Shown::default()
    })
}
