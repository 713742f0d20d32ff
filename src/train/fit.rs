//! How much memory a run needs, known to the byte before any of it is mapped.
//!
//! Nothing is estimated: the run itself, its model, two steps, a batch of an evaluation and the longest text that it may
//! write, is carried out on a [dry](crate::device::Device::dry) device, which takes the same buffers and touches none.
//! That takes milliseconds, so a run that does not fit is refused together with the nearest settings that do.
//!
//! Not counted is what a process needs around its tensors: program and tokenizer, pages of shards (which the system can
//! take back), and one transposed matrix while a checkpoint is written.

use super::lm::Lm;
use super::objective::Objective;
use super::recipe::Recipe;
use super::trainer::Trainer;
use crate::cpu::memory::{OutOfMemory, or_out_of_memory};
use crate::device::{Device, probe};
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use crate::model::sequence::generate;
use crate::tensor::Arena;
use serde::Serialize;
use std::fmt;

/// The bytes of a run, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The parameters.
    pub weights: usize,
    /// Their gradients.
    pub gradients: usize,
    /// The optimizer's moments.
    pub moments: usize,
    /// What a step holds between its forward and its backward pass, and an evaluation.
    pub activations: usize,
    /// What writing texts needs beside that.
    pub samples: usize,
    /// Packed matrices and partial sums.
    pub scratch: usize,
    /// All of it.
    pub total: usize,
    /// What this process can have; `None` where the system does not say.
    pub available: Option<u64>,
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
        // From the third micro-batch on they repeat.
        let mut recipe = recipe.clone();
        recipe.train.accumulate = recipe.train.accumulate.min(3);
        let dry = device.dry(most);
        or_out_of_memory(|| {
            Plan::measure(&dry, Trainer::dry(&recipe, vocab, &dry), |trainer| {
                // In the order in which the run comes to them first.
                let every = |every: u64| if every == 0 { recipe.train.steps } else { every };
                let (eval, sample) = (every(recipe.train.eval_every), every(recipe.train.sample_every));
                let mut samples = 0;
                let mut write = |trainer: &mut Trainer<Lm>| {
                    let before = dry.mapped_bytes()[0];
                    // The texts of a model on a GPU are the host's affair.
                    if recipe.train.sample_every > 0 && matches!(dry, Device::Cpu(_)) {
                        longest(trainer, prompt, recipe.sample.tokens);
                    }
                    samples = dry.mapped_bytes()[0] - before;
                };
                if sample < eval {
                    write(trainer);
                }
                trainer.eval_batch(|_, _, _| Ok(())).expect("no data that could change");
                if sample >= eval {
                    write(trainer);
                }
                samples
            })
        })
    }

    /// The bytes that `trainer` on the dry device `dry` takes for two steps and for `more`, which gives the bytes that
    /// samples took.
    pub(super) fn measure<O: Objective>(
        dry: &Device,
        mut trainer: Trainer<O>,
        more: impl FnOnce(&mut Trainer<O>) -> usize,
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
        for step in 0..2 {
            trainer.step(step).expect("no data that could change");
        }
        let samples = more(&mut trainer);
        let [tensors, scratch] = dry.mapped_bytes();
        let activations = tensors - weights - gradients - moments - samples;
        Plan { weights, gradients, moments, activations, samples, scratch, total: tensors + scratch, available: None }
    }
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
        let Plan { weights, gradients, moments, activations, samples, scratch, total, available } = *self;
        let parts = [
            ("weights", weights),
            ("gradients", gradients),
            ("moments", moments),
            ("activations", activations),
            ("samples", samples),
            ("scratch", scratch),
        ];
        for (name, bytes) in parts.into_iter().filter(|(_, bytes)| *bytes > 0) {
            write!(f, "{name} {} · ", human(bytes as u64))?;
        }
        write!(f, "total {}", human(total as u64))?;
        available.map_or(Ok(()), |available| write!(f, " of {}", human(available)))
    }
}

/// `3.6 MiB`.
fn human(bytes: u64) -> String {
    let bytes = bytes as f64;
    let (unit, name) =
        [(30, "GiB"), (20, "MiB")].into_iter().find(|(p, _)| bytes >= 2f64.powi(*p)).unwrap_or((10, "KiB"));
    let value = bytes / 2f64.powi(unit);
    if value < 10.0 { format!("{value:.1} {name}") } else { format!("{value:.0} {name}") }
}

/// The plan of a run that fits what this process can have.
///
/// # Errors
/// It does not fit; the error names the key to change, and a value with which it does.
pub fn check(recipe: &Recipe, vocab: usize, prompt: usize, device: &Device) -> Result<Plan> {
    within(recipe, vocab, prompt, device, limit(device))
}

/// The bytes that this process can have on a device, where anybody knows.
fn limit(device: &Device) -> Option<u64> {
    let memory = probe::memory();
    let used = probe::resident().unwrap_or(0);
    let limits = memory.available.into_iter().chain(memory.cgroup_limit.map(|limit| limit.saturating_sub(used)));
    device.gpu_memory().map(|bytes| bytes as u64).or(limits.min())
}

/// The plan of a run on `batch` pictures or rows a micro-batch, which `plan(batch, dry device)` measures, where it fits what this
/// process can have.
///
/// # Errors
/// It does not fit; the error gives a batch that does, where there is one, else `key` and `hint`.
pub(super) fn batches(
    batch: usize,
    device: &Device,
    (key, hint): (&str, &str),
    plan: &dyn Fn(usize, &Device) -> Plan,
) -> Result<Plan> {
    let limit = limit(device).unwrap_or(1 << 46);
    let most = usize::try_from(limit.saturating_mul(2)).unwrap_or(usize::MAX);
    let found = |batch: usize| or_out_of_memory(|| plan(batch, &device.dry(most)));
    let needs = match found(batch) {
        Ok(found) if found.total as u64 <= limit => return Ok(Plan { available: Some(limit), ..found }),
        Ok(found) => format!("{} of memory ({found})", human(found.total as u64)),
        Err(_) => format!("more than {} of memory", human(most as u64)),
    };
    let halves: Vec<usize> = (0..usize::BITS).map(|i| 1 << i).take_while(|half| *half < batch).collect();
    let fits = |batch: usize| found(batch).is_ok_and(|plan| plan.total as u64 <= limit);
    let problem = format!("the run needs {needs}; {} can be had", human(limit));
    Err(match largest(&halves, fits) {
        Some(batch) => Error::config("train.batch", problem, format!("train.batch={batch} fits")),
        None => Error::config(key, problem, hint),
    })
}

/// [`check`] against `limit` bytes.
pub fn within(recipe: &Recipe, vocab: usize, prompt: usize, device: &Device, limit: Option<u64>) -> Result<Plan> {
    let Some(limit) = limit else {
        // Nobody knows what there is; what a 64-bit machine can address is the end in any case.
        let plan = Plan::new(recipe, vocab, prompt, device, 1 << 46);
        return plan.map_err(|_| Error::config("model.d", "the run needs more than 64 TiB of memory", "lower model.d"));
    };
    // Some room above the limit, so that a refusal can say how much is missing.
    let most = usize::try_from(limit.saturating_mul(2)).unwrap_or(usize::MAX);
    let plan = |recipe: &Recipe| Plan::new(recipe, vocab, prompt, device, most);
    let found = plan(recipe);
    match found {
        Ok(found) if found.total as u64 <= limit => return Ok(Plan { available: Some(limit), ..found }),
        _ => {}
    }
    let needs = match found {
        Ok(found) => format!("{} of memory ({found})", human(found.total as u64)),
        Err(_) => format!("more than {} of memory", human(most as u64)),
    };
    let problem = format!("the run needs {needs}; {} can be had", human(limit));
    let fits = |recipe: &Recipe| plan(recipe).is_ok_and(|plan| plan.total as u64 <= limit);
    let (key, hint) = remedy(recipe, vocab, fits);
    Err(Error::config(key, problem, hint))
}

/// The key to change for a run to fit, and how.
fn remedy(recipe: &Recipe, vocab: usize, fits: impl Fn(&Recipe) -> bool) -> (&'static str, String) {
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe.clone();
        change(&mut recipe);
        recipe
    };
    let recomputes = with(&|r| r.train.recompute = Some(true));
    // The same tokens a step, in more and smaller micro-batches.
    let batch = recipe.train.batch;
    let divisors: Vec<usize> = (1..=batch).filter(|b| batch.is_multiple_of(*b)).collect();
    let in_parts = |recipe: &Recipe, b: usize| {
        let mut recipe = recipe.clone();
        let accumulate = recipe.train.accumulate.saturating_mul(batch / b).min(1_000_000);
        (recipe.train.batch, recipe.train.accumulate) = (b, accumulate);
        recipe
    };
    for (key, base) in [("train.batch", recipe), ("train.recompute", &recomputes)] {
        let fitting = largest(&divisors, |b| fits(&in_parts(base, b)));
        let Some(fitting) = fitting.map(|b| in_parts(base, b).train) else { continue };
        let parts = format!("train.batch={} with train.accumulate={}", fitting.batch, fitting.accumulate);
        let hint = match key {
            "train.recompute" if fitting.batch == batch => "train.recompute=true fits".into(),
            "train.recompute" => format!("train.recompute=true with {parts} fits"),
            _ if fits(&recomputes) => format!("{parts} fits, as does train.recompute=true"),
            _ => format!("{parts} fits"),
        };
        return (key, hint);
    }
    let least = in_parts(&recomputes, 1);
    let halves: Vec<usize> = (0..usize::BITS).map(|i| 1 << i).take_while(|c| *c < recipe.train.context).collect();
    let shorter =
        |context: usize| Recipe { train: super::recipe::Train { context, ..least.train.clone() }, ..least.clone() };
    if let Some(context) = largest(&halves, |context| fits(&shorter(context))).filter(|context| *context >= 16) {
        return ("train.context", format!("train.context={context} fits with train.batch=1 and train.recompute=true"));
    }
    let layers: Vec<usize> = (1..recipe.model.layers).collect();
    let shallow = |layers| Recipe { model: super::recipe::Model { layers, ..least.model.clone() }, ..least.clone() };
    if let Some(layers) = largest(&layers, |layers| fits(&shallow(layers))) {
        return ("model.layers", format!("model.layers={layers} fits with train.batch=1 and train.recompute=true"));
    }
    // The larger of the embedding and the blocks.
    match vocab > 12 * recipe.model.d * recipe.model.layers {
        true => ("data.vocab", "lower data.vocab or model.d".into()),
        false => ("model.d", "lower model.d".into()),
    }
}

/// The largest of `values`, which ascend, that `fits`, where a smaller one fits if a larger one does.
fn largest(values: &[usize], fits: impl Fn(usize) -> bool) -> Option<usize> {
    let n = values.partition_point(|&value| fits(value));
    n.checked_sub(1).map(|last| values[last])
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
        for (set, limit, key, hint) in [
            ("train.batch=64 train.accumulate=2", 200, "train.batch", "train.batch="),
            ("train.batch=1 train.context=2048", 100, "train.recompute", "train.recompute=true fits"),
            ("train.batch=2 train.context=65536", 200, "train.context", "train.context="),
            ("model.layers=1000", 200, "model.layers", "model.layers="),
            ("model.d=4096 model.layers=1", 200, "model.d", "lower model.d"),
        ] {
            let set = format!("{BASE} {set}");
            let (found, advice) = refused(&set, limit);
            assert_eq!(found, key, "{set}: {advice}");
            assert!(advice.starts_with(hint), "{set}: {advice}");
            // What is advised fits, and not by leaving most of the memory empty.
            let advised: Vec<&str> = advice.split([' ', ',']).filter(|word| word.contains('=')).collect();
            if !advised.is_empty() {
                let device = Device::cpu(2).unwrap();
                let end = advised.len().min(if advice.contains("as does") { 2 } else { 3 });
                let better = recipe(&format!("{set} {}", advised[..end].join(" ")));
                let plan = within(&better, 1024, 1, &device, Some(limit << 20)).unwrap();
                assert!(plan.total as u64 * 4 > limit << 20, "{plan}");
            }
        }
    }

    #[test]
    fn absurd_settings_are_refused_at_once() {
        // In 16 TiB a few layers of that width find room.
        for (limit, key) in [(1 << 10, "model.d"), (1 << 24, "model.layers")] {
            let absurd = "model.d=65536 model.heads=1024 model.layers=1024 train.batch=1000000 train.context=1000000 \
                          train.accumulate=1000000";
            assert_eq!(refused(absurd, limit).0, key);
            refused("model.d=16 model.heads=1 train.batch=1000000 train.context=1000000", limit.min(1 << 14));
        }
    }
}
