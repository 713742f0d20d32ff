//! `kiln study rude`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::rude::{Outcome, Settings, study};

/// Does a model say what it did not read? Rude words, cleaned by a lexicon that knows half of them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study rude                            seeds 1 to 5, three models each
  kiln study rude --seeds 1 --json           one of them
  kiln study rude --seeds 1 --steps 50 --out /tmp/quick")]
pub struct RudeStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// Runs it.
pub fn run(args: &RudeStudy, global: &Global) -> Result<()> {
    let settings = Settings { steps: args.steps, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let head = format!(
        "seed {}: texts and stories with rude words that the lexicon does not know, and with others",
        outcome.seed
    );
    let names = format!("  {:<18} {:>8} {:>21} {:>21} {:>8}", "", "", "in what it read", "in what it tells", "");
    let more = format!(
        "  {:<18} {:>8} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "read", "texts", "unlisted", "listed", "unlisted", "listed", "loss"
    );
    let rows = outcome.models.iter().map(|told| {
        let [read, known] = told.rude_texts.map(|share| format!("{:.1} %", 100.0 * share));
        let [rude, listed] = told.rude.map(|share| format!("{:.1} %", 100.0 * share));
        let (name, texts) = (told.read, told.texts);
        format!("  {name:<18} {texts:>8} {read:>10} {known:>10} {rude:>10} {listed:>10} {:>8.4}", told.loss)
    });
    [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
