//! A line of versions: a folder with every version of a model that was in service or was tried, what each was made of, and which one serves.
//!
//! | in the folder | |
//! |---|---|
//! | `update.toml` | [`Settings`] |
//! | `line.json` | [which version is in service](crate::train::served): the only thing that promotion and rollback change |
//! | `history.jsonl` | what happened, a line each |
//! | `0001/` | the model that the line began with: `model/` |
//! | `0002/` | a version made of new documents: `run/`, an ordinary run |
//! | `NNNN/version.json` | [`Version`]: its parent, its data and their hashes, its figures |
//! | `NNNN/new.jsonl`, `held.jsonl`, `replay.jsonl` | what it learnt, what was held out of that, and what its children learn along |
//!
//! A version's folder is not changed once it is judged, but to take documents out that have to be forgotten. So to go back to one gives the same bits.

use super::gates::Gate;
use super::settings::{Settings, UPDATE};
use super::texts;
use crate::data::atomic::write_atomic;
use crate::data::dataset::{DATASET_FILE, Part};
use crate::disk::{self, Disk, Open, Os};
use crate::error::{AtPath, Error, Result};
use crate::formats::convert::{Target, convert};
use crate::formats::tensors::sha256;
use crate::serve::now;
use crate::train::checkpoint::read_json;
use crate::train::sampler::{foreign, model, place};
use crate::train::seen;
use crate::train::served::{Pointer, is_name, model_of};
use crate::train::{AnyRecipe, checkpoint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The settings of a line.
pub const SETTINGS: &str = "update.toml";
/// What happened to it.
pub const HISTORY: &str = "history.jsonl";
const VERSION: &str = "version.json";
/// What a version learnt, in its folder.
pub const NEW: &str = "new.jsonl";
/// What was held out of that.
pub const HELD: &str = "held.jsonl";
/// What its children learn along.
pub const REPLAY: &str = "replay.jsonl";
/// What the hash of its weights, or of its adapter's, is called.
const WEIGHTS: &str = "weights";
/// Held-out documents that are kept of the first version's data, at most.
const MOST_HELD: usize = 4000;

/// A line of versions.
#[derive(Clone, Debug)]
pub struct Line {
    dir: PathBuf,
    /// How it is kept good.
    pub settings: Settings,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being made.
    Begun,
    /// It passed all gates, or is what the line began with.
    Passed,
    /// It did not.
    Refused,
    /// It has learnt what is to be forgotten.
    Withdrawn,
}

/// A version, and all that it was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Its folder, as 0002.
    pub name: String,
    /// The version whose weights it began with.
    pub parent: Option<String>,
    /// When it was begun, in seconds since 1970.
    pub time: u64,
    /// What became of it.
    pub state: State,
    /// Where its documents come from, each with its SHA-256; of the first version, the model.
    pub sources: BTreeMap<PathBuf, String>,
    /// Documents: `read`, `kept` by cleaning, `learnt`, `held`.
    pub documents: BTreeMap<String, u64>,
    /// The SHA-256 of its files, and of its `weights`.
    pub hashes: BTreeMap<String, String>,
    /// What it had to pass.
    pub gates: Vec<Gate>,
    /// Documents of each watched file that had been read when it was made.
    pub marks: BTreeMap<PathBuf, u64>,
}

impl Version {
    /// How many documents there were of a kind.
    pub fn count(&self, of: &str) -> u64 {
        self.documents.get(of).copied().unwrap_or(0)
    }

    /// The version whose weights it began with.
    ///
    /// # Errors
    /// It is the first one.
    pub(super) fn comes_from(&self) -> Result<&str> {
        self.parent.as_deref().ok_or_else(|| {
            let problem = format!("{} comes from no other version, and cannot be made again", self.name);
            Error::failed(problem, "begin a new line: kiln update start")
        })
    }
}

impl Line {
    /// Begins one in the folder `dir` with a model, and its documents: those of `data`, or else those that the run was trained on.
    ///
    /// # Errors
    /// There is something in `dir`; there is no model, or no documents are known.
    pub fn start(dir: &Path, from: &Path, data: Option<&Path>, set: &[String]) -> Result<Line> {
        if dir.exists() && !Os.list(dir).at(dir)?.is_empty() {
            let problem = format!("{} is not empty", dir.display());
            return Err(Error::usage(problem, "give a new folder, or go on with the line: kiln update list"));
        }
        let settings = Settings::load(&dir.join(SETTINGS), set)?;
        let first = dir.join("0001");
        let [learnt, held] = documents(from, data, &settings)?;
        disk::make_dirs(&Os, &first)?;
        let text = match set.is_empty() {
            true => UPDATE.to_owned(),
            false => {
                format!("# data/recipes/update.toml explains every key.\n\n{}", crate::settings::to_toml(&settings))
            }
        };
        write_atomic(&Os, &dir.join(SETTINGS), text.as_bytes())?;
        bring(from, &first.join("model"))?;
        for (name, texts) in [(NEW, &[][..]), (HELD, &held), (REPLAY, &learnt)] {
            texts::write(&first.join(name), texts)?;
        }
        let line = Line { dir: dir.to_owned(), settings };
        let counts = [("read", learnt.len() + held.len()), ("held", held.len()), ("learnt", learnt.len())];
        let mut version = Version {
            name: "0001".into(),
            parent: None,
            time: now(),
            state: State::Passed,
            sources: BTreeMap::from([(from.to_owned(), sha256(&Os, &line.weights("0001")?)?)]),
            documents: counts.map(|(name, n)| (name.to_owned(), n as u64)).into(),
            hashes: BTreeMap::new(),
            gates: Vec::new(),
            marks: BTreeMap::new(),
        };
        line.hash(&mut version)?;
        line.save(&version)?;
        // Only now it is a line.
        Pointer { current: "0001".into(), before: Vec::new() }.save(dir)?;
        line.tell("started", json!({"version": "0001", "model": from}))?;
        Ok(line)
    }

    /// The one in the folder `dir`, its settings under `overrides`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path, overrides: &[String]) -> Result<Line> {
        if Pointer::of(dir)?.is_none() {
            let problem = format!("{} is no line of versions", dir.display());
            let hint = format!("begin one: kiln update start {} --model RUN", dir.display());
            return Err(Error::usage(problem, hint));
        }
        Ok(Line { dir: dir.to_owned(), settings: Settings::load(&dir.join(SETTINGS), overrides)? })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a version.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The model of a version, as other commands take it.
    pub fn model(&self, name: &str) -> PathBuf {
        model_of(&self.folder(name))
    }

    /// The file of a version's weights.
    fn weights(&self, name: &str) -> Result<PathBuf> {
        let (dir, _) = place(&self.model(name))?;
        let names = [checkpoint::MODEL, checkpoint::ADAPTER[0]].map(|name| dir.join(name));
        names.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let problem = format!("{} has no weights in one file", dir.display());
            Error::failed(problem, "bring the model as kiln convert writes it")
        })
    }

    /// Whether its texts are read after the token that texts of kiln's own models start with.
    pub fn own(&self) -> bool {
        !foreign(&self.folder("0001").join("model"))
    }

    /// Which version is in service.
    ///
    /// # Errors
    /// The pointer cannot be read.
    pub fn pointer(&self) -> Result<Pointer> {
        Pointer::of(&self.dir)?
            .ok_or_else(|| Error::failed(format!("{} has no pointer", self.dir.display()), "begin it anew"))
    }

    /// All versions, the oldest first.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn versions(&self) -> Result<Vec<Version>> {
        let names = Os.list(&self.dir).at(&self.dir)?.into_iter().filter_map(|name| name.into_string().ok());
        let mut names: Vec<String> =
            names.filter(|name| is_name(name) && self.folder(name).join(VERSION).is_file()).collect();
        names.sort_by(|a, b| order(a).cmp(&order(b)));
        names.iter().map(|name| self.version(name)).collect()
    }

    /// The version `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn version(&self, name: &str) -> Result<Version> {
        let path = self.folder(name).join(VERSION);
        if !is_name(name) || !path.is_file() {
            let problem = format!("{} has no version {name:?}", self.dir.display());
            return Err(Error::usage(problem, format!("kiln update list {} names them", self.dir.display())));
        }
        let version: Version = read_json(&Os, &path)?;
        // So nothing comes from itself, however long the way.
        if let Some(parent) = version.parent.as_ref().filter(|parent| order(parent) >= order(name)) {
            let hint = "the file is damaged: put it back as it was";
            return Err(Error::format(&path, "parent", format!("a version before {name}"), parent, hint));
        }
        Ok(version)
    }

    /// A version and those whose weights it comes from, the first one last.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn ancestry(&self, name: &str) -> Result<Vec<Version>> {
        let mut all = vec![self.version(name)?];
        while let Some(parent) = all.last().and_then(|version| version.parent.clone()) {
            all.push(self.version(&parent)?);
        }
        Ok(all)
    }

    /// Keeps what is known of a version.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self, version: &Version) -> Result<()> {
        let text = serde_json::to_string_pretty(version).expect("plain data") + "\n";
        write_atomic(&Os, &self.folder(&version.name).join(VERSION), text.as_bytes())
    }

    /// Takes down the hashes of a version's files.
    pub(super) fn hash(&self, version: &mut Version) -> Result<()> {
        let folder = self.folder(&version.name);
        version.hashes = [NEW, HELD, REPLAY, "run/recipe.toml"]
            .into_iter()
            .filter(|name| folder.join(name).is_file())
            .map(|name| Ok((name.to_owned(), sha256(&Os, &folder.join(name))?)))
            .collect::<Result<_>>()?;
        // One that was refused before it was trained has none.
        if self.model(&version.name).exists() {
            version.hashes.insert(WEIGHTS.into(), sha256(&Os, &self.weights(&version.name)?)?);
        }
        Ok(())
    }

    /// Writes down what happened.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn tell(&self, what: &str, mut more: Value) -> Result<()> {
        let path = self.dir.join(HISTORY);
        (more["time"], more["what"]) = (now().into(), what.into());
        let mut file = Os.open(&path, Open::Append).at(&path)?;
        file.write_all(format!("{more}\n").as_bytes()).and_then(|()| file.sync()).at(&path)
    }

    /// Puts a version into service, by default the newest that passed; gives its name.
    ///
    /// # Errors
    /// It did not pass, and is not forced; its files are damaged.
    pub fn promote(&self, name: Option<&str>, force: bool) -> Result<String> {
        let pointer = self.pointer()?;
        let version = match name {
            Some(name) => self.version(name)?,
            None => {
                let passed = |version: &Version| {
                    version.state == State::Passed && order(&version.name) > order(&pointer.current)
                };
                let hint = format!("make one: kiln update run {} --data FILE", self.dir.display());
                let none = || Error::usage(format!("no version after {} passed its gates", pointer.current), hint);
                self.versions()?.into_iter().rfind(passed).ok_or_else(none)?
            }
        };
        if version.name == pointer.current {
            let problem = format!("{} is in service", version.name);
            return Err(Error::usage(problem, format!("kiln update list {} names the others", self.dir.display())));
        }
        if version.state != State::Passed && (!force || version.state == State::Begun) {
            let problem = format!("{} is {}", version.name, version.state.says());
            let hint = match version.state {
                State::Begun => format!("finish it: kiln update run {}", self.dir.display()),
                _ => "look at its gates: kiln update list LINE NAME; --force puts it into service all the same".into(),
            };
            return Err(Error::usage(problem, hint));
        }
        self.turn(
            &version,
            Pointer { current: version.name.clone(), before: [&pointer.before[..], &[pointer.current]].concat() },
        )?;
        self.tell("promoted", json!({"version": version.name, "state": version.state}))?;
        Ok(version.name)
    }

    /// Goes back to `name`, by default to the version before; gives its name.
    ///
    /// # Errors
    /// There is none; its files are damaged, or it has learnt what is to be forgotten.
    pub fn roll_back(&self, name: Option<&str>) -> Result<String> {
        let pointer = self.pointer()?;
        let at = match name {
            None => pointer.before.len().checked_sub(1),
            Some(name) => pointer.before.iter().rposition(|own| own == name),
        };
        let Some(at) = at else {
            let problem = match name {
                None => format!("{} is the first version", pointer.current),
                Some(name) => format!("{name} was not in service before {}", pointer.current),
            };
            return Err(Error::usage(problem, "promote another one: kiln update promote LINE NAME"));
        };
        let version = self.version(&pointer.before[at])?;
        if version.state == State::Withdrawn {
            let problem = format!("{} is {}", version.name, version.state.says());
            return Err(Error::usage(problem, "go back further: kiln update rollback LINE NAME"));
        }
        let back = Pointer { current: version.name.clone(), before: pointer.before[..at].to_vec() };
        self.turn(&version, back)?;
        self.tell("rolled back", json!({"version": version.name, "from": pointer.current}))?;
        Ok(version.name)
    }

    /// Turns the pointer to a version whose weights are as they were.
    fn turn(&self, version: &Version, to: Pointer) -> Result<()> {
        let weights = self.weights(&version.name)?;
        let (was, is) = (version.hashes.get(WEIGHTS), sha256(&Os, &weights)?);
        if was != Some(&is) {
            let was = was.map_or("no hash", String::as_str);
            let hint = "its weights have changed since: take another version";
            return Err(Error::format(&weights, "SHA-256", was, is, hint));
        }
        to.save(&self.dir)
    }
}

/// Which version is before which: by their numbers, of any length.
fn order(name: &str) -> (usize, &str) {
    (name.len(), name)
}

impl State {
    /// For people.
    pub fn says(self) -> &'static str {
        match self {
            State::Begun => "not finished",
            State::Passed => "passed",
            State::Refused => "refused by its gates",
            State::Withdrawn => "withdrawn: it has learnt what is to be forgotten",
        }
    }
}

/// What a model has learnt, and what was held out of that.
fn documents(from: &Path, data: Option<&Path>, settings: &Settings) -> Result<[Vec<texts::Text>; 2]> {
    let seed = settings.learn.seed;
    let sets = || -> Result<Option<PathBuf>> {
        if !from.join("recipe.toml").is_file() {
            return Ok(None);
        }
        Ok(match AnyRecipe::of_run(from, &[])? {
            AnyRecipe::Text(recipe) => seen::data(from, &recipe),
            _ => None,
        })
    };
    let set = match data {
        Some(data) => data.join(DATASET_FILE).is_file().then(|| data.to_owned()),
        None => sets()?,
    };
    if let Some(set) = set {
        let of = |part, most| texts::of_dataset(&set, part, most, seed);
        return Ok([of(Part::Train, settings.learn.replay)?, of(Part::Val, MOST_HELD)?]);
    }
    let Some(data) = data else {
        let problem = format!("what {} has learnt is not beside it", from.display());
        return Err(Error::usage(problem, "name it, or text that is like it: --data PATH"));
    };
    let all = texts::read(data)?;
    let held = ((all.len() as f64 * settings.learn.held).ceil() as usize).clamp(1, MOST_HELD);
    if all.len() < 20 {
        let problem = format!("{}: {} documents are too few", data.display(), all.len());
        return Err(Error::usage(problem, "give 20 at least"));
    }
    let (held, learnt) = apart(all, held, seed);
    Ok([texts::draw(learnt, settings.learn.replay, seed), held])
}

/// `count` of the documents by chance, and the others.
pub(super) fn apart(all: Vec<texts::Text>, count: usize, seed: u64) -> (Vec<texts::Text>, Vec<texts::Text>) {
    let chosen: std::collections::HashSet<usize> =
        texts::draw((0..all.len()).collect(), count, seed).into_iter().collect();
    let mut i = 0;
    all.into_iter().partition(|_| {
        i += 1;
        chosen.contains(&(i - 1))
    })
}

/// The model `from` into the folder `out`: a checkpoint as it is, anything else as `kiln convert` writes it.
fn bring(from: &Path, out: &Path) -> Result<()> {
    let (dir, damaged) = place(from)?;
    if let Some(damage) = damaged.into_iter().next() {
        return Err(damage);
    }
    if foreign(&dir) || !dir.join(checkpoint::MODEL).is_file() {
        return convert(&model(from)?.0, out, Target::Hf, None, &mut |_, _| {}).map(drop);
    }
    disk::make_dirs(&Os, out)?;
    for name in Os.list(&dir).at(&dir)? {
        let (from, to) = (dir.join(&name), out.join(&name));
        std::fs::copy(&from, &to).at(&to)?;
    }
    Ok(())
}
