//! The chat page: three files that load nothing else, under a policy that lets them load nothing else.
//!
//! What people and the model say reaches the page as text nodes only.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

/// Scripts and styles of this server, requests to this server, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse + use<> {
    let headers: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, text)
}

pub(super) async fn html() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_str!("page/chat.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("page/chat.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("page/chat.css"))
}
