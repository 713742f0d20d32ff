//! Writes sentences: walks a compiled template, fills its slots, keeps track of who a pronoun would mean.

use super::choice::Chooser;
use super::grammar::{Alternative, Form, Op, ROLES, RULES, Rule, Slot, takes_an};
use super::lexicon::Kind;
use super::state::{Event, State};
use super::village::{Entity, Fact, Relation};
use super::{Era, Split, World, plots};
use crate::rng::{Purpose, Rng};
use std::ops::Range;

/// Tells stories into buffers that it keeps: nothing is allocated per word, and hardly anything per story.
pub struct Teller<'w> {
    pub(super) world: &'w World,
    pub(super) choice: Chooser,
    pub(super) state: State,
    text: String,
    hero: Entity,
    /// The plot.
    topic: &'static str,
    /// Where each sentence that a rule wrote starts.
    starts: Vec<usize>,
    facts: Vec<Fact>,
    /// The sentence that states each fact.
    spans: Vec<Range<usize>>,
    /// The part of the world that the story belongs to.
    split: Split,
    /// A fact that is told in place of the true one.
    lie: Option<Fact>,
    /// The next word starts a sentence.
    caps: bool,
    /// An article waits for the word that decides between `a` and `an`.
    article: bool,
    /// Who was mentioned in the last and in this sentence, as bits, by gender.
    last: [u64; 2],
    now: [u64; 2],
    /// The alternatives of each rule that this story has used.
    used: [u128; RULES],
    /// A text to follow: (text, how much of it is known to be equal).
    target: Option<(&'w str, usize)>,
}

impl<'w> Teller<'w> {
    pub(super) fn new(world: &'w World) -> Teller<'w> {
        Teller {
            world,
            choice: Chooser::new(),
            state: State::default(),
            text: String::new(),
            hero: Entity::NONE,
            topic: "",
            starts: Vec::new(),
            facts: Vec::new(),
            spans: Vec::new(),
            split: Split::Train,
            lie: None,
            caps: false,
            article: false,
            last: [0; 2],
            now: [0; 2],
            used: [0; RULES],
            target: None,
        }
    }

    /// Tells story `index` of the world, in place of the one before.
    pub fn tell(&mut self, index: u64) {
        (self.split, self.lie) = (Split::Train, None);
        self.draw(index);
    }

    /// Tells story `n` of a part of the world's stories.
    pub fn tell_of(&mut self, split: Split, n: u64) {
        (self.split, self.lie) = (split, None);
        self.draw(split.index(n));
    }

    /// Tells story `n` of a part once more, with `lie` in place of the true fact wherever it shows.
    pub(super) fn lie(&mut self, split: Split, n: u64, lie: Fact) {
        (self.split, self.lie) = (split, Some(lie));
        self.draw(split.index(n));
    }

    fn draw(&mut self, index: u64) {
        let stream = self.world.stream(1 + self.split.stream());
        self.choice.draw(Rng::new(self.world.seed, Purpose::World, stream, index));
        self.run();
    }

    /// All derivations of `text` as a story of a part of the world: −ln of the probability of each, in nats.
    pub(super) fn derivations(&mut self, split: Split, text: &'w str) -> Vec<f64> {
        let mut found = Vec::new();
        (self.split, self.lie) = (split, None);
        self.choice = Chooser::new();
        while self.choice.walk() {
            self.target = Some((text, 0));
            self.run();
            self.follow();
            if !self.choice.stopped() && self.text == text {
                found.push(self.choice.nats());
            }
        }
        self.target = None;
        found
    }

    /// How many bytes of `text` some story of a part of the world begins with.
    pub(super) fn reach(&mut self, split: Split, text: &'w str) -> usize {
        let mut best = 0;
        (self.split, self.lie) = (split, None);
        self.choice = Chooser::new();
        while best < text.len() && self.choice.walk() {
            self.target = Some((text, 0));
            self.run();
            let common = self.text.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            best = best.max(common);
        }
        self.target = None;
        best
    }

    fn run(&mut self) {
        self.text.clear();
        self.starts.clear();
        self.facts.clear();
        self.spans.clear();
        self.state.reset(self.world.village.len());
        (self.last, self.now, self.used) = ([0; 2], [0; 2], [0; RULES]);
        self.topic = plots::story(self);
    }

    /// The text of the story.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// −ln of the probability of the story's derivation; see [`World`].
    pub fn nats(&self) -> f64 {
        self.choice.nats()
    }

    /// The fixed facts that the story states, in order.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The sentence that states each of them, in bytes of the text.
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// Who the story is about.
    pub fn told_of(&self) -> Entity {
        self.hero
    }

    /// What the story is about: the name of its plot.
    pub fn topic(&self) -> &'static str {
        self.topic
    }

    /// Where its sentences start; those that belong together count as one.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// What happens in the story, in order.
    pub fn events(&self) -> &[Event] {
        self.state.events()
    }

    /// The alternatives of each rule that the story has used, as bits.
    #[cfg(test)]
    pub(super) fn used(&self) -> [u128; RULES] {
        self.used
    }

    /// Chooses among `n` options with these weights; `None` if all are zero.
    pub(super) fn choose(&mut self, n: usize, weight: impl Fn(usize) -> u32) -> Option<usize> {
        let total = (0..n).map(&weight).sum();
        self.follow();
        (total > 0).then(|| self.choice.pick(n, total, weight))
    }

    /// Chooses uniformly among the entities of a kind that satisfy `ok`.
    pub(super) fn any(&mut self, kind: Kind, ok: impl Fn(Entity) -> bool) -> Option<Entity> {
        let all = self.world.village.all(kind);
        self.choose(all.len(), |i| u32::from(ok(all[i]))).map(|i| all[i])
    }

    /// Chooses who the story is about: anybody, or one of those held out where it is about them.
    pub(super) fn hero(&mut self) -> Entity {
        let (all, only) = (self.split != Split::People, self.world);
        self.hero = self.any(Kind::Person, |e| all || only.village.held_out(e)).expect("people");
        self.hero
    }

    /// When the story plays.
    pub(super) fn era(&self) -> Era {
        self.world.era
    }

    /// True with probability `of` in `out_of`.
    pub(super) fn chance(&mut self, of: u32, out_of: u32) -> bool {
        self.choose(2, |i| if i == 1 { of } else { out_of - of }) == Some(1)
    }

    pub(super) fn get(&self, relation: Relation, subject: Entity) -> Entity {
        self.world.village.get(relation, subject)
    }

    /// The value of a relation as it is told.
    fn value(&self, relation: Relation, subject: Entity) -> Entity {
        match self.lie {
            Some(lie) if (lie.relation, lie.subject) == (relation, subject) => lie.object,
            _ => self.get(relation, subject),
        }
    }

    /// Whether the story has stated this relation of `subject`.
    pub(super) fn stated(&self, relation: Relation, subject: Entity) -> bool {
        self.facts.iter().any(|fact| (fact.relation, fact.subject) == (relation, subject))
    }

    /// Writes one sentence of `rule` (now and then two that belong together), an alternative that the story has not used
    /// before. Writes nothing if the rule has nothing new to say.
    pub(super) fn say(&mut self, rule: Rule, args: &[Entity]) {
        let rule_id = rule as usize;
        let grammar = &self.world.grammar;
        let mut roles = [Entity::NONE; ROLES];
        roles[..args.len()].copy_from_slice(args);
        if cfg!(any(test, debug_assertions)) {
            let kinds = grammar.rules[rule_id].roles.iter().map(|&letter| Kind::of_role(letter));
            assert!(kinds.eq(args.iter().map(|&e| Some(self.world.village.kind(e)))), "{rule:?}: wrong arguments");
        }
        let Some(i) = self.alternative(rule_id, &roles, self.used[rule_id]) else { return };
        if self.choice.stopped() {
            return; // A walk that has left its text: nobody will read the rest.
        }
        self.used[rule_id] |= 1 << i;
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.caps = true;
        (self.last, self.now) = (self.now, [0; 2]);
        let start = self.text.len();
        self.starts.push(start);
        self.write(&grammar.rules[rule_id].list[i], grammar.rules[rule_id].fact, &roles);
        self.spans.resize(self.facts.len(), start..self.text.len());
    }

    /// Chooses an alternative of `rule` that is possible for `roles` and not in the set `used`.
    fn alternative(&mut self, rule: usize, roles: &[Entity; ROLES], used: u128) -> Option<usize> {
        let rule = &self.world.grammar.rules[rule];
        self.follow();
        if used == 0 && !rule.guarded {
            return Some(self.choice.pick(rule.list.len(), rule.total, |i| rule.list[i].weight));
        }
        let (mut possible, mut wanted) = (0u128, 0u128);
        for (i, alternative) in rule.list.iter().enumerate().filter(|&(i, _)| used >> i & 1 == 0) {
            let mut held_out = false;
            let ok = alternative.needs.iter().all(|&(role, relation)| {
                let subject = roles[role as usize];
                let object = self.get(relation, subject);
                held_out |= self.world.village.held_out(subject);
                object != Entity::NONE && !(rule.fact && self.stated(relation, subject))
            });
            let (told, want) = match (alternative.form, self.split) {
                (Form::HeldOut, split) => (split == Split::Paraphrases, split == Split::Paraphrases),
                (Form::Reserved, split) if held_out => (split == Split::People, split == Split::People),
                _ => (true, false),
            };
            possible |= u128::from(ok && told) << i;
            wanted |= u128::from(ok && want) << i;
        }
        // Where something of what this part is about can be told, it is.
        let possible = if wanted > 0 { wanted } else { possible };
        let weight = |i: usize| if possible >> i & 1 == 1 { rule.list[i].weight } else { 0 };
        let total = (0..rule.list.len()).map(weight).sum();
        (total > 0).then(|| self.choice.pick(rule.list.len(), total, weight))
    }

    fn write(&mut self, alternative: &'w Alternative, fact: bool, roles: &[Entity; ROLES]) {
        if fact {
            for &(role, relation) in &alternative.needs {
                let subject = roles[role as usize];
                self.facts.push(Fact { relation, subject, object: self.value(relation, subject) });
            }
        }
        let world = self.world;
        for op in world.grammar.ops(alternative) {
            match *op {
                Op::Text { start, end, caps } => {
                    self.push(world.grammar.literal(start, end));
                    self.caps = caps;
                }
                Op::Article => {
                    self.push("a");
                    self.article = true;
                }
                Op::Slot(slot) => self.mention(slot, roles),
                Op::Call { rule, roles: map } => {
                    let roles = map.map(|role| roles[role as usize]);
                    let rule = rule as usize;
                    let i = self.alternative(rule, &roles, 0).expect("a nested rule always has something to say");
                    self.write(&world.grammar.rules[rule].list[i], world.grammar.rules[rule].fact, &roles);
                }
            }
        }
    }

    fn mention(&mut self, slot: Slot, roles: &[Entity; ROLES]) {
        let village = &self.world.village;
        let subject = roles[slot.role as usize];
        let e = slot.relation.map_or(subject, |r| self.value(r, subject));
        let mut form = slot.form;
        if matches!(slot.kind, Kind::Person | Kind::Animal) {
            let gender = usize::from(village.female(e));
            let bit = 1 << e.0;
            if slot.auto {
                let clear = self.last[gender] | self.now[gender] == bit;
                let name = !clear || self.choose(2, |i| [3, 1][i]) == Some(1);
                form = if name { name_form(form) } else { form };
            }
            self.now[gender] |= bit;
        }
        self.push(village.text(e, form));
    }

    fn push(&mut self, word: &str) {
        if self.article {
            self.article = false;
            self.text.push_str(if takes_an(word) { "n " } else { " " });
        }
        match word.as_bytes() {
            [first, ..] if self.caps => {
                self.text.push(first.to_ascii_uppercase() as char);
                self.text.push_str(&word[1..]);
                // A quotation mark passes the capital on to the word after it.
                if *first == b'"' {
                    let at = self.text.len() - word.len() + 1;
                    self.text[at..].get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
                }
            }
            _ => self.text.push_str(word),
        }
        self.caps = false;
    }

    /// When following a text: gives up as soon as what was written differs from it.
    fn follow(&mut self) {
        let Some((target, same)) = &mut self.target else { return };
        if self.choice.at_frontier() && !self.choice.stopped() {
            if target.as_bytes().get(*same..self.text.len()) == Some(&self.text.as_bytes()[*same..]) {
                *same = self.text.len();
            } else {
                self.choice.stop();
            }
        }
    }
}

/// The name's form that says what this pronoun says: the possessive for his and her, the plain one otherwise.
pub(super) fn name_form(pronoun: u8) -> u8 {
    u8::from(Kind::Person.forms()[pronoun as usize] == "his")
}
