//! What we answer: a [`Response`] as a value, and the one place that turns it into bytes.
//!
//! Framing belongs to [`encode`] alone, and to [`chunked_head`] where nobody knows the length yet. A response carries no Content-Length, Connection or Transfer-Encoding of its
//! own, and no text in it can end a header line: whatever a peer's string does there, it does inside its value.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::head::is_tchar;
use super::{Deflate, Reject};

/// An answer to a request, without its framing.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Sent when there is a body.
    pub content_type: &'static str,
    pub headers: Vec<(Cow<'static, str>, String)>,
    pub body: Bytes,
}

/// What the connection, not the endpoint, knows about a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing<'d> {
    /// The answer to HEAD: everything but the body.
    pub head_only: bool,
    /// False announces the end of the connection.
    pub keep_alive: bool,
    /// The `Date` header, ready made: this folder reads no clock.
    pub date: Option<&'d str>,
}

impl Response {
    pub fn json(status: u16, body: impl Into<Bytes>) -> Response {
        Response::with_body(status, "application/json", body)
    }

    pub fn text(status: u16, body: impl Into<Bytes>) -> Response {
        Response::with_body(status, "text/plain; charset=utf-8", body)
    }

    pub fn html(status: u16, body: impl Into<Bytes>) -> Response {
        Response::with_body(status, "text/html; charset=utf-8", body)
    }

    pub fn empty(status: u16) -> Response {
        Response::with_body(status, "", Bytes::new())
    }

    /// The refusal as an RFC 9457 problem document. The reason stands in two headers as well, because some clients can
    /// read the headers of a refused handshake but not its body.
    pub fn reject(reject: &Reject) -> Response {
        let row = reject.row();
        let problem = Problem {
            kind: "about:blank",
            title: phrase(row.status),
            status: row.status,
            code: row.name,
            detail: &reject.detail,
            hint: row.hint,
        };
        // Strings and a number always serialise; should they not, the status and the headers still say it.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::with_body(row.status, "application/problem+json", body)
            .with_header("X-WS-Reject", row.name)
            .with_header("X-WebSocket-Reject-Reason", row.name);
        match row.status {
            401 => response = response.with_header("WWW-Authenticate", "Bearer"),
            // Our own refusals of a method are all of an upgrade or of a page to be read; dialects answer for themselves.
            405 => response = response.with_header("Allow", "GET, HEAD"),
            426 => {
                response = response.with_header("Sec-WebSocket-Version", "13").with_header("Upgrade", "websocket");
            }
            429 | 503 => response = response.with_header("Retry-After", "1"),
            _ => {}
        }
        response
    }

    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        Response { status, content_type, headers: Vec::new(), body: body.into() }
    }
}

/// Appends the whole reply to `out`.
pub fn encode(response: &Response, out: &mut Vec<u8>, framing: Framing<'_>) {
    let has_body = !matches!(response.status, 100..=199 | 204 | 304);
    let body: &[u8] = if has_body { &response.body } else { &[] };
    // RFC 9110, 8.6: never with 1xx and 204; with 304 it would have to be the length of a body that we do not make.
    let length = if has_body { Length::Of(body.len()) } else { Length::None };
    write_head(response, out, framing, length);
    if !framing.head_only {
        out.extend_from_slice(body);
    }
}

/// Appends the head of a reply whose body follows in pieces: [`chunk`] for each, then [`last_chunk`]. The response's own
/// body is not looked at, and its status is one that has a body.
pub fn chunked_head(response: &Response, out: &mut Vec<u8>, framing: Framing<'_>) {
    write_head(response, out, framing, Length::Chunked);
}

/// Appends a piece of the body. An empty piece would end the reply and is none.
pub fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a reply in pieces; there are no trailers.
pub fn last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// How the other side knows where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// There is no body.
    None,
    Of(usize),
    Chunked,
}

fn write_head(response: &Response, out: &mut Vec<u8>, framing: Framing<'_>, length: Length) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase(response.status).as_bytes());
    out.extend_from_slice(b"\r\nServer: commitcast\r\n");
    if let Some(date) = framing.date {
        header_line(out, "Date", date);
    }
    if !matches!(length, Length::None | Length::Of(0)) && !response.content_type.is_empty() {
        header_line(out, "Content-Type", response.content_type);
    }
    match length {
        Length::None => {}
        Length::Of(bytes) => header_line(out, "Content-Length", &bytes.to_string()),
        Length::Chunked => header_line(out, "Transfer-Encoding", "chunked"),
    }
    if let Some(options) = connection_options(response, framing) {
        header_line(out, "Connection", options);
    }
    for (name, value) in &response.headers {
        if !is_framing(name) {
            header_line(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the 101. `protocol` is left out when it is not a token: better none than a header of the client's making.
pub fn switching(out: &mut Vec<u8>, accept: &[u8], protocol: Option<&str>, deflate: Option<Deflate>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = protocol.filter(|protocol| is_token(protocol)) {
        header_line(out, "Sec-WebSocket-Protocol", protocol);
    }
    if let Some(deflate) = deflate {
        header_line(out, "Sec-WebSocket-Extensions", deflate.answer());
    }
    out.extend_from_slice(b"\r\n");
}

/// The body of a refusal (RFC 9457); `code` and `hint` are its extension members.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    hint: &'a str,
}

/// Upgrade is a hop-by-hop field: a reply that has it must say so (RFC 9110, 7.8), or a proxy may pass it on.
fn connection_options(response: &Response, framing: Framing<'_>) -> Option<&'static str> {
    let upgrade = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    match (framing.keep_alive, upgrade) {
        (true, false) => None,
        (true, true) => Some("Upgrade"),
        (false, false) => Some("close"),
        (false, true) => Some("close, Upgrade"),
    }
}

/// A second opinion on where the reply ends is what response splitting needs.
fn is_framing(name: &str) -> bool {
    ["content-length", "transfer-encoding", "connection"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Writes one header line. A name that is no token drops the line; control characters of the value become spaces.
fn header_line(out: &mut Vec<u8>, name: &str, value: &str) {
    if !is_token(name) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| match byte {
        0..=0x1f | 0x7f => b' ',
        _ => byte,
    }));
    out.extend_from_slice(b"\r\n");
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// The reason phrase of a status. Clients may ignore it (RFC 9112, 4); people with curl read it.
fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn encoded(response: &Response, framing: Framing<'_>) -> String {
        let mut out = Vec::new();
        encode(response, &mut out, framing);
        String::from_utf8(out).unwrap()
    }

    const KEEP: Framing<'static> = Framing { head_only: false, keep_alive: true, date: None };

    #[test]
    fn replies_are_framed() {
        let dated = Framing { date: Some("Thu, 01 Jan 1970 00:00:00 GMT"), ..Framing::default() };
        for (response, framing, expected) in [
            (
                Response::json(200, "{}"),
                KEEP,
                "HTTP/1.1 200 OK\r\nServer: commitcast\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            ),
            (
                Response::text(200, "hi").with_header("ETag", "\"1\""),
                Framing { head_only: true, ..KEEP },
                "HTTP/1.1 200 OK\r\nServer: commitcast\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\
                 ETag: \"1\"\r\n\r\n",
            ),
            (
                Response::empty(404),
                dated,
                "HTTP/1.1 404 Not Found\r\nServer: commitcast\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n",
            ),
            (Response::html(204, "<p>"), KEEP, "HTTP/1.1 204 No Content\r\nServer: commitcast\r\n\r\n"),
            (Response::html(304, "<p>"), KEEP, "HTTP/1.1 304 Not Modified\r\nServer: commitcast\r\n\r\n"),
            (
                Response::empty(299).with_header("content-length", "9").with_header("Connection", "x"),
                KEEP,
                "HTTP/1.1 299 Unknown\r\nServer: commitcast\r\nContent-Length: 0\r\n\r\n",
            ),
        ] {
            assert_eq!(encoded(&response, framing), expected);
        }
    }

    #[test]
    fn a_reply_in_pieces_ends_where_it_says() {
        let response = Response::text(200, "not looked at").with_header("Transfer-Encoding", "x").with_header("A", "b");
        let mut out = Vec::new();
        chunked_head(&response, &mut out, KEEP);
        for piece in [&b"{\"line\":1}\n"[..], b"", &[b'x'; 300], b"0\r\n\r\n"] {
            chunk(&mut out, piece);
        }
        last_chunk(&mut out);
        let head = "HTTP/1.1 200 OK\r\nServer: commitcast\r\nContent-Type: text/plain; charset=utf-8\r\n\
                    Transfer-Encoding: chunked\r\nA: b\r\n\r\n";
        let x = "x".repeat(300);
        let body = format!("b\r\n{{\"line\":1}}\n\r\n12c\r\n{x}\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), format!("{head}{body}"));
        let mut last = Vec::new();
        chunked_head(&Response::json(200, ""), &mut last, Framing::default());
        assert!(String::from_utf8(last).unwrap().ends_with("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"));
    }

    /// Whatever the pieces hold, a reader who goes by their lengths finds the same bytes and the end.
    fn read_chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (used, size) = match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete(found)) => found,
                _ => return None,
            };
            let size = usize::try_from(size).ok()?;
            let (piece, rest) = bytes.get(used..)?.split_at_checked(size)?;
            body.extend_from_slice(piece);
            bytes = rest.strip_prefix(b"\r\n")?;
            if size == 0 {
                return bytes.is_empty().then_some(body);
            }
        }
    }

    #[test]
    fn every_refusal_explains_itself() {
        for reason in crate::http::Reason::ALL {
            let row = reason.row();
            let response = Response::reject(&Reject::new(reason, "a \"quoted\"\r\nline\u{1}"));
            assert_eq!(response.status, row.status);
            assert_ne!(phrase(row.status), "Unknown", "{}", row.status);
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(
                body,
                serde_json::json!({
                    "type": "about:blank", "title": phrase(row.status), "status": row.status, "code": row.name,
                    "detail": "a \"quoted\"\r\nline\u{1}", "hint": row.hint,
                })
            );
            let text = encoded(&response, Framing::default());
            for (line, expected) in [
                (format!("\r\nX-WS-Reject: {}\r\n", row.name), true),
                (format!("\r\nX-WebSocket-Reject-Reason: {}\r\n", row.name), true),
                ("\r\nContent-Type: application/problem+json\r\n".into(), true),
                ("\r\nConnection: close\r\n".into(), row.status != 426),
                ("\r\nConnection: close, Upgrade\r\n".into(), row.status == 426),
                ("\r\nSec-WebSocket-Version: 13\r\n".into(), row.status == 426),
                ("\r\nUpgrade: websocket\r\n".into(), row.status == 426),
                ("\r\nAllow: GET, HEAD\r\n".into(), row.status == 405),
                ("\r\nRetry-After: 1\r\n".into(), matches!(row.status, 429 | 503)),
                ("\r\nWWW-Authenticate: Bearer\r\n".into(), row.status == 401),
            ] {
                assert_eq!(text.contains(&line), expected, "{line} in {text}");
            }
        }
    }

    #[test]
    fn the_101_carries_a_protocol_only_if_it_is_a_token() {
        let bare = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        for (protocol, line) in [
            (None, ""),
            (Some("v1.commitcast"), "Sec-WebSocket-Protocol: v1.commitcast\r\n"),
            (Some(""), ""),
            (Some("a\r\nSet-Cookie: b"), ""),
        ] {
            let mut out = Vec::new();
            switching(&mut out, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", protocol, None);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{bare}{line}\r\n"));
        }
        let deflate = super::super::extensions::agree(["permessage-deflate; server_max_window_bits=9"].into_iter());
        let mut out = Vec::new();
        switching(&mut out, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None, deflate);
        let line = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
            client_no_context_takeover; server_max_window_bits=9\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{bare}{line}\r\n"));
    }

    proptest! {
        #[test]
        fn pieces_are_put_together_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut out = Vec::new();
            for piece in &pieces {
                chunk(&mut out, piece);
            }
            last_chunk(&mut out);
            prop_assert_eq!(read_chunks(&out), Some(pieces.concat()));
        }

        /// The judge reads the same number of lines that we meant to write, and finds the body where we put it.
        #[test]
        fn nothing_in_a_header_can_split_a_reply(
            fields in prop::collection::vec(("([A-Za-z-]|[\r\n: \u{e9}]){0,8}", "(.|\r|\n|\0|\r\n\r\n){0,20}"), 0..8),
            body in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            let mut response = Response::text(200, body.clone());
            for (name, value) in fields {
                response = response.with_header(name, value);
            }
            let meant = response.headers.iter().filter(|(name, _)| is_token(name) && !is_framing(name)).count();
            let mut out = Vec::new();
            encode(&response, &mut out, KEEP);
            let mut slots = [httparse::EMPTY_HEADER; 32];
            let mut judge = httparse::Response::new(&mut slots);
            let status = judge.parse(&out);
            let Ok(httparse::Status::Complete(used)) = status else {
                return Err(TestCaseError::fail(format!("{status:?}")));
            };
            prop_assert_eq!(judge.headers.len(), meant + 3);
            prop_assert_eq!(&out[used..], &body[..]);
        }
    }
}
