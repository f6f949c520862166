//! The nouns that dialects and the store share: events, documents, and the two views of the store's rows.
//!
//! A dialect says *what* a write does, as code over [`Transaction`]; the store says *when* it becomes true (commit) and
//! runs that code on its own thread. A read is code over [`Rows`], one consistent snapshot. So a new dialect needs no new
//! case in the store, and the store's backends know rows and nothing of vocabularies.
//!
//! Never here: JSON, a socket, a database.

mod rows;

pub use rows::{FileMark, RoomRow, Rows, RowsError, Transaction};

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
