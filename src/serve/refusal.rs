//! What is said to a request that is not answered, in OpenAI's form.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// Why, in words.
    pub message: String,
    /// The field at fault.
    pub field: Option<String>,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), field: None }
    }

    /// A field that cannot be used.
    pub fn bad(field: impl Into<String>, problem: impl std::fmt::Display) -> Refusal {
        let field = field.into();
        Refusal { status: StatusCode::BAD_REQUEST, message: format!("{field}: {problem}"), field: Some(field) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let error = json!({"error": {"message": self.message, "type": kind, "param": self.field, "code": null}});
        let mut response = (self.status, Json(error)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, "1".parse().expect("a number"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, "Bearer".parse().expect("a word"));
        }
        response
    }
}
