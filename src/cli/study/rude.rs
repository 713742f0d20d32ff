//! `kiln study rude`.

use super::super::Global;
use super::super::term::{Ink, ink, note, print};
use super::Quiet;
use clap::Args;
use kiln::error::Result;
use kiln::study::rude::{Outcome, Settings, study};
use serde_json::json;
use std::path::PathBuf;

/// Does a model say what it did not read? Rude words, cleaned by a lexicon that knows half of them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study rude                            seeds 1 to 5, three models each
  kiln study rude --seeds 1 --json           one of them
  kiln study rude --seeds 1 --steps 50 --out /tmp/quick")]
pub struct RudeStudy {
    /// Seeds of the world and of all that is random
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3,4,5")]
    seeds: Vec<u64>,
    /// Where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-rude")]
    out: PathBuf,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// Runs it.
pub fn run(args: RudeStudy, global: &Global) -> Result<()> {
    let device = global.host()?;
    let settings = Settings { steps: args.steps, ..Settings::default() };
    for &seed in &args.seeds {
        let dir = args.out.join(format!("seed-{seed}"));
        let outcome = study(&settings, seed, &dir, &device, &mut |what| note(what), &mut Quiet)?;
        match global.json {
            true => print(&json!(outcome).to_string())?,
            false => print(&table(&outcome))?,
        }
    }
    Ok(())
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
