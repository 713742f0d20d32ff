//! `kiln kernels`.

mod assemble;
mod golden;
mod list;
mod own;
mod profile;
mod run;
mod show;
mod trace;

use super::Global;
use clap::{Args, Subcommand};
use kiln::device::Sim;
use kiln::device::kernels::{FILES, Plan};
use kiln::device::sim::Options;
use kiln::error::{Error, Result};
use kiln::proof::{self, Case};

/// Study the GPU kernels: list, read, run, follow and profile them
///
/// All of it works without a GPU, on the simulated device.
#[derive(Args, Debug)]
pub struct KernelsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Run(run::RunArgs),
    Trace(trace::TraceArgs),
    Profile(profile::ProfileArgs),
    Assemble(assemble::AssembleArgs),
}

/// Runs `kiln kernels`.
pub fn run(args: KernelsArgs, global: &Global) -> Result<()> {
    match args.what {
        What::List(args) => list::run(&args, global),
        What::Show(args) => show::run(&args, global),
        What::Run(args) => run::run(&args, global),
        What::Trace(args) => trace::run(&args, global),
        What::Profile(args) => profile::run(&args, global),
        What::Assemble(args) => assemble::run(&args, global),
    }
}

/// A file without `.ptx`.
fn stem(file: &str) -> &str {
    file.strip_suffix(".ptx").unwrap_or(file)
}

/// What a name stands for: a file with all its kernels, or a kernel, which may be in several files.
struct Named {
    files: Vec<&'static str>,
    /// Where the name is a kernel's.
    entry: Option<&'static str>,
}

/// # Errors
/// No file and no kernel is called so; the nearest name is the hint.
fn named(name: &str, cases: &[Case]) -> Result<Named> {
    if let Some((file, _)) = FILES.iter().find(|(file, _)| *file == name || stem(file) == name) {
        return Ok(Named { files: vec![file], entry: None });
    }
    let entries = || cases.iter().flat_map(|case| case.entries.iter().map(|entry| (case.file, *entry)));
    if let Some((_, entry)) = entries().find(|(_, entry)| *entry == name) {
        let mut files: Vec<&'static str> =
            entries().filter(|(_, entry)| *entry == name).map(|(file, _)| file).collect();
        files.dedup();
        return Ok(Named { files, entry: Some(entry) });
    }
    let known = FILES.iter().map(|(file, _)| stem(file)).chain(entries().map(|(_, entry)| entry));
    let score = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let near = known.map(|known| (score(known), known)).filter(|(score, _)| *score > 0.5);
    let hint = match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, near)) => format!("did you mean {near}? kiln kernels list names all"),
        None => "kiln kernels list names all".to_owned(),
    };
    Err(Error::usage(format!("no kernel and no family is called {name}"), hint))
}

/// A simulated device with or without checks.
fn simulated(check: bool, global: &Global) -> Result<Sim> {
    Ok(Sim::new(Options { memory: 256 << 20, threads: global.threads(), ..Options::new(check)? }))
}

/// The cases of `name` whose own name contains `only`.
///
/// # Errors
/// There is none.
fn matching(name: &str, only: &str) -> Result<Vec<Case>> {
    let cases = proof::cases();
    named(name, &cases)?;
    let (wanted, others): (Vec<Case>, Vec<Case>) =
        cases.into_iter().filter(|case| case.is_of(name)).partition(|case| case.name.contains(only));
    if wanted.is_empty() {
        let names: Vec<&str> = others.iter().map(|case| case.name.as_str()).collect();
        return Err(Error::usage(
            format!("--case {only}: {name} has no such case"),
            format!("it has: {}", names.join("; ")),
        ));
    }
    Ok(wanted)
}

/// A plan in words, but for its kernel: `gemm.ptx TA=0 TB=1, 4 blocks of 128 threads`.
fn plan_words(plan: &Plan) -> String {
    let product = |n: [u32; 3]| n.iter().filter(|n| **n != 1).map(u32::to_string).collect::<Vec<_>>().join(" x ");
    let blocks = product(plan.grid.blocks);
    let blocks = if blocks.is_empty() { "1 block".to_owned() } else { format!("{blocks} blocks") };
    format!("{}, {blocks} of {} threads", plan.variant, product(plan.grid.threads))
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes < 1 << 10 => format!("{bytes} B"),
        bytes if bytes < 10 << 20 => format!("{} KiB", (bytes as f64 / 102.4).round() / 10.0),
        bytes => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
