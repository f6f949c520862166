//! Which path leads where, which room a name stands for, and how a name of free text becomes a room's.
//!
//! ```text
//! /ws/workflow/{id}   /ws/agent/{name}   /ws/coordinator   /api/v1/ws/connect   ?client_id=    → sockets
//! /api/v1/chat/ws/{thread}                                                                     → a chat's socket
//! /api/v1/ws/stats   /ws/stats   /ws/client/{id}   /api/v1/ws/broadcast   /api/v1/ws/publish/{topic}   → HTTP
//! ```
//!
//! Ids are free text, and rooms are named in `[A-Za-z0-9_.:/-]`. A name that fits stands as it is, so that programs and
//! people write `topic:episode.7.outline`. Any other becomes `::` and its bytes, those that do not fit as `:` and two hex
//! digits; so does one that itself starts with `::`, and two names never meet in one room.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::dialect::{self, Name, Route};
use crate::http::{Reject, decode_path, query_param};
use crate::ids::RoomName;
use crate::limits::ROOM_NAME_BYTES_MAX;

/// The room of everybody on a socket of this dialect, chats aside: where broadcasts go.
pub const EVERYBODY: &str = "workflows";
pub const COORDINATOR: &str = "coordinator";

pub const STATS: &str = "/api/v1/ws/stats";
pub const ALL_STATS: &str = "/ws/stats";
pub const BROADCAST: &str = "/api/v1/ws/broadcast";

const CLIENT: &str = "/ws/client/";
const PUBLISH: &str = "/api/v1/ws/publish/";
const ESCAPED: &str = "::";

/// Where a socket of this dialect wants to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub place: Place,
    /// The client's own name for itself. Free text; none when it gave none, or an empty one.
    pub client: Option<Arc<str>>,
}

/// What a socket is there for.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    Workflow(Arc<str>),
    Agent(Arc<str>),
    Coordinator,
    /// Topics, by subscription.
    Topics,
    Chat(Arc<str>),
}

impl Place {
    /// The room it is shown from the start; none where it subscribes to its rooms.
    pub fn room(&self) -> Option<RoomName> {
        match self {
            Place::Workflow(id) => room_of(Family::Workflow, id),
            Place::Agent(name) => room_of(Family::Agent, name),
            Place::Coordinator => Some(RoomName::new(COORDINATOR)),
            Place::Topics => None,
            Place::Chat(thread) => room_of(Family::Chat, thread),
        }
    }
}

/// What kind of thing a room is about. Decides the shape of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Workflow,
    Agent,
    Coordinator,
    Topic,
    Chat,
    Compilation,
    Segment,
    Segments,
    Everybody,
}

const PREFIXES: [(&str, Family); 6] = [
    ("workflow:", Family::Workflow),
    ("agent:", Family::Agent),
    ("topic:", Family::Topic),
    ("chat:", Family::Chat),
    ("compilation:", Family::Compilation),
    ("segment:", Family::Segment),
];

/// A room of this dialect's: its family, and the name it is about, as free text.
pub fn family(room: &str) -> Option<(Family, Cow<'_, str>)> {
    match room {
        COORDINATOR => return Some((Family::Coordinator, room.into())),
        "segments" => return Some((Family::Segments, room.into())),
        EVERYBODY => return Some((Family::Everybody, room.into())),
        _ => {}
    }
    PREFIXES.iter().find_map(|(prefix, family)| {
        let rest = room.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
        Some((*family, unescaped(rest)))
    })
}

/// The room that a name stands for; none when the name is empty or too long for one.
pub fn room_of(family: Family, name: &str) -> Option<RoomName> {
    let (prefix, _) = PREFIXES.iter().find(|(_, known)| *known == family)?;
    if name.is_empty() || name.len() > ROOM_NAME_BYTES_MAX {
        return None;
    }
    let room = format!("{prefix}{}", escaped(name));
    (room.len() <= ROOM_NAME_BYTES_MAX).then(|| RoomName::new(&room))
}

/// A room's name as the originals spelled it; none for those that they did not call rooms.
pub fn spelled(room: &str) -> Option<String> {
    let (family, name) = family(room)?;
    match family {
        Family::Workflow => Some(format!("workflow_{name}")),
        Family::Agent => Some(format!("agent_{name}")),
        Family::Coordinator => Some("coordinator_metrics".to_owned()),
        Family::Compilation => Some(format!("compilation_{name}")),
        Family::Segment => Some(format!("segment_{name}")),
        Family::Segments => Some("segments".to_owned()),
        Family::Topic | Family::Chat | Family::Everybody => None,
    }
}

/// `path` is as sent. What is not served is nobody's: 404, as with a slash at the end, an empty id or one segment more.
pub fn route(path: &str, query: Option<&str>) -> Result<Option<Route>, Reject> {
    if path == STATS || path == ALL_STATS || path == BROADCAST || client_of(path).is_some() || topic_of(path).is_some()
    {
        return Ok(Some(Route::Endpoint(Name::Workflows)));
    }
    let Some(place) = place(path) else { return Ok(None) };
    let client = query_param(query, "client_id").filter(|id| !id.is_empty() && !matches!(place, Place::Chat(_)));
    let target = Target { place, client: client.map(|id| Arc::from(&*id)) };
    Ok(Some(Route::Socket(dialect::Target::Workflows(target))))
}

/// The client id in the path of a look-up.
pub fn client_of(path: &str) -> Option<String> {
    segment(path.strip_prefix(CLIENT)?)
}

/// The topic in the path of a publication. It may hold slashes, escaped or not: the documents say `episode/{id}`, which the
/// original answered with 404.
pub fn topic_of(path: &str) -> Option<String> {
    let topic = decode_path(path.strip_prefix(PUBLISH)?).ok()?;
    (!topic.is_empty()).then_some(topic)
}

fn place(path: &str) -> Option<Place> {
    let place = match path {
        "/ws/coordinator" => return Some(Place::Coordinator),
        "/api/v1/ws/connect" => return Some(Place::Topics),
        _ => {
            if let Some(rest) = path.strip_prefix("/ws/workflow/") {
                Place::Workflow(segment(rest)?.into())
            } else if let Some(rest) = path.strip_prefix("/ws/agent/") {
                Place::Agent(segment(rest)?.into())
            } else {
                Place::Chat(segment(path.strip_prefix("/api/v1/chat/ws/")?)?.into())
            }
        }
    };
    // A name too long for a room has none.
    place.room().is_some().then_some(place)
}

/// One segment, decoded. An escaped slash ends it like a plain one: the originals decoded before they looked.
fn segment(raw: &str) -> Option<String> {
    let text = decode_path(raw).ok()?;
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte)
}

fn escaped(name: &str) -> Cow<'_, str> {
    if name.bytes().all(fits) && !name.starts_with(ESCAPED) {
        return name.into();
    }
    let mut out = String::from(ESCAPED);
    for byte in name.bytes() {
        if fits(byte) && byte != b':' {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, ":{byte:02X}");
        }
    }
    out.into()
}

/// The inverse of [`escaped`]. A room that no name stands for (somebody made it up) is about its own spelling.
fn unescaped(rest: &str) -> Cow<'_, str> {
    let Some(inner) = rest.strip_prefix(ESCAPED) else { return rest.into() };
    match decoded(inner).and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(name) if escaped(&name) == rest => name.into(),
        _ => rest.into(),
    }
}

fn decoded(inner: &str) -> Option<Vec<u8>> {
    let mut pieces = inner.split(':');
    let mut out = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        out.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        out.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn found(path: &str) -> String {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        match route(path, query).unwrap() {
            None => "nobody's".to_owned(),
            Some(Route::Endpoint(Name::Workflows)) => "HTTP".to_owned(),
            Some(Route::Socket(dialect::Target::Workflows(Target { place, client }))) => {
                format!(
                    "{} {}",
                    place.room().map_or("-".to_owned(), |room| room.to_string()),
                    client.unwrap_or("".into())
                )
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn v1_v2_every_path_is_served_and_nothing_else() {
        for (path, expected) in [
            ("/ws/workflow/pending", "workflow:pending "),
            ("/ws/workflow/wf9?client_id=c%201", "workflow:wf9 c 1"),
            ("/ws/workflow/wf9?client_id=", "workflow:wf9 "),
            ("/ws/workflow/a%20b", "workflow:::a:20b "),
            ("/ws/workflow/urn:x:1", "workflow:urn:x:1 "),
            ("/ws/agent/writer", "agent:writer "),
            ("/ws/coordinator?client_id=x", "coordinator x"),
            ("/api/v1/ws/connect?client_id=me", "- me"),
            ("/api/v1/chat/ws/t-1?client_id=me", "chat:t-1 "),
            ("/api/v1/ws/stats", "HTTP"),
            ("/ws/stats", "HTTP"),
            ("/ws/client/x", "HTTP"),
            ("/api/v1/ws/broadcast", "HTTP"),
            ("/api/v1/ws/publish/ep1", "HTTP"),
            ("/api/v1/ws/publish/episode/7", "HTTP"),
            ("/api/v1/ws/publish/episode%2F7", "HTTP"),
            ("/ws/workflow/", "nobody's"),
            ("/ws/workflow", "nobody's"),
            ("/ws/workflow/a/", "nobody's"),
            ("/ws/workflow/a/b", "nobody's"),
            ("/ws/workflow/a%2Fb", "nobody's"),
            ("/ws/workflow/a%00", "nobody's"),
            ("/ws/workflow/%ff", "nobody's"),
            ("/ws/agent/", "nobody's"),
            ("/ws/coordinator/", "nobody's"),
            ("/api/v1/ws/connect/", "nobody's"),
            ("/api/v1/chat/ws/", "nobody's"),
            ("/api/v1/ws/publish/", "nobody's"),
            ("/api/v1/ws/publish", "nobody's"),
            ("/ws/client/", "nobody's"),
            ("/ws/client/a/b", "nobody's"),
            ("/ws/logs", "nobody's"),
            ("/health", "nobody's"),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
        assert_eq!(found(&format!("/ws/workflow/{}", "x".repeat(247))), format!("workflow:{} ", "x".repeat(247)));
        assert_eq!(found(&format!("/ws/workflow/{}", "x".repeat(248))), "nobody's");
    }

    #[test]
    fn rooms_are_spelled_as_the_originals_did() {
        for (room, expected) in [
            ("workflow:pending", Some("workflow_pending")),
            ("workflow:::a:20b", Some("workflow_a b")),
            ("agent:writer", Some("agent_writer")),
            ("coordinator", Some("coordinator_metrics")),
            ("compilation:7", Some("compilation_7")),
            ("segment:7", Some("segment_7")),
            ("segments", Some("segments")),
            ("topic:t", None),
            ("chat:t", None),
            ("workflows", None),
            ("workflow:", None),
            ("doc:x", None),
        ] {
            assert_eq!(spelled(room).as_deref(), expected, "{room}");
        }
    }

    #[test]
    fn a_room_that_no_name_stands_for_is_about_its_spelling() {
        for rest in ["::plain", "::a:2", "::a:zz", "::a:2f", "::%41", "::a:FF:20"] {
            assert_eq!(unescaped(rest), rest);
        }
    }

    #[test]
    fn a_name_that_looks_escaped_is_another_s_no_room() {
        for (name, room) in [
            ("a b", "topic:::a:20b"),
            ("::a:20b", "topic::::3A:3Aa:3A20b"),
            ("a:20b", "topic:a:20b"),
            ("é", "topic::::C3:A9"),
        ] {
            let found = room_of(Family::Topic, name).unwrap();
            assert_eq!(found.as_str(), room);
            assert_eq!(family(room), Some((Family::Topic, name.into())));
        }
    }

    proptest! {
        #[test]
        fn no_two_names_meet_in_one_room(name in ".{1,20}|[a-z:%2F ]{1,12}|::[a-f0-9:]{0,8}") {
            prop_assume!(!name.is_empty());
            if let Some(room) = room_of(Family::Topic, &name) {
                prop_assert!(room.as_str().bytes().all(fits));
                let (found, back) = family(room.as_str()).unwrap();
                prop_assert_eq!(found, Family::Topic);
                prop_assert_eq!(&*back, &*name);
            }
        }
    }
}
