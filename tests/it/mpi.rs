//! Ranks that are processes of `mpirun`: `cargo test --release --features mpi mpi::`.

use kiln::disk::Os;
use kiln::train::{checkpoint, metrics};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SET: &str = "model.layers=2 model.heads=2 model.d=32 model.dropout=0.1 train.context=32 train.batch=4 data.bytes=20000 \
                   data.tokenizer=byte train.sample_every=0 train.eval_every=20 train.checkpoint_every=10 optim.warmup=2";

/// `kiln train` on `ranks` ranks; on one without `mpirun`.
fn train(dir: &Path, ranks: usize, args: &str, set: &str) -> Command {
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let mut command = Command::new(if ranks > 1 { "mpirun" } else { kiln });
    if ranks > 1 {
        command
            .args("--allow-run-as-root --oversubscribe --bind-to none -n".split(' '))
            .arg(ranks.to_string())
            .arg(kiln);
    }
    command.current_dir(dir).stdin(Stdio::null());
    command.args(["train", "--threads", "1"]).args(args.split_whitespace());
    for set in set.split_whitespace() {
        command.args(["--set", set]);
    }
    command
}

#[track_caller]
fn done(mut command: Command) {
    let output = command.output().expect("mpirun (Debian: openmpi-bin)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn losses(run: &Path) -> Vec<f64> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).unwrap();
    assert!(records.iter().zip(1..).all(|(record, step)| record.step == step));
    records.iter().map(|record| f64::from(record.loss)).collect()
}

#[track_caller]
fn same(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let far = (1..).zip(a.iter().zip(b)).find(|(_, (a, b))| (*a - *b).abs() > 1e-5 * a.abs());
    assert!(far.is_none(), "{far:?}");
}

/// The process of rank 1 that works in `dir`.
fn second(dir: &Path) -> Option<u32> {
    let own = |proc: PathBuf| -> Option<u32> {
        let environ = std::fs::read(proc.join("environ")).ok()?;
        let ranked = environ.split(|&b| b == 0).any(|var| var == b"OMPI_COMM_WORLD_RANK=1");
        let here = std::fs::read_link(proc.join("cwd")).ok()? == dir;
        (ranked && here).then(|| proc.file_name()?.to_str()?.parse().ok())?
    };
    std::fs::read_dir("/proc").ok()?.find_map(|entry| own(entry.ok()?.path()))
}

#[test]
fn two_processes_give_the_losses_of_one_with_twice_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    done(train(dir.path(), 1, "", &format!("{SET} train.steps=40 run.name=alone train.accumulate=2")));
    done(train(dir.path(), 2, "", &format!("{SET} train.steps=40 run.name=both")));
    let [alone, both] = ["alone", "both"].map(|name| losses(&dir.path().join("runs").join(name)));
    assert_eq!(alone.len(), 40);
    same(&alone, &both);
}

#[test]
fn a_killed_rank_ends_the_run_with_an_error_and_it_goes_on_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let set = format!("{SET} train.steps=400");
    done(train(&path, 2, "", &format!("{set} run.name=whole")));
    let mut command = train(&path, 2, "", &format!("{set} run.name=hit"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (run, start) = (path.join("runs/hit"), Instant::now());
    let saved = || checkpoint::list(&Os, &run.join("checkpoints")).is_ok_and(|all| !all.is_empty());
    while !saved() {
        assert!(start.elapsed() < Duration::from_secs(60), "it saves nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = second(&path).expect("rank 1 is there");
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("signal 9") || said.contains("Killed"), "{said}");
    assert!(losses(&run).len() < 400, "it was killed on its way");
    let (saved, _) = checkpoint::list(&Os, &run.join("checkpoints")).unwrap().pop().expect("a checkpoint");
    done(train(&path, 1, "--resume runs/hit", ""));
    let [whole, hit] = [path.join("runs/whole"), run].map(|run| losses(&run));
    assert_eq!(hit.len(), 400);
    // Up to there the same, and the next steps too; sums in another order drive later ones apart, a little.
    let near = saved as usize + 10;
    same(&whole[..near], &hit[..near]);
    assert!((whole[399] - hit[399]).abs() < 0.02 * whole[399], "{} {}", whole[399], hit[399]);
}
