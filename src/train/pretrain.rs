//! The run: data, steps, checkpoints, evaluations, samples, and what is left behind in the run directory. What is trained
//! is a [`Task`]'s affair.

use super::account::{Account, Actual, Planned};
use super::checkpoint::{self, Contents, State};
use super::event::{Event, Summary, Watch};
use super::fit::{self, Plan};
use super::guard::{LOSS, Verdict};
use super::health::{Course, weights};
use super::metrics::{self, Metrics, Record};
use super::plot::{LossCurve, Picture};
use super::private::Ledger;
use super::recipe::Recipe;
use super::run::RunDir;
use super::task::{Evaluation, Opened, RecipeFor, Task};
use super::tensorboard::Board;
use super::text::Text;
use super::together::{self, Lead};
use super::trainer::{At, Bad, Parts, Step, Trainer};
use crate::device::Device;
use crate::disk::{Disk, Os};
use crate::error::Result;
use crate::params::Params;
use crate::ranks::Ranks;
use crate::tensor::Tensor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// [`run`], of a language model, in a run directory on the system's disk.
///
/// # Errors
/// As of [`run`].
pub fn train(recipe: &Recipe, resume: Option<&Path>, device: &Device, watch: &mut dyn Watch) -> Result<Summary> {
    run::<Text>(&Os, recipe, resume, device, watch)
}

/// Trains the model of `recipe`, from the start or, with `resume`, from the newest good checkpoint of a run (whose own
/// recipe then is `recipe`). A resumed run computes the same bits as one that was never interrupted. The run directory is on
/// `disk`; data is read, and made where the recipe names none, on the system's.
///
/// # Errors
/// The data, the run directory or a checkpoint cannot be used; the run does not fit in memory; it went back as often as it
/// may.
pub fn run<T: Task>(
    disk: &dyn Disk,
    recipe: &RecipeFor<T>,
    resume: Option<&Path>,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Summary> {
    let alone = Arc::new(Ranks::alone());
    Ok(run_on::<T>(disk, recipe, resume, (device, &alone), watch)?.expect("rank 0 sums up"))
}

/// [`run`] of several ranks, each of which calls this; rank 0 sums up. Their run is that of one rank with as many times as many micro-batches in a step.
///
/// # Errors
/// As of [`run`]; the micro-batches of a run that goes on cannot be shared by so many; the other ranks do not answer.
pub fn run_on<T: Task>(
    disk: &dyn Disk,
    recipe: &RecipeFor<T>,
    resume: Option<&Path>,
    (device, ranks): (&Device, &Arc<Ranks>),
    watch: &mut dyn Watch,
) -> Result<Option<Summary>> {
    let began = Instant::now();
    let recipe = T::settle(recipe, &mut |what, done, total| watch.event(&Event::Prepare { what, done, total }))?;
    let recipe = &*together::shared::<T>(recipe, resume.is_none(), ranks)?;
    if ranks.rank() > 0 {
        return together::follow::<T>(disk, recipe, device, ranks).map(|()| None);
    }
    let lead = Lead::new(ranks);
    let open = |run: &RunDir, watch: &mut dyn Watch| {
        T::open(recipe, &run.data(), device, &mut |what, done, total| {
            watch.event(&Event::Prepare { what, done, total });
        })
    };
    let mut work = match resume {
        Some(path) => {
            let run = RunDir::open(disk, path)?;
            let opened = open(&run, watch)?;
            let mut work = Work::<T>::new(recipe, run, opened, watch.until())?;
            work.resume(watch)?;
            work
        }
        None => {
            let run = RunDir::create(disk, &recipe.run.dir, &recipe.run.name)?;
            let path = run.path().to_owned();
            let opened = recipe.save(disk, &run.recipe()).and_then(|()| open(&run, watch));
            let opened = opened.and_then(|opened| Work::<T>::new(recipe, run, opened, watch.until()));
            opened.inspect_err(|_| {
                // A run that could not start would only take the name from the next one.
                let _ = disk.remove_all(&path);
            })?
        }
    };
    lead.begin(work.run.path())?;
    work.trainer.share(ranks)?;
    // Each has a processor as this one.
    work.peak = work.peak.map(|peak| peak * ranks.size() as f64);
    if work.state.step > 0 {
        lead.load()?;
    }
    work.lead = Some(lead);
    work.run(watch, began).map(Some)
}

/// A run under way.
pub(super) struct Work<'a, T: Task> {
    recipe: &'a RecipeFor<T>,
    pub(super) run: RunDir<'a>,
    pub(super) task: T,
    pub(super) trainer: Trainer<T::Objective>,
    metrics: Metrics,
    board: Board,
    /// The hash of the data set.
    data: String,
    state: State,
    /// The checkpoint with the lowest validation loss so far.
    best: Option<(f64, u64)>,
    /// The last step to be done: the recipe's, or an earlier one at which the run pauses.
    end: u64,
    /// The step that an earlier process saved but did not conclude.
    unfinished: Option<Record>,
    /// What is made of the losses so far.
    course: Course,
    /// Floating-point operations a second that this machine reaches.
    peak: Option<f64>,
    memory: Plan,
    /// What was spent, where training is private.
    ledger: Option<Ledger>,
    /// What the other ranks hear.
    lead: Option<Lead>,
}

/// What memory a run of `recipe` takes, before it starts; `resume` is its directory where it has one.
///
/// # Errors
/// It does not fit; what is needed of the data cannot be read.
pub fn plan<T: Task>(recipe: &RecipeFor<T>, resume: Option<&Path>, device: &Device) -> Result<Plan> {
    let recipe = T::settle(recipe, &mut |_, _, _| {})?;
    T::plan(&recipe, resume.map(|run| run.join("data")).as_deref(), device)
}

/// The largest batch with which a run of `recipe` fits, and its plan; see [`AnyRecipe`](super::AnyRecipe::largest_batch).
///
/// # Errors
/// As of [`Task::planner`].
pub fn largest_batch<T: Task>(recipe: &RecipeFor<T>, device: &Device) -> Result<Option<(usize, Plan)>> {
    let recipe = T::settle(recipe, &mut |_, _, _| {})?;
    Ok(fit::largest(&recipe, device, &*T::planner(&recipe, None, device)?))
}

impl<'a, T: Task> Work<'a, T> {
    /// Before the first step of a run that pauses after step `until`, where that is given.
    pub(super) fn new(
        recipe: &'a RecipeFor<T>,
        run: RunDir<'a>,
        opened: Opened<T>,
        until: Option<u64>,
    ) -> Result<Work<'a, T>> {
        let Opened { task, trainer, memory, data } = opened;
        let end = until.map_or(recipe.train.steps, |step| step.min(recipe.train.steps));
        let device = trainer.params.device().clone();
        Ok(Work {
            recipe,
            end,
            metrics: Metrics::open(run.disk(), &run.metrics(), u64::MAX)?,
            board: Board::new(run.path(), 1),
            task,
            trainer,
            run,
            state: State { data: vec![(0, data.clone())], ..State::new(recipe.train.seed) },
            data,
            best: None,
            unfinished: None,
            course: Course::new(T::terms(recipe)),
            memory,
            ledger: None,
            lead: None,
            peak: match &device {
                Device::Cpu(host) => Some(1e9 * crate::cpu::limits::fma_peak(&host.cpu, 0.1)),
                Device::Gpu(_) => None,
            },
        })
    }

    /// Takes up the newest checkpoint that verifies, and cuts the metrics back to it. Without one, starts anew.
    fn resume(&mut self, watch: &mut dyn Watch) -> Result<()> {
        checkpoint::recover(&self.run)?;
        let checkpoint::Newest { found, mut damaged } = checkpoint::newest(self.run.disk(), &self.run.checkpoints())?;
        match found {
            Some((path, _)) => {
                self.state = checkpoint::load(self.run.disk(), &path, &mut self.trainer.params)?;
                if self.state.guard.anchor().is_none() {
                    // Written before there was a guard: it is to be gone back to like any other.
                    self.state.guard.mark(self.state.step);
                }
                let step = self.state.step;
                match self.state.data.last() {
                    Some((_, data)) if *data == self.data => {}
                    // Written before data sets were told apart: it may have been another one.
                    None => self.state.data.push((step, self.data.clone())),
                    Some(_) => {
                        let text = "the data set is not what it was: from here on the run sees other tokens than an uninterrupted one";
                        watch.event(&Event::Warning { text });
                        self.state.data.push((step, self.data.clone()));
                    }
                }
                let (then, now) = (&self.state.device, self.trainer.params.device().name());
                if !then.is_empty() && then != now {
                    let text = format!(
                        "the run was on the {then} so far and goes on on the {now}: its last bits will not be those of a run on one"
                    );
                    watch.event(&Event::Warning { text: &text });
                }
                for damage in damaged {
                    watch.event(&Event::Warning { text: &format!("{damage}; taking {} instead", path.display()) });
                }
            }
            None if !damaged.is_empty() => return Err(damaged.swap_remove(0)),
            None => {}
        }
        self.take_up()
    }

    /// Cuts the metrics back to the step of the state, and finds out what is left to do for it.
    fn take_up(&mut self) -> Result<()> {
        let step = self.state.step;
        self.metrics = Metrics::open(self.run.disk(), &self.run.metrics(), step)?;
        let mut records = metrics::read(self.run.disk(), &self.run.metrics())?;
        // Saving comes before evaluating, and a step's line after it: a process that was stopped in between leaves the
        // step to be concluded here.
        let concluded =
            |r: &Record| r.step == step && (r.val_loss.is_some() || !self.is_due(self.recipe.train.eval_every, step));
        if self.state.record.is_some() && !records.last().is_some_and(concluded) {
            self.unfinished = self.state.record.clone();
            self.metrics = Metrics::open(self.run.disk(), &self.run.metrics(), step - 1)?;
            records.retain(|r| r.step < step);
        }
        self.course.restart(&records);
        // A checkpoint is written before its step is evaluated.
        self.state.val_loss = records.iter().rev().find_map(|record| record.val_loss).or(self.state.val_loss);
        let next = if self.unfinished.is_some() { step } else { step + 1 };
        self.board = Board::new(self.run.path(), next);
        let stands: Vec<u64> =
            checkpoint::list(self.run.disk(), &self.run.checkpoints())?.into_iter().map(|(step, _)| step).collect();
        let evaluated = records.iter().filter(|r| stands.contains(&r.step)).filter_map(|r| Some((r.val_loss?, r.step)));
        self.best = evaluated.min_by(|a, b| a.0.total_cmp(&b.0));
        Ok(())
    }

    pub(super) fn run(&mut self, watch: &mut dyn Watch, began: Instant) -> Result<Summary> {
        let (steps, first) = (self.recipe.train.steps, self.state.step);
        let mut account = Account::open(&self.run, self.planned())?;
        watch.event(&Event::Memory { plan: &self.memory });
        self.task.warnings().iter().for_each(|text| watch.event(&Event::Warning { text }));
        let about = self.task.about();
        watch.event(&Event::Start {
            run: self.run.path(),
            parameters: self.trainer.params.numel(),
            trained: self.trainer.params.trained_numel(),
            steps,
            first_step: first,
            data: &about,
            precision: self.recipe.train.precision,
        });
        self.open_ledger(watch)?;
        let mut stopped = None;
        while stopped.is_none() && (self.state.step < self.end || self.unfinished.is_some()) {
            if let Some(record) = self.unfinished.take() {
                stopped = self.conclude(record, true, watch)?;
                continue;
            }
            if let Some(ledger) = &mut self.ledger {
                ledger.count(&self.run)?;
            }
            let started = Instant::now();
            let State { step, optimizer_steps: updates, .. } = self.state;
            let at = At { step, batch: step + self.state.guard.offset, updates };
            let made = self.task.before(&mut self.trainer, at, &self.run, watch)?;
            let looks = watch.looks_into_steps();
            let mut look = |micro, params: &mut Params, loss: &mut Tensor| watch.backward(at, micro, params, loss);
            self.lead.as_ref().map_or(Ok(()), |lead| lead.step(at))?;
            let done = self.trainer.step_with(at, if looks { Some(&mut look) } else { None });
            let seconds = started.elapsed().as_secs_f64();
            let examples = self.recipe.per_step();
            let step = self.state.step + 1;
            let rate = examples as f64 / seconds;
            let flops = Some(self.trainer.flops_per_step()).filter(|&flops| flops > 0.0);
            let share_of_peak = self.peak.zip(flops).map(|(peak, flops)| flops / seconds / peak);
            let Step { loss, lr, grad_norm, bad, parts } = done?;
            let parts: Parts = made.iter().map(|&(name, value)| (name, value as f32)).chain(parts).collect();
            let skipped = bad.map(|bad| match bad {
                Bad::Loss => LOSS.to_owned(),
                Bad::Grad(id) => self.trainer.params.name(id).to_owned(),
            });
            if skipped.is_none() {
                self.state.optimizer_steps += 1;
                self.state.tokens += examples;
                self.state.loss = Some(loss);
            }
            let verdict = self.state.guard.observe(&self.recipe.guard, loss, skipped.as_deref());
            let unit = T::UNIT;
            watch.event(&Event::Step { step, steps, loss, lr, grad_norm, parts: &parts, rate, unit, share_of_peak });
            if let Some(first) = &skipped {
                watch.event(&Event::Skipped { step, loss, first, in_a_row: self.state.guard.bad_in_a_row() });
            }
            let named = [(format!("{unit}_per_s"), rate)].into_iter();
            let parts = parts.iter().map(|&(name, value)| (name.to_owned(), value.into()));
            let record = Record {
                step,
                loss,
                lr,
                grad_norm,
                val_loss: None,
                bits_per_byte: None,
                skipped,
                more: named.chain(parts).collect(),
            };
            self.state.step = step;
            if self.state.device != self.trainer.params.device().name() {
                self.state.device = self.trainer.params.device().name().to_owned();
            }
            self.state.record = Some(record.clone());
            if let Verdict::Rewind(why) = verdict {
                self.rewind(why, &record, watch)?;
                stopped = watch.stop();
                continue;
            }
            let every = self.recipe.train.checkpoint_every;
            // Where it goes back to must not hang on where it pauses.
            if self.is_regular(every, step) {
                self.state.guard.mark(step);
            }
            stopped = watch.stop();
            let saved = stopped.is_some() || self.is_due(every, step);
            if saved {
                self.save(watch)?;
            }
            match stopped {
                Some(_) => self.log(&record)?,
                None => stopped = self.conclude(record, saved, watch)?,
            }
            if stopped.is_some() && !saved {
                self.save(watch)?;
            }
        }
        self.sync()?;
        if let Some(signal) = stopped {
            watch.event(&Event::Stopped { signal, step: self.state.step });
        }
        self.draw()?;
        let took = Actual::of(self.trainer.params.device(), self.state.step - first, began.elapsed());
        account.close(&self.run, took)?;
        self.ledger.as_mut().map_or(Ok(()), |ledger| ledger.close(&self.run))?;
        Ok(Summary {
            run: self.run.path().to_owned(),
            parameters: self.trainer.params.numel(),
            trained: self.trainer.params.trained_numel(),
            steps: self.state.step,
            of_steps: steps,
            loss: self.state.loss.unwrap_or(f32::NAN),
            judged: T::JUDGED,
            next: self.task.next(),
            val_loss: self.state.val_loss,
            bits_per_byte: self.state.val_loss.and_then(|loss| self.task.bits_per_byte(loss)),
            seconds: began.elapsed().as_secs_f64(),
            skipped: self.state.guard.skipped,
            rewinds: self.state.guard.rewinds.len() as u64,
            stopped,
            memory: self.memory,
            privacy: self.ledger.as_ref().map(|ledger| ledger.promise(0)),
        })
    }

    /// Opens the account of a private run, and says what it will promise.
    fn open_ledger(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let Some(private) = self.trainer.private() else { return Ok(()) };
        let (steps, done) = (self.recipe.train.steps, self.state.step);
        let ledger = Ledger::open(&self.run, private, steps, done)?;
        let left = steps.saturating_sub(done);
        watch.event(&Event::Private { promise: &ledger.promise(left) });
        let warnings = ledger.warnings(private.settings().epsilon, left);
        warnings.iter().for_each(|text| watch.event(&Event::Warning { text }));
        self.ledger = Some(ledger);
        Ok(())
    }

    /// What the run is going to take.
    fn planned(&self) -> Planned {
        let params = &self.trainer.params;
        Planned {
            memory: self.memory,
            parameters: params.numel(),
            trained: params.trained_numel(),
            steps: self.recipe.train.steps,
            flops_per_step: self.trainer.flops_per_step(),
            device: params.device().name().to_owned(),
            threads: params.device().host().threads.count(),
        }
    }

    /// Goes back to the last good checkpoint, for the reason `why`, which `record` of the last step shows: what was done
    /// since is given up, and its data passed over.
    ///
    /// # Errors
    /// The run went back as often as it may.
    fn rewind(&mut self, why: String, record: &Record, watch: &mut dyn Watch) -> Result<()> {
        let (all, from) = (self.run.checkpoints(), self.state.step);
        let guard = &self.state.guard;
        let (target, tries, max_tries) =
            (guard.anchor().unwrap_or(0), guard.tries() + 1, self.recipe.guard.max_rewinds);
        if tries > max_tries {
            self.log(record)?;
            self.sync()?;
            self.draw()?;
            let newest = checkpoint::newest(self.run.disk(), &all)?.found.map(|(_, state)| state.step);
            return Err(self.state.guard.give_up(from, &why, &self.recipe.optim, self.run.path(), newest));
        }
        let (mut then, mut damaged) = (None, Vec::new());
        for (_, path) in checkpoint::list(self.run.disk(), &all)?.into_iter().rev().filter(|&(step, _)| step <= target)
        {
            match checkpoint::load(self.run.disk(), &path, &mut self.trainer.params) {
                Ok(state) => {
                    then = Some(state);
                    break;
                }
                Err(e) => damaged.push(e),
            }
        }
        for damage in &damaged {
            watch.event(&Event::Warning { text: &format!("{damage}; going back further") });
        }
        let mut then = match then {
            Some(state) => state,
            None if !damaged.is_empty() => return Err(damaged.swap_remove(0)),
            None => {
                self.trainer.restart()?;
                State::new(self.recipe.train.seed)
            }
        };
        watch.event(&Event::Rewind { from, to: then.step, why: &why, tries, max_tries });
        let mut guard = std::mem::take(&mut self.state.guard);
        guard.rewind(from, then.step, std::mem::take(&mut then.guard), why);
        self.state = State { guard, ..then };
        // On disk before what comes later goes: a process that dies on the way leaves either course of the run whole.
        self.write(watch)?;
        checkpoint::give_up_after(&self.run, self.state.step)?;
        self.lead.as_ref().map_or(Ok(()), Lead::load)?;
        self.take_up()
    }

    /// Appends a step to the metrics, for people and programs and for TensorBoard.
    fn log(&mut self, record: &Record) -> Result<()> {
        self.metrics.append(record)?;
        self.board.numbers(self.run.disk(), record)
    }

    /// Puts them on disk.
    fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.board.sync()
    }

    /// Whether what is done every `every` steps, and where the run ends or pauses, is done after `step`.
    fn is_due(&self, every: u64, step: u64) -> bool {
        step == self.end || self.is_regular(every, step)
    }

    /// The same of a run that does not pause.
    fn is_regular(&self, every: u64, step: u64) -> bool {
        step == self.recipe.train.steps || (every > 0 && step.is_multiple_of(every))
    }

    /// What follows a step: its evaluation, its line in the metrics, and what the model writes; `saved` says that a
    /// checkpoint of the step stands. Gives the signal that asked to stop before all of this was done.
    fn conclude(&mut self, mut record: Record, saved: bool, watch: &mut dyn Watch) -> Result<Option<i32>> {
        let step = record.step;
        if self.is_due(self.recipe.train.eval_every, step)
            && let Some(Evaluation { loss, parts, .. }) = self.evaluate(watch, saved)?
        {
            (record.val_loss, record.bits_per_byte) = (Some(loss), self.task.bits_per_byte(loss));
            record.more.extend(parts.into_iter().map(|(name, value)| (format!("val_{name}"), value)));
            record.more.extend(self.ledger.as_ref().map(|ledger| ("dp_epsilon".to_owned(), ledger.epsilon())));
        }
        for found in self.course.record(&record).into_iter().flatten() {
            watch.event(&Event::Warning { text: &found.to_string() });
        }
        self.log(&record)?;
        let every = self.recipe.train.sample_every;
        if every > 0 && self.is_due(every, step) && watch.stop().is_none() {
            self.task.sample(&mut self.trainer, self.recipe, step, &self.run, watch)?;
            self.board.samples(self.run.disk(), step, &self.run.samples())?;
        }
        // With all done, a signal has nothing left to stop.
        let done = step >= self.end && record.val_loss.is_some();
        Ok(if done { None } else { watch.stop() })
    }

    /// Draws the loss curve into the run directory.
    fn draw(&self) -> Result<()> {
        let records = metrics::read(self.run.disk(), &self.run.metrics())?;
        let curve =
            LossCurve { title: &self.recipe.run.name, unit: T::LOSS, records: &records, floor: self.task.floor() };
        curve.save_svg(self.run.disk(), &self.run.loss_svg())?;
        curve.save_png(self.run.disk(), &self.run.loss_png())
    }

    /// Looks at weights and moments as they are after a step of the highest learning rate, or a later one.
    fn weigh(&mut self, watch: &mut dyn Watch) {
        let (terms, updates) = (T::terms(self.recipe), self.state.optimizer_steps);
        if self.state.step <= terms.warmup || updates == 0 {
            return;
        }
        let ratios = weights::ratios(&self.trainer.params, &self.recipe.optim.optimizer(), updates, terms.lr);
        if let Some(found) =
            weights::judge(&ratios, &terms, updates, self.course.fell()).and_then(|found| self.course.tell(found))
        {
            watch.event(&Event::Warning { text: &found.to_string() });
        }
    }

    /// Writes a checkpoint, and removes old ones.
    fn save(&mut self, watch: &mut dyn Watch) -> Result<()> {
        self.weigh(watch);
        self.write(watch)?;
        let spare: Vec<u64> = self.best.map(|(_, step)| step).into_iter().chain(self.state.guard.anchor()).collect();
        checkpoint::prune(&self.run, self.state.step, self.recipe.train.keep, &spare)?;
        if self.state.guard.tries() == 0 {
            checkpoint::forget_given_up(&self.run)?;
        }
        Ok(())
    }

    fn write(&mut self, watch: &mut dyn Watch) -> Result<()> {
        // A run that goes on from here has the lines of all steps before.
        self.sync()?;
        let contents = Contents {
            params: &self.trainer.params,
            config: &self.task.config(&self.trainer),
            files: self.task.files(),
        };
        let path = checkpoint::save(&self.run, &contents, &self.state)?;
        watch.event(&Event::Checkpoint { step: self.state.step, path: &path });
        Ok(())
    }

    /// Judges the model; `None` if a signal came. `saved` says that a checkpoint of this step stands.
    fn evaluate(&mut self, watch: &mut dyn Watch, saved: bool) -> Result<Option<Evaluation>> {
        let mut progress = |done, total| {
            watch.event(&Event::Prepare { what: "evaluating", done: done as u64, total: total as u64 });
            watch.stop().is_none()
        };
        let last = self.state.step == self.recipe.train.steps;
        let found = self.task.evaluate(&mut self.trainer, last, self.recipe.eval.max_batches, &mut progress)?;
        let Some(found) = found else { return Ok(None) };
        let val_loss = found.loss;
        self.state.val_loss = Some(val_loss);
        if saved && val_loss.is_finite() && self.best.is_none_or(|(best, _)| val_loss < best) {
            self.best = Some((val_loss, self.state.step));
        }
        let bits_per_byte = self.task.bits_per_byte(val_loss);
        let floor = self.task.floor().and_then(|floor| self.task.bits_per_byte(floor));
        found.warnings.iter().for_each(|text| watch.event(&Event::Warning { text }));
        let judged = T::JUDGED;
        watch.event(&Event::Eval {
            step: self.state.step,
            judged,
            val_loss,
            parts: &found.parts,
            bits_per_byte,
            floor,
        });
        Ok(Some(found))
    }
}
