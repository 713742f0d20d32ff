//! `kiln sweep`.

use super::Global;
use super::study::Steps;
use super::term::{Ink, Progress, ink, note, print, quote, thousands, warn};
use clap::Args;
use kiln::disk::{self, Os};
use kiln::error::{Error, Result};
use kiln::sweep::outcome::BEST;
use kiln::sweep::scaling::{self, ISOFLOP, Law};
use kiln::sweep::{Event, Outcome, Sweep, Watch, Work, range, reopen, run as sweep};
use kiln::train::AnyRecipe;
use kiln::train::plot::Picture;
use kiln::train::recipe::MAX_FILE;
use kiln::train::signal;
use std::path::PathBuf;
use std::process::Command;

/// Search for the best settings of a recipe
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln sweep lr.toml                              as the file says
  kiln sweep lr.toml --set sweep.workers=2        two trials side by side
  kiln sweep --resume runs/sweep                  goes on where it was stopped, killed or out of budget
  kiln sweep --resume runs/sweep --set budget.steps=50000
  kiln sweep --lr-range                           where the village's learning rate does something, and where it breaks
  kiln sweep --lr-range my.toml --set model.d=256
  kiln sweep --isoflop                            scaling laws of a small GPT, and what they say of a larger one
  kiln sweep --isoflop my.toml --budgets 1e12,4e12 --widths 64,128,192 --hold-out 256@2e13

A file, of which data/recipes/sweep.toml explains every key:
  [sweep]
  search = \"tpe\"            # or \"grid\", \"random\", \"sobol\"
  trials = 30
  [halving]
  kind = \"async\"            # bad trials end early; \"sync\": rung by rung, \"none\": all run to their end
  first = 100
  [set]
  train.steps = 900         # what all trials have
  [space]
  optim.lr = { from = 1e-4, to = 1e-1, log = true }
  optim.kind = [\"adamw\", \"muon\"]")]
pub struct SweepArgs {
    /// What is searched, and how
    #[arg(value_name = "SWEEP.toml", required_unless_present_any = ["resume", "lr_range", "isoflop"])]
    file: Option<PathBuf>,
    /// Override a key of it; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the sweep in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    resume: Option<PathBuf>,
    /// Instead of a search: one run of a recipe (absent: the village's) whose learning rate rises until it breaks
    #[arg(long, conflicts_with = "resume")]
    lr_range: bool,
    /// With --lr-range: the first rate
    #[arg(long, value_name = "RATE", default_value_t = range::Settings::default().from, requires = "lr_range")]
    from: f64,
    /// With --lr-range: the last rate
    #[arg(long, value_name = "RATE", default_value_t = range::Settings::default().to, requires = "lr_range")]
    to: f64,
    /// With --lr-range: steps between them
    #[arg(long, value_name = "N", default_value_t = range::Settings::default().steps, requires = "lr_range")]
    steps: u64,
    /// Instead of a search: scaling laws of a recipe (absent: data/recipes/isoflop.toml's), from runs of several widths for each of
    /// several budgets
    #[arg(long, conflicts_with_all = ["resume", "lr_range"])]
    isoflop: bool,
    /// With --isoflop: floating-point operations of a run
    #[arg(long, value_name = "FLOPS", value_delimiter = ',', requires = "isoflop")]
    budgets: Vec<f64>,
    /// With --isoflop: widths of models
    #[arg(long, value_name = "D", value_delimiter = ',', requires = "isoflop")]
    widths: Vec<usize>,
    /// With --isoflop: the run that the law is to predict, or none
    #[arg(long, value_name = "D@FLOPS", requires = "isoflop", value_parser = held_out)]
    hold_out: Option<HeldOut>,
    /// With --isoflop: tokens for each of N that a run needs to be fitted
    #[arg(long, value_name = "D/N", default_value_t = 5.0, requires = "isoflop")]
    least_ratio: f64,
    /// With --isoflop: where its runs go; those that are there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs/isoflop", requires = "isoflop")]
    out: PathBuf,
    /// Lines of the table
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

/// `--hold-out`.
#[derive(Clone, Copy, Debug)]
struct HeldOut(Option<(usize, f64)>);

fn held_out(text: &str) -> Result<HeldOut, String> {
    if text == "none" {
        return Ok(HeldOut(None));
    }
    let parts = text.split_once('@').and_then(|(d, flops)| Some((d.parse().ok()?, flops.parse().ok()?)));
    parts.map(|run| HeldOut(Some(run))).ok_or_else(|| "a width and operations, as 128@4e12, or none".to_owned())
}

/// Runs `kiln sweep` and gives the exit code.
pub fn run(args: SweepArgs, global: &Global) -> Result<u8> {
    if args.lr_range {
        return lr_range(&args, global).map(|()| 0);
    }
    if args.isoflop {
        return isoflop(&args, global).map(|()| 0);
    }
    let settings = match (&args.resume, &args.file) {
        (Some(dir), _) => reopen(dir, &args.set)?,
        (None, Some(file)) => Sweep::from_toml(&disk::text(&Os, file, MAX_FILE)?, file, &args.set)?,
        (None, None) => unreachable!("the parser requires one of them"),
    };
    signal::install()?;
    signal::save_first();
    let program = program(global, settings.sweep.workers)?;
    let mut screen = Screen { json: global.json, bar: None, width: 0 };
    let outcome = sweep(&settings, args.resume.as_deref(), &Work { program: &program }, &mut screen)?;
    drop(screen);
    match global.json {
        true => print(&outcome.to_json().to_string())?,
        false => print(&conclusion(&outcome, args.top))?,
    }
    Ok(outcome.stopped.map_or(0, signal::exit_code))
}

/// This program as a command, with its share of the threads where `workers` of them work side by side.
pub(super) fn program(global: &Global, workers: usize) -> Result<impl Fn() -> Command> {
    let program = std::env::current_exe().map_err(|e| Error::io("kiln", e))?;
    let all = if global.threads() > 0 {
        global.threads()
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    let (threads, device) = ((all / workers).max(1).to_string(), global.device_args());
    Ok(move || {
        let mut command = Command::new(&program);
        command.args(["--threads", &threads]).args(&device);
        command
    })
}

/// The range test.
fn lr_range(args: &SweepArgs, global: &Global) -> Result<()> {
    let recipe = args.file.as_ref().map_or(Ok(String::new()), |file| disk::text(&Os, file, MAX_FILE))?;
    let settings = range::Settings { from: args.from, to: args.to, steps: args.steps };
    let device = global.device()?;
    signal::install()?;
    let set = [&["run.name=lr-range".to_owned()], &args.set[..]].concat();
    let bar = Progress::count("steps", args.steps);
    let found = range::range(&recipe, &set, &settings, &device, &mut Rising(bar))?;
    let [svg, png] = ["lr-range.svg", "lr-range.png"].map(|name| found.run.join(name));
    found.save_svg(&Os, &svg)?;
    found.save_png(&Os, &png)?;
    if global.json {
        return print(&serde_json::json!(found).to_string());
    }
    let shown = |lr: Option<f64>| lr.map_or("nowhere".to_owned(), |lr| format!("{lr:.1e}"));
    let next = match found.steepest {
        Some(lr) => format!("kiln train --set optim.lr={lr:.0e}, or a sweep around it"),
        None => "the same with other rates: the loss never fell".to_owned(),
    };
    print(&format!(
        "the loss falls fastest at a learning rate of {}, is lowest at {}, and breaks at {}\npicture {}\n\nnext: {next}",
        shown(found.steepest),
        shown(Some(found.lowest)),
        shown(found.breaks),
        svg.display(),
    ))
}

/// Scaling laws.
fn isoflop(args: &SweepArgs, global: &Global) -> Result<()> {
    let recipe = AnyRecipe::load(args.file.as_deref(), ISOFLOP, &args.set)?;
    let mut settings = scaling::Settings::default();
    if !args.budgets.is_empty() {
        settings.budgets.clone_from(&args.budgets);
    }
    if !args.widths.is_empty() {
        settings.widths.clone_from(&args.widths);
    }
    if let Some(HeldOut(run)) = args.hold_out {
        settings.hold_out = run;
    }
    settings.least_ratio = args.least_ratio;
    let device = global.device()?;
    signal::install()?;
    let bar = Progress::count("share", 1000);
    let mut told = |what: &str, done: f64, all: f64| {
        bar.above(|| note(what));
        bar.set((1000.0 * done / all) as u64);
    };
    let found = scaling::scaling(&recipe, &settings, &args.out, &device, &mut told, &mut Steps::default())?;
    drop(bar);
    let [svg, png] = ["isoflop.svg", "isoflop.png"].map(|name| args.out.join(name));
    found.save_svg(&Os, &svg)?;
    found.save_png(&Os, &png)?;
    if global.json {
        return print(&serde_json::json!(found).to_string());
    }
    let mut text =
        format!("\n{}\n", ink("  width  operations     size N   tokens D    steps     loss      law", Ink::Bold));
    let all = found.points.iter().map(|point| (point, if point.fitted { "" } else { "  not fitted" }));
    for (point, what) in all.chain(found.held_out.iter().map(|point| (point, "  held out"))) {
        let law = found.law.loss(point.size, point.tokens);
        text += &format!(
            "  {:>5}  {:>10.1e} {:>10.2e} {:>10.2e} {:>8} {:>8.4} {law:>8.4}{what}\n",
            point.width,
            point.flops,
            point.size,
            point.tokens,
            thousands(point.steps),
            point.loss
        );
    }
    text += &format!(
        "\n{}\n",
        ink("best for a budget   size N   tokens D   D/N     loss    by the law: N, loss", Ink::Bold)
    );
    for (best, budget) in found.optima.iter().zip(&settings.budgets) {
        let by_law = found.law.best(*budget);
        let law = by_law.map_or("none".to_owned(), |law| format!("{:.2e}, {:.4}", law.size, law.loss));
        match best {
            Some(best) => {
                let (size, tokens, loss) = (best.size, best.tokens, best.loss);
                text += &format!(
                    "  {budget:>15.0e} {size:>9.2e} {tokens:>10.2e} {:>5.0} {loss:>8.4}    {law}\n",
                    tokens / size
                );
            }
            None => text += &format!("  {budget:>15.0e} outside of the widths                  {law}\n"),
        }
    }
    let Law { e, a, alpha, b, beta } = found.law;
    text += &format!(
        "\nL(N, D) = {e:.3} + {a:.4}/N^{alpha:.2} + {b:.4}/D^{beta:.2}; off by {:.2} % in the mean\n",
        100.0 * found.residual
    );
    if let (Some(point), Some(predicted), Some(off)) = (&found.held_out, found.predicted, found.off()) {
        text += &format!(
            "held out: width {}, {:.1e} operations: predicted {predicted:.4}, trained {:.4}: off by {:+.2} %\n",
            point.width,
            point.flops,
            point.loss,
            100.0 * off
        );
    }
    print(&format!("{text}picture {}", svg.display()))
}

/// Shows how far the run of a range test is.
struct Rising(Progress);

impl kiln::train::Watch for Rising {
    fn event(&mut self, event: &kiln::train::Event) {
        match *event {
            kiln::train::Event::Start { .. } => signal::save_first(),
            kiln::train::Event::Step { step, .. } => self.0.set(step),
            _ => {}
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}

/// The table, what matters, and what to do next.
fn conclusion(outcome: &Outcome, top: usize) -> String {
    let mut text = String::new();
    let table = outcome.table(top);
    let (head, rows) = table.split_once('\n').unwrap_or((&table, ""));
    text += &format!("\n{}\n{rows}\n", ink(head, Ink::Bold));
    let more = outcome.order.len().saturating_sub(top);
    if more > 0 {
        text += &ink(
            &format!("and {} more in {}\n", thousands(more as u64), outcome.dir.join("sweep.json").display()),
            Ink::Dim,
        );
    }
    text +=
        &format!("\n{} trials, {} steps in all\n", thousands(outcome.trials.len() as u64), thousands(outcome.steps));
    if let Some(parts) = &outcome.importance {
        let mut parts: Vec<(&String, f64)> = outcome.keys.iter().zip(parts.iter().copied()).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let parts: Vec<String> = parts.iter().map(|(key, part)| format!("{key} {:.0} %", 100.0 * part)).collect();
        text += &format!("what matters at step {}: {}\n", thousands(outcome.rungs[0]), parts.join(", "));
    }
    let best = outcome.best();
    if let Some((trial, value)) = best {
        text += &format!("best   trial {trial}, {} {value:.4}\n", outcome.metric);
        text += &format!("picture {}\n", outcome.dir.join("sweep.svg").display());
    }
    let next = match (outcome.stopped, best) {
        (Some(_), _) => format!("kiln sweep --resume {}", quote(&outcome.dir)),
        (None, Some(_)) => format!("kiln train {}", quote(&outcome.dir.join(BEST))),
        (None, None) => format!("read {}", quote(&outcome.dir.join("trials"))),
    };
    text + &format!("\nnext: {next}")
}

/// What a sweep shows.
struct Screen {
    json: bool,
    bar: Option<Progress>,
    /// The width of the numbers of steps.
    width: usize,
}

impl Watch for Screen {
    fn event(&mut self, event: &Event) {
        let say = |text: &str| {
            if !self.json {
                // Where nobody reads, a sweep goes on.
                let _ = print(text);
            }
        };
        match *event {
            Event::Prepare { what, done, .. } => {
                if done == 0 {
                    say(what);
                }
            }
            Event::Start { dir, space, halving, known } => {
                let keys: Vec<&str> = space.axes.iter().map(|axis| &*axis.key).collect();
                let rungs: Vec<String> = halving.rungs.iter().map(|&rung| thousands(rung)).collect();
                self.width = rungs.last().map_or(0, String::len);
                say(&format!("{}: {}; trials run to step {}", dir.display(), keys.join(", "), rungs.join(", ")));
                if known > 0 {
                    say(&format!("going on after {} trials", thousands(known as u64)));
                }
            }
            Event::Run { .. } => {}
            Event::Came { trial, step, to, steps: [done, all] } => {
                let to = to.map_or_else(|why| format!("failed: {why}"), |value| format!("{value:.4}"));
                let width = self.width;
                let bar = self.bar.get_or_insert_with(|| Progress::count("steps", all));
                bar.above(|| say(&format!("trial {trial:>4}  step {:>width$}  {to}", thousands(step))));
                bar.set_of(done, all);
            }
            Event::Warning { text } => match &self.bar {
                Some(bar) => bar.above(|| warn(text)),
                None => warn(text),
            },
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}
