//! Tasks in SQL: put, handed out, given back, finished.

use rusqlite::{OptionalExtension as _, Row, ffi, params};

use super::checkpoint::FRAME_BYTES;
use super::columns::{bytes, number, str_of};
use super::error::failure;
use super::tables::Tables;
use crate::clock::Wall;
use crate::ids::RoomName;
use crate::model::{Task, TaskId, TaskKind, Tasks};

impl Tables {
    pub(super) fn read_task(&self, id: TaskId) -> rusqlite::Result<Option<Task>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, kind, created_at, attempt, fence, holder, ready_at, done_at, room, body FROM task WHERE id = ?1",
        )?;
        statement.query_row([id.0 as i64], read_row).optional()
    }

    /// A run of ids for each kind, all from the index alone, then the rows of the first of them: one statement with
    /// `kind IN` would sort the whole backlog.
    pub(super) fn read_ready_tasks(&self, kinds: Tasks, now: Wall, count: usize) -> rusqlite::Result<Vec<Task>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id FROM task WHERE done_at IS NULL AND kind = ?1 AND ready_at <= ?2 ORDER BY id LIMIT ?3 + 0",
        )?;
        let mut ids = Vec::new();
        for kind in kinds.iter() {
            for id in statement.query_map(params![kind as u8, now.0, number(count)], |row| row.get::<_, i64>(0))? {
                ids.push(TaskId(id? as u64));
            }
        }
        ids.sort_unstable();
        ids.truncate(count);
        ids.into_iter().filter_map(|id| self.read_task(id).transpose()).collect()
    }

    pub(super) fn insert_task(&mut self, kind: TaskKind, room: &RoomName, body: &[u8]) -> rusqlite::Result<TaskId> {
        let at = self.at.0;
        self.written += FRAME_BYTES + body.len() as u64;
        self.execute(
            "INSERT INTO task (kind, created_at, attempt, fence, holder, ready_at, room, body)
             VALUES (?1, ?2, 0, 0, 0, ?2, ?3, ?4)",
            params![kind as u8, at, room.as_str(), body],
        )?;
        Ok(TaskId(self.conn.last_insert_rowid() as u64))
    }

    /// The fence rises only when a task was there to take it: a number nobody was given is no harm, but both backends
    /// give the same.
    pub(super) fn hand_out(&mut self, id: TaskId, holder: u64, until: Wall) -> rusqlite::Result<Option<Task>> {
        let leased = self
            .conn
            .prepare_cached(
                "UPDATE task SET attempt = attempt + 1, fence = (SELECT value + 1 FROM meta WHERE key = 'fence'),
                 holder = ?2, ready_at = ?3 WHERE id = ?1 AND done_at IS NULL
                 RETURNING id, kind, created_at, attempt, fence, holder, ready_at, done_at, room, body",
            )?
            .query_row(params![id.0 as i64, holder as i64, until.0], read_row)
            .optional()?;
        if leased.is_some() {
            self.written += FRAME_BYTES;
            self.execute("UPDATE meta SET value = value + 1 WHERE key = 'fence'", &[])?;
        }
        Ok(leased)
    }

    pub(super) fn postpone(&mut self, id: TaskId, ready_at: Wall) -> rusqlite::Result<()> {
        self.execute(
            "UPDATE task SET holder = 0, ready_at = ?2 WHERE id = ?1 AND done_at IS NULL",
            params![id.0 as i64, ready_at.0],
        )
    }

    pub(super) fn finish(&mut self, id: TaskId) -> rusqlite::Result<()> {
        let at = self.at.0;
        self.execute(
            "UPDATE task SET holder = 0, done_at = ?2, body = x'' WHERE id = ?1 AND done_at IS NULL",
            params![id.0 as i64, at],
        )
    }

    /// `holder <> 0` twice over: without it the index of the held ones would not serve.
    pub(super) fn release(&mut self, holder: Option<u64>) -> rusqlite::Result<Tasks> {
        let (sql, holder) = match holder {
            Some(holder) => (
                "UPDATE task SET holder = 0, ready_at = ?2 WHERE holder = ?1 AND holder <> 0 RETURNING kind",
                holder as i64,
            ),
            None => ("UPDATE task SET holder = 0, ready_at = ?2 WHERE holder <> ?1 AND holder <> 0 RETURNING kind", 0),
        };
        let mut statement = self.conn.prepare_cached(sql)?;
        let kinds = statement.query_map(params![holder, self.at.0], read_kind)?;
        let kinds: Vec<TaskKind> = kinds.collect::<rusqlite::Result<_>>()?;
        drop(statement);
        self.written += FRAME_BYTES * kinds.len() as u64;
        Ok(kinds.into_iter().collect())
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Task> {
    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
    Ok(Task {
        id: TaskId(number(0)?),
        kind: kind_of(row.get(1)?)?,
        created_at: Wall(row.get(2)?),
        attempt: u32::try_from(number(3)?).unwrap_or(u32::MAX),
        fence: number(4)?,
        holder: number(5)?,
        ready_at: Wall(row.get(6)?),
        done: row.get::<_, Option<i64>>(7)?.is_some(),
        room: RoomName::new(str_of(row, 8)?),
        body: bytes(row, 9)?,
    })
}

fn read_kind(row: &Row<'_>) -> rusqlite::Result<TaskKind> {
    kind_of(row.get(0)?)
}

fn kind_of(number: u8) -> rusqlite::Result<TaskKind> {
    TaskKind::of(number).ok_or_else(|| failure(ffi::SQLITE_CORRUPT, "kind of a task"))
}
