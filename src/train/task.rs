//! What a run trains, between its recipe, its data and its model. [`pretrain`](super::pretrain) does with it what is the
//! same for all: steps, checkpoints, evaluations, going back.

use super::event::Watch;
use super::fit::{self, Plan, Planner};
use super::health::Terms;
use super::objective::{Examples, Objective};
use super::recipe::{Architecture, RecipeOf, Section};
use super::run::RunDir;
use super::trainer::{At, Trainer};
use crate::device::Device;
use crate::error::Result;
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;

/// The recipe of a task.
pub type RecipeFor<T> = RecipeOf<<T as Task>::Model, <T as Task>::Data, <T as Task>::Sample>;

/// What carries the runs of a task out on a dry device.
pub type PlannerOf<T> = Box<Planner<'static, RecipeFor<T>>>;

/// Told of work before the first step: `(what, done, total)`, a total of 0 where nobody knows.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// What there is before the first step.
pub struct Opened<T: Task> {
    /// The task with its data.
    pub task: T,
    /// The model with fresh weights.
    pub trainer: Trainer<T::Objective>,
    /// What memory the run takes.
    pub memory: Plan,
    /// A hash of the data.
    pub data: String,
}

/// What there is before the first step of a rehearsal.
pub struct Rehearsal<T: Task> {
    /// The task and its model.
    pub opened: Opened<T>,
    /// Seconds that a run takes before its first step, beyond those that opening this took.
    pub more: f64,
    /// So many times as much is held out in a run.
    pub held_out: f64,
    /// Whether a run judges the model before its first step as well.
    pub judged_before: bool,
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// The lower, the better: a loss in nats, as the training's; for models without one, a distance.
    pub loss: f64,
    /// More, by name.
    pub parts: Vec<(&'static str, f64)>,
    /// What is wrong with the model, in words.
    pub warnings: Vec<String>,
}

/// A kind of model with its kind of data.
pub trait Task: Sized {
    /// `[model]`.
    type Model: Architecture;
    /// `[data]`.
    type Data: Section;
    /// `[sample]`.
    type Sample: Section;
    /// What a step computes.
    type Objective: Objective;

    /// What a batch has so many of, as `tokens`.
    const UNIT: &'static str;

    /// What its loss is counted in.
    const LOSS: &'static str;

    /// What an evaluation's main number is.
    const JUDGED: &'static str = "validation loss";

    /// Whether several [`Ranks`](crate::ranks::Ranks) can share its steps: all that is learnt from is there before, and networks do not take turns.
    const SHARED: bool = true;

    /// The command to run next, before and after the run's directory.
    const NEXT: [&'static str; 2] = ["kiln sample ", ""];

    /// What its runs' course is judged by.
    fn terms(recipe: &RecipeFor<Self>) -> Terms {
        Terms::of(recipe)
    }

    /// The recipe with what it left to the data, as the number of steps; the recipe itself where it left nothing.
    ///
    /// # Errors
    /// The data cannot be used.
    fn settle<'r>(recipe: &'r RecipeFor<Self>, progress: &mut Progress) -> Result<Cow<'r, RecipeFor<Self>>> {
        let _ = progress;
        Ok(Cow::Borrowed(recipe))
    }

    /// Reads what must be known of the data, which is in `own` where the run has it already, and gives what carries this run, or one
    /// that is smaller or larger, out on a [dry](Device::dry) device.
    ///
    /// # Errors
    /// The device cannot do it; what is needed of the data cannot be read.
    fn planner(recipe: &RecipeFor<Self>, own: Option<&Path>, device: &Device) -> Result<PlannerOf<Self>>;

    /// What memory a run takes before it starts; where it has data already, that is in `own`.
    ///
    /// # Errors
    /// It does not fit; as of [`planner`](Task::planner).
    fn plan(recipe: &RecipeFor<Self>, own: Option<&Path>, device: &Device) -> Result<Plan> {
        fit::check(recipe, device, &*Self::planner(recipe, own, device)?)
    }

    /// Opens the data, or makes it in the folder `own`, and the model.
    ///
    /// # Errors
    /// As of [`plan`](Task::plan); the data cannot be used.
    fn open(recipe: &RecipeFor<Self>, own: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<Self>>;

    /// Opens the same model on as much of the data as tells how long a run will take, which is made in the folder `scratch` where
    /// it has to be made and is not in `own`.
    ///
    /// # Errors
    /// As of [`open`](Task::open).
    fn rehearse(
        recipe: &RecipeFor<Self>,
        own: Option<&Path>,
        scratch: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Self>>;

    /// Whose gradients private training would clip, each alone; `None` where nobody can tell them apart. Data is as of
    /// [`rehearse`](Task::rehearse), but all of it.
    ///
    /// # Errors
    /// The data cannot be used.
    fn examples(
        recipe: &RecipeFor<Self>,
        own: Option<&Path>,
        scratch: &Path,
        progress: &mut Progress,
    ) -> Result<Option<Examples>> {
        let _ = (recipe, own, scratch, progress);
        Ok(None)
    }

    /// [`NEXT`](Task::NEXT), or what else suits what was trained.
    fn next(&self) -> [&'static str; 2] {
        Self::NEXT
    }

    /// How much of what it is trained on, as `(8192, "token ids")`.
    fn about(&self) -> Vec<(u64, &'static str)>;

    /// What is strange about it, in words.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The content of `config.json`, or of `adapter_config.json` where parameters are an adapter's.
    fn config(&self, trainer: &Trainer<Self::Objective>) -> Value;

    /// Files that belong to a checkpoint beside weights: names and texts.
    fn files(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    /// Called before each step: makes what the step learns from, where that is not there from the start. Gives numbers that are told with the step's.
    ///
    /// # Errors
    /// It cannot be made, or kept in the run's directory.
    fn before(
        &mut self,
        trainer: &mut Trainer<Self::Objective>,
        at: At,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<Vec<(&'static str, f64)>> {
        let _ = (trainer, at, run, watch);
        Ok(Vec::new())
    }

    /// Judges the model by what is held out, in at most `max_batches` batches; more thoroughly after the `last` step. `None` where `progress(done, total)` said
    /// false.
    ///
    /// # Errors
    /// The data has changed since it was opened.
    fn evaluate(
        &mut self,
        trainer: &mut Trainer<Self::Objective>,
        last: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>>;

    /// The loss that no model can have less than, where it is known.
    fn floor(&self) -> Option<f64> {
        None
    }

    /// A loss in bits a byte of text.
    fn bits_per_byte(&self, loss: f64) -> Option<f64> {
        let _ = loss;
        None
    }

    /// Lets the model show what it has learnt after `step` steps, into the run's `samples/`.
    ///
    /// # Errors
    /// They cannot be written.
    fn sample(
        &mut self,
        trainer: &mut Trainer<Self::Objective>,
        recipe: &RecipeFor<Self>,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()>;
}
