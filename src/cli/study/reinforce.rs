//! `kiln study reinforce`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use super::dpo::percent;
use clap::Args;
use kiln::error::Result;
use kiln::study::manners::Asked;
use kiln::study::reinforce::{Outcome, Settings, study};

/// Does a model learn from rewards alone to be right and polite? GRPO, PPO, imitation of its best answers, rewards by chance
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study reinforce                       seeds 1 to 5
  kiln study reinforce --seeds 1 --json      one of them
  kiln study reinforce --seeds 1 --base-steps 200 --steps 5 --out /tmp/quick")]
pub struct ReinforceStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().start.base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Steps of learning from rewards
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The learning rate of these
    #[arg(long, value_name = "X", default_value_t = Settings::default().lr)]
    lr: f64,
    /// What a nat of KL costs in GRPO
    #[arg(long, value_name = "X", default_value_t = Settings::default().kl[0])]
    kl: f64,
    /// And in PPO
    #[arg(long, value_name = "X", default_value_t = Settings::default().kl[1])]
    ppo_kl: f64,
    /// Override a key of their recipe, data/recipes/reinforce.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: &ReinforceStudy, global: &Global) -> Result<()> {
    let mut settings = Settings { steps: args.steps, lr: args.lr, set: args.set.clone(), ..Settings::default() };
    settings.start.base_steps = args.base_steps;
    settings.kl = [args.kl, args.ppo_kl];
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let [people, other] = outcome.questions;
    let head =
        format!("seed {}: {people} questions about held-out entities, {other} more in held-out words", outcome.seed);
    let names = format!("  {:<18} {:>43} {:>10} {:>9} {:>9}", "", "people", "other", "", "");
    let more = format!(
        "  {:<18} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9}",
        "learnt from", "both", "true", "polite", "words", "both", "KL", "seconds"
    );
    let rows = outcome.models.iter().map(|asked| {
        let Asked { name, people, other_words, kl, seconds } = asked;
        let shares = [people.both, people.truth, people.polite].map(percent).join(" ");
        let kl = kl.map_or(String::new(), |kl| format!("{kl:.3}"));
        format!("  {name:<18} {shares} {:>10.1} {} {kl:>9} {seconds:>9.0}", people.words, percent(other_words.both))
    });
    let (n, share) = outcome.best_of;
    let name = format!("best of {n}, before");
    let foot =
        format!("  {name:<18} {}    of what it learnt from each saw {} answers", percent(share), outcome.answers);
    let lines = [ink(&head, Ink::Bold), names, more].into_iter().chain(rows).chain([foot]);
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
