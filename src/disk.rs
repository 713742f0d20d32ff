//! The file system, as far as a run writes to it: a dozen operations that tests replace by a disk of their own.
//!
//! Only what was synced is sure to survive a loss of power: a file's content needs [`File::sync`], and a name that was
//! made, changed or taken away needs [`Disk::sync_dir`] of its folder. A rename happens wholly or not at all, but what
//! was not synced may happen in any order. Everything that must survive is written with that in mind, and
//! `tests/it/crash.rs` takes the power away after each operation.

use crate::error::{AtPath, Error, Result};
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A file system.
pub trait Disk: Debug + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;
    /// The names in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// What is at `path`; nothing where there is none.
    fn kind(&self, path: &Path) -> io::Result<Option<Kind>>;
    /// Whether anything is at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.kind(path)?.is_some())
    }
    /// Makes a folder in one that exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file or a folder another name; a file may take another one's place.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that it holds.
    fn remove_all(&self, dir: &Path) -> io::Result<()>;
    /// Puts the names in a folder on disk, not what they name.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A pipe or a device.
    Other,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must exist. A pipe would be waited for, and a device has no end: they are refused.
    Read,
    /// To be written from the start; an older content is gone at once.
    Create,
    /// To be read, and written at its end; it is made if need be.
    Append,
    /// The same, and only its owner may read it.
    Private,
}

/// An open file.
pub trait File: Debug + Read + Write + Seek + Send {
    /// Puts the content on disk.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes the file's lock, which ends with the process at the latest; `false` where another one has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug)]
pub struct Os;

impl Disk for Os {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        if how == Open::Read {
            match self.kind(path)? {
                Some(Kind::Folder) => return Err(io::Error::new(ErrorKind::IsADirectory, "Is a directory")),
                Some(Kind::Other) => {
                    return Err(io::Error::new(ErrorKind::InvalidInput, "a pipe or a device, not a file"));
                }
                Some(Kind::File) | None => {}
            }
        }
        let mut options = OpenOptions::new();
        match how {
            Open::Read => options.read(true),
            Open::Create => options.write(true).create(true).truncate(true),
            Open::Append | Open::Private => options.read(true).append(true).create(true),
        };
        #[cfg(unix)]
        if how == Open::Private {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        Ok(Box::new(options.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match path.metadata() {
            Ok(meta) if meta.is_file() => Ok(Some(Kind::File)),
            Ok(meta) if meta.is_dir() => Ok(Some(Kind::Folder)),
            Ok(_) => Ok(Some(Kind::Other)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            return Ok(());
        }
        let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
        // Not every system can sync a folder, nor may every folder that can be written to be opened.
        let cannot = [ErrorKind::InvalidInput, ErrorKind::Unsupported, ErrorKind::PermissionDenied];
        synced.or_else(|e| if cannot.contains(&e.kind()) { Ok(()) } else { Err(e) })
    }
}

impl File for std::fs::File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        std::fs::File::set_len(self, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match std::fs::File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// The whole content of a file.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.open(path, Open::Read).and_then(|mut file| file.read_to_end(&mut bytes)).at(path)?;
    Ok(bytes)
}

/// The text of the file at `path`, at most `limit` bytes.
///
/// # Errors
/// It cannot be read, is no regular file, is longer, or is not UTF-8.
pub fn text(disk: &dyn Disk, path: &Path, limit: u64) -> Result<String> {
    let file = disk.open(path, Open::Read).map_err(|e| match e.kind() {
        ErrorKind::InvalidInput => Error::format(path, "kind of file", "a regular file", e, "give the file itself"),
        _ => Error::io(path, e),
    })?;
    let mut bytes = Vec::new();
    // One byte more tells that there is more.
    file.take(limit + 1).read_to_end(&mut bytes).at(path)?;
    if bytes.len() as u64 > limit {
        let (expected, found) = (format!("at most {limit} bytes"), "more");
        let hint = "this is another kind of file, or damaged: check the path";
        return Err(Error::format(path, "size", expected, found, hint));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let found = format!("the byte 0x{:02x}", e.as_bytes()[at]);
        Error::format(path, format!("byte {at}"), "UTF-8 text", found, "convert the file to UTF-8, or check the path")
    })
}

/// Makes the folder `dir` and those above it where they are missing; its name is on disk then.
pub fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let made = match disk.create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound && !parent(dir).as_os_str().is_empty() => {
            make_dirs(disk, parent(dir))?;
            disk.create_dir(dir)
        }
        made => made,
    };
    match made {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e).at(dir),
        // What bears the name may be a file.
        Err(_) => drop(disk.list(dir).at(dir)?),
        Ok(()) => {}
    }
    // Who made it may have ended before its name was on disk.
    disk.sync_dir(parent(dir)).at(dir)
}

/// Removes a folder with all that it holds, if it is there.
pub fn remove_all(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.remove_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).at(dir),
        _ => Ok(()),
    }
}

/// The folder of `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// The name under which the file `path` is written until it is whole. It tells a process that shares the folder from
/// others, and [`sweep`] what it may remove.
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Whether `name` is one that [`temporary`] makes.
pub fn is_temporary(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
}

/// Removes what a process that was killed left unfinished in the folder `dir`, if there is such a folder.
pub fn sweep(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let names = match disk.list(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        names => names.at(dir)?,
    };
    for path in names.iter().filter(|name| is_temporary(name)).map(|name| dir.join(name)) {
        disk.remove(&path).at(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_of_a_sane_size_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            text(&Os, &path, 10).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"0123456789").as_deref(), Ok("0123456789"));
        assert_eq!(read(b"").as_deref(), Ok(""));
        assert!(read(b"01234567890").unwrap_err().contains("at most 10 bytes, found more"));
        assert!(read(b"caf\xe9").unwrap_err().contains("byte 3: expected UTF-8 text, found the byte 0xe9"));
        assert!(text(&Os, dir.path(), 10).unwrap_err().to_string().contains("Is a directory"));
        if cfg!(unix) {
            assert!(text(&Os, Path::new("/dev/zero"), 10).unwrap_err().to_string().contains("a device"));
        }
    }
}
