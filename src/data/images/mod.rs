//! Pictures: from files to batches, and back to files.
//!
//! [`open`] reads what people have: IDX files as MNIST's, CIFAR-10's binary version, folders of PNG and JPEG; [`Shapes`] is
//! the built-in world of pictures. Each becomes a set of [`Pictures`] of one size, a byte a value, in the order (N, H, W, C).
//! [`batch`] turns them to numbers for training, [`grid`] turns numbers to pictures.

pub mod batch;
mod cifar;
mod decode;
mod fit;
mod folder;
pub mod grid;
pub mod idx;
mod set;
mod summary;
pub mod world;

use std::path::{Path, PathBuf};

pub use batch::{Augment, PictureBatches, Range};
pub use grid::{Grid, Sheet, animate};
pub use idx::Idx;
pub use set::{Dims, Found, Pictures};
pub use summary::Summary;
pub use world::{Factors, Kind, Shapes};

use crate::error::{AtPath, Error, Result};

/// What pictures are made to when they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Width and height: the largest square in the middle is scaled to it. Without it pictures stay as they are, and all
    /// of them must be of one size.
    pub size: Option<usize>,
    /// Grey or in colour. Without it pictures stay as they are; where a folder holds both, all are read in colour.
    pub colour: Option<Colour>,
}

/// How many channels a picture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// One: brightness.
    Grey,
    /// Three: red, green, blue.
    Rgb,
}

/// The sides that [`Reading::size`] may ask for.
const SIDES: std::ops::RangeInclusive<usize> = 4..=1024;

/// Bytes of pictures in memory, at most.
const LIMIT: usize = 4 << 30;

/// Reads the pictures at `path`, and the labels that belong to them.
///
/// - An IDX file of pictures, packed as `.gz` or not; labels lie beside it under MNIST's names (`…-images-idx3-ubyte`,
///   `…-labels-idx1-ubyte`). A folder of such files: `t10k-…`, `test-…` or `val-…` is held out. `label-names.txt` beside them
///   may name the labels, one a line.
/// - CIFAR-10's binary version: `cifar-10-binary.tar.gz` as it is, the folder that it unpacks to, or one of its `.bin` files.
/// - A folder of `.png` and `.jpg` files. Folders in it are labels, whatever lies below them; without folders there are no
///   labels. Where it holds `train` and one of `val`, `valid`, `test`, these are two such folders, the second held out.
///
/// In folders of PNG and JPEG a file that cannot be read is passed over and counted; everything else is an error.
///
/// # Errors
/// Nothing is there, or it is no such thing; a file is damaged; sizes differ and [`Reading::size`] is not given; labels do
/// not fit the pictures; there is no picture at all.
pub fn open(path: impl AsRef<Path>, how: &Reading) -> Result<Found> {
    let path = path.as_ref();
    if let Some(size) = how.size
        && !SIDES.contains(&size)
    {
        let (least, most) = (SIDES.start(), SIDES.end());
        return Err(Error::usage(
            format!("pictures are not scaled to {size} x {size}"),
            format!("choose from {least} to {most}; 28 or 32 suit small models"),
        ));
    }
    let meta = path.metadata().at(path)?;
    if !meta.is_dir() && !meta.is_file() {
        let hint = "give a file that is on a disk";
        return Err(Error::format(path, "kind of file", "a regular file or a folder", "a pipe or a device", hint));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (train, held_out) = if meta.is_dir() {
        if let Some(files) = idx::in_folder(path)? {
            (idx::pictures(&files.train)?, files.held_out.map(|file| idx::pictures(&file)).transpose()?)
        } else if let Some(folder) = cifar::folder(path) {
            cifar::read_folder(&folder)?
        } else {
            return folder::read(path, how);
        }
    } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        cifar::read_archive(path)?
    } else if name.ends_with(".bin") {
        (cifar::read_file(path)?, None)
    } else if decode::readable(path).is_ok() {
        let hint = "give the folder that it lies in";
        return Err(Error::usage(format!("{} is a single picture", path.display()), hint));
    } else {
        (idx::pictures(path)?, None)
    };
    let fit = |pictures: Pictures| fit::all(pictures, how, path);
    Ok(Found { train: fit(train)?, held_out: held_out.map(fit).transpose()?, skips: Default::default() })
}

/// Whether a file or folder looks as if [`open`] would find pictures there: by names alone. Of a folder that is none of the
/// known kinds, most files must be pictures.
pub fn are_at(path: &Path) -> bool {
    let named = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        name.contains("idx3-ubyte") || name.contains("idx4-ubyte") || cifar::named(&name)
    };
    let list = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).take(1000).collect()
    };
    if !path.is_dir() {
        return named(path);
    }
    if cifar::folder(path).is_some() {
        return true;
    }
    let (mut pictures, mut others) = (0, 0);
    let mut rest = list(path);
    // Folders of folders of classes are as deep as it goes.
    for _ in 0..3 {
        let (folders, files): (Vec<_>, Vec<_>) = rest.into_iter().partition(|path| path.is_dir());
        pictures += files.iter().filter(|file| named(file) || decode::readable(file).is_ok()).count();
        others += files.iter().filter(|file| !named(file) && decode::readable(file).is_err()).count();
        rest = folders.iter().take(100).flat_map(|folder| list(folder)).collect();
    }
    pictures > others || (pictures > 0 && list(path).iter().any(|path| named(path)))
}
