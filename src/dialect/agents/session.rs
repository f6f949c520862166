//! What one socket asks for: each message becomes one intent. A few bytes of state, no I/O.
//!
//! Any number of sockets may be in a session: each hears all of its events (Y5).

use std::sync::Arc;

use bytes::Bytes;

use super::approvals::Verdict;
use super::paths::Target;
use super::reads::Read;
use super::runs::Order;
use super::sessions;
use super::wire::{self, Message};
use super::writes::{Asked, Change};
use crate::clock::Wall;
use crate::dialect::{self, Intent, Opening, Write};
use crate::http::{Reason, Reject};

/// One socket of this dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Canonical.
    pub id: Arc<str>,
    /// A `ping` is answered, not refused.
    pub pong: bool,
}

/// The session must be found before the 101.
pub fn open(target: &Target) -> Opening {
    match &target.session_id {
        Some(text) => Opening::Ask(Box::new(dialect::Read::Agents(Read::Resolve { text: text.clone() }))),
        None => Opening::Refuse(Reject::new(Reason::BadSession, "the query parameter session_id is missing")),
    }
}

impl Session {
    pub fn on_text(&mut self, text: &str, now: Wall) -> Intent {
        let session = || self.id.to_string();
        let decide = |request, verdict| {
            let asked = Asked::Socket { session: session() };
            self.write(Change::Decide { request, verdict, asked })
        };
        match wire::parse(text) {
            Ok(Message::Execute { command, plan }) => {
                let order = Order { command, plan, budget_limit_usd: None };
                self.write(Change::Execute { order, asked: Asked::Socket { session: session() } })
            }
            Ok(Message::Approve { request }) => decide(request, Verdict::Approve),
            Ok(Message::Reject { request, reason }) => decide(request, Verdict::Reject { reason }),
            Ok(Message::Edit { request, args }) => decide(request, Verdict::Edit { args }),
            Ok(Message::Cancel { execution }) => self.write(Change::Cancel { session: session(), execution }),
            // Its clients take any frame for an answer, and one of their scripts stops at a type that it does not know (Y10).
            Ok(Message::Other { kind }) if self.pong && kind == "ping" => Intent::Reply(said("pong", "{}", now)),
            Ok(Message::Other { kind }) => Intent::Reply(error(&format!("Unknown message type: {kind}"), now)),
            Err(why) => Intent::Complain(error(why, now)),
        }
    }

    /// The original sent a Python repr, `'text'`.
    pub fn on_binary(&mut self, now: Wall) -> Intent {
        Intent::Complain(error("Invalid message: this socket takes text frames only", now))
    }

    fn write(&self, change: Change) -> Intent {
        let room = sessions::room_of(&self.id);
        Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Agents(change) }))
    }
}

fn error(why: &str, now: Wall) -> Bytes {
    said("error", &wire::json(&wire::Error::of(why)), now)
}

fn said(kind: &str, data: &str, now: Wall) -> Bytes {
    wire::envelope(kind, data, Some(now)).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::S;
    use super::*;
    use proptest::prelude::*;

    fn session(pong: bool) -> Session {
        Session { id: Arc::from(S), pong }
    }

    fn heard(text: &str) -> Change {
        let Intent::Write(write) = session(false).on_text(text, Wall(0)) else { panic!("{text}") };
        assert_eq!((write.room, write.op), (sessions::room_of(S), None));
        let dialect::Change::Agents(change) = write.change else { panic!("{text}") };
        change
    }

    #[test]
    fn each_message_becomes_one_change() {
        let asked = || Asked::Socket { session: S.into() };
        let order = Order { command: "pay".into(), plan: Some("[]".into()), budget_limit_usd: None };
        let decide = |verdict| Change::Decide { request: S.into(), verdict, asked: asked() };
        for (text, expected) in [
            (
                r#"{"type":"execute","data":{"command":"pay","plan":[]}}"#.to_owned(),
                Change::Execute { order, asked: asked() },
            ),
            (format!(r#"{{"type":"approve","data":{{"request_id":"{S}"}}}}"#), decide(Verdict::Approve)),
            (
                format!(r#"{{"type":"reject","data":{{"request_id":"{S}","reason":"no"}}}}"#),
                decide(Verdict::Reject { reason: Some("no".into()) }),
            ),
            (
                format!(r#"{{"type":"edit","data":{{"request_id":"{S}","edited_args":{{}}}}}}"#),
                decide(Verdict::Edit { args: serde_json::json!({}) }),
            ),
            (
                format!(r#"{{"type":"cancel","data":{{"execution_id":"{S}"}}}}"#),
                Change::Cancel { session: S.into(), execution: S.into() },
            ),
        ] {
            assert_eq!(heard(&text), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_told_so_with_the_time() {
        for (text, why) in [("{", "Invalid JSON format"), ("{}", "Invalid message: type and data are required")] {
            let Intent::Complain(payload) = session(false).on_text(text, Wall(0)) else { panic!("{text}") };
            let expected =
                format!(r#"{{"type": "error", "data": {{"message": "{why}"}}, "timestamp": "1970-01-01T00:00:00"}}"#);
            assert_eq!(String::from_utf8_lossy(&payload), expected);
        }
    }

    #[test]
    fn y10_a_ping_is_an_error_unless_it_is_to_be_a_pong() {
        let ping = r#"{"type":"ping","data":{}}"#;
        for (pong, text, expected) in [
            (false, ping, r#"{"type": "error", "data": {"message": "Unknown message type: ping"}"#),
            (true, ping, r#"{"type": "pong", "data": {}"#),
            (
                true,
                r#"{"type":"pings","data":{}}"#,
                r#"{"type": "error", "data": {"message": "Unknown message type: pings"}"#,
            ),
        ] {
            let Intent::Reply(payload) = session(pong).on_text(text, Wall(0)) else { panic!("{text}") };
            assert_eq!(
                String::from_utf8_lossy(&payload),
                format!(r#"{expected}, "timestamp": "1970-01-01T00:00:00"}}"#)
            );
        }
    }

    #[test]
    fn a_session_must_be_named() {
        assert!(matches!(open(&Target { session_id: Some(S.into()) }), Opening::Ask(_)));
        let Opening::Refuse(reject) = open(&Target { session_id: None }) else { panic!("let in") };
        assert_eq!((reject.row().status, reject.row().close), (403, 1008));
        let binary = session(false).on_binary(Wall(0));
        assert!(format!("{binary:?}").contains("text frames only"), "{binary:?}");
    }

    proptest! {
        #[test]
        fn every_text_gets_an_answer(text in ".{0,100}") {
            let answer = match session(false).on_text(&text, Wall(0)) {
                Intent::Complain(payload) | Intent::Reply(payload) => payload,
                other => panic!("{other:?}"),
            };
            let value: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            prop_assert!(value["type"] == "error" && value["data"]["message"].is_string(), "{}", value);
        }
    }
}
