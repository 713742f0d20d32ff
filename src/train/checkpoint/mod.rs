//! Checkpoints: directories that are whole or absent.
//!
//! `checkpoints/step-000060/` holds `model.safetensors` (weights under their Hugging Face names), `optim.safetensors`
//! (the optimizer's moments as `exp_avg.NAME` or `momentum_buffer.NAME`), `state.json`, `config.json`, `tokenizer.json` and `SHA256SUMS` over all
//! of them, which `sha256sum -c` can check. Everything is written and synced under a hidden name beside it, then
//! renamed: whatever happens, a directory of that name is complete. The invariants:
//!
//! 1. No checkpoint is removed before a newer one stands and verifies.
//! 2. Every flipped byte and every truncation is found before anything is loaded.

use super::metrics::Record;
use super::run::RunDir;
use super::tensors::{self, Entry, Reader};
use crate::error::{AtPath, Error, Result};
use crate::params::{ParamId, Params};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Weights, in `config.json`'s architecture.
pub const MODEL: &str = "model.safetensors";
/// Moments.
pub const OPTIM: &str = "optim.safetensors";
/// A [`State`].
pub const STATE: &str = "state.json";
/// The architecture, as Hugging Face writes it.
pub const CONFIG: &str = "config.json";
/// The tokenizer, as Hugging Face writes it.
pub const TOKENIZER: &str = "tokenizer.json";
const SUMS: &str = "SHA256SUMS";

/// Where a run stands, beside weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The recipe's seed.
    pub seed: u64,
    /// Updates that the optimizer has done, for its bias correction.
    pub optimizer_steps: u64,
    /// The loss of the last step, in nats a token.
    pub loss: Option<f32>,
    /// The last validation loss known when this was written.
    pub val_loss: Option<f64>,
    /// The line of `metrics.jsonl` of the last step, without what was found out after this was written: a process that
    /// dies before it appends the line leaves it here.
    #[serde(default)]
    pub record: Option<Record>,
    /// The version of kiln that wrote it.
    pub kiln: String,
}

/// What a checkpoint is made of, beside its [`State`].
pub struct Contents<'a> {
    /// Weights and moments.
    pub params: &'a Params,
    /// The content of `config.json`.
    pub config: &'a serde_json::Value,
    /// A `tokenizer.json` to copy.
    pub tokenizer: Option<&'a Path>,
}

/// Writes the checkpoint of `state.step` and gives its path, once it is on disk and bears its name.
pub fn save(run: &RunDir, contents: &Contents, state: &State) -> Result<PathBuf> {
    let all = run.checkpoints();
    std::fs::create_dir_all(&all).at(&all)?;
    let path = all.join(name(state.step));
    let temporary = all.join(format!(".{}.tmp", name(state.step)));
    remove(&temporary)?;
    std::fs::create_dir(&temporary).at(&temporary)?;
    write(&temporary, contents, state).inspect_err(|_| {
        // Space is short perhaps: what is left would only be in the way.
        let _ = std::fs::remove_dir_all(&temporary);
    })?;
    if path.exists() {
        // A damaged one, or one that an earlier process left before it was resumed from an older one.
        let aside = all.join(format!(".{}.aside", name(state.step)));
        remove(&aside)?;
        std::fs::rename(&path, &aside).at(&path)?;
        std::fs::rename(&temporary, &path).at(&path)?;
        sync_dir(&all)?;
        remove(&aside)?;
    } else {
        std::fs::rename(&temporary, &path).at(&path)?;
        sync_dir(&all)?;
    }
    Ok(path)
}

/// Fills `dir`. The order of the files in `SHA256SUMS` matters: the last ones are those that every checkpoint has, so
/// that a list cut short is noticed.
fn write(dir: &Path, contents: &Contents, state: &State) -> Result<()> {
    let mut sums = String::new();
    let mut list = |name: &str, sum: String| sums += &format!("{sum}  {name}\n");
    if let Some(tokenizer) = contents.tokenizer {
        let bytes = std::fs::read(tokenizer).at(tokenizer)?;
        list(TOKENIZER, write_file(&dir.join(TOKENIZER), &bytes)?);
    }
    list(CONFIG, write_file(&dir.join(CONFIG), pretty(contents.config).as_bytes())?);
    list(MODEL, tensors::write(&dir.join(MODEL), &weights(contents.params))?);
    list(OPTIM, tensors::write(&dir.join(OPTIM), &moments(contents.params))?);
    list(STATE, write_file(&dir.join(STATE), pretty(state).as_bytes())?);
    write_file(&dir.join(SUMS), sums.as_bytes())?;
    sync_dir(dir)
}

fn weights(params: &Params) -> Vec<Entry> {
    params.ids().flat_map(|id| entries(params, id, "", params.weight(id))).collect()
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
pub fn verify(dir: &Path) -> Result<State> {
    let path = dir.join(SUMS);
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::Io {
            path: path.clone(),
            source: e,
            hint: "a checkpoint has this file: give one as runs/village/checkpoints/step-000060".into(),
        },
        _ => Error::io(&path, e),
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
        let found = tensors::sha256(&file)?;
        if found != sum {
            return Err(damaged(&file, sum, &found));
        }
        listed.push(name);
    }
    if let Some(missing) = [CONFIG, MODEL, OPTIM, STATE].iter().find(|name| !listed.contains(name)) {
        return Err(damaged(&path, missing, "no line of that name"));
    }
    read_json(&dir.join(STATE))
}

/// Verifies the checkpoint `dir` and loads its weights and moments into `params`, which must have the same names and
/// shapes. Where `params` has no moments, only weights are read.
pub fn load(dir: &Path, params: &mut Params) -> Result<State> {
    let state = verify(dir)?;
    load_weights(&dir.join(MODEL), params)?;
    if params.groups().iter().all(|group| group.moments().count() == 0) {
        return Ok(state);
    }
    let path = dir.join(OPTIM);
    let mut file = Reader::open(&path)?;
    let mut known = Vec::new();
    for group in params.groups_mut() {
        let moments: Vec<_> = group.moments().enumerate().collect();
        for slot in 0..group.ids().len() {
            for &(k, moment) in &moments {
                for image in group.images(slot).to_vec() {
                    let name = format!("{moment}.{}", image.name);
                    let to = group.moment_mut(k, slot).expect("a moment that has a name");
                    file.read(&name, &image.shape, image.transposed, &mut to[image.range()])?;
                    known.push(name);
                }
            }
        }
    }
    no_others(&path, &file, &known)?;
    Ok(state)
}

/// Loads the weights in the safetensors file `path`, whatever made it.
pub fn load_weights(path: &Path, params: &mut Params) -> Result<()> {
    let mut file = Reader::open(path)?;
    let mut values = Vec::new();
    let mut known = Vec::new();
    for id in params.ids() {
        values.resize(params.weight(id).numel(), 0.0);
        for image in params.images(id) {
            file.read(&image.name, &image.shape, image.transposed, &mut values[image.range()])?;
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

/// The checkpoints in the folder `checkpoints`, oldest first; none where there is no such folder.
pub fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(checkpoints) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.at(checkpoints)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at(checkpoints)?.path();
        let step = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
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
pub fn newest(checkpoints: &Path) -> Result<Newest> {
    let mut newest = Newest::default();
    for (_, path) in list(checkpoints)?.into_iter().rev() {
        match verify(&path) {
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
pub fn find(path: &Path) -> Result<(PathBuf, Vec<Error>)> {
    if path.join(MODEL).is_file() {
        verify(path)?;
        return Ok((path.to_owned(), Vec::new()));
    }
    let Newest { found, mut damaged } = newest(&path.join("checkpoints"))?;
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

/// Removes old checkpoints, once the newest one verifies: the last `keep` and that of step `best` stay. Gives the steps
/// whose checkpoints are gone.
pub fn prune(run: &RunDir, keep: usize, best: Option<u64>) -> Result<Vec<u64>> {
    let all = list(&run.checkpoints())?;
    let Some((_, newest)) = all.last() else { return Ok(Vec::new()) };
    let old = &all[..all.len().saturating_sub(keep.max(1))];
    let old: Vec<_> = old.iter().filter(|(step, _)| Some(*step) != best).collect();
    if !old.is_empty() {
        verify(newest)?;
    }
    for (step, path) in &old {
        // Gone at once under its own name, so that nobody finds a half of it.
        let temporary = run.checkpoints().join(format!(".{}.tmp", name(*step)));
        remove(&temporary)?;
        std::fs::rename(path, &temporary).at(path)?;
        remove(&temporary)?;
    }
    Ok(old.iter().map(|(step, _)| *step).collect())
}

/// Clears away what a process left that was killed while it wrote; for a run that is taken up again.
pub fn recover(run: &RunDir) -> Result<()> {
    let all = run.checkpoints();
    let entries = match std::fs::read_dir(&all) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.at(&all)?,
    };
    for entry in entries {
        let path = entry.at(&all)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(hidden) = name.strip_prefix(".step-") else { continue };
        match hidden.strip_suffix(".aside") {
            Some(step) if !all.join(format!("step-{step}")).exists() => {
                std::fs::rename(&path, all.join(format!("step-{step}"))).at(&path)?;
            }
            _ => remove(&path)?,
        }
    }
    sync_dir(&all)
}

/// The name of the checkpoint of `step`.
fn name(step: u64) -> String {
    format!("step-{step:06}")
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data") + "\n"
}

/// Reads a JSON file into `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).at(path)?;
    serde_json::from_str(&text).map_err(|e| {
        let hint = "the file is damaged, or another version of kiln wrote it";
        Error::format(path, format!("line {}", e.line()), "what kiln writes there", &e, hint)
    })
}

/// Writes a file and puts it on disk; gives its SHA-256.
fn write_file(path: &Path, bytes: &[u8]) -> Result<String> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().at(path)?;
    Ok(tensors::hex(Sha256::new_with_prefix(bytes)))
}

/// A rename or a new file survives a power failure only once its folder is on disk.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) { File::open(dir).and_then(|dir| dir.sync_all()).at(dir) } else { Ok(()) }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).at(dir),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
