//! `kiln study halving`.

use super::super::Global;
use super::super::sweep::program;
use super::super::term::{Ink, ink, note, print, thousands};
use super::Bar;
use clap::Args;
use kiln::error::Result;
use kiln::study::halving::{Outcome, study};
use kiln::sweep::Work;
use serde_json::json;
use std::path::PathBuf;

/// Does successive halving find what a whole grid finds? 64 settings of a small GPT, and chance with the same steps
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study halving                              about five minutes on two cores
  kiln study halving --set train.steps=80 --out /tmp/quick
  kiln sweep data/recipes/grid.toml               halving alone")]
pub struct HalvingStudy {
    /// Where its sweeps go; trials that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-halving")]
    out: PathBuf,
    /// Trials side by side
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    workers: u64,
    /// Override a key of data/recipes/grid.toml, or of its [set]; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: HalvingStudy, global: &Global) -> Result<()> {
    let program = program(global, args.workers as usize)?;
    let set = [&[format!("sweep.workers={}", args.workers)], &args.set[..]].concat();
    let outcome = study(&args.out, &set, &Work { program: &program }, &mut |what| note(what), &mut Bar::default())?;
    match global.json {
        true => print(&json!(outcome).to_string()),
        false => print(&table(&outcome)),
    }
}

fn table(outcome: &Outcome) -> String {
    let Outcome { settings: [all, right], best, grid_steps, rungs, steps, found, above, draws, chance, misses } =
        outcome;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let verdict = |above: f64| if Outcome::is_right(above) { "found" } else { "missed" };
    let row = |name: &str, steps: u64, loss: f64, above: f64, what: &str| {
        format!("  {name:16} {:>8} {loss:>9.4} {:>9}  {what}\n", thousands(steps), percent(above))
    };
    let whole = rungs.last().copied().unwrap_or_default();
    let mut text = ink(&format!("{all} settings, {right} of them within 1 % of the least loss\n"), Ink::Bold);
    text += &format!("  {:16} {:>8} {:>9} {:>9}\n", "search", "steps", "loss", "above");
    text += &row("grid", *grid_steps, best.1, 0.0, &best.0.join(" "));
    text += &row("halving", *steps, found.1, *above, &format!("{}: {}", verdict(*above), found.0.join(" ")));
    for one in chance {
        let name = format!("chance, seed {}", one.seed);
        text += &row(&name, *draws as u64 * whole, one.best, one.above, verdict(one.above));
    }
    let rungs: Vec<String> = rungs.iter().map(|&rung| thousands(rung)).collect();
    text += &format!(
        "halving: rungs at steps {}; {:.1} % of the grid's steps\n",
        rungs.join(", "),
        100.0 * *steps as f64 / *grid_steps as f64
    );
    text + &format!("chance: {draws} settings each; by counting, {:.0} % of such draws miss", 100.0 * misses)
}
