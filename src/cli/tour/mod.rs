//! `kiln tour`.

mod step;

use super::Global;
use super::study::Steps;
use super::term::{Ink, ink, note, print, quote, safe};
use clap::Args;
use kiln::data::atomic::write_atomic;
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::report::page::tour::{said, tour};
use kiln::study::Seed;
use kiln::study::tour::{self, Begun, Measure, Pace, STAGES, Shown, Stage};
use kiln::train::signal;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// See a model's whole life cycle: every stage done, measured and explained, in twelve minutes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln tour                      nineteen stages in about twelve minutes on two cores, and a page of all of them
  kiln tour --quick              the same in about three
  kiln tour --resume             goes on where it was stopped
  kiln tour --stage dpo          one stage again, on what the others left
  kiln tour --list               what there is, with its budget
  kiln tour --one-step           one step of training a tiny model, every number forward and backward

Each stage says what it does and why, shows what it changed, and names the file to read and commands that go further.")]
pub struct TourArgs {
    /// About three minutes, with less of everything
    #[arg(long)]
    quick: bool,
    /// Do one stage, again where it was done
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Go on with the tour in --out, as it was begun
    #[arg(long, conflicts_with = "stage")]
    resume: bool,
    /// Say what stages there are
    #[arg(long)]
    list: bool,
    /// Show a single step of training, every number of it, and nothing else
    #[arg(long, conflicts_with_all = ["quick", "stage", "resume", "list"])]
    one_step: bool,
    /// Where everything goes
    #[arg(long, value_name = "DIR", default_value = "runs/tour")]
    out: PathBuf,
    /// Of the village and of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs `kiln tour` and gives the exit code.
pub fn run(args: &TourArgs, global: &Global) -> Result<u8> {
    if args.list {
        return list(global).map(|()| 0);
    }
    if args.one_step {
        return step::show(args.seed, global).map(|()| 0);
    }
    signal::install()?;
    let chosen: Vec<&Stage> = match &args.stage {
        Some(name) => vec![tour::stage(name)?],
        None => STAGES.iter().collect(),
    };
    let before = Begun::read(&args.out)?;
    if before.is_some() && !args.resume && args.stage.is_none() {
        let problem = format!("there is a tour in {}", args.out.display());
        let hint = "go on with it: --resume; do a stage again: --stage NAME; or begin another: --out DIR";
        return Err(Error::usage(problem, hint));
    }
    let Begun { seed, pace } = match before {
        Some(before) => before,
        None => {
            let begun = Begun { seed: args.seed, pace: if args.quick { Pace::Quick } else { Pace::Full } };
            begun.write(&args.out)?;
            begun
        }
    };
    let device = global.host()?;
    for stage in chosen {
        if args.stage.is_some() {
            tour::forget(&args.out, stage)?;
        } else if let Some(shown) = tour::shown(&args.out, stage)? {
            tell(stage, &shown, global)?;
            continue;
        }
        if !global.json {
            print(&format!("\n{}\n{}", ink(stage.name, Ink::Bold), wrapped(stage.does)))?;
        }
        let mut watch = Steps::default();
        let told = &mut |what: &str| note(&format!("  {what}"));
        let mut at = Seed { seed, dir: &args.out, device: &device, told, watch: &mut watch };
        let shown = match (tour::run(stage, &mut at, pace), signal::caught()) {
            (Err(_), Some(signal)) => {
                note(&format!("stopped in {}; go on: kiln tour --resume --out {}", stage.name, quote(&args.out)));
                return Ok(signal::exit_code(signal));
            }
            (shown, _) => shown?,
        };
        tell(stage, &shown, global)?;
    }
    let all: Vec<(&Stage, Option<Shown>)> =
        STAGES.iter().map(|stage| Ok((stage, tour::shown(&args.out, stage)?))).collect::<Result<_>>()?;
    let page = args.out.join("tour.html");
    write_atomic(&Os, &page, tour(&all, pace).as_bytes())?;
    if global.json {
        return print(&json!({"page": page}).to_string()).map(|()| 0);
    }
    print(&format!("\n{}", table(&all, pace)))?;
    print(&format!("page   {}\n\nnext: open {}", quote(&page), quote(&page))).map(|()| 0)
}

fn list(global: &Global) -> Result<()> {
    if global.json {
        let one = |stage: &Stage| {
            json!({"name": stage.name, "does": stage.does, "source": stage.source, "chapter": stage.chapter,
            "needs": stage.needs, "budget": stage.budget})
        };
        return print(&json!(STAGES.iter().map(one).collect::<Vec<_>>()).to_string());
    }
    let mut text = format!("{:<11}{:>7}{:>7}  {}\n", "stage", "quick", "full", "read");
    for stage in STAGES {
        let [quick, full] = stage.budget;
        let _ = writeln!(text, "{:<11}{quick:>5} s{full:>5} s  {}", stage.name, stage.source);
    }
    let [quick, full] = [0, 1].map(|i| STAGES.iter().map(|stage| stage.budget[i]).sum::<u64>());
    print(&format!("{text}{:<11}{quick:>5} s{full:>5} s  on two cores", "in all"))
}

/// What a stage came to.
fn tell(stage: &Stage, shown: &Shown, global: &Global) -> Result<()> {
    if global.json {
        return print(&json!({"stage": stage.name, "shown": shown}).to_string());
    }
    let mut text = String::new();
    for measure in &shown.measures {
        let _ = writeln!(text, "  {}", line(measure));
    }
    for note in &shown.notes {
        let _ = writeln!(text, "  {}", ink(&safe(note), Ink::Dim));
    }
    if let Some(sample) = &shown.sample {
        let _ = writeln!(text, "  > {}", safe(sample).replace('\n', "\n  > "));
    }
    let _ = write!(text, "  {:.0} s; read {}, {}", shown.seconds, stage.source, stage.chapter);
    print(&text)
}

fn line(measure: &Measure) -> String {
    let Measure { what, unit, before, after, .. } = measure;
    let word = if measure.as_it_should() { ink("ok ", Ink::Green) } else { ink("NO ", Ink::Red) };
    let side = |(of, value): &(String, f64)| format!("{} {}", safe(of), said(*value, *unit));
    format!("{word} {}: {} -> {}", safe(what), side(before), side(after))
}

/// A table of all stages: what they took beside their budget.
fn table(all: &[(&Stage, Option<Shown>)], pace: Pace) -> String {
    let mut text = format!("{:<11}{:>8}{:>9}  {}\n", "stage", "took", "budget", "the main figure");
    let mut sum = [0.0; 2];
    for (stage, shown) in all {
        let budget = stage.budget(pace);
        let took = shown.as_ref().map_or(f64::NAN, |shown| shown.seconds);
        sum = [sum[0] + if took.is_finite() { took } else { 0.0 }, sum[1] + budget as f64];
        let figure = shown.as_ref().and_then(|shown| shown.measures.first()).map_or(String::new(), |measure| {
            let of = |value: f64| said(value, measure.unit);
            format!("{} -> {}", of(measure.before.1), of(measure.after.1))
        });
        let took = if took.is_finite() { format!("{took:.0} s") } else { "not done".to_owned() };
        let _ = writeln!(text, "{:<11}{took:>8}{:>9}  {figure}", stage.name, format!("{budget} s"));
    }
    text + &format!("{:<11}{:>8}{:>9}\n", "in all", format!("{:.0} s", sum[0]), format!("{:.0} s", sum[1]))
}

/// Words in lines of a terminal's width.
fn wrapped(text: &str) -> String {
    let (mut out, mut width) = (String::from(" "), 1);
    for word in text.split_whitespace() {
        if width + word.len() + 1 > 96 {
            out += "\n ";
            width = 1;
        }
        out += " ";
        out += word;
        width += word.len() + 1;
    }
    out
}
