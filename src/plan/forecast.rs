//! What a run of a recipe will take.

use super::cost::{Cost, Rates};
use super::machine::Machine;
use super::scaling::Scaling;
use crate::device::{Device, probe};
use crate::error::{Error, Result};
use crate::train::{AnyRecipe, Plan, Rehearsed, Times, Watch};
use serde::{Deserialize, Serialize};

/// What is asked of a forecast.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where the run would be.
    pub machine: Machine,
    /// Seconds of steps that are measured, on this machine; 0: nothing is.
    pub seconds: f64,
    /// The share of a card's peak that is assumed.
    pub utilisation: f64,
    /// What an hour costs.
    pub rates: Rates,
}

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Where.
    pub machine: String,
    /// Updates of the weights.
    pub steps: u64,
    /// Tokens, or pictures, in a step.
    pub per_step: u64,
    /// Which of them.
    pub unit: String,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Those of them that are trained.
    pub trained: usize,
    /// Bytes, by what they are for.
    pub memory: Plan,
    /// The most bytes that the process will hold, program and data included; `None` on a card, and where nobody knows.
    pub resident: Option<u64>,
    /// The largest `train.batch` that fits, all else being as it is.
    pub largest_batch: Option<usize>,
    /// Floating-point operations of the steps; 0 where nobody counted them.
    pub flops: f64,
    /// Seconds of all of it; `None` where they were not measured and nobody counted operations.
    pub seconds: Option<f64>,
    /// The same by part, where it was measured.
    pub parts: Vec<(String, f64)>,
    /// What was measured.
    pub times: Option<Times>,
    /// How the time was found, in words.
    pub basis: String,
    /// What an hour costs.
    pub rates: Rates,
    /// What the run costs.
    pub cost: Option<Cost>,
    /// How size and text suit one another; of language models alone.
    pub scaling: Option<Scaling>,
}

impl Forecast {
    /// Reads what `kiln plan --json` wrote; `path` names it in messages.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_json(text: &str, path: &std::path::Path) -> Result<Forecast> {
        serde_json::from_str(text).map_err(|e| {
            Error::format(path, "content", "a forecast", e, "write one with: kiln plan RECIPE.toml --json > FILE")
        })
    }
}

/// What a run of `recipe` will take. `watch` hears of the rehearsal, and may stop it.
///
/// # Errors
/// It does not fit: the error names the cheapest changes with which it does. Its data cannot be used.
pub fn forecast(recipe: &AnyRecipe, here: &Device, settings: &Settings, watch: &mut dyn Watch) -> Result<Forecast> {
    let Settings { machine, seconds, utilisation, rates } = *settings;
    let recipe = &recipe.settled(&mut |_, _, _| {})?;
    let device = machine.device(here)?;
    let memory = recipe.plan(None, &device)?;
    // Beside its tensors a process holds the program and its data, which has been read by now.
    let beside = probe::resident_peak();
    let measured: Option<Rehearsed> = match machine {
        Machine::Cpu if seconds > 0.0 => Some(recipe.rehearse(&device, seconds, watch)?),
        _ => None,
    };
    let largest_batch = recipe.largest_batch(&device)?.map(|(batch, _)| batch);
    let train = recipe.train();
    let (per_step, unit) = recipe.per_step();
    let flops = memory.size.flops * train.accumulate as f64 * train.steps as f64;
    let (time, parts, basis) = match &measured {
        Some(Rehearsed { times, portion, .. }) => {
            let parts = times.of(train).into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect();
            let part = if *portion > 1.0 { " on a part of the data" } else { "" };
            (Some(times.total(train)), parts, format!("measured here over {} steps{part}", times.measured))
        }
        None if flops > 0.0 => {
            let (speed, basis) = machine.speed(here, train.precision, utilisation);
            let step = machine.step(flops / train.steps as f64, speed, memory.size.trained);
            (Some(train.steps as f64 * step), Vec::new(), format!("{basis}; steps alone"))
        }
        None => (None, Vec::new(), "nobody counted its operations: measure it with --machine cpu".to_owned()),
    };
    let resident = match (machine, &measured) {
        (Machine::Card(_), _) => None,
        (_, Some(measured)) => measured.actual.resident,
        (_, None) => beside.map(|beside| beside + memory.total as u64),
    };
    let scaling = matches!(recipe, AnyRecipe::Text(_)).then(|| {
        let text = measured.as_ref().and_then(|found| {
            let tokens = found.data.iter().find(|(_, what)| *what == "tokens to train on")?.0;
            Some(tokens as f64 * found.portion)
        });
        Scaling::of(memory.size.parameters, per_step as f64 * train.steps as f64, text)
    });
    Ok(Forecast {
        machine: machine.name().to_owned(),
        steps: train.steps,
        per_step,
        unit: unit.to_owned(),
        parameters: memory.size.parameters,
        trained: memory.size.trained,
        memory,
        resident,
        largest_batch,
        flops,
        seconds: time,
        parts,
        times: measured.map(|found| found.times),
        basis,
        rates,
        cost: time.map(|seconds| Cost::of(seconds, &rates)),
        scaling,
    })
}
