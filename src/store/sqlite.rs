//! The SQLite backend: one writer connection, any number of read-only ones, one directory held under a lock for life.
//!
//! ```text
//! open: directory ─▶ lock ─▶ pragmas ─▶ schema ─▶ quick_check (unclean stop) ─▶ BARRIER ─▶ Opened{store, readers}
//!                                                                    one committed, synced write
//! ```
//!
//! The barrier is why `readers` comes out of `open` and cannot be made otherwise: a row recovered from a log that was
//! never synced looks like any other row, and vanishes with the next loss of power. A synced commit syncs the whole log
//! before it, so after the barrier nothing readable can vanish.
//!
//! A failed write of the log is never called "not saved": after a failed fsync the row is invisible, and there again
//! after a restart. So the handle latches, every later `begin` is `Broken`, and the next process finds out.
//!
//! Never here: what a row means, a clock.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, ffi, params};

use super::seam::{CommitError, Keep, Retention, Snapshots, Store};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::limits;
use crate::model::{Document, Draft, Event, FileMark, RoomRow, Rows, RowsError, Transaction};

/// A recorded answer stays at least this long (PROMISES.md G5) …
pub(super) const OPERATION_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// … and as long as it is among this many newest of its room.
pub(super) const OPERATIONS_KEPT: u64 = 100_000;
/// How often retention is looked at. It is a bound on disk, not a deadline.
pub(super) const TRIM_EVERY: Duration = Duration::from_secs(5);

const DATABASE: &str = "commitcast.sqlite";
const LOCK: &str = "lock";
const BALLAST: &str = "ballast";

/// 3.7.0 to 3.51.2 can corrupt a WAL database that has two connections (the WAL-reset race).
const LIBRARY_MIN: i32 = 3_051_003;
const SCHEMA: i64 = 1;
/// How long somebody outside (a shell, a backup) may hold the database before the batch is told `Busy`. The worker tries
/// again; a longer wait in here would hide from it that time passes.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// More than the statements of this file.
const STATEMENTS: usize = 40;
/// Pages kept by the writer, as SQLite wants it: negative KiB. A full batch (limits::BATCH_BYTES_MAX) and its index pages
/// fit four times, so no transaction spills into the log before its commit.
const WRITER_CACHE_KIB: i64 = -32 * 1024;

/// Unsaved log that makes a checkpoint worth its two fsyncs.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;
/// Written bytes between two looks at the log's size; a look costs microseconds, a batch of one a hundred.
const CHECKPOINT_LOOK_BYTES: u64 = 1024 * 1024;
/// From here on we wait (BUSY_WAIT) for readers to leave, so that the log starts again at its front.
const RESTART_BYTES: u64 = 16 * 1024 * 1024;
/// From here on somebody must be told: a reader outside never ends (PROMISES.md row 75).
const ALARM_BYTES: u64 = 64 * 1024 * 1024;
/// A page and its header in the log.
const FRAME_BYTES: u64 = 4096 + 24;

/// Released when the disk is full, because with a full disk not even a DELETE can be logged.
const BALLAST_BYTES: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
const BALLAST_RETRY: Duration = Duration::from_secs(30);

/// Rooms looked at in one trim, beside those that grew.
const TRIM_ROOMS: usize = 256;
/// Events removed in one trim; more than a batch writes, so that trimming keeps up when it runs after each.
const TRIM_EVENTS: u64 = 2048;
const TRIM_OPERATIONS: usize = 1024;
/// Rooms remembered as grown since the last trim; the rotation finds the rest.
const GROWN_MAX: usize = 4096;

const _: () = assert!(TRIM_EVENTS as usize > limits::BATCH_OPS_MAX && TRIM_OPERATIONS > limits::BATCH_OPS_MAX);
const _: () = assert!(CHECKPOINT_BYTES < RESTART_BYTES && RESTART_BYTES < ALARM_BYTES);
const _: () = assert!(limits::REACTORS_MAX <= 128, "the top bit of a packed ConnId is free, see OriginKey");

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power.
    Full,
    /// The loss of the process; the loss of power may take the last commits.
    Normal,
}

/// An open data directory, behind the barrier.
#[derive(Debug)]
pub struct Opened {
    pub store: SqliteStore,
    pub readers: Readers,
    /// Random; names this run of the process.
    pub boot: u64,
    /// The database file.
    pub path: PathBuf,
}

/// Why a data directory could not be opened: whose fault, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{dir} is in use by process {pid}: one data directory serves one process; stop that one or choose another directory",
        dir = .dir.display()
    )]
    Locked { dir: PathBuf, pid: String },
    #[error("{dir} is not a directory: choose a path that is one, or that does not exist yet", dir = .dir.display())]
    NotADirectory { dir: PathBuf },
    #[error(
        "no right to write in {path} ({detail}): give it to this user, or choose another directory",
        path = .path.display()
    )]
    NoAccess { path: PathBuf, detail: String },
    #[error("no space left for {path}: free some on that disk and start again", path = .path.display())]
    Full { path: PathBuf },
    #[error(
        "{path} is held by another program, such as a sqlite3 shell or a backup: end it and start again",
        path = .path.display()
    )]
    Busy { path: PathBuf },
    #[error(
        "{path} is damaged ({detail}): keep a copy of the directory, then restore a backup or run `sqlite3 … .recover`",
        path = .path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error("{path} holds tables of another program: choose another directory", path = .path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{path} was written by a newer commitcast (schema {found}, this one knows {SCHEMA}): run that version",
        path = .path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("SQLite {found} may corrupt its log (fixed in 3.51.3): build with the bundled library")]
    OldLibrary { found: String },
    #[error("{path} cannot be used ({detail}): it must lie on a local disk in working order", path = .path.display())]
    Failed { path: PathBuf, detail: String },
}

pub fn open(dir: &Path, durability: Durability) -> Result<Opened, OpenError> {
    refuse_old_library(rusqlite::version_number(), rusqlite::version())?;
    make_directory(dir)?;
    let lock = take_lock(dir)?;
    let path = dir.join(DATABASE);
    let key = OriginKey::random().map_err(|detail| OpenError::Failed { path: path.clone(), detail })?;

    let conn = connect(&path).map_err(|error| blame(&path, &error))?;
    if enter_schema(&conn, &path)? == LastStop::Unclean {
        log::warn!("{} was not closed: checking it", path.display());
        quick_check(&conn, &path)?;
    }
    cross_barrier(&conn).map_err(|error| blame(&path, &error))?;
    if durability == Durability::Normal {
        conn.pragma_update(None, "synchronous", "NORMAL").map_err(|error| blame(&path, &error))?;
    }

    let mut ballast = Ballast { path: dir.join(BALLAST), held: false, looked_at: None };
    ballast.hold();
    let store = SqliteStore {
        tables: Tables::new(conn, key),
        open: false,
        ballast,
        checkpointed: 0,
        alarmed: false,
        trim: Trim::default(),
        lock,
    };
    Ok(Opened { store, readers: Readers { path: path.clone(), key }, boot: key.0, path })
}

fn refuse_old_library(number: i32, name: &str) -> Result<(), OpenError> {
    if number < LIBRARY_MIN { Err(OpenError::OldLibrary { found: name.to_owned() }) } else { Ok(()) }
}

/// The directory's own name is synced too: a database whose directory is gone after the loss of power lost every ack.
fn make_directory(dir: &Path) -> Result<(), OpenError> {
    let existed = dir.is_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => OpenError::NotADirectory { dir: dir.to_owned() },
        _ => blame_io(dir, &error),
    })?;
    if !existed {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| blame_io(dir, &error))?;
    }
    Ok(())
}

/// The kernel drops the lock with the process, so a stale file locks nobody out, and the file is never removed: removing
/// it would let two processes hold locks on two files of one name.
fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let blame = |error: &io::Error| blame_io(&path, error);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| blame(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What is written there is for people only; whatever it is, the lock is held.
            let _ = lock.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "(unknown)" } else { pid.trim() };
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: pid.to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(blame(&error)),
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|error| blame(&error))?;
    Ok(lock)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_WAIT)?;
    enter_wal(&conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", RESTART_BYTES as i64)?;
    conn.pragma_update(None, "cache_size", WRITER_CACHE_KIB)?;
    // A handle that latched after an I/O error writes nothing more, not even when it is closed. A clean stop moves the log
    // itself (see Drop).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    harden(&conn)?;
    Ok(conn)
}

/// Read to the end: SQLite names the new mode first and commits the change after, and a change that then fails leaves the
/// database in its old mode without another word.
fn enter_wal(conn: &Connection) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = text(row, 0)?;
    }
    if mode == "wal" {
        Ok(())
    } else {
        Err(failure(ffi::SQLITE_IOERR, "this file system has no shared memory for a write-ahead log"))
    }
}

fn harden(conn: &Connection) -> rusqlite::Result<()> {
    // A mapped page can be overwritten by a stray store of any code in the process, and then be checkpointed.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastStop {
    Clean,
    Unclean,
}

/// Makes the tables in an empty database; in one with tables, makes sure that they are ours and of a schema we know.
fn enter_schema(conn: &Connection, path: &Path) -> Result<LastStop, OpenError> {
    let blame = |error: rusqlite::Error| blame(path, &error);
    let tables = |name: &str| {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE ?1 = '' OR name = ?1";
        conn.query_row(sql, [name], |row| row.get::<_, i64>(0)).map_err(blame)
    };
    if tables("")? == 0 {
        let sql = concat!("BEGIN IMMEDIATE;", include_str!("sqlite_schema.sql"), "COMMIT;");
        conn.execute_batch(sql).map_err(blame)?;
        return Ok(LastStop::Clean);
    }
    if tables("meta")? == 0 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let meta = |key: &str| {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        conn.query_row(sql, [key], |row| row.get::<_, i64>(0)).optional().map_err(blame)
    };
    match meta("schema")? {
        Some(SCHEMA) => {}
        Some(found) if found > SCHEMA => {
            return Err(OpenError::Newer { path: path.to_owned(), found });
        }
        _ => {
            return Err(OpenError::Foreign { path: path.to_owned() });
        }
    }
    Ok(if meta("clean")? == Some(1) { LastStop::Clean } else { LastStop::Unclean })
}

fn quick_check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|error| blame(path, &error))?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), detail: verdict }) }
}

/// Under synchronous=FULL, whatever the operator chose: the promise is about rows that an earlier process wrote.
fn cross_barrier(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "BEGIN IMMEDIATE; UPDATE meta SET value = value + 1 WHERE key = 'boots';
               UPDATE meta SET value = 0 WHERE key = 'clean'; COMMIT;";
    conn.execute_batch(sql)
}

/// Opens snapshots of the store it came with.
#[derive(Clone, Debug)]
pub struct Readers {
    path: PathBuf,
    key: OriginKey,
}

impl Readers {
    pub fn open(&self) -> Result<SqliteSnapshots, OpenError> {
        let conn = self.connect().map_err(|error| blame(&self.path, &error))?;
        Ok(SqliteSnapshots { tables: Tables::new(conn, self.key), open: false })
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY_WAIT)?;
        harden(&conn)?;
        Ok(conn)
    }
}

#[derive(Debug)]
pub struct SqliteSnapshots {
    tables: Tables,
    open: bool,
}

impl Snapshots for SqliteSnapshots {
    fn begin(&mut self) -> Result<(), RowsError> {
        assert!(!self.open, "begin() inside a snapshot");
        self.end();
        // BEGIN alone takes no snapshot; the first read does, and it must not be later than our caller thinks.
        let begun = self.tables.run("BEGIN").and_then(|()| {
            self.tables.conn.prepare_cached("SELECT value FROM meta WHERE key = 'boots'")?.query_row([], |_| Ok(()))
        });
        match begun {
            Ok(()) => {
                self.open = true;
                Ok(())
            }
            Err(error) => {
                self.end();
                Err(rows_error(&error))
            }
        }
    }

    fn rows(&mut self) -> &mut dyn Rows {
        assert!(self.open, "rows() outside a snapshot");
        &mut self.tables
    }

    fn end(&mut self) {
        self.open = false;
        if !self.tables.conn.is_autocommit()
            && let Err(error) = self.tables.run("ROLLBACK")
        {
            log::warn!("a snapshot did not end: {error}");
        }
    }
}

/// The one writer. Dropping it is the clean stop.
#[derive(Debug)]
pub struct SqliteStore {
    tables: Tables,
    open: bool,
    ballast: Ballast,
    /// `tables.written` at the last look at the log's size.
    checkpointed: u64,
    alarmed: bool,
    trim: Trim,
    /// Last, so that the connection is closed before another process may open one.
    #[cfg_attr(not(test), expect(dead_code, reason = "held for life"))]
    lock: File,
}

impl Store for SqliteStore {
    fn begin(&mut self, at: Wall) -> Result<(), RowsError> {
        assert!(!self.open, "begin() inside a transaction");
        self.tables.usable()?;
        // Immediate, because a transaction that reads first and writes later is refused at once when somebody wrote in
        // between, whatever the busy timeout says.
        let begun = self.tables.run("BEGIN IMMEDIATE");
        self.tables.check(begun)?;
        self.tables.at = at;
        self.open = true;
        Ok(())
    }

    fn rows(&mut self) -> &mut dyn Transaction {
        assert!(self.open, "rows() outside a transaction");
        &mut self.tables
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        assert!(self.open, "commit() outside a transaction");
        if let Err(broken) = self.tables.usable() {
            self.rollback();
            return Err(CommitError::Refused(broken));
        }
        let committed = self.tables.write_heads().and_then(|()| self.tables.run("COMMIT"));
        match self.tables.check(committed) {
            Ok(()) => {
                self.open = false;
                self.trim.note_grown(&self.tables);
                self.tables.heads.clear();
                Ok(())
            }
            Err(RowsError::Broken(why)) => {
                self.rollback();
                Err(CommitError::Unknown(why))
            }
            // Certain: a full disk stops the log before its commit frame, a busy database before the log.
            Err(refused @ (RowsError::Busy | RowsError::Full)) => {
                self.rollback();
                Err(CommitError::Refused(refused))
            }
        }
    }

    fn rollback(&mut self) {
        self.open = false;
        self.tables.heads.clear();
        if !self.tables.conn.is_autocommit() {
            let rolled_back = self.tables.run("ROLLBACK");
            // A transaction that cannot be left would swallow the next one's writes.
            if let Err(error) = rolled_back {
                self.tables.broken.get_or_insert(format!("rollback: {error}"));
            }
        }
        if std::mem::take(&mut self.tables.full) && self.ballast.release() {
            self.trim.more = true;
        }
    }

    fn tidy(&mut self, now: Wall, retention: &Retention) -> Result<(), RowsError> {
        assert!(!self.open, "tidy() inside a transaction");
        self.tables.usable()?;
        let checkpointed = self.checkpoint();
        if !self.trim.more && !due(self.trim.at, now, TRIM_EVERY) {
            return checkpointed;
        }
        self.trim.at = Some(now);
        let trimmed = self.trim(now, retention);
        if !self.ballast.held && due(self.ballast.looked_at, now, BALLAST_RETRY) {
            // Not at the first look: that one follows the release.
            if self.ballast.looked_at.replace(now).is_some() {
                self.ballast.hold();
            }
        }
        checkpointed.and(trimmed)
    }
}

impl SqliteStore {
    /// Moves the log into the database when there is enough of it, and starts it again at its front.
    fn checkpoint(&mut self) -> Result<(), RowsError> {
        if self.tables.written - self.checkpointed < CHECKPOINT_LOOK_BYTES {
            return Ok(());
        }
        self.checkpointed = self.tables.written;
        let looked = self.tables.checkpoint("PRAGMA wal_checkpoint(NOOP)");
        if self.settle(looked)?.unsaved() < CHECKPOINT_BYTES {
            return Ok(());
        }
        // Passive waits for nobody; where it leaves nothing over, the next commit starts the log again by itself unless
        // a reader stands in it.
        let passive = self.tables.checkpoint("PRAGMA wal_checkpoint(PASSIVE)");
        let mut log = self.settle(passive)?;
        if log.unsaved() == 0 && log.bytes() >= RESTART_BYTES {
            let restarted = if log.bytes() >= ALARM_BYTES {
                self.tables.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
            } else {
                self.tables.checkpoint("PRAGMA wal_checkpoint(RESTART)")
            };
            log = self.settle(restarted)?;
        }
        self.alarm(log);
        Ok(())
    }

    /// As `Tables::check`, outside a transaction: a full disk is acted on here, since nobody will roll back.
    fn settle<T>(&mut self, outcome: rusqlite::Result<T>) -> Result<T, RowsError> {
        let checked = self.tables.check(outcome);
        self.rollback();
        checked
    }

    fn alarm(&mut self, log: Log) {
        let alarmed = log.bytes() >= ALARM_BYTES;
        if alarmed != self.alarmed {
            self.alarmed = alarmed;
            if alarmed {
                let mib = log.bytes() >> 20;
                log::error!("the write-ahead log has {mib} MiB: somebody outside reads the database without an end");
            } else {
                log::info!("the write-ahead log is short again");
            }
        }
    }

    fn trim(&mut self, now: Wall, retention: &Retention) -> Result<(), RowsError> {
        let planned = self.plan(now, retention);
        let plan = self.tables.check(planned)?;
        if plan.floors.is_empty() && plan.operations.is_empty() {
            return Ok(());
        }
        let trimmed = self.carry_out(now, &plan);
        if trimmed.is_err() {
            self.trim.grown.extend(plan.floors.iter().map(|floor| floor.room));
        }
        trimmed
    }

    fn carry_out(&mut self, now: Wall, plan: &Plan) -> Result<(), RowsError> {
        self.begin(now)?;
        let carried_out = self.tables.carry_out(plan);
        if let Err(error) = self.tables.check(carried_out) {
            self.rollback();
            return Err(error);
        }
        self.commit().map_err(|error| match error {
            CommitError::Refused(error) => error,
            CommitError::Unknown(why) => RowsError::Broken(why),
        })
    }

    /// What is to go, found without a transaction: nobody else writes.
    fn plan(&mut self, now: Wall, retention: &Retention) -> rusqlite::Result<Plan> {
        self.trim.more = false;
        let mut plan = Plan::default();
        if !retention.rules.is_empty() {
            self.plan_events(now, retention, &mut plan)?;
        }
        let cutoff = before(now, OPERATION_SPAN);
        let mut rows = 0;
        let mut reached = 0;
        let mut statement = self.tables.conn.prepare_cached(
            "SELECT o.id, o.at, r.operations - o.number FROM operation o JOIN room r ON r.id = o.room
             WHERE o.id > ?1 ORDER BY o.id LIMIT ?2",
        )?;
        let mut found = statement.query(params![self.trim.operation, TRIM_OPERATIONS as i64])?;
        while let Some(row) = found.next()? {
            if row.get::<_, i64>(1)? >= cutoff {
                break;
            }
            rows += 1;
            reached = row.get(0)?;
            if row.get::<_, i64>(2)? >= OPERATIONS_KEPT as i64 {
                plan.operations.push(reached);
            }
        }
        let page_full = rows == TRIM_OPERATIONS;
        self.trim.operation = if page_full { reached } else { 0 };
        self.trim.more |= page_full && !plan.operations.is_empty();
        Ok(plan)
    }

    fn plan_events(&mut self, now: Wall, retention: &Retention, plan: &mut Plan) -> rusqlite::Result<()> {
        let conn = &self.tables.conn;
        let mut budget = TRIM_EVENTS;
        let mut rooms = Vec::new();
        for id in self.trim.grown.drain() {
            let mut statement = conn.prepare_cached("SELECT id, name, head_seq, floor_seq FROM room WHERE id = ?1")?;
            rooms.extend(statement.query_row([id], Candidate::read).optional()?);
        }
        let mut statement =
            conn.prepare_cached("SELECT id, name, head_seq, floor_seq FROM room WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let grown = rooms.len();
        for room in statement.query_map(params![self.trim.room, TRIM_ROOMS as i64], Candidate::read)? {
            rooms.push(room?);
        }
        let rotated = rooms.len() - grown;
        self.trim.room = if rotated == TRIM_ROOMS { rooms.last().map_or(0, |room| room.id) } else { 0 };

        let mut planned = HashSet::new();
        for room in rooms {
            let Some(keep) = retention.rule(&room.name) else {
                continue;
            };
            if !planned.insert(room.id) {
                continue;
            }
            let wanted = wanted_floor(conn, &room, keep, now, budget)?;
            let floor = wanted.min(room.floor + budget);
            budget -= floor - room.floor;
            if floor > room.floor {
                plan.floors.push(Floor { room: room.id, from: room.floor, to: floor });
            }
            // Out of budget: this room may have more to give, and the next call asks it first.
            if budget == 0 {
                self.trim.more = true;
                self.trim.grown.insert(room.id);
            }
        }
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if std::thread::panicking() || self.tables.broken.is_some() {
            return;
        }
        self.rollback();
        let closed = self
            .tables
            .run("UPDATE meta SET value = 1 WHERE key = 'clean'")
            .and_then(|()| self.tables.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = closed {
            log::warn!("the store was not closed cleanly, the next start checks it: {error}");
        }
    }
}

/// The rows, as both the writer and the readers see them; on a reader's connection `heads` stays empty.
#[derive(Debug)]
struct Tables {
    conn: Connection,
    key: OriginKey,
    at: Wall,
    /// Rooms that the open transaction appended to. Their rows are read once and written once, at the commit: nobody
    /// else writes meanwhile, so this gives the seqs that `UPDATE … RETURNING` would, for one statement an event less.
    heads: HashMap<RoomName, Head, foldhash::fast::RandomState>,
    /// Why nothing more may be written. Set once, never cleared.
    broken: Option<String>,
    /// A statement found the disk full; `rollback` acts on it.
    full: bool,
    /// Bytes that commits have added to the log, by a rough count.
    written: u64,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    id: i64,
    row: RoomRow,
    operations: u64,
    changed: bool,
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
}

impl Tables {
    fn new(conn: Connection, key: OriginKey) -> Tables {
        Tables { conn, key, at: Wall(0), heads: HashMap::default(), broken: None, full: false, written: 0 }
    }

    fn usable(&self) -> Result<(), RowsError> {
        match &self.broken {
            Some(why) => Err(RowsError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    /// The one place where a failure of SQLite becomes ours, and where the handle learns of it.
    fn check<T>(&mut self, outcome: rusqlite::Result<T>) -> Result<T, RowsError> {
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

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn execute(&mut self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
        self.written += FRAME_BYTES;
        self.conn.prepare_cached(sql)?.execute(params).map(|_| ())
    }

    fn checkpoint(&self, sql: &str) -> rusqlite::Result<Log> {
        self.conn.prepare_cached(sql)?.query_row([], |row| {
            let frames = |column| row.get::<_, i64>(column).map(|frames| u64::try_from(frames).unwrap_or(0));
            Ok(Log { frames: frames(1)?, saved: frames(2)? })
        })
    }

    fn find_head(&self, room: &str) -> rusqlite::Result<Option<Head>> {
        match self.heads.get(room) {
            Some(head) => Ok(Some(*head)),
            None => read_head(&self.conn, room),
        }
    }

    fn read_events(&self, room: &str, after: Seq, count: usize, bytes: usize) -> rusqlite::Result<Vec<Event>> {
        let mut events = Vec::new();
        let Some(head) = self.find_head(room)? else {
            return Ok(events);
        };
        let mut statement = self.conn.prepare_cached(
            "SELECT place, kind, actor, op, origin, at, body FROM event
             WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3",
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

    fn write_heads(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached("UPDATE room SET head_seq = ?2, operations = ?3 WHERE id = ?1")?;
        for head in self.heads.values().filter(|head| head.changed) {
            statement.execute(params![head.id, head.row.head.0 as i64, head.operations as i64])?;
            self.written += FRAME_BYTES;
        }
        Ok(())
    }

    fn carry_out(&mut self, plan: &Plan) -> rusqlite::Result<()> {
        for floor in &plan.floors {
            let (from, to) = (place(floor.room, floor.from)?, place(floor.room, floor.to)?);
            self.execute("DELETE FROM event WHERE place > ?1 AND place <= ?2", params![from, to])?;
            self.execute("UPDATE room SET floor_seq = ?2 WHERE id = ?1", params![floor.room, floor.to as i64])?;
        }
        for id in &plan.operations {
            self.execute("DELETE FROM operation WHERE id = ?1", params![id])?;
        }
        Ok(())
    }
}

fn read_head(conn: &Connection, room: &str) -> rusqlite::Result<Option<Head>> {
    let mut statement =
        conn.prepare_cached("SELECT id, epoch, head_seq, floor_seq, operations FROM room WHERE name = ?1")?;
    let head = statement.query_row([room], |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
        let row = RoomRow { epoch: Epoch(number(1)?), head: Seq(number(2)?), floor: Seq(number(3)?) };
        Ok(Head { id: number(0)? as i64, row, operations: number(4)?, changed: false })
    });
    head.optional()
}

/// The room's head in this transaction; a room that nobody wrote to yet is made.
fn enter_head<'h>(
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

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    str_of(row, column).map(str::to_owned)
}

fn str_of<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r str> {
    Ok(std::str::from_utf8(row.get_ref(column)?.as_bytes()?)?)
}

/// Bits of a place that hold the seq: 137 thousand million events a room, and 134 million rooms, which are never removed.
const SEQ_BITS: u32 = 37;
const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// The high rooms are negative as SQLite sees them; within a room places rise with seqs all the same, and nobody asks
/// for an order between rooms.
fn place(room: i64, seq: u64) -> rusqlite::Result<i64> {
    match u64::try_from(room) {
        Ok(room) if room < 1 << (64 - SEQ_BITS) && seq <= SEQ_MAX => Ok(((room << SEQ_BITS) | seq) as i64),
        _ => Err(failure(ffi::SQLITE_FULL, "the numbers of rooms or events are used up")),
    }
}

/// Each tag as `length:tag`, for tags may contain anything a separator could be.
fn write_tags(tags: &[String]) -> Vec<u8> {
    tags.iter().flat_map(|tag| format!("{}:{tag}", tag.len()).into_bytes()).collect()
}

fn read_tags(mut text: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    while !text.is_empty() {
        let (length, rest) = text.split_once(':')?;
        let (tag, rest) = rest.split_at_checked(length.parse().ok()?)?;
        tags.push(tag.to_owned());
        text = rest;
    }
    Some(tags)
}

/// Hides events' origins from later runs of the process.
///
/// An origin is a `ConnId` of the run that wrote it. A later run numbers its connections the same way, so the event would
/// seem to come from a stranger's connection, which would then not be sent it. XORed with a key that every run draws
/// anew, a foreign origin reads as a random number; the seqs and the column stay as small as they were, and no run needs
/// to know which runs were before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OriginKey(u64);

impl OriginKey {
    /// The top bit is set, and no packed `ConnId` has it: so no origin but 0 is ever stored as 0.
    fn random() -> Result<OriginKey, String> {
        getrandom::u64()
            .map(|random| OriginKey(random | 1 << 63))
            .map_err(|error| format!("no random numbers: {error}"))
    }

    fn seal(self, origin: u64) -> i64 {
        (if origin == 0 { 0 } else { origin ^ self.0 }) as i64
    }

    fn unseal(self, stored: i64) -> u64 {
        if stored == 0 { 0 } else { stored as u64 ^ self.0 }
    }
}

/// The state of the write-ahead log.
#[derive(Clone, Copy, Debug)]
struct Log {
    frames: u64,
    /// Those that the database file has as well.
    saved: u64,
}

impl Log {
    fn bytes(self) -> u64 {
        self.frames * FRAME_BYTES
    }

    fn unsaved(self) -> u64 {
        self.frames.saturating_sub(self.saved) * FRAME_BYTES
    }
}

/// Where the housekeeping stands.
#[derive(Debug, Default)]
struct Trim {
    at: Option<Wall>,
    /// The last trim ran out of its budget: the next call goes on without waiting.
    more: bool,
    /// Rooms appended to since: nearly always the only ones with anything to trim.
    grown: HashSet<i64, foldhash::fast::RandomState>,
    /// The rotation over all rooms, for spans that pass without a write, and over the operations.
    room: i64,
    operation: i64,
}

impl Trim {
    fn note_grown(&mut self, tables: &Tables) {
        for head in tables.heads.values().filter(|head| head.changed) {
            if self.grown.len() < GROWN_MAX {
                self.grown.insert(head.id);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Plan {
    floors: Vec<Floor>,
    /// Ids of operations.
    operations: Vec<i64>,
}

#[derive(Debug)]
struct Floor {
    room: i64,
    from: u64,
    to: u64,
}

#[derive(Debug)]
struct Candidate {
    id: i64,
    name: String,
    head: u64,
    floor: u64,
}

impl Candidate {
    fn read(row: &Row<'_>) -> rusqlite::Result<Candidate> {
        let seq = |column| row.get::<_, i64>(column).map(|seq| seq as u64);
        Ok(Candidate { id: row.get(0)?, name: text(row, 1)?, head: seq(2)?, floor: seq(3)? })
    }
}

/// The last seq that need not be kept; looks at no more than `budget` events.
fn wanted_floor(conn: &Connection, room: &Candidate, keep: &Keep, now: Wall, budget: u64) -> rusqlite::Result<u64> {
    let mut floor = room.floor;
    if let Some(events) = keep.events {
        floor = floor.max(room.head.saturating_sub(events));
    }
    if let Some(span) = keep.span {
        let cutoff = before(now, span);
        let mut statement = conn
            .prepare_cached("SELECT place, at FROM event WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3")?;
        let range = params![place(room.id, room.floor)?, place(room.id, SEQ_MAX)?, budget as i64];
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? >= cutoff {
                break;
            }
            floor = floor.max(row.get::<_, i64>(0)? as u64 & SEQ_MAX);
        }
    }
    Ok(floor)
}

pub(super) fn before(now: Wall, span: Duration) -> i64 {
    now.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

/// Whether `every` has passed since; a wall clock that was set back starts anew, or nothing would be due for as long.
pub(super) fn due(last: Option<Wall>, now: Wall, every: Duration) -> bool {
    last.is_none_or(|last| now < last || before(now, every) >= last.0)
}

/// A file that only takes space, to have something to give.
#[derive(Debug)]
struct Ballast {
    path: PathBuf,
    held: bool,
    looked_at: Option<Wall>,
}

impl Ballast {
    /// Real zeros, since a hole in a file reserves nothing; and twice the size at first, so that it is taken only where
    /// as much stays free: else it would be released and taken by turns.
    fn hold(&mut self) {
        self.held = fs::metadata(&self.path).is_ok_and(|file| file.len() == BALLAST_BYTES) || self.write().is_ok();
        if !self.held {
            let _ = fs::remove_file(&self.path);
            log::warn!("no space for the ballast file {}", self.path.display());
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        io::copy(&mut io::repeat(0).take(2 * BALLAST_BYTES), &mut file)?;
        file.set_len(BALLAST_BYTES)
    }

    /// Whether there is space now that was not there before.
    fn release(&mut self) -> bool {
        if !std::mem::take(&mut self.held) {
            return false;
        }
        self.looked_at = None;
        let released = fs::remove_file(&self.path);
        match &released {
            Ok(()) => log::error!("the disk is full: released {}", self.path.display()),
            Err(error) => log::error!("the disk is full, and {} stays: {error}", self.path.display()),
        }
        released.is_ok()
    }
}

fn failure(code: i32, detail: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(detail.to_owned()))
}

/// The result code without its extension, or 0 for an error of our own reading.
fn primary_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code & 0xff)
}

/// With the extended code: "disk I/O error" alone does not say whether a read, a write or an fsync failed.
fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_extended_error_code() {
        Some(code) => format!("{error}, SQLite code {code}"),
        None => error.to_string(),
    }
}

/// Whatever is neither busy nor full is broken: a code we did not think of must not be retried.
fn rows_error(error: &rusqlite::Error) -> RowsError {
    match primary_code(error) {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => RowsError::Busy,
        ffi::SQLITE_FULL => RowsError::Full,
        _ => RowsError::Broken(describe(error)),
    }
}

fn blame(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), describe(error));
    match primary_code(error) {
        // The log's index could not grow: the one I/O error here that names the want of space.
        _ if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) => OpenError::Full { path },
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => OpenError::Busy { path },
        ffi::SQLITE_FULL => OpenError::Full { path },
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => OpenError::Corrupt { path, detail },
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH | ffi::SQLITE_CANTOPEN => {
            OpenError::NoAccess { path, detail }
        }
        _ => OpenError::Failed { path, detail },
    }
}

fn blame_io(path: &Path, error: &io::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::NotADirectory => OpenError::NotADirectory { dir: path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::NoAccess { path, detail },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full { path },
        _ => OpenError::Failed { path, detail },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::super::memory::{MemoryStore, behaviour};
    use super::*;
    use behaviour::{append, document, operation, write};

    fn fresh() -> (TempDir, Opened) {
        let dir = TempDir::new().unwrap();
        let opened = open(dir.path(), Durability::Full).unwrap();
        (dir, opened)
    }

    /// The files as a dead process leaves them: without the shared memory, without the lock.
    fn crash_image(dir: &TempDir) -> TempDir {
        let image = TempDir::new().unwrap();
        for name in [DATABASE, &format!("{DATABASE}-wal")] {
            fs::copy(dir.path().join(name), image.path().join(name)).unwrap();
        }
        image
    }

    fn meta(dir: &TempDir, key: &str) -> i64 {
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).unwrap()
    }

    #[test]
    fn behaves_as_a_store() {
        for (name, case) in behaviour::CASES {
            eprintln!("{name}");
            let (_dir, mut opened) = fresh();
            case(&mut opened.store, &mut opened.readers.open().unwrap());
        }
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let (dir, opened) = fresh();
        let error = open(dir.path(), Durability::Full).unwrap_err();
        assert!(matches!(&error, OpenError::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
        let message = error.to_string();
        assert!(message.contains(dir.path().to_str().unwrap()) && message.contains(&std::process::id().to_string()));
        drop(opened);
        open(dir.path(), Durability::Full).unwrap();
    }

    #[test]
    fn a_new_directory_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = TempDir::new().unwrap();
        let deep = dir.path().join("a/b");
        let _opened = open(&deep, Durability::Normal).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_barrier_is_a_commit_of_every_start() {
        let (dir, opened) = fresh();
        assert_eq!((meta(&dir, "boots"), meta(&dir, "clean")), (1, 0));
        drop(opened);
        assert_eq!(meta(&dir, "clean"), 1);
        let first = open(dir.path(), Durability::Normal).unwrap();
        assert_eq!((meta(&dir, "boots"), meta(&dir, "clean")), (2, 0));
        assert_ne!(first.boot, 0);
    }

    #[test]
    fn the_operators_choice_of_durability_comes_after_the_barrier() {
        for (durability, expected) in [(Durability::Full, 2), (Durability::Normal, 1)] {
            let dir = TempDir::new().unwrap();
            let opened = open(dir.path(), durability).unwrap();
            let conn = &opened.store.tables.conn;
            let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(number("synchronous"), expected);
            assert_eq!((number("wal_autocheckpoint"), number("mmap_size"), number("cell_size_check")), (0, 0, 1));
        }
    }

    #[test]
    fn a_killed_process_leaves_all_commits_and_nothing_else() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| append(tx, "r", "kept"));
        opened.store.begin(Wall(2)).unwrap();
        append(opened.store.rows(), "r", "lost");
        let image = crash_image(&dir);

        let mut again = open(image.path(), Durability::Full).unwrap();
        let mut snapshots = again.readers.open().unwrap();
        snapshots.begin().unwrap();
        let events = snapshots.rows().events("r", Seq(0), 10, usize::MAX).unwrap();
        assert_eq!(events.iter().map(|event| &event.body[..]).collect::<Vec<_>>(), [b"kept"]);
        snapshots.end();
        assert_eq!(write(&mut again.store, 3, |tx| append(tx, "r", "next")), Seq(2));
    }

    #[test]
    fn a_handle_that_was_never_dropped_does_not_hinder_the_next() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| append(tx, "r", "kept"));
        // The kernel does this for a dead process.
        opened.store.lock.unlock().unwrap();
        std::mem::forget(opened);
        let mut again = open(dir.path(), Durability::Full).unwrap();
        assert_eq!(meta(&dir, "boots"), 2);
        assert_eq!(write(&mut again.store, 2, |tx| append(tx, "r", "next")), Seq(2));
    }

    #[test]
    fn an_origin_means_something_to_the_run_that_wrote_it_only() {
        let (dir, mut opened) = fresh();
        let ours = 0x0300_0011_0000_0009;
        write(&mut opened.store, 1, |tx| {
            behaviour::append_from(tx, "r", ours);
            behaviour::append_from(tx, "r", 0)
        });
        let origins = |opened: &Opened| {
            let mut snapshots = opened.readers.open().unwrap();
            snapshots.begin().unwrap();
            let events = snapshots.rows().events("r", Seq(0), 10, usize::MAX).unwrap();
            events.iter().map(|event| event.origin).collect::<Vec<_>>()
        };
        assert_eq!(origins(&opened), [ours, 0]);
        drop(opened);
        let later = origins(&open(dir.path(), Durability::Full).unwrap());
        assert!(later[0] != ours && later[0] != 0 && later[1] == 0, "{later:x?}");
    }

    #[test]
    fn what_is_no_store_is_not_opened() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        assert!(matches!(open(&file, Durability::Full), Err(OpenError::NotADirectory { .. })));
        assert!(matches!(open(&file.join("below"), Durability::Full), Err(OpenError::NotADirectory { .. })));

        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(DATABASE), "no database at all, and long enough to be asked".repeat(20)).unwrap();
        assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Corrupt { .. })));

        let dir = TempDir::new().unwrap();
        Connection::open(dir.path().join(DATABASE)).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Foreign { .. })));

        let (dir, opened) = fresh();
        drop(opened);
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        conn.execute_batch("UPDATE meta SET value = 2 WHERE key = 'schema'").unwrap();
        assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Newer { found: 2, .. })));
    }

    #[test]
    fn a_damaged_page_is_found_after_an_unclean_stop() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| {
            for _ in 0..200 {
                append(tx, "r", &"body".repeat(100));
            }
        });
        drop(opened);
        let path = dir.path().join(DATABASE);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("UPDATE meta SET value = 0 WHERE key = 'clean'").unwrap();
        let page: u32 =
            conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'event'", [], |row| row.get(0)).unwrap();
        drop(conn);
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(io::SeekFrom::Start(u64::from(page - 1) * 4096)).unwrap();
        file.write_all(&[0xa5; 4096]).unwrap();
        let error = open(dir.path(), Durability::Full).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn an_error_says_whose_fault_it_is() {
        let path = Path::new("data");
        for (number, refused) in [(3_051_002, true), (3_051_003, false), (rusqlite::version_number(), false)] {
            assert_eq!(refuse_old_library(number, "").is_err(), refused, "{number}");
        }
        for (code, words) in [
            (ffi::SQLITE_BUSY, "held by another program"),
            (ffi::SQLITE_FULL, "no space left"),
            (ffi::SQLITE_IOERR_SHMSIZE, "no space left"),
            (ffi::SQLITE_NOTADB, "damaged"),
            (ffi::SQLITE_CORRUPT, "damaged"),
            (ffi::SQLITE_READONLY, "no right to write"),
            (ffi::SQLITE_READONLY_DIRECTORY, "no right to write"),
            (ffi::SQLITE_CANTOPEN, "no right to write"),
            (ffi::SQLITE_IOERR_READ, "cannot be used"),
        ] {
            let message = blame(path, &failure(code, "")).to_string();
            assert!(message.contains(words), "{code}: {message}");
        }
        for (kind, words) in [
            (io::ErrorKind::PermissionDenied, "no right to write"),
            (io::ErrorKind::ReadOnlyFilesystem, "no right to write"),
            (io::ErrorKind::StorageFull, "no space left"),
            (io::ErrorKind::NotADirectory, "not a directory"),
            (io::ErrorKind::TimedOut, "cannot be used"),
        ] {
            let message = blame_io(path, &io::Error::from(kind)).to_string();
            assert!(message.contains(words), "{kind}: {message}");
        }
        for (code, expected) in [
            (ffi::SQLITE_BUSY, Some(RowsError::Busy)),
            (ffi::SQLITE_BUSY_SNAPSHOT, Some(RowsError::Busy)),
            (ffi::SQLITE_LOCKED, Some(RowsError::Busy)),
            (ffi::SQLITE_FULL, Some(RowsError::Full)),
            (ffi::SQLITE_IOERR, None),
            (ffi::SQLITE_IOERR_FSYNC, None),
            (ffi::SQLITE_CORRUPT, None),
            (ffi::SQLITE_NOTADB, None),
            (ffi::SQLITE_READONLY, None),
            (ffi::SQLITE_NOMEM, None),
            (ffi::SQLITE_CONSTRAINT, None),
        ] {
            let error = rows_error(&failure(code, ""));
            match expected {
                Some(expected) => assert_eq!(error, expected, "{code}"),
                None => assert!(matches!(error, RowsError::Broken(_)), "{code}: {error}"),
            }
        }
    }

    #[test]
    fn somebody_else_who_holds_the_database_makes_it_busy_for_a_while_only() {
        let (dir, mut opened) = fresh();
        let other = Connection::open(dir.path().join(DATABASE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(opened.store.begin(Wall(1)), Err(RowsError::Busy));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(write(&mut opened.store, 1, |tx| append(tx, "r", "x")), Seq(1));
    }

    #[test]
    fn a_full_disk_refuses_with_certainty_and_releases_the_ballast() {
        let (dir, mut opened) = fresh();
        let ballast = dir.path().join(BALLAST);
        assert_eq!(fs::metadata(&ballast).unwrap().len(), BALLAST_BYTES);
        write(&mut opened.store, 1, |tx| append(tx, "r", "x"));

        let limit = |store: &SqliteStore, pages: i64| {
            store.tables.conn.pragma_update(None, "max_page_count", pages).unwrap();
        };
        limit(&opened.store, 1);
        opened.store.begin(Wall(2)).unwrap();
        let draft = Draft { room: RoomName::new("r"), kind: "update".into(), body: Bytes::from(vec![0; 100_000]) };
        let refused = opened.store.rows().append(draft, &Arc::from("a"), None, 0);
        assert_eq!(refused, Err(RowsError::Full));
        opened.store.rollback();
        assert!(!ballast.exists());

        limit(&opened.store, 1_000_000);
        assert_eq!(write(&mut opened.store, 3, |tx| append(tx, "r", "y")), Seq(2));
        let retention = Retention::default();
        opened.store.tidy(Wall(4), &retention).unwrap();
        assert!(!ballast.exists(), "taken again at once");
        opened.store.tidy(Wall(4 + 31_000_000), &retention).unwrap();
        assert_eq!(fs::metadata(&ballast).unwrap().len(), BALLAST_BYTES);
    }

    /// A log that was cut off under our feet cannot be read back: the nearest to a dying disk that a test can have.
    fn cut_the_log(dir: &TempDir, store: &SqliteStore) {
        store.tables.conn.execute_batch("PRAGMA shrink_memory").unwrap();
        let wal = dir.path().join(format!("{DATABASE}-wal"));
        OpenOptions::new().write(true).open(wal).unwrap().set_len(0).unwrap();
    }

    #[test]
    fn an_io_error_at_the_commit_is_unknown_and_the_last_thing_that_happens() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
        opened.store.begin(Wall(2)).unwrap();
        append(opened.store.rows(), "r", "y");
        cut_the_log(&dir, &opened.store);
        let outcome = opened.store.commit();
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        assert!(matches!(opened.store.begin(Wall(3)), Err(RowsError::Broken(_))));
        assert!(matches!(opened.store.tidy(Wall(3), &Retention::default()), Err(RowsError::Broken(_))));
    }

    #[test]
    fn a_latched_handle_writes_nothing_when_it_is_closed() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
        opened.store.tables.broken = Some("the test says so".to_owned());
        let files = || [DATABASE, &format!("{DATABASE}-wal")].map(|name| fs::read(dir.path().join(name)).unwrap());
        let left = files();
        drop(opened);
        assert!(files() == left);
        assert_eq!(meta(&dir, "clean"), 0);
    }

    #[test]
    fn an_io_error_before_the_commit_is_a_certain_refusal_and_latches_too() {
        let (dir, mut opened) = fresh();
        write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
        opened.store.begin(Wall(2)).unwrap();
        cut_the_log(&dir, &opened.store);
        assert!(matches!(opened.store.rows().room("r"), Err(RowsError::Broken(_))));
        let outcome = opened.store.commit();
        assert!(matches!(outcome, Err(CommitError::Refused(RowsError::Broken(_)))), "{outcome:?}");
        assert!(matches!(opened.store.begin(Wall(3)), Err(RowsError::Broken(_))));
    }

    #[test]
    fn checkpoints_keep_the_log_short_and_a_standing_reader_loses_nothing() {
        let (dir, mut opened) = fresh();
        let wal = dir.path().join(format!("{DATABASE}-wal"));
        let length = || fs::metadata(&wal).unwrap().len();
        let body = "x".repeat(512 * 1024);
        let fill = |store: &mut SqliteStore| {
            for at in 0..48 {
                write(store, at, |tx| append(tx, "r", &body));
                store.tidy(Wall(at), &Retention::default()).unwrap();
            }
        };
        fill(&mut opened.store);
        assert!(length() < 2 * CHECKPOINT_BYTES, "{}", length());

        let mut reader = opened.readers.open().unwrap();
        reader.begin().unwrap();
        fill(&mut opened.store);
        assert!(length() > RESTART_BYTES, "{}", length());
        assert_eq!(reader.rows().room("r").unwrap().unwrap().head, Seq(48));
        reader.end();
        fill(&mut opened.store);
        assert!(length() <= RESTART_BYTES + 2 * CHECKPOINT_BYTES, "{}", length());
        reader.begin().unwrap();
        assert_eq!(reader.rows().events("r", Seq(0), 1000, usize::MAX).unwrap().len(), 144);
    }

    #[test]
    fn trimming_is_bounded_a_call_and_goes_on_without_waiting() {
        let (_dir, mut opened) = fresh();
        let events = TRIM_EVENTS + 100;
        write(&mut opened.store, 1, |tx| {
            for _ in 0..events {
                append(tx, "r", "x");
            }
        });
        let keep = Keep { pattern: "*".into(), events: Some(10), span: None };
        let retention = Retention { rules: vec![keep] };
        let floor = |opened: &mut Opened| {
            opened.store.tidy(Wall(2), &retention).unwrap();
            opened.store.tables.room("r").unwrap().unwrap().floor
        };
        assert_eq!(floor(&mut opened), Seq(TRIM_EVENTS));
        assert_eq!(floor(&mut opened), Seq(events - 10));
    }

    #[test]
    fn an_operation_goes_when_it_is_old_and_many_came_after_it() {
        let (_dir, mut opened) = fresh();
        let day = OPERATION_SPAN.as_micros() as i64;
        write(&mut opened.store, 1, |tx| operation(tx, "r", "old"));
        let count = |store: &mut SqliteStore, now: i64| {
            store.tidy(Wall(now), &Retention::default()).unwrap();
            store.tables.conn.query_row("SELECT count(*) FROM operation", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count(&mut opened.store, 2 * day), 1, "among the newest");
        let many = "UPDATE room SET operations = operations + 99999";
        opened.store.tables.conn.execute(many, []).unwrap();
        write(&mut opened.store, 2 * day, |tx| operation(tx, "r", "new"));
        assert_eq!(count(&mut opened.store, day), 2, "not a day old");
        assert_eq!(count(&mut opened.store, 3 * day), 1);
    }

    #[test]
    fn places_hold_their_bounds() {
        assert_eq!(place(1, 1).unwrap(), (1 << SEQ_BITS) | 1);
        assert!(place((1 << (64 - SEQ_BITS)) - 1, SEQ_MAX).is_ok());
        for (room, seq) in [(1 << (64 - SEQ_BITS), 1), (-1, 1), (1, SEQ_MAX + 1)] {
            assert_eq!(rows_error(&place(room, seq).unwrap_err()), RowsError::Full, "{room} {seq}");
        }
    }

    #[test]
    fn an_interval_survives_a_clock_that_is_set_back() {
        let every = Duration::from_micros(10);
        for (last, now, expected) in
            [(None, 0, true), (Some(5), 14, false), (Some(5), 15, true), (Some(5), 4, true), (Some(5), 5, false)]
        {
            assert_eq!(due(last.map(Wall), Wall(now), every), expected, "{last:?} {now}");
        }
    }

    /// One step of a transaction, drawn from few names so that steps meet.
    #[derive(Clone, Debug)]
    enum Step {
        Append(u8, Vec<u8>),
        Put(u8, u8, String),
        Delete(u8, u8),
        Mark(u8, u64),
        Unmark(u8),
        Operation(u8, u8, String),
    }

    fn step() -> impl Strategy<Value = Step> {
        let few = 0..3_u8;
        prop_oneof![
            (few.clone(), proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(room, body)| Step::Append(room, body)),
            (few.clone(), few.clone(), any::<String>()).prop_map(|(dir, name, text)| Step::Put(dir, name, text)),
            (few.clone(), few.clone()).prop_map(|(dir, name)| Step::Delete(dir, name)),
            (few.clone(), any::<u32>()).prop_map(|(document, rev)| Step::Mark(document, rev.into())),
            few.clone().prop_map(Step::Unmark),
            (few.clone(), few, any::<String>()).prop_map(|(room, op, answer)| Step::Operation(room, op, answer)),
        ]
    }

    fn take(tx: &mut dyn Transaction, step: &Step) {
        let id = |dir: u8, name: u8| format!("d{dir}/n{name}");
        match step {
            Step::Append(room, body) => {
                let (room, body) = (RoomName::new(&room.to_string()), Bytes::copy_from_slice(body));
                let draft = Draft { room, kind: "update".into(), body };
                tx.append(draft, &Arc::from("a"), None, 0).unwrap();
            }
            Step::Put(dir, name, text) => {
                let mut document = document(&format!("d{dir}"), &format!("n{name}"));
                document.tags = text.split('a').map(str::to_owned).collect();
                document.content = text.clone();
                tx.put_document(&document).unwrap();
            }
            Step::Delete(dir, name) => tx.delete_document(&id(*dir, *name)).unwrap(),
            Step::Mark(document, rev) => {
                let mark = FileMark { document: document.to_string(), digest: [*document; 20], rev: *rev };
                tx.put_file_mark(&mark).unwrap();
            }
            Step::Unmark(document) => tx.delete_file_mark(&document.to_string()).unwrap(),
            Step::Operation(room, op, answer) => {
                let op = OpId(Arc::from(op.to_string()));
                tx.put_operation(&RoomName::new(&room.to_string()), "a", &op, Seq(1), answer).unwrap();
            }
        }
    }

    /// Everything that can be asked, except epochs, which are drawn.
    fn all(rows: &mut dyn Rows) -> String {
        let mut seen = Vec::new();
        rows.each_document(&mut |document| {
            seen.push(format!("{document:?}"));
            true
        })
        .unwrap();
        for n in 0..3_u8 {
            let name = n.to_string();
            let room = rows.room(&name).unwrap().map(|room| (room.head, room.floor));
            seen.push(format!("{room:?} {:?}", rows.events(&name, Seq(0), 1000, usize::MAX).unwrap()));
            seen.push(format!("{:?}", rows.documents_named(&format!("n{n}")).unwrap()));
            seen.push(format!("{:?}", rows.documents_with_unique_id(&format!("d{n}_n{n}")).unwrap()));
            seen.push(format!(
                "{:?} {:?}",
                rows.document(&format!("d{n}/n{n}")).unwrap(),
                rows.file_mark(&name).unwrap()
            ));
            for op in 0..3_u8 {
                seen.push(format!("{:?}", rows.operation(&name, "a", &OpId(Arc::from(op.to_string()))).unwrap()));
            }
        }
        seen.join("\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The simulation is worth as much as its store resembles the real one.
        #[test]
        fn both_backends_are_one_store(
            batches in proptest::collection::vec((proptest::collection::vec(step(), 1..12), any::<bool>()), 1..8)
        ) {
            let (_dir, mut opened) = fresh();
            let mut memory = MemoryStore::new(1, 1);
            let mut readers = (opened.readers.open().unwrap(), memory.snapshots());
            for (at, (steps, commit)) in batches.iter().enumerate() {
                let mut seen = Vec::new();
                for store in [&mut opened.store as &mut dyn Store, &mut memory] {
                    store.begin(Wall(at as i64)).unwrap();
                    steps.iter().for_each(|step| take(store.rows(), step));
                    seen.push(all(store.rows()));
                    if *commit { store.commit().unwrap() } else { store.rollback() }
                }
                for reader in [&mut readers.0 as &mut dyn Snapshots, &mut readers.1] {
                    reader.begin().unwrap();
                    seen.push(all(reader.rows()));
                    reader.end();
                }
                prop_assert_eq!(&seen[0], &seen[1]);
                prop_assert_eq!(&seen[2], &seen[3]);
            }
        }
    }

    proptest! {
        #[test]
        fn tags_survive_whatever_they_hold(tags in proptest::collection::vec(any::<String>(), 0..6)) {
            prop_assert_eq!(read_tags(&String::from_utf8(write_tags(&tags)).unwrap()), Some(tags));
        }

        #[test]
        fn no_column_of_tags_brings_us_down(text in "[0-9]{0,3}:?.{0,8}") {
            if let Some(tags) = read_tags(&text) {
                prop_assert!(tags.iter().map(String::len).sum::<usize>() <= text.len());
            }
        }
    }
}
