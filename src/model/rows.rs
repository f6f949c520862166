//! The seam to the store's tables: a consistent read view, and a transaction that may also write.

use std::sync::Arc;

use super::{Document, Draft, Event};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};

/// Why a row could not be read or written. By blame, because the answers differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// Somebody else holds the database; nothing was done, try again.
    #[error("the store is busy")]
    Busy,
    /// No space left; nothing of the transaction remains.
    #[error("the store is full")]
    Full,
    /// An I/O error or corruption: nothing more may be written through this handle.
    #[error("the store failed: {0}")]
    Broken(String),
}

/// What is known of a room without reading its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomRow {
    pub epoch: Epoch,
    /// The last event's seq; 0 when none was ever written.
    pub head: Seq,
    /// Events up to and including this one were trimmed.
    pub floor: Seq,
}

/// What was last seen of a document's Markdown file, so that a start can tell an outside edit from an unfinished
/// write-back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMark {
    pub document: String,
    /// SHA-1 of the file's bytes when it was last read or written by us.
    pub digest: [u8; 20],
    /// The document's revision that those bytes hold.
    pub rev: u64,
}

/// One consistent snapshot of committed rows.
pub trait Rows {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError>;

    /// Events with `seq > after`, ascending, at most `count`, and at most `bytes` of body except that one is always given.
    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError>;

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError>;

    /// Ids of the documents with this name, ascending.
    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError>;

    /// Ids of the documents with this `Document::unique_id`, ascending.
    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError>;

    /// Every document by ascending id; stops early when `each` returns false.
    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError>;

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError>;

    /// Every mark; stops early when `each` returns false.
    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError>;

    /// The answer recorded for an operation: (seq of its first event in `room`, the answer text).
    fn operation(&mut self, room: &str, actor: &str, op: &OpId) -> Result<Option<(Seq, String)>, RowsError>;
}

/// The one writer's open transaction. What it appends is shown to nobody before the commit.
pub trait Transaction: Rows {
    /// The wall time of this transaction: every event and row written in it carries it.
    fn at(&self) -> Wall;

    /// Appends to the draft's room at the next seq, making the room when it is new.
    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError>;

    /// Inserts or replaces the row with this id.
    fn put_document(&mut self, document: &Document) -> Result<(), RowsError>;

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError>;

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError>;

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError>;

    fn put_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> Result<(), RowsError>;
}
