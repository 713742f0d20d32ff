//! Questions about the village and their answers: asked in many ways, understood, answered and graded.
//!
//! `questions.txt` holds the ways. A question is a [`Query`]; [`World::query`] reads one back from its words, so that an
//! answer, from whatever hand, can be judged: [`World::grade`].

mod forms;
#[cfg(test)]
mod tests;
mod tools;

pub use forms::{Asker, Form, Item};
pub use tools::tools;

use super::grammar::takes_an;
use super::lexicon::Kind;
use super::village::{Entity, Fact, Relation};
use super::{Verdict, World};

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// The value of a relation of somebody or something.
    Value(Relation, Entity),
    /// Who or what has a value.
    Find(Relation, Entity),
    /// How many have a value.
    Count(Relation, Entity),
    /// The value of the second relation of whoever is the value of the first: "the colour of the kite of her friend".
    Path(Relation, Relation, Entity),
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who or what it is; for a count, who or what was counted.
    pub entities: Vec<Entity>,
    /// The number, where it was asked for.
    pub count: Option<usize>,
    /// In short words.
    pub text: String,
}

/// One section of `questions.txt`.
#[derive(Debug)]
struct Section {
    what: What,
    relation: Relation,
    /// Ways to ask, and whether each is held out.
    asks: Vec<(&'static str, bool)>,
    sentences: Vec<&'static str>,
    short: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Value,
    Find,
    Count,
    Path,
}

/// All ways to ask and to answer.
#[derive(Debug)]
pub(super) struct Questions(Vec<Section>);

impl Questions {
    /// Reads `questions.txt`.
    ///
    /// # Panics
    /// On a mistake in that file, which is a part of this program and which every test reads.
    pub fn new() -> Questions {
        let mut all: Vec<Section> = Vec::new();
        let lines = include_str!("questions.txt").lines();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (mark, rest) = line.split_once(' ').expect("a mark and a text");
            match (mark, all.last_mut()) {
                ("?", Some(section)) => section.asks.push((rest, false)),
                ("?*", Some(section)) => section.asks.push((rest, true)),
                ("=", Some(section)) => section.sentences.push(rest),
                ("-", Some(section)) => section.short = rest,
                _ => all.push(Section {
                    what: match mark {
                        "value" => What::Value,
                        "find" => What::Find,
                        "count" => What::Count,
                        "path" => What::Path,
                        _ => panic!("no such section: {line}"),
                    },
                    relation: Relation::named(rest).unwrap_or_else(|| panic!("no relation {rest}")),
                    asks: Vec::new(),
                    sentences: Vec::new(),
                    short: "{o}",
                }),
            }
        }
        Questions(all)
    }

    fn section(&self, what: What, relation: Relation) -> &Section {
        let found = self.0.iter().find(|section| (section.what, section.relation) == (what, relation));
        found.expect("every relation that is asked for has a section")
    }

    fn of(&self, what: What) -> impl Iterator<Item = &Section> {
        self.0.iter().filter(move |section| section.what == what)
    }
}

/// Numbers in words.
const NUMBERS: [&str; 13] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

impl World {
    /// What `question` asks for, where it is one of the ways in which this world asks; `None` for everything else.
    pub fn query(&self, question: &str) -> Option<Query> {
        let question = question.trim();
        for section in &self.questions.0 {
            for (ask, _) in &section.asks {
                let Some((part, form)) = slot_text(ask, question) else { continue };
                let found = match section.what {
                    What::Path => None,
                    What::Value => self
                        .subject(part, form, section.relation)
                        .map(|e| Query::Value(section.relation, e))
                        .or_else(|| {
                            let (inner, e) = self.inner(part, form)?;
                            self.fact(inner, e).filter(|&mid| self.fact(section.relation, mid).is_some())?;
                            Some(Query::Path(inner, section.relation, e))
                        }),
                    What::Find => self.object(part, form, section.relation).map(|e| Query::Find(section.relation, e)),
                    What::Count => self.object(part, form, section.relation).map(|e| Query::Count(section.relation, e)),
                };
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Who or what a path such as `Nell's best friend` starts from, and the relation that it goes along.
    fn inner(&self, part: &str, form: &str) -> Option<(Relation, Entity)> {
        let part = if form == "s" { part.strip_suffix("'s")? } else { part };
        self.questions.of(What::Path).find_map(|section| {
            section.asks.iter().find_map(|(ask, _)| {
                let (name, form) = slot_text(ask, part)?;
                Some((section.relation, self.subject(name, form, section.relation)?))
            })
        })
    }

    /// The subject of a relation that is meant by `part` in a form.
    fn subject(&self, part: &str, form: &str, relation: Relation) -> Option<Entity> {
        let all = (0..self.village.len() as u16).map(Entity);
        all.filter(|&e| self.fact(relation, e).is_some())
            .find(|&e| self.said(e, form).is_some_and(|said| said.eq_ignore_ascii_case(part)))
    }

    fn object(&self, part: &str, form: &str, relation: Relation) -> Option<Entity> {
        let values = self.entities(relation.range());
        values.iter().copied().find(|&e| self.said(e, form).is_some_and(|said| said.eq_ignore_ascii_case(part)))
    }

    /// An entity in a form of `questions.txt`; `None` where it has no such form.
    fn said(&self, e: Entity, form: &str) -> Option<String> {
        let (name, kind) = (self.name(e), self.village.kind(e));
        let named = matches!(kind, Kind::Person | Kind::Animal | Kind::Place | Kind::Food);
        Some(match form {
            "" | "him" => name.to_owned(),
            "s" => format!("{name}'s"),
            "the" if named => name.to_owned(),
            "the" => format!("the {name}"),
            "a" if takes_an(name) => format!("an {name}"),
            "a" => format!("a {name}"),
            form => {
                let i = kind.forms().iter().position(|&f| f == form)?;
                self.village.text(e, i as u8).to_owned()
            }
        })
    }

    /// The answer to a query; `None` where the village does not say.
    pub fn solve(&self, query: Query) -> Option<Answer> {
        let holders = |relation, object| -> Vec<Entity> {
            (0..self.village.len() as u16).map(Entity).filter(|&e| self.fact(relation, e) == Some(object)).collect()
        };
        match query {
            Query::Value(relation, subject) => {
                let object = self.fact(relation, subject)?;
                let short = self.questions.section(What::Value, relation).short;
                let text = self.fill(short, subject, Some(object), false);
                Some(Answer { entities: vec![object], count: None, text })
            }
            Query::Path(inner, outer, subject) => self.solve(Query::Value(outer, self.fact(inner, subject)?)),
            Query::Find(relation, object) => {
                let entities = holders(relation, object);
                let text = match &entities[..] {
                    [] => "nobody".to_owned(),
                    all => self.list(all),
                };
                Some(Answer { entities, count: None, text })
            }
            Query::Count(relation, object) => {
                let entities = holders(relation, object);
                let n = entities.len();
                let text = NUMBERS.get(n).map_or(n.to_string(), |&word| word.to_owned());
                Some(Answer { entities, count: Some(n), text })
            }
        }
    }

    /// "Ada, Ben and Clara".
    fn list(&self, all: &[Entity]) -> String {
        let names: Vec<_> = all.iter().map(|&e| self.said(e, "the").unwrap_or_default()).collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    /// The short answer to a question that this world asks.
    pub fn answer(&self, question: &str) -> Option<String> {
        Some(capitalised(&self.solve(self.query(question)?)?.text))
    }

    /// Whether `reply` answers `question` rightly: it names what is asked for, or gives the number, and nothing else of that
    /// kind but what the question itself names. [`Verdict::Unknown`] where the reply names nothing of that kind, or the
    /// question is not understood.
    pub fn grade(&self, question: &str, reply: &str) -> Verdict {
        let Some(query) = self.query(question) else { return Verdict::Unknown };
        let Some(answer) = self.solve(query) else { return Verdict::Unknown };
        if let Some(count) = answer.count {
            let words = reply.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            let mut numbers = words.filter_map(|word| {
                let word = word.to_lowercase();
                let none = ["none", "nobody"].contains(&&*word).then_some(0);
                none.or_else(|| NUMBERS.iter().position(|n| *n == word)).or_else(|| word.parse().ok())
            });
            let Some(first) = numbers.next() else { return Verdict::Unknown };
            return if first == count { Verdict::True } else { Verdict::False };
        }
        // What the question or the way to the answer names is no answer.
        let (kind, asked) = match query {
            Query::Value(relation, e) => (relation.range(), [e, e]),
            Query::Path(inner, relation, e) => (relation.range(), [e, self.fact(inner, e).unwrap_or(e)]),
            Query::Find(Relation::Colour, e) => (Kind::Thing, [e, e]),
            Query::Find(_, e) | Query::Count(_, e) => (Kind::Person, [e, e]),
        };
        let reply = &reply.to_ascii_lowercase();
        let candidate = |e: Entity| !asked.contains(&e) && !self.name(e).contains('\'');
        let named: Vec<Entity> = self
            .entities(kind)
            .iter()
            .copied()
            .filter(|&e| (answer.entities.contains(&e) || candidate(e)) && self.mentions(reply, e))
            .collect();
        if named.is_empty() {
            let nobody = ["nobody", "no one", "none"].iter().any(|word| reply.contains(word));
            return if nobody && answer.entities.is_empty() { Verdict::True } else { Verdict::Unknown };
        }
        let right = named.len() == answer.entities.len() && answer.entities.iter().all(|e| named.contains(e));
        if right { Verdict::True } else { Verdict::False }
    }

    /// How good a reply to a question is: 1 for a right answer, −1 for a wrong one, 0 where it gives none; less the weights
    /// of its rude words.
    pub fn reward(&self, question: &str, reply: &str) -> f64 {
        let truth = match self.grade(question, reply) {
            Verdict::True => 1.0,
            Verdict::False => -1.0,
            Verdict::Unknown => 0.0,
        };
        truth - super::rude_words(reply).map(|(_, weight)| weight).sum::<f64>()
    }

    /// Whether `text`, in small letters, mentions an entity in whole words.
    fn mentions(&self, text: &str, e: Entity) -> bool {
        let forms: &[u8] = if matches!(self.village.kind(e), Kind::Hobby | Kind::Dream) { &[0, 1] } else { &[0] };
        forms.iter().any(|&form| {
            let word = self.village.text(e, form).to_ascii_lowercase();
            text.match_indices(&word).any(|(at, found)| {
                let edge = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
                edge(text[..at].chars().next_back()) && edge(text[at + found.len()..].chars().next())
            })
        })
    }

    /// A template of `questions.txt` with its slots filled; `he` for pronouns in place of the subject's name. Starts small.
    fn fill(&self, template: &str, subject: Entity, object: Option<Entity>, he: bool) -> String {
        self.fill_with(template, object, |form| {
            let village = &self.village;
            match (he, form) {
                (true, "") => village.text(subject, 2).to_owned(),
                (true, "him") => village.text(subject, 3).to_owned(),
                (true, "s") => village.text(subject, 4).to_owned(),
                _ => self.said(subject, form).unwrap_or_default(),
            }
        })
    }

    fn fill_with(&self, template: &str, object: Option<Entity>, subject: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, after) = after.split_once('}').expect("a closing brace");
            out.push_str(before);
            let (role, form) = slot.split_once(':').unwrap_or((slot, ""));
            match (role, object) {
                ("s", _) => out.push_str(&subject(form)),
                (_, Some(object)) => out.push_str(&self.said(object, form).unwrap_or_default()),
                (_, None) => {}
            }
            rest = after;
        }
        out + rest
    }
}

/// A question about a fixed fact, and its short answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// As it is asked.
    pub question: String,
    /// In short words, as they stand within a sentence.
    pub answer: String,
    /// What it asks for.
    pub relation: Relation,
    /// Of whom.
    pub subject: Entity,
    /// Whether it is about a held-out entity ([`World::held_out`]).
    pub held_out: bool,
    /// Whether it is asked in a way that training text never uses.
    pub paraphrase: bool,
}

impl World {
    /// Every way to ask for every fixed fact of everybody and everything, in a fixed order.
    pub fn lessons(&self) -> Vec<Lesson> {
        let mut lessons = Vec::new();
        for section in self.questions.of(What::Value) {
            for subject in (0..self.village.len() as u16).map(Entity) {
                let Some(answer) = self.solve(Query::Value(section.relation, subject)) else { continue };
                lessons.extend(section.asks.iter().map(|&(ask, paraphrase)| Lesson {
                    question: capitalised(&self.fill(ask, subject, None, false)),
                    answer: answer.text.clone(),
                    relation: section.relation,
                    subject,
                    held_out: self.held_out(subject),
                    paraphrase,
                }));
            }
        }
        lessons
    }
}

impl Query {
    /// The fact that a true answer states; none for those that count or list.
    fn fact(self, world: &World) -> Option<Fact> {
        let (relation, subject) = match self {
            Query::Value(relation, subject) => (relation, subject),
            Query::Path(inner, outer, subject) => (outer, world.fact(inner, subject)?),
            Query::Find(..) | Query::Count(..) => return None,
        };
        Some(Fact { relation, subject, object: world.fact(relation, subject)? })
    }
}

/// What stands in the slot of a template with one slot when `text` is one of its sentences, and the slot's form.
fn slot_text<'a>(template: &'a str, text: &'a str) -> Option<(&'a str, &'a str)> {
    let (before, rest) = template.split_once('{')?;
    let (slot, after) = rest.split_once('}')?;
    let (start, end) = (before.len(), text.len().checked_sub(after.len())?);
    let same = |part: Option<&str>, of: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(of));
    let found = same(text.get(..start), before) && same(text.get(end..), after);
    let part = text.get(start..end).filter(|part| found && !part.is_empty())?;
    Some((part, slot.split_once(':').map_or("", |(_, form)| form)))
}

/// With a capital at its start.
fn capitalised(text: &str) -> String {
    let mut text = text.to_owned();
    // Sentences may begin with a quotation mark.
    if let Some(at) = text.find(|c: char| c.is_ascii_alphabetic()) {
        text[at..=at].make_ascii_uppercase();
    }
    text
}
