//! States of rooms and records of dialects, in SQL.

use rusqlite::{OptionalExtension as _, Params, Row, ffi, params};

use super::checkpoint::FRAME_BYTES;
use super::columns::{bytes, number, text};
use super::error::failure;
use super::tables::{Tables, enter_head};
use crate::clock::Wall;
use crate::ids::{RoomName, Seq};
use crate::model::{Record, Shelf, State};

const _: () = assert!(Shelf::Mark as u8 == 7, "the index record_mark says so");

impl Tables {
    pub(super) fn read_state(&self, room: &str) -> rusqlite::Result<Option<State>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT s.rev, s.seq, s.body FROM state s JOIN room r ON r.id = s.room WHERE r.name = ?1",
        )?;
        let state = statement.query_row([room], |row| {
            let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
            Ok(State { rev: number(0)?, seq: Seq(number(1)?), body: bytes(row, 2)? })
        });
        state.optional()
    }

    pub(super) fn write_state(&mut self, room: &RoomName, state: &State) -> rusqlite::Result<()> {
        let id = enter_head(&self.conn, &mut self.heads, room)?.id;
        self.written += state.body.len() as u64;
        self.execute(
            "REPLACE INTO state (room, rev, seq, body) VALUES (?1, ?2, ?3, ?4)",
            params![id, state.rev as i64, state.seq.0 as i64, state.body.as_ref()],
        )
    }

    pub(super) fn read_record(&self, shelf: Shelf, id: &str) -> rusqlite::Result<Option<Record>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record WHERE shelf = ?1 AND id = ?2",
        )?;
        statement.query_row(params![shelf as u8, id], read_row).optional()
    }

    /// A statement for each way to ask: with `?2 IS NULL OR parent = ?2` no index would be used. The `+` keeps SQLite from
    /// the index on states: many wait for a decision, but few of one session.
    pub(super) fn read_records(
        &self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> rusqlite::Result<Vec<Record>> {
        let (shelf, skip, count) = (shelf as u8, number(skip), number(count));
        match (parent, state) {
            (None, None) => self.collect(
                "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record
                 WHERE shelf = ?1 ORDER BY row_id LIMIT ?2 + 0 OFFSET ?3 + 0",
                params![shelf, count, skip],
            ),
            (Some(parent), None) => self.collect(
                "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record
                 WHERE shelf = ?1 AND parent = ?4 ORDER BY row_id LIMIT ?2 + 0 OFFSET ?3 + 0",
                params![shelf, count, skip, parent],
            ),
            (None, Some(state)) => self.collect(
                "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record
                 WHERE shelf = ?1 AND state = ?4 ORDER BY row_id LIMIT ?2 + 0 OFFSET ?3 + 0",
                params![shelf, count, skip, state],
            ),
            (Some(parent), Some(state)) => self.collect(
                "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record
                 WHERE shelf = ?1 AND parent = ?4 AND +state = ?5 ORDER BY row_id LIMIT ?2 + 0 OFFSET ?3 + 0",
                params![shelf, count, skip, parent, state],
            ),
        }
    }

    pub(super) fn read_count(
        &self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
    ) -> rusqlite::Result<usize> {
        let shelf = shelf as u8;
        match (parent, state) {
            (None, None) => self.count("SELECT count(*) FROM record WHERE shelf = ?1", [shelf]),
            (Some(parent), None) => {
                self.count("SELECT count(*) FROM record WHERE shelf = ?1 AND parent = ?2", params![shelf, parent])
            }
            (None, Some(state)) => {
                self.count("SELECT count(*) FROM record WHERE shelf = ?1 AND state = ?2", params![shelf, state])
            }
            (Some(parent), Some(state)) => self.count(
                "SELECT count(*) FROM record WHERE shelf = ?1 AND parent = ?2 AND +state = ?3",
                params![shelf, parent, state],
            ),
        }
    }

    pub(super) fn read_due(&self, by: Wall, count: usize) -> rusqlite::Result<Vec<Record>> {
        self.collect(
            "SELECT shelf, id, parent, state, due, created_at, updated_at, body FROM record
             WHERE due <= ?1 ORDER BY due, row_id LIMIT ?2 + 0",
            params![by.0, number(count)],
        )
    }

    pub(super) fn read_next_due(&self) -> rusqlite::Result<Option<Wall>> {
        let sql = "SELECT due FROM record WHERE due IS NOT NULL ORDER BY due LIMIT 1";
        self.conn.prepare_cached(sql)?.query_row([], |row| row.get(0).map(Wall)).optional()
    }

    /// Most changes leave what a record is found by alone, and SQLite then leaves those indexes alone.
    pub(super) fn write_record(&mut self, record: &Record) -> rusqlite::Result<()> {
        self.written += 2 * FRAME_BYTES + record.body.len() as u64;
        let due = record.due.map(|due| due.0);
        let values = params![
            record.shelf as u8,
            record.id,
            record.parent,
            record.state,
            due,
            record.created_at.0,
            record.updated_at.0,
            record.body.as_ref()
        ];
        let changed = self
            .conn
            .prepare_cached(
                "UPDATE record SET due = ?5, created_at = ?6, updated_at = ?7, body = ?8
                 WHERE shelf = ?1 AND id = ?2 AND parent = ?3 AND state = ?4",
            )?
            .execute(values)?;
        if changed == 1 {
            return Ok(());
        }
        // Not REPLACE: that would be a new row, at the end of the order.
        self.conn
            .prepare_cached(
                "INSERT INTO record (shelf, id, parent, state, due, created_at, updated_at, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (shelf, id) DO UPDATE SET parent = ?3, state = ?4, due = ?5, created_at = ?6, updated_at = ?7,
                 body = ?8",
            )?
            .execute(values)?;
        Ok(())
    }

    fn collect(&self, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Record>> {
        self.conn.prepare_cached(sql)?.query_map(params, read_row)?.collect()
    }

    fn count(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        let count: i64 = self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        shelf: Shelf::of(row.get(0)?).ok_or_else(|| failure(ffi::SQLITE_CORRUPT, "shelf of a record"))?,
        id: text(row, 1)?,
        parent: text(row, 2)?,
        state: text(row, 3)?,
        due: row.get::<_, Option<i64>>(4)?.map(Wall),
        created_at: Wall(row.get(5)?),
        updated_at: Wall(row.get(6)?),
        body: bytes(row, 7)?,
    })
}
