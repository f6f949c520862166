//! What a browser must read before it lets a page of another origin see our HTTP answers.
//!
//! Whether an origin is allowed is decided elsewhere (`auth`), before any of this is called; here it is only said. The
//! origin is echoed and never `*`: credentials are allowed, and browsers refuse the two together. Never here: WebSocket
//! handshakes, to which browsers do not apply any of it.

use std::borrow::Cow;

use super::head::is_tchar;
use super::{Head, Method, Response};

/// How long a browser may remember a preflight. Long enough to spare most of them, short enough that a change of
/// `origins.allow` is seen by a page that stays open.
const MAX_AGE_SECONDS: &str = "600";

/// The headers of any answer to an allowed `origin`. `null` is never echoed, allowed or not: every sandboxed frame and
/// local file shares it.
pub fn headers(origin: &str) -> Vec<(Cow<'static, str>, String)> {
    let mut headers = vec![("Vary".into(), "Origin".to_string())];
    if origin.eq_ignore_ascii_case("null") {
        return headers;
    }
    headers.extend([
        ("Access-Control-Allow-Origin".into(), origin.to_string()),
        ("Access-Control-Allow-Credentials".into(), "true".to_string()),
        ("Access-Control-Expose-Headers".into(), "X-WS-Reject, X-WebSocket-Reject-Reason".to_string()),
    ]);
    headers
}

/// True when a browser asks whether it may ask.
pub fn is_preflight(head: &Head<'_>) -> bool {
    head.method == Method::Options && head.header("access-control-request-method").is_some()
}

/// The answer to a preflight of an allowed `origin`. It promises no more than that the browser may try: the request
/// itself is checked like any other.
pub fn preflight(head: &Head<'_>, origin: &str) -> Response {
    let mut response = Response::empty(204)
        .with_header("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
        .with_header("Access-Control-Max-Age", MAX_AGE_SECONDS)
        .with_header("Vary", "Access-Control-Request-Headers");
    let asked = requested_headers(head);
    if !asked.is_empty() {
        response = response.with_header("Access-Control-Allow-Headers", asked);
    }
    response.headers.extend(headers(origin));
    response
}

/// The request's own list, elements that are not header names left out. Echoed and not a list of ours: pages add tracing
/// headers that we need not know, and with credentials `*` is taken literally.
fn requested_headers(head: &Head<'_>) -> String {
    let names: Vec<&str> =
        head.tokens("access-control-request-headers").filter(|name| name.bytes().all(is_tchar)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::http::head;

    fn value<'h>(headers: &'h [(Cow<'static, str>, String)], name: &str) -> Vec<&'h str> {
        headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn an_allowed_origin_is_echoed_and_null_is_not() {
        let echoed = headers("https://a.example");
        assert_eq!(value(&echoed, "Access-Control-Allow-Origin"), ["https://a.example"]);
        assert_eq!(value(&echoed, "Access-Control-Allow-Credentials"), ["true"]);
        assert_eq!(value(&echoed, "Vary"), ["Origin"]);
        assert!(value(&echoed, "Access-Control-Expose-Headers").concat().contains("X-WS-Reject"));
        for null in ["null", "NULL"] {
            assert_eq!(headers(null), [("Vary".into(), "Origin".to_string())]);
        }
    }

    #[test]
    fn a_preflight_allows_the_headers_that_were_asked_for() {
        for (fields, allowed) in [
            ("", vec![]),
            ("Access-Control-Request-Headers: content-type,X-Trace\r\n", vec!["content-type, X-Trace"]),
            ("Access-Control-Request-Headers: a b, c:d, <e>, f\r\n", vec!["f"]),
            ("Access-Control-Request-Headers: ,,\r\n", vec![]),
        ] {
            let bytes = format!(
                "OPTIONS /api/prompts/all HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Method: PUT\r\n{fields}\r\n"
            );
            let (head, _) = head::parse(bytes.as_bytes()).unwrap().unwrap();
            assert!(is_preflight(&head));
            let response = preflight(&head, "https://a.example");
            assert_eq!((response.status, response.body.len()), (204, 0));
            assert_eq!(value(&response.headers, "Access-Control-Allow-Headers"), allowed, "{fields}");
            assert_eq!(value(&response.headers, "Access-Control-Allow-Methods"), ["GET, POST, PUT, DELETE, OPTIONS"]);
            assert_eq!(value(&response.headers, "Access-Control-Max-Age"), ["600"]);
            assert_eq!(value(&response.headers, "Access-Control-Allow-Origin"), ["https://a.example"]);
        }
    }

    #[test]
    fn only_a_browsers_question_is_a_preflight() {
        for (line, field, expected) in [
            ("OPTIONS", "Access-Control-Request-Method: PUT\r\n", true),
            ("OPTIONS", "", false),
            ("GET", "Access-Control-Request-Method: PUT\r\n", false),
        ] {
            let bytes = format!("{line} / HTTP/1.1\r\nHost: a\r\n{field}\r\n");
            let (head, _) = head::parse(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(is_preflight(&head), expected);
        }
    }
}
