//! How long a run will take, from doing a little of everything that it does.
//!
//! The run itself is rehearsed, with its own loop in a directory of its own: it is opened, does steps for some seconds, saves a
//! checkpoint, judges the model, lets it show what it has learnt, and draws the curve. Each of these is timed and taken as often
//! as the recipe has it. What a run does once in a while and takes long, an evaluation over much text, is begun and counted on.

use super::account::Actual;
use super::event::{Event, Watch};
use super::pretrain::Work;
use super::recipe::Train;
use super::run::RunDir;
use super::task::{RecipeFor, Rehearsal, Task};
use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Steps that are no measure: memory is new to them.
const WARM: usize = 3;

/// Seconds after which an evaluation is broken off and the rest counted.
const PATIENCE: f64 = 4.0;

/// Stands for a signal where there was none.
const ENOUGH: i32 = 0;

/// What the parts of a run take, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// All before the first step: data, model, what is judged first.
    pub before: f64,
    /// A step, with its line in the metrics.
    pub step: f64,
    /// An evaluation on the way.
    pub evaluation: f64,
    /// The evaluation after the last step.
    pub last_evaluation: f64,
    /// What the model shows on the way.
    pub sample: f64,
    /// What it shows after the last step.
    pub last_sample: f64,
    /// A checkpoint.
    pub checkpoint: f64,
    /// What is drawn and written in the end.
    pub after: f64,
    /// Steps that were measured.
    pub measured: u64,
}

/// What a rehearsal found.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsed {
    /// What the parts take.
    pub times: Times,
    /// What the rehearsal itself took; its peaks are those of the run.
    pub actual: Actual,
    /// How much there is to train on, as of [`Task::about`].
    pub data: Vec<(u64, &'static str)>,
    /// So many times as much data there is in all.
    pub portion: f64,
}

impl Times {
    /// The seconds of a whole run, by part.
    pub fn of(&self, train: &Train) -> Vec<(&'static str, f64)> {
        let often = |every: u64| (train.steps - 1).checked_div(every).unwrap_or(0) as f64;
        let samples = match train.sample_every {
            0 => 0.0,
            every => often(every) * self.sample + self.last_sample,
        };
        vec![
            ("before the first step", self.before),
            ("steps", train.steps as f64 * self.step),
            ("evaluations", often(train.eval_every) * self.evaluation + self.last_evaluation),
            ("samples", samples),
            ("checkpoints", (often(train.checkpoint_every) + 1.0) * self.checkpoint),
            ("drawing", self.after),
        ]
    }

    /// The seconds of a whole run.
    pub fn total(&self, train: &Train) -> f64 {
        self.of(train).iter().map(|(_, seconds)| seconds).sum()
    }
}

/// A folder that goes with its owner.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Scratch(std::env::temp_dir().join(format!("kiln-rehearsal-{}-{n}", std::process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lets a run do steps for some time, and notes when.
struct Clock<'a> {
    seconds: f64,
    steps: Vec<Instant>,
    saved: Option<Instant>,
    heard: &'a mut dyn Watch,
}

impl Watch for Clock<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Start { .. } => self.steps.push(Instant::now()),
            Event::Step { .. } => {
                self.steps.push(Instant::now());
                self.heard.event(event);
            }
            Event::Checkpoint { .. } => self.saved = Some(Instant::now()),
            _ => {}
        }
    }

    fn stop(&self) -> Option<i32> {
        let taken = self.steps.first().map_or(0.0, |start| start.elapsed().as_secs_f64());
        let steps = self.steps.len().saturating_sub(1);
        let enough = (taken > self.seconds && steps > WARM) || (taken > 6.0 * self.seconds && steps > 1);
        if enough { Some(ENOUGH) } else { self.heard.stop() }
    }
}

/// Rehearses a run of `recipe` for about `seconds` seconds of steps; `resume` is its directory where it has one. `watch` hears of
/// steps and of what is prepared, and may stop it.
///
/// # Errors
/// As of [`run`](super::pretrain::run); it was stopped.
pub fn rehearse<T: Task>(
    recipe: &RecipeFor<T>,
    resume: Option<&Path>,
    device: &Device,
    seconds: f64,
    watch: &mut dyn Watch,
) -> Result<Rehearsed> {
    let began = Instant::now();
    let scratch = Scratch::new();
    let mut told = |what: &str, done, total| watch.event(&Event::Prepare { what, done, total });
    let recipe = &*T::settle(recipe, &mut told)?;
    let run = RunDir::create(&Os, &scratch.0, "run")?;
    let own = resume.map(|run| run.join("data"));
    let Rehearsal { opened, more, held_out, judged_before } =
        T::rehearse(recipe, own.as_deref(), &run.data(), device, &mut told)?;
    let mut steps = recipe.clone();
    let train = &mut steps.train;
    // Only steps, and as many as there is time for.
    (train.eval_every, train.checkpoint_every, train.sample_every) = (0, 0, 0);
    train.steps = train.steps.max(1_000_000);
    let mut work = Work::<T>::new(&steps, run, opened, None)?;
    let mut times = Times { before: began.elapsed().as_secs_f64() + more, ..Times::default() };
    let mut clock = Clock { seconds, steps: Vec::new(), saved: None, heard: &mut *watch };
    if let Some(signal) = work.run(&mut clock, began)?.stopped.filter(|signal| *signal != ENOUGH) {
        return Err(Error::failed(format!("stopped by signal {signal}"), "nothing was begun that could go on"));
    }
    let (stamps, saved) = (clock.steps, clock.saved);
    times.after = saved.map_or(0.0, |saved| saved.elapsed().as_secs_f64());
    let warm = if stamps.len() > 2 * WARM { WARM } else { usize::from(stamps.len() > 2) };
    let measured = &stamps[warm..];
    times.measured = measured.len().saturating_sub(1) as u64;
    if let [first, .., last] = measured {
        times.step = (*last - *first).as_secs_f64() / times.measured as f64;
        times.checkpoint = saved.map_or(0.0, |saved| (saved - *last).as_secs_f64());
    }
    let train = &recipe.train;
    // The first step on the way after which it is done.
    let first = |every: u64| (every > 0 && every < train.steps).then_some(every);
    let judge = |work: &mut Work<T>, last: bool| judging::<T>(work, recipe, last, held_out);
    if first(train.eval_every).is_some() || judged_before {
        times.evaluation = judge(&mut work, false)?;
    }
    if judged_before {
        times.before += times.evaluation;
    }
    times.last_evaluation = judge(&mut work, true)?;
    let show = |work: &mut Work<T>, step: u64| -> Result<f64> {
        let start = Instant::now();
        work.task.sample(&mut work.trainer, recipe, step, &work.run, &mut ())?;
        Ok(start.elapsed().as_secs_f64())
    };
    if train.sample_every > 0 {
        if let Some(step) = first(train.sample_every) {
            times.sample = show(&mut work, step)?;
        }
        times.last_sample = show(&mut work, train.steps)?;
    }
    let actual = Actual::of(device, times.measured, began.elapsed());
    Ok(Rehearsed { times, actual, data: work.task.about(), portion: held_out })
}

/// The seconds of an evaluation over `held_out` times what is at hand: begun, and counted on where it takes long.
fn judging<T: Task>(work: &mut Work<T>, recipe: &RecipeFor<T>, last: bool, held_out: f64) -> Result<f64> {
    let start = Instant::now();
    // Of each stretch: what was done of it when it was looked at last, how much it is, and when it began and was looked at.
    let mut stretches: Vec<[f64; 4]> = Vec::new();
    let mut progress = |done: usize, total: usize| {
        let now = start.elapsed().as_secs_f64();
        match stretches.last_mut() {
            Some(stretch) if done as f64 > stretch[0] => (stretch[0], stretch[3]) = (done as f64, now),
            _ => {
                let began = stretches.last().map_or(0.0, |stretch| stretch[3]);
                stretches.push([done as f64, total as f64, began, now]);
            }
        }
        now < PATIENCE
    };
    work.task.evaluate(&mut work.trainer, last, recipe.eval.max_batches, &mut progress)?;
    let rest = start.elapsed().as_secs_f64() - stretches.last().map_or(0.0, |stretch| stretch[3]);
    let most = recipe.eval.max_batches.map_or(f64::INFINITY, |most| most as f64);
    let whole = |[done, total, began, now]: &[f64; 4]| (now - began) / done * (total * held_out).min(most.max(*total));
    Ok(rest + stretches.iter().map(whole).sum::<f64>())
}
