//! Documents from a user's files, one at a time.
//!
//! `.txt` and `.md`: one file is one document, unless it contains `<|endoftext|>`, which then separates documents (and
//! with the line break after it is no part of them). `.jsonl`: one object a line, its text in the field `text` or
//! another that the caller names. Folders: all files of these kinds below them, sorted by path.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::tokenizer::END_OF_TEXT;
use crate::error::{AtPath, Error, Result};

/// A text that belongs together: an article, a story, a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Where it comes from: a file, or a name such as `world`.
    pub source: PathBuf,
    /// The line of `source` on which it starts, from 1; for texts that are no file, their number.
    pub line: u64,
    /// What it is called where it comes from: the field `id` of a line of JSON; else empty, and `source` and `line` say it.
    pub id: String,
    /// The other fields of its line of JSON.
    pub metadata: Map<String, Value>,
}

/// The error for sources without a single document.
pub(crate) fn no_text() -> Error {
    Error::failed("the sources hold no text", "give .txt, .md or .jsonl files, or a folder that contains some")
}

/// Files of text, ready to be read as often as needed.
#[derive(Clone, Debug)]
pub struct Sources {
    files: Vec<PathBuf>,
    skipped: Vec<PathBuf>,
    bytes: u64,
    field: String,
}

impl Sources {
    /// Finds the files of `paths` (files and folders), in the order given and sorted within folders. `field` names
    /// the text in `.jsonl` files. Fails on a file of another kind, a symbolic link that leaves its folder, and where
    /// there is no file at all.
    pub fn open<P: AsRef<Path>>(paths: &[P], field: &str) -> Result<Sources> {
        let mut sources = Sources { files: Vec::new(), skipped: Vec::new(), bytes: 0, field: field.to_owned() };
        for path in paths.iter().map(AsRef::as_ref) {
            if path.metadata().at(path)?.is_dir() {
                let root = path.canonicalize().at(path)?;
                sources.walk(path, &root)?;
            } else {
                readable(path)?;
                sources.add(path.to_owned())?;
            }
        }
        if sources.files.is_empty() {
            return Err(no_text());
        }
        Ok(sources)
    }

    fn walk(&mut self, folder: &Path, root: &Path) -> Result<()> {
        let entries = std::fs::read_dir(folder).at(folder)?;
        let mut paths = entries.map(|entry| Ok(entry.at(folder)?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            let meta = path.symlink_metadata().at(&path)?;
            if meta.is_symlink() {
                let target = path.canonicalize().at(&path)?;
                if !target.starts_with(root) {
                    return Err(Error::format(
                        &path,
                        "symbolic link",
                        format!("a target inside {}", root.display()),
                        target.display(),
                        "remove the link, or give its target as a source of its own",
                    ));
                }
                // Its target is met on the walk under its own name.
            } else if meta.is_dir() {
                self.walk(&path, root)?;
            } else if meta.is_file() && readable(&path).is_ok() {
                self.add(path)?;
            } else {
                self.skipped.push(path);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        self.bytes += path.metadata().at(&path)?.len();
        self.files.push(path);
        Ok(())
    }

    /// The files, in reading order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Files in folders that are passed over because kiln does not read their kind.
    pub fn skipped(&self) -> &[PathBuf] {
        &self.skipped
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the documents, one in memory at a time. Documents without text are left out. After an error comes nothing.
    pub fn documents(&self) -> impl Iterator<Item = Result<Document>> + Send + use<> {
        let field = self.field.clone();
        let mut failed = false;
        let files = self.files.clone().into_iter();
        let all = files.flat_map(move |path| match Reader::open(path, &field) {
            Ok(reader) => Documents::Reading(reader),
            Err(error) => Documents::Failed(Some(error)),
        });
        all.take_while(move |document| !std::mem::replace(&mut failed, document.is_err()))
            .filter(|document| !matches!(document, Ok(document) if document.text.is_empty()))
    }
}

/// Whether kiln reads files of this name; the error says what to do instead.
fn readable(path: &Path) -> Result<()> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let (found, hint) = match extension.as_str() {
        "txt" | "md" | "jsonl" if path.metadata().at(path)?.is_file() => return Ok(()),
        "txt" | "md" | "jsonl" => ("something that is not a regular file".to_owned(), "give a regular file"),
        "gz" | "zst" => (format!(".{extension}"), "kiln does not read compressed text yet: unpack it first"),
        "parquet" => (format!(".{extension}"), "kiln does not read Parquet yet: export the text column as .jsonl"),
        "" => ("no extension".to_owned(), "rename the file to end in .txt if it is plain text"),
        _ => (format!(".{extension}"), "convert it to one of these, or rename it to .txt if it is plain text"),
    };
    Err(Error::format(path, "kind of file", ".txt, .md or .jsonl", found, hint))
}

/// The documents of one file.
enum Documents {
    Reading(Reader),
    Failed(Option<Error>),
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        match self {
            Documents::Reading(reader) => reader.next_document().transpose(),
            Documents::Failed(error) => error.take().map(Err),
        }
    }
}

struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    /// The field of the text in JSON lines; `None` for plain text.
    field: Option<String>,
    /// Where the next document starts: byte offset and line number from 1.
    offset: u64,
    line: u64,
}

impl Reader {
    fn open(path: PathBuf, field: &str) -> Result<Reader> {
        let file = BufReader::with_capacity(1 << 18, File::open(&path).at(&path)?);
        let jsonl = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
        Ok(Reader { file, path, field: jsonl.then(|| field.to_owned()), offset: 0, line: 1 })
    }

    /// The next document, possibly empty; `None` at the end of the file.
    fn next_document(&mut self) -> Result<Option<Document>> {
        let mut bytes = Vec::new();
        match self.field {
            Some(_) => self.file.read_until(b'\n', &mut bytes).map(drop).at(&self.path)?,
            // The marker's last byte is rare enough in text that stopping at each costs nothing.
            None => {
                while self.file.read_until(b'>', &mut bytes).at(&self.path)? > 0
                    && !bytes.ends_with(END_OF_TEXT.as_bytes())
                {}
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let (offset, mut line) = (self.offset, self.line);
        self.offset += bytes.len() as u64;
        self.line += bytes.iter().filter(|&&b| b == b'\n').count() as u64;

        let mut text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let bad = e.as_bytes()[at];
            Error::format(
                &self.path,
                format!("byte {}", offset + at as u64),
                "UTF-8 text",
                format!("the byte 0x{bad:02x}"),
                "convert the file to UTF-8, for example with: iconv -f LATIN1 -t UTF-8",
            )
        })?;
        if offset == 0 && text.starts_with('\u{FEFF}') {
            text.drain(..'\u{FEFF}'.len_utf8()); // a byte-order mark tells the encoding; it is no text
        }
        let (mut id, mut metadata) = (String::new(), Map::new());
        match &self.field {
            Some(field) => {
                (text, metadata) = self.json_text(&text, field, line)?;
                if let Some(Value::String(name)) = metadata.remove("id") {
                    id = name;
                }
            }
            None => {
                if text.ends_with(END_OF_TEXT) {
                    text.truncate(text.len() - END_OF_TEXT.len());
                }
                if offset > 0 {
                    let after_marker = if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) };
                    text.drain(..after_marker);
                    line += u64::from(after_marker > 0);
                }
            }
        }
        Ok(Some(Document { text, source: self.path.clone(), line, id, metadata }))
    }

    /// The text of one line of JSON, empty for a blank line, and its other fields.
    fn json_text(&self, json: &str, field: &str, line: u64) -> Result<(String, Map<String, Value>)> {
        if json.trim().is_empty() {
            return Ok(Default::default());
        }
        let value: Value = serde_json::from_str(json.trim_end()).map_err(|e| {
            let found = e.to_string();
            let found = found.split(" at line ").next().unwrap_or("").to_owned();
            let at = format!("line {line}, column {}", e.column());
            Error::format(&self.path, at, "one JSON object", found, "each line of a .jsonl file is one JSON object")
        })?;
        let name_it = "name the field of the text with --text-field";
        let (found, hint) = match value {
            Value::Object(mut fields) => match fields.remove(field) {
                Some(Value::String(text)) => return Ok((text, fields)),
                Some(other) => (format!("{} in it", kind(&other)), name_it),
                None => {
                    let names: Vec<_> = fields.keys().take(8).map(String::as_str).collect();
                    (format!("the fields {names:?}"), name_it)
                }
            },
            other => (kind(&other).to_owned(), "each line of a .jsonl file is one JSON object"),
        };
        let expected = format!("an object with a string in the field {field:?}");
        Err(Error::format(&self.path, format!("line {line}"), expected, found, hint))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
