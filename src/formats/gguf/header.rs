//! The header of a GGUF file: metadata, and names, formats, shapes and places of tensors, every one of them checked.
//!
//! ```text
//! "GGUF", version 2 or 3 (u32), number of tensors (u64), of keys (u64)
//! each key:     name, type (u32), value       a text is its length (u64) and UTF-8; a list its type, its length and its values
//! each tensor:  name, axes (u32), their lengths (u64, the last axis first), format (u32), offset (u64)
//! padding to a multiple of `general.alignment` (32); from there on offsets count
//! ```
//! All little-endian (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). Tensors tile the data: each starts where the
//! one before it ends, rounded up to the alignment. A count is compared with the bytes that are left before memory is taken.

use super::super::block::Format;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// Longer headers are refused; that of a vocabulary of 250,000 tokens has 15 MB.
const MAX_HEADER: usize = 100_000_000;
/// Axes of a tensor.
const MAX_AXES: u32 = 4;
const HINT: &str = "the file is damaged or no GGUF file: get it again";

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned number.
    Unsigned(u64),
    /// Any signed number.
    Signed(i64),
    /// f32 or f64; the former as its shortest decimal, so that 1e-5 is 1e-5.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Texts),
    /// A list of numbers.
    Numbers(Numbers),
}

/// Texts, end to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.text += text;
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The texts.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

/// Numbers, as the file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    kind: u32,
    bytes: Vec<u8>,
}

impl Numbers {
    /// The list as it stands in a file: type, length, numbers.
    pub fn list(&self) -> Vec<u8> {
        [&self.kind.to_le_bytes()[..], &(self.count() as u64).to_le_bytes(), &self.bytes].concat()
    }

    /// A list of i32.
    pub fn i32(numbers: &[i32]) -> Numbers {
        Numbers { kind: 5, bytes: bytemuck::cast_slice(numbers).to_vec() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.bytes.len() / size(self.kind).unwrap_or(1)
    }

    /// The numbers.
    pub fn iter(&self) -> impl Iterator<Item = f64> {
        self.bytes.chunks_exact(size(self.kind).unwrap_or(1)).map(|bytes| match number(self.kind, bytes) {
            Value::Unsigned(n) => n as f64,
            Value::Signed(n) => n as f64,
            Value::Float(x) => x,
            other => f64::from(u8::from(other == Value::Bool(true))),
        })
    }
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// How its numbers lie.
    pub format: Format,
    /// The lengths of its axes, the first one first.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

/// A header that agrees with itself and with the size of its file.
#[derive(Debug, Default)]
pub struct Header {
    /// The metadata.
    pub keys: HashMap<String, Value>,
    /// The tensors by their names.
    pub tensors: HashMap<String, Info>,
}

/// Bytes of a number or flag of a type; `None` for all else.
fn size(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// The number or flag that bytes of its size are.
fn number(kind: u32, b: &[u8]) -> Value {
    let low = b.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    let unused = 64 - 8 * b.len() as u32;
    match kind {
        0 | 2 | 4 | 10 => Value::Unsigned(low),
        1 | 3 | 5 | 11 => Value::Signed((low << unused) as i64 >> unused),
        6 => {
            let x = f32::from_bits(low as u32);
            Value::Float(x.to_string().parse().unwrap_or(f64::from(x)))
        }
        12 => Value::Float(f64::from_bits(low)),
        _ => Value::Bool(low != 0),
    }
}

/// What is left of the header, and where it is in the file.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: impl ToString, found: impl ToString) -> Error {
        Error::format(self.path, format!("byte {}", self.at), expected, found, HINT)
    }

    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if n > left as u64 {
            return Err(self.wrong(what, format!("{n} bytes of which the header can have {left}")));
        }
        let taken = &self.bytes[self.at..][..n as usize];
        self.at += n as usize;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        let b = self.take(4, what)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(match number(10, self.take(8, what)?) {
            Value::Unsigned(n) => n,
            _ => unreachable!("the type of a u64"),
        })
    }

    /// A number of things of at least `least` bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let n = self.u64(what)?;
        let room = (self.bytes.len() - self.at) / least;
        if n > room as u64 {
            return Err(self.wrong(format!("at most {room} {what}, which fill the file"), n));
        }
        Ok(n as usize)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let n = self.u64(what)?;
        // Copied before it is looked at: the file may change.
        let bytes = self.take(n, what)?.to_vec();
        String::from_utf8(bytes).map_err(|e| self.wrong(format!("{what} in UTF-8"), e))
    }

    fn value(&mut self) -> Result<Value> {
        match self.u32("a type")? {
            8 => Ok(Value::Text(self.text("a text")?)),
            9 => match self.u32("the type of a list")? {
                8 => {
                    let mut texts = Texts::default();
                    for _ in 0..self.count(8, "texts")? {
                        texts.push(&self.text("a text")?);
                    }
                    Ok(Value::Texts(texts))
                }
                kind => {
                    let size =
                        size(kind).ok_or_else(|| self.wrong("a list of numbers or texts", format!("type {kind}")))?;
                    let n = self.count(size, "numbers")?;
                    Ok(Value::Numbers(Numbers { kind, bytes: self.take((n * size) as u64, "a list")?.to_vec() }))
                }
            },
            kind => {
                let size = size(kind).ok_or_else(|| self.wrong("a type from 0 to 12", kind))?;
                Ok(number(kind, self.take(size as u64, "a number")?))
            }
        }
    }

    /// Name, format, shape and offset of a tensor.
    fn tensor(&mut self) -> Result<(String, Format, Vec<usize>, u64)> {
        let name = self.text("the name of a tensor")?;
        let path = self.path;
        let wrong = |expected: &str, found: String| Error::format(path, &name, expected, found, HINT);
        let axes = self.u32("a number of axes")?;
        if !(1..=MAX_AXES).contains(&axes) {
            return Err(wrong("1 to 4 axes", axes.to_string()));
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            shape.push(self.u64("the length of an axis")?);
        }
        shape.reverse();
        let code = self.u32("a format")?;
        let Some(&(_, format, _)) = Format::ALL.iter().find(|entry| entry.0 == code) else {
            let known = Format::ALL.map(|entry| entry.2).join(", ");
            let hint = "take the model in one of these formats, as Q8_0 or Q4_K_M";
            return Err(Error::format(path, &name, known, unknown(code), hint));
        };
        let (numel, (block, _)) = (shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side)), format.block());
        let last = shape[shape.len() - 1];
        if numel.is_none_or(|n| n == 0 || n > 1 << 48) || !last.is_multiple_of(block as u64) {
            let expected = format!("axes in {}, rows of a multiple of {block}", format.code().1);
            return Err(wrong(&expected, format!("{shape:?}")));
        }
        let shape = shape.iter().map(|&side| side as usize).collect();
        let offset = self.u64("an offset")?;
        Ok((name, format, shape, offset))
    }
}

/// What a format is called that is not read.
fn unknown(code: u32) -> String {
    let names = [(6, "Q5_0"), (7, "Q5_1"), (9, "Q8_1"), (10, "Q2_K"), (11, "Q3_K"), (13, "Q5_K"), (15, "Q8_K")];
    let known = names.iter().find(|entry| entry.0 == code).map(|entry| entry.1.to_owned());
    known.unwrap_or_else(|| format!("the format with number {code}"))
}

impl Header {
    /// Reads the header of the file `path`, whose bytes are `file`.
    ///
    /// # Errors
    /// Anything is not as the format has it; a name occurs twice; tensors overlap, leave holes, or do not end in the file.
    pub fn read(path: &Path, file: &[u8]) -> Result<Header> {
        let mut reader = Reader { path, bytes: &file[..file.len().min(MAX_HEADER)], at: 0 };
        if reader.take(4, "a GGUF file")? != b"GGUF" {
            reader.at = 0;
            return Err(reader.wrong("the letters GGUF", format!("{:?}", &file[..4])));
        }
        match reader.u32("a version")? {
            2 | 3 => {}
            1 => return Err(reader.wrong("version 2 or 3", "1, which is obsolete")),
            other if other.swap_bytes() <= 3 => return Err(reader.wrong("version 2 or 3", "a big-endian file")),
            other => return Err(reader.wrong("version 2 or 3", other)),
        }
        let tensors = reader.count(32, "tensors")?;
        let keys = reader.count(13, "keys")?;
        let twice = |name: &str| Error::format(path, name, "a name that occurs once", "it twice", HINT);
        let mut header = Header::default();
        for _ in 0..keys {
            let key = reader.text("a key")?;
            let value = reader.value()?;
            if header.keys.contains_key(&key) {
                return Err(twice(&key));
            }
            header.keys.insert(key, value);
        }
        let mut listed = Vec::with_capacity(tensors);
        for _ in 0..tensors {
            listed.push(reader.tensor()?);
        }
        let alignment = match header.keys.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n as usize,
            Some(other) => {
                return Err(Error::format(path, "general.alignment", "a power of two", format!("{other:?}"), HINT));
            }
        };
        let start = reader.at.next_multiple_of(alignment);
        // By offset; one after the other, each rounded up.
        listed.sort_by_key(|one| one.3);
        let mut next = 0;
        for (name, format, shape, offset) in listed {
            let wrong = |expected: String, found: String| Error::format(path, &name, expected, found, HINT);
            if offset != next as u64 {
                return Err(wrong(format!("offset {next}, where the tensor before it ends"), offset.to_string()));
            }
            let bytes = format.bytes(shape.iter().product());
            let end =
                bytes.and_then(|bytes| start.checked_add(next)?.checked_add(bytes)).filter(|end| *end <= file.len());
            let Some(end) = end else {
                let left = file.len().saturating_sub(start + next);
                let found = format!("{left}: the file is cut short");
                return Err(wrong(format!("{} bytes of it", bytes.unwrap_or(usize::MAX)), found));
            };
            let info = Info { format, shape, bytes: start + next..end };
            next = (end - start).next_multiple_of(alignment);
            if header.tensors.insert(name.clone(), info).is_some() {
                return Err(twice(&name));
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata and tensors as bytes, and zeros after them.
    fn file(version: u32, keys: &[(&str, u32, Vec<u8>)], tensors: &[(&str, &[u64], u32, u64)], data: usize) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = [&b"GGUF"[..], &version.to_le_bytes()].concat();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend((keys.len() as u64).to_le_bytes());
        for (key, kind, value) in keys {
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
        }
        for (name, shape, format, offset) in tensors {
            bytes.extend([text(name), (shape.len() as u32).to_le_bytes().to_vec()].concat());
            shape.iter().for_each(|side| bytes.extend(side.to_le_bytes()));
            bytes.extend([&format.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, String> {
        Header::read(Path::new("x.gguf"), bytes).map_err(|e| {
            assert!(e.hint().is_some());
            e.to_string()
        })
    }

    #[test]
    fn a_header_gives_values_and_tensors_as_they_stand() {
        let list =
            [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &1u64.to_le_bytes(), b"a", &2u64.to_le_bytes(), b"bc"];
        let numbers = [&5u32.to_le_bytes()[..], &2u64.to_le_bytes(), &1i32.to_le_bytes(), &(-3i32).to_le_bytes()];
        let keys = [
            ("u", 4, 7u32.to_le_bytes().to_vec()),
            ("i", 1, vec![0xff]),
            ("f", 6, 1e-5f32.to_le_bytes().to_vec()),
            ("b", 7, vec![1]),
            ("t", 8, [&2u64.to_le_bytes()[..], b"hi"].concat()),
            ("l", 9, list.concat()),
            ("n", 9, numbers.concat()),
        ];
        let tensors: [(&str, &[u64], u32, u64); 2] = [("b", &[64, 2], 8, 32), ("a", &[3], 0, 0)];
        for version in [2, 3] {
            let header = read(&file(version, &keys, &tensors, 32 + 4 * 34)).unwrap();
            let key = |name: &str| header.keys[name].clone();
            assert_eq!((key("u"), key("i"), key("f")), (Value::Unsigned(7), Value::Signed(-1), Value::Float(1e-5)));
            assert_eq!((key("b"), key("t")), (Value::Bool(true), Value::Text("hi".into())));
            assert!(matches!(key("l"), Value::Texts(list) if list.iter().eq(["a", "bc"]) && list.count() == 2));
            assert!(matches!(key("n"), Value::Numbers(list) if list.iter().eq([1.0, -3.0]) && list.count() == 2));
            let b = &header.tensors["b"];
            assert_eq!((&b.shape[..], b.format, b.bytes.len()), (&[2, 64][..], Format::Q8_0, 4 * 34));
            assert_eq!(header.tensors["a"].bytes.end + 20, b.bytes.start);
        }
    }

    #[test]
    fn headers_that_contradict_themselves_or_the_file_are_refused() {
        let a: (&str, &[u64], u32, u64) = ("a", &[8], 0, 0);
        let align = |n: u32| vec![("general.alignment", 4, n.to_le_bytes().to_vec())];
        let list = |kind: u32, n: u64| vec![("l", 9, [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat())];
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (file(1, &[], &[], 0), "version 2 or 3, found 1"),
            (file(3u32.swap_bytes(), &[], &[], 0), "big-endian"),
            (file(4, &[], &[], 0), "found 4"),
            (b"GGU".to_vec(), "a GGUF file"),
            (b"GGML1234".to_vec(), "the letters GGUF"),
            (file(3, &[], &[a, ("b", &[8], 0, 64)], 96), "b: expected offset 32"),
            (file(3, &[], &[a, ("b", &[8], 0, 0)], 64), "offset 32, where the tensor before it ends, found 0"),
            (file(3, &[], &[a, ("a", &[8], 0, 32)], 64), "a: expected a name that occurs once"),
            (file(3, &[], &[a], 31), "cut short"),
            (file(3, &[], &[("a", &[33], 8, 0)], 99), "rows of a multiple of 32"),
            (file(3, &[], &[("a", &[0], 0, 0)], 99), "a: expected axes"),
            (file(3, &[], &[("a", &[1 << 40, 1 << 40], 0, 0)], 99), "a: expected axes"),
            (file(3, &[], &[("a", &[1 << 40], 0, 0)], 99), "cut short"),
            (file(3, &[], &[("a", &[], 0, 0)], 99), "1 to 4 axes"),
            (file(3, &[], &[("a", &[32], 13, 0)], 99), "found Q5_K"),
            (file(3, &[], &[("a", &[32], 99, 0)], 99), "number 99"),
            (file(3, &align(33), &[a], 99), "general.alignment: expected a power of two"),
            (file(3, &align(0), &[a], 99), "general.alignment"),
            (file(3, &[("k", 0, vec![1]), ("k", 0, vec![1])], &[], 0), "k: expected a name that occurs once"),
            (file(3, &[("k", 13, vec![1])], &[], 0), "a type from 0 to 12"),
            (file(3, &list(9, 1), &[], 0), "a list of numbers or texts"),
            (file(3, &list(4, u64::MAX), &[], 0), "numbers, which fill the file"),
            (file(3, &list(8, 1 << 60), &[], 0), "texts, which fill the file"),
            (file(3, &[("k", 8, u64::MAX.to_le_bytes().to_vec())], &[], 0), "bytes of which the header can have"),
            (file(3, &[("k", 8, [&1u64.to_le_bytes()[..], &[0xff]].concat())], &[], 0), "in UTF-8"),
        ];
        for (bytes, message) in cases {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(message) && error.contains("x.gguf"), "{message}: {error}");
        }
        for at in [8, 16] {
            let mut bytes = file(3, &[], &[a], 32);
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(read(&bytes).unwrap_err().contains("which fill the file"));
        }
    }
}
