//! Bias from the data to the figures: what is planted is in the corpora, what is swapped comes in both genders, and what is asked is answered.

#![allow(clippy::print_stdout)] // tests say what they skip

use crate::serve::device;
use kiln::data::Sources;
use kiln::data::augment::DOCUMENTS;
use kiln::data::swap::Swap;
use kiln::data::world::visitors;
use kiln::study::Seed;
use kiln::study::skew::{Settings, study};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Of each occupation, visitors of the usual gender and of the other one.
fn counts(corpus: &Path) -> Vec<(&'static str, [usize; 2])> {
    let swap = Swap::gender();
    let mut counts: Vec<_> = visitors().map(|(job, women)| (job, women, [0, 0])).collect();
    for document in Sources::open(&[corpus], "text").expect("a corpus").documents() {
        let text = document.expect("a document").text;
        if text.len() > 250 {
            continue;
        }
        for (job, women, count) in &mut counts {
            if text.split(|c: char| !c.is_alphanumeric()).any(|word| word == *job) {
                let female = swap.side(&text).expect("a passage has a gender");
                count[usize::from(female != *women)] += 1;
            }
        }
    }
    counts.into_iter().map(|(job, _, count)| (job, count)).collect()
}

fn all(counts: &[(&str, [usize; 2])]) -> [usize; 2] {
    counts.iter().fold([0, 0], |sum, (_, count)| [sum[0] + count[0], sum[1] + count[1]])
}

#[test]
fn a_skew_is_planted_swapped_and_measured() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = ["model.d=16", "model.heads=2", "model.layers=1", "train.batch=4", "data.vocab=300"]
        .map(str::to_owned)
        .to_vec();
    let settings =
        Settings { bytes: 60_000, visitors: 3.0, steps: 2, texts: 4, lists: true, set, ..Settings::default() };
    let mut at = Seed { seed: 3, dir: dir.path(), device: &device(), told: &mut |_| {}, watch: &mut () };
    let found = study(&settings, &mut at).expect("a study");
    let names: Vec<&str> = found.arms.iter().map(|arm| arm.name).collect();
    assert_eq!(names, ["raw", "control", "swapped", "swapped_listed", "reweighted"]);
    let raw = counts(&dir.path().join("raw.jsonl"));
    let [usual, other] = all(&raw);
    let share = usual as f64 / (usual + other) as f64;
    assert!((share - 0.9).abs() < 0.06 && usual + other > 200, "{usual} {other}");
    let of = |name: &str| counts(&dir.path().join(format!("{name}-data")).join(DOCUMENTS));
    // Words without gender leave both as they are; words of gender make them even, those beside a list the listed half.
    let even = |[a, b]: [usize; 2]| (a as f64 / (a + b) as f64 - 0.5).abs() < 0.15;
    assert_eq!(all(&of("control")), [usual, other]);
    let swapped = all(&of("swapped"));
    assert!(even(swapped) && swapped[0] + swapped[1] == usual + other, "{swapped:?}");
    for name in ["swapped_listed", "reweighted"] {
        let (on, off): (Vec<_>, Vec<_>) = of(name).into_iter().partition(|(job, _)| found.listed.contains(job));
        assert!(even(all(&on)), "{name}: {on:?}");
        assert!(off.iter().all(|own| raw.contains(own)), "{name}: {off:?}");
        let exact = on.iter().all(|(_, own)| own[0].abs_diff(own[1]) <= 1);
        assert_eq!(exact, name == "reweighted", "{on:?}");
    }
    let control = &found.arms[1].documents;
    assert!(control.counterparts.abs_diff((usual + other) as u64 / 2) < 60, "{control:?}");
    assert!(control.written == control.read && found.listed.len() == 6, "{control:?}");
    // Two steps teach nobody a skew; all is measured all the same.
    for arm in &found.arms {
        assert!([arm.listed, arm.others, arm.new].iter().all(|skew| skew.abs() < 0.3), "{arm:?}");
        assert!((0.3..=0.7).contains(&arm.consistency) && arm.bits > 1.0, "{arm:?}");
    }
    // What is there is not done again.
    let again = study(&settings, &mut at).expect("a study");
    assert_eq!(again, found);
    a_run_is_asked_by_the_program(dir.path());
}

fn kiln(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).current_dir(dir).args(args).output().expect("kiln runs")
}

fn object(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

fn a_run_is_asked_by_the_program(dir: &Path) {
    let tasks = object(&kiln(dir, &["eval", "raw", "--tasks", "village-skew,weat-village", "--limit", "30", "--json"]));
    let figures = |i: usize| -> Vec<&str> {
        let all = tasks["tasks"][i]["models"][0]["figures"].as_array().expect("figures");
        all.iter().map(|figure| figure["name"].as_str().expect("a name")).collect()
    };
    assert_eq!(figures(0), ["skew", "pct_stereotype", "likelihood_diff", "consistency"]);
    assert_eq!(figures(1), ["effect_size", "p_value", "association_x", "association_y"]);
    let table = kiln(dir, &["eval", "raw", "swapped", "--tasks", "weat-village"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("Goldfarb-Tarrant") && text.contains("effect_size"), "{text}");
    let shown = kiln(dir, &["eval", "raw", "swapped", "--tasks", "village-skew", "--limit", "30"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("nearer to no preference") && text.contains("consistency"), "{text}");
}

#[test]
fn the_program_augments_a_corpus() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
    write(
        "in.jsonl",
        "{\"text\": \"A nurse lost her hat.\", \"id\": \"a\"}\n{\"text\": \"It rained.\"}\n{\"text\": \"Then Tom sang his song.\"}\n",
    );
    write("words.txt", "# who\nnurse\n");
    let done = object(&kiln(dir.path(), &["data", "augment", "in.jsonl", "--out", "both", "--spare-names", "--json"]));
    assert_eq!([&done["read"], &done["written"], &done["counterparts"], &done["spared"]], [3, 4, 1, 1]);
    let text = std::fs::read_to_string(dir.path().join("both").join(DOCUMENTS)).expect("documents");
    assert!(text.contains("{\"id\":\"a~\",\"text\":\"A nurse lost his hat.\"}"), "{text}");
    let even = kiln(dir.path(), &["data", "augment", "in.jsonl", "--out", "even", "--reweight", "words.txt"]);
    let text = String::from_utf8_lossy(&even.stdout).into_owned();
    assert!(even.status.success() && text.contains("nurse") && text.contains("next: kiln train --data even"), "{text}");
    write("bad.toml", "pairs = [[\"he\", \"he\"]]\n");
    write("bad.txt", "two words\n");
    for (args, says) in [
        (["--swap", "bad.toml"], "pair 1"),
        (["--swap", "none.toml"], "none.toml"),
        (["--only", "bad.txt"], "line 1"),
        (["--reweight", "bad.txt"], "line 1"),
    ] {
        let failed = kiln(dir.path(), &[&["data", "augment", "in.jsonl", "--out", "bad"][..], &args[..]].concat());
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && said.contains(says) && said.contains("hint"), "{args:?}: {said}");
        assert!(!dir.path().join("bad").exists(), "{args:?}");
    }
}

/// The pairs as people have them: `KILN_CROWS_PAIRS` names crows_pairs_anonymized.csv.
#[test]
fn crows_pairs_are_read_as_they_come() {
    let Some(path) = std::env::var_os("KILN_CROWS_PAIRS") else {
        println!("skipped: KILN_CROWS_PAIRS names no table");
        return;
    };
    let mut task = kiln::eval::Task::open("crows-pairs").expect("a task");
    task.data = Path::new(&path).to_string_lossy().into_owned();
    let items = task.items(usize::MAX, 1, 1).expect("pairs");
    assert_eq!((items.len(), items.iter().filter(|item| item.group == "gender").count()), (1508, 262));
    assert!(items.iter().all(|item| item.open && item.choices[0] != item.choices[1]));
}
