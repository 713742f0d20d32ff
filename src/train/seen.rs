//! Which checkpoints have been trained on given tokens: the order of training windows is a function of seed and step, so it can
//! be walked again.

use super::checkpoint::{self, State};
use super::recipe::Recipe;
use crate::data::batch::Order;
use crate::data::dataset::{DATASET_FILE, DatasetInfo, Part};
use crate::data::takedown::{self, Place};
use crate::disk::{Disk, Os};
use crate::error::{AtPath, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Whether a checkpoint has been trained on documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has; the step, from 1, in which it first was.
    Seen(u64),
    /// It has not.
    Unseen,
    /// It cannot be told, and why.
    Unknown(String),
}

/// A checkpoint and what it has been trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The checkpoint's folder.
    pub checkpoint: PathBuf,
    /// Its steps.
    pub step: u64,
    /// Whether it has been trained on any of the documents.
    pub verdict: Verdict,
}

/// The runs in `path`, which is one itself or a folder of some.
///
/// # Errors
/// The folder cannot be read.
pub fn runs(path: &Path) -> Result<Vec<PathBuf>> {
    let is_run = |path: &Path| path.join("recipe.toml").is_file();
    if is_run(path) {
        return Ok(vec![path.to_owned()]);
    }
    let mut runs: Vec<PathBuf> = Os.list(path).at(path)?.into_iter().map(|name| path.join(name)).collect();
    runs.retain(|run| is_run(run));
    runs.sort();
    Ok(runs)
}

/// The data set of a run: its own, or the one that its recipe names.
fn data(run: &Path, recipe: &Recipe) -> Option<PathBuf> {
    let own = run.join("data");
    let named = recipe.data.path.iter().flatten().cloned();
    [own].into_iter().chain(named).find(|path| path.join(DATASET_FILE).is_file())
}

/// For each checkpoint of `run`, whether it has been trained on the documents called `names`: those that are in its data set, and
/// those that were taken out of it.
///
/// # Errors
/// The run's recipe, data set or checkpoints cannot be read.
pub fn seen(run: &Path, names: &[String]) -> Result<Vec<Seen>> {
    let recipe = Recipe::load(Some(&run.join("recipe.toml")), &[])?;
    let Some(dir) = data(run, &recipe) else { return Ok(Vec::new()) };
    let info = DatasetInfo::load(&dir)?;
    let mut versions = vec![(info.hash(), info.train.tokens, takedown::find(&dir, names)?)];
    for record in takedown::records(&dir)? {
        let places = record.places.into_iter().filter(|place| names.contains(&place.document)).collect();
        versions.push((record.before, record.train_tokens, places));
    }
    if versions.iter().all(|(_, _, places)| places.is_empty()) {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for (step, checkpoint) in checkpoint::list(&Os, &run.join("checkpoints"))? {
        let path = checkpoint.join("state.json");
        let state = State::from_json(&crate::disk::text(&Os, &path, 1 << 24)?, &path)?;
        let verdict = over_time(&recipe, &state, &versions);
        all.push(Seen { checkpoint, step, verdict });
    }
    Ok(all)
}

/// A version of a data set: its hash, its training tokens, and where the documents were in it.
type Version = (String, u64, Vec<Place>);

/// Goes through the data sets that a run was trained on, one after the other.
fn over_time(recipe: &Recipe, state: &State, versions: &[Version]) -> Verdict {
    let mut verdict = match state.data.first() {
        Some((0, _)) => Verdict::Unseen,
        _ => Verdict::Unknown("it does not say what data it was trained on at first".to_owned()),
    };
    let ends = state.data.iter().skip(1).map(|(step, _)| *step).chain([state.step]);
    for ((from, hash), to) in state.data.iter().zip(ends) {
        match versions.iter().find(|(version, ..)| version == hash) {
            Some((_, tokens, places)) => {
                let steps = *from..to + state.guard.offset;
                if let Verdict::Seen(step) = judge(recipe, steps, *tokens as usize, places) {
                    return Verdict::Seen(step);
                }
            }
            None => {
                verdict =
                    Verdict::Unknown("it was trained on a version of the data set that is not on record".to_owned())
            }
        }
    }
    verdict
}

/// Walks the windows of the batches of these steps, from 0; after a run went back, later batches were drawn, and those that it gave
/// up count as seen.
fn judge(recipe: &Recipe, steps: Range<u64>, tokens: usize, places: &[Place]) -> Verdict {
    let mut ranges: Vec<Range<usize>> =
        places.iter().filter(|place| place.part == Part::Train).map(|place| place.positions.clone()).collect();
    ranges.sort_by_key(|range| range.start);
    let train = &recipe.train;
    if ranges.is_empty() || tokens <= train.context {
        return Verdict::Unseen;
    }
    let order = Order::new(tokens, train.context, train.seed);
    let windows = (train.batch * train.accumulate) as u64;
    let first = (steps.start * windows..steps.end * windows).find(|&window| {
        let start = order.start(window);
        let end = start + train.context + 1;
        // The first range that ends after the window starts.
        let next = ranges.partition_point(|range| range.end <= start);
        ranges.get(next).is_some_and(|range| range.start < end)
    });
    first.map_or(Verdict::Unseen, |window| Verdict::Seen(window / windows + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_with_a_window_over_the_document_is_found() {
        let mut recipe = Recipe::default();
        (recipe.train.batch, recipe.train.accumulate, recipe.train.context, recipe.train.seed) = (2, 2, 16, 5);
        let tokens = 16 * 400;
        let order = Order::new(tokens, 16, 5);
        for (start, end) in [(1000, 1001), (3000, 3100), (6000, 6001)] {
            let over = |window: &u64| order.start(*window) < end && order.start(*window) + 17 > start;
            let first = (0..400).find(over).unwrap() / 4 + 1;
            let place = |part| Place {
                document: "a".into(),
                part,
                shard: "s".into(),
                tokens: start..end,
                positions: start..end,
            };
            let after = |step, part| {
                let versions = [("a".to_owned(), tokens as u64, vec![place(part)])];
                let state = State { step, data: vec![(0, "a".to_owned())], ..State::new(5) };
                over_time(&recipe, &state, &versions)
            };
            let unsure =
                State { step: first, data: vec![(0, "b".to_owned()), (first - 1, "a".to_owned())], ..State::new(5) };
            let versions = [("a".to_owned(), tokens as u64, vec![place(Part::Train)])];
            assert_eq!(over_time(&recipe, &unsure, &versions), Verdict::Seen(first));
            assert!(matches!(over_time(&recipe, &State { step: first - 1, ..unsure }, &versions), Verdict::Unknown(_)));
            assert_eq!(after(first, Part::Train), Verdict::Seen(first));
            assert_eq!(after(first - 1, Part::Train), Verdict::Unseen);
            assert_eq!(after(90, Part::Val), Verdict::Unseen, "held-out text is not trained on");
        }
    }
}
