//! Pictures: those that a model draws, or another program's.

use super::EvalArgs;
use crate::cli::Global;
use crate::cli::term::{note, print, thousands, warn};
use kiln::disk::Os;
use kiln::error::Result;
use kiln::eval::{Asked, Saved, saved};
use kiln::train::checkpoint;
use kiln::train::pictures::exam::{self, Candidate, Outcome};
use kiln::train::pictures::judge::Verdict;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

/// Judges them.
pub(super) fn run(what: &Path, args: &EvalArgs, global: &Global) -> Result<()> {
    let candidate =
        Candidate { what, data: args.data.as_deref(), count: args.num as usize, seed: args.seed, judges: &args.judges };
    let (mut told, mut tenths) = (String::new(), 0);
    let mut progress = |what: &str, done: u64, total: u64| {
        if global.json {
            return;
        }
        let tenth = done * 10 / total.max(1);
        if what != told {
            note(what);
        } else if tenth > tenths {
            note(&format!("{what}: {}0 %", tenth));
        }
        (told, tenths) = (what.to_owned(), tenth);
    };
    let outcome = exam::examine(&candidate, &global.host()?, &mut progress)?;
    keep(what, args, &outcome)?;
    if global.json {
        return print(&object(what, &outcome).to_string());
    }
    print(&table(what, &outcome))
}

/// Keeps the figures with the run that drew.
fn keep(what: &Path, args: &EvalArgs, outcome: &Outcome) -> Result<()> {
    let own = what.join("recipe.toml").is_file().then(|| what.join(saved::FOLDER));
    let Some(dir) = args.save.clone().or(own) else { return Ok(()) };
    let step = checkpoint::list(&Os, &what.join("checkpoints"))?.last().map(|(step, _)| *step);
    let data = args.data.as_deref().map_or(String::new(), |data| data.display().to_string());
    match Saved::pictures(outcome, Asked { step, seed: args.seed, data, ..Asked::default() }).save(&dir) {
        Err(e) if args.save.is_none() => warn(&format!("the figures are not kept: {e}")),
        done => drop(done?),
    }
    Ok(())
}

fn object(what: &Path, outcome: &Outcome) -> Value {
    let part = |verdict: &Verdict| -> Value {
        let mut all: Map<String, Value> =
            verdict.parts().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        all.insert("counts".into(), json!(verdict.counts));
        Value::Object(all)
    };
    json!({"what": what.to_string_lossy(), "pictures": outcome.pictures, "held_out": outcome.held_out,
        "found": part(&outcome.verdict), "control": part(&outcome.control), "judge": outcome.judge})
}

/// What each number is called, and what it would be at best.
const ROWS: [(&str, &str, &str); 11] = [
    ("frechet", "Fréchet distance, own features", "0"),
    ("kernel_distance", "kernel distance, own features", "0"),
    ("precision", "precision: looks like data", "1"),
    ("recall", "recall: data looks like it", "1"),
    ("density", "density", "1"),
    ("coverage", "coverage", "1"),
    ("diversity", "diversity, as a share of the data's", "1"),
    ("classifier_score", "classifier score", "classes"),
    ("classes", "classes with 4 % or more", "all"),
    ("least_share", "share of the rarest class", ""),
    ("copies", "near-copies of training pictures", "0.01"),
];

fn table(what: &Path, outcome: &Outcome) -> String {
    let Outcome { verdict, control, pictures, held_out, judge } = outcome;
    let (n, held_out) = (thousands(*pictures as u64), thousands(*held_out as u64));
    let mut text = format!("{}: {n} pictures, beside {held_out} held-out ones\n\n", what.display());
    let _ = writeln!(text, "{:<38}{:>10}{:>18}{:>10}", "", "these", "training data", "at best");
    let (found, control) = (verdict.parts(), control.parts());
    let of = |parts: &[(&'static str, f64)], name: &str| parts.iter().find(|(own, _)| *own == name).map(|(_, v)| *v);
    for (name, says, best) in ROWS {
        let (Some(these), Some(data)) = (of(&found, name), of(&control, name)) else { continue };
        let digits = if name == "classes" { 0 } else { 3 };
        let _ = writeln!(text, "{says:<38}{these:>10.digits$}{data:>18.digits$}{best:>10}");
    }
    if !verdict.counts.is_empty() {
        let shares = verdict.counts.iter().map(|&count| 100.0 * count as f64 / *pictures as f64);
        let shares: Vec<String> = shares.enumerate().map(|(class, share)| format!("{class}: {share:.1}")).collect();
        let _ = writeln!(text, "\nclasses, in per cent: {}", shares.join("  "));
    }
    text + "\n" + judge
}
