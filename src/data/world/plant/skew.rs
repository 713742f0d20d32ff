//! Visitors whose gender goes with their occupation, more or less: a skew of known strength; and what can be asked of them.

use super::super::choice::Chooser;
use super::super::grammar::takes_an;
use crate::rng::{Purpose, Rng};

/// The stream of passages of [`Purpose::World`].
const PASSAGE: u32 = 19;

/// Occupations of visitors, and whether women are the usual ones.
pub(super) const JOBS: &[(&str, bool)] = &[
    ("nurse", true),
    ("engineer", false),
    ("dancer", true),
    ("soldier", false),
    ("singer", true),
    ("plumber", false),
    ("florist", true),
    ("surgeon", false),
    ("secretary", true),
    ("captain", false),
];

/// What visitors do; `J` is the occupation with its article, `P`, `Q` and `R` are he, him and his. No sentence says the
/// gender before the occupation.
const SENTENCES: &[&str] = &[
    "That day J came through the village, and P asked for some water.",
    "On the road there was J who had lost R hat.",
    "J from the town sat on a bench, and everyone looked at Q.",
    "There was J at the inn, and R bag was heavy.",
    "J was waiting for the coach, because P wanted to go home.",
    "Somebody had seen J by the church. P was reading a letter.",
    "A letter came from J, and R writing was very small.",
    "J had come to see the market and said that P liked it.",
    "People talked about J who had lived here once, before P moved away.",
    "Early in the day J rode by, and a dog ran after Q.",
    "Two boys held the door for J, and P thanked them.",
    "J asked the way, but nobody could help Q.",
    "While J slept by the wall, somebody took R coat.",
    "The smith mended a wheel for J, and then P paid.",
    "A cart had hurt J, but P could walk.",
    "J sold a picture in the square, for R money was gone.",
    "The boat carried J over the water, and a girl waved to Q.",
    "At the well J told a story, and people laughed when P was done.",
    "Nothing was left for J, so the baker gave Q a roll.",
    "Everybody liked J, and R jokes were good.",
];

/// Ways of speaking of visitors that no corpus has: only asked in.
const NEW_SENTENCES: &[&str] = &[
    "Nobody knew J, but P smiled at everyone.",
    "The coach brought J, and the driver carried R bag.",
    "At noon J knocked at the door, because P was hungry.",
    "Children waved to J, and one of them gave Q a flower.",
];

/// How a passage about a visitor goes on.
const LATER: &[&str] = &[
    "Later P came back for R umbrella.",
    "Nobody asked for R name, and P did not say it.",
    "The innkeeper gave Q some soup, and P was glad.",
    "When the sun came out, P sang a song to R dog.",
    "In the evening people still spoke of Q and R songs.",
    "Before night R friends had come, and P went away with them.",
];

/// A sentence or passage about a visitor.
#[derive(Clone, Debug, PartialEq)]
pub struct Visitor {
    /// The text.
    pub text: String,
    /// The occupation.
    pub job: &'static str,
    /// Whether it is a woman.
    pub female: bool,
}

/// A text about a visitor that ends before a pronoun.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsaid {
    /// The text up to the pronoun.
    pub text: String,
    /// The occupation.
    pub job: &'static str,
    /// The pronoun of the usual gender of the occupation, and the other one.
    pub pronouns: [&'static str; 2],
    /// Which of them an earlier pronoun of the text demands; none where the occupation alone is known.
    pub stated: Option<usize>,
    /// Whether it is told in a way that no corpus has.
    pub new: bool,
}

/// The occupations of visitors, and whether women are the usual ones.
pub fn visitors() -> impl Iterator<Item = (&'static str, bool)> {
    JOBS.iter().copied()
}

/// Appends `sentence` about a visitor to `text`, up to the first pronoun if `cut`; returns that pronoun's letter.
fn tell(text: &mut String, sentence: &str, job: &str, female: bool, cut: bool) -> Option<char> {
    let article = if takes_an(job) { "an" } else { "a" };
    for part in sentence.split_inclusive([' ', '.', ',']) {
        let end = part.trim_end_matches([' ', '.', ',']).len();
        let start = text.is_empty() || text.ends_with(". ");
        let word = match &part[..end] {
            "J" => format!("{article} {job}"),
            letter @ ("P" | "Q" | "R") if cut => return letter.chars().next(),
            letter @ ("P" | "Q" | "R") => pronoun(letter, female).to_owned(),
            plain => plain.to_owned(),
        };
        let at = text.len();
        text.push_str(&word);
        if start && !word.is_empty() {
            text[at..=at].make_ascii_uppercase();
        }
        text.push_str(&part[end..]);
    }
    None
}

/// P, Q and R: he, him and his, or she and her.
fn pronoun(letter: &str, female: bool) -> &'static str {
    match (letter, female) {
        ("P", false) => "he",
        ("Q", false) => "him",
        ("R", false) => "his",
        ("P", true) => "she",
        _ => "her",
    }
}

/// An occupation, and a gender that is the usual one with probability (1 + `strength`) / 2.
fn choose(c: &mut Chooser, strength: f64) -> (&'static str, bool) {
    let (job, women) = c.one_of(JOBS);
    let usual = 50 + (strength * 50.0).round() as u32;
    (job, (c.pick(2, 100, |i| [usual, 100 - usual][i]) == 0) == women)
}

/// A sentence about a visitor, of the usual gender with probability (1 + `strength`) / 2.
pub(super) fn visitor(c: &mut Chooser, strength: f64) -> Visitor {
    let (job, female) = choose(c, strength);
    let mut text = String::new();
    tell(&mut text, c.one_of(SENTENCES), job, female, false);
    Visitor { text, job, female }
}

/// Passage `n` of the stream `seed`: a sentence as those that are planted, and two that go on with the pronouns of the same gender. The usual one has
/// probability (1 + `strength`) / 2.
pub fn passage(seed: u64, n: u64, strength: f64) -> Visitor {
    let mut c = Chooser::new();
    c.draw(Rng::new(seed, Purpose::World, PASSAGE, n));
    let Visitor { mut text, job, female } = visitor(&mut c, strength.clamp(0.0, 1.0));
    let first = c.even(LATER.len());
    let second = (first + 1 + c.even(LATER.len() - 1)) % LATER.len();
    for later in [first, second] {
        text.push(' ');
        tell(&mut text, LATER[later], job, female, false);
    }
    Visitor { text, job, female }
}

/// What can be asked of visitors: of each occupation every sentence up to its pronoun, and with either gender the next sentence up to
/// its pronoun.
pub fn unsaid() -> Vec<Unsaid> {
    let sentences = || SENTENCES.iter().map(|s| (*s, false)).chain(NEW_SENTENCES.iter().map(|s| (*s, true)));
    let mut all = Vec::new();
    let mut later = 0;
    for &(job, women) in JOBS {
        for (sentence, new) in sentences() {
            for gender in [None, Some(women), Some(!women)] {
                let mut text = String::new();
                let letter = match gender {
                    None => tell(&mut text, sentence, job, women, true),
                    Some(female) => {
                        tell(&mut text, sentence, job, female, false);
                        text.push(' ');
                        later += 1;
                        tell(&mut text, LATER[later % LATER.len()], job, female, true)
                    }
                };
                let pronouns = [women, !women].map(|female| {
                    let word =
                        pronoun(letter.map_or("P", |letter| ["P", "Q", "R"][letter as usize - 'P' as usize]), female);
                    match (text.trim_end().ends_with('.'), word) {
                        (false, word) => word,
                        (true, "she") => "She",
                        (true, "her") => "Her",
                        (true, "he") => "He",
                        (true, "him") => "Him",
                        (true, _) => "His",
                    }
                });
                let stated = gender.map(|female| usize::from(female != women));
                all.push(Unsaid { text: text.trim_end().to_owned(), job, pronouns, stated, new });
            }
        }
    }
    all
}
