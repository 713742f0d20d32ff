//! Trials as processes: each is an ordinary `kiln train` that pauses at its rung.

use crate::disk::Os;
use crate::error::{AtPath, Error, Result};
use crate::train::run::RunDir;
use crate::train::{checkpoint, metrics};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How trials are run.
pub struct Work<'a> {
    /// The program, with the options that it has in any case.
    pub program: &'a dyn Fn() -> Command,
}

/// A process at work. Letting go of it asks the process to save and end.
pub(super) struct Worker {
    /// Whose end of input it watches: so it ends with us, however we end.
    _leash: Option<ChildStdin>,
}

/// A process that ended.
pub(super) struct Ended {
    /// The number of the trial.
    pub trial: usize,
    /// How.
    pub status: std::io::Result<ExitStatus>,
    /// How long it took.
    pub seconds: f64,
}

/// How long a process may take to save that another sweep has left.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of a trial.
pub(super) fn folder(trials: &Path, trial: usize) -> PathBuf {
    trials.join(format!("{trial:04}"))
}

/// Where a trial's warnings and errors go.
fn log(trials: &Path, trial: usize) -> PathBuf {
    trials.join(format!("{trial:04}.log"))
}

/// The trial's log, locked. A process that writes into it holds the lock too, from before its first line until it is gone, even
/// when its sweep was killed; so whoever has the lock has the trial for itself.
fn claim(log: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(log).at(log)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let source =
                    std::io::Error::new(ErrorKind::WouldBlock, "a process of an earlier sweep still writes here");
                let hint = "wait until it has saved and ended, or stop it; then resume the sweep".into();
                return Err(Error::Io { path: log.to_owned(), source, hint });
            }
            Err(TryLockError::Error(error)) => return Err(error).at(log),
        }
    }
}

/// Whether the run in `path` can go on; one that was killed before it had anything is cleared away.
fn goes_on(path: &Path) -> Result<bool> {
    match RunDir::open(&Os, path) {
        // It has no recipe yet.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        Err(other) => return Err(other),
        Ok(_) if checkpoint::list(&Os, &path.join("checkpoints"))?.is_empty() => {}
        Ok(_) => return Ok(true),
    }
    if path.exists() {
        std::fs::remove_dir_all(path).at(path)?;
    }
    Ok(false)
}

impl Work<'_> {
    /// Starts a process that does the run of number `trial` in the folder `trials`, of `recipe` under `set`, up to step `until`; it tells
    /// `ended` of its end.
    ///
    /// # Errors
    /// The program cannot be started; the run is held by another process.
    pub(super) fn start(
        &self,
        (trials, trial): (&Path, usize),
        recipe: &Path,
        set: &[String],
        until: u64,
        ended: Sender<Ended>,
    ) -> Result<Worker> {
        let path = folder(trials, trial);
        let mut command = (self.program)();
        command.args(["train", "--json", "--leash", "--until", &until.to_string()]);
        let log = claim(&log(trials, trial))?;
        match goes_on(&path)? {
            true => command.arg("--resume").arg(&path),
            false => command.arg(recipe).args(set.iter().flat_map(|set| ["--set", set])),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let start = Instant::now();
        let program = PathBuf::from(command.get_program());
        let mut child = command.spawn().at(program)?;
        let leash = child.stdin.take();
        std::thread::spawn(move || {
            let status = child.wait();
            // Nobody waits for it any more where this fails.
            let _ = ended.send(Ended { trial, status, seconds: start.elapsed().as_secs_f64() });
        });
        Ok(Worker { _leash: leash })
    }
}

/// What the run of a trial came to at `step`: `metric` in its metrics.
///
/// # Errors
/// They have no such number.
pub(super) fn value(trials: &Path, trial: usize, step: u64, metric: &str) -> Result<f64> {
    let path = folder(trials, trial).join("metrics.jsonl");
    let records = metrics::read(&Os, &path)?;
    let Some(record) = records.iter().rev().find(|record| record.step == step) else {
        let hint = "remove the trial's folder, and go on";
        return Err(Error::format(&path, "the end", format!("a line of step {step}"), "none", hint));
    };
    record.number(metric).ok_or_else(|| {
        let hint = format!("set sweep.metric to one of {}", record.names().join(", "));
        Error::config("sweep.metric", format!("metrics.jsonl has no \"{metric}\" where a trial is evaluated"), hint)
    })
}

/// Why the process of a trial failed, as it said itself last.
pub(super) fn reason(trials: &Path, trial: usize, status: ExitStatus) -> String {
    let text = std::fs::read(log(trials, trial)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().rev().find_map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(object.get("error")?.as_str()?.to_owned())
    });
    said.unwrap_or_else(|| format!("the process ended with {status}; see {}", log(trials, trial).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_trial_is_its_process_own_for_as_long_as_that_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path(), 3);
        let mut command = Command::new("sh");
        command.args(["-c", "read line"]).stdin(Stdio::piped()).stderr(claim(&path).unwrap());
        let mut child = command.spawn().unwrap();
        drop(command);
        // Ours is gone with the command.
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let waiting = std::thread::spawn(move || claim(&path).map(drop));
        drop(child.stdin.take());
        waiting.join().unwrap().unwrap();
        child.wait().unwrap();
    }
}
