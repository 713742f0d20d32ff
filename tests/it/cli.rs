//! The program as people and scripts meet it: exit codes, JSON, signals, resume.

use kiln::train::{checkpoint, metrics};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A model that does a step in about a millisecond.
const TINY: [&str; 9] = [
    "model.layers=1",
    "model.heads=2",
    "model.d=16",
    "train.context=16",
    "train.batch=2",
    "data.bytes=20000",
    "data.tokenizer=byte",
    "train.sample_every=0",
    "optim.warmup=2",
];

fn kiln(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

fn train(dir: &Path, set: &[&str], args: &[&str]) -> Command {
    let mut command = kiln(dir, &["train", "--json", "--threads", "1"]);
    command.args(args);
    for set in TINY.iter().chain(set) {
        command.args(["--set", set]);
    }
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Standard output as the one JSON object that it must be.
#[track_caller]
fn object(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).expect("one JSON object")
}

#[test]
fn a_run_ends_with_one_object_and_leaves_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["train.steps=6", "train.eval_every=3", "train.checkpoint_every=2", "run.name=a", "train.keep=9"];
    let end = object(&train(dir.path(), &set, &[]).output().unwrap());
    assert_eq!((end["run"].as_str(), end["steps"].as_u64()), (Some("runs/a"), Some(6)));
    let run = dir.path().join("runs/a");
    for file in ["recipe.toml", "loss.svg", "loss.png", "checkpoints/step-000006/model.safetensors"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let records = metrics::read(&run.join("metrics.jsonl")).unwrap();
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let evaluated: Vec<u64> = records.iter().filter(|r| r.val_loss.is_some()).map(|r| r.step).collect();
    assert_eq!(evaluated, [3, 6]);
    assert_eq!(end["val_loss"].as_f64(), records[5].val_loss);
    assert_eq!(end["loss"].as_f64().unwrap() as f32, records[5].loss);
    let steps: Vec<u64> = checkpoint::list(&run.join("checkpoints")).unwrap().into_iter().map(|c| c.0).collect();
    assert_eq!(steps, [2, 4, 6]);

    let sample = ["sample", "runs/a", "--prompt", "The ", "--tokens", "20", "--num", "2", "--json"];
    let first = object(&kiln(dir.path(), &sample).output().unwrap());
    assert_eq!(first["samples"].as_array().unwrap().len(), 2);
    let again = object(&kiln(dir.path(), &sample).output().unwrap());
    assert_eq!(first["samples"], again["samples"]);
    // An untrained byte model writes control bytes; none may reach the terminal.
    let shown = kiln(dir.path(), &["sample", "runs/a", "--tokens", "300", "--temperature", "3", "--top-p", "1"]);
    let shown = { shown }.output().unwrap();
    assert_eq!(code(&shown), 0, "{}", text(&shown.stderr));
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(shown.stdout.len() > 300 && !text(&shown.stdout).contains(control));

    let plain = train(dir.path(), &["train.steps=2", "run.name=a"], &[]).output().unwrap();
    assert_eq!(object(&plain)["run"], "runs/a-2");
}

#[test]
fn progress_without_a_terminal_is_plain_lines_and_the_next_command_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = kiln(dir.path(), &["train", "--set", "train.steps=90"]);
    for set in TINY {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let lines = out.lines().filter(|l| l.starts_with("step ") && l.contains(" tokens/s")).count();
    assert!((20..=40).contains(&lines), "{out}");
    assert!(!out.contains(['\r', '\x1b']) && output.stderr.is_empty());
    assert!(out.contains("runs/village/loss.png") && out.ends_with("next: kiln sample runs/village\n"), "{out}");
}

#[test]
fn wrong_calls_exit_2_and_failures_1_each_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.toml"), "[train]\nstepz = 5\n").unwrap();
    let cases: [(&[&str], i32, &str, &str); 9] = [
        (&["trian"], 2, "trian", ""),
        (&["train", "--threads", "0"], 2, "--threads", ""),
        (&["train", "--set", "train.steps"], 2, "no value", "hint: "),
        (&["train", "--data", "x.toml"], 2, "x.toml is a recipe", "hint: put it first"),
        (&["train", "bad.toml"], 1, "train.stepz: no such key (bad.toml, line 2)", "hint: did you mean train.steps?"),
        (&["train", "no.toml"], 1, "no.toml", "hint: "),
        (&["train", "--resume", "nowhere"], 1, "nowhere", "hint: "),
        (&["sample", "nowhere"], 1, "nowhere", "hint: "),
        (&["train", "--device", "cuda"], 1, "CUDA", "hint: use --device cpu"),
    ];
    for (args, exit, message, hint) in cases {
        let output = kiln(dir.path(), args).output().unwrap();
        let err = text(&output.stderr);
        assert_eq!(code(&output), exit, "{args:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(message) && err.contains(hint), "{args:?}: {err}");
        assert!(output.stdout.is_empty());

        let output = kiln(dir.path(), &[args, &["--json"]].concat()).output().unwrap();
        assert_eq!(code(&output), exit);
        let error: Value = serde_json::from_str(&text(&output.stderr)).expect("one JSON object");
        assert!(error["error"].as_str().unwrap().contains(message), "{args:?}: {error}");
    }
    assert!(!dir.path().join("runs").exists(), "nothing was started");
}

/// Waits until the run at `run` has done a step.
#[cfg(unix)]
fn wait_for_a_step(run: &Path) {
    let start = Instant::now();
    while !std::fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| text.contains('\n')) {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_stops_the_lock_holds_and_the_run_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, exit) in [("INT", 130), ("TERM", 143)] {
        let name = format!("run.name={signal}");
        let set = ["train.steps=1000000", "train.eval_every=0", "train.checkpoint_every=0", &name];
        let child = train(dir.path(), &set, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let path = format!("runs/{signal}");
        let run = dir.path().join(&path);
        wait_for_a_step(&run);
        let other = kiln(dir.path(), &["train", "--resume", &path]).output().unwrap();
        assert_eq!(code(&other), 1);
        assert!(text(&other.stderr).contains(&format!("in use by process {}", child.id())), "{}", text(&other.stderr));

        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), exit, "{}", text(&output.stderr));
        let end: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        let newest = checkpoint::newest(&run.join("checkpoints")).unwrap();
        let (_, state) = newest.found.expect("it saved");
        assert_eq!(Some(state.step), end["steps"].as_u64());

        let steps = format!("train.steps={}", state.step + 3);
        let resumed = kiln(dir.path(), &["train", "--json", "--resume", &path, "--set", &steps]).output().unwrap();
        assert_eq!(object(&resumed)["steps"].as_u64(), Some(state.step + 3));
        let records = metrics::read(&run.join("metrics.jsonl")).unwrap();
        assert!(records.iter().map(|r| r.step).eq(1..=state.step + 3), "every step once");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = kiln(dir.path(), &["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
}

#[test]
fn doctor_tells_what_will_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = kiln(dir.path(), &["doctor", "--json", "--threads", "1"]);
    let found = object(&command.env("KILN_SIMD", "scalar").output().unwrap());
    assert_eq!((found["uses"]["simd"].as_str(), found["uses"]["threads"].as_u64()), (Some("scalar"), Some(1)));
    assert!(found["uses"]["peak_gflops"].as_f64().unwrap() > 0.1);
}
