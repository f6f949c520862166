//! A bare SQLite loop: the rows that a document's update stores, in commits of a given size, and nothing around them.
//!
//! The same tables, indexes and pragmas as the server's (`src/store/sqlite`): an event, the document, the room's head. What
//! the server does besides is what the comparison is about: read the document, decide, encode, queue, answer.

use std::io;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::Rows;
use crate::engine::window::own_cpu;

const SCHEMA: &str = "
CREATE TABLE room (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, head_seq INTEGER NOT NULL,
    floor_seq INTEGER NOT NULL, operations INTEGER NOT NULL
) STRICT;
CREATE TABLE event (
    place INTEGER PRIMARY KEY, kind TEXT NOT NULL, actor TEXT NOT NULL, op TEXT, origin INTEGER NOT NULL,
    at INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE document (
    row_id INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, directory TEXT NOT NULL, name TEXT NOT NULL,
    unique_id TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, rev INTEGER NOT NULL,
    description BLOB, tags BLOB NOT NULL, content BLOB NOT NULL
) STRICT;
CREATE INDEX document_name ON document (name, id);
CREATE INDEX document_unique_id ON document (unique_id, id);";

const CONTENT_BYTES: usize = 256;
/// Content and the words around it.
const BODY_BYTES: usize = CONTENT_BYTES + 32;
const SEQ_BITS: u32 = 37;

pub fn run(options: &Rows) -> io::Result<()> {
    let path = options.directory.join("rows.sqlite");
    let outcome = measure(&path, options);
    for suffix in ["", "-wal", "-shm"] {
        // Whatever is there belonged to this measure alone.
        let _ = std::fs::remove_file(options.directory.join(format!("rows.sqlite{suffix}")));
    }
    outcome.map_err(|error| io::Error::other(format!("SQLite: {error}")))
}

fn measure(path: &std::path::Path, options: &Rows) -> rusqlite::Result<()> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -32 * 1024)?;
    conn.execute_batch(SCHEMA)?;
    let rooms = options.rooms.max(1);
    for room in 0..rooms {
        let name = format!("bench-{room:05}");
        conn.execute("INSERT INTO room VALUES (?1, ?2, 1, 0, 0, 0)", params![room as i64, format!("doc:{name}")])?;
        conn.execute(
            "INSERT INTO document VALUES (?1, ?2, '', ?2, ?2, 0, 0, 1, NULL, x'', ?3)",
            params![room as i64, name, vec![b'x'; CONTENT_BYTES]],
        )?;
    }
    let mut rows = Updates { conn: &conn, rooms, seqs: vec![0; rooms], next: 0 };
    // The first commits make the log's file; they are not what a running server does.
    for _ in 0..20 {
        rows.commit(options.batch)?;
    }
    let (begun, cpu) = (Instant::now(), own_cpu());
    let mut updates = 0;
    while begun.elapsed().as_secs_f64() < options.seconds {
        rows.commit(options.batch)?;
        updates += options.batch;
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), own_cpu() - cpu);
    println!("updates_per_second {}", updates as f64 / seconds);
    println!("cpu_nanos_per_update {}", cpu as f64 / updates as f64);
    println!("batch {}", options.batch);
    Ok(())
}

struct Updates<'c> {
    conn: &'c Connection,
    rooms: usize,
    seqs: Vec<i64>,
    next: usize,
}

impl Updates<'_> {
    fn commit(&mut self, batch: usize) -> rusqlite::Result<()> {
        self.run("BEGIN IMMEDIATE")?;
        let first = self.next;
        for _ in 0..batch {
            let room = self.next % self.rooms;
            self.next += 1;
            self.seqs[room] += 1;
            self.update(room as i64, self.seqs[room])?;
        }
        for room in (first..self.next).take(self.rooms).map(|number| number % self.rooms) {
            self.conn
                .prepare_cached("UPDATE room SET head_seq = ?2, operations = ?3 WHERE id = ?1")?
                .execute(params![room as i64, self.seqs[room], 0])?;
        }
        self.run("COMMIT")
    }

    fn update(&self, room: i64, seq: i64) -> rusqlite::Result<()> {
        let name = format!("bench-{room:05}");
        self.conn
            .prepare_cached(
                "INSERT INTO event (place, kind, actor, op, origin, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                room << SEQ_BITS | seq,
                "update",
                "test-user-123",
                None::<&str>,
                seq,
                seq,
                &[b'x'; BODY_BYTES][..]
            ])?;
        self.conn
            .prepare_cached(
                "UPDATE document SET created_at = ?4, updated_at = ?5, rev = ?6, description = ?7, tags = ?8, content = ?9
                 WHERE id = ?1 AND directory = ?2 AND name = ?3",
            )?
            .execute(params![
                name,
                "",
                name,
                0,
                seq,
                seq,
                None::<&[u8]>,
                &b""[..],
                &[b'x'; CONTENT_BYTES][..]
            ])?;
        Ok(())
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}
