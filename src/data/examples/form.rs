//! What a line says, and which of it is trained on.

use crate::data::chat::{ChatTemplate, Message};
use crate::data::{Document, Tokenizer};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// An example before it becomes tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A conversation, with the tools that the assistant may call; of the messages from this one on is learnt.
    Chat {
        /// All messages.
        messages: Vec<Message>,
        /// JSON schemas.
        tools: Option<Vec<Value>>,
        /// The first message that is trained on where the assistant says it.
        from: usize,
    },
    /// A text and how it goes on.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learnt.
        completion: String,
    },
    /// A text, all of it learnt.
    Text(String),
}

/// A part of an example's text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub text: String,
    pub train: bool,
}

impl Part {
    fn new(text: impl Into<String>, train: bool) -> Part {
        Part { text: text.into(), train }
    }
}

pub(super) const FORMS: &str =
    "messages; or prompt and completion; or question and answer; or instruction and output; or text";

/// Fields of an object, taken out one by one.
pub(super) struct Fields<'a> {
    pub all: Map<String, Value>,
    document: &'a Document,
    /// What tells the forms that there are.
    help: &'static str,
}

impl<'a> Fields<'a> {
    /// Those of a line of JSON.
    pub fn of(document: &'a Document, help: &'static str) -> Result<Fields<'a>> {
        let malformed = |e: serde_json::Error| {
            let at = format!("line {}, column {}", document.line, e.column());
            Error::format(&document.source, at, "one JSON object", e, "each line of a .jsonl file is one JSON object")
        };
        Ok(Fields { all: serde_json::from_str(&document.text).map_err(malformed)?, document, help })
    }

    pub fn wrong(&self, expected: &str, found: impl ToString) -> Error {
        let hint = format!("see the forms that a line may have: {}", self.help);
        Error::format(&self.document.source, format!("line {}", self.document.line), expected, found, hint)
    }

    /// That none of the `forms` is there.
    pub fn none_of(&self, forms: &str) -> Error {
        let names: Vec<&str> = self.all.keys().take(8).map(String::as_str).collect();
        self.wrong(forms, format!("the fields {names:?}"))
    }

    pub fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.all.contains_key(*name))
    }

    pub fn text(&mut self, name: &str) -> Result<String> {
        match self.all.remove(name) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.wrong(&format!("a text in the field {name:?}"), short(&other.unwrap_or_default()))),
        }
    }

    pub fn messages(&mut self, name: &str) -> Result<Vec<Message>> {
        let found = self.all.remove(name).unwrap_or_default();
        let messages = serde_json::from_value::<Vec<Message>>(found);
        let messages = messages.map_err(|e| self.wrong(&format!("a list of messages in the field {name:?}"), e))?;
        if messages.is_empty() {
            return Err(self.wrong(&format!("messages in the field {name:?}"), "an empty list"));
        }
        Ok(messages)
    }

    pub fn tools(&mut self) -> Result<Option<Vec<Value>>> {
        match self.all.remove("tools") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(tools)) => Ok((!tools.is_empty()).then_some(tools)),
            Some(other) => Err(self.wrong("a list of tools in the field \"tools\"", short(&other))),
        }
    }
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(60) {
        text.replace_range(end.., "…");
    }
    text
}

impl Form {
    /// What a document is: a line of JSON, or a text.
    ///
    /// # Errors
    /// It is none of the forms.
    pub fn of(document: Document) -> Result<Form> {
        if !document.is_json() {
            return Ok(Form::Text(document.text));
        }
        let mut fields = Fields::of(&document, "kiln tune --help")?;
        if fields.has(&["messages"]) {
            let (messages, tools) = (fields.messages("messages")?, fields.tools()?);
            return Ok(Form::Chat { messages, tools, from: 0 });
        }
        if fields.has(&["prompt", "completion"]) {
            if fields.all["prompt"].is_array() {
                let (mut messages, completion) = (fields.messages("prompt")?, fields.messages("completion")?);
                let (from, tools) = (messages.len(), fields.tools()?);
                messages.extend(completion);
                return Ok(Form::Chat { messages, tools, from });
            }
            return Ok(Form::Completion { prompt: fields.text("prompt")?, completion: fields.text("completion")? });
        }
        if fields.has(&["question", "answer"]) {
            // As the built-in world writes them.
            let (question, answer) = (fields.text("question")?, fields.text("answer")?);
            let prompt = format!("Question: {question}\nAnswer:");
            return Ok(Form::Completion { prompt, completion: format!(" {answer}") });
        }
        let answer = ["output", "response"].into_iter().find(|name| fields.has(&["instruction", name]));
        if let Some(answer) = answer {
            let (mut asked, answer) = (fields.text("instruction")?, fields.text(answer)?);
            if fields.has(&["input"]) {
                let input = fields.text("input")?;
                if !input.trim().is_empty() {
                    asked = format!("{asked}\n\n{input}");
                }
            }
            let messages = vec![Message::new("user", &asked), Message::new("assistant", &answer)];
            return Ok(Form::Chat { messages, tools: None, from: 0 });
        }
        if fields.has(&["text"]) {
            return fields.text("text").map(Form::Text);
        }
        Err(fields.none_of(FORMS))
    }

    /// Whether it has a part that is given and not learnt.
    pub fn has_prompt(&self) -> bool {
        !matches!(self, Form::Text(_))
    }

    /// Its text in parts.
    ///
    /// # Errors
    /// The template refuses the conversation, or there is none.
    pub(super) fn parts(&self, template: Option<&ChatTemplate>, tokenizer: &Tokenizer) -> Result<Vec<Part>> {
        let spelled = |id: Option<u32>| id.map_or(String::new(), |id| tokenizer.decode(&[id]));
        match self {
            Form::Text(text) => {
                let text = format!("{}{text}{}", spelled(tokenizer.start()), spelled(tokenizer.eot()));
                Ok(vec![Part::new(text, true)])
            }
            Form::Completion { prompt, completion } => {
                let prompt = Part::new(format!("{}{prompt}", spelled(tokenizer.start())), false);
                Ok(vec![prompt, Part::new(format!("{completion}{}", spelled(tokenizer.eot())), true)])
            }
            Form::Chat { messages, tools, from } => {
                let template = template.ok_or_else(|| {
                    let hint = "give one with --set data.template=chatml, or the file of a template";
                    Error::usage("the model has no chat template, and the example is a conversation", hint)
                })?;
                let (text, spans) = template.assistant_spans(messages, tools.as_deref(), &Map::new())?;
                // Of a prompt that has turns of the assistant, these are not learnt.
                let given = messages[..*from].iter().filter(|message| message.role() == "assistant").count();
                let (mut parts, mut end) = (Vec::new(), 0);
                for span in spans.into_iter().skip(given) {
                    parts.push(Part::new(&text[end..span.start], false));
                    parts.push(Part::new(&text[span.clone()], true));
                    end = span.end;
                }
                parts.push(Part::new(&text[end..], false));
                parts.retain(|part| !part.text.is_empty());
                Ok(parts)
            }
        }
    }
}
