//! What a sweep found.

use super::halving::{Halving, Progress};
use super::importance::importance;
use super::ledger::{Trial, shown};
use super::picture::Coordinates;
use super::space::{Setting, Space};
use crate::data::atomic::write_atomic;
use crate::disk::Os;
use crate::error::Result;
use crate::train::AnyRecipe;
use crate::train::plot::Picture;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The name of the winning recipe in the sweep's directory.
pub const BEST: &str = "best.toml";

/// All trials, and what they say.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The sweep's directory.
    pub dir: PathBuf,
    /// What is to be low.
    pub metric: String,
    /// The keys that were searched.
    pub keys: Vec<String>,
    /// The steps of the rungs.
    pub rungs: Vec<u64>,
    /// The trials, by number.
    pub trials: Vec<Trial>,
    /// Their numbers, the best first: who got farther comes before, then who has less.
    pub order: Vec<usize>,
    /// How much each key matters by what all trials came to at the first rung, in all 1; `None` where too little is known.
    pub importance: Option<Vec<f64>>,
    /// Steps that were done in all.
    pub steps: u64,
    /// The signal that ended the sweep early.
    pub stopped: Option<i32>,
}

fn step(rungs: &[u64], progress: &Progress) -> u64 {
    progress.values.len().checked_sub(1).map_or(0, |last| rungs[last])
}

impl Outcome {
    pub(super) fn new(
        dir: &Path,
        metric: &str,
        space: &Space,
        halving: &Halving,
        trials: Vec<Trial>,
        stopped: Option<i32>,
    ) -> Outcome {
        let mut order: Vec<usize> = (0..trials.len()).filter(|&i| !trials[i].progress.values.is_empty()).collect();
        let value = |i: usize| trials[i].progress.values.last().copied().unwrap_or(f64::INFINITY);
        let far = |i: usize| if value(i).is_finite() { trials[i].progress.values.len() } else { 0 };
        order.sort_by(|&a, &b| far(b).cmp(&far(a)).then(value(a).total_cmp(&value(b))).then(a.cmp(&b)));
        let first: Vec<(&Setting, f64)> =
            trials.iter().filter_map(|t| Some((&t.setting, *t.progress.values.first()?))).collect();
        Outcome {
            dir: dir.to_owned(),
            metric: metric.to_owned(),
            keys: space.axes.iter().map(|axis| axis.key.clone()).collect(),
            importance: importance(space, &first),
            rungs: halving.rungs.clone(),
            steps: trials.iter().map(|trial| step(&halving.rungs, &trial.progress)).sum(),
            order,
            trials,
            stopped,
        }
    }

    /// The best trial, and what it came to; `None` where none came to anything.
    pub fn best(&self) -> Option<(usize, f64)> {
        let &best = self.order.first()?;
        let value = *self.trials[best].progress.values.last()?;
        value.is_finite().then_some((best, value))
    }

    /// The table: a line a trial, the best first, `most` lines; what each came to at each rung.
    pub fn table(&self, most: usize) -> String {
        let mut rows = vec![vec!["trial".to_owned()]];
        rows[0].extend(self.keys.iter().cloned());
        rows[0].extend(self.rungs.iter().map(|rung| format!("step {rung}")));
        for &i in self.order.iter().take(most) {
            let Trial { setting, progress, failed, .. } = &self.trials[i];
            let mut row = vec![i.to_string()];
            row.extend(setting.iter().map(shown));
            row.extend(progress.values.iter().map(|value| match value.is_finite() {
                true => format!("{value:.4}"),
                false => format!("failed: {}", failed.as_deref().unwrap_or_default()),
            }));
            rows.push(row);
        }
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.starts_with("failed"));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
            cells.collect::<Vec<_>>().join("  ")
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let finite = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
        let named = |values: &mut dyn Iterator<Item = Value>| -> Map<String, Value> {
            self.keys.iter().cloned().zip(values).collect()
        };
        let trial = |&i: &usize| {
            let Trial { setting, progress, failed, seconds } = &self.trials[i];
            json!({
                "trial": i,
                "set": named(&mut setting.iter().map(|value| json!(value))),
                "values": progress.values.iter().map(|&value| finite(value)).collect::<Vec<_>>(),
                "failed": failed,
                "seconds": seconds,
            })
        };
        let importance = self.importance.as_ref().map(|parts| named(&mut parts.iter().map(|&part| json!(part))));
        let best = self.best().map(|(i, value)| {
            json!({
                "trial": i,
                "value": value,
                "step": step(&self.rungs, &self.trials[i].progress),
                "set": named(&mut self.trials[i].setting.iter().map(|value| json!(value))),
                "recipe": self.dir.join(BEST).to_string_lossy(),
            })
        });
        json!({
            "sweep": self.dir.to_string_lossy(),
            "metric": self.metric,
            "rungs": self.rungs,
            "best": best,
            "importance": importance,
            "steps": self.steps,
            "stopped": self.stopped,
            "trials": self.order.iter().map(trial).collect::<Vec<_>>(),
        })
    }

    /// Writes `sweep.json`, the picture and the winning recipe, which is `base` with the best setting.
    pub(super) fn save(&self, base: &AnyRecipe, space: &Space) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.to_json()).expect("plain data") + "\n";
        write_atomic(&Os, &self.dir.join("sweep.json"), json.as_bytes())?;
        let Some((best, _)) = self.best() else { return Ok(()) };
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut set = space.overrides(&self.trials[best].setting);
        set.push(format!("run.name={name}-best"));
        let recipe = AnyRecipe::load(None, &base.to_toml(), &set)?;
        write_atomic(&Os, &self.dir.join(BEST), recipe.to_toml().as_bytes())?;
        let picture = Coordinates { title: &name, outcome: self, space };
        picture.save_svg(&Os, &self.dir.join("sweep.svg"))?;
        picture.save_png(&Os, &self.dir.join("sweep.png"))
    }
}
