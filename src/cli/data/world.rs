//! `kiln data world`: a corpus of the built-in world, with the truth of each document.

use super::plural;
use crate::cli::term::{Progress, print, quote, thousands};
use clap::{Args, ValueEnum};
use kiln::data::world::{Export, Flawed, Flaws, Split, World};
use kiln::disk::Os;
use kiln::error::{AtPath, Error, Result};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Write a corpus of the built-in world, with the truth of each document beside it
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kiln data world --out world --size 50MB --flaws all")]
pub struct WorldArgs {
    /// Folder to write into: corpus.jsonl, truth.jsonl, README.txt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Size of corpus.jsonl, from 10KB to 10GB
    #[arg(long, value_name = "SIZE", default_value = "10MB", value_parser = size)]
    size: u64,
    /// Which world
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Which part of it
    #[arg(long, value_enum, default_value = "train")]
    split: SplitArg,
    /// What to plant: all, none, or some of duplicates, near, personal, canaries, rude, false, labels, skew
    #[arg(long, value_name = "LIST", default_value = "none", value_parser = flaws)]
    flaws: Flaws,
    /// How much more often visitors have the usual gender of their occupation, from 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.8)]
    skew: f64,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum SplitArg {
    /// Nineteen stories of twenty
    Train,
    /// The others
    Val,
}

/// Reads a size as `50MB`: a number, and KB, MB or GB for thousands, millions or thousands of millions of bytes.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let number = upper.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let unit = match &upper[number.len()..] {
        "" | "B" => 1.0,
        "KB" | "K" => 1e3,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        _ => return Err("expected a size as 500KB, 50MB or 2GB".into()),
    };
    let bytes = number.parse::<f64>().map_err(|_| "expected a size as 500KB, 50MB or 2GB")? * unit;
    if (1e4..=1e10).contains(&bytes) { Ok(bytes as u64) } else { Err("expected 10KB to 10GB".into()) }
}

fn flaws(text: &str) -> Result<Flaws, String> {
    match text {
        "all" => Ok(Flaws::all()),
        "none" => Ok(Flaws::default()),
        _ => text
            .split(',')
            .map(|name| {
                let found = Flawed::ALL.iter().copied().find(|flaw| flaw.name() == name.trim());
                let names: Vec<_> = Flawed::ALL.iter().map(|flaw| flaw.name()).collect();
                found.ok_or_else(|| {
                    format!("no flaw is called {name:?}: expected all, none, or some of {}", names.join(", "))
                })
            })
            .collect(),
    }
}

/// Runs `kiln data world`.
pub fn run(args: &WorldArgs, json: bool) -> Result<()> {
    if !(0.0..=1.0).contains(&args.skew) {
        return Err(Error::usage(
            format!("--skew: {} is not between 0 and 1", args.skew),
            "0.8 is a strong skew, 0 none",
        ));
    }
    let start = Instant::now();
    std::fs::create_dir_all(&args.out).at(&args.out)?;
    let split = match args.split {
        SplitArg::Train => Split::Train,
        SplitArg::Val => Split::Val,
    };
    let what = Export { split, flaws: args.flaws, skew: args.skew, bytes: args.size };
    let progress = Progress::bytes("writing", args.size);
    let written = World::new(args.seed).export(&what, &Os, &args.out, &|done| progress.set(done))?;
    drop(progress);
    let seconds = start.elapsed().as_secs_f64();
    let bits = written.nats / std::f64::consts::LN_2 / written.text.max(1) as f64;
    if json {
        let flaws: serde_json::Map<_, _> = written.flaws.iter().map(|&(name, n)| (name.to_owned(), n.into())).collect();
        return print(
            &json!({"path": args.out.to_string_lossy(), "documents": written.documents, "bytes": written.bytes,
                "text": written.text, "nats": written.nats, "bits_per_byte": bits, "flaws": flaws, "seconds": seconds})
            .to_string(),
        );
    }
    let mut text = format!(
        "{} documents, {} bytes of text, in {seconds:.1} s ({:.0} MB/s)\nfloor {bits:.3} bits a byte\n",
        thousands(written.documents),
        thousands(written.text),
        written.bytes as f64 / 1e6 / seconds.max(1e-9),
    );
    for &(name, count) in &written.flaws {
        text += &format!("  {:<16} {:>9} flaw{}\n", name, thousands(count), plural(count as usize));
    }
    text += &format!("wrote {}\n\n", args.out.display());
    let corpus = quote(&args.out.join("corpus.jsonl"));
    text += &if args.flaws == Flaws::default() {
        format!("next: kiln data tokenizer {corpus}")
    } else {
        format!("next: kiln data clean {corpus} --out clean")
    };
    print(&text)
}
