//! Checkpoints: directories that are whole or absent.
//!
//! `checkpoints/step-000060/` holds `model.safetensors` (weights under their Hugging Face names; of an adapted model
//! `adapter_model.safetensors` and `adapter_config.json`, as PEFT writes them, and no others), `optim.safetensors`
//! (the optimizer's moments as `exp_avg.NAME` or `momentum_buffer.NAME`), `state.json`, `config.json`, `tokenizer.json` and
//! `SHA256SUMS` over all of them, which `sha256sum -c` can check. Everything is written and synced under a hidden name
//! beside it (`.step-000060.tmp`), then renamed: whatever happens, a directory of that name is complete. One that is
//! replaced steps aside (`.step-000060.aside`) until the new one stands. The invariants:
//!
//! 1. No checkpoint is removed before a newer one stands and verifies. Those that a run went back behind are set aside
//!    until then.
//! 2. Nothing is removed before the names that the others have now are on disk: after a loss of power a checkpoint is
//!    there or not, never a part of it under its name.
//! 3. At every moment the newest of them can be found: where nothing has the name, that is the one that stepped aside.
//! 4. Every flipped byte and every truncation is found before anything is loaded.

use super::guard::Guard;
use super::metrics::Record;
use super::recipe::MAX_STEPS;
use super::run::RunDir;
use super::tensors::{self, Entry, Reader};
use crate::disk::{self, Disk, Open};
use crate::error::{AtPath, Error, Result};
use crate::formats::peft;
use crate::nn::lora::is_adapter;
use crate::params::{ParamId, Params};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Weights, in `config.json`'s architecture.
pub const MODEL: &str = "model.safetensors";
/// Moments.
pub const OPTIM: &str = "optim.safetensors";
/// A [`State`].
pub const STATE: &str = "state.json";
/// The architecture, as Hugging Face writes it.
pub const CONFIG: &str = "config.json";
/// The weights of an adapter, and what it is.
pub const ADAPTER: [&str; 2] = [peft::MODEL, peft::CONFIG];
/// The tokenizer, as Hugging Face writes it.
pub const TOKENIZER: &str = "tokenizer.json";
/// The checksums of all of them.
pub const SUMS: &str = "SHA256SUMS";
/// The JSON and the checksums of a checkpoint take a few kilobytes.
const MAX_TEXT: u64 = 1 << 20;

/// Where a run stands, beside weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Tokens, or pictures, trained on.
    pub tokens: u64,
    /// The recipe's seed.
    pub seed: u64,
    /// Updates that the optimizer has done, for its bias correction.
    pub optimizer_steps: u64,
    /// The loss of the last step that was not skipped, in nats a token.
    pub loss: Option<f32>,
    /// The last validation loss known when this was written.
    pub val_loss: Option<f64>,
    /// The line of `metrics.jsonl` of the last step, without what was found out after this was written: a process that
    /// dies before it appends the line leaves it here.
    #[serde(default)]
    pub record: Option<Record>,
    /// What is known of steps that went wrong.
    #[serde(default)]
    pub guard: Guard,
    /// After so many steps, the data set with this [hash](crate::data::DatasetInfo::hash) was trained on, until the next one was;
    /// none in files older than this.
    #[serde(default)]
    pub data: Vec<(u64, String)>,
    /// What computed the last step, `cpu` or `gpu`; empty in files older than this.
    #[serde(default)]
    pub device: String,
    /// The version of kiln that wrote it.
    pub kiln: String,
}

impl State {
    /// Before the first step.
    pub fn new(seed: u64) -> State {
        State {
            step: 0,
            tokens: 0,
            seed,
            optimizer_steps: 0,
            loss: None,
            val_loss: None,
            record: None,
            guard: Guard::new(),
            data: Vec::new(),
            device: String::new(),
            kiln: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Reads the text of a `state.json`; `path` names it in messages.
    ///
    /// # Errors
    /// It is damaged, or counts what no run reaches.
    pub fn from_json(text: &str, path: &Path) -> Result<State> {
        let state: State = parse_json(text, path)?;
        let record = state.record.as_ref().map_or(state.step, |record| record.step);
        let counts = [("step", state.step), ("optimizer_steps", state.optimizer_steps), ("record.step", record)];
        for (field, count) in counts {
            if count > MAX_STEPS || (field == "record.step" && count != state.step) {
                let expected = format!("at most {MAX_STEPS}, and the same in \"step\" and its record");
                let hint = "the file is damaged: use an older checkpoint, beside it";
                return Err(Error::format(path, field, expected, count, hint));
            }
        }
        Ok(state)
    }
}

/// What a checkpoint is made of, beside its [`State`].
pub struct Contents<'a> {
    /// Weights and moments.
    pub params: &'a Params,
    /// The content of `config.json`.
    pub config: &'a serde_json::Value,
    /// More files, as a tokenizer's: names and texts.
    pub files: Vec<(&'a str, &'a str)>,
}

/// Writes the checkpoint of `state.step` and gives its path, once it is on disk and bears its name.
pub fn save(run: &RunDir, contents: &Contents, state: &State) -> Result<PathBuf> {
    let (disk, all) = (run.disk(), run.checkpoints());
    let (path, temporary) = (all.join(name(state.step)), all.join(temporary(state.step)));
    disk::make_dirs(disk, &all)?;
    disk::remove_all(disk, &temporary)?;
    disk.create_dir(&temporary).at(&temporary)?;
    write(disk, &temporary, contents, state).and_then(|()| put(disk, &temporary, &path)).inspect_err(|_| {
        // Space is short perhaps: what is left would only be in the way.
        let _ = disk.remove_all(&temporary);
    })?;
    Ok(path)
}

/// Gives the complete checkpoint `from` the name `path`. One that has it already, a damaged one or one that an earlier
/// process left before it was resumed from an older one, stays until the new one stands and verifies.
fn put(disk: &dyn Disk, from: &Path, path: &Path) -> Result<()> {
    let all = disk::parent(path);
    let aside = aside(path);
    if disk.exists(path).at(path)? {
        disk.sync_dir(all).at(path)?;
        disk::remove_all(disk, &aside)?;
        disk.rename(path, &aside).at(path)?;
    }
    disk.rename(from, path).at(path)?;
    disk.sync_dir(all).at(path)?;
    // One that stepped aside before may still be there, if giving this one the name failed then.
    if disk.exists(&aside).at(&aside)? {
        verify(disk, path)?;
        disk::remove_all(disk, &aside)?;
    }
    Ok(())
}

/// Fills `dir`. The order of the files in `SHA256SUMS` matters: the last ones are those that every checkpoint has, so
/// that a list cut short is noticed.
fn write(disk: &dyn Disk, dir: &Path, contents: &Contents, state: &State) -> Result<()> {
    let mut sums = String::new();
    let mut list = |name: &str, sum: String| sums += &format!("{sum}  {name}\n");
    for (name, text) in &contents.files {
        list(name, write_file(disk, &dir.join(name), text.as_bytes())?);
    }
    let [model, config] = names_for(contents.params);
    list(config, write_file(disk, &dir.join(config), pretty(contents.config).as_bytes())?);
    list(model, tensors::write(disk, &dir.join(model), &weights(contents.params))?);
    list(OPTIM, tensors::write(disk, &dir.join(OPTIM), &moments(contents.params))?);
    list(STATE, write_file(disk, &dir.join(STATE), pretty(state).as_bytes())?);
    write_file(disk, &dir.join(SUMS), sums.as_bytes())?;
    disk.sync_dir(dir).at(dir)
}

/// The files of weights and of what they are.
fn names_for(params: &Params) -> [&'static str; 2] {
    if params.ids().any(|id| is_adapter(params.name(id))) { ADAPTER } else { [MODEL, CONFIG] }
}

/// The parameters that a checkpoint holds: all or, of an adapted model, the adapter's.
fn held(params: &Params) -> impl Iterator<Item = ParamId> {
    let adapted = names_for(params) == ADAPTER;
    params.ids().filter(move |&id| !adapted || is_adapter(params.name(id)))
}

/// The weights of `params`, those that a checkpoint holds, as files hold them.
pub fn weights(params: &Params) -> Vec<Entry> {
    held(params).flat_map(|id| entries(params, id, "", params.weight(id))).collect()
}

fn moments(params: &Params) -> Vec<Entry> {
    let mut all = Vec::new();
    for group in params.groups() {
        for (slot, &id) in group.ids().iter().enumerate() {
            for (k, moment) in group.moments().enumerate() {
                let tensor = group.moment(k, slot).expect("a moment that has a name");
                all.extend(entries(params, id, &format!("{moment}."), tensor));
            }
        }
    }
    all
}

/// How a file holds `tensor`, which is laid out as parameter `id`.
fn entries(params: &Params, id: ParamId, prefix: &str, tensor: Tensor) -> impl Iterator<Item = Entry> {
    params.images(id).iter().map(move |image| Entry {
        name: format!("{prefix}{}", image.name),
        tensor: tensor.view(image.start, image.shape),
        transposed: image.transposed,
    })
}

/// Checks every byte of the checkpoint `dir` and gives its state.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<State> {
    let path = dir.join(SUMS);
    let text = disk::text(disk, &path, MAX_TEXT).map_err(|e| match e {
        Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
            let hint = "a checkpoint has this file: give one as runs/village/checkpoints/step-000060".into();
            Error::Io { path, source, hint }
        }
        other => other,
    })?;
    let damaged = |file: &Path, expected: &str, found: &str| {
        let hint = "the checkpoint is damaged: use an older one, beside it";
        Error::format(file, "checksum", expected, found, hint)
    };
    let mut listed = Vec::new();
    for line in text.split_inclusive('\n') {
        let entry = line.strip_suffix('\n').and_then(|line| line.split_once("  "));
        let Some((sum, name)) = entry.filter(|(sum, name)| sum.len() == 64 && !name.contains(['/', '\\'])) else {
            return Err(damaged(&path, "lines of a checksum, two spaces and a name", &format!("{line:?}")));
        };
        let file = dir.join(name);
        let found = tensors::sha256(disk, &file)?;
        if found != sum {
            return Err(damaged(&file, sum, &found));
        }
        listed.push(name);
    }
    let [model, config] = if listed.contains(&ADAPTER[0]) { ADAPTER } else { [MODEL, CONFIG] };
    if let Some(missing) = [config, model, OPTIM, STATE].iter().find(|name| !listed.contains(name)) {
        return Err(damaged(&path, missing, "no line of that name"));
    }
    let path = dir.join(STATE);
    State::from_json(&disk::text(disk, &path, MAX_TEXT)?, &path)
}

/// Verifies the checkpoint `dir` and loads its weights and moments into `params`, which must have the same names and
/// shapes. Where `params` has no moments, only weights are read.
pub fn load(disk: &dyn Disk, dir: &Path, params: &mut Params) -> Result<State> {
    let state = verify(disk, dir)?;
    load_weights(disk, &dir.join(names_for(params)[0]), params)?;
    if params.groups().iter().all(|group| group.moments().count() == 0) {
        return Ok(state);
    }
    let path = dir.join(OPTIM);
    let mut file = Reader::open(disk, &path)?;
    let (mut values, mut known) = (Vec::new(), Vec::new());
    for group in params.groups_mut() {
        let moments: Vec<_> = group.moments().enumerate().collect();
        for slot in 0..group.ids().len() {
            for &(k, moment) in &moments {
                values.resize(group.weights().view(slot).numel(), 0.0);
                for image in group.images(slot) {
                    let name = format!("{moment}.{}", image.name);
                    file.read(&name, &image.shape, image.transposed, &mut values[image.range()])?;
                    known.push(name);
                }
                group.set_moment(k, slot, &values);
            }
        }
    }
    no_others(&path, &file, &known)?;
    Ok(state)
}

/// Loads the weights in the safetensors file `path`, whatever made it; of an adapted model those of the adapter.
pub fn load_weights(disk: &dyn Disk, path: &Path, params: &mut Params) -> Result<()> {
    let mut file = Reader::open(disk, path)?;
    let mut values = Vec::new();
    let mut known = Vec::new();
    for id in held(params).collect::<Vec<_>>() {
        values.resize(params.weight(id).numel(), 0.0);
        for image in params.images(id) {
            let values = &mut values[image.range()];
            file.read(&image.name, &image.shape, image.transposed, values)?;
            if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                let hint = "the model is of no use: take an older checkpoint, or the file from where it was made";
                return Err(Error::format(path, &image.name, "finite numbers", bad, hint));
            }
            known.push(image.name.clone());
        }
        params.set_weight(id, &values);
    }
    no_others(path, &file, &known)
}

fn no_others(path: &Path, file: &Reader, known: &[String]) -> Result<()> {
    match file.names().into_iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let expected = format!("{} tensors that the model has", known.len());
            let hint = "the file belongs to another model: check the recipe's [model]";
            Err(Error::format(path, "header", expected, format!("also {name}"), hint))
        }
    }
}

/// The checkpoints in the folder `checkpoints`, oldest first; none where there is no such folder. One that stepped aside
/// is among them where nothing has taken its place.
pub fn list(disk: &dyn Disk, checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let names = names(disk, checkpoints)?;
    let mut found = Vec::new();
    for name in &names {
        let stands = match replaced(name) {
            Some(by) if names.iter().any(|name| name == by) => continue,
            Some(by) => by,
            None => name,
        };
        if let Some(step) = stands.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, checkpoints.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

/// The names in a folder of checkpoints; none where there is no such folder.
fn names(disk: &dyn Disk, checkpoints: &Path) -> Result<Vec<String>> {
    match disk.list(checkpoints) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        names => Ok(names.at(checkpoints)?.into_iter().filter_map(|name| name.into_string().ok()).collect()),
    }
}

/// What [`newest`] found.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest checkpoint that verifies, with its state.
    pub found: Option<(PathBuf, State)>,
    /// What is wrong with those that are newer.
    pub damaged: Vec<Error>,
}

/// Looks in the folder `checkpoints` for the newest one that verifies.
pub fn newest(disk: &dyn Disk, checkpoints: &Path) -> Result<Newest> {
    let mut newest = Newest::default();
    for (_, path) in list(disk, checkpoints)?.into_iter().rev() {
        match verify(disk, &path) {
            Ok(state) => {
                newest.found = Some((path, state));
                break;
            }
            Err(e) => newest.damaged.push(e),
        }
    }
    Ok(newest)
}

/// The checkpoint that `path` means, verified: itself, or the newest good one of the run at `path`. Also tells what is
/// wrong with those that are newer.
pub fn find(disk: &dyn Disk, path: &Path) -> Result<(PathBuf, Vec<Error>)> {
    let has = |name: &str| disk.exists(&path.join(name)).at(path.join(name));
    if has(MODEL)? || has(ADAPTER[0])? {
        verify(disk, path)?;
        return Ok((path.to_owned(), Vec::new()));
    }
    let Newest { found, mut damaged } = newest(disk, &path.join("checkpoints"))?;
    match found {
        Some((found, _)) => Ok((found, damaged)),
        None if !damaged.is_empty() => Err(damaged.swap_remove(0)),
        None => {
            let source = io::Error::new(ErrorKind::NotFound, "there is no checkpoint here");
            let hint = "give a run as runs/village, or one of its checkpoints; kiln train makes them".into();
            Err(Error::Io { path: path.to_owned(), source, hint })
        }
    }
}

/// Removes checkpoints from before step `newest`, once that one verifies: the last `keep` up to it and those of the
/// steps `spare` stay. Gives the steps whose checkpoints are gone.
pub fn prune(run: &RunDir, newest: u64, keep: usize, spare: &[u64]) -> Result<Vec<u64>> {
    let (disk, checkpoints) = (run.disk(), run.checkpoints());
    let mut all = list(disk, &checkpoints)?;
    // Later ones are damaged and were passed over when the run went on.
    all.retain(|(step, _)| *step <= newest);
    let old = &all[..all.len().saturating_sub(keep.max(1))];
    let old: Vec<_> = old.iter().filter(|(step, _)| !spare.contains(step)).collect();
    let (Some((_, newest)), false) = (all.last(), old.is_empty()) else { return Ok(Vec::new()) };
    verify(disk, newest)?;
    // Gone at once under its own name, so that nobody finds a half of it.
    for (step, path) in &old {
        let temporary = checkpoints.join(temporary(*step));
        disk::remove_all(disk, &temporary)?;
        disk.rename(path, &temporary).at(path)?;
    }
    disk.sync_dir(&checkpoints).at(&checkpoints)?;
    for (step, _) in &old {
        disk::remove_all(disk, &checkpoints.join(temporary(*step)))?;
    }
    Ok(old.iter().map(|(step, _)| *step).collect())
}

/// Ends the name of a checkpoint that the run went back behind.
const GIVEN_UP: &str = ".given-up";

/// Sets the checkpoints after `step` aside, as `step-000050.given-up`: the run has gone back to `step`, whose checkpoint
/// must verify. [`forget_given_up`] removes them.
pub fn give_up_after(run: &RunDir, step: u64) -> Result<()> {
    let (disk, all) = (run.disk(), run.checkpoints());
    verify(disk, &all.join(name(step)))?;
    // The newest first: what is left if this is interrupted is the course of one run.
    for (step, path) in list(disk, &all)?.iter().rev().filter(|(other, _)| *other > step) {
        let aside = all.join(name(*step) + GIVEN_UP);
        disk::remove_all(disk, &aside)?;
        disk.rename(path, &aside).at(path)?;
    }
    disk.sync_dir(&all).at(&all)
}

/// Removes what [`give_up_after`] set aside: the run has got past where it went back.
pub fn forget_given_up(run: &RunDir) -> Result<()> {
    let (disk, all) = (run.disk(), run.checkpoints());
    names(disk, &all)?
        .iter()
        .filter(|name| name.ends_with(GIVEN_UP))
        .try_for_each(|name| disk::remove_all(disk, &all.join(name)))
}

/// Clears away what a process left that was killed while it wrote; for a run that is taken up again. It may itself be
/// interrupted at any point.
pub fn recover(run: &RunDir) -> Result<()> {
    let (disk, all) = (run.disk(), run.checkpoints());
    let left: Vec<String> = names(disk, &all)?;
    if left.is_empty() {
        return Ok(());
    }
    // What that process renamed need not be on disk yet.
    disk.sync_dir(&all).at(&all)?;
    for path in left.iter().filter_map(|name| replaced(name)).map(|name| all.join(name)) {
        match verify(disk, &path) {
            Ok(_) => disk::remove_all(disk, &aside(&path))?,
            Err(Error::Io { path, source, .. }) if source.kind() != ErrorKind::NotFound => return Err(source).at(path),
            // The new one never came to stand, or is damaged: the old one takes its place again.
            Err(_) => {
                let gone = path.with_file_name(format!(".{}.tmp", file_name(&path)));
                if disk.exists(&path).at(&path)? {
                    disk::remove_all(disk, &gone)?;
                    disk.rename(&path, &gone).at(&path)?;
                }
                disk.rename(&aside(&path), &path).at(&path)?;
                disk.sync_dir(&all).at(&all)?;
                disk::remove_all(disk, &gone)?;
            }
        }
    }
    for unfinished in left.iter().filter(|name| name.starts_with(".step-") && name.ends_with(".tmp")) {
        disk::remove_all(disk, &all.join(unfinished))?;
    }
    Ok(())
}

/// The name of the checkpoint of `step`.
fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The name of one that is being written, or removed.
fn temporary(step: u64) -> String {
    format!(".{}.tmp", name(step))
}

/// Where the checkpoint `path` is while another one takes its place.
fn aside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.aside", file_name(path)))
}

/// The name that the checkpoint had which is `name` now that it stepped aside.
fn replaced(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".aside")
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data") + "\n"
}

/// Reads a JSON file into `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(disk: &dyn Disk, path: &Path) -> Result<T> {
    parse_json(&disk::text(disk, path, MAX_TEXT)?, path)
}

fn parse_json<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        let hint = "the file is damaged, or another version of kiln wrote it";
        Error::format(path, format!("line {}", e.line()), "what kiln writes there", &e, hint)
    })
}

/// Writes a file and puts it on disk; gives its SHA-256.
fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<String> {
    let write = || -> io::Result<()> {
        let mut file = disk.open(path, Open::Create)?;
        file.write_all(bytes)?;
        file.sync()
    };
    write().at(path)?;
    Ok(tensors::hex(Sha256::new_with_prefix(bytes)))
}

#[cfg(test)]
mod tests;
