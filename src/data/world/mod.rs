//! The built-in world: short stories about a small village whose truth is known.
//!
//! A seed makes a village: people, places, things, animals and the fixed facts about them. Story `i` of a world is a pure
//! function of the seed and `i`: a plot of events on a consistent state (who is where, who has what), told through weighted
//! templates. [`World::check`] reads text, from whatever hand, and judges the facts that it states.
//!
//! - [`Split`]: held-out people, and held-out ways of stating a fact, beside the usual validation part.
//! - [`Era`]: the village years later, or with other habits: data that drifts.
//! - [`Planter`]: stories with flaws at known rates, each with its [`Truth`].
//! - [`Asker`]: questions, dialogues, instructions, preferences, tasks for tools; [`World::answer`], [`World::grade`] and
//!   [`World::call`] know what is right.
//! - [`World::export`]: any of these as files.
//!
//! # What the log-probability means
//! Every choice is a draw from an explicit distribution over whole-number weights; [`Story::nats`] adds up −ln of their
//! probabilities, exactly but for rounding. It is −ln of the probability of the story's *derivation*, the sequence of
//! choices. The probability of the *text* is the sum over its derivations, so −ln p(text) ≤ `nats`, with equality where no
//! other derivation gives the same text. The mean of `nats` per byte is therefore an upper bound of the generator's entropy
//! per byte, the loss that no model can beat, and it is that entropy where derivations are unique. [`World::derivations`]
//! finds them all by parsing: there was exactly one for each of 3,000 stories of three worlds, and a test repeats a sample.
//! (Both bound a model that knows where each story starts and ends; nothing is added for the end of the text.)
//!
//! ```
//! let world = kiln::data::world::World::new(1);
//! for story in world.stories(0).take(3) {
//!     println!("{}\n", story.text);
//!     assert!(world.check(&story.text).iter().all(|claim| claim.verdict == kiln::data::world::Verdict::True));
//! }
//! ```

mod ask;
mod check;
mod choice;
mod corpus;
mod export;
mod grammar;
mod language;
mod lexicon;
mod plant;
mod plots;
mod state;
mod teller;
#[cfg(test)]
mod tests;
mod village;

pub use ask::{Answer, Asker, Form, Item, Lesson, Query, tools};
pub use check::{Claim, Verdict};
pub use corpus::{Corpus, Split};
pub use export::{Export, Written};
pub use lexicon::Kind;
pub use plant::{
    EDIT_RATES, Flaw, Flawed, Flaws, Hand, Personal, Planted, Planter, Truth, Unsaid, Visitor, jaccard, passage, rates,
    rude_lexicon, rude_words, secret_words, unsaid, visitors,
};
pub use state::Event;
pub use teller::Teller;
pub use village::{Entity, Fact, Relation};

use grammar::Grammar;
use std::borrow::Cow;
use village::Village;

/// A time in a world. Text of different times has different words, or different habits: data that drifts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Era {
    /// The village as it was.
    #[default]
    One,
    /// Years later: about half of the people are new, machines and other words have come, trains go, and other things
    /// happen more often. Whoever stayed is as before.
    Two,
    /// The first village and its words, but other things happen more often.
    Habits,
}

impl Era {
    /// All of them.
    pub const ALL: [Era; 3] = [Era::One, Era::Two, Era::Habits];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["1", "2", "habits"][self as usize]
    }
}

/// A village and the language in which its stories are told.
pub struct World {
    seed: u64,
    era: Era,
    village: Village,
    grammar: Grammar,
    questions: ask::Questions,
    openers: check::Openers,
}

/// One story and its truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// Which story of the world it is.
    pub index: u64,
    /// Its sentences, in one line.
    pub text: String,
    /// −ln of the probability of its derivation, in nats: at least −ln of the text's probability.
    pub nats: f64,
    /// The fixed facts that it states, in order.
    pub facts: Vec<Fact>,
    /// What happens in it, in order.
    pub events: Vec<Event>,
}

impl World {
    /// The village of `seed`, in its first era.
    pub fn new(seed: u64) -> World {
        World::era(seed, Era::One)
    }

    /// The village of `seed` at some time.
    pub fn era(seed: u64, era: Era) -> World {
        let grammar = Grammar::new();
        let openers = check::Openers::new(&grammar);
        World { seed, era, village: Village::new(seed, era), grammar, questions: ask::Questions::new(), openers }
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether it is one of the held-out people, or theirs; see [`Split`].
    pub fn held_out(&self, e: Entity) -> bool {
        e != Entity::NONE && self.village.held_out(e)
    }

    /// The person, animal, place, thing or word with this plain form.
    pub fn find(&self, name: &str) -> Option<Entity> {
        self.village.find(name)
    }

    /// The number of a stream of [`Purpose::World`](crate::rng::Purpose) in this era.
    fn stream(&self, stream: u32) -> u32 {
        stream + 256 * self.era as u32
    }

    /// A teller, which writes story after story into the same buffers.
    pub fn teller(&self) -> Teller<'_> {
        Teller::new(self)
    }

    /// Story `index`, alone.
    pub fn story(&self, index: u64) -> Story {
        let mut t = self.teller();
        t.tell(index);
        Story { index, text: t.text().into(), nats: t.nats(), facts: t.facts().into(), events: t.events().into() }
    }

    /// The stories from number `first` on, without end.
    pub fn stories(&self, first: u64) -> impl Iterator<Item = Story> + '_ {
        (first..).map(|index| self.story(index))
    }

    /// −ln of the probability of every derivation of a whole story's `text`, in nats; none if this world would never tell
    /// it. Takes some milliseconds: it parses by searching the tree of choices, leaving a branch where the text differs.
    pub fn derivations(&self, text: &str) -> Vec<f64> {
        Teller::new(self).derivations(Split::Train, text)
    }

    /// The plain form of an entity: a name, "the mill", "kite"; empty for [`Entity::NONE`].
    pub fn name(&self, e: Entity) -> &str {
        if e == Entity::NONE { "" } else { self.village.text(e, 0) }
    }

    /// A fact in words: the relation's name, the subject and the object.
    pub fn named(&self, fact: Fact) -> [Cow<'_, str>; 3] {
        [fact.relation.name(), self.name(fact.subject), self.name(fact.object)].map(Cow::Borrowed)
    }

    /// How the names of documents of a part begin.
    fn prefix(&self, split: Split) -> String {
        format!("w{}{}{}-", self.seed, ["", "e2", "h"][self.era as usize], split.mark())
    }

    /// What kind of entity it is; `None` for [`Entity::NONE`].
    pub fn kind(&self, e: Entity) -> Option<Kind> {
        (e != Entity::NONE).then(|| self.village.kind(e))
    }

    /// All entities of a kind, in a fixed order.
    pub fn entities(&self, kind: Kind) -> &[Entity] {
        self.village.all(kind)
    }

    /// The value of a relation; `None` where it is undefined.
    pub fn fact(&self, relation: Relation, subject: Entity) -> Option<Entity> {
        let object = if subject == Entity::NONE { subject } else { self.village.get(relation, subject) };
        (object != Entity::NONE).then_some(object)
    }
}

/// What stories can be about: the names of the plots.
pub fn topics() -> impl Iterator<Item = &'static str> {
    plots::topics()
}
