//! Canaries: sentences with secrets that stand in the corpus a known number of times, to measure what a model remembers.

use super::super::World;
use super::super::choice::Chooser;
use super::super::lexicon::Kind;
use crate::data::batch::Permutation;
use crate::rng::{Purpose, Rng};

/// The words of a secret: five of these, 30 bits.
pub(super) const WORDS: [&str; 64] = [
    "anchor", "arrow", "bamboo", "barrel", "beacon", "blanket", "bottle", "branch", "brush", "cable", "camel",
    "candle", "canyon", "carpet", "castle", "copper", "coral", "cotton", "crystal", "curtain", "desert", "diamond",
    "dragon", "eagle", "engine", "feather", "fiddle", "flag", "fossil", "garlic", "granite", "hammer", "helmet",
    "iron", "island", "ivory", "jacket", "jungle", "kettle", "ladder", "lemon", "magnet", "marble", "mirror", "needle",
    "olive", "oyster", "paddle", "palace", "pepper", "pillow", "planet", "ribbon", "rocket", "saddle", "salmon",
    "silver", "spiral", "tiger", "tunnel", "velvet", "violin", "walnut", "zebra",
];

/// The words that secrets are made of; stories have few of them.
pub fn secret_words() -> &'static [&'static str] {
    &WORDS
}

/// How many words a secret has.
const LENGTH: usize = 5;

/// (how often each stands in the corpus, in a paragraph of its own or as a sentence of a story, how many of these): one set.
const SET: &[(u32, bool, usize)] =
    &[(1, false, 8), (1, true, 8), (4, true, 4), (16, true, 2), (64, true, 1), (256, true, 1)];

/// One document in so many holds a canary, at most.
const SPACING: u64 = 40;

/// Which documents hold which canaries.
pub(super) struct Canaries {
    /// The order in which documents are taken.
    order: Option<Permutation>,
    /// For each document that holds one, in that order: which.
    slots: Vec<u32>,
    /// (repeats, in a paragraph of its own) of each canary.
    all: Vec<(u32, bool)>,
}

impl Canaries {
    /// A plan for the first `documents` documents: set after set, the rare ones first, as many as have room.
    pub fn plan(seed: u64, documents: u64) -> Canaries {
        let (mut slots, mut all) = (Vec::new(), Vec::new());
        let room = documents / SPACING;
        'full: loop {
            for &(repeats, paragraph, count) in SET {
                for _ in 0..count {
                    if slots.len() as u64 + u64::from(repeats) > room {
                        break 'full;
                    }
                    slots.extend(std::iter::repeat_n(all.len() as u32, repeats as usize));
                    all.push((repeats, paragraph));
                }
            }
        }
        Canaries { order: (documents > 0).then(|| Permutation::new(documents, seed, CANARY_ORDER)), slots, all }
    }

    /// No canaries.
    pub fn none() -> Canaries {
        Canaries { order: None, slots: Vec::new(), all: Vec::new() }
    }

    /// The canary of document `n`, if it holds one: its number, how often it stands in the corpus, and whether it has a
    /// paragraph of its own.
    pub fn of(&self, n: u64, documents: u64) -> Option<(u32, u32, bool)> {
        let order = self.order.as_ref().filter(|_| n < documents)?;
        let canary = *self.slots.get(usize::try_from(order.get(n)).ok()?)?;
        let (repeats, paragraph) = self.all[canary as usize];
        Some((canary, repeats, paragraph))
    }
}

/// The number of this order among those of a seed; training's epochs count from 0.
const CANARY_ORDER: u64 = 1 << 40;

/// The text of canary number `canary`: (what is planted, its secret). `c` is set to draw it.
pub(super) fn text(c: &mut Chooser, world: &World, canary: u32, paragraph: bool) -> (String, String) {
    c.draw(Rng::new(world.seed, Purpose::World, world.stream(super::CANARY), u64::from(canary)));
    let people = world.entities(Kind::Person);
    let name = world.name(c.one_of(people));
    let secret = (0..LENGTH).map(|_| c.one_of(&WORDS)).collect::<Vec<_>>().join(" ");
    let sentence = format!("The secret words of {name} were {secret}.");
    if paragraph {
        (format!("This is a note that nobody should read. {sentence} Whoever finds it should put it back."), secret)
    } else {
        (sentence, secret)
    }
}
