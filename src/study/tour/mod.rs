//! The whole life cycle in one command: from texts that kiln makes up to a model in service that has learnt something new, a stage at a time. Each stage
//! says what it does and why, does it, and measures what came of it; each is what the command of its name does.
//!
//! | file | stages |
//! |---|---|
//! | `data.rs` | world, clean, tokenizer, shards |
//! | `train.rs` | plan, pretrain, vae, gan, sweep, evaluate |
//! | `people.rs` | tune, reward, dpo, grpo, agent |
//! | `trust.rs` | bias, privacy, drift, update |
//! | `step.rs` | one step of training, every number of it |
//! | `report/page/tour.rs` | all of it on one page |
//!
//! A stage that was done is not done again; a run that was interrupted goes on.

mod data;
mod people;
pub mod step;
mod train;
mod trust;

use super::Seed;
use super::effect::Unit;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a stage leaves in the tour's folder.
fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("stages").join(format!("{name}.json"))
}

/// It takes a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

/// A figure before a stage and after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Which.
    pub what: String,
    /// How it is read.
    pub unit: Unit,
    /// What is compared with, and how much.
    pub before: (String, f64),
    /// What came of it.
    pub after: (String, f64),
    /// Which way is better.
    pub better: Way,
}

impl Measure {
    fn new(what: &str, unit: Unit, better: Way, before: (&str, f64), after: (&str, f64)) -> Measure {
        let named = |(name, value): (&str, f64)| (name.to_owned(), value);
        Measure { what: what.to_owned(), unit, before: named(before), after: named(after), better }
    }

    /// Whether it went that way.
    pub fn as_it_should(&self) -> bool {
        match self.better {
            Way::Up => self.after.1 > self.before.1,
            Way::Down => self.after.1 < self.before.1,
        }
    }
}

/// What a stage came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What it changed, the main figure first.
    pub measures: Vec<Measure>,
    /// What else there is to say, a line each.
    pub notes: Vec<String>,
    /// Pictures that it left, each with what it shows.
    pub pictures: Vec<(String, PathBuf)>,
    /// Something that a model wrote.
    pub sample: Option<String>,
    /// Commands that go further.
    pub next: Vec<String>,
    /// Seconds.
    pub seconds: f64,
}

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// About three minutes on two cores.
    Quick,
    /// About twelve.
    Full,
}

impl Pace {
    fn of<T>(self, quick: T, full: T) -> T {
        match self {
            Pace::Quick => quick,
            Pace::Full => full,
        }
    }
}

/// What a tour was begun with, and goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The seed of the village and of all that is random.
    pub seed: u64,
    /// How much of everything.
    pub pace: Pace,
}

impl Begun {
    /// That of the tour in `dir`, or `None` where there is none.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Begun>> {
        kept(&dir.join(BEGUN), "remove the folder, or name another one: --out DIR")
    }

    /// Begins a tour.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        disk::make_dirs(&Os, dir)?;
        keep(&dir.join(BEGUN), self)
    }
}

/// In a tour's folder: what it was begun with.
const BEGUN: &str = "tour.json";

fn keep(path: &Path, what: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(what).expect("plain data") + "\n";
    write_atomic(&Os, path, text.as_bytes())
}

fn kept<T: DeserializeOwned>(path: &Path, hint: &str) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = disk::text(&Os, path, MAX_FILE)?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| Error::format(path, format!("line {}", e.line()), "what a tour leaves", &e, hint))
}

/// A stage of the life cycle.
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What it does and why, in two sentences.
    pub does: &'static str,
    /// The file to read first.
    pub source: &'static str,
    /// The chapter.
    pub chapter: &'static str,
    /// Stages whose results it takes.
    pub needs: &'static [&'static str],
    /// What it leaves in the tour's folder.
    pub makes: &'static [&'static str],
    /// Seconds on two cores, quick and full: what the budget says.
    pub budget: [u64; 2],
    run: fn(&mut Seed, Pace) -> Result<Shown>,
}

impl Stage {
    /// Seconds that it may take on two cores.
    pub fn budget(&self, pace: Pace) -> u64 {
        self.budget[usize::from(pace == Pace::Full)]
    }
}

/// All stages, in order.
pub const STAGES: &[Stage] = &[
    data::WORLD,
    data::CLEAN,
    data::TOKENIZER,
    data::SHARDS,
    train::PLAN,
    train::PRETRAIN,
    train::VAE,
    train::GAN,
    train::SWEEP,
    train::EVALUATE,
    people::TUNING,
    people::REWARD,
    people::DPO,
    people::GRPO,
    people::AGENT,
    trust::BIAS,
    trust::PRIVACY,
    trust::DRIFT,
    trust::UPDATE,
];

/// The stage of this name.
///
/// # Errors
/// There is none.
pub fn stage(name: &str) -> Result<&'static Stage> {
    STAGES.iter().find(|stage| stage.name == name).ok_or_else(|| {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        let near = crate::settings::nearest(name, names.iter().copied());
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Error::usage(format!("--stage {name}: there is no such stage{near}"), format!("there are {}", names.join(", ")))
    })
}

/// What a stage came to in an earlier call; `None` where it was not done.
///
/// # Errors
/// Its file cannot be read.
pub fn shown(dir: &Path, stage: &Stage) -> Result<Option<Shown>> {
    kept(&file(dir, stage.name), "remove the file: the stage is then done again")
}

/// Forgets that a stage was done, and removes what it left.
///
/// # Errors
/// Something cannot be removed.
pub fn forget(dir: &Path, stage: &Stage) -> Result<()> {
    let own = file(dir, stage.name);
    if own.is_file() {
        Os.remove(&own).at(&own)?;
        for path in stage.makes.iter().map(|name| dir.join(name)) {
            match path.is_file() {
                true => Os.remove(&path).at(&path)?,
                false => disk::remove_all(&Os, &path)?,
            }
        }
    }
    Ok(())
}

/// Does a stage, and keeps what it came to.
///
/// # Errors
/// A stage that it needs was not done; it fails; a signal stopped it.
pub fn run(stage: &Stage, at: &mut Seed, pace: Pace) -> Result<Shown> {
    for need in stage.needs {
        if !file(at.dir, need).is_file() {
            let problem = format!(
                "the stage {} takes what {need} leaves, which was not done in {}",
                stage.name,
                at.dir.display()
            );
            return Err(Error::usage(
                problem,
                format!("kiln tour --out {} --resume does what is missing", at.dir.display()),
            ));
        }
    }
    disk::make_dirs(&Os, &at.dir.join("stages"))?;
    let start = Instant::now();
    let mut shown = (stage.run)(at, pace)?;
    shown.seconds = start.elapsed().as_secs_f64();
    keep(&file(at.dir, stage.name), &shown)?;
    Ok(shown)
}
