//! Preferences: the losses against torch and TRL's formulas (`tests/reference/preferences.py`), and runs that learn from them.

use crate::gpt::read;
use crate::gpu::sim;
use crate::tune::{base, device, losses};
use crate::watch::StopAfter;
use kiln::disk::Os;
use kiln::error::Error;
use kiln::params::Params;
use kiln::tape::{Pass, Tape, Var};
use kiln::tensor::Tensor;
use kiln::train::prefer::{Compared, Judge, Preference, PreferenceLoss, kto_kl};
use kiln::train::recipe::VILLAGE;
use kiln::train::tune::PREFER;
use kiln::train::{AnyRecipe, Summary, Watch, metrics};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

const FIXTURE: &[u8] = include_bytes!("../fixtures/preferences.safetensors");

fn numbers(name: &str) -> Vec<f64> {
    read(&SafeTensors::deserialize(FIXTURE).expect("a fixture"), name).1
}

fn near(name: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let most = expected.iter().fold(1e-3f64, |most, x| most.max(x.abs()));
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*x) - y).abs() <= 1e-5 * most, "{name}[{i}]: {x} for {y}");
    }
}

/// Losses of `inputs`, and the gradients of their mean with respect to these, compared with case `name`; metrics by their places in what is
/// told.
fn compare(
    name: &str,
    preference: Preference,
    inputs: &[(&str, Vec<f64>)],
    signs: &[f64],
    metrics: &[(usize, &str)],
    losses: impl for<'t> Fn(&'t Tape, &[Var<'t>]) -> Compared<'t>,
) -> Vec<Vec<f32>> {
    let mut params = Params::new(&device(), &[], 0);
    let mut tape = Tape::new(&device());
    tape.begin(&params, Pass::default());
    let tensor = |x: &[f64]| Tensor::from_slice(&device(), &x.iter().map(|&x| x as f32).collect::<Vec<_>>(), [x.len()]);
    let leaves: Vec<Var> = inputs.iter().map(|(_, x)| tape.variable(tensor(x))).collect();
    let compared = losses(&tape, &leaves);
    let shares: Vec<f64> =
        signs.iter().map(|sign| 1.0 / signs.iter().filter(|other| *other == sign).count() as f64).collect();
    let parts = tape.no_grad(|| preference.parts(&compared, [signs, &shares].map(|x| tape.constant(tensor(x)))));
    for &(at, key) in metrics {
        near(&format!("{name}.{key}"), &[parts[at].item()], &numbers(&format!("{name}.{key}")));
    }
    let loss = compared.losses.mean();
    near(&format!("{name}.loss"), &[loss.value().item()], &numbers(&format!("{name}.loss")));
    loss.backward(&mut params, true);
    leaves.iter().map(|leaf| leaf.grad().expect("a gradient").f32().to_vec()).collect()
}

fn preference(loss: PreferenceLoss, beta: f32) -> Preference {
    Preference { loss, beta, smoothing: 0.0, sft: 0.0, desirable: 1.0, undesirable: 1.0, centering: 0.0 }
}

#[test]
fn losses_of_pairs_are_those_of_the_reference() {
    let pairs = |key: &str| numbers(&format!("pairs.{key}"));
    let all = [
        ("dpo", 0.1, 0.0, 0.0),
        ("dpo_smooth", 0.1, 0.1, 0.0),
        ("dpo_strong", 0.5, 0.0, 0.0),
        ("dpo_strong_smooth", 0.5, 0.1, 0.0),
        ("dpo_sft", 0.1, 0.0, 0.7),
    ];
    let metrics = [(0, "rewards_chosen"), (1, "rewards_rejected"), (2, "accuracy"), (3, "margin")];
    let inputs = [("chosen", pairs("chosen")), ("rejected", pairs("rejected"))];
    let refs = [pairs("ref_chosen"), pairs("ref_rejected")];
    let constant = |tape: &Tape, x: &[f64]| {
        let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        tape.constant(Tensor::from_slice(&device(), &x, [x.len()])).value()
    };
    let tokens = [pairs("chosen_tokens"), pairs("rejected_tokens")];
    let shares: Vec<f64> = tokens[0].iter().map(|n| 1.0 / n).collect();
    for (name, beta, smoothing, sft) in all {
        let preference = Preference { smoothing, sft, ..preference(PreferenceLoss::Sigmoid, beta) };
        let grads = compare(name, preference, &inputs, &[1.0; 8], &metrics, |tape, x| {
            let refs = [0, 1].map(|i| tape.constant(constant(tape, &refs[i])));
            preference.pairs([x[0], x[1]], refs, tape.constant(constant(tape, &shares)))
        });
        near(name, &grads[0], &numbers(&format!("{name}.d_chosen")));
        near(name, &grads[1], &numbers(&format!("{name}.d_rejected")));
    }
    // IPO's log-probabilities are means over tokens.
    let per_token = |x: &[f64], i: usize| x.iter().zip(&tokens[i]).map(|(x, n)| x / n).collect::<Vec<f64>>();
    let inputs = [("chosen", per_token(&inputs[0].1, 0)), ("rejected", per_token(&inputs[1].1, 1))];
    for (name, beta, sft) in [("ipo", 0.1, 0.0), ("ipo_strong", 0.5, 0.0), ("ipo_sft", 0.1, 0.7)] {
        let preference = Preference { sft, ..preference(PreferenceLoss::Ipo, beta) };
        let grads = compare(name, preference, &inputs, &[1.0; 8], &[], |tape, x| {
            let refs = [0, 1].map(|i| tape.constant(constant(tape, &per_token(&refs[i], i))));
            preference.pairs([x[0], x[1]], refs, tape.constant(constant(tape, &[1.0; 8])))
        });
        for (i, key) in ["d_chosen", "d_rejected"].iter().enumerate() {
            let expected =
                numbers(&format!("{name}.{key}")).iter().zip(&tokens[i]).map(|(d, n)| d * n).collect::<Vec<_>>();
            near(name, &grads[i], &expected);
        }
    }
}

#[test]
fn losses_of_thumbs_and_of_rewards_are_those_of_the_reference() {
    let single = |key: &str| numbers(&format!("single.{key}"));
    let signs: Vec<f64> = single("labels").iter().map(|label| 2.0 * label - 1.0).collect();
    let constant = |x: &[f64]| {
        let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        Tensor::from_slice(&device(), &x, [x.len()])
    };
    let all = [
        ("kto", 0.1, 1.0, 1.0, ["kl_logps", "kl_ref"]),
        ("kto_weighted", 0.5, 1.75, 0.8, ["kl_logps", "kl_ref"]),
        ("kto_clamped", 0.1, 1.0, 1.0, ["kl_ref", "kl_logps"]),
    ];
    let metrics = [(0, "rewards_chosen"), (1, "rewards_rejected"), (2, "margin"), (3, "kl")];
    for (name, beta, desirable, undesirable, kl) in all {
        let preference = Preference { desirable, undesirable, ..preference(PreferenceLoss::Kto, beta) };
        let grads = compare(name, preference, &[("logps", single("logps"))], &signs, &metrics, |tape, x| {
            let [ours, refs] = kl.map(|key| tape.constant(constant(&single(key))));
            let kl = tape.no_grad(|| kto_kl(ours, refs).value());
            let [refs, signs] = [&single("ref"), &signs].map(|x| tape.constant(constant(x)));
            preference.thumbs(x[0], refs, signs, tape.constant(kl))
        });
        near(name, &grads[0], &numbers(&format!("{name}.d_logps")));
    }
    let rewards = |key: &str| numbers(&format!("rewards.{key}"));
    let inputs = [("chosen", rewards("chosen")), ("rejected", rewards("rejected"))];
    let metrics = [(0, "accuracy"), (1, "margin"), (2, "mean")];
    for (name, centering) in [("reward", 0.0), ("reward_centred", 0.01)] {
        let preference = Preference { centering, ..preference(PreferenceLoss::Reward, 0.1) };
        let grads = compare(name, preference, &inputs, &[1.0; 8], &metrics, |_, x| preference.scores([x[0], x[1]]));
        near(name, &grads[0], &numbers(&format!("{name}.d_chosen")));
        near(name, &grads[1], &numbers(&format!("{name}.d_rejected")));
    }
}

#[test]
fn fine_tuning_beside_a_loss_weighs_the_better_answers_a_token() {
    let dir = tempfile::tempdir().expect("a folder");
    let line =
        |i| format!("{{\"prompt\": \"Who is number {i}?\", \"chosen\": \" Ann.\", \"rejected\": \" Bob is it.\"}}\n");
    let pairs = dir.path().join("pairs.jsonl");
    std::fs::write(&pairs, (0..60).map(line).collect::<String>()).expect("written");
    let run = aligned(dir.path(), &pairs, &["model.preference.sft=0.5", "train.steps=1"], &mut ()).run;
    let beside = f64::from(losses(&run)[0]) - std::f64::consts::LN_2;
    // The better answers are one, so they have as many tokens: 0.5 (−log π / n).
    let tokens = -0.5 * last(&run, "logps/chosen") / beside;
    assert!(tokens > 1.5 && (tokens - tokens.round()).abs() < 1e-3, "{tokens} tokens");
}

/// Pairs of which the better answer is the shorter one.
fn pairs(dir: &Path) -> PathBuf {
    let line = |i: usize| {
        let name = ["Ann", "Bob", "Cid"][i % 3];
        format!(
            "{{\"prompt\": \"Who is number {i}?\", \"chosen\": \" {name}.\", \"rejected\": \" {name} is it, {name} is.\"}}\n"
        )
    };
    let path = dir.join("pairs.jsonl");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).expect("written");
    path
}

/// Single answers, of which every other one was liked.
fn thumbs(dir: &Path) -> PathBuf {
    let line = |i: usize| {
        let (said, good) = if i.is_multiple_of(2) { (" Ann.", true) } else { (" Bob is it.", false) };
        format!("{{\"prompt\": \"Who is number {}?\", \"completion\": \"{said}\", \"label\": {good}}}\n", i / 2)
    };
    let path = dir.join("thumbs.jsonl");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).expect("written");
    path
}

fn recipe(dir: &Path, data: &Path, more: &[&str]) -> Result<AnyRecipe, Error> {
    let path = |path: &Path| format!("{:?}", path.to_str().expect("UTF-8"));
    let mut set = vec![
        format!("run.dir={}", path(dir)),
        format!("model.base={}", path(base())),
        format!("data.path={}", path(data)),
    ];
    let small = "model.rank=4 optim.lr=3e-3 optim.warmup=1 train.batch=4 train.steps=16 train.checkpoint_every=6 \
                 data.val_fraction=0.2 sample.count=1 sample.tokens=4";
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    AnyRecipe::load(None, PREFER, &set)
}

fn aligned(dir: &Path, data: &Path, more: &[&str], watch: &mut dyn Watch) -> Summary {
    recipe(dir, data, more).expect("a recipe").run(&Os, None, &device(), watch).expect("a run")
}

fn last(run: &Path, key: &str) -> f64 {
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    records.last().expect("a step").more[key]
}

#[test]
fn every_loss_learns_what_is_preferred_and_a_stopped_run_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (pairs, thumbs) = (pairs(dir.path()), thumbs(dir.path()));
    let all: [(&Path, &[&str], &str); 5] = [
        (&pairs, &["train.sample_every=8"], "val_rewards/margins"),
        (&pairs, &["model.preference.loss=ipo", "model.method=full"], "val_rewards/margins"),
        (&thumbs, &["model.preference.loss=kto"], "val_rewards/margins"),
        (&pairs, &["model.preference.loss=reward"], "val_margin"),
        (
            &pairs,
            &["model.preference.loss=reward", "model.method=full", "model.preference.centering=0.01"],
            "val_margin",
        ),
    ];
    for (data, more, margin) in all {
        let whole = aligned(dir.path(), data, more, &mut ());
        let found = last(&whole.run, margin);
        assert!(found > 0.05, "{more:?}: {found}");
        // At the first step a model is what it is held to.
        let first = losses(&whole.run)[0];
        let expected = match more.iter().find_map(|set| set.strip_prefix("model.preference.loss=")) {
            None | Some("reward") => std::f32::consts::LN_2,
            Some("ipo") => 25.0,
            _ => 0.5,
        };
        assert!((first - expected).abs() <= 1e-5 * expected, "{more:?}: {first}");
        let stopped = aligned(dir.path(), data, more, &mut StopAfter::new(9));
        let recipe = AnyRecipe::of_run(&stopped.run, &[]).expect("the run's recipe");
        let resumed = recipe.run(&Os, Some(&stopped.run), &device(), &mut ()).expect("the run goes on");
        assert_eq!(losses(&resumed.run), losses(&whole.run), "{more:?}");
        assert_eq!(last(&resumed.run, margin), found, "{more:?}");
    }
}

#[test]
fn pairs_in_micro_batches_are_those_of_one_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let pairs = pairs(dir.path());
    let of = |more: &[&str]| losses(&aligned(dir.path(), &pairs, &[&["train.steps=4"], more].concat(), &mut ()).run);
    let [whole, parts] = [&["train.batch=8"][..], &["train.batch=1", "train.accumulate=8"]].map(of);
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() < 1e-5, "{whole:?} and {parts:?}");
    }
    assert!(whole[3] < whole[0] - 1e-3, "{whole:?}");
}

#[test]
fn a_reward_model_prefers_what_it_learnt_to_prefer_wherever_it_is_opened() {
    let dir = tempfile::tempdir().expect("a folder");
    let pairs = pairs(dir.path());
    for method in ["model.method=lora", "model.method=full"] {
        let run = aligned(dir.path(), &pairs, &["model.preference.loss=reward", method], &mut ()).run;
        let mut judge = Judge::open(&run, &device()).expect("a reward model");
        let ids = |text: &str| judge.tokenizer().encode_with_special(&format!("<|endoftext|>{text}<|endoftext|>"));
        let texts: Vec<Vec<u32>> = ["Who is number 100? Bob.", "Who is number 100? Bob is it, Bob is."]
            .iter()
            .map(|text| ids(text).expect("tokens"))
            .collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let both = judge.rewards(&texts);
        assert!(both[0] > both[1], "{method}: {both:?}");
        // What stands beside a text makes no difference to it.
        assert_eq!(judge.rewards(&texts[1..]), &both[1..], "{method}");
    }
    let error = Judge::open(base(), &device()).map(|_| ()).expect_err("it gives no rewards");
    assert!(error.hint().is_some_and(|hint| hint.contains("kiln align reward")), "{error}");
}

#[test]
fn a_gpu_learns_preferences_as_the_cpu_does() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = "run.name=base model.kind=llama model.layers=1 model.heads=2 model.d=64 data.vocab=300 data.bytes=60000 \
                 train.batch=2 train.context=32 train.sample_every=0 train.steps=2 eval.max_batches=1";
    let mut set: Vec<String> = small.split_whitespace().map(str::to_owned).collect();
    set.push(format!("run.dir={:?}", dir.path().to_str().expect("UTF-8")));
    let own = AnyRecipe::load(None, VILLAGE, &set).expect("a recipe");
    let own = own.run(&Os, None, &device(), &mut ()).expect("a run").run;
    let base = format!("model.base={:?}", own.to_str().expect("UTF-8"));
    let all: [(PathBuf, &str); 3] = [
        (pairs(dir.path()), "model.preference.loss=sigmoid"),
        (thumbs(dir.path()), "model.preference.loss=kto"),
        (pairs(dir.path()), "model.preference.loss=reward"),
    ];
    for (data, loss) in all {
        let more = [loss, &base, "train.steps=4", "train.batch=2", "sample.count=0", "eval.max_batches=1"];
        let recipe = recipe(dir.path(), &data, &more).expect("a recipe");
        let [cpu, gpu] =
            [device(), sim(false)].map(|device| losses(&recipe.run(&Os, None, &device, &mut ()).expect("a run").run));
        for (a, b) in cpu.iter().zip(&gpu) {
            assert!((a - b).abs() < 2e-4 * a.abs().max(0.1), "{loss}: {cpu:?} on the CPU, {gpu:?} on a GPU");
        }
        assert_ne!(cpu[0], cpu[3], "{loss}: {cpu:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let (pairs, thumbs) = (pairs(dir.path()), thumbs(dir.path()));
    let refused = |data: &Path, more: &[&str]| {
        let recipe = recipe(dir.path(), data, more);
        let error = recipe.and_then(|recipe| recipe.run(&Os, None, &device(), &mut ())).map(|_| ()).expect_err("wrong");
        format!("{error} {}", error.hint().unwrap_or_default())
    };
    let all: [(&Path, &str, &str); 9] = [
        (&thumbs, "train.seed=1", "kto"),
        (&pairs, "model.preference.beta=0", "model.preference.beta"),
        (&pairs, "model.preference.smoothing=0.5", "model.preference.smoothing"),
        (&pairs, "model.preference.sft=-1", "model.preference.sft"),
        (&pairs, "model.preference.bta=0.5", "model.preference.beta"),
        (&pairs, "model.kind=tune", "model.preference"),
        (&pairs, "data.packing=true", "data.packing"),
        (&pairs, "optim.dp.epsilon=8", "optim.dp"),
        (&pairs, "data.val_fraction=0.00001", "data.val_fraction"),
    ];
    for (data, set, named) in all {
        let said = refused(data, &[set]);
        assert!(said.contains(named), "{set}: {said}");
    }
    let said = refused(&thumbs, &["model.preference.loss=kto", "train.batch=1"]);
    assert!(said.contains("train.batch"), "{said}");
}
