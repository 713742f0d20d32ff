//! Learning from rewards: runs of GRPO and PPO on a model that has read a village for a moment.

use crate::tune::{base, device, losses};
use crate::watch::StopAfter;
use kiln::disk::Os;
use kiln::error::Error;
use kiln::train::rl::Rows;
use kiln::train::sampler::model;
use kiln::train::tune::REINFORCE;
use kiln::train::{AnyRecipe, Event, Summary, Watch, checkpoint, metrics};
use std::path::{Path, PathBuf};

/// Questions, of which it does not matter what is right.
fn prompts(dir: &Path) -> PathBuf {
    let line = |i: usize| format!("{{\"prompt\": \"Who is number {i}?\", \"answer\": \"Ann\"}}\n");
    let path = dir.join("prompts.jsonl");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).expect("written");
    path
}

fn recipe(dir: &Path, more: &[&str]) -> Result<AnyRecipe, Error> {
    let data = format!("data.path={:?}", prompts(dir).to_str().expect("UTF-8"));
    without_data(dir, &[&[data.as_str()], more].concat())
}

fn without_data(dir: &Path, more: &[&str]) -> Result<AnyRecipe, Error> {
    let path = |path: &Path| format!("{:?}", path.to_str().expect("UTF-8"));
    let mut set = vec![
        format!("run.dir={}", path(dir)),
        format!("model.base={}", path(base())),
        // An answer without the letters e and a.
        "model.reinforce.rewards={ format = 1.0 }".to_owned(),
        "model.reinforce.format=[^ea]*".to_owned(),
    ];
    let small = "model.method=full optim.lr=3e-3 optim.warmup=1 train.batch=8 train.accumulate=2 train.steps=8 \
                 train.checkpoint_every=4 data.val_fraction=0.2 sample.count=1 model.reinforce.tokens=4";
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    AnyRecipe::load(None, REINFORCE, &set)
}

fn learnt(dir: &Path, more: &[&str], watch: &mut dyn Watch) -> Summary {
    recipe(dir, more).expect("a recipe").run(&Os, None, &device(), watch).expect("a run")
}

/// A number of each step.
fn course(run: &Path, key: &str) -> Vec<f64> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    records.iter().filter_map(|record| record.more.get(key).copied()).collect()
}

/// A number of the last evaluation.
fn last(run: &Path, key: &str) -> f64 {
    *course(run, key).last().unwrap_or_else(|| panic!("{key} is not told"))
}

#[test]
fn what_is_worth_more_is_said_more_and_nothing_is_learnt_by_chance() {
    let dir = tempfile::tempdir().expect("a folder");
    let grpo: &[&str] = &["train.steps=30"];
    let ppo: &[&str] =
        &["train.steps=30", "model.reinforce.method=ppo", "model.reinforce.updates=2", "model.reinforce.kl=0.01"];
    for more in [grpo, ppo] {
        let run = learnt(dir.path(), more, &mut ()).run;
        let [before, after, best] = ["val_before", "val_reward", "val_best_of_start"].map(|key| last(&run, key));
        assert!(before < 0.75 && after > before + 0.2 && best >= before, "{more:?}: {before}, {after}, {best}");
        // The reward of steps tells the same, and the model can be opened.
        let rewards = course(&run, "reward");
        let [early, late] = [0..6, 24..30].map(|steps| rewards[steps].iter().sum::<f64>() / 6.0);
        assert!(late > early + 0.15, "{more:?}: {rewards:?}");
        model(&run).expect("a model");
    }
    let random = ["train.steps=30", "model.reinforce.rewards={ random = 1.0 }"];
    let run = learnt(dir.path(), &random, &mut ()).run;
    let found = course(&run, "reward");
    let mean = found[20..].iter().sum::<f64>() / 10.0;
    assert!((0.3..0.7).contains(&mean), "{found:?}");
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit_wherever_it_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let all: [&[&str]; 4] = [
        &["model.reinforce.kl=0.1"],
        &["model.reinforce.updates=3", "model.method=lora", "train.sample_every=4", "model.reinforce.loss=grpo"],
        &["model.reinforce.method=ppo", "model.reinforce.target_kl=0.1"],
        &["model.reinforce.method=ppo", "model.reinforce.updates=3", "model.method=lora"],
    ];
    for more in all {
        let whole = learnt(dir.path(), more, &mut ());
        let expected = (losses(&whole.run), course(&whole.run, "reward"), last(&whole.run, "val_reward"));
        assert_eq!(expected.0.len(), 8);
        // In the middle of an iteration of three steps, and at the end of one.
        for at in [5, 6] {
            let stopped = learnt(dir.path(), more, &mut StopAfter::new(at));
            // What a process that was killed after its last checkpoint has begun is done again.
            let recipe = AnyRecipe::of_run(&stopped.run, &[]).expect("the run's recipe");
            let resumed = recipe.run(&Os, Some(&stopped.run), &device(), &mut ()).expect("the run goes on").run;
            let found = (losses(&resumed), course(&resumed, "reward"), last(&resumed, "val_reward"));
            assert_eq!(found, expected, "{more:?} after {at}");
        }
        // Files of answers go when nothing needs them.
        let left = std::fs::read_dir(whole.run.join("rollouts")).expect("a folder").count();
        assert!((2..=4).contains(&left), "{more:?}: {left}");
    }
}

#[test]
fn one_times_sixteen_is_sixteen_times_one() {
    let dir = tempfile::tempdir().expect("a folder");
    for more in [&["model.reinforce.loss=grpo"][..], &["model.reinforce.method=ppo", "model.reinforce.loss=dr"]] {
        let of = |size: &[&str]| {
            let steps = ["train.steps=2", "model.reinforce.updates=2", "model.reinforce.kl=0.1"];
            let run = learnt(dir.path(), &[&steps, more, size].concat(), &mut ()).run;
            (losses(&run), course(&run, "entropy"), course(&run, "reward"))
        };
        let wide = of(&["train.batch=16", "train.accumulate=1"]);
        let deep = of(&["train.batch=1", "train.accumulate=16"]);
        assert_eq!(wide.2, deep.2, "the same answers");
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{wide:?} and {deep:?}");
        wide.0.iter().zip(&deep.0).for_each(|(&a, &b)| near(a.into(), b.into()));
        wide.1.iter().zip(&deep.1).for_each(|(&a, &b)| near(a, b));
        assert!(wide.0[1] != wide.0[0], "{wide:?}");
    }
}

/// Keeps what is warned of.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Watch for Warnings {
    fn event(&mut self, event: &Event) {
        if let Event::Warning { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

#[test]
fn answers_that_are_all_worth_the_same_change_no_weight_and_it_is_said_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let same = ["train.steps=2", "model.reinforce.rewards={ polite = 1.0 }", "model.reinforce.tokens=2"];
    let mut warnings = Warnings::default();
    let run = learnt(dir.path(), &same, &mut warnings).run;
    assert_eq!((course(&run, "frac_reward_zero_std"), losses(&run)), (vec![1.0; 2], vec![0.0; 2]));
    let weights = |run: &Path| {
        let (path, _) = checkpoint::find(&Os, run).expect("a checkpoint");
        let mut file = kiln::formats::tensors::Reader::open(&Os, &path.join("model.safetensors")).expect("weights");
        let (shape, name) = ([32], "model.norm.weight");
        let mut x = vec![0.0; 32];
        file.read(name, &shape, false, &mut x).expect("a tensor");
        (x, std::fs::read(path.join("model.safetensors")).expect("bytes"))
    };
    assert!(weights(&run) == weights(base()), "weights have changed");
    for named in ["model.reinforce.tokens", "model.reinforce.group", "look at the reward"] {
        assert_eq!(warnings.0.iter().filter(|text| text.contains(named)).count(), 1, "{named}: {:?}", warnings.0);
    }
}

/// An agent that acts in a place of its own.
fn acts(dir: &Path, more: &[&str], watch: &mut dyn Watch) -> Result<Summary, Error> {
    let place = "[environment]\nname = \"hall\"\nstart = \"hall\"\ngoal = \"Go.\"\nsuccess = [\"out\"]\n\n[[tool]]\n\
                 name = \"go\"\ndescription = \"Leave\"\narguments = {}\n\n[[rule]]\nin = \"hall\"\ncall = \"go\"\nthen = \"out\"\nsays = \"So.\"\n";
    std::fs::write(dir.join("hall.toml"), place).expect("written");
    let environment = dir.join("hall.toml");
    let agent = format!(
        "model.reinforce.agent={{ environment = {:?}, tasks = 20, held_out = 8, turns = 2 }}",
        environment.to_str().expect("UTF-8")
    );
    let set = [&["model.reinforce.rewards={ random = 1.0 }", agent.as_str(), "train.context=64"], more].concat();
    without_data(dir, &set)?.run(&Os, None, &device(), watch)
}

#[test]
fn an_agent_goes_on_bit_for_bit_and_learns_nothing_of_what_tools_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = acts(dir.path(), &[], &mut ()).expect("a run").run;
    let expected = (losses(&whole), course(&whole, "reward"), last(&whole, "val_reward"));
    assert_eq!(expected.0.len(), 8);
    // Two messages of four tokens at most; what is told between them is about twenty.
    let lengths = course(&whole, "completions/mean_length");
    assert!(lengths.iter().all(|length| (1.0..=8.0).contains(length)), "{lengths:?}");
    assert_eq!([last(&whole, "val_success"), last(&whole, "val_breaches")], [0.0; 2]);
    let stopped = acts(dir.path(), &[], &mut StopAfter::new(6)).expect("a run").run;
    let recipe = AnyRecipe::of_run(&stopped, &[]).expect("the run's recipe");
    let resumed = recipe.run(&Os, Some(&stopped), &device(), &mut ()).expect("the run goes on").run;
    assert_eq!((losses(&resumed), course(&resumed, "reward"), last(&resumed, "val_reward")), expected);
}

#[test]
fn rewards_of_answers_are_none_of_agents() {
    let dir = tempfile::tempdir().expect("a folder");
    for (set, named) in [
        ("model.reinforce.rewards={ exact = 1.0 }", "success"),
        ("model.reinforce.method=ppo", "model.reinforce.method"),
        ("model.reinforce.agent.environment=\"vilage\"", "did you mean village"),
        ("model.reinforce.agent.turns=0", "model.reinforce.agent.turns"),
        ("model.reinforce.agent.curriculum=2", "model.reinforce.agent.curriculum"),
        ("train.context=8", "train.context"),
    ] {
        let error = acts(dir.path(), &[set], &mut ()).map(|_| ()).expect_err(set);
        let said = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(said.contains(named), "{set}: {said}");
    }
    // Nobody does an errand of the village in two turns.
    let errands = ["model.reinforce.agent.environment=\"village\"", "model.reinforce.agent.curriculum=0.5"];
    let said = acts(dir.path(), &errands, &mut ()).map(|_| ()).expect_err("no order of tasks").to_string();
    assert!(said.contains("model.reinforce.agent.curriculum") && said.contains("planner"), "{said}");
    let said = recipe(dir.path(), &["model.reinforce.rewards={ success = 1.0 }"]).map(|_| ()).expect_err("no agent");
    assert!(said.to_string().contains("model.reinforce.rewards.success"), "{said}");
}

#[test]
fn what_is_not_said_weighs_nothing() {
    let mut rows = Rows::of(5, &[(&[7, 8], &[1, 2, 3]), (&[9], &[4])]);
    rows.disown(&[vec![true, false, true], vec![true]]);
    assert_eq!(rows.own, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!([rows.said(0), rows.said(1)], [2, 1]);
    assert_eq!(rows.mean(|i| i as f64), (1.0 + 3.0 + 5.0) / 3.0);
}

#[test]
fn rows_hold_an_answer_after_its_prompt() {
    let rows = Rows::of(5, &[(&[7, 8], &[1, 2, 3]), (&[9], &[4])]);
    assert_eq!(rows.ids, [7, 8, 1, 2, 0, 9, 0, 0, 0, 0]);
    assert_eq!(rows.targets, [8, 1, 2, 3, 0, 4, 0, 0, 0, 0]);
    assert_eq!(rows.places().collect::<Vec<_>>(), [1..4, 5..6]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |more: &[&str]| {
        let recipe = recipe(dir.path(), more);
        let error = recipe.and_then(|recipe| recipe.run(&Os, None, &device(), &mut ())).map(|_| ()).expect_err(more[0]);
        format!("{error} {}", error.hint().unwrap_or_default())
    };
    for (set, named) in [
        ("model.reinforce.rewards={}", "model.reinforce.rewards"),
        ("model.reinforce.rewards={ exakt = 1.0 }", "did you mean exact"),
        ("model.reinforce.rewards={ truth = 1.0 }", "model.reinforce.village"),
        ("model.reinforce.format=[^e", "model.reinforce.format"),
        ("model.reinforce.rewards={ model = 1.0 }", "model.reinforce.judge"),
        ("model.reinforce.group=7", "model.reinforce.group"),
        ("model.reinforce.group=1", "model.reinforce.group"),
        ("model.reinforce.target_kl=6", "model.reinforce.target_kl"),
        ("model.reinforce.temperature=0", "model.reinforce.temperature"),
        ("model.reinforce.clip=0.3", "model.reinforce.clip"),
        ("model.kind=tune", "model.reinforce"),
        ("data.packing=true", "data.packing"),
        ("optim.dp.epsilon=8", "optim.dp"),
        ("model.dropout=0.1", "model.dropout"),
        ("train.context=3", "train.context"),
        ("data.val_fraction=0.00001", "data.val_fraction"),
    ] {
        let said = refused(&[set]);
        assert!(said.contains(named), "{set}: {said}");
    }
    let error = without_data(dir.path(), &[]).map(|_| ()).expect_err("no data");
    assert!(error.to_string().contains("data.path"), "{error}");
    std::fs::write(dir.path().join("a.jsonl"), "{\"prompt\": \"Who?\"}\n").expect("written");
    let path = dir.path().join("a.jsonl");
    let path = format!("data.path={:?}", path.to_str().expect("UTF-8"));
    let said = refused(&[&path, "model.reinforce.rewards={ exact = 1.0 }"]);
    assert!(said.contains("answer") && said.contains("line 1"), "{said}");
}
