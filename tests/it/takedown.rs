//! The commands on data sets as people call them: mixtures, takedowns with the runs that saw a document, comparisons, pictures.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(args.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a call that works.
#[track_caller]
fn out(dir: &Path, args: &str) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn object(dir: &Path, args: &str) -> Value {
    serde_json::from_str(&out(dir, &format!("{args} --json"))).unwrap()
}

/// Two sources of twenty stories each, of one sentence of five words.
fn sources(dir: &Path) {
    for source in ["wiki", "books"] {
        let line = |i: usize| format!("{{\"id\": \"{source}-{i}\", \"text\": \"number {i} of the {source}\"}}\n");
        std::fs::write(dir.join(format!("{source}.jsonl")), (0..200).map(line).collect::<String>()).unwrap();
    }
}

#[test]
fn checkpoints_that_saw_a_document_are_named_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    sources(dir);
    out(dir, "data tokenizer wiki.jsonl books.jsonl --vocab 300");
    let made =
        object(dir, "data shard --mix wiki=0.7:wiki.jsonl books=0.3:books.jsonl --tokenizer tokenizer.json --out set");
    let shares: Vec<f64> = made["mix"].as_array().unwrap().iter().map(|used| used["share"].as_f64().unwrap()).collect();
    assert_eq!(
        (shares[0], made["mix"][0]["documents"].as_u64(), made["mix"][0]["passes"].as_u64()),
        (0.7, Some(200), Some(1))
    );
    // One step of two windows of eight tokens sees few of some two hundred and eighty documents; forty epochs see all.
    let set = "--set model.layers=1 --set model.heads=2 --set model.d=16 --set train.context=8 --set train.batch=2 \
               --set train.sample_every=0 --set optim.warmup=1 --set train.checkpoint_every=1000 --set data.path=set";
    out(dir, &format!("train --json --threads 1 {set} --set run.name=short --set train.steps=1"));
    out(dir, &format!("train --json --threads 1 {set} --set run.name=long --set train.steps=600"));
    let verdicts = |args: &str| -> Vec<(String, String)> {
        let all = object(dir, args);
        let of = |seen: &Value| {
            let run = seen["checkpoint"].as_str().unwrap().split('/').nth(1).unwrap().to_owned();
            (run, seen["verdict"].as_str().unwrap().to_owned())
        };
        all["checkpoints"].as_array().unwrap().iter().map(of).collect()
    };
    let trained = |id: &str| {
        let places = object(dir, &format!("data takedown {id} --data set --dry-run"));
        places["places"][0]["part"] == "train"
    };
    let ids: Vec<String> = (0..12).map(|i| format!("wiki-{i}")).filter(|id| trained(id)).collect();
    let mut short = [0, 0];
    for id in &ids {
        let found = verdicts(&format!("data takedown {id} --data set --runs runs --dry-run"));
        assert!(found.contains(&("long".into(), "seen".into())), "{id}: {found:?}");
        short[usize::from(found.contains(&("short".into(), "seen".into())))] += 1;
    }
    assert!(short[0] > short[1], "{short:?}");

    // Taken out; asked again, the runs still know; a run that goes on says that its data is another.
    let id = &ids[0];
    let before = verdicts(&format!("data takedown {id} --data set --runs runs --dry-run"));
    assert_eq!(verdicts(&format!("data takedown {id} --data set --runs runs")), before);
    assert_eq!(verdicts(&format!("data takedown {id} --data set --runs runs")), before);
    let text = out(dir, &format!("data takedown {id} --data set --runs runs"));
    assert!(text.contains("was taken out before") && text.contains(&format!("trained on {id} from step")), "{text}");
    let resumed = run(dir, "train --resume runs/short --set train.steps=2 --threads 1");
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned() + &String::from_utf8_lossy(&resumed.stdout);
    assert!(resumed.status.success() && said.contains("not what it was"), "{said}");
    let unknown = run(dir, "data takedown nobody --data set");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nobody"));

    // And the same text once more as it was.
    out(dir, "data shard --mix wiki=0.7:wiki.jsonl books=0.3:books.jsonl --tokenizer tokenizer.json --out again");
    let diff = object(dir, "data diff again set");
    assert_eq!(
        (&diff["removed"][0], diff["removed"].as_array().unwrap().len(), diff["added"].as_array().unwrap().len()),
        (&Value::from(id.as_str()), 1, 0)
    );
    assert!(diff["divergence"].as_f64().unwrap() > 0.0);
    out(dir, "data inspect set --histogram tokens.svg");
    assert!(std::fs::read_to_string(dir.join("tokens.svg")).unwrap().contains("rank of the token"));
}

#[test]
fn gpt2_needs_no_file() {
    let dir = tempfile::tempdir().unwrap();
    sources(dir.path());
    let made = object(dir.path(), "data shard wiki.jsonl --tokenizer gpt2 --out set");
    assert_eq!((made["tokenizer"]["vocab"].as_u64(), made["tokenizer"]["eot"].as_u64()), (Some(50_257), Some(50_256)));
    let wrong = run(dir.path(), "data shard --mix wiki=0:wiki.jsonl --tokenizer gpt2 --out set");
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("NAME=WEIGHT:PATH"));
}
