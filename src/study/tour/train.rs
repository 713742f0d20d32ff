//! Models that learn from data alone.

use super::{Measure, Pace, Shown, Stage, Way};
use crate::data::world::{Split, World};
use crate::device::Device;
use crate::disk::Os;
use crate::error::Result;
use crate::eval::{Asked, Asking, Local, Model, Saved, Task, evaluate, saved};
use crate::model::sample::SampleOptions;
use crate::params::Hold;
use crate::plan::{Machine, Settings as Here, forecast};
use crate::study::effect::Unit;
use crate::study::{Seed, quoted};
use crate::train::recipe::VILLAGE;
use crate::train::{AnyRecipe, Sampler, Summary, metrics};
use std::f64::consts::LN_2;
use std::path::{Path, PathBuf};

/// Settings of the GPT that all later stages begin with.
fn gpt(at: &Seed, pace: Pace) -> Vec<String> {
    vec![
        format!("data.path={}", quoted(&at.dir.join("shards"))),
        "optim.kind=muon".into(),
        format!("train.steps={}", pace.of(400, 2000)),
        format!("train.eval_every={}", pace.of(100, 500)),
        "train.sample_every=0".into(),
    ]
}

/// The run of the GPT.
pub(super) fn base(at: &Seed) -> PathBuf {
    at.dir.join("gpt")
}

pub(super) const PLAN: Stage = Stage {
    name: "plan",
    does: "Counts the bytes that training will take, and rehearses some steps of it to say how long it will take, before anything is begun. A run \
           that would not fit, or not end before Friday, is better known beforehand.",
    source: "src/plan/forecast.rs",
    chapter: "docs/plan.md",
    needs: &["shards"],
    makes: &[],
    budget: [4, 5],
    run: plan,
};

fn plan(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let recipe = AnyRecipe::load(None, VILLAGE, &gpt(at, pace))?;
    let machine = Machine::Cpu;
    let rates = machine.rates(at.device.host().threads.count());
    let settings = Here { machine, seconds: 2.0, utilisation: 0.35, rates };
    let forecast = forecast(&recipe, at.device, &settings, at.watch)?;
    Ok(Shown {
        notes: vec![
            format!(
                "{} parameters, {} steps of {} {}",
                forecast.parameters, forecast.steps, forecast.per_step, forecast.unit
            ),
            format!("memory {}", forecast.memory),
            forecast.seconds.map_or("nobody knows how long".to_owned(), |seconds| format!("about {seconds:.0} s")),
        ],
        next: vec!["kiln plan --machine h100".into(), "kiln plan --data book.txt".into()],
        ..Shown::default()
    })
}

pub(super) const PRETRAIN: Stage = Stage {
    name: "pretrain",
    does: "Trains a GPT of 0.9 million parameters to say which token comes next, on all texts. Nothing tells it about people, places or grammar: \
           whatever lowers the loss is learnt.",
    source: "src/model/gpt.rs",
    chapter: "docs/architecture.md",
    needs: &["shards"],
    makes: &["gpt", "manners-gpt.json"],
    budget: [46, 220],
    run: pretrain,
};

/// Held-out stories.
fn held_out(at: &Seed, n: u64) -> Vec<String> {
    let world = World::new(at.seed);
    let mut teller = world.teller();
    (0..n)
        .map(|i| {
            teller.tell_of(Split::Val, i);
            teller.text().to_owned()
        })
        .collect()
}

/// Bits a byte of texts by a model, and tokens a byte.
fn bits(model: &mut dyn Model, texts: &[String]) -> Result<[f64; 2]> {
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let scores = model.read(&all, &mut |_| Ok(()))?;
    let bytes: usize = texts.iter().map(String::len).sum();
    let (nats, tokens) = scores.iter().fold((0.0, 0), |(nats, n), score| (nats - score.nats, n + score.each.len()));
    Ok([nats / LN_2 / bytes as f64, tokens as f64 / bytes as f64])
}

/// A model, to be asked.
pub(super) fn open(run: &Path, device: &Device) -> Result<Local> {
    Local::new(run.display().to_string(), Sampler::open(run, &[], Hold::Frozen, device)?.into_parts(), true, None)
}

fn pretrain(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let summary = at.run("gpt", VILLAGE, &gpt(at, pace))?;
    let texts = held_out(at, 100);
    let mut model = open(&summary.run, at.device)?;
    let vocab = 1024.0_f64;
    let [bits, tokens] = bits(&mut model, &texts)?;
    let mut sampler = Sampler::open(&summary.run, &[], Hold::Frozen, at.device)?;
    let mut sample = "Once".to_owned();
    let options = SampleOptions { tokens: 90, temperature: 0.7, seed: at.seed, ..SampleOptions::default() };
    sampler.generate("Once", &options, &mut |piece| {
        sample += piece;
        true
    })?;
    Ok(Shown {
        measures: vec![Measure::new(
            "bits a byte of stories that it did not read",
            Unit::Plain,
            Way::Down,
            ("any token as likely as another", vocab.log2() * tokens),
            ("trained", bits),
        )],
        notes: vec![speed(&summary)],
        pictures: curve(&summary),
        sample: Some(sample),
        next: vec![format!("kiln sample {} --prompt Once", summary.run.display()), "kiln train --help".into()],
        ..Shown::default()
    })
}

fn speed(summary: &Summary) -> String {
    format!("{} parameters, {} steps in {:.0} s", summary.parameters, summary.steps, summary.seconds)
}

fn curve(summary: &Summary) -> Vec<(String, PathBuf)> {
    let path = summary.run.join("loss.svg");
    if path.is_file() { vec![("loss by step".to_owned(), path)] } else { Vec::new() }
}

/// The first and the last value of a number in a run's metrics.
fn course(run: &Path, number: &str) -> Result<[f64; 2]> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl"))?;
    let mut all = records.iter().filter_map(|record| record.number(number));
    let first = all.next().unwrap_or(f64::NAN);
    Ok([first, all.next_back().unwrap_or(first)])
}

pub(super) const VAE: Stage = Stage {
    name: "vae",
    does: "Trains a variational autoencoder on small pictures: an encoder that says where a picture lies among twenty numbers, and a decoder that \
           draws it from there. What it learns is a space in which neighbours look alike, and from which new pictures can be drawn.",
    source: "src/model/vae.rs",
    chapter: "docs/pictures.md",
    needs: &[],
    makes: &["vae"],
    budget: [4, 15],
    run: vae,
};

/// The recipe of a model of pictures that is run briefly.
fn brief(steps: u64, count: u64) -> Vec<String> {
    vec![
        format!("train.steps={steps}"),
        format!("train.eval_every={}", steps / 4),
        "train.checkpoint_every=0".into(),
        format!("train.sample_every={steps}"),
        format!("data.count={count}"),
    ]
}

fn vae(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let recipe = include_str!("../../../data/recipes/vae-mlp.toml");
    let summary = at.run("vae", recipe, &brief(pace.of(400, 1500), pace.of(2000, 12_000)))?;
    let [before, after] = course(&summary.run, "val_loss")?;
    Ok(Shown {
        measures: vec![Measure::new(
            "nats a held-out picture takes (negative ELBO)",
            Unit::Plain,
            Way::Down,
            ("after a fourth of the steps", before),
            ("trained", after),
        )],
        notes: vec![speed(&summary)],
        pictures: drawn(&summary),
        next: vec![format!("kiln sample {} --grid 8x8", summary.run.display())],
        ..Shown::default()
    })
}

/// The last sheet of pictures of a run.
fn drawn(summary: &Summary) -> Vec<(String, PathBuf)> {
    let folder = summary.run.join("samples");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    all.retain(|path| path.extension().is_some_and(|e| e == "png"));
    all.sort();
    all.pop().map(|path| ("what it draws".to_owned(), path)).into_iter().collect()
}

pub(super) const GAN: Stage = Stage {
    name: "gan",
    does: "Trains a generator that draws and a discriminator that tells its pictures from data, each against the other. There is no loss that says \
           how good pictures are, so their distance to data is measured beside it.",
    source: "src/model/gan.rs",
    chapter: "docs/pictures.md",
    needs: &[],
    makes: &["gan"],
    budget: [16, 60],
    run: gan,
};

fn gan(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let recipe = include_str!("../../../data/recipes/dcgan.toml");
    let small = ["model.g=16".to_owned(), "model.d=16".to_owned(), "train.batch=64".to_owned()];
    let summary = at.run("gan", recipe, &[brief(pace.of(500, 1500), pace.of(2000, 8000)), small.to_vec()].concat())?;
    let [before, after] = course(&summary.run, "val_frechet")?;
    Ok(Shown {
        measures: vec![Measure::new(
            "Fréchet distance of its pictures to data, between features of kiln's own judge",
            Unit::Plain,
            Way::Down,
            ("after a fourth of the steps", before),
            ("trained", after),
        )],
        notes: vec![speed(&summary)],
        pictures: drawn(&summary),
        next: vec![
            format!("kiln sample {} --grid 8x8", summary.run.display()),
            format!("kiln eval {}", summary.run.display()),
        ],
        ..Shown::default()
    })
}

pub(super) const SWEEP: Stage = Stage {
    name: "sweep",
    does: "Trains the same small model with four learning rates, all else alike. The rate is the setting that decides the most: a tenth of the best one \
           learns little, ten times as much falls apart.",
    source: "src/sweep/mod.rs",
    chapter: "docs/sweep.md",
    needs: &["shards"],
    makes: &["lr-0.0001", "lr-0.001", "lr-0.008", "lr-0.2"],
    budget: [8, 25],
    run: sweep,
};

fn sweep(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let mut found = Vec::new();
    for lr in [1e-4, 1e-3, 8e-3, 2e-1] {
        let set = [
            format!("data.path={}", quoted(&at.dir.join("shards"))),
            "model.layers=2".into(),
            "model.d=64".into(),
            "model.heads=2".into(),
            "train.eval_every=0".into(),
            "train.sample_every=0".into(),
            format!("train.steps={}", pace.of(60, 200)),
            format!("optim.lr={lr}"),
        ];
        let summary = at.run(&format!("lr-{lr}"), VILLAGE, &set)?;
        found.push((lr, summary.val_loss.unwrap_or(f64::INFINITY)));
    }
    let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let (best, worst) = (found.iter().min_by(by).expect("four"), found.iter().max_by(by).expect("four"));
    Ok(Shown {
        measures: vec![Measure::new(
            "validation loss, nats a token",
            Unit::Plain,
            Way::Down,
            (&format!("lr {}", worst.0), worst.1),
            (&format!("lr {}", best.0), best.1),
        )],
        notes: found.iter().map(|(lr, loss)| format!("lr {lr}: {loss:.3}")).collect(),
        next: vec!["kiln sweep data/recipes/grid.toml".into(), "kiln sweep --lr-range".into()],
        ..Shown::default()
    })
}

pub(super) const EVALUATE: Stage = Stage {
    name: "evaluate",
    does: "Asks the GPT fixed facts of the village, one of four answers each, by how likely it finds them. Loss says how well it writes; this says what \
           it knows, beside what guessing has right.",
    source: "src/eval/mod.rs",
    chapter: "docs/eval.md",
    needs: &["pretrain"],
    makes: &[],
    budget: [2, 6],
    run: evaluation,
};

fn evaluation(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let run = base(at);
    let mut model = open(&run, at.device)?;
    let asking = Asking { limit: pace.of(200, 500), world: at.seed, seed: 1 };
    let mut notes = Vec::new();
    let mut accuracy = f64::NAN;
    for name in ["village-facts", "village-text"] {
        let task = Task::open(name)?;
        let items = task.items(asking.limit, asking.world, asking.seed)?;
        let outcome = evaluate(&task, &items, &asking, &mut model, &mut |_, _| Ok(()))?;
        let figure = &outcome.figures[0];
        notes.push(format!("{name}: {} {:.4}", figure.name, figure.value));
        if name == "village-facts" {
            accuracy = figure.value;
        }
        Saved::new(&task, outcome, Asked::of(&task, &asking)).save(&run.join(saved::FOLDER))?;
    }
    Ok(Shown {
        measures: vec![Measure::new(
            "facts of which it finds the right one of four likeliest",
            Unit::Share,
            Way::Up,
            ("guessing", 0.25),
            ("GPT", accuracy),
        )],
        notes,
        next: vec![format!("kiln eval {}", run.display()), format!("kiln report {}", run.display())],
        ..Shown::default()
    })
}
