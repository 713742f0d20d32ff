//! The plan of a run's memory against what the run then takes.

use kiln::device::Device;
use kiln::train::{Event, Plan, Recipe, Watch, fit, train};

/// A small run in a fresh folder, its settings over the base.
fn recipe(dir: &std::path::Path, set: &str) -> Recipe {
    let base = "train.steps=4 train.eval_every=3 train.checkpoint_every=2 train.sample_every=0 sample.tokens=9 \
                model.heads=2 data.vocab=300 data.bytes=60000 optim.warmup=2 eval.max_batches=2";
    let mut all = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path"))];
    all.extend(base.split_whitespace().chain(set.split_whitespace()).map(str::to_owned));
    Recipe::load(None, &all).expect("a valid recipe")
}

/// Keeps the plan that a run announces.
#[derive(Default)]
struct Announced(Option<Plan>);

impl Watch for Announced {
    fn event(&mut self, event: &Event) {
        if let Event::Memory { plan } = event {
            self.0 = Some(**plan);
        }
    }
}

#[test]
fn a_run_takes_the_bytes_of_its_plan_exactly() {
    let mut totals = Vec::new();
    for (threads, set) in [
        (1, "model.layers=1 model.d=32 train.batch=2 train.context=16"),
        (2, "model.layers=1 model.d=32 train.batch=2 train.context=16"),
        (3, "model.layers=3 model.d=32 train.batch=2 train.context=16 model.dropout=0.1"),
        (2, "model.layers=3 model.d=64 train.batch=16 train.context=64"),
        (2, "model.layers=3 model.d=64 train.batch=16 train.context=64 train.recompute=true"),
        (2, "model.layers=3 model.d=64 train.batch=16 train.context=64 train.recompute=true model.dropout=0.1"),
        (2, "model.layers=2 model.d=64 train.batch=4 train.context=64 train.accumulate=4 model.bias=false"),
        (2, "model.layers=3 model.d=65 model.heads=1 train.batch=16 train.context=64 train.precision=bf16"),
        // One long sequence: attention shares a head's rows out among the threads.
        (2, "model.layers=2 model.d=64 train.batch=1 train.context=500"),
        (4, "model.layers=2 model.d=64 train.batch=3 train.context=100 train.eval_every=1 data.tokenizer=byte"),
        (1, "model.kind=llama model.layers=2 model.d=32 train.batch=2 train.context=16"),
        (3, "model.kind=llama model.layers=3 model.d=64 train.batch=5 train.context=64 train.recompute=true"),
        (1, "model.layers=1 model.d=32 train.batch=2 train.context=16 optim.kind=muon"),
        (2, "model.kind=llama model.layers=2 model.d=64 train.batch=4 train.context=64 optim.kind=muon"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let device = Device::cpu(threads).expect("a CPU");
        let mut announced = Announced::default();
        let summary = train(&recipe(dir.path(), set), None, &device, &mut announced).expect("a run");
        let plan = summary.memory;
        let [tensors, scratch] = device.mapped_bytes();
        assert_eq!((plan.total, plan.scratch), (tensors + scratch, scratch), "{threads} threads, {set}: {plan}");
        assert_eq!(announced.0, Some(plan));
        let Plan { weights, gradients, moments, activations, samples, .. } = plan;
        assert_eq!(weights + gradients + moments + activations + samples, tensors);
        // Muon keeps one moment of a matrix, AdamW two of everything.
        let expected = if set.contains("muon") { weights..2 * weights } else { 2 * weights..2 * weights + 1 };
        assert!(gradients == weights && expected.contains(&moments), "{set}: {plan}");
        totals.push(activations);
    }
    assert!(totals[4] < totals[3], "recomputing needs less: {totals:?}");
}

#[test]
fn texts_take_no_more_than_the_plan_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let device = Device::cpu(2).expect("a CPU");
    let set = "model.layers=2 model.d=32 train.batch=2 train.context=32 train.sample_every=1 sample.tokens=60";
    let plan = train(&recipe(dir.path(), set), None, &device, &mut ()).expect("a run").memory;
    let taken = device.mapped_bytes().iter().sum::<usize>();
    assert!(taken <= plan.total, "{taken} bytes; {plan}");
}

#[test]
fn planning_touches_no_memory_and_a_limit_below_the_plan_refuses_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let device = Device::cpu(2).expect("a CPU");
    // 12 GiB and more, several times what a test may take.
    let recipe = recipe(dir.path(), "model.layers=12 model.d=1024 train.batch=32 train.context=512");
    let plan = Plan::new(&recipe, 50_000, 1, &device, 1 << 40).expect("below the limit");
    assert!(plan.total > 12 << 30, "{plan}");
    assert_eq!(device.mapped_bytes(), [0, 0]);
    let limit = |bytes| fit::within(&recipe, 50_000, 1, &device, Some(bytes as u64));
    assert_eq!(limit(plan.total).expect("it just fits").total, plan.total);
    assert!(limit(plan.total - 1).is_err());
}
