//! The transaction as a dialect's code is given it: every call goes through, and what others must hear of after the commit is
//! remembered.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Wall;
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{
    Document, Draft, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, TaskKind, Tasks,
    Transaction,
};

/// What a transaction has done that somebody must hear of once it is committed.
#[derive(Debug, Default)]
pub struct Seen {
    /// In order.
    pub appended: Vec<(RoomName, Event)>,
    /// Rooms whose state was put.
    pub states: Vec<RoomName>,
    /// Tasks were put or set free: somebody may be given one.
    pub tasks: bool,
    /// Tasks that nobody holds any more.
    pub freed: BTreeSet<TaskId>,
    /// Records were put or deleted: something else may be due next.
    pub records: bool,
}

/// Passes everything to the open transaction and remembers.
pub struct Recorder<'a> {
    pub rows: &'a mut dyn Transaction,
    pub seen: &'a mut Seen,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.seen.fmt(f)
    }
}

impl Rows for Recorder<'_> {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        self.rows.room(room)
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError> {
        self.rows.events(room, after, count, bytes)
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        self.rows.document(id)
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        self.rows.documents_named(name)
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        self.rows.documents_with_unique_id(unique_id)
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        self.rows.each_document(each)
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
        self.rows.state(room)
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        self.rows.rooms(prefix, after, count)
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

impl Transaction for Recorder<'_> {
    fn at(&self) -> Wall {
        self.rows.at()
    }

    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError> {
        let seq = self.rows.append(draft.clone(), actor, op, origin)?;
        let event = Event {
            seq,
            kind: draft.kind,
            actor: actor.clone(),
            op: op.cloned(),
            origin,
            body: draft.body,
            at: self.rows.at(),
        };
        self.seen.appended.push((draft.room, event));
        Ok(seq)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), RowsError> {
        self.rows.put_document(document)
    }

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError> {
        self.rows.delete_document(id)
    }

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError> {
        self.rows.put_file_mark(mark)
    }

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError> {
        self.rows.delete_file_mark(document)
    }

    fn put_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> Result<(), RowsError> {
        self.rows.put_operation(room, actor, op, seq, answer)
    }

    fn random(&mut self) -> u128 {
        self.rows.random()
    }

    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError> {
        self.seen.states.push(room.clone());
        self.rows.put_state(room, state)
    }

    fn put_record(&mut self, record: &Record) -> Result<(), RowsError> {
        self.seen.records = true;
        self.rows.put_record(record)
    }

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError> {
        self.seen.records = true;
        self.rows.delete_record(shelf, id)
    }

    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError> {
        self.seen.tasks = true;
        self.rows.put_task(kind, room, body)
    }

    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError> {
        self.rows.lease_task(id, holder, until)
    }

    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError> {
        self.seen.tasks = true;
        self.seen.freed.insert(id);
        self.rows.postpone_task(id, ready_at)
    }

    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError> {
        self.seen.tasks = true;
        self.seen.freed.insert(id);
        self.rows.finish_task(id)
    }

    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError> {
        self.seen.tasks = true;
        self.rows.release_tasks(holder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;

    #[test]
    fn what_was_done_is_remembered_and_goes_through() {
        let mut fake = Fake::default();
        let mut seen = Seen::default();
        let mut rows = Recorder { rows: &mut fake, seen: &mut seen };
        let room = RoomName::new("session:a");
        let id = rows.put_task(TaskKind::Execute, &room, Bytes::new()).unwrap();
        assert!(rows.seen.tasks && rows.seen.freed.is_empty(), "a new task is nobody's yet");
        for free in [Recorder::finish_task, |rows: &mut Recorder<'_>, id| rows.postpone_task(id, Wall(9))] {
            *rows.seen = Seen::default();
            free(&mut rows, id).unwrap();
            assert!(rows.seen.tasks && rows.seen.freed.contains(&id));
        }
        *rows.seen = Seen::default();
        rows.lease_task(id, 0, Wall(9)).unwrap();
        rows.delete_record(Shelf::Approval, "a").unwrap();
        assert!(rows.seen.records && !rows.seen.tasks);
        let draft = Draft { room: room.clone(), kind: "thinking".into(), body: Bytes::from_static(b"{}") };
        rows.append(draft, &"ada".into(), None, 7).unwrap();
        assert_eq!(seen.appended[0].1, fake.log["session:a"][0]);
    }
}
