//! Answers: what the engine tells, in OpenAI's words, whole or piece by piece.

use super::ask::{Kind, Plan};
use super::tools::calls;
use super::{Refusal, Server, now};
use crate::agent::Call;
use crate::data::Tokenizer;
use crate::infer::{Event, Finish, Job, Refused, Sink, Usage};
use crate::model::sample::Logprob;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Parts of answers that wait to be sent; a client that lets more come together is cut off.
const BEHIND: usize = 1024;

/// Where the engine puts the parts of one text.
struct Channel {
    index: usize,
    parts: Sender<(usize, Event)>,
}

impl Sink for Channel {
    fn send(&mut self, event: Event) -> bool {
        self.parts.try_send((self.index, event)).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.parts.is_closed()
    }
}

/// Has a plan carried out.
pub(super) async fn answer(server: Arc<Server>, plan: Plan, asked: Value) -> Result<Response, Refusal> {
    let (parts, mut heard) = channel(BEHIND);
    let mut choices = Vec::new();
    for (index, text) in plan.texts.into_iter().enumerate() {
        let reported = text.report.is_some();
        choices.push(Choice { prompt: text.ids.clone(), reported, ..Choice::default() });
        let sink = Box::new(Channel { index, parts: parts.clone() });
        let job = Job {
            ids: text.ids,
            options: text.options,
            stop: text.stop,
            report: text.report,
            constraint: text.constraint,
            sink,
        };
        // Those of the request that were taken are dropped with the channel.
        server.engine.submit(job).map_err(|refused| match refused {
            Refused::Full => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests wait: ask again later"),
            Refused::Closed => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
        })?;
    }
    drop(parts);
    let prefix = if matches!(plan.kind, Kind::Chat { .. }) { "chatcmpl" } else { "cmpl" };
    let id = format!("{prefix}-{}", super::guard::random_token());
    let mut teller = Teller {
        server,
        id,
        created: now(),
        kind: plan.kind,
        usage: plan.usage,
        each: plan.each,
        choices,
        asked,
        open: Vec::new(),
    };
    if plan.stream {
        let first = teller.begin();
        let body = Body::from_stream(Pieces { heard, waiting: first, teller, over: false });
        return Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response());
    }
    while let Some((index, event)) = heard.recv().await {
        teller.choices[index].take(event);
    }
    teller.whole()
}

/// What is known of one text.
#[derive(Default)]
struct Choice {
    prompt: Vec<u32>,
    text: String,
    reported: bool,
    /// Of the prompt from its second token on.
    of_prompt: Vec<Logprob>,
    logprobs: Vec<Logprob>,
    end: Option<(Finish, Usage)>,
}

impl Choice {
    fn take(&mut self, event: Event) {
        match event {
            Event::Prompt(logprobs) => self.of_prompt = logprobs,
            Event::Token { text, logprob, .. } => {
                self.text += &text;
                self.logprobs.extend(logprob);
            }
            Event::End { text, finish, usage } => {
                self.text += &text;
                self.end = Some((finish, usage));
            }
        }
    }
}

/// Puts answers into words.
struct Teller {
    server: Arc<Server>,
    id: String,
    created: u64,
    kind: Kind,
    usage: bool,
    /// How many of the choices share each prompt.
    each: usize,
    choices: Vec<Choice>,
    asked: Value,
    /// Of a stream: the choices that have begun.
    open: Vec<bool>,
}

/// A token as text: itself, or its bytes where they are no whole characters.
fn spelled(tokenizer: &Tokenizer, id: u32) -> String {
    let bytes = tokenizer.bytes_of(id);
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let hex: String = e.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("bytes:{hex}")
    })
}

/// The log-probabilities of a completion; `offset` is where the first token is in the text, in characters.
fn completion_logprobs(tokenizer: &Tokenizer, first: Option<u32>, all: &[&Logprob], mut offset: usize) -> Value {
    let [mut tokens, mut own, mut top, mut offsets] = [const { Vec::<Value>::new() }; 4];
    let mut place = |token: &str| {
        let at = offset;
        offset += token.chars().count();
        at
    };
    // Nothing comes before the first token of a text, so that it has no probability.
    if let Some(id) = first {
        let token = spelled(tokenizer, id);
        offsets.push(place(&token).into());
        tokens.push(token.into());
        own.push(Value::Null);
        top.push(Value::Null);
    }
    for logprob in all {
        let token = spelled(tokenizer, logprob.id);
        let mut likeliest = Map::new();
        for &(id, x) in &logprob.top {
            // Of two tokens that look alike the likelier one counts.
            likeliest.entry(spelled(tokenizer, id)).or_insert(x.into());
        }
        likeliest.entry(token.clone()).or_insert(logprob.logprob.into());
        offsets.push(place(&token).into());
        tokens.push(token.into());
        own.push(logprob.logprob.into());
        top.push(likeliest.into());
    }
    json!({"tokens": tokens, "token_logprobs": own, "top_logprobs": top, "text_offset": offsets})
}

/// The log-probabilities of a chat's turn.
fn chat_logprobs(tokenizer: &Tokenizer, all: &[Logprob]) -> Value {
    let one = |id: u32, logprob: f32| json!({"token": spelled(tokenizer, id), "logprob": logprob, "bytes": tokenizer.bytes_of(id)});
    let token = |logprob: &Logprob| {
        let mut value = one(logprob.id, logprob.logprob);
        value["top_logprobs"] = logprob.top.iter().map(|&(id, x)| one(id, x)).collect();
        value
    };
    json!({"content": all.iter().map(token).collect::<Vec<_>>()})
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::OutOfMemory => "error",
    }
}

fn called(id: &str, index: usize, at: usize, call: &Call) -> Value {
    let id = format!("call_{}_{index}_{at}", id.rsplit('-').next().unwrap_or(id));
    json!({"id": id, "type": "function",
        "function": {"name": call.name, "arguments": call.arguments.to_string()}})
}

impl Teller {
    fn tokenizer(&self) -> &Tokenizer {
        self.server.engine.tokenizer()
    }

    /// What all parts of the answer have.
    fn head(&self, object: &str) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.server.name})
    }

    fn total(&self) -> Value {
        let ends = self.choices.iter().filter_map(|choice| choice.end);
        // Each prompt counts once, however many texts go on from it.
        let prompt: usize = self.choices.iter().step_by(self.each).map(|choice| choice.prompt.len()).sum();
        let [mut cached, mut written] = [0; 2];
        for (_, usage) in ends {
            cached += usage.cached;
            written += usage.written;
        }
        json!({"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached.min(prompt)}})
    }

    /// The prompt as the answer repeats it.
    fn echo(&self, index: usize) -> String {
        match &self.asked["prompt"] {
            Value::String(text) => text.clone(),
            _ => self.tokenizer().decode(&self.choices[index].prompt),
        }
    }

    /// The answer as a whole.
    fn whole(self) -> Result<Response, Refusal> {
        if self.choices.iter().any(|choice| choice.end.is_none()) {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
        }
        if self.choices.iter().any(|choice| matches!(choice.end, Some((Finish::OutOfMemory, _)))) {
            return Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "there is no memory for this text"));
        }
        self.journal();
        let chat = matches!(self.kind, Kind::Chat { .. });
        let mut answer = self.head(if chat { "chat.completion" } else { "text_completion" });
        answer["choices"] = (0..self.choices.len()).map(|index| self.choice(index)).collect();
        answer["usage"] = self.total();
        Ok(Json(answer).into_response())
    }

    fn choice(&self, index: usize) -> Value {
        let choice = &self.choices[index];
        let mut reason = choice.end.map(|(why, _)| finish(why));
        let reported = choice.reported;
        let (key, value, logprobs) = match self.kind {
            Kind::Completion { echo } => {
                let text = if echo { self.echo(index) + &choice.text } else { choice.text.clone() };
                let all: Vec<&Logprob> = choice.of_prompt.iter().chain(&choice.logprobs).collect();
                let first = echo.then(|| choice.prompt[0]);
                let logprobs = reported.then(|| completion_logprobs(self.tokenizer(), first, &all, 0));
                ("text", json!(text), logprobs)
            }
            Kind::Chat { tools, forced } => {
                let (message, called) = self.message(index, tools, forced);
                if called {
                    reason = Some("tool_calls");
                }
                ("message", message, reported.then(|| chat_logprobs(self.tokenizer(), &choice.logprobs)))
            }
        };
        json!({"index": index, key: value, "logprobs": logprobs, "finish_reason": reason})
    }

    /// A turn of a conversation, and whether it calls tools.
    fn message(&self, index: usize, tools: bool, forced: bool) -> (Value, bool) {
        let text = &self.choices[index].text;
        match calls(text).filter(|_| tools || forced) {
            None => (json!({"role": "assistant", "content": text}), false),
            Some((text, calls)) => {
                let content = if text.is_empty() { Value::Null } else { text.into() };
                let calls: Vec<Value> =
                    calls.iter().enumerate().map(|(at, call)| called(&self.id, index, at, call)).collect();
                (json!({"role": "assistant", "content": content, "tool_calls": calls}), true)
            }
        }
    }

    /// Writes the answer down, where that is wanted.
    fn journal(&self) {
        let texts: Vec<&str> = self.choices.iter().map(|choice| choice.text.as_str()).collect();
        self.server.journal.request(&self.id, &self.asked, &texts);
    }

    /// A part of a stream that says something of one choice.
    fn chunk(&self, index: usize, key: &str, value: Value, logprobs: Value, reason: Option<&str>) -> Bytes {
        let chat = matches!(self.kind, Kind::Chat { .. });
        let mut chunk = self.head(if chat { "chat.completion.chunk" } else { "text_completion" });
        chunk["choices"] = json!([{"index": index, key: value, "logprobs": logprobs, "finish_reason": reason}]);
        line(&chunk)
    }

    /// What a stream begins with.
    fn begin(&mut self) -> VecDeque<Bytes> {
        self.open = vec![false; self.choices.len()];
        match self.kind {
            Kind::Completion { .. } => VecDeque::new(),
            Kind::Chat { .. } => {
                let said = json!({"role": "assistant", "content": ""});
                (0..self.choices.len()).map(|i| self.chunk(i, "delta", said.clone(), Value::Null, None)).collect()
            }
        }
    }

    /// What a stream says of an event.
    fn piece(&mut self, index: usize, event: Event, out: &mut VecDeque<Bytes>) {
        let (text, logprob, end) = match &event {
            Event::Prompt(_) => (String::new(), None, None),
            Event::Token { text, logprob, .. } => (text.clone(), logprob.clone(), None),
            Event::End { text, finish, usage } => (text.clone(), None, Some((*finish, *usage))),
        };
        self.choices[index].take(event);
        match self.kind {
            Kind::Completion { echo } => {
                let mut text = text;
                let (mut first, mut all) = (None, Vec::new());
                let offset = self.choices[index].text.chars().count() - text.chars().count();
                if echo && !std::mem::replace(&mut self.open[index], true) {
                    text = self.echo(index) + &text;
                    first = Some(self.choices[index].prompt[0]);
                    all.extend(&self.choices[index].of_prompt);
                }
                all.extend(&logprob);
                let told = self.choices[index].reported && (first.is_some() || !all.is_empty());
                let logprobs = told.then(|| completion_logprobs(self.tokenizer(), first, &all, offset));
                if !text.is_empty() || logprobs.is_some() || end.is_some() {
                    let reason = end.map(|(why, _)| finish(why));
                    out.push_back(self.chunk(index, "text", text.into(), logprobs.into(), reason));
                }
            }
            Kind::Chat { tools, forced } => {
                let whole = tools || forced;
                let told = logprob.map(|logprob| chat_logprobs(self.tokenizer(), &[logprob]));
                if !whole && (!text.is_empty() || told.is_some()) {
                    out.push_back(self.chunk(index, "delta", json!({"content": text}), told.into(), None));
                }
                let Some((why, _)) = end else { return };
                let mut reason = finish(why);
                if whole {
                    let (mut message, called) = self.message(index, tools, forced);
                    if called {
                        reason = "tool_calls";
                        let calls = message["tool_calls"].as_array_mut().expect("calls");
                        calls.iter_mut().enumerate().for_each(|(at, call)| call["index"] = at.into());
                    }
                    out.push_back(self.chunk(index, "delta", message, Value::Null, None));
                }
                out.push_back(self.chunk(index, "delta", json!({}), Value::Null, Some(reason)));
            }
        }
    }

    /// What a stream ends with.
    fn end(&self, out: &mut VecDeque<Bytes>) {
        if self.choices.iter().any(|choice| choice.end.is_none()) {
            out.push_back(line(&json!({"error": {"message": "the server is stopping", "type": "server_error"}})));
            return;
        }
        self.journal();
        if self.usage {
            let chat = matches!(self.kind, Kind::Chat { .. });
            let mut chunk = self.head(if chat { "chat.completion.chunk" } else { "text_completion" });
            chunk["choices"] = json!([]);
            chunk["usage"] = self.total();
            out.push_back(line(&chunk));
        }
        out.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}

/// An event of a stream.
fn line(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// A streamed answer.
struct Pieces {
    heard: Receiver<(usize, Event)>,
    waiting: VecDeque<Bytes>,
    teller: Teller,
    over: bool,
}

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Pieces { heard, waiting, teller, over } = self.get_mut();
        loop {
            if let Some(piece) = waiting.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if *over {
                return Poll::Ready(None);
            }
            match heard.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((index, event))) => teller.piece(index, event, waiting),
                Poll::Ready(None) => {
                    *over = true;
                    teller.end(waiting);
                }
            }
        }
    }
}
