//! Rows in memory, for this folder's tests: what the store promises, without a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::model::{Document, Draft, Event, FileMark, RoomRow, Rows, RowsError, Transaction};

#[derive(Debug, Default)]
pub struct Fake {
    pub at: Wall,
    pub documents: BTreeMap<String, Document>,
    pub log: BTreeMap<String, Vec<Event>>,
    pub marks: BTreeMap<String, FileMark>,
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
}
