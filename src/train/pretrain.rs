//! The run: data, steps, checkpoints, evaluations, samples, and what is left behind in the run directory.

use super::checkpoint::{self, Contents, State};
use super::event::{Event, Summary, Watch};
use super::fit::{self, Plan};
use super::guard::{LOSS, Verdict};
use super::metrics::{self, Metrics, Record};
use super::plot::{LossCurve, Picture};
use super::recipe::{Recipe, Train};
use super::run::RunDir;
use super::setup::Setup;
use super::source;
use super::trainer::{At, Bad, Step, Trainer};
use crate::data::atomic::write_atomic;
use crate::data::detok::Decoder;
use crate::data::{Dataset, DatasetInfo, EvalBatches, Part, Tokenizer};
use crate::device::Device;
use crate::disk::{self, Disk, Os};
use crate::error::{Error, Result};
use crate::model::Positions;
use crate::model::sample::SampleOptions;
use crate::params::Params;
use crate::tensor::Tensor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Trains the model of `recipe`, from the start or, with `resume`, from the newest good checkpoint of a run (whose own
/// recipe then is `recipe`). A resumed run computes the same bits as one that was never interrupted.
///
/// # Errors
/// The data, the run directory or a checkpoint cannot be used; the run does not fit in memory; it went back as often as it
/// may.
pub fn train(recipe: &Recipe, resume: Option<&Path>, device: &Device, watch: &mut dyn Watch) -> Result<Summary> {
    train_on(&Os, recipe, resume, device, watch)
}

/// [`train`], in a run directory on `disk`; data is read, and made where the recipe names none, on the system's.
pub fn train_on(
    disk: &dyn Disk,
    recipe: &Recipe,
    resume: Option<&Path>,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Summary> {
    let began = Instant::now();
    let mut work = match resume {
        Some(path) => {
            let mut work = Work::open(recipe, RunDir::open(disk, path)?, device, watch)?;
            work.resume(watch)?;
            work
        }
        None => {
            let run = RunDir::create(disk, &recipe.run.dir, &recipe.run.name)?;
            let path = run.path().to_owned();
            let opened = recipe.save(disk, &run.recipe()).and_then(|()| Work::open(recipe, run, device, watch));
            opened.inspect_err(|_| {
                // A run that could not start would only take the name from the next one.
                let _ = disk.remove_all(&path);
            })?
        }
    };
    work.run(watch, began)
}

/// A run under way.
struct Work<'a> {
    recipe: &'a Recipe,
    run: RunDir<'a>,
    tokenizer: Tokenizer,
    trainer: Trainer,
    eval: EvalBatches,
    /// Bits a byte for each nat a token of validation loss.
    bits_per_byte: f64,
    floor: Option<f64>,
    train_tokens: u64,
    val_tokens: u64,
    metrics: Metrics,
    /// The hash of the data set.
    data: String,
    state: State,
    /// The checkpoint with the lowest validation loss so far.
    best: Option<(f64, u64)>,
    /// The step that an earlier process saved but did not conclude.
    unfinished: Option<Record>,
    /// Floating-point operations a second that this machine reaches.
    peak: Option<f64>,
    memory: Plan,
}

/// What memory a run of `recipe` takes, before it starts; where it has data already, `resume` is its directory. A
/// vocabulary that is still to be learnt counts with `data.vocab`, and a prompt with a token for each byte.
///
/// # Errors
/// It does not fit; the tokenizer or the data cannot be read.
pub fn plan(recipe: &Recipe, resume: Option<&Path>, device: &Device) -> Result<Plan> {
    let vocab = source::vocab(recipe, resume.map(|run| run.join("data")).as_deref())?;
    Setup::of(recipe, 1).supported(device)?;
    fit::check(recipe, vocab, 1 + recipe.sample.prompt.len(), device)
}

impl<'a> Work<'a> {
    fn open(recipe: &'a Recipe, run: RunDir<'a>, device: &Device, watch: &mut dyn Watch) -> Result<Work<'a>> {
        Setup::of(recipe, 1).supported(device)?;
        // Before time goes into data for a run that can have no memory, whatever the vocabulary turns out to be.
        let quiet = Recipe { train: Train { sample_every: 0, ..recipe.train.clone() }, ..recipe.clone() };
        if fit::check(&quiet, 1, 1, device).is_err() {
            fit::check(&quiet, recipe.data.vocab, 1, device)?;
        }
        let data = source::shards(recipe, &run.data(), &mut |what, done, total| {
            watch.event(&Event::Prepare { what, done, total });
        })?;
        let info = DatasetInfo::load(&data)?;
        let tokenizer = info.load_tokenizer(&data)?;
        let mut prompt = 1;
        if recipe.train.sample_every > 0 {
            let hint = "give a prompt in the characters of the data";
            let ids = start(&tokenizer, &recipe.sample.prompt).map_err(|e| Error::config("sample.prompt", e, hint))?;
            prompt = ids.len();
        }
        let memory = fit::check(recipe, info.tokenizer.vocab, prompt, device)?;
        let train = Arc::new(Dataset::open(&data, Part::Train)?);
        let val = Arc::new(Dataset::open(&data, Part::Val)?);
        let (train_tokens, val_tokens) = (train.len() as u64, val.len() as u64);
        let trainer = Trainer::new(recipe, info.tokenizer.vocab, train, device)?;
        let eval = EvalBatches::new(val, recipe.train.batch, recipe.train.context)?;
        let tokens_per_byte = info.val.tokens as f64 / info.val.bytes.max(1) as f64;
        Ok(Work {
            recipe,
            metrics: Metrics::open(run.disk(), &run.metrics(), u64::MAX)?,
            tokenizer,
            trainer,
            eval,
            bits_per_byte: tokens_per_byte / std::f64::consts::LN_2,
            floor: source::floor(recipe),
            train_tokens,
            val_tokens,
            run,
            state: State { data: vec![(0, info.hash())], ..State::new(recipe.train.seed) },
            data: info.hash(),
            best: None,
            unfinished: None,
            memory,
            peak: match device {
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
        let stands: Vec<u64> =
            checkpoint::list(self.run.disk(), &self.run.checkpoints())?.into_iter().map(|(step, _)| step).collect();
        let evaluated = records.iter().filter(|r| stands.contains(&r.step)).filter_map(|r| Some((r.val_loss?, r.step)));
        self.best = evaluated.min_by(|a, b| a.0.total_cmp(&b.0));
        Ok(())
    }

    fn run(&mut self, watch: &mut dyn Watch, began: Instant) -> Result<Summary> {
        let (steps, first) = (self.recipe.train.steps, self.state.step);
        watch.event(&Event::Memory { plan: &self.memory });
        watch.event(&Event::Start {
            run: self.run.path(),
            parameters: self.trainer.params.numel(),
            steps,
            first_step: first,
            train_tokens: self.train_tokens,
            val_tokens: self.val_tokens,
            vocab: self.tokenizer.vocab_size(),
            precision: self.recipe.train.precision,
        });
        let mut stopped = None;
        while stopped.is_none() && (self.state.step < steps || self.unfinished.is_some()) {
            if let Some(record) = self.unfinished.take() {
                stopped = self.conclude(record, true, watch)?;
                continue;
            }
            let started = Instant::now();
            let State { step, optimizer_steps: updates, .. } = self.state;
            let at = At { step, batch: step + self.state.guard.offset, updates };
            let looks = watch.looks_into_steps();
            let mut look = |micro, params: &mut Params, loss: &mut Tensor| watch.backward(at, micro, params, loss);
            let done = self.trainer.step_with(at, if looks { Some(&mut look) } else { None });
            let seconds = started.elapsed().as_secs_f64();
            let tokens = self.recipe.tokens_per_step();
            let step = self.state.step + 1;
            let tokens_per_s = tokens as f64 / seconds;
            let share_of_peak = self.peak.map(|peak| self.trainer.flops_per_step() / seconds / peak);
            let Step { loss, lr, grad_norm, bad } = done?;
            let skipped = bad.map(|bad| match bad {
                Bad::Loss => LOSS.to_owned(),
                Bad::Grad(id) => self.trainer.params.name(id).to_owned(),
            });
            if skipped.is_none() {
                self.state.optimizer_steps += 1;
                self.state.tokens += tokens;
                self.state.loss = Some(loss);
            }
            let verdict = self.state.guard.observe(&self.recipe.guard, loss, skipped.as_deref());
            watch.event(&Event::Step { step, steps, loss, lr, grad_norm, tokens_per_s, share_of_peak });
            if let Some(first) = &skipped {
                watch.event(&Event::Skipped { step, loss, first, in_a_row: self.state.guard.bad_in_a_row() });
            }
            let record =
                Record { step, loss, lr, grad_norm, tokens_per_s, val_loss: None, bits_per_byte: None, skipped };
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
            if self.is_due(every, step) {
                self.state.guard.mark(step);
            }
            stopped = watch.stop();
            let saved = stopped.is_some() || self.is_due(every, step);
            if saved {
                self.save(watch)?;
            }
            match stopped {
                Some(_) => self.metrics.append(&record)?,
                None => stopped = self.conclude(record, saved, watch)?,
            }
            if stopped.is_some() && !saved {
                self.save(watch)?;
            }
        }
        self.metrics.sync()?;
        if let Some(signal) = stopped {
            watch.event(&Event::Stopped { signal, step: self.state.step });
        }
        self.draw()?;
        Ok(Summary {
            run: self.run.path().to_owned(),
            steps: self.state.step,
            loss: self.state.loss.unwrap_or(f32::NAN),
            val_loss: self.state.val_loss,
            bits_per_byte: self.state.val_loss.map(|loss| loss * self.bits_per_byte),
            seconds: began.elapsed().as_secs_f64(),
            skipped: self.state.guard.skipped,
            rewinds: self.state.guard.rewinds.len() as u64,
            stopped,
            memory: self.memory,
        })
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
            self.metrics.append(record)?;
            self.metrics.sync()?;
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
                self.trainer.restart();
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
        self.take_up()
    }

    /// Whether what is done every `every` steps, and after the last one, is done after `step`.
    fn is_due(&self, every: u64, step: u64) -> bool {
        step == self.recipe.train.steps || (every > 0 && step.is_multiple_of(every))
    }

    /// What follows a step: its evaluation, its line in the metrics, and what the model writes; `saved` says that a
    /// checkpoint of the step stands. Gives the signal that asked to stop before all of this was done.
    fn conclude(&mut self, mut record: Record, saved: bool, watch: &mut dyn Watch) -> Result<Option<i32>> {
        let step = record.step;
        if self.is_due(self.recipe.train.eval_every, step) {
            record.val_loss = self.evaluate(watch, saved)?;
            record.bits_per_byte = record.val_loss.map(|loss| loss * self.bits_per_byte);
        }
        self.metrics.append(&record)?;
        let every = self.recipe.train.sample_every;
        if every > 0 && self.is_due(every, step) && watch.stop().is_none() {
            self.sample(watch)?;
        }
        // With all done, a signal has nothing left to stop.
        let done = step == self.recipe.train.steps && record.val_loss.is_some();
        Ok(if done { None } else { watch.stop() })
    }

    /// Draws the loss curve into the run directory.
    fn draw(&self) -> Result<()> {
        let records = metrics::read(self.run.disk(), &self.run.metrics())?;
        let floor = self.floor.map(|bits| bits / self.bits_per_byte);
        let curve = LossCurve { title: &self.recipe.run.name, records: &records, floor };
        curve.save_svg(self.run.disk(), &self.run.loss_svg())?;
        curve.save_png(self.run.disk(), &self.run.loss_png())
    }

    /// Writes a checkpoint, and removes old ones.
    fn save(&mut self, watch: &mut dyn Watch) -> Result<()> {
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
        self.metrics.sync()?;
        let contents = Contents {
            params: &self.trainer.params,
            config: &self.trainer.gpt.config().to_json(),
            tokenizer: self.tokenizer.files().collect(),
        };
        let path = checkpoint::save(&self.run, &contents, &self.state)?;
        watch.event(&Event::Checkpoint { step: self.state.step, path: &path });
        Ok(())
    }

    /// The validation loss in nats a token, `None` if a signal came; `saved` says that a checkpoint of this step stands.
    fn evaluate(&mut self, watch: &mut dyn Watch, saved: bool) -> Result<Option<f64>> {
        let mut progress = |done, total| {
            watch.event(&Event::Prepare { what: "evaluating", done: done as u64, total: total as u64 });
            watch.stop().is_none()
        };
        let evaluated = self.trainer.evaluate(&self.eval, self.recipe.eval.max_batches, &mut progress)?;
        let Some((nats, targets)) = evaluated else { return Ok(None) };
        let val_loss = nats / targets as f64;
        self.state.val_loss = Some(val_loss);
        if saved && val_loss.is_finite() && self.best.is_none_or(|(best, _)| val_loss < best) {
            self.best = Some((val_loss, self.state.step));
        }
        let bits_per_byte = val_loss * self.bits_per_byte;
        watch.event(&Event::Eval { step: self.state.step, val_loss, bits_per_byte, floor: self.floor });
        Ok(Some(val_loss))
    }

    /// Lets the model write, into `samples/`.
    fn sample(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let sample = &self.recipe.sample;
        let options = SampleOptions {
            tokens: sample.tokens,
            temperature: sample.temperature,
            top_k: sample.top_k,
            top_p: sample.top_p,
            seed: self.state.step,
        };
        let mut text = sample.prompt.clone();
        let prompt = start(&self.tokenizer, &sample.prompt)?;
        let mut decoder = Decoder::new(&self.tokenizer);
        self.trainer.generate(prompt, self.tokenizer.eot(), &options, &mut |id| {
            text.push_str(&decoder.push(id));
            watch.stop().is_none()
        });
        text.push_str(&decoder.finish());
        let path = self.run.sample(self.state.step);
        disk::make_dirs(self.run.disk(), &self.run.samples())?;
        write_atomic(self.run.disk(), &path, text.as_bytes())?;
        watch.event(&Event::Sample { step: self.state.step, text: &text });
        Ok(())
    }
}

/// The ids from which a model writes on: the prompt's, after the token that separates documents where there is one.
///
/// # Errors
/// The tokenizer has no token for a character of the prompt, or nothing to start from.
pub fn start(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    let mut ids: Vec<u32> = tokenizer.eot().into_iter().collect();
    ids.extend(tokenizer.encode_with_special(prompt)?);
    if ids.is_empty() {
        // Without a token between documents, a line break is the likeliest start.
        ids.extend(tokenizer.encode("\n").unwrap_or_default());
    }
    if ids.is_empty() {
        ids.push(0);
    }
    Ok(ids)
}

/// The recipe of an existing run.
pub fn recipe_of(run: &Path, overrides: &[String]) -> Result<Recipe> {
    let path = run.join("recipe.toml");
    if !path.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no run is here (it would have a recipe.toml)");
        let hint = "give the directory that an earlier run printed, as runs/village".to_owned();
        return Err(Error::Io { path: run.to_owned(), source, hint });
    }
    let recipe = Recipe::load(Some(&path), overrides)?;
    if !overrides.is_empty() {
        unchanged(&Recipe::load(Some(&path), &[])?, &recipe)?;
    }
    Ok(recipe)
}

/// Refuses changes to what the weights and the tokens of a run depend on.
fn unchanged(was: &Recipe, is: &Recipe) -> Result<()> {
    let fixed = |r: &Recipe| {
        let Recipe { run, model, data, train, .. } = r;
        let config = model.config(data.vocab, train.context);
        let (theta, scaling) = match config.positions {
            Positions::Rope { theta, scaling } => (theta.to_string(), format!("{scaling:?}")),
            Positions::Learned => Default::default(),
        };
        [
            ("run.name", run.name.clone()),
            ("run.dir", run.dir.display().to_string()),
            ("model.kind", format!("{:?}", model.kind)),
            ("model.layers", config.layers.to_string()),
            ("model.heads", config.heads.to_string()),
            ("model.kv_heads", config.kv_heads.to_string()),
            ("model.d", config.d.to_string()),
            ("model.hidden", config.hidden.to_string()),
            ("model.bias", config.bias.to_string()),
            ("model.tied", config.tied.to_string()),
            ("model.activation", format!("{:?}", config.mlp)),
            ("model.rope_theta", theta),
            ("model.rope_scaling", scaling),
            ("optim.kind", format!("{:?}", r.optim.kind)),
            ("data.tokenizer", data.tokenizer.clone().into()),
            ("data.vocab", data.vocab.to_string()),
            ("data.bytes", data.bytes.to_string()),
            ("data.seed", data.seed.to_string()),
            ("data.val_fraction", data.val_fraction.to_string()),
            ("data.split", format!("{:?}", data.split)),
            ("train.context", train.context.to_string()),
        ]
    };
    for ((key, was), (_, is)) in fixed(was).into_iter().zip(fixed(is)) {
        if was != is {
            let problem = format!("a run that goes on keeps its {was}; {is} is another model, optimizer or data");
            return Err(Error::config(key, problem, "leave it out, or start a new run without --resume"));
        }
    }
    Ok(())
}
