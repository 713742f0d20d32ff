//! What a private run will promise by its last step, before it is begun.

use super::{Ledger, Promise, ledger, mechanism};
use crate::disk::Os;
use crate::error::Result;
use crate::train::checkpoint;
use crate::train::rehearse::Scratch;
use crate::train::run::PRIVACY;
use crate::train::task::{Progress, RecipeFor, Task};
use std::path::Path;

/// What a run of `recipe` will promise; `None` where it is not private. `resume` is its directory where it has one: what it has spent by
/// now counts. Data is read, and made where it has to be, since what is promised hangs on the number of examples.
///
/// # Errors
/// There are fewer examples than a step is to have; no noise gives the ε that is asked for; the data, or the account of a run that goes on,
/// cannot be used.
pub fn promise<T: Task>(
    recipe: &RecipeFor<T>,
    resume: Option<&Path>,
    progress: &mut Progress,
) -> Result<Option<Promise>> {
    let Some(dp) = recipe.optim.dp else { return Ok(None) };
    let recipe = &*T::settle(recipe, progress)?;
    let (scratch, train) = (Scratch::new(), &recipe.train);
    let own = resume.map(|run| run.join("data"));
    let Some(examples) = T::examples(recipe, own.as_deref(), scratch.path(), progress)? else { return Ok(None) };
    let mechanism = mechanism(&dp, (train.batch * train.accumulate) as u64, examples.count, train.steps)?;
    let (done, spent) = match resume {
        Some(run) => {
            let newest = checkpoint::newest(&Os, &run.join("checkpoints"))?.found;
            let done = newest.map_or(0, |(_, state)| state.step);
            (done, ledger::spent(&Os, &run.join(PRIVACY), done)?)
        }
        None => (0, Vec::new()),
    };
    let ledger = Ledger::new(&dp, mechanism, examples, spent, train.steps);
    Ok(Some(ledger.promise(train.steps.saturating_sub(done))))
}
