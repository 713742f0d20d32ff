//! The sweep: from a file of settings, or from where one was stopped, to its outcome.

use super::halving::{Job, Kind, Next};
use super::ledger::Ledger;
use super::outcome::Outcome;
use super::search::{Search, TOGETHER};
use super::section::Sweep;
use super::space::{Setting, Space};
use super::work::{self, Ended, Work, Worker};
use super::{Halving, section};
use crate::data::atomic::write_atomic;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use crate::settings;
use crate::train::AnyRecipe;
use crate::train::recipe::MAX_FILE;
use crate::train::run::RunDir;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Work before the first trial; it repeats as `done` grows.
    Prepare {
        /// The work, as "tokenising".
        what: &'a str,
        /// How much of it is done.
        done: u64,
        /// How much there is; 0 where nobody knows.
        total: u64,
    },
    /// The first job comes next.
    Start {
        /// The sweep's directory.
        dir: &'a Path,
        /// What is searched.
        space: &'a Space,
        /// How far trials run.
        halving: &'a Halving,
        /// Trials that are known from before.
        known: usize,
    },
    /// A trial begins, or goes on.
    Run {
        /// Its number.
        trial: usize,
        /// Its setting.
        setting: &'a Setting,
        /// The step at which it pauses.
        step: u64,
    },
    /// It got there, or failed.
    Came {
        /// Its number.
        trial: usize,
        /// The step.
        step: u64,
        /// What it came to, or why it failed.
        to: Result<f64, &'a str>,
        /// Steps that all trials did so far, and that they will have done in the end, as far as is known.
        steps: [u64; 2],
    },
    /// Something is not as it should be, but the sweep goes on.
    Warning {
        /// What.
        text: &'a str,
    },
}

/// Someone who watches a sweep.
pub trait Watch {
    /// Something happened.
    fn event(&mut self, event: &Event);

    /// Asked several times a second: a signal that asks all to save and stop.
    fn stop(&self) -> Option<i32> {
        None
    }
}

/// Watches nothing.
impl Watch for () {
    fn event(&mut self, _: &Event) {}
}

/// How often a trial is taken up again whose process crashed.
const TRIES: usize = 3;

/// The settings, in the sweep's directory.
const SETTINGS: &str = "sweep.toml";

/// Does what `sweep` says or, with `resume`, goes on with the sweep in that directory, where the budget and the number of workers may
/// be others.
///
/// # Errors
/// A setting, the recipe or its data cannot be used; the directory cannot be written, or another process has it.
pub fn run(sweep: &Sweep, resume: Option<&Path>, work: &Work, watch: &mut dyn Watch) -> Result<Outcome> {
    let space = sweep.space()?;
    let dir = match resume {
        Some(dir) => RunDir::open(&Os, dir)?,
        None => {
            let base = sweep.base()?;
            sweep.halving(&base, &space)?;
            try_out(&base, &space)?;
            let dir = RunDir::create(&Os, &sweep.sweep.dir, &sweep.sweep.name)?;
            write_atomic(&Os, &dir.path().join(SETTINGS), settings::to_toml(sweep).as_bytes())?;
            write_atomic(&Os, &dir.recipe(), base.to_toml().as_bytes())?;
            dir
        }
    };
    let recipe = dir.recipe();
    let base = AnyRecipe::load(Some(&recipe), "", &[])?;
    let halving = sweep.halving(&base, &space)?;
    let trials = dir.path().join("trials");
    disk::make_dirs(&Os, &trials)?;
    let own = |key: &str, value: String| -> Result<Option<String>> {
        Ok((!sweep.sets(key)?).then(|| format!("{key}={value}")))
    };
    let mut set = vec![format!("run.dir={}", quoted(&trials))];
    // Trials are looked at where they pause.
    for (key, value) in [("train.keep", "1"), ("train.sample_every", "0"), ("train.eval_every", "0")] {
        set.extend(own(key, value.into())?);
    }
    if !space.axes.iter().any(|axis| axis.key.starts_with("data.")) {
        let mut progress = |what: &str, done, total| watch.event(&Event::Prepare { what, done, total });
        if let Some(shards) = base.shards(&dir.data(), &mut progress)? {
            set.push(format!("data.path={}", quoted(&shards)));
        }
    }
    let (sender, ended) = mpsc::channel();
    let mut under_way = UnderWay {
        grid: match sweep.sweep.search {
            Search::Grid => Search::grid(&space, sweep.sweep.trials, sweep.sweep.seed)?,
            _ => Vec::new(),
        },
        ledger: Ledger::open(&Os, &dir.path().join(Ledger::FILE), &space)?,
        sweep,
        space,
        halving,
        trials,
        recipe,
        set,
        work,
        running: BTreeMap::new(),
        crashes: BTreeMap::new(),
        sender,
    };
    let known = under_way.ledger.trials.len();
    watch.event(&Event::Start { dir: dir.path(), space: &under_way.space, halving: &under_way.halving, known });
    let stopped = under_way.run(&ended, watch)?;
    let UnderWay { ledger, space, halving, trials, .. } = under_way;
    let outcome = Outcome::new(dir.path(), &sweep.sweep.metric, &space, &halving, ledger.trials, stopped);
    outcome.save(&base, &space)?;
    if stopped.is_none() {
        let keep: Vec<usize> = outcome.order.iter().copied().take(sweep.sweep.keep).collect();
        for trial in (0..outcome.trials.len()).filter(|trial| !keep.contains(trial)) {
            let checkpoints = work::folder(&trials, trial).join("checkpoints");
            if checkpoints.exists() {
                std::fs::remove_dir_all(&checkpoints).at(&checkpoints)?;
            }
        }
    }
    Ok(outcome)
}

/// The sweep in a directory under `overrides`, which change what may differ when it goes on.
///
/// # Errors
/// There is none; another key is overridden.
pub fn reopen(dir: &Path, overrides: &[String]) -> Result<Sweep> {
    let path = dir.join(SETTINGS);
    if !path.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no sweep is here (it would have a sweep.toml)");
        let hint = "give the directory that an earlier sweep printed, as runs/sweep".to_owned();
        return Err(Error::Io { path: dir.to_owned(), source, hint });
    }
    let may =
        |set: &&String| set.starts_with("budget.") || set.starts_with("sweep.workers") || set.starts_with("sweep.keep");
    if let Some(other) = overrides.iter().find(|set| !may(set)) {
        let key = other.split('=').next().unwrap_or_default();
        let hint = "leave it out, or begin a new sweep without --resume";
        return Err(Error::config(key, "a sweep that goes on keeps what it searches, and how", hint));
    }
    section::Sweep::from_toml(&disk::text(&Os, &path, MAX_FILE)?, &path, overrides)
}

fn quoted(path: &Path) -> String {
    toml::Value::from(&*path.to_string_lossy()).to_string()
}

/// Refuses a space of which an axis has no value that fits the recipe, so that nothing begins which can only fail.
fn try_out(base: &AnyRecipe, space: &Space) -> Result<()> {
    let text = base.to_toml();
    for i in 0..space.axes.len() {
        let ends = [0.0, 1.0].map(|u| {
            let set = space.overrides(&space.at(|_| u)).swap_remove(i);
            AnyRecipe::load(None, &text, &[set])
        });
        if let [Err(_), Err(error)] = ends {
            return Err(error);
        }
    }
    Ok(())
}

/// A sweep under way.
struct UnderWay<'a> {
    sweep: &'a Sweep,
    space: Space,
    halving: Halving,
    /// The settings of a grid.
    grid: Vec<Setting>,
    ledger: Ledger,
    /// The folder of trials.
    trials: PathBuf,
    /// The recipe that they start from.
    recipe: PathBuf,
    /// What they all have over it.
    set: Vec<String>,
    work: &'a Work<'a>,
    /// The rung that a trial runs to, and its process.
    running: BTreeMap<usize, (usize, Worker)>,
    /// How often processes of a trial crashed.
    crashes: BTreeMap<usize, usize>,
    sender: Sender<Ended>,
}

impl UnderWay<'_> {
    /// Works until nothing is left, or a signal comes, which it gives.
    fn run(&mut self, ended: &Receiver<Ended>, watch: &mut dyn Watch) -> Result<Option<i32>> {
        loop {
            if let Some(signal) = watch.stop() {
                // Processes save and end when we let go of them.
                let held: Vec<(usize, (usize, Worker))> = std::mem::take(&mut self.running).into_iter().collect();
                let jobs: Vec<(usize, usize)> = held.into_iter().map(|(trial, (rung, _))| (trial, rung)).collect();
                for _ in &jobs {
                    let Ok(end) = ended.recv() else { break };
                    let rung = jobs.iter().find(|job| job.0 == end.trial).map_or(0, |job| job.1);
                    if end.status.as_ref().is_ok_and(|status| status.success()) {
                        self.end(end, rung, watch)?;
                    }
                }
                return Ok(Some(signal));
            }
            let next = match self.running.len() < self.sweep.sweep.workers {
                true => self.next(),
                false => Next::Wait,
            };
            match next {
                Next::Begin => {
                    let setting = self.propose();
                    self.ledger.begin(&setting)?;
                }
                Next::Run(job) => self.start(job, watch)?,
                Next::Wait => match ended.recv_timeout(Duration::from_millis(100)) {
                    Ok(end) => {
                        let (rung, _) = self.running.remove(&end.trial).expect("it was started");
                        self.end(end, rung, watch)?;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is held here"),
                },
                Next::Done => return Ok(None),
            }
        }
    }

    /// How many settings there are in all.
    fn count(&self) -> usize {
        if self.sweep.sweep.search == Search::Grid { self.grid.len() } else { self.sweep.sweep.trials }
    }

    /// What is done next, with what is running and what may still be spent in mind.
    fn next(&self) -> Next {
        let mut progress = self.ledger.progress();
        self.running.keys().for_each(|&trial| progress[trial].runs = true);
        let begun = progress.len();
        let idle = if self.running.is_empty() { Next::Done } else { Next::Wait };
        match self.halving.next(&progress, self.count().saturating_sub(begun)) {
            Next::Run(job) if !self.affords(job) => idle,
            Next::Begin if !self.affords(Job { trial: begun, rung: 0 }) => idle,
            // What is proposed hangs on all results of the groups before, however many processes there are.
            Next::Begin
                if self.in_groups() && progress[..begun - begun % TOGETHER].iter().any(|t| t.values.is_empty()) =>
            {
                Next::Wait
            }
            other => other,
        }
    }

    /// Whether proposals go by the results of whole groups.
    fn in_groups(&self) -> bool {
        self.sweep.sweep.search == Search::Tpe && self.halving.kind != Kind::Async
    }

    /// Whether a job is within the budget.
    fn affords(&self, job: Job) -> bool {
        let budget = &self.sweep.budget;
        let jobs = self.running.iter().map(|(&trial, (rung, _))| Job { trial, rung: *rung });
        let under_way: u64 = jobs.map(|job| self.halving.steps(job)).sum();
        let steps = self.done() + under_way + self.halving.steps(job);
        let hours = self.ledger.trials.iter().map(|trial| trial.seconds).sum::<f64>()
            / (3600 * self.sweep.sweep.workers) as f64;
        budget.steps.is_none_or(|most| steps <= most)
            && budget.minutes.is_none_or(|most| 60.0 * hours < most)
            && budget.money.is_none_or(|most| budget.price * hours < most)
    }

    /// Steps that trials have done.
    fn done(&self) -> u64 {
        let at = |rungs: usize| rungs.checked_sub(1).map_or(0, |last| self.halving.rungs[last]);
        self.ledger.trials.iter().map(|trial| at(trial.progress.values.len())).sum()
    }

    /// Steps that they will have done in the end.
    fn expected(&self) -> u64 {
        let (mut entrants, mut all) = (self.count(), 0);
        for rung in 0..self.halving.rungs.len() {
            all += entrants as u64 * self.halving.steps(Job { trial: 0, rung });
            entrants = (entrants / self.halving.factor).max(1);
        }
        all.min(self.sweep.budget.steps.unwrap_or(u64::MAX)).max(self.done())
    }

    fn propose(&self) -> Setting {
        let trials = &self.ledger.trials;
        let index = trials.len();
        if self.sweep.sweep.search == Search::Grid {
            return self.grid[index].clone();
        }
        let taken: Vec<&Setting> = trials.iter().map(|trial| &trial.setting).collect();
        // By the highest rung that tells enough.
        let shown = if self.in_groups() { index - index % TOGETHER } else { index };
        let at = |rung: usize| -> Vec<(&Setting, f64)> {
            let there = trials[..shown].iter().filter_map(|t| Some((&t.setting, *t.progress.values.get(rung)?)));
            there.collect()
        };
        let enough = 2 * (self.space.axes.len() + 2);
        let top = (1..self.halving.rungs.len()).rev().find(|&rung| at(rung).len() >= enough).unwrap_or(0);
        self.sweep.sweep.search.propose(&self.space, self.sweep.sweep.seed, index, &taken, &at(top))
    }

    fn start(&mut self, job: Job, watch: &mut dyn Watch) -> Result<()> {
        let Job { trial, rung } = job;
        let setting = &self.ledger.trials[trial].setting;
        let step = self.halving.rungs[rung];
        watch.event(&Event::Run { trial, setting, step });
        let set = [&self.set[..], &[format!("run.name={trial:04}")], &self.space.overrides(setting)].concat();
        let worker = self.work.start((&self.trials, trial), &self.recipe, &set, step, self.sender.clone())?;
        self.running.insert(trial, (rung, worker));
        Ok(())
    }

    /// Writes down what became of a trial.
    fn end(&mut self, end: Ended, rung: usize, watch: &mut dyn Watch) -> Result<()> {
        let Ended { trial, status, seconds } = end;
        let (step, status) = (self.halving.rungs[rung], status.at(&self.trials)?);
        let came = match status.code() {
            Some(0) => Ok(work::value(&self.trials, trial, step, &self.sweep.sweep.metric)?),
            Some(1 | 2) => Err(work::reason(&self.trials, trial, status)),
            _ => {
                // A signal, or a panic: it goes on from its last checkpoint.
                let crashes = self.crashes.entry(trial).or_default();
                *crashes += 1;
                let why = work::reason(&self.trials, trial, status);
                if *crashes < TRIES {
                    watch.event(&Event::Warning {
                        text: &format!("trial {trial} crashed and is taken up again: {why}"),
                    });
                    return Ok(());
                }
                Err(why)
            }
        };
        self.ledger.end(trial, step, came.clone(), seconds)?;
        let to = came.as_ref().map(|value| *value).map_err(|why| &**why);
        watch.event(&Event::Came { trial, step, to, steps: [self.done(), self.expected()] });
        Ok(())
    }
}
