//! `kiln study doctor`.

use super::super::Global;
use super::super::sweep::program;
use super::super::term::{Ink, ink, note, print, quote, safe};
use clap::Args;
use kiln::error::Result;
use kiln::study::doctor::{Row, study};
use serde_json::json;
use std::path::PathBuf;

/// Does kiln doctor name what is wrong with a run, and keep silent about healthy ones?
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study doctor                      17 small runs: some minutes on two cores
  kiln study doctor --only high-lr,gpt2 --json")]
pub struct DoctorStudy {
    /// These runs alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-doctor")]
    out: PathBuf,
}

/// Runs it.
pub fn run(args: &DoctorStudy, global: &Global) -> Result<()> {
    let program = program(global, 1)?;
    let rows = study(&program, &args.only, &args.out, &global.host()?, &mut |what| note(what))?;
    let right = |broken: bool| {
        let all: Vec<&Row> = rows.iter().filter(|row| row.broken.is_empty() != broken).collect();
        [all.iter().filter(|row| row.right).count(), all.len()]
    };
    let [named, silent] = [true, false].map(right);
    if global.json {
        return print(&json!({"runs": rows, "named": named, "silent": silent}).to_string());
    }
    let head = format!("{:12} {:42} {:6} {:>8}  found", "run", "what was broken", "", "seconds");
    let line = |row: &Row| {
        let found = match &row.refused {
            Some(why) => format!("refused: {why}"),
            None if row.found.is_empty() => "nothing".to_owned(),
            None => row.found.join(", "),
        };
        let broken = if row.broken.is_empty() { "nothing" } else { row.broken };
        let verdict = if row.right { ink("right ", Ink::Green) } else { ink("wrong ", Ink::Red) };
        format!("{:12} {broken:42} {verdict} {:>8.0}  {}", row.name, row.seconds.iter().sum::<f64>(), safe(&found))
    };
    let lines: Vec<String> = [ink(&head, Ink::Bold)].into_iter().chain(rows.iter().map(line)).collect();
    let sum =
        format!("{} of {} broken runs named, {} of {} healthy ones silent", named[0], named[1], silent[0], silent[1]);
    print(&format!("{}\n\n{sum}\nnext: kiln doctor {}/RUN", lines.join("\n"), quote(&args.out)))
}
