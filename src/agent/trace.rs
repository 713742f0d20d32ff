//! What an agent did at a task, as a line of JSON, and the same done again.

use super::call::{Call, calls};
use super::episode::{Episode, Hold, Limits, Told};
use super::{Breach, Environment, Split, open};
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Bytes of a file of traces.
const MOST: u64 = 1 << 29;

/// Why an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The task was over.
    Done,
    /// No message was left.
    Turns,
    /// No call was left.
    Calls,
    /// No token was left.
    Tokens,
    /// More money was spent than there may be.
    Money,
}

impl Ended {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Ended::Done => "the task was over",
            Ended::Turns => "no turn was left",
            Ended::Calls => "no call was left",
            Ended::Tokens => "no token was left",
            Ended::Money => "too much money was spent",
        }
    }
}

/// One message of an agent, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What the agent said.
    pub said: String,
    /// Its tokens.
    pub tokens: usize,
    /// The calls in it.
    pub calls: Vec<Call>,
    /// A reply to each call; one where there is no call.
    pub replies: Vec<String>,
    /// The constraints that each call broke.
    pub breaches: Vec<Vec<Breach>>,
}

impl Step {
    /// The replies, with who says them.
    pub fn told(&self) -> Vec<Told> {
        let tools = self.calls.iter().map(|call| Some(call.name.clone())).chain(std::iter::repeat(None));
        self.replies.iter().zip(tools).map(|(text, tool)| Told { tool, text: text.clone() }).collect()
    }
}

/// What an agent did at a task: all that [`replay`] needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The environment's name, or its file.
    pub environment: String,
    /// The seed of its tasks.
    pub seed: u64,
    /// Which tasks.
    pub split: Split,
    /// The task's number.
    pub task: u64,
    /// Who acted.
    pub agent: String,
    /// How it was held to the constraints.
    pub hold: Hold,
    /// How much it might do.
    pub limits: Limits,
    /// What was asked.
    pub goal: String,
    /// What was said and done.
    pub steps: Vec<Step>,
    /// Whether the task was done.
    pub success: bool,
    /// How many constraints were broken.
    pub breaches: usize,
    /// How many calls were refused.
    pub refused: usize,
    /// Money spent.
    pub spent: f64,
    /// Why it ended; `None`: it has not.
    pub ended: Option<Ended>,
}

impl Trace {
    /// The calls that were made.
    pub fn calls(&self) -> usize {
        self.steps.iter().map(|step| step.calls.len()).sum()
    }

    /// The constraints that were broken, in order.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(|step| step.breaches.iter().flatten()).map(|breach| breach.constraint.as_str())
    }

    /// The conversation in OpenAI's form: the calls in `tool_calls`, with arguments as a text of JSON.
    pub fn messages(&self) -> Vec<Value> {
        let mut all = vec![json!({"role": "user", "content": self.goal})];
        let mut ids = 0..;
        for step in &self.steps {
            if step.calls.is_empty() {
                all.push(json!({"role": "assistant", "content": step.said}));
                all.extend(step.replies.iter().map(|reply| json!({"role": "user", "content": reply})));
                continue;
            }
            let before = calls(&step.said).ok().flatten().map(|(before, _)| before).unwrap_or_default();
            let ids: Vec<String> = ids.by_ref().take(step.calls.len()).map(|i: usize| format!("call_{i}")).collect();
            let calls: Vec<Value> = std::iter::zip(&step.calls, &ids)
                .map(|(call, id)| {
                    let mut call = call.openai();
                    call["id"] = id.as_str().into();
                    call
                })
                .collect();
            all.push(json!({"role": "assistant", "content": before, "tool_calls": calls}));
            for ((call, reply), id) in step.calls.iter().zip(&step.replies).zip(&ids) {
                all.push(json!({"role": "tool", "tool_call_id": id, "name": call.name, "content": reply}));
            }
        }
        all
    }

    /// The conversation as texts, for templates that know of no tools: an assistant's message is what it said, calls
    /// and all, and replies to one message are one.
    pub fn texts(&self) -> Vec<Value> {
        let mut all = vec![json!({"role": "user", "content": self.goal})];
        for step in &self.steps {
            let role = if step.calls.is_empty() { "user" } else { "tool" };
            all.push(json!({"role": "assistant", "content": step.said}));
            all.push(json!({"role": role, "content": step.replies.join("\n")}));
        }
        all
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a trace is JSON")
    }

    /// The traces in a file, one a line.
    ///
    /// # Errors
    /// It cannot be read, or a line is none.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<Trace>> {
        let text = disk::text(disk, path, MOST)?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let trace = |(n, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|e| {
                let hint = "traces are what kiln agent run --save writes";
                Error::format(path, format!("line {n}"), "a trace", e, hint)
            })
        };
        lines.map(trace).collect()
    }
}

/// Runs a trace's messages through its environment again.
///
/// # Errors
/// The environment cannot be opened, or something is not the same byte for byte: the first difference.
pub fn replay(trace: &Trace) -> Result<()> {
    replay_in(open(&trace.environment, trace.seed)?, trace)
}

/// The same in an environment that is there.
///
/// # Errors
/// The first difference.
pub fn replay_in(environment: Box<dyn Environment>, trace: &Trace) -> Result<()> {
    let mut episode = Episode::begin(environment, trace.task, trace.split, &trace.agent, trace.hold, trace.limits);
    let differs = |what: String, then: &str, now: &str| {
        let problem = format!("{what}: was {then:?}, is {now:?}");
        Err(Error::failed(problem, "the trace was changed, or it is of another version of the environment"))
    };
    if episode.goal() != trace.goal {
        return differs("the goal".into(), &trace.goal, episode.goal());
    }
    for (n, step) in (1..).zip(&trace.steps) {
        episode.act_of(&step.said, step.tokens);
        let Some(now) = episode.trace().steps.get(n - 1) else {
            return differs(format!("step {n}"), "another message", "over");
        };
        if now == step {
            continue;
        }
        let json = |step: &Step| serde_json::to_string(step).expect("a step is JSON");
        let replies = step.replies.iter().zip(&now.replies).find(|(then, now)| then != now);
        return match replies {
            Some((then, now)) => differs(format!("a reply in step {n}"), then, now),
            None => differs(format!("step {n}"), &json(step), &json(now)),
        };
    }
    let now = episode.trace();
    if now != trace {
        let outcome = |t: &Trace| {
            let Trace { success, breaches, refused, spent, ended, .. } = t;
            format!("success {success}, {breaches} breaches, {refused} refused, {spent} spent, ended {ended:?}")
        };
        return differs("the outcome".into(), &outcome(trace), &outcome(now));
    }
    Ok(())
}
