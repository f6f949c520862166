//! Connecting: from an address to an open socket, or to who is at fault that there is none.

use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;
use tungstenite::http::{HeaderName, HeaderValue, Response};
use tungstenite::{Error, HandshakeError, WebSocket};

use crate::target::Address;

/// How a command ended. The discriminant is the exit code; scripts rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Ok = 0,
    NotMet = 1,
    Usage = 2,
    Refused = 3,
    Unreachable = 4,
    Closed = 5,
}

/// Why a command did not end well: the exit code, a sentence, and the same for programs.
#[derive(Debug)]
pub struct Failure {
    pub outcome: Outcome,
    pub what: String,
    pub details: Value,
}

impl Failure {
    pub fn new(outcome: Outcome, what: impl Into<String>) -> Failure {
        Failure { outcome, what: what.into(), details: json!({"exit": outcome as u8}) }
    }
}

pub fn request(address: &Address, headers: &[(&str, String)]) -> Result<Request, String> {
    let mut request = address.url().into_client_request().map_err(|error| format!("{}: {error}", address.url()))?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header's name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of {name} cannot stand in a header"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// Tries each address of the host, as a browser would: `localhost` is often two and only one is listened on.
pub fn reach(address: &Address, timeout: Duration) -> Result<TcpStream, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::new(Outcome::Unreachable, format!("cannot reach {}: {error}", address.authority()))
    };
    let candidates = (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| unreachable(&error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => {
                // Without a deadline on the handshake a server that accepts and says nothing would hang a script.
                let prepared = stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_read_timeout(Some(timeout)))
                    .and_then(|()| stream.set_write_timeout(Some(timeout)));
                return prepared.map(|()| stream).map_err(|error| unreachable(&error));
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(&last))
}

pub type Socket = WebSocket<TcpStream>;
/// The server's answer to the handshake; a refusal brings the beginning of its body.
pub type Answer = Response<Option<Vec<u8>>>;

pub fn shake_hands(request: Request, stream: TcpStream) -> Result<(Socket, Answer), Failure> {
    // A second handle on the socket: a refused handshake consumes the first, and the body may be still on its way.
    let rest = stream.try_clone().map_err(|error| Failure::new(Outcome::Unreachable, error.to_string()))?;
    match tungstenite::client(request, stream) {
        Ok(connected) => Ok(connected),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(refusal(&response, rest)),
        Err(HandshakeError::Failure(Error::Io(error))) => {
            Err(Failure::new(Outcome::Unreachable, format!("the connection broke in the handshake: {error}")))
        }
        Err(HandshakeError::Failure(error)) => {
            Err(Failure::new(Outcome::Refused, format!("the server's handshake is not one: {error}")))
        }
        Err(HandshakeError::Interrupted(_)) => {
            Err(Failure::new(Outcome::Unreachable, "no answer to the handshake in time"))
        }
    }
}

/// Status, reason, detail and hint of a refused handshake, as far as the server gives them.
fn refusal(response: &Answer, rest: impl Read) -> Failure {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let length = header("content-length").and_then(|length| length.parse().ok());
    let body = whole_body(response.body().as_deref().unwrap_or_default(), length, rest);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let status = response.status();
    let reason = header("x-ws-reject").or_else(|| header("x-websocket-reject-reason"));
    let said = |key: &str| body.get(key).and_then(Value::as_str);
    let mut what = format!("refused: {status}");
    for (label, value) in [("reason", reason.or(said("code"))), ("detail", said("detail")), ("hint", said("hint"))] {
        if let Some(value) = value {
            what.push_str(&format!("\n  {label}: {value}"));
        }
    }
    let details = json!({
        "exit": Outcome::Refused as u8, "status": status.as_u16(), "reason": reason,
        "code": said("code"), "detail": said("detail"), "hint": said("hint"),
    });
    Failure { outcome: Outcome::Refused, what, details }
}

/// What came with the head, and the rest of what was announced; at most 64 KiB, since a stranger announces it.
fn whole_body(begun: &[u8], length: Option<usize>, rest: impl Read) -> Vec<u8> {
    const BODY_BYTES_MAX: usize = 64 * 1024;
    let mut body = begun.to_vec();
    let missing = length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX).saturating_sub(body.len());
    // A body cut short is shown as far as it came.
    let _ = rest.take(missing as u64).read_to_end(&mut body);
    body
}

/// Linux says `WouldBlock` for a read that timed out, others say `TimedOut`.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_refusal_is_read_to_its_end() {
        let whole = br#"{"code":"unknown_prompt","detail":"no prompt x","hint":"create it"}"#;
        let (first, rest) = whole.split_at(10);
        let response = Response::builder()
            .status(403)
            .header("Content-Length", whole.len())
            .header("X-WS-Reject", "unknown_prompt")
            .body(Some(first.to_vec()))
            .unwrap();
        let failure = refusal(&response, rest);
        assert_eq!(failure.outcome, Outcome::Refused);
        assert_eq!(
            failure.what,
            "refused: 403 Forbidden\n  reason: unknown_prompt\n  detail: no prompt x\n  hint: create it"
        );
        assert_eq!(failure.details["status"], 403);
    }

    #[test]
    fn a_refusal_without_an_explanation_is_one_too() {
        let response = Response::builder().status(502).body(None).unwrap();
        assert_eq!(refusal(&response, &b"<html>"[..]).what, "refused: 502 Bad Gateway");
    }
}
