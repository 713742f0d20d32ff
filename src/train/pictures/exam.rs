//! Judging pictures outside of a run: those that a trained model draws, or another program's.
//!
//! The classifier that judges hangs on the data, its split and nothing else, so that all numbers for one data set compare; it
//! is kept in a folder of its own. Training pictures take the same exam as a control: no model can be expected to do better.

use super::judge::{Judge, Verdict};
use super::sampler::{PictureSampler, draws};
use super::{PictureData, vae};
use crate::data::images::{self, Colour, Dims, Pictures, Reading};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::params::Hold;
use crate::train::any::AnyRecipe;
use crate::train::checkpoint;
use crate::train::task::Progress;
use std::path::{Path, PathBuf};

/// Pictures that a model draws for its exam, unless something else is said.
pub const PICTURES: usize = 10_000;

/// What is examined, and by which data.
pub struct Candidate<'a> {
    /// A run or checkpoint of a model of pictures; else pictures, as [`images::open`] reads them.
    pub what: &'a Path,
    /// What the pictures should look like; where it is absent, the run's data or the built-in world.
    pub data: Option<&'a Path>,
    /// Pictures that a model draws.
    pub count: usize,
    /// Of the numbers that a model draws from.
    pub seed: u64,
    /// Where classifiers are kept, each in a folder that bears the hash of its data.
    pub judges: &'a Path,
}

/// What came out.
pub struct Outcome {
    /// What is said of the candidate's pictures.
    pub verdict: Verdict,
    /// What is said of as many training pictures.
    pub control: Verdict,
    /// How many pictures were looked at.
    pub pictures: usize,
    /// How many were held out, from which distances are measured.
    pub held_out: usize,
    /// Who judged, in words.
    pub judge: String,
}

/// The recipe's `[data]` of the run at or above `path`.
fn data_of(path: &Path) -> Result<Option<PictureData>> {
    let Some(run) = path.ancestors().take(3).find(|dir| dir.join("recipe.toml").is_file()) else { return Ok(None) };
    Ok(AnyRecipe::of_run(run, &[])?.pictures().cloned())
}

/// Judges.
///
/// # Errors
/// There is neither a model nor pictures, or no data to compare with; pictures are of another size than the data's.
pub fn examine(candidate: &Candidate, device: &Device, progress: &mut Progress) -> Result<Outcome> {
    let &Candidate { what, data, count, seed, judges } = candidate;
    let is_model = what.join("recipe.toml").is_file() || what.join(checkpoint::MODEL).is_file();
    if is_model && !draws(what)? {
        let hint = "kiln sample writes with it; to judge pictures, give a run of a vae or gan, or a folder of pictures";
        return Err(Error::usage(format!("{} is no model of pictures", what.display()), hint));
    }
    let own = if is_model { data_of(what)? } else { None };
    let mut settings = match own {
        Some(own) => own,
        None => vae::VaeRecipe::from_toml("", what, &[])?.data,
    };
    if let Some(data) = data {
        settings.path = Some(vec![data.to_owned()]);
    }
    let opened = super::open(&settings, false, progress)?;
    let dims = opened.train.dims();
    // Before minutes go into a classifier.
    let others = if is_model { None } else { Some(pictures_at(what, dims, progress)?) };
    let folder: PathBuf = judges.join(&opened.hash[..12]);
    let mut judge = Judge::open(&opened, &folder, device, progress)?;
    let pictures = match others {
        Some(others) => others,
        None => {
            progress("drawing pictures", 0, 0);
            let mut sampler = PictureSampler::open(what, Hold::Frozen, device)?;
            if sampler.dims() != dims {
                let problem = format!("the model draws pictures of {}, and the data's are {dims}", sampler.dims());
                return Err(Error::usage(problem, "give the data that it was trained on"));
            }
            sampler.pictures(count, seed)
        }
    };
    progress("judging", 0, 0);
    let n = pictures.len() / dims.values();
    let verdict = judge.verdict(&pictures, true)?;
    let train = &opened.train;
    let control: Vec<u8> =
        (0..n.min(train.len())).flat_map(|i| train.get(i * train.len() / n.min(train.len()))).copied().collect();
    let control = judge.verdict(&control, true)?;
    Ok(Outcome { verdict, control, pictures: n, held_out: opened.held_out.len(), judge: judge.says() })
}

/// All pictures at `path`, made to fit the data.
fn pictures_at(path: &Path, dims: Dims, progress: &mut Progress) -> Result<Vec<u8>> {
    progress("reading pictures", 0, 0);
    let colour = if dims.channels == 1 { Colour::Grey } else { Colour::Rgb };
    let size = (dims.height == dims.width).then_some(dims.height);
    let found = images::open(path, &Reading { size, colour: Some(colour) })?;
    let mut all = Vec::new();
    for pictures in [Some(found.train), found.held_out].into_iter().flatten() {
        if pictures.dims() != dims {
            let problem = format!("the pictures are {}, and the data's are {dims}", pictures.dims());
            return Err(Error::usage(problem, "give pictures of that size"));
        }
        append(&pictures, &mut all);
    }
    Ok(all)
}

fn append(pictures: &Pictures, all: &mut Vec<u8>) {
    (0..pictures.len()).for_each(|i| all.extend_from_slice(pictures.get(i)));
}
