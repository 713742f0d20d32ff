//! What people, or others, think of answers: pairs of which one was preferred, and single answers with a thumb.
//!
//! A line of JSON is one of (the forms of Hugging Face's TRL; texts may be lists of messages instead):
//!
//! | fields | what it is |
//! |---|---|
//! | `prompt`, `chosen`, `rejected` | a pair of answers to the prompt |
//! | `chosen`, `rejected` | the same: what both begin with is the prompt |
//! | `prompt`, `completion`, `label` | an answer, and whether it was liked, as `kiln chat` and `kiln serve` write them |
//!
//! Both answers of a pair become tokens as any [example](super) does, each with the prompt's tokens before it.

use super::form::{Fields, Form};
use super::{Example, Found, digest, placed};
use crate::data::chat::{ChatTemplate, Message};
use crate::data::split::{Rule, Split};
use crate::data::{Document, Sources, Tokenizer};
use crate::error::Result;
use serde_json::Value;
use std::path::PathBuf;

const FORMS: &str = "prompt, chosen and rejected; or chosen and rejected; or prompt, completion and label";

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// One answer was preferred to the other.
    Pair {
        /// The better one.
        chosen: Example,
        /// The worse one.
        rejected: Example,
    },
    /// An answer alone.
    Thumb {
        /// The answer.
        answer: Example,
        /// Whether it was liked.
        good: bool,
    },
}

impl Judged {
    /// The hash of the prompt.
    pub fn key(&self) -> u64 {
        match self {
            Judged::Pair { chosen, .. } => chosen.key,
            Judged::Thumb { answer, .. } => answer.key,
        }
    }

    /// Its answers.
    pub fn answers(&self) -> impl Iterator<Item = &Example> {
        let (one, other) = match self {
            Judged::Pair { chosen, rejected } => (chosen, Some(rejected)),
            Judged::Thumb { answer, .. } => (answer, None),
        };
        [one].into_iter().chain(other)
    }
}

/// A line before it becomes tokens.
enum Said {
    Pair([Form; 2]),
    Thumb(Form, bool),
}

/// Preferences in the order of their files.
#[derive(Clone, Debug, Default)]
pub struct Preferences {
    /// Those that can be used.
    pub all: Vec<Judged>,
    /// What else there was; its examples are answers.
    pub found: Found,
    /// The SHA-256 of all ids, of what of them is trained on, and of thumbs.
    pub hash: String,
}

impl Preferences {
    /// Reads the preferences in `paths`, of at most `longest` tokens an answer with its prompt. `progress` is told of bytes read.
    ///
    /// # Errors
    /// A file cannot be read or a line is none of the forms above; the template refuses a conversation; the tokenizer lacks a character; not
    /// one can be used.
    pub fn read(
        paths: &[PathBuf],
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        longest: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Preferences> {
        let sources = Sources::objects(paths)?;
        let (bytes, mut read) = (sources.bytes(), 0);
        let mut preferences = Preferences::default();
        for document in sources.documents() {
            let document = document?;
            read += document.text.len() as u64;
            let at = (document.source.clone(), document.line);
            let said = said(&document)?;
            let forms = match &said {
                Said::Pair(forms) => &forms[..],
                Said::Thumb(form, _) => std::slice::from_ref(form),
            };
            let example = |form: &Form| {
                let parts = form.parts(template, tokenizer).map_err(|e| placed(e, &at))?;
                Example::of(&parts, tokenizer, &at, longest)
            };
            let examples = forms.iter().map(example).collect::<Result<std::result::Result<Vec<_>, _>>>()?;
            match examples {
                Err(wrong) => preferences.found.refuse(&at, wrong),
                Ok(examples) if matches!(&examples[..], [(a, _), (b, _)] if a.ids == b.ids) => {
                    preferences.found.refuse(&at, "both answers are the same, or differ in what was cut off alone");
                }
                Ok(examples) => preferences.take(examples, &said, tokenizer),
            }
            progress(read.min(bytes), bytes);
        }
        if preferences.all.is_empty() {
            return Err(preferences.found.nothing(paths, "see the forms that a line may have: kiln align --help"));
        }
        let thumbs = preferences.all.iter().map(|judged| match judged {
            Judged::Pair { .. } => 'p',
            Judged::Thumb { good: true, .. } => '+',
            Judged::Thumb { good: false, .. } => '-',
        });
        preferences.hash = digest(preferences.all.iter().flat_map(Judged::answers)) + &thumbs.collect::<String>();
        preferences.hash = super::key([&*preferences.hash].into_iter()).to_string();
        Ok(preferences)
    }

    fn take(&mut self, examples: Vec<(Example, usize)>, said: &Said, tokenizer: &Tokenizer) {
        for (example, cut) in &examples {
            self.found.cut(*cut);
            self.found.count(example, tokenizer);
        }
        let mut examples = examples.into_iter().map(|(example, _)| example);
        let mut next = || examples.next().expect("as many as forms");
        self.all.push(match said {
            Said::Pair(_) => Judged::Pair { chosen: next(), rejected: next() },
            Said::Thumb(_, good) => Judged::Thumb { answer: next(), good: *good },
        });
    }

    /// Those to learn from and those that are held out, a share of about `fraction`: by their prompts, so that those with one prompt fall on
    /// one side.
    pub fn split(self, fraction: f64, seed: u64) -> [Vec<Judged>; 2] {
        let split = Split { rule: Rule::Document, fraction, seed };
        let (val, train) = self.all.into_iter().partition(|judged| split.holds_out(judged.key()));
        [train, val]
    }
}

/// What a document says.
fn said(document: &Document) -> Result<Said> {
    let mut fields = Fields::of(document, "kiln align --help")?;
    if fields.has(&["prompt", "completion", "label"]) {
        let good = match fields.all.remove("label") {
            Some(Value::Bool(good)) => good,
            other => return Err(fields.wrong("true or false in the field \"label\"", other.unwrap_or_default())),
        };
        let [form] = answers(&mut fields, ["completion"])?;
        return Ok(Said::Thumb(form, good));
    }
    match fields.has(&["chosen", "rejected"]) {
        true => answers(&mut fields, ["chosen", "rejected"]).map(Said::Pair),
        false => Err(fields.none_of(FORMS)),
    }
}

/// The answers of these fields, with the prompt.
fn answers<const N: usize>(fields: &mut Fields, names: [&str; N]) -> Result<[Form; N]> {
    let chat =
        fields.all.get(names[0]).is_some_and(Value::is_array) || fields.all.get("prompt").is_some_and(Value::is_array);
    let prompted = fields.has(&["prompt"]);
    if !chat {
        let texts = names.map(|name| fields.text(name));
        let mut all = Vec::new();
        for text in texts {
            all.push(text?);
        }
        let prompt = match prompted {
            true => fields.text("prompt")?,
            false => common(&all[0], &all[all.len() - 1]).to_owned(),
        };
        let rest = |text: &String| if prompted { text.clone() } else { text[prompt.len()..].to_owned() };
        let forms = all.iter().map(|text| Form::Completion { prompt: prompt.clone(), completion: rest(text) });
        return Ok(forms.collect::<Vec<_>>().try_into().expect("as many as names"));
    }
    let prompt = if prompted { fields.messages("prompt")? } else { Vec::new() };
    let mut all = Vec::new();
    for name in names {
        all.push([prompt.clone(), reply(fields, name)?].concat());
    }
    let from = match prompted {
        true => prompt.len(),
        false => all[0].iter().zip(&all[all.len() - 1]).take_while(|(a, b)| a == b).count(),
    };
    let tools = fields.tools()?;
    let forms = all.into_iter().map(|messages| Form::Chat { messages, tools: tools.clone(), from });
    Ok(forms.collect::<Vec<_>>().try_into().expect("as many as names"))
}

/// Messages, or a text that the assistant says.
fn reply(fields: &mut Fields, name: &str) -> Result<Vec<Message>> {
    match fields.all.get(name) {
        Some(Value::String(_)) => Ok(vec![Message::new("assistant", &fields.text(name)?)]),
        _ => fields.messages(name),
    }
}

/// What two texts begin with, up to a space: a word stays whole.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let differs = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let end = differs.unwrap_or(a.len().min(b.len()));
    &a[..a[..end].rfind(char::is_whitespace).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::chat::PLAIN;

    fn read(text: &str) -> Result<Preferences> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, text).expect("a file");
        let document = Document { text: "abc".into(), ..Document::default() };
        let bytes = Tokenizer::train_bpe([document].into_iter().map(Ok), 257, &|_| {}).expect("a tokenizer");
        let tokenizer = bytes.with_chat_template(PLAIN);
        let template = ChatTemplate::of(&tokenizer).expect("a template");
        Preferences::read(&[path], &tokenizer, template.as_ref(), 200, &mut |_, _| {})
    }

    /// The tokens of all answers, and which of them are trained on.
    fn tokens(preferences: &Preferences) -> Vec<(&[u32], &[bool])> {
        let answers = preferences.all.iter().flat_map(Judged::answers);
        answers.map(|answer| (&answer.ids[..], &answer.trained[..])).collect()
    }

    #[test]
    fn all_forms_of_a_pair_are_one() {
        let told = read(r#"{"prompt": "1+1=", "chosen": "2", "rejected": "3"}"#).expect("a pair");
        let Judged::Pair { chosen, rejected } = &told.all[0] else { panic!("{told:?}") };
        assert_eq!(chosen.key, rejected.key);
        assert_eq!((chosen.targets(), rejected.targets()), (2, 2), "the answer and the token that ends a text");
        let found = read(r#"{"chosen": "what is it? a hat", "rejected": "what is it? a house"}"#).expect("a pair");
        let asked = read(r#"{"prompt": "what is it? a", "chosen": " hat", "rejected": " house"}"#).expect("a pair");
        assert_eq!(tokens(&found), tokens(&asked));
        let turns = |said: &str| {
            format!(r#"[{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "{said}"}}]"#)
        };
        let found = format!(r#"{{"chosen": {}, "rejected": {}}}"#, turns("Ho"), turns("No"));
        let found = read(&found).expect("a pair");
        let asked = r#"{"prompt": [{"role": "user", "content": "Hi"}], "chosen": "Ho",
            "rejected": [{"role": "assistant", "content": "No"}]}"#;
        let asked = read(&asked.replace('\n', "")).expect("a pair");
        assert_eq!(tokens(&found), tokens(&asked));
        assert_eq!(found.hash, asked.hash);
        assert_ne!(found.hash, told.hash);
    }

    #[test]
    fn thumbs_are_read_as_they_are_written() {
        let line = r#"{"prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "Ho"}], "label": LABEL}"#;
        let line = line.replace('\n', "");
        let [good, bad] = ["true", "false"].map(|label| read(&line.replace("LABEL", label)).expect("a thumb"));
        assert!(matches!(&good.all[0], Judged::Thumb { good: true, .. }));
        assert!(matches!(&bad.all[0], Judged::Thumb { good: false, .. }));
        assert_ne!(good.hash, bad.hash, "another thumb is other data");
        let wrong = read(&line.replace("LABEL", "3")).expect_err("no thumb").to_string();
        assert!(wrong.contains("label") && wrong.contains("line 1"), "{wrong}");
    }

    #[test]
    fn what_says_nothing_is_refused_with_the_reason() {
        let two = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n\
            {\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}";
        let found = read(two).expect("one pair").found;
        assert_eq!((found.examples, found.refused), (2, 1));
        assert!(found.first_refused.is_some_and(|first| first.contains("line 1: both answers are the same")));
        let wrong = read(r#"{"prompt": "a", "completion": "b"}"#).expect_err("no label").to_string();
        assert!(wrong.contains("label"), "{wrong}");
    }

    #[test]
    fn pairs_of_one_prompt_are_held_out_together() {
        let line = |i: usize| format!("{{\"prompt\": \"p {}\", \"chosen\": \"{i}\", \"rejected\": \"x\"}}\n", i / 4);
        let all: String = (0..200).map(line).collect();
        let [train, val] = read(&all).expect("pairs").split(0.3, 1);
        let keys = |side: &[Judged]| side.iter().map(Judged::key).collect::<std::collections::BTreeSet<_>>();
        assert!(keys(&train).is_disjoint(&keys(&val)));
        assert!(train.len() + val.len() == 200 && !val.is_empty());
    }
}
