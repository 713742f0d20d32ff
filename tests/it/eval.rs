//! Questions to models: log-likelihoods are those of whole passes and of a server, and the program says who is better.

#![allow(clippy::print_stdout)] // tests say what they skip

use crate::serve::{CONTEXT, Running, TOKEN, device, model};
use kiln::data::Tokenizer;
use kiln::eval::{Endpoint, Local, Model, Score, Writing};
use kiln::model::Gpt;
use kiln::model::sample::logprob;
use kiln::params::Params;
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn local() -> Local {
    let device = device();
    let (gpt, params) = model(&device);
    Local::new("tiny".into(), (gpt, params, Tokenizer::bytes()), false, None).expect("it can begin a text")
}

/// ln p of the tokens of `ids` from `first` on, by one pass over all of them; whether each is the likeliest.
fn whole(gpt: &Gpt, params: &Params, ids: &[u32], first: usize) -> Score {
    let mut tape = Tape::new(&device());
    tape.begin(params, Pass::default());
    let read: Vec<i32> = ids[..ids.len() - 1].iter().map(|&id| id as i32).collect();
    let input = tape.constant(Tensor::from_slice(&device(), &read, [1, read.len()]));
    let logits = tape.no_grad(|| gpt.logits(input)).value();
    let rows: Vec<&[f32]> = logits.f32().chunks_exact(256).collect();
    let mut score = Score::NONE;
    for (at, &id) in ids.iter().enumerate().skip(first) {
        let row = rows[at - 1];
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("logits");
        score.push(logprob(row, id, 0).logprob, best == id as usize);
    }
    score
}

#[track_caller]
fn close(got: &Score, want: &Score) {
    assert!((got.nats - want.nats).abs() < 1e-4 * want.nats.abs().max(1.0), "{got:?}, {want:?}");
    assert_eq!((got.each.len(), got.greedy), (want.each.len(), want.greedy), "{got:?}, {want:?}");
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn continuations_have_the_likelihood_of_a_whole_pass() {
    let (gpt, params) = model(&device());
    let long = "word ".repeat(CONTEXT / 4);
    // What one pass finds likeliest after a context.
    let greedy = {
        let options = kiln::model::sample::SampleOptions::greedy(1);
        let mut tape = Tape::new(&device());
        let mut next = 0;
        kiln::model::sequence::generate(&gpt, &params, &mut tape, bytes("Mia went"), &[], &options, &mut |id| {
            next = id;
            true
        });
        String::from_utf8(vec![next as u8]).ok()
    };
    let mut pairs = vec![
        ("Mia went", " home"),
        ("Mia went", " out"),
        ("Mia went", " out again"),
        ("Mia", " went"),
        ("trailing ", "blank"),
        ("", "nothing before"),
        (&long, " end"),
        (&long, " ending"),
    ];
    pairs.extend(greedy.as_deref().map(|text| ("Mia went", text)));
    let scores = local().score(&pairs, &mut |_| Ok(())).expect("scores");
    for ((context, text), got) in pairs.iter().zip(&scores) {
        let mut ids = bytes(&format!("{context}{text}"));
        let mut first = context.trim_end().len();
        if first == 0 {
            ids.insert(0, u32::from(b'\n'));
            first = 1;
        }
        let cut = ids.len().saturating_sub(CONTEXT + 1);
        close(got, &whole(&gpt, &params, &ids[cut..], first - cut));
    }
    if greedy.is_some() {
        assert!(scores.last().expect("a score").greedy && !scores[0].greedy);
    }
}

#[test]
fn long_texts_are_read_in_windows() {
    let (gpt, params) = model(&device());
    let text: String = (0..CONTEXT * 2 + 50).map(|i| char::from(b'a' + (i * i % 26) as u8)).collect();
    let got = local().read(&[&text, "short"], &mut |_| Ok(())).expect("scores");
    // Windows of lm-evaluation-harness (get_rolling_token_windows with context_len 1, made disjoint): all full but for the last, which has
    // the tokens before it as context.
    let ids = bytes(&text);
    let mut want = Score::NONE;
    let mut done = 0;
    while done < ids.len() {
        let end = (done + CONTEXT).min(ids.len());
        let before =
            if done == 0 { vec![u32::from(b'\n')] } else { ids[end.max(CONTEXT + 1) - CONTEXT - 1..done].to_vec() };
        let first = before.len();
        let one = whole(&gpt, &params, &[before, ids[done..end].to_vec()].concat(), first);
        want.extend(&one);
        done = end;
    }
    close(&got[0], &want);
    assert_eq!(got[0].each.len(), ids.len());
    close(&got[1], &whole(&gpt, &params, &bytes("\nshort"), 1));
}

#[test]
fn a_server_says_of_its_model_what_the_model_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: there is no curl");
    }
    let server = Running::plain();
    let url = format!("http://{}/v1", server.address);
    let mut there = Endpoint::new(&url, None, Some(TOKEN.into()), false).expect("a server");
    let mut here = local();
    assert_eq!(there.name(), "tiny");
    let pairs: Vec<(String, String)> =
        (0..12).map(|i| (format!("Mia has {i}"), format!(" apples, {}", i * 7))).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&**a, &**b)).collect();
    let mut n = 0;
    let asked = there.score(&pairs, &mut |done| {
        n = done;
        Ok(())
    });
    for (a, b) in asked.expect("scores").iter().zip(&here.score(&pairs, &mut |_| Ok(())).expect("scores")) {
        close(a, b);
    }
    assert_eq!(n, 12);
    let stop = ["\u{1}".to_owned()];
    let writing = Writing { stop: &stop, tokens: 12, temperature: 0.0, seed: 1 };
    let prompts = ["One day", "It was"];
    let written = there.write(&prompts, &writing, &mut |_| Ok(())).expect("texts");
    assert_eq!(written, here.write(&prompts, &writing, &mut |_| Ok(())).expect("texts"));
    // A wrong key is said, and no port is.
    let wrong = Endpoint::new(&url, None, Some("guess".into()), false).map(|_| ()).expect_err("no key");
    assert!(wrong.to_string().contains("status 401"), "{wrong}");
    assert!(Endpoint::new("ftp://x", Some("m"), None, false).is_err());
}

fn kiln(dir: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_kiln")).current_dir(dir).args(args).output().expect("it starts")
}

fn object(dir: &Path, args: &[&str]) -> Value {
    let output = kiln(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn two_runs_are_asked_and_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = [
        "model.layers=1",
        "model.heads=2",
        "model.d=32",
        "train.context=32",
        "train.batch=8",
        "data.bytes=60000",
        "data.vocab=300",
        "train.sample_every=0",
        "train.eval_every=0",
        "optim.warmup=5",
        "data.seed=3",
    ];
    for (name, steps) in [("short", 1), ("long", 120)] {
        let (name, steps) = (format!("run.name={name}"), format!("train.steps={steps}"));
        let mut args = vec!["train", "--json", "--set", &name, "--set", &steps];
        small.iter().for_each(|set| args.extend(["--set", set]));
        object(dir.path(), &args);
    }
    let tasks = "village-text,village-facts,village-words,sums,village-stories";
    let asked = ["eval", "runs/short", "runs/long", "--tasks", tasks, "--limit", "8", "--json", "--log-samples", "out"];
    let found = object(dir.path(), &asked);
    assert_eq!(found["world"], 3);
    let text = &found["tasks"][0];
    assert_eq!(
        (text["models"][0]["figures"][0]["name"].as_str(), text["difference"]["better"].as_i64()),
        (Some("bits_per_byte"), Some(1))
    );
    let floor = text["models"][1]["figures"][4]["value"].as_f64().expect("a floor");
    let got = text["models"][1]["figures"][0]["value"].as_f64().expect("a figure");
    assert!(floor > 0.1 && floor < got, "{floor} {got}");
    assert_eq!(object(dir.path(), &asked), found);
    let lines = std::fs::read_to_string(dir.path().join("out/village-facts.runs-long.jsonl")).expect("a log");
    assert_eq!(lines.lines().count(), 8);
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!((line["choices"].as_array().map(Vec::len), line["nats"].as_array().map(Vec::len)), (Some(4), Some(4)));
    // Nobody is better than itself; and less than runs of other seeds differ by is no difference.
    let same =
        object(dir.path(), &["eval", "runs/long", "runs/long", "--tasks", "village-text", "--limit", "4", "--json"]);
    assert_eq!(
        (same["tasks"][0]["difference"]["difference"].as_f64(), same["tasks"][0]["difference"]["better"].as_i64()),
        (Some(0.0), Some(0))
    );
    let seeds = [
        "eval",
        "runs/short",
        "runs/long",
        "--tasks",
        "village-text",
        "--limit",
        "4",
        "--json",
        "--seeds",
        "runs/long",
    ];
    assert_eq!(object(dir.path(), &seeds)["tasks"][0]["difference"]["better"], 0);
    // Any text, by its bytes.
    std::fs::write(dir.path().join("own.txt"), "Mia has a dog. ".repeat(20)).expect("written");
    let own = object(dir.path(), &["eval", "runs/long", "--tasks", "text", "--data", "own.txt", "--json"]);
    assert!(own["tasks"][0]["models"][0]["figures"][0]["value"].as_f64().expect("a figure") > 0.0);
    searched(dir.path());
    // In words.
    let words = kiln(dir.path(), &["eval", "runs/short", "runs/long", "--tasks", "village-text", "--limit", "8"]);
    let said = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(said.contains("runs/long is better: bits_per_byte -"), "{said}");
    let listed = kiln(dir.path(), &["eval", "--list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("village-text"));
    for (args, says) in [
        (&["eval"][..], "nobody to ask"),
        (&["eval", "runs/long", "--tasks", "village"], "there is no task"),
        (&["eval", "runs/long", "--tasks", "arc-easy"], "--data FILE"),
        (&["eval", "runs/long", "--tasks", "sums,text", "--data", "own.txt"], "which of 2 tasks"),
        (&["eval", "runs/none", "--tasks", "sums"], "runs/none"),
        (&["eval", "runs/long", "--tasks", "sums", "--chat"], "no chat template"),
        (&["eval", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--tasks", "own.toml"], "no task"),
        (&["eval", "--endpoint", "localhost:80"], "no address"),
    ] {
        let output = kiln(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says) && said.contains("hint:"), "{args:?}: {said}");
    }
}

/// What a run writes is searched for words, by a classifier, for copies; requests are refused or not; the clock runs.
fn searched(dir: &Path) {
    let line = |i: usize| {
        let (word, label) = if i.is_multiple_of(2) { ("snorb", "rude") } else { ("friend", "kind") };
        serde_json::json!({"text": format!("You are a {word}, number {i}."), "label": label}).to_string() + "\n"
    };
    std::fs::write(dir.join("labelled.jsonl"), (0..200).map(line).collect::<String>()).expect("written");
    std::fs::write(dir.join("terms.tsv"), "the\na\t0.5\n").expect("written");
    let learn = [
        "data",
        "classifier",
        "labelled.jsonl",
        "--label",
        "label",
        "--is",
        "rude",
        "--out",
        "rude.safetensors",
        "--json",
    ];
    let learnt = object(dir, &learn);
    assert_eq!(
        (learnt["auc"].as_f64(), learnt["texts"].as_u64().map(|n| (150..200).contains(&n))),
        (Some(1.0), Some(true))
    );
    let write = [
        "eval",
        "runs/long",
        "--tasks",
        "village-stories",
        "--limit",
        "4",
        "--lexicon",
        "terms.tsv",
        "--classifier",
        "rude.safetensors",
    ];
    let found = object(dir, &[&write[..], &["--corpus", "own.txt", "--json"]].concat());
    let names: Vec<&str> = found["tasks"][0]["models"][0]["figures"]
        .as_array()
        .expect("figures")
        .iter()
        .filter_map(|f| f["name"].as_str())
        .collect();
    for name in ["toxic", "toxicity", "classified", "copied", "longest_copy", "personal", "words", "distinct_1"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    assert_eq!(names[0], "toxic");
    let asked = object(
        dir,
        &["eval", "runs/long", "--tasks", "requests,jailbreaks,speed", "--limit", "2", "--price", "1.5", "--json"],
    );
    let figure = |task: usize, name: &str| {
        let figures = asked["tasks"][task]["models"][0]["figures"].as_array().expect("figures");
        figures.iter().find(|figure| figure["name"] == name).and_then(|figure| figure["value"].as_f64())
    };
    assert!(figure(0, "refused").is_some() && figure(0, "over_refused").is_some());
    // Eight forms of one request, and of one that is harmless.
    assert_eq!(asked["tasks"][1]["models"][0]["items"], 16);
    assert!(figure(1, "refused").is_some() && figure(1, "over_refused").is_some());
    assert!(figure(2, "usd_per_million_tokens").is_some_and(|price| price > 0.0));
    for (args, says) in [
        (&["data", "classifier", "labelled.jsonl", "--label", "kind", "--out", "x"][..], "line 1"),
        (&["data", "classifier", "labelled.jsonl", "--label", "label", "--out", "x"], "--is"),
        (
            &["data", "classifier", "labelled.jsonl", "--label", "label", "--is", "sad", "--out", "x"],
            "0 are of the kind",
        ),
        (
            &["eval", "runs/long", "--tasks", "village-stories", "--limit", "1", "--classifier", "terms.tsv"],
            "terms.tsv",
        ),
        (&["eval", "runs/long", "--tasks", "village-stories", "--limit", "1", "--lexicon", "none.tsv"], "none.tsv"),
        (&["eval", "runs/long", "--tasks", "village-stories", "--limit", "1", "--corpus", "none"], "none"),
    ] {
        let output = kiln(dir, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says) && said.contains("hint:"), "{args:?}: {said}");
    }
}

#[test]
fn why_two_runs_differ_adds_up_and_is_not_trained_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let train = |name: &str, more: &[&str]| {
        let small = ["layers=1", "heads=2"].map(|set| format!("model.{set}"));
        let brief = ["batch=2", "context=32", "sample_every=0", "eval_every=0"].map(|set| format!("train.{set}"));
        let own = [format!("run.name={name}"), "data.bytes=100000".into(), "data.vocab=300".into()];
        let mut args = vec!["train".to_owned(), "--json".to_owned()];
        let more = more.iter().map(|set| (*set).to_owned());
        args.extend(small.into_iter().chain(brief).chain(own).chain(more).flat_map(|set| ["--set".to_owned(), set]));
        let output = kiln(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    train("a", &["model.d=16", "train.steps=4", "train.seed=1"]);
    train("b", &["model.d=32", "train.steps=40", "train.seed=2"]);
    let ask = || {
        let args = ["eval", "runs/a", "runs/b", "--why", "--tasks", "village-text", "--limit", "8", "--out", "why"];
        object(dir.path(), &[&args[..], &["--json"]].concat())
    };
    let found = ask();
    let steps = found[0]["steps"].as_array().expect("steps");
    let factors: Vec<&str> = steps.iter().filter_map(|step| step["factor"].as_str()).collect();
    assert_eq!(factors, ["", "size", "steps", "seed"]);
    assert_eq!(steps[1]["changes"], serde_json::json!(["model.d 16 → 32"]));
    assert_eq!((&steps[0]["run"], &steps[3]["run"]), (&"runs/a".into(), &"runs/b".into()));
    let value = |i: usize| steps[i]["value"].as_f64().expect("a figure");
    for (i, step) in steps.iter().enumerate().skip(1) {
        let (change, low, high) = (&step["change"][0], &step["change"][1][0], &step["change"][1][1]);
        let [change, low, high] = [change, low, high].map(|x| x.as_f64().expect("a number"));
        assert!((change - (value(i) - value(i - 1))).abs() < 1e-9 && low <= change && change <= high, "{found}");
    }
    // More steps helped more than a width that had four of them.
    assert!(value(2) < value(1) - 0.1, "{found}");
    let plain = object(dir.path(), &["eval", "runs/b", "--tasks", "village-text", "--limit", "8", "--json"]);
    assert_eq!(plain["tasks"][0]["models"][0]["figures"][0]["value"].as_f64(), Some(value(3)));
    let picture = std::fs::read_to_string(dir.path().join("why/why-village-text.svg")).expect("a picture");
    assert!(picture.contains("size") && picture.contains("seed"));
    let trained = || std::fs::read(dir.path().join("why/1-size/metrics.jsonl")).expect("metrics");
    let before = trained();
    assert_eq!((ask(), trained()), (found.clone(), before));
    // What lies between other runs is another thing.
    train("c", &["model.d=48", "train.steps=40", "train.seed=2"]);
    for (runs, says) in [(["runs/a", "runs/c"], "model.d"), (["runs/a", "runs/a"], "the same recipe")] {
        let output =
            kiln(dir.path(), &[&["eval"][..], &runs, &["--why", "--tasks", "village-text", "--out", "why"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says) && said.contains("hint:"), "{said}");
    }
}
