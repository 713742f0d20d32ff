//! From a recipe to a model that learns from rewards.

use super::make::{How, Maker, Reference, Written};
use super::objective::Reinforced;
use super::reward::{Rewards, answerable};
use super::rollout::{Rollouts, Rows};
use super::section::{Method, Reinforcement};
use super::stage::Stage;
use crate::agent::Trace;
use crate::cpu::gemm::Precision;
use crate::data::Tokenizer;
use crate::data::examples::{Found, Prompt, Prompts, hex};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formats::Pretrained;
use crate::model::GptConfig;
use crate::model::sample::SampleOptions;
use crate::model::sequence::LANES;
use crate::train::answers::show;
use crate::train::event::{Event, Watch};
use crate::train::fit::{self, Other, Plan};
use crate::train::health::Terms;
use crate::train::prefer::add_score;
use crate::train::run::RunDir;
use crate::train::setup::Setup;
use crate::train::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use crate::train::trainer::{At, Trainer};
use crate::train::tune::{
    Base, TuneData, TuneModel, TuneRecipe, TuneSample, files_of, flops, layout, open, place, supported, with_base,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// The answers of a step, which its task makes and its objective reads.
type Shared = Rc<RefCell<Option<Rollouts>>>;

/// When answers to held-out prompts are written, as chance has it: always the same time, so that they compare.
const JUDGED: u64 = u64::MAX;

/// The share of answers cut off, and of groups without a difference, above which it is said.
pub(in crate::train) const MOST: f64 = 0.5;

/// The share of its first entropy below which a model has stopped to try.
pub(in crate::train) const LEAST_ENTROPY: f64 = 0.1;

/// A model that learns from rewards.
pub struct Reinforce {
    maker: Maker,
    /// Held out.
    val: Vec<Prompt>,
    found: Found,
    shared: Shared,
    /// How held-out prompts are answered.
    temperature: f32,
    /// What the model at the start gets for held-out prompts, and for the best of a group of answers to each.
    start: [f64; 2],
    /// What was warned of.
    told: Vec<&'static str>,
    /// `adapter_config.json`, or `config.json`.
    config: Value,
}

/// The base model, and which prompts are learnt from and which held out.
struct Prepared {
    base: Pretrained,
    tokenizer: Tokenizer,
    /// T.
    context: usize,
    train: Vec<Prompt>,
    val: Vec<Prompt>,
    found: Found,
    hash: String,
    /// Where it acts.
    stage: Option<Stage>,
}

impl Prepared {
    /// Tokens of the longest prompt.
    fn longest(&self) -> usize {
        self.train.iter().chain(&self.val).map(|prompt| prompt.ids.len()).max().unwrap_or(1)
    }
}

/// `[model.reinforce]`, which recipes of this kind have.
fn reinforcement(recipe: &TuneRecipe) -> &Reinforcement {
    recipe.model.reinforce.as_ref().expect("checked with the recipe")
}

fn read(recipe: &TuneRecipe, progress: &mut Progress) -> Result<Prepared> {
    let reinforce = reinforcement(recipe);
    let Base { model: base, tokenizer, template, context } = open(recipe)?;
    if let Some(agency) = &reinforce.agent {
        let stage = Stage::open(agency, template.as_ref(), &tokenizer)?;
        let [train, val] = stage.prompts(&tokenizer)?;
        let mut sum = Sha256::new();
        train.iter().chain(&val).for_each(|prompt| sum.update(bytemuck::cast_slice(&prompt.ids)));
        let found = Found { examples: train.len() + val.len(), ..Found::default() };
        let prepared = Prepared { base, tokenizer, context, train, val, found, hash: hex(sum), stage: Some(stage) };
        if prepared.longest() >= context {
            let problem = format!("what is asked has up to {} tokens, a row {context}", prepared.longest());
            return Err(Error::config("train.context", problem, "take a longer one, as 512"));
        }
        return Ok(prepared);
    }
    let paths = recipe.data.path.as_deref().unwrap_or_default();
    let mut told = |done, all| progress("reading prompts", done, all);
    let longest = context.saturating_sub(1);
    let all = Prompts::read(paths, &tokenizer, template.as_ref(), longest, &mut told)?;
    answerable(reinforce, all.all.iter())?;
    let (found, hash, count) = (all.found.clone(), all.hash.clone(), all.all.len());
    let [train, val] = all.split(recipe.data.val_fraction, recipe.data.seed);
    if train.is_empty() || val.is_empty() {
        let problem = format!("of {count} prompts {} would be held out", val.len());
        let hint = "give more of them, or another data.val_fraction or data.seed";
        return Err(Error::config("data.val_fraction", problem, hint));
    }
    let mut prepared = Prepared { base, tokenizer, context, train, val, found, hash, stage: None };
    if recipe.train.context == 0 {
        prepared.context = context.min(prepared.longest() + reinforce.tokens.max(2) - 1);
    }
    Ok(prepared)
}

impl Reinforce {
    fn supported(recipe: &TuneRecipe, config: &GptConfig, device: &Device) -> Result<()> {
        let model = &recipe.model;
        let without: [(&str, bool, &str); 5] = [
            ("optim.dp", recipe.optim.dp.is_some(), "leave it out, or tune on examples: kiln tune"),
            ("data.packing", recipe.data.packing, "set it to false: each answer has a row of its own"),
            ("data.replay", recipe.data.replay.is_some(), "leave it out: model.reinforce.kl holds the model"),
            ("model.fresh", model.fresh, "set it to false; the control here is --reward random"),
            ("model.dropout", model.dropout > 0.0, "set it to 0: who writes and who learns are one"),
        ];
        if let Some((key, _, hint)) = without.into_iter().find(|(_, set, _)| *set) {
            return Err(Error::config(key, "rewards are learnt from without it", hint));
        }
        supported(recipe, config, device)
    }

    /// A trainer of the model `config`, with its weights or, on a [dry](Device::dry) device, without.
    fn trainer(
        recipe: &TuneRecipe,
        config: &GptConfig,
        base: Option<Rc<Pretrained>>,
        rollouts: Shared,
        device: &Device,
    ) -> Result<Trainer<Reinforced>> {
        let (gpt, mut decls, hold) = layout(&recipe.model, config, device)?;
        let reinforce = reinforcement(recipe).clone();
        let train = &recipe.train;
        let shape = [train.batch, train.context];
        let flops = flops(&gpt, &decls, &*hold, train.context, shape[0] * shape[1]);
        let (score, hold) = match reinforce.method {
            Method::Grpo => (None, hold),
            Method::Ppo => {
                let (score, hold) = add_score(recipe.model.method, config.d, &mut decls, hold);
                (Some(score), hold)
            }
        };
        let objective = Reinforced { gpt, base, rollouts, shape, reinforce, score, hold, flops };
        Trainer::with(Setup::of(recipe), (objective, decls), device)
    }

    /// The model at the start, where it is needed.
    fn reference(
        recipe: &TuneRecipe,
        config: &GptConfig,
        base: Option<&Pretrained>,
        device: &Device,
    ) -> Result<Option<Reference>> {
        let needed = reinforcement(recipe).refers();
        needed.then(|| Reference::new(&recipe.model, config, base, device)).transpose()
    }

    /// Carries a run out on a dry device.
    fn dry(recipe: &TuneRecipe, config: &GptConfig, prompt: usize, dry: &Device) -> Plan {
        let nothing = Plan { total: usize::MAX, ..Plan::default() };
        let trainer = Self::trainer(recipe, config, None, Shared::default(), dry);
        // It would train nothing, and so fits nowhere.
        let Ok(mut trainer) = trainer else { return nothing };
        let Ok(mut reference) = Self::reference(recipe, config, None, dry) else { return nothing };
        let (count, tokens) = (recipe.sample.count, reinforcement(recipe).tokens);
        let write = |trainer: &mut Trainer<Reinforced>, texts: usize| {
            if texts > 0 && matches!(dry, Device::Cpu(_)) {
                let options = SampleOptions::greedy(tokens.min(config.context + 1));
                let prompt = vec![0; prompt.clamp(1, config.context)];
                trainer.answers(&vec![&prompt[..]; texts.min(LANES)], &[], &|_| options, &mut |_| true);
            }
        };
        let rows = Rows { t: recipe.train.context, ..Rows::default() };
        let mut look = |trainer: &mut Trainer<Reinforced>| {
            write(trainer, LANES);
            trainer.say(&rows).expect("no data that could be wrong");
            let (b, pass) = (trainer.objective.shape[0], trainer.eval_pass());
            let said = reference.as_mut().map(|reference| reference.say(&rows, b, pass, 1.0));
            said.transpose().expect("no data that could be wrong");
        };
        // The first answers, before the first step.
        look(&mut trainer);
        Plan::measure(dry, &recipe.train, trainer, |trainer, what, _| match what {
            Other::Evaluate => look(trainer),
            Other::Sample => write(trainer, count),
        })
    }

    /// The task on its prompts; the model at the start is asked first.
    fn opened(recipe: &TuneRecipe, device: &Device, progress: &mut Progress) -> Result<Opened<Reinforce>> {
        let prepared = read(recipe, progress)?;
        let (config, longest) = (prepared.base.config.clone(), prepared.longest());
        Self::supported(recipe, &config, device)?;
        drop(layout(&recipe.model, &config, device)?);
        // What the base says is said without dropout, and so is what is compared with it.
        let (own, config) = (config.clone(), GptConfig { dropout: 0.0, ..config });
        let memory = fit::check(recipe, device, &|recipe, dry| Self::dry(recipe, &config, longest, dry))?;
        let Prepared { base, tokenizer, train, val, found, hash, stage, .. } = prepared;
        let reinforce = reinforcement(recipe).clone();
        let (seed, shared) = (recipe.train.seed, Shared::default());
        let rewards = Rewards::open(&reinforce, &tokenizer, seed, device)?;
        let base = Rc::new(base);
        let reference = Self::reference(recipe, &config, Some(&base), device)?;
        let mut trainer = Self::trainer(recipe, &config, Some(base), Rc::clone(&shared), device)?;
        let differs = matches!(device, Device::Gpu(_)) || recipe.train.precision == Precision::Bf16;
        let (micros, steps) = (recipe.train.accumulate, recipe.train.steps);
        let maker = Maker { reinforce, tokenizer, train, rewards, reference, seed, steps, micros, differs, stage };
        let temperature = recipe.sample.temperature;
        let config = files_of(&recipe.model, &own)?;
        let (start, told) = ([f64::NAN; 2], Vec::new());
        let mut task = Reinforce { maker, val, found, shared, temperature, start, told, config };
        task.ask_start(&mut trainer, recipe.eval.max_batches, progress);
        Ok(Opened { task, trainer, memory, data: hash })
    }

    /// The held-out prompts that count.
    fn held_out(&self, batch: usize, max_batches: Option<usize>) -> usize {
        self.val.len().min(max_batches.map_or(usize::MAX, |batches| batches.saturating_mul(batch)))
    }

    /// Answers to the first `n` held-out prompts, written for the `time`-th time; `None` where `done` said false.
    fn answer(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        n: usize,
        time: u64,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Written> {
        let prompts: Vec<&Prompt> = self.val[..n].iter().collect();
        let how = How { temperature: self.temperature, time: JUDGED - time };
        self.maker.write(trainer, &prompts, how, done)
    }

    /// Asks the model at the start, as often as a group is large.
    fn ask_start(&mut self, trainer: &mut Trainer<Reinforced>, max_batches: Option<usize>, progress: &mut Progress) {
        let n = self.held_out(trainer.objective.shape[0], max_batches);
        let group = self.maker.reinforce.group;
        let mut best = vec![f64::NEG_INFINITY; n];
        for time in 0..group {
            let mut told = |over| {
                progress("asking the model at the start", (time * n + over) as u64, (group * n) as u64);
                true
            };
            let written = self.answer(trainer, n, time as u64, &mut told).expect("nobody stops it");
            if time == 0 {
                self.start[0] = mean(&written.rewards);
            }
            best.iter_mut().zip(written.rewards).for_each(|(best, reward)| *best = best.max(reward.into()));
        }
        self.start[1] = best.iter().sum::<f64>() / n as f64;
    }

    /// Says once what is wrong with the answers of an iteration.
    fn warn(&mut self, rollouts: &Rollouts, watch: &mut dyn Watch) {
        let numbers = rollouts.numbers(self.maker.reinforce.group);
        let of = |name: &str| numbers.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, value)| *value);
        let [first, now] = rollouts.entropy;
        let grpo = self.maker.reinforce.method == Method::Grpo;
        let all: [(&str, bool, &str); 3] = [
            (
                "truncated",
                of("completions/clipped_ratio") > MOST,
                match self.maker.stage {
                    Some(_) => "more than half of the trajectories were cut off before they ended: raise train.context",
                    None => {
                        "more than half of the answers were cut off before they ended: raise model.reinforce.tokens"
                    }
                },
            ),
            (
                "alike",
                grpo && of("frac_reward_zero_std") > MOST,
                "in more than half of the groups all answers are worth the same, and nothing is learnt of them: take harder or \
                 easier prompts, a higher model.reinforce.temperature, or a larger model.reinforce.group",
            ),
            (
                "entropy",
                now < LEAST_ENTROPY * first,
                "the entropy of answers is below a tenth of what it was: the model tries nothing new any more; lower optim.lr, \
                 or raise model.reinforce.kl",
            ),
        ];
        for (name, holds, text) in all {
            if holds && !self.told.contains(&name) {
                self.told.push(name);
                watch.event(&Event::Warning { text });
            }
        }
    }
}

fn mean(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len().max(1) as f64
}

impl Task for Reinforce {
    type Model = TuneModel;
    type Data = TuneData;
    type Sample = TuneSample;
    type Objective = Reinforced;

    const SHARED: bool = false;
    const UNIT: &'static str = "tokens";
    const LOSS: &'static str = "loss of the policy: rewards tell how it does";
    const JUDGED: &'static str = "held-out reward, times -1:";
    const NEXT: [&'static str; 2] = ["kiln chat ", ""];

    /// Its loss says nothing of how it does.
    fn terms(recipe: &TuneRecipe) -> Terms {
        Terms { fresh: false, falls: false, ..Terms::of(recipe) }
    }

    fn settle<'r>(recipe: &'r TuneRecipe, progress: &mut Progress) -> Result<Cow<'r, TuneRecipe>> {
        let base = place(&recipe.model)?;
        if recipe.train.steps > 0 && recipe.train.context > 0 {
            return Ok(with_base(recipe, base));
        }
        let Prepared { context, train, .. } = read(recipe, progress)?;
        let mut settled = recipe.clone();
        (settled.train.context, settled.model.base) = (context, base);
        if recipe.train.steps == 0 {
            let reinforce = reinforcement(recipe);
            let count = reinforce.prompts(recipe.train.batch * recipe.train.accumulate);
            let iterations = (train.len() as f64 * recipe.data.epochs / count as f64).ceil().max(1.0);
            settled.train.steps = iterations as u64 * reinforce.updates;
            settled.validate()?;
        }
        Ok(Cow::Owned(settled))
    }

    fn planner(recipe: &TuneRecipe, _: Option<&Path>, device: &Device) -> Result<PlannerOf<Reinforce>> {
        let prepared = read(recipe, &mut |_, _, _| {})?;
        let longest = prepared.longest();
        let config = GptConfig { dropout: 0.0, ..prepared.base.config };
        Self::supported(recipe, &config, device)?;
        drop(layout(&recipe.model, &config, device)?);
        Ok(Box::new(move |recipe, dry| Self::dry(recipe, &config, longest, dry)))
    }

    fn open(recipe: &TuneRecipe, _: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<Reinforce>> {
        Self::opened(recipe, device, progress)
    }

    fn rehearse(
        recipe: &TuneRecipe,
        _: Option<&Path>,
        _: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Reinforce>> {
        let opened = Self::opened(recipe, device, progress)?;
        Ok(Rehearsal { opened, more: 0.0, held_out: 1.0, judged_before: false })
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        vec![
            (self.maker.train.len() as u64, "prompts to learn from"),
            (self.val.len() as u64, "prompts held out"),
            (self.maker.reinforce.group as u64, "answers to each"),
        ]
    }

    fn warnings(&self) -> Vec<String> {
        let Found { refused, first_refused, .. } = &self.found;
        let mut warnings = Vec::new();
        if let Some(first) = first_refused {
            warnings.push(format!("{refused} prompts are left out; the first: {first}"));
        }
        if self.maker.tokenizer.ends().is_empty() {
            warnings.push("the model has no token that ends a text, so no answer will end".to_owned());
        }
        let Reinforcement { method, updates, .. } = self.maker.reinforce;
        if method == Method::Grpo && updates == 1 && !self.maker.reinforce.refers() {
            let text = "the loss stays near 0 whatever is learnt: advantages of a group sum to 0, answers are learnt from once, and no KL \
                        is added; look at the reward instead";
            warnings.push(text.to_owned());
        }
        warnings
    }

    fn config(&self, _: &Trainer<Reinforced>) -> Value {
        self.config.clone()
    }

    fn files(&self) -> Vec<(&str, &str)> {
        self.maker.tokenizer.files().collect()
    }

    fn before(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        at: At,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<Vec<(&'static str, f64)>> {
        let Reinforcement { updates, method, group, .. } = self.maker.reinforce;
        let names = Reinforced::planes(method);
        let mut rollouts = self.shared.take();
        if rollouts.is_none() {
            let [b, t] = trainer.objective.shape;
            rollouts = Rollouts::newest(run, at.batch, [b * self.maker.micros, t], names)?;
            if rollouts.is_none() && !at.batch.is_multiple_of(updates) {
                let text = "the answers that this step was to learn from are gone: others are written, and its bits are not those of a \
                            run that was never interrupted";
                watch.event(&Event::Warning { text });
            }
        }
        let serves = rollouts.as_ref().is_some_and(|rollouts| rollouts.serve(at, updates));
        let rollouts = match rollouts {
            Some(rollouts) if serves => rollouts,
            earlier => {
                let made = self.maker.iteration(trainer, at, earlier.as_ref(), watch)?;
                made.save(run, names, updates)?;
                self.warn(&made, watch);
                made
            }
        };
        let mut numbers = rollouts.numbers(group);
        numbers.extend((method == Method::Ppo).then_some(("kl_coef", rollouts.price[0])));
        self.shared.replace(Some(rollouts));
        Ok(numbers)
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        last: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let [b, t] = trainer.objective.shape;
        let n = self.held_out(b, max_batches);
        let Some(written) = self.answer(trainer, n, 0, &mut |over| progress(over, n)) else { return Ok(None) };
        let reward = mean(&written.rewards);
        let cut = written.ended.iter().filter(|ended| !**ended).count() as f64 / n as f64;
        let mut parts = vec![("reward", reward), ("truncated", cut)];
        if !written.traces.is_empty() {
            let share = |of: fn(&Trace) -> f64| written.traces.iter().map(of).sum::<f64>() / n as f64;
            parts.push(("success", share(|trace| f64::from(u8::from(trace.success)))));
            parts.push(("breaches", share(|trace| trace.breaches as f64)));
        }
        if self.maker.reference.is_some() {
            let rows = written.rows(&self.val[..n].iter().collect::<Vec<_>>(), t);
            let own = trainer.say(&rows)?;
            let said = self.maker.refer(trainer, &rows)?.expect("it is there");
            let kl = rows.mean(|i| {
                let d = f64::from(said.logp[i]) - f64::from(own.logp[i]);
                libm::expm1(d) - d
            });
            parts.push(("kl", kl));
        }
        let [before, best] = self.start;
        parts.push(("before", before));
        parts.extend(last.then_some(("best_of_start", best)));
        Ok(Some(Evaluation { loss: -reward, parts, ..Evaluation::default() }))
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<Reinforced>,
        recipe: &TuneRecipe,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let TuneSample { count, temperature, .. } = recipe.sample;
        let prompts: Vec<&Prompt> = self.val.iter().take(count).collect();
        let how = How { temperature, time: JUDGED };
        let Some(Written { ids, rewards, .. }) =
            self.maker.write(trainer, &prompts, how, &mut |_| watch.stop().is_none())
        else {
            return Ok(());
        };
        let decode = |ids: &[u32]| self.maker.tokenizer.decode(ids);
        let said = prompts.iter().zip(&ids).zip(&rewards);
        let text: String = said
            .map(|((prompt, ids), reward)| format!("{}{}\n  (reward {reward})\n\n", decode(&prompt.ids), decode(ids)))
            .collect();
        show(&text, step, run, watch)
    }
}
