//! Runs of several [`Ranks`]. Rank 0 does all that a run does; the others hold the same weights and do their share of each step when it says so, and
//! nothing else: they write no file and decide nothing.

use super::checkpoint;
use super::run::RunDir;
use super::task::{Opened, RecipeFor, Task};
use super::trainer::At;
use crate::device::Device;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What rank 0 says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Next {
    /// The run is there, and its data stands.
    Begin { run: PathBuf },
    /// A step is done; see [`At`].
    Step { step: u64, batch: u64, updates: u64 },
    /// The weights and moments of the run's newest checkpoint are taken.
    Load,
    /// The run has ended.
    End,
}

impl Next {
    fn tell(&self, ranks: &Ranks) -> Result<()> {
        ranks.tell(&serde_json::to_vec(self).expect("plain data")).map(|_| ())
    }

    fn hear(ranks: &Ranks) -> Result<Next> {
        let said = ranks.tell(&[])?;
        let other = |_| Error::device("rank 0 says what this kiln does not know", "start the same kiln on all ranks");
        serde_json::from_slice(&said).map_err(other)
    }
}

/// Rank 0's part. When it goes, however that comes, the others end too.
pub(super) struct Lead(Arc<Ranks>);

impl Lead {
    pub(super) fn new(ranks: &Arc<Ranks>) -> Lead {
        Lead(Arc::clone(ranks))
    }

    /// The run is here, and stands: the others open it.
    pub(super) fn begin(&self, run: &Path) -> Result<()> {
        Next::Begin { run: run.to_owned() }.tell(&self.0)
    }

    /// The others take the weights of the newest checkpoint.
    pub(super) fn load(&self) -> Result<()> {
        Next::Load.tell(&self.0)
    }

    /// All do a step.
    pub(super) fn step(&self, at: At) -> Result<()> {
        let At { step, batch, updates } = at;
        Next::Step { step, batch, updates }.tell(&self.0)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Whoever is gone need not be told.
        let _ = Next::End.tell(&self.0);
    }
}

/// The recipe of a run of several ranks: a new one has as many times as many micro-batches in a step, so that each has as many as the recipe says; one that
/// goes on has as many as it had, which are shared anew.
///
/// # Errors
/// They cannot be shared evenly; the settings do not go with several ranks.
pub(super) fn shared<'r, T: Task>(
    recipe: Cow<'r, RecipeFor<T>>,
    new: bool,
    ranks: &Ranks,
) -> Result<Cow<'r, RecipeFor<T>>> {
    let size = ranks.size();
    if size == 1 {
        return Ok(recipe);
    }
    if !T::SHARED {
        let problem = format!("this kind of run takes whole batches, in one process, and here are {size}");
        return Err(Error::device(problem, "train without mpirun"));
    }
    if recipe.optim.dp.is_some() {
        let problem = format!("private training is one process's affair, and here are {size}");
        return Err(Error::config("optim.dp", problem, "train without mpirun"));
    }
    let mut recipe = recipe;
    let micros = recipe.train.accumulate;
    if new {
        recipe.to_mut().train.accumulate = micros * size;
        recipe.validate()?;
    } else if !micros.is_multiple_of(size) {
        let problem = format!("a step of this run has {micros} micro-batches, which {size} ranks cannot share evenly");
        return Err(Error::config(
            "train.accumulate",
            problem,
            format!("go on with a number of ranks that divides {micros}"),
        ));
    }
    Ok(recipe)
}

/// What a rank other than 0 does.
///
/// # Errors
/// The data cannot be read; the other ranks do not answer.
pub(super) fn follow<T: Task>(
    disk: &dyn Disk,
    recipe: &RecipeFor<T>,
    device: &Device,
    ranks: &Arc<Ranks>,
) -> Result<()> {
    // Where there is no run, rank 0 says itself why.
    let Next::Begin { run } = Next::hear(ranks)? else { return Ok(()) };
    let run = RunDir::look(disk, &run)?;
    let Opened { mut task, mut trainer, .. } = T::open(recipe, &run.data(), device, &mut |_, _, _| {})?;
    trainer.share(ranks)?;
    loop {
        match Next::hear(ranks)? {
            Next::Step { step, batch, updates } => {
                let at = At { step, batch, updates };
                task.before(&mut trainer, at, &run, &mut ())?;
                trainer.step_with(at, None)?;
            }
            Next::Load => match checkpoint::newest(disk, &run.checkpoints())?.found {
                Some((path, _)) => drop(checkpoint::load(disk, &path, &mut trainer.params)?),
                None => trainer.restart()?,
            },
            Next::Begin { .. } | Next::End => return Ok(()),
        }
    }
}
