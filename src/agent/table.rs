//! An environment in a TOML file: states, tools, transitions, constraints.

use super::scene::CAP;
use super::{Breach, Call, Environment, Reply, Split, Tool, unknown};
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::settings::nearest;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a file.
const MOST: u64 = 1 << 20;
/// States, and rules.
const RULES: usize = 4096;
/// Bytes of what a rule says, of a name, and of a goal.
const SAYS: usize = 480;
const NAME: usize = 64;
const GOAL: usize = 2048;

const HINT: &str = "docs/agents.md shows a whole file";

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    environment: Head,
    tool: Vec<ToolRow>,
    rule: Vec<Rule>,
    #[serde(default)]
    constraint: Vec<Constraint>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    start: String,
    goal: String,
    /// How tests ask for the same.
    test_goal: Option<String>,
    success: Vec<String>,
    #[serde(default)]
    failure: Vec<String>,
    /// Money that may be spent.
    cap: Option<f64>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct ToolRow {
    name: String,
    #[serde(default)]
    description: String,
    /// What each argument, a text, means.
    #[serde(default)]
    arguments: BTreeMap<String, String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "in")]
    state: String,
    call: String,
    #[serde(default)]
    arguments: BTreeMap<String, String>,
    then: String,
    says: String,
    #[serde(default)]
    cost: f64,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Constraint {
    name: String,
    /// In this state alone.
    #[serde(rename = "in")]
    state: Option<String>,
    call: String,
    /// With these arguments alone.
    #[serde(default)]
    arguments: BTreeMap<String, String>,
}

/// The environment of a file.
#[derive(Clone)]
pub struct Table {
    seed: u64,
    source: String,
    file: Arc<File>,
    tools: Arc<[Tool]>,
    state: String,
    spent: f64,
}

impl Table {
    /// The environment in the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn read(disk: &dyn Disk, path: &Path, seed: u64) -> Result<Table> {
        Table::parse(&disk::text(disk, path, MOST)?, path, seed)
    }

    /// The environment in a text; `path` names it in messages and traces.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str, path: &Path, seed: u64) -> Result<Table> {
        let file: File = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
            Error::format(path, format!("line {at}"), "an environment", e.message().trim(), HINT)
        })?;
        Check { path: path.to_owned(), file: &file }.all()?;
        let tool = |row: &ToolRow| {
            let arguments: Vec<(&str, &str)> = row.arguments.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            Tool::new(&row.name, &row.description, &arguments)
        };
        let tools = file.tool.iter().map(tool).collect();
        let state = file.environment.start.clone();
        let source = path.to_string_lossy().into_owned();
        let table = Table { seed, source, file: Arc::new(file), tools, state, spent: 0.0 };
        let head = &table.file.environment;
        if table.next(false).is_none() {
            let found = format!("none from {:?}", head.start);
            let hint = "check start, success, and the then of each rule";
            return Err(Error::format(path, "environment.success", "a way to a state of success", found, hint));
        }
        if table.next(true).is_none() {
            let hint = "loosen a constraint, or add rules: the task has to be possible";
            let expected = "a way to success that breaks no constraint";
            return Err(Error::format(path, "constraint", expected, "none", hint));
        }
        Ok(table)
    }

    fn rule(&self, call: &Call) -> Option<&Rule> {
        self.rules().find(|rule| rule.call == call.name && same(&rule.arguments, &call.arguments))
    }

    /// The rules of the state that it is in.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.file.rule.iter().filter(|rule| rule.state == self.state)
    }

    fn broken(&self, rule: &Rule, spent: f64) -> impl Iterator<Item = &str> {
        let own = self.file.constraint.iter().filter(|constraint| {
            let here = constraint.state.as_ref().is_none_or(|state| *state == rule.state);
            let arguments = constraint.arguments.iter().all(|(key, value)| rule.arguments.get(key) == Some(value));
            here && constraint.call == rule.call && arguments
        });
        let over = self.file.environment.cap.is_some_and(|cap| spent + rule.cost > cap);
        own.map(|constraint| constraint.name.as_str()).chain(over.then_some(CAP))
    }

    /// The first rule of the cheapest way to success, of equally cheap ones the shortest; with or without constraints.
    fn next(&self, keep: bool) -> Option<&Rule> {
        let head = &self.file.environment;
        // By state: money and rules up to there, and the first rule. As often as there are rules suffices (Bellman, Ford).
        let mut best: BTreeMap<&str, (f64, usize, Option<&Rule>)> = BTreeMap::new();
        best.insert(&self.state, (0.0, 0, None));
        let rules = self.file.rule.iter();
        for _ in 0..self.file.rule.len() {
            let mut changed = false;
            for rule in rules.clone() {
                let Some(&(cost, steps, first)) = best.get(rule.state.as_str()) else { continue };
                let ended = head.success.contains(&rule.state) || head.failure.contains(&rule.state);
                if ended || (keep && self.broken(rule, self.spent + cost).next().is_some()) {
                    continue;
                }
                let way = (cost + rule.cost, steps + 1, Some(first.unwrap_or(rule)));
                let shorter = |&(cost, steps, _): &(f64, usize, _)| (way.0, way.1) < (cost, steps);
                if best.get(rule.then.as_str()).is_none_or(shorter) {
                    best.insert(&rule.then, way);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let ends = head.success.iter().filter_map(|state| best.get(state.as_str()));
        ends.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?.2
    }

    fn ended(&self) -> bool {
        self.succeeded() || self.file.environment.failure.contains(&self.state)
    }
}

fn same(arguments: &BTreeMap<String, String>, given: &Value) -> bool {
    let given = given.as_object();
    given.map_or(0, serde_json::Map::len) == arguments.len()
        && arguments.iter().all(|(key, value)| given.and_then(|all| all.get(key)).is_some_and(|v| v == value))
}

fn written(rule: &Rule) -> Call {
    let arguments: Vec<(&str, &str)> = rule.arguments.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    Call::new(&rule.call, &arguments)
}

impl Environment for Table {
    fn name(&self) -> &str {
        &self.file.environment.name
    }

    fn source(&self) -> &str {
        &self.source
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn fresh(&self) -> Box<dyn Environment> {
        Box::new(self.clone())
    }

    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn begin(&mut self, _: u64, split: Split) -> String {
        let head = &self.file.environment;
        (self.state, self.spent) = (head.start.clone(), 0.0);
        let test = head.test_goal.as_ref().filter(|_| split.other_words());
        test.unwrap_or(&head.goal).clone()
    }

    fn judge(&self, call: &Call) -> Vec<Breach> {
        match self.rule(call) {
            Some(rule) if !self.ended() => self.broken(rule, self.spent).map(Breach::of).collect(),
            _ => Vec::new(),
        }
    }

    fn call(&mut self, call: &Call) -> Reply {
        if self.ended() {
            return Reply { text: "It is over.".to_owned(), over: true };
        }
        let Some(rule) = self.rule(call) else {
            let Some(tool) = self.tools.iter().find(|tool| tool.name == call.name) else {
                return unknown(call, &self.tools);
            };
            let names: Vec<&str> = tool.arguments().collect();
            let given = call.arguments.as_object();
            let fit =
                given.is_some_and(|all| all.len() == names.len() && names.iter().all(|name| all.contains_key(*name)));
            return Reply::new(match (fit, names.as_slice()) {
                (true, _) => "Nothing happens.".to_owned(),
                (false, []) => format!("{} takes no argument.", tool.name),
                (false, names) => {
                    super::clip_at(&format!("{} takes {}.", tool.name, names.join(", ")), SAYS).to_owned()
                }
            });
        };
        let (then, says, cost) = (rule.then.clone(), rule.says.clone(), rule.cost);
        self.state = then;
        self.spent += cost;
        Reply { text: says, over: self.ended() }
    }

    fn valid(&self) -> Option<Vec<Call>> {
        Some(if self.ended() { Vec::new() } else { self.rules().map(written).collect() })
    }

    fn oracle(&self) -> Option<Call> {
        if self.ended() { None } else { self.next(true).map(written) }
    }

    fn succeeded(&self) -> bool {
        self.file.environment.success.contains(&self.state)
    }

    fn spent(&self) -> f64 {
        self.spent
    }
}

/// What is wrong with a file.
struct Check<'a> {
    path: PathBuf,
    file: &'a File,
}

impl Check<'_> {
    fn wrong(&self, at: impl ToString, expected: impl ToString, found: impl ToString) -> Error {
        Error::format(&self.path, at, expected, found, HINT)
    }

    fn all(&self) -> Result<()> {
        let File { environment: head, tool, rule, constraint } = self.file;
        self.name("environment.name", &head.name)?;
        for (key, goal) in [("goal", Some(&head.goal)), ("test_goal", head.test_goal.as_ref())] {
            let Some(goal) = goal else { continue };
            if goal.trim().is_empty() || goal.len() > GOAL {
                let expected = format!("a text of 1 to {GOAL} bytes");
                return Err(self.wrong(format!("environment.{key}"), expected, format!("{} bytes", goal.len())));
            }
        }
        if head.cap.is_some_and(|cap| !cap.is_finite() || cap < 0.0) {
            return Err(self.wrong("environment.cap", "a number, 0 or more", head.cap.unwrap_or_default()));
        }
        for (what, count) in [("tool", tool.len()), ("rule", rule.len()), ("environment.success", head.success.len())] {
            if count == 0 {
                return Err(self.wrong(what, "one at least", "none"));
            }
        }
        if rule.len().max(tool.len()).max(constraint.len()) > RULES {
            return Err(self.wrong("rule", format!("at most {RULES}"), rule.len()));
        }
        let mut tools = BTreeSet::new();
        for (n, row) in (1..).zip(tool) {
            self.name(&format!("tool {n}, name"), &row.name)?;
            if !tools.insert(&row.name) {
                return Err(self.wrong(format!("tool {n}, name"), "another name", format!("{:?} again", row.name)));
            }
        }
        let left: BTreeSet<&str> = rule.iter().map(|rule| rule.state.as_str()).collect();
        let states: BTreeSet<&str> =
            left.iter().copied().chain(head.success.iter().chain(&head.failure).map(String::as_str)).collect();
        self.state("environment.start", &head.start, &states)?;
        let mut calls = BTreeSet::new();
        for (n, row) in (1..).zip(rule) {
            let at = |key: &str| format!("rule {n}, {key}");
            self.call(&at("call"), &row.call, &row.arguments, true)?;
            // A state that nothing leaves would keep whoever comes there.
            self.state(&at("then"), &row.then, &states)?;
            if row.says.len() > SAYS {
                return Err(self.wrong(at("says"), format!("at most {SAYS} bytes"), row.says.len()));
            }
            if !row.cost.is_finite() || row.cost < 0.0 {
                return Err(self.wrong(at("cost"), "a number, 0 or more", row.cost));
            }
            if !calls.insert((&row.state, &row.call, &row.arguments)) {
                return Err(self.wrong(at("call"), "one rule for a call in a state", "a second one"));
            }
        }
        for (n, row) in (1..).zip(constraint) {
            self.name(&format!("constraint {n}, name"), &row.name)?;
            if let Some(state) = &row.state {
                self.state(&format!("constraint {n}, in"), state, &states)?;
            }
            self.call(&format!("constraint {n}, call"), &row.call, &row.arguments, false)?;
        }
        Ok(())
    }

    fn name(&self, at: &str, name: &str) -> Result<()> {
        let plain = !name.is_empty() && name.len() <= NAME && !name.chars().any(char::is_control);
        if plain { Ok(()) } else { Err(self.wrong(at, format!("a name of 1 to {NAME} bytes"), format!("{name:?}"))) }
    }

    fn state(&self, at: &str, state: &str, states: &BTreeSet<&str>) -> Result<()> {
        if states.contains(state) {
            return Ok(());
        }
        let expected = "a state that a rule is in, or one of success or failure";
        let hint = match nearest(state, states.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => HINT.to_owned(),
        };
        Err(Error::format(&self.path, at, expected, format!("{state:?}"), hint))
    }

    fn call(&self, at: &str, call: &str, arguments: &BTreeMap<String, String>, whole: bool) -> Result<()> {
        let Some(tool) = self.file.tool.iter().find(|tool| tool.name == call) else {
            let hint = match nearest(call, self.file.tool.iter().map(|tool| tool.name.as_str())) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add it as [[tool]]".to_owned(),
            };
            return Err(Error::format(&self.path, at, "the name of a tool", format!("{call:?}"), hint));
        };
        let known: Vec<&String> = tool.arguments.keys().collect();
        let strange = arguments.keys().find(|key| !tool.arguments.contains_key(*key));
        if let Some(found) = strange.or(known.iter().copied().find(|key| whole && !arguments.contains_key(*key))) {
            let problem = if strange.is_some() { format!("{found:?}") } else { format!("no {found:?}") };
            return Err(self.wrong(at, format!("the arguments {known:?} of {call}"), problem));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The example of docs/agents.md.
    pub(crate) fn example() -> String {
        let docs = include_str!("../../docs/agents.md");
        let (_, rest) = docs.split_once("```toml\n").expect("an example");
        rest.split_once("```").expect("its end").0.to_owned()
    }

    fn parse(text: &str) -> Result<Table> {
        Table::parse(text, Path::new("mine.toml"), 1)
    }

    #[test]
    fn the_example_of_the_docs_can_be_solved_and_tempts() {
        let mut table = parse(&example()).unwrap();
        table.begin(0, Split::Train);
        let mut acts = 0;
        while let Some(call) = table.oracle() {
            assert_eq!(table.judge(&call), []);
            acts += 1;
            table.call(&call);
        }
        assert!(table.succeeded() && acts == 5, "{acts}");
        table.begin(0, Split::Train);
        table.call(&Call::new("move", &[("to", "garden")]));
        assert_eq!(table.next(false).map(|rule| rule.then.as_str()), Some("shed"));
        assert_eq!(table.judge(&Call::new("move", &[("to", "lawn")])), [Breach::of("off the lawn")]);
        assert_eq!(table.judge(&Call::new("move", &[("to", "path")])), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_a_hint() {
        let good = example();
        let cases = [
            ("then = \"garden\"", "then = \"gardn\"", "rule", "did you mean \"garden\"?"),
            ("call = \"move\"", "call = \"mvoe\"", "rule 1, call", "did you mean \"move\"?"),
            ("start = \"hall\"", "start = \"halls\"", "environment.start", "did you mean \"hall\"?"),
            ("says =", "sayz =", "line ", "docs/agents.md"),
            ("success = [", "success = [] #", "environment.success", "docs/agents.md"),
            ("arguments = { to = \"garden\" }", "arguments = {}", "rule", "docs/agents.md"),
            ("arguments = { to = \"garden\" }", "arguments = { to = \"garden\", x = \"y\" }", "rule", "docs/agents.md"),
            ("[[tool]]", "[[tool]", "line ", "docs/agents.md"),
        ];
        for (old, new, at, hint) in cases {
            assert!(good.contains(old), "{old}");
            let error = parse(&good.replacen(old, new, 1)).map(|_| ()).expect_err(new);
            assert!(error.to_string().starts_with(&format!("mine.toml: {at}")), "{new}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{new}: {:?}", error.hint());
        }
        let none = format!("{good}\n[[constraint]]\nname = \"stand still\"\ncall = \"move\"\n");
        assert!(parse(&none).map(|_| ()).unwrap_err().to_string().contains("breaks no constraint, found none"));
        let dear = good.replacen("says =", "cost = -1.0\nsays =", 1);
        assert!(parse(&dear).map(|_| ()).unwrap_err().to_string().contains("rule 1, cost"));
    }
}
