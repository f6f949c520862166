//! Why a stranger was turned away at the door, and the one total function that says what he hears.

use std::borrow::Cow;

/// Every way a request can be refused. The name in [`Reason::row`] is what `X-WS-Reject`, the body's `code`, the metric's
/// label and the log line show, so that one word leads from a user's screen to this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    HeadTooBig,
    TargetTooLong,
    TooManyHeaders,
    Dribble,
    HandshakeTimeout,
    Syntax,
    Host,
    UpgradeBody,
    BodyTooBig,
    LengthRequired,
    Method,
    HttpVersion,
    Expectation,
    NotAnUpgrade,
    WebSocketVersion,
    WebSocketKey,
    EarlyData,
    UnknownPath,
    BadTarget,
    BinaryFrame,
    Origin,
    Token,
    TokenInQuery,
    TokenExpired,
    Revoked,
    AuthTimeout,
    Forbidden,
    Evicted,
    UnknownPrompt,
    BadPromptId,
    BadSession,
    UnknownSession,
    TooManyConnections,
    TooManyRequests,
    Overloaded,
    Draining,
    StoreBusy,
    StoreFull,
    StoreBroken,
    OutcomeUnknown,
    Internal,
}

/// What the other side is told: HTTP status, close code in `close` style, the short name and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub status: u16,
    pub close: u16,
    pub name: &'static str,
    pub hint: &'static str,
}

impl Reason {
    pub const ALL: [Reason; 41] = [
        Reason::HeadTooBig,
        Reason::TargetTooLong,
        Reason::TooManyHeaders,
        Reason::Dribble,
        Reason::HandshakeTimeout,
        Reason::Syntax,
        Reason::Host,
        Reason::UpgradeBody,
        Reason::BodyTooBig,
        Reason::LengthRequired,
        Reason::Method,
        Reason::HttpVersion,
        Reason::Expectation,
        Reason::NotAnUpgrade,
        Reason::WebSocketVersion,
        Reason::WebSocketKey,
        Reason::EarlyData,
        Reason::UnknownPath,
        Reason::BadTarget,
        Reason::BinaryFrame,
        Reason::Origin,
        Reason::Token,
        Reason::TokenInQuery,
        Reason::TokenExpired,
        Reason::Revoked,
        Reason::AuthTimeout,
        Reason::Forbidden,
        Reason::Evicted,
        Reason::UnknownPrompt,
        Reason::BadPromptId,
        Reason::BadSession,
        Reason::UnknownSession,
        Reason::TooManyConnections,
        Reason::TooManyRequests,
        Reason::Overloaded,
        Reason::Draining,
        Reason::StoreBusy,
        Reason::StoreFull,
        Reason::StoreBroken,
        Reason::OutcomeUnknown,
        Reason::Internal,
    ];

    /// The one table of refusals.
    pub const fn row(self) -> Row {
        const fn row(status: u16, close: u16, name: &'static str, hint: &'static str) -> Row {
            Row { status, close, name, hint }
        }
        match self {
            Reason::HeadTooBig => row(431, 1002, "head_too_big", "send at most 8 KiB of request head, 4 KiB a line"),
            Reason::TargetTooLong => row(414, 1002, "target_too_long", "send at most 2 KiB of path and query"),
            Reason::TooManyHeaders => row(431, 1002, "headers", "send at most 64 header lines"),
            Reason::Dribble => row(400, 1002, "dribble", "send the request head in fewer, larger pieces"),
            Reason::HandshakeTimeout => {
                row(408, 1002, "handshake_timeout", "send the whole request head within the handshake time")
            }
            Reason::Syntax => row(400, 1002, "syntax", "send HTTP/1.1 as RFC 9112 writes it"),
            Reason::Host => row(400, 1002, "host", "send exactly one valid Host header"),
            Reason::UpgradeBody => {
                row(400, 1002, "body", "an upgrade carries no body: drop Content-Length and Transfer-Encoding")
            }
            Reason::BodyTooBig => row(413, 1009, "body_too_big", "send at most 1 MiB of body"),
            Reason::LengthRequired => {
                row(411, 1002, "length_required", "send the body with Content-Length, not chunked")
            }
            Reason::Method => row(405, 1002, "method", "use the method the endpoint documents; an upgrade is a GET"),
            Reason::HttpVersion => row(505, 1002, "http_version", "speak HTTP/1.1"),
            Reason::Expectation => row(417, 1002, "expectation", "drop the Expect header"),
            Reason::NotAnUpgrade => row(
                426,
                1002,
                "not_an_upgrade",
                "this path is a WebSocket: send Upgrade: websocket and Connection: Upgrade (behind a proxy, have it forward both)",
            ),
            Reason::WebSocketVersion => row(426, 1002, "version", "send Sec-WebSocket-Version: 13, once"),
            Reason::WebSocketKey => row(400, 1002, "key", "send one Sec-WebSocket-Key of 16 bytes in base64"),
            Reason::EarlyData => row(400, 1002, "early_data", "wait for the 101 before sending more than 4 KiB"),
            Reason::UnknownPath => {
                row(404, 4404, "unknown_path", "check the path, and that this listener serves its dialect")
            }
            Reason::BadTarget => {
                row(400, 1002, "target", "send an origin-form, ASCII, percent-encoded path without dot segments")
            }
            Reason::BinaryFrame => row(400, 1003, "binary", "send text frames: this socket takes no binary ones"),
            Reason::Origin => row(403, 1008, "origin", "add the page's origin to origins.allow"),
            Reason::Token => row(
                401,
                4401,
                "token",
                "show a valid token: Authorization: Bearer, Sec-WebSocket-Protocol: bearer.<token>, or ?token=; a backend its API key: Authorization: Bearer, or X-API-Key",
            ),
            Reason::TokenInQuery => row(
                401,
                4401,
                "query_token",
                "query tokens are off (auth.query_token): use Authorization: Bearer or Sec-WebSocket-Protocol: bearer.<token>",
            ),
            Reason::TokenExpired => row(401, 4401, "token_expired", "get a new token and connect again"),
            Reason::Revoked => row(401, 4401, "revoked", "this token was revoked: log in again for a new one"),
            Reason::AuthTimeout => row(
                401,
                4401,
                "auth_timeout",
                "show a token in the handshake, or right after it with the operation auth",
            ),
            Reason::Forbidden => row(403, 4403, "forbidden", "the token does not grant this room or verb"),
            Reason::Evicted => row(
                403,
                4403,
                "evicted",
                "an operator or a backend closed this connection: ask there before coming back",
            ),
            Reason::UnknownPrompt => row(
                403,
                4004,
                "unknown_prompt",
                "create the prompt first, or list the known ones with GET /api/prompts/all",
            ),
            Reason::BadPromptId => row(
                400,
                4004,
                "bad_prompt_id",
                "ids are paths without dot segments or control characters, at most 1,024 bytes",
            ),
            Reason::BadSession => row(403, 1008, "session", "name a session by its UUID: ?session_id=…"),
            Reason::UnknownSession => row(
                403,
                1008,
                "unknown_session",
                "create the session first: POST /api/v1/agent/sessions, or POST /v1/sessions as a backend",
            ),
            Reason::TooManyConnections => row(
                503,
                1013,
                "too_many_connections",
                "try again later, or raise limits.connections and the descriptor limit",
            ),
            Reason::TooManyRequests => row(429, 1013, "too_many_requests", "slow down and try again"),
            Reason::Overloaded => row(503, 1013, "overloaded", "the server holds as much as it may: try again later"),
            Reason::Draining => row(503, 1012, "draining", "the server is restarting: connect again in a moment"),
            Reason::StoreBusy => row(503, 1013, "store_busy", "the store is behind: try again in a moment"),
            Reason::StoreFull => {
                row(507, 1013, "store_full", "the server's disk is full: free space on it, then try again")
            }
            Reason::StoreBroken => row(
                503,
                1012,
                "store_broken",
                "the store failed and the server is stopping: connect again after its restart",
            ),
            Reason::OutcomeUnknown => {
                row(504, 1012, "unknown", "it is not known whether this was saved: read it back before trying again")
            }
            Reason::Internal => row(500, 1011, "internal", "this is the server's fault: report it with the log line"),
        }
    }
}

/// One refusal: the reason, and a sentence about this very request. Never holds a secret: it is logged and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    pub detail: Cow<'static, str>,
}

impl Reject {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Reject {
        Reject { reason, detail: detail.into() }
    }

    pub fn row(&self) -> Row {
        self.reason.row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_all_reasons_are_listed() {
        let names: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.row().name).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
