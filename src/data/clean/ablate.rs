//! Does a rule help? The same documents with all rules and with each one off, beside the same held-out text, so that models
//! trained on them can be compared.
//!
//! Held out are documents that all rules let pass. They, and what was removed as their duplicate, are taken from the
//! training text before any variant is made: else a variant that keeps duplicates would have seen the held-out text.

use super::rules::{RULES, Rule};
use super::spool::draw;
use super::work::{DOCUMENTS, LEDGER};
use super::{Options, Progress, Report, clean};
use crate::data::atomic::write_atomic;
use crate::data::dataset::{Part, PartInfo, ShardInfo};
use crate::data::{DatasetInfo, Prepare, Rule as SplitRule, Sources, Split, Tokenizer, index, prepare};
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What is held out: so much of the clean text, but no more bytes than this.
const HELD_OUT: (u64, usize) = (10, 2 << 20);

/// Data sets to train on, all with one tokenizer and one held-out part.
pub struct Variants {
    /// All rules.
    pub all: PathBuf,
    /// Without one rule each: its name, the data set, bytes of text there.
    pub without: Vec<(&'static str, PathBuf, u64)>,
    /// Bytes of text with all rules.
    pub bytes: u64,
    /// Rules that did nothing, which are not tried.
    pub idle: Vec<&'static str>,
}

/// Makes the variants in `options.out`, for the `rules` of these names, or for all that do something. `vocab` is the size
/// of the tokenizer, which is learnt from the text with all rules.
pub fn variants(
    sources: &Sources,
    options: &Options,
    rules: &[String],
    vocab: usize,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Variants> {
    let wanted = |name: &str| rules.is_empty() || rules.iter().any(|rule| name == rule);
    if let Some(unknown) = rules.iter().find(|name| RULES.iter().all(|rule| rule.name != *name)) {
        let hint = "kiln data clean --explain names all rules";
        return Err(Error::usage(format!("--rules {unknown}: no rule is called so"), hint));
    }
    let dir = |name: &str| options.out.join(name);
    let with = |out: &Path, off: Option<&str>| {
        let mut options = Options { out: out.to_owned(), ..options.clone() };
        options.recipe.rules.off.extend(off.map(str::to_owned));
        options
    };
    let report = clean(sources, &with(&dir("clean"), None), progress)?.report;
    let held_out = hold_out(&dir("clean"), &dir("heldout.jsonl"))?;
    let (training, text) = (dir("training.jsonl"), &options.text_field);
    take_out(sources, &held_out, &training)?;
    let training = Sources::open(&[training], "text")?;

    let make = |name: &str, off: Option<&str>, progress: &mut (dyn FnMut(Progress) + Send)| -> Result<Report> {
        Ok(clean(&training, &Options { text_field: text.clone(), ..with(&dir(name), off) }, progress)?.report)
    };
    let all = make("all", None, progress)?;
    let documents = |name: &str| Sources::open(&[dir(name).join(DOCUMENTS)], "text");
    let tokenizer = Tokenizer::train_bpe(documents("all")?.documents(), vocab, &|_| {})?;
    let val = Sources::open(&[dir("heldout.jsonl")], "text")?;
    let val = dataset(&val, &tokenizer, &dir("heldout"))?;
    let set = |name: &str| -> Result<PathBuf> {
        let folder = dir(name).join("tokens");
        let info = dataset(&documents(name)?, &tokenizer, &folder)?;
        judge_by(info, &folder, &val, &dir("heldout"))?;
        Ok(folder)
    };
    let mut made = Variants { all: set("all")?, without: Vec::new(), bytes: all.written.bytes, idle: Vec::new() };
    let active = |name: &str| {
        let found = report.rules.iter().find(|rule| rule.name == name);
        found.is_some_and(|rule| rule.on && rule.removed + rule.edited > 0)
    };
    for rule in RULES.iter().filter(|rule| wanted(rule.name)) {
        if !active(rule.name) {
            made.idle.push(rule.name);
            continue;
        }
        let name = format!("without-{}", rule.name);
        let bytes = make(&name, Some(rule.name), progress)?.written.bytes;
        made.without.push((rule.name, set(&name)?, bytes));
    }
    Ok(made)
}

/// Writes some of the clean documents to `out`; gives the names of these and of their duplicates.
fn hold_out(cleaned: &Path, out: &Path) -> Result<HashSet<String>> {
    let documents = || Sources::open(&[cleaned.join(DOCUMENTS)], "text");
    let total: usize = documents()?.documents().map(|document| document.map_or(0, |d| d.text.len())).sum();
    let share = (total / HELD_OUT.0 as usize).min(HELD_OUT.1) as f64 / total.max(1) as f64;
    let mut names = HashSet::new();
    let mut file = BufWriter::new(File::create(out).at(out)?);
    for document in documents()?.documents() {
        let document = document?;
        if (draw(&document.id) as f64) < share * u64::MAX as f64 {
            writeln!(file, "{}", json!({"id": document.id, "text": document.text})).at(out)?;
            names.insert(document.id);
        }
    }
    file.flush().at(out)?;
    if names.is_empty() {
        let problem = "too few documents pass all rules to hold some out";
        return Err(Error::failed(problem, "give more text, or switch rules off with --set rules.off"));
    }
    let path = cleaned.join(LEDGER);
    let duplicates = [Rule::Exact, Rule::Near, Rule::Paragraphs].map(Rule::name);
    for line in BufReader::new(File::open(&path).at(&path)?).lines() {
        let line: Value = serde_json::from_str(&line.at(&path)?).unwrap_or_default();
        let of = line["evidence"]["of"].as_str();
        if duplicates.contains(&line["rule"].as_str().unwrap_or_default())
            && of.is_some_and(|of| names.contains(of))
            && let Some(document) = line["document"].as_str()
        {
            names.insert(document.to_owned());
        }
    }
    Ok(names)
}

/// Writes the documents of `sources` without those of these names to `out`, each under its name.
fn take_out(sources: &Sources, names: &HashSet<String>, out: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(out).at(out)?);
    for document in sources.documents() {
        let document = document?;
        let name = index::name(&document);
        if !names.contains(&name) {
            let mut line = document.metadata;
            line.insert("id".to_owned(), json!(name));
            line.insert("text".to_owned(), json!(document.text));
            writeln!(file, "{}", Value::Object(line)).at(out)?;
        }
    }
    file.flush().at(out)
}

/// The tokens of documents; nearly all of them in the training part.
fn dataset(documents: &Sources, tokenizer: &Tokenizer, out: &Path) -> Result<DatasetInfo> {
    let split = Split { rule: SplitRule::Document, fraction: 1e-6, seed: 1 };
    prepare(documents.documents(), tokenizer, &Prepare { split, ..Prepare::default() }, out, &mut |_| {})
}

/// Makes the training part of `val` the held-out part of the data set in `folder`.
fn judge_by(mut info: DatasetInfo, folder: &Path, val: &DatasetInfo, from: &Path) -> Result<()> {
    let old = std::mem::replace(&mut info.val, PartInfo { shards: Vec::new(), ..val.part(Part::Train).clone() });
    for shard in &val.part(Part::Train).shards {
        let name = format!("heldout_{}", shard.file);
        let bytes = disk::read(&Os, &from.join(&shard.file))?;
        write_atomic(&Os, &folder.join(&name), &bytes)?;
        info.val.shards.push(ShardInfo { file: name, ..shard.clone() });
    }
    info.save(folder)?;
    for shard in old.shards {
        let path = folder.join(shard.file);
        let _ = std::fs::remove_file(index::beside(&path));
        std::fs::remove_file(&path).at(&path)?;
    }
    Ok(())
}
