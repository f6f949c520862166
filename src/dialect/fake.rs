//! Rows in memory, for the dialects' tests: what the store promises, without a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::model::{
    Document, Draft, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, TaskKind, Tasks,
    Transaction,
};
use bytes::Bytes;

#[derive(Debug, Default)]
pub struct Fake {
    pub at: Wall,
    pub documents: BTreeMap<String, Document>,
    pub log: BTreeMap<String, Vec<Event>>,
    pub marks: BTreeMap<String, FileMark>,
    pub states: BTreeMap<String, State>,
    /// In the order in which they were first put.
    pub records: Vec<Record>,
    pub tasks: Vec<Task>,
    pub fence: u64,
    pub dice: u128,
}

impl Fake {
    /// Documents with these ids, each with a content that says which it is.
    pub fn with(ids: &[&str]) -> Fake {
        let mut fake = Fake { at: Wall(1_747_101_540_123_456), ..Fake::default() };
        for id in ids {
            fake.add(id, &format!("text of {id}"));
        }
        fake
    }

    pub fn add(&mut self, id: &str, content: &str) {
        let (directory, name) = id.rsplit_once('/').unwrap_or(("", id));
        let document = Document {
            id: id.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
            content: content.to_owned(),
            created_at: Wall(1_700_000_000_000_000),
            updated_at: Wall(1_700_000_000_500_000),
            rev: 1,
            ..Document::default()
        };
        self.documents.insert(id.to_owned(), document);
    }

    /// Kinds and bodies of the tasks, in the order in which they were put.
    pub fn given(&self) -> Vec<String> {
        let say = |task: &Task| format!("{} {}", task.kind.as_str(), String::from_utf8_lossy(&task.body));
        self.tasks.iter().map(say).collect()
    }

    /// Kinds and bodies of a room's events.
    pub fn told(&self, room: &str) -> Vec<String> {
        let events = self.log.get(room).map(Vec::as_slice).unwrap_or_default();
        events.iter().map(|event| format!("{} {}", event.kind, String::from_utf8_lossy(&event.body))).collect()
    }
}

impl Rows for Fake {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        let row = |events: &Vec<Event>| RoomRow { epoch: Epoch(7), head: Seq(events.len() as u64), floor: Seq(0) };
        Ok(self.log.get(room).map(row))
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, _: usize) -> Result<Vec<Event>, RowsError> {
        let events = self.log.get(room).map(Vec::as_slice).unwrap_or_default();
        Ok(events.iter().filter(|event| event.seq > after).take(count).cloned().collect())
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        Ok(self.documents.get(id).cloned())
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        Ok(self.documents.values().filter(|one| one.name == name).map(|one| one.id.clone()).collect())
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        let same = |one: &&Document| Document::unique_id(&one.directory, &one.name) == unique_id;
        Ok(self.documents.values().filter(same).map(|one| one.id.clone()).collect())
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        for document in self.documents.values() {
            if !each(document.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError> {
        Ok(self.marks.get(document).cloned())
    }

    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError> {
        for mark in self.marks.values() {
            if !each(mark.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn operation(&mut self, _: &str, _: &str, _: &OpId) -> Result<Option<(Seq, String)>, RowsError> {
        Ok(None)
    }

    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError> {
        Ok(self.states.get(room).cloned())
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        let row = |events: &Vec<Event>| RoomRow { epoch: Epoch(7), head: Seq(events.len() as u64), floor: Seq(0) };
        let wanted = self.log.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
        Ok(wanted.take(count).map(|(name, events)| (RoomName::new(name), row(events))).collect())
    }

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError> {
        Ok(self.records.iter().find(|record| record.shelf == shelf && record.id == id).cloned())
    }

    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError> {
        let fits = |record: &&Record| {
            record.shelf == shelf
                && parent.is_none_or(|parent| record.parent == parent)
                && state.is_none_or(|state| record.state == state)
        };
        Ok(self.records.iter().filter(fits).skip(skip).take(count).cloned().collect())
    }

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError> {
        Ok(self.records(shelf, parent, state, 0, usize::MAX)?.len())
    }

    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError> {
        let mut due: Vec<Record> =
            self.records.iter().filter(|record| record.due.is_some_and(|due| due <= by)).cloned().collect();
        due.sort_by_key(|record| record.due);
        due.truncate(count);
        Ok(due)
    }

    fn next_due(&mut self) -> Result<Option<Wall>, RowsError> {
        Ok(self.records.iter().filter_map(|record| record.due).min())
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError> {
        Ok(self.tasks.iter().find(|task| task.id == id).cloned())
    }

    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError> {
        let ready = |task: &&Task| !task.done && kinds.has(task.kind) && task.ready_at <= now;
        Ok(self.tasks.iter().filter(ready).take(count).cloned().collect())
    }
}

impl Transaction for Fake {
    fn at(&self) -> Wall {
        self.at
    }

    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError> {
        let events = self.log.entry(draft.room.as_str().to_owned()).or_default();
        let seq = Seq(events.len() as u64 + 1);
        let Draft { kind, body, .. } = draft;
        events.push(Event { seq, kind, actor: actor.clone(), op: op.cloned(), origin, body, at: self.at });
        Ok(seq)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), RowsError> {
        self.documents.insert(document.id.clone(), document.clone());
        Ok(())
    }

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError> {
        self.documents.remove(id);
        Ok(())
    }

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError> {
        self.marks.insert(mark.document.clone(), mark.clone());
        Ok(())
    }

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError> {
        self.marks.remove(document);
        Ok(())
    }

    fn put_operation(&mut self, _: &RoomName, _: &str, _: &OpId, _: Seq, _: &str) -> Result<(), RowsError> {
        Ok(())
    }

    fn random(&mut self) -> u128 {
        self.dice += 1;
        self.dice
    }

    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError> {
        self.states.insert(room.as_str().to_owned(), state.clone());
        Ok(())
    }

    fn put_record(&mut self, record: &Record) -> Result<(), RowsError> {
        match self.records.iter_mut().find(|old| old.shelf == record.shelf && old.id == record.id) {
            Some(old) => *old = record.clone(),
            None => self.records.push(record.clone()),
        }
        Ok(())
    }

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError> {
        self.records.retain(|record| record.shelf != shelf || record.id != id);
        Ok(())
    }

    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError> {
        let id = TaskId(self.tasks.len() as u64 + 1);
        self.tasks.push(Task {
            id,
            kind,
            room: room.clone(),
            body,
            created_at: self.at,
            attempt: 0,
            fence: 0,
            holder: 0,
            ready_at: self.at,
            done: false,
        });
        Ok(id)
    }

    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError> {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id && !task.done) else { return Ok(None) };
        self.fence += 1;
        task.fence = self.fence;
        task.attempt += 1;
        task.holder = holder;
        task.ready_at = until;
        Ok(Some(task.clone()))
    }

    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError> {
        for task in self.tasks.iter_mut().filter(|task| task.id == id) {
            task.ready_at = ready_at;
            task.holder = 0;
        }
        Ok(())
    }

    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError> {
        for task in self.tasks.iter_mut().filter(|task| task.id == id) {
            task.done = true;
            task.holder = 0;
        }
        Ok(())
    }

    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError> {
        let at = self.at;
        let held =
            |task: &&mut Task| !task.done && task.holder != 0 && holder.is_none_or(|holder| task.holder == holder);
        let mut kinds = Tasks::default();
        for task in self.tasks.iter_mut().filter(held) {
            task.holder = 0;
            task.ready_at = at;
            kinds = kinds.with(task.kind);
        }
        Ok(kinds)
    }
}
