//! Checkpoints: directories that are whole or absent.
//!
//! `checkpoints/step-000060/` holds `model.safetensors` (weights under their Hugging Face names), `optim.safetensors`
//! (the optimizer's moments as `exp_avg.NAME`), `state.json`, `config.json`, `tokenizer.json` and `SHA256SUMS` over all
//! of them, which `sha256sum -c` can check. Everything is written and synced under a hidden name beside it, then
//! renamed: whatever happens, a directory of that name is complete. The invariants:
//!
//! 1. No checkpoint is removed before a newer one stands and verifies.
//! 2. Every flipped byte and every truncation is found before anything is loaded.

use super::metrics::Record;
use super::run::RunDir;
use super::tensors::{self, Entry, Reader};
use crate::error::{AtPath, Error, Result};
use crate::params::Params;
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
    /// The name of each moment, as `exp_avg`.
    pub moments: &'a [&'a str],
    /// Whether the parameter of this name, (out, in) in memory, is stored as (in, out).
    pub transposed: &'a dyn Fn(&str) -> bool,
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
    list(MODEL, tensors::write(&dir.join(MODEL), &weights(contents))?);
    list(OPTIM, tensors::write(&dir.join(OPTIM), &moments(contents))?);
    list(STATE, write_file(&dir.join(STATE), pretty(state).as_bytes())?);
    write_file(&dir.join(SUMS), sums.as_bytes())?;
    sync_dir(dir)
}

fn weights(c: &Contents) -> Vec<Entry> {
    let entry = |id| {
        let name = c.params.name(id).to_owned();
        Entry { transposed: (c.transposed)(&name), tensor: c.params.weight(id), name }
    };
    c.params.ids().map(entry).collect()
}

fn moments(c: &Contents) -> Vec<Entry> {
    let mut entries = Vec::new();
    for group in c.params.groups() {
        for (slot, &id) in group.ids().iter().enumerate() {
            for (k, moment) in c.moments.iter().enumerate() {
                let Some(tensor) = group.moment(k, slot) else { continue };
                let name = c.params.name(id);
                entries.push(Entry { transposed: (c.transposed)(name), tensor, name: format!("{moment}.{name}") });
            }
        }
    }
    entries
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

/// Verifies the checkpoint `dir` and loads its weights and those `moments` into `params`, which must have the same
/// names and shapes. With no moments, only weights are read.
pub fn load(dir: &Path, params: &mut Params, moments: &[&str], transposed: &dyn Fn(&str) -> bool) -> Result<State> {
    let state = verify(dir)?;
    load_weights(&dir.join(MODEL), params, transposed)?;
    if moments.is_empty() {
        return Ok(state);
    }
    let path = dir.join(OPTIM);
    let mut file = Reader::open(&path)?;
    let mut known = Vec::new();
    // By number, since a group is borrowed while its moments are written.
    let shape_of: Vec<_> = params.ids().map(|id| (params.name(id).to_owned(), *params.weight(id).shape())).collect();
    for group in params.groups_mut() {
        for (slot, id) in group.ids().to_vec().into_iter().enumerate() {
            let (name, shape) = &shape_of[id.0 as usize];
            for (k, moment) in moments.iter().enumerate() {
                let Some(to) = group.moment_mut(k, slot) else { continue };
                let full = format!("{moment}.{name}");
                file.read(&full, shape, transposed(name), to)?;
                known.push(full);
            }
        }
    }
    no_others(&path, &file, &known)?;
    Ok(state)
}

/// Loads the weights in the safetensors file `path`, whatever made it.
pub fn load_weights(path: &Path, params: &mut Params, transposed: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut file = Reader::open(path)?;
    let mut values = Vec::new();
    let mut known = Vec::new();
    for id in params.ids() {
        let (name, shape) = (params.name(id).to_owned(), *params.weight(id).shape());
        values.resize(shape.numel(), 0.0);
        file.read(&name, &shape, transposed(&name), &mut values)?;
        params.set_weight(id, &values);
        known.push(name);
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
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::params::{Decl, Init, Kind};

    const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

    fn params(seed: u64) -> Params {
        let decl = |name: &str, shape, kind| Decl { name: name.into(), shape, kind, init: Init::Normal(1.0) };
        let decls = [
            decl("wte.weight", [11, 4].into(), Kind::Embedding),
            decl("h.0.attn.c_attn.weight", [12, 4].into(), Kind::Matrix),
            decl("h.0.attn.c_attn.bias", [12].into(), Kind::Vector),
            decl("h.0.mlp.c_fc.weight", [16, 4].into(), Kind::Matrix),
        ];
        let mut params = Params::new(&Device::cpu(1).unwrap(), &decls, seed, 2);
        for group in params.groups_mut() {
            for slot in 0..group.ids().len() {
                for k in 0..2 {
                    let fill = |(i, x): (usize, &mut f32)| *x = (i * 10 + slot * 3 + k) as f32 + seed as f32 / 7.0;
                    group.moment_mut(k, slot).unwrap().iter_mut().enumerate().for_each(fill);
                }
            }
        }
        params
    }

    fn transposed(name: &str) -> bool {
        name.contains(".c_") && name.ends_with("weight")
    }

    /// All weights and moments, as bits.
    fn bits(params: &Params) -> Vec<u32> {
        let mut all: Vec<u32> =
            params.ids().flat_map(|id| params.weight(id).f32().to_vec()).map(f32::to_bits).collect();
        for group in params.groups() {
            for slot in 0..group.ids().len() {
                (0..2).for_each(|k| all.extend(group.moment(k, slot).unwrap().f32().iter().map(|x| x.to_bits())));
            }
        }
        all
    }

    fn state(step: u64) -> State {
        let tokens = step * 100;
        let (loss, record, kiln) = (Some(2.5), None, "0.1.0".into());
        State { step, tokens, seed: 1, optimizer_steps: step, loss, val_loss: None, record, kiln }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        run: RunDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.json"), "{\"a tokenizer\": true}").unwrap();
        let run = RunDir::create(dir.path(), "a").unwrap();
        Fixture { dir, run }
    }

    impl Fixture {
        fn save(&self, step: u64, params: &Params) -> Result<PathBuf> {
            let tokenizer = self.dir.path().join("t.json");
            let config = serde_json::json!({"model_type": "gpt2"});
            let contents = Contents {
                params,
                moments: &MOMENTS,
                transposed: &transposed,
                config: &config,
                tokenizer: Some(&tokenizer),
            };
            save(&self.run, &contents, &state(step))
        }

        fn steps(&self) -> Vec<u64> {
            list(&self.run.checkpoints()).unwrap().into_iter().map(|(step, _)| step).collect()
        }
    }

    #[test]
    fn weights_and_moments_come_back_bit_for_bit() {
        let f = fixture();
        let saved = params(1);
        let path = f.save(60, &saved).unwrap();
        assert!(path.ends_with("a/checkpoints/step-000060"));
        let mut loaded = params(2);
        assert_ne!(bits(&loaded), bits(&saved));
        assert_eq!(load(&path, &mut loaded, &MOMENTS, &transposed).unwrap(), state(60));
        assert_eq!(bits(&loaded), bits(&saved));
        assert_eq!(std::fs::read_to_string(path.join(TOKENIZER)).unwrap(), "{\"a tokenizer\": true}");
        assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 1, "no temporary folder is left");
        let bytes = std::fs::read(path.join(MODEL)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("h.0.attn.c_attn.weight").unwrap().shape(), [4, 12]);
        assert_eq!(file.tensor("wte.weight").unwrap().shape(), [11, 4]);
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_found() {
        let f = fixture();
        let path = f.save(60, &params(1)).unwrap();
        for name in [MODEL, OPTIM, STATE, CONFIG, TOKENIZER, SUMS] {
            let file = path.join(name);
            let good = std::fs::read(&file).unwrap();
            // Every place in small files, a sample of the large ones.
            for at in (0..good.len()).step_by(1 + good.len() / 200) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                std::fs::write(&file, bad).unwrap();
                let message = verify(&path).expect_err(&format!("{name}: byte {at} flipped")).to_string();
                assert!(name == SUMS || message.contains(name), "{message}");
                std::fs::write(&file, &good[..at]).unwrap();
                let message = verify(&path).expect_err(&format!("{name}: cut to {at}")).to_string();
                assert!(name == SUMS || message.contains(name), "{message}");
            }
            std::fs::remove_file(&file).unwrap();
            let message = verify(&path).expect_err(name).to_string();
            assert!(message.contains(name), "{message}");
            std::fs::write(&file, &good).unwrap();
        }
        verify(&path).unwrap();
    }

    #[test]
    fn a_list_cut_at_any_line_is_found() {
        let f = fixture();
        let path = f.save(60, &params(1)).unwrap();
        let good = std::fs::read_to_string(path.join(SUMS)).unwrap();
        for (at, _) in good.match_indices('\n') {
            for cut in [at, at + 1].into_iter().filter(|&cut| cut < good.len()) {
                std::fs::write(path.join(SUMS), &good[..cut]).unwrap();
                assert!(verify(&path).is_err(), "cut to {cut} of {}", good.len());
            }
        }
    }

    #[test]
    fn another_model_is_refused_and_the_tensor_named() {
        let f = fixture();
        let path = f.save(60, &params(1)).unwrap();
        let decl = |name: &str, shape| Decl { name: name.into(), shape, kind: Kind::Matrix, init: Init::Zeros };
        let load = |decls: &[Decl]| {
            let mut params = Params::new(&Device::cpu(1).unwrap(), decls, 1, 2);
            load(&path, &mut params, &MOMENTS, &transposed).unwrap_err().to_string()
        };
        let message = load(&[decl("wte.weight", [12, 4].into())]);
        assert!(message.contains("wte.weight: expected a tensor of shape [12, 4] in F32, found shape [11, 4]"));
        assert!(load(&[decl("lm_head.weight", [12, 4].into())]).contains("lm_head.weight: expected a tensor"));
        assert!(load(&[decl("wte.weight", [11, 4].into())]).contains("also h.0.attn"));
    }

    #[test]
    fn an_interrupted_write_leaves_the_old_one_standing() {
        let f = fixture();
        let old = params(1);
        f.save(60, &old).unwrap();
        // Killed before the rename: everything written but nothing named.
        let later = f.save(80, &params(2)).unwrap();
        std::fs::rename(&later, f.run.checkpoints().join(".step-000080.tmp")).unwrap();
        // Killed while a checkpoint was replaced.
        let replaced = f.save(70, &params(2)).unwrap();
        std::fs::rename(&replaced, f.run.checkpoints().join(".step-000070.aside")).unwrap();
        let Newest { found, damaged } = newest(&f.run.checkpoints()).unwrap();
        assert_eq!((found.unwrap().1, damaged.len()), (state(60), 0));

        recover(&f.run).unwrap();
        assert_eq!(f.steps(), [60, 70]);
        assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 2);
        let mut loaded = params(9);
        load(&f.run.checkpoints().join("step-000060"), &mut loaded, &MOMENTS, &transposed).unwrap();
        assert_eq!(bits(&loaded), bits(&old));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_one_and_no_litter() {
        let f = fixture();
        f.save(60, &params(1)).unwrap();
        std::fs::remove_file(f.dir.path().join("t.json")).unwrap();
        assert!(f.save(80, &params(1)).unwrap_err().to_string().contains("t.json"));
        assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 1);
        assert_eq!(f.steps(), [60]);
    }

    #[test]
    fn a_damaged_newest_one_is_passed_over_and_replaced() {
        let f = fixture();
        f.save(60, &params(1)).unwrap();
        let path = f.save(80, &params(2)).unwrap();
        std::fs::write(path.join(STATE), "{}").unwrap();
        let Newest { found, damaged } = newest(&f.run.checkpoints()).unwrap();
        assert_eq!(found.unwrap().1.step, 60);
        assert!(damaged[0].to_string().contains("step-000080/state.json"), "{}", damaged[0]);
        assert!(find(f.run.path()).unwrap().0.ends_with("step-000060"));
        f.save(80, &params(3)).unwrap();
        let mut loaded = params(9);
        load(&path, &mut loaded, &MOMENTS, &transposed).unwrap();
        assert_eq!(bits(&loaded), bits(&params(3)));
        assert_eq!(find(&path).unwrap().0, path);
        assert!(find(f.dir.path()).unwrap_err().to_string().contains("no checkpoint here"));
    }

    #[test]
    fn old_ones_go_only_when_the_newest_verifies_and_the_best_stays() {
        let f = fixture();
        (1..=5).for_each(|n| drop(f.save(n * 20, &params(n)).unwrap()));
        let newest = f.run.checkpoints().join("step-000100").join(MODEL);
        let good = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, &good[1..]).unwrap();
        assert!(prune(&f.run, 2, None).is_err());
        assert_eq!(f.steps(), [20, 40, 60, 80, 100]);
        std::fs::write(&newest, good).unwrap();
        assert_eq!(prune(&f.run, 2, Some(40)).unwrap(), [20, 60]);
        assert_eq!(f.steps(), [40, 80, 100]);
        assert!(prune(&f.run, 5, None).unwrap().is_empty());
    }
}
