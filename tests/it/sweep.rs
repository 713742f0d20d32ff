//! Sweeps of tiny models, by the program itself: what they find, and that nothing is lost whatever is killed.

use kiln::rng::{Purpose, Rng};
use kiln::sweep::{Event, Outcome, Sweep, Watch, Work, reopen};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// A search over twelve settings of a model that does a step in about a millisecond.
const TINY: &str = "
[sweep]
name = \"tiny\"
search = \"grid\"
trials = 0
[halving]
kind = \"sync\"
first = 4
factor = 3
[set]
model.layers = 1
model.heads = 2
model.d = 16
train.context = 16
train.batch = 2
train.steps = 40
train.checkpoint_every = 3
data.bytes = 20000
data.tokenizer = \"byte\"
optim.warmup = 2
eval.max_batches = 3
[space]
optim.lr = { from = 1e-4, to = 1e-1, log = true, points = 6 }
optim.beta2 = [0.9, 0.99]
";

/// The sweep in a folder of its own, with overrides.
fn tiny(dir: &Path, set: &[&str]) -> Command {
    std::fs::write(dir.join("tiny.toml"), TINY).expect("written");
    let mut command = kiln(dir, &["sweep", "tiny.toml", "--json"]);
    command.args(set.iter().flat_map(|set| ["--set", set]));
    command
}

fn kiln(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(KILN);
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn object(output: &Output) -> Value {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    serde_json::from_str(&said(&output.stdout)).expect("one JSON object")
}

/// What trials came to, by setting; the bits of each rung.
fn values(sweep: &Value) -> BTreeMap<String, Vec<Option<u64>>> {
    let bits = |values: &Value| {
        values.as_array().expect("values").iter().map(|value| value.as_f64().map(f64::to_bits)).collect()
    };
    let trials = sweep["trials"].as_array().expect("trials");
    trials.iter().map(|trial| (trial["set"].to_string(), bits(&trial["values"]))).collect()
}

/// How many trials came to each rung.
fn counts(sweep: &Value) -> Vec<usize> {
    let all = values(sweep);
    let rungs = all.values().map(Vec::len).max().expect("trials");
    (1..=rungs).map(|rung| all.values().filter(|values| values.len() >= rung).count()).collect()
}

#[test]
fn the_best_go_on_and_the_winning_recipe_is_that_of_the_best() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = object(&tiny(dir.path(), &[]).output().expect("it starts"));
    assert_eq!(found["rungs"], serde_json::json!([4, 12, 36, 40]));
    assert_eq!(counts(&found), [12, 4, 1, 1]);
    assert_eq!(found["steps"], 12 * 4 + 4 * 8 + 24 + 4);
    // Whoever goes on was among the best four of the rung.
    let mut first: Vec<(f64, usize)> = found["trials"]
        .as_array()
        .expect("trials")
        .iter()
        .map(|t| (t["values"][0].as_f64().expect("a loss"), t["values"].as_array().expect("values").len()))
        .collect();
    first.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(first.iter().take(4).all(|t| t.1 >= 2) && first.iter().skip(4).all(|t| t.1 == 1), "{first:?}");
    let folder = dir.path().join("runs/tiny");
    for file in ["best.toml", "sweep.json", "sweep.svg", "sweep.png", "sweep.toml", "results.jsonl"] {
        assert!(folder.join(file).is_file(), "no {file}");
    }
    // The winning recipe does by itself what the trial did in pieces, on data of its own.
    let run = object(&kiln(dir.path(), &["train", "--json", "runs/tiny/best.toml"]).output().expect("it starts"));
    assert_eq!(run["val_loss"].as_f64(), found["best"]["value"].as_f64());
    // Of all trials the best keeps its checkpoints.
    let kept = |trial: usize| folder.join(format!("trials/{trial:04}/checkpoints")).exists();
    let kept: Vec<u64> = (0..12).filter(|&trial| kept(trial)).map(|trial| trial as u64).collect();
    assert_eq!(kept, [found["best"]["trial"].as_u64().expect("a number")]);
    // A sweep that is done is done: it only says so again.
    let again = object(&kiln(dir.path(), &["sweep", "--json", "--resume", "runs/tiny"]).output().expect("it starts"));
    assert_eq!(again["trials"], found["trials"]);
}

/// Kills the sweep at `kills` random moments, resumes it each time, and gives what it found in the end.
fn killed(dir: &Path, set: &[&str], seed: u64, kills: u32) -> Value {
    let mut rng = Rng::new(seed, Purpose::Test, 0, 0);
    let folder = dir.join("runs/tiny");
    let next = || match folder.join("sweep.toml").is_file() && folder.join("recipe.toml").is_file() {
        true => {
            let mut command = kiln(dir, &["sweep", "--json", "--resume", "runs/tiny"]);
            command.args(set.iter().filter(|set| set.starts_with("sweep.workers")).flat_map(|set| ["--set", set]));
            command
        }
        false => tiny(dir, set),
    };
    for _ in 0..kills {
        let mut sweep = next().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(u64::from(rng.below(700))));
        sweep.kill().expect("killed");
        sweep.wait().expect("dead");
    }
    object(&next().output().expect("it starts"))
}

#[test]
fn a_sweep_that_was_killed_twenty_times_has_the_table_of_one_that_was_not() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let want = object(&tiny(dirs[0].path(), &[]).output().expect("it starts"));
    let got = killed(dirs[1].path(), &["sweep.workers=2"], 1, 20);
    assert_eq!(values(&got), values(&want));
    assert_eq!((&got["best"]["set"], &got["best"]["value"]), (&want["best"]["set"], &want["best"]["value"]));
    assert_eq!(got["importance"], want["importance"]);
}

#[test]
fn whenever_a_trial_goes_on_it_comes_to_the_same() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let whole = object(&tiny(dirs[0].path(), &["halving.kind=none"]).output().expect("it starts"));
    let set = ["halving.kind=async", "sweep.workers=2"];
    let got = killed(dirs[1].path(), &set, 2, 6);
    let rungs = got["rungs"].as_array().expect("rungs").len();
    let whole = values(&whole);
    let mut ended = 0;
    for (setting, values) in values(&got) {
        if values.len() == rungs {
            assert_eq!(values.last(), whole[&setting].last(), "{setting}");
            ended += 1;
        }
    }
    assert!(ended >= 1 && counts(&got)[0] == 12, "{:?}", counts(&got));
    // And at each rung to what it came to in another order.
    let other = object(&tiny(dirs[0].path(), &["sweep.name=other", "halving.kind=async"]).output().expect("it starts"));
    let other = values(&other);
    for (setting, values) in values(&got) {
        let both = values.len().min(other[&setting].len());
        assert_eq!(values[..both], other[&setting][..both], "{setting}");
    }
}

#[test]
fn a_budget_ends_a_sweep_and_a_larger_one_takes_it_up_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = object(&tiny(dir.path(), &["budget.steps=30"]).output().expect("it starts"));
    assert_eq!((counts(&found), &found["steps"]), (vec![7], &28.into()));
    let more = ["sweep", "--json", "--resume", "runs/tiny", "--set", "budget.steps=1000"];
    assert_eq!(counts(&object(&kiln(dir.path(), &more).output().expect("it starts"))), [12, 4, 1, 1]);
    // What it searches stays.
    let other = ["sweep", "--resume", "runs/tiny", "--set", "halving.first=8"];
    let output = kiln(dir.path(), &other).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("halving.first: a sweep that goes on keeps"));
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_begins() {
    let dir = tempfile::tempdir().expect("a folder");
    for (set, says) in [
        ("space.optim.learning=[1.0]", "optim.learning: no such key"),
        ("space.optim.beta1=[3.0]", "optim.beta1: 3"),
        ("space.train.steps=[3]", "space.train.steps: trials are compared"),
        ("set.train.steps=0", "train.steps: 0"),
        ("set.steps=3", "set.steps"),
        ("sweep.metric=accuracy", "sweep.metric: metrics.jsonl has no \"accuracy\""),
    ] {
        let output = tiny(dir.path(), &[set]).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{set}: {said}");
        assert!(said.contains(&says.replace('"', "\\\"")) && said.contains("hint"), "{set}: {said}");
        assert_eq!(dir.path().join("runs").exists(), set.contains("metric"), "{set}");
    }
    let none = kiln(dir.path(), &["sweep", "--resume", "runs"]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&none.stderr).contains("no sweep is here"));
}

#[test]
fn a_range_test_finds_rates_that_learn_below_those_that_break() {
    let dir = tempfile::tempdir().expect("a folder");
    let small =
        ["model.layers=1", "model.heads=2", "model.d=32", "train.context=32", "train.batch=8", "data.bytes=60000"];
    let mut command =
        kiln(dir.path(), &["sweep", "--lr-range", "--json", "--from", "1e-5", "--to", "100", "--steps", "200"]);
    command.args(small.iter().chain(&["data.tokenizer=byte"]).flat_map(|set| ["--set", set]));
    let found = object(&command.output().expect("it starts"));
    let rate = |key: &str| found[key].as_f64().expect("a rate");
    let (steepest, lowest) = (rate("steepest"), rate("lowest"));
    assert!(1e-4 < steepest && steepest < lowest && lowest < rate("breaks"), "{steepest}, {lowest}");
    for file in ["lr-range.svg", "lr-range.png"] {
        assert!(dir.path().join("runs/lr-range").join(file).is_file());
    }
    for wrong in [&["--from", "1"][..], &["--from", "-1"], &["--steps", "3"], &["--to", "nan"]] {
        let output = kiln(dir.path(), &["sweep", "--lr-range"]).args(wrong).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// Collects what became of trials.
#[derive(Default)]
struct Seen {
    failed: Vec<String>,
    warned: Vec<String>,
}

impl Watch for Seen {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Came { to: Err(why), .. } => self.failed.push(why.to_owned()),
            Event::Warning { text } => self.warned.push(text.to_owned()),
            _ => {}
        }
    }
}

/// Two trials, whose processes `program` starts.
fn two(dir: &Path, set: &[&str], program: &dyn Fn() -> Command) -> (Outcome, Seen) {
    let mut set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    set.push(format!("sweep.dir={:?}", dir.to_str().expect("a UTF-8 path")));
    let sweep = Sweep::from_toml(TINY, Path::new("tiny.toml"), &set).expect("a sweep");
    let mut seen = Seen::default();
    let outcome = kiln::sweep::run(&sweep, None, &Work { program }, &mut seen).expect("an outcome");
    (outcome, seen)
}

#[test]
fn a_trial_whose_process_crashes_goes_on_and_one_that_fails_says_why() {
    let set = ["sweep.trials=2", "halving.kind=none"];
    let dir = tempfile::tempdir().expect("a folder");
    let (want, seen) = two(dir.path(), &set, &|| Command::new(KILN));
    assert!(seen.failed.is_empty() && seen.warned.is_empty());
    // The first process is killed before it has done anything.
    let crashes = |flag: PathBuf| {
        move || {
            let mut command = Command::new("sh");
            let script = "if mkdir \"$0\" 2>/dev/null; then kill -9 $$; fi; exec \"$@\"";
            command.args(["-c", script]).arg(&flag).arg(KILN);
            command
        }
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (got, seen) = two(dir.path(), &set, &crashes(dir.path().join("crashed")));
    assert_eq!((got.best(), got.order), (want.best(), want.order));
    assert!(seen.warned.len() == 1 && seen.warned[0].contains("crashed and is taken up again"), "{:?}", seen.warned);
    // One that always crashes is given up, and the sweep goes on.
    let dir = tempfile::tempdir().expect("a folder");
    let (got, seen) = two(dir.path(), &set, &|| {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        command
    });
    assert_eq!((got.best(), seen.failed.len(), seen.warned.len()), (None, 2, 4));
    // A recipe that cannot run says so.
    let dir = tempfile::tempdir().expect("a folder");
    let (got, seen) =
        two(dir.path(), &["sweep.trials=2", "space.model.heads=[3, 2]", "sweep.trials=0"], &|| Command::new(KILN));
    assert_eq!(seen.failed.len(), 12);
    assert!(seen.failed.iter().all(|why| why.contains("model.d: a width of 16 cannot be divided among 3 heads")));
    assert!(got.best().is_some());
    assert!(reopen(&got.dir, &[]).is_ok());
}

#[test]
fn laws_are_fitted_to_small_runs_which_are_not_done_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = ["train.context=16", "train.batch=2", "data.bytes=30000", "data.tokenizer=byte", "eval.max_batches=5"];
    let fit = |more: &[&str]| {
        let mut command = kiln(dir.path(), &["sweep", "--isoflop", "--json", "--budgets", "1e9,2e9"]);
        command
            .args(["--least-ratio", "0", "--widths", "16,32,48"])
            .args(more)
            .args(small.iter().flat_map(|set| ["--set", set]));
        command.output().expect("it starts")
    };
    let found = object(&fit(&["--hold-out", "64@6e9"]));
    let points = found["points"].as_array().expect("points");
    let of = |key: &str| points.iter().map(|point| point[key].as_f64().expect("a number")).collect::<Vec<_>>();
    assert_eq!(of("width"), [16.0, 32.0, 48.0, 16.0, 32.0, 48.0]);
    for (((flops, size), tokens), want) in
        of("flops").iter().zip(of("size")).zip(of("tokens")).zip([1e9, 1e9, 1e9, 2e9, 2e9, 2e9])
    {
        // A step more or less, and the budget is what size and tokens make of it.
        assert!((flops / want - 1.0).abs() < 0.05 && (6.0 * size * tokens / flops - 1.0).abs() < 1e-9);
    }
    let held_out = &found["held_out"];
    let [loss, predicted] = [&held_out["loss"], &found["predicted"]].map(|x| x.as_f64().expect("a loss"));
    assert_eq!(held_out["width"], 64);
    assert!((predicted / loss - 1.0).abs() < 0.2, "{predicted}, {loss}");
    let metrics = dir.path().join("runs/isoflop/d16-1e9/metrics.jsonl");
    let written = std::fs::metadata(&metrics).expect("a run").modified().expect("a time");
    let again = object(&fit(&["--hold-out", "none"]));
    assert_eq!((&again["points"], &again["law"]), (&found["points"], &found["law"]));
    assert_eq!(std::fs::metadata(&metrics).expect("a run").modified().expect("a time"), written);
    assert!(again["held_out"].is_null() && dir.path().join("runs/isoflop/isoflop.svg").is_file());
    for (wrong, says) in [
        (["--budgets", "1e3"], "two budgets"),
        (["--budgets", "1e3,2e3"], "steps of a model"),
        (["--widths", "16,24,32"], "multiples of a head's 16"),
        (["--hold-out", "64"], "a width and operations"),
    ] {
        let output = kiln(dir.path(), &["sweep", "--isoflop"]).args(wrong).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(says), "{wrong:?}: {said}");
    }
}

#[test]
fn the_studies_of_a_search_compare_what_they_trained() {
    let dir = tempfile::tempdir().expect("a folder");
    let tiny = [
        "set.model.layers=1",
        "set.train.batch=2",
        "set.train.context=16",
        "set.train.steps=32",
        "set.data.bytes=30000",
        "set.data.tokenizer=\"byte\"",
        "set.eval.max_batches=2",
    ];
    let grid = [
        "space.model.d=[16, 24]",
        "space.optim.lr={ from = 1e-3, to = 1e-1, log = true, points = 4 }",
        "halving.first=2",
    ];
    let study = |name: &str, more: &[&str]| {
        let mut command = kiln(dir.path(), &["study", name, "--json"]);
        command.args(tiny.iter().chain(more).flat_map(|set| ["--set", set]));
        object(&command.output().expect("it starts"))
    };
    let found = study("halving", &grid);
    let number = |key: &str| found[key].as_f64().expect("a number");
    // 16 settings to step 2, 4 to step 8, 1 to step 32.
    assert_eq!((number("grid_steps"), number("steps"), number("draws")), (512.0, 80.0, 2.0));
    let least = found["best"][1].as_f64().expect("a loss");
    assert!((found["found"][1].as_f64().expect("a loss") / least - 1.0 - number("above")).abs() < 1e-12);
    let chance = found["chance"].as_array().expect("five draws");
    assert!(chance.len() == 5 && chance.iter().all(|one| one["best"].as_f64().expect("a loss") >= least));
    let again = study("halving", &grid);
    assert_eq!(again, found);
}
