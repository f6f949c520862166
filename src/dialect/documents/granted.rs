//! One snapshot as somebody with limited rights sees it: what he may not read is not there.

use super::paths;
use crate::auth::rights::{Rights, Verb};
use crate::clock::Wall;
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Document, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, Tasks};

/// Inclusions name any document, so a question about one room would otherwise answer with another's text. And "not yours"
/// must look like "not there" (PROMISES.md S5).
pub struct Granted<'a> {
    pub rows: &'a mut dyn Rows,
    pub rights: &'a Rights,
}

impl Granted<'_> {
    fn may_read(&self, id: &str) -> bool {
        self.rights.allows(paths::room_of(id).as_str(), Verb::Read)
    }
}

impl Rows for Granted<'_> {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        if self.rights.allows(room, Verb::Read) { self.rows.room(room) } else { Ok(None) }
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError> {
        if self.rights.allows(room, Verb::Read) { self.rows.events(room, after, count, bytes) } else { Ok(Vec::new()) }
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        if self.may_read(id) { self.rows.document(id) } else { Ok(None) }
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        let mut ids = self.rows.documents_named(name)?;
        ids.retain(|id| self.may_read(id));
        Ok(ids)
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        let mut ids = self.rows.documents_with_unique_id(unique_id)?;
        ids.retain(|id| self.may_read(id));
        Ok(ids)
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        let rights = self.rights;
        self.rows.each_document(&mut |document| {
            !rights.allows(paths::room_of(&document.id).as_str(), Verb::Read) || each(document)
        })
    }

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError> {
        self.rows.file_mark(document)
    }

    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError> {
        self.rows.each_file_mark(each)
    }

    fn operation(&mut self, room: &str, actor: &str, op: &OpId) -> Result<Option<(Seq, String)>, RowsError> {
        self.rows.operation(room, actor, op)
    }

    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError> {
        if self.rights.allows(room, Verb::Read) { self.rows.state(room) } else { Ok(None) }
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        let mut rooms = self.rows.rooms(prefix, after, count)?;
        rooms.retain(|(room, _)| self.rights.allows(room.as_str(), Verb::Read));
        Ok(rooms)
    }

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError> {
        self.rows.record(shelf, id)
    }

    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError> {
        self.rows.records(shelf, parent, state, skip, count)
    }

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError> {
        self.rows.count_records(shelf, parent, state)
    }

    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError> {
        self.rows.due(by, count)
    }

    fn next_due(&mut self) -> Result<Option<Wall>, RowsError> {
        self.rows.next_due()
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError> {
        self.rows.task(id)
    }

    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError> {
        self.rows.ready_tasks(kinds, now, count)
    }
}
