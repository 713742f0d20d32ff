//! Gopher's filters of quality (Rae et al. 2021, appendix A.1.1). Their words are what stands between white space.

use super::{Analysis, Reason, above, below, share};
use crate::data::clean::recipe;
use crate::data::clean::rules::{Rule, RuleSet};
use crate::data::clean::words::Words;
use serde_json::json;
use std::sync::LazyLock;

const BULLETS: [char; 12] = ['•', '‣', '◦', '▪', '▫', '■', '□', '●', '○', '–', '-', '*'];

static STOP_WORDS: LazyLock<Vec<u64>> =
    LazyLock::new(|| Words::of("the be to of and that have with").hashes().to_vec());

/// Words between white space, in numbers.
#[derive(Default)]
struct Stats {
    words: usize,
    /// Characters that are no white space.
    characters: usize,
    /// Words with a letter.
    alphabetic: usize,
    hashes: usize,
    ellipses: usize,
}

fn stats(text: &str) -> Stats {
    let mut stats = Stats::default();
    let (mut inside, mut letter, mut dots) = (false, false, 0);
    let mut count = |c: char| {
        if c.is_whitespace() {
            stats.words += usize::from(inside);
            stats.alphabetic += usize::from(letter);
            (inside, letter) = (false, false);
        } else {
            inside = true;
            letter |= c.is_alphabetic();
            stats.characters += 1;
        }
        dots = if c == '.' { dots + 1 } else { 0 };
        if dots == 3 {
            dots = 0;
            stats.ellipses += 1;
        }
        stats.ellipses += usize::from(c == '…');
        stats.hashes += usize::from(c == '#');
    };
    text.chars().for_each(&mut count);
    count(' ');
    stats
}

/// The first rule that fails.
pub fn judge(text: &Analysis, limits: &recipe::Gopher, rules: RuleSet) -> Option<Reason> {
    let Stats { words, characters, alphabetic, hashes, ellipses } = stats(text.text);
    if rules.has(Rule::WordCount) && !(limits.min_words..=limits.max_words).contains(&words) {
        let evidence = json!({"value": words, "at_least": limits.min_words, "at_most": limits.max_words});
        return Some((Rule::WordCount, evidence));
    }
    let length = share(characters, words);
    let lines = &text.layout.lines;
    let lines_with = |holds: &dyn Fn(&str) -> bool| {
        share(lines.iter().filter(|range| holds(&text.text[(*range).clone()])).count(), lines.len())
    };
    let stop_words = || {
        let mut found = [false; 8];
        for hash in text.words.hashes() {
            if let Some(i) = STOP_WORDS.iter().position(|word| word == hash) {
                found[i] = true;
                // Usually two come soon.
                if found.iter().filter(|&&found| found).count() >= limits.min_stop_words {
                    break;
                }
            }
        }
        found.iter().filter(|&&found| found).count()
    };
    below(rules, Rule::WordLength, length, limits.min_word_length)
        .or_else(|| above(rules, Rule::WordLength, length, limits.max_word_length))
        .or_else(|| above(rules, Rule::Symbols, share(hashes.max(ellipses), words), limits.max_symbols))
        .or_else(|| above(rules, Rule::Bullets, lines_with(&|line| line.starts_with(BULLETS)), limits.max_bullet_lines))
        .or_else(|| {
            let ends = |line: &str| line.ends_with("...") || line.ends_with('…');
            above(rules, Rule::Ellipses, lines_with(&ends), limits.max_ellipsis_lines)
        })
        .or_else(|| below(rules, Rule::Alphabetic, share(alphabetic, words), limits.min_alphabetic))
        .or_else(|| below(rules, Rule::StopWords, stop_words() as f64, limits.min_stop_words as f64))
}
