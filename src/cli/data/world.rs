//! `kiln data world`: a corpus of the built-in world, with the truth of each document.

use super::plural;
use crate::cli::term::{Progress, print, quote, thousands};
use clap::Args;
use kiln::data::images::Shapes;
use kiln::data::images::world::Format;
use kiln::data::music::Melodies;
use kiln::data::world::{Era, Export, Flawed, Flaws, Form, Split, World};
use kiln::disk::Os;
use kiln::error::{AtPath, Error, Result};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Write a corpus of the built-in world, with the truth of each document beside it
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data world --out world --size 50MB --flaws all
  kiln data world --out tunes --kind melodies --size 2MB
  kiln data world --out shapes --kind pictures --count 60000")]
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
    /// Its time: 1; 2, years later, with new people, words and habits; or habits, where only those are other ones
    #[arg(long, value_name = "ERA", default_value = "1", value_parser = era)]
    era: Era,
    /// Which part: train, val; people (held-out ones, in ways reserved for the others) or paraphrases (held-out ones)
    #[arg(long, value_name = "PART", default_value = "train", value_parser = split)]
    split: Split,
    /// What it holds: stories, qa, dialogues, instructions, preferences, tools, portraits; melodies; or pictures
    #[arg(long, value_name = "KIND", default_value = "stories", value_parser = kind)]
    kind: Kind,
    /// With --kind pictures: how many; the last sixth of them is to be held out
    #[arg(long, value_name = "N", default_value_t = 12_000)]
    count: usize,
    /// With --kind pictures: their width and height
    #[arg(long, value_name = "N", default_value_t = 28)]
    pixels: usize,
    /// With --kind pictures: one .png each, in a folder of its class, instead of IDX files as MNIST's
    #[arg(long)]
    png: bool,
    /// What to plant: all, none, or some of duplicates, near, personal, canaries, rude, false, labels, skew
    #[arg(long, value_name = "LIST", default_value = "none", value_parser = flaws)]
    flaws: Flaws,
    /// How much more often visitors have the usual gender of their occupation, from 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.8)]
    skew: f64,
}

/// What a world is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text(Form),
    Melodies,
    Pictures,
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

/// One of `all` by its name.
fn named<T: Copy>(what: &str, text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|&one| name(one) == text.trim());
    let names: Vec<_> = all.iter().map(|&one| name(one)).collect();
    found.ok_or_else(|| format!("no {what} is called {text:?}: expected {}", names.join(", ")))
}

fn era(text: &str) -> Result<Era, String> {
    named("era", text, &Era::ALL, Era::name)
}

fn split(text: &str) -> Result<Split, String> {
    named("part", text, &Split::ALL, Split::name)
}

fn kind(text: &str) -> Result<Kind, String> {
    let all: Vec<Kind> =
        Form::ALL.iter().map(|&form| Kind::Text(form)).chain([Kind::Melodies, Kind::Pictures]).collect();
    named("kind", text, &all, |kind| match kind {
        Kind::Text(form) => form.name(),
        Kind::Melodies => "melodies",
        Kind::Pictures => "pictures",
    })
}

fn flaws(text: &str) -> Result<Flaws, String> {
    match text {
        "all" => Ok(Flaws::all()),
        "none" => Ok(Flaws::default()),
        _ => text.split(',').map(|name| named("flaw", name, Flawed::ALL, Flawed::name)).collect(),
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
    let form = match args.kind {
        Kind::Text(form) => form,
        Kind::Melodies => return melodies(args, json),
        Kind::Pictures => return pictures(args, json),
    };
    let start = Instant::now();
    std::fs::create_dir_all(&args.out).at(&args.out)?;
    let what = Export { form, split: args.split, flaws: args.flaws, skew: args.skew, bytes: args.size };
    let progress = Progress::bytes("writing", args.size);
    let written = World::era(args.seed, args.era).export(&what, &Os, &args.out, &|done| progress.set(done))?;
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
    text += &if form != Form::Stories {
        format!("next: head -n 3 {corpus}")
    } else if args.flaws == Flaws::default() {
        format!("next: kiln data tokenizer {corpus}")
    } else {
        format!("next: kiln data clean {corpus} --out clean")
    };
    print(&text)
}

fn melodies(args: &WorldArgs, json: bool) -> Result<()> {
    let start = Instant::now();
    let count = Melodies::new(args.seed).write(&args.out, args.size)?;
    if json {
        let seconds = start.elapsed().as_secs_f64();
        return print(&json!({"path": args.out, "documents": count, "seconds": seconds}).to_string());
    }
    let corpus = quote(&args.out.join("corpus.jsonl"));
    let text = format!("{} melodies in ABC notation\nwrote {}\n\n", thousands(count), args.out.display());
    print(&format!("{text}next: kiln train --data {corpus}, then kiln sample RUN --prompt \"X:1\" --wav tune.wav"))
}

fn pictures(args: &WorldArgs, json: bool) -> Result<()> {
    let start = Instant::now();
    let format = if args.png { Format::Png } else { Format::Idx };
    Shapes::new(args.seed, args.pixels)?.write(&args.out, args.count, format)?;
    if json {
        let (count, seconds) = (args.count, start.elapsed().as_secs_f64());
        return print(
            &json!({"path": args.out, "pictures": count, "pixels": args.pixels, "seconds": seconds}).to_string(),
        );
    }
    let (count, pixels) = (thousands(args.count as u64), args.pixels);
    let text =
        format!("{count} pictures of {pixels} x {pixels}, the last sixth held out; their factors in factors.jsonl\n");
    print(&format!(
        "{text}wrote {}\n\nnext: look at {}",
        args.out.display(),
        quote(&args.out.join("contact-sheet.png"))
    ))
}
