//! From a recipe to a model that learns from preferences.

use super::duos::{Duo, Duos, Form, duos};
use super::judge::{add_score, with_score};
use super::objective::{Answers, Looked};
use super::section::{Preference, PreferenceLoss};
use crate::data::Tokenizer;
use crate::data::examples::{Example, Found, Preferences};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::measure::mean_and_error;
use crate::measure::{calibration_error, reliability};
use crate::model::GptConfig;
use crate::model::sample::SampleOptions;
use crate::model::sequence::LANES;
use crate::train::answers::show;
use crate::train::event::Watch;
use crate::train::fit::{self, Other, Plan};
use crate::train::health::Terms;
use crate::train::run::RunDir;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use crate::train::trainer::Trainer;
use crate::train::tune::{
    Base, TuneData, TuneModel, TuneRecipe, TuneSample, files_of, flops, layout, open, place, prompt, supported,
    with_base,
};
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;

/// Bins of the calibration error.
const BINS: usize = 15;

/// A model that learns from preferences.
pub struct Prefer {
    preference: Preference,
    tokenizer: Tokenizer,
    duos: Rc<Duos>,
    found: Found,
    /// `adapter_config.json`, or `config.json`.
    config: Value,
}

/// The base model, and what of the preferences is learnt and what held out.
struct Prepared {
    base: Pretrained,
    tokenizer: Tokenizer,
    context: usize,
    duos: Duos,
    found: Found,
    hash: String,
}

/// `[model.preference]`, which recipes of this kind have.
fn preference(recipe: &TuneRecipe) -> Preference {
    recipe.model.preference.expect("checked with the recipe")
}

fn read(recipe: &TuneRecipe, progress: &mut Progress) -> Result<Prepared> {
    let Base { model: base, tokenizer, template, context } = open(recipe)?;
    let (paths, loss) = (recipe.data.path.as_deref().unwrap_or_default(), preference(recipe).loss);
    let longest = Form::longest(loss, context);
    let mut told = |done, all| progress("reading preferences", done, all);
    let all = Preferences::read(paths, &tokenizer, template.as_ref(), longest, &mut told)?;
    let (found, hash, count) = (all.found.clone(), all.hash.clone(), all.all.len());
    let [train, val] = all.split(recipe.data.val_fraction, recipe.data.seed);
    if train.is_empty() || val.is_empty() {
        let problem = format!("of {count} preferences {} would be held out", val.len());
        let hint = "give more of them, or another data.val_fraction or data.seed";
        return Err(Error::config("data.val_fraction", problem, hint));
    }
    let (train, val) = (duos(train, loss)?, duos(val, loss)?);
    let duos = Duos { train, val, seed: recipe.train.seed, ..Duos::default() };
    Ok(Prepared { base, tokenizer, context, duos, found, hash })
}

impl Prefer {
    fn supported(recipe: &TuneRecipe, config: &GptConfig, device: &Device) -> Result<()> {
        if recipe.optim.dp.is_some() {
            let problem = "the loss of an answer hangs on others of its batch, so none can be clipped alone";
            return Err(Error::config("optim.dp", problem, "tune with it on examples: kiln tune"));
        }
        let without: [(&str, bool, &str); 2] = [
            ("data.packing", recipe.data.packing, "set it to false: each answer has a row of its own"),
            ("data.replay", recipe.data.replay.is_some(), "leave it out: the reference holds the model"),
        ];
        if let Some((key, _, hint)) = without.into_iter().find(|(_, set, _)| *set) {
            return Err(Error::config(key, "preferences are learnt without it", hint));
        }
        supported(recipe, config, device)
    }

    /// A trainer of the model `config`, with its weights and answers or, on a [dry](Device::dry) device, without.
    fn trainer(
        recipe: &TuneRecipe,
        config: &GptConfig,
        data: Option<(Rc<Pretrained>, Rc<Duos>)>,
        device: &Device,
    ) -> Result<Trainer<Answers>> {
        // What the reference says is said without dropout, and so is what is compared with it.
        let config = GptConfig { dropout: 0.0, ..config.clone() };
        let (gpt, mut decls, hold) = layout(&recipe.model, &config, device)?;
        let preference = preference(recipe);
        let train = &recipe.train;
        let form = Form { b: train.batch, t: train.context, loss: preference.loss };
        let flops = flops(&gpt, &decls, &*hold, form.t, form.tokens());
        let (score, hold) = match preference.loss {
            PreferenceLoss::Reward => {
                let (score, hold) = add_score(recipe.model.method, config.d, &mut decls, hold);
                (Some(score), hold)
            }
            _ => (None, hold),
        };
        let (base, duos) = data.unzip();
        let base = base.filter(|_| !recipe.model.fresh);
        let micros = train.accumulate;
        let objective = Answers { gpt, base, duos, form, micros, preference, score, hold, flops };
        Trainer::with(Setup::of(recipe), (objective, decls), device)
    }

    /// Carries a run out on a dry device.
    fn dry(recipe: &TuneRecipe, config: &GptConfig, prompt: usize, dry: &Device) -> Plan {
        let Ok(mut trainer) = Self::trainer(recipe, config, None, dry) else {
            // It would train nothing, and so fits nowhere.
            return Plan { total: usize::MAX, ..Plan::default() };
        };
        let TuneSample { count, tokens, .. } = recipe.sample;
        let judge = |trainer: &mut Trainer<Answers>| {
            trainer.look(&[]).expect("no data that could be wrong");
            trainer.tape.reset();
        };
        // The reference, before the first step.
        judge(&mut trainer);
        Plan::measure(dry, &recipe.train, trainer, |trainer, what, _| match what {
            Other::Evaluate => judge(trainer),
            Other::Sample if count > 0 && matches!(dry, Device::Cpu(_)) => {
                let options = SampleOptions::greedy(tokens.min(config.context + 1));
                let prompt = vec![0; prompt.clamp(1, config.context)];
                trainer.answers(&vec![&prompt[..]; count.min(LANES)], &[], &|_| options, &mut |_| true);
            }
            Other::Sample => {}
        })
    }

    /// The task on its data.
    fn opened(recipe: &TuneRecipe, device: &Device, progress: &mut Progress) -> Result<Opened<Prefer>> {
        let Prepared { base, tokenizer, duos, found, hash, .. } = read(recipe, progress)?;
        let config = base.config.clone();
        let prompt = longest_prompt(&duos);
        Self::supported(recipe, &config, device)?;
        drop(layout(&recipe.model, &config, device)?);
        let memory = fit::check(recipe, device, &|recipe, dry| Self::dry(recipe, &config, prompt, dry))?;
        let (base, duos) = (Rc::new(base), Rc::new(duos));
        let mut trainer = Self::trainer(recipe, &config, Some((base, Rc::clone(&duos))), device)?;
        let preference = preference(recipe);
        if preference.loss != PreferenceLoss::Reward {
            let refs = trainer.refer(&duos, progress)?;
            duos.refs.set(refs).expect("asked once");
        }
        let config = with_score(files_of(&recipe.model, &config)?, preference.loss);
        let task = Prefer { preference, tokenizer, duos, found, config };
        Ok(Opened { task, trainer, memory, data: hash })
    }
}

/// Tokens of the longest prompt that is held out.
fn longest_prompt(duos: &Duos) -> usize {
    duos.val.iter().map(|duo| prompt(&duo.answers[0]).len()).max().unwrap_or(1)
}

impl Trainer<Answers> {
    /// What the model says of all answers before it learns.
    fn refer(&mut self, duos: &Duos, progress: &mut Progress) -> Result<[Vec<[f32; 2]>; 2]> {
        let all = (duos.train.len() + duos.val.len()) as u64;
        let b = self.objective.form.b;
        let mut done = 0;
        let mut ask = |duos: &[Duo]| -> Result<Vec<[f32; 2]>> {
            let mut said = Vec::with_capacity(duos.len());
            for some in duos.chunks(b) {
                let some: Vec<_> = some.iter().map(|duo| (duo, [0.0; 2])).collect();
                said.extend(self.rows_of(&some)?);
                done += some.len() as u64;
                progress("asking the reference", done, all);
            }
            Ok(said)
        };
        let refs = [ask(&duos.train)?, ask(&duos.val)?];
        self.tape.reset();
        Ok(refs)
    }
}

/// The share of right preferences, and by how much it is surer than right: the calibration error of Bradley's and Terry's probabilities.
pub(super) fn right_and_sure(margins: &[f64]) -> [f64; 2] {
    let right = margins.iter().filter(|margin| **margin > 0.0).count() as f64 / margins.len().max(1) as f64;
    // How sure it is of whichever answer it prefers, and whether that is the better one.
    let sure = |margin: &f64| (1.0 / (1.0 + (-margin.abs()).exp()), *margin > 0.0);
    let sure: Vec<(f64, bool)> = margins.iter().map(sure).collect();
    [right, calibration_error(&reliability(&sure, BINS))]
}

/// What held-out duos come to, by the names of metrics.
fn held_out(loss: PreferenceLoss, found: &[Looked]) -> Vec<(&'static str, f64)> {
    let of = |i: usize, good: bool| -> Vec<f64> {
        found.iter().filter(|looked| looked.good == good).map(|looked| f64::from(looked.rewards[i])).collect()
    };
    if loss == PreferenceLoss::Kto {
        let [good, bad] = [true, false].map(|good| mean_and_error(&of(0, good))[0]);
        return vec![("rewards/chosen", good), ("rewards/rejected", bad), ("rewards/margins", good - bad)];
    }
    let [chosen, rejected] = [of(0, true), of(1, true)];
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let [right, ece] = right_and_sure(&margins);
    let [margin, error] = mean_and_error(&margins);
    if loss == PreferenceLoss::Reward {
        return vec![("accuracy", right), ("margin", margin), ("margin_error", error), ("ece", ece)];
    }
    let [chosen, rejected] = [&chosen, &rejected].map(|x| mean_and_error(x)[0]);
    vec![
        ("rewards/accuracies", right),
        ("rewards/margins", margin),
        ("rewards/margins_error", error),
        ("rewards/chosen", chosen),
        ("rewards/rejected", rejected),
    ]
}

impl Task for Prefer {
    type Model = TuneModel;
    type Data = TuneData;
    type Sample = TuneSample;
    type Objective = Answers;

    const UNIT: &'static str = "tokens";
    const LOSS: &'static str = "nats a preference, or as model.preference.loss has it";
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
        let Prepared { context, duos, .. } = read(recipe, progress)?;
        let mut settled = recipe.clone();
        (settled.train.context, settled.model.base) = (context, base);
        if recipe.train.steps == 0 {
            let per_step = recipe.train.batch as f64 * recipe.train.accumulate as f64;
            let steps = duos.train.len() as f64 * recipe.data.epochs / per_step;
            settled.train.steps = steps.ceil().max(1.0) as u64;
            settled.validate()?;
        }
        Ok(Cow::Owned(settled))
    }

    fn planner(recipe: &TuneRecipe, _: Option<&Path>, device: &Device) -> Result<PlannerOf<Prefer>> {
        let Prepared { base, duos, .. } = read(recipe, &mut |_, _, _| {})?;
        let (config, longest) = (base.config, longest_prompt(&duos));
        Self::supported(recipe, &config, device)?;
        drop(layout(&recipe.model, &config, device)?);
        Ok(Box::new(move |recipe, dry| Self::dry(recipe, &config, longest, dry)))
    }

    fn open(recipe: &TuneRecipe, _: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<Prefer>> {
        Self::opened(recipe, device, progress)
    }

    fn rehearse(
        recipe: &TuneRecipe,
        _: Option<&Path>,
        _: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Prefer>> {
        let opened = Self::opened(recipe, device, progress)?;
        Ok(Rehearsal { opened, more: 0.0, held_out: 1.0, judged_before: false })
    }

    fn next(&self) -> [&'static str; 2] {
        match self.preference.loss {
            PreferenceLoss::Reward => ["kiln align score ", " --data FILE.jsonl"],
            _ => Self::NEXT,
        }
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        let [learnt, held_out] = match self.preference.loss {
            PreferenceLoss::Kto => ["answers to learn from", "answers held out"],
            _ => ["pairs to learn from", "pairs held out"],
        };
        let tokens: usize = self.duos.train.iter().flat_map(|duo| &duo.answers).map(Example::targets).sum();
        vec![
            (self.duos.train.len() as u64, learnt),
            (tokens as u64, "tokens of answers"),
            (self.duos.val.len() as u64, held_out),
        ]
    }

    fn warnings(&self) -> Vec<String> {
        let Found { examples, ended, truncated, cut, refused, first_refused, .. } = &self.found;
        let mut warnings = Vec::new();
        if *ended == 0 {
            warnings.push("no answer ends with a token that ends a turn or a text: is the template right?".to_owned());
        }
        if *truncated > 0 {
            let text = "answers were longer than a row and lost their end";
            warnings.push(format!("{truncated} of {examples} {text}, {cut} tokens in all (train.context)"));
        }
        if let Some(first) = first_refused {
            warnings.push(format!("{refused} lines are left out; the first: {first}"));
        }
        if self.preference.loss == PreferenceLoss::Kto {
            let good = self.duos.train.iter().filter(|duo| duo.good).count();
            if good == 0 || good == self.duos.train.len() {
                let what = if good == 0 { "none of the answers was liked" } else { "all answers were liked" };
                warnings.push(format!("{what}: there is no difference to learn"));
            }
        }
        warnings
    }

    fn config(&self, _: &Trainer<Answers>) -> Value {
        self.config.clone()
    }

    fn files(&self) -> Vec<(&str, &str)> {
        self.tokenizer.files().collect()
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer<Answers>,
        _: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let duos = Rc::clone(&self.duos);
        let refs = duos.refs.get().map(|refs| &refs[1]);
        let all: Vec<_> =
            duos.val.iter().enumerate().map(|(i, duo)| (duo, refs.map_or([0.0; 2], |refs| refs[i]))).collect();
        let b = trainer.objective.form.b;
        let total = all.len().div_ceil(b).min(max_batches.unwrap_or(usize::MAX));
        let mut found: Vec<Looked> = Vec::new();
        for (index, some) in all.chunks(b).take(total).enumerate() {
            found.extend(trainer.look(some)?);
            if !progress(index + 1, total) {
                trainer.tape.reset();
                return Ok(None);
            }
        }
        trainer.tape.reset();
        let losses: Vec<f64> = found.iter().map(|looked| f64::from(looked.loss)).collect();
        let loss = mean_and_error(&losses)[0];
        let mut parts = held_out(self.preference.loss, &found);
        // Of a kind that none is held out of, nothing is known.
        parts.retain(|(_, value)| value.is_finite());
        Ok(Some(Evaluation { loss, parts, ..Evaluation::default() }))
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<Answers>,
        recipe: &TuneRecipe,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let TuneSample { count, tokens, temperature, .. } = recipe.sample;
        if self.preference.loss == PreferenceLoss::Reward {
            return Ok(());
        }
        let context = trainer.objective.gpt.config().context;
        let last = |example: &'_ Example| prompt(example).len().saturating_sub(context);
        let examples = self.duos.val.iter().map(|duo| &duo.answers[0]).take(count);
        let prompts: Vec<&[u32]> = examples.map(|example| &prompt(example)[last(example)..]).collect();
        let options = SampleOptions { tokens, temperature, seed: step, ..SampleOptions::default() };
        let said = trainer.answers(&prompts, self.tokenizer.ends(), &|_| options, &mut |_| watch.stop().is_none());
        let decode = |ids: &[u32]| self.tokenizer.decode(ids);
        let text: String =
            prompts.iter().zip(&said).map(|(asked, said)| format!("{}{}\n\n", decode(asked), decode(said))).collect();
        show(&text, step, run, watch)
    }
}
