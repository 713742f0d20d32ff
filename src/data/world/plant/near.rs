//! Near-duplicates: a text with some of its words changed, and how near it still is.

use super::super::choice::Chooser;
use std::collections::HashSet;

/// Words that edits put in.
const WORDS: &[&str] = &[
    "one", "two", "three", "here", "there", "now", "then", "slowly", "quickly", "quietly", "again", "perhaps", "very",
    "small", "large", "old", "new", "long", "short", "warm", "cold", "bright", "dark", "early", "late", "near", "far",
    "almost", "always", "never", "soon", "today",
];

/// `text` with each word changed with probability `percent` in 100, and at least one: replaced, left out, or another put
/// before it. Also −ln of the probability of these changes, in nats.
pub(super) fn edit(c: &mut Chooser, text: &str, percent: u32) -> (String, f64) {
    let words: Vec<&str> = text.split(' ').collect();
    loop {
        let before = c.nats();
        let (out, edits) = attempt(c, &words, percent);
        if edits > 0 {
            // The probability of this attempt, given that it is not one without any change.
            let unchanged = libm::pow(1.0 - f64::from(percent) / 100.0, words.len() as f64);
            return (out, c.nats() - before + libm::log(1.0 - unchanged));
        }
    }
}

fn attempt(c: &mut Chooser, words: &[&str], percent: u32) -> (String, usize) {
    let mut out = String::new();
    let mut edits = 0;
    for word in words {
        let edited = c.pick(2, 100, |i| [100 - percent, percent][i]) == 1;
        edits += usize::from(edited);
        let kind = if edited { c.even(3) } else { 3 };
        if kind != 1 && !out.is_empty() {
            out.push(' ');
        }
        match kind {
            0 => {
                let others = WORDS.iter().filter(|other| *other != word).count() as u32;
                out.push_str(WORDS[c.pick(WORDS.len(), others, |i| u32::from(WORDS[i] != *word))]);
            }
            1 => {}
            2 => {
                out.push_str(c.one_of(WORDS));
                out.push(' ');
                out.push_str(word);
            }
            _ => out.push_str(word),
        }
    }
    (out, edits)
}

/// The length of the runs of words that are compared.
const GRAM: usize = 5;

/// |A ∩ B| / |A ∪ B| for the sets A, B of runs of five words of the texts; words are maximal runs of alphanumeric
/// characters in small letters. A text of fewer words is one run. 1 where both are empty.
pub fn jaccard(a: &str, b: &str) -> f64 {
    let (a, b) = (lower(a), lower(b));
    let (a, b) = (grams(&a), grams(&b));
    let both = a.intersection(&b).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

fn lower(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn grams(words: &[String]) -> HashSet<&[String]> {
    words.windows(GRAM.min(words.len()).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn the_similarity_is_that_of_the_sets_of_five_words() {
        assert_eq!(jaccard("a b c d e f", "A, b! c d-e F."), 1.0);
        assert_eq!(jaccard("a b c d e f", "a b c d e g"), 1.0 / 3.0);
        assert_eq!(jaccard("a b c", "a b c"), 1.0);
        assert_eq!(jaccard("a b c", "a b d"), 0.0);
        assert_eq!(jaccard("", "..."), 1.0);
        assert_eq!(jaccard("a b c d e a b c d e", "a b c d e"), 1.0 / 5.0);
    }

    #[test]
    fn edits_come_at_their_rate() {
        let text = "word ".repeat(200);
        let mut c = Chooser::new();
        for percent in [1, 5, 20] {
            let mut kept = 0;
            for n in 0..200 {
                c.draw(Rng::new(3, Purpose::Test, 0, n));
                kept += edit(&mut c, text.trim_end(), percent).0.split(' ').filter(|w| *w == "word").count();
            }
            // Two of three kinds of edits take a word away; that all stay is too rare to matter.
            let (n, p) = (200.0 * 200.0, 2.0 / 3.0 * f64::from(percent) / 100.0);
            let sd = (n * p * (1.0 - p)).sqrt();
            assert!((kept as f64 - n * (1.0 - p)).abs() < 5.0 * sd, "{kept} kept at {percent} %");
        }
    }
}
