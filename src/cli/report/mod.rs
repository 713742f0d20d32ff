//! `kiln report`.

mod chart;
mod draw;
mod page;
#[cfg(test)]
mod tests;
mod view;

use super::Global;
use super::term::print;
use clap::Args;
use kiln::error::{AtPath, Error, Result};
use kiln::report::{Live, live};
use kiln::train::signal;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use view::View;

/// A model on one page, or its model card; runs watched in the terminal
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln report runs/village                   all that is known of it, as RUN/report.html
  kiln report runs/village --eval --card     measure what nobody has first; and a model card, README.md
  kiln report runs/a runs/b --out ab.html    side by side: settings that differ, losses, answers
  kiln report runs/village --study runs/study-canaries      and what keeps secrets from being told
  kiln report --live                         watch the run in runs/ that was written to last
  kiln report --live runs/sweep              all trials of a sweep
  kiln report --live --json                  where it stands now, as JSON

The page is one file without scripts. What nobody has measured it lists, with the command that does.

Keys of --live:
  q quits; tab and ← → choose what is drawn large; ↑ ↓ choose a run; l: logarithmic; s: smoother")]
pub struct ReportArgs {
    /// Runs, sweeps, studies, or other models [default: the newest in runs/]
    #[arg(value_name = "RUN|MODEL")]
    runs: Vec<PathBuf>,
    /// Loss, learning rate, gradient, speed, memory and samples as they come
    #[arg(long, conflicts_with_all = ["out", "card", "eval", "limit", "plan", "study"])]
    live: bool,
    /// Where the page goes [default: report.html in the model's folder; of several, in this one]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a model card too, README.md beside the page, as Hugging Face's hub reads it
    #[arg(long)]
    card: bool,
    /// Measure what is missing first: kiln's own tasks, a few items each; the doctor's look; this machine's peak
    #[arg(long)]
    eval: bool,
    /// With --eval: items of a task at most
    #[arg(long, value_name = "N", default_value_t = 50, requires = "eval", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// What was planned, as kiln plan --json wrote it: its prices and its time
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// What a study of `kiln study` found, by its folder: before and after, on the page; may be repeated
    #[arg(long, value_name = "DIR")]
    study: Vec<PathBuf>,
}

/// How often files are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often signals are.
const BLINK: Duration = Duration::from_millis(100);

/// Runs `kiln report` and gives the exit code.
pub fn run(args: &ReportArgs, global: &Global) -> Result<u8> {
    let newest = || live::newest(Path::new("runs")).map(|run| vec![run]);
    let runs = if args.runs.is_empty() { newest()? } else { args.runs.clone() };
    if !args.live {
        return page::run(&runs, args, global).map(|()| 0);
    }
    if global.json {
        return print(&Live::open(&runs)?.to_json().to_string()).map(|()| 0);
    }
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if dumb || !std::io::stdout().is_terminal() {
        let hint = "run it in one; or add --json, which prints where the runs stand";
        return Err(Error::usage("--live draws on a terminal, and standard output is none that it can draw on", hint));
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    show(Live::open(&runs)?, View::new(!plain))
}

/// The terminal while it is drawn on: it gets back what it showed before, however this ends (of a panic the hook that `ratatui` installs
/// takes care).
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Draws until a key or a signal ends it.
fn show(mut live: Live, mut view: View) -> Result<u8> {
    let terminal = "the terminal";
    signal::install()?;
    // So that a signal ends the loop below and not the process at once: there is a terminal to put right.
    signal::save_first();
    let mut screen = Screen(ratatui::try_init().at(terminal)?);
    let mut looked = Instant::now();
    loop {
        screen.0.draw(|frame| draw::draw(frame, &live, &view)).at(terminal)?;
        loop {
            if let Some(signal) = signal::caught() {
                return Ok(signal::exit_code(signal));
            }
            if event::poll(BLINK).at(terminal)? {
                let event = event::read().at(terminal)?;
                // Whatever it was: a new size asks for a new picture, too.
                if let Event::Key(key) = event
                    && key.kind != KeyEventKind::Release
                    && view.press(key, live.runs.len())
                {
                    return Ok(0);
                }
                break;
            }
            if looked.elapsed() >= TICK {
                live.look()?;
                looked = Instant::now();
                break;
            }
        }
    }
}
