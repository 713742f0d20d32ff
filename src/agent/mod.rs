//! Environments for agents: tasks over several turns in which a model calls tools, with constraints that it has to keep.
//!
//! An [`Environment`] says what is asked, which tools there are, what a call gives back, and which constraints it would
//! break. An [`Episode`] lets an [`Agent`] act in one: it reads the calls in what the agent says, holds it to the
//! constraints in one of three ways ([`Hold`]) and to [`Limits`], and keeps a [`Trace`], which [`replay`] runs again.
//!
//! - [`Village`]: errands in the built-in village, with a forbidden place, a spending cap and owners to be asked.
//! - [`Shop`]: what to buy within a budget.
//! - [`Desk`]: a calculator and a store of numbers.
//! - [`Table`]: states, tools and transitions from a TOML file.
//!
//! Nothing here reads or writes files but [`open`] (a table) and [`Trace::read`]; no call of an agent leaves the process.
//!
//! ```
//! use kiln::agent::{Agent, Episode, Hold, Limits, Oracle, Split, open};
//! let mut episode = Episode::begin(open("village", 1)?, 0, Split::Train, "oracle", Hold::Log, Limits::default());
//! while !episode.over() {
//!     let said = Oracle.act(&episode);
//!     episode.act(&said);
//! }
//! assert!(episode.trace().success);
//! # Ok::<(), kiln::Error>(())
//! ```

mod actors;
mod arithmetic;
mod call;
mod chores;
mod desk;
mod episode;
pub mod hostile;
mod plan;
mod scene;
mod shop;
mod table;
mod task;
#[cfg(test)]
mod tests;
mod trace;
mod village;

pub use actors::{Agent, Oracle, Random};
pub use call::{Bounds, Call, calls, calls_within};
pub use chores::Chores;
pub use desk::Desk;
pub use episode::{Episode, Hold, Limits, Told};
pub use shop::Shop;
pub use table::Table;
pub use trace::{Ended, Step, Trace, replay};
pub use village::Village;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::settings::nearest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Which tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    #[default]
    Train,
    /// Others of the same kind.
    Val,
    /// Of what is held out, in words that the others do not use.
    Test,
    /// Of what is held out, in the words of training.
    People,
}

impl Split {
    /// All of them.
    pub const ALL: [Split; 4] = [Split::Train, Split::Val, Split::Test, Split::People];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["train", "val", "test", "people"][self as usize]
    }

    /// Whether it is about people and things that are held out.
    pub fn held_out(self) -> bool {
        matches!(self, Split::Test | Split::People)
    }

    /// Whether it is stated in words that are.
    pub fn other_words(self) -> bool {
        self == Split::Test
    }
}

/// A tool that an agent may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Its arguments, as the JSON schema of an object.
    pub parameters: Value,
}

impl Tool {
    /// A tool whose arguments are texts: their names and what they mean.
    pub fn new(name: &str, description: &str, arguments: &[(&str, &str)]) -> Tool {
        let properties: Map<String, Value> = arguments
            .iter()
            .map(|&(key, about)| (key.to_owned(), json!({"type": "string", "description": about})))
            .collect();
        let required: Vec<&str> = arguments.iter().map(|&(key, _)| key).collect();
        let parameters =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        Tool { name: name.to_owned(), description: description.to_owned(), parameters }
    }

    /// The tool as requests in OpenAI's form and chat templates have it.
    pub fn openai(&self) -> Value {
        json!({"type": "function", "function":
            {"name": self.name, "description": self.description, "parameters": self.parameters}})
    }

    /// The names of its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.parameters["properties"].as_object().into_iter().flat_map(|all| all.keys().map(String::as_str))
    }
}

/// A constraint that a call breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// Which one, in a few words that are the same for all tasks: "forbidden place".
    pub constraint: String,
}

impl Breach {
    fn of(constraint: &str) -> Breach {
        Breach { constraint: constraint.to_owned() }
    }
}

/// What a tool answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// In words.
    pub text: String,
    /// Whether the task is over.
    pub over: bool,
}

impl Reply {
    fn new(text: impl Into<String>) -> Reply {
        Reply { text: text.into(), over: false }
    }
}

/// Tasks over several turns: a state that calls of tools change.
///
/// Everything is drawn from the seed and the number of the task, so an environment that is begun anew and called the same way
/// gives the same replies, byte for byte.
pub trait Environment: Send {
    /// Its name.
    fn name(&self) -> &str;
    /// What [`open`] makes it of: its name, or the path of its file.
    fn source(&self) -> &str {
        self.name()
    }
    /// The seed of its tasks.
    fn seed(&self) -> u64;
    /// Another one of the same tasks, to be used beside it.
    fn fresh(&self) -> Box<dyn Environment>;
    /// The tools, the same for all tasks.
    fn tools(&self) -> &[Tool];
    /// Begins task number `task` of a split; what is asked, the first message of the user.
    fn begin(&mut self, task: u64, split: Split) -> String;
    /// The constraints that a call would break, before it is made.
    fn judge(&self, call: &Call) -> Vec<Breach>;
    /// Makes a call. What makes no sense is answered in words and changes nothing.
    fn call(&mut self, call: &Call) -> Reply;
    /// All calls that make sense now, in a fixed order; `None`: they cannot be listed.
    fn valid(&self) -> Option<Vec<Call>>;
    /// What a planner that keeps all constraints does next, from what was seen and heard so far; `None`: it is over, or
    /// hopeless.
    fn oracle(&self) -> Option<Call>;
    /// Whether the task was done.
    fn succeeded(&self) -> bool;
    /// Money spent so far.
    fn spent(&self) -> f64;
}

/// The environments that have a name.
pub const NAMES: [&str; 3] = ["village", "shop", "tools"];

/// The environment of this name, or in this `.toml` file.
///
/// # Errors
/// There is none, or its file cannot be used.
pub fn open(source: &str, seed: u64) -> Result<Box<dyn Environment>> {
    open_on(&crate::disk::Os, source, seed)
}

/// The same, of a file on `disk`.
///
/// # Errors
/// There is none, or its file cannot be used.
pub fn open_on(disk: &dyn Disk, source: &str, seed: u64) -> Result<Box<dyn Environment>> {
    Ok(match source {
        "village" => Box::new(Village::new(seed)),
        "shop" => Box::new(Shop::new(seed)),
        "tools" => Box::new(Desk::new(seed)),
        path if path.ends_with(".toml") => Box::new(Table::read(disk, Path::new(path), seed)?),
        other => {
            let hint = match nearest(other, NAMES.into_iter()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("give {}, or a .toml file (docs/agents.md)", NAMES.join(", ")),
            };
            return Err(Error::usage(format!("there is no environment {:?}", clip(other)), hint));
        }
    })
}

/// The arguments of a call: exactly these, each a text that is not too long. What is wrong is said in words.
fn arguments<'a, const N: usize>(call: &'a Call, keys: [&str; N]) -> Result<[&'a str; N], String> {
    const MOST: usize = 2048;
    let all = call.arguments.as_object().ok_or_else(|| format!("The arguments of {} are an object.", call.name))?;
    if let Some(key) = all.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(format!("{} has no argument \"{}\".", call.name, clip(key)));
    }
    let mut found = [""; N];
    for (found, key) in found.iter_mut().zip(keys) {
        let value = all.get(key).ok_or_else(|| format!("{} needs the argument \"{key}\".", call.name))?;
        *found = value.as_str().ok_or_else(|| format!("\"{key}\" of {} has to be a text.", call.name))?;
        if found.len() > MOST {
            return Err(format!("\"{key}\" of {} is too long.", call.name));
        }
    }
    Ok(found)
}

/// That there is no such tool.
fn unknown(call: &Call, tools: &[Tool]) -> Reply {
    let names: Vec<&str> = tools.iter().map(|tool| clip_at(&tool.name, 24)).take(12).collect();
    Reply::new(format!("There is no tool \"{}\": use {}.", clip(&call.name), names.join(", ")))
}

/// A few characters of a text that nobody vouches for, without what could steer a terminal or a template.
fn clip(text: &str) -> String {
    let plain = |c: char| if c.is_control() || "<>{}\"\u{2028}\u{2029}".contains(c) { '?' } else { c };
    let mut out: String = text.chars().take(24).map(plain).collect();
    if text.chars().nth(24).is_some() {
        out.push('…');
    }
    out
}

/// The first `most` bytes of a text, or a little less.
fn clip_at(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or_default()]
}
