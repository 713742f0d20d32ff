//! Language and script, by the crate whatlang, which compares three-letter sequences with those of 70 languages.
//!
//! That takes longer than all other rules together, and most documents are what they are expected to be. So where English
//! is kept, a text of which one word in ten is an English function word that other languages do not have, "the" among
//! them, passes without being asked.

use super::quality::Reason;
use super::recipe::{Language, one_of};
use super::rules::{Rule, RuleSet};
use super::tally::start;
use super::words::{HashTable, Words};
use crate::error::Result;
use serde_json::json;
use std::sync::LazyLock;
use whatlang::{Lang, Script};

/// Bytes and words that the decision looks at, a third into the text, behind titles, menus and licences: whatlang gains
/// nothing from more.
const LOOKED_AT: (usize, usize) = (1000, 200);

static ENGLISH: LazyLock<HashTable<()>> = LazyLock::new(|| {
    let words = "the and that with from they which have this would their there been when what about into could because \
                 she you his her not it for were who then them these before after said";
    Words::of(words).hashes().iter().map(|&hash| (hash, ())).collect()
});
static THE: LazyLock<u64> = LazyLock::new(|| Words::of("the").hashes()[0]);

/// The filter, ready to run.
pub struct LanguageFilter {
    keep: Vec<Lang>,
    scripts: Vec<Script>,
    min_confidence: f64,
    rules: RuleSet,
}

fn languages() -> impl Iterator<Item = (Lang, String)> + Clone {
    Lang::all().iter().map(|&lang| (lang, lang.code().to_owned()))
}

fn scripts() -> impl Iterator<Item = (Script, String)> + Clone {
    Script::all().iter().map(|&script| (script, script.name().to_owned()))
}

/// Checks the names of languages and scripts.
pub fn check(keep: &[String], wanted: &[String]) -> Result<()> {
    keep.iter().try_for_each(|name| one_of("language.keep", name, languages()).map(|_| ()))?;
    wanted.iter().try_for_each(|name| one_of("language.scripts", name, scripts()).map(|_| ()))
}

impl LanguageFilter {
    /// The filter of these settings.
    pub fn new(settings: &Language, rules: RuleSet) -> Result<LanguageFilter> {
        let keep = settings.keep.iter().map(|name| one_of("language.keep", name, languages()));
        let wanted = settings.scripts.iter().map(|name| one_of("language.scripts", name, scripts()));
        Ok(LanguageFilter {
            keep: if rules.has(Rule::Language) { keep.collect::<Result<_>>()? } else { Vec::new() },
            scripts: if rules.has(Rule::Script) { wanted.collect::<Result<_>>()? } else { Vec::new() },
            min_confidence: settings.min_confidence,
            rules,
        })
    }

    /// Why a text with these words goes, if it does.
    pub fn judge(&self, text: &str, words: &Words) -> Option<Reason> {
        if self.keep.is_empty() && self.scripts.is_empty() {
            return None;
        }
        let english =
            self.keep.contains(&Lang::Eng) && (self.scripts.is_empty() || self.scripts.contains(&Script::Latin));
        if english && is_english(words) {
            return None;
        }
        let Some(info) = whatlang::detect(sample(text)) else {
            // Numbers and signs only.
            let rule = if self.keep.is_empty() { Rule::Script } else { Rule::Language };
            return Some((rule, json!({"language": null})));
        };
        let (language, confidence) = (info.lang(), (info.confidence() * 1e4).round() / 1e4);
        if self.rules.has(Rule::Language) && !self.keep.is_empty() {
            let evidence = json!({"language": language.code(), "confidence": confidence});
            if !self.keep.contains(&language) || confidence < self.min_confidence {
                return Some((Rule::Language, evidence));
            }
        }
        let foreign = !self.scripts.is_empty() && !self.scripts.contains(&info.script());
        foreign.then(|| (Rule::Script, json!({"script": info.script().name()})))
    }
}

fn sample(text: &str) -> &str {
    let from = text.ceil_char_boundary(sample_start(text.len(), LOOKED_AT.0));
    start(&text[from..], LOOKED_AT.0)
}

/// A third into `all`, or nearer to the start where fewer than `most` follow.
fn sample_start(all: usize, most: usize) -> usize {
    (all / 3).min(all.saturating_sub(most))
}

fn is_english(words: &Words) -> bool {
    let from = sample_start(words.len(), LOOKED_AT.1);
    let some = &words.hashes()[from..words.len().min(from + LOOKED_AT.1)];
    let count = |is: &dyn Fn(&u64) -> bool| some.iter().filter(|word| is(word)).count();
    some.len() >= 20
        && count(&|word| ENGLISH.contains_key(word)) * 10 >= some.len()
        && count(&|word| *word == *THE) * 50 >= some.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(keep: &[&str], scripts: &[&str], text: &str) -> Option<Reason> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let settings = Language { keep: owned(keep), min_confidence: 0.5, scripts: owned(scripts) };
        let filter = LanguageFilter::new(&settings, RuleSet::without(&[]).unwrap()).unwrap();
        filter.judge(text, &Words::of(text))
    }

    const ENGLISH_TEXT: &str = "Anna went to the mill with her brother. They had heard that the miller was ill, and \
        they wanted to know what he needed before the winter came to the valley.";
    const GERMAN: &str = "Anna ging mit ihrem Bruder zur Mühle. Sie hatten gehört, dass der Müller krank war, und wollten \
        wissen, was er brauchte, bevor der Winter in das Tal kam.";
    const DUTCH: &str = "Anna ging met haar broer naar de molen. Ze hadden gehoord dat de molenaar ziek was en wilden weten \
        wat hij nodig had voordat de winter in het dal kwam.";
    const RUSSIAN: &str =
        "Анна пошла с братом на мельницу. Они слышали, что мельник болен, и хотели узнать, что ему нужно.";

    #[test]
    fn documents_in_other_languages_go() {
        assert_eq!(judge(&["eng"], &[], ENGLISH_TEXT), None);
        for (text, code) in [(GERMAN, "deu"), (DUTCH, "nld"), (RUSSIAN, "rus")] {
            let (rule, evidence) = judge(&["eng"], &[], text).unwrap();
            assert_eq!((rule, evidence["language"].as_str()), (Rule::Language, Some(code)));
            assert_eq!(judge(&[code], &[], text), None);
            assert!(!is_english(&Words::of(text)), "{code}");
        }
        // What stands at the start does not decide.
        let framed = format!("{} {}", GERMAN.repeat(3), ENGLISH_TEXT.repeat(12));
        assert_eq!(judge(&["eng"], &[], &framed), None);
        let framed = format!("{} {}", ENGLISH_TEXT.repeat(3), GERMAN.repeat(12));
        assert_eq!(judge(&["eng"], &[], &framed).unwrap().1["language"], "deu");
        assert_eq!(judge(&["deu"], &[], ENGLISH_TEXT).unwrap().1["language"], "eng");
        assert_eq!(judge(&["eng"], &[], "1 2 3 4 + 5").unwrap().0, Rule::Language);
        assert_eq!(judge(&[], &[], "1 2 3 4 + 5"), None);
    }

    #[test]
    fn documents_in_other_scripts_go() {
        assert_eq!(judge(&[], &["Latin"], GERMAN), None);
        assert_eq!(judge(&[], &["Latin"], RUSSIAN).unwrap().1["script"], "Cyrillic");
        assert_eq!(judge(&["eng"], &["Cyrillic"], ENGLISH_TEXT).unwrap().0, Rule::Script);
    }
}
