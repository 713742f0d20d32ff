//! Private training: what a run tells and what not, that its account holds whatever befalls it, and what it refuses.

use crate::watch::StopAfter;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::error::Error;
use kiln::measure::privacy::{Mechanism, epsilon};
use kiln::train::tune::TUNE;
use kiln::train::{AnyRecipe, Origin, Recipe, Summary, Watch, checkpoint, metrics, train};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn device() -> Device {
    Device::cpu(2).expect("a CPU")
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("UTF-8"))
}

/// A private run on a small village: bytes, one block.
fn text(dir: &Path, more: &[&str]) -> Recipe {
    let small = "run.name=text model.layers=1 model.heads=2 model.d=16 data.tokenizer=byte data.bytes=20000 train.batch=4 \
                 train.context=16 train.steps=24 train.checkpoint_every=6 train.eval_every=12 train.sample_every=0 \
                 optim.warmup=2 eval.max_batches=2 train.keep=99";
    let mut set = vec![format!("run.dir={}", quoted(dir))];
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    Recipe::load(None, &set).expect("a valid recipe")
}

/// A model that has seen a village for a moment.
fn base() -> &'static Path {
    static BASE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &BASE
        .get_or_init(|| {
            let dir = tempfile::tempdir().expect("a folder");
            let recipe = text(dir.path(), &["train.context=64", "train.steps=10", "model.kind=llama"]);
            let run = train(&recipe, None, &device(), &mut ()).expect("a run").run;
            (dir, run)
        })
        .1
}

/// Questions with answers.
fn examples(dir: &Path) -> PathBuf {
    let line = |i: usize| {
        let name = ["Ann", "Bob", "Cid"][i % 3];
        format!("{{\"prompt\": \"Who is {i}?\", \"completion\": \" {name} is it{}\"}}\n", ".".repeat(i % 7))
    };
    let path = dir.join("who.jsonl");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).expect("written");
    path
}

/// The settings of a private tuning.
fn tuning(dir: &Path, more: &[&str]) -> Vec<String> {
    let mut set = vec![
        format!("run.dir={}", quoted(dir)),
        format!("model.base={}", quoted(base())),
        format!("data.path={}", quoted(&examples(dir))),
    ];
    let small = "run.name=tune model.rank=2 optim.lr=1e-2 optim.warmup=1 train.batch=4 train.steps=24 \
                 train.checkpoint_every=6 train.eval_every=12 train.keep=99 data.val_fraction=0.2 data.packing=false";
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    set
}

/// A private tuning.
fn tuned(dir: &Path, more: &[&str], watch: &mut dyn Watch) -> Summary {
    let recipe = AnyRecipe::load(None, TUNE, &tuning(dir, more)).expect("a recipe");
    recipe.run(&Os, None, &device(), watch).expect("a run")
}

fn resume(run: &Path, set: &[&str]) -> Result<Summary, Error> {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    AnyRecipe::of_run(run, &set)?.run(&Os, Some(run), &device(), &mut ())
}

/// What a step left behind: weights and moments.
fn bytes(run: &Path, step: u64) -> Vec<Vec<u8>> {
    let dir = run.join(format!("checkpoints/step-{step:06}"));
    let files = [checkpoint::MODEL, "adapter_model.safetensors", checkpoint::OPTIM];
    files.iter().filter_map(|file| std::fs::read(dir.join(file)).ok()).collect()
}

fn account(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("privacy.json")).expect("an account");
    serde_json::from_str(&text).expect("JSON")
}

/// The steps that the account of a run counts.
fn counted(run: &Path) -> u64 {
    let spent = account(run)["spent"].clone();
    spent.as_array().expect("a list").iter().map(|part| part["steps"].as_u64().expect("a count")).sum()
}

#[test]
fn a_private_run_says_what_it_spent_and_nothing_of_its_examples() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = tuned(dir.path(), &["optim.dp.epsilon=6"], &mut ());
    let promise = run.privacy.expect("it is private");
    let [part] = promise.spent[..] else { panic!("{:?}", promise.spent) };
    let n = promise.examples;
    assert!(n > 35 && n < 60, "those held out are none of them: {n}");
    assert_eq!((part.steps, part.rate, promise.delta), (24, 4.0 / n as f64, (n as f64).powf(-1.1)));
    let of = |steps| epsilon(&Mechanism { rate: part.rate, noise: part.noise }, steps, promise.delta);
    assert_eq!(promise.epsilon, of(24));
    assert!(promise.epsilon <= 6.0 && promise.epsilon > 5.999, "{}", promise.epsilon);
    assert!(promise.guarantee.contains("-differential privacy for each example, a line"), "{}", promise.guarantee);
    // The same on disk, and what was spent by each evaluation.
    assert_eq!(account(&run.run)["epsilon"].as_f64(), Some(promise.epsilon));
    assert_eq!(account(&run.run)["guarantee"].as_str(), Some(&*promise.guarantee));
    let records = metrics::read(&Os, &run.run.join("metrics.jsonl")).expect("metrics");
    let told: Vec<(u64, f64)> =
        records.iter().filter_map(|r| Some((r.step, r.more.get("dp_epsilon").copied()?))).collect();
    assert_eq!(told, [(12, of(12)), (24, of(24))]);
    // No loss, and no norm but that of what is private.
    assert!(run.loss.is_nan() && records.iter().all(|record| record.loss.is_nan()));
    let known = ["tokens_per_s", "val_before", "dp_epsilon"];
    let names = records.iter().flat_map(|record| record.more.keys());
    assert_eq!(names.filter(|name| !known.contains(&name.as_str())).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(run.val_loss.is_some_and(f64::is_finite));
    // What is not private is told to who asks, under a name that says so.
    let run = tuned(dir.path(), &["optim.dp.noise=1", "optim.dp.clip=0.01", "optim.dp.diagnostics=true"], &mut ());
    let records = metrics::read(&Os, &run.run.join("metrics.jsonl")).expect("metrics");
    let all = ["not_private_loss", "not_private_clipped", "not_private_median_norm"];
    assert!(all.iter().all(|name| records.iter().any(|record| record.more[*name] > 0.0)));
    assert!(records.iter().all(|record| record.loss.is_nan()), "no decision hangs on it");
}

#[test]
fn a_plan_promises_what_the_run_will() {
    let dir = tempfile::tempdir().expect("a folder");
    let epsilon = "optim.dp.epsilon=6";
    let of = |recipe: &AnyRecipe, run: Option<&Path>| recipe.promise(run, &mut |_, _, _| {}).expect("a plan");
    let tune = AnyRecipe::load(None, TUNE, &tuning(dir.path(), &[epsilon])).expect("a recipe");
    for recipe in [tune, AnyRecipe::Text(text(dir.path(), &[epsilon]))] {
        let planned = of(&recipe, None).expect("it is private");
        let first = recipe.run(&Os, None, &device(), &mut StopAfter::new(12)).expect("a run");
        assert_eq!((first.stopped, counted(&first.run)), (Some(15), 12));
        // The steps that are left, on top of those that were done.
        assert_eq!(of(&AnyRecipe::of_run(&first.run, &[]).expect("a recipe"), Some(&first.run)), Some(planned.clone()));
        assert_eq!(resume(&first.run, &[]).expect("it goes on").privacy, Some(planned));
    }
    let plain = text(dir.path(), &[]);
    assert_eq!(of(&AnyRecipe::Text(plain), None), None);
    // As people and scripts read it.
    let recipe = AnyRecipe::Text(text(dir.path(), &["optim.dp.noise=0.8", "optim.dp.delta=1e-4", "run.name=shown"]));
    let file = dir.path().join("recipe.toml");
    std::fs::write(&file, recipe.to_toml()).expect("written");
    let plan = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
        let output = command.arg("train").arg(&file).arg("--plan").args(more).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let planned = of(&recipe, None).expect("it is private");
    let said = plan(&[]);
    assert!(said.contains("memory  ") && said.contains("adds noise of 0.800 times that"), "{said}");
    assert!(said.contains(&planned.guarantee) && said.contains(", 1.00e-4)-differential privacy"), "{said}");
    let json: Value = serde_json::from_str(&plan(&["--json"])).expect("one object");
    let privacy = &json["privacy"];
    assert_eq!(privacy["epsilon"].as_f64(), Some(planned.epsilon));
    assert_eq!((privacy["delta"].as_f64(), privacy["spent"][0]["noise"].as_f64()), (Some(1e-4), Some(0.8)));
    assert!(!dir.path().join("shown").exists(), "a plan is no run");
}

#[test]
fn noise_is_new_each_time_unless_it_is_to_be_reproducible_and_then_nothing_is_promised() {
    let dir = tempfile::tempdir().expect("a folder");
    let noise = "optim.dp.noise=0.7";
    let [a, b] = [(); 2].map(|()| tuned(dir.path(), &[noise], &mut ()));
    assert_ne!(bytes(&a.run, 24), bytes(&b.run, 24));
    for method in [&["model.dropout=0.1"][..], &["model.method=full", "optim.lr=5e-3"]] {
        let same = [&[noise, "optim.dp.reproducible=true"], method].concat();
        let [a, b] = [(); 2].map(|()| tuned(dir.path(), &same, &mut ()));
        let found = bytes(&a.run, 24);
        assert!(found.len() == 2 && found == bytes(&b.run, 24));
        let promise = a.privacy.expect("it is accounted for");
        assert!(promise.epsilon.is_infinite());
        assert!(promise.guarantee.starts_with("no privacy: the noise can be computed from the seed"), "{promise:?}");
        // Stopped between two checkpoints, and taken up again.
        let stopped = tuned(dir.path(), &same, &mut StopAfter::new(10));
        assert_eq!((stopped.stopped, counted(&stopped.run)), (Some(15), 10));
        let resumed = resume(&stopped.run, &[]).expect("it goes on");
        assert_eq!(bytes(&resumed.run, 24), found);
        assert_eq!(counted(&resumed.run), 24);
    }
    // Without noise nothing is promised either.
    let promise = tuned(dir.path(), &["optim.dp.noise=0"], &mut ()).privacy.expect("it is accounted for");
    assert_eq!(
        (promise.epsilon, &*promise.guarantee),
        (f64::INFINITY, "no privacy: there is no noise (optim.dp.noise)")
    );
}

#[test]
fn with_little_noise_a_private_model_learns() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = text(
        dir.path(),
        &["optim.dp.noise=0.05", "optim.dp.reproducible=true", "optim.lr=1e-2", "train.steps=60", "train.batch=8"],
    );
    let device = device();
    let run = train(&recipe, None, &device, &mut ()).expect("a run");
    let loss = run.val_loss.expect("it was evaluated");
    assert!(loss < 256f64.ln() - 1.5, "{loss}");
    let promise = run.privacy.expect("it is accounted for");
    assert_eq!(promise.unit, "row of train.context + 1 tokens");
    // What the plan said is what it took: sums of gradients included.
    assert_eq!(device.mapped_bytes().iter().sum::<usize>(), run.memory.total);
}

#[test]
fn steps_that_were_lost_count_as_well_and_an_account_that_is_lost_ends_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = tuned(dir.path(), &["optim.dp.epsilon=6"], &mut ()).run;
    // As if a machine had died before a checkpoint after step 12 stood.
    for step in [18, 24] {
        std::fs::remove_dir_all(run.join(format!("checkpoints/step-{step:06}"))).expect("removed");
    }
    let mut told = Told::default();
    let recipe = AnyRecipe::of_run(&run, &[]).expect("the run's recipe");
    let again = recipe.run(&Os, Some(&run), &device(), &mut told).expect("it goes on");
    assert_eq!((again.steps, counted(&run)), (24, 36));
    let promise = again.privacy.expect("it is private");
    let part = promise.spent[0];
    assert_eq!(promise.epsilon, epsilon(&Mechanism { rate: part.rate, noise: part.noise }, 36, promise.delta));
    assert!(promise.epsilon > 6.5, "{}", promise.epsilon);
    assert!(told.0.iter().any(|text| text.contains("and 6 was asked for")), "{:?}", told.0);
    // A process that dies leaves a count that is not too low: it is raised before steps are done.
    let dead = tempfile::tempdir().expect("a folder");
    let mut seen = Vec::new();
    let recipe = AnyRecipe::load(None, TUNE, &tuning(dead.path(), &["optim.dp.noise=1", "train.steps=300"])).unwrap();
    let mut spy = Spy { run: dead.path().join("tune"), seen: &mut seen };
    recipe.run(&Os, None, &device(), &mut spy).expect("a run");
    assert_eq!(seen.len(), 40);
    assert!(seen.iter().all(|&(step, counted)| counted >= step && counted < step + 3), "{seen:?}");
    // Without the account, or with one of fewer steps, nobody knows.
    let path = run.join("privacy.json");
    let text = std::fs::read_to_string(&path).expect("it is there");
    for wrong in
        [None, Some("{"), Some("{\"spent\": []}"), Some("{\"spent\": [{\"steps\": 99, \"rate\": -1, \"noise\": 1}]}")]
    {
        match wrong {
            None => std::fs::remove_file(&path).expect("removed"),
            Some(text) => std::fs::write(&path, text).expect("written"),
        }
        let e = resume(&run, &[]).expect_err("the account is lost");
        assert!(e.to_string().contains("privacy.json"), "{e}");
        assert!(e.hint().is_some_and(|hint| hint.contains("nobody knows what the run has spent")), "{e:?}");
    }
    std::fs::write(&path, text).expect("written");
    resume(&run, &[]).expect("there is nothing left to do");
}

/// Remembers warnings.
#[derive(Default)]
struct Told(Vec<String>);

impl Watch for Told {
    fn event(&mut self, event: &kiln::train::Event) {
        if let kiln::train::Event::Warning { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

/// Compares the steps done with those that the account counts, and stops after 40.
struct Spy<'a> {
    run: PathBuf,
    seen: &'a mut Vec<(u64, u64)>,
}

impl Watch for Spy<'_> {
    fn event(&mut self, event: &kiln::train::Event) {
        if let kiln::train::Event::Step { step, .. } = event {
            self.seen.push((*step, counted(&self.run)));
        }
    }
    fn stop(&self) -> Option<i32> {
        (self.seen.len() >= 40).then_some(15)
    }
}

/// The message and the hint of what a recipe for text is refused with.
#[track_caller]
fn refused(found: Result<AnyRecipe, Error>) -> (String, String) {
    let e = found.and_then(|recipe| recipe.run(&Os, None, &device(), &mut ())).expect_err("it is refused");
    assert_eq!(e.exit_code(), 2, "{e}");
    (e.to_string(), e.hint().unwrap_or_default().to_owned())
}

#[test]
fn what_cannot_be_private_is_refused_by_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let with = |more: &[&str]| refused(AnyRecipe::load(None, TUNE, &tuning(dir.path(), more))).0;
    let noise = "optim.dp.noise=1";
    let general = format!("data.replay={}", quoted(&examples(dir.path())));
    for (more, expected) in [
        (&[noise, "data.packing=true"][..], "data.packing: the gradient of each example is clipped alone"),
        (&[noise, &general], "data.replay: batches are drawn from the private examples alone"),
        (&[noise, "train.batch=40", "train.accumulate=2"], "train.batch: 80 examples a step"),
        (&[noise, "optim.dp.epsilon=3"], "optim.dp.epsilon: the noise follows from it"),
        (&["optim.dp.clip=1"], "optim.dp.epsilon: neither it nor optim.dp.noise is given"),
        (&["optim.dp.epsilon=1e-6", "optim.dp.delta=1e-9"], "optim.dp.epsilon: no noise is shown to give 0.000001"),
        (&["optim.dp.epsilon=-1"], "optim.dp.epsilon: -1 is out of range"),
        (&["optim.dp.noise=nan"], "optim.dp.noise: NaN is out of range"),
        (&[noise, "optim.dp.clip=0"], "optim.dp.clip: 0 is out of range"),
        (&[noise, "optim.dp.delta=1"], "optim.dp.delta: 1 is out of range"),
        (&[noise, "optim.dp.clip=high"], "optim.dp.clip: expected a number, found string \"high\""),
        (&["optim.dp.nose=1"], "optim.dp.nose: no such key"),
        (&["optim.dp=1"], "optim.dp: expected a section, found integer 1"),
    ] {
        let found = with(more);
        assert!(found.starts_with(expected), "{more:?}: {found}");
    }
    // A line is what is hidden, so it must be one example.
    let long = dir.path().join("long.jsonl");
    let line = |i: usize| format!("{{\"text\": \"{}\"}}\n", format!("A long story of {i}. ").repeat(30));
    std::fs::write(&long, (0..12).map(line).collect::<String>()).expect("written");
    let found = with(&[noise, &format!("data.path={}", quoted(&long)), "data.val_fraction=0.4"]);
    assert!(found.contains("train.context: ") && found.contains("long.jsonl, line "), "{found}");
    // Of text: what the tokenizer has seen is in the model.
    let of_text =
        |more: &[&str]| refused(AnyRecipe::load(None, "", &more.iter().map(|s| s.to_string()).collect::<Vec<_>>()));
    let run = format!("run.dir={}", quoted(dir.path()));
    let (found, hint) = of_text(&[&run, noise, "data.bytes=20000"]);
    assert!(found.starts_with("data.tokenizer: ") && hint.contains("\"byte\""), "{found}: {hint}");
    let (_, hint) = of_text(&["optim.dp.nose=1"]);
    assert_eq!(hint, "did you mean optim.dp.noise?");
    let pictures = AnyRecipe::load(None, kiln::train::pictures::vae::CONV, &[noise.to_owned()]);
    assert!(pictures.expect_err("pictures have no such key").to_string().starts_with("optim.dp.noise: no such key"));
    // Nothing of it began.
    assert!(!dir.path().join("tune").exists() && !dir.path().join("village").exists());
}

#[test]
fn a_run_that_goes_on_keeps_its_settings_and_has_no_branches() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = tuned(dir.path(), &["optim.dp.epsilon=6"], &mut StopAfter::new(12)).run;
    for (set, expected) in [
        ("optim.dp.epsilon=9", "optim.dp: a private run that goes on keeps its {"),
        ("optim.dp.reproducible=true", "optim.dp: a private run that goes on keeps its {"),
        ("train.steps=30", "train.steps: a private run that goes on keeps its 24"),
    ] {
        let e = resume(&run, &[set]).expect_err(set).to_string();
        assert!(e.starts_with(expected), "{set}: {e}");
    }
    let origin = Origin::find(&run).expect("a checkpoint");
    let e = AnyRecipe::of_branch(&origin, &["train.steps=30".into()]).expect_err("no branch").to_string();
    assert!(e.starts_with("optim.dp: a branch of a private run"), "{e}");
    // An ordinary run does not become a private one.
    let plain = tuned(dir.path(), &[], &mut StopAfter::new(2)).run;
    let e = resume(&plain, &["optim.dp.noise=1"]).expect_err("it was not private").to_string();
    assert!(e.starts_with("optim.dp: a private run that goes on keeps its absence"), "{e}");
    assert!(!plain.join("privacy.json").exists());
}
