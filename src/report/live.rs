//! Several runs side by side, and what is new of them.

use super::run::Run;
use crate::error::{AtPath, Error, Result};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Runs that are followed. A sweep stands for all of its trials.
#[derive(Debug, Default)]
pub struct Live {
    /// The runs, in the order in which they were asked for.
    pub runs: Vec<Run>,
    /// Folders of trials, where more may begin.
    sweeps: Vec<PathBuf>,
}

impl Live {
    /// Those at `paths`, as they are now.
    ///
    /// # Errors
    /// There is no run at one of them; a file of one cannot be read.
    pub fn open(paths: &[PathBuf]) -> Result<Live> {
        let mut live = Live::default();
        for path in paths {
            let trials = path.join("trials");
            match trials.is_dir() {
                true => live.sweeps.push(trials),
                false => live.add(path)?,
            }
        }
        live.look()?;
        if live.runs.is_empty() {
            let problem = "no trial of the sweep has begun yet";
            return Err(Error::failed(problem, "look again when it has; kiln sweep tells of each"));
        }
        Ok(live)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        if self.runs.iter().any(|run| run.path == path) {
            return Ok(());
        }
        let mut run = Run::open(path)?;
        if let Some(same) = self.runs.iter_mut().find(|other| other.name == run.name) {
            same.name = same.path.display().to_string();
            run.name = run.path.display().to_string();
        }
        self.runs.push(run);
        Ok(())
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    pub fn look(&mut self) -> Result<()> {
        for trials in self.sweeps.clone() {
            let entries = std::fs::read_dir(&trials).at(&trials)?;
            let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            // A trial has no recipe before it begins.
            paths.retain(|path| path.join("recipe.toml").is_file() && self.runs.iter().all(|run| run.path != *path));
            paths.sort();
            paths.iter().try_for_each(|path| self.add(path))?;
        }
        self.runs.iter_mut().try_for_each(Run::look)
    }

    /// Which of several runs has the lowest last validation loss.
    pub fn best(&self) -> Option<usize> {
        let losses = self.runs.iter().enumerate().filter_map(|(i, run)| Some((i, run.val_loss()?)));
        let (best, _) = losses.filter(|(_, loss)| loss.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1))?;
        (self.runs.len() > 1).then_some(best)
    }

    /// Where they stand.
    pub fn to_json(&self) -> Value {
        json!({
            "runs": self.runs.iter().map(Run::to_json).collect::<Vec<_>>(),
            "best": self.best().map(|best| self.runs[best].path.to_string_lossy()),
        })
    }
}

/// The run, or sweep, in the folder `runs` that was written to last.
///
/// # Errors
/// There is none.
pub fn newest(runs: &Path) -> Result<PathBuf> {
    let entries = match std::fs::read_dir(runs) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        entries => Some(entries.at(runs)?),
    };
    let written = |path: &Path| -> Option<SystemTime> {
        path.join("recipe.toml").is_file().then_some(())?;
        let files = ["recipe.toml", "metrics.jsonl", "results.jsonl"].map(|name| path.join(name).metadata());
        files.into_iter().filter_map(|meta| meta.ok()?.modified().ok()).max()
    };
    let paths = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let newest = paths.filter_map(|path| Some((written(&path)?, path))).max();
    newest.map(|(_, path)| path).ok_or_else(|| {
        let source = std::io::Error::new(ErrorKind::NotFound, "no run is here yet");
        let hint = "name a run, as kiln report --live elsewhere/village; kiln train begins one".to_owned();
        Error::Io { path: runs.to_owned(), source, hint }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::{Series, Status};
    use crate::train::Recipe;
    use std::time::Duration;

    /// A run of 40 steps of 2 · 16 tokens as it is after `steps` of them, at 64 tokens a second, evaluated at the last one.
    fn write(path: &Path, steps: u64, val_loss: f64) {
        std::fs::create_dir_all(path.join("samples")).unwrap();
        let set = ["train.steps=40", "train.batch=2", "train.context=16"].map(str::to_owned);
        std::fs::write(path.join("recipe.toml"), Recipe::load(None, &set).unwrap().to_toml()).unwrap();
        let line = |step: u64| {
            let val = if step == steps { format!(",\"val_loss\":{val_loss}") } else { String::new() };
            format!(
                "{{\"step\":{step},\"loss\":{}.5,\"lr\":0.5,\"grad_norm\":null{val},\"tokens_per_s\":64}}\n",
                50 - step
            )
        };
        std::fs::write(path.join("metrics.jsonl"), (1..=steps).map(line).collect::<String>()).unwrap();
    }

    fn hold(path: &Path) {
        std::fs::write(path.join("lock"), format!("process {} on elsewhere since now\n", std::process::id())).unwrap();
    }

    #[test]
    fn a_run_under_way_tells_where_it_stands_and_how_long_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, 10, 3.25);
        for (step, text) in [(5, "once"), (10, "twice"), (9, "between")] {
            std::fs::write(path.join(format!("samples/step-{step:06}.txt")), text).unwrap();
        }
        let mut live = Live::open(std::slice::from_ref(&path)).unwrap();
        assert_eq!((live.runs[0].status, live.runs[0].left(), live.best()), (Status::Paused, None, None));
        hold(&path);
        live.look().unwrap();
        let run = &live.runs[0];
        assert_eq!((run.status, run.step(), run.val_loss(), run.memory), (Status::Running, 10, Some(3.25), None));
        // 30 steps of 32 tokens at 64 a second.
        assert_eq!(run.left(), Some(Duration::from_secs(15)));
        assert_eq!(run.sample.as_ref().map(|s| (s.step, s.text.as_deref())), Some((10, Some("twice"))));
        assert_eq!((run.series(Series::Loss)[9], run.series(Series::Gradient).len()), ((10.0, 40.5), 0));
        let json = live.to_json();
        assert_eq!((&json["runs"][0]["step"], &json["runs"][0]["seconds_left"]), (&10.into(), &15.0.into()));
        assert!(json["runs"][0]["grad_norm"].is_null() && json["best"].is_null());

        write(&path, 40, 2.0);
        std::fs::write(path.join("samples/step-000010.txt"), "rewritten").unwrap();
        live.look().unwrap();
        assert_eq!((live.runs[0].step(), live.runs[0].left()), (40, Some(Duration::ZERO)));
        std::fs::remove_file(path.join("lock")).unwrap();
        write(&path, 20, 2.0);
        live.look().unwrap();
        assert_eq!((live.runs[0].status, live.runs[0].points.len()), (Status::Paused, 20), "cut back");
        write(&path, 40, 2.0);
        live.look().unwrap();
        assert_eq!((live.runs[0].status, live.runs[0].points.len()), (Status::Done, 40));
    }

    #[test]
    fn a_sweep_stands_for_its_trials_those_too_that_begin_later() {
        let dir = tempfile::tempdir().unwrap();
        let trials = dir.path().join("sweep/trials");
        std::fs::create_dir_all(trials.join("0007")).unwrap();
        let sweep = [dir.path().join("sweep")];
        assert!(Live::open(&sweep).unwrap_err().to_string().contains("no trial"));
        write(&trials.join("0001"), 4, 2.5);
        write(&trials.join("0000"), 4, 3.5);
        let mut live = Live::open(&sweep).unwrap();
        let names = |live: &Live| live.runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&live), live.best()), (vec!["0000".to_owned(), "0001".into()], Some(1)));
        write(&trials.join("0002"), 2, 1.5);
        live.look().unwrap();
        assert_eq!((names(&live).len(), live.best()), (3, Some(2)));
        write(&trials.join("0002"), 2, f64::from(f32::MAX));
        live.look().unwrap();
        assert_eq!(live.best(), Some(1));
    }

    #[test]
    fn runs_of_one_name_are_told_apart_and_the_newest_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let error = newest(&runs).unwrap_err();
        assert!(error.to_string().contains("no run is here yet") && error.hint().is_some());
        let paths = [runs.join("a"), dir.path().join("b/a")];
        paths.iter().for_each(|path| write(path, 3, 1.0));
        let live = Live::open(&[paths[0].clone(), paths[1].clone(), paths[0].clone()]).unwrap();
        assert_eq!(live.runs.len(), 2);
        assert!(live.runs.iter().all(|run| run.name == run.path.display().to_string()));
        std::fs::create_dir(runs.join("no-run")).unwrap();
        write(&runs.join("b"), 3, 1.0);
        let old = SystemTime::now() - Duration::from_secs(900);
        for file in ["recipe.toml", "metrics.jsonl"] {
            std::fs::File::options().append(true).open(paths[0].join(file)).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(newest(&runs).unwrap(), runs.join("b"));
        let nothing = Live::open(&[dir.path().join("runs")]).unwrap_err();
        assert!(nothing.to_string().contains("no run is here"), "{nothing}");
    }
}
