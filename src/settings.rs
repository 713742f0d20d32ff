//! Settings in TOML: a default text that names every key, a user's text laid over it key by key, then `key=value`
//! overrides. Errors name the key, its line and the nearest known one.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde_path_to_error::Track;
use std::fmt;
use std::path::Path;
use toml::{Table, Value};

/// The keys of one kind of settings.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Sections with every key that has a default.
    pub default: &'static str,
    /// The keys without one, as `data.path`. The value of one may be a table, whose own keys are set as `optim.dp.clip`.
    pub optional: &'static [&'static str],
    /// Sections with keys of their own, which are not known here.
    pub free: &'static [&'static str],
    /// The file of the default, for hints.
    pub file: &'static str,
    /// An override, for hints.
    pub example: &'static str,
}

impl Schema {
    /// The default under `text` under `overrides`; `file` is the name of `text` in messages.
    ///
    /// # Errors
    /// No TOML; an unknown key; a value of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self, text: &str, file: &Path, overrides: &[String]) -> Result<T> {
        let (all, set) = self.lay(text, file, overrides)?;
        let mut track = Track::new();
        // Erased: else every section would be compiled for this reader's own chain of types.
        let found = {
            let tracked = serde_path_to_error::Deserializer::new(Value::Table(all), &mut track);
            erased_serde::deserialize(&mut <dyn erased_serde::Deserializer>::erase(tracked))
        };
        found.map_err(|e| self.wrong(&track.path().to_string(), &e.to_string(), text, file, &set))
    }

    /// The default under `text` under `overrides`, and the keys of these.
    fn lay<'a>(&self, text: &str, file: &Path, overrides: &'a [String]) -> Result<(Table, Vec<&'a str>)> {
        let mut all = self.table();
        let own: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| line_at(text, span.start));
            Error::format(file, format!("line {line}"), "TOML", e.message(), "text is quoted, as name = \"my-run\"")
        })?;
        let from_file = |key: &str| from_file(text, file, key);
        for (section, value) in own {
            let Some(known) = all.get_mut(&section).and_then(Value::as_table_mut) else {
                return Err(self.unknown(&section, &from_file(&section)));
            };
            let Value::Table(values) = value else {
                let problem = format!("expected a section, found {}{}", value.type_str(), from_file(&section));
                return Err(Error::config(&section, problem, format!("start it with a line [{section}]")));
            };
            for (key, value) in values {
                let path = format!("{section}.{key}");
                if !self.knows(&path) {
                    return Err(self.unknown(&path, &from_file(&path)));
                }
                match (known.get_mut(&key), value) {
                    (Some(Value::Table(own)), Value::Table(value)) => own.extend(value),
                    (_, value) => _ = known.insert(key, value),
                }
            }
        }
        let mut set = Vec::new();
        for text in overrides {
            let Some((path, value)) = text.split_once('=') else {
                let hint = format!("write --set {}", self.example);
                return Err(Error::usage(format!("--set {text} has no value"), hint));
            };
            let (path, value) = (path.trim(), value.trim());
            if !self.knows(path) {
                return Err(self.unknown(path, " (--set)"));
            }
            let (section, key) = path.split_once('.').expect("every known key has a section");
            let known = all.get_mut(section).and_then(Value::as_table_mut).expect("every section is in the default");
            let plain = Value::String(value.to_owned());
            let value = match value.parse::<Value>() {
                // A name such as 2025 need not be quoted.
                Ok(value) if value.is_str() || !known.get(key).is_some_and(Value::is_str) => value,
                _ => plain,
            };
            match key.split_once('.') {
                // A key of a table; or of a recipe in a free section, which the text may have as `optim.lr` or as `"optim.lr"`.
                Some((inner, last)) => {
                    known.remove(key);
                    let mut inner = known.entry(inner).or_insert_with(|| Value::Table(Table::new()));
                    let mut last = last;
                    // A table within the table.
                    while let Some((next, rest)) = last.split_once('.').filter(|_| !self.free.contains(&section)) {
                        inner = table(inner).entry(next).or_insert_with(|| Value::Table(Table::new()));
                        last = rest;
                    }
                    table(inner).insert(last.to_owned(), value);
                }
                None => _ = known.insert(key.to_owned(), value),
            }
            set.push(path);
        }
        Ok((all, set))
    }

    /// What is wrong with the value at `path`, of which serde says `message`.
    fn wrong(&self, path: &str, message: &str, text: &str, file: &Path, set: &[&str]) -> Error {
        let is_set = set.iter().any(|set| path == *set || path.starts_with(&format!("{set}.")));
        let place = if is_set { " (--set)".into() } else { from_file(text, file, path) };
        if let Some(names) = message.strip_prefix("unknown field ") {
            return self.unknown_within(path, names, &place);
        }
        let (problem, mut hint) = wrong_value(message);
        if hint.is_empty() {
            hint = match self.default_of(path) {
                Some(default) => format!("the default is {path} = {default}"),
                None => format!("give {path} another value, or leave it out"),
            };
        }
        Error::config(path, problem + &place, hint)
    }

    /// A key that a table does not have; serde's `names` quotes it, and then those that there are.
    fn unknown_within(&self, path: &str, names: &str, place: &str) -> Error {
        let mut quoted = names.split('`').skip(1).step_by(2);
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let table = path.strip_suffix(found).and_then(|table| table.strip_suffix('.')).unwrap_or(path);
        let hint = match nearest(found, known.iter().copied()) {
            Some(near) => format!("did you mean {table}.{near}?"),
            None => format!("{table} has {}", known.join(", ")),
        };
        Error::config(format!("{table}.{found}"), format!("no such key{place}"), hint)
    }

    fn knows(&self, key: &str) -> bool {
        let section = key.split_once('.').map(|(section, _)| section);
        // Keys of a table are known to who reads it.
        let table = key.match_indices('.').nth(1).map(|(dot, _)| &key[..dot]);
        section.is_some_and(|section| self.free.contains(&section))
            || table.is_some_and(|table| self.optional.contains(&table))
            || self.keys().iter().any(|known| known == key)
    }

    /// Every key, as `train.steps`.
    pub fn keys(&self) -> Vec<String> {
        let table = self.table();
        let named = table.iter().flat_map(|(section, values)| {
            values.as_table().into_iter().flat_map(move |t| t.keys().map(move |key| format!("{section}.{key}")))
        });
        named.chain(self.optional.iter().map(|key| (*key).to_owned())).collect()
    }

    fn table(&self) -> Table {
        self.default.parse().expect("the embedded settings are TOML")
    }

    /// The value of a key in the default.
    fn default_of(&self, key: &str) -> Option<Value> {
        let (section, key) = key.split_once('.')?;
        self.table().get(section)?.get(key).cloned()
    }

    fn unknown(&self, key: &str, place: &str) -> Error {
        let keys = self.keys();
        let sections = keys.iter().map(|k| k.split_once('.').expect("dotted").0);
        let near = match key.contains('.') {
            true => nearest(key, keys.iter().map(String::as_str)),
            // A section, or a key without one.
            false => {
                keys.iter().map(String::as_str).find(|k| k.ends_with(&format!(".{key}"))).or(nearest(key, sections))
            }
        };
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("{} names every key", self.file),
        };
        Error::config(key, format!("no such key{place}"), hint)
    }
}

/// Settings as TOML.
///
/// # Panics
/// They have no form in TOML, as a map with keys that are no text.
pub fn to_toml(settings: &dyn erased_serde::Serialize) -> String {
    toml::to_string(settings).expect("settings have a form in TOML")
}

/// Where `text` sets `key`, as ` (FILE, line N)`.
fn from_file(text: &str, file: &Path, key: &str) -> String {
    line_of(text, key).map_or(String::new(), |n| format!(" ({}, line {n})", file.display()))
}

/// What serde says of a value, in words for people; and a hint.
fn wrong_value(message: &str) -> (String, String) {
    // Below it TOML's reader says where that is, for which there is a path.
    let message = message.trim().lines().next().unwrap_or_default();
    if message.starts_with("unknown variant") {
        // unknown variant `cosin`, expected one of `linear`, `cosine`
        let mut quoted = message.split('`').skip(1).step_by(2);
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let hint = match nearest(found, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => String::new(),
        };
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        return (format!("expected {}, found \"{found}\"", known.join(" or ")), hint);
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return (message.to_owned(), String::new());
    };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ").replace('`', "");
    let expected = match expected {
        "u64" | "usize" | "u32" => "a whole number, 0 or more",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a section",
        other => other,
    };
    (format!("expected {expected}, found {found}"), String::new())
}

/// The one of `known` that `found` was probably meant to be. For a dotted key the last part counts most, so that a key
/// in the wrong section is found.
pub fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |key: &str| {
        let leaves = strsim::normalized_damerau_levenshtein(&leaf(found), &leaf(key));
        leaves + 0.3 * strsim::normalized_damerau_levenshtein(found, key)
    };
    known.map(|key| (score(key), key)).filter(|&(s, _)| s > 0.65).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// An error that names `key` unless `holds`.
pub fn require(holds: bool, key: &str, value: impl fmt::Display, expected: impl fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(key, format!("{value} is out of range"), format!("give {expected}"))) }
}

/// Requires a value in a range.
pub fn range<T: PartialOrd + fmt::Display>(key: &str, value: T, range: std::ops::RangeInclusive<T>) -> Result<()> {
    require(range.contains(&value), key, &value, format_args!("{} to {}", range.start(), range.end()))
}

/// Requires a finite number above 0.
pub fn positive(key: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value > 0.0, key, value, "a finite number above 0")
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// The line on which `text` sets `path`.
fn line_of(text: &str, path: &str) -> Option<usize> {
    use toml::de::{DeTable, DeValue};
    let root = DeTable::parse(text).ok()?;
    let (section, key) = path.split_once('.').unwrap_or((path, ""));
    let (name, value) = root.get_ref().iter().find(|(name, _)| name.get_ref() == section)?;
    let name = match value.get_ref() {
        DeValue::Table(table) if !key.is_empty() => table.keys().find(|name| name.get_ref() == key)?,
        _ => name,
    };
    Some(line_at(text, name.span().start))
}

/// The value as a table; what else it was is replaced by an empty one.
fn table(value: &mut Value) -> &mut Table {
    if !value.is_table() {
        *value = Value::Table(Table::new());
    }
    value.as_table_mut().expect("a table")
}
