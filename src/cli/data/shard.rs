//! `kiln data shard`: text to token shards.

use super::{Input, counts, note_skipped};
use crate::cli::term::{Progress, print, quote};
use clap::{Args, ValueEnum};
use kiln::data::{Prepare, Rule, ShardFormat, Split, Tokenizer, prepare};
use kiln::error::Result;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Turn text into token shards, split into training and validation
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kiln data shard books/ --tokenizer tokenizer.json --out data/books")]
pub struct ShardArgs {
    #[command(flatten)]
    input: Input,
    /// The tokenizer.json to use
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Share held out for validation
    #[arg(long, value_name = "F", default_value_t = Split::default().fraction)]
    val_fraction: f64,
    /// Hold out whole documents, or the tail of the text
    #[arg(long, value_enum, default_value = "document")]
    split: RuleArg,
    /// Seed of the choice of documents
    #[arg(long, value_name = "N", default_value_t = Split::default().seed)]
    split_seed: u64,
    /// Layout of the shards: llm.c's with a header, or nanoGPT's bare u16
    #[arg(long, value_enum, default_value = "llmc")]
    format: FormatArg,
    /// Tokens in a shard
    #[arg(long, value_name = "N", default_value_t = Prepare::default().max_tokens)]
    shard_tokens: usize,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum RuleArg {
    Document,
    Tail,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum FormatArg {
    Llmc,
    Nanogpt,
}

/// Runs `kiln data shard`.
pub fn run(args: &ShardArgs, json: bool) -> Result<()> {
    let start = Instant::now();
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let sources = args.input.open()?;
    let options = Prepare {
        split: Split {
            rule: match args.split {
                RuleArg::Document => Rule::Document,
                RuleArg::Tail => Rule::Tail,
            },
            fraction: args.val_fraction,
            seed: args.split_seed,
        },
        format: match args.format {
            FormatArg::Llmc => ShardFormat::Llmc,
            FormatArg::Nanogpt => ShardFormat::Nanogpt,
        },
        max_tokens: args.shard_tokens,
    };
    let progress = Progress::bytes("tokenising", sources.bytes());
    let info = prepare(sources.documents(), &tokenizer, &options, &args.out, &mut |done| progress.set(done))?;
    drop(progress);
    let seconds = start.elapsed().as_secs_f64();
    if json {
        let mut object = json!(info);
        object["path"] = json!(args.out.to_string_lossy());
        object["seconds"] = json!(seconds);
        return print(&object.to_string());
    }
    let mut text = counts(&info);
    text += &note_skipped(&sources);
    let held_out = info.val.bytes as f64 / (info.train.bytes + info.val.bytes) as f64;
    if options.split.rule == Rule::Document && info.split.rule == Rule::Tail {
        text += "one document only: its tail is held out\n";
    } else if !(0.5..2.0).contains(&(held_out / info.split.fraction)) {
        text += &format!(
            "held out {:.1} % of the text instead of {:.1} %: the documents are few or uneven; --split tail is exact\n",
            100.0 * held_out,
            100.0 * info.split.fraction
        );
    }
    text +=
        &format!("wrote {} in {seconds:.1} s\n\nnext: kiln data inspect {}\n", args.out.display(), quote(&args.out));
    text += &format!("      kiln train --data {}", quote(&args.out));
    print(&text)
}
