//! `kiln data inspect`: what is in a data set, a shard, a tokenizer or a set of pictures.

use super::{counts, describe, pictures};
use crate::cli::term::{print, quote, safe, thousands};
use clap::Args;
use kiln::data::dataset::{DATASET_FILE, Dataset, DatasetInfo, Part, TOKENIZER_FILE, commonest};
use kiln::data::images;
use kiln::data::tokenizer::{Kind, MAX_VOCAB};
use kiln::data::{ShardFormat, Tokenizer};
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::train::histogram::TokenHistogram;
use kiln::train::plot::Picture;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Show what is in a data set, a shard, a tokenizer or a set of pictures
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data inspect data/books --samples 3
  kiln data inspect data/mnist --sheet sheet.png")]
pub struct InspectArgs {
    /// A data set's folder, a shard (.bin), a tokenizer.json or gpt2; or pictures: IDX files, CIFAR-10, a folder of .png and .jpg
    path: PathBuf,
    /// The tokenizer of a shard [default: tokenizer.json beside it]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Number of documents to show
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=1000))]
    samples: u16,
    /// Draw how tokens are distributed, as .svg or .png
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// Of pictures: draw some of them side by side, as .png
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Of pictures: scale the middle of each to N x N
    #[arg(long, value_name = "N")]
    size: Option<usize>,
}

/// Runs `kiln data inspect`.
pub fn run(args: &InspectArgs, json: bool) -> Result<()> {
    let path = &args.path;
    // A run keeps its data set in a folder of its own.
    let within = path.join("data");
    let path = if !path.join(DATASET_FILE).is_file() && within.join(DATASET_FILE).is_file() { &within } else { path };
    if !path.join(DATASET_FILE).is_file() && (args.sheet.is_some() || args.size.is_some() || images::are_at(path)) {
        return pictures::inspect(path, args.size, args.sheet.as_deref(), json);
    }
    if path.is_dir() {
        let info = DatasetInfo::load(path)?;
        let tokenizer = info.load_tokenizer(path)?;
        let data = Dataset::open(path, Part::Train)?;
        let val = Dataset::open(path, Part::Val)?;
        let held_out = ("val", val.histogram()?);
        let title = format!(
            "{} · {} tokenizer, {} ids\n{}",
            path.display(),
            tokenizer.kind(),
            thousands(info.tokenizer.vocab as u64),
            counts(&info)
        );
        let next = format!("kiln train --data {}", quote(path));
        return tokens(args, json, json!(info), title, &data, Some(held_out), Some(&tokenizer), &next);
    }
    let built_in = path.as_os_str() == "gpt2" && !path.exists();
    if built_in || path.extension().is_some_and(|e| e == "json") {
        return inspect_tokenizer(path, json);
    }
    if path.extension().is_some_and(|e| ["txt", "md", "jsonl", "toml"].iter().any(|text| e == *text)) {
        let hint = "give what kiln data shard wrote; to make it: kiln data tokenizer, then kiln data shard";
        return Err(Error::usage(format!("{} holds no tokens: it is text", path.display()), hint));
    }
    let beside = path.with_file_name(TOKENIZER_FILE);
    let file = args.tokenizer.clone().or_else(|| beside.is_file().then_some(beside));
    let tokenizer = file.map(Tokenizer::load).transpose()?;
    let vocab = tokenizer.as_ref().map_or(MAX_VOCAB as usize, Tokenizer::vocab_size);
    let data = Dataset::from_files(&[path], vocab, tokenizer.as_ref().and_then(Tokenizer::eot))?;
    let format = data.format();
    let how = match format {
        ShardFormat::Llmc => "llm.c's format",
        ShardFormat::Nanogpt => "no header, so read as nanoGPT's u16",
    };
    let title = format!("{} · {} tokens, {how}\n", path.display(), thousands(data.len() as u64));
    let object = json!({"path": path.to_string_lossy(), "format": format, "tokens": data.len()});
    let next = match &tokenizer {
        Some(_) => format!("kiln data inspect {}", quote(path.parent().unwrap_or(Path::new(".")))),
        None => format!("kiln data inspect {} --tokenizer tokenizer.json", quote(path)),
    };
    tokens(args, json, object, title, &data, None, tokenizer.as_ref(), &next)
}

/// Prints a title, the commonest tokens and sample documents.
fn tokens(
    args: &InspectArgs,
    json: bool,
    mut object: Value,
    mut text: String,
    data: &Dataset,
    held_out: Option<(&str, Vec<u64>)>,
    tokenizer: Option<&Tokenizer>,
    next: &str,
) -> Result<()> {
    let name = |id: u32| tokenizer.map_or_else(|| id.to_string(), |t| format!("{:?}", t.decode(&[id])));
    let counts = data.histogram()?;
    let common = commonest(&counts, 10);
    if let Some(file) = &args.histogram {
        let title = args.path.display().to_string();
        let parts: Vec<_> = [("train", counts.clone())].into_iter().chain(held_out).collect();
        let picture = TokenHistogram { title: &title, parts: &parts };
        match file.extension().and_then(|ext| ext.to_str()) {
            Some("svg") => picture.save_svg(&Os, file)?,
            Some("png") => picture.save_png(&Os, file)?,
            _ => {
                let problem = format!("--histogram {}: not a kind of picture that is drawn here", file.display());
                return Err(Error::usage(problem, "name a file that ends in .svg or .png"));
            }
        }
    }
    let used = counts.iter().filter(|&&n| n > 0).count();
    // About a paragraph.
    let length = if tokenizer.is_some_and(|t| matches!(t.kind(), Kind::Byte | Kind::Char)) { 400 } else { 100 };
    let samples = data.samples(args.samples.into(), length)?;
    let decode = |ids: &[u32]| tokenizer.map_or_else(|| format!("{ids:?}"), |t| t.decode(ids));
    if json {
        object["ids_used"] = json!(used);
        object["commonest"] = common
            .iter()
            .map(|&(id, n)| json!({"id": id, "text": tokenizer.map(|t| t.decode(&[id])), "count": n}))
            .collect();
        object["samples"] = samples
            .iter()
            .map(|(at, ids)| json!({"token": at, "text": tokenizer.map(|t| t.decode(ids)), "ids": ids}))
            .collect();
        return print(&object.to_string());
    }
    text += &format!("\ncommonest of {} ids in use\n", thousands(used as u64));
    let most = common.first().map_or(1, |&(_, n)| n);
    for &(id, n) in &common {
        let share = 100.0 * n as f64 / data.len() as f64;
        let bar = "█".repeat((24 * n).div_ceil(most) as usize);
        text += &format!("  {id:>6}  {:<16} {share:5.2} %  {bar}\n", safe(&name(id)));
    }
    if let Some(file) = &args.histogram {
        text += &format!("\ndrew {}\n", file.display());
    }
    for (at, ids) in &samples {
        let more = if ids.len() == length { "…" } else { "" };
        text += &format!("\n── from token {} on ──\n{}{more}\n", thousands(*at as u64), safe(&decode(ids)).trim_end());
    }
    print(&format!("{text}\nnext: {next}"))
}

fn inspect_tokenizer(path: &Path, json: bool) -> Result<()> {
    let tokenizer = Tokenizer::load(path)?;
    let object = describe(&tokenizer);
    if json {
        return print(&object.to_string());
    }
    let mut text = format!(
        "{} · {} tokenizer, {} ids\n",
        path.display(),
        tokenizer.kind(),
        thousands(tokenizer.vocab_size() as u64)
    );
    text += &format!("sha256   {}\n", tokenizer.hash());
    for (token, id) in tokenizer.special() {
        text += &format!("special  {id:>6}  {}\n", safe(token));
    }
    if let Some(template) = tokenizer.chat_template() {
        text += &format!("template {} characters, for messages\n", thousands(template.chars().count() as u64));
    }
    let longest: Vec<_> = tokenizer.longest(8).iter().map(|t| format!("{t:?}")).collect();
    if !longest.is_empty() {
        text += &format!("longest  {}\n", safe(&longest.join(" ")));
    }
    let sentence = "The old mill by the river has not turned for years.";
    if let Ok(ids) = tokenizer.encode(sentence) {
        let pieces: Vec<_> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
        text += &format!("example  {} ({} tokens)\n", safe(&pieces.join("|")), ids.len());
    }
    print(&format!("{text}\nnext: kiln data shard IN --tokenizer {} --out data", quote(path)))
}
