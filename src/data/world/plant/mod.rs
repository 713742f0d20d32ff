//! A corpus of stories with planted flaws, and the truth of each document.
//!
//! Document `n` is a pure function of (world, flaws, size, `n`). Each has at most one flaw: its role is drawn with the
//! rates of [`RATES`], but for canaries, which stand in exactly as many documents as they say. A flaw that is switched off
//! leaves its documents plain and all others as they are.
//!
//! A document's `nats` is −ln of the probability of all choices that made its text: those of the story, and those of what
//! was planted in it. The role itself is not counted, and a duplicate is worth what its original is: `nats` belongs to a
//! document alone.

mod canary;
mod flaw;
mod near;
mod pattern;
mod personal;
mod rude;
mod skew;
#[cfg(test)]
mod tests;

use super::choice::Chooser;
use super::lexicon::Kind;
use super::teller::Teller;
use super::village::{Entity, Fact};
use super::{Split, Verdict, World};
use crate::rng::{Purpose, Rng};
use canary::Canaries;
use std::borrow::Cow;
use std::ops::Range;

pub use canary::secret_words;
pub use flaw::{Flaw, Flawed, Flaws, Truth};
pub use near::jaccard;
pub use personal::Personal;
pub use rude::find as rude_words;
pub use skew::{Unsaid, Visitor, passage, unsaid, visitors};

// Streams of random numbers of [`Purpose::World`] beside those of the village and its stories.
const ROLE: u32 = 16;
const TEXT: u32 = 17;
const CANARY: u32 = 18;

/// A document and its truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planted<'a> {
    /// Its text.
    pub text: String,
    /// The topic that it bears.
    pub topic: &'static str,
    /// The truth.
    pub truth: Truth<'a>,
}

/// Documents in ten thousand with each role, in this order; the rest is plain.
const RATES: [(Flawed, u32); 7] = [
    (Flawed::Duplicates, 300),
    (Flawed::Near, 500),
    (Flawed::Personal, 1000),
    (Flawed::Rude, 200),
    (Flawed::False, 200),
    (Flawed::Labels, 300),
    (Flawed::Skew, 1000),
];

/// What is planted in how many documents of a hundred, as text.
pub fn rates() -> impl Iterator<Item = (Flawed, f64)> {
    RATES.iter().map(|&(flaw, rate)| (flaw, f64::from(rate) / 100.0))
}

/// Percentages of words that are changed in near-duplicates, each as often as the others.
pub const EDIT_RATES: [u32; 5] = [1, 2, 5, 10, 20];

/// The mean size of a document, in bytes of its text: what a plan for canaries reckons with.
const MEAN_BYTES: u64 = 700;

/// Plants flaws in the stories of a world.
pub struct Planter<'w> {
    world: &'w World,
    split: Split,
    flaws: Flaws,
    /// Of two visitors with the same occupation, how much more often one has the usual gender: 0 to 1.
    skew: f64,
    sentences: personal::Sentences,
    canaries: Canaries,
    /// The number of documents that canaries are planned for.
    planned: u64,
}

/// What a thread keeps while it plants: buffers, and where choices come from.
pub struct Hand<'w> {
    pub(super) teller: Teller<'w>,
    pub(super) choice: Chooser,
}

impl<'w> Hand<'w> {
    pub(super) fn new(world: &'w World) -> Hand<'w> {
        Hand { teller: world.teller(), choice: Chooser::new() }
    }
}

impl<'w> Planter<'w> {
    /// Plants `flaws` in the stories of `split`, for a corpus of `bytes` of text. `skew`, from 0 to 1, is how much more
    /// often visitors have the usual gender of their occupation than the other: at 0 both are as often, at 1 no one has
    /// the other.
    pub fn new(world: &'w World, split: Split, flaws: Flaws, skew: f64, bytes: u64) -> Planter<'w> {
        // Less than there will be, so that all that are planned have a place.
        let planned = if flaws.has(Flawed::Canaries) { bytes / MEAN_BYTES * 3 / 4 } else { 0 };
        let canaries = if planned > 0 { Canaries::plan(world.seed, planned) } else { Canaries::none() };
        let sentences = personal::Sentences::new();
        Planter { world, split, flaws, skew: skew.clamp(0.0, 1.0), sentences, canaries, planned }
    }

    /// The buffers for one thread.
    pub fn hand(&self) -> Hand<'w> {
        Hand::new(self.world)
    }

    /// The name of document `n`.
    pub fn id(&self, n: u64) -> String {
        format!("{}{n}", self.world.prefix(self.split))
    }

    /// The role of document `n`, canaries aside; `None` is a plain one.
    fn role(&self, n: u64) -> Option<Flawed> {
        let mut left = Rng::new(self.world.seed, Purpose::World, self.stream(ROLE), n).below(10_000);
        for (flaw, rate) in RATES {
            if left < rate {
                return Some(flaw).filter(|&flaw| self.flaws.has(flaw));
            }
            left -= rate;
        }
        None
    }

    /// The number of a stream in this era and part.
    fn stream(&self, stream: u32) -> u32 {
        self.world.stream(stream + 16 * self.split as u32)
    }

    fn is_plain(&self, n: u64) -> bool {
        self.role(n).is_none() && self.canaries.of(n, self.planned).is_none()
    }

    /// A plain document before `n`, drawn by `rng`; none where there is none.
    fn original(&self, rng: &mut Rng, n: u64) -> Option<u64> {
        let first = u64::from(rng.below(u32::try_from(n).unwrap_or(u32::MAX).max(1))).min(n.checked_sub(1)?);
        (0..=first).rev().chain(first + 1..n).find(|&k| self.is_plain(k))
    }

    /// Document `n` of the corpus.
    pub fn document(&self, hand: &mut Hand<'w>, n: u64) -> Planted<'w> {
        let mut rng = Rng::new(self.world.seed, Purpose::World, self.stream(TEXT), n);
        if let Some((canary, repeats, paragraph)) = self.canaries.of(n, self.planned) {
            let mut page = self.page(hand, n);
            let (text, secret) = canary::text(&mut hand.choice, self.world, canary, paragraph);
            let nats = hand.choice.nats();
            hand.choice.draw(rng);
            let flaw = |span: Range<usize>| Flaw::Canary { secret, repeats, start: span.start, end: span.end };
            if paragraph {
                page.paragraph(&text, flaw);
            } else {
                page.plant(&mut hand.choice, &text, 0..text.len(), flaw);
            }
            return page.done(nats + hand.choice.nats());
        }
        match self.role(n) {
            Some(role @ (Flawed::Duplicates | Flawed::Near)) => {
                let Some(k) = self.original(&mut rng, n) else { return self.plain(hand, n) };
                let mut planted = self.plain(hand, k);
                planted.truth.id = self.id(n).into();
                let of = self.id(k);
                if role == Flawed::Duplicates {
                    planted.truth.flaws.push(Flaw::ExactDuplicate { of });
                    return planted;
                }
                let percent = EDIT_RATES[rng.below(EDIT_RATES.len() as u32) as usize];
                hand.choice.draw(rng);
                let (text, nats) = near::edit(&mut hand.choice, &planted.text, percent);
                let jaccard = jaccard(&planted.text, &text);
                planted.truth.flaws.push(Flaw::NearDuplicate { of, edit_rate: f64::from(percent) / 100.0, jaccard });
                planted.truth.nats += nats;
                planted.truth.facts.retain(|fact| fact[1..].iter().all(|word| text.contains(&**word)));
                planted.text = text;
                planted
            }
            Some(Flawed::False) => self.lying(hand, n, rng),
            Some(role) => {
                let mut page = self.page(hand, n);
                hand.choice.draw(rng);
                self.fill(role, &mut page, &mut hand.choice);
                page.done(hand.choice.nats())
            }
            None => self.plain(hand, n),
        }
    }

    fn plain(&self, hand: &mut Hand<'w>, n: u64) -> Planted<'w> {
        self.page(hand, n).done(0.0)
    }

    /// Story `n` as it is, to plant something in.
    fn page(&self, hand: &mut Hand<'w>, n: u64) -> Page<'w> {
        hand.teller.tell_of(self.split, n);
        self.told(hand, n)
    }

    /// What the teller has just told, as document `n`.
    fn told(&self, hand: &Hand<'w>, n: u64) -> Page<'w> {
        let t = &hand.teller;
        let facts = t.facts().iter().map(|&fact| self.world.named(fact)).collect();
        Page {
            doc: Planted {
                text: t.text().to_owned(),
                topic: t.topic(),
                truth: Truth { id: self.id(n).into(), nats: t.nats(), facts, ..Truth::default() },
            },
            starts: t.starts().to_vec(),
        }
    }

    /// Plants what `role` says; the draws are those of `c`.
    fn fill(&self, role: Flawed, page: &mut Page, c: &mut Chooser) {
        let people = self.world.entities(Kind::Person);
        let name = |c: &mut Chooser| self.world.name(c.one_of(people));
        match role {
            Flawed::Personal => {
                let real = c.even(2) == 0;
                for _ in 0..=c.even(2) {
                    let what = c.one_of(&Personal::ALL);
                    let who = name(c);
                    if real {
                        let (text, span) = self.sentences.real(c, what, who);
                        page.plant(c, &text, span, |s| Flaw::Personal { what, start: s.start, end: s.end });
                    } else {
                        let (text, span) = self.sentences.fake(c, what, who);
                        page.plant(c, &text, span, |s| Flaw::HardNegative { what, start: s.start, end: s.end });
                    }
                }
            }
            Flawed::Rude => {
                for _ in 0..=c.even(3) {
                    let (x, y) = (name(c), name(c));
                    let text = rude::sentence(c, x, y);
                    page.plant(c, &text, 0..text.len(), |s| Flaw::Rude { start: s.start, end: s.end });
                }
            }
            Flawed::Labels => {
                let truth = page.doc.topic;
                let others: Vec<&'static str> = super::topics().filter(|&topic| topic != truth).collect();
                let label = c.one_of(&others);
                page.doc.topic = label;
                page.doc.truth.flaws.push(Flaw::WrongLabel { label: label.into(), truth: truth.into() });
            }
            Flawed::Skew => {
                let visitor = skew::visitor(c, self.skew);
                let (job, female) = (Cow::Borrowed(visitor.job), visitor.female);
                let span = 0..visitor.text.len();
                page.plant(c, &visitor.text, span, |s| Flaw::Skew { job, female, start: s.start, end: s.end });
            }
            Flawed::Duplicates | Flawed::Near | Flawed::False | Flawed::Canaries => {}
        }
    }

    /// Story `n` with one of its facts told wrongly, wherever it shows.
    fn lying(&self, hand: &mut Hand<'w>, n: u64, rng: Rng) -> Planted<'w> {
        hand.teller.tell_of(self.split, n);
        let facts = hand.teller.facts().to_vec();
        hand.choice.draw(rng);
        let Some(lie) = self.lie(&mut hand.choice, &facts) else { return self.plain(hand, n) };
        hand.teller.lie(self.split, n, lie);
        let mut page = self.told(hand, n);
        let [_, subject, stated] = self.world.named(lie);
        let truth = self.world.name(self.world.village.get(lie.relation, lie.subject));
        page.doc.truth.facts.clear();
        for (&fact, span) in hand.teller.facts().iter().zip(hand.teller.spans()) {
            if fact == lie {
                page.doc.truth.flaws.push(Flaw::False {
                    relation: lie.relation.name().into(),
                    subject: subject.to_string(),
                    stated: stated.to_string(),
                    truth: truth.to_owned(),
                    start: span.start,
                    end: span.end,
                });
            } else if self.world.judge(fact) == Verdict::True {
                page.doc.truth.facts.push(self.world.named(fact));
            }
        }
        page.done(hand.choice.nats())
    }

    /// A rude sentence of `x` to `y`.
    pub(super) fn rude(c: &mut Chooser, x: &str, y: &str) -> String {
        rude::sentence(c, x, y)
    }

    /// A false fact in place of one of `facts`.
    fn lie(&self, c: &mut Chooser, facts: &[Fact]) -> Option<Fact> {
        if facts.is_empty() {
            return None;
        }
        let fact = c.one_of(facts);
        let values = self.world.entities(fact.relation.range());
        let usable = |e: Entity| {
            let lie = Fact { object: e, ..fact };
            e != fact.subject && !self.world.name(e).contains('\'') && self.world.judge(lie) == Verdict::False
        };
        let total = values.iter().filter(|&&e| usable(e)).count() as u32;
        (total > 0).then(|| Fact { object: values[c.pick(values.len(), total, |i| usable(values[i]).into())], ..fact })
    }
}

/// A document that something is being planted in.
struct Page<'w> {
    doc: Planted<'w>,
    /// Where its sentences start.
    starts: Vec<usize>,
}

/// Words that mean somebody named before.
const PRONOUNS: &[&str] = &["he", "she", "his", "her", "him", "they", "them", "it", "its"];

impl<'w> Page<'w> {
    /// Puts `sentence` between two sentences, the second of which does not look back to the first, or at the end. `span`
    /// is the part of it that `flaw` tells of.
    fn plant(&mut self, c: &mut Chooser, sentence: &str, span: Range<usize>, flaw: impl FnOnce(Range<usize>) -> Flaw) {
        let text = &self.doc.text;
        let open = |i: usize| {
            let end = self.starts.get(i + 1).copied().unwrap_or(text.len());
            let mut words = text[self.starts[i]..end].split(|c: char| !c.is_ascii_alphabetic());
            words.all(|word| !PRONOUNS.iter().any(|p| p.eq_ignore_ascii_case(word)))
        };
        let mut places: Vec<usize> = (1..self.starts.len()).filter(|&i| open(i)).collect();
        places.push(self.starts.len());
        let i = c.one_of(&places);
        let at = match self.starts.get(i) {
            Some(&at) => {
                self.doc.text.insert_str(at, &format!("{sentence} "));
                at
            }
            None => {
                self.doc.text.push(' ');
                self.doc.text.push_str(sentence);
                self.doc.text.len() - sentence.len()
            }
        };
        let shift = sentence.len() + 1;
        self.starts[i..].iter_mut().for_each(|start| *start += shift);
        self.starts.insert(i, at);
        self.doc.truth.flaws.iter_mut().for_each(|flaw| flaw.shift(at, shift));
        self.doc.truth.flaws.push(flaw(at + span.start..at + span.end));
    }

    /// Puts `text` at the end, as a paragraph of its own.
    fn paragraph(&mut self, text: &str, flaw: impl FnOnce(Range<usize>) -> Flaw) {
        self.doc.text.push_str("\n\n");
        let at = self.doc.text.len();
        self.doc.text.push_str(text);
        self.doc.truth.flaws.push(flaw(at..self.doc.text.len()));
    }

    fn done(mut self, nats: f64) -> Planted<'w> {
        self.doc.truth.nats += nats;
        self.doc
    }
}

impl World {
    /// A rude sentence about two of the village's people, or a courteous one.
    pub fn remark(&self, rude: bool, rng: Rng) -> String {
        let mut c = Chooser::new();
        c.draw(rng);
        let people = self.entities(Kind::Person);
        let [x, y] = [(); 2].map(|()| self.name(c.one_of(people)));
        if rude { rude::sentence(&mut c, x, y) } else { rude::courteous(&mut c, x, y) }
    }
}

/// The rude words of the rude register with their weights, one a line, separated by a tab.
pub fn rude_lexicon() -> String {
    rude::lexicon().map(|(word, weight)| format!("{word}\t{weight}\n")).collect()
}
