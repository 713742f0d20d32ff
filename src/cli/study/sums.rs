//! `kiln study sums`.

use super::super::Global;
use super::super::term::{Ink, ink};
use super::Seeds;
use clap::Args;
use kiln::error::Result;
use kiln::study::sums::{BAND, Outcome, Point, Settings, study};

/// Does a model learn to add rightly by rewards alone? GRPO, an expected curve, and the sign turned
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study sums                       seeds 1 to 5
  kiln study sums --seeds 1 --json      one of them
  kiln study sums --seeds 1 --read-steps 200 --out /tmp/quick")]
pub struct SumStudy {
    #[command(flatten)]
    seeds: Seeds,
    /// Steps of reading sums
    #[arg(long, value_name = "N", default_value_t = Settings::default().read_steps, value_parser = clap::value_parser!(u64).range(1..))]
    read_steps: u64,
    /// The learning rate of GRPO
    #[arg(long, value_name = "X", default_value_t = Settings::default().lr)]
    lr: f64,
}

/// Runs it.
pub fn run(args: &SumStudy, global: &Global) -> Result<()> {
    let settings = Settings { read_steps: args.read_steps, lr: args.lr, ..Settings::default() };
    args.seeds.each(global, |seed| study(&settings, seed), table)
}

fn table(outcome: &Outcome) -> String {
    let head = format!(
        "seed {}: right of 500 sums that nobody wrote; the likeliest answer is right in {:.1} % before",
        outcome.seed,
        100.0 * outcome.knows
    );
    let steps = |of: &dyn Fn(u64) -> String| BAND.iter().map(|(step, ..)| of(*step)).collect::<String>();
    let names = format!("  {:<18}{}", "after steps", steps(&|step| format!("{step:>12}")));
    let curve = |curve: &[Point]| {
        let at = |step: u64| curve.iter().find(|point| point.step == step);
        steps(&|step| at(step).map_or(String::new(), |point| format!("{:>10.1} %", 100.0 * point.right)))
    };
    let row = |name: &str, of: &[Point]| {
        let stays = if Outcome::inside(of) { "stays in the band" } else { "leaves the band" };
        format!("  {name:<18}{}  {stays}", curve(of))
    };
    let band: String = BAND
        .iter()
        .map(|(_, low, high)| format!("{:>12}", format!("{:.0} - {:.0} %", 100.0 * low, 100.0 * high)))
        .collect();
    let seconds = format!("  {:.0} seconds", outcome.seconds);
    let rows = [
        row("GRPO", &outcome.curve) + &seconds,
        row("the sign turned", &outcome.turned),
        format!("  {:<18}{band}", "band"),
    ];
    [ink(&head, Ink::Bold), names].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
