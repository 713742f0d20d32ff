//! How much memory a run needs, known to the byte before any of it is mapped.
//!
//! Nothing is estimated: the run itself, its model, two steps, an evaluation and what it shows, in the order in which it comes to
//! them, is carried out on a [dry](crate::device::Device::dry) device, which takes the same buffers and touches none.
//! That takes milliseconds, so a run that does not fit is refused together with the cheapest changes with which it does.
//!
//! Not counted is what a process needs around its tensors: program and tokenizer, pages of shards (which the system can
//! take back), and one transposed matrix while a checkpoint is written.

pub mod remedy;

pub use remedy::{Family, Remedy};

use super::lm::Lm;
use super::objective::Objective;
use super::private::Private;
use super::recipe::{Architecture, Recipe, RecipeOf, Section, Train};
use super::trainer::Trainer;
use crate::cpu::memory::{OutOfMemory, or_out_of_memory};
use crate::device::{Device, probe};
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use crate::model::sequence::generate;
use crate::tensor::Arena;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The bytes of a run, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The parameters.
    pub weights: usize,
    /// Their gradients, and where training is private the sums of those of examples.
    pub gradients: usize,
    /// The optimizer's moments.
    pub moments: usize,
    /// What a step holds between its forward and its backward pass, and an evaluation.
    pub activations: usize,
    /// What writing texts, or drawing pictures, needs beside that.
    pub samples: usize,
    /// Packed matrices and partial sums.
    pub scratch: usize,
    /// All of it.
    pub total: usize,
    /// What this process can have; `None` where the system does not say.
    pub available: Option<u64>,
    /// How much there is to train and to compute.
    #[serde(skip)]
    pub size: Size,
}

/// How much there is to train and to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Elements of all parameters.
    pub parameters: usize,
    /// Those of them that are trained.
    pub trained: usize,
    /// Floating-point operations of a micro-batch; 0 where nobody counted them.
    pub flops: f64,
}

/// What a run does beside its steps, for which it takes buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// It judges the model.
    Evaluate,
    /// It lets the model show what it has learnt.
    Sample,
}

impl Other {
    /// Whether it is done after step number `step` of a run.
    pub(super) fn is_due(self, train: &Train, step: u64) -> bool {
        let every = match self {
            Other::Evaluate => train.eval_every,
            Other::Sample => train.sample_every,
        };
        match (self, every) {
            (Other::Sample, 0) => false,
            _ => step == train.steps || (every > 0 && step.is_multiple_of(every)),
        }
    }
}

impl Plan {
    /// The bytes that `recipe` takes over `vocab` ids on `device`, whose texts go on from at most `prompt` tokens.
    ///
    /// # Errors
    /// More than `most` bytes for tensors, or for scratch.
    pub fn new(
        recipe: &Recipe,
        vocab: usize,
        prompt: usize,
        device: &Device,
        most: usize,
    ) -> Result<Plan, OutOfMemory> {
        or_out_of_memory(|| Plan::of_text(&repeating(recipe), vocab, prompt, &device.dry(most)))
    }

    /// The same on the dry device `dry`.
    pub(super) fn of_text(recipe: &Recipe, vocab: usize, prompt: usize, dry: &Device) -> Plan {
        Plan::measure(dry, &recipe.train, Trainer::dry(recipe, vocab, dry), |trainer, what, _| match what {
            Other::Evaluate => {
                trainer.eval_batch(|_, _, _| Ok(())).expect("no data that could change");
            }
            // The texts of a model on a GPU are the host's affair.
            Other::Sample if matches!(dry, Device::Gpu(_)) => {}
            Other::Sample => longest(trainer, prompt, recipe.sample.tokens),
        })
    }

    /// The bytes that `trainer` on the dry device `dry` takes for its first steps and for the `other` things that the run
    /// does, the first time and after the last step, in their order.
    pub(super) fn measure<O: Objective>(
        dry: &Device,
        train: &Train,
        mut trainer: Trainer<O>,
        mut other: impl FnMut(&mut Trainer<O>, Other, bool),
    ) -> Plan {
        let bytes = |arena: &Arena| arena.bytes();
        let (mut weights, mut gradients, mut moments) = (0, 0, 0);
        for group in trainer.params.groups() {
            weights += bytes(group.weights()) + group.shadow().map_or(0, bytes);
            if let Some(train) = group.trainable() {
                gradients += bytes(&train.grads);
                moments += train.moments.iter().map(|(_, moment)| bytes(moment)).sum::<usize>();
            }
        }
        gradients += trainer.private().map_or(0, Private::bytes);
        // From the third step on steps take nothing more.
        let mut marks = vec![1, 2, train.eval_every, train.sample_every, train.steps];
        marks.retain(|step| (1..=train.steps).contains(step));
        marks.sort_unstable();
        marks.dedup();
        let (mut samples, mut done) = (0, Vec::new());
        for step in marks {
            if step <= 2 {
                trainer.step(step - 1).expect("no data that could change");
            }
            let last = step == train.steps;
            for what in [Other::Evaluate, Other::Sample] {
                if what.is_due(train, step) && !done.contains(&(what, last)) {
                    let before = dry.mapped_bytes()[0];
                    other(&mut trainer, what, last);
                    if what == Other::Sample {
                        samples += dry.mapped_bytes()[0] - before;
                    }
                    done.push((what, last));
                }
            }
        }
        let [tensors, scratch] = dry.mapped_bytes();
        let activations = tensors - weights - gradients - moments - samples;
        let Trainer { params, objective, .. } = &trainer;
        let size = Size { parameters: params.numel(), trained: params.trained_numel(), flops: objective.flops() };
        Plan {
            weights,
            gradients,
            moments,
            activations,
            samples,
            scratch,
            total: tensors + scratch,
            size,
            available: None,
        }
    }

    /// The bytes by name, those that are none left out.
    pub fn parts(&self) -> Vec<(&'static str, usize)> {
        let Plan { weights, gradients, moments, activations, samples, scratch, .. } = *self;
        let all = [
            ("weights", weights),
            ("gradients", gradients),
            ("moments", moments),
            ("activations", activations),
            ("samples", samples),
            ("scratch", scratch),
        ];
        all.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
    }
}

/// The recipe with as many micro-batches as differ: from the third on they repeat.
fn repeating<M: Clone, D: Clone, S: Clone>(recipe: &RecipeOf<M, D, S>) -> RecipeOf<M, D, S> {
    let mut recipe = recipe.clone();
    recipe.train.accumulate = recipe.train.accumulate.min(3);
    recipe
}

/// Writes as many different lengths of text as there are.
fn longest(trainer: &mut Trainer<Lm>, prompt: usize, tokens: usize) {
    let Trainer { objective: Lm { gpt, .. }, params, tape, .. } = trainer;
    // Behind the context lengths repeat.
    let tokens = tokens.min(gpt.config().context + 1);
    let options = SampleOptions::greedy(tokens);
    generate(gpt, params, tape, vec![0; prompt.clamp(1, gpt.config().context)], &[], &options, &mut |_| true);
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (name, bytes) in self.parts() {
            write!(f, "{name} {} · ", human(bytes as u64))?;
        }
        write!(f, "total {}", human(self.total as u64))?;
        self.available.map_or(Ok(()), |available| write!(f, " of {}", human(available)))
    }
}

/// `3.6 MiB`.
pub fn human(bytes: u64) -> String {
    let bytes = bytes as f64;
    let (unit, name) =
        [(30, "GiB"), (20, "MiB")].into_iter().find(|(p, _)| bytes >= 2f64.powi(*p)).unwrap_or((10, "KiB"));
    let value = bytes / 2f64.powi(unit);
    if value < 10.0 { format!("{value:.1} {name}") } else { format!("{value:.0} {name}") }
}

/// Carries a recipe's run out on a dry device.
pub type Planner<'a, R> = dyn Fn(&R, &Device) -> Plan + 'a;

/// The bytes that this process can have on a device, where anybody knows.
pub fn limit(device: &Device) -> Option<u64> {
    let memory = probe::memory();
    let used = probe::resident().unwrap_or(0);
    let limits = memory.available.into_iter().chain(memory.cgroup_limit.map(|limit| limit.saturating_sub(used)));
    device.gpu_memory().map(|bytes| bytes as u64).or(limits.min())
}

/// What can be addressed, where nobody knows what there is.
const ADDRESSES: u64 = 1 << 46;

/// The plan of a run, of which `plan` tells on a dry device, where it fits what this process can have.
///
/// # Errors
/// It does not fit; the error names the cheapest changes with which it does.
pub(super) fn check<M: Architecture, D: Section, S: Section>(
    recipe: &RecipeOf<M, D, S>,
    device: &Device,
    plan: &Planner<RecipeOf<M, D, S>>,
) -> Result<Plan> {
    against(recipe, device, limit(device), plan)
}

/// The plan of a language model over `vocab` ids, whose texts go on from at most `prompt` tokens, where it fits `limit` bytes.
///
/// # Errors
/// It does not fit; the error names the cheapest changes with which it does.
pub fn within(recipe: &Recipe, vocab: usize, prompt: usize, device: &Device, limit: Option<u64>) -> Result<Plan> {
    against(recipe, device, limit, &|recipe, dry| Plan::of_text(recipe, vocab, prompt, dry))
}

/// Whether the run of a recipe fits what this process can have.
pub(super) fn fits<M: Architecture, D: Section, S: Section>(
    recipe: &RecipeOf<M, D, S>,
    device: &Device,
    plan: &Planner<RecipeOf<M, D, S>>,
) -> bool {
    let end = limit(device).unwrap_or(ADDRESSES);
    let most = usize::try_from(end).unwrap_or(usize::MAX);
    let found = or_out_of_memory(|| plan(&repeating(recipe), &device.dry(most)));
    found.is_ok_and(|found| found.total as u64 <= end)
}

fn against<M: Architecture, D: Section, S: Section>(
    recipe: &RecipeOf<M, D, S>,
    device: &Device,
    limit: Option<u64>,
    plan: &Planner<RecipeOf<M, D, S>>,
) -> Result<Plan> {
    let end = limit.unwrap_or(ADDRESSES);
    // Some room above the limit, so that a refusal can say how much is missing.
    let most = usize::try_from(end.saturating_mul(2)).unwrap_or(usize::MAX);
    let found = |recipe: &RecipeOf<M, D, S>| or_out_of_memory(|| plan(&repeating(recipe), &device.dry(most)));
    let needs = match found(recipe) {
        Ok(found) if found.total as u64 <= end => return Ok(Plan { available: limit, ..found }),
        Ok(found) => format!("{} of memory ({found})", human(found.total as u64)),
        Err(_) => format!("more than {} of memory", human(most as u64)),
    };
    let problem = format!("the run needs {needs}; {} can be had", human(end));
    let fits = |recipe: &RecipeOf<M, D, S>| found(recipe).is_ok_and(|plan| plan.total as u64 <= end);
    let remedies = remedy::cheapest(recipe, &fits);
    // Where nothing helps, what would help most.
    let least = recipe.model.smaller(&recipe.train).pop().and_then(|family| family.steps.into_iter().next_back());
    let least = least.and_then(|set| set[0].split_once('=').map(|(key, _)| key.to_owned()));
    let key = remedies.first().map(|remedy| remedy.key().to_owned()).or(least).unwrap_or_else(|| "model".to_owned());
    let hint = match remedies.is_empty() {
        true => "no single change makes it fit: make the model smaller and its rows shorter".into(),
        false => remedies.iter().map(Remedy::to_string).collect::<Vec<_>>().join("; or "),
    };
    Err(Error::config(key, problem, hint))
}

/// The largest `train.batch` with which the run fits what this process can have, others than it being as they are, and its plan;
/// `None` where not even 1 does.
pub(super) fn largest<M: Architecture, D: Section, S: Section>(
    recipe: &RecipeOf<M, D, S>,
    device: &Device,
    plan: &Planner<RecipeOf<M, D, S>>,
) -> Option<(usize, Plan)> {
    let end = limit(device).unwrap_or(ADDRESSES);
    let most = usize::try_from(end).unwrap_or(usize::MAX);
    let fits = |batch: usize| {
        let mut recipe = repeating(recipe);
        recipe.train.batch = batch;
        or_out_of_memory(|| plan(&recipe, &device.dry(most))).ok().filter(|plan| plan.total as u64 <= end)
    };
    let mut best = (1, fits(1)?);
    // Ever twice as much, then halfway between.
    let mut too_much: Option<usize> = None;
    while best.0 < 1_000_000 && too_much != Some(best.0 + 1) {
        let next = too_much.map_or(best.0 * 2, |too_much| best.0.midpoint(too_much)).min(1_000_000);
        match fits(next) {
            Some(plan) => best = (next, plan),
            None => too_much = Some(next),
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(set: &str) -> Recipe {
        let set: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
        Recipe::load(None, &set).unwrap()
    }

    /// The key and the hint with which a run over 1024 ids is refused that may have `limit` MiB.
    #[track_caller]
    fn refused(set: &str, limit: u64) -> (String, String) {
        let device = Device::cpu(2).unwrap();
        let found = within(&recipe(set), 1024, 1, &device, Some(limit << 20));
        match found {
            Err(Error::Config { key, hint, .. }) => (key, hint),
            other => panic!("{set}: {other:?}"),
        }
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused_with_settings_that_do() {
        const BASE: &str = "train.sample_every=0 model.d=128 model.layers=4 train.context=128";
        for (set, limit, key, least) in [
            ("train.batch=64 train.accumulate=2", 200, "train.batch", 3),
            ("train.batch=1 train.context=2048", 100, "train.recompute", 3),
            ("train.batch=2 train.context=65536", 200, "train.context", 1),
            ("model.layers=1000", 200, "model.layers", 1),
            ("model.d=4096 model.layers=1", 200, "model.d", 1),
        ] {
            let set = format!("{BASE} {set}");
            let (found, advice) = refused(&set, limit);
            assert_eq!(found, key, "{set}: {advice}");
            let changes: Vec<&str> = advice.split("; or ").collect();
            assert!((least..=3).contains(&changes.len()), "{set}: {advice}");
            // Each fits, and the first not by leaving most of the memory empty.
            for (i, change) in changes.iter().enumerate() {
                let settings: Vec<&str> = change.split([' ', '(']).filter(|word| word.contains('=')).collect();
                let better = recipe(&format!("{set} {}", settings.join(" ")));
                let plan = within(&better, 1024, 1, &Device::cpu(2).unwrap(), Some(limit << 20)).unwrap();
                assert!(i > 0 || plan.total as u64 * 4 > limit << 20, "{change}: {plan}");
            }
        }
    }

    #[test]
    fn absurd_settings_are_refused_at_once() {
        for limit in [1 << 10, 1 << 24] {
            let absurd = "model.d=65536 model.heads=1024 model.layers=1024 train.batch=1000000 train.context=1000000 \
                          train.accumulate=1000000";
            refused(absurd, limit);
            refused("model.d=16 model.heads=1 train.batch=1000000 train.context=1000000", limit.min(1 << 14));
        }
    }

    #[test]
    fn the_largest_batch_fits_and_one_more_does_not() {
        let device =
            Device::gpu(std::sync::Arc::new(crate::device::Dry::new(64 << 20)), crate::cpu::Cpu::new(1).unwrap())
                .unwrap();
        let recipe = recipe("model.d=32 model.layers=2 train.context=64");
        let plan = |recipe: &Recipe, dry: &Device| Plan::of_text(recipe, 256, 1, dry);
        let (batch, found) = largest(&recipe, &device, &plan).unwrap();
        assert!(batch > 8 && found.total <= 64 << 20, "{batch}: {found}");
        let more = Recipe { train: Train { batch: batch + 1, ..recipe.train.clone() }, ..recipe };
        assert!(check(&more, &device, &plan).is_err(), "{batch}");
    }
}
