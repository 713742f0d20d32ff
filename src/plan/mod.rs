//! What a run will take, before it is begun, and what of it came true.
//!
//! [`forecast()`] says bytes, operations, seconds, money, energy and carbon dioxide of a recipe, on this machine or on a card of a table;
//! [`advise`] turns data into a recipe, and into a choice between buying, fine-tuning and training; [`compare`] puts what was
//! planned beside what a run took.

mod advice;
mod cost;
mod forecast;
mod machine;
mod scaling;
mod seen;

pub use advice::{Advice, Choice, Wishes, advise};
pub use cost::{Cost, Rates};
pub use forecast::{Forecast, Settings, forecast};
pub use machine::Machine;
pub use scaling::Scaling;
pub use seen::Seen;

use crate::train::Account;
use serde::Serialize;

/// A number that was planned, and what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Of what.
    pub what: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// As planned; `None` where nobody planned it.
    pub planned: Option<f64>,
    /// As it was.
    pub actual: Option<f64>,
}

impl Compared {
    /// By how much of what it was the plan was too high; below 0 too low.
    pub fn off(&self) -> Option<f64> {
        self.planned.zip(self.actual.filter(|actual| *actual > 0.0)).map(|(planned, actual)| planned / actual - 1.0)
    }
}

/// What a run's account planned, or `forecast` did before it, beside what the run took.
pub fn compare(account: &Account, forecast: Option<&Forecast>) -> Vec<Compared> {
    let Account { planned, actual } = account;
    let whole = actual.filter(|actual| actual.steps >= planned.steps);
    let row = |what, unit, planned: Option<f64>, actual: Option<f64>| Compared { what, unit, planned, actual };
    vec![
        row("steps", "", Some(planned.steps as f64), actual.map(|a| a.steps as f64)),
        row("mapped", "bytes", Some(planned.memory.total as f64), actual.map(|a| a.mapped as f64)),
        row(
            "resident",
            "bytes",
            forecast.and_then(|f| f.resident).map(|bytes| bytes as f64),
            actual.and_then(|a| a.resident).map(|bytes| bytes as f64),
        ),
        // A part of a run says nothing of the time of all of it.
        row("time", "s", forecast.and_then(|f| f.seconds), whole.map(|a| a.seconds)),
    ]
}
