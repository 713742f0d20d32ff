//! What a model is asked, to learn from what its answers are worth.
//!
//! A line of JSON has one of these fields, and any others, which [rewards](crate::train::rl) may read, as `answer`:
//!
//! | field | what is asked |
//! |---|---|
//! | `prompt`, a text or a list of messages | that |
//! | `question` | after `Question: …`, a line feed and `Answer:` |
//! | `messages` | these, of which the assistant says none of the last |
//!
//! It becomes tokens as the prompt of an [example](super) does, with all that comes before the assistant's words.

use super::form::{Fields, Form};
use super::{Found, hex, key, placed};
use crate::data::chat::{ChatTemplate, Message};
use crate::data::split::{Rule, Split};
use crate::data::{Document, Sources, Tokenizer};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const FORMS: &str = "prompt; or question; or messages";

/// Something to be answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// The tokens, at least one.
    pub ids: Vec<u32>,
    /// What is asked, without what a template puts around it: of messages what the last one says.
    pub text: String,
    /// The other fields of the line.
    pub fields: Map<String, Value>,
    /// Where it is from: a file, and a line of it.
    pub source: (PathBuf, u64),
    /// A hash of all that is asked.
    pub key: u64,
}

impl Prompt {
    /// A field that is a text, a number or a truth value, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }
}

/// Prompts in the order of their files.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Those that can be used.
    pub all: Vec<Prompt>,
    /// What else there was; its examples are prompts.
    pub found: Found,
    /// The SHA-256 of all ids and fields.
    pub hash: String,
}

impl Prompts {
    /// Reads the prompts in `paths`, of at most `longest` tokens each. `progress` is told of bytes read.
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
    ) -> Result<Prompts> {
        let sources = Sources::objects(paths)?;
        let (bytes, mut read) = (sources.bytes(), 0);
        let (mut prompts, mut sum) = (Prompts::default(), Sha256::new());
        for document in sources.documents() {
            let document = document?;
            read += document.text.len() as u64;
            let prompt = prompt(&document, tokenizer, template)?;
            match prompt.ids.len() {
                0 => prompts.found.refuse(&prompt.source, "it asks nothing"),
                n if n > longest => {
                    let wrong = format!("its {n} tokens leave no room for an answer (train.context)");
                    prompts.found.refuse(&prompt.source, &wrong);
                }
                n => {
                    sum.update(bytemuck::cast_slice(&prompt.ids));
                    sum.update(serde_json::to_vec(&prompt.fields).expect("plain data"));
                    prompts.found.examples += 1;
                    prompts.found.tokens += n;
                    prompts.all.push(prompt);
                }
            }
            progress(read.min(bytes), bytes);
        }
        if prompts.all.is_empty() {
            let name = paths.first().map_or(Path::new("the data"), PathBuf::as_path);
            let found = prompts.found.first_refused.as_deref().unwrap_or("none");
            let hint = "each line of a .jsonl file is {\"prompt\": …}; see kiln align grpo --help";
            return Err(Error::format(name, "prompts", "at least one that can be answered", found, hint));
        }
        prompts.hash = hex(sum);
        Ok(prompts)
    }

    /// Those to learn from and those that are held out, a share of about `fraction`: the same prompt falls on one side.
    pub fn split(self, fraction: f64, seed: u64) -> [Vec<Prompt>; 2] {
        let split = Split { rule: Rule::Document, fraction, seed };
        let (val, train) = self.all.into_iter().partition(|prompt| split.holds_out(prompt.key));
        [train, val]
    }
}

/// What a document asks.
fn prompt(document: &Document, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Prompt> {
    let source = (document.source.clone(), document.line);
    let mut fields = Fields::of(document, "kiln align grpo --help")?;
    let chat = ["prompt", "messages"].into_iter().find(|name| fields.all.get(*name).is_some_and(Value::is_array));
    let (form, text) = match chat {
        Some(name) => {
            let (mut messages, tools) = (fields.messages(name)?, fields.tools()?);
            let last = messages.last().expect("not empty");
            if last.role() == "assistant" {
                return Err(fields.wrong(&format!("{name:?} that end before the assistant's turn"), "its last words"));
            }
            let (text, from) = (last.content().unwrap_or_default().to_owned(), messages.len());
            // Something has to be answered for a template to say what comes before it.
            messages.push(Message::new("assistant", "…"));
            (Form::Chat { messages, tools, from }, text)
        }
        None if fields.has(&["prompt"]) => {
            let prompt = fields.text("prompt")?;
            (Form::Completion { prompt: prompt.clone(), completion: String::new() }, prompt)
        }
        None if fields.has(&["question"]) => {
            let question = fields.text("question")?;
            let prompt = format!("Question: {question}\nAnswer:");
            (Form::Completion { prompt, completion: String::new() }, question)
        }
        None => return Err(fields.none_of(FORMS)),
    };
    let parts = form.parts(template, tokenizer).map_err(|e| placed(e, &source))?;
    let asked = || parts.iter().take_while(|part| !part.train).map(|part| part.text.as_str());
    let mut ids = Vec::new();
    for part in asked() {
        ids.extend(tokenizer.encode_with_special(part).map_err(|e| placed(e, &source))?);
    }
    let key = key(asked());
    Ok(Prompt { ids, text, key, source, fields: fields.all })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::chat::PLAIN;
    use crate::data::examples::Examples;

    fn read(text: &str, longest: usize) -> Result<(Prompts, Tokenizer)> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, text).expect("a file");
        let document = Document { text: "abc".into(), ..Document::default() };
        let bytes = Tokenizer::train_bpe([document].into_iter().map(Ok), 257, &|_| {}).expect("a tokenizer");
        let tokenizer = bytes.with_chat_template(PLAIN);
        let template = ChatTemplate::of(&tokenizer).expect("a template");
        let found = Prompts::read(&[path], &tokenizer, template.as_ref(), longest, &mut |_, _| {})?;
        Ok((found, tokenizer))
    }

    #[test]
    fn a_prompt_is_what_comes_before_the_answer_of_an_example() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("b.jsonl");
        let asked = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Who?"}]"#;
        for (line, example, text) in [
            (
                r#"{"prompt": "1+1=", "answer": 2}"#.to_owned(),
                r#"{"prompt": "1+1=", "completion": "2"}"#.to_owned(),
                "1+1=",
            ),
            (
                r#"{"question": "Who?", "answer": "Ann"}"#.to_owned(),
                r#"{"question": "Who?", "answer": "Ann"}"#.to_owned(),
                "Who?",
            ),
            (
                format!(r#"{{"prompt": {asked}}}"#),
                format!(r#"{{"prompt": {asked}, "completion": [{{"role": "assistant", "content": "Ann"}}]}}"#),
                "Who?",
            ),
        ] {
            let (found, tokenizer) = read(&line, 500).expect("a prompt");
            std::fs::write(&path, &example).expect("a file");
            let template = ChatTemplate::of(&tokenizer).expect("a template");
            let examples =
                Examples::read(std::slice::from_ref(&path), &tokenizer, template.as_ref(), 500, &mut |_, _| {})
                    .expect("an example");
            let example = &examples.all[0];
            let first = example.trained.iter().position(|&trained| trained).expect("an answer");
            assert_eq!(found.all[0].ids, example.ids[..first], "{line}");
            assert_eq!((&*found.all[0].text, found.all[0].key), (text, example.key));
        }
    }

    #[test]
    fn other_fields_stay_and_what_is_too_long_is_counted() {
        let lines = "{\"prompt\": \"a\", \"answer\": 7, \"level\": [1]}\n{\"prompt\": \"abcdefghijklm\"}";
        let (found, _) = read(lines, 8).expect("one prompt");
        assert_eq!((found.found.examples, found.found.refused), (1, 1));
        assert_eq!((found.all[0].field("answer").as_deref(), found.all[0].field("level")), (Some("7"), None));
        let (other, _) = read(&lines.replace('7', "8"), 8).expect("one prompt");
        assert_ne!(other.hash, found.hash, "another answer is other data");
        for (line, named) in [
            (r#"{"text": "a"}"#, "prompt"),
            (r#"{"prompt": [{"role": "assistant", "content": "a"}]}"#, "assistant"),
            (r#"{"prompt": 3}"#, "prompt"),
        ] {
            let wrong = read(line, 100).map(|_| ()).expect_err("no prompt").to_string();
            assert!(wrong.contains(named) && wrong.contains("line 1"), "{line}: {wrong}");
        }
    }
}
