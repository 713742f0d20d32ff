//! What is asked: requests of OpenAI's kind, checked field by field, as jobs for the engine.
//!
//! Fields that would change the answer and that kiln has not are refused unless they have the value that changes nothing;
//! others are passed over, as other servers do.

use super::{Refusal, Server, tools};
use crate::data::chat::Message;
use crate::model::sample::{Constraint, SampleOptions};
use crate::model::sequence::Report;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Texts that one request may ask for.
const MAX_TEXTS: usize = 64;
/// Strings that may end a text, and bytes of one.
const MAX_STOPS: [usize; 2] = [16, 256];
/// Likeliest tokens that are told.
const MAX_TOP: usize = 20;

/// A request that can be answered.
pub struct Plan {
    /// The texts, those of the first prompt first.
    pub texts: Vec<Text>,
    /// How many go on from each prompt.
    pub each: usize,
    /// Of what kind the answer is.
    pub kind: Kind,
    /// Whether it comes piece by piece.
    pub stream: bool,
    /// Whether a stream ends with the number of tokens.
    pub usage: bool,
}

/// A text to write.
pub struct Text {
    /// What it begins with.
    pub ids: Vec<u32>,
    /// How it goes on.
    pub options: SampleOptions,
    /// What ends it.
    pub stop: Vec<String>,
    /// Which log-probabilities are wanted.
    pub report: Option<Report>,
    /// What it has to look like.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// Of what kind an answer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A text that goes on; with `echo` the answer begins with the prompt.
    Completion {
        /// Whether it does.
        echo: bool,
    },
    /// A turn of a conversation.
    Chat {
        /// Whether it may call tools: then it is told when it is whole.
        tools: bool,
        /// The tool that it has to call, where it has to.
        forced: bool,
    },
}

/// The fields of a request.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A number from `low` to `high`.
    fn number(&self, key: &str, [low, high]: [f64; 2], default: f64) -> Result<f32, Refusal> {
        let Some(value) = self.get(key) else { return Ok(default as f32) };
        let number = value.as_f64().filter(|x| (low..=high).contains(x));
        let number = number.ok_or_else(|| wrong(key, &format!("a number from {low} to {high}"), value))?;
        Ok(number as f32)
    }

    /// A whole number from `low` to `high`.
    fn count(&self, key: &str, [low, high]: [usize; 2]) -> Result<Option<usize>, Refusal> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let number = number.filter(|n| (low..=high).contains(n));
        number.map(Some).ok_or_else(|| wrong(key, &format!("a whole number from {low} to {high}"), value))
    }

    fn flag(&self, key: &str) -> Result<bool, Refusal> {
        self.get(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(key, "true or false", value)))
    }

    /// A field that may only say what kiln does anyway.
    fn only(&self, key: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Refusal> {
        match self.get(key) {
            Some(value) if !fits(value) => Err(Refusal::bad(key, "is not supported by this server: leave it out")),
            _ => Ok(()),
        }
    }

    fn stop(&self) -> Result<Vec<String>, Refusal> {
        let [most, longest] = MAX_STOPS;
        let all = match self.get("stop") {
            None => return Ok(Vec::new()),
            Some(Value::String(one)) => vec![one.clone()],
            Some(value) => {
                let texts = value
                    .as_array()
                    .and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
                texts.ok_or_else(|| wrong("stop", "a string or a list of strings", value))?
            }
        };
        if all.len() > most || all.iter().any(|stop| stop.len() > longest) {
            return Err(Refusal::bad("stop", format!("at most {most} strings of {longest} bytes")));
        }
        Ok(all)
    }

    fn options(&self, server: &Server, prompt: usize, tokens: Option<usize>) -> Result<SampleOptions, Refusal> {
        let context = server.engine.config().context;
        let seed = match self.get("seed") {
            None => fresh_seed(),
            Some(value) => {
                value.as_i64().map(|seed| seed as u64).ok_or_else(|| wrong("seed", "a whole number", value))?
            }
        };
        let room = context - prompt;
        Ok(SampleOptions {
            tokens: tokens.unwrap_or(usize::MAX).min(server.max_tokens).min(room),
            temperature: self.number("temperature", [0.0, 10.0], 1.0)?,
            top_p: self.number("top_p", [0.0, 1.0], 1.0)?,
            top_k: self.count("top_k", [0, 1 << 20])?.unwrap_or(0),
            min_p: self.number("min_p", [0.0, 1.0], 0.0)?,
            repetition_penalty: self.number("repetition_penalty", [0.01, 100.0], 1.0)?,
            seed,
        })
    }

    /// What changes nothing where it says so.
    fn unsupported(&self) -> Result<(), Refusal> {
        for key in ["presence_penalty", "frequency_penalty"] {
            self.only(key, |value| value.as_f64() == Some(0.0))?;
        }
        self.only("logit_bias", |value| value.as_object().is_some_and(Map::is_empty))?;
        self.only("suffix", |value| value == "")?;
        self.only("best_of", |value| value == 1)
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Refusal {
    let mut found = found.to_string();
    if found.chars().count() > 60 {
        found = found.chars().take(60).collect::<String>() + "…";
    }
    Refusal::bad(key, format!("expected {expected}, found {found}"))
}

/// A seed for a text that may be any.
fn fresh_seed() -> u64 {
    use rand::TryRngCore;
    rand::rngs::OsRng.try_next_u64().unwrap_or(1)
}

/// The ids of a prompt, which has to leave room in the context.
fn fits(server: &Server, ids: Vec<u32>, key: &str, room: usize) -> Result<Vec<u32>, Refusal> {
    let config = server.engine.config();
    if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab) {
        return Err(Refusal::bad(key, format!("{id} is no token: the model has {}", config.vocab)));
    }
    if ids.len() + room > config.context {
        let problem = format!("{} tokens, but the model's context is {} tokens", ids.len(), config.context);
        return Err(Refusal::bad(key, problem));
    }
    Ok(ids)
}

/// The prompts of a completion: a text or ids, or several.
fn prompts(server: &Server, value: &Value, room: usize) -> Result<Vec<Vec<u32>>, Refusal> {
    let what = "a string, a list of strings, or one or more lists of token ids";
    let bad = || wrong("prompt", what, value);
    let ids = |one: &Value| -> Result<Vec<u32>, Refusal> {
        let ids = match one {
            Value::String(text) => crate::train::text::start(server.engine.tokenizer(), text)
                .map_err(|e| Refusal::bad("prompt", e.to_string()))?,
            Value::Array(ids) => ids
                .iter()
                .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
                .collect::<Option<Vec<u32>>>()
                .filter(|ids| !ids.is_empty())
                .ok_or_else(bad)?,
            _ => return Err(bad()),
        };
        fits(server, ids, "prompt", room)
    };
    match value {
        Value::Array(all) if all.first().is_some_and(|first| !first.is_number()) => all.iter().map(ids).collect(),
        one => Ok(vec![ids(one)?]),
    }
}

/// `POST /v1/completions`.
pub fn completion(server: &Server, asked: &Value) -> Result<Plan, Refusal> {
    let fields = Fields(asked.as_object().expect("an object"));
    fields.unsupported()?;
    let echo = fields.flag("echo")?;
    let tokens = fields.count("max_tokens", [0, 1 << 30])?.unwrap_or(16);
    if tokens == 0 && !echo {
        return Err(Refusal::bad("max_tokens", "0 tokens are none, unless echo is true"));
    }
    let prompt = fields.get("prompt").ok_or_else(|| Refusal::bad("prompt", "is missing"))?;
    let prompts = prompts(server, prompt, usize::from(tokens > 0 && !echo))?;
    let n = fields.count("n", [1, MAX_TEXTS])?.unwrap_or(1);
    if prompts.len() * n > MAX_TEXTS {
        return Err(Refusal::bad("prompt", format!("{} texts, of at most {MAX_TEXTS}", prompts.len() * n)));
    }
    let top = fields.count("logprobs", [0, MAX_TOP])?;
    let stop = fields.stop()?;
    let mut texts = Vec::new();
    for ids in prompts {
        let options = fields.options(server, ids.len(), Some(tokens))?;
        for i in 0..n as u64 {
            let options = SampleOptions { seed: options.seed.wrapping_add(i), ..options };
            let report = top.map(|top| Report { top, prompt: echo });
            texts.push(Text { ids: ids.clone(), options, stop: stop.clone(), report, constraint: None });
        }
    }
    Ok(Plan { texts, each: n, kind: Kind::Completion { echo }, stream: fields.flag("stream")?, usage: usage(&fields) })
}

fn usage(fields: &Fields) -> bool {
    fields.get("stream_options").is_some_and(|options| options["include_usage"] == true)
}

/// `POST /v1/chat/completions`.
pub fn chat(server: &Server, asked: &Value) -> Result<Plan, Refusal> {
    let fields = Fields(asked.as_object().expect("an object"));
    fields.unsupported()?;
    let Some(template) = &server.template else {
        let problem = "this model has no chat template: ask /v1/completions instead";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, problem));
    };
    let messages = fields.get("messages").ok_or_else(|| Refusal::bad("messages", "is missing"))?;
    let messages = messages.as_array().filter(|all| !all.is_empty());
    let messages = messages.ok_or_else(|| Refusal::bad("messages", "expected a list of at least one message"))?;
    let message = |(i, message): (usize, &Value)| {
        Message::try_from(message.clone()).map_err(|e| Refusal::bad(format!("messages[{i}]"), e))
    };
    let messages = messages.iter().enumerate().map(message).collect::<Result<Vec<_>, _>>()?;
    let tools = tools::asked(asked)?;
    let extra = match fields.get("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(extra)) => extra.clone(),
        Some(value) => return Err(wrong("chat_template_kwargs", "an object", value)),
    };
    let rendered = template.render(&messages, tools.shown.as_deref(), true, &extra);
    let rendered = rendered.map_err(|e| Refusal::bad("messages", e.to_string()))?;
    let ids = server.engine.tokenizer().encode_with_special(&rendered);
    let ids = fits(server, ids.map_err(|e| Refusal::bad("messages", e.to_string()))?, "messages", 1)?;
    if ids.is_empty() {
        return Err(Refusal::bad("messages", "nothing is said"));
    }
    let key = if fields.get("max_tokens").is_some() { "max_tokens" } else { "max_completion_tokens" };
    let tokens = fields.count(key, [1, 1 << 30])?;
    let options = fields.options(server, ids.len(), tokens)?;
    let n = fields.count("n", [1, MAX_TEXTS])?.unwrap_or(1);
    let top = fields.count("top_logprobs", [0, MAX_TOP])?;
    let report = fields.flag("logprobs")?.then(|| Report { top: top.unwrap_or(0), prompt: false });
    let shape = match (tools.forced, shape(&fields)?) {
        (Some(shape), None) => Some(shape),
        (None, shape) => shape,
        _ => return Err(Refusal::bad("response_format", "cannot be had with a tool that has to be called")),
    };
    let kind = Kind::Chat { tools: tools.shown.is_some(), forced: tools.must };
    let stop = fields.stop()?;
    let text = |i: u64| {
        let constraint = match &shape {
            Some(shape) => Some(server.schemas.constraint(shape).map_err(|e| Refusal::bad("schema", e.to_string()))?),
            None => None,
        };
        let options = SampleOptions { seed: options.seed.wrapping_add(i), ..options };
        Ok(Text { ids: ids.clone(), options, stop: stop.clone(), report, constraint })
    };
    let texts = (0..n as u64).map(text).collect::<Result<_, Refusal>>()?;
    Ok(Plan { texts, each: n, kind, stream: fields.flag("stream")?, usage: usage(&fields) })
}

/// What `response_format` asks for.
fn shape(fields: &Fields) -> Result<Option<Value>, Refusal> {
    let Some(format) = fields.get("response_format") else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") => {
            let schema = &format["json_schema"]["schema"];
            match schema.is_object() {
                true => Ok(Some(schema.clone())),
                false => Err(wrong("response_format.json_schema.schema", "a JSON schema", schema)),
            }
        }
        _ => Err(wrong("response_format.type", "text, json_object or json_schema", &format["type"])),
    }
}
