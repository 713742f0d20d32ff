//! FineWeb's own filters (Penedo et al. 2024, section 3.6).

use super::repetition::repeated;
use super::{Analysis, Reason, above, below, share};
use crate::data::clean::recipe;
use crate::data::clean::rules::{Rule, RuleSet};

/// The first rule that fails.
pub fn judge(text: &Analysis, limits: &recipe::FineWeb, rules: RuleSet) -> Option<Reason> {
    let lines = &text.layout.lines;
    let lines_with = |holds: &dyn Fn(&str) -> bool| {
        share(lines.iter().filter(|range| holds(&text.text[(*range).clone()])).count(), lines.len())
    };
    let ends = |line: &str| line.ends_with(['.', '!', '?', ':', ';', '"', '\'', '”', '’', '。', '！', '？']);
    let short = |line: &str| line.len() < limits.short_line || line.chars().count() < limits.short_line;
    below(rules, Rule::LinePunctuation, lines_with(&ends), limits.min_punctuated_lines)
        .or_else(|| above(rules, Rule::ManyShortLines, lines_with(&short), limits.max_short_lines))
        .or_else(|| {
            let bytes = if lines.len() > 1 { repeated(text.text, lines).1 } else { 0 };
            let most = limits.max_duplicate_line_characters;
            above(rules, Rule::RepeatedCharacters, share(bytes, text.text.len()), most)
        })
}
