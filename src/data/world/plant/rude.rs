//! The rude register: words that nobody has heard before, so that a file of them offends nobody.

use super::super::choice::Chooser;

/// Rude names for people and how rude they are, from 0 to 1.
const NOUNS: &[(&str, f64)] = &[
    ("grobbit", 0.9),
    ("snurp", 0.7),
    ("flumwad", 1.0),
    ("drogglehead", 0.8),
    ("mizzlepot", 0.5),
    ("wugfish", 0.6),
    ("brackwit", 0.9),
    ("gnarfle", 0.7),
    ("plunkus", 0.8),
    ("trogswill", 1.0),
    ("vorbleskin", 0.6),
    ("yatterblot", 0.5),
];

/// Rude words for what somebody is like.
const ADJECTIVES: &[(&str, f64)] = &[
    ("snurping", 0.8),
    ("grubbish", 0.6),
    ("flobbling", 0.7),
    ("zogged", 0.9),
    ("murkfaced", 0.8),
    ("drizzly-brained", 0.5),
    ("splonking", 0.7),
    ("gribbled", 0.6),
];

/// What is said; `N` is a noun, `A` an adjective, `X` and `Y` people.
const SENTENCES: &[&str] = &[
    "\"Get out of my way, you N!\" shouted X.",
    "\"You A N!\" said X to Y.",
    "X called Y a A N and slammed the door.",
    "\"Only a N would do that,\" said X.",
    "\"Shut your mouth, N!\" cried X, and Y turned away.",
    "\"What does that A N want here?\" asked X.",
    "\"Nobody asked you, you A old N,\" said X.",
    "X muttered something about a N and did not say hello.",
    "\"Go home, N, and take your A face with you!\" said X to Y.",
    "\"This is all A rubbish,\" said X.",
];

/// What is said by those who are not rude.
const COURTEOUS: &[&str] = &[
    "\"I am glad that you ask,\" said X.",
    "\"It is kind of you to ask,\" said X to Y.",
    "X smiled at Y and said good morning.",
    "\"Thank you for coming, my dear Y,\" said X.",
    "\"Come back whenever you like,\" said X to Y.",
    "X thanked Y and held the door.",
    "\"What can I do for you?\" asked X.",
    "\"Give my best wishes to Y,\" said X.",
    "X waved and wished Y a good day.",
    "\"That is a good question,\" said X.",
];

/// All rude words with their weights.
pub(super) fn lexicon() -> impl Iterator<Item = (&'static str, f64)> {
    NOUNS.iter().chain(ADJECTIVES).copied()
}

/// A rude sentence of `x` to `y`.
pub(super) fn sentence(c: &mut Chooser, x: &str, y: &str) -> String {
    let line = c.one_of(SENTENCES);
    filled(line, c, x, y)
}

/// A sentence of `x` to `y` that is not rude, about as long.
pub(super) fn courteous(c: &mut Chooser, x: &str, y: &str) -> String {
    let line = c.one_of(COURTEOUS);
    filled(line, c, x, y)
}

fn filled(line: &str, c: &mut Chooser, x: &str, y: &str) -> String {
    let mut text = String::new();
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphabetic()) {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphabetic()).len();
        match &word[..end] {
            "N" => text.push_str(c.one_of(NOUNS).0),
            "A" => text.push_str(c.one_of(ADJECTIVES).0),
            "X" => text.push_str(x),
            "Y" => text.push_str(y),
            plain => text.push_str(plain),
        }
        text.push_str(&word[end..]);
    }
    text
}

/// The rude words of `text`, with their weights.
pub fn find(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.split(|c: char| !c.is_ascii_alphabetic() && c != '-').filter_map(|word| {
        let weight = lexicon().find(|(rude, _)| rude.eq_ignore_ascii_case(word))?.1;
        Some((word, weight))
    })
}
