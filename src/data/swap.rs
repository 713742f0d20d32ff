//! Texts with the words of one gender in place of the other's: counterfactual data (Lu et al. 2018, arXiv 1807.11714; Zhao et al. 2018,
//! arXiv 1804.06876).
//!
//! A list of pairs says which words are swapped ([`GENDER`], or a user's own); every one of them in a text is, so that a text stays true to itself.
//! Names are left alone. A word of two pairs, as *her* of *him* and *his*, needs a rule: it becomes the second one where a noun of its own
//! follows, and the first one where none does. None follows where the sentence ends or a mark stands behind the word, or where the next word is
//! one that begins no such noun: a preposition, an article, a conjunction, an auxiliary, a pronoun, some adverbs. The rule looks at nothing else:
//! "saw her go" becomes "saw his go", and "told her stories" is always about stories of hers.

use crate::disk::{self, Os};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// The built-in list: words of two genders.
pub const GENDER: &str = include_str!("../../data/swaps/gender.toml");

/// Longer files are no lists.
const MAX_FILE: u64 = 1 << 24;

/// Words behind *her* that make it *him* rather than *his*.
const NO_NOUN: &str = "a about above across after again against all along alone already also always am an and are around as at away back be \
    because been before behind beside between but by came can cannot could did do does down during else ever every for from had has have he her \
    here him himself herself home how i if in inside into is it just later like may me might must near never nor not now of off often on once onto \
    or our out outside over past quickly quietly said says shall she should since slowly so some something soon still than that the their them \
    then there these they this those though through till to today together tomorrow tonight too toward towards under until up us very was we well \
    were what when where whether which while who why will with within without would yesterday yet you";

/// Words that have a capital in the middle of a sentence and are no names.
const DATES: &str = "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september october \
    november december christmas easter mr mrs ms sir madam lord lady god english";

/// What a word becomes.
#[derive(Clone, Debug, PartialEq)]
struct Other {
    /// The word.
    plain: String,
    /// The word before a noun, where that is another one.
    before_noun: Option<String>,
    /// Whether it is the right one of its pair that is replaced.
    right: bool,
}

/// Words to be swapped.
#[derive(Clone, Debug, PartialEq)]
pub struct Swap {
    words: HashMap<String, Other>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pairs: Vec<[String; 2]>,
}

/// Runs of letters and digits of a text, and where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(char::is_alphanumeric)?;
        let end = text[start..].find(|c: char| !c.is_alphanumeric()).map_or(text.len(), |n| start + n);
        at = end;
        Some((start, &text[start..end]))
    })
}

/// Whether a list of words parted by blanks holds `word`.
fn among(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(word))
}

/// `word` with the capitals of `like`: none, the first, or all.
fn cased(word: &str, like: &str) -> String {
    let upper = |c: char| c.is_uppercase();
    if like.chars().count() > 1 && like.chars().all(upper) {
        return word.to_uppercase();
    }
    let mut rest = word.chars();
    match rest.next() {
        Some(first) if like.starts_with(upper) => first.to_uppercase().chain(rest).collect(),
        _ => word.to_owned(),
    }
}

impl Swap {
    /// The built-in list of words of two genders.
    pub fn gender() -> Swap {
        Swap::parse(GENDER, Path::new("data/swaps/gender.toml")).expect("the built-in list is one")
    }

    /// The list in a file in TOML, `pairs = [["he", "she"], …]`.
    ///
    /// # Errors
    /// The file cannot be read or is none; a pair is not of two different words; a word is on both sides, or in three pairs.
    pub fn open(path: &Path) -> Result<Swap> {
        Swap::parse(&disk::text(&Os, path, MAX_FILE)?, path)
    }

    /// The list of this text, which is called `path`.
    ///
    /// # Errors
    /// As of [`open`](Swap::open).
    pub fn parse(text: &str, path: &Path) -> Result<Swap> {
        let hint = "pairs = [[\"he\", \"she\"], [\"man\", \"woman\"]]; docs/bias.md says more";
        let file: File = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Error::format(path, format!("line {line}"), "a list of pairs", e.message(), hint)
        })?;
        let mut all: HashMap<String, Other> = HashMap::new();
        for (number, pair) in (1..).zip(&file.pairs) {
            let at = || format!("pair {number}");
            let [a, b] = pair.each_ref().map(|word| word.trim().to_lowercase());
            let whole = |word: &str| !word.is_empty() && word.chars().all(char::is_alphanumeric);
            if a == b || !whole(&a) || !whole(&b) {
                return Err(Error::format(path, at(), "two different words", format!("{pair:?}"), hint));
            }
            for (word, other, right) in [(&a, &b, false), (&b, &a, true)] {
                let Some(known) = all.get_mut(word) else {
                    all.insert(word.clone(), Other { plain: other.clone(), before_noun: None, right });
                    continue;
                };
                if known.right != right || known.before_noun.is_some() {
                    let found = format!("{word:?} again");
                    return Err(Error::format(path, at(), "a word twice at most, always on one side", found, hint));
                }
                known.before_noun = Some(other.clone());
            }
        }
        Ok(Swap { words: all })
    }

    /// `text` with every word of the list swapped; none where there is none of them.
    pub fn text(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut done = 0;
        for (at, word) in words(text) {
            let Some(other) = self.words.get(&*word.to_lowercase()) else { continue };
            let end = at + word.len();
            let new = match &other.before_noun {
                Some(new) if noun_follows(&text[end..]) => new,
                _ => &other.plain,
            };
            out.push_str(&text[done..at]);
            out.push_str(&cased(new, word));
            done = end;
        }
        (done > 0).then(|| out + &text[done..])
    }

    /// Which side of the pairs a text is of: whether most of its words of the list are right ones; none where as many are left ones.
    pub fn side(&self, text: &str) -> Option<bool> {
        let own = words(text).filter_map(|(_, word)| self.words.get(&*word.to_lowercase()));
        let sum: i64 = own.map(|other| if other.right { 1 } else { -1 }).sum();
        (sum != 0).then_some(sum > 0)
    }
}

/// Whether what follows a word may begin with a noun that belongs to it.
fn noun_follows(rest: &str) -> bool {
    let Some(next) = rest.strip_prefix([' ', '\n']) else { return false };
    let end = next.find(|c: char| !c.is_alphanumeric()).unwrap_or(next.len());
    end > 0 && !among(NO_NOUN, &next[..end])
}

/// Whether a name stands in a text: a word that begins with a capital where no sentence begins, other than dates and titles.
pub fn has_name(text: &str) -> bool {
    words(text).any(|(at, word)| {
        let mut chars = word.chars();
        let capital = chars.next().is_some_and(char::is_uppercase) && chars.next().is_some_and(char::is_lowercase);
        let before = text[..at].trim_end_matches([' ', '\t']);
        let starts = before.is_empty()
            || before
                .ends_with(['.', '!', '?', ':', '\n', '\r', '"', '“', '‘', '(', '*', '#', '-', '–', '—', '…', '\'']);
        capital && !starts && !among(DATES, word)
    })
}

/// The first of these words, in lower case, that stands in a text.
pub fn first_of<'w>(list: &'w [String], text: &str) -> Option<&'w str> {
    words(text).find_map(|(_, word)| list.iter().find(|one| word.to_lowercase() == **one)).map(String::as_str)
}

/// A list of words, one a line, in lower case; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// The file cannot be read; a line has more than a word; there is none.
pub fn word_list(path: &Path) -> Result<Vec<String>> {
    let text = disk::text(&Os, path, MAX_FILE)?;
    let hint = "one word a line, as: nurse";
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.chars().all(char::is_alphanumeric) {
            return Err(Error::format(path, format!("line {number}"), "one word", format!("{line:?}"), hint));
        }
        all.push(line.to_lowercase());
    }
    match all.is_empty() {
        true => Err(Error::format(path, "the file", "words", "none", hint)),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_swapped_with_their_capitals_and_by_what_follows() {
        let swap = Swap::gender();
        for (from, to) in [
            ("He lost his hat.", "She lost her hat."),
            ("She lost her hat.", "He lost his hat."),
            ("everyone looked at her.", "everyone looked at him."),
            ("A dog ran after her, and HER bag fell.", "A dog ran after him, and HIS bag fell."),
            (
                "They gave her a book and told her that it was hers.",
                "They gave him a book and told him that it was his.",
            ),
            ("It was his.", "It was hers."),
            ("Her\nbrother's wife saw her with a man.", "His\nsister's husband saw him with a woman."),
            ("Mr Gray and the King: “He's here”", "Mrs Gray and the Queen: “She's here”"),
            ("Give it to her", "Give it to him"),
        ] {
            assert_eq!(swap.text(from).as_deref(), Some(to));
        }
        assert_eq!(swap.text("The heap of other sheets was theirs."), None);
        // What the rule cannot know.
        assert_eq!(swap.text("They saw her go.").as_deref(), Some("They saw his go."));
    }

    #[test]
    fn swapping_twice_gives_the_village_back() {
        use crate::data::world::passage;
        let swap = Swap::gender();
        for n in 0..500 {
            let visitor = passage(3, n, 0.5);
            let there = swap.text(&visitor.text).expect("a pronoun");
            assert_eq!(swap.text(&there).as_deref(), Some(&*visitor.text));
            assert_eq!(
                [&visitor.text, &there].map(|text| swap.side(text)),
                [Some(visitor.female), Some(!visitor.female)]
            );
            assert!(!has_name(&visitor.text), "{}", visitor.text);
        }
        assert_eq!(swap.side("He and she"), None);
    }

    #[test]
    fn names_are_words_with_a_capital_that_begins_no_sentence() {
        for (text, yes) in [
            ("On Monday she came. Then she left: \"Good night!\" I said, and I'm glad.", false),
            ("He went with Anna.", true),
            ("- First\n- Second", false),
            ("", false),
        ] {
            assert_eq!(has_name(text), yes, "{text}");
        }
    }

    #[test]
    fn mistakes_of_a_list_are_named() {
        let parse = |text: &str| Swap::parse(text, Path::new("mine.toml"));
        for (text, says) in [
            ("pairs = [[\"he\"]]", "line 1"),
            ("pairs = [[\"he\", \"he\"]]", "pair 1: expected two different words"),
            ("pairs = [[\"he\", \"she\"], [\"she\", \"it\"]]", "pair 2"),
            ("pairs = [[\"a b\", \"c\"]]", "pair 1"),
            ("words = []", "line 1"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
        assert_eq!(parse("pairs = []").unwrap().text("He went."), None);
    }
}
