//! A model behind HTTP, for programs that speak OpenAI's protocol and for a chat page, on this machine alone.
//!
//! | path | what |
//! |------|------|
//! | `GET /v1/models` | the one model |
//! | `POST /v1/completions` | a text goes on; `echo` and `logprobs` give the log-probabilities of a given text |
//! | `POST /v1/chat/completions` | the next turn of a conversation; streaming, tools, answers that fit a JSON schema |
//! | `POST /v1/feedback` | a thumb for an answer, kept in a file where the server was told to |
//! | `GET /health`, `GET /metrics` | whether it is alive; counts for Prometheus |
//! | `GET /` | the chat page |
//!
//! ```text
//! connection (limits.rs) → who may ask (guard.rs), how much (door.rs) → what is asked (ask.rs) → jobs of the engine → reply.rs
//! ```
//! One thread reads and writes; the [engine](crate::infer::engine) computes in its own. Who asks for too much is told so at
//! once (429); who does not read in time is cut off.

pub mod ask;
pub mod door;
pub mod guard;
pub mod journal;
mod limits;
pub mod page;
pub mod refusal;
pub mod reply;
pub mod tools;

pub use door::Door;
pub use guard::Guard;
pub use journal::Journal;
pub use refusal::Refusal;

use crate::data::chat::ChatTemplate;
use crate::error::Result;
use crate::infer::Engine;
use crate::infer::schema::Schemas;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

/// A model and the rules by which it is served.
pub struct Server {
    /// What writes.
    pub engine: Engine,
    /// The model's name.
    pub name: String,
    /// How conversations become text, where the model knows.
    pub template: Option<ChatTemplate>,
    /// Makes answers fit JSON schemas.
    pub schemas: Schemas,
    /// Who may ask, and how much.
    pub door: Arc<Door>,
    /// Tokens of an answer at most, where the request does not say less.
    pub max_tokens: usize,
    /// What is written down.
    pub journal: Journal,
}

impl Server {
    /// Answers on `listener` until `stop` says so; then what is under way has half a minute to end.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn run(self, listener: TcpListener, stop: impl Fn() -> bool) -> Result<()> {
        let server = Arc::new(self);
        let (tick, routes) = (|| server.journal.expire(), routes(Arc::clone(&server)));
        Arc::clone(&server.door).run(listener, routes, tick, stop)?;
        server.engine.stop(true);
        Ok(())
    }
}

/// Paths that need no token: whoever has the page has no answer of the model yet.
pub const OPEN: &[&str] = &["/", "/chat.js", "/chat.css", "/health"];

/// All paths.
fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(page::html))
        .route("/chat.js", get(page::script))
        .route("/chat.css", get(page::style))
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/feedback", post(feedback))
        .with_state(server)
}

type Shared = State<Arc<Server>>;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

async fn models(State(server): Shared) -> Json<Value> {
    let context = server.engine.config().context;
    Json(json!({"object": "list", "data": [{"id": server.name, "object": "model", "created": 0, "owned_by": "kiln",
        "max_model_len": context,
        "chat": server.template.is_some(), "feedback": server.journal.takes_thumbs()}]}))
}

async fn completions(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked = server.door.object(&headers, body).await?;
    let plan = ask::completion(&server, &asked)?;
    reply::answer(server, plan, asked).await
}

async fn chat(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked = server.door.object(&headers, body).await?;
    let plan = ask::chat(&server, &asked)?;
    reply::answer(server, plan, asked).await
}

async fn feedback(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let said = server.door.object(&headers, body).await?;
    server.journal.thumb(&said)?;
    Ok(Json(json!({"recorded": true})).into_response())
}

/// The engine's counts in Prometheus' text format.
async fn metrics(State(server): Shared) -> Response {
    let counts = server.engine.counts();
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(text, "# HELP kiln_{name} {help}\n# TYPE kiln_{name} {kind}\nkiln_{name} {value}\n");
    };
    let whole = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed) as f64;
    let seconds = |micros: &std::sync::atomic::AtomicU64| micros.load(Relaxed) as f64 / 1e6;
    line("requests_ended_total", "counter", "Texts that were written to their end.", whole(&counts.ended));
    line("requests_dropped_total", "counter", "Texts that nobody wanted any more.", whole(&counts.dropped));
    line(
        "requests_refused_total",
        "counter",
        "Texts that were refused because too many waited.",
        whole(&counts.refused),
    );
    line("requests_waiting", "gauge", "Texts that wait.", whole(&counts.waiting));
    line("requests_active", "gauge", "Texts that are being written.", whole(&counts.active));
    line("prompt_tokens_total", "counter", "Tokens of prompts.", whole(&counts.prompt));
    line(
        "prompt_tokens_cached_total",
        "counter",
        "Tokens of prompts that had been read before.",
        whole(&counts.cached),
    );
    line("generated_tokens_total", "counter", "Tokens written.", whole(&counts.written));
    line("steps_total", "counter", "Steps of the model.", whole(&counts.steps));
    line("step_seconds_total", "counter", "Seconds in steps.", seconds(&counts.micros));
    line(
        "first_token_seconds_sum",
        "counter",
        "Seconds from arrival to the first token.",
        seconds(&counts.first_micros),
    );
    line("first_token_seconds_count", "counter", "Texts that have a first token.", whole(&counts.first));
    let failures = whole(server.journal.failures());
    line("journal_failures_total", "counter", "Requests and thumbs that could not be written down.", failures);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], Body::from(text)).into_response()
}
