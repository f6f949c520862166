//! The `tickets` dialect: the supervision hub's two sockets and its HTTP endpoints, over the rooms `tickets` and `logs`.
//!
//! ```text
//! socket   paths ─▶ Target ─▶ session (silent) ─▶ message ─┬─▶ Change::Respond ─▶ writes ─▶ record, event, task, then ack
//!                                                          └─▶ Read::Start ─────▶ reads (an explicit resume)
//! HTTP     paths ─▶ rest (bodies, 422) ─▶ Read or Change ─▶ reads or writes ─▶ Response
//! others   publish ─▶ ledger (tickets, jobs) ─▶ event ─▶ encode
//! ```
//!
//! | file | decides |
//! |---|---|
//! | paths | which path means what |
//! | session | what one socket asks for |
//! | wire | the JSON of sockets and events, both ways |
//! | rest, faults | requests over HTTP; what is wrong with them, in the words of the clients' framework |
//! | reads | questions to one snapshot |
//! | writes | changes inside the writer's transaction, and their replies |
//! | ledger | the records of tickets and jobs, and what events make of them |
//! | publish | events from native clients and backends |
//!
//! Everybody in a room sees everything (B6) and anybody may answer any session (B7): so it was, and the pages rely on it.
//! What is new is that who answered is written down. An event's body is the whole wire object, `type` first, so that what
//! was stored is what is shown.
//!
//! Never here: Notion, an agent's run, a conversation's storage; those are the backend's.

mod faults;
mod ledger;
mod paths;
mod publish;
mod reads;
mod rest;
mod session;
mod wire;
mod writes;

pub use paths::{Target, route};
pub use publish::publish;
pub use reads::{Read, read, read_failed, welcome_back};
pub use rest::{endpoint, endpoint_needs};
pub use session::{Session, open};
pub use writes::{Change, apply, failed};

use bytes::Bytes;

use crate::ids::RoomName;
use crate::model::Event;

/// Every `/ws` socket's room.
const TICKETS: &str = "tickets";
/// Every `/ws/logs` socket's room.
const LOGS: &str = "logs";

/// Is this a room of the dialect's?
pub fn owns(room: &str) -> bool {
    room == TICKETS || room == LOGS
}

/// What is said to somebody whose rights end before what he asks for.
pub fn denied() -> Bytes {
    wire::error("this is not granted to you")
}

/// The payload that a tickets socket is shown for an event; `None` for what the originals kept to themselves: answers
/// and the states of jobs.
pub fn encode(room: &RoomName, event: &Event) -> Option<Vec<u8>> {
    let is_hidden = room.as_str() == TICKETS && matches!(&*event.kind, wire::USER_RESPONSE | wire::JOB);
    if is_hidden || !owns(room.as_str()) {
        return None;
    }
    wire::shown(&event.kind, &event.body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::clock::Wall;
    use crate::ids::Seq;
    use bytes::Bytes;

    fn shown(room: &str, kind: &'static str, body: &'static str) -> Option<String> {
        let event = Event {
            seq: Seq(1),
            kind: kind.into(),
            actor: "a".into(),
            op: None,
            origin: 0,
            body: Bytes::from_static(body.as_bytes()),
            at: Wall(0),
        };
        encode(&RoomName::new(room), &event).map(|payload| String::from_utf8(payload).unwrap())
    }

    #[test]
    fn b6_everybody_sees_every_event_as_it_is_stored() {
        for room in ["tickets", "logs"] {
            let body = r#"{"type":"agent_error","job_id":"j","error":"<b>"}"#;
            assert_eq!(shown(room, "agent_error", body).as_deref(), Some(body));
        }
        assert_eq!(
            shown("tickets", "x", r#"{"a":1}"#).as_deref(),
            Some(r#"{"type":"x","a":1}"#),
            "type is never missing"
        );
        assert_eq!(shown("tickets", "x", " { } ").as_deref(), Some(r#"{"type":"x"}"#));
        assert_eq!(shown("tickets", "x", "[]"), None, "a body that is no object");
        assert_eq!(shown("doc:a", "x", "{}"), None, "another dialect's room");
    }

    #[test]
    fn b7_answers_and_job_states_are_not_shown_on_the_sockets() {
        assert_eq!(shown("tickets", "user_response", r#"{"type":"user_response"}"#), None);
        assert_eq!(shown("tickets", "job", r#"{"type":"job"}"#), None);
        assert!(shown("logs", "job", r#"{"type":"job"}"#).is_some());
    }
}
