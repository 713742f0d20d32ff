//! C4's heuristics (Raffel et al. 2020, section 2.2): lines that look like no sentence are taken out, then documents are
//! dropped that hold placeholder text or code, or too few sentences.

use super::Reason;
use crate::data::clean::layout::{self, Layout};
use crate::data::clean::recipe;
use crate::data::clean::rules::{Rule, RuleSet};
use crate::data::clean::tally::{Action, Event};
use aho_corasick::AhoCorasick;
use serde_json::json;

/// Words that are looked for in any case: the first takes out lines, so do the next six, the last drops the document.
const WORDS: [&str; 8] = [
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
    "lorem ipsum",
];
const LINE_RULES: [Rule; 4] = [Rule::Javascript, Rule::Policy, Rule::ShortLines, Rule::TerminalPunctuation];

/// The filter, ready to run.
pub struct C4Filter {
    words: AhoCorasick,
    limits: recipe::C4,
    rules: RuleSet,
}

impl C4Filter {
    /// The filter with these limits.
    pub fn new(limits: &recipe::C4, rules: RuleSet) -> C4Filter {
        let words = AhoCorasick::builder().ascii_case_insensitive(true).build(WORDS).expect("eight short words");
        C4Filter { words, limits: limits.clone(), rules }
    }

    /// Takes lines out of `text`: what is left, or nothing where none goes; one event for each rule. And whether the text
    /// holds a placeholder.
    pub fn edit(&self, text: &str, layout: &Layout, events: &mut Vec<Event>) -> (Option<String>, bool) {
        // The line that each hit is in; hits come in order.
        let (mut line, mut marked, mut placeholder) = (0, Vec::new(), false);
        if self.rules.any(&[Rule::Javascript, Rule::Policy, Rule::LoremIpsum]) {
            for hit in self.words.find_iter(text) {
                while layout.lines.get(line).is_some_and(|range| range.end < hit.end()) {
                    line += 1;
                }
                match hit.pattern().as_usize() {
                    0 => marked.push((line, Rule::Javascript)),
                    1..7 => marked.push((line, Rule::Policy)),
                    _ => placeholder = true,
                }
            }
        }
        if !self.rules.any(&LINE_RULES) {
            return (None, placeholder);
        }
        let mut marked = marked.into_iter().filter(|&(_, rule)| self.rules.has(rule)).peekable();
        let mut gone = Vec::new();
        for (number, range) in layout.lines.iter().enumerate() {
            let mut rule = None;
            while let Some((_, found)) = marked.next_if(|&(line, _)| line == number) {
                rule.get_or_insert(found);
            }
            let line = &text[range.clone()];
            let few = || {
                self.rules.has(Rule::ShortLines)
                    && line.split_whitespace().take(self.limits.min_line_words).count() < self.limits.min_line_words
            };
            let open = || {
                self.rules.has(Rule::TerminalPunctuation)
                    && (!line.ends_with(['.', '!', '?', '"', '”', '’', '\'']) || line.ends_with("..."))
            };
            let rule = rule.or_else(|| few().then_some(Rule::ShortLines));
            if let Some(rule) = rule.or_else(|| open().then_some(Rule::TerminalPunctuation)) {
                gone.push((rule, range.clone()));
            }
        }
        for rule in LINE_RULES {
            let mut lines = gone.iter().filter(|(by, _)| *by == rule).map(|(_, range)| range);
            let Some(first) = lines.clone().next() else { continue };
            let evidence = json!({"lines": lines.clone().count()});
            let bytes = lines.by_ref().map(|range| range.len() as u64).sum();
            events.push(Event::new(rule, Action::Edited, evidence, bytes, &text[first.clone()]));
        }
        let left = (!gone.is_empty()).then(|| layout::without(text, gone.into_iter().map(|(_, range)| range)));
        (left, placeholder)
    }

    /// Why the document goes, if it does.
    pub fn judge(&self, text: &str, placeholder: bool) -> Option<Reason> {
        if self.rules.has(Rule::LoremIpsum) && placeholder {
            return Some((Rule::LoremIpsum, json!({})));
        }
        if self.rules.has(Rule::CurlyBracket) && text.contains('{') {
            return Some((Rule::CurlyBracket, json!({})));
        }
        if self.rules.has(Rule::Sentences) {
            let found = sentences(text, self.limits.min_sentences);
            if found < self.limits.min_sentences {
                return Some((Rule::Sentences, json!({"value": found, "at_least": self.limits.min_sentences})));
            }
        }
        None
    }
}

/// Sentences of `text`, up to `enough`: runs of . ! ? before white space, a quotation mark, a bracket or the end; and what
/// stands after the last one, if it holds a letter.
fn sentences(text: &str, enough: usize) -> usize {
    let (mut count, mut open) = (0, false);
    let mut chars = text.chars().peekable();
    while count < enough {
        let Some(c) = chars.next() else { return count + usize::from(open) };
        if matches!(c, '.' | '!' | '?' | '。' | '！' | '？') {
            let ends =
                !c.is_ascii() || chars.peek().is_none_or(|&next| next.is_whitespace() || "\"'”’)]".contains(next));
            if ends && open {
                count += 1;
                open = false;
            }
        } else if !open && c.is_alphanumeric() {
            open = true;
        } else if c == '\n' && open && chars.peek() == Some(&'\n') {
            // A heading, or a line of verse.
            count += 1;
            open = false;
        }
    }
    count
}
