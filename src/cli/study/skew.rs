//! `kiln study skew`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::{Error, Result};
use kiln::study::skew::{Outcome, Settings, study};

/// Does a model take over that most nurses of its texts are women, and does swapping words of gender mend it?
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study skew                            seeds 1 to 5, three models each
  kiln study skew --seeds 1 --lists --json   one of them, and lists of occupations
  kiln study skew --seeds 1 --steps 100 --out /tmp/quick")]
pub struct SkewStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// How much more often visitors have the usual gender of their occupation, from 0 to 1
    #[arg(long, value_name = "F", default_value_t = Settings::default().skew)]
    skew: f64,
    /// Two models more, swapped and reweighted beside listed occupations alone
    #[arg(long)]
    lists: bool,
}

/// Runs it.
pub fn run(args: &SkewStudy, global: &Global) -> Result<()> {
    if !(0.0..=1.0).contains(&args.skew) {
        let hint = "0.8 is a strong skew, 0 none";
        return Err(Error::usage(format!("--skew: {} is not between 0 and 1", args.skew), hint));
    }
    let settings = Settings { steps: args.steps, skew: args.skew, lists: args.lists, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

/// What is done to a corpus, in a few words.
fn said(name: &str) -> &str {
    match name {
        "raw" => "as it is",
        "control" => "other words swapped (control)",
        "swapped" => "words of gender swapped",
        "swapped_listed" => "swapped, listed jobs only",
        "reweighted" => "reweighted, listed jobs only",
        other => other,
    }
}

fn table(outcome: &Outcome) -> String {
    let head = format!(
        "seed {}: a skew of {:.2} planted; listed are {}",
        outcome.seed,
        outcome.planted,
        outcome.listed.join(", ")
    );
    let names = format!("  {:<30} {:>26} {:>17} {:>7} {:>22}", "", "skew", "pronouns agree", "", "held-out stories");
    let more = format!(
        "  {:<30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>11} {:>10}",
        "", "listed", "others", "others*", "all", "all*", "WEAT d", "bits/byte", "cost"
    );
    let raw = outcome.arms.first().map_or(f64::NAN, |arm| arm.bits);
    let rows = outcome.arms.iter().map(|arm| {
        format!(
            "  {:<30} {:>8.3} {:>8.3} {:>8.3} {:>6.1} % {:>6.1} % {:>7.2} {:>11.4} {:>+8.2} %",
            said(arm.name),
            arm.listed,
            arm.others,
            arm.new,
            100.0 * arm.consistency,
            100.0 * arm.consistency_new,
            arm.weat,
            arm.bits,
            100.0 * (arm.bits / raw - 1.0)
        )
    });
    let foot = "  * in sentences that no text has".to_owned();
    let lines = [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).chain([ink(&foot, Ink::Dim)]);
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
