//! Fine-tuning: what is learnt and what is not, adapters in their files, and that neither packing nor micro-batches change the loss.

use crate::watch::StopAfter;
use kiln::data::examples::{Example, RowMut, Rows};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::formats::convert::{Target, convert};
use kiln::model::sample::SampleOptions;
use kiln::model::sequence::{Wish, answers, generate};
use kiln::model::{Gpt, GptConfig, Size};
use kiln::params::{Hold, Params};
use kiln::study::Seed;
use kiln::study::tune::{Settings, study};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use kiln::train::sampler::{adapted, model};
use kiln::train::tune::TUNE;
use kiln::train::{AnyRecipe, Recipe, Summary, Watch, checkpoint, metrics, train};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub fn device() -> Device {
    Device::cpu(2).expect("a CPU")
}

/// A model of two small blocks that has read a village for a moment.
pub fn base() -> &'static Path {
    static BASE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &BASE
        .get_or_init(|| {
            let dir = tempfile::tempdir().expect("a folder");
            let small = "run.name=base model.kind=llama model.kv_heads=1 model.layers=2 model.heads=2 model.d=32 \
                         data.vocab=300 data.bytes=60000 train.batch=4 train.context=64 train.sample_every=0 \
                         train.steps=30 train.eval_every=30 eval.max_batches=1";
            let mut set: Vec<String> = small.split_whitespace().map(str::to_owned).collect();
            set.push(format!("run.dir={:?}", dir.path().to_str().expect("UTF-8")));
            let recipe = Recipe::load(None, &set).expect("a recipe");
            let run = train(&recipe, None, &device(), &mut ()).expect("a run").run;
            (dir, run)
        })
        .1
}

/// Questions whose answers follow from a rule, some of them long.
fn examples(dir: &Path) -> PathBuf {
    let line = |i: usize| {
        let (name, long) = (["Ann", "Bob", "Cid"][i % 3], "very ".repeat(i % 5));
        format!("{{\"prompt\": \"Who is {long}number {i}?\", \"completion\": \" {name} is {long}it.\"}}\n")
    };
    let path = dir.join("who.jsonl");
    std::fs::write(&path, (0..60).map(line).collect::<String>()).expect("written");
    path
}

fn recipe(dir: &Path, more: &[&str]) -> AnyRecipe {
    let path = |path: &Path| format!("{:?}", path.to_str().expect("UTF-8"));
    let mut set = vec![
        format!("run.dir={}", path(dir)),
        format!("model.base={}", path(base())),
        format!("data.path={}", path(&examples(dir))),
    ];
    let small = "model.rank=4 optim.lr=1e-2 optim.warmup=1 train.batch=2 train.steps=24 train.checkpoint_every=6 \
                 data.val_fraction=0.2";
    set.extend(small.split_whitespace().chain(more.iter().copied()).map(str::to_owned));
    AnyRecipe::load(None, TUNE, &set).expect("a recipe")
}

fn tuned(dir: &Path, more: &[&str], watch: &mut dyn Watch) -> Summary {
    recipe(dir, more).run(&Os, None, &device(), watch).expect("a run")
}

pub fn losses(run: &Path) -> Vec<f32> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
    records.iter().map(|record| record.loss).collect()
}

/// The held-out loss before and after.
fn held_out(summary: &Summary) -> [f64; 2] {
    let records = metrics::read(&Os, &summary.run.join("metrics.jsonl")).expect("metrics");
    let last = records.last().expect("a step");
    [last.more["val_before"], last.val_loss.expect("it was evaluated")]
}

#[test]
fn every_method_learns_and_a_stopped_run_goes_on_bit_for_bit() {
    let dropout = ["model.dropout=0.1", "model.targets=[\"q_proj\", \"v_proj\", \"mlp.*\"]"];
    let methods: [&[&str]; 5] = [
        &dropout,
        &["model.method=dora", "model.rslora=true"],
        &["model.method=full", "optim.lr=5e-3", "model.freeze=[\"layers.0.*\"]"],
        &["model.frozen=q4", "train.recompute=true"],
        &["model.frozen=q8", "train.precision=bf16", "data.packing=false"],
    ];
    for more in methods {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = tuned(dir.path(), more, &mut ());
        let [before, after] = held_out(&whole);
        assert!(after < before - 0.08, "{more:?}: {before} to {after}");
        let stopped = tuned(dir.path(), more, &mut StopAfter::new(13));
        assert_eq!(stopped.stopped, Some(15));
        let recipe = AnyRecipe::of_run(&stopped.run, &[]).expect("the run's recipe");
        let resumed = recipe.run(&Os, Some(&stopped.run), &device(), &mut ()).expect("the run goes on");
        assert_eq!(losses(&resumed.run), losses(&whole.run), "{more:?}");
        assert_eq!(held_out(&resumed), held_out(&whole), "{more:?}");
    }
}

#[test]
fn one_times_eight_is_eight_times_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let of = |batch: &str| {
        losses(
            &tuned(
                dir.path(),
                &[
                    "data.packing=false",
                    "train.steps=4",
                    batch,
                    if batch.ends_with('8') { "train.accumulate=1" } else { "train.accumulate=8" },
                ],
                &mut (),
            )
            .run,
        )
    };
    let (wide, deep) = (of("train.batch=8"), of("train.batch=1"));
    for (wide, deep) in wide.iter().zip(&deep) {
        assert!((wide / deep - 1.0).abs() < 1e-5, "{wide} {deep}");
    }
    // Examples differ in length: the mean of eight means would be another loss.
    assert_eq!(wide.len(), 4);
}

#[test]
fn general_text_is_learnt_along_and_judged_and_answers_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = dir.path().join("general.jsonl");
    let line = |i: usize| {
        format!("{{\"text\": \"{}\"}}\n", format!("The number {i} comes after {}. ", i.max(1) - 1).repeat(4))
    };
    std::fs::write(&text, (0..60).map(line).collect::<String>()).expect("written");
    let replay = format!("data.replay={:?}", text.to_str().expect("UTF-8"));
    let whole = ["model.method=full", "optim.lr=1e-2", "train.steps=40", "sample.exact=8", "data.replay_share=0.5"];
    let more: Vec<&str> = whole.iter().copied().chain([&*replay]).collect();
    let run = tuned(dir.path(), &more, &mut ());
    let records = metrics::read(&Os, &run.run.join("metrics.jsonl")).expect("metrics");
    let found = &records.last().expect("a step").more;
    assert!(found["val_general"] < 0.8 * found["val_general_before"], "{found:?}");
    assert!((0.0..=1.0).contains(&found["val_exact"]));
    // Without replay it is not judged.
    let plain = tuned(dir.path(), &whole, &mut ());
    let records = metrics::read(&Os, &plain.run.join("metrics.jsonl")).expect("metrics");
    assert!(!records.last().expect("a step").more.contains_key("val_general"));
}

#[test]
fn fresh_weights_are_a_control() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = |more: &[&str]| {
        losses(&tuned(dir.path(), &[&["model.method=full", "train.steps=1"], more].concat(), &mut ()).run)[0]
    };
    let (tuned, fresh) = (first(&[]), first(&["model.fresh=true"]));
    // The base has learnt a little; 300 ids are chosen from blindly without.
    assert!(tuned < fresh - 0.3 && (fresh - 300f32.ln()).abs() < 0.3, "{tuned} {fresh}");
}

#[test]
fn answers_written_side_by_side_are_those_written_alone() {
    let (gpt, params, _) = packed();
    let mut tape = Tape::new(&device());
    let prompts: Vec<Vec<u32>> = (0..70).map(|i| (0..1 + i % 9).map(|j| (i * 3 + j * j) % 50).collect()).collect();
    let views: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let options = SampleOptions { tokens: 40, temperature: 0.9, seed: 5, ..SampleOptions::default() };
    let stop = [7, 11];
    let together = answers(&gpt, &params, &mut tape, &views, &stop, &|_| options, &mut |_, _, _| Wish::More);
    for (prompt, together) in prompts.into_iter().zip(together) {
        let mut alone = Vec::new();
        generate(&gpt, &params, &mut tape, prompt, &stop, &options, &mut |id| {
            alone.push(id);
            true
        });
        assert_eq!(together, alone);
    }
}

#[test]
fn a_study_asks_about_whom_it_was_not_tuned_on_and_goes_on_from_what_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        texts: 150,
        base_steps: 12,
        tune_steps: 3,
        full_lrs: vec![1e-3],
        lora_lrs: vec![1e-2],
        unread: 150,
        ..Settings::default()
    };
    let mut again = Vec::new();
    let ask = |told: &mut dyn FnMut(&str)| {
        let mut at = Seed { seed: 2, dir: dir.path(), device: &device(), told, watch: &mut () };
        study(&settings, &mut at).expect("a study")
    };
    let first = ask(&mut |_| {});
    let names: Vec<&str> = first.models.iter().map(|model| model.name).collect();
    assert_eq!(names, ["before", "all weights", "LoRA, rank 8", "fresh weights"]);
    let [entities, people, other] = first.questions;
    assert!(entities > 5 && people > 100 && other > 20, "{:?}", first.questions);
    assert!((0.0..0.5).contains(&first.commonest), "{}", first.commonest);
    assert!(first.models[2].trained > 0.01 && first.models[2].trained < 0.2 && first.models[1].trained == 1.0);
    let read = std::fs::read_to_string(dir.path().join("questions.jsonl")).expect("questions");
    let world = kiln::data::world::World::new(2);
    let asked: Vec<_> = world.lessons().into_iter().filter(|lesson| lesson.held_out).collect();
    assert!(asked.iter().all(|lesson| !read.contains(&lesson.question)), "nothing that is asked is tuned on");
    let second = ask(&mut |what| again.push(what.to_owned()));
    assert_eq!(
        second.models.iter().map(|m| m.people).collect::<Vec<_>>(),
        first.models.iter().map(|m| m.people).collect::<Vec<_>>()
    );
    assert_eq!(again.len(), 4);
}

/// A model with random weights on whose rows examples of several lengths lie.
fn packed() -> (Gpt, Params, Rows) {
    let device = device();
    let config =
        GptConfig { kv_heads: 1, ..GptConfig::gpt2(Size { vocab: 50, context: 32, layers: 2, heads: 2, d: 32 }) };
    let (gpt, decls) = Gpt::new(config);
    let params = Params::new(&device, &decls, 1);
    let example = |i: usize| {
        let ids: Vec<u32> = (0..3 + i * 5 % 17).map(|j| (7 * i + j * j) as u32 % 50).collect();
        let trained = (0..ids.len()).map(|j| j > i % 3).collect();
        Example { ids, trained, source: Default::default(), key: 0 }
    };
    (gpt, params, Rows::new((0..12).map(example).collect(), 32, false))
}

#[test]
fn packed_examples_are_read_as_if_each_stood_alone() {
    let (gpt, mut params, rows) = packed();
    let device = device();
    assert!(rows.len() < 7, "{} rows", rows.len());
    let ids = |x: &[i32]| Tensor::from_slice(&device, x, [1, x.len()]);
    let mut tape = Tape::new(&device);
    let mut packed = 0.0;
    for row in 0..rows.len() {
        let (mut x, mut y, mut w, mut p) = ([0; 32], [0; 32], [0.0; 32], [0; 32]);
        rows.fill(row, 1.0, RowMut { ids: &mut x, targets: &mut y, weights: &mut w, places: &mut p });
        tape.begin(&params, Pass::default());
        let given = [&x, &y, &p].map(|x| tape.constant(ids(x)));
        let weights = tape.constant(Tensor::from_slice(&device, &w, [1, 32]));
        let loss = gpt.packed_loss(given, weights, 1.0);
        packed += f64::from(loss.value().item());
        loss.backward(&mut params, row + 1 == rows.len());
    }
    let grads: Vec<Vec<f32>> = params.ids().map(|id| params.grad(id).expect("written").f32().to_vec()).collect();
    params.clear_grads();
    let (mut alone, all) = (0.0, rows.examples().len());
    for (i, example) in rows.examples().iter().enumerate() {
        let n = example.ids.len() - 1;
        let tokens: Vec<i32> = example.ids.iter().map(|&id| id as i32).collect();
        let w: Vec<f32> = example.trained[1..].iter().map(|&trained| f32::from(u8::from(trained))).collect();
        tape.begin(&params, Pass::default());
        let [x, y] = [&tokens[..n], &tokens[1..]].map(|x| tape.constant(ids(x)));
        let loss = gpt.loss(x, y, Some(tape.constant(Tensor::from_slice(&device, &w, [1, n]))), Some(1.0));
        alone += f64::from(loss.value().item());
        loss.backward(&mut params, i + 1 == all);
    }
    assert!((packed / alone - 1.0).abs() < 1e-6, "{packed} {alone}");
    for (id, packed) in params.ids().zip(grads) {
        let grad = params.grad(id).expect("written");
        let largest = grad.f32().iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let off = grad.f32().iter().zip(&packed).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(off <= 2e-5 * largest, "{}: off by {off} of {largest}", params.name(id));
    }
}

/// The logits of a model for some ids.
fn logits(path: &Path, adapters: &[PathBuf], hold: Hold) -> Vec<f32> {
    let device = device();
    let (gpt, params) = adapted(path, adapters).expect("a model").0.load(hold, &device).expect("weights");
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let ids: Vec<i32> = (0..40).map(|i| i * 7 % 256).collect();
    gpt.logits(tape.constant(Tensor::from_slice(&device, &ids, [1, 40]))).value().f32().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn an_adapter_is_alone_in_its_checkpoint_is_merged_when_it_is_opened_and_goes_home_in_a_model() {
    let dir = tempfile::tempdir().expect("a folder");
    for method in ["model.method=lora", "model.method=dora"] {
        let run = tuned(dir.path(), &[method, "run.name=a"], &mut ()).run;
        let last = run.join("checkpoints/step-000024");
        assert!(!last.join("model.safetensors").exists() && !last.join("config.json").exists());
        let file = std::fs::read(last.join("adapter_model.safetensors")).expect("it is there");
        let file = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
        let a = "base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight";
        assert_eq!(file.tensor(a).expect("it is there").shape(), [4, 32]);
        let each = if method.ends_with("dora") { 3 } else { 2 };
        assert_eq!(file.names().len(), each * 7 * 2);
        let config = std::fs::read_to_string(last.join("adapter_config.json")).expect("it is there");
        let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!((&config["peft_type"], &config["r"]), (&"LORA".into(), &4.into()));
        assert_eq!(config["target_modules"].as_array().expect("a list").len(), 7);

        // Unmerged, as in training: the base and the adapter's parameters beside it.
        let base = model(base()).expect("the base").0;
        let (mut gpt, mut decls) = Gpt::new(base.config.clone());
        let dora = method.ends_with("dora");
        let lora = kiln::nn::LoraConfig { rank: 4, alpha: 16.0, dropout: 0.0, rslora: false, dora };
        gpt.adapt(&mut decls, &lora, &|_| true);
        let mut params = Params::frozen(&device(), &decls, Hold::Frozen);
        base.weights.load(&mut params).expect("weights");
        checkpoint::load_weights(&Os, &last.join("adapter_model.safetensors"), &mut params).expect("an adapter");
        let mut tape = Tape::new(&device());
        tape.begin(&params, Pass::default());
        let ids: Vec<i32> = (0..40).map(|i| i * 7 % 256).collect();
        let unmerged = gpt.logits(tape.constant(Tensor::from_slice(&device(), &ids, [1, 40]))).value().f32().to_vec();

        let merged = logits(&run, &[], Hold::Frozen);
        let plain = logits(self::base(), &[], Hold::Frozen);
        let apart = largest_difference(&merged, &unmerged);
        assert!(apart < 1e-4, "{method}: merged and unmerged logits differ by {apart}");
        assert!(largest_difference(&merged, &plain) > 0.1, "the adapter does something");
        assert!(!kiln::train::pictures::sampler::draws(&run).expect("a run"), "it writes text");
        // Swapped in at load, and as a model of its own.
        assert!(logits(self::base(), std::slice::from_ref(&run), Hold::Frozen) == merged);
        let out = dir.path().join(format!("home-{dora}"));
        convert(&model(&run).expect("a model").0, &out, Target::Hf, None, &mut |_, _| {}).expect("written");
        assert!(logits(&out, &[], Hold::Frozen) == merged);
        assert!(out.join("chat_template.jinja").is_file(), "the template that it was taught with goes along");
        // A second one on top: each adds what it adds.
        let twice = logits(&run, std::slice::from_ref(&run), Hold::Frozen);
        assert!(largest_difference(&twice, &merged) > 0.1);
    }
}

#[test]
fn an_adapter_of_another_model_or_without_its_base_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = tuned(dir.path(), &["train.steps=1", "run.name=a"], &mut ()).run;
    let adapter = dir.path().join("adapter");
    std::fs::create_dir(&adapter).expect("a folder");
    let last = run.join("checkpoints/step-000001");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(last.join(name), adapter.join(name)).expect("copied");
    }
    assert!(logits(&adapter, &[], Hold::Frozen) == logits(&run, &[], Hold::Frozen));
    let text = std::fs::read_to_string(adapter.join("adapter_config.json")).expect("it is there");
    let refused = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(adapter.join("adapter_config.json"), text.replace(from, to)).expect("written");
        let error = model(&adapter).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected) && error.hint().is_some(), "{error}");
    };
    refused("\"LORA\"", "\"IA3\"", "peft_type: expected \"LORA\"");
    refused("\"bias\": \"none\"", "\"bias\": \"all\"", "bias: expected \"none\"");
    refused("\"use_dora\": false", "\"use_dora\": true", "of a DoRA, a vector");
    refused("checkpoints", "chequepoints", "which is not there");
    let circle = serde_json::json!({"peft_type": "LORA", "base_model_name_or_path": adapter.to_str(), "r": 4,
        "lora_alpha": 8, "target_modules": []});
    std::fs::write(adapter.join("adapter_config.json"), circle.to_string()).expect("written");
    assert!(model(&adapter).map(|_| ()).unwrap_err().to_string().contains("found a circle"));
    let error = adapted(base(), &[base().to_owned()]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("is no adapter"), "{error}");
}

#[test]
fn settings_that_do_not_fit_are_refused_by_their_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |more: &[&str], key: &str| {
        let error = recipe(dir.path(), more).run(&Os, None, &device(), &mut ()).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with(key), "{more:?}: {error}");
        assert!(error.hint().is_some(), "{error}");
    };
    refused(&["model.targets=[\"query\"]"], "model.targets");
    refused(&["train.context=65"], "train.context");
    refused(&["model.method=full", "model.freeze=[\"*\"]"], "model.freeze");
    refused(&["data.val_fraction=0.000001"], "data.val_fraction");
    let wrong = |set: &[&str], key: &str| {
        let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
        let error = AnyRecipe::load(None, TUNE, &set).unwrap_err();
        assert!(error.to_string().starts_with(key), "{set:?}: {error}");
    };
    wrong(&[], "model.base");
    wrong(&["model.base=x"], "data.path");
    wrong(&["model.base=x", "data.path=y", "model.rank=0"], "model.rank");
    wrong(&["model.base=x", "data.path=y", "model.targets=[\"[\"]"], "model.targets");
    wrong(&["model.base=x", "data.path=y", "model.alpha=0"], "model.alpha");
    wrong(&["model.base=x", "data.path=y", "data.epochs=0"], "data.epochs");
}

/// As `tests/reference/adapter.py` says.
#[test]
#[allow(clippy::print_stdout)]
fn an_adapter_gives_the_logits_that_peft_gives() {
    let variables = ["KILN_ADAPTER", "KILN_ADAPTER_LOGITS"].map(|name| std::env::var(name).ok());
    let [Some(adapter), Some(file)] = variables else {
        println!("skipped: KILN_ADAPTER and KILN_ADAPTER_LOGITS are not set (tests/reference/adapter.py)");
        return;
    };
    let bytes = std::fs::read(file).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<[u8; 4]> {
        let data = file.tensor(name).expect("it is there").data();
        data.chunks_exact(4).map(|word| word.try_into().expect("4 bytes")).collect()
    };
    let ids: Vec<i32> = words("ids").into_iter().map(i32::from_le_bytes).collect();
    let want: Vec<f32> = words("logits").into_iter().map(f32::from_le_bytes).collect();
    let device = device();
    let (gpt, params) = model(Path::new(&adapter)).expect("a model").0.load(Hold::Frozen, &device).expect("weights");
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let got = gpt.logits(tape.constant(Tensor::from_slice(&device, &ids, [1, ids.len()]))).value();
    let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let off = largest_difference(got.f32(), &want) / largest;
    println!("{} logits, off by {off:e} of the largest", want.len());
    assert!(off <= 1e-4, "off by {off}");
}
