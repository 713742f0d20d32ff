//! Does the doctor name what is wrong, and keep silent where nothing is? Runs that are broken on purpose, each in one way, and healthy
//! ones of other sizes, seeds, optimizers, precisions and kinds of models; the doctor is asked about each.
//!
//! - **A broken run counts as named** where one of the findings that its fault calls for is among those of the doctor, or where kiln
//!   refuses to begin it.
//! - **A healthy run counts as right** where nothing is found at all: the control.
//!
//! Runs are small models of the built-in worlds, each a process of its own, and stay in a folder: one that is done is not done again.

use crate::data::atomic::write_atomic;
use crate::data::world::World;
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use crate::train::health::{Kind, examine};
use crate::train::{AnyRecipe, checkpoint};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The model and its run, where a case does not say otherwise: some seconds on two cores.
const SMALL: &str = "model.layers=2 model.heads=4 model.d=64 train.context=64 train.batch=16 train.steps=300 train.eval_every=100 \
                     train.checkpoint_every=100 train.sample_every=0 eval.max_batches=20 data.bytes=1000000 data.vocab=512 \
                     optim.warmup=20";

/// A run that is asked about.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    /// What was broken; nothing of healthy ones.
    broken: &'static str,
    /// The findings of which one is to come.
    want: &'static [Kind],
    /// Overrides of [`SMALL`], or of the recipe of another kind.
    set: &'static str,
    /// What it starts from.
    from: From,
}

/// What a case starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// The village.
    Village,
    /// A file of text, by its name.
    File(&'static str),
    /// The healthy village run, tuned on a file.
    Tuned(&'static str),
    /// A VAE of shapes.
    Vae,
}

const HEALTHY: Case = Case { name: "", broken: "", want: &[], set: "", from: From::Village };

/// All cases: the first is what others are tuned from.
const CASES: [Case; 17] = [
    Case { name: "gpt2", ..HEALTHY },
    Case { name: "wider", set: "model.layers=3 model.d=96 optim.lr=3e-3 data.seed=3", ..HEALTHY },
    Case { name: "llama", set: "model.kind=llama model.kv_heads=2 train.seed=7", ..HEALTHY },
    Case { name: "muon", set: "optim.kind=muon train.seed=2", ..HEALTHY },
    Case { name: "bf16", set: "train.precision=bf16 optim.schedule=wsd train.seed=5", ..HEALTHY },
    Case { name: "bytes", set: "data.tokenizer=byte train.context=128 train.batch=8 train.seed=4", ..HEALTHY },
    Case { name: "lora", from: From::Tuned("questions.jsonl"), set: "optim.lr=5e-3", ..HEALTHY },
    Case { name: "vae", from: From::Vae, ..HEALTHY },
    Case {
        name: "high-lr",
        broken: "learning rate 30 times too high",
        want: &[Kind::LrTooHigh],
        set: "optim.lr=0.12",
        ..HEALTHY
    },
    Case {
        name: "low-lr",
        broken: "learning rate 1,000 times too low",
        want: &[Kind::LrTooLow],
        set: "optim.lr=4e-6 optim.min_lr=1e-7",
        ..HEALTHY
    },
    Case {
        name: "no-warmup",
        broken: "no warm-up, a high rate",
        want: &[Kind::NoWarmup],
        set: "optim.warmup=0 optim.lr=0.12",
        ..HEALTHY
    },
    Case {
        name: "exploding",
        broken: "Muon at 30 times its rate, without decay",
        want: &[Kind::ExplodingLogits, Kind::AttentionCollapse, Kind::DeadUnits, Kind::SaturatedUnits],
        set: "optim.kind=muon optim.muon_scale=original optim.muon_lr=1.0 optim.weight_decay=0",
        ..HEALTHY
    },
    Case {
        name: "duplicated",
        broken: "the same 50 stories again and again",
        want: &[Kind::DuplicatedData],
        from: From::File("duplicated.txt"),
        ..HEALTHY
    },
    Case {
        name: "sorted",
        broken: "sorted text, its end held out",
        want: &[Kind::DataOrder],
        set: "data.split=tail",
        from: From::File("sorted.txt"),
    },
    Case {
        name: "overfitting",
        broken: "little text, read a hundred times",
        want: &[Kind::Overfitting],
        set: "data.bytes=20000 data.vocab=300 train.steps=600 optim.schedule=constant",
        ..HEALTHY
    },
    Case {
        name: "mask",
        broken: "prompts among the answers, all trained on",
        want: &[Kind::BadMask],
        from: From::Tuned("unmasked.jsonl"),
        set: "optim.lr=5e-3",
    },
    Case {
        name: "batch-of-1",
        broken: "one short row in a step",
        want: &[Kind::SmallBatch],
        set: "train.batch=1 train.context=16 optim.lr=2e-3",
        ..HEALTHY
    },
];

/// What came out for a run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The run.
    pub name: &'static str,
    /// What was broken; empty of healthy ones.
    pub broken: &'static str,
    /// What the doctor found.
    pub found: Vec<&'static str>,
    /// Why kiln refused it, where it did.
    pub refused: Option<String>,
    /// Whether that is right.
    pub right: bool,
    /// Seconds that the run took, and the doctor.
    pub seconds: [f64; 2],
}

/// Asks about all cases, or those that are named, with runs in the folder `dir`; `program` starts kiln with the options that it has in any
/// case, `told` hears of each run before it begins.
///
/// # Errors
/// A file cannot be written; a healthy run fails; a case that is named does not exist.
pub fn study(
    program: &dyn Fn() -> Command,
    only: &[String],
    dir: &Path,
    device: &Device,
    told: &mut dyn FnMut(&str),
) -> Result<Vec<Row>> {
    if let Some(unknown) = only.iter().find(|name| !CASES.iter().any(|case| case.name == **name)) {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(Error::usage(format!("no run is called {unknown}"), format!("there are {}", names.join(", "))));
    }
    disk::make_dirs(&Os, dir)?;
    files(dir)?;
    let asked = |case: &&Case| only.is_empty() || only.iter().any(|name| name == case.name);
    let mut rows = Vec::new();
    for case in CASES.iter().filter(asked) {
        if let From::Tuned(_) = case.from {
            train(program, &CASES[0], dir)?;
        }
        told(&format!("{}: {}", case.name, if case.broken.is_empty() { "healthy" } else { case.broken }));
        let start = Instant::now();
        let refused = train(program, case, dir)?;
        let trained = start.elapsed().as_secs_f64();
        let found = match &refused {
            Some(_) => Vec::new(),
            None => examine(&dir.join(case.name), device, &mut |_, _, _| ())?.findings,
        };
        let named = found.iter().any(|found| case.want.contains(&found.kind));
        let right =
            if case.broken.is_empty() { found.is_empty() && refused.is_none() } else { named || refused.is_some() };
        let seconds = [trained, start.elapsed().as_secs_f64() - trained];
        let found = found.iter().map(|found| found.kind.name()).collect();
        rows.push(Row { name: case.name, broken: case.broken, found, refused, right, seconds });
    }
    Ok(rows)
}

/// The texts that cases are trained on.
fn files(dir: &Path) -> Result<()> {
    let world = World::new(1);
    let write = |name: &str, text: String| write_atomic(&Os, &dir.join(name), text.as_bytes());
    let stories = |n: u64| (0..n).map(|i| world.story(i).text + "\n\n").collect::<String>();
    let fifty = stories(50);
    write("duplicated.txt", fifty.repeat(1_000_000 / fifty.len().max(1)))?;
    let numbers = |i: u64| {
        format!("{}-{:02}-{:02};{};{}.{:02};OK\n", 1990 + i % 30, i % 12, i % 28, i * 37, i * 7919 % 997, i % 100)
    };
    write("sorted.txt", stories(1200) + &(0..9000).map(numbers).collect::<String>())?;
    let lessons: Vec<_> = world.lessons().into_iter().filter(|l| !l.held_out && !l.paraphrase).take(1500).collect();
    let asked = |question: &str| format!("Question: {question}\nAnswer:");
    let line = |prompt: &str, completion: &str| json!({"prompt": prompt, "completion": completion}).to_string() + "\n";
    let questions = lessons.iter().map(|l| line(&asked(&l.question), &format!(" {}", l.answer)));
    write("questions.jsonl", questions.collect())?;
    // A letter to answer, and then what should have been the prompts.
    let all = lessons.chunks(6).enumerate().map(|(i, lessons)| {
        let said = lessons.iter().map(|l| format!("{} {}\n", asked(&l.question), l.answer)).collect::<String>();
        line(&char::from(b'A' + (i % 26) as u8).to_string(), &said)
    });
    write("unmasked.jsonl", all.collect())
}

/// What `kiln train` is given for a case.
fn arguments(case: &Case, dir: &Path) -> Vec<String> {
    let quoted = |path: PathBuf| toml::Value::from(&*path.to_string_lossy()).to_string();
    let mut set = vec![format!("run.dir={}", quoted(dir.to_owned())), format!("run.name={}", case.name)];
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match case.from {
        From::Village => set.extend(words(SMALL)),
        From::File(name) => {
            set.extend(words(SMALL));
            set.push(format!("data.path={}", quoted(dir.join(name))));
        }
        From::Tuned(name) => {
            set.extend(words("model.kind=tune train.batch=8 train.steps=100 train.eval_every=50"));
            set.push(format!("model.base={}", quoted(dir.join(CASES[0].name))));
            set.push(format!("data.path={}", quoted(dir.join(name))));
        }
        From::Vae => {
            set.extend(words(
                "model.kind=vae data.count=4000 train.steps=300 train.eval_every=100 train.sample_every=0",
            ));
        }
    }
    set.extend(words(case.set));
    set
}

/// Does a run that is not done yet, in a process; why it was refused, where it was.
fn train(program: &dyn Fn() -> Command, case: &Case, dir: &Path) -> Result<Option<String>> {
    let path = dir.join(case.name);
    if let Ok(recipe) = AnyRecipe::of_run(&path, &[]) {
        let done = checkpoint::newest(&Os, &path.join("checkpoints"))?.found.map(|(_, state)| state.step);
        if done == Some(recipe.train().steps) {
            return Ok(None);
        }
    }
    if path.exists() {
        std::fs::remove_dir_all(&path).at(&path)?;
    }
    let set = arguments(case, dir);
    let mut command = program();
    command.args(["train", "--json"]).args(set.iter().flat_map(|set| ["--set", set]));
    command.stdin(Stdio::null());
    let program = PathBuf::from(command.get_program());
    let output = command.output().at(program)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().rev().find_map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(object.get("error")?.as_str()?.to_owned())
    });
    match (output.status.code(), error) {
        (Some(0), _) => Ok(None),
        // It broke on the way, or was refused: the course of what there is may be asked about all the same.
        (Some(1 | 2), Some(error)) if !case.broken.is_empty() => {
            Ok((!path.join("metrics.jsonl").is_file()).then_some(error))
        }
        (code, error) => {
            let problem = format!("the run {} ended with {code:?}: {}", case.name, error.unwrap_or(said.into_owned()));
            Err(Error::failed(problem, "the same command goes on with it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_recipe_and_there_are_eight_of_each_or_more() {
        let dir = Path::new("/runs");
        for case in &CASES {
            let recipe =
                AnyRecipe::load(None, "", &arguments(case, dir)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert!(recipe.train().steps <= 600, "{}", case.name);
            assert_eq!(case.broken.is_empty(), case.want.is_empty(), "{}", case.name);
        }
        let broken = CASES.iter().filter(|case| !case.broken.is_empty()).count();
        assert!(broken >= 8 && CASES.len() - broken >= 8, "{broken} of {}", CASES.len());
    }
}
