//! `kiln study update`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::{Error, Result};
use kiln::study::update::{Batch, Outcome, Settings, study};

/// Does a model in service learn what is new and keep what it knew, and are bad documents refused? An update, without replay, from nothing
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study update                       seeds 1 to 5
  kiln study update --seeds 1 --json      one of them
  kiln study update --seeds 1 --steps 100 --documents 2000,400 --batch 200 --clean 1 --out /tmp/quick")]
pub struct UpdateStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of the first model
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Documents of the first era, and of the second
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = Settings::default().documents)]
    documents: Vec<u64>,
    /// Documents of a batch for the gate
    #[arg(long, value_name = "N", default_value_t = Settings::default().batch, value_parser = clap::value_parser!(u64).range(40..))]
    batch: u64,
    /// Batches that it should pass
    #[arg(long, value_name = "N", default_value_t = Settings::default().clean)]
    clean: u64,
    /// Set a key of the line's update.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: &UpdateStudy, global: &Global) -> Result<()> {
    let Ok(documents) = <[u64; 2]>::try_from(&args.documents[..]) else {
        let problem = format!("--documents: {} numbers", args.documents.len());
        return Err(Error::usage(problem, "give two, of the first era and of the second: --documents 24000,4000"));
    };
    let settings = Settings {
        documents,
        steps: args.steps,
        batch: args.batch,
        clean: args.clean,
        set: args.set.clone(),
        ..Settings::default()
    };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let Outcome { seed, first, updated, forgetful, both, batches, same_after_rollback, seconds } = outcome;
    let mut lines = vec![
        ink(&format!("seed {seed}: bits a byte of documents that no model read"), Ink::Bold),
        format!("  {:<28} {:>10} {:>10} {:>22}", "", "era 1", "era 2", "era 1, change"),
    ];
    let rows =
        [("first model", first), ("updated", updated), ("without replay", forgetful), ("both from nothing", both)];
    lines.extend(rows.map(|(name, bits)| {
        let change = 100.0 * (bits[0] / first[0] - 1.0);
        format!("  {name:<28} {:>10.4} {:>10.4} {change:>+20.2} %", bits[0], bits[1])
    }));
    lines.push(format!(
        "  of the way to both: {:.1} %, in {seconds:.0} s with its gates; after a rollback the same bits: {}",
        100.0 * outcome.way(),
        if *same_after_rollback { "yes" } else { "NO" }
    ));
    for Batch { kind, good, passed, failed } in batches {
        let word = if passed == good { ink("as it should", Ink::Green) } else { ink("NOT as it should", Ink::Red) };
        let says = if *passed { "passed".to_owned() } else { format!("refused by {}", failed.join(", ")) };
        lines.push(format!("  batch: {kind:<21} {word}: {says}"));
    }
    lines.join("\n") + "\n"
}
