//! Folders of PNG and JPEG files, a folder a class.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::{self, KINDS, Picture};
use super::set::{Dims, Found, Pictures};
use super::{Reading, fit};
use crate::data::source::walk::{Entry, Walk};
use crate::data::source::{Reason, Skipped, Skips};
use crate::error::{AtPath, Error, Result};

/// Bytes of pictures that are decoded before they are put together, roughly; but some files at least.
const AHEAD: usize = 128 << 20;
const LEAST: usize = 16;
/// Names of a folder of pictures that are held out, beside one called `train`.
const HELD_OUT: [&str; 4] = ["val", "valid", "validation", "test"];

/// Reads a folder.
pub(super) fn read(dir: &Path, how: &Reading) -> Result<Found> {
    let (root, held_out) = parts(dir)?;
    let mut skips = Skips::default();
    let train = files(&root, &mut skips)?;
    let val = held_out.as_ref().map(|root| files(root, &mut skips)).transpose()?;
    let classes = |root: &Path, files: &[Entry]| files.iter().map(|file| class(root, file)).collect::<Vec<_>>();
    let train_classes = classes(&root, &train);
    let val_classes = held_out.iter().zip(&val).flat_map(|(root, files)| classes(root, files)).collect::<Vec<_>>();
    let all = train.iter().zip(&train_classes).chain(val.iter().flatten().zip(&val_classes));
    let names: BTreeSet<&String> = all.clone().filter_map(|(_, class)| class.as_ref()).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    if let (false, Some((file, _))) = (names.is_empty(), all.clone().find(|(_, class)| class.is_none())) {
        let hint = "move it into the folder of its class; or put all pictures beside one another, without labels";
        return Err(Error::format(&file.path, "folder", format!("a class, as {}", names[0]), "none", hint));
    }
    if names.len() > 1 << 16 {
        let found = format!("{} classes", names.len());
        let hint = "give a folder in which each folder is a class";
        return Err(Error::format(&root, "folders", "at most 65,536 classes", found, hint));
    }
    let label = |class: &Option<String>| class.as_ref().and_then(|class| names.binary_search(class).ok());
    let labels = |classes: &[Option<String>]| classes.iter().map(|class| label(class).map(|i| i as u16)).collect();
    let mut reader = Reader { how, dims: None };
    let mut raw = vec![reader.read(&root, &train, labels(&train_classes), &mut skips)?];
    if let (Some(root), Some(files)) = (&held_out, &val) {
        raw.push(reader.read(root, files, labels(&val_classes), &mut skips)?);
    }
    let (dims, _) = reader.dims.expect("a picture was read");
    let mut sets = raw.into_iter().map(|raw| raw.pictures(dims, &names));
    Ok(Found { train: sets.next().expect("the first part"), held_out: sets.next(), skips })
}

/// The folder to learn from, and that which is held out.
fn parts(dir: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let folders: Vec<PathBuf> =
        std::fs::read_dir(dir).at(dir)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let named = |name: &str| folders.iter().find(|folder| folder.file_name().is_some_and(|own| own == name)).cloned();
    Ok(match (named("train"), HELD_OUT.iter().find_map(|name| named(name))) {
        (Some(train), held_out) if held_out.is_some() || folders.len() == 1 => (train, held_out),
        _ => (dir.to_owned(), None),
    })
}

/// The pictures below a folder, sorted by path.
fn files(root: &Path, skips: &mut Skips) -> Result<Vec<Entry>> {
    let walk = Walk::new(&[root], decode::readable, true)?;
    skips.append(walk.skips);
    if walk.files.is_empty() {
        let other = walk.others.first().map_or(String::new(), |path| format!("; {} is none", path.display()));
        let problem = format!("{} holds no pictures", root.display());
        return Err(Error::failed(problem, format!("give a folder with files that end in {KINDS}{other}")));
    }
    Ok(walk.files)
}

/// The class of a file: the first folder below the root that it lies in.
fn class(root: &Path, file: &Entry) -> Option<String> {
    let mut parts = file.path.strip_prefix(root).ok()?.components();
    let first = parts.next()?;
    parts.next().map(|_| first.as_os_str().to_string_lossy().into_owned())
}

/// A part that was read.
struct Raw {
    channels: usize,
    values: Vec<u8>,
    labels: Vec<Option<u16>>,
}

impl Raw {
    /// The pictures, in colour where another part is.
    fn pictures(mut self, dims: Dims, names: &[String]) -> Pictures {
        if self.channels < dims.channels {
            self.values = fit::grey_to_rgb(&self.values);
        }
        let labels: Option<Vec<u16>> = self.labels.into_iter().collect();
        Pictures::new(dims, self.values, labels.filter(|_| !names.is_empty()), names.to_vec())
    }
}

/// Reads files to pictures of one size.
struct Reader<'a> {
    how: &'a Reading,
    /// The size of all, and the file that set it.
    dims: Option<(Dims, PathBuf)>,
}

impl Reader<'_> {
    fn read(&mut self, root: &Path, files: &[Entry], labels: Vec<Option<u16>>, skips: &mut Skips) -> Result<Raw> {
        let mut labels = labels.into_iter();
        let mut raw = Raw { channels: 1, values: Vec::new(), labels: Vec::new() };
        let mut first = None;
        let mut skipped = 0;
        let mut rest = files;
        while !rest.is_empty() {
            let ahead = self.dims.as_ref().map_or(LEAST, |(dims, _)| (AHEAD / dims.values()).max(LEAST));
            let (files, after) = rest.split_at(ahead.min(rest.len()));
            rest = after;
            let decode = |file: &Entry| decode::file(file).map(|picture| fit::one(picture, self.how));
            let pictures: Vec<_> = files.par_iter().map(decode).collect();
            for (file, picture) in files.iter().zip(pictures) {
                let label = labels.next().expect("a label for each file");
                match picture {
                    Ok(picture) => {
                        self.add(&mut raw, &file.path, picture)?;
                        raw.labels.push(label);
                        fit::room(root, raw.labels.len(), self.dims.as_ref().expect("a picture was added").0)?;
                    }
                    Err((reason, what)) => {
                        skipped += 1;
                        first.get_or_insert_with(|| (file.path.clone(), reason, what.clone()));
                        skips.add(Skipped { path: file.path.clone(), reason, what });
                    }
                }
            }
        }
        match first {
            Some((path, reason, what)) if raw.labels.is_empty() => {
                let expected = "a PNG or a JPEG of at most 8 bits a channel, opaque, grey or RGB";
                let hint = format!("{}; none of the {skipped} pictures in {} is read", cure(reason), root.display());
                Err(Error::format(path, "picture", expected, what, hint))
            }
            _ => Ok(raw),
        }
    }

    /// Adds a picture to a part. Grey ones become coloured as soon as one is.
    fn add(&mut self, raw: &mut Raw, path: &Path, mut picture: Picture) -> Result<()> {
        let (dims, first) = self.dims.get_or_insert_with(|| (picture.dims, path.to_owned()));
        if (dims.height, dims.width) != (picture.dims.height, picture.dims.width) {
            let size = |dims: &Dims| format!("{} x {}", dims.width, dims.height);
            return Err(Error::format(
                path,
                "size",
                format!("{}, as {}", size(dims), first.display()),
                size(&picture.dims),
                format!("give --size {}: the middle of each is then scaled to it", dims.height.min(dims.width)),
            ));
        }
        dims.channels = dims.channels.max(picture.dims.channels);
        if raw.channels < dims.channels {
            raw.values = fit::grey_to_rgb(&raw.values);
            raw.channels = dims.channels;
        }
        if picture.dims.channels < raw.channels {
            picture.values = fit::grey_to_rgb(&picture.values);
        }
        raw.values.append(&mut picture.values);
        Ok(())
    }
}

/// What can be done about a picture that is not read.
fn cure(reason: Reason) -> &'static str {
    match reason {
        Reason::Deep => "convert it to 8 bits a channel, scaled as it should be seen",
        Reason::Print => "convert it to RGB",
        Reason::Transparent => "put it on a ground: remove its alpha channel",
        Reason::TooLong => "make it smaller",
        _ => "replace it by one that opens elsewhere",
    }
}
