//! `kiln data codes`: pictures as text for a language model.

use crate::cli::Global;
use crate::cli::term::{print, quote, thousands};
use clap::Args;
use kiln::error::Result;
use kiln::train::pictures::codes::Coder;
use serde_json::json;
use std::path::PathBuf;

/// Turn pictures into text with a VQ-VAE, a character for each code, for a language model to learn
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data codes runs/vqvae --out codes.jsonl
  kiln data codes runs/vqvae --data mnist --out codes.jsonl
  kiln train data/recipes/codes.toml --data codes.jsonl")]
pub struct CodesArgs {
    /// A run of a VQ-VAE, or one of its checkpoints
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// IDX files, CIFAR-10, or a folder of pictures [default: the built-in world]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Pictures of the built-in world
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..))]
    count: u32,
    /// Where to write them, as .jsonl
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `kiln data codes`.
pub fn run(args: &CodesArgs, global: &Global) -> Result<()> {
    let mut coder = Coder::open(&args.run, &global.host()?)?;
    let count = coder.write(args.data.as_deref(), args.count as usize, &args.out)?;
    let cells = coder.cells();
    if global.json {
        return print(&json!({"out": args.out.to_string_lossy(), "pictures": count, "codes": cells}).to_string());
    }
    let (out, count) = (args.out.display(), thousands(count as u64));
    let next = format!("kiln train data/recipes/codes.toml --data {}", quote(&args.out));
    print(&format!("{out}: {count} pictures of {cells} codes each\n\nnext: {next}"))
}
