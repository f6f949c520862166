//! The `workflows` dialect: the progress pages, the agent monitor, topics and chats of a video pipeline.
//!
//! ```text
//! socket   paths ─▶ Target ─▶ session::open ─▶ writes (enter) ─▶ wire: welcome · reads: the newest value · Starts
//!          message ─▶ Session ─┬─▶ wire                                       (answered on the spot)
//!                              ├─▶ Change ─▶ writes ─▶ posts, tasks
//!                              └─▶ Join ───▶ reads (subscribe)                (the room replays its past, in order)
//! HTTP     rest ─┬─▶ Change ─▶ writes ─▶ posts
//!                └─▶ Census ─▶ census
//! publish  posts ─▶ shapes ─▶ event · state · card · bridged progress
//! ```
//!
//! | file | decides |
//! |---|---|
//! | paths | which path means what; which room a name stands for |
//! | session | what one socket asks for, message by message |
//! | wire | what the server says in its own name |
//! | object | a JSON object that keeps its order |
//! | shapes, metrics | what an event looks like; the coordinator's numbers and the agents' cards |
//! | posts | what an event changes besides its room's log |
//! | reads | subscriptions, and the frames that tell the newest value |
//! | writes | entering and what was missed; control; replies to changes |
//! | census | stats and the look-up of a client |
//! | rest | HTTP requests |
//!
//! An event's body is the whole message, `type` included, so that a page is shown exactly what was stored.
//!
//! Never here: a clock, a socket, a list of who is connected.

mod census;
mod metrics;
mod object;
mod paths;
mod posts;
mod reads;
mod rest;
mod session;
mod shapes;
mod wire;
mod writes;

pub use paths::{Place, Target, route};
pub use reads::{Read, read, read_failed, snapshot};
pub use rest::{endpoint, endpoint_needs};
pub use session::{Session, open};
pub use wire::heartbeat;
pub use writes::{Change, apply, failed};

use super::publish::{Outcome, Publish};
use super::{Asker, ConnView, Env, Failure, Reply};
use crate::ids::{OpId, RoomName};
use crate::model::{Event, Rows, RowsError, Transaction};

/// Is this a room of the dialect's?
pub fn owns(room: &str) -> bool {
    paths::family(room).is_some()
}

pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    _env: &Env,
) -> Result<Outcome, RowsError> {
    posts::publish(publish, asker, op, rows)
}

pub fn census(read: &Read, views: &[ConnView], rows: &mut dyn Rows, _env: &Env) -> Result<Reply, RowsError> {
    match read {
        Read::Census(asked) => census::answer(asked, views, rows),
        other => Ok(read_failed(other, Failure::Broken)),
    }
}

/// The payload that a workflows socket is shown for an event: its body. In a chat only the answers are shown, not what the
/// page itself said.
pub fn encode(room: &RoomName, event: &Event) -> Option<Vec<u8>> {
    let (family, _) = paths::family(room.as_str())?;
    let is_own_word = family == paths::Family::Chat && event.kind == posts::CHAT_MESSAGE;
    (!is_own_word).then(|| event.body.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::clock::Wall;
    use crate::ids::Seq;
    use bytes::Bytes;

    pub fn asker() -> Asker {
        Asker { actor: "a".into(), origin: 0, verified: false }
    }

    /// The payloads of a run of text frames.
    pub fn payloads(mut frames: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while !frames.is_empty() {
            assert_eq!(frames[0], 0x81);
            let (start, length) = match frames[1] {
                126 => (4, usize::from(u16::from_be_bytes([frames[2], frames[3]]))),
                short => (2, usize::from(short)),
            };
            found.push(String::from_utf8(frames[start..start + length].to_vec()).unwrap());
            frames = &frames[start + length..];
        }
        found
    }

    /// One line for a reply.
    pub fn said(reply: Reply) -> String {
        match reply {
            Reply::Frame(frame) => payloads(&frame).join(" "),
            Reply::Response(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn events_are_shown_as_they_are_stored() {
        let shown = |room: &str, kind: &'static str| {
            let event = Event {
                seq: Seq(1),
                kind: kind.into(),
                actor: "a".into(),
                op: None,
                origin: 0,
                body: Bytes::from_static(b"{\"b\": 1}"),
                at: Wall(0),
            };
            encode(&RoomName::new(room), &event).is_some_and(|payload| payload == b"{\"b\": 1}")
        };
        for (room, kind, expected) in [
            ("workflow:x", "progress", true),
            ("workflows", "message", true),
            ("topic:t", "message", true),
            ("chat:t", "chunk", true),
            ("chat:t", "message", false),
            ("doc:x", "update", false),
            ("session:x", "thinking", false),
        ] {
            assert_eq!(shown(room, kind), expected, "{room} {kind}");
        }
    }

    #[test]
    fn rooms_of_the_dialect() {
        for room in [
            "workflow:1",
            "agent:a",
            "coordinator",
            "topic:t",
            "chat:t",
            "compilation:1",
            "segment:1",
            "segments",
            "workflows",
        ] {
            assert!(owns(room), "{room}");
        }
        for room in ["workflow:", "topic:", "workflow", "doc:x", "session:x", "tickets", "coordinators", ""] {
            assert!(!owns(room), "{room}");
        }
    }
}
