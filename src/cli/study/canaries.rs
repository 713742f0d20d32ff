//! `kiln study canaries`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::canaries::{Outcome, Settings, study};

/// Does a model give away what stood in its texts, and does cleaning help? Secrets that stand there 1 to 256 times
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study canaries                        seeds 1 to 5, two models each
  kiln study canaries --seeds 1 --json       one of them
  kiln study canaries --seeds 1 --steps 100 --out /tmp/quick")]
pub struct CanaryStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// Runs it.
pub fn run(args: &CanaryStudy, global: &Global) -> Result<()> {
    let settings = Settings { steps: args.steps, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let [begins, secret] = outcome.tokens;
    let head = format!(
        "seed {}: notes of {begins:.0} + {secret:.0} tokens; loss {:.4} as they are, {:.4} without duplicates",
        outcome.seed, outcome.loss[0], outcome.loss[1]
    );
    let names = format!("  {:>8} {:>6} {:>22} {:>26}", "", "", "given away", "exposure, bits");
    let more =
        format!("  {:>8} {:>6} {:>10} {:>11} {:>13} {:>12}", "copies", "notes", "raw", "without", "raw", "without");
    let rows = outcome.levels.iter().map(|level| {
        let [raw, clean] = level.extracted.map(|share| format!("{:.0} %", 100.0 * share));
        let [before, after] = level.exposure;
        format!("  {:>8} {:>6} {raw:>10} {clean:>11} {before:>13.2} {after:>12.2}", level.copies, level.notes)
    });
    [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
