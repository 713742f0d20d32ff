//! What studies found on the village: figures before something is done against a fault, after it, and of a control, over all seeds.

use super::Facts;
use crate::error::{Error, Result};
use crate::study::effect::{self, Record, Unit};
use serde::Serialize;
use std::collections::BTreeMap;
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

/// The studies of a page, whose folders are read once, whatever the number of its runs.
#[derive(Debug, Default)]
pub struct Studies {
    /// Those that are asked for.
    asked: Vec<(PathBuf, Study)>,
    /// Those that runs lie in, or what is wrong with them.
    own: BTreeMap<PathBuf, std::result::Result<Study, String>>,
}

impl Studies {
    /// Opens the studies in `folders`, which every model of the page shows.
    ///
    /// # Errors
    /// One of the folders has no study, or a damaged one.
    pub fn open(folders: &[PathBuf]) -> Result<Studies> {
        let asked: Result<_> = folders.iter().map(|folder| Ok((folder.clone(), of(folder)?))).collect();
        Ok(Studies { asked: asked?, own: BTreeMap::new() })
    }

    /// Adds the studies to what is known of the model at `path`: the one that it lies in first. Nobody asked for that one, so a damaged
    /// one is only told of.
    pub fn add(&mut self, path: &Path, facts: &mut Facts) {
        let seed = path.parent().filter(|seed| seed.join(effect::FILE).is_file());
        let own = seed.and_then(Path::parent).map(|own| if own == Path::new("") { Path::new(".") } else { own });
        if let Some(own) = own.filter(|own| !self.asked.iter().any(|(folder, _)| folder == own)) {
            match self.own.entry(own.to_owned()).or_insert_with(|| of(own).map_err(|e| e.to_string())) {
                Ok(study) => facts.studies.push(study.clone()),
                Err(wrong) => facts.absent.push(wrong.clone()),
            }
        }
        // Where it is asked for too, it still comes first.
        let (first, rest): (Vec<_>, Vec<_>) = self.asked.iter().partition(|(folder, _)| Some(&**folder) == own);
        facts.studies.extend(first.into_iter().chain(rest).map(|(_, study)| study.clone()));
    }
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

/// The mean, and between which values all lie; how many are no number, as of runs that diverged.
fn says(values: &[f64], unit: Unit) -> String {
    let one = |x: f64| match unit {
        Unit::Share => format!("{:.1} %", 100.0 * x),
        Unit::Bits => format!("{x:.2} bits"),
        Unit::Plain => format!("{x:.3}").replace('-', "−"),
    };
    let known: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let (least, most) = known.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    let said = match known[..] {
        [] => return "no number".to_owned(),
        [_] => one(mean),
        [..] => format!("{} ({} to {})", one(mean), one(least), one(most)),
    };
    match values.len() - known.len() {
        0 => said,
        none => format!("{said}; no number for {none} of {} seeds", values.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_counted_and_not_averaged() {
        assert_eq!(says(&[0.25, 0.75], Unit::Share), "50.0 % (25.0 % to 75.0 %)");
        assert_eq!(says(&[0.25, f64::NAN, 0.75], Unit::Share), "50.0 % (25.0 % to 75.0 %); no number for 1 of 3 seeds");
        assert_eq!(says(&[-2.0, f64::NAN], Unit::Plain), "−2.000; no number for 1 of 2 seeds");
        assert_eq!(says(&[f64::NAN], Unit::Bits), "no number");
    }
}
