//! `kiln tour`, the quick one, as a newcomer runs it: every stage does what its chapter says that it does.

#![allow(clippy::print_stdout)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tour(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).arg("tour").args(args.split_whitespace()).stdin(Stdio::null());
    command.output().expect("kiln runs")
}

#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Whether a figure went where it should; also where it stands as an error or is no number.
fn went_well(measure: &Value) -> bool {
    let [before, after] = ["before", "after"].map(|side| measure[side][1].as_f64().unwrap_or(f64::NAN));
    match measure["better"].as_str() {
        Some("up") => after > before,
        Some("down") => after < before,
        _ => false,
    }
}

#[test]
fn every_stage_of_the_quick_tour_goes_the_way_that_its_chapter_says() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let all = lines(&tour(dir, "--list --json"));
    let stages = all[0].as_array().expect("stages").clone();
    let done = lines(&tour(dir, "--quick --json"));
    assert_eq!(done.len(), stages.len() + 1, "a line of each stage, and the page");
    for (stage, line) in stages.iter().zip(&done) {
        let name = &stage["name"];
        assert_eq!(&line["stage"], name);
        let measures = line["shown"]["measures"].as_array().expect("measures");
        assert!(!measures.is_empty() || name == "plan", "{name} measures nothing");
        measures.iter().for_each(|measure| assert!(went_well(measure), "{name}: {measure}"));
        println!("{name}: {:.0} s of {}", line["shown"]["seconds"].as_f64().unwrap(), stage["budget"][0]);
    }
    let page = std::fs::read_to_string(dir.join("runs/tour/tour.html")).unwrap();
    let page = html_escape::decode_html_entities(&page);
    assert!(stages.iter().all(|stage| page.contains(stage["source"].as_str().unwrap())));

    // What was done is not done again, and is not begun anew over it; a stage is done again from nothing.
    let again = tour(dir, "--json");
    assert_eq!(again.status.code(), Some(2), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    let resumed = lines(&tour(dir, "--resume --json"));
    assert_eq!(resumed, done);
    std::fs::remove_file(dir.join("runs/tour/stages/shards.json")).unwrap();
    let gap = tour(dir, "--stage pretrain --json");
    assert!(!gap.status.success() && String::from_utf8_lossy(&gap.stderr).contains("shards"));
    let shards = lines(&tour(dir, "--stage shards --json"));
    assert_eq!(shards[0]["shown"]["measures"], done[3]["shown"]["measures"]);
}

#[test]
fn a_step_is_shown_with_all_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let output = tour(folder.path(), "--one-step");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["Forward", "Backward", "AdamW", "After", "attention", "linear_xent", "loss 1.8956 -> "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    let json = &lines(&tour(folder.path(), "--one-step --json --seed 2"))[0];
    let [before, after] = [0, 1].map(|i| json["loss"][i].as_f64().unwrap());
    assert!(after < before, "{before} {after}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "it leaves nothing");
}
