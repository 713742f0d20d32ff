//! `kiln study private`.

use super::super::Global;
use super::super::term::{Ink, ink, note, print};
use super::Quiet;
use clap::Args;
use kiln::error::Result;
use kiln::study::private::{Outcome, Settings, study};
use serde_json::json;
use std::path::PathBuf;

/// What does private training keep from being told, and what does it cost? Secrets that stand in the texts once
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study private                         seeds 1 to 5: a model, tuned with and without optim.dp
  kiln study private --seeds 1 --json        one of them
  kiln study private --epsilon 3 --out runs/study-private-3")]
pub struct PrivateStudy {
    /// Seeds of the world and of all that is random but the noise
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3,4,5")]
    seeds: Vec<u64>,
    /// Where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-private")]
    out: PathBuf,
    /// What the private run may spend
    #[arg(long, value_name = "E", default_value_t = Settings::default().epsilon)]
    epsilon: f64,
}

/// Runs it.
pub fn run(args: PrivateStudy, global: &Global) -> Result<()> {
    let device = global.host()?;
    let settings = Settings { epsilon: args.epsilon, ..Settings::default() };
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
