//! Which path leads where.
//!
//! ```text
//! /api/v1/ws   /api/v1/ws/   /api/v1/ws/ws   /ws        ?session_id=…&token=…        → a session's socket
//! /api/v1/agent/execute   /api/v1/agent/sessions[/{id}]   /api/v1/approvals/…       → REST
//! ```
//!
//! Every spelling that a document, a test or a script of the original's ever dialled is served (Y1).

use crate::dialect::{Name, Route};
use crate::http::{Reject, query_param};

pub const EXECUTE: &str = "/api/v1/agent/execute";
pub const SESSIONS: &str = "/api/v1/agent/sessions";
pub const APPROVALS: &str = "/api/v1/approvals";

/// Where a socket of this dialect wants to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// As given; without one nobody is let in.
    pub session_id: Option<String>,
}

pub fn route(path: &str, query: Option<&str>) -> Result<Option<Route>, Reject> {
    let below = |root| path.strip_prefix(root).is_some_and(|rest: &str| rest.starts_with('/'));
    Ok(match path {
        "/api/v1/ws" | "/api/v1/ws/" | "/api/v1/ws/ws" | "/ws" => {
            let session_id = query_param(query, "session_id").map(|id| id.into_owned()).filter(|id| !id.is_empty());
            Some(Route::Socket(crate::dialect::Target::Agents(Target { session_id })))
        }
        EXECUTE | SESSIONS => Some(Route::Endpoint(Name::Agents)),
        _ if below(SESSIONS) || below(APPROVALS) => Some(Route::Endpoint(Name::Agents)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn y1_every_spelling_is_served() {
        let socket = |id: Option<&str>| {
            let target = Target { session_id: id.map(str::to_owned) };
            Some(Route::Socket(crate::dialect::Target::Agents(target)))
        };
        let rest = Some(Route::Endpoint(Name::Agents));
        for (path, query, expected) in [
            ("/api/v1/ws/", Some("session_id=A&token=t"), socket(Some("A"))),
            ("/api/v1/ws", Some("token=t&session_id=a%2Fb"), socket(Some("a/b"))),
            ("/api/v1/ws/ws", Some("session_id=A&session_id=B"), socket(Some("A"))),
            ("/ws", Some("session_id=A"), socket(Some("A"))),
            ("/api/v1/ws/", None, socket(None)),
            ("/api/v1/ws", Some("session_id="), socket(None)),
            ("/api/v1/agent/execute", None, rest.clone()),
            ("/api/v1/agent/sessions", Some("limit=1"), rest.clone()),
            ("/api/v1/agent/sessions/x", None, rest.clone()),
            ("/api/v1/approvals/pending", None, rest.clone()),
            ("/api/v1/approvals/x/approve", None, rest),
            ("/api/v1/approvals", None, None),
            ("/api/v1/approvalsx/", None, None),
            ("/api/v1/agent", None, None),
            ("/api/v1/agent/logs", None, None),
            ("/api/v1/ws/connect", None, None),
            ("/api/v1/ws/ws/", None, None),
        ] {
            assert_eq!(route(path, query).unwrap(), expected, "{path} {query:?}");
        }
    }
}
