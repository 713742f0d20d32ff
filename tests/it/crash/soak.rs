//! A small run and its server, through one fault after the other: killed, out of room, bits of checkpoints flipped, shards cut, the server killed
//! while it answers. Each run ends as one that nothing happened to, and every request that was answered is on record.
//!
//! One fault of each kind in the ordinary tests; with `KILN_SOAK_MINUTES` for so long (tests/soak.sh takes an hour).
#![cfg(unix)]
#![allow(clippy::print_stdout)] // tests say what they did

use super::disk::Random;
use super::processes::{finished, result, start, succeeds};
use kiln::disk::Os;
use kiln::train::checkpoint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Steps of a run.
const STEPS: u64 = 100;
const SET: &str = "train.steps=100";

/// The faults.
const FAULTS: [&str; 5] = ["killed", "out of room", "a bit flipped", "a shard cut", "the server killed"];

/// The checkpoints of `runs/a`, the oldest first.
fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let all = checkpoint::list(&Os, &dir.join("runs/a/checkpoints")).expect("a folder");
    all.into_iter().map(|(_, path)| path).collect()
}

/// Kills a run at some moment of `took`; whether it had ended by then.
fn killed(dir: &Path, random: &mut Random, took: Duration) -> bool {
    let mut child = start(dir, SET).spawn().expect("it starts");
    if finished(&mut child, took.mul_f64(random.below(1000) as f64 / 1000.0)) {
        succeeds(&child.wait_with_output().expect("it ended"));
        return true;
    }
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
    false
}

/// Lets a run go on where no file may grow beyond some size: it ends with one error, or well where there is room.
fn out_of_room(dir: &Path, random: &mut Random) {
    let command = start(dir, SET);
    let mut shell = Command::new("sh");
    let blocks = (10 + random.below(80)).to_string();
    shell.args(["-c", "trap '' XFSZ; ulimit -f $1; shift; exec \"$@\"", "sh", &blocks]);
    shell.arg(command.get_program()).args(command.get_args());
    let output = shell.current_dir(dir).stdin(Stdio::null()).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    // Beside it stands what is said of a checkpoint that another fault has damaged.
    let errors = error.lines().filter(|line| !line.starts_with("warning: ")).count();
    assert!(output.status.success() || (output.status.code() == Some(1) && errors == 1), "{error}");
}

/// Flips a bit of the newest checkpoint, where there is one before it to go on from.
fn flipped(dir: &Path, random: &mut Random) -> bool {
    let all = checkpoints(dir);
    let [.., _, newest] = &all[..] else { return false };
    let files = [checkpoint::MODEL, checkpoint::OPTIM, checkpoint::STATE, checkpoint::CONFIG];
    let path = newest.join(files[random.below(files.len())]);
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
    std::fs::write(&path, bytes).expect("written");
    true
}

/// Cuts the end of a shard off: the run says so, and goes on with the shard as it was.
fn cut(dir: &Path, random: &mut Random) -> bool {
    let path = dir.join("runs/a/data/train_000.bin");
    let Ok(whole) = std::fs::read(&path) else { return false };
    if checkpoints(dir).is_empty() {
        return false;
    }
    std::fs::write(&path, &whole[..random.below(whole.len())]).expect("written");
    let output = start(dir, SET).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("train_000.bin"), "{error}");
    std::fs::write(&path, whole).expect("written");
    true
}

/// Asks for a text, and says whether it was answered.
fn ask(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let body = r#"{"prompt": "One morning", "max_tokens": 4}"#;
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
        && answer.contains("\"choices\"")
}

/// Serves the model for some requests and kills the server; how many were answered.
fn served(dir: &Path, random: &mut Random) -> usize {
    let mut server = Command::new(env!("CARGO_BIN_EXE_kiln"));
    server.current_dir(dir).args([
        "serve",
        "runs/a",
        "--port",
        "0",
        "--no-token",
        "--json",
        "--log",
        "log",
        "--threads",
        "1",
    ]);
    let mut server =
        server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no server: {line:?}"));
    let address = told["url"].as_str().expect("an address").trim_start_matches("http://").to_owned();
    let answered = (0..1 + random.below(4)).filter(|_| ask(&address)).count();
    // One more, on whose answer it is killed.
    let last = std::thread::spawn(move || ask(&address));
    std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
    server.kill().expect("it runs");
    server.wait().expect("it was killed");
    answered + usize::from(last.join().expect("a thread"))
}

/// Lines of all journals, each of which is whole.
fn recorded(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("log")).expect("a journal");
    let text: String =
        files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8")).collect();
    for line in text.lines() {
        serde_json::from_str::<Value>(line).expect("a whole line");
    }
    text.lines().count()
}

#[test]
fn nothing_is_lost_through_faults_of_all_kinds() {
    let minutes: f64 = std::env::var("KILN_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let whole = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    succeeds(&start(whole.path(), SET).output().expect("it starts"));
    let (took, want) = (began.elapsed(), result(whole.path(), STEPS));
    let mut random = Random(77);
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut runs, mut answered) = (0, 0);
    while faults.len() < FAULTS.len() || began.elapsed().as_secs_f64() < 60.0 * minutes {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let mut own = 0;
        for _ in 0..8 {
            let fault = FAULTS[random.below(FAULTS.len())];
            let done = match fault {
                "killed" => !killed(dir, &mut random, took),
                "out of room" => {
                    out_of_room(dir, &mut random);
                    true
                }
                "a bit flipped" => flipped(dir, &mut random),
                "a shard cut" => cut(dir, &mut random),
                _ if checkpoints(dir).is_empty() => false,
                _ => {
                    let n = served(dir, &mut random);
                    (own, answered) = (own + n, answered + n);
                    assert!(recorded(dir) >= own, "{} on record, {own} answered", recorded(dir));
                    true
                }
            };
            *faults.entry(fault).or_default() += u64::from(done);
        }
        faults.retain(|_, times| *times > 0);
        succeeds(&start(dir, SET).output().expect("it starts"));
        let got = result(dir, STEPS);
        assert!(got == want, "run {runs} differs after {faults:?}");
        runs += 1;
    }
    let all: u64 = faults.values().sum();
    println!("{all} faults in {runs} runs, {answered} requests answered, nothing lost: {faults:?}");
}
