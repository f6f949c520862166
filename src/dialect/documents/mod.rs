//! The `documents` dialect: the prompt and fragment editor's sockets and its REST API, over rooms `doc:{id}`.
//!
//! ```text
//! socket   paths ─▶ Target ─▶ reads (lookup) ─▶ Session ─▶ wire::Message ─┬─▶ Change ─▶ writes ─▶ events ─▶ wire (splice)
//!                                                                         └─▶ Read ───▶ reads (expand) ─▶ wire
//! REST     rest: method and path ─▶ Read or Change ─▶ reads or writes ─▶ views ─▶ Response
//! files    markdown::parse ─▶ Change::Import ─▶ writes ─▶ FileTask ─▶ markdown::render
//! ```
//!
//! | file | decides |
//! |---|---|
//! | paths | which path means what; what an id and a directory may look like |
//! | session | what one socket asks for, message by message |
//! | wire | the JSON of the sockets, both ways |
//! | rest, views | the JSON of the REST API: requests; replies |
//! | reads | questions to one snapshot |
//! | publish | edits of native clients and backends, as the same changes |
//! | writes | changes inside the writer's transaction, and their replies |
//! | lookup | which document a text names |
//! | expand | inclusions (`[[name]]`), bounded |
//! | markdown | a document as a file's text |
//! | time | the timestamps' three spellings |
//!
//! A room is named after the *canonical* id, so that two clients who spell one prompt differently meet. Events' kinds:
//! `created`, `update`, `update_metadata`, `deleted`; their bodies hold what was asked for, and a socket's frame is that
//! body with two fields spliced around it.
//!
//! Never here: a file, a socket, a second copy of a document's state.

mod expand;
mod granted;
mod lookup;
pub mod markdown;
mod paths;
mod publish;
mod reads;
mod rest;
mod session;
mod views;
mod wire;
mod writes;

pub use paths::{Target, is_within, room_of, route};
pub use publish::{publish, state};
pub use reads::{Ask, Read, read, read_failed, snapshot};
pub use rest::{endpoint, only_asks, reloaded};
pub use session::{Session, open};
pub use writes::{Asked, Change, Generation, Import, Metadata, apply, failed, fingerprint, id_taken, repeated};

use crate::ids::RoomName;
use crate::model::Event;

/// Where the debug sockets hear of every prompt that is created, changed or deleted.
pub const DEBUG_ROOM: &str = "debug";

/// What the dialect knows of the server's configuration.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// Directories whose documents live as Markdown files too. Empty: none do, and any well-formed directory is a label.
    pub roots: Vec<String>,
}

impl Env {
    /// Where a prompt goes that names no directory.
    pub fn default_directory(&self) -> &str {
        self.roots.first().map_or("", String::as_str)
    }

    /// May a client create documents here? One of the originals made folders wherever a request said (P17).
    pub fn admits(&self, directory: &str) -> bool {
        self.roots.is_empty() || self.has_files_in(directory)
    }

    /// Are this directory's documents written back as files?
    pub fn has_files_in(&self, directory: &str) -> bool {
        self.roots.iter().any(|root| paths::is_within(root, directory))
    }
}

/// Is this a document's room, or the one of all documents' news?
pub fn owns(room: &str) -> bool {
    room == DEBUG_ROOM || paths::id_of_room(room).is_some()
}

/// The payload that a documents socket is shown for an event; `None` for events that it has no words for.
pub fn encode(room: &RoomName, event: &Event) -> Option<Vec<u8>> {
    paths::id_of_room(room.as_str())?;
    let action = match &*event.kind {
        // A socket that outlived its prompt sees the text again when the prompt is created again.
        "update" | "created" => "update",
        "update_metadata" => "update_metadata",
        _ => return None,
    };
    wire::event(action, &event.body, event.at)
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
            at: Wall(1_747_101_540_123_456),
        };
        encode(&RoomName::new(room), &event).map(|payload| String::from_utf8(payload).unwrap())
    }

    #[test]
    fn events_are_shown_as_the_originals_sent_them() {
        let stamp = r#""timestamp":"2025-05-13T01:59:00.123456+00:00"}"#;
        let table = [
            ("update", r#"{"content":"x"}"#, r#"{"action":"update","content":"x","#),
            (
                "update_metadata",
                r#"{"description":null,"tags":["x"]}"#,
                r#"{"action":"update_metadata","description":null,"tags":["x"],"#,
            ),
            (
                "created",
                r#"{"content":"c","description":null,"tags":[]}"#,
                r#"{"action":"update","content":"c","description":null,"tags":[],"#,
            ),
            ("update", " {\n} ", r#"{"action":"update","#),
        ];
        for (kind, body, expected) in table {
            assert_eq!(shown("doc:a", kind, body), Some(format!("{expected}{stamp}")), "{kind} {body}");
        }
        assert_eq!(shown("doc:a", "deleted", "{}"), None);
        assert_eq!(shown("doc:a", "note", "{}"), None);
        assert_eq!(shown("chat:a", "update", "{}"), None, "another dialect's room");
        assert_eq!(shown("doc:a", "update", "[]"), None, "a body that is no object");
    }

    #[test]
    fn p17_only_configured_roots_admit_documents() {
        let open = Env::default();
        assert!(open.admits("") && open.admits("anything/at/all") && !open.has_files_in("anything"));
        let env = Env { roots: vec!["prompts".to_owned(), "/srv/team/".to_owned()] };
        for (directory, admitted) in [
            ("prompts", true),
            ("prompts/sub/deeper", true),
            ("/srv/team/x", true),
            ("/srv/team", true),
            ("srv/team", false),
            ("prompts2", false),
            ("", false),
            ("/etc", false),
            ("prompts/.git/hooks", false),
        ] {
            assert_eq!(env.admits(directory), admitted, "{directory}");
            assert_eq!(env.has_files_in(directory), admitted, "{directory}");
        }
        assert_eq!(env.default_directory(), "prompts");
    }
}
