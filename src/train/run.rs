//! The run directory: one run's files, and the lock that keeps it to one process.

use crate::disk::{self, Disk, File, Open};
use crate::error::{AtPath, Error, Result};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const LOCK: &str = "lock";
/// The file of [`RunDir::account`].
pub const ACCOUNT: &str = "plan.json";
/// The file of [`RunDir::privacy`].
pub const PRIVACY: &str = "privacy.json";

/// A run directory that this process holds; dropping it lets others have it.
#[derive(Debug)]
pub struct RunDir<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    lock: Box<dyn File>,
}

impl<'d> RunDir<'d> {
    /// Makes `dir/name` for a new run, or `dir/name-2`, `dir/name-3`, … where a run is there already.
    pub fn create(disk: &'d dyn Disk, dir: &Path, name: &str) -> Result<RunDir<'d>> {
        let unusable = |e| match e {
            Error::Io { path, source, .. } => {
                let hint = "runs need a folder that can be written to: choose one with --set run.dir=FOLDER".into();
                Error::Io { path, source, hint }
            }
            other => other,
        };
        disk::make_dirs(disk, dir).map_err(unusable)?;
        for n in 1u64.. {
            let path = if n == 1 { dir.join(name) } else { dir.join(format!("{name}-{n}")) };
            match disk.create_dir(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    if !is_unused(disk, &path) {
                        continue;
                    }
                }
                made => made.at(&path).map_err(unusable)?,
            }
            disk.sync_dir(dir).at(&path)?;
            // Two processes may have found it unused; the one that got the lock looks again, for the other one may have
            // been there and left.
            if let Some(run) = RunDir::lock(disk, &path)?
                && is_unused(disk, &path)
            {
                disk::sweep(disk, &path)?;
                return Ok(run);
            }
        }
        unreachable!("some number is free")
    }

    /// Takes the existing run at `path`, and clears away files that a process left which was killed while it wrote them.
    ///
    /// # Errors
    /// There is no run; another process holds it (the error says which).
    pub fn open(disk: &'d dyn Disk, path: &Path) -> Result<RunDir<'d>> {
        let recipe = path.join("recipe.toml");
        if !disk.exists(&recipe).at(&recipe)? {
            let source = io::Error::new(ErrorKind::NotFound, "no run is here (it would have a recipe.toml)");
            let hint = "give the directory that an earlier run printed, as runs/village".into();
            return Err(Error::Io { path: path.to_owned(), source, hint });
        }
        let Some(run) = RunDir::lock(disk, path)? else {
            let source = io::Error::new(ErrorKind::WouldBlock, format!("in use by {}", holder(disk, &path.join(LOCK))));
            let hint = "let it finish or stop it (it saves first), then resume; or start a run under another name";
            return Err(Error::Io { path: path.to_owned(), source, hint: hint.into() });
        };
        for dir in [path.to_owned(), run.data(), run.samples(), run.rollouts()] {
            disk::sweep(disk, &dir)?;
        }
        Ok(run)
    }

    /// The run at `path` that another process of the same training holds: to be read alone.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn look(disk: &'d dyn Disk, path: &Path) -> Result<RunDir<'d>> {
        let file = path.join(LOCK);
        Ok(RunDir { disk, path: path.to_owned(), lock: disk.open(&file, Open::Append).at(&file)? })
    }

    /// The run at `path` with its lock, or nothing where another process has that.
    fn lock(disk: &'d dyn Disk, path: &Path) -> Result<Option<RunDir<'d>>> {
        let file = path.join(LOCK);
        let mut lock = disk.open(&file, Open::Append).at(&file)?;
        if !lock.try_lock().at(&file)? {
            return Ok(None);
        }
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let content = format!("process {} on {} since {now}\n", std::process::id(), host());
        lock.set_len(0).at(&file)?;
        lock.write_all(content.as_bytes()).at(&file)?;
        Ok(Some(RunDir { disk, path: path.to_owned(), lock }))
    }

    /// Where it is.
    pub fn disk(&self) -> &'d dyn Disk {
        self.disk
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

    /// The folder of what the model wrote.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// What the model made after `step` steps, in a file of this type, as `txt`.
    pub fn sample(&self, step: u64, extension: &str) -> PathBuf {
        self.samples().join(format!("step-{step:06}.{extension}"))
    }

    /// The folder of the answers that it learns from, of reinforcement learning.
    pub fn rollouts(&self) -> PathBuf {
        self.path.join("rollouts")
    }

    /// What was planned, and what it took.
    pub fn account(&self) -> PathBuf {
        self.path.join(ACCOUNT)
    }

    /// What a private run has spent.
    pub fn privacy(&self) -> PathBuf {
        self.path.join(PRIVACY)
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

impl Drop for RunDir<'_> {
    fn drop(&mut self) {
        // The name must not be taken for that of the next holder. That it stays is no harm: see `holder`.
        let _ = self.lock.set_len(0);
    }
}

/// Whether a run may begin in `path`: it holds nothing, or what a process left that was killed before it wrote a recipe.
fn is_unused(disk: &dyn Disk, path: &Path) -> bool {
    disk.list(path).is_ok_and(|names| names.iter().all(|name| name == LOCK || disk::is_temporary(name)))
}

/// Who holds the lock `file`, as that process wrote into it. For a moment after it took the lock the file is empty, or
/// names the one before, which was killed: then this waits.
fn holder(disk: &dyn Disk, file: &Path) -> String {
    let mut holder = String::new();
    for _ in 0..100 {
        holder = disk::read(disk, file).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        if holder.ends_with('\n') && !is_gone(&holder) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if holder.is_empty() { "another process".to_owned() } else { holder.trim_end().to_owned() }
}

/// Whether the process that a lock names certainly runs no more, as far as this machine tells.
fn is_gone(holder: &str) -> bool {
    Holder::parse(holder).is_some_and(|holder| holder.is_gone())
}

/// The process that holds a run, as its lock names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// The name of its machine.
    pub host: String,
}

impl Holder {
    /// Who holds the run at `path`, as far as its lock and this machine tell: the lock is read, not taken, so that nobody is kept from it.
    pub fn of(path: &Path) -> Option<Holder> {
        let text = std::fs::read_to_string(path.join(LOCK)).ok()?;
        Holder::parse(&text).filter(|holder| !holder.is_gone())
    }

    fn parse(text: &str) -> Option<Holder> {
        let (process, rest) = text.strip_prefix("process ")?.split_once(" on ")?;
        let host = rest.split(' ').next()?.to_owned();
        Some(Holder { process: process.parse().ok()?, host })
    }

    /// Whether it runs on this machine.
    pub fn is_here(&self) -> bool {
        self.host == host()
    }

    fn is_gone(&self) -> bool {
        let processes = Path::new("/proc");
        self.is_here() && processes.join("self").exists() && !processes.join(self.process.to_string()).exists()
    }
}

fn host() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| std::env::var("HOSTNAME").unwrap_or("this machine".into()), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    fn name(run: &RunDir) -> String {
        run.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn a_taken_name_gets_a_number_and_an_empty_folder_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("deep/runs");
        std::fs::create_dir_all(runs.join("a-3")).unwrap();
        let runs: Vec<RunDir> = (0..4).map(|_| RunDir::create(&Os, &runs, "a").unwrap()).collect();
        assert_eq!(runs.iter().map(name).collect::<Vec<_>>(), ["a", "a-2", "a-3", "a-4"]);
    }

    #[test]
    fn simultaneous_starts_get_different_directories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let start = || RunDir::create(&Os, dir.path(), "a").unwrap();
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
        let run = RunDir::create(&Os, dir.path(), "a").unwrap();
        std::fs::write(run.recipe(), "").unwrap();
        let path = run.path().to_owned();
        let message = RunDir::open(&Os, &path).unwrap_err().to_string();
        assert!(message.contains(&format!("in use by process {} on ", std::process::id())), "{message}");
        let holder = Holder::of(&path).unwrap();
        assert_eq!((holder.process, holder.is_here()), (std::process::id(), true));
        drop(run);
        assert_eq!(Holder::of(&path), None);
        // What a killed process leaves; no process has this number.
        std::fs::write(path.join(LOCK), format!("process 4194999 on {} since then\n", host())).unwrap();
        assert_eq!(Holder::of(&path), None);
        std::fs::write(path.join(LOCK), "process 4194999 on elsewhere since then\n").unwrap();
        assert!(Holder::of(&path).is_some_and(|holder| !holder.is_here()));
        RunDir::open(&Os, &path).unwrap();
        assert!(RunDir::open(&Os, dir.path()).unwrap_err().to_string().contains("no run is here"));
    }
}
