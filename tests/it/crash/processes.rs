//! The program itself: killed at any moment, started many times at once, out of room.
#![cfg(unix)]
#![allow(clippy::print_stdout)] // tests say what they skip

use super::disk::Random;
use super::{Outcome, soak};
use kiln::disk::Os;
use kiln::train::{checkpoint, metrics};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A model that does a step in about a millisecond, saved every few of them.
const TINY: &str = "model.layers=1 model.heads=2 model.d=16 train.context=16 train.batch=2 data.bytes=20000 \
                    data.tokenizer=byte train.sample_every=0 optim.warmup=2 train.checkpoint_every=3 \
                    train.eval_every=20 eval.max_batches=2 train.keep=3 run.name=a";

fn kiln(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(["train", "--json", "--threads", "1"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The command that starts the run `runs/a`, or goes on with it.
pub fn start(dir: &Path, set: &str) -> Command {
    if dir.join("runs/a/recipe.toml").is_file() {
        return kiln(dir, &["--resume", "runs/a"]);
    }
    let mut command = kiln(dir, &[]);
    for set in TINY.split_whitespace().chain(set.split_whitespace()) {
        command.args(["--set", set]);
    }
    command
}

#[track_caller]
pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Weights, moments and metrics of the run `runs/a` of `steps` steps.
pub fn result(dir: &Path, steps: u64) -> Outcome {
    let run = dir.join("runs/a");
    let files = [checkpoint::MODEL, checkpoint::OPTIM];
    let last = run.join(format!("checkpoints/step-{steps:06}"));
    let bytes = files.map(|file| std::fs::read(last.join(file)).expect("the last checkpoint")).to_vec();
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    (bytes, records.iter().map(|r| (r.step, r.loss.to_bits(), r.val_loss.map(f64::to_bits))).collect())
}

/// Names below `dir` that begin with a dot.
fn hidden(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(hidden(&path));
        }
    }
    found
}

/// The step of the newest good checkpoint of `runs/a`.
fn saved(dir: &Path) -> u64 {
    let newest = checkpoint::newest(&Os, &dir.join("runs/a/checkpoints")).expect("a folder");
    assert!(newest.damaged.is_empty(), "{:?}", newest.damaged);
    newest.found.map_or(0, |(_, state)| state.step)
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_one_that_is_not() {
    let set = "train.steps=100";
    let whole = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    succeeds(&start(whole.path(), set).output().expect("it starts"));
    let mut took = began.elapsed();
    let want = result(whole.path(), 100);
    assert!(want.1.iter().map(|line| line.0).eq(1..=100));

    let mut random = Random(20);
    let (mut kills, enough) = (0, soak(20, 200));
    while kills < enough {
        let dir = tempfile::tempdir().expect("a folder");
        let mut before = 0;
        loop {
            let (fresh, began) = (!dir.path().join("runs").exists(), Instant::now());
            let mut child = start(dir.path(), set).spawn().expect("it starts");
            let patience = if kills < enough { took.mul_f64(random.below(1000) as f64 / 1000.0) } else { took * 1000 };
            if finished(&mut child, patience) {
                succeeds(&child.wait_with_output().expect("it ended"));
                if fresh {
                    // The machine may have less to do by now.
                    took = took.min(began.elapsed());
                }
                break;
            }
            child.kill().expect("it runs");
            child.wait().expect("it was killed");
            kills += 1;
            let now = saved(dir.path());
            assert!(now >= before, "the checkpoint of step {before} is gone, {now} is the newest");
            before = now;
        }
        let got = result(dir.path(), 100);
        assert!(got.0 == want.0, "weights or moments differ");
        assert_eq!(got.1, want.1);
        let runs = std::fs::read_dir(dir.path().join("runs")).expect("a folder").count();
        assert_eq!((runs, hidden(dir.path())), (1, Vec::new()));
    }
}

/// Whether the process ends within `patience`.
pub fn finished(child: &mut Child, patience: Duration) -> bool {
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1).min(patience - start.elapsed().min(patience)));
    }
    true
}

#[test]
fn of_fifty_simultaneous_starts_one_wins_and_the_others_say_who() {
    let dir = tempfile::tempdir().expect("a folder");
    // Killed, so that its lock names a process that runs no more.
    let mut first = start(dir.path(), "train.steps=1000000 train.checkpoint_every=50").spawn().expect("it starts");
    let began = Instant::now();
    while !dir.path().join("runs/a/checkpoints").is_dir() || saved(dir.path()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().expect("it runs");
    first.wait().expect("it was killed");
    let before = saved(dir.path());

    let mut children: Vec<Child> = (0..50).map(|_| start(dir.path(), "").spawn().expect("it starts")).collect();
    let (began, mut lost) = (Instant::now(), Vec::new());
    while children.len() > 1 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} still run", children.len());
        let mut at = 0;
        while at < children.len() {
            match children[at].try_wait().expect("a child") {
                Some(_) => lost.push(children.swap_remove(at)),
                None => at += 1,
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let winner = children.pop().expect("one holds the run");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let says = format!("in use by process {} on {}", winner.id(), host.trim());
    for loser in lost {
        let output = loser.wait_with_output().expect("it ended");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&says), "{error}, not {says}");
    }
    // The winner has all that the first one saved, and stops as it should.
    Command::new("kill").args(["-TERM", &winner.id().to_string()]).status().expect("kill runs");
    assert_eq!(winner.wait_with_output().expect("it ends").status.code(), Some(143));
    let now = saved(dir.path());
    assert!(now >= before);
    let records = metrics::read(&Os, &dir.path().join("runs/a/metrics.jsonl")).expect("metrics");
    // Those of the first beyond its last checkpoint are still there where the winner was stopped before its first step.
    let steps: Vec<u64> = records.iter().map(|record| record.step).collect();
    let odd = steps.iter().zip(1..).position(|(&step, number)| step != number);
    let seen = odd.map(|at| &steps[at.saturating_sub(2)..steps.len().min(at + 3)]);
    assert!(odd.is_none() && steps.len() as u64 >= now, "{} steps, {now} saved, out of order: {seen:?}", steps.len());
    assert!(hidden(dir.path()).is_empty());
}

/// What a run owes its user that has no room: one error that names a file and says what to do, and a last checkpoint
/// from which it goes on.
fn out_of_room(output: &Output, dir: &Path, cause: &str, hint: &str) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(
        ["runs/a/", cause, hint, "nothing that was saved is lost"].iter().all(|part| error.contains(part)),
        "{error}"
    );
    let before = saved(dir);
    assert!(before > 0, "nothing was saved");
    succeeds(&start(dir, "").output().expect("it starts"));
    assert!(result(dir, 60).1.iter().map(|line| line.0).eq(1..=60));
    assert!(hidden(dir).is_empty());
}

const LONG: &str = "train.steps=60 train.keep=1000";

#[test]
fn a_full_disk_ends_a_run_with_one_error_and_what_was_saved_stands() {
    let (small, dir) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let command = start(small.path(), LONG);
    // A small disk of its own, whose content is copied before it is gone.
    let script = "mount -t tmpfs -o size=1m none . && cd \"$PWD\" || exit 77; \
                  out=$1; shift; \"$@\"; code=$?; cp -r runs \"$out\"; exit $code";
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "sh", "-c", script, "sh"]).arg(dir.path()).arg(command.get_program()).args(command.get_args());
    match shell.current_dir(small.path()).stdin(Stdio::null()).output() {
        Ok(output)
            if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare:") =>
        {
            println!("skipped: no disk can be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Err(e) => println!("skipped: no disk can be mounted here: unshare: {e}"),
        Ok(output) => out_of_room(&output, dir.path(), "No space left on device", "free some disk space"),
    }
}

#[test]
fn a_limit_on_the_size_of_files_ends_a_run_with_one_error_and_what_was_saved_stands() {
    let dir = tempfile::tempdir().expect("a folder");
    // Metrics grow beyond 12 blocks of 512 bytes... no file of a checkpoint does.
    let command = start(dir.path(), LONG);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f $1; shift; exec \"$@\"", "sh", "200"]);
    shell.arg(command.get_program()).args(command.get_args());
    let output = shell.current_dir(dir.path()).stdin(Stdio::null()).output().expect("it starts");
    out_of_room(&output, dir.path(), "File too large", "ulimit -f");
}
