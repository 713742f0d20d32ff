//! Which version of a model is in service: a pointer in the folder of its versions, so that the folder is a model itself.
//!
//! `LINE/line.json` names the version; its files are in `LINE/NAME/run` where it was trained, in `LINE/NAME/model` where it was brought. The pointer
//! is replaced as a whole: whoever opens the folder gets one version or the other.

use super::checkpoint::read_json;
use crate::data::atomic::write_atomic;
use crate::disk::Os;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file of the pointer.
pub const POINTER: &str = "line.json";

/// Which version is in service, and which ones were before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// The version's folder.
    pub current: String,
    /// Those that it took the place of, the last one last.
    pub before: Vec<String>,
}

impl Pointer {
    /// That of the folder `line`; `None` where it is no such folder.
    ///
    /// # Errors
    /// It cannot be read, or names something else than a folder beside it.
    pub fn of(line: &Path) -> Result<Option<Pointer>> {
        let path = line.join(POINTER);
        if !path.is_file() {
            return Ok(None);
        }
        let pointer: Pointer = read_json(&Os, &path)?;
        if let Some(bad) = [&pointer.current].into_iter().chain(&pointer.before).find(|name| !is_name(name)) {
            let hint = "name a version: kiln update list";
            return Err(Error::format(&path, "current, before", "names of versions, as 0001", bad, hint));
        }
        Ok(Some(pointer))
    }

    /// Puts it in the place of the one that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, line: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("plain data") + "\n";
        write_atomic(&Os, &line.join(POINTER), text.as_bytes())
    }
}

/// Whether it can be a version's name: digits alone.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The model of a version's folder.
pub fn model_of(version: &Path) -> PathBuf {
    let run = version.join("run");
    if run.is_dir() { run } else { version.join("model") }
}

/// The model that is in service in the folder `path`; `None` where it is no folder of versions.
///
/// # Errors
/// As of [`Pointer::of`].
pub fn current(path: &Path) -> Result<Option<PathBuf>> {
    Ok(Pointer::of(path)?.map(|pointer| model_of(&path.join(pointer.current))))
}
