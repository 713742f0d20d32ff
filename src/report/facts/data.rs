//! What a model was trained on: where it is from, how much of it, how it became tokens, and what cleaning took out.

use super::words::count;
use super::{Row, model, row};
use crate::data::DatasetInfo;
use crate::data::dataset::Part;
use crate::disk::{self, Os};
use crate::train::{AnyRecipe, seen};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A report of cleaning holds samples of what each rule did.
const MAX_FILE: u64 = 64 << 20;

/// A data sheet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DataSheet {
    /// Where it is from, and how it was read.
    pub rows: Vec<Row>,
    /// The parts of the split, where they are known.
    pub parts: Vec<Share>,
    /// Sources of a mixture.
    pub mix: Vec<Share>,
    /// What cleaning took out, of each source that `kiln data clean` made.
    pub cleaned: Vec<Cleaned>,
    /// Token ids, where they are known.
    pub vocab: Option<usize>,
}

/// A part of the data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Tokens; `None` where they were not counted.
    pub tokens: Option<u64>,
    /// Bytes of text.
    pub bytes: u64,
}

/// What cleaning took out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cleaned {
    /// Its report.
    pub file: String,
    /// As the report has it.
    #[serde(flatten)]
    pub report: Cleaning,
}

/// The part of a report of cleaning that is read here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cleaning {
    /// What was read.
    pub read: Amount,
    /// What was written.
    pub written: Amount,
    /// What the rules did.
    pub rules: Vec<Rule>,
    /// What its owner says of the data.
    #[serde(default)]
    pub datasheet: Said,
}

/// Documents and their text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub documents: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What one rule did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it does.
    pub what: String,
    /// Documents that it removed.
    pub removed: u64,
    /// Documents that it changed.
    pub edited: u64,
    /// Documents that it marked.
    pub flagged: u64,
    /// Bytes of text that are gone by it.
    pub bytes: u64,
}

/// What its owner says of the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// A title.
    #[serde(default)]
    pub title: String,
    /// The licence of the sources.
    #[serde(default)]
    pub licence: String,
}

/// What the run in the folder `run` was trained on; what is damaged goes to `absent`.
pub(super) fn sheet(run: &Path, recipe: &AnyRecipe, absent: &mut Vec<String>) -> DataSheet {
    let mut sheet = DataSheet { rows: vec![row("data", model::reads(recipe))], ..DataSheet::default() };
    let paths: Vec<PathBuf> = match recipe {
        AnyRecipe::Text(recipe) => recipe.data.path.clone().unwrap_or_default(),
        AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) => {
            let data = &recipe.data;
            sheet.rows.push(row("template of conversations", &data.template));
            sheet.rows.push(row(
                "each example is seen, in the mean",
                if data.epochs == 1.0 { "once".to_owned() } else { format!("{} times", data.epochs) },
            ));
            if data.replay.is_some() {
                sheet.rows.push(row("share of general text", data.replay_share));
            }
            sheet.rows.push(row("share that is held out", data.val_fraction));
            data.path.iter().chain(&data.replay).flatten().cloned().collect()
        }
        other => {
            let data = other.pictures().expect("all other recipes are of pictures");
            sheet.rows.push(row("share that is held out, where the source itself holds none out", data.val_fraction));
            sheet.rows.push(row("mirrored, moved by so many pixels", format!("{}, {}", data.flip, data.shift)));
            data.path.clone().unwrap_or_default()
        }
    };
    sheet.rows.extend(paths.iter().map(|path| row("from", path.display())));
    if let AnyRecipe::Text(recipe) = recipe {
        match seen::data(run, recipe).map(|dir| DatasetInfo::load(&dir)) {
            Some(Ok(info)) => sheet.tokens(&info),
            Some(Err(e)) => absent.push(e.to_string()),
            None => absent.push("dataset.json: the run's tokens are not where its recipe says".to_owned()),
        }
    }
    for path in &paths {
        let places = [path.clone(), path.parent().map(Path::to_owned).unwrap_or_default()];
        let Some(file) = places.iter().map(|place| place.join("report.json")).find(|file| file.is_file()) else {
            continue;
        };
        let name = file.display().to_string();
        if sheet.cleaned.iter().any(|cleaned| cleaned.file == name) {
            continue;
        }
        // Any other program may write a file of that name.
        let read = disk::text(&Os, &file, MAX_FILE).ok().and_then(|text| serde_json::from_str(&text).ok());
        sheet.cleaned.extend(read.map(|report| Cleaned { file: name, report }));
    }
    sheet
}

impl DataSheet {
    fn tokens(&mut self, info: &DatasetInfo) {
        let tokenizer = &info.tokenizer;
        self.vocab = Some(tokenizer.vocab);
        let kind = format!("{:?}", tokenizer.kind).to_lowercase();
        self.rows.push(row("tokenizer", format!("{kind}, {} ids", count(tokenizer.vocab as u64))));
        self.rows.push(row("SHA-256 of the tokenizer", &tokenizer.sha256));
        self.rows.push(row("SHA-256 of the data set", info.hash()));
        let rule = format!("{:?}", info.split.rule).to_lowercase();
        self.rows.push(row(
            "what is held out",
            format!("{:.1} % of the text, by the rule {rule}, seed {}", 100.0 * info.split.fraction, info.split.seed),
        ));
        for (part, info) in [(Part::Train, &info.train), (Part::Val, &info.val)] {
            let name = if part == Part::Train { "trained on" } else { "held out" };
            let (documents, bytes) = (info.documents, info.bytes);
            self.parts.push(Share { name: name.to_owned(), documents, tokens: Some(info.tokens), bytes });
        }
        let used = info.mix.iter();
        self.mix.extend(used.map(|used| Share {
            name: used.name.clone(),
            documents: used.documents,
            tokens: None,
            bytes: used.bytes,
        }));
    }
}
