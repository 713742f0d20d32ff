//! `kiln data tokenizer`: a tokenizer from text.

use super::{Input, describe, note_skipped, plural};
use crate::cli::term::{Progress, print, quote, thousands};
use clap::{Args, ValueEnum};
use kiln::data::Tokenizer;
use kiln::data::dataset::TOKENIZER_FILE;
use kiln::error::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Make a tokenizer from text
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kiln data tokenizer books/ notes.txt --vocab 8192 --out tokenizer.json")]
pub struct TokenizerArgs {
    #[command(flatten)]
    input: Input,
    /// What a token is
    #[arg(long, value_enum, default_value = "bpe")]
    kind: KindArg,
    /// Size of a BPE vocabulary
    #[arg(long, value_name = "N", default_value_t = 8192)]
    vocab: usize,
    /// Where to write it
    #[arg(long, value_name = "FILE", default_value = TOKENIZER_FILE)]
    out: PathBuf,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum KindArg {
    /// Byte-level byte-pair encoding, as GPT-2
    Bpe,
    /// Characters of the text
    Char,
    /// Bytes
    Byte,
}

/// Runs `kiln data tokenizer`.
pub fn run(args: &TokenizerArgs, json: bool) -> Result<()> {
    let (start, sources) = (Instant::now(), args.input.open()?);
    let progress = Progress::bytes("reading text", sources.bytes());
    let tokenizer = match args.kind {
        KindArg::Byte => Tokenizer::bytes(),
        KindArg::Char => Tokenizer::chars_of(sources.documents(), &mut |done| progress.set(done))?,
        KindArg::Bpe => Tokenizer::train_bpe(sources.documents(), args.vocab, &|done| progress.set(done))?,
    };
    drop(progress);
    tokenizer.save(&args.out)?;
    let bytes_per_token = tokenizer.bytes_per_token(sources.documents(), 4 << 20)?;
    let seconds = start.elapsed().as_secs_f64();
    if json {
        let mut object = describe(&tokenizer);
        object["file"] = json!(args.out.to_string_lossy());
        object["bytes_per_token"] = json!(bytes_per_token);
        object["seconds"] = json!(seconds);
        return print(&object.to_string());
    }
    let mut text = format!(
        "{} tokenizer, {} ids, from {} bytes of {} file{} in {seconds:.1} s\n",
        tokenizer.kind(),
        thousands(tokenizer.vocab_size() as u64),
        thousands(sources.bytes()),
        thousands(sources.files().len() as u64),
        plural(sources.files().len()),
    );
    text += &note_skipped(&sources);
    if matches!(args.kind, KindArg::Bpe) && tokenizer.vocab_size() < args.vocab {
        text +=
            &format!("asked for {} ids: the text has no more pairs that occur twice\n", thousands(args.vocab as u64));
    }
    text += &format!("{bytes_per_token:.2} bytes per token\nwrote {}\n\n", args.out.display());
    let mut inputs: Vec<_> = args.input.sources.iter().map(|p| quote(p)).collect();
    if args.input.text_field != "text" {
        inputs.push(format!("--text-field {}", quote(Path::new(&args.input.text_field))));
    }
    text += &format!("next: kiln data shard {} --tokenizer {} --out data", inputs.join(" "), quote(&args.out));
    print(&text)
}
