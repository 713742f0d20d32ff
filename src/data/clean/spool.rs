//! Documents on disk between the passes of a run, in parts that are read one after the other or at one document.

use super::words::mix;
use crate::error::{AtPath, Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A document as it lies in a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// What ledgers call it.
    pub name: Cow<'a, str>,
    /// Where it comes from.
    pub source: Cow<'a, str>,
    /// Its other fields, as the text of a JSON object.
    pub metadata: Cow<'a, str>,
    /// Its text.
    pub text: Cow<'a, str>,
}

/// The lengths of the four fields.
const HEADER: usize = 16;

impl<'a> Stored<'a> {
    /// Appends it to a part.
    pub fn write(&self, part: &mut Vec<u8>) {
        let fields = [&self.name, &self.source, &self.metadata, &self.text];
        fields.iter().for_each(|field| part.extend((field.len() as u32).to_le_bytes()));
        fields.iter().for_each(|field| part.extend(field.as_bytes()));
    }

    /// The document at the start of `bytes`, and its length there.
    fn read(bytes: &'a [u8]) -> Option<(Stored<'a>, usize)> {
        let mut at = HEADER;
        let mut field = |i: usize| {
            let length = u32::from_le_bytes(bytes.get(4 * i..4 * i + 4)?.try_into().ok()?) as usize;
            at += length;
            Some(Cow::Borrowed(std::str::from_utf8(bytes.get(at - length..at)?).ok()?))
        };
        let stored = Stored { name: field(0)?, source: field(1)?, metadata: field(2)?, text: field(3)? };
        Some((stored, at))
    }

    /// Its line in the output, `{"id", "text", "source", "metadata"}`.
    pub fn line(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).expect("text is printable");
        let [id, text, source] = [&self.name, &self.text, &self.source].map(|text| quoted(text));
        let mut line = String::with_capacity(id.len() + text.len() + source.len() + self.metadata.len() + 48);
        for part in
            ["{\"id\":", &id, ",\"text\":", &text, ",\"source\":", &source, ",\"metadata\":", &self.metadata, "}\n"]
        {
            line.push_str(part);
        }
        line
    }

    /// A field of its metadata that is text or a number.
    pub fn field(&self, name: &str) -> Option<String> {
        let metadata: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&self.metadata).ok()?;
        match metadata.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            other => Some(other.to_string()),
        }
    }
}

/// The parts that the first pass wrote. Memory holds four bytes for each document.
pub struct Spool {
    parts: Vec<(PathBuf, Vec<u32>)>,
    /// The number of each part's first document, and the number of all.
    first: Vec<u32>,
}

impl Spool {
    /// Parts with where each document starts in them.
    pub fn new(parts: Vec<(PathBuf, Vec<u32>)>) -> Spool {
        let mut first = vec![0];
        parts.iter().for_each(|(_, starts)| first.push(first.last().expect("one") + starts.len() as u32));
        Spool { parts, first }
    }

    /// How many documents there are.
    pub fn len(&self) -> u32 {
        *self.first.last().expect("one more than parts")
    }

    /// How many parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The numbers of the documents of a part.
    pub fn range(&self, part: usize) -> std::ops::Range<u32> {
        self.first[part]..self.first[part + 1]
    }

    /// A whole part.
    pub fn part(&self, part: usize) -> Result<PartBytes> {
        let (path, starts) = &self.parts[part];
        let bytes = std::fs::read(path).at(path)?;
        Ok(PartBytes { path: path.clone(), bytes, starts: starts.clone() })
    }

    /// Calls `each` with a document.
    pub fn with<T>(&self, document: u32, each: impl FnOnce(&Stored) -> T) -> Result<T> {
        let part = self.first.partition_point(|&first| first <= document) - 1;
        let (path, starts) = &self.parts[part];
        let index = (document - self.first[part]) as usize;
        let mut file = File::open(path).at(path)?;
        file.seek(SeekFrom::Start(starts[index].into())).at(path)?;
        let mut bytes = Vec::new();
        match starts.get(index + 1) {
            Some(end) => {
                bytes.resize((end - starts[index]) as usize, 0);
                file.read_exact(&mut bytes).at(path)?;
            }
            None => drop(file.read_to_end(&mut bytes).at(path)?),
        }
        let (stored, _) = Stored::read(&bytes).ok_or_else(|| damaged(path))?;
        Ok(each(&stored))
    }
}

/// The bytes of one part.
pub struct PartBytes {
    path: PathBuf,
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl PartBytes {
    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// A document of it.
    pub fn get(&self, index: usize) -> Result<Stored<'_>> {
        let bytes = self.bytes.get(self.starts[index] as usize..);
        bytes.and_then(Stored::read).map(|(stored, _)| stored).ok_or_else(|| damaged(&self.path))
    }
}

/// Where documents start in the bytes of a part.
pub fn starts(path: &Path, bytes: &[u8]) -> Result<Vec<u32>> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        starts.push(at as u32);
        at += Stored::read(&bytes[at..]).ok_or_else(|| damaged(path))?.1;
    }
    Ok(starts)
}

fn damaged(path: &Path) -> Error {
    let hint = "remove the folder that it is in, and start again";
    Error::format(path, "content", "documents that kiln wrote", "something else", hint)
}

/// A set of document numbers.
#[derive(Clone, Debug)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Room for `n` numbers, none of them in.
    pub fn new(n: u32) -> Bits {
        Bits(vec![0; n.div_ceil(64) as usize])
    }

    /// Puts one in.
    pub fn insert(&mut self, n: u32) {
        self.0[n as usize / 64] |= 1 << (n % 64);
    }

    /// Whether one is in.
    pub fn has(&self, n: u32) -> bool {
        self.0[n as usize / 64] >> (n % 64) & 1 == 1
    }
}

/// A number of 64 bits for a name, to draw by.
pub fn draw(name: &str) -> u64 {
    name.bytes().fold(0x6B69_6C6E, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_alone_and_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let stored = |i: u32| Stored {
            name: format!("n{i}").into(),
            source: "a/b.txt".into(),
            metadata: format!("{{\"i\":{i},\"label\":\"x\"}}").into(),
            text: "é".repeat(i as usize).into(),
        };
        let mut parts = Vec::new();
        for (number, range) in [0..3u32, 3..3, 3..8].into_iter().enumerate() {
            let path = dir.path().join(number.to_string());
            let mut bytes = Vec::new();
            range.for_each(|i| stored(i).write(&mut bytes));
            std::fs::write(&path, &bytes).unwrap();
            parts.push((path.clone(), starts(&path, &bytes).unwrap()));
        }
        let spool = Spool::new(parts);
        assert_eq!((spool.len(), spool.parts(), spool.range(2)), (8, 3, 3..8));
        for i in [7, 0, 2, 3, 5] {
            assert!(spool.with(i, |found| *found == stored(i)).unwrap(), "{i}");
        }
        let part = spool.part(2).unwrap();
        assert_eq!((part.len(), part.get(1).unwrap()), (5, stored(4)));
        assert_eq!(
            stored(1).line(),
            "{\"id\":\"n1\",\"text\":\"é\",\"source\":\"a/b.txt\",\"metadata\":{\"i\":1,\"label\":\"x\"}}\n"
        );
        assert_eq!((stored(1).field("i"), stored(1).field("none")), (Some("1".into()), None));
        std::fs::write(dir.path().join("2"), b"cut").unwrap();
        assert!(spool.with(5, |_| ()).is_err() && spool.part(2).unwrap().get(0).is_err());
    }

    #[test]
    fn bits_hold_what_was_put_in() {
        let mut bits = Bits::new(130);
        [0, 63, 64, 129].into_iter().for_each(|n| bits.insert(n));
        assert_eq!((0..130).filter(|&n| bits.has(n)).collect::<Vec<_>>(), [0, 63, 64, 129]);
    }
}
