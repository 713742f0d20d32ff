//! `results.jsonl`: what was tried and what came out, appended as the sweep goes. It is all that a sweep knows, so one that was killed
//! goes on from it.

use super::halving::Progress;
use super::space::{Setting, Space};
use crate::disk::{self, Disk, File, Open};
use crate::error::{AtPath, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The number of the trial, from 0.
    trial: usize,
    /// Its setting: it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<Table>,
    /// The number of a rung that it came to, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rung: Option<usize>,
    /// The steps of the rung.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    /// What it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// Why nothing came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    /// How long it took to get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// A trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its setting.
    pub setting: Setting,
    /// What it came to.
    pub progress: Progress,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// How long it ran, in seconds.
    pub seconds: f64,
}

/// The trials so far, in their order, and the file that has them.
pub struct Ledger {
    file: Box<dyn File>,
    path: PathBuf,
    axes: Vec<String>,
    /// The trials.
    pub trials: Vec<Trial>,
}

impl Ledger {
    /// The name of the file.
    pub const FILE: &str = "results.jsonl";

    /// Opens or makes the one at `path`, of a search in `space`; a last line that was torn is cut off.
    ///
    /// # Errors
    /// It cannot be read or written; it has a line that fits no trial.
    pub fn open(disk: &dyn Disk, path: &Path, space: &Space) -> Result<Ledger> {
        let mut file = disk.open(path, Open::Append).at(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).at(path)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            file.set_len(whole as u64).at(path)?;
            file.sync().at(path)?;
        }
        disk.sync_dir(disk::parent(path)).at(path)?;
        let axes = space.axes.iter().map(|axis| axis.key.clone()).collect();
        let mut ledger = Ledger { file, path: path.to_owned(), axes, trials: Vec::new() };
        for (n, line) in text[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            let wrong = |found: String| {
                let hint = "remove the line, if it is the last one; else begin a new sweep";
                Error::format(path, format!("line {}", n + 1), "what a sweep of this space writes", found, hint)
            };
            let line: Line = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
            ledger.take(line).map_err(wrong)?;
        }
        Ok(ledger)
    }

    /// Adds what a line says to what is known.
    fn take(&mut self, line: Line) -> Result<(), String> {
        if let Some(mut set) = line.set {
            if line.trial != self.trials.len() {
                return Err(format!("trial {} after {}", line.trial, self.trials.len()));
            }
            let value = |key: &String| set.remove(key).ok_or_else(|| format!("no {key}"));
            let setting = self.axes.iter().map(value).collect::<Result<Setting, String>>()?;
            self.trials.push(Trial { setting, progress: Progress::default(), failed: None, seconds: 0.0 });
            return Ok(());
        }
        let (count, rung) = (self.trials.len(), line.rung.ok_or("neither a setting nor a rung")?);
        let trial = self.trials.get_mut(line.trial).ok_or_else(|| format!("trial {} of {count}", line.trial))?;
        if rung != trial.progress.values.len() {
            return Err(format!("rung {rung} after {}", trial.progress.values.len()));
        }
        trial.progress.values.push(line.value.unwrap_or(f64::INFINITY));
        trial.failed = line.failed;
        trial.seconds += line.seconds.unwrap_or(0.0);
        Ok(())
    }

    fn append(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line).expect("a line is plain data") + "\n";
        self.file.write_all(text.as_bytes()).at(&self.path)?;
        self.file.sync().at(&self.path)?;
        self.take(line).map_err(|e| Error::failed(e, "this is a bug in kiln"))
    }

    /// A trial begins.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&mut self, setting: &Setting) -> Result<()> {
        let set: Table = self.axes.iter().cloned().zip(setting.iter().cloned()).collect();
        let nothing = Line { trial: 0, set: None, rung: None, step: None, value: None, failed: None, seconds: None };
        self.append(Line { trial: self.trials.len(), set: Some(set), ..nothing })
    }

    /// A trial came to a rung of `step` steps after so many `seconds`, or failed on the way.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(&mut self, trial: usize, step: u64, came: Result<f64, String>, seconds: f64) -> Result<()> {
        let rung = Some(self.trials[trial].progress.values.len());
        let (value, failed) = match came {
            Ok(value) if value.is_finite() => (Some(value), None),
            Ok(value) => (None, Some(format!("it came to {value}"))),
            Err(why) => (None, Some(why)),
        };
        self.append(Line { trial, set: None, rung, step: Some(step), value, failed, seconds: Some(seconds) })
    }

    /// What is known of each.
    pub fn progress(&self) -> Vec<Progress> {
        self.trials.iter().map(|trial| trial.progress.clone()).collect()
    }
}

/// A value as a table shows it.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    #[test]
    fn what_was_written_is_known_again_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Ledger::FILE);
        let space = Space::parse(&"a.x = [1, 2]\na.y = [\"p\", \"q\"]".parse().unwrap()).unwrap();
        let open = || Ledger::open(&Os, &path, &space);
        let grid = space.grid().unwrap();
        let mut ledger = open().unwrap();
        for setting in &grid[..3] {
            ledger.begin(setting).unwrap();
        }
        ledger.end(1, 10, Ok(2.5), 1.0).unwrap();
        ledger.end(0, 10, Err("the loss is NaN".into()), 0.5).unwrap();
        ledger.end(1, 30, Ok(2.25), 2.0).unwrap();
        let known = ledger.trials.clone();
        assert_eq!((known[1].progress.values.clone(), known[1].seconds), (vec![2.5, 2.25], 3.0));
        assert!(known[0].progress.failed() && known[0].failed.as_deref() == Some("the loss is NaN"));
        assert_eq!(open().unwrap().trials, known);
        let text = std::fs::read(&path).unwrap();
        let last = text[..text.len() - 1].iter().rposition(|&b| b == b'\n').unwrap();
        for cut in last + 1..text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let again = open().unwrap();
            assert_eq!((again.trials[1].progress.values.len(), again.trials[2] == known[2]), (1, true));
            assert_eq!(std::fs::read(&path).unwrap().len(), last + 1);
        }
        for bad in
            ["{\"trial\":7,\"rung\":0}", "{\"trial\":3,\"set\":{\"a.x\":1}}", "{}", "{\"trial\":2,\"rung\":4}", "x"]
        {
            std::fs::write(&path, [&text[..], bad.as_bytes(), b"\n"].concat()).unwrap();
            let error = open().map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("line 7"), "{bad}: {error}");
        }
    }
}
