//! Documents that ask: questions and answers, dialogues, instructions, preferences, tasks for tools.
//!
//! Document `n` is a pure function of (world, part, form, `n`). Its `nats` is −ln of the probability of the choices that
//! made it.

use super::super::choice::Chooser;
use super::super::lexicon::{self as lex, Kind};
use super::super::plant::{Hand, Planter, Truth};
use super::super::teller::Teller;
use super::super::village::{Entity, Fact, Relation};
use super::super::{Split, World};
use super::{Query, What, capitalised, tools};
use crate::rng::{Purpose, Rng};
use serde_json::{Value, json};

/// What documents of a corpus are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Stories.
    #[default]
    Stories,
    /// `question`, `answer`, and both as `text`.
    Qa,
    /// `messages` of a user and an assistant.
    Dialogues,
    /// `prompt` and `completion`.
    Instructions,
    /// `prompt`, and replies that are `chosen` and `rejected`.
    Preferences,
    /// `messages` with calls of `tools`, and what they gave.
    Tools,
    /// All fixed facts about somebody or something, as `text`: each in one of its ways, in any order.
    Portraits,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 7] =
        [Form::Stories, Form::Qa, Form::Dialogues, Form::Instructions, Form::Preferences, Form::Tools, Form::Portraits];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["stories", "qa", "dialogues", "instructions", "preferences", "tools", "portraits"][self as usize]
    }
}

/// A document that asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<'w> {
    /// Its fields, without id, source and metadata.
    pub body: Value,
    /// What it is about: the kind of question, task or fault.
    pub topic: &'static str,
    /// The truth; its facts are those that the right answer states.
    pub truth: Truth<'w>,
}

/// Asks about a world, in the ways and of the people of one part: [`Split::People`] asks of the held-out people, in the
/// same ways as training text does of the others; [`Split::Paraphrases`] asks of those others in held-out ways.
pub struct Asker<'w> {
    world: &'w World,
    split: Split,
    form: Form,
    /// What can be asked, by kind of question and relation: (query for an entity, entities).
    values: Vec<(Relation, Vec<Entity>)>,
    paths: Vec<((Relation, Relation), Vec<Entity>)>,
    finds: Vec<(Relation, Vec<Entity>)>,
    counts: Vec<(Relation, Vec<Entity>)>,
    strangers: Vec<&'static str>,
    /// Who and what has fixed facts.
    known: Vec<Entity>,
}

/// Relations that a question can go on to, from a person.
const OUTER: &[Relation] = &[
    Relation::Job,
    Relation::Home,
    Relation::Trait,
    Relation::Likes,
    Relation::Hobby,
    Relation::Fear,
    Relation::Month,
    Relation::Dream,
    Relation::Friend,
];

/// The fixed facts of an entity that can be stated, with their values.
fn facts(world: &World, e: Entity) -> impl Iterator<Item = (Relation, Entity)> + '_ {
    let stated = |relation: &Relation| {
        let section = world.questions.of(What::Value).find(|section| section.relation == *relation);
        section.is_some_and(|section| !section.sentences.is_empty())
    };
    let relations = Relation::ALL.iter().copied().filter(stated);
    relations.filter_map(move |relation| Some((relation, world.fact(relation, e)?)))
}

const REASONS: [&str; 4] = ["truth", "politeness", "relevance", "answer"];

impl<'w> Asker<'w> {
    /// Asks about `world`.
    pub fn new(world: &'w World, split: Split, form: Form) -> Asker<'w> {
        let held = split == Split::People;
        let all = || (0..world.village.len() as u16).map(Entity);
        let values = |&relation: &Relation| {
            let fits = |&e: &Entity| world.fact(relation, e).is_some() && world.held_out(e) == held;
            (relation, all().filter(fits).collect())
        };
        let of = |what| world.questions.of(what).map(|section| section.relation).collect::<Vec<_>>();
        let holders = |query| world.solve(query).map(|answer| answer.entities).unwrap_or_default();
        let list = |what: What, least: usize, most: usize| {
            let objects = |relation: Relation| {
                let fits = |&e: &Entity| {
                    let found = holders(Query::Find(relation, e));
                    (least..=most).contains(&found.len()) && found.iter().any(|&e| world.held_out(e)) == held
                };
                (relation, world.entities(relation.range()).iter().copied().filter(fits).collect::<Vec<_>>())
            };
            of(what).into_iter().map(objects).filter(|(_, objects)| !objects.is_empty()).collect::<Vec<_>>()
        };
        let mut paths = Vec::new();
        for inner in of(What::Path) {
            for &outer in OUTER.iter().filter(|&&outer| outer != inner) {
                let fits = |&e: &Entity| {
                    let mid = world.fact(inner, e);
                    mid.is_some_and(|mid| {
                        world.fact(outer, mid).is_some() && (world.held_out(e) || world.held_out(mid)) == held
                    })
                };
                paths.push(((inner, outer), all().filter(fits).collect::<Vec<_>>()));
            }
        }
        paths.retain(|(_, subjects)| !subjects.is_empty());
        let values: Vec<(Relation, Vec<Entity>)> = of(What::Value).iter().map(values).collect();
        let known = |name: &&&str| world.find(name).is_none();
        Asker {
            world,
            split,
            form,
            values: values.into_iter().filter(|(_, subjects)| !subjects.is_empty()).collect(),
            paths,
            known: all().filter(|&e| facts(world, e).next().is_some()).collect(),
            finds: list(What::Find, 1, 6),
            counts: list(What::Count, 0, 12),
            strangers: [lex::SHE, lex::HE, lex::SHE_LATER, lex::HE_LATER]
                .concat()
                .iter()
                .filter(known)
                .copied()
                .collect(),
        }
    }

    /// The buffers for one thread.
    pub fn hand(&self) -> Hand<'w> {
        Hand::new(self.world)
    }

    /// The name of document `n`.
    pub fn id(&self, n: u64) -> String {
        format!("{}{}-{n}", self.world.prefix(self.split), self.form.name())
    }

    /// Document `n`.
    pub fn item(&self, hand: &mut Hand<'w>, n: u64) -> Item<'w> {
        let Hand { teller, choice: c } = hand;
        let stream = self.world.stream(128 + 16 * self.split.stream() + self.form as u32);
        c.draw(Rng::new(self.world.seed, Purpose::World, stream, self.split.index(n)));
        let mut item = match self.form {
            Form::Stories => panic!("stories ask nothing"),
            Form::Qa => self.qa(c),
            Form::Dialogues => self.dialogue(c),
            Form::Instructions => self.instruction(c, teller, n),
            Form::Preferences => self.preference(c),
            Form::Tools => self.task(c),
            Form::Portraits => self.portrait(c),
        };
        item.truth.nats += c.nats();
        item.truth.id = self.id(n).into();
        item
    }

    // ---- Questions

    fn one<K: Copy>(c: &mut Chooser, from: &[(K, Vec<Entity>)]) -> (K, Entity) {
        let i = c.even(from.len());
        (from[i].0, c.one_of(&from[i].1))
    }

    fn query(&self, c: &mut Chooser) -> Query {
        let weights =
            [6, 2 * !self.paths.is_empty() as u32, !self.finds.is_empty() as u32, !self.counts.is_empty() as u32];
        match c.pick(4, weights.iter().sum(), |i| weights[i]) {
            0 => self.value(c),
            1 => {
                let ((inner, outer), e) = Self::one(c, &self.paths);
                Query::Path(inner, outer, e)
            }
            2 => {
                let (relation, e) = Self::one(c, &self.finds);
                Query::Find(relation, e)
            }
            _ => {
                let (relation, e) = Self::one(c, &self.counts);
                Query::Count(relation, e)
            }
        }
    }

    fn value(&self, c: &mut Chooser) -> Query {
        let (relation, e) = Self::one(c, &self.values);
        Query::Value(relation, e)
    }

    /// One of the ways of this part to ask.
    fn way(&self, c: &mut Chooser, what: What, relation: Relation) -> &'static str {
        let asks = &self.world.questions.section(what, relation).asks;
        let held = self.split == Split::Paraphrases && asks.iter().any(|&(_, held)| held);
        let fits = |i: usize| u32::from(asks[i].1 == held);
        asks[c.pick(asks.len(), (0..asks.len()).map(fits).sum(), fits)].0
    }

    /// The question; `he` for a pronoun in place of the name.
    fn question(&self, c: &mut Chooser, query: Query, he: bool) -> String {
        let w = self.world;
        match query {
            Query::Value(relation, e) => w.fill(self.way(c, What::Value, relation), e, None, he),
            Query::Find(relation, e) => w.fill(self.way(c, What::Find, relation), e, Some(e), false),
            Query::Count(relation, e) => w.fill(self.way(c, What::Count, relation), e, Some(e), false),
            Query::Path(inner, outer, e) => {
                let path = c.one_of(&w.questions.section(What::Path, inner).asks).0;
                let who = w.fill(path, e, None, he);
                let way = self.way(c, What::Value, outer);
                w.fill_with(way, None, |form| if form == "s" { format!("{who}'s") } else { who.clone() })
            }
        }
    }

    /// A whole sentence that answers; `instead` of the true value, where it is given.
    fn sentence(&self, c: &mut Chooser, query: Query, instead: Option<Entity>, he: bool) -> String {
        let w = self.world;
        let text = match (query, query.fact(w)) {
            (_, Some(fact)) => {
                let way = c.one_of(&w.questions.section(What::Value, fact.relation).sentences);
                // A pronoun would mean whoever the question named, and on a path that is somebody else.
                let he = he && matches!(query, Query::Value(..));
                w.fill(way, fact.subject, Some(instead.unwrap_or(fact.object)), he)
            }
            (Query::Count(..), _) => {
                c.one_of(&["the number was {}.", "the answer is {}.", "{} in all."]).replace("{}", &self.short(query))
            }
            _ => {
                c.one_of(&["it was {}.", "that was true of {}.", "the answer is {}."]).replace("{}", &self.short(query))
            }
        };
        capitalised(&text)
    }

    /// A fact in two different sentences.
    fn twice(&self, c: &mut Chooser, query: Query) -> Option<(String, String)> {
        let fact = query.fact(self.world)?;
        let ways = &self.world.questions.section(What::Value, fact.relation).sentences;
        let i = c.even(ways.len());
        let j = c.pick(ways.len(), ways.len() as u32 - 1, |j| u32::from(i != j));
        let say = |i: usize| capitalised(&self.world.fill(ways[i], fact.subject, Some(fact.object), false));
        Some((say(i), say(j)))
    }

    fn short(&self, query: Query) -> String {
        self.world.solve(query).map(|answer| answer.text).unwrap_or_default()
    }

    fn kind(query: Query) -> &'static str {
        match query {
            Query::Value(..) => "value",
            Query::Find(..) => "find",
            Query::Count(..) => "count",
            Query::Path(..) => "path",
        }
    }

    fn item_of(&self, query: Query, topic: &'static str, body: Value) -> Item<'w> {
        let facts = query.fact(self.world).map(|fact| self.world.named(fact)).into_iter().collect();
        let answer = Some(capitalised(&self.short(query)).into());
        Item { body, topic, truth: Truth { facts, answer, ..Truth::default() } }
    }

    /// A short or a long answer.
    fn reply(&self, c: &mut Chooser, query: Query, he: bool) -> String {
        if c.even(2) == 0 { capitalised(&self.short(query)) + "." } else { self.sentence(c, query, None, he) }
    }

    // ---- The forms

    pub(super) fn qa(&self, c: &mut Chooser) -> Item<'w> {
        let query = self.query(c);
        let question = capitalised(&self.question(c, query, false));
        let answer = self.reply(c, query, false);
        let text = format!("Question: {question}\nAnswer: {answer}");
        self.item_of(query, Self::kind(query), json!({"question": question, "answer": answer, "text": text}))
    }

    /// Everybody is portrayed, whatever the part: of held-out entities some ways to state a fact are reserved.
    fn portrait(&self, c: &mut Chooser) -> Item<'w> {
        let (w, e) = (self.world, c.one_of(&self.known));
        let mut left: Vec<(Relation, Entity)> = facts(w, e).collect();
        let (mut text, mut stated) = (String::new(), Vec::new());
        while !left.is_empty() {
            let (relation, object) = left.swap_remove(c.even(left.len()));
            let ways = &w.questions.section(What::Value, relation).sentences;
            let open = if w.held_out(e) { ways.len().div_ceil(2) } else { ways.len() };
            let he = w.kind(e) == Some(Kind::Person) && !text.is_empty() && c.even(3) == 0;
            let sentence = capitalised(&w.fill(ways[c.even(open)], e, Some(object), he));
            text += if text.is_empty() { "" } else { " " };
            text += &sentence;
            stated.push(w.named(Fact { relation, subject: e, object }));
        }
        Item { body: json!({"text": text}), topic: "portrait", truth: Truth { facts: stated, ..Truth::default() } }
    }

    fn dialogue(&self, c: &mut Chooser) -> Item<'w> {
        let mut messages = Vec::new();
        let mut say = |role: &str, content: String| messages.push(json!({"role": role, "content": content}));
        if c.even(3) == 0 {
            say("user", c.one_of(&["Hello!", "Good day.", "Hi, can I ask you something?"]).to_owned());
            say(
                "assistant",
                c.one_of(&["Hello! What would you like to know?", "Of course, ask me.", "Good day to you."]).to_owned(),
            );
        }
        if c.even(6) == 0 {
            let name = c.one_of(&self.strangers);
            let ask = ["Where did {} live?", "What was {}'s job?", "Who was {}'s best friend?", "Do you know {}?"];
            say("user", c.one_of(&ask).replace("{}", name));
            let reply = [
                "I do not know anybody called {}.",
                "There was nobody called {} in the village.",
                "I am sorry, I have never heard of {}.",
            ];
            say("assistant", c.one_of(&reply).replace("{}", name));
        }
        let first = self.query(c);
        let mut item = self.item_of(first, "dialogue", Value::Null);
        say("user", capitalised(&self.question(c, first, false)));
        say("assistant", self.reply(c, first, false));
        // More about the same person.
        if let Query::Value(asked, e) = first
            && self.world.kind(e) == Some(Kind::Person)
        {
            let about = self.values.iter().filter(|(relation, all)| *relation != asked && all.contains(&e));
            let mut about: Vec<Relation> = about.map(|&(relation, _)| relation).collect();
            for _ in 0..c.even(3) {
                let next = Query::Value(about.swap_remove(c.even(about.len())), e);
                let question = self.question(c, next, true);
                say("user", if c.even(2) == 0 { format!("And {question}") } else { capitalised(&question) });
                say("assistant", self.reply(c, next, true));
                item.truth.facts.extend(next.fact(self.world).map(|fact| self.world.named(fact)));
            }
        }
        if c.even(3) == 0 {
            say("user", c.one_of(&["Thank you!", "That is all, thank you.", "I see. Goodbye!"]).to_owned());
            say("assistant", c.one_of(&["You are welcome.", "Come back any time.", "Goodbye!"]).to_owned());
        }
        item.body = json!({"messages": messages});
        item
    }

    fn instruction(&self, c: &mut Chooser, teller: &mut Teller<'w>, n: u64) -> Item<'w> {
        let w = self.world;
        let kind = c.even(6);
        if kind == 0 {
            teller.tell_of(self.split, n);
            let name = w.name(teller.told_of());
            let ways = [
                "Tell me a story about {}.",
                "Write a short story about {}.",
                "I would like to hear a story about {}.",
                "What happened to {} one day?",
            ];
            let prompt = c.one_of(&ways).replace("{}", name);
            let facts = teller.facts().iter().map(|&fact| w.named(fact)).collect();
            let truth = Truth { nats: teller.nats(), facts, ..Truth::default() };
            return Item { body: json!({"prompt": prompt, "completion": teller.text()}), topic: "story", truth };
        }
        let query = if kind == 5 { self.query(c) } else { self.value(c) };
        let bare = |text: &str| text.trim_end_matches(['.', '?']).to_owned();
        let (topic, prompt, completion) = match kind {
            1 => {
                let lie = if c.even(2) == 0 { self.other(c, query) } else { None };
                let claim = self.sentence(c, query, lie, false);
                let prompt = c.one_of(&[
                    "Is it true? {} Answer yes or no.",
                    "True or not: {}",
                    "Somebody says: {} Is that right?",
                ]);
                let yes = if lie.is_none() {
                    "Yes.".to_owned()
                } else {
                    format!("No. {}", self.sentence(c, query, None, false))
                };
                ("judge", prompt.replace("{}", &claim), yes)
            }
            2 => {
                let lie = self.other(c, query);
                let claim = self.sentence(c, query, lie, false);
                let prompt = c.one_of(&[
                    "Correct this sentence: {}",
                    "There is a mistake in it. Correct it: {}",
                    "This is wrong: {} What is right?",
                ]);
                ("correct", prompt.replace("{}", &claim), self.sentence(c, query, None, false))
            }
            3 => {
                let Some((claim, again)) = self.twice(c, query) else { panic!("values are facts") };
                let prompt = c.one_of(&[
                    "Say it in other words: {}",
                    "Write this sentence in another way: {}",
                    "Put it differently: {}",
                ]);
                ("rewrite", prompt.replace("{}", &claim), again)
            }
            4 => {
                let question = capitalised(&self.question(c, query, false));
                let prompt =
                    c.one_of(&["{} Answer in a few words.", "Give a short answer. {}", "{} Only the answer, please."]);
                ("short answer", prompt.replace("{}", &question), capitalised(&self.short(query)))
            }
            _ => {
                let question = bare(&self.question(c, query, false));
                let prompt = c.one_of(&["Tell me: {}?", "I want to know: {}?", "Answer in a whole sentence: {}?"]);
                ("answer", prompt.replace("{}", &question), self.sentence(c, query, None, false))
            }
        };
        self.item_of(query, topic, json!({"prompt": prompt, "completion": completion}))
    }

    /// Another value than the true one.
    fn other(&self, c: &mut Chooser, query: Query) -> Option<Entity> {
        let fact = query.fact(self.world)?;
        let values = self.world.entities(fact.relation.range());
        // No houses of people: they are not what is asked for.
        let fits = |i: usize| {
            let e = values[i];
            u32::from(e != fact.object && e != fact.subject && !self.world.name(e).contains('\''))
        };
        Some(values[c.pick(values.len(), (0..values.len()).map(fits).sum(), fits)])
    }

    /// A question whose answer says nothing about that of `query`: of another relation, with another kind of values, of
    /// somebody else.
    fn elsewhere(&self, c: &mut Chooser, query: Query) -> Query {
        let Some(fact) = query.fact(self.world) else { return query };
        let others = self.values.iter().filter(|(relation, _)| relation.range() != fact.relation.range());
        let others: Vec<(Relation, Vec<Entity>)> = others
            .map(|(r, all)| (*r, all.iter().copied().filter(|e| ![fact.subject, fact.object].contains(e)).collect()))
            .filter(|(_, all): &(Relation, Vec<Entity>)| !all.is_empty())
            .collect();
        let (relation, e) = Self::one(c, &others);
        Query::Value(relation, e)
    }

    fn preference(&self, c: &mut Chooser) -> Item<'w> {
        let query = self.value(c);
        let prompt = capitalised(&self.question(c, query, false));
        let chosen = self.sentence(c, query, None, false);
        let reason = REASONS[c.even(REASONS.len())];
        let rejected = match reason {
            "truth" => {
                let lie = self.other(c, query);
                self.sentence(c, query, lie, false)
            }
            "politeness" => {
                let people = self.world.entities(Kind::Person);
                let (x, y) = (self.world.name(c.one_of(people)), self.world.name(c.one_of(people)));
                let rude = Planter::rude(c, x, y);
                format!("{} {rude}", self.sentence(c, query, None, false))
            }
            "relevance" => {
                let other = self.elsewhere(c, query);
                self.sentence(c, other, None, false)
            }
            _ => c
                .one_of(&["I do not know.", "That is a good question.", "Somebody in the village knows that."])
                .to_owned(),
        };
        let rewards = [&chosen, &rejected].map(|reply| self.world.reward(&prompt, reply));
        let mut item = self.item_of(query, reason, json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}));
        item.truth.rewards = Some(rewards);
        item
    }

    fn task(&self, c: &mut Chooser) -> Item<'w> {
        let query = self.query(c);
        let mut messages = vec![json!({"role": "user", "content": capitalised(&self.question(c, query, false))})];
        for (name, arguments) in self.world.calls(query) {
            let result = self.world.call(name, &arguments).expect("a right call");
            messages.push(json!({"role": "assistant", "content": "",
                "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}));
            messages.push(json!({"role": "tool", "name": name, "content": result.to_string()}));
        }
        messages.push(json!({"role": "assistant", "content": self.sentence(c, query, None, false)}));
        self.item_of(query, Self::kind(query), json!({"messages": messages, "tools": tools()}))
    }
}
