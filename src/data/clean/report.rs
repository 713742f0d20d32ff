//! What people read of a run: `report.json`, `REPORT.html`, `datasheet.md`. The pages are made from the object alone.

use super::Options;
use super::first::First;
use super::last::Stages;
use super::personal::excerpt;
use super::rules::RULES;
use super::tally::{Action, Size, Tally};
use super::work::LEDGER;
use crate::data::Sources;
use crate::data::atomic::write_atomic;
use crate::disk::Os;
use crate::error::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Characters of a sample's text.
const SHOWN: usize = 280;
/// Input files that the datasheet lists.
const FILES: usize = 50;

/// What `report.json` holds. It names no time and no machine: the same input and settings give the same bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was read.
    pub read: Size,
    /// What was written.
    pub written: Size,
    /// The files that were read, the first 50, and how many there are.
    pub files: Vec<String>,
    /// How many files there are.
    pub file_count: usize,
    /// What could not be read, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// What the rules did, in their order.
    pub rules: Vec<RuleReport>,
    /// Groups with what was read and what was written, the largest first.
    pub groups: Vec<Group>,
    /// What groups are: a field of metadata, or "source".
    pub grouped_by: String,
    /// Evaluation texts that were too short to be looked for.
    pub evaluation_too_short: u64,
    /// What tells this input from any other.
    pub content: String,
    /// Name, size and SHA-256 of the files that were written.
    pub outputs: Vec<Output>,
    /// What the user says of the data.
    pub datasheet: super::recipe::Datasheet,
    /// The settings, as TOML.
    pub recipe: String,
    /// The program that did it.
    pub version: String,
}

/// What one rule did.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Where it comes from; empty where it is kiln's own.
    pub source: &'static str,
    /// Whether it ran.
    pub on: bool,
    /// Documents that it removed.
    pub removed: u64,
    /// Documents that it changed.
    pub edited: u64,
    /// Documents that it marked.
    pub flagged: u64,
    /// Bytes of text that are gone by it.
    pub bytes: u64,
    /// How often each kind was found.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u64>,
    /// A few documents, personal data masked.
    pub samples: Vec<Shown>,
}

/// A sample as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The document.
    pub document: String,
    /// What was done.
    pub action: Action,
    /// Why.
    pub evidence: serde_json::Value,
    /// The start of its text.
    pub excerpt: String,
    /// The start of the text that it was compared with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub other: String,
}

/// A group of documents.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What was read of it.
    pub read: Size,
    /// What was written.
    pub written: Size,
    /// Its share of all bytes that were written.
    pub share: f64,
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub sha256: String,
}

impl Report {
    /// The report of a run.
    pub(super) fn new(
        tally: Tally,
        first: &First,
        hashes: Vec<(String, u64, String)>,
        sources: &Sources,
        options: &Options,
        stages: &Stages,
    ) -> Result<Report> {
        let recipe = &options.recipe;
        let rules = RULES.iter().zip(tally.rules).map(|(info, count)| RuleReport {
            name: info.name,
            what: info.what,
            source: info.source,
            on: stages.rules.has(info.rule),
            removed: count.removed,
            edited: count.edited,
            flagged: count.flagged,
            bytes: count.bytes,
            kinds: count.kinds,
            samples: count
                .samples
                .into_iter()
                .map(|sample| Shown {
                    excerpt: excerpt(&sample.excerpt, SHOWN),
                    other: excerpt(&sample.other, SHOWN),
                    document: sample.document,
                    action: sample.action,
                    evidence: without_text(sample.evidence),
                })
                .collect(),
        });
        let total = tally.written.bytes.max(1) as f64;
        let mut groups: Vec<Group> = tally
            .groups
            .into_iter()
            .map(|(name, [read, written])| Group { name, read, written, share: written.bytes as f64 / total })
            .collect();
        groups.sort_by(|a, b| b.written.bytes.cmp(&a.written.bytes).then_with(|| a.name.cmp(&b.name)));
        Ok(Report {
            read: tally.read,
            written: tally.written,
            files: sources.files().iter().take(FILES).map(|path| path.display().to_string()).collect(),
            file_count: sources.files().len(),
            skipped: first.skipped.clone(),
            rules: rules.collect(),
            groups,
            grouped_by: match recipe.datasheet.group.as_str() {
                "" => "source".to_owned(),
                field => field.to_owned(),
            },
            evaluation_too_short: stages.evaluation.too_short,
            content: first.content(),
            outputs: hashes.into_iter().map(|(file, bytes, sha256)| Output { file, bytes, sha256 }).collect(),
            datasheet: recipe.datasheet.clone(),
            recipe: recipe.to_toml(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Writes `report.json`, `REPORT.html` and `datasheet.md` into `out`.
    pub(super) fn save(&self, out: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).expect("plain data is printable") + "\n";
        write_atomic(&Os, &out.join("datasheet.md"), self.datasheet().as_bytes())?;
        write_atomic(&Os, &out.join("REPORT.html"), self.html().as_bytes())?;
        write_atomic(&Os, &out.join("report.json"), json.as_bytes())
    }

    /// The page.
    pub fn html(&self) -> String {
        self.render("report.html", include_str!("report.html"))
    }

    /// The datasheet, which a model card takes in.
    pub fn datasheet(&self) -> String {
        self.render("datasheet.md", include_str!("datasheet.md"))
    }

    fn render(&self, name: &str, template: &str) -> String {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        environment.add_filter("thousands", thousands);
        environment.add_filter("size", size);
        environment.add_filter("percent", |share: f64| format!("{:.1} %", 100.0 * share));
        environment.add_filter("evidence", |value: Value| evidence(&value));
        environment.add_filter("cell", |text: String| text.replace('|', "\\|").replace(['\n', '\r'], " "));
        environment.add_template(name, template).expect("the template is well formed; a test renders it");
        let kept = self.written.bytes as f64 / self.read.bytes.max(1) as f64;
        let most = self.rules.iter().map(|rule| rule.removed).max().unwrap_or(0).max(1);
        let page = context! { report => Value::from(Serde(self)), kept, most, ledger => LEDGER };
        environment.get_template(name).and_then(|t| t.render(page)).expect("the template fits; a test renders it")
    }
}

/// Evidence for the report: never the clear text that a ledger may hold.
fn without_text(mut evidence: serde_json::Value) -> serde_json::Value {
    if let Some(found) = evidence.get_mut("found").and_then(serde_json::Value::as_array_mut) {
        found.truncate(3);
        found.iter_mut().filter_map(serde_json::Value::as_object_mut).for_each(|found| drop(found.remove("text")));
    }
    evidence
}

/// 1234567 as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// An object as `key value, key value`.
fn evidence(value: &Value) -> String {
    let Ok(keys) = value.try_iter() else { return value.to_string() };
    let pair = |key: Value| {
        let found = value.get_item(&key).unwrap_or_default();
        let shown = match key.as_str() {
            Some("found") => {
                let each = found.try_iter().into_iter().flatten();
                let each = each.map(|f| {
                    let part = |name| f.get_attr(name).unwrap_or_default().to_string();
                    format!("{} at {}–{}", part("kind"), part("start"), part("end"))
                });
                each.collect::<Vec<_>>().join("; ")
            }
            _ => found.to_string(),
        };
        format!("{} {shown}", key.to_string().replace('_', " "))
    };
    keys.map(pair).collect::<Vec<_>>().join(", ")
}

/// The object of `report.json` with numbers only, for programs.
impl Report {
    /// Counts by rule that did something, without samples.
    pub fn counts(&self) -> serde_json::Value {
        let rules = self.rules.iter().filter(|rule| rule.removed + rule.edited + rule.flagged > 0);
        let rules: serde_json::Map<String, serde_json::Value> = rules
            .map(|rule| {
                let counts = json!({"removed": rule.removed, "edited": rule.edited, "flagged": rule.flagged, "bytes": rule.bytes});
                (rule.name.to_owned(), counts)
            })
            .collect();
        json!({"read": self.read, "written": self.written, "skipped": self.skipped, "rules": rules})
    }
}
