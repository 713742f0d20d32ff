//! `kiln study tune`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::tune::{Outcome, Settings, study};

/// Does fine-tuning teach a model to say what it knows? Questions about entities that it was never tuned on
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study tune                        seeds 1 to 5: about an hour on two cores
  kiln study tune --seeds 1 --json       one of them
  kiln study tune --seeds 1 --base-steps 200 --tune-steps 20 --out /tmp/quick")]
pub struct TuneStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Steps of tuning
    #[arg(long, value_name = "N", default_value_t = Settings::default().tune_steps, value_parser = clap::value_parser!(u64).range(1..))]
    tune_steps: u64,
}

/// Runs it.
pub fn run(args: &TuneStudy, global: &Global) -> Result<()> {
    let settings = Settings { base_steps: args.base_steps, tune_steps: args.tune_steps, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let [entities, people, other] = outcome.questions;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let head = format!(
        "seed {}: {entities} held-out entities, {people} questions, {other} more in held-out words; commonest answer: {}",
        outcome.seed,
        percent(outcome.commonest)
    );
    let names = format!(
        "  {:14} {:>7} {:>9} {:>9} {:>12} {:>9} {:>9} {:>8}",
        "model", "lr", "trained", "right", "other words", "loss", "rise", "seconds"
    );
    let before = outcome.models[0].general;
    let rows = outcome.models.iter().map(|model| {
        format!(
            "  {:14} {:>7} {:>9} {:>9} {:>12} {:>9.4} {:>9} {:>8.0}",
            model.name,
            model.lr.map_or(String::new(), |lr| lr.to_string()),
            if model.lr.is_some() { format!("{:.2} %", 100.0 * model.trained) } else { String::new() },
            percent(model.people),
            percent(model.other_words),
            model.general,
            if model.lr.is_some() {
                format!("{:+.1} %", 100.0 * (model.general / before - 1.0))
            } else {
                String::new()
            },
            model.seconds
        )
    });
    [ink(&head, Ink::Bold), names].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
