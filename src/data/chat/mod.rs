//! Conversations, and the templates by which they become text.
//!
//! A model that was trained to converse comes with a template in Jinja: `chat_template.jinja` beside its tokenizer, a key of
//! `tokenizer_config.json`, or one of a GGUF file. [`ChatTemplate::render`] writes what `transformers`'
//! `apply_chat_template(..., tokenize=False)` writes, byte for byte; [`ChatTemplate::assistant_spans`] says which of these bytes are the
//! assistant's, for fine-tuning on them alone. Templates are foreign programs: `engine.rs` says what bounds them.

mod engine;
mod methods;
mod python;
mod source;
mod spans;

use super::tokenizer::Tokenizer;
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use engine::Fate;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use source::Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The template of ChatML, for models that come without one: `<|im_start|>ROLE`, a line feed, what is said, `<|im_end|>`. A model
/// learns it best where its tokenizer has the two as special tokens; elsewhere they are spelled out. Calls of tools stand between marks, as
/// Hermes and Qwen write them.
pub const CHATML: &str = r#"{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{- message['content'] | default('', true) -}}
{%- for call in message['tool_calls'] | default([], true) -%}
{{- '<tool_call>\n' + '{"name": "' + call['function']['name'] + '", "arguments": ' -}}
{%- if call['function']['arguments'] is string -%}
{{- call['function']['arguments'] -}}
{%- else -%}
{{- call['function']['arguments'] | tojson -}}
{%- endif -%}
{{- '}' + '\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>' -}}{% endgeneration %}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"#;

/// A template for models whose tokenizer has no tokens for turns: `User:`, a line feed, what is said, a line feed; the
/// assistant's turn ends with the token that ends a text. Calls of tools are JSON, as Llama 3.1 writes them.
pub const PLAIN: &str = r#"{%- for message in messages -%}
{{- message['role'] | capitalize + ':\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{- message['content'] | default('', true) -}}
{%- for call in message['tool_calls'] | default([], true) -%}
{{- '{"name": "' + call['function']['name'] + '", "arguments": ' -}}
{%- if call['function']['arguments'] is string -%}
{{- call['function']['arguments'] -}}
{%- else -%}
{{- call['function']['arguments'] | tojson -}}
{%- endif -%}
{{- '}' -}}
{%- endfor -%}
{{- eos_token | default('') -}}{% endgeneration %}
{%- else -%}
{{- message['content'] -}}
{%- endif -%}
{{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'Assistant:\n' -}}
{%- endif -%}
"#;

/// The name of the template that is used, but where there are tools and one for those.
const DEFAULT: &str = "default";
const WITH_TOOLS: &str = "tool_use";

/// What one side says: an object with a `role` and whatever else the template reads, as `content` (a text or a list of parts),
/// `tool_calls`, `name`. It is read and written as that object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Json", into = "Json")]
pub struct Message(Map<String, Json>);

impl Message {
    /// A message of this role that says `content`.
    pub fn new(role: &str, content: &str) -> Message {
        Message(Map::new()).with("role", role).with("content", content)
    }

    /// The same with a field more, or another value for one.
    pub fn with(mut self, field: &str, value: impl Into<Json>) -> Message {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Who says it: `system`, `user`, `assistant`, `tool`, or what else a template knows.
    pub fn role(&self) -> &str {
        self.field("role").and_then(Json::as_str).unwrap_or_default()
    }

    /// What it says, where that is a text.
    pub fn content(&self) -> Option<&str> {
        self.field("content")?.as_str()
    }

    /// A field, where it has it.
    pub fn field(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    /// The message as `transformers` hands it to a template: without fields that are null, and with what was thought under all
    /// the names that it goes by.
    fn normal(&self) -> Json {
        let mut fields: Map<String, Json> = self
            .0
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let thought = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|name| fields.get(*name).cloned());
        if let Some(thought) = thought {
            let mut all = Map::new();
            all.insert("thinking".into(), thought.clone());
            all.append(&mut fields);
            all.insert("reasoning_content".into(), thought);
            fields = all;
        }
        Json::Object(fields)
    }
}

impl TryFrom<Json> for Message {
    type Error = String;

    fn try_from(value: Json) -> std::result::Result<Message, String> {
        match value {
            Json::Object(fields) if fields.get("role").is_some_and(Json::is_string) => Ok(Message(fields)),
            other => {
                let mut text = other.to_string();
                if let Some((end, _)) = text.char_indices().nth(80) {
                    text.replace_range(end.., "…");
                }
                Err(format!("a message is an object with a text called role, not {text}"))
            }
        }
    }
}

impl From<Message> for Json {
    fn from(message: Message) -> Json {
        Json::Object(message.0)
    }
}

/// A template that makes text of conversations. Clones are cheap.
#[derive(Clone, Debug)]
pub struct ChatTemplate(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    /// The file that it is from, and where in it.
    place: (PathBuf, &'static str),
    env: Environment<'static>,
    /// Templates by name: whether each marks what the assistant says.
    marked: Vec<(String, bool)>,
    /// Variables of every rendering: tokens by name.
    tokens: Vec<(String, String)>,
    /// Spellings of special tokens, and of those that end a turn.
    special: Vec<String>,
    ends: Vec<String>,
}

/// What a rendering is of.
#[derive(Clone, Debug)]
struct Chat {
    messages: Vec<Json>,
    tools: Option<Vec<Json>>,
    extra: Map<String, Json>,
}

impl Chat {
    fn new(messages: &[Message], tools: Option<&[Json]>, extra: &Map<String, Json>) -> Result<Chat> {
        if messages.is_empty() {
            return Err(Error::usage("a conversation of no messages", "give at least one message"));
        }
        let messages = messages.iter().map(Message::normal).collect();
        Ok(Chat { messages, tools: tools.map(<[Json]>::to_vec), extra: extra.clone() })
    }

    /// About the bytes of it.
    fn size(&self) -> usize {
        let size = |value: &Json| value.to_string().len();
        let lists = self.messages.iter().chain(self.tools.iter().flatten()).chain(self.extra.values());
        lists.map(size).sum()
    }
}

impl ChatTemplate {
    /// The template `source`, in which tokens have these names: `[("bos_token", "<s>")]`.
    ///
    /// # Errors
    /// It is no template in Jinja, or longer than 256 KiB.
    pub fn new(source: &str, tokens: &[(&str, &str)]) -> Result<ChatTemplate> {
        let tokens: Vec<_> = tokens.iter().map(|(name, token)| ((*name).to_owned(), (*token).to_owned())).collect();
        let special: Vec<String> = tokens.iter().map(|(_, token)| token.clone()).collect();
        ChatTemplate::build(
            ("chat template".into(), ""),
            vec![(DEFAULT.into(), source.into())],
            tokens,
            special,
            Vec::new(),
        )
    }

    /// The template that came with a tokenizer, with its tokens; none where it came with none.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`]; there are several, none of them called `default`.
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        let (sources, place) = (tokenizer.chat_templates(), tokenizer.chat_template_place());
        if sources.is_empty() {
            return Ok(None);
        }
        if sources.iter().all(|(name, _)| name != DEFAULT) {
            let names: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
            let hint = "call the one that is to be used default";
            return Err(Error::format(place.0, place.1, "a template called default", names.join(", "), hint));
        }
        ChatTemplate::with(place, sources, tokenizer).map(Some)
    }

    /// The template in the file `name`, or [`CHATML`] or [`PLAIN`] where `chatml` or `plain` is its name, with the tokens of `tokenizer`.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`]; the file cannot be read.
    pub fn named(name: &Path, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        ChatTemplate::with((name.to_owned(), ""), vec![(DEFAULT.into(), ChatTemplate::source(name)?)], tokenizer)
    }

    /// The text of the template `name`; see [`named`](ChatTemplate::named).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn source(name: &Path) -> Result<String> {
        match name.to_str() {
            Some("chatml") => Ok(CHATML.to_owned()),
            Some("plain") => Ok(PLAIN.to_owned()),
            _ => disk::text(&Os, name, engine::MAX_SOURCE as u64),
        }
    }

    fn with(
        place: (PathBuf, &'static str),
        sources: Vec<(String, String)>,
        tokenizer: &Tokenizer,
    ) -> Result<ChatTemplate> {
        let spelled =
            |id: &u32| tokenizer.special().iter().find(|(_, special)| special == id).map(|(token, _)| token.clone());
        let ends = tokenizer.ends().iter().filter_map(spelled).collect();
        let special = tokenizer.special().iter().map(|(token, _)| token.clone()).collect();
        let mut tokens = tokenizer.named_tokens();
        if let Some(end) = tokenizer.eot().as_ref().and_then(spelled)
            && tokens.iter().all(|(name, _)| name != "eos_token")
        {
            tokens.push(("eos_token".into(), end));
        }
        ChatTemplate::build(place, sources, tokens, special, ends)
    }

    fn build(
        place: (PathBuf, &'static str),
        sources: Vec<(String, String)>,
        tokens: Vec<(String, String)>,
        special: Vec<String>,
        mut ends: Vec<String>,
    ) -> Result<ChatTemplate> {
        let sources: Vec<_> = sources.into_iter().filter(|(name, _)| name == DEFAULT || name == WITH_TOOLS).collect();
        let long = sources.iter().map(|(_, source)| source.len()).find(|bytes| *bytes > engine::MAX_SOURCE);
        ends.extend(tokens.iter().filter(|(name, _)| name == "eos_token").map(|(_, token)| token.clone()));
        let mut inner = Inner { place, env: Environment::empty(), marked: Vec::new(), tokens, special, ends };
        if let Some(bytes) = long {
            let expected = format!("a template of at most {} bytes", engine::MAX_SOURCE);
            return Err(inner.error(None, &expected, format!("{bytes} bytes"), "use another template"));
        }
        let mut rewritten = Vec::new();
        for (name, source) in sources {
            let source = Source::new(&source).map_err(|line| {
                let expected = format!("tags of at most {} bytes beside texts", source::MAX_TAG);
                inner.error(Some(line), &expected, "a longer one", "cut it in two, or use another template")
            })?;
            inner.marked.push((name.clone(), source.marked));
            rewritten.push((name, source));
        }
        match engine::apart(engine::PATIENCE, move || engine::environment(&rewritten)) {
            Fate::Done(Ok(env)) => inner.env = env,
            Fate::Done(Err(e)) => return Err(inner.explain(&e)),
            Fate::Late => return Err(inner.late()),
            Fate::Lost(why) => return Err(lost(why)),
        }
        Ok(ChatTemplate(Arc::new(inner)))
    }

    /// The same on a fixed day, as `2024-07-26`, for templates that write what day it is: what is trained on should not change from
    /// day to day.
    ///
    /// # Errors
    /// It is no date.
    pub fn dated(mut self, day: &str) -> Result<ChatTemplate> {
        let noon = chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(12, 0, 0));
        let noon = noon.ok_or_else(|| Error::usage(format!("{day:?} is no date"), "write it as 2024-07-26"))?;
        engine::set_clock(&mut Arc::make_mut(&mut self.0).env, Some(noon));
        Ok(self)
    }

    /// The text of a conversation. `tools` are JSON schemas of what the model may call; `add_generation_prompt` appends what comes
    /// before an answer; `extra` are more variables for the template, as `enable_thinking`.
    ///
    /// # Errors
    /// There are no messages; the template refuses them (the error has its words), fails, or goes beyond its bounds.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Json]>,
        add_generation_prompt: bool,
        extra: &Map<String, Json>,
    ) -> Result<String> {
        let chat = Chat::new(messages, tools, extra)?;
        self.apart(move |inner| inner.render(&chat, add_generation_prompt, None))
    }

    /// The text of a conversation, and which bytes of it the model is to say: each message of the assistant with the token that ends
    /// its turn, and without the header that a prompt gives. Where the template has `{% generation %}` blocks it is what they hold;
    /// elsewhere it is found by rendering the messages before each, as a prompt, and those up to it, and verifying that the whole
    /// starts with them; where a template writes its last message otherwise, a turn ends with its first token that ends turns.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; or the template writes a message differently when others follow it, so that kiln cannot tell.
    pub fn assistant_spans(
        &self,
        messages: &[Message],
        tools: Option<&[Json]>,
        extra: &Map<String, Json>,
    ) -> Result<(String, Vec<std::ops::Range<usize>>)> {
        let chat = Chat::new(messages, tools, extra)?;
        self.apart(move |inner| inner.spans(&chat))
    }

    /// Does `work` where templates run.
    fn apart<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        match engine::apart(engine::PATIENCE, move || work(&inner)) {
            Fate::Done(result) => result,
            Fate::Late => Err(self.0.late()),
            Fate::Lost(why) => Err(lost(why)),
        }
    }
}

fn lost(why: String) -> Error {
    Error::failed(why, "try again with more memory, or with another template")
}

impl Inner {
    /// The text of `chat`, with `marks` around what the assistant says.
    fn render(&self, chat: &Chat, add_generation_prompt: bool, marks: Option<&str>) -> Result<String> {
        let mut variables: Vec<(&str, Value)> = vec![("documents", Value::from(()))];
        variables.extend(self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        variables.extend(chat.extra.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        variables.push(("messages", Value::from(Serde(&chat.messages))));
        variables.push(("tools", Value::from(Serde(&chat.tools))));
        variables.push(("add_generation_prompt", Value::from(add_generation_prompt)));
        variables.extend(marks.map(|marks| (engine::MARKS, Value::from(marks))));
        let fuel = engine::fuel(chat.size());
        engine::render(&self.env, self.name(chat), Value::from_pairs(variables), fuel).map_err(|e| self.explain(&e))
    }

    /// The template for `chat`.
    fn name(&self, chat: &Chat) -> &str {
        let for_tools = chat.tools.is_some() && self.marked.iter().any(|(name, _)| name == WITH_TOOLS);
        if for_tools { WITH_TOOLS } else { DEFAULT }
    }

    fn error(&self, line: Option<usize>, expected: &str, found: impl ToString, hint: &str) -> Error {
        let line = line.map(|line| format!("line {line}"));
        let at: Vec<&str> =
            [self.place.1, line.as_deref().unwrap_or_default()].into_iter().filter(|at| !at.is_empty()).collect();
        let at = if at.is_empty() { "template".to_owned() } else { at.join(", ") };
        Error::format(&self.place.0, at, expected, found, hint)
    }

    fn late(&self) -> Error {
        let found = format!("one that still runs after {} s", engine::PATIENCE.as_secs());
        self.error(None, "a template that comes to an end", found, "use another template")
    }

    /// An error of the engine as ours.
    fn explain(&self, e: &minijinja::Error) -> Error {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(e);
        while let Some(error) = source {
            if let Some(raised) = error.downcast_ref::<engine::Raised>() {
                let hint =
                    "the template itself refuses this conversation: change its messages, their roles or their order";
                return self.error(e.line(), "a conversation that the template takes", format!("{:?}", raised.0), hint);
            }
            source = error.source();
        }
        let found = match e.detail() {
            Some(detail) => format!("{}: {detail}", e.kind()),
            None => e.kind().to_string(),
        };
        match e.kind() {
            ErrorKind::SyntaxError | ErrorKind::BadEscape => {
                self.error(e.line(), "a chat template in Jinja", found, "repair the template, or use another")
            }
            ErrorKind::OutOfFuel => {
                let expected = "a template that does little for each message";
                self.error(
                    e.line(),
                    expected,
                    "one that goes on and on, or makes too long a text",
                    "use another template",
                )
            }
            _ => {
                let hint =
                    "check that the messages have what the template reads, else repair the template or use another";
                self.error(e.line(), "a template that runs", found, hint)
            }
        }
    }
}
