//! `kiln study overopt`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::overopt::{Followed, Outcome, Point, Settings, study};

/// What becomes of what people want when a model follows a reward model? Hasty judges, best-of-n, and judges who take their time
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study overopt --seeds 1,2,3
  kiln study overopt --seeds 1 --json
  kiln study overopt --seeds 1 --base-steps 200 --steps 20 --out /tmp/quick")]
pub struct OveroptStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().start.base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Steps of following the reward model
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The learning rate of these
    #[arg(long, value_name = "X", default_value_t = Settings::default().lr)]
    lr: f64,
    /// Override a key of its recipe, data/recipes/reinforce.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: &OveroptStudy, global: &Global) -> Result<()> {
    let mut settings = Settings { steps: args.steps, lr: args.lr, set: args.set.clone(), ..Settings::default() };
    settings.start.base_steps = args.base_steps;
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn rows(name: &str, of: &str, points: &[Point]) -> Vec<String> {
    let row = |point: &Point| {
        let Point { n, kl, proxy, gold, words } = point;
        format!("  {name:<15} {of:>9} {n:>4} {kl:>9.2} {proxy:>9.3} {:>8.1} % {words:>7.1}", 100.0 * gold)
    };
    points.iter().map(row).collect()
}

fn table(outcome: &Outcome) -> String {
    let mut lines = vec![
        ink(
            &format!("seed {}: gold is right, polite and short; proxy is what the reward model says", outcome.seed),
            Ink::Bold,
        ),
        format!("  {:<15} {:>14} {:>9} {:>9} {:>10} {:>7}", "judges", "", "KL", "proxy", "gold", "words"),
    ];
    for (name, followed) in [("in haste", &outcome.biased), ("take their time", &outcome.control)] {
        let Followed { accuracy, curve, best } = followed;
        lines.extend(rows(name, "step", curve));
        lines.extend(rows(name, "best of", best));
        let [fall, rise] = followed.after_peak();
        lines.push(format!(
            "  {name}: the reward model puts {:.1} % of held-out pairs in order; after its peak gold falls by {:.1} points while the proxy \
             rises by {rise:.3}",
            100.0 * accuracy,
            100.0 * fall
        ));
    }
    lines.join("\n") + "\n"
}
