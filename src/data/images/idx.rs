//! IDX files, as MNIST's: a big-endian header (two zeros, the type, the number of dimensions, each dimension), then the values.
//! Only unsigned bytes (type 8) are read and written. `.gz` files are unpacked on the way.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::set::{Dims, Pictures};
use crate::data::atomic::write_atomic;
use crate::disk::{self, Os};
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

/// A file beside IDX files that names their labels, one a line.
pub(super) const NAMES: &str = "label-names.txt";

/// The IDX files of pictures in a folder.
pub(super) struct Files {
    pub train: PathBuf,
    pub held_out: Option<PathBuf>,
}

/// The IDX files of pictures in a folder, by their names; nothing where there are none.
///
/// # Errors
/// It is not clear which of them are meant.
pub(super) fn in_folder(dir: &Path) -> Result<Option<Files>> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).at(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.contains("images-idx") || name.contains("images.idx"));
    names.sort();
    // Where a file lies there packed and unpacked, the latter comes first and is enough.
    names.dedup_by(|name, before| name.strip_suffix(".gz") == Some(before));
    let held_out = |name: &&String| ["t10k", "test", "val"].iter().any(|start| name.starts_with(start));
    let (held_out, train): (Vec<_>, Vec<_>) = names.iter().partition(held_out);
    match (&train[..], &held_out[..]) {
        ([], []) => Ok(None),
        ([train], []) | ([], [train]) => Ok(Some(Files { train: dir.join(train), held_out: None })),
        ([train], [held_out]) => Ok(Some(Files { train: dir.join(train), held_out: Some(dir.join(held_out)) })),
        _ => {
            let found = names.join(", ");
            let hint = "give one of the files instead of the folder";
            Err(Error::format(dir, "files", "one of pictures to learn from, and at most one held out", found, hint))
        }
    }
}

/// Reads a file of pictures, and the labels that lie beside it.
///
/// # Errors
/// A file is damaged, is none of pictures, or the labels are not as many as the pictures.
pub(super) fn pictures(path: &Path) -> Result<Pictures> {
    let idx = Idx::read(path)?;
    let dims = match idx.shape[..] {
        [_, height, width] => Dims { height, width, channels: 1 },
        [_, height, width, channels @ (1 | 3)] => Dims { height, width, channels },
        _ => {
            let expected = "pictures: (N, height, width), or 1 or 3 channels behind that";
            let hint = "give the file of pictures, as train-images-idx3-ubyte.gz; labels are found beside it";
            return Err(Error::format(path, "dimensions", expected, format!("{:?}", idx.shape), hint));
        }
    };
    let Some(file) = labels_of(path) else {
        return Ok(Pictures::new(dims, idx.values, None, Vec::new()));
    };
    let labels = Idx::read(&file)?;
    if labels.shape != idx.shape[..1] {
        let expected = format!("{} labels, as many as there are pictures in {}", idx.shape[0], path.display());
        let hint =
            "the two files belong to different sets: put the right one there, or take it away to go without labels";
        return Err(Error::format(&file, "dimensions", expected, format!("{:?}", labels.shape), hint));
    }
    let classes = labels.values.iter().max().map_or(0, |&most| usize::from(most) + 1);
    let names = names(&path.with_file_name(NAMES), classes)?;
    Ok(Pictures::new(dims, idx.values, Some(labels.values.iter().map(|&label| label.into()).collect()), names))
}

/// The file of labels beside one of pictures.
fn labels_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let own = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let plain = own.strip_suffix(".gz").unwrap_or(&own);
    let files = [own.clone(), plain.to_owned(), format!("{plain}.gz")];
    files.into_iter().filter(|file| file != name).map(|file| path.with_file_name(file)).find(|file| file.is_file())
}

/// The names of labels: those in a file where there is one, else their numbers.
fn names(file: &Path, classes: usize) -> Result<Vec<String>> {
    if !file.is_file() {
        return Ok((0..classes).map(|label| label.to_string()).collect());
    }
    let text = disk::text(&Os, file, 1 << 20)?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() < classes {
        let hint = "write a name for each label, one a line, the first for label 0";
        return Err(Error::format(file, "lines", format!("{classes} names"), names.len(), hint));
    }
    Ok(names)
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
