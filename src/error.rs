//! The one error type of the library.
//!
//! Every message names the file, key or value at fault and what was expected; [`Error::hint`] says what to do next.
//! Model arithmetic does not return errors: a wrong shape inside a model is a bug, and panics.

use std::path::{Path, PathBuf};

/// A result with kiln's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a file, a setting, a device or a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
        /// What to do next; may be empty.
        hint: String,
    },
    /// A file was read but is not what it should be.
    #[error("{}: {at}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in the file: a line, an offset, a field.
        at: String,
        /// What was expected there.
        expected: String,
        /// What was found instead.
        found: String,
        /// What to do next.
        hint: String,
    },
    /// The work could not be done, for a reason that lies in no single file or key.
    #[error("{problem}")]
    Failed {
        /// What is wrong.
        problem: String,
        /// What to do next.
        hint: String,
    },
    /// A recipe key, or `--set`, has a value that cannot be used.
    #[error("{key}: {problem}")]
    Config {
        /// The key, as `train.steps`.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to do next.
        hint: String,
    },
    /// The command was called in a way that makes no sense.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do next.
        hint: String,
    },
    /// A device cannot do what was asked of it.
    #[error("{problem}")]
    Device {
        /// What is wrong.
        problem: String,
        /// What to do next.
        hint: String,
    },
}

impl Error {
    /// An operating-system error on `path`, with the hint that fits its kind.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        use std::io::ErrorKind as Kind;
        let hint = match source.kind() {
            Kind::NotFound => "check the path; relative paths start at the current folder",
            Kind::PermissionDenied => "check the permissions of the file and of its folder",
            Kind::StorageFull | Kind::QuotaExceeded => {
                "free some disk space; nothing that was saved is lost, and a run goes on with: kiln train --resume RUN"
            }
            Kind::FileTooLarge => "raise the limit on the size of files (ulimit -f); nothing that was saved is lost",
            Kind::ReadOnlyFilesystem => "nothing can be written there: choose another folder",
            Kind::AlreadyExists => "a file of that name is in the way: choose another name",
            Kind::InvalidData => "the file should hold UTF-8 text",
            Kind::IsADirectory => "give a file, not a folder",
            Kind::NotADirectory => "a part of the path is a file, not a folder",
            _ => "the system refused this: check the path, and the disk that it is on",
        };
        Error::Io { path: path.as_ref().to_owned(), source, hint: hint.to_owned() }
    }

    /// A file whose content is wrong: where, what was expected, what was found, what to do.
    pub fn format(
        path: impl AsRef<Path>,
        at: impl ToString,
        expected: impl ToString,
        found: impl ToString,
        hint: impl ToString,
    ) -> Error {
        Error::Format {
            path: path.as_ref().to_owned(),
            at: at.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
            hint: hint.to_string(),
        }
    }

    /// Work that could not be done.
    pub fn failed(problem: impl ToString, hint: impl ToString) -> Error {
        Error::Failed { problem: problem.to_string(), hint: hint.to_string() }
    }

    /// A setting that cannot be used.
    pub fn config(key: impl ToString, problem: impl ToString, hint: impl ToString) -> Error {
        Error::Config { key: key.to_string(), problem: problem.to_string(), hint: hint.to_string() }
    }

    /// A command called wrongly.
    pub fn usage(problem: impl ToString, hint: impl ToString) -> Error {
        Error::Usage { problem: problem.to_string(), hint: hint.to_string() }
    }

    /// A device that cannot do what was asked.
    pub fn device(problem: impl ToString, hint: impl ToString) -> Error {
        Error::Device { problem: problem.to_string(), hint: hint.to_string() }
    }

    /// What the user can do next; `None` where nothing useful is known.
    pub fn hint(&self) -> Option<&str> {
        let hint = match self {
            Error::Io { hint, .. }
            | Error::Format { hint, .. }
            | Error::Failed { hint, .. }
            | Error::Config { hint, .. }
            | Error::Usage { hint, .. }
            | Error::Device { hint, .. } => hint,
        };
        (!hint.is_empty()).then_some(hint)
    }

    /// The process exit code for this error: 2 where what was asked for cannot be done, by the words of the call or of a
    /// recipe (flags, keys, values); 1 where doing it failed (files, data, devices, the system).
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } | Error::Config { .. } => 2,
            Error::Io { .. } | Error::Format { .. } | Error::Failed { .. } | Error::Device { .. } => 1,
        }
    }
}

/// Attaches a path to an [`std::io::Result`].
pub trait AtPath<T> {
    /// Turns an operating-system error into [`Error::Io`] on `path`.
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::io(path, source))
    }
}
