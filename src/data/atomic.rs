//! Files that are either whole or absent.

use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk, File, Kind, Open};
use crate::error::{AtPath, Error, Result};

/// A file written under a temporary name beside its target and renamed when it is complete and on disk. Dropped
/// before [`AtomicFile::commit`], it leaves nothing behind and an older file of that name untouched.
pub struct AtomicFile<'d> {
    disk: &'d dyn Disk,
    file: BufWriter<Box<dyn File>>,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl<'d> AtomicFile<'d> {
    /// Starts a file that will appear at `path`; its folder must exist.
    ///
    /// # Errors
    /// Something else than a file bears the name: a rename would put a file in the place of a device.
    pub fn create(disk: &'d dyn Disk, path: &Path) -> Result<AtomicFile<'d>> {
        let found = match disk.kind(path).at(path)? {
            Some(Kind::Folder) => Some("a folder"),
            Some(Kind::Other) => Some("a pipe or a device"),
            Some(Kind::File) | None => None,
        };
        if let Some(found) = found {
            return Err(Error::format(path, "kind of file", "a file, or none yet", found, "choose another name"));
        }
        let temporary = disk::temporary(path);
        let file = BufWriter::with_capacity(1 << 18, disk.open(&temporary, Open::Create).at(path)?);
        Ok(AtomicFile { disk, file, temporary, path: path.to_owned(), committed: false })
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at(&self.path)
    }

    /// Overwrites the first bytes of the file, for a header whose counts are known only at the end.
    pub fn rewrite_start(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.rewind().at(&self.path)?;
        self.file.write_all(bytes).at(&self.path)
    }

    /// Puts everything on disk and gives the file its name; when this returns, the name is on disk as well.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().at(&self.path)?;
        self.file.get_ref().sync().at(&self.path)?;
        self.disk.rename(&self.temporary, &self.path).at(&self.path)?;
        self.committed = true;
        self.disk.sync_dir(disk::parent(&self.path)).at(&self.path)
    }
}

impl Drop for AtomicFile<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

/// Writes a whole file atomically.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(disk, path)?;
    file.write(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    #[test]
    fn an_unfinished_file_leaves_the_old_one_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&Os, &path, b"old").unwrap();
        let mut file = AtomicFile::create(&Os, &path).unwrap();
        file.write(b"half of the new").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_start_can_be_fixed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let mut file = AtomicFile::create(&Os, &path).unwrap();
        file.write(b"....body").unwrap();
        file.rewrite_start(b"head").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"headbody");
    }
}
