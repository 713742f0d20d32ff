//! One agent at one task: what it says is read, held to constraints and limits, carried out and written down.

use super::call::{Bounds, Call, calls};
use super::trace::{Ended, Step, Trace};
use super::{Breach, Environment, Split, clip_at};
use serde::{Deserialize, Deserializer, Serialize};

/// How much an agent may do at one task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Messages of the agent.
    pub turns: usize,
    /// Calls.
    pub calls: usize,
    /// Tokens that the agent says.
    pub tokens: usize,
    /// Money: more must not have been spent.
    #[serde(deserialize_with = "or_infinite")]
    pub money: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { turns: 16, calls: 24, tokens: 4096, money: f64::INFINITY }
    }
}

/// JSON has no infinity: it is written as null.
fn or_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// How an agent is held to the constraints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// A call that breaks one is carried out, and written down.
    #[default]
    Log,
    /// It is refused: nothing changes.
    Mask,
}

impl Hold {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["log", "mask"][self as usize]
    }
}

/// What an agent is told after it spoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The tool that answers; `None`: the user, since no tool was called.
    pub tool: Option<String>,
    /// What it says.
    pub text: String,
}

/// An environment with an agent at one of its tasks.
pub struct Episode {
    environment: Box<dyn Environment>,
    hold: Hold,
    limits: Limits,
    trace: Trace,
    calls: usize,
    tokens: usize,
}

impl Episode {
    /// Begins task number `task` of a split. `agent` is the name of whoever will act.
    pub fn begin(
        mut environment: Box<dyn Environment>,
        task: u64,
        split: Split,
        agent: &str,
        hold: Hold,
        limits: Limits,
    ) -> Episode {
        let goal = environment.begin(task, split);
        let trace = Trace {
            environment: environment.source().to_owned(),
            seed: environment.seed(),
            split,
            task,
            agent: agent.to_owned(),
            hold,
            limits,
            goal,
            steps: Vec::new(),
            success: false,
            breaches: 0,
            refused: 0,
            spent: 0.0,
            ended: None,
        };
        Episode { environment, hold, limits, trace, calls: 0, tokens: 0 }
    }

    /// What is asked.
    pub fn goal(&self) -> &str {
        &self.trace.goal
    }

    /// The environment as it is now.
    pub fn environment(&self) -> &dyn Environment {
        &*self.environment
    }

    /// What was said and done so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The trace, and the environment for another task.
    pub fn end(self) -> (Trace, Box<dyn Environment>) {
        (self.trace, self.environment)
    }

    /// Whether the task is over, or a limit is reached.
    pub fn over(&self) -> bool {
        self.trace.ended.is_some()
    }

    /// The calls that make sense now and may be made; `None`: they cannot be listed.
    pub fn allowed(&self) -> Option<Vec<Call>> {
        let mut all = self.environment.valid()?;
        if self.hold == Hold::Mask {
            all.retain(|call| self.environment.judge(call).is_empty());
        }
        Some(all)
    }

    /// Lets the agent say something, and does what it asks for. Words and marks count as tokens.
    pub fn act(&mut self, said: &str) -> Vec<Told> {
        let words = words(said);
        self.act_of(said, words)
    }

    /// The same, of a message that the agent's tokenizer has so many tokens for.
    pub fn act_of(&mut self, said: &str, tokens: usize) -> Vec<Told> {
        if self.over() {
            return Vec::new();
        }
        self.tokens = self.tokens.saturating_add(tokens);
        let mut step = Step { said: kept(said).to_owned(), tokens, ..Step::default() };
        let mut ended = None;
        let asked = match calls(said) {
            Ok(Some((_, calls))) => calls,
            Ok(None) => {
                self.calls += 1;
                step.replies.push("Call a tool.".to_owned());
                Vec::new()
            }
            Err(problem) => {
                self.calls += 1;
                step.replies.push(problem);
                Vec::new()
            }
        };
        for call in asked {
            let (breaches, reply) = if ended.is_some() {
                (Vec::new(), "Not done: the task is over.".to_owned())
            } else if self.calls == self.limits.calls {
                (Vec::new(), "Not done: that is one call too many.".to_owned())
            } else {
                self.calls += 1;
                self.make(&call, &mut ended)
            };
            self.trace.breaches += breaches.len();
            step.calls.push(call);
            step.replies.push(reply);
            step.breaches.push(breaches);
        }
        let told = step.told();
        self.trace.steps.push(step);
        self.trace.success = self.environment.succeeded();
        self.trace.spent = self.environment.spent();
        self.trace.ended = ended.or_else(|| self.limit());
        told
    }

    fn make(&mut self, call: &Call, ended: &mut Option<Ended>) -> (Vec<Breach>, String) {
        let breaches = self.environment.judge(call);
        if let Some(breach) = breaches.first().filter(|_| self.hold == Hold::Mask) {
            self.trace.refused += 1;
            return (Vec::new(), format!("You must not do that: {}.", breach.constraint));
        }
        let reply = self.environment.call(call);
        if reply.over {
            *ended = Some(Ended::Done);
        } else if self.environment.spent() > self.limits.money {
            *ended = Some(Ended::Money);
        }
        (breaches, reply.text)
    }

    fn limit(&self) -> Option<Ended> {
        let reached = [
            (self.calls >= self.limits.calls, Ended::Calls),
            (self.trace.steps.len() >= self.limits.turns, Ended::Turns),
            (self.tokens >= self.limits.tokens, Ended::Tokens),
        ];
        reached.into_iter().find(|(reached, _)| *reached).map(|(_, ended)| ended)
    }
}

/// Runs of letters and digits, and other marks, each by itself.
fn words(text: &str) -> usize {
    let (mut count, mut within) = (0, false);
    for c in text.chars() {
        let word = c.is_alphanumeric();
        count += usize::from(!(c.is_whitespace() || word && within));
        within = word;
    }
    count
}

/// As much of a message as breaks the same bound when it is read again.
fn kept(said: &str) -> &str {
    let most = Bounds::default().text + 8;
    if said.len() <= most { said } else { clip_at(said, most) }
}

#[cfg(test)]
mod tests {
    use super::super::{Shop, Village};
    use super::*;

    fn episode(limits: Limits) -> Episode {
        Episode::begin(Box::new(Village::new(1)), 0, Split::Train, "test", Hold::Log, limits)
    }

    #[test]
    fn words_and_marks_are_counted() {
        assert_eq!(words(""), 0);
        assert_eq!(words("Go to the mill."), 5);
        assert_eq!(words("{\"name\": \"a1\"}"), 9);
    }

    #[test]
    fn every_limit_ends_an_episode() {
        let look = Call::new("look", &[]).text();
        let end = |limits: Limits, said: &str| {
            let mut episode = episode(limits);
            while !episode.over() {
                episode.act(said);
            }
            (episode.trace().steps.len(), episode.trace().ended)
        };
        let all = Limits::default();
        assert_eq!(end(all, &look), (16, Some(Ended::Turns)));
        assert_eq!(end(all, "What now?"), (16, Some(Ended::Turns)));
        assert_eq!(end(Limits { calls: 3, ..all }, &look), (3, Some(Ended::Calls)));
        assert_eq!(end(Limits { calls: 3, ..all }, &look.repeat(5)), (1, Some(Ended::Calls)));
        assert_eq!(end(Limits { tokens: 40, ..all }, "a b c d e f g h i j"), (4, Some(Ended::Tokens)));
        // A shop that is paid for costs money.
        let limits = Limits { money: 1.0, ..all };
        let mut shop = Episode::begin(Box::new(Shop::new(1)), 0, Split::Train, "test", Hold::Log, limits);
        while let Some(call) = shop.environment().oracle() {
            shop.act(&call.text());
        }
        assert!(shop.over() && shop.trace().success && shop.trace().spent > 1.0, "{:?}", shop.trace());
    }

    #[test]
    fn calls_beyond_a_limit_are_answered_and_not_made() {
        let mut episode = episode(Limits { calls: 2, ..Limits::default() });
        let told = episode.act(&Call::new("look", &[]).text().repeat(3));
        assert_eq!(told.len(), 3);
        assert_eq!(told[2].text, "Not done: that is one call too many.");
        assert_eq!(episode.trace().steps[0].calls.len(), 3);
        assert!(episode.act("more").is_empty());
    }

    #[test]
    fn a_message_without_a_call_is_answered_by_the_user() {
        let mut episode = episode(Limits::default());
        assert_eq!(episode.act("Hello!"), [Told { tool: None, text: "Call a tool.".into() }]);
        let told = episode.act(&"x".repeat(1 << 20));
        assert!(told[0].text.contains("65536 bytes"), "{told:?}");
        assert!(episode.trace().steps[1].said.len() < 66_000);
    }
}
