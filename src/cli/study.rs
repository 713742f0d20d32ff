//! `kiln study`.

use super::Global;
use super::term::{Ink, ink, note, print, quote, safe};
use clap::{Args, Subcommand};
use kiln::error::{Error, Result};
use kiln::study::doctor::{self, Row};
use kiln::study::tune::{Outcome, Settings, study};
use kiln::train::{Event, Watch, signal};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

/// Measure what a stage does to a model, on the built-in world, with a control that must fail
#[derive(Args, Debug)]
pub struct StudyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Tune(TuneStudy),
    Doctor(DoctorStudy),
}

/// Does kiln doctor name what is wrong with a run, and keep silent about healthy ones?
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study doctor                      17 small runs: some minutes on two cores
  kiln study doctor --only high-lr,gpt2 --json")]
struct DoctorStudy {
    /// These runs alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-doctor")]
    out: PathBuf,
}

/// Does fine-tuning teach a model to say what it knows? Questions about entities that it was never tuned on
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study tune                        seeds 1 to 5: about an hour on two cores
  kiln study tune --seeds 1 --json       one of them
  kiln study tune --seeds 1 --base-steps 200 --tune-steps 20 --out /tmp/quick")]
struct TuneStudy {
    /// Seeds of the world and of all that is random
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3,4,5")]
    seeds: Vec<u64>,
    /// Where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/study-tune")]
    out: PathBuf,
    /// Steps of reading
    #[arg(long, value_name = "N", default_value_t = Settings::default().base_steps, value_parser = clap::value_parser!(u64).range(1..))]
    base_steps: u64,
    /// Steps of tuning
    #[arg(long, value_name = "N", default_value_t = Settings::default().tune_steps, value_parser = clap::value_parser!(u64).range(1..))]
    tune_steps: u64,
}

/// Stops where a signal asks for it, and says nothing.
struct Quiet;

impl Watch for Quiet {
    fn event(&mut self, event: &Event) {
        if let Event::Start { .. } = event {
            signal::save_first();
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}

/// Runs `kiln study`.
pub fn run(args: StudyArgs, global: &Global) -> Result<()> {
    let args = match args.what {
        What::Tune(args) => args,
        What::Doctor(args) => return doctor(&args, global),
    };
    let device = global.host()?;
    signal::install()?;
    let settings = Settings { base_steps: args.base_steps, tune_steps: args.tune_steps, ..Settings::default() };
    for &seed in &args.seeds {
        let dir = args.out.join(format!("seed-{seed}"));
        let outcome = study(&settings, seed, &dir, &device, &mut |what| note(what), &mut Quiet)?;
        if global.json {
            print(&json!(outcome).to_string())?;
        } else {
            print(&table(&outcome))?;
        }
    }
    Ok(())
}

fn doctor(args: &DoctorStudy, global: &Global) -> Result<()> {
    let program = std::env::current_exe().map_err(|e| Error::io("kiln", e))?;
    let start = || {
        let mut command = Command::new(&program);
        if global.threads() > 0 {
            command.args(["--threads", &global.threads().to_string()]);
        }
        command
    };
    let rows = doctor::study(&start, &args.only, &args.out, &global.host()?, &mut |what| note(what))?;
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

fn table(outcome: &Outcome) -> String {
    let [entities, people, other] = outcome.questions;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let head = format!(
        "seed {}: {entities} held-out entities, {people} questions, {other} more in held-out words; commonest answer: {}",
        outcome.seed,
        percent(outcome.commonest)
    );
    let names = format!(
        "  {:14} {:>7} {:>9} {:>9} {:>12} {:>9} {:>9} {:>8}",
        "model", "lr", "trained", "right", "other words", "loss", "rise", "seconds"
    );
    let before = outcome.models[0].general;
    let rows = outcome.models.iter().map(|model| {
        format!(
            "  {:14} {:>7} {:>9} {:>9} {:>12} {:>9.4} {:>9} {:>8.0}",
            model.name,
            model.lr.map_or(String::new(), |lr| lr.to_string()),
            if model.lr.is_some() { format!("{:.2} %", 100.0 * model.trained) } else { String::new() },
            percent(model.people),
            percent(model.other_words),
            model.general,
            if model.lr.is_some() {
                format!("{:+.1} %", 100.0 * (model.general / before - 1.0))
            } else {
                String::new()
            },
            model.seconds
        )
    });
    [ink(&head, Ink::Bold), names].into_iter().chain(rows).collect::<Vec<_>>().join("\n") + "\n"
}
