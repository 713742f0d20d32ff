//! Melodies in ABC notation, from a generator that knows their key, their metre and their probability.
//!
//! ```text
//! X:1
//! M:3/4
//! L:1/8
//! K:G
//! G2 B d2 e | d3 c B A | G2 ^F A2 B | G6 |]
//! ```
//!
//! A note is a letter (`C D E F G A B` from middle C, `c d e f g a b` an octave higher, `,` and `'` an octave lower and higher), behind it
//! its length in eighths where that is not 1, before it `^` or `_` where it is sharp or flat: in these melodies every note says its
//! pitch by itself, so that one can see whether it is in the key. `|` ends a bar, `|]` the melody. Players of ABC play them as they
//! are.
//!
//! # The log-probability
//! A melody is a chain of choices by whole-number weights: key, metre, form, and for each phrase that the form does not repeat the
//! length and the pitch of each note. [`Melody::nats`] is the sum of −ln of their probabilities: −ln of the probability of the text,
//! but where phrases come out alike by chance, so that another form could have given it too. There it is an upper bound, on average
//! over all melodies by less than 0.02 nats (a test adds up all forms).

mod abc;
mod wav;

use std::path::Path;

use serde_json::json;

use super::atomic::AtomicFile;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use abc::{LETTERS, NATURALS};

pub use abc::{Note, Reading, read};
pub use wav::play;

/// A key: its name in ABC, the semitones of its tonic above C, and its scale in semitones above that.
struct Key {
    name: &'static str,
    tonic: i32,
    scale: &'static [i32; 7],
    /// Whether accidentals are written as flats.
    flats: bool,
}

const MAJOR: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];
const MINOR: [i32; 7] = [0, 2, 3, 5, 7, 8, 10];

const fn key(name: &'static str, tonic: i32, scale: &'static [i32; 7], flats: bool) -> Key {
    Key { name, tonic, scale, flats }
}

/// Keys and their weights.
const KEYS: [(u32, Key); 10] = [
    (4, key("C", 0, &MAJOR, false)),
    (4, key("G", 7, &MAJOR, false)),
    (4, key("D", 2, &MAJOR, false)),
    (2, key("A", 9, &MAJOR, false)),
    (3, key("F", 5, &MAJOR, true)),
    (2, key("Bb", 10, &MAJOR, true)),
    (3, key("Am", 9, &MINOR, false)),
    (3, key("Em", 4, &MINOR, false)),
    (2, key("Dm", 2, &MINOR, true)),
    (1, key("Gm", 7, &MINOR, true)),
];

/// Metres, the eighths of a bar, and their weights.
const METRES: [(u32, &str, u32); 4] = [(4, "4/4", 8), (3, "3/4", 6), (2, "6/8", 6), (1, "2/4", 4)];

/// Phrases in order, by their letter, and weights.
const FORMS: [(u32, &str); 5] = [(4, "AABA"), (3, "AABB"), (2, "ABAB"), (2, "ABAC"), (1, "ABCD")];

/// Bars of a phrase.
const BARS: usize = 2;

/// Lengths of notes in eighths, and weights.
const LENGTHS: [(u32, u32); 4] = [(6, 1), (8, 2), (2, 3), (2, 4)];

/// Steps in the scale from one note to the next, and weights.
const STEPS: [(u32, i32); 10] = [(3, 0), (8, 1), (8, -1), (4, 2), (4, -2), (2, 3), (2, -3), (1, 4), (1, -4), (1, 7)];

/// Notes go from the tonic to so many steps above it.
const TOP: i32 = 9;

/// A melody and its truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Melody {
    /// Which melody of the seed it is.
    pub index: u64,
    /// ABC notation, five lines.
    pub text: String,
    /// Its key, as `G` or `Em`.
    pub key: &'static str,
    /// Its metre, as `3/4`.
    pub metre: &'static str,
    /// −ln of the probability of its choices.
    pub nats: f64,
}

/// Draws choices and adds up −ln of their probabilities.
struct Choices {
    rng: Rng,
    nats: f64,
}

impl Choices {
    /// One of these by its weight.
    fn of<'a, T>(&mut self, options: impl Iterator<Item = (u32, &'a T)> + Clone) -> &'a T {
        let total: u32 = options.clone().map(|(weight, _)| weight).sum();
        let mut at = self.rng.below(total);
        for (weight, option) in options {
            if at < weight {
                self.nats += (f64::from(total) / f64::from(weight)).ln();
                return option;
            }
            at -= weight;
        }
        unreachable!("the weights add up to their sum")
    }
}

/// The melodies of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Melodies {
    seed: u64,
}

/// The stream of melodies among those of [`Purpose::World`].
const MELODIES: u32 = 0xFF_FFFD;

impl Melodies {
    /// The melodies of this seed.
    pub fn new(seed: u64) -> Melodies {
        Melodies { seed }
    }

    /// Melody `index`: a pure function of seed and index.
    pub fn melody(&self, index: u64) -> Melody {
        let mut choices = Choices { rng: Rng::new(self.seed, Purpose::World, MELODIES, index), nats: 0.0 };
        let key = choices.of(KEYS.iter().map(|(weight, key)| (*weight, key)));
        let (_, metre, eighths) = choices.of(METRES.iter().map(|metre| (metre.0, metre)));
        let (_, form) = choices.of(FORMS.iter().map(|form| (form.0, form)));
        let mut phrases: Vec<(char, Vec<String>)> = Vec::new();
        let mut bars: Vec<String> = Vec::new();
        let phrases_in_all = form.len();
        for (place, letter) in form.chars().enumerate() {
            // The last bar of all is not drawn.
            let drawn = if place + 1 == phrases_in_all { BARS - 1 } else { BARS };
            let known = phrases.iter().find(|(name, _)| *name == letter).map(|(_, bars)| bars.clone());
            let phrase = known.unwrap_or_else(|| {
                let phrase = phrase(&mut choices, key, *eighths, drawn);
                phrases.push((letter, phrase.clone()));
                phrase
            });
            bars.extend(phrase);
        }
        // It comes home.
        bars.truncate(phrases_in_all * BARS - 1);
        bars.push(spell(key, 0, *eighths));
        let text = format!("X:1\nM:{metre}\nL:1/8\nK:{}\n{} |]\n", key.name, bars.join(" | "));
        Melody { index, text, key: key.name, metre, nats: choices.nats }
    }

    /// Writes the first melodies, of at least `bytes` bytes of text, into `dir`: `corpus.jsonl` with an object of `id`, `text`,
    /// `source` and `metadata` (key, metre) a line, and `truth.jsonl` with one of `id` and `nats`, in the same order. Gives how many
    /// there are.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, dir: &Path, bytes: u64) -> Result<u64> {
        disk::make_dirs(&Os, dir)?;
        let mut corpus = AtomicFile::create(&Os, &dir.join("corpus.jsonl"))?;
        let mut truth = AtomicFile::create(&Os, &dir.join("truth.jsonl"))?;
        let (mut written, mut count) = (0, 0);
        while written < bytes || count == 0 {
            let Melody { text, key, metre, nats, .. } = self.melody(count);
            let id = format!("melody-{}-{count}", self.seed);
            written += text.len() as u64;
            count += 1;
            let document =
                json!({"id": id, "text": text, "source": "melodies", "metadata": {"key": key, "metre": metre}});
            corpus.write(format!("{document}\n").as_bytes())?;
            truth.write(format!("{}\n", json!({"id": id, "nats": nats})).as_bytes())?;
        }
        truth.commit()?;
        corpus.commit()?;
        Ok(count)
    }
}

/// So many bars of a phrase.
fn phrase(choices: &mut Choices, key: &Key, eighths: u32, bars: usize) -> Vec<String> {
    // It starts on the tonic, the third or the fifth.
    let mut degree = *choices.of([(4, &0), (2, &2), (3, &4)].into_iter());
    let mut first = true;
    let bar = |_| {
        let (mut notes, mut left) = (Vec::new(), eighths);
        while left > 0 {
            let length =
                *choices.of(LENGTHS.iter().filter(|(_, length)| *length <= left).map(|(w, length)| (*w, length)));
            if !std::mem::take(&mut first) {
                let within = |step: &i32| (0..=TOP).contains(&(degree + step));
                degree += *choices.of(STEPS.iter().filter(|(_, step)| within(step)).map(|(w, step)| (*w, step)));
            }
            notes.push(spell(key, degree, length));
            left -= length;
        }
        notes.join(" ")
    };
    (0..bars).map(bar).collect()
}

/// A note in ABC: `degree` steps of the scale above the tonic.
fn spell(key: &Key, degree: i32, length: u32) -> String {
    // Tonics above G lie below middle C, so that melodies stay in one range.
    let low = if key.tonic > 7 { key.tonic - 12 } else { key.tonic };
    let semitones = low + 12 * degree.div_euclid(7) + key.scale[degree.rem_euclid(7) as usize];
    let (letter, accidental) = match (semitones.rem_euclid(12), key.flats) {
        (1, false) => ('C', "^"),
        (3, false) => ('D', "^"),
        (6, false) => ('F', "^"),
        (8, false) => ('G', "^"),
        (10, false) => ('A', "^"),
        (1, true) => ('D', "_"),
        (3, true) => ('E', "_"),
        (6, true) => ('G', "_"),
        (8, true) => ('A', "_"),
        (10, true) => ('B', "_"),
        (semitone, _) => (LETTERS[NATURALS.iter().position(|&n| n == semitone).unwrap_or(0)], ""),
    };
    let octave = semitones.div_euclid(12);
    let letter = if octave >= 1 { letter.to_ascii_lowercase() } else { letter };
    let marks = if octave >= 1 { "'".repeat((octave - 1) as usize) } else { ",".repeat(-octave as usize) };
    let length = if length == 1 { String::new() } else { length.to_string() };
    format!("{accidental}{letter}{marks}{length}")
}

#[cfg(test)]
mod tests {
    use super::abc::note;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn melodies_are_right_and_functions_of_seed_and_index() {
        let melodies = Melodies::new(1);
        let mut keys = HashMap::new();
        for index in 0..2000 {
            let melody = melodies.melody(index);
            let reading = read(&melody.text);
            assert!(reading.is_right(), "{}\n{reading:?}", melody.text);
            assert_eq!((reading.key, reading.metre, reading.bars), (Some(melody.key), Some(melody.metre), 8));
            *keys.entry(melody.key).or_insert(0) += 1;
        }
        assert_eq!(melodies.melody(7), melodies.melody(7));
        assert_ne!(melodies.melody(7).text, Melodies::new(2).melody(7).text);
        // 4 of 28; five standard deviations.
        assert!((f64::from(keys["G"]) - 2000.0 / 7.0).abs() < 78.0, "{keys:?}");
    }

    /// −ln of the probability of a weight among those of `options`.
    fn cost<T: PartialEq>(options: &[(u32, T)], chosen: &T, possible: impl Fn(&T) -> bool) -> f64 {
        let total: u32 = options.iter().filter(|(_, option)| possible(option)).map(|(weight, _)| weight).sum();
        let weight = options.iter().find(|(_, option)| option == chosen).unwrap().0;
        (f64::from(total) / f64::from(weight)).ln()
    }

    /// Of some bars of a phrase, by what is written there: (degree above the tonic, length) of each note.
    fn phrase_cost(bars: &[Vec<(i32, u32)>], eighths: u32) -> f64 {
        let (mut nats, mut before) = (0.0, None);
        for bar in bars {
            let mut left = eighths;
            for &(degree, length) in bar {
                nats += cost(&LENGTHS, &length, |&length| length <= left);
                left -= length;
                nats += match before {
                    None => cost(&[(4, 0), (2, 2), (3, 4)], &degree, |_| true),
                    Some(from) => cost(&STEPS, &(degree - from), |step| (0..=TOP).contains(&(from + step))),
                };
                before = Some(degree);
            }
        }
        nats
    }

    /// −ln of the probability of a text of ours, over all forms that could have given it, and how many could.
    fn by_definition(text: &str) -> (f64, usize) {
        let reading = read(text);
        let (_, key) = KEYS.iter().find(|(_, key)| Some(key.name) == reading.key).unwrap();
        let (weight, _, eighths) = *METRES.iter().find(|metre| Some(metre.1) == reading.metre).unwrap();
        let total: u32 = METRES.iter().map(|metre| metre.0).sum();
        let keys: Vec<(u32, &str)> = KEYS.iter().map(|(weight, key)| (*weight, key.name)).collect();
        let header = (f64::from(total) / f64::from(weight)).ln() + cost(&keys, &key.name, |_| true);
        let degree = |note: &Note| (0..=TOP).find(|&d| note_of(key, d) == note.pitch.unwrap()).unwrap();
        let (mut bars, mut filled) = (vec![Vec::new()], 0);
        for note in &reading.notes {
            if filled == eighths {
                bars.push(Vec::new());
                filled = 0;
            }
            bars.last_mut().unwrap().push((degree(note), note.length));
            filled += note.length;
        }
        let phrases: Vec<&[Vec<(i32, u32)>]> = bars.chunks(BARS).collect();
        let costs: Vec<f64> = FORMS
            .iter()
            .filter_map(|form| {
                let mut nats = cost(&FORMS, &form.1, |_| true);
                for (i, letter) in form.1.chars().enumerate() {
                    // The last bar is not drawn.
                    let drawn = if i == 3 { &phrases[i][..BARS - 1] } else { phrases[i] };
                    match form.1.find(letter).unwrap() {
                        first if first == i => nats += phrase_cost(drawn, eighths),
                        first if phrases[first].starts_with(drawn) => {}
                        _ => return None,
                    }
                }
                Some(nats)
            })
            .collect();
        let likelihood: f64 = costs.iter().map(|nats| (-nats).exp()).sum();
        (header - likelihood.ln(), costs.len())
    }

    fn note_of(key: &Key, degree: i32) -> i32 {
        note(&spell(key, degree, 1)).unwrap().pitch.unwrap()
    }

    #[test]
    fn the_nats_are_the_texts_own_but_for_what_chance_makes_alike() {
        let gaps: Vec<f64> = (0..2000)
            .map(|index| {
                let Melody { text, nats, .. } = Melodies::new(3).melody(index);
                let (expected, forms) = by_definition(&text);
                assert!(nats > expected - 1e-9 && (forms > 1 || nats < expected + 1e-9), "{nats}, {expected}: {text}");
                nats - expected
            })
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!(mean < 0.02, "{mean} nats above, at most {}", gaps.iter().copied().fold(0.0, f64::max));
    }

    #[test]
    fn probabilities_add_up() {
        // Of the draws of one choice: each comes as often as exp(−nats) says.
        let mut counts: HashMap<u32, (u32, f64)> = HashMap::new();
        let n = 40_000;
        for index in 0..n {
            let mut choices = Choices { rng: Rng::new(1, Purpose::Test, 0, index), nats: 0.0 };
            let length = *choices.of(LENGTHS.iter().filter(|(_, l)| *l <= 3).map(|(w, l)| (*w, l)));
            let entry = counts.entry(length).or_insert((0, choices.nats));
            assert_eq!(entry.1, choices.nats);
            entry.0 += 1;
        }
        let total: f64 = counts.values().map(|(_, nats)| (-nats).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
        for (count, nats) in counts.values() {
            assert!((f64::from(*count) / n as f64 - (-nats).exp()).abs() < 0.015);
        }
    }

    #[test]
    fn a_corpus_holds_the_melodies_and_their_truth() {
        let dir = tempfile::tempdir().unwrap();
        let melodies = Melodies::new(4);
        let count = melodies.write(dir.path(), 20_000).unwrap();
        let lines = |name: &str| -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (corpus, truth) = (lines("corpus.jsonl"), lines("truth.jsonl"));
        assert_eq!((corpus.len() as u64, truth.len() as u64), (count, count));
        let bytes: usize = corpus.iter().map(|line| line["text"].as_str().unwrap().len()).sum();
        assert!((20_000..20_400).contains(&bytes), "{bytes}");
        let third = melodies.melody(3);
        assert_eq!((corpus[3]["text"].as_str(), truth[3]["nats"].as_f64()), (Some(&third.text[..]), Some(third.nats)));
        assert_eq!((&corpus[3]["id"], &corpus[3]["metadata"]["key"]), (&truth[3]["id"], &serde_json::json!(third.key)));
    }
}
