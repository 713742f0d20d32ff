//! Reads text and judges the fixed facts that it states: the fact rules of the grammar, run backwards.

use super::World;
use super::grammar::{Alternative, Grammar, Op, ROLES, Slot, takes_an};
use super::lexicon::{HE_FORMS, Kind, SHE_FORMS};
use super::teller::name_form;
use super::village::{Entity, Fact, Relation};
use std::collections::HashMap;
use std::ops::Range;

/// Whether a claim agrees with the village.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is so.
    True,
    /// It is otherwise: the relation has another value, or the value belongs to somebody else.
    False,
    /// The village does not say: a strange name or word, or a relation that is undefined here.
    Unknown,
}

/// A fixed fact that a text states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The words that state it, in bytes of the text.
    pub span: Range<usize>,
    /// What they state; [`Entity::NONE`] stands for a name or word that the village does not know.
    pub fact: Fact,
    /// Whether it is so.
    pub verdict: Verdict,
}

/// Capitalised words that are no names.
const NO_NAMES: &[&str] = &[
    "It", "He", "She", "His", "Her", "They", "The", "There", "That", "This", "And", "But", "So", "Then", "Who", "What",
    "Everyone", "Nobody", "Somebody", "On", "One", "In", "When", "Now", "I", "You", "We",
];

/// Words in small letters that can mean a person or an animal.
const PRONOUNS: &[&str] = &["he", "she", "his", "her", "him"];

/// Which alternatives of fact rules can begin with a word: most words cannot begin most sentences.
#[derive(Debug, Default)]
pub(super) struct Openers {
    /// By rule and place in its list.
    all: Vec<(usize, usize)>,
    /// Those that begin with a word of their own, by that word in small letters.
    words: HashMap<String, Vec<usize>>,
    /// Those that begin with a person or an animal.
    beings: Vec<usize>,
    /// Those that may begin with anything.
    others: Vec<usize>,
}

/// How a template can begin.
enum First {
    Word(Vec<String>),
    Being,
    Any,
}

impl Openers {
    pub fn new(grammar: &Grammar) -> Openers {
        let mut openers = Openers::default();
        for (r, rule) in grammar.rules.iter().enumerate().filter(|(_, rule)| rule.fact && !rule.roles.is_empty()) {
            for (a, alternative) in
                rule.list.iter().enumerate().filter(|(_, alternative)| !alternative.needs.is_empty())
            {
                let i = openers.all.len();
                openers.all.push((r, a));
                match first(grammar, grammar.ops(alternative)) {
                    First::Word(words) => {
                        words.into_iter().for_each(|word| openers.words.entry(word).or_default().push(i))
                    }
                    First::Being => openers.beings.push(i),
                    First::Any => openers.others.push(i),
                }
            }
        }
        openers
    }

    /// The alternatives that can begin with `word`, in the order of the grammar.
    fn at(&self, word: &str) -> Vec<(usize, usize)> {
        let being = word.starts_with(|c: char| c.is_ascii_uppercase()) || PRONOUNS.contains(&word);
        let own = self.words.get(&word.to_ascii_lowercase()).map_or(&[][..], Vec::as_slice);
        let beings = if being { &self.beings[..] } else { &[] };
        let mut found = [own, beings, &self.others].concat();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|i| self.all[i]).collect()
    }
}

fn first(grammar: &Grammar, ops: &[Op]) -> First {
    match ops.first() {
        Some(&Op::Text { start, end, .. }) => {
            let literal = grammar.literal(start, end);
            let word = word_at(literal, 0);
            // A word that goes on in what follows is none.
            if word.len() == literal.len() { First::Any } else { First::Word(vec![word.to_ascii_lowercase()]) }
        }
        Some(Op::Article) => First::Word(vec!["a".into(), "an".into()]),
        Some(Op::Slot(slot)) if matches!(slot.kind, Kind::Person | Kind::Animal) => First::Being,
        Some(&Op::Call { rule, .. }) => {
            let mut words = Vec::new();
            for alternative in &grammar.rules[rule as usize].list {
                match first(grammar, grammar.ops(alternative)) {
                    First::Word(more) => words.extend(more),
                    // A bracket whose parts are whole words, as `[everyone|people]`, begins with these.
                    _ => match grammar.ops(alternative) {
                        &[Op::Text { start, end, .. }] if ops.len() > 1 => {
                            words.push(grammar.literal(start, end).to_ascii_lowercase());
                        }
                        _ => return First::Any,
                    },
                }
            }
            First::Word(words)
        }
        Some(Op::Slot(_)) | None => First::Any,
    }
}

/// The most claims of one match.
const CLAIMS: usize = 4;

/// What a partial match has found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    roles: [Option<Entity>; ROLES],
    claims: [(u8, Relation, Entity); CLAIMS],
    count: usize,
}

/// What remains to be matched, here and after a nested rule.
#[derive(Clone, Copy)]
struct Rest<'a> {
    ops: &'a [Op],
    map: [u8; ROLES],
    fact: bool,
    /// The rule is a whole sentence, in which a strange word can stand in a slot; else it is a phrase.
    whole: bool,
    next: Option<&'a Rest<'a>>,
}

pub(super) struct Reader<'a> {
    world: &'a World,
    text: &'a str,
    /// Whether sentences must be whole, and names and words those of the village.
    strict: bool,
    /// Every mention of a person or an animal by name: (where, who).
    names: Vec<(usize, Entity)>,
}

impl World {
    /// The fixed facts that `text` states in the ways that stories state them, each with its verdict, in order.
    ///
    /// A sentence counts where its words are those of a fact rule, with any names and words in the slots; "he" and "she"
    /// mean whoever of that gender was named last. Other ways of saying something are not seen.
    pub fn check(&self, text: &str) -> Vec<Claim> {
        let reader = Reader::new(self, text);
        let mut claims: Vec<Claim> = Vec::new();
        for at in word_starts(text) {
            for alternative in self.openers.at(word_at(text, at)) {
                let Some((end, found)) = reader.start(&self.grammar.rules[alternative.0].list[alternative.1], at)
                else {
                    continue;
                };
                for &(role, relation, object) in &found.claims[..found.count] {
                    let subject = found.roles[role as usize].unwrap_or(Entity::NONE);
                    let fact = Fact { relation, subject, object };
                    let again = claims.iter().rev().take(16).any(|c| c.fact == fact && c.span.end > at);
                    if !again && (subject, object) != (Entity::NONE, Entity::NONE) {
                        claims.push(Claim { span: at..end, fact, verdict: self.judge(fact) });
                    }
                }
            }
        }
        claims
    }

    /// Whether a fact is so in this village.
    pub fn judge(&self, fact: Fact) -> Verdict {
        if fact.subject == Entity::NONE || fact.object == Entity::NONE {
            return Verdict::Unknown;
        }
        let is = |subject| self.fact(fact.relation, subject) == Some(fact.object);
        let one_holder = matches!(fact.relation, Relation::Job | Relation::Work | Relation::Thing | Relation::Pet);
        match self.fact(fact.relation, fact.subject) {
            Some(object) if object == fact.object => Verdict::True,
            Some(_) => Verdict::False,
            None if one_holder && self.village.all(Kind::Person).iter().any(|&e| is(e)) => Verdict::False,
            None => Verdict::Unknown,
        }
    }
}

impl<'a> Reader<'a> {
    fn new(world: &'a World, text: &'a str) -> Reader<'a> {
        let mut names = Vec::new();
        for at in word_starts(text) {
            let word = word_at(text, at);
            let known = [Kind::Person, Kind::Animal].into_iter().flat_map(|kind| world.village.all(kind));
            names.extend(known.copied().find(|&e| world.village.text(e, 0) == word).map(|e| (at, e)));
        }
        Reader { world, text, strict: false, names }
    }

    /// One that takes no word for a name that the village does not know, and half a sentence for none.
    pub fn strict(world: &'a World, text: &'a str) -> Reader<'a> {
        Reader { strict: true, ..Reader::new(world, text) }
    }

    /// Matches a whole alternative at `at`; its end and what it found.
    pub fn start(&self, alternative: &Alternative, at: usize) -> Option<(usize, Found)> {
        let none = (0, Relation::Job, Entity::NONE);
        let found = Found { roles: [None; ROLES], claims: [none; CLAIMS], count: 0 };
        let map = std::array::from_fn(|i| i as u8);
        let ops = self.world.grammar.ops(alternative);
        let whole = !matches!(ops.last(), Some(Op::Slot(_)));
        self.ops(Rest { ops, map, fact: true, whole, next: None }, at, found)
    }

    fn ops(&self, rest: Rest, at: usize, found: Found) -> Option<(usize, Found)> {
        let Some((&op, ops)) = rest.ops.split_first() else {
            return match rest.next {
                Some(&next) => self.ops(next, at, found),
                None => (!self.continues(at)).then_some((at, found)),
            };
        };
        let after = Rest { ops, ..rest };
        match op {
            Op::Text { start, end, .. } => {
                let literal = self.world.grammar.literal(start, end);
                // A sentence may go on where the rule ends it.
                let last = !self.strict && ops.is_empty() && rest.next.is_none_or(|next| next.ops.is_empty());
                let literal = if last { literal.trim_end_matches('.') } else { literal };
                let end = self.literal(literal, at)?;
                self.ops(after, end, found)
            }
            Op::Article => {
                let an = self.literal("an ", at);
                let end = an.or_else(|| self.literal("a ", at))?;
                if self.strict && takes_an(&self.text[end..]) != an.is_some() {
                    return None;
                }
                self.ops(after, end, found)
            }
            Op::Call { rule, roles } => {
                let callee = &self.world.grammar.rules[rule as usize];
                let map = roles.map(|role| rest.map[role as usize]);
                callee.list.iter().find_map(|alternative| {
                    let ops = self.world.grammar.ops(alternative);
                    self.ops(Rest { ops, map, fact: callee.fact, whole: after.whole, next: Some(&after) }, at, found)
                })
            }
            Op::Slot(slot) => self.slot(slot, after, at, found),
        }
    }

    fn slot(&self, slot: Slot, after: Rest, at: usize, found: Found) -> Option<(usize, Found)> {
        let village = &self.world.village;
        let role = after.map[slot.role as usize];
        let bound = found.roles[role as usize].filter(|_| slot.relation.is_none());
        let fact = after.fact;
        let go_on = |end: usize, e: Entity| {
            let mut found = found;
            match slot.relation {
                None => found.roles[role as usize] = Some(e),
                Some(relation) if fact && found.count < CLAIMS => {
                    found.claims[found.count] = (role, relation, e);
                    found.count += 1;
                }
                Some(_) => {}
            }
            self.ops(after, end, found)
        };
        let kind = slot.kind;
        let form = if slot.auto { name_form(slot.form) } else { slot.form };
        let being = matches!(kind, Kind::Person | Kind::Animal);
        let plain = kind.forms()[form as usize].len() < 2;
        let identifies = plain || !being && (slot.relation.is_some() || kind == Kind::Place);
        if !identifies {
            // Such a word fits many: it is read over, right or wrong.
            let end = village.all(kind).iter().find_map(|&e| self.word(village.text(e, form), at))?;
            return self.ops(after, end, found);
        }
        let mut known = false;
        for &e in village.all(kind) {
            let Some(end) = self.word(village.text(e, form), at) else { continue };
            known = true;
            if bound.is_none_or(|b| b == e)
                && let Some(done) = go_on(end, e)
            {
                return Some(done);
            }
        }
        if slot.auto {
            let i = slot.form as usize - 2;
            for (female, forms) in [(true, SHE_FORMS), (false, HE_FORMS)] {
                let Some(end) = self.word(forms[i], at) else { continue };
                let before = &self.names[..self.names.partition_point(|&(place, _)| place < at)];
                let who = before.iter().rev().find(|&&(_, e)| village.female(e) == female);
                return who.filter(|who| village.kind(who.1) == kind).and_then(|who| go_on(end, who.1));
            }
        }
        // A strange word can be a name or a value; in other roles it makes it doubtful that this is about the village.
        let open = !self.strict && after.whole && plain && (being || slot.relation.is_some());
        if known || !open || bound.is_some_and(|b| b != Entity::NONE) {
            return None;
        }
        go_on(self.strange(kind, kind.forms()[form as usize], at)?, Entity::NONE)
    }

    /// The end of a word at `at` that could be one of this kind but that the village does not know.
    fn strange(&self, kind: Kind, form: &str, at: usize) -> Option<usize> {
        let name = matches!(kind, Kind::Person | Kind::Animal);
        let at = if kind == Kind::Place && form.is_empty() { self.literal("the ", at)? } else { at };
        let word = word_at(self.text, at);
        let upper = word.starts_with(|c: char| c.is_ascii_uppercase());
        let other = [Kind::Person, Kind::Animal]
            .iter()
            .any(|&k| self.world.village.all(k).iter().any(|&e| self.world.name(e) == word));
        if word.is_empty()
            || upper != (name || matches!(kind, Kind::Day | Kind::Month))
            || other
            || NO_NAMES.contains(&word)
        {
            return None;
        }
        if form == "s" { self.literal("'s", at + word.len()) } else { Some(at + word.len()) }
    }

    /// The end of `literal` at `at`, without regard to case.
    fn literal(&self, literal: &str, at: usize) -> Option<usize> {
        let end = at + literal.len();
        let same = self.text.as_bytes().get(at..end)?.eq_ignore_ascii_case(literal.as_bytes());
        same.then_some(end)
    }

    /// Like [`literal`](Self::literal) for a whole word or phrase; a capital in `word` must be one in the text.
    fn word(&self, word: &str, at: usize) -> Option<usize> {
        let end = self.literal(word, at).filter(|_| !word.is_empty())?;
        let capital = word.as_bytes()[0].is_ascii_uppercase();
        (!self.continues(end) && (!capital || self.text.as_bytes()[at].is_ascii_uppercase())).then_some(end)
    }

    fn continues(&self, at: usize) -> bool {
        self.text[..at].ends_with(char::is_alphanumeric) && self.text[at..].starts_with(char::is_alphanumeric)
    }
}

/// Where words, or quotation marks before them, begin.
fn word_starts(text: &str) -> impl Iterator<Item = usize> {
    let mut inside = false;
    text.char_indices().filter_map(move |(at, c)| {
        let word = c.is_alphanumeric() || c == '\'';
        let start = !inside && word || c == '"';
        inside = word;
        start.then_some(at)
    })
}

fn word_at(text: &str, at: usize) -> &str {
    let end = text[at..].find(|c: char| !c.is_ascii_alphabetic()).map_or(text.len(), |n| at + n);
    &text[at..end]
}
