//! Models of pictures: their data, and the sheets that show what they have learnt.

pub mod classify;
pub mod codes;
pub mod draw;
pub mod exam;
pub mod gan;
pub mod judge;
mod report;
pub mod sampler;
pub mod section;
pub mod task;
pub mod vae;
pub mod vqvae;
pub mod watchdog;

pub use draw::Maker;
pub use gan::GanTask;
pub use section::{PictureData, PictureSample};
pub use task::{Painter, PictureRecipe, PictureTask};
pub use vae::VaeTask;
pub use vqvae::VqVaeTask;

use super::event::{Event, Watch};
use super::run::RunDir;
use super::task::Progress;
use super::tensors::hex;
use crate::data::images::{self, Dims, Pictures, Reading, Shapes, Sheet, animate};
use crate::data::split::{Rule, Split};
use crate::disk;
use crate::error::{Error, Result};
use crate::model::Wrong;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Pictures to train on and pictures that are held out.
pub struct Opened {
    /// To train on.
    pub train: Pictures,
    /// Held out.
    pub held_out: Pictures,
    /// Files that were passed over.
    pub skipped: u64,
    /// SHA-256 of all pictures.
    pub hash: String,
}

impl Opened {
    /// What there is, in words.
    fn words(&self) -> String {
        let words: Vec<String> = self.about().into_iter().map(|(n, what)| format!("{n} {what}")).collect();
        format!("{}; {}", words.join(", "), self.train.dims())
    }

    /// What there is, as of [`Task::about`](super::Task::about).
    fn about(&self) -> Vec<(u64, &'static str)> {
        let Opened { train, held_out, skipped, .. } = self;
        let all = [
            (train.len() as u64, "pictures to train on"),
            (held_out.len() as u64, "held out"),
            (train.classes() as u64, "classes"),
            (*skipped, "files passed over"),
        ];
        all.into_iter().filter(|(n, _)| *n > 0).collect()
    }
}

/// Reads the pictures of `[data]`, or draws those of the built-in world. `labelled`: they must have labels.
///
/// # Errors
/// They cannot be read, are none, or have no labels.
pub fn open(data: &PictureData, labelled: bool, progress: &mut Progress) -> Result<Opened> {
    progress("reading pictures", 0, 0);
    let found = match &data.path {
        None => Shapes::new(data.seed, data.size.unwrap_or(28))?.found(data.count)?,
        Some(paths) => {
            let [path] = &paths[..] else {
                let hint = "give one folder or file; a folder of folders has labels";
                return Err(Error::config("data.path", format!("{} places with pictures", paths.len()), hint));
            };
            images::open(path, &Reading { size: data.size, colour: data.colour.map(Into::into) })?
        }
    };
    let skipped = found.skips.total();
    let split = Split { rule: Rule::Document, fraction: data.val_fraction, seed: data.seed };
    let (train, held_out) = found.split(&split)?;
    if labelled && train.classes() < 2 {
        let hint = "give a folder of folders, one a class, or an IDX file with its labels beside it";
        return Err(Error::config("model.conditional", "the pictures have no labels", hint));
    }
    let mut hash = Sha256::new();
    for part in [&train, &held_out] {
        hash.update(part.dims().to_string());
        for i in 0..part.len() {
            hash.update(part.get(i));
            hash.update((part.label(i).unwrap_or(0) as u16).to_le_bytes());
        }
    }
    Ok(Opened { train, held_out, skipped, hash: hex(hash) })
}

/// What a model of pictures of `dims` cannot be.
fn misfit(dims: Dims, wrong: &Wrong) -> Error {
    let problem = format!("pictures of {dims} need {}", wrong.expected);
    Error::config(format!("model.{}", wrong.field), problem, "change it, or scale them with data.size")
}

/// The lengths of a picture's axes.
fn shape(dims: Dims) -> [usize; 3] {
    [dims.height, dims.width, dims.channels]
}

/// Writes sheets into a run's `samples/`.
struct Sheets<'a> {
    run: &'a RunDir<'a>,
    step: u64,
}

impl Sheets<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.run.samples().join(format!("{name}.png"))
    }

    /// Saves a sheet under a name; the one without a name is that of the step.
    fn save(&self, name: &str, sheet: &Sheet, watch: &mut dyn Watch) -> Result<()> {
        disk::make_dirs(self.run.disk(), &self.run.samples())?;
        let step = self.step;
        let path = match name {
            "" => self.path(&format!("step-{step:06}")),
            "reconstructions" => self.path(&format!("{name}-{step:06}")),
            _ => self.path(name),
        };
        sheet.save(self.run.disk(), &path)?;
        if name.is_empty() {
            watch.event(&Event::Pictures { step, path: &path });
        }
        Ok(())
    }

    /// After the last step: the sheets of all steps, one after the other.
    fn animation(&self) -> Result<()> {
        /// More are thinned out.
        const MOST: usize = 60;
        let mut names: Vec<String> = self
            .run
            .disk()
            .list(&self.run.samples())
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| {
                name.strip_prefix("step-")
                    .and_then(|rest| rest.strip_suffix(".png"))
                    .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
            })
            .collect();
        names.sort();
        let every = names.len().div_ceil(MOST).max(1);
        let last = names.len().saturating_sub(1);
        let shown = names.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last);
        let sheets = shown.map(|(_, name)| Sheet::load(self.run.disk(), &self.run.samples().join(name)));
        let sheets = sheets.collect::<Result<Vec<Sheet>>>()?;
        // A run that was resumed with another grid has sheets of another size.
        let Some(dims) = sheets.last().map(|sheet| sheet.dims) else { return Ok(()) };
        let sheets: Vec<Sheet> = sheets.into_iter().filter(|sheet| sheet.dims == dims).collect();
        animate(self.run.disk(), &self.path("training"), &sheets, 250)
    }
}
