//! Many stories at once: documents up to a number of bytes, of the training or the held-out part.

use super::World;
use rayon::prelude::*;

/// The parts of a world's stories.
///
/// Training text states the facts about everybody, but those about the held-out people ([`World::held_out`]) and what is
/// theirs only in some of the ways in which it states the others', and some ways of stating a fact it never uses. `People`
/// and `Paraphrases` do what training text does not: a model that does well there has learnt facts, not sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Nineteen stories of twenty.
    Train,
    /// Every twentieth story: the same distribution as [`Split::Train`].
    Val,
    /// Stories about held-out people, whose facts are told in ways that training text reserves for the others.
    People,
    /// Facts in held-out paraphrases.
    Paraphrases,
}

/// One story in so many is held out.
const HELD_OUT: u64 = 20;

impl Split {
    /// All of them.
    pub const ALL: [Split; 4] = [Split::Train, Split::Val, Split::People, Split::Paraphrases];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["train", "val", "people", "paraphrases"][self as usize]
    }

    /// What tells its documents' names from those of the other parts.
    pub(super) fn mark(self) -> &'static str {
        ["", "v", "p", "q"][self as usize]
    }

    /// Which numbers it draws; training and validation share the stories of one sequence out.
    pub(super) fn stream(self) -> u32 {
        [0, 0, 1, 2][self as usize]
    }

    /// The number of the `n`th story of this part in its sequence.
    pub fn index(self, n: u64) -> u64 {
        match self {
            Split::Train => n + n / (HELD_OUT - 1),
            Split::Val => (n + 1) * HELD_OUT - 1,
            Split::People | Split::Paraphrases => n,
        }
    }
}

/// Stories one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corpus {
    /// All texts, without anything between them.
    pub text: String,
    /// Where each document ends in `text`.
    pub ends: Vec<usize>,
    /// The sum of the stories' `nats`.
    pub nats: f64,
}

impl Corpus {
    /// The documents in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|i| &self.text[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]])
    }

    /// Mean −ln probability per byte of text: the floor of a model's loss per byte; see [`super`] for what it means.
    pub fn nats_per_byte(&self) -> f64 {
        self.nats / self.text.len() as f64
    }
}

/// Stories that one task tells at a time.
const CHUNK: u64 = 64;

impl World {
    /// Stories of `split`, from its story number `first` on: as many as fit whole into `bytes`. The stories are told on all
    /// threads; the result does not depend on how many there are.
    pub fn corpus(&self, split: Split, first: u64, bytes: usize) -> Corpus {
        let mut corpus = Corpus::default();
        let mut next = first;
        loop {
            // Enough chunks to fill the rest if stories are short; at least a few, for all threads.
            let chunks = ((bytes - corpus.text.len()) as u64 / (400 * CHUNK)).clamp(1, 256);
            let told: Vec<Vec<(String, f64)>> = (0..chunks)
                .into_par_iter()
                .map_init(
                    || self.teller(),
                    |teller, chunk| {
                        let tell = |n| {
                            teller.tell_of(split, n);
                            (teller.text().to_owned(), teller.nats())
                        };
                        (next + chunk * CHUNK..next + (chunk + 1) * CHUNK).map(tell).collect()
                    },
                )
                .collect();
            for (text, nats) in told.into_iter().flatten() {
                if corpus.text.len() + text.len() > bytes {
                    return corpus;
                }
                corpus.text.push_str(&text);
                corpus.ends.push(corpus.text.len());
                corpus.nats += nats;
            }
            next += chunks * CHUNK;
        }
    }
}
