//! Branches: several decays from one trunk, each the run that its recipe describes, to the last bit.

use crate::watch::Until;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::error::Error;
use kiln::train::{AnyRecipe, Origin, Recipe, checkpoint, metrics, train};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small run that decays in its last steps.
fn recipe(dir: &Path, name: &str, more: &[&str]) -> Recipe {
    let small = "model.layers=1 model.heads=2 model.d=16 data.tokenizer=byte data.bytes=30000 train.batch=2 train.context=16 \
                 train.checkpoint_every=10 train.eval_every=10 train.sample_every=0 train.keep=99 eval.max_batches=2 \
                 optim.schedule=wsd optim.warmup=3 optim.decay_steps=10 train.steps=60";
    let mut set = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path")), format!("run.name={name}")];
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    Recipe::load(None, &set).expect("a valid recipe")
}

fn device() -> Device {
    Device::cpu(1).expect("a CPU")
}

/// A line of metrics in bits: step, loss, learning rate, norm of the gradient, validation loss.
type Line = (u64, u32, u64, u64, Option<u64>);

/// What a run computed: the files of a checkpoint, and each step's line but for how fast it was.
fn computed(run: &Path, step: u64) -> (Vec<Vec<u8>>, Vec<Line>) {
    let folder = run.join(format!("checkpoints/step-{step:06}"));
    let files = [checkpoint::MODEL, checkpoint::OPTIM].map(|file| std::fs::read(folder.join(file)).expect("a file"));
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    let bits = records
        .iter()
        .map(|r| (r.step, r.loss.to_bits(), r.lr.to_bits(), r.grad_norm.to_bits(), r.val_loss.map(f64::to_bits)));
    (files.to_vec(), bits.collect())
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).expect("a file"))),
        }
    }
    all
}

fn at(trunk: &Path, step: u64) -> Origin {
    Origin::find(Path::new(&format!("{}@{step}", trunk.display()))).expect("a checkpoint")
}

/// Begins a branch, and gives its directory and its recipe.
fn begin(origin: &Origin, set: &[&str]) -> (PathBuf, Recipe) {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    let recipe = AnyRecipe::of_branch(origin, &set).expect("a recipe");
    let run = recipe.begin(origin).expect("a branch");
    let AnyRecipe::Text(recipe) = recipe else { panic!("it is of text") };
    (run, recipe)
}

#[test]
fn decays_from_one_trunk_have_the_bits_of_runs_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = train(&recipe(dir.path(), "trunk", &[]), None, &device(), &mut ()).unwrap().run;
    let before = contents(&trunk);
    for (step, steps, decay) in [(20, 34, 8), (40, 45, 3)] {
        let (steps, decay) = (format!("train.steps={steps}"), format!("optim.decay_steps={decay}"));
        let whole = train(&recipe(dir.path(), "whole", &[&steps, &decay]), None, &device(), &mut ()).unwrap();
        let (run, recipe) = begin(&at(&trunk, step), &[&steps, &decay]);
        assert!(run.ends_with(format!("trunk-from-{step}")));
        let done = train(&recipe, Some(&run), &device(), &mut ()).unwrap();
        assert_eq!((done.steps, done.val_loss), (whole.steps, whole.val_loss));
        assert!(computed(&run, done.steps) == computed(&whole.run, done.steps), "from step {step}");
        let from: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("branch.json")).unwrap()).unwrap();
        assert_eq!((&from["step"], from["trunk"].as_str()), (&step.into(), trunk.to_str()));
    }
    assert!(contents(&trunk) == before, "the trunk is as it was");
}

#[test]
fn a_branch_stands_by_itself_and_can_be_paused_and_branched() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = train(&recipe(dir.path(), "trunk", &[]), None, &device(), &mut Until(30)).unwrap().run;
    let whole = train(&recipe(dir.path(), "whole", &["train.steps=44"]), None, &device(), &mut ()).unwrap().run;
    // The newest checkpoint, where no step is named.
    let origin = Origin::find(&trunk).unwrap();
    assert_eq!(origin.step, 30);
    let (run, recipe) = begin(&origin, &["train.steps=44", "run.name=mine"]);
    std::fs::remove_dir_all(&trunk).unwrap();
    assert_eq!(train(&recipe, Some(&run), &device(), &mut Until(32)).unwrap().steps, 32);
    let (again, recipe) = begin(&Origin::find(&run).unwrap(), &["run.name=again"]);
    for (run, recipe) in [(run.clone(), Recipe::of_run(&run, &[]).unwrap()), (again, recipe)] {
        train(&recipe, Some(&run), &device(), &mut ()).unwrap();
        // Where it paused it was evaluated, so lines differ there.
        assert!(computed(&run, 44).0 == computed(&whole, 44).0, "{}", run.display());
    }
}

#[test]
fn what_the_steps_so_far_hang_on_cannot_be_set() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = train(&recipe(dir.path(), "trunk", &[]), None, &device(), &mut Until(30)).unwrap().run;
    let error = |step: u64, set: &[&str]| -> (String, String) {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        let error = AnyRecipe::of_branch(&at(&trunk, step), &set).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    };
    for set in ["model.d=32", "data.seed=2", "train.batch=4", "train.seed=3", "optim.beta1=0.5", "guard.max_rewinds=1"]
    {
        let (problem, hint) = error(20, &[set]);
        let key = set.split('=').next().unwrap();
        assert!(problem.starts_with(key) && problem.contains("the 20 steps so far"), "{problem}");
        assert!(hint.contains("without --branch"), "{hint}");
    }
    let (problem, _) = error(20, &["train.steps=20"]);
    assert!(problem.contains("train.steps: the branch begins after step 20"), "{problem}");
    let (problem, hint) = error(20, &["train.steps=24", "optim.decay_steps=8"]);
    assert!(problem.starts_with("optim.decay_steps: step 17 would have a learning rate of"), "{problem}");
    assert!(hint.contains("train.steps=28"), "{hint}");
    AnyRecipe::of_branch(&at(&trunk, 20), &["train.steps=28".into(), "optim.decay_steps=8".into()]).unwrap();
    let (problem, hint) = error(20, &["optim.schedule=cosine"]);
    assert!(problem.starts_with("optim.schedule: step 5 ") && hint.contains("wsd"), "{problem} {hint}");
    // What the trunk's steps were done with counts, not what its recipe says now.
    let path = trunk.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"lr\":0.004", "\"lr\":0.003", 1)).unwrap();
    let (problem, _) = error(20, &["train.steps=40"]);
    assert!(problem.contains("step 4 would have a learning rate of 4e-3, and had 3e-3"), "{problem}");
}

#[test]
fn the_program_branches_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let trunk = train(&recipe(&dir.path().join("runs"), "trunk", &[]), None, &device(), &mut Until(20)).unwrap().run;
    let kiln = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let args = [&["train", "--json", "--threads", "1"], args].concat();
        command.current_dir(dir.path()).args(args).stdin(Stdio::null()).output().expect("it starts")
    };
    let done = kiln(&["--branch", "runs/trunk@10", "--set", "train.steps=21"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(summary["steps"], 21);
    assert!(summary["run"].as_str().unwrap().ends_with("trunk-from-10"), "{summary}");

    let model = trunk.join("checkpoints/step-000020").join(checkpoint::MODEL);
    std::fs::write(&model, "damaged").unwrap();
    let before = contents(&dir.path().join("runs"));
    let cases: [(&[&str], i32, &str, &str); 4] = [
        (&["--branch", "runs/trunk@15"], 1, "there is no checkpoint of step 15", "10, 20"),
        (&["--branch", "runs/trunk@20"], 1, "model.safetensors: checksum", "an older one"),
        (&["--branch", "runs/nothing"], 1, "there is no checkpoint here", "give a run"),
        (&["--branch", "runs/trunk@10", "--set", "train.seed=9"], 2, "train.seed", "leave it out"),
    ];
    for (args, code, problem, hint) in cases {
        let output = kiln(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(problem) && said.contains(hint), "{args:?}: {said}");
    }
    assert!(contents(&dir.path().join("runs")) == before, "a refused branch leaves nothing");
}
