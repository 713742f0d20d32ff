//! `kiln update run`, `watch` and `forget`: what trains.

use super::list::gates;
use crate::cli::Global;
use crate::cli::term::{Ink, ink, note, print, quote, safe, thousands, warn};
use crate::cli::train::Screen;
use clap::Args;
use kiln::continual::forget::{self, Exposure, Traces};
use kiln::continual::line::{Line, State, Version};
use kiln::continual::round::{self, Course};
use kiln::continual::watch::{self, End, Happening, Watching};
use kiln::error::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update run lines/village --data new.jsonl
  kiln update run lines/village --data new.jsonl --auto      goes into service at once where all gates are passed
  kiln update run lines/village                              goes on with one that was interrupted")]
pub(super) struct RunArgs {
    #[command(flatten)]
    of: Of,
    /// New documents: files, folders
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
}

/// Of which line versions are made, and how.
#[derive(Args, Debug)]
struct Of {
    /// The line's folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// Put versions into service that pass
    #[arg(long)]
    auto: bool,
    /// Override a key of its update.toml, for this time; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update watch lines/village --data inbox/              waits for documents; a round after an alarm
  kiln update watch lines/village --data inbox/ --once       ends where the documents end
  kiln update watch lines/village --data log/                what kiln serve --log wrote down: alarms alone
  kiln update watch lines/village --data thumbs.jsonl        thumbs, of kiln serve --feedback")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    of: Of,
    /// What to watch: a folder into which files come, files that grow
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// End where there is nothing more to read
    #[arg(long)]
    once: bool,
}

/// Does what takes long on this machine, and shows how far it is.
fn course<R>(global: &Global, work: impl FnOnce(&mut Course) -> Result<R>) -> Result<R> {
    let device = global.host()?;
    let mut screen = Screen::new(global.json, None);
    let done = work(&mut Course { device: &device, watch: &mut screen, told: &mut |what| note(what) });
    screen.finish();
    done
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update forget lines/village letter-17 --dry-run       says where it is, and who learnt it
  kiln update forget lines/village letter-17 letter-18")]
pub(super) struct ForgetArgs {
    /// The line's folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// Names of documents: their id, or FILE:LINE where they have none
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Only say where they are
    #[arg(long)]
    dry_run: bool,
}

/// What a version came to, and what to do next.
fn conclusion(line: &Path, version: &Version, promoted: bool) -> String {
    let (dir, name) = (quote(line), &version.name);
    let (says, next) = match version.state {
        State::Passed if promoted => (
            ink(&format!("{name} passed, and is in service"), Ink::Green),
            format!("kiln update rollback {dir}  (goes back)"),
        ),
        State::Passed => (ink(&format!("{name} passed"), Ink::Green), format!("kiln update promote {dir} {name}")),
        state => (ink(&format!("{name} is {}", state.says()), Ink::Red), format!("kiln update list {dir} {name}")),
    };
    format!("{}\n{says}\n\nnext: {next}", gates(&version.gates))
}

/// Runs `kiln update run` and gives the exit code.
pub(super) fn run(args: &RunArgs, global: &Global) -> Result<u8> {
    let Of { line: dir, auto, set } = &args.of;
    let line = Line::open(dir, set)?;
    let version = course(global, |course| round::round(&line, &args.data, BTreeMap::new(), course))?;
    let promoted = *auto && version.state == State::Passed;
    if promoted {
        line.promote(Some(&version.name), false)?;
    }
    print(&match global.json {
        true => json!({"version": version, "promoted": promoted}).to_string(),
        false => conclusion(dir, &version, promoted),
    })?;
    Ok(u8::from(version.state != State::Passed))
}

/// Runs `kiln update watch` and gives the exit code.
pub(super) fn watch(args: &WatchArgs, global: &Global) -> Result<u8> {
    let Of { line: dir, auto, set } = &args.of;
    let line = Line::open(dir, set)?;
    let watching = Watching { paths: &args.data, once: args.once, auto: *auto };
    let hear = &mut |happening: &Happening| happened(happening, global, dir);
    let end = course(global, |course| watch::watch(&line, &watching, course, hear))?;
    let (code, says) = match &end {
        End::Quiet { alarm: false, .. } => (0, "nothing has changed".to_owned()),
        End::Quiet { gathered, .. } => {
            let least = line.settings.watch.least;
            (1, format!("{gathered} documents were gathered since the alarm; {least} make a version"))
        }
        End::Waits(version) => (u8::from(version.state != State::Passed), String::new()),
    };
    if !says.is_empty() && !global.json {
        print(&format!("{says}\n\nnext: kiln update watch {} --data FOLDER  (waits for more)", quote(dir)))?;
    }
    Ok(code)
}

fn happened(happening: &Happening, global: &Global, dir: &Path) {
    let text = match (happening, global.json) {
        (Happening::Reference { version, documents, windows }, false) => {
            format!("{version}: comparing with {} documents, {windows:?} at a time", thousands(*documents as u64))
        }
        (Happening::Reference { version, documents, windows }, true) => {
            json!({"what": "reference", "version": version, "documents": documents, "windows": windows}).to_string()
        }
        (Happening::Read { documents, passed_over }, false) => {
            if *passed_over > 0 {
                warn(&format!("{} lines are no documents, and were passed over", thousands(*passed_over)));
            }
            format!("{} documents", thousands(*documents))
        }
        (Happening::Read { documents, passed_over }, true) => {
            json!({"what": "read", "documents": documents, "passed_over": passed_over}).to_string()
        }
        (Happening::Alarm { alarm, moved }, false) => {
            let test = &alarm.test;
            let head = format!(
                "ALARM after {} documents: {} of {} is {:.4}, usually {:.4}, alarm from {:.4}",
                thousands(alarm.at),
                safe(test.signal.name()),
                test.window,
                alarm.value,
                test.usual,
                test.threshold
            );
            let moved: Vec<String> = moved
                .iter()
                .map(|(token, [was, is])| format!("{:?} {:.2} to {:.2} %", safe(token), 100.0 * was, 100.0 * is))
                .collect();
            format!("{}\n  what moved: {}", ink(&head, Ink::Red), moved.join(", "))
        }
        (Happening::Alarm { alarm, moved }, true) => {
            json!({"what": "alarm", "alarm": alarm, "moved": moved}).to_string()
        }
        (Happening::Version { version, promoted }, false) => conclusion(dir, version, *promoted),
        (Happening::Version { version, promoted }, true) => {
            json!({"what": "version", "version": version, "promoted": promoted}).to_string()
        }
    };
    // Where nobody reads, it watches all the same.
    let _ = print(&text);
}

/// Runs `kiln update forget` and gives the exit code.
pub(super) fn forget(args: &ForgetArgs, global: &Global) -> Result<u8> {
    let line = Line::open(&args.line, &[])?;
    let traces = forget::find(&line, &args.ids)?;
    if args.dry_run {
        print(&match global.json {
            true => json!(traces).to_string(),
            false => format!("{}\nnothing was changed", found(&traces)),
        })?;
        return Ok(0);
    }
    let anew = course(global, |course| forget::forget(&line, &traces, course))?;
    if global.json {
        let (version, exposure) =
            anew.as_ref().map_or((None, &[][..]), |(version, exposure)| (Some(version), exposure));
        print(&json!({"traces": traces, "version": version, "exposure": exposure}).to_string())?;
    } else {
        let mut text = found(&traces);
        match &anew {
            None => text += "\nthe version in service has not learnt them",
            Some((version, exposed)) => {
                text += &format!("\n{}\n{}", exposure(exposed), conclusion(&args.line, version, false));
            }
        }
        print(&text)?;
    }
    Ok(u8::from(anew.is_some_and(|(version, _)| version.state != State::Passed)))
}

/// Where documents are.
fn found(traces: &Traces) -> String {
    let files: Vec<String> = traces.files.iter().map(|path| format!("  {}\n", quote(path))).collect();
    let affected = match &traces.affected[..] {
        [] => "no version has learnt them".to_owned(),
        all => format!("withdrawn, for they have learnt them: {}", all.join(", ")),
    };
    let clean = traces.clean.as_deref().map_or(String::new(), |name| format!("\nthe last one that has not: {name}"));
    format!("in\n{}{affected}{clean}", files.concat())
}

/// How well each model knows what is to be forgotten.
fn exposure(all: &[Exposure]) -> String {
    let heads = ["was in service", "trained anew", "never saw it"].map(|head| format!("{head:>24}")).concat();
    let mut text = format!("bits a byte, and how many of the held-out ones are known better\n{:<30}{heads}\n", "");
    for Exposure { id, before, after, never } in all {
        let of = |[bits, better]: &[f64; 2]| format!("{bits:.3}, {:.0} %", 100.0 * better);
        text += &format!("{:<30}{:>24}{:>24}{:>24}\n", safe(id), of(before), of(after), of(never));
    }
    text + "evidence, not proof: a model that never saw a document knows some as well by chance"
}
