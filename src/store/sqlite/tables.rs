//! The rows in SQL: what a transaction writes and a snapshot reads, and where a failure of SQLite becomes ours.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, ffi, params};

use super::checkpoint::FRAME_BYTES;
use super::columns::{OriginKey, SEQ_MAX, place, read_tags, str_of, text, write_tags};
use super::error::{failure, rows_error};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::model::{
    Document, Draft, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, TaskKind, Tasks,
    Transaction,
};

/// The rows, as both the writer and the readers see them; on a reader's connection `heads` stays empty.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) conn: Connection,
    key: OriginKey,
    pub(super) at: Wall,
    /// Rooms that the open transaction appended to. Their rows are read once and written once, at the commit: nobody
    /// else writes meanwhile, so this gives the seqs that `UPDATE … RETURNING` would, for one statement an event less.
    pub(super) heads: HashMap<RoomName, Head, foldhash::fast::RandomState>,
    /// Why nothing more may be written. Set once, never cleared.
    pub(super) broken: Option<String>,
    /// A statement found the disk full; `rollback` acts on it.
    pub(super) full: bool,
    /// Bytes that commits have added to the log, by a rough count.
    pub(super) written: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) id: i64,
    row: RoomRow,
    operations: u64,
    pub(super) changed: bool,
}

impl Rows for Tables {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        let head = self.find_head(room);
        Ok(self.check(head)?.map(|head| head.row))
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError> {
        let events = self.read_events(room, after, count, bytes);
        self.check(events)
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        let document = self.read_document(id);
        self.check(document)
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        let ids = self.read_ids("SELECT id FROM document WHERE name = ?1 ORDER BY id", name);
        self.check(ids)
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        let ids = self.read_ids("SELECT id FROM document WHERE unique_id = ?1 ORDER BY id", unique_id);
        self.check(ids)
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        let read = self.read_each_document(each);
        self.check(read)
    }

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError> {
        let mark = self.read_file_mark(document);
        self.check(mark)
    }

    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError> {
        let read = self.read_each_file_mark(each);
        self.check(read)
    }

    fn operation(&mut self, room: &str, actor: &str, op: &OpId) -> Result<Option<(Seq, String)>, RowsError> {
        let operation = self.read_operation(room, actor, op);
        self.check(operation)
    }

    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError> {
        let state = self.read_state(room);
        self.check(state)
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        let rooms = self.read_rooms(prefix, after, count);
        self.check(rooms)
    }

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError> {
        let record = self.read_record(shelf, id);
        self.check(record)
    }

    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError> {
        let records = self.read_records(shelf, parent, state, skip, count);
        self.check(records)
    }

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError> {
        let count = self.read_count(shelf, parent, state);
        self.check(count)
    }

    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError> {
        let due = self.read_due(by, count);
        self.check(due)
    }

    fn next_due(&mut self) -> Result<Option<Wall>, RowsError> {
        let due = self.read_next_due();
        self.check(due)
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError> {
        let task = self.read_task(id);
        self.check(task)
    }

    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError> {
        let tasks = self.read_ready_tasks(kinds, now, count);
        self.check(tasks)
    }
}

impl Transaction for Tables {
    fn at(&self) -> Wall {
        self.at
    }

    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError> {
        let seq = self.insert_event(&draft, actor, op, origin);
        self.check(seq)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), RowsError> {
        let put = self.write_document(document);
        self.check(put)
    }

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError> {
        let deleted = self.execute("DELETE FROM document WHERE id = ?1", params![id]);
        self.check(deleted)
    }

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError> {
        let put = self.execute(
            "REPLACE INTO file_mark (document, rev, digest) VALUES (?1, ?2, ?3)",
            params![mark.document, mark.rev as i64, mark.digest],
        );
        self.check(put)
    }

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError> {
        let deleted = self.execute("DELETE FROM file_mark WHERE document = ?1", params![document]);
        self.check(deleted)
    }

    fn put_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> Result<(), RowsError> {
        let put = self.insert_operation(room, actor, op, seq, answer);
        self.check(put)
    }

    /// Where there are no random numbers, the transaction that asked for one does not come about: `commit` refuses.
    fn random(&mut self) -> u128 {
        let mut bytes = [0; 16];
        if let Err(error) = getrandom::fill(&mut bytes) {
            self.broken.get_or_insert_with(|| format!("no random numbers: {error}"));
        }
        u128::from_le_bytes(bytes)
    }

    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError> {
        let put = self.write_state(room, state);
        self.check(put)
    }

    fn put_record(&mut self, record: &Record) -> Result<(), RowsError> {
        let put = self.write_record(record);
        self.check(put)
    }

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError> {
        let deleted = self.execute("DELETE FROM record WHERE shelf = ?1 AND id = ?2", params![shelf as u8, id]);
        self.check(deleted)
    }

    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError> {
        let id = self.insert_task(kind, room, &body);
        self.check(id)
    }

    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError> {
        let task = self.hand_out(id, holder, until);
        self.check(task)
    }

    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError> {
        let postponed = self.postpone(id, ready_at);
        self.check(postponed)
    }

    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError> {
        let finished = self.finish(id);
        self.check(finished)
    }

    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError> {
        let kinds = self.release(holder);
        self.check(kinds)
    }
}

impl Tables {
    pub(super) fn new(conn: Connection, key: OriginKey) -> Tables {
        Tables { conn, key, at: Wall(0), heads: HashMap::default(), broken: None, full: false, written: 0 }
    }

    pub(super) fn usable(&self) -> Result<(), RowsError> {
        match &self.broken {
            Some(why) => Err(RowsError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    /// The one place where a failure of SQLite becomes ours, and where the handle learns of it.
    pub(super) fn check<T>(&mut self, outcome: rusqlite::Result<T>) -> Result<T, RowsError> {
        outcome.map_err(|error| {
            let error = rows_error(&error);
            match &error {
                RowsError::Broken(why) => {
                    self.broken.get_or_insert_with(|| why.clone());
                }
                RowsError::Full => self.full = true,
                RowsError::Busy => {}
            }
            error
        })
    }

    pub(super) fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
        self.written += FRAME_BYTES;
        self.conn.prepare_cached(sql)?.execute(params).map(|_| ())
    }

    fn find_head(&self, room: &str) -> rusqlite::Result<Option<Head>> {
        match self.heads.get(room) {
            Some(head) => Ok(Some(*head)),
            None => read_head(&self.conn, room),
        }
    }

    /// One run of the index on names. What the open transaction appended is in `heads` and not yet in the rows.
    fn read_rooms(&self, prefix: &str, after: &str, count: usize) -> rusqlite::Result<Vec<(RoomName, RoomRow)>> {
        let mut rooms = Vec::new();
        let mut statement = self
            .conn
            .prepare_cached("SELECT name, epoch, head_seq, floor_seq FROM room WHERE name >= ?1 ORDER BY name")?;
        let mut rows = statement.query([prefix.max(after)])?;
        while rooms.len() < count
            && let Some(row) = rows.next()?
        {
            let name = str_of(row, 0)?;
            if name == after {
                continue;
            }
            if !name.starts_with(prefix) {
                break;
            }
            let row = match self.heads.get(name) {
                Some(head) => head.row,
                None => read_room_row(row, 1)?,
            };
            rooms.push((RoomName::new(name), row));
        }
        Ok(rooms)
    }

    fn read_events(&self, room: &str, after: Seq, count: usize, bytes: usize) -> rusqlite::Result<Vec<Event>> {
        let mut events = Vec::new();
        let Some(head) = self.find_head(room)? else {
            return Ok(events);
        };
        let mut statement = self.conn.prepare_cached(
            "SELECT place, kind, actor, op, origin, at, body FROM event
             WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3 + 0",
        )?;
        let (first, last) = (place(head.id, after.0.min(SEQ_MAX))?, place(head.id, SEQ_MAX)?);
        let mut rows = statement.query(params![first, last, i64::try_from(count).unwrap_or(i64::MAX)])?;
        let mut total = 0_usize;
        while let Some(row) = rows.next()? {
            let body = row.get_ref(6)?.as_bytes()?;
            total = total.saturating_add(body.len());
            if total > bytes && !events.is_empty() {
                break;
            }
            let op = row.get_ref(3)?.as_bytes_or_null()?.map(std::str::from_utf8).transpose()?;
            events.push(Event {
                seq: Seq(row.get::<_, i64>(0)? as u64 & SEQ_MAX),
                kind: Cow::Owned(text(row, 1)?),
                actor: Arc::from(str_of(row, 2)?),
                op: op.map(|op| OpId(Arc::from(op))),
                origin: self.key.unseal(row.get(4)?),
                body: Bytes::copy_from_slice(body),
                at: Wall(row.get(5)?),
            });
        }
        Ok(events)
    }

    fn read_document(&self, id: &str) -> rusqlite::Result<Option<Document>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, directory, name, created_at, updated_at, rev, description, tags, content
             FROM document WHERE id = ?1",
        )?;
        statement.query_row([id], read_document_row).optional()
    }

    fn read_each_document(&self, each: &mut dyn FnMut(Document) -> bool) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, directory, name, created_at, updated_at, rev, description, tags, content
             FROM document ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !each(read_document_row(row)?) {
                break;
            }
        }
        Ok(())
    }

    fn read_ids(&self, sql: &str, key: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let ids = statement.query_map([key], |row| text(row, 0))?;
        ids.collect()
    }

    fn read_file_mark(&self, document: &str) -> rusqlite::Result<Option<FileMark>> {
        let mut statement =
            self.conn.prepare_cached("SELECT document, rev, digest FROM file_mark WHERE document = ?1")?;
        let mark = statement.query_row([document], |row| {
            Ok(FileMark { document: text(row, 0)?, rev: row.get::<_, i64>(1)? as u64, digest: row.get(2)? })
        });
        mark.optional()
    }

    fn read_each_file_mark(&self, each: &mut dyn FnMut(FileMark) -> bool) -> rusqlite::Result<()> {
        let mut statement =
            self.conn.prepare_cached("SELECT document, rev, digest FROM file_mark ORDER BY document")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mark = FileMark { document: text(row, 0)?, rev: row.get::<_, i64>(1)? as u64, digest: row.get(2)? };
            if !each(mark) {
                break;
            }
        }
        Ok(())
    }

    fn read_operation(&self, room: &str, actor: &str, op: &OpId) -> rusqlite::Result<Option<(Seq, String)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT o.seq, o.answer FROM operation o JOIN room r ON r.id = o.room
             WHERE r.name = ?1 AND o.actor = ?2 AND o.op = ?3",
        )?;
        let found = statement.query_row(params![room, actor, op.0.as_ref()], |row| {
            Ok((Seq(row.get::<_, i64>(0)? as u64), text(row, 1)?))
        });
        found.optional()
    }

    fn insert_event(&mut self, draft: &Draft, actor: &str, op: Option<&OpId>, origin: u64) -> rusqlite::Result<Seq> {
        let Tables { conn, heads, key, at, written, .. } = self;
        let head = enter_head(conn, heads, &draft.room)?;
        let seq = head.row.head.next();
        conn.prepare_cached(
            "INSERT INTO event (place, kind, actor, op, origin, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            place(head.id, seq.0)?,
            draft.kind.as_ref(),
            actor,
            op.map(|op| op.0.as_ref()),
            key.seal(origin),
            at.0,
            draft.body.as_ref()
        ])?;
        head.row.head = seq;
        head.changed = true;
        *written += FRAME_BYTES + draft.body.len() as u64;
        Ok(seq)
    }

    /// The first answer stands: a second one for the same operation would contradict what somebody was told.
    fn insert_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> rusqlite::Result<()> {
        let Tables { conn, heads, at, written, .. } = self;
        let head = enter_head(conn, heads, room)?;
        let inserted = conn
            .prepare_cached(
                "INSERT INTO operation (room, actor, op, number, seq, at, answer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (room, actor, op) DO NOTHING",
            )?
            .execute(params![
                head.id,
                actor,
                op.0.as_ref(),
                head.operations as i64,
                seq.0 as i64,
                at.0,
                answer.as_bytes()
            ])?;
        head.operations += inserted as u64;
        head.changed |= inserted > 0;
        *written += 2 * FRAME_BYTES + answer.len() as u64;
        Ok(())
    }

    /// An edit leaves the three indexed names alone, and SQLite then leaves the three indexes alone.
    fn write_document(&mut self, document: &Document) -> rusqlite::Result<()> {
        let tags = write_tags(&document.tags);
        let description = document.description.as_ref().map(String::as_bytes);
        self.written += FRAME_BYTES + document.content.len() as u64;
        let edited = self
            .conn
            .prepare_cached(
                "UPDATE document SET created_at = ?4, updated_at = ?5, rev = ?6, description = ?7, tags = ?8, content = ?9
                 WHERE id = ?1 AND directory = ?2 AND name = ?3",
            )?
            .execute(params![
                document.id,
                document.directory,
                document.name,
                document.created_at.0,
                document.updated_at.0,
                document.rev as i64,
                description,
                tags,
                document.content.as_bytes()
            ])?;
        if edited == 1 {
            return Ok(());
        }
        self.conn
            .prepare_cached(
                "REPLACE INTO document
                 (id, directory, name, unique_id, created_at, updated_at, rev, description, tags, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                document.id,
                document.directory,
                document.name,
                Document::unique_id(&document.directory, &document.name),
                document.created_at.0,
                document.updated_at.0,
                document.rev as i64,
                description,
                tags,
                document.content.as_bytes()
            ])?;
        Ok(())
    }

    pub(super) fn write_heads(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached("UPDATE room SET head_seq = ?2, operations = ?3 WHERE id = ?1")?;
        for head in self.heads.values().filter(|head| head.changed) {
            statement.execute(params![head.id, head.row.head.0 as i64, head.operations as i64])?;
            self.written += FRAME_BYTES;
        }
        Ok(())
    }
}

fn read_head(conn: &Connection, room: &str) -> rusqlite::Result<Option<Head>> {
    let mut statement =
        conn.prepare_cached("SELECT id, epoch, head_seq, floor_seq, operations FROM room WHERE name = ?1")?;
    let head = statement.query_row([room], |row| {
        Ok(Head {
            id: row.get(0)?,
            row: read_room_row(row, 1)?,
            operations: row.get::<_, i64>(4)? as u64,
            changed: false,
        })
    });
    head.optional()
}

/// An epoch, a head and a floor, from this column on.
fn read_room_row(row: &Row<'_>, first: usize) -> rusqlite::Result<RoomRow> {
    let number = |column| row.get::<_, i64>(first + column).map(|number| number as u64);
    Ok(RoomRow { epoch: Epoch(number(0)?), head: Seq(number(1)?), floor: Seq(number(2)?) })
}

/// The room's head in this transaction; a room that nobody wrote to yet is made.
pub(super) fn enter_head<'h>(
    conn: &Connection,
    heads: &'h mut HashMap<RoomName, Head, foldhash::fast::RandomState>,
    room: &RoomName,
) -> rusqlite::Result<&'h mut Head> {
    match heads.entry(room.clone()) {
        std::collections::hash_map::Entry::Occupied(entered) => Ok(entered.into_mut()),
        std::collections::hash_map::Entry::Vacant(vacant) => Ok(vacant.insert(match read_head(conn, room.as_str())? {
            Some(head) => head,
            None => make_room(conn, room)?,
        })),
    }
}

fn make_room(conn: &Connection, room: &RoomName) -> rusqlite::Result<Head> {
    let random =
        getrandom::u64().map_err(|error| failure(ffi::SQLITE_IOERR, &format!("no random numbers: {error}")))?;
    let epoch = Epoch(random.max(1));
    conn.prepare_cached("INSERT INTO room (name, epoch, head_seq, floor_seq, operations) VALUES (?1, ?2, 0, 0, 0)")?
        .execute(params![room.as_str(), epoch.0 as i64])?;
    let row = RoomRow { epoch, head: Seq(0), floor: Seq(0) };
    Ok(Head { id: conn.last_insert_rowid(), row, operations: 0, changed: false })
}

fn read_document_row(row: &Row<'_>) -> rusqlite::Result<Document> {
    let description = row.get_ref(6)?.as_bytes_or_null()?.map(std::str::from_utf8).transpose()?;
    Ok(Document {
        id: text(row, 0)?,
        directory: text(row, 1)?,
        name: text(row, 2)?,
        created_at: Wall(row.get(3)?),
        updated_at: Wall(row.get(4)?),
        rev: row.get::<_, i64>(5)? as u64,
        description: description.map(str::to_owned),
        tags: read_tags(str_of(row, 7)?).ok_or_else(|| failure(ffi::SQLITE_CORRUPT, "tags of a document"))?,
        content: text(row, 8)?,
    })
}
