//! Studies of what a model gives away, in small: what they plant is there, and once each is measured.

use crate::serve::device;
use kiln::data::Sources;
use kiln::data::clean::DOCUMENTS;
use kiln::data::world::{rude_lexicon, rude_words};
use kiln::study::effect::{self, Effects};
use kiln::study::{Seed, private, rude};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

fn texts(path: &Path) -> Vec<String> {
    let all = Sources::open(&[path], "text").expect("a corpus");
    all.documents().map(|document| document.expect("a document").text).collect()
}

#[test]
fn cleaning_takes_the_listed_half_of_rude_words_and_chance_as_many_texts() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = rude::Settings { bytes: 150_000, steps: 2, stories: 4, tokens: 12 };
    let seed = dir.path().join("seed-2");
    let mut at = Seed { seed: 2, dir: &seed, device: &device(), told: &mut |_| {}, watch: &mut () };
    let found = rude::study(&settings, &mut at).expect("a study");
    let [all, cleaned, fewer] = &found.models;
    // The lexicon knows half of the words, and no text that is left has one of them.
    let listed = std::fs::read_to_string(seed.join("lexicon.tsv")).expect("a lexicon");
    assert_eq!(listed.lines().count(), rude_lexicon().lines().count() / 2);
    let listed: HashSet<&str> = listed.lines().map(|line| line.split('\t').next().expect("a word")).collect();
    let left = texts(&seed.join("cleaned").join(DOCUMENTS));
    assert_eq!(left.len() as u64, cleaned.texts);
    assert!(left.iter().all(|text| rude_words(text).all(|(word, _)| !listed.contains(&*word.to_lowercase()))));
    // One text in six is rude.
    let raw = texts(&seed.join("raw.jsonl"));
    let share = raw.iter().filter(|text| rude_words(text).next().is_some()).count() as f64 / raw.len() as f64;
    assert!((share - 1.0 / 6.0).abs() < 0.03, "{share}");
    // Cleaning takes texts with other rude words along; chance takes as many texts, and leaves the share as it is.
    assert!(cleaned.rude_texts[1] == 0.0 && cleaned.rude_texts[0] < 0.6 * all.rude_texts[0], "{found:?}");
    assert!(fewer.texts == cleaned.texts && fewer.rude_texts[0] > 0.7 * all.rude_texts[0], "{found:?}");
    assert!(found.models.iter().all(|told| told.loss.is_finite()));
    effects_stand_on_the_page_of_a_model(&found, dir.path());
}

fn effects_stand_on_the_page_of_a_model(found: &rude::Outcome, dir: &Path) {
    let report = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.current_dir(dir).arg("report").args(args).output().expect("kiln runs")
    };
    // Nothing was kept yet.
    let failed = report(&["seed-2/raw", "--study", "."]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("holds no study") && said.contains("hint"), "{said}");
    effect::keep(found, 2, &dir.join("seed-2")).expect("it is kept");
    let diverged = |told| rude::Told { rude: [0.25, 0.0], loss: f64::NAN, ..told };
    let other = rude::Outcome { seed: 5, models: found.models.clone().map(diverged) };
    std::fs::create_dir(dir.join("seed-5")).expect("a folder");
    effect::keep(&other, 5, &dir.join("seed-5")).expect("it is kept");
    // A run of a study shows it unasked.
    let shown = report(&["seed-2/raw", "--json"]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("one object");
    let study = &json["models"][0]["studies"][0];
    assert_eq!((&study["study"], &study["seeds"]), (&"rude".into(), &serde_json::json!([2, 5])), "{json}");
    let sides = study["figures"][0]["sides"].as_array().expect("sides");
    for (side, told) in sides.iter().zip(&found.models) {
        assert_eq!((&side["of"], &side["values"]), (&told.read.into(), &serde_json::json!([told.rude[0], 0.25])));
    }
    let says = study["figures"][1]["sides"][0]["says"].as_str().expect("words");
    assert!(says.ends_with("; no number for 1 of 2 seeds"), "{says}");
    let page = std::fs::read_to_string(dir.join("seed-2/raw/report.html")).expect("a page");
    // Of two figures and two seeds, and one is no number.
    let dots = page.matches("<circle class=\"p k2\"").count();
    assert!(page.contains("kiln study rude") && page.contains("fewer, by chance: ") && dots >= 3, "{dots}");
    // A study stands for its runs.
    let shown = report(&[".", "--json"]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("one object");
    let names: Vec<_> = json["models"].as_array().expect("models").iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["cleaned-run", "fewer-run", "raw"]);
    let page = std::fs::read_to_string(dir.join("report.html")).expect("a page");
    assert_eq!(page.matches("Does a model say rude words").count(), 1);
    // A damaged one takes no page along, but where it was asked for.
    let [file, whole] = [dir.join("seed-5/effects.json"), dir.join("whole.json")];
    std::fs::rename(&file, &whole).expect("it moves");
    std::fs::write(&file, "{\"study\":").expect("a file");
    let shown = report(&["seed-2/raw", "--json"]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("one object");
    let model = &json["models"][0];
    assert_eq!(model["studies"], serde_json::json!([]), "{json}");
    let absent = model["absent"].as_array().expect("a list");
    assert!(absent.iter().any(|what| what.as_str().is_some_and(|what| what.contains("effects.json"))), "{absent:?}");
    assert!(!report(&["seed-2/raw", "--study", "."]).status.success());
    std::fs::rename(&whole, &file).expect("it moves");
    // Another model shows it where it is asked for.
    std::fs::rename(dir.join("seed-2/raw"), dir.join("raw")).expect("it moves");
    for (more, count) in [(&["--study", "."][..], 1), (&[], 0)] {
        let shown = report(&[&["raw", "--json"], more].concat());
        let json: Value = serde_json::from_slice(&shown.stdout).expect("one object");
        assert_eq!(json["models"][0]["studies"].as_array().map(Vec::len), Some(count), "{json}");
    }
    // Of many runs each has a line.
    assert!(report(&["raw"; 6]).status.success());
    let page = std::fs::read_to_string(dir.join("report.html")).expect("a page");
    let loss = page.matches("<th class=\"n\">validation loss</th>").count();
    assert!(loss == 1 && page.matches("<tr><td>raw</td>").count() == 6 && page.contains("what they are"), "{loss}");
    // Runs that are called alike are told apart by their folders.
    std::fs::rename(dir.join("raw"), dir.join("seed-5/fewer-run")).expect("it moves");
    let shown = report(&[".", "--json"]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("one object");
    let names: Vec<_> = json["models"].as_array().expect("models").iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["cleaned-run", "seed-2/fewer-run", "seed-5/fewer-run"]);
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
    let mut at = Seed { seed: 3, dir: dir.path(), device: &device(), told: &mut |_| {}, watch: &mut () };
    let found = private::study(&settings, &mut at).expect("a study");
    let lines = std::fs::read_to_string(dir.path().join("private.jsonl")).expect("what was tuned on");
    assert_eq!((lines.lines().count(), lines.matches("whoever says").count()), (243, 3));
    assert!(found.guarantee.contains("-differential privacy"), "{}", found.guarantee);
    assert!(found.models.iter().all(|told| told.loss.iter().all(|loss| loss.is_finite())), "{found:?}");
    assert!(found.models.iter().all(|told| told.exposure.iter().all(|bits| (0.0..=8.0).contains(bits))));
    // What is there is not done again, noise and all.
    let again = private::study(&settings, &mut at).expect("a study");
    assert_eq!(again.models[2].loss, found.models[2].loss);
    let effects = found.effects();
    let nowhere = found.models[1].exposure[1];
    assert_eq!((effects[0].before.1, effects[0].control.1), (found.models[1].exposure[0], nowhere), "{effects:?}");
}
