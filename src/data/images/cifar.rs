//! CIFAR-10's binary version: records of a label and three planes (red, green, blue) of 32 × 32 bytes.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::set::{Dims, Pictures};
use crate::error::{AtPath, Error, Result};

const DIMS: Dims = Dims { height: 32, width: 32, channels: 3 };
const PIXELS: usize = 32 * 32;
/// Bytes of a picture with its label.
const RECORD: usize = 1 + 3 * PIXELS;
/// Bytes of a file of 10,000 pictures are 30 MB; more than this is none.
const LIMIT: u64 = 1 << 30;

/// The names of classes, as `batches.meta.txt` has them.
const NAMES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const TRAIN: &str = "data_batch_";
const TEST: &str = "test_batch";
const HINT: &str = "give CIFAR-10's binary version: cifar-10-binary.tar.gz, or what it unpacks to";

/// The files that were found: names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// The pictures of files of records, in this order. `path` is where they come from.
fn pictures<'a>(path: &Path, files: impl Iterator<Item = &'a (String, Vec<u8>)>) -> Result<Option<Pictures>> {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            let expected = format!("records of {RECORD} bytes: a label and 3 x 32 x 32 values");
            return Err(Error::format(path, format!("{name}: size"), expected, format!("{} bytes", bytes.len()), HINT));
        }
        for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
            if usize::from(record[0]) >= NAMES.len() {
                return Err(Error::format(path, format!("{name}: label of picture {i}"), "0 to 9", record[0], HINT));
            }
            labels.push(record[0].into());
            let plane = |c: usize| &record[1 + c * PIXELS..][..PIXELS];
            let pixels = plane(0).iter().zip(plane(1)).zip(plane(2));
            values.extend(pixels.flat_map(|((&r, &g), &b)| [r, g, b]));
        }
    }
    let names = NAMES.map(str::to_owned).to_vec();
    Ok((!labels.is_empty()).then(|| Pictures::new(DIMS, values, Some(labels), names)))
}

/// Training and test pictures: whatever the order of files is where they come from, it is that of their names.
fn both(path: &Path, mut files: Files) -> Result<(Pictures, Option<Pictures>)> {
    files.sort();
    let part = |start: &str| pictures(path, files.iter().filter(|(name, _)| name.starts_with(start)));
    match (part(TRAIN)?, part(TEST)?) {
        (Some(train), test) => Ok((train, test)),
        (None, Some(test)) => Ok((test, None)),
        (None, None) => Err(Error::format(path, "files", "data_batch_1.bin and more", "none of them", HINT)),
    }
}

fn read_all(path: &Path, from: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LIMIT).read_to_end(&mut bytes).map_err(|e| broken(path, &e))?;
    Ok(bytes)
}

fn broken(path: &Path, error: &std::io::Error) -> Error {
    Error::format(path, "content", "a file that is whole", error, "get it again: kiln data get cifar-10")
}

/// The folder of `.bin` files, which is this one or lies in it.
pub(super) fn folder(dir: &Path) -> Option<PathBuf> {
    let folders = [dir.to_owned(), dir.join("cifar-10-batches-bin")];
    let unpacked = folders.into_iter().find(|dir| dir.join("data_batch_1.bin").is_file());
    unpacked.or_else(|| Some(dir.join("cifar-10-binary.tar.gz")).filter(|archive| archive.is_file()))
}

/// Reads the files of a folder, or the archive in it.
pub(super) fn read_folder(dir: &Path) -> Result<(Pictures, Option<Pictures>)> {
    if dir.is_file() {
        return read_archive(dir);
    }
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if wanted(&name) && path.is_file() {
            files.push((name, read_all(&path, File::open(&path).at(&path)?)?));
        }
    }
    both(dir, files)
}

/// Whether a file has a name that CIFAR-10's have.
pub(super) fn named(name: &str) -> bool {
    wanted(name) || name.starts_with("cifar-10-binary.t")
}

fn wanted(name: &str) -> bool {
    (name.starts_with(TRAIN) || name.starts_with(TEST)) && name.ends_with(".bin")
}

/// Reads `cifar-10-binary.tar.gz` without unpacking it to the disk.
pub(super) fn read_archive(path: &Path) -> Result<(Pictures, Option<Pictures>)> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(File::open(path).at(path)?));
    let mut files = Files::new();
    for entry in archive.entries().map_err(|e| broken(path, &e))? {
        let entry = entry.map_err(|e| broken(path, &e))?;
        let name = entry.path().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        if let Some(name) = name.filter(|name| wanted(name) && entry.header().entry_type().is_file()) {
            files.push((name, read_all(path, entry)?));
        }
    }
    both(path, files)
}

/// Reads one `.bin` file.
pub(super) fn read_file(path: &Path) -> Result<Pictures> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = (name, read_all(path, File::open(path).at(path)?)?);
    Ok(pictures(path, std::iter::once(&file))?.expect("a file of records has one"))
}
