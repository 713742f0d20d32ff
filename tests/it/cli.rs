//! The program as people and scripts meet it: exit codes, JSON, signals, resume.

use kiln::disk::Os;
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
fn a_run_says_its_precision_and_keeps_it_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let shown = |args: &[&str]| {
        let output = kiln(dir.path(), args).output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let mut args = vec!["train", "--threads", "1"];
    let more = ["run.name=a", "train.steps=2", "train.precision=bf16"];
    TINY.iter().chain(&more).for_each(|set| args.extend(["--set", set]));
    assert!(shown(&args).contains(" parameters, in bf16, "));
    assert!(shown(&["train", "--resume", "runs/a", "--set", "train.steps=3"]).contains(" parameters, in bf16, "));
    args.truncate(args.len() - 2);
    assert!(shown(&args).contains(" parameters, in f32, "));
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
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).unwrap();
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let evaluated: Vec<u64> = records.iter().filter(|r| r.val_loss.is_some()).map(|r| r.step).collect();
    assert_eq!(evaluated, [3, 6]);
    assert_eq!(end["val_loss"].as_f64(), records[5].val_loss);
    assert_eq!(end["loss"].as_f64().unwrap() as f32, records[5].loss);
    let steps: Vec<u64> = checkpoint::list(&Os, &run.join("checkpoints")).unwrap().into_iter().map(|c| c.0).collect();
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
fn what_writes_text_is_not_judged_by_its_pictures() {
    let dir = tempfile::tempdir().expect("a folder");
    object(&train(dir.path(), &["train.steps=2", "run.name=text"], &[]).output().expect("kiln"));
    let asked =
        kiln(dir.path(), &["eval", "runs/text", "--tasks", "village-text", "--limit", "2"]).output().expect("kiln");
    assert!(text(&asked.stdout).contains("bits_per_byte"), "{}", text(&asked.stderr));
    // The village's own questions are longer than the context of this one.
    let output = kiln(dir.path(), &["eval", "runs/text", "--limit", "2"]).output().expect("kiln");
    let error = text(&output.stderr);
    assert_eq!(code(&output), 2, "{error}");
    assert!(error.contains("and the model's context 16") && error.contains("hint: ask tasks"), "{error}");
    // At once: no classifier was trained for it.
    assert!(!error.contains("classifier") && output.stdout.is_empty(), "{error}");
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
    let cases: [(&[&str], i32, &str, &str); 10] = [
        (&["trian"], 2, "trian", ""),
        (&["train", "--threads", "0"], 2, "--threads", ""),
        (&["train", "--set", "train.steps"], 2, "no value", "hint: "),
        (&["train", "--data", "x.toml"], 2, "x.toml is a recipe", "hint: put it first"),
        (&["train", "bad.toml"], 2, "train.stepz: no such key (bad.toml, line 2)", "hint: did you mean train.steps?"),
        (&["train", "no.toml"], 1, "no.toml", "hint: "),
        (&["train", "--resume", "nowhere"], 1, "nowhere", "hint: "),
        (&["sample", "nowhere"], 1, "nowhere", "hint: "),
        (&["train", "--device", "cuda"], 1, "no GPU can be used", "(--device cpu)"),
        (&["sample", "nowhere", "--device", "sim"], 1, "computes on the CPU only", "hint: leave --device out"),
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
        let newest = checkpoint::newest(&Os, &run.join("checkpoints")).unwrap();
        let (_, state) = newest.found.expect("it saved");
        assert_eq!(Some(state.step), end["steps"].as_u64());

        let steps = format!("train.steps={}", state.step + 3);
        let resumed = kiln(dir.path(), &["train", "--json", "--resume", &path, "--set", &steps]).output().unwrap();
        assert_eq!(object(&resumed)["steps"].as_u64(), Some(state.step + 3));
        let records = metrics::read(&Os, &run.join("metrics.jsonl")).unwrap();
        assert!(records.iter().map(|r| r.step).eq(1..=state.step + 3), "every step once");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_before_there_is_anything_to_save_ends_the_program_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["data.bytes=2000000000", "data.tokenizer=bpe", "run.name=a"];
    let mut child = train(dir.path(), &set, &[]).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !dir.path().join("runs/a/recipe.toml").is_file() {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // What is there can be taken up: its data is made then.
    let few = std::fs::read_to_string(dir.path().join("runs/a/recipe.toml")).unwrap();
    let few = few.replace("bytes = 2000000000", "bytes = 20000").replace("\"bpe\"", "\"byte\"");
    std::fs::write(dir.path().join("runs/a/recipe.toml"), few).unwrap();
    let resumed = ["train", "--resume", "runs/a", "--json", "--set", "train.steps=3"];
    assert_eq!(object(&kiln(dir.path(), &resumed).output().unwrap())["steps"], 3);
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

/// What every failed call owes its user: the code, one error that holds `message`, a hint, and no trace of a panic.
#[track_caller]
fn fails(command: &mut Command, exit: i32, message: &str) {
    let output = command.output().unwrap();
    let err = text(&output.stderr);
    assert_eq!(code(&output), exit, "{command:?}: {err}");
    let errors = err.lines().filter(|line| line.starts_with("error: ") || line.starts_with("{\"error\":")).count();
    assert_eq!(errors, 1, "{command:?}: {err}");
    assert!(err.contains(message) && !err.contains("panicked"), "{command:?}: {err}");
    let more = ["hint: ", "\"hint\":\"", "--help"];
    assert!(more.iter().any(|more| err.contains(more)), "{command:?} gives no hint: {err}");
}

#[test]
fn settings_and_data_that_cannot_be_used_are_refused_and_leave_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("ok.txt", "hello world\n".repeat(2000).as_bytes());
    write("one.txt", b"a");
    write("empty.txt", b"");
    write("latin.txt", b"caf\xe9 and more");
    write("zipped.gz", b"\x1f\x8b");
    write("file", b"");
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let set: [(&str, i32, &str); 17] = [
        ("train.batch=1000000000", 2, "out of range"),
        ("train.batch=99999999999999999999", 2, "whole number"),
        ("model.d=65536 model.layers=1024", 2, "model.d: the run needs more than"),
        ("model.d=4096 train.batch=1000000", 2, "train.batch: the run needs"),
        ("train.context=100000", 2, "the training data has"),
        ("model.d=15", 2, "divided among 2 heads"),
        ("train.precision=fp8", 2, "train.precision"),
        ("train.steps=abc", 2, "train.steps: expected a whole number"),
        ("optim.lr=nan", 2, "optim.lr"),
        ("data.tokenizer=bpe data.vocab=10", 2, "data.vocab"),
        ("data.tokenizer=none.json", 1, "none.json"),
        ("run.name=../a", 2, "run.name"),
        ("run.dir=file", 1, "run.dir=FOLDER"),
        ("run.dir=/proc/nowhere", 1, "/proc/nowhere"),
        ("data.tokenizer=char sample.prompt=Q train.sample_every=1 data.path=ok.txt", 2, "sample.prompt"),
        ("stepz=3", 2, "no such key"),
        ("train.steps", 2, "no value"),
    ];
    for (set, exit, message) in set {
        let set: Vec<&str> = set.split(' ').collect();
        fails(&mut train(dir.path(), &set, &[]), exit, message);
    }
    let data = [
        ("missing.txt", 1, "missing.txt"),
        ("folder", 1, "hold no text"),
        ("empty.txt", 1, "hold no text"),
        ("one.txt", 1, "too little text"),
        ("latin.txt", 1, "latin.txt: byte 3: expected UTF-8 text"),
        ("zipped.gz", 1, "kind of file"),
    ];
    for (data, exit, message) in data {
        fails(&mut train(dir.path(), &[], &["--data", data]), exit, message);
    }
    fails(&mut kiln(dir.path(), &["train", "ok.txt"]), 2, "ok.txt is no recipe");
    fails(&mut kiln(dir.path(), &["train", "--threads", "9999"]), 2, "9999");
    fails(kiln(dir.path(), &["doctor"]).env("KILN_SIMD", "foo"), 2, "KILN_SIMD");
    let left = std::fs::read_dir(dir.path().join("runs")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a run that did not start is there");
}

#[test]
fn damaged_runs_and_checkpoints_are_named_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let set = ["train.steps=4", "train.checkpoint_every=2", "run.name=a", "data.bytes=10000"];
    object(&train(dir.path(), &set, &[]).output().unwrap());
    let resume = |set: &str| kiln(dir.path(), &["train", "--resume", "runs/a", "--set", set]);
    for set in ["model.d=32", "model.layers=2", "train.context=32", "data.tokenizer=char", "run.name=b"] {
        fails(&mut resume(set), 2, "a run that goes on keeps its");
    }
    fails(&mut resume("train.batch=1000000000"), 2, "train.batch");
    let sample = |args: &[&str]| kiln(dir.path(), &[&["sample"], args].concat());
    let calls: [(&[&str], &str); 5] = [
        (&["runs/a", "--temperature", "-1"], "--temperature"),
        (&["runs/a", "--temperature", "nan"], "--temperature"),
        (&["runs/a", "--top-p", "0"], "--top-p"),
        (&["runs/a", "--threads", "0"], "--threads"),
        (&[], "<MODEL>"),
    ];
    for (args, message) in calls {
        fails(&mut sample(args), 2, message);
    }
    fails(&mut sample(&["runs/a/metrics.jsonl"]), 1, "start: expected a model");

    // Files that do not belong together, under checksums that agree with them.
    let checkpoint = at("runs/a/checkpoints/step-000004");
    let copy = |name: &str, file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        std::fs::create_dir(at(name)).unwrap();
        let mut sums = String::new();
        for entry in std::fs::read_dir(&checkpoint).unwrap() {
            let name_of = entry.unwrap().file_name().into_string().unwrap();
            let mut bytes = std::fs::read(checkpoint.join(&name_of)).unwrap();
            if name_of == file {
                bytes = change(bytes);
            }
            std::fs::write(at(name).join(&name_of), bytes).unwrap();
            if name_of != "SHA256SUMS" {
                let sum = kiln::train::tensors::sha256(&Os, &at(name).join(&name_of)).unwrap();
                sums += &format!("{sum}  {name_of}\n");
            }
        }
        std::fs::write(at(name).join("SHA256SUMS"), sums).unwrap();
    };
    let replace =
        |from: &'static str, to: &'static str| move |bytes: Vec<u8>| text(&bytes).replace(from, to).into_bytes();
    copy("cut", "model.safetensors", &|bytes| bytes[..5000].to_vec());
    copy("wide", "config.json", &replace("\"n_embd\": 16", "\"n_embd\": 60000"));
    copy("deep", "config.json", &replace("\"n_layer\": 1", "\"n_layer\": 4000000000000"));
    copy("other", "config.json", &|_| b"{}".to_vec());
    copy("untold", "tokenizer.json", &|_| b"no JSON".to_vec());
    copy("small", "config.json", &replace("\"vocab_size\": 256", "\"vocab_size\": 200"));
    let wrong = [
        ("cut", "5000 bytes"),
        ("wide", "size"),
        ("deep", "n_layer"),
        ("other", "model_type"),
        ("untold", "tokenizer.json"),
        ("small", "a tensor of shape [200, 16]"),
    ];
    for (name, message) in wrong {
        fails(&mut sample(&[name]), 1, message);
    }

    // A flipped byte in the newest checkpoint: the older one is taken, and that is said.
    let flip = |step: u64| {
        let path = at(&format!("runs/a/checkpoints/step-{step:06}/model.safetensors"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    flip(4);
    for command in [&mut sample(&["runs/a", "--tokens", "3", "--json"]), resume("train.steps=4").arg("--json")] {
        let output = command.output().unwrap();
        object(&output);
        let err = text(&output.stderr);
        assert!(err.starts_with("warning: ") && err.contains("step-000004") && err.contains("checksum"), "{err}");
    }
    flip(2);
    flip(4);
    fails(&mut sample(&["runs/a"]), 1, "checksum");
    fails(&mut resume("train.steps=9"), 1, "checksum");
}

#[test]
fn a_rate_that_cannot_work_ends_in_one_error_and_the_checkpoint_before_stands() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["train.steps=20", "train.checkpoint_every=10", "run.name=a"];
    object(&train(dir.path(), &set, &[]).output().unwrap());
    let weights = || std::fs::read(dir.path().join("runs/a/checkpoints/step-000020/model.safetensors")).unwrap();
    let before = weights();
    let resume = ["train", "--resume", "runs/a", "--set", "train.steps=90", "--set", "optim.lr=1e6"];
    let output = kiln(dir.path(), &resume).output().unwrap();
    let err = text(&output.stderr);
    assert!(code(&output) == 1 && !err.contains("panicked"), "{err}");
    assert_eq!(err.matches("error: optim.lr: the run is unstable at step 2").count(), 1, "{err}");
    assert!(err.contains("the first bad gradient that of ln_f.bias") && err.contains("back to step 20"), "{err}");
    assert!(
        err.contains("hint: lower optim.lr (it is 1e6)") && err.contains("the checkpoint of step 20 stands"),
        "{err}"
    );
    // One warning for each stretch of skipped steps, and one for each time that the run went back.
    assert!((4..=9).contains(&err.lines().count()), "{err}");
    assert!(weights() == before);
    let resume = ["train", "--resume", "runs/a", "--json", "--set", "train.steps=30"];
    let end = object(&kiln(dir.path(), &resume).output().unwrap());
    assert_eq!((end["steps"].as_u64(), end["rewinds"].as_u64()), (Some(30), Some(3)));
}

/// The most memory that a running process has held, in bytes.
#[cfg(target_os = "linux")]
fn peak_rss(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_takes_the_memory_of_the_plan_and_a_little_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["model.layers=4", "model.d=128", "train.batch=16", "train.context=256", "train.steps=3", "run.name=a"];
    let plan = object(&train(dir.path(), &set, &["--plan"]).output().unwrap());
    assert!(!dir.path().join("runs").exists(), "a plan is no run");
    let mut child = train(dir.path(), &set, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak_rss(child.id()).unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    let end = object(&child.wait_with_output().unwrap());
    assert_eq!(plan["memory"]["total"], end["memory"]["total"]);
    let total = end["memory"]["total"].as_u64().unwrap();
    // Beside the tensors: the program, the tokenizer, the data while it is made, a transposed matrix.
    assert!(total > 100 << 20 && (total..total + (48 << 20)).contains(&peak), "{peak} bytes, planned {total}");
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let huge = ["model.d=65536", "model.heads=1024", "model.layers=1024", "train.batch=1000000"];
    fails(&mut train(dir.path(), &huge, &[]), 2, "model.d: the run needs more than");
    fails(&mut train(dir.path(), &huge, &["--plan"]), 2, "model.d: the run needs more than");
    fails(&mut train(dir.path(), &["train.batch=1000000"], &[]), 2, "train.batch: the run needs");
    assert_eq!(std::fs::read_dir(dir.path().join("runs")).map_or(0, Iterator::count), 0, "no run is left");
}

#[cfg(unix)]
#[test]
fn memory_that_the_system_refuses_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |command: &str| {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -v 900000 && exec '{}' {command}", env!("CARGO_BIN_EXE_kiln"));
        shell.current_dir(dir.path()).args(["-c", &script]).stdin(Stdio::null());
        shell
    };
    fails(&mut limited("bench step gpt2 --threads 1"), 1, "memory left");
    fails(&mut limited("train --threads 1 --set model.d=1024"), 2, "of memory");
}
