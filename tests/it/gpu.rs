//! Operations and training on a GPU: a simulated one, which checks every access of every kernel, or with
//! `KILN_TEST_GPU=cuda` this machine's own.
#![allow(clippy::print_stdout)] // with --nocapture the sweep prints its table

use crate::ops::{case, checks};
use kiln::cpu::Cpu;
use kiln::data::{Dataset, Part};
use kiln::device::cuda::Cuda;
use kiln::device::sim::Options;
use kiln::device::{Device, Driver, Sim};
use kiln::ops::{TABLE, check};
use kiln::params::Params;
use kiln::tensor::Tensor;
use kiln::train::trainer::Bad;
use kiln::train::{Event, Lm, Recipe, Trainer, Watch, checkpoint, source, train};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The GPU that is tested.
pub fn gpu(check: bool) -> Device {
    match std::env::var("KILN_TEST_GPU").as_deref() {
        Ok("cuda") => over(Cuda::new().expect("a GPU that can be used")),
        Ok(name) => panic!("KILN_TEST_GPU = {name:?}: cuda, or leave it out for a simulated one"),
        Err(_) => sim(check),
    }
}

/// A simulated GPU, with all checks or with none.
pub fn sim(check: bool) -> Device {
    over(Sim::new(Options { threads: 2, ..Options::new(check).expect("a simulated device") }))
}

/// The device that a driver gives.
pub fn over(driver: impl Driver + 'static) -> Device {
    Device::gpu(Arc::new(driver), Cpu::new(2).expect("a CPU")).expect("a GPU")
}

#[test]
fn kernels_match_the_f64_reference_in_f32() {
    let device = gpu(true);
    let rounded = |(name, i): &(&str, usize)| case(name, *i).inputs.iter().any(|input| input.rounded);
    // Cases that round to bf16 have their turn below.
    let (mut done, mut failures) = (BTreeMap::new(), Vec::new());
    for (name, i) in checks().filter(|at| !rounded(at)) {
        match check::check(case(name, i), &device) {
            Ok(()) => count(&mut done, name, i),
            Err(error) if refused(name, &error) => {}
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    table("f32", &done);
}

/// Operations that the CPU alone can do.
const HOST_ONLY: [&str; 1] = ["dora"];

/// Whether a GPU says that it cannot do a case, and is known not to be able to.
fn refused(name: &str, error: &str) -> bool {
    error.contains(kiln::ops::attention::PACKED) || (HOST_ONLY.contains(&name) && error.contains("has no kernels"))
}

/// Cases of each operation that hold: forward, and those of them whose gradients were checked too.
type Done = BTreeMap<&'static str, [usize; 2]>;

fn count(done: &mut Done, name: &'static str, i: usize) {
    let [forward, backward] = done.entry(name).or_default();
    *forward += 1;
    *backward += usize::from(case(name, i).inputs.iter().any(|input| input.grad));
}

/// Prints the table; no operation that a GPU can do may be without a case.
fn table(dtype: &str, done: &Done) {
    println!("{:16} {dtype:>5} forward  backward", "operation");
    for entry in TABLE.iter().filter(|entry| !HOST_ONLY.contains(&entry.name)) {
        let [forward, backward] = done.get(entry.name).unwrap_or_else(|| panic!("{}: no case in {dtype}", entry.name));
        println!("{:16} {forward:>13} {backward:>9}", entry.name);
    }
}

/// Rows of operands of tensor cores are multiples of 16 bytes, and heads have 32, 64 or 128 channels; what is not is refused
/// by name.
#[test]
fn kernels_match_the_f64_reference_in_bf16() {
    let device = gpu(true);
    let mut done = Done::new();
    let mut failures = Vec::new();
    for (name, i) in checks() {
        match check::check(check::in_bf16(case(name, i)), &device) {
            Ok(()) => count(&mut done, name, i),
            Err(error)
                if refused(name, &error)
                    || error.contains("no multiples of 16 bytes")
                    || error.contains("no kernel for heads of") => {}
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    table("bf16", &done);
}

/// A run of one or two small blocks on a small village.
fn recipe(dir: &Path, more: &[&str]) -> Recipe {
    let mut set = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path"))];
    let small = "run.name=tiny model.layers=2 model.heads=2 model.d=64 data.vocab=300 data.bytes=60000 train.batch=2 \
                 train.context=32 train.sample_every=0 optim.warmup=1 train.steps=6 train.checkpoint_every=3 \
                 train.eval_every=6 eval.max_batches=2";
    set.extend(small.split_whitespace().map(str::to_owned));
    set.extend(more.iter().map(|s| s.to_string()));
    Recipe::load(None, &set).expect("a valid recipe")
}

const LLAMA: [&str; 2] = ["model.kind=llama", "model.kv_heads=1"];
const DROPOUT: [&str; 2] = ["train.accumulate=2", "model.dropout=0.1"];

/// The losses and the norms of some steps of a run on `device`.
pub fn losses(more: &[&str], device: &Device, steps: u64) -> Vec<[f64; 2]> {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), more);
    let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
    let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
    let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, device).expect("a model");
    let step = |i| trainer.step(i).expect("a step");
    (0..steps).map(step).map(|step| [f64::from(step.loss), step.grad_norm]).collect()
}

#[test]
fn training_follows_the_cpu() {
    let recompute = [&LLAMA[..], &["train.recompute=true"]].concat();
    for (more, bf16) in [(&DROPOUT[..], false), (&LLAMA, false), (&recompute, true), (&DROPOUT, true)] {
        let more = if bf16 { [more, &["train.precision=bf16"]].concat() } else { more.to_vec() };
        // The third step is recorded, and the fourth does again what was.
        let cpu = losses(&more, &Device::cpu(2).expect("a CPU"), 4);
        let gpu = losses(&more, &gpu(false), 4);
        let bounds = if bf16 { [2e-2, 5e-2] } else { [1e-4, 1e-3] };
        for (i, (want, got)) in cpu.iter().zip(&gpu).enumerate() {
            for k in 0..2 {
                let error = (got[k] / want[k] - 1.0).abs();
                assert!(error < bounds[k], "{more:?}, step {i}: {got:?} on the GPU, {want:?} on the CPU");
            }
        }
    }
}

#[test]
fn a_run_on_a_gpu_resumes_with_the_same_bytes() {
    let bytes = |run: &Path| {
        let dir = run.join("checkpoints/step-000006");
        [checkpoint::MODEL, checkpoint::OPTIM].map(|file| std::fs::read(dir.join(file)).expect("a checkpoint"))
    };
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), &["train.precision=bf16"]);
    let whole = train(&recipe, None, &gpu(false), &mut ()).expect("a run");
    let before = bytes(&whole.run);
    std::fs::remove_dir_all(whole.run.join("checkpoints/step-000006")).expect("it is there");
    let again = train(&recipe, Some(&whole.run), &gpu(false), &mut ()).expect("it goes on");
    assert!(bytes(&again.run) == before, "a resumed run differs");
    assert_eq!((again.loss, again.val_loss), (whole.loss, whole.val_loss));

    // On another device it says so.
    #[derive(Default)]
    struct Warnings(Vec<String>);
    impl Watch for Warnings {
        fn event(&mut self, event: &Event) {
            if let Event::Warning { text } = event {
                self.0.push(text.to_string());
            }
        }
    }
    std::fs::remove_dir_all(whole.run.join("checkpoints/step-000006")).expect("it is there");
    let (mut watch, cpu) = (Warnings::default(), Device::cpu(2).expect("a CPU"));
    train(&recipe, Some(&whole.run), &cpu, &mut watch).expect("it goes on");
    assert!(watch.0.iter().any(|text| text.contains("on the gpu so far and goes on on the cpu")), "{:?}", watch.0);
}

#[test]
fn a_bad_gradient_on_a_gpu_changes_nothing_and_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = recipe(dir.path(), &[]);
    let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
    let tokens = Arc::new(Dataset::open(&data, Part::Train).expect("a data set"));
    let mut trainer = Trainer::new(&recipe, tokens.vocab_size(), tokens, &gpu(false)).expect("a model");
    trainer.step(0).expect("a step");
    let weights = |trainer: &Trainer<Lm>| -> Vec<u32> {
        let ids = trainer.params.ids();
        ids.flat_map(|id| trainer.params.weight(id).read::<f32>().into_owned()).map(f32::to_bits).collect()
    };
    let before = weights(&trainer);
    let id = trainer.params.find("h.0.mlp.c_fc.weight").expect("it is there");
    let mut spoil = |_, params: &mut Params, _: &mut Tensor| assert!(params.edit_grad(id, |grad| grad[7] = f32::NAN));
    assert_eq!(trainer.step_with(1.into(), Some(&mut spoil)).expect("a step").bad, Some(Bad::Grad(id)));
    // Too large for a second moment in f32.
    let mut spoil = |_, params: &mut Params, _: &mut Tensor| assert!(params.edit_grad(id, |grad| grad[7] = 3e19));
    assert_eq!(trainer.step_with(1.into(), Some(&mut spoil)).expect("a step").bad, Some(Bad::Grad(id)));
    let mut spoil =
        |_, _: &mut Params, loss: &mut Tensor| *loss = Tensor::from_slice(loss.device(), &[f32::INFINITY], [1]);
    assert_eq!(trainer.step_with(1.into(), Some(&mut spoil)).expect("a step").bad, Some(Bad::Loss));
    assert!(weights(&trainer) == before, "a bad step changed weights");
    assert_eq!(trainer.step(1).expect("a step").bad, None);
    assert!(weights(&trainer) != before);
}

#[test]
fn what_has_no_kernels_is_refused_by_key() {
    let dir = tempfile::tempdir().expect("a folder");
    for (more, key) in [
        (&["optim.kind=muon"][..], "optim.kind"),
        (&["train.precision=bf16", "model.d=32"], "model.heads"),
        (&["model.d=512"], "model.heads"),
        (&["train.precision=bf16", "model.kind=llama", "model.hidden=100"], "model.d"),
    ] {
        let error = train(&recipe(dir.path(), more), None, &gpu(false), &mut ()).expect_err("no kernels");
        assert!(error.to_string().contains(key), "{more:?}: {error}");
    }
}
