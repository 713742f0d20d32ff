//! `kiln data augment`: both genders beside the same words.

use super::Input;
use crate::cli::Global;
use crate::cli::term::{Progress, print, quote, safe, thousands};
use clap::Args;
use kiln::data::augment::{Augmented, DOCUMENTS, Way, augment};
use kiln::data::swap::{Swap, word_list};
use kiln::error::Result;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Write documents with both genders beside the same words: each with its counterpart, or repeated and left out
///
/// A counterpart has she for he, her for him, woman for man and so on, everywhere; names are left alone. docs/bias.md says how well
/// that mends what a model prefers, and how that is measured.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data augment corpus.jsonl --out both
  kiln data augment corpus/ --out both --spare-names --only occupations.txt
  kiln data augment corpus/ --out both --swap mine.toml     pairs = [[\"he\", \"she\"], …]
  kiln data augment corpus/ --out even --reweight occupations.txt")]
pub struct AugmentArgs {
    #[command(flatten)]
    input: Input,
    /// Folder to write documents.jsonl into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What is swapped: built-in, or a file of pairs in TOML
    #[arg(long, value_name = "PAIRS", default_value = "built-in")]
    swap: PathBuf,
    /// Swap only in documents with one of these words: a file, one a line
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
    /// Swap only in documents without a name: a word with a capital inside a sentence
    #[arg(long)]
    spare_names: bool,
    /// Put half of the counterparts, by lot, in the place of their documents: as much text as before, none of it twice
    #[arg(long)]
    instead: bool,
    /// Swap nothing: repeat and leave out documents until those with more left words of the pairs and those with more right ones are as
    /// frequent beside each of these words
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "spare_names", "instead"])]
    reweight: Option<PathBuf>,
}

/// Runs `kiln data augment`.
pub fn run(args: &AugmentArgs, global: &Global) -> Result<()> {
    let start = Instant::now();
    let swap = if args.swap.as_os_str() == "built-in" { Swap::gender() } else { Swap::open(&args.swap)? };
    let way = match &args.reweight {
        Some(path) => Way::Reweigh(word_list(path)?),
        None => {
            let only = args.only.as_ref().map(|path| word_list(path)).transpose()?.unwrap_or_default();
            Way::Swap { only, spare_names: args.spare_names, instead: args.instead }
        }
    };
    let sources = args.input.open()?;
    let mut bar: Option<Progress> = None;
    let done = augment(&sources, &swap, &way, &args.out, &mut |n| {
        if !global.json {
            bar.get_or_insert_with(|| Progress::bytes("reading", sources.bytes())).set(n);
        }
        Ok(())
    })?;
    drop(bar);
    if global.json {
        let mut object = json!(done);
        object["path"] = json!(args.out.join(DOCUMENTS));
        object["seconds"] = json!(start.elapsed().as_secs_f64());
        return print(&object.to_string());
    }
    print(&said(&done, args))
}

fn said(done: &Augmented, args: &AugmentArgs) -> String {
    let mut text = format!("{} documents read, {} written", thousands(done.read), thousands(done.written));
    if args.reweight.is_none() {
        text += &format!(", {} of them counterparts", thousands(done.counterparts));
    }
    if done.spared > 0 {
        text += &format!("; {} have a name in them and none", thousands(done.spared));
    }
    text += "\n";
    if !done.words.is_empty() {
        text += &format!("  {:<20} {:>10} {:>10} {:>10} {:>10}\n", "", "left", "right", "left now", "right now");
    }
    for (word, beside) in &done.words {
        let [a, b, c, d] =
            [beside.before, beside.after].concat()[..].try_into().map(|n: [u64; 4]| n.map(thousands)).expect("four");
        text += &format!("  {:<20} {a:>10} {b:>10} {c:>10} {d:>10}\n", safe(word));
    }
    let path = args.out.join(DOCUMENTS);
    text + &format!("wrote {}\n\nnext: kiln train --data {}", path.display(), quote(&path))
}
