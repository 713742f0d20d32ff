//! Tables as lines of a task: `.csv` and `.tsv`, whose first row names the fields. All values are texts.

use crate::disk::{self, Os};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Longer files are not read.
const MAX_FILE: u64 = 1 << 30;

/// What parts the fields of a file of this name; none where it is no table.
pub(super) fn delimiter(path: &Path) -> Option<u8> {
    let is = |name: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(name));
    if is("csv") { Some(b',') } else { is("tsv").then_some(b'\t') }
}

/// The first `limit` rows, as objects. Fields between commas may stand in quotation marks (RFC 4180); between tabs these are text.
///
/// # Errors
/// The file cannot be read; a row has more or fewer fields than the first one.
pub(super) fn rows(path: &Path, delimiter: u8, limit: usize) -> Result<Vec<Value>> {
    let text = disk::text(&Os, path, MAX_FILE)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).quoting(delimiter == b',').from_reader(text.as_bytes());
    let wrong = |e: &csv::Error| {
        let line = e.position().map_or("a row".to_owned(), |at| format!("line {}", at.line()));
        let hint = "the first row names the fields, and each row has one of each; a field with a comma is quoted";
        let (expected, found) = match e.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                (format!("{expected_len} fields"), format!("{len}"))
            }
            _ => ("a row of a table".to_owned(), e.to_string()),
        };
        Error::format(path, line, expected, found, hint)
    };
    let names = reader.headers().map_err(|e| wrong(&e))?.clone();
    let mut all = Vec::new();
    for row in reader.records().take(limit) {
        let row = row.map_err(|e| wrong(&e))?;
        let fields = names.iter().zip(&row).map(|(name, value)| (name.to_owned(), value.into()));
        all.push(Value::Object(fields.collect::<Map<_, _>>()));
    }
    Ok(all)
}
