//! Bad steps never reach the weights, and a run that goes wrong goes back and on, the same whether it is stopped or not.

use kiln::data::{Dataset, Part};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::params::{ParamId, Params};
use kiln::rng::{Purpose, Rng};
use kiln::tensor::Tensor;
use kiln::train::trainer::{At, Bad};
use kiln::train::{Event, Recipe, Summary, Trainer, Watch, checkpoint, metrics, source, train};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// One block of 8 channels over bytes: a step takes a fraction of a millisecond.
fn recipe(dir: &Path, more: &[&str]) -> Recipe {
    let small = "model.layers=1 model.heads=2 model.d=8 data.tokenizer=byte data.bytes=20000 train.batch=2 \
                 train.context=8 train.checkpoint_every=10 train.eval_every=20 train.sample_every=0 optim.warmup=5 \
                 eval.max_batches=2 run.name=tiny guard.max_bad_steps=3 guard.spike_window=8 guard.spike_steps=3";
    let mut set = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path"))];
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    Recipe::load(None, &set).expect("a valid recipe")
}

fn device() -> Device {
    Device::cpu(1).expect("a CPU")
}

/// Weights and moments, as bits.
fn bits(params: &Params) -> Vec<u32> {
    let mut all: Vec<u32> = params.ids().flat_map(|id| params.weight(id).f32().to_vec()).map(f32::to_bits).collect();
    for group in params.groups() {
        for slot in 0..group.ids().len() {
            let moments = (0..2).filter_map(|k| group.moment(k, slot));
            all.extend(moments.flat_map(|m| m.f32().to_vec()).map(f32::to_bits));
        }
    }
    all
}

/// What spoils a step: a number in a gradient, or the loss.
struct Fault {
    micro: usize,
    /// A parameter and the place in its gradient; `None`: the loss.
    at: Option<(ParamId, usize)>,
    value: f32,
}

const VALUES: [f32; 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];

/// A fault for about every second step, from a generator.
fn faults(steps: u64, micros: u32, params: &Params) -> Vec<Option<Fault>> {
    let mut rng = Rng::new(7, Purpose::Test, micros, 0);
    let mut fault = |_| {
        let (hit, micro, value) = (rng.below(2) == 0, rng.below(micros) as usize, VALUES[rng.below(5) as usize]);
        let id = ParamId(rng.below(params.len() as u32));
        let place = rng.below(params.weight(id).numel() as u32) as usize;
        // A loss may be large; it only must be finite.
        let at = (rng.below(10) > 0 || value.abs() == 1e30).then_some((id, place));
        hit.then_some(Fault { micro, at, value })
    };
    (0..steps).map(&mut fault).collect()
}

#[test]
fn a_thousand_faults_leave_the_weights_and_moments_of_a_run_without_those_steps() {
    let mut injected = 0;
    for more in [&[][..], &["train.accumulate=3"], &["model.dropout=0.2"], &["train.accumulate=2", "model.dropout=0.2"]]
    {
        let dir = tempfile::tempdir().expect("a folder");
        let recipe = recipe(dir.path(), more);
        let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
        let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
        let trainer = || Trainer::new(&recipe, tokens.vocab_size(), tokens.clone(), &device()).expect("a model");
        let (mut spoiled, mut clean) = (trainer(), trainer());
        let faults = faults(520, recipe.train.accumulate as u32, &clean.params);
        let mut updates = 0;
        for (step, fault) in faults.iter().enumerate() {
            let at = At { step: step as u64, batch: step as u64, updates };
            let mut inject = |micro, params: &mut Params, loss: &mut Tensor| match fault {
                Some(fault) if fault.micro == micro => match fault.at {
                    Some((id, place)) => assert!(params.edit_grad(id, |grad| grad[place] = fault.value)),
                    None => *loss = Tensor::from_slice(loss.device(), &[fault.value], [1]),
                },
                _ => {}
            };
            let done = spoiled.step_with(at, Some(&mut inject)).expect("a step");
            let want = fault.as_ref().map(|fault| fault.at.map_or(Bad::Loss, |(id, _)| Bad::Grad(id)));
            assert_eq!(done.bad, want, "step {step} with {more:?}");
            if fault.is_none() {
                assert_eq!(clean.step_with(at, None).expect("a step"), done, "step {step} with {more:?}");
                updates += 1;
            }
        }
        injected += faults.iter().flatten().count();
        assert!(bits(&spoiled.params) == bits(&clean.params), "weights or moments differ with {more:?}");
        assert!(updates > 200, "most of the rest are good steps");
    }
    assert!(injected >= 1000, "only {injected} faults");
}

#[test]
fn a_poisoned_weight_spoils_the_step_but_not_what_is_learned() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), &["train.accumulate=2"]);
    let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
    let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
    let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, &device()).expect("a model");
    (0..3).for_each(|step| assert_eq!(trainer.step(step).expect("a step").bad, None));
    let before = bits(&trainer.params);
    let mut rng = Rng::new(3, Purpose::Test, 0, 0);
    for id in trainer.params.ids() {
        let good = trainer.params.weight(id).f32().to_vec();
        let mut poisoned = good.clone();
        poisoned[rng.below(good.len() as u32) as usize] = f32::NAN;
        trainer.params.set_weight(id, &poisoned);
        let done = trainer.step(3).expect("a step");
        assert!(!done.loss.is_finite() && matches!(done.bad, Some(Bad::Grad(_))), "{done:?}");
        trainer.params.set_weight(id, &good);
    }
    assert!(bits(&trainer.params) == before);
    assert_eq!(trainer.step(3).expect("a step").bad, None);
}

#[test]
fn a_gradient_is_bad_from_where_its_squares_do_not_fit_an_f32() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), &["model.d=32"]);
    let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
    let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
    let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, &device()).expect("a model");
    let table = trainer.params.find("wte.weight").expect("it is there");
    // The largest f32 is 3.4e38: the squares of three such elements fit, those of four do not, though each block that is
    // summed in f32 does.
    for (many, bad) in [(3, false), (4, true)] {
        let mut spoil = |_, params: &mut Params, _: &mut Tensor| {
            assert!(params.edit_grad(table, |grad| (0..many).for_each(|i| grad[i * 2000] = 1e19)));
        };
        let at = At { step: 0, batch: 0, updates: 0 };
        assert_eq!(
            trainer.step_with(at, Some(&mut spoil)).expect("a step").bad,
            bad.then_some(Bad::Grad(table)),
            "{many}"
        );
        assert!(trainer.params.ids().all(|id| trainer.params.weight(id).f32().iter().all(|w| w.is_finite())));
    }
}

#[test]
fn the_optimizer_counts_updates_and_not_steps() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), &[]);
    let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
    let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
    let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, &device()).expect("a model");
    let gain = trainer.params.find("ln_f.weight").expect("it is there");
    let lr = trainer.step_with(At { step: 4, batch: 4, updates: 0 }, None).expect("a step").lr as f32;
    // The first update moves every weight by lr, whatever its gradient; as the fifth it would be half of that.
    let moved = trainer.params.weight(gain).f32().iter().fold(0f32, |most, w| most.max((w - 1.0).abs()));
    assert!((0.98 * lr..1.02 * lr).contains(&moved), "{moved} at a rate of {lr}");
}

/// How a process ends before its run does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// A signal after this many steps.
    Stop(u64),
    /// Killed after this many steps.
    Kill(u64),
    /// Killed when the run is about to go back.
    KillBeforeRewind,
    /// Killed when the checkpoint stands that it goes on from, and what came later is not gone yet.
    KillInRewind,
    Never,
}

/// Spoils what is computed from some batches, and ends the process somewhere.
struct Script {
    bad: Vec<Range<u64>>,
    high: Range<u64>,
    end: End,
    steps: u64,
    rewound: bool,
    told: Vec<String>,
}

impl Script {
    fn new(end: End) -> Script {
        Script { bad: vec![5..6, 22..27], high: 38..41, end, steps: 0, rewound: false, told: Vec::new() }
    }
}

impl Watch for Script {
    fn event(&mut self, event: &Event) {
        let kill = match *event {
            Event::Step { .. } => {
                self.steps += 1;
                self.end == End::Kill(self.steps)
            }
            Event::Skipped { step, first, in_a_row, .. } => {
                self.told.push(format!("{step} {first} {in_a_row}"));
                false
            }
            Event::Rewind { from, to, .. } => {
                self.told.push(format!("{from} to {to}"));
                self.rewound = true;
                self.end == End::KillBeforeRewind
            }
            Event::Checkpoint { .. } => std::mem::take(&mut self.rewound) && self.end == End::KillInRewind,
            _ => false,
        };
        assert!(!kill, "killed");
    }
    fn looks_into_steps(&self) -> bool {
        true
    }
    fn backward(&mut self, at: At, _: usize, params: &mut Params, loss: &mut Tensor) {
        if self.bad.iter().any(|range| range.contains(&at.batch)) {
            let id = params.find("h.0.mlp.c_fc.weight").expect("it is there");
            assert!(params.edit_grad(id, |grad| grad[3] = f32::NAN));
        } else if self.high.contains(&at.batch) {
            *loss = Tensor::from_slice(loss.device(), &[loss.item() + 20.0], [1]);
        }
    }
    fn stop(&self) -> Option<i32> {
        matches!(self.end, End::Stop(steps) if self.steps >= steps).then_some(15)
    }
}

/// A run, or the rest of it, with these faults; `None` where it was killed.
fn go(recipe: &Recipe, resume: Option<&Path>, script: &mut Script) -> Option<Summary> {
    let run = || train(recipe, resume, &device(), script).expect("a run");
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// What a run leaves: weights, moments, the guard and the counts; and its metrics.
fn left(run: &Path, step: u64) -> ([Vec<u8>; 2], String, Vec<String>) {
    let dir = run.join(format!("checkpoints/step-{step:06}"));
    let state = checkpoint::verify(&Os, &dir).expect("a checkpoint");
    let files = [checkpoint::MODEL, checkpoint::OPTIM].map(|file| std::fs::read(dir.join(file)).expect("a file"));
    let counts = format!("{} {} {} {:?}", state.step, state.optimizer_steps, state.tokens, state.guard);
    let line = |r: metrics::Record| {
        format!("{} {} {:?} {:?}", r.step, r.loss.to_bits(), r.val_loss.map(f64::to_bits), r.skipped)
    };
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    (files, counts, records.into_iter().map(line).collect())
}

#[test]
fn a_run_that_goes_back_ends_the_same_wherever_it_was_stopped_or_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe_in = |dir: &Path| recipe(dir, &["train.steps=50", "model.dropout=0.1"]);
    let mut script = Script::new(End::Never);
    let whole = go(&recipe_in(dir.path()), None, &mut script).expect("it was not killed");
    // Batch 5 is skipped. Batches 22, 23, 24 are too many in a row: the run goes back from 25 steps to 20, and meets
    // 25 and 26 there. High are batches 38 to 40, now those of steps 34 to 36: it goes back from 36 to 30.
    let bad = "h.0.mlp.c_fc.weight";
    let want = ["6 B 1", "23 B 1", "24 B 2", "25 B 3", "25 to 20", "21 B 1", "22 B 2", "36 to 30"];
    assert_eq!(script.told, want.map(|s| s.replace('B', bad)));
    assert_eq!((whole.steps, whole.skipped, whole.rewinds), (50, 6, 2));
    let want = left(&whole.run, 50);
    let records = metrics::read(&Os, &whole.run.join("metrics.jsonl")).expect("metrics");
    assert!(records.iter().map(|r| r.step).eq(1..=50), "every step once");
    let skipped: Vec<u64> = records.iter().filter(|r| r.skipped.as_deref() == Some(bad)).map(|r| r.step).collect();
    assert_eq!(skipped, [6, 21, 22]);
    let state = checkpoint::verify(&Os, &whole.run.join("checkpoints/step-000050")).expect("a checkpoint");
    assert_eq!((state.optimizer_steps, state.guard.offset), (47, 11));

    // Every process of a run ends in the same way, until the run is done.
    let mut ends = vec![End::KillBeforeRewind, End::KillInRewind];
    ends.extend([3, 7].map(End::Stop));
    ends.extend([24, 25, 26, 28, 33].map(End::Kill));
    for end in ends {
        let dir = tempfile::tempdir().expect("a folder");
        let run = dir.path().join("tiny");
        let mut done = go(&recipe_in(dir.path()), None, &mut Script::new(end));
        let mut processes = 1;
        while done.as_ref().is_none_or(|summary| summary.steps < 50) {
            assert!(processes < 40, "{end:?}: it does not get on");
            let recipe = Recipe::of_run(&run, &[]).expect("the run's recipe");
            // A killed run gets on only where it is let.
            let end = if matches!(end, End::Stop(_)) { end } else { End::Never };
            done = go(&recipe, Some(&run), &mut Script::new(end));
            processes += 1;
        }
        assert!(processes > 1);
        let got = left(&run, 50);
        assert!(got.0 == want.0, "{end:?}: weights or moments differ");
        assert_eq!((got.1, got.2), (want.1.clone(), want.2.clone()), "{end:?}");
    }
}

#[test]
fn a_run_that_cannot_go_on_ends_with_one_error_and_its_checkpoint_stands() {
    for (first, to) in [(12, 10), (2, 0)] {
        let dir = tempfile::tempdir().expect("a folder");
        let recipe = recipe(dir.path(), &["train.steps=40", "guard.max_rewinds=2"]);
        let mut script = Script { bad: std::iter::once(first..1000).collect(), ..Script::new(End::Never) };
        let error = train(&recipe, None, &device(), &mut script).expect_err("it cannot go on");
        // First after three bad ones, then at once, from where it went back to.
        let backs: Vec<&String> = script.told.iter().filter(|told| told.contains(" to ")).collect();
        assert_eq!(backs, [&format!("{} to {to}", first + 3), &format!("{} to {to}", to + 3)]);
        let message = error.to_string();
        let again = format!("optim.lr: the run is unstable at step {}: 3 steps in a row were not finite", to + 3);
        assert!(message.starts_with(&again) && message.contains("h.0.mlp.c_fc.weight"), "{message}");
        assert!(
            message.ends_with(&format!("back to step {to} and on with later data did not help, 2 times")),
            "{message}"
        );

        // The same weights as those of a run that ended there.
        let run = dir.path().join("tiny");
        let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
        assert!(records.iter().map(|r| r.step).eq(1..=to + 3), "what went wrong can be read");
        if to > 0 {
            let hint = error.hint().expect("a hint");
            assert!(hint.contains("--resume") && hint.contains("step 10 stands"), "{hint}");
            let other = tempfile::tempdir().expect("a folder");
            let mut stop = Script { bad: Vec::new(), high: 0..0, ..Script::new(End::Stop(10)) };
            let recipe = self::recipe(other.path(), &["train.steps=40"]);
            let good = train(&recipe, None, &device(), &mut stop).expect("a run");
            assert!(left(&run, 10).0 == left(&good.run, 10).0, "its weights are not those of step 10");
        }
        // What it leaves can be taken up, and goes on where the fault is gone.
        let recipe = Recipe::of_run(&run, &[]).expect("the run's recipe");
        assert_eq!(train(&recipe, Some(&run), &device(), &mut ()).expect("the rest").steps, 40);
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_when_the_run_goes_back() {
    /// Damages the checkpoint of step 20 as soon as there is a bad step after it.
    struct Damage(Script, std::path::PathBuf, Vec<String>);
    impl Watch for Damage {
        fn event(&mut self, event: &Event) {
            match event {
                Event::Skipped { step: 23, .. } => {
                    let path = self.1.join("tiny/checkpoints/step-000020").join(checkpoint::MODEL);
                    std::fs::write(path, b"no").expect("written");
                }
                Event::Warning { text } => self.2.push((*text).to_owned()),
                _ => {}
            }
            self.0.event(event);
        }
        fn looks_into_steps(&self) -> bool {
            true
        }
        fn backward(&mut self, at: At, micro: usize, params: &mut Params, loss: &mut Tensor) {
            self.0.backward(at, micro, params, loss);
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut script = Script::new(End::Never);
    script.high = 0..0;
    let mut watch = Damage(script, dir.path().to_owned(), Vec::new());
    let recipe = recipe(dir.path(), &["train.steps=40"]);
    let summary = train(&recipe, None, &device(), &mut watch).expect("a run");
    assert_eq!((summary.steps, summary.rewinds), (40, 1));
    assert!(watch.0.told.contains(&"25 to 10".to_owned()), "{:?}", watch.0.told);
    assert!(matches!(&watch.2[..], [text] if text.contains("step-000020/model.safetensors")), "{:?}", watch.2);
}
