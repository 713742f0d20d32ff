//! Labels that are likely wrong, in sets whose documents have one.
//!
//! A softmax regression over hashed words is trained on all folds but one and judges the one: the loss
//! −ln p(label | text) of a document is that of a classifier that has not seen it (as in confident learning, Northcutt et
//! al. 2021). A label is suspect where another one is likelier and the loss is at least `min_loss`.

use super::recipe::Labels;
use super::sort::Sorter;
use super::spool::{Bits, Spool, draw};
use super::words::Words;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Weights for each label: features are hashed to so many.
const FEATURES: usize = 1 << 16;
/// Labels that are told apart.
const MOST: usize = 200;
/// The step at the start; it falls to 0 in a line.
const RATE: f32 = 4.0;
/// A document without a label.
const NONE: u32 = u32::MAX;

/// The labels of all documents.
struct Labelled {
    names: Vec<String>,
    /// By document.
    labels: Vec<u32>,
    folds: Vec<u16>,
}

/// Labels whose weights are added at once.
const LANES: usize = 8;

/// One fold's classifier: weights (features, labels), the labels filled up to a multiple of [`LANES`].
struct Classifier {
    weights: Vec<[f32; LANES]>,
    labels: usize,
}

impl Classifier {
    fn new(labels: usize) -> Classifier {
        Classifier { weights: vec![[0.0; LANES]; FEATURES * labels.div_ceil(LANES)], labels }
    }

    /// Where the weights of a feature are.
    fn at(&self, feature: u32) -> Range<usize> {
        let n = self.labels.div_ceil(LANES);
        feature as usize * n..(feature as usize + 1) * n
    }

    /// Probabilities of the labels, given the places of a document's features.
    fn predict(&self, features: &[u32], p: &mut Vec<[f32; LANES]>) {
        p.clear();
        p.resize(self.labels.div_ceil(LANES), [0.0; LANES]);
        for &feature in features {
            p.iter_mut().zip(&self.weights[self.at(feature)]).for_each(|(p, w)| (0..LANES).for_each(|i| p[i] += w[i]));
        }
        // Features count 1/√n each, so that a text has length 1.
        let scale = 1.0 / (features.len().max(1) as f32).sqrt();
        let (p, beyond) = p.as_flattened_mut().split_at_mut(self.labels);
        let most = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        p.iter_mut().for_each(|p| *p = (scale * (*p - most)).exp());
        let sum: f32 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        beyond.fill(0.0);
    }

    /// A step of gradient descent on one document.
    fn learn(&mut self, features: &[u32], label: u32, rate: f32, p: &mut Vec<[f32; LANES]>) {
        self.predict(features, p);
        let scale = rate / (features.len().max(1) as f32).sqrt();
        p.as_flattened_mut().iter_mut().for_each(|p| *p *= -scale);
        p.as_flattened_mut()[label as usize] += scale;
        for &feature in features {
            let at = self.at(feature);
            self.weights[at].iter_mut().zip(&*p).for_each(|(w, step)| (0..LANES).for_each(|i| w[i] += step[i]));
        }
    }
}

/// Documents, each with the places of its features.
type Features = Vec<(u32, Vec<u32>)>;

/// The features of parts, which each epoch needs: as many as there is memory for are kept.
struct Cache<'a> {
    spool: &'a Spool,
    labelled: &'a Labelled,
    kept: BTreeMap<usize, Features>,
    /// Bytes that are left.
    memory: usize,
}

impl Cache<'_> {
    /// Calls `each` with the documents of a part.
    fn with<T>(&mut self, part: usize, each: impl FnOnce(&Features) -> T) -> Result<T> {
        if let Some(features) = self.kept.get(&part) {
            return Ok(each(features));
        }
        let features = features(self.spool, part, self.labelled)?;
        let done = each(&features);
        let size = features.iter().map(|(_, places)| 48 + 4 * places.capacity()).sum();
        if let Some(left) = self.memory.checked_sub(size) {
            self.memory = left;
            self.kept.insert(part, features);
        }
        Ok(done)
    }
}

/// Writes [document, likelier label, bits of the loss] for each suspect label to `out`; gives the labels' names.
pub fn suspects(
    spool: &Spool,
    removed: &Bits,
    settings: &Labels,
    folder: &Path,
    memory: usize,
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<String>> {
    let labelled = labelled(spool, removed, settings)?;
    let folds = settings.folds;
    let needed = 4 * FEATURES * labelled.names.len().next_multiple_of(LANES) * folds;
    if needed > memory {
        let problem = format!("{} labels in {folds} folds need {} MB", labelled.names.len(), needed >> 20);
        return Err(Error::config("labels.folds", problem, "give more memory with --mem, or take fewer folds"));
    }
    let mut classifiers: Vec<Classifier> = (0..folds).map(|_| Classifier::new(labelled.names.len())).collect();
    let steps = (settings.epochs * spool.parts()).max(1);
    let mut cache = Cache { spool, labelled: &labelled, kept: BTreeMap::new(), memory: (memory - needed) / 2 };
    for step in 0..steps {
        let rate = RATE * (1.0 - step as f32 / steps as f32);
        cache.with(step % spool.parts().max(1), |documents| {
            classifiers.par_iter_mut().enumerate().for_each(|(fold, classifier)| {
                let mut p = Vec::new();
                for (document, features) in documents {
                    let document = *document as usize;
                    if usize::from(labelled.folds[document]) != fold {
                        classifier.learn(features, labelled.labels[document], rate, &mut p);
                    }
                }
            });
        })?;
        progress(step as u64 + 1);
    }
    let mut found = Sorter::<3>::new(folder, "labels", memory / 4);
    for part in 0..spool.parts() {
        let judge = |p: &mut Vec<[f32; LANES]>, (document, features): &(u32, Vec<u32>)| {
            let label = labelled.labels[*document as usize] as usize;
            classifiers[usize::from(labelled.folds[*document as usize])].predict(features, p);
            let p = &p.as_flattened()[..labelled.names.len()];
            let likeliest = (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]).then(b.cmp(&a)))?;
            let loss = -f64::from(p[label].max(f32::MIN_POSITIVE)).ln();
            let suspect = likeliest != label && loss >= settings.min_loss;
            suspect.then(|| [u64::from(*document), likeliest as u64, loss.to_bits()])
        };
        let judged: Vec<Option<[u64; 3]>> =
            cache.with(part, |documents| documents.par_iter().map_init(Vec::new, judge).collect())?;
        judged.into_iter().flatten().try_for_each(|record| found.push(record))?;
    }
    found.finish(out)?;
    Ok(labelled.names)
}

/// The labels of the documents that are still there.
fn labelled(spool: &Spool, removed: &Bits, settings: &Labels) -> Result<Labelled> {
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let (mut labels, mut folds) = (Vec::new(), Vec::new());
    for part in 0..spool.parts() {
        let (bytes, first) = (spool.part(part)?, spool.range(part).start);
        for i in 0..bytes.len() {
            let stored = bytes.get(i)?;
            let label = if removed.has(first + i as u32) { None } else { stored.field(&settings.field) };
            let count = names.len() as u32;
            labels.push(label.map_or(NONE, |label| *names.entry(label).or_insert(count)));
            folds.push((draw(&stored.name) % settings.folds as u64) as u16);
            if names.len() > MOST {
                let problem = format!("the field {:?} has more than {MOST} values", settings.field);
                return Err(Error::config("labels.field", problem, "name the field that holds the label"));
            }
        }
    }
    if names.len() < 2 {
        let found = if names.is_empty() { "no document has it" } else { "all documents have the same value" };
        let problem = format!("{found}: {:?} is no label", settings.field);
        return Err(Error::config(
            "labels.field",
            problem,
            "name the metadata field that holds the label, or leave it \"\"",
        ));
    }
    let mut by_number = vec![String::new(); names.len()];
    names.into_iter().for_each(|(name, number)| by_number[number as usize] = name);
    Ok(Labelled { names: by_number, labels, folds })
}

/// The labelled documents of a part in a random order that is always the same, each with the places of its features.
fn features(spool: &Spool, part: usize, labelled: &Labelled) -> Result<Features> {
    let (bytes, range) = (spool.part(part)?, spool.range(part));
    let mut order: Vec<u32> = range.clone().filter(|&i| labelled.labels[i as usize] != NONE).collect();
    order.sort_unstable_by_key(|&i| super::words::mix(i.into()));
    order
        .into_par_iter()
        .map_init(Words::default, |words, document| {
            words.read(&bytes.get((document - range.start) as usize)?.text);
            let all = words.hashes().iter();
            let mut features: Vec<u32> = all.map(|hash| (hash % FEATURES as u64) as u32).collect();
            features.sort_unstable();
            features.dedup();
            Ok((document, features))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::clean::recipe::Recipe;
    use crate::data::clean::sort::Merge;
    use crate::data::clean::spool::{Stored, starts};
    use crate::rng::{Purpose, Rng};
    use std::collections::BTreeSet;

    fn run(labels: impl Fn(u32, &str) -> String) -> Result<(Vec<String>, Vec<u64>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let topics = [
            ("farm", ["barn", "hay", "cow", "field", "plough", "goat"]),
            ("sea", ["boat", "wave", "net", "salt", "harbour", "gull"]),
            ("school", ["book", "chalk", "bench", "lesson", "ink", "map"]),
        ];
        let mut rng = Rng::new(3, Purpose::Test, 0, 0);
        let mut part = Vec::new();
        for i in 0..300u32 {
            let (topic, words) = topics[rng.below(3) as usize];
            let mut text = String::new();
            for _ in 0..20 {
                text += ["the", "old", words[rng.below(6) as usize], "was"][rng.below(4) as usize];
                text.push(' ');
            }
            text += words[0];
            let metadata = format!("{{\"topic\":\"{}\"}}", labels(i, topic));
            let stored = Stored {
                name: format!("d{i}").into(),
                source: "".into(),
                metadata: metadata.into(),
                text: text.into(),
            };
            stored.write(&mut part);
        }
        std::fs::write(&path, &part).unwrap();
        let spool = Spool::new(vec![(path.clone(), starts(&path, &part).unwrap())]);
        let settings = Labels { field: "topic".into(), ..Recipe::default().labels };
        let out = dir.path().join("out");
        let names = suspects(&spool, &Bits::new(300), &settings, dir.path(), 64 << 20, &out, &mut |_| {})?;
        let found = Merge::<3>::new(&[out], 4096)?.map(|record| record.unwrap()[0]).collect();
        Ok((names, found))
    }

    #[test]
    fn labels_that_the_text_speaks_against_are_found() {
        let wrong = |i: u32| i % 15 == 7;
        let (names, found) =
            run(|i, topic| if wrong(i) { if topic == "sea" { "farm" } else { "sea" } } else { topic }.into()).unwrap();
        assert_eq!(names.len(), 3);
        let (found, planted): (BTreeSet<u64>, BTreeSet<u64>) =
            (found.into_iter().collect(), (0..300).filter(|&i| wrong(i as u32)).collect());
        let hit = found.intersection(&planted).count();
        assert!(hit as f64 >= 0.9 * planted.len() as f64, "{hit} of {}", planted.len());
        assert!(hit as f64 >= 0.9 * found.len() as f64, "{hit} of {} found", found.len());
    }

    #[test]
    fn a_field_that_is_no_label_is_named() {
        let error = run(|_, _| "same".into()).unwrap_err().to_string();
        assert!(error.contains("labels.field: all documents have the same value"), "{error}");
        let error = run(|i, _| i.to_string()).unwrap_err().to_string();
        assert!(error.contains("more than 200 values"), "{error}");
    }
}
