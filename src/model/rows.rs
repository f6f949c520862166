//! The seam to the store's tables: a consistent read view, and a transaction that may also write.

use std::sync::Arc;

use bytes::Bytes;

use super::{Document, Draft, Event, Record, Shelf, State, Task, TaskId, TaskKind, Tasks};
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

    /// The newest state that was kept for a room.
    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError>;

    /// Rooms whose name starts with `prefix` and is greater than `after`, ascending by name, at most `count`.
    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError>;

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError>;

    /// Records of a shelf, in the order in which they were first put; `None` fits any parent or state.
    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError>;

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError>;

    /// Records of any shelf whose `due` is at or before `by`, the most overdue first, at most `count`.
    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError>;

    /// The earliest `due` of all records.
    fn next_due(&mut self) -> Result<Option<Wall>, RowsError>;

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError>;

    /// Tasks of these kinds that are not finished and whose `ready_at` is at or before `now`: ascending by id, at most
    /// `count`.
    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError>;
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

    /// A number that nobody can guess and that never comes again: for ids that are made while writing.
    fn random(&mut self) -> u128;

    /// Replaces the room's state; the room exists (something was appended to it).
    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError>;

    /// Inserts, or replaces the record with this shelf and id in its old place in the order.
    fn put_record(&mut self, record: &Record) -> Result<(), RowsError>;

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError>;

    /// A task for a backend, ready at once. `body` is a JSON object as text.
    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError>;

    /// Hands a task out: its attempt rises by one, its fence becomes a number above every fence given before, in any
    /// task; it is ready again at `until`. `holder` names the socket that has it, 0 none. Gives the task as it now is.
    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError>;

    /// Changes when a task is ready (again), and takes it from whoever holds it, unless `ready_at` says otherwise.
    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError>;

    /// It is done: never ready again, kept for a while so that a repeated `done` can be told so.
    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError>;

    /// Takes every unfinished task from this holder and makes it ready now. With `None`, from every socket: after a
    /// start there are none. Returns the kinds set free.
    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError>;
}
