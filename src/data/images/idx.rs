//! IDX files, as MNIST's: a big-endian header (two zeros, the type, the number of dimensions, each dimension), then the values.
//! Only unsigned bytes (type 8) are read and written. `.gz` files are unpacked on the way.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::data::atomic::write_atomic;
use crate::disk::Os;
use crate::error::{AtPath, Error, Result};

/// The type of unsigned bytes.
const BYTES: u8 = 8;
/// Dimensions of a file, at most.
const DIMENSIONS: usize = 4;
/// Bytes of values, at most: more is no file of small pictures.
const LIMIT: u64 = 4 << 30;

/// An array of bytes: pictures (N, height, width), or labels (N).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Its dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<u8>,
}

impl Idx {
    /// Reads a file; one whose name ends in `.gz` is unpacked.
    ///
    /// # Errors
    /// It cannot be read, is no IDX file of bytes, or holds fewer or more values than its header says. Never more than these are
    /// unpacked.
    pub fn read(path: impl AsRef<Path>) -> Result<Idx> {
        let path = path.as_ref();
        let file = File::open(path).at(path)?;
        let packed = path.extension().is_some_and(|ext| ext == "gz");
        let mut from: Box<dyn Read> =
            if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(std::io::BufReader::new(file)) };
        let hint = "give an IDX file, as MNIST's train-images-idx3-ubyte or train-images-idx3-ubyte.gz";
        let bad = |at: &str, expected: String, found: String| Error::format(path, at, expected, found, hint);
        let broken = |at: &str, e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => bad(at, "more bytes".to_owned(), "the end of the file".to_owned()),
            _ if packed => bad(at, "a gzip file that is whole".to_owned(), e.to_string()),
            _ => Error::io(path, e),
        };

        let mut header = [0; 4];
        from.read_exact(&mut header).map_err(|e| broken("bytes 0 to 3", e))?;
        let [a, b, kind, dimensions] = header;
        if (a, b, kind) != (0, 0, BYTES) || !(1..=DIMENSIONS).contains(&usize::from(dimensions)) {
            let expected = format!("0, 0, {BYTES} (unsigned bytes), and 1 to {DIMENSIONS} dimensions");
            return Err(bad("bytes 0 to 3", expected, format!("{header:?}")));
        }
        let mut shape = Vec::new();
        let mut size = 1u64;
        for i in 0..usize::from(dimensions) {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes).map_err(|e| broken("the dimensions", e))?;
            let length = u32::from_be_bytes(bytes);
            size = size.saturating_mul(u64::from(length));
            if length == 0 || size > LIMIT {
                let expected = format!("dimensions above 0 of at most {LIMIT} values");
                return Err(bad(&format!("dimension {i}"), expected, length.to_string()));
            }
            shape.push(length as usize);
        }
        // Memory grows with what is there, not with what the header claims; one byte more tells a longer file.
        let mut values = Vec::new();
        from.take(size + 1).read_to_end(&mut values).map_err(|e| broken("the values", e))?;
        if values.len() as u64 != size {
            let found = if values.len() as u64 > size { "more".to_owned() } else { values.len().to_string() };
            return Err(bad("the values", format!("{size} bytes for {shape:?}"), found));
        }
        Ok(Idx { shape, values })
    }

    /// Writes it, atomically; packed where the name ends in `.gz`.
    ///
    /// # Errors
    /// It cannot be written.
    ///
    /// # Panics
    /// If the values do not fill the shape.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        assert_eq!(self.shape.iter().product::<usize>(), self.values.len(), "the values fill the shape");
        let mut file = vec![0, 0, BYTES, self.shape.len() as u8];
        self.shape.iter().for_each(|&length| file.extend((length as u32).to_be_bytes()));
        file.extend(&self.values);
        if path.extension().is_some_and(|ext| ext == "gz") {
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(&file).and_then(|()| packed.finish()).map(|packed| file = packed).at(path)?;
        }
        write_atomic(&Os, path, &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_as_they_were_packed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let idx = Idx { shape: vec![3, 4, 5], values: (0..60).collect() };
        for name in ["a-idx3-ubyte", "a-idx3-ubyte.gz"] {
            idx.write(dir.path().join(name)).unwrap();
            assert_eq!(Idx::read(dir.path().join(name)).unwrap(), idx);
        }
        let plain = std::fs::read(dir.path().join("a-idx3-ubyte")).unwrap();
        assert_eq!(plain[..16], [0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]);
    }

    #[test]
    fn damaged_files_are_refused_and_say_where() {
        let dir = tempfile::tempdir().unwrap();
        let whole: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
        let cases: [(&[u8], &str); 9] = [
            (b"", "bytes 0 to 3"),
            (b"\x89PNG", "bytes 0 to 3"),
            (&[0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0], "unsigned bytes"),
            (&[0, 0, 8, 200], "dimensions"),
            (&[0, 0, 8, 1, 0, 0], "the dimensions"),
            (&[0, 0, 8, 1, 0, 0, 0, 0], "dimension 0"),
            (&[0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1], "dimension 1"),
            (&whole[..10], "3 bytes"),
            (&[whole, b"x"].concat(), "more"),
        ];
        for (bytes, says) in cases {
            let path = dir.path().join("a-idx");
            std::fs::write(&path, bytes).unwrap();
            let error = Idx::read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{says:?} is not in {error:?}");
        }
        // Packed: no gzip at all, cut short, and a bomb of zeros behind a small shape.
        let path = dir.path().join("a.gz");
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&[0, 0, 8, 1, 0, 0, 0, 3]).unwrap();
        bomb.write_all(&vec![0; 50 << 20]).unwrap();
        let bomb = bomb.finish().unwrap();
        for bytes in [&b"plain"[..], &bomb[..20], &bomb] {
            std::fs::write(&path, bytes).unwrap();
            assert!(Idx::read(&path).is_err());
        }
    }
}
