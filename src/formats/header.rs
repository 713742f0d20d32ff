//! The header of a safetensors file: names, dtypes, shapes and places of tensors, every one of them checked.
//!
//! A little-endian u64 gives the length of the JSON that follows: an object from names to `dtype`, `shape` and
//! `data_offsets`, and `__metadata__` from strings to strings. The tensors' bytes fill the rest of the file without holes
//! or overlaps (<https://github.com/huggingface/safetensors#format>).

use crate::error::{AtPath, Error, Result};
use safetensors::tensor::TensorInfo;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// Longer headers are refused, as the format's own library does.
const MAX_HEADER: u64 = 100_000_000;

/// A header that agrees with itself and with the size of its file.
#[derive(Debug)]
pub struct Header {
    tensors: HashMap<String, TensorInfo>,
    start: u64,
}

impl Header {
    /// Reads the header of the file `path` of `size` bytes from its start, `file`.
    ///
    /// # Errors
    /// The length is more than the file holds, or absurd; what follows is not what the format asks for; a name occurs
    /// twice; tensors overlap, leave holes or end elsewhere than the file; a dtype and a shape do not give the size. All
    /// of it is found before memory of any claimed size is taken.
    pub fn read(path: &Path, file: &mut dyn Read, size: u64) -> Result<Header> {
        let wrong = |at: &str, expected: String, found: String| {
            let hint = "the file is damaged or no safetensors file: get it again";
            Error::format(path, at, expected, found, hint)
        };
        if size < 8 {
            return Err(wrong("start", "a safetensors header".into(), format!("a file of {size} bytes")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).at(path)?;
        let length = u64::from_le_bytes(length);
        let room = MAX_HEADER.min(size - 8);
        if length > room {
            return Err(wrong("start", format!("a header of at most {room} bytes"), format!("a length of {length}")));
        }
        let mut json = vec![0; length as usize];
        file.read_exact(&mut json).at(path)?;
        let Tensors(tensors) = serde_json::from_slice(&json)
            .map_err(|e| wrong("header", "names, dtypes, shapes and offsets".into(), e.to_string()))?;

        let mut end = 0;
        for (name, info) in in_order(&tensors) {
            let (from, to) = info.data_offsets;
            if from != end || to < from {
                let expected = format!("bytes from {end} on, where the tensor before it ends");
                return Err(wrong(name, expected, format!("bytes {from} to {to}")));
            }
            let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, &side| n.checked_mul(side));
            // Both may be too large to count: that is no agreement.
            if bits.is_none() || bits != (to - from).checked_mul(8) {
                let expected = format!("as many bytes as shape {:?} in {:?} takes", info.shape, info.dtype);
                return Err(wrong(name, expected, format!("{} bytes", to - from)));
            }
            end = to;
        }
        let expected = (8 + length).checked_add(end as u64);
        if expected != Some(size) {
            return Err(wrong("end", format!("{} bytes", expected.unwrap_or(u64::MAX)), format!("{size} bytes")));
        }
        Ok(Header { tensors, start: 8 + length })
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        in_order(&self.tensors).into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// The tensor called `name`; its offsets count from [`Header::start`].
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Where the tensors' bytes start in the file.
    pub fn start(&self) -> u64 {
        self.start
    }
}

fn in_order(tensors: &HashMap<String, TensorInfo>) -> Vec<(&str, &TensorInfo)> {
    let mut all: Vec<(&str, &TensorInfo)> = tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    all.sort_by_key(|(name, info)| (info.data_offsets, *name));
    all
}

/// The JSON as it stands, names occurring once.
struct Tensors(HashMap<String, TensorInfo>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Tensors, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Tensors;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
                let (mut tensors, mut about) = (HashMap::new(), false);
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == "__metadata__" {
                        map.next_value::<HashMap<String, String>>()?;
                        std::mem::replace(&mut about, true)
                    } else {
                        let info: TensorInfo = map.next_value()?;
                        tensors.insert(name.clone(), info).is_some()
                    };
                    if twice {
                        return Err(A::Error::custom(format!("{name:?} twice")));
                    }
                }
                Ok(Tensors(tensors))
            }
        }
        from.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this JSON and this many bytes of tensors.
    fn read(json: &str, data: usize) -> Result<Header, String> {
        let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat();
        Header::read(Path::new("x.safetensors"), &mut &bytes[..], bytes.len() as u64).map_err(|e| {
            assert!(e.hint().is_some());
            e.to_string()
        })
    }

    fn tensor(name: &str, dtype: &str, shape: &str, from: usize, to: usize) -> String {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    }

    #[test]
    fn a_header_lists_tensors_in_the_order_of_the_file() {
        let json = [
            tensor("b", "F32", "[2,3]", 4, 28),
            "\"__metadata__\":{\"format\":\"pt\"}".into(),
            tensor("a", "BF16", "[2]", 0, 4),
            tensor("empty", "I64", "[0,9]", 28, 28),
        ];
        let header = read(&format!("{{{}}}   ", json.join(",")), 28).unwrap();
        assert_eq!(header.names(), ["a", "b", "empty"]);
        assert_eq!(header.info("b").unwrap().shape, [2, 3]);
        assert_eq!(read("{}", 0).unwrap().start(), 10);
    }

    #[test]
    fn headers_that_contradict_themselves_or_the_file_are_refused() {
        let a = tensor("a", "F32", "[2]", 0, 8);
        let cases: &[(&[&str], usize, &str)] = &[
            (&[&a, &tensor("b", "F32", "[1]", 12, 16)], 16, "b: expected bytes from 8 on"),
            (&[&a, &tensor("b", "F32", "[2]", 4, 12)], 12, "b: expected bytes from 8 on"),
            (&[&tensor("b", "F32", "[1]", 4, 0)], 4, "b: expected bytes from 0 on"),
            (&[&a, &a], 8, "\"a\" twice"),
            (&["\"__metadata__\":{}", "\"__metadata__\":{}"], 0, "\"__metadata__\" twice"),
            (&["\"__metadata__\":{\"a\":1}"], 0, "expected a string"),
            (&[&a], 7, "end: expected"),
            (&[&a], 9, "end: expected"),
            (&[&tensor("a", "F32", "[3]", 0, 8)], 8, "a: expected as many bytes as shape [3] in F32"),
            (&[&tensor("a", "F16", "[2]", 0, 8)], 8, "in F16"),
            (&[&tensor("a", "F32", "[4294967296,4294967296]", 0, 8)], 8, "a: expected as many bytes"),
            (&[&tensor("a", "U8", "[18446744073709551615]", 0, usize::MAX)], 8, "a: expected as many bytes"),
            (&[&tensor("a", "F4", "[3]", 0, 1)], 1, "a: expected as many bytes"),
            (&[&tensor("a", "F33", "[2]", 0, 8)], 8, "F33"),
            (&[&tensor("a", "F32", "[-2]", 0, 8)], 8, "-2"),
            (&[&tensor("a", "F32", "[1e30]", 0, 8)], 8, "invalid type"),
            (&[&"[".repeat(100_000)], 0, "header: expected names"),
            (&[&format!("\"a\":{}", "{\"a\":".repeat(100_000))], 0, "header: expected names"),
        ];
        for (entries, data, message) in cases {
            let error = read(&format!("{{{}}}", entries.join(",")), *data).unwrap_err();
            assert!(error.contains(message) && error.contains("x.safetensors"), "{message}: {error}");
        }
        assert!(read("[]", 0).unwrap_err().contains("an object of tensors"));
    }

    #[test]
    fn lengths_are_checked_before_memory_is_taken() {
        let header = |bytes: &[u8], size| {
            Header::read(Path::new("x"), &mut &bytes[..], size).map(drop).map_err(|e| e.to_string()).unwrap_err()
        };
        for length in [1u64 << 40, u64::MAX] {
            let message = header(&length.to_le_bytes(), u64::MAX);
            assert!(message.contains(&format!("at most {MAX_HEADER} bytes, found a length of {length}")), "{message}");
        }
        assert!(header(&[9, 0, 0, 0, 0, 0, 0, 0, b'{'], 9).contains("at most 1 bytes"));
        assert!(header(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff], 9).contains("header: expected"));
        assert!(header(b"1234567", 7).contains("7 bytes"));
    }
}
