//! Filters of quality with published thresholds. Each looks at an [`Analysis`] of the text, which is made once.

mod c4;
mod fineweb;
mod gopher;
mod repetition;

pub use c4::C4Filter;

use super::layout::Layout;
use super::recipe::Recipe;
use super::rules::{Rule, RuleSet};
use super::words::Words;
use serde_json::{Value, json};

/// Why a document goes.
pub type Reason = (Rule, Value);

/// A text and what the filters need to know of it.
pub struct Analysis<'a> {
    /// The text.
    pub text: &'a str,
    /// Its lines and paragraphs.
    pub layout: Layout,
    /// Its words.
    pub words: &'a Words,
}

/// The rules of this module that look at a whole document, but for C4's.
const RULES: [Rule; 16] = [
    Rule::WordCount,
    Rule::WordLength,
    Rule::Symbols,
    Rule::Bullets,
    Rule::Ellipses,
    Rule::Alphabetic,
    Rule::StopWords,
    Rule::DuplicateLines,
    Rule::DuplicateLineCharacters,
    Rule::DuplicateParagraphs,
    Rule::DuplicateParagraphCharacters,
    Rule::TopGrams,
    Rule::DuplicateGrams,
    Rule::LinePunctuation,
    Rule::ManyShortLines,
    Rule::RepeatedCharacters,
];

/// The first rule of Gopher and FineWeb that the text fails, if any.
pub fn judge(analysis: &Analysis, recipe: &Recipe, rules: RuleSet) -> Option<Reason> {
    if !rules.any(&RULES) {
        return None;
    }
    gopher::judge(analysis, &recipe.gopher, rules)
        .or_else(|| repetition::judge(analysis, &recipe.repetition, rules))
        .or_else(|| fineweb::judge(analysis, &recipe.fineweb, rules))
}

/// A rule that is on and whose value is outside of its limits.
fn above(rules: RuleSet, rule: Rule, value: f64, most: f64) -> Option<Reason> {
    (rules.has(rule) && value > most).then(|| (rule, json!({"value": rounded(value), "at_most": most})))
}

fn below(rules: RuleSet, rule: Rule, value: f64, least: f64) -> Option<Reason> {
    (rules.has(rule) && value < least).then(|| (rule, json!({"value": rounded(value), "at_least": least})))
}

/// To four decimals, as people read it.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests;
