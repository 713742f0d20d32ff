//! Recipes of all kinds of models. Programs come through here, so that the run of each kind is compiled once, in this library.

use super::branch::Origin;
use super::event::{Summary, Watch};
use super::fit::Plan;
use super::pictures::gan::GanRecipe;
use super::pictures::vae::VaeRecipe;
use super::pictures::vqvae::VqVaeRecipe;
use super::pictures::{GanTask, PictureData, VaeTask, VqVaeTask};
use super::prefer::Prefer;
use super::private::{self, Promise};
use super::recipe::{MAX_FILE, Optim, Recipe, RecipeOf, Train, kind};
use super::rehearse::{Rehearsed, rehearse};
use super::rl::Reinforce;
use super::source;
use super::task::{Progress, Task};
use super::text::Text;
use super::tune::{Tune, TuneRecipe};
use super::{checkpoint, pretrain};
use crate::device::Device;
use crate::disk::{self, Disk, Os};
use crate::error::{AtPath, Error, Result};
use crate::ranks::Ranks;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A recipe, whatever it trains.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyRecipe {
    /// A language model on text.
    Text(Recipe),
    /// A VAE on pictures.
    Vae(VaeRecipe),
    /// A VQ-VAE on pictures.
    VqVae(VqVaeRecipe),
    /// A GAN on pictures.
    Gan(GanRecipe),
    /// A model that is there already, on examples.
    Tune(TuneRecipe),
    /// The same, on preferences.
    Prefer(TuneRecipe),
    /// The same, on prompts whose answers are worth something.
    Reinforce(TuneRecipe),
}

/// What `f` makes of the recipe within.
macro_rules! within {
    ($recipe:expr, $task:ident, $inner:ident => $result:expr) => {
        match $recipe {
            AnyRecipe::Text($inner) => {
                type $task = Text;
                $result
            }
            AnyRecipe::Vae($inner) => {
                type $task = VaeTask;
                $result
            }
            AnyRecipe::VqVae($inner) => {
                type $task = VqVaeTask;
                $result
            }
            AnyRecipe::Gan($inner) => {
                type $task = GanTask;
                $result
            }
            AnyRecipe::Tune($inner) => {
                type $task = Tune;
                $result
            }
            AnyRecipe::Prefer($inner) => {
                type $task = Prefer;
                $result
            }
            AnyRecipe::Reinforce($inner) => {
                type $task = Reinforce;
                $result
            }
        }
    };
}

impl AnyRecipe {
    /// The recipe in `file`, else in `base`, over the default of its kind, under `overrides`.
    ///
    /// # Errors
    /// As of [`RecipeOf::load`].
    pub fn load(file: Option<&Path>, base: &str, overrides: &[String]) -> Result<AnyRecipe> {
        let text = file.map_or(Ok(base.to_owned()), |path| disk::text(&Os, path, MAX_FILE))?;
        let file = file.unwrap_or(Path::new("recipe"));
        Ok(match kind(&text, overrides).as_deref() {
            Some("vae") => AnyRecipe::Vae(RecipeOf::from_toml(&text, file, overrides)?),
            Some("vqvae") => AnyRecipe::VqVae(RecipeOf::from_toml(&text, file, overrides)?),
            Some("gan") => AnyRecipe::Gan(RecipeOf::from_toml(&text, file, overrides)?),
            Some("tune") => AnyRecipe::Tune(RecipeOf::from_toml(&text, file, overrides)?),
            Some("prefer") => AnyRecipe::Prefer(RecipeOf::from_toml(&text, file, overrides)?),
            Some("reinforce") => AnyRecipe::Reinforce(RecipeOf::from_toml(&text, file, overrides)?),
            _ => AnyRecipe::Text(RecipeOf::from_toml(&text, file, overrides)?),
        })
    }

    /// The recipe of an existing run, with overrides that it can go on with.
    ///
    /// # Errors
    /// As of [`RecipeOf::of_run`].
    pub fn of_run(run: &Path, overrides: &[String]) -> Result<AnyRecipe> {
        let path = run.join("recipe.toml");
        let text = if path.is_file() { disk::text(&Os, &path, MAX_FILE)? } else { String::new() };
        Ok(match kind(&text, &[]).as_deref() {
            Some("vae") => AnyRecipe::Vae(RecipeOf::of_run(run, overrides)?),
            Some("vqvae") => AnyRecipe::VqVae(RecipeOf::of_run(run, overrides)?),
            Some("gan") => AnyRecipe::Gan(RecipeOf::of_run(run, overrides)?),
            Some("tune") => AnyRecipe::Tune(RecipeOf::of_run(run, overrides)?),
            Some("prefer") => AnyRecipe::Prefer(RecipeOf::of_run(run, overrides)?),
            Some("reinforce") => AnyRecipe::Reinforce(RecipeOf::of_run(run, overrides)?),
            _ => AnyRecipe::Text(RecipeOf::of_run(run, overrides)?),
        })
    }

    /// The recipe of a branch from `origin`, with overrides of what comes later.
    ///
    /// # Errors
    /// As of [`Origin::recipe`].
    pub fn of_branch(origin: &Origin, overrides: &[String]) -> Result<AnyRecipe> {
        Ok(match AnyRecipe::of_run(&origin.run, &[])? {
            AnyRecipe::Text(_) => AnyRecipe::Text(origin.recipe(overrides)?),
            AnyRecipe::Vae(_) => AnyRecipe::Vae(origin.recipe(overrides)?),
            AnyRecipe::VqVae(_) => AnyRecipe::VqVae(origin.recipe(overrides)?),
            AnyRecipe::Gan(_) => AnyRecipe::Gan(origin.recipe(overrides)?),
            AnyRecipe::Tune(_) => AnyRecipe::Tune(origin.recipe(overrides)?),
            AnyRecipe::Prefer(_) => AnyRecipe::Prefer(origin.recipe(overrides)?),
            AnyRecipe::Reinforce(_) => AnyRecipe::Reinforce(origin.recipe(overrides)?),
        })
    }

    /// Makes the directory of a branch, a run that is then resumed.
    ///
    /// # Errors
    /// As of [`Origin::begin`].
    pub fn begin(&self, origin: &Origin) -> Result<PathBuf> {
        within!(self, _Kind, recipe => origin.begin(recipe))
    }

    /// `[data]`, where it is of pictures.
    pub fn pictures(&self) -> Option<&PictureData> {
        match self {
            AnyRecipe::Text(_) | AnyRecipe::Tune(_) | AnyRecipe::Prefer(_) | AnyRecipe::Reinforce(_) => None,
            AnyRecipe::Vae(recipe) => Some(&recipe.data),
            AnyRecipe::VqVae(recipe) => Some(&recipe.data),
            AnyRecipe::Gan(recipe) => Some(&recipe.data),
        }
    }

    /// `[train]`.
    pub fn train(&self) -> &Train {
        within!(self, _Kind, recipe => &recipe.train)
    }

    /// `[optim]`.
    pub fn optim(&self) -> &Optim {
        within!(self, _Kind, recipe => &recipe.optim)
    }

    /// What a batch has so many of, as `tokens`, and what losses are counted in.
    pub fn units(&self) -> [&'static str; 2] {
        within!(self, Kind, _recipe => [Kind::UNIT, Kind::LOSS])
    }

    /// All keys, as TOML.
    pub fn to_toml(&self) -> String {
        within!(self, _Kind, recipe => recipe.to_toml())
    }

    /// The folder of token shards that runs of this recipe can share, which are made in `own`; `None` where they make none.
    ///
    /// # Errors
    /// The data cannot be used.
    pub fn shards(&self, own: &Path, progress: &mut Progress) -> Result<Option<PathBuf>> {
        match self {
            AnyRecipe::Text(recipe) => source::shards(recipe, own, progress).map(Some),
            _ => Ok(None),
        }
    }

    /// As [`plan`](pretrain::plan).
    ///
    /// # Errors
    /// As of there.
    pub fn plan(&self, resume: Option<&Path>, device: &Device) -> Result<Plan> {
        within!(self, Kind, recipe => pretrain::plan::<Kind>(recipe, resume, device))
    }

    /// Does the run `name` in the folder `dir` with these settings over the recipe `base`; one that was done before is not done
    /// again, and one that was interrupted goes on.
    ///
    /// # Errors
    /// The run that is there has other settings; a signal stopped it; as of [`load`](AnyRecipe::load) and [`run`](AnyRecipe::run).
    pub fn once(
        dir: &Path,
        name: &str,
        base: &str,
        set: &[String],
        device: &Device,
        watch: &mut dyn Watch,
    ) -> Result<Summary> {
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
            false => {
                let was = AnyRecipe::of_run(&path, &[])?;
                if let Some(key) = was.differs(&fresh.settled(&mut |_, _, _| {})?) {
                    let problem =
                        format!("{} has been trained with another {key} than is asked for now", path.display());
                    let hint = format!("name another folder, or remove it: {}", path.display());
                    return Err(Error::failed(problem, hint));
                }
                (was, Some(&*path))
            }
        };
        let summary = recipe.run(&Os, resume, device, watch)?;
        match summary.stopped {
            None => Ok(summary),
            Some(signal) => {
                Err(Error::failed(format!("stopped by signal {signal}"), "the same command goes on where it stopped"))
            }
        }
    }

    /// A key that two recipes do not agree on, but for what a run is called.
    fn differs(&self, other: &AnyRecipe) -> Option<String> {
        let [own, others] =
            [self, other].map(|recipe| recipe.to_toml().parse::<toml::Table>().expect("it was written so"));
        let of = |tables: &toml::Table, section: &str, key: &str| {
            tables.get(section).and_then(|keys| keys.get(key)).cloned()
        };
        let keys = own.iter().chain(&others).filter(|(section, _)| *section != "run");
        let mut keys =
            keys.flat_map(|(section, keys)| keys.as_table().into_iter().flatten().map(move |(key, _)| (section, key)));
        let found = keys.find(|(section, key)| match (of(&own, section, key), of(&others, section, key)) {
            (Some(a), Some(b)) => !same(&a, &b),
            (a, b) => a != b,
        });
        found.map(|(section, key)| format!("{section}.{key}"))
    }

    /// As [`promise`](private::promise).
    ///
    /// # Errors
    /// As of there.
    pub fn promise(&self, resume: Option<&Path>, progress: &mut Progress) -> Result<Option<Promise>> {
        within!(self, Kind, recipe => private::promise::<Kind>(recipe, resume, progress))
    }

    /// The largest `train.batch` with which the run fits, all else being as it is, and its plan; `None` where not even 1 does.
    ///
    /// # Errors
    /// As of [`Task::planner`].
    pub fn largest_batch(&self, device: &Device) -> Result<Option<(usize, Plan)>> {
        within!(self, Kind, recipe => pretrain::largest_batch::<Kind>(recipe, device))
    }

    /// As [`rehearse`].
    ///
    /// # Errors
    /// As of there.
    pub fn rehearse(&self, device: &Device, seconds: f64, watch: &mut dyn Watch) -> Result<Rehearsed> {
        within!(self, Kind, recipe => rehearse::<Kind>(recipe, None, device, seconds, watch))
    }

    /// The recipe with what it left to the data, as the number of steps.
    ///
    /// # Errors
    /// The data cannot be used.
    pub fn settled(&self, progress: &mut Progress) -> Result<AnyRecipe> {
        Ok(match self {
            AnyRecipe::Tune(recipe) => AnyRecipe::Tune(Tune::settle(recipe, progress)?.into_owned()),
            AnyRecipe::Prefer(recipe) => AnyRecipe::Prefer(Prefer::settle(recipe, progress)?.into_owned()),
            AnyRecipe::Reinforce(recipe) => AnyRecipe::Reinforce(Reinforce::settle(recipe, progress)?.into_owned()),
            other => other.clone(),
        })
    }

    /// Tokens, or pictures, in a step, and which of them.
    pub fn per_step(&self) -> (u64, &'static str) {
        within!(self, Kind, recipe => (recipe.per_step(), Kind::UNIT))
    }

    /// As [`run`](pretrain::run).
    ///
    /// # Errors
    /// As of there.
    pub fn run(
        &self,
        disk: &dyn Disk,
        resume: Option<&Path>,
        device: &Device,
        watch: &mut dyn Watch,
    ) -> Result<Summary> {
        within!(self, Kind, recipe => pretrain::run::<Kind>(disk, recipe, resume, device, watch))
    }

    /// As [`run_on`](pretrain::run_on).
    ///
    /// # Errors
    /// As of there.
    pub fn run_on(
        &self,
        disk: &dyn Disk,
        resume: Option<&Path>,
        on: (&Device, &Arc<Ranks>),
        watch: &mut dyn Watch,
    ) -> Result<Option<Summary>> {
        within!(self, Kind, recipe => pretrain::run_on::<Kind>(disk, recipe, resume, on, watch))
    }
}

/// Whether two values mean the same: texts that differ do where they name the same thing on disk, since no key but of paths has such values.
fn same(a: &toml::Value, b: &toml::Value) -> bool {
    use toml::Value::{Array, String};
    match (a, b) {
        (String(a), String(b)) => {
            let place = |text: &str| std::fs::canonicalize(text).ok();
            a == b || place(a).is_some_and(|a| place(b) == Some(a))
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}
