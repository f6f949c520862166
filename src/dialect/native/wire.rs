//! Every frame of the native protocol that the server sends, as a payload; field by field, in the documented order.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::dialect::agents::approvals::Decision;
use crate::dialect::{Hello, time};
use crate::ids::{RoomName, Seq};
use crate::model::Event;

/// How long whoever is told "later" is to wait. The writer's queue is milliseconds deep, a busy disk seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A JSON object that is being written. By hand, because bodies and snapshots are spliced in as they were stored: through
/// serde each would be read once more for every frame.
struct Object(Vec<u8>);

impl Object {
    fn of(op: &str, capacity: usize) -> Object {
        let mut out = Vec::with_capacity(capacity + 64);
        out.extend_from_slice(b"{\"op\":");
        put_text(&mut out, op);
        Object(out)
    }

    fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        &mut self.0
    }

    fn text(mut self, key: &'static str, text: &str) -> Object {
        put_text(self.key(key), text);
        self
    }

    /// A number, `true` or `false`.
    fn plain(mut self, key: &'static str, value: impl Display) -> Object {
        // Writing into memory has no way to fail.
        let _ = write!(self.key(key), "{value}");
        self
    }

    fn maybe(self, key: &'static str, value: Option<impl Display>) -> Object {
        match value {
            Some(value) => self.plain(key, value),
            None => self,
        }
    }

    /// JSON that was judged when it came in. Nothing at all would break the frame, so it is `null`.
    fn raw(mut self, key: &'static str, json: &[u8]) -> Object {
        self.key(key).extend_from_slice(if json.is_empty() { b"null" } else { json });
        self
    }

    fn maybe_raw(self, key: &'static str, json: Option<&[u8]>) -> Object {
        match json {
            Some(json) => self.raw(key, json),
            None => self,
        }
    }

    fn texts(mut self, key: &'static str, texts: &[Arc<str>]) -> Object {
        let out = self.key(key);
        out.push(b'[');
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            put_text(out, text);
        }
        out.push(b']');
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing a text into memory has no way to fail.
    let _ = serde_json::to_writer(out, text);
}

fn millis(time: Duration) -> u128 {
    time.as_millis()
}

pub fn hello(hello: &Hello<'_>) -> Vec<u8> {
    Object::of("hello", 96)
        .text("conn", &hello.conn.to_string())
        .text("user", hello.user)
        .text("durability", hello.durability)
        .plain("ping_ms", millis(hello.ping))
        .text("version", env!("CARGO_PKG_VERSION"))
        .maybe("expires_in_ms", hello.expires_in.map(millis))
        .end()
}

pub fn pong() -> Vec<u8> {
    Object::of("pong", 0).end()
}

pub fn expiring(left: Duration) -> Bytes {
    Object::of("expiring", 0).plain("in_ms", millis(left)).end().into()
}

/// `code` is that of the close which follows.
pub fn bye(code: u16, retry_after: Duration) -> Bytes {
    Object::of("bye", 0).plain("code", code).plain("retry_after_ms", millis(retry_after)).end().into()
}

/// A room as its joiner is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Empty for a room without an event: it has no history yet.
    pub epoch: String,
    pub head: Seq,
    pub rev: Option<u64>,
    pub snapshot: Option<Bytes>,
}

/// Who has what was before is not told the state again, only its revision.
pub fn joined(room: &RoomName, standing: &Standing, recovered: bool, with_snapshot: bool) -> Vec<u8> {
    let snapshot = standing.snapshot.as_deref().filter(|_| with_snapshot);
    Object::of("joined", 96 + snapshot.map_or(0, <[u8]>::len))
        .text("room", room.as_str())
        .text("epoch", &standing.epoch)
        .plain("head", standing.head.0)
        .maybe("rev", standing.rev)
        .maybe_raw("snapshot", snapshot)
        .plain("recovered", recovered)
        .end()
}

/// Forget what you have of this room: it is as in `standing`, and goes on from there.
pub fn reset(room: &RoomName, reason: &'static str, standing: &Standing) -> Vec<u8> {
    let snapshot = standing.snapshot.as_deref();
    Object::of("reset", 96 + snapshot.map_or(0, <[u8]>::len))
        .text("room", room.as_str())
        .text("reason", reason)
        .text("epoch", &standing.epoch)
        .plain("seq", standing.head.0)
        .maybe("rev", standing.rev)
        .maybe_raw("snapshot", snapshot)
        .end()
}

pub fn left(room: &RoomName) -> Vec<u8> {
    Object::of("left", 32).text("room", room.as_str()).end()
}

/// Once for all members of a room, so this is the path that many share.
pub fn event(room: &RoomName, event: &Event) -> Vec<u8> {
    let object = Object::of("event", 160 + room.as_str().len() + event.body.len())
        .text("room", room.as_str())
        .plain("seq", event.seq.0)
        .text("type", &event.kind)
        .text("by", &event.actor)
        .text("at", &time::zulu(event.at));
    let object = match &event.op {
        Some(op) => object.text("id", &op.0),
        None => object,
    };
    object.raw("data", &event.body).end()
}

pub fn signal(room: &RoomName, by: &str, data: &[u8]) -> Vec<u8> {
    Object::of("signal", 64 + data.len()).text("room", room.as_str()).text("by", by).raw("data", data).end()
}

pub fn presence(room: &RoomName, joined: &[Arc<str>], left: &[Arc<str>]) -> Vec<u8> {
    let capacity = 32 * (joined.len() + left.len());
    Object::of("presence", capacity).text("room", room.as_str()).texts("joined", joined).texts("left", left).end()
}

/// Which operation an answer is about. Ids are the client's and unique in a room, so both are said.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub id: Option<&'a str>,
    pub room: Option<&'a str>,
}

pub fn ok(about: About<'_>, seq: Seq, rev: Option<u64>, dup: bool) -> Vec<u8> {
    let object = said_of("ok", about).plain("seq", seq.0).maybe("rev", rev);
    object.maybe("dup", dup.then_some(true)).end()
}

/// Certain never to be stored. Codes are fixed words, `detail` is for people.
pub fn refused(about: About<'_>, code: &str, detail: &str) -> Vec<u8> {
    refusal(about, code, detail).end()
}

/// A refusal that goes on with what its code calls for.
fn refusal(about: About<'_>, code: &str, detail: &str) -> Object {
    let object = Object::of("refused", 128);
    let object = match about.id {
        Some(id) => object.text("id", id),
        None => object.raw("id", b"null"),
    };
    let object = object.text("code", code).text("detail", detail);
    match about.room {
        Some(room) => object.text("room", room),
        None => object,
    }
}

pub fn overloaded(about: About<'_>, detail: &str) -> Vec<u8> {
    refusal(about, "overloaded", detail).plain("retry_after_ms", millis(RETRY_AFTER)).end()
}

/// Somebody else was first.
pub fn already_decided(about: About<'_>, first: &Decision) -> Vec<u8> {
    refusal(about, "already_decided", "it was decided before")
        .text("by", &first.by)
        .text("at", &time::zulu(first.at))
        .text("decision", &first.decision)
        .plain("seq", first.seq.0)
        .end()
}

/// The decider has seen something else than what is to be decided, which is this.
pub fn stale(about: About<'_>, approval: &[u8]) -> Vec<u8> {
    refusal(about, "stale", "it is not what you have seen: look at it again").raw("approval", approval).end()
}

/// Nobody knows what became of it: to be sent again with the same id.
pub fn unknown(about: About<'_>) -> Vec<u8> {
    said_of("unknown", about).end()
}

pub fn conflict(about: About<'_>, rev: u64, snapshot: Option<&[u8]>) -> Vec<u8> {
    said_of("conflict", about).plain("rev", rev).raw("snapshot", snapshot.unwrap_or_default()).end()
}

fn said_of(op: &str, about: About<'_>) -> Object {
    let object = Object::of(op, 128);
    let object = match about.id {
        Some(id) => object.text("id", id),
        None => object,
    };
    match about.room {
        Some(room) => object.text("room", room),
        None => object,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Wall;
    use crate::ids::{ConnId, OpId};

    fn text(payload: impl Into<Vec<u8>>) -> String {
        String::from_utf8(payload.into()).unwrap()
    }

    fn told(op: Option<&str>, body: &str) -> Event {
        Event {
            seq: Seq(41),
            kind: "update".into(),
            actor: "ann".into(),
            op: op.map(|op| OpId(op.into())),
            origin: 9,
            body: Bytes::copy_from_slice(body.as_bytes()),
            at: Wall(1_747_101_540_123_456),
        }
    }

    #[test]
    fn every_frame_byte_for_byte() {
        let room = RoomName::new("doc:a/b");
        let hello_to = |user, expires_in| {
            text(hello(&Hello {
                conn: ConnId { reactor: 1, slot: 2, generation: 3 },
                user,
                durability: "full",
                ping: Duration::from_secs(25),
                expires_in,
            }))
        };
        let version = env!("CARGO_PKG_VERSION");
        let empty = Standing::default();
        let full = Standing {
            epoch: "00000000000000ff".to_owned(),
            head: Seq(9),
            rev: Some(4),
            snapshot: Some(Bytes::from_static(b"{\"content\":\"x\"}")),
        };
        let about = About { id: Some("op-1"), room: Some("doc:a/b") };
        let nobody = About { id: None, room: None };
        let ann: Arc<str> = "ann".into();
        let quoted: Arc<str> = "\"b\"".into();
        for (payload, expected) in [
            (
                hello_to("ann \"é\"", None),
                format!(
                    r#"{{"op":"hello","conn":"c1.2.3","user":"ann \"é\"","durability":"full","ping_ms":25000,"version":"{version}"}}"#
                ),
            ),
            (
                hello_to("ann", Some(Duration::from_millis(1_500))),
                format!(
                    r#"{{"op":"hello","conn":"c1.2.3","user":"ann","durability":"full","ping_ms":25000,"version":"{version}","expires_in_ms":1500}}"#
                ),
            ),
            (text(pong()), r#"{"op":"pong"}"#.to_owned()),
            (text(expiring(Duration::from_secs(60))), r#"{"op":"expiring","in_ms":60000}"#.to_owned()),
            (text(bye(1012, Duration::from_millis(7))), r#"{"op":"bye","code":1012,"retry_after_ms":7}"#.to_owned()),
            (
                text(joined(&room, &empty, true, false)),
                r#"{"op":"joined","room":"doc:a/b","epoch":"","head":0,"recovered":true}"#.to_owned(),
            ),
            (
                text(joined(&room, &full, false, true)),
                r#"{"op":"joined","room":"doc:a/b","epoch":"00000000000000ff","head":9,"rev":4,"snapshot":{"content":"x"},"recovered":false}"#.to_owned(),
            ),
            (
                text(joined(&room, &full, true, false)),
                r#"{"op":"joined","room":"doc:a/b","epoch":"00000000000000ff","head":9,"rev":4,"recovered":true}"#.to_owned(),
            ),
            (
                text(reset(&room, "epoch", &full)),
                r#"{"op":"reset","room":"doc:a/b","reason":"epoch","epoch":"00000000000000ff","seq":9,"rev":4,"snapshot":{"content":"x"}}"#.to_owned(),
            ),
            (
                text(reset(&room, "trimmed", &empty)),
                r#"{"op":"reset","room":"doc:a/b","reason":"trimmed","epoch":"","seq":0}"#.to_owned(),
            ),
            (text(left(&room)), r#"{"op":"left","room":"doc:a/b"}"#.to_owned()),
            (
                text(event(&room, &told(Some("op-1"), r#"{ "content":1.10}"#))),
                r#"{"op":"event","room":"doc:a/b","seq":41,"type":"update","by":"ann","at":"2025-05-13T01:59:00.123456Z","id":"op-1","data":{ "content":1.10}}"#.to_owned(),
            ),
            (
                text(event(&room, &told(None, ""))),
                r#"{"op":"event","room":"doc:a/b","seq":41,"type":"update","by":"ann","at":"2025-05-13T01:59:00.123456Z","data":null}"#.to_owned(),
            ),
            (
                text(signal(&room, "ann", b"[1]")),
                r#"{"op":"signal","room":"doc:a/b","by":"ann","data":[1]}"#.to_owned(),
            ),
            (
                text(presence(&room, &[ann, quoted.clone()], &[])),
                r#"{"op":"presence","room":"doc:a/b","joined":["ann","\"b\""],"left":[]}"#.to_owned(),
            ),
            (
                text(presence(&room, &[], &[quoted])),
                r#"{"op":"presence","room":"doc:a/b","joined":[],"left":["\"b\""]}"#.to_owned(),
            ),
            (
                text(refused(nobody, "bad_message", "no")),
                r#"{"op":"refused","id":null,"code":"bad_message","detail":"no"}"#.to_owned(),
            ),
            (
                text(overloaded(about, "later")),
                r#"{"op":"refused","id":"op-1","code":"overloaded","detail":"later","room":"doc:a/b","retry_after_ms":1000}"#.to_owned(),
            ),
            (text(unknown(about)), r#"{"op":"unknown","id":"op-1","room":"doc:a/b"}"#.to_owned()),
            (
                text(conflict(about, 3, None)),
                r#"{"op":"conflict","id":"op-1","room":"doc:a/b","rev":3,"snapshot":null}"#.to_owned(),
            ),
            (
                text(ok(about, Seq(5), Some(2), true)),
                r#"{"op":"ok","id":"op-1","room":"doc:a/b","seq":5,"rev":2,"dup":true}"#.to_owned(),
            ),
        ] {
            assert_eq!(payload, expected);
        }
    }

    proptest! {
        #[test]
        fn an_event_is_json_whatever_its_names_hold(
            room in any::<String>(), kind in any::<String>(), by in any::<String>(), id in any::<Option<String>>(),
            data in any::<String>(), at in any::<i64>(),
        ) {
            let body = serde_json::json!({"text": data});
            let one = Event {
                kind: kind.clone().into(),
                actor: by.as_str().into(),
                at: Wall(at),
                ..told(id.as_deref(), &body.to_string())
            };
            let payload = event(&RoomName::new(&room), &one);
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            prop_assert_eq!(&value["room"], &room);
            prop_assert_eq!(&value["type"], &kind);
            prop_assert_eq!(&value["by"], &by);
            prop_assert_eq!(value.get("id").and_then(|id| id.as_str()), id.as_deref());
            prop_assert_eq!(&value["data"], &body);
        }
    }
}
