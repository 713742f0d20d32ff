//! The right to be forgotten: documents go out of all files of a line, versions that learnt them are withdrawn, and a version is trained anew from the
//! last one that did not.
//!
//! **Evidence, not proof.** How well each model knows the documents is compared with how well it knows held-out ones: the share of these that it knows
//! better. Of a model that never saw a document this is a number by chance, from 0 to 1; of one that learnt it by heart it is near 0. A model that was
//! trained anew without it *is* one that never saw it; the figure shows that nothing went wrong on the way.

use super::gates::{open, read_by};
use super::line::{HELD, Line, NEW, REPLAY, State, Version};
use super::round::{Course, again};
use super::texts::{Text, read, write};
use crate::disk::{Disk, Os};
use crate::error::{AtPath, Error, Result};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is known of documents that are to go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traces {
    /// Versions that learnt one of them, or come from one that did, the oldest first.
    pub affected: Vec<String>,
    /// The last version in service's ancestry that did not.
    pub clean: Option<String>,
    /// Files with some of them.
    pub files: Vec<PathBuf>,
    /// The documents.
    #[serde(skip)]
    texts: Vec<Text>,
}

/// How well a document is known: bits a byte, and the share of held-out documents that are known better.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exposure {
    /// The document.
    pub id: String,
    /// By the version that was in service.
    pub before: [f64; 2],
    /// By the version that was trained anew.
    pub after: [f64; 2],
    /// By the one that it comes from, which never saw it.
    pub never: [f64; 2],
}

/// Where the documents called `ids` are in a line, and which versions have learnt them.
///
/// # Errors
/// None of them is there.
pub fn find(line: &Line, ids: &[String]) -> Result<Traces> {
    let versions = line.versions()?;
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut traces = Traces { affected: Vec::new(), clean: None, files: Vec::new(), texts: Vec::new() };
    let mut holds = |path: PathBuf| -> Result<bool> {
        if !path.is_file() || path.metadata().at(&path)?.len() == 0 {
            return Ok(false);
        }
        let found: Vec<Text> = read(&path)?.into_iter().filter(|text| wanted.contains(&*text.id)).collect();
        let there = !found.is_empty();
        for text in found {
            if !traces.texts.contains(&text) {
                traces.texts.push(text);
            }
        }
        if there {
            traces.files.push(path);
        }
        Ok(there)
    };
    let mut learnt = BTreeSet::new();
    let mut along = BTreeSet::new();
    for version in &versions {
        let folder = line.folder(&version.name);
        if holds(folder.join(NEW))? {
            learnt.insert(version.name.clone());
        }
        holds(folder.join(HELD))?;
        if holds(folder.join(REPLAY))? {
            along.insert(version.name.clone());
        }
    }
    let inbox = line.dir().join("inbox");
    if inbox.is_dir() {
        for name in Os.list(&inbox).at(&inbox)? {
            holds(inbox.join(name))?;
        }
    }
    if traces.texts.is_empty() {
        let problem = format!("{}: no document of the line is called {:?}", line.dir().display(), ids[0]);
        let hint = "names are ids, or FILE:LINE; of what the first version was trained on: kiln data takedown";
        return Err(Error::usage(problem, hint));
    }
    for version in &versions {
        let hit = match &version.parent {
            // What the first one replays, it has learnt.
            None => along.contains(&version.name),
            Some(parent) => {
                let inherits = traces.affected.contains(parent) || along.contains(parent);
                learnt.contains(&version.name) || inherits
            }
        };
        if hit {
            traces.affected.push(version.name.clone());
        }
    }
    let current = line.ancestry(&line.pointer()?.current)?;
    traces.clean = current.into_iter().map(|version| version.name).find(|name| !traces.affected.contains(name));
    Ok(traces)
}

/// Takes documents out, withdraws what learnt them, and trains a version anew where the one in service did; with what each model knows of them.
///
/// # Errors
/// The first version has learnt them, so there is none to train from; as of a round.
pub fn forget(line: &Line, traces: &Traces, course: &mut Course) -> Result<Option<(Version, Vec<Exposure>)>> {
    let gone: BTreeSet<&str> = traces.texts.iter().map(|text| &*text.id).collect();
    let before = line.pointer()?.current;
    // First who learnt them: as long as files have them, it can be found out again.
    let (mut versions, mut lost) = (line.versions()?, Vec::new());
    for version in versions.iter_mut().filter(|version| traces.affected.contains(&version.name)) {
        version.state = State::Withdrawn;
        line.save(version)?;
        lost.push(version.clone());
    }
    for path in &traces.files {
        let left: Vec<Text> = read(path)?.into_iter().filter(|text| !gone.contains(&*text.id)).collect();
        write(path, &left)?;
    }
    for version in &mut versions {
        line.hash(version)?;
        line.save(version)?;
    }
    line.tell("forgotten", json!({"documents": gone.len(), "withdrawn": traces.affected}))?;
    if !traces.affected.contains(&before) {
        return Ok(None);
    }
    let Some(clean) = &traces.clean else {
        let problem = format!("{} itself has learnt them, and no version is from before", lost[0].name);
        let hint = "take them out of its data (kiln data takedown), train it again, and begin a new line with it";
        return Err(Error::failed(problem, hint));
    };
    let lineage: BTreeSet<String> = line.ancestry(&before)?.into_iter().map(|version| version.name).collect();
    lost.retain(|version| lineage.contains(&version.name));
    let version = again(line, clean, &lost, course)?;
    let held = read(&line.folder(&version.name).join(HELD))?;
    let ask = |name: &str| -> Result<Vec<[f64; 2]>> {
        let mut model = open(line, name, course.device)?;
        let others = read_by(&mut model, &held, &mut || Ok(()))?.each();
        let own = read_by(&mut model, &traces.texts, &mut || Ok(()))?.each();
        let better = |bits: f64| others.iter().filter(|other| **other < bits).count() as f64 / others.len() as f64;
        Ok(own.into_iter().map(|bits| [bits, better(bits)]).collect())
    };
    let [was, is, never] = [ask(&before)?, ask(&version.name)?, ask(clean)?];
    let exposed = (0..traces.texts.len())
        .map(|i| Exposure { id: traces.texts[i].id.clone(), before: was[i], after: is[i], never: never[i] })
        .collect();
    Ok(Some((version, exposed)))
}
