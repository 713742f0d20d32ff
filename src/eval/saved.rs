//! `eval/TASK.json` beside a model: what came out of a task, with how it was asked, so that reports find it.

use super::{Asking, Figure, Outcome, Task, Topic};
use crate::data::atomic::write_atomic;
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use crate::train::pictures::exam;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder of results in that of a model.
pub const FOLDER: &str = "eval";
/// A result has no items, so it takes a few kilobytes.
const MAX_FILE: u64 = 4 << 20;

/// What came out of a task, and how it was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The figures.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What the task is about.
    #[serde(default)]
    pub topic: Topic,
    /// The share that guessing would have right, of tasks that choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// How it was asked.
    pub asked: Asked,
    /// The version of kiln that asked.
    pub kiln: String,
}

/// How a task was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The steps of the checkpoint that answered; absent of a model that is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The most items that were to be asked; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Answered examples before each prompt.
    #[serde(default)]
    pub shots: usize,
    /// Of what is written, and of which examples are shown.
    pub seed: u64,
    /// Whose world asked, where the built-in one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<u64>,
    /// Where the items are from.
    #[serde(default)]
    pub data: String,
    /// Whether prompts were what a user says.
    #[serde(default)]
    pub chat: bool,
}

impl Asked {
    /// How `task` is asked.
    pub fn of(task: &Task, asking: &Asking) -> Asked {
        Asked {
            step: None,
            limit: Some(asking.limit).filter(|&limit| limit < usize::MAX),
            shots: task.shots,
            seed: asking.seed,
            world: task.is_made().then_some(asking.world),
            data: task.data.clone(),
            chat: false,
        }
    }
}

impl Saved {
    /// What came out of `task`.
    pub fn new(task: &Task, outcome: Outcome, asked: Asked) -> Saved {
        let chosen = outcome.records.iter().filter(|record| !record.choices.is_empty());
        let (n, sum) = chosen.fold((0, 0.0), |(n, sum), record| (n + 1, sum + 1.0 / record.choices.len() as f64));
        let chance = (n > 0 && n == outcome.records.len()).then(|| sum / n as f64);
        Saved { outcome, topic: task.topic, chance, asked, kiln: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// What became of pictures that a model drew.
    pub fn pictures(found: &exam::Outcome, asked: Asked) -> Saved {
        let figure = |(name, value): (&str, f64)| Figure { name: name.to_owned(), value, error: None };
        let figures: Vec<Figure> = found.verdict.parts().into_iter().map(figure).collect();
        let outcome = Outcome {
            task: "pictures".to_owned(),
            about: "pictures that it draws, beside held-out ones".to_owned(),
            caveat: String::new(),
            items: found.pictures,
            // The first one is a distance.
            figures,
            lower_is_better: true,
            neutral: None,
            groups: Vec::new(),
            calibration: None,
            records: Vec::new(),
        };
        Saved { outcome, topic: Topic::Quality, chance: None, asked, kiln: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Writes it into the folder `dir`, in the place of an older one of the same task, and gives its file.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = self.outcome.task.chars().map(plain).collect();
        let path = dir.join(format!("{}.json", name.trim_start_matches('.')));
        disk::make_dirs(&Os, dir)?;
        let text = serde_json::to_string_pretty(self).expect("texts and numbers") + "\n";
        write_atomic(&Os, &path, text.as_bytes())?;
        Ok(path)
    }
}

/// All results in the folder `dir`, by the names of their files, and what is wrong with those that cannot be read.
///
/// # Errors
/// The folder is there and cannot be listed.
pub fn load(dir: &Path) -> Result<(Vec<Saved>, Vec<Error>)> {
    let names = match Os.list(dir) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Vec::new(),
        names => names.at(dir)?,
    };
    let mut paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(saved) => found.push(saved),
            Err(e) => wrong.push(e),
        }
    }
    Ok((found, wrong))
}

fn read(path: &Path) -> Result<Saved> {
    let saved: Saved = serde_json::from_str(&disk::text(&Os, path, MAX_FILE)?).map_err(|e| {
        Error::format(path, "content", "what kiln eval found", e, "remove the file, and ask again: kiln eval RUN")
    })?;
    if saved.outcome.figures.is_empty() {
        let hint = "remove the file, and ask again: kiln eval RUN";
        return Err(Error::format(path, "figures", "at least one", "none", hint));
    }
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Record;

    #[test]
    fn what_is_saved_is_found_again_and_no_number_stays_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut task = Task::open("village-facts").unwrap();
        task.name = "../a b".into();
        let record = |n: usize| Record { choices: vec!["x".into(); n], value: 1.0, weight: 0.0, ..Record::default() };
        let figure = |name: &str, value| Figure { name: name.into(), value, error: Some(0.125) };
        let figures = vec![figure("acc", 0.5), figure("none", f64::NAN)];
        let mut outcome = Outcome::new(&task, figures, false, vec![record(2), record(4)]);
        outcome.groups.push(("empty".into(), 0, f64::NAN));
        let asking = Asking { limit: usize::MAX, world: 3, seed: 9 };
        let asked = Asked { step: Some(40), ..Asked::of(&task, &asking) };
        let path = Saved::new(&task, outcome, asked.clone()).save(&dir.path().join("deep/eval")).unwrap();
        assert_eq!(path, dir.path().join("deep/eval/-a-b.json"));
        std::fs::write(dir.path().join("deep/eval/torn.json"), "{\"task\":").unwrap();
        let (found, wrong) = load(&dir.path().join("deep/eval")).unwrap();
        assert_eq!((found.len(), wrong.len()), (1, 1));
        assert!(wrong[0].to_string().contains("torn.json"));
        let saved = &found[0];
        assert_eq!((saved.chance, &saved.asked, saved.topic), (Some(0.375), &asked, Topic::Quality));
        assert_eq!((asked.world, asked.limit), (Some(3), None));
        assert_eq!(saved.outcome.figures[0], figure("acc", 0.5));
        assert!(saved.outcome.figures[1].value.is_nan() && saved.outcome.groups[0].2.is_nan());
        assert_eq!(load(&dir.path().join("none")).unwrap().0, []);
    }
}
