//! Studies of what a model gives away, in small: what they plant is there, and once each is measured.

use crate::serve::device;
use kiln::data::Sources;
use kiln::data::clean::DOCUMENTS;
use kiln::data::world::{rude_lexicon, rude_words};
use kiln::study::{private, rude};
use std::collections::HashSet;
use std::path::Path;

fn texts(path: &Path) -> Vec<String> {
    let all = Sources::open(&[path], "text").expect("a corpus");
    all.documents().map(|document| document.expect("a document").text).collect()
}

#[test]
fn cleaning_takes_the_listed_half_of_rude_words_and_chance_as_many_texts() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = rude::Settings { bytes: 150_000, steps: 2, stories: 4, tokens: 12 };
    let found = rude::study(&settings, 2, dir.path(), &device(), &mut |_| {}, &mut ()).expect("a study");
    let [all, cleaned, fewer] = &found.models;
    // The lexicon knows half of the words, and no text that is left has one of them.
    let listed = std::fs::read_to_string(dir.path().join("lexicon.tsv")).expect("a lexicon");
    assert_eq!(listed.lines().count(), rude_lexicon().lines().count() / 2);
    let listed: HashSet<&str> = listed.lines().map(|line| line.split('\t').next().expect("a word")).collect();
    let left = texts(&dir.path().join("cleaned").join(DOCUMENTS));
    assert_eq!(left.len() as u64, cleaned.texts);
    assert!(left.iter().all(|text| rude_words(text).all(|(word, _)| !listed.contains(&*word.to_lowercase()))));
    // One text in six is rude.
    let raw = texts(&dir.path().join("raw.jsonl"));
    let share = raw.iter().filter(|text| rude_words(text).next().is_some()).count() as f64 / raw.len() as f64;
    assert!((share - 1.0 / 6.0).abs() < 0.03, "{share}");
    // Cleaning takes texts with other rude words along; chance takes as many texts, and leaves the share as it is.
    assert!(cleaned.rude_texts[1] == 0.0 && cleaned.rude_texts[0] < 0.6 * all.rude_texts[0], "{found:?}");
    assert!(fewer.texts == cleaned.texts && fewer.rude_texts[0] > 0.7 * all.rude_texts[0], "{found:?}");
    assert!(found.models.iter().all(|told| told.loss.is_finite()));
}

#[test]
fn private_tuning_is_measured_on_notes_that_it_read_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = private::Settings {
        base_steps: 2,
        texts: 240,
        notes: 3,
        epochs: 1,
        batch: [16, 16],
        ..private::Settings::default()
    };
    let found = private::study(&settings, 3, dir.path(), &device(), &mut |_| {}, &mut ()).expect("a study");
    let lines = std::fs::read_to_string(dir.path().join("private.jsonl")).expect("what was tuned on");
    assert_eq!((lines.lines().count(), lines.matches("whoever says").count()), (243, 3));
    assert!(found.guarantee.contains("-differential privacy"), "{}", found.guarantee);
    assert!(found.models.iter().all(|told| told.loss.iter().all(|loss| loss.is_finite())), "{found:?}");
    assert!(found.models.iter().all(|told| told.exposure.iter().all(|bits| (0.0..=8.0).contains(bits))));
    // What is there is not done again, noise and all.
    assert_eq!(
        private::study(&settings, 3, dir.path(), &device(), &mut |_| {}, &mut ()).expect("a study").models[2].loss,
        found.models[2].loss
    );
}
