//! A new version of new documents: clean, mix with what was learnt before, train, judge.
//!
//! A round that is interrupted goes on where it stopped, for each of its parts is whole or absent. What it makes is promoted by a person
//! ([`Line::promote`]), or at once where that was asked for.

use super::gates::{Gate, judge};
use super::line::{HELD, Line, NEW, REPLAY, State, Version, apart};
use super::texts::{self, draw};
use crate::data::Sources;
use crate::data::clean::{self, DOCUMENTS};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use crate::formats::tensors::{hex, sha256};
use crate::serve::now;
use crate::train::tune::TUNE;
use crate::train::{AnyRecipe, Watch};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who hears of a round, and may stop it.
pub struct Course<'a> {
    /// Where it computes.
    pub device: &'a Device,
    /// Watches training.
    pub watch: &'a mut dyn Watch,
    /// Hears of each part before it begins.
    pub told: &'a mut dyn FnMut(&str),
}

impl Course<'_> {
    pub(super) fn stopped(&self) -> Result<()> {
        match self.watch.stop() {
            None => Ok(()),
            Some(signal) => {
                Err(Error::failed(format!("stopped by signal {signal}"), "the same command goes on where it stopped"))
            }
        }
    }
}

/// Makes a version of the documents in `paths`, or goes on with the one that is not finished. `marks` are documents of watched files that had been
/// read by then.
///
/// # Errors
/// There is an unfinished version of other documents; a document cannot be read; training fails; a signal stopped it.
pub fn round(line: &Line, paths: &[PathBuf], marks: BTreeMap<PathBuf, u64>, course: &mut Course) -> Result<Version> {
    let mut version = begin(line, paths, marks)?;
    let folder = line.folder(&version.name);
    let paths: Vec<PathBuf> = version.sources.keys().cloned().collect();
    if !folder.join(NEW).is_file() {
        (course.told)(&format!("{}: cleaning", version.name));
        cleaned(line, &mut version, &paths)?;
        course.stopped()?;
    }
    finish(line, version, course)
}

/// Trains a version whose documents are at hand, and judges it.
fn finish(line: &Line, mut version: Version, course: &mut Course) -> Result<Version> {
    let parent = version.comes_from()?.to_owned();
    let kept = Gate::kept(version.count("kept"), version.count("read"), line.settings.gate.kept);
    let enough = kept.passed;
    version.gates = vec![kept];
    if enough {
        train(line, &version, &parent, course)?;
        (course.told)(&format!("{}: judging it beside {parent}", version.name));
        version.gates.extend(judge(line, &version, course.device, &mut || course.stopped())?);
        line.hash(&mut version)?;
    }
    let passed = version.gates.iter().all(|gate| gate.passed);
    version.state = if passed { State::Passed } else { State::Refused };
    line.save(&version)?;
    let failed: Vec<&str> = version.gates.iter().filter(|gate| !gate.passed).map(|gate| &*gate.name).collect();
    line.tell(if passed { "passed" } else { "refused" }, json!({"version": version.name, "failed": failed}))?;
    Ok(version)
}

/// A version of what versions have learnt that were withdrawn, trained from `parent` instead.
///
/// # Errors
/// As of [`round`].
pub(super) fn again(line: &Line, parent: &str, lost: &[Version], course: &mut Course) -> Result<Version> {
    let last = lost.last().expect("a version was withdrawn");
    let mut version = fresh(line, parent, last.sources.clone(), last.marks.clone())?;
    let folder = line.folder(&version.name);
    let all = |name: &str| -> Result<Vec<texts::Text>> {
        let each = lost.iter().map(|version| texts::read(&line.folder(&version.name).join(name)));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    };
    let (held, new) = (all(HELD)?, all(NEW)?);
    let [n, kept] = [new.len() as u64, (new.len() + held.len()) as u64];
    let counts = [("read", kept), ("kept", kept), ("held", kept - n), ("learnt", n)];
    version.documents = counts.map(|(name, n)| (name.to_owned(), n)).into();
    texts::write(&folder.join(HELD), &held)?;
    texts::write(&folder.join(REPLAY), &texts::read(&line.folder(&last.name).join(REPLAY))?)?;
    line.save(&version)?;
    texts::write(&folder.join(NEW), &new)?;
    finish(line, version, course)
}

/// The version that is made of these documents: a new one, or the one that was not finished.
fn begin(line: &Line, paths: &[PathBuf], marks: BTreeMap<PathBuf, u64>) -> Result<Version> {
    let versions = line.versions()?;
    let open = versions.iter().find(|version| version.state == State::Begun);
    if let Some(open) = open {
        let given = paths.iter().map(|path| Ok((path.clone(), hash(path)?))).collect::<Result<BTreeMap<_, _>>>()?;
        if paths.is_empty() || given == open.sources {
            return Ok(open.clone());
        }
        let problem = format!("{} is not finished, and is made of other documents", open.name);
        let hint = format!("finish it: kiln update run {}; or remove its folder", line.dir().display());
        return Err(Error::usage(problem, hint));
    }
    if paths.is_empty() {
        let hint = "name what is new: --data FILE";
        return Err(Error::usage("there is no unfinished version to go on with", hint));
    }
    let sources = paths.iter().map(|path| Ok((path.clone(), hash(path)?))).collect::<Result<_>>()?;
    // Nothing is learnt on top of what must be forgotten.
    let ancestry = line.ancestry(&line.pointer()?.current)?;
    let parent = ancestry.iter().find(|version| version.state != State::Withdrawn).ok_or_else(|| {
        let problem = format!("{} and all that it comes from are withdrawn", ancestry[0].name);
        Error::failed(problem, "begin a new line with a model that has not learnt what is to be forgotten")
    })?;
    fresh(line, &parent.name, sources, marks)
}

/// A version of which nothing is there yet.
fn fresh(
    line: &Line,
    parent: &str,
    sources: BTreeMap<PathBuf, String>,
    marks: BTreeMap<PathBuf, u64>,
) -> Result<Version> {
    let last = line.versions()?.last().and_then(|version| version.name.parse::<u64>().ok()).unwrap_or(0);
    let version = Version {
        name: format!("{:04}", last + 1),
        parent: Some(parent.to_owned()),
        time: now(),
        state: State::Begun,
        sources,
        documents: BTreeMap::new(),
        hashes: BTreeMap::new(),
        gates: Vec::new(),
        marks,
    };
    // What a round that never got so far has left.
    let folder = line.folder(&version.name);
    disk::remove_all(&Os, &folder)?;
    disk::make_dirs(&Os, &folder)?;
    line.save(&version)?;
    Ok(version)
}

/// The SHA-256 of a file, or of the hashes of a folder's files.
fn hash(path: &Path) -> Result<String> {
    if path.is_file() {
        return sha256(&Os, path);
    }
    let files = Sources::open(&[path], "text")?;
    let all = files.files().iter().map(|file| sha256(&Os, file)).collect::<Result<Vec<_>>>()?;
    Ok(hex(Sha256::new_with_prefix(all.concat())))
}

/// Cleans the documents, holds some out, and writes both.
fn cleaned(line: &Line, version: &mut Version, paths: &[PathBuf]) -> Result<()> {
    let folder = line.folder(&version.name);
    let out = folder.join("cleaned");
    let options = clean::Options::new(clean::Recipe::load(None, &line.settings.clean.set)?, out.clone());
    let report = clean::clean(&Sources::open(paths, "text")?, &options, &mut |_| {})?.report;
    let (read, kept) = (report.read.documents, report.written.documents);
    let all = if kept == 0 { Vec::new() } else { texts::read(&out.join(DOCUMENTS))? };
    let learn = &line.settings.learn;
    let count = ((all.len() as f64 * learn.held).ceil() as usize).min(all.len() / 2);
    let (held, new) = apart(all, count, learn.seed);
    let parent = version.comes_from()?;
    // All that is new stays to be learnt along later, and as much of before as there is room for.
    let before = texts::read(&line.folder(parent).join(REPLAY))?;
    let before = draw(before, learn.replay.saturating_sub(new.len()), learn.seed);
    let later = draw([&before[..], &new].concat(), learn.replay, learn.seed);
    let counts = [("read", read), ("kept", kept), ("held", held.len() as u64), ("learnt", new.len() as u64)];
    version.documents = counts.map(|(name, n)| (name.to_owned(), n)).into();
    texts::write(&folder.join(HELD), &held)?;
    texts::write(&folder.join(REPLAY), &later)?;
    // The last one: where it is, the others are, and what was counted.
    line.save(version)?;
    texts::write(&folder.join(NEW), &new)?;
    // It has nothing that these have not, and what has to be forgotten should not be looked for there.
    let all = out.join(DOCUMENTS);
    if all.is_file() { std::fs::remove_file(&all).at(&all) } else { Ok(()) }
}

/// The settings of a version's run: it goes on from `parent` with these documents, and the parent's beside them.
fn recipe(line: &Line, version: &str, parent: &str) -> Vec<String> {
    let quoted = |path: PathBuf| toml::Value::from(&*path.to_string_lossy()).to_string();
    let own = [
        format!("model.base={}", quoted(line.model(parent))),
        format!("data.path={}", quoted(line.folder(version).join(NEW))),
        format!("data.replay={}", quoted(line.folder(parent).join(REPLAY))),
        format!("data.seed={}", line.settings.learn.seed),
        format!("train.seed={}", line.settings.learn.seed),
        "data.val_fraction=0.05".into(),
        "sample.count=0".into(),
    ];
    [&own[..], &line.settings.learn.set].concat()
}

/// Trains a version, or goes on with that.
pub(super) fn train(line: &Line, version: &Version, parent: &str, course: &mut Course) -> Result<()> {
    (course.told)(&format!("{}: learning from {} documents", version.name, version.count("learnt")));
    let set = recipe(line, &version.name, parent);
    AnyRecipe::once(&line.folder(&version.name), "run", TUNE, &set, course.device, course.watch)?;
    Ok(())
}
