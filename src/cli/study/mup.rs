//! `kiln study mup`.

use super::super::Global;
use super::super::sweep::program;
use super::super::term::{Ink, ink, note, print};
use super::Bar;
use clap::Args;
use kiln::error::Result;
use kiln::study::mup::{Moves, Outcome, Rates, Settings, study};
use kiln::sweep::Work;
use serde_json::json;
use std::path::PathBuf;

/// Is a learning rate that is best for a narrow model best for a wide one? With muP, and without
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study mup
  kiln study mup --set set.train.steps=50 --out /tmp/quick
  kiln sweep data/recipes/width.toml              the rates of one width")]
pub struct MupStudy {
    /// Where its sweeps go; trials that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-mup")]
    out: PathBuf,
    /// Trials side by side
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    workers: u64,
    /// Override a key of data/recipes/width.toml, which searches the rates; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs it.
pub fn run(args: MupStudy, global: &Global) -> Result<()> {
    let device = global.host()?;
    let program = program(global, args.workers as usize)?;
    let set = [&[format!("sweep.workers={}", args.workers)], &args.set[..]].concat();
    let work = Work { program: &program };
    let told = &mut |what: &str| note(what);
    let outcome = study(&Settings::default(), &args.out, &set, (&work, &device), told, &mut Bar::default())?;
    match global.json {
        true => print(&json!(outcome).to_string()),
        false => print(&table(&outcome)),
    }
}

fn table(outcome: &Outcome) -> String {
    let mut text = ink("how far things move in a few steps, by width\n", Ink::Bold);
    text += &format!("  {:10} {:10}", "", "");
    outcome.widths.iter().for_each(|width| text += &format!(" {width:>9}"));
    text += "     slope\n";
    for (name, all) in [("standard", &outcome.standard), ("muP", &outcome.mup)] {
        for Moves { what, moves, slope } in all {
            text += &format!("  {name:10} {what:10}");
            moves.iter().for_each(|moved| text += &format!(" {moved:>9.4}"));
            text += &format!(" {slope:>+9.3}\n");
        }
    }
    text += &ink("\nvalidation loss by learning rate, the mean of all seeds\n", Ink::Bold);
    let [narrow, mup, wide] = &outcome.rates;
    let name = |rates: &Rates| format!("{}{}", rates.width, if rates.mup { ", muP" } else { "" });
    text += &format!("  {:>10} {:>12} {:>12} {:>12}\n", "lr", name(narrow), name(mup), name(wide));
    for (i, (lr, _)) in narrow.losses.iter().enumerate() {
        text += &format!("  {lr:>10.1e}");
        for rates in &outcome.rates {
            let row = &rates.losses[i].1;
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let shown = format!("{mean:.4}{}", if i == rates.best { " *" } else { "  " });
            text += &format!(" {shown:>12}");
        }
        text += "\n";
    }
    for rates in &outcome.rates {
        let best: Vec<String> = rates.of_seeds.iter().map(|&i| format!("{:.1e}", rates.losses[i].0)).collect();
        text += &format!("  best of each seed, {}: {}\n", name(rates), best.join(", "));
    }
    let shift = |narrow: &Rates| wide.best as i64 - narrow.best as i64;
    text += &format!(
        "the best rate moves by {:+} factors of 2 from width {} to {}, and by {:+} with muP",
        shift(narrow),
        narrow.width,
        wide.width,
        shift(mup)
    );
    text
}
