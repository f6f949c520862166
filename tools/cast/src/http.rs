//! One request over HTTP, one answer: for what has no socket of its own.
//!
//! By hand, because all that is asked here is a small JSON body over a connection of its own: a client library would bring
//! pools, redirects and decoders, and each is a way to see something else than what the server said.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::Value;

use crate::connect::{Failure, Outcome, reach};
use crate::target::Address;

/// More than anything here is answered with.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Null for what is not JSON.
    pub body: Value,
}

impl Answer {
    pub fn is_well(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whatever the server gave as a reason, in any dialect's spelling.
    pub fn reason(&self) -> String {
        let said = ["detail", "error", "message", "code"].iter().find_map(|name| self.body.get(name));
        let said = said.map(|said| said.as_str().map_or_else(|| said.to_string(), str::to_owned));
        format!("{} {}", self.status, said.unwrap_or_default()).trim_end().to_owned()
    }
}

pub fn post(address: &Address, headers: &[(&str, String)], body: &Value, timeout: Duration) -> Result<Answer, Failure> {
    ask(address, "POST", headers, Some(body), timeout)
}

/// The path and the headers are ours or were judged: nothing in them can break a line.
pub fn ask(
    address: &Address,
    method: &str,
    headers: &[(&str, String)],
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut request =
        format!("{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", address.path, address.authority());
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(&body);

    let mut stream = reach(address, timeout)?;
    let broke = |error: std::io::Error| {
        Failure::new(Outcome::Unreachable, format!("the connection to {} broke: {error}", address.authority()))
    };
    stream.write_all(request.as_bytes()).map_err(broke)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(broke)?;
    read(&answer).ok_or_else(|| {
        Failure::new(Outcome::Unreachable, format!("{} gave an answer that is not HTTP", address.authority()))
    })
}

fn read(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = serde_json::from_slice(answer.get(end + 4..)?).unwrap_or_default();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_a_status_and_what_is_json_of_its_body() {
        for (answer, status, body) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"a\":1}", 200, json!({"a": 1})),
            ("HTTP/1.1 404 Not Found\r\n\r\n", 404, Value::Null),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", 502, Value::Null),
        ] {
            assert_eq!(read(answer.as_bytes()), Some(Answer { status, body }));
        }
        for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 2\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 \u{fc}0\r\n\r\n"] {
            assert_eq!(read(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn a_reason_is_found_in_every_dialect_s_spelling() {
        for (body, reason) in [
            (json!({"detail": "no such ticket"}), "409 no such ticket"),
            (json!({"detail": [{"msg": "x"}]}), "409 [{\"msg\":\"x\"}]"),
            (json!({"error": "404: x"}), "409 404: x"),
            (Value::Null, "409"),
        ] {
            assert_eq!(Answer { status: 409, body }.reason(), reason);
        }
    }
}
