//! One run as its files tell: what it plans, every step so far, what the model wrote last, who is at work.

use super::curve::Dot;
use super::tail::{News, Tail};
use crate::device::probe;
use crate::error::{AtPath, Result};
use crate::train::AnyRecipe;
use crate::train::metrics::Record;
use crate::train::run::Holder;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The most of a sample that is shown, in bytes.
const MAX_SAMPLE: u64 = 16 << 10;
/// The last steps whose speed says how long the rest takes.
const RECENT: usize = 32;

/// What is shown of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Steps done, this one included.
    pub step: u64,
    /// The loss on its batch; NaN where it is not finite.
    pub loss: f32,
    /// The learning rate.
    pub lr: f64,
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
    /// The loss on the validation part, where it was evaluated after this step.
    pub val_loss: Option<f64>,
    /// Tokens, or pictures, a second.
    pub rate: Option<f64>,
}

/// What is drawn over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The training loss.
    Loss,
    /// The validation loss.
    Validation,
    /// The learning rate.
    LearningRate,
    /// The gradient's norm.
    Gradient,
    /// Tokens, or pictures, a second.
    Speed,
}

/// Whether a run is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A process has it.
    Running,
    /// All steps are done.
    Done,
    /// No process has it, and steps are left.
    Paused,
}

impl Status {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Done => "done",
            Status::Paused => "paused",
        }
    }
}

/// What a model made while it was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// After so many steps.
    pub step: u64,
    /// The file.
    pub path: PathBuf,
    /// Its beginning; none of a picture.
    pub text: Option<String>,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// Its directory.
    pub path: PathBuf,
    /// What it is called: the last part of its path.
    pub name: String,
    /// Steps that its recipe plans.
    pub steps: u64,
    /// Tokens, or pictures, in a step.
    pub per_step: u64,
    /// What a batch has so many of, as `tokens`.
    pub unit: &'static str,
    /// What losses are counted in.
    pub loss_unit: &'static str,
    /// Whether its training is private, so that losses of what it reads are not told.
    pub private: bool,
    /// The steps so far.
    pub points: Vec<Point>,
    /// Steps that were skipped.
    pub skipped: u64,
    /// The last validation loss in bits a byte of text.
    pub bits_per_byte: Option<f64>,
    /// All that is known of the last step.
    pub last: Option<Record>,
    /// The same of the last step that an evaluation followed.
    pub evaluated: Option<Record>,
    /// Whether it is under way.
    pub status: Status,
    /// Bytes of memory that its process holds, where that runs on this machine.
    pub memory: Option<u64>,
    /// What the model made last.
    pub sample: Option<Sample>,
    tail: Tail,
    /// When the sample's file was written.
    written: Option<SystemTime>,
}

impl Run {
    /// The run at `path`, of which nothing has been read yet but its recipe.
    ///
    /// # Errors
    /// There is no run, or its recipe cannot be used.
    pub fn open(path: &Path) -> Result<Run> {
        let recipe = AnyRecipe::of_run(path, &[])?;
        let [unit, loss_unit] = recipe.units();
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        Ok(Run {
            path: path.to_owned(),
            name,
            steps: recipe.train().steps,
            per_step: recipe.train().per_step(),
            unit,
            loss_unit,
            private: recipe.optim().dp.is_some(),
            points: Vec::new(),
            skipped: 0,
            bits_per_byte: None,
            last: None,
            evaluated: None,
            status: Status::Paused,
            memory: None,
            sample: None,
            tail: Tail::new(&path.join("metrics.jsonl")),
            written: None,
        })
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    pub fn look(&mut self) -> Result<()> {
        let mut tail = std::mem::replace(&mut self.tail, Tail::new(Path::new("")));
        let taken = tail.look(&mut |news| match news {
            News::Anew => {
                self.points.clear();
                (self.skipped, self.bits_per_byte, self.last, self.evaluated) = (0, None, None, None);
            }
            News::Record(record) => self.take(record),
        });
        self.tail = tail;
        taken?;
        self.look_for_sample()?;
        let holder = Holder::of(&self.path);
        self.status = match holder {
            Some(_) => Status::Running,
            None if self.step() >= self.steps => Status::Done,
            None => Status::Paused,
        };
        self.memory = holder.filter(Holder::is_here).and_then(|holder| probe::resident_of(&holder.process.to_string()));
        Ok(())
    }

    fn take(&mut self, record: Record) {
        self.skipped += u64::from(record.skipped.is_some());
        self.bits_per_byte = record.bits_per_byte.or(self.bits_per_byte);
        self.points.push(Point {
            step: record.step,
            loss: record.loss,
            lr: record.lr,
            grad_norm: record.grad_norm,
            val_loss: record.val_loss,
            rate: record.number(&format!("{}_per_s", self.unit)),
        });
        if record.val_loss.is_some() {
            self.evaluated = Some(record.clone());
        }
        self.last = Some(record);
    }

    /// Finds the newest of the files `samples/*step-000300.*`, and reads it where it is another one.
    fn look_for_sample(&mut self) -> Result<()> {
        let folder = self.path.join("samples");
        let names = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            names => names.at(&folder)?,
        };
        let stepped = |path: &PathBuf| {
            let stem = path.file_stem()?.to_str()?;
            let step: u64 = stem.rsplit_once("step-")?.1.parse().ok()?;
            path.extension().is_some_and(|e| e == "txt" || e == "png").then_some(step)
        };
        let paths = names.filter_map(|entry| Some(entry.ok()?.path()));
        let newest = paths.filter_map(|path| Some((stepped(&path)?, path))).max();
        let Some((step, path)) = newest else { return Ok(()) };
        let Ok(written) = path.metadata().and_then(|meta| meta.modified()) else { return Ok(()) };
        let known = self.sample.as_ref().is_some_and(|sample| sample.path == path);
        if known && self.written == Some(written) {
            return Ok(());
        }
        let text = if path.extension().is_some_and(|e| e == "txt") {
            let mut bytes = Vec::new();
            File::open(&path).and_then(|file| file.take(MAX_SAMPLE).read_to_end(&mut bytes)).at(&path)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            None
        };
        (self.sample, self.written) = (Some(Sample { step, path, text }), Some(written));
        Ok(())
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.points.last().map_or(0, |point| point.step)
    }

    /// The last validation loss.
    pub fn val_loss(&self) -> Option<f64> {
        self.points.iter().rev().find_map(|point| point.val_loss)
    }

    /// Tokens, or pictures, a second: the median of the last steps.
    pub fn rate(&self) -> Option<f64> {
        let recent = &self.points[self.points.len().saturating_sub(RECENT)..];
        let mut rates: Vec<f64> =
            recent.iter().filter_map(|point| point.rate.filter(|rate| rate.is_finite() && *rate > 0.0)).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }

    /// How long its steps will still take at the speed of the last ones; `None` where it is not under way. Evaluations come on top.
    pub fn left(&self) -> Option<Duration> {
        let left = self.steps.saturating_sub(self.step()) as f64;
        let seconds = left * self.per_step as f64 / self.rate()?;
        (self.status == Status::Running && seconds < 1e12).then(|| Duration::from_secs_f64(seconds))
    }

    /// What was measured, over the steps; what is not finite is left out.
    pub fn series(&self, series: Series) -> Vec<Dot> {
        let value = |point: &Point| match series {
            Series::Loss => Some(point.loss.into()),
            Series::Validation => point.val_loss,
            Series::LearningRate => Some(point.lr),
            Series::Gradient => Some(point.grad_norm),
            Series::Speed => point.rate,
        };
        let finite = |point: &Point| Some((point.step as f64, value(point).filter(|value| value.is_finite())?));
        self.points.iter().filter_map(finite).collect()
    }

    /// Where it stands.
    pub fn to_json(&self) -> Value {
        let last = self.points.last();
        // JSON has no NaN.
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        json!({
            "run": self.path.to_string_lossy(),
            "status": self.status.name(),
            "step": self.step(),
            "steps": self.steps,
            "loss": finite(last.map(|point| point.loss.into())),
            "val_loss": finite(self.val_loss()),
            "bits_per_byte": finite(self.bits_per_byte),
            "lr": last.map(|point| point.lr),
            "grad_norm": finite(last.and_then(|point| point.grad_norm.into())),
            format!("{}_per_s", self.unit): self.rate(),
            "skipped_steps": self.skipped,
            "memory": self.memory,
            "seconds_left": self.left().map(|left| left.as_secs_f64()),
            "sample": self.sample.as_ref().map(|sample| json!({
                "step": sample.step, "path": sample.path.to_string_lossy(), "text": sample.text,
            })),
        })
    }
}
