//! `kiln report`.

mod chart;
mod draw;
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

/// Watch runs in the terminal
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln report --live                         the run in runs/ that was written to last
  kiln report --live runs/village runs/b     several, one over the other
  kiln report --live runs/sweep              all trials of a sweep
  kiln report --live --json                  where it stands now, as JSON

Keys:
  q quits; tab and ← → choose what is drawn large; ↑ ↓ choose a run; l: logarithmic; s: smoother")]
pub struct ReportArgs {
    /// Runs, or sweeps, under way or finished [default: the newest in runs/]
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Loss, learning rate, gradient, speed, memory and samples as they come
    #[arg(long)]
    live: bool,
}

/// How often files are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often signals are.
const BLINK: Duration = Duration::from_millis(100);

/// Runs `kiln report` and gives the exit code.
pub fn run(args: &ReportArgs, global: &Global) -> Result<u8> {
    if !args.live {
        let runs: String = args.runs.iter().map(|run| format!(" {}", super::term::quote(run))).collect();
        let hint = format!("watch it in the terminal: kiln report --live{runs}");
        return Err(Error::usage("kiln report shows runs with --live only", hint));
    }
    let newest = || live::newest(Path::new("runs")).map(|run| vec![run]);
    let runs = if args.runs.is_empty() { newest()? } else { args.runs.clone() };
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
