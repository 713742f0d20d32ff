//! `kiln data`: make a tokenizer, make shards, look at either.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use kiln::data::dataset::{DATASET_FILE, Dataset, DatasetInfo, Part, TOKENIZER_FILE, commonest};
use kiln::data::tokenizer::{Kind, MAX_VOCAB, Tokenizer};
use kiln::data::{Prepare, Rule, ShardFormat, Sources, Split, prepare};
use kiln::error::{Error, Result};
use serde_json::{Value, json};

use super::Global;
use super::term::{Progress, print, quote, safe, thousands};

/// Prepare data: text to tokens to shards.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a tokenizer from text
    #[command(after_help = "Example:\n  kiln data tokenizer books/ notes.txt --vocab 8192 --out tokenizer.json")]
    Tokenizer(TokenizerArgs),
    /// Turn text into token shards, split into training and validation
    #[command(after_help = "Example:\n  kiln data shard books/ --tokenizer tokenizer.json --out data/books")]
    Shard(ShardArgs),
    /// Show what is in a data set, a shard or a tokenizer
    #[command(after_help = "Example:\n  kiln data inspect data/books --samples 3")]
    Inspect(InspectArgs),
}

#[derive(Args, Debug)]
struct Input {
    /// .txt, .md or .jsonl files, or folders of these
    #[arg(value_name = "IN", required = true)]
    sources: Vec<PathBuf>,
    /// Field of the text in .jsonl files
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
}

#[derive(Args, Debug)]
struct TokenizerArgs {
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

#[derive(Args, Debug)]
struct ShardArgs {
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

#[derive(Args, Debug)]
struct InspectArgs {
    /// A data set's folder, a shard (.bin) or a tokenizer.json
    path: PathBuf,
    /// The tokenizer of a shard [default: tokenizer.json beside it]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Number of documents to show
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=1000))]
    samples: u16,
}

/// Runs `kiln data`; with `--json`, standard output gets one JSON object and nothing else.
pub fn run(args: DataArgs, global: &Global) -> Result<()> {
    match args.command {
        Command::Tokenizer(args) => tokenizer(&args, global.json),
        Command::Shard(args) => shard(&args, global.json),
        Command::Inspect(args) => inspect(&args, global.json),
    }
}

fn open(input: &Input) -> Result<Sources> {
    Sources::open(&input.sources, &input.text_field)
}

fn tokenizer(args: &TokenizerArgs, json: bool) -> Result<()> {
    let (start, sources) = (Instant::now(), open(&args.input)?);
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

fn shard(args: &ShardArgs, json: bool) -> Result<()> {
    let start = Instant::now();
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let sources = open(&args.input)?;
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

fn inspect(args: &InspectArgs, json: bool) -> Result<()> {
    let path = &args.path;
    // A run keeps its data set in a folder of its own.
    let within = path.join("data");
    let path = if !path.join(DATASET_FILE).is_file() && within.join(DATASET_FILE).is_file() { &within } else { path };
    if path.is_dir() {
        let info = DatasetInfo::load(path)?;
        let tokenizer = info.load_tokenizer(path)?;
        let data = Dataset::open(path, Part::Train)?;
        Dataset::open(path, Part::Val)?; // checks it
        let title = format!(
            "{} · {} tokenizer, {} ids\n{}",
            path.display(),
            tokenizer.kind(),
            thousands(info.tokenizer.vocab as u64),
            counts(&info)
        );
        let next = format!("kiln train --data {}", quote(path));
        return tokens(args, json, json!(info), title, &data, Some(&tokenizer), &next);
    }
    if path.extension().is_some_and(|e| e == "json") {
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
    tokens(args, json, object, title, &data, tokenizer.as_ref(), &next)
}

/// Prints a title, the commonest tokens and sample documents.
fn tokens(
    args: &InspectArgs,
    json: bool,
    mut object: Value,
    mut text: String,
    data: &Dataset,
    tokenizer: Option<&Tokenizer>,
    next: &str,
) -> Result<()> {
    let name = |id: u32| tokenizer.map_or_else(|| id.to_string(), |t| format!("{:?}", t.decode(&[id])));
    let counts = data.histogram()?;
    let common = commonest(&counts, 10);
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
