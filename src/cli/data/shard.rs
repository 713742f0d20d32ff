//! `kiln data shard`: text to token shards.

use super::{counts, note_skipped};
use crate::cli::term::{Progress, print, quote, safe, thousands};
use clap::{Args, ValueEnum};
use kiln::data::dataset::DatasetInfo;
use kiln::data::mix::{Component, Mix, Used, from_toml};
use kiln::data::{Prepare, Rule, ShardFormat, Sources, Split, Tokenizer, prepare};
use kiln::disk::{Os, text as read_text};
use kiln::error::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Turn text into token shards, split into training and validation
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data shard books/ --tokenizer tokenizer.json --out data/books
  kiln data shard --mix wiki=0.7:wiki/ books=0.3:books/ --passes 2 --tokenizer gpt2 --out data/mixed")]
pub struct ShardArgs {
    /// .txt, .md or .jsonl files, or folders of these
    #[arg(value_name = "IN", required_unless_present = "mix")]
    sources: Vec<PathBuf>,
    /// Sources with their shares of the text, instead of IN; or a .toml file with [[source]] name, weight, path
    #[arg(long, value_name = "NAME=WEIGHT:PATH", num_args = 1.., conflicts_with = "sources")]
    mix: Vec<String>,
    /// With --mix: times that a source may be read; the mixture ends when the source that is due has been
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), requires = "mix")]
    passes: u32,
    /// Field of the text in .jsonl files
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// The tokenizer.json to use, or gpt2
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
    let (info, skipped) = args.write(&tokenizer, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    if json {
        let mut object = json!(info);
        object["path"] = json!(args.out.to_string_lossy());
        object["seconds"] = json!(seconds);
        return print(&object.to_string());
    }
    let mut text = counts(&info);
    text += &skipped;
    text += &mixture(&info);
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

impl ShardArgs {
    /// Writes the shards. Also gives a note on files that were passed over.
    fn write(&self, tokenizer: &Tokenizer, options: &Prepare) -> Result<(DatasetInfo, String)> {
        if self.mix.is_empty() {
            let sources = Sources::open(&self.sources, &self.text_field)?;
            let progress = Progress::bytes("tokenising", sources.bytes());
            let info = prepare(sources.documents(), tokenizer, options, &self.out, &mut |done| progress.set(done))?;
            return Ok((info, note_skipped(&sources)));
        }
        let mix = Mix::open(&self.components()?, &self.text_field)?;
        let mut documents = mix.documents(self.passes);
        let progress = Progress::bytes("tokenising", mix.bytes() * u64::from(self.passes));
        let info = prepare(&mut documents, tokenizer, options, &self.out, &mut |done| progress.set(done))?;
        let info = DatasetInfo { mix: documents.used(), ..info };
        info.save(&self.out)?;
        Ok((info, String::new()))
    }

    fn components(&self) -> Result<Vec<Component>> {
        let mut all = Vec::new();
        for word in &self.mix {
            match Path::new(word) {
                path if path.extension().is_some_and(|ext| ext == "toml") && !word.contains('=') => {
                    all.extend(from_toml(&read_text(&Os, path, 1 << 20)?, path)?);
                }
                _ => {
                    all.push(word.parse().map_err(|hint| Error::usage(format!("--mix {word}: not understood"), hint))?)
                }
            }
        }
        Ok(all)
    }
}

/// What was taken of each source of a mixture.
fn mixture(info: &DatasetInfo) -> String {
    let total = info.mix.iter().map(|used| used.bytes).sum::<u64>().max(1) as f64;
    let line = |Used { name, share, documents, bytes, passes }: &Used| {
        let (got, share) = (100.0 * *bytes as f64 / total, 100.0 * share);
        let read = match passes {
            0 => String::new(),
            1 => ", read to its end".to_owned(),
            n => format!(", read to its end {n} times"),
        };
        let documents = thousands(*documents);
        format!("  {:<12} {got:5.1} % of the text ({share:.1} % asked for), {documents} documents{read}\n", safe(name))
    };
    info.mix.iter().map(line).collect()
}
