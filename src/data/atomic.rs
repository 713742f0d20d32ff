//! Files that are either whole or absent.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{AtPath, Error, Result};

/// A file written under a temporary name beside its target and renamed when it is complete and on disk. Dropped
/// before [`AtomicFile::commit`], it leaves nothing behind and an older file of that name untouched.
pub struct AtomicFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Starts a file that will appear at `path`; its folder must exist.
    ///
    /// # Errors
    /// Something else than a file bears the name: a rename would put a file in the place of a device.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        if let Some(meta) = path.metadata().ok().filter(|meta| !meta.is_file()) {
            let found = if meta.is_dir() { "a folder" } else { "a pipe or a device" };
            return Err(Error::format(path, "kind of file", "a file, or none yet", found, "choose another name"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = BufWriter::with_capacity(1 << 18, File::create(&temporary).at(path)?);
        Ok(AtomicFile { file, temporary, path: path.to_owned(), committed: false })
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

    /// Puts everything on disk and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().at(&self.path)?;
        self.file.get_ref().sync_all().at(&self.path)?;
        std::fs::rename(&self.temporary, &self.path).at(&self.path)?;
        self.committed = true;
        // A rename survives a power failure only once its folder is on disk. Not every system can sync a folder.
        if let Some(folder) = self.path.parent()
            && let Ok(folder) = File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole file atomically.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_the_old_one_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"half of the new").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_start_can_be_fixed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"....body").unwrap();
        file.rewrite_start(b"head").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"headbody");
    }
}
