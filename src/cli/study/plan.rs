//! `kiln study plan`.

use super::super::Global;
use super::super::sweep::program;
use super::super::term::{Ink, ink, note, print, quote};
use super::Steps;
use clap::Args;
use kiln::error::Result;
use kiln::study::plan::{Outcome, Settings, Worst, study};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Does what kiln plan says come true? Thirty small recipes, each planned by one process and run by another
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study plan                     leave the machine alone meanwhile
  kiln study plan --only llama        some of them
  kiln study plan --json --out /tmp/planned")]
pub struct PlanStudy {
    /// Where its recipes and runs go
    #[arg(long, value_name = "DIR", default_value = "runs/study-plan")]
    out: PathBuf,
    /// Seconds of each run, about
    #[arg(long, value_name = "S", default_value_t = Settings::default().seconds)]
    seconds: f64,
    /// Seconds of steps that are measured for a plan
    #[arg(long, value_name = "S", default_value_t = Settings::default().measured)]
    measured: f64,
    /// Only recipes whose names hold this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
}

/// Runs it.
pub fn run(args: &PlanStudy, global: &Global) -> Result<()> {
    let device = global.host()?;
    let program = program(global, 1)?;
    let settings = Settings { seconds: args.seconds, measured: args.measured, only: args.only.clone() };
    let outcome = study(&settings, &args.out, &device, &program, &mut |what| note(what), &mut Steps::default())?;
    match global.json {
        true => print(&json!(outcome).to_string()),
        false => print(&compared(&outcome, &args.out)),
    }
}

/// Recipe by recipe: what was planned, what it took, and by how much the plan was off.
fn compared(outcome: &Outcome, out: &Path) -> String {
    let head = format!(
        "{:<20} {:>10} {:>7}  {:>9} {:>7}  {:>9} {:>9} {:>7}  {:>7} {:>7} {:>7}  {:>7} {:>5}",
        "recipe",
        "parameters",
        "steps",
        "mapped",
        "off",
        "resident",
        "was",
        "off",
        "time",
        "was",
        "off",
        "drift",
        "tries"
    );
    let mut text = ink(&head, Ink::Bold) + "\n";
    for row in &outcome.rows {
        let of = |what: &str| row.compared.iter().find(|compared| compared.what == what);
        let numbers = |what: &str| of(what).map_or((None, None, None), |c| (c.planned, c.actual, c.off()));
        let (mapped, _, mapped_off) = numbers("mapped");
        let (resident, resident_was, resident_off) = numbers("resident");
        let (time, time_was, time_off) = numbers("time");
        let mib = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{:.0} MiB", n / 1_048_576.0));
        let seconds = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.1} s"));
        let off = |n: Option<f64>| match n {
            Some(0.0) => "0".to_owned(),
            Some(n) => format!("{:+.1} %", 100.0 * n),
            None => "-".to_owned(),
        };
        let line = format!(
            "{:<20} {:>10} {:>7}  {:>9} {:>7}  {:>9} {:>9} {:>7}  {:>7} {:>7} {:>7}  {:>7} {:>5}",
            row.name,
            row.parameters,
            row.steps,
            mib(mapped),
            off(mapped_off),
            mib(resident),
            mib(resident_was),
            off(resident_off),
            seconds(time),
            seconds(time_was),
            off(time_off),
            off(Some(row.drift)),
            row.tries
        );
        text += &format!("{}\n", if row.within { line } else { ink(&line, Ink::Red) });
    }
    let Worst { mapped, resident, resident_beyond, seconds } = outcome.worst;
    text += &format!(
        "\nworst  mapped {mapped:.0} bytes, resident {:+.1} % ({:.1} MiB beyond 5 %), time {:+.1} %\n",
        100.0 * resident,
        resident_beyond.max(0.0) / 1_048_576.0,
        100.0 * seconds
    );
    let (within, all) = (outcome.within, outcome.rows.len());
    text += &format!("{within} of {all} within their bounds: mapped equal, resident 5 % and 16 MiB, time 15 %\n");
    text + &format!(
        "\nnext: kiln plan {} --json",
        quote(&out.join("recipes").join(format!("{}.toml", outcome.rows[0].name)))
    )
}
