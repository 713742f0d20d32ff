//! Who acts: the interface of agents, and two that need no model.

use super::{Call, Episode};
use crate::rng::{Purpose, Rng};
use serde_json::{Map, Value};

/// Somebody who says what is to be done next.
pub trait Agent {
    /// The next message.
    fn act(&mut self, episode: &Episode) -> String;
}

/// Does what the environment's planner does: it solves every task and breaks no constraint.
#[derive(Clone, Copy, Debug)]
pub struct Oracle;

impl Agent for Oracle {
    fn act(&mut self, episode: &Episode) -> String {
        episode.environment().oracle().map_or_else(|| "There is nothing left to do.".to_owned(), |call| call.text())
    }
}

/// The stream of random agents among those of [`Purpose::Sample`].
const AGENT: u32 = 0xa9e;

/// Makes any call that makes sense and is allowed, each as likely: the floor that an agent has to leave. Where calls cannot
/// be listed it puts words of the goal into the arguments of any tool.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// One that draws from this seed; what it does depends on the task too.
    pub fn new(seed: u64) -> Random {
        Random { seed }
    }
}

impl Agent for Random {
    fn act(&mut self, episode: &Episode) -> String {
        let trace = episode.trace();
        let step = trace.steps.len() as u64;
        let mut rng = Rng::new(self.seed, Purpose::Sample, AGENT, trace.task.wrapping_mul(4096).wrapping_add(step));
        let call = match episode.allowed() {
            Some(all) if all.is_empty() => return "There is nothing that I can do.".to_owned(),
            Some(mut all) => all.swap_remove(rng.below(all.len() as u32) as usize),
            None => guess(episode, &mut rng),
        };
        call.text()
    }
}

fn guess(episode: &Episode, rng: &mut Rng) -> Call {
    let words: Vec<&str> =
        episode.goal().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let tools = episode.environment().tools();
    let tool = &tools[rng.below(tools.len() as u32) as usize];
    let mut any = || Value::from(words.get(rng.below(words.len().max(1) as u32) as usize).copied().unwrap_or("1"));
    let arguments: Map<String, Value> = tool.arguments().map(|key| (key.to_owned(), any())).collect();
    Call { name: tool.name.clone(), arguments: arguments.into() }
}
