//! What one native socket asks for: each message becomes one intent.

use bytes::Bytes;

use super::joins::Read;
use super::message::{self, Message, Wrong};
use super::wire::{self, About};
use super::writes::Change;
use crate::dialect::publish::Publish;
use crate::dialect::{self, Denial, Hello, Intent, Joining, Write};
#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::http::{Reason, Reject};
use crate::ids::RoomName;

/// One socket. Which rooms it is in is the reactor's to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    authenticated: bool,
}

impl Session {
    pub fn new(authenticated: bool) -> Session {
        Session { authenticated }
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub fn authenticated(&mut self) {
        self.authenticated = true;
    }

    pub fn on_text(&mut self, text: &str) -> Intent {
        let asked = message::parse(text).and_then(|message| self.asked(&message));
        asked.unwrap_or_else(|wrong| told(&wrong))
    }

    /// `hello`, once it is known who it is.
    pub fn hello(&self, hello: &Hello<'_>) -> Option<Bytes> {
        self.authenticated.then(|| wire::hello(hello).into())
    }

    fn asked(&self, message: &Message<'_>) -> Result<Intent, Wrong> {
        match &*message.op()? {
            "auth" => Ok(Intent::Authenticate { token: message.token()? }),
            "ping" => Ok(Intent::Reply(wire::pong().into())),
            _ if !self.authenticated => Err(message.refused("unauthenticated", "say auth with a token first")),
            "join" => join(message),
            "leave" => {
                let room = message.room()?;
                let reply = wire::left(&room).into();
                Ok(Intent::Leave { room, reply })
            }
            "publish" => publish(message),
            "signal" => Ok(Intent::Signal { room: message.room()?, data: message.data()? }),
            "presence" => Ok(Intent::Presence { room: message.room()? }),
            "decide" => decide(message),
            #[cfg(feature = "canary")]
            "panic" => {
                failpoints::arm(&message.kind()?);
                failpoints::pass(Site::Handler);
                Ok(Intent::Ignore)
            }
            _ => Err(message.refused("unknown_op", "there is no such op")),
        }
    }
}

fn join(message: &Message<'_>) -> Result<Intent, Wrong> {
    let room = message.room()?;
    let ask = dialect::Read::Native(Read::Join { room: room.clone(), since: message.since()? });
    Ok(Intent::Join(Box::new(Joining { room, ask })))
}

fn publish(message: &Message<'_>) -> Result<Intent, Wrong> {
    let op = message.id()?;
    let room = message.room()?;
    let publish =
        Publish { room: room.clone(), kind: message.kind()?, data: message.data()?, if_rev: message.if_rev()? };
    let change = dialect::Change::Native(Change::Publish(publish));
    Ok(Intent::Write(Box::new(Write { room, op: Some(op), change })))
}

fn decide(message: &Message<'_>) -> Result<Intent, Wrong> {
    let op = message.id()?;
    let room = message.room()?;
    let change = Change::Decide { approval: message.approval()?, verdict: message.verdict()?, seen: message.seen()? };
    Ok(Intent::Write(Box::new(Write { room, op: Some(op), change: dialect::Change::Native(change) })))
}

fn told(wrong: &Wrong) -> Intent {
    let about = About { id: wrong.id.as_deref(), room: None };
    let payload = wire::refused(about, wrong.code, wrong.detail).into();
    if wrong.is_nonsense { Intent::Complain(payload) } else { Intent::Reply(payload) }
}

/// Binary frames are refused with 1003.
pub fn on_binary() -> Intent {
    Intent::Close(Reject::new(Reason::BinaryFrame, "this socket takes text frames only"))
}

/// To somebody without the right, a room that is there looks like one that is not (PROMISES.md S5). A signal asks for
/// nothing that could tell the two apart.
pub fn denied(intent: &Intent, why: Denial) -> Bytes {
    // A room that is left because a fresh credential no longer grants it is named, too.
    let room = match intent {
        Intent::Leave { room, .. } => Some(room),
        _ => intent.needs().map(|(room, _)| room),
    };
    let about = About { id: None, room: room.map(RoomName::as_str) };
    let (code, detail) = match (why, intent) {
        (Denial::TooManyRooms, _) => ("too_many_rooms", "you are in as many rooms as one connection may be in"),
        (Denial::Forbidden, Intent::Signal { .. }) => ("forbidden", "no such room, or not yours"),
        (Denial::Forbidden, _) => ("no_such_room", "no such room, or not yours"),
    };
    wire::refused(about, code, detail).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::ConnId;

    /// One line for an intent, to compare transcripts by.
    fn asked(session: &mut Session, text: &str) -> String {
        let payload = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        match session.on_text(text) {
            Intent::Reply(bytes) => payload(bytes),
            Intent::Complain(bytes) => format!("nonsense {}", payload(bytes)),
            Intent::Join(joining) => {
                let dialect::Read::Native(Read::Join { room, since }) = joining.ask else { panic!("{text}") };
                assert_eq!(room, joining.room);
                match since {
                    Some(since) => format!("join {room} since {} {}", since.epoch, since.seq.0),
                    None => format!("join {room}"),
                }
            }
            Intent::Leave { room, reply } => format!("leave {room} {}", payload(reply)),
            Intent::Signal { room, data } => format!("signal {room} {}", payload(data)),
            Intent::Presence { room } => format!("presence {room}"),
            Intent::Authenticate { token } => format!("auth {token}"),
            Intent::Write(write) => {
                let Write { room, op, change } = *write;
                let op = op.map(|op| op.0.to_string()).unwrap();
                match change {
                    dialect::Change::Native(Change::Publish(Publish { room: named, kind, data, if_rev })) => {
                        assert_eq!(room, named);
                        format!("publish {room} {op} {kind} {} {if_rev:?}", payload(data))
                    }
                    dialect::Change::Native(Change::Decide { approval, verdict, seen }) => {
                        format!("decide {room} {op} {approval} {verdict:?} {seen}")
                    }
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn bad(id: &str, detail: &str) -> String {
        let detail = detail.replace('"', "\\\"");
        format!(r#"nonsense {{"op":"refused","id":{id},"code":"bad_message","detail":"{detail}"}}"#)
    }

    fn refused(id: &str, code: &str, detail: &str) -> String {
        format!(r#"{{"op":"refused","id":{id},"code":"{code}","detail":"{detail}"}}"#)
    }

    const NO_MESSAGE: &str = "a message is a JSON object of at most 32 levels, each key once";
    const BAD_ROOM: &str = "a room's name is 1 to 256 of A-Z a-z 0-9 _ . : / -";
    const BAD_ID: &str = "id must be a string of 1 to 64 bytes";
    const BAD_TYPE: &str = "a type is 1 to 64 of A-Z a-z 0-9 _ . : -";
    const BAD_SINCE: &str = r#"since must be {"epoch": a string, "seq": a number}"#;

    #[test]
    fn a_transcript_of_every_message() {
        let long_room = format!(r#"{{"op":"leave","room":"{}"}}"#, "r".repeat(257));
        let long_id = format!(r#"{{"op":"publish","room":"a","data":1,"id":"{}"}}"#, "i".repeat(65));
        let long_type = format!(r#"{{"op":"publish","room":"a","data":1,"id":"7","type":"{}"}}"#, "t".repeat(65));
        let long_epoch = format!(r#"{{"op":"join","room":"a","since":{{"epoch":"{}","seq":1}}}}"#, "e".repeat(65));
        let deep = format!(r#"{{"op":"ping","x":{}{}}}"#, "[".repeat(32), "]".repeat(32));
        for (message, expected) in [
            (r#"{"op":"ping"}"#, r#"{"op":"pong"}"#.to_owned()),
            (r#"{"op":"auth","token":"a.b.c"}"#, "auth a.b.c".to_owned()),
            (r#"{"op":"auth"}"#, bad("null", "token must be a string")),
            (r#"{"op":"join","room":"doc:a/b"}"#, "join doc:a/b".to_owned()),
            (r#"{"op":"join","room":"a","since":null}"#, "join a".to_owned()),
            (r#"{"op":"join","room":"a","since":{"epoch":"00ff","seq":7}}"#, "join a since 00ff 7".to_owned()),
            (r#"{"op":"join","room":"a","since":{"epoch":"","seq":0,"x":1}}"#, "join a since  0".to_owned()),
            (r#"{"op":"join","room":"a","since":{"epoch":"00ff"}}"#, bad("null", BAD_SINCE)),
            (r#"{"op":"join","room":"a","since":{"epoch":"00ff","seq":-1}}"#, bad("null", BAD_SINCE)),
            (r#"{"op":"join","room":"a","since":["00ff",1]}"#, bad("null", BAD_SINCE)),
            (r#"{"op":"join","room":"a","since":7}"#, bad("null", BAD_SINCE)),
            (&long_epoch, bad("null", BAD_SINCE)),
            (r#"{"op":"join"}"#, bad("null", "room must be a string")),
            (r#"{"op":"join","room":7}"#, bad("null", "room must be a string")),
            (r#"{"op":"join","room":""}"#, refused("null", "bad_room", BAD_ROOM)),
            (r#"{"op":"join","room":"a b"}"#, refused("null", "bad_room", BAD_ROOM)),
            (r#"{"op":"join","room":"é"}"#, refused("null", "bad_room", BAD_ROOM)),
            (r#"{"op":"join","room":"a\u0000"}"#, refused("null", "bad_room", BAD_ROOM)),
            (r#"{"op":"join","room":"presence a"}"#, refused("null", "bad_room", BAD_ROOM)),
            (&long_room, refused("null", "bad_room", BAD_ROOM)),
            (r#"{"op":"leave","room":"a"}"#, r#"leave a {"op":"left","room":"a"}"#.to_owned()),
            (
                r#"{"op":"publish","room":"a","id":"7","type":"note","data":{ "b" : 1.10 , "a":2},"if_rev":3}"#,
                r#"publish a 7 note { "b" : 1.10 , "a":2} Some(3)"#.to_owned(),
            ),
            (r#"{"op":"publish","room":"a","id":"7","data":null}"#, "publish a 7 message null None".to_owned()),
            (r#"{"op":"publish","room":"a","id":"7"}"#, bad("\"7\"", "data is missing")),
            (r#"{"op":"publish","room":"a","data":1}"#, refused("null", "bad_id", BAD_ID)),
            (r#"{"op":"publish","room":"a","data":1,"id":7}"#, refused("null", "bad_id", BAD_ID)),
            (r#"{"op":"publish","room":"a","data":1,"id":""}"#, refused("null", "bad_id", BAD_ID)),
            (&long_id, refused("null", "bad_id", BAD_ID)),
            (r#"{"op":"publish","room":"a b","data":1,"id":"7"}"#, refused("\"7\"", "bad_room", BAD_ROOM)),
            (r#"{"op":"publish","room":"a","data":1,"id":"7","type":"a/b"}"#, refused("\"7\"", "bad_type", BAD_TYPE)),
            (&long_type, refused("\"7\"", "bad_type", BAD_TYPE)),
            (r#"{"op":"publish","room":"a","data":1,"id":"7","type":1}"#, bad("\"7\"", "type must be a string")),
            (
                r#"{"op":"publish","room":"a","data":1,"id":"7","if_rev":1.5}"#,
                bad("\"7\"", "if_rev must be a whole number"),
            ),
            (r#"{"op":"signal","room":"a","data":{"typing":true}}"#, r#"signal a {"typing":true}"#.to_owned()),
            (r#"{"op":"signal","room":"a"}"#, bad("null", "data is missing")),
            (r#"{"op":"presence","room":"a"}"#, "presence a".to_owned()),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"approve","seen":"d"}"#,
                "decide session:s 7 x Approve d".to_owned(),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"reject","reason":"no","seen":"d"}"#,
                r#"decide session:s 7 x Reject { reason: Some("no") } d"#.to_owned(),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"edit","edited_args":{"a":1},"seen":"d"}"#,
                r#"decide session:s 7 x Edit { args: Object {"a": Number(1)} } d"#.to_owned(),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"cancel","seen":"d"}"#,
                "decide session:s 7 x Cancel d".to_owned(),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"approve"}"#,
                bad("\"7\"", "seen must be the digest of what is decided"),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"expire","seen":"d"}"#,
                bad("\"7\"", "decision must be approve, reject, edit or cancel"),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"edit","edited_args":[1],"seen":"d"}"#,
                bad("\"7\"", "edited_args must be an object"),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":1,"decision":"approve","seen":"d"}"#,
                bad("\"7\"", "approval must be a string"),
            ),
            (
                r#"{"op":"decide","room":"session:s","id":"7","approval":"x","decision":"reject","reason":1,"seen":"d"}"#,
                bad("\"7\"", "reason must be a string"),
            ),
            (r#"{"op":"fly","id":"7"}"#, refused("\"7\"", "unknown_op", "there is no such op")),
            (r#"{"id":"7"}"#, bad("\"7\"", "op must be a string")),
            (r#"{"op":7}"#, bad("null", "op must be a string")),
            (r#" {"op":"p\u0069ng","more":{"x":[1]}} "#, r#"{"op":"pong"}"#.to_owned()),
            ("hello", bad("null", NO_MESSAGE)),
            ("", bad("null", NO_MESSAGE)),
            (r#"["ping"]"#, bad("null", NO_MESSAGE)),
            (r#"{"op":"ping"}{"op":"ping"}"#, bad("null", NO_MESSAGE)),
            (r#"{"op":"ping","op":"ping"}"#, bad("null", NO_MESSAGE)),
            (r#"{"op":"publish","room":"a","id":"7","data":"\ud800"}"#, bad("null", NO_MESSAGE)),
            (r#"{"op":"publish","room":"a","id":"7","data":1e999}"#, bad("null", NO_MESSAGE)),
            (&deep, bad("null", NO_MESSAGE)),
        ] {
            assert_eq!(asked(&mut Session::new(true), message), expected, "{message}");
        }
    }

    #[test]
    fn before_auth_there_is_auth_and_ping() {
        let mut session = Session::new(false);
        let conn = ConnId { reactor: 0, slot: 0, generation: 0 };
        let hello = Hello { conn, user: "ann", durability: "full", ping: Duration::from_secs(25), expires_in: None };
        assert_eq!(session.hello(&hello), None, "nobody is known yet");
        assert_eq!(asked(&mut session, r#"{"op":"ping"}"#), r#"{"op":"pong"}"#);
        assert_eq!(asked(&mut session, r#"{"op":"auth","token":"t"}"#), "auth t");
        assert!(!session.is_authenticated(), "the reactor says when");
        for (message, id) in [
            (r#"{"op":"join","room":"a b"}"#, "null"),
            (r#"{"op":"publish","id":"7"}"#, "\"7\""),
            (r#"{"op":"decide"}"#, "null"),
            (r#"{"op":"fly"}"#, "null"),
        ] {
            let expected = refused(id, "unauthenticated", "say auth with a token first");
            assert_eq!(asked(&mut session, message), expected, "{message}");
        }
        session.authenticated();
        assert_eq!(asked(&mut session, r#"{"op":"join","room":"a"}"#), "join a");
        assert!(session.hello(&hello).is_some());
    }

    #[test]
    fn what_is_denied_looks_like_what_is_not_there() {
        let room = RoomName::new("doc:a");
        let ask = dialect::Read::Native(Read::Join { room: room.clone(), since: None });
        let join = Intent::Join(Box::new(Joining { room: room.clone(), ask }));
        let signal = Intent::Signal { room: room.clone(), data: Bytes::from_static(b"1") };
        let presence = Intent::Presence { room };
        let many = "you are in as many rooms as one connection may be in";
        let none = "no such room, or not yours";
        for (intent, why, code, detail) in [
            (&join, Denial::Forbidden, "no_such_room", none),
            (&presence, Denial::Forbidden, "no_such_room", none),
            (&signal, Denial::Forbidden, "forbidden", none),
            (&join, Denial::TooManyRooms, "too_many_rooms", many),
        ] {
            let expected =
                format!(r#"{{"op":"refused","id":null,"code":"{code}","detail":"{detail}","room":"doc:a"}}"#);
            assert_eq!(denied(intent, why), expected);
        }
    }

    #[test]
    fn a_binary_frame_ends_the_connection() {
        let Intent::Close(reject) = on_binary() else { panic!("a close") };
        assert_eq!(reject.row().close, 1003);
    }

    /// What is said at once is JSON with an `op`, whatever came.
    fn check(text: &str) -> Result<(), TestCaseError> {
        for authenticated in [true, false] {
            if let Intent::Reply(payload) | Intent::Complain(payload) = Session::new(authenticated).on_text(text) {
                let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                prop_assert!(value["op"].is_string());
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            check(&text)?;
        }

        #[test]
        fn no_message_panics(
            op in "auth|join|leave|publish|signal|presence|decide|ping|.{0,3}",
            fields in proptest::collection::vec(
                ("token|room|since|id|type|data|if_rev|approval|decision|edited_args|reason|seen|x",
                 "\"[a-z:/]{0,70}\"|[0-9]{1,25}|null|true|\\{\"epoch\":\"[0-9a-f]{0,3}\",\"seq\":[0-9]\\}|\\[1,\\]"),
                0..8),
        ) {
            let op = serde_json::to_string(&op).unwrap();
            let fields: String = fields.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
            check(&format!("{{\"op\":{op}{fields}}}"))?;
        }

        /// What is sent under `data` is what is kept, byte for byte.
        #[test]
        fn data_is_kept_verbatim(text in any::<String>(), space in " {0,3}") {
            let data = format!("{{{space}\"text\":{space}{}}}", serde_json::to_string(&text).unwrap());
            let message = format!(r#"{{"op":"publish","room":"a","id":"7","data":{data}}}"#);
            let Intent::Write(write) = Session::new(true).on_text(&message) else { panic!("{message}") };
            let dialect::Change::Native(Change::Publish(publish)) = write.change else { panic!("{message}") };
            prop_assert_eq!(publish.data, data);
        }
    }
}
