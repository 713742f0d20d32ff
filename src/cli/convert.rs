//! `kiln convert`.

use super::Global;
use super::term::{Progress, note, print, quote, thousands, warn};
use clap::{Args, ValueEnum};
use kiln::data::atomic::write_atomic;
use kiln::data::{Sources, Tokenizer};
use kiln::disk::Os;
use kiln::error::Result;
use kiln::formats::convert::{Target, convert};
use kiln::formats::{Format, Pretrained};
use kiln::report::page::card;
use kiln::report::{Extra, gather};
use kiln::train::AnyRecipe;
use kiln::train::sampler::adapted;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Take a model from one program to another
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln convert runs/village --out village-hf             with a model card, README.md
  kiln convert SmolLM2-135M.Q4_K_M.gguf --out smollm2
  kiln convert smollm2 --out smollm2.gguf --dtype q8_0
  kiln convert smollm2 --adapter runs/roleplay --out merged
  kiln convert smollm2 --new-tokens 500 --text chemistry/ --out wider     words of a domain
  kiln convert gpt2 --out gpt2_124M.bin --dtype bf16")]
pub struct ConvertArgs {
    /// A run, a checkpoint, a Hugging Face directory, a GGUF file or an llm.c checkpoint
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Merge this adapter (of kiln tune or PEFT) into it first; may be repeated
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,
    /// Give it at most so many more tokens, learnt from --text; their rows are the means of their pieces'
    #[arg(long, value_name = "N", requires = "text")]
    new_tokens: Option<usize>,
    /// Text to learn them from: files or folders; may be repeated
    #[arg(long, value_name = "PATH", requires = "new_tokens")]
    text: Vec<PathBuf>,
    /// Where to put it; nothing may be there yet
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// As what: hf (a directory for transformers), gguf, llmc [default: as the name ends: .gguf, .bin, else hf]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    to: Option<To>,
    /// Numbers of the matrices: f32, f16, bf16, q8_0 (gguf only) [default: the smallest that loses nothing]
    #[arg(long, value_name = "TYPE", hide_possible_values = true)]
    dtype: Option<Numbers>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum To {
    #[value(alias = "kiln")]
    Hf,
    Gguf,
    Llmc,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Numbers {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

/// Bytes of text over which bytes a token are told.
const LOOK: usize = 4 << 20;

/// The model with more tokens.
fn wider(model: Pretrained, n: usize, text: &[PathBuf]) -> Result<Pretrained> {
    let sources = Sources::open(text, "text")?;
    let before = model.need_tokenizer()?.clone();
    let bar = Progress::bytes("learning tokens", sources.bytes());
    let model = model.extended(sources.documents(), n, &|read| bar.set(read))?;
    drop(bar);
    let after = model.need_tokenizer()?;
    let each = |tokenizer: &Tokenizer| tokenizer.bytes_per_token(sources.documents(), LOOK);
    note(&format!(
        "{} new tokens, {} in all: {:.2} bytes of the text a token, {:.2} before",
        thousands((after.vocab_size() - before.vocab_size()) as u64),
        thousands(after.vocab_size() as u64),
        each(after)?,
        each(&before)?
    ));
    Ok(model)
}

/// Writes the model card of a run beside what its model was written to, and gives its place. Nobody asked for it, so what the run must not
/// tell stays untold: a card has counts and times, which a private run's account does not cover.
fn write_card(args: &ConvertArgs) -> Result<Option<PathBuf>> {
    let path = args.out.join("README.md");
    // With more adapters or tokens it is no longer the run's model.
    let changed = !args.adapter.is_empty() || args.new_tokens.is_some();
    if changed || path.exists() || !args.model.join("recipe.toml").is_file() {
        return Ok(None);
    }
    if AnyRecipe::of_run(&args.model, &[])?.optim().dp.is_some() {
        return Ok(None);
    }
    let facts = gather(&args.model, &Extra::default())?;
    write_atomic(&Os, &path, card(&facts, Some(&args.out)).as_bytes())?;
    Ok(Some(path))
}

/// Runs `kiln convert`.
pub fn run(args: ConvertArgs, global: &Global) -> Result<()> {
    let start = Instant::now();
    let (mut model, damaged): (Pretrained, _) = adapted(&args.model, &args.adapter)?;
    if let Some(n) = args.new_tokens {
        model = wider(model, n, &args.text)?;
    }
    for damage in damaged {
        warn(&format!("{damage}; an older checkpoint is converted"));
    }
    if model.tokenizer().is_none() {
        warn(&format!("{} has no tokenizer, so what is written has none", quote(&args.model)));
    }
    let target = match args.to {
        None => Target::of(&args.out),
        Some(To::Hf) => Target::Hf,
        Some(To::Gguf) => Target::Gguf,
        Some(To::Llmc) => Target::Llmc,
    };
    let format = args.dtype.map(|dtype| match dtype {
        Numbers::F32 => Format::F32,
        Numbers::F16 => Format::F16,
        Numbers::Bf16 => Format::Bf16,
        Numbers::Q8 => Format::Q8_0,
    });
    let bar = Progress::bytes("converting", 0);
    let written = convert(&model, &args.out, target, format, &mut |done, all| bar.set_of(done as u64, all as u64))?;
    drop(bar);
    let card = match target {
        Target::Hf => write_card(&args).unwrap_or_else(|e| {
            warn(&format!("no model card: {e}"));
            None
        }),
        Target::Gguf | Target::Llmc => None,
    };
    let (to, dtype) = (format!("{target:?}").to_lowercase(), written.format.code().1.to_lowercase());
    let out = quote(&args.out);
    if global.json {
        let object = json!({"model": args.model.to_string_lossy(), "out": args.out.to_string_lossy(), "to": to,
            "dtype": dtype, "parameters": written.parameters, "bytes": written.bytes,
            "card": card.map(|path| path.to_string_lossy().into_owned()),
            "seconds": start.elapsed().as_secs_f64()});
        return print(&object.to_string());
    }
    let (parameters, bytes) = (thousands(written.parameters as u64), thousands(written.bytes as u64));
    print(&format!("model  {out} ({to}, {dtype}: {parameters} weights in {bytes} bytes)"))?;
    if let Some(path) = card {
        print(&format!("card   {}", quote(&path)))?;
    }
    if model.tokenizer().is_some() {
        print(&format!("next: kiln sample {out}"))?;
    }
    Ok(())
}
