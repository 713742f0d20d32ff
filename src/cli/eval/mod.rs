//! `kiln eval`: how good a model is, or what it made.

mod gates;
mod pictures;
pub(in crate::cli) mod tasks;

use super::Global;
use clap::Args;
use kiln::error::{Error, Result};
use kiln::train::pictures::exam;
use kiln::train::pictures::sampler::draws;
use kiln::train::served::POINTER;
use std::path::{Path, PathBuf};

/// Ask a language model, compare two, or judge pictures
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln eval runs/village                          the village's own tasks
  kiln eval runs/a runs/b --tasks village-facts   is one better? by a paired test
  kiln eval model/ --tasks text --data book.txt   bits a byte of any text
  kiln eval model/ --tasks arc-easy --data arc.jsonl --limit 500 --log-samples out
  kiln eval runs/a runs/b --why                   which of their settings makes the difference
  kiln eval runs/village --gate data/policy.toml  fails where a figure is not what a policy asks for
  kiln eval runs/a --endpoint http://127.0.0.1:8080/v1 --tasks sums
  kiln eval runs/dcgan                            pictures, beside held-out ones
  kiln eval generated/ --data mnist

A task is a small file in TOML over lines of JSON; docs/eval.md has its keys. What a run answers is kept
in its folder, as RUN/eval/TASK.json, where kiln report finds it. Figures are called and
computed as in lm-evaluation-harness. Distances of pictures are between features of a classifier that
is trained on the data; they compare models on one data set, and are no FID.")]
pub struct EvalArgs {
    /// A run, a checkpoint or a model; or pictures: a folder of .png and .jpg, IDX files
    #[arg(value_name = "MODEL|PICTURES")]
    what: Option<PathBuf>,
    /// Another model, asked the same and compared
    #[arg(value_name = "MODEL_B")]
    other: Option<PathBuf>,
    /// What is asked: names of kiln's own tasks, or files [default: the village's]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Say what tasks there are
    #[arg(long)]
    list: bool,
    /// Items of a task at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Answered examples before each prompt [default: the task's]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,
    /// Whose world asks, where the built-in one does [default: the run's, else 1]
    #[arg(long, value_name = "SEED")]
    world: Option<u64>,
    /// Runs that differ from MODEL in their seed alone: less than they differ is no difference
    #[arg(long, value_name = "RUN,…", value_delimiter = ',', requires = "other")]
    seeds: Vec<PathBuf>,
    /// Why do two runs differ? Train what lies between them, a factor of their recipes at a time, and ask each
    #[arg(long, requires = "other", conflicts_with_all = ["endpoint", "seeds"])]
    why: bool,
    /// With --why: where those runs go; what is there is not done again
    #[arg(long, value_name = "DIR", default_value = "runs/why")]
    out: PathBuf,
    /// What figures must be, in TOML: a line for each gate, and exit code 1 where one fails; its tasks are asked
    #[arg(long, value_name = "POLICY.toml", conflicts_with = "why")]
    gate: Option<PathBuf>,
    /// Keep the figures in this folder, a file a task [default: MODEL/eval, where MODEL is a run]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["other", "why"])]
    save: Option<PathBuf>,
    /// Draw reliability diagrams of tasks that choose into this folder, as SVG
    #[arg(long, value_name = "DIR", conflicts_with = "why")]
    diagrams: Option<PathBuf>,
    /// Write each item and what was said into this folder
    #[arg(long, value_name = "DIR")]
    log_samples: Option<PathBuf>,
    /// Ask a server that speaks OpenAI's HTTP; its key is read from OPENAI_API_KEY
    #[arg(long, value_name = "URL", conflicts_with = "other")]
    endpoint: Option<String>,
    /// Which of the server's models [default: its first]
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    model: Option<String>,
    /// Prompts are what a user says in a chat
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    loading: super::Loading,
    /// What a task asks about, in place of its own data; or what pictures should look like [default: the run's data, or the built-in
    /// world]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Terms to look for in what is written, in place of the task's
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    lexicon: Vec<String>,
    /// What an hour of the machine costs in dollars, for what a million tokens cost (task speed)
    #[arg(long, value_name = "USD", value_parser = price)]
    price: Option<f64>,
    /// A classifier that says of what is written whether it is of its kind: kiln data classifier
    #[arg(long, value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Texts of which what is written may be a copy, as those that a model was trained on
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// How many pictures a model draws
    #[arg(long, value_name = "N", default_value_t = exam::PICTURES as u32, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    num: u32,
    /// The same seed draws and writes the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the classifiers that judge pictures are kept
    #[arg(long, value_name = "DIR", default_value = "runs/judges")]
    judges: PathBuf,
}

fn price(text: &str) -> std::result::Result<f64, String> {
    let price: f64 = text.parse().map_err(|_| "a number of dollars is expected".to_owned())?;
    if (0.0..=1e6).contains(&price) { Ok(price) } else { Err("0 to 1000000 dollars are expected".into()) }
}

/// Runs `kiln eval` and gives the exit code: 1 where a gate fails.
pub fn run(args: &EvalArgs, global: &Global) -> Result<u8> {
    if args.list {
        return tasks::list(global).map(|()| 0);
    }
    match &args.what {
        Some(what) if args.tasks.is_empty() && args.other.is_none() && args.endpoint.is_none() && !writes(what)? => {
            if args.gate.is_some() {
                let hint = "gates are of tasks that a language model is asked: give one";
                return Err(Error::usage(format!("--gate: {} draws pictures", what.display()), hint));
            }
            pictures::run(what, args, global).map(|()| 0)
        }
        None if args.endpoint.is_none() => {
            let hint = "name a model, as runs/village; or a server: --endpoint URL; --list says what can be asked";
            Err(Error::usage("there is nobody to ask", hint))
        }
        _ => tasks::run(args, global),
    }
}

/// Whether a path is a language model's.
fn writes(path: &Path) -> Result<bool> {
    let has = |name: &str| path.join(name).exists();
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || has("adapter_config.json") || has(POINTER) {
        return Ok(true);
    }
    if has("recipe.toml") || has("state.json") {
        return Ok(!draws(path)?);
    }
    Ok(has("config.json"))
}
