//! What a stage of a model's life does, measured on the built-in world, where the truth is known.
//!
//! Each study is one command. It says where it starts from, splits what it asks by entities and by ways of asking, has a control that must
//! fail, and reports every seed. What it trains are ordinary runs, left in a folder: one that was interrupted goes on from them.

pub mod canaries;
pub mod doctor;
pub mod halving;
pub mod mup;
mod notes;
pub mod plan;
pub mod private;
pub mod rude;
pub mod skew;
pub mod tune;

use crate::data::Sources;
use crate::data::atomic::AtomicFile;
use crate::data::clean;
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};
use crate::sweep::{self, Sweep, Work};
use std::path::{Path, PathBuf};

/// Does a sweep in the folder `dir`, or goes on with the one of its name that is there.
///
/// # Errors
/// As of [`sweep::run`].
fn search(dir: &Path, mut sweep: Sweep, work: &Work, watch: &mut dyn sweep::Watch) -> Result<sweep::Outcome> {
    let path = dir.join(&sweep.sweep.name);
    dir.clone_into(&mut sweep.sweep.dir);
    match path.join("sweep.toml").is_file() && path.join("recipe.toml").is_file() {
        true => sweep::run(&sweep::reopen(&path, &[])?, Some(&path), work, watch),
        false => {
            if path.exists() {
                std::fs::remove_dir_all(&path).at(&path)?;
            }
            sweep::run(&sweep, None, work, watch)
        }
    }
}

/// A part of a study that a signal ended ends the study.
fn stopped(signal: Option<i32>) -> Result<()> {
    match signal {
        None => Ok(()),
        Some(signal) => {
            Err(Error::failed(format!("stopped by signal {signal}"), "the same command goes on where it stopped"))
        }
    }
}

/// Writes texts as lines of JSON.
fn write_texts(path: &Path, texts: &[impl AsRef<str>]) -> Result<()> {
    let mut file = AtomicFile::create(&Os, path)?;
    for text in texts {
        let line = serde_json::json!({"text": text.as_ref()}).to_string() + "\n";
        file.write(line.as_bytes())?;
    }
    file.commit()
}

/// Cleans the texts of `from` by these rules alone, as `recipe` has them, into the folder `out`; the file of what is left.
fn clean_by(rules: &[&str], mut recipe: clean::Recipe, from: &Path, out: PathBuf) -> Result<PathBuf> {
    let corpus = out.join(clean::DOCUMENTS);
    let all = clean::rules::RULES.iter().map(|rule| rule.name.to_owned());
    recipe.rules.off = all.filter(|name| !rules.contains(&&**name)).collect();
    let options = clean::Options {
        recipe,
        out,
        text_field: "text".into(),
        memory: 4 * clean::MIN_MEMORY,
        threads: 0,
        key_file: None,
        clear_text: false,
        truth: None,
    };
    clean::clean(&Sources::open(&[from], "text")?, &options, &mut |_| {})?;
    Ok(corpus)
}
