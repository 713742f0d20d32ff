//! A line of versions as people keep one: begun with a run, watched, made to learn, judged, promoted, turned back, made to forget.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(args.split_whitespace()).stdin(Stdio::null()).output().expect("kiln runs")
}

/// What a call says with `--json`, its last line, and its exit code.
#[track_caller]
fn said(dir: &Path, args: &str) -> (i32, Value) {
    let output = run(dir, &format!("{args} --json --threads 1"));
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let last = text.lines().last().unwrap_or_else(|| panic!("{args}: nothing was said: {error}"));
    (output.status.code().expect("an exit code"), serde_json::from_str(last).expect("JSON"))
}

/// Stories of a kind: two words in turn, so that a small model soon knows them.
fn stories(name: &str, [one, two]: [&str; 2], n: usize) -> String {
    let text = |i: usize| {
        let word = |k: usize| if (i >> (k % 5)) & 1 == 0 { one } else { two };
        (0..12).map(|k| format!("The {} saw the {}. ", word(k), word(k + 1 + i % 3))).collect::<String>()
    };
    (0..n).map(|i| format!("{}\n", json!({"id": format!("{name}-{i}"), "text": text(i).trim_end()}))).collect()
}

/// A folder with a run that knows cats and dogs, and a line that begins with it.
fn begun() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_owned();
    std::fs::write(dir.join("old.jsonl"), stories("old", ["cat", "dog"], 600)).expect("a file");
    std::fs::write(dir.join("new.jsonl"), stories("new", ["ship", "tree"], 200)).expect("a file");
    let set = "--set model.layers=1 --set model.heads=2 --set model.d=32 --set train.context=64 --set train.batch=8 \
               --set train.steps=120 --set train.sample_every=0 --set data.path=old.jsonl --set data.vocab=280 \
               --set data.val_fraction=0.2 --set run.name=base";
    let (code, _) = said(&dir, &format!("train {set}"));
    assert_eq!(code, 0);
    // Settings are the line's: a file of that name elsewhere is none.
    std::fs::write(dir.join("update.toml"), "[nonsense]\n").expect("a file");
    // What the texts are like that this test makes is no rule's business but this one's.
    let line = "--set clean.set=['rules.off=[\"c4\",\"gopher\",\"repetition\",\"fineweb\",\"duplicates\",\"language\"]'] \
                --set watch.windows=[20] --set watch.every=5 --set watch.horizon=200 --set watch.least=60 \
                --set learn.set=['model.method=full','optim.lr=3e-3','data.epochs=3','data.replay_share=0.5','data.packing=false'] \
                --set gate.documents=60 --set gate.max_members=0.9 --set gate.max_worse=0.2";
    let (code, started) = said(&dir, &format!("update start line --model runs/base {line}"));
    assert_eq!((code, started["version"]["name"].as_str()), (0, Some("0001")));
    (folder, dir)
}

/// The figures of a task of whatever is in service.
fn bits(dir: &Path, model: &str) -> f64 {
    let (code, found) = said(dir, &format!("eval {model} --tasks text --data old.jsonl --limit 20 --save eval"));
    assert_eq!(code, 0);
    found["tasks"][0]["models"][0]["figures"][0]["value"].as_f64().expect("a figure")
}

#[test]
fn a_version_learns_what_is_new_passes_serves_and_gives_way_again() {
    let (_folder, dir) = begun();
    let first = bits(&dir, "line");
    assert_eq!(first, bits(&dir, "runs/base"), "the line is the run");
    let (code, made) = said(&dir, "update run line --data new.jsonl");
    let version = &made["version"];
    assert_eq!((code, version["state"].as_str()), (0, Some("passed")), "{version}");
    let gate = |name: &str| {
        version["gates"]
            .as_array()
            .unwrap()
            .iter()
            .find(|gate| gate["name"] == name)
            .unwrap_or_else(|| panic!("{name}"))
    };
    let [before, after] = [0, 1].map(|i| gate("better")["parts"][i].as_f64().unwrap());
    assert!(after < 0.7 * before, "{before} {after}");
    assert!(gate("worse: 0001")["value"].as_f64().unwrap() < 0.2);
    // Its lineage names what it was made of, and nothing is in service that nobody promoted.
    assert_eq!((version["parent"].as_str(), version["documents"]["read"].as_u64()), (Some("0001"), Some(200)));
    assert_eq!(version["sources"]["new.jsonl"].as_str().unwrap().len(), 64);
    assert_eq!(bits(&dir, "line"), first);
    let (code, promoted) = said(&dir, "update promote line");
    assert_eq!((code, promoted["in_service"].as_str()), (0, Some("0002")));
    assert_ne!(bits(&dir, "line"), first);
    let (_, back) = said(&dir, "update rollback line");
    assert_eq!(back["in_service"], "0001");
    assert_eq!(bits(&dir, "line").to_bits(), first.to_bits(), "bit for bit");
    let (_, listed) = said(&dir, "update list line");
    assert_eq!((listed["versions"].as_array().unwrap().len(), &listed["in_service"]), (2, &json!("0001")));
    let history = std::fs::read_to_string(dir.join("line/history.jsonl")).unwrap();
    let events: Vec<Value> =
        history.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].clone()).collect();
    assert_eq!(events, ["started", "passed", "promoted", "rolled back"]);

    // Weights that have changed since are not put into service.
    let weights = std::fs::read_dir(dir.join("line/0002/run/checkpoints")).unwrap().next().unwrap().unwrap().path();
    let weights = weights.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let refused = run(&dir, "update promote line 0002");
    assert_ne!(refused.status.code(), Some(0));
    assert_eq!(bits(&dir, "line"), first);
}

#[test]
fn junk_is_refused_and_only_force_puts_it_into_service() {
    let (_folder, dir) = begun();
    let junk = |i: usize| {
        let mixed = |k: usize| ((i * 1_000_003 + k * 7919) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let letter = |k: usize| char::from(b'a' + (mixed(k) % 26) as u8);
        let text: String = (0..300).map(|k| if k % 6 == 5 { ' ' } else { letter(k) }).collect();
        format!("{}\n", json!({"id": format!("junk-{i}"), "text": text}))
    };
    std::fs::write(dir.join("junk.jsonl"), (0..200).map(junk).collect::<String>()).unwrap();
    let (code, made) = said(&dir, "update run line --data junk.jsonl");
    let failed = |made: &Value| -> Vec<String> {
        let gates = made["version"]["gates"].as_array().unwrap().iter().filter(|gate| gate["passed"] == false);
        gates.map(|gate| gate["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((code, made["version"]["state"].as_str()), (1, Some("refused")));
    assert!(failed(&made).contains(&"surprise".to_owned()), "{made}");
    let refused = run(&dir, "update promote line 0002");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("refused by its gates") && error.contains("--force"),
        "{error}"
    );
    assert_eq!(said(&dir, "update promote line 0002 --force").0, 0);
    // A rule of cleaning that leaves nothing ends a round before anything is trained.
    let (code, made) = said(&dir, "update run line --data new.jsonl --set clean.set=['gopher.min_words=1000']");
    assert_eq!((code, failed(&made)), (1, vec!["kept".to_owned()]));
    assert!(!dir.join("line/0003/run").exists());
}

#[test]
fn a_stream_that_changes_is_learnt_and_one_that_does_not_is_let_be() {
    let (_folder, dir) = begun();
    std::fs::create_dir(dir.join("inbox")).unwrap();
    // Held-out stories of the same kind: the numbers go on.
    let more = stories("more", ["cat", "dog"], 900);
    let quiet: String = more.lines().skip(600).map(|line| format!("{line}\n")).collect();
    std::fs::write(dir.join("inbox/a.jsonl"), quiet).unwrap();
    let (code, end) = said(&dir, "update watch line --data inbox --once");
    assert_eq!((code, end["what"].as_str(), end["documents"].as_u64()), (0, Some("read"), Some(300)), "{end}");
    std::fs::write(dir.join("inbox/b.jsonl"), stories("b", ["ship", "tree"], 30)).unwrap();
    let output = run(&dir, "update watch line --data inbox --once --threads 1");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("ALARM after 3"), "{text}");
    assert!(text.contains("what moved") && text.contains("60 make a version"), "{text}");
    std::fs::write(dir.join("inbox/c.jsonl"), stories("c", ["ship", "tree"], 150)).unwrap();
    let (code, end) = said(&dir, "update watch line --data inbox --once --auto");
    assert_eq!((code, &end["what"], &end["promoted"]), (0, &json!("version"), &json!(true)), "{end}");
    let (_, listed) = said(&dir, "update list line");
    assert_eq!(listed["in_service"], "0002");
    // An alarm is told once, whoever reads the stream again.
    let history = std::fs::read_to_string(dir.join("line/history.jsonl")).unwrap();
    assert_eq!(history.matches("\"alarm\":{").count(), 1, "{history}");
}

#[test]
fn what_is_to_be_forgotten_is_gone_from_files_and_from_a_model_trained_anew() {
    let (_folder, dir) = begun();
    let secret =
        json!({"id": "secret-1", "text": "The key of the old mill lies below the third stone of the well. ".repeat(4)});
    let with = stories("new", ["ship", "tree"], 200) + &format!("{secret}\n");
    std::fs::write(dir.join("new.jsonl"), with).unwrap();
    assert_eq!(said(&dir, "update run line --data new.jsonl --auto").0, 0);
    let holds = |name: &str| std::fs::read_to_string(dir.join("line").join(name)).unwrap().contains("third stone");
    let place = ["0002/new.jsonl", "0002/held.jsonl"].into_iter().find(|name| holds(name)).expect("it is there");
    let (code, found) = said(&dir, "update forget line secret-1 --dry-run");
    let affected = if place == "0002/new.jsonl" { json!(["0002"]) } else { json!([]) };
    assert_eq!((code, &found["affected"]), (0, &affected));
    assert!(holds(place));
    let (code, done) = said(&dir, "update forget line secret-1");
    assert_eq!(code, 0, "{done}");
    assert!(
        !holds(place) && !holds("0002/replay.jsonl") && !dir.join("line/0002/cleaned/documents.jsonl.zst").exists()
    );
    assert_eq!(affected, json!(["0002"]), "the seed of the test holds it out");
    assert_eq!(done["version"]["name"], "0003");
    let exposure = &done["exposure"][0];
    let bits = |who: &str| exposure[who][0].as_f64().unwrap();
    assert!(bits("before") < bits("after"), "{exposure}");
    let (_, listed) = said(&dir, "update list line");
    let states: Vec<&str> =
        listed["versions"].as_array().unwrap().iter().map(|v| v["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["passed", "withdrawn", "passed"]);
    assert_eq!(said(&dir, "update promote line").0, 0);
    // Nobody goes back to what knows it.
    assert_ne!(run(&dir, "update rollback line").status.code(), Some(0));
    assert_eq!(run(&dir, "update forget line secret-1").status.code(), Some(2));
}
