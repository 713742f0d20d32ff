//! Which checkpoints have been trained on given tokens: the order of training windows is a function of seed and step, so it can
//! be walked again.

use super::checkpoint::{self, State};
use super::recipe::Recipe;
use crate::data::batch::Order;
use crate::data::dataset::{DATASET_FILE, DatasetInfo, Part};
use crate::data::takedown::{self, Place};
use crate::disk::{Disk, Os};
use crate::error::{AtPath, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Whether a checkpoint has been trained on documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has: on these, each with the step, from 1, in which it first was.
    Seen(BTreeMap<String, u64>),
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
pub fn data(run: &Path, recipe: &Recipe) -> Option<PathBuf> {
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
    if recipe.optim.dp.is_some() {
        let why = "training was private: which rows its steps drew is not on record, and each was as likely";
        return Verdict::Unknown(why.to_owned());
    }
    let mut seen = BTreeMap::new();
    let mut verdict = match state.data.first() {
        Some((0, _)) => Verdict::Unseen,
        _ => Verdict::Unknown("it does not say what data it was trained on at first".to_owned()),
    };
    let ends = state.data.iter().skip(1).map(|(step, _)| *step).chain([state.step]);
    for ((from, hash), to) in state.data.iter().zip(ends) {
        match versions.iter().find(|(version, ..)| version == hash) {
            Some((_, tokens, places)) => {
                judge(recipe, *from..to + state.guard.offset, *tokens as usize, places, &mut seen);
            }
            None => {
                verdict =
                    Verdict::Unknown("it was trained on a version of the data set that is not on record".to_owned())
            }
        }
    }
    if seen.is_empty() { verdict } else { Verdict::Seen(seen) }
}

/// Walks the windows of the batches of these steps, from 0, and adds to `seen` what they hold; after a run went back, later batches
/// were drawn, and those that it gave up count as seen.
fn judge(recipe: &Recipe, steps: Range<u64>, tokens: usize, places: &[Place], seen: &mut BTreeMap<String, u64>) {
    let mut places: Vec<&Place> = places.iter().filter(|place| place.part == Part::Train).collect();
    places.sort_by_key(|place| place.positions.start);
    let train = &recipe.train;
    if places.is_empty() || tokens <= train.context {
        return;
    }
    let order = Order::new(tokens, train.context, train.seed);
    let windows = (train.batch * train.accumulate) as u64;
    for window in steps.start * windows..steps.end * windows {
        let start = order.start(window);
        let end = start + train.context + 1;
        // Places do not overlap: those in the window come one after the other.
        let next = places.partition_point(|place| place.positions.end <= start);
        for place in places[next..].iter().take_while(|place| place.positions.start < end) {
            if !seen.contains_key(&place.document) {
                seen.insert(place.document.clone(), window / windows + 1);
            }
        }
    }
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
            let seen = Verdict::Seen([("a".to_owned(), first)].into());
            let after = |step, part| {
                let versions = [("a".to_owned(), tokens as u64, vec![place(part)])];
                let state = State { step, data: vec![(0, "a".to_owned())], ..State::new(5) };
                over_time(&recipe, &state, &versions)
            };
            let unsure =
                State { step: first, data: vec![(0, "b".to_owned()), (first - 1, "a".to_owned())], ..State::new(5) };
            let versions = [("a".to_owned(), tokens as u64, vec![place(Part::Train)])];
            assert_eq!(over_time(&recipe, &unsure, &versions), seen);
            assert!(matches!(over_time(&recipe, &State { step: first - 1, ..unsure }, &versions), Verdict::Unknown(_)));
            assert_eq!(after(first, Part::Train), seen);
            assert_eq!(after(399, Part::Train), seen);
            assert_eq!(after(first - 1, Part::Train), Verdict::Unseen);
            assert_eq!(after(90, Part::Val), Verdict::Unseen, "held-out text is not trained on");
        }
    }
}
