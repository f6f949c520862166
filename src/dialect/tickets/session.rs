//! What one socket asks for: each message becomes one intent. It says nothing until it is spoken to (B1).

use super::TICKETS;
use super::paths::Target;
use super::reads::Read;
use super::wire;
use super::writes::{Change, SESSION_ID_BYTES_MAX};
use crate::dialect::json::Object;
use crate::dialect::{self, Entrance, Intent, Joining, Opening, Query, Write};
use crate::ids::{RoomName, Seq};

/// One socket of this dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    room: RoomName,
}

pub fn open(target: &Target) -> Opening {
    let room = RoomName::new(target.room);
    Opening::Enter(Box::new(Entrance {
        session: dialect::Session::Tickets(Session { room: room.clone() }),
        rooms: vec![room.clone()],
        ask: Query::Read(Box::new(start(room, target.since))),
    }))
}

impl Session {
    pub fn room_mut(&mut self) -> &mut RoomName {
        &mut self.room
    }

    pub fn on_text(&mut self, text: &str) -> Intent {
        let Some(message) = wire::parse(text) else {
            return Intent::Complain(wire::error("a message is a JSON object of at most 32 levels"));
        };
        match message.word("type").as_deref() {
            Some("ping") => Intent::Reply(wire::pong()),
            Some(wire::USER_RESPONSE) => user_response(&message),
            Some("resume") => self.resume(&message),
            // Silence, to any other type and to none (B2).
            _ => Intent::Ignore,
        }
    }

    /// The originals cut the connection and counted it for ever (B3).
    pub fn on_binary(&mut self) -> Intent {
        Intent::Complain(wire::error("this socket takes text frames only"))
    }

    /// Starts the membership afresh, from where the client says.
    fn resume(&self, message: &Object<'_>) -> Intent {
        let since = message.get("since").and_then(|since| since.parse().ok()).map(Seq);
        match since {
            Some(_) => {
                let room = self.room.clone();
                Intent::Join(Box::new(Joining { room: room.clone(), ask: start(room, since) }))
            }
            None => Intent::Reply(wire::error("since must be a whole number")),
        }
    }
}

/// Both values must be something (B2), and may be anything: they are stored and sent back as they are.
fn user_response(message: &Object<'_>) -> Intent {
    let (Some(session_id), Some(response)) = (wire::truthy(message, "session_id"), wire::truthy(message, "response"))
    else {
        return Intent::Ignore;
    };
    if session_id.len() > SESSION_ID_BYTES_MAX {
        return Intent::Reply(wire::error("session_id is longer than 1024 bytes"));
    }
    let change = Change::Respond { session_id: session_id.to_owned(), response: response.to_owned() };
    let change = dialect::Change::Tickets(change);
    Intent::Write(Box::new(Write { room: RoomName::new(TICKETS), op: None, change }))
}

fn start(room: RoomName, since: Option<Seq>) -> dialect::Read {
    dialect::Read::Tickets(Read::Start { room, since })
}

const _: () = assert!(SESSION_ID_BYTES_MAX == 1024 && dialect::json::DEPTH_MAX == 32, "the refusals name the bounds");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn session(room: &str) -> Session {
        Session { room: RoomName::new(room) }
    }

    /// One line for an intent.
    fn told(intent: Intent) -> String {
        let text = |payload: Bytes| String::from_utf8(payload.to_vec()).unwrap();
        match intent {
            Intent::Ignore => "ignore".to_owned(),
            Intent::Reply(payload) => text(payload),
            Intent::Complain(payload) => format!("complain {}", text(payload)),
            Intent::Write(write) => format!("{} {:?} {:?}", write.room, write.op, write.change),
            Intent::Join(joining) => format!("join {} {:?}", joining.room, joining.ask),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn b1_connecting_is_silent_and_shows_only_what_is_new() {
        for room in ["tickets", "logs"] {
            let Opening::Enter(entrance) = open(&Target { room, since: None }) else { panic!("{room}") };
            assert_eq!(entrance.rooms, [RoomName::new(room)]);
            let expected = start(RoomName::new(room), None);
            assert_eq!(entrance.ask, Query::Read(Box::new(expected)));
        }
    }

    #[test]
    fn b2_b3_a_transcript_of_every_message() {
        let write = |session_id: &str, response: &str| {
            format!("tickets None Tickets(Respond {{ session_id: {session_id:?}, response: {response:?} }})")
        };
        let nonsense = r#"complain {"type":"error","message":"a message is a JSON object of at most 32 levels"}"#;
        let not_a_number = r#"{"type":"error","message":"since must be a whole number"}"#;
        let long = format!(r#"{{"type":"user_response","session_id":"{}","response":"r"}}"#, "s".repeat(1023));
        for (message, expected) in [
            (r#"{"type":"ping"}"#, r#"{"type":"pong"}"#.to_owned()),
            (r#"{"type":"ping","session_id":"s","x":[1]}"#, r#"{"type":"pong"}"#.to_owned()),
            (r#"{"type":"user_response","session_id":"s","response":"yes","extra":1}"#, write(r#""s""#, r#""yes""#)),
            (r#"{"type":"user_response","session_id":7,"response":{"a": [1]}}"#, write("7", r#"{"a": [1]}"#)),
            (r#"{"type":"user_response","session_id":{"a": 1},"response":true}"#, write(r#"{"a": 1}"#, "true")),
            (r#"{"type":"user_response","session_id":"s"}"#, "ignore".to_owned()),
            (r#"{"type":"user_response","response":"r"}"#, "ignore".to_owned()),
            (r#"{"type":"user_response","session_id":"","response":"r"}"#, "ignore".to_owned()),
            (r#"{"type":"user_response","session_id":0,"response":"r"}"#, "ignore".to_owned()),
            (r#"{"type":"user_response","session_id":"s","response":null}"#, "ignore".to_owned()),
            (r#"{"type":"user_response","session_id":"s","response":[]}"#, "ignore".to_owned()),
            (&long, r#"{"type":"error","message":"session_id is longer than 1024 bytes"}"#.to_owned()),
            (r#"{"type":"agent_message"}"#, "ignore".to_owned()),
            (r#"{"type":7}"#, "ignore".to_owned()),
            (r#"{"x":"ping"}"#, "ignore".to_owned()),
            (
                r#"{"type":"resume","since":3}"#,
                r#"join tickets Tickets(Start { room: tickets, since: Some(Seq(3)) })"#.to_owned(),
            ),
            (r#"{"type":"resume"}"#, not_a_number.to_owned()),
            (r#"{"type":"resume","since":"3"}"#, not_a_number.to_owned()),
            (r#"{"type":"resume","since":-1}"#, not_a_number.to_owned()),
            ("nonsense", nonsense.to_owned()),
            ("[1]", nonsense.to_owned()),
            ("\"ping\"", nonsense.to_owned()),
            ("", nonsense.to_owned()),
        ] {
            assert_eq!(told(session("tickets").on_text(message)), expected, "{message}");
        }
        let binary = r#"complain {"type":"error","message":"this socket takes text frames only"}"#;
        assert_eq!(told(session("tickets").on_binary()), binary);
    }

    #[test]
    fn the_logs_socket_answers_ping_and_user_response_too() {
        let mut logs = session("logs");
        assert_eq!(told(logs.on_text(r#"{"type":"ping"}"#)), r#"{"type":"pong"}"#);
        let write = told(logs.on_text(r#"{"type":"user_response","session_id":"s","response":"r"}"#));
        assert!(write.starts_with("tickets None Tickets(Respond"), "{write}");
        assert!(told(logs.on_text(r#"{"type":"resume","since":0}"#)).starts_with("join logs"));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_session_panic(text in ".{0,100}", value in any::<String>()) {
            let _ = session("tickets").on_text(&text);
            let json = serde_json::json!({"type": "user_response", "session_id": value, "response": value}).to_string();
            let written = matches!(session("tickets").on_text(&json), Intent::Write(_));
            prop_assert!(written || value.is_empty() || value.len() > 100);
        }
    }
}
