//! A model behind a server that speaks OpenAI's HTTP, asked by the program `curl`, which knows proxies and certificates.

use super::model::{Model, Score, Writing};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// How often a request is made that the server had no time for.
const TRIES: u32 = 5;

/// A server and one of its models.
pub struct Endpoint {
    name: String,
    /// Up to `/v1`.
    url: String,
    model: String,
    key: Option<String>,
    chat: bool,
}

/// What became of a request.
enum Reply {
    Good(Value),
    /// It may go well later.
    Busy(Error),
    Bad(Error),
}

impl Endpoint {
    /// The model `model` of the server at `url`, as `http://127.0.0.1:8080/v1`; `key` is told it in the header, and with `chat` prompts are
    /// what a user says. Where no model is named, the server's first one is asked.
    ///
    /// # Errors
    /// The address is none; nobody answers there.
    pub fn new(url: &str, model: Option<&str>, key: Option<String>, chat: bool) -> Result<Endpoint> {
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::usage(format!("--endpoint {url}: no address"), "give it as http://127.0.0.1:8080/v1"));
        }
        if url.contains(|c: char| c.is_control() || c == '"' || c == '\\' || c == ' ') {
            return Err(Error::usage("--endpoint: no address", "give it as http://127.0.0.1:8080/v1"));
        }
        let mut endpoint = Endpoint { name: String::new(), url: url.to_owned(), model: String::new(), key, chat };
        endpoint.model = match model {
            Some(model) => model.to_owned(),
            None => {
                let models = endpoint.ask("models", None)?;
                let first = models["data"][0]["id"].as_str();
                first.ok_or_else(|| endpoint.strange("models", "a list of models", &models))?.to_owned()
            }
        };
        endpoint.name = endpoint.model.clone();
        Ok(endpoint)
    }

    fn strange(&self, path: &str, expected: &str, found: &Value) -> Error {
        let found: String = found.to_string().chars().take(200).collect();
        let hint = "kiln eval needs a server that speaks OpenAI's HTTP; kiln serve does";
        Error::format(format!("{}/{path}", self.url), "the answer", expected, found, hint)
    }

    /// Posts `body`, or gets; again where the server is busy.
    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut wait = Duration::from_millis(500);
        for attempt in 1.. {
            match self.once(path, body)? {
                Reply::Good(value) => return Ok(value),
                Reply::Busy(_) if attempt < TRIES => std::thread::sleep(wait),
                Reply::Busy(error) | Reply::Bad(error) => return Err(error),
            }
            wait *= 2;
        }
        unreachable!("the last try ends it")
    }

    fn once(&self, path: &str, body: Option<&Value>) -> Result<Reply> {
        let url = format!("{}/{path}", self.url);
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--proto", "=http,https", "--connect-timeout", "20"]);
        command.args(["--max-time", "600", "--write-out", "\n%{http_code}", "--config", "-", "--url", &url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::failed("the program curl, which speaks to servers, is not there", "install curl")
            }
            _ => Error::failed(format!("curl does not start: {e}"), "see whether curl works by itself"),
        })?;
        // The key and the texts are told by a pipe: arguments are everybody's to read.
        let mut config = String::new();
        let mut line = |name: &str, value: &str| {
            config += &format!("{name} = \"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\""));
        };
        if let Some(key) = &self.key {
            line("header", &format!("Authorization: Bearer {key}"));
        }
        if let Some(body) = body {
            line("header", "Content-Type: application/json");
            line("data-binary", &body.to_string());
        }
        let mut pipe = child.stdin.take().expect("it is piped");
        let told = pipe.write_all(config.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().map_err(|e| Error::failed(format!("curl: {e}"), "try again"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (text, status) = said.rsplit_once('\n').unwrap_or(("", &said));
        let failed = |problem: String| {
            let hint = "see that the server runs and what its log says; --endpoint takes its address up to /v1";
            Error::failed(format!("{url}: {problem}"), hint)
        };
        if !output.status.success() || told.is_err() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Ok(Reply::Busy(failed(if why.is_empty() { output.status.to_string() } else { why })));
        }
        let value: Value = serde_json::from_str(text).unwrap_or(Value::String(text.to_owned()));
        let why = || {
            let message = value["error"]["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
            failed(format!("status {status}: {}", message.chars().take(300).collect::<String>()))
        };
        Ok(match status {
            "200" => Reply::Good(value),
            "429" | "500" | "502" | "503" | "504" => Reply::Busy(why()),
            _ => Reply::Bad(why()),
        })
    }

    /// `one` of each, several at once.
    fn all<T: Send>(
        &self,
        count: usize,
        one: &(dyn Fn(usize) -> Result<T> + Sync),
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let mut found: Vec<Option<T>> = (0..count).map(|_| None).collect();
        std::thread::scope(|scope| {
            let (sender, done) = mpsc::channel();
            for _ in 0..AT_ONCE.min(count) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Relaxed);
                        if i >= count || sender.send((i, one(i))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (n, (i, value)) in (1..).zip(done) {
                let value = value.and_then(|value| told(n).map(|()| value));
                // The others end after what they are at.
                found[i] = Some(value.inspect_err(|_| next.store(count, Relaxed))?);
            }
            Ok(found.into_iter().map(|value| value.expect("each was asked")).collect())
        })
    }

    /// How likely the tokens of `text` from its character `from` on are.
    fn likely(&self, text: &str, from: usize) -> Result<Score> {
        let body = json!({"model": self.model, "prompt": text, "max_tokens": 0, "echo": true, "logprobs": 1, "temperature": 0});
        let value = self.ask("completions", Some(&body))?;
        let logprobs = &value["choices"][0]["logprobs"];
        let strange = || {
            self.strange(
                "completions",
                "log-probabilities of the prompt (echo with logprobs), which not every server gives",
                &value,
            )
        };
        let list = |name: &str| logprobs[name].as_array().ok_or_else(strange);
        let (tokens, own, offsets) = (list("tokens")?, list("token_logprobs")?, list("text_offset")?);
        let tops = logprobs["top_logprobs"].as_array();
        let mut score = Score::NONE;
        for i in 0..tokens.len().min(own.len()).min(offsets.len()) {
            let at = offsets[i].as_u64().ok_or_else(strange)? as usize;
            // Nothing is said of the first token of all.
            let Some(nats) = own[i].as_f64().filter(|_| at >= from) else { continue };
            let best = tops.and_then(|tops| tops.get(i)?.as_object());
            let best = best.and_then(|top| top.values().filter_map(Value::as_f64).max_by(f64::total_cmp));
            score.push(nats as f32, best.is_none_or(|best| nats >= best));
        }
        if score.each.is_empty() { Err(strange()) } else { Ok(score) }
    }
}

impl Model for Endpoint {
    fn name(&self) -> &str {
        &self.name
    }

    /// Servers count prompts along, and not all of them.
    fn tokens(&self, _: &str) -> Option<usize> {
        None
    }

    fn score(&mut self, pairs: &[(&str, &str)], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        let one = |i: usize| {
            let (context, text) = pairs[i];
            self.likely(&format!("{context}{text}"), context.trim_end().chars().count())
        };
        self.all(pairs.len(), &one, told)
    }

    fn read(&mut self, texts: &[&str], told: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<Score>> {
        self.all(texts.len(), &|i| self.likely(texts[i], 0), told)
    }

    fn write(
        &mut self,
        prompts: &[&str],
        writing: &Writing,
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<String>> {
        let one = |i: usize| {
            let mut body = json!({"model": self.model, "max_tokens": writing.tokens, "temperature": writing.temperature,
                "seed": writing.seed.wrapping_add(i as u64) & 0xffff_ffff});
            if !writing.stop.is_empty() {
                body["stop"] = json!(writing.stop);
            }
            let (path, field) = match self.chat {
                true => ("chat/completions", "/choices/0/message/content"),
                false => ("completions", "/choices/0/text"),
            };
            match self.chat {
                true => body["messages"] = json!([{"role": "user", "content": prompts[i]}]),
                false => body["prompt"] = json!(prompts[i]),
            }
            let value = self.ask(path, Some(&body))?;
            let text = value.pointer(field).and_then(Value::as_str);
            text.map(str::to_owned).ok_or_else(|| self.strange(path, "a text", &value))
        };
        self.all(prompts.len(), &one, told)
    }
}
