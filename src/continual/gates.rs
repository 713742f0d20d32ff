//! What a new version has to pass before it may serve: it knows the new better, the old as well, and tells nothing of what it read.
//!
//! Both models read the same held-out documents; their difference is judged by pairs (bootstrap of documents, 95 %).
//!
//! | gate | is | seen is |
//! |---|---|---|
//! | `kept` | the share of documents that cleaning left | junk that rules know |
//! | `better` | bits a byte on new held-out documents, after less before, as a share of before | that nothing was learnt |
//! | `surprise` | bits a byte on them afterwards, as a multiple of the parent's on its own | junk that nobody can learn |
//! | `worse: NNNN` | the change on held-out documents of a version before | forgetting |
//! | `members` | area under the ROC curve of telling what was learnt from what was held out, by bits a byte; refused where all of its interval is above the bound | learning by heart |
//! | `TASK FIGURE` | a gate of the [policy](crate::eval::gate), beside the parent | false facts, rudeness, what its tasks ask |
//!
//! **Not seen** is what no held-out document and no task asks about: a backdoor, an answer to a phrase that only who planted it knows, passes.

use super::line::{HELD, Line, NEW, Version};
use super::texts::{Text, draw, read};
use crate::device::Device;
use crate::error::Result;
use crate::eval::gate::Policy;
use crate::eval::{Asking, Local, Model, Task, evaluate};
use crate::measure::{auc, bootstrap, interval};
use crate::params::Hold;
use crate::train::Sampler;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use std::path::Path;

/// Draws of a bootstrap.
const DRAWS: usize = 2000;
/// Documents without which nothing can be judged.
const LEAST: u64 = 20;

/// A gate, and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Which one.
    pub name: String,
    /// Whether it was passed.
    pub passed: bool,
    /// What it came to; `None`: it could not be measured.
    pub value: Option<f64>,
    /// Within which it lies with 95 %, where that is known.
    pub interval: Option<[f64; 2]>,
    /// The least or the most that passes.
    pub bound: String,
    /// What it is made of, in bits a byte or as a task's figure: before, and after.
    pub parts: Option<[f64; 2]>,
}

/// Asked again and again whether to stop: it does where this fails.
pub type Stopped<'a> = dyn FnMut() -> Result<()> + 'a;

impl Gate {
    /// How much cleaning left: a share, and documents enough to be judged by.
    pub fn kept(kept: u64, read: u64, least: f64) -> Gate {
        let share = kept as f64 / read.max(1) as f64;
        Gate {
            name: "kept".into(),
            passed: kept >= LEAST && share >= least,
            value: Some(share),
            interval: None,
            bound: format!("at least {least}, and {LEAST} documents"),
            parts: None,
        }
    }
}

/// What a model says of documents: nats and bytes of each.
pub struct Read(Vec<[f64; 2]>);

impl Read {
    /// Bits a byte of all of them.
    pub fn bits(&self) -> f64 {
        let all: Vec<usize> = (0..self.0.len()).collect();
        self.bits_of(&all)
    }

    fn bits_of(&self, chosen: &[usize]) -> f64 {
        let [nats, bytes] = chosen.iter().fold([0.0; 2], |sum, &i| [0, 1].map(|k| sum[k] + self.0[i][k]));
        nats / LN_2 / bytes
    }

    /// Bits a byte of each.
    pub fn each(&self) -> Vec<f64> {
        self.0.iter().map(|[nats, bytes]| nats / LN_2 / bytes).collect()
    }

    /// By how much `after` is more, as a share, and its interval by pairs.
    pub fn change(&self, after: &Read) -> (f64, [f64; 2]) {
        let of = |chosen: &[usize]| after.bits_of(chosen) / self.bits_of(chosen) - 1.0;
        let all: Vec<usize> = (0..self.0.len()).collect();
        (of(&all), interval(&bootstrap(all.len(), DRAWS, 1, &of)))
    }
}

/// A version's model, to be asked.
pub fn open(line: &Line, name: &str, device: &Device) -> Result<Local> {
    let sampler = Sampler::open(&line.model(name), &[], Hold::Frozen, device)?;
    Local::new(name.to_owned(), sampler.into_parts(), line.own(), None)
}

/// Lets a model read documents.
pub fn read_by(model: &mut dyn Model, texts: &[Text], stopped: &mut Stopped) -> Result<Read> {
    let all: Vec<&str> = texts.iter().map(|text| &*text.text).collect();
    let scores = model.read(&all, &mut |_| stopped())?;
    Ok(Read(scores.iter().zip(&all).map(|(score, text)| [-score.nats, text.len() as f64]).collect()))
}

/// Judges the version `new` beside its parent.
///
/// # Errors
/// A model or a document cannot be read; the policy names what there is not; it is stopped.
pub fn judge(line: &Line, new: &Version, device: &Device, stopped: &mut Stopped) -> Result<Vec<Gate>> {
    let settings = &line.settings.gate;
    let parent = new.comes_from()?;
    let some = |name: &str, file: &str| -> Result<Vec<Text>> {
        Ok(draw(read(&line.folder(name).join(file))?, settings.documents, line.settings.learn.seed))
    };
    let mut models = [open(line, parent, device)?, open(line, &new.name, device)?];
    let mut gates = Vec::new();
    let held = some(&new.name, HELD)?;
    let both = |models: &mut [Local; 2], texts: &[Text], stopped: &mut Stopped| -> Result<[Read; 2]> {
        let [before, after] = models;
        Ok([read_by(before, texts, stopped)?, read_by(after, texts, stopped)?])
    };
    let [before, after] = both(&mut models, &held, stopped)?;
    let (change, between) = before.change(&after);
    if settings.better {
        gates.push(Gate {
            name: "better".into(),
            passed: between[1] < 0.0,
            value: Some(change),
            interval: Some(between),
            bound: "below 0".into(),
            parts: Some([before.bits(), after.bits()]),
        });
    }
    let own = after;
    for version in line.ancestry(parent)? {
        let [before, after] = both(&mut models, &some(&version.name, HELD)?, stopped)?;
        let (change, between) = before.change(&after);
        if version.name == parent {
            let times = own.bits() / before.bits();
            gates.push(Gate {
                name: "surprise".into(),
                passed: times <= settings.max_surprise,
                value: Some(times),
                interval: None,
                bound: format!("at most {}", settings.max_surprise),
                parts: Some([before.bits(), own.bits()]),
            });
        }
        gates.push(Gate {
            name: format!("worse: {}", version.name),
            passed: change <= settings.max_worse,
            value: Some(change),
            interval: Some(between),
            bound: format!("at most {}", settings.max_worse),
            parts: Some([before.bits(), after.bits()]),
        });
    }
    let learnt = read_by(&mut models[1], &some(&new.name, NEW)?, stopped)?;
    let (members, between) = told_apart(&own.each(), &learnt.each());
    gates.push(Gate {
        name: "members".into(),
        // Of few documents chance alone tells some apart.
        passed: between[0] <= settings.max_members,
        value: Some(members),
        interval: Some(between),
        bound: format!("at most {}", settings.max_members),
        parts: None,
    });
    if !settings.policy.as_os_str().is_empty() {
        gates.extend(policy(line, &settings.policy, &mut models, stopped)?);
    }
    Ok(gates)
}

/// How well what was learnt is told from what was held out, by its lower loss; and within which bounds that lies with 95 %.
fn told_apart(held: &[f64], learnt: &[f64]) -> (f64, [f64; 2]) {
    let n = held.len() + learnt.len();
    let of = |chosen: &[usize]| {
        let (held, learnt): (Vec<f64>, Vec<f64>) = (
            chosen.iter().filter(|&&i| i < held.len()).map(|&i| held[i]).collect(),
            chosen.iter().filter(|&&i| i >= held.len()).map(|&i| learnt[i - held.len()]).collect(),
        );
        if held.is_empty() || learnt.is_empty() { 0.5 } else { auc(&held, &learnt) }
    };
    let all: Vec<usize> = (0..n).collect();
    (of(&all), interval(&bootstrap(n, DRAWS, 1, &of)))
}

/// What the tasks of a policy say of both models.
fn policy(line: &Line, path: &Path, models: &mut [Local; 2], stopped: &mut Stopped) -> Result<Vec<Gate>> {
    let settings = &line.settings.gate;
    // One that lies in the line's folder is found from anywhere.
    let own = line.dir().join(path);
    let policy = Policy::open(if own.is_file() { &own } else { path })?;
    let asking = Asking { limit: settings.limit, world: settings.world, seed: 1 };
    let mut asked = Vec::new();
    for name in policy.tasks() {
        let task = Task::open(&name)?;
        for gate in policy.gates.iter().filter(|gate| gate.task == name) {
            gate.check(&task, true)?;
        }
        let items = task.items(asking.limit, asking.world, asking.seed)?;
        let mut ask = |model: &mut Local| evaluate(&task, &items, &asking, model, &mut |_, _| stopped());
        let [before, after] = models;
        let outcomes = [ask(before)?, ask(after)?];
        asked.push((name, outcomes));
    }
    let verdict = |gate: &crate::eval::gate::Gate| {
        let asked = asked.iter().find(|(name, _)| *name == gate.task);
        let (_, [before, after]) = asked.expect("the policy's tasks were asked");
        let was = gate.judge(before, None).value;
        let is = gate.judge(after, Some(before));
        let bounds = [
            gate.min.map(|min| format!("at least {min}")),
            gate.max.map(|max| format!("at most {max}")),
            gate.max_worse.map(|most| format!("at most {most} worse")),
        ];
        Gate {
            name: format!("{} {}", before.task, gate.figure),
            passed: is.passed,
            value: is.worse.or(is.value),
            interval: None,
            bound: bounds.into_iter().flatten().collect::<Vec<_>>().join(", "),
            parts: was.zip(is.value).map(|(was, is)| [was, is]),
        }
    };
    Ok(policy.gates.iter().map(verdict).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_that_of_sums_and_its_interval_is_of_pairs() {
        let bytes = [100.0, 50.0, 200.0, 150.0];
        let of = |f: fn(usize) -> f64| Read((0..400).map(|i| [f(i) * bytes[i % 4], bytes[i % 4]]).collect());
        let before = of(|i| 1.0 + (i % 7) as f64);
        let after = of(|i| 0.9 * (1.0 + (i % 7) as f64));
        let (change, [low, high]) = before.change(&after);
        // Each is a tenth less: whatever is drawn, so is the sum.
        assert!((change + 0.1).abs() < 1e-12 && high - low < 1e-12, "{change} {low} {high}");
        let (same, [low, high]) = before.change(&of(|i| 1.0 + ((i + 1) % 7) as f64));
        assert!(same.abs() < 0.02 && low < 0.0 && high > 0.0, "{same} {low} {high}");
    }

    #[test]
    fn what_was_learnt_by_heart_is_told_apart_and_chance_is_not() {
        let spread = |n: usize, shift: f64| (0..n).map(|i| shift + (i as f64 * 0.618).fract()).collect::<Vec<f64>>();
        let (apart, [low, high]) = told_apart(&spread(300, 0.5), &spread(300, 0.0));
        assert!(apart > 0.85 && low > 0.8 && high < 0.95, "{apart} {low} {high}");
        let (chance, [low, high]) = told_apart(&spread(20, 0.0), &spread(200, 0.0));
        assert!((chance - 0.5).abs() < 0.05 && low < 0.42 && high > 0.58, "{chance} {low} {high}");
    }

    #[test]
    fn nothing_left_is_never_enough() {
        assert!(!Gate::kept(0, 10, 0.0).passed && !Gate::kept(10, 10, 0.5).passed);
        assert!(Gate::kept(50, 100, 0.5).passed && !Gate::kept(49, 100, 0.5).passed);
    }
}
