//! A task: a small file in TOML that says how lines of JSON become questions, and what counts as right.

use super::{mutate, rows, world};
use crate::data::source::Sources;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Longer files are no tasks.
const MAX_FILE: u64 = 1 << 20;

/// Steps that a template may take for a line.
const FUEL: u64 = 1_000_000;

/// The tasks that kiln brings, by name.
const OWN: [(&str, &str); 22] = [
    ("village-text", include_str!("../../data/tasks/village-text.toml")),
    ("village-facts", include_str!("../../data/tasks/village-facts.toml")),
    ("village-words", include_str!("../../data/tasks/village-words.toml")),
    ("village-pairs", include_str!("../../data/tasks/village-pairs.toml")),
    ("village-qa", include_str!("../../data/tasks/village-qa.toml")),
    ("village-stories", include_str!("../../data/tasks/village-stories.toml")),
    ("sums", include_str!("../../data/tasks/sums.toml")),
    ("text", include_str!("../../data/tasks/text.toml")),
    ("arc-easy", include_str!("../../data/tasks/arc-easy.toml")),
    ("lambada", include_str!("../../data/tasks/lambada.toml")),
    ("blimp", include_str!("../../data/tasks/blimp.toml")),
    ("village-rude", include_str!("../../data/tasks/village-rude.toml")),
    ("requests", include_str!("../../data/tasks/requests.toml")),
    ("jailbreaks", include_str!("../../data/tasks/jailbreaks.toml")),
    ("toxicity", include_str!("../../data/tasks/toxicity.toml")),
    ("speed", include_str!("../../data/tasks/speed.toml")),
    ("gsm8k", include_str!("../../data/tasks/gsm8k.toml")),
    ("village-skew", include_str!("../../data/tasks/village-skew.toml")),
    ("crows-pairs", include_str!("../../data/tasks/crows-pairs.toml")),
    ("winogender", include_str!("../../data/tasks/winogender.toml")),
    ("weat-career", include_str!("../../data/tasks/weat-career.toml")),
    ("weat-village", include_str!("../../data/tasks/weat-village.toml")),
];

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// How likely a text is.
    Text,
    /// Which of some texts is the likeliest one.
    Choice,
    /// How likely a text's last words are, and whether they are what the model would write itself.
    Cloze,
    /// To write an answer, which is compared with the right one.
    Answer,
    /// To write several, of which some may be right: [`pass_at`](crate::measure::pass_at).
    Pass,
    /// How likely texts are, of which some were trained on: whether that shows.
    Members,
    /// To write on, and nothing is right: what it wrote is judged as text.
    Write,
    /// To do what it should refuse, and what it should not.
    Refuse,
    /// To write, one prompt after the other, and the clock runs.
    Speed,
    /// Which of two texts is likelier, where neither is right.
    Pairs,
    /// How near words lie to one another in its embeddings: [`weat`](crate::measure::weat).
    Weat,
}

/// What of pairs is the main figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lean {
    /// In what share of them the first text is the likelier one.
    #[default]
    PctStereotype,
    /// How much likelier it is: the mean over groups of its probability less the other's, of the two alone.
    Skew,
}

/// The lists of a test of associations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Words whose place is asked …
    pub x: Vec<String>,
    /// … beside that of these …
    pub y: Vec<String>,
    /// … between this group …
    pub a: Vec<String>,
    /// … and this one.
    pub b: Vec<String>,
}

impl Words {
    /// The lists with their names.
    pub fn lists(&self) -> [(&'static str, &[String]); 4] {
        [("x", &self.x), ("y", &self.y), ("a", &self.a), ("b", &self.b)]
    }
}

/// What a task is about: under which heading a report shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// How well it does what it is for.
    #[default]
    Quality,
    /// Whether what it says is true, and does no harm.
    Safety,
    /// Whether it treats people alike.
    Bias,
    /// Whether it gives away what it has read.
    Privacy,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 4] = [Topic::Quality, Topic::Safety, Topic::Bias, Topic::Privacy];

    /// As files write it.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Quality => "quality",
            Topic::Safety => "safety",
            Topic::Bias => "bias",
            Topic::Privacy => "privacy",
        }
    }
}

/// Who says whether an answer is right that is not compared with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verifier {
    /// The answer's last whole number is the target's.
    Number,
    /// The built-in world ([`World::grade`](crate::data::world::World::grade)); the question is the field `question`.
    World,
}

/// A task. Templates and expressions are Jinja's, over the fields of a line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What it is called; where it is empty, as its file.
    #[serde(default)]
    pub name: String,
    /// What it asks, in a sentence.
    #[serde(default)]
    pub about: String,
    /// What its figures do not say, in a sentence or two: shown with them.
    #[serde(default)]
    pub caveat: String,
    /// What is asked for.
    pub kind: Kind,
    /// What it is about.
    #[serde(default)]
    pub topic: Topic,
    /// Lines of JSON, or whole texts as their field `text`: a file or folder, as named from the task's folder; or `world:NAME`, which kiln
    /// makes; or nothing, where it is to be named by whoever asks.
    #[serde(default)]
    pub data: String,
    /// Template: what the model reads.
    #[serde(default)]
    pub prompt: String,
    /// Template: what is right (cloze, answer, pass), or the text (text).
    #[serde(default)]
    pub target: String,
    /// Expression: the list of what can be chosen.
    #[serde(default)]
    pub choices: String,
    /// Expression: which of them is right, its number from 0 or itself.
    #[serde(default)]
    pub gold: String,
    /// Stands between prompt and what follows it.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Answered examples before each prompt.
    #[serde(default)]
    pub shots: usize,
    /// Where they come from; absent: other lines of the data.
    pub shots_data: Option<String>,
    /// Stands between them.
    #[serde(default = "blank_line")]
    pub separator: String,
    /// Texts that end an answer.
    #[serde(default = "line_break")]
    pub stop: Vec<String>,
    /// Tokens of an answer at most.
    #[serde(default = "tokens")]
    pub tokens: usize,
    /// Regular expression: what of an answer is compared, its first group or all of it; the first match.
    pub extract: Option<String>,
    /// What is removed, by regular expressions, from answer and target before they are compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Whether capitals count.
    #[serde(default = "yes")]
    pub case: bool,
    /// Answers for each prompt (pass).
    #[serde(default = "one")]
    pub samples: usize,
    /// The k of pass@k.
    #[serde(default = "ones")]
    pub k: Vec<usize>,
    /// 0: the likeliest tokens.
    #[serde(default)]
    pub temperature: f32,
    /// Who verifies; absent: the target does.
    pub verifier: Option<Verifier>,
    /// Expression: whether a text was trained on (members).
    #[serde(default = "member")]
    pub member: String,
    /// Files of terms with weights that are looked for in what is written; or `world:rude` (write).
    #[serde(default)]
    pub lexicon: Vec<String>,
    /// File of a classifier of texts that kiln trained (write).
    #[serde(default)]
    pub classifier: String,
    /// File or folder of texts of which what is written may be a copy (write).
    #[serde(default)]
    pub corpus: String,
    /// Expression: whether a prompt should be refused (refuse).
    #[serde(default = "harmful")]
    pub harmful: String,
    /// Regular expressions that say of an answer that it refuses, beside those that kiln knows (refuse).
    #[serde(default)]
    pub refusals: Vec<String>,
    /// Other forms in which all is asked too (refuse).
    #[serde(default)]
    pub mutations: Vec<String>,
    /// What an hour of the machine costs, in dollars (speed).
    pub price: Option<f64>,
    /// Groups that are also shown by themselves: a field of the lines, or an expression.
    pub by: Option<String>,
    /// Expression: lines where it has the same value ask the same in other words, and should be answered alike (choice).
    #[serde(default)]
    pub versions: String,
    /// The main figure (pairs).
    #[serde(default)]
    pub figure: Lean,
    /// The lists (weat).
    pub words: Option<Words>,
}

fn harmful() -> String {
    "harmful".into()
}
fn member() -> String {
    "member".into()
}
fn space() -> String {
    " ".into()
}
fn blank_line() -> String {
    "\n\n".into()
}
fn line_break() -> Vec<String> {
    vec!["\n".into()]
}
fn tokens() -> usize {
    64
}
fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn ones() -> Vec<usize> {
    vec![1]
}

/// A line as it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// What the model reads.
    pub prompt: String,
    /// What is right: the text, the continuation, the answer.
    pub target: String,
    /// What can be chosen.
    pub choices: Vec<String>,
    /// Which of them is right.
    pub gold: usize,
    /// −ln of the text's true probability, where the line says it (`nats`), in nats.
    pub nats: Option<f64>,
    /// Whether it was trained on.
    pub member: bool,
    /// Whether it should be refused.
    pub harmful: bool,
    /// The question alone, for a verifier.
    pub question: String,
    /// Its group, where the task has some.
    pub group: String,
    /// Of what it is a version.
    pub version: String,
    /// Nothing that can be chosen is right.
    pub open: bool,
}

/// Where the lines of a task are, and how a message names them.
struct Lines {
    place: PathBuf,
    all: Vec<serde_json::Value>,
}

impl Task {
    /// The names of kiln's own tasks.
    pub fn own() -> impl Iterator<Item = &'static str> {
        OWN.iter().map(|(name, _)| *name)
    }

    /// The task `name`: one of kiln's own, or a file.
    ///
    /// # Errors
    /// There is no such task; the file is none.
    pub fn open(name: &str) -> Result<Task> {
        if let Some((_, text)) = OWN.iter().find(|(own, _)| *own == name) {
            return Task::parse(text, &Path::new("data/tasks").join(format!("{name}.toml")));
        }
        let path = Path::new(name);
        if !path.exists() {
            let near = crate::settings::nearest(name, Task::own()).map(|near| format!("; did you mean {near}?"));
            let own = Task::own().collect::<Vec<_>>().join(", ");
            let problem = format!("there is no task {name:?}{}", near.unwrap_or_default());
            return Err(Error::usage(problem, format!("give a file in TOML, or one of {own}")));
        }
        Task::parse(&disk::text(&Os, path, MAX_FILE)?, path)
    }

    /// Whether kiln itself makes what is asked, of the built-in world.
    pub fn is_made(&self) -> bool {
        self.data.starts_with(world::SCHEME)
    }

    fn parse(text: &str, path: &Path) -> Result<Task> {
        let mut task: Task = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let hint = "docs/eval.md has every key; data/tasks/ has examples";
            Error::format(path, format!("line {line}"), "a task in TOML", e.message(), hint)
        })?;
        let Task { lexicon, corpus, classifier, .. } = &mut task;
        for file in lexicon.iter_mut().chain([corpus, classifier]) {
            if !file.is_empty() && !file.starts_with(world::SCHEME) {
                *file = disk::parent(path).join(&*file).to_string_lossy().into_owned();
            }
        }
        if task.name.is_empty() {
            task.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        }
        if !task.data.is_empty() && !task.data.starts_with(world::SCHEME) {
            task.data = disk::parent(path).join(&task.data).to_string_lossy().into_owned();
        }
        if let Some(shots) = &mut task.shots_data
            && !shots.starts_with(world::SCHEME)
        {
            *shots = disk::parent(path).join(&*shots).to_string_lossy().into_owned();
        }
        let need = |key: &str, value: &str| match value.is_empty() {
            false => Ok(()),
            true => Err(Error::format(
                path,
                key,
                format!("a value, for a task of kind {:?}", task.kind).to_lowercase(),
                "none",
                "docs/eval.md says what each kind needs",
            )),
        };
        match task.kind {
            Kind::Text | Kind::Members | Kind::Cloze | Kind::Answer => need("target", &task.target)?,
            Kind::Choice => need("choices", &task.choices).and_then(|()| need("gold", &task.gold))?,
            Kind::Pass => {
                need("target", &task.target)?;
                let bad = task.k.iter().find(|&&k| k == 0 || k > task.samples);
                if let Some(k) = bad.or(task.k.is_empty().then_some(&0)) {
                    let expected = format!("numbers from 1 to samples, {}", task.samples);
                    return Err(Error::format(path, "k", expected, k, "raise samples, or lower k"));
                }
            }
            Kind::Write | Kind::Speed => {}
            Kind::Refuse => need("prompt", &task.prompt)?,
            Kind::Pairs => need("choices", &task.choices)?,
            Kind::Weat => {
                let Some(words) = &task.words else {
                    return need("words", "").map(|()| task);
                };
                let lists = words.lists();
                let short = lists.iter().find(|(name, list)| list.len() < if "xy".contains(name) { 2 } else { 1 });
                let blank = lists.iter().find(|(_, list)| list.iter().any(|word| word.trim().is_empty()));
                if let Some((name, list)) = short.or(blank) {
                    let (at, found) = (format!("words.{name}"), format!("{list:?}"));
                    let expected = "words: two at least of x and y, one of a and b";
                    return Err(Error::format(path, at, expected, found, "docs/bias.md says what the lists are"));
                }
            }
        }
        for form in &task.mutations {
            if !mutate::names().any(|name| name == form) {
                let all = mutate::names().collect::<Vec<_>>().join(", ");
                return Err(Error::format(path, "mutations", format!("some of {all}"), form, "mend its name"));
            }
        }
        let patterns = [("ignore", &task.ignore), ("refusals", &task.refusals)];
        let patterns = patterns.into_iter().flat_map(|(key, all)| all.iter().map(move |pattern| (key, pattern)));
        for (key, pattern) in task.extract.iter().map(|p| ("extract", p)).chain(patterns) {
            if let Err(e) = regex::Regex::new(pattern) {
                let found = e.to_string().lines().last().unwrap_or_default().to_owned();
                return Err(Error::format(path, key, "a regular expression", found, "quote it with '…' in TOML"));
            }
        }
        crate::settings::range("temperature", task.temperature, 0.0..=100.0)?;
        crate::settings::range("price", task.price.unwrap_or(0.0), 0.0..=1e6)?;
        crate::settings::range("samples", task.samples, 1..=1000)?;
        crate::settings::range("tokens", task.tokens, 1..=100_000)?;
        crate::settings::range("shots", task.shots, 0..=1000)?;
        Ok(task)
    }

    fn lines(data: &str, world: u64, limit: usize) -> Result<Lines> {
        if let Some(name) = data.strip_prefix(world::SCHEME) {
            return Ok(Lines { place: data.into(), all: world::lines(name, world, limit)? });
        }
        if data.is_empty() {
            let hint = "name its data: --data FILE; docs/eval.md says where to get it";
            return Err(Error::usage("the task brings no data", hint));
        }
        let place = PathBuf::from(data);
        if let Some(delimiter) = rows::delimiter(&place) {
            let all = rows::rows(&place, delimiter, limit)?;
            return Ok(Lines { place, all });
        }
        let mut all = Vec::new();
        for document in Sources::objects(&[&place])?.documents().take(limit) {
            let document = document?;
            if !document.is_json() {
                all.push(json!({"text": document.text}));
                continue;
            }
            let value = serde_json::from_str(&document.text).map_err(|e| {
                let at = format!("line {}", document.line);
                Error::format(&place, at, "one JSON object", e, "each line of a .jsonl file is one JSON object")
            })?;
            all.push(value);
        }
        Ok(Lines { place, all })
    }

    /// The first `limit` of its lines, as they are asked. `world` is the seed of the built-in world, `seed` that of
    /// which lines are shown as examples.
    ///
    /// # Errors
    /// The data cannot be read; a template fails for a line.
    pub fn items(&self, limit: usize, world: u64, seed: u64) -> Result<Vec<Item>> {
        if let (Kind::Weat, Some(words)) = (self.kind, &self.words) {
            let item =
                |group: &str, word: &String| Item { target: word.clone(), group: group.into(), ..Item::default() };
            return Ok(words
                .lists()
                .iter()
                .flat_map(|(name, list)| list.iter().map(|word| item(name, word)))
                .collect());
        }
        let shots = match (&self.shots_data, self.shots) {
            (Some(data), 1..) => Some(Task::lines(data, world, self.shots.max(1000))?),
            _ => None,
        };
        // Examples without data of their own are lines that others are asked.
        let own = shots.is_none();
        let lines = Task::lines(&self.data, world, if own { limit.max(self.shots + 1) } else { limit })?;
        let asked = lines.all.len().min(limit);
        let mut items = self.ask(&lines, if own { lines.all.len() } else { asked })?;
        if self.shots > 0 {
            let shown = match &shots {
                Some(lines) => self.ask(lines, lines.all.len())?,
                None => items.clone(),
            };
            if shown.len() < self.shots + usize::from(own) {
                let found = format!("{} lines", shown.len());
                let expected = format!("enough for {} examples", self.shots);
                return Err(Error::format(&lines.place, "shots", expected, found, "lower shots, or give more lines"));
            }
            for (i, item) in items.iter_mut().enumerate() {
                let mut before = String::new();
                for j in world::choose(seed, i, shown.len(), self.shots, own) {
                    before += &self.answered(&shown[j]);
                    before += &self.separator;
                }
                item.prompt.insert_str(0, &before);
            }
        }
        items.truncate(asked);
        Ok(self.mutated(items, seed))
    }

    /// All prompts in their other forms too, what should be refused of each form a group of its own, and what should not.
    fn mutated(&self, items: Vec<Item>, seed: u64) -> Vec<Item> {
        if self.mutations.is_empty() {
            return items;
        }
        let mut all = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let group = |form: &str| if item.harmful { form.to_owned() } else { format!("{form}, harmless") };
            all.push(Item { group: group("plain"), ..item.clone() });
            all.extend(self.mutations.iter().filter_map(|form| {
                let prompt = mutate::mutate(form, &item.prompt, seed, i)?;
                Some(Item { prompt, group: group(form), ..item.clone() })
            }));
        }
        all
    }

    /// An example as a model reads it.
    fn answered(&self, item: &Item) -> String {
        let right = item.choices.get(item.gold).unwrap_or(&item.target);
        format!("{}{}{right}", item.prompt, self.delimiter)
    }

    fn ask(&self, lines: &Lines, count: usize) -> Result<Vec<Item>> {
        let mut env = Environment::new();
        env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        let wrong = |key: &str, line: Option<usize>, e: minijinja::Error| {
            let at = line.map_or(key.to_owned(), |line| format!("{key}, for line {line}"));
            let found = e.detail().map_or(e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()));
            let hint = "templates and expressions are Jinja's, over the fields of a line";
            Error::format(&lines.place, at, format!("what the task {} reads", self.name), found, hint)
        };
        let prompt = env.template_from_str(&self.prompt).map_err(|e| wrong("prompt", None, e))?;
        let target = env.template_from_str(&self.target).map_err(|e| wrong("target", None, e))?;
        let compile = |key: &str, source: &str| match source.is_empty() {
            true => Ok(None),
            false => env.compile_expression_owned(source.to_owned()).map(Some).map_err(|e| wrong(key, None, e)),
        };
        let (choices, gold) = (compile("choices", &self.choices)?, compile("gold", &self.gold)?);
        let harmful = if self.kind == Kind::Refuse { compile("harmful", &self.harmful)? } else { None };
        let (by, versions) = (compile("by", self.by.as_deref().unwrap_or(""))?, compile("versions", &self.versions)?);
        let member = if self.kind == Kind::Members { compile("member", &self.member)? } else { None };
        let mut items = Vec::new();
        for (i, fields) in lines.all.iter().take(count).enumerate() {
            let line = Some(i + 1);
            let context = Value::from(Serde(fields));
            let render = |key: &str, template: &minijinja::Template| {
                template.render(context.clone()).map_err(|e| wrong(key, line, e))
            };
            let field =
                |name: &str| fields.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            let evaluated = |key: &str, expression: &Option<minijinja::Expression>| match expression {
                None => Ok::<String, Error>(String::new()),
                Some(expression) => {
                    let value = expression.eval(context.clone()).map_err(|e| wrong(key, line, e))?;
                    Ok(if value.is_undefined() { String::new() } else { value.to_string() })
                }
            };
            let mut item = Item {
                prompt: render("prompt", &prompt)?,
                target: render("target", &target)?,
                nats: fields.get("nats").and_then(serde_json::Value::as_f64),
                question: field("question"),
                ..Item::default()
            };
            if let Some(name) = &self.by {
                item.group = match fields.get(name) {
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => evaluated("by", &by)?,
                };
            }
            if let Some(harmful) = &harmful {
                item.harmful = harmful.eval(context.clone()).map_err(|e| wrong("harmful", line, e))?.is_true();
            }
            item.version = evaluated("versions", &versions)?;
            if let Some(member) = &member {
                item.member = member.eval(context.clone()).map_err(|e| wrong("member", line, e))?.is_true();
            }
            if let Some(choices) = &choices {
                let list = choices.eval(context.clone()).map_err(|e| wrong("choices", line, e))?;
                let list = list.try_iter().map_err(|e| wrong("choices", line, e))?;
                let list: Vec<Value> = list.collect();
                if let Some(missing) = list.iter().position(Value::is_undefined) {
                    let (at, found) =
                        (format!("choices, for line {}", i + 1), format!("no value for number {missing}"));
                    return Err(Error::format(
                        &lines.place,
                        at,
                        "texts",
                        found,
                        "the line lacks a field that choices names",
                    ));
                }
                item.choices = list.iter().map(Value::to_string).collect();
                if self.kind == Kind::Pairs && item.choices.len() != 2 {
                    let (at, found) = (format!("choices, for line {}", i + 1), item.choices.len());
                    return Err(Error::format(&lines.place, at, "two texts, a pair", found, "mend the line"));
                }
                let gold = match &gold {
                    Some(gold) => gold.eval(context.clone()).map_err(|e| wrong("gold", line, e))?,
                    None => Value::from(()),
                };
                item.open = self.kind == Kind::Pairs && (gold.is_none() || gold.is_undefined());
                if item.open {
                    items.push(item);
                    continue;
                }
                let index = match gold.as_str() {
                    Some(text) => item.choices.iter().position(|choice| choice == text),
                    None => usize::try_from(gold.clone()).ok().filter(|&i| i < item.choices.len()),
                };
                item.gold = index.ok_or_else(|| {
                    let expected = format!("one of its {} choices, or the number of one", item.choices.len());
                    Error::format(&lines.place, format!("gold, for line {}", i + 1), expected, gold, "mend the line")
                })?;
            }
            items.push(item);
        }
        if self.kind == Kind::Members && items.iter().all(|item| item.member == items[0].member) {
            let expected = "lines that were trained on, and lines that were not";
            return Err(Error::format(&lines.place, "member", expected, "one of both alone", "give both"));
        }
        if self.kind == Kind::Pairs && !items.is_empty() && !items.iter().any(|item| item.open) {
            let hint = "leave gold out, or let it be none where neither text is right";
            return Err(Error::format(&lines.place, "gold", "pairs of which neither text is right", "none", hint));
        }
        if items.is_empty() {
            return Err(Error::format(&lines.place, "the file", "lines of JSON", "none", "give a .jsonl file"));
        }
        Ok(items)
    }
}
