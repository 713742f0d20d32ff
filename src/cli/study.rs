//! `kiln study`.

use super::Global;
use super::term::{Ink, ink, note, print, quote};
use clap::{Args, Subcommand};
use kiln::error::{Error, Result};
use kiln::study::plan;
use kiln::study::tune::{Outcome, Settings, study};
use kiln::train::{Event, Watch, signal};
use serde_json::json;
use std::path::{Path, PathBuf};
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
    Plan(PlanStudy),
}

/// Does what kiln plan says come true? Thirty small recipes, each planned by one process and run by another
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln study plan                     about ten minutes; leave the machine alone meanwhile
  kiln study plan --only llama        some of them
  kiln study plan --json --out /tmp/planned")]
struct PlanStudy {
    /// Where its recipes and runs go
    #[arg(long, value_name = "DIR", default_value = "runs/study-plan")]
    out: PathBuf,
    /// Seconds of each run, about
    #[arg(long, value_name = "S", default_value_t = plan::Settings::default().seconds)]
    seconds: f64,
    /// Seconds of steps that are measured for a plan
    #[arg(long, value_name = "S", default_value_t = plan::Settings::default().measured)]
    measured: f64,
    /// Only recipes whose names hold this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
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
    match args.what {
        What::Tune(args) => tuning(args, global),
        What::Plan(args) => planning(&args, global),
    }
}

fn tuning(args: TuneStudy, global: &Global) -> Result<()> {
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

fn planning(args: &PlanStudy, global: &Global) -> Result<()> {
    let device = global.host()?;
    signal::install()?;
    let program = std::env::current_exe().map_err(|e| Error::io("kiln", e))?;
    let threads = device.host().threads.count().to_string();
    let start = || {
        let mut command = Command::new(&program);
        command.args(["--threads", &threads, "--device", "cpu"]);
        command
    };
    let settings = plan::Settings { seconds: args.seconds, measured: args.measured, only: args.only.clone() };
    let outcome = plan::study(&settings, &args.out, &device, &start, &mut |what| note(what), &mut Quiet)?;
    match global.json {
        true => print(&json!(outcome).to_string()),
        false => print(&compared(&outcome, &args.out)),
    }
}

/// Recipe by recipe: what was planned, what it took, and by how much the plan was off.
fn compared(outcome: &plan::Outcome, out: &Path) -> String {
    let head = format!(
        "{:<20} {:>10} {:>7}  {:>9} {:>7}  {:>9} {:>9} {:>7}  {:>7} {:>7} {:>7}",
        "recipe", "parameters", "steps", "mapped", "off", "resident", "was", "off", "time", "was", "off"
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
            "{:<20} {:>10} {:>7}  {:>9} {:>7}  {:>9} {:>9} {:>7}  {:>7} {:>7} {:>7}",
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
            off(time_off)
        );
        text += &format!("{}\n", if row.within { line } else { ink(&line, Ink::Red) });
    }
    let plan::Worst { mapped, resident, resident_beyond, seconds } = outcome.worst;
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
