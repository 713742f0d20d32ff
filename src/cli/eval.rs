//! `kiln eval`: how good a model is, or what it made.

use super::Global;
use super::term::{note, print, thousands};
use clap::Args;
use kiln::error::Result;
use kiln::train::pictures::exam::{self, Candidate, Outcome};
use kiln::train::pictures::judge::Verdict;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Judge pictures: those that a model draws, or another program's
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln eval runs/dcgan
  kiln eval runs/vae-conv --num 2000
  kiln eval generated/ --data mnist

Distances are between features of a classifier that is trained on the data (its labels given), or
between averages of brightness; they compare models on one data set, and are no FID. Training
pictures take the same exam as a control.")]
pub struct EvalArgs {
    /// A run or checkpoint of a VAE or GAN; or pictures: a folder of .png and .jpg, IDX files
    #[arg(value_name = "RUN|PICTURES")]
    what: PathBuf,
    /// What they should look like [default: the run's data, or the built-in world]
    #[arg(long, value_name = "PICTURES")]
    data: Option<PathBuf>,
    /// How many a model draws
    #[arg(long, value_name = "N", default_value_t = exam::PICTURES as u32, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    num: u32,
    /// The same seed draws the same pictures
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the classifiers that judge are kept
    #[arg(long, value_name = "DIR", default_value = "runs/judges")]
    judges: PathBuf,
}

/// Runs `kiln eval`.
pub fn run(args: &EvalArgs, global: &Global) -> Result<()> {
    let candidate = Candidate {
        what: &args.what,
        data: args.data.as_deref(),
        count: args.num as usize,
        seed: args.seed,
        judges: &args.judges,
    };
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
    if global.json {
        return print(&object(args, &outcome).to_string());
    }
    print(&table(args, &outcome))
}

fn object(args: &EvalArgs, outcome: &Outcome) -> Value {
    let part = |verdict: &Verdict| -> Value {
        let mut all: Map<String, Value> =
            verdict.parts().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        all.insert("counts".into(), json!(verdict.counts));
        Value::Object(all)
    };
    json!({"what": args.what.to_string_lossy(), "pictures": outcome.pictures, "held_out": outcome.held_out,
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

fn table(args: &EvalArgs, outcome: &Outcome) -> String {
    let Outcome { verdict, control, pictures, held_out, judge } = outcome;
    let (n, held_out) = (thousands(*pictures as u64), thousands(*held_out as u64));
    let mut text = format!("{}: {n} pictures, beside {held_out} held-out ones\n\n", args.what.display());
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
