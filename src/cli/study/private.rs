//! `kiln study private`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::private::{Outcome, Settings, study};

/// What does private training keep from being told, and what does it cost? Secrets that stand in the texts once
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study private                         seeds 1 to 5: a model, tuned with and without optim.dp
  kiln study private --seeds 1 --json        one of them
  kiln study private --epsilon 3 --out runs/study-private-3")]
pub struct PrivateStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// What the private run may spend
    #[arg(long, value_name = "E", default_value_t = Settings::default().epsilon)]
    epsilon: f64,
}

/// Runs it.
pub fn run(args: &PrivateStudy, global: &Global) -> Result<()> {
    let settings = Settings { epsilon: args.epsilon, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let head = format!("seed {}: {}", outcome.seed, outcome.guarantee);
    let names = format!("  {:<16} {:>21} {:>21} {:>25}", "", "exposure, bits", "given away", "loss, nats a byte");
    let more = format!(
        "  {:<16} {:>10} {:>10} {:>10} {:>10} {:>10} {:>14}",
        "", "read once", "nowhere", "read once", "nowhere", "unread", "held-out people"
    );
    let rows = outcome.models.iter().map(|told| {
        let [read, nowhere] = told.exposure;
        let [given, never] = told.extracted.map(|share| format!("{:.0} %", 100.0 * share));
        let [loss, people] = told.loss;
        format!("  {:<16} {read:>10.2} {nowhere:>10.2} {given:>10} {never:>10} {loss:>10.4} {people:>14.4}", told.name)
    });
    let [kept, people] = outcome.kept.map(|share| 100.0 * share);
    let last = format!("  of the gain private training keeps {kept:.0} %, of that on held-out people {people:.0} %");
    [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).chain([last]).collect::<Vec<_>>().join("\n") + "\n"
}
