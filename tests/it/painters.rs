//! Whole runs of models of pictures on the built-in world: what they leave behind, that resuming and threads change nothing,
//! and that settings which cannot be are refused.

use crate::alloc::allocations;
use crate::train::tensorboard::pictures;
use crate::watch::StopAfter;
use kiln::data::images::world::Format;
use kiln::data::images::{Idx, Shapes, Sheet};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::params::MEAN;
use kiln::train::pictures::codes::Coder;
use kiln::train::pictures::exam::{Candidate, examine};
use kiln::train::pictures::gan::GanRecipe;
use kiln::train::pictures::sampler::{PictureSampler, draws};
use kiln::train::pictures::vae::{CONV, VaeRecipe};
use kiln::train::pictures::{GanTask, VaeTask, VqVaeTask, gan, vae, vqvae};
use kiln::train::recipe::{Architecture, RecipeOf, Section};
use kiln::train::task::{RecipeFor, Task};
use kiln::train::{AnyRecipe, Summary, checkpoint, metrics, run};
use std::path::Path;

/// Settings of a tiny run in `dir`, over the text of a recipe.
fn recipe<M: Architecture, D: Section, S: Section>(text: &str, dir: &Path, more: &str) -> RecipeOf<M, D, S> {
    let set = "run.name=tiny train.steps=6 train.batch=8 train.eval_every=3 train.checkpoint_every=3 train.sample_every=3 \
               data.count=400 data.size=16 sample.rows=2 sample.columns=4";
    let mut all = vec![format!("run.dir={:?}", dir.to_str().expect("a UTF-8 path"))];
    all.extend(set.split_whitespace().chain(more.split_whitespace()).map(str::to_owned));
    RecipeOf::from_toml(text, Path::new("tiny.toml"), &all).expect("a valid recipe")
}

const SMALL_VAE: &str = "model.hidden=24 model.latent=5";
const SMALL_VQVAE: &str = "model.channels=[4,6] model.codes=12 model.width=3";
const SMALL_GAN: &str = "model.latent=6 model.g=4 model.d=4";

fn device(threads: usize) -> Device {
    Device::cpu(threads).expect("a CPU")
}

fn train<T: Task>(recipe: &RecipeFor<T>, threads: usize) -> Summary {
    run::<T>(&Os, recipe, None, &device(threads), &mut ()).expect("a run")
}

fn bytes(run: &Path, step: u64) -> [Vec<u8>; 2] {
    let dir = run.join(format!("checkpoints/step-{step:06}"));
    [checkpoint::MODEL, checkpoint::OPTIM].map(|file| std::fs::read(dir.join(file)).expect("a checkpoint"))
}

/// A run on one thread, and one that is stopped and goes on on two, have the same weights, moments and metrics.
fn goes_on<T: Task>(text: &str, more: &str) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [whole, parts] = dirs.each_ref().map(|dir| recipe(text, dir.path(), more));
    let whole = train::<T>(&whole, 1).run;
    let first = run::<T>(&Os, &parts, None, &device(2), &mut StopAfter::new(4)).expect("a run");
    assert_eq!(first.stopped, Some(15));
    let again = RecipeFor::<T>::of_run(&first.run, &[]).expect("the run's recipe");
    run::<T>(&Os, &again, Some(&first.run), &device(2), &mut ()).expect("the run goes on");
    assert!(bytes(&whole, 6) == bytes(&first.run, 6), "{more}: weights, buffers or moments differ");
    let records = |run: &Path| -> Vec<_> {
        let mut records = metrics::read(&Os, &run.join("metrics.jsonl")).expect("metrics");
        for record in &mut records {
            record.more.remove("pictures_per_s");
        }
        records
    };
    assert_eq!(records(&whole), records(&first.run));
}

#[test]
fn runs_that_stop_and_go_on_end_with_the_bytes_of_those_that_do_not() {
    goes_on::<VaeTask>(vae::DEFAULT, &format!("{SMALL_VAE} model.beta_warmup=4 model.free_bits=0.1"));
    goes_on::<VaeTask>(CONV, &format!("{SMALL_VAE} model.channels=[4,6] model.conditional=true train.accumulate=2"));
    goes_on::<VqVaeTask>(vqvae::DEFAULT, SMALL_VQVAE);
    goes_on::<GanTask>(
        gan::DEFAULT,
        &format!("{SMALL_GAN} model.r1=1.0 model.noise=0.1 model.noise_steps=5 model.ema=0.9"),
    );
    let wasserstein =
        "model.loss=wasserstein model.gradient_penalty=10.0 model.conditional=true model.ema=0 model.scale=none";
    goes_on::<GanTask>(gan::DEFAULT, &format!("{SMALL_GAN} {wasserstein}"));
    let spectral = "model.loss=hinge model.scale=spectral model.augment=[\"colour\",\"translation\",\"cutout\"]";
    goes_on::<GanTask>(gan::DEFAULT, &format!("{SMALL_GAN} {spectral}"));
}

fn sheet(path: &Path) -> Sheet {
    Sheet::load(&Os, path).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_vae_shows_what_it_learns_and_draws_on_demand() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe: VaeRecipe = recipe(vae::DEFAULT, dir.path(), SMALL_VAE);
    let summary = train::<VaeTask>(&recipe, 2);
    let samples = summary.run.join("samples");
    let width = |columns: usize| columns * (4 * 16 + 2) + 2;
    for (name, rows) in
        [("step-000003", 2), ("step-000006", 2), ("reconstructions-000006", 8), ("traversal", 5), ("interpolation", 8)]
    {
        let dims = sheet(&samples.join(format!("{name}.png"))).dims;
        assert_eq!((dims.width, dims.height), (width(4), width(rows)), "{name}");
    }
    // TensorBoard gets the same sheets.
    let shown = pictures(&summary.run);
    assert_eq!(shown.iter().map(|(_, step, ..)| *step).collect::<Vec<_>>(), [3, 6]);
    for (tag, step, size, png) in shown {
        let path = samples.join(format!("step-{step:06}.png"));
        let dims = sheet(&path).dims;
        assert_eq!(
            (tag.as_str(), size),
            ("samples/sample", [dims.height, dims.width, dims.channels].map(|n| n as u64))
        );
        assert!(png == std::fs::read(path).expect("a sheet"));
    }
    let page = std::fs::read_to_string(summary.run.join("report.html")).expect("a page");
    for shown in ["samples/training.png", "samples/step-000006.png", "samples/traversal.png", "loss.svg"] {
        assert!(page.contains(shown) && summary.run.join(shown).is_file(), "{shown}");
    }
    let records = metrics::read(&Os, &summary.run.join("metrics.jsonl")).expect("metrics");
    let last = records.last().expect("a record");
    let part = |name: &str| *last.more.get(name).unwrap_or_else(|| panic!("{name}: {last:?}"));
    assert!((part("reconstruction") + part("kl") - f64::from(last.loss)).abs() < 1e-3);
    let loss = last.val_loss.expect("evaluated");
    assert!((part("val_reconstruction") + part("val_kl") - loss).abs() < 1e-9);
    // The tighter bound says that the model is no worse.
    assert!(part("val_iwae") < loss && part("val_active") <= 5.0);
    // What the training showed is what the model draws later from the same numbers.
    assert!(draws(&summary.run).expect("a run"));
    let mut sampler = PictureSampler::open(&summary.run, kiln::params::Hold::Frozen, &device(1)).expect("a run");
    assert!(
        sampler.sheet([2, 4], None, recipe.train.seed).expect("a sheet") == sheet(&samples.join("step-000006.png"))
    );
    let refused = sampler.sheet([1, 1], Some(0), 1).expect_err("it knows of no labels");
    assert!(refused.hint().is_some_and(|hint| hint.contains("model.conditional")));
}

#[test]
fn a_gan_is_judged_and_draws_with_the_mean_of_its_weights() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe: GanRecipe =
        recipe(gan::DEFAULT, dir.path(), &format!("{SMALL_GAN} model.conditional=true model.ema=0.9"));
    let summary = train::<GanTask>(&recipe, 2);
    let records = metrics::read(&Os, &summary.run.join("metrics.jsonl")).expect("metrics");
    let last = records.last().expect("a record");
    for name in ["g_loss", "d_loss", "d_real", "d_fake", "val_frechet", "val_diversity", "val_precision", "val_classes"]
    {
        assert!(last.more.get(name).is_some_and(|value| value.is_finite()), "{name}: {last:?}");
    }
    assert!(summary.run.join("data/classifier.safetensors").is_file());
    let dir = summary.run.join("checkpoints/step-000006");
    let optim = kiln::train::tensors::Reader::open(&Os, &dir.join(checkpoint::OPTIM)).expect("moments");
    let has = |name: &str| optim.names().iter().any(|own| *own == format!("{MEAN}.{name}"));
    assert!(has("g.0.weight") && !has("d.0.weight"));
    let mut sampler = PictureSampler::open(&summary.run, kiln::params::Hold::Frozen, &device(1)).expect("a run");
    let drawn = sampler.sheet([2, 4], None, recipe.train.seed).expect("a sheet");
    assert!(drawn == sheet(&summary.run.join("samples/step-000006.png")));
    // Other classes, other pictures; and there are only ten.
    assert!(sampler.sheet([1, 1], Some(2), 1).expect("a sheet") != sampler.sheet([1, 1], Some(3), 1).expect("a sheet"));
    assert!(sampler.sheet([1, 1], Some(10), 1).is_err());
}

#[test]
fn a_step_of_a_gan_that_goes_wrong_changes_nothing_and_holds_no_weights() {
    let dir = tempfile::tempdir().expect("a folder");
    let gan: GanRecipe = recipe(gan::DEFAULT, dir.path(), SMALL_GAN);
    let mut trainer = GanTask::open(&gan, dir.path(), &device(1), &mut |_, _, _| {}).expect("a task").trainer;
    assert_eq!(trainer.step(0).expect("a step").bad, None);
    let [g, d] = ["g.1.weight", "d.1.weight"].map(|name| trainer.params.find(name).expect("it is there"));
    let good = trainer.params.weight(d).f32().to_vec();
    trainer.params.set_weight(d, &vec![f32::NAN; good.len()]);
    let before = trainer.params.weight(g).f32().to_vec();
    assert!(trainer.step(1).expect("a step").bad.is_some());
    assert!(trainer.params.weight(g).f32() == before);
    // As a run does that goes back.
    trainer.params.set_weight(g, &before);
    trainer.params.set_weight(d, &good);
    trainer.restart().expect("no weights to read");
    assert_eq!(trainer.step(2).expect("a step").bad, None);
}

#[test]
fn pictures_are_judged_outside_of_a_run_and_noise_is_found_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    Shapes::new(1, 16).expect("shapes").write(&at("data"), 600, Format::Idx).expect("files");
    Shapes::new(2, 16).expect("shapes").write(&at("others"), 300, Format::Idx).expect("files");
    std::fs::create_dir(at("noise")).expect("a folder");
    let values = (0..300u32 * 256).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let noise = Idx { shape: vec![300, 16, 16], values };
    noise.write(at("noise/train-images-idx3-ubyte")).expect("a file");
    let (judges, data) = (at("judges"), at("data"));
    let examine = |what: &Path, data: Option<&Path>| {
        let candidate = Candidate { what, data, count: 200, seed: 1, judges: &judges };
        examine(&candidate, &device(2), &mut |_, _, _| {})
    };
    let [others, noise] = ["others", "noise"].map(|name| examine(&at(name), Some(&data)).expect("a verdict"));
    assert_eq!((others.pictures, others.verdict.counts.iter().sum::<usize>()), (300, 300));
    // Pictures of the same world do about as well as those of the data itself, noise does not.
    assert!(others.control.frechet == noise.control.frechet && others.judge == noise.judge);
    assert!(others.verdict.frechet < 4.0 * others.control.frechet, "{:?} {:?}", others.verdict, others.control);
    assert!(noise.verdict.frechet > 20.0 * others.verdict.frechet, "{:?} {:?}", noise.verdict, others.verdict);
    // A model is judged by its own data, unless other data is given that it must fit.
    let summary = train::<VaeTask>(&recipe(vae::DEFAULT, dir.path(), SMALL_VAE), 2);
    let drawn = examine(&summary.run, None).expect("a verdict");
    assert_eq!((drawn.pictures, drawn.held_out), (200, 66));
    let refused = |what: &Path, data: &Path, says: &str| {
        let error = examine(what, Some(data)).map(drop).expect_err(says);
        assert!(format!("{error} {:?}", error.hint()).contains(says), "{says}: {error}");
    };
    refused(&at("nothing"), &data, "nothing");
    Shapes::new(1, 20).expect("shapes").write(&at("larger"), 300, Format::Idx).expect("files");
    // A run's own settings scale it; a checkpoint alone has none.
    assert_eq!(examine(&summary.run, Some(&at("larger"))).expect("a verdict").held_out, 50);
    std::fs::rename(summary.run.join("checkpoints/step-000006"), at("model")).expect("moved");
    refused(&at("model"), &at("larger"), "20 x 20");
}

#[test]
fn pictures_become_texts_of_codes_and_pictures_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let summary = train::<VqVaeTask>(&recipe(vqvae::DEFAULT, dir.path(), SMALL_VQVAE), 2);
    let mut coder = Coder::open(&summary.run, &device(2)).expect("a run");
    let file = dir.path().join("codes.jsonl");
    assert_eq!((coder.cells(), coder.write(None, 100, &file).expect("a file")), (16, 100));
    let lines = std::fs::read_to_string(&file).expect("a file");
    let texts: Vec<String> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["text"].as_str().expect("a text").to_owned()
        })
        .collect();
    // A line break says where the next picture begins.
    assert!(texts.len() == 100 && texts.iter().all(|text| text.chars().count() == 17 && text.ends_with('\n')));
    let sheet = coder.sheet(&texts[..4], 2);
    assert_eq!(sheet.dims.width, 2 * (4 * 16 + 2) + 2);
    // What is no code is passed over, and what is missing is code 0.
    let odd = [format!("x{}", texts[0]), String::new()];
    let zeros: String = std::iter::repeat_n('\u{4E00}', 16).collect();
    assert!(coder.sheet(&odd, 2) == coder.sheet(&[texts[0].clone(), zeros], 2));
}

#[test]
fn a_warm_step_of_pictures_allocates_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let host = device(1);
    let vae: VaeRecipe = recipe(CONV, dir.path(), &format!("{SMALL_VAE} model.channels=[4,6] model.conditional=true"));
    let mut trainer = VaeTask::open(&vae, dir.path(), &host, &mut |_, _, _| {}).expect("a task").trainer;
    (0..3).for_each(|step| drop(trainer.step(step)));
    assert_eq!(allocations(|| (3..6).for_each(|step| drop(trainer.step(step)))), 0);
    let penalised =
        format!("{SMALL_GAN} model.r1=1.0 model.gradient_penalty=1.0 model.conditional=true model.noise=0.1");
    for set in [SMALL_GAN, &penalised] {
        let gan: GanRecipe = recipe(gan::DEFAULT, dir.path(), set);
        let mut trainer = GanTask::open(&gan, dir.path(), &host, &mut |_, _, _| {}).expect("a task").trainer;
        (0..3).for_each(|step| drop(trainer.step(step)));
        assert_eq!(allocations(|| (3..6).for_each(|step| drop(trainer.step(step)))), 0, "{set}");
    }
}

#[test]
fn every_recipe_that_is_there_is_read_as_what_it_is() {
    let of = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/recipes/{name}.toml"));
        AnyRecipe::load(Some(&file), "", &[]).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    assert!(["vae-mlp", "vae-conv"].iter().all(|name| matches!(of(name), AnyRecipe::Vae(_))));
    assert!(["dcgan", "cgan"].iter().all(|name| matches!(of(name), AnyRecipe::Gan(_))));
    assert!(matches!(of("vqvae"), AnyRecipe::VqVae(_)));
    assert!(["village", "codes"].iter().all(|name| matches!(of(name), AnyRecipe::Text(_))));
}

#[test]
fn settings_that_pictures_do_not_allow_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |kind: &str, set: &str| {
        let error = match kind {
            "gan" => {
                let recipe: GanRecipe = recipe(gan::DEFAULT, dir.path(), &format!("{SMALL_GAN} {set}"));
                run::<GanTask>(&Os, &recipe, None, &device(1), &mut ()).expect_err(set)
            }
            _ => {
                let recipe: VaeRecipe = recipe(CONV, dir.path(), &format!("{SMALL_VAE} {set}"));
                run::<VaeTask>(&Os, &recipe, None, &device(1), &mut ()).expect_err(set)
            }
        };
        assert!(!dir.path().join("tiny").exists(), "{set}: a run is left");
        format!("{error} {}", error.hint().expect("a hint"))
    };
    for (kind, set, says) in [
        ("gan", "data.size=30", "data.size"),
        ("vae", "data.size=18", "model.channels"),
        ("vae", "data.path=no-such-folder", "no-such-folder"),
        ("vae", "train.batch=1000000 data.size=512", "train.batch"),
        ("vae", "data.shift=20", "data.shift"),
    ] {
        let text = refused(kind, set);
        assert!(text.contains(says), "{set}: {text}");
    }
    for (set, key) in [
        ("train.accumulate=2", "train.accumulate"),
        ("model.smoothing=0.7", "model.smoothing"),
        ("model.loss=none", "model.loss"),
        ("train.context=5", "train.context"),
        ("model.ema=1.0", "model.ema"),
    ] {
        let e = GanRecipe::from_toml("", Path::new("r"), &[set.into()]).expect_err(set);
        assert!(e.to_string().contains(key) && e.hint().is_some(), "{set}: {e}");
    }
}
