//! `kiln data`: what comes before training, one file a subcommand.

mod ablate;
mod augment;
mod classifier;
mod clean;
mod codes;
mod diff;
mod get;
mod inspect;
mod pictures;
mod shard;
mod takedown;
mod tokenizer;
mod world;

use super::Global;
use super::term::{safe, thousands};
use clap::{Args, Subcommand};
use kiln::data::dataset::{DatasetInfo, Part};
use kiln::data::{Sources, Tokenizer};
use kiln::error::Result;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Prepare data: text to tokens to shards.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Get(get::GetArgs),
    Clean(clean::CleanArgs),
    Classifier(classifier::ClassifierArgs),
    Ablate(ablate::AblateArgs),
    Augment(augment::AugmentArgs),
    World(world::WorldArgs),
    Tokenizer(tokenizer::TokenizerArgs),
    Shard(shard::ShardArgs),
    Codes(codes::CodesArgs),
    Inspect(inspect::InspectArgs),
    Diff(diff::DiffArgs),
    Takedown(takedown::TakedownArgs),
}

#[derive(Args, Debug)]
struct Input {
    /// .txt, .md, .html, .jsonl (also .gz, .zst) or .parquet files, folders of these, or patterns
    #[arg(value_name = "IN", required = true)]
    sources: Vec<PathBuf>,
    /// Field of the text in .jsonl files and tables
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
}

/// Runs `kiln data`; with `--json`, standard output gets one JSON object and nothing else.
pub fn run(args: DataArgs, global: &Global) -> Result<()> {
    match args.command {
        Command::Get(args) => get::run(&args, global.json),
        Command::Clean(args) => clean::run(&args, global),
        Command::Classifier(args) => classifier::run(&args, global.json),
        Command::Ablate(args) => ablate::run(&args, global),
        Command::Augment(args) => augment::run(&args, global),
        Command::World(args) => world::run(&args, global.json),
        Command::Tokenizer(args) => tokenizer::run(&args, global.json),
        Command::Shard(args) => shard::run(&args, global.json),
        Command::Codes(args) => codes::run(&args, global),
        Command::Inspect(args) => inspect::run(&args, global.json),
        Command::Diff(args) => diff::run(&args, global.json),
        Command::Takedown(args) => takedown::run(&args, global.json),
    }
}

impl Input {
    fn open(&self) -> Result<Sources> {
        Sources::open(&self.sources, &self.text_field)
    }
}

fn describe(tokenizer: &Tokenizer) -> Value {
    let special: serde_json::Map<_, _> =
        tokenizer.special().iter().map(|(token, id)| (token.clone(), Value::from(*id))).collect();
    json!({"kind": tokenizer.kind(), "vocab": tokenizer.vocab_size(), "eot": tokenizer.eot(), "special": special,
        "sha256": tokenizer.hash()})
}

/// The table of a data set's two parts.
fn counts(info: &DatasetInfo) -> String {
    let mut text = String::new();
    for part in [Part::Train, Part::Val] {
        let p = info.part(part);
        text += &format!(
            "  {part:<5}  tokens {:>13}  bytes {:>13}  documents {:>9}  shards {:>3}  bytes per token {:.2}\n",
            thousands(p.tokens),
            thousands(p.bytes),
            thousands(p.documents),
            p.shards.len(),
            p.bytes as f64 / p.tokens.max(1) as f64,
        );
    }
    text
}

fn note_skipped(sources: &Sources) -> String {
    let skipped = sources.skipped();
    match skipped {
        [] => String::new(),
        [first, ..] => format!(
            "skipped {} file{} of other kinds, as {}\n",
            thousands(skipped.len() as u64),
            plural(skipped.len()),
            safe(&first.display().to_string())
        ),
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
