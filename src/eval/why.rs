//! Why do two trained models differ? From one run's recipe to the other's, a factor at a time.
//!
//! Every run between the two has what the second one has of the factors before it, and what the first one has of the rest. All are
//! asked the same, so that the steps of the figure from one to the next add up to the whole difference. A factor's share hangs on the order:
//! what it changes after the others is another question than what it changes before them.

use super::Outcome;
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::train::plot::{Picture, text};
use crate::train::recipe::MAX_FILE;
use crate::train::{AnyRecipe, Watch};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};
use toml::Table;

/// Factors in their order, with the keys, or sections, that make them up.
const FACTORS: [(&str, &[&str]); 7] = [
    ("data", &["data"]),
    ("tokenizer", &["data.tokenizer", "data.vocab"]),
    ("size", &["model"]),
    ("batch", &["train.batch", "train.context", "train.accumulate"]),
    ("optimizer", &["optim", "train.precision"]),
    ("steps", &["train.steps"]),
    ("seed", &["train.seed"]),
];

/// A model on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The factor that it has and the one before it has not; of the first one: nothing.
    pub factor: &'static str,
    /// What changed, as `model.d 64 → 128`.
    pub changes: Vec<String>,
    /// Its run.
    pub run: PathBuf,
}

/// A stage and its main figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The factor.
    pub factor: String,
    /// What changed.
    pub changes: Vec<String>,
    /// The run.
    pub run: String,
    /// The figure.
    pub value: f64,
    /// What the factor changed, and the middle 95 % of a paired bootstrap of it.
    pub change: Option<(f64, [f64; 2])>,
}

/// The whole way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// The task.
    pub task: String,
    /// Its main figure.
    pub figure: String,
    /// From the first run to the second.
    pub steps: Vec<Step>,
}

/// The factor that a key belongs to: that of the longest of its names that fits.
fn factor(key: &str) -> Option<&'static str> {
    let fits = |name: &&str| key == *name || key.strip_prefix(*name).is_some_and(|rest| rest.starts_with('.'));
    let all = FACTORS.iter().flat_map(|(factor, names)| names.iter().map(move |name| (*factor, *name)));
    all.filter(|(_, name)| fits(name)).max_by_key(|(_, name)| name.len()).map(|(factor, _)| factor)
}

fn recipe(run: &Path) -> Result<Table> {
    let path = run.join("recipe.toml");
    let all: Table = disk::text(&Os, &path, MAX_FILE)?.parse().map_err(|e: toml::de::Error| {
        Error::format(&path, "the file", "a recipe in TOML", e.message(), "name a run, as runs/village")
    })?;
    match AnyRecipe::of_run(run, &[])? {
        AnyRecipe::Text(_) => Ok(all),
        _ => {
            let problem =
                format!("--why {}: no run of a language model that was trained from the start", run.display());
            Err(Error::usage(problem, "name two runs of kiln train"))
        }
    }
}

/// Keys of both, as `section.key`.
fn keys(tables: [&Table; 2]) -> Vec<(&str, &str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for table in tables {
        for (section, values) in table {
            let values = values.as_table().into_iter().flatten();
            all.extend(values.map(|(key, _)| (&**section, &**key)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Trains what lies between two runs, in the folder `dir`; runs that are there are not done again.
///
/// # Errors
/// They are no runs of language models; they do not differ; a run fails, or a signal stopped it.
pub fn stages(
    [first, last]: [&Path; 2],
    dir: &Path,
    device: &Device,
    told: &mut dyn FnMut(&Stage),
    watch: &mut dyn Watch,
) -> Result<Vec<Stage>> {
    let (mut now, goal) = (recipe(first)?, recipe(last)?);
    let value = |table: &Table, section: &str, key: &str| table.get(section).and_then(|s| s.get(key)).cloned();
    let mut found: Vec<(&'static str, Vec<String>, Table)> = Vec::new();
    for (name, _) in FACTORS {
        let (mut changes, mut next) = (Vec::new(), now.clone());
        for (section, key) in keys([&now, &goal]) {
            let (a, b) = (value(&now, section, key), value(&goal, section, key));
            if a == b || factor(&format!("{section}.{key}")) != Some(name) {
                continue;
            }
            let shown = |v: &Option<toml::Value>| v.as_ref().map_or("absent".to_owned(), toml::Value::to_string);
            changes.push(format!("{section}.{key} {} → {}", shown(&a), shown(&b)));
            let to = next.entry(section).or_insert_with(|| Table::new().into());
            if let Some(to) = to.as_table_mut() {
                match b {
                    Some(b) => drop(to.insert(key.to_owned(), b)),
                    None => drop(to.remove(key)),
                }
            }
        }
        if !changes.is_empty() {
            found.push((name, changes, next.clone()));
            now = next;
        }
    }
    if found.is_empty() {
        let problem = format!("{} and {} have the same recipe", first.display(), last.display());
        return Err(Error::usage(problem, "name two runs that differ in what they were trained on, or how"));
    }
    let mut all = vec![Stage { factor: "", changes: Vec::new(), run: first.to_owned() }];
    let count = found.len();
    for (i, (factor, changes, table)) in found.into_iter().enumerate() {
        // The last of them is the second run itself.
        let run = if i + 1 == count { last.to_owned() } else { dir.join(format!("{}-{factor}", i + 1)) };
        let stage = Stage { factor, changes, run };
        told(&stage);
        if i + 1 < count {
            let text = toml::to_string(&table).expect("a recipe");
            let name = format!("{}-{factor}", i + 1);
            AnyRecipe::once(dir, &name, &text, &[], device, watch)?;
        }
        all.push(stage);
    }
    Ok(all)
}

impl Why {
    /// The way of `stages`, whose answers to one task are `outcomes`.
    ///
    /// # Panics
    /// If there are not as many of these.
    pub fn new(stages: &[Stage], outcomes: &[Outcome]) -> Why {
        assert_eq!(stages.len(), outcomes.len(), "an outcome a stage");
        let change = |i: usize| {
            let difference = outcomes[i].compare(&outcomes[i - 1], None)?;
            let [low, high] = difference.interval;
            Some((-difference.difference, [-high, -low]))
        };
        let step = |(i, stage): (usize, &Stage)| Step {
            factor: stage.factor.to_owned(),
            changes: stage.changes.clone(),
            run: stage.run.display().to_string(),
            value: outcomes[i].figures[0].value,
            change: if i == 0 { None } else { change(i) },
        };
        Why {
            task: outcomes[0].task.clone(),
            figure: outcomes[0].figures[0].name.clone(),
            steps: stages.iter().enumerate().map(step).collect(),
        }
    }
}

/// A waterfall: the first run, what each factor changes, the second run.
impl Picture for Why {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        const RUN: RGBColor = RGBColor(90, 100, 115);
        const DOWN: RGBColor = RGBColor(31, 119, 180);
        const UP: RGBColor = RGBColor(214, 84, 30);
        let s = scale as i32;
        area.fill(&WHITE)?;
        let values: Vec<f64> = self.steps.iter().map(|step| step.value).collect();
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        let room = 0.25 * (high - low).max(1e-6 * high.abs().max(1e-6));
        let (low, high) = (low - room, high + room);
        let bars = self.steps.len() + 1;
        let name = |i: usize| match i {
            0 => "first".to_owned(),
            i if i < self.steps.len() => self.steps[i].factor.clone(),
            _ => "second".to_owned(),
        };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("why {} differs: {}", self.figure, self.task), text(26, scale, true))
            .margin(12 * s)
            .margin_right(26 * s)
            .x_label_area_size(56 * s)
            .y_label_area_size(86 * s)
            .build_cartesian_2d(-0.5..bars as f64 - 0.5, low..high)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(0)
            .y_labels(7)
            .y_label_formatter(&|y| format!("{y:.3}"))
            .label_style(text(20, scale, false))
            .draw()?;
        for i in 0..bars {
            let x = i as f64;
            let (from, to, colour) = match i {
                0 => (low, values[0], RUN),
                i if i < self.steps.len() => {
                    (values[i - 1], values[i], if values[i] < values[i - 1] { DOWN } else { UP })
                }
                _ => (low, values[self.steps.len() - 1], RUN),
            };
            chart.draw_series([Rectangle::new([(x - 0.38, from), (x + 0.38, to)], colour.filled())])?;
            let says = match i {
                i if i == 0 || i == bars - 1 => format!("{to:.4}"),
                _ => format!("{:+.4}", to - from),
            };
            let top = from.max(to);
            chart.draw_series([
                EmptyElement::at((x - 0.38, top)) + Text::new(says, (0, -24 * s), text(18, scale, false))
            ])?;
            chart.draw_series([
                EmptyElement::at((x - 0.38, low)) + Text::new(name(i), (0, 8 * s), text(18, scale, false))
            ])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_belongs_to_the_factor_that_names_it_most_closely() {
        let of = |key| factor(key);
        assert_eq!(
            [of("data.bytes"), of("data.vocab"), of("model.d"), of("optim.lr"), of("train.steps"), of("run.name")],
            [Some("data"), Some("tokenizer"), Some("size"), Some("optimizer"), Some("steps"), None]
        );
        assert_eq!([of("train.seed"), of("train.keep"), of("eval.max_batches")], [Some("seed"), None, None]);
    }
}
