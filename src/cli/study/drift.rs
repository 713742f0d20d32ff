//! `kiln study drift`.

use super::super::Global;
use super::super::term::{Ink, ink, thousands};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::drift::{Changed, Outcome, Settings, study};
use std::collections::BTreeMap;

/// Is it seen that what a model meets has changed? Streams of stories of the same time, of a later one, and of other habits
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study drift                        seeds 1 to 5
  kiln study drift --seeds 1 --json       one of them
  kiln study drift --seeds 1 --streams 20 --out /tmp/quick")]
pub struct DriftStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Streams of each kind
    #[arg(long, value_name = "N", default_value_t = Settings::default().streams, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    streams: u64,
    /// The rate of false alarms that is asked for
    #[arg(long, value_name = "X", default_value_t = Settings::default().watched.false_alarms)]
    false_alarms: f64,
}

/// Runs it.
pub fn run(args: &DriftStudy, global: &Global) -> Result<()> {
    let mut settings = Settings { streams: args.streams, ..Settings::default() };
    settings.watched.false_alarms = args.false_alarms;
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let Outcome { seed, streams, documents, stated, false_alarms, false_by, changed } = outcome;
    let listed = |by: &BTreeMap<String, u64>| {
        by.iter().map(|(signal, times)| format!("{signal} {times}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        ink(&format!("seed {seed}: {streams} streams of {} documents each", thousands(*documents)), Ink::Bold),
        format!(
            "  no change: {false_alarms} with an alarm, {:.1} stated   {}",
            stated * *streams as f64,
            listed(false_by)
        ),
        format!(
            "  {:<18} {:>14} {:>8} {:>8} {:>12} {:>6}   raised by",
            "change to", "delay, median", "95 %", "most", "before it", "never"
        ),
    ];
    for Changed { era, early, missed, delay: [median, most, all], by } in changed {
        lines.push(format!(
            "  {:<18} {median:>14.0} {most:>8.0} {all:>8.0} {early:>12} {missed:>6}   {}",
            format!("era {era}"),
            listed(by)
        ));
    }
    lines.join("\n") + "\n"
}
