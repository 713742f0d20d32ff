//! `kiln study dpo`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::dpo::{Outcome, Settings, study};

/// Does a model become polite by preferences alone? Pairs of answers about the village, some judged the wrong way round
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study dpo                         seeds 1 to 5
  kiln study dpo --seeds 1 --json        one of them
  kiln study dpo --seeds 1 --base-steps 200 --out /tmp/quick")]
pub struct DpoStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Pairs to learn from
    #[arg(long, value_name = "N", default_value_t = Settings::default().pairs, value_parser = clap::value_parser!(u64).range(20..))]
    pairs: u64,
    /// The learning rate of DPO
    #[arg(long, value_name = "X", default_value_t = Settings::default().lr)]
    lr: f64,
    /// Its β: how closely it is held to the model before
    #[arg(long, value_name = "X", default_value_t = Settings::default().beta)]
    beta: f64,
}

/// Runs it.
pub fn run(args: &DpoStudy, global: &Global) -> Result<()> {
    let DpoStudy { base_steps, pairs, lr, beta, .. } = *args;
    let settings = Settings { base_steps, pairs, lr, beta, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let [people, other] = outcome.questions;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let head =
        format!("seed {}: {people} questions about held-out entities, {other} more in held-out words", outcome.seed);
    let names = format!("  {:<18} {:>21} {:>21} {:>9}", "", "polite", "true", "");
    let more = format!(
        "  {:<18} {:>9} {:>11} {:>9} {:>11} {:>9}",
        "learnt from", "people", "other words", "people", "other words", "seconds"
    );
    let rows = outcome.models.iter().map(|asked| {
        let ([polite, polite_other], [truth, truth_other]) = (asked.polite.map(percent), asked.truth.map(percent));
        let (name, seconds) = (asked.name, asked.seconds);
        format!("  {name:<18} {polite:>9} {polite_other:>11} {truth:>9} {truth_other:>11} {seconds:>9.0}")
    });
    [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
