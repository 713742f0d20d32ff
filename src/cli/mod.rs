//! The command line: one file a command, each of which parses, calls the library and prints.

mod agent;
mod align;
mod bench;
mod chat;
mod convert;
mod data;
mod doctor;
mod eval;
mod kernels;
mod plan;
mod ranks;
mod report;
mod review;
mod sample;
mod serve;
mod study;
mod sweep;
mod term;
mod tour;
mod train;
mod tune;
mod update;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kiln::cpu::Cpu;
use kiln::cpu::memory::or_out_of_memory;
use kiln::device::cuda::Cuda;
use kiln::device::sim::Options;
use kiln::device::{Device, Driver, Sim, probe};
use kiln::error::{Error, Result};
use kiln::params::Hold;
use kiln::train::Sampler;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Train, study and use generative models: the whole life cycle in one program.
#[derive(Parser)]
#[command(name = "kiln", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Print JSON on standard output, nothing else: one object, or one a line
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,
    /// Threads that compute [default: all that this process may use]
    #[arg(long, global = true, display_order = 101)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// What computes: auto, cpu, cuda, sim, sim-checked
    #[arg(
        long,
        global = true,
        display_order = 102,
        value_name = "NAME",
        default_value = "auto",
        hide_default_value = true
    )]
    #[arg(hide_possible_values = true)]
    device: DeviceName,
}

/// How a model that is used is read.
#[derive(Args, Clone, Debug)]
pub struct Loading {
    /// How the weights are held: f32, bf16 (half the memory), q8 (a quarter) or q4 (an eighth)
    #[arg(long, alias = "quant", value_name = "TYPE", default_value = "f32", hide_possible_values = true)]
    weights: Weights,
    /// Change the model by this adapter (of kiln tune or PEFT) first; may be repeated
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,
}

impl Loading {
    /// As its files have it.
    pub fn plain() -> Loading {
        Loading { weights: Weights::F32, adapter: Vec::new() }
    }

    /// How its weights are held.
    pub fn hold(&self) -> Hold {
        self.weights.hold()
    }

    /// Whether it is read as its files have it.
    pub fn is_plain(&self) -> bool {
        self.adapter.is_empty() && self.weights == Weights::F32
    }

    /// The language model `path`.
    pub fn open(&self, path: &Path, device: &Device) -> Result<Sampler> {
        Sampler::open(path, &self.adapter, self.hold(), device)
    }
}

/// How the weights of a model that is used are held.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Weights {
    F32,
    Bf16,
    #[value(name = "q8", alias = "int8")]
    Int8,
    #[value(name = "q4", alias = "int4")]
    Int4,
}

impl Weights {
    fn hold(self) -> Hold {
        match self {
            Weights::F32 => Hold::Frozen,
            Weights::Bf16 => Hold::FrozenBf16,
            Weights::Int8 => Hold::FrozenQ8,
            Weights::Int4 => Hold::FrozenQ4,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Sim,
    SimChecked,
}

/// Bytes of the simulated GPU's memory; the host's are used as they are touched.
const SIM_MEMORY: usize = 16 << 30;

#[derive(Subcommand)]
enum Command {
    Data(data::DataArgs),
    Plan(plan::PlanArgs),
    Train(train::TrainArgs),
    Tune(tune::TuneArgs),
    Align(align::AlignArgs),
    Agent(agent::AgentArgs),
    Sweep(sweep::SweepArgs),
    Eval(Box<eval::EvalArgs>),
    Review(review::ReviewArgs),
    Report(report::ReportArgs),
    Sample(sample::SampleArgs),
    Chat(chat::ChatArgs),
    Serve(serve::ServeArgs),
    Convert(convert::ConvertArgs),
    Update(update::UpdateArgs),
    Bench(bench::BenchArgs),
    Kernels(kernels::KernelsArgs),
    Tour(tour::TourArgs),
    Study(study::StudyArgs),
    Doctor(doctor::DoctorArgs),
}

/// The commands along the life cycle, as `kiln --help` shows them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Prepare", &["data", "plan"]),
    ("Train", &["train", "tune", "align", "agent", "sweep"]),
    ("Judge", &["eval", "review", "report"]),
    ("Use", &["sample", "chat", "serve", "convert", "update"]),
    ("Study", &["tour", "study", "bench", "kernels", "doctor"]),
];

impl Global {
    /// The host, for commands that compute nowhere else.
    pub fn host(&self) -> Result<Device> {
        match self.device {
            DeviceName::Auto | DeviceName::Cpu => Device::cpu(self.threads()),
            _ => Err(Error::device("this command computes on the CPU only", "leave --device out, or use --device cpu")),
        }
    }

    /// The device that `--device` and `--threads` ask for. `auto` is a GPU if one can be used, and says so.
    pub fn device(&self) -> Result<Device> {
        let gpu = |driver: Arc<dyn Driver>| {
            term::note(&format!("computing on {}", driver.describe()));
            Device::gpu(driver, Cpu::new(self.threads())?)
        };
        let sim = |check| {
            gpu(Arc::new(Sim::new(Options { memory: SIM_MEMORY, threads: self.threads(), ..Options::new(check)? })))
        };
        match self.device {
            DeviceName::Cpu => Device::cpu(self.threads()),
            DeviceName::Sim => sim(false),
            DeviceName::SimChecked => sim(true),
            DeviceName::Cuda => gpu(Arc::new(Cuda::nth(ranks::gpu())?)),
            DeviceName::Auto => {
                if !probe::cuda().is_ok_and(|cuda| !cuda.gpus.is_empty()) {
                    return Device::cpu(self.threads());
                }
                match Cuda::nth(ranks::gpu()) {
                    Ok(cuda) => gpu(Arc::new(cuda)),
                    Err(error) => {
                        term::warn(&format!("computing on the CPU: {error}"));
                        Device::cpu(self.threads())
                    }
                }
            }
        }
    }

    /// The options that make another process of this program compute on the same device.
    pub fn device_args(&self) -> [String; 2] {
        let name = self.device.to_possible_value().expect("no device is hidden");
        ["--device".into(), name.get_name().into()]
    }

    /// Threads asked for; 0: all that this process may use.
    pub fn threads(&self) -> usize {
        self.threads.map_or(0, usize::from)
    }
}

/// Runs the program; the exit code is 0 for success, 1 for a failure, 2 for a wrong call ([`Error::exit_code`]), and 130
/// or 143 where a signal stopped it after saving.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() && e.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let error = wrong_call(&e);
            report(&error, std::env::args_os().any(|arg| arg == "--json"));
            return ExitCode::from(error.exit_code());
        }
        Err(e) => {
            // Help that nobody reads to its end is no failure.
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    let json = cli.global.json;
    let done = or_out_of_memory(|| run(cli)).unwrap_or_else(|out| {
        let problem = format!("the system has no {} MiB of memory left", (out.asked >> 20).max(1));
        Err(Error::device(problem, "close other programs, or lower train.batch or train.context"))
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            report(&e, json);
            ExitCode::from(e.exit_code())
        }
    }
}

/// What the parser says, as an error of ours: its first paragraph, and its tip or the way to the command's help. Empty
/// lines part its paragraphs.
fn wrong_call(error: &clap::Error) -> Error {
    let text = error.to_string();
    let mut paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let problem = words(paragraphs.next().unwrap_or_default());
    let rest: Vec<&str> = paragraphs.collect();
    let after = |start: &str| rest.iter().find_map(|paragraph| paragraph.trim_start().strip_prefix(start));
    let hint = after("tip: ").map_or_else(|| format!("{} --help names what it takes", called()), words);
    Error::usage(problem, hint)
}

/// The command that was called, as `kiln data shard`.
fn called() -> String {
    let (mut parser, mut name) = (command(), "kiln".to_owned());
    for word in std::env::args_os().skip(1) {
        let Some(sub) = word.to_str().and_then(|word| parser.find_subcommand(word)).cloned() else { break };
        name = format!("{name} {}", sub.get_name());
        parser = sub;
    }
    name
}

fn run(cli: Cli) -> Result<u8> {
    let Cli { command, global } = cli;
    // Tokenizers and readers of files share their loops through rayon.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(global.threads()).build_global();
    pool.map_err(|e| Error::usage(format!("starting threads: {e}"), "give fewer --threads"))?;
    match command {
        Command::Data(args) => data::run(args, &global).map(|()| 0),
        Command::Plan(args) => plan::run(&args, &global).map(|()| 0),
        Command::Train(args) => train::run(args, &global),
        Command::Tune(args) => tune::run(args, &global),
        Command::Align(args) => align::run(args, &global),
        Command::Agent(args) => agent::run(&args, &global),
        Command::Sweep(args) => sweep::run(args, &global),
        Command::Eval(args) => eval::run(&args, &global),
        Command::Review(args) => review::run(&args, &global),
        Command::Report(args) => report::run(&args, &global),
        Command::Sample(args) => sample::run(args, &global).map(|()| 0),
        Command::Chat(args) => chat::run(args, &global).map(|()| 0),
        Command::Serve(args) => serve::run(args, &global),
        Command::Convert(args) => convert::run(args, &global).map(|()| 0),
        Command::Update(args) => update::run(args, &global),
        Command::Bench(args) => bench::run(args, &global).map(|()| 0),
        Command::Kernels(args) => kernels::run(args, &global).map(|()| 0),
        Command::Tour(args) => tour::run(&args, &global),
        Command::Study(args) => study::run(args, &global).map(|()| 0),
        Command::Doctor(args) => doctor::run(args, &global).map(|()| 0),
    }
}

/// The parser, with its commands in groups.
fn command() -> clap::Command {
    let mut command = Cli::command();
    let header = *command.get_styles().get_header();
    let name = *command.get_styles().get_literal();
    let example = "kiln tour shows the whole life cycle in minutes; kiln COMMAND --help has examples";
    let mut text = format!("{{about}}\n{{usage-heading}} {{usage}}\n{header}Start here:{header:#} {example}\n");
    for (group, names) in GROUPS {
        text += &format!("\n{header}{group}:{header:#}\n");
        for sub in names {
            let about = command.find_subcommand(sub).and_then(|c| c.get_about()).map(|a| a.to_string());
            text += &format!("  {name}{sub:<8}{name:#}  {}\n", about.unwrap_or_default());
        }
    }
    text += &format!("\n{header}Options:{header:#}\n{{options}}");
    command = command.help_template(text);
    command.disable_help_subcommand(true)
}

/// Says on standard error what went wrong and what to do.
fn report(error: &Error, json: bool) {
    let mut err = std::io::stderr().lock();
    // Nobody may be there to read it; the exit code says it too.
    let _ = if json {
        writeln!(err, "{}", json!({"error": error.to_string(), "hint": error.hint()}))
    } else {
        let hint = error.hint().map(|hint| format!("hint: {}\n", term::safe(hint)));
        write!(err, "error: {}\n{}", term::safe(&error.to_string()), hint.unwrap_or_default())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_consistent_and_every_command_is_in_a_group_with_an_example() {
        let command = command();
        command.clone().debug_assert();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for sub in command.get_subcommands() {
            assert!(grouped.contains(&sub.get_name()), "{} is in no group", sub.get_name());
            let leaves: Vec<_> = match sub.has_subcommands() {
                true => sub.get_subcommands().collect(),
                false => vec![sub],
            };
            for leaf in leaves {
                let help = leaf.get_after_help().map(|h| h.to_string()).unwrap_or_default();
                assert!(help.contains("  kiln "), "{} shows no example", leaf.get_name());
            }
        }
    }

    #[test]
    fn help_fits_on_a_screen() {
        let help = command().render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
        assert!(help.contains("Prepare:\n  data"), "{help}");
    }
}
