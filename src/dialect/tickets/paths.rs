//! Which path leads where: two sockets, and the endpoints of the webhook server and of its dashboard.
//!
//! ```text
//! /ws   /ws/logs                                                           → a socket
//! /tickets/create   /webhook/notion                                        → POST
//! /jobs/{id}   /api/tickets   /api/stats   /api/tickets/{id}/conversation  → GET
//! /api/tickets/{id}/status?status=                                         → POST
//! ```

use super::{LOGS, TICKETS};
use crate::dialect::{Name, Route};
use crate::http::{Reject, query_param};
use crate::ids::Seq;

/// Where a socket of this dialect wants to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub room: &'static str,
    /// From where it wants to be shown what it missed; `None` for what every old client wants: only what is new.
    pub since: Option<Seq>,
}

/// An HTTP endpoint; ids are as sent, still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Endpoint<'p> {
    Create,
    Webhook,
    Job(&'p str),
    Tickets,
    Stats,
    Conversation(&'p str),
    Status(&'p str),
}

/// Any other query of a socket is ignored, as it always was; so is a `since` that is no number.
pub fn route(path: &str, query: Option<&str>) -> Result<Option<Route>, Reject> {
    let room = match path {
        "/ws" => TICKETS,
        "/ws/logs" => LOGS,
        _ => {
            let known = endpoint(path).is_some() || without_slash(path).is_some();
            return Ok(known.then_some(Route::Endpoint(Name::Tickets)));
        }
    };
    let since = query_param(query, "since").and_then(|since| since.parse().ok()).map(Seq);
    Ok(Some(Route::Socket(crate::dialect::Target::Tickets(Target { room, since }))))
}

pub fn endpoint(path: &str) -> Option<Endpoint<'_>> {
    let is_segment = |id: &&str| !id.is_empty() && !id.contains('/');
    match path {
        "/tickets/create" => Some(Endpoint::Create),
        "/webhook/notion" => Some(Endpoint::Webhook),
        "/api/tickets" => Some(Endpoint::Tickets),
        "/api/stats" => Some(Endpoint::Stats),
        _ => {
            if let Some(id) = path.strip_prefix("/jobs/") {
                return Some(id).filter(is_segment).map(Endpoint::Job);
            }
            let rest = path.strip_prefix("/api/tickets/")?;
            let conversation = rest.strip_suffix("/conversation").filter(is_segment).map(Endpoint::Conversation);
            conversation.or_else(|| rest.strip_suffix("/status").filter(is_segment).map(Endpoint::Status))
        }
    }
}

/// The endpoint's path, when only a last slash is too many: the originals redirected those.
pub fn without_slash(path: &str) -> Option<&str> {
    path.strip_suffix('/').filter(|path| endpoint(path).is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn socket(room: &'static str, since: Option<u64>) -> Option<Route> {
        let target = Target { room, since: since.map(Seq) };
        Some(Route::Socket(crate::dialect::Target::Tickets(target)))
    }

    #[test]
    fn two_paths_are_sockets_and_any_query_is_ignored() {
        assert_eq!(route("/ws", None).unwrap(), socket("tickets", None));
        assert_eq!(route("/ws", Some("token=x&y")).unwrap(), socket("tickets", None));
        assert_eq!(route("/ws/logs", Some("since=7")).unwrap(), socket("logs", Some(7)));
        for query in ["since=", "since=-1", "since=1.5", "since=99999999999999999999", "since=x"] {
            assert_eq!(route("/ws", Some(query)).unwrap(), socket("tickets", None), "{query}");
        }
    }

    #[test]
    fn endpoints_are_matched_whole() {
        for (path, expected) in [
            ("/tickets/create", Some(Endpoint::Create)),
            ("/webhook/notion", Some(Endpoint::Webhook)),
            ("/jobs/job-123", Some(Endpoint::Job("job-123"))),
            ("/api/tickets", Some(Endpoint::Tickets)),
            ("/api/stats", Some(Endpoint::Stats)),
            ("/api/tickets/a%20b/conversation", Some(Endpoint::Conversation("a%20b"))),
            ("/api/tickets/a/status", Some(Endpoint::Status("a"))),
            ("/api/tickets//status", None),
            ("/api/tickets/a/b/status", None),
            ("/api/tickets/status", None),
            ("/api/tickets/a", None),
            ("/jobs/", None),
            ("/jobs/a/b", None),
            ("/tickets", None),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
            let route = route(path, None).unwrap();
            assert_eq!(route, expected.map(|_| Route::Endpoint(Name::Tickets)), "{path}");
        }
        for (path, known) in
            [("/tickets/create/", true), ("/jobs/a/", true), ("/ws/", false), ("/", false), ("/health", false)]
        {
            assert_eq!(route(path, None).unwrap().is_some(), known, "{path}");
        }
    }
}
