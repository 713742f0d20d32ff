//! A model behind HTTP, asked by clients that speak it byte by byte.

use kiln::cpu::Simd;
use kiln::data::Tokenizer;
use kiln::data::chat::{CHATML, ChatTemplate};
use kiln::device::Device;
use kiln::infer::schema::Schemas;
use kiln::infer::{Engine, Limits};
use kiln::model::sample::{SampleOptions, logprob};
use kiln::model::sequence::generate;
use kiln::model::{Gpt, GptConfig, Size};
use kiln::params::Params;
use kiln::serve::{Door, Guard, Journal, OPEN, Server};
use kiln::tape::{Pass, Tape};
use kiln::tensor::Tensor;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const TOKEN: &str = "open-sesame";
pub const CONTEXT: usize = 600;

/// A model of bytes that knows nothing.
pub fn model(device: &Device) -> (Gpt, Params) {
    let config = GptConfig::llama(Size { vocab: 256, context: CONTEXT, layers: 2, heads: 2, d: 32 });
    let (gpt, decls) = Gpt::new(config);
    let params = Params::new(device, &decls, 5);
    (gpt, params)
}

pub fn device() -> Device {
    Device::cpu_with(Simd::detect().expect("a level"), 1)
}

/// A server that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(limits: Limits, journal: Journal) -> Running {
        Running::with(limits, journal, Duration::from_secs(30))
    }

    fn with(limits: Limits, journal: Journal, patience: Duration) -> Running {
        let device = device();
        let (gpt, params) = model(&device);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let engine = Engine::start(gpt, params, &device, Tokenizer::bytes(), limits);
        let server = Server {
            schemas: Schemas::new(engine.tokenizer().clone(), 256),
            engine,
            name: "tiny".into(),
            template: Some(ChatTemplate::new(CHATML, &[]).expect("a template")),
            door: Arc::new(Door {
                guard: Guard::new(address, Some(TOKEN.into())),
                open: OPEN,
                max_body: 20_000,
                connections: 64,
                patience,
            }),
            max_tokens: usize::MAX,
            journal,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            server.run(listener, || told.load(Ordering::SeqCst)).expect("it served");
        });
        Running { address, stop, thread: Some(thread) }
    }

    pub fn plain() -> Running {
        Running::start(Limits { lanes: 4, waiting: 64, cache: 1 << 26 }, Journal::default())
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        stream.write_all(request.as_bytes()).expect("it takes the request");
        stream
    }

    /// A request's head and body.
    fn words(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let (host, length) = (self.address, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        read(self.send(&self.words(method, path, headers, body)))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, &usual(), &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}")))
    }

    fn good(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a streamed answer but the last, which says that it is.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.ask("POST", path, &usual(), &body.to_string());
        assert_eq!(status, 200, "{text}");
        let mut events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
        let data = |event: &str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
        events.into_iter().map(data).collect()
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ask("GET", "/metrics", &usual(), "");
        let line = text.lines().find(|line| line.starts_with(&format!("kiln_{name} ")));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let done = self.thread.take().expect("a thread").join();
        assert!(done.is_ok() || std::thread::panicking());
    }
}

fn usual() -> String {
    format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n")
}

/// The status and the body of an answer, whole or in chunks.
pub fn read(stream: TcpStream) -> (u16, String) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut chunked = false;
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        chunked |= line.to_lowercase().starts_with("transfer-encoding: chunked");
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    if !chunked {
        reader.read_to_end(&mut body).expect("a body");
        return (status, String::from_utf8(body).expect("text"));
    }
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a chunk");
        let Ok(size) = usize::from_str_radix(line.trim(), 16) else { panic!("the stream broke off: {line:?}") };
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).expect("a chunk");
        if size == 0 {
            return (status, String::from_utf8(body).expect("text"));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// What the model writes after `prompt`.
fn alone(prompt: &str, options: &SampleOptions) -> String {
    let device = device();
    let (gpt, params) = model(&device);
    let tokenizer = Tokenizer::bytes();
    let ids = kiln::train::text::start(&tokenizer, prompt).expect("ids");
    let mut written = Vec::new();
    generate(&gpt, &params, &mut Tape::new(&device), ids, tokenizer.ends(), options, &mut |id| {
        written.push(id);
        true
    });
    tokenizer.decode(&written)
}

#[test]
fn a_completion_is_what_the_model_writes_whole_or_in_pieces() {
    let server = Running::plain();
    let options = SampleOptions { tokens: 24, temperature: 0.8, top_p: 0.9, seed: 7, ..SampleOptions::default() };
    let want = alone("Once upon", &options);
    let mut ask = json!({"model": "any", "prompt": "Once upon", "max_tokens": 24, "temperature": 0.8, "top_p": 0.9,
        "seed": 7});
    let answer = server.good("/v1/completions", &ask);
    assert_eq!(answer["choices"][0]["text"], want);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["object"], "text_completion");
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(9), &json!(24)));
    ask["stream"] = true.into();
    ask["stream_options"] = json!({"include_usage": true});
    let events = server.stream("/v1/completions", &ask);
    let (usage, events) = events.split_last().expect("events");
    let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().expect("text")).collect();
    assert_eq!(text, want);
    assert_eq!(events.last().expect("an event")["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["usage"]["completion_tokens"], 24);
    // The same prompt as ids, twice, with another seed for the second text.
    let ids: Vec<u32> = "Once upon".bytes().map(u32::from).collect();
    let answer = server.good(
        "/v1/completions",
        &json!({"prompt": [ids, ids], "n": 2, "max_tokens": 24,
        "temperature": 0.8, "top_p": 0.9, "seed": 7}),
    );
    let texts: Vec<&Value> =
        answer["choices"].as_array().expect("choices").iter().map(|choice| &choice["text"]).collect();
    // Two prompts of 9, each read once for what it says.
    assert_eq!(answer["usage"]["prompt_tokens"], 18);
    assert!(texts.len() == 4 && texts[0] == &want && texts[2] == &want && texts[1] != &want, "{texts:?}");
}

/// What lm-evaluation-harness asks: the log-probabilities of a given text, of which it drops the last token, a new one.
#[test]
fn an_echo_tells_the_log_probabilities_of_the_prompt() {
    let server = Running::plain();
    let prompt: Vec<u32> = "The house is h\u{fffd}gh".bytes().map(u32::from).collect();
    let answer = server.good(
        "/v1/completions",
        &json!({"prompt": [prompt], "echo": true, "logprobs": 2, "max_tokens": 1,
        "temperature": 0, "seed": 1234}),
    );
    let told = &answer["choices"][0]["logprobs"];
    let own = told["token_logprobs"].as_array().expect("a list");
    assert_eq!(own.len(), prompt.len() + 1);
    assert!(own[0].is_null() && told["top_logprobs"][0].is_null());
    let device = device();
    let (gpt, params) = model(&device);
    let mut tape = Tape::new(&device);
    tape.begin(&params, Pass::default());
    let ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
    let logits = gpt.logits(tape.constant(Tensor::from_slice(&device, &ids, [1, ids.len()]))).value();
    for (i, row) in logits.f32().chunks(256).enumerate().take(prompt.len() - 1) {
        let want = logprob(row, prompt[i + 1], 2);
        assert_eq!(own[i + 1].as_f64().expect("a number") as f32, want.logprob, "token {i}");
        let likeliest = told["top_logprobs"][i + 1].as_object().expect("an object");
        let most = likeliest.values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(most as f32, want.top[0].1);
    }
    assert_eq!(told["tokens"][0], "T");
    assert_eq!(told["tokens"][14], "bytes:\\xef");
    assert_eq!(told["text_offset"][3], 3);
    let text = answer["choices"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with("The house is h\u{fffd}gh"), "{text}");
    // Nothing new, and in pieces.
    let events = server.stream(
        "/v1/completions",
        &json!({"prompt": [prompt], "echo": true, "logprobs": 0,
        "max_tokens": 0, "stream": true}),
    );
    let told: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["token_logprobs"].as_array())
        .flatten()
        .collect();
    assert_eq!(told.len(), prompt.len());
    assert_eq!(told[1..], own.iter().collect::<Vec<_>>()[1..prompt.len()]);
}

#[test]
fn stop_strings_end_a_text_and_are_not_shown() {
    let server = Running::plain();
    let options = SampleOptions { tokens: 60, seed: 3, ..SampleOptions::default() };
    let whole = alone("x", &options);
    let stop: String = whole.chars().skip(20).take(2).collect();
    let answer = server.good("/v1/completions", &json!({"prompt": "x", "max_tokens": 60, "seed": 3, "stop": [stop]}));
    let end = whole.find(&stop).expect("it is there");
    assert_eq!(answer["choices"][0]["text"], whole[..end]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn many_at_once_are_all_answered_and_none_mixed_up() {
    let server = Running::plain();
    let prompts: Vec<String> = (0..40).map(|i| format!("{} is the number {i}. ", "word ".repeat(i % 13))).collect();
    let options = |i: usize| SampleOptions { tokens: 3 + i % 17, seed: i as u64, ..SampleOptions::default() };
    std::thread::scope(|scope| {
        for (i, prompt) in prompts.iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                let SampleOptions { tokens, seed, .. } = options(i);
                let ask = json!({"prompt": prompt, "max_tokens": tokens, "seed": seed, "stream": i % 2 == 0});
                let got: String = if i % 2 == 0 {
                    let events = server.stream("/v1/completions", &ask);
                    events.iter().map(|event| event["choices"][0]["text"].as_str().expect("text")).collect()
                } else {
                    server.good("/v1/completions", &ask)["choices"][0]["text"].as_str().expect("text").to_owned()
                };
                assert_eq!(got, alone(prompt, &options(i)), "{i}");
            });
        }
    });
    assert_eq!(server.metric("requests_ended_total"), 40.0);
    assert_eq!((server.metric("requests_active"), server.metric("requests_waiting")), (0.0, 0.0));
}

#[test]
fn too_many_are_refused_and_who_goes_away_makes_room() {
    let server = Running::start(Limits { lanes: 1, waiting: 1, cache: 1 << 26 }, Journal::default());
    // Endless, but for the context.
    let long = json!({"prompt": "a", "max_tokens": 500, "stream": true}).to_string();
    let request = server.words("POST", "/v1/completions", &usual(), &long);
    let first = server.send(&request);
    server.until("the first is written", || server.metric("requests_active") == 1.0);
    let second = server.send(&request);
    server.until("the second waits", || server.metric("requests_waiting") >= 1.0);
    let mut refused = 0;
    for _ in 0..3 {
        let (status, answer) = server.post("/v1/completions", &json!({"prompt": "b", "max_tokens": 1}));
        // The first may have come to its end by now.
        refused += usize::from(status == 429);
        assert!(status == 200 || answer["error"]["type"] == "rate_limit_error", "{answer}");
    }
    drop((first, second));
    server.until("both are gone", || server.metric("requests_active") + server.metric("requests_waiting") == 0.0);
    assert_eq!(server.metric("requests_refused_total"), f64::from(refused as u32));
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "b", "max_tokens": 1})).0, 200);
}

#[test]
fn a_conversation_goes_on_from_what_was_read() {
    let server = Running::plain();
    let mut messages = vec![json!({"role": "user", "content": "Hello, how do you do? ".repeat(5)})];
    let ask = |messages: &[Value]| {
        server
            .good("/v1/chat/completions", &json!({"messages": messages, "max_tokens": 20, "seed": 1, "temperature": 0}))
    };
    let first = ask(&messages);
    assert_eq!(first["object"], "chat.completion");
    assert_eq!(first["choices"][0]["message"]["role"], "assistant");
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    // The same again is the same, though it is not read again.
    let again = ask(&messages);
    assert_eq!(again["choices"], first["choices"]);
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    assert_eq!(cached + 1, first["usage"]["prompt_tokens"].as_u64().expect("a number"));
    messages.push(first["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "Go on."}));
    let third = ask(&messages);
    assert!(third["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(100), "{third}");
    let events = server.stream(
        "/v1/chat/completions",
        &json!({"messages": messages, "max_tokens": 20, "seed": 1,
        "temperature": 0, "stream": true, "logprobs": true, "top_logprobs": 1}),
    );
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, third["choices"][0]["message"]["content"]);
    let told = events.iter().filter(|event| event["choices"][0]["logprobs"]["content"].is_array()).count();
    assert_eq!(told, 20);
}

#[test]
fn answers_fit_what_was_asked_for() {
    let server = Running::plain();
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let parameters = json!({"type": "object", "properties": {"side": {"enum": ["left", "right"]}}, "required": ["side"],
        "additionalProperties": false});
    let messages = json!([{"role": "user", "content": "Turn."}]);
    let ask = json!({"messages": messages, "tools": [tool("turn", parameters), tool("stop", Value::Null)],
        "tool_choice": {"type": "function", "function": {"name": "turn"}}, "seed": 1});
    let answer = server.good("/v1/chat/completions", &ask);
    let (message, reason) = (&answer["choices"][0]["message"], &answer["choices"][0]["finish_reason"]);
    assert_eq!((reason, &message["content"]), (&json!("tool_calls"), &Value::Null));
    let call = &message["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("turn")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().expect("a text")).expect("JSON");
    assert!(arguments == json!({"side": "left"}) || arguments == json!({"side": "right"}), "{arguments}");
    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    let events = server.stream("/v1/chat/completions", &streamed);
    let calls: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert_eq!((calls.len(), &calls[0]["function"]), (1, &call["function"]));
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"], "additionalProperties": false});
    let answer = server.good(
        "/v1/chat/completions",
        &json!({"messages": messages, "seed": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}),
    );
    let text = answer["choices"][0]["message"]["content"].as_str().expect("a text");
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert!(value["n"].as_u64().is_some_and(|n| n < 100), "{text}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn requests_that_cannot_be_answered_are_told_why() {
    let server = Running::plain();
    let chat = |more: Value| {
        let mut ask = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
        more.as_object().expect("fields").iter().for_each(|(key, value)| ask[key] = value.clone());
        ("/v1/chat/completions", ask)
    };
    let text = |more: Value| {
        let mut ask = json!({"prompt": "Hi", "max_tokens": 1});
        more.as_object().expect("fields").iter().for_each(|(key, value)| ask[key] = value.clone());
        ("/v1/completions", ask)
    };
    let cases = [
        (text(json!({"prompt": null})), "prompt"),
        (text(json!({"prompt": 7})), "prompt"),
        (text(json!({"prompt": {}})), "prompt"),
        (text(json!({"prompt": [[]]})), "prompt"),
        (text(json!({"prompt": [1, "a"]})), "prompt"),
        (text(json!({"prompt": [256]})), "prompt"),
        (text(json!({"prompt": [-1]})), "prompt"),
        (text(json!({"prompt": "a".repeat(CONTEXT)})), "prompt"),
        (text(json!({"prompt": vec!["a"; 65]})), "prompt"),
        (text(json!({"max_tokens": 0})), "max_tokens"),
        (text(json!({"max_tokens": -1})), "max_tokens"),
        (text(json!({"max_tokens": 1.5})), "max_tokens"),
        (text(json!({"max_tokens": "many"})), "max_tokens"),
        (text(json!({"temperature": -0.1})), "temperature"),
        (text(json!({"temperature": "hot"})), "temperature"),
        (text(json!({"top_p": 2})), "top_p"),
        (text(json!({"min_p": -1})), "min_p"),
        (text(json!({"top_k": -1})), "top_k"),
        (text(json!({"repetition_penalty": 0})), "repetition_penalty"),
        (text(json!({"n": 0})), "n"),
        (text(json!({"n": 1000})), "n"),
        (text(json!({"stream": "yes"})), "stream"),
        (text(json!({"echo": 1})), "echo"),
        (text(json!({"seed": 0.5})), "seed"),
        (text(json!({"logprobs": 21})), "logprobs"),
        (text(json!({"stop": 1})), "stop"),
        (text(json!({"stop": [1]})), "stop"),
        (text(json!({"stop": vec!["x"; 17]})), "stop"),
        (text(json!({"presence_penalty": 1})), "presence_penalty"),
        (text(json!({"logit_bias": {"1": 1}})), "logit_bias"),
        (text(json!({"suffix": "x"})), "suffix"),
        (text(json!({"best_of": 2})), "best_of"),
        (chat(json!({"messages": []})), "messages"),
        (chat(json!({"messages": "Hi"})), "messages"),
        (chat(json!({"messages": [1]})), "messages[0]"),
        (chat(json!({"messages": [{"content": "Hi"}]})), "messages[0]"),
        (chat(json!({"messages": [{"role": "user", "content": "a".repeat(CONTEXT)}]})), "messages"),
        (chat(json!({"tools": 1})), "tools"),
        (chat(json!({"tools": [1]})), "tools[0]"),
        (chat(json!({"tool_choice": "required"})), "tool_choice"),
        (chat(json!({"response_format": {"type": "xml"}})), "response_format.type"),
        (chat(json!({"response_format": {"type": "json_schema"}})), "response_format.json_schema.schema"),
        (
            chat(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wrong"}}}})),
            "schema",
        ),
        (chat(json!({"top_logprobs": 99})), "top_logprobs"),
        (chat(json!({"chat_template_kwargs": 1})), "chat_template_kwargs"),
    ];
    for ((path, ask), field) in cases {
        let (status, answer) = server.post(path, &ask);
        assert_eq!(status, 400, "{ask}: {answer}");
        assert_eq!(answer["error"]["param"], field, "{ask}: {answer}");
        let message = answer["error"]["message"].as_str().expect("words");
        assert!(message.starts_with(field) && message.len() < 600, "{message}");
    }
    for body in ["", "{", "[]", "null", "\"text\"", "{\"prompt\": \"\u{0}\""] {
        assert_eq!(server.ask("POST", "/v1/completions", &usual(), body).0, 400, "{body:?}");
    }
    let large = json!({"prompt": "a".repeat(30_000)}).to_string();
    assert_eq!(server.ask("POST", "/v1/completions", &usual(), &large).0, 413);
    let form = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: text/plain\r\n");
    assert_eq!(server.ask("POST", "/v1/completions", &form, "{}").0, 415);
    assert_eq!(server.ask("GET", "/v1/nothing", &usual(), "").0, 404);
    assert_eq!(server.ask("GET", "/v1/completions", &usual(), "").0, 405);
    assert_eq!(server.ask("GET", "/v1/models", &usual(), "").0, 200);
    // All of that left it as it was.
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "Hi", "max_tokens": 1})).0, 200);
}

#[test]
fn only_this_machine_and_who_knows_the_token_may_ask() {
    let server = Running::plain();
    let status = |host: &str, headers: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        read(server.send(&request)).0
    };
    let own = server.address.to_string();
    let key = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(status(&own, &key, "/v1/models"), 200);
    assert_eq!(status(&own, "", "/v1/models"), 401);
    assert_eq!(status(&own, "", "/metrics"), 401);
    assert_eq!(status(&own, "", "/"), 200);
    assert_eq!(status(&own, "", "/health"), 200);
    assert_eq!(status("evil.example", &key, "/v1/models"), 403);
    assert_eq!(status("evil.example", "", "/"), 403);
    let origin = format!("{key}Origin: http://evil.example\r\n");
    assert_eq!(status(&own, &origin, "/v1/models"), 403);
    let (_, page) = server.ask("GET", "/", "", "");
    assert!(page.contains("<title>kiln</title>") && !page.contains(TOKEN), "{page}");
    let mut stream = server.send(&format!("GET / HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n"));
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer");
    let head = all.split("\r\n\r\n").next().expect("a head").to_lowercase();
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "x-frame-options: deny"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.contains("access-control-allow"), "{head}");
}

#[test]
fn who_is_slow_is_cut_off() {
    let limits = Limits { lanes: 8, waiting: 64, cache: 1 << 26 };
    let server = Running::with(limits, Journal::default(), Duration::from_millis(300));
    let ended = |mut stream: TcpStream| {
        let mut all = Vec::new();
        // Closed, or reset: in any case not silent until the reader's own limit.
        let start = Instant::now();
        let _ = stream.read_to_end(&mut all);
        assert!(start.elapsed() < Duration::from_secs(30), "it waits");
        String::from_utf8_lossy(&all).into_owned()
    };
    // Half a head, half a body.
    let said = ended(server.send("POST /v1/completions HTTP/1.1\r\nHost: "));
    assert!(!said.contains("200 OK"), "{said}");
    let request = server.words("POST", "/v1/completions", &usual(), "{\"prompt\": \"a\"}");
    let said = ended(server.send(&request[..request.len() - 3]));
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("took too long"), "{said}");
    // More than buffers between here and there hold, which is not read.
    let ask = json!({"prompt": "a".repeat(500), "echo": true, "logprobs": 20, "max_tokens": 1, "n": 64});
    let mut stream = server.send(&server.words("POST", "/v1/completions", &usual(), &ask.to_string()));
    server.until("all are written", || server.metric("requests_ended_total") == 64.0);
    std::thread::sleep(Duration::from_millis(1500));
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    let length =
        text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let length = length.unwrap_or_else(|| panic!("{:.300}", text));
    assert!(length > 12 << 20 && all.len() < length, "{} of {length} bytes", all.len());
    // The others are served.
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "Hi", "max_tokens": 1})).0, 200);
}

#[test]
fn what_is_under_way_is_finished_when_the_server_is_told_to_stop() {
    let server = Running::plain();
    let ask = json!({"prompt": "a", "max_tokens": 400, "stream": true, "seed": 1}).to_string();
    let stream = server.send(&server.words("POST", "/v1/completions", &usual(), &ask));
    server.until("it is written", || server.metric("generated_tokens_total") > 0.0);
    server.stop.store(true, Ordering::SeqCst);
    let (status, text) = read(stream);
    assert!(status == 200 && text.ends_with("data: [DONE]\n\n"), "{text}");
    server.until("nobody listens", || TcpStream::connect(server.address).is_err());
}

#[test]
fn requests_and_thumbs_are_written_down_where_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, thumbs) = (dir.path().join("log"), dir.path().join("thumbs.jsonl"));
    let journal = Journal::open(Some(log.clone()), 30, Some(thumbs.clone())).expect("a journal");
    let server = Running::start(Limits { lanes: 2, waiting: 4, cache: 1 << 24 }, journal);
    let ask = json!({"messages": [{"role": "user", "content": "I am anna@example.org"}], "max_tokens": 3});
    let id = server.good("/v1/chat/completions", &ask)["id"].clone();
    let said = json!({"messages": ask["messages"], "answer": "Hello", "good": true});
    assert_eq!(server.good("/v1/feedback", &said), json!({"recorded": true}));
    assert_eq!(server.post("/v1/feedback", &json!({"messages": [], "answer": "", "good": true})).0, 400);
    let day = std::fs::read_dir(&log).expect("a folder").next().expect("a file").expect("a file").path();
    let line: Value = serde_json::from_str(std::fs::read_to_string(day).expect("text").trim()).expect("a line");
    assert_eq!((&line["id"], &line["request"]["messages"][0]["content"]), (&id, &json!("I am [EMAIL]")));
    let thumb: Value = serde_json::from_str(std::fs::read_to_string(thumbs).expect("text").trim()).expect("a line");
    assert_eq!(thumb["label"], true);
    // What cannot be written down is answered all the same, and counted.
    assert_eq!(server.metric("journal_failures_total"), 0.0);
    std::fs::remove_dir_all(&log).expect("it goes");
    server.good("/v1/chat/completions", &ask);
    assert_eq!(server.metric("journal_failures_total"), 1.0);
}
