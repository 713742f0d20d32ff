//! What a stage of a model's life does, measured on the built-in world, where the truth is known.
//!
//! Each study is one command. It says where it starts from, splits what it asks by entities and by ways of asking, has a control that must
//! fail, and reports every seed. What it trains are ordinary runs, left in a folder: one that was interrupted goes on from them.

pub mod plan;
pub mod tune;

use crate::device::Device;
use crate::disk::Os;
use crate::error::{AtPath, Result};
use crate::train::{AnyRecipe, Summary, Watch, checkpoint};
use std::path::Path;

/// Does the run `name` in the folder `dir` with these settings over the recipe `base`; one that was done before is not done again,
/// and one that was interrupted goes on.
///
/// # Errors
/// As of [`AnyRecipe::run`].
fn run(dir: &Path, name: &str, base: &str, set: &[String], device: &Device, watch: &mut dyn Watch) -> Result<Summary> {
    let path = dir.join(name);
    let own = [format!("run.dir={}", toml::Value::from(&*dir.to_string_lossy())), format!("run.name={name}")];
    let fresh = AnyRecipe::load(None, base, &[&own[..], set].concat())?;
    let (recipe, resume) = match checkpoint::list(&Os, &path.join("checkpoints"))?.is_empty() {
        true => {
            if path.exists() {
                std::fs::remove_dir_all(&path).at(&path)?;
            }
            (fresh, None)
        }
        false => (AnyRecipe::of_run(&path, &[])?, Some(&*path)),
    };
    recipe.run(&Os, resume, device, watch)
}
