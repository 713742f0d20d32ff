//! Small files, read whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{AtPath, Error, Result};

/// The text of the file at `path`, at most `limit` bytes.
///
/// # Errors
/// It cannot be read, is no regular file (a pipe would be waited for, a device has no end), is longer, or is not UTF-8.
pub fn text(path: &Path, limit: u64) -> Result<String> {
    let meta = path.metadata().at(path)?;
    if !meta.is_file() {
        let found = if meta.is_dir() { "a folder" } else { "a pipe or a device" };
        return Err(Error::format(path, "kind of file", "a regular file", found, "give the file itself"));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(limit) as usize);
    // One byte more tells that there is more, whatever the size was said to be.
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).at(path)?;
    if bytes.len() as u64 > limit {
        let found = format!("{} bytes", meta.len().max(limit + 1));
        let hint = "this is another kind of file, or damaged: check the path";
        return Err(Error::format(path, "size", format!("at most {limit} bytes"), found, hint));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let found = format!("the byte 0x{:02x}", e.as_bytes()[at]);
        Error::format(path, format!("byte {at}"), "UTF-8 text", found, "convert the file to UTF-8, or check the path")
    })
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
            text(&path, 10).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"0123456789").as_deref(), Ok("0123456789"));
        assert_eq!(read(b"").as_deref(), Ok(""));
        assert!(read(b"01234567890").unwrap_err().contains("at most 10 bytes, found 11 bytes"));
        assert!(read(b"caf\xe9").unwrap_err().contains("byte 3: expected UTF-8 text, found the byte 0xe9"));
        assert!(text(dir.path(), 10).unwrap_err().to_string().contains("a folder"));
        if cfg!(unix) {
            assert!(text(Path::new("/dev/zero"), 10).unwrap_err().to_string().contains("a device"));
        }
    }
}
