//! The files behind paths: files, folders and patterns such as `data/**/*.txt`.
//!
//! A walk never leaves its folder: symbolic links are not followed (a target inside is met under its own name), `..` does
//! not occur, hidden names are passed over, and what is no regular file is never opened.

use std::path::{Component, Path, PathBuf};

use super::kind;
use super::skip::{Reason, Skipped, Skips};
use crate::error::{AtPath, Error, Result};

/// A file to read.
#[derive(Clone, Debug)]
pub(in crate::data) struct Entry {
    pub path: PathBuf,
    pub bytes: u64,
    /// Whether it was met on a walk, so that it must be no link when it is opened.
    #[cfg_attr(not(unix), expect(dead_code))]
    pub walked: bool,
}

/// What is found below the paths of a caller.
#[derive(Clone, Debug)]
pub(in crate::data) struct Walk {
    pub files: Vec<Entry>,
    pub skips: Skips,
    /// Files that no kind fits.
    pub others: Vec<PathBuf>,
    /// Whether a file is of a kind that is read; the error says what to do instead.
    readable: fn(&Path) -> Result<()>,
    lenient: bool,
}

impl Walk {
    /// Finds the files, in the order of `paths` and sorted within folders.
    pub fn new<P: AsRef<Path>>(paths: &[P], readable: fn(&Path) -> Result<()>, lenient: bool) -> Result<Walk> {
        let mut walk = Walk { files: Vec::new(), skips: Skips::default(), others: Vec::new(), readable, lenient };
        for path in paths.iter().map(AsRef::as_ref) {
            let is_pattern = path.to_str().is_some_and(|text| text.contains(['*', '?', '[']));
            if is_pattern && path.symlink_metadata().is_err() {
                walk.pattern(path)?;
                continue;
            }
            let meta = path.metadata().at(path)?;
            if meta.is_dir() {
                let root = path.canonicalize().at(path)?;
                walk.folder(path, &root, &|_| true)?;
            } else {
                (walk.readable)(path)?;
                walk.files.push(Entry { path: path.to_owned(), bytes: meta.len(), walked: false });
            }
        }
        Ok(walk)
    }

    /// Walks the folder before the first part of a pattern that has a wildcard.
    fn pattern(&mut self, path: &Path) -> Result<()> {
        let bad = |what: &str| {
            let problem = format!("{} is not a pattern: {what}", path.display());
            Error::usage(problem, "patterns are as in a shell: data/**/*.txt")
        };
        let mut base = PathBuf::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next_if(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '['])) {
            base.push(part);
        }
        let rest: PathBuf = parts.collect();
        if rest.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(bad("`..` after a wildcard"));
        }
        let pattern = glob::Pattern::new(&rest.to_string_lossy()).map_err(|e| bad(e.msg))?;
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let folder = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
        let root = folder.canonicalize().at(folder)?;
        let before = self.files.len();
        self.folder(folder, &root, &|found| {
            found.strip_prefix(folder).is_ok_and(|name| pattern.matches_path_with(name, options))
        })?;
        if self.files.len() == before {
            let hint = format!(
                "quote the pattern so that the shell leaves it alone, and check it; kiln reads {}",
                kind::KINDS
            );
            return Err(Error::failed(format!("no file matches {}", path.display()), hint));
        }
        Ok(())
    }

    /// Passes something over, or fails with `error` where reading is strict and there is one.
    fn skip(&mut self, path: PathBuf, reason: Reason, what: String, error: Option<Error>) -> Result<()> {
        if let Some(error) = error.filter(|_| !self.lenient) {
            return Err(error);
        }
        if matches!(reason, Reason::OtherKind | Reason::NotAFile) {
            self.others.push(path.clone());
        }
        self.skips.add(Skipped { path, reason, what });
        Ok(())
    }

    /// Walks a folder. What is still to be visited lies on a list of its own: folders may be nested deeper than calls.
    fn folder(&mut self, folder: &Path, root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        let mut rest = Vec::new();
        self.list(folder, &mut rest)?;
        while let Some(path) = rest.pop() {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                self.skip(path, Reason::Hidden, String::new(), None)?;
                continue;
            }
            let meta = match path.symlink_metadata() {
                Ok(meta) => meta,
                Err(e) => {
                    self.skip(path.clone(), Reason::Unreadable, e.to_string(), Some(Error::io(&path, e)))?;
                    continue;
                }
            };
            if meta.is_dir() {
                self.list(&path, &mut rest)?;
            } else if !wanted(&path) {
            } else if meta.is_symlink() {
                self.link(path, root)?;
            } else if !meta.is_file() {
                self.skip(path, Reason::NotAFile, String::new(), None)?;
            } else if (self.readable)(&path).is_ok() {
                self.files.push(Entry { path, bytes: meta.len(), walked: true });
            } else {
                self.skip(path, Reason::OtherKind, String::new(), None)?;
            }
        }
        Ok(())
    }

    /// Puts what is in a folder on top of the list, the first by name topmost.
    fn list(&mut self, folder: &Path, rest: &mut Vec<PathBuf>) -> Result<()> {
        let entries = std::fs::read_dir(folder).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
        let mut paths: Vec<PathBuf> = match entries {
            Ok(paths) => paths,
            Err(e) => {
                let what = e.to_string();
                return self.skip(folder.to_owned(), Reason::Unreadable, what, Some(Error::io(folder, e)));
            }
        };
        paths.sort_by(|a, b| b.cmp(a));
        rest.append(&mut paths);
        Ok(())
    }

    /// A link whose target lies below the root is met there under its own name; any other is refused.
    fn link(&mut self, path: PathBuf, root: &Path) -> Result<()> {
        match path.canonicalize() {
            Ok(target) if target.starts_with(root) => Ok(()),
            Ok(target) => {
                let expected = format!("a target inside {}", root.display());
                let hint = "remove the link, or give its target as a source of its own";
                let error = Error::format(&path, "symbolic link", expected, target.display(), hint);
                self.skip(path, Reason::Link, format!("to {}", target.display()), Some(error))
            }
            Err(e) => {
                let what = e.to_string();
                let error = Error::io(&path, e);
                self.skip(path, Reason::Link, what, Some(error))
            }
        }
    }
}

/// Opens a file, which must be a regular one, without ever waiting for a pipe.
pub(in crate::data) fn open(entry: &Entry) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // What was a file when the folder was walked may be a pipe or a link by now.
        options.custom_flags(libc::O_NONBLOCK | if entry.walked { libc::O_NOFOLLOW } else { 0 });
    }
    let file = options.open(&entry.path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}
