//! What studies found on the village: figures before something is done against a fault, after it, and of a control, over all seeds.

use crate::error::{Error, Result};
use crate::study::effect::{self, Record, Unit};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A study with all its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// Its name, as `kiln study` has it.
    pub study: String,
    /// What it asks.
    pub asks: String,
    /// Where its runs are.
    pub folder: String,
    /// Its seeds.
    pub seeds: Vec<u64>,
    /// Its figures.
    pub figures: Vec<Figure>,
}

/// A figure of a study.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Which.
    pub what: String,
    /// How it is read.
    pub unit: Unit,
    /// Before, after, and of the control.
    pub sides: [Side; 3],
}

/// One side of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// What it is of.
    pub of: String,
    /// The value of each seed.
    pub values: Vec<f64>,
    /// The mean, the least and the most, in words.
    pub says: String,
}

/// The studies in `folders`, and the one that the run at `path` belongs to.
///
/// # Errors
/// One of the folders has no study, or a damaged one.
pub(super) fn all(path: &Path, folders: &[PathBuf]) -> Result<Vec<Study>> {
    let seed = path.parent().filter(|seed| seed.join(effect::FILE).is_file());
    let own = seed.and_then(Path::parent).map(|own| if own == Path::new("") { Path::new(".") } else { own }.to_owned());
    let more = folders.iter().filter(|folder| Some(*folder) != own.as_ref());
    own.iter().chain(more).map(|folder| of(folder)).collect()
}

fn of(folder: &Path) -> Result<Study> {
    let records = effect::load(folder)?;
    let Some(first) = records.first() else {
        let problem = format!("{} holds no study: no {} of a seed is there", folder.display(), effect::FILE);
        return Err(Error::failed(
            problem,
            format!("kiln study NAME --out {} does one; kiln study --help names all", folder.display()),
        ));
    };
    let figures = first.effects.iter().map(|effect| figure(&effect.what, effect.unit, &records)).collect();
    Ok(Study {
        study: first.study.clone(),
        asks: first.asks.clone(),
        folder: folder.display().to_string(),
        seeds: records.iter().map(|record| record.seed).collect(),
        figures,
    })
}

fn figure(what: &str, unit: Unit, records: &[Record]) -> Figure {
    let found: Vec<_> =
        records.iter().flat_map(|record| &record.effects).filter(|effect| effect.what == what).collect();
    let sides = [0, 1, 2].map(|i| {
        let side = |effect: &effect::Effect| [&effect.before, &effect.after, &effect.control][i].clone();
        let (names, values): (Vec<String>, Vec<f64>) = found.iter().map(|effect| side(effect)).unzip();
        let says = says(&values, unit);
        Side { of: names.into_iter().next().unwrap_or_default(), values, says }
    });
    Figure { what: what.to_owned(), unit, sides }
}

/// The mean, and between which values all lie.
fn says(values: &[f64], unit: Unit) -> String {
    let one = |x: f64| match unit {
        Unit::Share => format!("{:.1} %", 100.0 * x),
        Unit::Bits => format!("{x:.2} bits"),
        Unit::Plain => format!("{x:.3}").replace('-', "−"),
    };
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    match values {
        [_, _, ..] => format!("{} ({} to {})", one(mean), one(least), one(most)),
        _ => one(mean),
    }
}
