//! What figures must be: a policy in TOML, which a model passes or does not.

use super::{Kind, Lean, Outcome, Task, Verifier};
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Policies are written by hand.
const MAX_FILE: u64 = 1 << 20;
/// Figures of calibration, of tasks that choose.
const SURENESS: [&str; 2] = ["ece", "brier"];

/// A policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What must hold, all of it.
    #[serde(rename = "gate")]
    pub gates: Vec<Gate>,
}

/// What a figure must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The task: one of kiln's own, or a file beside the policy.
    pub task: String,
    /// The figure, or `ece` or `brier` of a task that chooses.
    pub figure: String,
    /// Not less than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Not more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// By no more than this worse than the second model; of the main figure alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_worse: Option<f64>,
}

/// Whether a gate is passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What must hold.
    #[serde(flatten)]
    pub gate: Gate,
    /// What the figure is; `None` where it is no number, or was not found.
    pub value: Option<f64>,
    /// By how much it is worse than the second model's, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worse: Option<f64>,
    /// Whether all of it holds.
    pub passed: bool,
}

impl Policy {
    /// The policy in the file `path`.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or a gate has no bound or one that nothing can pass.
    pub fn open(path: &Path) -> Result<Policy> {
        let text = disk::text(&Os, path, MAX_FILE)?;
        let hint = "docs/eval.md has every key; data/policy.toml is an example";
        let mut policy: Policy = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Error::format(path, format!("line {line}"), "gates in TOML", e.message(), hint)
        })?;
        if policy.gates.is_empty() {
            return Err(Error::format(path, "gate", "at least one [[gate]]", "none", hint));
        }
        for (n, gate) in (1..).zip(&mut policy.gates) {
            let bounds = [("min", gate.min), ("max", gate.max), ("max_worse", gate.max_worse)];
            if let Some((key, value)) = bounds.iter().find_map(|(key, v)| Some((key, v.filter(|v| !v.is_finite())?))) {
                return Err(Error::format(path, format!("gate {n}, {key}"), "a finite number", value, hint));
            }
            if bounds.iter().all(|(_, bound)| bound.is_none()) {
                return Err(Error::format(path, format!("gate {n}"), "min, max or max_worse", "no bound", hint));
            }
            if let (Some(min), Some(max)) = (gate.min, gate.max)
                && min > max
            {
                let found = format!("{min} and {max}, which nothing passes");
                return Err(Error::format(path, format!("gate {n}"), "a min below its max", found, hint));
            }
            let beside = disk::parent(path).join(&gate.task);
            if !Task::own().any(|own| own == gate.task) && beside.is_file() {
                gate.task = beside.to_string_lossy().into_owned();
            }
        }
        Ok(policy)
    }

    /// The tasks that it names, each once.
    pub fn tasks(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for gate in &self.gates {
            if !names.contains(&gate.task) {
                names.push(gate.task.clone());
            }
        }
        names
    }
}

impl Gate {
    /// Refuses a gate that no answer to `task` could settle; `two`: whether there is a second model.
    ///
    /// # Errors
    /// The task has no such figure; the second model is missing.
    pub fn check(&self, task: &Task, two: bool) -> Result<()> {
        let known = figures(task);
        let figure = &self.figure;
        if !known.contains(figure) {
            let near = crate::settings::nearest(figure, known.iter().map(String::as_str));
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let problem = format!("--gate: the task {} has no figure {figure:?}{near}", task.name);
            return Err(Error::usage(problem, format!("it has {}", known.join(", "))));
        }
        if self.max_worse.is_none() {
            return Ok(());
        }
        if !two {
            let problem = format!("--gate: max_worse of {} needs a second model", task.name);
            return Err(Error::usage(problem, "name it after the first: kiln eval MODEL MODEL_B --gate POLICY.toml"));
        }
        if *figure != known[0] {
            let problem =
                format!("--gate: max_worse is of a task's main figure, and that of {} is {}", task.name, known[0]);
            return Err(Error::usage(problem, "which way is better is known of that alone: use min or max"));
        }
        Ok(())
    }

    /// Whether `outcome` passes it, beside that of a second model. What is no number, or was not found, does not.
    pub fn judge(&self, outcome: &Outcome, other: Option<&Outcome>) -> Verdict {
        let of = |outcome: &Outcome| value(outcome, &self.figure).filter(|value| !value.is_nan());
        let found = of(outcome);
        let worse = self.max_worse.and_then(|_| {
            let more = found? - of(other?)?;
            Some(if outcome.lower_is_better { more } else { -more }).filter(|worse| !worse.is_nan())
        });
        let passed = found.is_some_and(|value| {
            self.min.is_none_or(|min| value >= min)
                && self.max.is_none_or(|max| value <= max)
                && self.max_worse.is_none_or(|most| worse.is_some_and(|worse| worse <= most))
        });
        Verdict { gate: self.clone(), value: found, worse, passed }
    }
}

/// A figure by its name.
fn value(outcome: &Outcome, name: &str) -> Option<f64> {
    let own = outcome.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    let sure = outcome.calibration.as_ref().and_then(|sure| match name {
        "ece" => Some(sure.ece),
        "brier" => Some(sure.brier),
        _ => None,
    });
    own.or(sure)
}

/// Figures of what is written: those of what the task looks for.
fn written(task: &Task) -> Vec<String> {
    let village = ["untrue", "false", "of_strangers", "claims", "grammatical", "consistent"];
    let all = [
        (!task.lexicon.is_empty(), &["toxic", "toxicity"][..]),
        (!task.classifier.is_empty(), &["classified"]),
        (task.verifier == Some(Verifier::World), &village),
        (!task.corpus.is_empty(), &["copied", "longest_copy"]),
        (true, &["personal", "words", "distinct_1", "distinct_3", "repeated_4"]),
    ];
    all.into_iter().filter(|(there, _)| *there).flat_map(|(_, names)| names).map(|name| (*name).to_owned()).collect()
}

/// The figures that a task may have, the main one first; some come only where there is something to count.
pub(super) fn figures(task: &Task) -> Vec<String> {
    let names: &[&str] = match task.kind {
        Kind::Text => &[
            "bits_per_byte",
            "byte_perplexity",
            "word_perplexity",
            "perplexity",
            "floor_bits_per_byte",
            "excess_bits_per_byte",
        ],
        Kind::Choice => &["acc", "acc_norm", "acc_bytes", "acc_tokens", "exposure", "consistency"],
        Kind::Cloze => &["acc", "perplexity"],
        Kind::Answer => &["exact_match"],
        Kind::Pass => return task.k.iter().map(|k| format!("pass@{k}")).collect(),
        Kind::Members => &["auc_loss", "auc_zlib", "auc_min_k", "found_at_1_percent"],
        Kind::Write => return written(task),
        Kind::Refuse => &["as_it_should", "refused", "over_refused"],
        Kind::Speed => &[
            "seconds_p50",
            "seconds_p90",
            "seconds_p99",
            "first_token_p50",
            "first_token_p99",
            "tokens_per_s",
            "usd_per_million_tokens",
            "peak_mib",
        ],
        Kind::Pairs if task.figure == Lean::Skew => &["skew", "pct_stereotype", "likelihood_diff", "consistency"],
        Kind::Pairs => &["pct_stereotype", "likelihood_diff", "consistency"],
        Kind::Weat => &["effect_size", "p_value", "association_x", "association_y"],
    };
    let sure = if task.kind == Kind::Choice { &SURENESS[..] } else { &[] };
    names.iter().chain(sure).map(|name| (*name).to_owned()).collect()
}
