//! The door of a server on this machine: who comes in, and how much of bytes and of time they may take. What is behind it, a model
//! or a review, is its own affair.

use super::guard::{self, Guard};
use super::{Refusal, limits};
use crate::error::{Error, Result};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Router, middleware};
use serde_json::Value;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// The rules of a server.
#[derive(Clone, Debug)]
pub struct Door {
    /// Who may ask.
    pub guard: Guard,
    /// Paths of `GET` that need no token: whoever has them has been told nothing yet.
    pub open: &'static [&'static str],
    /// Bytes of a request.
    pub max_body: usize,
    /// Connections at a time.
    pub connections: usize,
    /// How long a client may take to send a request, or to read the next bytes of an answer.
    pub patience: Duration,
}

impl Door {
    /// Answers on `listener` by these `routes`, whose requests have all come through the door, until `stop` says so; then what is
    /// under way has half a minute to end. `tick` is called some times a second.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn run(
        self: Arc<Door>,
        listener: TcpListener,
        routes: Router,
        tick: impl Fn(),
        stop: impl Fn() -> bool,
    ) -> Result<()> {
        let failed = |e: std::io::Error| Error::failed(format!("serving: {e}"), "choose another port with --port");
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let routes = routes
            .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
            .method_not_allowed_fallback(|| async {
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
            })
            .layer(middleware::from_fn_with_state(Arc::clone(&self), guard::check));
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            limits::serve(listener, routes, &self, tick, stop).await;
            Ok::<_, Error>(())
        })?;
        // Streams that are still open when the grace is over go with the runtime.
        runtime.shutdown_background();
        Ok(())
    }

    /// The body of a request as a JSON object.
    ///
    /// # Errors
    /// It is none by its content type or by what it says, it is too large, or it takes too long to come.
    pub async fn object(&self, headers: &HeaderMap, body: Body) -> Result<Value, Refusal> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // What a form on another page can send without asking is no JSON.
        if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"));
        }
        let too_large = || {
            let problem = format!("the request has more than {} bytes", self.max_body);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, problem)
        };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.max_body) {
            return Err(too_large());
        }
        let read = tokio::time::timeout(self.patience, axum::body::to_bytes(body, self.max_body)).await;
        let body = read
            .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to come"))?
            // Of the ways in which it can fail this is the one that is the client's.
            .map_err(|_| too_large())?;
        let value: Value =
            serde_json::from_slice(&body).map_err(|e| Refusal::bad("body", format!("is no JSON: {e}")))?;
        if value.is_object() { Ok(value) } else { Err(Refusal::bad("body", "is no JSON object")) }
    }
}
