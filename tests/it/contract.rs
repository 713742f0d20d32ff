//! The numeric contract: one hash of all weights and moments after 50 steps, whatever the threads, the instruction set and
//! the step at which a run was taken up again.
//!
//! The hashes stand here as constants, so that processors which never meet are compared with each other: whoever runs this
//! on AVX-512, on AVX2 or on NEON compares with the same numbers. They change when the arithmetic of a step changes, and
//! then for a reason that the commit gives.
#![allow(clippy::print_stdout)] // tests say what they skip

use kiln::cpu::Simd;
use kiln::data::Dataset;
use kiln::data::shard::{ShardFormat, ShardWriter};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::params::Params;
use kiln::rng::{Purpose, Rng};
use kiln::train::checkpoint::{Contents, State};
use kiln::train::{Lm, Recipe, RunDir, Trainer, checkpoint};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

const STEPS: u64 = 50;
const THREADS: [usize; 6] = [1, 2, 3, 5, 8, 16];

/// What is trained, and the hash that it ends with.
struct Case {
    name: &'static str,
    vocab: usize,
    set: &'static str,
    hash: &'static str,
}

/// Two blocks of 64 channels over 32 tokens, with what a kind of model or an optimizer has of its own.
const SMALL: &str = "model.layers=2 model.d=64 train.context=32 train.batch=3 optim.warmup=5 optim.lr=1e-2";

const CASES: [Case; 3] = [
    Case {
        name: "gpt2",
        vocab: 97,
        set: "model.heads=4 model.dropout=0.1 train.accumulate=2",
        hash: "392c541eef8b8615942860b59c4000a783ca2ae821a0dcb1f3e8d5a491483c7c",
    },
    Case {
        name: "llama, with muon",
        vocab: 97,
        set: "model.kind=llama model.heads=4 model.kv_heads=2 optim.kind=muon",
        hash: "e81ad8d56afcd7ee6426c826af1a2407012305c8f5dc32c6730f1512d05d28f1",
    },
    Case {
        name: "gpt2 in bf16",
        vocab: 97,
        set: "model.heads=4 model.dropout=0.1 train.accumulate=2 train.precision=bf16",
        hash: "28d95bd09f801e3c9d2d56b67a65b4c23dd0d2437b194611296533493fb7f6d8",
    },
];

const NANO: Case = Case {
    name: "nano",
    vocab: 8192,
    set: "model.layers=4 model.heads=4 model.d=256 train.context=256 train.batch=4 optim.warmup=5 optim.lr=1e-3",
    hash: "1597e4861f5dcf08b6908e3ce380867b17de61bdfb9e301a7896a6d7d052385b",
};

impl Case {
    fn recipe(&self, dir: &Path) -> Recipe {
        let mut set = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path"))];
        let all = SMALL.split_whitespace().chain(self.set.split_whitespace());
        set.extend(all.map(str::to_owned).chain([format!("train.steps={STEPS}")]));
        Recipe::load(None, &set).expect("a valid recipe")
    }

    /// Random tokens: the hash should not depend on how text becomes tokens.
    fn data(&self, dir: &Path) -> Arc<Dataset> {
        let path = dir.join("tokens.bin");
        if !path.is_file() {
            let mut rng = Rng::new(1, Purpose::Test, 0, 0);
            let tokens: Vec<u32> = (0..20_000).map(|_| rng.below(self.vocab as u32)).collect();
            let mut shard = ShardWriter::create(&path, ShardFormat::Llmc, self.vocab).expect("a shard");
            shard.push(&tokens).expect("written");
            shard.finish().expect("finished");
        }
        Arc::new(Dataset::from_files(&[path], self.vocab, None).expect("a data set"))
    }

    fn trainer(&self, dir: &Path, device: &Device) -> Trainer<Lm> {
        Trainer::new(&self.recipe(dir), self.vocab, self.data(dir), device).expect("a model")
    }
}

/// SHA-256 over the bits of every parameter and its moments, group by group.
fn hash(params: &Params) -> String {
    let mut sum = Sha256::new();
    for id in params.ids() {
        sum.update(params.name(id).as_bytes());
        params.weight(id).f32().iter().for_each(|x| sum.update(x.to_bits().to_le_bytes()));
    }
    for group in params.groups() {
        for slot in 0..group.ids().len() {
            for moment in (0..).map_while(|k| group.moment(k, slot)) {
                moment.f32().iter().for_each(|x| sum.update(x.to_bits().to_le_bytes()));
            }
        }
    }
    kiln::train::tensors::hex(sum)
}

/// Trains from `first` to the end.
fn finish(mut trainer: Trainer<Lm>, first: u64) -> String {
    (first..STEPS).for_each(|step| assert_eq!(trainer.step(step).expect("a step").bad, None));
    hash(&trainer.params)
}

fn every_machine_agrees(case: &Case) {
    let dir = tempfile::tempdir().expect("a folder");
    for simd in Simd::available() {
        for threads in THREADS {
            let got = finish(case.trainer(dir.path(), &Device::cpu_with(simd, threads)), 0);
            let (name, level) = (case.name, simd.name());
            assert_eq!(got, case.hash, "{name} on {level} with {threads} threads");
        }
    }
}

#[test]
fn fifty_steps_end_with_one_hash_on_any_threads_and_instruction_set() {
    CASES.iter().for_each(every_machine_agrees);
}

#[test]
fn a_run_taken_up_at_any_step_ends_with_the_same_hash() {
    for case in &CASES {
        let dir = tempfile::tempdir().expect("a folder");
        let run = RunDir::create(&Os, dir.path(), "run").expect("a run directory");
        let device = Device::cpu(2).expect("a CPU");
        let mut whole = case.trainer(dir.path(), &device);
        for step in 1..STEPS {
            whole.step(step - 1).expect("a step");
            let config = serde_json::json!({});
            let contents = Contents { params: &whole.params, config: &config, files: Vec::new() };
            let path = checkpoint::save(&run, &contents, &state(step)).expect("a checkpoint");
            let mut again = case.trainer(dir.path(), &device);
            checkpoint::load(&Os, &path, &mut again.params).expect("it loads");
            assert_eq!(finish(again, step), case.hash, "{} taken up after step {step}", case.name);
        }
    }
}

fn state(step: u64) -> State {
    State { step, optimizer_steps: step, ..State::new(1) }
}

#[test]
fn at_the_size_of_nano_too_where_time_allows() {
    match std::env::var_os("KILN_SOAK") {
        Some(_) => every_machine_agrees(&NANO),
        None => println!("skipped: up to an hour; tests/soak.sh runs it"),
    }
}
