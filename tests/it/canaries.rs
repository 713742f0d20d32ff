//! Notes with secrets stand in what is read as often as they should, and once after duplicates are taken out.

use crate::serve::device;
use kiln::data::Sources;
use kiln::data::clean::DOCUMENTS;
use kiln::study::Seed;
use kiln::study::canaries::{Settings, study};
use std::collections::BTreeMap;
use std::path::Path;

/// How often each note stands in a corpus.
fn counts(corpus: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for document in Sources::open(&[corpus], "text").expect("a corpus").documents() {
        let document = document.expect("a document");
        for paragraph in document.text.split("\n\n").filter(|text| text.starts_with("A note that nobody")) {
            *counts.entry(paragraph.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn notes_are_planted_attacked_and_taken_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings { bytes: 60_000, copies: vec![(1, 2), (12, 2)], unseen: 2, steps: 2 };
    let mut told = Vec::new();
    let told_of = &mut |what: &str| told.push(what.to_owned());
    let mut at = Seed { seed: 3, dir: dir.path(), device: &device(), told: told_of, watch: &mut () };
    let found = study(&settings, &mut at).expect("a study");
    let levels: Vec<(u32, usize)> = found.levels.iter().map(|level| (level.copies, level.notes)).collect();
    assert_eq!(levels, [(0, 2), (1, 2), (12, 2)]);
    let mut all: Vec<usize> = counts(&dir.path().join("raw.jsonl")).into_values().collect();
    all.sort_unstable();
    assert_eq!(all, [1, 1, 12, 12]);
    let clean: Vec<usize> = counts(&dir.path().join("cleaned").join(DOCUMENTS)).into_values().collect();
    assert_eq!(clean, [1; 4]);
    // Two steps teach nobody a secret; all is measured all the same.
    for level in &found.levels {
        assert!(
            level.extracted == [0.0, 0.0] && level.exposure.iter().all(|bits| (0.0..=8.0).contains(bits)),
            "{level:?}"
        );
    }
    assert!(found.tokens.iter().all(|&n| n >= 5.0), "{:?}", found.tokens);
    // What is there is not done again.
    let again = study(&settings, &mut at).expect("a study");
    assert_eq!(again, found);
    // With other settings it would be another study.
    let e = study(&Settings { steps: 3, ..settings }, &mut at).expect_err("two steps are there");
    assert!(
        e.to_string().contains("train.steps") && e.hint().is_some_and(|hint| hint.contains("another folder")),
        "{e}"
    );
}
