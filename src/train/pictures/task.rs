//! What the runs of all models of pictures share.

use super::judge::Judge;
use super::{Opened as Data, PictureData, PictureSample, Sheets, report};
use crate::data::images::{Dims, PictureBatches, Pictures, Range, Sheet};
use crate::device::Device;
use crate::error::Result;
use crate::params::Decl;
use crate::train::event::Watch;
use crate::train::fit::{self, Other, Plan};
use crate::train::health::Terms;
use crate::train::objective::Objective;
use crate::train::recipe::{Architecture, RecipeOf};
use crate::train::run::RunDir;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use crate::train::trainer::Trainer;
use serde_json::Value;
use std::path::Path;

/// The recipe of a model of pictures with this `[model]`.
pub type PictureRecipe<M> = RecipeOf<M, PictureData, PictureSample>;

/// What an evaluation looks at.
pub struct Exam<'a> {
    /// Pictures that no step has seen.
    pub held_out: &'a Pictures,
    /// Who judges what is made, where the model has one.
    pub judge: Option<&'a mut Judge>,
    /// Pictures at a time.
    pub batch: usize,
    /// Batches at most.
    pub most: usize,
    /// Of the numbers that pictures are made of.
    pub seed: u64,
    /// Whether it is the last one, and thorough.
    pub last: bool,
}

/// What a model of pictures shows.
pub struct View<'a> {
    /// Pictures that no step has seen.
    pub held_out: &'a Pictures,
    /// Rows of a sheet.
    pub rows: usize,
    /// Pictures in a row.
    pub columns: usize,
    /// Of the numbers that pictures are made of.
    pub seed: u64,
    /// Whether it is the last time, when there is more to see.
    pub last: bool,
}

/// A model of pictures in training, and how it is judged and shown.
pub trait Painter: Objective + Sized {
    /// Whether several ranks can share a step.
    const SHARED: bool = true;

    /// `[model]`.
    type Model: Architecture;
    /// The shape of its networks.
    type Config: Clone;

    /// The range of its pictures.
    const RANGE: Range;
    /// What it is, as the start of a sentence.
    const WHAT: &'static str;
    /// As of [`Task::LOSS`].
    const LOSS: &'static str = "nats per picture";
    /// As of [`Task::JUDGED`].
    const JUDGED: &'static str = "validation loss";
    /// As of [`Task::NEXT`].
    const NEXT: [&'static str; 2] = ["kiln sample ", ""];
    /// Whether a [`Judge`] looks at what it makes.
    const IS_JUDGED: bool = false;

    /// Whether training shall lower its loss, all the time.
    fn falls(model: &Self::Model) -> bool {
        let _ = model;
        true
    }

    /// Whether it needs labels.
    fn labelled(model: &Self::Model) -> bool {
        let _ = model;
        false
    }

    /// The networks for pictures of `dims` in so many classes.
    ///
    /// # Errors
    /// There are none for such pictures.
    fn config(model: &Self::Model, dims: Dims, classes: usize) -> Result<Self::Config>;

    /// Whether a device can train it.
    ///
    /// # Errors
    /// It cannot; the error says what to change.
    fn supported(model: &Self::Model, device: &Device) -> Result<()> {
        let _ = (model, device);
        Ok(())
    }

    /// The model and its parameters, on `batches` or, for a [dry](Device::dry) device, on nothing.
    fn new(
        recipe: &PictureRecipe<Self::Model>,
        config: Self::Config,
        batches: Option<PictureBatches>,
        device: &Device,
    ) -> (Self, Vec<Decl>);

    /// The content of `config.json`.
    fn to_json(&self) -> Value;

    /// As of [`Task::evaluate`].
    ///
    /// # Errors
    /// As of there.
    fn evaluate(
        trainer: &mut Trainer<Self>,
        exam: Exam,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>>;

    /// Sheets and their names: first what becomes of the same numbers, or pictures, at each time, under the name "".
    fn show(trainer: &mut Trainer<Self>, view: &View) -> Vec<(&'static str, Sheet)>;
}

/// A model of pictures in training on pictures.
pub struct PictureTask<P> {
    data: Data,
    judge: Option<Judge>,
    batch: usize,
    seed: u64,
    painter: std::marker::PhantomData<P>,
}

impl<P: Painter> PictureTask<P> {
    /// A trainer of the networks `config` on pictures, or on none, for a [dry](Device::dry) device.
    ///
    /// # Errors
    /// The settings and the pictures do not fit one another.
    pub fn trainer(
        recipe: &PictureRecipe<P::Model>,
        data: Option<&Pictures>,
        config: P::Config,
        device: &Device,
    ) -> Result<Trainer<P>> {
        let (train, augment) = (&recipe.train, recipe.data.augment());
        let batches = |data: &Pictures| PictureBatches::new(data.clone(), train.batch, P::RANGE, augment, train.seed);
        let batches = data.map(batches).transpose()?;
        Trainer::with(Setup::of(recipe), P::new(recipe, config, batches, device), device)
    }

    fn supported(recipe: &PictureRecipe<P::Model>, device: &Device) -> Result<()> {
        Setup::of(recipe).supported(device)?;
        P::supported(&recipe.model, device)
    }

    /// The data, the networks for it, and the memory that a run takes.
    fn prepared(
        recipe: &PictureRecipe<P::Model>,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<(Data, P::Config, Plan)> {
        Self::supported(recipe, device)?;
        let data = super::open(&recipe.data, P::labelled(&recipe.model), progress)?;
        let config = P::config(&recipe.model, data.train.dims(), data.train.classes())?;
        let memory = fit::check(recipe, device, &|recipe, dry| Self::dry(recipe, &data, dry))?;
        Ok((data, config, memory))
    }

    /// Carries a run on `data` out on a dry device.
    fn dry(recipe: &PictureRecipe<P::Model>, data: &Data, dry: &Device) -> Plan {
        let Ok(config) = P::config(&recipe.model, data.train.dims(), data.train.classes()) else {
            // There is no such model, so it fits nowhere.
            return Plan { total: usize::MAX, ..Plan::default() };
        };
        let (train, held_out) = (&recipe.train, &data.held_out);
        let trainer = Self::trainer(recipe, None, config, dry).expect("no data that could be wrong");
        let mut judge = P::IS_JUDGED.then(|| Judge::dry(data, dry));
        Plan::measure(dry, train, trainer, |trainer, what, last| match what {
            Other::Evaluate => {
                let (batch, most) = (train.batch, recipe.eval.max_batches.unwrap_or(usize::MAX));
                let exam = Exam { held_out, judge: judge.as_mut(), batch, most, seed: train.seed, last };
                P::evaluate(trainer, exam, &mut |_, _| true).expect("no data that could change");
                trainer.tape.reset();
            }
            Other::Sample => drop(P::show(trainer, &view(recipe, held_out, last))),
        })
    }

    /// The task on its data; a classifier that judges is trained for `lessons` steps at most.
    fn opened(
        recipe: &PictureRecipe<P::Model>,
        own: &Path,
        lessons: u64,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Opened<Self>> {
        let (data, config, memory) = Self::prepared(recipe, device, progress)?;
        let trainer = Self::trainer(recipe, Some(&data.train), config, device)?;
        let judge = P::IS_JUDGED.then(|| Judge::taught(&data, own, lessons, device, progress)).transpose()?;
        let (batch, seed, hash) = (recipe.train.batch, recipe.train.seed, data.hash.clone());
        let task = PictureTask { data, judge, batch, seed, painter: std::marker::PhantomData };
        Ok(Opened { task, trainer, memory, data: hash })
    }
}

/// Steps for which a rehearsal trains a classifier.
const LESSONS: u64 = 12;

fn view<'a, M>(recipe: &PictureRecipe<M>, held_out: &'a Pictures, last: bool) -> View<'a> {
    let PictureSample { rows, columns } = recipe.sample;
    View { held_out, rows, columns, seed: recipe.train.seed, last }
}

impl<P: Painter> Task for PictureTask<P> {
    type Model = P::Model;
    type Data = PictureData;
    type Sample = PictureSample;
    type Objective = P;

    const SHARED: bool = P::SHARED;
    const UNIT: &'static str = "pictures";
    const LOSS: &'static str = P::LOSS;
    const JUDGED: &'static str = P::JUDGED;
    const NEXT: [&'static str; 2] = P::NEXT;

    fn terms(recipe: &PictureRecipe<P::Model>) -> Terms {
        let terms = Terms::of(recipe);
        Terms { falls: terms.falls && P::falls(&recipe.model), ..terms }
    }

    fn planner(recipe: &PictureRecipe<P::Model>, _: Option<&Path>, device: &Device) -> Result<PlannerOf<Self>> {
        Self::supported(recipe, device)?;
        let data = super::open(&recipe.data, P::labelled(&recipe.model), &mut |_, _, _| {})?;
        P::config(&recipe.model, data.train.dims(), data.train.classes())?;
        Ok(Box::new(move |recipe, dry| Self::dry(recipe, &data, dry)))
    }

    fn open(
        recipe: &PictureRecipe<P::Model>,
        own: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Opened<Self>> {
        Self::opened(recipe, own, u64::MAX, device, progress)
    }

    fn rehearse(
        recipe: &PictureRecipe<P::Model>,
        _: Option<&Path>,
        scratch: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Self>> {
        let opened = Self::opened(recipe, scratch, LESSONS, device, progress)?;
        let more = opened.task.judge.as_ref().map_or(0.0, Judge::left);
        Ok(Rehearsal { opened, more, held_out: 1.0, judged_before: false })
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        self.data.about()
    }

    fn config(&self, trainer: &Trainer<P>) -> Value {
        trainer.objective.to_json()
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer<P>,
        last: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let (held_out, most) = (&self.data.held_out, max_batches.unwrap_or(usize::MAX));
        let exam = Exam { held_out, judge: self.judge.as_mut(), batch: self.batch, most, seed: self.seed, last };
        let found = P::evaluate(trainer, exam, progress);
        trainer.tape.reset();
        found
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<P>,
        recipe: &PictureRecipe<P::Model>,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let sheets = Sheets { run, step };
        let last = step == recipe.train.steps;
        for (name, sheet) in P::show(trainer, &view(recipe, &self.data.held_out, last)) {
            sheets.save(name, &sheet, watch)?;
        }
        if !last {
            return Ok(());
        }
        sheets.animation()?;
        let about = format!("{} on {}.", P::WHAT, self.data.words());
        let notes: Vec<String> = self.judge.iter().map(Judge::says).collect();
        report::write(run, &recipe.run.name, &about, step, &notes)
    }
}
