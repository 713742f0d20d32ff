//! Rows of a Parquet file: a column of text, and the other plain columns as metadata.
//!
//! One page of each column is in memory at a time, unpacked. The columns' sizes as the file states them are checked
//! against the limits before anything is unpacked.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::Document;
use super::reader::How;
use super::skip::{Reason, Trouble};
use super::walk::Entry;
use crate::error::Error;

/// Reads a file as [`super::reader::read`] does.
pub(super) fn read(file: File, entry: &Entry, how: &How, give: &mut dyn FnMut(Result<Document, Trouble>, u64) -> bool) {
    let path = &entry.path;
    let mut rows = match open(file, entry, how) {
        Ok(rows) => rows,
        Err(trouble) => {
            give(Err(trouble), 0);
            return;
        }
    };
    let total = rows.total.max(1);
    for number in 1.. {
        let Some(row) = rows.iter.next() else { return };
        let found = row.map_err(|e| damaged(path, &format!("row {number}"), e));
        let found = found.and_then(|row| document(row, path, number, how));
        if matches!(&found, Ok(document) if document.text.is_empty()) {
            continue;
        }
        let ends = matches!(&found, Err(trouble) if trouble.ends);
        let done = (entry.bytes as u128 * u128::from(number) / u128::from(total)) as u64;
        if !give(found, done.min(entry.bytes)) || ends {
            return;
        }
    }
}

struct Rows {
    iter: RowIter<'static>,
    total: u64,
}

fn damaged(path: &Path, at: &str, e: ParquetError) -> Trouble {
    let hint = "the file is damaged, or was not copied whole: get it again";
    Trouble::end(Reason::Damaged, Error::format(path, at, "a whole Parquet file", e, hint))
}

fn open(file: File, entry: &Entry, how: &How) -> Result<Rows, Trouble> {
    let path = &entry.path;
    let reader = SerializedFileReader::new(file).map_err(|e| damaged(path, "footer", e))?;
    let metadata = reader.metadata();
    let stated = |sizes: &dyn Fn(&parquet::file::metadata::ColumnChunkMetaData) -> i64| -> u64 {
        let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
        columns.map(|column| sizes(column).max(0) as u64).fold(0, u64::saturating_add)
    };
    let unpacked = stated(&|column| column.uncompressed_size());
    let limits = &how.limits;
    if unpacked > limits.unpacked || unpacked > entry.bytes.saturating_mul(limits.ratio).max(16 << 20) {
        let found = format!("{} bytes that unpack to {unpacked}", entry.bytes);
        let expected = format!("at most {} to one", limits.ratio);
        let error = Error::format(path, "footer", expected, found, "unpack it yourself if you trust it");
        return Err(Trouble::end(Reason::Bomb, error));
    }
    let schema = metadata.file_metadata().schema();
    let names: Vec<&str> = schema.get_fields().iter().take(8).map(|field| field.name()).collect();
    if !schema.get_fields().iter().any(|field| field.name() == how.field && field.is_primitive()) {
        let expected = format!("a column of text with the name {:?}", how.field);
        let found = format!("the columns {names:?}");
        let error = Error::format(path, "schema", expected, found, "name the column of the text with --text-field");
        return Err(Trouble::end(Reason::NoText, error));
    }
    let total = metadata.file_metadata().num_rows().max(0) as u64;
    let plain = schema.get_fields().iter().filter(|field| field.is_primitive()).cloned().collect::<Vec<Arc<Type>>>();
    let projection = Type::group_type_builder(schema.name()).with_fields(plain).build();
    let projection = projection.map_err(|e| damaged(path, "schema", e))?;
    let iter = RowIter::from_file_into(Box::new(reader)).project(Some(projection));
    let iter = iter.map_err(|e| damaged(path, "schema", e))?.with_batch_size(64);
    Ok(Rows { iter, total })
}

fn document(row: Row, path: &Path, number: u64, how: &How) -> Result<Document, Trouble> {
    let mut document = Document { source: path.to_owned(), line: number, ..Document::default() };
    let at = || format!("row {number}");
    let mut metadata = Map::new();
    for (name, value) in row.into_columns() {
        if name == how.field {
            document.text = match value {
                Field::Str(text) => text,
                Field::Null => String::new(),
                Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map_err(|_| {
                    let hint = "store the column as text";
                    Trouble::one(Reason::NotUtf8, Error::format(path, at(), "UTF-8 text", "other bytes", hint))
                })?,
                other => {
                    let error =
                        Error::format(path, at(), "text", other, "name the column of the text with --text-field");
                    return Err(Trouble::end(Reason::NoText, error));
                }
            };
            continue;
        }
        let value = match value {
            Field::Null => Value::Null,
            Field::Str(text) => Value::from(text),
            Field::Bool(value) => Value::from(value),
            Field::Int(value) => Value::from(value),
            Field::Long(value) => Value::from(value),
            Field::Float(value) => Value::from(value),
            Field::Double(value) => Value::from(value),
            other => Value::from(other.to_string()),
        };
        metadata.insert(name, value);
    }
    if document.text.len() > how.limits.document {
        let expected = format!("at most {} bytes", how.limits.document);
        let found = format!("a text of {}", document.text.len());
        let error = Error::format(path, at(), expected, found, "raise the limit on a document");
        return Err(Trouble::one(Reason::TooLong, error));
    }
    match metadata.shift_remove("id") {
        Some(Value::String(id)) => document.id = id,
        Some(other) => drop(metadata.insert("id".to_owned(), other)),
        None => {}
    }
    document.metadata = metadata;
    Ok(document)
}
