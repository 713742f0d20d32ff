//! `kiln study dpo`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::dpo::{Outcome, Settings, study};
use kiln::study::manners::Asked;

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
    #[arg(long, value_name = "N", default_value_t = Settings::default().start.base_steps, value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Override a key of its recipe, data/recipes/prefer.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: &DpoStudy, global: &Global) -> Result<()> {
    let DpoStudy { base_steps, pairs, lr, beta, .. } = *args;
    let mut settings = Settings { pairs, lr, beta, set: args.set.clone(), ..Settings::default() };
    settings.start.base_steps = base_steps;
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let [people, other] = outcome.questions;
    let head =
        format!("seed {}: {people} questions about held-out entities, {other} more in held-out words", outcome.seed);
    let names = format!("  {:<18} {:>43} {:>21} {:>9}", "", "people", "other words", "");
    let more = format!(
        "  {:<18} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "learnt from", "polite", "true", "known", "words", "polite", "true", "seconds"
    );
    let rows = outcome.models.iter().map(|asked| {
        let Asked { name, people, other_words: other, seconds, .. } = asked;
        let shares = [people.polite, people.truth, people.knows].map(percent).join(" ");
        let others = [other.polite, other.truth].map(percent).join(" ");
        format!("  {name:<18} {shares} {:>10.1} {others} {seconds:>9.0}", people.words)
    });
    [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}

/// In ten columns.
pub(super) fn percent(share: f64) -> String {
    format!("{:>8.1} %", 100.0 * share)
}
