//! What is planned of a run against what it takes, for every kind of model; `kiln plan` as people meet it.

use kiln::data::images::{Idx, Shapes};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::plan::{Forecast, Machine};
use kiln::train::pictures::{gan, vae, vqvae};
use kiln::train::tune::TUNE;
use kiln::train::{Account, AnyRecipe};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A run of a millisecond a step.
const TINY: &str = "model.layers=1 model.heads=2 model.d=16 train.context=16 train.batch=2 data.bytes=20000 \
                    data.tokenizer=byte train.sample_every=0 optim.warmup=2 eval.max_batches=2";

fn kiln(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).args(["--threads", "1", "--device", "cpu"]).args(args).stdin(Stdio::null());
    command.output().expect("it starts")
}

/// `args`, and the settings each behind its `--set`.
fn with<'a>(args: &[&'a str], set: &'a str) -> Vec<&'a str> {
    args.iter().copied().chain(set.split_whitespace().flat_map(|set| ["--set", set])).collect()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[track_caller]
fn object(output: &Output) -> Value {
    serde_json::from_str(&said(output)).expect("one JSON object")
}

/// Code, and what was said of the error.
fn refused(output: &Output) -> (i32, String) {
    (output.status.code().expect("it was not killed"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Pictures of 8 x 8 in a folder, with labels or without.
fn pictures(dir: &Path, labels: bool) {
    let found = Shapes::new(1, 8).and_then(|shapes| shapes.found(220)).expect("pictures").train;
    let values = (0..found.len()).flat_map(|i| found.get(i)).copied().collect();
    std::fs::create_dir_all(dir).expect("a folder");
    Idx { shape: vec![found.len(), 8, 8], values }.write(dir.join("train-images-idx3-ubyte")).expect("written");
    if labels {
        let values = (0..found.len()).map(|i| found.label(i).expect("labels") as u8).collect();
        Idx { shape: vec![found.len()], values }.write(dir.join("train-labels-idx1-ubyte")).expect("written");
    }
}

#[test]
fn every_kind_of_run_takes_the_bytes_of_its_plan_exactly() {
    let dir = tempfile::tempdir().expect("a folder");
    let [plain, labelled] = ["plain", "labelled"].map(|name| dir.path().join(name));
    pictures(&plain, false);
    pictures(&labelled, true);
    let base = with_run(dir.path(), "base", "", &format!("{TINY} model.d=32 train.steps=3 train.context=64"));
    let lines: String =
        (0..40).map(|i| format!("{{\"prompt\": \"What is {i}?\", \"completion\": \" It is {i}.\"}}\n")).collect();
    let questions = dir.path().join("questions.jsonl");
    std::fs::write(&questions, lines).expect("written");
    let (plain, labelled) = (format!("data.path={}", plain.display()), format!("data.path={}", labelled.display()));
    let tune = format!("model.base={} data.path={} train.context=32", base.display(), questions.display());
    let often = "train.steps=6 train.eval_every=2 train.checkpoint_every=4 train.sample_every=3";
    for (name, recipe, set) in [
        ("vae", vae::DEFAULT, format!("{plain} {often} train.batch=48 model.hidden=3000")),
        ("vae-conv", vae::CONV, format!("{plain} {often} train.batch=48 model.channels=[8,96]")),
        ("vae-bf16", vae::CONV, format!("{plain} {often} train.precision=bf16 train.batch=30 train.accumulate=2")),
        ("vqvae", vqvae::DEFAULT, format!("{plain} {often} model.channels=[8,96] train.batch=64")),
        ("gan", gan::DEFAULT, format!("{plain} {often} model.g=48 model.d=48 train.batch=40")),
        ("gan-slope", gan::DEFAULT, format!("{plain} {often} model.g=16 model.d=16 model.r1=1 model.scale=none")),
        ("gan-labels", gan::DEFAULT, format!("{labelled} {often} model.g=8 model.d=8 model.conditional=true")),
        ("lora", TUNE, format!("{tune} train.steps=6 train.eval_every=2")),
        ("lora-q8", TUNE, format!("{tune} train.steps=6 model.frozen=q8 train.recompute=true")),
        ("full", TUNE, format!("{tune} train.steps=6 model.method=full train.precision=bf16")),
    ] {
        let device = Device::cpu(2).expect("a CPU");
        let run = run_on(dir.path(), name, recipe, &set, &device);
        let account = Account::read(&run).expect("an account");
        let actual = account.actual.expect("it ended");
        let [tensors, scratch] = device.mapped_bytes();
        assert_eq!(actual.mapped as usize, tensors + scratch, "{name}");
        assert_eq!(account.planned.memory.total, tensors + scratch, "{name}: {}", account.planned.memory);
        assert_eq!((actual.steps, account.planned.steps), (6, 6), "{name}");
    }
}

fn with_run(dir: &Path, name: &str, base: &str, set: &str) -> std::path::PathBuf {
    run_on(dir, name, base, set, &Device::cpu(1).expect("a CPU"))
}

/// The directory of a run.
fn run_on(dir: &Path, name: &str, base: &str, set: &str, device: &Device) -> std::path::PathBuf {
    let own = [format!("run.dir={:?}", dir.join("runs")), format!("run.name={name}")];
    let set: Vec<String> = own.into_iter().chain(set.split_whitespace().map(str::to_owned)).collect();
    let recipe = AnyRecipe::load(None, base, &set).unwrap_or_else(|e| panic!("{name}: {e}"));
    recipe.run(&Os, None, device, &mut ()).unwrap_or_else(|e| panic!("{name}: {e}")).run
}

#[test]
fn a_plan_is_kept_and_compared_with_what_the_run_took() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = format!("{TINY} train.steps=40 train.eval_every=10 train.checkpoint_every=20 run.name=a");
    let planned = said(&kiln(dir.path(), &with(&["plan", "--json", "--seconds", "0.3"], &set)));
    std::fs::write(dir.path().join("a.json"), &planned).expect("written");
    let forecast = Forecast::from_json(&planned, Path::new("a.json")).expect("a forecast");
    assert_eq!((forecast.steps, forecast.per_step, &*forecast.unit), (40, 32, "tokens"));
    assert!(forecast.parameters > 1000 && forecast.flops > 0.0 && forecast.largest_batch > Some(2));
    let sum: f64 = forecast.parts.iter().map(|(_, seconds)| seconds).sum();
    let seconds = forecast.seconds.expect("measured");
    assert!((sum - seconds).abs() < 1e-9 && forecast.times.expect("measured").measured >= 2, "{forecast:?}");
    let cost = forecast.cost.expect("it costs something");
    assert!((cost.money - seconds / 3600.0 * forecast.rates.price).abs() < 1e-12);
    // Planning leaves nothing behind.
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);

    // In two processes, the second of which goes on.
    said(&kiln(dir.path(), &with(&["train", "--json", "--until", "15"], &set)));
    let half = Account::read(&dir.path().join("runs/a")).expect("an account").actual.expect("it paused");
    assert_eq!(half.steps, 15);
    let part = object(&kiln(dir.path(), &["plan", "runs/a", "--json", "--against", "a.json"]));
    assert!(part["compared"][3]["actual"].is_null(), "half a run says nothing of the time: {part}");
    said(&kiln(dir.path(), &["train", "--json", "--resume", "runs/a"]));
    let all = object(&kiln(dir.path(), &["plan", "runs/a", "--json", "--against", "a.json"]));
    let row = |i: usize| (all["compared"][i]["planned"].as_f64(), all["compared"][i]["actual"].as_f64());
    assert_eq!(row(0), (Some(40.0), Some(40.0)));
    assert_eq!(row(1).0, row(1).1, "{all}");
    assert_eq!(row(1).0, Some(forecast.memory.total as f64));
    assert!(row(3).0 == Some(seconds) && row(3).1 > Some(half.seconds), "{all}");
    if let (Some(planned), Some(actual)) = row(2) {
        assert!((planned - actual).abs() < 0.05 * actual + f64::from(16 << 20), "{planned} resident, {actual}");
    }
    let shown = said(&kiln(dir.path(), &["plan", "runs/a", "--against", "a.json"]));
    assert!(shown.contains("mapped") && shown.contains("+0.0 %") && shown.contains("next: "), "{shown}");
    // A run of no account, and a file that is no forecast.
    std::fs::create_dir(dir.path().join("empty")).expect("a folder");
    let (code, error) = refused(&kiln(dir.path(), &["plan", "empty"]));
    assert!(code == 1 && error.contains("empty has no plan.json"), "{error}");
    std::fs::write(dir.path().join("b.json"), "{}").expect("written");
    let (code, error) = refused(&kiln(dir.path(), &["plan", "runs/a", "--against", "b.json"]));
    assert!(code == 1 && error.contains("b.json") && error.contains("hint: "), "{error}");
}

#[test]
fn a_card_takes_as_long_as_its_figures_say_and_refuses_what_does_not_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = "plan --json --machine h100 --utilisation 0.5 --price 2 --watts 500 --carbon 100";
    let base: Vec<&str> = base.split(' ').collect();
    let found = object(&kiln(dir.path(), &with(&base, "train.precision=bf16 data.tokenizer=byte")));
    let Ok(Machine::Card(card)) = Machine::named("h100") else { panic!("a card") };
    let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("{key} in {found}"));
    let steps = number("steps");
    let wanted = number("flops") / (0.5 * card.bf16 * 1e12) + steps * 28.0 * number("trained") / (card.memory * 1e9);
    assert!((number("seconds") / wanted - 1.0).abs() < 1e-9, "{found}");
    let hours = wanted / 3600.0;
    let cost = |key: &str| found["cost"][key].as_f64().expect("a number");
    assert!((cost("money") / (2.0 * hours) - 1.0).abs() < 1e-9 && (cost("kwh") / (0.5 * hours) - 1.0).abs() < 1e-9);
    assert!((cost("co2") / (0.05 * hours) - 1.0).abs() < 1e-9);
    assert!(found["resident"].is_null() && found["scaling"]["ratio"].as_f64() > Some(1.0), "{found}");

    let large = "model.d=2048 model.heads=16 model.layers=24 train.context=1024 train.batch=64 data.tokenizer=byte \
                 train.precision=bf16";
    let plan = ["plan", "--json", "--machine", "rtx4090"];
    let (code, error) = refused(&kiln(dir.path(), &with(&plan, large)));
    assert_eq!(code, 2, "{error}");
    let error: Value = serde_json::from_str(&error).expect("one object");
    let hint = error["hint"].as_str().expect("a hint");
    let changes: Vec<&str> = hint.split("; or ").collect();
    assert_eq!(changes.len(), 3, "{hint}");
    for change in changes {
        let settings: Vec<&str> = change.split([' ', '(']).filter(|word| word.contains('=')).collect();
        let better = format!("{large} {}", settings.join(" "));
        said(&kiln(dir.path(), &with(&plan, &better)));
    }
    let (code, error) = refused(&kiln(dir.path(), &["plan", "--machine", "abacus"]));
    assert!(code == 2 && error.contains("abacus") && error.contains("h100"), "{error}");
    let (code, error) = refused(&kiln(dir.path(), &["plan", "--against", "a.json"]));
    assert!(code == 2 && error.contains("--against"), "{error}");
}

#[test]
fn data_becomes_a_recipe_that_runs_and_a_choice() {
    let dir = tempfile::tempdir().expect("a folder");
    let texts = dir.path().join("texts");
    std::fs::create_dir(&texts).expect("a folder");
    let text: String = (0..40_000).map(|i| format!("Story {i}: somebody went to the well.\n")).collect();
    std::fs::write(texts.join("a.txt"), text).expect("written");
    let ways = |found: &Value| -> Vec<String> {
        let choices = found["advice"]["choices"].as_array().expect("choices");
        choices.iter().map(|choice| choice["way"].as_str().expect("a way").to_owned()).collect()
    };
    let plan = |args: &[&str]| kiln(dir.path(), &[&["plan", "--json", "--machine", "h100"], args].concat());
    let found = object(&plan(&["--data", "texts", "--hours", "0.5"]));
    assert_eq!((found["written"].as_str(), ways(&found).len()), (Some("planned.toml"), 3), "{found}");
    // It is a recipe of these texts, and its run is planned as any other.
    let recipe = AnyRecipe::load(Some(&dir.path().join("planned.toml")), "", &[]).expect("a recipe");
    assert!(
        matches!(&recipe, AnyRecipe::Text(recipe) if recipe.data.path.iter().flatten().any(|p| p.ends_with("texts")))
    );
    said(&kiln(dir.path(), &["train", "planned.toml", "--plan"]));
    // Hours and latency make it smaller.
    let parameters = |args: &[&str]| -> f64 {
        object(&plan(&[&["--data", "texts"], args].concat()));
        let AnyRecipe::Text(recipe) =
            AnyRecipe::load(Some(&dir.path().join("planned.toml")), "", &[]).expect("a recipe")
        else {
            panic!("text")
        };
        recipe.model.config(recipe.data.vocab, recipe.train.context).parameters()
    };
    assert!(parameters(&["--latency", "0.0001"]) <= parameters(&["--hours", "5"]));

    pictures(&dir.path().join("shapes"), true);
    let found = object(&plan(&["--data", "shapes", "--out", "vae.toml"]));
    assert_eq!(ways(&found), ["train", "buy", "fine-tune"]);
    let recipe = AnyRecipe::load(Some(&dir.path().join("vae.toml")), "", &[]).expect("a recipe");
    assert!(matches!(&recipe, AnyRecipe::Vae(recipe) if recipe.model.conditional), "few pictures with labels");

    std::fs::write(dir.path().join("qa.jsonl"), "{\"prompt\": \"Who?\", \"completion\": \" You.\"}\n".repeat(60))
        .expect("written");
    let found = object(&plan(&["--data", "qa.jsonl", "--out", "tune.toml"]));
    assert!(found["written"].is_null() && ways(&found)[0] == "fine-tune", "{found}");
    with_run(dir.path(), "base", "", &format!("{TINY} train.steps=2"));
    let found = object(&plan(&["--data", "qa.jsonl", "--base", "runs/base", "--out", "tune.toml"]));
    assert_eq!(found["written"].as_str(), Some("tune.toml"));
    let recipe = AnyRecipe::load(Some(&dir.path().join("tune.toml")), "", &[]).expect("a recipe");
    assert!(matches!(recipe, AnyRecipe::Tune(_)));

    let (code, error) = refused(&plan(&["--data", "nothing"]));
    assert!(code == 1 && error.contains("nothing"), "{error}");
}
