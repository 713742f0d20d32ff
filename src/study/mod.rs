//! What a stage of a model's life does, measured on the built-in world, where the truth is known.
//!
//! Each study is one command. It says where it starts from, splits what it asks by entities and by ways of asking, has a control that must
//! fail, and reports every seed. What it trains are ordinary runs, left in a folder: one that was interrupted goes on from them.

pub mod canaries;
pub mod doctor;
pub mod halving;
pub mod mup;
pub mod plan;
pub mod skew;
pub mod tune;

use crate::error::{AtPath, Error, Result};
use crate::sweep::{self, Sweep, Work};
use std::path::Path;

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
