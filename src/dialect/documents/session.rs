//! What one socket asks for: each message becomes one intent. A few bytes of state, no I/O.

use std::sync::Arc;

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::DEBUG_ROOM;
use super::paths::{Target, id_of_room};
use super::reads::Read;
use super::wire::{self, Field, Message};
use super::writes::{Asked, Change, Metadata};
use crate::clock::Wall;
use crate::dialect::time;
use crate::dialect::{self, Intent, Opening, Write};
use crate::ids::{OpId, RoomName};
use crate::limits::OP_ID_BYTES_MAX;

/// One socket of this dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Session {
    /// The room is named after the canonical id.
    Prompt {
        room: RoomName,
    },
    Echo {
        counter: u64,
    },
    /// Answers one message and closes; the original stayed open and deaf.
    OneShot,
}

/// A prompt must be found before the 101; the debug sockets have nothing to ask. A greeting is a payload, not a frame.
pub fn open(target: &Target) -> Opening {
    let accept = |session, greeting: &'static str, join| Opening::Accept {
        session: dialect::Session::Documents(session),
        greeting: Some(Bytes::from_static(greeting.as_bytes())),
        join,
    };
    match target {
        Target::Prompt { text } => Opening::Ask(ask(Read::Resolve { text: text.clone() })),
        Target::Echo => {
            let room = Some(RoomName::new(DEBUG_ROOM));
            accept(Session::Echo { counter: 0 }, "WebSocket test connection successful", room)
        }
        Target::OneShot => accept(Session::OneShot, "WebSocket connection successful", None),
    }
}

impl Session {
    pub fn on_text(&mut self, text: &str, now: Wall) -> Intent {
        let local = |at| time::naive(at, &TimeZone::system());
        match self {
            Session::Prompt { room } => match wire::parse(text) {
                Ok(message) => on_message(room, message),
                Err(why) => Intent::Complain(wire::error(why)),
            },
            Session::Echo { counter } => {
                *counter += 1;
                Intent::Reply(wire::echo(text, *counter, &local(now)))
            }
            Session::OneShot => Intent::ReplyThenClose(wire::echo(text, 1, &local(now))),
        }
    }

    /// The originals became zombies on a binary frame (P6).
    pub fn on_binary(&mut self, _bytes: &[u8], _now: Wall) -> Intent {
        let error = wire::error("this socket takes text frames only");
        match self {
            Session::Prompt { .. } | Session::Echo { .. } => Intent::Complain(error),
            Session::OneShot => Intent::ReplyThenClose(error),
        }
    }
}

fn on_message(room: &RoomName, message: Message<'_>) -> Intent {
    let id = id_of_room(room.as_str()).unwrap_or_default();
    let Field::Text(action) = &message.action else {
        return Intent::Ignore;
    };
    match &**action {
        "update" => update(id, room, message),
        "update_metadata" => update_metadata(id, room, message),
        "expand" => expand(id, message.content, false),
        "expand_prompt" => expand(id, message.content, true),
        "get_details" => Intent::Read(ask(Read::Details { id: id.into() })),
        // Silence is asserted by an existing suite (P8).
        _ => Intent::Ignore,
    }
}

fn update(id: &str, room: &RoomName, message: Message<'_>) -> Intent {
    let op = match operation(message.id) {
        Ok(op) => op,
        Err(refusal) => return refusal,
    };
    match (message.content, op) {
        (Field::Text(content), op) => write(id, room, op, Some(content.into_owned()), None),
        // Silence too (P9), but not to a client that named its operation: it waits for an answer.
        (Field::Absent, None) => Intent::Ignore,
        (Field::Absent, op) => Intent::Reply(wire::not_saved("content is missing", op.as_ref())),
        // The originals saved the number and could not open the prompt again (P7).
        (_, op) => Intent::Reply(wire::not_saved("content must be a string", op.as_ref())),
    }
}

fn update_metadata(id: &str, room: &RoomName, message: Message<'_>) -> Intent {
    let op = match operation(message.id) {
        Ok(op) => op,
        Err(refusal) => return refusal,
    };
    let description = match message.description {
        Field::Absent => None,
        Field::Text(text) => Some(text.into_owned()),
        _ => {
            return Intent::Reply(wire::not_saved("description must be a string or null", op.as_ref()));
        }
    };
    let tags = match message.tags {
        Field::Absent => None,
        Field::Texts(tags) => Some(tags),
        _ => {
            return Intent::Reply(wire::not_saved("tags must be a list of strings or null", op.as_ref()));
        }
    };
    write(id, room, op, None, Some(Metadata { description, tags }))
}

fn expand(id: &str, content: Field<'_>, stored_if_absent: bool) -> Intent {
    let content = match content {
        Field::Text(content) => Some(content.into_owned()),
        Field::Absent if stored_if_absent => None,
        Field::Absent => return Intent::Ignore,
        _ => return Intent::Reply(wire::error("content must be a string")),
    };
    Intent::Read(ask(Read::Expand { id: id.into(), content }))
}

/// The client's own name for a write, a superset of the originals' messages.
fn operation(id: Field<'_>) -> Result<Option<OpId>, Intent> {
    match id {
        Field::Absent => Ok(None),
        Field::Text(text) if (1..=OP_ID_BYTES_MAX).contains(&text.len()) => Ok(Some(OpId(Arc::from(&*text)))),
        _ => Err(Intent::Reply(wire::not_saved("id must be a string of 1 to 64 bytes", None))),
    }
}

fn write(id: &str, room: &RoomName, op: Option<OpId>, content: Option<String>, metadata: Option<Metadata>) -> Intent {
    let change = Change::Update { id: id.to_string(), content, metadata, asked: Asked::Socket { op: op.clone() } };
    Intent::Write(Box::new(Write { room: room.clone(), op, change: dialect::Change::Documents(change) }))
}

fn ask(read: Read) -> Box<dialect::Read> {
    Box::new(dialect::Read::Documents(read))
}

const _: () = assert!(OP_ID_BYTES_MAX == 64, "the refusal above names the bound");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::room_of;
    use super::*;
    use proptest::prelude::*;

    fn prompt() -> Session {
        Session::Prompt { room: room_of("a/b") }
    }

    /// One line for an intent, to compare transcripts by.
    fn told(intent: Intent) -> String {
        let text = |payload: Bytes| String::from_utf8(payload.to_vec()).unwrap();
        match intent {
            Intent::Ignore => "ignore".to_owned(),
            Intent::Reply(payload) | Intent::Complain(payload) => text(payload),
            Intent::ReplyThenClose(payload) => text(payload) + " then close",
            Intent::Read(read) => format!("{read:?}"),
            Intent::Write(write) => format!("{} {:?} {:?}", write.room, write.op, write.change),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_transcript_of_every_message() {
        let not_saved = |why: &str| format!(r#"{{"action":"update_status","success":false,"error":"{why}"}}"#);
        let bad_id = not_saved("id must be a string of 1 to 64 bytes");
        let update = r#"doc:a/b None Documents(Update { id: "a/b", content: Some("x"), metadata: None, asked: Socket { op: None } })"#;
        let metadata = |inner: &str| {
            format!(
                r#"doc:a/b None Documents(Update {{ id: "a/b", content: None, metadata: Some(Metadata {{ {inner} }}), asked: Socket {{ op: None }} }})"#
            )
        };
        let long = format!(r#"{{"action":"update","content":"x","id":"{}"}}"#, "i".repeat(65));
        for (message, expected) in [
            (r#"{"action":"update","content":"x"}"#, update.to_owned()),
            (r#"{"action":"update","content":""}"#, update.replace("\"x\"", "\"\"")),
            (r#"{"action":"update"}"#, "ignore".to_owned()),
            (r#"{"action":"update","content":null}"#, "ignore".to_owned()),
            (r#"{"action":"update","content":123}"#, not_saved("content must be a string")),
            (r#"{"action":"update","content":["x"]}"#, not_saved("content must be a string")),
            (
                r#"{"action":"update","content":"x","id":"7"}"#,
                update
                    .replace("None Documents", "Some(OpId(\"7\")) Documents")
                    .replace("op: None", "op: Some(OpId(\"7\"))"),
            ),
            (
                r#"{"action":"update","id":"7"}"#,
                r#"{"action":"update_status","success":false,"error":"content is missing","id":"7"}"#.to_owned(),
            ),
            (r#"{"action":"update","content":"x","id":7}"#, bad_id.clone()),
            (r#"{"action":"update_metadata","id":""}"#, bad_id.clone()),
            (&long, bad_id),
            (r#"{"action":"update_metadata"}"#, metadata("description: None, tags: None")),
            (
                r#"{"action":"update_metadata","description":"D","tags":["x"]}"#,
                metadata(r#"description: Some("D"), tags: Some(["x"])"#),
            ),
            (r#"{"action":"update_metadata","description":1}"#, not_saved("description must be a string or null")),
            (r#"{"action":"update_metadata","tags":"x"}"#, not_saved("tags must be a list of strings or null")),
            (r#"{"action":"update_metadata","tags":[1]}"#, not_saved("tags must be a list of strings or null")),
            (
                r#"{"action":"expand","content":"y","prompt_id":"z"}"#,
                r#"Documents(Expand { id: "a/b", content: Some("y") })"#.to_owned(),
            ),
            (r#"{"action":"expand"}"#, "ignore".to_owned()),
            (
                r#"{"action":"expand","content":{}}"#,
                r#"{"action":"error","message":"content must be a string"}"#.to_owned(),
            ),
            (r#"{"action":"expand_prompt"}"#, r#"Documents(Expand { id: "a/b", content: None })"#.to_owned()),
            (r#"{"action":"get_details"}"#, r#"Documents(Details { id: "a/b" })"#.to_owned()),
            (r#"{"action":"invalid_action"}"#, "ignore".to_owned()),
            (r#"{"action":7,"content":1}"#, "ignore".to_owned()),
            (r#"{"content":"x"}"#, "ignore".to_owned()),
            ("nonsense", r#"{"action":"error","message":"the message is not JSON"}"#.to_owned()),
            ("[1]", r#"{"action":"error","message":"a message is a JSON object of at most 32 levels"}"#.to_owned()),
        ] {
            assert_eq!(told(prompt().on_text(message, Wall(0))), expected, "{message}");
        }
        assert_eq!(
            told(prompt().on_binary(b"{}", Wall(0))),
            r#"{"action":"error","message":"this socket takes text frames only"}"#
        );
    }

    #[test]
    fn p8_p9_silence_is_kept_where_suites_assert_it() {
        for message in [r#"{"action":"invalid_action"}"#, r#"{"action":"update","content":null}"#, r#"{}"#] {
            assert!(matches!(prompt().on_text(message, Wall(0)), Intent::Ignore), "{message}");
        }
    }

    #[test]
    fn p15_debug_sockets_greet_in_plain_text_and_then_speak_json() {
        let Opening::Accept { session: dialect::Session::Documents(mut echo), greeting, join } = open(&Target::Echo)
        else {
            panic!("the echo has nothing to ask");
        };
        assert_eq!(greeting.unwrap(), "WebSocket test connection successful");
        assert_eq!(join, Some(RoomName::new("debug")));
        for n in 1..=3 {
            let reply = told(echo.on_text("hi \"you\"", Wall(0)));
            let value: serde_json::Value = serde_json::from_str(&reply).unwrap();
            assert_eq!(value["received"], "hi \"you\"");
            assert_eq!(value["counter"], n);
            assert_eq!(value["message"], "WebSocket echo test");
            assert_eq!(value["timestamp"], time::naive(Wall(0), &TimeZone::system()));
        }

        let Opening::Accept { session: dialect::Session::Documents(mut once), greeting, join } = open(&Target::OneShot)
        else {
            panic!("one message has nothing to ask");
        };
        assert_eq!((greeting.unwrap(), join), (Bytes::from_static(b"WebSocket connection successful"), None));
        assert!(told(once.on_text("x", Wall(0))).ends_with("} then close"));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_session_panic(text in ".{0,100}", content in any::<String>()) {
            let _ = prompt().on_text(&text, Wall(0));
            let _ = Session::Echo { counter: 0 }.on_text(&text, Wall(i64::MAX));
            let json = serde_json::json!({"action": "update", "content": content}).to_string();
            let Intent::Write(write) = prompt().on_text(&json, Wall(0)) else { panic!("an update is a write") };
            let dialect::Change::Documents(change) = write.change else { panic!("{text}") };
            let asked = Asked::Socket { op: None };
            prop_assert_eq!(change, Change::Update { id: "a/b".into(), content: Some(content), metadata: None, asked });
        }
    }
}
