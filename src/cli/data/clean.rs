//! `kiln data clean`: documents to documents that can be trained on, with a ledger.

use crate::cli::Global;
use crate::cli::term::{Progress, print, quote, safe, thousands, warn};
use clap::Args;
use kiln::data::clean::rules::RULES;
use kiln::data::clean::{self, Options, Outcome, Recipe, Report, Score, clean};
use kiln::data::{Limits, Sources};
use kiln::error::{Error, Result};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Filter, deduplicate and mask text, with a ledger of what was done
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data clean crawl/ --out clean
  kiln data clean crawl/ --out clean --set gopher.min_words=20 --set 'rules.off=[\"fineweb\"]'
  kiln data clean --explain

A call that was stopped goes on where it was when it is repeated. OUT gets documents.jsonl.zst, ledger.jsonl, REPORT.html,
report.json and datasheet.md.")]
pub struct CleanArgs {
    /// Files of text, folders or patterns: .txt, .md, .html, .jsonl, packed by gzip or Zstandard
    #[arg(value_name = "IN", required_unless_present = "explain")]
    sources: Vec<PathBuf>,
    /// Field of the text in .jsonl files
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Folder to write into
    #[arg(long, value_name = "DIR", required_unless_present = "explain")]
    out: Option<PathBuf>,
    /// Settings that differ from the default ones, as TOML
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting, as gopher.min_words=20; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Memory to use, roughly
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = memory)]
    mem: usize,
    /// Longest document; longer ones are passed over and counted
    #[arg(long, value_name = "SIZE", default_value = "64MB", value_parser = memory)]
    max_document: usize,
    /// Key the ledger's hashes of personal data by this file, so that ledgers of several corpora can be compared
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Write personal data itself into the ledger, in clear text: who reads the ledger then reads e-mail addresses,
    /// telephone and card numbers, passwords
    #[arg(long)]
    clear_text: bool,
    /// Count how much of what was planted was found: by this file, or by truth.jsonl beside the first source
    #[arg(long, value_name = "TRUTH", num_args = 0..=1, require_equals = true)]
    score: Option<Option<PathBuf>>,
    /// Name every rule, with what it does and where it comes from
    #[arg(long)]
    explain: bool,
}

/// `1GB`, `512MB`, `2GiB`, or bytes.
pub fn memory(text: &str) -> Result<usize, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..].to_ascii_uppercase()[..] {
        "" | "B" => 1.0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "KIB" => 1024.0,
        "MIB" => 1048576.0,
        "GIB" => 1073741824.0,
        _ => return Err("write a size as 1GB or 512MB".to_owned()),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n * unit < 1e15 => Ok((n * unit) as usize),
        _ => Err("write a size as 1GB or 512MB".to_owned()),
    }
}

/// Runs `kiln data clean`.
pub fn run(args: &CleanArgs, global: &Global) -> Result<()> {
    let recipe = Recipe::load(args.recipe.as_deref(), &args.set)?;
    if args.explain {
        return explain(&recipe, global.json);
    }
    let start = Instant::now();
    let limits = Limits { document: args.max_document, memory: args.mem / 4, ..Limits::default() };
    let sources = Sources::lenient(&args.sources, &args.text_field, limits)?;
    let out = args.out.clone().expect("the parser requires it");
    let options = Options {
        recipe,
        out: out.clone(),
        text_field: args.text_field.clone(),
        memory: args.mem,
        threads: global.threads(),
        key_file: args.key_file.clone(),
        clear_text: args.clear_text,
        truth: args.score.clone().map(|given| given.map_or_else(|| beside(&args.sources[0]), Ok)).transpose()?,
    };
    if options.clear_text {
        warn("the ledger will hold personal data in clear text: keep it as safe as the sources");
    }
    let mut bar: Option<(&'static str, Progress)> = None;
    let outcome = clean(&sources, &options, &mut |at: clean::Progress| {
        if bar.as_ref().is_none_or(|(what, _)| *what != at.what) {
            let new = if at.bytes { Progress::bytes(at.what, at.total) } else { Progress::count(at.what, at.total) };
            bar = Some((at.what, new));
        }
        if let Some((_, bar)) = &bar {
            bar.set_of(at.done, at.total);
        }
    })?;
    drop(bar);
    let seconds = start.elapsed().as_secs_f64();
    let Outcome { report, score } = outcome;
    if global.json {
        let mut object = report.counts();
        object["out"] = json!(out.to_string_lossy());
        object["seconds"] = json!(seconds);
        object["score"] = json!(score);
        return print(&object.to_string());
    }
    let mut text = table(&report);
    if let Some(score) = &score {
        text += &scores(score);
    }
    let rate = report.read.bytes as f64 / 1e6 / seconds;
    text += &format!(
        "wrote {} in {seconds:.1} s, {rate:.1} MB/s\n\nnext: look at {}\n",
        out.display(),
        quote(&out.join("REPORT.html"))
    );
    let worst = report.rules.iter().max_by_key(|rule| rule.removed).filter(|rule| rule.removed > 0);
    text += &match worst {
        Some(rule) if report.written.documents == 0 => {
            let off: Vec<&str> = options.recipe.rules.off.iter().map(String::as_str).chain([rule.name]).collect();
            let name = rule.name;
            format!(
                "      nothing is left, most went by {name}: see --explain, or go without it by --set 'rules.off={off:?}'"
            )
        }
        _ => format!(
            "      kiln data shard {} --tokenizer tokenizer.json --out data",
            quote(&out.join("documents.jsonl.zst"))
        ),
    };
    print(&text)
}

/// The truth beside a source: in it where it is a folder.
fn beside(source: &std::path::Path) -> Result<PathBuf> {
    let path = if source.is_dir() { source.join("truth.jsonl") } else { source.with_file_name("truth.jsonl") };
    if path.is_file() {
        return Ok(path);
    }
    let hint = "give its name, as --score=truth.jsonl; kiln data world writes one";
    Err(Error::usage(format!("--score: there is no {}", path.display()), hint))
}

/// What each rule that found something did.
fn table(report: &Report) -> String {
    let (read, written) = (report.read, report.written);
    let mut text = format!("{:<34} {:>10} {:>9} {:>9} {:>13}\n", "rule", "removed", "changed", "marked", "bytes gone");
    for rule in report.rules.iter().filter(|rule| rule.removed + rule.edited + rule.flagged > 0) {
        text += &format!(
            "{:<34} {:>10} {:>9} {:>9} {:>13}\n",
            rule.name,
            thousands(rule.removed),
            thousands(rule.edited),
            thousands(rule.flagged),
            thousands(rule.bytes)
        );
        if !rule.kinds.is_empty() {
            let kinds: Vec<String> = rule.kinds.iter().map(|(kind, n)| format!("{kind} {}", thousands(*n))).collect();
            text += &format!("  {}\n", kinds.join(", "));
        }
    }
    for (reason, n) in &report.skipped {
        text += &format!("not read: {} × {}\n", thousands(*n), safe(reason));
    }
    text + &format!(
        "\nread      {:>12} documents {:>15} bytes\nwritten   {:>12} documents {:>15} bytes, {:.1} %\n",
        thousands(read.documents),
        thousands(read.bytes),
        thousands(written.documents),
        thousands(written.bytes),
        100.0 * written.bytes as f64 / read.bytes.max(1) as f64
    )
}

/// How much of what was planted was found.
fn scores(score: &Score) -> String {
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.4}"));
    let mut text = format!(
        "\n{:<28} {:>8} {:>8} {:>8} {:>9} {:>9}\n",
        "planted", "of", "found", "recall", "reported", "precision"
    );
    for rate in score.rates.iter().filter(|rate| rate.planted + rate.reported > 0) {
        text += &format!(
            "{:<28} {:>8} {:>8} {:>8} {:>9} {:>9}\n",
            rate.what,
            thousands(rate.planted),
            thousands(rate.found),
            share(rate.recall()),
            thousands(rate.reported),
            share(rate.precision())
        );
    }
    if !score.edited.is_empty() {
        text += "\nnear-duplicates: share of words changed, pairs, mean similarity J, share that met in a band, the same over ten\n\
            choices of hash functions, 1 - (1 - J^rows)^bands, share removed\n";
    }
    for row in &score.edited {
        text += &format!(
            "{:>6.1} % {:>8} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3}\n",
            100.0 * row.edit_rate,
            thousands(row.pairs),
            row.jaccard,
            row.met,
            row.met_by_ten,
            row.expected,
            row.removed
        );
    }
    if !score.hard_negatives.is_empty() {
        let all: Vec<String> =
            score.hard_negatives.iter().map(|(kind, [all, taken])| format!("{kind} {taken} of {all}")).collect();
        text += &format!("\ntaken for personal data though they are none: {}\n", all.join(", "));
    }
    if score.canaries[0] > 0 {
        let [all, left] = score.canaries;
        text += &format!(
            "canaries that occur once: {} of {} are in the output as they were\n",
            thousands(left),
            thousands(all)
        );
    }
    text + &format!("documents whose flaws an earlier rule hid: {}\n\n", thousands(score.passed_over))
}

fn explain(recipe: &Recipe, json: bool) -> Result<()> {
    let on = recipe.rules()?;
    if json {
        let rules: Vec<_> = RULES
            .iter()
            .map(|rule| json!({"name": rule.name, "what": rule.what, "source": rule.source, "on": on.has(rule.rule)}))
            .collect();
        return print(&json!({"rules": rules, "recipe": recipe}).to_string());
    }
    let mut text = String::new();
    for rule in RULES {
        let off = if on.has(rule.rule) { "" } else { " (off)" };
        let source = if rule.source.is_empty() { String::new() } else { format!("  {}\n", rule.source) };
        text += &format!("{}{off}\n  {}\n{source}", rule.name, rule.what);
    }
    text += &format!("\nThe settings, with their defaults:\n\n{}", clean::CLEAN);
    print(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory_are_read() {
        assert_eq!(memory("1GB"), Ok(1_000_000_000));
        assert_eq!(memory("1.5gib"), Ok(1_610_612_736));
        assert_eq!(memory("500000000"), Ok(500_000_000));
        for wrong in ["", "GB", "-1GB", "1 TBs", "1XB"] {
            assert!(memory(wrong).is_err(), "{wrong:?}");
        }
    }
}
