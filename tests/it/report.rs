//! `kiln report` as scripts meet it: the page, the card, gates; where runs stand. What `--live` draws is tested where it is drawn
//! (`src/cli/report/`).

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
    let cases: [(&[&str], i32, &str, &str); 6] = [
        (&["report", "--live"], 2, "draws on a terminal", "--json"),
        (&["report", "nowhere"], 1, "nowhere", "hint:"),
        (&["report", "empty"], 1, "empty", "hint:"),
        (&["report", "runs/a", "runs/a", "--card"], 2, "of which of 2 models", "name one model"),
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

/// What lets a model be asked the village's tasks: a context that holds their answers.
const READS: [&str; 3] = ["train.context=256", "data.tokenizer=bpe", "data.vocab=300"];

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
fn run(dir: &Path, args: &[&str]) -> String {
    let output = kiln(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Checks that a page is whole, loads nothing, and closes what it opens.
#[track_caller]
fn check(html: &str) {
    assert!(
        html.len() < 3 << 20 && html.starts_with("<!doctype html>") && html.ends_with("</html>\n"),
        "{}",
        html.len()
    );
    for foreign in ["http", "<script", "<link", "<iframe", "url(", "@import", "onerror", "javascript:"] {
        assert!(!html.contains(foreign), "{foreign} in the page");
    }
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(2).map(|rest| rest.split('>').next().expect("an end")) {
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().expect("a name");
        match tag {
            tag if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "closed by <{tag}>"),
            tag if tag.ends_with('/') || ["meta", "img", "br"].contains(&name) => {}
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn a_page_has_the_runs_own_numbers_and_a_card_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "6", &READS);
    let a = dir.path().join("runs/a");
    run(dir.path(), &["eval", "runs/a", "--tasks", "village-facts,village-text", "--limit", "4"]);
    let kept: Value = serde_json::from_str(&text(&a.join("eval/village-facts.json"))).unwrap();
    assert_eq!((&kept["asked"]["step"], &kept["asked"]["limit"], &kept["items"]), (&6.into(), &4.into(), &4.into()));
    assert_eq!((&kept["chance"], &kept["topic"]), (&0.25.into(), &"quality".into()));

    let said = run(dir.path(), &["report", "runs/a", "--card"]);
    assert!(said.contains("page runs/a/report.html") && said.contains("no promise of privacy"), "{said}");
    let html = text(&a.join("report.html"));
    check(&html);
    let html = html.replace("&#x2f;", "/");
    let facts: Value = serde_json::from_str(&run(dir.path(), &["report", "runs/a", "--json"])).unwrap();
    let facts = &facts["models"][0];
    let state: Value = serde_json::from_str(&text(&a.join("checkpoints/step-000006/state.json"))).unwrap();
    let plan: Value = serde_json::from_str(&text(&a.join("plan.json"))).unwrap();
    assert_eq!((&facts["training"]["seen"], &facts["parameters"]), (&state["tokens"], &plan["planned"]["parameters"]));
    let last =
        text(&a.join("metrics.jsonl")).lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()).unwrap();
    assert_eq!(facts["training"]["val_loss"], last["val_loss"]);
    let digits = |value: &Value| match value.as_f64().expect("a number") {
        0.0 => "<td class=\"n\">0 ± ".to_owned(),
        x => format!("{x:.3}"),
    };
    let group = |value: &Value| {
        value.as_u64().map(|n| n.to_string()).filter(|n| n.len() < 4).unwrap_or_else(|| {
            let text = value.as_u64().expect("a count").to_string();
            format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
        })
    };
    let acc = &kept["figures"][0];
    for number in
        [digits(&last["val_loss"]), group(&facts["parameters"]), group(&state["tokens"]), digits(&acc["value"])]
    {
        assert!(html.contains(&number), "{number} is not on the page");
    }
    // What was measured is not missing, what was not is.
    let missing = facts["missing"].to_string();
    assert!(
        missing.contains("village-stories") && missing.contains("village-qa") && !missing.contains("village-facts"),
        "{missing}"
    );
    assert!(html.contains("kiln doctor runs/a") && html.contains(" has 0.250"), "no word of guessing");
    assert_eq!(html.matches("<svg").count(), 5, "loss, rate, gradient, speed, reliability");
    assert!(html.contains("optim") && html.contains("kiln train runs/a/recipe.toml"));

    let card = text(&a.join("README.md"));
    let (front, body) = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).expect("front matter");
    let front: serde_yaml_ng::Value = serde_yaml_ng::from_str(front).expect("YAML");
    let front: Value = serde_json::to_value(front).expect("plain data");
    assert_eq!(
        (&front["license"], &front["library_name"], &front["pipeline_tag"]),
        (&"other".into(), &"kiln".into(), &"text-generation".into())
    );
    let results = front["model-index"][0]["results"].as_array().expect("results");
    assert_eq!(results[0]["metrics"][0]["value"], last["val_loss"]);
    let facts_of = results.iter().find(|result| result["dataset"]["name"] == "village-facts").expect("the task");
    assert_eq!((&facts_of["metrics"][0]["type"], &facts_of["metrics"][0]["value"]), (&"acc".into(), &acc["value"]));
    assert!(front["co2_eq_emissions"]["emissions"].as_f64() > Some(0.0), "{front}");
    assert!(
        body.contains("## Bias, risks and limitations")
            && body.contains("no promise of privacy")
            && body.contains("```\nkiln sample runs/a")
    );
    // A card of ours is written anew, another one is not.
    run(dir.path(), &["report", "runs/a", "--card"]);
    std::fs::write(a.join("README.md"), "# mine\n").unwrap();
    let refused = kiln(dir.path(), &["report", "runs/a", "--card"]);
    assert_eq!((refused.status.code(), text(&a.join("README.md"))), (Some(1), "# mine\n".to_owned()));
}

#[test]
fn a_converted_run_has_its_card_where_it_may() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "4", &[]);
    train(dir.path(), "b", "4", &["optim.dp.noise=1"]);
    let said = run(dir.path(), &["convert", "runs/a", "--out", "a-hf"]);
    assert!(said.contains("card   a-hf/README.md\nnext: kiln sample a-hf"), "{said}");
    let card = text(&dir.path().join("a-hf/README.md"));
    let last = text(&dir.path().join("runs/a/metrics.jsonl")).lines().last().map(str::to_owned).unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    for says in [
        "library_name: transformers",
        "\n# a\n",
        "```\nkiln sample a-hf\nkiln chat a-hf\n```",
        "context = 16",
        &format!("\"value\":{}", last["val_loss"]),
    ] {
        assert!(card.contains(says), "{says:?} is not in {card}");
    }
    // What is no directory has none, nor has a private run, or what is no run.
    for (model, out) in [("runs/a", "a.gguf"), ("runs/b", "b-hf"), ("a-hf", "again")] {
        let said: Value = serde_json::from_str(&run(dir.path(), &["convert", model, "--out", out, "--json"])).unwrap();
        assert_eq!(said["card"], Value::Null, "{model}");
        assert!(!dir.path().join(out).join("README.md").exists(), "{model}");
    }
}

#[test]
fn a_page_shows_what_is_there_and_says_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "4", &[]);
    let bad = dir.path().join("runs/b&<script>");
    std::fs::rename(dir.path().join("runs/a"), &bad).unwrap();
    let path = "runs/b&<script>";
    // Names, samples, tasks and recipes of others are text.
    std::fs::write(
        bad.join("samples/step-000004.txt"),
        "</pre><script>alert(1)</script><img src=x onerror=alert(1)> ``` ",
    )
    .unwrap();
    std::fs::create_dir(bad.join("eval")).unwrap();
    let task = "{\"task\":\"t|<script>\",\"about\":\"</td><script>\",\"items\":1,\"figures\":[{\"name\":\"<b>\",\"value\":null,\"error\":null}],
        \"lower_is_better\":true,\"groups\":[[\"<i>\",1,null]],\"topic\":\"bias\",\"asked\":{\"seed\":1,\"step\":2},\"kiln\":\"0\"}";
    std::fs::write(bad.join("eval/t.json"), task).unwrap();
    std::fs::write(bad.join("eval/torn.json"), &task[..40]).unwrap();
    run(dir.path(), &["report", path, "--card"]);
    let html = text(&bad.join("report.html")).replace("onerror=alert", "");
    check(&html);
    for says in [
        "t|&lt;script&gt;",
        "asked after step 2; the model has gone on to step 4",
        "no number",
        "torn.json",
        "paused",
        "kiln train --resume",
    ] {
        assert!(html.contains(says), "{says:?} is not on the page");
    }
    let card = text(&bad.join("README.md"));
    let (_, body) = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).expect("front matter");
    assert!(body.contains("&lt;/td>&lt;script>") && !body.contains("</td>"), "{body}");

    // Nearly all of it gone or broken: a page all the same, which says so.
    for gone in ["checkpoints", "data", "samples", "eval"] {
        std::fs::remove_dir_all(bad.join(gone)).unwrap();
    }
    std::fs::remove_file(bad.join("plan.json")).unwrap();
    std::fs::write(bad.join("privacy.json"), "{").unwrap();
    let metrics = text(&bad.join("metrics.jsonl"));
    let lines: Vec<&str> = metrics.lines().collect();
    std::fs::write(bad.join("metrics.jsonl"), format!("{}\nnonsense\n{}", lines[0], &lines[1][..20])).unwrap();
    let said = run(dir.path(), &["report", path, "--json"]);
    let facts: Value = serde_json::from_str(&said).unwrap();
    let absent = facts["models"][0]["absent"].to_string();
    for what in ["plan.json", "checkpoints: none", "dataset.json", "privacy.json", "metrics.jsonl: line 2"] {
        assert!(absent.contains(what), "{what:?} is not in {absent}");
    }
    assert_eq!(facts["models"][0]["training"]["step"], 1);
    let html = text(&bad.join("report.html"));
    check(&html);
    assert!(html.contains("checkpoints: none that verifies"));
    std::fs::remove_file(bad.join("metrics.jsonl")).unwrap();
    run(dir.path(), &["report", path]);
    assert!(text(&bad.join("report.html")).contains("metrics.jsonl: no step is there"));
}

#[test]
fn runs_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "6", &[]);
    train(dir.path(), "b", "6", &["optim.lr=1e-5", "optim.min_lr=0"]);
    run(dir.path(), &["report", "runs/a", "runs/b"]);
    let html = text(&dir.path().join("report.html"));
    check(&html);
    assert!(html.contains("<td>optim.lr</td>") && html.contains("0.00001") && !html.contains("<td>train.batch</td>"));
    assert!(!html.contains("<td>run.name</td>"), "where it lies is no setting");
    assert!(html.contains("The lowest validation loss is that of a."));
    // A page of another program's making stays.
    std::fs::write(dir.path().join("report.html"), "mine").unwrap();
    run(dir.path(), &["report", "runs/a", "runs/b"]);
    assert_eq!(text(&dir.path().join("report.html")), "mine");
    check(&text(&dir.path().join("page.html")));
}

#[test]
fn what_is_missing_is_measured_on_request() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "6", &READS);
    let facts: Value =
        serde_json::from_str(&run(dir.path(), &["report", "runs/a", "--eval", "--limit", "2", "--json"])).unwrap();
    let facts = &facts["models"][0];
    assert!(facts["judged"].as_array().is_some_and(|all| all.len() >= 6), "{facts}");
    assert!(facts["roofline"]["share"].as_f64() > Some(0.0), "{}", facts["roofline"]);
    let missing = facts["missing"].to_string();
    assert!(!missing.contains("village-") && !missing.contains("doctor"), "{missing}");
}

#[test]
fn gates_say_by_the_exit_code_whether_a_model_passes() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), "a", "2", &READS);
    let gate = |policy: &str, more: &[&str]| {
        std::fs::write(dir.path().join("policy.toml"), policy).unwrap();
        let output = kiln(dir.path(), &[&["eval", "runs/a", "--gate", "policy.toml", "--limit", "2"], more].concat());
        let all = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), all.concat(), all[0].clone())
    };
    let pass = "[[gate]]\ntask = \"village-text\"\nfigure = \"bits_per_byte\"\nmin = 0.01\nmax = 20\n";
    let (code, said, _) = gate(pass, &[]);
    assert!(
        code == Some(0) && said.contains("ok      village-text bits_per_byte") && said.contains("all gates are passed"),
        "{said}"
    );
    let fail = format!("{pass}[[gate]]\ntask = \"village-facts\"\nfigure = \"ece\"\nmax = -1\n");
    let (code, said, _) = gate(&fail, &[]);
    assert!(
        code == Some(1) && said.contains("FAILED  village-facts ece") && said.contains("1 of 2 gates failed"),
        "{said}"
    );
    let (code, _, json) = gate(&fail, &["--json"]);
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &found["passed"]), (Some(1), &false.into()));
    assert_eq!((&found["gates"][0]["passed"], &found["gates"][1]["passed"]), (&true.into(), &false.into()));
    // Of two models, the first may be no worse than the second.
    let worse = "[[gate]]\ntask = \"village-text\"\nfigure = \"bits_per_byte\"\nmax_worse = 0\n";
    assert_eq!(gate(worse, &["--json"]).0, Some(2), "there is no second one");
    std::fs::write(dir.path().join("policy.toml"), worse).unwrap();
    let both = kiln(dir.path(), &["eval", "runs/a", "runs/a", "--gate", "policy.toml", "--limit", "2"]);
    assert_eq!(both.status.code(), Some(0));
    for (policy, code, says) in [
        ("[[gate]]\ntask = \"village-text\"\nfigure = \"acc\"\nmax = 1\n", 2, "no figure \"acc\""),
        ("[[gate]]\ntask = \"village-tax\"\nfigure = \"acc\"\nmax = 1\n", 2, "did you mean village-text"),
        ("[[gate]]\ntask = \"village-text\"\nfigure = \"perplexity\"\n", 1, "no bound"),
        ("[[gate]]\ntask = \"village-text\"\nfigure = \"perplexity\"\nmax = nan\n", 1, "a finite number"),
        ("[[gate]]\ntask = \"village-text\"\nfigure = \"perplexity\"\nmin = 2\nmax = 1\n", 1, "nothing passes"),
        ("[[gate]]\ntask = \"village-text\"\nmaximum = 1\n", 1, "maximum"),
        ("gate = []\n", 1, "at least one"),
        ("nonsense", 1, "policy.toml: line 1"),
    ] {
        let (found, said, _) = gate(policy, &[]);
        assert!(found == Some(code) && said.contains(says) && said.contains("hint:"), "{policy}: {found:?} {said}");
    }
    // The example that kiln brings is one.
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/policy.toml");
    let output = kiln(dir.path(), &["eval", "runs/a", "--gate", policy.to_str().unwrap(), "--limit", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1), "a model of two steps does not pass");
}
