//! From a recipe to a model that learns from examples.

use super::exam::{Exact, expected, prompt};
use super::objective::{self, Sft, flops};
use super::prepared::{Lessons, Parts, Prepared, read, rows};
use super::section::{Held, Method, TuneData, TuneModel, TuneRecipe, TuneSample, means, patterns};
use crate::cpu::gemm::Precision;
use crate::data::Tokenizer;
use crate::data::atomic::write_atomic;
use crate::data::examples::{Example, Found, Rows};
use crate::device::Device;
use crate::disk;
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::formats::peft::PeftConfig;
use crate::model::sample::SampleOptions;
use crate::model::sequence::LANES;
use crate::model::{Gpt, GptConfig};
use crate::nn::lora::{is_adapter, module};
use crate::ops::attention::PACKED;
use crate::params::{Decl, Hold, Kind};
use crate::train::event::{Event, Watch};
use crate::train::fit::{self, Other, Plan};
use crate::train::health::{self, Terms};
use crate::train::lm::Lm;
use crate::train::objective::Examples;
use crate::train::run::RunDir;
use crate::train::sampler;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use crate::train::trainer::Trainer;
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A model that learns from examples.
pub struct Tune {
    tokenizer: Tokenizer,
    lessons: Rc<Lessons>,
    val: Rows,
    /// General text that is held out, where some is learnt along.
    general: Option<Rows>,
    found: Found,
    /// The held-out loss of the base, on the examples and on general text.
    before: [f64; 2],
    exact: Exact,
    /// `adapter_config.json`, or `config.json`.
    config: Value,
}

/// How each parameter is held.
type HoldOf = Box<dyn Fn(&Decl) -> Hold>;

/// The modules that have an adapter, of all that may.
fn chosen(model: &TuneModel, decls: &[Decl]) -> Result<[Vec<String>; 2]> {
    let matrices = decls.iter().filter(|decl| decl.kind == Kind::Matrix);
    let images = matrices.flat_map(Decl::images);
    let all: Vec<String> = images.filter_map(|image| module(&image.name).map(str::to_owned)).collect();
    let patterns = patterns("model.targets", &model.targets)?;
    let chosen: Vec<String> = all.iter().filter(|name| means(&patterns, name)).cloned().collect();
    if chosen.is_empty() {
        let mut ends: Vec<&str> = all.iter().filter_map(|name| name.rsplit('.').next()).collect();
        ends.sort_unstable();
        ends.dedup();
        let problem = format!("no linear layer is called so: {:?}", model.targets);
        return Err(Error::config("model.targets", problem, format!("the model has {}", ends.join(", "))));
    }
    Ok([chosen, all])
}

impl Tune {
    /// Whether a device can do it.
    fn supported(recipe: &TuneRecipe, config: &GptConfig, device: &Device) -> Result<()> {
        Setup::of(recipe).supported(device)?;
        let (TuneModel { method, rank, frozen, .. }, precision) = (&recipe.model, recipe.train.precision);
        Lm::supported(config, precision, device)?;
        let Device::Gpu(_) = device else { return Ok(()) };
        if recipe.data.packing {
            return Err(Error::config("data.packing", PACKED, "set it to false: each example has a row of its own"));
        }
        if *method == Method::Dora {
            let hint = "set it to \"lora\", or train on the CPU (--device cpu)";
            return Err(Error::config("model.method", "DoRA has no kernels for a GPU", hint));
        }
        let half = precision == Precision::Bf16;
        if *frozen != if half { Held::Bf16 } else { Held::F32 } {
            let problem = format!("on a GPU frozen weights are held in train.precision, {}", precision.name());
            return Err(Error::config("model.frozen", problem, format!("set it to {:?}", precision.name())));
        }
        if *method == Method::Lora && half && !rank.is_multiple_of(8) {
            let problem = format!("rows of {rank} elements: those of a GPU's products in bf16 are multiples of 8");
            return Err(Error::config("model.rank", problem, "take a multiple of 8, or train.precision = \"f32\""));
        }
        Ok(())
    }

    /// The model `config` with what is trained of it: its parameters, and how each is held.
    ///
    /// # Errors
    /// Patterns of the recipe mean no layer, or all parameters.
    fn layout(model: &TuneModel, config: &GptConfig, device: &Device) -> Result<(Gpt, Vec<Decl>, HoldOf)> {
        let (mut gpt, mut decls) = Gpt::new(config.clone());
        let on_gpu = matches!(device, Device::Gpu(_));
        let frozen = model.frozen.hold();
        // A GPU's kernels take vectors in f32.
        let held = move |decl: &Decl| if on_gpu && decl.kind == Kind::Vector { Hold::Frozen } else { frozen };
        let hold: HoldOf = match model.method {
            Method::Lora | Method::Dora => {
                let patterns = patterns("model.targets", &model.targets)?;
                chosen(model, &decls)?;
                gpt.adapt(&mut decls, &model.lora(), &|name| means(&patterns, name));
                Box::new(move |decl| if is_adapter(&decl.name) { Hold::Train } else { held(decl) })
            }
            Method::Full => {
                let patterns = patterns("model.freeze", &model.freeze)?;
                let stays = move |decl: &Decl| decl.images().iter().all(|image| means(&patterns, &image.name));
                if decls.iter().all(&stays) {
                    let hint = "leave some of them out";
                    return Err(Error::config("model.freeze", "nothing is left to train", hint));
                }
                Box::new(move |decl| if stays(decl) { held(decl) } else { Hold::Train })
            }
        };
        Ok((gpt, decls, hold))
    }

    /// A trainer of the model `config`, with its weights and rows or, on a [dry](Device::dry) device, without.
    fn trainer(
        recipe: &TuneRecipe,
        config: &GptConfig,
        data: Option<(Rc<Pretrained>, Rc<Lessons>)>,
        device: &Device,
    ) -> Result<Trainer<Sft>> {
        let train = &recipe.train;
        let (gpt, decls, hold) = Self::layout(&recipe.model, config, device)?;
        let shape = [train.batch, train.context];
        let flops = flops(&gpt, &decls, &*hold, train.context, shape[0] * shape[1]);
        let (base, lessons) = data.unzip();
        let base = base.filter(|_| !recipe.model.fresh);
        let (micros, packed) = (train.accumulate, recipe.data.packing);
        let sft = Sft { gpt, base, lessons, shape, micros, packed, hold, flops };
        Trainer::with(Setup::of(recipe), (sft, decls), device)
    }

    /// What memory the run takes, where it fits.
    fn memory(recipe: &TuneRecipe, config: &GptConfig, prompt: usize, device: &Device) -> Result<Plan> {
        Self::supported(recipe, config, device)?;
        drop(Self::layout(&recipe.model, config, device)?);
        fit::check(recipe, device, &|recipe, dry| Self::dry(recipe, config, prompt, dry))
    }

    /// Carries a run out on a dry device.
    fn dry(recipe: &TuneRecipe, config: &GptConfig, prompt: usize, dry: &Device) -> Plan {
        let Ok(mut trainer) = Self::trainer(recipe, config, None, dry) else {
            // It would train nothing, and so fits nowhere.
            return Plan { total: usize::MAX, ..Plan::default() };
        };
        let TuneSample { count, exact, tokens, .. } = recipe.sample;
        let write = |trainer: &mut Trainer<Sft>, texts: usize| {
            if texts > 0 && matches!(dry, Device::Cpu(_)) {
                let options = SampleOptions::greedy(tokens.min(config.context + 1));
                let prompt = vec![0; prompt.clamp(1, config.context)];
                trainer.answers(&vec![&prompt[..]; texts.min(LANES)], &[], &options, &mut |_| true);
            }
        };
        let judge = |trainer: &mut Trainer<Sft>| {
            trainer.eval_rows(None).expect("no data that could be wrong");
            trainer.tape.reset();
        };
        // The base, before the first step.
        judge(&mut trainer);
        Plan::measure(dry, &recipe.train, trainer, |trainer, what, last| match what {
            Other::Evaluate => {
                judge(trainer);
                write(trainer, if last { exact } else { 0 });
            }
            Other::Sample => write(trainer, count),
        })
    }

    /// The task on its data; the base is judged first, where that is not left out.
    fn opened(recipe: &TuneRecipe, judged: bool, device: &Device, progress: &mut Progress) -> Result<Opened<Tune>> {
        let Prepared { base, tokenizer, examples, replay, context } = read(recipe, progress)?;
        let (found, mut hash) = (examples.found.clone(), examples.hash.clone());
        replay.iter().for_each(|replay| hash += &replay.hash);
        let Parts { lessons, val, general } = rows(recipe, examples, replay, context)?;
        if recipe.optim.dp.is_some() {
            one_each(lessons.examples.examples())?;
        }
        let longest = val.examples().iter().map(|example| prompt(example).len()).max().unwrap_or(1);
        let memory = Self::memory(recipe, &base.config, longest, device)?;
        let config = base.config.clone();
        let (base, lessons) = (Rc::new(base), Rc::new(lessons));
        let mut trainer = Self::trainer(recipe, &config, Some((base, Rc::clone(&lessons))), device)?;
        let mut told = |done, all| {
            progress("evaluating the base", done as u64, all as u64);
            true
        };
        let mut loss = |rows: &Rows| trainer.evaluate_rows(rows, recipe.eval.max_batches, &mut told);
        let before = [Some(&val), general.as_ref()].map(|rows| rows.filter(|_| judged).map_or(Ok(None), &mut loss));
        let [of_val, of_general] = before;
        let before = [of_val?, of_general?].map(|loss| loss.unwrap_or(f64::NAN));
        let exact = Exact { count: recipe.sample.exact, tokens: recipe.sample.tokens };
        let config = match recipe.model.method {
            Method::Full => config.to_json(),
            Method::Lora | Method::Dora => {
                let TuneModel { base, rank, alpha, dropout, rslora, .. } = &recipe.model;
                let [chosen, all] = chosen(&recipe.model, &Gpt::new(config.clone()).1)?;
                let path = base.as_deref().unwrap_or(Path::new(""));
                let numbers = [*rank as f64, f64::from(*alpha), f64::from(*dropout)];
                let peft = PeftConfig::lora(&path.to_string_lossy(), numbers, &chosen, &all);
                let peft = PeftConfig {
                    use_rslora: *rslora,
                    use_dora: recipe.model.method == Method::Dora,
                    fan_in_fan_out: config.positions == crate::model::Positions::Learned,
                    ..peft
                };
                serde_json::to_value(peft).expect("plain data")
            }
        };
        Ok(Opened {
            task: Tune { tokenizer, lessons, val, general, found, before, exact, config },
            trainer,
            memory,
            data: hash,
        })
    }
}

impl Tune {
    /// The model and the rows of a run that is there already, to be looked at: a trainer that does as many micro-batches in a step
    /// as `micros` says of its shape and the length of a row, what was found in the examples, and their hashes.
    ///
    /// # Errors
    /// As of [`open`](Task::open).
    pub fn reopen(
        recipe: &TuneRecipe,
        micros: &dyn Fn(&GptConfig, usize) -> usize,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<(Trainer<Sft>, Found, Vec<u64>)> {
        let Prepared { base, examples, replay, context, .. } = read(recipe, progress)?;
        let found = examples.found.clone();
        let hash =
            |example: &Example| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&example.ids, &example.trained));
        let hashes = examples.all.iter().map(hash).collect();
        let Parts { lessons, .. } = rows(recipe, examples, replay, context)?;
        let mut recipe = recipe.clone();
        (recipe.train.context, recipe.train.accumulate) = (context, micros(&base.config, context));
        // Gradients are looked at as they are.
        recipe.optim.dp = None;
        let config = base.config.clone();
        let trainer = Self::trainer(&recipe, &config, Some((Rc::new(base), Rc::new(lessons))), device)?;
        Ok((trainer, found, hashes))
    }
}

impl Task for Tune {
    type Model = TuneModel;
    type Data = TuneData;
    type Sample = TuneSample;
    type Objective = Sft;

    const UNIT: &'static str = "tokens";
    const LOSS: &'static str = "nats per token that is trained on";
    const JUDGED: &'static str = "held-out loss";
    const NEXT: [&'static str; 2] = ["kiln chat ", ""];

    /// Its weights know something already.
    fn terms(recipe: &TuneRecipe) -> Terms {
        Terms { fresh: recipe.model.fresh, ..Terms::of(recipe) }
    }

    fn settle<'r>(recipe: &'r TuneRecipe, progress: &mut Progress) -> Result<Cow<'r, TuneRecipe>> {
        // A run may go on, and is another model then; what its adapter belongs to is one of its checkpoints.
        let base = recipe.model.base.as_deref().map(sampler::place).transpose()?.map(|(path, _)| absolute(&path));
        if recipe.train.steps > 0 && recipe.train.context > 0 {
            if base == recipe.model.base {
                return Ok(Cow::Borrowed(recipe));
            }
            return Ok(Cow::Owned(TuneRecipe { model: TuneModel { base, ..recipe.model.clone() }, ..recipe.clone() }));
        }
        let Prepared { examples, replay, context, .. } = read(recipe, progress)?;
        let mut settled = recipe.clone();
        (settled.train.context, settled.model.base) = (context, base);
        if recipe.train.steps == 0 {
            let Parts { lessons, .. } = rows(recipe, examples, replay, context)?;
            let per_step = recipe.train.batch as f64 * recipe.train.accumulate as f64;
            settled.train.steps = (lessons.epoch() * recipe.data.epochs / per_step).ceil().max(1.0) as u64;
            settled.validate()?;
        }
        Ok(Cow::Owned(settled))
    }

    fn planner(recipe: &TuneRecipe, _: Option<&Path>, device: &Device) -> Result<PlannerOf<Tune>> {
        let Prepared { base, examples, .. } = read(recipe, &mut |_, _, _| {})?;
        let longest = examples.all.iter().map(|example| prompt(example).len()).max().unwrap_or(1);
        let config = base.config;
        Self::supported(recipe, &config, device)?;
        drop(Self::layout(&recipe.model, &config, device)?);
        Ok(Box::new(move |recipe, dry| Self::dry(recipe, &config, longest, dry)))
    }

    fn open(recipe: &TuneRecipe, _: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<Tune>> {
        Self::opened(recipe, true, device, progress)
    }

    fn rehearse(
        recipe: &TuneRecipe,
        _: Option<&Path>,
        _: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Tune>> {
        let opened = Self::opened(recipe, false, device, progress)?;
        Ok(Rehearsal { opened, more: 0.0, held_out: 1.0, judged_before: true })
    }

    fn examples(recipe: &TuneRecipe, _: Option<&Path>, _: &Path, progress: &mut Progress) -> Result<Option<Examples>> {
        let Prepared { examples, replay, context, .. } = read(recipe, progress)?;
        let Parts { lessons, .. } = rows(recipe, examples, replay, context)?;
        one_each(lessons.examples.examples())?;
        Ok(Some(objective::examples(&lessons)))
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        let rows = &self.lessons.examples;
        let targets: usize = (0..rows.len()).map(|row| rows.targets(row)).sum();
        let mut about = vec![
            (rows.examples().len() as u64, "examples to learn from"),
            (targets as u64, "tokens of them trained on"),
            (rows.len() as u64, "rows"),
            (self.val.examples().len() as u64, "examples held out"),
        ];
        let replayed = self.lessons.replayed() as u64;
        about.extend((replayed > 0).then_some((replayed, "rows of general text")));
        about
    }

    fn warnings(&self) -> Vec<String> {
        let Found { examples, ended, truncated, cut, refused, first_refused, .. } = &self.found;
        let mut warnings = Vec::new();
        if *ended == 0 {
            let text = "no example ends with a token that ends a turn or a text, so the model will not learn to stop";
            warnings.push(format!("{text}; look with --show-mask 3"));
        }
        if *truncated > 0 {
            let text = "examples were longer than a row and lost their end";
            warnings.push(format!("{truncated} of {examples} {text}, {cut} tokens in all (train.context)"));
        }
        if let Some(first) = first_refused {
            warnings.push(format!("{refused} examples are left out; the first: {first}"));
        }
        warnings.extend(health::data::judge_mask(&self.found).map(|found| found.to_string()));
        warnings
    }

    fn config(&self, _: &Trainer<Sft>) -> Value {
        self.config.clone()
    }

    fn files(&self) -> Vec<(&str, &str)> {
        self.tokenizer.files().collect()
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer<Sft>,
        last: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let Some(loss) = trainer.evaluate_rows(&self.val, max_batches, progress)? else { return Ok(None) };
        let [before, general_before] = self.before;
        let mut parts = vec![("before", before)];
        if let Some(rows) = &self.general {
            let Some(general) = trainer.evaluate_rows(rows, max_batches, progress)? else { return Ok(None) };
            parts.extend([("general", general), ("general_before", general_before)]);
        }
        if last && self.exact.count > 0 {
            let Some(share) = trainer.exact(self.val.examples(), &self.tokenizer, &self.exact, progress)? else {
                return Ok(None);
            };
            parts.push(("exact", share));
        }
        Ok(Some(Evaluation { loss, parts, ..Evaluation::default() }))
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<Sft>,
        recipe: &TuneRecipe,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let TuneSample { count, tokens, temperature, .. } = recipe.sample;
        let context = trainer.objective.gpt.config().context;
        let last = |example: &'_ Example| prompt(example).len().saturating_sub(context);
        let examples: Vec<&Example> = self.val.examples().iter().take(count).collect();
        let prompts: Vec<&[u32]> = examples.iter().map(|example| &prompt(example)[last(example)..]).collect();
        let options = SampleOptions { tokens, temperature, seed: step, ..SampleOptions::default() };
        let said = trainer.answers(&prompts, self.tokenizer.ends(), &options, &mut |_| watch.stop().is_none());
        let mut text = String::new();
        for ((example, prompt), said) in examples.iter().zip(&prompts).zip(&said) {
            let wanted = expected(example, self.tokenizer.ends());
            let [asked, said, wanted] = [prompt, &said[..], wanted].map(|ids| self.tokenizer.decode(ids));
            text += &format!("{asked}{said}\n  (held out: {})\n\n", wanted.trim());
        }
        disk::make_dirs(run.disk(), &run.samples())?;
        write_atomic(run.disk(), &run.sample(step, "txt"), text.as_bytes())?;
        watch.event(&Event::Sample { step, text: &text });
        Ok(())
    }
}

/// Refuses a text that is more than one example, for private training: only each of them would be hidden, not the text.
fn one_each(examples: &[Example]) -> Result<()> {
    // Those of a text follow one another.
    let same = |pair: &&[Example]| pair[0].source == pair[1].source;
    let Some(pair) = examples.windows(2).find(same) else { return Ok(()) };
    let (path, line) = &pair[0].source;
    let problem = format!(
        "{}, line {line} is longer than a row and would be several examples, of which private training hides each alone",
        path.display()
    );
    Err(Error::config("train.context", problem, "make rows longer, or cut such texts: a line is what is hidden"))
}

/// A path that means the same from any folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or(path.to_owned())
}
