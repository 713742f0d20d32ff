//! What a stage of a model's life does, measured on the built-in world, where the truth is known.
//!
//! Each study is one command. It says where it starts from, splits what it asks by entities and by ways of asking, has a control that must
//! fail, and reports every seed. What it trains are ordinary runs, left in a folder: one that was interrupted goes on from them.

pub mod agents;
mod asked;
pub mod canaries;
pub mod doctor;
pub mod dpo;
pub mod drift;
pub mod effect;
mod frontier;
pub mod halving;
pub mod manners;
pub mod mup;
mod notes;
pub mod overopt;
pub mod plan;
pub mod private;
pub mod reinforce;
pub mod rude;
pub mod skew;
pub mod sums;
pub mod tour;
pub mod tune;
pub mod update;

use crate::data::Sources;
use crate::data::atomic::{AtomicFile, write_atomic};
use crate::data::clean;
use crate::device::Device;
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};
use crate::sweep::{self, Sweep, Work};
use crate::train::recipe::VILLAGE;
use crate::train::{AnyRecipe, Summary, Watch};
use std::path::{Path, PathBuf};

/// In a run's folder: the seconds of the process that ended it, for when it is found done.
const TOOK: &str = "seconds.txt";

/// One seed of a study, of the world and of all that is random.
pub struct Seed<'a> {
    /// The seed.
    pub seed: u64,
    /// Where its runs are, or go.
    pub dir: &'a Path,
    /// Where it computes.
    pub device: &'a Device,
    /// Hears of each part before it begins.
    pub told: &'a mut dyn FnMut(&str),
    /// Watches runs, and stops them.
    pub watch: &'a mut dyn Watch,
}

impl Seed<'_> {
    fn says(&mut self, what: &str) {
        (self.told)(&format!("seed {}: {what}", self.seed));
    }

    /// Does the run `name` with these settings over the recipe `base`, or goes on with it, or finds it done.
    fn run(&mut self, name: &str, base: &str, set: &[String]) -> Result<Summary> {
        let set = [&[format!("train.seed={}", self.seed)], set].concat();
        let mut summary = AnyRecipe::once(self.dir, name, base, &set, self.device, self.watch)?;
        let took = summary.run.join(TOOK);
        match std::fs::read_to_string(&took).ok().and_then(|text| text.trim().parse().ok()) {
            Some(seconds) => summary.seconds = seconds,
            None => write_atomic(&Os, &took, format!("{}\n", summary.seconds).as_bytes())?,
        }
        Ok(summary)
    }

    /// A GPT of the village's recipe that reads the texts of `data`, or else the village's own stories; it is evaluated at its end alone.
    fn reads(&mut self, name: &str, data: Option<&Path>, steps: u64, more: &[String]) -> Result<Summary> {
        let own = [
            format!("train.steps={steps}"),
            format!("data.seed={}", self.seed),
            "train.sample_every=0".into(),
            "train.eval_every=0".into(),
        ];
        let path = data.map(|data| format!("data.path={}", quoted(data)));
        self.run(name, VILLAGE, &[&own[..], path.as_slice(), more].concat())
    }
}

/// A path as a value of a recipe.
fn quoted(path: &Path) -> String {
    toml::Value::from(&*path.to_string_lossy()).to_string()
}

/// Does a sweep in the folder `dir`, or goes on with the one of its name that is there.
///
/// # Errors
/// As of [`sweep::run`].
fn search(dir: &Path, mut sweep: Sweep, work: &Work, watch: &mut dyn sweep::Watch) -> Result<sweep::Outcome> {
    let path = dir.join(&sweep.sweep.name);
    dir.clone_into(&mut sweep.sweep.dir);
    match path.join("sweep.toml").is_file() && path.join("recipe.toml").is_file() {
        true => sweep::run(&sweep::reopen(&path, &[])?, Some(&path), work, watch),
        false => {
            if path.exists() {
                std::fs::remove_dir_all(&path).at(&path)?;
            }
            sweep::run(&sweep, None, work, watch)
        }
    }
}

/// A sweep that a signal ended ends the study.
fn stopped(signal: Option<i32>) -> Result<()> {
    match signal {
        None => Ok(()),
        Some(signal) => {
            Err(Error::failed(format!("stopped by signal {signal}"), "the same command goes on where it stopped"))
        }
    }
}

/// Writes objects as lines of JSON.
fn write_lines(path: &Path, lines: impl IntoIterator<Item = serde_json::Value>) -> Result<()> {
    let mut file = AtomicFile::create(&Os, path)?;
    for line in lines {
        file.write((line.to_string() + "\n").as_bytes())?;
    }
    file.commit()
}

/// Writes texts as lines of JSON.
fn write_texts(path: &Path, texts: &[impl AsRef<str>]) -> Result<()> {
    write_lines(path, texts.iter().map(|text| serde_json::json!({"text": text.as_ref()})))
}

/// Cleans the texts of `from` by these rules alone, as `recipe` has them, into the folder `out`; the file of what is left.
fn clean_by(rules: &[&str], mut recipe: clean::Recipe, from: &Path, out: PathBuf) -> Result<PathBuf> {
    let corpus = out.join(clean::DOCUMENTS);
    let all = clean::rules::RULES.iter().map(|rule| rule.name.to_owned());
    recipe.rules.off = all.filter(|name| !rules.contains(&&**name)).collect();
    clean::clean(&Sources::open(&[from], "text")?, &clean::Options::new(recipe, out), &mut |_| {})?;
    Ok(corpus)
}
