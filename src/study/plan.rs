//! Does what is planned come true? Thirty small recipes of all kinds, each planned by one process and run by another, as people
//! do it: bytes mapped, bytes resident and seconds beside what was planned.
//!
//! - **Bytes of tensors and scratch** are to be equal; where texts are written, which may end early, at most as many.
//! - **Resident bytes**, program and data included, within 5 % and 16 MiB.
//! - **Seconds** within 15 %.
//!
//! A machine that others use too is not the same machine a minute later. So each recipe is planned before its run and after it: where
//! these two times are further apart than a tenth, all of it is done again, thrice at most. What is judged is the plan before the run.
//!
//! Lengths of runs follow from counted operations and this machine's measured peak, so that each takes about as long.

use crate::cpu::limits;
use crate::data::atomic::write_atomic;
use crate::data::images::{Idx, Shapes};
use crate::data::world::World;
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use crate::plan::{Compared, Forecast, compare};
use crate::train::pictures::{gan, vae, vqvae};
use crate::train::recipe::{Recipe, VILLAGE};
use crate::train::tune::TUNE;
use crate::train::{Account, AnyRecipe, Watch, source};
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How far the times of the plans before and after a run may be apart, as a share.
const DRIFT: f64 = 0.1;
/// How often a recipe is planned and run at most.
const TRIES: usize = 3;

/// How long the parts are.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Seconds of each run, about.
    pub seconds: f64,
    /// Seconds of steps that are measured for a plan.
    pub measured: f64,
    /// Only recipes whose names hold this; empty: all.
    pub only: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { seconds: 12.0, measured: 4.0, only: String::new() }
    }
}

/// What a recipe trains, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// The base recipe, and whether its pictures have labels.
    Pictures(&'static str, bool),
    Tune,
}

/// A recipe of the study.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Settings over the base.
    set: &'static str,
}

const MLP: Kind = Kind::Pictures(vae::DEFAULT, false);
const CONV: Kind = Kind::Pictures(vae::CONV, false);
const GAN: Kind = Kind::Pictures(gan::DEFAULT, false);

/// All of them: of GPTs, a VAE, a GAN, a VQ-VAE, fine-tuning; in f32 and bf16; with blocks run again and without. `often`: what is
/// evaluated, saved and shown on the way as well.
const CASES: [Case; 30] = [
    case("gpt", Kind::Text, ""),
    case("gpt-recompute", Kind::Text, "train.recompute=true"),
    case("gpt-bf16", Kind::Text, "train.precision=bf16"),
    case("gpt-bf16-recompute", Kind::Text, "train.precision=bf16 train.recompute=true"),
    case("gpt-wide", Kind::Text, "model.d=256 model.layers=2"),
    case("gpt-deep", Kind::Text, "model.d=96 model.heads=3 model.layers=8 train.recompute=true"),
    case("gpt-accumulate", Kind::Text, "train.batch=4 train.accumulate=4"),
    case("gpt-muon", Kind::Text, "optim.kind=muon"),
    case("gpt-long", Kind::Text, "train.context=512 train.batch=4"),
    case("gpt-long-recompute", Kind::Text, "train.context=512 train.batch=4 train.recompute=true"),
    case("gpt-dropout", Kind::Text, "model.dropout=0.1"),
    case("gpt-often", Kind::Text, "often"),
    case("llama", Kind::Text, "model.kind=llama"),
    case("llama-recompute", Kind::Text, "model.kind=llama train.recompute=true"),
    case("llama-bf16", Kind::Text, "model.kind=llama train.precision=bf16"),
    case("llama-grouped", Kind::Text, "model.kind=llama model.kv_heads=2 model.d=192 model.heads=6"),
    case("vae", MLP, ""),
    case("vae-often", MLP, "model.hidden=800 often"),
    case("vae-accumulate", MLP, "train.batch=32 train.accumulate=4"),
    case("vae-conv", CONV, ""),
    case("vae-conv-bf16", CONV, "train.precision=bf16"),
    case("gan", GAN, "model.g=16 model.d=16"),
    case("gan-spectral", GAN, "model.g=16 model.d=16 model.scale=spectral model.loss=hinge"),
    case("gan-bf16", GAN, "model.g=16 model.d=16 train.precision=bf16"),
    case("gan-labels", Kind::Pictures(gan::DEFAULT, true), "model.g=16 model.d=16 model.conditional=true often"),
    case("vqvae", Kind::Pictures(vqvae::DEFAULT, false), "model.channels=[16,32] train.batch=32"),
    case("lora", Kind::Tune, ""),
    case("lora-bf16-recompute", Kind::Tune, "train.precision=bf16 model.frozen=bf16 train.recompute=true"),
    case("lora-q8", Kind::Tune, "model.frozen=q8"),
    case("full", Kind::Tune, "model.method=full optim.lr=1e-4"),
];

const fn case(name: &'static str, kind: Kind, set: &'static str) -> Case {
    Case { name, kind, set }
}

/// A recipe, what was planned of it, and what it took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Updates of the weights.
    pub steps: u64,
    /// Bytes mapped, resident, and seconds; see [`compare`].
    pub compared: Vec<Compared>,
    /// Whether all of them are within their bounds.
    pub within: bool,
    /// How much longer the plan after the run said that it takes than the one before, as a share.
    pub drift: f64,
    /// How often it was run until that was little.
    pub tries: usize,
}

/// Of a recipe whose plan did not come true within these bounds: the largest deviations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Worst {
    /// Bytes mapped beyond those planned, or, but for texts, below.
    pub mapped: f64,
    /// Resident bytes, as a share.
    pub resident: f64,
    /// The same in bytes beyond 5 %; 0 or less where there are none.
    pub resident_beyond: f64,
    /// Seconds, as a share.
    pub seconds: f64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Recipe by recipe.
    pub rows: Vec<Row>,
    /// The largest deviations.
    pub worst: Worst,
    /// Recipes all of whose numbers are within their bounds.
    pub within: usize,
}

/// Bytes by which a plan of what is resident may be off, beside a share of 5 %.
const ROOM: f64 = 16.0 * 1024.0 * 1024.0;

/// Does the study in `dir`: `program` starts this program, and `told` hears of each recipe before it begins.
///
/// # Errors
/// A process fails; a signal stopped one.
pub fn study(
    settings: &Settings,
    dir: &Path,
    device: &Device,
    program: &dyn Fn() -> Command,
    told: &mut dyn FnMut(&str),
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    let data = Data::make(dir, device, told, watch)?;
    let speed = 0.5e9 * limits::fma_peak(device.host(), 0.5);
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&*settings.only)) {
        told(&format!("{} ({} of them)", case.name, CASES.len()));
        if let Some(signal) = watch.stop() {
            return Err(Error::failed(format!("stopped by signal {signal}"), "begin again, or with --only NAME"));
        }
        rows.push(one(case, settings, &data, dir, device, speed, program)?);
    }
    if rows.is_empty() {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(Error::usage(format!("--only {}: no recipe is called so", settings.only), names.join(", ")));
    }
    let mut worst = Worst::default();
    let larger = |worst: f64, new: f64| if new.abs() > worst.abs() { new } else { worst };
    for row in &rows {
        let of = |what: &str| row.compared.iter().find(|compared| compared.what == what).expect("all are compared");
        let apart =
            |what: &str| of(what).planned.zip(of(what).actual).map_or(0.0, |(planned, actual)| planned - actual);
        worst.mapped = larger(worst.mapped, if texts(&row.name) { apart("mapped").min(0.0) } else { apart("mapped") });
        worst.resident = larger(worst.resident, of("resident").off().unwrap_or(0.0));
        let beyond = apart("resident").abs() - 0.05 * of("resident").actual.unwrap_or(0.0);
        worst.resident_beyond = worst.resident_beyond.max(beyond);
        worst.seconds = larger(worst.seconds, of("time").off().unwrap_or(0.0));
    }
    let within = rows.iter().filter(|row| row.within).count();
    let outcome = Outcome { rows, worst, within };
    let text = serde_json::to_string_pretty(&outcome).expect("plain data") + "\n";
    write_atomic(&Os, &dir.join("plan.json"), text.as_bytes())?;
    Ok(outcome)
}

/// Whether a recipe's run writes texts, which may end before their longest.
fn texts(name: &str) -> bool {
    name == "gpt-often"
}

/// What is trained on.
struct Data {
    text: PathBuf,
    pictures: PathBuf,
    labelled: PathBuf,
    base: PathBuf,
    questions: PathBuf,
}

impl Data {
    /// Makes what is not there.
    fn make(dir: &Path, device: &Device, told: &mut dyn FnMut(&str), watch: &mut dyn Watch) -> Result<Data> {
        // Recipes are read in any folder.
        let dir = std::path::absolute(dir).at(dir)?;
        let all = dir.join("data");
        let [text, pictures, labelled] = ["text", "pictures", "labelled"].map(|name| all.join(name));
        [&text, &pictures, &labelled].into_iter().try_for_each(|dir| disk::make_dirs(&Os, dir))?;
        told("making text, pictures and a model to fine-tune");
        source::shards(&Recipe::load(None, &["data.bytes=3000000".to_owned()])?, &text, &mut |_, _, _| {})?;
        let found = Shapes::new(1, 28)?.found(2000)?.train;
        let values: Vec<u8> = (0..found.len()).flat_map(|i| found.get(i)).copied().collect();
        let labels: Vec<u8> = (0..found.len()).map(|i| found.label(i).unwrap_or(0) as u8).collect();
        let idx = Idx { shape: vec![found.len(), 28, 28], values };
        for folder in [&pictures, &labelled] {
            idx.write(folder.join("train-images-idx3-ubyte"))?;
        }
        Idx { shape: vec![labels.len()], values: labels }.write(labelled.join("train-labels-idx1-ubyte"))?;
        let line = |lesson: &crate::data::world::Lesson| {
            let prompt = format!("Question: {}\nAnswer:", lesson.question);
            json!({"prompt": prompt, "completion": format!(" {}", lesson.answer)}).to_string() + "\n"
        };
        let questions = all.join("questions.jsonl");
        let lines: String = World::new(1).lessons().iter().map(line).collect();
        write_atomic(&Os, &questions, lines.as_bytes())?;
        let set = ["train.steps=30", "train.eval_every=0", "train.sample_every=0", "eval.max_batches=2"];
        let set: Vec<String> = set.map(str::to_owned).into_iter().chain([place("data.path", &text)]).collect();
        let base = AnyRecipe::once(&all, "base", VILLAGE, &set, device, watch)?;
        Ok(Data { text, pictures, labelled, base: base.run, questions })
    }
}

/// `key="path"`.
fn place(key: &str, path: &Path) -> String {
    format!("{key}={}", toml::Value::from(&*path.to_string_lossy()))
}

/// Plans a recipe and runs it.
fn one(
    case: &Case,
    settings: &Settings,
    data: &Data,
    dir: &Path,
    device: &Device,
    speed: f64,
    program: &dyn Fn() -> Command,
) -> Result<Row> {
    let (base, mut set) = match case.kind {
        Kind::Text => (VILLAGE, vec![place("data.path", &data.text)]),
        Kind::Pictures(base, labels) => {
            (base, vec![place("data.path", if labels { &data.labelled } else { &data.pictures })])
        }
        Kind::Tune => {
            let rows = ["train.batch=8", "train.context=128"].map(str::to_owned);
            let files = [place("data.path", &data.questions), place("model.base", &data.base)];
            (TUNE, rows.into_iter().chain(files).collect())
        }
    };
    let runs = std::path::absolute(dir).at(dir)?.join("runs");
    set.extend([place("run.dir", &runs), format!("run.name={}", case.name), "optim.warmup=5".into()]);
    let never = ["eval", "checkpoint", "sample"].map(|what| format!("train.{what}_every=0"));
    set.extend(never);
    set.extend(case.set.split_whitespace().filter(|set| *set != "often").map(str::to_owned));
    let with = |more: &[String]| AnyRecipe::load(None, base, &[&set[..], more].concat());
    let first = with(&["train.steps=1000".into()])?;
    let plan = first.plan(None, device)?;
    // Nobody counts a VQ-VAE's operations: a fixed number of steps.
    let flops = plan.size.flops * first.train().accumulate as f64;
    let steps = if flops > 0.0 { (settings.seconds * speed / flops).clamp(12.0, 20_000.0) as u64 } else { 200 };
    let mut more = vec![format!("train.steps={steps}")];
    if case.set.contains("often") {
        more.extend(["eval", "checkpoint", "sample"].map(|what| format!("train.{what}_every={}", steps / 4)));
    }
    let recipe = dir.join("recipes").join(format!("{}.toml", case.name));
    disk::make_dirs(&Os, &dir.join("recipes"))?;
    write_atomic(&Os, &recipe, with(&more)?.to_toml().as_bytes())?;
    let (run, seconds) = (runs.join(case.name), settings.measured.to_string());
    let plan = || {
        let planned = child(program, &["plan", "--json", "--seconds", &seconds], &recipe, dir, case.name)?;
        Forecast::from_json(&planned, &recipe)
    };
    let (mut forecast, mut tries) = (plan()?, 0);
    let drift = loop {
        if run.exists() {
            std::fs::remove_dir_all(&run).at(&run)?;
        }
        child(program, &["train", "--json", "--leash"], &recipe, dir, case.name)?;
        tries += 1;
        let after = plan()?;
        let drift = after.seconds.zip(forecast.seconds).map_or(0.0, |(after, before)| after / before - 1.0);
        if drift.abs() <= DRIFT || tries == TRIES {
            break drift;
        }
        forecast = after;
    };
    let compared = compare(&Account::read(&run)?, Some(&forecast));
    let within = compared.iter().all(|number| match (number.what, number.planned, number.actual) {
        ("mapped", Some(planned), Some(actual)) => planned == actual || (texts(case.name) && planned > actual),
        ("resident", Some(planned), Some(actual)) => (planned - actual).abs() <= 0.05 * actual + ROOM,
        ("time", Some(planned), Some(actual)) => (planned - actual).abs() <= 0.15 * actual,
        _ => true,
    });
    Ok(Row { name: case.name.to_owned(), parameters: forecast.parameters, steps, compared, within, drift, tries })
}

/// What a process says on its standard output; what else it says goes to a file.
fn child(program: &dyn Fn() -> Command, args: &[&str], recipe: &Path, dir: &Path, name: &str) -> Result<String> {
    let log = dir.join("recipes").join(format!("{name}.{}.log", args[0]));
    let mut command = program();
    command.args(args).arg(recipe).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(File::create(&log).at(&log)?);
    let path = PathBuf::from(command.get_program());
    let mut child = command.spawn().at(&path)?;
    // It ends with us, however we end.
    let _leash = child.stdin.take();
    let output = child.wait_with_output().at(&path)?;
    if !output.status.success() {
        let problem = format!("{name}: kiln {} ended with {}", args[0], output.status);
        return Err(Error::failed(problem, format!("read {}", log.display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_recipe_and_each_kind_is_there() {
        for case in &CASES {
            let base = match case.kind {
                Kind::Text => VILLAGE,
                Kind::Pictures(base, _) => base,
                Kind::Tune => TUNE,
            };
            let mut set: Vec<String> =
                case.set.split_whitespace().filter(|s| *s != "often").map(str::to_owned).collect();
            if case.kind == Kind::Tune {
                set.extend(["model.base=x", "data.path=y"].map(str::to_owned));
            }
            AnyRecipe::load(None, base, &set).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
        let names: std::collections::HashSet<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        for what in ["recompute", "bf16", "lora", "vae", "gan", "llama"] {
            assert!(names.iter().any(|name| name.contains(what)), "{what}");
        }
    }
}
