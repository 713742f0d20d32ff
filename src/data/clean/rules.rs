//! Every rule of `kiln data clean`: its name in recipes, ledgers and reports, what it does, and who published it.

use super::recipe::one_of;
use crate::error::Result;

/// What is known of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The rule.
    pub rule: Rule,
    /// Its name.
    pub name: &'static str,
    /// What it does, as a sentence without its end.
    pub what: &'static str,
    /// Where its definition and thresholds come from.
    pub source: &'static str,
}

macro_rules! rules {
    ($($rule:ident $name:literal $what:literal $source:ident;)*) => {
        /// A rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Rule { $($rule),* }

        /// The rules in the order in which they run.
        pub const RULES: &[Info] = &[$(Info { rule: Rule::$rule, name: $name, what: $what, source: $source }),*];
    };
}

const KILN: &str = "";
const C4: &str = "Raffel et al. 2020, section 2.2 (C4)";
const GOPHER: &str = "Rae et al. 2021, appendix A.1.1 (Gopher)";
const REPETITION: &str = "Rae et al. 2021, table A1 (Gopher)";
const FINEWEB: &str = "Penedo et al. 2024, section 3.6 (FineWeb)";
const NEAR: &str = "Broder 1997; Penedo et al. 2024, section 3.4 (FineWeb)";
const LABELS: &str = "Northcutt et al. 2021 (confident learning)";
const GPT3: &str = "Brown et al. 2020, appendix C (GPT-3)";

rules! {
    Repair "repair" "mends encoding, control characters, line ends and composition of characters" KILN;
    Language "language.language" "drops documents in other languages" KILN;
    Script "language.script" "drops documents in other scripts" KILN;
    TerminalPunctuation "c4.terminal_punctuation" "takes out lines that end without . ! ? or a quotation mark" C4;
    ShortLines "c4.short_lines" "takes out lines of few words" C4;
    Javascript "c4.javascript" "takes out lines with the word javascript" C4;
    Policy "c4.policy" "takes out lines on cookies, privacy and terms of use" C4;
    LoremIpsum "c4.lorem_ipsum" "drops documents with the words lorem ipsum" C4;
    CurlyBracket "c4.curly_bracket" "drops documents with a curly bracket" C4;
    Sentences "c4.sentences" "drops documents of few sentences" C4;
    WordCount "gopher.words" "drops documents of too few or too many words" GOPHER;
    WordLength "gopher.word_length" "drops documents whose mean word is too short or too long" GOPHER;
    Symbols "gopher.symbols" "drops documents with many # and ... for their words" GOPHER;
    Bullets "gopher.bullets" "drops documents whose lines mostly start with a bullet" GOPHER;
    Ellipses "gopher.ellipses" "drops documents whose lines often end with ..." GOPHER;
    Alphabetic "gopher.alphabetic" "drops documents with many words without a letter" GOPHER;
    StopWords "gopher.stop_words" "drops documents with few of the commonest English words" GOPHER;
    DuplicateLines "repetition.lines" "drops documents with a large share of repeated lines" REPETITION;
    DuplicateLineCharacters "repetition.line_characters" "the same by their characters" REPETITION;
    DuplicateParagraphs "repetition.paragraphs" "drops documents with a large share of repeated paragraphs" REPETITION;
    DuplicateParagraphCharacters "repetition.paragraph_characters" "the same by their characters" REPETITION;
    TopGrams "repetition.top_grams" "drops documents whose commonest 2- to 4-gram covers much of them" REPETITION;
    DuplicateGrams "repetition.duplicate_grams" "drops documents whose repeated 5- to 10-grams cover much of them" REPETITION;
    LinePunctuation "fineweb.line_punctuation" "drops documents with few lines that end with punctuation" FINEWEB;
    ManyShortLines "fineweb.short_lines" "drops documents whose lines are mostly short" FINEWEB;
    RepeatedCharacters "fineweb.duplicate_lines" "drops documents with many characters in repeated lines" FINEWEB;
    Exact "duplicates.exact" "drops documents whose text was there before, by 128 bits of SHA-256" KILN;
    Near "duplicates.near" "drops documents that share most word n-grams with one that stays; each pair is compared" NEAR;
    Paragraphs "duplicates.paragraphs" "takes out paragraphs that were there before" KILN;
    Personal "personal" "masks personal data and secrets" KILN;
    Lexicon "lexicon" "finds documents that use the terms of lexicons" KILN;
    Label "labels" "finds labels that a classifier, trained on the other documents, thinks wrong" LABELS;
    Evaluation "evaluation" "drops documents that share a run of words with evaluation texts" GPT3;
}

impl Rule {
    /// What is known of it.
    pub fn info(self) -> &'static Info {
        &RULES[self as usize]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.info().name
    }
}

/// The rules that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSet(u64);

impl RuleSet {
    /// All but those that are named, each alone or by its group.
    ///
    /// # Errors
    /// A name that is no rule's and no group's.
    pub fn without(off: &[String]) -> Result<RuleSet> {
        let mut set = RuleSet(u64::MAX);
        for name in off {
            let mut group = RULES.iter().filter(|info| info.name.split('.').next() == Some(name)).peekable();
            if group.peek().is_some() {
                group.for_each(|info| set.0 &= !(1 << info.rule as u64));
            } else {
                let rule = one_of("rules.off", name, RULES.iter().map(|info| (info.rule, info.name.to_owned())))?;
                set.0 &= !(1 << rule as u64);
            }
        }
        Ok(set)
    }

    /// Whether a rule runs.
    pub fn has(self, rule: Rule) -> bool {
        self.0 >> rule as u64 & 1 == 1
    }

    /// Whether any of these runs.
    pub fn any(self, rules: &[Rule]) -> bool {
        rules.iter().any(|&rule| self.has(rule))
    }
}
