//! What a run took: time, money, energy, memory; and how much of the machine its steps reached.

use super::words::{count, size, span};
use super::{Extra, Training};
use crate::plan::{self, Compared, Cost, Machine, Rates};
use crate::train::Account;
use serde::Serialize;

/// What a run took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Seconds; `None` where nobody knows.
    pub seconds: Option<f64>,
    /// Money, energy, carbon dioxide of these.
    pub cost: Option<Cost>,
    /// What an hour was taken to cost.
    pub rates: Option<Rates>,
    /// How that is known, in words.
    pub basis: String,
    /// What computed, `cpu` or `gpu`; empty where nobody knows.
    pub device: String,
    /// Floating-point operations of all steps that were done; `None` where nobody counted them.
    pub flops: Option<f64>,
}

/// A row of what was planned and what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// Of what.
    pub what: &'static str,
    /// As planned.
    pub planned: String,
    /// As it was.
    pub actual: String,
    /// By how much the plan was too high, in per cent; below 0 too low.
    pub off: Option<f64>,
}

/// How much of a machine the steps of a run reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Operations a second in a step, in GFLOP/s: those that kiln counts of a step, by the median speed of the last steps.
    pub reached: f64,
    /// What this machine can do at most, where that was measured.
    pub peak: Option<f64>,
    /// The share of it.
    pub share: Option<f64>,
}

/// What the run took, by its account, or else by the speed of its steps.
pub(super) fn of(account: Option<&Account>, training: &Training, device: &str, extra: &Extra) -> Spent {
    let actual = account.and_then(|account| account.actual);
    let (seconds, basis) = match (actual, training.stepping) {
        (Some(actual), _) => (Some(actual.seconds), "from reading data to the last file (plan.json)".to_owned()),
        (None, Some(seconds)) => (
            Some(seconds),
            "the steps alone, by their speed in metrics.jsonl: evaluations and checkpoints come on top".to_owned(),
        ),
        (None, None) => (None, "no file of the run says it".to_owned()),
    };
    let threads = account.map(|account| account.planned.threads);
    let assumed = (device == "cpu").then_some(threads).flatten().map(|threads| Machine::Cpu.rates(threads));
    let given = extra.forecast.as_ref().map(|forecast| forecast.rates);
    let rates = given.or(assumed);
    let rated = match (given, assumed) {
        (Some(_), _) => "; rates are those of the plan",
        (None, Some(_)) => "; what an hour costs is an assumption (docs/plan.md)",
        (None, None) => "",
    };
    Spent {
        seconds,
        cost: seconds.zip(rates).map(|(seconds, rates)| Cost::of(seconds, &rates)),
        rates,
        basis: basis + rated,
        device: device.to_owned(),
        flops: account
            .map(|account| account.planned.flops_per_step * training.step as f64)
            .filter(|flops| *flops > 0.0),
    }
}

/// What was planned beside what it was.
pub(super) fn planned(account: &Account, extra: &Extra) -> Vec<Planned> {
    let row = |compared: Compared| {
        let off = compared.off().map(|off| 100.0 * off);
        let Compared { what, unit, planned, actual } = compared;
        let say = |x: Option<f64>| match (x, unit) {
            (None, _) => "not known".to_owned(),
            (Some(x), "bytes") => size(x),
            (Some(x), "s") => span(x),
            (Some(x), _) => count(x as u64),
        };
        let what = match what {
            "mapped" => "memory for tensors",
            "resident" => "memory of the process",
            other => other,
        };
        Planned { what, planned: say(planned), actual: say(actual), off: off.filter(|_| what != "steps") }
    };
    plan::compare(account, extra.forecast.as_ref()).into_iter().map(row).collect()
}

/// How much of this machine the run's steps reached.
pub(super) fn roofline(account: &Account, training: &Training, peak: Option<f64>) -> Option<Roofline> {
    let flops = Some(account.planned.flops_per_step).filter(|flops| *flops > 0.0)?;
    let reached = flops * training.rate? / training.per_step as f64 / 1e9;
    Some(Roofline { reached, peak, share: peak.map(|peak| reached / peak) })
}
