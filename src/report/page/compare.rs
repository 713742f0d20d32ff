//! Several runs side by side: which settings differ, where they ended, what each was found to be able to.

use super::chart::{self, Chart, Curve, Style};
use crate::report::curve::smoothed;
use crate::report::facts::{Facts, label, words};
use serde::Serialize;
use std::collections::BTreeMap;

/// The weight of what came before in a smoothed loss.
const SMOOTH: f64 = 0.97;
/// Keys that only say where a run is.
const PLACE: [&str; 2] = ["run.name", "run.dir"];

/// A row with a value of each run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Of what.
    pub name: String,
    /// Of each run; empty where it has none.
    pub values: Vec<String>,
}

/// Runs side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Sizes, losses, speeds.
    pub numbers: Vec<Line>,
    /// Settings that are not the same.
    pub settings: Vec<Line>,
    /// Figures of tasks that more than one was asked.
    pub figures: Vec<Line>,
    /// The run with the lowest validation loss, by its number.
    pub best: Option<usize>,
}

impl Compared {
    /// Of these.
    pub fn of(all: &[Facts]) -> Compared {
        let numbers = vec![
            row(all, "parameters", |facts| facts.parameters.map(words::count)),
            row(all, "trained on", |facts| {
                facts.training.as_ref().map(|t| format!("{} {}", words::count(t.seen), t.unit))
            }),
            row(all, "steps", |facts| facts.training.as_ref().map(|t| words::count(t.step))),
            row(all, "training loss", |facts| facts.training.as_ref()?.loss.map(words::number)),
            row(all, "validation loss", |facts| facts.training.as_ref()?.val_loss.map(words::number)),
            row(all, "bits a byte", |facts| facts.training.as_ref()?.bits_per_byte.map(words::number)),
            row(all, "time", |facts| facts.spent.as_ref()?.seconds.map(words::span)),
            row(all, "skipped steps", |facts| facts.training.as_ref().map(|t| t.skipped.to_string())),
        ];
        let losses = all.iter().enumerate().filter_map(|(i, facts)| Some((i, facts.training.as_ref()?.val_loss?)));
        let best = losses.filter(|(_, loss)| loss.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
        let filled = |line: &Line| line.values.iter().any(|value| !value.is_empty());
        Compared {
            numbers: numbers.into_iter().filter(filled).collect(),
            settings: settings(all),
            figures: figures(all),
            best,
        }
    }

    /// Their losses, one over the other.
    pub fn curves(&self, all: &[Facts]) -> Vec<String> {
        let of = |points: &dyn Fn(&Facts) -> Vec<(f64, f64)>, style: fn(usize) -> Style| -> Vec<Curve<'_>> {
            all.iter()
                .enumerate()
                .map(|(i, facts)| Curve { name: &facts.name, points: points(facts), style: style(i) })
                .collect()
        };
        let unit = all.iter().find_map(|facts| facts.training.as_ref()).map_or("", |training| training.loss_unit);
        let train = of(&|facts| smoothed(&facts.curves.loss, SMOOTH), Style::Line);
        let late = |curves: &[Curve]| {
            let late = curves.iter().flat_map(|curve| curve.points[curve.points.len() / 20..].iter());
            chart::span(late.map(|dot| dot.1))
        };
        let val = of(&|facts| facts.curves.val.clone(), Style::Dots);
        let charts = [
            Chart::lines(&format!("training loss, smoothed ({unit})"), "steps", &train, late(&train)),
            Chart::lines(&format!("held out ({unit})"), "steps", &val, late(&val)),
        ];
        charts.into_iter().flatten().map(|chart| chart.svg()).collect()
    }
}

fn row(all: &[Facts], name: &str, of: impl Fn(&Facts) -> Option<String>) -> Line {
    Line { name: name.to_owned(), values: all.iter().map(|facts| of(facts).unwrap_or_default()).collect() }
}

/// Keys of recipes whose values differ.
fn settings(all: &[Facts]) -> Vec<Line> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (i, facts) in all.iter().enumerate() {
        let recipe: toml::Table = facts.recipe.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        for (section, value) in &recipe {
            flatten(section, value, &mut |key, value| {
                keys.entry(key.to_owned()).or_insert_with(|| vec![String::new(); all.len()])[i] = value;
            });
        }
    }
    let differs = |(key, values): &(String, Vec<String>)| {
        !PLACE.contains(&&**key) && values.iter().any(|value| *value != values[0])
    };
    keys.into_iter().filter(differs).map(|(name, values)| Line { name, values }).collect()
}

fn flatten(key: &str, value: &toml::Value, told: &mut dyn FnMut(&str, String)) {
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, told))
        }
        other => told(key, other.to_string()),
    }
}

/// Figures that more than one of them has, by task.
fn figures(all: &[Facts]) -> Vec<Line> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for judged in all.iter().flat_map(|facts| &facts.judged) {
        let outcome = &judged.saved.outcome;
        for figure in &outcome.figures {
            if !names.contains(&(&outcome.task, &figure.name)) {
                names.push((&outcome.task, &figure.name));
            }
        }
    }
    let line = |(task, name): (&str, &str)| {
        row(all, &format!("{task}: {}", label(name)), |facts| {
            let outcome =
                facts.judged.iter().map(|judged| &judged.saved.outcome).find(|outcome| outcome.task == task)?;
            let figure = outcome.figures.iter().find(|figure| figure.name == name)?;
            Some(words::measured(figure.value, figure.error))
        })
    };
    let several = |line: &Line| line.values.iter().filter(|value| !value.is_empty()).count() > 1;
    names.into_iter().map(line).filter(several).collect()
}
