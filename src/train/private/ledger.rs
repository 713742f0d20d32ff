//! `privacy.json` in a run's directory: what its steps have spent so far, and what that promises.
//!
//! Steps count when they are computed, whether or not a checkpoint keeps what came of them: steps that a process did and lost are done again
//! with other noise, and both have read the examples. So the count on disk is raised before steps are done, by a hundredth of the run at a
//! time, and is exact again when a process ends in order.

use super::Private;
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk};
use crate::error::{AtPath, Error, Result};
use crate::measure::privacy::{Mechanism, Spent};
use crate::train::objective::Examples;
use crate::train::recipe::{Dp, MAX_FILE};
use crate::train::run::RunDir;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a private run promises.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Promise {
    /// In words: what is promised, or why nothing is.
    pub guarantee: String,
    /// ε; infinite, and `null` in files, where nothing is promised.
    pub epsilon: f64,
    /// δ.
    pub delta: f64,
    /// Whose presence is hidden: one of these.
    pub unit: &'static str,
    /// How many of them there are.
    pub examples: u64,
    /// C.
    pub clip: f64,
    /// The steps, in the order in which they were done; those that were lost included.
    pub spent: Vec<Part>,
}

/// Steps that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// How many.
    pub steps: u64,
    /// q.
    pub rate: f64,
    /// σ.
    pub noise: f64,
}

/// What is read of the file: the rest follows from it.
#[derive(Deserialize)]
struct File {
    spent: Vec<Part>,
}

/// The account of a run under way.
pub struct Ledger {
    /// What is promised, as of no steps.
    promise: Promise,
    /// All steps so far; the last part is this process's mechanism.
    spent: Vec<Part>,
    /// Steps of the last part up to which the file counts.
    counted: u64,
    /// Steps that it counts at a time.
    portion: u64,
    /// Why nothing is promised, where nothing is.
    void: Option<&'static str>,
}

impl Part {
    fn mechanism(&self) -> Mechanism {
        Mechanism { rate: self.rate, noise: self.noise }
    }
}

/// What the account at `path` of a run that has done `done` steps counts; nothing where the run is new.
///
/// # Errors
/// Steps were done, and the file that counts them is missing or damaged.
pub(super) fn spent(disk: &dyn Disk, path: &Path, done: u64) -> Result<Vec<Part>> {
    let spent = match disk.exists(path).at(path)? {
        true => {
            let hint = "without it nobody knows what the run has spent: put back a copy, or start a new run";
            let file: Result<File, _> = serde_json::from_str(&disk::text(disk, path, MAX_FILE)?);
            let file = file.map_err(|e| Error::format(path, "content", "what a private run has spent", e, hint))?;
            let fine = |part: &Part| (0.0..=1.0).contains(&part.rate) && part.noise >= 0.0;
            if let Some(part) = file.spent.iter().find(|part| !fine(part)) {
                let expected = "rates from 0 to 1 and noise of 0 or more";
                return Err(Error::format(path, "spent", expected, format!("{part:?}"), hint));
            }
            file.spent
        }
        false => Vec::new(),
    };
    let counted: u64 = spent.iter().map(|part| part.steps).sum();
    if counted < done {
        let hint = "without it nobody knows what the run has spent: put back the file, or start a new run";
        let expected = format!("the {done} steps done so far, at least");
        return Err(Error::format(path, "spent", expected, format!("{counted} steps"), hint));
    }
    Ok(spent)
}

impl Ledger {
    /// Opens the account of a run of `steps` steps that goes on after step `done`.
    ///
    /// # Errors
    /// Steps were done, and the file that counts them is missing or damaged.
    pub(in crate::train) fn open(run: &RunDir, private: &Private, steps: u64, done: u64) -> Result<Ledger> {
        let spent = spent(run.disk(), &run.privacy(), done)?;
        let ledger = Ledger::new(private.settings(), private.mechanism(), private.examples(), spent, steps);
        ledger.write(run)?;
        Ok(ledger)
    }

    /// The account of a run of `steps` steps that has `spent` so much and goes on with steps that are `mechanism`.
    pub(super) fn new(dp: &Dp, mechanism: Mechanism, examples: Examples, mut spent: Vec<Part>, steps: u64) -> Ledger {
        let Mechanism { rate, noise } = mechanism;
        match spent.last() {
            Some(last) if last.mechanism() == mechanism => {}
            _ => spent.push(Part { steps: 0, rate, noise }),
        }
        let promise = Promise {
            guarantee: String::new(),
            epsilon: 0.0,
            delta: dp.delta_for(examples.count),
            unit: examples.unit,
            examples: examples.count,
            clip: dp.clip,
            spent: Vec::new(),
        };
        let void = match dp.reproducible {
            true => Some("no privacy: the noise can be computed from the seed (optim.dp.reproducible)"),
            false => (noise == 0.0).then_some("no privacy: there is no noise (optim.dp.noise)"),
        };
        let counted = spent.last().map_or(0, |part| part.steps);
        Ledger { promise, spent, counted, portion: (steps / 100).max(1), void }
    }

    /// Counts a step that is about to be done.
    pub(in crate::train) fn count(&mut self, run: &RunDir) -> Result<()> {
        let last = self.spent.last_mut().expect("this process's own");
        last.steps += 1;
        if last.steps > self.counted {
            self.counted = last.steps + self.portion - 1;
            self.write(run)?;
        }
        Ok(())
    }

    /// Ends the account of a process, which has lost nothing.
    pub(in crate::train) fn close(&mut self, run: &RunDir) -> Result<()> {
        self.counted = self.spent.last().map_or(0, |part| part.steps);
        self.write(run)
    }

    /// What the steps so far promise, and `more` of them.
    pub fn promise(&self, more: u64) -> Promise {
        let mut spent = self.spent.clone();
        spent.last_mut().expect("this process's own").steps += more;
        let Promise { delta, unit, .. } = self.promise;
        let mut account = Spent::default();
        spent.iter().for_each(|part| account.add(&part.mechanism(), part.steps));
        let epsilon = account.epsilon(delta);
        let hides = format!("({epsilon:.3}, {delta:.2e})-differential privacy for each {unit}");
        let (epsilon, guarantee) = match self.void {
            Some(void) if epsilon.is_finite() => (f64::INFINITY, format!("{void}; else it would be {hides}")),
            Some(void) => (f64::INFINITY, void.to_owned()),
            None => (epsilon, hides),
        };
        Promise { guarantee, epsilon, spent, ..self.promise.clone() }
    }

    /// The ε of the steps so far.
    pub fn epsilon(&self) -> f64 {
        self.promise(0).epsilon
    }

    /// What the owner of the data must know: `target` is the ε that was asked for, `more` how many steps are left.
    pub(in crate::train) fn warnings(&self, target: Option<f64>, more: u64) -> Vec<String> {
        let Promise { delta, examples, epsilon, .. } = self.promise(more);
        let mut warnings: Vec<String> = self.void.map(str::to_owned).into_iter().collect();
        if delta * examples as f64 > 1.0 {
            let share = 1.0 / examples as f64;
            warnings
                .push(format!("optim.dp.delta is {delta:.1e}: above {share:.1e}, 1 / examples, it promises little"));
        }
        if let Some(target) = target.filter(|target| self.void.is_none() && epsilon > target * 1.0001) {
            let why = "steps that were lost, and those with other settings, count as well";
            warnings.push(format!("by the last step epsilon will be {epsilon:.3}, and {target} was asked for: {why}"));
        }
        if self.void.is_none() {
            let text = "this account is of this run alone: each other run on the same examples, as in a search for settings, costs on top";
            warnings.push(text.to_owned());
        }
        warnings
    }

    fn write(&self, run: &RunDir) -> Result<()> {
        let ahead = self.counted.saturating_sub(self.spent.last().map_or(0, |part| part.steps));
        let text = serde_json::to_string_pretty(&self.promise(ahead)).expect("plain data");
        write_atomic(run.disk(), &run.privacy(), (text + "\n").as_bytes())
    }
}
