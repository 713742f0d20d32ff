//! Whole runs on a tiny model: what they leave behind, and that resuming changes nothing.

use crate::watch::{StopAfter, Until};
use kiln::data::{Dataset, Part};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::train::{AnyRecipe, Event, Recipe, Summary, Trainer, Watch, checkpoint, metrics, source, train};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod tensorboard;
mod torn;

/// A run of two small blocks on a small village.
fn recipe(dir: &Path, steps: u64, more: &[&str]) -> Recipe {
    let mut set = vec![
        format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path")),
        "run.name=tiny".into(),
        format!("train.steps={steps}"),
    ];
    let small = "model.layers=2 model.heads=2 model.d=32 data.vocab=300 data.bytes=60000 train.batch=2 train.context=16 \
                 train.checkpoint_every=10 train.eval_every=10 train.sample_every=0 optim.warmup=5 eval.max_batches=3";
    set.extend(small.split_whitespace().map(str::to_owned));
    set.extend(more.iter().map(|s| s.to_string()));
    Recipe::load(None, &set).expect("a valid recipe")
}

fn device() -> Device {
    Device::cpu(2).expect("a CPU")
}

fn bytes(run: &Path, step: u64) -> [Vec<u8>; 2] {
    let dir = run.join(format!("checkpoints/step-{step:06}"));
    [checkpoint::MODEL, checkpoint::OPTIM].map(|file| std::fs::read(dir.join(file)).expect("a checkpoint"))
}

fn resume(run: &Path) -> Summary {
    let recipe = Recipe::of_run(run, &[]).expect("the run's recipe");
    train(&recipe, Some(run), &device(), &mut ()).expect("the run goes on")
}

#[test]
fn a_run_that_stops_and_resumes_has_the_bytes_of_one_that_does_not() {
    let llama = ["model.kind=llama", "model.kv_heads=1", "optim.kind=muon"];
    let bf16 = ["train.precision=bf16", "train.recompute=true"];
    for more in [&["model.dropout=0.1"][..], &["train.accumulate=2"], &llama, &bf16] {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = train(&recipe(dir.path(), 40, more), None, &device(), &mut ()).expect("a run");
        let want = bytes(&whole.run, 40);
        let records = |run: &Path| -> Vec<(u64, u32)> {
            let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
            records.iter().map(|r| (r.step, r.loss.to_bits())).collect()
        };
        for stop in [7, 20] {
            let dir = tempfile::tempdir().expect("a folder");
            let first =
                train(&recipe(dir.path(), 40, more), None, &device(), &mut StopAfter::new(stop)).expect("a run");
            assert_eq!((first.steps, first.stopped), (stop, Some(15)));
            assert_eq!(resume(&first.run).steps, 40);
            assert!(bytes(&first.run, 40) == want, "stopped at {stop}: weights or moments differ");
            assert_eq!(records(&first.run), records(&whole.run));
        }
    }
}

#[test]
fn a_run_that_is_done_once_goes_on_and_knows_its_data_by_any_of_its_paths() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("text.txt");
    std::fs::write(&file, "The cat sat on the mat, and the dog lay in the hall. ".repeat(400)).expect("written");
    let once = |path: &Path, watch: &mut dyn Watch| {
        let small = "model.layers=1 model.heads=2 model.d=16 data.tokenizer=byte train.batch=2 train.context=16 train.steps=8 \
                     train.sample_every=0 optim.warmup=2 eval.max_batches=2";
        let mut set: Vec<String> = small.split_whitespace().map(str::to_owned).collect();
        set.push(format!("data.path={:?}", path.to_str().expect("UTF-8")));
        AnyRecipe::once(dir.path(), "once", "", &set, &device(), watch)
    };
    let e = once(&file, &mut StopAfter::new(3)).expect_err("it was stopped");
    assert_eq!(e.to_string(), "stopped by signal 15");
    assert_eq!(e.hint(), Some("the same command goes on where it stopped"));
    // From where the tests run.
    let here = std::env::current_dir().expect("a folder").canonicalize().expect("a folder");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let other = up.join(file.canonicalize().expect("a file").strip_prefix("/").expect("a root"));
    assert!(other.is_relative() && other.is_file(), "{}", other.display());
    assert_eq!(once(&other, &mut ()).expect("it goes on").steps, 8);
    let copy = dir.path().join("copy.txt");
    std::fs::copy(&file, &copy).expect("copied");
    let e = once(&copy, &mut ()).expect_err("it is another file").to_string();
    assert!(e.contains("trained with another data.path"), "{e}");
}

#[test]
fn a_run_that_pauses_is_evaluated_there_and_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let every = ["train.eval_every=0", "train.checkpoint_every=0"];
    let whole = train(&recipe(dir.path(), 40, &every), None, &device(), &mut ()).expect("a run");
    let dir = tempfile::tempdir().expect("a folder");
    let first = train(&recipe(dir.path(), 40, &every), None, &device(), &mut Until(7)).expect("a run");
    assert_eq!((first.steps, first.of_steps, first.stopped), (7, 40, None));
    let val_loss = |step: u64| {
        let records = metrics::read(&Os, &first.run.join("metrics.jsonl")).expect("metrics");
        records.iter().find(|r| r.step == step).expect("the step").val_loss
    };
    assert!(first.val_loss.is_some() && val_loss(7) == first.val_loss && val_loss(6).is_none());
    let again = |until: u64| {
        let recipe = Recipe::of_run(&first.run, &[]).expect("the run's recipe");
        train(&recipe, Some(&first.run), &device(), &mut Until(until)).expect("the run goes on")
    };
    // Once more to the same step, or to one that is behind, is nothing; then to another one, and beyond the end.
    let before = std::fs::read(first.run.join("metrics.jsonl")).expect("metrics");
    assert_eq!([again(7).val_loss, again(3).val_loss], [first.val_loss; 2]);
    assert_eq!(std::fs::read(first.run.join("metrics.jsonl")).expect("metrics"), before);
    assert_eq!(again(20).steps, 20);
    assert!(val_loss(20).is_some());
    assert_eq!(again(99).steps, 40);
    assert!(bytes(&first.run, 40) == bytes(&whole.run, 40), "weights or moments differ");
    assert_eq!(val_loss(40), whole.val_loss);
}

#[test]
fn mup_changes_nothing_at_its_base_and_something_elsewhere_and_is_for_adamw() {
    let trained = |more: &[&str]| {
        let dir = tempfile::tempdir().expect("a folder");
        let run = train(&recipe(dir.path(), 4, more), None, &device(), &mut ()).expect("a run").run;
        std::fs::read(run.join("checkpoints/step-000004").join(checkpoint::MODEL)).expect("a checkpoint")
    };
    let plain = trained(&[]);
    assert!(trained(&["model.mup=true", "model.base_d=32"]) == plain);
    assert!(trained(&["model.mup=true", "model.base_d=16"]) != plain);
    let dir = tempfile::tempdir().expect("a folder");
    let muon = recipe(dir.path(), 4, &["model.mup=true", "optim.kind=muon"]);
    let error = train(&muon, None, &device(), &mut ()).expect_err("Muon has its own rates");
    assert!(error.to_string().starts_with("model.mup: "), "{error}");
    let sim =
        kiln::device::sim::Options { memory: 1 << 30, ..kiln::device::sim::Options::new(false).expect("options") };
    let cpu = kiln::cpu::Cpu::new(1).expect("a CPU");
    let gpu = Device::gpu(Arc::new(kiln::device::Sim::new(sim)), cpu).expect("a simulated GPU");
    let error = train(&recipe(dir.path(), 4, &["model.mup=true"]), None, &gpu, &mut ()).expect_err("one rate");
    assert!(error.to_string().starts_with("model.mup: a GPU's update"), "{error}");
}

#[test]
fn a_run_that_was_killed_goes_on_from_its_last_checkpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = train(&recipe(dir.path(), 30, &[]), None, &device(), &mut ()).expect("a run");
    let want = bytes(&whole.run, 30);
    // As if the process had died at step 24: metrics run past the checkpoint of step 20, the newer one is gone.
    std::fs::remove_dir_all(whole.run.join("checkpoints/step-000030")).expect("it is there");
    let text = std::fs::read_to_string(whole.run.join("metrics.jsonl")).expect("metrics");
    let torn: String = text.split_inclusive('\n').take(24).collect::<String>() + "{\"step\":25,\"lo";
    std::fs::write(whole.run.join("metrics.jsonl"), torn).expect("written");
    assert_eq!(resume(&whole.run).steps, 30);
    assert!(bytes(&whole.run, 30) == want);
    let steps: Vec<u64> =
        metrics::read(&Os, &whole.run.join("metrics.jsonl")).expect("metrics").iter().map(|r| r.step).collect();
    assert_eq!(steps, (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_step_that_was_saved_but_not_evaluated_is_evaluated_when_the_run_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = train(&recipe(dir.path(), 20, &[]), None, &device(), &mut ()).expect("a run");
    let path = whole.run.join("metrics.jsonl");
    let want = metrics::read(&Os, &path).expect("metrics");
    let text = std::fs::read_to_string(&path).expect("metrics");
    let line = |r: &metrics::Record| (r.step, r.loss.to_bits(), r.val_loss.map(f64::to_bits));
    // Killed while it evaluated: the line of step 20 is missing. Stopped while it evaluated: it lacks the loss.
    let killed: String = text.split_inclusive('\n').take(19).collect();
    let bare = serde_json::to_string(&metrics::Record { val_loss: None, bits_per_byte: None, ..want[19].clone() })
        .expect("plain");
    for left in [killed.clone(), format!("{killed}{bare}\n")] {
        std::fs::write(&path, left).expect("written");
        let summary = resume(&whole.run);
        assert_eq!((summary.steps, summary.val_loss), (20, whole.val_loss));
        let got = metrics::read(&Os, &path).expect("metrics");
        assert!(got.iter().map(line).eq(want.iter().map(line)), "{got:?}");
    }
    // Nothing is missing now, so nothing is done twice.
    let before = std::fs::read(&path).expect("metrics");
    resume(&whole.run);
    assert!(std::fs::read(&path).expect("metrics") == before);
}

/// Asks to stop as soon as an evaluation begins.
#[derive(Default)]
struct StopInEvaluation(bool);

impl Watch for StopInEvaluation {
    fn event(&mut self, event: &Event) {
        self.0 |= matches!(event, Event::Prepare { what: "evaluating", .. });
    }
    fn stop(&self) -> Option<i32> {
        self.0.then_some(2)
    }
}

#[test]
fn a_signal_in_an_evaluation_stops_it_and_the_resumed_run_has_it_whole() {
    for more in [&[][..], &["train.checkpoint_every=0"]] {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = train(&recipe(dir.path(), 20, more), None, &device(), &mut ()).expect("a run");
        let dir = tempfile::tempdir().expect("a folder");
        let stopped =
            train(&recipe(dir.path(), 20, more), None, &device(), &mut StopInEvaluation(false)).expect("a run");
        assert_eq!((stopped.steps, stopped.stopped, stopped.val_loss), (10, Some(2), None));
        assert_eq!(resume(&stopped.run).steps, 20);
        let lines = |run: &Path| -> Vec<(u64, u32, Option<u64>)> {
            let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
            records.iter().map(|r| (r.step, r.loss.to_bits(), r.val_loss.map(f64::to_bits))).collect()
        };
        assert_eq!(lines(&stopped.run), lines(&whole.run));
        assert!(bytes(&stopped.run, 20) == bytes(&whole.run, 20));
    }
}

#[test]
fn the_loss_falls_and_the_run_directory_is_complete() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe =
        recipe(dir.path(), 60, &["optim.lr=5e-3", "train.batch=8", "train.sample_every=30", "sample.tokens=8"]);
    let run: PathBuf = train(&recipe, None, &device(), &mut ()).expect("a run").run;
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    let mean = |r: &[metrics::Record]| r.iter().map(|r| r.loss).sum::<f32>() / r.len() as f32;
    let (first, last) = (mean(&records[..5]), mean(&records[55..]));
    // The first losses are near ln 300 = 5.7; 60 steps take at least a nat off.
    assert!(first > 5.0 && last < first - 1.0, "{first} to {last}");
    for file in ["recipe.toml", "loss.svg", "loss.png", "samples/step-000060.txt", "data/dataset.json"] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let sum = records.iter().filter_map(|r| r.val_loss).count();
    assert_eq!(sum, 6, "evaluated every 10 steps");
    assert_eq!(Recipe::load(Some(&run.join("recipe.toml")), &[]).expect("the resolved recipe"), recipe);
}

#[test]
fn from_the_third_step_on_nothing_is_allocated() {
    for more in [
        &["train.accumulate=2", "model.dropout=0.1"][..],
        &["train.accumulate=2", "model.dropout=0.1", "train.recompute=true"],
        &["train.precision=bf16"],
        &["model.kind=llama", "optim.kind=muon"],
        &["model.kind=llama", "train.recompute=true"],
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let recipe = recipe(dir.path(), 10, more);
        let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
        let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
        // One thread, so that all the work is counted here.
        let device = Device::cpu(1).expect("a CPU");
        let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, &device).expect("a model");
        let from_system = || (device.pool().mapped_bytes(), device.pool().misses(), device.host().scratch.mapped());
        for step in 0..2 {
            trainer.step(step).expect("a step");
        }
        let before = from_system();
        for step in 2..8 {
            let count = crate::alloc::allocations(|| assert_eq!(trainer.step(step).expect("a step").bad, None));
            assert_eq!(count, 0, "step {step} asked the global allocator, {more:?}");
        }
        assert_eq!(from_system(), before, "memory was taken from the system, {more:?}");
    }
}

/// A stored Llama has the tensors that Hugging Face's has, and moments under their optimizer's names; a run that goes on
/// keeps both model and optimizer.
#[test]
fn a_llama_is_stored_under_the_names_of_hugging_face() {
    let dir = tempfile::tempdir().expect("a folder");
    let more = ["model.kind=llama", "model.kv_heads=1", "model.hidden=40", "optim.kind=muon", "model.layers=1"];
    let run = train(&recipe(dir.path(), 2, &more), None, &device(), &mut ()).expect("a run").run;
    let [model, optim] = bytes(&run, 2);
    let shapes = |file: &[u8]| -> Vec<(String, Vec<usize>)> {
        let file = safetensors::SafeTensors::deserialize(file).expect("a safetensors file");
        let mut all: Vec<_> = file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec())).collect();
        all.sort();
        all
    };
    let block = |name: &str| format!("model.layers.0.{name}.weight");
    let matrices = [
        (block("mlp.down_proj"), vec![32, 40]),
        (block("mlp.gate_proj"), vec![40, 32]),
        (block("mlp.up_proj"), vec![40, 32]),
        (block("self_attn.k_proj"), vec![16, 32]),
        (block("self_attn.o_proj"), vec![32, 32]),
        (block("self_attn.q_proj"), vec![32, 32]),
        (block("self_attn.v_proj"), vec![16, 32]),
    ];
    let rest = [
        ("lm_head.weight".into(), vec![300, 32]),
        ("model.embed_tokens.weight".into(), vec![300, 32]),
        (block("input_layernorm"), vec![32]),
        (block("post_attention_layernorm"), vec![32]),
        ("model.norm.weight".into(), vec![32]),
    ];
    let mut want = [&matrices[..], &rest].concat();
    want.sort();
    assert_eq!(shapes(&model), want);
    let under = |moment: &str, (name, shape): &(String, Vec<usize>)| (format!("{moment}.{name}"), shape.clone());
    let mut want: Vec<_> = matrices.iter().map(|t| under("momentum_buffer", t)).collect();
    want.extend(rest.iter().flat_map(|t| [under("exp_avg", t), under("exp_avg_sq", t)]));
    want.sort();
    assert_eq!(shapes(&optim), want);

    for set in ["model.kv_heads=2", "model.hidden=64", "model.tied=true", "model.rope_theta=100", "optim.kind=adamw"] {
        let e = Recipe::of_run(&run, &[set.into()]).expect_err(set).to_string();
        assert!(e.starts_with(&format!("{}: a run that goes on keeps its ", set.split('=').next().unwrap())), "{e}");
    }
    // What says the same as before is no change.
    Recipe::of_run(&run, &["model.rope_theta=10000".into(), "optim.muon_lr=0.001".into()]).expect("no other model");
}
