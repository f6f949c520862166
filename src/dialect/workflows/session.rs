//! What one socket asks for: each message becomes one intent. A few bytes of state, no I/O.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::paths::{EVERYBODY, Family, Place, Target, room_of};
use super::reads::Read;
use super::wire;
use super::writes::Change;
use crate::dialect::{self, Denial, Entrance, Intent, Joining, Opening, Query, Write, json};
use crate::ids::RoomName;

/// What the originals' clients expect to hear, on top of protocol pings.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What a chat message without one was given.
pub const TEMPERATURE: f64 = 0.7;

/// One socket of this dialect. Several may have the same client id: each is its own (V3).
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub place: Place,
    /// As the client gave it. An id that was made for it is only told.
    pub client: Option<Arc<str>>,
}

/// Anybody is let in, before anything exists that he asks for (V2).
pub fn open(target: &Target) -> Opening {
    let Target { place, client } = target.clone();
    let everybody = RoomName::new(EVERYBODY);
    let (rooms, ask) = match (&place, place.room()) {
        (Place::Chat(_), Some(room)) => {
            (vec![room.clone()], Query::Read(Box::new(dialect::Read::Workflows(Read::Chat { room }))))
        }
        (_, room) => {
            let rooms: Vec<RoomName> = room.into_iter().chain([everybody.clone()]).collect();
            let change = Change::Enter { place: place.clone(), client: client.clone() };
            let room = rooms.first().cloned().unwrap_or(everybody);
            (rooms, Query::Write(write(room, change)))
        }
    };
    let session = dialect::Session::Workflows(Session { place, client });
    Opening::Enter(Box::new(Entrance { session, rooms, ask }))
}

impl Session {
    pub fn on_text(&mut self, text: &str) -> Intent {
        let message = json::parse(text);
        match &self.place {
            Place::Topics => topics(message),
            Place::Chat(thread) => chat(thread, message),
            Place::Workflow(_) | Place::Agent(_) | Place::Coordinator => self.page(message),
        }
    }

    /// The originals became zombies on a binary frame (V4).
    pub fn on_binary(&mut self) -> Intent {
        match &self.place {
            Place::Topics => Intent::Complain(wire::unprocessable("the message is binary")),
            Place::Chat(_) => hang_up(),
            Place::Workflow(_) | Place::Agent(_) | Place::Coordinator => Intent::Complain(wire::error(wire::NOT_JSON)),
        }
    }

    pub fn denied(&self, intent: &Intent, why: Denial) -> Bytes {
        let text = match (intent, why) {
            (Intent::Join(_), Denial::Forbidden) => "Subscribing to this topic is not granted",
            (_, Denial::Forbidden) => "This is not granted",
            (_, Denial::TooManyRooms) => "Too many topics",
        };
        wire::error(text)
    }

    pub fn beat_every(&self) -> Option<Duration> {
        (!matches!(self.place, Place::Chat(_))).then_some(HEARTBEAT)
    }

    /// As whom it has seen what it was shown; empty for a client without an id of its own. Kept for workflows only: the
    /// other rooms show the newest value or the last hundred messages to whoever comes.
    pub fn seen_as(&self) -> Option<Arc<str>> {
        match self.place {
            Place::Workflow(_) => Some(self.client.clone().unwrap_or_else(|| Arc::from(""))),
            _ => None,
        }
    }

    /// A message on a workflow's, an agent's or the coordinator's socket. What they do not know they ignore (V6), and only
    /// a workflow's said so when it was not even JSON (V5).
    fn page(&self, message: Option<Value>) -> Intent {
        let fields = match (message, &self.place) {
            (Some(Value::Object(fields)), _) => fields,
            (None, Place::Agent(_) | Place::Coordinator) => return Intent::Ignore,
            _ => return Intent::Complain(wire::error(wire::NOT_JSON)),
        };
        match (fields.get("type").and_then(Value::as_str), &self.place) {
            (Some("ping"), _) => Intent::Reply(wire::pong()),
            (Some("control"), Place::Workflow(id)) => match self.place.room() {
                Some(room) => {
                    let action = said(fields.get("action"));
                    Intent::Write(write(room, Change::Control { id: id.clone(), action, client: self.client.clone() }))
                }
                None => Intent::Ignore,
            },
            (Some("get_metrics"), Place::Coordinator) => {
                Intent::Read(Box::new(dialect::Read::Workflows(Read::Metrics)))
            }
            _ => Intent::Ignore,
        }
    }
}

fn topics(message: Option<Value>) -> Intent {
    let fields = match message {
        Some(Value::Object(fields)) => fields,
        Some(_) => return Intent::Complain(wire::unprocessable("the message is not an object")),
        None => return Intent::Complain(wire::unprocessable("the message is not JSON")),
    };
    let topic = fields.get("topic").and_then(Value::as_str).filter(|topic| !topic.is_empty());
    match (fields.get("action").and_then(Value::as_str), topic) {
        (Some("subscribe"), Some(topic)) => match room_of(Family::Topic, topic) {
            Some(room) => {
                let ask = dialect::Read::Workflows(Read::Subscribe { room: room.clone(), topic: topic.into() });
                Intent::Join(Box::new(Joining { room, ask }))
            }
            None => Intent::Reply(wire::unprocessable("the topic's name is too long")),
        },
        (Some("unsubscribe"), Some(topic)) => {
            let reply = wire::info(&format!("Unsubscribed from topic: {topic}"), None);
            match room_of(Family::Topic, topic) {
                Some(room) => Intent::Leave { room, reply },
                // It was never in there.
                None => Intent::Reply(reply),
            }
        }
        (Some("ping"), _) => Intent::Reply(wire::info("pong", None)),
        _ => Intent::Reply(wire::error(&format!("Unknown action: {}", said(fields.get("action"))))),
    }
}

fn chat(thread: &Arc<str>, message: Option<Value>) -> Intent {
    let Some(Value::Object(fields)) = message else { return hang_up() };
    match (said_in_chat(&fields), room_of(Family::Chat, thread)) {
        (Some(message), Some(room)) => {
            let temperature = fields.get("temperature").and_then(Value::as_f64).unwrap_or(TEMPERATURE);
            Intent::Write(write(room, Change::Chat { message, temperature }))
        }
        _ => Intent::Ignore,
    }
}

fn said_in_chat(fields: &Map<String, Value>) -> Option<String> {
    fields.get("message").and_then(Value::as_str).filter(|message| !message.is_empty()).map(str::to_owned)
}

/// A close with code 1000 and no word: there is none to say.
fn hang_up() -> Intent {
    Intent::ReplyThenClose(Bytes::new())
}

/// A value as the originals' error texts show it.
fn said(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "None".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "True".to_owned(),
        Some(Value::Bool(false)) => "False".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn write(room: RoomName, change: Change) -> Box<Write> {
    Box::new(Write { room, op: None, change: dialect::Change::Workflows(change) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn session(place: Place) -> Session {
        Session { place, client: Some("c".into()) }
    }

    fn workflow() -> Session {
        session(Place::Workflow("x".into()))
    }

    /// One line for an intent, to compare transcripts by.
    fn told(intent: Intent) -> String {
        let text = |payload: Bytes| String::from_utf8(payload.to_vec()).unwrap();
        match intent {
            Intent::Ignore => "ignore".to_owned(),
            Intent::Reply(payload) => text(payload),
            Intent::Complain(payload) => format!("complain {}", text(payload)),
            Intent::ReplyThenClose(payload) => text(payload) + "then close",
            Intent::Read(read) => format!("{read:?}"),
            Intent::Write(write) => format!("{} {:?}", write.room, write.change),
            Intent::Join(joining) => format!("join {} {:?}", joining.room, joining.ask),
            Intent::Leave { room, reply } => format!("leave {room} {}", text(reply)),
            other => format!("{other:?}"),
        }
    }

    fn transcript(mut session: Session, lines: &[(&str, &str)]) {
        for (message, expected) in lines {
            assert_eq!(told(session.on_text(message)), *expected, "{message}");
        }
    }

    const INVALID: &str = r#"complain {"type":"error","message":"Invalid JSON format"}"#;
    const PONG: (&str, &str) = (r#"{"type":"ping","x":1}"#, r#"{"type":"pong"}"#);

    #[test]
    fn v4_v6_a_transcript_of_a_workflow_s_socket() {
        let control = |action: &str| {
            format!(r#"workflow:x Workflows(Control {{ id: "x", action: "{action}", client: Some("c") }})"#)
        };
        transcript(
            workflow(),
            &[
                PONG,
                (r#"{"type":"control","action":"cancel","workflow_id":"y"}"#, &control("cancel")),
                (r#"{"type":"control","action":7}"#, &control("7")),
                (r#"{"type":"control"}"#, &control("None")),
                (r#"{"type":"get_metrics"}"#, "ignore"),
                (r#"{"type":"subscribe","target":"workflow","id":"x"}"#, "ignore"),
                (r#"{"type":null}"#, "ignore"),
                ("{}", "ignore"),
                ("nonsense", INVALID),
                ("", INVALID),
                ("[]", INVALID),
                ("7", INVALID),
                ("null", INVALID),
            ],
        );
        assert_eq!(told(workflow().on_binary()), INVALID);
    }

    #[test]
    fn v4_v5_agents_and_the_coordinator_ignore_what_is_no_json() {
        for place in [Place::Agent("a".into()), Place::Coordinator] {
            transcript(
                session(place.clone()),
                &[PONG, (r#"{"type":"control","action":"cancel"}"#, "ignore"), ("nonsense", "ignore"), ("[]", INVALID)],
            );
            assert_eq!(told(session(place).on_binary()), INVALID);
        }
        let metrics = r#"{"type":"get_metrics"}"#;
        assert_eq!(told(session(Place::Coordinator).on_text(metrics)), "Workflows(Metrics)");
        assert_eq!(told(session(Place::Agent("a".into())).on_text(metrics)), "ignore");
    }

    #[test]
    fn v4_v6_v7_a_transcript_of_a_topics_socket() {
        let unknown = |action: &str| format!(r#"{{"type":"error","message":"Unknown action: {action}"}}"#);
        let wrong = |why: &str| format!(r#"complain {{"type":"error","message":"Error processing message: {why}"}}"#);
        let long = format!(r#"{{"action":"subscribe","topic":"{}"}}"#, "t".repeat(300));
        transcript(
            session(Place::Topics),
            &[
                (r#"{"action":"ping"}"#, r#"{"type":"info","message":"pong"}"#),
                (
                    r#"{"action":"subscribe","topic":"t"}"#,
                    r#"join topic:t Workflows(Subscribe { room: topic:t, topic: "t" })"#,
                ),
                (
                    r#"{"action":"subscribe","topic":"a b"}"#,
                    r#"join topic:::a:20b Workflows(Subscribe { room: topic:::a:20b, topic: "a b" })"#,
                ),
                (
                    r#"{"action":"unsubscribe","topic":"t"}"#,
                    r#"leave topic:t {"type":"info","message":"Unsubscribed from topic: t"}"#,
                ),
                (r#"{"action":"subscribe"}"#, &unknown("subscribe")),
                (r#"{"action":"subscribe","topic":""}"#, &unknown("subscribe")),
                (r#"{"action":"unsubscribe","topic":7}"#, &unknown("unsubscribe")),
                (r#"{"action":"dance"}"#, &unknown("dance")),
                (r#"{"action":true}"#, &unknown("True")),
                (r#"{"type":"ping"}"#, &unknown("None")),
                ("{}", &unknown("None")),
                ("nonsense", &wrong("the message is not JSON")),
                ("[]", &wrong("the message is not an object")),
                (&long, wrong("the topic's name is too long").strip_prefix("complain ").unwrap()),
            ],
        );
        assert_eq!(told(session(Place::Topics).on_binary()), wrong("the message is binary"));
    }

    #[test]
    fn a_transcript_of_a_chat_s_socket() {
        let chat = |message: &str, temperature: &str| {
            format!(r#"chat:t Workflows(Chat {{ message: "{message}", temperature: {temperature} }})"#)
        };
        transcript(
            session(Place::Chat("t".into())),
            &[
                (r#"{"message":"m","temperature":0.2}"#, &chat("m", "0.2")),
                (r#"{"message":"m"}"#, &chat("m", "0.7")),
                (r#"{"message":""}"#, "ignore"),
                (r#"{"message":7}"#, "ignore"),
                (r#"{"type":"ping"}"#, "ignore"),
                ("nonsense", "then close"),
                ("[]", "then close"),
            ],
        );
        assert_eq!(told(session(Place::Chat("t".into())).on_binary()), "then close");
    }

    #[test]
    fn v3_every_socket_is_its_own_whatever_its_id() {
        let target = Target { place: Place::Workflow("w".into()), client: Some("c".into()) };
        for _ in 0..2 {
            let Opening::Enter(entrance) = open(&target) else { panic!() };
            let rooms: Vec<&str> = entrance.rooms.iter().map(RoomName::as_str).collect();
            assert_eq!(rooms, ["workflow:w", "workflows"]);
            let Query::Write(write) = entrance.ask else { panic!() };
            assert_eq!(write.room.as_str(), "workflow:w");
        }
    }

    #[test]
    fn where_each_socket_enters() {
        for (place, expected) in [
            (Place::Agent("a".into()), "agent:a,workflows write"),
            (Place::Coordinator, "coordinator,workflows write"),
            (Place::Topics, "workflows write"),
            (Place::Chat("t".into()), "chat:t read"),
        ] {
            let Opening::Enter(entrance) = open(&Target { place, client: None }) else { panic!() };
            let rooms: Vec<&str> = entrance.rooms.iter().map(RoomName::as_str).collect();
            let how = if matches!(entrance.ask, Query::Write(_)) { "write" } else { "read" };
            assert_eq!(format!("{} {how}", rooms.join(",")), expected);
        }
    }

    #[test]
    fn heartbeats_and_marks() {
        for (place, beats, seen) in [
            (Place::Workflow("w".into()), true, Some("c")),
            (Place::Agent("a".into()), true, None),
            (Place::Coordinator, true, None),
            (Place::Topics, true, None),
            (Place::Chat("t".into()), false, None),
        ] {
            let session = session(place);
            assert_eq!(session.beat_every(), beats.then_some(Duration::from_secs(30)));
            assert_eq!(session.seen_as().as_deref(), seen);
        }
        let anonymous = Session { place: Place::Workflow("w".into()), client: None };
        assert_eq!(anonymous.seen_as().as_deref(), Some(""));
    }

    #[test]
    fn denials_are_errors_of_this_dialect() {
        let mut topics = session(Place::Topics);
        let join = topics.on_text(r#"{"action":"subscribe","topic":"t"}"#);
        assert_eq!(
            topics.denied(&join, Denial::Forbidden),
            r#"{"type":"error","message":"Subscribing to this topic is not granted"}"#
        );
        assert_eq!(topics.denied(&join, Denial::TooManyRooms), r#"{"type":"error","message":"Too many topics"}"#);
    }

    proptest! {
        #[test]
        fn no_message_makes_a_session_panic(
            text in r#"\{"(type|action|topic|message)":("[a-z :]{0,9}"|1|null|\[\])(,"topic":".{0,4}")?\}|.{0,20}"#,
        ) {
            let places =
                [Place::Workflow("x".into()), Place::Coordinator, Place::Topics, Place::Chat("t".into())];
            for place in places {
                let _ = told(session(place).on_text(&text));
            }
        }
    }
}
