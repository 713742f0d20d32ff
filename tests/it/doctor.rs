//! What is wrong with a run: tiny runs that are broken in one way each, a healthy one, and warnings while a run is under way.

use kiln::device::Device;
use kiln::train::health::{Course, Kind, Report, Terms, examine};
use kiln::train::tune::TUNE;
use kiln::train::{AnyRecipe, Event, Watch};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Two small blocks on a small village.
const SMALL: &str = "run.name=run model.layers=1 model.heads=2 model.d=16 train.context=16 train.batch=8 train.steps=60 \
                     train.eval_every=20 train.checkpoint_every=30 train.sample_every=0 eval.max_batches=3 data.bytes=60000 \
                     data.vocab=300 optim.warmup=10 optim.lr=5e-3";

/// Takes down what a run warns of.
#[derive(Default)]
struct Warned(Vec<String>);

impl Watch for Warned {
    fn event(&mut self, event: &Event) {
        if let Event::Warning { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

fn device() -> Device {
    Device::cpu(1).expect("a CPU")
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("UTF-8"))
}

/// A run in `dir` with these settings over the default recipe `base`, and what it warned of.
fn run(dir: &Path, base: &str, settings: &str, more: &[String]) -> (PathBuf, Vec<String>) {
    let mut set = vec![format!("run.dir={}", quoted(dir))];
    set.extend(settings.split_whitespace().map(str::to_owned));
    set.extend_from_slice(more);
    let mut warned = Warned::default();
    let recipe = AnyRecipe::load(None, base, &set).expect("a recipe");
    let summary = recipe.run(&kiln::disk::Os, None, &device(), &mut warned).expect("a run");
    (summary.run, warned.0)
}

fn look(run: &Path) -> Report {
    examine(run, &device(), &mut |_, _, _| ()).expect("a report")
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.findings.iter().map(|found| found.kind).collect()
}

/// A file's path and its content.
type File = (PathBuf, Vec<u8>);

/// Every file below `dir` with its content.
fn files(dir: &Path) -> Vec<File> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push((path.clone(), std::fs::read(&path).expect("a file"))),
        }
    }
    all.sort();
    all
}

#[test]
fn of_a_healthy_run_nothing_is_said_everything_is_measured_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, warned) = run(dir.path(), "", SMALL, &[]);
    assert_eq!(warned, [""; 0]);
    let before = files(dir.path());
    // A process that trains holds the lock; the doctor does not want it.
    let lock = kiln::train::RunDir::open(&kiln::disk::Os, &path).expect("the run");
    let report = look(&path);
    drop(lock);
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!((report.step, report.steps, report.left_out.len()), (60, 60, 0));
    for name in ["update over weight", "largest logit", "attention entropy", "noise scale", "windows", "dead"] {
        assert!(report.numbers.iter().any(|number| number.name.contains(name)), "{name}: {:?}", report.numbers);
    }
    let changed = |(a, b): (&File, &File)| a != b && !a.0.ends_with("lock");
    let after = files(dir.path());
    assert!(after.len() == before.len() && !before.iter().zip(&after).any(changed));
}

#[test]
fn a_rate_that_is_far_too_high_is_named_by_the_weights_and_told_of_live() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, warned) = run(dir.path(), "", SMALL, &["optim.lr=1.0".into(), "optim.warmup=0".into()]);
    assert!(warned.iter().any(|text| text.contains("try optim.")), "{warned:?}");
    let mut once = warned.clone();
    once.dedup();
    assert_eq!(once, warned, "the same is not said twice");
    let found = kinds(&look(&path));
    assert!(found.contains(&Kind::LrTooHigh) && found.contains(&Kind::NoWarmup), "{found:?}");
}

#[test]
fn a_rate_that_is_far_too_low_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let low = ["optim.lr=1e-6".into(), "optim.min_lr=1e-7".into()];
    let (path, warned) = run(dir.path(), "", SMALL, &low);
    let report = look(&path);
    assert_eq!(kinds(&report), [Kind::LrTooLow]);
    assert_eq!(report.findings[0].knob.key, "optim.lr");
    assert!(warned.len() == 1 && warned[0].contains("next to nothing"), "{warned:?}");
}

#[test]
fn duplicated_text_and_text_in_an_order_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = kiln::data::world::World::new(1);
    let stories = |n: u64| (0..n).map(|i| world.story(i).text + "\n\n").collect::<String>();
    let (same, sorted) = (dir.path().join("same.txt"), dir.path().join("sorted.txt"));
    std::fs::write(&same, stories(12).repeat(10)).expect("written");
    let numbers: String = (0..1500).map(|i| format!("{};{}\n", i * 7919 % 9973, i * 31 % 97)).collect();
    std::fs::write(&sorted, stories(100) + &numbers).expect("written");
    let short = ["train.steps=4".to_owned(), "data.split=tail".to_owned()];
    let on = |path: &Path| [&short[..], &[format!("data.path={}", quoted(path))]].concat();
    let (path, warned) = run(dir.path(), "", SMALL, &on(&same));
    assert!(warned.iter().any(|text| text.contains("more than once")), "{warned:?}");
    assert!(kinds(&look(&path)).contains(&Kind::DuplicatedData));
    let (path, _) = run(dir.path(), "", SMALL, &on(&sorted));
    assert_eq!(kinds(&look(&path)), [Kind::DataOrder]);
}

#[test]
fn a_mask_of_all_is_named_and_a_usual_one_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (base, _) = run(dir.path(), "", SMALL, &["train.context=64".into(), "train.steps=10".into()]);
    let tuned = |name: &str, line: &dyn Fn(usize, &str) -> String| {
        let path = dir.path().join(format!("{name}.jsonl"));
        let who = |i: usize| ["Ann", "Bob", "Cid"][i % 3];
        std::fs::write(&path, (0..60).map(|i| line(i, who(i))).collect::<String>()).expect("written");
        let set = "train.steps=8 train.batch=2 model.rank=2 data.val_fraction=0.2 optim.warmup=1";
        let more = [
            format!("run.name={name}"),
            format!("model.base={}", quoted(&base)),
            format!("data.path={}", quoted(&path)),
        ];
        run(dir.path(), TUNE, set, &more)
    };
    let (path, warned) =
        tuned("usual", &|i, who| format!("{{\"prompt\": \"Who is number {i}?\", \"completion\": \" {who} is.\"}}\n"));
    let masked = |warned: &[String]| warned.iter().any(|text| text.contains("trained on:"));
    assert!(!masked(&warned), "{warned:?}");
    assert_eq!(kinds(&look(&path)), []);
    let (path, warned) = tuned("all", &|i, who| {
        let (letter, said) = (char::from(b'A' + (i % 26) as u8), format!("Who is number {i}? {who} is. ").repeat(9));
        format!("{{\"prompt\": \"{letter}\", \"completion\": \"{said}\"}}\n")
    });
    assert!(masked(&warned), "{warned:?}");
    assert_eq!(kinds(&look(&path)), [Kind::BadMask]);
}

#[test]
fn the_command_says_it_in_words_and_in_json_and_what_is_found_is_no_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, _) = run(dir.path(), "", SMALL, &["optim.lr=1e-6".into(), "optim.min_lr=1e-7".into()]);
    let kiln = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.current_dir(dir.path()).args(args).stdin(Stdio::null());
        let output = command.output().expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, shown, _) = kiln(&["doctor", "run"]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("\nlr_too_low: ") && shown.contains("\nnext: kiln train run/recipe.toml --set optim.lr="),
        "{shown}"
    );
    let (_, json, _) = kiln(&["doctor", "run", "--json"]);
    let report: Value = serde_json::from_str(&json).expect("one object");
    assert_eq!(report["findings"][0]["kind"], "lr_too_low");
    // The command that it names is one that works.
    let next = shown.lines().last().and_then(|line| line.strip_prefix("next: kiln ")).expect("a command");
    let plan: Vec<&str> = next.split(' ').chain(["--plan"]).collect();
    assert_eq!(kiln(&plan).0, Some(0), "{next}");
    // A run whose tokens are gone is judged by what is left.
    std::fs::remove_dir_all(path.join("data")).expect("removed");
    let (code, shown, _) = kiln(&["doctor", "run"]);
    assert!(code == Some(0) && shown.contains("not looked at\n  the data and the model: "), "{shown}");
    let (code, _, error) = kiln(&["doctor", "nowhere"]);
    assert!(code == Some(1) && error.contains("no run is here") && error.contains("hint: "), "{error}");
}

#[test]
fn judging_a_step_allocates_nothing() {
    let terms = Terms { lr: 1e-3, warmup: 10, steps: 1000, clips: true, falls: true, fresh: true };
    let mut course = Course::new(terms);
    let loss = |step: u64| 2.0 + 5.0 * (-(step as f32) / 50.0).exp() + 0.01 * (step % 7) as f32;
    let count =
        crate::alloc::allocations(|| (1..1000).for_each(|step| assert_eq!(course.step(step, loss(step)), None)));
    assert_eq!(count, 0);
}
