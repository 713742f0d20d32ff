//! The run directory: one run's files, and the lock that keeps it to one process.

use crate::error::{AtPath, Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const LOCK: &str = "lock";

/// A run directory that this process holds; dropping it lets others have it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes `dir/name` for a new run, or `dir/name-2`, `dir/name-3`, … where a run is there already.
    pub fn create(dir: &Path, name: &str) -> Result<RunDir> {
        let unusable = |path: &Path, source| Error::Io {
            path: path.to_owned(),
            source,
            hint: "runs need a folder that can be written to: choose one with --set run.dir=FOLDER".into(),
        };
        std::fs::create_dir_all(dir).map_err(|e| unusable(dir, e))?;
        for n in 1u64.. {
            let path = if n == 1 { dir.join(name) } else { dir.join(format!("{name}-{n}")) };
            match std::fs::create_dir(&path) {
                Ok(()) => {}
                // An empty folder that somebody made for the run is used.
                Err(e) if e.kind() == ErrorKind::AlreadyExists && is_empty(&path) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(unusable(&path, e)),
            }
            // Two processes may have found it empty: the file can be made once.
            match OpenOptions::new().write(true).create_new(true).open(path.join(LOCK)) {
                Ok(file) => return RunDir::hold(path, file),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).at(path.join(LOCK)),
            }
        }
        unreachable!("some number is free")
    }

    /// Takes the existing run at `path`.
    ///
    /// # Errors
    /// There is no run; another process holds it (the error says which).
    pub fn open(path: &Path) -> Result<RunDir> {
        if !path.join("recipe.toml").is_file() {
            let source = io::Error::new(ErrorKind::NotFound, "no run is here (it would have a recipe.toml)");
            let hint = "give the directory that an earlier run printed, as runs/village".into();
            return Err(Error::Io { path: path.to_owned(), source, hint });
        }
        let lock = path.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock).at(&lock)?;
        RunDir::hold(path.to_owned(), file)
    }

    fn hold(path: PathBuf, mut lock: File) -> Result<RunDir> {
        let file = path.join(LOCK);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(e).at(file),
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&file).unwrap_or_default();
                let holder = if holder.is_empty() { "another process" } else { holder.trim_end() };
                let source = io::Error::new(ErrorKind::WouldBlock, format!("in use by {holder}"));
                let hint = "let it finish or stop it (it saves first), then resume; or start a run under another name";
                return Err(Error::Io { path, source, hint: hint.into() });
            }
        }
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let content = format!("process {} on {} since {now}\n", std::process::id(), host());
        lock.set_len(0).at(&file)?;
        lock.write_all(content.as_bytes()).at(&file)?;
        Ok(RunDir { path, _lock: lock })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.path.join("recipe.toml")
    }

    /// One JSON object a step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The folder of the token shards that were made for this run.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// What the model wrote after `step` steps.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.path.join("samples").join(format!("step-{step:06}.txt"))
    }

    /// The loss curve as a vector picture.
    pub fn loss_svg(&self) -> PathBuf {
        self.path.join("loss.svg")
    }

    /// The loss curve as pixels.
    pub fn loss_png(&self) -> PathBuf {
        self.path.join("loss.png")
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn host() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| std::env::var("HOSTNAME").unwrap_or("this machine".into()), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(run: &RunDir) -> String {
        run.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn a_taken_name_gets_a_number_and_an_empty_folder_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("deep/runs");
        std::fs::create_dir_all(runs.join("a-3")).unwrap();
        let runs: Vec<RunDir> = (0..4).map(|_| RunDir::create(&runs, "a").unwrap()).collect();
        assert_eq!(runs.iter().map(name).collect::<Vec<_>>(), ["a", "a-2", "a-3", "a-4"]);
    }

    #[test]
    fn simultaneous_starts_get_different_directories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let start = || RunDir::create(dir.path(), "a").unwrap();
        let mut names: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            let runs: Vec<RunDir> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            runs.iter().map(name).collect()
        });
        names.sort();
        assert_eq!(names, ["a", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8"]);
    }

    #[test]
    fn a_run_is_held_by_one_and_the_error_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), "a").unwrap();
        std::fs::write(run.recipe(), "").unwrap();
        let path = run.path().to_owned();
        let message = RunDir::open(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("in use by process {} on ", std::process::id())), "{message}");
        drop(run);
        RunDir::open(&path).unwrap();
        assert!(RunDir::open(dir.path()).unwrap_err().to_string().contains("no run is here"));
    }
}
