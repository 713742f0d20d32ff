//! Who may ask: requests that name this machine as their host, come from no other site's page, and know the token.
//!
//! A page of another site can make a browser send requests to this machine. One that was made to look like this machine by
//! DNS carries its own name as the host; one that was not carries its name as the origin; neither knows the token.

use super::{Door, Refusal};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;

/// The rules.
#[derive(Clone, Debug)]
pub struct Guard {
    /// `127.0.0.1:8080` and the like.
    hosts: Vec<String>,
    token: Option<String>,
}

/// A token of 128 random bits from the operating system, in hexadecimal digits.
pub fn random_token() -> String {
    use rand::TryRngCore;
    let mut bytes = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the operating system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Guard {
    /// For a server at `address`, a loopback one, whose clients know `token`, if there is one.
    pub fn new(address: SocketAddr, token: Option<String>) -> Guard {
        let port = address.port();
        let mut hosts: Vec<String> =
            ["127.0.0.1", "localhost", "[::1]"].iter().map(|host| format!("{host}:{port}")).collect();
        hosts.push(address.to_string());
        Guard { hosts, token }
    }

    /// Whether a request with these headers may be answered; `open` paths need no token.
    ///
    /// # Errors
    /// It may not.
    pub fn admits(&self, headers: &HeaderMap, open: bool) -> Result<(), Refusal> {
        let known = |host: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        let one = |name| {
            let mut all = headers.get_all(name).iter();
            let first: Option<&HeaderValue> = all.next();
            if all.next().is_some() { Err(()) } else { first.map(|value| value.to_str().map_err(|_| ())).transpose() }
        };
        let forbidden = |why: &str| Err(Refusal::new(StatusCode::FORBIDDEN, why));
        if !matches!(one(header::HOST), Ok(Some(host)) if known(host)) {
            return forbidden("the Host is not this server's");
        }
        let own = |origin: &str| origin.strip_prefix("http://").is_some_and(known);
        if !matches!(one(header::ORIGIN), Ok(origin) if origin.is_none_or(own)) {
            return forbidden("a page of another origin may not ask");
        }
        if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") && !open {
            return forbidden("a page of another site may not ask");
        }
        let Some(token) = self.token.as_deref().filter(|_| !open) else { return Ok(()) };
        let given = one(header::AUTHORIZATION).ok().flatten().and_then(|given| {
            let (scheme, given) = given.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
        });
        // How long the comparison of two hashes takes tells nothing of the token.
        if given.is_some_and(|given| Sha256::digest(given) == Sha256::digest(token)) {
            return Ok(());
        }
        let how = "the header Authorization: Bearer TOKEN must have the token that the server printed when it started";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, how))
    }
}

/// Lets requests through that may be answered, and says to browsers what answers are not for.
pub(super) async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let open = door.open.contains(&request.uri().path()) && request.method() == "GET";
    let mut response = match door.guard.admits(request.headers(), open) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let fixed = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(pairs: &[(&'static str, &str)], open: bool) -> u16 {
        let guard = Guard::new("127.0.0.1:8080".parse().expect("an address"), Some("s3cret".into()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        guard.admits(&headers, open).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn sixty_combinations_of_host_origin_and_token() {
        let own = ["127.0.0.1:8080", "LOCALHOST:8080", "[::1]:8080"];
        let hosts =
            [&own[..], &["evil.example", "127.0.0.1:8081", "127.0.0.1", "localhost.evil.example:8080"]].concat();
        let origins = [
            None,
            Some("http://localhost:8080"),
            Some("null"),
            Some("https://localhost:8080"),
            Some("http://evil.example"),
        ];
        let tokens = [
            None,
            Some("Bearer s3cret"),
            Some("bearer  s3cret"),
            Some("Bearer S3cret"),
            Some("Basic s3cret"),
            Some("s3cret"),
        ];
        let mut refused = 0;
        for host in &hosts {
            for origin in origins {
                for token in tokens {
                    let mut pairs = vec![("host", *host)];
                    pairs.extend(origin.map(|origin| ("origin", origin)));
                    pairs.extend(token.map(|token| ("authorization", token)));
                    let want = match (own.contains(host), origin, token) {
                        (false, ..) => 403,
                        (_, Some(origin), _) if origin != "http://localhost:8080" => 403,
                        (.., Some("Bearer s3cret" | "bearer  s3cret")) => 200,
                        _ => 401,
                    };
                    assert_eq!(admitted(&pairs, false), want, "{pairs:?}");
                    refused += usize::from(want != 200);
                }
            }
        }
        assert!(refused >= 60, "{refused}");
    }

    #[test]
    fn what_is_said_twice_or_not_at_all_is_refused() {
        let token = ("authorization", "Bearer s3cret");
        let host = ("host", "localhost:8080");
        assert_eq!(admitted(&[host, token], false), 200);
        assert_eq!(admitted(&[token], false), 403);
        assert_eq!(admitted(&[host, ("host", "evil.example"), token], false), 403);
        assert_eq!(
            admitted(&[host, ("origin", "http://localhost:8080"), ("origin", "http://evil.example"), token], false),
            403
        );
        assert_eq!(admitted(&[host, token, ("sec-fetch-site", "cross-site")], false), 403);
        assert_eq!(admitted(&[host, token, ("sec-fetch-site", "same-origin")], false), 200);
        // The page itself is no secret, but is nobody else's.
        assert_eq!(admitted(&[host], true), 200);
        assert_eq!(admitted(&[("host", "evil.example:8080")], true), 403);
    }

    #[test]
    fn tokens_differ() {
        let token = random_token();
        assert!(token.len() == 32 && token != random_token(), "{token}");
    }
}
