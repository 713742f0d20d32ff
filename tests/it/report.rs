//! `kiln report --live` as scripts meet it; what it draws is tested where it is drawn (`src/cli/report/`).

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kiln(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(args).stdin(Stdio::null()).output().expect("it starts")
}

fn train(dir: &Path, name: &str, steps: &str, more: &[&str]) {
    let name = format!("run.name={name}");
    let set =
        ["model.layers=1", "model.heads=2", "model.d=16", "train.context=16", "train.batch=2", "data.bytes=20000"];
    let own = ["data.tokenizer=byte", "train.sample_every=2", "sample.tokens=5", "eval.max_batches=2", "train.steps=6"];
    let mut args = vec!["train", "--json", "--threads", "1", "--until", steps];
    for set in set.into_iter().chain(own).chain(more.iter().copied()).chain([&*name]) {
        args.extend(["--set", set]);
    }
    let output = kiln(dir, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn snapshot(dir: &Path, runs: &[&str]) -> Value {
    let output = kiln(dir, &[&["report", "--live", "--json"], runs].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_snapshot_says_where_runs_stand() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "6", &[]);
    train(dir.path(), "b", "4", &["optim.lr=1e-5", "optim.min_lr=0"]);
    let newest = snapshot(dir.path(), &[]);
    assert_eq!((newest["runs"].as_array().unwrap().len(), &newest["runs"][0]["run"]), (1, &"runs/b".into()));
    let both = snapshot(dir.path(), &["runs/a", "runs/b"]);
    let [a, b] = [&both["runs"][0], &both["runs"][1]];
    assert_eq!((&a["status"], &a["step"], &a["steps"]), (&"done".into(), &6.into(), &6.into()));
    assert_eq!((&b["status"], &b["step"], &b["steps"]), (&"paused".into(), &4.into(), &6.into()));
    assert_eq!((&a["sample"]["step"], &b["sample"]["step"]), (&6.into(), &4.into()));
    assert!(a["val_loss"].as_f64() < b["val_loss"].as_f64() && a["tokens_per_s"].as_f64() > Some(0.0), "{both}");
    assert_eq!(both["best"], "runs/a");
}

#[test]
fn where_nothing_can_be_drawn_it_says_what_can_be_done() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    train(dir.path(), "a", "2", &[]);
    let cases: [(&[&str], i32, &str, &str); 4] = [
        (&["report", "--live"], 2, "draws on a terminal", "--json"),
        (&["report", "runs/a"], 2, "with --live only", "kiln report --live runs/a"),
        (&["report", "--live", "empty", "--json"], 1, "no run is here", "give the directory"),
        (&["report", "--live", "nowhere", "--json"], 1, "nowhere", "give the directory"),
    ];
    for (args, code, problem, hint) in cases {
        let output = kiln(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(problem) && said.contains(hint), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    std::fs::write(dir.path().join("runs/a/metrics.jsonl"), "nonsense\n").unwrap();
    let output = kiln(dir.path(), &["report", "--live", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("metrics.jsonl: line 1"), "{said}");
}
