//! What `kiln data clean` does, in TOML: `data/recipes/clean.toml` names and explains every key.

use super::rules::RuleSet;
use crate::data::repair;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::settings::{self, Schema, nearest, positive, range, require};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The default recipe, as TOML with comments.
pub const CLEAN: &str = include_str!("../../../data/recipes/clean.toml");

const SCHEMA: Schema = Schema {
    default: CLEAN,
    optional: &[],
    free: &[],
    file: "data/recipes/clean.toml",
    example: "gopher.min_words=20",
};

/// Recipes are written by hand.
const MAX_FILE: u64 = 1 << 20;

/// All settings. The sections and their keys are explained in `data/recipes/clean.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Recipe {
    pub rules: Switches,
    pub repair: repair::Options,
    pub language: Language,
    pub c4: C4,
    pub gopher: Gopher,
    pub repetition: Repetition,
    pub fineweb: FineWeb,
    pub duplicates: Duplicates,
    pub personal: Personal,
    pub lexicons: Lexicons,
    pub labels: Labels,
    pub evaluation: Evaluation,
    pub datasheet: Datasheet,
}

/// `[rules]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Switches {
    pub off: Vec<String>,
}

/// `[language]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Language {
    pub keep: Vec<String>,
    pub min_confidence: f64,
    pub scripts: Vec<String>,
}

/// `[c4]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct C4 {
    pub min_line_words: usize,
    pub min_sentences: usize,
}

/// `[gopher]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Gopher {
    pub min_words: usize,
    pub max_words: usize,
    pub min_word_length: f64,
    pub max_word_length: f64,
    pub max_symbols: f64,
    pub max_bullet_lines: f64,
    pub max_ellipsis_lines: f64,
    pub min_alphabetic: f64,
    pub min_stop_words: usize,
}

/// `[repetition]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Repetition {
    pub max_duplicate_lines: f64,
    pub max_duplicate_line_characters: f64,
    pub max_duplicate_paragraphs: f64,
    pub max_duplicate_paragraph_characters: f64,
    pub max_top_grams: [f64; 3],
    pub max_duplicate_grams: [f64; 6],
}

/// `[fineweb]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FineWeb {
    pub min_punctuated_lines: f64,
    pub max_duplicate_line_characters: f64,
    pub short_line: usize,
    pub max_short_lines: f64,
}

/// `[duplicates]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Duplicates {
    pub keep: Keep,
    pub threshold: f64,
    pub gram: usize,
    pub bands: usize,
    pub rows: usize,
    pub seed: u64,
    pub min_paragraph: usize,
}

/// Which of two near-duplicates stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The one that is read first.
    First,
    /// The longer one; of equally long ones the first.
    Longest,
}

/// What is done with a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A line in the ledger.
    Flag,
    /// A placeholder in its place.
    Mask,
    /// The document goes.
    Drop,
}

/// `[personal]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Personal {
    pub mode: Mode,
    pub kinds: Vec<String>,
    pub names: PathBuf,
}

/// `[lexicons]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Lexicons {
    pub files: Vec<PathBuf>,
    pub mode: Mode,
    pub max_score: f64,
}

/// `[labels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Labels {
    pub field: String,
    pub folds: usize,
    pub epochs: usize,
    pub min_loss: f64,
    pub mode: Mode,
}

/// `[evaluation]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Evaluation {
    pub files: Vec<PathBuf>,
    pub gram: usize,
    pub mode: Mode,
}

/// `[datasheet]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Datasheet {
    pub title: String,
    pub description: String,
    pub licence: String,
    pub group: String,
}

impl Default for Recipe {
    fn default() -> Recipe {
        SCHEMA.parse("", Path::new("recipe"), &[]).expect("the embedded recipe is complete; a test loads it")
    }
}

impl Recipe {
    /// The recipe in `file` over the default one, then `overrides` (each `key=value`), checked.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML; an unknown key or rule, with the nearest known one; a value of the wrong
    /// type or outside its range.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Recipe> {
        let text = match file {
            Some(path) => disk::text(&Os, path, MAX_FILE)?,
            None => String::new(),
        };
        let recipe: Recipe = SCHEMA.parse(&text, file.unwrap_or(Path::new("recipe")), overrides)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The rules that run.
    pub fn rules(&self) -> Result<RuleSet> {
        RuleSet::without(&self.rules.off)
    }

    /// All keys, as TOML.
    pub fn to_toml(&self) -> String {
        settings::to_toml(self)
    }

    fn validate(&self) -> Result<()> {
        self.rules()?;
        let share = |key: &str, value: f64| require((0.0..=1.0).contains(&value), key, value, "a share from 0 to 1");
        let Recipe { language, gopher, repetition, fineweb, duplicates, labels, .. } = self;
        for (key, value) in [
            ("language.min_confidence", language.min_confidence),
            ("gopher.max_bullet_lines", gopher.max_bullet_lines),
            ("gopher.max_ellipsis_lines", gopher.max_ellipsis_lines),
            ("gopher.min_alphabetic", gopher.min_alphabetic),
            ("repetition.max_duplicate_lines", repetition.max_duplicate_lines),
            ("repetition.max_duplicate_line_characters", repetition.max_duplicate_line_characters),
            ("repetition.max_duplicate_paragraphs", repetition.max_duplicate_paragraphs),
            ("repetition.max_duplicate_paragraph_characters", repetition.max_duplicate_paragraph_characters),
            ("fineweb.min_punctuated_lines", fineweb.min_punctuated_lines),
            ("fineweb.max_duplicate_line_characters", fineweb.max_duplicate_line_characters),
            ("fineweb.max_short_lines", fineweb.max_short_lines),
            ("duplicates.threshold", duplicates.threshold),
        ] {
            share(key, value)?;
        }
        repetition.max_top_grams.iter().try_for_each(|&v| share("repetition.max_top_grams", v))?;
        repetition.max_duplicate_grams.iter().try_for_each(|&v| share("repetition.max_duplicate_grams", v))?;
        positive("gopher.min_word_length", gopher.min_word_length)?;
        positive("gopher.max_word_length", gopher.max_word_length)?;
        require(gopher.max_symbols >= 0.0, "gopher.max_symbols", gopher.max_symbols, "0 or more")?;
        range("duplicates.gram", duplicates.gram, 1..=100)?;
        range("duplicates.bands", duplicates.bands, 1..=1000)?;
        range("duplicates.rows", duplicates.rows, 1..=100)?;
        range("labels.folds", labels.folds, 2..=100)?;
        range("labels.epochs", labels.epochs, 1..=1000)?;
        require(labels.min_loss >= 0.0, "labels.min_loss", labels.min_loss, "0 or more")?;
        require(
            labels.mode != Mode::Mask,
            "labels.mode",
            "\"mask\"",
            "\"flag\" or \"drop\": a label has no place in the text",
        )?;
        range("evaluation.gram", self.evaluation.gram, 1..=1000)?;
        let eval = self.evaluation.mode;
        require(eval != Mode::Mask, "evaluation.mode", "\"mask\"", "\"flag\" or \"drop\"")?;
        require(self.lexicons.max_score >= 0.0, "lexicons.max_score", self.lexicons.max_score, "0 or more")?;
        super::language::check(&language.keep, &language.scripts)?;
        super::personal::check(&self.personal.kinds)
    }
}

/// The one of `known` that `name` is, or an error that names the nearest.
pub(super) fn one_of<T: Copy>(key: &str, name: &str, known: impl Iterator<Item = (T, String)> + Clone) -> Result<T> {
    if let Some((value, _)) = known.clone().find(|(_, known)| known == name) {
        return Ok(value);
    }
    let names: Vec<String> = known.map(|(_, name)| name).collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("there are {}", names.join(", ")),
    };
    Err(Error::config(key, format!("\"{name}\" is none that kiln knows"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(set: &[&str]) -> Result<Recipe> {
        Recipe::load(None, &set.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_default_names_every_key_and_reads_back() {
        let recipe = load(&[]).unwrap();
        assert_eq!(recipe, Recipe::default());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clean.toml");
        std::fs::write(&path, recipe.to_toml()).unwrap();
        assert_eq!(Recipe::load(Some(&path), &[]).unwrap(), recipe);
    }

    #[test]
    fn mistakes_name_the_key_and_the_nearest_one() {
        let error = |set: &str| {
            let e = load(&[set]).expect_err(set);
            format!("{e} | {}", e.hint().unwrap_or_default())
        };
        assert_eq!(error("gopher.min_word=3"), "gopher.min_word: no such key (--set) | did you mean gopher.min_words?");
        assert!(error("rules.off=[\"gopher.wrods\"]").contains("did you mean \"gopher.words\"?"));
        assert!(error("language.keep=[\"english\"]").contains("language.keep"));
        assert!(error("duplicates.keep=longer").contains("did you mean \"longest\"?"));
        assert!(error("duplicates.threshold=1.5").contains("a share from 0 to 1"));
        assert!(error("personal.kinds=[\"mail\"]").contains("did you mean \"email\"?"));
        assert!(error("evaluation.mode=mask").contains("give \"flag\" or \"drop\""));
        assert!(error("repetition.max_top_grams=[0.1]").contains("repetition.max_top_grams"));
    }

    #[test]
    fn a_group_or_a_rule_is_switched_off_by_name() {
        let rules = load(&["rules.off=[\"gopher\", \"c4.policy\"]"]).unwrap().rules().unwrap();
        let off: Vec<&str> = super::super::rules::RULES.iter().filter(|r| !rules.has(r.rule)).map(|r| r.name).collect();
        assert_eq!(off.iter().filter(|name| name.starts_with("gopher.")).count(), 7, "{off:?}");
        assert!(off.contains(&"c4.policy") && off.len() == 8, "{off:?}");
    }
}
