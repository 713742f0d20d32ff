//! A shard that changes under a running job is an error, and what was saved stands.

use super::*;
use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Does something to the run's folder after a number of steps.
struct After<F>(u64, PathBuf, F);

impl<F: FnMut(&Path)> Watch for After<F> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Start { run, .. } => self.1 = run.to_path_buf(),
            Event::Step { step, .. } if *step == self.0 => (self.2)(&self.1),
            _ => {}
        }
    }
    fn stop(&self) -> Option<i32> {
        None
    }
}

fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(len)).expect("truncated");
}

/// Writes other bytes of the same length into the file, and gives it back its old time.
fn overwrite(path: &Path, byte: u8) {
    let meta = path.metadata().expect("a file");
    let mut bytes = fs::read(path).expect("a file");
    bytes[1024..].fill(byte);
    fs::write(path, bytes).expect("written");
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.set_modified(meta.modified().expect("a time")).expect("set");
}

const TRAIN: &str = "data/train_000.bin";
const VAL: &str = "data/val_000.bin";

#[test]
fn a_shard_that_changes_under_a_run_ends_it_and_the_repaired_run_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = train(&recipe(dir.path(), 30, &[]), None, &device(), &mut ()).expect("a run");
    let len = fs::metadata(whole.run.join(TRAIN)).expect("a shard").len();
    assert!(len > 5 * 4096 && !len.is_multiple_of(4096), "{len} bytes");
    type Harm = fn(&Path, u64);
    let harms: [(&str, &str, Harm); 8] = [
        (TRAIN, "truncated while in use", |path, _| truncate(path, 0)),
        (TRAIN, "truncated while in use", |path, len| truncate(path, len / 2 / 4096 * 4096)),
        (TRAIN, "truncated while in use", |path, len| truncate(path, len / 2 + 77)),
        (TRAIN, "truncated while in use", |path, len| truncate(path, len - 2)),
        (TRAIN, "changed while in use", |path, len| truncate(path, len + 2)),
        (TRAIN, "expected an id below 300, found 65535", |path, _| overwrite(path, 0xff)),
        (TRAIN, "changed while in use", |path, _| {
            overwrite(path, 1);
            let file = OpenOptions::new().write(true).open(path).expect("a file");
            file.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("set");
        }),
        (VAL, "truncated while in use", |path, _| truncate(path, 1500)),
    ];
    for (shard, message, harm) in harms {
        let dir = tempfile::tempdir().expect("a folder");
        let mut good = Vec::new();
        let mut watch = After(15, PathBuf::new(), |run: &Path| {
            good = fs::read(run.join(shard)).expect("a shard");
            harm(&run.join(shard), len);
        });
        let error = train(&recipe(dir.path(), 30, &[]), None, &device(), &mut watch).expect_err("the data is gone");
        let run = watch.1.clone();
        let text = error.to_string();
        assert!(text.contains(message) && text.contains(shard), "{message}: {text}");
        assert!(error.hint().is_some() && error.exit_code() == 1);
        let newest = checkpoint::newest(&kiln::disk::Os, &run.join("checkpoints")).expect("checkpoints");
        let saved = if shard == VAL { 20 } else { 10 };
        assert_eq!(newest.found.map(|(_, state)| state.step), Some(saved), "{message}");
        assert!(newest.damaged.is_empty());
        fs::write(run.join(shard), &good).expect("repaired");
        assert_eq!(resume(&run).steps, 30);
        assert!(bytes(&run, 30) == bytes(&whole.run, 30), "{message}: weights differ after the repair");
    }
}

#[test]
fn a_shard_that_is_replaced_or_removed_by_name_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = train(&recipe(dir.path(), 20, &[]), None, &device(), &mut ()).expect("a run");
    let replace = |run: &Path| {
        fs::write(run.join("data/new"), "short").expect("written");
        fs::rename(run.join("data/new"), run.join(TRAIN)).expect("renamed");
        fs::remove_file(run.join(VAL)).expect("removed");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let mut watch = After(5, PathBuf::new(), replace);
    let run = train(&recipe(dir.path(), 20, &[]), None, &device(), &mut watch).expect("the old files are mapped").run;
    assert!(bytes(&run, 20) == bytes(&whole.run, 20));
}

#[cfg(unix)]
#[test]
fn the_program_survives_a_truncated_shard_with_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let set = "train --json --threads 2 --set model.layers=1 --set model.heads=2 --set model.d=16 --set train.context=16 --set \
               train.batch=8 --set data.bytes=60000 --set data.tokenizer=byte --set train.sample_every=0 --set run.name=a \
               --set train.steps=1000000 --set train.eval_every=0 --set train.checkpoint_every=50";
    let child = command.args(set.split_whitespace()).spawn().expect("it starts");
    let run = dir.path().join("runs/a");
    let start = Instant::now();
    while !run.join("checkpoints/step-000050/SHA256SUMS").is_file() {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let good = fs::read(run.join(TRAIN)).expect("a shard");
    truncate(&run.join(TRAIN), 4096 + 77);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    let error: serde_json::Value = serde_json::from_str(&err).expect("one JSON object");
    assert!(
        error["error"].as_str().is_some_and(|e| e.contains("train_000.bin") && e.contains("truncated while in use"))
    );
    assert!(error["hint"].is_string() && output.stdout.is_empty());

    let (_, saved) = checkpoint::newest(&kiln::disk::Os, &run.join("checkpoints"))
        .expect("checkpoints")
        .found
        .expect("a checkpoint");
    let steps = format!("train.steps={}", saved.step + 5);
    let resume = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .current_dir(dir.path())
            .args(["train", "--resume", "runs/a", "--set", &steps])
            .output()
            .expect("it starts")
    };
    // Not repaired, it says so; repaired, it goes on.
    let output = resume();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("train_000.bin") && err.contains("hint: "), "{err}");
    fs::write(run.join(TRAIN), good).expect("repaired");
    let output = resume();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
