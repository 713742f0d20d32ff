//! `kiln update list`.

use crate::cli::Global;
use crate::cli::term::{Ink, ink, print, quote, safe, thousands};
use clap::Args;
use kiln::continual::gates::Gate;
use kiln::continual::line::{Line, State, Version};
use kiln::error::Result;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln update list lines/village
  kiln update list lines/village 0002              its documents, their hashes, its gates")]
pub(super) struct ListArgs {
    /// The line's folder
    #[arg(value_name = "LINE")]
    line: PathBuf,
    /// One of its versions: what it was made of, and its gates
    #[arg(value_name = "VERSION")]
    version: Option<String>,
}

pub(super) fn run(args: &ListArgs, global: &Global) -> Result<()> {
    let line = Line::open(&args.line, &[])?;
    let pointer = line.pointer()?;
    if let Some(name) = &args.version {
        let version = line.version(name)?;
        return print(&match global.json {
            true => json!(version).to_string(),
            false => whole(&version, &line),
        });
    }
    let versions = line.versions()?;
    if global.json {
        return print(
            &json!({"in_service": pointer.current, "before": pointer.before, "versions": versions}).to_string(),
        );
    }
    let mut text =
        format!("{:<3}{:<9}{:<9}{:<22}{:>9}{:>9}  {}\n", "", "version", "from", "made", "learnt", "held", "");
    for version in &versions {
        let mark = match () {
            () if version.name == pointer.current => "->",
            () if pointer.before.contains(&version.name) => " .",
            () => "",
        };
        let says = match version.state {
            State::Passed if version.name == pointer.current => ink("in service", Ink::Green),
            State::Refused | State::Withdrawn => ink(version.state.says(), Ink::Red),
            _ => version.state.says().to_owned(),
        };
        let failed: Vec<&str> = version.gates.iter().filter(|gate| !gate.passed).map(|gate| &*gate.name).collect();
        let failed = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
        let n = |name: &str| version.documents.get(name).map_or(String::new(), |n| thousands(*n));
        let _ = writeln!(
            text,
            "{mark:<3}{:<9}{:<9}{:<22}{:>9}{:>9}  {says}{failed}",
            version.name,
            version.parent.as_deref().unwrap_or(""),
            when(version.time),
            n("learnt"),
            n("held"),
        );
    }
    let dir = quote(&args.line);
    let waits = versions.iter().rfind(|version| version.state == State::Passed && version.name > pointer.current);
    let next = match waits {
        Some(version) => format!("kiln update promote {dir} {}", version.name),
        None => format!("kiln update list {dir} {}  (what it was made of)", pointer.current),
    };
    print(&format!("{text}\nnext: {next}"))
}

fn when(time: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time))
        .to_string()
        .replace('T', " ")
        .replace('Z', "")
}

/// All that is known of a version.
fn whole(version: &Version, line: &Line) -> String {
    let mut text = format!("{}: {}, {}\n", ink(&version.name, Ink::Bold), version.state.says(), when(version.time));
    if let Some(parent) = &version.parent {
        let _ = writeln!(text, "from      {parent}");
    }
    let _ = writeln!(text, "model     {}", quote(&line.model(&version.name)));
    for (path, hash) in &version.sources {
        let _ = writeln!(text, "source    {} {}", short(hash), quote(path));
    }
    let counts: Vec<String> =
        version.documents.iter().map(|(name, n)| format!("{} {}", thousands(*n), safe(name))).collect();
    let _ = writeln!(text, "documents {}", counts.join(", "));
    for (name, hash) in &version.hashes {
        let _ = writeln!(text, "file      {} {}", short(hash), safe(name));
    }
    text + "\n" + &gates(&version.gates)
}

/// The first digits of a hash.
fn short(hash: &str) -> String {
    safe(&hash.chars().take(16).collect::<String>()).into_owned()
}

/// A line for each gate.
pub(super) fn gates(gates: &[Gate]) -> String {
    let mut text =
        format!("{:<6}  {:<30}{:>10}  {:<20}{:>20}  {}\n", "gate", "", "", "95 %", "before, after", "passes");
    for Gate { name, passed, value, interval, bound, parts } in gates {
        let word = if *passed { ink("ok    ", Ink::Green) } else { ink("FAILED", Ink::Red) };
        let value = value.map_or("none".to_owned(), |value| format!("{value:+.4}"));
        let between = interval.map_or(String::new(), |[low, high]| format!("{low:+.4} to {high:+.4}"));
        let parts = parts.map_or(String::new(), |[before, after]| format!("{before:.4}, {after:.4}"));
        let _ = writeln!(text, "{word}  {:<30}{value:>10}  {between:<20}{parts:>20}  {bound}", safe(name));
    }
    text
}
