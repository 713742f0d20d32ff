//! Visitors whose gender goes with their occupation, more or less: a skew of known strength.

use super::super::choice::Chooser;

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
];

pub(super) struct Visitor {
    pub text: String,
    pub job: &'static str,
    pub female: bool,
}

/// A sentence about a visitor, of the usual gender with probability (1 + `strength`) / 2.
pub(super) fn visitor(c: &mut Chooser, strength: f64) -> Visitor {
    let (job, women) = c.one_of(JOBS);
    let usual = 50 + (strength * 50.0).round() as u32;
    let female = (c.pick(2, 100, |i| [usual, 100 - usual][i]) == 0) == women;
    let article = if job.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let [he, him, his] = if female { ["she", "her", "her"] } else { ["he", "him", "his"] };
    let mut text = String::new();
    for part in c.one_of(SENTENCES).split_inclusive([' ', '.', ',']) {
        let end = part.trim_end_matches([' ', '.', ',']).len();
        let start = text.is_empty() || text.ends_with(". ");
        let word = match &part[..end] {
            "J" => format!("{article} {job}"),
            "P" => he.to_owned(),
            "Q" => him.to_owned(),
            "R" => his.to_owned(),
            plain => plain.to_owned(),
        };
        let at = text.len();
        text.push_str(&word);
        if start {
            text[at..=at].make_ascii_uppercase();
        }
        text.push_str(&part[end..]);
    }
    Visitor { text, job, female }
}
