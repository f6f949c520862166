//! The nouns that dialects and the store share: events, documents, and the two views of the store's rows.
//!
//! A dialect says *what* a write does, as code over [`Transaction`]; the store says *when* it becomes true (commit) and
//! runs that code on its own thread. A read is code over [`Rows`], one consistent snapshot. So a new dialect needs no new
//! case in the store, and the store's backends know rows and nothing of vocabularies.
//!
//! Never here: JSON, a socket, a database.

mod rows;
mod task;

pub use rows::{FileMark, RoomRow, Rows, RowsError, Transaction};
pub use task::{Attached, Task, TaskId, TaskKind, Tasks};

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Wall;
use crate::ids::{OpId, RoomName, Seq};

/// One entry of a room's log, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub seq: Seq,
    /// Such as `update`; a name of the room's own vocabulary.
    pub kind: Cow<'static, str>,
    /// Who did it, from the credential, never from the payload.
    pub actor: Arc<str>,
    pub op: Option<OpId>,
    /// `ConnId::pack` of the connection that asked, as this process numbers them; 0 when it was none of ours.
    pub origin: u64,
    /// A JSON object as text.
    pub body: Bytes,
    pub at: Wall,
}

/// An event before it is stored: it has no seq yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub room: RoomName,
    pub kind: Cow<'static, str>,
    /// A JSON object as text.
    pub body: Bytes,
}

/// The newest state of a room, for whoever joins it: kept beside the log, so that the log may be trimmed.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Rises by one with every change of the state; 1 for the first.
    pub rev: u64,
    /// The event that made it so.
    pub seq: Seq,
    /// A JSON value as text.
    pub body: Bytes,
}

/// What a [`Record`] is about. The number is stored: never give one a new meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shelf {
    /// An agent session; its parent is its owner, or empty.
    Session = 1,
    /// A run of a command; its parent is its session.
    Execution = 2,
    /// A request for a human's decision; its parent is its session.
    Approval = 3,
    Ticket = 4,
    Job = 5,
    /// A user's response, waiting in the mailbox of a session.
    Response = 6,
    /// How far a client has seen a room; its parent is the room.
    Mark = 7,
    /// Tokens that are not believed any more; its parent is the `jti` or the user that it is about.
    Revocation = 8,
}

impl Shelf {
    pub const ALL: [Shelf; 8] = [
        Shelf::Session,
        Shelf::Execution,
        Shelf::Approval,
        Shelf::Ticket,
        Shelf::Job,
        Shelf::Response,
        Shelf::Mark,
        Shelf::Revocation,
    ];

    pub fn of(number: u8) -> Option<Shelf> {
        Shelf::ALL.into_iter().find(|shelf| *shelf as u8 == number)
    }
}

/// One thing of a dialect's own that lasts: the store knows how to find it, the dialect what it means. So a new kind of
/// thing is no new table, no new method in four implementations, and its changes take part in the transaction of the
/// event that causes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub shelf: Shelf,
    /// Unique on its shelf.
    pub id: String,
    /// What it belongs to; empty when to nothing.
    pub parent: String,
    /// A word of the dialect's, to find by, such as `pending`.
    pub state: String,
    /// When something is to become of it: the writer then calls `dialect::apply` with `Change::Due`.
    pub due: Option<Wall>,
    pub created_at: Wall,
    pub updated_at: Wall,
    /// A JSON object as text.
    pub body: Bytes,
}

/// A prompt or fragment. `id` is `directory/name`, or `name` alone when the directory is empty.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Document {
    pub id: String,
    pub directory: String,
    pub name: String,
    /// Any Unicode text, U+0000 included.
    pub content: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub created_at: Wall,
    pub updated_at: Wall,
    /// Rises by one with every change; 1 when created.
    pub rev: u64,
}

impl Document {
    /// The second generation's id: the last two directory names and the name, joined by `_`.
    pub fn unique_id(directory: &str, name: &str) -> String {
        let mut last: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        let from = last.len().saturating_sub(2);
        last.drain(..from);
        last.push(name);
        last.join("_")
    }

    pub fn id_of(directory: &str, name: &str) -> String {
        if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
    }
}
