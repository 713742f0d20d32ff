//! Branches: runs that begin at a checkpoint of another one, their trunk, with its weights, moments, data and place in it.
//!
//! With a schedule of warm-up, a stable phase and a decay (Hu et al. 2024, MiniCPM, arXiv 2404.06395, section 4) one trunk at the stable rate
//! gives many finished models: each decays from another of its checkpoints, and the trunk is trained once. So a branch has to be the run
//! that its recipe describes, as if it had been trained from the start: it may set what comes later only, and the rate of each step
//! so far must be the one that the trunk's step had. Then its bits are those of such a run (`tests/it/branch.rs`).

use super::checkpoint;
use super::metrics;
use super::recipe::{Architecture, RecipeOf, Section};
use super::run::RunDir;
use super::schedule::Shape;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What a branch may set: keys, and whole sections, that no step before it hangs on. Of the schedule, as far as rates so far stay.
const LATER: [&str; 13] = [
    "run.",
    "eval.",
    "sample.",
    "train.steps",
    "train.eval_every",
    "train.checkpoint_every",
    "train.sample_every",
    "train.keep",
    "optim.schedule",
    "optim.lr",
    "optim.min_lr",
    "optim.warmup",
    "optim.decay_steps",
];

/// A checkpoint of a run, from which another one begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The trunk.
    pub run: PathBuf,
    /// Its steps so far.
    pub step: u64,
    /// The checkpoint, which verifies.
    checkpoint: PathBuf,
    /// The one that a run goes back to whose steps go wrong from here on, where it is another one.
    anchor: Option<PathBuf>,
}

impl Origin {
    /// What `name` means: `runs/village@400`, or `runs/village` with its newest good checkpoint.
    ///
    /// # Errors
    /// There is no run, or no such checkpoint, or it is damaged.
    pub fn find(name: &Path) -> Result<Origin> {
        let (run, step) = parts(name);
        let folder = run.join("checkpoints");
        let all = checkpoint::list(&Os, &folder)?;
        let path = match step {
            None => checkpoint::find(&Os, &run)?.0,
            Some(step) => match all.iter().find(|(at, _)| *at == step) {
                Some((_, path)) => path.clone(),
                None => {
                    let source = io::Error::new(ErrorKind::NotFound, format!("there is no checkpoint of step {step}"));
                    let steps: Vec<String> = all.iter().map(|(step, _)| step.to_string()).collect();
                    let hint = match steps.is_empty() {
                        true => "give a run that has checkpoints, as runs/village; kiln train makes them".to_owned(),
                        false => format!("it has those of {} (train.keep says how many stay)", steps.join(", ")),
                    };
                    return Err(Error::Io { path: folder, source, hint });
                }
            },
        };
        let state = checkpoint::verify(&Os, &path)?;
        let anchor = state.guard.anchor().filter(|&step| step != state.step);
        let anchor = all.into_iter().find(|(at, _)| Some(*at) == anchor).map(|(_, path)| path);
        Ok(Origin { run, step: state.step, checkpoint: path, anchor })
    }

    /// Makes the directory of a branch with this recipe, a run that stands at [`step`](Origin::step) and is then resumed. Nothing of the
    /// trunk changes, which may be under way; files that are never written to again are linked, where the system can.
    ///
    /// # Errors
    /// The directory cannot be made; a checkpoint has gone meanwhile.
    pub fn begin<M, D, S>(&self, recipe: &RecipeOf<M, D, S>) -> Result<PathBuf>
    where
        M: Architecture,
        D: Section,
        S: Section,
    {
        let run = RunDir::create(&Os, &recipe.run.dir, &recipe.run.name)?;
        let path = run.path().to_owned();
        self.fill(&run).and_then(|()| recipe.save(&Os, &run.recipe())).inspect_err(|_| {
            // It would only take the name from the next one.
            let _ = std::fs::remove_dir_all(&path);
        })?;
        Ok(path)
    }

    /// All but the recipe, without which a directory is no run.
    fn fill(&self, run: &RunDir) -> Result<()> {
        let data = self.run.join("data");
        if data.is_dir() {
            share(&data, &run.data())?;
        }
        for from in self.anchor.iter().chain([&self.checkpoint]) {
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            // One that stepped aside has a dot before its name.
            let to = run.checkpoints().join(name.trim_start_matches('.').trim_end_matches(".aside"));
            share(from, &to)?;
            checkpoint::verify(&Os, &to)?;
        }
        disk::make_dirs(&Os, &run.checkpoints())?;
        // What comes after the step is cut off when the run goes on.
        let metrics = self.run.join("metrics.jsonl");
        if metrics.is_file() {
            let text = disk::read(&Os, &metrics)?;
            write_atomic(&Os, &run.metrics(), &text)?;
        }
        let trunk = std::path::absolute(&self.run).at(&self.run)?;
        let from = json!({ "trunk": trunk.to_string_lossy(), "step": self.step });
        write_atomic(&Os, &run.path().join("branch.json"), format!("{from:#}\n").as_bytes())
    }

    /// The recipe of a branch: the trunk's under `overrides`.
    ///
    /// # Errors
    /// As of [`RecipeOf::load`]; a step so far hangs on what is set.
    pub fn recipe<M, D, S>(&self, overrides: &[String]) -> Result<RecipeOf<M, D, S>>
    where
        M: Architecture,
        D: Section,
        S: Section,
    {
        let was = RecipeOf::<M, D, S>::of_run(&self.run, &[])?;
        let name = was.run.name.clone() + &format!("-from-{}", self.step);
        let set = [&[format!("run.name={name}")], overrides].concat();
        let is = RecipeOf::<M, D, S>::load(Some(&self.run.join("recipe.toml")), &set)?;
        let step = self.step;
        if was.optim.dp.is_some() {
            let problem =
                "a branch of a private run would read its examples again, and nobody adds the accounts of both up";
            return Err(Error::config("optim.dp", problem, "go on with the run itself, --resume, or begin a new one"));
        }
        let (before, after) = (keys(&was.to_toml()), keys(&is.to_toml()));
        let changed = |key: &&String| before.get(*key) != after.get(*key);
        let own =
            |key: &str| LATER.iter().any(|later| key == *later || (later.ends_with('.') && key.starts_with(later)));
        if let Some(key) = before.keys().chain(after.keys()).filter(changed).find(|key| !own(key)) {
            let shown = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
            let (was, is) = (shown(before.get(key)), shown(after.get(key)));
            let problem =
                format!("the {step} steps so far were done with {was}; with {is} they would have been others");
            let hint = "leave it out: a branch sets what comes later; or begin a new run without --branch";
            return Err(Error::config(key, problem, hint));
        }
        if is.train.steps <= step {
            let problem = format!("the branch begins after step {step}, and {} leaves nothing to do", is.train.steps);
            return Err(Error::config(
                "train.steps",
                problem,
                "set more: the steps of the whole run, the trunk's included",
            ));
        }
        self.same_rates(&was, &is)?;
        Ok(is)
    }

    /// Refuses a schedule by which a step so far would have had another rate than it had.
    fn same_rates<M, D, S>(&self, was: &RecipeOf<M, D, S>, is: &RecipeOf<M, D, S>) -> Result<()> {
        let (trunk, branch) = (was.schedule(), is.schedule());
        // A trunk may have been taken up with other settings than its recipe's: what it wrote down is what it did.
        let path = self.run.join("metrics.jsonl");
        let done = if path.is_file() { metrics::read(&Os, &path)? } else { Vec::new() };
        let done: BTreeMap<u64, f64> = done.iter().map(|record| (record.step, record.lr)).collect();
        let rate = |step: u64| done.get(&(step + 1)).copied().unwrap_or_else(|| trunk.lr(step));
        let Some(first) = (0..self.step).find(|&step| rate(step) != branch.lr(step)) else { return Ok(()) };
        let (was_rate, is_rate) = (rate(first), branch.lr(first));
        let problem = format!(
            "step {} would have a learning rate of {is_rate:e}, and had {was_rate:e} in {}, from whose step {} this begins",
            first + 1,
            self.run.display(),
            self.step
        );
        let changed = [
            ("optim.schedule", trunk.shape != branch.shape),
            ("optim.lr", trunk.lr != branch.lr),
            ("optim.warmup", trunk.warmup != branch.warmup),
            ("optim.decay_steps", trunk.decay_steps != branch.decay_steps),
            ("optim.min_lr", trunk.min_lr != branch.min_lr),
        ];
        let key = changed.iter().find(|(_, changed)| *changed).map_or("train.steps", |(key, _)| key);
        let hint = match (branch.shape, trunk.shape) {
            (Shape::Wsd, Shape::Wsd | Shape::Constant) => {
                let steps = self.step + branch.decay_steps;
                format!(
                    "let the decay begin later, as with train.steps={steps}, or begin at an earlier checkpoint: RUN@STEP"
                )
            }
            _ => {
                "only what is stable so far can decay from here: train the trunk with optim.schedule=\"wsd\"".to_owned()
            }
        };
        Err(Error::config(key, problem, hint))
    }
}

/// A run and a step, as `runs/village@400` names them; a folder of that very name is a run.
fn parts(name: &Path) -> (PathBuf, Option<u64>) {
    let named = name.to_str().filter(|_| !name.exists()).and_then(|name| name.rsplit_once('@'));
    match named.map(|(run, step)| (run, step.parse())) {
        Some((run, Ok(step))) => (run.into(), Some(step)),
        _ => (name.to_owned(), None),
    }
}

/// All keys of a recipe, as `train.steps`, with their values.
fn keys(recipe: &str) -> BTreeMap<String, Value> {
    let table: Table = recipe.parse().expect("a recipe is TOML");
    let sections = table.into_iter().filter_map(|(section, values)| match values {
        Value::Table(values) => Some((section, values)),
        _ => None,
    });
    sections
        .flat_map(|(section, values)| values.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value)))
        .collect()
}

/// Gives the files in `from` names in `to` as well, or copies them where the system has no second names; and puts the names on disk.
fn share(from: &Path, to: &Path) -> Result<()> {
    disk::make_dirs(&Os, to)?;
    for entry in std::fs::read_dir(from).at(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).at(from)?;
        let new = to.join(&name);
        if path.is_dir() {
            share(&path, &new)?;
        } else if !disk::is_temporary(&name) && std::fs::hard_link(&path, &new).is_err() {
            std::fs::copy(&path, &new).at(&path)?;
            std::fs::File::open(&new).and_then(|file| file.sync_all()).at(&new)?;
        }
    }
    Os.sync_dir(to).at(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_run_or_a_run_and_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| parts(Path::new(name));
        assert_eq!(of("runs/village@400"), ("runs/village".into(), Some(400)));
        assert_eq!(of("runs/village"), ("runs/village".into(), None));
        assert_eq!(of("me@home/village"), ("me@home/village".into(), None));
        assert_eq!(of("runs/a@b@7"), ("runs/a@b".into(), Some(7)));
        let odd = dir.path().join("a@7");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(parts(&odd), (odd.clone(), None));
    }
}
