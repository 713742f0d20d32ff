//! From a recipe to a model that learns from examples.

use super::adapt::{files_of, layout, place, supported, with_base};
use super::exam::{Exact, expected, prompt};
use super::objective::{self, Sft, flops};
use super::prepared::{Lessons, Parts, Prepared, read, rows};
use super::section::{TuneData, TuneModel, TuneRecipe, TuneSample};
use crate::data::Tokenizer;
use crate::data::examples::{Example, Found, Rows};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::model::GptConfig;
use crate::model::sample::SampleOptions;
use crate::model::sequence::LANES;
use crate::train::answers::show;
use crate::train::event::Watch;
use crate::train::fit::{self, Other, Plan};
use crate::train::health::{self, Terms};
use crate::train::objective::Examples;
use crate::train::run::RunDir;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use crate::train::trainer::Trainer;
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;
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

impl Tune {
    /// A trainer of the model `config`, with its weights and rows or, on a [dry](Device::dry) device, without.
    fn trainer(
        recipe: &TuneRecipe,
        config: &GptConfig,
        data: Option<(Rc<Pretrained>, Rc<Lessons>)>,
        device: &Device,
    ) -> Result<Trainer<Sft>> {
        let train = &recipe.train;
        let (gpt, decls, hold) = layout(&recipe.model, config, device)?;
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
        supported(recipe, config, device)?;
        drop(layout(&recipe.model, config, device)?);
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
                trainer.answers(&vec![&prompt[..]; texts.min(LANES)], &[], &|_| options, &mut |_| true);
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
        let config = files_of(&recipe.model, &config)?;
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
        let base = place(&recipe.model)?;
        if recipe.train.steps > 0 && recipe.train.context > 0 {
            return Ok(with_base(recipe, base));
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
        supported(recipe, &config, device)?;
        drop(layout(&recipe.model, &config, device)?);
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
        let said = trainer.answers(&prompts, self.tokenizer.ends(), &|_| options, &mut |_| watch.stop().is_none());
        let mut text = String::new();
        for ((example, prompt), said) in examples.iter().zip(&prompts).zip(&said) {
            let wanted = expected(example, self.tokenizer.ends());
            let [asked, said, wanted] = [prompt, &said[..], wanted].map(|ids| self.tokenizer.decode(ids));
            text += &format!("{asked}{said}\n  (held out: {})\n\n", wanted.trim());
        }
        show(&text, step, run, watch)
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
