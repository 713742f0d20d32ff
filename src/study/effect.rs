//! What a study comes to: figures before something was done, after it, and of a control that it must not reach.

use crate::data::atomic::write_atomic;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// What a seed of a study leaves in its folder.
pub const FILE: &str = "effects.json";
/// It takes a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// How a figure is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// From 0 to 1, and said in percent.
    Share,
    /// In bits.
    Bits,
    /// As its name says.
    Plain,
}

/// A figure before, after, and of a control, each with what it is of. One that is not finite, as of a run that diverged, is kept as no number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Which figure.
    pub what: String,
    /// How it is read.
    pub unit: Unit,
    /// Where nothing was done.
    #[serde(deserialize_with = "or_nan")]
    pub before: (String, f64),
    /// Where it was.
    #[serde(deserialize_with = "or_nan")]
    pub after: (String, f64),
    /// Where there is nothing to find, or something else was done.
    #[serde(deserialize_with = "or_nan")]
    pub control: (String, f64),
}

/// JSON has no NaN: what is none is `null` there.
fn or_nan<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<(String, f64), D::Error> {
    let (of, value) = <(String, Option<f64>)>::deserialize(from)?;
    Ok((of, value.unwrap_or(f64::NAN)))
}

/// What came out of a study, for a seed.
pub trait Effects: Serialize {
    /// The name of the study.
    const STUDY: &'static str;
    /// What it asks.
    const ASKS: &'static str;

    /// Its figures, what it is about first.
    fn effects(&self) -> Vec<Effect>;
}

/// The effects of a seed, as they are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The study.
    pub study: String,
    /// What it asks.
    pub asks: String,
    /// The seed.
    pub seed: u64,
    /// Its figures.
    pub effects: Vec<Effect>,
}

/// Keeps the effects of a seed in its folder.
///
/// # Errors
/// They cannot be written.
pub fn keep<O: Effects>(outcome: &O, seed: u64, dir: &Path) -> Result<()> {
    let record = Record { study: O::STUDY.into(), asks: O::ASKS.into(), seed, effects: outcome.effects() };
    let text = serde_json::to_string_pretty(&record).expect("plain fields") + "\n";
    write_atomic(&Os, &dir.join(FILE), text.as_bytes())
}

/// The effects of all seeds of the study in the folder `dir`, in their order; none where that is no study.
///
/// # Errors
/// A file cannot be read.
pub fn load(dir: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path().join(FILE);
        if path.is_file() {
            let text = disk::text(&Os, &path, MAX_FILE)?;
            let wrong = |e: serde_json::Error| {
                Error::failed(format!("{}: {e}", path.display()), "the study's command writes it anew")
            };
            records.push(serde_json::from_str::<Record>(&text).map_err(wrong)?);
        }
    }
    records.sort_by_key(|record| record.seed);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Diverged;

    impl Effects for Diverged {
        const STUDY: &'static str = "none";
        const ASKS: &'static str = "Does it diverge?";

        fn effects(&self) -> Vec<Effect> {
            let side = |of: &str, value| (of.to_owned(), value);
            let [before, after, control] = [side("b", 0.5), side("a", f64::NAN), side("c", f64::INFINITY)];
            vec![Effect { what: "loss".to_owned(), unit: Unit::Plain, before, after, control }]
        }
    }

    #[test]
    fn what_is_no_number_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("seed-1")).unwrap();
        keep(&Diverged, 1, &dir.path().join("seed-1")).unwrap();
        let found = load(dir.path()).unwrap();
        let effect = &found[0].effects[0];
        assert_eq!(effect.before, ("b".to_owned(), 0.5));
        assert!(effect.after.1.is_nan() && effect.control.1.is_nan(), "{effect:?}");
        assert_eq!(effect.after.0, "a");
    }
}
