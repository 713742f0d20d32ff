//! Configurations of picture models: as `config.json` (their fields, and `model_type`), and what all of them are checked for.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// A field of a configuration with a value that no model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its name.
    pub field: &'static str,
    /// What it should be.
    pub expected: String,
}

/// Requires of `field` that it is `expected`.
pub(super) fn require(holds: bool, field: &'static str, expected: impl ToString) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong { field, expected: expected.to_string() }) }
}

/// Requires a number of channels, or of variables, that a model may have.
pub(super) fn count(field: &'static str, n: usize) -> Result<(), Wrong> {
    require((1..=1 << 16).contains(&n), field, "1 to 65536")
}

/// Requires a shape (H, W, C) of pictures that a model may have.
pub(super) fn shape([height, width, channels]: [usize; 3]) -> Result<(), Wrong> {
    let sides = [height, width].iter().all(|side| (4..=1024).contains(side));
    require(sides && (1..=4).contains(&channels), "shape", "sides of 4 to 1024 pixels, and 1 to 4 channels")
}

/// Requires channels of convolutions, each of which halves both sides of pictures.
pub(super) fn halving(field: &'static str, channels: &[usize], [height, width, _]: [usize; 3]) -> Result<(), Wrong> {
    channels.iter().try_for_each(|&channels| count(field, channels))?;
    let halved = |side: usize| channels.len() < 10 && side.is_multiple_of(1 << channels.len());
    require(halved(height) && halved(width), field, format!("fewer of them: each halves {height} and {width}"))
}

/// Requires a number of classes, if any, that a model may have.
pub(super) fn classes(classes: Option<usize>) -> Result<(), Wrong> {
    require(classes.is_none_or(|n| (2..=1 << 16).contains(&n)), "classes", "2 to 65536, or null")
}

/// The fields of a configuration, and its `model_type`.
pub(super) fn to_json(model_type: &str, config: &impl Serialize) -> Value {
    let mut json = serde_json::to_value(config).expect("numbers, names and lists");
    json["model_type"] = model_type.into();
    json
}

/// Reads what [`to_json`] writes.
///
/// # Errors
/// A field is missing or has a value that `check` refuses; `path` names the file in the message.
pub(super) fn from_json<T: DeserializeOwned>(
    model_type: &str,
    json: &Value,
    path: &Path,
    check: impl Fn(&T) -> Result<(), Wrong>,
) -> Result<T> {
    const HINT: &str = "give a run or checkpoint that kiln train wrote";
    if json["model_type"] != model_type {
        return Err(Error::format(path, "model_type", format!("\"{model_type}\""), &json["model_type"], HINT));
    }
    let config: T = serde_path_to_error::deserialize(json).map_err(|error| {
        let field = error.path().to_string();
        Error::format(path, field, format!("a configuration of a {model_type}"), error.inner(), HINT)
    })?;
    check(&config).map_err(|wrong| Error::format(path, wrong.field, wrong.expected, &json[wrong.field], HINT))?;
    Ok(config)
}
