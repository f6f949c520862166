//! One HTTP/1.1 request head: bytes in, a [`Head`] that cannot be wrong or a [`Reject`] out.
//!
//! ```text
//! bytes ─▶ request line ─▶ field lines ─▶ httparse ─▶ Host, body, Expect ─▶ Head
//!          └── decided in the order of the bytes ──┘  └── the whole head ──┘
//! ```
//!
//! The left half runs on every read, complete or not, and refuses at the first byte that no continuation can heal: a
//! TLS ClientHello gets its 400 after one byte instead of waiting for the handshake timeout. The right half runs once,
//! when the empty line is there, because tokenising from the start on each read costs the square of the head. Since the
//! left half goes strictly by stream order, a verdict never depends on how the network cut the bytes.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str;

use percent_encoding::percent_decode_str;

use super::{Reason, Reject};
use crate::limits::{HEAD_BYTES_MAX, HEADER_LINE_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// Empty lines tolerated before the request line (RFC 9112, 2.2 asks for one; some old clients send two).
const LEADING_CRLF_MAX: usize = 2;
/// Bytes of a method. The longest registered one has 17; beyond this it is not HTTP that we are being sent.
const METHOD_BYTES_MAX: usize = 32;
/// The largest `Content-Length` taken for a number: what JavaScript proxies in front can still hold exactly.
const CONTENT_LENGTH_MAX: u64 = 1 << 53;

const REQUEST_LINE_EXTRA: usize = METHOD_BYTES_MAX + "  HTTP/1.1".len();
const _: () = assert!(
    REQUEST_LINE_EXTRA + TARGET_BYTES_MAX <= HEADER_LINE_BYTES_MAX,
    "the parts of a request line keep it below the bound of a line"
);

/// Reads one head from the front of `bytes`. `Ok(None)`: so far nothing is wrong, and more is needed. The number is how
/// many bytes the head took, tolerated empty lines included; what follows them is a body, frames or the next request.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head<'_>, usize)>, Reject> {
    let window = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
    match split(window)? {
        Some(parts) => {
            let used = window.len() - parts.rest.len();
            Ok(Some((head(parts)?, used)))
        }
        None if bytes.len() >= HEAD_BYTES_MAX => {
            Err(Reject::new(Reason::HeadTooBig, "the request head does not end within its bound"))
        }
        None => Ok(None),
    }
}

/// Decodes the escapes of a path, once. A `%` without two hex digits stays as it is, as in the applications we stand in
/// for: browsers do not escape a lone `%`, and a document may be called `100%`.
pub fn decode_path(path: &str) -> Result<String, Reject> {
    let decoded = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| Reject::new(Reason::BadTarget, "the decoded path is not UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        return Err(Reject::new(Reason::BadTarget, "the decoded path has control characters"));
    }
    Ok(decoded.into_owned())
}

/// The first value of a query parameter, decoded as forms are (`+` is a space, what is not UTF-8 becomes U+FFFD).
pub fn query_param<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A request's method; case-sensitive, as RFC 9110 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// A well-formed method that nothing here answers.
    Other,
}

/// A checked request head, borrowed from the receive buffer.
///
/// Holds: HTTP/1.1; an origin-form ASCII target without dot segments; one valid Host; no Transfer-Encoding; no Expect; at
/// most one Content-Length; names that are tokens and values that are printable ASCII (tabs included).
#[derive(Clone)]
pub struct Head<'b> {
    pub method: Method,
    /// As sent: path and query.
    pub target: &'b str,
    /// As sent, before the `?`; begins with `/`, still percent-encoded.
    pub path: &'b str,
    /// As sent, behind the first `?`.
    pub query: Option<&'b str>,
    /// `host` or `host:port`.
    pub host: &'b str,
    pub content_length: Option<u64>,
    /// False when the client asked for `Connection: close`.
    pub keep_alive: bool,
    fields: [(&'b str, &'b str); HEADERS_MAX],
    field_count: usize,
}

impl<'b> Head<'b> {
    /// The value of the first line with this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&'b str> {
        self.header_all(name).next()
    }

    /// The value when there is exactly one such line. For fields where a second line means that somebody on the way
    /// and we would disagree on which one counts.
    pub fn header_once(&self, name: &str) -> Option<&'b str> {
        let mut values = self.header_all(name);
        let value = values.next();
        if values.next().is_some() { None } else { value }
    }

    /// The values of all lines with this name, in the order in which they were sent.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.headers().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The elements of a list header over all its lines, trimmed, empty ones left out.
    pub fn tokens(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.header_all(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// True when a list header names `token` on any of its lines, whatever the case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// All fields, as sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b str)> {
        self.fields.iter().take(self.field_count).copied()
    }

    /// True when the client asks for a WebSocket; whether it asks correctly is for [`super::upgrade::check`]. A plain
    /// endpoint ignores it.
    pub fn wants_upgrade(&self) -> bool {
        self.has_token("upgrade", "websocket")
    }
}

/// Written by hand: a derived one would put cookies and tokens into any log line that shows a head.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("host", &self.host)
            .field("content_length", &self.content_length)
            .field("keep_alive", &self.keep_alive)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// A head cut into its parts; nothing is known yet of the fields but where their lines end.
struct Parts<'b> {
    method: Method,
    target: &'b str,
    path: &'b str,
    query: Option<&'b str>,
    /// The field lines and the empty line behind them.
    section: &'b [u8],
    rest: &'b [u8],
}

/// A part read from the front, with what is behind it. `Ok(None)`: so far nothing is wrong, and more is needed.
type Step<'b, T> = Result<Option<(T, &'b [u8])>, Reject>;

fn split(window: &[u8]) -> Result<Option<Parts<'_>>, Reject> {
    let Some((method, rest)) = method(skip_empty_lines(window))? else {
        return Ok(None);
    };
    let Some((target, rest)) = target(rest)? else {
        return Ok(None);
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    refuse_dot_segments(path)?;
    let Some(rest) = version(rest)? else {
        return Ok(None);
    };
    let Some((section, rest)) = field_section(rest)? else {
        return Ok(None);
    };
    Ok(Some(Parts { method, target, path, query, section, rest }))
}

/// What is left behind the tolerated empty lines. Half of one counts as nothing yet; one too many is left standing and
/// is refused as the beginning of a method.
fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    for _ in 0..LEADING_CRLF_MAX {
        match bytes {
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            [b'\r'] => return &[],
            _ => break,
        }
    }
    bytes
}

fn method(bytes: &[u8]) -> Step<'_, Method> {
    let (word, rest) = split_run(bytes, |byte| is_tchar(byte) && !byte.is_ascii_lowercase());
    if word.len() > METHOD_BYTES_MAX {
        return Err(Reject::new(Reason::Syntax, "this is not HTTP"));
    }
    let rest = match rest {
        [] => return Ok(None),
        [b' ', rest @ ..] if !word.is_empty() => rest,
        // `get`, `Get` and `GE{T` are somebody's attempt at a method; anything else is no HTTP at all.
        [byte, ..] if byte.is_ascii_lowercase() || (byte.is_ascii_graphic() && !word.is_empty()) => {
            return Err(Reject::new(Reason::Method, "a method is a token in capital letters"));
        }
        _ => return Err(Reject::new(Reason::Syntax, "this is not HTTP")),
    };
    let method = match word {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        // Reserved for the preface of HTTP/2 (RFC 9113, 3.4).
        b"PRI" => return Err(Reject::new(Reason::HttpVersion, "this is HTTP/2")),
        _ => Method::Other,
    };
    Ok(Some((method, rest)))
}

fn target(bytes: &[u8]) -> Step<'_, &str> {
    let (run, rest) = match bytes {
        [] => return Ok(None),
        [b'/', ..] => split_run(bytes, |byte| byte.is_ascii_graphic() && byte != b'#'),
        _ => (&[][..], bytes),
    };
    if run.len() > TARGET_BYTES_MAX {
        return Err(Reject::new(Reason::TargetTooLong, "path and query are longer than their bound"));
    }
    let rest = match rest {
        [] => return Ok(None),
        [b' ', rest @ ..] if !run.is_empty() => rest,
        [b' ' | b'\r' | b'\n' | 0, ..] => {
            return Err(Reject::new(Reason::Syntax, "the request line is not method, target, version"));
        }
        _ if run.is_empty() => {
            return Err(Reject::new(Reason::BadTarget, "the target does not begin with a slash"));
        }
        _ => {
            return Err(Reject::new(Reason::BadTarget, "the target has a byte that must be percent-encoded"));
        }
    };
    let target = str::from_utf8(run).map_err(|_| Reject::new(Reason::BadTarget, "the target is not ASCII"))?;
    Ok(Some((target, rest)))
}

/// Refuses `.` and `..` segments, however they are spelled. Slashes count decoded as well as raw (`%2F..%2F` climbs once
/// somebody decodes it); `//` and `%2F` themselves are parts of document ids.
fn refuse_dot_segments(path: &str) -> Result<(), Reject> {
    let mut dots = Some(0);
    for byte in percent_decode_str(path) {
        dots = match (byte, dots) {
            (b'/', Some(1 | 2)) => break,
            (b'/', _) => Some(0),
            (b'.', Some(count)) => Some(count + 1),
            _ => None,
        };
    }
    match dots {
        Some(1 | 2) => Err(Reject::new(Reason::BadTarget, "the path has a dot segment")),
        _ => Ok(()),
    }
}

/// Steps over the version and the end of the request line.
fn version(bytes: &[u8]) -> Result<Option<&[u8]>, Reject> {
    const EXPECTED: &[u8] = b"HTTP/1.1\r\n";
    const MAJOR: usize = 5;
    const MINOR: usize = 7;
    let mut pairs = bytes.iter().zip(EXPECTED).enumerate();
    match pairs.find(|(_, (byte, expected))| byte != expected) {
        None => Ok(bytes.get(EXPECTED.len()..)),
        Some((MAJOR | MINOR, (byte, _))) if byte.is_ascii_digit() => {
            Err(Reject::new(Reason::HttpVersion, "only HTTP/1.1 is spoken here"))
        }
        Some(_) => Err(Reject::new(Reason::Syntax, "the request line does not end in HTTP/1.1 and CRLF")),
    }
}

/// Cuts off the field lines with the empty line that ends them.
fn field_section(bytes: &[u8]) -> Step<'_, &[u8]> {
    let mut rest = bytes;
    for _ in 0..=HEADERS_MAX {
        let Some((line, behind)) = line(rest)? else {
            return Ok(None);
        };
        rest = behind;
        if line.is_empty() {
            return Ok(bytes.split_at_checked(bytes.len() - rest.len()));
        }
    }
    Err(Reject::new(Reason::TooManyHeaders, "more header lines than the bound"))
}

/// One line without its CRLF. A line feed alone is refused although RFC 9112 lets a server take it: who does and who
/// does not is what request smuggling lives on.
fn line(bytes: &[u8]) -> Step<'_, &[u8]> {
    let (content, rest) = split_run(bytes, |byte| byte != b'\n');
    // Length before content: a line that is not complete can be judged by its length only, and the verdict must stay.
    if content.strip_suffix(b"\r").unwrap_or(content).len() > HEADER_LINE_BYTES_MAX {
        return Err(Reject::new(Reason::HeadTooBig, "a header line is longer than its bound"));
    }
    let [_, rest @ ..] = rest else {
        return Ok(None);
    };
    match content.strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') && !line.contains(&0) => Ok(Some((line, rest))),
        _ => Err(Reject::new(Reason::Syntax, "a header line has a bare CR, a bare LF or a NUL")),
    }
}

/// Tokenises the fields and holds the whole head against the rules that need all of it.
fn head(parts: Parts<'_>) -> Result<Head<'_>, Reject> {
    let mut head = Head {
        method: parts.method,
        target: parts.target,
        path: parts.path,
        query: parts.query,
        host: "",
        content_length: None,
        keep_alive: true,
        fields: [("", ""); HEADERS_MAX],
        field_count: 0,
    };
    tokenise(parts.section, &mut head)?;
    head.host = host(&head)?;
    refuse_transfer_encoding(&head)?;
    head.content_length = content_length(&head)?;
    if head.header("expect").is_some() {
        return Err(Reject::new(Reason::Expectation, "no expectation is met"));
    }
    head.keep_alive = !head.has_token("connection", "close");
    Ok(head)
}

fn tokenise<'b>(section: &'b [u8], head: &mut Head<'b>) -> Result<(), Reject> {
    let mut raw = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = match httparse::parse_headers(section, &mut raw) {
        Ok(httparse::Status::Complete((used, parsed))) if used == section.len() => parsed,
        _ => {
            return Err(Reject::new(Reason::Syntax, "a header line is not name, colon, value"));
        }
    };
    for (field, header) in head.fields.iter_mut().zip(parsed) {
        let value = str::from_utf8(header.value)
            .ok()
            .filter(|value| value.is_ascii())
            .ok_or_else(|| Reject::new(Reason::Syntax, "a header value is not ASCII"))?;
        *field = (header.name, value);
    }
    head.field_count = parsed.len();
    Ok(())
}

/// The one Host. A path check that trusts a strange Host has been talked into the wrong site before (CVE-2026-48710).
fn host<'b>(head: &Head<'b>) -> Result<&'b str, Reject> {
    head.header_once("host")
        .filter(|host| is_host_and_port(host))
        .ok_or_else(|| Reject::new(Reason::Host, "Host is missing, repeated, or not a host with an optional port"))
}

fn is_host_and_port(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_host_name(name), port)
        }
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Names as resolvers and container networks have them, the underscore included; no `%`, no `@`.
fn is_host_name(name: &str) -> bool {
    name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Nothing here reads chunks, so nothing may get past with them: a plain endpoint asked with `Upgrade` and a chunked body
/// would otherwise leave the body behind as the next request.
fn refuse_transfer_encoding(head: &Head<'_>) -> Result<(), Reject> {
    if head.header("transfer-encoding").is_none() {
        return Ok(());
    }
    Err(if head.wants_upgrade() {
        Reject::new(Reason::UpgradeBody, "an upgrade has Transfer-Encoding")
    } else {
        Reject::new(Reason::LengthRequired, "Transfer-Encoding is not taken")
    })
}

/// A second Content-Length is refused even when equal: RFC 9110 allows merging it, but a proxy that merges otherwise would
/// see another request than we do.
fn content_length(head: &Head<'_>) -> Result<Option<u64>, Reject> {
    if head.header("content-length").is_none() {
        return Ok(None);
    }
    head.header_once("content-length")
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|length| *length <= CONTENT_LENGTH_MAX)
        .map(Some)
        .ok_or_else(|| Reject::new(Reason::Syntax, "Content-Length is repeated or not a number in bounds"))
}

/// A byte of a token (RFC 9110, 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Splits behind the longest front part whose bytes all satisfy `belongs`.
fn split_run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| !belongs(byte)).unwrap_or(bytes.len());
    bytes.split_at(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    /// Bytes by which a stream that is not HTTP is refused (threat row 20).
    const SNIFF_BYTES_MAX: usize = 64;

    const GOOD: &str = "GET /ws/prompts/readme?token=a.b&x=1 HTTP/1.1\r\nHost: example.com:8080\r\n\
        Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nCookie: a=1\r\ncookie: b=2\r\n\r\n";

    fn request(line: &str, fields: &str) -> String {
        format!("{line}\r\nHost: a\r\n{fields}\r\n")
    }

    fn get(fields: &str) -> String {
        request("GET / HTTP/1.1", fields)
    }

    fn verdict(bytes: &[u8]) -> Result<Option<usize>, Reject> {
        parse(bytes).map(|found| found.map(|(_, used)| used))
    }

    /// Whatever the network cuts off, the verdict is the same one, later or not at all; and no head is accepted early.
    fn assert_same_at_every_prefix(bytes: &[u8]) {
        let last = verdict(bytes);
        for end in 0..bytes.len() {
            match (verdict(&bytes[..end]), &last) {
                (Ok(None), Ok(Some(used))) => assert!(end < *used, "not accepted at {end}"),
                (Ok(None), _) => {}
                (Ok(Some(early)), Ok(Some(used))) => assert!(early == *used && end >= early),
                (Err(early), Err(late)) => assert_eq!(early, *late, "at {end}"),
                (early, late) => panic!("{early:?} at {end}, then {late:?}"),
            }
        }
    }

    /// (threat row, bytes, reason)
    fn refusals() -> Vec<(u8, Vec<u8>, Reason)> {
        let long = |count| "a".repeat(count);
        let text: Vec<(u8, String, Reason)> = vec![
            (1, get(&format!("X: {}\r\nY: {}\r\nZ: {}\r\n", long(3000), long(3000), long(3000))), Reason::HeadTooBig),
            (1, get(&format!("X: {}\r\n", long(4094))), Reason::HeadTooBig),
            (1, format!("GET / HTTP/1.1\r\nX: {}", long(9000)), Reason::HeadTooBig),
            (1, format!("GET /{}", long(2048)), Reason::TargetTooLong),
            (1, request(&format!("GET /{} HTTP/1.1", long(2048)), ""), Reason::TargetTooLong),
            (1, request(&format!("GET /{} HTTP/1.1", long(9000)), ""), Reason::TargetTooLong),
            (2, get(&"X: 1\r\n".repeat(64)), Reason::TooManyHeaders),
            (2, get(&"X:\r\n".repeat(1000)), Reason::TooManyHeaders),
            (5, format!("\r\n\r\n\r\n{GOOD}"), Reason::Syntax),
            (5, "\r\n".repeat(5000), Reason::Syntax),
            (5, format!("\n{GOOD}"), Reason::Syntax),
            (5, format!("\rGET{GOOD}"), Reason::Syntax),
            (6, "GET / HTTP/1.1\nHost: a\n\n".into(), Reason::Syntax),
            (6, "GET / HTTP/1.1\r\nHost: a\n\r\n".into(), Reason::Syntax),
            (6, "GET / HTTP/1.1\r\nHost: a\r\n\n".into(), Reason::Syntax),
            (6, get("X: 1\nY: 2\r\n"), Reason::Syntax),
            (6, get("X: a\rb\r\n"), Reason::Syntax),
            (6, get("X: a\r\r\n"), Reason::Syntax),
            (6, get("X: a\0b\r\n"), Reason::Syntax),
            (6, get("X\0: a\r\n"), Reason::Syntax),
            (6, get("X: a\x01b\r\n"), Reason::Syntax),
            (6, get("X: a\x7fb\r\n"), Reason::Syntax),
            (6, request("GET /\0 HTTP/1.1", ""), Reason::Syntax),
            (6, get("X: a\r\n b\r\n"), Reason::Syntax),
            (6, get("X: a\r\n\tb\r\n"), Reason::Syntax),
            (6, "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), Reason::Syntax),
            (6, get("X : a\r\n"), Reason::Syntax),
            (6, get("X\t: a\r\n"), Reason::Syntax),
            (6, get(": a\r\n"), Reason::Syntax),
            (6, get("no colon\r\n"), Reason::Syntax),
            (6, get("X(y): a\r\n"), Reason::Syntax),
            (6, get("X: caf\u{e9}\r\n"), Reason::Syntax),
            (6, request("GET  / HTTP/1.1", ""), Reason::Syntax),
            (6, request("GET /  HTTP/1.1", ""), Reason::Syntax),
            (6, request("GET / HTTP/1.1 ", ""), Reason::Syntax),
            (6, request("GET / b HTTP/1.1", ""), Reason::Syntax),
            (6, request(" GET / HTTP/1.1", ""), Reason::Syntax),
            (6, "GET /\r\n\r\n".into(), Reason::Syntax),
            (7, "GET / HTTP/1.1\r\n\r\n".into(), Reason::Host),
            (7, "GET / HTTP/1.1\r\nX: 1\r\n\r\n".into(), Reason::Host),
            (7, "GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), Reason::Host),
            (7, get("Host: a\r\n"), Reason::Host),
            (7, get("hOST: b\r\n"), Reason::Host),
            (8, get("Transfer-Encoding: chunked\r\n"), Reason::LengthRequired),
            (8, get("transfer-encoding: identity\r\nContent-Length: 3\r\n"), Reason::LengthRequired),
            (8, get("Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n"), Reason::UpgradeBody),
            (8, get("Content-Length: 3\r\nContent-Length: 3\r\n"), Reason::Syntax),
            (8, get("Content-Length: 3, 3\r\n"), Reason::Syntax),
            (8, get("Content-Length:\r\n"), Reason::Syntax),
            (8, get("Content-Length: +3\r\n"), Reason::Syntax),
            (8, get("Content-Length: -1\r\n"), Reason::Syntax),
            (8, get("Content-Length: 0x3\r\n"), Reason::Syntax),
            (8, get("Content-Length: 9007199254740993\r\n"), Reason::Syntax),
            (8, get("Content-Length: 99999999999999999999999\r\n"), Reason::Syntax),
            (9, request("get / HTTP/1.1", ""), Reason::Method),
            (9, request("Get / HTTP/1.1", ""), Reason::Method),
            (9, request("GE{T / HTTP/1.1", ""), Reason::Method),
            (9, request("CONNECT a:80 HTTP/1.1", ""), Reason::BadTarget),
            (9, request("GET / HTTP/1.0", ""), Reason::HttpVersion),
            (9, request("GET / HTTP/1.2", ""), Reason::HttpVersion),
            (9, request("GET / HTTP/2", ""), Reason::HttpVersion),
            (9, request("GET / http/1.1", ""), Reason::Syntax),
            (9, request("GET / HTTP/1.10", ""), Reason::Syntax),
            (9, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Reason::HttpVersion),
            (16, request("GET http://a/ HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET a HTTP/1.1", ""), Reason::BadTarget),
            (16, request("OPTIONS * HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET /#top HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET /?a#top HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET /caf\u{e9} HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET /a\tb HTTP/1.1", ""), Reason::BadTarget),
            (16, request("GET /a\x7f HTTP/1.1", ""), Reason::BadTarget),
            (19, get("Expect: 100-continue\r\n"), Reason::Expectation),
            (19, get("expect:\r\n"), Reason::Expectation),
            (20, long(40).to_uppercase(), Reason::Syntax),
            (20, "*1\r\n$4\r\nPING\r\n".into(), Reason::Syntax),
        ];
        let bytes: Vec<(u8, &[u8], Reason)> = vec![
            (6, b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n", Reason::Syntax),
            (16, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadTarget),
            (20, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Reason::Syntax),
            (20, b"\x00\x00\x00\x00", Reason::Syntax),
            (20, b"A\xff\xfe", Reason::Syntax),
            (20, b"\"hello", Reason::Syntax),
        ];
        let paths = [
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/..",
            "/a/../b",
            "/a/.?b",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e",
            "/a%2F..",
            "/a%2f%2e%2e%2fb",
            "/..%2Fetc",
            "//..//",
            "/a/b/..?c=d",
        ];
        let hosts = [
            "a b",
            "a@b",
            "user:pw@b",
            "a:",
            "a:b",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a/b",
            "a?b",
            "a#b",
            "a%41",
            "[::1",
            "::1",
            "[::g]",
            "[::1]80",
            "[::1]:",
            "[]",
            "[fe80::1%25eth0]",
            ".",
            ":80",
            "a,b",
            "a\\b",
            "_",
        ];
        text.into_iter()
            .map(|(row, text, reason)| (row, text.into_bytes(), reason))
            .chain(bytes.into_iter().map(|(row, bytes, reason)| (row, bytes.to_vec(), reason)))
            .chain(paths.map(|path| (16, request(&format!("GET {path} HTTP/1.1"), "").into_bytes(), Reason::BadTarget)))
            .chain(hosts.map(|host| (7, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(), Reason::Host)))
            .collect()
    }

    #[test]
    fn every_threat_row_is_refused_for_its_own_reason_at_every_prefix() {
        for (row, bytes, reason) in refusals() {
            let shown = bytes.escape_ascii().to_string();
            match parse(&bytes) {
                Err(reject) => assert_eq!(reject.reason, reason, "row {row}: {shown}"),
                Ok(found) => panic!("row {row}: {shown} gave {found:?}"),
            }
            assert_same_at_every_prefix(&bytes);
        }
    }

    #[test]
    fn what_no_continuation_can_heal_is_refused_at_once() {
        let flood = vec![0x16; 1000];
        let upper = vec![b'A'; 1000];
        let endless = format!("GET / HTTP/1.1\r\n{}", "X: 1\r\n".repeat(65));
        let mut unfinished = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "x".repeat(4093));
        unfinished.push_str(&"y".repeat(HEAD_BYTES_MAX - unfinished.len()));
        for (bytes, at_most) in [
            (&b"\x16\x03\x01\x02\x00"[..], 1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4),
            (b"\r\n\r\n\r\n", 5),
            (b"SSH-2.0-OpenSSH_9.2\r\n", 10),
            (b"EHLO mail.example.com\r\n", 6),
            (&flood, 1),
            (&upper, SNIFF_BYTES_MAX),
            (b"GET /\r\n", 6),
            (b"GET /.. ", 8),
            (b"GET / HTTP/1.0", 14),
            (b"GET / HTTP/1.1\r\nX: a\rb\r\n", 24),
            (b"GET / HTTP/1.1\r\nX: a\0b\r\n", 24),
            (b"GET / HTTP/1.1\r\nX: a\n", 21),
            (endless.as_bytes(), endless.len()),
            (unfinished.as_bytes(), HEAD_BYTES_MAX),
        ] {
            let at = (0..=bytes.len()).find(|&end| parse(&bytes[..end]).is_err());
            let shown = bytes.escape_ascii();
            assert!(at.is_some_and(|at| at <= at_most), "{at:?} > {at_most}: {shown}");
        }
    }

    #[test]
    fn good_heads_are_accepted_and_leave_what_follows() {
        let long = "a".repeat(4093);
        let mut full = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\nY: ");
        full.push_str(&"b".repeat(HEAD_BYTES_MAX - full.len() - 4));
        full.push_str("\r\n\r\n");
        assert_eq!(full.len(), HEAD_BYTES_MAX);
        for head in [
            GOOD.to_string(),
            format!("\r\n{GOOD}"),
            format!("\r\n\r\n{GOOD}"),
            full,
            get(&format!("X: {long}\r\n")),
            get(&"X: 1\r\n".repeat(63)),
            request(&format!("GET /{} HTTP/1.1", "a".repeat(2047)), ""),
            request("GET /..a/...?../.. HTTP/1.1", ""),
            request("GET //a%2Fb//c;d/%252e%252e HTTP/1.1", ""),
            request("M-SEARCH /a HTTP/1.1", ""),
            get("Content-Length: 9007199254740992\r\n"),
            get("X:\r\n"),
            get("X: \t a \t\r\n"),
            // Threat row 14: a plain endpoint asked with Upgrade, in whatever form, is an ordinary request.
            get("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"),
        ] {
            assert_eq!(verdict(head.as_bytes()), Ok(Some(head.len())), "{head}");
            for tail in ["GET", "\0\n\r\n\r\n", "\r\n\r\n\r\n"] {
                let bytes = format!("{head}{tail}");
                assert_eq!(verdict(bytes.as_bytes()), Ok(Some(head.len())), "{bytes}");
                assert_same_at_every_prefix(bytes.as_bytes());
            }
        }
    }

    #[test]
    fn good_hosts_are_accepted() {
        for host in [
            "a",
            "localhost:8080",
            "app_web-1.internal",
            "example.com.",
            "127.0.0.1:1",
            "[::1]",
            "[2001:db8::1]:65535",
            "A:0",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(parse(bytes.as_bytes()).unwrap().unwrap().0.host, host);
        }
    }

    #[test]
    fn a_head_answers_questions_about_itself() {
        let (head, _) = parse(GOOD.as_bytes()).unwrap().unwrap();
        assert_eq!(head.method, Method::Get);
        assert_eq!(head.target, "/ws/prompts/readme?token=a.b&x=1");
        assert_eq!(head.path, "/ws/prompts/readme");
        assert_eq!(head.query, Some("token=a.b&x=1"));
        assert_eq!(head.host, "example.com:8080");
        assert_eq!(head.content_length, None);
        assert!(head.keep_alive && head.wants_upgrade());
        assert_eq!(head.header("COOKIE"), Some("a=1"));
        assert_eq!(head.header_all("cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((head.header_once("cookie"), head.header("absent")), (None, None));
        assert_eq!(head.header_once("sec-websocket-version"), Some("13"));
        assert_eq!(head.headers().count(), 7);
        assert_eq!(head.headers().next(), Some(("Host", "example.com:8080")));
        for (name, token, found) in [
            ("connection", "UPGRADE", true),
            ("Connection", "keep-alive", true),
            ("connection", "keep", false),
            ("upgrade", "websocke", false),
        ] {
            assert_eq!(head.has_token(name, token), found, "{name}: {token}");
        }
    }

    #[test]
    fn token_lists_run_over_all_lines() {
        for (fields, upgrade, keep_alive) in [
            ("Upgrade: websocket, foo\r\n", true, true),
            ("Upgrade: foo\r\nUPGRADE: ,\t WEBSOCKET ,\r\n", true, true),
            ("Upgrade: websockets\r\n", false, true),
            ("Upgrade: websocket foo\r\n", false, true),
            ("Connection: keep-alive\r\nConnection: foo, Close\r\n", false, false),
            ("Connection: closed\r\n", false, true),
        ] {
            let bytes = get(fields);
            let (head, _) = parse(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!((head.wants_upgrade(), head.keep_alive), (upgrade, keep_alive), "{fields}");
        }
    }

    #[test]
    fn methods_are_told_apart() {
        for (word, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("PUT", Method::Put),
            ("DELETE", Method::Delete),
            ("OPTIONS", Method::Options),
            ("PATCH", Method::Patch),
            ("TRACE", Method::Other),
        ] {
            let bytes = request(&format!("{word} / HTTP/1.1"), "Content-Length: 12\r\n");
            let (head, _) = parse(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!((head.method, head.content_length), (method, Some(12)));
        }
    }

    #[test]
    fn a_head_in_a_log_line_shows_no_secret() {
        let bytes = request("GET /a?token=hunter2 HTTP/1.1", "Authorization: Bearer hunter2\r\nCookie: s=hunter2\r\n");
        let shown = format!("{:?}", parse(bytes.as_bytes()).unwrap().unwrap().0);
        assert!(shown.contains("Authorization") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn paths_are_decoded_once() {
        for (path, decoded) in [
            ("/a/b", Some("/a/b")),
            ("/a%2Fb//c", Some("/a/b//c")),
            ("/caf%C3%A9%20+", Some("/caf\u{e9} +")),
            ("/%252e", Some("/%2e")),
            ("/100%", Some("/100%")),
            ("/%zz%4", Some("/%zz%4")),
            ("/%ff", None),
            ("/%C3", None),
            ("/%00", None),
            ("/a%0d%0ab", None),
            ("/%7f", None),
            ("/%C2%85", None),
        ] {
            assert_eq!(decode_path(path).as_deref().ok(), decoded, "{path}");
        }
        assert_eq!(decode_path("/%ff").unwrap_err().reason, Reason::BadTarget);
    }

    #[test]
    fn query_parameters_are_found_and_decoded() {
        let query = Some("a=1&b=x%26y+z&a=2&empty=&bare&caf%C3%A9=1");
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("x&y z")),
            ("empty", Some("")),
            ("bare", Some("")),
            ("caf\u{e9}", Some("1")),
            ("A", None),
        ] {
            assert_eq!(query_param(query, name).as_deref(), value, "{name}");
        }
        assert_eq!(query_param(None, "a"), None);
    }

    #[test]
    fn a_refusal_stays_small() {
        assert_eq!(size_of::<Reject>(), 32);
    }

    /// A good head with a few bytes overwritten, put in or taken out.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let nasty = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(0), any::<u8>()];
        let damage = (0..GOOD.len(), nasty, 0..3u8);
        prop::collection::vec(damage, 1..4).prop_map(|damages| {
            let mut bytes = GOOD.as_bytes().to_vec();
            for (at, byte, how) in damages {
                let at = at.min(bytes.len() - 1);
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_head(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!matches!(parse(&bytes), Ok(Some(_))));
            assert_same_at_every_prefix(&bytes);
        }

        #[test]
        fn damaged_heads_get_one_verdict_however_they_are_cut(bytes in damaged()) {
            assert_same_at_every_prefix(&bytes);
        }

        /// We may refuse what the tokenizer takes; we may never take what it refuses, nor read it otherwise.
        #[test]
        fn what_is_accepted_is_what_the_tokenizer_reads(bytes in damaged()) {
            if let Ok(Some((head, used))) = parse(&bytes) {
                let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
                let mut judge = httparse::Request::new(&mut fields);
                prop_assert_eq!(judge.parse(&bytes), Ok(httparse::Status::Complete(used)));
                prop_assert_eq!(judge.path, Some(head.target));
                let read: Vec<_> = judge.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
                let ours: Vec<_> = head.headers().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
                prop_assert_eq!(ours, read);
            }
        }

        #[test]
        fn dot_segments_are_those_of_the_decoded_path(path in "(/|%2[fF]|\\.|%2[eE]|x|%){0,12}") {
            let decoded = decode_path(&path).unwrap();
            let climbs = decoded.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert_eq!(refuse_dot_segments(&path).is_err(), climbs);
        }
    }
}
