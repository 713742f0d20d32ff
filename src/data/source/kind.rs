//! What a file is, by its name: how it is packed, and what is in it.

use std::path::Path;

use crate::error::{AtPath, Error, Result};

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// What the unpacked bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `.txt`, `.md`: one document, or several with a marker between them.
    Text,
    /// `.html`, `.htm`: one document, its text without markup.
    Html,
    /// `.jsonl`: one object a line.
    Jsonl,
    /// `.parquet`: one row a document.
    Parquet,
}

/// The endings that are read, for messages.
pub(super) const KINDS: &str = ".txt, .md, .html or .jsonl (these also as .gz or .zst), or .parquet";

/// The kind that a file's name tells; `None` for any other.
pub(super) fn of(path: &Path) -> Option<(Format, Packing)> {
    let ending = |path: &Path| path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let packing = match ending(path).as_str() {
        "gz" => Packing::Gzip,
        "zst" => Packing::Zstd,
        _ => Packing::None,
    };
    let inner = if packing == Packing::None { ending(path) } else { ending(Path::new(path.file_stem()?)) };
    let format = match inner.as_str() {
        "txt" | "md" => Format::Text,
        "html" | "htm" => Format::Html,
        "jsonl" => Format::Jsonl,
        "parquet" if packing == Packing::None => Format::Parquet,
        _ => return None,
    };
    Some((format, packing))
}

/// Whether kiln reads the file that a caller named; the error says what to do instead.
pub(super) fn readable(path: &Path) -> Result<()> {
    let regular = path.metadata().at(path)?.is_file();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let (found, hint) = match (of(path), extension.as_str()) {
        (Some((Format::Parquet, _)), _) if !cfg!(feature = "parquet") => (
            ".parquet, which this build of kiln does not read",
            "build kiln with: cargo build --release --features parquet; or export the text column as .jsonl",
        ),
        (Some(_), _) if regular => return Ok(()),
        (Some(_), _) => ("something that is not a regular file", "give a regular file"),
        (None, "") => ("no extension", "rename the file to end in .txt if it is plain text"),
        (None, "gz" | "zst") => {
            (&*format!("something else, packed as .{extension}"), "name it as what is in it, for example notes.txt.gz")
        }
        (None, _) => {
            (&*format!(".{extension}"), "convert it to one of these, or rename it to .txt if it is plain text")
        }
    };
    Err(Error::format(path, "kind of file", KINDS, found, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_format_and_packing() {
        let kind = |name: &str| of(Path::new(name));
        assert_eq!(kind("a/b.TXT"), Some((Format::Text, Packing::None)));
        assert_eq!(kind("b.md.gz"), Some((Format::Text, Packing::Gzip)));
        assert_eq!(kind("b.jsonl.Zst"), Some((Format::Jsonl, Packing::Zstd)));
        assert_eq!(kind("b.htm"), Some((Format::Html, Packing::None)));
        assert_eq!(kind("b.parquet"), Some((Format::Parquet, Packing::None)));
        for other in ["b", "b.gz", "b.tar.gz", "b.parquet.gz", ".txt", "b.txt.gz.zst", "b.json"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
