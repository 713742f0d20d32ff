//! `kiln study agents`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::agents::{Outcome, Played, Settings, study};

/// Does a model learn to act, and within constraints? Imitation of a planner, rewards, a price for breaches, a mask
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study agents                       seeds 1 to 5
  kiln study agents --seeds 1 --json      one of them
  kiln study agents --seeds 1 --base-steps 20 --steps 2 --out /tmp/quick")]
pub struct AgentStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Steps of learning from trajectories
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The learning rate of these
    #[arg(long, value_name = "X", default_value_t = Settings::default().lr)]
    lr: f64,
}

/// Runs it.
pub fn run(args: &AgentStudy, global: &Global) -> Result<()> {
    let AgentStudy { base_steps, steps, lr, .. } = *args;
    let settings = Settings { base_steps, steps, lr, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let head = format!(
        "seed {}: {} errands about held-out people and things, as many in held-out words too, of which the planner needs {} calls in the median",
        outcome.seed, outcome.asked, outcome.median
    );
    let names = format!(
        "  {:<20} {:>10} {:>18} {:>13} {:>18} {:>12} {:>8} {:>9}",
        "", "done", "95 % interval", "other words", "95 % interval", "breached", "calls", "seconds"
    );
    let rows = outcome.agents.iter().map(|played| {
        let Played { name, success, other_words, breached, calls, seconds } = played;
        let share = |(done, [low, high]): &(f64, [f64; 2])| {
            let [done, low, high] = [done, low, high].map(|x| 100.0 * x);
            format!("{done:>8.1} % {low:>8.1} - {high:<5.1} %")
        };
        let (done, others) = (share(success), share(other_words));
        format!("  {name:<20} {done}    {others} {:>10.1} % {calls:>8.1} {seconds:>9.0}", 100.0 * breached)
    });
    [ink(&head, Ink::Bold), names].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
