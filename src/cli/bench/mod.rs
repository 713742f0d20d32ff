//! `kiln bench`.

mod models;
mod show;

use super::Global;
use super::term::{note, print};
use clap::{Args, Subcommand, ValueEnum};
use kiln::bench::kernels::{self, Narrow};
use kiln::bench::{self, Against, Case, Row, Sitting, clean, data, gemm, python, roofline, tokenizer};
use kiln::cpu::gemm::Precision;
use kiln::data::world::{Story, World};
use kiln::data::{Document, Sources, Tokenizer};
use kiln::device::Device;
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::train::plot::Picture;
use std::path::PathBuf;

/// Measure speed on this machine
///
/// Alone, shows the machine's ceilings and one line for each kernel.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  kiln bench                                         ceilings, and what each kernel reaches
  kiln bench gemm --only 1024 --against torch        in turns with PyTorch
  kiln bench --setup-peers                           installs PyTorch for that")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Install PyTorch in a virtual environment in the user's cache, for --against torch; about 5.5 GB on Linux
    #[arg(long)]
    setup_peers: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The matrix product: 21 shapes and their geometric mean
    #[command(after_help = "Examples:
  kiln bench gemm
  kiln bench gemm --shape 512x512x512 --form nn
  kiln bench gemm --only x50304 --threads 1 --against torch --against faer,gemm,matrixmultiply
  kiln bench gemm --device cuda --precision bf16 --against torch")]
    Gemm(GemmArgs),
    /// Causal attention, forward and backward
    #[command(after_help = "Examples:
  kiln bench attention
  kiln bench attention --only T1024 --against torch
  kiln bench attention --device cuda --precision bf16 --against torch")]
    Attention(OpArgs),
    /// Convolutions of pictures, plain and transposed, forward and backward
    #[command(after_help = "Examples:
  kiln bench conv --threads 1 --against torch")]
    Conv(OpArgs),
    /// LayerNorm after a residual addition, forward and backward
    #[command(after_help = "Examples:
  kiln bench layernorm --against torch")]
    Layernorm(OpArgs),
    /// Cross-entropy over given logits, with its gradient
    #[command(after_help = "Examples:
  kiln bench xent --against torch,torch:keepmem")]
    Xent(Turns),
    /// AdamW with clipping, 124M parameters at once
    #[command(after_help = "Examples:
  kiln bench adamw --against torch")]
    Adamw(Turns),
    /// GELU (tanh), forward and backward
    #[command(after_help = "Examples:
  kiln bench gelu --against torch")]
    Gelu(OpArgs),
    /// Every operation at its real sizes, forward and backward
    #[command(after_help = "Examples:
  kiln bench ops --only norm
  kiln bench ops --reps 3 --json")]
    Ops(OpArgs),
    Step(models::StepArgs),
    Decode(models::DecodeArgs),
    /// Training batches out of a memory-mapped shard of random tokens; cleaning text, rule by rule
    #[command(after_help = "Examples:
  kiln bench data
  kiln bench data --only clean --text-megabytes 50
  kiln bench data --only B16 --shard-tokens 100000000 --against torch")]
    Data(DataArgs),
    /// Text to tokens, and learning a vocabulary
    #[command(after_help = "Examples:
  kiln bench tokenizer books/ --threads 1 --only encode --against tiktoken,tokenizers
  kiln bench tokenizer --tokenizer tokenizer.json")]
    Tokenizer(TokenizerArgs),
    /// A picture: what kernels reach of what the machine allows
    #[command(after_help = "Examples:
  kiln bench roofline
  kiln bench roofline --threads 1 --only attention --out attention.png")]
    Roofline(RooflineArgs),
}

/// How often, which cases, and against whom.
#[derive(Args, Debug)]
struct Turns {
    /// Rounds that must count, after one to warm up; one while the machine was slow does not count
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Alternate with torch, torch:keepmem; with torch:compile, torch:best (steps); with faer, gemm, matrixmultiply (gemm); with tiktoken, tokenizers (tokenizer)
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    against: Vec<String>,
    /// Alternate with a program that serves; see benches/peers/README.md
    #[arg(long, value_name = "COMMAND")]
    peer: Vec<String>,
    /// The Python that has torch [default: KILN_PYTHON, or what --setup-peers made]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct GemmArgs {
    /// This shape instead of the table's; may be repeated
    #[arg(long, value_name = "MxKxN")]
    shape: Vec<String>,
    /// How A and B are stored: nt x·Wᵀ, nn dy·W, tn dyᵀ·x
    #[arg(long, value_enum, default_value = "nt")]
    form: FormName,
    /// The type of the operands
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = precision)]
    precision: Precision,
    #[command(flatten)]
    turns: Turns,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum FormName {
    Nt,
    Nn,
    Tn,
}

fn precision(name: &str) -> Result<Precision, String> {
    let all = [Precision::F32, Precision::Bf16];
    all.into_iter().find(|precision| precision.name() == name).ok_or_else(|| "use f32 or bf16".to_owned())
}

#[derive(Args, Debug)]
struct DataArgs {
    /// Tokens in the shard, of two bytes; it is written to the temporary folder and removed afterwards
    #[arg(long, value_name = "N", default_value_t = 20_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(10_000..4_000_000_000))]
    shard_tokens: u64,
    /// Text to clean, in 10⁶ bytes of stories; in the temporary folder too
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    text_megabytes: u16,
    #[command(flatten)]
    turns: Turns,
}

#[derive(Args, Debug)]
struct TokenizerArgs {
    /// Texts to encode and to learn from, files or folders [default: stories of the built-in village]
    #[arg(value_name = "IN")]
    sources: Vec<PathBuf>,
    /// The tokenizer.json to encode with, or gpt2
    #[arg(long, value_name = "FILE", default_value = "gpt2")]
    tokenizer: PathBuf,
    /// Size of the vocabulary to learn
    #[arg(long, value_name = "N", default_value_t = 8192)]
    vocab: usize,
    /// At most so many megabytes of text
    #[arg(long, value_name = "MB", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    megabytes: u32,
    #[command(flatten)]
    turns: Turns,
}

#[derive(Args, Debug)]
struct RooflineArgs {
    /// Where to draw it, as .svg or .png
    #[arg(long, value_name = "FILE", default_value = "roofline.svg")]
    out: PathBuf,
    /// Rounds for each kernel
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Only kernels whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
}

/// Runs `kiln bench`.
pub fn run(args: BenchArgs, global: &Global) -> Result<()> {
    if args.setup_peers {
        let python = python::setup(&mut |step| note(step))?;
        return print(&format!("done: {}\nnext: kiln bench step nano --against torch", python.display()));
    }
    let Some(what) = args.what else { return overview(global) };
    let all = |turns: &Turns, cases| turns.run(cases, global.device()?, global).map(|_| ());
    let on_host = |turns: &Turns, cases| turns.run(cases, global.host()?, global).map(|_| ());
    match what {
        What::Gemm(args) => products(&args, global),
        What::Attention(args) => args.run(kernels::attention, global),
        What::Conv(args) => args.run(kernels::conv, global),
        What::Layernorm(args) => args.run(kernels::layernorm, global),
        What::Xent(turns) => all(&turns, kernels::xent()),
        What::Adamw(turns) => all(&turns, kernels::adamw()),
        What::Gelu(args) => args.run(kernels::gelu, global),
        What::Ops(args) => args.run(kernels::ops, global),
        What::Step(args) => all(&args.turns, vec![args.case()?]),
        What::Decode(args) => on_host(&args.turns, vec![args.case()?]),
        What::Data(args) => {
            let folder = data::Folder::temporary()?;
            let shard = data::shard(&folder, args.shard_tokens as usize)?;
            let text = clean::corpus(&folder, args.text_megabytes as usize * 1_000_000)?;
            let mut cases = data::cases(&shard);
            cases.extend(clean::cases(&text));
            on_host(&args.turns, cases)
        }
        What::Tokenizer(args) => {
            let limit = args.megabytes as usize * 1_000_000;
            let texts = match &args.sources[..] {
                [] => {
                    let world = World::new(1);
                    let story = |story: Story| Ok(Document { text: story.text, ..Document::default() });
                    tokenizer::Texts::new(world.stories(0).map(story), limit)?
                }
                sources => tokenizer::Texts::new(Sources::open(sources, "text")?.documents(), limit)?,
            };
            let name = args.tokenizer.display().to_string();
            let tokenizer = Tokenizer::load(&args.tokenizer)?;
            on_host(&args.turns, texts.cases(tokenizer, &name, args.vocab, global.threads())?)
        }
        What::Roofline(args) => draw(&args, global),
    }
}

impl Turns {
    /// Times the cases that are wanted, shows each as it is done, and gives the rows.
    fn run(&self, cases: Vec<Case>, device: Device, global: &Global) -> Result<Vec<Row>> {
        let cases = matching(cases, &self.only, |_| true)?;
        let mut against = Vec::new();
        for word in &self.against {
            against.extend(Against::parse(word)?);
        }
        against.extend(self.peer.iter().cloned().map(Against::Program));
        against.iter().try_for_each(|rival| rival.fits(&cases[0], &device, self.python.as_deref()))?;
        let seconds = if self.reps > 1 { 0.8 } else { 0.1 };
        let mut sitting = Sitting::new(device, seconds, self.reps.into(), against, self.python.clone())?;
        show::ceilings(&sitting, global)?;
        let mut rows = Vec::new();
        for case in &cases {
            let outcome = sitting.time(case)?;
            outcome.skipped.iter().for_each(|why| note(&format!("{}: not timed: {why}", case.name)));
            show::rows(&outcome.rows, global)?;
            rows.extend(outcome.rows);
        }
        Ok(rows)
    }
}

/// An operation, in f32 or bf16.
#[derive(Args, Debug)]
struct OpArgs {
    /// f32, or bf16: what goes into products on the CPU, activations and matrices on a GPU
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = precision)]
    precision: Precision,
    #[command(flatten)]
    turns: Turns,
}

impl OpArgs {
    fn run(&self, cases: fn(Narrow) -> Vec<Case>, global: &Global) -> Result<()> {
        let device = global.device()?;
        let cases = cases(Narrow::on(self.precision, &device));
        if cases.is_empty() {
            let problem = "--precision bf16: on the CPU this operation has no products, and computes in f32";
            return Err(Error::usage(problem, "leave it out"));
        }
        self.turns.run(cases, device, global).map(|_| ())
    }
}

/// The cases whose name contains `only` and that are `wanted`.
fn matching(cases: Vec<Case>, only: &str, wanted: impl Fn(&Case) -> bool) -> Result<Vec<Case>> {
    let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    let full = |case: &Case| format!("{} {}", case.bench, case.name);
    let left: Vec<Case> = cases.into_iter().filter(|case| full(case).contains(only) && wanted(case)).collect();
    if left.is_empty() {
        let hint = format!("there are: {}", names.join("; "));
        return Err(Error::usage(format!("--only {only}: no case is called so"), hint));
    }
    Ok(left)
}

fn products(args: &GemmArgs, global: &Global) -> Result<()> {
    let form = match args.form {
        FormName::Nt => gemm::Form::Nt,
        FormName::Nn => gemm::Form::Nn,
        FormName::Tn => gemm::Form::Tn,
    };
    let mut shapes: Vec<[usize; 3]> = args.shape.iter().map(|text| gemm::parse_shape(text)).collect::<Result<_>>()?;
    if shapes.is_empty() {
        shapes = gemm::shapes();
    }
    let rows = args.turns.run(gemm::cases(&shapes, form, args.precision), global.device()?, global)?;
    let several = rows.iter().any(|row| row.case != rows[0].case);
    if several { show::rows(&bench::means(&rows), global) } else { Ok(()) }
}

/// One case of each kernel, in few rounds.
fn overview(global: &Global) -> Result<()> {
    let mut sitting = Sitting::new(global.host()?, 0.5, 3, Vec::new(), None)?;
    show::ceilings(&sitting, global)?;
    for case in matching(roofline::cases(), "", |case| !["256x384", "T1024"].iter().any(|x| case.name.contains(x)))? {
        show::rows(&sitting.time(&case)?.rows, global)?;
    }
    if global.json {
        Ok(())
    } else {
        print("\nnext: kiln bench gemm, or kiln bench step nano; kiln bench --help names all")
    }
}

fn draw(args: &RooflineArgs, global: &Global) -> Result<()> {
    let extension = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if !["svg", "png"].contains(&extension) {
        let problem = format!("--out {}: neither .svg nor .png", args.out.display());
        return Err(Error::usage(problem, "name a file as roofline.svg"));
    }
    let cases = matching(roofline::cases(), &args.only, |_| true)?;
    let mut sitting = Sitting::new(global.host()?, 0.8, args.reps.into(), Vec::new(), None)?;
    show::ceilings(&sitting, global)?;
    let mut rows = Vec::new();
    for case in &cases {
        let outcome = sitting.time(case)?;
        show::rows(&outcome.rows, global)?;
        rows.extend(outcome.rows);
    }
    let picture = roofline::Roofline { ceilings: sitting.ceilings, threads: sitting.threads(), rows: &rows };
    match extension {
        "svg" => picture.save_svg(&Os, &args.out)?,
        _ => picture.save_png(&Os, &args.out)?,
    }
    if global.json { Ok(()) } else { print(&format!("\ndrawn: {}", args.out.display())) }
}
