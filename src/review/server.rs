//! The page on which people judge, and what it asks: on this machine alone, through the [`Door`] of `kiln serve`.
//!
//! | path | what |
//! |------|------|
//! | `GET /` | the page, one file that loads nothing else, under a policy that lets it load nothing else |
//! | `POST /item` | `{"reviewer"}`: what to judge now |
//! | `POST /judge` | `{"reviewer", "item", "choice", "note"}`: a judgement; the answer, the next item, comes when it is on disk |
//! | `POST /undo` | `{"reviewer"}`: takes the last one back |
//! | `POST /picture` | `{"reviewer", "item", "place"}`: a picture, without what its file tells beside it |
//!
//! All is asked by POST, in JSON and with the token in a header, which no other site's page can send. Nothing that is sent tells whose
//! answer is whose, or which items are gold.

use super::item::{Answer, Prompt, plain_png};
use super::{Choice, Review, Summary, View};
use crate::error::{Error, Result};
use crate::serve::guard::random_token;
use crate::serve::{Door, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Paths that need no token.
pub const OPEN: &[&str] = &["/"];
/// Bytes of a request: a note of 4,000 characters, each spelled out, and some more.
pub const MAX_BODY: usize = 64 << 10;
/// What stands in the page for a word that is new with each answer: by it the page's own script and style are known.
const NONCE: &str = "{{nonce}}";

/// A review and the door to it.
pub struct Server {
    door: Arc<Door>,
    review: Mutex<Review>,
}

type Shared = State<Arc<Server>>;

impl Server {
    /// Of a review, behind a door with [`OPEN`].
    pub fn new(door: Door, review: Review) -> Server {
        Server { door: Arc::new(door), review: Mutex::new(review) }
    }

    /// Answers on `listener` until `stop` says so.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn run(self: &Arc<Server>, listener: TcpListener, stop: impl Fn() -> bool) -> Result<()> {
        let routes = Router::new()
            .route("/", get(page))
            .route("/item", post(item))
            .route("/judge", post(judge))
            .route("/undo", post(undo))
            .route("/picture", post(picture))
            .with_state(Arc::clone(self));
        Arc::clone(&self.door).run(listener, routes, || {}, stop)
    }

    /// What all judgements say.
    pub fn summary(&self) -> Summary {
        self.review().summary()
    }

    fn review(&self) -> MutexGuard<'_, Review> {
        self.review.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn page() -> impl IntoResponse {
    let nonce = random_token();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src blob:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let headers: [(HeaderName, String); 2] =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".into()), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("page/review.html").replace(NONCE, &nonce))
}

/// A refusal for an error: what was asked wrongly, or what went wrong here.
fn refusal(error: &Error) -> Refusal {
    let status = match error {
        Error::Usage { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, error.to_string())
}

fn reviewer(said: &Value) -> Result<&str, Refusal> {
    let name = said["reviewer"].as_str().ok_or_else(|| Refusal::bad("reviewer", "expected a name"))?;
    Review::reviewer(name).map_err(|e| Refusal::bad("reviewer", e))
}

fn number(said: &Value, key: &str) -> Result<usize, Refusal> {
    let number = said[key].as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| Refusal::bad(key, "expected a whole number"))
}

/// What is asked, as turns.
fn turns(prompt: &Prompt) -> Vec<Value> {
    match prompt {
        Prompt::Text(text) if text.is_empty() => Vec::new(),
        Prompt::Text(text) => vec![json!({"role": null, "text": text})],
        Prompt::Chat(messages) => messages
            .iter()
            .map(|message| {
                let other = || message.field("content").map(Value::to_string).unwrap_or_default();
                json!({"role": message.role(), "text": message.content().map_or_else(other, str::to_owned)})
            })
            .collect(),
    }
}

/// What the page is told.
fn told(review: &Review, view: &View) -> Json<Value> {
    let answer = |answer: &&Answer| match answer {
        Answer::Text(text) => json!({"text": text}),
        Answer::Picture { .. } => json!({"picture": true}),
    };
    let item = view.item.map(|(number, item)| {
        json!({"number": number, "prompt": turns(&item.prompt), "reference": item.reference,
            "answers": view.answers.iter().map(answer).collect::<Vec<_>>()})
    });
    Json(json!({"rating": review.is_rating(), "done": view.done, "total": view.total, "more": view.more, "item": item}))
}

async fn item(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let said = server.door.object(&headers, body).await?;
    let review = server.review();
    Ok(told(&review, &review.view(reviewer(&said)?)))
}

async fn judge(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let said = server.door.object(&headers, body).await?;
    let (name, item) = (reviewer(&said)?, number(&said, "item")?);
    let choice = match (said["choice"].as_str(), said["choice"].as_u64()) {
        (Some("left"), _) => Choice::Left,
        (Some("right"), _) => Choice::Right,
        (Some("tie"), _) => Choice::Tie,
        (Some("bad"), _) => Choice::Bad,
        (_, Some(rating @ 1..=5)) => Choice::Rating(rating as u8),
        _ => return Err(Refusal::bad("choice", "expected left, right, tie or bad, or a number from 1 to 5")),
    };
    let note = match &said["note"] {
        Value::Null => "",
        Value::String(note) => note,
        _ => return Err(Refusal::bad("note", "expected a text")),
    };
    let mut review = server.review();
    review.judge(name, item, choice, note).map_err(|e| refusal(&e))?;
    Ok(told(&review, &review.view(name)))
}

async fn undo(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let said = server.door.object(&headers, body).await?;
    let (name, mut review) = (reviewer(&said)?, server.review());
    review.undo(name).map_err(|e| refusal(&e))?;
    Ok(told(&review, &review.view(name)))
}

async fn picture(State(server): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let said = server.door.object(&headers, body).await?;
    let (name, item, place) = (reviewer(&said)?, number(&said, "item")?, number(&said, "place")?);
    let review = server.review();
    let Some(Answer::Picture { picture }) = review.answer(name, item, place) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such picture"));
    };
    // A path would tell whose it is.
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file of this picture cannot be read");
    let bytes = plain_png(picture).map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes).into_response())
}
